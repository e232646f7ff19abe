#include "kafka.h"

#include "clock.h"
#include "log.h"
#include "stop.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CLOSE_MS = 500 /* 10 ms are usual */ };

/* Properties that carry a promise of ours: passing them through would break it silently. */
static const struct {
  const char *name, *reason;
} ours[] = {
    {"group.id", "it is derived from namespace, so that two namespaces never share a group"},
    {"group.instance.id", "it is the setting instance"},
    {"auto.offset.reset", "positions come from Redis, and a position out of range is never skipped silently"},
    {"enable.auto.commit", "positions are committed to Redis together with the counts"},
    {"enable.auto.offset.store", "positions are committed to Redis together with the counts"},
    {"auto.commit.interval.ms", "positions are committed to Redis together with the counts"},
    {"enable.partition.eof", "livenps needs to know when a partition's end is reached"},
    {"isolation.level", "livenps reads committed records only"},
    {"acks", "a record counts as sent when all in-sync replicas have it"},
    {"request.required.acks", "a record counts as sent when all in-sync replicas have it"},
    {"enable.idempotence", "a retry must not write a record twice"},
    {"message.timeout.ms", "a record is sent or reported, never dropped after a time"},
    {"delivery.timeout.ms", "a record is sent or reported, never dropped after a time"},
    {"transactional.id", "livenps does not use Kafka transactions"},
    {"test.mock.num.brokers", "use livenps-producer embedded"},
};

/* The last trouble librdkafka told of, from any of its threads: "no broker answered" alone does not say what to mend. */
static pthread_mutex_t words_lock = PTHREAD_MUTEX_INITIALIZER;
static char last_words[400];
static atomic_bool reached; /* before that, the start-up error says it all in one line */

static void log_line(const rd_kafka_t *rk, int level, const char *facility, const char *text) {
  (void)rk;
  /* librdkafka repeats itself for every broker and every try: one line in five seconds tells the same. */
  static livenps_limit limit = {.interval_ms = 5000};
  char printable[400];
  /* All handles get all properties, so that a user writes them once: each kind of handle leaves the other's aside, loudly. */
  if (!strcmp(facility, "CONFWARN") && strstr(text, "will be ignored by this"))
    return;
  livenps_printable_sentence(printable, sizeof printable, text, strlen(text));
  if (level <= 4) {
    pthread_mutex_lock(&words_lock);
    /* "All brokers are down" comes last and says least. */
    if (!strstr(printable, "brokers are down") || !*last_words)
      memcpy(last_words, printable, sizeof last_words);
    pthread_mutex_unlock(&words_lock);
  }
  if (level >= 7 || !reached)
    livenps_log(LIVENPS_DEBUG, "kafka", "%s %s", facility, printable);
  else
    livenps_log_limited(&limit, level <= 3 ? LIVENPS_WARN : LIVENPS_INFO, "kafka", "%s %s", facility,
                        printable);
}

int livenps_kafka_set(rd_kafka_conf_t *conf, const char *name, const char *value, livenps_error *error) {
  char reason[256], taken[32];
  size_t size = sizeof taken;
  if (rd_kafka_conf_set(conf, name, value, reason, sizeof reason) != RD_KAFKA_CONF_OK)
    return livenps_fail(error, LIVENPS_E_USAGE, "kafka.%s: %s", name, reason);
  /* librdkafka takes the 10 of "10s" and leaves the unit: ten milliseconds where ten seconds were meant. */
  const size_t digits = strspn(value + (*value == '-'), "0123456789") + (*value == '-');
  if (value[digits] && rd_kafka_conf_get(conf, name, taken, &size) == RD_KAFKA_CONF_OK &&
      strlen(taken) == digits && !strncmp(taken, value, digits))
    return livenps_fail(error, LIVENPS_E_USAGE,
                        "kafka.%s: '%s' would be taken for %s: librdkafka's numbers are bare, in the unit "
                        "that its name says",
                        name, value, taken);
  return 0;
}

