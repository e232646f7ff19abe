/* The aggregator's state: what a random walk (tests/oracle) does not aim at. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "consumer/state.h"
#include <math.h>
#include <stdio.h>

enum { T = 1700000000 }; /* a second; a multiple of the slices below */

static livenps_window windows[] = {{"5m", 300000, 1000}, {"1h", 3600000, 10000}};
static livenps_rollup rollups[] = {{"touchpoint", {LIVENPS_TOUCHPOINT}, 1},
                                   {"touchpoint|channel", {LIVENPS_TOUCHPOINT, LIVENPS_CHANNEL}, 2},
                                   {"all", {0}, 0}};
static livenps_pair targets[] = {{(char *)"a", (char *)"50"}, {(char *)"~x", (char *)"-10.5"}};

static livenps_state_config config_make(void) {
  return (livenps_state_config){.windows = windows,
                                .window_count = 2,
                                .rollups = rollups,
                                .rollup_count = 3,
                                .series_max = 1000,
                                .minimum_n = 5,
                                .reliable_n = 30,
                                .fdr = 0.1,
                                .targets = targets,
                                .target_count = 2};
}

static livenps_state *make(void) {
  livenps_state_config config = config_make();
  livenps_state *state;
  livenps_state_new(&state, &config);
  return state;
}

static void add(livenps_state *state, const char *touchpoint, int64_t second, int score, int64_t count) {
  livenps_text dimensions[LIVENPS_DIMENSIONS] = {livenps_text_of(touchpoint)};
  livenps_counters counters = {0};
  counters.at[LIVENPS_SCORE + score] = counters.at[LIVENPS_ANSWERS] = count;
  livenps_state_add(state, dimensions, second, &counters);
}

/* -- visitors ----------------------------------------------------------------------------------------------------------------- */

typedef struct {
  livenps_view views[64];
  char ids[64][64];
  size_t count, gone, stop_at; /* stop_at: refuse from this view on */
  char gone_id[64];
  bool refuse_gone;
} seen;

static int see(void *opaque, const livenps_view *view) {
  seen *to = opaque;
  if (to->count == to->stop_at) {
    return 7;
  }
  assert_true(to->count < 64);
  snprintf(to->ids[to->count], sizeof *to->ids, "%s", view->id);
  to->views[to->count++] = *view;
  return 0;
}

static int see_gone(void *opaque, size_t rollup, const char *id) {
  seen *to = opaque;
  (void)rollup;
  if (to->refuse_gone) {
    return 9;
  }
  to->gone++;
  snprintf(to->gone_id, sizeof to->gone_id, "%s", id);
  return 0;
}

static int changed(livenps_state *state, seen *to) {
  livenps_visitor visitor = {see, see_gone, to};
  size_t stop_at = to->stop_at;
  bool refuse = to->refuse_gone;
  *to = (seen){.stop_at = stop_at ? stop_at : SIZE_MAX, .refuse_gone = refuse};
  return livenps_state_changed(state, &visitor);
}

static const livenps_view *find(const seen *in, size_t rollup, size_t window, const char *id) {
  for (size_t i = 0; i < in->count; i++) {
    if (in->views[i].rollup == rollup && in->views[i].window == window && strcmp(in->ids[i], id) == 0) {
      return &in->views[i];
    }
  }
  return NULL;
}

static livenps_view view_of(livenps_state *state, size_t rollup, size_t window, const char *id) {
  seen in = {.stop_at = SIZE_MAX};
  livenps_visitor visitor = {see, see_gone, &in};
  livenps_state_views(state, rollup, window, &visitor);
  const livenps_view *view = find(&in, rollup, window, id);
  if (!view) {
    fail_msg("no view of %s", id);
    abort();
  }
  return *view;
}

static void digest_is(const livenps_state *state, const char *expected) {
  char digest[65];
  livenps_state_digest(state, digest);
  assert_string_equal(digest, expected);
}

/* -- what is published ---------------------------------------------------------------------------------------------------------- */

static void test_free_null(void **unused) {
  (void)unused;
  livenps_state_free(NULL);
  livenps_state *state = make();
  assert_int_equal(livenps_state_clock(state), 0);
  assert_true(livenps_state_entry_clock(state) == LIVENPS_NO_CLOCK);
  livenps_state_free(state);
}

static void test_minimum_n(void **unused) {
  (void)unused;
  livenps_state *state = make();
  livenps_state_advance(state, (int64_t)T * 1000);
  add(state, "a", T, 9, 4);
  livenps_view view = view_of(state, 0, 0, "a");
  assert_int_equal(view.n, 4);
  assert_false(view.scored || view.reliable || view.has_previous || view.has_value_nps);
  assert_true(view.has_target && view.target == 50 && view.target_state == 0);
  add(state, "a", T, 9, 1);
  view = view_of(state, 0, 0, "a");
  assert_true(view.scored && view.nps == 100 && view.nps_rounded == 100 && !view.reliable);
  assert_int_equal(view.promoters, 5);
  /* The interval of five promoters begins at 17.5: the target of 50 is not met yet. */
  assert_int_equal(view.target_state, 0);
  add(state, "a", T, 9, 25);
  view = view_of(state, 0, 0, "a");
  assert_true(view.reliable && view.nps_low > 50 && view.target_state == 1);
  add(state, "a", T, 0, 1000);
  assert_int_equal(view_of(state, 0, 0, "a").target_state, -1);
  /* Targets are named raw and belong to touchpoints only. */
  add(state, "~x", T, 9, 5);
  view = view_of(state, 0, 0, "%7Ex");
  assert_true(view.has_target && view.target == -10.5 && view.target_state == 1);
  assert_false(view_of(state, 2, 0, "all").has_target);
  livenps_state_free(state);
}

