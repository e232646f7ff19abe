/* Every answer of every script, against a real redis-server; whatever is refused must change nothing (invariant I3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "consumer/scripts.h"
#include "tests/unit/redis_asked.h"
#include "tests/unit/redis_relay.h"

#include <inttypes.h>

static redis_server server;
static livenps_keys keys;

#define LINEAGE "0123456789abcdef0123456789abcdef"
#define ADMIT   "00000000000000000000000000000000000000000000000000000000000000aa"

static void fails_with(livenps_code code, const char *text) {
  if (error.code != code || !strstr(error.text, text)) {
    fail_msg("wanted error %d with '%s', got %d: %s", code, text, error.code, error.text);
  }
  livenps_error_clear(&error);
}

static int by_name(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

/* SHA-256 over the names and DUMPs of all keys. */
static void picture(char out[65]) {
  livenps_buffer all = {0};
  livenps_reply *names = command("KEYS *");
  size_t count = livenps_reply_count(names);
  char **sorted = livenps_alloc((count + 1) * sizeof *sorted);
  for (size_t i = 0; i < count; i++) {
    livenps_text name;
    assert_true(livenps_reply_text(livenps_reply_item(names, i), &name));
    sorted[i] = livenps_copy(name.at, name.length);
  }
  qsort(sorted, count, sizeof *sorted, by_name);
  for (size_t i = 0; i < count; i++) {
    livenps_reply *dump = command("DUMP %s", sorted[i]);
    livenps_text bytes;
    livenps_buffer_add(&all, sorted[i], strlen(sorted[i]));
    if (livenps_reply_text(dump, &bytes)) {
      livenps_buffer_add(&all, bytes.at, bytes.length);
    }
    livenps_reply_free(dump);
    free(sorted[i]);
  }
  livenps_sha256_hex(all.at ? all.at : "", all.length, out);
  livenps_reply_free(names);
  free(sorted);
  livenps_buffer_free(&all);
}

/* The stored next offset. */
static int64_t next_of(const char *field) {
  char value[256];
  livenps_reply *reply = command("HGET nps:{t}:positions %s", field);
  livenps_text found;
  assert_true(livenps_reply_text(reply, &found));
  snprintf(value, sizeof value, "%.*s", (int)found.length, found.at);
  livenps_reply_free(reply);
  return strtoll(value, NULL, 10);
}

/* A claim of the first incarnation, without anchors. */
#define CLAIM(field, expected, next)                                                                         \
  ((livenps_claim){field, {(expected), 1, {0}, {0}}, {(next), 1, {0}, {0}}})

static void plain_genesis(void) {
  run("FLUSHALL");
  run("XADD nps:{t}:log 5-1 l " LINEAGE " n first p 0-0 q - b 0 d x");
  run("HSET nps:{t}:meta version 2 lineage " LINEAGE " genesis 1 admit " ADMIT
      " head 5-1 head_nonce first bytes 1 trimmed 1");
  run("HSET nps:{t}:positions a/0 10^1 a/1 9007199254740993^1");
}

static livenps_commit_answer answer;
static int64_t redis_ms;
static livenps_entry_id entry;
static char detail[512];

static int commit(const char *lineage, const char *admit, int64_t limit, const livenps_claim *claims,
                  size_t count, const char *payload, size_t length) {
  livenps_buffer buffer = {0};
  livenps_buffer_add(&buffer, payload, length);
  int result = livenps_script_commit(redis, &keys, lineage, admit, limit, claims, count, &buffer, &answer,
                                     &redis_ms, &entry, detail, &error);
  livenps_buffer_free(&buffer);
  return result;
}

static void commit_writes_all_three(void **state) {
  (void)state;
  plain_genesis();
  livenps_claim claims[] = {CLAIM("a/0", 10, 12), CLAIM("a/1", 9007199254740993, 9007199254740993),
                            CLAIM("b/0", -1, 7)};
  char payload[] = "\0binary\r\n\xff%s";
  assert_int_equal(commit(LINEAGE, ADMIT, 1000, claims, 3, payload, sizeof payload), 0);
  assert_int_equal(answer, LIVENPS_COMMIT_OK);
  assert_true(redis_ms > INT64_C(1500000000000));
  assert_int_equal(strlen(entry.nonce), 32);
  assert_string_equal(text("HGET nps:{t}:positions a/0"), "12 1");
  assert_string_equal(text("HGET nps:{t}:positions a/1"), "9007199254740993 1");
  assert_string_equal(text("HGET nps:{t}:positions b/0"), "7 1");
  assert_string_equal(text("HGET nps:{t}:meta head"), entry.id);
  assert_string_equal(text("HGET nps:{t}:meta head_nonce"), entry.nonce);
  assert_int_equal(number("HGET nps:{t}:meta bytes"), 1 + (int)sizeof payload);

  livenps_reply *reply = command("XRANGE nps:{t}:log %s %s", entry.id, entry.id);
  const livenps_reply *fields = livenps_reply_item(livenps_reply_item(reply, 0), 1);
  const char *wanted[] = {"l", LINEAGE, "n", entry.nonce, "p", "5-1", "q", "first", "b", "1", "d", payload};
  assert_int_equal(livenps_reply_count(fields), 12);
  for (size_t i = 0; i < 12; i++) {
    livenps_text field;
    assert_true(livenps_reply_text(livenps_reply_item(fields, i), &field));
    assert_int_equal(field.length, i == 11 ? sizeof payload : strlen(wanted[i]));
    assert_memory_equal(field.at, wanted[i], field.length);
  }
  livenps_reply_free(reply);

  /* The next one is chained to it. */
  livenps_entry_id before = entry;
  livenps_claim next[] = {CLAIM("a/0", 12, 12), CLAIM("a/1", 9007199254740993, 9007199254740993),
                          CLAIM("b/0", 7, 7)};
  assert_int_equal(commit(LINEAGE, ADMIT, 1000, next, 3, "", 0), 0);
  assert_int_equal(answer, LIVENPS_COMMIT_OK);
  reply = command("XRANGE nps:{t}:log %s %s", entry.id, entry.id);
  fields = livenps_reply_item(livenps_reply_item(reply, 0), 1);
  livenps_text field;
  assert_true(livenps_reply_text(livenps_reply_item(fields, 5), &field));
  assert_true(livenps_text_equal(field, livenps_text_of(before.id)));
  assert_true(livenps_reply_text(livenps_reply_item(fields, 7), &field));
  assert_true(livenps_text_equal(field, livenps_text_of(before.nonce)));
  livenps_reply_free(reply);
}

static void commit_conflicts_change_nothing(void **state) {
  (void)state;
  char before[65], after[65];
  /* The wrong claim stands last, so that a script that wrote as it went along would be caught. */
  livenps_claim wrong[][2] = {
      {CLAIM("a/0", 10, 11), CLAIM("a/1", 5, 6)},
      {CLAIM("a/0", 10, 11), CLAIM("a/1", 9007199254740992, 9007199254740994)}, /* one apart beyond 2^53 */
      {CLAIM("a/0", 10, 11), CLAIM("a/1", -1, 6)},
      {CLAIM("a/0", 10, 11), CLAIM("new/3", 0, 6)}};
  plain_genesis();
  picture(before);
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    assert_int_equal(commit(LINEAGE, ADMIT, 1000, wrong[i], 2, "d", 1), 0);
    assert_int_equal(answer, LIVENPS_COMMIT_CONFLICT);
    assert_non_null(strstr(detail, wrong[i][1].field));
    picture(after);
    assert_string_equal(before, after);
  }
  assert_non_null(strstr(detail, "new/3: stored position -1, expected 0 1"));
}

