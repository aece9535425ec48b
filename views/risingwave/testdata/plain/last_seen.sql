SELECT registration_number, last_event_time, last_event_type, aircraft_id
FROM (SELECT registration_number, last_event_time, last_event_type, aircraft_id,
             row_number() OVER (PARTITION BY registration_number
                                ORDER BY last_event_time DESC, window_definition, window_end) AS place
      FROM windows
      WHERE NOT withdrawn AND last_event_time IS NOT NULL) AS ranked
WHERE place = 1
