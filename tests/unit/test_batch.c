/* Batches and their rows: every offset is counted once (I2), jumps are believed only the second time, rows equal a recount. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "consumer/batch.h"

enum { NOW = 1764000000 }; /* seconds */

static livenps_mapping *mapping;
static livenps_admission admission = {.max_bytes = 1 << 20, .late_ms = 7 * 86400000ll, .future_ms = 60000};

/* Each test's own. */
static livenps_batch batch;
static livenps_fate fate; /* of the last record */
static livenps_advance advances[2];
static livenps_entry entry; /* the last one */

static int begin(void **state) {
  (void)state;
  livenps_batch_init(&batch, &admission);
  return 0;
}

static int end(void **state) {
  (void)state;
  livenps_batch_free(&batch);
  return 0;
}

static void make_entry(int64_t now_ms) {
  livenps_batch_entry(&batch, livenps_text_of("w"), now_ms, advances, &entry);
}

static bool adopt(livenps_lane *lane, int64_t next) {
  return livenps_batch_adopt(&batch, lane, &(livenps_position){.next = next, .incarnation = 1}, NOW * 1000ll);
}

static livenps_lane *open_lane(int32_t partition, int64_t stored) {
  livenps_lane *lane = livenps_batch_open(&batch, "events", partition, mapping, -1);
  if (stored < 0)
    lane->start = 0;
  adopt(lane, stored);
  return lane;
}

/* One record with an event of that second; bad: malformed. */
static bool feed(livenps_lane *lane, int64_t offset, int64_t second, const char *touchpoint, int score,
                 bool bad) {
  char value[256];
  int length = snprintf(
      value, sizeof value,
      "{\"id\":\"%lld\",\"type\":\"answer\",\"time\":\"2025-11-24T16:%02lld:%02lldZ\",\"touchpoint\":\"%s\","
      "\"scale\":\"nps\",\"score\":%d}",
      (long long)offset, (long long)(second / 60), (long long)(second % 60), touchpoint, score);
  if (bad)
    length /= 2;
  livenps_record record = {.value = {value, (size_t)length}, .timestamp_ms = NOW * 1000ll + second * 1000};
  livenps_reason reason;
  livenps_where where = {0};
  return livenps_batch_record(&batch, lane, offset, &record, &fate, &reason, &where);
}

static int64_t counted(const livenps_advance *advance) {
  int64_t sum = advance->accepted + advance->late + advance->duplicate + advance->out_of_range +
                advance->holes + advance->gap;
  for (int r = 0; r < LIVENPS_REASONS; r++)
    sum += advance->rejected[r];
  return sum;
}

static void test_every_offset_once(void **state) {
  (void)state;
  livenps_lane *lane = open_lane(3, 100);
  assert_true(livenps_batch_empty(&batch));
  assert_true(feed(lane, 100, 1, "delivery", 9, false));
  assert_int_equal(fate, LIVENPS_ACCEPTED);
  assert_false(feed(lane, 100, 1, "delivery", 9, false)); /* a stray: dropped, and counted as such */
  assert_int_equal(batch.strays, 1);
  assert_true(feed(lane, 101, 2, "delivery", 3, true));
  assert_int_equal(fate, LIVENPS_REJECTED);
  assert_false(feed(lane, 105, 2, "delivery", 3, false)); /* the first hole must come twice */
  lane->reseek = false;
  assert_true(feed(lane, 105, 2, "delivery", 3, false));
  livenps_batch_end(&batch, lane, 107); /* the next one need not */
  make_entry(0);
  assert_int_equal(entry.advance_count, 1);
  assert_int_equal(advances[0].from, 100);
  assert_int_equal(advances[0].to, 107);
  assert_int_equal(advances[0].accepted, 2);
  assert_int_equal(advances[0].holes, 3 + 1);
  assert_int_equal(counted(&advances[0]), advances[0].to - advances[0].from);
  livenps_batch_committed(&batch);
  assert_true(livenps_batch_empty(&batch));
  assert_int_equal(lane->stored.next, 107);
  make_entry(0);
  assert_int_equal(counted(&advances[0]), 0);
  assert_int_equal(entry.row_count, 0);
}

