#include "../common/clock.h"
#include "../common/kafka.h"
#include "../common/log.h"
#include "../common/rules.h"
#include "../common/stop.h"
#include "commands.h"
#include "probe.h"
#include "progress.h"
#include "recount.h"
#include "scripts.h"
#include "state.h"
#include "watch.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Proves a namespace: one picture of it (snapshot, log and positions that belong together) is folded as the aggregator folds it, the
 * topic is read again up to those positions and counted by recount.c, and all of it is compared. What it keeps:
 * 1. Nothing is disturbed: no key is written, no lease taken, no group joined, nothing committed.
 * 2. What is not compared is said, and is never reported as equal. */

enum {
  STEP = 64,                  /* log entries of one call */
  CHUNKS = 64,                /* of the snapshot, in one call ... */
  CHUNKS_BYTES = 1024 * 1024, /* ... that ends with the one that passes this */
  PICTURES = 50,              /* the aggregator may replace the snapshot while it is read */
  PICTURE_MS = 100,           /* between two tries */
  QUIET_MS = 30000,           /* nothing came for so long: is what is left readable? */
  HEADERS_MAX = 20000         /* of a record, as live */
};

/* What is read of one partition, and what came of it. */
typedef struct {
  const livenps_partition *line; /* of the picture's ledger */
  const livenps_mapping *mapping;
  int64_t low, high;       /* the topic's first offset, and the one behind its last */
  int64_t from, next, end; /* the first read, next to read, the position */
  bool lost;               /* not all that was counted can be read again ... */
  bool damaged;            /* ... because of the unreadable ones */
  bool done;
  int64_t delivered;
  int64_t unreadable; /* offsets whose records Kafka hands out and nobody can read */
  int64_t behind_ms;  /* events before may be among those; INT64_MAX: until the next record says it */
  int64_t since_ms;   /* events before may have been lost; 0: none were */
  livenps_tally tally;
} part;

typedef struct {
  const livenps_settings *settings;
  const livenps_verify_options *options;
  livenps_rules rules;
  livenps_window *windows;
  livenps_rollup *rollups;
  livenps_redis *redis;
  livenps_keys keys;
  livenps_state *state;
  livenps_stored stored;
  livenps_positions positions;
  livenps_entry_id last; /* folded */
  livenps_watch *watch;
  livenps_recount *recount;
  part *parts;
  size_t part_count;
  size_t left;   /* partitions that are not read to their position yet */
  part *suspect; /* the probe's, or the next one's: its records may not be readable */
  livenps_probe *probe;
  int64_t since_ms; /* the latest of the parts */
  uint64_t records;
  livenps_progress progress;
  /* the verdict */
  char first[600];
  size_t differences, compared, unverified;
} verify;

__attribute__((format(printf, 2, 3))) static void differ(verify *self, const char *format, ...) {
  if (self->differences++)
    return;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(self->first, sizeof self->first, format, arguments);
  va_end(arguments);
}

/* -- the picture ---------------------------------------------------------------------------------------------------- */

/* One reply's chunks. */
static int load_some(verify *self, const char **keys, const size_t *sizes, size_t count,
                     livenps_error *error) {
  livenps_reply *reply = livenps_redis_command(self->redis, error, (int)count + 1, keys, NULL);
  int result = reply ? 0 : -1;
  for (size_t i = 0; i < count && !result; i++) {
    livenps_text bytes;
    const bool sound = livenps_reply_text(livenps_reply_item(reply, i), &bytes) && bytes.length == sizes[i];
    result = sound ? livenps_state_load(self->state, bytes.at, bytes.length, error)
                   : livenps_fail(error, LIVENPS_E_DATA,
                                  "it is missing, or of another length than the pointer says");
    if (result)
      livenps_fail_prefix(error, "chunk %s of the snapshot", keys[i + 1]);
  }
  livenps_reply_free(reply);
  return result;
}

