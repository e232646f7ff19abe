/* The simulated contact centre: equal options give equal bytes, times keep their bounds, the numbers are believable, and the
 * consumer admits everything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "common/admit.h"
#include "common/clock.h"
#include "producer/encode.h"
#include "producer/generate.h"
#include "producer/history.h"

enum { DAY_MS = 24 * 3600 * 1000 };
#define MONDAY INT64_C(1767571200000) /* 2026-01-05T00:00:00Z */

static livenps_generator *opened(livenps_generator_options options) {
  livenps_error error = {0};
  livenps_generator *generator = NULL;
  assert_int_equal(livenps_generator_open(&generator, &options, &error), 0);
  return generator;
}

static livenps_generator_options history(uint64_t seed) {
  return (livenps_generator_options){.seed = seed,
                                     .touchpoints = 24,
                                     .has_start = true,
                                     .start_ms = MONDAY,
                                     .incident_at = LIVENPS_NO_INCIDENT};
}

static void print_events(livenps_generator_options options, int count, livenps_buffer *out) {
  livenps_generator *generator = opened(options);
  livenps_generated generated;
  for (int i = 0; i < count; i++) {
    livenps_generator_next(generator, 0, &generated);
    livenps_encode(&generated.event, out);
    livenps_buffer_add(out, "\n", 1);
  }
  livenps_generator_close(generator);
}

static void test_same_bytes(void **state) {
  (void)state;
  livenps_buffer one = {0}, two = {0}, shorter = {0}, other = {0};
  print_events(history(7), 20000, &one);
  print_events(history(7), 20000, &two);
  print_events(history(7), 5000, &shorter);
  print_events(history(8), 20000, &other);
  assert_int_equal(one.length, two.length);
  assert_memory_equal(one.at, two.at, one.length);
  assert_memory_equal(one.at, shorter.at, shorter.length);
  assert_true(one.length != other.length || memcmp(one.at, other.at, one.length) != 0);
  /* The same on every compiler and machine. Whoever changes the generator on purpose changes this, and the changelog. */
  char digest[65];
  livenps_sha256_hex(one.at, one.length, digest);
  assert_string_equal(digest, "67d0decca94ea0d60221263cfdc0265d569622b6f5a33cf1aba7601c31d34d29");
  livenps_buffer_free(&one);
  livenps_buffer_free(&two);
  livenps_buffer_free(&shorter);
  livenps_buffer_free(&other);
}

static void test_history_times(void **state) {
  (void)state;
  livenps_generator *generator = opened(history(1));
  livenps_generated generated;
  int64_t last_ms = MONDAY;
  int late = 0, early = 0;
  for (int i = 0; i < 400000; i++) {
    livenps_generator_next(generator, 0, &generated);
    const int64_t lateness_ms = generated.send_ms - generated.event.time_ms;
    assert_true(generated.send_ms >= last_ms);
    assert_true(generated.event.time_ms >= MONDAY);
    assert_in_range(lateness_ms + LIVENPS_EARLY_MS, 0, LIVENPS_EARLY_MS + LIVENPS_LATE_MS);
    late += lateness_ms > 60000;
    early += lateness_ms < 0;
    last_ms = generated.send_ms;
  }
  assert_in_range(late, 400000 * 20 / 1000, 400000 * 45 / 1000);
  assert_in_range(early, 400000 * 4 / 1000, 400000 * 8 / 1000);
  assert_true(last_ms > MONDAY + DAY_MS / 4 && last_ms < MONDAY + DAY_MS);
  livenps_generator_close(generator);
}

