/* The event decoder against jansson: same accept and reject, same values, and for the contract the same reason and the
 * same event as a second reading of docs/events.md, written here over jansson's tree.
 *
 * Input: records. Byte 0xFF, which no valid JSON has, separates header names and values; the rest are values, separated by byte 0xFE,
 * which no valid JSON has either. Each is read twice by one decoder, which has learned the outlines of those before it, and once
 * by a new one: all three must say the same.
 *
 * Where the two may differ, and nowhere else:
 *   - nesting beyond LIVENPS_MAX_DEPTH is refused (jansson: 2048);
 *   - jansson 2.14 takes a NUL behind a number for the end of the text: refused;
 *   - numbers beyond a double (1e999, 400 digits) are legal JSON and stay literals; jansson refuses the document and
 *     says so by json_error_numeric_overflow, which is no verdict here. */
#include "tests/fuzz/fuzz.h"

#include "common/admit.h"
#include "common/clock.h"
#include "common/name.h"

#include <regex.h>

/* ---- the scanner against jansson's tree ---- */

static const char *const pointers[] = {
    "",           "/id",       "/type",    "/time",       "/touchpoint",  "/channel",     "/segment",
    "/stage",     "/customer", "/scale",   "/score",      "/value",       "/revision",    "/deleted",
    "/data",      "/source",   "/data/id", "/data/scale", "/data/score",  "/data/value",  "/data/touchpoint",
    "/0",         "/1",        "/a",       "/a/0",        "/a/1",         "/a/b",         "/a/b/0/c",
    "/a~1b",      "/m~0n",     "/",        "//",          "/\xC3\xA9",    "/specversion", "/datacontenttype",
    "/long-name", "/10",       "/data/0",  "/data/1/2",   "/data_base64", "/01",          "/data/channel",
};
enum { POINTERS = sizeof pointers / sizeof *pointers };

static livenps_paths paths;
static int nodes[POINTERS];
static livenps_scanner *scanner;

/* ---- the contract, read a second time ---- */

static regex_t score_form, value_form;

typedef struct {
  livenps_reason reason;
  const char *id, *customer, *dimensions[LIVENPS_DIMENSIONS];
  livenps_type type;
  livenps_scale scale;
  int score;
  bool has_value;
  double value;
  int64_t time_ms;
} reading;

static livenps_reason name_of(const json_t *value, bool required, const char **out) {
  *out = NULL;
  if (!value || json_is_null(value)) {
    return required ? LIVENPS_REASON_MISSING_FIELD : LIVENPS_REASON_NONE;
  }
  if (!json_is_string(value)) {
    return LIVENPS_REASON_WRONG_TYPE;
  }
  if (json_string_length(value) == 0) {
    return required ? LIVENPS_REASON_EMPTY_NAME : LIVENPS_REASON_NONE;
  }
  livenps_buffer encoded = {0};
  livenps_name_encode(livenps_text_of(json_string_value(value)), &encoded);
  size_t length = encoded.length;
  livenps_buffer_free(&encoded);
  if (length > LIVENPS_MAX_ID) {
    return LIVENPS_REASON_NAME_TOO_LONG;
  }
  *out = json_string_value(value);
  return LIVENPS_REASON_NONE;
}

/* The characters of a number or string, in storage that lasts until the next call. */
static const char *literal_of(const json_t *value, const char *prefix, const char *name) {
  static char text[64];
  if (json_is_string(value)) {
    return json_string_value(value);
  }
  char pointer[64];
  snprintf(pointer, sizeof pointer, "%s/%s", prefix, name);
  for (size_t i = 0; i < POINTERS; i++) {
    if (strcmp(pointers[i], pointer) == 0) {
      livenps_text literal = livenps_find(livenps_scan_finds(scanner), nodes[i])->text;
      if (literal.length >= sizeof text) {
        return "too long to be good";
      }
      snprintf(text, sizeof text, "%.*s", (int)literal.length, literal.at);
      return text;
    }
  }
  abort();
}

static int word_of(const char *text, const char *const *words) {
  for (int i = 0; words[i]; i++) {
    if (strcmp(words[i], text) == 0) {
      return i;
    }
  }
  return -1;
}