static void test_change_list(void **unused) {
  (void)unused;
  livenps_state *state = make();
  seen in = {0};
  livenps_state_advance(state, (int64_t)T * 1000);
  add(state, "a", T - 1000, 9, 6); /* too old for 5m and its previous window */
  assert_int_equal(changed(state, &in), 0);
  /* A new series shows all its windows, the empty ones with n = 0. */
  assert_int_equal(in.count, 4);
  assert_int_equal(find(&in, 0, 0, "a")->n, 0);
  assert_int_equal(find(&in, 0, 1, "a")->n, 6);
  assert_int_equal(changed(state, &in), 0);
  assert_int_equal(in.count, 0);
  /* Then only what a row or a leaving slice changes. */
  add(state, "a", T - 1000, 9, 1);
  changed(state, &in);
  assert_int_equal(in.count, 2);
  assert_non_null(find(&in, 0, 1, "a"));
  livenps_state_advance(state, (int64_t)(T - 1000 + 3600) * 1000 - 1);
  changed(state, &in);
  assert_int_equal(in.count, 0);
  livenps_state_advance(state, (int64_t)(T - 1000 + 3600) * 1000);
  changed(state, &in);
  assert_int_equal(in.count, 2);
  assert_int_equal(find(&in, 2, 1, "all")->n, 0);
  assert_int_equal(find(&in, 2, 1, "all")->previous_n, 7);
  assert_int_equal(in.gone, 0);
  livenps_state_advance(state, (int64_t)(T - 1000 + 7200) * 1000);
  changed(state, &in);
  assert_int_equal(in.count, 0);
  assert_int_equal(in.gone, 2);
  assert_int_equal(livenps_state_series(state, 0, NULL), 0);
  livenps_state_free(state);
}

static void test_a_visit_that_stops(void **unused) {
  (void)unused;
  livenps_state *state = make();
  seen in = {.stop_at = 3};
  livenps_state_advance(state, (int64_t)T * 1000);
  add(state, "a", T, 9, 6);
  add(state, "b", T, 9, 6);
  assert_int_equal(changed(state, &in), 7);
  assert_int_equal(in.count, 3);
  in.stop_at = SIZE_MAX;
  assert_int_equal(changed(state, &in), 0);
  assert_int_equal(in.count, 3); /* six views in all, none lost, none twice */
  livenps_state_change_all(state);
  assert_int_equal(changed(state, &in), 0);
  assert_int_equal(in.count, 6);
  /* gone() is repeated until it is taken. */
  livenps_state_advance(state, (int64_t)(T + 86400) * 1000);
  in.refuse_gone = true;
  assert_int_equal(changed(state, &in), 9);
  assert_int_equal(changed(state, &in), 9);
  /* A name that comes back meanwhile is not gone. */
  add(state, "b", T + 86400, 3, 1);
  in.refuse_gone = false;
  assert_int_equal(changed(state, &in), 0);
  assert_int_equal(in.gone, 1);
  assert_string_equal(in.gone_id, "a");
  assert_int_equal(in.count, 4);
  livenps_state_free(state);
}

/* -- verdicts ------------------------------------------------------------------------------------------------------------------- */

/* Under Benjamini-Hochberg a series' verdict depends on the others: whose verdict flips, counts as changed. */
static void test_a_change_elsewhere_flips_a_verdict(void **unused) {
  (void)unused;
  livenps_state *state = make();
  seen in = {0};
  livenps_state_advance(state, (int64_t)T * 1000);
  /* a falls clearly; b falls with a p between q/2 and q. */
  add(state, "a", T - 400, 9, 100);
  add(state, "a", T, 0, 100);
  add(state, "b", T - 400, 9, 20);
  add(state, "b", T - 400, 0, 20);
  add(state, "b", T, 9, 12);
  add(state, "b", T, 0, 28);
  changed(state, &in);
  const livenps_view *b = find(&in, 0, 0, "b");
  assert_true(b->change_p > 0.05 && b->change_p <= 0.1);
  assert_int_equal(b->change_verdict, -1); /* lifted by a: at most 2 q / 2 */
  assert_int_equal(find(&in, 0, 0, "a")->change_verdict, -1);
  /* a's fall is undone: b alone is above 1 q / 2. */
  add(state, "a", T, 9, 100000);
  changed(state, &in);
  b = find(&in, 0, 0, "b");
  assert_non_null(b);
  assert_int_equal(b->change_verdict, 0);
  assert_int_equal(view_of(state, 0, 0, "a").change_verdict, 0);
  /* Nothing but the verdict of b changed in its hour: it is not shown again. */
  assert_null(find(&in, 0, 1, "b"));
  livenps_state_free(state);
}

typedef struct {
  int verdicts, small, tests;
} verdict_sums;

static int count_verdicts(void *opaque, const livenps_view *view) {
  verdict_sums *sums = opaque;
  sums->tests += view->scored && view->has_previous;
  sums->small += view->scored && view->has_previous && view->change_p < 0.1;
  sums->verdicts += view->change_verdict != 0;
  return 0;
}

/* The number of tests counts too: when one leaves the family, what was not enough may be. */
static void test_a_series_that_leaves_flips_a_verdict(void **unused) {
  (void)unused;
  livenps_state *state = make();
  seen in = {0};
  livenps_state_advance(state, (int64_t)T * 1000);
  add(state, "b", T - 400, 9, 20);
  add(state, "b", T - 400, 0, 20);
  add(state, "b", T, 9, 12);
  add(state, "b", T, 0, 28);
  add(state, "c", T - 400, 9, 10);
  add(state, "c", T - 250, 9, 10); /* no change, p = 1 */
  changed(state, &in);
  assert_int_equal(find(&in, 0, 0, "b")->change_verdict, 0); /* above 1 q / 2 */
  livenps_state_advance(state, (int64_t)(T + 60) * 1000);    /* c's answers are now of the window before */
  changed(state, &in);
  assert_int_equal(find(&in, 0, 0, "c")->n, 0);
  assert_non_null(find(&in, 0, 0, "b"));
  assert_int_equal(find(&in, 0, 0, "b")->change_verdict, -1); /* below 1 q / 1 */
  livenps_state_free(state);
}

