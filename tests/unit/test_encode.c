/* Event -> JSON: what is written decodes to the same event, and jansson reads the same. Beside it the reading of lines, which is
 * how JSON comes back in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>
#include <jansson.h>

#include "common/decode.h"
#include "producer/encode.h"
#include "producer/generate.h"
#include "producer/input.h"

static const char *const names[] = {
    "checkout", "app: upgrade", "a\"b\\c/d",    "tab\there", "caf\xc3\xa9 \xf0\x9f\x98\x80",
    "~other",   "%7b{x}|",      "\x01\x1f\x7f", " ",         "\xe2\x80\xa8"};
enum { NAMES = sizeof names / sizeof *names };

static livenps_text some_name(uint64_t *random) {
  return livenps_text_of(names[livenps_random_below(random, NAMES)]);
}

/* channel and stage are folded by the decoder: the names above hold no capitals. */
static livenps_event some_event(uint64_t *random) {
  livenps_event event = {.type = (livenps_type)livenps_random_below(random, 3), .score = -1};
  event.id = some_name(random);
  event.time_ms = (int64_t)(livenps_random(random) % UINT64_C(4000000000000)) - INT64_C(1000000000000);
  event.dimensions[LIVENPS_TOUCHPOINT] = some_name(random);
  for (int d = LIVENPS_CHANNEL; d < LIVENPS_DIMENSIONS; d++)
    if (livenps_random_below(random, 2))
      event.dimensions[d] = some_name(random);
  if (livenps_random_below(random, 2))
    event.customer = some_name(random);
  if (event.type == LIVENPS_ANSWER) {
    event.scale = (livenps_scale)(1 + livenps_random_below(random, 3));
    event.score = event.scale == LIVENPS_SCALE_NPS
                      ? (int)livenps_random_below(random, 11)
                      : 1 + (int)livenps_random_below(random, event.scale == LIVENPS_SCALE_CSAT ? 5 : 7);
  }
  if (event.type == LIVENPS_ANSWER && livenps_random_below(random, 2)) {
    static const int64_t values[] = {0, 1, -1, 10, 99, -100, 12050, -12005, 100000000000, -100000000000};
    event.has_value = true;
    event.value = values[livenps_random_below(random, sizeof values / sizeof *values)];
  }
  return event;
}

static void assert_same(const livenps_event *wrote, const livenps_event *read) {
  assert_int_equal(wrote->type, read->type);
  assert_int_equal(wrote->scale, read->scale);
  assert_int_equal(wrote->score, read->score);
  assert_true(wrote->time_ms == read->time_ms);
  assert_int_equal(wrote->has_value, read->has_value);
  if (wrote->has_value)
    assert_true(wrote->value == read->value);
  assert_true(livenps_text_equal(wrote->id, read->id));
  assert_true(livenps_text_equal(wrote->customer, read->customer));
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++)
    assert_true(livenps_text_equal(wrote->dimensions[d], read->dimensions[d]));
}

static void test_round_trip(void **state) {
  (void)state;
  livenps_mapping *mapping = NULL;
  livenps_error error = {0};
  assert_int_equal(livenps_mapping_default(&mapping, &error), 0);
  livenps_decoder *decoder = livenps_decoder_new();
  livenps_buffer line = {0};
  uint64_t random = 1;
  for (int i = 0; i < 20000; i++) {
    const livenps_event wrote = some_event(&random);
    livenps_event read;
    livenps_where where = {0};
    line.length = 0;
    (i % 2 ? livenps_encode : livenps_encode_cloudevent)(&wrote, &line);
    assert_null(memchr(line.at, '\n', line.length));
    const livenps_record record = {.value = {line.at, line.length}, .timestamp_ms = 1};
    const livenps_reason reason =
        livenps_decode(decoder, mapping, LIVENPS_MAX_RECORD, &record, &read, &where);
    if (reason != LIVENPS_REASON_NONE)
      fail_msg("%s: %s (%s) in %.*s", livenps_reason_name(reason), where.detail, where.field,
               (int)line.length, line.at);
    assert_same(&wrote, &read);
    json_error_t fault;
    json_t *json = json_loadb(line.at, line.length, JSON_REJECT_DUPLICATES, &fault);
    assert_non_null(json);
    json_decref(json);
  }
  livenps_buffer_free(&line);
  livenps_decoder_free(decoder);
  livenps_mapping_free(mapping);
}

static void assert_text(const livenps_buffer *buffer, const char *text) {
  assert_int_equal(buffer->length, strlen(text));
  assert_memory_equal(buffer->at, text, buffer->length);
}

