#include "reader.h"

#include "probe.h"

#include "../common/clock.h"
#include "../common/log.h"
#include "../common/pulse.h"
#include "../common/stop.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
  SERVE_MS = 20,   /* one call serves records for at most that long, then the loop goes round */
  LOOK_EVERY = 32, /* records: so often that is looked at */
  SETTLE_MS =
      300, /* after an assignment is taken away, before the next: kafka stops fetching in the background */
  SEEK_MS = 5000,
  CLOSE_MS = 1500,        /* of the seconds that a signal gives us */
  LEAVE_MS = 100,         /* so often a wait looks for a signal */
  KAFKA_COMMIT_MS = 5000, /* for lag tools only */
  BACKOFF_MS = 50,        /* first wait after a refusal, doubled up to redis.backoff_max */
  QUARANTINE_MAX = 10000, /* unacknowledged rejected records in hand before reading pauses */
  QUARANTINE_WAIT_MS = 100,
  QUARANTINE_LEAVE_MS = 1500,    /* the last chance of what was rejected just before a signal */
  QUARANTINE_PATIENCE_MS = 2000, /* longer without an acknowledgement is an outage, said in the log */
  HEADERS_MAX = 20000,
  CACHE = 1024,
  STALL_MS = 20, /* nothing came for so long although there is more: ask (see wake_fetching) */
  STALL_MOST_MS = 1000,
  STALL_ASK_MS = 100,
  STILL_MS =
      30000, /* a partition that has more stands still for so long: asked why (see examine), ever more rarely */
  STILL_MOST_MS = 600000,
  JOINING_MS = 5000,           /* longer without partitions at the start is said in the log */
  BELIEVED_MS = 30000,         /* so long after a hole was confirmed others in the partition are believed */
  LOOK_MS = 500,               /* at doubts and forwards */
  MEASURE_MS = 250,            /* how often the monitor is told */
  TOLD = LIVENPS_REASONS + 32, /* numbers, at most */
  VERIFY_MS =
      3000, /* so long a batch waits for its anchors to be found again; then it is dropped and read again, */
  VERIFY_MOST_MS = 60000, /* and the next one waits twice as long, up to this */
  STEP_AGAIN_MS = 20,
  VERIFY_LEAVE_MS = 2000, /* the same when there is no later */
};

/* Direct-mapped: librdkafka's topic handle and the partition -> lane. Emptied whenever lanes come or go. */
typedef struct {
  const rd_kafka_topic_t *topic;
  int32_t partition;
  size_t lane; /* + 1; 0 is free */
} cached;

struct livenps_reader {
  livenps_reader_config config;
  livenps_batch batch;
  rd_kafka_t *rk;
  rd_kafka_queue_t *data; /* every partition's queue is forwarded here */
  bool group, rebalancing;
  bool assigned_once; /* this handle was handed out its share of the group's partitions, be it none */
  bool assigned;      /* and it was not taken away again */
  bool fenced;        /* by Kafka, for what this handle sent itself: join_anew() */
  bool adopt;         /* what is in hand was dropped: adopt and seek before reading on */
  bool stopping;
  bool may_stall; /* this librdkafka may stop fetching for a second although there is more */
  int64_t wake_at_ms, wake_after_ms;
  int64_t adopt_at_ms, backoff_ms;
  int64_t flush_at_ms, idle_at_ms, kafka_commit_at_ms;
  bool kafka_commit_open; /* sent to Kafka, not answered yet */
  int64_t serve_until_ms;
  uint64_t served;            /* messages */
  int64_t outage_since_ms;    /* 0: none */
  int64_t joining_since_ms;   /* no partitions were assigned yet; 0: told, or they were */
  int64_t settling_since_ms;  /* rejected records hold a commit up; 0: none do */
  int64_t verifying_since_ms; /* a check of the anchors does */
  int64_t verify_ms;          /* how long it may */
  int64_t look_at_ms, measure_at_ms;
  uint64_t told_skips;
  bool waiting_full;
  bool waiting_quarantine; /* its producer had no room for a record: until all of it is acknowledged */
  livenps_probe *probe;    /* of a partition that stands still; one at a time */
  livenps_error fatal;
  livenps_header *headers;
  size_t header_capacity;
  bool *seek;
  int64_t clock_ms, pause_at_ms;
  livenps_reader_stats stats;
  int64_t told[TOLD]; /* to the monitor */
  cached cache[CACHE];
};

/* -- lanes ------------------------------------------------------------------------------------------------------- */

static const livenps_mapping *mapping_of(const livenps_reader *reader, const char *topic) {
  const livenps_list *topics = &reader->config.settings->topics;
  for (size_t i = 0; i < topics->count; i++)
    if (!strcmp(topics->at[i], topic))
      return reader->config.mappings[i];
  return reader->config.mappings[0];
}

static void lanes_changed(livenps_reader *reader) {
  memset(reader->cache, 0, sizeof reader->cache);
  reader->seek = livenps_resize(reader->seek, (reader->batch.lane_count + 1) * sizeof *reader->seek);
  reader->stats.lanes = reader->batch.lane_count;
  livenps_watch_follow(reader->config.watch, &reader->batch);
}

static livenps_lane *lane_of(livenps_reader *reader, const rd_kafka_message_t *message) {
  if (!message->rkt)
    return NULL;
  const size_t place = ((uintptr_t)message->rkt / 64 + (size_t)message->partition) % CACHE;
  cached *entry = &reader->cache[place];
  if (entry->lane && entry->topic == message->rkt && entry->partition == message->partition)
    return &reader->batch.lanes[entry->lane - 1];
  livenps_lane *lane =
      livenps_batch_find(&reader->batch, rd_kafka_topic_name(message->rkt), message->partition);
  if (lane)
    *entry = (cached){message->rkt, message->partition, (size_t)(lane - reader->batch.lanes) + 1};
  return lane;
}

/* A partition's records go to our own queue, so that one call serves all of them by callback. Idempotent. */
static void forward(livenps_reader *reader, const livenps_lane *lane) {
  rd_kafka_queue_t *queue = rd_kafka_queue_get_partition(reader->rk, lane->topic, lane->partition);
  if (!queue)
    return;
  rd_kafka_queue_forward(queue, reader->data);
  rd_kafka_queue_destroy(queue);
}

static rd_kafka_topic_partition_list_t *list_of(const livenps_reader *reader, const bool *which) {
  rd_kafka_topic_partition_list_t *list =
      rd_kafka_topic_partition_list_new((int)reader->batch.lane_count + 1);
  for (size_t i = 0; i < reader->batch.lane_count; i++)
    if (!which || which[i])
      rd_kafka_topic_partition_list_add(list, reader->batch.lanes[i].topic, reader->batch.lanes[i].partition)
          ->offset = reader->batch.lanes[i].next;
  return list;
}

static bool cooperative(const livenps_reader *reader) {
  const char *protocol = reader->group ? rd_kafka_rebalance_protocol(reader->rk) : NULL;
  return protocol && !strcmp(protocol, "COOPERATIVE");
}

/* -- outages ------------------------------------------------------------------------------------------------------ */

static void outage(livenps_reader *reader, const livenps_error *error) {
  static livenps_limit limit = {.interval_ms = 10000};
  if (!reader->outage_since_ms) {
    reader->outage_since_ms = livenps_monotonic_ms();
    livenps_log(LIVENPS_WARN, "commit", "%s", error->text);
  } else if (livenps_monotonic_ms() - reader->outage_since_ms >= limit.interval_ms) {
    livenps_log_limited(&limit, LIVENPS_WARN, "commit", "still waiting after %" PRId64 " s: %s",
                        (livenps_monotonic_ms() - reader->outage_since_ms) / 1000, error->text);
  }
}

static void outage_over(livenps_reader *reader) {
  reader->backoff_ms = 0;
  if (!reader->outage_since_ms)
    return;
  livenps_log(LIVENPS_INFO, "commit", "going on after %.1f s",
              (double)(livenps_monotonic_ms() - reader->outage_since_ms) / 1000.0);
  reader->outage_since_ms = 0;
}