/* A thousand series without any change: verdicts are rare, though about a hundred p-values are below 0.1. */
static void test_no_change_gives_rare_verdicts(void **unused) {
  (void)unused;
  livenps_state_config config = config_make();
  verdict_sums sums = {0};
  int rounds_with = 0;
  enum { ROUNDS = 20, SERIES = 1000 };
  srand(20261122);
  for (int round = 0; round < ROUNDS; round++) {
    livenps_state *state;
    livenps_state_new(&state, &config);
    livenps_state_advance(state, (int64_t)T * 1000);
    for (int i = 0; i < SERIES; i++) {
      char name[16];
      snprintf(name, sizeof name, "t%d", i);
      int promoters = 30 + i % 40, answers = 40 + i % 60;
      for (int j = 0; j < 2 * answers; j++) {
        int score = rand() % 100 < promoters ? 10 : rand() % 2 ? 7 : 2;
        add(state, name, j < answers ? T : T - 400, score, 1);
      }
    }
    int before = sums.verdicts;
    livenps_visitor visitor = {count_verdicts, NULL, &sums};
    livenps_state_views(state, 0, 0, &visitor);
    rounds_with += sums.verdicts > before;
    livenps_state_free(state);
  }
  print_message("%d tests without change: %d p-values below 0.1, %d verdicts, in %d of %d rounds\n",
                sums.tests, sums.small, sums.verdicts, rounds_with, ROUNDS);
  assert_int_equal(sums.tests, ROUNDS * SERIES);
  /* One by one, about a tenth would look significant. */
  assert_in_range(sums.small, sums.tests / 20, sums.tests / 7);
  /* Together: any verdict at all in about one round of ten (q), and then a few. */
  assert_in_range(rounds_with, 0, 6);
  assert_in_range(sums.verdicts, 0, 20);
}

/* -- the ledger ----------------------------------------------------------------------------------------------------------------- */

typedef struct {
  livenps_entry entry;
  livenps_advance advances[3];
  livenps_cell cell;
  livenps_row row;
} one_entry;

static livenps_entry *entry_make(one_entry *at, size_t advances, int64_t from, int64_t to) {
  *at = (one_entry){.cell.dimensions = {livenps_text_of("a")}, .row.second = T};
  at->row.counters.at[LIVENPS_SCORE + 9] = at->row.counters.at[LIVENPS_ANSWERS] = to - from;
  for (size_t i = 0; i < 3; i++) {
    at->advances[i] = (livenps_advance){.topic = livenps_text_of("orders"),
                                        .incarnation = 1,
                                        .partition = (int32_t)i,
                                        .from = from,
                                        .to = to,
                                        .through_ms = LIVENPS_THROUGH_SAME,
                                        .covered_since_ms = LIVENPS_COVERED_SAME,
                                        .accepted = to - from};
  }
  at->entry = (livenps_entry){.writer = livenps_text_of("w"),
                              .clock_ms = LIVENPS_NO_CLOCK,
                              .advances = at->advances,
                              .advance_count = advances,
                              .cells = &at->cell,
                              .cell_count = 1,
                              .rows = &at->row,
                              .row_count = 1};
  return &at->entry;
}

static void test_a_break_changes_nothing(void **unused) {
  (void)unused;
  livenps_state *state = make();
  livenps_error error = {0};
  one_entry at;
  char digest[65];
  livenps_state_advance(state, (int64_t)T * 1000);
  assert_int_equal(livenps_state_fold(state, entry_make(&at, 2, 100, 110), 1, &error),
                   0); /* may start anywhere */
  livenps_state_digest(state, digest);
  /* The first partition goes on, the second repeats what was folded. */
  entry_make(&at, 2, 110, 120);
  at.advances[1].from = 109;
  assert_int_equal(livenps_state_fold(state, &at.entry, 2, &error), -1);
  assert_int_equal(error.code, LIVENPS_E_DATA);
  assert_non_null(strstr(error.text, "orders/1"));
  assert_non_null(strstr(error.text, "109"));
  assert_non_null(strstr(error.text, "110"));
  digest_is(state, digest);
  livenps_error_clear(&error);
  entry_make(&at, 2, 110, 120);
  at.advances[0].from = 111; /* a gap that nobody declared */
  assert_int_equal(livenps_state_fold(state, &at.entry, 2, &error), -1);
  digest_is(state, digest);
  /* A row outside of time. */
  livenps_error_clear(&error);
  entry_make(&at, 2, 110, 120);
  at.row.second = INT64_MAX / 2;
  assert_int_equal(livenps_state_fold(state, &at.entry, 2, &error), -1);
  digest_is(state, digest);
  /* Two advances of one partition in one entry must continue each other. */
  livenps_error_clear(&error);
  entry_make(&at, 3, 110, 120);
  at.advances[2] = at.advances[0];
  assert_int_equal(livenps_state_fold(state, &at.entry, 2, &error), -1);
  digest_is(state, digest);
  at.advances[2].from = 120;
  at.advances[2].to = 125;
  livenps_error_clear(&error);
  assert_int_equal(livenps_state_fold(state, &at.entry, 2, &error), 0);
  size_t count;
  const livenps_partition *lines = livenps_state_partitions(state, &count);
  assert_int_equal(count, 2);
  assert_int_equal(lines[0].position.next, 125);
  assert_int_equal(lines[0].start, 100);
  assert_int_equal(lines[1].position.next, 120);
  assert_int_equal(view_of(state, 2, 0, "all").n, 20);
  livenps_state_free(state);
}

