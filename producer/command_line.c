#include "command_line.h"

#include <stdlib.h>

enum {
  PUBLISH = 1 << LIVENPS_COMMAND_PUBLISH,
  CHECK = 1 << LIVENPS_COMMAND_CHECK,
  SERVE = 1 << LIVENPS_COMMAND_SERVE,
  SIMULATE = 1 << LIVENPS_COMMAND_SIMULATE,
  EMBEDDED = 1 << LIVENPS_COMMAND_EMBEDDED,
};
enum { DEFAULT_SEED = 1, DEFAULT_TOUCHPOINTS = 24, DEFAULT_RATE = 100 };
enum { MOST_TOUCHPOINTS = 1000000, MOST_BROKERS = 16, MOST_PARTITIONS = 1000 };

static const livenps_command commands[] = {
    {"publish", "[--topic TOPIC] [OPTIONS] [FILE...]", "Send events from files or stdin to a topic.",
     "Reads events, one JSON object a line, checks each against the contract (docs/events.md), and sends them so that "
     "each is acknowledged by all replicas in sync. Ends with a summary; the exit code is 0 only if every event was "
     "acknowledged. On Ctrl-C it says how far it got. Exit codes of its own: 1 some lines were invalid, and skipped; 130 "
     "stopped before the end of its files.",
     "Events of a file\n"
     "livenps-producer publish --bootstrap-servers kafka1:9092 --topic answers events.jsonl\n"
     "What another program prints, as it comes\n"
     "my-export | livenps-producer publish --topic answers\n",
     true},
    {"check", "[--topic TOPIC] [OPTIONS] [FILE...]", "Say for each event whether it would be admitted.",
     "Reads events like publish, sends nothing, and says for each line whether it would be admitted, else why, with "
     "line and column. Needs no broker. With --topic the topic's mapping of the settings is used. Exit code "
     "1: some lines would not be admitted.",
     "Is this file good?\n"
     "livenps-producer check events.jsonl\n"
     "A vendor's payload by the mapping of its topic\n"
     "livenps-producer check --config livenps.yaml --topic delighted webhook.json\n",
     true},
    {"serve", "[--topic TOPIC]... [--listen ADDRESS:PORT] [OPTIONS]", "Take events over HTTP.",
     "Takes events that are posted as JSON to /events (the first topic) or /events/TOPIC, one, an array or one a line, and "
     "answers when the broker has acknowledged every one of them: 200. All of a request is taken or nothing: events that "
     "would be rejected are answered 422 with the reason of each; while the broker is away, or does not acknowledge in "
     "time, the answer is 503, and the same bytes sent again are not written twice. Vendors' webhooks come to "
     "/webhooks/TOPIC, by the topic's mapping file and with the signature that it names.\n\n"
     "It listens on this machine only. On an address that others can reach it starts only with a token "
     "(serve.token_file or LIVENPS_SERVE_TOKEN), which publishers send as Authorization: Bearer. It speaks plain HTTP: for "
     "TLS put a proxy in front, and name it in serve.hosts. /healthz says that it lives, /readyz whether the broker is "
     "there.",
     "Take events for one topic\n"
     "livenps-producer serve --bootstrap-servers kafka1:9092 --topic answers\n"
     "For other machines, with a token, and a vendor's webhooks\n"
     "livenps-producer serve --config /etc/livenps.yaml --listen 0.0.0.0:8081 --set serve.token_file=/etc/livenps/token\n",
     false},
    {"simulate", "[--topic TOPIC] [--count N] [--rate N|max] [OPTIONS]", "Play a contact centre.",
     "Makes the events of a contact centre: touchpoints with different true scores, channels, a daily rhythm, journeys, "
     "invitations and answers, some early and some late. The same seed, start and options give the same bytes. Without "
     "--start the event times follow the wall clock.",
     "A lively topic, until Ctrl-C\n"
     "livenps-producer simulate --bootstrap-servers kafka1:9092 --topic answers --rate 200\n"
     "See what such events look like\n"
     "livenps-producer simulate --count 10 --dry-run\n",
     false},
    {"embedded", "[--brokers N] [--topic NAME:PARTITIONS]... [OPTIONS]",
     "Run a Kafka cluster in memory, for trying things.",
     "Runs librdkafka's mock cluster on the loopback interface until Ctrl-C. The first line on stdout is what other "
     "programs need as --bootstrap-servers. It keeps about 5 MB per partition and drops the oldest.",
     "One broker, one topic of six partitions\n"
     "livenps-producer embedded --topic answers:6\n"
     "Three brokers\n"
     "livenps-producer embedded --brokers 3 --topic answers:6 --topic answers.quarantine:1\n",
     false},
};

