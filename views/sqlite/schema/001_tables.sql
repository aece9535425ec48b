-- Times are milliseconds since the epoch; select them as datetime(window_start / 1000, 'unixepoch').

CREATE TABLE windows (
  registration_number TEXT    NOT NULL CHECK (registration_number <> ''),
  window_definition   TEXT    NOT NULL CHECK (window_definition <> ''),
  -- The border that identifies the window: its start, or its end where windows share their starts (cumulating).
  window_anchor       INTEGER NOT NULL,
  window_start        INTEGER NOT NULL,
  window_kind         TEXT    NOT NULL,
  window_end          INTEGER NOT NULL,
  event_count         INTEGER NOT NULL CHECK (event_count >= 0),
  event_types         TEXT    NOT NULL,
  first_event_time    INTEGER,
  last_event_time     INTEGER,
  last_event_type     TEXT,
  aircraft_id         INTEGER,
  revision            INTEGER NOT NULL,
  final               INTEGER NOT NULL CHECK (final IN (0, 1)),
  withdrawn           INTEGER NOT NULL CHECK (withdrawn IN (0, 1)),
  PRIMARY KEY (registration_number, window_definition, window_anchor)
) STRICT, WITHOUT ROWID;

CREATE INDEX windows_by_definition ON windows (window_definition, window_start);

CREATE TABLE late_events (
  source_topic        TEXT    NOT NULL,
  source_partition    INTEGER NOT NULL,
  source_offset       INTEGER NOT NULL,
  reason              TEXT    NOT NULL,
  detail              TEXT    NOT NULL,
  event_time          INTEGER,
  registration_number TEXT,
  record_key          TEXT,
  payload             TEXT,
  payload_base64      TEXT,
  PRIMARY KEY (source_topic, source_partition, source_offset)
) STRICT;

CREATE TABLE dead_letters (
  source_topic        TEXT    NOT NULL,
  source_partition    INTEGER NOT NULL,
  source_offset       INTEGER NOT NULL,
  reason              TEXT    NOT NULL,
  detail              TEXT    NOT NULL,
  event_time          INTEGER,
  registration_number TEXT,
  record_key          TEXT,
  payload             TEXT,
  payload_base64      TEXT,
  PRIMARY KEY (source_topic, source_partition, source_offset)
) STRICT;
