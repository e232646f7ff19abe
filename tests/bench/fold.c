/* What it costs to read log entries and fold them, as the aggregator does it while the clock goes on:
 *   fold [--touchpoints=N] [--windows=5m/1s,1h/10s...] [--rate=EVENTS] [--seconds=N] [--rounds=N]
 * Simulated events, `rate` in a second, ten entries a second; the clock stands at each entry's time when it is folded, and what was
 * folded is in its slices when the next second begins. Everything is folded twice, the second time that much later: what is counted is
 * the second time, when all names are known. Then the state is written as a snapshot, and loaded again. Prints name value: the best
 * round's nanoseconds of CPU per event and per row, rows of an event, series, resident kilobytes; of the snapshot bytes, chunks and
 * milliseconds of CPU to write and to load it. */

#include "bench.h"

#include "consumer/combine.h"
#include "consumer/state.h"

enum { ENTRIES = 10 /* a second */ };

typedef struct {
  int64_t ms;
  livenps_buffer payload;
  size_t rows;
} logged;

static livenps_settings settings;

static void make_entries(logged *entries, size_t count, size_t events, int touchpoints, int64_t start_ms) {
  livenps_error error = {0};
  livenps_generator *generator;
  livenps_generated made;
  livenps_combine *combine = livenps_combine_new();
  const livenps_generator_options options = {
      .seed = 1, .touchpoints = touchpoints, .start_ms = start_ms, .incident_at = LIVENPS_NO_INCIDENT};
  if (livenps_generator_open(&generator, &options, &error))
    bench_fail("fold", error.text);
  for (size_t i = 0; i < count; i++) {
    entries[i] = (logged){.ms = start_ms + (int64_t)i * 1000 / ENTRIES};
    for (size_t e = 0; e < events; e++) {
      livenps_generator_next(generator, entries[i].ms, &made);
      livenps_combine_add(combine, &made.event, (livenps_text){0});
    }
    livenps_entry entry = {.writer = livenps_text_of("bench"), .clock_ms = entries[i].ms};
    livenps_combine_lend(combine, &entry);
    livenps_entry_encode(&entry, &entries[i].payload);
    entries[i].rows = entry.row_count;
    livenps_combine_reset(combine);
  }
  livenps_generator_close(generator);
  livenps_combine_free(combine);
}

static void fold_all(livenps_state *state, const logged *entries, size_t count, int64_t later_s) {
  livenps_error error = {0};
  for (size_t i = 0; i < count; i++) {
    const int64_t ms = entries[i].ms + later_s * 1000;
    livenps_entry entry = {0};
    livenps_state_advance(state, ms);
    if (livenps_entry_decode(&entry, entries[i].payload.at, entries[i].payload.length, &error))
      bench_fail("fold", error.text);
    for (size_t r = 0; later_s && r < entry.row_count; r++)
      entry.rows[r].second += later_s;
    if (livenps_state_fold(state, &entry, ms, &error))
      bench_fail("fold", error.text);
    livenps_entry_free(&entry);
  }
  livenps_state_advance(state, entries[0].ms + later_s * 1000 + (int64_t)count * 1000 / ENTRIES);
}

typedef struct {
  livenps_buffer *chunks;
  size_t count, bytes;
} written;

static int keep_chunk(void *opaque, const char *name, bool dirty, const char *bytes, size_t length) {
  written *out = opaque;
  (void)name;
  if (!dirty)
    bench_fail("fold", "a new state has a clean chunk");
  out->chunks = livenps_resize(out->chunks, (out->count + 1) * sizeof *out->chunks);
  out->chunks[out->count] = (livenps_buffer){0};
  livenps_buffer_add(&out->chunks[out->count++], bytes, length);
  out->bytes += length;
  return 0;
}

