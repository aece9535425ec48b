-- Every window's current result, one row per aircraft, window definition and window start. Sessions that a merge absorbed
-- are left out.
-- columns:
--   registration_number text: registration of the aircraft, upper case
--   window_definition text: which windows these are, such as tumbling:1h
--   window_kind text: tumbling, hopping, cumulating or session
--   window_start timestamp: first instant of the window
--   window_end timestamp: first instant behind the window
--   event_count integer: events counted in the window
--   event_types json: events per event type, as an object; kinds beyond the 64th are counted as "other"
--   first_event_time timestamp?: time of the earliest event
--   last_event_time timestamp?: time of the latest event
--   last_event_type text?: event type of the latest event
--   aircraft_id integer?: aircraft id of the latest event; null when it had none
--   revision integer: grows with every change of the row
--   final boolean: true once no further event can change the row
-- key: registration_number, window_definition, window_start, window_end
SELECT registration_number,
       window_definition,
       window_kind,
       window_start,
       window_end,
       event_count,
       event_types,
       first_event_time,
       last_event_time,
       last_event_type,
       aircraft_id,
       revision,
       final
FROM windows
WHERE NOT withdrawn
