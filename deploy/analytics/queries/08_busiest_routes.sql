-- Which routes are flown most, and how far are they?
SELECT payload ->> 'origin' AS origin, payload ->> 'dest' AS dest,
       count(*) AS landings, max(CAST(payload ->> 'distance_mi' AS bigint)) AS miles
FROM aircraft_events
WHERE event_type = 'landed'
GROUP BY payload ->> 'origin', payload ->> 'dest'
ORDER BY landings DESC, origin, dest
LIMIT 10