/* Many small chunks in one call, because each call is a chance that the aggregator has replaced one; but no large call. */
static int load_chunks(verify *self, livenps_error *error) {
  char names[CHUNKS][400];
  const char *keys[CHUNKS + 1] = {"MGET"};
  size_t sizes[CHUNKS], count = 0, bytes = 0;
  livenps_state_open(&self->state, self->settings);
  for (const char *line = self->stored.chunks; *line;) {
    const char *end = strchr(line, '\n');
    if (!end || sscanf(line, "%*s %399s %zu", names[count], &sizes[count]) != 2)
      return livenps_fail(error, LIVENPS_E_DATA,
                          "the snapshot's list of chunks is not what this program writes");
    line = end + 1;
    keys[count + 1] = names[count];
    bytes += sizes[count++];
    if (count < CHUNKS && bytes < CHUNKS_BYTES && *line)
      continue;
    if (load_some(self, keys, sizes, count, error))
      return -1;
    count = bytes = 0;
  }
  return livenps_state_load_finish(self->state, error);
}

static bool same_entry(const livenps_entry_id *a, const livenps_entry_id *b) {
  return !strcmp(a->id, b->id) && !strcmp(a->nonce, b->nonce);
}

static int fold_entry(verify *self, const livenps_logged *logged, livenps_error *error) {
  livenps_entry entry = {0};
  if (!same_entry(&logged->before, &self->last) ||
      !livenps_text_equal(logged->lineage, livenps_text_of(self->stored.lineage)))
    return livenps_fail(error, LIVENPS_E_DATA,
                        "log entry %s names %s as its predecessor, but %s stands there", logged->id.id,
                        logged->before.id, self->last.id);
  int result = livenps_entry_decode(&entry, logged->payload.at, logged->payload.length, error);
  if (!result) {
    if (!self->rules.admission.replay)
      livenps_state_advance(self->state, logged->ms);
    result = livenps_state_fold(self->state, &entry, logged->ms, error);
  }
  livenps_entry_free(&entry);
  self->last = logged->id;
  return result ? livenps_fail_prefix(error, "log entry %s", logged->id.id) : 0;
}

static int fold_log(verify *self, livenps_error *error) {
  self->last = self->stored.covered;
  while (!same_entry(&self->last, &self->positions.head)) {
    livenps_reading reading;
    if (livenps_log_read(self->redis, &self->keys, self->last.id, self->positions.head.id, STEP, &reading,
                         error))
      return -1;
    int result = 0;
    if (!reading.count)
      result = livenps_fail(error, LIVENPS_E_DATA, "the log ends at %s, but its head is said to be %s",
                            self->last.id, self->positions.head.id);
    for (size_t i = 0; i < reading.count && !result; i++)
      result = fold_entry(self, &reading.at[i], error);
    livenps_reading_free(&reading);
    if (result)
      return -1;
  }
  return 0;
}

static void forget(verify *self) {
  livenps_state_free(self->state);
  livenps_positions_free(&self->positions);
  free(self->stored.chunks);
  self->state = NULL;
  self->stored = (livenps_stored){0};
}

static int one_picture(verify *self, livenps_error *error) {
  if (livenps_script_look(self->redis, &self->keys, &self->stored, error))
    return -1;
  const livenps_stored *stored = &self->stored;
  if (!stored->present)
    return livenps_fail(error, LIVENPS_E_REFUSED, "nothing is stored in namespace %s",
                        self->settings->namespace_);
  if (stored->version != LIVENPS_FORMAT_VERSION)
    return livenps_fail(error, LIVENPS_E_REFUSED,
                        "%s: written in format version %" PRId64
                        ", this program reads %d: use the program that wrote it",
                        self->keys.meta, stored->version, LIVENPS_FORMAT_VERSION);
  if (strcmp(stored->admit, self->rules.hash) != 0)
    return livenps_fail(
        error, LIVENPS_E_REFUSED,
        "namespace %s counts by other rules (admit hash %s stored, %s here: mapping, admit.*, --from, "
        "--to or the program's version differ): verify it with the settings that wrote it",
        self->settings->namespace_, stored->admit, self->rules.hash);
  if (!stored->covered.id[0])
    return livenps_fail(error, LIVENPS_E_DATA, "there is no snapshot");
  if (!stored->covered_exists)
    return livenps_fail(error, LIVENPS_E_DATA,
                        "the log no longer holds the entry %s that the snapshot covers", stored->covered.id);
  if (load_chunks(self, error) || livenps_script_positions(self->redis, &self->keys, &self->positions, error))
    return -1;
  if (strcmp(self->positions.lineage, stored->lineage) != 0)
    return livenps_fail(error, LIVENPS_E_DATA, "the namespace was begun anew while it was read");
  return fold_log(self, error);
}

/* The snapshot may be replaced and the log trimmed between two calls. So what does not fit is looked at again, and is a fault only
 * when the pointer has stayed the same. */
