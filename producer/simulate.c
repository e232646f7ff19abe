#include "commands.h"

#include "drain.h"
#include "encode.h"
#include "generate.h"
#include "history.h"
#include "producer_metrics.h"
#include "truth.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/sender.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
  ANSWER_MS = 10 * 1000, /* for one question to the broker */
  INCIDENT_EVENT = 5000, /* it begins here, or after a quarter of --count if that is earlier */
  /* The embedded cluster keeps 5 MiB of each partition. A reader that is ten seconds behind must not lose anything. */
  EMBEDDED_BYTES_PER_S = 5 * 1024 * 1024 / 10,
  /* It answers a fetch with one batch of each partition, however small. So events are handed over in bursts, which make few batches:
   * beside two simulators of 1,500 events a second each a reader otherwise falls ever further behind. */
  EMBEDDED_BURST_MS = 50,
};

typedef struct {
  const livenps_simulate_options *options;
  livenps_generator *generator;
  livenps_sender *sender; /* NULL in a dry run */
  livenps_truth *truth;   /* NULL without --truth */
  livenps_metrics *metrics;
  livenps_exporter *exporter; /* NULL where nobody wants to know */
  livenps_buffer line;
  int64_t bytes_per_s; /* 0: no limit */
  int64_t until_ms;    /* history without --count ends here */
  int64_t sent, acknowledged, failed, bytes;
  char reason[160]; /* of the first failure */
} simulated_run;

static void on_delivered(void *opaque, void *record, const char *error, int32_t partition, int64_t offset) {
  (void)partition;
  (void)offset;
  simulated_run *simulation = opaque;
  if (error) {
    if (!simulation->failed++)
      snprintf(simulation->reason, sizeof simulation->reason, "%s", error);
    return;
  }
  simulation->acknowledged++;
  if (simulation->truth)
    livenps_truth_acknowledge(simulation->truth, (size_t)(uintptr_t)record);
}

/* ---- pace ---- */

/* When the next event is due, on the monotonic clock. It never lags by more than a second, so an outage is not followed by a
 * burst. */
static void pace_sent(double *due_ms, const simulated_run *simulation, size_t bytes) {
  double step_ms = 0;
  if (simulation->options->rate > 0)
    step_ms = 1000 / simulation->options->rate;
  if (simulation->bytes_per_s) {
    const double needed_ms = (double)bytes * 1000 / (double)simulation->bytes_per_s;
    if (needed_ms > step_ms)
      step_ms = needed_ms;
  }
  const double now_ms = (double)livenps_monotonic_ms();
  if (*due_ms < now_ms - 1000)
    *due_ms = now_ms - 1000;
  *due_ms += step_ms;
}

/* Serves deliveries until the next event is due or we are told to stop. */
static void pace_wait(double due_ms, simulated_run *simulation) {
  if (simulation->bytes_per_s && due_ms >= (double)livenps_monotonic_ms() + 1) {
    const int64_t bursts = (int64_t)due_ms / EMBEDDED_BURST_MS + 1;
    due_ms = (double)(bursts * EMBEDDED_BURST_MS);
  }
  for (;;) {
    const double wait_ms = due_ms - (double)livenps_monotonic_ms();
    if (wait_ms < 1 || livenps_stop)
      return;
    const int slice_ms = wait_ms < 50 ? (int)wait_ms : 50;
    if (simulation->sender)
      livenps_sender_poll(simulation->sender, slice_ms);
    else
      poll(NULL, 0, slice_ms);
  }
}

static void progress(const simulated_run *simulation, int64_t *next_ms, bool last) {
  const int64_t now_ms = livenps_monotonic_ms();
  if (!isatty(STDERR_FILENO) || simulation->options->dry_run || (!last && now_ms < *next_ms))
    return;
  *next_ms = now_ms + 500;
  fprintf(stderr, "\r%" PRId64 " sent, %" PRId64 " acknowledged%s", simulation->sent,
          simulation->acknowledged, last ? "\n" : "");
}

/* ---- sending ---- */

