/* The reader's side of the commit protocol, against a real redis-server: every answer of the scripts, and replies that never come. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/clock.h"
#include "consumer/commit.h"
#include "tests/unit/redis_asked.h"
#include "tests/unit/redis_relay.h"

#include <inttypes.h>

#define LINEAGE "0123456789abcdef0123456789abcdef"
#define ANEW    "ffffffffffffffffffffffffffffffff"
#define ADMIT   "00000000000000000000000000000000000000000000000000000000000000aa"

static redis_server server;
static redis_relay relay;
static livenps_settings settings;
static livenps_mapping *mapping;
static livenps_admission admission = {.max_bytes = 1 << 20, .late_ms = 7 * 86400000ll, .future_ms = 60000};
static livenps_commit commit;
static livenps_batch batch;

static void stored_is(const char *field, const char *wanted) {
  livenps_reply *reply = command("HGET nps:{t}:positions %s", field);
  livenps_text stored = {0};
  livenps_reply_text(reply, &stored);
  /* An anchor may follow. */
  const size_t length = strlen(wanted);
  if (stored.length < length || memcmp(stored.at, wanted, length) ||
      (stored.length > length && stored.at[length] != ' '))
    fail_msg("%s: wanted %s, stored %.*s", field, wanted, (int)stored.length, stored.at ? stored.at : "");
  livenps_reply_free(reply);
}

/* What the aggregator's genesis leaves: partition 1 has no position yet. */
static void genesis(void) {
  run("FLUSHALL");
  run("XADD nps:{t}:log 5-1 l " LINEAGE " n first p 0-0 q - b 0 d x");
  run("HSET nps:{t}:meta version 2 lineage " LINEAGE " genesis 1 admit " ADMIT
      " head 5-1 head_nonce first bytes 1 trimmed 1");
  run("HSET nps:{t}:positions t/0 10^1");
}

/* One answer; the batch counts it at this offset. */
static void feed(livenps_lane *lane, int64_t offset) {
  char value[200];
  int length =
      snprintf(value, sizeof value,
               "{\"id\":\"%" PRId64
               "\",\"type\":\"answer\",\"time\":\"2025-11-24T16:00:01Z\",\"touchpoint\":\"delivery\","
               "\"scale\":\"nps\",\"score\":9}",
               offset);
  livenps_record record = {.value = {value, (size_t)length}, .timestamp_ms = INT64_C(1764000001000)};
  livenps_fate fate;
  livenps_reason reason;
  livenps_where where = {0};
  assert_true(livenps_batch_record(&batch, lane, offset, &record, &fate, &reason, &where));
  assert_int_equal(fate, LIVENPS_ACCEPTED);
}

static void failed_with(livenps_code code, const char *text) {
  if (error.code != code || !strstr(error.text, text))
    fail_msg("wanted error %d with '%s', got %d: %s", code, text, error.code, error.text);
  livenps_error_clear(&error);
}

/* No record is in hand any more. */
static void nothing_in_hand(void) {
  livenps_advance advances[2];
  livenps_entry entry;
  livenps_batch_entry(&batch, livenps_text_of("w1"), 0, advances, &entry);
  assert_int_equal(entry.row_count, 0);
  assert_int_equal(advances[0].accepted + advances[1].accepted, 0);
}

static void adopts(livenps_adoption wanted, bool seek[2]) {
  livenps_adoption got = livenps_commit_adopt(&commit, &batch, seek, &error);
  if (got != wanted)
    fail_msg("adopt: wanted %d, got %d: %s", wanted, got, error.text);
}

static void flushes(livenps_committing wanted) {
  livenps_committing got = livenps_commit_flush(&commit, &batch, &error);
  if (got != wanted)
    fail_msg("flush: wanted %d, got %d: %s", wanted, got, error.text);
}

