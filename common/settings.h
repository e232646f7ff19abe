#ifndef LIVENPS_SETTINGS_H
#define LIVENPS_SETTINGS_H

#include "error.h"
#include "text.h"

/* All settings of both programs: one table (settings.c) feeds the YAML reader, the environment, --set, --dump-config,
 * --help, config/livenps.yaml's test and the manual pages. Order of precedence, later wins: defaults, --config FILE,
 * environment (LIVENPS_ and the path in capitals with underscores), --set path=value, options of a subcommand.
 * Durations are written "100ms", "5s", "7d"; sizes "64kb", "256mb". In the struct: milliseconds and bytes. */

enum { LIVENPS_WORKERS_MAX = 64 };

typedef struct {
  char *name, *value;
} livenps_pair;
typedef struct {
  livenps_pair *at;
  size_t count;
} livenps_pairs; /* free-form maps, in the order given */
typedef struct {
  char **at;
  size_t count;
} livenps_list;

typedef struct {
  livenps_pairs
      kafka; /* kafka.*: passed through to librdkafka by its own names; bootstrap.servers among them.
                                   In the environment LIVENPS_KAFKA_SESSION_TIMEOUT_MS is session.timeout.ms */
  livenps_list topics; /* topics */
  livenps_pairs
      mappings; /* mappings.<topic>: path of a mapping file; relative to the configuration file's folder */
  char *namespace_; /* namespace, default "default": 1-64 of A-Z a-z 0-9 _ . - */
  char *instance;   /* instance: "" (a random writer id, dynamic membership) or a name (static membership) */
  int64_t workers;  /* workers 1: threads that read, each a member of the group */

  char *redis_url;      /* redis.url, default redis://127.0.0.1:6379 */
  char *redis_username; /* redis.username (or in the URL) */
  char *
      redis_password_file; /* redis.password_file; or LIVENPS_REDIS_PASSWORD in the environment, never on a command line */
  char *redis_ca_file;          /* redis.ca_file for rediss:// */
  int64_t redis_timeout_ms;     /* redis.timeout 2s: one call */
  int64_t redis_backoff_max_ms; /* redis.backoff_max 2s */
  bool redis_allow_eviction; /* redis.allow_eviction false: start although maxmemory-policy may evict keys */

  int64_t
      startup_timeout_ms; /* startup_timeout 30s: for broker and Redis at the start; afterwards we wait for ever */

  int64_t commit_interval_ms; /* commit.interval 100ms (5ms..10s) */
  int64_t commit_idle_ms;     /* commit.idle 1s */
  int64_t commit_max_cells;   /* commit.max_cells 25000: an early commit when that many rows are in hand */
  int64_t
      log_max_bytes; /* commit.log_max 256mb: FULL beyond; 0 = a quarter of maxmemory, 256mb without one */
  bool kafka_commit; /* commit.kafka true: Kafka commits afterwards, for lag tools */

  int64_t admit_max_bytes;        /* admit.max_bytes 1mb */
  int64_t admit_late_ms;          /* admit.late 7d */
  int64_t admit_future_ms;        /* admit.future 60s */
  livenps_list admit_touchpoints; /* admit.touchpoints: allow-list, empty = all */
  char *quarantine_suffix;        /* quarantine.suffix ".quarantine" */
  bool topics_allow_compacted;    /* allow_compacted false */

  livenps_list windows;  /* windows: "5m/1s" ... (length/slice) */
  livenps_list rollups;  /* rollups: touchpoint, channel, segment, stage, touchpoint|channel, all */
  int64_t series_max;    /* series_max 10000 per roll-up */
  int64_t minimum_n;     /* minimum_n 5 */
  int64_t reliable_n;    /* reliable_n 30 */
  double fdr;            /* change.q 0.10 */
  livenps_pairs targets; /* targets.<touchpoint>: NPS -100..100 (raw touchpoint name) */
  livenps_list
      trend_rollups; /* trends: roll-ups with trend streams; default all, touchpoint, channel, stage */
  int64_t
      trend_wait_ms; /* trend_wait 60s: a point is written flagged when the low watermark has not passed by then */
  int64_t complete_lag_ms; /* complete_lag 5s */

  int64_t tick_ms;     /* aggregate.tick 250ms */
  int64_t lease_ms;    /* aggregate.lease 2s */
  int64_t snapshot_ms; /* aggregate.snapshot 10s */
  int64_t view_ttl_ms; /* aggregate.view_ttl 15m */

  char *snapshot_topic; /* snapshot.topic: "" is livenps.<namespace>.snapshots, "none" is no such topic */
  int64_t snapshot_kafka_ms; /* snapshot.kafka_interval 60s */

  char *log_level;    /* log_level error|warn|info|debug */
  char *table_window; /* table.window 5m: window the live table shows */

  char *board_listen; /* board.listen 127.0.0.1:8080 */
  char *
      board_token_file; /* board.token_file; or LIVENPS_BOARD_TOKEN in the environment, never on a command line */
  livenps_list board_hosts; /* board.hosts: names under which browsers may ask */

  char *metrics_listen; /* metrics.listen "": no metrics are served */
  char *
      metrics_token_file; /* metrics.token_file; or LIVENPS_METRICS_TOKEN in the environment, never on a command line */
  livenps_list metrics_hosts; /* metrics.hosts */

  char *serve_listen;       /* serve.listen 127.0.0.1:8081 */
  char *serve_token_file;   /* serve.token_file; or LIVENPS_SERVE_TOKEN in the environment */
  livenps_list serve_hosts; /* serve.hosts */
  int64_t serve_max_body;   /* serve.max_body 4mb: of one request */
  int64_t
      serve_max_waiting; /* serve.max_waiting 64mb: of all that are being read; again of all on their way */
  int64_t serve_ack_timeout_ms; /* serve.ack_timeout 10s: then 503 */
  livenps_pairs webhooks;       /* webhooks.<topic>: path of a file with the secret its vendor signs with */

  /* Was it given? As long as not, trends and table.window follow rollups and windows. Kept by settings.c. */
  bool trends_given, table_window_given;
} livenps_settings;

