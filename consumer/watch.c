#include "watch.h"

#include "../common/clock.h"
#include "../common/kafka.h"
#include "../common/log.h"
#include "../common/stop.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum {
  ENDS_EVERY_MS = 500,
  METADATA_EVERY_MS = 5000,
  AWAY_MS = 8000,  /* longer without any answer is an outage */
  ASK_MS = 1000,   /* one question about ends; the thread must notice a stop soon */
  BEGIN_MS = 10000 /* one question at genesis */
};

typedef struct {
  char topic[250];
  int32_t partition;
  int64_t high, asked_ms;
} end;

struct livenps_watch {
  const livenps_settings *settings;
  rd_kafka_t *rk;        /* read_uncommitted */
  rd_kafka_t *stable_rk; /* read_committed, made when first needed (replay) */
  pthread_mutex_t lock;
  end *ends;
  size_t end_count;
  size_t total;
  bool total_known;
  atomic_bool stop;
  int64_t answered_ms; /* when a broker did so last; 0: not yet */
  bool started;
  pthread_t thread;
};

static int open_handle(rd_kafka_t **out, const livenps_settings *settings, const char *isolation,
                       livenps_error *error) {
  rd_kafka_conf_t *conf;
  if (livenps_kafka_conf(&conf, settings, LIVENPS_KAFKA_CONSUMER, error))
    return -1;
  if (livenps_kafka_set(conf, "isolation.level", isolation, error) ||
      livenps_kafka_set(conf, "enable.auto.commit", "false", error) ||
      livenps_kafka_set(conf, "enable.partition.eof", "false", error)) {
    rd_kafka_conf_destroy(conf);
    return -1;
  }
  return livenps_kafka_open(out, conf, LIVENPS_KAFKA_CONSUMER, error);
}

static int check_topic(livenps_watch *watch, const char *topic, livenps_error *error) {
  const int partitions = livenps_kafka_partitions(watch->rk, topic, BEGIN_MS, error);
  if (partitions < 0) {
    error->code = LIVENPS_E_STARTUP;
    return -1;
  }
  if (partitions == 0)
    return livenps_fail(
        error, LIVENPS_E_STARTUP,
        "kafka: topic %s does not exist at %s (or may not be described): create it, or correct the name (the "
        "setting topics, or --topic of a replay)",
        topic, livenps_kafka_servers(watch->settings));
  if (livenps_embedded_cluster(watch->rk, BEGIN_MS))
    return 0;
  static const char *const names[] = {"cleanup.policy"};
  char *policy[1];
  livenps_error unanswered = {0};
  if (livenps_kafka_topic_config(watch->rk, topic, names, 1, policy, 2000, &unanswered)) {
    livenps_log(LIVENPS_WARN, "watch", "topic %s: whether it is compacted is unknown (%s)", topic,
                unanswered.text);
    return 0;
  }
  const bool compacted = policy[0] && strstr(policy[0], "compact");
  free(policy[0]);
  if (!compacted)
    return 0;
  if (!watch->settings->topics_allow_compacted)
    return livenps_fail(
        error, LIVENPS_E_STARTUP,
        "kafka: topic %s is compacted: Kafka removes records from it, so a replay cannot give the live counts; "
        "use cleanup.policy=delete, or set allow_compacted: true to accept that",
        topic);
  livenps_log(LIVENPS_WARN, "watch", "topic %s is compacted: a replay may give other counts than live",
              topic);
  return 0;
}

/* librdkafka tells of brokers that go, but not of those that come back: whoever reads the log wants both. A question under way
 * when they go is answered, or fails, only when they are back. */
static void answered(livenps_watch *watch) {
  const int64_t now_ms = livenps_monotonic_ms();
  if (watch->answered_ms && now_ms - watch->answered_ms >= AWAY_MS)
    livenps_log(LIVENPS_INFO, "watch", "Kafka answers again after %.0f s",
                (double)(now_ms - watch->answered_ms) / 1000.0);
  watch->answered_ms = now_ms;
}

/* Number of partitions over all our topics; false when a topic is unknown at the moment. */
static bool count_partitions(livenps_watch *watch, int timeout_ms, size_t *total) {
  const struct rd_kafka_metadata *metadata;
  if (rd_kafka_metadata(watch->rk, 1, NULL, &metadata, timeout_ms))
    return false;
  answered(watch);
  size_t found = 0;
  *total = 0;
  for (size_t t = 0; t < watch->settings->topics.count; t++)
    for (int i = 0; i < metadata->topic_cnt; i++)
      if (!strcmp(metadata->topics[i].topic, watch->settings->topics.at[t]) &&
          metadata->topics[i].partition_cnt > 0) {
        found++;
        *total += (size_t)metadata->topics[i].partition_cnt;
      }
  rd_kafka_metadata_destroy(metadata);
  return found == watch->settings->topics.count;
}

