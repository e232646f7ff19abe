#include "board_json.h"

#include <inttypes.h>
#include <stdlib.h>

static void put(livenps_buffer *out, const char *text) {
  livenps_buffer_add(out, text, strlen(text));
}

void livenps_json_number(livenps_buffer *out, double value) {
  livenps_buffer_print(out, "%.15g", value == 0 ? 0 : value);
}

void livenps_json_row(livenps_buffer *out, const livenps_row *row) {
  put(out, "[");
  livenps_json_text(out, livenps_text_of(row->id));
  for (size_t f = 0; f < LIVENPS_FIELD_COUNT && row->there; f++) {
    put(out, ",");
    if (row->has[f]) {
      livenps_json_number(out, row->value[f]);
    } else {
      put(out, "null");
    }
  }
  put(out, "]");
}

/* All of the text, so that a lineage of digits with an e in it is no number: those have 32 places. */
static bool is_number(livenps_text text) {
  size_t digits = 0;
  for (size_t i = 0; i < text.length; i++) {
    if (text.at[i] >= '0' && text.at[i] <= '9') {
      digits++;
    } else if (!(text.at[i] == '.' || (text.at[i] == '-' && i == 0))) {
      return false;
    }
  }
  return digits > 0 && digits <= 16;
}

void livenps_json_hash(livenps_buffer *out, const livenps_reply *hash) {
  put(out, "{");
  bool first = true;
  for (size_t i = 0; i + 1 < livenps_reply_count(hash); i += 2) {
    livenps_text name, value;
    double number;
    if (!livenps_reply_text(livenps_reply_item(hash, i), &name) ||
        !livenps_reply_text(livenps_reply_item(hash, i + 1), &value)) {
      continue;
    }
    put(out, first ? "" : ",");
    first = false;
    livenps_json_text(out, name);
    put(out, ":");
    if (is_number(value) && livenps_view_number(livenps_reply_item(hash, i + 1), &number)) {
      livenps_json_number(out, number);
    } else {
      livenps_json_text(out, value);
    }
  }
  put(out, "}");
}

void livenps_json_trend(livenps_buffer *out, const livenps_reply *entries) {
  static const char *const names[] = {"nps", "nps_low", "nps_high", "n", "complete"};
  enum { NAMES = sizeof names / sizeof *names };
  put(out, "[");
  bool first = true;
  for (size_t i = 0; i < livenps_reply_count(entries); i++) {
    const livenps_reply *entry = livenps_reply_item(entries, i), *fields = livenps_reply_item(entry, 1);
    livenps_text id;
    double value[NAMES];
    bool has[NAMES] = {0};
    if (!livenps_reply_text(livenps_reply_item(entry, 0), &id)) {
      continue;
    }
    for (size_t f = 0; f + 1 < livenps_reply_count(fields); f += 2) {
      livenps_text name;
      for (size_t which = 0; which < NAMES; which++) {
        if (livenps_reply_text(livenps_reply_item(fields, f), &name) &&
            livenps_text_equal(name, livenps_text_of(names[which]))) {
          has[which] = livenps_view_number(livenps_reply_item(fields, f + 1), &value[which]);
        }
      }
    }
    livenps_buffer_print(out, "%s[%" PRId64, first ? "" : ",", (int64_t)strtoll(id.at, NULL, 10));
    first = false;
    for (size_t which = 0; which < NAMES; which++) {
      put(out, ",");
      if (has[which]) {
        livenps_json_number(out, value[which]);
      } else {
        put(out, "null");
      }
    }
    put(out, "]");
  }
  put(out, "]");
}
