#include "consumer/command_line.h"
#include "producer/command_line.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

/* Words of a command line, cut at spaces; getopt reorders them. */
typedef struct {
  char text[512];
  char *words[40];
  int count;
} words;

static void cut(words *out, const char *text) {
  assert_true(strlen(text) < sizeof out->text);
  strcpy(out->text, text);
  out->count = 0;
  for (char *word = strtok(out->text, " "); word; word = strtok(NULL, " ")) {
    assert_true(out->count < 39);
    out->words[out->count++] = word;
  }
  out->words[out->count] = NULL;
}

/* Parses a command line, reads its settings without an environment, and then what the command wants of it. */
static int judge(const char *text, livenps_error *error) {
  words given;
  livenps_command_line line;
  livenps_settings settings;
  char *environment[] = {NULL};
  cut(&given, text);
  const bool consumer = strcmp(given.words[0], "livenps-consumer") == 0;
  *error = (livenps_error){0};
  if (livenps_command_parse(consumer ? &livenps_consumer_program : &livenps_producer_program, given.count,
                            given.words, &line, error) != 0) {
    return -1;
  }
  int result = livenps_command_settings(&line, environment, &settings, error);
  if (result == 0 && consumer) {
    livenps_replay_options replay;
    livenps_verify_options verify;
    livenps_table_options table;
    livenps_log_options log;
    char start[32], end[32];
    switch (line.command) {
    case LIVENPS_COMMAND_RUN: result = livenps_run_arguments(&settings, error); break;
    case LIVENPS_COMMAND_VERIFY: result = livenps_verify_arguments(&line, &verify, error); break;
    case LIVENPS_COMMAND_REPLAY: result = livenps_replay_arguments(&line, &settings, &replay, error); break;
    case LIVENPS_COMMAND_TABLE: result = livenps_table_arguments(&line, &settings, &table, error); break;
    case LIVENPS_COMMAND_LOG: result = livenps_log_arguments(&line, &log, start, end, error); break;
    default: break;
    }
  } else if (result == 0) {
    livenps_publish_options publish;
    livenps_check_options check;
    livenps_simulate_options simulate;
    livenps_embedded_options embedded = {0};
    livenps_serve_options serve = {0};
    switch (line.command) {
    case LIVENPS_COMMAND_PUBLISH:
      result = livenps_publish_arguments(&line, &settings, &publish, error);
      break;
    case LIVENPS_COMMAND_CHECK: result = livenps_check_arguments(&line, &settings, &check, error); break;
    case LIVENPS_COMMAND_SIMULATE:
      result = livenps_simulate_arguments(&line, &settings, &simulate, error);
      break;
    case LIVENPS_COMMAND_EMBEDDED: result = livenps_embedded_arguments(&line, &embedded, error); break;
    case LIVENPS_COMMAND_SERVE: result = livenps_serve_arguments(&line, &settings, &serve, error); break;
    default: break;
    }
    free(embedded.topics);
    free(serve.topics);
  }
  livenps_settings_free(&settings);
  livenps_command_free(&line);
  return result;
}

static void test_right_command_lines(void **state) {
  (void)state;
  static const char *const lines[] = {
      "livenps-consumer --set topics=a",
      "livenps-consumer run --set topics=a --bootstrap-servers h:1,i:2 --redis unix:///x --set minimum_n=1",
      "livenps-consumer --set topics=a run",
      "livenps-consumer --help",
      "livenps-consumer -h",
      "livenps-consumer verify --topic a,b --into c --from 1 --to 2026-01-02T00:00:00Z",
      "livenps-consumer verify --topic a",
      "livenps-consumer replay --help --topic a --from 0 --to 1 --into b",
      "livenps-consumer replay --topic a --from 0 --to 1 --into b --speed 10x --digest",
      "livenps-consumer replay --topic a --from 2026-01-01T00:00:00Z --to 2026-01-02T00:00:00Z --dry-run --speed 0.5x",
      "livenps-consumer table --rollup touchpoint|channel --window 1h --once --seconds 3",
      "livenps-consumer table --rollup all",
      "livenps-consumer board --listen [::1]:0",
      "livenps-consumer log --from 1795256100123-4 --to + --count 3 --rows",
      "livenps-consumer log --from 2026-01-01T00:00:00Z --follow",
      "livenps-producer publish --topic a",
      "livenps-producer publish --topic a x.jsonl - y.jsonl --history",
      "livenps-producer publish --set topics=a,b -- --strange-name",
      "livenps-producer check",
      "livenps-producer check --topic a x",
      "livenps-producer simulate --dry-run",
      "livenps-producer simulate --topic a --rate max --seed 0 --count 1 --touchpoints 3 --start 0 --incident --cloudevents",
      "livenps-producer simulate --topic a --rate 0.5 --truth x",
      "livenps-producer serve --topic a --topic b.c --listen [::1]:0",
      "livenps-producer serve --set topics=a,b",
      "livenps-producer embedded",
      "livenps-producer embedded --brokers 3 --topic a:6 --topic b.c:1000",
      "livenps-producer --dump-config",
      "livenps-producer --version",
  };
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
    livenps_error error;
    if (judge(lines[i], &error) != 0) {
      fail_msg("%s: %s", lines[i], error.text);
    }
  }
}

