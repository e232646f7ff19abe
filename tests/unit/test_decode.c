/* The decoder: the cases of tests/cases/decode, the examples of config/examples, and what needs more than a file. */
#include "tests/unit/decode_case.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#define EXAMPLES LIVENPS_SOURCE_DIR "/config/examples"

static livenps_mapping *contract;
static livenps_decoder *decoder;

static int set_up(void **state) {
  (void)state;
  livenps_error error = {0};
  decoder = livenps_decoder_new();
  return livenps_mapping_default(&contract, &error);
}

static int tear_down(void **state) {
  (void)state;
  livenps_mapping_free(contract);
  livenps_decoder_free(decoder);
  return 0;
}

/* ---- cases: a directory each (decode_case.h) ---- */

static size_t case_touchpoints(char *text, char **touchpoints, size_t most) {
  size_t count = 0;
  for (char *line = text ? strtok(text, "\n") : NULL; line && count < most; line = strtok(NULL, "\n")) {
    touchpoints[count++] = line;
  }
  return count;
}

static bool run_case(const char *name) {
  size_t length = 0;
  size_t ignored;
  char *value = case_value(name, &length);
  char *header_text = case_file(name, "headers", &ignored);
  char *mapping_text = case_file(name, "mapping", &ignored);
  char *max_text = case_file(name, "max_bytes", &ignored);
  char *timestamp = case_file(name, "timestamp", &ignored);
  char *allowed = case_file(name, "touchpoints", &ignored);
  char *expected = case_file(name, "expected.json", &ignored);
  char *reason_text = case_file(name, "reason", &ignored);
  char *fate_text = case_file(name, "fate", &ignored);
  livenps_error error = {0};
  livenps_mapping *mapping = NULL;
  if (mapping_text) {
    char path[512];
    snprintf(path, sizeof path, LIVENPS_SOURCE_DIR "/%.*s", (int)strcspn(mapping_text, "\n"), mapping_text);
    if (livenps_mapping_load(&mapping, path, &error) < 0) {
      fail_msg("%s: %s", name, error.text);
    }
  }
  livenps_header headers[16];
  livenps_record record = {.value = {value, length},
                           .headers = headers,
                           .header_count = case_headers(header_text, headers, 16),
                           .timestamp_ms = timestamp ? atoll(timestamp) : 0};
  livenps_admission admission = {.max_bytes = max_text ? (size_t)atoll(max_text) : LIVENPS_MAX_RECORD,
                                 .late_ms = timestamp ? INT64_C(7) * 24 * 3600 * 1000 : INT64_MAX,
                                 .future_ms = timestamp ? 60000 : INT64_MAX};
  char *touchpoints[16];
  admission.touchpoint_count = case_touchpoints(allowed, touchpoints, 16);
  admission.touchpoints = admission.touchpoint_count ? touchpoints : NULL;
  livenps_event event;
  livenps_reason reason;
  livenps_where where = {0};
  livenps_fate fate =
      livenps_admit(decoder, mapping ? mapping : contract, &admission, &record, &event, &reason, &where);
  char got[256];
  bool good = false;
  if (fate == LIVENPS_REJECTED) {
    snprintf(got, sizeof got, "%s %zu %s", livenps_reason_name(reason), where.offset,
             *where.field ? where.field : "-");
    good = reason_text && strcspn(reason_text, "\n") == strlen(got) &&
           memcmp(reason_text, got, strlen(got)) == 0;
  } else if (fate == LIVENPS_LATE) {
    snprintf(got, sizeof got, "late");
    good = fate_text && strncmp(fate_text, "late", 4) == 0;
  } else {
    json_t *event_json = event_to_json(&event);
    json_t *want = expected ? json_loads(expected, 0, NULL) : NULL;
    char *dump = json_dumps(event_json, JSON_COMPACT);
    snprintf(got, sizeof got, "%s", dump);
    good = want && json_equal(want, event_json);
    free(dump);
    json_decref(want);
    json_decref(event_json);
  }
  if (!good) {
    print_error("%s: got %s (%s)\n", name, got, where.detail);
  }
  livenps_mapping_free(mapping);
  free(value);
  free(header_text);
  free(mapping_text);
  free(max_text);
  free(timestamp);
  free(allowed);
  free(expected);
  free(reason_text);
  free(fate_text);
  return good;
}

