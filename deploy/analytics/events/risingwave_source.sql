-- RisingWave: the events themselves, for questions that the windows do not answer. Nothing is stored: each query and each
-- materialized view reads the topic.
--
--   psql "$RISINGWAVE_URL" -v brokers=redpanda:9092 -f risingwave_source.sql -f aircraft_events.sql
--
-- The broker's address is the one that RisingWave sees. Times stay text here, because RisingWave turns a time without a zone
-- into NULL without a word; the view aircraft_events reads both forms.

CREATE SOURCE IF NOT EXISTS aircraft_events_source (event_type varchar, registration_number varchar)
INCLUDE partition AS source_partition
INCLUDE offset AS source_offset
INCLUDE payload AS payload
WITH (
  connector = 'kafka',
  topic = 'aircraft-events',
  properties.bootstrap.server = :'brokers',
  scan.startup.mode = 'earliest'
) FORMAT PLAIN ENCODE JSON;
