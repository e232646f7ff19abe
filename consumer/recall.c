#include "keep.h"

#include "../common/clock.h"
#include "../common/kafka.h"
#include "../common/log.h"
#include "../common/pulse.h"
#include "../common/stop.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Memory is bounded by what the topic lists, not by what it holds: the first pass keeps keys, sizes and manifests, the second the one chunk
 * that is being put together, or a few where two writers wrote at the same time. */

enum {
  ASK_MS = 1000,       /* one try at a question */
  PATIENCE_MS = 10000, /* so long without an answer or a record: Kafka is away */
  POLL_MS = 100,
};

/* -- what the topic lists ----------------------------------------------------------------------------------------- */

void livenps_recall_free(livenps_recall *recall) {
  for (size_t i = 0; i < recall->count; i++) {
    free(recall->at[i].key);
    if (recall->at[i].manifest)
      livenps_manifest_free(recall->at[i].manifest);
    free(recall->at[i].manifest);
  }
  free(recall->at);
  free(recall->index);
  *recall = (livenps_recall){0};
}

static size_t *slot_of(livenps_recall *recall, const char *key, size_t length) {
  size_t slot = livenps_hash(key, length) & (recall->index_size - 1);
  for (; recall->index[slot]; slot = (slot + 1) & (recall->index_size - 1)) {
    const char *there = recall->at[recall->index[slot] - 1].key;
    if (strlen(there) == length && !memcmp(there, key, length))
      break;
  }
  return &recall->index[slot];
}

static void grow(livenps_recall *recall) {
  recall->capacity = recall->capacity ? recall->capacity * 2 : 256;
  recall->at = livenps_resize(recall->at, recall->capacity * sizeof *recall->at);
  free(recall->index);
  recall->index_size = recall->capacity * 2;
  recall->index = livenps_alloc(recall->index_size * sizeof *recall->index);
  for (size_t i = 0; i < recall->count; i++)
    *slot_of(recall, recall->at[i].key, strlen(recall->at[i].key)) = i + 1;
}

livenps_recall_record *livenps_recall_find(livenps_recall *recall, const char *key) {
  const size_t *slot = recall->count ? slot_of(recall, key, strlen(key)) : NULL;
  return slot && *slot ? &recall->at[*slot - 1] : NULL;
}

static bool begins(const char *text, const char *with) {
  return !strncmp(text, with, strlen(with));
}

void livenps_recall_note(livenps_recall *recall, livenps_text key, int64_t offset, livenps_text value) {
  static livenps_limit limit = {.interval_ms = 10000};
  /* Not ours: nobody of us writes such a key, and nobody of us removes it. */
  if (!key.at || key.length > 399 || memchr(key.at, '\0', key.length))
    return;
  char name[400];
  snprintf(name, sizeof name, "%.*s", (int)key.length, key.at);
  if (!begins(name, "manifest/") && !begins(name, "chunk/"))
    return;
  livenps_recall_record *record = livenps_recall_find(recall, name);
  if (!record) {
    if (!recall->at || recall->count == recall->capacity)
      grow(recall);
    record = &recall->at[recall->count++];
    *record = (livenps_recall_record){.key = livenps_copy(name, key.length)};
    *slot_of(recall, name, key.length) = recall->count;
  }
  record->offset = offset;
  record->size = value.length;
  record->gone = !value.at;
  if (!begins(name, "manifest/"))
    return;
  if (record->manifest)
    livenps_manifest_free(record->manifest);
  free(record->manifest);
  record->manifest = NULL;
  if (!value.at)
    return;
  livenps_error error = {0};
  livenps_manifest *manifest = livenps_alloc(sizeof *manifest);
  if (!livenps_manifest_decode(manifest, value.at, value.length, &error)) {
    record->manifest = manifest;
    return;
  }
  free(manifest);
  char printable[400];
  livenps_log_limited(&limit, LIVENPS_WARN, "keep", "record %s at offset %" PRId64 " is left aside: %s",
                      livenps_printable(printable, sizeof printable, name, key.length), offset, error.text);
}

const char *livenps_recall_piece(char out[400], const char *tenure, const char *id, size_t piece) {
  snprintf(out, 400, "chunk/%.16s/%.300s/%zu", tenure, id, piece);
  return out;
}

static size_t piece_size(const livenps_manifest_chunk *chunk, size_t piece) {
  const size_t left = chunk->size - piece * LIVENPS_PIECE_BYTES;
  return left < LIVENPS_PIECE_BYTES ? left : LIVENPS_PIECE_BYTES;
}

static size_t pieces_of(const livenps_manifest_chunk *chunk) {
  return (chunk->size + LIVENPS_PIECE_BYTES - 1) / LIVENPS_PIECE_BYTES;
}

