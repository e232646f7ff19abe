/* Mapping files: what they can say, that every mistake names file and line, and that the canonical text tells any two
 * apart. */
#include "tests/unit/decode_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>
#include <cmocka.h>

static livenps_decoder *decoder;

static int set_up(void **state) {
  (void)state;
  decoder = livenps_decoder_new();
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  livenps_decoder_free(decoder);
  return 0;
}

static int load(livenps_mapping **mapping, const char *yaml, livenps_error *error) {
  char path[] = "/tmp/livenps-mapping-XXXXXX";
  int file = mkstemp(path);
  assert_true(file >= 0);
  assert_int_equal(write(file, yaml, strlen(yaml)), (ssize_t)strlen(yaml));
  close(file);
  int result = livenps_mapping_load(mapping, path, error);
  if (result < 0 && strncmp(error->text, path, strlen(path)) == 0) {
    memmove(error->text, error->text + strlen(path), strlen(error->text) - strlen(path) + 1);
  }
  unlink(path);
  return result;
}

#define FIELDS                                                                                               \
  "fields:\n"                                                                                                \
  "  id: /id\n"                                                                                              \
  "  time: {at: /t, format: milliseconds}\n"                                                                 \
  "  touchpoint: /tp\n"

#define ANSWER FIELDS "  type: {constant: answer}\n  scale: {constant: nps}\n  score: /s\n"

