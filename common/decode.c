#include "clock.h"
#include "mapping.h"
#include "name.h"
#include "outline.h"
#include "scan_parts.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* The way of a record:  headers -> which form  |  bytes -> scan -> rules -> fields, in the order of livenps_field.
 * The first fault wins: of the headers, then of the bytes, then of the fields.
 *
 * A record that follows the outline of one that was accepted takes a shorter way (outline.h): its values are checked, what the rest says
 * is known. Whatever is not as it should be there goes the whole way, so only that one rejects and says where. */

/* ---- what is remembered of accepted records ---- */

/* The wanted values of an outline: each field's, and what else must be looked at. */
enum { TEXT_SOURCE = LIVENPS_FIELDS, TEXTS };
_Static_assert((int)TEXTS < (int)LIVENPS_OUTLINE_TEXTS, "the last text is where unwanted values go");

/* What every record of an outline says beside its values. */
typedef struct {
  livenps_type type;
  livenps_scale scale;
  bool structured;
  uint16_t later; /* fields that are read as by the whole way: bits */
  uint8_t lower;  /* dimensions whose capitals become small: bits */
  livenps_json_kind kinds[LIVENPS_FIELDS];
} plan;

enum {
  LEARNED = 48,       /* kinds of records of which outlines are remembered: four a mapping at most */
  WINDOW = 64,        /* records over which it is judged whether that pays */
  POOR = WINDOW / 4,  /* fewer of them that follow an outline: it does not, */
  REST = 15 * WINDOW, /* so for as many records nothing is compared */
  FAIR = WINDOW * 3 / 4,
  PER_LESSON = 128, /* learning costs about three times as much as reading: once in so many records, */
  LESSONS = 32,     /* and so many that were saved up */
};

/* The outlines of one kind of records: of a mapping, and where headers say the type, of that type. Publishers that change theirs all the time
 * cost a few per cent: comparing rests while it does not pay, and lessons are counted. */
typedef struct {
  uint64_t kind;
  uint64_t used;              /* the decoder's record it was last asked for */
  livenps_outlines *outlines; /* NULL until the first one is learned */
  plan plans[LIVENPS_OUTLINES];
  unsigned records, followed, rest; /* of this window */
  unsigned lessons, toward;         /* left, and records toward the next one */
} learned;

struct livenps_decoder {
  livenps_scanner *scanner;
  const livenps_finds *finds;
  learned *at[LEARNED];
  size_t learned_count;
  learned *last; /* the one that was asked last */
  uint64_t records, outlined;
  livenps_finds later; /* of a plan's later fields */
  livenps_day day;
};

livenps_decoder *livenps_decoder_new(void) {
  livenps_decoder *decoder = livenps_alloc(sizeof *decoder);
  decoder->scanner = livenps_scanner_new();
  decoder->finds = livenps_scan_finds(decoder->scanner);
  return decoder;
}

void livenps_decoder_free(livenps_decoder *decoder) {
  if (!decoder) {
    return;
  }
  for (size_t i = 0; i < decoder->learned_count; i++) {
    livenps_outlines_free(decoder->at[i]->outlines);
    free(decoder->at[i]);
  }
  livenps_scanner_free(decoder->scanner);
  free(decoder);
}

uint64_t livenps_decoder_short(const livenps_decoder *decoder) {
  return decoder->outlined;
}

static void learned_reset(learned *l, uint64_t kind) {
  livenps_outlines *outlines = l->outlines;
  if (outlines) {
    livenps_outlines_forget(outlines);
  }
  *l = (learned){.kind = kind, .outlines = outlines, .lessons = LESSONS};
}

/* What is remembered of that kind of records, made when it is new. NULL where there are too many kinds at once. */
static learned *learned_of(livenps_decoder *decoder, uint64_t kind) {
  decoder->records++;
  if (decoder->last && decoder->last->kind == kind) {
    return decoder->last;
  }
  if (decoder->last) {
    decoder->last->used = decoder->records;
  }
  learned *found = NULL;
  learned *oldest = NULL;
  for (size_t i = 0; i < decoder->learned_count; i++) {
    learned *l = decoder->at[i];
    found = l->kind == kind ? l : found;
    oldest = !oldest || l->used < oldest->used ? l : oldest;
  }
  if (!found && decoder->learned_count < LEARNED) {
    found = livenps_alloc(sizeof *found);
    learned_reset(found, kind);
    decoder->at[decoder->learned_count++] = found;
  } else if (!found && decoder->records - oldest->used > WINDOW * LEARNED) {
    found = oldest;
    learned_reset(found, kind);
  }
  if (found) {
    found->used = decoder->records;
    decoder->last = found;
  }
  return found;
}

/* Whether this record is to be compared with outlines. */
static inline bool comparing(learned *l) {
  if (++l->toward >= PER_LESSON) {
    l->toward = 0;
    l->lessons += l->lessons < LESSONS;
  }
  if (l->rest > 0) {
    l->rest--;
    return false;
  }
  return true;
}

static inline void compared(learned *l, bool followed) {
  l->followed += followed;
  if (++l->records < WINDOW) {
    return;
  }
  if (l->followed < POOR) {
    l->rest = REST;
  }
  /* No room for what comes now: what was learned first need not be what is frequent. */
  if (l->followed < FAIR && l->lessons >= LESSONS / 2 && l->outlines && livenps_outlines_full(l->outlines)) {
    livenps_outlines_forget(l->outlines);
  }
  l->records = l->followed = 0;
}

/* ---- faults ---- */

__attribute__((format(printf, 5, 6), cold, noinline)) static livenps_reason fault(
    livenps_where *where, livenps_reason reason, size_t offset, const char *field, const char *format, ...) {
  if (where) {
    where->offset = offset;
    snprintf(where->field, sizeof where->field, "%s", field);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(where->detail, sizeof where->detail, format, arguments);
    va_end(arguments);
  }
  return reason;
}

