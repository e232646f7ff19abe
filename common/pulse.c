#include "pulse.h"

#include "clock.h"

#include <stdatomic.h>
#include <stddef.h>

static const char *const names[LIVENPS_PULSE_COUNT] = {"main", "aggregator", "watch", "keep"};
static _Atomic int64_t beats[LIVENPS_PULSE_COUNT]; /* monotonic; 0: does not run */
static _Thread_local int mine = LIVENPS_PULSE_COUNT;

void livenps_pulse_begin(livenps_part part) {
  mine = (int)part;
  livenps_pulse();
}

/* Relaxed: a beat stands for itself, nothing is read on account of it. */
void livenps_pulse(void) {
  if (mine < LIVENPS_PULSE_COUNT) {
    atomic_store_explicit(&beats[mine], livenps_monotonic_ms() + 1, memory_order_relaxed);
  }
}

void livenps_pulse_end(void) {
  if (mine < LIVENPS_PULSE_COUNT) {
    atomic_store_explicit(&beats[mine], 0, memory_order_relaxed);
    mine = LIVENPS_PULSE_COUNT;
  }
}

const char *livenps_pulse_slowest(int64_t *ms) {
  const char *slowest = NULL;
  /* The clock first: a beat that comes meanwhile is then one of this moment, not of the future. */
  const int64_t now_ms = livenps_monotonic_ms() + 1;
  *ms = 0;
  for (int i = 0; i < LIVENPS_PULSE_COUNT; i++) {
    const int64_t beat_ms = atomic_load_explicit(&beats[i], memory_order_relaxed);
    const int64_t since_ms = beat_ms && now_ms > beat_ms ? now_ms - beat_ms : 0;
    if (beat_ms && (!slowest || since_ms > *ms)) {
      slowest = names[i];
      *ms = since_ms;
    }
  }
  return slowest;
}
