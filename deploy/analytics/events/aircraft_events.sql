-- RisingWave and PostgreSQL: the events in one spelling. The topic has two (event_type and eventType, and so on), and times
-- with and without a zone; one without is UTC.

CREATE VIEW aircraft_events AS
SELECT source_partition,
       source_offset,
       upper(trim(coalesce(payload ->> 'registration_number', payload ->> 'registrationNumber'))) AS registration_number,
       coalesce(payload ->> 'event_type', payload ->> 'eventType') AS event_type,
       CAST(coalesce(payload ->> 'aircraft_id', payload ->> 'aircraftId') AS bigint) AS aircraft_id,
       CAST(CASE WHEN payload ->> 'timestamp' LIKE '%Z'
                   OR payload ->> 'timestamp' LIKE '%+__:__'
                   OR payload ->> 'timestamp' LIKE '%-__:__'
                 THEN payload ->> 'timestamp'
                 ELSE (payload ->> 'timestamp') || 'Z' END AS timestamptz) AS event_time,
       payload
FROM aircraft_events_source;