/* ---- which form ---- */

typedef enum { PLAIN, STRUCTURED, BINARY } form;

/* The attributes of CloudEvents' binary mode that matter here. */
enum { CE_SPECVERSION, CE_SOURCE, CE_ID, CE_TYPE, CE_TIME, CE_ATTRIBUTES };
static const char *const ce_names[CE_ATTRIBUTES] = {"ce_specversion", "ce_source", "ce_id", "ce_type",
                                                    "ce_time"};

/* Which attribute a header is, -1: none. By its length first: this is asked for each header of each record. */
static inline int attribute_of(livenps_text name) {
  switch (name.length) {
  case sizeof "ce_id" - 1: return memcmp(name.at, "ce_id", sizeof "ce_id" - 1) == 0 ? CE_ID : -1;
  case sizeof "ce_type" - 1:
    return memcmp(name.at, "ce_type", sizeof "ce_type" - 1) == 0   ? CE_TYPE
           : memcmp(name.at, "ce_time", sizeof "ce_time" - 1) == 0 ? CE_TIME
                                                                   : -1;
  case sizeof "ce_source" - 1:
    return memcmp(name.at, "ce_source", sizeof "ce_source" - 1) == 0 ? CE_SOURCE : -1;
  case sizeof "ce_specversion" - 1:
    return memcmp(name.at, "ce_specversion", sizeof "ce_specversion" - 1) == 0 ? CE_SPECVERSION : -1;
  default: return -1;
  }
}

typedef struct {
  form form;
  livenps_text attributes[CE_ATTRIBUTES]; /* only of the form BINARY */
} envelope;

static bool equal_folded(livenps_text text, const char *lower) {
  for (size_t i = 0; i < text.length; i++) {
    char c = text.at[i];
    if ((c >= 'A' && c <= 'Z' ? (char)(c + 32) : c) !=
        lower[i]) { /* a NUL in lower differs from every c but NUL */
      return false;
    }
    if (c == '\0') {
      return false;
    }
  }
  return lower[text.length] == '\0';
}

/* "Application/JSON ; charset=utf-8" -> "Application/JSON" */
static livenps_text media_type(livenps_text value) {
  while (value.length > 0 && (*value.at == ' ' || *value.at == '\t')) {
    value.at++;
    value.length--;
  }
  const char *semicolon = value.length > 0 ? memchr(value.at, ';', value.length) : NULL;
  if (semicolon) {
    value.length = (size_t)(semicolon - value.at);
  }
  while (value.length > 0 && (value.at[value.length - 1] == ' ' || value.at[value.length - 1] == '\t')) {
    value.length--;
  }
  return value;
}

static bool media_type_is_json(livenps_text type) {
  static const char usual[] = "application/json";
  if (type.length == sizeof usual - 1 && memcmp(type.at, usual, sizeof usual - 1) == 0) {
    return true;
  }
  livenps_text tail = {type.at + (type.length > 5 ? type.length - 5 : 0), type.length > 5 ? 5 : 0};
  return equal_folded(type, usual) || equal_folded(type, "text/json") ||
         (tail.length == 5 && equal_folded(tail, "+json"));
}

static bool media_type_is_cloudevents(livenps_text type) {
  static const char prefix[] = "application/cloudevents";
  livenps_text head = {type.at, sizeof prefix - 1};
  return type.length >= head.length && equal_folded(head, prefix);
}

static livenps_reason read_headers(const livenps_record *record, envelope *out, livenps_where *where) {
  memset(out->attributes, 0, sizeof out->attributes);
  livenps_text content = {0};
  bool ce = false;
  const char *twice = NULL;
  for (size_t i = 0; i < record->header_count; i++) {
    const livenps_header *header = &record->headers[i];
    if (!header->value.at) {
      continue;
    }
    static const char content_type[] = "content-type";
    if (header->name.length == sizeof content_type - 1 &&
        (memcmp(header->name.at, content_type, sizeof content_type - 1) == 0 ||
         equal_folded(header->name, content_type))) {
      if (!content.at) {
        content = header->value;
      }
      continue;
    }
    const int a = attribute_of(header->name);
    if (a >= 0) {
      twice = out->attributes[a].at ? ce_names[a] : twice;
      out->attributes[a] = header->value;
      ce = true;
    }
  }
  livenps_text type = content.at ? media_type(content) : content;
  if (content.at && media_type_is_cloudevents(type)) {
    out->form = STRUCTURED;
    return equal_folded(type, "application/cloudevents+json")
               ? LIVENPS_REASON_NONE
               : fault(where, LIVENPS_REASON_CLOUDEVENT, 0, "content-type",
                       "of the structured forms only application/cloudevents+json is read");
  }
  if (!ce) {
    return LIVENPS_REASON_NONE;
  }
  out->form = BINARY;
  if (twice) {
    return fault(where, LIVENPS_REASON_CLOUDEVENT, 0, twice, "the header is given twice");
  }
  if (content.at && !media_type_is_json(type)) {
    return fault(where, LIVENPS_REASON_CLOUDEVENT, 0, "content-type", "the data are not JSON");
  }
  for (int a = 0; a < CE_ATTRIBUTES; a++) {
    if (out->attributes[a].at && !livenps_utf8_valid(out->attributes[a].at, out->attributes[a].length)) {
      return fault(where, LIVENPS_REASON_INVALID_UTF8, 0, ce_names[a], "the header is not valid UTF-8");
    }
  }
  return LIVENPS_REASON_NONE;
}

