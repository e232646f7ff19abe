#ifndef LIVENPS_EVENT_H
#define LIVENPS_EVENT_H

#include "text.h"

typedef enum { LIVENPS_INTERACTION, LIVENPS_INVITATION, LIVENPS_ANSWER } livenps_type;
typedef enum { LIVENPS_SCALE_NONE, LIVENPS_SCALE_NPS, LIVENPS_SCALE_CSAT, LIVENPS_SCALE_CES } livenps_scale;

/* The dimensions of an event; roll-ups are made of these. */
enum { LIVENPS_TOUCHPOINT, LIVENPS_CHANNEL, LIVENPS_SEGMENT, LIVENPS_STAGE, LIVENPS_DIMENSIONS };
extern const char
    *const livenps_dimension_names[LIVENPS_DIMENSIONS]; /* "touchpoint", "channel", "segment", "stage" */

/* Limits of the contract (docs/events.md). */
enum {
  LIVENPS_MAX_RECORD = 1024 * 1024, /* bytes of a record's value; default of the setting admit.max_bytes */
  LIVENPS_MAX_DEPTH = 32,           /* nesting of JSON */
  LIVENPS_MAX_ID = 256, /* bytes of a percent-encoded dimension, and of an event's id or customer */
};

/* One decoded event. Texts borrow from the record or from the decoder, until its next call. */
typedef struct {
  livenps_type type;
  livenps_scale scale;
  int score; /* 0..10, 1..5, 1..7 by scale; -1 without */
  bool has_value;
  int64_t value; /* hundredths, |value| <= 10^11 */
  int64_t time_ms;
  livenps_text id, customer;
  livenps_text
      dimensions[LIVENPS_DIMENSIONS]; /* raw UTF-8 (channel and stage ASCII-folded); absent where not given */
} livenps_event;

/* A Kafka record as the pure middle sees it. value.at == NULL is a tombstone. */
typedef struct {
  livenps_text name, value;
} livenps_header;
typedef struct {
  livenps_text key, value;
  const livenps_header *headers;
  size_t header_count;
  int64_t timestamp_ms; /* -1: the record has none */
} livenps_record;

/* What became of a record (design: invariant I2 adds these up). */
typedef enum {
  LIVENPS_ACCEPTED,
  LIVENPS_REJECTED,
  LIVENPS_LATE,
  LIVENPS_DUPLICATE,
  LIVENPS_OUT_OF_RANGE
} livenps_fate;

/* Why a record was rejected. The names are a contract (quarantine headers, health, log entries, docs/events.md):
 * a name is never reused for something else. Order is free, entries carry names. Extend here. */
#define LIVENPS_REASON_LIST(X)                                                                               \
  X(TOMBSTONE, "tombstone", "the record has no value")                                                       \
  X(TOO_LARGE, "too_large", "the value is longer than admit.max_bytes")                                      \
  X(MALFORMED, "malformed", "the value is not JSON (RFC 8259)")                                              \
  X(INVALID_UTF8, "invalid_utf8", "a string is not valid UTF-8, or has a lone surrogate or a NUL")           \
  X(TOO_DEEP, "too_deep", "nested more than 32 levels")                                                      \
  X(DUPLICATE_KEY, "duplicate_key", "an object names a key twice")                                           \
  X(SCHEMA_FRAMING, "schema_framing", "starts with byte 0: a schema registry's framing, not JSON")           \
  X(NOT_OBJECT, "not_object", "the value is JSON but not an object")                                         \
  X(CLOUDEVENT, "cloudevent", "not a CloudEvents 1.0 event with JSON data")                                  \
  X(MISSING_FIELD, "missing_field", "a required field is absent or null")                                    \
  X(WRONG_TYPE, "wrong_type", "a field has the wrong JSON type")                                             \
  X(EMPTY_NAME, "empty_name", "id or touchpoint is an empty string")                                         \
  X(NAME_TOO_LONG, "name_too_long", "an id or name is longer than 256 bytes, percent-encoded")               \
  X(UNKNOWN_TYPE, "unknown_type", "type is not interaction, invitation or answer")                           \
  X(UNKNOWN_SCALE, "unknown_scale", "scale is not nps, csat or ces")                                         \
  X(BAD_TIME, "bad_time", "time is not in the form that the mapping says")                                   \
  X(BAD_SCORE, "bad_score", "score is not a whole number of its scale")                                      \
  X(BAD_VALUE, "bad_value", "value has an exponent, more than two decimals, or is beyond 10^9")              \
  X(RESERVED, "reserved", "uses revision or deleted, which mean nothing yet")                                \
  X(CORRECTION, "correction", "a vendor's update of an earlier answer; corrections are not supported yet")   \
  X(NO_EVENT, "no_event", "the topic's mapping says that such a payload is no event")                        \
  X(NO_RECORD_TIME, "no_record_time", "the Kafka record has no timestamp")                                   \
  X(FUTURE, "future", "the event is further ahead of its record timestamp than admit.future")                \
  X(UNKNOWN_TOUCHPOINT, "unknown_touchpoint", "the touchpoint is not in admit.touchpoints")

typedef enum {
#define LIVENPS_REASON_ENUM(symbol, name, text) LIVENPS_REASON_##symbol,
  LIVENPS_REASON_LIST(LIVENPS_REASON_ENUM)
#undef LIVENPS_REASON_ENUM
      LIVENPS_REASONS,
  LIVENPS_REASON_NONE = LIVENPS_REASONS
} livenps_reason;

const char *livenps_reason_name(livenps_reason reason); /* "malformed" */
const char *livenps_reason_text(livenps_reason reason); /* the sentence */
livenps_reason livenps_reason_find(livenps_text name);  /* LIVENPS_REASON_NONE if unknown */

#endif
