#include "command_line.h"

#include "../common/clock.h"

#include <stdio.h>
#include <stdlib.h>

enum {
  RUN = 1 << LIVENPS_COMMAND_RUN,
  REPLAY = 1 << LIVENPS_COMMAND_REPLAY,
  VERIFY = 1 << LIVENPS_COMMAND_VERIFY,
  TABLE = 1 << LIVENPS_COMMAND_TABLE,
  BOARD = 1 << LIVENPS_COMMAND_BOARD,
  LOG = 1 << LIVENPS_COMMAND_LOG,
};

static const livenps_command commands[] = {
    {"run", "[OPTIONS]", "Count: read the topics, keep the scores in Redis (the default command).",
     "Reads the events of the topics, counts them into Redis, and, if elected, publishes the scores of the namespace. "
     "Start as many as you like with the same namespace: the topics' partitions spread over them, one of them "
     "aggregates, the others stand by.\n\n"
     "Every count is exact under crashes, kills and rebalances: positions and counts are committed to Redis together. "
     "At the start, what is wrong is told in one line (no broker, wrong password, missing topic, a Redis that may "
     "evict keys); afterwards a broker or a Redis that is away is waited for.",
     "Read one topic, publish to the Redis on this machine\n"
     "livenps-consumer run --bootstrap-servers kafka1:9092 --set topics=answers\n"
     "Two windows only, and every setting else from a file\n"
     "livenps-consumer run --config /etc/livenps.yaml --set windows=1h/10s,24h/2m\n",
     false},
    {"replay", "--topic TOPIC --from TIME --to TIME --into NAMESPACE [OPTIONS]",
     "Count a topic's past again, into a namespace of its own.",
     "Reads the events of a topic whose times lie between --from and --to, both included, and counts them into "
     "another namespace, with the clock at --to at the end. Nothing of the live namespace is touched. Two replays of "
     "one range and the same end offsets give the same digest.\n\n"
     "TIME is RFC 3339, such as 2026-11-21T10:15:00Z, or milliseconds since 1970-01-01.",
     "Yesterday again, as fast as it goes\n"
     "livenps-consumer replay --topic answers --from 2026-11-20T00:00:00Z --to 2026-11-20T23:59:59.999Z --into again\n"
     "Only the digest, without writing anything\n"
     "livenps-consumer replay --topic answers --from 0 --to 1795305600000 --dry-run --digest\n",
     false},
    {"verify", "--topic TOPIC[,TOPIC...] [--into NAMESPACE] [OPTIONS]",
     "Count a topic again and compare: are the numbers of a namespace right?",
     "Reads one picture of a namespace from Redis (snapshot, log, positions), reads its topics again up to those "
     "positions, counts them by a second, simple way with another JSON reader, and compares everything: what became of "
     "the offsets of each partition, and every counter of every series in every window, at the same clock. The namespace "
     "is not disturbed: no key is written, no group is joined, nothing is committed; it may be counting meanwhile.\n\n"
     "The last line says equal, or the first difference stands above it. Exit status: 0 equal; 1 not equal; 8 equal as "
     "far as it can be verified, because the topic no longer holds all that was counted (retention, a gap, a restored "
     "snapshot, records that nobody can read any more) or a window was added later: then it says which windows were compared, and that the totals of such partitions "
     "were only checked for not being too small. 5: what is stored cannot be read at all. Use the "
     "settings of the consumer: with other rules of admission it is refused, and of other windows nothing can be said.",
     "Is all right?\n"
     "livenps-consumer verify --topic answers --config /etc/livenps.yaml\n"
     "A replay's namespace\n"
     "livenps-consumer verify --topic answers --into again --from 2026-11-20T00:00:00Z --to 2026-11-20T23:59:59.999Z\n",
     false},
    {"table", "[--rollup ROLLUP] [--window WINDOW] [OPTIONS]",
     "Watch the scores in the terminal; reads Redis only.",
     "Shows the scores of one roll-up and window as a table that moves. It needs only Redis and the namespace.",
     "The touchpoints, until Ctrl-C\n"
     "livenps-consumer table --redis redis://127.0.0.1:6379\n"
     "The channels of the last day, once, for a script\n"
     "livenps-consumer table --rollup channel --window 24h --once\n",
     false},
    {"board", "[--listen ADDRESS:PORT] [OPTIONS]",
     "Serve a live page of the scores to browsers; reads Redis only.",
     "Serves one page: the whole, every touchpoint in a table, trends, the journey, and how whole the data are. It "
     "needs only Redis and the namespace, and follows what changes there.\n\n"
     "It listens on this machine only, answers GET only, and takes nothing from anywhere else. On an address that "
     "others can reach it starts only with a token (board.token_file or LIVENPS_BOARD_TOKEN), which the page asks "
     "for. It speaks plain HTTP: for TLS put a proxy in front, and name it in board.hosts.",
     "Open http://127.0.0.1:8080/ in a browser\n"
     "livenps-consumer board --redis redis://127.0.0.1:6379\n"
     "For the office, with a token\n"
     "livenps-consumer board --listen 0.0.0.0:8080 --set board.token_file=/etc/livenps/token\n",
     false},
    {"log", "[--from ID] [--to ID] [--count N] [OPTIONS]", "Print the commit log for a person.",
     "Prints entries of the namespace's commit log in Redis: who read which offsets when, how many records were "
     "accepted, rejected and late, and what was counted. An entry leaves the log once a snapshot holds it.",
     "The newest ten entries\n"
     "livenps-consumer log --count 10\n"
     "Watch what is committed, every row of it\n"
     "livenps-consumer log --follow --rows\n",
     false},
};

