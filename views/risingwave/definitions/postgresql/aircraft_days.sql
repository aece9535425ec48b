-- Each aircraft on each day: how much it was used. Events are taken from the first tumbling definition by name whose windows
-- are at most an hour long; without one the view is empty.
-- columns:
--   registration_number text: registration of the aircraft, upper case
--   day timestamp: first instant of the day, UTC
--   total_events integer: events counted in the day
--   active_hours integer: hours of the day with an event
--   first_event timestamp?: time of the day's earliest event
--   last_event timestamp?: time of the day's latest event
-- key: registration_number, day
-- materialized
SELECT registration_number,
       date_trunc('day', window_start, 'UTC') AS day,
       CAST(sum(event_count) AS bigint) AS total_events,
       count(DISTINCT date_trunc('hour', window_start, 'UTC')) AS active_hours,
       min(first_event_time) AS first_event,
       max(last_event_time) AS last_event
FROM windows
WHERE NOT withdrawn
  AND window_definition = (
        SELECT min(window_definition) FROM windows
        WHERE window_definition >= 'tumbling:' AND window_definition < 'tumbling;'
          AND window_end - window_start <= INTERVAL '1 hour')
GROUP BY registration_number, date_trunc('day', window_start, 'UTC')
