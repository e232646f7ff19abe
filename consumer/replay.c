#include "../common/clock.h"
#include "../common/log.h"
#include "../common/rules.h"
#include "../common/stop.h"
#include "aggregate.h"
#include "commands.h"
#include "progress.h"
#include "reader.h"
#include "relay.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* A range of a topic, once more, into a namespace of its own: the same reader, commit protocol and aggregator as live, on two threads as
 * there, event time instead of Redis TIME as the clock. The other thread folds while this one reads: what the reader has committed, from
 * Redis, or in a dry run what it hands over (relay.h). The namespace is the state, so a replay that was killed goes on
 * where it was; the end offsets are fixed at the start and kept there. */

enum {
  STEP_MS = 20,
  LEASE_WAIT_MS = 30000,
  DRY_BATCH_MS = 1000 /* nobody waits for what is in hand, and larger batches have fewer rows */
};

typedef struct {
  const livenps_settings *settings;
  const livenps_replay_options *options;
  livenps_rules rules;
  livenps_watch *watch;
  livenps_commit commit;
  livenps_reader *reader;
  livenps_aggregate *aggregate; /* while all is read it is the other thread's */
  pthread_t thread;
  atomic_bool stop;   /* that thread, which ticks */
  atomic_bool failed; /* it has ended by itself; why says why */
  livenps_error why;
  livenps_state *state; /* dry run only; the relay's thread folds into it */
  livenps_relay *relay;
  livenps_range *ranges;
  size_t range_count;
  int64_t offsets; /* in all ranges */
  livenps_progress progress;
  int64_t started_ms, first_clock_ms; /* of the pace */
  size_t views_printed;
} replay;

/* -- ranges ------------------------------------------------------------------------------------------------------- */

/* Where records can begin whose event time is at or after from_ms, and where the topic ends now (last stable offset: a replay must
 * not wait for somebody's open transaction). */
static int find_ranges(replay *self, livenps_error *error) {
  livenps_beginning *beginnings;
  const int64_t since_ms = self->options->from_ms - self->settings->admit_future_ms;
  if (livenps_watch_beginnings(self->watch, since_ms > 0 ? since_ms : 0, &beginnings, &self->range_count,
                               error))
    return -1;
  self->ranges = livenps_alloc((self->range_count + 1) * sizeof *self->ranges);
  int result = 0;
  for (size_t i = 0; i < self->range_count && !result; i++) {
    int64_t low, high;
    result = livenps_watch_bounds(self->watch, beginnings[i].topic, beginnings[i].partition, true, &low,
                                  &high, error);
    livenps_range *range = &self->ranges[i];
    *range = (livenps_range){.partition = beginnings[i].partition, .start = beginnings[i].start, .end = high};
    memcpy(range->topic, beginnings[i].topic, sizeof range->topic);
    if (range->end < range->start)
      range->end = range->start;
    range->covered_since_ms = beginnings[i].covered_since_ms;
  }
  free(beginnings);
  return result;
}

/* "events/0=100,events/1=230": kept in the namespace's meta, so that a resumed replay ends where the first try would have. */
static void print_ends(const replay *self, livenps_buffer *out) {
  for (size_t i = 0; i < self->range_count; i++)
    livenps_buffer_print(out, "%s%s/%d=%" PRId64, i ? "," : "", self->ranges[i].topic,
                         self->ranges[i].partition, self->ranges[i].end);
}

