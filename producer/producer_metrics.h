#ifndef LIVENPS_PRODUCER_METRICS_H
#define LIVENPS_PRODUCER_METRICS_H

#include "common/exporter.h"
#include "common/sender.h"

/* What the commands that run for long say of themselves: docs/metrics.md. */
#define LIVENPS_PRODUCER_METRIC_LIST(X)                                                                      \
  X(SENT, "livenps_producer_records_sent_total", COUNTER, 1, "Records handed to the Kafka client.")          \
  X(ACKNOWLEDGED, "livenps_producer_records_acknowledged_total", COUNTER, 1,                                 \
    "Records that the broker has acknowledged.")                                                             \
  X(FAILED, "livenps_producer_records_failed_total", COUNTER, 1, "Records that it never will.")              \
  X(BYTES, "livenps_producer_sent_bytes_total", COUNTER, 1, "Bytes of the values of records sent.")          \
  X(PENDING, "livenps_producer_pending_records", GAUGE, 1, "Records on their way.")                          \
  X(ACKNOWLEDGE_TIME, "livenps_producer_acknowledge_duration_seconds", HISTOGRAM, LIVENPS_METRIC_US,         \
    "From the handing over of a record to its acknowledgement.")

typedef enum {
#define LIVENPS_PRODUCER_METRIC_ENUM(symbol, name, kind, unit, help) LIVENPS_P_##symbol,
  LIVENPS_PRODUCER_METRIC_LIST(LIVENPS_PRODUCER_METRIC_ENUM)
#undef LIVENPS_PRODUCER_METRIC_ENUM
      LIVENPS_P_COUNT
} livenps_producer_metric;

/* The caller closes them. */
void livenps_producer_metrics(livenps_metrics **out);
void livenps_producer_measure(livenps_sender *sender, livenps_metrics *metrics);

#endif
