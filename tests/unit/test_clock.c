#include "common/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static void test_times(void **state) {
  (void)state;
  static const struct {
    const char *text;
    int64_t ms;
  } cases[] = {
      {"1970-01-01T00:00:00Z", 0},
      {"1969-12-31T23:59:59.999Z", -1},
      {"2026-11-21T10:15:00.123Z", 1795256100123},
      {"2026-11-21T10:15:00.123456789Z", 1795256100123},
      {"2026-11-21T10:15:00.1Z", 1795256100100},
      {"2026-11-21t10:15:00.123z", 1795256100123},
      {"2026-11-21 10:15:00.123Z", 1795256100123},
      {"2026-11-21T12:45:00.123+02:30", 1795256100123},
      {"2026-11-21T07:15:00.123-03:00", 1795256100123},
      {"2026-11-21T10:15:00-00:00", 1795256100000},
      {"2016-12-31T23:59:60Z", 1483228799999},
      {"2016-12-31T23:59:60.5Z", 1483228799999},
      {"2024-02-29T00:00:00Z", 1709164800000},
      {"2000-02-29T00:00:00Z", 951782400000},
      {"0001-01-01T00:00:00Z", -62135596800000},
      {"9999-12-31T23:59:59.999Z", 253402300799999},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int64_t ms = 7;
    assert_int_equal(livenps_time_parse(cases[i].text, strlen(cases[i].text), &ms), 0);
    assert_true(ms == cases[i].ms);
  }
}

static void test_times_that_are_none(void **state) {
  (void)state;
  static const char *const cases[] = {
      "",
      "2026",
      "2026-11-21",
      "2026-11-21T10:15:00",
      "2026-11-21T10:15Z",
      "2026-11-21T10:15:00.Z",
      "2026-11-21T10:15:00Zx",
      "2026-11-21T10:15:00+0200",
      "2026-11-21T10:15:00+02",
      "2026-11-21T10:15:00+24:00",
      "2026-11-21T10:15:00+02:60",
      "2026-11-21T24:00:00Z",
      "2026-11-21T10:60:00Z",
      "2026-11-21T10:15:61Z",
      "2026-13-01T00:00:00Z",
      "2026-00-01T00:00:00Z",
      "2026-02-29T00:00:00Z",
      "1900-02-29T00:00:00Z",
      "2026-04-31T00:00:00Z",
      "2026-04-00T00:00:00Z",
      "0000-01-01T00:00:00Z",
      "0001-01-01T00:00:00+01:00",
      "9999-12-31T23:59:59-01:00",
      "-026-11-21T10:15:00Z",
      "+2026-11-21T10:15:00Z",
      " 2026-11-21T10:15:00Z",
      "2026-11-21T10:15:00Z ",
      "2026-1-21T10:15:00Z",
      "20261121T101500Z",
      "2026-11-21T10:15:00,5Z",
      "2026-11-21_10:15:00Z",
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int64_t ms = 7;
    assert_int_equal(livenps_time_parse(cases[i], strlen(cases[i]), &ms), -1);
    assert_int_equal(ms, 7);
  }
  int64_t ms;
  assert_int_equal(livenps_time_parse("2026-11-21T10:15:00\0Z", 21, &ms), -1);
  /* Every shorter beginning, and what stands behind the end is not read. */
  const char whole[] = "2026-11-21T10:15:00.123+02:00";
  for (size_t length = 0; length < sizeof whole - 1; length++) {
    assert_int_equal(livenps_time_parse(whole, length, &ms), -1);
  }
}

static void test_times_there_and_back(void **state) {
  (void)state;
  char text[32], again[32];
  /* Steps that are no multiple of anything, over all years; the C library as the judge. */
  for (int64_t ms = -62135596800000; ms <= 253402300799999; ms += 86399 * INT64_C(100003)) {
    int64_t read;
    livenps_time_print(ms, text);
    assert_int_equal(livenps_time_parse(text, strlen(text), &read), 0);
    assert_true(read == ms);
    time_t second = (time_t)((ms - (ms % 1000 + 1000) % 1000) / 1000);
    struct tm broken;
    gmtime_r(&second, &broken);
    size_t length = strftime(again, sizeof again, "-%m-%dT%H:%M:%S", &broken);
    assert_memory_equal(text + 4, again, length);
  }
  assert_string_equal(livenps_time_print(INT64_MIN, text), "0001-01-01T00:00:00.000Z");
  assert_string_equal(livenps_time_print(INT64_MAX, text), "9999-12-31T23:59:59.999Z");
}