/* The attributes that make it a CloudEvents 1.0 event with JSON data; id, type and time are read as fields later. */
static livenps_reason check_structured(const livenps_finds *finds, const livenps_mapping *mapping,
                                       livenps_where *where) {
  const livenps_found *version = livenps_find(finds, mapping->specversion);
  if (version->kind != LIVENPS_JSON_STRING || !livenps_text_equal(version->text, livenps_text_of("1.0"))) {
    return fault(where, LIVENPS_REASON_CLOUDEVENT, version->offset, "specversion", "must be \"1.0\"");
  }
  const livenps_found *source = livenps_find(finds, mapping->source);
  if (source->kind != LIVENPS_JSON_STRING || source->text.length == 0) {
    return fault(where, LIVENPS_REASON_CLOUDEVENT, source->offset, "source",
                 "must be a string that is not empty");
  }
  const livenps_found *base64 = livenps_find(finds, mapping->data_base64);
  if (base64->kind > LIVENPS_JSON_NULL) {
    return fault(where, LIVENPS_REASON_CLOUDEVENT, base64->offset, "data_base64", "binary data are not read");
  }
  const livenps_found *content = livenps_find(finds, mapping->datacontenttype);
  if (content->kind > LIVENPS_JSON_NULL &&
      (content->kind != LIVENPS_JSON_STRING || !media_type_is_json(media_type(content->text)))) {
    return fault(where, LIVENPS_REASON_CLOUDEVENT, content->offset, "datacontenttype",
                 "the data are not JSON");
  }
  const livenps_found *data = livenps_find(finds, mapping->data);
  if (data->kind != LIVENPS_JSON_OBJECT) {
    return fault(where, LIVENPS_REASON_CLOUDEVENT, data->offset, "data", "must be a JSON object");
  }
  return LIVENPS_REASON_NONE;
}

static livenps_reason check_binary(const envelope *headers, livenps_where *where) {
  const livenps_text version = headers->attributes[CE_SPECVERSION];
  if (version.length != 3 || memcmp(version.at, "1.0", 3) != 0) {
    return fault(where, LIVENPS_REASON_CLOUDEVENT, 0, "ce_specversion", "must be 1.0");
  }
  if (headers->attributes[CE_SOURCE].length == 0) {
    return fault(where, LIVENPS_REASON_CLOUDEVENT, 0, "ce_source", "must be there and not be empty");
  }
  return LIVENPS_REASON_NONE;
}

/* ---- rules of a mapping ---- */

static bool rule_holds(const livenps_finds *finds, const livenps_rule *rule) {
  const livenps_found *found = livenps_find(finds, rule->node);
  livenps_text text = found->kind == LIVENPS_JSON_TRUE    ? livenps_text_of("true")
                      : found->kind == LIVENPS_JSON_FALSE ? livenps_text_of("false")
                                                          : found->text;
  bool scalar = found->kind >= LIVENPS_JSON_FALSE && found->kind <= LIVENPS_JSON_STRING;
  for (size_t i = 0; scalar && i < rule->value_count; i++) {
    if (livenps_text_equal(text, livenps_text_of(rule->values[i]))) {
      return !rule->negated;
    }
  }
  return rule->negated;
}

/* ---- fields ---- */

typedef struct {
  livenps_scanner *scanner;
  livenps_day *day;
  const livenps_finds *finds;
  const livenps_place *places;
  const envelope *headers;
  livenps_where *where;
} reader;

/* What a field says. kind is ABSENT, STRING or NUMBER. */
typedef struct {
  livenps_json_kind kind;
  livenps_text text;
  size_t offset;
} field_text;

static bool whole_number(livenps_text text) {
  for (size_t i = text.at[0] == '-' ? 1 : 0; i < text.length; i++) {
    if (text.at[i] < '0' || text.at[i] > '9') {
      return false;
    }
  }
  return true;
}

/* The JSON type is checked here: a string, or a number where numbers may stand. Inlined, as is read_text, so that what a
 * field says stays in registers: through memory it is a third of the cost of a record. */
static inline __attribute__((always_inline)) livenps_reason read_field(const reader *r, livenps_field field,
                                                                       bool numbers, field_text *out) {
  const livenps_place *place = &r->places[field];
  const livenps_found *found = livenps_find(r->finds, place->node);
  *out = (field_text){found->kind, found->text, found->offset};
  switch (found->kind) {
  case LIVENPS_JSON_STRING: break;
  case LIVENPS_JSON_NUMBER:
    if (!numbers && !(place->numbers && whole_number(found->text))) {
      return fault(r->where, LIVENPS_REASON_WRONG_TYPE, found->offset, livenps_field_names[field],
                   "must be a string");
    }
    break;
  case LIVENPS_JSON_ABSENT:
  case LIVENPS_JSON_NULL:
    *out = (field_text){LIVENPS_JSON_ABSENT, {0}, found->offset};
    if (place->fallback) {
      out->kind = LIVENPS_JSON_STRING;
      out->text = livenps_text_of(place->fallback);
    }
    return LIVENPS_REASON_NONE;
  default:
    return fault(r->where, LIVENPS_REASON_WRONG_TYPE, found->offset, livenps_field_names[field],
                 numbers ? "must be a number or a string" : "must be a string");
  }
  for (size_t i = 0; i < place->word_count; i++) {
    if (livenps_text_equal(out->text, livenps_text_of(place->words[i].from))) {
      out->kind = LIVENPS_JSON_STRING;
      out->text = livenps_text_of(place->words[i].to);
      break;
    }
  }
  return LIVENPS_REASON_NONE;
}

static livenps_reason missing(const reader *r, livenps_field field, const field_text *said) {
  return fault(r->where, LIVENPS_REASON_MISSING_FIELD, said->offset, livenps_field_names[field],
               "is absent or null");
}

static bool has_capital(livenps_text text) {
  for (size_t i = 0; i < text.length; i++) {
    if (text.at[i] >= 'A' && text.at[i] <= 'Z') {
      return true;
    }
  }
  return false;
}