static void test_ledger(void **unused) {
  (void)unused;
  livenps_state *state = make();
  livenps_error error = {0};
  one_entry at;
  size_t count;
  livenps_state_start(state, livenps_text_of("orders"), 1, 40, 5000);
  livenps_state_start(state, livenps_text_of("calls"), 10, 0, 0);
  livenps_state_start(state, livenps_text_of("calls"), 2, 0, 0);
  const livenps_partition *lines = livenps_state_partitions(state, &count);
  assert_int_equal(count, 3);
  assert_string_equal(lines[0].topic, "calls");
  assert_int_equal(lines[0].partition, 2);
  assert_int_equal(lines[1].partition, 10);
  assert_int_equal(lines[2].position.next, 40);
  assert_int_equal(lines[2].covered_since_ms, 5000);
  assert_int_equal(lines[2].through_ms, 0);

  livenps_entry *entry = entry_make(&at, 2, 40, 60);
  at.advances[1].through_ms = 70000;
  at.advances[1].late = 3;
  at.advances[1].duplicate = 1;
  at.advances[1].out_of_range = 2;
  at.advances[1].holes = 4;
  at.advances[1].rejected[LIVENPS_REASON_MALFORMED] = 5;
  entry->clock_ms = 69000;
  assert_int_equal(livenps_state_fold(state, entry, 100000, &error), 0);
  lines = livenps_state_partitions(state, &count);
  assert_int_equal(count, 4); /* orders/0 was new */
  const livenps_partition *line = &lines[3];
  assert_true(line->position.next == 60 && line->late == 3 && line->duplicate == 1 &&
              line->out_of_range == 2 && line->holes == 4);
  assert_int_equal(line->rejected[LIVENPS_REASON_MALFORMED], 5);
  assert_int_equal(line->through_ms, 70000);
  assert_int_equal(livenps_state_entry_clock(state), 69000);

  /* At the end: through is the entry's own time. Later records with older timestamps take nothing back. */
  entry_make(&at, 2, 60, 61);
  at.advances[1].through_ms = LIVENPS_THROUGH_NOW;
  at.entry.clock_ms = 1;
  assert_int_equal(livenps_state_fold(state, &at.entry, 110000, &error), 0);
  assert_int_equal(livenps_state_partitions(state, &count)[3].through_ms, 110000);
  assert_int_equal(livenps_state_entry_clock(state), 69000);
  entry_make(&at, 2, 61, 62);
  at.advances[1].through_ms = 90000;
  assert_int_equal(livenps_state_fold(state, &at.entry, 120000, &error), 0);
  assert_int_equal(livenps_state_partitions(state, &count)[3].through_ms, 110000);
  /* A publisher whose clock is ahead promises nothing. */
  entry_make(&at, 2, 62, 63);
  at.advances[1].through_ms = 999000;
  assert_int_equal(livenps_state_fold(state, &at.entry, 130000, &error), 0);
  assert_int_equal(livenps_state_partitions(state, &count)[3].through_ms, 130000);
  /* A gap: reading starts over, and what was before may be missing. */
  entry_make(&at, 2, 63, 70);
  at.advances[1].to = 5;
  at.advances[1].gap = -58;
  at.advances[1].through_ms = 80000;
  at.advances[1].covered_since_ms = 79000;
  assert_int_equal(livenps_state_fold(state, &at.entry, 140000, &error), 0);
  line = &livenps_state_partitions(state, &count)[3];
  assert_true(line->through_ms == 80000 && line->covered_since_ms == 79000 && line->position.next == 5 &&
              line->gap == -58);
  livenps_state_free(state);
}

/* -- snapshots ------------------------------------------------------------------------------------------------------------------ */

typedef struct {
  char names[256][96];
  livenps_buffer bytes[256];
  bool listed[256];
  size_t count, dirty;
} chunks;

static int keep(void *opaque, const char *name, bool dirty, const char *bytes, size_t length) {
  chunks *to = opaque;
  size_t i = 0;
  while (i < to->count && strcmp(to->names[i], name)) {
    i++;
  }
  assert_true(i < 256 && (dirty || i < to->count));
  if (i == to->count) {
    snprintf(to->names[to->count++], sizeof *to->names, "%s", name);
  }
  to->listed[i] = true;
  if (dirty) {
    to->dirty++;
    to->bytes[i].length = 0;
    livenps_buffer_add(&to->bytes[i], bytes, length);
  }
  return 0;
}

/* Stores a snapshot: what it does not name any more is trimmed. */
static void take(livenps_state *state, size_t chunk_bytes, chunks *all) {
  memset(all->listed, 0, sizeof all->listed);
  all->dirty = 0;
  assert_int_equal(livenps_state_snapshot(state, chunk_bytes, keep, all), 0);
  for (size_t i = 0; i < all->count;) {
    if (all->listed[i]) {
      i++;
      continue;
    }
    livenps_buffer_free(&all->bytes[i]);
    all->count--;
    memcpy(all->names[i], all->names[all->count], sizeof *all->names);
    all->bytes[i] = all->bytes[all->count];
    all->listed[i] = all->listed[all->count];
    all->bytes[all->count] = (livenps_buffer){0};
  }
}

static void forget(chunks *all) {
  for (size_t i = 0; i < all->count; i++) {
    livenps_buffer_free(&all->bytes[i]);
  }
  *all = (chunks){0};
}

static livenps_state *load_with(const chunks *from, const livenps_state_config *config, size_t skip,
                                livenps_error *error) {
  livenps_state *state;
  livenps_state_new(&state, config);
  for (size_t i = 0; i < from->count; i++) {
    if (i != skip && livenps_state_load(state, from->bytes[i].at, from->bytes[i].length, error)) {
      livenps_state_free(state);
      return NULL;
    }
  }
  if (livenps_state_load_finish(state, error)) {
    livenps_state_free(state);
    return NULL;
  }
  return state;
}

