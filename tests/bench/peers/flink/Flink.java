package peers;

import java.util.HashMap;
import java.util.Map;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.sink2.SinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.streaming.api.TimeDomain;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.ChainingStrategy;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/** The six windows in Flink's DataStream API: topic -> parse -> combine (until the next checkpoint) -> by series -> fold -> Redis.
 *   Flink BOOTSTRAP TOPIC REDIS_URL FOLDER PARALLELISM */
public final class Flink {
  private static final int CELLS_MAX = 100_000;

  public static void main(String[] args) throws Exception {
    Configuration settings = new Configuration();
    settings.setString("state.backend.type", "hashmap");
    settings.setString("taskmanager.memory.managed.size", "0");
    settings.setString("execution.checkpointing.dir", "file://" + args[3]);
    settings.setString("execution.checkpointing.interval", "1s");
    settings.setString("execution.checkpointing.mode", "EXACTLY_ONCE");
    settings.setString("pipeline.object-reuse", "true");
    settings.setString("pipeline.generic-types", "false"); // nothing falls back to Kryo unseen
    settings.setString("pipeline.auto-watermark-interval", "0");
    settings.setString("rest.bind-port", "0");
    StreamExecutionEnvironment env =
        StreamExecutionEnvironment.createLocalEnvironment(Integer.parseInt(args[4]), settings);
    KafkaSource<Event> source = KafkaSource.<Event>builder()
                                    .setBootstrapServers(args[0])
                                    .setTopics(args[1])
                                    .setGroupId("flink")
                                    .setStartingOffsets(OffsetsInitializer.earliest())
                                    .setBounded(OffsetsInitializer.latest())
                                    .setProperty("max.poll.records", "5000")
                                    .setDeserializer(new Parse())
                                    .build();
    Run.start();
    env.fromSource(source, WatermarkStrategy.noWatermarks(), "topic")
        .transform("combine", TypeInformation.of(Delta.class), new Combine())
        .keyBy(delta -> delta.series)
        .process(new Fold())
        .sinkTo(new ToRedis(args[2]));
    env.execute("livenps peer");
    Run.finish();
  }

  /** The event is one object, filled again for each record: it goes no further than the next operator of the chain. */
  private static final class Parse implements KafkaRecordDeserializationSchema<Event> {
    private transient Event event;

    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Event> out) {
      if (event == null)
        event = new Event();
      event.read(record.value(), record.timestamp());
      out.collect(event);
    }

    @Override
    public TypeInformation<Event> getProducedType() {
      return TypeInformation.of(Event.class);
    }
  }

  /** Counts of one series and second. */
  public static final class Delta {
    public String series;
    public long second;
    public int[] counts;
  }

  /** What came since the last checkpoint is added up before it goes to the series, ahead of the barrier: so a checkpoint holds no
   * half of it, and the exchange between tasks carries sums instead of six records for each event. */
  private static final class Combine extends AbstractStreamOperator<Delta> implements OneInputStreamOperator<Event, Delta> {
    private transient Map<Cell, int[]> cells;

    Combine() {
      setChainingStrategy(ChainingStrategy.ALWAYS);
    }

    @Override
    public void open() throws Exception {
      super.open();
      cells = new HashMap<>();
    }

    @Override
    public void processElement(StreamRecord<Event> record) {
      Event event = record.getValue();
      event.count(cells.computeIfAbsent(event.cell(), cell -> new int[Event.COUNTS]));
      Run.read.increment();
      if (cells.size() >= CELLS_MAX)
        flush();
    }

    @Override
    public void prepareSnapshotPreBarrier(long checkpoint) {
      flush();
    }

    /** There is one: at the end of the topic, and the timers that it sets off must see everything. */
    @Override
    public void processWatermark(Watermark mark) throws Exception {
      flush();
      super.processWatermark(mark);
    }

    private void flush() {
      Delta delta = new Delta();
      StreamRecord<Delta> out = new StreamRecord<>(delta);
      Cell.spread(cells, (series, second, counts) -> {
        delta.series = series;
        delta.second = second;
        delta.counts = counts;
        output.collect(out);
      });
      cells.clear();
    }
  }

  /** What is to be shown of a series. */
  public static final class View {
    public String series;
    public int[] totals;
    public int changed;
  }

  private static final class Fold extends KeyedProcessFunction<String, Delta, View> implements Series.Slices {
    private transient ValueState<Series> series;
    private transient MapState<Long, int[]> slices;
    private transient View view;

    @Override
    public void open(OpenContext context) {
      series = getRuntimeContext().getState(new ValueStateDescriptor<>("series", TypeInformation.of(Series.class)));
      slices = getRuntimeContext().getMapState(new MapStateDescriptor<>(
          "slices", Types.LONG, PrimitiveArrayTypeInfo.INT_PRIMITIVE_ARRAY_TYPE_INFO));
      view = new View();
    }

    @Override
    public void processElement(Delta delta, Context context, Collector<View> out) throws Exception {
      Series found = series.value();
      if (found == null) {
        found = new Series();
        context.timerService().registerProcessingTimeTimer((Run.clock() + 1) * 1000);
        context.timerService().registerEventTimeTimer(Long.MAX_VALUE); // the end of the topic
      }
      found.advance(this, Run.clock());
      found.add(this, delta.second, delta.counts);
      series.update(found);
    }

    /** Once a second the clock moves and what changed is shown; at the end everything is. */
    @Override
    public void onTimer(long time, OnTimerContext context, Collector<View> out) throws Exception {
      Series found = series.value();
      boolean end = context.timeDomain() == TimeDomain.EVENT_TIME;
      found.advance(this, end ? Run.stopClock() : Run.clock());
      if (end)
        found.changed = (1 << Series.WINDOWS) - 1;
      else
        context.timerService().registerProcessingTimeTimer(time + 1000);
      if (found.changed != 0) {
        view.series = context.getCurrentKey();
        view.totals = found.totals;
        view.changed = found.changed;
        out.collect(view);
      }
      found.changed = 0;
      series.update(found);
    }

    @Override
    public int[] get(long slot) throws Exception {
      return slices.get(slot);
    }

    @Override
    public void put(long slot, int[] counts) throws Exception {
      slices.put(slot, counts);
    }

    @Override
    public void remove(long slot) throws Exception {
      slices.remove(slot);
    }
  }

  private static final class ToRedis implements Sink<View> {
    private final String url;

    ToRedis(String url) {
      this.url = url;
    }

    @Override
    @SuppressWarnings("deprecation") // abstract still, and called by nobody
    public SinkWriter<View> createWriter(InitContext context) {
      throw new UnsupportedOperationException();
    }

    @Override
    public SinkWriter<View> createWriter(WriterInitContext context) {
      Views views = new Views(url);
      return new SinkWriter<View>() {
        @Override
        public void write(View view, Context element) {
          views.write(view.series, view.totals, view.changed);
        }

        /** Before each checkpoint, and at the end. */
        @Override
        public void flush(boolean end) {
          views.flush();
          if (end)
            Run.done();
        }

        @Override
        public void close() {
          views.close();
        }
      };
    }
  }
}
