#include "watch.h"

#include "probe.h"

#include "../common/clock.h"
#include "../common/kafka.h"
#include "../common/log.h"
#include "../common/pulse.h"
#include "../common/stop.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum {
  ENDS_EVERY_MS = 500,
  METADATA_EVERY_MS = 5000,
  AWAY_MS = 8000,        /* longer without any answer is an outage */
  ASK_MS = 1000,         /* one question about ends; the thread must notice a stop soon */
  BEGIN_MS = 10000,      /* one question at genesis */
  CHECK_EVERY_MS = 1000, /* the anchors of one partition */
  CHECK_MS = 300,        /* one round of reading anchors; who does not answer has a later, longer one */
  CHECK_MOST_MS = 2400,  /* so that a slow broker answers some time, and the ends are asked for in between */
  CHECK_AGAIN_MS = 250,  /* and not before this */
  CHECK_AT_ONCE = 64,    /* partitions in one round */
  CHECK_SHARE =
      10, /* a round that took a while is followed by a pause nine times as long: a large instance is not slowed */
  ANCHOR_FETCH_BYTES =
      4096, /* a record, not a megabyte of those behind it; a larger one comes all the same */
};

/* One partition that is read here. */
typedef struct {
  char topic[250];
  int32_t partition;
  int64_t high, asked_ms;
  livenps_position position; /* as stored */
  int64_t next, asked_next;  /* read up to here; and when the end was asked for */
  bool beyond;               /* it ended before that */
  int64_t wanted_ms, tried_ms,
      checked_ms;          /* monotonic; of the last check: when it began, when it began and had an answer */
  int64_t sure;            /* stored next offset at the last check that found the anchors; -1: none has */
  livenps_verdict suspect; /* what the last check found: believed when the next one finds the same */
  int64_t end;             /* the topic's lowest since it is suspect */
  bool lost;               /* the broker does not know the partition, or it ends before what was read */
  bool root_gone;          /* and the anchor is there */
  livenps_finding finding;
} followed;

struct livenps_watch {
  const livenps_settings *settings;
  rd_kafka_t *rk;        /* read_uncommitted */
  rd_kafka_t *stable_rk; /* read_committed, made when first needed (replay) */
  rd_kafka_t *anchor_rk; /* reads single records, made when first needed; the thread's */
  pthread_mutex_t lock;
  followed *lanes;
  size_t lane_count;
  size_t total;
  bool total_known;
  atomic_bool stop;
  bool ask_ends;
  int64_t check_ms;    /* the thread's: no round of checks before this, unless one is wanted */
  int patience_ms;     /* the thread's: of the next round */
  size_t check_turn;   /* the thread's: where the next round begins to look */
  int64_t answered_ms; /* when a broker did so last; 0: not yet */
  bool started;
  pthread_t thread;
};

