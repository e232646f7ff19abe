/* What a reader of JSON must accept and must refuse: the documents of tests/cases/json, alone and inside of an event, by
 * our scanner and by jansson. */
#include "tests/unit/decode_case.h"

#include "common/scan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const char *const pieces[] = {
    "{\"id\":\"x\",\"type\":\"interaction\",\"time\":\"2026-11-21T10:15:00Z\",\"x\":",
    ",\"touchpoint\":\"t\"}"};

/* \xNN is a byte, everything else stands for itself. Returns the length. */
static size_t undo(char *text) {
  char *out = text;
  for (const char *at = text; *at;) {
    unsigned byte;
    if (at[0] == '\\' && at[1] == 'x') {
      assert_int_equal(sscanf(at + 2, "%2x", &byte), 1);
      *out++ = (char)byte;
      at += 4;
    } else {
      *out++ = *at++;
    }
  }
  return (size_t)(out - text);
}

typedef struct {
  const char *shows;
  char *bytes;
  size_t length;
  livenps_reason reason; /* LIVENPS_REASON_NONE: accepted */
} document;

/* Calls back for each line of a file: "what it shows | document" and, where it has one, "| reason". */
static int each(const char *name, void (*check)(const document *)) {
  char path[512];
  size_t length;
  int count = 0;
  snprintf(path, sizeof path, LIVENPS_SOURCE_DIR "/tests/cases/json/%s", name);
  char *file = read_file(path, &length), *save;
  assert_non_null(file);
  for (char *line = strtok_r(file, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
    char *text = strchr(line, '|'), *verdict = strcmp(name, "accept") == 0 ? NULL : strrchr(line, '|');
    if (line[0] == '#') {
      continue;
    }
    if (!text || verdict == text) {
      fail_msg("%s: %s", name, line);
    }
    *text++ = '\0';
    document found = {.shows = line, .bytes = text, .reason = LIVENPS_REASON_NONE};
    if (verdict) {
      *verdict++ = '\0';
      found.reason = livenps_reason_find(livenps_text_of(verdict));
      if (found.reason == LIVENPS_REASON_NONE && strcmp(verdict, "accept") != 0) {
        fail_msg("%s: %s is no reason", line, verdict);
      }
    }
    found.length = undo(text);
    check(&found);
    count++;
  }
  free(file);
  return count;
}

/* Alone, and as the value of a field that nobody reads, it has the same fate. */
static void by_the_scanner(const document *document) {
  livenps_scanner *scanner = livenps_scanner_new();
  livenps_decoder *decoder = livenps_decoder_new();
  livenps_mapping *contract;
  livenps_paths nothing = {0};
  livenps_error error = {0};
  size_t offset;
  const char *detail = "";
  livenps_reason reason =
      livenps_scan(scanner, &nothing, document->bytes, document->length, &offset, &detail);
  if (reason != document->reason) {
    fail_msg("%s: %s (%s)", document->shows, livenps_reason_name(reason), detail);
  }
  livenps_buffer event = {0};
  livenps_buffer_add(&event, pieces[0], strlen(pieces[0]));
  livenps_buffer_add(&event, document->bytes, document->length);
  livenps_buffer_add(&event, pieces[1], strlen(pieces[1]));
  assert_int_equal(livenps_mapping_default(&contract, &error), 0);
  livenps_record record = {.value = {event.at, event.length}};
  livenps_event decoded;
  livenps_where where;
  reason = livenps_decode(decoder, contract, LIVENPS_MAX_RECORD, &record, &decoded, &where);
  /* One level deeper than alone. */
  bool deepest = document->reason == LIVENPS_REASON_NONE && reason == LIVENPS_REASON_TOO_DEEP &&
                 strstr(document->shows, "32 levels");
  if ((reason == LIVENPS_REASON_NONE) != (document->reason == LIVENPS_REASON_NONE) && !deepest) {
    fail_msg("%s, in an event: %s (%s)", document->shows, livenps_reason_name(reason), where.detail);
  }
  livenps_buffer_free(&event);
  livenps_mapping_free(contract);
  livenps_decoder_free(decoder);
  livenps_scanner_free(scanner);
}

static bool jansson_accepts(const document *document) {
  json_t *tree = json_loadb(document->bytes, document->length,
                            JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, NULL);
  json_decref(tree);
  return tree != NULL;
}

static void accepted(const document *document) {
  by_the_scanner(document);
  if (!jansson_accepts(document)) {
    fail_msg("%s: jansson refuses it, so it does not belong here", document->shows);
  }
}

/* jansson knows no limit at 32 levels, and takes a NUL behind a number for the end of the text. */
static void refused(const document *document) {
  assert_int_not_equal(document->reason, LIVENPS_REASON_NONE);
  by_the_scanner(document);
  if (document->reason != LIVENPS_REASON_TOO_DEEP && !memchr(document->bytes, 0, document->length) &&
      jansson_accepts(document)) {
    fail_msg("%s: jansson accepts it, so it does not belong here", document->shows);
  }
}

static void must_be_accepted(void **state) {
  (void)state;
  assert_true(each("accept", accepted) >= 50);
}

static void must_be_refused(void **state) {
  (void)state;
  assert_true(each("refuse", refused) >= 150);
}

static void decided_here(void **state) {
  (void)state;
  assert_true(each("either", by_the_scanner) >= 5);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(must_be_accepted),
      cmocka_unit_test(must_be_refused),
      cmocka_unit_test(decided_here),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