/* After a kill -9 Kafka takes the dead member for a living one until its session has run out: silence would look like a hang. */
static void tell_joining(livenps_reader *reader, int64_t now_ms) {
  if (!reader->assigned_once && now_ms - reader->joining_since_ms < JOINING_MS)
    return;
  reader->joining_since_ms = 0;
  if (reader->assigned_once)
    return;
  livenps_log(LIVENPS_INFO, "ingest",
              "waiting for the group to hand out partitions: a member that was killed keeps its own until "
              "kafka.session.timeout.ms is over (45 s if not set); with the setting instance it would not");
}

static void back_off(livenps_reader *reader) {
  const int64_t most = reader->config.settings->redis_backoff_max_ms;
  reader->backoff_ms = reader->backoff_ms ? reader->backoff_ms * 2 : BACKOFF_MS;
  if (reader->backoff_ms > most)
    reader->backoff_ms = most;
  reader->adopt_at_ms = livenps_monotonic_ms() + reader->backoff_ms;
}

/* A full queue makes librdkafka 2.0.2 look again only after a second, although we may have emptied it in a tenth of that. Any request to that
 * broker wakes it: we ask for the ends of what, by the last fetch, has more than we have read; one request goes to each broker. Only called
 * when the queue is empty, so that waiting for the answer costs nothing; and ever more rarely while nothing comes, because behind an open
 * transaction there is more that may not be read yet. */
static void wake_fetching(livenps_reader *reader) {
  rd_kafka_topic_partition_list_t *list =
      rd_kafka_topic_partition_list_new((int)reader->batch.lane_count + 1);
  for (size_t i = 0; i < reader->batch.lane_count; i++) {
    const livenps_lane *lane = &reader->batch.lanes[i];
    int64_t low, high;
    if (!rd_kafka_get_watermark_offsets(reader->rk, lane->topic, lane->partition, &low, &high) &&
        lane->next < high && lane->next < lane->end)
      rd_kafka_topic_partition_list_add(list, lane->topic, lane->partition)->offset = RD_KAFKA_OFFSET_END;
  }
  if (list->cnt)
    rd_kafka_offsets_for_times(reader->rk, list, STALL_ASK_MS);
  rd_kafka_topic_partition_list_destroy(list);
  reader->wake_after_ms =
      reader->wake_after_ms < STALL_MOST_MS / 2 ? reader->wake_after_ms * 2 : STALL_MOST_MS;
  reader->wake_at_ms = livenps_monotonic_ms() + reader->wake_after_ms;
}

static void wait_ms(int64_t ms) {
  struct timespec time = {ms / 1000, ms % 1000 * 1000000};
  nanosleep(&time, NULL);
}

/* -- records ------------------------------------------------------------------------------------------------------ */

static void take_headers(livenps_reader *reader, const rd_kafka_message_t *message, livenps_record *record) {
  rd_kafka_headers_t *headers;
  if (rd_kafka_message_headers(message, &headers))
    return;
  const char *name;
  const void *value;
  size_t size;
  for (size_t i = 0; i < HEADERS_MAX && !rd_kafka_header_get_all(headers, i, &name, &value, &size); i++) {
    if (i == reader->header_capacity) {
      reader->header_capacity = reader->header_capacity ? reader->header_capacity * 2 : 16;
      reader->headers = livenps_resize(reader->headers, reader->header_capacity * sizeof *reader->headers);
    }
    reader->headers[i] = (livenps_header){livenps_text_of(name), {value, size}};
    record->header_count = i + 1;
  }
  record->headers = reader->headers;
}

static void reject(livenps_reader *reader, livenps_lane *lane, int64_t offset, const livenps_record *record,
                   livenps_reason reason, const livenps_where *where) {
  static livenps_limit limit = {.interval_ms = 5000};
  reader->stats.reasons[reason]++;
  livenps_log_limited(&limit, LIVENPS_WARN, "ingest", "%s offset %" PRId64 " rejected: %s: %s", lane->field,
                      offset, livenps_reason_name(reason), livenps_reason_text(reason));
  if (!reader->config.quarantine)
    return;
  livenps_error error = {0};
  if (livenps_quarantine_put(reader->config.quarantine, lane->topic, lane->partition, offset, record, reason,
                             where, &error)) {
    if (error.code == LIVENPS_E_LOST) {
      /* Dropping the batch instead would send all of its rejected records again, fill the queue again, and so for ever. */
      livenps_batch_take_back(lane, offset, reason);
      reader->waiting_quarantine = true;
      reader->stats.records--, reader->stats.fates[LIVENPS_REJECTED]--, reader->stats.reasons[reason]--;
      return;
    }
    /* It is counted already and could not be handed over: the whole batch must be read again. */
    outage(reader, &error);
    reader->adopt = true;
    back_off(reader);
  }
}

/* What the lane holds is committed only after its anchors were found again from now on. */
static void want_check(livenps_lane *lane) {
  lane->wanted_ms = livenps_monotonic_ms();
}

static void on_trouble(livenps_reader *reader, livenps_lane *lane, const rd_kafka_message_t *message) {
  static livenps_limit limit = {.interval_ms = 5000};
  switch (message->err) {
  case RD_KAFKA_RESP_ERR__PARTITION_EOF: livenps_batch_end(&reader->batch, lane, message->offset); break;
  case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
#if RD_KAFKA_VERSION >= 0x020100ff
  case RD_KAFKA_RESP_ERR__LOG_TRUNCATION: /* by leader epochs, which 2.0.2 does not look at */
#endif
  case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
    lane->out_of_range = true;
    want_check(lane);
    break;
  default:
    if (livenps_probe_unreadable(message->err)) {
      /* The error names the first offset of its batch. Before it may stand what nobody is given: the marker of a transaction. */
      if (message->offset > lane->next)
        livenps_batch_begins(&reader->batch, lane, message->offset);
      lane->suspect = message->offset <= lane->next;
    } else {
      /* An unknown topic may come back as another one. */
      lane->doubt = true;
      want_check(lane);
    }
    livenps_log_limited(&limit, LIVENPS_WARN, "ingest", "%s: %s", lane->field,
                        rd_kafka_err2str(message->err));
  }
}

/* Another leader: librdkafka may have skipped records on the way to it, and it may not have all that the old one had. */
static void notice_broker(livenps_lane *lane, const rd_kafka_message_t *message) {
  const int32_t broker = rd_kafka_message_broker_id(message);
  if (broker < 0 || broker == lane->broker)
    return;
  if (lane->broker >= 0) {
    lane->doubt = true;
    want_check(lane);
  }
  lane->broker = broker;
}

/* A confirmed hole is believed to be one of many - each transaction leaves one - for a while, then one of them is fetched again. */
static void renew_doubts(livenps_reader *reader, int64_t now_ms) {
  for (size_t i = 0; i < reader->batch.lane_count; i++) {
    livenps_lane *lane = &reader->batch.lanes[i];
    if (lane->doubt) {
      lane->believed_until_ms = 0;
    } else if (!lane->believed_until_ms) {
      lane->believed_until_ms = now_ms + BELIEVED_MS;
    } else if (now_ms >= lane->believed_until_ms) {
      lane->doubt = true;
    }
  }
  if (reader->batch.skips == reader->told_skips)
    return;
  livenps_log(LIVENPS_WARN, "ingest",
              "offsets from the Kafka client library jumped without a hole %" PRIu64
              " times so far; they were fetched again, nothing is lost",
              reader->batch.skips);
  reader->told_skips = reader->batch.skips;
}

static int64_t newest_clock(const livenps_reader *reader) {
  return reader->batch.clock_ms > reader->clock_ms ? reader->batch.clock_ms : reader->clock_ms;
}

/* Looked at for every record: a quiet topic holds hours of event time in what one call serves. */
static bool ahead(const livenps_reader *reader) {
  return newest_clock(reader) > reader->pause_at_ms;
}