static int adopt_ends(replay *self, livenps_text text, livenps_error *error) {
  char *copy = livenps_copy(text.at, text.length), *rest = copy;
  int result = 0;
  size_t listed = 0;
  for (char *part; (part = strsep(&rest, ",")) && !result; listed++) {
    int partition;
    int64_t end;
    const char *slash = strrchr(part, '/');
    const size_t length = slash ? (size_t)(slash - part) : 0;
    if (slash && (length != strlen(self->options->topic) || memcmp(part, self->options->topic, length) != 0))
      result = livenps_fail(error, LIVENPS_E_REFUSED,
                            "namespace %s holds a replay of topic %.*s: two topics in one would be added up; "
                            "choose another --into",
                            self->options->into, (int)length, part);
    else if (!slash || sscanf(slash, "/%d=%" SCNd64, &partition, &end) != 2 || partition < 0 ||
             (size_t)partition >= self->range_count)
      result = livenps_fail(error, LIVENPS_E_DATA,
                            "redis: namespace %s: the end offsets of its replay cannot be read",
                            self->options->into);
    else
      self->ranges[partition].end = end;
  }
  /* Partitions that were added since the first try are not part of this replay. */
  if (!result && listed < self->range_count)
    self->range_count = listed;
  free(copy);
  return result;
}

/* The namespace's own word on where this replay ends; none before its genesis. */
static int stored_ends(replay *self, bool *found, livenps_error *error) {
  livenps_reply *reply = livenps_redis_commandf(self->commit.redis, error, "HMGET %s replay_ends genesis",
                                                self->commit.keys.meta);
  livenps_text ends = {0}, genesis = {0};
  if (!reply)
    return -1;
  int result = 0;
  *found = livenps_reply_text(livenps_reply_item(reply, 0), &ends);
  if (*found)
    result = adopt_ends(self, ends, error);
  else if (livenps_reply_text(livenps_reply_item(reply, 1), &genesis))
    result = livenps_fail(
        error, LIVENPS_E_REFUSED,
        "namespace %s is not a replay's: a replay writes only a namespace of its own; choose another --into",
        self->options->into);
  livenps_reply_free(reply);
  return result;
}

/* livenps_source of the aggregator. */
static int beginnings(void *opaque, int64_t since_ms, livenps_beginning **out, size_t *count,
                      livenps_error *error) {
  replay *self = opaque;
  (void)since_ms, (void)error;
  *out = livenps_alloc((self->range_count + 1) * sizeof **out);
  *count = self->range_count;
  for (size_t i = 0; i < self->range_count; i++) {
    (*out)[i] = (livenps_beginning){.partition = self->ranges[i].partition,
                                    .start = self->ranges[i].start,
                                    .covered_since_ms = self->ranges[i].covered_since_ms};
    memcpy((*out)[i].topic, self->ranges[i].topic, sizeof(*out)[i].topic);
  }
  return 0;
}

static bool partitions(void *opaque, size_t *total) {
  *total = ((replay *)opaque)->range_count;
  return true;
}

/* -- the loop ----------------------------------------------------------------------------------------------------- */

static void sleep_ms(int64_t ms) {
  struct timespec time = {ms / 1000, ms % 1000 * 1000000};
  nanosleep(&time, NULL);
}

static int fold(void *opaque, const livenps_entry *entry, livenps_error *error) {
  replay *self = opaque;
  const int64_t to_ms = self->options->to_ms;
  /* The clock first: rows ahead of it would have to wait, each in a place of its own, for the clock that came with them. */
  if (entry->clock_ms != LIVENPS_NO_CLOCK)
    livenps_state_advance(self->state, entry->clock_ms < to_ms ? entry->clock_ms : to_ms);
  return livenps_state_fold(self->state, entry, to_ms, error);
}

/* The sink of the reader. */
static int hand_over(void *opaque, livenps_combine **combine, const livenps_entry *entry,
                     livenps_error *error) {
  return livenps_relay_put(((replay *)opaque)->relay, combine, entry, error);
}

/* Event time may run at most speed times as fast as the wall clock: the event time that is due now. */
static int64_t due_clock(replay *self, const livenps_reader_stats *stats) {
  if (self->options->speed <= 0)
    return INT64_MAX;
  if (self->first_clock_ms == LIVENPS_NO_CLOCK) {
    /* Records before --from do not count against the pace: it begins with the first that has a clock. */
    if (stats->clock_ms == LIVENPS_NO_CLOCK)
      return LIVENPS_NO_CLOCK;
    self->first_clock_ms = stats->clock_ms;
    self->started_ms = livenps_monotonic_ms();
  }
  const double ahead_ms = (double)(livenps_monotonic_ms() - self->started_ms) * self->options->speed;
  return ahead_ms < (double)(INT64_MAX / 2) ? self->first_clock_ms + (int64_t)ahead_ms : INT64_MAX;
}

