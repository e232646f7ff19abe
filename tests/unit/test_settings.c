#include "common/settings_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/livenps-settings-XXXXXX";

static int make_folder(void **state) {
  (void)state;
  return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
  (void)state;
  return rmdir(folder);
}

static const char *printed(const livenps_settings *settings) {
  static livenps_buffer out;
  out.length = 0;
  livenps_settings_print(settings, &out);
  livenps_buffer_add(&out, "", 1);
  return out.at;
}

/* Reads a file with these bytes and checks it. */
static int read_yaml(livenps_settings *settings, const char *bytes, livenps_error *error) {
  char path[64];
  snprintf(path, sizeof path, "%s/t.yaml", folder);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fputs(bytes, file);
  fclose(file);
  livenps_settings_default(settings);
  *error = (livenps_error){0};
  int result = livenps_settings_file(settings, path, error);
  if (result == 0) {
    result = livenps_settings_check(settings, error);
  }
  unlink(path);
  return result;
}

static void test_defaults(void **state) {
  (void)state;
  livenps_settings settings;
  livenps_error error = {0};
  livenps_settings_default(&settings);
  assert_int_equal(livenps_settings_check(&settings, &error), 0);
  assert_string_equal(settings.namespace_, "default");
  assert_string_equal(settings.redis_url, "redis://127.0.0.1:6379");
  assert_string_equal(settings.redis_password_file, "");
  assert_string_equal(settings.quarantine_suffix, ".quarantine");
  assert_int_equal(settings.commit_interval_ms, 100);
  assert_int_equal(settings.admit_max_bytes, 1024 * 1024);
  assert_int_equal(settings.admit_late_ms, 7 * 86400000LL);
  assert_int_equal(settings.log_max_bytes, 256 << 20);
  assert_true(settings.kafka_commit);
  assert_int_equal(settings.windows.count, 6);
  assert_int_equal(settings.rollups.count, 6);
  assert_int_equal(settings.trend_rollups.count, 4);
  assert_true(settings.fdr > 0.0999 && settings.fdr < 0.1001);
  assert_int_equal(settings.topics.count + settings.kafka.count + settings.targets.count, 0);
  livenps_settings_free(&settings);
  livenps_settings_free(&settings);
  livenps_settings_free(NULL);
}

/* The commented file is the manual: it says every setting, and its values are the defaults. */
static void test_manual(void **state) {
  (void)state;
  livenps_settings manual, defaults;
  livenps_error error = {0};
  const char *path = LIVENPS_SOURCE_DIR "/config/livenps.yaml";
  livenps_settings_default(&manual);
  livenps_settings_default(&defaults);
  if (livenps_settings_file(&manual, path, &error) != 0 || livenps_settings_check(&manual, &error) != 0) {
    fail_msg("%s", error.text);
  }
  char *wanted = strdup(printed(&defaults));
  assert_string_equal(printed(&manual), wanted);
  free(wanted);

  static char text[65536];
  FILE *file = fopen(path, "r");
  assert_non_null(file);
  size_t length = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  assert_true(length > 0 && length < sizeof text - 1);
  text[length] = '\0';
  static char flat[65536]; /* without the comments' line breaks, in which a range may be cut */
  size_t used = 0;
  for (const char *at = text; *at; at++) {
    if (*at == '\n') {
      const char *next = at + 1 + strspn(at + 1, " ");
      if (next[0] == '#' && next[1] == ' ' && next[2] != ' ') {
        at = next;
        continue;
      }
    }
    flat[used++] = *at;
  }
  size_t count;
  const livenps_setting *table = livenps_settings_table(&count);
  for (size_t i = 0; i < count; i++) {
    const char *dot = strchr(table[i].path, '.'), *at = text;
    char line[80];
    if (dot) { /* the group's line first, then the name, indented */
      snprintf(line, sizeof line, "\n%.*s:\n", (int)(dot - table[i].path), table[i].path);
      at = strstr(text, line);
      if (!at) {
        fail_msg("config/livenps.yaml has no group for %s", table[i].path);
      }
    }
    snprintf(line, sizeof line, dot ? "\n  %s:" : "\n%s:", dot ? dot + 1 : table[i].path);
    if (!strstr(at, line)) {
      fail_msg("config/livenps.yaml has no line for %s", table[i].path);
    }
    /* What is written there is what --help says, and the range stands in its comment. */
    livenps_buffer allowed = {0};
    livenps_settings_allowed(&table[i], &allowed);
    if (table[i].high > 0) {
      livenps_buffer_add(&allowed, "", 1);
      const char *range = strstr(allowed.at, "from ") + 5, *end = strchr(range, ',');
      snprintf(line, sizeof line, "%.*s", end ? (int)(end - range) : (int)strlen(range), range);
      if (!strstr(flat, line)) {
        fail_msg("config/livenps.yaml does not say the range of %s: %s", table[i].path, line);
      }
    }
    livenps_buffer_free(&allowed);
  }
  livenps_settings_free(&manual);
  livenps_settings_free(&defaults);
}

