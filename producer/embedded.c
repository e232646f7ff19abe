#include "commands.h"

#include "common/log.h"

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The mock cluster lives in threads of librdkafka; this file opens it, says where it is and waits. */

enum { MAX_BROKERS = 16, MAX_PARTITIONS = 1000, MAX_TOPIC_NAME = 249 };

/* "NAME:PARTITIONS"; the name goes to out, which has room for MAX_TOPIC_NAME and a NUL. */
static int parse_topic(const char *text, char *out, int *partitions, livenps_error *error) {
  const char *colon = strrchr(text, ':');
  char *end = NULL;
  const long count = colon ? strtol(colon + 1, &end, 10) : 0;
  if (!colon || colon == text || colon - text > MAX_TOPIC_NAME || end == colon + 1 || *end || count < 1 ||
      count > MAX_PARTITIONS)
    return livenps_fail(
        error, LIVENPS_E_USAGE,
        "embedded: topic '%.80s' is not NAME:PARTITIONS with 1 to %d partitions, for example events:6", text,
        MAX_PARTITIONS);
  memcpy(out, text, (size_t)(colon - text));
  out[colon - text] = '\0';
  *partitions = (int)count;
  return 0;
}

int livenps_embedded(const livenps_settings *settings, const livenps_embedded_options *options) {
  (void)settings;
  livenps_error error = {0};
  char reason[256];
  rd_kafka_t *rk = NULL;
  rd_kafka_mock_cluster_t *cluster = NULL;
  if (options->brokers < 1 || options->brokers > MAX_BROKERS) {
    livenps_fail(&error, LIVENPS_E_USAGE, "embedded: %d brokers: allowed are 1 to %d", options->brokers,
                 MAX_BROKERS);
    goto out;
  }
  /* The mock cluster hangs on a client handle that is otherwise not used. */
  rd_kafka_conf_t *conf = rd_kafka_conf_new();
  rd_kafka_conf_set(conf, "client.id", "livenps-embedded", reason, sizeof reason);
  rd_kafka_conf_set(conf, "log_level", "4", reason, sizeof reason);
  if (!(rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, reason, sizeof reason))) {
    rd_kafka_conf_destroy(conf);
    livenps_fail(&error, LIVENPS_E_STARTUP, "embedded: %s", reason);
    goto out;
  }
  if (!(cluster = rd_kafka_mock_cluster_new(rk, options->brokers))) {
    livenps_fail(&error, LIVENPS_E_STARTUP,
                 "embedded: the cluster could not open its ports on the loopback interface");
    goto out;
  }
  const int replication = options->brokers < 3 ? options->brokers : 3;
  for (size_t i = 0; i < options->topic_count; i++) {
    char name[MAX_TOPIC_NAME + 1];
    int partitions = 0;
    if (parse_topic(options->topics[i], name, &partitions, &error))
      goto out;
    rd_kafka_resp_err_t code = rd_kafka_mock_topic_create(cluster, name, partitions, replication);
    if (code) {
      livenps_fail(&error, LIVENPS_E_STARTUP, "embedded: topic %s: %s", name, rd_kafka_err2str(code));
      goto out;
    }
  }
  printf("%s\n", rd_kafka_mock_cluster_bootstraps(cluster));
  if (fflush(stdout)) {
    livenps_fail(&error, LIVENPS_E_STARTUP, "embedded: the bootstrap servers could not be written to stdout");
    goto out;
  }
  livenps_log(LIVENPS_INFO, "embedded", "cluster of %d brokers at %s, in memory, about 5 MB per partition",
              options->brokers, rd_kafka_mock_cluster_bootstraps(cluster));
  while (!livenps_stop)
    poll(NULL, 0, 100);

out:
  if (error.code)
    livenps_log(LIVENPS_ERROR, "embedded", "%s", error.text);
  if (cluster)
    rd_kafka_mock_cluster_destroy(cluster);
  if (rk)
    rd_kafka_destroy(rk);
  return (int)error.code;
}
