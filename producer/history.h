#ifndef LIVENPS_HISTORY_H
#define LIVENPS_HISTORY_H

#include "common/error.h"
#include "common/kafka.h"

/* History carries record timestamps of the past, and a broker deletes by record timestamp: a year-old topic under the default
 * retention is empty within minutes, silently. So whoever writes history asks the topic first. */
typedef struct {
  int64_t retention_ms; /* -1: kept for ever */
  int64_t before_ms;    /* how far before its own clock the broker accepts a record timestamp */
  int64_t after_ms;     /* how far after */
  bool append_time;     /* the broker overwrites record timestamps */
} livenps_history;
#define LIVENPS_HISTORY_ANY                                                                                  \
  { -1, INT64_MAX, INT64_MAX, false }

/* Reads the limits of a topic. The embedded cluster keeps no such settings: everything is allowed there. */
int livenps_history_read(livenps_history *history, rd_kafka_t *rk, const char *topic, int timeout_ms,
                         livenps_error *error);
/* Pure. Whether records from oldest_ms to newest_ms would be accepted and kept at now_ms; else REFUSED with what to set. */
int livenps_history_judge(const livenps_history *history, const char *topic, int64_t oldest_ms,
                          int64_t newest_ms, int64_t now_ms, livenps_error *error);

#endif
