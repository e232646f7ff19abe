#ifndef LIVENPS_PROBE_H
#define LIVENPS_PROBE_H

#include "../common/kafka.h"

/* Finds out why a partition stands still, and where reading can go on. A batch of records that cannot be decompressed or taken apart stops
 * librdkafka for good: with the same error twice a second, or, when what was decompressed makes no sense, without a word; and it
 * does not say where the batch ends. So another handle reads at ever further offsets: every offset of the batch fails, the first behind
 * it does not. Only answers count: as long as nobody answers, nothing is said to be unreadable.
 *
 * Where librdkafka fails without a word, two such batches close to each other can take what lies between with them. */

/* -- the hunt for the end: pure ------------------------------------------------------------------------------------------------ */

typedef enum {
  LIVENPS_SIGN_READ, /* a record at or behind the offset came, the end of the partition, or the error of another batch */
  LIVENPS_SIGN_ERROR, /* the batch of `from` cannot be read */
  LIVENPS_SIGN_SILENCE
} livenps_sign;

typedef enum {
  LIVENPS_HUNT_ON,
  LIVENPS_HUNT_FINE,       /* readable: whoever stands there waits for something else */
  LIVENPS_HUNT_UNREADABLE, /* from `from` to before `behind` */
  LIVENPS_HUNT_UNKNOWN     /* nobody answers now */
} livenps_hunt_state;

typedef struct {
  int64_t from, end;   /* end: one that the partition has, so that something must come from there */
  int64_t behind;      /* the lowest offset that was read; valid when UNREADABLE */
  int64_t bad;         /* the highest that was not */
  int64_t step;        /* 0: from has not failed often enough yet */
  int failed;          /* how often bad has, one after the other */
  bool asking_the_end; /* because of a silence: does anybody answer at all? */
  int64_t offset;      /* what to ask next */
} livenps_hunt;

void livenps_hunt_begin(livenps_hunt *hunt, int64_t from, int64_t end);
livenps_hunt_state livenps_hunt_take(livenps_hunt *hunt, livenps_sign sign);

/* -- asked of Kafka ---------------------------------------------------------------------------------------------------- */

/* Whether a partition's error says that Kafka handed out what librdkafka cannot read. */
bool livenps_probe_unreadable(rd_kafka_resp_err_t code);

typedef struct livenps_probe livenps_probe;

/* Begins a hunt on a handle of its own: read_uncommitted, so that an open transaction is nothing unreadable. end: an offset that the
 * partition is known to reach, behind from. */
int livenps_probe_open(livenps_probe **out, const livenps_settings *settings, const char *topic,
                       int32_t partition, int64_t from, int64_t end, livenps_error *error);
/* Never waits; to be called every now and then. *behind is set when UNREADABLE, *reason to librdkafka's words (borrowed). */
livenps_hunt_state livenps_probe_step(livenps_probe *probe, int64_t *behind, const char **reason);
bool livenps_probe_is_of(const livenps_probe *probe, const char *topic, int32_t partition, int64_t from);
void livenps_probe_close(livenps_probe *probe);

#endif
