#include "keep.h"

#include "../common/clock.h"
#include "../common/log.h"
#include "../common/pulse.h"
#include "../common/sender.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
  ASK_MS = 2000,
  LARGEST = 8 * 1024 * 1024, /* a manifest that names thousands of partitions and chunks */
  PENDING = 8,               /* records under way, so that Kafka's absence costs little memory */
  WAIT_MS = 50,
  LOOK_MS = 1000,
  AGAIN_MS = 10000,    /* after a failure */
  PATIENCE_MS = 60000, /* longer without an acknowledgement is said in the log */
  OWN = 2,             /* manifests of a tenure that stay */
};

struct livenps_keep {
  const livenps_settings *settings;
  livenps_keeper keeper;
  livenps_metrics *metrics;
  char topic[250], admit[65];
  livenps_keys keys;

  pthread_mutex_t lock;
  pthread_cond_t wake;
  pthread_t thread;
  bool started;
  atomic_bool stop;
  /* Behind the lock: what the aggregator asks for and the thread answers. */
  uint64_t holds; /* rises with each hold(); what was begun for another number is given up */
  bool holding;
  bool busy; /* from an offer to its end */
  bool reading;
  livenps_manifest *offered;
  int64_t due_ms;
  bool listed; /* recall is of this hold */
  bool shared; /* another namespace writes this topic: we do not */
  bool judged; /* none of recall is still to be looked at because it may lose fewer records than the state */
  livenps_recall recall;

  /* The thread's own. */
  livenps_sender *sender;
  livenps_redis *redis;
  size_t failed;
  char reason[160];
  uint64_t working_for; /* holds */
  char tenure[17];
  int64_t sequence;
  livenps_manifest own[OWN]; /* acknowledged, the newest first */
  size_t own_count;
  livenps_manifest_chunk *written; /* in this tenure, acknowledged */
  size_t written_count, written_capacity;
};

/* -- the topic ---------------------------------------------------------------------------------------------------- */

/* Made if it is missing. STARTUP: it is one that would lose what it is given; LOST: nobody says so. */
static int check_topic(livenps_keep *keep, livenps_error *error) {
  static livenps_limit limit = {.interval_ms = 600000};
  static const char *const names[] = {"cleanup.policy"};
  /* Small segments, because the one that is written to is never compacted; a manifest of many partitions is large. The broker's time,
   * because it refuses that of a machine whose clock is wrong. */
  static const char *const config[] = {"cleanup.policy",
                                       "compact",
                                       "segment.bytes",
                                       "67108864",
                                       "min.cleanable.dirty.ratio",
                                       "0.1",
                                       "max.message.bytes",
                                       "10485760",
                                       "message.timestamp.type",
                                       "LogAppendTime",
                                       NULL};
  rd_kafka_t *rk = livenps_sender_handle(keep->sender);
  char *policy[1];
  const int partitions = livenps_kafka_partitions(rk, keep->topic, ASK_MS, error);
  if (partitions < 0)
    return -1;
  if (partitions == 0) {
    const int replicas = livenps_kafka_replicas(rk, keep->settings->topics.at[0], ASK_MS);
    if (livenps_kafka_create_topic(rk, keep->topic, 1, replicas, config, ASK_MS, error)) {
      error->code = LIVENPS_E_LOST;
      return -1;
    }
    livenps_log(LIVENPS_INFO, "keep", "made topic %s", keep->topic);
    return 0;
  }
  if (partitions > 1)
    return livenps_fail(
        error, LIVENPS_E_STARTUP,
        "kafka: topic %s has %d partitions: snapshots need one; set another snapshot.topic, or none",
        keep->topic, partitions);
  livenps_error unanswered = {0};
  if (livenps_kafka_topic_config(rk, keep->topic, names, 1, policy, ASK_MS, &unanswered)) {
    livenps_log_limited(&limit, LIVENPS_WARN, "keep", "topic %s: whether it is compacted is unknown (%s)",
                        keep->topic, unanswered.text);
    return 0;
  }
  const bool fit = policy[0] && !strcmp(policy[0], "compact");
  if (!fit)
    livenps_fail(
        error, LIVENPS_E_STARTUP,
        "kafka: topic %s has cleanup.policy=%s: it would delete snapshots; set it to compact, or set another "
        "snapshot.topic, or none",
        keep->topic, policy[0] ? policy[0] : "(unknown)");
  free(policy[0]);
  return fit ? 0 : -1;
}

