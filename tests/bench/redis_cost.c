/* What a commit and a publish cost, against a real Redis that is otherwise idle and is flushed first:
 *   redis_cost --redis=URL --cells=N --rounds=N [--commits-only=1]
 * commits-only: nothing is folded or published, so that a large commit can be measured alone. A commit carries one answer for each of N touchpoints; the tick after it folds them and publishes what changed. Prints per
 * round averages, without the first round (everything is new there): rows, views, milliseconds of the client and of Redis. */

#include "bench.h"

#include "consumer/aggregate.h"
#include "consumer/commit.h"
#include "common/rules.h"

#include <unistd.h>

static livenps_error error;

static int beginnings(void *opaque, int64_t since_ms, livenps_beginning **out, size_t *count,
                      livenps_error *e) {
  (void)opaque, (void)since_ms, (void)e;
  *out = livenps_alloc(sizeof **out);
  **out = (livenps_beginning){.topic = "bench"};
  *count = 1;
  return 0;
}

static bool partitions(void *opaque, size_t *total) {
  (void)opaque;
  *total = 1;
  return true;
}

/* Milliseconds that Redis spent in scripts since it was last asked. */
static double redis_script_ms(livenps_redis *redis) {
  static double before;
  livenps_text text;
  double now = 0;
  livenps_reply *reply = livenps_redis_commandf(redis, &error, "INFO commandstats");
  if (!reply || !livenps_reply_text(reply, &text))
    bench_fail("redis_cost", error.text);
  for (const char *name = "cmdstat_eval"; name;
       name = !strcmp(name, "cmdstat_eval") ? "cmdstat_evalsha" : NULL) {
    const char *line = text.at;
    while ((line = strstr(line, name)) && line[strlen(name)] != ':')
      line++;
    const char *usec = line ? strstr(line, "usec=") : NULL;
    if (usec)
      now += strtod(usec + 5, NULL) / 1000;
  }
  livenps_reply_free(reply);
  const double spent = now - before;
  before = now;
  return spent;
}

static size_t views;
static int count_view(void *opaque, const livenps_view *view) {
  (void)opaque, (void)view;
  views++;
  return 0;
}

int main(int argc, char **argv) {
  livenps_settings settings = {0};
  livenps_rules rules = {0};
  livenps_aggregate *aggregate;
  livenps_commit commit;
  livenps_batch batch;
  livenps_redis *asking;
  char setting[300], json[300];
  const long cells = bench_number(argc, argv, "cells", "100"),
             rounds = bench_number(argc, argv, "rounds", "20"),
             commits_only = bench_number(argc, argv, "commits-only", "0");
  livenps_settings_default(&settings);
  snprintf(setting, sizeof setting, "redis.url=%s",
           bench_option(argc, argv, "redis", "redis://127.0.0.1:6379"));
  if (livenps_settings_set(&settings, setting, &error) ||
      livenps_settings_set(&settings, "series_max=1000000", &error) ||
      livenps_settings_set(&settings, "topics=bench", &error) ||
      livenps_settings_set(&settings, "commit.max_cells=1000000", &error) ||
      livenps_settings_set(&settings, "redis.timeout=60s", &error) ||
      livenps_settings_set(&settings, "aggregate.lease=60s", &error) ||
      livenps_settings_set(&settings, "aggregate.snapshot=1h", &error) ||
      livenps_rules_open(&rules, &settings, NULL, &error) || livenps_redis_open(&asking, &settings, &error))
    bench_fail("redis_cost", error.text);
  livenps_reply *flushed = livenps_redis_commandf(asking, &error, "FLUSHALL");
  if (!flushed)
    bench_fail("redis_cost", error.text);
  livenps_reply_free(flushed);
  livenps_aggregate_config config = {
      .settings = &settings, .instance = "bench", .source = {beginnings, partitions, NULL}};
  memcpy(config.admit_hash, rules.hash, sizeof rules.hash);
  livenps_batch_init(&batch, &rules.admission);
  livenps_batch_open(&batch, "bench", 0, rules.mappings[0], 0);
  if (livenps_aggregate_open(&aggregate, &config, &error) || livenps_aggregate_tick(aggregate, &error) ||
      livenps_commit_open(&commit, &settings, rules.hash, "bench", &error) ||
      livenps_commit_adopt(&commit, &batch, NULL, &error) != LIVENPS_ADOPTED)
    bench_fail("redis_cost", error.text);

  double commit_ms = 0, commit_redis_ms = 0, commit_best_ms = 1e9, tick_ms = 0, tick_cpu_ms = 0,
         tick_redis_ms = 0;
  size_t payload = 0;
  for (long round = 0; round <= rounds; round++) {
    const int64_t now_ms = commit.redis_ms;
    char time[32];
    livenps_time_print(now_ms, time);
    for (long c = 0; c < cells; c++) {
      livenps_fate fate;
      livenps_reason reason;
      livenps_where where;
      const int length = snprintf(
          json, sizeof json,
          "{\"id\":\"a-%ld-%ld\",\"type\":\"answer\",\"time\":\"%s\",\"touchpoint\":\"touchpoint-%ld\","
          "\"channel\":\"web\",\"scale\":\"nps\",\"score\":%ld}",
          round, c, time, c, (round + c) % 11);
      const livenps_record record = {.value = {json, (size_t)length}, .timestamp_ms = now_ms};
      livenps_batch_record(&batch, &batch.lanes[0], batch.lanes[0].next, &record, &fate, &reason, &where);
    }
    redis_script_ms(asking);
    const double committing = bench_now();
    if (livenps_commit_flush(&commit, &batch, &error) != LIVENPS_COMMITTED)
      bench_fail("redis_cost", error.text);
    const double ticking = bench_now(), cpu = bench_cpu();
    const double at_redis = redis_script_ms(asking);
    if (round) {
      commit_ms += (ticking - committing) * 1e3;
      commit_redis_ms += at_redis;
      commit_best_ms = at_redis < commit_best_ms ? at_redis : commit_best_ms;
      payload = commit.payload.length;
    }
    if (commits_only)
      continue;
    if (livenps_aggregate_tick(aggregate, &error))
      bench_fail("redis_cost", error.text);
    const double done = bench_now(), done_cpu = bench_cpu(), ticked_at_redis = redis_script_ms(asking);
    if (round) {
      tick_ms += (done - ticking) * 1e3;
      tick_cpu_ms += (done_cpu - cpu) * 1e3;
      tick_redis_ms += ticked_at_redis;
    }
    usleep(20000);
  }
  /* Every window of every series of these touchpoints changed: all views but those of roll-ups they are not in. */
  livenps_state *state = (livenps_state *)(uintptr_t)livenps_aggregate_state(aggregate);
  const livenps_visitor visitor = {.view = count_view};
  for (size_t r = 0; r < settings.rollups.count; r++)
    for (size_t w = 0; w < settings.windows.count; w++)
      livenps_state_views(state, r, w, &visitor);
  printf(
      "rows %ld payload %zu commit_ms %.3f commit_redis_ms %.3f commit_redis_best_ms %.3f views %zu tick_ms %.3f tick_cpu_ms %.3f tick_redis_ms %.3f\n",
      cells, payload, commit_ms / (double)rounds, commit_redis_ms / (double)rounds, commit_best_ms, views,
      tick_ms / (double)rounds, tick_cpu_ms / (double)rounds, tick_redis_ms / (double)rounds);
  livenps_aggregate_close(aggregate);
  livenps_commit_close(&commit);
  livenps_batch_free(&batch);
  livenps_redis_close(asking);
  livenps_rules_close(&rules);
  livenps_settings_free(&settings);
  return 0;
}