int livenps_kafka_conf(rd_kafka_conf_t **out, const livenps_settings *settings, livenps_kafka_role role,
                       const char *const *defaults, livenps_error *error) {
  rd_kafka_conf_t *conf = rd_kafka_conf_new();
  rd_kafka_conf_set_log_cb(conf, log_line);
  if (livenps_kafka_set(conf, "client.id", "livenps", error) ||
      livenps_kafka_set(conf, "reconnect.backoff.max.ms", "2000", error) ||
      livenps_kafka_set(conf, "log.connection.close", "false", error))
    goto failed;
  /* How soon fetching goes on after a full queue; older versions wait a second (reader.c wakes them). */
  if (role == LIVENPS_KAFKA_CONSUMER)
    rd_kafka_conf_set(conf, "fetch.queue.backoff.ms", "10", NULL, 0);
  /* What waits to be read stays in the processor's caches: a third less CPU in the client library (docs/performance.md). */
  if (role == LIVENPS_KAFKA_CONSUMER &&
      (livenps_kafka_set(conf, "fetch.message.max.bytes", "262144", error) ||
       livenps_kafka_set(conf, "queued.max.messages.kbytes", "16384", error)))
    goto failed;
  for (; defaults && *defaults; defaults += 2)
    if (livenps_kafka_set(conf, defaults[0], defaults[1], error))
      goto failed;
  for (size_t i = 0; i < settings->kafka.count; i++) {
    const livenps_pair *pair = &settings->kafka.at[i];
    for (size_t k = 0; k < sizeof ours / sizeof *ours; k++)
      if (!strcmp(pair->name, ours[k].name)) {
        livenps_fail(error, LIVENPS_E_USAGE, "kafka.%s cannot be set: %s", pair->name, ours[k].reason);
        goto failed;
      }
    if (livenps_kafka_set(conf, pair->name, pair->value, error))
      goto failed;
  }
  char servers[8];
  size_t size = sizeof servers;
  if (rd_kafka_conf_get(conf, "bootstrap.servers", NULL, &size) != RD_KAFKA_CONF_OK || size <= 1) {
    livenps_fail(error, LIVENPS_E_USAGE,
                 "kafka.bootstrap.servers is not set: say where a broker is, for example "
                 "--set kafka.bootstrap.servers=127.0.0.1:9092");
    goto failed;
  }
  if (role == LIVENPS_KAFKA_PRODUCER && (livenps_kafka_set(conf, "enable.idempotence", "true", error) ||
                                         livenps_kafka_set(conf, "acks", "all", error) ||
                                         livenps_kafka_set(conf, "message.timeout.ms", "0", error)))
    goto failed;
  *out = conf;
  return 0;

failed:
  rd_kafka_conf_destroy(conf);
  return -1;
}

int livenps_kafka_consumer_conf(rd_kafka_conf_t **out, const livenps_settings *settings,
                                livenps_error *error) {
  rd_kafka_conf_t *conf;
  char group[128];
  snprintf(group, sizeof group, "livenps.%s", settings->namespace_);
  if (livenps_kafka_conf(&conf, settings, LIVENPS_KAFKA_CONSUMER, NULL, error))
    return -1;
  if (livenps_kafka_set(conf, "group.id", group, error) ||
      livenps_kafka_set(conf, "enable.auto.commit", "false", error) ||
      livenps_kafka_set(conf, "enable.auto.offset.store", "false", error) ||
      livenps_kafka_set(conf, "auto.offset.reset", "error", error) ||
      livenps_kafka_set(conf, "enable.partition.eof", "true", error) ||
      livenps_kafka_set(conf, "isolation.level", "read_committed", error)) {
    rd_kafka_conf_destroy(conf);
    return -1;
  }
  *out = conf;
  return 0;
}

int livenps_kafka_open_groupless(rd_kafka_t **out, const livenps_settings *settings,
                                 const char *const *config, livenps_error *error) {
  rd_kafka_conf_t *conf;
  if (livenps_kafka_consumer_conf(&conf, settings, error))
    return -1;
  /* Whatever the group uses: librdkafka 2.0.2 can abort when a cooperative consumer ends that was assigned nothing. */
  int result = livenps_kafka_set(conf, "partition.assignment.strategy", "range", error);
  for (; !result && config && *config; config += 2)
    result = livenps_kafka_set(conf, config[0], config[1], error);
  if (result) {
    rd_kafka_conf_destroy(conf);
    return -1;
  }
  if (livenps_kafka_open(out, conf, LIVENPS_KAFKA_CONSUMER, error))
    return -1;
  rd_kafka_poll_set_consumer(*out);
  return 0;
}

int livenps_kafka_open(rd_kafka_t **out, rd_kafka_conf_t *conf, livenps_kafka_role role,
                       livenps_error *error) {
  char reason[256];
  rd_kafka_t *rk = rd_kafka_new(role == LIVENPS_KAFKA_PRODUCER ? RD_KAFKA_PRODUCER : RD_KAFKA_CONSUMER, conf,
                                reason, sizeof reason);
  if (!rk) {
    rd_kafka_conf_destroy(conf);
    return livenps_fail(error, LIVENPS_E_USAGE, "kafka: %s", reason);
  }
  *out = rk;
  return 0;
}

