#include "commands.h"

#include "contract.h"
#include "drain.h"
#include "encode.h"
#include "intake.h"
#include "producer_metrics.h"
#include "split.h"
#include "webhook.h"

#include "common/clock.h"
#include "common/http.h"
#include "common/log.h"
#include "common/mapping.h"
#include "common/secret.h"
#include "common/service.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <time.h>

enum {
  ASK_MS = 10 * 1000,    /* for one question to the broker at the start */
  REACH_MS = 2000,       /* a broker that does not answer within that time is away */
  REACH_EVERY_MS = 1000, /* how often it is asked */
  TURN_MS = 100,         /* the loop looks around at least that often */
  ANSWERS_MS = 5000,     /* at the end, for answers to be taken */
  MAX_EVENTS = 10000,    /* of one request */
  MAX_TOLD = 100,        /* events of a request whose objections are told; the rest are counted */
  RETRY_AWAY_S = 5,      /* when the broker is away, or this ends */
  RETRY_FULL_S = 1,
};

/* A topic that events are taken for. */
typedef struct {
  const char *name;
  livenps_contract contract;
  const livenps_signature *signature; /* NULL: no webhooks */
  char *secret;
} source;

typedef struct serve serve;

/* A request whose events are on their way. */
typedef struct waiting {
  serve *on;
  struct waiting *next, **back;
  livenps_http_request *request; /* NULL: it has its answer */
  livenps_parcel *parcel;
  size_t accepted, corrections, ignored;
  int64_t deadline_ms;
  bool good; /* the answer is 200 */
} waiting;

struct serve {
  const livenps_settings *settings;
  source *sources;
  size_t source_count;
  livenps_intake *intake;
  livenps_http *http;
  livenps_metrics *metrics;
  livenps_exported exported;
  livenps_exporter *exporter; /* of metrics.listen, beside /metrics here */
  waiting *waiting;
  atomic_bool ending; /* the exporter's thread looks too */
  /* The other thread asks whether a broker answers. */
  pthread_t asking;
  bool asked;
  atomic_bool enough, away;
};

static const char type_json[] = "application/json";

/* ---- is the broker there? ---- */

static void *ask(void *opaque) {
  serve *on = opaque;
  rd_kafka_t *rk = livenps_sender_handle(livenps_intake_sender(on->intake));
  const struct timespec pause = {.tv_nsec = 100 * 1000000};
  while (!on->enough) {
    livenps_error error = {0};
    const bool away = livenps_kafka_reach(rk, on->settings, REACH_MS, &error) != 0;
    /* A signal ends the wait, which says nothing about the broker. */
    if (away != on->away && !livenps_stop) {
      on->away = away;
      if (away)
        livenps_log(LIVENPS_WARN, "serve", "%s: requests are answered 503 until it is back", error.text);
      else
        livenps_log(LIVENPS_INFO, "serve", "the broker is back");
    }
    for (int slept_ms = 0; slept_ms < REACH_EVERY_MS && !on->enough; slept_ms += 100)
      nanosleep(&pause, NULL);
  }
  return NULL;
}

/* ---- answers ---- */

/* {"error":NAME,"message":TEXT} */
static void answer_error(livenps_http_answer *answer, int status, const char *name, const char *message) {
  *answer = (livenps_http_answer){.status = status, .type = type_json, .allow = "POST"};
  livenps_buffer_print(&answer->body, "{\"error\":\"%s\",\"message\":", name);
  livenps_json_text(&answer->body, livenps_text_of(message));
  livenps_buffer_print(&answer->body, "}\n");
}

static void answer_again(livenps_http_answer *answer, int status, const char *name, const char *message,
                         int after_s) {
  answer_error(answer, status, name, message);
  answer->retry_after_s = after_s;
}

