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
SELECT kind, reason, letters, first_event, last_event
FROM letter_totals
