#include "publish_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
  FIELDS_A_COMMAND = 400, /* field-value pairs of one HSET: Lua's stack ends at about 8,000 values */
  HEALTH_TTL_MS = 10000,
};

int64_t livenps_floor_to(int64_t value, int64_t step) {
  int64_t quotient = value / step;
  return (value % step < 0 ? quotient - 1 : quotient) * step;
}

/* A topic that is no longer in the settings stands still by intent: what it brought counts, but nothing waits for it. */
static bool is_read(const livenps_publisher *publisher, const livenps_partition *partition) {
  const livenps_list *topics = &publisher->config.settings->topics;
  for (size_t i = 0; i < topics->count; i++) {
    if (strcmp(topics->at[i], partition->topic) == 0) {
      return true;
    }
  }
  return topics->count == 0;
}

livenps_wholeness livenps_publish_wholeness(const livenps_publisher *publisher, const livenps_state *state,
                                            const livenps_pulse *pulse) {
  size_t count;
  const livenps_partition *partitions = livenps_state_partitions(state, &count);
  livenps_wholeness whole = {.clock = livenps_state_clock(state)};
  bool known = true;
  size_t read = 0;
  int64_t low = whole.clock;
  for (size_t i = 0; i < count; i++) {
    whole.covered_since = partitions[i].covered_since_ms > whole.covered_since
                              ? partitions[i].covered_since_ms
                              : whole.covered_since;
    if (!is_read(publisher, &partitions[i])) {
      continue;
    }
    read++;
    known &= partitions[i].through_ms > 0;
    low = partitions[i].through_ms < low ? partitions[i].through_ms : low;
  }
  known &= read > 0;
  if (known) {
    whole.low = low;
    whole.lag = whole.clock - low;
  }
  whole.complete = known && whole.lag <= publisher->config.settings->complete_lag_ms && pulse->total_known &&
                   read >= pulse->total;
  return whole;
}

static int64_t window_covered_since(const livenps_publisher *publisher, const livenps_state *state,
                                    const livenps_wholeness *whole, size_t window) {
  int64_t since = whole->covered_since;
  for (size_t r = 0; r < publisher->config.rollup_count; r++) {
    int64_t added = livenps_state_window_since(state, r, window);
    since = added > since ? added : since;
  }
  return since;
}

/* ---- health --------------------------------------------------------------------------------------------------------- */

/* Field by field into HSET commands of bounded length. */
typedef struct {
  livenps_ops *ops;
  const char *key;
  size_t open;
} hash_writer;

static void hash_text(hash_writer *hash, const char *field, const char *value) {
  if (hash->open == FIELDS_A_COMMAND) {
    livenps_ops_end(hash->ops);
    hash->open = 0;
  }
  if (hash->open == 0) {
    livenps_ops_add(hash->ops, "HSET", 4);
    livenps_ops_add(hash->ops, hash->key, strlen(hash->key));
  }
  livenps_ops_add(hash->ops, field, strlen(field));
  livenps_ops_add(hash->ops, value, strlen(value));
  hash->open++;
}

static void hash_number(hash_writer *hash, const char *field, int64_t value) {
  char text[24];
  snprintf(text, sizeof text, "%" PRId64, value);
  hash_text(hash, field, text);
}

static void hash_end(hash_writer *hash) {
  if (hash->open) {
    livenps_ops_end(hash->ops);
  }
}

static void expire_health(livenps_publisher *publisher, const char *key) {
  if (!publisher->config.replay) {
    char ttl[16];
    snprintf(ttl, sizeof ttl, "%d", HEALTH_TTL_MS);
    livenps_ops_command(&publisher->ops, "PEXPIRE", key, ttl, NULL);
  }
}

