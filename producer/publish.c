#include "commands.h"

#include "contract.h"
#include "drain.h"
#include "encode.h"
#include "history.h"
#include "input.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/sender.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
  ANSWER_MS = 10 * 1000, /* for one question to the broker */
  MAX_TOLD = 1000,       /* invalid lines that are printed; the rest are counted */
  EXIT_INVALID = 1,
  EXIT_INTERRUPTED = 130,
};

/* Where a record came from. */
typedef struct {
  size_t file, line;
  bool acknowledged;
} origin;

/* Records handed over, in order, from the oldest one that is not acknowledged. The numbers of records are their places:
 *
 *       first                       next
 *         v                           v
 *    ... [not yet] [acknowledged] ...      at origins[number & (capacity - 1)]
 *
 * All before first are acknowledged: that is where one can resume. */
typedef struct {
  origin *origins;
  size_t first, next, capacity;
  origin last; /* the one before first; line 0: none yet */
} handed_over;

typedef struct {
  const livenps_publish_options *options;
  const char *topic;
  livenps_contract contract;
  livenps_input *input;
  livenps_sender *sender;
  livenps_history history;
  handed_over handed;
  livenps_buffer told;
  int64_t read, invalid, sent, acknowledged, failed;
  char reason[160]; /* of the first failure */
} published;

/* ---- how far it got ---- */

static size_t hand_over(handed_over *handed, origin from) {
  if (handed->next - handed->first == handed->capacity) {
    const size_t capacity = handed->capacity ? handed->capacity * 2 : 1024;
    origin *origins = livenps_alloc(capacity * sizeof *origins);
    for (size_t n = handed->first; n != handed->next; n++)
      origins[n & (capacity - 1)] = handed->origins[n & (handed->capacity - 1)];
    free(handed->origins);
    handed->origins = origins;
    handed->capacity = capacity;
  }
  handed->origins[handed->next & (handed->capacity - 1)] = from;
  return handed->next++;
}

static void on_delivered(void *opaque, void *record, const char *error, int32_t partition, int64_t offset) {
  (void)partition;
  (void)offset;
  published *publication = opaque;
  handed_over *handed = &publication->handed;
  const size_t number = (size_t)(uintptr_t)record;
  if (error) {
    if (!publication->failed++)
      snprintf(publication->reason, sizeof publication->reason, "%s", error);
    return;
  }
  publication->acknowledged++;
  assert(number - handed->first < handed->next - handed->first);
  handed->origins[number & (handed->capacity - 1)].acknowledged = true;
  while (handed->first != handed->next) {
    const origin *oldest = &handed->origins[handed->first & (handed->capacity - 1)];
    if (!oldest->acknowledged)
      break;
    handed->last = *oldest;
    handed->first++;
  }
}

static void tell_how_far(const published *publication) {
  const handed_over *handed = &publication->handed;
  const char *name = livenps_input_name(publication->input, handed->last.file);
  if (!handed->last.line) {
    fprintf(stderr, "publish: no record was acknowledged: nothing to skip when you publish again\n");
    return;
  }
  fprintf(stderr, "publish: every record up to %s:%zu is acknowledged", name, handed->last.line);
  size_t beyond = 0;
  for (size_t n = handed->first; n != handed->next; n++)
    beyond += handed->origins[n & (handed->capacity - 1)].acknowledged;
  if (beyond)
    fprintf(stderr, ", and %zu after it", beyond);
  if (*name == '(')
    fprintf(stderr, "; resume with what follows line %zu of the input\n", handed->last.line);
  else
    fprintf(stderr, "; resume with: tail -n +%zu %s | livenps-producer publish ...%s\n",
            handed->last.line + 1, name,
            handed->last.file + 1 < publication->options->file_count ? " - and the files after it" : "");
}

/* ---- sending ---- */

static void tell_invalid(published *publication) {
  publication->invalid++;
  if (publication->invalid <= MAX_TOLD)
    fprintf(stderr, "%s:%zu:%.*s\n",
            livenps_input_name(publication->input, livenps_input_file(publication->input)),
            livenps_input_number(publication->input), (int)publication->told.length, publication->told.at);
  if (publication->invalid == MAX_TOLD)
    fprintf(stderr,
            "publish: %d invalid lines: further ones are only counted; livenps-producer check names all\n",
            MAX_TOLD);
}

