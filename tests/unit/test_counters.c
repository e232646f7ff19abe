/* Counters: classification, exact sums, and the canonical packed form. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "common/counters.h"

static livenps_event answer(livenps_scale scale, int score) {
  return (livenps_event){.type = LIVENPS_ANSWER, .scale = scale, .score = score};
}

static void test_classes(void **state) {
  (void)state;
  livenps_counters counters = {0};
  for (int score = 0; score <= 10; score++) {
    livenps_event event = answer(LIVENPS_SCALE_NPS, score);
    livenps_counters one = {0};
    livenps_counters_count(&one, &event);
    livenps_counters_count(&counters, &event);
    assert_int_equal(one.at[LIVENPS_SCORE + score], 1);
    assert_int_equal(one.at[LIVENPS_ANSWERS], 1);
    assert_int_equal(livenps_promoters(&one), score >= 9);
    assert_int_equal(livenps_passives(&one), score == 7 || score == 8);
    assert_int_equal(livenps_detractors(&one), score <= 6);
  }
  assert_int_equal(livenps_promoters(&counters), 2);
  assert_int_equal(livenps_passives(&counters), 2);
  assert_int_equal(livenps_detractors(&counters), 7);
  assert_int_equal(counters.at[LIVENPS_ANSWERS], 11);
}

static void test_families_stay_apart(void **state) {
  (void)state;
  livenps_counters counters = {0};
  livenps_event events[] = {
      answer(LIVENPS_SCALE_CSAT, 1),
      answer(LIVENPS_SCALE_CSAT, 5),
      answer(LIVENPS_SCALE_CES, 1),
      answer(LIVENPS_SCALE_CES, 7),
      {.type = LIVENPS_INTERACTION, .score = -1},
      {.type = LIVENPS_INVITATION, .score = -1},
  };
  /* A value on another scale is not part of the value-weighted NPS. */
  events[0].has_value = true;
  events[0].value = 100;
  for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
    livenps_counters_count(&counters, &events[i]);
  }
  livenps_counters expected = {0};
  expected.at[LIVENPS_CSAT] = expected.at[LIVENPS_CSAT + 4] = 1;
  expected.at[LIVENPS_CES] = expected.at[LIVENPS_CES + 6] = 1;
  expected.at[LIVENPS_INTERACTIONS] = expected.at[LIVENPS_INVITATIONS] = 1;
  expected.at[LIVENPS_ANSWERS] = 4;
  assert_memory_equal(&counters, &expected, sizeof expected);
}

static void test_values_by_class(void **state) {
  (void)state;
  livenps_counters counters = {0};
  int scores[] = {0, 6, 7, 8, 9, 10};
  for (size_t i = 0; i < 6; i++) {
    livenps_event event = answer(LIVENPS_SCALE_NPS, scores[i]);
    event.has_value = true;
    event.value = 1 << (4 * i);
    livenps_counters_count(&counters, &event);
  }
  assert_int_equal(counters.at[LIVENPS_VALUE_DETRACTORS], 0x11);
  assert_int_equal(counters.at[LIVENPS_VALUE_PASSIVES], 0x1100);
  assert_int_equal(counters.at[LIVENPS_VALUE_PROMOTERS], 0x110000);
}

static void test_subtraction_undoes_an_overflow(void **state) {
  (void)state;
  livenps_counters counters = {0}, large = {0}, zero = {0};
  large.at[LIVENPS_VALUE_PROMOTERS] = INT64_MAX;
  large.at[LIVENPS_VALUE_DETRACTORS] = INT64_MIN;
  for (int i = 0; i < 3; i++) {
    livenps_counters_add(&counters, &large);
  }
  for (int i = 0; i < 3; i++) {
    livenps_counters_subtract(&counters, &large);
  }
  assert_memory_equal(&counters, &zero, sizeof zero);
  assert_true(livenps_counters_zero(&counters));
  assert_false(livenps_counters_zero(&large));
}

