#include "intake.h"

#include "common/clock.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { BUCKETS = 1 << 16, ROOM_FOR_THE_REST = 64 * 1024 };

typedef struct record {
  struct record *next;            /* in its bucket */
  struct record *older, *younger; /* of those that nobody was told of */
  const char *topic;
  char digest[65];      /* of the value */
  livenps_parcel *last; /* the parcel that took it last: equal events of one parcel are several */
  size_t parcels, bytes;
  enum { ON_ITS_WAY, ACKNOWLEDGED, REFUSED } state;
  const char *why;   /* librdkafka's own text */
  bool told, untold; /* untold: in that list */
  int64_t acknowledged_ms;
} record;

struct livenps_parcel {
  record **records;
  size_t count, capacity;
  size_t done; /* the first that many are acknowledged */
};

struct livenps_intake {
  livenps_sender *sender;
  int socket;
  size_t most_bytes, bytes, on_their_way;
  record **buckets;
  record *oldest, *youngest; /* acknowledged, looked at by no parcel, told to nobody */
  size_t untold;
};

/* ---- what is remembered ---- */

static record **bucket_of(livenps_intake *intake, const char *digest) {
  return &intake->buckets[livenps_hash(digest, 64) & (BUCKETS - 1)];
}

static void forget(livenps_intake *intake, record *event) {
  record **at = bucket_of(intake, event->digest);
  while (*at != event)
    at = &(*at)->next;
  *at = event->next;
  free(event);
}

static void leave_untold(livenps_intake *intake, record *event) {
  if (!event->untold)
    return;
  *(event->older ? &event->older->younger : &intake->oldest) = event->younger;
  *(event->younger ? &event->younger->older : &intake->youngest) = event->older;
  event->older = event->younger = NULL;
  event->untold = false;
  intake->untold--;
}

static void forget_oldest(livenps_intake *intake) {
  record *first = intake->oldest;
  assert(first->untold && !first->older);
  leave_untold(intake, first);
  forget(intake, first);
}

static void enter_untold(livenps_intake *intake, record *event) {
  event->older = intake->youngest;
  *(intake->youngest ? &intake->youngest->younger : &intake->oldest) = event;
  intake->youngest = event;
  event->untold = true;
  if (++intake->untold > LIVENPS_INTAKE_UNTOLD_MAX)
    forget_oldest(intake);
}

/* After its state, or who looks at it, changed. */
static void settle(livenps_intake *intake, record *event) {
  if (event->parcels || event->state == ON_ITS_WAY)
    return;
  if (event->state == REFUSED || event->told)
    forget(intake, event);
  else
    enter_untold(intake, event);
}

static void on_delivered(void *opaque, void *of_record, const char *error, int32_t partition,
                         int64_t offset) {
  (void)partition;
  (void)offset;
  livenps_intake *intake = opaque;
  record *event = of_record;
  event->state = error ? REFUSED : ACKNOWLEDGED;
  event->why = error;
  event->acknowledged_ms = livenps_monotonic_ms();
  intake->bytes -= event->bytes;
  intake->on_their_way--;
  settle(intake, event);
}

/* ---- parcels ---- */

livenps_parcel *livenps_parcel_begin(livenps_intake *intake) {
  (void)intake;
  return livenps_alloc(sizeof(livenps_parcel));
}

static void take(livenps_intake *intake, livenps_parcel *parcel, record *event) {
  if (parcel->count == parcel->capacity) {
    parcel->capacity = parcel->capacity ? parcel->capacity * 2 : 1;
    parcel->records = livenps_resize(parcel->records, parcel->capacity * sizeof *parcel->records);
  }
  parcel->records[parcel->count++] = event;
  event->last = parcel;
  event->parcels++;
  leave_untold(intake, event);
}

int livenps_parcel_add(livenps_intake *intake, livenps_parcel *parcel, const char *topic, livenps_text key,
                       livenps_text value, int64_t timestamp_ms, livenps_error *error) {
  char digest[65];
  livenps_sha256_hex(value.at, value.length, digest);
  record **bucket = bucket_of(intake, digest);
  for (record *event = *bucket; event; event = event->next)
    if (event->topic == topic && event->last != parcel && event->state != REFUSED && !event->told &&
        !memcmp(event->digest, digest, sizeof digest)) {
      take(intake, parcel, event);
      return 0;
    }
  record *event = livenps_alloc(sizeof *event);
  event->topic = topic;
  event->bytes = key.length + value.length + LIVENPS_INTAKE_RECORD_BYTES;
  memcpy(event->digest, digest, sizeof digest);
  if (livenps_sender_send(intake->sender, topic, -1, key, value, NULL, 0, timestamp_ms, event, 0, error)) {
    free(event);
    return -1;
  }
  event->next = *bucket;
  *bucket = event;
  intake->bytes += event->bytes;
  intake->on_their_way++;
  take(intake, parcel, event);
  return 0;
}

