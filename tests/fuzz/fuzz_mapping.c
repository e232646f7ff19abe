/* Mapping files, from any bytes whatever, and records read by them. A file is refused with a line that says why, or it is
 * whole: loads to the same canonical text again, and what the scanner finds at its JSON pointers is what jansson has there.
 * A record read by it has the fate and the event that a second reading of docs/events.md, written here over jansson's tree,
 * gives it.
 *
 * Input: a mapping file, then records, each behind a byte 0xFF, which neither UTF-8 nor JSON has. */
#include "tests/fuzz/fuzz.h"

#include "common/clock.h"
#include "common/mapping.h"
#include "common/name.h"

#include <ctype.h>
#include <regex.h>
#include <string.h>

static livenps_scanner *scanner;
static livenps_decoder *decoder;
static regex_t whole_form, seconds_form, value_form;

static void set_up(void) {
  scanner = livenps_scanner_new();
  decoder = livenps_decoder_new();
  regcomp(&whole_form, "^-?(0|[1-9][0-9]*)$", REG_EXTENDED | REG_NOSUB);
  regcomp(&seconds_form, "^-?(0|[1-9][0-9]*)([.][0-9]+)?$", REG_EXTENDED | REG_NOSUB);
  regcomp(&value_form, "^-?(0|[1-9][0-9]*)([.][0-9]{1,2})?$", REG_EXTENDED | REG_NOSUB);
}

/* ---- the second reading ---- */

/* The text of a number or string; numbers as they are written, which only the scanner knows. To be freed. */
static char *text_of(const livenps_place *place, const json_t *value) {
  if (json_is_string(value)) {
    return strdup(json_string_value(value));
  }
  const livenps_found *found = livenps_find(livenps_scan_finds(scanner), place->node);
  return strndup(found->text.at, found->text.length);
}

/* What a field says: *out is NULL when it is absent; else to be freed. */
static livenps_reason said(const livenps_mapping *mapping, const json_t *document, livenps_field field,
                           char **out) {
  const livenps_place *place = &mapping->fields[field];
  const json_t *value = place->pointer ? resolve(document, place->pointer) : NULL;
  *out = NULL;
  if (!value || json_is_null(value)) {
    *out = place->fallback ? strdup(place->fallback) : NULL;
  } else if (json_is_string(value) || json_is_number(value)) {
    char *text = text_of(place, value);
    bool numeric =
        field == LIVENPS_FIELD_TIME || field == LIVENPS_FIELD_SCORE || field == LIVENPS_FIELD_VALUE;
    if (json_is_number(value) && !numeric &&
        !(place->numbers && regexec(&whole_form, text, 0, NULL, 0) == 0)) {
      free(text);
      return LIVENPS_REASON_WRONG_TYPE;
    }
    *out = text;
    for (size_t i = 0; i < place->word_count; i++) {
      if (strcmp(place->words[i].from, text) == 0) {
        *out = strdup(place->words[i].to);
        free(text);
        break;
      }
    }
  } else {
    return LIVENPS_REASON_WRONG_TYPE;
  }
  for (char *c = place->lower && *out ? *out : NULL; c && *c; c++) {
    *c = *c >= 'A' && *c <= 'Z' ? (char)(*c + 32) : *c;
  }
  return LIVENPS_REASON_NONE;
}

typedef struct {
  char *names[LIVENPS_FIELDS]; /* id, the dimensions, customer */
  int type, scale, score;
  bool has_value;
  double value;
  int64_t time_ms;
} reading;

static int word_of(const char *text, const char *const *words) {
  for (int i = 0; words[i]; i++) {
    if (strcmp(words[i], text) == 0) {
      return i;
    }
  }
  return -1;
}

static livenps_reason read_time(const livenps_place *place, bool string, const char *text, int64_t *out) {
  if (place->format == LIVENPS_TIME_RFC3339) {
    return string && livenps_time_parse(text, strlen(text), out) == 0 ? LIVENPS_REASON_NONE
                                                                      : LIVENPS_REASON_BAD_TIME;
  }
  bool seconds = place->format == LIVENPS_TIME_SECONDS;
  const char *digits = text + (*text == '-');
  if (regexec(seconds ? &seconds_form : &whole_form, text, 0, NULL, 0) != 0 ||
      strspn(digits, "0123456789") > 15) {
    return LIVENPS_REASON_BAD_TIME;
  }
  int64_t ms = strtoll(digits, NULL, 10) * (seconds ? 1000 : 1);
  const char *point = strchr(digits, '.');
  for (int i = 1, worth = 100; seconds && point && point[i] && worth; i++, worth /= 10) {
    ms += (point[i] - '0') * worth;
  }
  *out = *text == '-' ? -ms : ms;
  return *out >= INT64_C(-62135596800000) && *out <= INT64_C(253402300799999) ? LIVENPS_REASON_NONE
                                                                              : LIVENPS_REASON_BAD_TIME;
}