static int take_picture(verify *self, livenps_error *error) {
  for (int attempt = 0;; attempt++) {
    livenps_stored now = {0};
    if (!one_picture(self, error))
      break;
    if (error->code != LIVENPS_E_DATA || attempt == PICTURES || livenps_stop)
      return -1;
    livenps_error ignored = {0};
    if (livenps_script_look(self->redis, &self->keys, &now, &ignored) == 0) {
      const bool moved = !same_entry(&now.covered, &self->stored.covered) ||
                         strcmp(now.lineage, self->stored.lineage) != 0 || !now.present;
      free(now.chunks);
      if (!moved)
        return -1;
    }
    forget(self);
    livenps_error_clear(error);
    nanosleep(&(struct timespec){0, PICTURE_MS * 1000000L}, NULL);
  }
  int64_t clock_ms = self->positions.redis_ms;
  if (self->rules.admission.replay) {
    clock_ms = livenps_state_entry_clock(self->state);
    clock_ms = clock_ms < self->options->to_ms ? clock_ms : self->options->to_ms;
  }
  if (clock_ms != LIVENPS_NO_CLOCK)
    livenps_state_advance(self->state, clock_ms);
  return 0;
}

/* -- what can be read again ------------------------------------------------------------------------------------------- */

static size_t topic_of(const verify *self, const char *topic) {
  size_t t = 0;
  while (t < self->settings->topics.count && strcmp(self->settings->topics.at[t], topic) != 0)
    t++;
  return t;
}

static int find_parts(verify *self, livenps_error *error) {
  const livenps_partition *ledger = livenps_state_partitions(self->state, &self->part_count);
  self->parts = livenps_alloc((self->part_count + 1) * sizeof *self->parts);
  for (size_t i = 0; i < self->part_count; i++) {
    const livenps_partition *line = &ledger[i];
    const size_t topic = topic_of(self, line->topic);
    if (topic == self->settings->topics.count)
      return livenps_fail(error, LIVENPS_E_USAGE,
                          "namespace %s counts topic %s too: name all of its topics, --topic %s,%s",
                          self->settings->namespace_, line->topic, self->options->topic, line->topic);
    part *part_ = &self->parts[i];
    *part_ = (part){.line = line, .mapping = self->rules.mappings[topic], .end = line->position.next};
    if (livenps_watch_bounds(self->watch, line->topic, line->partition, false, &part_->low, &part_->high,
                             error))
      return -1;
    if (part_->high < line->position.next) {
      differ(self,
             "%s/%" PRId32 ": the position is %" PRId64 ", but the topic ends at %" PRId64
             ": it was made anew, or lost records",
             line->topic, line->partition, line->position.next, part_->high);
      part_->end = part_->high;
      part_->lost = true;
    }
    /* After a restart the offsets are those of another topic of that name, which was read from its start. */
    const bool restarted = line->position.incarnation > 1;
    part_->from = restarted || part_->low > line->start ? part_->low : line->start;
    part_->from = part_->from < part_->end ? part_->from : part_->end;
    part_->next = part_->from;
    part_->done = part_->next >= part_->end;
    if (restarted || line->gap != 0 || part_->low > line->start) {
      part_->lost = true;
      part_->since_ms = restarted || line->gap ? line->covered_since_ms : 0;
      /* Until its first record says since when it is whole. */
      if (part_->low > 0)
        part_->since_ms = INT64_MAX;
    }
  }
  return 0;
}

/* -- reading ---------------------------------------------------------------------------------------------------------- */

/* Every partition that is not read yet, from where it is. Another assignment instead of a seek, so that nothing of the last one comes. */
static int assign(verify *self, rd_kafka_t *rk, livenps_error *error) {
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)self->part_count + 1);
  for (size_t i = 0; i < self->part_count; i++)
    if (!self->parts[i].done)
      rd_kafka_topic_partition_list_add(list, self->parts[i].line->topic, self->parts[i].line->partition)
          ->offset = self->parts[i].next;
  rd_kafka_assign(rk, NULL);
  const rd_kafka_resp_err_t code = rd_kafka_assign(rk, list);
  rd_kafka_topic_partition_list_destroy(list);
  return code ? livenps_fail(error, LIVENPS_E_LOST, "kafka: assign: %s", rd_kafka_err2str(code)) : 0;
}

