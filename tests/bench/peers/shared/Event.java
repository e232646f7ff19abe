package peers;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.time.Instant;
import java.time.LocalDate;
import java.util.Locale;

/** An event of docs/events.md in its structured CloudEvents form: what the counts of NPS and volume need of it. */
public final class Event {
  /** What is counted of a second, a slice, a window. */
  public static final int INTERACTIONS = 0, INVITATIONS = 1, ANSWERS = 2, PROMOTERS = 3, PASSIVES = 4, DETRACTORS = 5,
                          COUNTS = 6;
  private static final long LATE_MS = 7 * 86400 * 1000L, FUTURE_MS = 60 * 1000L;
  // Jackson's own advice: one factory for all, its parser for bytes, field names compared as it hands them out (interned).
  private static final JsonFactory JSON = new JsonFactory();

  public String touchpoint, channel, segment, stage; // the last three may be null: the event has none
  public long timeMs;
  public String type, scale;
  public int score;

  /** Fills this event from a record. The benchmark's events are all accepted, so whatever would not be ends the run. */
  public void read(byte[] value, long recordMs) {
    touchpoint = channel = segment = stage = type = scale = null;
    timeMs = score = -1;
    boolean data = false;
    try (JsonParser json = JSON.createParser(value)) {
      if (json.nextToken() != JsonToken.START_OBJECT)
        throw refused("no object");
      for (String name; (name = json.nextFieldName()) != null;) {
        switch (name) {
        case "type":
          type = json.nextTextValue();
          break;
        case "time":
          timeMs = time(json.nextTextValue());
          break;
        case "data":
          data = true;
          readData(json);
          break;
        default:
          json.nextToken();
          json.skipChildren();
        }
      }
    } catch (IOException error) {
      throw refused(error.getMessage());
    }
    if (!data || touchpoint == null || type == null || timeMs < 0)
      throw refused("a required field is missing");
    if (recordMs - timeMs > LATE_MS || timeMs - recordMs > FUTURE_MS)
      throw refused("late, or from the future");
  }

  private void readData(JsonParser json) throws IOException {
    if (json.nextToken() != JsonToken.START_OBJECT)
      throw refused("data is no object");
    for (String name; (name = json.nextFieldName()) != null;) {
      switch (name) {
      case "touchpoint":
        touchpoint = json.nextTextValue();
        break;
      case "channel":
        channel = json.nextTextValue().toLowerCase(Locale.ROOT);
        break;
      case "segment":
        segment = json.nextTextValue();
        break;
      case "stage":
        stage = json.nextTextValue().toLowerCase(Locale.ROOT);
        break;
      case "scale":
        scale = json.nextTextValue();
        break;
      case "score":
        score = json.nextIntValue(-1);
        break;
      default:
        json.nextToken();
        json.skipChildren();
      }
    }
  }

  public Cell cell() {
    return new Cell(touchpoint, channel, segment, stage, Math.floorDiv(timeMs, 1000));
  }

  /** Adds this event to counts. */
  public void count(int[] counts) {
    if (type.endsWith(".interaction")) {
      counts[INTERACTIONS]++;
    } else if (type.endsWith(".invitation")) {
      counts[INVITATIONS]++;
    } else if (type.endsWith(".answer")) {
      counts[ANSWERS]++;
      if ("nps".equals(scale)) {
        if (score < 0 || score > 10)
          throw refused("score " + score);
        counts[score >= 9 ? PROMOTERS : score >= 7 ? PASSIVES : DETRACTORS]++;
      }
    } else {
      throw refused("type " + type);
    }
  }

  /** The usual form by hand, 2026-11-21T10:15:00.123Z: Instant.parse costs as much as the rest of the event. */
  private static long time(String text) {
    if (text.length() != 24 || text.charAt(23) != 'Z' || text.charAt(19) != '.')
      return Instant.parse(text).toEpochMilli();
    long days = LocalDate.of(number(text, 0, 4), number(text, 5, 7), number(text, 8, 10)).toEpochDay();
    return ((days * 24 + number(text, 11, 13)) * 60 + number(text, 14, 16)) * 60000 + number(text, 17, 19) * 1000 +
        number(text, 20, 23);
  }

  private static int number(String text, int from, int to) {
    int value = 0;
    for (int i = from; i < to; i++) {
      int digit = text.charAt(i) - '0';
      if (digit < 0 || digit > 9)
        throw refused("time " + text);
      value = 10 * value + digit;
    }
    return value;
  }

  private static IllegalStateException refused(String why) {
    return new IllegalStateException("an event that the benchmark does not have: " + why);
  }
}