static void answer_taken(livenps_http_answer *answer, const waiting *done) {
  *answer = (livenps_http_answer){.status = 200, .type = type_json};
  livenps_buffer_print(&answer->body, "{\"accepted\":%zu", done->accepted);
  if (done->corrections)
    livenps_buffer_print(&answer->body, ",\"corrections\":%zu", done->corrections);
  if (done->ignored)
    livenps_buffer_print(&answer->body, ",\"ignored\":%zu", done->ignored);
  livenps_buffer_print(&answer->body, "}\n");
}

/* ---- what a request holds ---- */

/* Is the media type of the header this one? Parameters (charset) do not matter. */
static bool is_type(const char *header, const char *type) {
  const size_t length = strlen(type);
  return !strncasecmp(header, type, length) && (!header[length] || strchr("; \t", header[length]));
}

/* Browsers cannot send these types to another site without asking it first, and it never agrees: so no page of somebody else's can post
 * here through its reader's browser. */
static bool find_form(const livenps_http_request *request, livenps_body_form *form) {
  static const char *const json[] = {"application/json", "application/cloudevents+json",
                                     "application/cloudevents-batch+json"},
                           *const lines[] = {"application/x-ndjson", "application/ndjson",
                                             "application/jsonl", "application/x-jsonlines"};
  const char *type = livenps_http_header(request, "Content-Type");
  for (size_t i = 0; type && i < sizeof json / sizeof *json; i++)
    if (is_type(type, json[i])) {
      *form = LIVENPS_BODY_JSON;
      return true;
    }
  for (size_t i = 0; type && i < sizeof lines / sizeof *lines; i++)
    if (is_type(type, lines[i])) {
      *form = LIVENPS_BODY_LINES;
      return true;
    }
  return false;
}

/* What the events of a request come to, before one of them is handed over: all or none. */
typedef struct {
  size_t events, bytes; /* those that are to be handed over, keys not counted: a key is a part of its value */
  size_t corrections, ignored, rejected;
  bool broken;
  size_t broken_at;
  livenps_buffer told; /* what is objected to, as JSON */
} judgement;

/* What to do with one event. A webhook cannot do without an answer 2xx: its vendor would send the same payload for hours and then no more at all.
 * So what a mapping's rules take for no new answer is no error there: an update goes to the topic, and from there to quarantine, where
 * it waits; what is no event is left out. */
typedef enum { HAND_OVER, HAND_OVER_CORRECTION, LEAVE_OUT, REJECT } verdict;

static verdict judge_event(source *from, bool webhook, livenps_text value, int64_t now_ms,
                           livenps_event *event, livenps_objection *objection) {
  if (livenps_contract_examine(&from->contract, value, now_ms, event, objection) == LIVENPS_ACCEPTED)
    return HAND_OVER;
  if (webhook && objection->reason == LIVENPS_REASON_CORRECTION)
    return HAND_OVER_CORRECTION;
  return webhook && objection->reason == LIVENPS_REASON_NO_EVENT ? LEAVE_OUT : REJECT;
}

static void tell_objection(judgement *found, size_t index, const livenps_objection *objection) {
  if (found->rejected++ >= MAX_TOLD)
    return;
  livenps_buffer_print(&found->told, "%s{\"index\":%zu,\"reason\":\"%s\",\"at\":%zu,\"message\":",
                       found->rejected > 1 ? "," : "", index, objection->name, objection->at);
  livenps_json_text(&found->told, livenps_text_of(objection->text));
  livenps_buffer_print(&found->told, "}");
}

static void judge_all(source *from, bool webhook, livenps_text body, livenps_body_form form, int64_t now_ms,
                      judgement *found) {
  livenps_split split;
  livenps_text value;
  int more;
  livenps_split_begin(&split, body, form);
  for (size_t index = 0; (more = livenps_split_next(&split, &value)) == 1; index++) {
    livenps_event event;
    livenps_objection objection;
    switch (judge_event(from, webhook, value, now_ms, &event, &objection)) {
    case HAND_OVER_CORRECTION: found->corrections++; __attribute__((fallthrough));
    case HAND_OVER:
      found->events++;
      found->bytes += 2 * value.length; /* with the key, which is no longer */
      break;
    case LEAVE_OUT: found->ignored++; break;
    default: tell_objection(found, index, &objection); break;
    }
  }
  found->broken = more < 0;
  found->broken_at = (size_t)(split.at - body.at) + 1;
}