/* An incarnation goes on only where a restart says so; neither it nor the anchors are in the digest, but in the snapshot. */
static void test_incarnations(void **unused) {
  (void)unused;
  livenps_state *state = make(), *plain = make();
  livenps_error error = {0};
  one_entry at;
  size_t count;
  char digest[65];
  const livenps_anchor first = {true, 1, 100, 5}, second = {true, 2, 111, 6}, third = {true, 3, 7, 7};
  livenps_state_advance(state, (int64_t)T * 1000);
  livenps_state_advance(plain, (int64_t)T * 1000);
  entry_make(&at, 1, 100, 110);
  assert_int_equal(livenps_state_fold(plain, &at.entry, 1, &error), 0);
  at.advances[0].anchor = at.advances[0].root = first;
  assert_int_equal(livenps_state_fold(state, &at.entry, 1, &error), 0);
  livenps_state_digest(plain, digest);
  digest_is(state, digest);

  entry_make(&at, 1, 110, 120);
  at.advances[0].incarnation = 2; /* nobody said so */
  assert_int_equal(livenps_state_fold(state, &at.entry, 2, &error), -1);
  assert_non_null(strstr(error.text, "incarnation 2"));
  livenps_error_clear(&error);
  at.advances[0].incarnation = 0;
  assert_int_equal(livenps_state_fold(state, &at.entry, 2, &error), -1);
  livenps_error_clear(&error);
  digest_is(state, digest);
  at.advances[0].incarnation = 1;
  at.advances[0].anchor = second;
  assert_int_equal(livenps_state_fold(state, &at.entry, 2, &error), 0);
  const livenps_position *position = &livenps_state_partitions(state, &count)[0].position;
  assert_true(livenps_anchor_same(&position->anchor, &second) &&
              livenps_anchor_same(&position->root, &first));

  /* The topic was made anew: from 120 back to 0, then on; within one entry, too. */
  entry_make(&at, 3, 120, 120);
  at.advances[0].to = 0;
  at.advances[0].gap = -120;
  at.advances[0].restart = true;
  at.advances[2] = at.advances[0];
  at.advances[2].from = 0;
  at.advances[2].to = 8;
  at.advances[2].gap = 0;
  at.advances[2].restart = false;
  at.advances[2].anchor = at.advances[2].root = third;
  assert_int_equal(livenps_state_fold(state, &at.entry, 3, &error),
                   -1); /* the second part is of the old one */
  livenps_error_clear(&error);
  at.advances[2].incarnation = 2;
  assert_int_equal(livenps_state_fold(state, &at.entry, 3, &error), 0);
  position = &livenps_state_partitions(state, &count)[0].position;
  assert_true(position->next == 8 && position->incarnation == 2);
  assert_true(livenps_anchor_same(&position->anchor, &third) && livenps_anchor_same(&position->root, &third));
  livenps_state_digest(state, digest);

  chunks kept = {0};
  take(state, 1 << 20, &kept);
  const livenps_state_config config = config_make();
  livenps_state *loaded = load_with(&kept, &config, SIZE_MAX, &error);
  assert_non_null(loaded);
  digest_is(loaded, digest);
  position = &livenps_state_partitions(loaded, &count)[0].position;
  assert_true(position->next == 8 && position->incarnation == 2 &&
              livenps_anchor_same(&position->root, &third));
  entry_make(&at, 1, 8, 9); /* a zombie's, of the incarnation before */
  assert_int_equal(livenps_state_fold(loaded, &at.entry, 4, &error), -1);
  forget(&kept);
  livenps_state_free(loaded);
  livenps_state_free(state);
  livenps_state_free(plain);
}

static livenps_state *filled(void) {
  livenps_state *state = make();
  livenps_error error = {0};
  one_entry at;
  livenps_state_advance(state, (int64_t)T * 1000);
  assert_int_equal(livenps_state_fold(state, entry_make(&at, 3, 0, 6), (int64_t)T * 1000, &error), 0);
  for (int i = 0; i < 700; i++) {
    char name[16];
    snprintf(name, sizeof name, "t%d", i % 7);
    add(state, name, T - i * 9, i % 11, 1 + i % 3);
  }
  add(state, "early", T + 30, 9, 1);
  return state;
}

static void test_only_dirty_chunks_are_given(void **unused) {
  (void)unused;
  livenps_state *state = filled();
  livenps_error error = {0};
  livenps_state_config config = config_make();
  chunks all = {0};
  char digest[65];
  take(state, 1 << 20, &all);
  size_t count = all.count;
  assert_int_equal(all.dirty, count);
  assert_true(count > 15);
  /* Not confirmed: everything again. */
  take(state, 1 << 20, &all);
  assert_int_equal(all.dirty, count);
  livenps_state_saved(state);
  take(state, 1 << 20, &all);
  assert_int_equal(all.dirty, 1); /* the head */
  livenps_state_saved(state);
  add(state, "t1", T, 5, 1); /* one block of each window */
  take(state, 1 << 20, &all);
  assert_int_equal(all.dirty, 3);
  /* Changed while the snapshot was on its way: still dirty after it is confirmed. */
  add(state, "t1", T - 100, 5, 1);
  livenps_state_saved(state);
  take(state, 1 << 20, &all);
  assert_int_equal(all.dirty, 3);
  livenps_state_saved(state);
  /* Slices that leave do not make a chunk dirty; the loader drops them. */
  livenps_state_advance(state, (int64_t)(T + 25) * 1000);
  take(state, 1 << 20, &all);
  livenps_state_saved(state);
  livenps_state_advance(state, (int64_t)(T + 29) * 1000);
  take(state, 1 << 20, &all);
  assert_int_equal(all.dirty, 1);
  livenps_state *loaded = load_with(&all, &config, SIZE_MAX, &error);
  assert_non_null(loaded);
  livenps_state_digest(state, digest);
  digest_is(loaded, digest);
  livenps_state_free(loaded);
  livenps_state_free(state);
  forget(&all);
}