static void cases(void **state) {
  (void)state;
  DIR *folder = opendir(CASES);
  assert_non_null(folder);
  int count = 0;
  int bad = 0;
  for (struct dirent *entry = readdir(folder); entry; entry = readdir(folder)) {
    if (entry->d_name[0] != '.') {
      count++;
      bad += !run_case(entry->d_name);
    }
  }
  closedir(folder);
  print_message("%d cases, %d wrong\n", count, bad);
  assert_int_equal(bad, 0);
  assert_true(count >= 100);
}

/* Every reason of the list in event.h, which docs/events.md repeats (tests/docs), occurs in the cases. */
static void every_reason_has_a_case(void **state) {
  (void)state;
  bool seen[LIVENPS_REASONS] = {false};
  DIR *folder = opendir(CASES);
  assert_non_null(folder);
  for (struct dirent *entry = readdir(folder); entry; entry = readdir(folder)) {
    size_t length;
    char *text = entry->d_name[0] == '.' ? NULL : case_file(entry->d_name, "reason", &length);
    if (text) {
      livenps_reason reason = livenps_reason_find((livenps_text){text, strcspn(text, " \n")});
      if (reason == LIVENPS_REASON_NONE) {
        fail_msg("%s: unknown reason", entry->d_name);
      }
      seen[reason] = true;
      free(text);
    }
  }
  closedir(folder);
  for (int reason = 0; reason < LIVENPS_REASONS; reason++) {
    if (!seen[reason]) {
      fail_msg("no case for %s", livenps_reason_name((livenps_reason)reason));
    }
  }
}

/* ---- the examples ---- */

static int each_line(const char *file, const char *mapping_file, bool accepted) {
  livenps_error error = {0};
  livenps_mapping *mapping = NULL;
  char path[512];
  if (mapping_file) {
    snprintf(path, sizeof path, LIVENPS_SOURCE_DIR "/%s", mapping_file);
    if (livenps_mapping_load(&mapping, path, &error) < 0) {
      fail_msg("%s", error.text);
    }
  }
  snprintf(path, sizeof path, EXAMPLES "/%s", file);
  size_t length;
  char *text = read_file(path, &length);
  assert_non_null(text);
  int lines = 0;
  for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
    livenps_event event;
    livenps_where where;
    livenps_record record = {.value = livenps_text_of(line)};
    livenps_reason reason =
        livenps_decode(decoder, mapping ? mapping : contract, LIVENPS_MAX_RECORD, &record, &event, &where);
    if (accepted ? reason != LIVENPS_REASON_NONE
                 : reason != LIVENPS_REASON_CORRECTION && reason != LIVENPS_REASON_NO_EVENT) {
      fail_msg("%s, line %d: %s (%s: %s)", file, lines + 1, livenps_reason_name(reason), where.field,
               where.detail);
    }
    lines++;
  }
  free(text);
  livenps_mapping_free(mapping);
  return lines;
}

static void examples(void **state) {
  (void)state;
  assert_int_equal(each_line("plain.jsonl", NULL, true), 6);
  assert_int_equal(each_line("cloudevents.jsonl", NULL, true), 3);
  assert_int_equal(each_line("delighted.jsonl", "config/mappings/delighted.yaml", true), 2);
  assert_int_equal(each_line("delighted-refused.jsonl", "config/mappings/delighted.yaml", false), 2);
  assert_int_equal(each_line("typeform.jsonl", "config/mappings/typeform.yaml", true), 1);
  assert_int_equal(each_line("typeform-refused.jsonl", "config/mappings/typeform.yaml", false), 2);
}

/* ---- more than a file ---- */

static livenps_reason decode_text(const char *bytes, size_t length, livenps_event *event,
                                  livenps_where *where) {
  livenps_record record = {.value = {bytes, length}};
  return livenps_decode(decoder, contract, LIVENPS_MAX_RECORD, &record, event, where);
}

static void without_where(void **state) {
  (void)state;
  livenps_event event;
  assert_int_equal(decode_text("{", 1, &event, NULL), LIVENPS_REASON_MALFORMED);
  assert_int_equal(decode_text("{}", 2, &event, NULL), LIVENPS_REASON_MISSING_FIELD);
  livenps_record record = {.value = livenps_text_of("{}"),
                           .headers = &(livenps_header){livenps_text_of("ce_id"), livenps_text_of("x")},
                           .header_count = 1};
  assert_int_equal(livenps_decode(decoder, contract, 100, &record, &event, NULL), LIVENPS_REASON_CLOUDEVENT);
}