/* The examples in comments are right as well, once they are no comments. */
static void test_manual_examples(void **state) {
  (void)state;
  static char text[65536], bare[65536];
  FILE *file = fopen(LIVENPS_SOURCE_DIR "/config/livenps.yaml", "r");
  assert_non_null(file);
  size_t length = fread(text, 1, sizeof text - 1, file), used = 0;
  fclose(file);
  text[length] = '\0';
  for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
    if (line[0] == '#' && line[1] == ' ' && line[2] == ' ' && line[3] != ' ' && strchr(line, ':') &&
        line[3] != '1' && line[3] != '2' && line[3] != '3' && line[3] != '4') {
      /* "mappings: {}" before an example stands for nothing given. */
      char *empty = used >= 4 ? bare + used - 4 : NULL;
      if (empty && memcmp(empty, " {}\n", 4) == 0) {
        used -= 4;
        bare[used++] = '\n';
      }
      line++;
    }
    used += (size_t)snprintf(bare + used, sizeof bare - used, "%s\n", line);
  }
  livenps_settings settings;
  livenps_error error;
  if (read_yaml(&settings, bare, &error) != 0) {
    fail_msg("%s", error.text);
  }
  assert_int_equal(settings.kafka.count, 6);
  assert_int_equal(settings.targets.count, 2);
  assert_int_equal(settings.mappings.count, 1);
  livenps_settings_free(&settings);
}

/* What --dump-config prints reads back to the same. */
static void test_dump_reads_back(void **state) {
  (void)state;
  static const char *const assignments[] = {
      "kafka.bootstrap.servers=a:1,b:2",
      "kafka.client.rack=a \"b\" \\c",
      "kafka.sasl.kerberos.kinit.cmd=two\nlines\n",
      "topics=one,two",
      "mappings.one=/etc/one.yaml",
      "namespace=eu.1",
      "redis.url=unix:///run/redis.sock",
      "redis.ca_file=/etc/ca.pem",
      "commit.interval=750ms",
      "commit.log_max=0",
      "admit.touchpoints=delivery,\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80,null,- x: y,#no,true,'q'",
      "windows=5m/1s,2h/20s",
      "rollups=all,stage|segment",
      "change.q=0.0625",
      "targets=billing=-12.5,delivery=40",
      "targets.a: b # c=100",
      "table.window=2h",
      "log_level=debug",
      "quarantine.suffix=-bad",
  };
  livenps_settings settings, again;
  livenps_error error = {0};
  livenps_settings_default(&settings);
  for (size_t i = 0; i < sizeof assignments / sizeof *assignments; i++) {
    if (livenps_settings_set(&settings, assignments[i], &error) != 0) {
      fail_msg("%s", error.text);
    }
  }
  char *first = strdup(printed(&settings));
  if (read_yaml(&again, first, &error) != 0) {
    fail_msg("%s\n%s", error.text, first);
  }
  assert_string_equal(printed(&again), first);
  assert_int_equal(again.admit_touchpoints.count, 7);
  assert_string_equal(again.admit_touchpoints.at[1], "\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80");
  assert_string_equal(again.kafka.at[1].value, "a \"b\" \\c");
  assert_string_equal(again.kafka.at[2].value, "two\nlines\n");
  assert_int_equal(again.trend_rollups.count, 1); /* of the default, all is in rollups */
  free(first);
  livenps_settings_free(&settings);
  livenps_settings_free(&again);
}