static int open_handle(rd_kafka_t **out, const livenps_settings *settings, const char *isolation,
                       livenps_error *error) {
  rd_kafka_conf_t *conf;
  if (livenps_kafka_conf(&conf, settings, LIVENPS_KAFKA_CONSUMER, NULL, error))
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
  const int patience_ms = (int)watch->settings->startup_timeout_ms;
  const int partitions = livenps_kafka_partitions(watch->rk, topic, patience_ms, error);
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
  if (livenps_kafka_topic_config(watch->rk, topic, names, 1, policy, patience_ms, &unanswered)) {
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
  watch->patience_ms = CHECK_MS;
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

/* The list may have changed since it was copied: find each again, most likely where it was. Called with the lock. */
static followed *find(livenps_watch *watch, size_t likely, const char *topic, int32_t partition) {
  for (size_t k = 0; k < watch->lane_count; k++) {
    followed *each = &watch->lanes[(likely + k) % watch->lane_count];
    if (each->partition == partition && !strcmp(each->topic, topic))
      return each;
  }
  return NULL;
}

/* One request to each leader for all partitions, so that the answers are as fresh for a thousand partitions as for one: a time of
 * RD_KAFKA_OFFSET_END means the end. */
static void ask_ends(livenps_watch *watch) {
  pthread_mutex_lock(&watch->lock);
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)watch->lane_count + 1);
  for (size_t i = 0; i < watch->lane_count; i++) {
    rd_kafka_topic_partition_list_add(list, watch->lanes[i].topic, watch->lanes[i].partition)->offset =
        RD_KAFKA_OFFSET_END;
    watch->lanes[i].asked_next = watch->lanes[i].next;
  }
  pthread_mutex_unlock(&watch->lock);
  const int64_t asked_ms = livenps_monotonic_ms();
  if (list->cnt && !rd_kafka_offsets_for_times(watch->rk, list, ASK_MS)) {
    answered(watch);
    pthread_mutex_lock(&watch->lock);
    for (int i = 0; i < list->cnt; i++) {
      const rd_kafka_topic_partition_t *answer = &list->elems[i];
      followed *found = find(watch, (size_t)i, answer->topic, answer->partition);
      if (found && !answer->err && answer->offset >= 0) {
        found->high = answer->offset;
        found->asked_ms = asked_ms;
        if (answer->offset < found->asked_next)
          found->beyond = found->lost = true;
      }
      if (found && (answer->err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART ||
                    answer->err == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION ||
                    answer->err == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC))
        found->lost = true;
    }
    pthread_mutex_unlock(&watch->lock);
  }
  rd_kafka_topic_partition_list_destroy(list);
}

/* -- single records ----------------------------------------------------------------------------------------------- */

/* The first record at or behind an offset. */
typedef struct {
  char topic[250];
  size_t place; /* the caller's */
  int32_t partition;
  int64_t offset;
  enum { PROBE_SILENT, PROBE_RECORD, PROBE_NOTHING, PROBE_OUTSIDE } answer;
  livenps_anchor found; /* PROBE_RECORD */
} probe;

static int open_prober(rd_kafka_t **out, const livenps_watch *watch, livenps_error *error) {
  char bytes[16];
  snprintf(bytes, sizeof bytes, "%d", ANCHOR_FETCH_BYTES);
  const char *const config[] = {
      "isolation.level", "read_uncommitted", "fetch.message.max.bytes", bytes, "fetch.min.bytes", "1",
      "fetch.wait.max.ms", "20", "queued.min.messages", "1",
      /* Else a batch behind the record that cannot be read makes the next question wait for half a second. */
      "fetch.error.backoff.ms", "10", NULL};
  return livenps_kafka_open_groupless(out, watch->settings, config, error);
}

static void answer_probe(probe *probes, size_t count, const rd_kafka_message_t *message, size_t *left) {
  for (size_t i = 0; message->rkt && i < count; i++) {
    probe *each = &probes[i];
    if (each->answer != PROBE_SILENT || each->partition != message->partition ||
        strcmp(each->topic, rd_kafka_topic_name(message->rkt)))
      continue;
    /* A batch that cannot be read any more proves nothing either, and waiting would not help. */
    if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF ||
        (livenps_probe_unreadable(message->err) && message->offset <= each->offset)) {
      each->answer = PROBE_NOTHING;
      (*left)--;
    } else if (message->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET) {
      each->answer = PROBE_OUTSIDE;
      (*left)--;
    } else if (!message->err && message->offset >= each->offset) {
      rd_kafka_timestamp_type_t type;
      each->answer = PROBE_RECORD;
      each->found = livenps_anchor_of(message->offset, rd_kafka_message_timestamp(message, &type),
                                      (livenps_text){message->key, message->key_len},
                                      (livenps_text){message->payload, message->len});
      (*left)--;
    }
    return;
  }
}

/* All of them by one assignment: one after the other takes a third of a second each. Who has not answered in time stays silent. stop:
 * ends the waiting when it becomes true; may be NULL. */
