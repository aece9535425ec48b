-- Each hour over all aircraft, the one with most events first. Events are taken from the first tumbling definition by name
-- whose windows are at most an hour long; without one the view is empty.
-- columns:
--   hour timestamp: first instant of the hour, UTC
--   total_events integer: events counted in the hour
--   aircraft integer: aircraft that had an event in the hour
-- key: hour
-- order: -total_events
-- materialized
SELECT start AS hour, total_events, aircraft
FROM fleet_totals
WHERE span = 3600000
  AND aircraft > 0
  AND window_definition = (
        SELECT min(window_definition) FROM definitions
        WHERE window_definition >= 'tumbling:' AND window_definition < 'tumbling;' AND width <= 3600000)