static void test_first_jump_is_not_believed(void **state) {
  (void)state;
  livenps_lane *lane = open_lane(0, 10);
  assert_false(feed(lane, 12, 1, "a", 9, false));
  assert_true(lane->reseek);
  assert_false(feed(lane, 13, 1, "a", 9, false)); /* until the seek nothing is taken */
  assert_int_equal(lane->next, 10);
  lane->reseek = false; /* the reader has sought; this time the skipped records come */
  assert_true(feed(lane, 10, 1, "a", 9, false));
  assert_int_equal(lane->pending.holes, 0);

  livenps_lane *other = open_lane(1, 10);
  assert_false(feed(other, 12, 1, "a", 9, false));
  other->reseek = false; /* and here the same jump comes again: it is a hole */
  assert_true(feed(other, 12, 1, "a", 9, false));
  assert_int_equal(other->pending.holes, 2);

  livenps_lane *ended = open_lane(2, 10);
  livenps_batch_end(&batch, ended, 15); /* an EOF event of before the seek must not pass records either */
  assert_true(ended->reseek);
  assert_int_equal(ended->next, 10);

  livenps_lane *unreadable = open_lane(3, 10);
  livenps_batch_begins(&batch, unreadable, 12); /* nor may the error of a batch that cannot be read */
  assert_true(unreadable->reseek);
  assert_int_equal(unreadable->next, 10);
  unreadable->reseek = false;
  livenps_batch_begins(&batch, unreadable, 12);
  assert_false(unreadable->reseek);
  assert_int_equal(unreadable->next, 12);
  assert_int_equal(unreadable->pending.holes, 2);
}

/* Records of an open topic go on while a jump is being fetched again: what two fetches left out is a hole, and no more than that. */
static void test_jumps_that_move(void **state) {
  (void)state;
  livenps_lane *lane = open_lane(0, 10);
  /* Aborted transactions at the end: each time the end lies further. Never stuck, never further than seen twice. */
  for (int64_t end = 15; end <= 45; end += 10) {
    livenps_batch_end(&batch, lane, end);
    assert_true(lane->reseek);
    assert_int_equal(lane->next, end == 15 ? 10 : end - 10);
    lane->reseek = false;
  }
  assert_true(feed(lane, 45, 1, "a", 9, false)); /* where the last end was: confirmed */
  assert_false(lane->doubt);
  assert_int_equal(lane->pending.holes, 35);
  assert_true(feed(lane, 50, 1, "a", 9, false)); /* believed now */
  assert_int_equal(lane->pending.holes, 39);
  assert_int_equal(batch.skips, 0);

  /* The second fetch brings a record that the first had left out, behind a hole: that is asked for again, and the doubt stays. */
  livenps_lane *skipped = open_lane(1, 10);
  assert_false(feed(skipped, 20, 1, "a", 9, false));
  skipped->reseek = false;
  assert_false(feed(skipped, 12, 1, "a", 9, false));
  skipped->reseek = false;
  assert_true(feed(skipped, 10, 1, "a", 9, false)); /* and there was none at all */
  assert_true(skipped->doubt);
  assert_int_equal(batch.skips, 1);
  assert_int_equal(skipped->pending.holes, 0);
  /* Stale records, in any order: never believed, whatever they leave out. */
  for (int64_t offset = 30; offset > 12; offset--) {
    assert_false(feed(skipped, offset, 1, "a", 9, false));
    assert_int_equal(skipped->next, 11);
    skipped->reseek = false;
  }
  livenps_batch_end(&batch, skipped, 14);
  skipped->reseek = false;
  assert_false(feed(skipped, 20, 1, "a", 9, false)); /* nor does the end speak for them */
  assert_int_equal(skipped->next, 11);
  skipped->reseek = false;

  /* A lane that is put in doubt again (another leader) asks again. */
  lane = livenps_batch_find(&batch, "events", 0);
  lane->doubt = true;
  assert_false(feed(lane, 60, 1, "a", 9, false));
  lane->reseek = false;
  assert_true(feed(lane, 60, 1, "a", 9, false));
  assert_int_equal(batch.refetches, 4 + 2 + 18 + 2 + 1);
}