int livenps_watch_open(livenps_watch **out, const livenps_settings *settings, livenps_error *error) {
  livenps_watch *watch = livenps_alloc(sizeof *watch);
  watch->settings = settings;
  pthread_mutex_init(&watch->lock, NULL);
  if (settings->topics.count == 0) {
    livenps_fail(error, LIVENPS_E_USAGE,
                 "topics is not set: say which topics to read, for example --set topics=events");
    goto failed;
  }
  if (open_handle(&watch->rk, settings, "read_uncommitted", error) ||
      livenps_kafka_reach(watch->rk, settings, (int)settings->startup_timeout_ms, error))
    goto failed;
  for (size_t i = 0; i < settings->topics.count; i++)
    if (check_topic(watch, settings->topics.at[i], error))
      goto failed;
  watch->total_known = count_partitions(watch, BEGIN_MS, &watch->total);
  *out = watch;
  return 0;

failed:
  livenps_watch_close(watch);
  return -1;
}

/* One request to each leader for all partitions, so that the answers are as fresh for a thousand partitions as for one: a time of
 * RD_KAFKA_OFFSET_END means the end. */
static void ask_ends(livenps_watch *watch) {
  pthread_mutex_lock(&watch->lock);
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)watch->end_count + 1);
  for (size_t i = 0; i < watch->end_count; i++)
    rd_kafka_topic_partition_list_add(list, watch->ends[i].topic, watch->ends[i].partition)->offset =
        RD_KAFKA_OFFSET_END;
  pthread_mutex_unlock(&watch->lock);
  const int64_t asked_ms = livenps_monotonic_ms();
  if (list->cnt && !rd_kafka_offsets_for_times(watch->rk, list, ASK_MS)) {
    answered(watch);
    pthread_mutex_lock(&watch->lock);
    /* The list may have changed meanwhile: find each again, most likely where it was. */
    for (int i = 0; i < list->cnt; i++) {
      const rd_kafka_topic_partition_t *answer = &list->elems[i];
      end *found = NULL;
      for (size_t k = 0; !found && k < watch->end_count; k++) {
        end *each = &watch->ends[((size_t)i + k) % watch->end_count];
        if (each->partition == answer->partition && !strcmp(each->topic, answer->topic))
          found = each;
      }
      if (found && !answer->err && answer->offset >= 0) {
        found->high = answer->offset;
        found->asked_ms = asked_ms;
      }
    }
    pthread_mutex_unlock(&watch->lock);
  }
  rd_kafka_topic_partition_list_destroy(list);
}

static void *watch_thread(void *opaque) {
  livenps_watch *watch = opaque;
  int64_t ends_ms = 0, metadata_ms = livenps_monotonic_ms();
  while (!watch->stop) {
    const int64_t now_ms = livenps_monotonic_ms();
    if (now_ms - ends_ms >= ENDS_EVERY_MS) {
      ask_ends(watch);
      ends_ms = now_ms;
    }
    if (now_ms - metadata_ms >= METADATA_EVERY_MS) {
      size_t total;
      const bool known = count_partitions(watch, ASK_MS, &total);
      pthread_mutex_lock(&watch->lock);
      if (known)
        watch->total = total;
      watch->total_known = known;
      pthread_mutex_unlock(&watch->lock);
      metadata_ms = now_ms;
    }
    rd_kafka_poll(watch->rk, 50);
  }
  return NULL;
}

void livenps_watch_start(livenps_watch *watch) {
  watch->started = pthread_create(&watch->thread, NULL, watch_thread, watch) == 0;
}

void livenps_watch_close(livenps_watch *watch) {
  if (!watch)
    return;
  watch->stop = true;
  if (watch->started)
    pthread_join(watch->thread, NULL);
  if (watch->stable_rk)
    rd_kafka_destroy(watch->stable_rk);
  if (watch->rk)
    rd_kafka_destroy(watch->rk);
  pthread_mutex_destroy(&watch->lock);
  free(watch->ends);
  free(watch);
}

void livenps_watch_follow(livenps_watch *watch, const livenps_batch *batch) {
  pthread_mutex_lock(&watch->lock);
  watch->ends = livenps_resize(watch->ends, (batch->lane_count + 1) * sizeof *watch->ends);
  watch->end_count = batch->lane_count;
  for (size_t i = 0; i < batch->lane_count; i++) {
    watch->ends[i] = (end){.partition = batch->lanes[i].partition,
                           .high = batch->lanes[i].high,
                           .asked_ms = batch->lanes[i].high_asked_ms};
    snprintf(watch->ends[i].topic, sizeof watch->ends[i].topic, "%s", batch->lanes[i].topic);
  }
  pthread_mutex_unlock(&watch->lock);
}

