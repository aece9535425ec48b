-- Records that could not be read as an event, or that the database refused, as they came. None of them is in any count.
-- columns:
--   source_topic text: topic the record was first read from
--   source_partition integer: its partition
--   source_offset integer: its offset
--   reason text: what is wrong with it, in one word
--   detail text: the same in full
--   event_time timestamp?: time of the event; null when unknown
--   registration_number text?: registration of the aircraft; null when unknown
--   record_key text?: key of the record, bytes that are not UTF-8 replaced; null when it had none
--   payload text?: the record as it came; null when it is not UTF-8 text
--   payload_base64 text?: the record in base64 when it is not UTF-8 text
-- key: source_topic, source_partition, source_offset
-- table
SELECT source_topic,
       source_partition,
       source_offset,
       reason,
       detail,
       event_time,
       registration_number,
       record_key,
       payload,
       payload_base64
FROM dead_letters