static livenps_reason read_score(const livenps_mapping *mapping, const json_t *document, reading *out) {
  static const int low[] = {0, 0, 1, 1}, high[] = {0, 10, 5, 7};
  static const char *const scales[] = {"", "nps", "csat", "ces", NULL};
  char *text;
  livenps_reason reason = said(mapping, document, LIVENPS_FIELD_SCALE, &text);
  if (reason != LIVENPS_REASON_NONE || !text) {
    return reason != LIVENPS_REASON_NONE ? reason : LIVENPS_REASON_MISSING_FIELD;
  }
  out->scale = word_of(text, scales);
  free(text);
  if (out->scale < 1) {
    return LIVENPS_REASON_UNKNOWN_SCALE;
  }
  reason = said(mapping, document, LIVENPS_FIELD_SCORE, &text);
  if (reason != LIVENPS_REASON_NONE || !text) {
    return reason != LIVENPS_REASON_NONE ? reason : LIVENPS_REASON_MISSING_FIELD;
  }
  bool whole = regexec(&whole_form, text, 0, NULL, 0) == 0 && *text != '-' && strlen(text) < 3;
  out->score = whole ? atoi(text) : -1;
  free(text);
  if (!whole || out->score < low[out->scale] || out->score > high[out->scale]) {
    return LIVENPS_REASON_BAD_SCORE;
  }
  reason = said(mapping, document, LIVENPS_FIELD_VALUE, &text);
  if (reason != LIVENPS_REASON_NONE || !text) {
    return reason;
  }
  out->has_value =
      regexec(&value_form, text, 0, NULL, 0) == 0 && strtod(text, NULL) <= 1e9 && strtod(text, NULL) >= -1e9;
  out->value = strtod(text, NULL);
  free(text);
  return out->has_value ? LIVENPS_REASON_NONE : LIVENPS_REASON_BAD_VALUE;
}

static livenps_reason read_name(const livenps_mapping *mapping, const json_t *document, livenps_field field,
                                reading *out) {
  bool required = field == LIVENPS_FIELD_ID || field == LIVENPS_FIELD_TOUCHPOINT;
  char *text;
  livenps_reason reason = said(mapping, document, field, &text);
  if (reason != LIVENPS_REASON_NONE || !text) {
    return reason != LIVENPS_REASON_NONE ? reason
           : required                    ? LIVENPS_REASON_MISSING_FIELD
                                         : LIVENPS_REASON_NONE;
  }
  size_t length = livenps_name_length(livenps_text_of(text));
  if (length > 0 && length <= LIVENPS_MAX_ID) {
    out->names[field] = text;
    return LIVENPS_REASON_NONE;
  }
  free(text);
  return length ? LIVENPS_REASON_NAME_TOO_LONG : required ? LIVENPS_REASON_EMPTY_NAME : LIVENPS_REASON_NONE;
}

static livenps_reason read_record(const livenps_mapping *mapping, const json_t *document, reading *out) {
  memset(out, 0, sizeof *out);
  out->score = -1;
  if (!json_is_object(document)) {
    return LIVENPS_REASON_NOT_OBJECT;
  }
  for (size_t i = 0; i < mapping->rule_count; i++) {
    const livenps_rule *rule = &mapping->rules[i];
    const json_t *value = resolve(document, rule->pointer);
    char *text = json_is_true(value)    ? strdup("true")
                 : json_is_false(value) ? strdup("false")
                 : json_is_string(value) || json_is_number(value)
                     ? text_of(&(livenps_place){.node = rule->node}, value)
                     : NULL;
    bool among = false;
    for (size_t v = 0; text && v < rule->value_count; v++) {
      among |= strcmp(rule->values[v], text) == 0;
    }
    free(text);
    if (among != rule->negated) {
      return rule->reason;
    }
  }
  livenps_reason reason = read_name(mapping, document, LIVENPS_FIELD_ID, out);
  char *text;
  if (reason != LIVENPS_REASON_NONE ||
      (reason = said(mapping, document, LIVENPS_FIELD_TYPE, &text)) != LIVENPS_REASON_NONE) {
    return reason;
  }
  static const char *const types[] = {"interaction", "invitation", "answer", NULL};
  out->type = text ? word_of(text, types) : -2;
  free(text);
  if (out->type < 0) {
    return out->type == -2 ? LIVENPS_REASON_MISSING_FIELD : LIVENPS_REASON_UNKNOWN_TYPE;
  }
  const livenps_place *time = &mapping->fields[LIVENPS_FIELD_TIME];
  if ((reason = said(mapping, document, LIVENPS_FIELD_TIME, &text)) != LIVENPS_REASON_NONE || !text) {
    return reason != LIVENPS_REASON_NONE ? reason : LIVENPS_REASON_MISSING_FIELD;
  }
  reason = read_time(time, json_is_string(resolve(document, time->pointer)), text, &out->time_ms);
  free(text);
  for (int f = LIVENPS_FIELD_TOUCHPOINT; f <= LIVENPS_FIELD_CUSTOMER && reason == LIVENPS_REASON_NONE; f++) {
    reason = read_name(mapping, document, (livenps_field)f, out);
  }
  return reason != LIVENPS_REASON_NONE || out->type != LIVENPS_ANSWER ? reason
                                                                      : read_score(mapping, document, out);
}