static bool present(const json_t *value) {
  return value && !json_is_null(value);
}

static livenps_reason read_contract(const json_t *document, reading *out) {
  memset(out, 0, sizeof *out);
  out->score = -1;
  if (!json_is_object(document)) {
    return LIVENPS_REASON_NOT_OBJECT;
  }
  const json_t *fields = document;
  const char *prefix = "";
  bool cloudevent = present(json_object_get(document, "specversion"));
  if (cloudevent) {
    const char *version = json_string_value(json_object_get(document, "specversion"));
    const char *source = json_string_value(json_object_get(document, "source"));
    const json_t *content = json_object_get(document, "datacontenttype");
    fields = json_object_get(document, "data");
    prefix = "/data";
    if (!version || strcmp(version, "1.0") != 0 || !source || !*source || !json_is_object(fields) ||
        present(json_object_get(document, "data_base64"))) {
      return LIVENPS_REASON_CLOUDEVENT;
    }
    if (present(content)) {
      if (!json_is_string(content)) {
        return LIVENPS_REASON_CLOUDEVENT;
      }
      const char *type = json_string_value(content);
      type += strspn(type, " \t");
      size_t length = strcspn(type, ";");
      while (length > 0 && (type[length - 1] == ' ' || type[length - 1] == '\t')) {
        length--;
      }
      bool json = (length == 16 && strncasecmp(type, "application/json", 16) == 0) ||
                  (length == 9 && strncasecmp(type, "text/json", 9) == 0) ||
                  (length > 5 && strncasecmp(type + length - 5, "+json", 5) == 0);
      if (!json) {
        return LIVENPS_REASON_CLOUDEVENT;
      }
    }
  }
  if (present(json_object_get(fields, "revision")) || present(json_object_get(fields, "deleted"))) {
    return LIVENPS_REASON_RESERVED;
  }
  livenps_reason reason = name_of(json_object_get(document, "id"), true, &out->id);
  if (reason != LIVENPS_REASON_NONE) {
    return reason;
  }
  const json_t *type = json_object_get(document, "type");
  if (!present(type)) {
    return LIVENPS_REASON_MISSING_FIELD;
  }
  if (!json_is_string(type)) {
    return LIVENPS_REASON_WRONG_TYPE;
  }
  const char *name = json_string_value(type);
  if (cloudevent && strrchr(name, '.')) {
    name = strrchr(name, '.') + 1;
  }
  static const char *const types[] = {"interaction", "invitation", "answer", NULL};
  int word = word_of(name, types);
  if (word < 0) {
    return LIVENPS_REASON_UNKNOWN_TYPE;
  }
  out->type = (livenps_type)word;
  const json_t *time = json_object_get(document, "time");
  if (!present(time)) {
    return LIVENPS_REASON_MISSING_FIELD;
  }
  if (!json_is_string(time) && !json_is_number(time)) {
    return LIVENPS_REASON_WRONG_TYPE;
  }
  if (!json_is_string(time) ||
      livenps_time_parse(json_string_value(time), json_string_length(time), &out->time_ms) != 0) {
    return LIVENPS_REASON_BAD_TIME;
  }
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
    reason = name_of(json_object_get(fields, livenps_dimension_names[d]), d == LIVENPS_TOUCHPOINT,
                     &out->dimensions[d]);
    if (reason != LIVENPS_REASON_NONE) {
      return reason;
    }
  }
  reason = name_of(json_object_get(fields, "customer"), false, &out->customer);
  if (reason != LIVENPS_REASON_NONE || out->type != LIVENPS_ANSWER) {
    return reason;
  }
  const json_t *scale = json_object_get(fields, "scale");
  const json_t *score = json_object_get(fields, "score");
  const json_t *value = json_object_get(fields, "value");
  if (!present(scale)) {
    return LIVENPS_REASON_MISSING_FIELD;
  }
  if (!json_is_string(scale)) {
    return LIVENPS_REASON_WRONG_TYPE;
  }
  static const char *const scales[] = {"", "nps", "csat", "ces", NULL};
  word = word_of(json_string_value(scale), scales);
  if (word < 1) {
    return LIVENPS_REASON_UNKNOWN_SCALE;
  }
  out->scale = (livenps_scale)word;
  if (!present(score)) {
    return LIVENPS_REASON_MISSING_FIELD;
  }
  if (!json_is_string(score) && !json_is_number(score)) {
    return LIVENPS_REASON_WRONG_TYPE;
  }
  const char *text = literal_of(score, prefix, "score");
  static const int low[] = {0, 0, 1, 1};
  static const int high[] = {0, 10, 5, 7};
  if (regexec(&score_form, text, 0, NULL, 0) != 0 || atoi(text) < low[word] || atoi(text) > high[word]) {
    return LIVENPS_REASON_BAD_SCORE;
  }
  out->score = atoi(text);
  if (!present(value)) {
    return LIVENPS_REASON_NONE;
  }
  if (!json_is_string(value) && !json_is_number(value)) {
    return LIVENPS_REASON_WRONG_TYPE;
  }
  text = literal_of(value, prefix, "value");
  if (regexec(&value_form, text, 0, NULL, 0) != 0 || strtod(text, NULL) > 1e9 || strtod(text, NULL) < -1e9) {
    return LIVENPS_REASON_BAD_VALUE;
  }
  out->has_value = true;
  out->value = strtod(text, NULL);
  return LIVENPS_REASON_NONE;
}

