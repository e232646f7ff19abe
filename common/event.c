#include "event.h"

const char *const livenps_dimension_names[LIVENPS_DIMENSIONS] = {"touchpoint", "channel", "segment", "stage"};

static const struct {
  const char *name, *text;
} reasons[] = {
#define ROW(symbol, name, text) {name, text},
    LIVENPS_REASON_LIST(ROW)
#undef ROW
        {"none", "nothing is wrong"},
};

const char *livenps_reason_name(livenps_reason reason) {
  return reasons[reason].name;
}

const char *livenps_reason_text(livenps_reason reason) {
  return reasons[reason].text;
}

livenps_reason livenps_reason_find(livenps_text name) {
  for (int reason = 0; reason < LIVENPS_REASONS; reason++) {
    if (livenps_text_equal(name, livenps_text_of(reasons[reason].name))) {
      return (livenps_reason)reason;
    }
  }
  return LIVENPS_REASON_NONE;
}
