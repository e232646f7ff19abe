/* Numbers as they are published, against printf and strtod: every text must be theirs to the byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "consumer/number.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is promised, in the words of the C library. */
static void check(double value) {
  char wanted[64], text[LIVENPS_NUMBER_SIZE];
  for (int digits = 15; digits <= 17; digits++) {
    snprintf(wanted, sizeof wanted, "%.*g", digits, value);
    if (strtod(wanted, NULL) == value)
      break;
  }
  memset(text, 'x', sizeof text);
  if (strcmp(livenps_number_print(value, text), wanted))
    fail_msg("%a is printed %s, should be %s", value, text, wanted);
}

static void check_both(double value) {
  check(value);
  check(-value);
}

/* The same numbers in every run. */
static uint64_t next_random(uint64_t *seed) {
  *seed += UINT64_C(0x9e3779b97f4a7c15);
  uint64_t z = *seed;
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}

static void known_texts(void **state) {
  (void)state;
  static const struct {
    double value;
    const char *text;
  } cases[] = {{0, "0"},           {-0.0, "-0"},       {50, "50"},
               {-100, "-100"},     {0.1, "0.1"},       {66.25, "66.25"},
               {1e-9, "1e-09"},    {0.0001, "0.0001"}, {1e13, "10000000000000"},
               {0.00001, "1e-05"}, {1e15, "1e+15"},    {100.0 / 3, "33.333333333333336"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char text[LIVENPS_NUMBER_SIZE];
    assert_string_equal(livenps_number_print(cases[i].value, text), cases[i].text);
    check(cases[i].value);
  }
}

/* Every score and mean that counts can give, for small counts and some large ones. */
static void scores(void **state) {
  (void)state;
  uint64_t seed = 1;
  for (int n = 1; n < 300; n++)
    for (int difference = 0; difference <= n; difference++)
      check_both(100.0 * difference / n);
  for (int i = 0; i < 100000; i++) {
    const double n = (double)(next_random(&seed) % 1000000000 + 1),
                 part = (double)(next_random(&seed) % 1000000000);
    check_both(100.0 * part / n);
    check(part / n);
    check(100.0 * part / n - 100.0 * n / (part + 1));
  }
}

/* Any bits at all: most are outside of what is published, infinities among them; and any significand at the sizes that are. */
static void any_bits(void **state) {
  (void)state;
  uint64_t seed = 2;
  for (int i = 0; i < 300000; i++) {
    uint64_t bits = next_random(&seed);
    double value;
    if (i % 10)
      bits = (bits & ~(UINT64_C(0x7ff) << 52)) | (uint64_t)(1023 - 37 + (int)(next_random(&seed) % 87)) << 52;
    memcpy(&value, &bits, sizeof value);
    if (!isnan(value))
      check(value);
  }
}

/* Where a digit more or less, a rounding or a step of another length could go wrong. */
static void borders(void **state) {
  (void)state;
  uint64_t seed = 3;
  for (int power = -13; power <= 17; power++) {
    double value = pow(10, power);
    for (int i = 0; i < 200; i++) {
      check_both(value);
      value = nextafter(value, i < 100 ? 0 : INFINITY);
    }
  }
  for (int power = -60; power <= 60; power++) {
    const double value = ldexp(1, power);
    check_both(value);
    check_both(nextafter(value, 0));
    check_both(nextafter(value, INFINITY));
  }
  /* Halves of the last digit, exactly: a whole number of eighths has digits enough to be rounded at 15 of them. */
  for (int i = 0; i < 100000; i++) {
    check_both((double)(next_random(&seed) >> 11 >> i % 40) / 8);
    check_both((double)(int64_t)(next_random(&seed) % 2000000001) / 1e9);
  }
  check_both(DBL_MAX);
  check_both(DBL_MIN);
  check_both(DBL_TRUE_MIN);
}

static void whole_numbers(void **state) {
  (void)state;
  uint64_t seed = 4;
  static const int64_t cases[] = {0, 1, -1, 9, 10, -10, 99, 100, INT64_MAX, INT64_MIN, INT64_MIN + 1};
  for (size_t i = 0; i < 100000; i++) {
    char wanted[32], text[LIVENPS_NUMBER_SIZE];
    const int64_t value = i < sizeof cases / sizeof *cases ? cases[i] : (int64_t)next_random(&seed) >> i % 64;
    snprintf(wanted, sizeof wanted, "%" PRId64, value);
    assert_string_equal(livenps_whole_print(value, text), wanted);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(known_texts), cmocka_unit_test(scores),        cmocka_unit_test(any_bits),
      cmocka_unit_test(borders),     cmocka_unit_test(whole_numbers),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