/* The same of a text in a document that ends at end: at once, where so much may be read. */
static inline bool has_capital_before(livenps_text text, const char *end) {
#ifdef __SSE2__
  if (text.length <= 16 && end - text.at >= 16) {
    const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)text.at);
    const __m128i from = _mm_cmpgt_epi8(bytes, _mm_set1_epi8('A' - 1));
    const __m128i behind = _mm_cmpgt_epi8(bytes, _mm_set1_epi8('Z'));
    const unsigned found = (unsigned)_mm_movemask_epi8(_mm_andnot_si128(behind, from));
    return (found & ((UINT32_C(1) << text.length) - 1)) != 0;
  }
#else
  (void)end;
#endif
  return has_capital(text);
}

static inline livenps_text fold(livenps_scanner *scanner, livenps_text text) {
  if (text.length > LIVENPS_MAX_ID || !has_capital(text)) {
    return text;
  }
  char *at = livenps_scan_room(scanner, text.length);
  for (size_t i = 0; i < text.length; i++) {
    char c = text.at[i];
    at[i] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
  }
  return (livenps_text){at, text.length};
}

/* Attributes of CloudEvents' binary mode stand in for the fields id, type and time. */
static inline __attribute__((always_inline)) livenps_reason read_text(const reader *r, livenps_field field,
                                                                      field_text *out) {
  if (r->headers->form == BINARY && field <= LIVENPS_FIELD_TIME) {
    static const int attribute[] = {CE_ID, CE_TYPE, CE_TIME};
    livenps_text text = r->headers->attributes[attribute[field]];
    *out = (field_text){text.at ? LIVENPS_JSON_STRING : LIVENPS_JSON_ABSENT, text, 0};
    return LIVENPS_REASON_NONE;
  }
  livenps_reason reason = read_field(r, field, field == LIVENPS_FIELD_TIME, out);
  if (reason == LIVENPS_REASON_NONE && r->places[field].lower && out->kind != LIVENPS_JSON_ABSENT) {
    out->text = fold(r->scanner, out->text);
  }
  return reason;
}

/* id, customer and the dimensions. An optional one that is empty is absent: out->at is NULL then. */
static livenps_reason read_name(const reader *r, livenps_field field, bool required, livenps_text *out) {
  field_text said;
  livenps_reason reason = read_text(r, field, &said);
  if (reason != LIVENPS_REASON_NONE) {
    return reason;
  }
  *out = (livenps_text){0};
  if (said.kind == LIVENPS_JSON_ABSENT) {
    return required ? missing(r, field, &said) : LIVENPS_REASON_NONE;
  }
  if (said.text.length == 0) {
    return required ? fault(r->where, LIVENPS_REASON_EMPTY_NAME, said.offset, livenps_field_names[field],
                            "is empty")
                    : LIVENPS_REASON_NONE;
  }
  /* Encoding makes a byte three at most. */
  if (said.text.length > LIVENPS_MAX_ID / 3 && livenps_name_length(said.text) > LIVENPS_MAX_ID) {
    return fault(r->where, LIVENPS_REASON_NAME_TOO_LONG, said.offset, livenps_field_names[field],
                 "is longer than %d bytes, percent-encoded", LIVENPS_MAX_ID);
  }
  *out = said.text;
  return LIVENPS_REASON_NONE;
}

/* False: none of them. dotted: it is what stands behind the last dot. */
static bool type_of(livenps_text type, bool dotted, livenps_type *out) {
  static const struct {
    livenps_text name;
    livenps_type type;
  } types[] = {{{"answer", 6}, LIVENPS_ANSWER},
               {{"interaction", 11}, LIVENPS_INTERACTION},
               {{"invitation", 10}, LIVENPS_INVITATION}};
  for (size_t i = type.length; dotted && i > 0; i--) {
    if (type.at[i - 1] == '.') {
      type = (livenps_text){type.at + i, type.length - i};
      break;
    }
  }
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    if (livenps_text_equal(type, types[i].name)) {
      *out = types[i].type;
      return true;
    }
  }
  return false;
}

static livenps_reason read_type(const reader *r, livenps_type *out) {
  field_text said;
  livenps_reason reason = read_text(r, LIVENPS_FIELD_TYPE, &said);
  if (reason != LIVENPS_REASON_NONE) {
    return reason;
  }
  if (said.kind == LIVENPS_JSON_ABSENT) {
    return missing(r, LIVENPS_FIELD_TYPE, &said);
  }
  if (type_of(said.text, r->headers->form != PLAIN, out)) {
    return LIVENPS_REASON_NONE;
  }
  return fault(r->where, LIVENPS_REASON_UNKNOWN_TYPE, said.offset, "type",
               "must be interaction, invitation or answer");
}

/* Years 0001 to 9999, as RFC 3339 can say them. */
static const int64_t first_time_ms = INT64_C(-62135596800000);
static const int64_t last_time_ms = INT64_C(253402300799999);

/* Epoch seconds may carry decimals, which are cut to milliseconds; epoch milliseconds may not. No exponents. */
static bool epoch_time(livenps_text text, livenps_time_format format, int64_t *ms) {
  const char *p = text.at;
  const char *end = p + text.length;
  bool negative = p < end && *p == '-';
  p += negative;
  const char *digits = p;
  int64_t units = 0;
  for (; p < end && *p >= '0' && *p <= '9'; p++) {
    if (units > last_time_ms) {
      return false;
    }
    units = units * 10 + (*p - '0');
  }
  if (p == digits || (*digits == '0' && p - digits > 1)) {
    return false;
  }
  int64_t time_ms = units;
  if (format == LIVENPS_TIME_SECONDS) {
    if (units > last_time_ms / 1000) {
      return false;
    }
    time_ms = units * 1000;
    if (p < end && *p == '.') {
      const char *point = p++;
      for (int64_t worth = 100; p < end && *p >= '0' && *p <= '9'; p++, worth /= 10) {
        time_ms += (*p - '0') * worth;
      }
      if (p == point + 1) {
        return false;
      }
    }
  }
  *ms = negative ? -time_ms : time_ms;
  return p == end && *ms >= first_time_ms && *ms <= last_time_ms;
}

