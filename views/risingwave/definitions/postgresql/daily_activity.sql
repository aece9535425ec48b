-- Each day over all aircraft. Events are taken from the first tumbling definition by name whose windows are at most a day
-- long; without one the view is empty.
-- columns:
--   day timestamp: first instant of the day, UTC
--   total_events integer: events counted in the day
--   aircraft integer: aircraft that had an event in the day
-- key: day
-- order: day
-- materialized
SELECT day, CAST(sum(total_events) AS bigint) AS total_events, CAST(sum(aircraft) AS bigint) AS aircraft
FROM (SELECT window_definition, start AS day, total_events, aircraft
      FROM fleet_totals
      WHERE span = 'day'
      UNION ALL
      SELECT w.window_definition, date_trunc('day', w.window_start, 'UTC'), sum(w.event_count),
             -- An aircraft with a final window in the day is counted already.
             count(DISTINCT CASE WHEN coalesce(d.hours, 0) = 0 THEN w.registration_number END)
      FROM windows AS w
      LEFT JOIN day_totals AS d ON d.window_definition = w.window_definition AND d.registration_number = w.registration_number
        AND d.day = date_trunc('day', w.window_start, 'UTC')
      WHERE NOT w.final AND NOT w.withdrawn
      GROUP BY 1, 2) AS parts
WHERE window_definition = (
        SELECT min(window_definition) FROM definitions
        WHERE window_definition >= 'tumbling:' AND window_definition < 'tumbling;'
          AND width <= INTERVAL '1 day')
GROUP BY day
HAVING sum(aircraft) > 0