static void test_files(void **state) {
  (void)state;
  /* The error's text behind "FILE:", or NULL where the file is right. */
  static const struct {
    const char *yaml, *wanted;
  } cases[] = {
      {"", NULL},
      {"# nothing\n", NULL},
      {"---\n", NULL},
      {"{}", NULL},
      {"kafka:\nredis:\ntopics:\nmappings:\n", NULL},
      {"topics: a\n", NULL},
      {"topics: a, b\n", NULL},
      {"topics:\n  - a\n  - \"b\"\n", NULL},
      {"redis.url: unix:///x\n", NULL},
      {"namespace: no\nadmit: {touchpoints: [no, 7]}\n", NULL}, /* words, not booleans */
      {"minimum_n: \"7\"\n", NULL},
      {"kafka:\n  ssl.ca.pem: |\n    -----BEGIN\n    abc\n    -----END\n", NULL},
      {"redis: {password_file: \"\"}\n", NULL},
      {"minimun_n: 3\n", "1: minimun_n: unknown setting; did you mean minimum_n?"},
      {"\nredis:\n  ulr: x\n", "3: redis.ulr: unknown setting; did you mean redis.url?"},
      {"redis:\n  password: x\n", "2: redis.password: unknown setting; a password is read from the file "
                                  "redis.password_file or from LIVENPS_REDIS_PASSWORD"},
      {"aggregate: {minimum_n: 3}\n", "1: aggregate.minimum_n: unknown setting; did you mean minimum_n?"},
      {"session.timeout.ms: 3\n",
       "1: session.timeout.ms: unknown setting; if librdkafka knows it, it is a setting below kafka:"},
      {"redis:\n  xyzzy: 1\n",
       "2: redis.xyzzy: unknown setting; there are redis.url, redis.username, "
       "redis.password_file, redis.ca_file, redis.timeout, redis.backoff_max, redis.allow_eviction"},
      {"<<: 1\n", "1: <<: unknown setting"},
      {"commit: 3\n", "1: commit: is a single value; it is a group: its settings stand below it, indented"},
      {"commit: [a]\n", "1: commit: is a list; it is a group: its settings stand below it, indented"},
      {"commit:\n  interval: 20s\n",
       "2: commit.interval: 20s is out of range; allowed: a duration from 5ms to 10s"},
      {"commit: {interval: 5}\n",
       "1: commit.interval: '5' is no duration such as 100ms, 5s, 2m, 1h, 7d; allowed: a "
       "duration from 5ms to 10s"},
      {"commit: {interval: [5ms]}\n", "1: commit.interval: is a list; allowed: a duration from 5ms to 10s"},
      {"commit: {kafka: yes}\n", "1: commit.kafka: 'yes' is not one of the two; allowed: true or false"},
      {"commit: {log_max: 3kb}\n",
       "1: commit.log_max: 3kb is out of range; allowed: a size from 4kb to 1024gb, or 0 for "
       "automatic"},
      {"admit: {max_bytes: 5000}\n",
       "1: admit.max_bytes: '5000' is no size such as 512b, 64kb, 256mb, 1gb; allowed: a size "
       "from 1kb to 64mb"},
      {"minimum_n: 0\n", "1: minimum_n: 0 is out of range; allowed: a whole number from 1 to 1000000"},
      {"minimum_n: 5.0\n",
       "1: minimum_n: '5.0' is no whole number; allowed: a whole number from 1 to 1000000"},
      {"minimum_n: 99999999999999999999\n",
       "1: minimum_n: '99999999999999999999' is no whole number; allowed: a whole number from 1 to 1000000"},
      {"change: {q: nan}\n", "1: change.q: 'nan' is no number; allowed: a number from 0.001 to 0.5"},
      {"change: {q: 0.9}\n", "1: change.q: 0.9 is out of range; allowed: a number from 0.001 to 0.5"},
      {"log_level: warning\n",
       "1: log_level: 'warning' is none of them; allowed: error, warn, info or debug"},
      {"namespace: a{b\n", "1: namespace: has the character '{'; allowed: 1 to 64 of A-Z a-z 0-9 _ . -"},
      {"namespace:\n",
       "1: namespace: has no value; leave the line out for the default, or write \"\" for an empty text"},
      {"namespace: \"\"\n", "1: namespace: is empty; allowed: 1 to 64 of A-Z a-z 0-9 _ . -"},
      {"namespace: \"a\\0b\"\n", "1: a value has a NUL character"},
      {"redis: {username: \"a\\tb\"}\n",
       "1: redis.username: has a control character; allowed: a name of Redis's ACL"},
      {"redis: {url: \"localhost:6379\"}\n",
       "1: redis.url: does not begin with redis://, rediss:// or unix://; allowed: redis://[USER@]HOST[:PORT][/DATABASE], "
       "rediss://... for TLS, unix:///PATH"},
      {"redis: {url: \"redis://:secret@\"}\n",
       "1: redis.url: names no host; allowed: redis://[USER@]HOST[:PORT][/DATABASE], "
       "rediss://... for TLS, unix:///PATH"},
      {"topics: [a, a]\n", "1: topics: names 'a' twice"},
      {"topics:\n  - a\n  - b c\n",
       "3: topics: has the character ' '; allowed: topic names: 1 to 249 of A-Z a-z 0-9 _ . -"},
      {"topics: a,,b\n", "1: topics: has nothing between two commas"},
      {"topics: [[a]]\n",
       "1: topics: is a list; allowed: single values; each: topic names: 1 to 249 of A-Z a-z 0-9 _ . -"},
      {"topics: {a: b}\n",
       "1: topics: is a group of names and values; allowed: a list; each: topic names: 1 to 249 of A-Z "
       "a-z 0-9 _ . -"},
      {"targets: {a: 101}\n", "1: targets.a: '101' is no NPS; allowed: an NPS from -100 to 100"},
      {"targets: [a]\n",
       "1: targets: is a list; allowed: one line of NAME: VALUE each; each value: an NPS from -100 to 100"},
      {"kafka: {a: [1]}\n", "1: kafka.a: is a list; allowed: a value of librdkafka, which checks it"},
      {"windows: [5m/2s]\n",
       "1: windows: window '5m/2s': the slice is longer than 1/300 of the window (1s); allowed: "
       "LENGTH/SLICE such as 5m/1s, 24h/2m: whole numbers of s, m, h or d, the slice at most 1/300 of "
       "the length and dividing it"},
      {"rollups: [touchpoint|chanel]\n",
       "1: rollups: roll-up 'touchpoint|chanel' has an unknown dimension; allowed: all, or "
       "dimensions joined by '|': touchpoint, channel, segment, stage"},
      {"minimum_n: 3\nminimum_n: 4\n", "2: minimum_n: is given twice, first in line 1"},
      {"redis: {timeout: 1s}\nredis.timeout: 2s\n", "2: redis.timeout: is given twice, first in line 1"},
      {"kafka:\n  a: 1\n  b: 2\n  a: 3\n", "4: kafka.a: is given twice, first in line 2"},
      {"minimum_n: &n 3\n", "1: anchors (&name) are not supported: write the value out"},
      {"minimum_n: 3\nreliable_n: *n\n", "2: aliases (*name) are not supported: write the value out"},
      {"minimum_n: !!int 3\n", "1: tags (!name) are not supported: every setting has its type"},
      {"minimum_n: 3\n---\nminimum_n: 4\n", "2: a second document begins; only one is read"},
      {"[a]\n", "1: is a list; a configuration file has lines of NAME: VALUE"},
      {"words\n", "1: is a single value; a configuration file has lines of NAME: VALUE"},
      {"? [a]\n: b\n", "1: a name is expected here, not a list"},
      {"minimum_n: 3\n\treliable_n: 4\n",
       "2: not valid YAML: found a tab character that violates indentation"},
      {"\tminimum_n: 3\n",
       "1: not valid YAML: found character that cannot start any token (tabs do not indent, and @ ` % "
       "begin no plain value)"},
      {"minimum_n: \"3\n", "2: not valid YAML: found unexpected end of stream"},
      /* Those that need several settings have no line. */
      {"aggregate: {tick: 1s}\n",
       "aggregate.lease: 2s is shorter than four times aggregate.tick, 1s: it would be lost by "
       "chance"},
      {"complete_lag: 1s\n",
       "complete_lag: 1s is not longer than commit.idle, 1s: a quiet topic would never be complete"},
      {"commit: {interval: 2s}\n", "commit.idle: 1s is shorter than commit.interval, 2s"},
      {"trends: [segment]\nrollups: [all]\n",
       "trends: segment is not in rollups; add it there or leave it out here"},
      {"windows: [60m/10s, 1h/12s]\n", "windows: 60m/10s and 1h/12s have the same length; leave one out"},
      {"windows: []\n", "windows: there are 0; allowed: 1 to 16"},
      {"rollups: []\n", "rollups: there are 0; allowed: 1 to 32"},
      {"topics: [a, a.quarantine]\n",
       "topics: a.quarantine is the quarantine of a; it cannot be read as its source"},
      {"topics: [a]\nmappings: {b: c}\n", "mappings.b: there is no such topic in topics"},
      {"commit: {log_max: 4kb}\n",
       "commit.log_max: 4kb may not hold one commit of commit.max_cells, 25000; raise it or "
       "lower that"},
      {"rollups: [all]\n", NULL},    /* trends follow */
      {"windows: [1h/10s]\n", NULL}, /* the table's window too */
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    livenps_settings settings;
    livenps_error error;
    int result = read_yaml(&settings, cases[i].yaml, &error);
    livenps_settings_free(&settings);
    if (!cases[i].wanted) {
      if (result != 0) {
        fail_msg("%s: %s", cases[i].yaml, error.text);
      }
      continue;
    }
    assert_int_equal(result, -1);
    assert_int_equal(error.code, LIVENPS_E_USAGE);
    const char *text = error.text;
    if (strncmp(text, folder, strlen(folder)) == 0) {
      text += strlen(folder) + strlen("/t.yaml:");
    }
    assert_string_equal(text, cases[i].wanted);
  }
}

