#include "settings_table.h"

#include "clock.h"
#include "event.h"
#include "log.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- what single values may be ---- */

static const char name_characters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";

static int check_characters(const char *value, size_t least, size_t most, livenps_error *error) {
  size_t length = strlen(value);
  if (length < least) {
    return livenps_fail(error, LIVENPS_E_USAGE, "is empty");
  }
  if (length > most) {
    return livenps_fail(error, LIVENPS_E_USAGE, "is %zu characters long", length);
  }
  size_t good = strspn(value, name_characters);
  if (good < length) {
    char shown[16];
    size_t wrong = 1;
    while (((unsigned char)value[good + wrong] & 0xc0) == 0x80) {
      wrong++;
    }
    return livenps_fail(error, LIVENPS_E_USAGE, "has the character '%s'",
                        livenps_printable(shown, sizeof shown, value + good, wrong));
  }
  return 0;
}

static int check_topic(const char *value, livenps_error *error) {
  if (strcmp(value, ".") == 0 || strcmp(value, "..") == 0) {
    return livenps_fail(error, LIVENPS_E_USAGE, "'%s' cannot be a topic's name", value);
  }
  return check_characters(value, 1, 249, error);
}

static int check_snapshot_topic(const char *value, livenps_error *error) {
  return value[0] ? check_topic(value, error) : 0;
}

static int check_namespace(const char *value, livenps_error *error) {
  return check_characters(value, 1, 64, error);
}

static int check_instance(const char *value, livenps_error *error) {
  return check_characters(value, 0, 64, error);
}

static int check_suffix(const char *value, livenps_error *error) {
  return check_characters(value, 1, 64, error);
}

static int check_touchpoint(const char *value, livenps_error *error) {
  if (value[0] == '\0') {
    return livenps_fail(error, LIVENPS_E_USAGE, "a touchpoint's name is empty");
  }
  if (strlen(value) > LIVENPS_MAX_ID) {
    return livenps_fail(error, LIVENPS_E_USAGE, "a touchpoint's name is longer than %d bytes",
                        LIVENPS_MAX_ID);
  }
  return 0;
}

static int check_mapping(const char *value, livenps_error *error) {
  return value[0] ? 0 : livenps_fail(error, LIVENPS_E_USAGE, "names no file");
}

static int parse_fraction(const char *text, double *value) {
  size_t length = strlen(text);
  char *end;
  /* strtod also reads hexadecimal, infinity and spaces, which nobody means here. */
  if (length == 0 || length > 40 || strspn(text, "+-.0123456789") != length) {
    return -1;
  }
  *value = strtod(text, &end);
  return *end == '\0' && isfinite(*value) ? 0 : -1;
}

static int check_target(const char *value, livenps_error *error) {
  double target;
  if (parse_fraction(value, &target) != 0 || target < -100 || target > 100) {
    char shown[64];
    return livenps_fail(error, LIVENPS_E_USAGE, "'%s' is no NPS",
                        livenps_printable(shown, sizeof shown, value, strlen(value)));
  }
  return 0;
}

static int check_url(const char *value, livenps_error *error) {
  static const char *const schemes[] = {"redis://", "rediss://", "unix://"};
  size_t i = 0;
  while (i < 3 && strncmp(value, schemes[i], strlen(schemes[i])) != 0) {
    i++;
  }
  /* The value itself is never shown: it may hold a password. */
  if (i == 3) {
    return livenps_fail(error, LIVENPS_E_USAGE, "does not begin with redis://, rediss:// or unix://");
  }
  const char *rest = value + strlen(schemes[i]);
  const char *at = strrchr(rest, '@');
  if (at) {
    rest = at + 1;
  }
  if (i == 2 ? rest[0] != '/' : rest[0] == '\0' || rest[0] == '/' || rest[0] == ':') {
    return livenps_fail(error, LIVENPS_E_USAGE,
                        i == 2 ? "names no socket by its absolute path" : "names no host");
  }
  return 0;
}

static int check_window(const char *value, livenps_error *error) {
  livenps_window window;
  return livenps_window_parse(value, &window, error);
}

static int check_rollup(const char *value, livenps_error *error) {
  livenps_rollup rollup;
  return livenps_rollup_parse(value, &rollup, error);
}

static int check_window_name(const char *value, livenps_error *error) {
  int64_t length_ms;
  size_t length = strlen(value);
  if (length > 15 || livenps_duration_parse(value, &length_ms) != 0 ||
      (length > 2 && value[length - 2] == 'm')) {
    char shown[64];
    return livenps_fail(error, LIVENPS_E_USAGE, "'%s' is no window's name",
                        livenps_printable(shown, sizeof shown, value, length));
  }
  return 0;
}

/* ADDRESS:PORT; what the address means is for whoever listens there. */
static int check_listen(const char *value, livenps_error *error) {
  const char *colon = strrchr(value, ':');
  size_t digits = colon ? strspn(colon + 1, "0123456789") : 0;
  if (!colon || colon == value || digits == 0 || digits > 5 || colon[1 + digits] ||
      strtol(colon + 1, NULL, 10) > 65535 || colon - value > 60) {
    char shown[64];
    return livenps_fail(error, LIVENPS_E_USAGE, "'%s' is no address and port",
                        livenps_printable(shown, sizeof shown, value, strlen(value)));
  }
  return 0;
}

static int check_listen_or_none(const char *value, livenps_error *error) {
  return *value ? check_listen(value, error) : 0;
}

static int check_host(const char *value, livenps_error *error) {
  return check_characters(value, 1, 253, error);
}

/* ---- the table ---- */

#define AT(field) offsetof(livenps_settings, field)
#define MS(n)     (n)
#define SECOND    INT64_C(1000)
#define MINUTE    (60 * SECOND)
#define HOUR      (60 * MINUTE)
#define DAY       (24 * HOUR)
#define KB        INT64_C(1024)
#define MB        (1024 * KB)
#define GB        (1024 * MB)

static const char window_form[] =
    "LENGTH/SLICE such as 5m/1s, 24h/2m: whole numbers of s, m, h or d, the slice at most "
    "1/300 of the length and dividing it";
static const char rollup_form[] = "all, or dimensions joined by '|': touchpoint, channel, segment, stage";
static const char name_form[] = "1 to 64 of A-Z a-z 0-9 _ . -";