static void round_trip(const livenps_counters *counters) {
  char bytes[LIVENPS_PACKED_MAX];
  livenps_counters back;
  uint32_t mask = UINT32_MAX;
  size_t length = livenps_counters_pack(counters, bytes);
  assert_in_range(length, 1, LIVENPS_PACKED_MAX);
  const char *at = bytes;
  assert_int_equal(livenps_counters_unpack(&at, bytes + length, &back, &mask), 0);
  assert_int_equal(mask, livenps_counters_mask(counters));
  assert_ptr_equal(at, bytes + length);
  assert_memory_equal(counters, &back, sizeof back);
  for (size_t cut = 0; cut < length; cut++) {
    at = bytes;
    assert_int_equal(livenps_counters_unpack(&at, bytes + cut, &back, &mask), -1);
    assert_ptr_equal(at, bytes);
  }
}

static void test_pack_round_trip(void **state) {
  (void)state;
  livenps_counters counters = {0};
  round_trip(&counters);
  for (int i = 0; i < LIVENPS_COUNTERS; i++) {
    static const int64_t numbers[] = {1, -1, 63, 64, -64, -65, 1 << 20, INT64_MAX, INT64_MIN};
    for (size_t j = 0; j < sizeof numbers / sizeof *numbers; j++) {
      livenps_counters one = {0};
      one.at[i] = numbers[j];
      round_trip(&one);
      counters.at[i] = numbers[j];
    }
  }
  char bytes[LIVENPS_PACKED_MAX];
  assert_int_equal(livenps_counters_pack(&counters, bytes), LIVENPS_PACKED_MAX);
  round_trip(&counters);
  unsigned random = 7;
  for (int round = 0; round < 2000; round++) {
    for (int i = 0; i < LIVENPS_COUNTERS; i++) {
      random = random * 1664525u + 1013904223u;
      counters.at[i] = random >> 30 ? 0 : (int64_t)(random >> (random % 31)) - 5;
    }
    round_trip(&counters);
  }
}

/* Adding packed bytes is adding counters; what cancels is not written. */
static void test_packed_sums(void **state) {
  (void)state;
  unsigned random = 3;
  for (int round = 0; round < 3000; round++) {
    livenps_counters a = {0}, b = {0}, some, sum, back;
    for (int i = 0; i < LIVENPS_COUNTERS; i++) {
      random = random * 1664525u + 1013904223u;
      a.at[i] = random >> 30 ? 0 : (int64_t)(random >> (random % 31)) - 5;
      random = random * 1664525u + 1013904223u;
      b.at[i] = random >> 30 == 1 ? -a.at[i] : random >> 30 ? 0 : INT64_MAX - (int64_t)(random >> 8);
    }
    char packed_a[LIVENPS_PACKED_MAX], packed_b[LIVENPS_PACKED_MAX], got[LIVENPS_PACKED_MAX],
        expected[LIVENPS_PACKED_MAX];
    size_t a_length = livenps_counters_pack(&a, packed_a), b_length = livenps_counters_pack(&b, packed_b);
    sum = a;
    livenps_counters_add(&sum, &b);
    /* What the mask leaves out is not looked at; what it has may be zero. */
    uint32_t mask = livenps_counters_mask(&b) | (1u << (unsigned)(round % LIVENPS_COUNTERS));
    for (int i = 0; i < LIVENPS_COUNTERS; i++) {
      some.at[i] = mask >> i & 1 ? b.at[i] : INT64_MIN + i;
    }
    size_t length = livenps_packed_add(packed_a, a_length, some.at, mask, got);
    if (livenps_counters_zero(&sum)) {
      assert_int_equal(length, 0);
    } else {
      assert_int_equal(length, livenps_counters_pack(&sum, expected));
      assert_memory_equal(got, expected, length);
    }
    assert_int_equal(livenps_counters_pack_some(some.at, mask, got),
                     livenps_counters_zero(&b) ? 0 : livenps_counters_pack(&b, expected));
    back = a;
    livenps_packed_apply(&back, packed_b, b_length, 1);
    assert_memory_equal(&back, &sum, sizeof sum);
    livenps_packed_apply(&back, packed_b, b_length, -1);
    assert_memory_equal(&back, &a, sizeof a);
  }
  char zero[LIVENPS_PACKED_MAX], got[LIVENPS_PACKED_MAX];
  livenps_counters one = {0};
  one.at[LIVENPS_ANSWERS] = 1;
  char a[LIVENPS_PACKED_MAX];
  size_t a_length = livenps_counters_pack(&one, a);
  one.at[LIVENPS_ANSWERS] = -1;
  assert_int_equal(livenps_packed_add(a, a_length, one.at, 1u << LIVENPS_ANSWERS, got), 0);
  assert_int_equal(livenps_counters_pack_some(one.at, 0, got), 0);
  assert_int_equal(livenps_counters_pack(&(livenps_counters){0}, zero), 1);
}