static void test_small_chunks_and_order(void **unused) {
  (void)unused;
  livenps_state *state = filled();
  livenps_error error = {0};
  livenps_state_config config = config_make();
  chunks all = {0}, turned = {0};
  char digest[65];
  livenps_state_digest(state, digest);
  take(state, 400, &all);
  for (size_t i = all.count; i-- > 0;) { /* the head comes first */
    snprintf(turned.names[turned.count], sizeof *turned.names, "%s", all.names[i]);
    turned.bytes[turned.count++] = all.bytes[i];
  }
  livenps_state *loaded = load_with(&turned, &config, SIZE_MAX, &error);
  assert_non_null(loaded);
  digest_is(loaded, digest);
  /* Loaded chunks are stored ones: clean. */
  take(loaded, 400, &turned);
  assert_int_equal(turned.dirty, 1);
  assert_int_equal(turned.count, all.count);
  livenps_state_free(loaded);
  /* Without any one of them it is refused, and the error names it. */
  for (size_t i = 0; i < all.count; i++) {
    livenps_error_clear(&error);
    assert_null(load_with(&all, &config, i, &error));
    assert_int_equal(error.code, LIVENPS_E_DATA);
    assert_non_null(strstr(error.text, all.names[i]));
  }
  /* A chunk of an older snapshot under the same name. */
  size_t newest = 0;
  for (size_t i = 0; i < all.count; i++) {
    newest = strncmp(all.names[i], "5m.", 3) == 0 ? i : newest;
  }
  livenps_buffer old = {0};
  livenps_buffer_add(&old, all.bytes[newest].at, all.bytes[newest].length);
  forget(&all);
  add(state, "t1", T, 3, 1);
  livenps_state_unsaved(state);
  take(state, 1 << 20, &all);
  for (size_t i = 0; i < all.count; i++) {
    if (strncmp(all.names[i], "5m.", 3) == 0) {
      newest = i;
    }
  }
  livenps_buffer_free(&all.bytes[newest]);
  all.bytes[newest] = old;
  livenps_error_clear(&error);
  assert_null(load_with(&all, &config, SIZE_MAX, &error));
  livenps_state_free(state);
  forget(&all);
}

static void test_another_configuration(void **unused) {
  (void)unused;
  livenps_state *state = filled();
  livenps_error error = {0};
  livenps_state_config config = config_make();
  chunks all = {0};
  take(state, 1 << 20, &all);
  livenps_view before = view_of(state, 0, 1, "t3");
  /* 5m goes, 30m comes; touchpoint|channel goes, channel comes; all stays. */
  livenps_window other_windows[] = {{"1h", 3600000, 10000}, {"30m", 1800000, 5000}};
  livenps_rollup other_rollups[] = {
      {"all", {0}, 0}, {"channel", {LIVENPS_CHANNEL}, 1}, {"touchpoint", {LIVENPS_TOUCHPOINT}, 1}};
  config.windows = other_windows;
  config.rollups = other_rollups;
  livenps_state *loaded = load_with(&all, &config, SIZE_MAX, &error);
  assert_non_null(loaded);
  livenps_view after = view_of(loaded, 2, 0, "t3");
  assert_memory_equal(&before.now, &after.now, sizeof after.now);
  assert_memory_equal(&before.previous, &after.previous, sizeof after.previous);
  assert_int_equal(view_of(loaded, 2, 1, "t3").n, 0);
  assert_int_equal(livenps_state_window_since(loaded, 2, 0), 0);
  assert_int_equal(livenps_state_window_since(loaded, 2, 1), (int64_t)(T + 1) * 1000);
  assert_int_equal(livenps_state_window_since(loaded, 1, 0), (int64_t)(T + 1) * 1000);
  assert_int_equal(livenps_state_window_since(loaded, 0, 0), 0);
  /* Rows from then on count in the new window too, the waiting one among them. */
  livenps_state_advance(loaded, (int64_t)(T + 30) * 1000);
  assert_int_equal(view_of(loaded, 2, 1, "early").n, 1);
  assert_int_equal(view_of(loaded, 0, 1, "all").n, 1);
  /* And the next snapshot keeps since when. */
  chunks next = {0};
  livenps_state_unsaved(loaded);
  take(loaded, 1 << 20, &next);
  livenps_state *again = load_with(&next, &config, SIZE_MAX, &error);
  assert_non_null(again);
  assert_int_equal(livenps_state_window_since(again, 0, 1), (int64_t)(T + 1) * 1000);
  assert_int_equal(livenps_state_window_since(again, 2, 0), 0);
  char digest[65];
  livenps_state_digest(loaded, digest);
  digest_is(again, digest);
  livenps_state_free(again);
  livenps_state_free(loaded);
  livenps_state_free(state);
  forget(&all);
  forget(&next);
}

/* A roll-up that was taken out and put back must not find its old slices in chunks that never became dirty. */
static void test_a_rollup_that_comes_back_starts_empty(void **unused) {
  (void)unused;
  livenps_state *state = filled();
  livenps_error error = {0};
  livenps_state_config with = config_make(), without = config_make();
  without.rollup_count = 2; /* no all */
  chunks all = {0};
  take(state, 1 << 20, &all);
  livenps_state *second = load_with(&all, &without, SIZE_MAX, &error);
  assert_non_null(second);
  take(second, 1 << 20, &all);
  livenps_state *third = load_with(&all, &with, SIZE_MAX, &error);
  assert_non_null(third);
  assert_int_equal(livenps_state_series(third, 2, NULL), 0);
  take(third, 1 << 20, &all);
  livenps_state *fourth = load_with(&all, &with, SIZE_MAX, &error);
  assert_non_null(fourth);
  assert_int_equal(livenps_state_series(fourth, 2, NULL), 0);
  assert_int_equal(livenps_state_series(fourth, 0, NULL), 8);
  livenps_state_free(state);
  livenps_state_free(second);
  livenps_state_free(third);
  livenps_state_free(fourth);
  forget(&all);
}