static const livenps_setting table[] = {
    {"Kafka", "kafka", LIVENPS_KIND_MAP, AT(kafka), "", 0, 0, "a value of librdkafka, which checks it", NULL,
     "Passed through to librdkafka by its own names: bootstrap.servers (needed), security.protocol, sasl.mechanisms "
     "... In the environment LIVENPS_KAFKA_SESSION_TIMEOUT_MS is session.timeout.ms. Secrets are refused on a command "
     "line."},
    {NULL, "topics", LIVENPS_KIND_LIST, AT(topics), "", 0, 0, "topic names: 1 to 249 of A-Z a-z 0-9 _ . -",
     check_topic, "The topics to read; the producer writes to the first."},
    {NULL, "mappings", LIVENPS_KIND_MAP, AT(mappings), "", 0, 0, "the path of a mapping file", check_mapping,
     "By topic, the file that says where a vendor's payload has the fields of an event. Topics without one hold events "
     "as in docs/events.md. Relative paths start at the configuration file's folder."},
    {NULL, "namespace", LIVENPS_KIND_TEXT, AT(namespace_), "default", 0, 0, name_form, check_namespace,
     "Which picture: names the keys in Redis, nps:{NAMESPACE}:..., and the consumer group. Instances of one namespace "
     "share the work."},
    {NULL, "instance", LIVENPS_KIND_TEXT, AT(instance), "", 0, 0, "nothing, or up to 64 of A-Z a-z 0-9 _ . -",
     check_instance,
     "A name makes this a static member of the group: after a restart it gets its partitions back without a rebalance. "
     "Each running instance needs a name of its own."},
    {NULL, "workers", LIVENPS_KIND_NUMBER, AT(workers), "1", 1, LIVENPS_WORKERS_MAX, NULL, NULL,
     "How many threads of this instance read, each as a member of the group with partitions of its own. More than cores, "
     "or than partitions, are of no use."},
    {NULL, "startup_timeout", LIVENPS_KIND_DURATION, AT(startup_timeout_ms), "30s", MS(100), HOUR, NULL, NULL,
     "How long to wait at the start for the broker, the topics and Redis. Afterwards the program waits for ever."},
    {NULL, "allow_compacted", LIVENPS_KIND_BOOL, AT(topics_allow_compacted), "false", 0, 0, NULL, NULL,
     "Start although a topic is compacted, which deletes answers that share a key."},

    {"Redis", "redis.url", LIVENPS_KIND_TEXT, AT(redis_url), "redis://127.0.0.1:6379", 0, 0,
     "redis://[USER@]HOST[:PORT][/DATABASE], rediss://... for TLS, unix:///PATH", check_url,
     "Where Redis is."},
    {NULL, "redis.username", LIVENPS_KIND_TEXT, AT(redis_username), "", 0, 0, "a name of Redis's ACL", NULL,
     "The user to authenticate as; may also stand in the URL."},
    {NULL, "redis.password_file", LIVENPS_KIND_PATH, AT(redis_password_file), "", 0, 0, "the path of a file",
     NULL,
     "A file whose first line is the password. LIVENPS_REDIS_PASSWORD in the environment is the other way."},
    {NULL, "redis.ca_file", LIVENPS_KIND_PATH, AT(redis_ca_file), "", 0, 0, "the path of a file", NULL,
     "Certificates (PEM) that rediss:// trusts; without it, those of the system."},
    {NULL, "redis.timeout", LIVENPS_KIND_DURATION, AT(redis_timeout_ms), "2s", MS(50), 5 * MINUTE, NULL, NULL,
     "The longest that one call may take before Redis counts as away."},
    {NULL, "redis.backoff_max", LIVENPS_KIND_DURATION, AT(redis_backoff_max_ms), "2s", MS(50), 5 * MINUTE,
     NULL, NULL, "The longest pause between attempts while Redis is away."},
    {NULL, "redis.allow_eviction", LIVENPS_KIND_BOOL, AT(redis_allow_eviction), "false", 0, 0, NULL, NULL,
     "Start although Redis's maxmemory-policy may delete keys, and with them counts."},

    {"Commit: one atomic script for positions and counts", "commit.interval", LIVENPS_KIND_DURATION,
     AT(commit_interval_ms), "100ms", MS(5), 10 * SECOND, NULL, NULL,
     "How often what is in hand goes to Redis: freshness against load."},
    {NULL, "commit.idle", LIVENPS_KIND_DURATION, AT(commit_idle_ms), "1s", MS(100), MINUTE, NULL, NULL,
     "How often an instance without events commits all the same, to say how far it has read."},
    {NULL, "commit.max_cells", LIVENPS_KIND_NUMBER, AT(commit_max_cells), "25000", 1, 1000000, NULL, NULL,
     "Commit early when that many different cells (dimensions and second) are in hand."},
    {NULL, "commit.log_max", LIVENPS_KIND_SIZE, AT(log_max_bytes), "256mb", 4 * KB, 1024 * GB,
     "0 for automatic", NULL,
     "How large the commit log may grow while no aggregator trims it; then reading pauses. 0: a quarter of Redis's "
     "maxmemory, 256mb without one."},
    {NULL, "commit.kafka", LIVENPS_KIND_BOOL, AT(kafka_commit), "true", 0, 0, NULL, NULL,
     "Also commit offsets to Kafka afterwards, only so that lag tools work. Positions come from Redis."},

    {"Which records are admitted (part of the admit hash)", "admit.max_bytes", LIVENPS_KIND_SIZE,
     AT(admit_max_bytes), "1mb", KB, 64 * MB, NULL, NULL, "The longest value of a record."},
    {NULL, "admit.late", LIVENPS_KIND_DURATION, AT(admit_late_ms), "7d", 0, 3650 * DAY, NULL, NULL,
     "An event older than its Kafka record timestamp by more counts as late and is left out."},
    {NULL, "admit.future", LIVENPS_KIND_DURATION, AT(admit_future_ms), "60s", 0, 7 * DAY, NULL, NULL,
     "An event newer than its Kafka record timestamp by more is rejected."},
    {NULL, "admit.touchpoints", LIVENPS_KIND_LIST, AT(admit_touchpoints), "", 0, 0, "names of touchpoints",
     check_touchpoint, "If any are named, events of others are rejected."},
    {NULL, "quarantine.suffix", LIVENPS_KIND_TEXT, AT(quarantine_suffix), ".quarantine", 0, 0, name_form,
     check_suffix, "Rejected records go, with the reason, to the topic of this name: TOPIC and the suffix."},

    {"What is computed", "windows", LIVENPS_KIND_LIST, AT(windows),
     "5m/1s,1h/10s,24h/2m,7d/30m,30d/2h,90d/6h", 0, 0, window_form, check_window,
     "The rolling windows, each with the step in which it moves."},
    {NULL, "rollups", LIVENPS_KIND_LIST, AT(rollups),
     "touchpoint,channel,segment,stage,touchpoint|channel,all", 0, 0, rollup_form, check_rollup,
     "What is scored: by touchpoint, by channel, by both together, all in one ..."},
    {NULL, "series_max", LIVENPS_KIND_NUMBER, AT(series_max), "10000", 1, 10000000, NULL, NULL,
     "The most series in one roll-up; further names are counted together as ~other."},
    {NULL, "minimum_n", LIVENPS_KIND_NUMBER, AT(minimum_n), "5", 1, 1000000, NULL, NULL,
     "Below that many answers no score is published."},
    {NULL, "reliable_n", LIVENPS_KIND_NUMBER, AT(reliable_n), "30", 1, 1000000000, NULL, NULL,
     "Below that many answers a score is marked unreliable."},
    {NULL, "change.q", LIVENPS_KIND_FRACTION, AT(fdr), "0.10", 1000, 500000, NULL, NULL,
     "Which share of the reported changes may be chance (false discovery rate, Benjamini-Hochberg)."},
    {NULL, "targets", LIVENPS_KIND_MAP, AT(targets), "", 0, 0, "an NPS from -100 to 100", check_target,
     "By touchpoint, the NPS it should have."},
    {NULL, "trends", LIVENPS_KIND_LIST, AT(trend_rollups), "all,touchpoint,channel,stage", 0, 0, rollup_form,
     check_rollup,
     "The roll-ups with trend streams; each must be in rollups. Not given: those of the default that are."},
    {NULL, "trend_wait", LIVENPS_KIND_DURATION, AT(trend_wait_ms), "60s", 0, DAY, NULL, NULL,
     "A trend point is written, flagged, when its events were not all read by then."},
    {NULL, "complete_lag", LIVENPS_KIND_DURATION, AT(complete_lag_ms), "5s", MS(100), HOUR, NULL, NULL,
     "Up to this lag the picture counts as complete."},

    {"The aggregator (one elected instance of a namespace)", "aggregate.tick", LIVENPS_KIND_DURATION,
     AT(tick_ms), "250ms", MS(20), 10 * SECOND, NULL, NULL, "How often changed views are published."},
    {NULL, "aggregate.lease", LIVENPS_KIND_DURATION, AT(lease_ms), "2s", MS(200), 5 * MINUTE, NULL, NULL,
     "How long after an aggregator's death another takes over. At least four ticks."},
    {NULL, "aggregate.snapshot", LIVENPS_KIND_DURATION, AT(snapshot_ms), "10s", MS(200), HOUR, NULL, NULL,
     "How often the state is saved and the commit log trimmed."},
    {NULL, "aggregate.view_ttl", LIVENPS_KIND_DURATION, AT(view_ttl_ms), "15m", SECOND, 30 * DAY, NULL, NULL,
     "How long views outlive the last aggregator."},

    {"Snapshots in Kafka, from which a wiped Redis is rebuilt", "snapshot.topic", LIVENPS_KIND_TEXT,
     AT(snapshot_topic), "", 0, 0, "nothing, a topic name, or none", check_snapshot_topic,
     "The compacted topic that the snapshots go to, of this namespace alone; made if it is missing. Not given: "
     "livenps.NAMESPACE.snapshots. none: they stay in Redis only."},
    {NULL, "snapshot.kafka_interval", LIVENPS_KIND_DURATION, AT(snapshot_kafka_ms), "60s", MS(200), DAY, NULL,
     NULL, "How often a snapshot goes there, when records came since the last one."},

    {"This program", "log_level", LIVENPS_KIND_CHOICE, AT(log_level), "info", 0, 0, "error|warn|info|debug",
     NULL, "What goes to stderr."},
    {NULL, "table.window", LIVENPS_KIND_TEXT, AT(table_window), "5m", 0, 0,
     "the name of a window, such as 5m", check_window_name,
     "The window that the live table shows. Not given: 5m if it is in windows, else the first."},
    {NULL, "board.listen", LIVENPS_KIND_TEXT, AT(board_listen), "127.0.0.1:8080", 0, 0,
     "an address and a port, such as 127.0.0.1:8080 or [::1]:8080", check_listen,
     "Where the board serves its page. Addresses that others can reach need a token."},
    {NULL, "board.token_file", LIVENPS_KIND_PATH, AT(board_token_file), "", 0, 0, "the path of a file", NULL,
     "A file whose first line is the token that the board asks for. LIVENPS_BOARD_TOKEN in the environment is the "
     "other way."},
    {NULL, "board.hosts", LIVENPS_KIND_LIST, AT(board_hosts), "", 0, 0, "names of hosts, without a port",
     check_host, "Names under which browsers may ask the board, besides localhost and addresses."},

    {"Metrics for Prometheus", "metrics.listen", LIVENPS_KIND_TEXT, AT(metrics_listen), "", 0, 0,
     "nothing, or an address and a port, such as 127.0.0.1:9464 or [::1]:9464", check_listen_or_none,
     "Where run, simulate and serve give /metrics, /healthz and /readyz; each process needs a port of its own. Addresses "
     "that others can reach need a token. Not given: nowhere."},
    {NULL, "metrics.token_file", LIVENPS_KIND_PATH, AT(metrics_token_file), "", 0, 0, "the path of a file",
     NULL,
     "A file whose first line is the token that /metrics asks for. LIVENPS_METRICS_TOKEN in the environment is the "
     "other way."},
    {NULL, "metrics.hosts", LIVENPS_KIND_LIST, AT(metrics_hosts), "", 0, 0, "names of hosts, without a port",
     check_host, "Names under which Prometheus may ask, besides localhost and addresses."},

    {"Events over HTTP (livenps-producer serve)", "serve.listen", LIVENPS_KIND_TEXT, AT(serve_listen),
     "127.0.0.1:8081", 0, 0, "an address and a port, such as 127.0.0.1:8081 or [::1]:8081", check_listen,
     "Where events are taken. Addresses that others can reach need a token."},
    {NULL, "serve.token_file", LIVENPS_KIND_PATH, AT(serve_token_file), "", 0, 0, "the path of a file", NULL,
     "A file whose first line is the token that publishers must send. LIVENPS_SERVE_TOKEN in the environment is the "
     "other way."},
    {NULL, "serve.hosts", LIVENPS_KIND_LIST, AT(serve_hosts), "", 0, 0, "names of hosts, without a port",
     check_host, "Names under which it may be asked, besides localhost and addresses."},
    {NULL, "serve.max_body", LIVENPS_KIND_SIZE, AT(serve_max_body), "4mb", KB, 64 * MB, NULL, NULL,
     "The longest request."},
    {NULL, "serve.max_waiting", LIVENPS_KIND_SIZE, AT(serve_max_waiting), "64mb", MB, 4 * GB, NULL, NULL,
     "How much may be in memory of requests that are being read, and again of events that the broker has not "
     "acknowledged. Beyond that: 429."},
    {NULL, "serve.ack_timeout", LIVENPS_KIND_DURATION, AT(serve_ack_timeout_ms), "10s", MS(100), 5 * MINUTE,
     NULL, NULL, "How long a request waits for the broker's acknowledgement. Then: 503."},
    {NULL, "webhooks", LIVENPS_KIND_MAP, AT(webhooks), "", 0, 0, "the path of a file", check_mapping,
     "By topic, a file whose first line is the secret that its vendor signs webhooks with; serve then takes them at "
     "/webhooks/TOPIC. The topic needs a mapping file with a signature. Relative paths start at the configuration "
     "file's folder."},
};