static void refused(void **state) {
  (void)state;
  static const struct {
    const char *yaml, *want; /* want begins behind the file's name */
  } rows[] = {
      {"", ":1: the file is empty; it needs fields"},
      {"# nothing\n", ":1: the file is empty"},
      {"[a]\n", ":1: a mapping file must be a map; its keys: fields, rules, signature"},
      {"rules: []\n", ":1: a mapping file needs fields"},
      {"fields:\n  id: [\n", ":3: "},
      {"fields: {id: /a}\nfeilds: {}\n", ":1: fields: type is missing"},
      {ANSWER "feilds: {}\n",
       ":8: a mapping file: unknown key \"feilds\"; allowed: fields, rules, signature"},
      {ANSWER "fields: {}\n", ":8: a mapping file: the key \"fields\" is given twice"},
      {ANSWER "  score: /x\n", ":8: fields: the key \"score\" is given twice"},
      {ANSWER "  revision: /x\n", ":8: fields: unknown key \"revision\"; allowed: id, type, time"},
      {ANSWER "  channel: web\n", ":8: \"web\" is no JSON pointer: it must begin with /"},
      {ANSWER "  channel: ''\n", ":8: the JSON pointer is empty"},
      {ANSWER "  channel: /a~b\n", ":8: \"/a~b\" is no JSON pointer: ~ must be followed by 0 or 1"},
      {ANSWER "  channel: {at: [/a]}\n", ":8: a JSON pointer must be one value"},
      {ANSWER "  channel: [/a]\n", ":8: channel must be a map; its keys: at, constant, default"},
      {ANSWER "  channel: {}\n", ":8: channel: needs either at (a JSON pointer) or constant"},
      {ANSWER "  channel: {at: /a, constant: b}\n",
       ":8: channel: needs either at (a JSON pointer) or constant"},
      {ANSWER "  channel: {default: b}\n", ":8: channel: needs either at (a JSON pointer) or constant"},
      {ANSWER "  channel: {constant: a, default: b}\n", ":8: channel: either default or constant, not both"},
      {ANSWER "  channel: {constant: ''}\n", ":8: channel: must not be empty"},
      {ANSWER "  channel: {at: /a, lower: false}\n", ":8: channel: is always in small letters"},
      {ANSWER "  segment: {at: /a, lower: yes}\n", ":8: lower must be true or false"},
      {ANSWER "  segment: {at: /a, format: seconds}\n", ":8: segment: only the time has a format"},
      {ANSWER "  segment: {at: /a, values: [a]}\n", ":8: segment: values must be a map"},
      {ANSWER "  segment: {at: /a, values: {a: b, c: [d]}}\n", ":8: a meaning in values must be one value"},
      {ANSWER "  segment:\n    at: /a\n    values:\n      a: b\n      a: c\n",
       ":12: segment: the word \"a\" is given twice"},
      {ANSWER "  segment: {constant: \"a\\0b\"}\n", ":8: constant contains U+0000"},
      {ANSWER "  value: {at: /v, default: 1}\n", ":8: value: has no default; it must come from the payload"},
      {ANSWER "  value: {at: /v, numbers: true}\n", ":8: value: numbers are read anyhow"},
      {ANSWER "  value: {at: /v, values: {a: 1}}\n", ":8: value: has no values"},
      {ANSWER "---\nfields: {}\n", ":9: a second YAML document in the file; only one is read"},
      {ANSWER "---\nfields: [\n", ":10: "},
      {ANSWER "  [a]: /x\n", ":8: a key must be one value"},
      {FIELDS "  type: {constant: answers}\n",
       ":5: type: \"answers\" must be interaction, invitation or answer"},
      {FIELDS "  type: {constant: answer}\n  score: /s\n", ":2: fields: scale is missing"},
      {FIELDS "  type: /type\n  scale: /x\n", ":2: fields: score is missing"},
      {FIELDS "  type: {constant: answer}\n  score: /s\n  scale: {at: /x, values: {a: nps5}}\n",
       ":7: scale: \"nps5\" must be nps, csat or ces"},
      {FIELDS
       "  type: {constant: answer}\n  scale: {constant: nps}\n  score: {at: /s, values: {likely: 11}}\n",
       ":7: score: \"11\" must be a whole number from 0 to 10"},
      {"fields:\n  time: /t\n",
       ":2: time: say its format (rfc3339, seconds or milliseconds): it is never guessed"},
      {"fields:\n  time: {at: /t, format: epoch}\n", ":2: format must be rfc3339, seconds or milliseconds"},
      {"fields:\n  time: {constant: now, format: seconds}\n", ":2: time: has no constant"},
      {"fields:\n  time: {at: /t, format: seconds, lower: true}\n", ":2: time: has no lower"},
      {"fields:\n  id: {constant: x}\n", ":2: id: has no constant; it must come from the payload"},
      {ANSWER "rules: {}\n", ":8: rules must be a list"},
      {ANSWER "rules:\n  - correction\n", ":9: a rule must be a map; its keys: when, is, is_not, then"},
      {ANSWER "rules:\n  - {when: /a, is: b, then: late}\n", ":9: then must be correction or no_event"},
      {ANSWER "rules:\n  - {when: /a, then: no_event}\n",
       ":9: a rule needs when (a JSON pointer), is or is_not"},
      {ANSWER "rules:\n  - {is: a, then: no_event}\n", ":9: a rule needs when"},
      {ANSWER "rules:\n  - {when: /a, is: a}\n", ":9: a rule needs when"},
      {ANSWER "rules:\n  - {when: /a, is: [], then: no_event}\n", ":9: a rule needs at least one value"},
      {ANSWER "rules:\n  - {when: /a, is: [[b]], then: no_event}\n",
       ":9: a value of a rule must be one value"},
      {ANSWER "rules:\n  - {when: /a, is: b, is_not: c, then: no_event}\n",
       ":9: a rule has either is or is_not"},
      {ANSWER "rules:\n  - {when: /a, if: b}\n",
       ":9: a rule: unknown key \"if\"; allowed: when, is, is_not, then"},
      {ANSWER "signature: X\n", ":8: signature must be a map; its keys: header, prefix, encoding"},
      {ANSWER "signature: {}\n", ":8: signature: needs header"},
      {ANSWER "signature: {header: ''}\n", ":8: header must not be empty"},
      {ANSWER "signature: {header: 'X: y'}\n", ":8: header: no character but visible ASCII"},
      {ANSWER "signature: {header: \"X\\r\\nY\"}\n", ":8: header: no character but visible ASCII"},
      {ANSWER "signature: {header: X, prefix: 'a b'}\n", ":8: prefix: no character but visible ASCII"},
      {ANSWER "signature: {header: X, encoding: HEX}\n", ":8: encoding must be hex or base64"},
      {ANSWER "signature: {header: X, secret: y}\n", ":8: signature: unknown key \"secret\""},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    livenps_error error = {0};
    livenps_mapping *mapping = NULL;
    if (load(&mapping, rows[i].yaml, &error) == 0 || mapping) {
      fail_msg("row %zu was accepted: %s", i, rows[i].yaml);
    }
    if (strncmp(error.text, rows[i].want, strlen(rows[i].want)) != 0 || error.code != LIVENPS_E_USAGE) {
      fail_msg("row %zu: got \"%s\", want \"%s\"", i, error.text, rows[i].want);
    }
  }
  livenps_error error = {0};
  livenps_mapping *mapping = NULL;
  assert_int_equal(livenps_mapping_load(&mapping, "/nowhere/at-all.yaml", &error), -1);
  assert_string_equal(error.text, "/nowhere/at-all.yaml: No such file or directory");
  livenps_error_clear(&error);
  assert_int_equal(livenps_mapping_load(&mapping, "/tmp", &error), -1);
  assert_non_null(strstr(error.text, "/tmp"));
}

