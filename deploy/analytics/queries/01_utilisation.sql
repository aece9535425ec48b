-- Which aircraft are used most? Hours with an event and events, per aircraft and day.
SELECT registration_number, day, active_hours, total_events
FROM aircraft_days
ORDER BY active_hours DESC, total_events DESC, registration_number, day
LIMIT 10