static void test_files_that_are_none(void **state) {
  (void)state;
  livenps_settings settings;
  livenps_error error = {0};
  livenps_settings_default(&settings);
  assert_int_equal(livenps_settings_file(&settings, "/nonexistent/x.yaml", &error), -1);
  assert_string_equal(error.text, "/nonexistent/x.yaml: cannot be opened: No such file or directory");
  livenps_error_clear(&error);
  assert_int_equal(livenps_settings_file(&settings, folder, &error), -1);
  assert_non_null(strstr(error.text, "cannot be read: Is a directory"));
  livenps_error_clear(&error);
  assert_int_equal(livenps_settings_file(&settings, "/dev/zero", &error), -1);
  assert_non_null(strstr(error.text, "is larger than"));
  livenps_settings_free(&settings);
  assert_int_equal(read_yaml(&settings, "namespace: \xff\n", &error), -1);
  assert_non_null(strstr(error.text, "t.yaml: byte 11: invalid leading UTF-8 octet"));
  livenps_settings_free(&settings);
}

static void test_environment(void **state) {
  (void)state;
  char path[] = "PATH=/bin", topics[] = "LIVENPS_TOPICS=answers, calls", n[] = "LIVENPS_MINIMUM_N=1",
       servers[] = "LIVENPS_KAFKA_BOOTSTRAP_SERVERS=a:1,b:2",
       session[] = "LIVENPS_KAFKA_SESSION_TIMEOUT_MS=6000", commit[] = "LIVENPS_COMMIT_KAFKA=false",
       url[] = "LIVENPS_REDIS_URL=redis://u:p@h:1/2", targets[] = "LIVENPS_TARGETS=a=1,b=2",
       password[] = "LIVENPS_REDIS_PASSWORD=x", config[] = "LIVENPS_CONFIG=y",
       vectors[] = "LIVENPS_VECTORS=z", cache[] = "LIVENPS_CACHE=c", other[] = "LIVENPSX=1",
       name_space[] = "LIVENPS_NAMESPACE=n";
  char *environment[] = {path,     topics, n,       servers, session, commit,     url, targets,
                         password, config, vectors, cache,   other,   name_space, NULL};
  livenps_settings settings;
  livenps_error error = {0};
  livenps_settings_default(&settings);
  if (livenps_settings_environment(&settings, environment, &error) != 0) {
    fail_msg("%s", error.text);
  }
  assert_int_equal(settings.topics.count, 2);
  assert_string_equal(settings.topics.at[1], "calls");
  assert_int_equal(settings.minimum_n, 1);
  assert_string_equal(settings.kafka.at[0].name, "bootstrap.servers");
  assert_string_equal(settings.kafka.at[0].value, "a:1,b:2");
  assert_string_equal(settings.kafka.at[1].name, "session.timeout.ms");
  assert_false(settings.kafka_commit);
  assert_string_equal(settings.targets.at[1].value, "2");
  assert_string_equal(settings.namespace_, "n");
  livenps_settings_free(&settings);

  static const struct {
    const char *variable, *wanted;
  } cases[] = {
      {"LIVENPS_MINIMUN_N=4",
       "LIVENPS_MINIMUN_N in the environment: unknown setting; did you mean LIVENPS_MINIMUM_N?"},
      {"LIVENPS_REDIS_PASWORD=x",
       "LIVENPS_REDIS_PASWORD in the environment: unknown setting; did you mean LIVENPS_REDIS_PASSWORD?"},
      {"LIVENPS_XYZZY=4", "LIVENPS_XYZZY in the environment: unknown setting; unset it"},
      {"LIVENPS_MINIMUM_N=",
       "LIVENPS_MINIMUM_N in the environment: minimum_n: '' is no whole number; allowed: a whole "
       "number from 1 to 1000000"},
      {"LIVENPS_KAFKA=x",
       "LIVENPS_KAFKA in the environment: kafka: needs the name of a property: kafka.NAME"},
      {"LIVENPS_TARGETS=a", "LIVENPS_TARGETS in the environment: targets: is not NAME=VALUE,NAME=VALUE..."},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char variable[64];
    strcpy(variable, cases[i].variable);
    char *one[] = {variable, NULL};
    livenps_settings_default(&settings);
    livenps_error_clear(&error);
    assert_int_equal(livenps_settings_environment(&settings, one, &error), -1);
    assert_string_equal(error.text, cases[i].wanted);
    livenps_settings_free(&settings);
  }
}

