package dev.klgstream.peers;

/**
 * One engine in this JVM, until a signal ends it. The job is the same for all: events per registration number in tumbling
 * hours of event time, written to a topic as {@code {"registration_number", "window_start" (ms), "event_count"}}.
 */
public final class Main {
  private Main() {}

  /**
   * What every engine is told.
   *
   * @param parallelism threads that process; the machine's cores, as that is what an engine may use
   * @param bound how far events are out of order, in milliseconds
   */
  public record Job(String brokers, String input, String output, String group, int parallelism, long bound) {}

  public static void main(String[] args) throws Exception {
    if (args.length != 7) {
      System.err.println("usage: Main flink|flink-sql|kafka-streams BROKERS INPUT OUTPUT GROUP PARALLELISM BOUND_MS");
      System.exit(2);
    }
    Job job = new Job(args[1], args[2], args[3], args[4], Integer.parseInt(args[5]), Long.parseLong(args[6]));
    switch (args[0]) {
      case "flink" -> FlinkDataStream.run(job);
      case "flink-sql" -> FlinkSql.run(job);
      case "kafka-streams" -> Streams.run(job);
      default -> throw new IllegalArgumentException("unknown engine " + args[0]);
    }
  }
}
