-- When is most going on? The hours with most events over the whole fleet.
SELECT hour, total_events, aircraft
FROM busiest_hours
ORDER BY total_events DESC, hour
LIMIT 10
