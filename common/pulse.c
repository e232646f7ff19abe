#include "pulse.h"

#include "clock.h"
#include "settings.h"

#include <stdatomic.h>
#include <stddef.h>

static const char *const names[LIVENPS_PULSE_COUNT] = {"main", "aggregator", "watch", "keep", "worker"};

/* One for each thread: two of one part must not beat for each other. */
enum { SLOTS = LIVENPS_PULSE_COUNT + 2 * LIVENPS_WORKERS_MAX };
static _Atomic int parts[SLOTS];     /* + 1; 0: free */
static _Atomic int64_t beats[SLOTS]; /* monotonic; 0: does not run */
static _Thread_local int mine = SLOTS;

void livenps_pulse_begin(livenps_part part) {
  for (int i = 0; i < SLOTS && mine == SLOTS; i++) {
    int nobody = 0;
    if (atomic_compare_exchange_strong(&parts[i], &nobody, (int)part + 1)) {
      mine = i;
    }
  }
  livenps_pulse();
}

/* Relaxed: a beat stands for itself, nothing is read on account of it. */
void livenps_pulse(void) {
  if (mine < SLOTS) {
    atomic_store_explicit(&beats[mine], livenps_monotonic_ms() + 1, memory_order_relaxed);
  }
}

void livenps_pulse_end(void) {
  if (mine < SLOTS) {
    atomic_store_explicit(&beats[mine], 0, memory_order_relaxed);
    atomic_store(&parts[mine], 0);
    mine = SLOTS;
  }
}

const char *livenps_pulse_slowest(int64_t *ms) {
  const char *slowest = NULL;
  /* The clock first: a beat that comes meanwhile is then one of this moment, not of the future. */
  const int64_t now_ms = livenps_monotonic_ms() + 1;
  *ms = 0;
  for (int i = 0; i < SLOTS; i++) {
    const int64_t beat_ms = atomic_load_explicit(&beats[i], memory_order_relaxed);
    const int64_t since_ms = beat_ms && now_ms > beat_ms ? now_ms - beat_ms : 0;
    const int part = beat_ms ? atomic_load(&parts[i]) : 0;
    if (part && (!slowest || since_ms > *ms)) {
      slowest = names[part - 1];
      *ms = since_ms;
    }
  }
  return slowest;
}