/* librdkafka reads 0 as now. */
static int64_t history_timestamp(int64_t time_ms) {
  return time_ms ? time_ms : 1;
}

/* 0, 1 when the line is invalid (told), -1. *timestamp_ms is what the record will carry. */
static int judge_line(published *publication, livenps_text line, livenps_event *event, int64_t *timestamp_ms,
                      livenps_error *error) {
  *timestamp_ms = livenps_wall_ms();
  if (publication->options->history) {
    if (livenps_contract_decode(&publication->contract, line, event, &publication->told))
      return 1;
    *timestamp_ms = history_timestamp(event->time_ms);
  }
  if (livenps_contract_judge(&publication->contract, line, *timestamp_ms, event, &publication->told) !=
      LIVENPS_ACCEPTED)
    return 1;
  if (publication->options->history)
    return livenps_history_judge(&publication->history, publication->topic, *timestamp_ms, *timestamp_ms,
                                 livenps_wall_ms(), error);
  return 0;
}

/* Hands over one line; waits while the queue is full, for as long as nobody stops us. 0, 1 when stopped, -1. */
static int send_line(published *publication, livenps_text line, const livenps_event *event,
                     int64_t timestamp_ms, livenps_error *error) {
  const size_t number =
      hand_over(&publication->handed, (origin){.file = livenps_input_file(publication->input),
                                               .line = livenps_input_number(publication->input)});
  for (;;) {
    livenps_error refused = {0};
    if (!livenps_sender_send(publication->sender, publication->topic, -1, livenps_event_key(event), line,
                             NULL, 0, timestamp_ms, (void *)(uintptr_t)number, 100, &refused)) {
      publication->sent++;
      return 0;
    }
    const bool full = refused.code == LIVENPS_E_LOST;
    if (full && !livenps_stop && !publication->failed)
      continue;
    publication->handed.next--;
    if (full)
      return 1;
    livenps_fail(error, refused.code, "%s", refused.text);
    return livenps_fail_prefix(error, "%s:%zu",
                               livenps_input_name(publication->input, livenps_input_file(publication->input)),
                               livenps_input_number(publication->input));
  }
}

static void progress(const published *publication, int64_t *next_ms) {
  const int64_t now_ms = livenps_monotonic_ms();
  if (!isatty(STDERR_FILENO) || now_ms < *next_ms)
    return;
  *next_ms = now_ms + 500;
  fprintf(stderr, "\r%" PRId64 " sent, %" PRId64 " acknowledged, %" PRId64 " invalid", publication->sent,
          publication->acknowledged, publication->invalid);
}

/* *whole: the input was read to its end. */
static int publish_all(published *publication, bool *whole, livenps_error *error) {
  int64_t progress_ms = 0;
  *whole = false;
  while (!livenps_stop && !publication->failed) {
    livenps_input_result result;
    livenps_event event;
    int64_t timestamp_ms;
    if (livenps_input_next(publication->input, 100, &result, error))
      return -1;
    if (result == LIVENPS_INPUT_END) {
      *whole = true;
      return 0;
    }
    progress(publication, &progress_ms);
    if (result == LIVENPS_INPUT_NOTHING) {
      livenps_sender_poll(publication->sender, 0);
      continue;
    }
    publication->read++;
    const livenps_text line = livenps_input_line(publication->input);
    const int judged = judge_line(publication, line, &event, &timestamp_ms, error);
    if (judged < 0)
      return -1;
    if (judged > 0) {
      tell_invalid(publication);
      continue;
    }
    const int handed = send_line(publication, line, &event, timestamp_ms, error);
    if (handed)
      return handed < 0 ? -1 : 0;
    if (publication->sent % 256 == 0)
      livenps_sender_poll(publication->sender, 0);
  }
  return 0;
}

