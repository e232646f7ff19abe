/* Entries that are folded by another thread: all of them, in their order, with the rows they were put with; nothing behind a failure. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>

#include "consumer/relay.h"

enum { ENTRIES = 300, NEVER = -1 };

/* What the other thread saw; read after drain or close. */
typedef struct {
  int folded, wrong;
  int fails_at;
} seen;

/* Entry i holds one row, of cell "name-i", with i % 7 + 1 interactions, and one advance of partition i. */
static int fold(void *opaque, const livenps_entry *entry, livenps_error *error) {
  seen *what = opaque;
  const int i = what->folded;
  char name[24];
  snprintf(name, sizeof name, "name-%d", i);
  if (i == what->fails_at)
    return livenps_fail(error, LIVENPS_E_DATA, "entry %d does not fit", i);
  if (i % 16 == 0) /* the other side runs ahead as far as it may */
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
  what->wrong += entry->clock_ms != i || entry->row_count != 1 || entry->cell_count != 1 ||
                 entry->advance_count != 1 || entry->advances[0].partition != i ||
                 !livenps_text_equal(entry->cells[0].dimensions[LIVENPS_TOUCHPOINT], livenps_text_of(name)) ||
                 entry->rows[0].second != i || entry->rows[0].counters.at[LIVENPS_INTERACTIONS] != i % 7 + 1;
  what->folded++;
  return 0;
}

static int put(livenps_relay *relay, livenps_combine **combine, int i, livenps_error *error) {
  char name[24];
  snprintf(name, sizeof name, "name-%d", i);
  livenps_event event = {.type = LIVENPS_INTERACTION, .time_ms = i * 1000ll};
  event.dimensions[LIVENPS_TOUCHPOINT] = livenps_text_of(name);
  for (int n = 0; n < i % 7 + 1; n++)
    livenps_combine_add(*combine, &event, (livenps_text){0});
  livenps_advance advance = {.partition = i};
  livenps_entry entry = {.clock_ms = i, .advances = &advance, .advance_count = 1};
  livenps_combine_lend(*combine, &entry);
  const int result = livenps_relay_put(relay, combine, &entry, error);
  advance.partition = NEVER; /* what was put is the relay's own */
  return result;
}

static void test_all_in_order(void **state) {
  (void)state;
  livenps_relay *relay;
  livenps_error error = {0};
  livenps_combine *combine = livenps_combine_new();
  seen what = {.fails_at = NEVER};
  assert_int_equal(livenps_relay_open(&relay, fold, &what, &error), 0);
  assert_int_equal(livenps_relay_drain(relay, &error), 0); /* of nothing */
  for (int i = 0; i < ENTRIES; i++) {
    assert_int_equal(put(relay, &combine, i, &error), 0);
    assert_int_equal(livenps_combine_rows(combine), 0);
    if (i % 100 == 50) {
      assert_int_equal(livenps_relay_drain(relay, &error), 0);
      assert_int_equal(what.folded, i + 1);
    }
  }
  livenps_relay_close(relay); /* without a drain: that is part of it */
  assert_int_equal(what.folded, ENTRIES);
  assert_int_equal(what.wrong, 0);
  livenps_combine_free(combine);
  livenps_relay_close(NULL);
}

static void test_nothing_behind_a_failure(void **state) {
  (void)state;
  enum { FAILS = 40 };
  livenps_relay *relay;
  livenps_error error = {0}, again = {0};
  livenps_combine *combine = livenps_combine_new();
  seen what = {.fails_at = FAILS};
  assert_int_equal(livenps_relay_open(&relay, fold, &what, &error), 0);
  int i = 0;
  while (i < ENTRIES && put(relay, &combine, i, &error) == 0)
    i++;
  /* It was known at the latest when there was room behind the one that failed. */
  assert_in_range(i, FAILS + 1, FAILS + 4);
  assert_int_equal(error.code, LIVENPS_E_DATA);
  assert_string_equal(error.text, "entry 40 does not fit");
  assert_int_equal(livenps_combine_rows(combine), 1); /* what was refused is still the caller's */
  assert_int_equal(livenps_relay_drain(relay, &again), -1);
  assert_string_equal(again.text, error.text);
  assert_int_equal(put(relay, &combine, i, &error), -1);
  livenps_relay_close(relay);
  assert_int_equal(what.folded, FAILS);
  assert_int_equal(what.wrong, 0);
  livenps_combine_free(combine);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_all_in_order),
                                     cmocka_unit_test(test_nothing_behind_a_failure)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
