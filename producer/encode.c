#include "encode.h"

#include "common/clock.h"

#include <assert.h>
#include <string.h>

static void put(livenps_buffer *out, const char *text) {
  livenps_buffer_add(out, text, strlen(text));
}

static void put_string(livenps_buffer *out, livenps_text text) {
  put(out, "\"");
  size_t from = 0;
  for (size_t i = 0; i < text.length; i++) {
    const unsigned char c = (unsigned char)text.at[i];
    if (c >= 0x20 && c != '"' && c != '\\')
      continue;
    livenps_buffer_add(out, text.at + from, i - from);
    from = i + 1;
    if (c < 0x20)
      livenps_buffer_print(out, "\\u%04x", c);
    else
      livenps_buffer_print(out, "\\%c", c);
  }
  livenps_buffer_add(out, text.at + from, text.length - from);
  put(out, "\"");
}

static void put_field(livenps_buffer *out, const char *name, livenps_text text) {
  if (!text.at)
    return;
  put(out, ",\"");
  put(out, name);
  put(out, "\":");
  put_string(out, text);
}

static void put_int(livenps_buffer *out, int64_t number) {
  char digits[24];
  size_t at = sizeof digits;
  uint64_t rest = number < 0 ? -(uint64_t)number : (uint64_t)number;
  do
    digits[--at] = (char)('0' + rest % 10);
  while (rest /= 10);
  if (number < 0)
    digits[--at] = '-';
  livenps_buffer_add(out, digits + at, sizeof digits - at);
}

/* Hundredths as the shortest decimal: 12050 is 120.5. */
static void put_value(livenps_buffer *out, int64_t hundredths) {
  const uint64_t size = hundredths < 0 ? -(uint64_t)hundredths : (uint64_t)hundredths;
  if (hundredths < 0)
    put(out, "-");
  put_int(out, (int64_t)(size / 100));
  if (size % 100 == 0)
    return;
  const char decimals[3] = {'.', (char)('0' + size % 100 / 10), (char)('0' + size % 10)};
  livenps_buffer_add(out, decimals, size % 10 ? 3 : 2);
}

static const char *type_name(livenps_type type) {
  switch (type) {
  case LIVENPS_INTERACTION: return "interaction";
  case LIVENPS_INVITATION: return "invitation";
  case LIVENPS_ANSWER: return "answer";
  }
  assert(!"a type of event.h");
  return "";
}

static const char *scale_name(livenps_scale scale) {
  switch (scale) {
  case LIVENPS_SCALE_NPS: return "nps";
  case LIVENPS_SCALE_CSAT: return "csat";
  case LIVENPS_SCALE_CES: return "ces";
  case LIVENPS_SCALE_NONE: break;
  }
  assert(!"an answer has a scale");
  return "";
}

/* What both forms share: from the touchpoint to the value. */
static void put_rest(livenps_buffer *out, const livenps_event *event) {
  put(out, "\"touchpoint\":");
  put_string(out, event->dimensions[LIVENPS_TOUCHPOINT]);
  put_field(out, "channel", event->dimensions[LIVENPS_CHANNEL]);
  put_field(out, "stage", event->dimensions[LIVENPS_STAGE]);
  put_field(out, "segment", event->dimensions[LIVENPS_SEGMENT]);
  put_field(out, "customer", event->customer);
  if (event->type == LIVENPS_ANSWER) {
    put(out, ",\"scale\":\"");
    put(out, scale_name(event->scale));
    put(out, "\",\"score\":");
    put_int(out, event->score);
  }
  if (event->has_value) {
    put(out, ",\"value\":");
    put_value(out, event->value);
  }
  put(out, "}");
}

void livenps_encode(const livenps_event *event, livenps_buffer *out) {
  char time[32];
  put(out, "{\"id\":");
  put_string(out, event->id);
  put(out, ",\"type\":\"");
  put(out, type_name(event->type));
  put(out, "\",\"time\":\"");
  put(out, livenps_time_print(event->time_ms, time));
  put(out, "\",");
  put_rest(out, event);
}

void livenps_encode_cloudevent(const livenps_event *event, livenps_buffer *out) {
  char time[32];
  put(out, "{\"specversion\":\"1.0\",\"id\":");
  put_string(out, event->id);
  put(out, ",\"source\":\"/livenps/simulate\",\"type\":\"com.livenps.");
  put(out, type_name(event->type));
  put(out, "\",\"time\":\"");
  put(out, livenps_time_print(event->time_ms, time));
  put(out, "\",\"datacontenttype\":\"application/json\",\"data\":{");
  put_rest(out, event);
  put(out, "}");
}

livenps_text livenps_event_key(const livenps_event *event) {
  return event->customer.at && event->customer.length ? event->customer : event->id;
}
