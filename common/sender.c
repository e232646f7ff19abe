#include "sender.h"

#include "clock.h"

#include <stdio.h>
#include <stdlib.h>

struct livenps_sender {
  rd_kafka_t *rk;
  livenps_delivered delivered;
  void *opaque;
  size_t pending;
  livenps_metrics *metrics;
  livenps_sender_metrics which;
};

void livenps_sender_measure(livenps_sender *sender, livenps_metrics *metrics,
                            const livenps_sender_metrics *which) {
  sender->metrics = metrics;
  sender->which = *which;
}

static void measure_delivery(const livenps_sender *sender, const rd_kafka_message_t *message) {
  livenps_metrics_add(sender->metrics, message->err ? sender->which.failed : sender->which.acknowledged, 0,
                      1);
  livenps_metrics_set(sender->metrics, sender->which.pending, 0, (int64_t)sender->pending);
  if (!message->err)
    livenps_metrics_observe(sender->metrics, sender->which.duration, rd_kafka_message_latency(message));
}

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque) {
  (void)rk;
  livenps_sender *sender = opaque;
  sender->pending--;
  if (sender->metrics)
    measure_delivery(sender, message);
  if (sender->delivered)
    sender->delivered(sender->opaque, message->_private, message->err ? rd_kafka_err2str(message->err) : NULL,
                      message->partition, message->offset);
}

int livenps_sender_open(livenps_sender **out, const livenps_settings *settings, int largest,
                        livenps_delivered delivered, void *opaque, livenps_error *error) {
  rd_kafka_conf_t *conf;
  char value[16];
  const char *const larger[] = {"message.max.bytes", value, NULL};
  snprintf(value, sizeof value, "%d", largest);
  if (livenps_kafka_conf(&conf, settings, LIVENPS_KAFKA_PRODUCER, largest ? larger : NULL, error))
    return -1;
  livenps_sender *sender = livenps_alloc(sizeof *sender);
  *sender = (livenps_sender){.delivered = delivered, .opaque = opaque};
  rd_kafka_conf_set_opaque(conf, sender);
  rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
  /* The partitioner of the Java client: producers in several languages keep one customer in one partition. */
  if (livenps_kafka_set(conf, "partitioner", "murmur2_random", error)) {
    rd_kafka_conf_destroy(conf);
    free(sender);
    return -1;
  }
  if (livenps_kafka_open(&sender->rk, conf, LIVENPS_KAFKA_PRODUCER, error)) {
    free(sender);
    return -1;
  }
  *out = sender;
  return 0;
}

rd_kafka_t *livenps_sender_handle(livenps_sender *sender) {
  return sender->rk;
}

int livenps_sender_send(livenps_sender *sender, const char *topic, int32_t partition, livenps_text key,
                        livenps_text value, const livenps_header *headers, size_t header_count,
                        int64_t timestamp_ms, void *record, int wait_ms, livenps_error *error) {
  const int64_t until = livenps_monotonic_ms() + wait_ms;
  for (;;) {
    rd_kafka_headers_t *copy = NULL;
    if (header_count) {
      copy = rd_kafka_headers_new(header_count);
      for (size_t i = 0; i < header_count; i++)
        rd_kafka_header_add(copy, headers[i].name.at, (ssize_t)headers[i].name.length, headers[i].value.at,
                            (ssize_t)headers[i].value.length);
    }
    rd_kafka_vu_t arguments[8] = {
        {.vtype = RD_KAFKA_VTYPE_TOPIC, .u.cstr = topic},
        {.vtype = RD_KAFKA_VTYPE_PARTITION, .u.i32 = partition < 0 ? RD_KAFKA_PARTITION_UA : partition},
        {.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = RD_KAFKA_MSG_F_COPY},
        {.vtype = RD_KAFKA_VTYPE_KEY, .u.mem = {.ptr = (void *)(uintptr_t)key.at, .size = key.length}},
        {.vtype = RD_KAFKA_VTYPE_VALUE, .u.mem = {.ptr = (void *)(uintptr_t)value.at, .size = value.length}},
        {.vtype = RD_KAFKA_VTYPE_TIMESTAMP, .u.i64 = timestamp_ms},
        {.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = record},
        {.vtype = RD_KAFKA_VTYPE_HEADERS, .u.headers = copy},
    };
    rd_kafka_error_t *refused = rd_kafka_produceva(sender->rk, arguments, copy ? 8 : 7);
    if (!refused) {
      sender->pending++;
      if (sender->metrics) {
        livenps_metrics_add(sender->metrics, sender->which.sent, 0, 1);
        livenps_metrics_add(sender->metrics, sender->which.bytes, 0, (int64_t)value.length);
        livenps_metrics_set(sender->metrics, sender->which.pending, 0, (int64_t)sender->pending);
      }
      return 0;
    }
    if (copy)
      rd_kafka_headers_destroy(copy);
    const rd_kafka_resp_err_t code = rd_kafka_error_code(refused);
    if (code != RD_KAFKA_RESP_ERR__QUEUE_FULL) {
      livenps_fail(error, code == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE ? LIVENPS_E_DATA : LIVENPS_E_REFUSED,
                   "kafka: topic %s: %s", topic, rd_kafka_error_string(refused));
      rd_kafka_error_destroy(refused);
      return -1;
    }
    rd_kafka_error_destroy(refused);
    if (livenps_monotonic_ms() >= until)
      return livenps_fail(error, LIVENPS_E_LOST,
                          "kafka: topic %s: the queue is full of records that no broker acknowledged", topic);
    rd_kafka_poll(sender->rk, 10);
  }
}

size_t livenps_sender_pending(const livenps_sender *sender) {
  return sender->pending;
}

void livenps_sender_poll(livenps_sender *sender, int wait_ms) {
  rd_kafka_poll(sender->rk, wait_ms);
}

int livenps_sender_flush(livenps_sender *sender, int wait_ms, livenps_error *error) {
  rd_kafka_flush(sender->rk, wait_ms);
  if (!sender->pending)
    return 0;
  return livenps_fail(error, LIVENPS_E_LOST, "kafka: %zu records are not acknowledged yet", sender->pending);
}

void livenps_sender_close(livenps_sender *sender) {
  if (!sender)
    return;
  rd_kafka_purge(sender->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
  rd_kafka_poll(sender->rk, 0);
  rd_kafka_destroy(sender->rk);
  free(sender);
}