static void test_restart(void **state) {
  (void)state;
  livenps_lane *lane = open_lane(0, 10);
  assert_true(feed(lane, 10, 1, "a", 9, false));
  assert_true(feed(lane, 11, 1, "a", 9, false));
  livenps_batch_committed(&batch);
  const livenps_anchor root = lane->stored.root;
  /* Made anew: from its start, without anchors, in the next incarnation; also when nothing moves. */
  livenps_batch_restart(&batch, lane, 0, false, NOW * 1000ll);
  assert_false(livenps_batch_empty(&batch));
  make_entry(0);
  assert_true(advances[0].restart && advances[0].incarnation == 1 && advances[0].gap == -12 &&
              advances[0].from == 12 && advances[0].to == 0 && !advances[0].anchor.there &&
              !advances[0].root.there);
  assert_int_equal(counted(&advances[0]), advances[0].to - advances[0].from);
  assert_int_equal(advances[0].covered_since_ms, NOW * 1000ll + admission.future_ms);
  livenps_position position = livenps_batch_position(lane);
  assert_true(position.next == 0 && position.incarnation == 2 && !position.anchor.there &&
              !position.root.there);
  assert_true(feed(lane, 0, 7, "a", 9, false));
  make_entry(0);
  assert_true(advances[0].anchor.there && advances[0].root.there && advances[0].anchor.offset == 0);
  assert_int_equal(counted(&advances[0]), advances[0].to - advances[0].from);
  livenps_batch_committed(&batch);
  assert_true(lane->stored.next == 1 && lane->stored.incarnation == 2 && !lane->restart);

  /* Cut: the root stays, and stands for the anchor too. */
  adopt(lane, 12);
  lane->stored.root = root;
  lane->stored.anchor = (livenps_anchor){true, 1, 11, 2};
  livenps_batch_restart(&batch, lane, 11, true, NOW * 1000ll);
  position = livenps_batch_position(lane);
  assert_true(position.next == 11 && position.incarnation == 2 &&
              livenps_anchor_same(&position.root, &root) && livenps_anchor_same(&position.anchor, &root));
  make_entry(0);
  assert_true(advances[0].gap == -1 && livenps_anchor_same(&advances[0].root, &root));
  livenps_batch_drop(&batch);
  adopt(lane, 12);
  assert_false(lane->restart);

  /* Cut and grown again past the position: nothing moves, but it must be said. */
  livenps_batch_restart(&batch, lane, 12, true, NOW * 1000ll);
  assert_false(livenps_batch_empty(&batch));
}

static void test_only_verified_lanes_are_committed(void **state) {
  (void)state;
  open_lane(0, 10);
  open_lane(1, 10);
  livenps_lane *one = &batch.lanes[0], *idle = &batch.lanes[1];
  idle->wanted_ms = 5000; /* nothing of it would be committed */
  assert_true(livenps_batch_verified(&batch));
  one->wanted_ms = 4000;
  assert_true(livenps_batch_verified(&batch));
  assert_true(feed(one, 10, 1, "a", 9, false));
  assert_false(livenps_batch_verified(&batch));
  one->checked_ms = 3999; /* begun before it was wanted */
  assert_false(livenps_batch_verified(&batch));
  one->checked_ms = 4000;
  assert_true(livenps_batch_verified(&batch));
  /* Kafka has no record to go on with: perhaps those in hand are gone as well. */
  one->out_of_range = one->beyond = true;
  assert_false(livenps_batch_verified(&batch));
  livenps_batch_drop(&batch);
  assert_true(livenps_batch_adopt(&batch, one, &(livenps_position){.next = 10, .incarnation = 1}, 0));
  assert_true(livenps_batch_verified(&batch) && !one->beyond);
}

static void test_another_root(void **state) {
  (void)state;
  livenps_lane *lane = open_lane(0, 10);
  lane->stored.anchor = (livenps_anchor){true, 1, 9, 2};
  lane->stored.root = (livenps_anchor){true, 1, 0, 2};
  livenps_batch_root(lane);
  assert_true(livenps_batch_empty(&batch)); /* it goes with the next entry, an idle one will do */
  make_entry(0);
  assert_true(advances[0].root.offset == 9 && advances[0].root.there && !advances[0].anchor.there);
  livenps_batch_committed(&batch);
  assert_int_equal(lane->stored.root.offset, 9);
}

