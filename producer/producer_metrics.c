#include "producer_metrics.h"

void livenps_producer_metrics(livenps_metrics **out) {
  static const livenps_metric table[] = {
#define LINE(symbol, name, kind, unit, help) {name, LIVENPS_##kind, unit, NULL, NULL, 0, false, help},
      LIVENPS_PRODUCER_METRIC_LIST(LINE)
#undef LINE
  };
  livenps_metrics_open(out, table, LIVENPS_P_COUNT, NULL);
}

void livenps_producer_measure(livenps_sender *sender, livenps_metrics *metrics) {
  livenps_sender_measure(sender, metrics,
                         &(livenps_sender_metrics){.sent = LIVENPS_P_SENT,
                                                   .acknowledged = LIVENPS_P_ACKNOWLEDGED,
                                                   .failed = LIVENPS_P_FAILED,
                                                   .bytes = LIVENPS_P_BYTES,
                                                   .pending = LIVENPS_P_PENDING,
                                                   .duration = LIVENPS_P_ACKNOWLEDGE_TIME});
}