bool livenps_recall_complete(livenps_recall *recall, const livenps_manifest *manifest) {
  char key[400];
  for (size_t i = 0; i < manifest->chunk_count; i++)
    for (size_t p = 0; p < pieces_of(&manifest->chunks[i]); p++) {
      const livenps_recall_record *piece =
          livenps_recall_find(recall, livenps_recall_piece(key, manifest->tenure, manifest->chunks[i].id, p));
      if (!piece || piece->gone || piece->size != piece_size(&manifest->chunks[i], p))
        return false;
    }
  return true;
}

/* -- reading the topic -------------------------------------------------------------------------------------------- */

struct livenps_recaller {
  rd_kafka_t *rk;
  char topic[250];
  int64_t low, high;
};

static int beat_once(const livenps_beat *beat, livenps_error *error) {
  livenps_pulse();
  if (livenps_stop)
    return livenps_fail(error, LIVENPS_E_LOST, "stopped while snapshots were read from Kafka");
  return beat && beat->at ? beat->at(beat->opaque, error) : 0;
}

/* most: bytes of one partition in one answer; a broker gives at least one batch. */
static int open_handle(rd_kafka_t **out, const livenps_settings *settings, const char *most,
                       livenps_error *error) {
  const char *const config[] = {
      "isolation.level", "read_uncommitted", "check.crcs", "true", "max.partition.fetch.bytes", most, NULL};
  return livenps_kafka_open_groupless(out, settings, config, error);
}

int livenps_recaller_open(livenps_recaller **out, const livenps_settings *settings, const char *topic,
                          bool *found, const livenps_beat *beat, livenps_error *error) {
  livenps_recaller *recaller = livenps_alloc(sizeof *recaller);
  const int64_t until = livenps_monotonic_ms() + PATIENCE_MS;
  livenps_error trouble = {0};
  snprintf(recaller->topic, sizeof recaller->topic, "%s", topic);
  if (open_handle(&recaller->rk, settings, "1048576", error))
    goto failed;
  for (;;) {
    livenps_error_clear(&trouble);
    if (beat_once(beat, error))
      goto failed;
    const int partitions = livenps_kafka_partitions(recaller->rk, topic, ASK_MS, &trouble);
    if (partitions == 0) {
      *found = false;
      livenps_recaller_close(recaller);
      return 0;
    }
    const rd_kafka_resp_err_t code =
        partitions < 0 ? RD_KAFKA_RESP_ERR__TIMED_OUT
                       : rd_kafka_query_watermark_offsets(recaller->rk, topic, 0, &recaller->low,
                                                          &recaller->high, ASK_MS);
    if (partitions > 0 && !code)
      break;
    if (partitions > 0)
      livenps_fail(&trouble, LIVENPS_E_LOST, "kafka: bounds of %s: %s", topic, rd_kafka_err2str(code));
    if (livenps_monotonic_ms() > until) {
      livenps_fail(error, LIVENPS_E_LOST, "%s", trouble.text);
      goto failed;
    }
  }
  *found = true;
  *out = recaller;
  return 0;

failed:
  livenps_recaller_close(recaller);
  return -1;
}

void livenps_recaller_close(livenps_recaller *recaller) {
  if (!recaller)
    return;
  if (recaller->rk)
    rd_kafka_destroy(recaller->rk);
  free(recaller);
}

typedef int (*record_visitor)(void *opaque, const rd_kafka_message_t *message, livenps_error *error);

/* Visits every record from an offset to the end that was fixed at the opening; 1 from visit ends it before. */
static int read_from(livenps_recaller *recaller, int64_t from, record_visitor visit, void *opaque,
                     const livenps_beat *beat, livenps_error *error) {
  if (from >= recaller->high)
    return 0;
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
  rd_kafka_topic_partition_list_add(list, recaller->topic, 0)->offset = from;
  const rd_kafka_resp_err_t code = rd_kafka_assign(recaller->rk, list);
  rd_kafka_topic_partition_list_destroy(list);
  int result = code ? livenps_fail(error, LIVENPS_E_LOST, "kafka: reading %s: %s", recaller->topic,
                                   rd_kafka_err2str(code))
                    : 0;
  int64_t heard_ms = livenps_monotonic_ms(), beaten_ms = 0;
  bool done = false;
  while (!result && !done) {
    rd_kafka_message_t *message = rd_kafka_consumer_poll(recaller->rk, POLL_MS);
    const int64_t now_ms = livenps_monotonic_ms();
    if (message && !message->err) {
      heard_ms = now_ms;
      result = visit(opaque, message, error);
      done = result > 0 || message->offset + 1 >= recaller->high;
      result = result > 0 ? 0 : result;
    } else if (message && message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
      done = message->offset >= recaller->high;
    } else if (message && message->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET) {
      result =
          livenps_fail(error, LIVENPS_E_LOST, "kafka: %s lost records while it was read", recaller->topic);
    }
    if (message)
      rd_kafka_message_destroy(message);
    if (!result && now_ms - beaten_ms >= POLL_MS) {
      beaten_ms = now_ms;
      result = beat_once(beat, error);
    }
    if (!result && !done && now_ms - heard_ms > PATIENCE_MS)
      result =
          livenps_fail(error, LIVENPS_E_LOST, "kafka: %s: no record for %d s, and its end is not reached",
                       recaller->topic, PATIENCE_MS / 1000);
  }
  rd_kafka_assign(recaller->rk, NULL);
  return result;
}