enum { TABLE_SIZE = sizeof table / sizeof table[0] };

const livenps_setting *livenps_settings_table(size_t *count) {
  *count = TABLE_SIZE;
  return table;
}

static const livenps_setting *by_path(const char *path) {
  for (size_t i = 0; i < TABLE_SIZE; i++) {
    if (strcmp(table[i].path, path) == 0) {
      return &table[i];
    }
  }
  return NULL;
}

const livenps_setting *livenps_settings_find(const char *path, const char **key) {
  *key = NULL;
  for (size_t i = 0; i < TABLE_SIZE; i++) {
    size_t length = strlen(table[i].path);
    if (strncmp(path, table[i].path, length) != 0) {
      continue;
    }
    if (path[length] == '\0') {
      return &table[i];
    }
    if (path[length] == '.' && path[length + 1] != '\0' && table[i].kind == LIVENPS_KIND_MAP) {
      *key = path + length + 1;
      return &table[i];
    }
  }
  return NULL;
}

bool livenps_settings_is_group(const char *path) {
  size_t length = strlen(path);
  for (size_t i = 0; i < TABLE_SIZE; i++) {
    if (strncmp(table[i].path, path, length) == 0 && table[i].path[length] == '.') {
      return true;
    }
  }
  return false;
}

/* Levenshtein's distance with swapped neighbours as one step; names longer than the row are never near. */
static size_t distance(const char *a, const char *b) {
  enum { LONGEST = 80 };
  size_t rows[3][LONGEST + 1], length = strlen(b);
  if (length > LONGEST || strlen(a) > LONGEST) {
    return SIZE_MAX;
  }
  size_t *before = rows[0], *last = rows[1], *next = rows[2];
  for (size_t j = 0; j <= length; j++) {
    before[j] = last[j] = j;
  }
  for (size_t i = 1; a[i - 1]; i++) {
    next[0] = i;
    for (size_t j = 1; j <= length; j++) {
      size_t best = last[j - 1] + (a[i - 1] != b[j - 1]);
      best = last[j] + 1 < best ? last[j] + 1 : best;
      best = next[j - 1] + 1 < best ? next[j - 1] + 1 : best;
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best) {
        best = before[j - 2] + 1;
      }
      next[j] = best;
    }
    size_t *oldest = before;
    before = last;
    last = next;
    next = oldest;
  }
  return last[length];
}

static const char *last_part(const char *path) {
  const char *dot = strrchr(path, '.');
  return dot ? dot + 1 : path;
}

const char *livenps_settings_nearest(const char *path, char *out, size_t size) {
  const char *best = NULL;
  size_t best_distance = strlen(path) / 3 + 1;
  out[0] = '\0';
  if (strstr(path, "password")) {
    snprintf(out, size,
             "; a password is read from the file redis.password_file or from LIVENPS_REDIS_PASSWORD");
    return out;
  }
  for (size_t i = 0; i < TABLE_SIZE; i++) {
    /* Near as a whole (minimun_n), or the right name in the wrong group (aggregate.minimum_n, log_max). */
    size_t whole = distance(path, table[i].path), nearer = whole;
    size_t part = distance(last_part(path), last_part(table[i].path));
    if (part <= strlen(last_part(path)) / 4 && part + 1 < whole) {
      nearer = part + 1;
    }
    if (nearer < best_distance || (nearer == best_distance && !best && nearer < strlen(path))) {
      best = table[i].path;
      best_distance = nearer;
    }
  }
  const char *dot = strchr(path, '.');
  size_t group = dot ? (size_t)(dot + 1 - path) : 0, used = 0;
  if (best) {
    snprintf(out, size, "; did you mean %s?", best);
    return out;
  }
  for (size_t i = 0; group > 0 && i < TABLE_SIZE; i++) {
    if (strncmp(table[i].path, path, group) == 0 && used < size) {
      int more = snprintf(out + used, size - used, "%s%s", used ? ", " : "; there are ", table[i].path);
      used += more > 0 ? (size_t)more : 0;
    }
  }
  if (group > 0 && used == 0) {
    snprintf(out, size, "; if librdkafka knows it, it is a setting below kafka:");
  }
  return out;
}

