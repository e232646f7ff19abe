/* The statistics against numbers from outside (tests/vectors/nps.json names their sources). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "common/text.h"
#include "consumer/score.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>

typedef struct {
  int64_t detractors, passives, promoters, n;
} counts;

static counts counts_of(const json_t *vector) {
  const json_t *list = json_object_get(vector, "counts");
  assert_int_equal(json_array_size(list), 3);
  counts c = {json_integer_value(json_array_get(list, 0)), json_integer_value(json_array_get(list, 1)),
              json_integer_value(json_array_get(list, 2)), 0};
  c.n = c.detractors + c.passives + c.promoters;
  assert_true(c.n > 0);
  return c;
}

static void near(double got, const json_t *vector, const char *key, double tolerance) {
  const json_t *expected = json_object_get(vector, key);
  assert_true(json_is_number(expected));
  if (fabs(got - json_number_value(expected)) > tolerance) {
    char *text = json_dumps(vector, JSON_SORT_KEYS);
    fail_msg("%s is %.9f in %s", key, got, text);
  }
}

static json_t *vectors(void) {
  json_error_t error;
  json_t *root = json_load_file(LIVENPS_SOURCE_DIR "/tests/vectors/nps.json", 0, &error);
  if (!root) {
    fail_msg("tests/vectors/nps.json:%d: %s", error.line, error.text);
  }
  return root;
}

static void test_vectors(void **state) {
  (void)state;
  json_t *root = vectors();
  const json_t *vector;
  size_t i;
  assert_int_equal(json_array_size(json_object_get(root, "nps")), 8);
  json_array_foreach(json_object_get(root, "nps"), i, vector) {
    counts c = counts_of(vector);
    double variance = livenps_nps_variance(c.promoters, c.passives, c.detractors);
    near(livenps_nps(c.promoters, c.detractors, c.n), vector, "nps", 1e-9);
    near(sqrt(variance / (double)c.n), vector, "se", 1e-8);
    if (json_object_get(vector, "variance")) {
      near(variance, vector, "variance", 1e-9);
    }
  }
  assert_int_equal(json_array_size(json_object_get(root, "interval_3T_95")), 5);
  json_array_foreach(json_object_get(root, "interval_3T_95"), i, vector) {
    counts c = counts_of(vector);
    livenps_interval interval = livenps_nps_interval(c.promoters, c.passives, c.detractors);
    near(interval.low, vector, "low", 1e-6);
    near(interval.high, vector, "high", 1e-6);
  }
  assert_int_equal(json_array_size(json_object_get(root, "rounding_half_away_from_zero")), 2);
  json_array_foreach(json_object_get(root, "rounding_half_away_from_zero"), i, vector) {
    counts c = counts_of(vector);
    double nps = livenps_nps(c.promoters, c.detractors, c.n);
    near(nps, vector, "nps", 0);
    near(livenps_round(nps), vector, "rounded", 0);
  }
  json_decref(root);
}

static void count_one(counts *c, int score) {
  c->promoters += score >= 9;
  c->passives += score == 7 || score == 8;
  c->detractors += score <= 6;
  c->n++;
}

static void test_cran(void **state) {
  (void)state;
  const char *folder = getenv("LIVENPS_VECTORS");
  if (!folder || !*folder) {
    print_message(
        "LIVENPS_VECTORS is not set: the CRAN data set (not ours to copy) is NOT checked. Set it to the folder that "
        "holds cran_nps_testdata.csv.\n");
    skip();
  }
  char path[4096], line[1024];
  snprintf(path, sizeof path, "%s/cran_nps_testdata.csv", folder);
  FILE *file = fopen(path, "r");
  if (!file) {
    fail_msg("%s cannot be opened, though LIVENPS_VECTORS names its folder", path);
  }
  counts all = {0}, apples = {0}, oranges = {0};
  assert_non_null(fgets(line, sizeof line, file));
  while (fgets(line, sizeof line, file)) {
    char *rest = line;
    const char *field[12] = {0};
    for (int i = 0; i < 12; i++) {
      field[i] = strsep(&rest, ",");
      assert_non_null(field[i]);
    }
    int score = atoi(field[1]);
    count_one(&all, score);
    if (strcmp(field[6], "Apples") == 0) {
      count_one(&apples, score);
    } else if (strcmp(field[6], "Oranges") == 0) {
      count_one(&oranges, score);
    }
  }
  fclose(file);
  json_t *root = vectors();
  const json_t *cran = json_object_get(root, "cran"), *groups = json_object_get(cran, "by_BU");
  struct {
    const counts *got;
    const json_t *expected;
  } checks[] = {{&all, json_object_get(cran, "all")},
                {&apples, json_object_get(groups, "Apples")},
                {&oranges, json_object_get(groups, "Oranges")}};
  for (size_t i = 0; i < 3; i++) {
    counts expected = counts_of(checks[i].expected);
    const counts *got = checks[i].got;
    assert_int_equal(got->detractors, expected.detractors);
    assert_int_equal(got->passives, expected.passives);
    assert_int_equal(got->promoters, expected.promoters);
    double nps = livenps_nps(got->promoters, got->detractors, got->n);
    near(nps, checks[i].expected, "nps", 1e-9);
    if (i > 0) {
      near(nps * (double)got->n / (double)all.n, checks[i].expected, "contribution", 1e-9);
    }
  }
  json_decref(root);
}

static void test_rounding(void **state) {
  (void)state;
  assert_int_equal(livenps_round(0.5), 1);
  assert_int_equal(livenps_round(-0.5), -1);
  assert_int_equal(livenps_round(0.49999), 0);
  assert_int_equal(livenps_round(1.5), 2);
  assert_int_equal(livenps_round(2.5), 3);
  assert_int_equal(livenps_round(-2.5), -3);
  assert_int_equal(livenps_round(100), 100);
  assert_int_equal(livenps_round(-100), -100);
}

static void test_interval_bounds(void **state) {
  (void)state;
  for (int p = 0; p < 12; p++) {
    for (int q = 0; q < 12; q++) {
      for (int d = 0; d < 12; d++) {
        livenps_interval at = livenps_nps_interval(p, q, d), mirror = livenps_nps_interval(d, q, p);
        assert_true(at.low >= -100 && at.low < at.high && at.high <= 100);
        assert_true(fabs(at.low + mirror.high) < 1e-9 && fabs(at.high + mirror.low) < 1e-9);
      }
    }
  }
}

static void test_change(void **state) {
  (void)state;
  int64_t good[3] = {50, 30, 20}, bad[3] = {20, 30, 50}, few[3] = {3, 1, 1};
  livenps_test same = livenps_nps_change(good, good), up = livenps_nps_change(good, bad),
               down = livenps_nps_change(bad, good);
  assert_true(same.z == 0 && same.p == 1);
  assert_true(up.z > 0 && down.z < 0 && fabs(up.z + down.z) < 1e-12 && up.p == down.p);
  /* By hand: n' = 103, means +-30/103, variance (71.5/103 - (30/103)^2)/103 each. */
  double mean = 30.0 / 103, squared = (71.5 / 103 - mean * mean) / 103, z = 2 * mean / sqrt(2 * squared);
  assert_true(fabs(up.z - z) < 1e-12);
  assert_true(fabs(up.p - erfc(z / sqrt(2))) < 1e-15);
  assert_true(livenps_nps_change(few, bad).p > up.p);
  /* The two-sided p of z = 1.96 is 0.05. */
  assert_true(fabs(erfc(1.959963984540054 / sqrt(2)) - 0.05) < 1e-12);
}