/* Hands over what judge_all found good, at the same moment: so it finds the same. */
static int hand_over_all(serve *on, source *from, bool webhook, livenps_text body, livenps_body_form form,
                         int64_t now_ms, livenps_parcel *parcel, livenps_error *error) {
  livenps_split split;
  livenps_text value;
  livenps_split_begin(&split, body, form);
  while (livenps_split_next(&split, &value) == 1) {
    livenps_event event;
    livenps_objection objection;
    const verdict what = judge_event(from, webhook, value, now_ms, &event, &objection);
    if (what == LEAVE_OUT)
      continue;
    /* Of an update nobody knows the fields: it was refused before they were read. */
    const livenps_text key = what == HAND_OVER ? livenps_event_key(&event) : (livenps_text){0};
    if (livenps_parcel_add(on->intake, parcel, from->name, key, value, now_ms, error))
      return -1;
  }
  return 0;
}

/* ---- requests with events ---- */

static void answer_rejected(livenps_http_answer *answer, judgement *found) {
  *answer = (livenps_http_answer){.status = 422, .type = type_json};
  livenps_buffer_print(&answer->body,
                       "{\"error\":\"rejected\",\"message\":\"none was taken: %zu would be rejected\","
                       "\"rejected\":%zu,\"events\":[",
                       found->rejected, found->rejected);
  livenps_buffer_add(&answer->body, found->told.at, found->told.length);
  livenps_buffer_print(&answer->body, "]}\n");
}

/* What is wrong with the whole; true when answered. */
static bool refuse_whole(serve *on, judgement *found, livenps_http_answer *answer) {
  char message[160];
  if (found->rejected) {
    answer_rejected(answer, found);
  } else if (found->broken) {
    snprintf(message, sizeof message,
             "the array is broken off, or something follows it, at byte %zu: none was taken",
             found->broken_at);
    answer_error(answer, 400, "malformed", message);
  } else if (!found->events && !found->ignored) {
    answer_error(answer, 400, "empty", "there is no event in the body");
  } else if (found->events > MAX_EVENTS || !livenps_intake_fits(on->intake, found->events, found->bytes)) {
    snprintf(message, sizeof message,
             "these are %zu events: at most %d, and less than serve.max_waiting, in one request",
             found->events, MAX_EVENTS);
    answer_error(answer, 413, "too_many", message);
  } else if (on->away && found->events) {
    answer_again(answer, 503, "broker_away",
                 "the broker is away: send it again, the same bytes, a little later", RETRY_AWAY_S);
  } else if (!livenps_intake_room(on->intake, found->events, found->bytes)) {
    answer_again(
        answer, 429, "full",
        "more than serve.max_waiting is on its way to the broker: send it again, the same bytes, in a second",
        RETRY_FULL_S);
  } else {
    return false;
  }
  return true;
}

static void begin_waiting(serve *on, livenps_http_request *request, livenps_parcel *parcel,
                          const judgement *found, livenps_http_answer *answer) {
  waiting *to = livenps_alloc(sizeof *to);
  *to = (waiting){.on = on,
                  .next = on->waiting,
                  .back = &on->waiting,
                  .request = request,
                  .parcel = parcel,
                  .accepted = found->events - found->corrections,
                  .corrections = found->corrections,
                  .ignored = found->ignored,
                  .deadline_ms = livenps_monotonic_ms() + on->settings->serve_ack_timeout_ms};
  if (on->waiting)
    on->waiting->back = &to->next;
  on->waiting = to;
  *answer = (livenps_http_answer){.later = true, .opaque = to};
}