static void same_text(livenps_text text, const char *string, bool folded, const char *what) {
  EXPECT((text.at == NULL) == (string == NULL), "%s", what);
  if (string && !folded) {
    EXPECT(text_is(text, string, strlen(string)), "%s", what);
  } else if (string) {
    EXPECT(text.length == strlen(string), "%s", what);
    for (size_t i = 0; i < text.length; i++) {
      char c = string[i] >= 'A' && string[i] <= 'Z' ? (char)(string[i] + 32) : string[i];
      EXPECT(text.at[i] == c, "%s", what);
    }
  }
}

static void same_event(const livenps_event *event, const reading *want) {
  same_text(event->id, want->id, false, "id");
  same_text(event->customer, want->customer, false, "customer");
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
    same_text(event->dimensions[d], want->dimensions[d], d == LIVENPS_CHANNEL || d == LIVENPS_STAGE,
              livenps_dimension_names[d]);
  }
  EXPECT(event->type == want->type && event->scale == want->scale && event->score == want->score, "score");
  EXPECT(event->time_ms == want->time_ms, "time");
  EXPECT(event->has_value == want->has_value, "has_value");
  double difference = (double)event->value - want->value * 100;
  EXPECT(difference < 0.001 && difference > -0.001, "value %lld %f", (long long)event->value, want->value);
}

/* ---- what holds of every accepted event ---- */

static int hex_digit(char c) {
  return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static void name_holds(livenps_text raw) {
  if (!raw.at) {
    return;
  }
  EXPECT(raw.length > 0 && livenps_utf8_valid(raw.at, raw.length), "name");
  livenps_buffer encoded = {0};
  size_t length = livenps_name_encode(raw, &encoded);
  EXPECT(length == encoded.length && length == livenps_name_length(raw) && length <= LIVENPS_MAX_ID,
         "length");
  EXPECT(livenps_utf8_valid(encoded.at, encoded.length), "UTF-8");
  EXPECT(encoded.at[0] != '~', "~");
  livenps_buffer decoded = {0};
  for (size_t i = 0; i < encoded.length; i++) {
    char c = encoded.at[i];
    EXPECT((unsigned char)c >= 0x20 && c != 0x7F && !strchr(":{}|", c), "byte %d", c);
    if (c == '%') {
      int high = hex_digit(encoded.at[i + 1]);
      int low = hex_digit(encoded.at[i + 2]);
      EXPECT(high >= 0 && low >= 0, "digits");
      c = (char)(high << 4 | low);
      i += 2;
    }
    livenps_buffer_add(&decoded, &c, 1);
  }
  EXPECT(text_is(raw, decoded.at, decoded.length), "one to one");
  livenps_buffer_free(&encoded);
  livenps_buffer_free(&decoded);
}

static void event_holds(const livenps_event *event) {
  name_holds(event->id);
  name_holds(event->customer);
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
    name_holds(event->dimensions[d]);
  }
  EXPECT(event->id.at && event->dimensions[LIVENPS_TOUCHPOINT].at, "required names");
  bool answer = event->type == LIVENPS_ANSWER;
  EXPECT(answer == (event->scale != LIVENPS_SCALE_NONE), "scale");
  EXPECT(answer ? event->score >= 0 && event->score <= 10 : event->score == -1 && !event->has_value, "score");
  EXPECT(event->value <= INT64_C(100000000000) && event->value >= INT64_C(-100000000000), "value");
}

