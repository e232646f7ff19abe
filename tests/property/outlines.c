/* Whatever a decoder has learned from earlier records, the next one means the same: for records of the generator, the recorded cases and the
 * examples, in the contract's forms and by vendors' mappings, and for their changes - bytes, stretches of other records, escapes, other scalars
 * in a value's place - a decoder that has seen many says what a new one says: fate, reason, where, and every value. */
#include "common/clock.h"
#include "producer/encode.h"
#include "producer/generate.h"
#include "tests/unit/decode_case.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>
#include <cmocka.h>

#define NOW_MS INT64_C(1795256100000)
enum { MAPPINGS = 4, GENERATED = 600, RECORDS = 2000, CHANGED = 60000 };

typedef struct {
  livenps_text value;
  livenps_header headers[8];
  size_t header_count;
  int mapping;
} sample;

static livenps_mapping *mappings[MAPPINGS];
static const char *const mapping_files[MAPPINGS] = {NULL, "config/mappings/delighted.yaml",
                                                    "config/mappings/typeform.yaml", NULL};

/* Everything that a mapping can say of a field. */
static const char every_word[] =
    "rules:\n"
    "  - {when: /x, is: ['no', '0'], then: no_event}\n"
    "  - {when: /y/0, is_not: [a, b, 'true'], then: correction}\n"
    "fields:\n"
    "  id: {at: /i, numbers: true, lower: true}\n"
    "  type: {at: /t, values: {resp: answer, seen: interaction}, default: interaction}\n"
    "  time: {at: /w, format: milliseconds}\n"
    "  touchpoint: {at: /p, values: {a: alpha, B: beta}, default: nowhere, lower: true}\n"
    "  channel: {at: /c, default: web}\n"
    "  segment: {at: /s, numbers: true}\n"
    "  stage: /g\n"
    "  customer: {at: /u, numbers: true, lower: true}\n"
    "  scale: {at: /k, values: {five: csat}, default: nps}\n"
    "  score: {at: /r, values: {good: 5, bad: 1}}\n"
    "  value: /v\n";
static const char *const every_word_records[] = {
    "{\"y\":[\"a\"],\"i\":\"Ab\",\"w\":1795256100000}",
    "{\"y\":[\"a\"],\"i\":\"aB\",\"w\":1795256100001,\"p\":\"a\"}",
    "{\"y\":[\"b\"],\"i\":12,\"w\":\"1795256100000\",\"p\":\"B\",\"c\":\"Web\",\"s\":7,\"g\":\"\",\"u\":\"Me\"}",
    "{\"y\":[true],\"i\":-12,\"w\":\"1795256100000\",\"p\":\"C\",\"c\":null,\"s\":\"S\",\"g\":\"After\",\"u\":5}",
    "{\"x\":1,\"y\":[\"a\"],\"i\":\"1\",\"t\":\"resp\",\"w\":1795256100000,\"r\":\"good\",\"v\":1.25}",
    "{\"x\":1,\"y\":[\"a\"],\"i\":\"2\",\"t\":\"resp\",\"w\":1795256100000,\"k\":\"five\",\"r\":\"bad\",\"v\":\"-1\"}",
    "{\"x\":1,\"y\":[\"a\"],\"i\":\"3\",\"t\":\"resp\",\"w\":1795256100000,\"k\":\"five\",\"r\":3,\"v\":null}",
    "{\"x\":\"no\",\"y\":[\"a\"],\"i\":\"4\",\"t\":\"seen\",\"w\":1795256100000}",
    "{\"x\":0,\"y\":[\"a\"],\"i\":\"5\",\"t\":\"seen\",\"w\":1795256100000}",
    "{\"x\":2,\"y\":[\"c\"],\"i\":\"6\",\"t\":\"seen\",\"w\":1795256100000}",
    "{\"y\":[\"a\"],\"i\":\"7\",\"w\":1795256100000,\"p\":\"seventy bytes or more are encoded before their length is believed: {{{{{{{{{{\"}",
    "{\"y\":[\"a\"],\"i\":\"8\",\"w\":1795256100000,\"p\":\"a touchpoint of more than sixteen bytes With A Capital\"}",
};

static livenps_mapping *mapping_of(const char *text) {
  char path[] = "/tmp/livenps-outlines-XXXXXX";
  livenps_error error = {0};
  livenps_mapping *mapping = NULL;
  const int file = mkstemp(path);
  if (file < 0 || write(file, text, strlen(text)) != (ssize_t)strlen(text) ||
      livenps_mapping_load(&mapping, path, &error))
    fprintf(stderr, "%s\n", error.text);
  close(file);
  unlink(path);
  return mapping;
}
static sample samples[RECORDS];
static size_t sample_count;
static uint64_t chance = 20261122;

