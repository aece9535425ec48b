SELECT registration_number,
       CAST(sum(event_count) AS bigint) AS total_events,
       min(first_event_time) AS first_event,
       max(last_event_time) AS last_event
FROM windows
WHERE NOT withdrawn
  AND window_definition = coalesce(
        (SELECT min(window_definition) FROM windows
         WHERE window_definition >= 'tumbling:' AND window_definition < 'tumbling;'),
        (SELECT min(window_definition) FROM windows
         WHERE window_definition >= 'session:' AND window_definition < 'session;'))
GROUP BY registration_number
