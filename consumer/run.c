#include "../common/clock.h"
#include "../common/log.h"
#include "../common/pulse.h"
#include "../common/rules.h"
#include "../common/service.h"
#include "../common/stop.h"
#include "aggregate.h"
#include "commands.h"
#include "keep.h"
#include "monitor.h"
#include "worker.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* A live instance: one thread reads and commits, or several (worker.h), one tries to be (or is) the aggregator, one asks Kafka how far its
 * topics reach. They share the settings, read-only, and the watch. */

enum {
  LEAVE_SECONDS =
      4, /* after a signal: by then we are gone, whatever hangs. A crash is exact, so an early end is too. */
};

typedef struct {
  livenps_aggregate_config config;
  atomic_bool stop;   /* finish and give the lease back */
  atomic_bool failed; /* error says why; the main loop ends the program */
  bool lost;          /* the last tick could not reach Redis; read after the join */
  livenps_error error;
  pthread_t thread;
} aggregating;

static void sleep_ms(int64_t ms) {
  struct timespec time = {ms / 1000, ms % 1000 * 1000000};
  nanosleep(&time, NULL);
}

static void *aggregator_thread(void *opaque) {
  aggregating *self = opaque;
  const livenps_settings *settings = self->config.settings;
  livenps_aggregate *aggregate;
  livenps_pulse_begin(LIVENPS_PULSE_AGGREGATOR);
  if (livenps_aggregate_open(&aggregate, &self->config, &self->error)) {
    self->failed = true;
    livenps_stop = 1;
    livenps_pulse_end();
    return NULL;
  }
  livenps_monitor *monitor = self->config.monitor;
  int64_t due_ms = livenps_monotonic_ms(), backoff_ms = 0, outage_since_ms = 0;
  while (!self->stop) {
    const int64_t now_ms = livenps_monotonic_ms();
    livenps_pulse();
    if (now_ms < due_ms) {
      sleep_ms(due_ms - now_ms < 20 ? due_ms - now_ms : 20);
      continue;
    }
    livenps_error error = {0};
    if (!livenps_aggregate_tick(aggregate, &error)) {
      if (outage_since_ms)
        livenps_log(LIVENPS_INFO, "aggregate", "going on after %.1f s",
                    (double)(now_ms - outage_since_ms) / 1000.0);
      outage_since_ms = backoff_ms = 0;
      livenps_monitor_aggregator(monitor, true);
      if (livenps_aggregate_active(aggregate))
        livenps_metrics_set(livenps_monitor_metrics(monitor), LIVENPS_M_ACTIVE, 0, 1);
      else
        livenps_monitor_standby(monitor);
      due_ms = now_ms + settings->tick_ms;
      continue;
    }
    /* Redis was found as it should be before this thread began: on its first connection, too, what is wrong with it now is an outage. */
    if (error.code != LIVENPS_E_LOST && error.code != LIVENPS_E_STARTUP) {
      self->error = error;
      self->failed = true;
      livenps_stop = 1; /* a reader may wait within a rebalance for the namespace that nobody begins now */
      break;
    }
    if (!outage_since_ms) {
      outage_since_ms = now_ms;
      livenps_log(LIVENPS_WARN, "aggregate", "%s", error.text);
    }
    livenps_monitor_aggregator(monitor, false);
    livenps_monitor_standby(monitor); /* whoever cannot reach Redis does not know either */
    backoff_ms = backoff_ms ? backoff_ms * 2 : settings->tick_ms;
    if (backoff_ms > settings->redis_backoff_max_ms)
      backoff_ms = settings->redis_backoff_max_ms;
    due_ms = livenps_monotonic_ms() + backoff_ms;
  }
  self->lost = outage_since_ms != 0;
  /* What this process committed last is in the log; folding it now spares the next aggregator a stale moment. */
  livenps_error error = {0};
  if (!self->failed && !self->lost && livenps_aggregate_active(aggregate) &&
      livenps_aggregate_finish(aggregate, 0, &error))
    livenps_log(LIVENPS_WARN, "aggregate", "the last publish did not succeed: %s", error.text);
  livenps_aggregate_close(aggregate);
  livenps_pulse_end();
  return NULL;
}

/* Redis as the program needs it, within startup_timeout. */
static int reach_redis(livenps_redis *redis, const livenps_settings *settings, livenps_error *error) {
  const int64_t until = livenps_monotonic_ms() + settings->startup_timeout_ms;
  for (;;) {
    livenps_error_clear(error);
    if (!livenps_redis_connect(redis, error))
      return 0;
    if (error->code != LIVENPS_E_LOST)
      return -1;
    if (livenps_stop || livenps_monotonic_ms() >= until)
      break;
    livenps_pulse();
    sleep_ms(100);
  }
  error->code = LIVENPS_E_STARTUP;
  return -1;
}