static int note(void *opaque, const rd_kafka_message_t *message, livenps_error *error) {
  (void)error;
  livenps_recall_note(opaque, (livenps_text){message->key, message->key_len}, message->offset,
                      (livenps_text){message->payload, message->len});
  return 0;
}

int livenps_recaller_list(livenps_recaller *recaller, livenps_recall *recall, const livenps_beat *beat,
                          livenps_error *error) {
  livenps_recall_free(recall);
  return read_from(recaller, recaller->low, note, recall, beat, error);
}

/* -- one snapshot ------------------------------------------------------------------------------------------------- */

typedef struct {
  const livenps_manifest_chunk *chunk;
  char *bytes; /* NULL before its first piece and after its last */
  size_t missing;
} assembly;

/* Where a record belongs: sorted by offset, as they come. */
typedef struct {
  int64_t offset;
  size_t chunk, piece;
} place;

typedef struct {
  livenps_state *state;
  assembly *chunks;
  place *places;
  size_t count, next;
} loading;

static int by_offset(const void *a, const void *b) {
  const place *x = a, *y = b;
  return (x->offset > y->offset) - (x->offset < y->offset);
}

static int take_piece(void *opaque, const rd_kafka_message_t *message, livenps_error *error) {
  loading *self = opaque;
  while (self->next < self->count && self->places[self->next].offset < message->offset)
    self->next++;
  if (self->next == self->count || self->places[self->next].offset != message->offset)
    return 0;
  const place *at = &self->places[self->next];
  assembly *whole = &self->chunks[at->chunk];
  if (message->len != piece_size(whole->chunk, at->piece))
    return livenps_fail(error, LIVENPS_E_DATA, "a piece of chunk %s has another length", whole->chunk->name);
  if (!whole->bytes)
    whole->bytes = livenps_alloc(whole->chunk->size);
  memcpy(whole->bytes + at->piece * LIVENPS_PIECE_BYTES, message->payload, message->len);
  const int last = self->next + 1 == self->count;
  if (--whole->missing)
    return last;
  char sum[65];
  livenps_sha256_hex(whole->bytes, whole->chunk->size, sum);
  const int result =
      strcmp(sum, whole->chunk->sha256)
          ? livenps_fail(error, LIVENPS_E_DATA, "chunk %s does not have its sum", whole->chunk->name)
          : livenps_state_load(self->state, whole->bytes, whole->chunk->size, error);
  free(whole->bytes);
  whole->bytes = NULL;
  return result ? result : last;
}

int livenps_recaller_load(livenps_recaller *recaller, livenps_recall *recall,
                          const livenps_manifest *manifest, livenps_state *state, const livenps_beat *beat,
                          livenps_error *error) {
  loading self = {.state = state};
  size_t capacity = 0;
  int result = -1;
  self.chunks = livenps_alloc((manifest->chunk_count + 1) * sizeof *self.chunks);
  for (size_t i = 0; i < manifest->chunk_count; i++) {
    const livenps_manifest_chunk *chunk = &manifest->chunks[i];
    self.chunks[i] = (assembly){.chunk = chunk, .missing = pieces_of(chunk)};
    for (size_t p = 0; p < pieces_of(chunk); p++) {
      char key[400];
      const livenps_recall_record *piece =
          livenps_recall_find(recall, livenps_recall_piece(key, manifest->tenure, chunk->id, p));
      if (!piece || piece->gone) {
        livenps_fail(error, LIVENPS_E_DATA, "chunk %s is not there", chunk->name);
        goto done;
      }
      if (self.count == capacity) {
        capacity = capacity ? capacity * 2 : 64;
        self.places = livenps_resize(self.places, capacity * sizeof *self.places);
      }
      self.places[self.count++] = (place){piece->offset, i, p};
    }
  }
  if (!self.count) {
    livenps_fail(error, LIVENPS_E_DATA, "no chunks");
    goto done;
  }
  qsort(self.places, self.count, sizeof *self.places, by_offset);
  if (read_from(recaller, self.places[0].offset, take_piece, &self, beat, error))
    goto done;
  for (size_t i = 0; i < manifest->chunk_count; i++)
    if (self.chunks[i].missing) {
      livenps_fail(error, LIVENPS_E_DATA, "chunk %s is not there any more", manifest->chunks[i].name);
      goto done;
    }
  result = livenps_state_load_finish(state, error);
done:
  for (size_t i = 0; i < manifest->chunk_count; i++)
    free(self.chunks[i].bytes);
  free(self.chunks);
  free(self.places);
  return result;
}

