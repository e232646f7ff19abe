#include "monitor.h"

#include "../common/clock.h"
#include "../common/exporter.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
  SLACK_MS = 5000, /* the ends of partitions are asked for now and then */
};

typedef enum {
  NONE,
  FATE,
  REASON,
  COMMIT,
  CONNECTION,
  RELOAD,
  ORIGIN,
  STORE,
  WINDOW,
  ROLLUP,
  PARTITION
} label;

static const char *const fates[] = {"accepted", "rejected", "late", "duplicate", "out_of_range"};
static const char *const commits[] = {"ok", "conflict", "anew", "full", "lost"};
static const char *const connections[] = {"commit", "aggregate"};
static const char *const reloads[] = {"lease", "broken", "gone", "lineage", "later"};
static const char *const origins[] = {"topic", "snapshot"};
static const char *const stores[] = {"redis", "kafka"};

_Static_assert((int)LIVENPS_SOURCES >= (int)LIVENPS_WORKERS_MAX, "each worker is a source");

struct livenps_monitor {
  const livenps_settings *settings;
  livenps_metrics *metrics;
  livenps_exporter *exporter;
  livenps_metric table[LIVENPS_M_COUNT];
  const char *reasons[LIVENPS_REASONS];
  livenps_window *windows;
  const char **window_names;
  atomic_bool aggregator_up; /* Redis, for it */
  struct {
    atomic_bool up, assigned;
    _Atomic int64_t caught_up_ms;
  } readers[LIVENPS_WORKERS_MAX]; /* as many as settings->workers */
};

