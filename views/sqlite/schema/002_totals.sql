-- What views add up, kept with every write, so that no reader has to read every window. The writer changes these tables in the
-- transaction that changes windows and letters; nobody else may.

-- The newest windows first. Replaces an index that only totals were read by.
CREATE INDEX windows_by_start ON windows (window_start DESC, registration_number, window_definition, window_end);
DROP INDEX windows_by_definition;

-- Window definitions that have or had a window.
CREATE TABLE definitions (
  window_definition TEXT    PRIMARY KEY NOT NULL,
  width             INTEGER NOT NULL -- of the shortest window seen
) STRICT, WITHOUT ROWID;

INSERT INTO definitions SELECT window_definition, min(window_end - window_start) FROM windows GROUP BY window_definition;

-- Per aircraft, over the windows of one definition that are not withdrawn; of definitions that hold every event once.
CREATE TABLE aircraft_totals (
  registration_number TEXT    NOT NULL,
  window_definition   TEXT    NOT NULL,
  windows             INTEGER NOT NULL, -- how many
  total_events        INTEGER NOT NULL,
  first_event         INTEGER,
  last_event          INTEGER,
  PRIMARY KEY (window_definition, registration_number)
) STRICT, WITHOUT ROWID;

INSERT INTO aircraft_totals
SELECT registration_number, window_definition, count(*), sum(event_count), min(first_event_time), max(last_event_time)
FROM windows
WHERE NOT withdrawn AND (window_definition LIKE 'tumbling:%' OR window_definition LIKE 'session:%')
GROUP BY registration_number, window_definition;

CREATE INDEX aircraft_totals_by_events ON aircraft_totals (window_definition, total_events DESC, registration_number);

-- The same per UTC day that windows start in, of tumbling definitions.
CREATE TABLE day_totals (
  registration_number TEXT    NOT NULL,
  window_definition   TEXT    NOT NULL,
  day                 INTEGER NOT NULL,
  windows             INTEGER NOT NULL,
  active_hours        INTEGER NOT NULL, -- UTC hours of the day that a window starts in
  total_events        INTEGER NOT NULL,
  first_event         INTEGER,
  last_event          INTEGER,
  PRIMARY KEY (window_definition, registration_number, day)
) STRICT, WITHOUT ROWID;

INSERT INTO day_totals
SELECT registration_number, window_definition, window_start - (window_start % 86400000 + 86400000) % 86400000, count(*),
       count(DISTINCT window_start - (window_start % 3600000 + 3600000) % 3600000), sum(event_count), min(first_event_time), max(last_event_time)
FROM windows
WHERE NOT withdrawn AND window_definition LIKE 'tumbling:%'
GROUP BY registration_number, window_definition, 3;

-- Over all aircraft, per UTC day (span 86400000) and hour (span 3600000) that windows of tumbling definitions start in.
CREATE TABLE fleet_totals (
  window_definition TEXT    NOT NULL,
  span              INTEGER NOT NULL,
  start             INTEGER NOT NULL,
  aircraft          INTEGER NOT NULL, -- that have a window there
  total_events      INTEGER NOT NULL,
  PRIMARY KEY (window_definition, span, start)
) STRICT, WITHOUT ROWID;

INSERT INTO fleet_totals
SELECT window_definition, 86400000, day, count(*), sum(total_events)
FROM day_totals
WHERE windows > 0
GROUP BY window_definition, day;

INSERT INTO fleet_totals
SELECT window_definition, 3600000, window_start - (window_start % 3600000 + 3600000) % 3600000, count(DISTINCT registration_number), sum(event_count)
FROM windows
WHERE NOT withdrawn AND window_definition LIKE 'tumbling:%'
GROUP BY window_definition, 3;

-- Each aircraft's latest event, and the window it is in: of several windows that of the first definition by name, and the first to end.
CREATE TABLE last_events (
  registration_number TEXT    PRIMARY KEY NOT NULL,
  window_definition   TEXT    NOT NULL,
  window_end          INTEGER NOT NULL,
  last_event_time     INTEGER NOT NULL,
  last_event_type     TEXT,
  aircraft_id         INTEGER
) STRICT, WITHOUT ROWID;

INSERT INTO last_events
SELECT registration_number, window_definition, window_end, last_event_time, last_event_type, aircraft_id
FROM (SELECT *, row_number() OVER (PARTITION BY registration_number ORDER BY last_event_time DESC, window_definition, window_end) AS place
      FROM windows
      WHERE NOT withdrawn AND last_event_time IS NOT NULL)
WHERE place = 1;

CREATE INDEX last_events_by_time ON last_events (last_event_time DESC, registration_number);

-- How many letters there are. Letters are only ever added, so triggers do.
CREATE TABLE letter_totals (
  kind        TEXT    NOT NULL,
  reason      TEXT    NOT NULL,
  letters     INTEGER NOT NULL,
  first_event INTEGER,
  last_event  INTEGER,
  PRIMARY KEY (kind, reason)
) STRICT, WITHOUT ROWID;

INSERT INTO letter_totals SELECT 'late', reason, count(*), min(event_time), max(event_time) FROM late_events GROUP BY reason;
INSERT INTO letter_totals SELECT 'dead', reason, count(*), min(event_time), max(event_time) FROM dead_letters GROUP BY reason;

CREATE TRIGGER late_event_counts AFTER INSERT ON late_events BEGIN
  INSERT INTO letter_totals VALUES ('late', new.reason, 1, new.event_time, new.event_time)
  ON CONFLICT DO UPDATE SET letters = letters + 1,
    first_event = coalesce(min(first_event, excluded.first_event), first_event, excluded.first_event),
    last_event = coalesce(max(last_event, excluded.last_event), last_event, excluded.last_event);
END;

CREATE TRIGGER dead_letter_counts AFTER INSERT ON dead_letters BEGIN
  INSERT INTO letter_totals VALUES ('dead', new.reason, 1, new.event_time, new.event_time)
  ON CONFLICT DO UPDATE SET letters = letters + 1,
    first_event = coalesce(min(first_event, excluded.first_event), first_event, excluded.first_event),
    last_event = coalesce(max(last_event, excluded.last_event), last_event, excluded.last_event);
END;
