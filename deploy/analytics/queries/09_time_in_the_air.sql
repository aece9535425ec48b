-- How long are flights? Minutes from each departure to the next event of the aircraft, where that is its landing, by airport of departure.
SELECT origin,
       count(*) AS flights,
       round(CAST(avg(extract(epoch FROM next_time - event_time)) / 60 AS numeric), 1) AS mean_minutes
FROM (SELECT payload ->> 'origin' AS origin, event_type, event_time,
             lead(event_type) OVER (PARTITION BY registration_number ORDER BY event_time, source_offset) AS next_type,
             lead(event_time) OVER (PARTITION BY registration_number ORDER BY event_time, source_offset) AS next_time
      FROM aircraft_events) AS legs
WHERE event_type = 'departed' AND next_type = 'landed'
GROUP BY origin
ORDER BY flights DESC, origin