static uint32_t below(uint32_t bound) {
  return livenps_random_below(&chance, bound);
}

static sample *add(const char *bytes, size_t length, int mapping) {
  assert_true(sample_count < RECORDS);
  sample *s = &samples[sample_count++];
  *s = (sample){.value = {livenps_copy(bytes, length), length}, .mapping = mapping};
  return s;
}

static void add_lines(const char *file, int mapping) {
  char path[512];
  size_t length;
  snprintf(path, sizeof path, LIVENPS_SOURCE_DIR "/config/examples/%s", file);
  char *text = read_file(path, &length);
  assert_non_null(text);
  for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
    add(line, strlen(line), mapping);
  free(text);
}

static void add_cases(void) {
  DIR *folder = opendir(CASES);
  assert_non_null(folder);
  for (struct dirent *entry = readdir(folder); entry; entry = readdir(folder)) {
    size_t length = 0, ignored;
    char *value = entry->d_name[0] == '.' ? NULL : case_value(entry->d_name, &length);
    if (!value || length > 4096) {
      free(value);
      continue;
    }
    char *mapping = case_file(entry->d_name, "mapping", &ignored);
    int number = 0;
    for (int m = 1; m < MAPPINGS; m++)
      if (mapping && mapping_files[m] && strncmp(mapping, mapping_files[m], strlen(mapping_files[m])) == 0)
        number = m;
    sample *s = add(value, length, number);
    s->header_count = case_headers(case_file(entry->d_name, "headers", &ignored), s->headers, 8); /* kept */
    free(mapping);
    free(value);
  }
  closedir(folder);
}

/* CloudEvents in binary mode: what the headers say counts, not what the body says of the same. */
static void add_headers(sample *s, const livenps_event *event) {
  static const char *const types[] = {"com.example.interaction", "invitation", "com.example.answer"};
  char time[32];
  const livenps_header headers[] = {
      {livenps_text_of("ce_specversion"), livenps_text_of("1.0")},
      {livenps_text_of("ce_type"), livenps_text_of(types[event->type])},
      {livenps_text_of("ce_source"), livenps_text_of("/desk")},
      {livenps_text_of("ce_id"), event->id},
      {livenps_text_of("ce_time"), livenps_text_of(livenps_time_print(event->time_ms - 1000, time))},
      {livenps_text_of("content-type"), livenps_text_of("application/json")},
  };
  s->header_count = sizeof headers / sizeof *headers;
  for (size_t i = 0; i < s->header_count; i++) {
    s->headers[i] = headers[i];
    s->headers[i].value.at = livenps_copy(headers[i].value.at, headers[i].value.length); /* kept */
  }
}

static void add_generated(void) {
  const livenps_generator_options options = {
      .seed = 7, .touchpoints = 40, .start_ms = NOW_MS, .incident_at = LIVENPS_NO_INCIDENT};
  livenps_generator *generator;
  livenps_generated made;
  livenps_buffer line = {0};
  livenps_error error = {0};
  assert_int_equal(livenps_generator_open(&generator, &options, &error), 0);
  for (int i = 0; i < GENERATED; i++) {
    livenps_generator_next(generator, NOW_MS - (GENERATED - i) * 977, &made);
    line.length = 0;
    if (i % 3 == 1)
      livenps_encode_cloudevent(&made.event, &line);
    else
      livenps_encode(&made.event, &line);
    sample *s = add(line.at, line.length, 0);
    if (i % 3 == 2)
      add_headers(s, &made.event);
  }
  livenps_buffer_free(&line);
  livenps_generator_close(generator);
}

static int set_up(void **state) {
  (void)state;
  livenps_error error = {0};
  for (int m = 0; m < MAPPINGS; m++) {
    char path[512];
    snprintf(path, sizeof path, LIVENPS_SOURCE_DIR "/%s", mapping_files[m] ? mapping_files[m] : "");
    if (mapping_files[m])
      livenps_mapping_load(&mappings[m], path, &error);
    else if (m)
      mappings[m] = mapping_of(every_word);
    else
      livenps_mapping_default(&mappings[m], &error);
    if (!mappings[m])
      return -1;
  }
  add_lines("plain.jsonl", 0);
  add_lines("cloudevents.jsonl", 0);
  add_lines("delighted.jsonl", 1);
  add_lines("delighted-refused.jsonl", 1);
  add_lines("typeform.jsonl", 2);
  add_lines("typeform-refused.jsonl", 2);
  for (size_t i = 0; i < sizeof every_word_records / sizeof *every_word_records; i++)
    add(every_word_records[i], strlen(every_word_records[i]), 3);
  add_cases();
  add_generated();
  return 0;
}

