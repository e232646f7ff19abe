/* Admission: order and bounds exact at the edges, canonical text. */
#include "tests/unit/decode_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static livenps_mapping *contract;
static livenps_decoder *decoder;

static int set_up(void **state) {
  (void)state;
  livenps_error error = {0};
  decoder = livenps_decoder_new();
  return livenps_mapping_default(&contract, &error);
}

static int tear_down(void **state) {
  (void)state;
  livenps_mapping_free(contract);
  livenps_decoder_free(decoder);
  return 0;
}

/* 2026-11-21T10:15:00.123Z */
#define EVENT_MS INT64_C(1795256100123)
static const char text[] = "{\"id\":\"x\",\"type\":\"interaction\",\"time\":\"2026-11-21T10:15:00.123Z\","
                           "\"touchpoint\":\"delivery\"}";

static livenps_admission defaults(void) {
  return (livenps_admission){.max_bytes = 1000, .late_ms = 7 * 86400000, .future_ms = 60000};
}

static livenps_fate admit(const livenps_admission *admission, int64_t timestamp_ms, livenps_reason *reason) {
  livenps_record record = {.value = livenps_text_of(text), .timestamp_ms = timestamp_ms};
  livenps_event event = {0};
  livenps_where where = {0};
  livenps_fate fate = livenps_admit(decoder, contract, admission, &record, &event, reason, &where);
  livenps_reason again;
  assert_int_equal(fate, livenps_admit(decoder, contract, admission, &record, &event, &again, NULL));
  assert_int_equal(*reason, again);
  assert_true(fate == LIVENPS_REJECTED ? *where.detail != '\0' : *reason == LIVENPS_REASON_NONE);
  if (fate != LIVENPS_REJECTED) {
    assert_int_equal(event.time_ms, EVENT_MS);
  }
  return fate;
}

static void edges(void **state) {
  (void)state;
  livenps_admission rules = defaults();
  livenps_reason reason;
  assert_int_equal(admit(&rules, EVENT_MS, &reason), LIVENPS_ACCEPTED);
  assert_int_equal(admit(&rules, EVENT_MS + rules.late_ms, &reason), LIVENPS_ACCEPTED);
  assert_int_equal(admit(&rules, EVENT_MS + rules.late_ms + 1, &reason), LIVENPS_LATE);
  assert_int_equal(admit(&rules, EVENT_MS - rules.future_ms, &reason), LIVENPS_ACCEPTED);
  assert_int_equal(admit(&rules, EVENT_MS - rules.future_ms - 1, &reason), LIVENPS_REJECTED);
  assert_int_equal(reason, LIVENPS_REASON_FUTURE);
  assert_int_equal(admit(&rules, 0, &reason), LIVENPS_REJECTED);
  assert_int_equal(reason, LIVENPS_REASON_FUTURE);
  assert_int_equal(admit(&rules, INT64_MAX, &reason), LIVENPS_LATE);
  rules.late_ms = rules.future_ms = 0;
  assert_int_equal(admit(&rules, EVENT_MS, &reason), LIVENPS_ACCEPTED);
  assert_int_equal(admit(&rules, EVENT_MS + 1, &reason), LIVENPS_LATE);
  assert_int_equal(admit(&rules, EVENT_MS - 1, &reason), LIVENPS_REJECTED);
}

static void record_time(void **state) {
  (void)state;
  livenps_admission rules = defaults();
  livenps_reason reason;
  assert_int_equal(admit(&rules, -1, &reason), LIVENPS_REJECTED);
  assert_int_equal(reason, LIVENPS_REASON_NO_RECORD_TIME);
}

static void allow_list(void **state) {
  (void)state;
  livenps_reason reason;
  char *all[] = {"", "Delivery", "deliver", "delivery", "delivery2", "zzz"};
  for (size_t from = 0; from < 6; from++) {
    for (size_t to = from; to <= 6; to++) {
      livenps_admission rules = defaults();
      rules.touchpoints = all + from;
      rules.touchpoint_count = to - from;
      bool in = from <= 3 && to > 3;
      assert_int_equal(admit(&rules, EVENT_MS, &reason), in ? LIVENPS_ACCEPTED : LIVENPS_REJECTED);
      assert_int_equal(reason, in ? LIVENPS_REASON_NONE : LIVENPS_REASON_UNKNOWN_TOUCHPOINT);
      /* no record time comes first, then the list, then the future */
      admit(&rules, -1, &reason);
      assert_int_equal(reason, LIVENPS_REASON_NO_RECORD_TIME);
      admit(&rules, 5, &reason);
      assert_int_equal(reason, in ? LIVENPS_REASON_FUTURE : LIVENPS_REASON_UNKNOWN_TOUCHPOINT);
    }
  }
}

static void range(void **state) {
  (void)state;
  livenps_admission rules = defaults();
  livenps_reason reason;
  rules.replay = true;
  static const struct {
    int64_t from, to;
    livenps_fate fate;
  } ranges[] = {
      {EVENT_MS, EVENT_MS, LIVENPS_ACCEPTED},
      {EVENT_MS + 1, INT64_MAX, LIVENPS_OUT_OF_RANGE},
      {INT64_MIN, EVENT_MS - 1, LIVENPS_OUT_OF_RANGE},
      {EVENT_MS + 1, EVENT_MS - 1, LIVENPS_OUT_OF_RANGE},
  };
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
    rules.from_ms = ranges[i].from;
    rules.to_ms = ranges[i].to;
    assert_int_equal(admit(&rules, EVENT_MS, &reason), ranges[i].fate);
  }
  /* late and future are judged first, so that the same record counts the same in live and in every replay */
  assert_int_equal(admit(&rules, EVENT_MS + rules.late_ms + 1, &reason), LIVENPS_LATE);
  assert_int_equal(admit(&rules, 0, &reason), LIVENPS_REJECTED);
}

static char *print(const livenps_admission *rules) {
  livenps_buffer out = {0};
  livenps_admission_print(rules, &out);
  livenps_buffer_add(&out, "", 1);
  return out.at;
}

/* Rules print alike if and only if they judge alike. */
static void canonical(void **state) {
  (void)state;
  char *one[] = {"a", "b"};
  char *other[] = {"a\nb"};
  char *nothing[] = {"c"};
  livenps_admission rules[9];
  for (size_t i = 0; i < 9; i++) {
    rules[i] = defaults();
  }
  rules[1].max_bytes++;
  rules[2].late_ms++;
  rules[3].future_ms++;
  rules[4].replay = true;
  rules[5].replay = true;
  rules[5].to_ms = 1;
  rules[6].touchpoints = one;
  rules[6].touchpoint_count = 2;
  rules[7].touchpoints = other;
  rules[7].touchpoint_count = 1;
  rules[8].touchpoints = nothing; /* a list without touchpoints admits none */
  for (size_t i = 0; i < 9; i++) {
    for (size_t k = 0; k < 9; k++) {
      char *a = print(&rules[i]);
      char *b = print(&rules[k]);
      assert_int_equal(strcmp(a, b) == 0, i == k);
      free(a);
      free(b);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(edges), cmocka_unit_test(record_time), cmocka_unit_test(allow_list),
      cmocka_unit_test(range), cmocka_unit_test(canonical),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
