#include "aggregate.h"

#include "manifest.h"
#include "publish.h"

#include "../common/clock.h"
#include "../common/log.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* What this file keeps:
 * 1. Nothing is published before the log was folded to the head that was found.
 * 2. Every entry folded names the one folded before, in the same lineage; else the state is dropped and loaded again.
 * 3. Every write stands in a script that checks the token (scripts.c). A refused token drops the state. */

enum {
  READ_BYTES = 1024 * 1024,  /* of the log in one reply */
  FOLD_MS = 500,             /* a tick publishes after so long, although the log goes on */
  CHUNK_BYTES = 1024 * 1024, /* of a snapshot in one call */
  WRITERS = 256,             /* remembered for `instances` */
  WRITER_MS = 10000,
  ASKING_MS = 15000, /* the least that the lease lasts while Kafka is asked where to begin */
  HEAL_MS = 10000,   /* after Kafka could not be asked for a better snapshot */
  HOLD_MS = 10000,   /* how long a snapshot waits while the one before is still read for Kafka */
  BREAKS = 2,        /* loads in a row that end in a broken log before the namespace is begun anew */
  REST = 3,          /* a publish longer than a tick is followed by a rest of so many times its length: */
  REST_MS = 3000,    /* Redis has one core, and commits come first; at most so long */
};

typedef struct {
  char name[80];
  int64_t seen_ms;
} writer;

struct livenps_aggregate {
  const livenps_settings *settings;
  livenps_aggregate_config config;
  char *instance;
  livenps_redis *redis;
  livenps_keys keys;
  livenps_window *windows;
  size_t window_count;
  livenps_rollup *rollups;
  size_t rollup_count;
  int64_t longest_ms, longest_slice_ms;
  livenps_holder holder;
  bool held;
  uint64_t terms; /* how often the lease was taken, not only renewed */
  livenps_publisher *publisher;

  livenps_state *state; /* NULL: standing by, or not loaded yet */
  livenps_entry_id last;
  bool reached_head; /* since the state was loaded */
  int64_t genesis, redis_ms, log_bytes;
  unsigned breaks;
  writer writers[WRITERS];
  size_t writer_count;

  livenps_chunk *chunks; /* of the snapshot that the pointer lists */
  size_t chunk_count;
  uint64_t snapshots;
  int64_t snapshot_at_ms; /* monotonic */
  int64_t renewed_at_ms;  /* monotonic */
  int64_t rest_until_ms;  /* monotonic */
  int64_t asking_ms;      /* how long Kafka took to say where to begin */

  uint64_t
      judged_gaps;    /* of the ledger, for which the keeper has said that no snapshot in Kafka lost fewer */
  int64_t heal_at_ms; /* monotonic */
};

/* ---- open, close ---------------------------------------------------------------------------------------------------- */

static void free_chunks(livenps_chunk *chunks, size_t count) {
  for (size_t i = 0; i < count; i++) {
    free(chunks[i].name);
    free(chunks[i].key);
  }
  free(chunks);
}

/* Drops what is in memory; the next tick loads what is stored. */
static void forget(livenps_aggregate *aggregate) {
  const livenps_keeper *keeper = aggregate->config.keeper;
  if (keeper && aggregate->state) {
    keeper->hold(keeper->opaque, false);
  }
  aggregate->judged_gaps = 0;
  aggregate->heal_at_ms = 0;
  livenps_state_free(aggregate->state);
  aggregate->state = NULL;
  free_chunks(aggregate->chunks, aggregate->chunk_count);
  aggregate->chunks = NULL;
  aggregate->chunk_count = 0;
  aggregate->reached_head = false;
  aggregate->writer_count = 0;
}

static void tally(livenps_aggregate *aggregate, livenps_monitor_metric metric, size_t which) {
  livenps_metrics_add(livenps_monitor_metrics(aggregate->config.monitor), metric, which, 1);
}

static void free_aggregate(livenps_aggregate *aggregate) {
  forget(aggregate);
  livenps_publisher_close(aggregate->publisher);
  livenps_redis_close(aggregate->redis);
  for (size_t i = 0; i < aggregate->config.extra_count; i++) {
    free(((livenps_pair *)(uintptr_t)aggregate->config.extra)[i].name);
    free(((livenps_pair *)(uintptr_t)aggregate->config.extra)[i].value);
  }
  free((void *)(uintptr_t)aggregate->config.extra);
  free(aggregate->instance);
  free(aggregate->windows);
  free(aggregate->rollups);
  free(aggregate);
}

int livenps_aggregate_open(livenps_aggregate **out, const livenps_aggregate_config *config,
                           livenps_error *error) {
  livenps_aggregate *aggregate = livenps_alloc(sizeof *aggregate);
  const livenps_settings *settings = config->settings;
  aggregate->settings = settings;
  aggregate->config = *config;
  aggregate->instance = livenps_copy(config->instance, strlen(config->instance));
  aggregate->config.instance = aggregate->instance;
  livenps_pair *extra = livenps_alloc((config->extra_count + 1) * sizeof *extra);
  for (size_t i = 0; i < config->extra_count; i++) {
    extra[i].name = livenps_copy(config->extra[i].name, strlen(config->extra[i].name));
    extra[i].value = livenps_copy(config->extra[i].value, strlen(config->extra[i].value));
  }
  aggregate->config.extra = extra;
  aggregate->windows = livenps_alloc((settings->windows.count + 1) * sizeof *aggregate->windows);
  aggregate->rollups = livenps_alloc((settings->rollups.count + 1) * sizeof *aggregate->rollups);
  for (; aggregate->window_count < settings->windows.count; aggregate->window_count++) {
    livenps_window *window = &aggregate->windows[aggregate->window_count];
    if (livenps_window_parse(settings->windows.at[aggregate->window_count], window, error) != 0) {
      goto failed;
    }
    aggregate->longest_ms =
        window->length_ms > aggregate->longest_ms ? window->length_ms : aggregate->longest_ms;
    aggregate->longest_slice_ms =
        window->slice_ms > aggregate->longest_slice_ms ? window->slice_ms : aggregate->longest_slice_ms;
  }
  for (; aggregate->rollup_count < settings->rollups.count; aggregate->rollup_count++) {
    if (livenps_rollup_parse(settings->rollups.at[aggregate->rollup_count],
                             &aggregate->rollups[aggregate->rollup_count], error) != 0) {
      goto failed;
    }
  }
  livenps_keys_make(&aggregate->keys, settings->namespace_);
  livenps_random_hex(aggregate->holder.token, sizeof aggregate->holder.token);
  aggregate->holder.lease_ms = settings->lease_ms;
  if (livenps_redis_open(&aggregate->redis, settings, error) != 0) {
    goto failed;
  }
  livenps_publisher_open(&aggregate->publisher,
                         &(livenps_publisher_config){.redis = aggregate->redis,
                                                     .keys = &aggregate->keys,
                                                     .settings = settings,
                                                     .windows = aggregate->windows,
                                                     .window_count = aggregate->window_count,
                                                     .rollups = aggregate->rollups,
                                                     .rollup_count = aggregate->rollup_count,
                                                     .metrics = livenps_monitor_metrics(config->monitor),
                                                     .replay = config->replay});
  *out = aggregate;
  return 0;
failed:
  free_aggregate(aggregate);
  return -1;
}