/* ---- changes ---- */

static void splice(livenps_buffer *out, size_t at, size_t remove, const char *bytes, size_t length) {
  livenps_buffer tail = {0};
  livenps_buffer_add(&tail, out->at + at + remove, out->length - at - remove);
  out->length = at;
  livenps_buffer_add(out, bytes, length);
  livenps_buffer_add(out, tail.at ? tail.at : "", tail.length);
  livenps_buffer_free(&tail);
}

/* Where a value stands: behind a random colon, up to what ends it (roughly: a string's commas end it too). */
static bool a_value(const livenps_buffer *in, size_t *at, size_t *length) {
  for (int tries = 0; tries < 40 && in->length > 0; tries++) {
    size_t i = below((uint32_t)in->length);
    if (in->at[i] != ':')
      continue;
    *at = i + 1;
    for (i++; i < in->length && !strchr(",}]", in->at[i]); i++)
      ;
    *length = i - *at;
    return true;
  }
  return false;
}

static void change(livenps_buffer *out) {
  static const char *const scalars[] = {
      "null",
      "true",
      "false",
      "0",
      "-0",
      "01",
      "1.5",
      "-1.25",
      "1e3",
      "1E+2",
      "10",
      "11",
      "12345678901",
      "\"\"",
      "\"9\"",
      "\"10\"",
      "\"nps\"",
      "\"csat\"",
      "\"ces\"",
      "\"Web\"",
      "\"answer\"",
      "\"a.b.invitation\"",
      "\"2026-11-21T10:15:00Z\"",
      "\"2026-11-21T23:59:60.5Z\"",
      "\"2026-02-30T10:15:00Z\"",
      "\"2024-02-29t00:00:00.1234+05:30\"",
      "1763720100",
      "1763720100123",
      "\"\\u00e4\\n\"",
      "\"\\ud83d\\ude00\"",
      "\"\\ud83d\"",
      "\"\xC3\xA4\"",
      "\"\xC3\"",
      "{}",
      "[]",
      "{\"a\":1}",
      "[1,\"x\"]",
      "\"x y\"",
      "\"{}:|%\"",
      "\"\\u0000\"",
      "tru",
      "\"open",
      "-",
      "\"1.0\"",
      "\"application/json\"",
      "\"text/plain\"",
  };
  static const char *const pieces[] = {"\"",
                                       "\\",
                                       ",",
                                       ":",
                                       "{",
                                       "}",
                                       "[",
                                       "]",
                                       " ",
                                       "\n",
                                       "\t",
                                       "0",
                                       ".",
                                       "-",
                                       "e",
                                       "\\u0041",
                                       "\xC3\xA9",
                                       "\xFF",
                                       "\x01",
                                       "\xE2\x82",
                                       "\"x\":1,",
                                       ",\"x\":\"y\"",
                                       ",\"id\":\"z\"",
                                       "\"data\":{",
                                       "\"score\":3,",
                                       ",\"value\":1.5",
                                       "\"revision\":1,",
                                       "\"deleted\":null,"};
  const size_t at = out->length ? below((uint32_t)out->length) : 0;
  size_t from, length;
  switch (below(9)) {
  case 0: /* a byte */
    if (out->length)
      out->at[at] = (char)below(256);
    break;
  case 1: /* a bit */
    if (out->length)
      out->at[at] = (char)(out->at[at] ^ 1 << below(8));
    break;
  case 2: splice(out, at, out->length - at < 3 ? 0 : below(3), "", 0); break;
  case 3: {
    const char *piece = pieces[below(sizeof pieces / sizeof *pieces)];
    splice(out, at, 0, piece, strlen(piece));
    break;
  }
  case 4: out->length = at; break;
  case 5: { /* a stretch of another record, or of this one once more */
    const sample *other = &samples[below((uint32_t)sample_count)];
    if (other->value.length > 0) {
      from = below((uint32_t)other->value.length);
      length = below((uint32_t)(other->value.length - from) + 1);
      splice(out, at, 0, other->value.at + from, length < 40 ? length : 40);
    }
    break;
  }
  case 6: /* a stretch a string's characters would fill in */
    for (uint32_t i = below(40); i > 0; i--)
      splice(out, at, 0, &"aZ09 /.~%\xC3\xA4"[below(9)], 1);
    break;
  default: /* another value, most of all */
    if (a_value(out, &from, &length)) {
      const char *scalar = scalars[below(sizeof scalars / sizeof *scalars)];
      splice(out, from, length, scalar, strlen(scalar));
    }
  }
}

