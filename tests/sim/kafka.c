#include "sim.h"

#include <librdkafka/rdkafka.h>

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

/* The functions of librdkafka that the program calls, on a simulated cluster with one group coordinator. What the library is known to do
 * oddly is done here too: forwards of queues that the end of fetching clears later, a partition in error that only a new assignment frees,
 * records left out after a seek, records of revoked partitions that are served all the same, an end of partition that is told once. */

enum {
  LANES = 80,   /* partitions of one handle */
  QUEUED = 400, /* records fetched ahead */
  HANDLES = 64,
  GROUPS = 4,
  TOPICS = 8,
  COORDINATE_US = 200000,
  STOP_MOST_US = 250000, /* until fetching has stopped after an assignment was taken away */
};

sim_kafka_cluster sim_kafka;
static sim_topic *topics[TOPICS];
static int topic_count;

/* ---- topics ---------------------------------------------------------------------------------------------------------- */

sim_topic *sim_topic_find(const char *name) {
  for (int i = 0; i < topic_count; i++)
    if (!strcmp(topics[i]->name, name))
      return topics[i];
  return NULL;
}

sim_topic *sim_topic_make(const char *name, int partitions) {
  sim_topic *topic = sim_topic_find(name);
  if (!topic) {
    if (topic_count == TOPICS)
      abort();
    topic = topics[topic_count++] = calloc(1, sizeof *topic);
    snprintf(topic->name, sizeof topic->name, "%s", name);
    snprintf(topic->policy, sizeof topic->policy, "delete");
  }
  for (; topic->count < partitions; topic->count++)
    topic->at[topic->count].opened = -1;
  return topic;
}

int64_t sim_append(sim_topic *topic, int number, const sim_record *record) {
  sim_partition *partition = &topic->at[number];
  if (partition->count == partition->capacity) {
    partition->capacity = partition->capacity ? partition->capacity * 2 : 64;
    partition->at = realloc(partition->at, (size_t)partition->capacity * sizeof *partition->at);
  }
  partition->at[partition->count] = *record;
  partition->at[partition->count].appended_us = sim_now_us;
  if (record->standing == SIM_OPEN_RECORD && partition->opened < 0)
    partition->opened = partition->count;
  return partition->count++;
}

int64_t sim_stable_end(const sim_partition *partition) {
  return partition->opened >= 0 ? partition->opened : partition->count;
}

void sim_retain(sim_partition *partition, int64_t low) {
  if (low <= partition->low || partition->low_count == sizeof partition->lows / sizeof *partition->lows)
    return;
  partition->low = partition->lows[partition->low_count++] = low;
}

void sim_renew(sim_partition *partition, bool anew, int64_t kept) {
  sim_partition *before = malloc(sizeof *before);
  *before = *partition;
  *partition = (sim_partition){.era = before->era + 1,
                               .before = before,
                               .kept = anew ? 0 : kept,
                               .renewed_us = sim_now_us,
                               .opened = -1,
                               .away_until_us = before->away_until_us};
  if (anew)
    return;
  partition->count = partition->capacity = kept;
  partition->at = malloc((size_t)(kept + 1) * sizeof *partition->at);
  memcpy(partition->at, before->at, (size_t)kept * sizeof *partition->at);
  partition->low = before->low;
  partition->low_count = before->low_count;
  memcpy(partition->lows, before->lows, sizeof partition->lows);
  if (before->opened < kept)
    partition->opened = before->opened;
}

const sim_partition *sim_era(const sim_partition *partition, int era) {
  while (partition->era > era)
    partition = partition->before;
  return partition;
}

/* ---- what handles are made of --------------------------------------------------------------------------------------------- */

typedef struct {
  char name[48], value[256];
} property;

struct rd_kafka_conf_s {
  property at[48];
  int count;
  void *opaque;
  void (*rebalance)(rd_kafka_t *, rd_kafka_resp_err_t, rd_kafka_topic_partition_list_t *, void *);
  void (*error)(rd_kafka_t *, int, const char *, void *);
  void (*committed)(rd_kafka_t *, rd_kafka_resp_err_t, rd_kafka_topic_partition_list_t *, void *);
  void (*delivered)(rd_kafka_t *, const rd_kafka_message_t *, void *);
};

struct rd_kafka_topic_s {
  sim_topic *topic;
};

struct rd_kafka_error_s {
  rd_kafka_resp_err_t code;
  char text[128];
};

struct rd_kafka_headers_s {
  sim_header at[64];
  size_t count;
};

typedef struct lane lane;

typedef struct message {
  rd_kafka_message_t message; /* first: this is what the program holds */
  struct message *next;
  lane *lane;
  unsigned version, assignment;
  bool error, skipping;
  sim_record record; /* a copy: the log grows, and moves, meanwhile */
} message;

struct rd_kafka_queue_s {
  rd_kafka_t *rk;
  message *first, *last;
  rd_kafka_event_t *event;
  lane *of; /* the handle of a partition's queue */
};

struct lane {
  struct rd_kafka_topic_s topic;
  int partition;
  bool assigned, failed, first, stalled, skipped, skipping;
  int64_t next, end_told;       /* told of this end last; -1: of none */
  unsigned version, assignment; /* the first also rises with a seek */
  rd_kafka_queue_t *forward;
  struct rd_kafka_queue_s own;
  int64_t stopped_at_us;    /* when fetching will have stopped; 0: it has */
  int64_t high;             /* by the last fetch, -1001 before */
  int64_t unknown_until_us; /* told that the topic is unknown until then */
  int queued;
};

typedef struct outgoing {
  struct outgoing *next;
  rd_kafka_t *rk;
  message report;
  sim_topic *topic;
  char name[250];
  sim_record record;
  bool finished;
} outgoing;

typedef struct {
  char topic[250];
  int partition;
} owned;

typedef struct group group;
struct rd_kafka_s {
  sim_process *process;
  int64_t born_us; /* with which life of the process */
  bool producer, committed_only, eof, yielded, closing, closed;
  char reset[16];
  struct rd_kafka_conf_s conf;
  lane *lanes[LANES];
  int lane_count;
  struct rd_kafka_queue_s main;
  outgoing *sent, *sent_last;
  /* of the group */
  group *group;
  char subscribed[4][250];
  int subscriptions;
  bool member, evicted, lost, must_revoke, assigning, commit_open;
  int64_t heartbeat_us, assign_at_us;
  owned owned[LANES], wanted[LANES];
  int owned_count, wanted_count;
};

struct group {
  char name[128];
  rd_kafka_t *members[HANDLES];
  int member_count;
  bool cooperative, rebalancing;
  int64_t not_before_us;
  int partitions; /* of the topics when it was last handed out */
};

static rd_kafka_t *handles[HANDLES];
static int handle_count;
static group groups[GROUPS];
static int group_count;

/* ---- errors, small things --------------------------------------------------------------------------------------------------- */

const char *rd_kafka_err2str(rd_kafka_resp_err_t err) {
  switch (err) {
  case RD_KAFKA_RESP_ERR__TIMED_OUT: return "Local: Timed out";
  case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET: return "Local: No offset to automatically reset to";
  case RD_KAFKA_RESP_ERR__STATE: return "Local: Erroneous state";
  case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE: return "Broker: Message size too large";
  case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED: return "Broker: Topic authorization failed";
  case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART: return "Broker: Unknown topic or partition";
  case RD_KAFKA_RESP_ERR__PURGE_QUEUE: return "Local: Purged in queue";
  case RD_KAFKA_RESP_ERR__QUEUE_FULL: return "Local: Queue full";
  case RD_KAFKA_RESP_ERR__PARTITION_EOF: return "Broker: No more messages";
  case RD_KAFKA_RESP_ERR_NO_ERROR: return "Success";
  default: return "another error";
  }
}