static int read_probes(rd_kafka_t *rk, probe *probes, size_t count, int timeout_ms, const atomic_bool *stop,
                       livenps_error *error) {
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)count);
  for (size_t i = 0; i < count; i++)
    rd_kafka_topic_partition_list_add(list, probes[i].topic, probes[i].partition)->offset = probes[i].offset;
  const rd_kafka_resp_err_t code = rd_kafka_assign(rk, list);
  rd_kafka_topic_partition_list_destroy(list);
  const int64_t until = livenps_monotonic_ms() + timeout_ms;
  size_t left = count;
  while (!code && left && !(stop ? *stop : livenps_stop) && livenps_monotonic_ms() < until) {
    rd_kafka_message_t *message = rd_kafka_consumer_poll(rk, 10);
    livenps_pulse();
    if (message) {
      answer_probe(probes, count, message, &left);
      rd_kafka_message_destroy(message);
    }
  }
  rd_kafka_assign(rk, NULL);
  if (code)
    return livenps_fail(error, LIVENPS_E_LOST, "kafka: reading single records: %s", rd_kafka_err2str(code));
  return (stop ? *stop : livenps_stop)
             ? livenps_fail(error, LIVENPS_E_LOST, "stopped while Kafka was asked for records")
             : 0;
}

/* -- the anchors -------------------------------------------------------------------------------------------------- */

/* One partition's check: the anchor, the root and the topic's bounds, as far as they are known. */
typedef struct {
  followed lane; /* as it was when the check began */
  livenps_trace anchor, root;
  bool silent;
  int64_t low, high;
} check;

/* What is known of an anchor without looking. */
static livenps_trace trace_by_bounds(const check *each, const livenps_anchor *anchor) {
  return anchor->offset < each->low     ? LIVENPS_TRACE_GONE
         : anchor->offset >= each->high ? LIVENPS_TRACE_OTHER
                                        : LIVENPS_TRACE_NONE;
}

/* What the answer says of the anchor. A jump over it says nothing: compaction, a transaction's marker, a stale answer. */
static livenps_trace trace_of(check *each, const probe *asked, const livenps_anchor *anchor) {
  each->silent |= asked->answer == PROBE_SILENT || asked->answer == PROBE_OUTSIDE; /* cut since the bounds */
  if (asked->answer != PROBE_RECORD || asked->found.offset != anchor->offset)
    return LIVENPS_TRACE_NONE;
  return livenps_anchor_same(&asked->found, anchor) ? LIVENPS_TRACE_SAME : LIVENPS_TRACE_OTHER;
}

/* The first or the next offset of all chosen, by one request to each leader. */
static void ask_bounds(livenps_watch *watch, check *checks, size_t count, int64_t which) {
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)count);
  for (size_t i = 0; i < count; i++)
    rd_kafka_topic_partition_list_add(list, checks[i].lane.topic, checks[i].lane.partition)->offset = which;
  const bool failed = rd_kafka_offsets_for_times(watch->rk, list, ASK_MS);
  /* Answers come in the order of the questions, or not at all. */
  for (size_t i = 0; i < count; i++) {
    const rd_kafka_topic_partition_t *answer = i < (size_t)list->cnt ? &list->elems[i] : NULL;
    if (failed || !answer || answer->err || answer->offset < 0 ||
        answer->partition != checks[i].lane.partition || strcmp(answer->topic, checks[i].lane.topic))
      checks[i].silent = true;
    else if (which == RD_KAFKA_OFFSET_BEGINNING)
      checks[i].low = answer->offset;
    else
      checks[i].high = answer->offset;
  }
  rd_kafka_topic_partition_list_destroy(list);
}