static void on_message(rd_kafka_message_t *message, void *opaque) {
  livenps_reader *reader = opaque;
  livenps_lane *lane = lane_of(reader, message);
  /* Records of partitions that were taken from us stay in the queue for a while. */
  if (!lane || lane->out_of_range)
    return;
  notice_broker(lane, message);
  if (reader->adopt) {
    /* Dropped, so it must be fetched again even if Redis holds just our position. */
    lane->reseek = true;
    return;
  }
  if (message->err) {
    on_trouble(reader, lane, message);
  } else {
    rd_kafka_timestamp_type_t type;
    livenps_record record = {.key = {message->key, message->key_len},
                             .value = {message->payload, message->len},
                             .timestamp_ms = rd_kafka_message_timestamp(message, &type)};
    if (type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE)
      record.timestamp_ms = -1;
    take_headers(reader, message, &record);
    livenps_fate fate;
    livenps_reason reason;
    livenps_where where; /* a rejection fills it; it is too large to be emptied each time */
    if (livenps_batch_record(&reader->batch, lane, message->offset, &record, &fate, &reason, &where)) {
      reader->stats.records++;
      reader->stats.fates[fate]++;
      if (fate == LIVENPS_REJECTED)
        reject(reader, lane, message->offset, &record, reason, &where);
    }
  }
  const bool full =
      livenps_combine_full(reader->batch.combine, (size_t)reader->config.settings->commit_max_cells);
  /* A look at the clock costs as much as a tenth of a record. */
  const bool late = ++reader->served % LOOK_EVERY == 0 && livenps_monotonic_ms() >= reader->serve_until_ms;
  if (full || late || reader->adopt || reader->waiting_quarantine || lane->reseek || ahead(reader))
    rd_kafka_yield(reader->rk);
}

/* All that is in hand is to be read again, from wherever Redis says. */
static void drop(livenps_reader *reader) {
  livenps_batch_drop(&reader->batch);
  reader->adopt = true;
  reader->adopt_at_ms = 0;
}

/* -- what others may know ----------------------------------------------------------------------------------------- */

/* Of each partition: where it is read, how much more it has, and since when there was no more. Returns the longest of the latter. */
static int64_t measure_lanes(livenps_reader *reader, livenps_metrics *metrics) {
  livenps_buffer positions = {0}, lags = {0};
  int64_t caught_up_ms = INT64_MAX;
  const size_t source = (size_t)reader->config.number;
  livenps_metrics_begin(metrics, LIVENPS_M_PARTITION_POSITION, &positions);
  livenps_metrics_begin(metrics, LIVENPS_M_PARTITION_LAG, &lags);
  for (size_t i = 0; i < reader->batch.lane_count; i++) {
    livenps_lane *lane = &reader->batch.lanes[i];
    if (lane->high_asked_ms && lane->next >= lane->high)
      lane->caught_up_ms = lane->high_asked_ms;
    if (lane->caught_up_ms < caught_up_ms)
      caught_up_ms = lane->caught_up_ms;
    if (lane->next < 0)
      continue;
    livenps_metrics_line(metrics, LIVENPS_M_PARTITION_POSITION, &positions, lane->topic, lane->partition,
                         lane->next);
    if (lane->high_asked_ms)
      livenps_metrics_line(metrics, LIVENPS_M_PARTITION_LAG, &lags, lane->topic, lane->partition,
                           lane->high > lane->next ? lane->high - lane->next : 0);
  }
  livenps_metrics_end(metrics, LIVENPS_M_PARTITION_POSITION, source, &positions);
  livenps_metrics_end(metrics, LIVENPS_M_PARTITION_LAG, source, &lags);
  return caught_up_ms;
}

/* Several readers share a metric: each adds what it has not said yet. place: whose turn it is among those that are said. */
static void say(livenps_reader *reader, size_t *place, livenps_monitor_metric metric, size_t which,
                int64_t value) {
  assert(*place < TOLD);
  int64_t *told = &reader->told[(*place)++];
  livenps_metrics_add(livenps_monitor_metrics(reader->config.monitor), metric, which, value - *told);
  *told = value;
}

/* Says to the monitor what this thread has counted. Not for every record: these numbers are only looked at now and then. */
static void measure(livenps_reader *reader) {
  livenps_monitor *monitor = reader->config.monitor;
  livenps_metrics *metrics = livenps_monitor_metrics(monitor);
  const livenps_commit *commit = reader->config.commit;
  if (!metrics || !commit)
    return;
  livenps_reader_stats stats;
  size_t place = 0;
  livenps_reader_stats_get(reader, &stats);
  /* What came out of the decoder and was refused for what it says. */
  uint64_t decoded = stats.records - stats.rejected;
  for (int i = 0; i < LIVENPS_REASONS; i++) {
    say(reader, &place, LIVENPS_M_REJECTED, (size_t)i, (int64_t)stats.reasons[i]);
    if (i == LIVENPS_REASON_FUTURE || i == LIVENPS_REASON_UNKNOWN_TOUCHPOINT ||
        i == LIVENPS_REASON_NO_RECORD_TIME)
      decoded += stats.reasons[i];
  }
  for (size_t i = 0; i < sizeof stats.fates / sizeof *stats.fates; i++)
    say(reader, &place, LIVENPS_M_RECORDS, i, (int64_t)stats.fates[i]);
  say(reader, &place, LIVENPS_M_CONSUMED, 0, (int64_t)stats.records);
  say(reader, &place, LIVENPS_M_DECODED, 0, (int64_t)decoded);
  if (reader->config.quarantine) {
    const size_t pending = livenps_quarantine_pending(reader->config.quarantine);
    say(reader, &place, LIVENPS_M_QUARANTINE_PENDING, 0, (int64_t)pending);
    say(reader, &place, LIVENPS_M_QUARANTINED, 0,
        (int64_t)livenps_quarantine_written(reader->config.quarantine));
  }
  const uint64_t commits[] = {[LIVENPS_M_COMMIT_OK] = commit->commits,
                              [LIVENPS_M_COMMIT_CONFLICT] = commit->conflicts,
                              [LIVENPS_M_COMMIT_ANEW] = commit->anew,
                              [LIVENPS_M_COMMIT_FULL] = commit->full,
                              [LIVENPS_M_COMMIT_LOST] = commit->lost};
  for (size_t i = 0; i < sizeof commits / sizeof *commits; i++)
    say(reader, &place, LIVENPS_M_COMMITS, i, (int64_t)commits[i]);
  say(reader, &place, LIVENPS_M_ADOPTIONS, 0, (int64_t)stats.adoptions);
  say(reader, &place, LIVENPS_M_WENT_BACK, 0, (int64_t)reader->batch.went_back);
  say(reader, &place, LIVENPS_M_REBALANCES, 0, (int64_t)stats.rebalances);
  say(reader, &place, LIVENPS_M_STRAYS, 0, (int64_t)stats.strays);
  say(reader, &place, LIVENPS_M_REFETCHES, 0, (int64_t)stats.refetches);
  say(reader, &place, LIVENPS_M_RESTARTS, 0, (int64_t)stats.restarts);
  say(reader, &place, LIVENPS_M_ASSIGNED, 0, (int64_t)stats.lanes);
  livenps_monitor_reading(monitor, reader->config.number, !reader->outage_since_ms,
                          reader->assigned && !reader->adopt, measure_lanes(reader, metrics));
}

/* -- positions ---------------------------------------------------------------------------------------------------- */

/* Takes everything away and gives it back at lane->next: the only way out of a partition in error (facts: a seek is refused there, and
 * an immediate assignment can stall without an error, because the stop of the old one clears the new forward). */