/* The offset alone does not do: a topic that was made anew comes past every number once more; nor with the incarnation, which a failover
 * may have put back. */
static void commit_compares_the_whole_position(void **state) {
  (void)state;
  char before[65], after[65];
  livenps_claim zombie = CLAIM("a/0", 10, 11), anew = CLAIM("a/0", 10, 3);
  plain_genesis();
  anew.position.incarnation = 2;
  assert_int_equal(commit(LINEAGE, ADMIT, 1000, &anew, 1, "d", 1), 0);
  assert_int_equal(answer, LIVENPS_COMMIT_OK);
  assert_string_equal(text("HGET nps:{t}:positions a/0"), "3 2");
  livenps_claim on = CLAIM("a/0", 3, 10);
  on.stored.incarnation = on.position.incarnation = 2;
  on.position.anchor = on.position.root = (livenps_anchor){true, 0xff, 9, 5};
  assert_int_equal(commit(LINEAGE, ADMIT, 1000, &on, 1, "d", 1), 0);
  assert_int_equal(answer, LIVENPS_COMMIT_OK);
  assert_string_equal(text("HGET nps:{t}:positions a/0"), "10 2 9:5:000000ff");
  picture(before);
  assert_int_equal(commit(LINEAGE, ADMIT, 1000, &zombie, 1, "d", 1), 0);
  assert_int_equal(answer, LIVENPS_COMMIT_CONFLICT);
  assert_non_null(strstr(detail, "stored position 10 2 9:5:000000ff, expected 10 1"));
  picture(after);
  assert_string_equal(before, after);
  /* Offset and incarnation are the same by chance, the record below them is another one. */
  zombie = on;
  zombie.stored = on.position;
  zombie.stored.anchor.crc = zombie.stored.root.crc = 0xfe;
  assert_int_equal(commit(LINEAGE, ADMIT, 1000, &zombie, 1, "d", 1), 0);
  assert_int_equal(answer, LIVENPS_COMMIT_CONFLICT);
  assert_non_null(strstr(detail, "stored position 10 2 9:5:000000ff, expected 10 2 9:5:000000fe"));
  picture(after);
  assert_string_equal(before, after);
  /* Idle: nothing is written over what stands there; another root alone is. */
  on.stored = on.position;
  assert_int_equal(commit(LINEAGE, ADMIT, 1000, &on, 1, "d", 1), 0);
  on.position.root = (livenps_anchor){true, 0xee, 4, 5};
  assert_int_equal(commit(LINEAGE, ADMIT, 1000, &on, 1, "d", 1), 0);
  assert_int_equal(answer, LIVENPS_COMMIT_OK);
  assert_string_equal(text("HGET nps:{t}:positions a/0"), "10 2 9:5:000000ff 4:5:000000ee");
}

static void commit_refusals_change_nothing(void **state) {
  (void)state;
  char before[65], after[65];
  livenps_claim claims[] = {CLAIM("a/0", 10, 11)};
  plain_genesis();
  picture(before);
  assert_int_equal(commit("ffffffffffffffffffffffffffffffff", ADMIT, 1000, claims, 1, "d", 1), 0);
  assert_int_equal(answer, LIVENPS_COMMIT_LINEAGE);
  assert_non_null(strstr(detail, LINEAGE));
  assert_int_equal(commit(LINEAGE, "other", 1000, claims, 1, "d", 1), 0);
  assert_int_equal(answer, LIVENPS_COMMIT_CONFIG);
  assert_non_null(strstr(detail, ADMIT));
  picture(after);
  assert_string_equal(before, after);

  run("HSET nps:{t}:meta version 1");
  assert_int_equal(commit(LINEAGE, ADMIT, 1000, claims, 1, "d", 1), 0);
  assert_int_equal(answer, LIVENPS_COMMIT_CONFIG);
  assert_non_null(strstr(detail, "format version 1"));
  run("HSET nps:{t}:meta version 2");

  /* FULL counts what no snapshot covers; an empty log takes anything. */
  assert_int_equal(commit(LINEAGE, ADMIT, 4, claims, 1, "12345", 5), 0);
  assert_int_equal(answer, LIVENPS_COMMIT_OK);
  claims[0] = CLAIM("a/0", 11, 12);
  picture(before);
  assert_int_equal(commit(LINEAGE, ADMIT, 9, claims, 1, "12345", 5), 0);
  assert_int_equal(answer, LIVENPS_COMMIT_FULL);
  assert_non_null(strstr(detail, "holds 5 bytes"));
  picture(after);
  assert_string_equal(before, after);
  assert_int_equal(commit(LINEAGE, ADMIT, 10, claims, 1, "12345", 5), 0);
  assert_int_equal(answer, LIVENPS_COMMIT_OK);

  /* A commit never creates a log. */
  run("DEL nps:{t}:log");
  picture(before);
  assert_int_equal(commit(LINEAGE, ADMIT, 1000, claims, 1, "d", 1), 0);
  assert_int_equal(answer, LIVENPS_COMMIT_EMPTY);
  picture(after);
  assert_string_equal(before, after);
  run("FLUSHALL");
  picture(before);
  assert_int_equal(commit(LINEAGE, ADMIT, 1000, claims, 1, "d", 1), 0);
  assert_int_equal(answer, LIVENPS_COMMIT_EMPTY);
  picture(after);
  assert_string_equal(before, after);
}

static void commit_wrong_types_change_nothing(void **state) {
  (void)state;
  static const char *const names[] = {"meta", "positions", "log"};
  livenps_claim claims[] = {CLAIM("a/0", 10, 11)};
  for (size_t i = 0; i < 3; i++) {
    char before[65], after[65], line[64];
    plain_genesis();
    snprintf(line, sizeof line, "DEL nps:{t}:%s", names[i]);
    run(line);
    snprintf(line, sizeof line, "SET nps:{t}:%s x", names[i]);
    run(line);
    picture(before);
    assert_int_equal(commit(LINEAGE, ADMIT, 1000, claims, 1, "d", 1), -1);
    fails_with(LIVENPS_E_REFUSED, "WRONGTYPE");
    picture(after);
    assert_string_equal(before, after);
  }
  plain_genesis();
  run("HDEL nps:{t}:meta bytes");
  assert_int_equal(commit(LINEAGE, ADMIT, 1000, claims, 1, "d", 1), -1);
  fails_with(LIVENPS_E_REFUSED, "lacks fields");
}

/* The stream at its last possible id refuses XADD: it must be the first write. */
static void commit_refused_by_the_stream_changes_nothing(void **state) {
  (void)state;
  char before[65], after[65];
  livenps_claim claims[] = {CLAIM("a/0", 10, 11)};
  plain_genesis();
  run("XADD nps:{t}:log 18446744073709551615-18446744073709551615 x y");
  picture(before);
  assert_int_equal(commit(LINEAGE, ADMIT, 1000, claims, 1, "d", 1), -1);
  fails_with(LIVENPS_E_REFUSED, "");
  picture(after);
  assert_string_equal(before, after);
}

