#include "probe.h"

#include "../common/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  TIMES = 3, /* the first offset must fail so often: a reply that was damaged on its way is no reason */
  SILENCE_MS = 5000
};

/* -- the hunt -------------------------------------------------------------------------------------------------------- */

void livenps_hunt_begin(livenps_hunt *hunt, int64_t from, int64_t end) {
  *hunt = (livenps_hunt){.from = from, .end = end, .behind = -1, .bad = from, .offset = from};
}

static livenps_hunt_state readable(livenps_hunt *hunt) {
  if (hunt->step == 0)
    return LIVENPS_HUNT_FINE;
  hunt->behind = hunt->offset;
  if (hunt->bad == hunt->offset) { /* it had failed by accident, and so may others have; but not from */
    hunt->bad = hunt->from;
    hunt->failed = TIMES;
  }
  return LIVENPS_HUNT_ON;
}

static livenps_hunt_state unreadable(livenps_hunt *hunt) {
  if (hunt->offset >= hunt->end)
    return LIVENPS_HUNT_UNKNOWN;
  hunt->failed = hunt->offset == hunt->bad ? hunt->failed + 1 : 1;
  hunt->bad = hunt->offset;
  if (hunt->step == 0 && hunt->failed < TIMES)
    return LIVENPS_HUNT_ON;
  if (hunt->behind < 0)
    hunt->step = hunt->step ? hunt->step * 2 : 1;
  return LIVENPS_HUNT_ON;
}

/* Ever larger steps until something can be read, then halves between that and the last that could not. That one must fail again and
 * again: it decides what is left out. */
static livenps_hunt_state next(livenps_hunt *hunt) {
  if (hunt->step == 0) {
    hunt->offset = hunt->from;
  } else if (hunt->behind < 0) {
    hunt->offset = hunt->step < hunt->end - hunt->bad ? hunt->bad + hunt->step : hunt->end;
  } else if (hunt->behind - hunt->bad <= 1) {
    hunt->offset = hunt->bad;
    return hunt->failed < TIMES ? LIVENPS_HUNT_ON : LIVENPS_HUNT_UNREADABLE;
  } else {
    hunt->offset = hunt->bad + (hunt->behind - hunt->bad) / 2;
  }
  return LIVENPS_HUNT_ON;
}

livenps_hunt_state livenps_hunt_take(livenps_hunt *hunt, livenps_sign sign) {
  livenps_hunt_state state;
  if (hunt->asking_the_end) {
    hunt->asking_the_end = false;
    if (sign != LIVENPS_SIGN_READ)
      return LIVENPS_HUNT_UNKNOWN;
    state = unreadable(hunt);
  } else if (sign == LIVENPS_SIGN_SILENCE) {
    /* Here nothing comes, there something does: then it is the records. */
    hunt->asking_the_end = true;
    return hunt->offset >= hunt->end ? LIVENPS_HUNT_UNKNOWN : LIVENPS_HUNT_ON;
  } else {
    state = sign == LIVENPS_SIGN_READ ? readable(hunt) : unreadable(hunt);
  }
  return state == LIVENPS_HUNT_ON ? next(hunt) : state;
}

/* -- asked of Kafka -------------------------------------------------------------------------------------------------- */

bool livenps_probe_unreadable(rd_kafka_resp_err_t code) {
  return code == RD_KAFKA_RESP_ERR__BAD_COMPRESSION || code == RD_KAFKA_RESP_ERR__BAD_MSG ||
         code == RD_KAFKA_RESP_ERR__NOT_IMPLEMENTED || code == RD_KAFKA_RESP_ERR_INVALID_MSG;
}

struct livenps_probe {
  livenps_hunt hunt;
  rd_kafka_t *rk;
  char topic[250];
  int32_t partition;
  bool asked;
  int64_t until_ms;
  char reason[256];
};

int livenps_probe_open(livenps_probe **out, const livenps_settings *settings, const char *topic,
                       int32_t partition, int64_t from, int64_t end, livenps_error *error) {
  rd_kafka_t *rk;
  static const char *const config[] = {"isolation.level", "read_uncommitted", "fetch.error.backoff.ms", "10",
                                       NULL};
  if (livenps_kafka_open_groupless(&rk, settings, config, error))
    return -1;
  livenps_probe *probe = livenps_alloc(sizeof *probe);
  *probe = (livenps_probe){
      .rk = rk, .partition = partition, .reason = "nothing comes, and behind it something does"};
  snprintf(probe->topic, sizeof probe->topic, "%s", topic);
  livenps_hunt_begin(&probe->hunt, from, end);
  *out = probe;
  return 0;
}

static void ask(livenps_probe *probe) {
  const livenps_hunt *hunt = &probe->hunt;
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
  rd_kafka_topic_partition_list_add(list, probe->topic, probe->partition)->offset =
      hunt->asking_the_end ? hunt->end : hunt->offset;
  /* An assignment of its own for every question: nothing of the last one can be taken for the answer. */
  rd_kafka_assign(probe->rk, NULL);
  rd_kafka_assign(probe->rk, list);
  rd_kafka_topic_partition_list_destroy(list);
  probe->asked = true;
  probe->until_ms = livenps_monotonic_ms() + SILENCE_MS;
}

/* What one message says about the offset that was asked for; false: nothing. */
static bool sign_of(livenps_probe *probe, const rd_kafka_message_t *message, livenps_sign *sign) {
  const livenps_hunt *hunt = &probe->hunt;
  const int64_t asked = hunt->asking_the_end ? hunt->end : hunt->offset;
  if (!message->rkt || message->partition != probe->partition)
    return false;
  if ((!message->err || message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) && message->offset >= asked) {
    *sign = LIVENPS_SIGN_READ;
    return true;
  }
  if (!livenps_probe_unreadable(message->err))
    return false;
  /* The error names the first offset of its batch. */
  *sign = message->offset > hunt->from ? LIVENPS_SIGN_READ : LIVENPS_SIGN_ERROR;
  if (*sign == LIVENPS_SIGN_READ)
    return true;
  snprintf(probe->reason, sizeof probe->reason, "%s", rd_kafka_message_errstr(message));
  return true;
}

livenps_hunt_state livenps_probe_step(livenps_probe *probe, int64_t *behind, const char **reason) {
  if (!probe->asked)
    ask(probe);
  rd_kafka_message_t *message = rd_kafka_consumer_poll(probe->rk, 0);
  livenps_sign sign = LIVENPS_SIGN_SILENCE;
  const bool answered = message && sign_of(probe, message, &sign);
  if (message)
    rd_kafka_message_destroy(message);
  if (!answered && livenps_monotonic_ms() < probe->until_ms)
    return LIVENPS_HUNT_ON;
  probe->asked = false;
  const livenps_hunt_state state = livenps_hunt_take(&probe->hunt, sign);
  *behind = probe->hunt.behind;
  *reason = probe->reason;
  return state;
}

bool livenps_probe_is_of(const livenps_probe *probe, const char *topic, int32_t partition, int64_t from) {
  return probe->partition == partition && probe->hunt.from == from && !strcmp(probe->topic, topic);
}

void livenps_probe_close(livenps_probe *probe) {
  if (!probe)
    return;
  /* No group was joined; leaving it all the same would wait for a broker. */
  livenps_kafka_close(probe->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
  free(probe);
}