/* Any byte of any chunk changed, or a chunk cut: refused or harmless, never a crash; and mostly refused. */
static void test_damaged_chunks(void **unused) {
  (void)unused;
  livenps_state *state = make();
  livenps_state_config config = config_make();
  chunks all = {0};
  livenps_state_advance(state, (int64_t)T * 1000);
  one_entry at;
  livenps_state_fold(state, entry_make(&at, 3, 0, 6), 1, NULL);
  add(state, "b", T - 200, 3, 2);
  add(state, "early", T + 30, 9, 1);
  take(state, 1 << 20, &all);
  size_t refused = 0, tried = 0;
  for (size_t i = 0; i < all.count; i++) {
    for (size_t j = 0; j < all.bytes[i].length; j++) {
      for (int flip = 1; flip < 256; flip = flip * 2 + 1) {
        livenps_error error = {0};
        all.bytes[i].at[j] ^= (char)flip;
        livenps_state *loaded = load_with(&all, &config, SIZE_MAX, &error);
        all.bytes[i].at[j] ^= (char)flip;
        refused += loaded == NULL;
        tried++;
        if (loaded) {
          seen in = {0};
          livenps_state_advance(loaded, (int64_t)(T + 100) * 1000);
          livenps_state_advance(loaded, (int64_t)(T + 90000) * 1000);
          changed(loaded, &in);
          livenps_state_free(loaded);
        }
      }
      livenps_error error = {0};
      size_t length = all.bytes[i].length;
      all.bytes[i].length = j;
      assert_null(load_with(&all, &config, SIZE_MAX, &error));
      assert_int_equal(error.code, LIVENPS_E_DATA);
      all.bytes[i].length = length;
    }
  }
  assert_true(refused * 2 > tried);
  livenps_error error = {0};
  livenps_state *none;
  livenps_state_new(&none, &config);
  assert_int_equal(livenps_state_load_finish(none, &error), -1);
  livenps_error_clear(&error);
  assert_int_equal(livenps_state_load(none, "H\x63", 2, &error), -1);
  assert_non_null(strstr(error.text, "format"));
  livenps_state_free(none);
  livenps_state_free(state);
  forget(&all);
}

/* -- limits --------------------------------------------------------------------------------------------------------------------- */

static void test_a_silence_of_years(void **unused) {
  (void)unused;
  livenps_state *state = filled();
  seen in = {0};
  livenps_state_advance(state,
                        (int64_t)(T + 10 * 31557600LL) * 1000); /* 300 million empty slices of a second */
  assert_int_equal(changed(state, &in), 0);
  assert_int_equal(in.count, 0);
  assert_true(in.gone >= 9);
  assert_int_equal(livenps_state_series(state, 2, NULL), 0);
  livenps_state_advance(state, (int64_t)T * 1000); /* never back */
  assert_int_equal(livenps_state_clock(state), (int64_t)(T + 10 * 31557600LL) * 1000);
  livenps_state_advance(state, INT64_MAX); /* cut at the end of the year 9999 */
  assert_int_equal(livenps_state_clock(state), 253402300799000);
  livenps_state_free(state);
}

static void test_subtraction_leaves_no_trace(void **unused) {
  (void)unused;
  livenps_state *state = make(), *plain = make();
  seen in = {0};
  char digest[65];
  livenps_state_advance(state, (int64_t)T * 1000);
  livenps_state_advance(plain, (int64_t)T * 1000);
  livenps_state_digest(plain, digest);
  add(state, "a", T - 3, 9, 5);
  add(state, "a", T + 3, 9, 5);
  add(state, "a", T - 3, 9, -5);
  add(state, "a", T + 3, 9, -5);
  digest_is(state, digest);
  changed(state, &in);
  assert_int_equal(in.gone, 2);
  livenps_state_free(state);
  livenps_state_free(plain);
}

/* A series that died is no series, also while nobody was told yet and a cell still points to it. */
static void test_cap_and_the_dead(void **unused) {
  (void)unused;
  livenps_state_config config = config_make();
  livenps_state *state;
  bool capped;
  config.series_max = 1;
  livenps_state_new(&state, &config);
  livenps_state_advance(state, (int64_t)T * 1000);
  add(state, "a", T, 9, 1);
  livenps_state_advance(state, (int64_t)(T + 7200) * 1000);
  assert_int_equal(livenps_state_series(state, 0, &capped), 0);
  add(state, "b", T + 7200, 9, 1);
  add(state, "a", T + 7200, 9, 1);
  assert_int_equal(livenps_state_series(state, 0, &capped), 2);
  assert_true(capped);
  assert_int_equal(view_of(state, 0, 0, "~other").n, 1);
  assert_int_equal(view_of(state, 0, 0, "b").n, 1);
  seen in = {0};
  assert_int_equal(changed(state, &in), 0);
  assert_int_equal(in.gone, 1);
  assert_string_equal(in.gone_id, "a");
  livenps_state_free(state);
}