/* Every setting can be given in each of the four places. */
static void test_every_setting_everywhere(void **state) {
  (void)state;
  size_t count;
  const livenps_setting *table = livenps_settings_table(&count);
  for (size_t i = 0; i < count; i++) {
    const char *key;
    assert_ptr_equal(livenps_settings_find(table[i].path, &key), &table[i]);
    assert_non_null(table[i].help);
    if (table[i].kind == LIVENPS_KIND_MAP) {
      continue;
    }
    char text[160];
    livenps_settings settings;
    livenps_error error = {0};
    livenps_settings_default(&settings);
    const char *value = table[i].fallback[0]                 ? table[i].fallback
                        : table[i].kind == LIVENPS_KIND_PATH ? "/x"
                        : strstr(table[i].path, ".listen")   ? "127.0.0.1:1"
                                                             : "x";
    snprintf(text, sizeof text, "%s=%s", table[i].path, value);
    assert_int_equal(livenps_settings_set(&settings, text, &error), 0);
    size_t used = (size_t)snprintf(text, sizeof text, "LIVENPS_");
    for (const char *at = table[i].path; *at; at++) {
      text[used++] = *at == '.' ? '_' : (char)(*at >= 'a' && *at <= 'z' ? *at - 'a' + 'A' : *at);
    }
    snprintf(text + used, sizeof text - used, "=%s", value);
    char *environment[] = {text, NULL};
    if (livenps_settings_environment(&settings, environment, &error) != 0) {
      fail_msg("%s", error.text);
    }
    livenps_settings_free(&settings);
  }
}

