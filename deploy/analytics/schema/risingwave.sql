-- What klgstream keeps in RisingWave. psql can run this file; running it again changes nothing.
-- Of two rows with one key the one with the higher revision stays, whatever their order.

CREATE TABLE IF NOT EXISTS windows (
  registration_number varchar,
  window_definition varchar,
  -- The border that identifies the window: its start, or its end where windows share their starts (cumulating).
  window_anchor timestamptz,
  window_start timestamptz,
  window_kind varchar,
  window_end timestamptz,
  event_count bigint,
  event_types jsonb,
  first_event_time timestamptz,
  last_event_time timestamptz,
  last_event_type varchar,
  aircraft_id bigint,
  revision bigint,
  final boolean,
  withdrawn boolean,
  PRIMARY KEY (registration_number, window_definition, window_anchor)
) ON CONFLICT DO UPDATE FULL WITH VERSION COLUMN (revision);

CREATE TABLE IF NOT EXISTS late_events (
  source_topic varchar,
  source_partition integer,
  source_offset bigint,
  reason varchar,
  detail varchar,
  event_time timestamptz,
  registration_number varchar,
  record_key varchar,
  payload varchar,
  payload_base64 varchar,
  PRIMARY KEY (source_topic, source_partition, source_offset)
) ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS dead_letters (
  source_topic varchar,
  source_partition integer,
  source_offset bigint,
  reason varchar,
  detail varchar,
  event_time timestamptz,
  registration_number varchar,
  record_key varchar,
  payload varchar,
  payload_base64 varchar,
  PRIMARY KEY (source_topic, source_partition, source_offset)
) ON CONFLICT DO NOTHING;

-- Each aircraft on each day: how much it was used. Events are taken from the first tumbling definition by name whose windows are at most an hour long; without one the view is empty.
CREATE MATERIALIZED VIEW IF NOT EXISTS "aircraft_days" AS
SELECT w.registration_number,
       date_trunc('day', w.window_start, 'UTC') AS day,
       CAST(sum(w.event_count) AS bigint) AS total_events,
       count(DISTINCT date_trunc('hour', w.window_start, 'UTC')) AS active_hours,
       min(w.first_event_time) AS first_event,
       max(w.last_event_time) AS last_event
FROM windows AS w
JOIN (SELECT min(window_definition) AS window_definition
      FROM (SELECT window_definition FROM windows
            WHERE window_kind = 'tumbling' AND window_end - window_start <= INTERVAL '1 hour'
            GROUP BY window_definition) AS candidates) AS chosen
  ON w.window_definition = chosen.window_definition
WHERE NOT w.withdrawn
GROUP BY w.registration_number, date_trunc('day', w.window_start, 'UTC');

-- Each aircraft over all time: how many events, the first and the last. Events are taken from the first tumbling definition by name, or the first session definition when nothing tumbles, because their windows hold every event once.
CREATE MATERIALIZED VIEW IF NOT EXISTS "aircraft_stats" AS
SELECT w.registration_number,
       CAST(sum(w.event_count) AS bigint) AS total_events,
       min(w.first_event_time) AS first_event,
       max(w.last_event_time) AS last_event
FROM (SELECT registration_number, event_count, first_event_time, last_event_time,
             CASE WHEN window_kind = 'tumbling' THEN '1' ELSE '2' END || window_definition AS place
      FROM windows
      WHERE NOT withdrawn) AS w
JOIN (SELECT min(place) AS place
      FROM (SELECT CASE WHEN window_kind = 'tumbling' THEN '1' ELSE '2' END || window_definition AS place
            FROM windows
            WHERE window_kind IN ('tumbling', 'session')
            GROUP BY CASE WHEN window_kind = 'tumbling' THEN '1' ELSE '2' END || window_definition) AS candidates) AS chosen
  ON w.place = chosen.place
GROUP BY w.registration_number;

-- Every window's current result, one row per aircraft, window definition and window start. Sessions that a merge absorbed are left out.
CREATE VIEW IF NOT EXISTS "aircraft_windows" AS
SELECT registration_number,
       window_definition,
       window_kind,
       window_start,
       window_end,
       event_count,
       event_types,
       first_event_time,
       last_event_time,
       last_event_type,
       aircraft_id,
       revision,
       final
FROM windows
WHERE NOT withdrawn;

-- The hundred aircraft with most events over all time.
CREATE MATERIALIZED VIEW IF NOT EXISTS "busiest_aircraft" AS
SELECT registration_number, total_events, last_event
FROM aircraft_stats
ORDER BY total_events DESC, registration_number
LIMIT 100;

-- Each hour over all aircraft, the one with most events first. Events are taken from the first tumbling definition by name whose windows are at most an hour long; without one the view is empty.
CREATE MATERIALIZED VIEW IF NOT EXISTS "busiest_hours" AS
SELECT date_trunc('hour', w.window_start, 'UTC') AS hour,
       CAST(sum(w.event_count) AS bigint) AS total_events,
       count(DISTINCT w.registration_number) AS aircraft
FROM windows AS w
JOIN (SELECT min(window_definition) AS window_definition
      FROM (SELECT window_definition FROM windows
            WHERE window_kind = 'tumbling' AND window_end - window_start <= INTERVAL '1 hour'
            GROUP BY window_definition) AS candidates) AS chosen
  ON w.window_definition = chosen.window_definition
WHERE NOT w.withdrawn
GROUP BY date_trunc('hour', w.window_start, 'UTC');

-- Each day over all aircraft. Events are taken from the first tumbling definition by name whose windows are at most a day long; without one the view is empty.
CREATE MATERIALIZED VIEW IF NOT EXISTS "daily_activity" AS
SELECT date_trunc('day', w.window_start, 'UTC') AS day,
       CAST(sum(w.event_count) AS bigint) AS total_events,
       count(DISTINCT w.registration_number) AS aircraft
FROM windows AS w
JOIN (SELECT min(window_definition) AS window_definition
      FROM (SELECT window_definition FROM windows
            WHERE window_kind = 'tumbling' AND window_end - window_start <= INTERVAL '1 day'
            GROUP BY window_definition) AS candidates) AS chosen
  ON w.window_definition = chosen.window_definition
WHERE NOT w.withdrawn
GROUP BY date_trunc('day', w.window_start, 'UTC');

-- Each aircraft's latest event, whichever window it is in.
CREATE MATERIALIZED VIEW IF NOT EXISTS "last_seen" AS
SELECT registration_number, last_event_time, last_event_type, aircraft_id
FROM (SELECT registration_number, last_event_time, last_event_type, aircraft_id,
             row_number() OVER (PARTITION BY registration_number
                                ORDER BY last_event_time DESC, window_definition, window_end) AS place
      FROM windows
      WHERE NOT withdrawn AND last_event_time IS NOT NULL) AS ranked
WHERE place = 1;

-- How many late events and dead letters there are, by reason.
CREATE MATERIALIZED VIEW IF NOT EXISTS "letter_counts" AS
SELECT 'late' AS kind, reason, count(*) AS letters, min(event_time) AS first_event, max(event_time) AS last_event
FROM late_events
GROUP BY reason
UNION ALL
SELECT 'dead' AS kind, reason, count(*) AS letters, min(event_time) AS first_event, max(event_time) AS last_event
FROM dead_letters
GROUP BY reason;
