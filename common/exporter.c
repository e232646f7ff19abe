#include "exporter.h"

#include "log.h"
#include "pulse.h"
#include "secret.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
  TURN_MS = 200, /* how soon it notices that it is to stop */
  STILL_MS =
      60000, /* a thread that does not beat for so long hangs: whoever waits for a peer does so in shorter turns */
};

struct livenps_exporter {
  livenps_exported exported;
  livenps_http *http;
  char *token;
  atomic_bool stop;
  pthread_t thread;
};

bool livenps_exporter_is_private(const char *path) {
  return strcmp(path, "/healthz") != 0 && strcmp(path, "/readyz") != 0;
}

static bool healthy(livenps_buffer *why) {
  int64_t still_ms;
  const char *part = livenps_pulse_slowest(&still_ms);
  if (!part || still_ms <= STILL_MS) {
    return true;
  }
  livenps_buffer_print(why, "the thread %s has not moved for %" PRId64 " s\n", part, still_ms / 1000);
  return false;
}

static void answer_state(bool well, const char *word, livenps_buffer *why, livenps_http_answer *answer) {
  answer->status = well ? 200 : 503;
  if (well) {
    livenps_buffer_free(why);
    answer->constant = livenps_text_of(word);
  } else {
    answer->body = *why;
  }
}

bool livenps_exporter_answer(const livenps_exported *exported, const char *path,
                             livenps_http_answer *answer) {
  livenps_buffer body = {0};
  if (strcmp(path, "/metrics") == 0) {
    livenps_metrics_print(exported->metrics, &body);
    *answer = (livenps_http_answer){
        .status = 200, .type = "text/plain; version=0.0.4; charset=utf-8", .body = body};
    return true;
  }
  if (strcmp(path, "/healthz") == 0) {
    answer_state(healthy(&body), "ok\n", &body, answer);
    return true;
  }
  if (strcmp(path, "/readyz") == 0) {
    answer_state(!exported->ready || exported->ready(exported->opaque, &body), "ready\n", &body, answer);
    return true;
  }
  return false;
}

static void answer_request(void *opaque, livenps_http_request *request, livenps_http_answer *answer) {
  const livenps_exporter *exporter = opaque;
  livenps_exporter_answer(&exporter->exported, livenps_http_path(request), answer);
}

static bool is_private(void *opaque, const char *path) {
  (void)opaque;
  return livenps_exporter_is_private(path);
}

static void *serve(void *opaque) {
  livenps_exporter *exporter = opaque;
  while (!exporter->stop) {
    livenps_http_turn(exporter->http, -1, TURN_MS);
  }
  return NULL;
}

int livenps_exporter_open(livenps_exporter **out, const livenps_settings *settings,
                          const livenps_exported *exported, livenps_error *error) {
  *out = NULL;
  if (!settings->metrics_listen[0]) {
    return 0;
  }
  livenps_exporter *exporter = livenps_alloc(sizeof *exporter);
  exporter->exported = *exported;
  if (livenps_http_token("metrics", settings->metrics_token_file, &exporter->token, error) != 0) {
    goto failed;
  }
  const livenps_http_config config = {.name = "metrics",
                                      .listen = settings->metrics_listen,
                                      .token = exporter->token,
                                      .hosts = (const char *const *)settings->metrics_hosts.at,
                                      .host_count = settings->metrics_hosts.count,
                                      .opaque = exporter,
                                      .is_private = is_private,
                                      .answer = answer_request};
  if (livenps_http_open(&exporter->http, &config, error) != 0) {
    goto failed;
  }
  if (pthread_create(&exporter->thread, NULL, serve, exporter) != 0) {
    livenps_fail(error, LIVENPS_E_STARTUP, "metrics.listen: no thread can be started");
    goto failed;
  }
  livenps_log(LIVENPS_INFO, "metrics", "%smetrics", livenps_http_url(exporter->http));
  *out = exporter;
  return 0;
failed:
  livenps_http_close(exporter->http);
  livenps_secret_wipe(exporter->token);
  free(exporter);
  return -1;
}

void livenps_exporter_close(livenps_exporter *exporter) {
  if (!exporter) {
    return;
  }
  exporter->stop = true;
  pthread_join(exporter->thread, NULL);
  livenps_http_close(exporter->http);
  livenps_secret_wipe(exporter->token);
  free(exporter);
}
