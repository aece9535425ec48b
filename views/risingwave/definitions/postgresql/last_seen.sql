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
FROM (SELECT registration_number, last_event_time, last_event_type, aircraft_id,
             row_number() OVER (PARTITION BY registration_number
                                ORDER BY last_event_time DESC, window_definition, window_end) AS place
      FROM (SELECT registration_number, window_definition, last_window_end AS window_end, last_event AS last_event_time, last_event_type, aircraft_id
            FROM aircraft_totals
            WHERE last_event IS NOT NULL
            UNION ALL
            SELECT registration_number, window_definition, window_end, last_event_time, last_event_type, aircraft_id
            FROM windows
            WHERE NOT final AND NOT withdrawn AND last_event_time IS NOT NULL) AS parts) AS ranked
WHERE place = 1
