/* Every answer of every script, against a real redis-server; whatever is refused must change nothing (invariant I3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "consumer/scripts.h"
#include "tests/unit/redis_server.h"

#include <inttypes.h>

static redis_server server;
static livenps_redis *redis;
static livenps_keys keys;
static livenps_error error;

#define LINEAGE "0123456789abcdef0123456789abcdef"
#define ADMIT   "00000000000000000000000000000000000000000000000000000000000000aa"

static void fails_with(livenps_code code, const char *text) {
  if (error.code != code || !strstr(error.text, text)) {
    fail_msg("wanted error %d with '%s', got %d: %s", code, text, error.code, error.text);
  }
  livenps_error_clear(&error);
}

__attribute__((format(printf, 1, 2))) static livenps_reply *command(const char *line, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, line);
  vsnprintf(text, sizeof text, line, arguments);
  va_end(arguments);
  const char *argv[32];
  int argc = 0;
  for (char *save = NULL, *word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
    argv[argc++] = word;
  }
  livenps_reply *reply = livenps_redis_command(redis, &error, argc, argv, NULL);
  if (!reply) {
    fail_msg("%s: %s", line, error.text);
  }
  return reply;
}

static void run(const char *line) {
  livenps_reply_free(command("%s", line));
}

static int64_t number(const char *line) {
  livenps_reply *reply = command("%s", line);
  int64_t value = -999;
  assert_true(livenps_reply_integer(reply, &value));
  livenps_reply_free(reply);
  return value;
}

static void text(const char *line, char out[256]) {
  livenps_reply *reply = command("%s", line);
  livenps_text value;
  snprintf(out, 256, "(nil)");
  if (livenps_reply_text(reply, &value)) {
    snprintf(out, 256, "%.*s", (int)value.length, value.at);
  }
  livenps_reply_free(reply);
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

static void plain_genesis(void) {
  run("FLUSHALL");
  run("XADD nps:{t}:log 5-1 l " LINEAGE " n first p 0-0 q - b 0 d x");
  run("HSET nps:{t}:meta version 1 lineage " LINEAGE " genesis 1 admit " ADMIT
      " head 5-1 head_nonce first bytes 1 trimmed 1");
  run("HSET nps:{t}:positions a/0 10 a/1 9007199254740993");
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
  livenps_claim claims[] = {{"a/0", 10, 12}, {"a/1", 9007199254740993, 9007199254740993}, {"b/0", -1, 7}};
  char payload[] = "\0binary\r\n\xff%s", value[256];
  assert_int_equal(commit(LINEAGE, ADMIT, 1000, claims, 3, payload, sizeof payload), 0);
  assert_int_equal(answer, LIVENPS_COMMIT_OK);
  assert_true(redis_ms > INT64_C(1500000000000));
  assert_int_equal(strlen(entry.nonce), 32);
  text("HGET nps:{t}:positions a/0", value);
  assert_string_equal(value, "12");
  text("HGET nps:{t}:positions a/1", value);
  assert_string_equal(value, "9007199254740993");
  text("HGET nps:{t}:positions b/0", value);
  assert_string_equal(value, "7");
  text("HGET nps:{t}:meta head", value);
  assert_string_equal(value, entry.id);
  text("HGET nps:{t}:meta head_nonce", value);
  assert_string_equal(value, entry.nonce);
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
  livenps_claim next[] = {{"a/0", 12, 12}, {"a/1", 9007199254740993, 9007199254740993}, {"b/0", 7, 7}};
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
      {{"a/0", 10, 11}, {"a/1", 5, 6}},
      {{"a/0", 10, 11}, {"a/1", 9007199254740992, 9007199254740994}}, /* one apart beyond 2^53 */
      {{"a/0", 10, 11}, {"a/1", -1, 6}},
      {{"a/0", 10, 11}, {"new/3", 0, 6}}};
  plain_genesis();
  picture(before);
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    assert_int_equal(commit(LINEAGE, ADMIT, 1000, wrong[i], 2, "d", 1), 0);
    assert_int_equal(answer, LIVENPS_COMMIT_CONFLICT);
    assert_non_null(strstr(detail, wrong[i][1].field));
    picture(after);
    assert_string_equal(before, after);
  }
  assert_non_null(strstr(detail, "new/3: stored next offset -1, expected 0"));
}