void livenps_settings_default(livenps_settings *settings);
void livenps_settings_free(livenps_settings *settings);
/* YAML file; unknown keys, wrong types and impossible values are errors "FILE:LINE: setting: what; allowed: ...". */
int livenps_settings_file(livenps_settings *settings, const char *path, livenps_error *error);
/* Every LIVENPS_* variable; an unknown LIVENPS_ name is an error too, except LIVENPS_REDIS_PASSWORD, LIVENPS_BOARD_TOKEN, LIVENPS_METRICS_TOKEN, LIVENPS_SERVE_TOKEN, LIVENPS_VECTORS, LIVENPS_CACHE,
 * LIVENPS_CONFIG. */
int livenps_settings_environment(livenps_settings *settings, char **environment, livenps_error *error);
/* "path=value" of --set. Lists are comma-separated. */
int livenps_settings_set(livenps_settings *settings, const char *assignment, livenps_error *error);
/* Checks that need several settings (windows and slices, roll-ups and trends, sizes). Called last. */
int livenps_settings_check(const livenps_settings *settings, livenps_error *error);
/* The topic of the snapshots; "" where there is to be none. Returns out. */
const char *livenps_settings_snapshot_topic(const livenps_settings *settings, char out[250]);
/* YAML that reads back to the same settings; passwords (sasl.password, ssl.key.password, anything in a URL) as "***". */
void livenps_settings_print(const livenps_settings *settings, livenps_buffer *out);
/* The list of settings for --help and the manual pages. */
void livenps_settings_help(livenps_buffer *out);

/* Windows and roll-ups, parsed (livenps_settings_check has accepted them, so these cannot fail afterwards). */
typedef struct {
  char name[16]; /* "5m" */
  int64_t length_ms, slice_ms;
} livenps_window;
int livenps_window_parse(const char *text, livenps_window *window, livenps_error *error);
typedef struct {
  char name[64];     /* "touchpoint|channel", "all" */
  int dimensions[4]; /* indices of livenps_dimension_names, in the order of the name */
  int count;         /* 0 for all */
} livenps_rollup;
int livenps_rollup_parse(const char *text, livenps_rollup *rollup, livenps_error *error);

#endif