bool livenps_aggregate_active(const livenps_aggregate *aggregate) {
  return aggregate->held && aggregate->state != NULL;
}

const livenps_state *livenps_aggregate_state(const livenps_aggregate *aggregate) {
  return aggregate->held ? aggregate->state : NULL;
}

/* A state that was loaded or begun: from here on it is ours. */
static void adopt_state(livenps_aggregate *aggregate, livenps_state *state) {
  const livenps_keeper *keeper = aggregate->config.keeper;
  aggregate->state = state;
  if (keeper) {
    keeper->hold(keeper->opaque, true);
  }
}

/* ---- lease ---------------------------------------------------------------------------------------------------------- */

static void lost_lease(livenps_aggregate *aggregate) {
  if (aggregate->held) {
    livenps_log(LIVENPS_WARN, "aggregate", "the lease of namespace %s went to another instance: standing by",
                aggregate->settings->namespace_);
    tally(aggregate, LIVENPS_M_RELOADS, LIVENPS_M_RELOAD_LEASE);
  }
  aggregate->held = false;
  forget(aggregate);
}

/* Takes or renews the lease. What was in memory is worth nothing after a lease that lapsed. */
static int take_lease(livenps_aggregate *aggregate, livenps_error *error) {
  bool held = false, taken = false;
  if (livenps_script_lease(aggregate->redis, &aggregate->keys, &aggregate->holder, &held, &taken, error) !=
      0) {
    return -1;
  }
  aggregate->renewed_at_ms = livenps_monotonic_ms();
  if (!held) {
    lost_lease(aggregate);
    return 0;
  }
  if (taken) {
    aggregate->terms++;
    tally(aggregate, LIVENPS_M_TERMS, 0);
    forget(aggregate);
  }
  if (taken || !aggregate->held) { /* whoever stood by, and has the lease back, says so */
    livenps_log(LIVENPS_INFO, "aggregate", "aggregating namespace %s", aggregate->settings->namespace_);
  }
  aggregate->held = true;
  return 0;
}

/* During long work. Another holder in between makes held false, whether it still holds the lease or not: the caller drops the state. */
static int renew(livenps_aggregate *aggregate, livenps_error *error) {
  if (livenps_monotonic_ms() - aggregate->renewed_at_ms < aggregate->holder.lease_ms / 4) {
    return 0;
  }
  bool held = false, taken = false;
  if (livenps_script_lease(aggregate->redis, &aggregate->keys, &aggregate->holder, &held, &taken, error) !=
      0) {
    return -1;
  }
  aggregate->renewed_at_ms = livenps_monotonic_ms();
  aggregate->held = held && !taken;
  return 0;
}

/* What to do when a script refused. */
static void obey(livenps_aggregate *aggregate, livenps_fence fence, const char *doing) {
  switch (fence) {
  case LIVENPS_FENCE_OK:
  case LIVENPS_FENCE_REPUBLISH: break; /* the publisher does everything again by itself */
  case LIVENPS_FENCE_CHUNK:
    livenps_log(LIVENPS_WARN, "aggregate", "%s: a chunk of the snapshot is gone: writing all of them again",
                doing);
    livenps_state_unsaved(aggregate->state);
    break;
  case LIVENPS_FENCE_LEASE: lost_lease(aggregate); break;
  case LIVENPS_FENCE_LINEAGE:
    livenps_log(LIVENPS_WARN, "aggregate", "%s: the namespace was begun anew: loading what is stored", doing);
    tally(aggregate, LIVENPS_M_RELOADS, LIVENPS_M_RELOAD_LINEAGE);
    forget(aggregate);
    break;
  case LIVENPS_FENCE_GONE:
    livenps_log(LIVENPS_WARN, "aggregate",
                "%s: the log no longer holds what was folded: loading what is stored", doing);
    tally(aggregate, LIVENPS_M_RELOADS, LIVENPS_M_RELOAD_GONE);
    forget(aggregate);
    break;
  case LIVENPS_FENCE_BACKWARDS:
    livenps_log(LIVENPS_WARN, "aggregate", "%s: a later snapshot is stored: loading it", doing);
    tally(aggregate, LIVENPS_M_RELOADS, LIVENPS_M_RELOAD_LATER);
    forget(aggregate);
    break;
  }
}

/* ---- snapshot ------------------------------------------------------------------------------------------------------- */

typedef struct {
  livenps_aggregate *aggregate;
  char id[64];
  livenps_chunk *chunks;
  size_t count, capacity;
  livenps_error *error;
} chunk_writer;

