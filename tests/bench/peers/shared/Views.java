package peers;

import java.util.Map;
import redis.clients.jedis.Jedis;
import redis.clients.jedis.Pipeline;

/** Results to Redis, pipelined: a hash for each series and window. Values are absolute, so writing one again does no harm. */
public final class Views implements AutoCloseable {
  private static final int BATCH = 1000;
  private final Jedis jedis;
  private final Pipeline pipeline;
  private int waiting;

  public Views(String url) {
    jedis = new Jedis(url);
    pipeline = jedis.pipelined();
  }

  /** The windows whose bits are set in changed. */
  public void write(String name, int[] totals, int changed) {
    for (int w = 0; w < Series.WINDOWS; w++) {
      if ((changed & 1 << w) == 0)
        continue;
      int at = w * Event.COUNTS;
      int promoters = totals[at + Event.PROMOTERS], passives = totals[at + Event.PASSIVES],
          detractors = totals[at + Event.DETRACTORS], n = promoters + passives + detractors;
      pipeline.hset("peer:" + name + ':' + Series.NAMES[w],
          Map.of("n", Integer.toString(n), "promoters", Integer.toString(promoters), "passives",
              Integer.toString(passives), "detractors", Integer.toString(detractors), "nps",
              n == 0 ? "" : Double.toString(100.0 * (promoters - detractors) / n), "interactions",
              Integer.toString(totals[at + Event.INTERACTIONS]), "invitations",
              Integer.toString(totals[at + Event.INVITATIONS]), "answers", Integer.toString(totals[at + Event.ANSWERS])));
      if (++waiting == BATCH)
        flush();
    }
  }

  /** Waits until Redis has taken everything. */
  public void flush() {
    if (waiting > 0)
      pipeline.sync();
    waiting = 0;
  }

  @Override
  public void close() {
    flush();
    pipeline.close();
    jedis.close();
  }
}
