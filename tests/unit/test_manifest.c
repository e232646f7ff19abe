/* What a snapshot in Kafka says of itself: written and read back, hostile bytes refused, the right one chosen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/log.h"
#include "consumer/keep.h"

#include <stdio.h>
#include <stdlib.h>

#define SUM_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static livenps_manifest make(int64_t genesis, int64_t first, int64_t second) {
  livenps_manifest made = {.namespace_ = "shop",
                           .admit = SUM_A,
                           .lineage = "0123456789abcdef0123456789abcdef",
                           .tenure = "0123456789abcdef",
                           .entry = {"1763720100123-0", "1b4f0e9851971998e732078544c96b36"},
                           .version = LIVENPS_FORMAT_VERSION,
                           .genesis = genesis,
                           .sequence = 3,
                           .ms = 1763720100123};
  livenps_partition ledger[2] = {
      {.topic = (char *)(uintptr_t) "events", .position = {.next = first, .incarnation = 1}, .gap = 5},
      {.topic = (char *)(uintptr_t) "events",
       .partition = 1,
       .position = {.next = second,
                    .incarnation = 1,
                    .anchor = {.there = true, .crc = 7, .offset = 99, .timestamp_ms = 12}}}};
  livenps_manifest_positions(&made, ledger, 2);
  made.chunks = livenps_alloc(2 * sizeof *made.chunks);
  made.chunk_count = 2;
  made.chunks[0] = (livenps_manifest_chunk){.name = livenps_copy("5m.1041", 7),
                                            .id = livenps_copy("aa-1:5m.1041", 12),
                                            .size = LIVENPS_PIECE_BYTES + 1};
  made.chunks[1] = (livenps_manifest_chunk){
      .name = livenps_copy("head", 4), .id = livenps_copy("aa-2:head", 9), .size = 20};
  memcpy(made.chunks[0].sha256, SUM_A, 65);
  memcpy(made.chunks[1].sha256, SUM_A, 65);
  return made;
}

static livenps_buffer encoded(void) {
  livenps_buffer out = {0};
  livenps_manifest manifest = make(2, 100, 200);
  livenps_manifest_encode(&manifest, &out);
  livenps_manifest_free(&manifest);
  return out;
}

static void what_is_written_is_read_back(void **state) {
  (void)state;
  livenps_error error = {0};
  livenps_manifest back;
  livenps_buffer bytes = encoded(), again = {0};
  assert_int_equal(livenps_manifest_decode(&back, bytes.at, bytes.length, &error), 0);
  assert_string_equal(back.namespace_, "shop");
  assert_int_equal(back.genesis, 2);
  assert_int_equal(back.sequence, 3);
  assert_int_equal(back.partition_count, 2);
  assert_int_equal(back.partitions[1].position.next, 200);
  assert_int_equal(back.partitions[1].position.anchor.offset, 99);
  assert_int_equal(back.partitions[0].gap, 5);
  assert_int_equal(back.chunk_count, 2);
  assert_int_equal(back.chunks[0].size, LIVENPS_PIECE_BYTES + 1);
  assert_string_equal(back.chunks[1].id, "aa-2:head");
  livenps_manifest_encode(&back, &again);
  assert_true(again.length == bytes.length && !memcmp(again.at, bytes.at, bytes.length));
  livenps_manifest_free(&back);
  livenps_buffer_free(&bytes);
  livenps_buffer_free(&again);
}

static int decode(const char *bytes, size_t length) {
  livenps_error error = {0};
  livenps_manifest manifest = {0};
  const int result = livenps_manifest_decode(&manifest, bytes, length, &error);
  if (result) {
    assert_int_equal(error.code, LIVENPS_E_DATA);
    assert_null(manifest.partitions);
  }
  livenps_manifest_free(&manifest);
  return result;
}

/* The manifest with one text in place of another. */
static int decode_with(const char *old, const char *new) {
  livenps_buffer bytes = encoded(), changed = {0};
  livenps_buffer_add(&bytes, "", 1);
  const char *at = strstr(bytes.at, old);
  assert_non_null(at);
  livenps_buffer_print(&changed, "%.*s%s%s", (int)(at - bytes.at), bytes.at, new, at + strlen(old));
  const int result = decode(changed.at, changed.length);
  livenps_buffer_free(&bytes);
  livenps_buffer_free(&changed);
  return result;
}