static int write_chunk(void *opaque, const char *name, bool dirty, const char *bytes, size_t length) {
  chunk_writer *out = opaque;
  livenps_aggregate *aggregate = out->aggregate;
  if (out->count == out->capacity) {
    out->capacity = out->capacity ? out->capacity * 2 : 64;
    out->chunks = livenps_resize(out->chunks, out->capacity * sizeof *out->chunks);
  }
  if (!dirty) {
    for (size_t i = 0; i < aggregate->chunk_count; i++) {
      const livenps_chunk *old = &aggregate->chunks[i];
      if (strcmp(old->name, name) == 0) {
        out->chunks[out->count++] = (livenps_chunk){livenps_copy(name, strlen(name)),
                                                    livenps_copy(old->key, strlen(old->key)), old->size};
        return 0;
      }
    }
    return livenps_fail(out->error, LIVENPS_E_DATA, "snapshot: chunk %s counts as stored but is not listed",
                        name);
  }
  char key[400];
  livenps_fence fence;
  int size = snprintf(key, sizeof key, "%ssnapshot:%s:%s", aggregate->keys.prefix, out->id, name);
  if (livenps_script_chunk(aggregate->redis, &aggregate->keys, &aggregate->holder, key,
                           (livenps_text){bytes, length}, &fence, out->error) != 0) {
    return -1;
  }
  if (fence != LIVENPS_FENCE_OK) {
    livenps_fail(out->error, LIVENPS_E_LOST, "snapshot: the lease went to another instance");
    return -1;
  }
  aggregate->renewed_at_ms = livenps_monotonic_ms();
  out->chunks[out->count++] =
      (livenps_chunk){livenps_copy(name, strlen(name)), livenps_copy(key, (size_t)size), length};
  return 0;
}

/* Writes the chunks of the state, except those that the pointer's keys hold already. */
static int write_chunks(livenps_aggregate *aggregate, livenps_state *state, chunk_writer *out,
                        livenps_error *error) {
  *out = (chunk_writer){.aggregate = aggregate, .error = error};
  snprintf(out->id, sizeof out->id, "%.16s-%" PRIu64, aggregate->holder.token, ++aggregate->snapshots);
  if (livenps_state_snapshot(state, CHUNK_BYTES, write_chunk, out) != 0) {
    free_chunks(out->chunks, out->count);
    livenps_fail(error, LIVENPS_E_LOST, "snapshot: not written");
    return -1;
  }
  return 0;
}

static void adopt_chunks(livenps_aggregate *aggregate, chunk_writer *out) {
  free_chunks(aggregate->chunks, aggregate->chunk_count);
  aggregate->chunks = out->chunks;
  aggregate->chunk_count = out->count;
}

static bool same_entry(const livenps_entry_id *a, const livenps_entry_id *b) {
  return strcmp(a->id, b->id) == 0 && strcmp(a->nonce, b->nonce) == 0;
}

/* What was flipped just now, for Kafka too: the state is still the one that it holds. */
static void offer(livenps_aggregate *aggregate) {
  const livenps_keeper *keeper = aggregate->config.keeper;
  if (!keeper || !keeper->wants(keeper->opaque)) {
    return;
  }
  size_t count, begin = strlen(aggregate->keys.prefix) + strlen("snapshot:");
  const livenps_partition *ledger = livenps_state_partitions(aggregate->state, &count);
  livenps_manifest manifest = {
      .genesis = aggregate->genesis, .ms = aggregate->redis_ms, .entry = aggregate->holder.covered};
  memcpy(manifest.lineage, aggregate->holder.lineage, sizeof manifest.lineage);
  livenps_manifest_positions(&manifest, ledger, count);
  manifest.chunks = livenps_alloc((aggregate->chunk_count + 1) * sizeof *manifest.chunks);
  for (size_t i = 0; i < aggregate->chunk_count; i++) {
    const livenps_chunk *chunk = &aggregate->chunks[i];
    size_t length = strlen(chunk->key);
    assert(length > begin);
    manifest.chunks[manifest.chunk_count++] =
        (livenps_manifest_chunk){.name = livenps_copy(chunk->name, strlen(chunk->name)),
                                 .id = livenps_copy(chunk->key + begin, length - begin),
                                 .size = chunk->size};
  }
  keeper->offer(keeper->opaque, &manifest);
  livenps_manifest_free(&manifest);
}

static int snapshot(livenps_aggregate *aggregate, livenps_error *error) {
  chunk_writer out;
  livenps_fence fence;
  /* Also after a failure the next try waits its turn: what stopped this one would stop that one. */
  aggregate->snapshot_at_ms = livenps_monotonic_ms();
  const int64_t began_us = livenps_monotonic_us();
  if (write_chunks(aggregate, aggregate->state, &out, error) != 0) {
    return -1;
  }
  if (livenps_script_flip(aggregate->redis, &aggregate->keys, &aggregate->holder, &aggregate->last, out.id,
                          out.chunks, out.count, &fence, error) != 0) {
    /* Perhaps it was flipped and the old chunks are gone: nothing counts as stored. */
    free_chunks(out.chunks, out.count);
    livenps_state_unsaved(aggregate->state);
    forget(aggregate);
    return -1;
  }
  if (fence == LIVENPS_FENCE_OK) {
    tally(aggregate, LIVENPS_M_SNAPSHOTS, LIVENPS_M_TO_REDIS);
    livenps_metrics_observe(livenps_monitor_metrics(aggregate->config.monitor), LIVENPS_M_SNAPSHOT_TIME,
                            livenps_monotonic_us() - began_us);
    livenps_state_saved(aggregate->state);
    adopt_chunks(aggregate, &out);
    offer(aggregate);
    return 0;
  }
  free_chunks(out.chunks, out.count);
  if (fence == LIVENPS_FENCE_CHUNK) {
    aggregate->snapshot_at_ms = 0;
  }
  obey(aggregate, fence, "snapshot");
  return 0;
}