/* ---- the same ---- */

static bool same_where(const livenps_where *a, const livenps_where *b) {
  return a->offset == b->offset && strcmp(a->field, b->field) == 0 && strcmp(a->detail, b->detail) == 0;
}

static bool same_event(const livenps_event *a, const livenps_event *b) {
  bool same = a->type == b->type && a->scale == b->scale && a->score == b->score &&
              a->has_value == b->has_value && a->value == b->value && a->time_ms == b->time_ms &&
              livenps_text_equal(a->id, b->id) && livenps_text_equal(a->customer, b->customer);
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++)
    same = same && livenps_text_equal(a->dimensions[d], b->dimensions[d]);
  return same;
}

/* Returns whether it was accepted. */
static bool compare(livenps_decoder *warm, livenps_text value, const sample *like) {
  static const livenps_admission admission = {
      .max_bytes = LIVENPS_MAX_RECORD, .late_ms = INT64_C(604800000), .future_ms = 60000};
  /* A block of its exact size, so that a sanitizer sees every step outside. */
  char *bytes = malloc(value.length ? value.length : 1);
  memcpy(bytes, value.at, value.length);
  const livenps_record record = {.value = {bytes, value.length},
                                 .headers = like->headers,
                                 .header_count = like->header_count,
                                 .timestamp_ms = NOW_MS};
  livenps_decoder *fresh = livenps_decoder_new();
  livenps_event warm_event, fresh_event;
  livenps_reason warm_reason, fresh_reason;
  livenps_where warm_where = {0}, fresh_where = {0};
  const livenps_fate warm_fate = livenps_admit(warm, mappings[like->mapping], &admission, &record,
                                               &warm_event, &warm_reason, &warm_where);
  const livenps_fate fresh_fate = livenps_admit(fresh, mappings[like->mapping], &admission, &record,
                                                &fresh_event, &fresh_reason, &fresh_where);
  if (warm_fate != fresh_fate || warm_reason != fresh_reason || !same_where(&warm_where, &fresh_where) ||
      (fresh_fate != LIVENPS_REJECTED && !same_event(&warm_event, &fresh_event)))
    fail_msg("%.*s\nwarm: fate %d %s at %zu, fresh: fate %d %s at %zu", (int)value.length, bytes, warm_fate,
             livenps_reason_name(warm_reason), warm_where.offset, fresh_fate,
             livenps_reason_name(fresh_reason), fresh_where.offset);
  livenps_decoder_free(fresh);
  free(bytes);
  return fresh_reason == LIVENPS_REASON_NONE;
}

/* One that is accepted, and of which there are many alike. */
static const sample *generated(void) {
  return &samples[sample_count - 1 - below(GENERATED)];
}

static const sample *of_mapping(int mapping) {
  const sample *s;
  do
    s = &samples[below((uint32_t)sample_count)];
  while (s->mapping != mapping);
  return s;
}

/* Every record as it is, between accepted ones: else the decoder would find that comparing does not pay. */
static void records_as_they_are(void **state) {
  (void)state;
  livenps_decoder *warm = livenps_decoder_new();
  int accepted = 0;
  uint64_t shortly = 0;
  for (int round = 0; round < 20; round++)
    for (size_t i = 0; i < sample_count; i++) {
      const sample *between = generated();
      assert_true(compare(warm, between->value, between));
      const uint64_t before = livenps_decoder_short(warm);
      const bool good = compare(warm, samples[i].value, &samples[i]);
      accepted += good && round > 9;
      shortly += round > 9 ? livenps_decoder_short(warm) - before : 0;
    }
  print_message("%d records accepted, %llu of them by the shorter way\n", accepted,
                (unsigned long long)shortly);
  assert_true(shortly > (uint64_t)accepted * 8 / 10);
  livenps_decoder_free(warm);
}

/* The same headers, one value of them changed, or some of another record's in their place. */
static void change_headers(sample *s, livenps_buffer *changed) {
  const sample *other = generated();
  if (below(3) == 0) {
    s->header_count = other->header_count;
    memcpy(s->headers, other->headers, sizeof s->headers);
  } else if (s->header_count > 0) {
    livenps_text *value = &s->headers[below((uint32_t)s->header_count)].value;
    changed->length = 0;
    livenps_buffer_add(changed, value->at ? value->at : "", value->length);
    change(changed);
    *value = (livenps_text){below(20) ? changed->at : NULL, below(20) ? changed->length : 0};
    value->length = value->at ? value->length : 0;
  }
}

