/* The second opinion of `verify` against the program's own decoder and state: every case, and what a seeded hand makes of the cases. */
#include "common/clock.h"
#include "consumer/recount.h"
#include "consumer/state.h"
#include "tests/unit/decode_case.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static livenps_mapping *mappings[3]; /* the contract, and the two vendors' */
static const char *const files[] = {NULL, "config/mappings/delighted.yaml", "config/mappings/typeform.yaml"};
static livenps_decoder *decoder;

static int set_up(void **state) {
  (void)state;
  livenps_error error = {0};
  decoder = livenps_decoder_new();
  for (int i = 1; i < 3; i++) {
    char path[512];
    snprintf(path, sizeof path, LIVENPS_SOURCE_DIR "/%s", files[i]);
    if (livenps_mapping_load(&mappings[i], path, &error)) {
      return -1;
    }
  }
  return livenps_mapping_default(&mappings[0], &error);
}

static int tear_down(void **state) {
  (void)state;
  for (int i = 0; i < 3; i++) {
    livenps_mapping_free(mappings[i]);
  }
  livenps_decoder_free(decoder);
  return 0;
}

static bool same_event(const livenps_event *a, const livenps_event *b) {
  bool same = a->type == b->type && a->scale == b->scale && a->score == b->score &&
              a->has_value == b->has_value && a->time_ms == b->time_ms &&
              (!a->has_value || a->value == b->value);
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
    same &= livenps_text_equal(a->dimensions[d], b->dimensions[d]);
  }
  return same;
}

static void same_verdict(const livenps_mapping *mapping, const livenps_admission *admission,
                         const livenps_record *record, const char *name) {
  livenps_recount *recount;
  const livenps_recount_config config = {.admission = admission};
  livenps_recount_new(&recount, &config);
  livenps_event one = {0}, two = {0};
  livenps_reason why, reason;
  const livenps_fate fate = livenps_admit(decoder, mapping, admission, record, &one, &why, NULL);
  const livenps_fate other = livenps_recount_judge(recount, mapping, record, &two, &reason);
  if (fate != other || (fate == LIVENPS_REJECTED ? why != reason : !same_event(&one, &two))) {
    fail_msg("%s: the decoder says %d %s, the recount %d %s: %.*s", name, fate,
             fate == LIVENPS_REJECTED ? livenps_reason_name(why) : "", other,
             other == LIVENPS_REJECTED ? livenps_reason_name(reason) : "", (int)record->value.length,
             record->value.at ? record->value.at : "(none)");
  }
  livenps_recount_free(recount);
}

static uint64_t seed = 20261122;
static size_t below(size_t limit) {
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  return limit ? (size_t)(seed >> 33) % limit : 0;
}

/* One to three changes: a byte, a run taken out or doubled, a piece that JSON readers stumble over. */
static size_t mutate(char *bytes, size_t length, size_t room) {
  static const char *const pieces[] = {
      "\"",          "\\",       "{",     "}",  "[",      "]",    ",",     ":",        "0",    "1",
      "-",           ".",        "e5",    "E+", "null",   "true", "false", " ",        "\n",   "\\u0000",
      "\\ud800",     "\\u0041",  "1e999", "10", "9.0",    "-0",   "01",    "\xc3\xa9", "\xff", "\xed\xa0\x80",
      "/",           "\"a\":1,", "T",     "Z",  "+01:00", ".5",   "60",    "A",        "~",    "%",
      "specversion", "\t",       "\x7f"};
  for (size_t i = 0, times = 1 + below(3); i < times; i++) {
    const size_t at = below(length + 1);
    if (below(3) == 0 && length) {
      const size_t run = 1 + below(length - at < 4 ? length - at : 4);
      const size_t cut = at + run <= length ? run : length - at;
      memmove(bytes + at, bytes + at + cut, length - at - cut);
      length -= cut;
      continue;
    }
    const char *piece = pieces[below(sizeof pieces / sizeof *pieces)];
    const size_t more = strlen(piece), over = below(2) && at + more <= length ? more : 0;
    if (length + more > room) {
      continue;
    }
    memmove(bytes + at + more, bytes + at + over, length - at - over);
    memcpy(bytes + at, piece, more);
    length += more - over;
  }
  return length;
}

