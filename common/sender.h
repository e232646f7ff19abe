#ifndef LIVENPS_SENDER_H
#define LIVENPS_SENDER_H

#include "event.h"
#include "kafka.h"
#include "metrics.h"

/* Sends records so that each is either acknowledged by all replicas or reported: idempotent producer, acks=all, no time limit of
 * its own (a broker may be away for hours; the caller decides how long to wait). One thread. */
typedef struct livenps_sender livenps_sender;

/* Called from poll, send and flush for every record. error is NULL when acknowledged, else why it never will be. partition and
 * offset are those of the broker. */
typedef void (*livenps_delivered)(void *opaque, void *record, const char *error, int32_t partition,
                                  int64_t offset);

/* largest: bytes of a record that librdkafka takes, unless the settings say otherwise; 0: its own default, a million. */
int livenps_sender_open(livenps_sender **out, const livenps_settings *settings, int largest,
                        livenps_delivered delivered, void *opaque, livenps_error *error);
rd_kafka_t *livenps_sender_handle(livenps_sender *sender); /* for the questions of kafka.h */

/* What a sender counts, by the metrics' indices. */
typedef struct {
  size_t sent, acknowledged, failed, bytes; /* counters */
  size_t pending;                           /* a gauge */
  size_t duration;                          /* a histogram: from the handing over to the acknowledgement */
} livenps_sender_metrics;
/* From now on it counts there. metrics: borrowed; may be NULL. */
void livenps_sender_measure(livenps_sender *sender, livenps_metrics *metrics,
                            const livenps_sender_metrics *which);

/* Hands one record to librdkafka, copying it. While its queue is full this serves deliveries and waits, at most wait_ms (LOST then,
 * nothing was handed over). partition -1: by the key's hash (murmur2_random, as Java does). timestamp_ms 0: now. */
int livenps_sender_send(livenps_sender *sender, const char *topic, int32_t partition, livenps_text key,
                        livenps_text value, const livenps_header *headers, size_t header_count,
                        int64_t timestamp_ms, void *record, int wait_ms, livenps_error *error);
size_t livenps_sender_pending(
    const livenps_sender *sender); /* handed over, neither acknowledged nor failed */
void livenps_sender_poll(livenps_sender *sender, int wait_ms);
/* Waits until nothing is pending, at most wait_ms: 0, or -1 (LOST) with how many are left. */
int livenps_sender_flush(livenps_sender *sender, int wait_ms, livenps_error *error);
void livenps_sender_close(livenps_sender *sender); /* drops what is pending */

#endif
