-- Each hour over all aircraft, the one with most events first. Events are taken from the first tumbling definition by name
-- whose windows are at most an hour long; without one the view is empty.
-- columns:
--   hour timestamp: first instant of the hour, UTC
--   total_events integer: events counted in the hour
--   aircraft integer: aircraft that had an event in the hour
-- key: hour
-- order: -total_events
-- materialized
SELECT date_trunc('hour', w.window_start, 'UTC') AS hour,
       CAST(sum(w.event_count) AS bigint) AS total_events,
       count(DISTINCT w.registration_number) AS aircraft
FROM windows AS w
JOIN (SELECT min(window_definition) AS window_definition
      FROM (SELECT window_definition FROM windows
            WHERE window_kind = 'tumbling' AND window_end - window_start <= INTERVAL '1 hour'
            GROUP BY window_definition) AS candidates) AS chosen
  ON w.window_definition = chosen.window_definition
WHERE NOT w.withdrawn
GROUP BY date_trunc('hour', w.window_start, 'UTC')