static const livenps_option options[] = {
    {"What to read", RUN | REPLAY | VERIFY, "bootstrap-servers", "HOST:PORT[,...]",
     "Where Kafka is; short for --set kafka.bootstrap.servers=..."},
    {NULL, REPLAY, "topic", "TOPIC", "The topic to read. Needed."},
    {NULL, VERIFY, "topic", "TOPIC[,TOPIC...]", "All topics that the namespace counts. Needed."},
    {NULL, VERIFY, "from", "TIME", "Of a replay's namespace: the --from of that replay."},
    {NULL, VERIFY, "to", "TIME", "Of a replay's namespace: the --to of that replay."},
    {NULL, REPLAY, "from", "TIME", "The first event time that counts. Needed."},
    {NULL, REPLAY, "to", "TIME", "The last event time that counts, and the clock at the end. Needed."},
    {NULL, LOG, "from", "ID",
     "The first entry: a stream id (MS or MS-SEQ), a time, or - for the oldest. Default: -"},
    {NULL, LOG, "to", "ID", "The last entry: a stream id, a time, or + for the newest. Default: +"},
    {NULL, LOG, "count", "N", "Only the newest N entries of the range, 1 to 1000000. Default: all."},

    {"Where results go, or come from", LIVENPS_EVERY_COMMAND, "redis", "URL",
     "Where Redis is: redis://HOST[:PORT], rediss://..., unix:///PATH. Short for --set redis.url=URL. A password in "
     "it is refused, because everyone on this machine can read command lines: use redis.password_file or "
     "LIVENPS_REDIS_PASSWORD."},
    {NULL, REPLAY, "into", "NAMESPACE",
     "The namespace to write; never the live one. Needed, except with --dry-run. 1 to 64 of A-Z a-z 0-9 _ . -"},
    {NULL, VERIFY, "into", "NAMESPACE", "The namespace to verify. Default: the setting namespace"},
    {NULL, REPLAY, "dry-run", NULL, "Write nothing to Redis; print the result."},
    {NULL, REPLAY, "digest", NULL, "Print the SHA-256 of the final state, alone on the last line."},

    {"How fast", REPLAY, "speed", "max|Nx",
     "As fast as it goes, or N seconds of events in a second: 1x, 10x, 0.5x. Default: max"},

    {"What to show", TABLE, "rollup", "ROLLUP",
     "touchpoint, channel, segment, stage, all, or several joined by '|'. Default: touchpoint"},
    {NULL, TABLE, "window", "WINDOW", "The name of a window, such as 1h. Default: the setting table.window"},
    {NULL, TABLE, "once", NULL, "Print one table and end; so it also does when the output is no terminal."},
    {NULL, TABLE, "seconds", "N", "End after N seconds, 1 to 31536000. Default: at Ctrl-C"},
    {NULL, BOARD, "listen", "ADDRESS:PORT", "Where to serve; short for --set board.listen=..."},
    {NULL, LOG, "follow", NULL, "Go on with new entries until Ctrl-C."},
    {NULL, LOG, "rows", NULL, "Every cell and its counters, not only a summary of each entry."},

    LIVENPS_COMMON_OPTIONS("--set minimum_n=10"),
};

