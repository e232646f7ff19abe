#ifndef LIVENPS_METRICS_H
#define LIVENPS_METRICS_H

#include "text.h"

/* What a program counts of itself, for Prometheus. A table names every metric; its samples are atomic numbers, so that a thread that
 * counts waits for nobody, and one that prints disturbs nobody. Every function takes NULL for "nobody wants to know" and does nothing.
 *
 * Labels are of sets that are known at the start (reasons, results, windows), or Kafka's topics and partitions. Names that come with
 * events are never labels: there is no end of them, and they are anybody's. */
typedef struct livenps_metrics livenps_metrics;

typedef enum { LIVENPS_COUNTER, LIVENPS_GAUGE, LIVENPS_HISTOGRAM } livenps_metric_kind;

typedef struct {
  const char *name; /* "livenps_commits_total" */
  livenps_metric_kind kind;
  int64_t unit; /* so many stored ones are one that is shown: 1, or 1000 for milliseconds shown as seconds */
  const char *label;         /* NULL: one sample */
  const char *const *values; /* of the label; borrowed for as long as the metrics live */
  size_t value_count;
  bool later; /* not shown before it is set, and not after livenps_metrics_forget; others begin at 0 */
  const char *help;
} livenps_metric;

/* Durations are stored in microseconds, and counted in buckets up to ten seconds. */
enum { LIVENPS_METRIC_US = 1000000, LIVENPS_METRIC_MS = 1000 };

/* The table is borrowed. namespace_ is a label of every sample; NULL: of none. */
void livenps_metrics_open(livenps_metrics **out, const livenps_metric *table, size_t count,
                          const char *namespace_);
void livenps_metrics_close(livenps_metrics *metrics);

/* which: the index of the label's value, 0 without a label. Sets are for one thread each, adds for any. */
void livenps_metrics_set(livenps_metrics *metrics, size_t metric, size_t which, int64_t value);
void livenps_metrics_add(livenps_metrics *metrics, size_t metric, size_t which, int64_t value);
/* A histogram: how long something took. */
void livenps_metrics_observe(livenps_metrics *metrics, size_t metric, int64_t us);
void livenps_metrics_forget(livenps_metrics *metrics, size_t metric);

/* A gauge by topic and partition (its label is "topic,partition"): begin, one line for each, end. Together they take the place of
 * all lines of before from the same source; until then those are shown. One thread for each source, a number below LIVENPS_SOURCES. */
enum { LIVENPS_SOURCES = 64 };
void livenps_metrics_begin(livenps_metrics *metrics, size_t metric, livenps_buffer *lines);
void livenps_metrics_line(const livenps_metrics *metrics, size_t metric, livenps_buffer *lines,
                          const char *topic, int32_t partition, int64_t value);
void livenps_metrics_end(livenps_metrics *metrics, size_t metric, size_t source,
                         livenps_buffer *lines); /* takes lines */

/* Appends everything in Prometheus's text format 0.0.4, and of the process: CPU time, memory, start. */
void livenps_metrics_print(livenps_metrics *metrics, livenps_buffer *out);

#endif