static void tombstone_is_not_empty(void **state) {
  (void)state;
  livenps_event event;
  livenps_where where;
  assert_int_equal(decode_text(NULL, 0, &event, &where), LIVENPS_REASON_TOMBSTONE);
  assert_int_equal(decode_text("", 0, &event, &where), LIVENPS_REASON_MALFORMED);
}

/* A header without value is absent, not empty. */
static void header_without_value(void **state) {
  (void)state;
  static const char value[] =
      "{\"id\":\"x\",\"type\":\"interaction\",\"time\":\"2026-11-21T10:15:00Z\",\"touchpoint\":\"t\"}";
  livenps_header headers[] = {{livenps_text_of("ce_id"), {0}}, {livenps_text_of("content-type"), {0}}};
  livenps_record record = {.value = livenps_text_of(value), .headers = headers, .header_count = 2};
  livenps_event event;
  assert_int_equal(livenps_decode(decoder, contract, 1000, &record, &event, NULL), LIVENPS_REASON_NONE);
}

static void ten_thousand_headers(void **state) {
  (void)state;
  enum { COUNT = 10000 };
  static const char value[] =
      "{\"id\":\"x\",\"type\":\"interaction\",\"time\":\"2026-11-21T10:15:00Z\",\"touchpoint\":\"t\"}";
  livenps_header *headers = livenps_alloc(COUNT * sizeof *headers);
  for (int i = 0; i < COUNT; i++) {
    headers[i] = (livenps_header){livenps_text_of(i % 2 ? "ce_extension" : "trace"), livenps_text_of("\xFF")};
  }
  livenps_record record = {.value = livenps_text_of(value), .headers = headers, .header_count = COUNT};
  livenps_event event;
  assert_int_equal(livenps_decode(decoder, contract, 1000, &record, &event, NULL), LIVENPS_REASON_NONE);
  free(headers);
}

