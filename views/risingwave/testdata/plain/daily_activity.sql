SELECT date_trunc('day', window_start, 'UTC') AS day,
       CAST(sum(event_count) AS bigint) AS total_events,
       count(DISTINCT registration_number) AS aircraft
FROM windows
WHERE NOT withdrawn
  AND window_definition = (
        SELECT min(window_definition) FROM windows
        WHERE window_definition >= 'tumbling:' AND window_definition < 'tumbling;'
          AND window_end - window_start <= INTERVAL '1 day')
GROUP BY date_trunc('day', window_start, 'UTC')
