-- How long is an aircraft busy without a pause of half an hour? Sessions by length, from window definition session:30m.
SELECT CASE WHEN last_event_time - first_event_time < INTERVAL '1 minute' THEN '1: under a minute'
            WHEN last_event_time - first_event_time < INTERVAL '30 minutes' THEN '2: under half an hour'
            WHEN last_event_time - first_event_time < INTERVAL '1 hour' THEN '3: under an hour'
            ELSE '4: an hour or more' END AS length,
       count(*) AS sessions,
       CAST(sum(event_count) AS bigint) AS events
FROM aircraft_windows
WHERE window_definition = 'session:30m'
GROUP BY CASE WHEN last_event_time - first_event_time < INTERVAL '1 minute' THEN '1: under a minute'
              WHEN last_event_time - first_event_time < INTERVAL '30 minutes' THEN '2: under half an hour'
              WHEN last_event_time - first_event_time < INTERVAL '1 hour' THEN '3: under an hour'
              ELSE '4: an hour or more' END
ORDER BY length