bool livenps_settings_is_secret(const char *path) {
  static const char *const exact[] = {"kafka.sasl.oauthbearer.config", "kafka.sasl.oauthbearer.client.secret",
                                      "kafka.ssl.key.pem", "kafka.ssl.certificate.pem", "kafka.ssl.ca.pem"};
  for (size_t i = 0; i < sizeof exact / sizeof exact[0]; i++) {
    if (strcmp(path, exact[i]) == 0) {
      return true;
    }
  }
  return (strncmp(path, "kafka.", 6) == 0 && (strstr(path, "password") || strstr(path, "secret")));
}

/* ---- values out of text ---- */

static void *field(livenps_settings *settings, const livenps_setting *setting) {
  return (char *)settings + setting->offset;
}

static const void *read_field(const livenps_settings *settings, const livenps_setting *setting) {
  return (const char *)settings + setting->offset;
}

static const struct {
  char name[3];
  int64_t bytes;
} size_units[] = {{"gb", GB}, {"mb", MB}, {"kb", KB}, {"b", 1}};

static int parse_digits(const char *text, size_t length, int64_t *value) {
  int64_t result = 0;
  for (size_t i = 0; i < length; i++) {
    if (!isdigit((unsigned char)text[i]) || __builtin_mul_overflow(result, (int64_t)10, &result) ||
        __builtin_add_overflow(result, (int64_t)(text[i] - '0'), &result)) {
      return -1;
    }
  }
  *value = result;
  return length ? 0 : -1;
}

static int parse_size(const char *text, int64_t *bytes) {
  size_t digits = strspn(text, "0123456789");
  if (parse_digits(text, digits, bytes) != 0) {
    return -1;
  }
  if (text[digits] == '\0') {
    return *bytes == 0 ? 0 : -1; /* nobody knows what 64 is; 0 is 0 in every unit */
  }
  for (size_t i = 0; i < sizeof size_units / sizeof size_units[0]; i++) {
    if (strcasecmp(text + digits, size_units[i].name) == 0) {
      return __builtin_mul_overflow(*bytes, size_units[i].bytes, bytes) ? -1 : 0;
    }
  }
  return -1;
}

static void print_size(livenps_buffer *out, int64_t bytes) {
  size_t i = 0;
  while (bytes % size_units[i].bytes != 0) {
    i++;
  }
  if (bytes == 0) {
    livenps_buffer_print(out, "0");
  } else {
    livenps_buffer_print(out, "%lld%.2s", (long long)(bytes / size_units[i].bytes), size_units[i].name);
  }
}

void livenps_settings_allowed(const livenps_setting *setting, livenps_buffer *out) {
  char low[32], high[32];
  switch (setting->kind) {
  case LIVENPS_KIND_BOOL: livenps_buffer_print(out, "true or false"); break;
  case LIVENPS_KIND_NUMBER:
    livenps_buffer_print(out, "a whole number from %lld to %lld", (long long)setting->low,
                         (long long)setting->high);
    break;
  case LIVENPS_KIND_FRACTION:
    livenps_buffer_print(out, "a number from %g to %g", (double)setting->low / 1e6,
                         (double)setting->high / 1e6);
    break;
  case LIVENPS_KIND_DURATION:
    livenps_buffer_print(out, "a duration from %s to %s", livenps_duration_print(setting->low, low),
                         livenps_duration_print(setting->high, high));
    break;
  case LIVENPS_KIND_SIZE:
    livenps_buffer_print(out, "a size from ");
    print_size(out, setting->low);
    livenps_buffer_print(out, " to ");
    print_size(out, setting->high);
    if (setting->allowed) {
      livenps_buffer_print(out, ", or %s", setting->allowed);
    }
    break;
  case LIVENPS_KIND_CHOICE:
    for (const char *at = setting->allowed; *at;) {
      size_t length = strcspn(at, "|");
      livenps_buffer_print(out, "%.*s", (int)length, at);
      at += length;
      if (*at == '|') {
        at++;
        livenps_buffer_print(out, strchr(at, '|') ? ", " : " or ");
      }
    }
    break;
  case LIVENPS_KIND_TEXT:
  case LIVENPS_KIND_PATH:
  case LIVENPS_KIND_LIST:
  case LIVENPS_KIND_MAP: livenps_buffer_print(out, "%s", setting->allowed); break;
  }
}

