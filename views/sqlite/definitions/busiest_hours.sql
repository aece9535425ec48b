-- Each hour over all aircraft, the one with most events first. Events are taken from the first tumbling definition by name
-- whose windows are at most an hour long; without one the view is empty.
-- columns:
--   hour timestamp: first instant of the hour, UTC
--   total_events integer: events counted in the hour
--   aircraft integer: aircraft that had an event in the hour
-- key: hour
-- order: -total_events
-- materialized
SELECT window_start - (window_start % 3600000 + 3600000) % 3600000 AS hour,
       CAST(sum(event_count) AS bigint) AS total_events,
       count(DISTINCT registration_number) AS aircraft
FROM windows
WHERE NOT withdrawn
  AND window_definition = (
        SELECT min(window_definition) FROM windows
        WHERE window_definition >= 'tumbling:' AND window_definition < 'tumbling;'
          AND window_end - window_start <= 3600000)
GROUP BY window_start - (window_start % 3600000 + 3600000) % 3600000
