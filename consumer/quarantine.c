#include "quarantine.h"

#include "../common/clock.h"
#include "../common/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
  LARGEST =
      64 * 1024 * 1024, /* what librdkafka may be handed; a broker's own limit is met by cutting, see put() */
  CUT = 512 * 1024,     /* first cut; halved while the broker refuses even that */
  CUT_LEAST = 1024,
  FULL_WAIT_MS = 20,
};

struct livenps_quarantine {
  livenps_sender *sender;
  const char *suffix;
  size_t
      most; /* bytes of a record's value, key and headers that the broker took so far; what is larger is cut */
  bool too_large; /* it refused one since the last settlement */
  size_t failed;
  uint64_t written;
  char reason[160];
  livenps_header *headers;
  size_t header_capacity;
};

static void delivered(void *opaque, void *record, const char *error, int32_t partition, int64_t offset) {
  (void)record, (void)partition, (void)offset;
  livenps_quarantine *quarantine = opaque;
  if (!error) {
    quarantine->written++;
    return;
  }
  if (!quarantine->failed++)
    snprintf(quarantine->reason, sizeof quarantine->reason, "%s", error);
  if (!strcmp(error, rd_kafka_err2str(RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE)))
    quarantine->too_large = true;
}

int livenps_quarantine_open(livenps_quarantine **out, const livenps_settings *settings,
                            livenps_error *error) {
  livenps_quarantine *quarantine = livenps_alloc(sizeof *quarantine);
  quarantine->suffix = settings->quarantine_suffix;
  quarantine->most = SIZE_MAX;
  /* A rejected record may be of any size. */
  const int result =
      livenps_sender_open(&quarantine->sender, settings, LARGEST, delivered, quarantine, error);
  if (result) {
    free(quarantine);
    return -1;
  }
  *out = quarantine;
  return 0;
}

void livenps_quarantine_close(livenps_quarantine *quarantine) {
  if (!quarantine)
    return;
  livenps_sender_close(quarantine->sender);
  free(quarantine->headers);
  free(quarantine);
}

static void topic_name(const livenps_quarantine *quarantine, const char *topic, char out[512]) {
  snprintf(out, 512, "%.249s%.200s", topic, quarantine->suffix);
}

void livenps_quarantine_prepare(livenps_quarantine *quarantine, const livenps_settings *settings) {
  /* Rejected records are evidence: keep them longer than the default week, and let large ones in. The broker's time, because it refuses
   * that of a machine whose clock is wrong, and then reading stands still. */
  static const char *const config[] = {
      "retention.ms",  "2592000000", "max.message.bytes", "10485760", "message.timestamp.type",
      "LogAppendTime", NULL};
  rd_kafka_t *rk = livenps_sender_handle(quarantine->sender);
  if (livenps_embedded_cluster(rk, 5000))
    return;
  for (size_t i = 0; i < settings->topics.count; i++) {
    char topic[512];
    livenps_error error = {0};
    topic_name(quarantine, settings->topics.at[i], topic);
    const int partitions = livenps_kafka_partitions(rk, topic, 5000, &error);
    if (partitions > 0)
      continue;
    if (partitions < 0 || livenps_kafka_create_topic(rk, topic, 1, -1, config, 3000, &error))
      livenps_log(LIVENPS_WARN, "quarantine",
                  "topic %s could not be made (%s): create it, else the first rejected record waits for it",
                  topic, error.text);
    else
      livenps_log(LIVENPS_INFO, "quarantine", "made topic %s", topic);
  }
}

static void add_header(livenps_quarantine *quarantine, size_t *count, const char *name, livenps_text value) {
  if (*count == quarantine->header_capacity) {
    quarantine->header_capacity = quarantine->header_capacity ? quarantine->header_capacity * 2 : 32;
    quarantine->headers =
        livenps_resize(quarantine->headers, quarantine->header_capacity * sizeof *quarantine->headers);
  }
  quarantine->headers[(*count)++] = (livenps_header){livenps_text_of(name), value};
}