void livenps_watch_ends(livenps_watch *watch, livenps_batch *batch) {
  pthread_mutex_lock(&watch->lock);
  for (size_t i = 0; i < batch->lane_count; i++) {
    livenps_lane *lane = &batch->lanes[i];
    /* Same order as follow() left them, unless lanes came or went since: then look. */
    const end *found = i < watch->end_count && watch->ends[i].partition == lane->partition &&
                               !strcmp(watch->ends[i].topic, lane->topic)
                           ? &watch->ends[i]
                           : NULL;
    for (size_t k = 0; !found && k < watch->end_count; k++)
      if (watch->ends[k].partition == lane->partition && !strcmp(watch->ends[k].topic, lane->topic))
        found = &watch->ends[k];
    if (found) {
      lane->high = found->high;
      lane->high_asked_ms = found->asked_ms;
    }
  }
  pthread_mutex_unlock(&watch->lock);
}

int livenps_watch_bounds(livenps_watch *watch, const char *topic, int32_t partition, bool stable,
                         int64_t *low, int64_t *high, livenps_error *error) {
  if (stable && !watch->stable_rk && open_handle(&watch->stable_rk, watch->settings, "read_committed", error))
    return -1;
  const rd_kafka_resp_err_t code = rd_kafka_query_watermark_offsets(stable ? watch->stable_rk : watch->rk,
                                                                    topic, partition, low, high, BEGIN_MS);
  if (code)
    return livenps_fail(error, LIVENPS_E_LOST, "kafka: bounds of %s/%d: %s", topic, partition,
                        rd_kafka_err2str(code));
  return 0;
}

/* First offset whose record timestamp is at or after since_ms; -1 when there is none. */
static int offset_for_time(livenps_watch *watch, const char *topic, int32_t partition, int64_t since_ms,
                           int64_t *offset, livenps_error *error) {
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
  rd_kafka_topic_partition_list_add(list, topic, partition)->offset = since_ms;
  rd_kafka_resp_err_t code = rd_kafka_offsets_for_times(watch->rk, list, BEGIN_MS);
  if (!code)
    code = list->elems[0].err;
  *offset = list->elems[0].offset;
  rd_kafka_topic_partition_list_destroy(list);
  if (code)
    return livenps_fail(error, LIVENPS_E_LOST, "kafka: offset of %s/%d by time: %s", topic, partition,
                        rd_kafka_err2str(code));
  return 0;
}

enum { COVERED_ASK = -2 }; /* in a beginning: its first record says since when it is covered */

static livenps_beginning *asked_of(livenps_beginning *beginnings, size_t count,
                                   const rd_kafka_message_t *message) {
  for (size_t i = 0; message->rkt && i < count; i++)
    if (beginnings[i].covered_since_ms == COVERED_ASK && beginnings[i].partition == message->partition &&
        !strcmp(beginnings[i].topic, rd_kafka_topic_name(message->rkt)))
      return &beginnings[i];
  return NULL;
}

/* Partitions that have lost records are covered since the first that they still have, and the skew that its events may be ahead. One reader
 * for all of them: one after the other takes a third of a second each. Where no record comes in time, nothing is known (-1). */
