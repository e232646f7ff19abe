#include "history.h"

#include "common/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int read_number(const char *name, const char *text, int64_t *number, livenps_error *error) {
  char *end;
  errno = 0;
  const long long value = strtoll(text, &end, 10);
  if (errno || end == text || *end)
    return livenps_fail(error, LIVENPS_E_DATA, "kafka: %s is '%.40s', not a number", name, text);
  *number = value;
  return 0;
}

int livenps_history_read(livenps_history *history, rd_kafka_t *rk, const char *topic, int timeout_ms,
                         livenps_error *error) {
  /* The last one is what brokers before 3.6 have in place of the two above it. */
  enum { RETENTION, TYPE, BEFORE, AFTER, DIFFERENCE, NAMES };
  static const char *const names[NAMES] = {
      "retention.ms", "message.timestamp.type", "message.timestamp.before.max.ms",
      "message.timestamp.after.max.ms", "message.timestamp.difference.max.ms"};
  *history = (livenps_history)LIVENPS_HISTORY_ANY;
  if (livenps_embedded_cluster(rk, timeout_ms))
    return 0;
  char *values[NAMES];
  if (livenps_kafka_topic_config(rk, topic, names, NAMES, values, timeout_ms, error)) {
    char why[sizeof error->text];
    memcpy(why, error->text, sizeof why);
    livenps_error_clear(error);
    return livenps_fail(
        error, LIVENPS_E_REFUSED,
        "history is not written to %s before its retention is known, and it could not be read "
        "(is DescribeConfigs allowed?): %.300s",
        topic, why);
  }
  int result = 0;
  if (values[RETENTION])
    result |= read_number(names[RETENTION], values[RETENTION], &history->retention_ms, error);
  if (values[DIFFERENCE] && !values[BEFORE]) {
    result |= read_number(names[DIFFERENCE], values[DIFFERENCE], &history->before_ms, error);
    history->after_ms = history->before_ms;
  }
  if (values[BEFORE])
    result |= read_number(names[BEFORE], values[BEFORE], &history->before_ms, error);
  if (values[AFTER])
    result |= read_number(names[AFTER], values[AFTER], &history->after_ms, error);
  history->append_time = values[TYPE] && !strcmp(values[TYPE], "LogAppendTime");
  for (int i = 0; i < NAMES; i++)
    free(values[i]);
  return result ? -1 : 0;
}

int livenps_history_judge(const livenps_history *history, const char *topic, int64_t oldest_ms,
                          int64_t newest_ms, int64_t now_ms, livenps_error *error) {
  char oldest[32], newest[32];
  livenps_time_print(oldest_ms, oldest);
  livenps_time_print(newest_ms, newest);
  const int64_t age_ms = now_ms - oldest_ms, ahead_ms = newest_ms - now_ms;
  if (history->append_time)
    return livenps_fail(error, LIVENPS_E_REFUSED,
                        "topic %s overwrites record timestamps, so events of %s would be judged late: set "
                        "message.timestamp.type=CreateTime on the topic",
                        topic, oldest);
  if (history->retention_ms >= 0 && age_ms >= history->retention_ms)
    return livenps_fail(error, LIVENPS_E_REFUSED,
                        "topic %s keeps records for retention.ms=%" PRId64
                        ", and these begin at %s: the broker would delete "
                        "them within minutes. Set retention.ms=-1 (or more than %" PRId64
                        ") on the topic, and again when the "
                        "history is no longer needed",
                        topic, history->retention_ms, oldest, age_ms);
  if (age_ms > history->before_ms)
    return livenps_fail(error, LIVENPS_E_REFUSED,
                        "topic %s refuses records older than message.timestamp.before.max.ms=%" PRId64
                        ", and these begin at "
                        "%s: set it to more than %" PRId64
                        " on the topic (message.timestamp.difference.max.ms before Kafka 3.6)",
                        topic, history->before_ms, oldest, age_ms);
  if (ahead_ms > history->after_ms)
    return livenps_fail(error, LIVENPS_E_REFUSED,
                        "topic %s refuses records further ahead than message.timestamp.after.max.ms=%" PRId64
                        ", and these end "
                        "at %s: set it to more than %" PRId64
                        " on the topic, or begin earlier (fewer events, --start)",
                        topic, history->after_ms, newest, ahead_ms);
  return 0;
}