/* ---- the target ---- */

static livenps_mapping *mappings[3];

static void set_up(void) {
  livenps_error error = {0};
  for (size_t i = 0; i < POINTERS; i++) {
    nodes[i] = livenps_paths_add(&paths, pointers[i], &error);
    EXPECT(nodes[i] >= 0, "%s", error.text);
  }
  livenps_paths_compile(&paths);
  scanner = livenps_scanner_new();
  EXPECT(livenps_mapping_default(&mappings[0], &error) == 0, "%s", error.text);
  static const char *const files[] = {"config/mappings/delighted.yaml", "config/mappings/typeform.yaml"};
  for (int i = 0; i < 2; i++) {
    /* Absent when the target runs outside of the source folder: the contract is what matters most. */
    livenps_error none = {0};
    livenps_mapping_load(&mappings[1 + i], files[i], &none);
  }
  regcomp(&score_form, "^(0|[1-9][0-9]*)$", REG_EXTENDED | REG_NOSUB);
  regcomp(&value_form, "^-?(0|[1-9][0-9]*)([.][0-9]{1,2})?$", REG_EXTENDED | REG_NOSUB);
}

static bool same_decoded(const livenps_event *a, const livenps_event *b) {
  bool same = a->type == b->type && a->scale == b->scale && a->score == b->score &&
              a->has_value == b->has_value && a->value == b->value && a->time_ms == b->time_ms &&
              livenps_text_equal(a->id, b->id) && livenps_text_equal(a->customer, b->customer);
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
    same = same && livenps_text_equal(a->dimensions[d], b->dimensions[d]);
  }
  return same;
}

/* What the decoder says, which a new one must say too; *event and *where are the decoder's. */
static livenps_reason decode(livenps_decoder *decoder, const livenps_mapping *mapping,
                             const livenps_record *record, livenps_event *event, livenps_where *where) {
  livenps_decoder *fresh = livenps_decoder_new();
  livenps_event want;
  livenps_where want_where = {0};
  const livenps_reason reason =
      livenps_decode(fresh, mapping, LIVENPS_MAX_RECORD, record, &want, &want_where);
  for (int time = 0; time < 2; time++) {
    *where = (livenps_where){0};
    const livenps_reason got = livenps_decode(decoder, mapping, LIVENPS_MAX_RECORD, record, event, where);
    EXPECT(got == reason, "%s, a new decoder says %s", livenps_reason_name(got), livenps_reason_name(reason));
    EXPECT(where->offset == want_where.offset && strcmp(where->field, want_where.field) == 0 &&
               strcmp(where->detail, want_where.detail) == 0,
           "%s: %s at %zu, a new decoder says %s: %s at %zu", where->field, where->detail, where->offset,
           want_where.field, want_where.detail, want_where.offset);
    EXPECT(reason != LIVENPS_REASON_NONE || same_decoded(event, &want), "another event, time %d", time);
  }
  livenps_decoder_free(fresh);
  return reason;
}