static void show_progress(replay *self, const livenps_reader_stats *stats, bool last) {
  livenps_progress_show(&self->progress,
                        self->offsets ? 1.0 - (double)stats->left / (double)self->offsets : 1.0,
                        stats->records, stats->clock_ms, last);
}

/* One tick of the aggregator; a lost Redis is waited for, the reader tells of it. */
static int tick(replay *self, livenps_error *error) {
  livenps_error lost = {0};
  if (!self->aggregate || !livenps_aggregate_tick(self->aggregate, &lost))
    return 0;
  /* Redis was found as it should be before: on its first connection, too, what is wrong with it now is an outage. */
  if (lost.code == LIVENPS_E_LOST || lost.code == LIVENPS_E_STARTUP) {
    livenps_error_clear(&lost);
    return 0;
  }
  *error = lost;
  return -1;
}

static void *tick_on(void *opaque) {
  replay *self = opaque;
  while (!self->stop) {
    if (tick(self, &self->why)) {
      self->failed = true;
      break;
    }
    const int64_t due_ms = livenps_monotonic_ms() + self->settings->tick_ms;
    while (!self->stop && livenps_monotonic_ms() < due_ms)
      sleep_ms(STEP_MS);
  }
  return NULL;
}

/* The lease of a replay that was killed a moment ago has to expire first. */
static int become_aggregator(replay *self, livenps_error *error) {
  const int64_t until = livenps_monotonic_ms() + LEASE_WAIT_MS;
  while (!livenps_stop) {
    if (tick(self, error))
      return -1;
    if (livenps_aggregate_state(self->aggregate))
      return 0;
    if (livenps_monotonic_ms() > until)
      return livenps_fail(error, LIVENPS_E_REFUSED,
                          "another replay writes namespace %s now: wait for it, or choose another --into",
                          self->options->into);
    sleep_ms(100);
  }
  return livenps_fail(error, LIVENPS_E_LOST, "stopped before the first record");
}

static int read_to_end(replay *self, livenps_error *error) {
  livenps_reader_stats stats;
  livenps_progress_start(&self->progress, "replay");
  while (!livenps_stop && !self->failed && !livenps_reader_done(self->reader)) {
    livenps_reader_stats_get(self->reader, &stats);
    livenps_reader_pause_at(self->reader, due_clock(self, &stats));
    if (livenps_reader_step(self->reader, STEP_MS, error))
      return -1;
    show_progress(self, &stats, false);
  }
  if (self->failed)
    return -1;
  livenps_reader_stats_get(self->reader, &stats);
  show_progress(self, &stats, true);
  if (!livenps_stop)
    return 0;
  livenps_error ignored = {0};
  livenps_reader_flush(self->reader, &ignored);
  return livenps_fail(error, LIVENPS_E_LOST, "stopped with %" PRId64 " offsets to go%s", stats.left,
                      self->aggregate ? "; the same command goes on from here" : "");
}

static int read_all(replay *self, livenps_error *error) {
  if (!self->aggregate)
    return read_to_end(self, error);
  if (pthread_create(&self->thread, NULL, tick_on, self))
    return livenps_fail(error, LIVENPS_E_STARTUP, "replay: no thread could be started");
  int result = read_to_end(self, error);
  self->stop = true;
  pthread_join(self->thread, NULL);
  /* Once all is read a failure is one all the same: what is behind it cannot be published either. */
  if (self->failed && !error->code) {
    *error = self->why;
    result = -1;
  }
  return result;
}