static void assign_anew(livenps_reader *reader, livenps_error *error) {
  const bool incremental = cooperative(reader);
  rd_kafka_topic_partition_list_t *list = list_of(reader, NULL);
  rd_kafka_error_t *refused = NULL;
  rd_kafka_resp_err_t code = 0;
  if (incremental)
    refused = rd_kafka_incremental_unassign(reader->rk, list);
  else
    code = rd_kafka_assign(reader->rk, NULL);
  if (!refused && !code) {
    const bool adopt = reader->adopt;
    const int64_t until = livenps_monotonic_ms() + SETTLE_MS;
    reader->adopt = true; /* what is still in the queue is dropped */
    while (livenps_monotonic_ms() < until) {
      reader->serve_until_ms = until;
      rd_kafka_consume_callback_queue(reader->data, 20, on_message, reader);
    }
    reader->adopt = adopt;
    for (size_t i = 0; i < reader->batch.lane_count; i++) {
      forward(reader, &reader->batch.lanes[i]);
      reader->batch.lanes[i].doubt = true;
      reader->batch.lanes[i].reseek = false;
    }
    if (incremental)
      refused = rd_kafka_incremental_assign(reader->rk, list);
    else
      code = rd_kafka_assign(reader->rk, list);
  }
  if (refused || code)
    livenps_fail(error, LIVENPS_E_LOST, "kafka: assigning %d partitions anew: %s", list->cnt,
                 refused ? rd_kafka_error_string(refused) : rd_kafka_err2str(code));
  if (refused)
    rd_kafka_error_destroy(refused);
  rd_kafka_topic_partition_list_destroy(list);
}

static void assign_all_anew(livenps_reader *reader) {
  livenps_error error = {0};
  assign_anew(reader, &error);
  if (error.code)
    livenps_log(LIVENPS_WARN, "ingest", "%s", error.text);
}

/* Seeks the lanes that which[] names to their next; where Kafka refuses, all are assigned anew. */
static void reposition(livenps_reader *reader, const bool *which) {
  rd_kafka_topic_partition_list_t *list = list_of(reader, which);
  bool refused = false;
  if (list->cnt) {
    rd_kafka_error_t *error = rd_kafka_seek_partitions(reader->rk, list, SEEK_MS);
    refused = error != NULL;
    if (error)
      rd_kafka_error_destroy(error);
    for (int i = 0; i < list->cnt; i++)
      refused |= list->elems[i].err != 0;
  }
  rd_kafka_topic_partition_list_destroy(list);
  for (size_t i = 0; i < reader->batch.lane_count; i++)
    if (which[i]) {
      reader->batch.lanes[i].reseek = false;
      reader->batch.lanes[i].doubt = true;
    }
  if (refused)
    assign_all_anew(reader);
}

/* A lane that Redis does not know (a partition added after the genesis) begins at its earliest offset. */
static int begin_unknown(livenps_reader *reader, livenps_error *error) {
  for (size_t i = 0; i < reader->batch.lane_count; i++) {
    livenps_lane *lane = &reader->batch.lanes[i];
    if (lane->stored.next >= 0 || lane->start >= 0)
      continue;
    int64_t low, high;
    if (livenps_watch_bounds(reader->config.watch, lane->topic, lane->partition, false, &low, &high, error))
      return -1;
    lane->start = low;
    livenps_batch_adopt(&reader->batch, lane, &(livenps_position){.next = -1},
                        reader->config.commit->redis_ms);
    livenps_log(LIVENPS_INFO, "ingest", "%s is new: reading from offset %" PRId64, lane->field, low);
  }
  return 0;
}

/* One try at adopting the stored positions. true when reading may go on. */
static bool try_adopt(livenps_reader *reader) {
  livenps_error error = {0};
  if (reader->config.commit) {
    /* Rejected records on their way belong to what is dropped; they must not be mistaken for the next batch's. */
    if (reader->config.quarantine &&
        livenps_quarantine_settle(reader->config.quarantine, QUARANTINE_WAIT_MS, &error) == 0) {
      livenps_fail(&error, LIVENPS_E_LOST, "kafka: rejected records are not acknowledged yet");
      outage(reader, &error);
      back_off(reader);
      return false;
    }
    livenps_error_clear(&error);
    switch (livenps_commit_adopt(reader->config.commit, &reader->batch, reader->seek, &error)) {
    case LIVENPS_ADOPTED: break;
    case LIVENPS_ADOPT_STOP: reader->fatal = error; return false;
    case LIVENPS_ADOPT_WAIT:
      outage(reader, &error);
      back_off(reader);
      return false;
    }
    if (begin_unknown(reader, &error)) {
      outage(reader, &error);
      back_off(reader);
      return false;
    }
  } else {
    livenps_batch_drop(&reader->batch);
    for (size_t i = 0; i < reader->batch.lane_count; i++) {
      const livenps_position stored = reader->batch.lanes[i].stored;
      reader->seek[i] = livenps_batch_adopt(&reader->batch, &reader->batch.lanes[i], &stored, 0);
    }
  }
  for (size_t i = 0; i < reader->batch.lane_count; i++)
    want_check(&reader->batch.lanes[i]);
  reader->stats.adoptions++;
  reader->verifying_since_ms = 0;
  /* Positions can be read where nothing can be written (Redis out of memory): only a commit ends an outage and its back-off. */
  if (!reader->config.commit)
    outage_over(reader);
  reader->adopt = false;
  reader->waiting_full = false;
  reader->flush_at_ms = livenps_monotonic_ms() + reader->config.settings->commit_interval_ms;
  reader->idle_at_ms = livenps_monotonic_ms() + reader->config.settings->commit_idle_ms;
  return true;
}

/* Inside a rebalance there is nothing else to do than to wait for Redis: without positions nothing may be read. */
static bool adopt_or_wait(livenps_reader *reader) {
  while (!livenps_stop && !reader->stopping && !reader->fatal.code) {
    if (try_adopt(reader))
      return true;
    measure(reader);
    for (int64_t left = reader->backoff_ms; left > 0 && !livenps_stop; left -= LEAVE_MS) {
      livenps_pulse(); /* a wait for a peer is no reason to be restarted */
      wait_ms(left < LEAVE_MS ? left : LEAVE_MS);
    }
  }
  return false;
}

static int64_t redis_ms(const livenps_reader *reader) {
  return reader->config.commit ? reader->config.commit->redis_ms : 0;
}

/* A replay's ends are those of the topic that it began with: what came of it cannot be repaired, only begun again. */
static void restart(livenps_reader *reader, livenps_lane *lane, livenps_verdict found, int64_t offset,
                    bool keep_root, int64_t sure) {
  const char *what =
      found == LIVENPS_VERDICT_ANEW
          ? "the topic was deleted and made anew: other records stand where those were that we have read"
          : "Kafka has lost the end of the log, which we have read";
  if (!reader->group) {
    livenps_fail(&reader->fatal, LIVENPS_E_REFUSED,
                 "%s: %s; begin the replay again, into another namespace (--into)", lane->field, what);
    return;
  }
  /* Nothing was compared between the last check that found the anchors and now. */
  char twice[160] = "";
  if (found == LIVENPS_VERDICT_ANEW && sure >= 0 && sure < lane->next)
    snprintf(twice, sizeof twice,
             "; up to %" PRId64 " of its records may have been counted before that was seen",
             lane->next - sure);
  livenps_log(LIVENPS_ERROR, "ingest",
              "%s: %s: reading on from offset %" PRId64 " instead of %" PRId64 ", incarnation %" PRId64
              "; windows that it falls in are not complete%s",
              lane->field, what, offset, lane->next, lane->stored.incarnation + 1, twice);
  reader->stats.restarts++;
  livenps_batch_restart(&reader->batch, lane, offset, keep_root, redis_ms(reader));
}

/* Whether the checks found that a lane's offsets mean other records now, and nobody has seen to it yet. */
static bool found_other(const livenps_lane *lane) {
  return lane->finding.found != LIVENPS_VERDICT_SAME && lane->stored.next >= 0 && !lane->restart &&
         livenps_position_same(&lane->finding.of, &lane->stored);
}

/* Whether what is in hand must not be committed. */
static bool any_to_drop(const livenps_reader *reader) {
  for (size_t i = 0; i < reader->batch.lane_count; i++)
    if (found_other(&reader->batch.lanes[i]) || reader->batch.lanes[i].beyond)
      return true;
  return false;
}

/* After an adoption: nothing is in hand, and what the finding was about still stands. The commit that follows says it to all; another
 * instance that was faster is met as a conflict. true when there was one. */
static bool restart_found(livenps_reader *reader) {
  bool any = false;
  for (size_t i = 0; i < reader->batch.lane_count; i++) {
    livenps_lane *lane = &reader->batch.lanes[i];
    if (found_other(lane)) {
      const livenps_finding finding = lane->finding;
      restart(reader, lane, finding.found, finding.offset, finding.keep_root, finding.sure);
      any = true;
    }
  }
  return any;
}