/* The newest entry of the log, as the aggregator reads it. The reply holds its texts. */
static livenps_reply *newest(livenps_entry *entry) {
  livenps_reply *reply = command("XREVRANGE nps:{t}:log + - COUNT 1");
  livenps_text payload;
  assert_true(livenps_reply_text(livenps_reply_item(livenps_reply_item(livenps_reply_item(reply, 0), 1), 11),
                                 &payload));
  assert_int_equal(livenps_entry_decode(entry, payload.at, payload.length, &error), 0);
  return reply;
}

/* A reader with both partitions, on a namespace that was begun. */
static int begin(void **state) {
  (void)state;
  livenps_error_clear(&error);
  settings = redis_server_settings(&server);
  settings.redis_url = relay.url;
  settings.namespace_ = (char *)(uintptr_t) "t";
  redis_relay_spoil(&relay, RELAY_BEFORE, 0, NULL);
  genesis();
  livenps_batch_init(&batch, &admission);
  livenps_batch_open(&batch, "t", 0, mapping, 0);
  livenps_batch_open(&batch, "t", 1, mapping, 3);
  return livenps_commit_open(&commit, &settings, ADMIT, "w1", &error);
}

static int end(void **state) {
  (void)state;
  livenps_commit_close(&commit);
  livenps_batch_free(&batch);
  run("CONFIG SET maxmemory-policy noeviction");
  return 0;
}

/* ---- adopt ---------------------------------------------------------------------------------------------------------- */

static void adopt_takes_what_is_stored(void **state) {
  (void)state;
  bool seek[2] = {false, false};
  adopts(LIVENPS_ADOPTED, seek);
  assert_true(seek[0] && seek[1]);
  assert_int_equal(batch.lanes[0].next, 10);
  assert_int_equal(batch.lanes[1].next, 3); /* none stored: where it starts */
  assert_int_equal(batch.lanes[1].stored.next, -1);
  assert_string_equal(commit.lineage, LINEAGE);
  const int64_t now = redis_now();
  assert_true(commit.redis_ms <= now && commit.redis_ms > now - 600000);
  assert_true(commit.redis_at_ms > 0);
  /* Once more: what is in hand is dropped, and read again. */
  feed(&batch.lanes[0], 10);
  adopts(LIVENPS_ADOPTED, seek);
  assert_true(seek[0]);
  nothing_in_hand();
  assert_int_equal(batch.lanes[0].next, 10);
  /* Nothing moved: nothing to seek. */
  adopts(LIVENPS_ADOPTED, seek);
  assert_false(seek[0] || seek[1]);
  adopts(LIVENPS_ADOPTED, NULL);
}

static void adopt_waits_for_the_genesis_and_for_redis(void **state) {
  (void)state;
  run("DEL nps:{t}:log");
  adopts(LIVENPS_ADOPT_WAIT, NULL);
  failed_with(LIVENPS_E_LOST, "waiting for the aggregator to begin it");
  run("FLUSHALL");
  adopts(LIVENPS_ADOPT_WAIT, NULL);
  failed_with(LIVENPS_E_LOST, "the namespace is empty");
  genesis();
  redis_relay_spoil(&relay, RELAY_BEFORE, 1, NULL);
  adopts(LIVENPS_ADOPT_WAIT, NULL);
  failed_with(LIVENPS_E_LOST, "closed the connection");
  adopts(LIVENPS_ADOPTED, NULL);
}

static void adopt_stops_where_waiting_does_not_help(void **state) {
  (void)state;
  static const struct {
    const char *command, *text;
    livenps_code code;
  } wrong[] = {
      {"HSET nps:{t}:meta admit other",
       "begun with other rules for what counts (admit hash other... stored, "
       "0000000000000000... here)",
       LIVENPS_E_REFUSED},
      {"HSET nps:{t}:meta version 1", "format version 1", LIVENPS_E_REFUSED},
      {"HSET nps:{t}:positions t/0 ten", "the position of t/0", LIVENPS_E_DATA},
      {"SET nps:{t}:positions x", "WRONGTYPE", LIVENPS_E_REFUSED},
  };
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    genesis();
    adopts(LIVENPS_ADOPTED, NULL);
    feed(&batch.lanes[1], 3);
    run(wrong[i].command);
    adopts(LIVENPS_ADOPT_STOP, NULL);
    failed_with(wrong[i].code, wrong[i].text);
    nothing_in_hand(); /* never committed on what was believed before */
  }
  /* No partition of ours: lineage and rules are looked at all the same. */
  genesis();
  run("HSET nps:{t}:meta admit other");
  livenps_batch none;
  livenps_batch_init(&none, &admission);
  assert_int_equal(livenps_commit_adopt(&commit, &none, NULL, &error), LIVENPS_ADOPT_STOP);
  failed_with(LIVENPS_E_REFUSED, "other rules");
  livenps_batch_free(&none);
}