static bool snapshot_due(const livenps_aggregate *aggregate) {
  /* Covered to the head, and still bytes that wait: a failover lost the pointer, not the entries. When the log is full then, no entry comes
   * that would make a snapshot due, and without one none ever comes. */
  if (same_entry(&aggregate->last, &aggregate->holder.covered) && aggregate->log_bytes <= 0) {
    return false;
  }
  int64_t age = livenps_monotonic_ms() - aggregate->snapshot_at_ms;
  /* A log that fills stops the writers: trim it soon. */
  bool filling = aggregate->log_bytes > livenps_redis_log_limit(aggregate->redis, aggregate->settings) / 2;
  /* Another snapshot removes chunks that are still to be copied to Kafka. */
  const livenps_keeper *keeper = aggregate->config.keeper;
  if (keeper && !filling && age < aggregate->settings->snapshot_ms + HOLD_MS &&
      keeper->reading(keeper->opaque)) {
    return false;
  }
  return aggregate->snapshot_at_ms == 0 || age >= aggregate->settings->snapshot_ms ||
         (filling && age >= aggregate->settings->tick_ms);
}

/* ---- genesis -------------------------------------------------------------------------------------------------------- */

static int beat(void *opaque, livenps_error *error) {
  livenps_aggregate *aggregate = opaque;
  if (renew(aggregate, error) != 0) {
    return -1;
  }
  return aggregate->held ? 0 : livenps_fail(error, LIVENPS_E_LOST, "the lease went to another instance");
}

/* What a genesis begins with. */
typedef struct {
  livenps_beginning *beginnings;
  size_t count;
  livenps_state *state; /* of a snapshot kept in Kafka, which is `found`; NULL without */
  livenps_manifest found;
} origin;

/* What our state lost, to compare. */
static void describe(const livenps_aggregate *aggregate, livenps_manifest *mine) {
  size_t count;
  const livenps_partition *ledger = livenps_state_partitions(aggregate->state, &count);
  *mine = (livenps_manifest){.genesis = aggregate->genesis};
  livenps_manifest_positions(mine, ledger, count);
}

/* Asks Kafka where to begin, and for a snapshot. That can take longer than the lease lasts; then who stands by takes it, asks as long, and
 * loses it likewise to a third: nobody would ever begin. So the lease is long meanwhile, longer than the last time took. held may be false
 * afterwards. better: only a snapshot that loses less than our state. */
static int ask_kafka(livenps_aggregate *aggregate, int64_t since_ms, bool better, origin *from,
                     livenps_error *error) {
  const livenps_source *source = &aggregate->config.source;
  const livenps_keeper *keeper = aggregate->config.keeper;
  int64_t usual_ms = aggregate->holder.lease_ms;
  int64_t long_ms = 2 * aggregate->asking_ms > ASKING_MS ? 2 * aggregate->asking_ms : ASKING_MS;
  aggregate->holder.lease_ms = usual_ms > long_ms ? usual_ms : long_ms;
  int result = take_lease(aggregate, error);
  if (result == 0 && aggregate->held) {
    int64_t began_ms = livenps_monotonic_ms();
    result = source->beginnings(source->opaque, since_ms, &from->beginnings, &from->count, error);
    livenps_manifest mine = {0};
    livenps_search search = {
        .now = from->beginnings, .count = from->count, .beat = beat, .opaque = aggregate};
    if (better && aggregate->state) {
      describe(aggregate, &mine);
      search.mine = &mine;
    }
    if (result == 0 && keeper && (!better || search.mine)) {
      result = keeper->find(keeper->opaque, &search, &from->state, &from->found, error);
    }
    livenps_manifest_free(&mine);
    aggregate->asking_ms = livenps_monotonic_ms() - began_ms;
  }
  aggregate->holder.lease_ms = usual_ms;
  /* As long as usual again. */
  return result == 0 && aggregate->held ? take_lease(aggregate, error) : result;
}

static void add_position(livenps_claim *positions, size_t *count, const livenps_partition *line) {
  char field[280];
  int length = snprintf(field, sizeof field, "%s/%" PRId32, line->topic, line->partition);
  positions[(*count)++] =
      (livenps_claim){.field = livenps_copy(field, (size_t)length), .position = line->position};
}

static bool in_ledger(const livenps_state *state, const char *topic, int32_t partition) {
  size_t count;
  const livenps_partition *ledger = livenps_state_partitions(state, &count);
  for (size_t i = 0; i < count; i++) {
    if (ledger[i].partition == partition && strcmp(ledger[i].topic, topic) == 0) {
      return true;
    }
  }
  return false;
}

/* Partitions that the state does not know begin where Kafka said. */
static void start_partitions(livenps_aggregate *aggregate, livenps_state *state, const origin *from) {
  for (size_t i = 0; i < from->count; i++) {
    const livenps_beginning *each = &from->beginnings[i];
    if (in_ledger(state, each->topic, each->partition)) {
      continue;
    }
    /* An emptied partition says nothing of the time before. */
    const int64_t covered_since_ms = each->covered_since_ms < 0
                                         ? aggregate->redis_ms + aggregate->settings->admit_future_ms
                                         : each->covered_since_ms;
    livenps_state_start(state, livenps_text_of(each->topic), each->partition, each->start, covered_since_ms);
  }
}

static void tell_genesis(const livenps_aggregate *aggregate, size_t count, const livenps_manifest *found) {
  livenps_log(LIVENPS_INFO, "aggregate", "genesis %" PRId64 " of namespace %s: %zu partitions, lineage %s",
              aggregate->genesis, aggregate->settings->namespace_, count, aggregate->holder.lineage);
  if (found->ms) {
    char then[32];
    livenps_log(LIVENPS_INFO, "aggregate",
                "restored from the snapshot in Kafka of %s (genesis %" PRId64
                ", %.0f s old); what came since then is read again",
                livenps_time_print(found->ms, then), found->genesis,
                (double)(aggregate->redis_ms - found->ms) / 1000.0);
  }
}