static int finish(replay *self, livenps_error *error) {
  if (!self->aggregate) {
    if (livenps_relay_drain(self->relay, error))
      return -1;
    livenps_state_advance(self->state, self->options->to_ms);
    return 0;
  }
  for (;;) {
    livenps_error_clear(error);
    if (!livenps_aggregate_finish(self->aggregate, self->options->to_ms, error))
      return 0;
    if (error->code != LIVENPS_E_LOST || livenps_stop)
      return -1;
    sleep_ms(200);
  }
}

/* -- the report --------------------------------------------------------------------------------------------------- */

static int print_view(void *opaque, const livenps_view *view) {
  replay *self = opaque;
  self->views_printed++;
  printf("%-6s n %" PRId64, self->settings->windows.at[view->window], view->n);
  if (view->scored)
    printf("  NPS %.1f  [%.1f, %.1f]%s", view->nps, view->nps_low, view->nps_high,
           view->reliable ? "" : "  (few answers)");
  printf("  interactions %" PRId64 "  invitations %" PRId64 "  answers %" PRId64 "\n", view->interactions,
         view->invitations, view->answers);
  return 0;
}

static void report(replay *self, livenps_state *state) {
  int64_t totals[7] = {0};
  size_t count;
  const livenps_partition *ledger = livenps_state_partitions(state, &count);
  for (size_t i = 0; i < count; i++) {
    totals[0] += ledger[i].accepted;
    totals[1] += ledger[i].late;
    totals[2] += ledger[i].duplicate;
    totals[3] += ledger[i].out_of_range;
    totals[4] += ledger[i].holes;
    totals[5] += ledger[i].gap;
    for (int r = 0; r < LIVENPS_REASONS; r++)
      totals[6] += ledger[i].rejected[r];
  }
  char from[32], to[32];
  printf("%s, %s to %s%s%s\n", self->options->topic, livenps_time_print(self->options->from_ms, from),
         livenps_time_print(self->options->to_ms, to),
         self->options->dry_run ? " (dry run)" : ", in namespace ",
         self->options->dry_run ? "" : self->options->into);
  printf("accepted %" PRId64 "  rejected %" PRId64 "  late %" PRId64 "  duplicate %" PRId64
         "  out of range %" PRId64 "  holes %" PRId64 "  gaps %" PRId64 "\n",
         totals[0], totals[6], totals[1], totals[2], totals[3], totals[4], totals[5]);
  /* Another digest of the same range is explained by other end offsets, so they are said. */
  livenps_buffer ends = {0};
  print_ends(self, &ends);
  printf("end offsets %.*s\n", (int)ends.length, ends.length ? ends.at : "");
  livenps_buffer_free(&ends);
  bool all = false;
  for (size_t r = 0; r < self->settings->rollups.count; r++)
    if (!strcmp(self->settings->rollups.at[r], "all")) {
      all = true;
      for (size_t w = 0; w < self->settings->windows.count; w++) {
        const livenps_visitor visitor = {.view = print_view, .opaque = self};
        livenps_state_views(state, r, w, &visitor);
      }
    }
  if (all && !self->views_printed)
    printf("no events in any window: the windows end at --to\n");
  for (size_t r = 0; r < self->settings->rollups.count; r++) {
    bool capped = false;
    livenps_state_series(state, r, &capped);
    if (capped)
      printf(
          "roll-up %s is over series_max: which names were folded into ~other depends on arrival, only totals repeat\n",
          self->settings->rollups.at[r]);
  }
  if (!self->options->digest)
    return;
  char digest[65];
  livenps_state_digest(state, digest);
  printf("%s\n", digest);
}

/* -- entry -------------------------------------------------------------------------------------------------------- */