static void take_events(serve *on, livenps_http_request *request, source *from, bool webhook,
                        livenps_http_answer *answer) {
  const livenps_text body = livenps_http_body(request);
  const int64_t now_ms = livenps_wall_ms();
  livenps_body_form form;
  judgement found = {0};
  livenps_error error = {0};
  const char *encoding = livenps_http_header(request, "Content-Encoding");
  if (on->ending) {
    answer_again(answer, 503, "ending", "this instance ends: send it again, the same bytes, a little later",
                 RETRY_AWAY_S);
    return;
  }
  if (webhook && !livenps_webhook_signed(from->signature, from->secret, body,
                                         livenps_http_header(request, from->signature->header))) {
    static livenps_limit limit = {.interval_ms = 5000};
    livenps_log_limited(
        &limit, LIVENPS_WARN, "serve",
        "a webhook for %s without a right signature in %s was refused; if the vendor sent it: is "
        "webhooks.%s its secret?",
        from->name, from->signature->header, from->name);
    answer_error(answer, 403, "signature", "the signature is absent or wrong");
    return;
  }
  if (!find_form(request, &form) || (encoding && strcasecmp(encoding, "identity") != 0)) {
    answer_error(
        answer, 415, "media_type",
        "Content-Type must be application/json (one event, or an array) or application/x-ndjson (one a line), "
        "in UTF-8 and without a Content-Encoding");
    return;
  }
  if (livenps_http_header(request, "ce-specversion") || livenps_http_header(request, "ce-id")) {
    answer_error(answer, 415, "media_type",
                 "CloudEvents are taken in structured mode: application/cloudevents+json, or "
                 "application/cloudevents-batch+json");
    return;
  }
  judge_all(from, webhook, body, form, now_ms, &found);
  if (!refuse_whole(on, &found, answer)) {
    livenps_parcel *parcel = livenps_parcel_begin(on->intake);
    if (!hand_over_all(on, from, webhook, body, form, now_ms, parcel, &error)) {
      begin_waiting(on, request, parcel, &found, answer);
    } else {
      livenps_parcel_end(on->intake, parcel, false);
      if (error.code == LIVENPS_E_LOST)
        answer_again(answer, 429, "full", error.text, RETRY_FULL_S);
      else
        answer_again(answer, error.code == LIVENPS_E_DATA ? 413 : 502, "refused", error.text, 0);
    }
  }
  livenps_buffer_free(&found.told);
}

static bool is_ready(void *opaque, livenps_buffer *why) {
  serve *on = opaque;
  if (on->ending)
    livenps_buffer_print(why, "this instance ends\n");
  if (on->away)
    livenps_buffer_print(why, "no broker answers at %s\n", livenps_kafka_servers(on->settings));
  return !on->ending && !on->away;
}

static bool is_private(void *opaque, const char *path) {
  (void)opaque;
  return strncmp(path, "/webhooks/", 10) != 0 && strcmp(path, "/healthz") != 0 &&
         strcmp(path, "/readyz") != 0;
}

static source *find_source(serve *on, const char *name) {
  for (size_t i = 0; i < on->source_count; i++)
    if (!strcmp(on->sources[i].name, name))
      return &on->sources[i];
  return NULL;
}

static void answer_request(void *opaque, livenps_http_request *request, livenps_http_answer *answer) {
  serve *on = opaque;
  const char *path = livenps_http_path(request);
  if (!livenps_http_is_post(request) && livenps_exporter_answer(&on->exported, path, answer))
    return;
  const bool webhook = !strncmp(path, "/webhooks/", 10);
  source *from = webhook                         ? find_source(on, path + 10)
                 : !strcmp(path, "/events")      ? &on->sources[0]
                 : !strncmp(path, "/events/", 8) ? find_source(on, path + 8)
                                                 : NULL;
  if (!from || (webhook && !from->secret)) {
    answer_error(
        answer, 404, "not_found",
        "there are /events, /events/TOPIC for each of the setting topics, /webhooks/TOPIC for each of "
        "the setting webhooks, /healthz and /readyz");
  } else if (!livenps_http_is_post(request)) {
    answer_error(answer, 405, "method", "POST only");
  } else {
    take_events(on, request, from, webhook, answer);
  }
}