/* Kafka has no such offset: retention passed the position, the topic was made anew and is shorter, or its log was cut. */
static void mend_range(livenps_reader *reader, livenps_lane *lane) {
  livenps_error error = {0};
  int64_t low, high;
  /* Which of these is for the anchors to tell. */
  if (lane->stored.anchor.there && lane->checked_ms < lane->wanted_ms)
    return;
  if (livenps_watch_bounds(reader->config.watch, lane->topic, lane->partition, false, &low, &high, &error)) {
    outage(reader, &error);
    return;
  }
  if (lane->next >= low && lane->next > (lane->stored.next < 0 ? lane->start : lane->stored.next)) {
    /* It ended before next, if only for a moment: what is in hand may be gone, what is stored may still be there. */
    drop(reader);
    return;
  }
  if (lane->next >= low && lane->next <= high) {
    lane->out_of_range = false;
    return;
  }
  if (lane->next > high && lane->stored.anchor.there) {
    want_check(lane); /* the last one saw it reach so far: the next tells */
    return;
  }
  if (lane->next > high) {
    /* No anchor says more. A new topic begins at 0; to take an old one for it would count all of it twice. */
    restart(reader, lane, low == 0 ? LIVENPS_VERDICT_ANEW : LIVENPS_VERDICT_CUT, low == 0 ? low : high, false,
            -1);
    return;
  }
  livenps_log(LIVENPS_ERROR, "ingest",
              "%s: offsets %" PRId64 " to %" PRId64
              " are gone (retention): a gap; windows it falls in are not complete",
              lane->field, lane->next, low);
  livenps_batch_gap(&reader->batch, lane, low, redis_ms(reader));
}

static void mend(livenps_reader *reader) {
  bool seeking = false, anew = false;
  for (size_t i = 0; i < reader->batch.lane_count; i++) {
    livenps_lane *lane = &reader->batch.lanes[i];
    if (lane->out_of_range) {
      mend_range(reader, lane);
      if (reader->adopt)
        return;
      anew |= !lane->out_of_range;
    }
    reader->seek[i] = lane->reseek;
    seeking |= lane->reseek;
  }
  if (anew) {
    assign_all_anew(reader);
  } else if (seeking) {
    reposition(reader, reader->seek);
  }
}

/* -- records that cannot be read ---------------------------------------------------------------------------------- */

/* An end that the partition is known to have; -1: none is known. */
static int64_t reach_of(const livenps_lane *lane) {
  return lane->end != INT64_MAX ? lane->end : lane->high_asked_ms ? lane->high : -1;
}

/* Which lane stands still without a reason of ours. An error of its records is one at once; silence is only after a while. */
static livenps_lane *suspect_of(livenps_reader *reader, bool reading) {
  const int64_t now_ms = livenps_monotonic_ms();
  livenps_lane *found = NULL;
  for (size_t i = 0; i < reader->batch.lane_count; i++) {
    livenps_lane *lane = &reader->batch.lanes[i];
    const bool more = lane->next < reach_of(lane);
    if (!reading || !more || lane->next != lane->still_at) {
      lane->suspect = false; /* should it be one: the error comes again and again */
      lane->still_at = lane->next;
      lane->still_since_ms = now_ms;
      lane->still_ms = STILL_MS;
    }
    if (reading && more && (lane->suspect || now_ms - lane->still_since_ms >= lane->still_ms))
      found = lane;
  }
  return found;
}

/* A partition that stands still although it has more is examined by a probe: records that cannot be read are left out, said
 * out loud and counted; anything else (an open transaction, above all) is waited for. */
static void examine(livenps_reader *reader, bool reading) {
  if (!reader->probe) {
    livenps_lane *lane = suspect_of(reader, reading);
    if (!lane)
      return;
    livenps_error error = {0};
    lane->suspect = false;
    if (livenps_probe_open(&reader->probe, reader->config.settings, lane->topic, lane->partition, lane->next,
                           reach_of(lane), &error))
      livenps_log(LIVENPS_WARN, "ingest", "%s", error.text);
    return;
  }
  int64_t behind;
  const char *reason;
  const livenps_hunt_state state = livenps_probe_step(reader->probe, &behind, &reason);
  if (state == LIVENPS_HUNT_ON)
    return;
  for (size_t i = 0; i < reader->batch.lane_count; i++) {
    livenps_lane *lane = &reader->batch.lanes[i];
    if (!livenps_probe_is_of(reader->probe, lane->topic, lane->partition, lane->next))
      continue;
    if (state == LIVENPS_HUNT_UNREADABLE) {
      livenps_log(LIVENPS_ERROR, "ingest",
                  "%s: offsets %" PRId64 " to %" PRId64
                  " cannot be read (%s): left out, as holes; windows they fall in are not complete",
                  lane->field, lane->next, behind - 1, reason);
      livenps_batch_unreadable(&reader->batch, lane, behind,
                               reader->config.commit ? reader->config.commit->redis_ms : 0);
    } else {
      livenps_log(LIVENPS_WARN, "ingest", "%s stands still at offset %" PRId64 " although it has more: %s",
                  lane->field, lane->next,
                  state == LIVENPS_HUNT_FINE
                      ? "the records are there; behind an open transaction they must wait"
                      : "whether the records can be read is unknown, nobody answers");
      lane->reseek = state == LIVENPS_HUNT_FINE; /* should the fetching have stopped for another reason */
      lane->still_ms = lane->still_ms * 2 < STILL_MOST_MS ? lane->still_ms * 2 : STILL_MOST_MS;
      lane->still_since_ms = livenps_monotonic_ms();
    }
  }
  livenps_probe_close(reader->probe);
  reader->probe = NULL;
}

/* -- commits ------------------------------------------------------------------------------------------------------ */

static int sink(livenps_reader *reader, livenps_error *error) {
  livenps_advance *advances = livenps_alloc((reader->batch.lane_count + 1) * sizeof *advances);
  livenps_entry entry;
  livenps_batch_entry(&reader->batch, livenps_text_of("dry-run"), livenps_monotonic_ms(), advances, &entry);
  const int result = reader->config.sink(reader->config.opaque, &reader->batch.combine, &entry, error);
  free(advances);
  if (!result)
    livenps_batch_committed(&reader->batch);
  else
    reader->fatal = *error;
  return result;
}

/* The clock survives the commit that empties the batch: for progress and pace. */
static void remember_clock(livenps_reader *reader) {
  reader->clock_ms = newest_clock(reader);
}

/* Nothing is committed of a topic that may have become another one since its position was adopted, or since an error that smells of it.
 * Whoever does not answer must not hold up the partitions of others for ever: then all is read again, as far as it can be. */
static int verify(livenps_reader *reader, livenps_error *error) {
  const bool last = livenps_stop || reader->rebalancing;
  const int64_t until = livenps_monotonic_ms() + (last ? VERIFY_LEAVE_MS : 0);
  for (;;) {
    livenps_watch_exchange(reader->config.watch, &reader->batch);
    const bool other = any_to_drop(reader);
    if (!other && livenps_batch_verified(&reader->batch)) {
      if (reader->verifying_since_ms)
        reader->verify_ms = VERIFY_MS;
      reader->verifying_since_ms = 0;
      return 0;
    }
    if (other || livenps_monotonic_ms() >= until)
      break;
    wait_ms(10);
  }
  if (!reader->verifying_since_ms)
    reader->verifying_since_ms = livenps_monotonic_ms();
  if (last) {
    drop(reader);
  } else if (livenps_monotonic_ms() - reader->verifying_since_ms > reader->verify_ms) {
    /* What is read again is checked again from the beginning: where a broker is slow, or one check takes longer for many partitions, nothing
     * would ever be committed. */
    reader->verify_ms = reader->verify_ms * 2 < VERIFY_MOST_MS ? reader->verify_ms * 2 : VERIFY_MOST_MS;
    drop(reader);
  }
  return livenps_fail(error, LIVENPS_E_LOST,
                      "kafka: whether the records that were read are still where they were is not known yet");
}