/* A megabyte in each of the fields that become names: refused there, wherever the limit is looked for first. */
static void huge_names(void **state) {
  (void)state;
  static const char *const fields[] = {"id", "touchpoint", "channel", "segment", "stage", "customer"};
  for (size_t f = 0; f < sizeof fields / sizeof *fields; f++) {
    for (int escaped = 0; escaped < 2; escaped++) {
      livenps_buffer value = {0};
      livenps_buffer_print(&value, "{\"type\":\"interaction\",\"time\":\"2026-11-21T10:15:00Z\"");
      for (size_t other = 0; other < 2; other++) {
        if (other != f) {
          livenps_buffer_print(&value, ",\"%s\":\"x\"", fields[other]);
        }
      }
      livenps_buffer_print(&value, ",\"%s\":", fields[f]);
      size_t offset = value.length;
      livenps_buffer_print(&value, "\"");
      while (value.length < LIVENPS_MAX_RECORD - 16) {
        livenps_buffer_print(&value, escaped ? "\\u00e9" : "{");
      }
      livenps_buffer_print(&value, "\"}");
      livenps_event event;
      livenps_where where;
      assert_int_equal(decode_text(value.at, value.length, &event, &where), LIVENPS_REASON_NAME_TOO_LONG);
      assert_string_equal(where.field, fields[f]);
      assert_int_equal(where.offset, offset);
      livenps_buffer_free(&value);
    }
  }
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* An object with 100,000 keys costs about as much per byte as any other: a quadratic search would take a minute. */
static void many_keys(void **state) {
  (void)state;
  livenps_buffer buffer = {0};
  livenps_event event;
  livenps_where where;
  for (int nested = 0; nested < 2; nested++) {
    buffer.length = 0;
    for (int level = 0; level <= nested * 20; level++) {
      livenps_buffer_print(&buffer, "{");
      for (int i = 0; i < (nested ? 4000 : 90000); i++) {
        livenps_buffer_print(&buffer, "\"%x\":1,", i * 7);
      }
      livenps_buffer_print(&buffer, "\"down\":");
    }
    livenps_buffer_print(&buffer, "0");
    for (int level = 0; level <= nested * 20; level++) {
      livenps_buffer_print(&buffer, "}");
    }
    assert_true(buffer.length < LIVENPS_MAX_RECORD);
    double start = seconds();
    assert_int_equal(decode_text(buffer.at, buffer.length, &event, &where), LIVENPS_REASON_MISSING_FIELD);
    assert_true(seconds() - start < 5);
    /* the last key once more, written in another way */
    buffer.length -= nested ? 21 : 1;
    size_t offset = buffer.length + 1;
    livenps_buffer_print(&buffer, ",\"\\u0030\":0}");
    assert_int_equal(decode_text(buffer.at, buffer.length, &event, &where), LIVENPS_REASON_DUPLICATE_KEY);
    assert_int_equal(where.offset, offset);
  }
  livenps_buffer_free(&buffer);
}

/* So do keys that are told apart last of all: of one length, with one beginning. */
static void many_keys_that_begin_alike(void **state) {
  (void)state;
  livenps_buffer buffer = {0};
  livenps_event event;
  livenps_where where;
  livenps_buffer_print(&buffer, "{");
  for (int i = 0; i < 45000; i++) {
    livenps_buffer_print(&buffer, "\"touchpoint%05x\":1,", i);
  }
  size_t offset = buffer.length;
  livenps_buffer_print(&buffer, "\"touchpoint00007\":1}");
  assert_true(buffer.length < LIVENPS_MAX_RECORD);
  double start = seconds();
  assert_int_equal(decode_text(buffer.at, buffer.length, &event, &where), LIVENPS_REASON_DUPLICATE_KEY);
  assert_true(seconds() - start < 5);
  assert_int_equal(where.offset, offset);
  livenps_buffer_free(&buffer);
}

/* The decoder's memory of one record never shows in the next, however they differ. */
static void records_do_not_leak(void **state) {
  (void)state;
  static const char full[] =
      "{\"id\":\"x\",\"type\":\"answer\",\"time\":\"2026-11-21T10:15:00Z\",\"touchpoint\":\"t\","
      "\"channel\":\"WEB\",\"customer\":\"\\u0063\",\"scale\":\"nps\",\"score\":3,\"value\":1}";
  static const char bare[] =
      "{\"id\":\"y\",\"type\":\"interaction\",\"time\":\"2026-11-21T10:15:00Z\",\"touchpoint\":\"t\"}";
  livenps_event event;
  for (int i = 0; i < 3; i++) {
    assert_int_equal(decode_text(full, strlen(full), &event, NULL), LIVENPS_REASON_NONE);
    assert_int_equal(event.customer.at[0], 'c');
    assert_memory_equal(event.dimensions[LIVENPS_CHANNEL].at, "web", 3);
    assert_int_equal(decode_text(bare, strlen(bare), &event, NULL), LIVENPS_REASON_NONE);
    assert_null(event.customer.at);
    assert_null(event.dimensions[LIVENPS_CHANNEL].at);
    assert_int_equal(event.score, -1);
    assert_false(event.has_value);
  }
}

/* Every truncation of a good event is refused, and so is every single byte replaced by a NUL. */
static void truncations(void **state) {
  (void)state;
  static const char text[] =
      "{\"id\":\"\\ud83d\\ude00\xE2\x82\xAC\",\"type\":\"answer\",\"time\":\"2026-11-21T10:15:00Z\","
      "\"touchpoint\":\"t\",\"scale\":\"nps\",\"score\":3,\"value\":-1.25,\"x\":[true,null,{}]}";
  livenps_event event;
  livenps_where where;
  size_t length = strlen(text);
  assert_int_equal(decode_text(text, length, &event, &where), LIVENPS_REASON_NONE);
  for (size_t cut = 0; cut < length; cut++) {
    char *copy = malloc(cut ? cut : 1);
    memcpy(copy, text, cut);
    assert_int_not_equal(decode_text(copy, cut, &event, &where), LIVENPS_REASON_NONE);
    assert_true(where.offset <= cut);
    free(copy);
    char *zeroed = livenps_copy(text, length);
    zeroed[cut] = '\0';
    assert_int_not_equal(decode_text(zeroed, length, &event, &where), LIVENPS_REASON_NONE);
    free(zeroed);
  }
}

static void free_nothing(void **state) {
  (void)state;
  livenps_decoder_free(NULL);
  livenps_mapping_free(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(cases),
      cmocka_unit_test(every_reason_has_a_case),
      cmocka_unit_test(examples),
      cmocka_unit_test(without_where),
      cmocka_unit_test(tombstone_is_not_empty),
      cmocka_unit_test(header_without_value),
      cmocka_unit_test(ten_thousand_headers),
      cmocka_unit_test(huge_names),
      cmocka_unit_test(many_keys),
      cmocka_unit_test(many_keys_that_begin_alike),
      cmocka_unit_test(records_do_not_leak),
      cmocka_unit_test(truncations),
      cmocka_unit_test(free_nothing),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