static void commit_out_of_memory_changes_nothing(void **state) {
  (void)state;
  char before[65], after[65];
  livenps_claim claims[] = {CLAIM("a/0", 10, 11)};
  plain_genesis();
  picture(before);
  run("CONFIG SET maxmemory 1");
  assert_int_equal(commit(LINEAGE, ADMIT, 1000, claims, 1, "d", 1), -1);
  fails_with(LIVENPS_E_LOST, "OOM");
  run("CONFIG SET maxmemory 0");
  picture(after);
  assert_string_equal(before, after);
  assert_int_equal(commit(LINEAGE, ADMIT, 1000, claims, 1, "d", 1), 0);
  assert_int_equal(answer, LIVENPS_COMMIT_OK);
}

/* Redis's clock goes back: ids go on rising all the same. */
static void commit_ids_rise_when_the_clock_goes_back(void **state) {
  (void)state;
  plain_genesis();
  run("XADD nps:{t}:log 9999999999999-3 x y"); /* year 2286 */
  livenps_claim claims[] = {CLAIM("a/0", 10, 11)};
  assert_int_equal(commit(LINEAGE, ADMIT, 1000, claims, 1, "d", 1), 0);
  assert_int_equal(answer, LIVENPS_COMMIT_OK);
  assert_string_equal(entry.id, "9999999999999-4");
  assert_true(redis_ms < INT64_C(9999999999999));
}

enum { MANY = 20000 };
static void many_claims(void **state) {
  (void)state;
  plain_genesis();
  livenps_claim *claims = livenps_alloc(MANY * sizeof *claims);
  const char **fields = livenps_alloc(MANY * sizeof *fields);
  livenps_position *positions = livenps_alloc(MANY * sizeof *positions);
  for (int i = 0; i < MANY; i++) {
    char name[32];
    fields[i] = livenps_copy(name, (size_t)snprintf(name, sizeof name, "many/%d", i));
    claims[i] = CLAIM(fields[i], -1, i);
  }
  assert_int_equal(commit(LINEAGE, ADMIT, 1000, claims, MANY, "d", 1), 0);
  assert_int_equal(answer, LIVENPS_COMMIT_OK);
  bool empty = true;
  char lineage[33], admit[65];
  assert_int_equal(
      livenps_script_adopt(redis, &keys, fields, MANY, &empty, lineage, admit, positions, &redis_ms, &error),
      0);
  assert_false(empty);
  for (int i = 0; i < MANY; i++) {
    assert_int_equal(positions[i].next, i);
    claims[i] = CLAIM(fields[i], i, i + 1);
  }
  char before[65], after[65];
  picture(before);
  claims[MANY - 1].stored.next++;
  assert_int_equal(commit(LINEAGE, ADMIT, 1000, claims, MANY, "d", 1), 0);
  assert_int_equal(answer, LIVENPS_COMMIT_CONFLICT);
  picture(after);
  assert_string_equal(before, after);
  for (int i = 0; i < MANY; i++) {
    free((void *)(uintptr_t)fields[i]);
  }
  free(claims);
  free(fields);
  free(positions);
}

static void adopt_reads_what_is_stored(void **state) {
  (void)state;
  bool empty = false;
  char lineage[33], admit[65];
  livenps_position positions[3];
  const char *fields[] = {"a/0", "nowhere/0", "a/1"};
  run("FLUSHALL");
  assert_int_equal(
      livenps_script_adopt(redis, &keys, fields, 3, &empty, lineage, admit, positions, &redis_ms, &error), 0);
  assert_true(empty);
  plain_genesis();
  run("HSET nps:{t}:positions a/0 10^3^9:-1:0badcafe^2:1763720100023:1c291ca3");
  assert_int_equal(
      livenps_script_adopt(redis, &keys, fields, 3, &empty, lineage, admit, positions, &redis_ms, &error), 0);
  assert_false(empty);
  assert_string_equal(lineage, LINEAGE);
  assert_string_equal(admit, ADMIT);
  const livenps_position known = {10, 3, {true, 0x0badcafe, 9, -1}, {true, 0x1c291ca3, 2, 1763720100023}};
  assert_int_equal(positions[0].next, 10);
  assert_int_equal(positions[0].incarnation, 3);
  assert_true(livenps_anchor_same(&positions[0].anchor, &known.anchor));
  assert_true(livenps_anchor_same(&positions[0].root, &known.root));
  assert_int_equal(positions[1].next, -1);
  assert_true(positions[2].next == INT64_C(9007199254740993));
  assert_false(positions[2].anchor.there || positions[2].root.there);
  assert_int_equal(
      livenps_script_adopt(redis, &keys, NULL, 0, &empty, lineage, admit, NULL, &redis_ms, &error), 0);
  run("HSET nps:{t}:positions a/0 rubbish");
  assert_int_equal(
      livenps_script_adopt(redis, &keys, fields, 3, &empty, lineage, admit, positions, &redis_ms, &error),
      -1);
  fails_with(LIVENPS_E_DATA, "a/0");
  run("HSET nps:{t}:meta version 9");
  assert_int_equal(
      livenps_script_adopt(redis, &keys, fields, 3, &empty, lineage, admit, positions, &redis_ms, &error),
      -1);
  fails_with(LIVENPS_E_REFUSED, "format version 9");
  run("DEL nps:{t}:meta");
  run("SET nps:{t}:meta x");
  assert_int_equal(
      livenps_script_adopt(redis, &keys, fields, 3, &empty, lineage, admit, positions, &redis_ms, &error),
      -1);
  fails_with(LIVENPS_E_REFUSED, "WRONGTYPE");
}

/* ---- the aggregator's scripts ------------------------------------------------------------------------------------- */

static livenps_holder holder;
static livenps_fence fence;
static const livenps_fence nothing_yet = (livenps_fence)99;

static void hold(void) {
  bool held = false, taken = false;
  holder = (livenps_holder){.token = "token-a", .lease_ms = 60000};
  assert_int_equal(livenps_script_lease(redis, &keys, &holder, &held, &taken, &error), 0);
  assert_true(held);
  assert_true(taken);
}

static void chunk_is_stored(const char *key, const char *bytes) {
  livenps_reply_free(command("SET %s %s PX 60000", key, bytes));
}

static char name_a[] = "head", key_a[] = "nps:{t}:snapshot:1:head";
static char name_b[] = "5m.1", key_b[] = "nps:{t}:snapshot:1:5m.1";
static livenps_chunk chunks[] = {{name_a, key_a, 5}, {name_b, key_b, 3}};

static int genesis(const char *seen, int64_t *number_out) {
  const livenps_claim positions[] = {CLAIM("a/0", 0, 10), CLAIM("a/1", 0, 20)};
  char name[] = "note", value[] = "kept", clash[] = "lineage", no[] = "never";
  const livenps_pair extra[] = {{name, value}, {clash, no}};
  livenps_buffer payload = {0};
  livenps_buffer_add(&payload, "first", 5);
  memcpy(holder.lineage, LINEAGE, sizeof LINEAGE);
  fence = nothing_yet;
  int result = livenps_script_genesis(redis, &keys, &holder,
                                      &(livenps_birth){.seen = seen,
                                                       .admit = ADMIT,
                                                       .snapshot_id = "1",
                                                       .chunks = chunks,
                                                       .chunk_count = 2,
                                                       .positions = positions,
                                                       .position_count = 2,
                                                       .extra = extra,
                                                       .extra_count = 2,
                                                       .payload = &payload},
                                      &fence, number_out, &redis_ms, &error);
  livenps_buffer_free(&payload);
  return result;
}