/* -- what the aggregator calls ------------------------------------------------------------------------------------ */

static void free_manifest(livenps_manifest *manifest) {
  if (manifest)
    livenps_manifest_free(manifest);
  free(manifest);
}

static void hold(void *opaque, bool holding) {
  livenps_keep *keep = opaque;
  pthread_mutex_lock(&keep->lock);
  keep->holds++;
  keep->holding = holding;
  free_manifest(keep->offered);
  keep->offered = NULL;
  keep->busy = keep->reading = keep->listed = keep->shared = keep->judged = false;
  keep->due_ms = 0;
  pthread_cond_signal(&keep->wake);
  pthread_mutex_unlock(&keep->lock);
}

static bool wants(void *opaque) {
  livenps_keep *keep = opaque;
  pthread_mutex_lock(&keep->lock);
  const bool wanted = keep->listed && !keep->shared && !keep->busy && livenps_monotonic_ms() >= keep->due_ms;
  pthread_mutex_unlock(&keep->lock);
  return wanted;
}

static void offer(void *opaque, livenps_manifest *manifest) {
  livenps_keep *keep = opaque;
  livenps_manifest *taken = livenps_alloc(sizeof *taken);
  *taken = *manifest;
  *manifest = (livenps_manifest){0};
  pthread_mutex_lock(&keep->lock);
  free_manifest(keep->offered);
  keep->offered = taken;
  keep->busy = keep->reading = true;
  pthread_cond_signal(&keep->wake);
  pthread_mutex_unlock(&keep->lock);
}

static bool reading(void *opaque) {
  livenps_keep *keep = opaque;
  pthread_mutex_lock(&keep->lock);
  const bool yes = keep->reading;
  pthread_mutex_unlock(&keep->lock);
  return yes;
}

/* Of this namespace, by the rules and in the format of this program. */
static bool usable(const livenps_keep *keep, const livenps_manifest *manifest) {
  return manifest && !strcmp(manifest->namespace_, keep->settings->namespace_) &&
         !strcmp(manifest->admit, keep->admit) && manifest->version == LIVENPS_FORMAT_VERSION;
}

static int loses_less(void *opaque, const livenps_manifest *mine) {
  livenps_keep *keep = opaque;
  int answer = -1;
  pthread_mutex_lock(&keep->lock);
  if (keep->listed) {
    answer = 0;
    for (size_t i = 0; i < keep->recall.count && !answer; i++) {
      const livenps_recall_record *record = &keep->recall.at[i];
      answer = !record->gone && usable(keep, record->manifest) &&
               livenps_manifest_better(record->manifest, mine, NULL, 0);
    }
    keep->judged = !answer;
  }
  pthread_mutex_unlock(&keep->lock);
  return answer;
}

/* -- finding ------------------------------------------------------------------------------------------------------ */

/* Those to try, the best first. */
static livenps_recall_record **candidates(const livenps_keep *keep, const livenps_recall *recall,
                                          const livenps_search *search, size_t *count) {
  livenps_recall_record **usables = livenps_alloc((recall->count + 1) * sizeof *usables);
  livenps_recall_record **found = livenps_alloc((recall->count + 1) * sizeof *found);
  const livenps_manifest **manifests = livenps_alloc((recall->count + 1) * sizeof *manifests);
  size_t *order = livenps_alloc((recall->count + 1) * sizeof *order), known = 0;
  char why[256];
  for (size_t i = 0; i < recall->count; i++) {
    livenps_recall_record *record = &recall->at[i];
    if (record->gone || !record->manifest)
      continue;
    if (!usable(keep, record->manifest)) {
      livenps_log(LIVENPS_WARN, "keep",
                  "a snapshot of genesis %" PRId64
                  " in topic %s is of another namespace, version, or other rules "
                  "(mapping, admit.*): left aside",
                  record->manifest->genesis, keep->topic);
      continue;
    }
    if (!livenps_manifest_reaches(record->manifest, search->now, search->count, why))
      livenps_log(LIVENPS_WARN, "keep", "the snapshot of genesis %" PRId64 " in topic %s cannot be used: %s",
                  record->manifest->genesis, keep->topic, why);
    usables[known] = record;
    manifests[known++] = record->manifest;
  }
  *count = livenps_manifest_choose(manifests, known, search->mine, search->now, search->count, order);
  for (size_t i = 0; i < *count; i++)
    found[i] = usables[order[i]];
  free(usables);
  free(manifests);
  free(order);
  return found;
}