/* Which partitions to check now: those that somebody waits for, else the next in turn. Those without an anchor are left out. */
static size_t choose(livenps_watch *watch, check *checks, int64_t now_ms) {
  size_t chosen = 0;
  pthread_mutex_lock(&watch->lock);
  for (int wanted = 1; wanted >= 0 && !chosen && (wanted || now_ms >= watch->check_ms); wanted--)
    for (size_t i = 0; i < watch->lane_count && chosen < CHECK_AT_ONCE; i++) {
      watch->check_turn = (watch->check_turn + 1) % watch->lane_count;
      followed *lane = &watch->lanes[watch->check_turn];
      const bool waited_for = lane->wanted_ms > lane->checked_ms || lane->suspect;
      if (!lane->position.anchor.there ||
          now_ms - lane->tried_ms < (wanted ? CHECK_AGAIN_MS : CHECK_EVERY_MS) || (wanted && !waited_for))
        continue;
      lane->tried_ms = now_ms;
      checks[chosen++] = (check){.lane = *lane};
    }
  pthread_mutex_unlock(&watch->lock);
  return chosen;
}

static bool has_root(const check *each) {
  return !livenps_anchor_same(&each->lane.position.anchor, &each->lane.position.root);
}

/* Reads them, and once more those that nothing stands at: librdkafka can skip records after an assignment (rule 12). */
static int read_twice(livenps_watch *watch, probe *probes, size_t count, livenps_error *error) {
  probe again[CHECK_AT_ONCE];
  size_t from[CHECK_AT_ONCE], jumps = 0;
  if (read_probes(watch->anchor_rk, probes, count, watch->patience_ms, &watch->stop, error))
    return -1;
  for (size_t i = 0; i < count; i++)
    if (probes[i].answer == PROBE_NOTHING ||
        (probes[i].answer == PROBE_RECORD && probes[i].found.offset != probes[i].offset)) {
      from[jumps] = i;
      again[jumps] = probes[i];
      again[jumps++].answer = PROBE_SILENT;
    }
  if (jumps && read_probes(watch->anchor_rk, again, jumps, watch->patience_ms, &watch->stop, error))
    return -1;
  for (size_t i = 0; i < jumps; i++)
    probes[from[i]] = again[i];
  return 0;
}

/* The roots, or the anchors, of all chosen. */
static int ask_anchors(livenps_watch *watch, check *checks, size_t count, bool roots, livenps_error *error) {
  probe probes[CHECK_AT_ONCE];
  size_t asked = 0;
  for (size_t i = 0; i < count; i++) {
    const livenps_position *position = &checks[i].lane.position;
    const livenps_anchor *anchor = roots ? &position->root : &position->anchor;
    livenps_trace *trace = roots ? &checks[i].root : &checks[i].anchor;
    *trace = trace_by_bounds(&checks[i], anchor);
    if (*trace != LIVENPS_TRACE_NONE || checks[i].silent || (roots && !has_root(&checks[i])))
      continue;
    probes[asked] = (probe){.place = i, .partition = checks[i].lane.partition, .offset = anchor->offset};
    memcpy(probes[asked++].topic, checks[i].lane.topic, sizeof checks[i].lane.topic);
  }
  if (!asked)
    return 0;
  if (read_twice(watch, probes, asked, error))
    return -1;
  bool silent = false;
  for (size_t i = 0; i < asked; i++) {
    check *each = &checks[probes[i].place];
    silent |= probes[i].answer == PROBE_SILENT;
    if (roots)
      each->root = trace_of(each, &probes[i], &each->lane.position.root);
    else
      each->anchor = trace_of(each, &probes[i], &each->lane.position.anchor);
  }
  if (!silent)
    watch->patience_ms = CHECK_MS;
  else if (watch->patience_ms < CHECK_MOST_MS)
    watch->patience_ms *= 2;
  return 0;
}

/* No other record was seen: all that is known is that the topic ends before what was read. So says also a leader that is cut off from
 * the other brokers and does not know that another one leads now; but its end stands still, because nobody takes its records over. */
static bool only_by_its_end(const check *each) {
  const livenps_position *position = &each->lane.position;
  return (each->anchor != LIVENPS_TRACE_OTHER || position->anchor.offset >= each->high) &&
         (each->root != LIVENPS_TRACE_OTHER || position->root.offset >= each->high);
}

