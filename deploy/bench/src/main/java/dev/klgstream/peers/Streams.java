package dev.klgstream.peers;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.Stores;

/**
 * The job in Kafka Streams. A window is published when it changed, at most once per commit: its own way, and cheaper than
 * to hold results back until their windows close.
 */
final class Streams {
  private Streams() {}

  static void run(Main.Job job) throws Exception {
    Properties p = new Properties();
    p.put(StreamsConfig.APPLICATION_ID_CONFIG, job.group());
    p.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, job.brokers());
    p.put(StreamsConfig.STATE_DIR_CONFIG, Files.createTempDirectory("kafka-streams").toString());
    p.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, job.parallelism());
    // Counts may be doubled after a crash; exactly-once would cost it more.
    p.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.AT_LEAST_ONCE);
    // As often as Flink's checkpoints. Between commits the cache keeps one value per window.
    p.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1000);
    p.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 256L << 20);
    p.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
    p.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 5000);
    p.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 20);
    p.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 262144);

    Duration hour = Duration.ofHours(1);
    Duration grace = Duration.ofMillis(job.bound());
    StreamsBuilder b = new StreamsBuilder();
    b.stream(job.input(), Consumed.with(Serdes.String(), events()).withTimestampExtractor((r, t) -> ((Event) r.value()).time))
        .groupByKey(Grouped.with(Serdes.String(), events()))
        .windowedBy(TimeWindows.ofSizeAndGrace(hour, grace))
        .count(
            Materialized.<String, Long>as(Stores.inMemoryWindowStore("counts", hour.plus(grace), hour, false))
                .withKeySerde(Serdes.String())
                .withValueSerde(Serdes.Long())
                .withCachingEnabled())
        .toStream()
        .map((w, n) -> KeyValue.pair(w.window().start() + "|" + w.key(), Event.result(w.key(), w.window().start(), n)))
        .to(job.output(), Produced.with(Serdes.String(), Serdes.ByteArray()));

    KafkaStreams streams = new KafkaStreams(b.build(), p);
    CountDownLatch ended = new CountDownLatch(1);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(10))));
    streams.setStateListener(
        (now, before) -> {
          if (now == KafkaStreams.State.ERROR || now == KafkaStreams.State.NOT_RUNNING) {
            ended.countDown();
          }
        });
    streams.start();
    ended.await();
  }

  /** Events are only read: nothing is repartitioned, as they are keyed by registration already. */
  private static Serde<Event> events() {
    Deserializer<Event> read =
        (topic, data) -> {
          try {
            return Event.parse(data);
          } catch (IOException e) {
            throw new UncheckedIOException(e);
          }
        };
    return Serdes.serdeFrom(
        (topic, e) -> {
          throw new UnsupportedOperationException("events are only read");
        },
        read);
  }
}