/* "what; allowed: ...". */
__attribute__((format(printf, 3, 4))) static int refuse(livenps_error *error, const livenps_setting *setting,
                                                        const char *format, ...) {
  char what[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(what, sizeof what, format, arguments);
  va_end(arguments);
  livenps_buffer allowed = {0};
  livenps_settings_allowed(setting, &allowed);
  livenps_fail(error, LIVENPS_E_USAGE, "%s; allowed: %.*s", what, (int)allowed.length, allowed.at);
  livenps_buffer_free(&allowed);
  return -1;
}

/* Values reach terminals, Redis keys and a YAML dump: valid UTF-8 without control characters is what all of them carry. */
static int check_readable(const livenps_setting *setting, const char *value, livenps_error *error) {
  const char *at = value, *end = value + strlen(value);
  while (at < end) {
    uint32_t point;
    size_t length = livenps_utf8(at, end, &point);
    if (length == 0) {
      return refuse(error, setting, "is not valid UTF-8 text");
    }
    bool line = point == '\n' && setting->offset == AT(kafka); /* PEM texts have lines */
    if ((point < 0x20 && !line) || (point >= 0x7f && point < 0xa0)) {
      return refuse(error, setting, "has a control character");
    }
    at += length;
  }
  return 0;
}

static int check_value(const livenps_setting *setting, const char *value, livenps_error *error) {
  livenps_error found = {0};
  if (check_readable(setting, value, error) != 0) {
    return -1;
  }
  if (setting->check && setting->check(value, &found) != 0) {
    return refuse(error, setting, "%s", found.text);
  }
  return 0;
}

static int parse_scalar(livenps_settings *settings, const livenps_setting *setting, const char *value,
                        livenps_error *error) {
  char shown[64];
  livenps_printable(shown, sizeof shown, value, strlen(value));
  if (setting->kind == LIVENPS_KIND_BOOL) {
    bool yes = strcmp(value, "true") == 0;
    if (!yes && strcmp(value, "false") != 0) {
      return refuse(error, setting, "'%s' is not one of the two", shown);
    }
    *(bool *)field(settings, setting) = yes;
    return 0;
  }
  if (setting->kind == LIVENPS_KIND_FRACTION) {
    double number;
    if (parse_fraction(value, &number) != 0) {
      return refuse(error, setting, "'%s' is no number", shown);
    }
    if (number < (double)setting->low / 1e6 || number > (double)setting->high / 1e6) {
      return refuse(error, setting, "%s is out of range", shown);
    }
    *(double *)field(settings, setting) = number;
    return 0;
  }
  int64_t number;
  if (setting->kind == LIVENPS_KIND_DURATION) {
    if (livenps_duration_parse(value, &number) != 0) {
      return refuse(error, setting, "'%s' is no duration such as 100ms, 5s, 2m, 1h, 7d", shown);
    }
  } else if (setting->kind == LIVENPS_KIND_SIZE) {
    if (parse_size(value, &number) != 0) {
      return refuse(error, setting, "'%s' is no size such as 512b, 64kb, 256mb, 1gb", shown);
    }
  } else if (parse_digits(value, strlen(value), &number) != 0) {
    return refuse(error, setting, "'%s' is no whole number", shown);
  }
  bool automatic = setting->kind == LIVENPS_KIND_SIZE && setting->allowed && number == 0;
  if (!automatic && (number < setting->low || number > setting->high)) {
    return refuse(error, setting, "%s is out of range", shown);
  }
  *(int64_t *)field(settings, setting) = number;
  return 0;
}

static void set_text(char **slot, const char *value) {
  char *copy = livenps_copy(value, strlen(value));
  free(*slot);
  *slot = copy;
}

/* Relative paths get their folder at once: later nobody knows which file named them, or from where. */
static char *absolute(const char *path, const char *folder) {
  livenps_buffer full = {0};
  char *here = NULL;
  if (path[0] != '/' && path[0] != '\0') {
    if (!folder || folder[0] != '/') {
      here = getcwd(NULL, 0);
      livenps_buffer_print(&full, "%s/", here ? here : ".");
    }
    if (folder && strcmp(folder, ".") != 0) {
      livenps_buffer_print(&full, "%s/", folder);
    }
  }
  livenps_buffer_print(&full, "%s", path);
  char *result = livenps_copy(full.at ? full.at : "", full.length);
  free(here);
  livenps_buffer_free(&full);
  return result;
}

static void set_pair(livenps_pairs *pairs, const char *name, const char *value) {
  for (size_t i = 0; i < pairs->count; i++) {
    if (strcmp(pairs->at[i].name, name) == 0) {
      set_text(&pairs->at[i].value, value);
      return;
    }
  }
  pairs->at = livenps_resize(pairs->at, (pairs->count + 1) * sizeof *pairs->at);
  pairs->at[pairs->count++] =
      (livenps_pair){livenps_copy(name, strlen(name)), livenps_copy(value, strlen(value))};
}

/* Maps by topic, whose values are paths. */
static bool is_of_topics(const livenps_setting *setting) {
  return setting->offset == AT(mappings) || setting->offset == AT(webhooks);
}

static int assign_pair(livenps_settings *settings, const livenps_setting *setting, const char *name,
                       const char *value, const char *folder, livenps_error *error) {
  livenps_error found = {0};
  if (check_readable(setting, name, error) != 0 || check_value(setting, value, error) != 0) {
    return -1;
  }
  if (setting->offset == AT(targets) ? check_touchpoint(name, &found) != 0
                                     : is_of_topics(setting) && check_topic(name, &found) != 0) {
    return livenps_fail(error, LIVENPS_E_USAGE, "%s", found.text);
  }
  livenps_pairs *pairs = field(settings, setting);
  if (is_of_topics(setting)) {
    char *path = absolute(value, folder);
    set_pair(pairs, name, path);
    free(path);
  } else {
    set_pair(pairs, name, value);
  }
  return 0;
}

static bool list_has(const livenps_list *list, const char *item) {
  for (size_t i = 0; i < list->count; i++) {
    if (strcmp(list->at[i], item) == 0) {
      return true;
    }
  }
  return false;
}

static void list_clear(livenps_list *list) {
  for (size_t i = 0; i < list->count; i++) {
    free(list->at[i]);
  }
  free(list->at);
  *list = (livenps_list){0};
}

static void list_add(livenps_list *list, const char *item, size_t length) {
  list->at = livenps_resize(list->at, (list->count + 1) * sizeof *list->at);
  list->at[list->count++] = livenps_copy(item, length);
}

void livenps_settings_list_clear(livenps_settings *settings, const livenps_setting *setting) {
  list_clear(field(settings, setting));
}

int livenps_settings_list_add(livenps_settings *settings, const livenps_setting *setting, const char *item,
                              livenps_error *error) {
  enum { MOST_ITEMS = 10000 };
  livenps_list *list = field(settings, setting);
  if (check_value(setting, item, error) != 0) {
    return -1;
  }
  if (list_has(list, item)) {
    char shown[128];
    return livenps_fail(error, LIVENPS_E_USAGE, "names '%s' twice",
                        livenps_printable(shown, sizeof shown, item, strlen(item)));
  }
  if (list->count == MOST_ITEMS) {
    return livenps_fail(error, LIVENPS_E_USAGE, "has more than %d items", MOST_ITEMS);
  }
  list_add(list, item, strlen(item));
  return 0;
}

/* Calls add for each comma-separated piece without the spaces around it. An empty text has no pieces. */
static int each_piece(const char *value, int (*add)(void *opaque, const char *piece), void *opaque,
                      livenps_error *error) {
  if (value[strspn(value, " ")] == '\0') {
    return 0;
  }
  for (const char *at = value;; at++) {
    at += strspn(at, " ");
    const char *comma = strchr(at, ',');
    size_t length = comma ? (size_t)(comma - at) : strlen(at);
    const char *next = at + length;
    while (length > 0 && at[length - 1] == ' ') {
      length--;
    }
    if (length == 0) {
      return livenps_fail(error, LIVENPS_E_USAGE, "has nothing between two commas");
    }
    char *piece = livenps_copy(at, length);
    int result = add(opaque, piece);
    free(piece);
    if (result != 0 || *next == '\0') {
      return result;
    }
    at = next;
  }
}

typedef struct {
  livenps_settings *settings;
  const livenps_setting *setting;
  const char *folder;
  livenps_error *error;
} target_of_pieces;

static int add_list_piece(void *opaque, const char *piece) {
  target_of_pieces *to = opaque;
  return livenps_settings_list_add(to->settings, to->setting, piece, to->error);
}

static int add_map_piece(void *opaque, const char *piece) {
  target_of_pieces *to = opaque;
  const char *equals = strrchr(piece, '=');
  if (!equals || equals == piece) {
    return livenps_fail(to->error, LIVENPS_E_USAGE, "is not NAME=VALUE,NAME=VALUE...");
  }
  char *name = livenps_copy(piece, (size_t)(equals - piece));
  int result = assign_pair(to->settings, to->setting, name, equals + 1, to->folder, to->error);
  free(name);
  return result;
}

/* Defaults that follow another setting as long as nobody gave them: the trends and the table's window of the windows and
 * roll-ups that there are. */
void livenps_settings_given(livenps_settings *settings, const livenps_setting *changed) {
  if (changed->offset == AT(trend_rollups)) {
    settings->trends_given = true;
  } else if (changed->offset == AT(table_window)) {
    settings->table_window_given = true;
  } else if (changed->offset == AT(rollups) && !settings->trends_given) {
    static const char *const usual[] = {"all", "touchpoint", "channel", "stage"};
    list_clear(&settings->trend_rollups);
    for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++) {
      if (list_has(&settings->rollups, usual[i])) {
        list_add(&settings->trend_rollups, usual[i], strlen(usual[i]));
      }
    }
  } else if (changed->offset == AT(windows) && !settings->table_window_given) {
    bool has_default = false;
    for (size_t i = 0; i < settings->windows.count; i++) {
      has_default = has_default || strncmp(settings->windows.at[i], "5m/", 3) == 0;
    }
    if (has_default || settings->windows.count == 0) {
      set_text(&settings->table_window, "5m");
    } else {
      const char *first = settings->windows.at[0];
      char *name = livenps_copy(first, strcspn(first, "/"));
      set_text(&settings->table_window, name);
      free(name);
    }
  }
}

int livenps_settings_assign(livenps_settings *settings, const livenps_setting *setting, const char *key,
                            const char *value, const char *folder, livenps_error *error) {
  target_of_pieces to = {settings, setting, folder, error};
  int result = 0;
  switch (setting->kind) {
  case LIVENPS_KIND_TEXT:
    if ((result = check_value(setting, value, error)) == 0) {
      set_text(field(settings, setting), value);
    }
    break;
  case LIVENPS_KIND_PATH:
    if ((result = check_value(setting, value, error)) == 0) {
      char **slot = field(settings, setting);
      free(*slot);
      *slot = absolute(value, folder);
    }
    break;
  case LIVENPS_KIND_CHOICE: {
    size_t length = strlen(value);
    const char *at = setting->allowed;
    while (strncmp(at, value, length) != 0 || (at[length] != '|' && at[length] != '\0') || length == 0) {
      const char *bar = strchr(at, '|');
      if (!bar) {
        char shown[64];
        return refuse(error, setting, "'%s' is none of them",
                      livenps_printable(shown, sizeof shown, value, length));
      }
      at = bar + 1;
    }
    set_text(field(settings, setting), value);
    break;
  }
  case LIVENPS_KIND_BOOL:
  case LIVENPS_KIND_NUMBER:
  case LIVENPS_KIND_FRACTION:
  case LIVENPS_KIND_DURATION:
  case LIVENPS_KIND_SIZE: result = parse_scalar(settings, setting, value, error); break;
  case LIVENPS_KIND_LIST:
    livenps_settings_list_clear(settings, setting);
    result = each_piece(value, add_list_piece, &to, error);
    break;
  case LIVENPS_KIND_MAP:
    if (key) {
      result = assign_pair(settings, setting, key, value, folder, error);
    } else if (setting->offset == AT(kafka)) {
      /* Values of librdkafka have commas of their own. */
      result = livenps_fail(error, LIVENPS_E_USAGE, "needs the name of a property: kafka.NAME");
    } else {
      result = each_piece(value, add_map_piece, &to, error);
    }
    break;
  }
  if (result == 0) {
    livenps_settings_given(settings, setting);
  }
  return result;
}

/* ---- windows and roll-ups ---- */