/* Every case with each mapping, as it is and changed three hundred times. */
static void agrees_with_the_decoder(void **state) {
  (void)state;
  DIR *folder = opendir(CASES);
  assert_non_null(folder);
  size_t judged = 0, cases = 0;
  for (struct dirent *entry = readdir(folder); entry; entry = readdir(folder)) {
    if (entry->d_name[0] == '.') {
      continue;
    }
    size_t length = 0, ignored;
    char *value = case_value(entry->d_name, &length);
    char *text = case_file(entry->d_name, "headers", &ignored);
    char *max_text = case_file(entry->d_name, "max_bytes", &ignored);
    char *timestamp = case_file(entry->d_name, "timestamp", &ignored);
    livenps_header headers[16];
    livenps_record record = {.value = {value, length},
                             .headers = headers,
                             .header_count = case_headers(text, headers, 16),
                             .timestamp_ms = timestamp ? atoll(timestamp) : 0};
    const livenps_admission admission = {.max_bytes = max_text ? (size_t)atoll(max_text) : LIVENPS_MAX_RECORD,
                                         .late_ms = timestamp ? INT64_C(7) * 24 * 3600 * 1000 : INT64_MAX,
                                         .future_ms = timestamp ? 60000 : INT64_MAX};
    for (int m = 0; m < 3; m++) {
      same_verdict(mappings[m], &admission, &record, entry->d_name);
      cases++;
    }
    char bytes[4096];
    for (int i = 0; i < 300 && value && length < 3000; i++) {
      memcpy(bytes, value, length);
      record.value = (livenps_text){bytes, mutate(bytes, length, sizeof bytes)};
      same_verdict(mappings[below(3)], &admission, &record, entry->d_name);
      judged++;
    }
    free(value);
    free(text);
    free(max_text);
    free(timestamp);
  }
  closedir(folder);
  print_message("%zu cases, %zu changed ones\n", cases, judged);
  assert_true(cases >= 3 * 200 && judged >= 50000);
}

/* Admission: the limits themselves, the allow-list, a replay's range, a record without a timestamp. */
static void admission_agrees(void **state) {
  (void)state;
  char one[] = "billing", two[] = "delivery";
  char *allowed[] = {one, two};
  const char *const touchpoints[] = {"billing", "delivery", "deliver", "delivery2"};
  for (int list = 0; list < 2; list++)
    for (int64_t off = -3; off <= 3; off++)
      for (int t = 0; t < 4; t++)
        for (int replay = 0; replay < 2; replay++) {
          const livenps_admission admission = {.max_bytes = LIVENPS_MAX_RECORD,
                                               .late_ms = 2,
                                               .future_ms = 1,
                                               .touchpoints = list ? allowed : NULL,
                                               .touchpoint_count = list ? 2 : 0,
                                               .replay = replay,
                                               .from_ms = 1795256100000,
                                               .to_ms = 1795256100000 + below(2)};
          char value[200];
          const int length =
              snprintf(value, sizeof value,
                       "{\"id\":\"a\",\"type\":\"interaction\",\"time\":\"2026-11-21T10:15:00.00%dZ\","
                       "\"touchpoint\":\"%s\"}",
                       (int)below(3), touchpoints[t]);
          livenps_record record = {.value = {value, (size_t)length}, .timestamp_ms = 1795256100000 + off};
          same_verdict(mappings[0], &admission, &record, "admission");
          record.timestamp_ms = -1;
          same_verdict(mappings[0], &admission, &record, "no timestamp");
          record.timestamp_ms = INT64_MAX;
          same_verdict(mappings[0], &admission, &record, "a timestamp that no difference reaches");
        }
}

/* ---- sums ---- */

enum { CLOCK_S = 1795256100 };

typedef struct {
  const livenps_recount *recount;
  size_t compared;
} comparison;

static int compare_view(void *opaque, const livenps_view *view) {
  comparison *self = opaque;
  static const livenps_sums none;
  const livenps_sums *sums = livenps_recount_find(self->recount, view->rollup, view->id, view->window);
  sums = sums ? sums : &none;
  assert_memory_equal(&sums->now, &view->now, sizeof view->now);
  assert_memory_equal(&sums->previous, &view->previous, sizeof view->previous);
  assert_int_equal(livenps_recount_start(self->recount, view->window, false), view->window_start_ms);
  self->compared++;
  return 0;
}

static int count_series(void *opaque, const char *id, const livenps_sums *sums) {
  (void)id;
  static const livenps_sums none;
  *(size_t *)opaque += memcmp(sums, &none, sizeof none) != 0;
  return 0;
}

