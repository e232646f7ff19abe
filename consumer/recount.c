#include "recount.h"

#include "../common/name.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef struct series series;
struct series {
  series *next; /* in its bucket */
  uint64_t hash;
  size_t rollup;
  char *id;
  livenps_sums *windows[]; /* NULL where nothing was added */
};

struct livenps_recount {
  livenps_recount_config config;
  livenps_decoder *decoder; /* only names the fault of what jansson does not read */
  livenps_buffer json, id;
  livenps_buffer folded[LIVENPS_FIELDS]; /* what is read in small letters */
  json_t *document;                      /* of the last record: its event borrows from it */
  series **buckets;
  size_t bucket_count, count;
  size_t *named; /* per roll-up */
};

void livenps_recount_new(livenps_recount **out, const livenps_recount_config *config) {
  livenps_recount *recount = livenps_alloc(sizeof *recount);
  /* A document that there is no memory for must not be taken for one that is no JSON. */
  json_set_alloc_funcs(livenps_alloc, free);
  recount->config = *config;
  recount->decoder = livenps_decoder_new();
  recount->bucket_count = 1024;
  recount->buckets = livenps_alloc(recount->bucket_count * sizeof(series *));
  recount->named = livenps_alloc(config->rollup_count * sizeof *recount->named);
  *out = recount;
}

void livenps_recount_free(livenps_recount *recount) {
  if (!recount)
    return;
  for (size_t b = 0; b < recount->bucket_count; b++)
    for (series *at = recount->buckets[b], *next; at; at = next) {
      next = at->next;
      for (size_t w = 0; w < recount->config.window_count; w++)
        free(at->windows[w]);
      free(at->id);
      free(at);
    }
  for (int f = 0; f < LIVENPS_FIELDS; f++)
    livenps_buffer_free(&recount->folded[f]);
  livenps_decoder_free(recount->decoder);
  livenps_buffer_free(&recount->json);
  livenps_buffer_free(&recount->id);
  json_decref(recount->document);
  free(recount->buckets);
  free(recount->named);
  free(recount);
}

/* -- JSON ---------------------------------------------------------------------------------------------------------- */

static size_t digits(const char *at, const char *end) {
  const char *p = at;
  while (p < end && *p >= '0' && *p <= '9')
    p++;
  return (size_t)(p - at);
}

/* RFC 8259's number, all of [at, end). */
static bool number_sound(const char *at, const char *end) {
  at += at < end && *at == '-';
  const size_t whole = digits(at, end);
  if (!whole || (whole > 1 && *at == '0'))
    return false;
  at += whole;
  if (at < end && *at == '.') {
    const size_t more = digits(++at, end);
    if (!more)
      return false;
    at += more;
  }
  if (at < end && (*at == 'e' || *at == 'E')) {
    at++;
    at += at < end && (*at == '+' || *at == '-');
    const size_t more = digits(at, end);
    if (!more)
      return false;
    at += more;
  }
  return at == end;
}

/* jansson turns numbers into doubles, and how a number was written decides here. So each becomes a string that begins with a NUL, which
 * no other string may hold: {"score":9} -> {"score":"\u00009"}. NULL: this is no JSON that counts. */