static void take_table(livenps_monitor *monitor) {
  static const struct {
    livenps_metric metric;
    label label;
  } list[] = {
#define LINE(symbol, name, kind, unit, label, later, help)                                                   \
  {{name, LIVENPS_##kind, unit, NULL, NULL, 0, later, help}, label},
      LIVENPS_MONITOR_LIST(LINE)
#undef LINE
  };
#define VALUES(name, values)                                                                                 \
  { name, (const char *const *)(values), sizeof(values) / sizeof *(values) }
  const livenps_list *rollups = &monitor->settings->rollups;
  const struct {
    const char *name;
    const char *const *values;
    size_t count;
  } labels[] = {
      [NONE] = {NULL, NULL, 0},
      [FATE] = VALUES("fate", fates),
      [REASON] = VALUES("reason", monitor->reasons),
      [COMMIT] = VALUES("result", commits),
      [CONNECTION] = VALUES("connection", connections),
      [RELOAD] = VALUES("reason", reloads),
      [ORIGIN] = VALUES("from", origins),
      [STORE] = VALUES("store", stores),
      [WINDOW] = {"window", monitor->window_names, monitor->settings->windows.count},
      [ROLLUP] = {"rollup", (const char *const *)rollups->at, rollups->count},
      [PARTITION] = {"topic,partition", NULL, 0},
  };
#undef VALUES
  for (size_t i = 0; i < LIVENPS_M_COUNT; i++) {
    monitor->table[i] = list[i].metric;
    monitor->table[i].label = labels[list[i].label].name;
    monitor->table[i].values = labels[list[i].label].values;
    monitor->table[i].value_count = labels[list[i].label].count;
  }
}

/* ---- ready? --------------------------------------------------------------------------------------------------------- */

static bool readers_up(const livenps_monitor *monitor) {
  bool up = true;
  for (int i = 0; i < monitor->settings->workers; i++) {
    up &= monitor->readers[i].up;
  }
  return up;
}

static bool ready(void *opaque, livenps_buffer *why) {
  livenps_monitor *monitor = opaque;
  bool assigned = true;
  bool caught_up = true;
  for (int i = 0; i < monitor->settings->workers; i++) {
    const int64_t since_ms = monitor->readers[i].caught_up_ms;
    const int64_t behind_ms = since_ms == INT64_MAX ? 0 : livenps_monotonic_ms() - since_ms - SLACK_MS;
    const bool has_some = monitor->readers[i].assigned;
    assigned &= has_some;
    caught_up &= !has_some || (since_ms != 0 && behind_ms <= monitor->settings->complete_lag_ms);
  }
  const bool up[LIVENPS_M_CONNECTIONS] = {
      [LIVENPS_M_BY_COMMIT] = readers_up(monitor), [LIVENPS_M_BY_AGGREGATE] = monitor->aggregator_up};
  bool well = assigned && caught_up;
  if (!assigned) {
    livenps_buffer_print(why,
                         "the group has not given out partitions yet, or their positions are not known\n");
  }
  for (int i = 0; i < LIVENPS_M_CONNECTIONS; i++) {
    if (!up[i]) {
      livenps_buffer_print(why, "Redis is away, or refuses what is written (%s)\n", connections[i]);
      well = false;
    }
  }
  if (!caught_up) {
    livenps_buffer_print(why, "not all partitions are read to their ends yet (complete_lag, and 5 s)\n");
  }
  return well;
}

/* ---- open, close ---------------------------------------------------------------------------------------------------- */

int livenps_monitor_open(livenps_monitor **out, const livenps_settings *settings, livenps_error *error) {
  *out = NULL;
  if (!settings->metrics_listen[0]) {
    return 0;
  }
  livenps_monitor *monitor = livenps_alloc(sizeof *monitor);
  monitor->settings = settings;
  for (int i = 0; i < LIVENPS_REASONS; i++) {
    monitor->reasons[i] = livenps_reason_name((livenps_reason)i);
  }
  monitor->windows = livenps_alloc((settings->windows.count + 1) * sizeof *monitor->windows);
  monitor->window_names = livenps_alloc((settings->windows.count + 1) * sizeof *monitor->window_names);
  for (size_t i = 0; i < settings->windows.count; i++) {
    livenps_window_parse(settings->windows.at[i], &monitor->windows[i], NULL);
    monitor->window_names[i] = monitor->windows[i].name;
  }
  take_table(monitor);
  livenps_metrics_open(&monitor->metrics, monitor->table, LIVENPS_M_COUNT, settings->namespace_);
  const livenps_exported exported = {.metrics = monitor->metrics, .ready = ready, .opaque = monitor};
  if (livenps_exporter_open(&monitor->exporter, settings, &exported, error) != 0) {
    livenps_monitor_close(monitor);
    return -1;
  }
  *out = monitor;
  return 0;
}

void livenps_monitor_close(livenps_monitor *monitor) {
  if (!monitor) {
    return;
  }
  livenps_exporter_close(monitor->exporter);
  livenps_metrics_close(monitor->metrics);
  free(monitor->window_names);
  free(monitor->windows);
  free(monitor);
}

livenps_metrics *livenps_monitor_metrics(livenps_monitor *monitor) {
  return monitor ? monitor->metrics : NULL;
}

/* ---- what the threads say ------------------------------------------------------------------------------------------- */

void livenps_monitor_aggregator(livenps_monitor *monitor, bool redis) {
  if (monitor) {
    monitor->aggregator_up = redis;
    livenps_metrics_set(monitor->metrics, LIVENPS_M_REDIS_UP, LIVENPS_M_BY_AGGREGATE, redis);
  }
}

void livenps_monitor_reading(livenps_monitor *monitor, int reader, bool redis, bool assigned,
                             int64_t caught_up_ms) {
  if (monitor) {
    monitor->readers[reader].caught_up_ms = caught_up_ms;
    monitor->readers[reader].assigned = assigned;
    monitor->readers[reader].up = redis;
    livenps_metrics_set(monitor->metrics, LIVENPS_M_REDIS_UP, LIVENPS_M_BY_COMMIT, readers_up(monitor));
  }
}

void livenps_monitor_standby(livenps_monitor *monitor) {
  if (monitor) {
    livenps_metrics_set(monitor->metrics, LIVENPS_M_ACTIVE, 0, 0);
    for (size_t i = LIVENPS_M_COMPLETE; i < LIVENPS_M_COUNT; i++) {
      livenps_metrics_forget(monitor->metrics, i);
    }
  }
}