static int prepare(replay *self, livenps_error *error) {
  const livenps_bounds bounds = {self->options->from_ms, self->options->to_ms};
  if (self->options->from_ms > self->options->to_ms)
    return livenps_fail(error, LIVENPS_E_USAGE, "--from is later than --to");
  if (livenps_rules_open(&self->rules, self->settings, &bounds, error) ||
      livenps_watch_open(&self->watch, self->settings, error) || find_ranges(self, error))
    return -1;
  livenps_reader_config config = {.settings = self->settings,
                                  .admission = &self->rules.admission,
                                  .mappings = (const livenps_mapping *const *)self->rules.mappings,
                                  .watch = self->watch};
  if (self->options->dry_run) {
    livenps_state_open(&self->state, self->settings);
    for (size_t i = 0; i < self->range_count; i++)
      livenps_state_start(self->state, livenps_text_of(self->ranges[i].topic), self->ranges[i].partition,
                          self->ranges[i].start, self->ranges[i].covered_since_ms);
    if (livenps_relay_open(&self->relay, fold, self, error))
      return -1;
    config.sink = hand_over;
    config.opaque = self;
  } else {
    char writer[48] = "replay-";
    bool found;
    livenps_buffer ends = {0};
    livenps_random_hex(writer + 7, 9);
    if (livenps_commit_open(&self->commit, self->settings, self->rules.hash, writer, error) ||
        livenps_redis_connect(self->commit.redis, error) || stored_ends(self, &found, error))
      return -1;
    print_ends(self, &ends);
    livenps_buffer_add(&ends, "", 1);
    char name[] = "replay_ends";
    const livenps_pair extra[] = {{name, ends.at}};
    livenps_aggregate_config aggregate = {.settings = self->settings,
                                          .instance = writer,
                                          .source = {beginnings, partitions, self},
                                          .replay = true,
                                          .paced = true,
                                          .to_ms = self->options->to_ms,
                                          .extra = extra,
                                          .extra_count = 1};
    memcpy(aggregate.admit_hash, self->rules.hash, sizeof self->rules.hash);
    const int failed =
        livenps_aggregate_open(&self->aggregate, &aggregate, error) || become_aggregator(self, error);
    livenps_buffer_free(&ends);
    bool begun; /* perhaps by another process that ended while we waited for its lease: its word counts */
    if (failed || stored_ends(self, &begun, error))
      return -1;
    if (found)
      livenps_log(LIVENPS_INFO, "replay", "namespace %s has begun this replay already: going on",
                  self->options->into);
    config.commit = &self->commit;
  }
  for (size_t i = 0; i < self->range_count; i++)
    self->offsets += self->ranges[i].end - self->ranges[i].start;
  livenps_watch_start(self->watch, false);
  return livenps_reader_open(&self->reader, &config, error) ||
                 livenps_reader_assign(self->reader, self->ranges, self->range_count, error)
             ? -1
             : 0;
}

int livenps_replay(const livenps_settings *live, const livenps_replay_options *options) {
  livenps_error error = {0};
  livenps_settings settings = *live;
  char *topic = livenps_copy(options->topic, strlen(options->topic));
  char *into = options->dry_run ? livenps_copy("", 0) : livenps_copy(options->into, strlen(options->into));
  char instance[] = "";
  settings.topics = (livenps_list){&topic, 1};
  settings.namespace_ = into;
  settings.instance = instance; /* a replay is nobody's static member */
  if (options->dry_run)
    settings.commit_interval_ms = DRY_BATCH_MS;
  replay self = {.settings = &settings, .options = options, .first_clock_ms = LIVENPS_NO_CLOCK};

  if (!prepare(&self, &error) && !read_all(&self, &error) && !finish(&self, &error))
    report(&self,
           self.aggregate ? (livenps_state *)(uintptr_t)livenps_aggregate_state(self.aggregate) : self.state);

  livenps_relay_close(self.relay);
  livenps_reader_close(self.reader);
  livenps_aggregate_close(self.aggregate);
  livenps_state_free(self.state);
  livenps_watch_close(self.watch);
  livenps_commit_close(&self.commit);
  livenps_rules_close(&self.rules);
  free(self.ranges);
  free(topic);
  free(into);
  if (!error.code)
    return 0;
  livenps_log(LIVENPS_ERROR, "replay", "%s", error.text);
  return (int)error.code;
}
