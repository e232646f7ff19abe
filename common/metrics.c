#include "metrics.h"

#include "clock.h"
#include "error.h"
#include "version.h"

#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

/* In microseconds. A commit takes less than one millisecond, an outage of Redis seconds. */
static const int64_t bounds[] = {500,    1000,   2500,   5000,    10000,   25000,   50000,
                                 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000};
enum { BOUNDS = sizeof bounds / sizeof *bounds, SUM = BOUNDS + 1, SLOTS = BOUNDS + 2 };

#define ABSENT INT64_MIN

struct livenps_metrics {
  const livenps_metric *table;
  size_t count;
  char name_space[160]; /* namespace="default", or "" */
  size_t *first;        /* of a metric's slots */
  _Atomic int64_t *slots;
  pthread_mutex_t lock;   /* of lines: those that print, and those who replace them once a second */
  livenps_buffer **lines; /* of a metric that has some: one of each source */
  int64_t started_ms;
};

static size_t slots_of(const livenps_metric *metric) {
  return metric->kind == LIVENPS_HISTOGRAM ? SLOTS : metric->label ? metric->value_count : 1;
}

static bool has_lines(const livenps_metric *metric) {
  return metric->label && !metric->values;
}

/* In a label's value. Nothing of ours needs it: namespaces, topics and settings have no such characters. */
static void put_escaped(livenps_buffer *out, const char *text) {
  for (; *text; text++) {
    if (*text == '\\' || *text == '"') {
      livenps_buffer_add(out, "\\", 1);
    }
    livenps_buffer_add(out, *text == '\n' ? "\\n" : text, *text == '\n' ? 2 : 1);
  }
}

void livenps_metrics_open(livenps_metrics **out, const livenps_metric *table, size_t count,
                          const char *namespace_) {
  livenps_metrics *metrics = livenps_alloc(sizeof *metrics);
  metrics->table = table;
  metrics->count = count;
  metrics->started_ms = livenps_wall_ms();
  metrics->first = livenps_alloc((count + 1) * sizeof *metrics->first);
  metrics->lines = livenps_alloc((count + 1) * sizeof *metrics->lines);
  for (size_t i = 0; i < count; i++) {
    metrics->first[i + 1] = metrics->first[i] + slots_of(&table[i]);
    if (has_lines(&table[i])) {
      metrics->lines[i] = livenps_alloc(LIVENPS_SOURCES * sizeof *metrics->lines[i]);
    }
  }
  metrics->slots = livenps_alloc((metrics->first[count] + 1) * sizeof *metrics->slots);
  for (size_t i = 0; i < count; i++) {
    for (size_t slot = metrics->first[i]; slot < metrics->first[i + 1]; slot++) {
      atomic_init(&metrics->slots[slot], table[i].later ? ABSENT : 0);
    }
  }
  if (namespace_) {
    livenps_buffer text = {0};
    put_escaped(&text, namespace_);
    snprintf(metrics->name_space, sizeof metrics->name_space, "namespace=\"%.*s\"", (int)text.length,
             text.at ? text.at : "");
    livenps_buffer_free(&text);
  }
  pthread_mutex_init(&metrics->lock, NULL);
  *out = metrics;
}

void livenps_metrics_close(livenps_metrics *metrics) {
  if (!metrics) {
    return;
  }
  for (size_t i = 0; i < metrics->count; i++) {
    for (size_t source = 0; metrics->lines[i] && source < LIVENPS_SOURCES; source++) {
      livenps_buffer_free(&metrics->lines[i][source]);
    }
    free(metrics->lines[i]);
  }
  pthread_mutex_destroy(&metrics->lock);
  free(metrics->lines);
  free((void *)(uintptr_t)metrics->slots);
  free(metrics->first);
  free(metrics);
}

/* ---- counting ------------------------------------------------------------------------------------------------------- */

static _Atomic int64_t *slot_of(livenps_metrics *metrics, size_t metric, size_t which) {
  assert(metric < metrics->count && which < metrics->first[metric + 1] - metrics->first[metric]);
  return &metrics->slots[metrics->first[metric] + which];
}