/* ---- answers that had to wait ---- */

static void finish(waiting *done, const livenps_http_answer *answer) {
  livenps_http_request *request = done->request;
  done->request = NULL;
  done->good = answer->status == 200;
  livenps_http_finish(request, answer);
}

static void look_around(serve *on, int64_t now_ms) {
  for (waiting *at = on->waiting; at; at = at->next) {
    const char *why;
    livenps_http_answer answer;
    if (!at->request)
      continue;
    switch (livenps_parcel_look(at->parcel, &why)) {
    case LIVENPS_PARCEL_ACKNOWLEDGED: answer_taken(&answer, at); break;
    case LIVENPS_PARCEL_REFUSED: {
      static livenps_limit limit = {.interval_ms = 5000};
      livenps_log_limited(&limit, LIVENPS_ERROR, "serve", "the broker refused an event: %s", why);
      answer_error(&answer, 502, "refused", why);
      break;
    }
    default:
      if (now_ms < at->deadline_ms)
        continue;
      answer_again(
          &answer, 503, "not_acknowledged",
          "the broker has not acknowledged all of it in time: send it again, the same bytes, a little later",
          RETRY_AWAY_S);
      break;
    }
    finish(at, &answer);
  }
}

static void on_ended(void *opaque, void *of_request, bool told) {
  (void)opaque;
  waiting *over = of_request;
  livenps_parcel_end(over->on->intake, over->parcel, told && over->good);
  *over->back = over->next;
  if (over->next)
    over->next->back = over->back;
  free(over);
}

/* ---- the command ---- */

static const char *pair_value(const livenps_pairs *pairs, const char *name) {
  for (size_t i = 0; i < pairs->count; i++)
    if (!strcmp(pairs->at[i].name, name))
      return pairs->at[i].value;
  return NULL;
}

static int open_source(source *from, const livenps_settings *settings, const char *topic,
                       livenps_error *error) {
  const char *path = pair_value(&settings->webhooks, topic);
  char setting[300];
  from->name = topic;
  if (livenps_contract_open(&from->contract, settings, topic, error))
    return -1;
  if (!path)
    return 0;
  from->signature = livenps_mapping_signature(from->contract.mapping);
  if (!from->signature)
    return livenps_fail(
        error, LIVENPS_E_USAGE,
        "webhooks.%s: mappings.%s must name a mapping file that has a signature: how its vendor "
        "signs (docs/events.md, Mapping files)",
        topic, topic);
  snprintf(setting, sizeof setting, "webhooks.%s", topic);
  return livenps_secret_read(setting, path, &from->secret, error);
}

static int prepare(serve *on, const livenps_serve_options *options, char **token, livenps_error *error) {
  const livenps_settings *settings = on->settings;
  on->sources = livenps_alloc(options->topic_count * sizeof *on->sources);
  for (; on->source_count < options->topic_count; on->source_count++)
    if (open_source(&on->sources[on->source_count], settings, options->topics[on->source_count], error)) {
      on->source_count++;
      return -1;
    }
  for (size_t i = 0; i < settings->webhooks.count; i++)
    if (!find_source(on, settings->webhooks.at[i].name))
      return livenps_fail(error, LIVENPS_E_USAGE, "webhooks.%s: no events are taken for that topic",
                          settings->webhooks.at[i].name);
  if (livenps_http_token("serve", settings->serve_token_file, token, error) ||
      livenps_intake_open(&on->intake, settings, (size_t)settings->serve_max_waiting, error))
    return -1;
  livenps_producer_metrics(&on->metrics);
  livenps_producer_measure(livenps_intake_sender(on->intake), on->metrics);
  on->exported = (livenps_exported){.metrics = on->metrics, .ready = is_ready, .opaque = on};
  rd_kafka_t *rk = livenps_sender_handle(livenps_intake_sender(on->intake));
  if (livenps_kafka_reach(rk, settings, (int)settings->startup_timeout_ms, error))
    return -1;
  for (size_t i = 0; i < on->source_count; i++) {
    const int partitions = livenps_kafka_partitions(rk, on->sources[i].name, ASK_MS, error);
    if (partitions < 0)
      return -1;
    if (!partitions)
      return livenps_fail(error, LIVENPS_E_STARTUP, "topic %s does not exist at %s: create it first",
                          on->sources[i].name, livenps_kafka_servers(settings));
  }
  const livenps_http_config config = {.name = "serve",
                                      .listen = settings->serve_listen,
                                      .token = *token,
                                      .hosts = (const char *const *)settings->serve_hosts.at,
                                      .host_count = settings->serve_hosts.count,
                                      .opaque = on,
                                      .is_private = is_private,
                                      .answer = answer_request,
                                      .max_body = (size_t)settings->serve_max_body,
                                      .max_bodies = (size_t)settings->serve_max_waiting,
                                      .ended = on_ended};
  if (livenps_http_open(&on->http, &config, error) ||
      livenps_exporter_open(&on->exporter, settings, &on->exported, error))
    return -1;
  if (pthread_create(&on->asking, NULL, ask, on))
    return livenps_fail(error, LIVENPS_E_STARTUP, "serve: no thread could be started");
  on->asked = true;
  return 0;
}