/* Whether positions are of one history, so that what was found at one holds for the other. A genesis begins with the first incarnation
 * again, so Redis can go back from one topic's first to another's: the root tells them apart. */
static bool one_history(const livenps_position *a, const livenps_position *b) {
  return a->incarnation == b->incarnation && livenps_anchor_same(&a->root, &b->root);
}

/* A finding is believed when two checks in a row have it: what it leads to cannot be taken back. Of a topic with replicas one that rests on
 * the end alone is believed only when the end goes on. */
static void conclude(livenps_watch *watch, check *each, size_t likely, int64_t began_ms) {
  const bool one = !has_root(each);
  if (one)
    each->root = each->anchor;
  if (each->silent)
    return;
  const livenps_verdict found =
      livenps_position_judge(each->anchor, each->root, one, each->low, each->high < each->lane.position.next);
  const bool by_end = found != LIVENPS_VERDICT_SAME && only_by_its_end(each);
  /* The question brings the newest leaders along, too. */
  const int replicas = by_end ? livenps_kafka_replicas(watch->rk, each->lane.topic, ASK_MS) : 1;
  if (replicas < 0)
    return;
  pthread_mutex_lock(&watch->lock);
  followed *lane = find(watch, likely, each->lane.topic, each->lane.partition);
  if (lane && one_history(&lane->position, &each->lane.position)) {
    if (found == LIVENPS_VERDICT_SAME) {
      lane->checked_ms = began_ms;
      lane->suspect = LIVENPS_VERDICT_SAME;
      lane->finding = (livenps_finding){0};
      if (each->anchor == LIVENPS_TRACE_SAME)
        lane->sure = each->lane.position.next;
      lane->root_gone = each->root == LIVENPS_TRACE_GONE && each->anchor == LIVENPS_TRACE_SAME;
    } else if (lane->suspect != found) {
      lane->suspect = found;
      lane->tried_ms = 0;
      lane->end = each->high;
    } else if (replicas > 1 && by_end && each->high <= lane->end) {
      static livenps_limit limit = {.interval_ms = 10000};
      lane->end = each->high;
      livenps_log_limited(&limit, LIVENPS_WARN, "watch",
                          "%s/%" PRId32 " ends at %" PRId64
                          ", before what was read, as its leader says: believed when that goes on",
                          lane->topic, lane->partition, each->high);
    } else {
      const int64_t next = each->lane.position.next, high = lane->end < each->high ? lane->end : each->high;
      lane->finding = (livenps_finding){.found = found,
                                        .of = each->lane.position,
                                        .offset = found == LIVENPS_VERDICT_ANEW ? each->low
                                                  : next < high                 ? next
                                                                                : high,
                                        .sure = lane->sure,
                                        .keep_root = each->root == LIVENPS_TRACE_SAME};
    }
  }
  pthread_mutex_unlock(&watch->lock);
}

/* One round: the records at the anchors and the roots of some partitions are read again. */
static void check_anchors(livenps_watch *watch, int64_t now_ms) {
  static livenps_limit limit = {.interval_ms = 10000};
  check checks[CHECK_AT_ONCE];
  livenps_error error = {0};
  const size_t count = choose(watch, checks, now_ms);
  const int64_t began_ms = livenps_monotonic_ms(); /* not before it was wanted */
  if (!count)
    return;
  /* Nothing is asked for outside of the bounds: a partition in error stalls the next assignment. */
  ask_bounds(watch, checks, count, RD_KAFKA_OFFSET_BEGINNING);
  ask_bounds(watch, checks, count, RD_KAFKA_OFFSET_END);
  if ((!watch->anchor_rk && open_prober(&watch->anchor_rk, watch, &error)) ||
      ask_anchors(watch, checks, count, true, &error) || ask_anchors(watch, checks, count, false, &error)) {
    if (!watch->stop && !livenps_stop) /* else it was broken off by us, at the end of a replay too */
      livenps_log_limited(&limit, LIVENPS_WARN, "watch", "%s", error.text);
    return;
  }
  for (size_t i = 0; i < count; i++)
    conclude(watch, &checks[i], i, began_ms);
  const int64_t after_ms = livenps_monotonic_ms();
  watch->check_ms = after_ms + (CHECK_SHARE - 1) * (after_ms - began_ms);
}

