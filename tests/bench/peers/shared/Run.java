package peers;

import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.util.concurrent.atomic.LongAdder;

/** One run: its clock, which stops at the end of the topic so that all series end at one moment, and its figures on stdout:
 * lines "read EVENTS CPU_NS", CPU being user and system time of the whole process, at last "end EVENTS CPU_NS CLOCK_S". */
public final class Run {
  public static final LongAdder read = new LongAdder();
  private static final OperatingSystemMXBean PROCESS = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
  private static volatile long end = Long.MAX_VALUE;
  private static String last;

  /** Seconds since 1970. */
  public static long clock() {
    return Math.min(System.currentTimeMillis() / 1000, end);
  }

  /** The moment at which all series end, later than any that clock() ever told. */
  public static synchronized long stopClock() {
    if (end == Long.MAX_VALUE)
      end = System.currentTimeMillis() / 1000 + 1;
    return end;
  }

  public static void start() {
    Thread thread = new Thread(() -> {
      try {
        while (true) {
          if (read.sum() > 0)
            System.out.println("read " + read.sum() + " " + PROCESS.getProcessCpuTime());
          Thread.sleep(100);
        }
      } catch (InterruptedException ended) {
        Thread.currentThread().interrupt();
      }
    });
    thread.setDaemon(true);
    thread.start();
  }

  /** Everything is in Redis now, as far as the caller knows; the last call counts. */
  public static synchronized void done() {
    last = "end " + read.sum() + " " + PROCESS.getProcessCpuTime() + " " + stopClock();
  }

  public static synchronized void finish() {
    System.out.println(last);
    System.out.flush();
  }
}