static void test_wrong_command_lines(void **state) {
  (void)state;
  static const struct {
    const char *line, *wanted;
  } cases[] = {
      {"livenps-consumer",
       "topics is not set: say what to read, for example --set topics=answers, LIVENPS_TOPICS=answers, "
       "or topics: in the file of --config"},
      {"livenps-consumer --no-such-option", "unknown option --no-such-option; see livenps-consumer --help"},
      {"livenps-consumer --password=hush", "unknown option --password; see livenps-consumer --help"},
      {"livenps-consumer run -x", "unknown option -x; see livenps-consumer --help"},
      {"livenps-consumer --set", "option --set needs a value; see livenps-consumer --help"},
      {"livenps-consumer replay --digest=3", "option --digest takes no value"},
      {"livenps-consumer start",
       "unknown command 'start'; allowed: run, replay, verify, table, board or log"},
      {"livenps-consumer run more", "run takes no 'more'; see livenps-consumer run --help"},
      {"livenps-consumer run --rollup all", "--rollup is no option of run; see livenps-consumer run --help"},
      {"livenps-consumer --config /nonexistent", "/nonexistent: cannot be opened: No such file or directory"},
      {"livenps-consumer --set minimum_n=0",
       "--set minimum_n: 0 is out of range; allowed: a whole number from 1 to 1000000"},
      {"livenps-consumer --redis redis://:hush@h",
       "--redis: a secret on a command line can be read by everyone on this "
       "machine; use redis.password_file or LIVENPS_REDIS_PASSWORD"},
      {"livenps-consumer --redis h:1",
       "--redis: does not begin with redis://, rediss:// or unix://; allowed: "
       "redis://[USER@]HOST[:PORT][/DATABASE], rediss://... for TLS, unix:///PATH"},
      {"livenps-consumer verify", "verify needs --topic; see livenps-consumer verify --help"},
      {"livenps-consumer verify --topic a --from 1",
       "--from and --to belong together: the range of the replay"},
      {"livenps-consumer verify --topic a --into b{c}",
       "--into: has the character '{'; allowed: 1 to 64 of A-Z a-z 0-9 _ . -"},
      {"livenps-consumer replay", "replay needs --topic; see livenps-consumer replay --help"},
      {"livenps-consumer replay --topic a --from 0", "replay needs --to; see livenps-consumer replay --help"},
      {"livenps-consumer replay --topic a --from 0 --to 1",
       "replay needs --into; see livenps-consumer replay --help"},
      {"livenps-consumer replay --topic a --from 2 --to 1 --into b", "--from is later than --to"},
      {"livenps-consumer replay --topic a --from 0 --to noon --into b",
       "--to: 'noon' is not possible; allowed: a time such as 2026-11-21T10:15:00Z (RFC 3339), or milliseconds since "
       "1970-01-01"},
      {"livenps-consumer replay --topic a,b --from 0 --to 1 --into b", "--topic: one topic at a time"},
      {"livenps-consumer replay --topic a --from 0 --to 1 --into b{c}",
       "--into: has the character '{'; allowed: 1 to 64 of A-Z a-z 0-9 _ . -"},
      {"livenps-consumer replay --topic a --from 0 --to 1 --into default",
       "--into default: that is the live namespace (the setting namespace); a replay needs one of its own"},
      {"livenps-consumer replay --topic a --from 0 --to 1 --into b --speed 0x",
       "--speed: '0x' is not possible; allowed: max, or Nx with N above 0 and at most 1000000"},
      {"livenps-consumer replay --topic a --from 0 --to 1 --into b --speed 0x10x",
       "--speed: '0x10x' is not possible; allowed: max, or Nx with N above 0 and at most 1000000"},
      {"livenps-consumer table --rollup team",
       "--rollup: roll-up 'team' has an unknown dimension; allowed: all, or "
       "dimensions joined by '|': touchpoint, channel, segment, stage"},
      {"livenps-consumer table --window day",
       "--window: no window's name; allowed: a length such as 5m, 1h, 24h, 7d"},
      {"livenps-consumer table --seconds 1.5",
       "--seconds: '1.5' is not possible; allowed: a whole number from 1 to 31536000"},
      {"livenps-consumer log --count -3",
       "--count: '-3' is not possible; allowed: a whole number from 1 to 1000000"},
      {"livenps-consumer log --follow --to +",
       "--follow and --to exclude each other: new entries have no end"},
      {"livenps-consumer log --from 3-",
       "--from: no entry's id; allowed: - for the oldest, + for the newest, MS, MS-SEQ, or "
       "a time such as 2026-11-21T10:15:00Z"},
      {"livenps-producer",
       "a command is needed: publish, check, serve, simulate or embedded; see livenps-producer --help"},
      {"livenps-producer publish x",
       "publish needs --topic, or the setting topics; see livenps-producer publish --help"},
      {"livenps-producer publish --topic a/b x",
       "--topic: no topic's name; allowed: 1 to 249 of A-Z a-z 0-9 _ . -"},
      {"livenps-producer simulate --rate x",
       "--rate: 'x' is not possible; allowed: max, or N with N above 0 and at most 10000000"},
      {"livenps-producer simulate --rate -1",
       "--rate: '-1' is not possible; allowed: max, or N with N above 0 and at most 10000000"},
      {"livenps-producer simulate --rate 1e3",
       "--rate: '1e3' is not possible; allowed: max, or N with N above 0 and at most 10000000"},
      {"livenps-producer simulate --count 0",
       "--count: '0' is not possible; allowed: a whole number from 1 to 1000000000000"},
      {"livenps-producer simulate --seed +1",
       "--seed: '+1' is not possible; allowed: a whole number from 0 to 9223372036854775807"},
      {"livenps-producer simulate --count 99999999999999999999",
       "--count: '99999999999999999999' is not possible; allowed: a whole number from 1 to 1000000000000"},
      {"livenps-producer simulate x", "simulate takes no 'x'; see livenps-producer simulate --help"},
      {"livenps-producer simulate",
       "simulate needs --topic, or the setting topics; see livenps-producer simulate --help"},
      {"livenps-producer serve",
       "serve needs --topic, or the setting topics; see livenps-producer serve --help"},
      {"livenps-producer serve --topic a --topic a/b",
       "--topic: no topic's name; allowed: 1 to 249 of A-Z a-z 0-9 _ . -"},
      {"livenps-producer serve --topic a --listen 127.0.0.1",
       "--listen: '127.0.0.1' is no address and port; allowed: an address and a port, such as 127.0.0.1:8081 or "
       "[::1]:8081"},
      {"livenps-producer embedded --topic a",
       "--topic: not NAME:PARTITIONS with 1 to 1000 partitions, for example answers:6"},
      {"livenps-producer embedded --topic a:0",
       "--topic: not NAME:PARTITIONS with 1 to 1000 partitions, for example answers:6"},
      {"livenps-producer embedded --brokers 17",
       "--brokers: '17' is not possible; allowed: a whole number from 1 to 16"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    livenps_error error;
    if (judge(cases[i].line, &error) == 0) {
      fail_msg("%s was accepted", cases[i].line);
    }
    assert_string_equal(error.text, cases[i].wanted);
    assert_int_equal(error.code, LIVENPS_E_USAGE);
    assert_null(strchr(error.text, '\n'));
  }
}

static void test_options_reach_their_places(void **state) {
  (void)state;
  words given;
  livenps_command_line line;
  livenps_settings settings;
  livenps_error error = {0};
  livenps_simulate_options simulate;
  livenps_log_options log;
  livenps_publish_options publish;
  livenps_embedded_options embedded;
  char start[32], end[32];
  livenps_settings_default(&settings);

  cut(&given,
      "p simulate --topic t --seed 7 --count 12 --rate 2.5 --start 1970-01-01T00:00:01Z --touchpoints 3 --truth f "
      "--count 13");
  assert_int_equal(livenps_command_parse(&livenps_producer_program, given.count, given.words, &line, &error),
                   0);
  assert_int_equal(livenps_simulate_arguments(&line, &settings, &simulate, &error), 0);
  assert_string_equal(simulate.topic, "t");
  assert_int_equal(simulate.seed, 7);
  assert_int_equal(simulate.count, 13); /* the last one wins */
  assert_true(simulate.rate > 2.49 && simulate.rate < 2.51);
  assert_true(simulate.has_start && simulate.start_ms == 1000);
  assert_int_equal(simulate.touchpoints, 3);
  assert_string_equal(simulate.truth, "f");
  assert_false(simulate.incident || simulate.dry_run || simulate.cloudevents);
  livenps_command_free(&line);

  cut(&given, "p simulate --topic t");
  assert_int_equal(livenps_command_parse(&livenps_producer_program, given.count, given.words, &line, &error),
                   0);
  assert_int_equal(livenps_simulate_arguments(&line, &settings, &simulate, &error), 0);
  assert_true(simulate.rate > 0); /* without an end it is not a flood */
  livenps_command_free(&line);

  cut(&given, "p publish a --topic t b");
  assert_int_equal(livenps_command_parse(&livenps_producer_program, given.count, given.words, &line, &error),
                   0);
  assert_int_equal(livenps_publish_arguments(&line, &settings, &publish, &error), 0);
  assert_int_equal(publish.file_count, 2);
  assert_string_equal(publish.files[1], "b");
  livenps_command_free(&line);

  cut(&given, "p publish --topic t");
  assert_int_equal(livenps_command_parse(&livenps_producer_program, given.count, given.words, &line, &error),
                   0);
  assert_int_equal(livenps_publish_arguments(&line, &settings, &publish, &error), 0);
  assert_int_equal(publish.file_count, 1);
  assert_string_equal(publish.files[0], "-");
  livenps_command_free(&line);

  cut(&given, "p embedded --topic a:1 --brokers 2 --topic b:2");
  assert_int_equal(livenps_command_parse(&livenps_producer_program, given.count, given.words, &line, &error),
                   0);
  assert_int_equal(livenps_embedded_arguments(&line, &embedded, &error), 0);
  assert_int_equal(embedded.brokers, 2);
  assert_int_equal(embedded.topic_count, 2);
  assert_string_equal(embedded.topics[1], "b:2");
  free(embedded.topics);
  livenps_command_free(&line);

  cut(&given, "c log --from 1970-01-01T00:00:01Z --to 5-1 --count 9");
  assert_int_equal(livenps_command_parse(&livenps_consumer_program, given.count, given.words, &line, &error),
                   0);
  assert_int_equal(livenps_log_arguments(&line, &log, start, end, &error), 0);
  assert_string_equal(log.start, "1000");
  assert_string_equal(log.end, "5-1");
  assert_int_equal(log.count, 9);
  livenps_command_free(&line);
  livenps_settings_free(&settings);
}

/* Later wins: defaults, file, environment, command line in its order. */
static void test_precedence(void **state) {
  (void)state;
  char path[] = "/tmp/livenps-command-XXXXXX", text[200], one[] = "LIVENPS_MINIMUM_N=6",
       other[] = "LIVENPS_SERIES_MAX=60";
  char *environment[] = {one, other, NULL};
  int file = mkstemp(path);
  assert_true(file >= 0);
  static const char yaml[] = "minimum_n: 7\nreliable_n: 70\nseries_max: 700\n";
  assert_int_equal(write(file, yaml, sizeof yaml - 1), sizeof yaml - 1);
  close(file);
  snprintf(text, sizeof text,
           "c run --set kafka.bootstrap.servers=a --set series_max=50 --config %s --bootstrap-servers b",
           path);
  words given;
  livenps_command_line line;
  livenps_settings settings;
  livenps_error error = {0};
  cut(&given, text);
  assert_int_equal(livenps_command_parse(&livenps_consumer_program, given.count, given.words, &line, &error),
                   0);
  if (livenps_command_settings(&line, environment, &settings, &error) != 0) {
    fail_msg("%s", error.text);
  }
  assert_int_equal(settings.reliable_n, 70);
  assert_int_equal(settings.minimum_n, 6);
  assert_int_equal(settings.series_max, 50);
  assert_string_equal(settings.kafka.at[0].value, "b");
  assert_int_equal(settings.kafka.count, 1);
  livenps_settings_free(&settings);
  livenps_command_free(&line);
  unlink(path);
}

static void test_check(void **state) {
  (void)state;
  static const struct {
    const char *assignment, *wanted;
  } cases[] = {
      {"kafka.linger.ms=5", NULL},
      {"kafka.security.protocol=ssl", NULL},
      {"kafka.no.such.thing=5", "kafka.no.such.thing: No such configuration property: \"no.such.thing\""},
      {"kafka.group.id=x",
       "kafka.group.id cannot be set: it is derived from namespace, so that two namespaces never share a "
       "group"},
      {"redis.password_file=/nonexistent", "redis.password_file: /nonexistent: No such file or directory"},
      {"mappings.a=" LIVENPS_SOURCE_DIR "/config/mappings/delighted.yaml", NULL},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    livenps_settings settings;
    livenps_error error = {0};
    livenps_settings_default(&settings);
    assert_int_equal(livenps_settings_set(&settings, cases[i].assignment, &error), 0);
    int result = livenps_command_check(&settings, false, &error);
    if (cases[i].wanted) {
      assert_int_equal(result, -1);
      assert_string_equal(error.text, cases[i].wanted);
    } else if (result != 0) {
      fail_msg("%s", error.text);
    }
    livenps_settings_free(&settings);
  }
}

/* A help text is whole, fits a terminal (examples may be longer) and names what the command takes. */
static void test_help(void **state) {
  (void)state;
  static const livenps_program *const programs[] = {&livenps_consumer_program, &livenps_producer_program};
  for (size_t i = 0; i < 2; i++) {
    for (int command = -1; command < (int)programs[i]->command_count; command++) {
      livenps_buffer out = {0};
      livenps_command_help(programs[i], command, &out);
      livenps_buffer_add(&out, "", 1);
      assert_memory_equal(out.at, "Usage: ", 7);
      for (size_t j = 0; command >= 0 && j < programs[i]->option_count; j++) {
        char name[64];
        snprintf(name, sizeof name, "\n  --%s", programs[i]->options[j].name);
        bool takes = programs[i]->options[j].commands >> command & 1;
        if (takes) {
          assert_non_null(strstr(out.at, name));
        }
      }
      const char *examples = strstr(out.at, "\nExamples:\n");
      assert_non_null(examples);
      for (const char *text = out.at; text < examples; text += strcspn(text, "\n") + 1) {
        assert_in_range(strcspn(text, "\n"), 0, 80);
      }
      livenps_buffer_free(&out);
    }
    /* Every option of every example is one of its command. */
    for (size_t command = 0; command < programs[i]->command_count; command++) {
      const char *at = programs[i]->commands[command].examples;
      while (*at) {
        at += strcspn(at, "\n") + 1;
        size_t length = strcspn(at, "\n");
        char text[512];
        snprintf(text, sizeof text, "%.*s", (int)length, at);
        const char *start = strstr(text, programs[i]->name);
        assert_non_null(start);
        words given;
        livenps_command_line line;
        livenps_error error = {0};
        cut(&given, start);
        if (livenps_command_parse(programs[i], given.count, given.words, &line, &error) != 0) {
          fail_msg("%s: %s", text, error.text);
        }
        assert_int_equal(line.command, command);
        livenps_command_free(&line);
        at += length + (at[length] == '\n');
      }
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_right_command_lines),
      cmocka_unit_test(test_wrong_command_lines),
      cmocka_unit_test(test_options_reach_their_places),
      cmocka_unit_test(test_precedence),
      cmocka_unit_test(test_check),
      cmocka_unit_test(test_help),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
