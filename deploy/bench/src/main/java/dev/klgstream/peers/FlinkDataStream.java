package dev.klgstream.peers;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.configuration.MemorySize;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.windowing.ProcessWindowFunction;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;

/** The job in Flink's DataStream API. A window is published once, when the watermark has passed it. */
final class FlinkDataStream {
  private FlinkDataStream() {}

  /** One result. */
  public static final class Count {
    public String registration;
    public long start;
    public long count;
  }

  static void run(Main.Job job) throws Exception {
    // State is on the heap: managed memory has no use here.
    StreamExecutionEnvironment env = FlinkSettings.environment(job, MemorySize.ofMebiBytes(1));
    KafkaSource<Event> source =
        KafkaSource.<Event>builder()
            .setBootstrapServers(job.brokers())
            .setTopics(job.input())
            .setGroupId(job.group())
            .setStartingOffsets(OffsetsInitializer.earliest())
            .setDeserializer(new Parser())
            // As klgstream's consumer: 1 MiB per partition and fetch.
            .setProperty("max.partition.fetch.bytes", "1048576")
            .setProperty("max.poll.records", "5000")
            .setProperty("commit.offsets.on.checkpoint", "true")
            .build();
    KafkaSink<Count> sink =
        KafkaSink.<Count>builder()
            .setBootstrapServers(job.brokers())
            // A result repeated after a crash has the same key and value, so transactions would buy nothing but delay.
            .setDeliveryGuarantee(DeliveryGuarantee.AT_LEAST_ONCE)
            .setProperty("linger.ms", "20")
            .setProperty("batch.size", "262144")
            .setRecordSerializer(new Writer(job.output()))
            .build();
    env.fromSource(
            source,
            WatermarkStrategy.<Event>forBoundedOutOfOrderness(Duration.ofMillis(job.bound())).withTimestampAssigner((e, t) -> e.time),
            "events")
        .keyBy(e -> e.registration)
        .window(TumblingEventTimeWindows.of(Duration.ofHours(1)))
        .aggregate(new Counter(), new Publish())
        .sinkTo(sink);
    env.execute("events per hour");
  }

  static final class Parser implements KafkaRecordDeserializationSchema<Event> {
    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Event> out) throws IOException {
      out.collect(Event.parse(record.value()));
    }

    @Override
    public TypeInformation<Event> getProducedType() {
      return TypeInformation.of(Event.class);
    }
  }

  static final class Counter implements AggregateFunction<Event, Long, Long> {
    @Override
    public Long createAccumulator() {
      return 0L;
    }

    @Override
    public Long add(Event e, Long n) {
      return n + 1;
    }

    @Override
    public Long getResult(Long n) {
      return n;
    }

    @Override
    public Long merge(Long a, Long b) {
      return a + b;
    }
  }

  static final class Publish extends ProcessWindowFunction<Long, Count, String, TimeWindow> {
    @Override
    public void process(String registration, Context context, Iterable<Long> counts, Collector<Count> out) {
      Count c = new Count();
      c.registration = registration;
      c.start = context.window().getStart();
      c.count = counts.iterator().next();
      out.collect(c);
    }
  }

  static final class Writer implements KafkaRecordSerializationSchema<Count> {
    private final String topic;

    Writer(String topic) {
      this.topic = topic;
    }

    @Override
    public ProducerRecord<byte[], byte[]> serialize(Count c, KafkaSinkContext context, Long timestamp) {
      return new ProducerRecord<>(
          topic, (c.start + "|" + c.registration).getBytes(StandardCharsets.UTF_8), Event.result(c.registration, c.start, c.count));
    }
  }
}