/* Files are looked through before the first record is sent, so that history which the topic would not keep is refused whole. */
static int judge_history(published *publication, livenps_error *error) {
  int64_t oldest_ms = INT64_MAX, newest_ms = INT64_MIN;
  if (livenps_history_read(&publication->history, livenps_sender_handle(publication->sender),
                           publication->topic, ANSWER_MS, error))
    return -1;
  if (!livenps_input_rereadable(publication->input))
    return 0;
  while (!livenps_stop) {
    livenps_input_result result;
    livenps_event event;
    if (livenps_input_next(publication->input, 100, &result, error))
      return -1;
    if (result == LIVENPS_INPUT_END)
      break;
    if (result == LIVENPS_INPUT_NOTHING ||
        livenps_contract_decode(&publication->contract, livenps_input_line(publication->input), &event, NULL))
      continue;
    if (event.time_ms < oldest_ms)
      oldest_ms = event.time_ms;
    if (event.time_ms > newest_ms)
      newest_ms = event.time_ms;
  }
  livenps_input_rewind(publication->input);
  if (oldest_ms > newest_ms)
    return 0;
  return livenps_history_judge(&publication->history, publication->topic, oldest_ms, newest_ms,
                               livenps_wall_ms(), error);
}

static int prepare(published *publication, const livenps_settings *settings, livenps_error *error) {
  const livenps_publish_options *options = publication->options;
  publication->topic = options->topic;
  if (livenps_contract_open(&publication->contract, settings, publication->topic, error) ||
      livenps_input_open(&publication->input, options->files, options->file_count,
                         publication->contract.admission.max_bytes, error) ||
      livenps_sender_open(&publication->sender, settings, 0, on_delivered, publication, error))
    return -1;
  rd_kafka_t *rk = livenps_sender_handle(publication->sender);
  if (livenps_kafka_reach(rk, settings, (int)settings->startup_timeout_ms, error))
    return -1;
  const int partitions =
      livenps_kafka_partitions(rk, publication->topic, (int)settings->startup_timeout_ms, error);
  if (partitions < 0)
    return -1;
  if (!partitions)
    return livenps_fail(error, LIVENPS_E_STARTUP, "topic %s does not exist at %s: create it first",
                        publication->topic, livenps_kafka_servers(settings));
  return options->history ? judge_history(publication, error) : 0;
}

/* What is still not acknowledged after the last wait is told as such; *error keeps an earlier one. */
static int conclude(published *publication, bool whole, int64_t begin_ms, livenps_error *error) {
  const int64_t elapsed_ms = livenps_monotonic_ms() - begin_ms,
                missing = publication->sent - publication->acknowledged;
  if (isatty(STDERR_FILENO))
    fputc('\n', stderr);
  printf("publish: %" PRId64 " records read, %" PRId64 " acknowledged, %" PRId64 " not, %" PRId64
         " invalid, in %.1f s\n",
         publication->read, publication->acknowledged, missing, publication->invalid,
         (double)elapsed_ms / 1000);
  fflush(stdout);
  if (publication->failed)
    livenps_fail(error, LIVENPS_E_REFUSED, "topic %s: %" PRId64 " records refused: %s", publication->topic,
                 publication->failed, publication->reason);
  else if (missing)
    livenps_fail(error, LIVENPS_E_LOST, "topic %s: %" PRId64 " records were not acknowledged",
                 publication->topic, missing);
  if (!whole || missing || error->code)
    tell_how_far(publication);
  if (error->code)
    return (int)error->code;
  /* A stream on stdin has no end of its own: a signal is how it ends. Files that were not read to their end are unfinished. */
  if (!whole && !livenps_input_at_stdin(publication->input))
    return EXIT_INTERRUPTED;
  return publication->invalid ? EXIT_INVALID : 0;
}

int livenps_publish(const livenps_settings *settings, const livenps_publish_options *options) {
  livenps_error error = {0};
  published publication = {.options = options};
  const int64_t begin_ms = livenps_monotonic_ms();
  int code = 0;
  if (!prepare(&publication, settings, &error)) {
    bool whole;
    publish_all(&publication, &whole, &error);
    livenps_drain(publication.sender);
    code = conclude(&publication, whole, begin_ms, &error);
  }
  if (error.code)
    livenps_log(LIVENPS_ERROR, "publish", "%s", error.text);
  livenps_sender_close(publication.sender);
  livenps_input_close(publication.input);
  livenps_contract_close(&publication.contract);
  livenps_buffer_free(&publication.told);
  free(publication.handed.origins);
  return error.code ? (int)error.code : code;
}