/* The same numbers for Prometheus. */
static void measure(const livenps_publisher *publisher, const livenps_state *state,
                    const livenps_pulse *pulse, const livenps_wholeness *whole, const livenps_partition *sum,
                    bool any_capped) {
  livenps_metrics *metrics = publisher->config.metrics;
  if (!metrics) {
    return;
  }
  size_t count;
  const livenps_partition *partitions = livenps_state_partitions(state, &count);
  int64_t rejected = 0;
  for (int r = 0; r < LIVENPS_REASONS; r++) {
    livenps_metrics_set(metrics, LIVENPS_M_NS_REJECTED, (size_t)r, sum->rejected[r]);
    rejected += sum->rejected[r];
  }
  const int64_t fates[] = {[LIVENPS_ACCEPTED] = sum->accepted,
                           [LIVENPS_REJECTED] = rejected,
                           [LIVENPS_LATE] = sum->late,
                           [LIVENPS_DUPLICATE] = sum->duplicate,
                           [LIVENPS_OUT_OF_RANGE] = sum->out_of_range};
  for (size_t i = 0; i < sizeof fates / sizeof *fates; i++) {
    livenps_metrics_set(metrics, LIVENPS_M_NS_RECORDS, i, fates[i]);
  }
  livenps_metrics_set(metrics, LIVENPS_M_COMPLETE, 0, whole->complete);
  if (whole->low > 0) {
    livenps_metrics_set(metrics, LIVENPS_M_LAG, 0, whole->lag);
  } else {
    livenps_metrics_forget(metrics, LIVENPS_M_LAG);
  }
  livenps_metrics_set(metrics, LIVENPS_M_CLOCK, 0, whole->clock);
  livenps_metrics_set(metrics, LIVENPS_M_HOLES, 0, sum->holes);
  livenps_metrics_set(metrics, LIVENPS_M_GAP, 0, sum->gap);
  livenps_metrics_set(metrics, LIVENPS_M_INSTANCES, 0, pulse->instances);
  livenps_metrics_set(metrics, LIVENPS_M_PARTITIONS, 0, (int64_t)count);
  livenps_metrics_set(metrics, LIVENPS_M_CAPPED, 0, any_capped);
  livenps_metrics_set(metrics, LIVENPS_M_LOG_BYTES, 0, pulse->log_bytes);
  livenps_metrics_set(metrics, LIVENPS_M_LOG_MAX, 0, pulse->log_max_bytes);
  livenps_metrics_set(metrics, LIVENPS_M_GENESIS, 0, pulse->genesis);
  for (size_t r = 0; r < publisher->config.rollup_count; r++) {
    bool capped;
    livenps_metrics_set(metrics, LIVENPS_M_SERIES, r, (int64_t)livenps_state_series(state, r, &capped));
  }
  livenps_buffer lines = {0};
  livenps_metrics_begin(metrics, LIVENPS_M_PARTITION_BEHIND, &lines);
  for (size_t i = 0; i < count; i++) {
    if (partitions[i].through_ms > 0) {
      const int64_t behind = whole->clock - partitions[i].through_ms;
      livenps_metrics_line(metrics, LIVENPS_M_PARTITION_BEHIND, &lines, partitions[i].topic,
                           partitions[i].partition, behind > 0 ? behind : 0);
    }
  }
  livenps_metrics_end(metrics, LIVENPS_M_PARTITION_BEHIND, 0, &lines);
}