static inline bool time_of(livenps_day *day, livenps_text text, livenps_time_format format, int64_t *ms) {
  return format == LIVENPS_TIME_RFC3339 ? livenps_time_parse_near(day, text.at, text.length, ms) == 0
                                        : epoch_time(text, format, ms);
}

static livenps_reason read_time(const reader *r, int64_t *out) {
  static const char *const forms[] = {"an RFC 3339 time in a string, such as \"2026-11-21T10:15:00.123Z\"",
                                      "epoch seconds", "whole epoch milliseconds"};
  field_text said;
  livenps_reason reason = read_text(r, LIVENPS_FIELD_TIME, &said);
  if (reason != LIVENPS_REASON_NONE) {
    return reason;
  }
  if (said.kind == LIVENPS_JSON_ABSENT) {
    return missing(r, LIVENPS_FIELD_TIME, &said);
  }
  livenps_time_format format = r->places[LIVENPS_FIELD_TIME].format;
  bool good = (format != LIVENPS_TIME_RFC3339 || said.kind == LIVENPS_JSON_STRING) &&
              time_of(r->day, said.text, format, out);
  return good ? LIVENPS_REASON_NONE
              : fault(r->where, LIVENPS_REASON_BAD_TIME, said.offset, "time", "must be %s", forms[format]);
}

static livenps_reason read_scale(const reader *r, livenps_scale *out) {
  field_text said;
  livenps_reason reason = read_text(r, LIVENPS_FIELD_SCALE, &said);
  if (reason != LIVENPS_REASON_NONE) {
    return reason;
  }
  if (said.kind == LIVENPS_JSON_ABSENT) {
    return missing(r, LIVENPS_FIELD_SCALE, &said);
  }
  static const char *const scales[] = {
      [LIVENPS_SCALE_NPS] = "nps", [LIVENPS_SCALE_CSAT] = "csat", [LIVENPS_SCALE_CES] = "ces"};
  for (int scale = LIVENPS_SCALE_NPS; scale <= LIVENPS_SCALE_CES; scale++) {
    if (livenps_text_equal(said.text, livenps_text_of(scales[scale]))) {
      *out = (livenps_scale)scale;
      return LIVENPS_REASON_NONE;
    }
  }
  return fault(r->where, LIVENPS_REASON_UNKNOWN_SCALE, said.offset, "scale", "must be nps, csat or ces");
}

static const struct {
  int low, high;
} score_range[] = {
    [LIVENPS_SCALE_NPS] = {0, 10}, [LIVENPS_SCALE_CSAT] = {1, 5}, [LIVENPS_SCALE_CES] = {1, 7}};

/* -1 when it is none of that scale. */
static inline int score_of(livenps_text text, livenps_scale scale) {
  int score = -1;
  if (text.length == 1 && text.at[0] >= '0' && text.at[0] <= '9') {
    score = text.at[0] - '0';
  } else if (text.length == 2 && text.at[0] == '1' && text.at[1] == '0') {
    score = 10;
  }
  return score < score_range[scale].low || score > score_range[scale].high ? -1 : score;
}

/* Digits only, as a number or as a string: 9.0 or 1e1 are measurements, not answers, and say that a publisher
 * computes what it should pass on. */
static livenps_reason read_score(const reader *r, livenps_scale scale, int *out) {
  field_text said;
  livenps_reason reason = read_field(r, LIVENPS_FIELD_SCORE, true, &said);
  if (reason != LIVENPS_REASON_NONE) {
    return reason;
  }
  if (said.kind == LIVENPS_JSON_ABSENT) {
    return missing(r, LIVENPS_FIELD_SCORE, &said);
  }
  const int score = score_of(said.text, scale);
  if (score < 0) {
    return fault(r->where, LIVENPS_REASON_BAD_SCORE, said.offset, "score",
                 "must be a whole number from %d to %d", score_range[scale].low, score_range[scale].high);
  }
  *out = score;
  return LIVENPS_REASON_NONE;
}

/* JSON's grammar of a number without exponent and with at most two decimals, to whole hundredths. */
static bool hundredths(livenps_text text, int64_t *out) {
  static const int64_t limit = INT64_C(1000000000);
  const char *p = text.at;
  const char *end = p + text.length;
  bool negative = p < end && *p == '-';
  p += negative;
  const char *digits = p;
  int64_t whole = 0;
  for (; p < end && *p >= '0' && *p <= '9' && whole <= limit; p++) {
    whole = whole * 10 + (*p - '0');
  }
  if (p == digits || whole > limit || (*digits == '0' && p - digits > 1)) {
    return false;
  }
  int64_t value = whole * 100;
  if (p < end && *p == '.') {
    const char *decimals = ++p;
    for (int64_t worth = 10; p < end && *p >= '0' && *p <= '9' && worth > 0; p++, worth /= 10) {
      value += (*p - '0') * worth;
    }
    if (p == decimals) {
      return false;
    }
  }
  *out = negative ? -value : value;
  return p == end && value <= limit * 100;
}

static livenps_reason read_value(const reader *r, livenps_event *event) {
  field_text said;
  livenps_reason reason = read_field(r, LIVENPS_FIELD_VALUE, true, &said);
  if (reason != LIVENPS_REASON_NONE || said.kind == LIVENPS_JSON_ABSENT) {
    return reason;
  }
  if (!hundredths(said.text, &event->value)) {
    event->value = 0;
    return fault(r->where, LIVENPS_REASON_BAD_VALUE, said.offset, "value",
                 "must have at most two decimals, no exponent, and be at most 1000000000 either way");
  }
  event->has_value = true;
  return LIVENPS_REASON_NONE;
}