static void reads(const char *yaml, const char *payload, const char *want) {
  livenps_error error = {0};
  livenps_mapping *mapping = NULL;
  if (load(&mapping, yaml, &error) < 0) {
    fail_msg("%s", error.text);
  }
  livenps_record record = {.value = livenps_text_of(payload)};
  livenps_event event;
  livenps_where where;
  livenps_reason reason = livenps_decode(decoder, mapping, 1000, &record, &event, &where);
  if (reason != LIVENPS_REASON_NONE) {
    char got[200];
    snprintf(got, sizeof got, "%s %zu %s", livenps_reason_name(reason), where.offset, where.field);
    assert_string_equal(got, want);
  } else {
    json_t *object = event_to_json(&event);
    char *dump = json_dumps(object, JSON_COMPACT);
    assert_string_equal(dump, want);
    free(dump);
    json_decref(object);
  }
  livenps_mapping_free(mapping);
}

static void accepted(void **state) {
  (void)state;
  /* values, default and constant, numbers, folding */
  static const char rich[] = FIELDS "  type: {at: /kind, values: {survey: answer, call: interaction}}\n"
                                    "  scale: {at: /q, values: {recommend: nps}, default: csat}\n"
                                    "  score: {at: /s, values: {yes: 10, 'no': 0}}\n"
                                    "  channel: {at: /c, values: {'1': Phone, WWW: web}, numbers: true}\n"
                                    "  segment: {at: /g, lower: true}\n"
                                    "  stage: {constant: After}\n"
                                    "  customer: {at: /who, numbers: true}\n"
                                    "  value: /v\n";
  reads(
      rich,
      "{\"id\":\"1\",\"t\":5,\"tp\":\"x\",\"kind\":\"survey\",\"q\":\"recommend\",\"s\":\"yes\",\"c\":1,"
      "\"g\":\"VIP\",\"who\":77,\"v\":\"1.5\"}",
      "{\"id\":\"1\",\"type\":\"answer\",\"time_ms\":5,\"touchpoint\":\"x\",\"channel\":\"phone\","
      "\"segment\":\"vip\",\"stage\":\"after\",\"customer\":\"77\",\"scale\":\"nps\",\"score\":10,\"value\":150}");
  reads(rich, "{\"id\":\"1\",\"t\":\"5\",\"tp\":\"X\",\"kind\":\"answer\",\"s\":4,\"c\":\"WWW\"}",
        "{\"id\":\"1\",\"type\":\"answer\",\"time_ms\":5,\"touchpoint\":\"X\",\"channel\":\"web\","
        "\"stage\":\"after\",\"scale\":\"csat\",\"score\":4}");
  reads(rich, "{\"id\":\"1\",\"t\":5,\"tp\":\"x\",\"kind\":\"call\"}",
        "{\"id\":\"1\",\"type\":\"interaction\",\"time_ms\":5,\"touchpoint\":\"x\",\"stage\":\"after\"}");
  reads(rich, "{\"id\":\"1\",\"t\":5,\"tp\":\"x\",\"kind\":\"visit\"}", "unknown_type 32 type");
  reads(rich, "{\"id\":\"1\",\"t\":5,\"tp\":\"x\",\"kind\":\"survey\",\"s\":\"perhaps\"}",
        "bad_score 45 score");
  reads(rich, "{\"id\":1,\"t\":5,\"tp\":\"x\",\"kind\":\"call\"}", "wrong_type 6 id");
  reads(rich, "{\"id\":\"1\",\"t\":5,\"tp\":\"x\",\"kind\":\"call\",\"who\":1.5}", "wrong_type 45 customer");
  /* reserved names, CloudEvents and so on belong to the contract: a vendor may use them for itself */
  reads(
      rich,
      "{\"specversion\":\"9\",\"deleted\":true,\"revision\":2,\"id\":\"1\",\"t\":5,\"tp\":\"x\",\"kind\":\"call\"}",
      "{\"id\":\"1\",\"type\":\"interaction\",\"time_ms\":5,\"touchpoint\":\"x\",\"stage\":\"after\"}");
}

