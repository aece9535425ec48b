-- The hundred aircraft with most events over all time.
-- columns:
--   registration_number text: registration of the aircraft, upper case
--   total_events integer: events counted
--   last_event timestamp?: time of the latest event
-- key: registration_number
-- order: -total_events
-- materialized
SELECT registration_number, total_events, last_event
FROM aircraft_stats
ORDER BY total_events DESC, registration_number
LIMIT 100
