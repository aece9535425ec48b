-- Which aircraft were to fly and did not? Cancellations per aircraft, from the counts per event type in each window.
SELECT registration_number,
       CAST(sum(CAST(event_types ->> 'cancelled' AS bigint)) AS bigint) AS cancelled,
       max(window_start) AS last_hour
FROM aircraft_windows
WHERE window_definition = 'tumbling:1h' AND event_types ->> 'cancelled' IS NOT NULL
GROUP BY registration_number
ORDER BY cancelled DESC, registration_number
LIMIT 10