static void test_set(void **state) {
  (void)state;
  static const struct {
    const char *assignment, *wanted;
  } cases[] = {
      {"foo", "--set foo: is not NAME=VALUE"},
      {"=x", "--set =x: is not NAME=VALUE"},
      {"foo=1", "--set foo: unknown setting"},
      {"commit=3", "--set commit: unknown setting; it is the name of a group: GROUP.NAME=VALUE"},
      {"commit.interval=1h",
       "--set commit.interval: 1h is out of range; allowed: a duration from 5ms to 10s"},
      {"kafka.sasl.password=x",
       "--set kafka.sasl.password: a secret on a command line can be read by everyone on this "
       "machine; give it in the configuration file or the environment"},
      {"redis.url=redis://:pw@h",
       "--set redis.url: a secret on a command line can be read by everyone on this machine; use "
       "redis.password_file or LIVENPS_REDIS_PASSWORD"},
      {"kafka.=x", "--set kafka.: unknown setting; did you mean kafka?"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    livenps_settings settings;
    livenps_error error = {0};
    livenps_settings_default(&settings);
    assert_int_equal(livenps_settings_set(&settings, cases[i].assignment, &error), -1);
    assert_string_equal(error.text, cases[i].wanted);
    livenps_settings_free(&settings);
  }
  livenps_settings settings;
  livenps_error error = {0};
  livenps_settings_default(&settings);
  assert_int_equal(livenps_settings_set(&settings, "topics=a,b", &error), 0);
  assert_int_equal(livenps_settings_set(&settings, "topics=c", &error), 0);
  assert_int_equal(settings.topics.count, 1); /* replaced, not added */
  assert_int_equal(livenps_settings_set(&settings, "topics=", &error), 0);
  assert_int_equal(settings.topics.count, 0);
  assert_int_equal(livenps_settings_set(&settings, "targets.a=1", &error), 0);
  assert_int_equal(livenps_settings_set(&settings, "targets.a=2", &error), 0);
  assert_int_equal(settings.targets.count, 1); /* the later wins */
  assert_string_equal(settings.targets.at[0].value, "2");
  assert_int_equal(livenps_settings_set(&settings, "redis.password_file=secret", &error), 0);
  assert_int_equal(settings.redis_password_file[0], '/');
  livenps_settings_free(&settings);
}

/* Relative paths of a file start where the file is, wherever the program was started. */
static void test_paths(void **state) {
  (void)state;
  livenps_settings settings;
  livenps_error error;
  char wanted[128];
  assert_int_equal(
      read_yaml(&settings, "topics: a\nmappings: {a: m/x.yaml}\nredis: {password_file: pw, ca_file: /abs}\n",
                &error),
      0);
  snprintf(wanted, sizeof wanted, "%s/m/x.yaml", folder);
  assert_string_equal(settings.mappings.at[0].value, wanted);
  snprintf(wanted, sizeof wanted, "%s/pw", folder);
  assert_string_equal(settings.redis_password_file, wanted);
  assert_string_equal(settings.redis_ca_file, "/abs");
  livenps_settings_free(&settings);
}

static void test_secrets_are_not_printed(void **state) {
  (void)state;
  static const char yaml[] =
      "kafka:\n  sasl.password: hush1\n  ssl.key.password: hush2\n  ssl.keystore.password: hush3\n"
      "  ssl.key.pem: hush4\n  ssl.certificate.pem: hush5\n  sasl.oauthbearer.client.secret: hush6\n"
      "  sasl.oauthbearer.config: principal=hush7\n"
      "  sasl.oauthbearer.token.endpoint.url: https://me:hush8@h/t\n  sasl.username: shown\n"
      "redis:\n  url: \"redis://user:hush9@h:1/2\"\n";
  livenps_settings settings;
  livenps_error error;
  assert_int_equal(read_yaml(&settings, yaml, &error), 0);
  assert_null(strstr(printed(&settings), "hush"));
  assert_non_null(strstr(printed(&settings), "sasl.username: shown"));
  assert_non_null(strstr(printed(&settings), "url: \"redis://user:***@h:1/2\""));
  livenps_settings_free(&settings);
  static const struct {
    const char *url, *shown;
  } urls[] = {
      {"redis://:hush@h", "\"redis://:***@h\""},
      {"rediss://u:hu/sh@h:1/2", "\"rediss://u:***@h:1/2\""}, /* not escaped, but a secret */
      {"unix://:hush@/run/x.sock", "\"unix://:***@/run/x.sock\""},
      {"redis://u@h", "\"redis://u@h\""},
  };
  for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
    char text[100];
    snprintf(text, sizeof text, "redis: {url: \"%s\"}\n", urls[i].url);
    if (read_yaml(&settings, text, &error) != 0) {
      fail_msg("%s", error.text);
    }
    assert_non_null(strstr(printed(&settings), urls[i].shown));
    assert_null(strstr(printed(&settings), "hush"));
    livenps_settings_free(&settings);
  }
}