static int read_first(livenps_watch *watch, livenps_beginning *beginnings, size_t count,
                      livenps_error *error) {
  rd_kafka_conf_t *conf;
  rd_kafka_t *rk;
  char group[128];
  size_t left = 0;
  for (size_t i = 0; i < count; i++)
    left += beginnings[i].covered_since_ms == COVERED_ASK;
  if (!left)
    return 0;
  snprintf(group, sizeof group, "livenps.%s", watch->settings->namespace_); /* named, but never joined */
  if (livenps_kafka_conf(&conf, watch->settings, LIVENPS_KAFKA_CONSUMER, error))
    return -1;
  if (livenps_kafka_set(conf, "group.id", group, error) ||
      livenps_kafka_set(conf, "isolation.level", "read_uncommitted", error) ||
      livenps_kafka_set(conf, "enable.auto.commit", "false", error) ||
      livenps_kafka_set(conf, "enable.partition.eof", "true", error) ||
      livenps_kafka_set(conf, "auto.offset.reset", "error", error) ||
      livenps_kafka_set(conf, "partition.assignment.strategy", "range", error)) {
    rd_kafka_conf_destroy(conf);
    return -1;
  }
  if (livenps_kafka_open(&rk, conf, LIVENPS_KAFKA_CONSUMER, error))
    return -1;
  rd_kafka_poll_set_consumer(rk);
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)left);
  for (size_t i = 0; i < count; i++)
    if (beginnings[i].covered_since_ms == COVERED_ASK)
      rd_kafka_topic_partition_list_add(list, beginnings[i].topic, beginnings[i].partition)->offset =
          beginnings[i].start;
  const rd_kafka_resp_err_t code = rd_kafka_assign(rk, list);
  rd_kafka_topic_partition_list_destroy(list);
  const int64_t until = livenps_monotonic_ms() + BEGIN_MS;
  while (!code && left && !livenps_stop && livenps_monotonic_ms() < until) {
    rd_kafka_message_t *message = rd_kafka_consumer_poll(rk, 100);
    livenps_beginning *beginning = message ? asked_of(beginnings, count, message) : NULL;
    const bool nothing = beginning && (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF ||
                                       message->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET);
    if (beginning && (nothing || !message->err)) {
      rd_kafka_timestamp_type_t type;
      const int64_t first_ms = nothing ? -1 : rd_kafka_message_timestamp(message, &type);
      /* A timestamp that only a broken clock gives tells nothing. */
      beginning->covered_since_ms =
          first_ms < 0 || first_ms > INT64_MAX / 4 ? -1 : first_ms + watch->settings->admit_future_ms;
      left--;
    }
    if (message)
      rd_kafka_message_destroy(message);
  }
  rd_kafka_assign(rk, NULL);
  rd_kafka_destroy(rk);
  for (size_t i = 0; i < count; i++)
    if (beginnings[i].covered_since_ms == COVERED_ASK)
      beginnings[i].covered_since_ms = -1;
  if (code)
    return livenps_fail(error, LIVENPS_E_LOST, "kafka: reading the first records: %s",
                        rd_kafka_err2str(code));
  return livenps_stop ? livenps_fail(error, LIVENPS_E_LOST, "stopped while Kafka was asked where to begin")
                      : 0;
}

static int begin_partition(livenps_watch *watch, const char *topic, int32_t partition, int64_t since_ms,
                           livenps_beginning *beginning, livenps_error *error) {
  int64_t low, high, by_time = -1;
  /* The end is asked for before the question by time: what arrives in between is newer than it and will be read. */
  if (livenps_watch_bounds(watch, topic, partition, false, &low, &high, error))
    return -1;
  if (since_ms > 0 && low < high) {
    if (offset_for_time(watch, topic, partition, since_ms, &by_time, error))
      return -1;
    if (by_time < 0) {
      /* Nothing that new, or the embedded cluster, which answers so to every time: ask for one before all records. */
      int64_t any;
      if (offset_for_time(watch, topic, partition, 1, &any, error))
        return -1;
      by_time = any < 0 ? low : high;
    }
  }
  *beginning = (livenps_beginning){
      .partition = partition, .start = by_time > low ? by_time : low, .first = low, .end = high};
  snprintf(beginning->topic, sizeof beginning->topic, "%s", topic);
  if (beginning->start == 0)
    return 0;
  const int64_t skew_ms = watch->settings->admit_future_ms;
  if (beginning->start > low) {
    beginning->covered_since_ms = since_ms + skew_ms;
    return 0;
  }
  /* The topic has already lost records: what it still has says since when. Without a record nothing is known before now. */
  beginning->covered_since_ms = low < high ? COVERED_ASK : -1;
  return 0;
}

int livenps_watch_beginnings(void *opaque, int64_t since_ms, livenps_beginning **out, size_t *count,
                             livenps_error *error) {
  livenps_watch *watch = opaque;
  livenps_beginning *beginnings = NULL;
  size_t known = 0;
  for (size_t t = 0; t < watch->settings->topics.count; t++) {
    const char *topic = watch->settings->topics.at[t];
    const int partitions = livenps_kafka_partitions(watch->rk, topic, BEGIN_MS, error);
    if (partitions == 0)
      livenps_fail(error, LIVENPS_E_LOST, "kafka: topic %s does not exist", topic);
    if (partitions <= 0)
      goto failed;
    beginnings = livenps_resize(beginnings, (known + (size_t)partitions) * sizeof *beginnings);
    for (int32_t p = 0; p < partitions; p++)
      if (begin_partition(watch, topic, p, since_ms, &beginnings[known++], error))
        goto failed;
  }
  if (read_first(watch, beginnings, known, error))
    goto failed;
  *out = beginnings;
  *count = known;
  return 0;

failed:
  free(beginnings);
  return -1;
}

bool livenps_watch_partitions(void *opaque, size_t *total) {
  livenps_watch *watch = opaque;
  pthread_mutex_lock(&watch->lock);
  const bool known = watch->total_known;
  *total = watch->total;
  pthread_mutex_unlock(&watch->lock);
  return known;
}