static void same_text(livenps_text text, const char *want, const char *what) {
  EXPECT((text.at == NULL) == (want == NULL), "%s", what);
  EXPECT(!want || text_is(text, want, strlen(want)), "%s: %.*s, not %s", what, (int)text.length, text.at,
         want);
}

static void same_event(const livenps_event *event, const reading *want) {
  same_text(event->id, want->names[LIVENPS_FIELD_ID], "id");
  same_text(event->customer, want->names[LIVENPS_FIELD_CUSTOMER], "customer");
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
    same_text(event->dimensions[d], want->names[LIVENPS_FIELD_TOUCHPOINT + d], livenps_dimension_names[d]);
  }
  EXPECT((int)event->type == want->type && (int)event->scale == want->scale && event->score == want->score,
         "type %d scale %d score %d", (int)event->type, (int)event->scale, event->score);
  EXPECT(event->time_ms == want->time_ms, "%lld, not %lld", (long long)event->time_ms,
         (long long)want->time_ms);
  double difference = (double)event->value - want->value * 100;
  EXPECT(event->has_value == want->has_value && difference < 0.001 && difference > -0.001,
         "value %lld, not %f", (long long)event->value, want->value);
}

/* ---- the target ---- */

static void record(const livenps_mapping *mapping, const char *at, size_t length) {
  char *bytes = livenps_copy(at, length);
  size_t offset;
  const char *detail;
  livenps_reason reason = livenps_scan(scanner, &mapping->paths, bytes, length, &offset, &detail);
  json_t *document =
      memchr(bytes, 0, length)
          ? NULL
          : json_loadb(bytes, length, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL,
                       NULL);
  livenps_event event;
  livenps_where where;
  livenps_record whole = {.value = {bytes, length}};
  livenps_reason decoded = livenps_decode(decoder, mapping, LIVENPS_MAX_RECORD, &whole, &event, &where);
  if (document && depth_of(document) <= LIVENPS_MAX_DEPTH) {
    EXPECT(reason == LIVENPS_REASON_NONE, "%s at %zu: %s", livenps_reason_name(reason), offset, detail);
    const livenps_finds *finds = livenps_scan_finds(scanner);
    for (int f = 0; f < LIVENPS_FIELDS; f++) {
      const livenps_place *place = &mapping->fields[f];
      if (place->pointer) {
        same_value(livenps_find(finds, place->node), resolve(document, place->pointer), place->pointer);
      }
    }
    for (size_t i = 0; i < mapping->rule_count; i++) {
      const livenps_rule *rule = &mapping->rules[i];
      same_value(livenps_find(finds, rule->node), resolve(document, rule->pointer), rule->pointer);
    }
    reading want;
    livenps_reason wanted = read_record(mapping, document, &want);
    EXPECT(decoded == wanted, "%s (%s: %s), not %s", livenps_reason_name(decoded), where.field, where.detail,
           livenps_reason_name(wanted));
    if (decoded == LIVENPS_REASON_NONE) {
      same_event(&event, &want);
    }
    for (int f = 0; f < LIVENPS_FIELDS; f++) {
      free(want.names[f]);
    }
  }
  json_decref(document);
  free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!decoder) {
    set_up();
  }
  const char *at = (const char *)data, *end = at + size;
  const char *next = size ? memchr(at, 0xFF, size) : NULL;
  const char *path = memory_file(at, next ? (size_t)(next - at) : size);
  livenps_mapping *mapping = NULL, *again = NULL;
  livenps_error error = {0};
  if (livenps_mapping_load(&mapping, path, &error) != 0) {
    expect_error(&error);
    HOLDS(!mapping);
    return 0;
  }
  livenps_buffer first = {0}, second = {0};
  EXPECT(livenps_mapping_load(&again, path, &error) == 0, "%s", error.text);
  livenps_mapping_print(mapping, &first);
  livenps_mapping_print(again, &second);
  HOLDS(first.length == second.length && memcmp(first.at, second.at, first.length) == 0);
  livenps_buffer_free(&first);
  livenps_buffer_free(&second);
  livenps_mapping_free(again);
  while (next) {
    at = next + 1;
    next = at < end ? memchr(at, 0xFF, (size_t)(end - at)) : NULL;
    record(mapping, at, (size_t)((next ? next : end) - at));
  }
  livenps_mapping_free(mapping);
  return 0;
}