livenps_parcel_state livenps_parcel_look(livenps_parcel *parcel, const char **why) {
  for (; parcel->done < parcel->count; parcel->done++) {
    const record *event = parcel->records[parcel->done];
    if (event->state == REFUSED) {
      *why = event->why;
      return LIVENPS_PARCEL_REFUSED;
    }
    if (event->state == ON_ITS_WAY)
      return LIVENPS_PARCEL_WAITING;
  }
  return LIVENPS_PARCEL_ACKNOWLEDGED;
}

void livenps_parcel_end(livenps_intake *intake, livenps_parcel *parcel, bool told) {
  for (size_t i = 0; i < parcel->count; i++) {
    record *event = parcel->records[i];
    event->parcels--;
    event->told = event->told || (told && event->state == ACKNOWLEDGED);
    if (event->last == parcel) /* another may get its address */
      event->last = NULL;
    settle(intake, event);
  }
  free(parcel->records);
  free(parcel);
}

/* ---- the whole ---- */

bool livenps_intake_fits(const livenps_intake *intake, size_t records, size_t bytes) {
  return records <= LIVENPS_INTAKE_MAX_RECORDS &&
         bytes + records * LIVENPS_INTAKE_RECORD_BYTES <= intake->most_bytes;
}

bool livenps_intake_room(const livenps_intake *intake, size_t records, size_t bytes) {
  return livenps_intake_fits(intake, records + intake->on_their_way,
                             bytes + intake->bytes - intake->on_their_way * LIVENPS_INTAKE_RECORD_BYTES);
}

int livenps_intake_open(livenps_intake **out, const livenps_settings *settings, size_t most_bytes,
                        livenps_error *error) {
  livenps_intake *intake = livenps_alloc(sizeof *intake);
  intake->most_bytes = most_bytes;
  intake->socket = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (intake->socket < 0) {
    livenps_fail(error, LIVENPS_E_STARTUP, "serve: eventfd: %s", strerror(errno));
    free(intake);
    return -1;
  }
  /* Whatever the contract admits, the broker judges: its own limit may be higher than librdkafka's default. */
  if (livenps_sender_open(&intake->sender, settings, (int)settings->admit_max_bytes + ROOM_FOR_THE_REST,
                          on_delivered, intake, error)) {
    close(intake->socket);
    free(intake);
    return -1;
  }
  static const uint64_t one = 1;
  rd_kafka_queue_t *queue = rd_kafka_queue_get_main(livenps_sender_handle(intake->sender));
  rd_kafka_queue_io_event_enable(queue, intake->socket, &one, sizeof one);
  rd_kafka_queue_destroy(queue);
  intake->buckets = livenps_alloc(BUCKETS * sizeof *intake->buckets);
  *out = intake;
  return 0;
}

void livenps_intake_close(livenps_intake *intake) {
  if (!intake)
    return;
  livenps_sender_close(intake->sender);
  for (size_t i = 0; i < BUCKETS; i++)
    while (intake->buckets[i]) {
      record *event = intake->buckets[i];
      intake->buckets[i] = event->next;
      free(event);
    }
  free(intake->buckets);
  close(intake->socket);
  free(intake);
}

livenps_sender *livenps_intake_sender(livenps_intake *intake) {
  return intake->sender;
}

int livenps_intake_socket(const livenps_intake *intake) {
  return intake->socket;
}

size_t livenps_intake_untold(const livenps_intake *intake) {
  return intake->untold;
}

void livenps_intake_poll(livenps_intake *intake, int64_t now_ms) {
  uint64_t count;
  /* Before the poll: what comes after it wakes again. */
  while (read(intake->socket, &count, sizeof count) > 0)
    continue;
  livenps_sender_poll(intake->sender, 0);
  while (intake->oldest && now_ms - intake->oldest->acknowledged_ms > LIVENPS_INTAKE_UNTOLD_MS)
    forget_oldest(intake);
}