static void hostile_bytes_are_refused(void **state) {
  (void)state;
  static const char *const changes[][2] = {
      {"\"format\":1", "\"format\":2"},
      {"\"format\":1", "\"format\":\"1\""},
      {"\"genesis\":2", "\"genesis\":-1"},
      {"\"genesis\":2", "\"genesis\":2.0"},
      {"\"genesis\":2", "\"genesis\":9007199254740993"},
      {"\"genesis\":2", "\"genesis\":2,\"genesis\":3"},
      {"\"genesis\":2,", ""},
      {"\"namespace\":\"shop\"", "\"namespace\":\"\""},
      {"\"namespace\":\"shop\"", "\"namespace\":\"sh\\u0000op\""},
      {"\"tenure\":\"0123456789abcdef\"", "\"tenure\":\"0123456789abcde/\""},
      {"\"tenure\":\"0123456789abcdef\"", "\"tenure\":\"0123456789abcdef0\""},
      {"\"partitions\":[", "\"partitions\":[3,"},
      {"\"partitions\":[", "\"partitions\":[{},"},
      {"\"partition\":1", "\"partition\":2147483648"},
      {"\"partition\":1", "\"partition\":null"},
      {"\"position\":\"100 1\"", "\"position\":\"-1 1\""},
      {"\"position\":\"100 1\"", "\"position\":100"},
      {"\"position\":\"100 1\"", "\"position\":\"99999999999999999999 1\""},
      {"\"gap\":5", "\"gap\":\"5\""},
      {"\"start\":0", "\"start\":-1"},
      {"\"start\":0,", ""},
      {"\"size\":20", "\"size\":0"},
      {"\"size\":20", "\"size\":1099511627776"},
      {"\"sha256\":\"" SUM_A "\"", "\"sha256\":\"a\""},
      {"\"id\":\"aa-2:head\"", "\"id\":\"\""},
      {"\"chunks\":[", "\"chunks\":{},\"more\":["},
      {"\"partition\":1", "\"partition\":0"},
      {"\"name\":\"head\"", "\"name\":\"5m.1041\""},
  };
  for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
    if (!decode_with(changes[i][0], changes[i][1])) {
      fail_msg("%s instead of %s was taken", changes[i][1], changes[i][0]);
    }
  }
  /* What a later version adds does not hurt. */
  assert_int_equal(decode_with("\"format\":1", "\"format\":1,\"more\":[1]"), 0);
  static const char *const others[] = {"", "{}", "[]", "null", "3", "{\"format\":1}", "\xff\xfe", "{"};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    assert_int_equal(decode(others[i], strlen(others[i])), -1);
  }
  assert_int_equal(decode(NULL, 0), -1);
}

static void every_cut_is_refused(void **state) {
  (void)state;
  livenps_buffer bytes = encoded();
  for (size_t length = 0; length < bytes.length; length++) {
    assert_int_equal(decode(bytes.at, length), -1);
  }
  /* Any one byte changed: refused or another manifest, never a crash. */
  for (size_t i = 0; i < bytes.length; i++) {
    char kept = bytes.at[i];
    for (int bit = 0; bit < 8; bit++) {
      bytes.at[i] = (char)(kept ^ (1 << bit));
      decode(bytes.at, bytes.length);
    }
    bytes.at[i] = kept;
  }
  livenps_buffer_free(&bytes);
}