void livenps_metrics_set(livenps_metrics *metrics, size_t metric, size_t which, int64_t value) {
  if (metrics) {
    atomic_store_explicit(slot_of(metrics, metric, which), value, memory_order_relaxed);
  }
}

void livenps_metrics_add(livenps_metrics *metrics, size_t metric, size_t which, int64_t value) {
  if (metrics) {
    atomic_fetch_add_explicit(slot_of(metrics, metric, which), value, memory_order_relaxed);
  }
}

void livenps_metrics_observe(livenps_metrics *metrics, size_t metric, int64_t us) {
  size_t bucket = 0;
  while (bucket < BOUNDS && us > bounds[bucket]) {
    bucket++;
  }
  livenps_metrics_add(metrics, metric, bucket, 1);
  livenps_metrics_add(metrics, metric, SUM, us);
}

void livenps_metrics_forget(livenps_metrics *metrics, size_t metric) {
  if (!metrics) {
    return;
  }
  if (has_lines(&metrics->table[metric])) {
    for (size_t source = 0; source < LIVENPS_SOURCES; source++) {
      livenps_buffer none = {0};
      livenps_metrics_end(metrics, metric, source, &none);
    }
    return;
  }
  for (size_t which = 0; which < slots_of(&metrics->table[metric]); which++) {
    livenps_metrics_set(metrics, metric, which, ABSENT);
  }
}

/* ---- printing ------------------------------------------------------------------------------------------------------- */

/* Stored ones as one that is shown, exactly: a counter beyond 2^53 must not lose its last digits. */
static void put_value(livenps_buffer *out, int64_t value, int64_t unit) {
  if (unit == 1) {
    livenps_buffer_print(out, " %" PRId64 "\n", value);
    return;
  }
  const uint64_t size = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
  livenps_buffer_print(out, " %s%" PRIu64 ".%0*" PRIu64 "\n", value < 0 ? "-" : "", size / (uint64_t)unit,
                       unit == LIVENPS_METRIC_US ? 6 : 3, size % (uint64_t)unit);
}

/* name{namespace="...",label="..."}; extra: more labels as text, or NULL. */
static void put_name(const livenps_metrics *metrics, livenps_buffer *out, const char *name,
                     const char *suffix, const char *label, const char *value) {
  livenps_buffer_print(out, "%s%s", name, suffix);
  if (!metrics->name_space[0] && !label) {
    return;
  }
  livenps_buffer_print(out, "{%s", metrics->name_space);
  if (label) {
    livenps_buffer_print(out, "%s%s=\"", metrics->name_space[0] ? "," : "", label);
    put_escaped(out, value);
    livenps_buffer_print(out, "\"");
  }
  livenps_buffer_print(out, "}");
}

void livenps_metrics_begin(livenps_metrics *metrics, size_t metric, livenps_buffer *lines) {
  assert(!metrics || has_lines(&metrics->table[metric]));
  lines->length = 0;
}

void livenps_metrics_line(const livenps_metrics *metrics, size_t metric, livenps_buffer *lines,
                          const char *topic, int32_t partition, int64_t value) {
  if (!metrics) {
    return;
  }
  put_name(metrics, lines, metrics->table[metric].name, "", "topic", topic);
  lines->length--; /* the brace */
  livenps_buffer_print(lines, ",partition=\"%" PRId32 "\"}", partition);
  put_value(lines, value, metrics->table[metric].unit);
}

void livenps_metrics_end(livenps_metrics *metrics, size_t metric, size_t source, livenps_buffer *lines) {
  livenps_buffer before = *lines;
  if (metrics) {
    pthread_mutex_lock(&metrics->lock);
    before = metrics->lines[metric][source];
    metrics->lines[metric][source] = *lines;
    pthread_mutex_unlock(&metrics->lock);
  }
  livenps_buffer_free(&before);
  *lines = (livenps_buffer){0};
}