/* A whole number above 0 and one of s, m, h, d. */
static int parse_length(const char *text, size_t length, int64_t *ms) {
  char copy[16];
  if (length < 2 || length >= sizeof copy || !isdigit((unsigned char)text[length - 2]) ||
      !strchr("smhd", text[length - 1])) {
    return -1;
  }
  memcpy(copy, text, length);
  copy[length] = '\0';
  return livenps_duration_parse(copy, ms) == 0 && *ms > 0 ? 0 : -1;
}

int livenps_window_parse(const char *text, livenps_window *window, livenps_error *error) {
  enum { MOST_SLICES = 86400 };
  char shown[64];
  livenps_printable(shown, sizeof shown, text, strlen(text));
  size_t name_length = strcspn(text, "/");
  livenps_window result = {0};
  if (!isdigit((unsigned char)text[0]) || parse_length(text, name_length, &result.length_ms) != 0) {
    return livenps_fail(error, LIVENPS_E_USAGE, "window '%s' does not begin with a length such as 5m or 24h",
                        shown);
  }
  if (text[name_length] != '/') {
    return livenps_fail(error, LIVENPS_E_USAGE, "window '%s' has no slice (%s/SLICE)", shown, shown);
  }
  const char *slice = text + name_length + 1;
  if (parse_length(slice, strlen(slice), &result.slice_ms) != 0) {
    return livenps_fail(error, LIVENPS_E_USAGE, "window '%s' does not end with a slice such as 1s or 2m",
                        shown);
  }
  if (result.length_ms > 400 * DAY) {
    return livenps_fail(error, LIVENPS_E_USAGE, "window '%s' is longer than 400d", shown);
  }
  if (result.slice_ms > result.length_ms / 300) {
    char most[32];
    return livenps_fail(error, LIVENPS_E_USAGE,
                        "window '%s': the slice is longer than 1/300 of the window (%s)", shown,
                        result.length_ms / 300 < SECOND
                            ? "at least 5m are needed, for slices are at least 1s"
                            : livenps_duration_print(result.length_ms / 300 / SECOND * SECOND, most));
  }
  if (result.length_ms % result.slice_ms != 0) {
    return livenps_fail(error, LIVENPS_E_USAGE, "window '%s': the slice does not divide the window", shown);
  }
  if (result.length_ms / result.slice_ms > MOST_SLICES) {
    return livenps_fail(error, LIVENPS_E_USAGE, "window '%s' has more than %d slices", shown, MOST_SLICES);
  }
  memcpy(result.name, text, name_length);
  *window = result;
  return 0;
}

int livenps_rollup_parse(const char *text, livenps_rollup *rollup, livenps_error *error) {
  livenps_rollup result = {0};
  char shown[128];
  livenps_printable(shown, sizeof shown, text, strlen(text));
  if (strlen(text) >= sizeof result.name) {
    return livenps_fail(error, LIVENPS_E_USAGE, "roll-up '%s' is too long", shown);
  }
  strcpy(result.name, text);
  if (strcmp(text, "all") == 0) {
    *rollup = result;
    return 0;
  }
  for (const char *at = text;; at++) {
    size_t length = strcspn(at, "|");
    int dimension = 0;
    while (dimension < LIVENPS_DIMENSIONS && (strncmp(at, livenps_dimension_names[dimension], length) != 0 ||
                                              livenps_dimension_names[dimension][length] != '\0')) {
      dimension++;
    }
    if (dimension == LIVENPS_DIMENSIONS) {
      return livenps_fail(error, LIVENPS_E_USAGE, "roll-up '%s' has an unknown dimension", shown);
    }
    for (int i = 0; i < result.count; i++) {
      if (result.dimensions[i] == dimension) {
        return livenps_fail(error, LIVENPS_E_USAGE, "roll-up '%s' has a dimension twice", shown);
      }
    }
    result.dimensions[result.count++] = dimension;
    at += length;
    if (*at == '\0') {
      *rollup = result;
      return 0;
    }
  }
}

/* ---- the whole ---- */

void livenps_settings_default(livenps_settings *settings) {
  livenps_error error = {0};
  memset(settings, 0, sizeof *settings);
  for (size_t i = 0; i < TABLE_SIZE; i++) {
    const livenps_setting *setting = &table[i];
    if (setting->fallback[0] == '\0' && setting->kind <= LIVENPS_KIND_PATH) {
      set_text(field(settings, setting), ""); /* nothing is a default that the check need not allow */
    } else if (setting->fallback[0] != '\0' &&
               livenps_settings_assign(settings, setting, NULL, setting->fallback, NULL, &error) != 0) {
      fprintf(stderr, "livenps: default of %s: %s\n", setting->path, error.text);
      abort(); /* the table contradicts itself */
    }
  }
  settings->trends_given = settings->table_window_given = false;
}

void livenps_settings_free(livenps_settings *settings) {
  if (!settings) {
    return;
  }
  for (size_t i = 0; i < TABLE_SIZE; i++) {
    const livenps_setting *setting = &table[i];
    void *at = field(settings, setting);
    switch (setting->kind) {
    case LIVENPS_KIND_TEXT:
    case LIVENPS_KIND_PATH:
    case LIVENPS_KIND_CHOICE: free(*(char **)at); break;
    case LIVENPS_KIND_LIST: list_clear(at); break;
    case LIVENPS_KIND_MAP: {
      livenps_pairs *pairs = at;
      for (size_t j = 0; j < pairs->count; j++) {
        free(pairs->at[j].name);
        free(pairs->at[j].value);
      }
      free(pairs->at);
      break;
    }
    case LIVENPS_KIND_BOOL:
    case LIVENPS_KIND_NUMBER:
    case LIVENPS_KIND_FRACTION:
    case LIVENPS_KIND_DURATION:
    case LIVENPS_KIND_SIZE: break;
    }
  }
  memset(settings, 0, sizeof *settings);
}

/* Does the text hold SCHEME://USER:PASSWORD@ or SCHEME://:PASSWORD@? Then *at and *length are the password. */
static bool password_in_url(const char *text, const char **at, size_t *length) {
  const char *authority = strstr(text, "://");
  if (!authority) {
    return false;
  }
  authority += 3;
  size_t end = strcspn(authority, "/?#");
  const char *sign = memrchr(authority, '@', end);
  if (!sign && authority[end]) {
    sign = strrchr(authority, '@'); /* a password with an unescaped slash is a password all the same */
  }
  const char *colon = sign ? memchr(authority, ':', (size_t)(sign - authority)) : NULL;
  if (!colon) {
    return false;
  }
  *at = colon + 1;
  *length = (size_t)(sign - colon - 1);
  return true;
}

int livenps_settings_set(livenps_settings *settings, const char *assignment, livenps_error *error) {
  const char *equals = strchr(assignment, '='), *key, *password;
  char shown[128], hint[256];
  size_t length;
  if (!equals || equals == assignment) {
    livenps_printable(shown, sizeof shown, assignment, strlen(assignment));
    return livenps_fail(error, LIVENPS_E_USAGE, "--set %s: is not NAME=VALUE", shown);
  }
  char *path = livenps_copy(assignment, (size_t)(equals - assignment));
  livenps_printable(shown, sizeof shown, path, strlen(path));
  const livenps_setting *setting = livenps_settings_find(path, &key);
  int result = -1;
  if (!setting) {
    livenps_fail(error, LIVENPS_E_USAGE, "--set %s: unknown setting%s", shown,
                 livenps_settings_is_group(path) ? "; it is the name of a group: GROUP.NAME=VALUE"
                                                 : livenps_settings_nearest(path, hint, sizeof hint));
  } else if (livenps_settings_is_secret(path) || password_in_url(equals + 1, &password, &length)) {
    livenps_fail(error, LIVENPS_E_USAGE,
                 "--set %s: a secret on a command line can be read by everyone on this machine; %s", shown,
                 setting->offset == AT(kafka) ? "give it in the configuration file or the environment"
                                              : "use redis.password_file or LIVENPS_REDIS_PASSWORD");
  } else {
    livenps_error found = {0};
    result = livenps_settings_assign(settings, setting, key, equals + 1, NULL, &found);
    if (result != 0) {
      livenps_fail(error, found.code, "--set %s: %s", shown, found.text);
    }
  }
  free(path);
  return result;
}