static void test_cap(void **unused) {
  (void)unused;
  livenps_state_config config = config_make();
  livenps_state *state;
  seen in = {0};
  bool capped;
  config.series_max = 2;
  livenps_state_new(&state, &config);
  livenps_state_advance(state, (int64_t)T * 1000);
  add(state, "a", T - 7000, 9, 1);
  add(state, "b", T, 9, 1);
  assert_int_equal(livenps_state_series(state, 0, &capped), 2);
  assert_false(capped);
  add(state, "c", T, 9, 1);
  add(state, "d", T, 9, 1);
  assert_int_equal(livenps_state_series(state, 0, &capped), 3);
  assert_true(capped);
  assert_int_equal(view_of(state, 0, 0, "~other").n, 2);
  assert_int_equal(view_of(state, 2, 0, "all").n, 3);
  assert_int_equal(livenps_state_series(state, 2, &capped), 1);
  assert_false(capped);
  /* a dies; c stays where its numbers are, or its series would show a part of them. */
  livenps_state_advance(state, (int64_t)(T + 300) * 1000);
  changed(state, &in);
  assert_string_equal(in.gone_id, "a");
  add(state, "c", T + 300, 9, 1);
  assert_int_equal(livenps_state_series(state, 0, &capped), 2);
  assert_true(capped);
  assert_int_equal(view_of(state, 0, 1, "~other").n, 3);
  /* A larger limit takes effect with the next load. */
  chunks all = {0};
  livenps_error error = {0};
  take(state, 1 << 20, &all);
  livenps_state *same = load_with(&all, &config, SIZE_MAX, &error);
  add(same, "e", T + 300, 9, 1);
  assert_int_equal(livenps_state_series(same, 0, &capped), 2);
  config.series_max = 10;
  livenps_state *larger = load_with(&all, &config, SIZE_MAX, &error);
  add(larger, "e", T + 300, 9, 1);
  assert_int_equal(livenps_state_series(larger, 0, &capped), 3);
  assert_true(capped);
  /* ~other empties: names are free again. */
  livenps_state_advance(state, (int64_t)(T + 300 + 7200) * 1000);
  changed(state, &in);
  assert_int_equal(livenps_state_series(state, 0, &capped), 0);
  assert_false(capped);
  add(state, "c", T + 7500, 9, 1);
  assert_int_equal(view_of(state, 0, 0, "c").n, 1);
  livenps_state_free(same);
  livenps_state_free(larger);
  livenps_state_free(state);
  forget(&all);
}

/* More rows than may be pending, of more series than are summed at a time: the same as with somebody who looks all the time. */
static void test_many_pending_rows(void **unused) {
  (void)unused;
  livenps_state_config config = config_make();
  livenps_state *state, *watched;
  char name[16], digest[65];
  config.series_max = 100000;
  livenps_state_new(&state, &config);
  livenps_state_new(&watched, &config);
  livenps_state_advance(state, (int64_t)T * 1000);
  livenps_state_advance(watched, (int64_t)T * 1000);
  for (int i = 0; i < 70000; i++) {
    int second = T - i % 13 * (i % 7) * 50, score = i % 11;
    snprintf(name, sizeof name, "t%d", i % 5000);
    add(state, name, second, score, 1 + i % 3);
    add(watched, name, second, score, 1 + i % 3);
    if (i % 1000 == 0) {
      livenps_state_digest(watched, digest);
    }
  }
  livenps_state_digest(watched, digest);
  digest_is(state, digest);
  assert_int_equal(livenps_state_series(state, 0, NULL), 5000);
  assert_int_equal(view_of(state, 2, 1, "all").n + view_of(state, 2, 1, "all").previous_n, 140000 - 1);
  livenps_state_free(state);
  livenps_state_free(watched);
}

/* A name that comes and goes again before anybody looks. */
static void test_pending_rows_that_cancel(void **unused) {
  (void)unused;
  bool capped;
  seen in = {.stop_at = SIZE_MAX};
  livenps_state *state = make();
  livenps_state_advance(state, (int64_t)T * 1000);
  add(state, "a", T, 9, 1);
  add(state, "a", T, 9, -1);
  assert_int_equal(livenps_state_series(state, 0, &capped), 0);
  add(state, "a", T, 9, 2);
  add(state, "b", T - 1, 3, 4);
  add(state, "b", T - 1, 3, -4);
  assert_int_equal(livenps_state_series(state, 0, NULL), 1);
  assert_int_equal(view_of(state, 2, 0, "all").n, 2);
  /* It died and came back within one spread. */
  add(state, "a", T, 9, -2);
  add(state, "a", T - 2, 0, 1);
  assert_int_equal(view_of(state, 0, 0, "a").n, 1);
  assert_int_equal(changed(state, &in), 0);
  assert_string_equal(in.gone_id, "b");
  livenps_state_free(state);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_free_null),
      cmocka_unit_test(test_minimum_n),
      cmocka_unit_test(test_change_list),
      cmocka_unit_test(test_a_visit_that_stops),
      cmocka_unit_test(test_a_change_elsewhere_flips_a_verdict),
      cmocka_unit_test(test_a_series_that_leaves_flips_a_verdict),
      cmocka_unit_test(test_no_change_gives_rare_verdicts),
      cmocka_unit_test(test_a_break_changes_nothing),
      cmocka_unit_test(test_ledger),
      cmocka_unit_test(test_incarnations),
      cmocka_unit_test(test_only_dirty_chunks_are_given),
      cmocka_unit_test(test_small_chunks_and_order),
      cmocka_unit_test(test_another_configuration),
      cmocka_unit_test(test_a_rollup_that_comes_back_starts_empty),
      cmocka_unit_test(test_damaged_chunks),
      cmocka_unit_test(test_a_silence_of_years),
      cmocka_unit_test(test_subtraction_leaves_no_trace),
      cmocka_unit_test(test_cap),
      cmocka_unit_test(test_cap_and_the_dead),
      cmocka_unit_test(test_many_pending_rows),
      cmocka_unit_test(test_pending_rows_that_cancel),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