static void one_record(livenps_decoder *decoder, const livenps_header *headers, size_t header_count,
                       const uint8_t *at, size_t length) {
  /* a block of its exact size, so that the sanitizer sees every step outside */
  char *bytes = malloc(length ? length : 1);
  memcpy(bytes, at, length);

  size_t offset = 0;
  const char *detail = NULL;
  livenps_reason reason = livenps_scan(scanner, &paths, bytes, length, &offset, &detail);
  EXPECT(reason == LIVENPS_REASON_NONE || (offset <= length && detail), "%s at %zu",
         livenps_reason_name(reason), offset);
  json_error_t error = {0};
  json_t *document =
      memchr(bytes, 0, length)
          ? NULL
          : json_loadb(bytes, length, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL,
                       &error);
  bool overflow = false;
  if (document && depth_of(document) > LIVENPS_MAX_DEPTH) {
    EXPECT(reason == LIVENPS_REASON_TOO_DEEP, "%s", livenps_reason_name(reason));
  } else if (document) {
    EXPECT(reason == LIVENPS_REASON_NONE, "%s at %zu: %s", livenps_reason_name(reason), offset, detail);
    for (size_t i = 0; i < POINTERS; i++) {
      same_value(livenps_find(livenps_scan_finds(scanner), nodes[i]), resolve(document, pointers[i]),
                 pointers[i]);
    }
  } else if (memchr(bytes, 0, length)) {
    EXPECT(reason != LIVENPS_REASON_NONE, "a NUL is nowhere legal");
  } else {
    overflow = json_error_code(&error) == json_error_numeric_overflow;
    EXPECT(reason != LIVENPS_REASON_NONE || overflow, "jansson says %s", error.text);
    if (json_error_code(&error) == json_error_duplicate_key) {
      EXPECT(reason == LIVENPS_REASON_DUPLICATE_KEY || reason == LIVENPS_REASON_TOO_DEEP, "%s",
             livenps_reason_name(reason));
    }
    if (reason == LIVENPS_REASON_DUPLICATE_KEY) {
      EXPECT(json_error_code(&error) == json_error_duplicate_key || overflow, "jansson says %s", error.text);
    }
  }

  livenps_event event;
  livenps_where where;
  livenps_record record = {.value = {bytes, length}, .timestamp_ms = 0};
  livenps_reason decoded = decode(decoder, mappings[0], &record, &event, &where);
  if (length > 0 && bytes[0] == 0) {
    EXPECT(decoded == LIVENPS_REASON_SCHEMA_FRAMING, "%s", livenps_reason_name(decoded));
  } else if (reason != LIVENPS_REASON_NONE) {
    EXPECT(decoded == reason, "%s, the scanner says %s", livenps_reason_name(decoded),
           livenps_reason_name(reason));
  } else if (document) {
    reading want;
    want.reason = read_contract(document, &want);
    EXPECT(decoded == want.reason, "%s (%s: %s), not %s", livenps_reason_name(decoded), where.field,
           where.detail, livenps_reason_name(want.reason));
    if (decoded == LIVENPS_REASON_NONE) {
      same_event(&event, &want);
    }
  } else {
    EXPECT(overflow, "no verdict");
  }
  if (decoded == LIVENPS_REASON_NONE) {
    event_holds(&event);
  }

  record.headers = headers;
  record.header_count = header_count;
  for (int i = 0; i < 3; i++) {
    if (mappings[i]) {
      decoded = decode(decoder, mappings[i], &record, &event, &where);
      if (decoded == LIVENPS_REASON_NONE) {
        event_holds(&event);
      } else {
        EXPECT(where.offset <= length && memchr(where.field, 0, sizeof where.field), "where");
      }
    }
  }
  json_decref(document);
  free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!scanner) {
    set_up();
  }
  livenps_header headers[16];
  size_t header_count = 0;
  const uint8_t *at = data;
  const uint8_t *end = data + size;
  while (header_count < 16) {
    const uint8_t *name_end = at < end ? memchr(at, 0xFF, (size_t)(end - at)) : NULL;
    const uint8_t *value_end = name_end ? memchr(name_end + 1, 0xFF, (size_t)(end - name_end - 1)) : NULL;
    if (!value_end) {
      break;
    }
    headers[header_count].name = (livenps_text){(const char *)at, (size_t)(name_end - at)};
    headers[header_count++].value =
        (livenps_text){(const char *)name_end + 1, (size_t)(value_end - name_end - 1)};
    at = value_end + 1;
  }
  livenps_decoder *decoder = livenps_decoder_new();
  for (;;) {
    const uint8_t *next = at < end ? memchr(at, 0xFE, (size_t)(end - at)) : NULL;
    one_record(decoder, headers, header_count, at, (size_t)((next ? next : end) - at));
    if (!next) {
      break;
    }
    at = next + 1;
  }
  livenps_decoder_free(decoder);
  return 0;
}
