-- Each aircraft over all time: how many events, the first and the last. Events are taken from the first tumbling definition
-- by name, or the first session definition when nothing tumbles, because their windows hold every event once.
-- columns:
--   registration_number text: registration of the aircraft, upper case
--   total_events integer: events counted
--   first_event timestamp?: time of the earliest event
--   last_event timestamp?: time of the latest event
-- key: registration_number
-- materialized
SELECT w.registration_number,
       CAST(sum(w.event_count) AS bigint) AS total_events,
       min(w.first_event_time) AS first_event,
       max(w.last_event_time) AS last_event
FROM (SELECT registration_number, event_count, first_event_time, last_event_time,
             CASE WHEN window_kind = 'tumbling' THEN '1' ELSE '2' END || window_definition AS place
      FROM windows
      WHERE NOT withdrawn) AS w
JOIN (SELECT min(place) AS place
      FROM (SELECT CASE WHEN window_kind = 'tumbling' THEN '1' ELSE '2' END || window_definition AS place
            FROM windows
            WHERE window_kind IN ('tumbling', 'session')
            GROUP BY CASE WHEN window_kind = 'tumbling' THEN '1' ELSE '2' END || window_definition) AS candidates) AS chosen
  ON w.place = chosen.place
GROUP BY w.registration_number