/* One pass over the topic. 1: something of a snapshot was not there, or not what it was. */
static int try_find(livenps_keep *keep, livenps_recaller *recaller, const livenps_search *search,
                    livenps_state **state, livenps_manifest *found, livenps_error *error) {
  const livenps_beat beat = {search->beat, search->opaque};
  livenps_recall recall = {0};
  size_t count = 0;
  livenps_recall_record **list = NULL;
  int result = 0;
  bool ours_same = true;
  char anew[256];
  /* Of a topic that was made anew since, or lost its end, our positions say nothing. Ingest notices, and tells another gap: then we are asked
   * again. */
  if (search->mine)
    result = livenps_recall_anchors(keep->settings, search->mine, search->now, search->count, &beat,
                                    &ours_same, anew, error);
  if (!result && ours_same)
    result = livenps_recaller_list(recaller, &recall, &beat, error);
  if (!result && ours_same)
    list = candidates(keep, &recall, search, &count);
  for (size_t i = 0; i < count && result >= 0 && !*state; i++) {
    char why[256];
    livenps_error trouble = {0};
    livenps_manifest *manifest = list[i]->manifest;
    bool same;
    if (livenps_recall_anchors(keep->settings, manifest, search->now, search->count, &beat, &same, why,
                               error)) {
      result = -1;
      break;
    }
    if (!same) {
      livenps_log(LIVENPS_WARN, "keep",
                  "the snapshot of genesis %" PRId64
                  " in topic %s counts other records than the topics hold: %s",
                  manifest->genesis, keep->topic, why);
      continue;
    }
    livenps_state *loaded;
    livenps_state_open(&loaded, keep->settings);
    if (!livenps_recall_complete(&recall, manifest))
      livenps_fail(&trouble, LIVENPS_E_DATA, "chunks are missing");
    else if (!livenps_recaller_load(recaller, &recall, manifest, loaded, &beat, &trouble)) {
      size_t partitions;
      const livenps_partition *ledger = livenps_state_partitions(loaded, &partitions);
      if (!livenps_manifest_matches(manifest, ledger, partitions))
        livenps_fail(&trouble, LIVENPS_E_DATA, "its positions are not those of its chunks");
    }
    if (!trouble.code) {
      const int64_t missing = livenps_manifest_overtaken(manifest, search->now, search->count, why);
      if (missing)
        livenps_log(
            LIVENPS_WARN, "keep",
            "retention has overtaken every snapshot in topic %s that could serve: with the best of them %" PRId64
            " offsets are lost (%s)",
            keep->topic, missing, why);
      *state = loaded;
      *found = *manifest;
      free(manifest);
      list[i]->manifest = NULL;
      break;
    }
    livenps_state_free(loaded);
    if (trouble.code != LIVENPS_E_DATA) {
      result = livenps_fail(error, trouble.code, "%s", trouble.text);
      break;
    }
    livenps_log(LIVENPS_WARN, "keep",
                "the snapshot of genesis %" PRId64 ", %" PRId64 " in topic %s is damaged: %s",
                manifest->genesis, manifest->sequence, keep->topic, trouble.text);
    result = 1;
  }
  free(list);
  livenps_recall_free(&recall);
  return *state && result > 0 ? 1 : result;
}

static int look(livenps_keep *keep, const livenps_search *search, livenps_state **state,
                livenps_manifest *found, livenps_error *error) {
  const livenps_beat beat = {search->beat, search->opaque};
  *state = NULL;
  /* What is not there is believed only when it is not there twice: a client library can skip records at the beginning of a reading. */
  for (int attempt = 0; attempt < 2; attempt++) {
    livenps_recaller *recaller = NULL;
    bool exists = false;
    if (livenps_recaller_open(&recaller, keep->settings, keep->topic, &exists, &beat, error))
      return -1;
    if (!exists) {
      livenps_log(LIVENPS_INFO, "keep", "there is no topic %s: no snapshot to begin with", keep->topic);
      return 0;
    }
    livenps_state *loaded = NULL;
    livenps_manifest manifest = {0};
    const int result = try_find(keep, recaller, search, &loaded, &manifest, error);
    livenps_recaller_close(recaller);
    if (result < 0)
      return -1;
    if (result == 0 || attempt) {
      *state = loaded;
      *found = manifest;
      return 0;
    }
    livenps_state_free(loaded);
    livenps_manifest_free(&manifest);
  }
  return 0;
}