static void test_anchors(void **state) {
  (void)state;
  livenps_lane *lane = open_lane(0, 10);
  make_entry(0);
  assert_false(advances[0].anchor.there || advances[0].root.there);
  /* The first record of a batch is the anchor, and the very first the root. */
  assert_true(feed(lane, 10, 1, "a", 9, false));
  assert_true(feed(lane, 11, 2, "a", 9, false));
  make_entry(0);
  const livenps_anchor first = advances[0].anchor;
  assert_true(first.there && first.offset == 10 && first.timestamp_ms == NOW * 1000ll + 1000 && first.crc);
  assert_true(livenps_anchor_same(&advances[0].root, &first));
  livenps_batch_committed(&batch);
  assert_true(lane->stored.next == 12 && livenps_anchor_same(&lane->stored.root, &first));
  /* An idle batch says nothing new; a later one has another anchor and the same root. */
  make_entry(0);
  assert_false(advances[0].anchor.there || advances[0].root.there);
  assert_true(feed(lane, 12, 3, "a", 9, false));
  make_entry(0);
  assert_true(advances[0].anchor.offset == 12 && !advances[0].root.there);
  const livenps_position position = livenps_batch_position(lane);
  assert_true(position.next == 13 && position.anchor.offset == 12 &&
              livenps_anchor_same(&position.root, &first));
  /* Dropped: the anchor goes with what was read. */
  livenps_batch_drop(&batch);
  adopt(lane, 12);
  make_entry(0);
  assert_false(advances[0].anchor.there);
  /* Taken back: not an anchor, the next one is. */
  assert_true(feed(lane, 12, 3, "a", 9, true));
  livenps_batch_take_back(lane, 12, LIVENPS_REASON_MALFORMED);
  assert_false(lane->anchor.there);
  lane->reseek = false;
  assert_true(feed(lane, 12, 4, "a", 9, true));
  assert_true(lane->anchor.there && lane->anchor.offset == 12);
  /* A batch without end: one in 1,024. */
  for (int64_t offset = 13; offset < 12 + 3000; offset++)
    assert_true(feed(lane, offset, 5, "a", 9, false));
  assert_int_equal(lane->anchor.offset, 12 + 2 * 1024);
}

static void test_adopt_says_when_to_seek(void **state) {
  (void)state;
  livenps_lane *lane = open_lane(0, 10);
  assert_false(adopt(lane, 10));
  assert_true(feed(lane, 10, 1, "a", 9, false));
  livenps_batch_drop(&batch);
  assert_int_equal(livenps_combine_rows(batch.combine), 0);
  assert_true(adopt(lane, 10)); /* the record must be read again */
  assert_int_equal(lane->next, 10);
  assert_true(adopt(lane, 40)); /* another instance was there */
  lane->reseek = true;          /* something was dropped although the position is the same */
  assert_true(adopt(lane, 40));
}

/* Redis lost commits where a position lies before the one that was stored; not where another instance went on. */
static void test_positions_that_go_back(void **state) {
  (void)state;
  livenps_lane *lane = open_lane(3, 100);
  adopt(lane, 100);
  adopt(lane, 110);
  livenps_batch_adopt(&batch, lane, &(livenps_position){.next = 5, .incarnation = 2}, 0); /* made anew */
  assert_int_equal(batch.went_back, 0);
  livenps_batch_adopt(&batch, lane, &(livenps_position){.next = 4, .incarnation = 2}, 0);
  assert_int_equal(batch.went_back, 1);
  adopt(lane, 110);
  assert_int_equal(batch.went_back, 2);
  adopt(lane, -1); /* not there any more */
  assert_int_equal(batch.went_back, 3);
  adopt(lane, 0);
  assert_int_equal(batch.went_back, 3);
}

static void test_replay_ends_inside_a_hole(void **state) {
  (void)state;
  livenps_lane *lane = open_lane(0, 0);
  lane->end = 5;
  assert_true(feed(lane, 0, 1, "a", 9, false));
  assert_false(feed(lane, 8, 1, "a", 9, false));
  assert_int_equal(lane->next, 1);
  lane->reseek = false;
  assert_false(feed(lane, 8, 1, "a", 9, false));
  assert_int_equal(lane->next, 5);
  assert_int_equal(lane->pending.holes, 4);
  assert_int_equal(lane->pending.accepted, 1);
}

static void test_gaps(void **state) {
  (void)state;
  livenps_lane *lane = open_lane(0, 10);
  livenps_batch_gap(&batch, lane, 25, NOW * 1000ll);
  make_entry(0);
  assert_int_equal(advances[0].gap, 15);
  assert_int_equal(counted(&advances[0]), advances[0].to - advances[0].from);
  assert_int_equal(advances[0].covered_since_ms, NOW * 1000ll + admission.future_ms);
  assert_true(feed(lane, 25, 0, "a", 9, false)); /* its record timestamp says it better */
  livenps_batch_committed(&batch);
  livenps_batch_gap(&batch, lane, 3, NOW * 1000ll); /* the topic was made anew and is shorter */
  make_entry(0);
  assert_int_equal(advances[0].from, 26);
  assert_int_equal(advances[0].to, 3);
  assert_int_equal(counted(&advances[0]), advances[0].to - advances[0].from);
  /* A partition added later: from its start, covered when that is the very first offset. */
  open_lane(1, -1);
  make_entry(0);
  assert_int_equal(advances[1].from, 0);
  assert_int_equal(advances[1].covered_since_ms, 0);
}

