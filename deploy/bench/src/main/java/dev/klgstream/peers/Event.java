package dev.klgstream.peers;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.time.Instant;

/**
 * What the job needs of an event. Fields are public and there is a constructor without arguments, so that Flink sees a
 * POJO and does not fall back to a general serializer.
 */
public final class Event {
  public String registration;
  public long time;

  public Event() {}

  private static final JsonFactory JSON = new JsonFactory();
  private static boolean seen;

  /**
   * Reads an event with Jackson's streaming parser: mapping to an object costs about twice as much, and Instant.parse alone
   * more than all the rest, so timestamps of the usual form are read by hand.
   */
  public static Event parse(byte[] data) throws IOException {
    if (!seen) {
      seen = true; // several threads may say so; the first line is what counts
      System.out.println("first event");
    }
    Event e = new Event();
    try (JsonParser p = JSON.createParser(data)) {
      p.nextToken();
      while (p.nextToken() == JsonToken.FIELD_NAME) {
        String name = p.currentName();
        p.nextToken();
        switch (name) {
          case "registration_number" -> e.registration = p.getText();
          case "timestamp" -> e.time = millis(p.getText());
          default -> p.skipChildren();
        }
      }
    }
    return e;
  }

  /** The result as it is written. */
  public static byte[] result(String registration, long start, long count) {
    return ("{\"registration_number\":\"" + registration + "\",\"window_start\":" + start + ",\"event_count\":" + count + "}").getBytes(java.nio.charset.StandardCharsets.UTF_8);
  }

  static long millis(String s) {
    if (s.length() != 24 || s.charAt(23) != 'Z' || s.charAt(10) != 'T') {
      return Instant.parse(s).toEpochMilli();
    }
    long days = java.time.LocalDate.of(digits(s, 0, 4), digits(s, 5, 7), digits(s, 8, 10)).toEpochDay();
    return ((days * 24 + digits(s, 11, 13)) * 60 + digits(s, 14, 16)) * 60_000L + digits(s, 17, 19) * 1000L + digits(s, 20, 23);
  }

  private static int digits(String s, int from, int to) {
    int n = 0;
    for (int i = from; i < to; i++) {
      n = n * 10 + s.charAt(i) - '0';
    }
    return n;
  }
}