static int find(void *opaque, const livenps_search *search, livenps_state **state, livenps_manifest *found,
                livenps_error *error) {
  livenps_keep *keep = opaque;
  const int result = look(keep, search, state, found, error);
  if (!result) {
    pthread_mutex_lock(&keep->lock);
    keep->judged = true;
    pthread_mutex_unlock(&keep->lock);
  }
  return result;
}

/* -- writing ------------------------------------------------------------------------------------------------------ */

static void delivered(void *opaque, void *record, const char *error, int32_t partition, int64_t offset) {
  (void)record, (void)partition, (void)offset;
  livenps_keep *keep = opaque;
  if (error && !keep->failed++)
    snprintf(keep->reason, sizeof keep->reason, "%s", error);
}

static int open_sender(livenps_keep *keep, livenps_error *error) {
  keep->failed = 0;
  return keep->sender ? 0
                      : livenps_sender_open(&keep->sender, keep->settings, LARGEST, delivered, keep, error);
}

/* What is under way is dropped with it; also the only cure of a producer that refuses everything from now on. */
static void close_sender(livenps_keep *keep) {
  livenps_sender_close(keep->sender);
  keep->sender = NULL;
}

static bool given_up(livenps_keep *keep) {
  pthread_mutex_lock(&keep->lock);
  const bool yes = keep->stop || keep->holds != keep->working_for || !keep->holding;
  pthread_mutex_unlock(&keep->lock);
  return yes;
}

/* Until at most `most` records are under way. E_LOST: given up; E_REFUSED: one will never be there. */
static int settle(livenps_keep *keep, size_t most, livenps_error *error) {
  static livenps_limit limit = {.interval_ms = 60000};
  const int64_t since_ms = livenps_monotonic_ms();
  while (livenps_sender_pending(keep->sender) > most && !keep->failed) {
    livenps_sender_poll(keep->sender, WAIT_MS);
    livenps_pulse();
    if (given_up(keep))
      return livenps_fail(error, LIVENPS_E_LOST, "given up");
    if (livenps_monotonic_ms() - since_ms > PATIENCE_MS)
      livenps_log_limited(
          &limit, LIVENPS_WARN, "keep",
          "Kafka has not acknowledged a snapshot for a minute; counting goes on, the next one waits");
  }
  return keep->failed ? livenps_fail(error, LIVENPS_E_REFUSED, "topic %s: %s", keep->topic, keep->reason) : 0;
}

static int put(livenps_keep *keep, const char *key, livenps_text value, livenps_error *error) {
  if (settle(keep, PENDING, error))
    return -1;
  return livenps_sender_send(keep->sender, keep->topic, 0, livenps_text_of(key), value, NULL, 0, 0, NULL,
                             WAIT_MS, error);
}

static const livenps_manifest_chunk *find_written(const livenps_keep *keep, const char *id) {
  for (size_t i = 0; i < keep->written_count; i++)
    if (!strcmp(keep->written[i].id, id))
      return &keep->written[i];
  return NULL;
}

static int put_chunk(livenps_keep *keep, livenps_manifest_chunk *chunk, livenps_error *error) {
  char key[512];
  livenps_text bytes;
  snprintf(key, sizeof key, "%ssnapshot:%s", keep->keys.prefix, chunk->id);
  const char *argv[] = {"GET", key};
  livenps_reply *reply = livenps_redis_command(keep->redis, error, 2, argv, NULL);
  if (!reply)
    return -1;
  int result = 0;
  if (!livenps_reply_text(reply, &bytes) || bytes.length != chunk->size || !chunk->size) {
    result = livenps_fail(error, LIVENPS_E_LOST, "chunk %s is no longer in Redis", chunk->name);
  } else {
    livenps_sha256_hex(bytes.at, bytes.length, chunk->sha256);
    size_t piece = 0;
    for (size_t at = 0; at < bytes.length && !result; at += LIVENPS_PIECE_BYTES) {
      const size_t left = bytes.length - at;
      result =
          put(keep, livenps_recall_piece(key, keep->tenure, chunk->id, piece++),
              (livenps_text){bytes.at + at, left < LIVENPS_PIECE_BYTES ? left : LIVENPS_PIECE_BYTES}, error);
    }
  }
  livenps_reply_free(reply);
  return result;
}