static part *part_of(const verify *self, const char *topic, int32_t partition) {
  for (size_t i = 0; i < self->part_count; i++)
    if (self->parts[i].line->partition == partition && !strcmp(self->parts[i].line->topic, topic))
      return &self->parts[i];
  return NULL;
}

static void take_record(verify *self, part *of, const rd_kafka_message_t *message, livenps_header *headers) {
  rd_kafka_timestamp_type_t type;
  livenps_record record = {.key = {message->key, message->key_len},
                           .value = {message->payload, message->len},
                           .headers = headers,
                           .timestamp_ms = rd_kafka_message_timestamp(message, &type)};
  rd_kafka_headers_t *found;
  const char *name;
  const void *value;
  size_t size;
  if (type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE)
    record.timestamp_ms = -1;
  if (!rd_kafka_message_headers(message, &found))
    while (record.header_count < HEADERS_MAX &&
           !rd_kafka_header_get_all(found, record.header_count, &name, &value, &size))
      headers[record.header_count++] = (livenps_header){livenps_text_of(name), {value, size}};
  const bool timed = record.timestamp_ms >= 0 && record.timestamp_ms < INT64_MAX / 4;
  /* As the reader says it: what was lost lay before this record. */
  if (of->behind_ms == INT64_MAX && timed)
    of->behind_ms = record.timestamp_ms + self->settings->admit_future_ms;
  if (of->since_ms == INT64_MAX && timed) {
    of->since_ms = record.timestamp_ms + self->settings->admit_future_ms;
    if ((of->line->gap || of->line->position.incarnation > 1) && of->line->covered_since_ms > of->since_ms)
      of->since_ms = of->line->covered_since_ms;
  }
  const livenps_anchor here =
      livenps_anchor_of(message->offset, record.timestamp_ms, record.key, record.value);
  const livenps_anchor *const anchors[] = {&of->line->position.anchor, &of->line->position.root};
  for (size_t i = 0; i < 2; i++)
    if (anchors[i]->there && anchors[i]->offset == message->offset && !livenps_anchor_same(anchors[i], &here))
      differ(self,
             "%s/%" PRId32 ": the record at offset %" PRId64
             " is not the one that was counted: the topic was made anew",
             of->line->topic, of->line->partition, message->offset);
  of->next = message->offset + 1;
  of->delivered++;
  self->records++;
  livenps_recount_record(self->recount, of->mapping, &record, &of->tally);
}

/* 0, or -1 when the reading cannot go on. */
static int on_message(verify *self, const rd_kafka_message_t *message, livenps_header *headers,
                      livenps_error *error) {
  part *of = message->rkt ? part_of(self, rd_kafka_topic_name(message->rkt), message->partition) : NULL;
  if (!of || of->done)
    return 0;
  if (!message->err) {
    if (message->offset < of->end && message->offset >= of->next)
      take_record(self, of, message, headers);
    of->done = message->offset + 1 >= of->end;
  } else if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
    of->done = message->offset >= of->end;
  } else if (message->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET ||
             message->err == RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE) {
    return livenps_fail(error, LIVENPS_E_LOST,
                        "kafka: %s/%" PRId32 ": offset %" PRId64
                        " was removed while it was read (retention): try again",
                        of->line->topic, of->line->partition, of->next);
  } else {
    static livenps_limit limit = {.interval_ms = 10000};
    if (livenps_probe_unreadable(message->err)) {
      /* The error names the first offset of its batch; before it nothing else came. */
      of->next = message->offset > of->next ? message->offset : of->next;
      of->done = of->next >= of->end;
      self->suspect = self->suspect || of->done ? self->suspect : of;
    }
    livenps_log_limited(&limit, LIVENPS_WARN, "verify", "%s/%" PRId32 ": %s", of->line->topic,
                        of->line->partition, rd_kafka_err2str(message->err));
  }
  self->left -= of->done;
  return 0;
}

/* A partition that says that its records cannot be read, or one of those that are left when nothing comes at all, is examined as live
 * does it: what nobody can read is left out. Whether it was counted once is seen when holes are compared. */
