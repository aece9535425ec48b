-- RisingWave: the windows without klgstream's sink, straight from its output topic. It is a table like the sink's, kept by
-- RisingWave itself: of two records with one key the one with the higher revision stays.
--
--   psql "$RISINGWAVE_URL" -v brokers=redpanda:9092 -f risingwave_without_sink.sql
--
-- What the sink does and this does not: a record that cannot be read is not dead-lettered but dropped, or loses the field,
-- with a warning in the log only; late events and dead letters are not loaded. It suits tumbling, hopping and session windows:
-- cumulating ones share their starts, which are the key here.

CREATE TABLE IF NOT EXISTS windows_from_topic (
  registration_number varchar,
  window_definition varchar,
  window_kind varchar,
  window_start timestamptz,
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
  PRIMARY KEY (registration_number, window_definition, window_start)
) ON CONFLICT DO UPDATE FULL WITH VERSION COLUMN (revision)
WITH (
  connector = 'kafka',
  topic = 'aircraft-windows',
  properties.bootstrap.server = :'brokers',
  scan.startup.mode = 'earliest'
) FORMAT PLAIN ENCODE JSON (timestamptz.handling.mode = 'utc_string');

-- The record's key names the window in every case, so this form also takes cumulating windows, but keeps the last record
-- rather than the highest revision; the topic's order per key makes them the same.
CREATE TABLE IF NOT EXISTS windows_by_key (
  registration_number varchar,
  window_definition varchar,
  window_kind varchar,
  window_start timestamptz,
  window_end timestamptz,
  event_count bigint,
  event_types jsonb,
  revision bigint,
  final boolean,
  withdrawn boolean,
  PRIMARY KEY (record_key)
) INCLUDE KEY AS record_key
WITH (
  connector = 'kafka',
  topic = 'aircraft-windows',
  properties.bootstrap.server = :'brokers',
  scan.startup.mode = 'earliest'
) FORMAT UPSERT ENCODE JSON (timestamptz.handling.mode = 'utc_string');