/* Begins the namespace: with the best snapshot in Kafka, else at the offsets from which everything that can still matter is read.
 * seen: the lineage it replaces. better: only with a snapshot that loses less than our state, else nothing changes. */
static int begin(livenps_aggregate *aggregate, const char *seen, bool better, livenps_error *error) {
  int result = -1;
  origin from = {0};
  livenps_claim *positions = NULL;
  livenps_buffer payload = {0};
  chunk_writer out = {0};
  size_t position_count = 0, count;
  livenps_fence fence = LIVENPS_FENCE_OK;
  /* Twice the longest window, for the change against the window before; the slice it begins in; and what may stand ahead of its
     record timestamp. */
  int64_t since_ms = aggregate->redis_ms - 2 * aggregate->longest_ms - aggregate->longest_slice_ms -
                     aggregate->settings->admit_future_ms;
  const uint64_t term = aggregate->terms;
  result = ask_kafka(aggregate, since_ms, better, &from, error);
  /* Another holder in between makes Kafka's answer one of the past: topics may have lost what it begins with, and a snapshot may be stored
   * by now. The next tick looks again. */
  if (result != 0 || !aggregate->held || aggregate->terms != term || (better && !from.state)) {
    goto done;
  }
  result = -1;
  livenps_state *state = from.state;
  forget(aggregate);
  livenps_random_hex(aggregate->holder.lineage, sizeof aggregate->holder.lineage);
  if (state) {
    livenps_state_unsaved(state); /* its chunks are in Kafka only */
  } else {
    livenps_state_open(&from.state, aggregate->settings);
    state = from.state;
  }
  start_partitions(aggregate, state, &from);
  const livenps_partition *ledger = livenps_state_partitions(state, &count);
  positions = livenps_alloc((count + 1) * sizeof *positions);
  for (size_t i = 0; i < count; i++) {
    add_position(positions, &position_count, &ledger[i]);
  }
  if (!aggregate->config.replay) {
    livenps_state_advance(state, aggregate->redis_ms);
  }
  livenps_entry_encode(
      &(livenps_entry){.writer = livenps_text_of(aggregate->instance), .clock_ms = LIVENPS_NO_CLOCK},
      &payload);
  if (write_chunks(aggregate, state, &out, error) != 0) {
    goto done;
  }
  if (livenps_script_genesis(aggregate->redis, &aggregate->keys, &aggregate->holder,
                             &(livenps_birth){.seen = seen,
                                              .admit = aggregate->config.admit_hash,
                                              .snapshot_id = out.id,
                                              .chunks = out.chunks,
                                              .chunk_count = out.count,
                                              .positions = positions,
                                              .position_count = position_count,
                                              .extra = aggregate->config.extra,
                                              .extra_count = aggregate->config.extra_count,
                                              .above = from.found.genesis,
                                              .payload = &payload},
                             &fence, &aggregate->genesis, &aggregate->redis_ms, error) != 0) {
    free_chunks(out.chunks, out.count);
    goto done;
  }
  if (fence != LIVENPS_FENCE_OK) {
    free_chunks(out.chunks, out.count);
    obey(aggregate, fence == LIVENPS_FENCE_CHUNK ? LIVENPS_FENCE_LINEAGE : fence, "genesis");
    result = 0;
    goto done;
  }
  livenps_state_saved(state);
  adopt_state(aggregate, state);
  from.state = NULL;
  adopt_chunks(aggregate, &out);
  aggregate->last = aggregate->holder.covered;
  aggregate->snapshot_at_ms = livenps_monotonic_ms();
  livenps_publisher_reset(aggregate->publisher, "");
  tell_genesis(aggregate, position_count, &from.found);
  tally(aggregate, LIVENPS_M_GENESES, from.found.ms ? LIVENPS_M_FROM_SNAPSHOT : LIVENPS_M_FROM_TOPIC);
  result = 0;
done:
  for (size_t i = 0; i < position_count; i++) {
    free((void *)(uintptr_t)positions[i].field);
  }
  free(positions);
  free(from.beginnings);
  livenps_manifest_free(&from.found);
  livenps_buffer_free(&payload);
  livenps_state_free(from.state);
  return result;
}

/* Another number for other gaps. 0: there are none. */
static uint64_t gaps_of(const livenps_state *state) {
  size_t count;
  const livenps_partition *ledger = livenps_state_partitions(state, &count);
  uint64_t sum = 0;
  for (size_t i = 0; i < count; i++) {
    sum = sum * 1000003 + (uint64_t)ledger[i].gap;
  }
  return sum;
}

/* Records were lost before they were read: perhaps Redis came back from the past, and a snapshot in Kafka counts what the topic has lost
 * since. Then the namespace begins anew with that one. Each time it does, fewer records are lost than before, so this ends. */
static int heal(livenps_aggregate *aggregate, livenps_error *error) {
  const livenps_keeper *keeper = aggregate->config.keeper;
  static livenps_limit limit = {.interval_ms = 60000};
  const int64_t now_ms = livenps_monotonic_ms();
  if (!keeper || now_ms < aggregate->heal_at_ms) {
    return 0;
  }
  const uint64_t gaps = gaps_of(aggregate->state);
  if (gaps == aggregate->judged_gaps) {
    return 0;
  }
  livenps_manifest mine;
  describe(aggregate, &mine);
  const int answer = keeper->loses_less(keeper->opaque, &mine);
  livenps_manifest_free(&mine);
  if (answer > 0) {
    livenps_error trouble = {0};
    char seen[33];
    memcpy(seen, aggregate->holder.lineage, sizeof seen);
    livenps_log(LIVENPS_WARN, "aggregate",
                "offsets were lost that a snapshot in Kafka may still count: looking for it");
    tally(aggregate, LIVENPS_M_HEALS, 0);
    if (begin(aggregate, seen, true, &trouble) != 0) {
      if (trouble.code != LIVENPS_E_LOST || !aggregate->state) {
        return livenps_fail(error, trouble.code, "%s", trouble.text);
      }
      /* Kafka is away: publishing goes on. */
      livenps_log_limited(&limit, LIVENPS_WARN, "aggregate", "%s", trouble.text);
      aggregate->heal_at_ms = now_ms + HEAL_MS;
      return 0;
    }
  }
  if (aggregate->state && answer >= 0) {
    aggregate->judged_gaps = gaps;
  }
  return 0;
}