static void snapshot_and_load(livenps_state *state) {
  livenps_error error = {0};
  livenps_state *loaded;
  written out = {0};
  double began = bench_clock(CLOCK_THREAD_CPUTIME_ID);
  livenps_state_snapshot(state, 1024 * 1024, keep_chunk, &out);
  printf("snapshot_bytes %zu\nsnapshot_chunks %zu\nsnapshot_ms %.1f\n", out.bytes, out.count,
         (bench_clock(CLOCK_THREAD_CPUTIME_ID) - began) * 1e3);
  began = bench_clock(CLOCK_THREAD_CPUTIME_ID);
  livenps_state_open(&loaded, &settings);
  for (size_t i = 0; i < out.count; i++)
    if (livenps_state_load(loaded, out.chunks[i].at, out.chunks[i].length, &error))
      bench_fail("fold", error.text);
  if (livenps_state_load_finish(loaded, &error))
    bench_fail("fold", error.text);
  printf("load_ms %.1f\n", (bench_clock(CLOCK_THREAD_CPUTIME_ID) - began) * 1e3);
  for (size_t i = 0; i < out.count; i++)
    livenps_buffer_free(&out.chunks[i]);
  free(out.chunks);
  livenps_state_free(loaded);
}

/* What is counted; a function of its own, because tests/bench/run instructions counts between its beginning and its end. */
__attribute__((noinline)) static void measured_fold(livenps_state *state, const logged *entries,
                                                    size_t count) {
  fold_all(state, entries, count, (int64_t)(count / ENTRIES));
}

/* last: what is printed of the state is printed. */
static double round_fold(const logged *entries, size_t count, bool last) {
  livenps_state *state;
  livenps_state_open(&state, &settings);
  fold_all(state, entries, count, 0);
  const double began = bench_clock(CLOCK_THREAD_CPUTIME_ID);
  measured_fold(state, entries, count);
  const double took = bench_clock(CLOCK_THREAD_CPUTIME_ID) - began;
  if (last) {
    size_t series = 0;
    struct rusage usage;
    for (size_t r = 0; r < settings.rollups.count; r++)
      series += livenps_state_series(state, r, NULL);
    getrusage(RUSAGE_SELF, &usage);
    printf("series %zu\nresident_kb %ld\n", series, usage.ru_maxrss);
    snapshot_and_load(state);
  }
  livenps_state_free(state);
  return took;
}

int main(int argc, char **argv) {
  livenps_error error = {0};
  const size_t seconds = (size_t)bench_number(argc, argv, "seconds", "4");
  const size_t events = (size_t)bench_number(argc, argv, "rate", "200000") / ENTRIES;
  const long rounds = bench_number(argc, argv, "rounds", "5");
  const char *windows = bench_option(argc, argv, "windows", NULL);
  size_t rows = 0;
  livenps_settings_default(&settings);
  settings.series_max = 1000000;
  if (windows) {
    char setting[500];
    snprintf(setting, sizeof setting, "windows=%s", windows);
    if (livenps_settings_set(&settings, setting, &error))
      bench_fail("fold", error.text);
  }
  logged *entries = livenps_alloc(seconds * ENTRIES * sizeof *entries);
  make_entries(entries, seconds * ENTRIES, events, (int)bench_number(argc, argv, "touchpoints", "24"),
               livenps_wall_ms() / 1000 * 1000);
  double best = 1e9;
  for (long i = 0; i < rounds; i++) {
    const double took = round_fold(entries, seconds * ENTRIES, i + 1 == rounds);
    best = took < best ? took : best;
  }
  for (size_t i = 0; i < seconds * ENTRIES; i++) {
    rows += entries[i].rows;
    livenps_buffer_free(&entries[i].payload);
  }
  const double counted = (double)(seconds * ENTRIES * events);
  printf("event_ns %.1f\nrow_ns %.1f\nevent_rows %.3f\n", best * 1e9 / counted, best * 1e9 / (double)rows,
         (double)rows / counted);
  free(entries);
  livenps_settings_free(&settings);
  return 0;
}
