-- Which aircraft have gone quiet? Those with nothing in the last five days of what is known, that were seen more than four times before.
SELECT s.registration_number, s.last_event_time, s.last_event_type, a.total_events
FROM last_seen AS s
JOIN aircraft_stats AS a ON a.registration_number = s.registration_number
WHERE s.last_event_time < (SELECT max(last_event_time) FROM last_seen) - INTERVAL '5 days' AND a.total_events > 4
ORDER BY s.last_event_time, s.registration_number
LIMIT 10