static int examine(verify *self, rd_kafka_t *rk, livenps_error *error) {
  part *of = self->suspect;
  if (!self->probe)
    return livenps_probe_open(&self->probe, self->settings, of->line->topic, of->line->partition, of->next,
                              of->high, error);
  int64_t behind;
  const char *reason;
  const livenps_hunt_state state = livenps_probe_step(self->probe, &behind, &reason);
  if (state == LIVENPS_HUNT_ON)
    return 0;
  if (state == LIVENPS_HUNT_UNREADABLE &&
      livenps_probe_is_of(self->probe, of->line->topic, of->line->partition, of->next)) {
    livenps_log(LIVENPS_WARN, "verify",
                "%s/%" PRId32 ": offsets %" PRId64 " to %" PRId64 " cannot be read (%s)", of->line->topic,
                of->line->partition, of->next, behind - 1, reason);
    behind = behind < of->end ? behind : of->end;
    of->unreadable += behind - of->next;
    of->next = behind;
    of->behind_ms = INT64_MAX;
    of->done = behind >= of->end;
    self->left -= of->done;
  }
  livenps_probe_close(self->probe);
  self->probe = NULL;
  self->suspect = NULL;
  return assign(self, rk, error);
}

/* In turn: one of them may wait for something else. */
static part *next_left(const verify *self, const part *after) {
  const size_t first = after ? (size_t)(after - self->parts) + 1 : 0;
  for (size_t i = 0; i < self->part_count; i++) {
    part *of = &self->parts[(first + i) % self->part_count];
    if (!of->done)
      return of;
  }
  return NULL;
}

static void show_progress(verify *self, int64_t offsets) {
  int64_t to_go = 0;
  for (size_t i = 0; i < self->part_count; i++)
    to_go += self->parts[i].done ? 0 : self->parts[i].end - self->parts[i].next;
  livenps_progress_show(&self->progress, 1.0 - (double)to_go / (double)offsets, self->records, INT64_MIN,
                        self->left == 0);
}

static int read_topic(verify *self, livenps_error *error) {
  rd_kafka_t *rk = NULL;
  int64_t offsets = 0;
  for (size_t i = 0; i < self->part_count; i++) {
    self->left += !self->parts[i].done;
    offsets += self->parts[i].end - self->parts[i].from;
  }
  if (!self->left)
    return 0;
  if (livenps_kafka_open_groupless(&rk, self->settings, NULL, error))
    return -1;
  livenps_header *headers = livenps_alloc(HEADERS_MAX * sizeof *headers);
  const part *quiet = NULL; /* examined last, because nothing came */
  int64_t came_ms = livenps_monotonic_ms();
  int result = assign(self, rk, error);
  livenps_progress_start(&self->progress, "verify");
  while (self->left && !result && !livenps_stop) {
    rd_kafka_message_t *message = rd_kafka_consumer_poll(rk, self->probe ? 5 : 100);
    if (message) {
      result = on_message(self, message, headers, error);
      rd_kafka_message_destroy(message);
      came_ms = livenps_monotonic_ms();
    } else if (!self->suspect && livenps_monotonic_ms() - came_ms >= QUIET_MS) {
      quiet = self->suspect = next_left(self, quiet);
      came_ms = livenps_monotonic_ms();
    }
    if (self->suspect && self->left && !result)
      result = examine(self, rk, error);
    if (!message || !self->left || self->records % 1024 == 0)
      show_progress(self, offsets);
  }
  free(headers);
  livenps_probe_close(self->probe);
  rd_kafka_assign(rk, NULL);
  rd_kafka_destroy(rk);
  if (!result && self->left)
    return livenps_fail(error, LIVENPS_E_LOST, "stopped after %" PRIu64 " records", self->records);
  return result;
}

/* Live left out as many, or it could still read them: then they are lost, as what retention removed. */
static void settle(part *of) {
  if (!of->unreadable || of->line->holes >= of->end - of->from - of->delivered)
    return;
  of->lost = of->damaged = true;
  if (of->since_ms < of->behind_ms)
    of->since_ms = of->behind_ms;
}

/* -- comparing -------------------------------------------------------------------------------------------------------- */

static void compare_positions(verify *self) {
  for (size_t i = 0; i < self->part_count; i++) {
    const livenps_partition *line = self->parts[i].line;
    char field[300];
    const livenps_standing *found = NULL;
    char folded[LIVENPS_POSITION_MAX], stored[LIVENPS_POSITION_MAX] = "none";
    snprintf(field, sizeof field, "%s/%" PRId32, line->topic, line->partition);
    for (size_t p = 0; p < self->positions.count && !found; p++)
      if (livenps_text_equal(self->positions.at[p].field, livenps_text_of(field)))
        found = &self->positions.at[p];
    livenps_position_print(&line->position, folded);
    if (found)
      livenps_position_print(&found->position, stored);
    self->compared++;
    if (strcmp(folded, stored) != 0)
      differ(self, "%s: snapshot and log lead to position %s, stored is %s", field, folded, stored);
  }
  if (self->positions.count > self->part_count)
    differ(self, "%zu positions are stored, snapshot and log know %zu partitions", self->positions.count,
           self->part_count);
}

