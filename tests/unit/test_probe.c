/* The hunt for where reading goes on behind records that cannot be read, against partitions that are made up. */
#include "consumer/probe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* A partition: which offsets cannot be read, and how that shows. */
typedef struct {
  int64_t bad_from, bad_behind;
  livenps_sign sign;
  int64_t alive_below; /* offsets from here on are not answered at all; INT64_MAX: all are */
} partition;

static livenps_sign answer(const partition *kafka, int64_t offset) {
  if (offset >= kafka->alive_below)
    return LIVENPS_SIGN_SILENCE;
  return offset >= kafka->bad_from && offset < kafka->bad_behind ? kafka->sign : LIVENPS_SIGN_READ;
}

static livenps_hunt_state run(const partition *kafka, int64_t from, int64_t end, livenps_hunt *hunt,
                              int *questions) {
  livenps_hunt_begin(hunt, from, end);
  livenps_hunt_state state = LIVENPS_HUNT_ON;
  for (*questions = 0; state == LIVENPS_HUNT_ON; ++*questions) {
    assert_true(*questions < 200);
    const int64_t offset = hunt->asking_the_end ? hunt->end : hunt->offset;
    assert_in_range(offset, from, end);
    state = livenps_hunt_take(hunt, answer(kafka, offset));
  }
  return state;
}

static void test_finds_where_reading_goes_on(void **state) {
  (void)state;
  static const livenps_sign signs[] = {LIVENPS_SIGN_ERROR, LIVENPS_SIGN_SILENCE};
  for (size_t s = 0; s < 2; s++)
    for (int64_t length = 1; length < 70; length++)
      for (int64_t after = 0; after < 70; after++) {
        const partition kafka = {100, 100 + length, signs[s], INT64_MAX};
        livenps_hunt hunt;
        int questions;
        assert_int_equal(run(&kafka, 100, 100 + length + after, &hunt, &questions), LIVENPS_HUNT_UNREADABLE);
        assert_int_equal(hunt.behind, 100 + length);
        /* Also from the middle of a batch whose beginning retention has taken. */
        if (length > 1) {
          assert_int_equal(run(&kafka, 101, 100 + length + after, &hunt, &questions),
                           LIVENPS_HUNT_UNREADABLE);
          assert_int_equal(hunt.behind, 100 + length);
        }
      }
}

static void test_large_batches_take_few_questions(void **state) {
  (void)state;
  const partition kafka = {5, 1000005, LIVENPS_SIGN_ERROR, INT64_MAX};
  livenps_hunt hunt;
  int questions;
  assert_int_equal(run(&kafka, 5, INT64_C(1) << 40, &hunt, &questions), LIVENPS_HUNT_UNREADABLE);
  assert_int_equal(hunt.behind, 1000005);
  assert_in_range(questions, 10, 45);
}

static void test_what_can_be_read_is_fine(void **state) {
  (void)state;
  const partition kafka = {0, 10, LIVENPS_SIGN_ERROR, INT64_MAX};
  livenps_hunt hunt;
  int questions;
  assert_int_equal(run(&kafka, 10, 50, &hunt, &questions), LIVENPS_HUNT_FINE);
  assert_int_equal(questions, 1);
}

/* A reply that was damaged on its way: the next one is not. */
static void test_one_failure_is_none(void **state) {
  (void)state;
  livenps_hunt hunt;
  livenps_hunt_begin(&hunt, 7, 100);
  assert_int_equal(livenps_hunt_take(&hunt, LIVENPS_SIGN_ERROR), LIVENPS_HUNT_ON);
  assert_int_equal(livenps_hunt_take(&hunt, LIVENPS_SIGN_ERROR), LIVENPS_HUNT_ON);
  assert_int_equal(hunt.offset, 7);
  assert_int_equal(livenps_hunt_take(&hunt, LIVENPS_SIGN_READ), LIVENPS_HUNT_FINE);
}

/* A machine that stood still: some answers did not come in time, at any point of the hunt. What can be read is never left out. */
static void test_accidents_leave_nothing_out(void **state) {
  (void)state;
  for (int accident = 3; accident < 40; accident++)
    for (int64_t length = 1; length < 40; length++) {
      const partition kafka = {100, 100 + length, LIVENPS_SIGN_SILENCE, INT64_MAX};
      livenps_hunt hunt;
      livenps_hunt_begin(&hunt, 100, 200);
      livenps_hunt_state found = LIVENPS_HUNT_ON;
      for (int i = 0; found == LIVENPS_HUNT_ON; i++) {
        assert_true(i < 200);
        const bool late = i == accident && !hunt.asking_the_end;
        found = livenps_hunt_take(&hunt, late ? LIVENPS_SIGN_SILENCE
                                              : answer(&kafka, hunt.asking_the_end ? hunt.end : hunt.offset));
      }
      if (found == LIVENPS_HUNT_UNREADABLE)
        assert_int_equal(hunt.behind, 100 + length);
      else
        assert_int_equal(found, LIVENPS_HUNT_UNKNOWN);
    }
}

static void test_silence_of_all_is_no_answer(void **state) {
  (void)state;
  livenps_hunt hunt;
  int questions;
  const partition gone = {0, 0, LIVENPS_SIGN_ERROR, 0};
  assert_int_equal(run(&gone, 7, 100, &hunt, &questions), LIVENPS_HUNT_UNKNOWN);
  /* Gone under way, at any question. */
  for (int alive = 0; alive < 30; alive++) {
    const partition kafka = {7, 1007, LIVENPS_SIGN_ERROR, INT64_MAX};
    livenps_hunt_begin(&hunt, 7, 5000);
    livenps_hunt_state found = LIVENPS_HUNT_ON;
    for (int i = 0; found == LIVENPS_HUNT_ON; i++)
      found =
          livenps_hunt_take(&hunt, i < alive ? answer(&kafka, hunt.asking_the_end ? hunt.end : hunt.offset)
                                             : LIVENPS_SIGN_SILENCE);
    assert_true(found == LIVENPS_HUNT_UNKNOWN || (found == LIVENPS_HUNT_UNREADABLE && hunt.behind == 1007));
  }
  /* Nothing can be read up to the end, and not even that comes. */
  livenps_hunt_begin(&hunt, 7, 8);
  for (int i = 0; i < 3; i++)
    assert_int_equal(livenps_hunt_take(&hunt, LIVENPS_SIGN_ERROR), LIVENPS_HUNT_ON);
  assert_int_equal(livenps_hunt_take(&hunt, LIVENPS_SIGN_ERROR), LIVENPS_HUNT_UNKNOWN);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_finds_where_reading_goes_on),
      cmocka_unit_test(test_large_batches_take_few_questions),
      cmocka_unit_test(test_what_can_be_read_is_fine),
      cmocka_unit_test(test_one_failure_is_none),
      cmocka_unit_test(test_accidents_leave_nothing_out),
      cmocka_unit_test(test_silence_of_all_is_no_answer),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