/* "commit.log_max" -> "LIVENPS_COMMIT_LOG_MAX" */
static void environment_name(const char *path, char *out, size_t size) {
  size_t used = (size_t)snprintf(out, size, "LIVENPS_");
  for (; *path && used + 1 < size; path++) {
    out[used++] = *path == '.' ? '_' : (char)toupper((unsigned char)*path);
  }
  out[used] = '\0';
}

static int set_from_environment(livenps_settings *settings, const char *name, const char *value,
                                livenps_error *error) {
  static const char *const others[] = {
      "LIVENPS_REDIS_PASSWORD", "LIVENPS_BOARD_TOKEN", "LIVENPS_METRICS_TOKEN", "LIVENPS_SERVE_TOKEN",
      "LIVENPS_VECTORS",        "LIVENPS_CACHE",       "LIVENPS_CONFIG"};
  static const char kafka[] = "LIVENPS_KAFKA_";
  char known[96], best[96] = "", shown[128];
  size_t best_distance = strlen(name) / 4;
  livenps_error found = {0};
  for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
    if (strcmp(name, others[i]) == 0) {
      return 0;
    }
    size_t far = distance(name, others[i]);
    if (far < best_distance) {
      best_distance = far;
      snprintf(best, sizeof best, "%s", others[i]);
    }
  }
  for (size_t i = 0; i < TABLE_SIZE; i++) {
    environment_name(table[i].path, known, sizeof known);
    if (strcmp(name, known) == 0) {
      if (livenps_settings_assign(settings, &table[i], NULL, value, NULL, &found) != 0) {
        return livenps_fail(error, found.code, "%s in the environment: %s: %s", name, table[i].path,
                            found.text);
      }
      return 0;
    }
    size_t far = distance(name, known);
    if (far < best_distance) {
      best_distance = far;
      memcpy(best, known, sizeof best);
    }
  }
  if (strncmp(name, kafka, sizeof kafka - 1) == 0 && name[sizeof kafka - 1] != '\0') {
    char property[128];
    size_t used = 0;
    for (const char *at = name + sizeof kafka - 1; *at && used + 1 < sizeof property; at++) {
      property[used++] = *at == '_' ? '.' : (char)tolower((unsigned char)*at);
    }
    property[used] = '\0';
    if (livenps_settings_assign(settings, by_path("kafka"), property, value, NULL, &found) != 0) {
      return livenps_fail(error, found.code, "%s in the environment: kafka.%s: %s", name, property,
                          found.text);
    }
    return 0;
  }
  livenps_printable(shown, sizeof shown, name, strlen(name));
  return livenps_fail(error, LIVENPS_E_USAGE, "%s in the environment: unknown setting%s%s%s", shown,
                      best[0] ? "; did you mean " : "; unset it", best, best[0] ? "?" : "");
}

int livenps_settings_environment(livenps_settings *settings, char **environment, livenps_error *error) {
  for (; *environment; environment++) {
    const char *equals = strchr(*environment, '=');
    if (strncmp(*environment, "LIVENPS_", 8) != 0 || !equals) {
      continue;
    }
    char *name = livenps_copy(*environment, (size_t)(equals - *environment));
    int result = set_from_environment(settings, name, equals + 1, error);
    free(name);
    if (result != 0) {
      return -1;
    }
  }
  return 0;
}

static int check_windows(const livenps_settings *settings, livenps_error *error) {
  enum { MOST_WINDOWS = 16 };
  const livenps_list *list = &settings->windows;
  if (list->count < 1 || list->count > MOST_WINDOWS) {
    return livenps_fail(error, LIVENPS_E_USAGE, "windows: there are %zu; allowed: 1 to %d", list->count,
                        MOST_WINDOWS);
  }
  for (size_t i = 0; i < list->count; i++) {
    livenps_window one = {0}, other = {0};
    if (livenps_window_parse(list->at[i], &one, error) != 0) {
      return livenps_fail_prefix(error, "windows");
    }
    for (size_t j = 0; j < i; j++) {
      if (livenps_window_parse(list->at[j], &other, error) == 0 && one.length_ms == other.length_ms) {
        return livenps_fail(error, LIVENPS_E_USAGE, "windows: %s and %s have the same length; leave one out",
                            list->at[j], list->at[i]);
      }
    }
  }
  return 0;
}

static int check_rollups(const livenps_settings *settings, livenps_error *error) {
  enum { MOST_ROLLUPS = 32 };
  const livenps_list *list = &settings->rollups;
  livenps_rollup rollup;
  if (list->count < 1 || list->count > MOST_ROLLUPS) {
    return livenps_fail(error, LIVENPS_E_USAGE, "rollups: there are %zu; allowed: 1 to %d", list->count,
                        MOST_ROLLUPS);
  }
  for (size_t i = 0; i < list->count; i++) {
    if (livenps_rollup_parse(list->at[i], &rollup, error) != 0) {
      return livenps_fail_prefix(error, "rollups");
    }
  }
  for (size_t i = 0; i < settings->trend_rollups.count; i++) {
    if (!list_has(list, settings->trend_rollups.at[i])) {
      return livenps_fail(error, LIVENPS_E_USAGE,
                          "trends: %s is not in rollups; add it there or leave it out here",
                          settings->trend_rollups.at[i]);
    }
  }
  return 0;
}

static int check_topics(const livenps_settings *settings, const livenps_pairs *pairs, const char *name,
                        livenps_error *error) {
  for (size_t i = 0; i < pairs->count; i++) {
    if (settings->topics.count > 0 && !list_has(&settings->topics, pairs->at[i].name)) {
      return livenps_fail(error, LIVENPS_E_USAGE, "%s.%s: there is no such topic in topics", name,
                          pairs->at[i].name);
    }
  }
  return 0;
}

int livenps_settings_check(const livenps_settings *settings, livenps_error *error) {
  char one[32], two[32];
  if (check_windows(settings, error) != 0 || check_rollups(settings, error) != 0) {
    return -1;
  }
  if (settings->commit_idle_ms < settings->commit_interval_ms) {
    return livenps_fail(error, LIVENPS_E_USAGE, "commit.idle: %s is shorter than commit.interval, %s",
                        livenps_duration_print(settings->commit_idle_ms, one),
                        livenps_duration_print(settings->commit_interval_ms, two));
  }
  if (settings->commit_idle_ms >= settings->complete_lag_ms) {
    return livenps_fail(
        error, LIVENPS_E_USAGE,
        "complete_lag: %s is not longer than commit.idle, %s: a quiet topic would never be complete",
        livenps_duration_print(settings->complete_lag_ms, one),
        livenps_duration_print(settings->commit_idle_ms, two));
  }
  if (settings->lease_ms < 4 * settings->tick_ms) {
    return livenps_fail(
        error, LIVENPS_E_USAGE,
        "aggregate.lease: %s is shorter than four times aggregate.tick, %s: it would be lost by chance",
        livenps_duration_print(settings->lease_ms, one), livenps_duration_print(settings->tick_ms, two));
  }
  if (settings->log_max_bytes != 0 && settings->log_max_bytes < 2 * settings->commit_max_cells) {
    livenps_buffer size = {0};
    print_size(&size, settings->log_max_bytes);
    livenps_fail(
        error, LIVENPS_E_USAGE,
        "commit.log_max: %.*s may not hold one commit of commit.max_cells, %lld; raise it or lower that",
        (int)size.length, size.at, (long long)settings->commit_max_cells);
    livenps_buffer_free(&size);
    return -1;
  }
  if (check_topics(settings, &settings->mappings, "mappings", error) != 0 ||
      check_topics(settings, &settings->webhooks, "webhooks", error) != 0) {
    return -1;
  }
  if (settings->serve_max_waiting < settings->serve_max_body) {
    return livenps_fail(
        error, LIVENPS_E_USAGE,
        "serve.max_waiting is smaller than serve.max_body: the longest request would always be refused");
  }
  size_t suffix = strlen(settings->quarantine_suffix);
  char snapshots[250];
  livenps_settings_snapshot_topic(settings, snapshots);
  for (size_t i = 0; i < settings->topics.count; i++) {
    const char *topic = settings->topics.at[i];
    size_t length = strlen(topic);
    if (strncmp(snapshots, topic, length) == 0 &&
        (!snapshots[length] || strcmp(snapshots + length, settings->quarantine_suffix) == 0)) {
      return livenps_fail(error, LIVENPS_E_USAGE,
                          "snapshot.topic: %s is read as a source or is its quarantine", snapshots);
    }
    if (length + suffix > 249) {
      return livenps_fail(error, LIVENPS_E_USAGE,
                          "topics: %s and quarantine.suffix are longer than 249 characters", topic);
    }
    for (size_t j = 0; j < settings->topics.count; j++) {
      const char *other = settings->topics.at[j];
      if (strlen(other) == length + suffix && strncmp(other, topic, length) == 0 &&
          strcmp(other + length, settings->quarantine_suffix) == 0) {
        return livenps_fail(error, LIVENPS_E_USAGE,
                            "topics: %s is the quarantine of %s; it cannot be read as its source", other,
                            topic);
      }
    }
  }
  return 0;
}

