/* Counting and printing (common/metrics.h). Whether Prometheus takes it is for promtool to say: tests/system/test_metrics.py. */

#include "common/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { COUNT, BY_REASON, MS, TIME, LATER, LINES };

static const char *const reasons[] = {"one", "\"two\\\n"};
static const livenps_metric table[] = {
    [COUNT] = {"a_total", LIVENPS_COUNTER, 1, NULL, NULL, 0, false, "Plain."},
    [BY_REASON] = {"b_total", LIVENPS_COUNTER, 1, "reason", reasons, 2, false, "By reason."},
    [MS] = {"c_seconds", LIVENPS_GAUGE, LIVENPS_METRIC_MS, NULL, NULL, 0, false, "Milliseconds."},
    [TIME] = {"d_seconds", LIVENPS_HISTOGRAM, LIVENPS_METRIC_US, NULL, NULL, 0, false, "How long."},
    [LATER] = {"e", LIVENPS_GAUGE, 1, NULL, NULL, 0, true, "Not yet."},
    [LINES] = {"f", LIVENPS_GAUGE, 1, "topic,partition", NULL, 0, true, "By partition."},
};

static livenps_metrics *opened(const char *name_space) {
  livenps_metrics *metrics;
  livenps_metrics_open(&metrics, table, sizeof table / sizeof *table, name_space);
  return metrics;
}

/* Up to what is of the process, which no test can know. */
static char *printed(livenps_metrics *metrics) {
  static char room[8192];
  livenps_buffer out = {0};
  livenps_metrics_print(metrics, &out);
  livenps_buffer_add(&out, "", 1);
  char *end = strstr(out.at, "# HELP livenps_build_info");
  assert_non_null(end);
  assert_non_null(strstr(end, "\nprocess_cpu_seconds_total "));
  assert_non_null(strstr(end, "\nprocess_resident_memory_bytes "));
  assert_non_null(strstr(end, "\nprocess_start_time_seconds "));
  *end = '\0';
  assert_true((size_t)(end - out.at) < sizeof room);
  strcpy(room, out.at);
  livenps_buffer_free(&out);
  return room;
}

static void test_text(void **state) {
  (void)state;
  livenps_metrics *metrics = opened("n\"s");
  livenps_metrics_add(metrics, COUNT, 0, INT64_MAX - 1);
  livenps_metrics_add(metrics, COUNT, 0, 1);
  livenps_metrics_set(metrics, BY_REASON, 1, 7);
  livenps_metrics_set(metrics, MS, 0, -1005);
  assert_non_null(strstr(printed(metrics), "# HELP a_total Plain.\n# TYPE a_total counter\n"
                                           "a_total{namespace=\"n\\\"s\"} 9223372036854775807\n"
                                           "# HELP b_total By reason.\n# TYPE b_total counter\n"
                                           "b_total{namespace=\"n\\\"s\",reason=\"one\"} 0\n"
                                           "b_total{namespace=\"n\\\"s\",reason=\"\\\"two\\\\\\n\"} 7\n"
                                           "# HELP c_seconds Milliseconds.\n# TYPE c_seconds gauge\n"
                                           "c_seconds{namespace=\"n\\\"s\"} -1.005\n"));
  livenps_metrics_close(metrics);
}

static void test_histogram(void **state) {
  (void)state;
  livenps_metrics *metrics = opened(NULL);
  livenps_metrics_observe(metrics, TIME, 500);
  livenps_metrics_observe(metrics, TIME, 501);
  livenps_metrics_observe(metrics, TIME, 10000000);
  livenps_metrics_observe(metrics, TIME, 10000001);
  const char *text = printed(metrics);
  assert_non_null(strstr(text, "\n# TYPE d_seconds histogram\nd_seconds_bucket{le=\"0.0005\"} 1\n"
                               "d_seconds_bucket{le=\"0.001\"} 2\nd_seconds_bucket{le=\"0.0025\"} 2\n"));
  assert_non_null(strstr(text, "d_seconds_bucket{le=\"10\"} 3\nd_seconds_bucket{le=\"+Inf\"} 4\n"
                               "d_seconds_sum 20.001002\nd_seconds_count 4\n"));
  livenps_metrics_close(metrics);
}

static void test_what_is_not_known_is_not_said(void **state) {
  (void)state;
  livenps_metrics *metrics = opened(NULL);
  assert_non_null(strstr(printed(metrics), "# TYPE e gauge\n# HELP f"));
  livenps_metrics_set(metrics, LATER, 0, 0);
  assert_non_null(strstr(printed(metrics), "# TYPE e gauge\ne 0\n# HELP f"));
  livenps_metrics_forget(metrics, LATER);
  assert_non_null(strstr(printed(metrics), "# TYPE e gauge\n# HELP f"));
  livenps_metrics_close(metrics);
}

static void test_lines_replace_each_other(void **state) {
  (void)state;
  livenps_metrics *metrics = opened("n");
  livenps_buffer lines = {0};
  livenps_metrics_begin(metrics, LINES, &lines);
  livenps_metrics_line(metrics, LINES, &lines, "t", 0, 5);
  livenps_metrics_line(metrics, LINES, &lines, "t", 1, -6);
  assert_null(strstr(printed(metrics), "topic="));
  livenps_metrics_end(metrics, LINES, 0, &lines);
  assert_non_null(strstr(printed(metrics), "f{namespace=\"n\",topic=\"t\",partition=\"0\"} 5\n"
                                           "f{namespace=\"n\",topic=\"t\",partition=\"1\"} -6\n"));
  livenps_metrics_begin(metrics, LINES, &lines);
  livenps_metrics_line(metrics, LINES, &lines, "t", 1, 7);
  livenps_metrics_end(metrics, LINES, 0, &lines);
  const char *text = printed(metrics);
  assert_null(strstr(text, "partition=\"0\""));
  assert_non_null(strstr(text, "partition=\"1\"} 7\n"));
  /* Another source's stand beside them. */
  livenps_metrics_begin(metrics, LINES, &lines);
  livenps_metrics_line(metrics, LINES, &lines, "t", 2, 8);
  livenps_metrics_end(metrics, LINES, LIVENPS_SOURCES - 1, &lines);
  assert_non_null(strstr(printed(metrics), "partition=\"1\"} 7\n"
                                           "f{namespace=\"n\",topic=\"t\",partition=\"2\"} 8\n"));
  livenps_metrics_forget(metrics, LINES);
  assert_null(strstr(printed(metrics), "topic="));
  livenps_metrics_close(metrics);
}

/* Nobody wants to know. */
static void test_nobody(void **state) {
  (void)state;
  livenps_buffer lines = {0};
  livenps_metrics_set(NULL, COUNT, 0, 1);
  livenps_metrics_add(NULL, COUNT, 0, 1);
  livenps_metrics_observe(NULL, TIME, 1);
  livenps_metrics_forget(NULL, LATER);
  livenps_metrics_begin(NULL, LINES, &lines);
  livenps_metrics_line(NULL, LINES, &lines, "t", 0, 5);
  livenps_metrics_end(NULL, LINES, 0, &lines);
  assert_null(lines.at);
  livenps_metrics_close(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_text),
      cmocka_unit_test(test_histogram),
      cmocka_unit_test(test_what_is_not_known_is_not_said),
      cmocka_unit_test(test_lines_replace_each_other),
      cmocka_unit_test(test_nobody),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