static void put_histogram(livenps_metrics *metrics, size_t metric, livenps_buffer *out) {
  const char *name = metrics->table[metric].name;
  int64_t count = 0;
  for (size_t bucket = 0; bucket <= BOUNDS; bucket++) {
    char bound[32] = "+Inf";
    if (bucket < BOUNDS) {
      snprintf(bound, sizeof bound, "%g", (double)bounds[bucket] / LIVENPS_METRIC_US);
    }
    count += atomic_load_explicit(slot_of(metrics, metric, bucket), memory_order_relaxed);
    put_name(metrics, out, name, "_bucket", "le", bound);
    put_value(out, count, 1);
  }
  put_name(metrics, out, name, "_sum", NULL, NULL);
  put_value(out, atomic_load_explicit(slot_of(metrics, metric, SUM), memory_order_relaxed),
            LIVENPS_METRIC_US);
  put_name(metrics, out, name, "_count", NULL, NULL);
  put_value(out, count, 1);
}

static void put_head(livenps_buffer *out, const char *name, const char *kind, const char *help) {
  livenps_buffer_print(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind);
}

/* Under the names that Prometheus's own client libraries use, for dashboards that know them. */
static void put_process(const livenps_metrics *metrics, livenps_buffer *out) {
  struct rusage used = {0};
  unsigned long pages = 0;
  FILE *file = fopen("/proc/self/statm", "re");
  getrusage(RUSAGE_SELF, &used);
  put_head(out, "livenps_build_info", "gauge", "1; the labels say what this program was built as.");
  put_name(metrics, out, "livenps_build_info", "", "version", LIVENPS_VERSION);
  put_value(out, 1, 1);
  put_head(out, "process_start_time_seconds", "gauge", "When the program began, in seconds since 1970.");
  livenps_buffer_print(out, "process_start_time_seconds");
  put_value(out, metrics->started_ms, LIVENPS_METRIC_MS);
  put_head(out, "process_cpu_seconds_total", "counter", "CPU time of all threads, user and system.");
  livenps_buffer_print(out, "process_cpu_seconds_total");
  put_value(out,
            (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * INT64_C(1000000) + used.ru_utime.tv_usec +
                used.ru_stime.tv_usec,
            LIVENPS_METRIC_US);
  if (file && fscanf(file, "%*u %lu", &pages) == 1) {
    put_head(out, "process_resident_memory_bytes", "gauge", "Memory that is not paged out.");
    livenps_buffer_print(out, "process_resident_memory_bytes");
    put_value(out, (int64_t)pages * sysconf(_SC_PAGESIZE), 1);
  }
  if (file) {
    fclose(file);
  }
}

void livenps_metrics_print(livenps_metrics *metrics, livenps_buffer *out) {
  static const char *const kinds[] = {"counter", "gauge", "histogram"};
  for (size_t i = 0; i < metrics->count; i++) {
    const livenps_metric *metric = &metrics->table[i];
    put_head(out, metric->name, kinds[metric->kind], metric->help);
    if (metric->kind == LIVENPS_HISTOGRAM) {
      put_histogram(metrics, i, out);
      continue;
    }
    if (has_lines(metric)) {
      pthread_mutex_lock(&metrics->lock);
      for (size_t source = 0; source < LIVENPS_SOURCES; source++) {
        const livenps_buffer *lines = &metrics->lines[i][source];
        livenps_buffer_add(out, lines->at ? lines->at : "", lines->length);
      }
      pthread_mutex_unlock(&metrics->lock);
      continue;
    }
    for (size_t which = 0; which < slots_of(metric); which++) {
      const int64_t value = atomic_load_explicit(slot_of(metrics, i, which), memory_order_relaxed);
      if (value != ABSENT) {
        put_name(metrics, out, metric->name, "", metric->label, metric->label ? metric->values[which] : NULL);
        put_value(out, value, metric->unit);
      }
    }
  }
  put_process(metrics, out);
}