static void test_read_through(void **state) {
  (void)state;
  livenps_lane *lane = open_lane(0, 10);
  make_entry(5000);
  assert_int_equal(advances[0].through_ms, LIVENPS_THROUGH_SAME);
  lane->high = 11;
  lane->high_asked_ms = 4000;
  make_entry(5000);
  assert_int_equal(advances[0].through_ms, LIVENPS_THROUGH_SAME); /* one is still to come */
  assert_true(feed(lane, 10, 7, "a", 9, false));
  make_entry(5000);
  assert_int_equal(advances[0].through_ms, LIVENPS_THROUGH_NOW);
  make_entry(6000); /* the end was asked for too long ago */
  assert_int_equal(advances[0].through_ms, NOW * 1000ll + 7000);
}

/* A broker that allows it stores any record timestamp: the entry that tells of it must be readable, or the log ends there. */
static void test_a_timestamp_beyond_all_years(void **state) {
  (void)state;
  livenps_entry read;
  livenps_reason reason;
  livenps_where where = {0};
  livenps_error error = {0};
  livenps_buffer bytes = {0};
  livenps_lane *lane = open_lane(0, 10);
  livenps_batch_gap(&batch, lane, 12, NOW * 1000ll);
  const char value[] =
      "{\"id\":\"a\",\"type\":\"interaction\",\"time\":\"2025-11-24T16:00:00Z\",\"touchpoint\":\"a\"}";
  livenps_record record = {.value = {value, sizeof value - 1}, .timestamp_ms = INT64_MAX};
  assert_true(livenps_batch_record(&batch, lane, 12, &record, &fate, &reason, &where));
  assert_int_equal(fate, LIVENPS_LATE);
  make_entry(0);
  livenps_entry_encode(&entry, &bytes);
  assert_int_equal(livenps_entry_decode(&read, bytes.at, bytes.length, &error), 0);
  livenps_entry_free(&read);
  livenps_buffer_free(&bytes);
}

/* The rows of a batch equal a recount of what was fed, whatever the names. */
static void test_rows_equal_a_recount(void **state) {
  (void)state;
  enum { NAMES = 40, SECONDS = 30, EVENTS = 20000 };
  static int64_t expected[NAMES][SECONDS][11];
  livenps_combine *combine = livenps_combine_new();
  char names[NAMES][24];
  for (int i = 0; i < NAMES; i++)
    snprintf(names[i], sizeof names[i], "name-%d", i);
  for (int round = 0; round < 3; round++) {
    memset(expected, 0, sizeof expected);
    srand(42 + (unsigned)round);
    for (int i = 0; i < EVENTS; i++) {
      const int name = rand() % NAMES, second = rand() % SECONDS, score = rand() % 11;
      livenps_event event = {.type = LIVENPS_ANSWER,
                             .scale = LIVENPS_SCALE_NPS,
                             .score = score,
                             .time_ms = (second - 10) * 1000ll + rand() % 1000}; /* before 1970 too: floor */
      event.dimensions[LIVENPS_TOUCHPOINT] = livenps_text_of(names[name]);
      if (name % 3 == 0)
        event.dimensions[LIVENPS_CHANNEL] = livenps_text_of(names[name]);
      livenps_combine_add(combine, &event, (livenps_text){0});
      expected[name][second][score]++;
    }
    entry = (livenps_entry){0};
    livenps_combine_lend(combine, &entry);
    assert_int_equal(entry.cell_count, NAMES);
    for (size_t r = 0; r < entry.row_count; r++) {
      const livenps_cell *cell = &entry.cells[entry.rows[r].cell];
      int name = -1;
      for (int i = 0; i < NAMES; i++)
        if (livenps_text_equal(cell->dimensions[LIVENPS_TOUCHPOINT], livenps_text_of(names[i])))
          name = i;
      assert_true(name >= 0);
      assert_int_equal(cell->dimensions[LIVENPS_CHANNEL].at != NULL, name % 3 == 0);
      for (int score = 0; score <= 10; score++) {
        int64_t *left = &expected[name][entry.rows[r].second + 10][score];
        *left -= entry.rows[r].counters.at[LIVENPS_SCORE + score];
        assert_int_equal(*left, 0);
      }
    }
    for (int i = 0; i < NAMES * SECONDS * 11; i++)
      assert_int_equal(((int64_t *)expected)[i], 0);
    livenps_combine_reset(combine);
    assert_int_equal(livenps_combine_rows(combine), 0);
  }
  livenps_combine_free(combine);
  livenps_combine_free(NULL);
}

