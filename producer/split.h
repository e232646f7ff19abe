#ifndef LIVENPS_SPLIT_H
#define LIVENPS_SPLIT_H

#include "common/text.h"

/* One or many events out of a request's body. Pure, and no reader of JSON: it only finds where an element of an array begins and ends. If each
 * of the texts is JSON, which the contract sees to, the whole was. */
typedef enum {
  LIVENPS_BODY_JSON, /* an array, whose elements are the events, or else one event */
  LIVENPS_BODY_LINES /* one event a line; blank lines do not count */
} livenps_body_form;

typedef struct {
  const char *at, *end;
  livenps_body_form form;
  enum { LIVENPS_SPLIT_BEGIN, LIVENPS_SPLIT_INSIDE, LIVENPS_SPLIT_END } state;
} livenps_split;

/* body is borrowed until the last call. */
void livenps_split_begin(livenps_split *split, livenps_text body, livenps_body_form form);
/* 1 with *event (borrowed, without white space around it, possibly empty), 0 at the end, -1 where an array is broken off or something follows
 * it: at split->at. */
int livenps_split_next(livenps_split *split, livenps_text *event);

#endif
