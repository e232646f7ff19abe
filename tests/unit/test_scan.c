/* The scanner beside the decoder's cases and the fuzz target: pointers, values and where they are, memory. */
#include "common/scan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static livenps_scanner *scanner;

static int set_up(void **state) {
  (void)state;
  scanner = livenps_scanner_new();
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  livenps_scanner_free(scanner);
  livenps_scanner_free(NULL);
  return 0;
}

/* The examples of RFC 6901, section 5. */
static void pointers(void **state) {
  (void)state;
  static const char document[] =
      "{\"foo\": [\"bar\", \"baz\"], \"\": 0, \"a/b\": 1, \"c%d\": 2, \"e^f\": 3, \"g|h\": 4,"
      " \"i\\\\j\": 5, \"k\\\"l\": 6, \" \": 7, \"m~n\": 8}";
  static const struct {
    const char *pointer;
    livenps_json_kind kind;
    const char *text;
  } rows[] = {
      {"", LIVENPS_JSON_OBJECT, ""},          {"/foo", LIVENPS_JSON_ARRAY, ""},
      {"/foo/0", LIVENPS_JSON_STRING, "bar"}, {"/foo/1", LIVENPS_JSON_STRING, "baz"},
      {"/", LIVENPS_JSON_NUMBER, "0"},        {"/a~1b", LIVENPS_JSON_NUMBER, "1"},
      {"/c%d", LIVENPS_JSON_NUMBER, "2"},     {"/e^f", LIVENPS_JSON_NUMBER, "3"},
      {"/g|h", LIVENPS_JSON_NUMBER, "4"},     {"/i\\j", LIVENPS_JSON_NUMBER, "5"},
      {"/k\"l", LIVENPS_JSON_NUMBER, "6"},    {"/ ", LIVENPS_JSON_NUMBER, "7"},
      {"/m~0n", LIVENPS_JSON_NUMBER, "8"},    {"/foo/2", LIVENPS_JSON_ABSENT, ""},
      {"/foo/01", LIVENPS_JSON_ABSENT, ""},   {"/foo/-", LIVENPS_JSON_ABSENT, ""},
      {"/nothing", LIVENPS_JSON_ABSENT, ""},  {"/a~1b/c", LIVENPS_JSON_ABSENT, ""},
  };
  enum { ROWS = sizeof rows / sizeof *rows };
  livenps_paths paths = {0};
  livenps_error error = {0};
  int nodes[ROWS];
  for (size_t i = 0; i < ROWS; i++) {
    nodes[i] = livenps_paths_add(&paths, rows[i].pointer, &error);
    assert_true(nodes[i] >= 0);
    assert_int_equal(livenps_paths_add(&paths, rows[i].pointer, &error), nodes[i]);
  }
  livenps_paths_compile(&paths);
  size_t offset;
  const char *detail;
  assert_int_equal(livenps_scan(scanner, &paths, document, strlen(document), &offset, &detail),
                   LIVENPS_REASON_NONE);
  for (size_t i = 0; i < ROWS; i++) {
    const livenps_found *found = livenps_find(livenps_scan_finds(scanner), nodes[i]);
    if (found->kind != rows[i].kind) {
      fail_msg("%s: kind %d", rows[i].pointer, found->kind);
    }
    assert_int_equal(found->text.length, strlen(rows[i].text));
    assert_memory_equal(found->text.length ? found->text.at : "", rows[i].text, found->text.length);
    if (found->kind == LIVENPS_JSON_NUMBER) {
      assert_ptr_equal(document + found->offset, found->text.at);
    }
  }
  assert_int_equal(livenps_find(livenps_scan_finds(scanner), -1)->kind, LIVENPS_JSON_ABSENT);
  livenps_paths_free(&paths);
}

/* The same token names an array's element and an object's member. */
static void index_or_key(void **state) {
  (void)state;
  livenps_paths paths = {0};
  livenps_error error = {0};
  int node = livenps_paths_add(&paths, "/a/1/b", &error);
  livenps_paths_compile(&paths);
  static const char *const documents[] = {"{\"a\":[0,{\"b\":7}]}", "{\"a\":{\"1\":{\"b\":7}}}",
                                          "{\"a\":[[],{\"b\":7},{\"b\":8}]}"};
  for (size_t i = 0; i < 3; i++) {
    size_t offset;
    const char *detail;
    assert_int_equal(livenps_scan(scanner, &paths, documents[i], strlen(documents[i]), &offset, &detail),
                     LIVENPS_REASON_NONE);
    assert_int_equal(livenps_find(livenps_scan_finds(scanner), node)->kind, LIVENPS_JSON_NUMBER);
    assert_int_equal(livenps_find(livenps_scan_finds(scanner), node)->text.at[0], '7');
  }
  livenps_paths_free(&paths);
}

