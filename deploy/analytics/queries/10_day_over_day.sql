-- How does the fleet's day compare with the day before?
SELECT day, total_events, aircraft,
       total_events - lag(total_events) OVER (ORDER BY day) AS more_events,
       aircraft - lag(aircraft) OVER (ORDER BY day) AS more_aircraft
FROM daily_activity
ORDER BY day
