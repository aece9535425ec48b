-- How many late events and dead letters there are, by reason.
-- columns:
--   kind text: late or dead
--   reason text: why it is one
--   letters integer: how many
--   first_event timestamp?: earliest event time among them; null when no event time is known
--   last_event timestamp?: latest event time among them; null when no event time is known
-- key: kind, reason
-- order: -letters
-- materialized
SELECT 'late' AS kind, reason, count(*) AS letters, min(event_time) AS first_event, max(event_time) AS last_event
FROM late_events
GROUP BY reason
UNION ALL
SELECT 'dead' AS kind, reason, count(*) AS letters, min(event_time) AS first_event, max(event_time) AS last_event
FROM dead_letters
GROUP BY reason