/* Thousands of events at seconds around every border, through the recount and through the state. */
static void sums_agree_with_the_state(void **state_) {
  (void)state_;
  livenps_error error = {0};
  livenps_settings settings;
  livenps_settings_default(&settings);
  assert_int_equal(livenps_settings_set(&settings, "windows=5m/1s,10m/2s,30m/6s,1h/10s", &error), 0);
  assert_int_equal(livenps_settings_check(&settings, &error), 0);
  livenps_window windows[8];
  livenps_rollup rollups[8];
  for (size_t i = 0; i < settings.windows.count; i++) {
    assert_int_equal(livenps_window_parse(settings.windows.at[i], &windows[i], &error), 0);
  }
  for (size_t i = 0; i < settings.rollups.count; i++) {
    assert_int_equal(livenps_rollup_parse(settings.rollups.at[i], &rollups[i], &error), 0);
  }
  const livenps_admission admission = {
      .max_bytes = LIVENPS_MAX_RECORD, .late_ms = INT64_MAX, .future_ms = INT64_MAX};
  for (int64_t clock_ms = (int64_t)CLOCK_S * 1000; clock_ms < (int64_t)CLOCK_S * 1000 + 4000;
       clock_ms += 1700) {
    livenps_state *state;
    livenps_recount *recount;
    const livenps_recount_config config = {.windows = windows,
                                           .window_count = settings.windows.count,
                                           .rollups = rollups,
                                           .rollup_count = settings.rollups.count,
                                           .series_max = 1000,
                                           .admission = &admission,
                                           .clock_ms = clock_ms};
    livenps_tally tally = {0};
    livenps_state_open(&state, &settings);
    livenps_recount_new(&recount, &config);
    for (int i = 0; i < 4000; i++) {
      static const int64_t spans[] = {12, 310, 610, 1230, 7300};
      const int64_t time_ms = clock_ms + 3000 - (int64_t)below((size_t)spans[below(5)] * 1000);
      static const char *const scales[] = {"nps", "csat", "ces"};
      static const int top[] = {11, 5, 7};
      const size_t scale = below(3);
      char time[32], value[300];
      livenps_time_print(time_ms, time);
      const int length = snprintf(
          value, sizeof value,
          "{\"id\":\"%d\",\"type\":\"%s\",\"time\":\"%s\",\"touchpoint\":\"T:%zu\",\"channel\":\"C%zu\","
          "\"scale\":\"%s\",\"score\":%zu,\"value\":%zu.%zu%s}",
          i, (const char *const[]){"answer", "interaction", "invitation"}[below(4) % 3], time, below(9),
          below(3), scales[scale], below((size_t)top[scale]) + (scale != 0), below(100), below(100),
          below(2) ? ",\"segment\":\"s\"" : "");
      livenps_record record = {.value = {value, (size_t)length}, .timestamp_ms = time_ms};
      livenps_recount_record(recount, mappings[0], &record, &tally);
      livenps_event event;
      livenps_reason reason;
      assert_int_equal(livenps_admit(decoder, mappings[0], &admission, &record, &event, &reason, NULL),
                       LIVENPS_ACCEPTED);
      livenps_counters counters = {0};
      livenps_counters_count(&counters, &event);
      livenps_state_add(state, event.dimensions, event.time_ms / 1000, &counters);
    }
    assert_int_equal(tally.accepted, 4000);
    livenps_state_advance(state, clock_ms);
    comparison self = {.recount = recount};
    for (size_t r = 0; r < settings.rollups.count; r++) {
      for (size_t w = 0; w < settings.windows.count; w++) {
        const livenps_visitor visitor = {.view = compare_view, .opaque = &self};
        const size_t before = self.compared;
        size_t series = 0;
        livenps_state_views(state, r, w, &visitor);
        assert_int_equal(livenps_recount_each(recount, r, w, count_series, &series), 0);
        assert_int_equal(series, self.compared - before);
      }
    }
    assert_true(self.compared > 50);
    livenps_recount_free(recount);
    livenps_state_free(state);
  }
  livenps_settings_free(&settings);
}

/* A tally says what became of every record; beyond twice series_max names are added up as one, and memory stays bounded. */
static void tallies_and_the_cap(void **state) {
  (void)state;
  const livenps_window window = {.name = "5m", .length_ms = 300000, .slice_ms = 1000};
  livenps_rollup rollup;
  livenps_error error = {0};
  assert_int_equal(livenps_rollup_parse("touchpoint", &rollup, &error), 0);
  const livenps_admission admission = {.max_bytes = 1000, .late_ms = 1000, .future_ms = 1000};
  const livenps_recount_config config = {.windows = &window,
                                         .window_count = 1,
                                         .rollups = &rollup,
                                         .rollup_count = 1,
                                         .series_max = 3,
                                         .admission = &admission,
                                         .clock_ms = (int64_t)CLOCK_S * 1000};
  livenps_recount *recount;
  livenps_recount_new(&recount, &config);
  livenps_tally tally = {0};
  char value[200];
  for (int i = 0; i < 2000; i++) {
    const int length = snprintf(
        value, sizeof value,
        "{\"id\":\"%d\",\"type\":\"interaction\",\"time\":\"2026-11-21T10:14:59Z\",\"touchpoint\":\"t%d\"}",
        i, i);
    const livenps_record record = {.value = {value, (size_t)length},
                                   .timestamp_ms = ((int64_t)CLOCK_S - 1) * 1000 + (i % 10 == 9 ? 1001 : 0)};
    livenps_recount_record(recount, mappings[0], &record, &tally);
  }
  const livenps_record nothing = {.timestamp_ms = 0};
  livenps_recount_record(recount, mappings[0], &nothing, &tally);
  assert_int_equal(tally.accepted, 1800);
  assert_int_equal(tally.late, 200);
  assert_int_equal(tally.rejected[LIVENPS_REASON_TOMBSTONE], 1);
  assert_int_equal(livenps_recount_find(recount, 0, "t0", 0)->now.at[LIVENPS_INTERACTIONS], 1);
  assert_int_equal(livenps_recount_find(recount, 0, "~other", 0)->now.at[LIVENPS_INTERACTIONS], 1794);
  assert_null(livenps_recount_find(recount, 0, "t1999", 0));
  livenps_recount_free(recount);
  livenps_recount_free(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(agrees_with_the_decoder),
      cmocka_unit_test(admission_agrees),
      cmocka_unit_test(sums_agree_with_the_state),
      cmocka_unit_test(tallies_and_the_cap),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