static void remember_written(livenps_keep *keep, const livenps_manifest *manifest) {
  for (size_t i = 0; i < manifest->chunk_count; i++) {
    const livenps_manifest_chunk *chunk = &manifest->chunks[i];
    if (find_written(keep, chunk->id))
      continue;
    if (keep->written_count == keep->written_capacity) {
      keep->written_capacity = keep->written_capacity ? keep->written_capacity * 2 : 64;
      keep->written = livenps_resize(keep->written, keep->written_capacity * sizeof *keep->written);
    }
    livenps_manifest_chunk *copy = &keep->written[keep->written_count++];
    *copy = *chunk;
    copy->name = livenps_copy(chunk->name, strlen(chunk->name));
    copy->id = livenps_copy(chunk->id, strlen(chunk->id));
  }
}

static void forget_written(livenps_keep *keep, size_t place) {
  livenps_manifest_chunk *last = &keep->written[--keep->written_count];
  const livenps_manifest_chunk gone = keep->written[place];
  keep->written[place] = *last;
  *last = (livenps_manifest_chunk){0};
  free(gone.name);
  free(gone.id);
}

static const char *manifest_key(char out[400], const livenps_manifest *manifest) {
  snprintf(out, 400, "manifest/%" PRId64 "/%s/%" PRId64, manifest->genesis, manifest->tenure,
           manifest->sequence);
  return out;
}

static bool lists(const livenps_manifest *manifest, const char *id) {
  for (size_t i = 0; i < manifest->chunk_count; i++)
    if (!strcmp(manifest->chunks[i].id, id))
      return true;
  return false;
}

static int put_tombstone(livenps_keep *keep, const char *key, livenps_error *error) {
  return put(keep, key, (livenps_text){NULL, 0}, error);
}

/* What only manifests before the last two of this tenure list. */
static int sweep_own(livenps_keep *keep, const livenps_manifest *old, livenps_error *error) {
  char key[400];
  if (old->tenure[0] && put_tombstone(keep, manifest_key(key, old), error))
    return -1;
  for (size_t i = 0; i < keep->written_count;) {
    const livenps_manifest_chunk *chunk = &keep->written[i];
    bool needed = false;
    for (size_t k = 0; k < keep->own_count; k++)
      needed |= lists(&keep->own[k], chunk->id);
    for (size_t at = 0; !needed && at * LIVENPS_PIECE_BYTES < chunk->size; at++)
      if (put_tombstone(keep, livenps_recall_piece(key, keep->tenure, chunk->id, at), error))
        return -1;
    if (needed)
      i++;
    else
      forget_written(keep, i);
  }
  return 0;
}

static void mark_pieces(livenps_recall *recall, const livenps_manifest *manifest) {
  char key[400];
  for (size_t i = 0; i < manifest->chunk_count; i++)
    for (size_t at = 0; at * LIVENPS_PIECE_BYTES < manifest->chunks[i].size; at++) {
      livenps_recall_record *piece = livenps_recall_find(
          recall, livenps_recall_piece(key, manifest->tenure, manifest->chunks[i].id, at));
      if (piece)
        piece->listed = true;
    }
}

/* A manifest that this program cannot read may be a newer one's: its tenure's chunks stay. */
static void mark_tenure(livenps_recall *recall, const char *manifest_key) {
  const char *tenure = strchr(manifest_key + strlen("manifest/"), '/');
  const size_t length = tenure ? strcspn(tenure + 1, "/") : 0;
  if (length != 16)
    return;
  for (size_t i = 0; i < recall->count; i++)
    if (!strncmp(recall->at[i].key, "chunk/", 6) && !strncmp(recall->at[i].key + 6, tenure + 1, 16) &&
        recall->at[i].key[22] == '/')
      recall->at[i].listed = true;
}

