#ifndef LIVENPS_ENCODE_H
#define LIVENPS_ENCODE_H

#include "common/event.h"

/* Event -> JSON as docs/events.md says, one line without the final newline. Pure. Absent fields are left out. Appends.
 * An event that the decoder would accept is written so that it decodes to the same event. */
void livenps_encode(const livenps_event *event, livenps_buffer *out);
/* The same as a structured CloudEvent: attributes id, time and type (com.livenps.answer ...), the rest is data. */
void livenps_encode_cloudevent(const livenps_event *event, livenps_buffer *out);

/* The record's key: customer, else id. Never the touchpoint: all events of one answer must meet in one partition. */
livenps_text livenps_event_key(const livenps_event *event);

#endif
