#ifndef LIVENPS_PULSE_H
#define LIVENPS_PULSE_H

#include <stdint.h>

/* Whether the threads of a program that runs for ever still make progress: each beats whenever it gets round - a turn of its loop, an answer
 * of Redis or Kafka, a time-out - and whoever must know (the watchdog of a service manager) asks who has not for too long.
 *
 * A thread names its part once, which several may have; livenps_pulse() then beats for the part of the thread that calls it, and does nothing in one that has none. */
typedef enum {
  LIVENPS_PULSE_MAIN,
  LIVENPS_PULSE_AGGREGATOR,
  LIVENPS_PULSE_WATCH,
  LIVENPS_PULSE_KEEP,
  LIVENPS_PULSE_WORKER,
  LIVENPS_PULSE_COUNT
} livenps_part;

void livenps_pulse_begin(livenps_part part);
void livenps_pulse(void);
/* The thread ends on purpose: nobody waits for its beat any more. */
void livenps_pulse_end(void);

/* The part that has not beaten for longest, its name static, and for how many ms: NULL when none has begun. */
const char *livenps_pulse_slowest(int64_t *ms);

#endif
