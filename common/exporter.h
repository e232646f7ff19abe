#ifndef LIVENPS_EXPORTER_H
#define LIVENPS_EXPORTER_H

#include "http.h"
#include "metrics.h"
#include "settings.h"

/* Serves what a process says of itself, on a thread of its own:
 *
 *   GET /metrics   for Prometheus; with a token, where one is set
 *   GET /healthz   200 "ok", or 503 and which thread stands still (pulse.h): for whoever restarts processes
 *   GET /readyz    200 "ready", or 503 and what is missing: for whoever waits before the next step  */
typedef struct livenps_exporter livenps_exporter;

/* What is asked, from the exporter's thread. ready returns true, or false and has appended lines to why; NULL: always. */
typedef struct {
  livenps_metrics *metrics;
  bool (*ready)(void *opaque, livenps_buffer *why);
  void *opaque;
} livenps_exported;

/* *out is NULL where metrics.listen is empty. Everything in exported is borrowed. Errors as livenps_http_open and livenps_http_token,
 * which name metrics.listen. */
int livenps_exporter_open(livenps_exporter **out, const livenps_settings *settings,
                          const livenps_exported *exported, livenps_error *error);
void livenps_exporter_close(livenps_exporter *exporter);

/* The answer to one of the three paths, for a server that has others too; false: it is none of them. */
bool livenps_exporter_answer(const livenps_exported *exported, const char *path, livenps_http_answer *answer);
/* Only /metrics is private. */
bool livenps_exporter_is_private(const char *path);

#endif
