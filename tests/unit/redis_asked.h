#ifndef LIVENPS_TEST_REDIS_ASKED_H
#define LIVENPS_TEST_REDIS_ASKED_H

/* A test's own view of its private redis-server, past the program and past a relay. Include cmocka.h before. */

#include "tests/unit/redis_server.h"

static livenps_redis *redis;
static livenps_error error;

/* Its words are separated by spaces after formatting, a ^ in a word stands for a space; a refusal fails the test. */
__attribute__((format(printf, 1, 2))) static inline livenps_reply *command(const char *format, ...) {
  char line[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  const char *argv[32];
  int argc = 0;
  for (char *save = NULL, *word = strtok_r(line, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
    for (char *at = word; (at = strchr(at, '^'));)
      *at = ' ';
    argv[argc++] = word;
  }
  livenps_reply *reply = livenps_redis_command(redis, &error, argc, argv, NULL);
  if (!reply)
    fail_msg("%s: %s", format, error.text);
  return reply;
}

static inline void run(const char *line) {
  livenps_reply_free(command("%s", line));
}

/* -999: nil. */
static inline int64_t number(const char *line) {
  livenps_reply *reply = command("%s", line);
  int64_t value = -999;
  if (!livenps_reply_integer(reply, &value) && !livenps_reply_is_nil(reply))
    fail_msg("%s: no number", line);
  livenps_reply_free(reply);
  return value;
}

/* The value as text, valid until the fourth call after this one. */
static inline const char *text(const char *line) {
  static char texts[4][256];
  static int next;
  char *out = texts[next++ % 4];
  livenps_reply *reply = command("%s", line);
  livenps_text value;
  snprintf(out, 256, "(nil)");
  if (livenps_reply_text(reply, &value))
    snprintf(out, 256, "%.*s", (int)value.length, value.at);
  livenps_reply_free(reply);
  return out;
}

static inline int64_t redis_now(void) {
  livenps_reply *reply = command("TIME");
  int64_t seconds = 0, micros = 0;
  assert_true(livenps_reply_integer(livenps_reply_item(reply, 0), &seconds));
  assert_true(livenps_reply_integer(livenps_reply_item(reply, 1), &micros));
  livenps_reply_free(reply);
  return seconds * 1000 + micros / 1000;
}

#endif
