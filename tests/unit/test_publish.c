/* The texts of a view. The rest of the publisher is tested through the aggregator (test_aggregate.c), on a real Redis. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "consumer/publish_parts.h"

#include <stdlib.h>
#include <string.h>

static void fields_are_named_once(void **state) {
  (void)state;
  for (size_t i = 0; i < livenps_view_field_count; i++) {
    for (size_t j = 0; j < i; j++) {
      assert_string_not_equal(livenps_view_fields[i], livenps_view_fields[j]);
    }
  }
  livenps_publisher_close(NULL);
}

/* The text of a field by its name; "" where it is withheld. */
static const char *field(const livenps_view_texts *texts, const char *name) {
  for (size_t i = 0; i < livenps_view_field_count; i++)
    if (!strcmp(livenps_view_fields[i], name))
      return texts->text[i];
  fail_msg("no field %s", name);
  return NULL;
}

/* Each with a value of its own, so that a field under another's name is seen. */
static livenps_view whole_view(void) {
  return (livenps_view){.n = 101,
                        .promoters = 102,
                        .passives = 103,
                        .detractors = 104,
                        .previous_n = 105,
                        .scored = true,
                        .nps = 1.5,
                        .nps_rounded = 2,
                        .nps_low = -3.25,
                        .nps_high = 4.125,
                        .reliable = true,
                        .has_previous = true,
                        .previous_nps = 5.5,
                        .change = -6.5,
                        .change_p = 0.07,
                        .change_verdict = -1,
                        .has_target = true,
                        .target = 8.5,
                        .target_state = -1,
                        .csat_n = 30,
                        .ces_n = 31,
                        .csat_mean = 4.25,
                        .csat_share = 55.5,
                        .ces_mean = 6.75,
                        .interactions = 111,
                        .invitations = 112,
                        .answers = 113,
                        .has_response_rate = true,
                        .response_rate = 100.5,
                        .has_value_nps = true,
                        .value_nps = -12.5,
                        .as_of_ms = 1001,
                        .window_start_ms = 1002,
                        .window_ms = 1003,
                        .slice_ms = 1004};
}

static void every_field_has_its_own_value(void **state) {
  (void)state;
  static const char *const wanted[][2] = {
      {"nps", "1.5"},
      {"nps_rounded", "2"},
      {"nps_low", "-3.25"},
      {"nps_high", "4.125"},
      {"n", "101"},
      {"promoters", "102"},
      {"passives", "103"},
      {"detractors", "104"},
      {"previous_nps", "5.5"},
      {"previous_n", "105"},
      {"change", "-6.5"},
      {"change_p", "0.07"},
      {"change_verdict", "-1"},
      {"reliable", "1"},
      {"csat_n", "30"},
      {"csat_mean", "4.25"},
      {"csat_share", "55.5"},
      {"ces_n", "31"},
      {"ces_mean", "6.75"},
      {"interactions", "111"},
      {"invitations", "112"},
      {"answers", "113"},
      {"response_rate", "100.5"},
      {"value_nps", "-12.5"},
      {"target", "8.5"},
      {"target_state", "-1"},
      {"as_of_ms", "1001"},
      {"window_start_ms", "1002"},
      {"window_ms", "1003"},
      {"slice_ms", "1004"},
  };
  assert_int_equal(sizeof wanted / sizeof *wanted, livenps_view_field_count);
  const livenps_view view = whole_view();
  livenps_view_texts texts;
  livenps_view_print(&view, 30, &texts);
  for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
    assert_string_equal(field(&texts, wanted[i][0]), wanted[i][1]);
}

/* What too few answers would give away is not there at all; numbers of answers always are. */
static void too_few_answers_withhold(void **state) {
  (void)state;
  static const struct {
    const char *what;
    const char *withheld[11];
  } cases[] = {
      {"scored",
       {"nps", "nps_rounded", "nps_low", "nps_high", "promoters", "passives", "detractors", "change",
        "change_p", "change_verdict", "target_state"}},
      {"previous", {"previous_nps", "change", "change_p", "change_verdict"}},
      {"csat", {"csat_mean", "csat_share"}},
      {"ces", {"ces_mean"}},
      {"no csat", {"csat_mean", "csat_share"}},
      {"no ces", {"ces_mean"}},
      {"rate", {"response_rate"}},
      {"value", {"value_nps"}},
      {"target", {"target", "target_state"}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    livenps_view view = whole_view();
    livenps_view_texts texts;
    int64_t minimum_n = 30;
    switch (i) {
    case 0: view.scored = false; break;
    case 1: view.has_previous = false; break;
    case 2: view.csat_n = 29; break;
    case 3: minimum_n = 31, view.ces_n = 30, view.csat_n = 31; break;
    case 4: minimum_n = 0, view.csat_n = 0; break;
    case 5: minimum_n = 0, view.ces_n = 0; break;
    case 6: view.has_response_rate = false; break;
    case 7: view.has_value_nps = false; break;
    default: view.has_target = false; break;
    }
    livenps_view_print(&view, minimum_n, &texts);
    size_t empty = 0, wanted = 0;
    for (size_t f = 0; f < livenps_view_field_count; f++)
      empty += !texts.text[f][0];
    for (; wanted < 11 && cases[i].withheld[wanted]; wanted++)
      if (*field(&texts, cases[i].withheld[wanted]))
        fail_msg("%s: %s is told", cases[i].what, cases[i].withheld[wanted]);
    assert_int_equal(empty, wanted);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(fields_are_named_once),
      cmocka_unit_test(every_field_has_its_own_value),
      cmocka_unit_test(too_few_answers_withhold),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