/* ---- load ----------------------------------------------------------------------------------------------------------- */

/* Reads the chunks that the pointer lists. 0: *out is the state; -1 with E_DATA: the snapshot cannot be used; -1 otherwise: an error. */
static int load_chunks(livenps_aggregate *aggregate, const char *listing, livenps_state **out,
                       livenps_error *error) {
  livenps_state *state;
  livenps_state_open(&state, aggregate->settings);
  int result = -1;
  size_t capacity = 0;
  for (const char *line = listing; *line;) {
    const char *end = strchr(line, '\n');
    char name[128], key[400];
    size_t size;
    if (!end || sscanf(line, "%127s %399s %zu", name, key, &size) != 3) {
      livenps_fail(error, LIVENPS_E_DATA, "the snapshot's list of chunks is not what this program writes");
      goto done;
    }
    line = end + 1;
    if (renew(aggregate, error) != 0) {
      goto done;
    }
    const char *argv[] = {"GET", key};
    livenps_reply *reply = livenps_redis_command(aggregate->redis, error, 2, argv, NULL);
    livenps_text bytes;
    if (!reply) {
      goto done;
    }
    if (!livenps_reply_text(reply, &bytes) || bytes.length != size) {
      livenps_reply_free(reply);
      livenps_fail(error, LIVENPS_E_DATA, "chunk %s of the snapshot is missing or has another length", name);
      goto done;
    }
    int loaded = livenps_state_load(state, bytes.at, bytes.length, error);
    livenps_reply_free(reply);
    if (loaded != 0) {
      livenps_fail_prefix(error, "chunk %s of the snapshot", name);
      goto done;
    }
    if (aggregate->chunk_count == capacity) {
      capacity = capacity ? capacity * 2 : 64;
      aggregate->chunks = livenps_resize(aggregate->chunks, capacity * sizeof *aggregate->chunks);
    }
    aggregate->chunks[aggregate->chunk_count++] =
        (livenps_chunk){livenps_copy(name, strlen(name)), livenps_copy(key, strlen(key)), size};
  }
  if (livenps_state_load_finish(state, error) != 0) {
    goto done;
  }
  *out = state;
  state = NULL;
  result = 0;
done:
  livenps_state_free(state);
  return result;
}

static int load(livenps_aggregate *aggregate, livenps_error *error) {
  livenps_stored stored = {0};
  livenps_error trouble = {0};
  livenps_state *state = NULL;
  int result = -1;
  if (livenps_script_look(aggregate->redis, &aggregate->keys, &stored, error) != 0) {
    return -1;
  }
  aggregate->redis_ms = stored.redis_ms > aggregate->redis_ms ? stored.redis_ms : aggregate->redis_ms;
  if (!stored.present) {
    result = begin(aggregate, stored.lineage, false, error);
    goto done;
  }
  if (stored.version != LIVENPS_FORMAT_VERSION) {
    livenps_fail(error, LIVENPS_E_REFUSED,
                 "%s: written in format version %" PRId64
                 ", this program writes %d: use the program that wrote it, or another "
                 "namespace",
                 aggregate->keys.meta, stored.version, LIVENPS_FORMAT_VERSION);
    goto done;
  }
  if (strcmp(stored.admit, aggregate->config.admit_hash) != 0) {
    livenps_fail(
        error, LIVENPS_E_REFUSED,
        aggregate->config.replay
            ? "namespace %s holds a replay of another range or by other rules (admit hash %s stored, %s here: --from, "
              "--to, mapping, admit.* or the program's version differ): choose another --into, or delete its keys"
            : "namespace %s counts by other rules (admit hash %s stored, %s here: mapping, admit.* or the program's "
              "version changed): set them back, or set another namespace",
        aggregate->settings->namespace_, stored.admit, aggregate->config.admit_hash);
    goto done;
  }
  if (aggregate->breaks >= BREAKS) {
    livenps_fail(&trouble, LIVENPS_E_DATA, "the log behind the snapshot is broken");
  } else if (!stored.covered.id[0]) {
    livenps_fail(&trouble, LIVENPS_E_DATA, "there is no snapshot");
  } else if (!stored.covered_exists) {
    livenps_fail(&trouble, LIVENPS_E_DATA, "the log no longer holds the entry %s that the snapshot covers",
                 stored.covered.id);
  } else if (load_chunks(aggregate, stored.chunks, &state, &trouble) != 0 && trouble.code != LIVENPS_E_DATA) {
    livenps_fail(error, trouble.code, "%s", trouble.text);
    forget(aggregate);
    goto done;
  }
  if (!aggregate->held) { /* lapsed while loading */
    lost_lease(aggregate);
    result = 0;
    goto done;
  }
  if (trouble.code) {
    /* The topic is the truth: what it still has is counted again, what it lost is said as coverage. */
    livenps_log(LIVENPS_ERROR, "aggregate",
                "namespace %s cannot be loaded from Redis (%s): beginning anew from Kafka",
                aggregate->settings->namespace_, trouble.text);
    forget(aggregate);
    result = begin(aggregate, stored.lineage, false, error);
    aggregate->breaks = result == 0 ? 0 : aggregate->breaks;
    goto done;
  }
  memcpy(aggregate->holder.lineage, stored.lineage, sizeof stored.lineage);
  aggregate->holder.covered = stored.covered;
  aggregate->last = stored.covered;
  aggregate->genesis = stored.genesis;
  adopt_state(aggregate, state);
  state = NULL;
  aggregate->snapshot_at_ms = livenps_monotonic_ms();
  livenps_publisher_reset(aggregate->publisher, stored.publish);
  result = 0;
done:
  livenps_state_free(state);
  free(stored.chunks);
  return result;
}