static void test_discoveries(void **state) {
  (void)state;
  /* Benjamini, Hochberg 1995, the example of their section 4: 15 p-values, q = 0.05 rejects the four smallest. */
  const double p[] = {0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344,
                      0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000};
  bool accepted[15];
  livenps_discoveries(p, 15, 0.05, accepted);
  for (int i = 0; i < 15; i++) {
    assert_int_equal(accepted[i], i < 4);
  }
  /* A later p-value lifts those before it: 0.04 alone is above 0.05 / 2, but 0.045 is at most 2 (0.05) / 2. */
  const double lifted[] = {0.045, 0.04};
  livenps_discoveries(lifted, 2, 0.05, accepted);
  assert_true(accepted[0] && accepted[1]);
  livenps_discoveries(p, 0, 0.05, accepted);
  const double none[] = {0.2, 0.9};
  livenps_discoveries(none, 2, 0.1, accepted);
  assert_false(accepted[0] || accepted[1]);
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Against the rule as it is written: sort, take the largest k with p(k) <= k q / m. */
static void test_discoveries_by_sorting(void **state) {
  (void)state;
  enum { MOST = 60 };
  double p[MOST], sorted[MOST];
  bool accepted[MOST];
  srand(11);
  for (int round = 0; round < 3000; round++) {
    size_t count = 1 + (size_t)rand() % MOST;
    for (size_t i = 0; i < count; i++) {
      p[i] = pow((double)rand() / RAND_MAX, 1 + round % 5);
      sorted[i] = p[i];
    }
    qsort(sorted, count, sizeof *sorted, ascending);
    double limit = -1;
    for (size_t k = 1; k <= count; k++) {
      if (sorted[k - 1] * (double)count <= (double)k * 0.1) {
        limit = sorted[k - 1];
      }
    }
    livenps_discoveries(p, count, 0.1, accepted);
    for (size_t i = 0; i < count; i++) {
      assert_int_equal(accepted[i], p[i] <= limit);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_vectors),
      cmocka_unit_test(test_cran),
      cmocka_unit_test(test_rounding),
      cmocka_unit_test(test_interval_bounds),
      cmocka_unit_test(test_change),
      cmocka_unit_test(test_discoveries),
      cmocka_unit_test(test_discoveries_by_sorting),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
