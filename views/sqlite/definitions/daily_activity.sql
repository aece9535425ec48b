-- Each day over all aircraft. Events are taken from the first tumbling definition by name whose windows are at most a day
-- long; without one the view is empty.
-- columns:
--   day timestamp: first instant of the day, UTC
--   total_events integer: events counted in the day
--   aircraft integer: aircraft that had an event in the day
-- key: day
-- order: day
-- materialized
SELECT start AS day, total_events, aircraft
FROM fleet_totals
WHERE span = 86400000
  AND aircraft > 0
  AND window_definition = (
        SELECT min(window_definition) FROM definitions
        WHERE window_definition >= 'tumbling:' AND window_definition < 'tumbling;' AND width <= 86400000)