/* Nobody is away, only slow, ahead of us or begun anew, and nothing is lost: no reason for a supervisor to call this end a failure. */
static int leave_without(livenps_error *error) {
  livenps_log(LIVENPS_INFO, "ingest", "what was in hand is dropped and will be read again: %s", error->text);
  livenps_error_clear(error);
  return 0;
}

int livenps_reader_flush(livenps_reader *reader, livenps_error *error) {
  if (reader->batch.lane_count == 0)
    return 0;
  if (reader->adopt) {
    /* Nothing is in hand. At the end only a Redis that is away makes that a failure. */
    if (livenps_stop && reader->config.commit) {
      try_adopt(reader);
      if (reader->fatal.code)
        return livenps_fail(error, reader->fatal.code, "%s", reader->fatal.text);
      if (livenps_redis_connected(reader->config.commit->redis))
        return 0;
    }
    return livenps_fail(error, LIVENPS_E_LOST, "Redis is away or refuses what is written");
  }
  remember_clock(reader);
  const bool leaving = livenps_stop && !reader->rebalancing;
  if (verify(reader, error))
    return leaving ? leave_without(error) : -1;
  if (!reader->config.commit)
    return sink(reader, error);
  if (reader->config.quarantine) {
    const int settled = livenps_quarantine_settle(
        reader->config.quarantine, livenps_stop ? QUARANTINE_LEAVE_MS : QUARANTINE_WAIT_MS, error);
    if (settled < 0) {
      reader->adopt = true;
      livenps_batch_drop(&reader->batch);
      back_off(reader);
      return -1;
    }
    if (settled == 0) {
      if (!reader->settling_since_ms)
        reader->settling_since_ms = livenps_monotonic_ms();
      return livenps_fail(error, LIVENPS_E_LOST, "kafka: rejected records are not acknowledged yet");
    }
    reader->settling_since_ms = 0;
  }
  livenps_metrics *metrics = livenps_monitor_metrics(reader->config.monitor);
  const size_t rows = livenps_combine_rows(reader->batch.combine);
  const int64_t began_us = metrics ? livenps_monotonic_us() : 0;
  const livenps_committing result = livenps_commit_flush(reader->config.commit, &reader->batch, error);
  if (metrics)
    livenps_metrics_observe(metrics, LIVENPS_M_COMMIT_TIME, livenps_monotonic_us() - began_us);
  switch (result) {
  case LIVENPS_COMMITTED:
    livenps_metrics_add(metrics, LIVENPS_M_ROWS, 0, (int64_t)rows);
    reader->waiting_full = false;
    outage_over(reader);
    return 0;
  case LIVENPS_COMMIT_WAITS: reader->waiting_full = true; break;
  case LIVENPS_COMMIT_READOPT:
  case LIVENPS_COMMIT_UNKNOWN:
    reader->adopt = true;
    back_off(reader);
    if (leaving && result == LIVENPS_COMMIT_READOPT)
      return leave_without(error);
    break;
  case LIVENPS_COMMIT_STOP: reader->fatal = *error; break;
  }
  return -1;
}

/* A replay has read all that it will. */
static bool at_the_end(const livenps_reader *reader) {
  for (size_t i = 0; i < reader->batch.lane_count; i++)
    if (reader->batch.lanes[i].next < reader->batch.lanes[i].end)
      return false;
  return !livenps_batch_empty(&reader->batch);
}

static void flush_when_due(livenps_reader *reader) {
  const int64_t now_ms = livenps_monotonic_ms();
  const livenps_settings *settings = reader->config.settings;
  const bool full = livenps_combine_full(reader->batch.combine, (size_t)settings->commit_max_cells);
  const bool nothing = livenps_batch_empty(&reader->batch);
  if (reader->batch.lane_count == 0 || now_ms < (nothing ? reader->idle_at_ms : reader->flush_at_ms)) {
    /* An early commit when a batch is full, or will not grow; but one that was refused as FULL, or is being verified, keeps its pace. */
    const bool early = full || (at_the_end(reader) && !reader->verifying_since_ms);
    if (!early || reader->waiting_full || reader->outage_since_ms)
      return;
  }
  livenps_error error = {0};
  if (livenps_reader_flush(reader, &error) && !reader->fatal.code &&
      (!reader->settling_since_ms ||
       livenps_monotonic_ms() - reader->settling_since_ms > QUARANTINE_PATIENCE_MS) &&
      (!reader->verifying_since_ms || reader->adopt))
    outage(reader, &error);
  reader->flush_at_ms =
      livenps_monotonic_ms() + (reader->verifying_since_ms ? STEP_AGAIN_MS : settings->commit_interval_ms);
  reader->idle_at_ms = livenps_monotonic_ms() + settings->commit_idle_ms;
}

static void on_committed_to_kafka(rd_kafka_t *rk, rd_kafka_resp_err_t code,
                                  rd_kafka_topic_partition_list_t *offsets, void *opaque) {
  (void)rk, (void)code, (void)offsets;
  ((livenps_reader *)opaque)->kafka_commit_open = false;
}

/* So that lag tools that only know Kafka work; nothing of ours reads these, so a failure is nobody's loss. One at a
 * time: librdkafka keeps what it cannot send while the coordinator is away (see on_fatal for what comes of that). */
static void commit_to_kafka(livenps_reader *reader) {
  if (!reader->group || !reader->config.settings->kafka_commit || reader->rebalancing || reader->adopt ||
      !reader->batch.lane_count || reader->kafka_commit_open)
    return;
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)reader->batch.lane_count);
  for (size_t i = 0; i < reader->batch.lane_count; i++)
    if (reader->batch.lanes[i].stored.next >= 0)
      rd_kafka_topic_partition_list_add(list, reader->batch.lanes[i].topic, reader->batch.lanes[i].partition)
          ->offset = reader->batch.lanes[i].stored.next;
  if (list->cnt)
    reader->kafka_commit_open = rd_kafka_commit(reader->rk, list, 1) == RD_KAFKA_RESP_ERR_NO_ERROR;
  rd_kafka_topic_partition_list_destroy(list);
}

/* -- rebalance ---------------------------------------------------------------------------------------------------- */

/* Eager, an assignment takes the place of all there was. librdkafka 2.0.2 has been seen to give one without having taken the last one away
 * (a topic that grew under load): two lanes of one partition would commit its records twice. Cooperative, what is there already is left out
 * of the list. */
static void forget_repeated(livenps_reader *reader, rd_kafka_topic_partition_list_t *partitions) {
  bool repeated = false;
  for (int i = 0; i < partitions->cnt; i++)
    repeated |= livenps_batch_find(&reader->batch, partitions->elems[i].topic,
                                   partitions->elems[i].partition) != NULL;
  if (!repeated && (cooperative(reader) || !reader->batch.lane_count))
    return;
  livenps_log(LIVENPS_WARN, "ingest",
              "the Kafka client library hands out partitions without having taken away those of before");
  if (!livenps_batch_empty(&reader->batch))
    drop(reader);
  if (!cooperative(reader)) {
    while (reader->batch.lane_count)
      livenps_batch_close(&reader->batch, &reader->batch.lanes[reader->batch.lane_count - 1]);
    return;
  }
  for (int i = partitions->cnt; i-- > 0;)
    if (livenps_batch_find(&reader->batch, partitions->elems[i].topic, partitions->elems[i].partition))
      rd_kafka_topic_partition_list_del_by_idx(partitions, i);
}

