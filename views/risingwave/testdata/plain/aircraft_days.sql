SELECT registration_number,
       date_trunc('day', window_start, 'UTC') AS day,
       CAST(sum(event_count) AS bigint) AS total_events,
       count(DISTINCT date_trunc('hour', window_start, 'UTC')) AS active_hours,
       min(first_event_time) AS first_event,
       max(last_event_time) AS last_event
FROM windows
WHERE NOT withdrawn
  AND window_definition = (
        SELECT min(window_definition) FROM windows
        WHERE window_definition >= 'tumbling:' AND window_definition < 'tumbling;'
          AND window_end - window_start <= INTERVAL '1 hour')
GROUP BY registration_number, date_trunc('day', window_start, 'UTC')