/* Says by listed what of an earlier tenure stays. Behind the lock. */
static void mark(livenps_keep *keep) {
  livenps_recall *recall = &keep->recall;
  livenps_recall_record *furthest = NULL;
  for (size_t i = 0; i < recall->count; i++)
    recall->at[i].listed = false;
  for (size_t i = 0; i < recall->count; i++) {
    livenps_recall_record *record = &recall->at[i];
    if (record->gone || strncmp(record->key, "manifest/", 9))
      continue;
    if (!record->manifest) {
      record->listed = true;
      mark_tenure(recall, record->key);
      continue;
    }
    /* Of other rules: whoever began anew by a mistake in the settings finds them again. */
    const bool ours = usable(keep, record->manifest);
    record->listed = !ours || livenps_manifest_ahead(record->manifest, &keep->own[0]) ||
                     (!keep->judged && livenps_manifest_better(record->manifest, &keep->own[0], NULL, 0));
    if (!ours)
      continue;
    if (keep->own_count < OWN && livenps_recall_complete(recall, record->manifest) &&
        (!furthest || livenps_manifest_compare(record->manifest, furthest->manifest) < 0))
      furthest = record;
  }
  if (furthest)
    furthest->listed = true;
  for (size_t i = 0; i < recall->count; i++)
    if (recall->at[i].listed && recall->at[i].manifest)
      mark_pieces(recall, recall->at[i].manifest);
}

/* What was there before this tenure and no longer serves. */
static int sweep_others(livenps_keep *keep, livenps_error *error) {
  char **keys = NULL;
  size_t count = 0;
  int result = 0;
  pthread_mutex_lock(&keep->lock);
  if (keep->listed && keep->holds == keep->working_for) {
    mark(keep);
    keys = livenps_alloc((keep->recall.count + 1) * sizeof *keys);
    for (size_t i = 0; i < keep->recall.count; i++) {
      livenps_recall_record *record = &keep->recall.at[i];
      if (record->gone || record->listed)
        continue;
      /* Told before it is done: a tombstone that gets lost only leaves garbage for the next tenure. */
      record->gone = true;
      keys[count++] = livenps_copy(record->key, strlen(record->key));
    }
  }
  pthread_mutex_unlock(&keep->lock);
  for (size_t i = 0; i < count; i++) {
    if (!result)
      result = put_tombstone(keep, keys[i], error);
    free(keys[i]);
  }
  free(keys);
  return result;
}

/* Chunks, all acknowledged; the manifest, acknowledged; then what is no longer needed. */
static int write_snapshot(livenps_keep *keep, livenps_manifest *manifest, livenps_error *error) {
  char key[400];
  livenps_buffer bytes = {0};
  int result = -1;
  size_t sent = 0;
  if (keep->own_count && !livenps_manifest_ahead(manifest, &keep->own[0]))
    return 0; /* nothing was read since */
  memcpy(manifest->tenure, keep->tenure, sizeof manifest->tenure);
  manifest->sequence = ++keep->sequence;
  manifest->version = LIVENPS_FORMAT_VERSION;
  snprintf(manifest->namespace_, sizeof manifest->namespace_, "%.64s", keep->settings->namespace_);
  memcpy(manifest->admit, keep->admit, sizeof manifest->admit);
  if (open_sender(keep, error) || check_topic(keep, error))
    return -1;
  if (!keep->redis && livenps_redis_open(&keep->redis, keep->settings, error))
    return -1;
  for (size_t i = 0; i < manifest->chunk_count; i++) {
    livenps_manifest_chunk *chunk = &manifest->chunks[i];
    const livenps_manifest_chunk *there = find_written(keep, chunk->id);
    if (there) {
      memcpy(chunk->sha256, there->sha256, sizeof chunk->sha256);
      continue;
    }
    if (put_chunk(keep, chunk, error))
      return -1;
    sent++;
  }
  pthread_mutex_lock(&keep->lock);
  if (keep->holds == keep->working_for)
    keep->reading = false;
  pthread_mutex_unlock(&keep->lock);
  if (settle(keep, 0, error) || given_up(keep))
    return livenps_fail(error, LIVENPS_E_LOST, "given up");
  remember_written(keep, manifest);
  livenps_manifest_encode(manifest, &bytes);
  if (put(keep, manifest_key(key, manifest), (livenps_text){bytes.at, bytes.length}, error) ||
      settle(keep, 0, error))
    goto done;
  livenps_log(keep->own_count ? LIVENPS_DEBUG : LIVENPS_INFO, "keep",
              "a snapshot of genesis %" PRId64 " is kept in topic %s (%zu chunks, %zu of them new)",
              manifest->genesis, keep->topic, manifest->chunk_count, sent);
  livenps_metrics_add(keep->metrics, LIVENPS_M_SNAPSHOTS, LIVENPS_M_TO_KAFKA, 1);
  livenps_manifest old = keep->own[OWN - 1];
  memmove(&keep->own[1], &keep->own[0], (OWN - 1) * sizeof *keep->own);
  keep->own[0] = *manifest;
  *manifest = (livenps_manifest){0};
  keep->own_count += keep->own_count < OWN;
  if (!sweep_own(keep, &old, error) && !sweep_others(keep, error))
    result = settle(keep, 0, error);
  livenps_manifest_free(&old);
done:
  livenps_buffer_free(&bytes);
  return result;
}

