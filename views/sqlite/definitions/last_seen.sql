-- Each aircraft's latest event, whichever window it is in.
-- columns:
--   registration_number text: registration of the aircraft, upper case
--   last_event_time timestamp?: time of the event
--   last_event_type text?: its event type
--   aircraft_id integer?: its aircraft id; null when it had none
-- key: registration_number
-- order: -last_event_time
-- materialized
SELECT registration_number, last_event_time, last_event_type, aircraft_id
FROM last_events