static void rules(void **state) {
  (void)state;
#define CALL  FIELDS "  type: {constant: interaction}\n"
#define BODY  "\"id\":\"1\",\"t\":5,\"tp\":\"x\"}"
#define EVENT "{\"id\":\"1\",\"type\":\"interaction\",\"time_ms\":5,\"touchpoint\":\"x\"}"
  static const char is[] = CALL "rules:\n  - {when: /e, is: [updated, true, 7], then: correction}\n";
  reads(is, "{\"e\":\"created\"," BODY, EVENT);
  reads(is, "{\"e\":\"updated\"}", "correction 5 /e");
  reads(is, "{\"e\":true}", "correction 5 /e");
  reads(is, "{\"e\":\"true\"}", "correction 5 /e");
  reads(is, "{\"e\":7}", "correction 5 /e");
  reads(is, "{\"e\":7.0," BODY, EVENT);
  reads(is, "{\"e\":false," BODY, EVENT);
  reads(is, "{\"e\":null," BODY, EVENT);
  reads(is, "{\"e\":[\"updated\"]," BODY, EVENT);
  reads(is, "{" BODY, EVENT);
  static const char is_not[] = CALL "rules:\n  - {when: /e, is_not: created, then: no_event}\n";
  reads(is_not, "{\"e\":\"created\"," BODY, EVENT);
  reads(is_not, "{\"e\":\"other\"," BODY, "no_event 5 /e");
  reads(is_not, "{\"e\":null," BODY, "no_event 5 /e");
  reads(is_not, "{\"e\":{}," BODY, "no_event 5 /e");
  reads(is_not, "{" BODY, "no_event 0 /e");
  static const char both[] = CALL "rules:\n  - {when: /e, is: u, then: correction}\n"
                                  "  - {when: /e, is_not: c, then: no_event}\n";
  reads(both, "{\"e\":\"u\"," BODY, "correction 5 /e");
  reads(both, "{\"e\":\"x\"," BODY, "no_event 5 /e");
  reads(both, "{\"e\":\"c\"," BODY, EVENT);
}

static void times(void **state) {
  (void)state;
  static const struct {
    const char *format, *literal;
    long long ms; /* -1: bad_time */
  } rows[] = {
      {"seconds", "1795256100", 1795256100000},
      {"seconds", "\"1795256100\"", 1795256100000},
      {"seconds", "1795256100.1239", 1795256100123},
      {"seconds", "1795256100.5", 1795256100500},
      {"seconds", "0", 0},
      {"seconds", "253402300799.999", 253402300799999},
      {"seconds", "253402300800", -1},
      {"seconds", "1795256100123", -1}, /* milliseconds, year 58859 */
      {"seconds", "1e9", -1},
      {"seconds", "\"1.\"", -1},
      {"seconds", "\".5\"", -1},
      {"seconds", "\"01\"", -1},
      {"seconds", "\"\"", -1},
      {"seconds", "\"-\"", -1},
      {"seconds", "\"1 \"", -1},
      {"seconds", "99999999999999999999999999", -1},
      {"seconds", "\"2026-11-21T10:15:00Z\"", -1},
      {"milliseconds", "1795256100123", 1795256100123},
      {"milliseconds", "\"1795256100123\"", 1795256100123},
      {"milliseconds", "1795256100", 1795256100}, /* seconds: January 1970, which ends as late */
      {"milliseconds", "1795256100123.0", -1},
      {"milliseconds", "253402300799999", 253402300799999},
      {"milliseconds", "253402300800000", -1},
      {"milliseconds", "18446744073709551616", -1},
      {"rfc3339", "\"2026-11-21T10:15:00Z\"", 1795256100000},
      {"rfc3339", "1795256100", -1},
      {"rfc3339", "\"1795256100\"", -1},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char yaml[300];
    char payload[200];
    char want[200];
    snprintf(
        yaml, sizeof yaml,
        "fields: {id: /id, type: {constant: interaction}, touchpoint: /tp, time: {at: /t, format: %s}}\n",
        rows[i].format);
    snprintf(payload, sizeof payload, "{\"id\":\"1\",\"tp\":\"x\",\"t\":%s}", rows[i].literal);
    snprintf(want, sizeof want,
             "{\"id\":\"1\",\"type\":\"interaction\",\"time_ms\":%lld,\"touchpoint\":\"x\"}", rows[i].ms);
    reads(yaml, payload, rows[i].ms < 0 ? "bad_time 23 time" : want);
  }
  reads(
      "fields: {id: /id, type: {constant: interaction}, touchpoint: /tp, time: {at: /t, format: seconds}}\n",
      "{\"id\":\"1\",\"tp\":\"x\",\"t\":-1.25}",
      "{\"id\":\"1\",\"type\":\"interaction\",\"time_ms\":-1250,\"touchpoint\":\"x\"}");
}

static char *print(const livenps_mapping *mapping) {
  livenps_buffer out = {0};
  livenps_mapping_print(mapping, &out);
  livenps_buffer_add(&out, "", 1);
  return out.at;
}