/* A remembered day changes nothing: times of the same day and of others, good and bad, one after another. */
static void test_times_near(void **state) {
  (void)state;
  static const char *const forms[] = {
      "2026-11-21T10:15:00.123Z",
      "2026-11-21T23:59:59.999Z",
      "2026-11-21T00:00:00Z",
      "2026-11-21T23:59:60Z",
      "2026-11-21T24:00:00Z",
      "2026-11-21T10:60:00Z",
      "2026-11-21T10:15:61.1Z",
      "2026-11-21t10:15:00z",
      "2026-11-21T10:15:00+02:00",
      "2026-11-21T23:15:00-02:00",
      "2026-11-21T10:15:00.1Z",
      "2026-11-21T10:15:00.12Z",
      "2026-11-21T10:15:00.123456789Z",
      "2026-11-21T10:15:00.Z",
      "2026-11-21T10:15:00,1Z",
      "2026-11-21T10:15:00.1x3Z",
      "2026-11-21T1a:15:00Z",
      "2026-11-21T10-15-00Z",
      "2026-11-21T10:15:0\xFFZ",
      "2026-11-21T10:15:00ZZ",
      "2026-11-21",
      "2026-11-21T10:15Z",
      "",
      "Z",
      "2026-11-22T10:15:00.5Z",
      "0001-01-01T00:00:00Z",
      "9999-12-31T23:59:59.9999Z",
      "2026-02-30T10:15:00Z",
      "2024-02-29T10:15:00Z",
      "1969-12-31T23:59:59.001Z",
      "2026-11-21 10:15:00.123Z",
      "2026-11-21T/0:15:00Z",
  };
  enum { FORMS = sizeof forms / sizeof *forms };
  for (size_t before = 0; before < FORMS; before++) {
    for (size_t i = 0; i < FORMS; i++) {
      livenps_day day = {0};
      int64_t want = 1, got = 1;
      livenps_time_parse_near(&day, forms[before], strlen(forms[before]), &got);
      const int wanted = livenps_time_parse(forms[i], strlen(forms[i]), &want);
      const int result = livenps_time_parse_near(&day, forms[i], strlen(forms[i]), &got);
      if (result != wanted || (wanted == 0 && got != want))
        fail_msg("%s after %s: %d %lld, not %d %lld", forms[i], forms[before], result, (long long)got, wanted,
                 (long long)want);
    }
  }
  /* every byte at every place */
  livenps_day day = {0};
  int64_t want, got;
  assert_int_equal(livenps_time_parse_near(&day, forms[0], strlen(forms[0]), &got), 0);
  for (size_t place = 0; place < strlen(forms[0]); place++) {
    for (int byte = 0; byte < 256; byte++) {
      char text[32];
      strcpy(text, forms[0]);
      text[place] = (char)byte;
      livenps_day near = day;
      const int wanted = livenps_time_parse(text, strlen(forms[0]), &want);
      assert_int_equal(livenps_time_parse_near(&near, text, strlen(forms[0]), &got), wanted);
      assert_true(wanted != 0 || got == want);
    }
  }
}

static void test_time_arguments(void **state) {
  (void)state;
  int64_t ms;
  assert_int_equal(livenps_time_argument("1795256100123", &ms), 0);
  assert_true(ms == 1795256100123);
  assert_int_equal(livenps_time_argument("0", &ms), 0);
  assert_int_equal(livenps_time_argument("2026-11-21T10:15:00Z", &ms), 0);
  assert_true(ms == 1795256100000);
  static const char *const none[] = {
      "", "-1", "now", "1e3", "12.5", "99999999999999999999", "253402300800000", "1 "};
  for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
    assert_int_equal(livenps_time_argument(none[i], &ms), -1);
  }
}

static void test_durations(void **state) {
  (void)state;
  static const struct {
    const char *text;
    int64_t ms;
    const char *shortest;
  } cases[] = {
      {"100ms", 100, "100ms"}, {"5s", 5000, "5s"},   {"2m", 120000, "2m"},    {"1h", 3600000, "1h"},
      {"7d", 604800000, "7d"}, {"60s", 60000, "1m"}, {"24h", 86400000, "1d"}, {"1500ms", 1500, "1500ms"},
      {"90s", 90000, "90s"},   {"0ms", 0, "0s"},     {"007s", 7000, "7s"},
  };
  static const char *const none[] = {
      "",     "5",     "s",    "-5s", "5 s",           "5S",
      "1.5s", "1h30m", "5sec", "+5s", "106751991168d", "99999999999999999999ms"};
  char text[32];
  int64_t ms;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    assert_int_equal(livenps_duration_parse(cases[i].text, &ms), 0);
    assert_true(ms == cases[i].ms);
    assert_string_equal(livenps_duration_print(ms, text), cases[i].shortest);
  }
  for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
    assert_int_equal(livenps_duration_parse(none[i], &ms), -1);
  }
}

static void test_clocks(void **state) {
  (void)state;
  assert_true(livenps_wall_ms() > INT64_C(1700000000000));
  int64_t before = livenps_monotonic_ms();
  assert_true(livenps_monotonic_ms() >= before);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_times),
      cmocka_unit_test(test_times_that_are_none),
      cmocka_unit_test(test_times_there_and_back),
      cmocka_unit_test(test_times_near),
      cmocka_unit_test(test_time_arguments),
      cmocka_unit_test(test_durations),
      cmocka_unit_test(test_clocks),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