/* A changed record, between records as they are. What is accepted is learned, comes once more, and is changed again. */
static void changed_records(void **state) {
  (void)state;
  livenps_decoder *warm = livenps_decoder_new();
  livenps_buffer changed = {0};
  livenps_buffer header = {0};
  int accepted = 0;
  uint64_t shortly = 0;
  for (int i = 0; i < CHANGED; i++) {
    const sample *s = below(2) ? generated() : &samples[below((uint32_t)sample_count)];
    if (i % 8 == 0) /* few, and they have more to go wrong */
      s = of_mapping(3);
    sample with = *s;
    if (below(4) == 0)
      change_headers(&with, &header);
    changed.length = 0;
    livenps_buffer_add(&changed, s->value.at, s->value.length);
    for (int good = 0; good < 2; good++) {
      const sample *between = generated();
      compare(warm, between->value, between);
    }
    if (i % 3)
      compare(warm, s->value, &with);
    for (uint32_t changes = 1 + below(3); changes > 0; changes--) {
      change(&changed);
      const uint64_t before = livenps_decoder_short(warm);
      if (compare(warm, (livenps_text){changed.at, changed.length}, &with)) {
        accepted++;
        shortly += livenps_decoder_short(warm) - before;
        compare(warm, (livenps_text){changed.at, changed.length}, &with);
      }
    }
  }
  print_message("%d changed records accepted, %llu of them by the shorter way\n", accepted,
                (unsigned long long)shortly);
  assert_true(accepted > CHANGED / 10);
  assert_true(shortly > CHANGED / 100);
  livenps_buffer_free(&header);
  livenps_buffer_free(&changed);
  livenps_decoder_free(warm);
}

/* More mappings than are remembered, and of one that is gone another's at its address. */
static void many_mappings(void **state) {
  (void)state;
  enum { MANY = 72 };
  livenps_decoder *warm = livenps_decoder_new();
  livenps_mapping *kept = mappings[0];
  livenps_mapping *many[MANY];
  livenps_error error = {0};
  for (int i = 0; i < MANY; i++)
    assert_int_equal(livenps_mapping_default(&many[i], &error), 0);
  for (int i = 0; i < 30000; i++) {
    const sample *s = generated();
    const uint64_t before = livenps_decoder_short(warm);
    mappings[0] = many[i < 20000 ? below(MANY) : i < 25000 ? 0 : MANY - 1];
    compare(warm, s->value, s);
    if (i > 29000)
      assert_true(livenps_decoder_short(warm) == before + 1); /* the one that is asked finds room */
    if (i % 1000 == 0) {
      const int gone = (int)below(MANY);
      livenps_mapping_free(many[gone]);
      assert_int_equal(livenps_mapping_default(&many[gone], &error), 0);
    }
  }
  mappings[0] = kept;
  for (int i = 0; i < MANY; i++)
    livenps_mapping_free(many[i]);
  livenps_decoder_free(warm);
}

/* A publisher changes its documents for good, after others have filled all room. */
static void outlines_that_come_and_go(void **state) {
  (void)state;
  livenps_decoder *warm = livenps_decoder_new();
  livenps_buffer document = {0};
  for (int epoch = 0; epoch < 3; epoch++) {
    uint64_t before = 0;
    for (int i = 0; i < 40000; i++) {
      const sample *s = generated();
      const int kind = i < 20000 && i % 3 ? (int)below(2000) : -1;
      document.length = 0;
      livenps_buffer_print(&document, "{\"epoch-%d\":0,", epoch);
      if (kind >= 0)
        livenps_buffer_print(&document, "\"kind-%d\":1,", kind);
      livenps_buffer_add(&document, s->value.at + 1, s->value.length - 1);
      if (i == 39000)
        before = livenps_decoder_short(warm);
      compare(warm, (livenps_text){document.at, document.length}, s);
    }
    assert_true(livenps_decoder_short(warm) - before > 900);
  }
  livenps_buffer_free(&document);
  livenps_decoder_free(warm);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(many_mappings),
      cmocka_unit_test(outlines_that_come_and_go),
      cmocka_unit_test(records_as_they_are),
      cmocka_unit_test(changed_records),
  };
  const int failed = cmocka_run_group_tests(tests, set_up, NULL);
  for (size_t i = 0; i < sample_count; i++)
    free((void *)(uintptr_t)samples[i].value.at);
  for (int m = 0; m < MAPPINGS; m++)
    livenps_mapping_free(mappings[m]);
  return failed;
}