static void canonical(void **state) {
  (void)state;
  static const char *const files[] = {
      ANSWER,
      ANSWER "  channel: /c\n",
      ANSWER "  channel: {constant: /c}\n",
      ANSWER "  channel: {at: /c, default: a}\n",
      ANSWER "  channel: {at: /c, numbers: true}\n",
      ANSWER "  channel: {at: /c, values: {a: b}}\n",
      ANSWER "  channel: {at: /c, values: {b: a}}\n",
      ANSWER "  segment: /c\n",
      ANSWER "  segment: {at: /c, lower: true}\n",
      ANSWER "rules: [{when: /c, is: a, then: correction}]\n",
      ANSWER "rules: [{when: /c, is: a, then: no_event}]\n",
      ANSWER "rules: [{when: /c, is_not: a, then: no_event}]\n",
      ANSWER "rules: [{when: /c, is: [a, b], then: no_event}]\n",
      ANSWER "rules: [{when: /c, is: 'a value 1:b', then: no_event}]\n",
  };
  enum { COUNT = sizeof files / sizeof *files };
  char *texts[COUNT + 1];
  for (size_t i = 0; i < COUNT; i++) {
    livenps_error error = {0};
    livenps_mapping *mapping;
    assert_int_equal(load(&mapping, files[i], &error), 0);
    texts[i] = print(mapping);
    livenps_mapping_free(mapping);
  }
  livenps_error error = {0};
  livenps_mapping *contract;
  assert_int_equal(livenps_mapping_default(&contract, &error), 0);
  texts[COUNT] = print(contract);
  livenps_mapping_free(contract);
  for (size_t i = 0; i <= COUNT; i++) {
    for (size_t k = 0; k < i; k++) {
      assert_string_not_equal(texts[i], texts[k]);
    }
  }
  for (size_t i = 0; i <= COUNT; i++) {
    free(texts[i]);
  }
  /* Layout, comments and the order of the fields do not matter. */
  livenps_mapping *a;
  livenps_mapping *b;
  assert_int_equal(load(&a, ANSWER, &error), 0);
  assert_int_equal(load(&b,
                        "# the same\nfields:\n  score: {at: /s}\n  scale: {constant: \"nps\"}\n"
                        "  touchpoint: /tp\n  time:\n    format: milliseconds\n    at: /t\n"
                        "  type:\n    constant: answer\n  id: '/id'\n",
                        &error),
                   0);
  char *one = print(a);
  char *two = print(b);
  assert_string_equal(one, two);
  free(one);
  free(two);
  livenps_mapping_free(a);
  livenps_mapping_free(b);
}

static void signatures(void **state) {
  (void)state;
  static const struct {
    const char *yaml, *header, *prefix;
    int encoding;
  } rows[] = {
      {ANSWER, NULL, NULL, 0},
      {ANSWER "signature: {header: X-Sig}\n", "X-Sig", NULL, LIVENPS_SIGNATURE_HEX},
      {ANSWER "signature: {header: X-Sig, prefix: v1=, encoding: hex}\n", "X-Sig",
       "v1=", LIVENPS_SIGNATURE_HEX},
      {ANSWER "signature: {header: Y, encoding: base64}\n", "Y", NULL, LIVENPS_SIGNATURE_BASE64},
  };
  livenps_buffer without = {0}, with = {0};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    livenps_mapping *mapping = NULL;
    livenps_error error = {0};
    assert_int_equal(load(&mapping, rows[i].yaml, &error), 0);
    const livenps_signature *signature = livenps_mapping_signature(mapping);
    assert_int_equal(signature != NULL, rows[i].header != NULL);
    if (signature) {
      assert_string_equal(signature->header, rows[i].header);
      assert_int_equal(signature->prefix != NULL, rows[i].prefix != NULL);
      if (rows[i].prefix) {
        assert_string_equal(signature->prefix, rows[i].prefix);
      }
      assert_int_equal(signature->encoding, rows[i].encoding);
    }
    /* It changes no record's fate, so no namespace's admit hash. */
    livenps_mapping_print(mapping, i ? &with : &without);
    livenps_mapping_free(mapping);
    if (i) {
      assert_int_equal(with.length, without.length);
      assert_memory_equal(with.at, without.at, with.length);
    }
    livenps_buffer_free(&with);
  }
  livenps_buffer_free(&without);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(refused), cmocka_unit_test(signatures), cmocka_unit_test(accepted),
      cmocka_unit_test(rules),   cmocka_unit_test(times),      cmocka_unit_test(canonical),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