static void test_windows(void **state) {
  (void)state;
  static const struct {
    const char *text;
    int64_t length_ms, slice_ms;
    const char *name;
  } good[] = {
      {"5m/1s", 300000, 1000, "5m"},
      {"24h/2m", 86400000, 120000, "24h"},
      {"90d/6h", INT64_C(7776000000), 21600000, "90d"},
      {"300s/1s", 300000, 1000, "300s"},
      {"24h/1s", 86400000, 1000, "24h"},
  };
  static const char *const bad[] = {"",
                                    "5m",
                                    "5m/",
                                    "/1s",
                                    "5m/1",
                                    "5/1s",
                                    "5m/0s",
                                    "0m/1s",
                                    "5m/2s",
                                    "4m/1s",
                                    "5m/500ms",
                                    "5000ms/1s",
                                    "today",
                                    "today/1m",
                                    "1h/7s",
                                    "-5m/1s",
                                    "500d/1d",
                                    "25h/1s",
                                    "5m/1s/1s",
                                    "5m /1s",
                                    "1000000000000000h/1h",
                                    "9999999999999d/1d"};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    livenps_window window;
    livenps_error error = {0};
    assert_int_equal(livenps_window_parse(good[i].text, &window, &error), 0);
    assert_true(window.length_ms == good[i].length_ms && window.slice_ms == good[i].slice_ms);
    assert_string_equal(window.name, good[i].name);
  }
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    livenps_window window;
    livenps_error error = {0};
    assert_int_equal(livenps_window_parse(bad[i], &window, &error), -1);
    assert_int_equal(error.code, LIVENPS_E_USAGE);
  }
}