static int64_t born(void) {
  int64_t count = 0;
  run("FLUSHALL");
  hold();
  chunk_is_stored(key_a, "12345");
  chunk_is_stored(key_b, "123");
  if (genesis("", &count) != 0 || fence != LIVENPS_FENCE_OK) {
    fail_msg("genesis: %d %s", fence, error.text);
  }
  return count;
}

static void commit_one(const char *payload) {
  int64_t stored = next_of("a/0");
  livenps_claim claim = CLAIM("a/0", stored, stored + 1);
  assert_int_equal(commit(LINEAGE, ADMIT, 100000, &claim, 1, payload, strlen(payload)), 0);
  assert_int_equal(answer, LIVENPS_COMMIT_OK);
}

static void the_lease_has_one_holder(void **state) {
  (void)state;
  bool held, taken;
  livenps_holder other = {.token = "token-b", .lease_ms = 60000};
  run("FLUSHALL");
  hold();
  assert_int_equal(livenps_script_lease(redis, &keys, &other, &held, &taken, &error), 0);
  assert_false(held);
  assert_int_equal(livenps_script_lease(redis, &keys, &holder, &held, &taken, &error), 0);
  assert_true(held);
  assert_false(taken);
  assert_int_equal(livenps_script_release(redis, &keys, &other, &error),
                   0); /* not its own: nothing happens */
  assert_int_equal(number("EXISTS nps:{t}:lease"), 1);
  /* Lapsed, but nobody took it: what the holder knows still holds. */
  run("DEL nps:{t}:lease");
  assert_int_equal(livenps_script_lease(redis, &keys, &holder, &held, &taken, &error), 0);
  assert_true(held);
  assert_false(taken);
  /* Somebody held it in between. */
  run("DEL nps:{t}:lease");
  assert_int_equal(livenps_script_lease(redis, &keys, &other, &held, &taken, &error), 0);
  assert_true(held);
  assert_true(taken);
  assert_int_equal(livenps_script_release(redis, &keys, &other, &error), 0);
  assert_int_equal(number("EXISTS nps:{t}:lease"), 0);
  assert_int_equal(livenps_script_lease(redis, &keys, &holder, &held, &taken, &error), 0);
  assert_true(held);
  assert_true(taken);
}

static void genesis_installs_everything(void **state) {
  (void)state;
  int64_t count = born();
  assert_int_equal(count, 1);
  /* An extra field never replaces one of ours. */
  assert_string_equal(text("HGET nps:{t}:meta lineage"), LINEAGE);
  assert_string_equal(text("HGET nps:{t}:meta note"), "kept");
  assert_string_equal(text("HGET nps:{t}:meta head"), holder.covered.id);
  assert_string_equal(text("HGET nps:{t}:snapshot entry"), holder.covered.id);
  assert_string_equal(text("HGET nps:{t}:snapshot chunks"),
                      "head nps:{t}:snapshot:1:head 5\n5m.1 nps:{t}:snapshot:1:5m.1 3\n");
  assert_int_equal(next_of("a/1"), 20);
  assert_int_equal(number("PTTL nps:{t}:snapshot:1:head"), -1);
  assert_int_equal(number("HGET nps:{t}:meta trimmed"), number("HGET nps:{t}:meta bytes"));
  commit_one("x");

  /* Again, over what is there: the number rises, nothing of before stays. */
  chunk_is_stored("nps:{t}:snapshot:0:old", "x");
  run("HSET nps:{t}:snapshot chunks old_nps:{t}:snapshot:0:old_1");
  run("HSET nps:{t}:positions gone/7 3");
  run("HSET nps:{t}:meta leftover 1");
  assert_int_equal(genesis(LINEAGE, &count), 0);
  assert_int_equal(fence, LIVENPS_FENCE_OK);
  assert_int_equal(count, 2);
  assert_int_equal(number("HEXISTS nps:{t}:positions gone/7"), 0);
  assert_int_equal(number("HEXISTS nps:{t}:meta leftover"), 0);
  assert_int_equal(number("XLEN nps:{t}:log"), 1);
}

static void genesis_refusals_change_nothing(void **state) {
  (void)state;
  char before[65], after[65];
  int64_t count = 0;
  born();
  commit_one("x");
  picture(before);
  assert_int_equal(genesis("", &count), 0); /* somebody was faster */
  assert_int_equal(fence, LIVENPS_FENCE_LINEAGE);
  assert_int_equal(genesis("ffffffffffffffffffffffffffffffff", &count), 0);
  assert_int_equal(fence, LIVENPS_FENCE_LINEAGE);
  memcpy(holder.token, "token-z", 8);
  assert_int_equal(genesis(LINEAGE, &count), 0);
  assert_int_equal(fence, LIVENPS_FENCE_LEASE);
  memcpy(holder.token, "token-a", 8);
  chunks[1].size = 4;
  assert_int_equal(genesis(LINEAGE, &count), 0);
  assert_int_equal(fence, LIVENPS_FENCE_CHUNK);
  chunks[1].size = 3;
  picture(after);
  assert_string_equal(before, after);
  run("DEL nps:{t}:snapshot:1:head");
  picture(before);
  assert_int_equal(genesis(LINEAGE, &count), 0);
  assert_int_equal(fence, LIVENPS_FENCE_CHUNK);
  picture(after);
  assert_string_equal(before, after);
  run("FLUSHALL"); /* the flush takes the token, too */
  assert_int_equal(genesis(LINEAGE, &count), 0);
  assert_int_equal(fence, LIVENPS_FENCE_LEASE);
  hold();
  assert_int_equal(genesis(LINEAGE, &count), 0);
  assert_int_equal(fence, LIVENPS_FENCE_LINEAGE);
}

static void genesis_with_many_partitions(void **state) {
  (void)state;
  int64_t count = 0;
  born();
  livenps_claim *positions = livenps_alloc(MANY * sizeof *positions);
  for (int i = 0; i < MANY; i++) {
    char name[32];
    positions[i] = CLAIM(livenps_copy(name, (size_t)snprintf(name, sizeof name, "many/%d", i)), 0, i);
  }
  livenps_buffer payload = {0};
  assert_int_equal(livenps_script_genesis(redis, &keys, &holder,
                                          &(livenps_birth){.seen = LINEAGE,
                                                           .admit = ADMIT,
                                                           .snapshot_id = "1",
                                                           .positions = positions,
                                                           .position_count = MANY,
                                                           .payload = &payload},
                                          &fence, &count, &redis_ms, &error),
                   0);
  assert_int_equal(fence, LIVENPS_FENCE_OK);
  assert_int_equal(number("HLEN nps:{t}:positions"), MANY);
  assert_int_equal(next_of("many/19999"), 19999);
  assert_int_equal(number("EXISTS nps:{t}:snapshot:1:head"), 0); /* no longer listed */
  for (int i = 0; i < MANY; i++) {
    free((void *)(uintptr_t)positions[i].field);
  }
  free(positions);
}