static void the_furthest_is_chosen(void **state) {
  (void)state;
  livenps_manifest a = make(2, 100, 200), b = make(2, 100, 201), c = make(3, 1, 1), d = make(2, 1, 1);
  d.partitions[0].position.incarnation = 2;
  assert_true(livenps_manifest_compare(&b, &a) < 0);
  assert_true(livenps_manifest_compare(&a, &b) > 0);
  assert_true(livenps_manifest_compare(&c, &b) < 0);
  assert_true(livenps_manifest_compare(&d, &b) < 0);
  assert_int_equal(livenps_manifest_compare(&a, &a), 0);
  assert_true(livenps_manifest_ahead(&b, &a));
  assert_false(livenps_manifest_ahead(&a, &b));
  assert_false(livenps_manifest_ahead(&c, &a));
  assert_true(livenps_manifest_ahead(&d, &a));
  assert_true(livenps_manifest_ahead(&a, &d)); /* in its other partition */
  a.partition_count = 1;
  assert_true(livenps_manifest_ahead(&c, &a)); /* knows a partition that the other does not */
  a.partition_count = 2;
  a.partitions[0].position.next = a.partitions[1].position.next = INT64_MAX;
  assert_true(livenps_manifest_compare(&a, &b) < 0); /* sums do not wrap */
  livenps_manifest_free(&a);
  livenps_manifest_free(&b);
  livenps_manifest_free(&c);
  livenps_manifest_free(&d);
}

static void it_must_reach_what_the_topics_have(void **state) {
  (void)state;
  char why[256];
  livenps_manifest a = make(2, 100, 200);
  livenps_beginning now[3] = {{.topic = "events", .partition = 0, .first = 100, .end = 100},
                              {.topic = "events", .partition = 1, .first = 0, .end = 900},
                              {.topic = "events", .partition = 2, .first = 7, .end = 9}};
  assert_true(livenps_manifest_reaches(&a, now, 3, why));
  assert_int_equal(livenps_manifest_overtaken(&a, now, 3, why), 0);
  now[0].first = now[0].end = 101, now[1].first = 230;
  assert_true(livenps_manifest_reaches(&a, now, 3, why));
  assert_int_equal(livenps_manifest_overtaken(&a, now, 3, why), 31);
  assert_non_null(strstr(why, "begins at 230"));
  now[0].first = 50, now[0].end = 99;
  assert_false(livenps_manifest_reaches(&a, now, 3, why));
  assert_non_null(strstr(why, "ends at 99"));
  now[0].first = 0, now[0].end = 100;
  assert_false(livenps_manifest_reaches(&a, now, 1, why)); /* made anew with fewer partitions */
  assert_non_null(strstr(why, "no partition 1"));
  snprintf(now[0].topic, sizeof now[0].topic, "others");
  assert_true(livenps_manifest_reaches(&a, now, 1, why)); /* taken out of the settings */
  livenps_manifest_free(&a);
}

static void it_may_lose_less(void **state) {
  (void)state;
  livenps_manifest a = make(2, 100, 200), mine = make(2, 300, 400);
  livenps_beginning now[3] = {{.topic = "events", .partition = 0, .first = 90, .end = 1000},
                              {.topic = "events", .partition = 1, .first = 90, .end = 1000},
                              {.topic = "events", .partition = 2, .first = 7, .start = 7, .end = 9}};
  assert_false(livenps_manifest_better(&a, &mine, now, 3)); /* as much */
  assert_false(livenps_manifest_better(&a, &mine, NULL, 0));
  mine.partitions[0].gap = 6;
  assert_true(livenps_manifest_better(&a, &mine, now, 3));
  assert_true(livenps_manifest_better(&a, &mine, NULL, 0));
  mine.partitions[0].gap = 4, mine.partitions[1].gap = 100;
  assert_true(livenps_manifest_better(&a, &mine, now, 3)); /* more of one, much less of another */
  now[0].first = 198;
  assert_true(livenps_manifest_better(&a, &mine, now, 3)); /* overtaken by 98: one less in all */
  now[0].first = 199;
  assert_false(livenps_manifest_better(&a, &mine, now, 3));
  assert_true(livenps_manifest_better(&a, &mine, NULL, 0)); /* who does not know that must ask */
  now[0].first = 150;
  mine.genesis = 3;
  assert_false(livenps_manifest_better(&a, &mine, now, 3)); /* was replaced */
  mine.genesis = 1;
  assert_true(livenps_manifest_better(&a, &mine, now, 3));
  a.partitions[1].start = 51;
  assert_false(livenps_manifest_better(&a, &mine, now, 3)); /* did not begin at the beginning */
  a.partitions[1].start = 0;
  mine.partitions[0].position.incarnation = 2;
  assert_false(livenps_manifest_better(&a, &mine, now, 3)); /* of a topic that was deleted */
  mine.partitions[0].position.incarnation = 1;
  /* A partition that it does not know is read from where its topic begins: 90 are lost. */
  a.partition_count = 1;
  mine.partitions[1].gap = 145;
  assert_true(livenps_manifest_better(&a, &mine, now, 3));
  now[1].start = now[1].first = 99;
  assert_false(livenps_manifest_better(&a, &mine, now, 3));
  /* Of a topic that is no longer read, what was counted is lost with the state. */
  snprintf(now[1].topic, sizeof now[1].topic, "others");
  assert_false(livenps_manifest_better(&a, &mine, now, 3));
  a.partition_count = 2;
  a.partitions[1].position.next = 400;
  assert_true(livenps_manifest_better(&a, &mine, now, 3));
  livenps_manifest_free(&a);
  livenps_manifest_free(&mine);
}

