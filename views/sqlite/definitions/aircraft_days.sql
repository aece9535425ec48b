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
SELECT registration_number, day, total_events, active_hours, first_event, last_event
FROM day_totals
WHERE windows > 0
  AND window_definition = (
        SELECT min(window_definition) FROM definitions
        WHERE window_definition >= 'tumbling:' AND window_definition < 'tumbling;' AND width <= 3600000)