/* Hands over one event; waits while the queue is full, for as long as nobody stops us. 0, 1 when stopped, -1. */
static int send_event(simulated_run *simulation, const livenps_generated *generated, livenps_error *error) {
  const size_t number = simulation->truth ? livenps_truth_add(simulation->truth, generated) : 0;
  const livenps_text value = {simulation->line.at, simulation->line.length};
  for (;;) {
    livenps_error refused = {0};
    if (!livenps_sender_send(simulation->sender, simulation->options->topic, -1,
                             livenps_event_key(&generated->event), value, NULL, 0, generated->send_ms,
                             (void *)(uintptr_t)number, 100, &refused))
      break;
    if (refused.code != LIVENPS_E_LOST)
      return livenps_fail(error, refused.code, "%s", refused.text);
    if (livenps_stop || simulation->failed)
      return 1;
  }
  simulation->sent++;
  simulation->bytes += (int64_t)value.length;
  return 0;
}

static int print_event(simulated_run *simulation, const livenps_generated *generated, livenps_error *error) {
  livenps_buffer_add(&simulation->line, "\n", 1);
  if (fwrite(simulation->line.at, simulation->line.length, 1, stdout) != 1) {
    /* A reader that has seen enough (head) is no failure. */
    if (errno == EPIPE)
      return 1;
    return livenps_fail(error, LIVENPS_E_STARTUP, "simulate: stdout: %s", strerror(errno));
  }
  if (simulation->truth)
    livenps_truth_acknowledge(simulation->truth, livenps_truth_add(simulation->truth, generated));
  simulation->sent++;
  simulation->acknowledged++;
  return 0;
}

static int send_all(simulated_run *simulation, livenps_error *error) {
  const livenps_simulate_options *options = simulation->options;
  double due_ms = (double)livenps_monotonic_ms();
  int64_t progress_ms = 0;
  while (!livenps_stop && !simulation->failed && (!options->count || simulation->sent < options->count)) {
    livenps_generated generated;
    livenps_generator_next(simulation->generator, livenps_wall_ms(), &generated);
    if (generated.send_ms > simulation->until_ms)
      break;
    if (simulation->truth && simulation->sent >= LIVENPS_TRUTH_MAX) {
      livenps_log(LIVENPS_WARN, "simulate", "stopping: --truth keeps at most %d events", LIVENPS_TRUTH_MAX);
      break;
    }
    simulation->line.length = 0;
    if (options->cloudevents)
      livenps_encode_cloudevent(&generated.event, &simulation->line);
    else
      livenps_encode(&generated.event, &simulation->line);
    const int result = simulation->sender ? send_event(simulation, &generated, error)
                                          : print_event(simulation, &generated, error);
    if (result)
      return result < 0 ? -1 : 0;
    pace_sent(&due_ms, simulation, simulation->line.length);
    /* Deliveries are served now and then also when there is nothing to wait for. */
    if (simulation->sender && simulation->sent % 256 == 0)
      livenps_sender_poll(simulation->sender, 0);
    pace_wait(due_ms, simulation);
    progress(simulation, &progress_ms, false);
  }
  return 0;
}

/* The last send time of the history that these options make: known only by making it. */
static int64_t history_end(const livenps_generator_options *options, int64_t count) {
  livenps_generator *generator = NULL;
  livenps_generated generated = {.send_ms = options->start_ms};
  if (livenps_generator_open(&generator, options, NULL))
    return options->start_ms;
  for (int64_t i = 0; i < count && !livenps_stop; i++)
    livenps_generator_next(generator, 0, &generated);
  livenps_generator_close(generator);
  return generated.send_ms;
}

static int connect_to(simulated_run *simulation, const livenps_settings *settings,
                      const livenps_generator_options *generator_options, livenps_error *error) {
  const livenps_simulate_options *options = simulation->options;
  if (livenps_sender_open(&simulation->sender, settings, 0, on_delivered, simulation, error))
    return -1;
  livenps_producer_measure(simulation->sender, simulation->metrics);
  rd_kafka_t *rk = livenps_sender_handle(simulation->sender);
  if (livenps_kafka_reach(rk, settings, (int)settings->startup_timeout_ms, error))
    return -1;
  const int partitions =
      livenps_kafka_partitions(rk, options->topic, (int)settings->startup_timeout_ms, error);
  if (partitions < 0)
    return -1;
  if (!partitions)
    return livenps_fail(error, LIVENPS_E_STARTUP, "topic %s does not exist at %s: create it first",
                        options->topic, livenps_kafka_servers(settings));
  if (livenps_embedded_cluster(rk, ANSWER_MS))
    simulation->bytes_per_s = (int64_t)partitions * EMBEDDED_BYTES_PER_S;
  if (options->has_start) {
    livenps_history history;
    const int64_t now_ms = livenps_wall_ms();
    if (livenps_history_read(&history, rk, options->topic, ANSWER_MS, error))
      return -1;
    const int64_t end_ms = options->count ? history_end(generator_options, options->count) : now_ms;
    if (end_ms < options->start_ms)
      return livenps_fail(error, LIVENPS_E_USAGE,
                          "simulate: --start lies in the future: without --count history ends now");
    if (livenps_history_judge(&history, options->topic, options->start_ms, end_ms, now_ms, error))
      return -1;
    if (!options->count)
      simulation->until_ms = now_ms;
  }
  return 0;
}