/* The program looked at it when it started: whoever comes later, as a second worker does, waits for the operator on the first
 * connection, too. */
static void a_redis_that_must_not_be_used_is_waited_for(void **state) {
  (void)state;
  run("CONFIG SET maxmemory-policy allkeys-lru");
  adopts(LIVENPS_ADOPT_WAIT, NULL);
  failed_with(LIVENPS_E_STARTUP, "may evict");
  run("CONFIG SET maxmemory-policy noeviction");
  run("REPLICAOF 127.0.0.1 1"); /* nobody is there, so the data stays */
  adopts(LIVENPS_ADOPT_WAIT, NULL);
  failed_with(LIVENPS_E_STARTUP, "is a replica");
  nothing_in_hand();
  run("REPLICAOF NO ONE");
  adopts(LIVENPS_ADOPTED, NULL);
  run("CONFIG SET maxmemory-policy allkeys-lru");
  redis_relay_spoil(&relay, RELAY_BEFORE, 1, NULL);
  adopts(LIVENPS_ADOPT_WAIT, NULL);
  livenps_error_clear(&error);
  adopts(LIVENPS_ADOPT_WAIT, NULL);
  failed_with(LIVENPS_E_LOST, "may evict");
}

/* ---- flush ---------------------------------------------------------------------------------------------------------- */

static void flush_commits_what_is_in_hand(void **state) {
  (void)state;
  adopts(LIVENPS_ADOPTED, NULL);
  feed(&batch.lanes[0], 10);
  feed(&batch.lanes[0], 11);
  feed(&batch.lanes[1], 3);
  flushes(LIVENPS_COMMITTED);
  assert_int_equal(commit.commits, 1);
  nothing_in_hand();
  assert_true(livenps_batch_empty(&batch));
  assert_int_equal(number("XLEN nps:{t}:log"), 2);
  livenps_entry entry;
  livenps_reply *reply = newest(&entry);
  assert_true(livenps_text_equal(entry.writer, livenps_text_of("w1")));
  assert_int_equal(entry.advance_count, 2);
  assert_int_equal(entry.advances[0].from, 10);
  assert_int_equal(entry.advances[0].to, 12);
  assert_int_equal(entry.advances[0].accepted, 2);
  assert_int_equal(entry.advances[1].from, 3);
  assert_int_equal(entry.advances[1].to, 4);
  assert_int_equal(entry.row_count, 1);
  assert_int_equal(entry.rows[0].counters.at[LIVENPS_SCORE + 9], 3);
  livenps_entry_free(&entry);
  livenps_reply_free(reply);
  assert_int_equal(batch.lanes[0].stored.next, 12);
  /* An idle one: the same positions are claimed, nothing is counted twice. */
  flushes(LIVENPS_COMMITTED);
  reply = newest(&entry);
  assert_int_equal(entry.row_count, 0);
  assert_int_equal(entry.advances[0].from, 12);
  assert_int_equal(entry.advances[0].to, 12);
  assert_int_equal(entry.advances[0].accepted, 0);
  livenps_entry_free(&entry);
  livenps_reply_free(reply);
  adopts(LIVENPS_ADOPTED, NULL);
  assert_int_equal(batch.lanes[0].next, 12);
  assert_int_equal(batch.lanes[1].next, 4);
  assert_int_equal(commit.commits, 2);
  assert_int_equal(commit.conflicts + commit.lost + commit.full, 0);
}

