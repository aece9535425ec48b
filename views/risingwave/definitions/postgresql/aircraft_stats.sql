-- Each aircraft over all time: how many events, the first and the last. Events are taken from the first tumbling definition
-- by name, or the first session definition when nothing tumbles, because their windows hold every event once.
-- columns:
--   registration_number text: registration of the aircraft, upper case
--   total_events integer: events counted
--   first_event timestamp?: time of the earliest event
--   last_event timestamp?: time of the latest event
-- key: registration_number
-- materialized
SELECT registration_number,
       CAST(sum(total_events) AS bigint) AS total_events,
       min(first_event) AS first_event,
       max(last_event) AS last_event
FROM (SELECT window_definition, registration_number, total_events, first_event, last_event
      FROM aircraft_totals
      WHERE windows > 0
      UNION ALL
      SELECT window_definition, registration_number, event_count, first_event_time, last_event_time
      FROM windows
      WHERE NOT final AND NOT withdrawn) AS parts
WHERE window_definition = coalesce(
        (SELECT min(window_definition) FROM definitions
         WHERE window_definition >= 'tumbling:' AND window_definition < 'tumbling;'),
        (SELECT min(window_definition) FROM definitions
         WHERE window_definition >= 'session:' AND window_definition < 'session;'))
GROUP BY registration_number
