/* The commit-log entry: what is written is read back, and nothing else is read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "common/entry.h"

static uint64_t random_state;

static uint64_t draw(uint64_t below) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state % below;
}

static void same_text(livenps_text a, livenps_text b) {
  assert_true(livenps_text_equal(a, b));
}

static void same_entry(const livenps_entry *a, const livenps_entry *b) {
  same_text(a->writer, b->writer);
  assert_int_equal(a->clock_ms, b->clock_ms);
  assert_int_equal(a->advance_count, b->advance_count);
  for (size_t i = 0; i < a->advance_count; i++) {
    const livenps_advance *x = &a->advances[i], *y = &b->advances[i];
    same_text(x->topic, y->topic);
    assert_int_equal(x->partition, y->partition);
    assert_int_equal(x->from, y->from);
    assert_int_equal(x->to, y->to);
    assert_int_equal(x->incarnation, y->incarnation);
    assert_int_equal(x->restart, y->restart);
    assert_true(livenps_anchor_same(&x->anchor, &y->anchor));
    assert_true(livenps_anchor_same(&x->root, &y->root));
    assert_int_equal(x->through_ms, y->through_ms);
    assert_int_equal(x->covered_since_ms, y->covered_since_ms);
    assert_int_equal(x->accepted, y->accepted);
    assert_int_equal(x->late, y->late);
    assert_int_equal(x->duplicate, y->duplicate);
    assert_int_equal(x->out_of_range, y->out_of_range);
    assert_int_equal(x->holes, y->holes);
    assert_int_equal(x->gap, y->gap);
    for (int r = 0; r < LIVENPS_REASONS; r++)
      assert_int_equal(x->rejected[r], y->rejected[r]);
  }
  assert_int_equal(a->cell_count, b->cell_count);
  for (size_t i = 0; i < a->cell_count; i++)
    for (int d = 0; d < LIVENPS_DIMENSIONS; d++)
      same_text(a->cells[i].dimensions[d], b->cells[i].dimensions[d]);
  assert_int_equal(a->row_count, b->row_count);
  for (size_t i = 0; i < a->row_count; i++) {
    assert_int_equal(a->rows[i].cell, b->rows[i].cell);
    assert_int_equal(a->rows[i].second, b->rows[i].second);
    assert_memory_equal(&a->rows[i].counters, &b->rows[i].counters, sizeof(livenps_counters));
  }
}

enum { MOST = 6 };

static void make(livenps_entry *entry, livenps_advance *advances, livenps_cell *cells, livenps_row *rows) {
  static const char *const names[] = {"delivery", "", "hotline", "a\0b", "\xc3\xa9"};
  *entry = (livenps_entry){.writer = livenps_text_of("writer-1"),
                           .clock_ms = draw(2) ? LIVENPS_NO_CLOCK : 1764000000123,
                           .advances = advances,
                           .cells = cells,
                           .rows = rows};
  entry->advance_count = draw(MOST);
  for (size_t i = 0; i < entry->advance_count; i++) {
    advances[i] = (livenps_advance){.topic = livenps_text_of(names[draw(3)]),
                                    .partition = (int32_t)draw(100),
                                    .from = (int64_t)draw(1000000),
                                    .incarnation = 1 + (int64_t)draw(3),
                                    .restart = draw(4) == 0,
                                    .through_ms = (int64_t)draw(4) - 2,
                                    .covered_since_ms = (int64_t)draw(3) - 1,
                                    .accepted = (int64_t)draw(1000),
                                    .late = (int64_t)draw(2),
                                    .duplicate = (int64_t)draw(2),
                                    .out_of_range = (int64_t)draw(9),
                                    .holes = (int64_t)draw(5),
                                    .gap = (int64_t)draw(7) - 3};
    advances[i].to = (int64_t)draw(2000000); /* backwards too: a topic made anew */
    if (draw(2))
      advances[i].anchor = (livenps_anchor){true, (uint32_t)draw(UINT32_MAX), (int64_t)draw(2000000), -1};
    if (draw(2))
      advances[i].root =
          (livenps_anchor){true, (uint32_t)draw(UINT32_MAX), (int64_t)draw(2000000), INT64_MAX};
    for (int k = (int)draw(4); k > 0; k--)
      advances[i].rejected[draw(LIVENPS_REASONS)] = 1 + (int64_t)draw(5);
  }
  entry->cell_count = draw(MOST);
  for (size_t i = 0; i < entry->cell_count; i++) {
    cells[i] = (livenps_cell){0};
    for (int d = 0; d < LIVENPS_DIMENSIONS; d++)
      if (draw(2))
        cells[i].dimensions[d] = livenps_text_of(names[draw(5)]);
  }
  entry->row_count = entry->cell_count ? draw(MOST) : 0;
  for (size_t i = 0; i < entry->row_count; i++) {
    rows[i] = (livenps_row){.cell = (uint32_t)draw(entry->cell_count),
                            .second = (int64_t)draw(4000000000) - 2000000000};
    for (int k = (int)draw(5); k > 0; k--)
      rows[i].counters.at[draw(LIVENPS_COUNTERS)] = (int64_t)draw(2000) - 1000;
  }
}

static void test_round_trip(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 2000; seed++) {
    random_state = seed * 0x9e3779b97f4a7c15u;
    livenps_advance advances[MOST];
    livenps_cell cells[MOST];
    livenps_row rows[MOST];
    livenps_entry entry, read;
    livenps_buffer bytes = {0};
    livenps_error error = {0};
    make(&entry, advances, cells, rows);
    livenps_entry_encode(&entry, &bytes);
    if (livenps_entry_decode(&read, bytes.at, bytes.length, &error))
      fail_msg("seed %lu: %s", (unsigned long)seed, error.text);
    same_entry(&entry, &read);
    livenps_entry_free(&read);
    livenps_buffer_free(&bytes);
  }
}

static void test_cut_anywhere_is_an_error(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 100; seed++) {
    random_state = seed * 0x9e3779b97f4a7c15u;
    livenps_advance advances[MOST];
    livenps_cell cells[MOST];
    livenps_row rows[MOST];
    livenps_entry entry, read;
    livenps_buffer bytes = {0};
    make(&entry, advances, cells, rows);
    livenps_entry_encode(&entry, &bytes);
    for (size_t length = 0; length < bytes.length; length++) {
      livenps_error error = {0};
      char *exact = malloc(length ? length : 1); /* so that the sanitizer sees a byte too far */
      memcpy(exact, bytes.at, length);
      assert_int_equal(livenps_entry_decode(&read, exact, length, &error), -1);
      assert_int_equal(error.code, LIVENPS_E_DATA);
      free(exact);
    }
    livenps_buffer_free(&bytes);
  }
}

static void test_another_version_is_refused(void **state) {
  (void)state;
  livenps_entry entry = {.writer = livenps_text_of("w"), .clock_ms = LIVENPS_NO_CLOCK}, read;
  livenps_buffer bytes = {0};
  livenps_error error = {0};
  livenps_entry_encode(&entry, &bytes);
  bytes.at[0] = LIVENPS_ENTRY_VERSION + 1;
  assert_int_equal(livenps_entry_decode(&read, bytes.at, bytes.length, &error), -1);
  assert_non_null(strstr(error.text, "version"));
  livenps_entry_free(&read);
  livenps_entry_free(&read); /* legal twice */
  livenps_buffer_free(&bytes);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_round_trip),
      cmocka_unit_test(test_cut_anywhere_is_an_error),
      cmocka_unit_test(test_another_version_is_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
