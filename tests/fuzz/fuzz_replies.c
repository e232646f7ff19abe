/* Redis's replies, from any bytes whatever: hiredis parses them as it does a server's, and the program's own functions read
 * them: connecting, the aggregator's ticks, the writer's adopting and committing, the commands `table` and `log`. Nothing may
 * crash, overflow or run on; a failure says why; and what is printed for a terminal holds nothing that steers it.
 *
 * The calls into hiredis that would reach for a socket are defined here; the executable's own win over the library's.
 *
 * Input: a letter (below: `scenes`), small when the answers to the questions asked on connecting come from the input too;
 * then replies, one for each command. "+LOST" stands for a time-out, and behind the last reply every server is gone. */
#include "tests/fuzz/fuzz.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/rules.h"
#include "consumer/aggregate.h"
#include "consumer/commands.h"
#include "consumer/commit.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <strings.h>

/* The admit hash that the recorded inputs name. */
#define ADMIT "00000000000000000000000000000000000000000000000000000000000000aa"

/* ---- the server ---- */

static redisReader *replies;
static bool asked_too, ended;

static redisReply *parsed(redisReader *reader, redisContext *context) {
  void *reply = NULL;
  if (redisReaderGetReply(reader, &reply) != REDIS_OK) {
    context->err = REDIS_ERR_PROTOCOL;
    snprintf(context->errstr, sizeof context->errstr, "%s", reader->errstr);
    return NULL;
  }
  return reply;
}

static redisReply *answer(redisContext *context, const char *text) {
  redisReader *reader = redisReaderCreate();
  redisReaderFeed(reader, text, strlen(text));
  redisReply *reply = parsed(reader, context);
  redisReaderFree(reader);
  return reply;
}

static redisReply *next_reply(redisContext *context) {
  redisReply *reply = ended ? NULL : parsed(replies, context);
  if (!reply) {
    ended = true;
    context->err = context->err ? context->err : REDIS_ERR_EOF;
    errno = 0;
    return NULL;
  }
  if (reply->type == REDIS_REPLY_STATUS && strcmp(reply->str, "LOST") == 0) {
    freeReplyObject(reply);
    context->err = REDIS_ERR_IO;
    errno = EAGAIN;
    return NULL;
  }
  return reply;
}

redisContext *redisConnectWithTimeout(const char *host, int port, const struct timeval timeout) {
  (void)host;
  (void)port;
  (void)timeout;
  redisContext *context = calloc(1, sizeof *context);
  if (ended) {
    context->err = REDIS_ERR_IO;
    errno = ECONNREFUSED;
  }
  return context;
}

void redisFree(redisContext *context) {
  free(context);
}

int redisSetTimeout(redisContext *context, const struct timeval timeout) {
  (void)context;
  (void)timeout;
  return REDIS_OK;
}

int redisEnableKeepAlive(redisContext *context) {
  (void)context;
  return REDIS_OK;
}

void *redisCommandArgv(redisContext *context, int argc, const char **argv, const size_t *lengths) {
  static const struct {
    const char *command, *answer;
  } usual[] = {{"AUTH", "+OK\r\n"},
               {"ROLE", "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"},
               {"INFO", "$49\r\nredis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\n"},
               {"SELECT", "+OK\r\n"},
               {"CLIENT", "+OK\r\n"}};
  size_t sum = 0;
  for (int i = 0; i < argc; i++) { /* every argument can be read */
    size_t length = lengths ? lengths[i] : strlen(argv[i]);
    for (size_t c = 0; c < length; c++) {
      sum += (unsigned char)argv[i][c];
    }
  }
  EXPECT(argc > 0 && sum > 0, "%d arguments", argc);
  for (size_t i = 0; !asked_too && i < sizeof usual / sizeof *usual; i++) {
    if (strcmp(argv[0], usual[i].command) == 0) {
      return answer(context, usual[i].answer);
    }
  }
  return next_reply(context);
}

void *redisvCommand(redisContext *context, const char *format, va_list arguments) {
  (void)format;
  (void)arguments;
  return next_reply(context);
}

/* ---- what reads the replies ---- */

static livenps_settings settings;