/* From the start on: at the moment of the signal every other thread may wait for a peer that hangs. Until then it tells the service's
 * manager whether they make progress. */
static void *leave_in_time(void *opaque) {
  (void)opaque;
  while (!livenps_stop) {
    livenps_service_turn();
    sleep_ms(100);
  }
  livenps_service_stopping();
  sleep_ms(LEAVE_SECONDS * 1000);
  livenps_log(LIVENPS_WARN, "run",
              "did not finish within %d s of the signal: leaving; nothing is lost, it will be read again",
              LEAVE_SECONDS);
  _exit(LIVENPS_E_LOST);
}

/* A dynamic member is a new writer each time it starts. */
static void writer_name(const livenps_settings *settings, char out[65]) {
  char random[9];
  livenps_random_hex(random, sizeof random);
  if (*settings->instance)
    snprintf(out, 65, "%.64s", settings->instance);
  else
    snprintf(out, 65, "%s", random);
}

int livenps_run(const livenps_settings *settings) {
  livenps_error error = {0};
  livenps_rules rules = {0};
  livenps_keep *keep = NULL;
  livenps_monitor *monitor = NULL;
  const int count = (int)settings->workers;
  livenps_worker *workers = livenps_alloc((size_t)count * sizeof *workers), *first = &workers[0];
  aggregating aggregator = {0};
  bool started = false;
  char writer[65];
  pthread_t watchdog;

  livenps_pulse_begin(LIVENPS_PULSE_MAIN);
  if (!pthread_create(&watchdog, NULL, leave_in_time, NULL))
    pthread_detach(watchdog);
  if (livenps_rules_open(&rules, settings, NULL, &error))
    goto end;
  writer_name(settings, writer);
  if (livenps_monitor_open(&monitor, settings, &error))
    goto end;
  /* Kafka first: a wrong property is told at once, without waiting for Redis. */
  if (livenps_worker_open(first, settings, &rules, writer, 0, monitor, &error) ||
      reach_redis(first->commit.redis, settings, &error) ||
      livenps_keep_open(&keep, settings, rules.hash, &error))
    goto end;
  for (int i = 1; i < count; i++)
    if (livenps_worker_open(&workers[i], settings, &rules, writer, i, monitor, &error))
      goto end;
  livenps_quarantine_prepare(first->quarantine, settings);
  livenps_keep_start(keep, livenps_monitor_metrics(monitor));

  aggregator.config =
      (livenps_aggregate_config){.settings = settings,
                                 .instance = writer,
                                 .source = {livenps_watch_beginnings, livenps_watch_partitions, first->watch},
                                 .keeper = livenps_keep_keeper(keep),
                                 .monitor = monitor,
                                 .paced = true};
  memcpy(aggregator.config.admit_hash, rules.hash, sizeof rules.hash);
  started = pthread_create(&aggregator.thread, NULL, aggregator_thread, &aggregator) == 0;

  if (livenps_worker_join(first, &error))
    goto end;
  for (int i = 1; i < count; i++)
    if (livenps_worker_start(&workers[i], &error))
      goto end;
  livenps_log(LIVENPS_INFO, "run", "instance %s reads %zu topics into namespace %s", writer,
              settings->topics.count, settings->namespace_);
  livenps_service_ready("instance %s reads %zu topics into namespace %s", writer, settings->topics.count,
                        settings->namespace_);
  while (!livenps_stop && !aggregator.failed && !livenps_worker_step(first, &error))
    ;
  if (aggregator.failed)
    error = aggregator.error;

end:
  if (livenps_stop)
    livenps_service_stopping(); /* leaving may be quicker than the thread that looks for the signal */
  if (count > 1)
    livenps_stop = 1; /* whatever ended this one: the others end with it, meanwhile */
  livenps_worker_flush(first, &error);
  for (int i = 1; i < count; i++)
    livenps_worker_finish(&workers[i], &error);
  aggregator.stop = true; /* it folds what was just committed, while we leave the group */
  livenps_worker_leave(first);
  if (started)
    pthread_join(aggregator.thread, NULL);
  if (!error.code && aggregator.failed) /* while we were leaving */
    error = aggregator.error;
  if (!error.code && aggregator.lost)
    livenps_fail(&error, LIVENPS_E_LOST, "redis is away; nothing is lost, it will be read again");
  livenps_keep_close(keep);
  for (int i = 0; i < count; i++)
    livenps_worker_close(&workers[i]);
  free(workers);
  livenps_monitor_close(monitor);
  livenps_rules_close(&rules);
  if (!error.code)
    return 0;
  livenps_log(LIVENPS_ERROR, "run", "%s", error.text);
  return (int)error.code;
}