static const livenps_option options[] = {
    {"Where to send", PUBLISH | SERVE | SIMULATE, "bootstrap-servers", "HOST:PORT[,...]",
     "Where Kafka is; short for --set kafka.bootstrap.servers=..."},
    {NULL, PUBLISH | SIMULATE, "topic", "TOPIC",
     "The topic to write. Default: the first of the setting topics"},
    {NULL, SERVE, "topic", "TOPIC", "A topic to write; may be repeated. Default: the setting topics"},
    {NULL, CHECK, "topic", "TOPIC", "Whose mapping to use. Default: the first of the setting topics"},
    {NULL, SIMULATE, "dry-run", NULL, "Print the events, one a line, instead of sending them."},

    {"Where to listen", SERVE, "listen", "ADDRESS:PORT", "Short for --set serve.listen=..."},

    {"Time", PUBLISH, "history", NULL,
     "The record's timestamp is the event's time, not now. Refused if the topic would delete such records or not take "
     "them."},
    {NULL, SIMULATE, "start", "TIME",
     "Event times, and the records' timestamps, begin here: 2026-11-21T10:15:00Z or milliseconds since 1970-01-01. "
     "Default: they follow the wall clock"},

    {"How much", SIMULATE, "count", "N",
     "End after N events, 1 to 1000000000000. Default: at Ctrl-C, or with --start when the wall clock is reached"},
    {NULL, SIMULATE, "rate", "N|max",
     "Events per second, up to 10000000. Default: max with --count, --start or --dry-run, else 100"},

    {"What kind of contact centre", SIMULATE, "seed", "N",
     "Another seed, another centre: 0 to 9223372036854775807. Default: 1"},
    {NULL, SIMULATE, "touchpoints", "N", "How many touchpoints, 1 to 1000000. Default: 24"},
    {NULL, SIMULATE, "incident", NULL, "One touchpoint gets clearly worse some way in."},
    {NULL, SIMULATE, "cloudevents", NULL, "Structured CloudEvents instead of the plain form."},
    {NULL, SIMULATE, "truth", "FILE",
     "Write what was acknowledged as JSON lines: second, roll-up, id and the counters, for comparing."},

    {"The embedded cluster", EMBEDDED, "brokers", "N", "How many brokers, 1 to 16. Default: 1"},
    {NULL, EMBEDDED, "topic", "NAME:PARTITIONS",
     "Make a topic with 1 to 1000 partitions. May be repeated. Others are made when first written to."},

    LIVENPS_COMMON_OPTIONS("--set kafka.linger.ms=20"),
};

const livenps_program livenps_producer_program = {
    .name = "livenps-producer",
    .summary = "publish, check, take and simulate contact-centre events for livenps",
    .text =
        "Sends contact-centre events to Kafka in the form that livenps-consumer counts, checks files of events, takes events over "
        "HTTP, plays a contact centre, and runs an embedded Kafka cluster for trying things.",
    .commands = commands,
    .command_count = sizeof commands / sizeof commands[0],
    .has_default = false,
    .options = options,
    .option_count = sizeof options / sizeof options[0],
    .signals =
        "SIGTERM and SIGINT: stop reading, taking or making events, wait for what is on its way, say how far it got, and "
        "end. The exit code is 0 only if all that was sent was acknowledged.",
};