static void bad_pointers(void **state) {
  (void)state;
  static const char *const bad[] = {"a", "a/b", "/~", "/~2", "/a~", "#/a"};
  livenps_paths paths = {0};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    livenps_error error = {0};
    assert_int_equal(livenps_paths_add(&paths, bad[i], &error), -1);
    assert_int_equal(error.code, LIVENPS_E_USAGE);
  }
  char deep[2 * (LIVENPS_MAX_DEPTH + 1) + 1] = "";
  for (int i = 0; i <= LIVENPS_MAX_DEPTH; i++) {
    memcpy(deep + 2 * (size_t)i, "/x", 3);
  }
  livenps_error error = {0};
  assert_int_equal(livenps_paths_add(&paths, deep, &error), -1);
  deep[2 * LIVENPS_MAX_DEPTH] = '\0';
  livenps_error_clear(&error);
  assert_true(livenps_paths_add(&paths, deep, &error) > 0);
  char longest[LIVENPS_MAX_POINTER + 2];
  memset(longest, 'x', sizeof longest);
  longest[0] = '/';
  longest[LIVENPS_MAX_POINTER + 1] = '\0';
  assert_int_equal(livenps_paths_add(&paths, longest, &error), -1);
  livenps_error_clear(&error);
  int added = 0;
  for (int i = 0; i < LIVENPS_MAX_NODES; i++) {
    char pointer[16];
    snprintf(pointer, sizeof pointer, "/n%d", i);
    livenps_error full = {0};
    added += livenps_paths_add(&paths, pointer, &full) > 0;
  }
  assert_int_equal(paths.count, LIVENPS_MAX_NODES);
  assert_true(added < LIVENPS_MAX_NODES);
  livenps_paths_free(&paths);
  livenps_paths_free(&paths);
}

/* Without wanted paths the scan only judges. */
static void nothing_wanted(void **state) {
  (void)state;
  livenps_paths paths = {0};
  size_t offset;
  const char *detail;
  assert_int_equal(livenps_scan(scanner, &paths, "[1,{\"a\":2}]", 11, &offset, &detail), LIVENPS_REASON_NONE);
  assert_int_equal(livenps_scan(scanner, &paths, "[1,{\"a\":2]", 10, &offset, &detail),
                   LIVENPS_REASON_MALFORMED);
  assert_int_equal(offset, 9);
}

/* Room handed out beside unescaped strings holds until the next scan, in the smallest and in large documents. */
static void room(void **state) {
  (void)state;
  livenps_paths paths = {0};
  livenps_error error = {0};
  int node = livenps_paths_add(&paths, "/a", &error);
  livenps_paths_compile(&paths);
  for (size_t length = 1; length < 200000; length = length * 3 + 1) {
    livenps_buffer document = {0};
    livenps_buffer_print(&document, "{\"a\":\"\\n");
    for (size_t i = 0; i < length; i++) {
      livenps_buffer_add(&document, "y", 1);
    }
    livenps_buffer_print(&document, "\"}");
    size_t offset;
    const char *detail;
    assert_int_equal(livenps_scan(scanner, &paths, document.at, document.length, &offset, &detail),
                     LIVENPS_REASON_NONE);
    memset(livenps_scan_room(scanner, LIVENPS_SCAN_ROOM), 'z', LIVENPS_SCAN_ROOM);
    livenps_text text = livenps_find(livenps_scan_finds(scanner), node)->text;
    assert_int_equal(text.length, length + 1);
    assert_int_equal(text.at[0], '\n');
    for (size_t i = 1; i <= length; i++) {
      assert_int_equal(text.at[i], 'y');
    }
    livenps_buffer_free(&document);
  }
  livenps_paths_free(&paths);
}