static int beginnings(void *opaque, int64_t since_ms, livenps_beginning **out, size_t *count,
                      livenps_error *error) {
  (void)opaque;
  (void)since_ms;
  (void)error;
  *out = livenps_alloc(2 * sizeof **out);
  for (int i = 0; i < 2; i++) {
    snprintf((*out)[i].topic, sizeof(*out)[i].topic, "t");
    (*out)[i].partition = i;
    (*out)[i].start = 7 * i;
    (*out)[i].covered_since_ms = -i;
  }
  *count = 2;
  return 0;
}

static bool partitions(void *opaque, size_t *total) {
  (void)opaque;
  *total = 2;
  return true;
}

static void aggregate(bool replay) {
  enum { TICKS = 6 };
  livenps_aggregate *aggregate = NULL;
  livenps_error error = {0};
  livenps_pair extra = {(char *)(uintptr_t) "note", (char *)(uintptr_t) "kept"};
  livenps_aggregate_config config = {.settings = &settings,
                                     .admit_hash = ADMIT,
                                     .instance = "fuzz",
                                     .source = {beginnings, partitions, NULL},
                                     .replay = replay,
                                     .to_ms = INT64_C(1800000000000),
                                     .extra = &extra,
                                     .extra_count = 1};
  EXPECT(livenps_aggregate_open(&aggregate, &config, &error) == 0, "%s", error.text);
  for (int tick = 0; tick < TICKS && !ended; tick++) {
    livenps_error_clear(&error);
    if (livenps_aggregate_tick(aggregate, &error) != 0) {
      expect_error(&error);
    }
  }
  livenps_error_clear(&error);
  if (replay && livenps_aggregate_finish(aggregate, config.to_ms, &error) != 0) {
    expect_error(&error);
  }
  livenps_aggregate_close(aggregate);
}

static void live(void) {
  aggregate(false);
}

static void replay(void) {
  aggregate(true);
}

static void commits(void) {
  enum { ROUNDS = 4 };
  static const char value[] = "{\"id\":\"x\",\"type\":\"answer\",\"time\":\"2026-11-21T10:15:00Z\","
                              "\"touchpoint\":\"t\",\"scale\":\"nps\",\"score\":9}";
  livenps_error error = {0};
  livenps_commit commit;
  livenps_batch batch;
  livenps_mapping *mapping;
  livenps_admission admission;
  livenps_rules_admission(&admission, &settings);
  EXPECT(livenps_mapping_default(&mapping, &error) == 0, "%s", error.text);
  livenps_batch_init(&batch, &admission);
  livenps_batch_open(&batch, "t", 0, mapping, 0);
  livenps_batch_open(&batch, "t", 1, mapping, 5);
  EXPECT(livenps_commit_open(&commit, &settings, ADMIT, "fuzz", &error) == 0, "%s", error.text);
  for (int round = 0; round < ROUNDS && !ended; round++) {
    bool seek[2] = {false, false};
    livenps_error_clear(&error);
    if (livenps_commit_adopt(&commit, &batch, seek, &error) != LIVENPS_ADOPTED) {
      expect_error(&error);
      continue;
    }
    EXPECT(strlen(commit.lineage) <= 32 && strcmp(commit.admit, ADMIT) == 0, "%s", commit.lineage);
    for (int i = 0; i < 2; i++) {
      livenps_lane *lane = livenps_batch_find(&batch, "t", i);
      livenps_record record = {.value = livenps_text_of(value), .timestamp_ms = INT64_C(1795255000000)};
      livenps_fate fate;
      livenps_reason reason;
      livenps_where where;
      if (lane->next >= 0 && lane->next < INT64_MAX) {
        livenps_batch_record(&batch, lane, lane->next, &record, &fate, &reason, &where);
      }
    }
    livenps_error_clear(&error);
    if (livenps_commit_flush(&commit, &batch, &error) != LIVENPS_COMMITTED) {
      expect_error(&error);
    }
  }
  livenps_commit_close(&commit);
  livenps_batch_free(&batch);
  livenps_mapping_free(mapping);
  livenps_rules_free_admission(&admission);
}