/* "Read to the end" is true when it is said: it becomes a time of Redis's. The end of a replay's range stays one. */
static void claims_to_be_at_the_end_are_dated(void **state) {
  (void)state;
  livenps_entry entry;
  adopts(LIVENPS_ADOPTED, NULL);
  feed(&batch.lanes[0], 10);
  batch.lanes[0].high = 11;
  batch.lanes[0].high_asked_ms = livenps_monotonic_ms();
  batch.lanes[1].end = 3; /* a replay that ends where it begins */
  const int64_t before = commit.redis_ms;
  flushes(LIVENPS_COMMITTED);
  const int64_t after = redis_now();
  livenps_reply *reply = newest(&entry);
  assert_true(entry.advances[0].through_ms >= before && entry.advances[0].through_ms <= after + 1000);
  assert_int_equal(entry.advances[1].through_ms, LIVENPS_THROUGH_NOW);
  livenps_entry_free(&entry);
  livenps_reply_free(reply);
}

/* Each refusal: what was in hand is dropped, the log stays as it was, and after an adopt the same records are counted once. */
static void flush_drops_what_is_refused(void **state) {
  (void)state;
  static const struct {
    const char *command, *text;
    uint64_t conflicts;
  } refusals[] = {
      {"HSET nps:{t}:positions t/0 9^1",
       "another writer was here, or Redis lost commits: t/0: stored position 9 1, "
       "expected 10 1",
       1},
      {"HSET nps:{t}:meta lineage " ANEW, "the namespace was begun anew: stored lineage " ANEW, 0},
      {"DEL nps:{t}:log", "Redis was flushed or replaced", 0},
  };
  for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
    bool seek[2] = {false, false};
    commit.conflicts = 0;
    genesis();
    adopts(LIVENPS_ADOPTED, NULL);
    feed(&batch.lanes[0], 10);
    run(refusals[i].command);
    const int64_t entries = number("XLEN nps:{t}:log");
    flushes(LIVENPS_COMMIT_READOPT);
    failed_with(LIVENPS_E_LOST, refusals[i].text);
    assert_int_equal(commit.conflicts, refusals[i].conflicts);
    nothing_in_hand();
    assert_int_equal(number("XLEN nps:{t}:log"), entries);
    if (entries == 0)
      genesis();
    run("HSET nps:{t}:positions t/0 10^1");
    adopts(LIVENPS_ADOPTED, seek);
    assert_true(seek[0]);
    feed(&batch.lanes[0], 10);
    flushes(LIVENPS_COMMITTED);
    stored_is("t/0", "11 1");
    livenps_entry entry;
    livenps_reply *reply = newest(&entry);
    assert_int_equal(entry.rows[0].counters.at[LIVENPS_SCORE + 9], 1);
    livenps_entry_free(&entry);
    livenps_reply_free(reply);
  }
}

static void flush_stops_where_other_rules_hold(void **state) {
  (void)state;
  adopts(LIVENPS_ADOPTED, NULL);
  feed(&batch.lanes[0], 10);
  run("HSET nps:{t}:meta admit other");
  flushes(LIVENPS_COMMIT_STOP);
  failed_with(LIVENPS_E_REFUSED, "belongs to other rules for what counts: stored admit hash other");
  nothing_in_hand();
  stored_is("t/0", "10 1");
  /* A script's error is none of the answers. */
  genesis();
  adopts(LIVENPS_ADOPTED, NULL);
  feed(&batch.lanes[0], 10);
  run("HDEL nps:{t}:meta bytes");
  flushes(LIVENPS_COMMIT_STOP);
  failed_with(LIVENPS_E_REFUSED, "lacks fields");
  assert_int_equal(commit.lost, 1);
}

