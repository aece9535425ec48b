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
SELECT w.registration_number,
       date_trunc('day', w.window_start, 'UTC') AS day,
       CAST(sum(w.event_count) AS bigint) AS total_events,
       count(DISTINCT date_trunc('hour', w.window_start, 'UTC')) AS active_hours,
       min(w.first_event_time) AS first_event,
       max(w.last_event_time) AS last_event
FROM windows AS w
JOIN (SELECT min(window_definition) AS window_definition
      FROM (SELECT window_definition FROM windows
            WHERE window_kind = 'tumbling' AND window_end - window_start <= INTERVAL '1 hour'
            GROUP BY window_definition) AS candidates) AS chosen
  ON w.window_definition = chosen.window_definition
WHERE NOT w.withdrawn
GROUP BY w.registration_number, date_trunc('day', w.window_start, 'UTC')