static void look_tells_what_stands(void **state) {
  (void)state;
  livenps_stored stored = {0};
  run("FLUSHALL");
  assert_int_equal(livenps_script_look(redis, &keys, &stored, &error), 0);
  assert_false(stored.present);
  assert_string_equal(stored.lineage, "");
  free(stored.chunks);
  born();
  commit_one("x");
  assert_int_equal(livenps_script_look(redis, &keys, &stored, &error), 0);
  assert_true(stored.present);
  assert_true(stored.covered_exists);
  assert_int_equal(stored.version, LIVENPS_FORMAT_VERSION);
  assert_int_equal(stored.genesis, 1);
  assert_string_equal(stored.lineage, LINEAGE);
  assert_string_equal(stored.admit, ADMIT);
  assert_string_equal(stored.covered.id, holder.covered.id);
  assert_string_equal(stored.covered.nonce, holder.covered.nonce);
  assert_string_equal(stored.head.id, entry.id);
  free(stored.chunks);
  /* The id alone is not enough. */
  run("HSET nps:{t}:snapshot nonce other");
  assert_int_equal(livenps_script_look(redis, &keys, &stored, &error), 0);
  assert_false(stored.covered_exists);
  free(stored.chunks);
  /* A pointer of another lineage is none. */
  run("HSET nps:{t}:snapshot lineage other");
  assert_int_equal(livenps_script_look(redis, &keys, &stored, &error), 0);
  assert_string_equal(stored.covered.id, "");
  free(stored.chunks);
  /* Without a log the lineage is told, for the genesis that replaces it. */
  run("DEL nps:{t}:log");
  assert_int_equal(livenps_script_look(redis, &keys, &stored, &error), 0);
  assert_false(stored.present);
  assert_string_equal(stored.lineage, LINEAGE);
  free(stored.chunks);
}

static void read_gives_what_is_new(void **state) {
  (void)state;
  livenps_reading reading = {0};
  born();
  char payload[2000];
  for (int i = 0; i < 40; i++) {
    memset(payload, 'a' + i % 26, sizeof payload - 1);
    payload[sizeof payload - 1] = 0;
    commit_one(payload);
  }
  livenps_entry_id last = holder.covered;
  int total = 0, calls = 0;
  for (;; calls++) {
    assert_int_equal(livenps_script_read(redis, &keys, &holder, last.id, 20000, &reading, &error), 0);
    assert_int_equal(reading.fence, LIVENPS_FENCE_OK);
    assert_true(reading.count <= 16); /* bounded by bytes, about */
    for (size_t i = 0; i < reading.count; i++) {
      assert_string_equal(reading.at[i].before.id, last.id);
      assert_string_equal(reading.at[i].before.nonce, last.nonce);
      assert_int_equal(reading.at[i].payload.length, sizeof payload - 1);
      assert_int_equal(reading.at[i].payload.at[0], 'a' + total % 26);
      assert_int_equal(reading.at[i].ms, strtoll(reading.at[i].id.id, NULL, 10));
      last = reading.at[i].id;
      total++;
    }
    bool end = reading.count == 0;
    assert_true(reading.redis_ms > 0);
    assert_string_equal(reading.head.id, entry.id);
    livenps_reading_free(&reading);
    if (end) {
      break;
    }
  }
  assert_int_equal(total, 40);
  assert_true(calls >= 3);

  char other[33] = "other";
  livenps_holder changed = holder;
  memcpy(changed.lineage, other, sizeof other);
  assert_int_equal(livenps_script_read(redis, &keys, &changed, last.id, 1000, &reading, &error), 0);
  assert_int_equal(reading.fence, LIVENPS_FENCE_LINEAGE);
  livenps_reading_free(&reading);
  changed = holder;
  memcpy(changed.token, "token-z", 8);
  assert_int_equal(livenps_script_read(redis, &keys, &changed, last.id, 1000, &reading, &error), 0);
  assert_int_equal(reading.fence, LIVENPS_FENCE_LEASE);
  livenps_reading_free(&reading);
  run("XADD nps:{t}:log * x y");
  assert_int_equal(livenps_script_read(redis, &keys, &holder, last.id, 1000, &reading, &error), -1);
  fails_with(LIVENPS_E_DATA, "another program wrote it");
  run("DEL nps:{t}:log");
  assert_int_equal(livenps_script_read(redis, &keys, &holder, last.id, 1000, &reading, &error), 0);
  assert_int_equal(reading.fence, LIVENPS_FENCE_GONE);
  livenps_reading_free(&reading);
}

static char stored_id[64];

static int publish(const char *before, const char *id, const char *field) {
  livenps_ops ops = {0};
  livenps_ops_command(&ops, "HSET", "nps:{t}:view", field, "1", NULL);
  livenps_ops_command(&ops, "SADD", "nps:{t}:set", field, NULL);
  fence = nothing_yet;
  int result = livenps_script_publish(redis, &keys, &holder, before, id, &ops, &fence, stored_id, &error);
  livenps_ops_free(&ops);
  return result;
}

static void publish_is_fenced(void **state) {
  (void)state;
  char before[65], after[65];
  born();
  assert_int_equal(publish("", "p-1", "one"), 0);
  assert_int_equal(fence, LIVENPS_FENCE_OK);
  assert_int_equal(number("HGET nps:{t}:view one"), 1);
  assert_int_equal(number("SISMEMBER nps:{t}:set one"), 1);
  assert_string_equal(text("HGET nps:{t}:meta publish"), "p-1");
  picture(before);

  assert_int_equal(publish("", "p-2", "two"), 0); /* a late one: what it believes is old */
  assert_int_equal(fence, LIVENPS_FENCE_REPUBLISH);
  assert_string_equal(stored_id, "p-1");
  livenps_holder right = holder;
  memcpy(holder.token, "token-z", 8);
  assert_int_equal(publish("p-1", "p-2", "two"), 0);
  assert_int_equal(fence, LIVENPS_FENCE_LEASE);
  holder = right;
  holder.lineage[0] = 'f';
  assert_int_equal(publish("p-1", "p-2", "two"), 0);
  assert_int_equal(fence, LIVENPS_FENCE_LINEAGE);
  holder = right;
  holder.covered.nonce[0] = 'x'; /* the same id, another entry */
  assert_int_equal(publish("p-1", "p-2", "two"), 0);
  assert_int_equal(fence, LIVENPS_FENCE_GONE);
  holder = right;
  memcpy(holder.covered.id, "1-1", 4);
  assert_int_equal(publish("p-1", "p-2", "two"), 0);
  assert_int_equal(fence, LIVENPS_FENCE_GONE);
  holder = right;
  picture(after);
  assert_string_equal(before, after);

  /* Views are ours: a key of another type gives way. */
  run("DEL nps:{t}:view nps:{t}:set");
  run("SET nps:{t}:view x");
  run("SET nps:{t}:set x");
  assert_int_equal(publish("p-1", "p-2", "two"), 0);
  assert_int_equal(fence, LIVENPS_FENCE_OK);
  assert_int_equal(number("HGET nps:{t}:view two"), 1);
  assert_int_equal(number("SISMEMBER nps:{t}:set two"), 1);
  /* An entry at or below a stream's last id is left out, the rest is done. */
  for (int i = 0; i < 2; i++) {
    livenps_ops ops = {0};
    livenps_ops_command(&ops, "XADD", "nps:{t}:trend", "7-0", "n", "1", NULL);
    livenps_ops_command(&ops, "HSET", "nps:{t}:view", "three", i ? "2" : "1", NULL);
    assert_int_equal(livenps_script_publish(redis, &keys, &holder, i ? "p-3" : "p-2", i ? "p-4" : "p-3", &ops,
                                            &fence, stored_id, &error),
                     0);
    assert_int_equal(fence, LIVENPS_FENCE_OK);
    livenps_ops_free(&ops);
  }
  assert_int_equal(number("XLEN nps:{t}:trend"), 1);
  assert_int_equal(number("HGET nps:{t}:view three"), 2);
  run("FLUSHALL");
  assert_int_equal(publish("p-4", "p-5", "two"), 0);
  assert_int_equal(fence, LIVENPS_FENCE_LEASE);
  assert_int_equal(number("DBSIZE"), 0);
}