static void on_assigned(livenps_reader *reader, rd_kafka_topic_partition_list_t *partitions) {
  livenps_error error = {0};
  if (reader->batch.lane_count && !reader->adopt && livenps_reader_flush(reader, &error) &&
      !reader->fatal.code)
    outage(reader, &error);
  forget_repeated(reader, partitions);
  const size_t kept = reader->batch.lane_count;
  for (int i = 0; i < partitions->cnt; i++)
    livenps_batch_open(&reader->batch, partitions->elems[i].topic, partitions->elems[i].partition,
                       mapping_of(reader, partitions->elems[i].topic), -1);
  lanes_changed(reader);
  reader->adopt = true;
  const bool adopted = adopt_or_wait(reader);
  for (size_t i = kept; i < reader->batch.lane_count; i++)
    forward(reader, &reader->batch.lanes[i]);
  for (int i = 0; i < partitions->cnt; i++)
    /* Without positions (we are stopping) nothing may be read: the end is where nothing is. */
    partitions->elems[i].offset = adopted ? reader->batch.lanes[kept + (size_t)i].next : RD_KAFKA_OFFSET_END;
  rd_kafka_error_t *refused = NULL;
  rd_kafka_resp_err_t code = 0;
  if (cooperative(reader))
    refused = rd_kafka_incremental_assign(reader->rk, partitions);
  else
    code = rd_kafka_assign(reader->rk, partitions);
  if (refused || code)
    livenps_log(LIVENPS_WARN, "ingest", "assignment refused: %s",
                refused ? rd_kafka_error_string(refused) : rd_kafka_err2str(code));
  if (refused)
    rd_kafka_error_destroy(refused);
  /* Lanes we kept may have been dropped back to what Redis holds. */
  if (adopted && kept) {
    for (size_t i = kept; i < reader->batch.lane_count; i++)
      reader->seek[i] = false;
    reposition(reader, reader->seek);
  }
  reader->assigned_once = reader->assigned = true;
}

static void on_revoked(livenps_reader *reader, const rd_kafka_topic_partition_list_t *partitions) {
  livenps_error error = {0};
  if (!reader->adopt && reader->batch.lane_count && !rd_kafka_assignment_lost(reader->rk) &&
      livenps_reader_flush(reader, &error) && !reader->fatal.code)
    livenps_log(LIVENPS_INFO, "ingest", "what was in hand is dropped and will be read again: %s", error.text);
  /* Whatever could not be committed is dropped: the next owner reads it again. */
  if (!livenps_batch_empty(&reader->batch))
    drop(reader);
  for (int i = 0; i < partitions->cnt; i++) {
    livenps_lane *lane =
        livenps_batch_find(&reader->batch, partitions->elems[i].topic, partitions->elems[i].partition);
    if (lane)
      livenps_batch_close(&reader->batch, lane);
  }
  lanes_changed(reader);
  reader->assigned = reader->batch.lane_count > 0; /* cooperative: some of them may stay */
  if (cooperative(reader)) {
    rd_kafka_error_t *refused = rd_kafka_incremental_unassign(reader->rk, partitions);
    if (refused)
      rd_kafka_error_destroy(refused);
  } else {
    rd_kafka_assign(reader->rk, NULL);
  }
}

static void on_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t code,
                         rd_kafka_topic_partition_list_t *partitions, void *opaque) {
  livenps_reader *reader = opaque;
  (void)rk;
  reader->rebalancing = true;
  reader->stats.rebalances++;
  livenps_log(LIVENPS_INFO, "ingest", "%s %d partitions%s",
              code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS ? "assigned" : "revoked", partitions->cnt,
              rd_kafka_assignment_lost(reader->rk) ? " (lost)" : "");
  if (code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS)
    on_assigned(reader, partitions);
  else
    on_revoked(reader, partitions);
  reader->rebalancing = false;
}

/* -- life --------------------------------------------------------------------------------------------------------- */

/* Kafka fences a static member when another process joins with its name - and when it hears from the member itself under an id that is
 * not its own: a lost session takes the id away, and librdkafka sends the offset commit that it kept while the coordinator was away without
 * one. The first is told in the middle of an assignment; the second only between a loss and the next assignment, because the library does
 * not join again before that commit is answered. Then another handle may join. Two processes of one name cannot fence each other like
 * that for ever: before each time comes an assignment, and its loss. */
static void on_fatal(livenps_reader *reader) {
  char text[256] = "";
  const rd_kafka_resp_err_t code = rd_kafka_fatal_error(reader->rk, text, sizeof text);
  reader->fenced = code == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID && reader->assigned_once && !reader->assigned;
  if (!reader->fenced)
    livenps_fail(&reader->fatal, LIVENPS_E_REFUSED, "kafka: %s%s", text,
                 code == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID
                     ? " (is another process running with the same instance name?)"
                     : "");
}

static void on_error(rd_kafka_t *rk, int code, const char *text, void *opaque) {
  livenps_reader *reader = opaque;
  static livenps_limit limit = {.interval_ms = 5000};
  (void)rk;
  if (code == RD_KAFKA_RESP_ERR__FATAL) {
    on_fatal(reader);
    return;
  }
  /* A broker went away: what it had sent may be lost inside the library. */
  for (size_t i = 0; i < reader->batch.lane_count; i++)
    reader->batch.lanes[i].doubt = true;
  livenps_log_limited(&limit, LIVENPS_WARN, "kafka", "%s", text);
}

static int open_handle(livenps_reader *reader, livenps_error *error) {
  const char *instance = reader->config.settings->instance;
  rd_kafka_conf_t *conf;
  if (livenps_kafka_consumer_conf(&conf, reader->config.settings, error))
    return -1;
  if (*instance && livenps_kafka_set(conf, "group.instance.id", instance, error)) {
    rd_kafka_conf_destroy(conf);
    return -1;
  }
  char known[16];
  size_t size = sizeof known;
  reader->may_stall = rd_kafka_conf_get(conf, "fetch.queue.backoff.ms", known, &size) != RD_KAFKA_CONF_OK;
  rd_kafka_conf_set_opaque(conf, reader);
  rd_kafka_conf_set_rebalance_cb(conf, on_rebalance);
  rd_kafka_conf_set_error_cb(conf, on_error);
  rd_kafka_conf_set_offset_commit_cb(conf, on_committed_to_kafka);
  if (livenps_kafka_open(&reader->rk, conf, LIVENPS_KAFKA_CONSUMER, error))
    return -1;
  rd_kafka_poll_set_consumer(reader->rk);
  reader->data = rd_kafka_queue_new(reader->rk);
  return 0;
}

int livenps_reader_open(livenps_reader **out, const livenps_reader_config *config, livenps_error *error) {
  livenps_reader *reader = livenps_alloc(sizeof *reader);
  reader->config = *config;
  reader->clock_ms = LIVENPS_NO_CLOCK;
  reader->pause_at_ms = INT64_MAX;
  reader->wake_after_ms = STALL_MS;
  reader->verify_ms = VERIFY_MS;
  livenps_batch_init(&reader->batch, config->admission);
  if (open_handle(reader, error)) {
    livenps_batch_free(&reader->batch);
    free(reader);
    return -1;
  }
  *out = reader;
  return 0;
}

int livenps_reader_subscribe(livenps_reader *reader, livenps_error *error) {
  const livenps_list *topics = &reader->config.settings->topics;
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)topics->count);
  for (size_t i = 0; i < topics->count; i++)
    rd_kafka_topic_partition_list_add(list, topics->at[i], RD_KAFKA_PARTITION_UA);
  const rd_kafka_resp_err_t code = rd_kafka_subscribe(reader->rk, list);
  rd_kafka_topic_partition_list_destroy(list);
  reader->group = true;
  reader->joining_since_ms = livenps_monotonic_ms();
  return code ? livenps_fail(error, LIVENPS_E_STARTUP, "kafka: subscribe: %s", rd_kafka_err2str(code)) : 0;
}

int livenps_reader_assign(livenps_reader *reader, const livenps_range *ranges, size_t count,
                          livenps_error *error) {
  for (size_t i = 0; i < count; i++) {
    livenps_lane *lane = livenps_batch_open(&reader->batch, ranges[i].topic, ranges[i].partition,
                                            mapping_of(reader, ranges[i].topic), ranges[i].start);
    lane->end = ranges[i].end;
  }
  lanes_changed(reader);
  reader->adopt = true;
  if (!try_adopt(reader)) {
    /* Not waited for here: whoever calls us may have to begin the namespace again. The steps try on, and assign then. */
    if (reader->fatal.code)
      return livenps_fail(error, reader->fatal.code, "%s", reader->fatal.text);
    return 0;
  }
  for (size_t i = 0; i < count; i++)
    forward(reader, &reader->batch.lanes[i]);
  rd_kafka_topic_partition_list_t *list = list_of(reader, NULL);
  const rd_kafka_resp_err_t code = rd_kafka_assign(reader->rk, list);
  rd_kafka_topic_partition_list_destroy(list);
  return code ? livenps_fail(error, LIVENPS_E_STARTUP, "kafka: assign: %s", rd_kafka_err2str(code)) : 0;
}

