#include "commit.h"

#include "../common/clock.h"

#include <stdio.h>
#include <stdlib.h>

int livenps_commit_open(livenps_commit *commit, const livenps_settings *settings, const char *admit,
                        const char *writer, livenps_error *error) {
  *commit = (livenps_commit){.settings = settings};
  livenps_keys_make(&commit->keys, settings->namespace_);
  snprintf(commit->admit, sizeof commit->admit, "%s", admit);
  snprintf(commit->writer, sizeof commit->writer, "%s", writer);
  return livenps_redis_open(&commit->redis, settings, error);
}

void livenps_commit_close(livenps_commit *commit) {
  livenps_redis_close(commit->redis);
  livenps_buffer_free(&commit->payload);
  *commit = (livenps_commit){0};
}

livenps_adoption livenps_commit_adopt(livenps_commit *commit, livenps_batch *batch, bool *seek,
                                      livenps_error *error) {
  const size_t count = batch->lane_count;
  const char **fields = livenps_alloc((count + 1) * sizeof *fields);
  livenps_position *positions = livenps_alloc((count + 1) * sizeof *positions);
  livenps_adoption adoption = LIVENPS_ADOPT_WAIT;
  char admit[65];
  bool empty;

  livenps_batch_drop(batch);
  for (size_t i = 0; i < count; i++)
    fields[i] = batch->lanes[i].field;
  if (livenps_script_adopt(commit->redis, &commit->keys, fields, count, &empty, commit->lineage, admit,
                           positions, &commit->redis_ms, error)) {
    if (error->code == LIVENPS_E_REFUSED || error->code == LIVENPS_E_DATA)
      adoption = LIVENPS_ADOPT_STOP;
  } else if (empty) {
    livenps_fail(error, LIVENPS_E_LOST,
                 "redis: the namespace is empty; waiting for the aggregator to begin it");
  } else if (strcmp(admit, commit->admit)) {
    livenps_fail(
        error, LIVENPS_E_REFUSED,
        "the namespace was begun with other rules for what counts (admit hash %.16s... stored, %.16s... here): "
        "restore the former mapping and admit settings, or choose another namespace",
        admit, commit->admit);
    adoption = LIVENPS_ADOPT_STOP;
  } else {
    commit->redis_at_ms = livenps_monotonic_ms();
    for (size_t i = 0; i < count; i++) {
      const bool moved = livenps_batch_adopt(batch, &batch->lanes[i], &positions[i], commit->redis_ms);
      if (seek)
        seek[i] = moved;
    }
    adoption = LIVENPS_ADOPTED;
  }
  free(fields);
  free(positions);
  return adoption;
}

/* "Read through now" is true when it is said. A commit can land much later (a server that hangs, a process that is stopped before it
 * sends), so it says the time: Redis's by our monotonic clock, early by the way of its answer to us. Only a replay's range ends for good. */
static void date_claims(const livenps_commit *commit, const livenps_batch *batch, int64_t now_ms,
                        livenps_advance *advances) {
  for (size_t i = 0; i < batch->lane_count; i++)
    if (advances[i].through_ms == LIVENPS_THROUGH_NOW && batch->lanes[i].end == INT64_MAX)
      advances[i].through_ms = commit->redis_ms + (now_ms - commit->redis_at_ms);
}

livenps_committing livenps_commit_flush(livenps_commit *commit, livenps_batch *batch, livenps_error *error) {
  livenps_advance *advances = livenps_alloc((batch->lane_count + 1) * sizeof *advances);
  livenps_claim *claims = livenps_alloc((batch->lane_count + 1) * sizeof *claims);
  livenps_entry entry;
  const int64_t now_ms = livenps_monotonic_ms();
  livenps_batch_entry(batch, livenps_text_of(commit->writer), now_ms, advances, &entry);
  date_claims(commit, batch, now_ms, advances);
  commit->payload.length = 0;
  livenps_entry_encode(&entry, &commit->payload);
  /* Every lane is claimed, advanced or not: a partition that is idle here may have been read by another instance. */
  for (size_t i = 0; i < batch->lane_count; i++)
    claims[i] = (livenps_claim){batch->lanes[i].field, batch->lanes[i].stored,
                                livenps_batch_position(&batch->lanes[i])};

  livenps_commit_answer answer;
  livenps_entry_id id;
  char detail[512];
  const int failed = livenps_script_commit(commit->redis, &commit->keys, commit->lineage, commit->admit,
                                           livenps_redis_log_limit(commit->redis, commit->settings), claims,
                                           batch->lane_count, &commit->payload, &answer, &commit->redis_ms,
                                           &id, detail, error);
  free(advances);
  free(claims);
  if (failed) {
    /* After a lost reply nobody knows whether it happened; the stored positions do. */
    commit->lost++;
    livenps_batch_drop(batch);
    /* What is wrong with a node that a cluster has sent us to is an outage, as in adopting. */
    if (error->code == LIVENPS_E_STARTUP)
      error->code = LIVENPS_E_LOST;
    return error->code == LIVENPS_E_LOST ? LIVENPS_COMMIT_UNKNOWN : LIVENPS_COMMIT_STOP;
  }
  switch (answer) {
  case LIVENPS_COMMIT_OK:
    commit->redis_at_ms = livenps_monotonic_ms();
    commit->commits++;
    livenps_batch_committed(batch);
    return LIVENPS_COMMITTED;
  case LIVENPS_COMMIT_FULL:
    commit->full++;
    livenps_fail(error, LIVENPS_E_LOST,
                 "the commit log is full (%s): reading pauses until an aggregator has folded and trimmed it",
                 detail);
    return LIVENPS_COMMIT_WAITS;
  case LIVENPS_COMMIT_CONFLICT:
    commit->conflicts++;
    livenps_fail(error, LIVENPS_E_LOST, "another writer was here, or Redis lost commits: %s", detail);
    break;
  case LIVENPS_COMMIT_EMPTY:
    commit->anew++;
    livenps_fail(error, LIVENPS_E_LOST, "the namespace is empty: Redis was flushed or replaced");
    break;
  case LIVENPS_COMMIT_LINEAGE:
    commit->anew++;
    livenps_fail(error, LIVENPS_E_LOST, "the namespace was begun anew: %s", detail);
    break;
  case LIVENPS_COMMIT_CONFIG:
    livenps_fail(
        error, LIVENPS_E_REFUSED,
        "the namespace now belongs to other rules for what counts: %s; restore the former mapping and admit "
        "settings, or choose another namespace",
        detail);
    livenps_batch_drop(batch);
    return LIVENPS_COMMIT_STOP;
  }
  livenps_batch_drop(batch);
  return LIVENPS_COMMIT_READOPT;
}