static void test_wall_clock_times(void **state) {
  (void)state;
  livenps_generator_options options = history(1);
  options.has_start = false;
  livenps_generator *generator = opened(options);
  livenps_generated generated;
  /* At 1,000 events a second, then at one a minute. */
  int64_t now_ms = MONDAY, answers = 0;
  for (int i = 0; i < 40000; i++) {
    now_ms += i < 30000 ? 1 : 60000;
    livenps_generator_next(generator, now_ms, &generated);
    assert_true(generated.send_ms == now_ms);
    assert_in_range(now_ms - generated.event.time_ms + LIVENPS_EARLY_MS, 0,
                    LIVENPS_EARLY_MS + LIVENPS_LATE_MS);
    if (i < 1000)
      answers += generated.event.scale == LIVENPS_SCALE_NPS;
  }
  /* Answers to contacts of before the start: a dashboard moves at once. */
  assert_in_range(answers, 50, 300);
  livenps_generator_close(generator);
}

static int compare_texts(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

static void test_ids_are_unique(void **state) {
  (void)state;
  enum { COUNT = 100000 };
  char **ids = livenps_alloc(COUNT * sizeof *ids);
  livenps_generator *generator = opened(history(3));
  livenps_generated generated;
  for (int i = 0; i < COUNT; i++) {
    livenps_generator_next(generator, 0, &generated);
    ids[i] = livenps_copy(generated.event.id.at, generated.event.id.length);
  }
  qsort(ids, COUNT, sizeof *ids, compare_texts);
  for (int i = 1; i < COUNT; i++)
    assert_string_not_equal(ids[i - 1], ids[i]);
  for (int i = 0; i < COUNT; i++)
    free(ids[i]);
  free(ids);
  livenps_generator_close(generator);
  /* Two runs by the wall clock must not give the same ids, for a later duplicate check would drop the second run. */
  livenps_generator_options options = history(3);
  options.has_start = false;
  livenps_generator *first = opened(options);
  options.start_ms++;
  livenps_generator *second = opened(options);
  livenps_generated other;
  livenps_generator_next(first, MONDAY, &generated);
  livenps_generator_next(second, MONDAY, &other);
  assert_false(livenps_text_equal(generated.event.id, other.event.id));
  livenps_generator_close(first);
  livenps_generator_close(second);
}

typedef struct {
  int64_t events, invitations, answers, promoters, detractors, values, csat, ces;
} seen;

/* NPS in tenths. */
static int64_t score_of(const seen *place) {
  return place->answers ? 1000 * (place->promoters - place->detractors) / place->answers : 0;
}

static void watch(livenps_generator_options options, int64_t count, seen *touchpoints, seen *segments,
                  seen *all) {
  livenps_generator *generator = opened(options);
  livenps_generated generated;
  for (int64_t i = 0; i < count; i++) {
    livenps_generator_next(generator, 0, &generated);
    const livenps_event *event = &generated.event;
    seen *places[3] = {&touchpoints[generated.index[LIVENPS_TOUCHPOINT]], all,
                       segments && generated.index[LIVENPS_SEGMENT] >= 0
                           ? &segments[generated.index[LIVENPS_SEGMENT]]
                           : NULL};
    for (int p = 0; p < 3 && places[p]; p++) {
      seen *place = places[p];
      place->events++;
      place->invitations += event->type == LIVENPS_INVITATION;
      place->csat += event->scale == LIVENPS_SCALE_CSAT;
      place->ces += event->scale == LIVENPS_SCALE_CES;
      if (event->scale != LIVENPS_SCALE_NPS)
        continue;
      place->answers++;
      place->promoters += event->score >= 9;
      place->detractors += event->score <= 6;
      place->values += event->has_value;
    }
  }
  livenps_generator_close(generator);
}

static void test_believable(void **state) {
  (void)state;
  seen touchpoints[24] = {0}, segments[3] = {0}, all = {0};
  watch(history(11), 1000000, touchpoints, segments, &all);
  /* Busiest first, none of them rare. */
  for (int t = 4; t < 24; t += 4)
    assert_true(touchpoints[t].events < touchpoints[t - 4].events);
  for (int t = 0; t < 24; t++)
    assert_true(touchpoints[t].events > 1000000 / 200);
  /* delivery is liked, billing and complaint are not. */
  assert_in_range(score_of(&touchpoints[2]), 300, 450);
  assert_in_range(-score_of(&touchpoints[8]), 120, 260);
  assert_in_range(-score_of(&touchpoints[16]), 400, 560);
  /* Good customers are milder, new ones stricter. */
  assert_true(score_of(&segments[0]) > score_of(&segments[1]) + 50);
  assert_true(score_of(&segments[1]) > score_of(&segments[2]) + 50);
  /* Response rates, and the other families. */
  assert_in_range(100 * all.answers / all.invitations, 30, 50);
  assert_in_range(100 * all.csat / all.answers, 25, 35);
  assert_in_range(100 * all.ces / all.answers, 18, 26);
  assert_in_range(100 * all.values / all.answers, 38, 46);
}

static void test_incident(void **state) {
  (void)state;
  seen before[24] = {0}, with[24] = {0}, all = {0};
  livenps_generator_options options = history(5);
  watch(options, 200000, before, NULL, &all);
  options.incident_at = 0;
  watch(options, 200000, with, NULL, &all);
  assert_true(score_of(&with[2]) < score_of(&before[2]) - 700);
  for (int t = 0; t < 24; t++)
    if (t != 2)
      assert_in_range(score_of(&with[t]) - score_of(&before[t]) + 100, 0, 200);
  livenps_generator *generator = opened(options);
  assert_string_equal(livenps_generator_incident(generator), "delivery");
  livenps_generator_close(generator);
}

static void test_rhythm(void **state) {
  (void)state;
  livenps_generator *generator = opened(history(2));
  livenps_generated generated;
  int64_t hours[7 * 24] = {0}, branch_at_night = 0;
  do {
    livenps_generator_next(generator, 0, &generated);
    const int64_t hour = (generated.event.time_ms - MONDAY) / 3600000;
    if (hour < 7 * 24)
      hours[hour]++;
    /* Answers may come at night; people come when the branch is open. */
    if (generated.event.type == LIVENPS_INTERACTION && hour % 24 < 6)
      branch_at_night +=
          livenps_text_equal(generated.event.dimensions[LIVENPS_CHANNEL], livenps_text_of("branch"));
  } while (generated.send_ms < MONDAY + 7 * (int64_t)DAY_MS);
  assert_true(hours[10] > 5 * hours[3]);
  assert_true(hours[10] > 3 * hours[6 * 24 + 10] / 2); /* Monday against Sunday */
  assert_int_equal(branch_at_night, 0);
  livenps_generator_close(generator);
}

static void test_many_touchpoints(void **state) {
  (void)state;
  livenps_generator_options options = history(1);
  options.touchpoints = 1000;
  livenps_generator *generator = opened(options);
  assert_string_equal(livenps_generator_name(generator, LIVENPS_TOUCHPOINT, 24), "team-025");
  assert_string_equal(livenps_generator_name(generator, LIVENPS_TOUCHPOINT, 999), "team-1000");
  bool met[1000] = {false};
  livenps_generated generated;
  int count = 0;
  for (int i = 0; i < 300000; i++) {
    livenps_generator_next(generator, 0, &generated);
    bool *one = &met[generated.index[LIVENPS_TOUCHPOINT]];
    count += !*one;
    *one = true;
  }
  assert_in_range(count, 990, 1000);
  livenps_generator_close(generator);
  options.touchpoints = 1;
  generator = opened(options);
  livenps_generator_next(generator, 0, &generated);
  assert_string_equal(livenps_generator_incident(generator), "checkout");
  livenps_generator_close(generator);
  livenps_generator_close(NULL);
}

static void test_refused_options(void **state) {
  (void)state;
  const struct {
    int touchpoints;
    int64_t start_ms;
  } wrong[] = {{0, MONDAY}, {LIVENPS_MAX_TOUCHPOINTS + 1, MONDAY}, {24, 0}, {24, INT64_MAX}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    livenps_generator_options options = history(1);
    options.touchpoints = wrong[i].touchpoints;
    options.start_ms = wrong[i].start_ms;
    livenps_error error = {0};
    livenps_generator *generator = NULL;
    assert_int_equal(livenps_generator_open(&generator, &options, &error), -1);
    assert_null(generator);
    assert_int_equal(error.code, LIVENPS_E_USAGE);
  }
}

/* Both forms, by the consumer's own decoder and rules. */
static void test_all_admitted(void **state) {
  (void)state;
  livenps_mapping *mapping = NULL;
  livenps_error error = {0};
  assert_int_equal(livenps_mapping_default(&mapping, &error), 0);
  livenps_decoder *decoder = livenps_decoder_new();
  const livenps_admission admission = {
      .max_bytes = LIVENPS_MAX_RECORD, .late_ms = 7 * (int64_t)DAY_MS, .future_ms = 60000};
  livenps_generator *generator = opened(history(4));
  livenps_buffer line = {0};
  for (int i = 0; i < 50000; i++) {
    livenps_generated generated;
    livenps_event event;
    livenps_reason reason;
    livenps_generator_next(generator, 0, &generated);
    line.length = 0;
    (i % 2 ? livenps_encode : livenps_encode_cloudevent)(&generated.event, &line);
    const livenps_record record = {.value = {line.at, line.length}, .timestamp_ms = generated.send_ms};
    assert_int_equal(livenps_admit(decoder, mapping, &admission, &record, &event, &reason, NULL),
                     LIVENPS_ACCEPTED);
    assert_true(event.time_ms == generated.event.time_ms);
  }
  livenps_buffer_free(&line);
  livenps_generator_close(generator);
  livenps_decoder_free(decoder);
  livenps_mapping_free(mapping);
}

static void test_history_judge(void **state) {
  (void)state;
  const int64_t hour_ms = 3600000, now_ms = MONDAY;
  const livenps_history any = LIVENPS_HISTORY_ANY;
  const livenps_history week = {7 * (int64_t)DAY_MS, INT64_MAX, hour_ms, false};
  const livenps_history guarded = {-1, DAY_MS, hour_ms, false};
  const livenps_history append = {-1, INT64_MAX, INT64_MAX, true};
  const struct {
    const livenps_history *history;
    int64_t oldest_ms, newest_ms;
    const char *set; /* what the refusal says to set; NULL: allowed */
  } cases[] = {
      {&any, 1, now_ms + 10 * hour_ms, NULL},
      {&week, now_ms - 6 * (int64_t)DAY_MS, now_ms, NULL},
      {&week, now_ms - 7 * (int64_t)DAY_MS, now_ms, "retention.ms=-1"},
      {&week, now_ms, now_ms + hour_ms, NULL},
      {&week, now_ms, now_ms + hour_ms + 1, "message.timestamp.after.max.ms"},
      {&guarded, now_ms - DAY_MS, now_ms, NULL},
      {&guarded, now_ms - DAY_MS - 1, now_ms, "message.timestamp.before.max.ms"},
      {&append, now_ms, now_ms, "message.timestamp.type=CreateTime"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    livenps_error error = {0};
    const int result = livenps_history_judge(cases[i].history, "calls", cases[i].oldest_ms,
                                             cases[i].newest_ms, now_ms, &error);
    assert_int_equal(result, cases[i].set ? -1 : 0);
    if (!cases[i].set)
      continue;
    assert_int_equal(error.code, LIVENPS_E_REFUSED);
    assert_non_null(strstr(error.text, cases[i].set));
    assert_non_null(strstr(error.text, "topic calls "));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_same_bytes),       cmocka_unit_test(test_history_times),
      cmocka_unit_test(test_wall_clock_times), cmocka_unit_test(test_ids_are_unique),
      cmocka_unit_test(test_believable),       cmocka_unit_test(test_incident),
      cmocka_unit_test(test_rhythm),           cmocka_unit_test(test_many_touchpoints),
      cmocka_unit_test(test_refused_options),  cmocka_unit_test(test_all_admitted),
      cmocka_unit_test(test_history_judge),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