static void *watch_thread(void *opaque) {
  livenps_watch *watch = opaque;
  int64_t ends_ms = 0, metadata_ms = livenps_monotonic_ms();
  livenps_pulse_begin(LIVENPS_PULSE_WATCH);
  while (!watch->stop) {
    livenps_pulse();
    const int64_t now_ms = livenps_monotonic_ms();
    check_anchors(watch, now_ms);
    if (watch->ask_ends && now_ms - ends_ms >= ENDS_EVERY_MS) {
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
    rd_kafka_poll(watch->rk, 20);
  }
  livenps_pulse_end();
  return NULL;
}

void livenps_watch_start(livenps_watch *watch, bool ends) {
  watch->ask_ends = ends;
  watch->started = pthread_create(&watch->thread, NULL, watch_thread, watch) == 0;
}

void livenps_watch_close(livenps_watch *watch) {
  if (!watch)
    return;
  watch->stop = true;
  if (watch->started)
    pthread_join(watch->thread, NULL);
  rd_kafka_t *const handles[] = {watch->anchor_rk, watch->stable_rk, watch->rk};
  for (size_t i = 0; i < sizeof handles / sizeof *handles; i++)
    if (handles[i])
      livenps_kafka_close(handles[i], 0);
  pthread_mutex_destroy(&watch->lock);
  free(watch->lanes);
  free(watch);
}

void livenps_watch_follow(livenps_watch *watch, const livenps_batch *batch) {
  pthread_mutex_lock(&watch->lock);
  watch->lanes = livenps_resize(watch->lanes, (batch->lane_count + 1) * sizeof *watch->lanes);
  watch->lane_count = batch->lane_count;
  for (size_t i = 0; i < batch->lane_count; i++) {
    const livenps_lane *lane = &batch->lanes[i];
    watch->lanes[i] = (followed){.partition = lane->partition,
                                 .high = lane->high,
                                 .asked_ms = lane->high_asked_ms,
                                 .position = lane->stored,
                                 .sure = -1};
    memcpy(watch->lanes[i].topic, lane->topic, sizeof watch->lanes[i].topic);
  }
  pthread_mutex_unlock(&watch->lock);
}

static void exchange(followed *each, livenps_lane *lane, int64_t now_ms) {
  const bool anchored = lane->stored.anchor.there;
  const bool in_hand = lane->next > (lane->stored.next < 0 ? lane->start : lane->stored.next);
  /* An end never goes back by itself: the topic was made anew, or its log was cut. */
  each->lost |= lane->high_asked_ms && each->high < lane->high;
  if (each->lost && anchored)
    lane->wanted_ms = now_ms;
  /* Without an anchor nothing would tell the new records from the old ones in the library's queue: what comes out of that is read again. */
  lane->beyond |= each->lost && !anchored && in_hand;
  each->lost &= !anchored && !in_hand;
  lane->beyond |= each->beyond && lane->next > lane->stored.next;
  each->beyond = false;
  each->next = lane->next;
  lane->high = each->high;
  lane->high_asked_ms = each->asked_ms;
  if (!one_history(&each->position, &lane->stored)) {
    each->checked_ms = 0;
    each->sure = -1;
    each->suspect = LIVENPS_VERDICT_SAME;
    each->root_gone = false;
    each->finding = (livenps_finding){0};
  }
  if (each->root_gone && livenps_anchor_same(&each->position.root, &lane->stored.root))
    livenps_batch_root(lane);
  each->root_gone = false;
  /* Nothing is committed behind a doubt; without an anchor there is nothing to find. */
  if (each->suspect)
    lane->wanted_ms = now_ms;
  if (!lane->stored.anchor.there || lane->restart)
    lane->wanted_ms = 0;
  each->position = lane->stored;
  each->wanted_ms = lane->wanted_ms;
  lane->checked_ms = each->checked_ms;
  lane->finding = each->finding;
}

void livenps_watch_exchange(livenps_watch *watch, livenps_batch *batch) {
  const int64_t now_ms = livenps_monotonic_ms();
  pthread_mutex_lock(&watch->lock);
  for (size_t i = 0; i < batch->lane_count; i++) {
    followed *each = find(watch, i, batch->lanes[i].topic, batch->lanes[i].partition);
    if (each)
      exchange(each, &batch->lanes[i], now_ms);
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
                           int64_t low, int64_t *offset, livenps_error *error) {
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
  rd_kafka_topic_partition_list_add(list, topic, partition)->offset = since_ms;
  rd_kafka_resp_err_t code = rd_kafka_offsets_for_times(watch->rk, list, BEGIN_MS);
  if (!code)
    code = list->elems[0].err;
  *offset = list->elems[0].offset;
  rd_kafka_topic_partition_list_destroy(list);
  if (code == RD_KAFKA_RESP_ERR_UNKNOWN) {
    /* A broker looks into its records to answer; those that cannot be decompressed make it fail so, for good. */
    livenps_log(LIVENPS_WARN, "watch", "%s/%d cannot be searched by time (%s): beginning at its start", topic,
                partition, rd_kafka_err2str(code));
    *offset = low;
    return 0;
  }
  if (code)
    return livenps_fail(error, LIVENPS_E_LOST, "kafka: offset of %s/%d by time: %s", topic, partition,
                        rd_kafka_err2str(code));
  return 0;
}

enum { COVERED_ASK = -2 }; /* in a beginning: its first record says since when it is covered */

/* Partitions that have lost records are covered since the first that they still have, and the skew that its events may be ahead. Where no
 * record comes in time, nothing is known (-1). */
static int read_first(livenps_watch *watch, livenps_beginning *beginnings, size_t count,
                      livenps_error *error) {
  size_t asked = 0;
  int result = 0;
  probe *probes = livenps_alloc((count + 1) * sizeof *probes);
  for (size_t i = 0; i < count; i++)
    if (beginnings[i].covered_since_ms == COVERED_ASK) {
      probes[asked] =
          (probe){.place = i, .partition = beginnings[i].partition, .offset = beginnings[i].start};
      memcpy(probes[asked++].topic, beginnings[i].topic, sizeof beginnings[i].topic);
    }
  rd_kafka_t *rk = NULL;
  if (asked && (open_prober(&rk, watch, error) || read_probes(rk, probes, asked, BEGIN_MS, NULL, error)))
    result = -1;
  for (size_t i = 0; i < asked && !result; i++) {
    const int64_t first_ms = probes[i].answer == PROBE_RECORD ? probes[i].found.timestamp_ms : -1;
    /* A timestamp that only a broken clock gives tells nothing. */
    beginnings[probes[i].place].covered_since_ms =
        first_ms < 0 || first_ms > INT64_MAX / 4 ? -1 : first_ms + watch->settings->admit_future_ms;
  }
  if (rk)
    livenps_kafka_close(rk, 0);
  free(probes);
  return result;
}

static int begin_partition(livenps_watch *watch, const char *topic, int32_t partition, int64_t since_ms,
                           livenps_beginning *beginning, livenps_error *error) {
  int64_t low, high, by_time = -1;
  livenps_pulse();
  /* The end is asked for before the question by time: what arrives in between is newer than it and will be read. */
  if (livenps_watch_bounds(watch, topic, partition, false, &low, &high, error))
    return -1;
  if (since_ms > 0 && low < high) {
    if (offset_for_time(watch, topic, partition, since_ms, low, &by_time, error))
      return -1;
    if (by_time < 0) {
      /* Nothing that new, or the embedded cluster, which answers so to every time: ask for one before all records. */
      int64_t any;
      if (offset_for_time(watch, topic, partition, 1, low, &any, error))
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