static void the_one_that_loses_least_is_chosen(void **state) {
  (void)state;
  livenps_manifest far = make(2, 300, 100), near = make(2, 280, 110), newer = make(3, 1, 1),
                   beyond = make(4, 2000, 1);
  const livenps_manifest *all[] = {&near, &far, &beyond, &newer};
  livenps_beginning now[2] = {{.topic = "events", .partition = 0, .first = 90, .end = 1000},
                              {.topic = "events", .partition = 1, .first = 90, .end = 1000}};
  size_t order[4];
  assert_int_equal(livenps_manifest_choose(all, 4, NULL, now, 2, order), 3);
  assert_int_equal(order[0], 3); /* a higher genesis */
  assert_int_equal(order[1], 1); /* the furthest, where all lose as much */
  assert_int_equal(order[2], 0);
  now[1].first = 120;
  assert_int_equal(livenps_manifest_choose(all, 4, NULL, now, 2, order), 3);
  assert_int_equal(order[1], 0); /* loses 10, the furthest 20 */
  assert_int_equal(order[2], 1);
  now[0].first = 300;
  assert_int_equal(livenps_manifest_choose(all, 4, NULL, now, 2, order), 3);
  assert_int_equal(order[1], 1); /* loses 20, the other one 30 */
  near.partitions[0].gap = -7;
  assert_int_equal(livenps_manifest_choose(all, 4, &far, now, 2, order), 1); /* better than that one */
  assert_int_equal(order[0], 0);
  assert_int_equal(livenps_manifest_choose(all, 0, NULL, now, 2, order), 0);
  livenps_manifest_free(&far);
  livenps_manifest_free(&near);
  livenps_manifest_free(&newer);
  livenps_manifest_free(&beyond);
}

static void it_must_say_what_its_state_says(void **state) {
  (void)state;
  livenps_manifest a = make(2, 100, 200);
  livenps_partition ledger[2] = {
      {.topic = (char *)(uintptr_t) "events", .position = {.next = 100, .incarnation = 1}, .gap = 5},
      {.topic = (char *)(uintptr_t) "events", .partition = 1, .position = {.next = 200, .incarnation = 1}}};
  assert_true(livenps_manifest_matches(&a, ledger, 2));
  assert_false(livenps_manifest_matches(&a, ledger, 1));
  ledger[0].gap = 4;
  assert_false(livenps_manifest_matches(&a, ledger, 2));
  ledger[0].gap = 5, ledger[1].position.next = 199;
  assert_false(livenps_manifest_matches(&a, ledger, 2));
  ledger[1].position.next = 200, ledger[1].position.incarnation = 2;
  assert_false(livenps_manifest_matches(&a, ledger, 2));
  livenps_manifest_free(&a);
}