/* Once for all that were refused together. */
static void cut_more(livenps_quarantine *quarantine) {
  quarantine->most = quarantine->most > CUT             ? CUT
                     : quarantine->most > 2 * CUT_LEAST ? quarantine->most / 2
                                                        : CUT_LEAST;
  quarantine->too_large = false;
}

int livenps_quarantine_put(livenps_quarantine *quarantine, const char *topic, int32_t partition,
                           int64_t offset, const livenps_record *record, livenps_reason reason,
                           const livenps_where *where, livenps_error *error) {
  char target[512], key[300], partition_text[16], offset_text[24], timestamp[24], length[24];
  topic_name(quarantine, topic, target);
  snprintf(key, sizeof key, "%.249s/%d/%" PRId64, topic, partition, offset);
  snprintf(partition_text, sizeof partition_text, "%d", partition);
  snprintf(offset_text, sizeof offset_text, "%" PRId64, offset);
  snprintf(timestamp, sizeof timestamp, "%" PRId64, record->timestamp_ms);

  size_t count = 0;
  livenps_text value = record->value;
  add_header(quarantine, &count, "livenps-reason", livenps_text_of(livenps_reason_name(reason)));
  add_header(quarantine, &count, "livenps-detail",
             livenps_text_of(where && *where->detail ? where->detail : livenps_reason_text(reason)));
  add_header(quarantine, &count, "livenps-topic", livenps_text_of(topic));
  add_header(quarantine, &count, "livenps-partition", livenps_text_of(partition_text));
  add_header(quarantine, &count, "livenps-offset", livenps_text_of(offset_text));
  add_header(quarantine, &count, "livenps-timestamp", livenps_text_of(timestamp));
  size_t whole = record->key.length + value.length;
  for (size_t i = 0; i < record->header_count; i++)
    whole += record->headers[i].name.length + record->headers[i].value.length;
  livenps_text original_key = record->key;
  const bool cut = whole > quarantine->most;
  if (cut && original_key.length > quarantine->most / 4)
    original_key.length = quarantine->most / 4;
  if (original_key.at)
    add_header(quarantine, &count, "livenps-key", original_key);
  if (cut) {
    /* Better the beginning and the true length than a partition that stands still for one record. */
    snprintf(length, sizeof length, "%zu", value.length);
    add_header(quarantine, &count, "livenps-cut-from", livenps_text_of(length));
    if (value.length > quarantine->most / 2)
      value.length = quarantine->most / 2;
  } else {
    for (size_t i = 0; i < record->header_count; i++) {
      add_header(quarantine, &count, "", record->headers[i].value);
      quarantine->headers[count - 1].name = record->headers[i].name;
    }
  }
  if (!livenps_sender_send(quarantine->sender, target, -1, livenps_text_of(key), value, quarantine->headers,
                           count, 0, NULL, FULL_WAIT_MS, error))
    return 0;
  if (error->code == LIVENPS_E_DATA) /* larger than librdkafka takes: smaller when it is read again */
    cut_more(quarantine);
  return -1;
}

size_t livenps_quarantine_pending(const livenps_quarantine *quarantine) {
  return livenps_sender_pending(quarantine->sender);
}

uint64_t livenps_quarantine_written(const livenps_quarantine *quarantine) {
  return quarantine->written;
}

int livenps_quarantine_settle(livenps_quarantine *quarantine, int wait_ms, livenps_error *error) {
  const int64_t until = livenps_monotonic_ms() + wait_ms;
  livenps_sender_poll(quarantine->sender, 0);
  while (livenps_sender_pending(quarantine->sender) && livenps_monotonic_ms() < until)
    livenps_sender_poll(quarantine->sender, 5);
  if (livenps_sender_pending(quarantine->sender))
    return 0;
  if (!quarantine->failed)
    return 1;
  livenps_fail(error, LIVENPS_E_LOST, "%zu rejected records could not be quarantined: %s", quarantine->failed,
               quarantine->reason);
  quarantine->failed = 0;
  if (quarantine->too_large)
    cut_more(quarantine);
  return -1;
}