const livenps_program livenps_consumer_program = {
    .name = "livenps-consumer",
    .summary = "live Net Promoter Score per touchpoint, from Kafka into Redis",
    .text =
        "Reads contact-centre events from Kafka, scores every touchpoint over rolling windows, and keeps the "
        "results in Redis, where dashboards read them.",
    .commands = commands,
    .command_count = sizeof commands / sizeof commands[0],
    .has_default = true,
    .options = options,
    .option_count = sizeof options / sizeof options[0],
    .signals =
        "SIGTERM and SIGINT: commit what is in hand, leave the group, end within 5 s. After kill -9 nothing is "
        "lost or counted twice either; the partitions are taken over when the group's session has run out.",
};

static int needed(const char *command, const char *option, livenps_error *error) {
  return livenps_fail(error, LIVENPS_E_USAGE, "%s needs --%s; see livenps-consumer %s --help", command,
                      option, command);
}

int livenps_run_arguments(const livenps_settings *settings, livenps_error *error) {
  if (settings->topics.count == 0) {
    return livenps_fail(
        error, LIVENPS_E_USAGE,
        "topics is not set: say what to read, for example --set topics=answers, LIVENPS_TOPICS=answers, or "
        "topics: in the file of --config");
  }
  return 0;
}

/* The names are checked by the settings of the same kind, on a copy that nobody sees. into may be NULL. */
static int check_names(const char *topic, const char *into, livenps_error *error) {
  livenps_settings probe;
  livenps_error found = {0};
  livenps_settings_default(&probe);
  livenps_buffer assignment = {0};
  livenps_buffer_print(&assignment, "topics=%s", topic);
  livenps_buffer_add(&assignment, "", 1);
  const char *option = "topic";
  int result = livenps_settings_set(&probe, assignment.at, &found);
  if (result == 0 && into) {
    option = "into";
    assignment.length = 0;
    livenps_buffer_print(&assignment, "namespace=%s", into);
    livenps_buffer_add(&assignment, "", 1);
    result = livenps_settings_set(&probe, assignment.at, &found);
  }
  livenps_buffer_free(&assignment);
  livenps_settings_free(&probe);
  if (result != 0) {
    const char *rest = strstr(found.text, ": ");
    return livenps_fail(error, LIVENPS_E_USAGE, "--%s: %s", option, rest ? rest + 2 : found.text);
  }
  return 0;
}

int livenps_replay_arguments(const livenps_command_line *line, const livenps_settings *settings,
                             livenps_replay_options *out, livenps_error *error) {
  *out = (livenps_replay_options){.topic = livenps_command_value(line, "topic"),
                                  .into = livenps_command_value(line, "into"),
                                  .dry_run = livenps_command_has(line, "dry-run"),
                                  .digest = livenps_command_has(line, "digest")};
  if (!out->topic) {
    return needed("replay", "topic", error);
  }
  if (!livenps_command_has(line, "from") || !livenps_command_has(line, "to")) {
    return needed("replay", livenps_command_has(line, "from") ? "to" : "from", error);
  }
  if (livenps_command_time(line, "from", &out->from_ms, error) != 0 ||
      livenps_command_time(line, "to", &out->to_ms, error) != 0 ||
      livenps_command_rate(line, "speed", "x", 1e6, &out->speed, error) != 0) {
    return -1;
  }
  if (out->from_ms > out->to_ms) {
    return livenps_fail(error, LIVENPS_E_USAGE, "--from is later than --to");
  }
  if (strchr(out->topic, ',')) {
    return livenps_fail(error, LIVENPS_E_USAGE, "--topic: one topic at a time");
  }
  if (check_names(out->topic, out->into, error) != 0) {
    return -1;
  }
  if (!out->into && !out->dry_run) {
    return needed("replay", "into", error);
  }
  if (out->into && strcmp(out->into, settings->namespace_) == 0) {
    return livenps_fail(
        error, LIVENPS_E_USAGE,
        "--into %s: that is the live namespace (the setting namespace); a replay needs one of its own",
        out->into);
  }
  return 0;
}

