#include "relay.h"

#include <pthread.h>
#include <stdlib.h>

/* A ring of parcels: put fills the next one, the thread folds the oldest. A failure is for ever: what comes behind it would not continue
 * what was folded. */

enum {
  DEPTH = 2 /* one is folded, one waits: so neither thread stands still when the other is late for once */
};

typedef struct {
  livenps_combine *combine; /* empty where nothing is in the parcel */
  livenps_entry entry;      /* lent by it; the advances are the parcel's own */
} parcel;

struct livenps_relay {
  livenps_folding fold;
  void *opaque;
  pthread_t thread;
  pthread_mutex_t lock; /* over all that follows; a parcel belongs to who put it, then to the thread */
  pthread_cond_t moved;
  parcel ring[DEPTH];
  size_t oldest, count; /* of the parcels that are not folded yet */
  bool closing;
  livenps_error failed; /* code 0: nothing did */
};

static void empty(parcel *what) {
  livenps_combine_reset(what->combine);
  free(what->entry.advances);
  what->entry = (livenps_entry){0};
}

static void *fold_all(void *opaque) {
  livenps_relay *relay = opaque;
  pthread_mutex_lock(&relay->lock);
  for (;;) {
    while (!relay->count && !relay->closing)
      pthread_cond_wait(&relay->moved, &relay->lock);
    if (!relay->count)
      break;
    parcel *next = &relay->ring[relay->oldest];
    livenps_error error = relay->failed;
    pthread_mutex_unlock(&relay->lock);
    if (!error.code)
      relay->fold(relay->opaque, &next->entry, &error);
    empty(next);
    pthread_mutex_lock(&relay->lock);
    relay->failed = error;
    relay->oldest = (relay->oldest + 1) % DEPTH;
    relay->count--;
    pthread_cond_broadcast(&relay->moved);
  }
  pthread_mutex_unlock(&relay->lock);
  return NULL;
}

static void free_relay(livenps_relay *relay) {
  for (size_t i = 0; i < DEPTH; i++) {
    free(relay->ring[i].entry.advances);
    livenps_combine_free(relay->ring[i].combine);
  }
  pthread_cond_destroy(&relay->moved);
  pthread_mutex_destroy(&relay->lock);
  free(relay);
}

int livenps_relay_open(livenps_relay **out, livenps_folding fold, void *opaque, livenps_error *error) {
  livenps_relay *relay = livenps_alloc(sizeof *relay);
  relay->fold = fold;
  relay->opaque = opaque;
  pthread_mutex_init(&relay->lock, NULL);
  pthread_cond_init(&relay->moved, NULL);
  for (size_t i = 0; i < DEPTH; i++)
    relay->ring[i].combine = livenps_combine_new();
  if (pthread_create(&relay->thread, NULL, fold_all, relay)) {
    free_relay(relay);
    return livenps_fail(error, LIVENPS_E_STARTUP, "replay: no thread could be started");
  }
  *out = relay;
  return 0;
}

/* Under the lock: waits until no more than so many are left. */
static int wait_for(livenps_relay *relay, size_t left, livenps_error *error) {
  while (relay->count > left)
    pthread_cond_wait(&relay->moved, &relay->lock);
  return relay->failed.code ? livenps_fail(error, relay->failed.code, "%s", relay->failed.text) : 0;
}

int livenps_relay_put(livenps_relay *relay, livenps_combine **combine, const livenps_entry *entry,
                      livenps_error *error) {
  pthread_mutex_lock(&relay->lock);
  const int result = wait_for(relay, DEPTH - 1, error);
  if (!result) {
    parcel *free_one = &relay->ring[(relay->oldest + relay->count) % DEPTH];
    livenps_combine *taken = *combine;
    *combine = free_one->combine;
    *free_one = (parcel){taken, *entry};
    free_one->entry.advances = livenps_alloc((entry->advance_count + 1) * sizeof *entry->advances);
    for (size_t i = 0; i < entry->advance_count; i++)
      free_one->entry.advances[i] = entry->advances[i];
    relay->count++;
    pthread_cond_broadcast(&relay->moved);
  }
  pthread_mutex_unlock(&relay->lock);
  return result;
}

int livenps_relay_drain(livenps_relay *relay, livenps_error *error) {
  pthread_mutex_lock(&relay->lock);
  const int result = wait_for(relay, 0, error);
  pthread_mutex_unlock(&relay->lock);
  return result;
}

void livenps_relay_close(livenps_relay *relay) {
  if (!relay)
    return;
  pthread_mutex_lock(&relay->lock);
  relay->closing = true;
  pthread_cond_broadcast(&relay->moved);
  pthread_mutex_unlock(&relay->lock);
  pthread_join(relay->thread, NULL);
  free_relay(relay);
}