void livenps_publish_health(livenps_publisher *publisher, const livenps_state *state,
                            const livenps_pulse *pulse, const livenps_wholeness *whole) {
  size_t count;
  const livenps_partition *partitions = livenps_state_partitions(state, &count);
  livenps_partition sum = {0};
  livenps_key_text key;
  char field[320];
  livenps_publish_key(publisher, &key, "health", NULL, NULL);
  hash_writer hash = {.ops = &publisher->ops, .key = key.text};
  livenps_ops_command(&publisher->ops, "DEL", key.text, NULL);
  hash_number(&hash, "as_of_ms", whole->clock);
  if (whole->low > 0) {
    hash_number(&hash, "low_watermark_ms", whole->low);
    hash_number(&hash, "lag_ms", whole->lag);
  }
  hash_number(&hash, "complete", whole->complete);
  hash_text(&hash, "lineage", publisher->holder->lineage);
  hash_number(&hash, "genesis", pulse->genesis);
  hash_text(&hash, "aggregator", pulse->aggregator);
  hash_number(&hash, "instances", pulse->instances);
  hash_number(&hash, "last_commit_ms", pulse->last_commit_ms);
  hash_number(&hash, "log_bytes", pulse->log_bytes);
  hash_number(&hash, "log_max_bytes", pulse->log_max_bytes);
  for (size_t i = 0; i < count; i++) {
    const livenps_partition *each = &partitions[i];
    sum.accepted += each->accepted;
    sum.late += each->late;
    sum.duplicate += each->duplicate;
    sum.out_of_range += each->out_of_range;
    sum.holes += each->holes;
    sum.gap += each->gap;
    for (int r = 0; r < LIVENPS_REASONS; r++) {
      sum.rejected[r] += each->rejected[r];
    }
    snprintf(field, sizeof field, "position:%s/%" PRId32, each->topic, each->partition);
    hash_number(&hash, field, each->position.next);
    if (each->through_ms > 0) {
      snprintf(field, sizeof field, "lag:%s/%" PRId32, each->topic, each->partition);
      hash_number(&hash, field, each->through_ms < whole->clock ? whole->clock - each->through_ms : 0);
    }
  }
  hash_number(&hash, "partitions", (int64_t)count);
  hash_number(&hash, "accepted", sum.accepted);
  hash_number(&hash, "late", sum.late);
  hash_number(&hash, "duplicate", sum.duplicate);
  hash_number(&hash, "out_of_range", sum.out_of_range);
  hash_number(&hash, "holes", sum.holes);
  hash_number(&hash, "gap", sum.gap);
  for (int r = 0; r < LIVENPS_REASONS; r++) {
    if (sum.rejected[r]) {
      snprintf(field, sizeof field, "rejected:%s", livenps_reason_name((livenps_reason)r));
      hash_number(&hash, field, sum.rejected[r]);
    }
  }
  bool any_capped = false;
  for (size_t r = 0; r < publisher->config.rollup_count; r++) {
    bool capped = false;
    snprintf(field, sizeof field, "series:%s", publisher->config.rollups[r].name);
    hash_number(&hash, field, (int64_t)livenps_state_series(state, r, &capped));
    any_capped |= capped;
  }
  hash_number(&hash, "capped", any_capped);
  hash_end(&hash);
  expire_health(publisher, key.text);
  measure(publisher, state, pulse, whole, &sum, any_capped);

  for (size_t w = 0; w < publisher->config.window_count; w++) {
    const livenps_window *window = &publisher->config.windows[w];
    int64_t since = window_covered_since(publisher, state, whole, w);
    int64_t start = livenps_floor_to(whole->clock, window->slice_ms) - window->length_ms + window->slice_ms;
    livenps_publish_key(publisher, &key, "health", window->name, NULL);
    hash = (hash_writer){.ops = &publisher->ops, .key = key.text};
    hash_number(&hash, "complete", whole->complete && since <= start);
    livenps_metrics_set(publisher->config.metrics, LIVENPS_M_WINDOW_COMPLETE, w,
                        whole->complete && since <= start);
    hash_number(&hash, "previous_complete", whole->complete && since <= start - window->length_ms);
    hash_number(&hash, "covered_since_ms", since);
    hash_end(&hash);
    expire_health(publisher, key.text);
  }
}

void livenps_publish_updates(livenps_publisher *publisher, const livenps_wholeness *whole) {
  if (json_array_size(publisher->changed) == 0) {
    return;
  }
  livenps_key_text channel;
  json_t *message = json_object();
  json_object_set_new(message, "as_of_ms", json_integer(whole->clock));
  json_object_set(message, "changed", publisher->changed);
  if (publisher->more) {
    json_object_set_new(message, "more", json_integer((json_int_t)publisher->more));
  }
  char *text = json_dumps(message, JSON_COMPACT);
  livenps_publish_key(publisher, &channel, "updates", NULL, NULL);
  if (text) {
    livenps_ops_command(&publisher->ops, "PUBLISH", channel.text, text, NULL);
  }
  free(text);
  json_decref(message);
}