int livenps_verify_arguments(const livenps_command_line *line, livenps_verify_options *out,
                             livenps_error *error) {
  *out = (livenps_verify_options){.topic = livenps_command_value(line, "topic"),
                                  .into = livenps_command_value(line, "into"),
                                  .replay = livenps_command_has(line, "from")};
  if (!out->topic || !*out->topic) {
    return needed("verify", "topic", error);
  }
  if (livenps_command_has(line, "from") != livenps_command_has(line, "to")) {
    return livenps_fail(error, LIVENPS_E_USAGE, "--from and --to belong together: the range of the replay");
  }
  if (livenps_command_time(line, "from", &out->from_ms, error) != 0 ||
      livenps_command_time(line, "to", &out->to_ms, error) != 0) {
    return -1;
  }
  return check_names(out->topic, out->into, error);
}

int livenps_table_arguments(const livenps_command_line *line, const livenps_settings *settings,
                            livenps_table_options *out, livenps_error *error) {
  const char *rollup = livenps_command_value(line, "rollup"), *window = livenps_command_value(line, "window");
  *out = (livenps_table_options){.rollup = rollup ? rollup : "touchpoint",
                                 .window = window ? window : settings->table_window,
                                 .once = livenps_command_has(line, "once")};
  livenps_rollup parsed;
  livenps_error found = {0};
  int64_t length_ms;
  if (livenps_rollup_parse(out->rollup, &parsed, &found) != 0) {
    return livenps_fail(
        error, LIVENPS_E_USAGE,
        "--rollup: %s; allowed: all, or dimensions joined by '|': touchpoint, channel, segment, stage",
        found.text);
  }
  size_t length = strlen(out->window);
  if (length > 15 || livenps_duration_parse(out->window, &length_ms) != 0) {
    return livenps_fail(error, LIVENPS_E_USAGE,
                        "--window: no window's name; allowed: a length such as 5m, 1h, 24h, 7d");
  }
  return livenps_command_number(line, "seconds", 1, 31536000, &out->seconds, error);
}

/* "-", "+", MS, MS-SEQ or a time. */
static int stream_id(const char *option, const char *text, char room[32], const char **out,
                     livenps_error *error) {
  int64_t ms;
  size_t digits = strspn(text, "0123456789"),
         more = text[digits] == '-' ? strspn(text + digits + 1, "0123456789") : 0;
  bool id = digits > 0 && digits <= 15 &&
            (text[digits] == '\0' || (more > 0 && more <= 19 && !text[digits + 1 + more]));
  if (strcmp(text, "-") == 0 || strcmp(text, "+") == 0 || id) {
    *out = text;
    return 0;
  }
  if (livenps_time_parse(text, strlen(text), &ms) == 0 && ms >= 0) {
    snprintf(room, 32, "%lld", (long long)ms);
    *out = room;
    return 0;
  }
  return livenps_fail(
      error, LIVENPS_E_USAGE,
      "--%s: no entry's id; allowed: - for the oldest, + for the newest, MS, MS-SEQ, or a time such as "
      "2026-11-21T10:15:00Z",
      option);
}

int livenps_log_arguments(const livenps_command_line *line, livenps_log_options *out, char start[32],
                          char end[32], livenps_error *error) {
  const char *from = livenps_command_value(line, "from"), *to = livenps_command_value(line, "to");
  int64_t count = 0;
  *out = (livenps_log_options){.start = "-",
                               .end = "+",
                               .follow = livenps_command_has(line, "follow"),
                               .rows = livenps_command_has(line, "rows")};
  if ((from && stream_id("from", from, start, &out->start, error) != 0) ||
      (to && stream_id("to", to, end, &out->end, error) != 0) ||
      livenps_command_number(line, "count", 1, 1000000, &count, error) != 0) {
    return -1;
  }
  if (to && out->follow) {
    return livenps_fail(error, LIVENPS_E_USAGE,
                        "--follow and --to exclude each other: new entries have no end");
  }
  out->count = (long)count;
  return 0;
}
