-- PostgreSQL: a table for the events themselves, for questions that the windows do not answer. Fill it from the topic or
-- from a file of one JSON event per line:
--
--   psql "$URL" -f postgresql_table.sql -f aircraft_events.sql
--   rpk topic consume aircraft-events -o :end -f '%p\t%o\t%v\n' | psql "$URL" -c "\copy aircraft_events_source FROM STDIN WITH (FORMAT csv, DELIMITER E'\t', QUOTE E'\b')"

CREATE TABLE IF NOT EXISTS aircraft_events_source (
  source_partition varchar NOT NULL,
  source_offset varchar NOT NULL,
  payload jsonb NOT NULL,
  PRIMARY KEY (source_partition, source_offset)
);