/* In place where every packed counter that is added to keeps its length, else not at all; and it does happen. */
static void test_packed_patches(void **state) {
  (void)state;
  unsigned random = 7;
  int patched = 0, others = 0;
  for (int round = 0; round < 20000; round++) {
    livenps_counters a = {0}, b = {0}, sum;
    for (int i = 0; i < LIVENPS_COUNTERS; i++) {
      random = random * 1664525u + 1013904223u;
      a.at[i] = random >> 31 ? (int64_t)(random >> (2 + random % 29)) - 3 : 0;
      random = random * 1664525u + 1013904223u;
      b.at[i] = random >> 29 || (round % 2 && !a.at[i]) ? 0 : (int64_t)(random >> (6 + random % 26)) - 1;
    }
    if (round % 500 == 0) {
      a.at[5] = INT64_MAX; /* ten bytes, before and after */
      b.at[5] = round % 1000 ? 1 : -1;
    }
    sum = a;
    livenps_counters_add(&sum, &b);
    const uint32_t mask = livenps_counters_mask(&b);
    char bytes[LIVENPS_PACKED_MAX], before[LIVENPS_PACKED_MAX], wanted[LIVENPS_PACKED_MAX];
    const size_t length = livenps_counters_pack(&a, bytes);
    bool same = !(mask & ~livenps_counters_mask(&a));
    for (int i = 0; i < LIVENPS_COUNTERS; i++) {
      livenps_counters one = {0}, other = {0};
      one.at[0] = a.at[i];
      other.at[0] = sum.at[i];
      same = same && (!b.at[i] || (sum.at[i] && livenps_counters_pack(&one, wanted) ==
                                                    livenps_counters_pack(&other, wanted)));
    }
    memcpy(before, bytes, length);
    assert_int_equal(livenps_packed_patch(bytes, length, b.at, mask), same);
    if (same) {
      assert_int_equal(livenps_counters_pack(&sum, wanted), length);
      assert_memory_equal(bytes, wanted, length);
      patched += mask != 0;
    } else {
      assert_memory_equal(bytes, before, length);
      others++;
    }
  }
  assert_true(patched > 1000 && others > 1000);
}

static void refused(const char *bytes, size_t length) {
  livenps_counters counters;
  uint32_t mask;
  const char *at = bytes;
  assert_int_equal(livenps_counters_unpack(&at, bytes + length, &counters, &mask), -1);
  assert_ptr_equal(at, bytes);
}

static void test_unpack_refuses_what_pack_never_writes(void **state) {
  (void)state;
  refused("", 0);
  refused("\x01\x00", 2);                                          /* a counter that is zero has no place */
  refused("\x81\x00\x02", 3);                                      /* needless group in the mask */
  refused("\x01\x82\x00", 3);                                      /* needless group in a counter */
  refused("\x80\x80\x80\x80\x02\x02", 6);                          /* bit 29: a counter nobody has */
  refused("\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11);     /* 65 bits */
  refused("\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12); /* 11 groups */
  refused("\x03\x02", 2);                                          /* the second counter is missing */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_classes),         cmocka_unit_test(test_families_stay_apart),
      cmocka_unit_test(test_values_by_class), cmocka_unit_test(test_subtraction_undoes_an_overflow),
      cmocka_unit_test(test_pack_round_trip), cmocka_unit_test(test_packed_sums),
      cmocka_unit_test(test_packed_patches),  cmocka_unit_test(test_unpack_refuses_what_pack_never_writes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