static int flip(const livenps_entry_id *covers, const livenps_chunk *list, size_t count) {
  fence = nothing_yet;
  return livenps_script_flip(redis, &keys, &holder, covers, "2", list, count, &fence, &error);
}

static void flip_trims_behind_the_snapshot(void **state) {
  (void)state;
  born();
  commit_one("one");
  commit_one("two22");
  livenps_entry_id covers = entry, first = holder.covered;
  commit_one("three");
  char key_c[] = "nps:{t}:snapshot:2:head";
  chunk_is_stored(key_c, "1234567");
  livenps_chunk list[] = {{name_a, key_c, 7}, chunks[1]};
  assert_int_equal(flip(&covers, list, 2), 0);
  assert_int_equal(fence, LIVENPS_FENCE_OK);
  assert_string_equal(holder.covered.id, covers.id);
  assert_int_equal(number("XLEN nps:{t}:log"), 2); /* the covered one and the one after it */
  livenps_reply *reply = command("XRANGE nps:{t}:log %s %s", covers.id, covers.id);
  assert_int_equal(livenps_reply_count(reply), 1);
  livenps_reply_free(reply);
  assert_int_equal(number("HGET nps:{t}:meta bytes") - number("HGET nps:{t}:meta trimmed"), 5);
  assert_int_equal(number("EXISTS nps:{t}:snapshot:1:head"), 0); /* replaced */
  assert_int_equal(number("PTTL nps:{t}:snapshot:1:5m.1"), -1);  /* kept */
  assert_int_equal(number("PTTL nps:{t}:snapshot:2:head"), -1);
  assert_string_equal(text("HGET nps:{t}:snapshot id"), "2");

  /* Never backwards, even where the entry were still there. */
  char before[65], after[65];
  picture(before);
  assert_int_equal(flip(&first, list, 2), 0);
  assert_int_equal(fence, LIVENPS_FENCE_GONE);
  picture(after);
  assert_string_equal(before, after);
}

static void flip_refusals_change_nothing(void **state) {
  (void)state;
  char before[65], after[65];
  born();
  livenps_entry_id first = holder.covered;
  commit_one("one");
  livenps_entry_id covers = entry;
  commit_one("two");
  livenps_holder right = holder;
  picture(before);
  memcpy(holder.token, "token-z", 8);
  assert_int_equal(flip(&covers, chunks, 2), 0);
  assert_int_equal(fence, LIVENPS_FENCE_LEASE);
  holder = right;
  holder.lineage[0] = 'f';
  assert_int_equal(flip(&covers, chunks, 2), 0);
  assert_int_equal(fence, LIVENPS_FENCE_LINEAGE);
  holder = right;
  livenps_entry_id wrong = covers;
  wrong.nonce[0] = 'x';
  assert_int_equal(flip(&wrong, chunks, 2), 0);
  assert_int_equal(fence, LIVENPS_FENCE_GONE);
  chunks[0].size = 6;
  assert_int_equal(flip(&covers, chunks, 2), 0);
  assert_int_equal(fence, LIVENPS_FENCE_CHUNK);
  chunks[0].size = 5;
  picture(after);
  assert_string_equal(before, after);
  assert_string_equal(holder.covered.id, first.id);

  /* A pointer that is further already. */
  livenps_reply_free(command("HSET nps:{t}:snapshot entry 99999999999999-0"));
  picture(before);
  assert_int_equal(flip(&covers, chunks, 2), 0);
  assert_int_equal(fence, LIVENPS_FENCE_BACKWARDS);
  run("DEL nps:{t}:snapshot:1:5m.1");
  livenps_reply_free(command("HSET nps:{t}:snapshot entry %s", first.id));
  picture(before);
  assert_int_equal(flip(&covers, chunks, 2), 0);
  assert_int_equal(fence, LIVENPS_FENCE_CHUNK);
  picture(after);
  assert_string_equal(before, after);
}

/* When memory is out commits wait, but the holder goes on, so that the log is trimmed and they need not wait for ever. */
static void the_holder_goes_on_without_memory(void **state) {
  (void)state;
  livenps_reading reading = {0};
  bool held, taken;
  born();
  commit_one("one");
  run("CONFIG SET maxmemory 1");
  livenps_claim claim = CLAIM("a/0", 11, 12);
  assert_int_equal(commit(LINEAGE, ADMIT, 100000, &claim, 1, "d", 1), -1);
  fails_with(LIVENPS_E_LOST, "OOM");
  assert_int_equal(livenps_script_lease(redis, &keys, &holder, &held, &taken, &error), 0);
  assert_true(held);
  assert_int_equal(livenps_script_read(redis, &keys, &holder, holder.covered.id, 1000, &reading, &error), 0);
  assert_int_equal(reading.count, 1);
  livenps_entry_id covers = reading.at[0].id;
  livenps_reading_free(&reading);
  char key_c[] = "nps:{t}:snapshot:2:head";
  livenps_text bytes = {"1\0002", 3};
  assert_int_equal(livenps_script_chunk(redis, &keys, &holder, key_c, bytes, &fence, &error), 0);
  assert_int_equal(fence, LIVENPS_FENCE_OK);
  livenps_chunk list[] = {{name_a, key_c, 3}};
  assert_int_equal(flip(&covers, list, 1), 0);
  assert_int_equal(fence, LIVENPS_FENCE_OK);
  assert_int_equal(publish("", "p-1", "one"), 0);
  assert_int_equal(fence, LIVENPS_FENCE_OK);
  run("CONFIG SET maxmemory 0");
  assert_int_equal(number("XLEN nps:{t}:log"), 1);
  assert_int_equal(number("EXISTS nps:{t}:snapshot:1:head"), 0);
  /* Not to others. */
  memcpy(holder.token, "token-z", 8);
  assert_int_equal(livenps_script_chunk(redis, &keys, &holder, "nps:{t}:x", bytes, &fence, &error), 0);
  assert_int_equal(fence, LIVENPS_FENCE_LEASE);
  assert_int_equal(number("EXISTS nps:{t}:x"), 0);
}

