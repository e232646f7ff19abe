/* What the pure middle costs per event, without Kafka and Redis:
 *   middle --count=N [--form=cloudevent|plain|binary] [--size=BYTES] [--outlines=N]
 * form: binary is CloudEvents' binary mode, with attributes in headers; size is that of the value then.
 * outlines: one event after another has another one of N additional keys, so that N kinds of documents alternate.
 * Each line: what, nanoseconds of CPU per event (the best of five rounds over the same records). */

#include "bench.h"

#include "common/admit.h"
#include "consumer/batch.h"
#include "consumer/state.h"

#include <jansson.h>

enum { ROUNDS = 5, BATCH = 20000 /* events in 100 ms at 200,000 a second */ };

enum { ATTRIBUTES = 6 };
static livenps_record *records;
static livenps_header (*headers)[ATTRIBUTES]; /* only of the form binary */
static size_t count;
static livenps_admission admission;
static livenps_mapping *mapping;
static uint64_t sink; /* so that nothing is optimised away */

static void report(const char *what, double best) {
  printf("%s %.1f\n", what, best * 1e9 / (double)count);
}

static void best(const char *what, void (*round)(void)) {
  double least = 1e9;
  for (int i = 0; i < ROUNDS; i++) {
    const double began = bench_clock(CLOCK_THREAD_CPUTIME_ID);
    round();
    const double took = bench_clock(CLOCK_THREAD_CPUTIME_ID) - began;
    if (took < least)
      least = took;
  }
  report(what, least);
}

static void round_jansson(void) {
  for (size_t i = 0; i < count; i++) {
    json_t *root = json_loadb(records[i].value.at, records[i].value.length, JSON_REJECT_DUPLICATES, NULL);
    sink += json_object_size(root);
    json_decref(root);
  }
}

static livenps_decoder *decoder;

static void round_decode(void) {
  for (size_t i = 0; i < count; i++) {
    livenps_event event;
    sink += livenps_decode(decoder, mapping, admission.max_bytes, &records[i], &event, NULL);
    sink += (uint64_t)event.time_ms;
  }
}

static void round_admit(void) {
  for (size_t i = 0; i < count; i++) {
    livenps_event event;
    livenps_reason reason;
    sink += livenps_admit(decoder, mapping, &admission, &records[i], &event, &reason, NULL);
  }
}

static livenps_batch batch;
static size_t rows, entries, entry_bytes;
static bool encode;

static void round_batch(void) {
  livenps_buffer payload = {0};
  livenps_lane *lane = &batch.lanes[0];
  rows = entries = entry_bytes = 0;
  for (size_t i = 0; i < count; i++) {
    livenps_fate fate;
    livenps_reason reason;
    livenps_where where;
    livenps_batch_record(&batch, lane, lane->next, &records[i], &fate, &reason, &where);
    if (fate != LIVENPS_ACCEPTED)
      bench_fail("middle", "an event was not accepted");
    if ((i + 1) % BATCH && i + 1 != count)
      continue;
    rows += livenps_combine_rows(batch.combine);
    entries++;
    if (encode) {
      livenps_advance advance;
      livenps_entry entry;
      livenps_batch_entry(&batch, livenps_text_of("bench"), livenps_monotonic_ms(), &advance, &entry);
      payload.length = 0;
      livenps_entry_encode(&entry, &payload);
      entry_bytes += payload.length;
    }
    livenps_batch_committed(&batch);
  }
  livenps_buffer_free(&payload);
}

static livenps_buffer *payloads;
static livenps_settings settings;

static void make_payloads(void) {
  livenps_lane *lane = &batch.lanes[0];
  payloads = livenps_alloc((entries + 1) * sizeof *payloads);
  lane->next = 0;
  lane->stored = (livenps_position){.incarnation = 1};
  for (size_t i = 0, made = 0; i < count; i++) {
    livenps_fate fate;
    livenps_reason reason;
    livenps_where where;
    livenps_batch_record(&batch, lane, lane->next, &records[i], &fate, &reason, &where);
    if ((i + 1) % BATCH && i + 1 != count)
      continue;
    livenps_advance advance;
    livenps_entry entry;
    livenps_batch_entry(&batch, livenps_text_of("bench"), livenps_monotonic_ms(), &advance, &entry);
    livenps_entry_encode(&entry, &payloads[made++]);
    livenps_batch_committed(&batch);
  }
}

static int64_t now_ms;

/* Decoding an entry and folding it, as the aggregator does. */
static void round_fold(void) {
  livenps_state *state;
  livenps_error error = {0};
  livenps_state_open(&state, &settings);
  livenps_state_advance(state, now_ms);
  for (size_t i = 0; i < entries; i++) {
    livenps_entry entry = {0};
    if (livenps_entry_decode(&entry, payloads[i].at, payloads[i].length, &error) ||
        livenps_state_fold(state, &entry, now_ms, &error))
      bench_fail("middle", error.text);
    livenps_entry_free(&entry);
  }
  sink += livenps_state_series(state, 0, &(bool){false});
  livenps_state_free(state);
}

