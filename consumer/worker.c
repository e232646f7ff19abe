#include "worker.h"

#include "../common/log.h"
#include "../common/pulse.h"
#include "../common/stop.h"

#include <stdio.h>

enum { STEP_MS = 10 };

/* NAME for worker 0, NAME.w2 and so on for those after it; of NAME as much as leaves room for that. */
static void name_of(int number, const char *name, char *out, size_t size) {
  if (number == 0)
    snprintf(out, size, "%s", name);
  else
    snprintf(out, size, "%.*s.w%u", (int)size - 6, name, (unsigned)(uint8_t)(number + 1));
}

int livenps_worker_open(livenps_worker *worker, const livenps_settings *settings, const livenps_rules *rules,
                        const char *writer, int number, livenps_monitor *monitor, livenps_error *error) {
  char name[65];
  *worker = (livenps_worker){.rules = rules, .settings = *settings, .number = number, .monitor = monitor};
  if (*settings->instance)
    name_of(number, settings->instance, worker->instance, sizeof worker->instance);
  worker->settings.instance = worker->instance;
  name_of(number, writer, name, sizeof name);
  return livenps_commit_open(&worker->commit, &worker->settings, rules->hash, name, error) ||
                 livenps_watch_open(&worker->watch, &worker->settings, error) ||
                 livenps_quarantine_open(&worker->quarantine, &worker->settings, error)
             ? -1
             : 0;
}

int livenps_worker_join(livenps_worker *worker, livenps_error *error) {
  const livenps_reader_config config = {.settings = &worker->settings,
                                        .admission = &worker->rules->admission,
                                        .mappings = (const livenps_mapping *const *)worker->rules->mappings,
                                        .watch = worker->watch,
                                        .commit = &worker->commit,
                                        .quarantine = worker->quarantine,
                                        .monitor = worker->monitor,
                                        .number = worker->number};
  livenps_watch_start(worker->watch, true);
  return livenps_reader_open(&worker->reader, &config, error) ||
                 livenps_reader_subscribe(worker->reader, error)
             ? -1
             : 0;
}

int livenps_worker_step(livenps_worker *worker, livenps_error *error) {
  livenps_pulse();
  return livenps_reader_step(worker->reader, STEP_MS, error);
}

void livenps_worker_flush(livenps_worker *worker, livenps_error *error) {
  if (!worker->reader || error->code)
    return;
  livenps_reader_stats stats;
  if (livenps_reader_flush(worker->reader, error))
    livenps_fail_prefix(error, "what was in hand will be read again");
  livenps_reader_stats_get(worker->reader, &stats);
  char who[32] = "";
  if (worker->settings.workers > 1)
    snprintf(who, sizeof who, "worker %d ", worker->number + 1);
  livenps_log(LIVENPS_INFO, "run",
              "%sleaving: %llu records read, %llu accepted, %llu rejected, %llu commits, %llu jumps of "
              "offsets read twice",
              who, (unsigned long long)stats.records, (unsigned long long)stats.accepted,
              (unsigned long long)stats.rejected, (unsigned long long)worker->commit.commits,
              (unsigned long long)stats.refetches);
}

void livenps_worker_leave(livenps_worker *worker) {
  livenps_reader_close(worker->reader);
  worker->reader = NULL;
}

void livenps_worker_close(livenps_worker *worker) {
  livenps_worker_leave(worker);
  livenps_quarantine_close(worker->quarantine);
  livenps_watch_close(worker->watch);
  livenps_commit_close(&worker->commit);
  *worker = (livenps_worker){0};
}

static void *worker_thread(void *opaque) {
  livenps_worker *worker = opaque;
  livenps_pulse_begin(LIVENPS_PULSE_WORKER);
  if (!livenps_worker_join(worker, &worker->error))
    while (!livenps_stop && !livenps_worker_step(worker, &worker->error))
      ;
  livenps_worker_flush(worker, &worker->error);
  if (worker->error.code)
    livenps_stop = 1;
  livenps_worker_leave(worker);
  livenps_pulse_end();
  return NULL;
}

int livenps_worker_start(livenps_worker *worker, livenps_error *error) {
  if (pthread_create(&worker->thread, NULL, worker_thread, worker))
    return livenps_fail(error, LIVENPS_E_STARTUP, "worker %d: no thread for it", worker->number + 1);
  worker->started = true;
  return 0;
}

void livenps_worker_finish(livenps_worker *worker, livenps_error *error) {
  if (!worker->started)
    return;
  pthread_join(worker->thread, NULL);
  worker->started = false;
  if (worker->error.code)
    livenps_fail(error, worker->error.code, "worker %d: %s", worker->number + 1, worker->error.text);
}
