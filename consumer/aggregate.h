#ifndef LIVENPS_AGGREGATE_H
#define LIVENPS_AGGREGATE_H

#include "monitor.h"
#include "state.h"

typedef struct livenps_manifest livenps_manifest; /* manifest.h */

/* The elected aggregator of a namespace: lease, genesis, fold, clock, snapshot and trim, publish. Single-threaded object: `run`
 * drives it from a thread of its own, `replay` from its only loop. */
typedef struct livenps_aggregate livenps_aggregate;

/* What the aggregator must know about Kafka without touching it. Called from the aggregator's thread. */
typedef struct {
  char topic[250];
  int32_t partition;
  int64_t start;      /* offset to begin at */
  int64_t first, end; /* what the topic has now: its first offset, and the one behind its last */
  int64_t
      covered_since_ms; /* events before this may be missing; 0 = none is; -1 = nothing is known before the genesis itself */
} livenps_beginning;
typedef struct {
  /* All partitions of all topics and where to begin so that every event from since_ms on (record time) is read. LOST: try later. */
  int (*beginnings)(void *opaque, int64_t since_ms, livenps_beginning **out, size_t *count,
                    livenps_error *error);
  /* The partitions that exist now by Kafka's metadata: total; false when not known yet. known(topic, partition) asks for one. */
  bool (*partitions)(void *opaque, size_t *total);
  void *opaque;
} livenps_source;

/* A snapshot kept in Kafka is looked for. */
typedef struct {
  const livenps_beginning *now; /* what the topics have */
  size_t count;
  const livenps_manifest *mine; /* it must lose fewer records than this one; NULL: any will do */
  int (*beat)(void *opaque, livenps_error *error); /* called every tenth of a second or so; not 0: give up */
  void *opaque;
} livenps_search;

/* Where snapshots are kept beside Redis (keep.h). Called from the aggregator's thread; none but find waits for anybody. */
typedef struct {
  /* The aggregator has a state from here on (true), or no longer: what was under way for the one before is given up. */
  void (*hold)(void *opaque, bool holding);
  bool (*wants)(void *opaque); /* another snapshot is due */
  /* The snapshot that was flipped just now: positions and chunks, whose bytes are read from Redis meanwhile. Takes what manifest holds. */
  void (*offer)(void *opaque, livenps_manifest *manifest);
  bool (*reading)(void *opaque); /* chunks that were offered are still needed in Redis */
  /* 1: one of those kept may lose fewer records than this one (its genesis and partitions); 0: none; -1: not known yet. */
  int (*loses_less)(void *opaque, const livenps_manifest *mine);
  /* The best that can be used, loaded: *state is the caller's and *found says which; *state NULL: there is none. LOST: try later. */
  int (*find)(void *opaque, const livenps_search *search, livenps_state **state, livenps_manifest *found,
              livenps_error *error);
  void *opaque;
} livenps_keeper;

typedef struct {
  const livenps_settings *settings;
  char admit_hash[65];
  const char *instance; /* shown in health; the writer id */
  livenps_source source;
  const livenps_keeper *keeper; /* NULL: snapshots are in Redis only */
  bool
      replay; /* the clock is the entries' clock, at most to_ms, and no view expires by silence of the writer's clock */
  int64_t to_ms;
  livenps_monitor *monitor;  /* NULL: nobody wants to know */
  bool paced;                /* where very much changes all the time, publishing takes a quarter of it */
  const livenps_pair *extra; /* stored in meta at genesis */
  size_t extra_count;
} livenps_aggregate_config;

int livenps_aggregate_open(livenps_aggregate **out, const livenps_aggregate_config *config,
                           livenps_error *error);
/* One tick: take or renew the lease (else stand by), read what is new in the log, move the clock to Redis TIME, publish
 * (paced: unless it rests), snapshot when due.
 * 0 also when standing by. -1 with LOST: try again after a back-off (the caller's); REFUSED/STARTUP: stop the program with this text. */
int livenps_aggregate_tick(livenps_aggregate *aggregate, livenps_error *error);
/* Folds to the log's head, clock to `clock_ms` (replay: --to; live: pass 0 for Redis TIME), publishes everything due, writes a snapshot. */
int livenps_aggregate_finish(livenps_aggregate *aggregate, int64_t clock_ms, livenps_error *error);
bool livenps_aggregate_active(const livenps_aggregate *aggregate);                /* holds the lease */
const livenps_state *livenps_aggregate_state(const livenps_aggregate *aggregate); /* NULL when standing by */
/* Gives the lease back (so that a stand-by takes over at once) and frees. */
void livenps_aggregate_close(livenps_aggregate *aggregate);

#endif