static rd_kafka_error_t *error_of(rd_kafka_resp_err_t code) {
  rd_kafka_error_t *error = calloc(1, sizeof *error);
  error->code = code;
  snprintf(error->text, sizeof error->text, "%s", rd_kafka_err2str(code));
  return error;
}

const char *rd_kafka_error_string(const rd_kafka_error_t *error) {
  return error->text;
}

rd_kafka_resp_err_t rd_kafka_error_code(const rd_kafka_error_t *error) {
  return error ? error->code : RD_KAFKA_RESP_ERR_NO_ERROR;
}

void rd_kafka_error_destroy(rd_kafka_error_t *error) {
  free(error);
}

const char *rd_kafka_version_str(void) {
  return "simulated";
}

rd_kafka_resp_err_t rd_kafka_fatal_error(rd_kafka_t *rk, char *errstr, size_t errstr_size) {
  (void)rk;
  snprintf(errstr, errstr_size, "none");
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

void rd_kafka_mem_free(rd_kafka_t *rk, void *ptr) {
  (void)rk;
  free(ptr);
}

rd_kafka_topic_partition_list_t *rd_kafka_topic_partition_list_new(int size) {
  rd_kafka_topic_partition_list_t *list = calloc(1, sizeof *list);
  list->size = size > 0 ? size : 1;
  list->elems = calloc((size_t)list->size, sizeof *list->elems);
  return list;
}

rd_kafka_topic_partition_t *rd_kafka_topic_partition_list_add(rd_kafka_topic_partition_list_t *list,
                                                              const char *topic, int32_t partition) {
  if (list->cnt == list->size) {
    list->size *= 2;
    list->elems = realloc(list->elems, (size_t)list->size * sizeof *list->elems);
  }
  rd_kafka_topic_partition_t *element = &list->elems[list->cnt++];
  *element = (rd_kafka_topic_partition_t){
      .topic = strdup(topic), .partition = partition, .offset = RD_KAFKA_OFFSET_INVALID};
  return element;
}

int rd_kafka_topic_partition_list_del_by_idx(rd_kafka_topic_partition_list_t *list, int index) {
  free(list->elems[index].topic);
  memmove(&list->elems[index], &list->elems[index + 1], (size_t)(--list->cnt - index) * sizeof *list->elems);
  return 1;
}

void rd_kafka_topic_partition_list_destroy(rd_kafka_topic_partition_list_t *list) {
  if (!list)
    return;
  for (int i = 0; i < list->cnt; i++)
    free(list->elems[i].topic);
  free(list->elems);
  free(list);
}

/* ---- configuration --------------------------------------------------------------------------------------------------------------- */

rd_kafka_conf_t *rd_kafka_conf_new(void) {
  return calloc(1, sizeof(rd_kafka_conf_t));
}

void rd_kafka_conf_destroy(rd_kafka_conf_t *conf) {
  free(conf);
}

static const char *property_of(const rd_kafka_conf_t *conf, const char *name) {
  for (int i = 0; i < conf->count; i++)
    if (!strcmp(conf->at[i].name, name))
      return conf->at[i].value;
  return NULL;
}

rd_kafka_conf_res_t rd_kafka_conf_set(rd_kafka_conf_t *conf, const char *name, const char *value,
                                      char *errstr, size_t errstr_size) {
  (void)errstr, (void)errstr_size;
  if (!strcmp(name, "fetch.queue.backoff.ms")) /* as in 2.0.2 */
    return RD_KAFKA_CONF_UNKNOWN;
  property *place = NULL;
  for (int i = 0; i < conf->count && !place; i++)
    if (!strcmp(conf->at[i].name, name))
      place = &conf->at[i];
  if (!place) {
    if (conf->count == sizeof conf->at / sizeof *conf->at)
      abort();
    place = &conf->at[conf->count++];
    snprintf(place->name, sizeof place->name, "%s", name);
  }
  snprintf(place->value, sizeof place->value, "%s", value);
  return RD_KAFKA_CONF_OK;
}

rd_kafka_conf_res_t rd_kafka_conf_get(const rd_kafka_conf_t *conf, const char *name, char *dest,
                                      size_t *dest_size) {
  const char *value = property_of(conf, name);
  if (!value && !strcmp(name, "fetch.queue.backoff.ms"))
    return RD_KAFKA_CONF_UNKNOWN;
  if (dest)
    snprintf(dest, *dest_size, "%s", value ? value : "");
  *dest_size = strlen(value ? value : "") + 1;
  return RD_KAFKA_CONF_OK;
}

void rd_kafka_conf_set_opaque(rd_kafka_conf_t *conf, void *opaque) {
  conf->opaque = opaque;
}

void rd_kafka_conf_set_rebalance_cb(rd_kafka_conf_t *conf,
                                    void (*rebalance_cb)(rd_kafka_t *, rd_kafka_resp_err_t,
                                                         rd_kafka_topic_partition_list_t *, void *)) {
  conf->rebalance = rebalance_cb;
}

void rd_kafka_conf_set_error_cb(rd_kafka_conf_t *conf,
                                void (*error_cb)(rd_kafka_t *, int, const char *, void *)) {
  conf->error = error_cb;
}

void rd_kafka_conf_set_offset_commit_cb(rd_kafka_conf_t *conf,
                                        void (*offset_commit_cb)(rd_kafka_t *, rd_kafka_resp_err_t,
                                                                 rd_kafka_topic_partition_list_t *, void *)) {
  conf->committed = offset_commit_cb;
}

void rd_kafka_conf_set_dr_msg_cb(rd_kafka_conf_t *conf,
                                 void (*dr_msg_cb)(rd_kafka_t *, const rd_kafka_message_t *, void *)) {
  conf->delivered = dr_msg_cb;
}

void rd_kafka_conf_set_log_cb(rd_kafka_conf_t *conf,
                              void (*log_cb)(const rd_kafka_t *, int, const char *, const char *)) {
  (void)conf, (void)log_cb;
}

/* ---- handles ------------------------------------------------------------------------------------------------------------------------ */

static bool property_is(const rd_kafka_conf_t *conf, const char *name, const char *value) {
  const char *is = property_of(conf, name);
  return is && !strcmp(is, value);
}

rd_kafka_t *rd_kafka_new(rd_kafka_type_t type, rd_kafka_conf_t *conf, char *errstr, size_t errstr_size) {
  (void)errstr, (void)errstr_size;
  rd_kafka_t *rk = calloc(1, sizeof *rk);
  rk->process = sim_self();
  rk->born_us = rk->process->started_us;
  rk->producer = type == RD_KAFKA_PRODUCER;
  rk->conf = *conf;
  rk->committed_only = !property_is(conf, "isolation.level", "read_uncommitted");
  rk->eof = property_is(conf, "enable.partition.eof", "true");
  const char *reset = property_of(conf, "auto.offset.reset");
  snprintf(rk->reset, sizeof rk->reset, "%s", reset ? reset : "latest");
  rk->main.rk = rk;
  free(conf);
  for (int i = 0; i < handle_count; i++)
    if (!handles[i])
      return handles[i] = rk;
  if (handle_count == HANDLES)
    abort();
  return handles[handle_count++] = rk;
}

static void leave(rd_kafka_t *rk);

void rd_kafka_destroy(rd_kafka_t *rk) {
  leave(rk);
  for (int i = 0; i < handle_count; i++)
    if (handles[i] == rk)
      handles[i] = NULL;
  /* Actions that are planned may still look at it; the memory ends with the seed. */
  for (outgoing *each = rk->sent; each; each = each->next)
    each->rk = NULL;
}

void rd_kafka_destroy_flags(rd_kafka_t *rk, int flags) {
  (void)flags; /* how it leaves a group it never joined */
  rd_kafka_destroy(rk);
}

void sim_kafka_process_died(sim_process *process) {
  for (int i = 0; i < handle_count; i++)
    if (handles[i] && handles[i]->process == process) {
      /* What a producer has sent may still arrive. */
      for (outgoing *each = handles[i]->sent; each; each = each->next)
        if (!each->finished && sim_chance(50))
          each->finished = true;
      if (!handles[i]->member)
        handles[i] = NULL;
    }
}

rd_kafka_resp_err_t rd_kafka_poll_set_consumer(rd_kafka_t *rk) {
  (void)rk;
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static bool cluster_away(void) {
  return sim_kafka.away_until_us > sim_now_us;
}

/* As clients see it: NULL as well while it is deleted. */
static sim_topic *topic_of(const char *name) {
  sim_topic *found = sim_topic_find(name);
  return found && found->away_until_us <= sim_now_us ? found : NULL;
}

/* A question to the brokers: true when it is answered in time. */
static bool ask(int timeout_ms) {
  sim_sleep_us(sim_between(200, 3000));
  const int64_t until = sim_now_us + (int64_t)timeout_ms * 1000;
  while (cluster_away()) {
    if (sim_now_us >= until)
      return false;
    const int64_t left = until - sim_now_us;
    sim_sleep_us(left < 100000 ? left + 1 : 100000);
  }
  return true;
}

char *rd_kafka_clusterid(rd_kafka_t *rk, int timeout_ms) {
  (void)rk;
  return ask(timeout_ms) ? strdup("simulated") : NULL;
}

rd_kafka_resp_err_t rd_kafka_metadata(rd_kafka_t *rk, int all_topics, rd_kafka_topic_t *only_rkt,
                                      const struct rd_kafka_metadata **metadatap, int timeout_ms) {
  (void)rk, (void)all_topics, (void)only_rkt;
  if (!ask(timeout_ms))
    return RD_KAFKA_RESP_ERR__TIMED_OUT;
  struct rd_kafka_metadata *metadata = calloc(1, sizeof *metadata);
  metadata->topics = calloc((size_t)topic_count + 1, sizeof *metadata->topics);
  for (int i = 0; i < topic_count; i++) {
    if (topics[i]->away_until_us > sim_now_us)
      continue;
    struct rd_kafka_metadata_topic *topic = &metadata->topics[metadata->topic_cnt++];
    topic->topic = strdup(topics[i]->name);
    topic->partition_cnt = topics[i]->count;
    topic->partitions = calloc((size_t)topics[i]->count + 1, sizeof *topic->partitions);
    for (int p = 0; p < topics[i]->count; p++)
      topic->partitions[p].id = p;
  }
  *metadatap = metadata;
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

void rd_kafka_metadata_destroy(const struct rd_kafka_metadata *metadata) {
  for (int i = 0; i < metadata->topic_cnt; i++) {
    free(metadata->topics[i].topic);
    free(metadata->topics[i].partitions);
  }
  free(metadata->topics);
  free((void *)(uintptr_t)metadata);
}

static sim_partition *partition_of(const char *topic, int number) {
  sim_topic *found = topic_of(topic);
  return found && number >= 0 && number < found->count ? &found->at[number] : NULL;
}

static int64_t end_of(const rd_kafka_t *rk, const sim_partition *partition) {
  return rk->committed_only ? sim_stable_end(partition) : partition->count;
}

rd_kafka_resp_err_t rd_kafka_query_watermark_offsets(rd_kafka_t *rk, const char *topic, int32_t partition,
                                                     int64_t *low, int64_t *high, int timeout_ms) {
  if (!ask(timeout_ms))
    return RD_KAFKA_RESP_ERR__TIMED_OUT;
  const sim_partition *found = partition_of(topic, partition);
  if (!found)
    return RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION;
  if (!strcmp(topic, SIM_TOPIC))
    rk->process->bounds_era[partition] = found->era;
  *low = found->low;
  *high = end_of(rk, found);
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

rd_kafka_resp_err_t rd_kafka_offsets_for_times(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *offsets,
                                               int timeout_ms) {
  if (!ask(timeout_ms))
    return RD_KAFKA_RESP_ERR__TIMED_OUT;
  for (int i = 0; i < offsets->cnt; i++) {
    rd_kafka_topic_partition_t *each = &offsets->elems[i];
    const sim_partition *found = partition_of(each->topic, each->partition);
    each->err = found ? RD_KAFKA_RESP_ERR_NO_ERROR : RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    if (each->offset == RD_KAFKA_OFFSET_END && !rk->committed_only && !strcmp(each->topic, SIM_TOPIC))
      rk->process->end_asked_us[each->partition] = sim_now_us;
    if (!found)
      continue;
    const int64_t time_ms = each->offset;
    each->offset = time_ms == RD_KAFKA_OFFSET_END         ? end_of(rk, found)
                   : time_ms == RD_KAFKA_OFFSET_BEGINNING ? found->low
                                                          : -1;
    for (int64_t o = found->low; time_ms >= 0 && each->offset < 0 && o < found->count; o++)
      if (found->at[o].standing != SIM_MARKER && found->at[o].timestamp_ms >= time_ms)
        each->offset = o;
    sim_trace("   asked: partition %d of %s at %lld: offset %lld", each->partition, each->topic,
              (long long)time_ms, (long long)each->offset);
  }
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* ---- queues ---------------------------------------------------------------------------------------------------------------------------- */

rd_kafka_queue_t *rd_kafka_queue_new(rd_kafka_t *rk) {
  rd_kafka_queue_t *queue = calloc(1, sizeof *queue);
  queue->rk = rk;
  return queue;
}

void rd_kafka_queue_destroy(rd_kafka_queue_t *queue) {
  (void)queue; /* the handle only */
}

static void put(rd_kafka_queue_t *queue, message *what) {
  what->next = NULL;
  if (queue->last)
    queue->last->next = what;
  else
    queue->first = what;
  queue->last = what;
}

static message *take(rd_kafka_queue_t *queue) {
  message *first = queue->first;
  if (first) {
    queue->first = first->next;
    if (!first->next)
      queue->last = NULL;
    first->lane->queued--;
  }
  return first;
}

static lane *lane_of(rd_kafka_t *rk, const char *topic, int partition, bool make) {
  for (int i = 0; i < rk->lane_count; i++)
    if (rk->lanes[i]->partition == partition && !strcmp(rk->lanes[i]->topic.topic->name, topic))
      return rk->lanes[i];
  sim_topic *found = make ? sim_topic_find(topic) : NULL;
  if (!found)
    return NULL;
  if (rk->lane_count == LANES)
    abort();
  lane *made = rk->lanes[rk->lane_count++] = calloc(1, sizeof *made);
  made->topic.topic = found;
  made->partition = partition;
  made->own.rk = rk;
  made->own.of = made;
  made->high = RD_KAFKA_OFFSET_INVALID;
  return made;
}

/* Fetching that was to stop has stopped: the forward is cleared, whoever set it meanwhile, and that one waits for ever. Done before anything
 * else is done to the lane, so that it has the time at which it happened. */
static void finish_stop(lane *of) {
  if (of->stopped_at_us && sim_now_us >= of->stopped_at_us) {
    of->stopped_at_us = 0;
    of->stalled = of->forward != NULL; /* whoever forwarded in between waits for ever */
    of->forward = NULL;
  }
}

rd_kafka_queue_t *rd_kafka_queue_get_partition(rd_kafka_t *rk, const char *topic, int32_t partition) {
  lane *found = lane_of(rk, topic, partition, true);
  return found ? &found->own : NULL;
}

void rd_kafka_queue_forward(rd_kafka_queue_t *src, rd_kafka_queue_t *dst) {
  lane *of = src->of;
  finish_stop(of);
  of->forward = dst;
  of->stalled = false;
  for (message *each = src->first, *next; dst && each; each = next) {
    next = each->next;
    put(dst, each);
  }
  src->first = src->last = NULL;
}

/* ---- fetching --------------------------------------------------------------------------------------------------------------------------- */

static message *new_message(lane *of, rd_kafka_resp_err_t err, int64_t offset, const sim_record *record) {
  message *made = calloc(1, sizeof *made);
  made->lane = of;
  made->version = of->version;
  made->assignment = of->assignment;
  made->error = !record;
  made->skipping = of->skipping;
  made->message.err = err;
  made->message.rkt = &of->topic;
  made->message.partition = of->partition;
  made->message.offset = offset;
  if (record) {
    made->record = *record;
    made->message.payload = (void *)(uintptr_t)record->value;
    made->message.len = record->value_size;
    made->message.key = (void *)(uintptr_t)record->key;
    made->message.key_len = record->key_size;
  }
  return made;
}

static void enqueue(rd_kafka_t *rk, lane *of, message *what) {
  of->queued++;
  put(of->forward ? of->forward : of->stalled ? &of->own : &rk->main, what);
}

static void out_of_range(rd_kafka_t *rk, lane *of, const sim_partition *partition) {
  if (!strcmp(rk->reset, "latest")) {
    of->next = end_of(rk, partition);
  } else if (!strcmp(rk->reset, "earliest")) {
    of->next = partition->low;
  } else {
    of->failed = true;
    enqueue(rk, of, new_message(of, RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET, of->next, NULL));
  }
}

static void fetch_lane(rd_kafka_t *rk, lane *of) {
  const sim_partition *partition = &of->topic.topic->at[of->partition];
  finish_stop(of);
  if (!of->assigned || of->failed || cluster_away() || partition->away_until_us > sim_now_us ||
      of->queued > QUEUED)
    return;
  if (of->topic.topic->away_until_us > sim_now_us) {
    if (of->unknown_until_us != of->topic.topic->away_until_us)
      enqueue(rk, of, new_message(of, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, of->next, NULL));
    of->unknown_until_us = of->topic.topic->away_until_us;
    return;
  }
  const int64_t end = end_of(rk, partition);
  of->high = end;
  if (of->next < partition->low || of->next > partition->count) {
    out_of_range(rk, of, partition);
    return;
  }
  if (of->first) {
    of->first = false;
    /* Not again before the program has seen records of a fetch that was whole, or nobody could tell it from a hole. */
    of->skipping = !of->skipped && of->next < end && (int)sim_between(0, 99) < sim_kafka.skip;
    of->skipped |= of->skipping;
    if (of->skipping) {
      sim_fault_happened(SIM_SKIP);
      of->next += sim_between(1, end - of->next < 5 ? end - of->next : 5);
    }
  }
  int64_t most = sim_between(1, 200);
  for (; of->next < end && most > 0; of->next++) {
    const sim_record *record = &partition->at[of->next];
    if (record->standing == SIM_MARKER || (rk->committed_only && record->standing == SIM_ABORTED_RECORD))
      continue;
    enqueue(rk, of, new_message(of, RD_KAFKA_RESP_ERR_NO_ERROR, of->next, record));
    most--;
  }
  if (of->next >= end && of->end_told != of->next && rk->eof) {
    of->end_told = of->next;
    enqueue(rk, of, new_message(of, RD_KAFKA_RESP_ERR__PARTITION_EOF, of->next, NULL));
  }
}

static void fetch(rd_kafka_t *rk) {
  for (int i = 0; i < rk->lane_count; i++)
    fetch_lane(rk, rk->lanes[i]);
}

/* Whether the program gets to see it. What was fetched before a seek the library drops when it is served; what is left in a queue of the
 * program's own after a revocation it may serve. */
static bool served(const message *what) {
  if (what->version == what->lane->version) {
    what->lane->skipped &= what->skipping || what->error;
    return true;
  }
  return sim_kafka.stray && what->lane->own.rk->group && !what->error &&
         what->assignment != what->lane->assignment;
}

rd_kafka_resp_err_t rd_kafka_get_watermark_offsets(rd_kafka_t *rk, const char *topic, int32_t partition,
                                                   int64_t *low, int64_t *high) {
  const lane *found = lane_of(rk, topic, partition, false);
  *low = found ? found->topic.topic->at[partition].low : RD_KAFKA_OFFSET_INVALID;
  *high = found ? found->high : RD_KAFKA_OFFSET_INVALID;
  return found ? RD_KAFKA_RESP_ERR_NO_ERROR : RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION;
}

static void wait_for_kafka(const rd_kafka_t *rk, int timeout_ms) {
  if (timeout_ms > 0)
    sim_sleep_us((int64_t)timeout_ms * 1000 * (rk->process->slow > 0 ? rk->process->slow : 1));
  else
    sim_sleep_us(sim_between(0, 50));
}

void rd_kafka_yield(rd_kafka_t *rk) {
  rk->yielded = true;
}

int rd_kafka_consume_callback_queue(rd_kafka_queue_t *queue, int timeout_ms,
                                    void (*consume_cb)(rd_kafka_message_t *, void *), void *commit_opaque) {
  rd_kafka_t *rk = queue->rk;
  fetch(rk);
  if (!queue->first) {
    wait_for_kafka(rk, timeout_ms);
    fetch(rk);
  }
  rk->yielded = false;
  int count = 0;
  for (int64_t most = sim_between(1, 300); most > 0 && !rk->yielded; most--) {
    message *next = take(queue);
    if (!next)
      break;
    if (served(next)) {
      sim_trace("   served: partition %d offset %lld%s", next->lane->partition,
                (long long)next->message.offset, next->error ? " (the end, or an error)" : "");
      consume_cb(&next->message, commit_opaque);
      count++;
    }
    free(next);
    if (sim_chance(1)) /* a busy machine: others run, time passes */
      sim_sleep_us(sim_between(0, 20000));
  }
  return count;
}

const char *rd_kafka_topic_name(const rd_kafka_topic_t *rkt) {
  return rkt->topic->name;
}

/* One broker leads all. */
int32_t rd_kafka_message_broker_id(const rd_kafka_message_t *rkmessage) {
  (void)rkmessage;
  return 1;
}

int64_t rd_kafka_message_latency(const rd_kafka_message_t *rkmessage) {
  (void)rkmessage;
  return 0; /* asked only where somebody wants metrics, which nobody here does */
}

const char *rd_kafka_message_errstr(const rd_kafka_message_t *rkmessage) {
  return rd_kafka_err2str(rkmessage->err);
}

void rd_kafka_message_destroy(rd_kafka_message_t *rkmessage) {
  free(rkmessage);
}

int64_t rd_kafka_message_timestamp(const rd_kafka_message_t *rkmessage, rd_kafka_timestamp_type_t *tstype) {
  const message *what = (const message *)rkmessage;
  *tstype = what->error ? RD_KAFKA_TIMESTAMP_NOT_AVAILABLE : RD_KAFKA_TIMESTAMP_CREATE_TIME;
  return what->error ? -1 : what->record.timestamp_ms;
}

/* A handle on the record's own headers, which are never changed. */
rd_kafka_resp_err_t rd_kafka_message_headers(const rd_kafka_message_t *rkmessage,
                                             rd_kafka_headers_t **hdrsp) {
  const message *what = (const message *)rkmessage;
  if (what->error || !what->record.header_count)
    return RD_KAFKA_RESP_ERR__NOENT;
  rd_kafka_headers_t *headers = rd_kafka_headers_new(what->record.header_count);
  headers->count = what->record.header_count;
  memcpy(headers->at, what->record.headers, headers->count * sizeof *headers->at);
  *hdrsp = headers;
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

rd_kafka_headers_t *rd_kafka_headers_new(size_t initial_count) {
  (void)initial_count;
  return calloc(1, sizeof(rd_kafka_headers_t));
}

void rd_kafka_headers_destroy(rd_kafka_headers_t *hdrs) {
  free(hdrs);
}

rd_kafka_resp_err_t rd_kafka_header_add(rd_kafka_headers_t *hdrs, const char *name, ssize_t name_size,
                                        const void *value, ssize_t value_size) {
  if (hdrs->count == sizeof hdrs->at / sizeof *hdrs->at)
    abort();
  const size_t name_length = name_size < 0 ? strlen(name) : (size_t)name_size;
  const size_t length = !value ? 0 : value_size < 0 ? strlen(value) : (size_t)value_size;
  char *copy = malloc(name_length + length + 2);
  memcpy(copy, name, name_length);
  copy[name_length] = 0;
  if (value)
    memcpy(copy + name_length + 1, value, length);
  copy[name_length + 1 + length] = 0;
  hdrs->at[hdrs->count++] = (sim_header){copy, value ? copy + name_length + 1 : NULL, length};
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

rd_kafka_resp_err_t rd_kafka_header_get_all(const rd_kafka_headers_t *hdrs, size_t idx, const char **namep,
                                            const void **valuep, size_t *sizep) {
  if (idx >= hdrs->count)
    return RD_KAFKA_RESP_ERR__NOENT;
  *namep = hdrs->at[idx].name;
  *valuep = hdrs->at[idx].value;
  *sizep = hdrs->at[idx].size;
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* ---- assignments ----------------------------------------------------------------------------------------------------------------------------- */

static void unassign_lane(lane *of) {
  if (!of->assigned)
    return;
  of->assigned = false;
  of->version++;
  of->assignment++;
  of->stopped_at_us = sim_now_us + sim_between(1, STOP_MOST_US);
}

static void assign_lane(rd_kafka_t *rk, const rd_kafka_topic_partition_t *element) {
  lane *of = lane_of(rk, element->topic, element->partition, true);
  if (!of)
    return;
  const sim_partition *partition = &of->topic.topic->at[of->partition];
  finish_stop(of);
  of->assigned = of->first = true;
  of->failed = false;
  of->end_told = -1;
  of->version++;
  if (!of->forward)
    of->stalled = false;
  of->next = element->offset == RD_KAFKA_OFFSET_END         ? end_of(rk, partition)
             : element->offset == RD_KAFKA_OFFSET_BEGINNING ? partition->low
                                                            : element->offset;
}

rd_kafka_resp_err_t rd_kafka_assign(rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *partitions) {
  for (int i = 0; i < rk->lane_count; i++)
    unassign_lane(rk->lanes[i]);
  for (int i = 0; partitions && i < partitions->cnt; i++)
    assign_lane(rk, &partitions->elems[i]);
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

rd_kafka_error_t *rd_kafka_incremental_assign(rd_kafka_t *rk,
                                              const rd_kafka_topic_partition_list_t *partitions) {
  for (int i = 0; i < partitions->cnt; i++)
    assign_lane(rk, &partitions->elems[i]);
  return NULL;
}

rd_kafka_error_t *rd_kafka_incremental_unassign(rd_kafka_t *rk,
                                                const rd_kafka_topic_partition_list_t *partitions) {
  for (int i = 0; i < partitions->cnt; i++) {
    lane *of = lane_of(rk, partitions->elems[i].topic, partitions->elems[i].partition, false);
    if (!of || !of->assigned)
      return error_of(RD_KAFKA_RESP_ERR__STATE);
    unassign_lane(of);
  }
  return NULL;
}

rd_kafka_error_t *rd_kafka_seek_partitions(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *partitions,
                                           int timeout_ms) {
  (void)timeout_ms;
  sim_sleep_us(sim_between(100, 5000));
  for (int i = 0; i < partitions->cnt; i++) {
    lane *of = lane_of(rk, partitions->elems[i].topic, partitions->elems[i].partition, false);
    const bool able = of && of->assigned && !of->failed;
    partitions->elems[i].err = able ? RD_KAFKA_RESP_ERR_NO_ERROR : RD_KAFKA_RESP_ERR__STATE;
    if (!able)
      continue;
    sim_trace("   seek of partition %d to %lld", of->partition, (long long)partitions->elems[i].offset);
    of->version++;
    of->next = partitions->elems[i].offset;
    of->first = true;
    of->end_told = -1;
  }
  return NULL;
}

rd_kafka_resp_err_t rd_kafka_commit(rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *offsets,
                                    int async) {
  (void)offsets, (void)async;
  rk->commit_open = true;
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* ---- the group ---------------------------------------------------------------------------------------------------------------------------------- */

static group *group_named(const char *name) {
  for (int i = 0; i < group_count; i++)
    if (!strcmp(groups[i].name, name))
      return &groups[i];
  if (group_count == GROUPS)
    abort();
  group *made = &groups[group_count++];
  *made = (group){.not_before_us = 0};
  snprintf(made->name, sizeof made->name, "%s", name);
  return made;
}

static int partitions_of(const rd_kafka_t *rk) {
  int count = 0;
  for (int i = 0; i < rk->subscriptions; i++) {
    const sim_topic *topic = topic_of(rk->subscribed[i]);
    count += topic ? topic->count : 0;
  }
  return count;
}

/* Members are to give back what they have (range), or what they shall not keep (cooperative), before anything is handed out. */
static void rebalance(group *of) {
  of->rebalancing = true;
  of->not_before_us = sim_now_us + sim_between(10000, 200000);
  for (int i = 0; i < of->member_count; i++) {
    rd_kafka_t *member = of->members[i];
    member->assigning = false;
    member->must_revoke = !of->cooperative && member->owned_count > 0;
  }
}

void sim_kafka_rebalance(void) {
  for (int i = 0; i < group_count; i++)
    rebalance(&groups[i]);
}

static void leave(rd_kafka_t *rk) {
  if (!rk->member)
    return;
  rk->member = false;
  group *of = rk->group;
  for (int i = 0; i < of->member_count; i++)
    if (of->members[i] == rk) {
      memmove(&of->members[i], &of->members[i + 1], (size_t)(of->member_count - i - 1) * sizeof *of->members);
      of->member_count--;
      break;
    }
  rebalance(of);
}

static void join(rd_kafka_t *rk) {
  group *of = rk->group;
  rk->member = true;
  rk->evicted = false;
  rk->heartbeat_us = sim_now_us;
  of->members[of->member_count++] = rk;
  rebalance(of);
}

static bool owns(const rd_kafka_t *rk, const owned *what) {
  for (int i = 0; i < rk->owned_count; i++)
    if (rk->owned[i].partition == what->partition && !strcmp(rk->owned[i].topic, what->topic))
      return true;
  return false;
}

static bool wants(const rd_kafka_t *rk, const owned *what) {
  for (int i = 0; i < rk->wanted_count; i++)
    if (rk->wanted[i].partition == what->partition && !strcmp(rk->wanted[i].topic, what->topic))
      return true;
  return false;
}

static bool owned_by_another(const group *of, const rd_kafka_t *rk, const owned *what) {
  for (int i = 0; i < of->member_count; i++)
    if (of->members[i] != rk && owns(of->members[i], what))
      return true;
  return false;
}

/* Contiguous ranges of each topic, members in the order in which they joined. */
static void hand_out(group *of) {
  for (int i = 0; i < of->member_count; i++)
    of->members[i]->wanted_count = 0;
  const rd_kafka_t *any = of->members[0];
  for (int t = 0; t < any->subscriptions; t++) {
    const sim_topic *topic = topic_of(any->subscribed[t]);
    for (int p = 0; topic && p < topic->count; p++) {
      rd_kafka_t *member = of->members[p * of->member_count / topic->count];
      owned *place = &member->wanted[member->wanted_count++];
      snprintf(place->topic, sizeof place->topic, "%s", topic->name);
      place->partition = p;
    }
  }
  of->partitions = partitions_of(any);
  sim_trace("-- the group: %d partitions for %d members", of->partitions, of->member_count);
  for (int i = 0; i < of->member_count; i++) {
    of->members[i]->assigning = true;
    of->members[i]->assign_at_us = sim_now_us + sim_between(1000, 50000);
  }
  of->rebalancing = false;
}

static bool stopping(const rd_kafka_t *rk) {
  for (int i = 0; i < rk->lane_count; i++)
    if (rk->lanes[i]->stopped_at_us > sim_now_us)
      return true;
  return false;
}

static bool lives(const rd_kafka_t *rk) {
  return rk->process->alive && rk->process->started_us == rk->born_us && !sim_paused(rk->process);
}

bool sim_kafka_looked(int partition, int64_t since_us) {
  for (int i = 0; i < handle_count; i++) {
    rd_kafka_t *rk = handles[i];
    if (!rk || !rk->group || !rk->process->alive || rk->process->started_us != rk->born_us)
      continue;
    bool reads = false;
    /* The library's threads go on while the program does something else. */
    if (!sim_paused(rk->process))
      fetch(rk);
    for (int k = 0; k < rk->owned_count; k++)
      reads |= rk->owned[k].partition == partition;
    /* Also what the group has forgotten to take away. */
    for (int k = 0; k < rk->lane_count; k++)
      reads |= rk->lanes[k]->assigned && rk->lanes[k]->partition == partition &&
               !strcmp(rk->lanes[k]->topic.topic->name, SIM_TOPIC);
    if (reads && rk->process->end_asked_us[partition] <= since_us)
      return false;
  }
  return true;
}

static void coordinate(void *opaque, int64_t number) {
  (void)opaque, (void)number;
  sim_at(sim_now_us + COORDINATE_US, coordinate, NULL, 0);
  if (cluster_away()) {
    /* A coordinator that is away evicts nobody: sessions begin again when it is back. */
    for (int g = 0; g < group_count; g++)
      for (int i = 0; i < groups[g].member_count; i++)
        groups[g].members[i]->heartbeat_us = sim_now_us;
    return;
  }
  for (int g = 0; g < group_count; g++) {
    group *of = &groups[g];
    bool waiting = false;
    for (int i = 0; i < of->member_count; i++) {
      rd_kafka_t *member = of->members[i];
      if (lives(member))
        member->heartbeat_us = sim_now_us;
      else if (sim_now_us - member->heartbeat_us > sim_kafka.session_us) {
        member->evicted = true;
        sim_trace("-- the group: %s is taken for dead", member->process->name);
        member->assigning = member->must_revoke = false;
        leave(member);
        i--;
        continue;
      }
      waiting |= member->must_revoke || stopping(member);
    }
    if (!of->member_count)
      continue;
    if (!of->rebalancing && of->partitions != partitions_of(of->members[0]))
      rebalance(of);
    else if (of->rebalancing && !waiting && sim_now_us >= of->not_before_us)
      hand_out(of);
  }
}

rd_kafka_resp_err_t rd_kafka_subscribe(rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *list) {
  const char *strategy = property_of(&rk->conf, "partition.assignment.strategy");
  rk->group = group_named(property_of(&rk->conf, "group.id"));
  rk->group->cooperative = strategy && !strcmp(strategy, "cooperative-sticky");
  for (int i = 0; i < list->cnt && i < 4; i++, rk->subscriptions++)
    snprintf(rk->subscribed[i], sizeof rk->subscribed[i], "%s", list->elems[i].topic);
  join(rk);
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

const char *rd_kafka_rebalance_protocol(rd_kafka_t *rk) {
  return rk->group && rk->group->cooperative ? "COOPERATIVE" : "EAGER";
}

int rd_kafka_assignment_lost(rd_kafka_t *rk) {
  return rk->lost;
}

static void revoke(rd_kafka_t *rk, const owned *which, int count) {
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(count);
  for (int i = 0; i < count; i++)
    rd_kafka_topic_partition_list_add(list, which[i].topic, which[i].partition);
  rk->conf.rebalance(rk, RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS, list, rk->conf.opaque);
  int kept = 0;
  for (int i = 0; i < rk->owned_count; i++) {
    bool gone = false;
    for (int k = 0; k < list->cnt; k++)
      gone |= list->elems[k].partition == rk->owned[i].partition &&
              !strcmp(list->elems[k].topic, rk->owned[i].topic);
    if (!gone)
      rk->owned[kept++] = rk->owned[i];
  }
  rk->owned_count = kept;
  rd_kafka_topic_partition_list_destroy(list);
}

/* What the coordinator wants of this member: told when it polls. */
static void serve_group(rd_kafka_t *rk) {
  if (!rk->group || rk->closing)
    return;
  if (rk->evicted) {
    rk->lost = true;
    if (rk->owned_count)
      revoke(rk, rk->owned, rk->owned_count);
    rk->lost = false;
    join(rk);
    return;
  }
  if (rk->must_revoke) {
    /* Seen of librdkafka 2.0.2 while a topic grew: handed out again what had not been taken away. */
    if (sim_chance(5))
      rk->owned_count = 0;
    else
      revoke(rk, rk->owned, rk->owned_count);
    rk->must_revoke = false;
    return;
  }
  if (!rk->assigning || sim_now_us < rk->assign_at_us || cluster_away())
    return;
  owned list[LANES];
  int count = 0;
  for (int i = 0; i < rk->owned_count; i++)
    if (!wants(rk, &rk->owned[i]))
      list[count++] = rk->owned[i];
  if (count) { /* cooperative only */
    revoke(rk, list, count);
    return;
  }
  bool more = false;
  for (int i = 0; i < rk->wanted_count; i++) {
    if (owns(rk, &rk->wanted[i]))
      continue;
    if (owned_by_another(rk->group, rk, &rk->wanted[i]))
      more = true;
    else
      list[count++] = rk->wanted[i];
  }
  if (count || (!rk->group->cooperative && !more)) {
    rd_kafka_topic_partition_list_t *given = rd_kafka_topic_partition_list_new(count);
    for (int i = 0; i < count; i++) {
      rd_kafka_topic_partition_list_add(given, list[i].topic, list[i].partition);
      rk->owned[rk->owned_count++] = list[i];
    }
    rk->assigning = more;
    rk->conf.rebalance(rk, RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS, given, rk->conf.opaque);
    rd_kafka_topic_partition_list_destroy(given);
  } else if (!more) {
    rk->assigning = false;
  }
}

rd_kafka_message_t *rd_kafka_consumer_poll(rd_kafka_t *rk, int timeout_ms) {
  if (rk->commit_open && rk->conf.committed) {
    rk->commit_open = false;
    rk->conf.committed(rk, RD_KAFKA_RESP_ERR_NO_ERROR, NULL, rk->conf.opaque);
  }
  for (int turn = 0; turn < 2; turn++) {
    serve_group(rk);
    fetch(rk);
    for (message *next; (next = take(&rk->main));) {
      if (served(next))
        return &next->message;
      free(next);
    }
    if (turn == 0)
      wait_for_kafka(rk, timeout_ms);
  }
  return NULL;
}

rd_kafka_error_t *rd_kafka_consumer_close_queue(rd_kafka_t *rk, rd_kafka_queue_t *rkqu) {
  (void)rkqu;
  rk->closing = true;
  return NULL;
}

int rd_kafka_queue_poll_callback(rd_kafka_queue_t *rkqu, int timeout_ms) {
  rd_kafka_t *rk = rkqu->rk;
  if (rk->closing && !rk->closed) {
    if (rk->owned_count) {
      revoke(rk, rk->owned, rk->owned_count);
    } else if (!cluster_away()) {
      rk->closed = true;
      leave(rk);
    }
  }
  wait_for_kafka(rk, rk->closed ? 0 : timeout_ms);
  return 1;
}

int rd_kafka_consumer_closed(rd_kafka_t *rk) {
  return rk->closed;
}

/* ---- producing -------------------------------------------------------------------------------------------------------------------------------------- */

static void arrive(void *opaque, int64_t number) {
  (void)number;
  outgoing *what = opaque;
  if (what->finished)
    return; /* purged, or lost with its process */
  what->topic = sim_topic_find(what->name);
  if (!what->topic || cluster_away() || sim_kafka.hold_acks_until_us > sim_now_us) {
    sim_at(sim_now_us + 50000, arrive, what, 0);
    return;
  }
  if ((int)sim_between(0, 99) < sim_kafka.refuse) {
    sim_fault_happened(SIM_REFUSED);
    what->report.message.err =
        sim_chance(50) ? RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE : RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
  } else {
    const int partition =
        what->report.message.partition >= 0 && what->report.message.partition < what->topic->count
            ? what->report.message.partition
            : (int)sim_between(0, what->topic->count - 1);
    what->report.message.partition = partition;
    what->report.message.offset = sim_append(what->topic, partition, &what->record);
    sim_oracle_quarantined(&what->record);
  }
  what->finished = true;
}

static char *copy_of(const void *bytes, size_t size) {
  char *copy = bytes ? malloc(size + 1) : NULL;
  if (copy) {
    memcpy(copy, bytes, size);
    copy[size] = 0;
  }
  return copy;
}

rd_kafka_error_t *rd_kafka_produceva(rd_kafka_t *rk, const rd_kafka_vu_t *vus, size_t cnt) {
  if (sim_kafka.queue_full_until_us > sim_now_us)
    return error_of(RD_KAFKA_RESP_ERR__QUEUE_FULL);
  outgoing *what = calloc(1, sizeof *what);
  what->rk = rk;
  what->record.truth = -1;
  what->record.timestamp_ms = sim_wall_ms();
  what->report.message.partition = RD_KAFKA_PARTITION_UA;
  for (size_t i = 0; i < cnt; i++) {
    const rd_kafka_vu_t *vu = &vus[i];
    switch (vu->vtype) {
    case RD_KAFKA_VTYPE_TOPIC: snprintf(what->name, sizeof what->name, "%s", vu->u.cstr); break;
    case RD_KAFKA_VTYPE_PARTITION: what->report.message.partition = vu->u.i32; break;
    case RD_KAFKA_VTYPE_MSGFLAGS: break;
    case RD_KAFKA_VTYPE_KEY:
      what->record.key = copy_of(vu->u.mem.ptr, what->record.key_size = vu->u.mem.size);
      break;
    case RD_KAFKA_VTYPE_VALUE:
      what->record.value = copy_of(vu->u.mem.ptr, what->record.value_size = vu->u.mem.size);
      break;
    case RD_KAFKA_VTYPE_TIMESTAMP:
      if (vu->u.i64)
        what->record.timestamp_ms = vu->u.i64;
      break;
    case RD_KAFKA_VTYPE_OPAQUE: what->report.message._private = vu->u.ptr; break;
    case RD_KAFKA_VTYPE_HEADERS:
      what->record.headers = vu->u.headers->at;
      what->record.header_count = vu->u.headers->count;
      break;
    default: sim_fail("simulator", "Kafka: producing with argument type %d is not simulated", (int)vu->vtype);
    }
  }
  if (rk->sent_last)
    rk->sent_last->next = what;
  else
    rk->sent = what;
  rk->sent_last = what;
  sim_at(sim_now_us + sim_between(500, 20000), arrive, what, 0);
  return NULL;
}

static int report(rd_kafka_t *rk) {
  int count = 0;
  while (rk->sent && rk->sent->finished) {
    outgoing *first = rk->sent;
    rk->sent = first->next;
    if (!first->next)
      rk->sent_last = NULL;
    rk->conf.delivered(rk, &first->report.message, rk->conf.opaque);
    count++;
  }
  return count;
}

int rd_kafka_poll(rd_kafka_t *rk, int timeout_ms) {
  int count = report(rk);
  if (!count && timeout_ms > 0) {
    sim_sleep_us((int64_t)timeout_ms * 1000);
    count = report(rk);
  }
  return count;
}

rd_kafka_resp_err_t rd_kafka_flush(rd_kafka_t *rk, int timeout_ms) {
  const int64_t until = sim_now_us + (int64_t)timeout_ms * 1000;
  do
    rd_kafka_poll(rk, 10);
  while (rk->sent && sim_now_us < until);
  return rk->sent ? RD_KAFKA_RESP_ERR__TIMED_OUT : RD_KAFKA_RESP_ERR_NO_ERROR;
}

rd_kafka_resp_err_t rd_kafka_purge(rd_kafka_t *rk, int purge_flags) {
  (void)purge_flags;
  for (outgoing *each = rk->sent; each; each = each->next)
    if (!each->finished) {
      each->finished = true;
      each->report.message.err = RD_KAFKA_RESP_ERR__PURGE_QUEUE;
    }
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* ---- administration ------------------------------------------------------------------------------------------------------------------------------------ */

struct rd_kafka_NewTopic_s {
  char name[250];
  char policy[32];
  int partitions;
};
struct rd_kafka_topic_result_s {
  rd_kafka_resp_err_t err;
};
struct rd_kafka_ConfigEntry_s {
  const char *name, *value;
};
struct rd_kafka_ConfigResource_s {
  char name[250];
  struct rd_kafka_ConfigEntry_s policy;
  const rd_kafka_ConfigEntry_t *entries[1];
};
struct rd_kafka_AdminOptions_s {
  int timeout_ms;
};
struct rd_kafka_op_s { /* an event */
  struct rd_kafka_topic_result_s result;
  const rd_kafka_topic_result_t *results[1];
  struct rd_kafka_ConfigResource_s resource;
  const rd_kafka_ConfigResource_t *resources[1];
};

rd_kafka_NewTopic_t *rd_kafka_NewTopic_new(const char *topic, int num_partitions, int replication_factor,
                                           char *errstr, size_t errstr_size) {
  (void)replication_factor, (void)errstr, (void)errstr_size;
  rd_kafka_NewTopic_t *made = calloc(1, sizeof *made);
  snprintf(made->name, sizeof made->name, "%s", topic);
  made->partitions = num_partitions > 0 ? num_partitions : 1;
  return made;
}

void rd_kafka_NewTopic_destroy(rd_kafka_NewTopic_t *new_topic) {
  free(new_topic);
}

rd_kafka_resp_err_t rd_kafka_NewTopic_set_config(rd_kafka_NewTopic_t *new_topic, const char *name,
                                                 const char *value) {
  if (!strcmp(name, "cleanup.policy"))
    snprintf(new_topic->policy, sizeof new_topic->policy, "%s", value);
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

rd_kafka_AdminOptions_t *rd_kafka_AdminOptions_new(rd_kafka_t *rk, rd_kafka_admin_op_t for_api) {
  (void)rk, (void)for_api;
  return calloc(1, sizeof(rd_kafka_AdminOptions_t));
}

void rd_kafka_AdminOptions_destroy(rd_kafka_AdminOptions_t *options) {
  free(options);
}

rd_kafka_resp_err_t rd_kafka_AdminOptions_set_request_timeout(rd_kafka_AdminOptions_t *options,
                                                              int timeout_ms, char *errstr,
                                                              size_t errstr_size) {
  (void)errstr, (void)errstr_size;
  options->timeout_ms = timeout_ms;
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_event_t *new_event(void) {
  rd_kafka_event_t *event = calloc(1, sizeof *event);
  event->results[0] = &event->result;
  event->resources[0] = &event->resource;
  return event;
}

void rd_kafka_CreateTopics(rd_kafka_t *rk, rd_kafka_NewTopic_t **new_topics, size_t new_topic_cnt,
                           const rd_kafka_AdminOptions_t *options, rd_kafka_queue_t *rkqu) {
  (void)rk, (void)options;
  if (cluster_away())
    return;
  rkqu->event = new_event();
  for (size_t i = 0; i < new_topic_cnt; i++) {
    if (sim_topic_find(new_topics[i]->name))
      rkqu->event->result.err = RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS;
    else {
      sim_topic *made = sim_topic_make(new_topics[i]->name, new_topics[i]->partitions);
      if (new_topics[i]->policy[0])
        memcpy(made->policy, new_topics[i]->policy, sizeof made->policy);
    }
  }
}

void rd_kafka_DescribeConfigs(rd_kafka_t *rk, rd_kafka_ConfigResource_t **configs, size_t config_cnt,
                              const rd_kafka_AdminOptions_t *options, rd_kafka_queue_t *rkqu) {
  (void)rk, (void)options, (void)config_cnt;
  if (cluster_away())
    return;
  rkqu->event = new_event();
  struct rd_kafka_ConfigResource_s *resource = &rkqu->event->resource;
  const sim_topic *topic = sim_topic_find(configs[0]->name);
  *resource = *configs[0];
  resource->policy = (struct rd_kafka_ConfigEntry_s){"cleanup.policy", topic ? topic->policy : "delete"};
  resource->entries[0] = &resource->policy;
}

rd_kafka_event_t *rd_kafka_queue_poll(rd_kafka_queue_t *rkqu, int timeout_ms) {
  sim_sleep_us(rkqu->event ? sim_between(1000, 10000) : (int64_t)timeout_ms * 1000);
  rd_kafka_event_t *event = rkqu->event;
  rkqu->event = NULL;
  return event;
}

void rd_kafka_event_destroy(rd_kafka_event_t *rkev) {
  free(rkev);
}

rd_kafka_resp_err_t rd_kafka_event_error(rd_kafka_event_t *rkev) {
  (void)rkev;
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

const char *rd_kafka_event_error_string(rd_kafka_event_t *rkev) {
  (void)rkev;
  return "";
}

const rd_kafka_CreateTopics_result_t *rd_kafka_event_CreateTopics_result(rd_kafka_event_t *rkev) {
  return rkev;
}

const rd_kafka_topic_result_t **rd_kafka_CreateTopics_result_topics(
    const rd_kafka_CreateTopics_result_t *result, size_t *cntp) {
  *cntp = 1;
  return ((rd_kafka_event_t *)(uintptr_t)result)->results;
}

rd_kafka_resp_err_t rd_kafka_topic_result_error(const rd_kafka_topic_result_t *topicres) {
  return topicres->err;
}

const char *rd_kafka_topic_result_error_string(const rd_kafka_topic_result_t *topicres) {
  return rd_kafka_err2str(topicres->err);
}

const rd_kafka_DescribeConfigs_result_t *rd_kafka_event_DescribeConfigs_result(rd_kafka_event_t *rkev) {
  return rkev;
}

const rd_kafka_ConfigResource_t **rd_kafka_DescribeConfigs_result_resources(
    const rd_kafka_DescribeConfigs_result_t *result, size_t *cntp) {
  *cntp = 1;
  return ((rd_kafka_event_t *)(uintptr_t)result)->resources;
}

rd_kafka_ConfigResource_t *rd_kafka_ConfigResource_new(rd_kafka_ResourceType_t restype, const char *resname) {
  (void)restype;
  rd_kafka_ConfigResource_t *made = calloc(1, sizeof *made);
  snprintf(made->name, sizeof made->name, "%s", resname);
  return made;
}

void rd_kafka_ConfigResource_destroy(rd_kafka_ConfigResource_t *config) {
  free(config);
}

rd_kafka_resp_err_t rd_kafka_ConfigResource_error(const rd_kafka_ConfigResource_t *config) {
  (void)config;
  return RD_KAFKA_RESP_ERR_NO_ERROR;
}

const char *rd_kafka_ConfigResource_error_string(const rd_kafka_ConfigResource_t *config) {
  (void)config;
  return "";
}

const rd_kafka_ConfigEntry_t **rd_kafka_ConfigResource_configs(const rd_kafka_ConfigResource_t *config,
                                                               size_t *cntp) {
  *cntp = 1;
  return ((rd_kafka_ConfigResource_t *)(uintptr_t)config)->entries;
}

const char *rd_kafka_ConfigEntry_name(const rd_kafka_ConfigEntry_t *entry) {
  return entry->name;
}

const char *rd_kafka_ConfigEntry_value(const rd_kafka_ConfigEntry_t *entry) {
  return entry->value;
}

/* ---- a seed begins --------------------------------------------------------------------------------------------------------------------------------------- */

void sim_kafka_reset(void) {
  sim_kafka = (sim_kafka_cluster){.session_us = 6000000};
  topic_count = handle_count = group_count = 0;
  sim_at(COORDINATE_US, coordinate, NULL, 0);
}
