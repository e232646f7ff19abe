#include "calendar.h"

#include "../common/error.h"
#include <stdlib.h>

void livenps_calendar_free(livenps_calendar *calendar) {
  free(calendar->heap);
  *calendar = (livenps_calendar){0};
}

static void put(livenps_calendar *calendar, size_t at, livenps_due *due) {
  calendar->heap[at] = due;
  due->at = at;
}

static void settle(livenps_calendar *calendar, size_t at, livenps_due *due) {
  while (at > 1 && calendar->heap[at / 2]->when > due->when) {
    put(calendar, at, calendar->heap[at / 2]);
    at /= 2;
  }
  for (size_t child = 2 * at; child <= calendar->count; child = 2 * at) {
    child += child < calendar->count && calendar->heap[child + 1]->when < calendar->heap[child]->when;
    if (calendar->heap[child]->when >= due->when) {
      break;
    }
    put(calendar, at, calendar->heap[child]);
    at = child;
  }
  put(calendar, at, due);
}

void livenps_calendar_set(livenps_calendar *calendar, livenps_due *due, int64_t when) {
  if (!due->at) {
    if (calendar->count + 1 >= calendar->capacity) {
      calendar->capacity = calendar->capacity ? calendar->capacity * 2 : 16;
      calendar->heap = livenps_resize(calendar->heap, calendar->capacity * sizeof *calendar->heap);
    }
    due->at = ++calendar->count;
  }
  due->when = when;
  settle(calendar, due->at, due);
}

void livenps_calendar_remove(livenps_calendar *calendar, livenps_due *due) {
  if (!due->at) {
    return;
  }
  livenps_due *last = calendar->heap[calendar->count--];
  if (last != due) {
    settle(calendar, due->at, last);
  }
  due->at = 0;
}

livenps_due *livenps_calendar_first(const livenps_calendar *calendar) {
  return calendar->count ? calendar->heap[1] : NULL;
}
