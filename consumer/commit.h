#ifndef LIVENPS_COMMIT_H
#define LIVENPS_COMMIT_H

#include "batch.h"
#include "scripts.h"

/* The reader's side of the commit protocol (design: section 2): adopt positions, then commit batch after batch, each one atomic in
 * Redis and compared with what this writer believes to be stored. */
typedef struct {
  const livenps_settings *settings;
  livenps_redis *redis;
  livenps_keys keys;
  char admit[65], lineage[33], writer[65];
  int64_t redis_ms;    /* last known Redis TIME; 0 before the first adopt */
  int64_t redis_at_ms; /* and when, by our monotonic clock, we were told */
  livenps_buffer payload;
  uint64_t commits, conflicts, lost, full;
  uint64_t anew; /* refused: the namespace was flushed or begun anew */
} livenps_commit;

int livenps_commit_open(livenps_commit *commit, const livenps_settings *settings, const char *admit,
                        const char *writer, livenps_error *error);
void livenps_commit_close(livenps_commit *commit);

typedef enum {
  LIVENPS_ADOPTED,
  LIVENPS_ADOPT_WAIT, /* Redis is away or not as it should be (a program's start has looked at that, so it is an outage, on the first
                       * connection of a later worker too), or nobody has made the genesis yet: error says which; try again */
  LIVENPS_ADOPT_STOP, /* another admit hash or format: error says what to do */
} livenps_adoption;
/* Drops what is in hand and takes the stored positions of all lanes (no lane: only lineage and admit are checked). seek[i] says
 * whether lane i must be sought to its new next. seek may be NULL. */
livenps_adoption livenps_commit_adopt(livenps_commit *commit, livenps_batch *batch, bool *seek,
                                      livenps_error *error);

typedef enum {
  LIVENPS_COMMITTED,
  LIVENPS_COMMIT_WAITS,   /* FULL: what is in hand stays; do not read on, try again */
  LIVENPS_COMMIT_READOPT, /* others have gone on: what was in hand is dropped; adopt and seek */
  LIVENPS_COMMIT_UNKNOWN, /* Redis is away or refuses to write: likewise, as soon as it answers */
  LIVENPS_COMMIT_STOP,    /* another configuration owns the namespace now */
} livenps_committing;
/* One commit of everything in hand (also when that is nothing: an idle entry). error is set unless LIVENPS_COMMITTED. */
livenps_committing livenps_commit_flush(livenps_commit *commit, livenps_batch *batch, livenps_error *error);

#endif
