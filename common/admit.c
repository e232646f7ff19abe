#include "admit.h"

#include <inttypes.h>

/* Raised whenever the same record and the same rules would end otherwise than before: instances of different meaning
 * must not share a namespace. */
enum { SEMANTICS_VERSION = 1 };

static int compare(livenps_text text, const char *name) {
  size_t length = strlen(name);
  int order = memcmp(text.at, name, text.length < length ? text.length : length);
  return order != 0 ? order : (text.length > length) - (text.length < length);
}

static bool listed(const livenps_admission *admission, livenps_text touchpoint) {
  size_t low = 0;
  size_t high = admission->touchpoint_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    int order = compare(touchpoint, admission->touchpoints[middle]);
    if (order == 0) {
      return true;
    }
    if (order < 0) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return false;
}

static void tell(livenps_where *where, const char *field, const char *detail) {
  if (where) {
    where->offset = 0;
    memccpy(where->field, field, '\0', sizeof where->field);
    memccpy(where->detail, detail, '\0', sizeof where->detail);
  }
}

livenps_fate livenps_admit(livenps_decoder *decoder, const livenps_mapping *mapping,
                           const livenps_admission *admission, const livenps_record *record,
                           livenps_event *event, livenps_reason *reason, livenps_where *where) {
  *reason = livenps_decode(decoder, mapping, admission->max_bytes, record, event, where);
  if (*reason != LIVENPS_REASON_NONE) {
    return LIVENPS_REJECTED;
  }
  if (record->timestamp_ms < 0) {
    *reason = LIVENPS_REASON_NO_RECORD_TIME;
    tell(where, "", "the Kafka record has no timestamp");
    return LIVENPS_REJECTED;
  }
  if (admission->touchpoints && !listed(admission, event->dimensions[LIVENPS_TOUCHPOINT])) {
    *reason = LIVENPS_REASON_UNKNOWN_TOUCHPOINT;
    tell(where, "touchpoint", "not in admit.touchpoints");
    return LIVENPS_REJECTED;
  }
  /* Event times span years 0001 to 9999; a broker stores any 64-bit record timestamp, so the difference may wrap. */
  int64_t ahead_ms;
  if (__builtin_sub_overflow(event->time_ms, record->timestamp_ms, &ahead_ms)) {
    ahead_ms = INT64_MIN; /* only a record timestamp far ahead wraps, for it is not negative */
  }
  if (ahead_ms > admission->future_ms) {
    *reason = LIVENPS_REASON_FUTURE;
    tell(where, "time", "further ahead of the record timestamp than admit.future");
    return LIVENPS_REJECTED;
  }
  if (ahead_ms < -admission->late_ms) {
    tell(where, "time", "further behind the record timestamp than admit.late");
    return LIVENPS_LATE;
  }
  if (admission->replay && (event->time_ms < admission->from_ms || event->time_ms > admission->to_ms)) {
    tell(where, "time", "outside of the replay's range");
    return LIVENPS_OUT_OF_RANGE;
  }
  return LIVENPS_ACCEPTED;
}

void livenps_admission_print(const livenps_admission *admission, livenps_buffer *out) {
  livenps_buffer_print(out, "semantics %d\nmax_bytes %zu\nlate_ms %" PRId64 "\nfuture_ms %" PRId64 "\n",
                       SEMANTICS_VERSION, admission->max_bytes, admission->late_ms, admission->future_ms);
  if (admission->replay) {
    livenps_buffer_print(out, "from_ms %" PRId64 "\nto_ms %" PRId64 "\n", admission->from_ms,
                         admission->to_ms);
  }
  if (admission->touchpoints) {
    livenps_buffer_print(out, "touchpoints %zu\n", admission->touchpoint_count);
    for (size_t i = 0; i < admission->touchpoint_count; i++) {
      livenps_buffer_print(out, "%zu %s\n", strlen(admission->touchpoints[i]), admission->touchpoints[i]);
    }
  }
}