static void positions_and_log_are_read_without_a_trace(void **state) {
  (void)state;
  char before[65], after[65];
  livenps_positions standing;
  livenps_reading reading;
  run("FLUSHALL");
  picture(before);
  assert_int_equal(livenps_script_positions(redis, &keys, &standing, &error), 0);
  assert_int_equal(standing.count, 0);
  assert_string_equal(standing.lineage, "");
  livenps_positions_free(&standing);
  picture(after);
  assert_string_equal(before, after);

  born();
  livenps_entry_id first = holder.covered;
  commit_one("one");
  livenps_entry_id second = entry;
  commit_one("two");
  picture(before);
  assert_int_equal(livenps_script_positions(redis, &keys, &standing, &error), 0);
  assert_string_equal(standing.lineage, LINEAGE);
  assert_string_equal(standing.head.id, entry.id);
  assert_string_equal(standing.head.nonce, entry.nonce);
  assert_true(standing.redis_ms > INT64_C(1500000000000));
  assert_int_equal(standing.count, number("HLEN nps:{t}:positions"));
  for (size_t i = 0; i < standing.count; i++) {
    char field[64];
    snprintf(field, sizeof field, "%.*s", (int)standing.at[i].field.length, standing.at[i].field.at);
    assert_true(standing.at[i].position.next == next_of(field));
  }
  livenps_positions_free(&standing);
  /* From behind `last` up to the head that was told, however the log goes on. */
  assert_int_equal(livenps_log_read(redis, &keys, first.id, second.id, 10, &reading, &error), 0);
  assert_int_equal(reading.count, 1);
  assert_string_equal(reading.at[0].id.id, second.id);
  assert_string_equal(reading.at[0].id.nonce, second.nonce);
  assert_string_equal(reading.at[0].before.id, first.id);
  assert_true(livenps_text_equal(reading.at[0].payload, livenps_text_of("one")));
  livenps_reading_free(&reading);
  assert_int_equal(livenps_log_read(redis, &keys, first.id, entry.id, 1, &reading, &error), 0);
  assert_int_equal(reading.count, 1); /* no more than asked for */
  livenps_reading_free(&reading);
  assert_int_equal(livenps_log_read(redis, &keys, entry.id, entry.id, 1, &reading, &error), 0);
  assert_int_equal(reading.count, 0);
  livenps_reading_free(&reading);
  picture(after);
  assert_string_equal(before, after);

  run("XADD nps:{t}:log * l " LINEAGE " n x p 1-1 d y"); /* no q */
  assert_int_equal(livenps_log_read(redis, &keys, entry.id, "+", 1, &reading, &error), -1);
  fails_with(LIVENPS_E_DATA, "lacks fields");
  run("HSET nps:{t}:positions a/0 ten");
  assert_int_equal(livenps_script_positions(redis, &keys, &standing, &error), -1);
  fails_with(LIVENPS_E_DATA, "the position of a/0");
}

/* ---- replies that no script of ours gives --------------------------------------------------------------------------- */

/* What the calls are made with; nothing of it is looked at by a server. */
static redis_relay relay;
static livenps_redis *through; /* the relay */
static livenps_stored stored;
static livenps_reading read_back;
static livenps_positions standing;

static int call_commit(void) {
  livenps_claim claim = CLAIM("a/0", 10, 11);
  livenps_buffer payload = {0};
  return livenps_script_commit(through, &keys, LINEAGE, ADMIT, 1000, &claim, 1, &payload, &answer, &redis_ms,
                               &entry, detail, &error);
}

static int call_adopt(void) {
  const char *fields[] = {"a/0"};
  char lineage[33], admit[65];
  livenps_position position;
  bool empty;
  return livenps_script_adopt(through, &keys, fields, 1, &empty, lineage, admit, &position, &redis_ms,
                              &error);
}

static int call_look(void) {
  int result = livenps_script_look(through, &keys, &stored, &error);
  if (result == 0)
    free(stored.chunks);
  return result;
}

static int call_genesis(void) {
  livenps_buffer payload = {0};
  int64_t genesis;
  const livenps_birth birth = {.seen = "", .admit = ADMIT, .snapshot_id = "1", .payload = &payload};
  return livenps_script_genesis(through, &keys, &holder, &birth, &fence, &genesis, &redis_ms, &error);
}

static int call_read(void) {
  int result = livenps_script_read(through, &keys, &holder, "0-0", 1000, &read_back, &error);
  if (result == 0) {
    result = read_back.fence == LIVENPS_FENCE_OK && read_back.count == 1 ? 0 : 1;
    livenps_reading_free(&read_back);
  }
  return result;
}

static int call_log_read(void) {
  int result = livenps_log_read(through, &keys, "0-0", "+", 10, &read_back, &error);
  if (result == 0) {
    result = read_back.count == 1 ? 0 : 1;
    livenps_reading_free(&read_back);
  }
  return result;
}

static int call_positions(void) {
  int result = livenps_script_positions(through, &keys, &standing, &error);
  if (result == 0) {
    result = standing.count == 1 ? 0 : 1;
    livenps_positions_free(&standing);
  }
  return result;
}

static int call_publish(void) {
  livenps_ops ops = {0};
  return livenps_script_publish(through, &keys, &holder, "", "p", &ops, &fence, stored_id, &error);
}

static int call_chunk(void) {
  return livenps_script_chunk(through, &keys, &holder, "nps:{t}:c", (livenps_text){"x", 1}, &fence, &error);
}

static int call_flip(void) {
  const livenps_entry_id covers = {"5-1", "first"};
  return livenps_script_flip(through, &keys, &holder, &covers, "1", NULL, 0, &fence, &error);
}

static int call_lease(void) {
  bool held, taken;
  return livenps_script_lease(through, &keys, &holder, &held, &taken, &error);
}

static int call_release(void) {
  return livenps_script_release(through, &keys, &holder, &error);
}

/* A reply in short: a word is a string, #1 an integer, ( and ) stand around an array. Words from `skip` on are left out, the word
 * at `odd` becomes an empty array. Returns how many words there are. */
static int spell(const char *shape, int odd, int skip, livenps_buffer *out) {
  char copy[1024], *save = NULL, *words[64];
  int count = 0;
  snprintf(copy, sizeof copy, "%s", shape);
  for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
    words[count++] = word;
  out->length = 0;
  for (int i = 0; i < count; i++) {
    if (*words[i] == '(') {
      int depth = 0, items = 0;
      for (int j = i + 1; j < count && (depth > 0 || *words[j] != ')'); j++) {
        items += depth == 0 && !(i == 0 && skip && j >= skip);
        depth += *words[j] == '(' ? 1 : *words[j] == ')' ? -1 : 0;
      }
      livenps_buffer_print(out, "*%d\r\n", items);
    } else if (skip && i >= skip) {
      break;
    } else if (i == odd) {
      livenps_buffer_print(out, "*0\r\n");
    } else if (*words[i] == '#') {
      livenps_buffer_print(out, ":%s\r\n", words[i] + 1);
    } else if (*words[i] != ')') {
      const char *text = *words[i] == '~' ? "" : words[i];
      livenps_buffer_print(out, "$%zu\r\n%s\r\n", strlen(text), text);
    }
  }
  return count;
}

#define LOGGED "( 5-1 ( l " LINEAGE " n first p 0-0 q - b 0 d x ) )"