/* Each member by itself: for all of them at once compilers choose an instruction that takes longer than reading a name. */
static inline void empty_event(livenps_event *event) {
  static const livenps_text none = {0};
  event->type = LIVENPS_INTERACTION;
  event->scale = LIVENPS_SCALE_NONE;
  event->score = -1;
  event->has_value = false;
  event->value = event->time_ms = 0;
  event->id = event->customer = none;
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
    event->dimensions[d] = none;
  }
}

static livenps_reason read_event(const reader *r, livenps_event *event) {
  empty_event(event);
  livenps_reason reason = read_name(r, LIVENPS_FIELD_ID, true, &event->id);
  if (reason == LIVENPS_REASON_NONE) {
    reason = read_type(r, &event->type);
  }
  if (reason == LIVENPS_REASON_NONE) {
    reason = read_time(r, &event->time_ms);
  }
  for (int d = 0; d < LIVENPS_DIMENSIONS && reason == LIVENPS_REASON_NONE; d++) {
    reason = read_name(r, (livenps_field)(LIVENPS_FIELD_TOUCHPOINT + d), d == LIVENPS_TOUCHPOINT,
                       &event->dimensions[d]);
  }
  if (reason == LIVENPS_REASON_NONE) {
    reason = read_name(r, LIVENPS_FIELD_CUSTOMER, false, &event->customer);
  }
  if (reason != LIVENPS_REASON_NONE || event->type != LIVENPS_ANSWER) {
    return reason;
  }
  reason = read_scale(r, &event->scale);
  if (reason == LIVENPS_REASON_NONE) {
    reason = read_score(r, event->scale, &event->score);
  }
  return reason == LIVENPS_REASON_NONE ? read_value(r, event) : reason;
}

/* ---- the shorter way ---- */

/* Raw text of so many bytes is never too long, encoded: a byte becomes three at most. */
enum { SURELY_SHORT = 64 };

/* The names of an outline's record, absent where they are empty. False: the whole way says what is wrong. */
static inline bool names_of(livenps_scanner *scanner, const plan *p, livenps_text value,
                            const livenps_text texts[LIVENPS_OUTLINE_TEXTS], livenps_event *event) {
  static const uint8_t fields[] = {LIVENPS_FIELD_ID,      LIVENPS_FIELD_TOUCHPOINT, LIVENPS_FIELD_CHANNEL,
                                   LIVENPS_FIELD_SEGMENT, LIVENPS_FIELD_STAGE,      LIVENPS_FIELD_CUSTOMER};
  size_t lengths = 0;
#define NAME(field, out)                                                                                     \
  lengths |= texts[field].length;                                                                            \
  (out) = (livenps_text){texts[field].length > 0 ? texts[field].at : NULL, texts[field].length}
  NAME(LIVENPS_FIELD_ID, event->id);
  NAME(LIVENPS_FIELD_TOUCHPOINT, event->dimensions[LIVENPS_TOUCHPOINT]);
  NAME(LIVENPS_FIELD_CHANNEL, event->dimensions[LIVENPS_CHANNEL]);
  NAME(LIVENPS_FIELD_SEGMENT, event->dimensions[LIVENPS_SEGMENT]);
  NAME(LIVENPS_FIELD_STAGE, event->dimensions[LIVENPS_STAGE]);
  NAME(LIVENPS_FIELD_CUSTOMER, event->customer);
#undef NAME
  if (lengths >= SURELY_SHORT) {
    for (size_t i = 0; i < sizeof fields; i++) {
      const livenps_text text = texts[fields[i]];
      if (text.length >= SURELY_SHORT && livenps_name_length(text) > LIVENPS_MAX_ID) {
        return false;
      }
    }
  }
  for (unsigned lower = p->lower; lower; lower &= lower - 1) {
    livenps_text *text = &event->dimensions[__builtin_ctz(lower)];
    const bool in_value =
        (uintptr_t)text->at - (uintptr_t)value.at < value.length; /* else unescaped, or absent */
    if (!in_value || has_capital_before(*text, value.at + value.length)) {
      *text = fold(scanner, *text);
    }
  }
  return true;
}

/* Fields that need more than their text: the mapping's words, numbers as names, texts for what is absent. */
static bool later_of(const reader *r, const plan *p, livenps_event *event) {
  livenps_reason reason = LIVENPS_REASON_NONE;
  if (p->later >> LIVENPS_FIELD_ID & 1) {
    reason = read_name(r, LIVENPS_FIELD_ID, true, &event->id);
  }
  for (int d = 0; d < LIVENPS_DIMENSIONS && reason == LIVENPS_REASON_NONE; d++) {
    if (p->later >> (LIVENPS_FIELD_TOUCHPOINT + d) & 1) {
      reason = read_name(r, (livenps_field)(LIVENPS_FIELD_TOUCHPOINT + d), d == LIVENPS_TOUCHPOINT,
                         &event->dimensions[d]);
    }
  }
  if (reason == LIVENPS_REASON_NONE && p->later >> LIVENPS_FIELD_CUSTOMER & 1) {
    reason = read_name(r, LIVENPS_FIELD_CUSTOMER, false, &event->customer);
  }
  if (reason == LIVENPS_REASON_NONE && p->later >> LIVENPS_FIELD_SCORE & 1) {
    reason = read_score(r, event->scale, &event->score);
  }
  return reason == LIVENPS_REASON_NONE;
}

/* One by one, as in empty_event. */
static inline void no_texts(livenps_text texts[LIVENPS_OUTLINE_TEXTS]) {
  static const livenps_text none = {0};
  _Static_assert(TEXTS == 12, "each of them");
  texts[0] = texts[1] = texts[2] = texts[3] = texts[4] = texts[5] = none;
  texts[6] = texts[7] = texts[8] = texts[9] = texts[10] = texts[11] = none;
}

