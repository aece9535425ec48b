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
       CAST(sum(event_count) AS bigint) AS total_events,
       min(first_event_time) AS first_event,
       max(last_event_time) AS last_event
FROM windows
WHERE NOT withdrawn
  AND window_definition = coalesce(
        (SELECT min(window_definition) FROM windows
         WHERE window_definition >= 'tumbling:' AND window_definition < 'tumbling;'),
        (SELECT min(window_definition) FROM windows
         WHERE window_definition >= 'session:' AND window_definition < 'session;'))
GROUP BY registration_number
