-- What klgstream keeps in PostgreSQL. psql can run this file; running it again changes nothing.
-- Texts compare by bytes, as they do everywhere else in the system.

CREATE TABLE IF NOT EXISTS windows (
  registration_number varchar COLLATE "C" NOT NULL,
  window_definition varchar COLLATE "C" NOT NULL,
  -- The border that identifies the window: its start, or its end where windows share their starts (cumulating).
  window_anchor timestamptz NOT NULL,
  window_start timestamptz NOT NULL,
  window_kind varchar COLLATE "C" NOT NULL,
  window_end timestamptz NOT NULL,
  event_count bigint NOT NULL,
  event_types jsonb NOT NULL,
  first_event_time timestamptz,
  last_event_time timestamptz,
  last_event_type varchar COLLATE "C",
  aircraft_id bigint,
  revision bigint NOT NULL,
  final boolean NOT NULL,
  withdrawn boolean NOT NULL,
  PRIMARY KEY (registration_number, window_definition, window_anchor)
) WITH (fillfactor = 80);

CREATE INDEX IF NOT EXISTS windows_by_definition ON windows (window_definition, window_start);

CREATE TABLE IF NOT EXISTS late_events (
  source_topic varchar COLLATE "C" NOT NULL,
  source_partition integer NOT NULL,
  source_offset bigint NOT NULL,
  reason varchar COLLATE "C" NOT NULL,
  detail varchar COLLATE "C" NOT NULL,
  event_time timestamptz,
  registration_number varchar COLLATE "C",
  record_key varchar COLLATE "C",
  payload varchar COLLATE "C",
  payload_base64 varchar COLLATE "C",
  PRIMARY KEY (source_topic, source_partition, source_offset)
);

CREATE TABLE IF NOT EXISTS dead_letters (
  source_topic varchar COLLATE "C" NOT NULL,
  source_partition integer NOT NULL,
  source_offset bigint NOT NULL,
  reason varchar COLLATE "C" NOT NULL,
  detail varchar COLLATE "C" NOT NULL,
  event_time timestamptz,
  registration_number varchar COLLATE "C",
  record_key varchar COLLATE "C",
  payload varchar COLLATE "C",
  payload_base64 varchar COLLATE "C",
  PRIMARY KEY (source_topic, source_partition, source_offset)
);

-- The newest windows first, without putting all into order.

CREATE INDEX IF NOT EXISTS windows_by_start ON windows (window_start DESC, registration_number, window_definition);

-- Each aircraft on each day: how much it was used. Events are taken from the first tumbling definition by name whose windows are at most an hour long; without one the view is empty.
CREATE OR REPLACE VIEW "aircraft_days" AS
SELECT registration_number,
       date_trunc('day', window_start, 'UTC') AS day,
       CAST(sum(event_count) AS bigint) AS total_events,
       count(DISTINCT date_trunc('hour', window_start, 'UTC')) AS active_hours,
       min(first_event_time) AS first_event,
       max(last_event_time) AS last_event
FROM windows
WHERE NOT withdrawn
  AND window_definition = (
        SELECT min(window_definition) FROM windows
        WHERE window_definition >= 'tumbling:' AND window_definition < 'tumbling;'
          AND window_end - window_start <= INTERVAL '1 hour')
GROUP BY registration_number, date_trunc('day', window_start, 'UTC');

-- Each aircraft over all time: how many events, the first and the last. Events are taken from the first tumbling definition by name, or the first session definition when nothing tumbles, because their windows hold every event once.
CREATE OR REPLACE VIEW "aircraft_stats" AS
SELECT registration_number,
       CAST(sum(event_count) AS bigint) AS total_events,
       min(first_event_time) AS first_event,
       max(last_event_time) AS last_event
FROM windows
WHERE NOT withdrawn
  AND window_definition = coalesce(
        (SELECT min(window_definition) FROM windows
         WHERE window_definition >= 'tumbling:' AND window_definition < 'tumbling;'),
        (SELECT min(window_definition) FROM windows
         WHERE window_definition >= 'session:' AND window_definition < 'session;'))
GROUP BY registration_number;

-- Every window's current result, one row per aircraft, window definition and window start. Sessions that a merge absorbed are left out.
CREATE OR REPLACE VIEW "aircraft_windows" AS
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
CREATE OR REPLACE VIEW "busiest_aircraft" AS
SELECT registration_number, total_events, last_event
FROM aircraft_stats
ORDER BY total_events DESC, registration_number
LIMIT 100;

-- Each hour over all aircraft, the one with most events first. Events are taken from the first tumbling definition by name whose windows are at most an hour long; without one the view is empty.
CREATE OR REPLACE VIEW "busiest_hours" AS
SELECT date_trunc('hour', window_start, 'UTC') AS hour,
       CAST(sum(event_count) AS bigint) AS total_events,
       count(DISTINCT registration_number) AS aircraft
FROM windows
WHERE NOT withdrawn
  AND window_definition = (
        SELECT min(window_definition) FROM windows
        WHERE window_definition >= 'tumbling:' AND window_definition < 'tumbling;'
          AND window_end - window_start <= INTERVAL '1 hour')
GROUP BY date_trunc('hour', window_start, 'UTC');

-- Each day over all aircraft. Events are taken from the first tumbling definition by name whose windows are at most a day long; without one the view is empty.
CREATE OR REPLACE VIEW "daily_activity" AS
SELECT date_trunc('day', window_start, 'UTC') AS day,
       CAST(sum(event_count) AS bigint) AS total_events,
       count(DISTINCT registration_number) AS aircraft
FROM windows
WHERE NOT withdrawn
  AND window_definition = (
        SELECT min(window_definition) FROM windows
        WHERE window_definition >= 'tumbling:' AND window_definition < 'tumbling;'
          AND window_end - window_start <= INTERVAL '1 day')
GROUP BY date_trunc('day', window_start, 'UTC');

-- Each aircraft's latest event, whichever window it is in.
CREATE OR REPLACE VIEW "last_seen" AS
SELECT registration_number, last_event_time, last_event_type, aircraft_id
FROM (SELECT registration_number, last_event_time, last_event_type, aircraft_id,
             row_number() OVER (PARTITION BY registration_number
                                ORDER BY last_event_time DESC, window_definition, window_end) AS place
      FROM windows
      WHERE NOT withdrawn AND last_event_time IS NOT NULL) AS ranked
WHERE place = 1;

-- How many late events and dead letters there are, by reason.
CREATE OR REPLACE VIEW "letter_counts" AS
SELECT 'late' AS kind, reason, count(*) AS letters, min(event_time) AS first_event, max(event_time) AS last_event
FROM late_events
GROUP BY reason
UNION ALL
SELECT 'dead' AS kind, reason, count(*) AS letters, min(event_time) AS first_event, max(event_time) AS last_event
FROM dead_letters
GROUP BY reason;
