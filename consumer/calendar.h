#ifndef LIVENPS_CALENDAR_H
#define LIVENPS_CALENDAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Who must be looked at when a counting clock reaches a number: a heap of things that embed a livenps_due as their first member.
 * Moving the clock over a silence of days costs nothing, because only what is due is touched. {0} is empty and valid. */
typedef struct {
  int64_t when;
  size_t at; /* place in the heap, from 1; 0: not in the calendar */
} livenps_due;
typedef struct {
  livenps_due **heap; /* heap[0] is not used */
  size_t count, capacity;
} livenps_calendar;

void livenps_calendar_free(livenps_calendar *calendar); /* what is in it belongs to others */
void livenps_calendar_set(livenps_calendar *calendar, livenps_due *due,
                          int64_t when);                                    /* enters or moves it */
void livenps_calendar_remove(livenps_calendar *calendar, livenps_due *due); /* legal when it is not in */
livenps_due *livenps_calendar_first(const livenps_calendar *calendar);      /* the earliest, or NULL */

#endif