/* Counts beyond a byte and sums beyond 32 bits, in rows whose events come in turn, some of names too long for a key; asked for and lent in
 * between. The recount has counters of its own. */
static void test_rows_run_over(void **state) {
  (void)state;
  enum { NAMES = 7, EVENTS = 40000 };
  static const char *const names[NAMES] = {
      "a", "bcde", "0123456789abcdef", "0123456789abcdefg", "0123456789abcdefh", "", "xy"};
  static const int firsts[] = {0, LIVENPS_SCORE, LIVENPS_CSAT, LIVENPS_CES}, least[] = {0, 0, 1, 1},
                   many[] = {1, 11, 5, 7};
  static int64_t expected[NAMES][LIVENPS_COUNTERS];
  livenps_combine *combine = livenps_combine_new();
  assert_false(livenps_combine_full(combine, 1));
  srand(7);
  for (int i = 0; i < EVENTS; i++) {
    const int name = rand() % 4 ? 0 : rand() % NAMES, kind = rand() % 3;
    livenps_event event = {.type = (livenps_type)kind, .score = -1, .time_ms = 5000 + rand() % 1000};
    event.dimensions[LIVENPS_TOUCHPOINT] = livenps_text_of(names[name]);
    expected[name][LIVENPS_INTERACTIONS + kind]++;
    if (kind == LIVENPS_ANSWER) {
      const int scale = 1 + rand() % 3;
      event.scale = (livenps_scale)scale;
      event.score = least[scale] + rand() % many[scale];
      expected[name][firsts[scale] + event.score - least[scale]]++;
      event.has_value = rand() % 2;
      event.value = rand() % 9 ? rand() % 100000 - 30000 : (rand() % 2 ? 1 : -1) * 100000000000ll;
      if (event.has_value && scale == LIVENPS_SCALE_NPS)
        expected[name][LIVENPS_VALUE_PROMOTERS + (event.score >= 9   ? 0
                                                  : event.score >= 7 ? 1
                                                                     : 2)] += event.value;
    }
    livenps_combine_add(combine, &event, (livenps_text){0});
    if (i % 1000 == 0) {
      entry = (livenps_entry){0};
      livenps_combine_lend(combine, &entry);
    }
  }
  assert_true(livenps_combine_full(combine, NAMES));
  assert_false(livenps_combine_full(combine, NAMES + 1));
  assert_int_equal(livenps_combine_rows(combine), NAMES);
  for (int twice = 0; twice < 2; twice++) {
    entry = (livenps_entry){0};
    livenps_combine_lend(combine, &entry);
    assert_int_equal(entry.row_count, NAMES);
    for (size_t r = 0; r < NAMES; r++) {
      int name = 0;
      while (!livenps_text_equal(entry.cells[entry.rows[r].cell].dimensions[LIVENPS_TOUCHPOINT],
                                 livenps_text_of(names[name])))
        assert_true(++name < NAMES);
      assert_int_equal(entry.rows[r].second, 5);
      assert_memory_equal(entry.rows[r].counters.at, expected[name], sizeof expected[name]);
    }
  }
  livenps_combine_free(combine);
}

/* "ab"+"c" and "a"+"bc", absent and empty: different cells. */
static void test_cells_do_not_run_together(void **state) {
  (void)state;
  livenps_combine *combine = livenps_combine_new();
  static const char *const pairs[][2] = {{"ab", "c"}, {"a", "bc"}, {"abc", ""}, {"abc", NULL}, {"", "abc"}};
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    livenps_event event = {.type = LIVENPS_INTERACTION};
    event.dimensions[LIVENPS_TOUCHPOINT] = livenps_text_of(pairs[i][0]);
    event.dimensions[LIVENPS_CHANNEL] = livenps_text_of(pairs[i][1]);
    livenps_combine_add(combine, &event, (livenps_text){0});
  }
  assert_int_equal(livenps_combine_rows(combine), sizeof pairs / sizeof *pairs);
  livenps_combine_free(combine);
}

