/* Numbers as they are published. The rest of the publisher is tested through the aggregator (test_aggregate.c), on a real Redis. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "consumer/publish.h"

#include <stdlib.h>
#include <string.h>

static void numbers_read_back(void **state) {
  (void)state;
  char text[32];
  static const struct {
    double value;
    const char *text;
  } cases[] = {{0, "0"}, {50, "50"}, {-100, "-100"}, {0.1, "0.1"}, {66.25, "66.25"}, {1e-9, "1e-09"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    livenps_number_print(cases[i].value, text);
    assert_true(strtod(text, NULL) == cases[i].value);
    assert_string_equal(text, cases[i].text);
  }
  /* Every score that counts can give, for small counts. */
  for (int n = 1; n < 400; n++) {
    for (int difference = -n; difference <= n; difference++) {
      double value = 100.0 * difference / n;
      assert_true(strtod(livenps_number_print(value, text), NULL) == value);
      assert_true(strlen(text) < 25);
    }
  }
}

static void fields_are_named_once(void **state) {
  (void)state;
  for (size_t i = 0; i < livenps_view_field_count; i++) {
    for (size_t j = 0; j < i; j++) {
      assert_string_not_equal(livenps_view_fields[i], livenps_view_fields[j]);
    }
  }
  livenps_publisher_close(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(numbers_read_back),
      cmocka_unit_test(fields_are_named_once),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
