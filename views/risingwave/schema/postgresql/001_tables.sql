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