/* Names of every length that differ in one byte, wherever it stands, and that are absent or empty: each is a cell of its own, found again,
 * and lent as it was given, wherever it stood. */
static void test_every_name_is_its_own(void **state) {
  (void)state;
  enum { LONGEST = 70 };
  livenps_combine *combine = livenps_combine_new();
  livenps_event event = {.type = LIVENPS_INTERACTION};
  const livenps_text nothing = {0};
  char name[LONGEST];
  for (int round = 0; round < 2; round++)
    for (int d = 0; d < LIVENPS_DIMENSIONS; d++)
      for (size_t length = 0; length <= LONGEST; length++)
        for (size_t place = 0; place <= length; place++) {
          memset(name, 'x', sizeof name);
          if (place < length)
            name[place] = 'y';
          event.dimensions[LIVENPS_TOUCHPOINT] = livenps_text_of("");
          /* The second time in a record, sometimes at its very end; what follows is not the name's. */
          const size_t before = place % 3, size = before + length + (place + length) % 20;
          char *record = round ? malloc(size > 0 ? size : 1) : NULL;
          if (record) {
            memset(record, 'z', size);
            memcpy(record + before, name, length);
          }
          event.dimensions[d] = (livenps_text){record ? record + before : name, length};
          livenps_combine_add(combine, &event, (livenps_text){record, record ? size : 0});
          event.dimensions[d] = nothing;
          free(record);
        }
  /* all of a name's places, and the one without; a dimension's empty name beside the empty touchpoint, and that alone */
  const size_t names = LONGEST * (LONGEST + 1) / 2 + LONGEST;
  assert_int_equal(livenps_combine_rows(combine), LIVENPS_DIMENSIONS * (names + 1));
  livenps_entry lent = {0};
  livenps_combine_lend(combine, &lent);
  assert_int_equal(lent.cell_count, lent.row_count);
  size_t cell = 0;
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++)
    for (size_t length = 0; length <= LONGEST; length++)
      for (size_t place = 0; place <= length; place++, cell++) {
        const livenps_cell *got = &lent.cells[cell];
        assert_int_equal(lent.rows[cell].counters.at[LIVENPS_INTERACTIONS], 2);
        assert_int_equal(got->dimensions[d].length, length);
        for (size_t i = 0; i < length; i++)
          assert_int_equal(got->dimensions[d].at[i], i == place ? 'y' : 'x');
        for (int other = 0; other < LIVENPS_DIMENSIONS; other++)
          assert_int_equal(got->dimensions[other].at != NULL, other == d || other == LIVENPS_TOUCHPOINT);
      }
  livenps_combine_free(combine);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_every_name_is_its_own),
      cmocka_unit_test(test_rows_run_over),
      cmocka_unit_test_setup_teardown(test_every_offset_once, begin, end),
      cmocka_unit_test_setup_teardown(test_first_jump_is_not_believed, begin, end),
      cmocka_unit_test_setup_teardown(test_jumps_that_move, begin, end),
      cmocka_unit_test_setup_teardown(test_restart, begin, end),
      cmocka_unit_test_setup_teardown(test_only_verified_lanes_are_committed, begin, end),
      cmocka_unit_test_setup_teardown(test_another_root, begin, end),
      cmocka_unit_test_setup_teardown(test_anchors, begin, end),
      cmocka_unit_test_setup_teardown(test_adopt_says_when_to_seek, begin, end),
      cmocka_unit_test_setup_teardown(test_positions_that_go_back, begin, end),
      cmocka_unit_test_setup_teardown(test_replay_ends_inside_a_hole, begin, end),
      cmocka_unit_test_setup_teardown(test_gaps, begin, end),
      cmocka_unit_test_setup_teardown(test_read_through, begin, end),
      cmocka_unit_test_setup_teardown(test_a_timestamp_beyond_all_years, begin, end),
      cmocka_unit_test(test_rows_equal_a_recount),
      cmocka_unit_test(test_cells_do_not_run_together),
  };
  livenps_error error = {0};
  if (livenps_mapping_default(&mapping, &error))
    return 1;
  const int failed = cmocka_run_group_tests(tests, NULL, NULL);
  livenps_mapping_free(mapping);
  return failed;
}