/* -- anchors ------------------------------------------------------------------------------------------------------ */

/* The anchor that the topic may still have; NULL: none. */
static const livenps_anchor *anchor_of(const livenps_position *position, const livenps_beginning *now) {
  const livenps_anchor *const anchors[] = {&position->anchor, &position->root};
  for (size_t i = 0; i < 2; i++)
    if (anchors[i]->there && anchors[i]->offset >= now->first && anchors[i]->offset < now->end)
      return anchors[i];
  return NULL;
}

typedef struct {
  const livenps_manifest_partition *partition;
  const livenps_anchor *anchor; /* NULL: answered */
} question;

/* The records to read again, and where they are. */
static size_t ask(const livenps_manifest *manifest, const livenps_beginning *now, size_t count,
                  question *questions, rd_kafka_topic_partition_list_t *list) {
  size_t asked = 0;
  for (size_t i = 0; i < manifest->partition_count; i++) {
    const livenps_manifest_partition *each = &manifest->partitions[i];
    for (size_t k = 0; k < count; k++) {
      const livenps_anchor *anchor = now[k].partition == each->partition && !strcmp(now[k].topic, each->topic)
                                         ? anchor_of(&each->position, &now[k])
                                         : NULL;
      if (!anchor)
        continue;
      questions[asked++] = (question){each, anchor};
      rd_kafka_topic_partition_list_add(list, each->topic, each->partition)->offset = anchor->offset;
      break;
    }
  }
  return asked;
}

/* True when the message answers a question; *same false: with another record. */
static bool answers(question *questions, size_t count, const rd_kafka_message_t *message, bool *same,
                    char why[256]) {
  for (size_t i = 0; message->rkt && i < count; i++) {
    question *each = &questions[i];
    if (!each->anchor || each->partition->partition != message->partition ||
        strcmp(each->partition->topic, rd_kafka_topic_name(message->rkt)))
      continue;
    const bool nothing = message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF ||
                         message->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET;
    if (message->err && !nothing)
      return false;
    if (!message->err && message->offset == each->anchor->offset) {
      rd_kafka_timestamp_type_t type;
      const livenps_anchor found = livenps_anchor_of(
          message->offset, rd_kafka_message_timestamp(message, &type),
          (livenps_text){message->key, message->key_len}, (livenps_text){message->payload, message->len});
      if (!livenps_anchor_same(&found, each->anchor)) {
        *same = false;
        snprintf(why, 256, "offset %" PRId64 " of %.150s/%" PRId32 " is another record now", message->offset,
                 each->partition->topic, message->partition);
      }
    }
    each->anchor = NULL;
    return true;
  }
  return false;
}

int livenps_recall_anchors(const livenps_settings *settings, const livenps_manifest *manifest,
                           const livenps_beginning *now, size_t count, const livenps_beat *beat, bool *same,
                           char why[256], livenps_error *error) {
  rd_kafka_t *rk = NULL;
  rd_kafka_topic_partition_list_t *list =
      rd_kafka_topic_partition_list_new((int)manifest->partition_count + 1);
  question *questions = livenps_alloc((manifest->partition_count + 1) * sizeof *questions);
  const size_t asked = ask(manifest, now, count, questions, list);
  size_t left = asked;
  int result = 0;
  *same = true;
  if (left && open_handle(&rk, settings, "1024", error))
    result = -1;
  if (rk && rd_kafka_assign(rk, list))
    result =
        livenps_fail(error, LIVENPS_E_LOST, "kafka: the records at the snapshot's positions cannot be read");
  int64_t heard_ms = livenps_monotonic_ms();
  while (!result && left && *same) {
    rd_kafka_message_t *message = rd_kafka_consumer_poll(rk, POLL_MS);
    if (message && answers(questions, asked, message, same, why)) {
      left--;
      heard_ms = livenps_monotonic_ms();
    }
    if (message)
      rd_kafka_message_destroy(message);
    result = beat_once(beat, error);
    if (!result && livenps_monotonic_ms() - heard_ms > PATIENCE_MS)
      result = livenps_fail(error, LIVENPS_E_LOST,
                            "kafka: %zu partitions do not answer what is at the snapshot's positions", left);
  }
  if (rk) {
    rd_kafka_assign(rk, NULL);
    rd_kafka_destroy(rk);
  }
  rd_kafka_topic_partition_list_destroy(list);
  free(questions);
  return result;
}