/* FULL is the one refusal that keeps what is in hand: it is right, there is only no room. */
static void flush_waits_where_the_log_is_full(void **state) {
  (void)state;
  settings.log_max_bytes = 8;
  run("HSET nps:{t}:meta bytes 9");
  adopts(LIVENPS_ADOPTED, NULL);
  feed(&batch.lanes[0], 10);
  flushes(LIVENPS_COMMIT_WAITS);
  failed_with(LIVENPS_E_LOST, "the commit log is full (the log holds 8 bytes");
  assert_int_equal(commit.full, 1);
  assert_false(livenps_batch_empty(&batch));
  assert_int_equal(number("XLEN nps:{t}:log"), 1);
  run("HSET nps:{t}:meta trimmed 9"); /* an aggregator has folded it */
  flushes(LIVENPS_COMMITTED);
  stored_is("t/0", "11 1");
}

/* Nobody knows whether it happened; the stored positions do. */
static void a_reply_that_is_lost_counts_once(void **state) {
  (void)state;
  for (int how = RELAY_BEFORE; how <= RELAY_AFTER; how++) {
    bool seek[2] = {false, false};
    genesis();
    adopts(LIVENPS_ADOPTED, NULL);
    feed(&batch.lanes[0], 10);
    redis_relay_spoil(&relay, how, 1, NULL);
    flushes(LIVENPS_COMMIT_UNKNOWN);
    failed_with(LIVENPS_E_LOST, "closed the connection");
    nothing_in_hand();
    assert_int_equal(commit.lost, how + 1);
    assert_int_equal(number("XLEN nps:{t}:log"), how == RELAY_BEFORE ? 1 : 2);
    adopts(LIVENPS_ADOPTED, seek);
    assert_int_equal(batch.lanes[0].next, how == RELAY_BEFORE ? 10 : 11);
    assert_int_equal(seek[0], how == RELAY_BEFORE);
    for (int64_t offset = batch.lanes[0].next; offset < 12; offset++)
      feed(&batch.lanes[0], offset);
    flushes(LIVENPS_COMMITTED);
    stored_is("t/0", "12 1");
  }
}

static void an_answer_that_no_script_gives_stops(void **state) {
  (void)state;
  adopts(LIVENPS_ADOPTED, NULL);
  feed(&batch.lanes[0], 10);
  redis_relay_spoil(&relay, RELAY_ANSWER, 1, "*1\r\n+WHATEVER\r\n");
  flushes(LIVENPS_COMMIT_STOP);
  failed_with(LIVENPS_E_DATA, "the commit script answered in a form");
  nothing_in_hand();
  redis_relay_spoil(&relay, RELAY_ANSWER, 1, ":7\r\n");
  adopts(LIVENPS_ADOPT_STOP, NULL);
  failed_with(LIVENPS_E_DATA, "the adopt script answered in a form");
}

static int start(void **state) {
  (void)state;
  redis_server_start(&server, NULL);
  redis_relay_start(&relay, &server);
  livenps_settings plain = redis_server_settings(&server);
  return livenps_redis_open(&redis, &plain, &error) || livenps_mapping_default(&mapping, &error);
}

static int stop(void **state) {
  (void)state;
  livenps_mapping_free(mapping);
  livenps_redis_close(redis);
  redis_relay_stop(&relay);
  redis_server_stop(&server);
  return 0;
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
  const struct CMUnitTest tests[] = {
      TEST(adopt_takes_what_is_stored),
      TEST(adopt_waits_for_the_genesis_and_for_redis),
      TEST(adopt_stops_where_waiting_does_not_help),
      TEST(a_redis_that_must_not_be_used_is_waited_for),
      TEST(flush_commits_what_is_in_hand),
      TEST(claims_to_be_at_the_end_are_dated),
      TEST(flush_drops_what_is_refused),
      TEST(flush_stops_where_other_rules_hold),
      TEST(flush_waits_where_the_log_is_full),
      TEST(a_reply_that_is_lost_counts_once),
      TEST(an_answer_that_no_script_gives_stops),
  };
  return cmocka_run_group_tests(tests, start, stop);
}