typedef struct {
  rd_kafka_t *rk;
  int flags;
  atomic_bool done;
} ending;

static void *destroy_handle(void *opaque) {
  ending *self = opaque;
  rd_kafka_destroy_flags(self->rk, self->flags);
  self->done = true;
  return NULL;
}

bool livenps_kafka_close(rd_kafka_t *rk, int flags) {
  ending *self = livenps_alloc(sizeof *self);
  const int64_t until = livenps_monotonic_ms() + CLOSE_MS;
  const struct timespec pause = {.tv_nsec = 5000000};
  pthread_t thread;
  self->rk = rk;
  self->flags = flags;
  if (pthread_create(&thread, NULL, destroy_handle, self)) {
    free(self);
    return false;
  }
  while (!self->done && livenps_monotonic_ms() < until)
    nanosleep(&pause, NULL);
  if (!self->done) { /* self is the thread's, for as long as it lasts */
    pthread_detach(thread);
    livenps_log(LIVENPS_DEBUG, "kafka", "the client does not let go of its partitions: left behind");
    return false;
  }
  pthread_join(thread, NULL);
  free(self);
  return true;
}

const char *livenps_kafka_servers(const livenps_settings *settings) {
  const char *servers = "(not set)";
  for (size_t i = 0; i < settings->kafka.count; i++)
    if (!strcmp(settings->kafka.at[i].name, "bootstrap.servers") ||
        !strcmp(settings->kafka.at[i].name, "metadata.broker.list"))
      servers = settings->kafka.at[i].value;
  return servers;
}

int livenps_kafka_reach(rd_kafka_t *rk, const livenps_settings *settings, int timeout_ms,
                        livenps_error *error) {
  const int64_t until = livenps_monotonic_ms() + timeout_ms;
  rd_kafka_resp_err_t code;
  do {
    const struct rd_kafka_metadata *metadata;
    const int64_t left = until - livenps_monotonic_ms();
    /* Slices of a second let a signal, and a fatal answer such as a wrong password, end the wait early. */
    code = rd_kafka_metadata(rk, 0, NULL, &metadata, left < 1000 ? (left < 1 ? 1 : (int)left) : 1000);
    if (!code) {
      rd_kafka_metadata_destroy(metadata);
      reached = true;
      return 0;
    }
  } while (livenps_monotonic_ms() < until && !livenps_stop);
  pthread_mutex_lock(&words_lock);
  livenps_fail(error, LIVENPS_E_STARTUP, "kafka: no broker answered within %d s at %s: %s",
               (int)((timeout_ms - (until - livenps_monotonic_ms())) / 1000), livenps_kafka_servers(settings),
               *last_words ? last_words : "no answer");
  pthread_mutex_unlock(&words_lock);
  return -1;
}

bool livenps_embedded_cluster(rd_kafka_t *rk, int timeout_ms) {
  char *id = rd_kafka_clusterid(rk, timeout_ms);
  const bool embedded = id && !strncmp(id, "mockCluster", strlen("mockCluster"));
  if (id)
    rd_kafka_mem_free(rk, id);
  return embedded;
}

int livenps_kafka_partitions(rd_kafka_t *rk, const char *topic, int timeout_ms, livenps_error *error) {
  /* All topics, because asking for one by name may create it. */
  const struct rd_kafka_metadata *metadata;
  rd_kafka_resp_err_t code = rd_kafka_metadata(rk, 1, NULL, &metadata, timeout_ms);
  if (code)
    return livenps_fail(error, LIVENPS_E_LOST, "kafka: topic list: %s", rd_kafka_err2str(code));
  int count = 0;
  for (int i = 0; i < metadata->topic_cnt; i++)
    if (!strcmp(metadata->topics[i].topic, topic))
      count = metadata->topics[i].partition_cnt;
  rd_kafka_metadata_destroy(metadata);
  return count;
}

/* Runs one admin request: sends by `send`, returns the result event or NULL with error set. */
static rd_kafka_event_t *admin_wait(rd_kafka_queue_t *queue, int timeout_ms, const char *what,
                                    livenps_error *error) {
  rd_kafka_event_t *event = rd_kafka_queue_poll(queue, timeout_ms + 1000);
  if (!event) {
    livenps_fail(error, LIVENPS_E_LOST, "kafka: %s: no answer", what);
    return NULL;
  }
  if (rd_kafka_event_error(event)) {
    livenps_fail(error, LIVENPS_E_LOST, "kafka: %s: %s", what, rd_kafka_event_error_string(event));
    rd_kafka_event_destroy(event);
    return NULL;
  }
  return event;
}