static json_t *parse(livenps_recount *recount, const char *at, size_t length) {
  const char *const end = at + length;
  livenps_buffer *json = &recount->json;
  int depth = 0;
  json->length = 0;
  if (length && memchr(at, 0, length)) /* jansson takes one behind the value for the end */
    return NULL;
  while (at < end) {
    const char *from = at;
    if (*at == '"') {
      for (at++; at < end && *at != '"'; at++)
        if (*at == '\\') {
          if (end - at > 5 && !memcmp(at + 1, "u0000", 5))
            return NULL;
          at++;
        }
      at += at < end;
      if (at > end)
        return NULL;
      livenps_buffer_add(json, from, (size_t)(at - from));
    } else if (*at == '-' || (*at >= '0' && *at <= '9')) {
      while (at < end && *at && strchr("0123456789+-.eE", *at))
        at++;
      if (!number_sound(from, at))
        return NULL;
      livenps_buffer_add(json, "\"\\u0000", 7);
      livenps_buffer_add(json, from, (size_t)(at - from));
      livenps_buffer_add(json, "\"", 1);
    } else {
      depth += *at == '{' || *at == '[';
      depth -= *at == '}' || *at == ']';
      if (depth > LIVENPS_MAX_DEPTH)
        return NULL;
      livenps_buffer_add(json, at++, 1);
    }
  }
  return json_loadb(json->at ? json->at : "", json->length,
                    JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
}

/* RFC 6901. */
static const json_t *at_pointer(const json_t *value, const char *pointer) {
  char token[LIVENPS_MAX_POINTER + 1];
  while (value && *pointer) {
    size_t length = 0;
    for (pointer++; *pointer && *pointer != '/'; pointer++) {
      if (*pointer == '~')
        token[length++] = *++pointer == '1' ? '/' : '~';
      else
        token[length++] = *pointer;
    }
    token[length] = 0;
    if (json_is_object(value)) {
      value = json_object_get(value, token);
    } else if (json_is_array(value) && length && length < 10 && strspn(token, "0123456789") == length &&
               (length == 1 || *token != '0')) {
      value = json_array_get(value, (size_t)atol(token));
    } else {
      return NULL;
    }
  }
  return value;
}

static bool present(const json_t *value) {
  return value && !json_is_null(value);
}

static bool is_number(const json_t *value) {
  return json_is_string(value) && json_string_length(value) && !*json_string_value(value);
}

static bool is_string(const json_t *value) {
  return json_is_string(value) && !is_number(value);
}

static livenps_text text_of(const json_t *value) {
  if (is_number(value))
    return (livenps_text){json_string_value(value) + 1, json_string_length(value) - 1};
  return (livenps_text){json_string_value(value), json_string_length(value)};
}

static bool same(livenps_text text, const char *word) {
  return text.at && text.length == strlen(word) && !memcmp(text.at, word, text.length);
}

/* -- CloudEvents ---------------------------------------------------------------------------------------------------- */

typedef struct {
  enum { PLAIN, STRUCTURED, BINARY } form;
  livenps_text specversion, id, source, type, time;
} cloud;

/* "Application/JSON ; charset=utf-8" -> "application/json"; cut, for what is longer is none that is known, but for its end. */
static void media_type(livenps_text value, char out[256]) {
  size_t from = 0, to = 0, length = 0;
  while (from < value.length && (value.at[from] == ' ' || value.at[from] == '\t'))
    from++;
  for (to = from; to < value.length && value.at[to] != ';';)
    to++;
  while (to > from && (value.at[to - 1] == ' ' || value.at[to - 1] == '\t'))
    to--;
  /* A NUL is no part of any media type. */
  for (size_t i = to - from > 255 ? to - 255 : from; i < to; i++)
    out[length++] = value.at[i] ? value.at[i] : '?';
  out[length] = 0;
  for (size_t i = 0; i < length; i++)
    out[i] = out[i] >= 'A' && out[i] <= 'Z' ? (char)(out[i] - 'A' + 'a') : out[i];
}

static bool is_json_type(const char *type) {
  const size_t length = strlen(type);
  return !strcmp(type, "application/json") || !strcmp(type, "text/json") ||
         (length > 5 && !strcmp(type + length - 5, "+json"));
}

static livenps_reason read_headers(const livenps_record *record, cloud *out) {
  const struct {
    const char *name;
    livenps_text *value;
  } attributes[] = {{"ce_specversion", &out->specversion},
                    {"ce_source", &out->source},
                    {"ce_id", &out->id},
                    {"ce_type", &out->type},
                    {"ce_time", &out->time}};
  livenps_text content = {0};
  bool any = false, twice = false, utf8 = true;
  for (size_t i = 0; i < record->header_count; i++) {
    const livenps_header *header = &record->headers[i];
    if (!header->value.at)
      continue;
    if (!content.at && header->name.length == 12 && !strncasecmp(header->name.at, "content-type", 12))
      content = header->value;
    for (size_t a = 0; a < sizeof attributes / sizeof *attributes; a++)
      if (same(header->name, attributes[a].name)) {
        twice |= attributes[a].value->at != NULL;
        *attributes[a].value = header->value;
        any = true;
      }
  }
  for (size_t a = 0; a < sizeof attributes / sizeof *attributes; a++) {
    const livenps_text value = *attributes[a].value;
    json_t *checked = value.at ? json_stringn(value.at, value.length) : NULL;
    utf8 &= !value.at || (checked && !memchr(value.at, 0, value.length));
    json_decref(checked);
  }
  char type[256];
  media_type(content, type);
  if (content.at && !strncmp(type, "application/cloudevents", 23)) {
    out->form = STRUCTURED;
    return strcmp(type, "application/cloudevents+json") ? LIVENPS_REASON_CLOUDEVENT : LIVENPS_REASON_NONE;
  }
  if (!any)
    return LIVENPS_REASON_NONE;
  out->form = BINARY;
  if (twice || (content.at && !is_json_type(type)))
    return LIVENPS_REASON_CLOUDEVENT;
  return utf8 ? LIVENPS_REASON_NONE : LIVENPS_REASON_INVALID_UTF8;
}

static livenps_reason check_cloud(const json_t *document, const cloud *headers) {
  if (headers->form == BINARY)
    return same(headers->specversion, "1.0") && headers->source.length ? LIVENPS_REASON_NONE
                                                                       : LIVENPS_REASON_CLOUDEVENT;
  const json_t *version = json_object_get(document, "specversion"),
               *source = json_object_get(document, "source"),
               *content = json_object_get(document, "datacontenttype");
  if (!is_string(version) || !same(text_of(version), "1.0") || !is_string(source) ||
      !json_string_length(source) || present(json_object_get(document, "data_base64")) ||
      !json_is_object(json_object_get(document, "data")))
    return LIVENPS_REASON_CLOUDEVENT;
  if (!present(content))
    return LIVENPS_REASON_NONE;
  char type[256] = "";
  if (is_string(content))
    media_type(text_of(content), type);
  return is_json_type(type) ? LIVENPS_REASON_NONE : LIVENPS_REASON_CLOUDEVENT;
}

/* -- fields --------------------------------------------------------------------------------------------------------- */

typedef struct {
  livenps_recount *recount;
  const livenps_mapping *mapping;
  const json_t *document;
  const cloud *cloud;
} source;

/* What a field says: at NULL: absent. number: it was written as one. */
typedef struct {
  livenps_text text;
  bool number;
} said;

static livenps_reason literal(const source *from, livenps_field which, bool numbers, said *out) {
  const livenps_place *place = from->mapping->contract ? NULL : &from->mapping->fields[which];
  const json_t *value;
  *out = (said){{0}, false};
  if (!place) {
    const livenps_text attributes[] = {from->cloud->id, from->cloud->type, from->cloud->time};
    if (from->cloud->form == BINARY && which <= LIVENPS_FIELD_TIME) {
      out->text = attributes[which];
      return LIVENPS_REASON_NONE;
    }
    const bool data = from->cloud->form == STRUCTURED && which > LIVENPS_FIELD_TIME;
    value = json_object_get(data ? json_object_get(from->document, "data") : from->document,
                            livenps_field_names[which]);
  } else {
    value = place->pointer ? at_pointer(from->document, place->pointer) : NULL;
  }
  if (!present(value)) {
    if (place && place->fallback)
      out->text = livenps_text_of(place->fallback);
    return LIVENPS_REASON_NONE;
  }
  if (!json_is_string(value))
    return LIVENPS_REASON_WRONG_TYPE;
  out->text = text_of(value);
  out->number = is_number(value);
  if (out->number && !numbers) {
    const char *at = out->text.at + (*out->text.at == '-');
    if (!place || !place->numbers || digits(at, out->text.at + out->text.length) != strlen(at))
      return LIVENPS_REASON_WRONG_TYPE;
  }
  for (size_t i = 0; place && i < place->word_count; i++)
    if (same(out->text, place->words[i].from)) {
      *out = (said){livenps_text_of(place->words[i].to), false};
      break;
    }
  return LIVENPS_REASON_NONE;
}

/* The same, in small letters where the contract or the mapping wants them. */
static livenps_reason field(const source *from, livenps_field which, bool numbers, said *out) {
  const livenps_reason reason = literal(from, which, numbers, out);
  const bool lower = from->mapping->contract ? which == LIVENPS_FIELD_CHANNEL || which == LIVENPS_FIELD_STAGE
                                             : from->mapping->fields[which].lower;
  if (reason != LIVENPS_REASON_NONE || !lower || !out->text.length)
    return reason;
  livenps_buffer *small = &from->recount->folded[which];
  small->length = 0;
  livenps_buffer_add(small, out->text.at, out->text.length);
  for (size_t i = 0; i < small->length; i++)
    small->at[i] = small->at[i] >= 'A' && small->at[i] <= 'Z' ? (char)(small->at[i] + 32) : small->at[i];
  out->text.at = small->at;
  return reason;
}

/* Names, id and customer. */
static livenps_reason name(const source *from, livenps_field which, bool required, livenps_text *out) {
  said found;
  const livenps_reason reason = field(from, which, false, &found);
  *out = (livenps_text){0};
  if (reason != LIVENPS_REASON_NONE)
    return reason;
  if (!found.text.at)
    return required ? LIVENPS_REASON_MISSING_FIELD : LIVENPS_REASON_NONE;
  if (!found.text.length)
    return required ? LIVENPS_REASON_EMPTY_NAME : LIVENPS_REASON_NONE;
  livenps_buffer *id = &from->recount->id;
  id->length = 0;
  if (livenps_name_encode(found.text, id) > LIVENPS_MAX_ID)
    return LIVENPS_REASON_NAME_TOO_LONG;
  *out = found.text;
  return LIVENPS_REASON_NONE;
}

/* The C library's calendar, as far as RFC 3339 goes; fractions by hand. */
static bool rfc3339(livenps_text text, int64_t *ms) {
  char copy[64], zone = 0;
  int y, mo, d, h, mi, s, used = 0, oh = 0, om = 0;
  const size_t kept = text.length < sizeof copy - 1 ? text.length : sizeof copy - 1;
  if (text.length < 20)
    return false;
  memcpy(copy, text.at, kept);
  copy[kept] = 0;
  /* The form first: scanf takes signs and blanks that RFC 3339 does not know. */
  static const char form[] = "dddd-dd-dd?dd:dd:dd";
  for (size_t i = 0; form[i]; i++) {
    const bool digit = copy[i] >= '0' && copy[i] <= '9';
    if (form[i] == 'd' ? !digit : form[i] == '?' ? !copy[i] || !strchr("Tt ", copy[i]) : copy[i] != form[i])
      return false;
  }
  copy[10] = 'T';
  sscanf(copy, "%4d-%2d-%2dT%2d:%2d:%2d%n", &y, &mo, &d, &h, &mi, &s, &used);
  const char *at = text.at + used, *const end = text.at + text.length;
  int64_t fraction = 0;
  if (*at == '.') {
    const size_t count = digits(++at, end);
    if (!count)
      return false;
    for (size_t i = 0; i < 3; i++)
      fraction = fraction * 10 + (i < count ? at[i] - '0' : 0);
    at += count;
  }
  if (at == end)
    return false;
  zone = *at++;
  if (zone == '+' || zone == '-') {
    if (end - at != 5 || digits(at, end) != 2 || at[2] != ':' || digits(at + 3, end) != 2)
      return false;
    oh = (at[0] - '0') * 10 + at[1] - '0';
    om = (at[3] - '0') * 10 + at[4] - '0';
    if (oh > 23 || om > 59)
      return false;
  } else if ((zone != 'Z' && zone != 'z') || at != end) {
    return false;
  }
  if (s == 60)
    s = 59, fraction = 999;
  struct tm tm = {
      .tm_year = y - 1900, .tm_mon = mo - 1, .tm_mday = d, .tm_hour = h, .tm_min = mi, .tm_sec = s};
  if (y < 1 || h > 23 || mi > 59 || s > 59)
    return false;
  const time_t seconds = timegm(&tm);
  /* timegm makes the 1st of March of the 30th of February. */
  if (tm.tm_mon != mo - 1 || tm.tm_mday != d)
    return false;
  *ms = (int64_t)seconds * 1000 + fraction - (zone == '-' ? -1 : 1) * (oh * 60 + om) * INT64_C(60000);
  return *ms >= INT64_C(-62135596800000) && *ms <= INT64_C(253402300799999);
}

/* [-]digits[.digits] of at most 15 digits before the point, as units and thousandths. */
static bool decimal(livenps_text text, size_t most_decimals, int64_t *units, int64_t *thousandths) {
  const char *at = text.at, *const end = at + text.length;
  const bool negative = at < end && *at == '-';
  at += negative;
  const size_t whole = digits(at, end);
  if (!whole || whole > 15 || (whole > 1 && *at == '0'))
    return false;
  *units = *thousandths = 0;
  for (size_t i = 0; i < whole; i++)
    *units = *units * 10 + (*at++ - '0');
  if (at < end && *at == '.') {
    const size_t count = digits(++at, end);
    if (!count || count > most_decimals)
      return false;
    for (size_t i = 0; i < 3; i++)
      *thousandths = *thousandths * 10 + (i < count ? at[i] - '0' : 0);
    at += count;
  }
  if (negative)
    *units = -*units, *thousandths = -*thousandths;
  return at == end;
}

static bool event_time(livenps_time_format format, const said *found, int64_t *ms) {
  int64_t units, thousandths;
  if (format == LIVENPS_TIME_RFC3339)
    return !found->number && rfc3339(found->text, ms);
  if (!decimal(found->text, format == LIVENPS_TIME_SECONDS ? SIZE_MAX : 0, &units, &thousandths))
    return false;
  *ms = format == LIVENPS_TIME_SECONDS ? units * 1000 + thousandths : units;
  return *ms >= INT64_C(-62135596800000) && *ms <= INT64_C(253402300799999);
}

static int word(livenps_text text, const char *const *words, int count) {
  for (int i = 0; i < count; i++)
    if (same(text, words[i]))
      return i;
  return -1;
}

static livenps_reason answer(const source *from, livenps_event *event) {
  static const char *const scales[] = {"nps", "csat", "ces"};
  static const char *const scores[] = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"};
  static const int low[] = {0, 1, 1}, high[] = {10, 5, 7};
  said found;
  livenps_reason reason = field(from, LIVENPS_FIELD_SCALE, false, &found);
  if (reason != LIVENPS_REASON_NONE)
    return reason;
  if (!found.text.at)
    return LIVENPS_REASON_MISSING_FIELD;
  const int scale = word(found.text, scales, 3);
  if (scale < 0)
    return LIVENPS_REASON_UNKNOWN_SCALE;
  event->scale = (livenps_scale)(LIVENPS_SCALE_NPS + scale);
  if ((reason = field(from, LIVENPS_FIELD_SCORE, true, &found)) != LIVENPS_REASON_NONE)
    return reason;
  if (!found.text.at)
    return LIVENPS_REASON_MISSING_FIELD;
  event->score = word(found.text, scores, 11);
  if (event->score < low[scale] || event->score > high[scale])
    return LIVENPS_REASON_BAD_SCORE;
  if ((reason = field(from, LIVENPS_FIELD_VALUE, true, &found)) != LIVENPS_REASON_NONE)
    return reason;
  if (!found.text.at)
    return LIVENPS_REASON_NONE;
  int64_t units, thousandths;
  if (!decimal(found.text, 2, &units, &thousandths))
    return LIVENPS_REASON_BAD_VALUE;
  event->has_value = true;
  event->value = units * 100 + thousandths / 10;
  return event->value > INT64_C(100000000000) || event->value < INT64_C(-100000000000)
             ? LIVENPS_REASON_BAD_VALUE
             : LIVENPS_REASON_NONE;
}

static livenps_reason fields(const source *from, livenps_event *event) {
  static const char *const types[] = {"interaction", "invitation", "answer"};
  said found;
  livenps_reason reason = name(from, LIVENPS_FIELD_ID, true, &event->id);
  if (reason == LIVENPS_REASON_NONE)
    reason = field(from, LIVENPS_FIELD_TYPE, false, &found);
  if (reason != LIVENPS_REASON_NONE)
    return reason;
  if (!found.text.at)
    return LIVENPS_REASON_MISSING_FIELD;
  livenps_text type = found.text;
  if (from->cloud->form != PLAIN)
    for (size_t i = 0; i < found.text.length; i++)
      if (found.text.at[i] == '.')
        type = (livenps_text){found.text.at + i + 1, found.text.length - i - 1};
  const int kind = word(type, types, 3);
  if (kind < 0)
    return LIVENPS_REASON_UNKNOWN_TYPE;
  event->type = (livenps_type)kind;
  if ((reason = field(from, LIVENPS_FIELD_TIME, true, &found)) != LIVENPS_REASON_NONE)
    return reason;
  if (!found.text.at)
    return LIVENPS_REASON_MISSING_FIELD;
  if (!event_time(from->mapping->fields[LIVENPS_FIELD_TIME].format, &found, &event->time_ms))
    return LIVENPS_REASON_BAD_TIME;
  for (int d = 0; d < LIVENPS_DIMENSIONS && reason == LIVENPS_REASON_NONE; d++)
    reason = name(from, (livenps_field)(LIVENPS_FIELD_TOUCHPOINT + d), d == LIVENPS_TOUCHPOINT,
                  &event->dimensions[d]);
  if (reason == LIVENPS_REASON_NONE)
    reason = name(from, LIVENPS_FIELD_CUSTOMER, false, &event->customer);
  return reason == LIVENPS_REASON_NONE && event->type == LIVENPS_ANSWER ? answer(from, event) : reason;
}

/* -- fate ----------------------------------------------------------------------------------------------------------- */

static bool holds(const json_t *document, const livenps_rule *rule) {
  const json_t *value = at_pointer(document, rule->pointer);
  livenps_text text = {0};
  if (json_is_string(value))
    text = text_of(value);
  else if (json_is_boolean(value))
    text = livenps_text_of(json_is_true(value) ? "true" : "false");
  bool one = false;
  for (size_t i = 0; i < rule->value_count; i++)
    one |= same(text, rule->values[i]);
  return one != rule->negated;
}

static livenps_reason read_value(livenps_recount *recount, const livenps_mapping *mapping,
                                 const livenps_record *record, livenps_event *event) {
  const livenps_text value = record->value;
  cloud cloud = {.form = PLAIN};
  if (!value.at)
    return LIVENPS_REASON_TOMBSTONE;
  if (value.length > recount->config.admission->max_bytes)
    return LIVENPS_REASON_TOO_LARGE;
  livenps_reason reason = mapping->contract ? read_headers(record, &cloud) : LIVENPS_REASON_NONE;
  if (reason != LIVENPS_REASON_NONE)
    return reason;
  if (value.length && !*value.at)
    return LIVENPS_REASON_SCHEMA_FRAMING;
  json_decref(recount->document);
  recount->document = parse(recount, value.at, value.length);
  const json_t *document = recount->document;
  if (!document) {
    livenps_event ignored;
    reason = livenps_decode(recount->decoder, mapping, recount->config.admission->max_bytes, record, &ignored,
                            NULL);
    return reason == LIVENPS_REASON_INVALID_UTF8 || reason == LIVENPS_REASON_TOO_DEEP ||
                   reason == LIVENPS_REASON_DUPLICATE_KEY
               ? reason
               : LIVENPS_REASON_MALFORMED;
  }
  if (!json_is_object(document))
    return LIVENPS_REASON_NOT_OBJECT;
  if (mapping->contract) {
    if (cloud.form == PLAIN && present(json_object_get(document, "specversion")))
      cloud.form = STRUCTURED;
    if (cloud.form != PLAIN && (reason = check_cloud(document, &cloud)) != LIVENPS_REASON_NONE)
      return reason;
    const json_t *data = cloud.form == STRUCTURED ? json_object_get(document, "data") : document;
    if (present(json_object_get(data, "revision")) || present(json_object_get(data, "deleted")))
      return LIVENPS_REASON_RESERVED;
  }
  for (size_t i = 0; i < mapping->rule_count; i++)
    if (holds(document, &mapping->rules[i]))
      return mapping->rules[i].reason;
  const source from = {recount, mapping, document, &cloud};
  *event = (livenps_event){.score = -1};
  return fields(&from, event);
}

livenps_fate livenps_recount_judge(livenps_recount *recount, const livenps_mapping *mapping,
                                   const livenps_record *record, livenps_event *event,
                                   livenps_reason *reason) {
  const livenps_admission *admission = recount->config.admission;
  *reason = read_value(recount, mapping, record, event);
  if (*reason != LIVENPS_REASON_NONE)
    return LIVENPS_REJECTED;
  bool listed = !admission->touchpoint_count;
  for (size_t i = 0; i < admission->touchpoint_count && !listed; i++)
    listed = same(event->dimensions[LIVENPS_TOUCHPOINT], admission->touchpoints[i]);
  const __int128 ahead_ms = (__int128)event->time_ms - record->timestamp_ms;
  if (record->timestamp_ms < 0)
    *reason = LIVENPS_REASON_NO_RECORD_TIME;
  else if (!listed)
    *reason = LIVENPS_REASON_UNKNOWN_TOUCHPOINT;
  else if (ahead_ms > admission->future_ms)
    *reason = LIVENPS_REASON_FUTURE;
  else if (-ahead_ms > admission->late_ms)
    return LIVENPS_LATE;
  else if (admission->replay && (event->time_ms < admission->from_ms || event->time_ms > admission->to_ms))
    return LIVENPS_OUT_OF_RANGE;
  else
    return LIVENPS_ACCEPTED;
  return LIVENPS_REJECTED;
}

/* -- sums ----------------------------------------------------------------------------------------------------------- */

int64_t livenps_recount_start(const livenps_recount *recount, size_t window, bool previous) {
  const livenps_window *of = &recount->config.windows[window];
  const int64_t clock_ms = recount->config.clock_ms;
  /* The slice that is filling began here; the window ends with it. */
  int64_t slice_ms = clock_ms / of->slice_ms * of->slice_ms;
  if (slice_ms > clock_ms)
    slice_ms -= of->slice_ms;
  return slice_ms + of->slice_ms - (previous ? 2 : 1) * of->length_ms;
}

static series *find(const livenps_recount *recount, size_t rollup, const char *id, size_t length,
                    uint64_t *hash) {
  *hash = livenps_hash_more(livenps_hash(&rollup, sizeof rollup), id, length);
  series *at = recount->buckets[*hash % recount->bucket_count];
  while (at && !(at->hash == *hash && at->rollup == rollup && strlen(at->id) == length &&
                 !memcmp(at->id, id, length)))
    at = at->next;
  return at;
}

static void grow(livenps_recount *recount) {
  const size_t count = recount->bucket_count * 4;
  series **buckets = livenps_alloc(count * sizeof(series *));
  for (size_t b = 0; b < recount->bucket_count; b++)
    for (series *at = recount->buckets[b], *next; at; at = next) {
      next = at->next;
      at->next = buckets[at->hash % count];
      buckets[at->hash % count] = at;
    }
  free(recount->buckets);
  recount->buckets = buckets;
  recount->bucket_count = count;
}

static series *make(livenps_recount *recount, size_t rollup, const char *id, size_t length) {
  uint64_t hash;
  series *at = find(recount, rollup, id, length, &hash);
  if (at)
    return at;
  if (++recount->count > recount->bucket_count)
    grow(recount);
  at = livenps_alloc(sizeof *at + recount->config.window_count * sizeof *at->windows);
  *at = (series){.hash = hash, .rollup = rollup, .id = livenps_copy(id, length)};
  at->next = recount->buckets[hash % recount->bucket_count];
  recount->buckets[hash % recount->bucket_count] = at;
  recount->named[rollup]++;
  return at;
}

static void count(livenps_counters *counters, const livenps_event *event) {
  int64_t *at = counters->at;
  if (event->type == LIVENPS_INTERACTION) {
    at[LIVENPS_INTERACTIONS] += 1;
  } else if (event->type == LIVENPS_INVITATION) {
    at[LIVENPS_INVITATIONS] += 1;
  } else {
    at[LIVENPS_ANSWERS] += 1;
    if (event->scale == LIVENPS_SCALE_CSAT) {
      at[LIVENPS_CSAT + event->score - 1] += 1;
    } else if (event->scale == LIVENPS_SCALE_CES) {
      at[LIVENPS_CES + event->score - 1] += 1;
    } else {
      const int class_ = event->score > 8   ? LIVENPS_VALUE_PROMOTERS
                         : event->score > 6 ? LIVENPS_VALUE_PASSIVES
                                            : LIVENPS_VALUE_DETRACTORS;
      at[LIVENPS_SCORE + event->score] += 1;
      at[class_] = (int64_t)((uint64_t)at[class_] + (uint64_t)event->value); /* sums wrap, as documented */
    }
  }
}

static void add(livenps_recount *recount, const livenps_event *event) {
  const livenps_recount_config *config = &recount->config;
  /* Seconds are what is counted by, floored also before 1970. */
  int64_t at_ms = event->time_ms - event->time_ms % 1000;
  at_ms -= at_ms > event->time_ms ? 1000 : 0;
  if (at_ms > config->clock_ms)
    return; /* ahead of the clock: it waits */
  for (size_t r = 0; r < config->rollup_count; r++) {
    livenps_buffer *id = &recount->id;
    bool all = true;
    id->length = 0;
    for (int i = 0; i < config->rollups[r].count && all; i++) {
      const livenps_text part = event->dimensions[config->rollups[r].dimensions[i]];
      all = part.at != NULL;
      if (i)
        livenps_buffer_add(id, "|", 1);
      if (all)
        livenps_name_encode(part, id);
    }
    if (!all)
      continue;
    if (!config->rollups[r].count)
      livenps_buffer_add(id, "all", 3);
    series *into = NULL;
    for (size_t w = 0; w < config->window_count; w++) {
      if (at_ms < livenps_recount_start(recount, w, true))
        continue;
      uint64_t hash;
      if (!into && recount->named[r] >= 2 * config->series_max &&
          !find(recount, r, id->at, id->length, &hash)) {
        id->length = 0;
        livenps_buffer_add(id, "~other", 6);
      }
      if (!into)
        into = make(recount, r, id->at, id->length);
      if (!into->windows[w])
        into->windows[w] = livenps_alloc(sizeof *into->windows[w]);
      count(at_ms >= livenps_recount_start(recount, w, false) ? &into->windows[w]->now
                                                              : &into->windows[w]->previous,
            event);
    }
  }
}

void livenps_recount_record(livenps_recount *recount, const livenps_mapping *mapping,
                            const livenps_record *record, livenps_tally *tally) {
  livenps_event event;
  livenps_reason reason;
  switch (livenps_recount_judge(recount, mapping, record, &event, &reason)) {
  case LIVENPS_ACCEPTED:
    tally->accepted++;
    add(recount, &event);
    break;
  case LIVENPS_LATE: tally->late++; break;
  case LIVENPS_OUT_OF_RANGE: tally->out_of_range++; break;
  case LIVENPS_REJECTED:
  case LIVENPS_DUPLICATE: tally->rejected[reason]++; break;
  }
}

livenps_sums *livenps_recount_find(const livenps_recount *recount, size_t rollup, const char *id,
                                   size_t window) {
  uint64_t hash;
  const series *found = find(recount, rollup, id, strlen(id), &hash);
  return found ? found->windows[window] : NULL;
}

int livenps_recount_each(const livenps_recount *recount, size_t rollup, size_t window,
                         int (*visit)(void *opaque, const char *id, const livenps_sums *sums), void *opaque) {
  for (size_t b = 0; b < recount->bucket_count; b++)
    for (const series *at = recount->buckets[b]; at; at = at->next)
      if (at->rollup == rollup && at->windows[window]) {
        const int stop = visit(opaque, at->id, at->windows[window]);
        if (stop)
          return stop;
      }
  return 0;
}
