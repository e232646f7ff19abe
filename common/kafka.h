#ifndef LIVENPS_KAFKA_H
#define LIVENPS_KAFKA_H

#include "settings.h"

#include <librdkafka/rdkafka.h>

/* What both programs ask of librdkafka: a configuration from the settings, and questions about topics. Only the files that talk
 * to Kafka include this header. */

typedef enum { LIVENPS_KAFKA_CONSUMER, LIVENPS_KAFKA_PRODUCER } livenps_kafka_role;

/* The settings' kafka.* by librdkafka's own names on top of our defaults (client.id, log callback, bounded back-offs) and the caller's
 * (pairs of name, value, NULL-terminated; may be NULL). What would break a promise is refused with the reason (group.id,
 * auto.offset.reset, isolation.level, acks ...). *out belongs to the caller until rd_kafka_new takes it. */
int livenps_kafka_conf(rd_kafka_conf_t **out, const livenps_settings *settings, livenps_kafka_role role,
                       const char *const *defaults, livenps_error *error);
/* Sets one property that we decide ourselves; a refusal is a programming error or an unsupported value, said in error. */
int livenps_kafka_set(rd_kafka_conf_t *conf, const char *name, const char *value, livenps_error *error);
/* As livenps_kafka_conf, for whoever reads: the group of the namespace, nothing committed by itself, committed records only, told of a
 * partition's end and of an offset out of range. */
int livenps_kafka_consumer_conf(rd_kafka_conf_t **out, const livenps_settings *settings,
                                livenps_error *error);
/* rd_kafka_new with conf taken in every case. */
int livenps_kafka_open(rd_kafka_t **out, rd_kafka_conf_t *conf, livenps_kafka_role role,
                       livenps_error *error);
/* A consumer of livenps_kafka_consumer_conf that reads what rd_kafka_assign gives it; it names the group and never joins it. config: what it
 * wants otherwise, pairs of name, value, NULL-terminated; may be NULL. */
int livenps_kafka_open_groupless(rd_kafka_t **out, const livenps_settings *settings,
                                 const char *const *config, livenps_error *error);
/* Destroys a consumer, with flags RD_KAFKA_DESTROY_F_*, and waits half a second for that at most: librdkafka 2.0.2 never ends destroying one
 * whose topic was deleted and made anew under it (seen about once in three times), because it waits on for the partition's last reference. Then
 * it is left to the end of the process, and the answer is false. */
bool livenps_kafka_close(rd_kafka_t *rk, int flags);
/* What the settings say about bootstrap.servers, for messages ("(not set)" without). */
const char *livenps_kafka_servers(const livenps_settings *settings);

/* Waits until a broker answers, at most timeout_ms. STARTUP with the last thing librdkafka said (refused, wrong password ...). */
int livenps_kafka_reach(rd_kafka_t *rk, const livenps_settings *settings, int timeout_ms,
                        livenps_error *error);

/* Whether this is librdkafka's mock cluster (livenps-producer embedded): it makes topics by itself and never answers the questions of
 * administration, so asking costs seconds for nothing. false also when nobody answers in time. */
bool livenps_embedded_cluster(rd_kafka_t *rk, int timeout_ms);

/* Number of partitions of a topic now, 0 when there is none. -1 with LOST when no broker answers in time. Never creates it. */
int livenps_kafka_partitions(rd_kafka_t *rk, const char *topic, int timeout_ms, livenps_error *error);

/* Values of a topic's configuration by name; values[i] is NULL when unknown, else the caller frees it. LOST on time-out (the embedded
 * cluster does not answer such questions). */
int livenps_kafka_topic_config(rd_kafka_t *rk, const char *topic, const char *const *names, size_t count,
                               char **values, int timeout_ms, livenps_error *error);

/* Creates a topic; an existing one is fine. replicas -1: the cluster's default. config: pairs of name, value, NULL-terminated. */
int livenps_kafka_create_topic(rd_kafka_t *rk, const char *topic, int partitions, int replicas,
                               const char *const *config, int timeout_ms, livenps_error *error);

/* Replicas of a topic's first partition, -1 when not known. Never creates it. */
int livenps_kafka_replicas(rd_kafka_t *rk, const char *topic, int timeout_ms);

#endif
