-- How many events come too late to count? Per day of the event, against those that were counted.
SELECT d.day, d.total_events AS counted, coalesce(l.late, 0) AS late,
       round(100.0 * coalesce(l.late, 0) / (d.total_events + coalesce(l.late, 0)), 2) AS percent_late
FROM daily_activity AS d
LEFT JOIN (SELECT date_trunc('day', event_time, 'UTC') AS day, count(*) AS late
           FROM late_events
           GROUP BY date_trunc('day', event_time, 'UTC')) AS l ON l.day = d.day
ORDER BY d.day