static void commit_refusals_change_nothing(void **state) {
  (void)state;
  char before[65], after[65];
  livenps_claim claims[] = {{"a/0", 10, 11}};
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

  run("HSET nps:{t}:meta version 2");
  assert_int_equal(commit(LINEAGE, ADMIT, 1000, claims, 1, "d", 1), 0);
  assert_int_equal(answer, LIVENPS_COMMIT_CONFIG);
  assert_non_null(strstr(detail, "format version 2"));
  run("HSET nps:{t}:meta version 1");

  /* FULL counts what no snapshot covers; an empty log takes anything. */
  assert_int_equal(commit(LINEAGE, ADMIT, 4, claims, 1, "12345", 5), 0);
  assert_int_equal(answer, LIVENPS_COMMIT_OK);
  claims[0] = (livenps_claim){"a/0", 11, 12};
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
  livenps_claim claims[] = {{"a/0", 10, 11}};
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
  livenps_claim claims[] = {{"a/0", 10, 11}};
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
  livenps_claim claims[] = {{"a/0", 10, 11}};
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
  livenps_claim claims[] = {{"a/0", 10, 11}};
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
  int64_t *positions = livenps_alloc(MANY * sizeof *positions);
  for (int i = 0; i < MANY; i++) {
    char name[32];
    fields[i] = livenps_copy(name, (size_t)snprintf(name, sizeof name, "many/%d", i));
    claims[i] = (livenps_claim){fields[i], -1, i};
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
    assert_int_equal(positions[i], i);
    claims[i] = (livenps_claim){fields[i], i, i + 1};
  }
  char before[65], after[65];
  picture(before);
  claims[MANY - 1].expected++;
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
  int64_t positions[3];
  const char *fields[] = {"a/0", "nowhere/0", "a/1"};
  run("FLUSHALL");
  assert_int_equal(
      livenps_script_adopt(redis, &keys, fields, 3, &empty, lineage, admit, positions, &redis_ms, &error), 0);
  assert_true(empty);
  plain_genesis();
  run("HSET nps:{t}:positions a/0 10,later"); /* a later version may put more behind the number */
  assert_int_equal(
      livenps_script_adopt(redis, &keys, fields, 3, &empty, lineage, admit, positions, &redis_ms, &error), 0);
  assert_false(empty);
  assert_string_equal(lineage, LINEAGE);
  assert_string_equal(admit, ADMIT);
  assert_int_equal(positions[0], 10);
  assert_int_equal(positions[1], -1);
  assert_true(positions[2] == INT64_C(9007199254740993));
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

static int start(void **state) {
  (void)state;
  redis_server_start(&server, NULL);
  livenps_settings settings = redis_server_settings(&server);
  livenps_keys_make(&keys, "t");
  return livenps_redis_open(&redis, &settings, &error);
}

static int stop(void **state) {
  (void)state;
  livenps_redis_close(redis);
  redis_server_stop(&server);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(commit_writes_all_three),
      cmocka_unit_test(commit_conflicts_change_nothing),
      cmocka_unit_test(commit_refusals_change_nothing),
      cmocka_unit_test(commit_wrong_types_change_nothing),
      cmocka_unit_test(commit_refused_by_the_stream_changes_nothing),
      cmocka_unit_test(commit_out_of_memory_changes_nothing),
      cmocka_unit_test(commit_ids_rise_when_the_clock_goes_back),
      cmocka_unit_test(many_claims),
      cmocka_unit_test(adopt_reads_what_is_stored),
  };
  return cmocka_run_group_tests(tests, start, stop);
}