/* ---- fold ----------------------------------------------------------------------------------------------------------- */

static void remember_writer(livenps_aggregate *aggregate, livenps_text name, int64_t ms) {
  size_t length =
      name.length < sizeof aggregate->writers->name - 1 ? name.length : sizeof aggregate->writers->name - 1;
  writer *oldest = &aggregate->writers[0];
  for (size_t i = 0; i < aggregate->writer_count; i++) {
    writer *each = &aggregate->writers[i];
    if (strlen(each->name) == length && memcmp(each->name, name.at, length) == 0) {
      each->seen_ms = ms;
      return;
    }
    oldest = each->seen_ms < oldest->seen_ms ? each : oldest;
  }
  if (aggregate->writer_count < WRITERS) {
    oldest = &aggregate->writers[aggregate->writer_count++];
  }
  if (length) {
    memcpy(oldest->name, name.at, length);
  }
  oldest->name[length] = 0;
  oldest->seen_ms = ms;
}

static int64_t live_writers(const livenps_aggregate *aggregate) {
  int64_t count = 0;
  for (size_t i = 0; i < aggregate->writer_count; i++) {
    count += aggregate->writers[i].seen_ms > aggregate->redis_ms - WRITER_MS;
  }
  return count;
}

/* The log is not the one that was folded: load what is stored, fold again, publish everything. */
static void broken(livenps_aggregate *aggregate, const char *what) {
  livenps_log(LIVENPS_WARN, "aggregate",
              "the log of namespace %s does not continue what was folded (%s): loading the snapshot",
              aggregate->settings->namespace_, what);
  aggregate->breaks++;
  tally(aggregate, LIVENPS_M_RELOADS, LIVENPS_M_RELOAD_BROKEN);
  forget(aggregate);
}

/* 1: folded; 0: the state was dropped; -1: stop the program. */
static int fold_entry(livenps_aggregate *aggregate, const livenps_logged *logged, livenps_error *error) {
  char what[400];
  if (!same_entry(&logged->before, &aggregate->last) ||
      !livenps_text_equal(logged->lineage, livenps_text_of(aggregate->holder.lineage))) {
    snprintf(what, sizeof what, "entry %s names %s as its predecessor, folded was %s", logged->id.id,
             logged->before.id, aggregate->last.id);
    broken(aggregate, what);
    return 0;
  }
  livenps_entry entry = {0};
  livenps_error trouble = {0};
  if (livenps_entry_decode(&entry, logged->payload.at, logged->payload.length, &trouble) != 0) {
    /* Reading again would give the same bytes; another program version may know them. */
    livenps_entry_free(&entry);
    return livenps_fail(error, LIVENPS_E_REFUSED, "log entry %s of namespace %s cannot be read: %s",
                        logged->id.id, aggregate->settings->namespace_, trouble.text);
  }
  /* The clock first: then what an entry brings takes its place in the order of the log, whether it is folded as it comes or years later from
   * a snapshot; above the cap, the same names keep their series through a change of aggregator. And rows ahead of the clock would have to wait,
   * each in a place of its own. */
  if (!aggregate->config.replay) {
    livenps_state_advance(aggregate->state, logged->ms);
  } else if (entry.clock_ms != LIVENPS_NO_CLOCK) {
    livenps_state_advance(aggregate->state, entry.clock_ms < aggregate->config.to_ms
                                                ? entry.clock_ms
                                                : aggregate->config.to_ms);
  }
  int result = livenps_state_fold(aggregate->state, &entry, logged->ms, &trouble);
  if (result == 0) {
    remember_writer(aggregate, entry.writer, logged->ms);
    aggregate->last = logged->id;
    tally(aggregate, LIVENPS_M_ENTRIES, 0);
  }
  livenps_entry_free(&entry);
  if (result != 0) {
    broken(aggregate, trouble.text);
    return 0;
  }
  return 1;
}

/* Reads and folds to the head of the log. patient: however long it takes, else FOLD_MS. Leaves state NULL when it must be loaded again. */
static int fold(livenps_aggregate *aggregate, bool patient, livenps_error *error) {
  int64_t began_ms = livenps_monotonic_ms();
  for (;;) {
    livenps_reading reading;
    livenps_error trouble = {0};
    if (livenps_script_read(aggregate->redis, &aggregate->keys, &aggregate->holder, aggregate->last.id,
                            READ_BYTES, &reading, &trouble) != 0) {
      if (trouble.code == LIVENPS_E_DATA) {
        broken(aggregate, trouble.text);
        return 0;
      }
      return livenps_fail(error, trouble.code, "%s", trouble.text);
    }
    aggregate->renewed_at_ms = livenps_monotonic_ms();
    if (reading.fence != LIVENPS_FENCE_OK) {
      obey(aggregate, reading.fence, "reading the log");
      livenps_reading_free(&reading);
      return 0;
    }
    aggregate->redis_ms = reading.redis_ms > aggregate->redis_ms ? reading.redis_ms : aggregate->redis_ms;
    aggregate->log_bytes = reading.bytes - reading.trimmed;
    int folded = 1;
    for (size_t i = 0; i < reading.count && folded == 1; i++) {
      /* A large entry takes a while: on a busy machine a stand-by would take over, fold as long, and lose it again. */
      folded = fold_entry(aggregate, &reading.at[i], error);
      if (folded == 1 && renew(aggregate, error) != 0) {
        folded = -1;
      }
    }
    if (folded == 1 && !aggregate->held) {
      livenps_reading_free(&reading);
      lost_lease(aggregate);
      return 0;
    }
    size_t count = reading.count;
    livenps_entry_id head = reading.head;
    livenps_reading_free(&reading);
    if (folded != 1) {
      return folded;
    }
    if (same_entry(&aggregate->last, &head)) {
      aggregate->reached_head = true;
      aggregate->breaks = 0;
      return 0;
    }
    if (count == 0) {
      char what[200];
      snprintf(what, sizeof what, "its head is %s, folded was %s", head.id, aggregate->last.id);
      broken(aggregate, what);
      return 0;
    }
    if (!patient && aggregate->reached_head && livenps_monotonic_ms() - began_ms > FOLD_MS) {
      return 0;
    }
  }
}

