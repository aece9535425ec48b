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