static const struct {
  const char *name;
  int (*call)(void);
  const char *shape; /* ^ is a space inside a word */
} shapes[] = {
    {"commit", call_commit, "( OK #1700000000000 5-1 )"},
    {"adopt", call_adopt, "( OK #1700000000000 2 " LINEAGE " " ADMIT " 10^1 )"},
    {"look", call_look, "( #1700000000000 #1 2 " LINEAGE " 1 " ADMIT " p-1 5-1 first 5-1 first #1 ~ )"},
    {"genesis", call_genesis, "( OK #1700000000000 5-1 1 )"},
    {"read", call_read, "( OK #1700000000000 5-1 first 9 1 p-1 ( " LOGGED " ) )"},
    {"log read", call_log_read, "( " LOGGED " )"},
    {"positions", call_positions, "( #1700000000000 " LINEAGE " 5-1 first ( a/0 10^1 ) )"},
    {"publish", call_publish, "( OK )"},
    {"chunk", call_chunk, "( OK )"},
    {"snapshot", call_flip, "( OK )"},
};

/* Everything in a reply counts: with any part missing or of another type the call fails, and says so; whole it is taken. */
static void odd_replies_are_refused(void **state) {
  (void)state;
  livenps_buffer reply = {0};
  assert_int_equal(livenps_redis_connect(through, &error), 0);
  for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
    char shape[1024];
    snprintf(shape, sizeof shape, "%s", shapes[s].shape);
    int words = spell(shape, -1, 0, &reply);
    for (char *at = reply.at; (at = strchr(at, '^'));)
      *at = ' ';
    redis_relay_spoil(&relay, RELAY_ANSWER, 1, reply.at);
    if (shapes[s].call() != 0)
      fail_msg("%s: %s", shapes[s].name, error.text);
    for (int skip = 0; skip < 2; skip++) {
      for (int i = 1; i + 1 < words; i++) {
        char *word = shape;
        for (int j = 0; j < i; j++)
          word = strchr(word, ' ') + 1;
        /* "b" of an entry is for people, so are the names beside the fields; a field of positions is only named in errors. */
        if (*word == '(' || *word == ')' || (!skip && strncmp(word, "b 0", 3) == 0) ||
            (!skip && strncmp(word, "0 d", 3) == 0) || (!skip && strncmp(word, "a/0", 3) == 0))
          continue;
        /* Left out are the words up to the end, where they stand in no array of their own. */
        if (skip && strchr(shape + 1, '(') && strchr(shape + 1, '(') < word)
          continue;
        spell(shape, skip ? -1 : i, skip ? i : 0, &reply);
        for (char *at = reply.at; (at = strchr(at, '^'));)
          *at = ' ';
        redis_relay_spoil(&relay, RELAY_ANSWER, 1, reply.at);
        int result = shapes[s].call();
        if (result != -1 || (error.code != LIVENPS_E_DATA && error.code != LIVENPS_E_REFUSED))
          fail_msg("%s: word %d %s was taken (%d, error %d)", shapes[s].name, i, skip ? "missing" : "odd",
                   result, error.code);
        livenps_error_clear(&error);
      }
    }
    /* No array at all, and a word that none says. */
    static const char *const others[] = {"$-1\r\n", ":5\r\n", "*1\r\n+HUH\r\n", "*0\r\n"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
      if (shapes[s].call == call_log_read)
        continue; /* a plain XRANGE: an empty answer is an empty log */
      redis_relay_spoil(&relay, RELAY_ANSWER, 1, others[i]);
      assert_int_equal(shapes[s].call(), -1);
      fails_with(LIVENPS_E_DATA, shapes[s].name);
    }
  }
  /* Longer than anything that is written: not cut, refused. */
  reply.length = 0;
  livenps_buffer_print(&reply, "*3\r\n+OK\r\n:1\r\n$500\r\n%0500d\r\n", 7);
  redis_relay_spoil(&relay, RELAY_ANSWER, 1, reply.at);
  assert_int_equal(call_commit(), -1);
  fails_with(LIVENPS_E_DATA, "commit");
  livenps_buffer_free(&reply);
  /* Whoever is not told that the lease is his has it not. */
  bool held = true, taken = true;
  redis_relay_spoil(&relay, RELAY_ANSWER, 1, "*1\r\n+HUH\r\n");
  assert_int_equal(livenps_script_lease(through, &keys, &holder, &held, &taken, &error), 0);
  assert_false(held || taken);
}

/* A connection that ends: LOST from every call, with nothing left behind that the caller would have to free. */
static void lost_connections_are_told(void **state) {
  (void)state;
  static int (*const calls[])(void) = {call_commit, call_adopt,    call_look,      call_genesis,
                                       call_read,   call_log_read, call_positions, call_publish,
                                       call_chunk,  call_flip,     call_lease,     call_release};
  born();
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
    for (int how = RELAY_BEFORE; how <= RELAY_AFTER; how++) {
      redis_relay_spoil(&relay, how, 0, NULL);
      assert_int_equal(livenps_redis_connect(through, &error), 0);
      redis_relay_spoil(&relay, how, 1, NULL);
      assert_int_equal(calls[i](), -1);
      fails_with(LIVENPS_E_LOST, "the server closed the connection");
      assert_int_equal(relay.spoilt, 1);
    }
  }
}

static int start(void **state) {
  (void)state;
  redis_server_start(&server, NULL);
  livenps_settings settings = redis_server_settings(&server);
  livenps_keys_make(&keys, "t");
  redis_relay_start(&relay, &server);
  livenps_settings relayed = settings;
  relayed.redis_url = relay.url;
  return livenps_redis_open(&redis, &settings, &error) || livenps_redis_open(&through, &relayed, &error);
}

static int stop(void **state) {
  (void)state;
  livenps_redis_close(redis);
  livenps_redis_close(through);
  redis_relay_stop(&relay);
  redis_server_stop(&server);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(commit_writes_all_three),
      cmocka_unit_test(commit_conflicts_change_nothing),
      cmocka_unit_test(commit_compares_the_whole_position),
      cmocka_unit_test(commit_refusals_change_nothing),
      cmocka_unit_test(commit_wrong_types_change_nothing),
      cmocka_unit_test(commit_refused_by_the_stream_changes_nothing),
      cmocka_unit_test(commit_out_of_memory_changes_nothing),
      cmocka_unit_test(commit_ids_rise_when_the_clock_goes_back),
      cmocka_unit_test(many_claims),
      cmocka_unit_test(adopt_reads_what_is_stored),
      cmocka_unit_test(the_lease_has_one_holder),
      cmocka_unit_test(genesis_installs_everything),
      cmocka_unit_test(genesis_refusals_change_nothing),
      cmocka_unit_test(genesis_with_many_partitions),
      cmocka_unit_test(look_tells_what_stands),
      cmocka_unit_test(read_gives_what_is_new),
      cmocka_unit_test(publish_is_fenced),
      cmocka_unit_test(flip_trims_behind_the_snapshot),
      cmocka_unit_test(flip_refusals_change_nothing),
      cmocka_unit_test(the_holder_goes_on_without_memory),
      cmocka_unit_test(positions_and_log_are_read_without_a_trace),
      cmocka_unit_test(odd_replies_are_refused),
      cmocka_unit_test(lost_connections_are_told),
  };
  return cmocka_run_group_tests(tests, start, stop);
}