static void summary(const simulated_run *simulation, int64_t elapsed_ms) {
  const int64_t missing = simulation->sent - simulation->acknowledged;
  printf("simulate: %" PRId64 " events sent, %" PRId64 " acknowledged, %" PRId64
         " not, in %.1f s (%.0f/s, %.1f MB)%s%s\n",
         simulation->sent, simulation->acknowledged, missing, (double)elapsed_ms / 1000,
         elapsed_ms ? (double)simulation->acknowledged * 1000 / (double)elapsed_ms : 0.0,
         (double)simulation->bytes / 1e6, simulation->truth ? ", truth in " : "",
         simulation->truth ? simulation->options->truth : "");
}

int livenps_simulate(const livenps_settings *settings, const livenps_simulate_options *options) {
  livenps_error error = {0};
  simulated_run simulation = {.options = options, .until_ms = INT64_MAX};
  const int64_t begin_ms = livenps_monotonic_ms();
  livenps_generator_options generator_options = {.seed = options->seed,
                                                 .touchpoints = options->touchpoints,
                                                 .has_start = options->has_start,
                                                 .start_ms = options->has_start ? options->start_ms
                                                                                : livenps_wall_ms(),
                                                 .incident_at = LIVENPS_NO_INCIDENT};
  if (options->incident)
    generator_options.incident_at =
        options->count && options->count / 4 < INCIDENT_EVENT ? options->count / 4 : INCIDENT_EVENT;
  if (livenps_generator_open(&simulation.generator, &generator_options, &error))
    goto out;
  if (options->truth && livenps_truth_open(&simulation.truth, options->truth, simulation.generator, &error))
    goto out;
  if (!options->dry_run) {
    livenps_producer_metrics(&simulation.metrics);
    const livenps_exported exported = {.metrics = simulation.metrics};
    if (livenps_exporter_open(&simulation.exporter, settings, &exported, &error))
      goto out;
    if (connect_to(&simulation, settings, &generator_options, &error))
      goto out;
    if (simulation.bytes_per_s)
      livenps_log(LIVENPS_INFO, "simulate",
                  "embedded cluster: paced to %.1f MB/s, because it keeps only 5 MB per partition",
                  (double)simulation.bytes_per_s / 1e6);
    if (options->incident)
      livenps_log(LIVENPS_INFO, "simulate", "incident: %s gets worse from event %" PRId64 " on",
                  livenps_generator_incident(simulation.generator), generator_options.incident_at + 1);
  }
  send_all(&simulation, &error);
  if (simulation.sender)
    livenps_drain(simulation.sender);
  if (simulation.truth)
    livenps_truth_write(simulation.truth, &error);
  if (options->dry_run) {
    if (fflush(stdout) && errno != EPIPE)
      livenps_fail(&error, LIVENPS_E_STARTUP, "simulate: stdout: %s", strerror(errno));
  } else {
    int64_t never_ms = 0;
    progress(&simulation, &never_ms, true);
    summary(&simulation, livenps_monotonic_ms() - begin_ms);
    if (simulation.failed)
      livenps_fail(&error, LIVENPS_E_REFUSED, "topic %s: %" PRId64 " events refused: %s", options->topic,
                   simulation.failed, simulation.reason);
    else if (simulation.sent > simulation.acknowledged)
      livenps_fail(&error, LIVENPS_E_LOST, "topic %s: %" PRId64 " events were not acknowledged",
                   options->topic, simulation.sent - simulation.acknowledged);
  }

out:
  if (error.code)
    livenps_log(LIVENPS_ERROR, "simulate", "%s", error.text);
  /* The sender first: closing reports what is still pending, and the truth takes note. */
  livenps_sender_close(simulation.sender);
  livenps_exporter_close(simulation.exporter);
  livenps_metrics_close(simulation.metrics);
  livenps_truth_close(simulation.truth);
  livenps_generator_close(simulation.generator);
  livenps_buffer_free(&simulation.line);
  return (int)error.code;
}