/* ---- the tick ------------------------------------------------------------------------------------------------------- */

/* Lease, state, log. 0 with state NULL: nothing to do now. */
static int follow(livenps_aggregate *aggregate, bool patient, livenps_error *error) {
  if ((!aggregate->held || !aggregate->state) && take_lease(aggregate, error) != 0) {
    return -1;
  }
  if (!aggregate->held) {
    return 0;
  }
  if (!aggregate->state && load(aggregate, error) != 0) {
    return -1;
  }
  return aggregate->state ? fold(aggregate, patient, error) : 0;
}

static int publish(livenps_aggregate *aggregate, bool finishing, livenps_error *error) {
  livenps_fence fence = LIVENPS_FENCE_OK;
  livenps_pulse pulse = {.genesis = aggregate->genesis,
                         .aggregator = aggregate->instance,
                         .instances = live_writers(aggregate),
                         .last_commit_ms = strtoll(aggregate->last.id, NULL, 10), /* of the stream id */
                         .log_bytes = aggregate->log_bytes,
                         .log_max_bytes = livenps_redis_log_limit(aggregate->redis, aggregate->settings),
                         .finishing = finishing};
  const int64_t began_ms = livenps_monotonic_ms(), began_us = livenps_monotonic_us();
  pulse.total_known = aggregate->config.source.partitions(aggregate->config.source.opaque, &pulse.total);
  /* What is published covers everything folded, not only what the snapshot covers: a failover that loses the newest entries between
   * the reading and this must refuse it. */
  livenps_holder holder = aggregate->holder;
  holder.covered = aggregate->last;
  if (livenps_publisher_tick(aggregate->publisher, &holder, aggregate->state, &pulse, &fence, error) != 0) {
    return -1;
  }
  if (livenps_monitor_metrics(aggregate->config.monitor) && fence == LIVENPS_FENCE_OK) {
    tally(aggregate, LIVENPS_M_PUBLISHES, 0);
    livenps_metrics_observe(livenps_monitor_metrics(aggregate->config.monitor), LIVENPS_M_PUBLISH_TIME,
                            livenps_monotonic_us() - began_us);
  }
  const int64_t ended_ms = livenps_monotonic_ms(), took_ms = ended_ms - began_ms;
  if (aggregate->config.paced && took_ms > aggregate->settings->tick_ms) {
    aggregate->rest_until_ms = ended_ms + (REST * took_ms < REST_MS ? REST * took_ms : REST_MS);
  }
  obey(aggregate, fence, "publishing");
  return 0;
}

static void move_clock(livenps_aggregate *aggregate) {
  int64_t clock_ms = aggregate->redis_ms;
  if (aggregate->config.replay) {
    clock_ms = livenps_state_entry_clock(aggregate->state);
    clock_ms = clock_ms > aggregate->config.to_ms ? aggregate->config.to_ms : clock_ms;
  }
  if (clock_ms != LIVENPS_NO_CLOCK) {
    livenps_state_advance(aggregate->state, clock_ms);
  }
}

int livenps_aggregate_tick(livenps_aggregate *aggregate, livenps_error *error) {
  if (follow(aggregate, false, error) != 0) {
    return -1;
  }
  if (aggregate->state && aggregate->reached_head && heal(aggregate, error) != 0) {
    return -1;
  }
  if (!aggregate->state || !aggregate->reached_head) {
    return 0;
  }
  if (livenps_monotonic_ms() >= aggregate->rest_until_ms) {
    move_clock(aggregate);
    if (publish(aggregate, false, error) != 0) {
      return -1;
    }
  }
  return aggregate->state && snapshot_due(aggregate) ? snapshot(aggregate, error) : 0;
}

int livenps_aggregate_finish(livenps_aggregate *aggregate, int64_t clock_ms, livenps_error *error) {
  /* A refusal on the way drops the state; once more then, not for ever. */
  for (int attempt = 0; attempt < 3; attempt++) {
    if (follow(aggregate, true, error) != 0) {
      return -1;
    }
    if (!aggregate->held) {
      return livenps_fail(error, LIVENPS_E_LOST, "another instance aggregates namespace %s",
                          aggregate->settings->namespace_);
    }
    if (!aggregate->state) {
      continue;
    }
    if (clock_ms) {
      livenps_state_advance(aggregate->state, clock_ms);
    } else {
      move_clock(aggregate);
    }
    if (publish(aggregate, aggregate->config.replay, error) != 0) {
      return -1;
    }
    if (aggregate->state && snapshot(aggregate, error) != 0) {
      return -1;
    }
    if (aggregate->state) {
      return 0;
    }
  }
  return livenps_fail(error, LIVENPS_E_LOST,
                      "namespace %s was begun anew or changed while it was finished: try again",
                      aggregate->settings->namespace_);
}

void livenps_aggregate_close(livenps_aggregate *aggregate) {
  if (!aggregate) {
    return;
  }
  livenps_error error = {0};
  if (aggregate->held && livenps_redis_connected(aggregate->redis)) {
    /* So that the next holder folds little, and takes over at once. */
    if (aggregate->state && aggregate->reached_head &&
        !same_entry(&aggregate->last, &aggregate->holder.covered) && snapshot(aggregate, &error) != 0) {
      livenps_log(LIVENPS_WARN, "aggregate", "no snapshot at the end: %s", error.text);
    }
    livenps_error_clear(&error);
    if (livenps_redis_connected(aggregate->redis) &&
        livenps_script_release(aggregate->redis, &aggregate->keys, &aggregate->holder, &error) != 0) {
      livenps_log(LIVENPS_WARN, "aggregate", "the lease was not given back, it ends by itself: %s",
                  error.text);
    }
  }
  free_aggregate(aggregate);
}