/* With another handle: a fenced one does nothing any more. Between two assignments there is nothing in hand that could be lost. */
static void join_anew(livenps_reader *reader) {
  livenps_log(
      LIVENPS_WARN, "ingest",
      "kafka took what it heard from us after a lost session for another process with our instance name; joining "
      "the group anew");
  rd_kafka_queue_destroy(reader->data);
  livenps_kafka_close(reader->rk, 0);
  reader->rk = NULL;
  lanes_changed(reader); /* nothing is known by the old handle's topics any more */
  reader->fenced = reader->assigned_once = reader->assigned = reader->kafka_commit_open = false;
  if (!open_handle(reader, &reader->fatal))
    livenps_reader_subscribe(reader, &reader->fatal);
}

void livenps_reader_pause_at(livenps_reader *reader, int64_t clock_ms) {
  reader->pause_at_ms = clock_ms;
}

int livenps_reader_step(livenps_reader *reader, int wait, livenps_error *error) {
  const int64_t now_ms = livenps_monotonic_ms();
  if (reader->joining_since_ms)
    tell_joining(reader, now_ms);
  livenps_watch_exchange(reader->config.watch, &reader->batch);
  if (!reader->adopt && any_to_drop(reader))
    drop(reader);
  if (reader->adopt && reader->batch.lane_count && now_ms >= reader->adopt_at_ms && try_adopt(reader)) {
    if (restart_found(reader))
      assign_all_anew(reader);
    else
      reposition(reader, reader->seek);
  }
  if (now_ms >= reader->look_at_ms) {
    renew_doubts(reader, now_ms);
    /* A partition that is taken away and given back at once loses its forward when the stop of the old fetching is through, in silence. */
    for (size_t i = 0; i < reader->batch.lane_count; i++)
      forward(reader, &reader->batch.lanes[i]);
    reader->look_at_ms = now_ms + LOOK_MS;
  }
  if (reader->adopt && !reader->batch.lane_count)
    reader->adopt = false;

  const size_t unacknowledged =
      reader->config.quarantine ? livenps_quarantine_pending(reader->config.quarantine) : 0;
  reader->waiting_quarantine &= unacknowledged > 0;
  const bool full =
      livenps_combine_full(reader->batch.combine, (size_t)reader->config.settings->commit_max_cells) ||
      unacknowledged >= QUARANTINE_MAX || reader->waiting_quarantine;
  const bool reading = !ahead(reader) && !reader->adopt && !reader->waiting_full && !full;
  /* Events of the group and of the handle; records come here only when a forward was lost, so they are taken as well. */
  rd_kafka_message_t *message = rd_kafka_consumer_poll(reader->rk, reading ? 0 : wait);
  if (message) {
    if (message->rkt)
      on_message(message, reader);
    else if (message->err)
      on_error(reader->rk, message->err, rd_kafka_message_errstr(message), reader);
    rd_kafka_message_destroy(message);
  }
  if (reading && !reader->adopt) {
    reader->serve_until_ms = livenps_monotonic_ms() + SERVE_MS;
    const int served = rd_kafka_consume_callback_queue(reader->data, wait, on_message, reader);
    if (served > 0)
      reader->wake_at_ms = livenps_monotonic_ms() + (reader->wake_after_ms = STALL_MS);
    else if (reader->may_stall && livenps_monotonic_ms() >= reader->wake_at_ms)
      wake_fetching(reader);
  }
  if (reader->config.quarantine && livenps_quarantine_pending(reader->config.quarantine)) {
    livenps_error ignored = {0};
    livenps_quarantine_settle(reader->config.quarantine, 0, &ignored);
    if (ignored.code) {
      outage(reader, &ignored);
      livenps_batch_drop(&reader->batch);
      reader->adopt = true;
      back_off(reader);
    }
  }
  if (!reader->adopt) {
    examine(reader, reading);
    mend(reader);
  }
  if (!reader->adopt)
    flush_when_due(reader);
  if (livenps_monotonic_ms() >= reader->kafka_commit_at_ms) {
    commit_to_kafka(reader);
    reader->kafka_commit_at_ms = livenps_monotonic_ms() + KAFKA_COMMIT_MS;
  }
  if (livenps_monotonic_ms() >= reader->measure_at_ms) {
    measure(reader);
    reader->measure_at_ms = livenps_monotonic_ms() + MEASURE_MS;
  }
  if (reader->fenced && !livenps_stop)
    join_anew(reader);
  if (!reader->fatal.code)
    return 0;
  return livenps_fail(error, reader->fatal.code, "%s", reader->fatal.text);
}

bool livenps_reader_done(const livenps_reader *reader) {
  if (reader->adopt)
    return false;
  for (size_t i = 0; i < reader->batch.lane_count; i++)
    if (reader->batch.lanes[i].stored.next < reader->batch.lanes[i].end)
      return false;
  return true;
}

void livenps_reader_stats_get(const livenps_reader *reader, livenps_reader_stats *stats) {
  *stats = reader->stats;
  stats->accepted = stats->fates[LIVENPS_ACCEPTED];
  stats->rejected = stats->fates[LIVENPS_REJECTED];
  stats->strays = reader->batch.strays;
  stats->refetches = reader->batch.refetches;
  stats->clock_ms = newest_clock(reader);
  stats->left = 0;
  for (size_t i = 0; i < reader->batch.lane_count; i++)
    if (reader->batch.lanes[i].end != INT64_MAX && reader->batch.lanes[i].next < reader->batch.lanes[i].end)
      stats->left += reader->batch.lanes[i].end - reader->batch.lanes[i].next;
}

/* Calls on_rebalance: what is in hand is committed there. Bounded, because librdkafka waits for the answers to its commits as long as the
 * broker is away; the group then forgets us by itself. */
static bool leave_group(livenps_reader *reader) {
  rd_kafka_queue_t *queue = rd_kafka_queue_new(reader->rk);
  rd_kafka_error_t *error = rd_kafka_consumer_close_queue(reader->rk, queue);
  const int64_t until = livenps_monotonic_ms() + CLOSE_MS;
  if (error)
    rd_kafka_error_destroy(error);
  else
    while (!rd_kafka_consumer_closed(reader->rk) && livenps_monotonic_ms() < until)
      rd_kafka_queue_poll_callback(queue, 50);
  const bool closed = error || rd_kafka_consumer_closed(reader->rk);
  if (closed)
    rd_kafka_queue_destroy(queue);
  else
    livenps_log(LIVENPS_WARN, "ingest",
                "kafka did not answer our leaving of the group; it will notice by itself");
  return closed;
}

/* false: it hangs, and is left to the end of the process, which comes now. */
static bool let_go(livenps_reader *reader) {
  if (reader->group) {
    reader->kafka_commit_open = false; /* the last word, whatever became of the one before */
    commit_to_kafka(reader);
    if (!leave_group(reader))
      return false;
  } else {
    rd_kafka_assign(reader->rk, NULL);
  }
  rd_kafka_queue_destroy(reader->data);
  /* librdkafka 2.0.2 can abort when a cooperative member is destroyed before its first assignment. The process ends now anyway. */
  return (reader->group && !reader->assigned_once && cooperative(reader)) ||
         livenps_kafka_close(reader->rk, 0);
}

void livenps_reader_close(livenps_reader *reader) {
  if (!reader)
    return;
  reader->stopping = true;
  if (reader->rk && !let_go(reader)) /* none: joining the group anew failed */
    return;
  livenps_probe_close(reader->probe);
  livenps_batch_free(&reader->batch);
  free(reader->headers);
  free(reader->seek);
  free(reader);
}