static void compare_count(verify *self, const part *of, const char *what, int64_t stored, int64_t counted) {
  self->compared++;
  if (of->lost ? counted > stored : counted != stored)
    differ(self, "%s/%" PRId32 ": %s: %" PRId64 " in the namespace, %" PRId64 " in the topic%s",
           of->line->topic, of->line->partition, what, stored, counted,
           of->lost ? " (of what it still has)" : "");
}

static void compare_fates(verify *self, const part *of) {
  const livenps_partition *line = of->line;
  int64_t sum = line->accepted + line->late + line->duplicate + line->out_of_range + line->holes + line->gap;
  char what[64];
  for (int r = 0; r < LIVENPS_REASONS; r++)
    sum += line->rejected[r];
  if (sum != line->position.next - line->start)
    differ(self, "%s/%" PRId32 ": %" PRId64 " offsets were read, but what became of them adds up to %" PRId64,
           line->topic, line->partition, line->position.next - line->start, sum);
  compare_count(self, of, "accepted", line->accepted, of->tally.accepted);
  compare_count(self, of, "late", line->late, of->tally.late);
  compare_count(self, of, "out of range", line->out_of_range, of->tally.out_of_range);
  compare_count(self, of, "duplicate", line->duplicate, 0);
  compare_count(self, of, "holes", line->holes,
                of->end - of->from - of->delivered - (of->damaged ? of->unreadable : 0));
  for (int r = 0; r < LIVENPS_REASONS; r++) {
    snprintf(what, sizeof what, "rejected as %s", livenps_reason_name((livenps_reason)r));
    compare_count(self, of, what, line->rejected[r], of->tally.rejected[r]);
  }
}

static const char *counter_name(int at, char out[48]) {
  static const char *const values[] = {"value of promoters", "value of passives", "value of detractors"};
  if (at >= LIVENPS_CES)
    snprintf(out, 48, "ces %d", at - LIVENPS_CES + 1);
  else if (at >= LIVENPS_CSAT)
    snprintf(out, 48, "csat %d", at - LIVENPS_CSAT + 1);
  else if (at >= LIVENPS_VALUE_PROMOTERS)
    snprintf(out, 48, "%s (1/100)", values[at - LIVENPS_VALUE_PROMOTERS]);
  else if (at >= LIVENPS_SCORE)
    snprintf(out, 48, "score %d", at - LIVENPS_SCORE);
  else
    snprintf(out, 48, "%s",
             at == LIVENPS_INTERACTIONS  ? "interactions"
             : at == LIVENPS_INVITATIONS ? "invitations"
                                         : "answers");
  return out;
}

/* One roll-up in one window, while it is compared. */
typedef struct {
  verify *self;
  size_t rollup, window;
  bool previous; /* the window before can be compared too */
  bool capped;   /* only sums can */
  livenps_sums stored, counted;
} pane;

static void compare_counters(pane *of, const char *id, const livenps_counters *stored,
                             const livenps_counters *counted, const char *when) {
  char name[48];
  for (int i = 0; i < LIVENPS_COUNTERS; i++) {
    of->self->compared++;
    if (stored->at[i] != counted->at[i])
      differ(of->self,
             "roll-up %s, window %s%s, series %s: %s: %" PRId64 " in the namespace, %" PRId64 " in the topic",
             of->self->rollups[of->rollup].name, of->self->windows[of->window].name, when, id,
             counter_name(i, name), stored->at[i], counted->at[i]);
  }
}

static void compare_sums(pane *of, const char *id, const livenps_sums *stored, const livenps_sums *counted) {
  compare_counters(of, id, &stored->now, &counted->now, "");
  if (of->previous)
    compare_counters(of, id, &stored->previous, &counted->previous, " before");
}