/* Every code point, as UTF-8 and as an escape, is the same string; the surrogates are none. */
static void code_points(void **state) {
  (void)state;
  livenps_paths paths = {0};
  livenps_error error = {0};
  int raw = livenps_paths_add(&paths, "/r", &error);
  int escaped = livenps_paths_add(&paths, "/e", &error);
  livenps_paths_compile(&paths);
  for (uint32_t code = 1; code <= 0x110000; code += code < 0x3000 ? 1 : 61) {
    char utf8[5] = {0};
    if (code < 0x80) {
      utf8[0] = (char)code;
    } else if (code < 0x800) {
      utf8[0] = (char)(0xC0 | code >> 6);
      utf8[1] = (char)(0x80 | (code & 63));
    } else if (code < 0x10000) {
      utf8[0] = (char)(0xE0 | code >> 12);
      utf8[1] = (char)(0x80 | (code >> 6 & 63));
      utf8[2] = (char)(0x80 | (code & 63));
    } else {
      utf8[0] = (char)(0xF0 | code >> 18);
      utf8[1] = (char)(0x80 | (code >> 12 & 63));
      utf8[2] = (char)(0x80 | (code >> 6 & 63));
      utf8[3] = (char)(0x80 | (code & 63));
    }
    bool must_escape = code < 0x20 || code == '"' || code == '\\';
    bool legal = code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
    livenps_buffer document = {0};
    livenps_buffer_print(&document, "{\"r\":\"%s\",\"e\":\"", must_escape ? "" : utf8);
    if (code < 0x10000) {
      livenps_buffer_print(&document, "\\u%04x\"}", code);
    } else {
      livenps_buffer_print(&document, "\\u%04X\\u%04X\"}", 0xD800 + ((code - 0x10000) >> 10),
                           0xDC00 + (code & 0x3FF));
    }
    size_t offset;
    const char *detail;
    livenps_reason reason = livenps_scan(scanner, &paths, document.at, document.length, &offset, &detail);
    if (!legal) {
      assert_int_equal(reason, LIVENPS_REASON_INVALID_UTF8);
    } else {
      assert_int_equal(reason, LIVENPS_REASON_NONE);
      livenps_text text = livenps_find(livenps_scan_finds(scanner), escaped)->text;
      assert_int_equal(text.length, strlen(utf8));
      assert_memory_equal(text.at, utf8, text.length);
      if (!must_escape) {
        assert_true(livenps_text_equal(livenps_find(livenps_scan_finds(scanner), raw)->text, text));
      }
    }
    livenps_buffer_free(&document);
  }
  livenps_paths_free(&paths);
}

/* Every byte at every place of a long string, whatever stretch it is looked at with: text, or the right fault there. */
static void every_byte_everywhere(void **state) {
  (void)state;
  livenps_paths paths = {0};
  enum { LENGTH = 40 };
  for (int byte = 0; byte < 256; byte++) {
    for (size_t place = 0; place < LENGTH; place++) {
      char document[LENGTH + 2];
      memset(document, 'x', sizeof document);
      document[0] = document[LENGTH + 1] = '"';
      document[place + 1] = (char)byte;
      size_t offset = place + 1;
      const char *detail;
      livenps_reason want = LIVENPS_REASON_NONE;
      if (byte < 0x20 || byte == '\\') {
        want = LIVENPS_REASON_MALFORMED;
      } else if (byte == '"') {
        want = LIVENPS_REASON_MALFORMED;
        offset = place + 2; /* the string ends there, and something follows */
      } else if (byte >= 0x80) {
        want = LIVENPS_REASON_INVALID_UTF8;
      }
      if (byte == '\\' && place == LENGTH - 1) {
        offset = LENGTH + 2; /* escapes the closing quote */
      }
      size_t at = offset;
      livenps_reason reason = livenps_scan(scanner, &paths, document, sizeof document, &at, &detail);
      if (reason != want || at != offset) {
        fail_msg("byte %d at %zu: %s at %zu", byte, place, livenps_reason_name(reason), at);
      }
    }
  }
}

static void reasons(void **state) {
  (void)state;
  for (int reason = 0; reason < LIVENPS_REASONS; reason++) {
    const char *name = livenps_reason_name((livenps_reason)reason);
    assert_int_equal(livenps_reason_find(livenps_text_of(name)), reason);
    assert_true(*livenps_reason_text((livenps_reason)reason));
  }
  assert_int_equal(livenps_reason_find(livenps_text_of("no_such_reason")), LIVENPS_REASON_NONE);
  assert_int_equal(livenps_reason_find((livenps_text){0}), LIVENPS_REASON_NONE);
  assert_string_equal(livenps_dimension_names[LIVENPS_STAGE], "stage");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(pointers),
      cmocka_unit_test(index_or_key),
      cmocka_unit_test(bad_pointers),
      cmocka_unit_test(nothing_wanted),
      cmocka_unit_test(room),
      cmocka_unit_test(code_points),
      cmocka_unit_test(every_byte_everywhere),
      cmocka_unit_test(reasons),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