static int check_topic(const char *topic, livenps_error *error) {
  size_t length = strlen(topic);
  if (length < 1 || length > 249 ||
      strspn(topic, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") != length) {
    return livenps_fail(error, LIVENPS_E_USAGE,
                        "--topic: no topic's name; allowed: 1 to 249 of A-Z a-z 0-9 _ . -");
  }
  return 0;
}

/* --topic, else the first of topics, else NULL. */
static int choose_topic(const livenps_command_line *line, const livenps_settings *settings,
                        const char **topic, livenps_error *error) {
  *topic = livenps_command_value(line, "topic");
  if (!*topic) {
    *topic = settings->topics.count > 0 ? settings->topics.at[0] : NULL;
    return 0;
  }
  return check_topic(*topic, error);
}

static int need_topic(const char *command, const char *topic, livenps_error *error) {
  return topic ? 0
               : livenps_fail(error, LIVENPS_E_USAGE,
                              "%s needs --topic, or the setting topics; see livenps-producer %s --help",
                              command, command);
}

/* Without a name, stdin. */
static void choose_files(const livenps_command_line *line, const char ***files, size_t *count) {
  static const char *standard_input[] = {"-"};
  *files = line->operand_count > 0 ? line->operands : standard_input;
  *count = line->operand_count > 0 ? line->operand_count : 1;
}

int livenps_publish_arguments(const livenps_command_line *line, const livenps_settings *settings,
                              livenps_publish_options *out, livenps_error *error) {
  *out = (livenps_publish_options){.history = livenps_command_has(line, "history")};
  choose_files(line, &out->files, &out->file_count);
  return choose_topic(line, settings, &out->topic, error) != 0 ? -1
                                                               : need_topic("publish", out->topic, error);
}

int livenps_check_arguments(const livenps_command_line *line, const livenps_settings *settings,
                            livenps_check_options *out, livenps_error *error) {
  *out = (livenps_check_options){0};
  choose_files(line, &out->files, &out->file_count);
  return choose_topic(line, settings, &out->topic, error);
}

int livenps_simulate_arguments(const livenps_command_line *line, const livenps_settings *settings,
                               livenps_simulate_options *out, livenps_error *error) {
  int64_t seed = DEFAULT_SEED, touchpoints = DEFAULT_TOUCHPOINTS;
  *out = (livenps_simulate_options){.has_start = livenps_command_has(line, "start"),
                                    .incident = livenps_command_has(line, "incident"),
                                    .dry_run = livenps_command_has(line, "dry-run"),
                                    .truth = livenps_command_value(line, "truth"),
                                    .cloudevents = livenps_command_has(line, "cloudevents")};
  if (choose_topic(line, settings, &out->topic, error) != 0 ||
      livenps_command_number(line, "seed", 0, INT64_MAX, &seed, error) != 0 ||
      livenps_command_number(line, "count", 1, INT64_C(1000000000000), &out->count, error) != 0 ||
      livenps_command_number(line, "touchpoints", 1, MOST_TOUCHPOINTS, &touchpoints, error) != 0 ||
      livenps_command_time(line, "start", &out->start_ms, error) != 0) {
    return -1;
  }
  out->seed = (uint64_t)seed;
  out->touchpoints = (int)touchpoints;
  out->rate = out->count > 0 || out->has_start || out->dry_run ? 0 : DEFAULT_RATE;
  if (livenps_command_rate(line, "rate", "", 1e7, &out->rate, error) != 0) {
    return -1;
  }
  return out->dry_run ? 0 : need_topic("simulate", out->topic, error);
}

int livenps_serve_arguments(const livenps_command_line *line, const livenps_settings *settings,
                            livenps_serve_options *out, livenps_error *error) {
  out->topics = livenps_command_values(line, "topic", &out->topic_count);
  for (size_t i = 0; i < out->topic_count; i++) {
    if (check_topic(out->topics[i], error) != 0) {
      return -1;
    }
  }
  if (out->topic_count == 0) {
    out->topics = livenps_resize(out->topics, (settings->topics.count + 1) * sizeof *out->topics);
    for (; out->topic_count < settings->topics.count; out->topic_count++) {
      out->topics[out->topic_count] = settings->topics.at[out->topic_count];
    }
  }
  return need_topic("serve", out->topic_count > 0 ? out->topics[0] : NULL, error);
}

int livenps_embedded_arguments(const livenps_command_line *line, livenps_embedded_options *out,
                               livenps_error *error) {
  int64_t brokers = 1;
  *out = (livenps_embedded_options){0};
  if (livenps_command_number(line, "brokers", 1, MOST_BROKERS, &brokers, error) != 0) {
    return -1;
  }
  out->brokers = (int)brokers;
  out->topics = livenps_command_values(line, "topic", &out->topic_count);
  for (size_t i = 0; i < out->topic_count; i++) {
    const char *topic = out->topics[i], *colon = strrchr(topic, ':');
    size_t name = colon ? (size_t)(colon - topic) : 0;
    long partitions = 0;
    bool digits =
        colon && colon[1] && strspn(colon + 1, "0123456789") == strlen(colon + 1) && strlen(colon + 1) < 6;
    if (digits) {
      partitions = strtol(colon + 1, NULL, 10);
    }
    if (name < 1 || name > 249 ||
        strspn(topic, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") != name ||
        partitions < 1 || partitions > MOST_PARTITIONS) {
      free(out->topics);
      out->topics = NULL;
      return livenps_fail(error, LIVENPS_E_USAGE,
                          "--topic: not NAME:PARTITIONS with 1 to %d partitions, for example answers:6",
                          MOST_PARTITIONS);
    }
  }
  return 0;
}