static int compare_view(void *opaque, const livenps_view *view) {
  static const livenps_sums none;
  pane *of = opaque;
  const livenps_sums stored = {.now = view->now, .previous = view->previous};
  if (of->capped) {
    livenps_counters_add(&of->stored.now, &view->now);
    livenps_counters_add(&of->stored.previous, &view->previous);
    return 0;
  }
  livenps_sums *counted = livenps_recount_find(of->self->recount, of->rollup, view->id, of->window);
  if (counted)
    counted->seen = true;
  compare_sums(of, view->id, &stored, counted ? counted : &none);
  return 0;
}

static int compare_counted(void *opaque, const char *id, const livenps_sums *sums) {
  static const livenps_sums none;
  pane *of = opaque;
  if (of->capped) {
    livenps_counters_add(&of->counted.now, &sums->now);
    livenps_counters_add(&of->counted.previous, &sums->previous);
    return 0;
  }
  if (!sums->seen) /* no view stands against it */
    compare_sums(of, id, &none, sums);
  return 0;
}

static void compare_pane(verify *self, size_t rollup, size_t window) {
  pane of = {.self = self, .rollup = rollup, .window = window};
  int64_t since_ms = livenps_state_window_since(self->state, rollup, window);
  since_ms = since_ms > self->since_ms ? since_ms : self->since_ms;
  if (since_ms > livenps_recount_start(self->recount, window, false)) {
    self->unverified++;
    return;
  }
  of.previous = since_ms <= livenps_recount_start(self->recount, window, true);
  self->unverified += !of.previous;
  livenps_state_series(self->state, rollup, &of.capped);
  const livenps_visitor visitor = {.view = compare_view, .opaque = &of};
  livenps_state_views(self->state, rollup, window, &visitor);
  livenps_recount_each(self->recount, rollup, window, compare_counted, &of);
  if (of.capped)
    compare_sums(&of, "(all together)", &of.stored, &of.counted);
}

static void compare(verify *self) {
  compare_positions(self);
  for (size_t i = 0; i < self->part_count; i++) {
    settle(&self->parts[i]);
    compare_fates(self, &self->parts[i]);
    self->unverified += self->parts[i].lost;
    if (self->parts[i].since_ms > self->since_ms)
      self->since_ms = self->parts[i].since_ms;
  }
  for (size_t r = 0; r < self->settings->rollups.count; r++)
    for (size_t w = 0; w < self->settings->windows.count; w++)
      compare_pane(self, r, w);
}

/* -- the report ------------------------------------------------------------------------------------------------------- */

static void report_windows(const verify *self) {
  for (size_t w = 0; w < self->settings->windows.count; w++) {
    size_t now = 0, previous = 0, capped = 0;
    for (size_t r = 0; r < self->settings->rollups.count; r++) {
      int64_t since_ms = livenps_state_window_since(self->state, r, w);
      bool other;
      since_ms = since_ms > self->since_ms ? since_ms : self->since_ms;
      livenps_state_series(self->state, r, &other);
      now += since_ms <= livenps_recount_start(self->recount, w, false);
      previous += since_ms <= livenps_recount_start(self->recount, w, true);
      capped += other;
    }
    const size_t all = self->settings->rollups.count;
    printf("window %-6s compared in %zu of %zu roll-ups, the window before it in %zu", self->windows[w].name,
           now, all, previous);
    if (capped)
      printf(", %zu of them over series_max only by their sums", capped);
    printf("\n");
  }
}