/* -- the thread --------------------------------------------------------------------------------------------------- */

static void forget_tenure(livenps_keep *keep) {
  for (size_t i = 0; i < OWN; i++)
    livenps_manifest_free(&keep->own[i]);
  keep->own_count = 0;
  while (keep->written_count)
    forget_written(keep, 0);
  keep->sequence = 0;
  livenps_random_hex(keep->tenure, sizeof keep->tenure);
}

static int beat(void *opaque, livenps_error *error) {
  return given_up(opaque) ? livenps_fail(error, LIVENPS_E_LOST, "given up") : 0;
}

/* What is in the topic before this tenure writes to it. */
static int list_topic(livenps_keep *keep, livenps_error *error) {
  const livenps_beat beating = {beat, keep};
  livenps_recaller *recaller = NULL;
  livenps_recall recall = {0};
  bool exists = false, shared = false;
  if (livenps_recaller_open(&recaller, keep->settings, keep->topic, &exists, &beating, error))
    return -1;
  const int result = exists ? livenps_recaller_list(recaller, &recall, &beating, error) : 0;
  livenps_recaller_close(recaller);
  for (size_t i = 0; i < recall.count && !shared; i++) {
    const livenps_manifest *manifest = recall.at[i].manifest;
    shared = manifest && strcmp(manifest->namespace_, keep->settings->namespace_) != 0;
    if (shared)
      livenps_log(LIVENPS_ERROR, "keep",
                  "topic %s holds snapshots of another namespace (%.64s): none of ours go there; set another "
                  "snapshot.topic",
                  keep->topic, manifest->namespace_);
  }
  pthread_mutex_lock(&keep->lock);
  if (!result && keep->holds == keep->working_for && keep->holding) {
    livenps_recall old = keep->recall;
    keep->recall = recall;
    recall = old;
    keep->listed = true;
    keep->shared = shared;
  }
  pthread_mutex_unlock(&keep->lock);
  livenps_recall_free(&recall);
  return result;
}

/* Waits for something to do; true: a snapshot was offered. */
static bool next_work(livenps_keep *keep, livenps_manifest *manifest, bool *list) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += LOOK_MS / 1000;
  pthread_mutex_lock(&keep->lock);
  if (!keep->stop && !keep->offered && keep->holds == keep->working_for)
    pthread_cond_timedwait(&keep->wake, &keep->lock, &until);
  const bool anew = keep->holds != keep->working_for;
  keep->working_for = keep->holds;
  *list = keep->holding && !keep->listed;
  livenps_manifest *offered = keep->offered;
  keep->offered = NULL;
  pthread_mutex_unlock(&keep->lock);
  if (anew) {
    forget_tenure(keep);
    if (keep->sender && livenps_sender_pending(keep->sender))
      close_sender(keep); /* the records of another tenure need not come */
  }
  if (!offered)
    return false;
  *manifest = *offered;
  free(offered);
  return true;
}