static void note(livenps_recall *recall, const char *key, const char *bytes, size_t length) {
  static int64_t offset;
  livenps_recall_note(recall, livenps_text_of(key), offset++, (livenps_text){bytes, length});
}

static void the_newest_record_of_a_key_counts(void **state) {
  (void)state;
  livenps_recall recall = {0};
  livenps_manifest a = make(2, 100, 200);
  livenps_buffer bytes = encoded();
  char key[400], piece[LIVENPS_PIECE_BYTES] = {0};
  assert_null(livenps_recall_find(&recall, "manifest/1"));
  assert_false(livenps_recall_complete(&recall, &a));
  note(&recall, livenps_recall_piece(key, a.tenure, a.chunks[0].id, 0), piece, sizeof piece);
  note(&recall, livenps_recall_piece(key, a.tenure, a.chunks[0].id, 1), piece, 1);
  assert_false(livenps_recall_complete(&recall, &a));
  note(&recall, livenps_recall_piece(key, a.tenure, a.chunks[1].id, 0), piece, 20);
  assert_true(livenps_recall_complete(&recall, &a));
  note(&recall, key, piece, 19);
  assert_false(livenps_recall_complete(&recall, &a));
  note(&recall, key, piece, 20);
  assert_true(livenps_recall_complete(&recall, &a));
  note(&recall, key, NULL, 0);
  assert_false(livenps_recall_complete(&recall, &a));
  /* Others' keys are not ours to look at. */
  note(&recall, "", piece, 1);
  note(&recall, "else/1", piece, 1);
  livenps_recall_note(&recall, (livenps_text){NULL, 0}, 0, (livenps_text){piece, 1});
  livenps_recall_note(&recall, (livenps_text){"chunk/a\0b", 9}, 0, (livenps_text){piece, 1});
  char longest[500];
  memset(longest, 'x', sizeof longest);
  memcpy(longest, "chunk/", 6);
  livenps_recall_note(&recall, (livenps_text){longest, 400}, 0, (livenps_text){piece, 1});
  assert_int_equal(recall.count, 3);
  note(&recall, "manifest/2/0123456789abcdef/3", bytes.at, bytes.length);
  assert_non_null(livenps_recall_find(&recall, "manifest/2/0123456789abcdef/3")->manifest);
  note(&recall, "manifest/2/0123456789abcdef/3", bytes.at, bytes.length - 1);
  assert_null(livenps_recall_find(&recall, "manifest/2/0123456789abcdef/3")->manifest);
  note(&recall, "manifest/2/0123456789abcdef/3", bytes.at, bytes.length);
  note(&recall, "manifest/2/0123456789abcdef/3", NULL, 0);
  assert_null(livenps_recall_find(&recall, "manifest/2/0123456789abcdef/3")->manifest);
  assert_true(livenps_recall_find(&recall, "manifest/2/0123456789abcdef/3")->gone);
  for (int i = 0; i < 2000; i++) {
    char many[32];
    snprintf(many, sizeof many, "chunk/%d", i % 1000);
    note(&recall, many, piece, (size_t)i);
  }
  assert_int_equal(recall.count, 1004);
  assert_int_equal(livenps_recall_find(&recall, "chunk/999")->size, 1999);
  livenps_recall_free(&recall);
  livenps_recall_free(&recall);
  livenps_buffer_free(&bytes);
  livenps_manifest_free(&a);
}

static int quiet(void **state) {
  (void)state;
  livenps_log_level(LIVENPS_ERROR);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_is_written_is_read_back),
      cmocka_unit_test(hostile_bytes_are_refused),
      cmocka_unit_test(every_cut_is_refused),
      cmocka_unit_test(the_furthest_is_chosen),
      cmocka_unit_test(it_must_reach_what_the_topics_have),
      cmocka_unit_test(it_may_lose_less),
      cmocka_unit_test(the_one_that_loses_least_is_chosen),
      cmocka_unit_test(it_must_say_what_its_state_says),
      cmocka_unit_test(the_newest_record_of_a_key_counts),
  };
  return cmocka_run_group_tests(tests, quiet, NULL);
}