static void report(const verify *self) {
  char time[32];
  int64_t totals[6] = {0};
  for (size_t i = 0; i < self->part_count; i++) {
    const part *of = &self->parts[i];
    totals[0] += of->tally.accepted;
    totals[1] += of->tally.late;
    totals[2] += of->tally.out_of_range;
    totals[3] += of->end - of->from - of->delivered;
    for (int r = 0; r < LIVENPS_REASONS; r++)
      totals[4] += of->tally.rejected[r];
    totals[5] += of->lost;
  }
  printf("namespace %s at %s, lineage %s, log entry %s\n", self->settings->namespace_,
         livenps_time_print(livenps_state_clock(self->state), time), self->stored.lineage, self->last.id);
  printf("topic %s read again: %" PRIu64 " records of %zu partitions: accepted %" PRId64 "  rejected %" PRId64
         "  late %" PRId64 "  out of range %" PRId64 "  holes %" PRId64 "\n",
         self->options->topic, self->records, self->part_count, totals[0], totals[4], totals[1], totals[2],
         totals[3]);
  for (size_t i = 0; i < self->part_count; i++) {
    const part *of = &self->parts[i];
    if (of->damaged)
      printf(
          "%s/%" PRId32 ": %" PRId64
          " offsets cannot be read any more, but were when they were counted, so its totals cannot be compared\n",
          of->line->topic, of->line->partition, of->unreadable);
    else if (of->unreadable)
      printf("%s/%" PRId32 ": %" PRId64 " offsets cannot be read; the namespace counts as many holes\n",
             of->line->topic, of->line->partition, of->unreadable);
    if (of->lost && !of->damaged)
      printf("%s/%" PRId32 ": from offset %" PRId64 " on only; counted were offsets from %" PRId64
             " on, so its totals cannot be compared\n",
             of->line->topic, of->line->partition, of->from, of->line->start);
  }
  if (self->since_ms == INT64_MAX)
    printf("no window can be compared: of a partition that has lost records none is left\n");
  else if (self->since_ms)
    printf("only windows that begin at %s or later can be compared\n",
           livenps_time_print(self->since_ms, time));
  report_windows(self);
  if (self->differences) {
    printf("difference: %s\n", self->first);
    printf("not equal: %zu of %zu numbers compared differ\n", self->differences, self->compared);
  } else {
    printf("%s: %zu numbers compared\n", self->unverified ? "equal as far as it can be verified" : "equal",
           self->compared);
  }
}

/* -- entry ------------------------------------------------------------------------------------------------------------ */

static int prepare(verify *self, livenps_error *error) {
  const livenps_bounds bounds = {self->options->from_ms, self->options->to_ms};
  const livenps_settings *settings = self->settings;
  self->windows = livenps_alloc((settings->windows.count + 1) * sizeof *self->windows);
  self->rollups = livenps_alloc((settings->rollups.count + 1) * sizeof *self->rollups);
  for (size_t w = 0; w < settings->windows.count; w++)
    if (livenps_window_parse(settings->windows.at[w], &self->windows[w], error))
      return -1;
  for (size_t r = 0; r < settings->rollups.count; r++)
    if (livenps_rollup_parse(settings->rollups.at[r], &self->rollups[r], error))
      return -1;
  livenps_keys_make(&self->keys, settings->namespace_);
  return livenps_rules_open(&self->rules, settings, self->options->replay ? &bounds : NULL, error) ||
                 livenps_redis_open(&self->redis, settings, error) ||
                 livenps_watch_open(&self->watch, settings, error) || take_picture(self, error) ||
                 find_parts(self, error)
             ? -1
             : 0;
}

int livenps_verify(const livenps_settings *live, const livenps_verify_options *options) {
  livenps_error error = {0};
  livenps_settings settings = *live;
  char *topics = livenps_copy(options->topic, strlen(options->topic)), *rest = topics;
  char *namespace_ = livenps_copy(options->into ? options->into : live->namespace_,
                                  strlen(options->into ? options->into : live->namespace_));
  char instance[] = "";
  char **names = livenps_alloc((strlen(topics) + 1) * sizeof *names);
  settings.topics = (livenps_list){names, 0};
  for (char *name; (name = strsep(&rest, ","));)
    names[settings.topics.count++] = name;
  settings.namespace_ = namespace_;
  settings.instance = instance;
  verify self = {.settings = &settings, .options = options};
  int code = 0;
  if (!prepare(&self, &error)) {
    const livenps_recount_config config = {.windows = self.windows,
                                           .window_count = settings.windows.count,
                                           .rollups = self.rollups,
                                           .rollup_count = settings.rollups.count,
                                           .series_max = (size_t)settings.series_max,
                                           .admission = &self.rules.admission,
                                           .clock_ms = livenps_state_clock(self.state)};
    livenps_recount_new(&self.recount, &config);
    if (!read_topic(&self, &error)) {
      compare(&self);
      report(&self);
      code = self.differences ? LIVENPS_VERIFY_DIFFERS : self.unverified ? LIVENPS_VERIFY_IN_PART : 0;
    }
  }
  livenps_recount_free(self.recount);
  livenps_watch_close(self.watch);
  forget(&self);
  livenps_redis_close(self.redis);
  livenps_rules_close(&self.rules);
  free(self.parts);
  free(self.windows);
  free(self.rollups);
  free(names);
  free(topics);
  free(namespace_);
  if (!error.code)
    return code;
  livenps_log(LIVENPS_ERROR, "verify", "%s", error.text);
  return (int)error.code;
}