const char *livenps_settings_snapshot_topic(const livenps_settings *settings, char out[250]) {
  if (strcmp(settings->snapshot_topic, "none") == 0) {
    out[0] = '\0';
  } else if (settings->snapshot_topic[0]) {
    snprintf(out, 250, "%.249s", settings->snapshot_topic);
  } else {
    snprintf(out, 250, "livenps.%.64s.snapshots", settings->namespace_);
  }
  return out;
}

/* ---- out as text ---- */

/* Plain where YAML cannot mistake it, else in double quotes. Everything outside ASCII as \u or \U. */
static void print_quoted(livenps_buffer *out, const char *text) {
  size_t plain = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./-");
  if (text[0] != '\0' && text[plain] == '\0' && isalnum((unsigned char)text[0]) &&
      strcmp(text, "null") != 0) {
    livenps_buffer_print(out, "%s", text);
    return;
  }
  livenps_buffer_add(out, "\"", 1);
  const char *end = text + strlen(text);
  for (const char *at = text; at < end;) {
    uint32_t point = 0;
    size_t length = livenps_utf8(at, end, &point); /* never 0: settings hold valid text only */
    if (point == '"' || point == '\\') {
      livenps_buffer_print(out, "\\%c", (char)point);
    } else if (point == '\n') {
      livenps_buffer_print(out, "\\n");
    } else if (length <= 1) {
      livenps_buffer_add(out, at, 1);
    } else {
      livenps_buffer_print(out, length == 4 ? "\\U%08X" : "\\u%04X", (unsigned)point);
    }
    at += length ? length : 1;
  }
  livenps_buffer_add(out, "\"", 1);
}

static void print_text(livenps_buffer *out, const char *path, const char *text) {
  const char *password;
  size_t length;
  if (livenps_settings_is_secret(path)) {
    print_quoted(out, text[0] ? "***" : "");
  } else if (password_in_url(text, &password, &length)) {
    livenps_buffer masked = {0};
    livenps_buffer_print(&masked, "%.*s***%s", (int)(password - text), text, password + length);
    livenps_buffer_add(&masked, "", 1);
    print_quoted(out, masked.at);
    livenps_buffer_free(&masked);
  } else {
    print_quoted(out, text);
  }
}

/* The shortest decimal that reads back as the same double. */
static void print_fraction(livenps_buffer *out, double value) {
  char text[40];
  for (int digits = 1; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*f", digits, value);
    if (strtod(text, NULL) == value) {
      break;
    }
  }
  livenps_buffer_print(out, "%s", text);
}

static void print_value(livenps_buffer *out, const livenps_settings *settings, const livenps_setting *setting,
                        const char *indent) {
  const void *at = read_field(settings, setting);
  char text[32];
  if (setting->kind != LIVENPS_KIND_MAP || ((const livenps_pairs *)at)->count == 0) {
    livenps_buffer_add(out, " ", 1);
  }
  switch (setting->kind) {
  case LIVENPS_KIND_TEXT:
  case LIVENPS_KIND_PATH:
  case LIVENPS_KIND_CHOICE: print_text(out, setting->path, *(char *const *)at); break;
  case LIVENPS_KIND_BOOL: livenps_buffer_print(out, *(const bool *)at ? "true" : "false"); break;
  case LIVENPS_KIND_NUMBER: livenps_buffer_print(out, "%lld", (long long)*(const int64_t *)at); break;
  case LIVENPS_KIND_FRACTION: print_fraction(out, *(const double *)at); break;
  case LIVENPS_KIND_DURATION:
    livenps_buffer_print(out, "%s", livenps_duration_print(*(const int64_t *)at, text));
    break;
  case LIVENPS_KIND_SIZE: print_size(out, *(const int64_t *)at); break;
  case LIVENPS_KIND_LIST: {
    const livenps_list *list = at;
    livenps_buffer_add(out, "[", 1);
    for (size_t i = 0; i < list->count; i++) {
      livenps_buffer_print(out, i ? ", " : "");
      print_quoted(out, list->at[i]);
    }
    livenps_buffer_add(out, "]", 1);
    break;
  }
  case LIVENPS_KIND_MAP: {
    const livenps_pairs *pairs = at;
    if (pairs->count == 0) {
      livenps_buffer_print(out, "{}");
    }
    for (size_t i = 0; i < pairs->count; i++) {
      livenps_buffer path = {0};
      livenps_buffer_print(&path, "%s.%s", setting->path, pairs->at[i].name);
      livenps_buffer_add(&path, "", 1);
      livenps_buffer_print(out, "\n%s  ", indent);
      print_quoted(out, pairs->at[i].name);
      livenps_buffer_print(out, ": ");
      print_text(out, path.at, pairs->at[i].value);
      livenps_buffer_free(&path);
    }
    break;
  }
  }
}

void livenps_settings_print(const livenps_settings *settings, livenps_buffer *out) {
  char group[32] = "";
  for (size_t i = 0; i < TABLE_SIZE; i++) {
    const char *dot = strchr(table[i].path, '.'), *name = dot ? dot + 1 : table[i].path;
    size_t length = dot ? (size_t)(dot - table[i].path) : 0;
    if (length > 0 && (strlen(group) != length || strncmp(group, table[i].path, length) != 0)) {
      assert(length < sizeof group);
      memcpy(group, table[i].path, length);
      group[length] = '\0';
      livenps_buffer_print(out, "%s:\n", group);
    }
    const char *indent = length > 0 ? "  " : "";
    if (length == 0) {
      group[0] = '\0';
    }
    livenps_buffer_print(out, "%s%s:", indent, name);
    print_value(out, settings, &table[i], indent);
    livenps_buffer_add(out, "\n", 1);
  }
}

static const char *type_name(const livenps_setting *setting) {
  switch (setting->kind) {
  case LIVENPS_KIND_LIST: return "list; each: ";
  case LIVENPS_KIND_MAP: return "name: value; each value: ";
  default: return "";
  }
}

/* Adds text wrapped to 80 columns, each line indented. */
static void print_wrapped(livenps_buffer *out, const char *text, size_t length, int indent) {
  size_t width = 80 - (size_t)indent;
  while (length > 0) {
    size_t take = length;
    if (take > width) {
      take = width;
      while (take > 0 && text[take] != ' ') {
        take--;
      }
      if (take == 0) {
        take = strcspn(text, " ") < length ? strcspn(text, " ") : length;
      }
    }
    livenps_buffer_print(out, "%*s%.*s\n", indent, "", (int)take, text);
    text += take;
    length -= take;
    while (length > 0 && *text == ' ') {
      text++;
      length--;
    }
  }
}

void livenps_settings_help(livenps_buffer *out) {
  for (size_t i = 0; i < TABLE_SIZE; i++) {
    const livenps_setting *setting = &table[i];
    if (setting->group) {
      livenps_buffer_print(out, "%s%s:\n", i ? "\n" : "", setting->group);
    }
    if (setting->fallback[0]) {
      livenps_buffer_print(out, "  %s (default %s)\n", setting->path, setting->fallback);
    } else {
      livenps_buffer_print(out, "  %s\n", setting->path);
    }
    print_wrapped(out, setting->help, strlen(setting->help), 6);
    livenps_buffer allowed = {0};
    livenps_buffer_print(&allowed, "Allowed: %s", type_name(setting));
    livenps_settings_allowed(setting, &allowed);
    livenps_buffer_print(&allowed, ".");
    print_wrapped(out, allowed.at, allowed.length, 6);
    livenps_buffer_free(&allowed);
  }
}