static rd_kafka_AdminOptions_t *admin_options(rd_kafka_t *rk, rd_kafka_admin_op_t operation, int timeout_ms) {
  rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(rk, operation);
  char reason[128];
  rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, reason, sizeof reason);
  return options;
}

int livenps_kafka_topic_config(rd_kafka_t *rk, const char *topic, const char *const *names, size_t count,
                               char **values, int timeout_ms, livenps_error *error) {
  for (size_t i = 0; i < count; i++)
    values[i] = NULL;
  rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
  rd_kafka_AdminOptions_t *options = admin_options(rk, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, timeout_ms);
  rd_kafka_ConfigResource_t *resource = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic);
  rd_kafka_DescribeConfigs(rk, &resource, 1, options, queue);
  rd_kafka_event_t *event = admin_wait(queue, timeout_ms, "DescribeConfigs", error);
  int result = -1;
  if (event) {
    size_t resources, entries;
    const rd_kafka_ConfigResource_t **answer =
        rd_kafka_DescribeConfigs_result_resources(rd_kafka_event_DescribeConfigs_result(event), &resources);
    if (resources == 1 && !rd_kafka_ConfigResource_error(answer[0])) {
      const rd_kafka_ConfigEntry_t **entry = rd_kafka_ConfigResource_configs(answer[0], &entries);
      for (size_t e = 0; e < entries; e++)
        for (size_t i = 0; i < count; i++)
          if (!strcmp(rd_kafka_ConfigEntry_name(entry[e]), names[i]) &&
              rd_kafka_ConfigEntry_value(entry[e]) && !values[i]) {
            const char *value = rd_kafka_ConfigEntry_value(entry[e]);
            values[i] = livenps_copy(value, strlen(value));
          }
      result = 0;
    } else {
      livenps_fail(error, LIVENPS_E_LOST, "kafka: DescribeConfigs of %s: %s", topic,
                   resources == 1 ? rd_kafka_ConfigResource_error_string(answer[0]) : "an empty answer");
    }
    rd_kafka_event_destroy(event);
  }
  rd_kafka_ConfigResource_destroy(resource);
  rd_kafka_AdminOptions_destroy(options);
  rd_kafka_queue_destroy(queue);
  return result;
}

int livenps_kafka_replicas(rd_kafka_t *rk, const char *topic, int timeout_ms) {
  const struct rd_kafka_metadata *metadata;
  int replicas = -1;
  if (rd_kafka_metadata(rk, 1, NULL, &metadata, timeout_ms))
    return -1;
  for (int i = 0; i < metadata->topic_cnt; i++)
    if (!strcmp(metadata->topics[i].topic, topic) && metadata->topics[i].partition_cnt > 0)
      replicas = metadata->topics[i].partitions[0].replica_cnt;
  rd_kafka_metadata_destroy(metadata);
  return replicas;
}

int livenps_kafka_create_topic(rd_kafka_t *rk, const char *topic, int partitions, int replicas,
                               const char *const *config, int timeout_ms, livenps_error *error) {
  char reason[256];
  rd_kafka_NewTopic_t *new_topic = rd_kafka_NewTopic_new(topic, partitions, replicas, reason, sizeof reason);
  if (!new_topic)
    return livenps_fail(error, LIVENPS_E_USAGE, "kafka: topic %s: %s", topic, reason);
  for (; config && config[0]; config += 2)
    rd_kafka_NewTopic_set_config(new_topic, config[0], config[1]);
  rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
  rd_kafka_AdminOptions_t *options = admin_options(rk, RD_KAFKA_ADMIN_OP_CREATETOPICS, timeout_ms);
  rd_kafka_CreateTopics(rk, &new_topic, 1, options, queue);
  rd_kafka_event_t *event = admin_wait(queue, timeout_ms, "CreateTopics", error);
  int result = -1;
  if (event) {
    size_t count;
    const rd_kafka_topic_result_t **results =
        rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &count);
    rd_kafka_resp_err_t code =
        count == 1 ? rd_kafka_topic_result_error(results[0]) : RD_KAFKA_RESP_ERR_UNKNOWN;
    if (!code || code == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
      result = 0;
    else
      livenps_fail(error, LIVENPS_E_REFUSED, "kafka: creating topic %s: %s", topic,
                   count == 1 ? rd_kafka_topic_result_error_string(results[0]) : "an empty answer");
    rd_kafka_event_destroy(event);
  }
  rd_kafka_NewTopic_destroy(new_topic);
  rd_kafka_AdminOptions_destroy(options);
  rd_kafka_queue_destroy(queue);
  return result;
}