static void *keep_thread(void *opaque) {
  livenps_keep *keep = opaque;
  static livenps_limit limit = {.interval_ms = 60000};
  int64_t list_at_ms = 0;
  livenps_pulse_begin(LIVENPS_PULSE_KEEP);
  while (!keep->stop) {
    livenps_pulse();
    livenps_manifest manifest = {0};
    livenps_error error = {0};
    bool list;
    if (next_work(keep, &manifest, &list)) {
      const int failed = write_snapshot(keep, &manifest, &error);
      if (failed && !given_up(keep))
        livenps_log_limited(&limit, LIVENPS_WARN, "keep", "a snapshot was not kept in Kafka: %s", error.text);
      if (failed)
        close_sender(keep);
      livenps_manifest_free(&manifest);
      pthread_mutex_lock(&keep->lock);
      if (keep->holds == keep->working_for) {
        keep->busy = keep->reading = false;
        const int64_t pause_ms = keep->settings->snapshot_kafka_ms;
        keep->due_ms = livenps_monotonic_ms() + (failed && pause_ms > AGAIN_MS ? AGAIN_MS : pause_ms);
      }
      pthread_mutex_unlock(&keep->lock);
    } else if (list && livenps_monotonic_ms() >= list_at_ms) {
      if (list_topic(keep, &error)) {
        if (!given_up(keep))
          livenps_log_limited(&limit, LIVENPS_WARN, "keep",
                              "snapshots are not kept in Kafka at the moment: %s", error.text);
        list_at_ms = livenps_monotonic_ms() + AGAIN_MS;
      }
    } else if (keep->sender) {
      livenps_sender_poll(keep->sender, 0);
    }
  }
  livenps_pulse_end();
  return NULL;
}

/* -- life --------------------------------------------------------------------------------------------------------- */

int livenps_keep_open(livenps_keep **out, const livenps_settings *settings, const char *admit_hash,
                      livenps_error *error) {
  livenps_keep *keep = livenps_alloc(sizeof *keep);
  pthread_condattr_t monotonic;
  *out = NULL;
  keep->settings = settings;
  keep->keeper = (livenps_keeper){hold, wants, offer, reading, loses_less, find, keep};
  snprintf(keep->admit, sizeof keep->admit, "%s", admit_hash);
  livenps_keys_make(&keep->keys, settings->namespace_);
  livenps_settings_snapshot_topic(settings, keep->topic);
  pthread_mutex_init(&keep->lock, NULL);
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init(&keep->wake, &monotonic);
  pthread_condattr_destroy(&monotonic);
  forget_tenure(keep);
  if (!keep->topic[0]) {
    livenps_log(LIVENPS_INFO, "keep", "snapshots stay in Redis only (snapshot.topic: none)");
    livenps_keep_close(keep);
    return 0;
  }
  livenps_error trouble = {0};
  if (open_sender(keep, error)) {
    livenps_keep_close(keep);
    return -1;
  }
  /* The embedded cluster forgets the oldest records of a topic, compacted or not, and ends with its process. */
  if (livenps_embedded_cluster(livenps_sender_handle(keep->sender), ASK_MS)) {
    livenps_log(LIVENPS_DEBUG, "keep", "snapshots stay in Redis only: this is the embedded cluster");
    livenps_keep_close(keep);
    return 0;
  }
  if (check_topic(keep, &trouble)) {
    if (trouble.code == LIVENPS_E_STARTUP) {
      livenps_keep_close(keep);
      return livenps_fail(error, trouble.code, "%s", trouble.text);
    }
    livenps_log(LIVENPS_WARN, "keep", "snapshots may not be kept in Kafka yet: %s", trouble.text);
  }
  *out = keep;
  return 0;
}

void livenps_keep_start(livenps_keep *keep, livenps_metrics *metrics) {
  if (!keep)
    return;
  keep->metrics = metrics;
  keep->started = pthread_create(&keep->thread, NULL, keep_thread, keep) == 0;
}

void livenps_keep_close(livenps_keep *keep) {
  if (!keep)
    return;
  pthread_mutex_lock(&keep->lock);
  keep->stop = true;
  pthread_cond_signal(&keep->wake);
  pthread_mutex_unlock(&keep->lock);
  if (keep->started)
    pthread_join(keep->thread, NULL);
  forget_tenure(keep);
  free(keep->written);
  free_manifest(keep->offered);
  livenps_recall_free(&keep->recall);
  close_sender(keep);
  livenps_redis_close(keep->redis);
  pthread_cond_destroy(&keep->wake);
  pthread_mutex_destroy(&keep->lock);
  free(keep);
}

const livenps_keeper *livenps_keep_keeper(const livenps_keep *keep) {
  return keep ? &keep->keeper : NULL;
}
