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
SELECT registration_number,
       day,
       CAST(sum(total_events) AS bigint) AS total_events,
       CAST(length(replace(CAST(CAST(bit_or(hours) AS bit(24)) AS text), '0', '')) AS bigint) AS active_hours,
       min(first_event) AS first_event,
       max(last_event) AS last_event
FROM (SELECT window_definition, registration_number, day, hours, total_events, first_event, last_event, windows, false AS final, false AS withdrawn
      FROM day_totals
      UNION ALL
      SELECT window_definition, registration_number, date_trunc('day', window_start AT TIME ZONE 'UTC') AT TIME ZONE 'UTC',
             1 << CAST(date_part('hour', window_start AT TIME ZONE 'UTC') AS integer), event_count, first_event_time, last_event_time,
             CAST(1 AS bigint), final, withdrawn
      FROM windows) AS parts -- without conditions of their own PostgreSQL reads them in order, and no further than the page
WHERE NOT final AND NOT withdrawn AND windows > 0
  AND window_definition = (
        SELECT min(window_definition) FROM definitions
        WHERE window_definition >= 'tumbling:' AND window_definition < 'tumbling;'
          AND width <= INTERVAL '1 hour')
GROUP BY registration_number, day
