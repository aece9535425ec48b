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

-- What views add up of windows that are final, kept by triggers in the transaction that changes them, so that no reader has to read
-- every window: open windows are few and have an index of their own.

-- Replaces an index that only totals were read by.
CREATE INDEX IF NOT EXISTS windows_open ON windows (
  window_definition, registration_number, (date_trunc('day', window_start AT TIME ZONE 'UTC') AT TIME ZONE 'UTC')
) WHERE NOT final AND NOT withdrawn;
DROP INDEX IF EXISTS windows_by_definition;

-- Window definitions that have or had a window.
CREATE TABLE IF NOT EXISTS definitions (
  window_definition varchar COLLATE "C" PRIMARY KEY,
  -- Of the shortest window seen.
  width interval NOT NULL
);

-- Per aircraft, over the final windows of one definition that are not withdrawn.
CREATE TABLE IF NOT EXISTS aircraft_totals (
  window_definition varchar COLLATE "C" NOT NULL,
  registration_number varchar COLLATE "C" NOT NULL,
  windows bigint NOT NULL,
  total_events bigint NOT NULL,
  first_event timestamptz,
  last_event timestamptz,
  -- Of the latest event, and the window it is in: of several the first to end.
  last_window_end timestamptz,
  last_event_type varchar COLLATE "C",
  aircraft_id bigint,
  PRIMARY KEY (window_definition, registration_number)
) WITH (fillfactor = 70);

-- The same per UTC day that windows start in, of tumbling definitions.
CREATE TABLE IF NOT EXISTS day_totals (
  window_definition varchar COLLATE "C" NOT NULL,
  registration_number varchar COLLATE "C" NOT NULL,
  day timestamptz NOT NULL,
  windows bigint NOT NULL,
  -- UTC hours that a window starts in, a bit each, midnight's the lowest; and what it was before the row last changed.
  hours integer NOT NULL,
  hours_before integer NOT NULL,
  total_events bigint NOT NULL,
  first_event timestamptz,
  last_event timestamptz,
  PRIMARY KEY (window_definition, registration_number, day)
) WITH (fillfactor = 70);

-- Over all aircraft, per UTC day and hour (span) that final windows of tumbling definitions start in. A row is the sum of its
-- parts: writers of different parts do not wait for each other.
CREATE TABLE IF NOT EXISTS fleet_totals (
  window_definition varchar COLLATE "C" NOT NULL,
  span varchar COLLATE "C" NOT NULL,
  start timestamptz NOT NULL,
  part integer NOT NULL,
  aircraft bigint NOT NULL,
  total_events bigint NOT NULL,
  PRIMARY KEY (window_definition, span, start, part)
) WITH (fillfactor = 70);