static void test_forms(void **state) {
  (void)state;
  livenps_event event = {.type = LIVENPS_ANSWER,
                         .scale = LIVENPS_SCALE_NPS,
                         .score = 9,
                         .has_value = true,
                         .value = 12050,
                         .time_ms = INT64_C(1795256100123),
                         .id = livenps_text_of("a-7f3"),
                         .customer = livenps_text_of("c-91")};
  event.dimensions[LIVENPS_TOUCHPOINT] = livenps_text_of("delivery");
  event.dimensions[LIVENPS_CHANNEL] = livenps_text_of("web");
  event.dimensions[LIVENPS_STAGE] = livenps_text_of("after");
  event.dimensions[LIVENPS_SEGMENT] = livenps_text_of("vip");
  livenps_buffer out = {0};
  livenps_encode(&event, &out);
  assert_text(
      &out,
      "{\"id\":\"a-7f3\",\"type\":\"answer\",\"time\":\"2026-11-21T10:15:00.123Z\",\"touchpoint\":\"delivery\","
      "\"channel\":\"web\",\"stage\":\"after\",\"segment\":\"vip\",\"customer\":\"c-91\",\"scale\":\"nps\","
      "\"score\":9,\"value\":120.5}");
  out.length = 0;
  livenps_encode_cloudevent(&event, &out);
  assert_text(
      &out,
      "{\"specversion\":\"1.0\",\"id\":\"a-7f3\",\"source\":\"/livenps/simulate\",\"type\":\"com.livenps.answer\","
      "\"time\":\"2026-11-21T10:15:00.123Z\",\"datacontenttype\":\"application/json\",\"data\":{"
      "\"touchpoint\":\"delivery\",\"channel\":\"web\",\"stage\":\"after\",\"segment\":\"vip\",\"customer\":\"c-91\","
      "\"scale\":\"nps\",\"score\":9,\"value\":120.5}}");
  livenps_buffer_free(&out);
}

static void test_key(void **state) {
  (void)state;
  livenps_event event = {.id = livenps_text_of("a-1"), .customer = livenps_text_of("c-1")};
  assert_true(livenps_text_equal(livenps_event_key(&event), event.customer));
  event.customer = livenps_text_of("");
  assert_true(livenps_text_equal(livenps_event_key(&event), event.id));
  event.customer = (livenps_text){0};
  assert_true(livenps_text_equal(livenps_event_key(&event), event.id));
}

/* ---- lines ---- */

static void write_file(char path[64], const char *bytes, size_t length) {
  strcpy(path, "/tmp/livenps-lines-XXXXXX");
  const int fd = mkstemp(path);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, bytes, length), (ssize_t)length);
  close(fd);
}

/* Reads everything as "file:line:text|" and compares. */
static void assert_lines(livenps_input *input, const char *expected) {
  livenps_buffer got = {0};
  livenps_input_result result;
  livenps_error error = {0};
  for (;;) {
    assert_int_equal(livenps_input_next(input, 1000, &result, &error), 0);
    assert_int_not_equal(result, LIVENPS_INPUT_NOTHING);
    if (result == LIVENPS_INPUT_END)
      break;
    const livenps_text line = livenps_input_line(input);
    livenps_buffer_print(&got, "%zu:%zu:%.*s|", livenps_input_file(input), livenps_input_number(input),
                         (int)line.length, line.at);
  }
  assert_text(&got, expected);
  livenps_buffer_free(&got);
}

static void test_lines(void **state) {
  (void)state;
  char one[64], two[64], empty[64];
  write_file(one, "a\n\n  \nb\r\n\r\nlong line here\nno newline", 37);
  write_file(two, "c\n", 2);
  write_file(empty, "", 0);
  const char *files[] = {one, empty, two};
  livenps_input *input = NULL;
  livenps_error error = {0};
  assert_int_equal(livenps_input_open(&input, files, 3, 12, &error), 0);
  /* Of a long line as much is kept as shows that it is too long. */
  const char *expected = "0:1:a|0:4:b|0:6:long line her|0:7:no newline|2:1:c|";
  assert_lines(input, expected);
  assert_true(livenps_input_rereadable(input));
  livenps_input_rewind(input);
  assert_lines(input, expected);
  livenps_input_close(input);
  livenps_input_close(NULL);
  unlink(one);
  unlink(two);
  unlink(empty);
}

/* Lines that straddle the reads. */
static void test_long_files(void **state) {
  (void)state;
  livenps_buffer bytes = {0}, expected = {0};
  for (int i = 1; i <= 3000; i++) {
    livenps_buffer_print(&bytes, "%0*d\n", i % 199 + 1, i);
    livenps_buffer_print(&expected, "0:%d:%0*d|", i, i % 199 + 1, i);
  }
  livenps_buffer_add(&expected, "", 1);
  char path[64];
  write_file(path, bytes.at, bytes.length);
  const char *files[] = {path};
  livenps_input *input = NULL;
  livenps_error error = {0};
  assert_int_equal(livenps_input_open(&input, files, 1, 1000, &error), 0);
  assert_lines(input, expected.at);
  livenps_input_close(input);
  unlink(path);
  livenps_buffer_free(&bytes);
  livenps_buffer_free(&expected);
}

static void test_unreadable(void **state) {
  (void)state;
  const char *missing[] = {"/nonexistent/events.jsonl"}, *folder[] = {"/tmp"};
  livenps_input *input = NULL;
  livenps_error error = {0};
  assert_int_equal(livenps_input_open(&input, missing, 1, 10, &error), -1);
  assert_int_equal(error.code, LIVENPS_E_USAGE);
  assert_non_null(strstr(error.text, "/nonexistent/events.jsonl"));
  livenps_error_clear(&error);
  assert_int_equal(livenps_input_open(&input, folder, 1, 10, &error), -1);
  assert_non_null(strstr(error.text, "directory"));
  assert_null(input);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_round_trip), cmocka_unit_test(test_forms),      cmocka_unit_test(test_key),
      cmocka_unit_test(test_lines),      cmocka_unit_test(test_long_files), cmocka_unit_test(test_unreadable),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
