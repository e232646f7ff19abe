#ifndef LIVENPS_ADMIT_H
#define LIVENPS_ADMIT_H

#include "decode.h"

/* A record's fate is a pure function of the record and this; never of a wall clock or a watermark. */
typedef struct {
  size_t max_bytes;  /* of a record's value */
  int64_t late_ms;   /* an event older than its record timestamp by more is LATE */
  int64_t future_ms; /* an event newer than its record timestamp by more is REJECTED, reason future */
  bool replay;       /* true: from_ms..to_ms (inclusive) bound event time, others are OUT_OF_RANGE */
  int64_t from_ms, to_ms;
  char **touchpoints; /* allow-list, sorted by strcmp; NULL: every touchpoint */
  size_t touchpoint_count;
} livenps_admission;

/* Decodes and judges one record. *event is filled when the fate is ACCEPTED (LATE and OUT_OF_RANGE too);
 * *reason is set when it is REJECTED. where may be NULL.
 * Order: decode; record timestamp; reserved and allow-list; future; late; range. */
livenps_fate livenps_admit(livenps_decoder *decoder, const livenps_mapping *mapping,
                           const livenps_admission *admission, const livenps_record *record,
                           livenps_event *event, livenps_reason *reason, livenps_where *where);

/* Canonical text of the rules (for the admit hash), semantics version included. */
void livenps_admission_print(const livenps_admission *admission, livenps_buffer *out);

#endif
