package dev.klgstream.peers;

import java.time.ZoneOffset;
import org.apache.flink.configuration.MemorySize;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;

/** The job in Flink SQL, with the window table-valued function that Flink's documentation recommends. */
final class FlinkSql {
  private FlinkSql() {}

  static void run(Main.Job job) throws Exception {
    // Its window operators buffer in managed memory, before and behind the shuffle.
    StreamExecutionEnvironment env = FlinkSettings.environment(job, MemorySize.ofMebiBytes(256));
    StreamTableEnvironment tables = StreamTableEnvironment.create(env);
    tables.getConfig().setLocalTimeZone(ZoneOffset.UTC);
    // Count before the shuffle, then after it: with few keys that is less to shuffle.
    tables.getConfig().set("table.optimizer.agg-phase-strategy", "TWO_PHASE");
    // Only the columns that are needed: others would be parsed, too.
    tables.executeSql(
        """
        CREATE TABLE events (
          registration_number STRING,
          `timestamp` TIMESTAMP_LTZ(3),
          WATERMARK FOR `timestamp` AS `timestamp` - INTERVAL '%d.%03d' SECOND
        ) WITH (
          'connector' = 'kafka',
          'topic' = '%s',
          'properties.bootstrap.servers' = '%s',
          'properties.group.id' = '%s',
          'properties.max.poll.records' = '5000',
          'scan.startup.mode' = 'earliest-offset',
          'format' = 'json',
          'json.timestamp-format.standard' = 'ISO-8601'
        )"""
            .formatted(job.bound() / 1000, job.bound() % 1000, job.input(), job.brokers(), job.group()));
    tables.executeSql(
        """
        CREATE TABLE windows (
          registration_number STRING,
          window_start BIGINT,
          event_count BIGINT
        ) WITH (
          'connector' = 'kafka',
          'topic' = '%s',
          'properties.bootstrap.servers' = '%s',
          'properties.linger.ms' = '20',
          'properties.batch.size' = '262144',
          'sink.delivery-guarantee' = 'at-least-once',
          'key.format' = 'raw',
          'key.fields' = 'registration_number',
          'format' = 'json'
        )"""
            .formatted(job.output(), job.brokers()));
    tables
        .executeSql(
            """
            INSERT INTO windows
            SELECT registration_number,
                   1000 * CAST(TIMESTAMPDIFF(SECOND, TIMESTAMP '1970-01-01 00:00:00', window_start) AS BIGINT),
                   COUNT(*)
            FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(`timestamp`), INTERVAL '1' HOUR))
            GROUP BY registration_number, window_start, window_end""")
        .await();
  }
}