/* True when the record follows an outline and is accepted: *event is what the whole way would make of it. */
static bool decode_outlined(livenps_decoder *decoder, learned *l, const livenps_mapping *mapping,
                            const envelope *headers, livenps_text value, livenps_event *event) {
  livenps_text texts[LIVENPS_OUTLINE_TEXTS];
  no_texts(texts);
  const int number = livenps_outlines_match(l->outlines, decoder->scanner, value.at, value.length, texts);
  if (number < 0) {
    return false;
  }
  const plan *p = &l->plans[number];
  if ((headers->form == STRUCTURED && !p->structured) || (p->structured && texts[TEXT_SOURCE].length == 0)) {
    return false;
  }
  if (headers->form == BINARY) {
    texts[LIVENPS_FIELD_ID] = headers->attributes[CE_ID];
    texts[LIVENPS_FIELD_TIME] = headers->attributes[CE_TIME];
  }
  const livenps_place *places = p->structured ? mapping->data_fields : mapping->fields;
  empty_event(event);
  event->type = p->type;
  event->scale = p->scale;
  if (!names_of(decoder->scanner, p, value, texts, event)) {
    return false;
  }
  if (p->later) {
    envelope none;
    none.form = PLAIN;
    const reader r = {decoder->scanner, &decoder->day, &decoder->later, places, &none, NULL};
    memset(decoder->later.reached, 0, sizeof decoder->later.reached);
    for (int f = 0; f < LIVENPS_FIELDS; f++) {
      const int node = places[f].node;
      if ((p->later >> f & 1) && p->kinds[f] != LIVENPS_JSON_ABSENT) {
        decoder->later.reached[node >> 6] |= UINT64_C(1) << (node & 63);
        decoder->later.found[node] = (livenps_found){p->kinds[f], texts[f], 0};
      }
    }
    if (!later_of(&r, p, event)) {
      return false;
    }
  }
  if (!event->id.at || !event->dimensions[LIVENPS_TOUCHPOINT].at ||
      !time_of(&decoder->day, texts[LIVENPS_FIELD_TIME], places[LIVENPS_FIELD_TIME].format,
               &event->time_ms)) {
    return false;
  }
  if (p->type == LIVENPS_ANSWER) {
    if (!(p->later >> LIVENPS_FIELD_SCORE & 1)) {
      event->score = score_of(texts[LIVENPS_FIELD_SCORE], p->scale);
    }
    event->has_value = texts[LIVENPS_FIELD_VALUE].at != NULL;
    return event->score >= 0 && (!event->has_value || hundredths(texts[LIVENPS_FIELD_VALUE], &event->value));
  }
  return true;
}

typedef struct {
  livenps_wanted at[LIVENPS_FIELDS + 64];
  size_t count;
} wishes;

/* text: where the value at that node goes; -1: it must stay the same. False when one value is to be two things, which is not learned. */
static bool wish(wishes *wanted, const livenps_finds *finds, int node, int text) {
  const livenps_found *found = livenps_find(finds, node);
  if (found->kind == LIVENPS_JSON_ABSENT) {
    return true; /* and so are its keys in every record of the outline */
  }
  for (size_t i = 0; i < wanted->count; i++) {
    if (wanted->at[i].offset == found->offset) {
      return wanted->at[i].text < 0 && text < 0;
    }
  }
  if (wanted->count == sizeof wanted->at / sizeof *wanted->at) {
    return false;
  }
  wanted->at[wanted->count++] = (livenps_wanted){found->offset, text};
  return true;
}

/* Which value is which field, and which ones decide by what they say: those become a part of the outline. */
static bool wishes_of(const livenps_mapping *mapping, const livenps_finds *finds, form form,
                      const livenps_event *event, wishes *wanted, plan *p) {
  const bool structured = form == STRUCTURED;
  const livenps_place *places = structured ? mapping->data_fields : mapping->fields;
  bool good = true;
  if (mapping->contract) {
    good = wish(wanted, finds, mapping->specversion, -1) &&
           wish(wanted, finds, structured ? mapping->data_revision : mapping->revision, -1) &&
           wish(wanted, finds, structured ? mapping->data_deleted : mapping->deleted, -1);
  }
  if (structured) {
    good = good && wish(wanted, finds, mapping->source, TEXT_SOURCE) &&
           wish(wanted, finds, mapping->datacontenttype, -1) && wish(wanted, finds, mapping->data_base64, -1);
  }
  for (size_t i = 0; i < mapping->rule_count; i++) {
    good = good && wish(wanted, finds, mapping->rules[i].node, -1);
  }
  for (int f = form == BINARY ? LIVENPS_FIELD_TIME + 1 : 0; f < LIVENPS_FIELDS && good; f++) {
    const livenps_place *place = &places[f];
    const livenps_found *found = livenps_find(finds, place->node);
    const bool there = found->kind == LIVENPS_JSON_STRING || found->kind == LIVENPS_JSON_NUMBER;
    const bool word = f == LIVENPS_FIELD_TYPE || f == LIVENPS_FIELD_SCALE;
    if (f >= LIVENPS_FIELD_SCALE && event->type != LIVENPS_ANSWER) {
      break; /* not read, so it may be anything */
    }
    good = wish(wanted, finds, place->node, word || !there ? -1 : f);
    const bool name = f == LIVENPS_FIELD_ID || f == LIVENPS_FIELD_CUSTOMER ||
                      (f >= LIVENPS_FIELD_TOUCHPOINT && f < LIVENPS_FIELD_TOUCHPOINT + LIVENPS_DIMENSIONS);
    const bool dimension = name && f != LIVENPS_FIELD_ID && f != LIVENPS_FIELD_CUSTOMER;
    const bool digits = name && found->kind == LIVENPS_JSON_NUMBER; /* to be whole */
    const bool small = place->lower && name && !dimension;
    if (!word && (digits || small || place->word_count > 0 || (!there && place->fallback))) {
      p->later = (uint16_t)(p->later | 1u << f);
    }
    p->kinds[f] = there ? found->kind : LIVENPS_JSON_ABSENT;
    if (place->lower && dimension) {
      p->lower = (uint8_t)(p->lower | 1u << (f - LIVENPS_FIELD_TOUCHPOINT));
    }
  }
  return good;
}

