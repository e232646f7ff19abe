#ifndef LIVENPS_MAPPING_H
#define LIVENPS_MAPPING_H

#include "decode.h"
#include "scan.h"

/* A compiled mapping, shared by mapping.c, which makes it, and decode.c, which reads by it. */

typedef enum {
  LIVENPS_FIELD_ID,
  LIVENPS_FIELD_TYPE,
  LIVENPS_FIELD_TIME,
  LIVENPS_FIELD_TOUCHPOINT, /* the four dimensions, in the order of event.h */
  LIVENPS_FIELD_CHANNEL,
  LIVENPS_FIELD_SEGMENT,
  LIVENPS_FIELD_STAGE,
  LIVENPS_FIELD_CUSTOMER,
  LIVENPS_FIELD_SCALE,
  LIVENPS_FIELD_SCORE,
  LIVENPS_FIELD_VALUE,
  LIVENPS_FIELDS
} livenps_field;
extern const char *const livenps_field_names[LIVENPS_FIELDS];

typedef enum { LIVENPS_TIME_RFC3339, LIVENPS_TIME_SECONDS, LIVENPS_TIME_MILLISECONDS } livenps_time_format;

typedef struct {
  char *from, *to;
} livenps_word;

/* Where one field comes from. */
typedef struct {
  char *pointer;       /* as written; NULL: nowhere in the payload */
  int node;            /* -1 likewise */
  char *fallback;      /* text of a field that is absent or null; with no pointer: a constant. NULL: none */
  livenps_word *words; /* the payload's words and what they mean here; other words stay as they are */
  size_t word_count;
  bool lower;                 /* ASCII capitals become small */
  bool numbers;               /* a whole number is read as its digits where a string is expected */
  livenps_time_format format; /* of the time */
} livenps_place;

/* A payload that is no new event: reason CORRECTION or NO_EVENT. */
typedef struct {
  livenps_reason reason;
  char *pointer;
  int node;
  bool negated; /* is_not: holds when the value is none of them, or absent */
  char **values;
  size_t value_count;
} livenps_rule;

struct livenps_mapping {
  uint64_t
      serial; /* no other mapping of the process had it: what is remembered of one is never taken for another's */
  livenps_paths paths;
  livenps_place fields[LIVENPS_FIELDS];
  livenps_rule *rules;
  size_t rule_count;
  livenps_signature signature; /* header NULL: none */
  /* Of the contract only (docs/events.md): CloudEvents and the reserved fields. */
  bool contract;
  livenps_place data_fields[LIVENPS_FIELDS]; /* below /data; id, type and time stay attributes */
  int specversion, source, datacontenttype, data, data_base64;
  int revision, deleted, data_revision, data_deleted;
};

#endif