/* What a command prints for a person: whole letters, lines, nothing that steers a terminal. */
static void printing(int (*command)(void)) {
  char *text = NULL;
  size_t length = 0;
  FILE *out = stdout, *complaints = stderr;
  stdout = stderr = open_memstream(&text, &length);
  int code = command();
  fclose(stdout);
  stdout = out;
  stderr = complaints;
  EXPECT(code >= 0 && code < 8, "exit code %d", code);
  for (size_t i = 0; i < length;) {
    uint32_t letter = 0;
    size_t taken = livenps_utf8(text + i, text + length, &letter);
    EXPECT(taken > 0 && (letter == '\n' || (letter >= 0x20 && (letter < 0x7f || letter > 0x9f))),
           "U+%04X at %zu of\n%s", (unsigned)letter, i, text);
    EXPECT(letter != 0x202e && letter != 0x2028, "U+%04X at %zu of\n%s", (unsigned)letter, i, text);
    i += taken;
  }
  free(text);
}

static int table_command(void) {
  return livenps_table(&settings, &(livenps_table_options){.once = true});
}

static int log_command(void) {
  return livenps_log_command(&settings, &(livenps_log_options){.rows = true, .count = 100});
}

static void table(void) {
  printing(table_command);
}

static void commit_log(void) {
  printing(log_command);
}

static void connect_only(void) {
  livenps_redis *redis;
  livenps_error error = {0};
  EXPECT(livenps_redis_open(&redis, &settings, &error) == 0, "%s", error.text);
  for (int i = 0; i < 3; i++) {
    livenps_error_clear(&error);
    if (livenps_redis_connect(redis, &error) != 0) {
      expect_error(&error);
    }
    livenps_reply *reply = livenps_redis_commandf(redis, &error, "PING");
    int64_t number;
    livenps_reply_integer(reply, &number);
    livenps_reply_free(reply);
  }
  HOLDS(livenps_redis_log_limit(redis, &settings) > 0);
  livenps_redis_close(redis);
}

static const struct {
  char letter;
  void (*play)(void);
} scenes[] = {{'A', live},  {'R', replay},     {'C', commits},
              {'T', table}, {'L', commit_log}, {'H', connect_only}};

/* hiredis allocates for as many elements as an array claims to have, which is not what is tried here. */
static bool claims_too_much(const char *at, size_t length) {
  bool counting = false;
  size_t digits = 0;
  for (size_t i = 0; i < length; i++) {
    if (strchr("*%~>|", at[i]) && at[i]) {
      counting = true;
      digits = 0;
    } else if (at[i] == '\r') {
      counting = false;
    } else if (counting && isdigit((unsigned char)at[i]) && ++digits > 4) {
      return true;
    }
  }
  return false;
}

static void set_up(void) {
  static const char *const assignments[] = {"windows=5m/1s,1h/10s",
                                            "rollups=touchpoint,touchpoint|channel,all",
                                            "minimum_n=1",
                                            "series_max=20",
                                            "redis.url=redis://fuzz:1/1",
                                            "topics=t"};
  livenps_error error = {0};
  livenps_settings_default(&settings);
  for (size_t i = 0; i < sizeof assignments / sizeof *assignments; i++) {
    EXPECT(livenps_settings_set(&settings, assignments[i], &error) == 0, "%s", error.text);
  }
  EXPECT(livenps_settings_check(&settings, &error) == 0, "%s", error.text);
  setenv("LC_ALL", "C.UTF-8", 1);
  livenps_log_level((livenps_level)-1); /* nothing: a line for every input would hide the findings */
  int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  HOLDS(null >= 0 && dup2(null, STDOUT_FILENO) >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!settings.redis_url) {
    set_up();
  }
  if (size < 1 || claims_too_much((const char *)data + 1, size - 1)) {
    return 0;
  }
  for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++) {
    if (toupper(data[0]) == scenes[i].letter) {
      asked_too = islower(data[0]) || scenes[i].play == connect_only;
      ended = false;
      replies = redisReaderCreate();
      redisReaderFeed(replies, (const char *)data + 1, size - 1);
      scenes[i].play();
      redisReaderFree(replies);
    }
  }
  return 0;
}