static void test_rollups(void **state) {
  (void)state;
  static const char *const bad[] = {
      "",           "|",         "touchpoint|",     "|channel",    "all|channel",
      "Touchpoint", "touchpoin", "channel|channel", "touchpointx", "channel||stage"};
  livenps_rollup rollup;
  livenps_error error = {0};
  assert_int_equal(livenps_rollup_parse("all", &rollup, &error), 0);
  assert_int_equal(rollup.count, 0);
  assert_int_equal(livenps_rollup_parse("stage|touchpoint|segment|channel", &rollup, &error), 0);
  assert_int_equal(rollup.count, 4);
  assert_int_equal(rollup.dimensions[0], 3);
  assert_int_equal(rollup.dimensions[1], 0);
  assert_string_equal(rollup.name, "stage|touchpoint|segment|channel");
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    livenps_error_clear(&error);
    assert_int_equal(livenps_rollup_parse(bad[i], &rollup, &error), -1);
    assert_int_equal(error.code, LIVENPS_E_USAGE);
  }
}

static void test_help(void **state) {
  (void)state;
  livenps_buffer out = {0};
  size_t count;
  const livenps_setting *table = livenps_settings_table(&count);
  livenps_settings_help(&out);
  livenps_buffer_add(&out, "", 1);
  for (size_t i = 0; i < count; i++) {
    assert_non_null(strstr(out.at, table[i].path));
  }
  for (const char *line = out.at; *line; line += strcspn(line, "\n") + 1) {
    assert_in_range(strcspn(line, "\n"), 0, 100);
  }
  livenps_buffer_free(&out);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_defaults),
      cmocka_unit_test(test_manual),
      cmocka_unit_test(test_manual_examples),
      cmocka_unit_test(test_dump_reads_back),
      cmocka_unit_test(test_files),
      cmocka_unit_test(test_files_that_are_none),
      cmocka_unit_test(test_environment),
      cmocka_unit_test(test_every_setting_everywhere),
      cmocka_unit_test(test_set),
      cmocka_unit_test(test_paths),
      cmocka_unit_test(test_secrets_are_not_printed),
      cmocka_unit_test(test_windows),
      cmocka_unit_test(test_rollups),
      cmocka_unit_test(test_help),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