static void add_headers(livenps_record *record, livenps_header at[ATTRIBUTES], const livenps_event *event) {
  static const char *const types[] = {"com.livenps.interaction", "com.livenps.invitation",
                                      "com.livenps.answer"};
  char time[32];
  const livenps_header said[ATTRIBUTES] = {
      {livenps_text_of("ce_specversion"), livenps_text_of("1.0")},
      {livenps_text_of("ce_type"), livenps_text_of(types[event->type])},
      {livenps_text_of("ce_source"), livenps_text_of("/livenps/simulate")},
      {livenps_text_of("ce_id"), event->id},
      {livenps_text_of("ce_time"), livenps_text_of(livenps_time_print(event->time_ms, time))},
      {livenps_text_of("content-type"), livenps_text_of("application/json")},
  };
  for (int i = 0; i < ATTRIBUTES; i++) {
    at[i] = said[i];
    at[i].value.at = livenps_copy(said[i].value.at, said[i].value.length);
  }
  record->headers = at;
  record->header_count = ATTRIBUTES;
}

int main(int argc, char **argv) {
  livenps_error error = {0};
  livenps_generator *generator;
  livenps_generated made;
  livenps_buffer line = {0};
  const bool cloudevent = !strcmp(bench_option(argc, argv, "form", "cloudevent"), "cloudevent");
  const bool binary = !strcmp(bench_option(argc, argv, "form", "cloudevent"), "binary");
  const size_t size = (size_t)bench_number(argc, argv, "size", "355");
  const long outlines = bench_number(argc, argv, "outlines", "1");
  const livenps_generator_options options = {
      .seed = 1, .touchpoints = 24, .start_ms = livenps_wall_ms(), .incident_at = LIVENPS_NO_INCIDENT};
  count = (size_t)bench_number(argc, argv, "count", "300000");
  now_ms = livenps_wall_ms();
  livenps_settings_default(&settings);
  if (livenps_generator_open(&generator, &options, &error) || livenps_mapping_default(&mapping, &error))
    bench_fail("middle", error.text);
  records = livenps_alloc(count * sizeof *records);
  headers = binary ? livenps_alloc(count * sizeof *headers) : NULL;
  double bytes = 0;
  for (size_t i = 0; i < count; i++) {
    livenps_generator_next(generator, now_ms, &made);
    bench_event(&made.event, cloudevent, size, &line);
    if (outlines > 1) {
      livenps_buffer whole = line;
      line = (livenps_buffer){0};
      livenps_buffer_print(&line, "{\"key-%ld\":1,", (long)i % outlines);
      livenps_buffer_add(&line, whole.at + 1, whole.length - 1);
      livenps_buffer_free(&whole);
    }
    records[i] =
        (livenps_record){.value = {livenps_copy(line.at, line.length), line.length}, .timestamp_ms = now_ms};
    if (binary)
      add_headers(&records[i], headers[i], &made.event);
    bytes += (double)line.length;
  }
  livenps_generator_close(generator);
  livenps_buffer_free(&line);
  admission = (livenps_admission){.max_bytes = (size_t)settings.admit_max_bytes,
                                  .late_ms = settings.admit_late_ms,
                                  .future_ms = settings.admit_future_ms};
  decoder = livenps_decoder_new();
  livenps_batch_init(&batch, &admission);
  livenps_batch_open(&batch, "bench", 0, mapping, 0);
  livenps_batch_adopt(&batch, &batch.lanes[0], &(livenps_position){.incarnation = 1}, now_ms);

  printf("bytes %.1f\n", bytes / (double)count);
  best("jansson_parse", round_jansson);
  best("decode", round_decode);
  best("decode_admit", round_admit);
  best("decode_admit_combine", round_batch);
  encode = true;
  best("decode_admit_combine_encode", round_batch);
  make_payloads();
  best("entry_decode_fold", round_fold);
  printf("rows_per_entry %.1f\n", (double)rows / (double)entries);
  printf("entry_bytes %.1f\n", (double)entry_bytes / (double)entries);
  livenps_batch_free(&batch);
  livenps_decoder_free(decoder);
  livenps_mapping_free(mapping);
  for (size_t i = 0; i < count; i++) {
    free((void *)(uintptr_t)records[i].value.at);
    for (int h = 0; binary && h < ATTRIBUTES; h++)
      free((void *)(uintptr_t)headers[i][h].value.at);
  }
  free(headers);
  for (size_t i = 0; i < entries; i++)
    livenps_buffer_free(&payloads[i]);
  free(payloads);
  free(records);
  livenps_settings_free(&settings);
  return sink == 42;
}
