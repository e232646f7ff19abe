package peers;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import java.util.Objects;
import java.util.function.Consumer;

/** The dimensions of an event and its second: events of one cell are added before anything leaves the task. */
public record Cell(String touchpoint, String channel, String segment, String stage, long second) {

  // By hand, because those of a record cost a tenth of a whole event here.
  @Override
  public int hashCode() {
    int hash = touchpoint.hashCode();
    hash = 31 * hash + Objects.hashCode(channel);
    hash = 31 * hash + Objects.hashCode(segment);
    hash = 31 * hash + Objects.hashCode(stage);
    return 31 * hash + Long.hashCode(second);
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof Cell cell && second == cell.second && touchpoint.equals(cell.touchpoint) &&
        Objects.equals(channel, cell.channel) && Objects.equals(segment, cell.segment) && Objects.equals(stage, cell.stage);
  }

  /** Each series that the cell counts in, "ROLLUP:ID" as in docs/redis.md: the default roll-ups of livenps. */
  private void series(Consumer<String> visit) {
    String t = encode(touchpoint);
    visit.accept("touchpoint:" + t);
    if (channel != null) {
      String c = encode(channel);
      visit.accept("channel:" + c);
      visit.accept("touchpoint|channel:" + t + '|' + c);
    }
    if (segment != null)
      visit.accept("segment:" + encode(segment));
    if (stage != null)
      visit.accept("stage:" + encode(stage));
    visit.accept("all:all");
  }

  private static String encode(String name) {
    StringBuilder out = null;
    for (int i = 0; i < name.length(); i++) {
      char c = name.charAt(i);
      boolean plain = c != ':' && c != '%' && c != '{' && c != '}' && c != '|';
      if (!plain && out == null)
        out = new StringBuilder(name.substring(0, i));
      if (out != null && plain)
        out.append(c);
      else if (out != null)
        out.append('%').append(Integer.toHexString(c).toUpperCase());
    }
    return out == null ? name : out.toString();
  }

  /** Visits the sums of each series and second over all cells: what leaves the task. */
  public static void spread(Map<Cell, int[]> cells, Sums visit) {
    Map<Long, Map<String, int[]>> seconds = new HashMap<>();
    cells.forEach((cell, counts) -> {
      Map<String, int[]> second = seconds.computeIfAbsent(cell.second, key -> new HashMap<>());
      cell.series(name -> {
        int[] sums = second.computeIfAbsent(name, key -> new int[Event.COUNTS]);
        for (int i = 0; i < Event.COUNTS; i++)
          sums[i] += counts[i];
      });
    });
    seconds.forEach((second, all) -> all.forEach((name, counts) -> visit.sum(name, second, counts)));
  }

  public interface Sums {
    void sum(String series, long second, int[] counts);
  }

  /** The second, then each name behind its length; -1 for none. */
  public byte[] bytes() {
    byte[][] names = new byte[4][];
    String[] texts = {touchpoint, channel, segment, stage};
    int size = 8;
    for (int i = 0; i < 4; i++) {
      names[i] = texts[i] == null ? null : texts[i].getBytes(StandardCharsets.UTF_8);
      size += 2 + (names[i] == null ? 0 : names[i].length);
    }
    ByteBuffer out = ByteBuffer.allocate(size).putLong(second);
    for (byte[] name : names) {
      out.putShort((short) (name == null ? -1 : name.length));
      if (name != null)
        out.put(name);
    }
    return out.array();
  }

  public static Cell of(byte[] bytes) {
    ByteBuffer in = ByteBuffer.wrap(bytes);
    long second = in.getLong();
    String[] texts = new String[4];
    for (int i = 0; i < 4; i++) {
      int length = in.getShort();
      if (length >= 0) {
        texts[i] = new String(bytes, in.position(), length, StandardCharsets.UTF_8);
        in.position(in.position() + length);
      }
    }
    return new Cell(texts[0], texts[1], texts[2], texts[3], second);
  }
}
