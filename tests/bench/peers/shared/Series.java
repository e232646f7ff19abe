package peers;

/** The six rolling windows of one series: running totals here, slices in the framework's keyed state.
 *
 * A window of length W and slice g holds, at the clock t, the slices (floor(t/g) - W/g, floor(t/g)], as in docs/redis.md. Each
 * event is added to the totals of all windows that hold its second, but to one slice only: that of the shortest of them. A slice
 * that leaves its window goes on into the slice of the next one, whose slices are multiples. So a count costs one access to the
 * totals and one to a slice instead of six: keyed state is what such a program spends most of its time in. */
public final class Series {
  public static final String[] NAMES = {"5m", "1h", "24h", "7d", "30d", "90d"};
  public static final int WINDOWS = NAMES.length;
  private static final long[] LENGTH = {300, 3600, 86400, 7 * 86400, 30 * 86400, 90 * 86400}; // seconds
  private static final long[] SLICE = {1, 10, 120, 1800, 7200, 21600};

  /** Where slices are kept. A slot names a window and a slice of it. */
  public interface Slices {
    int[] get(long slot) throws Exception; // null: none
    void put(long slot, int[] counts) throws Exception;
    void remove(long slot) throws Exception;
  }

  // Public, with a constructor without arguments, not final: what Flink's serializer for plain objects asks for.
  public long clock;    // seconds
  public int[] totals = new int[WINDOWS * Event.COUNTS];
  public int changed;   // a bit for each window that differs from what Redis shows

  public void add(Slices slices, long second, int[] counts) throws Exception {
    if (second > clock)
      throw new IllegalStateException("an event ahead of the clock: the topic is younger than half a minute");
    boolean placed = false;
    for (int w = 0; w < WINDOWS; w++) {
      if (second / SLICE[w] <= clock / SLICE[w] - LENGTH[w] / SLICE[w])
        continue;
      sum(totals, w * Event.COUNTS, counts, 1);
      changed |= 1 << w;
      if (!placed)
        merge(slices, slot(w, second / SLICE[w]), counts);
      placed = true;
    }
  }

  /** Moves the clock, never back. */
  public void advance(Slices slices, long now) throws Exception {
    if (now <= clock)
      return;
    for (int w = 0; w < WINDOWS; w++) {
      long oldest = clock / SLICE[w] - LENGTH[w] / SLICE[w] + 1;
      long left = Math.min(now / SLICE[w] - LENGTH[w] / SLICE[w], clock / SLICE[w]);
      for (long slice = oldest; clock > 0 && slice <= left; slice++) {
        int[] counts = slices.get(slot(w, slice));
        if (counts == null)
          continue;
        slices.remove(slot(w, slice));
        sum(totals, w * Event.COUNTS, counts, -1);
        changed |= 1 << w;
        if (w + 1 < WINDOWS)
          merge(slices, slot(w + 1, slice * SLICE[w] / SLICE[w + 1]), counts);
      }
    }
    clock = now;
  }

  private static long slot(int window, long slice) {
    return (long) window << 56 | slice;
  }

  private static void merge(Slices slices, long slot, int[] counts) throws Exception {
    int[] sums = slices.get(slot);
    if (sums == null)
      sums = new int[Event.COUNTS];
    sum(sums, 0, counts, 1);
    slices.put(slot, sums);
  }

  private static void sum(int[] into, int from, int[] counts, int sign) {
    for (int i = 0; i < Event.COUNTS; i++)
      into[from + i] += sign * counts[i];
  }
}