static void learn(learned *l, const livenps_mapping *mapping, const livenps_finds *finds, form form,
                  livenps_text value, const livenps_event *event) {
  wishes wanted = {.count = 0};
  plan p = {.type = event->type, .scale = event->scale, .structured = form == STRUCTURED};
  if (wishes_of(mapping, finds, form, event, &wanted, &p)) {
    if (!l->outlines) {
      l->outlines = livenps_outlines_new();
    }
    const int number = livenps_outlines_learn(l->outlines, value.at, value.length, wanted.at, wanted.count);
    if (number >= 0) {
      l->plans[number] = p;
    }
  }
}

/* ---- the whole way ---- */

/* *headers->form becomes STRUCTURED where the document says so. */
static livenps_reason decode_whole(livenps_decoder *decoder, const livenps_mapping *mapping,
                                   livenps_text value, envelope *headers, livenps_event *event,
                                   livenps_where *where) {
  size_t offset = 0;
  const char *detail = "";
  livenps_scanner *scanner = decoder->scanner;
  const livenps_finds *finds = decoder->finds;
  livenps_reason reason = livenps_scan(scanner, &mapping->paths, value.at, value.length, &offset, &detail);
  if (reason != LIVENPS_REASON_NONE) {
    return fault(where, reason, offset, "", "%s", detail);
  }
  const livenps_found *document = livenps_find(finds, 0);
  if (document->kind != LIVENPS_JSON_OBJECT) {
    return fault(where, LIVENPS_REASON_NOT_OBJECT, document->offset, "", "the value must be an object");
  }

  reader r = {scanner, &decoder->day, finds, mapping->fields, headers, where};
  if (mapping->contract) {
    if (headers->form == PLAIN && livenps_find(finds, mapping->specversion)->kind > LIVENPS_JSON_NULL) {
      headers->form = STRUCTURED;
    }
    if (headers->form == STRUCTURED) {
      reason = check_structured(finds, mapping, where);
      r.places = mapping->data_fields;
    } else if (headers->form == BINARY) {
      reason = check_binary(headers, where);
    }
    if (reason != LIVENPS_REASON_NONE) {
      return reason;
    }
    bool structured = headers->form == STRUCTURED;
    const livenps_found *revision =
        livenps_find(finds, structured ? mapping->data_revision : mapping->revision);
    const livenps_found *deleted = livenps_find(finds, structured ? mapping->data_deleted : mapping->deleted);
    if (revision->kind > LIVENPS_JSON_NULL) {
      return fault(where, LIVENPS_REASON_RESERVED, revision->offset, "revision", "means nothing yet");
    }
    if (deleted->kind > LIVENPS_JSON_NULL) {
      return fault(where, LIVENPS_REASON_RESERVED, deleted->offset, "deleted", "means nothing yet");
    }
  }
  for (size_t i = 0; i < mapping->rule_count; i++) {
    const livenps_rule *rule = &mapping->rules[i];
    if (rule_holds(finds, rule)) {
      return fault(where, rule->reason, livenps_find(finds, rule->node)->offset, rule->pointer, "%s",
                   livenps_reason_text(rule->reason));
    }
  }
  return read_event(&r, event);
}

/* The kind of a record, under which its outline is learned. False when its headers are wrong, or say none of the types. */
static inline bool kind_of(const livenps_mapping *mapping, const envelope *headers, uint64_t *kind) {
  livenps_type type;
  *kind = mapping->serial * 4;
  if (headers->form == BINARY) {
    if (check_binary(headers, NULL) != LIVENPS_REASON_NONE || !headers->attributes[CE_TYPE].at ||
        !type_of(headers->attributes[CE_TYPE], true, &type)) {
      return false;
    }
    *kind += 1 + (uint64_t)type;
  }
  return true;
}

livenps_reason livenps_decode(livenps_decoder *decoder, const livenps_mapping *mapping, size_t max_bytes,
                              const livenps_record *record, livenps_event *event, livenps_where *where) {
  livenps_text value = record->value;
  if (!value.at) {
    return fault(where, LIVENPS_REASON_TOMBSTONE, 0, "", "the record has no value");
  }
  if (value.length > max_bytes) {
    return fault(where, LIVENPS_REASON_TOO_LARGE, 0, "", "%zu bytes, at most %zu are read", value.length,
                 max_bytes);
  }
  envelope headers;
  headers.form = PLAIN;
  livenps_reason reason = LIVENPS_REASON_NONE;
  if (mapping->contract && record->header_count > 0) {
    reason = read_headers(record, &headers, where);
    if (reason != LIVENPS_REASON_NONE) {
      return reason;
    }
  }
  if (value.length > 0 && value.at[0] == '\0') {
    return fault(where, LIVENPS_REASON_SCHEMA_FRAMING, 0, "", "the first byte is 0");
  }

  learned *l = NULL;
  uint64_t kind;
  if (kind_of(mapping, &headers, &kind)) {
    l = learned_of(decoder, kind);
  }
  if (l && comparing(l)) {
    const bool followed = l->outlines && decode_outlined(decoder, l, mapping, &headers, value, event);
    compared(l, followed);
    if (followed) {
      decoder->outlined++;
      return LIVENPS_REASON_NONE;
    }
  } else {
    l = NULL;
  }
  reason = decode_whole(decoder, mapping, value, &headers, event, where);
  /* Where there is no room lessons are saved up until it is worth to forget. */
  if (reason == LIVENPS_REASON_NONE && l && l->lessons > 0 &&
      !(l->outlines && livenps_outlines_full(l->outlines))) {
    l->lessons--;
    learn(l, mapping, decoder->finds, headers.form, value, event);
  }
  return reason;
}
