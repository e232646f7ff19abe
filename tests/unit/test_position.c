/* Positions as text, and what an anchor tells apart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/position.h"

static void as_text(const livenps_position *position, const char *wanted) {
  char text[LIVENPS_POSITION_MAX];
  livenps_position read;
  assert_int_equal(livenps_position_print(position, text), strlen(wanted));
  assert_string_equal(text, wanted);
  assert_int_equal(livenps_position_parse(livenps_text_of(text), &read), 0);
  assert_int_equal(read.next, position->next);
  assert_int_equal(read.incarnation, position->incarnation);
  assert_true(livenps_anchor_same(&read.anchor, &position->anchor));
  assert_true(livenps_anchor_same(&read.root, &position->root));
}

static void test_print_and_parse(void **state) {
  (void)state;
  const livenps_anchor newest = {true, 0x1c291ca3, 15233, 1763720100023}, old = {true, 0x0a, 0, -1},
                       extreme = {true, UINT32_MAX, INT64_MAX, INT64_MIN};
  as_text(&(livenps_position){.next = 0, .incarnation = 1}, "0 1");
  as_text(&(livenps_position){15234, 1, newest, newest}, "15234 1 15233:1763720100023:1c291ca3");
  as_text(&(livenps_position){15234, 7, newest, old}, "15234 7 15233:1763720100023:1c291ca3 0:-1:0000000a");
  livenps_position longest = {INT64_MAX, INT64_MAX, extreme, extreme};
  longest.root.crc--;
  as_text(&longest,
          "9223372036854775807 9223372036854775807 9223372036854775807:-9223372036854775808:ffffffff "
          "9223372036854775807:-9223372036854775808:fffffffe");
}

/* Only what print gives is read: equal positions are equal texts, which the compare-and-set relies on. */
static void test_nothing_else_is_read(void **state) {
  (void)state;
  static const char *const wrong[] = {"",
                                      "1",
                                      "1 ",
                                      "1 0",
                                      "-1 1",
                                      "01 1",
                                      "1 01",
                                      "+1 1",
                                      " 1 1",
                                      "1  1",
                                      "1 1 ",
                                      "1 1 2",
                                      "1 1 2:3",
                                      "1 1 2:3:",
                                      "1 1 2:3:1234567",
                                      "1 1 2:3:123456789",
                                      "1 1 2:3:1234567G",
                                      "1 1 2:3:1234567A",
                                      "1 1 2:-0:12345678",
                                      "1 1 -2:3:12345678",
                                      "1 1 2:3:12345678 ",
                                      "1 1 2:3:12345678 2:3:12345678",
                                      "1 1 2:3:12345678 1:3:12345678 1",
                                      "9223372036854775808 1",
                                      "99999999999999999999 1"};
  livenps_position read;
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
    if (!livenps_position_parse(livenps_text_of(wrong[i]), &read))
      fail_msg("'%s' was read", wrong[i]);
  assert_int_equal(livenps_position_parse((livenps_text){0}, &read), -1);
}

static uint32_t crc_of(const char *key, const char *value) {
  return livenps_anchor_of(1, 2, livenps_text_of(key), livenps_text_of(value)).crc;
}

static void test_an_anchor_tells_records_apart(void **state) {
  (void)state;
  /* CRC-32 of 01 01 00... "k" 01 02 00... "vw", by Python's zlib. */
  assert_int_equal(crc_of("k", "vw"), 0x90068047);
  assert_int_not_equal(crc_of("kv", "w"), crc_of("k", "vw"));
  assert_int_not_equal(crc_of(NULL, "kvw"), crc_of("k", "vw"));
  assert_int_not_equal(crc_of(NULL, "vw"), crc_of("", "vw"));
  assert_int_not_equal(crc_of("k", NULL), crc_of("k", ""));
  assert_int_not_equal(crc_of("k", NULL), crc_of(NULL, "k"));
  const livenps_anchor none = {0}, one = livenps_anchor_of(0, 0, (livenps_text){0}, (livenps_text){0});
  livenps_anchor other = one;
  assert_true(livenps_anchor_same(&none, &none));
  assert_false(livenps_anchor_same(&none, &one));
  assert_true(livenps_anchor_same(&one, &other));
  other.timestamp_ms++;
  assert_false(livenps_anchor_same(&one, &other));
  other = one;
  other.offset++;
  assert_false(livenps_anchor_same(&one, &other));
}

static void test_judge(void **state) {
  (void)state;
  enum {
    NONE = LIVENPS_TRACE_NONE,
    SAME = LIVENPS_TRACE_SAME,
    OTHER = LIVENPS_TRACE_OTHER,
    GONE = LIVENPS_TRACE_GONE
  };
  static const struct {
    int anchor, root;
    bool one;
    int64_t low;
    livenps_verdict found, beyond; /* the second where the position lies beyond the end */
  } cases[] = {
      {SAME, SAME, false, 0, LIVENPS_VERDICT_SAME, LIVENPS_VERDICT_CUT},
      {SAME, GONE, false, 7, LIVENPS_VERDICT_SAME, LIVENPS_VERDICT_CUT}, /* retention passed the root */
      {GONE, GONE, false, 7, LIVENPS_VERDICT_SAME,
       LIVENPS_VERDICT_CUT}, /* and all that was read: nothing is proven */
      {NONE, NONE, false, 0, LIVENPS_VERDICT_SAME, LIVENPS_VERDICT_ANEW}, /* compacted away */
      {NONE, SAME, false, 0, LIVENPS_VERDICT_SAME, LIVENPS_VERDICT_CUT},
      {SAME, SAME, true, 0, LIVENPS_VERDICT_SAME, LIVENPS_VERDICT_CUT},
      {SAME, OTHER, false, 0, LIVENPS_VERDICT_ANEW,
       LIVENPS_VERDICT_ANEW}, /* the anchor was read of the new topic */
      {SAME, OTHER, false, 7, LIVENPS_VERDICT_ANEW, LIVENPS_VERDICT_ANEW},
      {OTHER, OTHER, false, 0, LIVENPS_VERDICT_ANEW, LIVENPS_VERDICT_ANEW},
      {OTHER, OTHER, true, 0, LIVENPS_VERDICT_ANEW, LIVENPS_VERDICT_ANEW},
      {GONE, OTHER, false, 7, LIVENPS_VERDICT_ANEW, LIVENPS_VERDICT_ANEW},
      {OTHER, SAME, false, 0, LIVENPS_VERDICT_CUT, LIVENPS_VERDICT_CUT},
      {OTHER, SAME, false, 7, LIVENPS_VERDICT_CUT, LIVENPS_VERDICT_CUT},
      {OTHER, GONE, false, 7, LIVENPS_VERDICT_CUT,
       LIVENPS_VERDICT_CUT}, /* an old topic: what was read must not be counted twice */
      {OTHER, OTHER, true, 7, LIVENPS_VERDICT_CUT, LIVENPS_VERDICT_CUT},
      {OTHER, NONE, false, 0, LIVENPS_VERDICT_ANEW, LIVENPS_VERDICT_ANEW},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    if (livenps_position_judge((livenps_trace)cases[i].anchor, (livenps_trace)cases[i].root, cases[i].one,
                               cases[i].low, false) != cases[i].found ||
        livenps_position_judge((livenps_trace)cases[i].anchor, (livenps_trace)cases[i].root, cases[i].one,
                               cases[i].low, true) != cases[i].beyond)
      fail_msg("case %zu", i);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_print_and_parse),
      cmocka_unit_test(test_nothing_else_is_read),
      cmocka_unit_test(test_an_anchor_tells_records_apart),
      cmocka_unit_test(test_judge),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
