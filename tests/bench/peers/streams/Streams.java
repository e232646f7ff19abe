package peers;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Function;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;

/** The six windows in the Processor API of Kafka Streams, exactly once: topic -> parse, combine in a store -> topic of sums by series,
 * once a second -> fold -> Redis. The topic of sums has a partition for each thread.
 *   Streams BOOTSTRAP TOPIC REDIS_URL FOLDER THREADS EVENTS SUMS_TOPIC */
public final class Streams {
  private static final Duration TICK = Duration.ofSeconds(1);
  // How the run knows that it has ended: all events were sent on, and all that was sent was folded.
  private static final AtomicLong toSend = new AtomicLong(), sent = new AtomicLong(), folded = new AtomicLong();
  private static CountDownLatch ended;
  private static volatile Throwable failure;

  public static void main(String[] args) throws Exception {
    int threads = Integer.parseInt(args[4]);
    toSend.set(Long.parseLong(args[5]));
    ended = new CountDownLatch(threads);
    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, args[6]);
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
    settings.put(StreamsConfig.STATE_DIR_CONFIG, args[3]);
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, threads);
    settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 512L << 20);
    settings.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 10000);
    settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1000);
    settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
    settings.put(StreamsConfig.consumerPrefix("max.poll.records"), "5000");

    Topology topology = new Topology();
    topology.addSource("events", new ByteArrayDeserializer(), new ByteArrayDeserializer(), args[1]);
    topology.addProcessor("combine", Combine::new, "events");
    topology.addStateStore(store("pending", keys(Cell::bytes, Cell::of), COUNTS), "combine");
    topology.addSink("to-sums", args[6], new StringSerializer(), new ByteArraySerializer(), "combine");
    topology.addSource("sums", new StringDeserializer(), new ByteArrayDeserializer(), args[6]);
    topology.addProcessor("fold", () -> new Fold(args[2]), "sums");
    topology.addStateStore(store("series", keys(Streams::bytes, Streams::text), SERIES), "fold");
    topology.addStateStore(store("slices", keys(Slot::bytes, Slot::of), COUNTS), "fold");

    Run.start();
    try (KafkaStreams streams = new KafkaStreams(topology, settings)) {
      streams.setUncaughtExceptionHandler(error -> {
        failure = error;
        while (ended.getCount() > 0)
          ended.countDown();
        return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
      });
      streams.start();
      ended.await();
    }
    if (failure != null)
      throw new IllegalStateException(failure);
    Run.finish();
  }

  /** In memory, with its changelog, and a cache so that the changelog gets a key once for each commit. */
  private static <K, V> StoreBuilder<KeyValueStore<K, V>> store(String name, Serde<K> key, Serde<V> value) {
    return Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore(name), key, value).withCachingEnabled();
  }

  /** Keys behind their hash: the cache and the store are trees that compare keys byte by byte, and ours begin alike. */
  private static <T> Serde<T> keys(Function<T, byte[]> to, Function<byte[], T> from) {
    return serde(object -> {
      byte[] key = to.apply(object);
      return ByteBuffer.allocate(4 + key.length).putInt(Arrays.hashCode(key) * 0x9E3779B9).put(key).array();
    }, bytes -> from.apply(Arrays.copyOfRange(bytes, 4, bytes.length)));
  }

  private static <T> Serde<T> serde(Function<T, byte[]> to, Function<byte[], T> from) {
    return Serdes.serdeFrom((topic, object) -> object == null ? null : to.apply(object),
        (topic, bytes) -> bytes == null ? null : from.apply(bytes));
  }

  private static final Serde<int[]> COUNTS = serde(Streams::bytes, bytes -> ints(ByteBuffer.wrap(bytes), bytes.length / 4));
  private static final Serde<Series> SERIES = serde(series -> {
    ByteBuffer out = ByteBuffer.allocate(12 + 4 * series.totals.length).putLong(series.clock).putInt(series.changed);
    for (int total : series.totals)
      out.putInt(total);
    return out.array();
  }, bytes -> {
    ByteBuffer in = ByteBuffer.wrap(bytes);
    Series series = new Series();
    series.clock = in.getLong();
    series.changed = in.getInt();
    series.totals = ints(in, series.totals.length);
    return series;
  });

  private static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  private static String text(byte[] bytes) {
    return new String(bytes, StandardCharsets.UTF_8);
  }

  private static byte[] bytes(int[] counts) {
    ByteBuffer out = ByteBuffer.allocate(4 * counts.length);
    for (int count : counts)
      out.putInt(count);
    return out.array();
  }

  private static int[] ints(ByteBuffer in, int length) {
    int[] found = new int[length];
    for (int i = 0; i < length; i++)
      found[i] = in.getInt();
    return found;
  }

  /** A slice of a series. */
  private record Slot(String series, long slot) {
    byte[] bytes() {
      byte[] name = Streams.bytes(series);
      return ByteBuffer.allocate(8 + name.length).putLong(slot).put(name).array();
    }

    static Slot of(byte[] bytes) {
      return new Slot(new String(bytes, 8, bytes.length - 8, StandardCharsets.UTF_8),
          ByteBuffer.wrap(bytes).getLong());
    }
  }

  /** Sums stay in a store until the tick sends them on, because a commit may fall between any two records. */
  private static final class Combine implements Processor<byte[], byte[], String, byte[]> {
    private final Event event = new Event();
    private ProcessorContext<String, byte[]> context;
    private KeyValueStore<Cell, int[]> pending;

    @Override
    public void init(ProcessorContext<String, byte[]> context) {
      this.context = context;
      pending = context.getStateStore("pending");
      context.schedule(TICK, PunctuationType.WALL_CLOCK_TIME, time -> flush());
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
      event.read(record.value(), record.timestamp());
      Cell cell = event.cell();
      int[] counts = pending.get(cell);
      if (counts == null)
        counts = new int[Event.COUNTS];
      event.count(counts);
      pending.put(cell, counts);
      Run.read.increment();
    }

    private void flush() {
      Map<Cell, int[]> cells = new HashMap<>();
      try (KeyValueIterator<Cell, int[]> all = pending.all()) {
        all.forEachRemaining(one -> cells.put(one.key, one.value));
      }
      long now = context.currentSystemTimeMs();
      Cell.spread(cells, (series, second, counts) -> {
        byte[] sum = ByteBuffer.allocate(8 + 4 * Event.COUNTS).putLong(second).put(bytes(counts)).array();
        sent.incrementAndGet();
        context.forward(new Record<>(series, sum, now));
        if (series.equals("all:all"))
          toSend.addAndGet(-(counts[Event.INTERACTIONS] + counts[Event.INVITATIONS] + counts[Event.ANSWERS]));
      });
      cells.keySet().forEach(cell -> pending.put(cell, null));
    }
  }

  private static final class Fold implements Processor<String, byte[], Void, Void> {
    private final String url;
    private boolean done;
    private Views views;
    private KeyValueStore<String, Series> all;
    private KeyValueStore<Slot, int[]> slices;

    Fold(String url) {
      this.url = url;
    }

    @Override
    public void init(ProcessorContext<Void, Void> context) {
      all = context.getStateStore("series");
      slices = context.getStateStore("slices");
      views = new Views(url);
      context.schedule(TICK, PunctuationType.WALL_CLOCK_TIME, time -> tick());
    }

    @Override
    public void process(Record<String, byte[]> record) {
      ByteBuffer in = ByteBuffer.wrap(record.value());
      long second = in.getLong();
      Series series = all.get(record.key());
      if (series == null)
        series = new Series();
      try {
        series.advance(slicesOf(record.key()), Run.clock());
        series.add(slicesOf(record.key()), second, ints(in, Event.COUNTS));
      } catch (Exception error) {
        throw new IllegalStateException(error);
      }
      all.put(record.key(), series);
      folded.incrementAndGet();
    }

    private void tick() {
      boolean end = toSend.get() == 0 && folded.get() == sent.get();
      show(end ? Run.stopClock() : Run.clock(), end ? (1 << Series.WINDOWS) - 1 : 0);
      if (end && !done) {
        done = true;
        Run.done();
        ended.countDown();
      }
    }

    /** Moves the clock of all series and shows what changed, or what is asked for. */
    private void show(long clock, int windows) {
      List<KeyValue<String, Series>> found = new ArrayList<>();
      try (KeyValueIterator<String, Series> each = all.all()) {
        each.forEachRemaining(found::add);
      }
      for (KeyValue<String, Series> one : found) {
        Series series = one.value;
        try {
          series.advance(slicesOf(one.key), clock);
        } catch (Exception error) {
          throw new IllegalStateException(error);
        }
        if ((series.changed | windows) == 0)
          continue; // the clock alone need not be kept
        views.write(one.key, series.totals, series.changed | windows);
        series.changed = 0;
        all.put(one.key, series);
      }
      views.flush();
    }

    private Series.Slices slicesOf(String name) {
      return new Series.Slices() {
        @Override
        public int[] get(long slot) {
          return slices.get(new Slot(name, slot));
        }

        @Override
        public void put(long slot, int[] counts) {
          slices.put(new Slot(name, slot), counts);
        }

        @Override
        public void remove(long slot) {
          slices.put(new Slot(name, slot), null);
        }
      };
    }

    @Override
    public void close() {
      views.close();
    }
  }
}