-- Changes the totals by windows that became final (added) and by windows that are no longer what they were when final (removed).
-- Numbers are what they were and the difference. Earliest, latest and hours cannot be told from a removed window, so those are looked
-- for again among the windows there are, once the row of the total is locked: whoever adds to it has then either committed, and its
-- windows are seen, or adds later. To find a window twice does no harm, which matters because the updated rows of a statement come
-- here before its inserted ones.
CREATE OR REPLACE FUNCTION klgstream_add(added windows[], removed windows[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  emptied day_totals[] := '{}';
  filled day_totals[] := '{}';
BEGIN
  IF cardinality(removed) > 0 THEN
    -- In the order in which everybody locks rows, so that nobody waits in a circle.
    PERFORM FROM aircraft_totals AS t
    JOIN (SELECT DISTINCT window_definition, registration_number FROM unnest(added || removed)) AS k USING (window_definition, registration_number)
    ORDER BY window_definition, registration_number
    FOR UPDATE OF t;
    UPDATE aircraft_totals AS t
    SET windows = t.windows - k.windows, total_events = t.total_events - k.total_events,
        first_event = NULL, last_event = NULL, last_window_end = NULL, last_event_type = NULL, aircraft_id = NULL
    FROM (SELECT window_definition, registration_number, count(*) AS windows, sum(event_count) AS total_events
          FROM unnest(removed) GROUP BY 1, 2) AS k
    WHERE t.window_definition = k.window_definition AND t.registration_number = k.registration_number;
    WITH those AS (
      UPDATE day_totals AS t
      SET windows = t.windows - k.windows, total_events = t.total_events - k.total_events,
          hours = 0, hours_before = t.hours, first_event = NULL, last_event = NULL
      FROM (SELECT window_definition, registration_number, date_trunc('day', window_start, 'UTC') AS day, count(*) AS windows, sum(event_count) AS total_events
            FROM unnest(removed) GROUP BY 1, 2, 3) AS k
      WHERE t.window_definition = k.window_definition AND t.registration_number = k.registration_number AND t.day = k.day
      RETURNING t AS one)
    SELECT coalesce(array_agg(one), '{}') INTO emptied FROM those;
  END IF;

  INSERT INTO aircraft_totals AS t
  SELECT window_definition, registration_number, sum(counted), sum(counted * event_count), min(first_event_time), max(last_event_time),
         max(window_end) FILTER (WHERE place = 1), max(last_event_type) FILTER (WHERE place = 1), max(aircraft_id) FILTER (WHERE place = 1)
  FROM (SELECT *, row_number() OVER (PARTITION BY window_definition, registration_number ORDER BY last_event_time DESC NULLS LAST, window_end) AS place
        FROM (SELECT *, 1 AS counted FROM unnest(added)
              UNION ALL
              SELECT w.*, 0
              FROM (SELECT DISTINCT window_definition, registration_number FROM unnest(removed)) AS k
              JOIN windows AS w ON w.window_definition = k.window_definition AND w.registration_number = k.registration_number
              WHERE w.final AND NOT w.withdrawn) AS these) AS ranked
  GROUP BY 1, 2
  ORDER BY 1, 2
  ON CONFLICT (window_definition, registration_number) DO UPDATE SET
    windows = t.windows + excluded.windows, total_events = t.total_events + excluded.total_events,
    first_event = least(t.first_event, excluded.first_event), last_event = greatest(t.last_event, excluded.last_event),
    last_window_end = CASE WHEN t.last_event IS NULL OR (excluded.last_event, t.last_window_end) > (t.last_event, excluded.last_window_end) THEN excluded.last_window_end ELSE t.last_window_end END,
    last_event_type = CASE WHEN t.last_event IS NULL OR (excluded.last_event, t.last_window_end) > (t.last_event, excluded.last_window_end) THEN excluded.last_event_type ELSE t.last_event_type END,
    aircraft_id = CASE WHEN t.last_event IS NULL OR (excluded.last_event, t.last_window_end) > (t.last_event, excluded.last_window_end) THEN excluded.aircraft_id ELSE t.aircraft_id END;

  WITH those AS (
    INSERT INTO day_totals AS t
    SELECT window_definition, registration_number, date_trunc('day', window_start, 'UTC'), sum(counted),
           bit_or(1 << CAST(date_part('hour', window_start AT TIME ZONE 'UTC') AS integer)), 0,
           sum(counted * event_count), min(first_event_time), max(last_event_time)
    FROM (SELECT *, 1 AS counted FROM unnest(added)
          UNION ALL
          SELECT w.*, 0
          FROM (SELECT DISTINCT window_definition, registration_number, date_trunc('day', window_start, 'UTC') AS day FROM unnest(removed)) AS k
          JOIN windows AS w ON w.window_definition = k.window_definition AND w.registration_number = k.registration_number
           AND w.window_anchor >= k.day AND w.window_anchor < k.day + INTERVAL '24 hours'
          WHERE w.final AND NOT w.withdrawn) AS these
    WHERE window_definition >= 'tumbling:' AND window_definition < 'tumbling;'
    GROUP BY 1, 2, 3
    ORDER BY 1, 2, 3
    ON CONFLICT (window_definition, registration_number, day) DO UPDATE SET
      windows = t.windows + excluded.windows, hours = t.hours | excluded.hours, hours_before = t.hours,
      total_events = t.total_events + excluded.total_events,
      first_event = least(t.first_event, excluded.first_event), last_event = greatest(t.last_event, excluded.last_event)
    RETURNING t AS one)
  SELECT coalesce(array_agg(one), '{}') INTO filled FROM those;

  INSERT INTO fleet_totals AS t
  WITH changed_days AS (
    SELECT window_definition, day, hours, hours_before, count(*) AS aircraft
    FROM unnest(emptied || filled)
    WHERE hours <> hours_before
    GROUP BY 1, 2, 3, 4
  ), changed_events AS (
    SELECT window_definition, date_trunc('hour', window_start, 'UTC') AS hour, sum(event_count) AS events
    FROM (SELECT window_definition, window_start, event_count FROM unnest(added)
          UNION ALL
          SELECT window_definition, window_start, -event_count FROM unnest(removed)) AS both_of
    WHERE window_definition >= 'tumbling:' AND window_definition < 'tumbling;'
    GROUP BY 1, 2
  )
  SELECT window_definition, span, start, pg_backend_pid() % 8, sum(aircraft), sum(events)
  FROM (
    SELECT window_definition, 'day' AS span, day AS start,
           aircraft * (CAST(hours <> 0 AS integer) - CAST(hours_before <> 0 AS integer)) AS aircraft, 0 AS events
    FROM changed_days
    UNION ALL
    SELECT window_definition, 'hour', day + h * INTERVAL '1 hour', aircraft * ((hours >> h & 1) - (hours_before >> h & 1)), 0
    FROM changed_days CROSS JOIN generate_series(0, 23) AS h
    WHERE (hours # hours_before) >> h & 1 = 1
    UNION ALL
    SELECT window_definition, 'day', date_trunc('day', hour, 'UTC'), 0, events FROM changed_events
    UNION ALL
    SELECT window_definition, 'hour', hour, 0, events FROM changed_events) AS changes
  GROUP BY 1, 2, 3
  HAVING sum(aircraft) <> 0 OR sum(events) <> 0
  ORDER BY 1, 2, 3
  ON CONFLICT (window_definition, span, start, part) DO UPDATE SET
    aircraft = t.aircraft + excluded.aircraft, total_events = t.total_events + excluded.total_events;
END $$;

CREATE OR REPLACE FUNCTION klgstream_windows_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  added windows[] := '{}';
  removed windows[] := '{}';
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO definitions AS t
    SELECT n.window_definition, n.width
    FROM (SELECT window_definition, min(window_end - window_start) AS width FROM incoming GROUP BY 1) AS n
    WHERE NOT EXISTS (SELECT FROM definitions AS d WHERE d.window_definition = n.window_definition AND d.width <= n.width)
    ORDER BY 1
    ON CONFLICT (window_definition) DO UPDATE SET width = least(t.width, excluded.width);
  END IF;
  IF TG_OP <> 'DELETE' THEN
    SELECT coalesce(array_agg(w), '{}') INTO added FROM incoming AS w WHERE final AND NOT withdrawn;
  END IF;
  IF TG_OP <> 'INSERT' THEN
    SELECT coalesce(array_agg(w), '{}') INTO removed FROM outgoing AS w WHERE final AND NOT withdrawn;
  END IF;
  IF cardinality(added) + cardinality(removed) > 0 THEN
    PERFORM klgstream_add(added, removed);
  END IF;
  RETURN NULL;
END $$;

-- Adds up everything from the windows, while nobody writes: for rows from before there were totals.
CREATE OR REPLACE FUNCTION klgstream_add_up() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  LOCK TABLE windows IN SHARE ROW EXCLUSIVE MODE;
  DELETE FROM definitions;
  DELETE FROM aircraft_totals;
  DELETE FROM day_totals;
  DELETE FROM fleet_totals;
  INSERT INTO definitions SELECT window_definition, min(window_end - window_start) FROM windows GROUP BY 1;
  INSERT INTO aircraft_totals
  SELECT window_definition, registration_number, count(*), sum(event_count), min(first_event_time), max(last_event_time),
         max(window_end) FILTER (WHERE place = 1), max(last_event_type) FILTER (WHERE place = 1), max(aircraft_id) FILTER (WHERE place = 1)
  FROM (SELECT *, row_number() OVER (PARTITION BY window_definition, registration_number ORDER BY last_event_time DESC NULLS LAST, window_end) AS place
        FROM windows
        WHERE final AND NOT withdrawn) AS ranked
  GROUP BY 1, 2;
  INSERT INTO day_totals
  SELECT window_definition, registration_number, date_trunc('day', window_start, 'UTC'), count(*),
         bit_or(1 << CAST(date_part('hour', window_start AT TIME ZONE 'UTC') AS integer)), 0,
         sum(event_count), min(first_event_time), max(last_event_time)
  FROM windows
  WHERE final AND NOT withdrawn AND window_definition >= 'tumbling:' AND window_definition < 'tumbling;'
  GROUP BY 1, 2, 3;
  INSERT INTO fleet_totals
  SELECT window_definition, 'day', day, 0, count(*), sum(total_events) FROM day_totals GROUP BY 1, 3
  UNION ALL
  SELECT window_definition, 'hour', date_trunc('hour', window_start, 'UTC'), 0, count(DISTINCT registration_number), sum(event_count)
  FROM windows
  WHERE final AND NOT withdrawn AND window_definition >= 'tumbling:' AND window_definition < 'tumbling;'
  GROUP BY 1, 3;
END $$;

CREATE OR REPLACE FUNCTION klgstream_windows_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  TRUNCATE definitions, aircraft_totals, day_totals, fleet_totals;
  RETURN NULL;
END $$;

DROP TRIGGER IF EXISTS windows_inserted ON windows;
CREATE TRIGGER windows_inserted AFTER INSERT ON windows
  REFERENCING NEW TABLE AS incoming FOR EACH STATEMENT EXECUTE FUNCTION klgstream_windows_changed();
DROP TRIGGER IF EXISTS windows_updated ON windows;
CREATE TRIGGER windows_updated AFTER UPDATE ON windows
  REFERENCING OLD TABLE AS outgoing NEW TABLE AS incoming FOR EACH STATEMENT EXECUTE FUNCTION klgstream_windows_changed();
DROP TRIGGER IF EXISTS windows_deleted ON windows;
CREATE TRIGGER windows_deleted AFTER DELETE ON windows
  REFERENCING OLD TABLE AS outgoing FOR EACH STATEMENT EXECUTE FUNCTION klgstream_windows_changed();
DROP TRIGGER IF EXISTS windows_truncated ON windows;
CREATE TRIGGER windows_truncated AFTER TRUNCATE ON windows
  FOR EACH STATEMENT EXECUTE FUNCTION klgstream_windows_gone();

SELECT klgstream_add_up();

-- Each aircraft on each day: how much it was used. Events are taken from the first tumbling definition by name whose windows are at most an hour long; without one the view is empty.
CREATE OR REPLACE VIEW "aircraft_days" AS
SELECT registration_number,
       day,
       CAST(sum(total_events) AS bigint) AS total_events,
       CAST(length(replace(CAST(CAST(bit_or(hours) AS bit(24)) AS text), '0', '')) AS bigint) AS active_hours,
       min(first_event) AS first_event,
       max(last_event) AS last_event
FROM (SELECT window_definition, registration_number, day, hours, total_events, first_event, last_event, windows, false AS final, false AS withdrawn
      FROM day_totals
      UNION ALL
      SELECT window_definition, registration_number, date_trunc('day', window_start AT TIME ZONE 'UTC') AT TIME ZONE 'UTC',
             1 << CAST(date_part('hour', window_start AT TIME ZONE 'UTC') AS integer), event_count, first_event_time, last_event_time,
             CAST(1 AS bigint), final, withdrawn
      FROM windows) AS parts -- without conditions of their own PostgreSQL reads them in order, and no further than the page
WHERE NOT final AND NOT withdrawn AND windows > 0
  AND window_definition = (
        SELECT min(window_definition) FROM definitions
        WHERE window_definition >= 'tumbling:' AND window_definition < 'tumbling;'
          AND width <= INTERVAL '1 hour')
GROUP BY registration_number, day;

-- Each aircraft over all time: how many events, the first and the last. Events are taken from the first tumbling definition by name, or the first session definition when nothing tumbles, because their windows hold every event once.
CREATE OR REPLACE VIEW "aircraft_stats" AS
SELECT registration_number,
       CAST(sum(total_events) AS bigint) AS total_events,
       min(first_event) AS first_event,
       max(last_event) AS last_event
FROM (SELECT window_definition, registration_number, total_events, first_event, last_event
      FROM aircraft_totals
      WHERE windows > 0
      UNION ALL
      SELECT window_definition, registration_number, event_count, first_event_time, last_event_time
      FROM windows
      WHERE NOT final AND NOT withdrawn) AS parts
WHERE window_definition = coalesce(
        (SELECT min(window_definition) FROM definitions
         WHERE window_definition >= 'tumbling:' AND window_definition < 'tumbling;'),
        (SELECT min(window_definition) FROM definitions
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
SELECT hour, CAST(sum(total_events) AS bigint) AS total_events, CAST(sum(aircraft) AS bigint) AS aircraft
FROM (SELECT window_definition, start AS hour, total_events, aircraft
      FROM fleet_totals
      WHERE span = 'hour'
      UNION ALL
      SELECT w.window_definition, date_trunc('hour', w.window_start, 'UTC'), sum(w.event_count),
             -- An aircraft with a final window in the hour is counted already.
             count(DISTINCT CASE WHEN coalesce(d.hours, 0) >> CAST(date_part('hour', w.window_start AT TIME ZONE 'UTC') AS integer) & 1 = 0
                                 THEN w.registration_number END)
      FROM windows AS w
      LEFT JOIN day_totals AS d ON d.window_definition = w.window_definition AND d.registration_number = w.registration_number
        AND d.day = date_trunc('day', w.window_start, 'UTC')
      WHERE NOT w.final AND NOT w.withdrawn
      GROUP BY 1, 2) AS parts
WHERE window_definition = (
        SELECT min(window_definition) FROM definitions
        WHERE window_definition >= 'tumbling:' AND window_definition < 'tumbling;'
          AND width <= INTERVAL '1 hour')
GROUP BY hour
HAVING sum(aircraft) > 0;

-- Each day over all aircraft. Events are taken from the first tumbling definition by name whose windows are at most a day long; without one the view is empty.
CREATE OR REPLACE VIEW "daily_activity" AS
SELECT day, CAST(sum(total_events) AS bigint) AS total_events, CAST(sum(aircraft) AS bigint) AS aircraft
FROM (SELECT window_definition, start AS day, total_events, aircraft
      FROM fleet_totals
      WHERE span = 'day'
      UNION ALL
      SELECT w.window_definition, date_trunc('day', w.window_start, 'UTC'), sum(w.event_count),
             -- An aircraft with a final window in the day is counted already.
             count(DISTINCT CASE WHEN coalesce(d.hours, 0) = 0 THEN w.registration_number END)
      FROM windows AS w
      LEFT JOIN day_totals AS d ON d.window_definition = w.window_definition AND d.registration_number = w.registration_number
        AND d.day = date_trunc('day', w.window_start, 'UTC')
      WHERE NOT w.final AND NOT w.withdrawn
      GROUP BY 1, 2) AS parts
WHERE window_definition = (
        SELECT min(window_definition) FROM definitions
        WHERE window_definition >= 'tumbling:' AND window_definition < 'tumbling;'
          AND width <= INTERVAL '1 day')
GROUP BY day
HAVING sum(aircraft) > 0;

-- Each aircraft's latest event, whichever window it is in.
CREATE OR REPLACE VIEW "last_seen" AS
SELECT registration_number, last_event_time, last_event_type, aircraft_id
FROM (SELECT registration_number, last_event_time, last_event_type, aircraft_id,
             row_number() OVER (PARTITION BY registration_number
                                ORDER BY last_event_time DESC, window_definition, window_end) AS place
      FROM (SELECT registration_number, window_definition, last_window_end AS window_end, last_event AS last_event_time, last_event_type, aircraft_id
            FROM aircraft_totals
            WHERE last_event IS NOT NULL
            UNION ALL
            SELECT registration_number, window_definition, window_end, last_event_time, last_event_type, aircraft_id
            FROM windows
            WHERE NOT final AND NOT withdrawn AND last_event_time IS NOT NULL) AS parts) AS ranked
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