static void turn(serve *on) {
  livenps_http_turn(on->http, livenps_intake_socket(on->intake), TURN_MS);
  const int64_t now_ms = livenps_monotonic_ms();
  livenps_intake_poll(on->intake, now_ms);
  look_around(on, now_ms);
}

/* An error that ends every idempotent producer: nothing can be sent any more, a new process can. */
static int check_fatal(serve *on, livenps_error *error) {
  char text[300];
  rd_kafka_t *rk = livenps_sender_handle(livenps_intake_sender(on->intake));
  if (!rd_kafka_fatal_error(rk, text, sizeof text))
    return 0;
  return livenps_fail(error, LIVENPS_E_REFUSED, "kafka: %s: this producer cannot go on; start it again",
                      text);
}

/* Nobody new is heard; who waits gets the answer that comes, and all that was handed over is waited for. */
static void conclude(serve *on, livenps_error *error) {
  on->ending = true;
  livenps_http_stop_listening(on->http);
  const int64_t until_ms = livenps_monotonic_ms() + on->settings->serve_ack_timeout_ms + ANSWERS_MS;
  while (on->waiting && livenps_monotonic_ms() < until_ms)
    turn(on);
  livenps_drain(livenps_intake_sender(on->intake));
  const size_t missing = livenps_sender_pending(livenps_intake_sender(on->intake));
  if (missing)
    livenps_fail(error, LIVENPS_E_LOST,
                 "%zu events were not acknowledged: none of their senders was told that they are taken",
                 missing);
}

int livenps_serve(const livenps_settings *settings, const livenps_serve_options *options) {
  livenps_error error = {0};
  serve on = {.settings = settings};
  char *token = NULL;
  if (!prepare(&on, options, &token, &error)) {
    printf("livenps-producer takes events at %sevents\n", livenps_http_url(on.http));
    fflush(stdout);
    livenps_service_ready("takes events at %sevents", livenps_http_url(on.http));
    while (!livenps_stop && !check_fatal(&on, &error)) {
      livenps_service_turn();
      turn(&on);
    }
    livenps_service_stopping();
    conclude(&on, &error);
  }
  if (error.code)
    livenps_log(LIVENPS_ERROR, "serve", "%s", error.text);
  on.enough = true;
  if (on.asked)
    pthread_join(on.asking, NULL);
  livenps_exporter_close(on.exporter);
  livenps_http_close(on.http);
  livenps_intake_close(on.intake);
  livenps_metrics_close(on.metrics);
  for (size_t i = 0; i < on.source_count; i++) {
    livenps_contract_close(&on.sources[i].contract);
    livenps_secret_wipe(on.sources[i].secret);
  }
  free(on.sources);
  livenps_secret_wipe(token);
  return (int)error.code;
}
