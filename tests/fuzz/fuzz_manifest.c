/* The snapshots' topic in Kafka, to which anybody may have written: manifests, and records under any key. Nothing may crash or
 * run on; what is accepted encodes to the bytes that mean the same; the choice among several is one order.
 *
 * Input: 'M', then a manifest; or 'T', then records: key, value (each a length and bytes; a value of one byte 0 is a
 * tombstone). */
#include "tests/fuzz/fuzz.h"

#include "common/log.h"
#include "consumer/keep.h"

enum { RECORDS = 64 };

static int sign(int value) {
  return (value > 0) - (value < 0);
}

static void use(const livenps_manifest *manifest) {
  livenps_beginning now[2] = {{.topic = "t", .partition = 0, .start = 3}, {.topic = "t", .partition = 1}};
  livenps_buffer first = {0}, second = {0};
  livenps_manifest again;
  livenps_error error = {0};
  char why[256] = "";
  livenps_manifest_encode(manifest, &first);
  EXPECT(livenps_manifest_decode(&again, first.at, first.length, &error) == 0, "%s: %.*s", error.text,
         (int)first.length, first.at);
  livenps_manifest_encode(&again, &second);
  EXPECT(text_is((livenps_text){first.at, first.length}, second.at, second.length), "%.*s\n%.*s",
         (int)first.length, first.at, (int)second.length, second.at);
  HOLDS(livenps_manifest_compare(manifest, &again) == 0);
  HOLDS(!livenps_manifest_ahead(manifest, &again) && !livenps_manifest_ahead(&again, manifest));
  if (!livenps_manifest_reaches(manifest, now, 2, why)) {
    HOLDS(why[0] && memchr(why, 0, sizeof why));
  }
  HOLDS(livenps_manifest_overtaken(manifest, now, 2, why) >= 0);
  HOLDS(!livenps_manifest_better(manifest, &again, now, 2) &&
        !livenps_manifest_better(manifest, &again, NULL, 0));
  livenps_manifest_free(&again);
  livenps_buffer_free(&first);
  livenps_buffer_free(&second);
}

static void one(const char *bytes, size_t length) {
  livenps_manifest manifest;
  livenps_error error = {0};
  if (livenps_manifest_decode(&manifest, bytes, length, &error) != 0) {
    EXPECT(error.code == LIVENPS_E_DATA, "%d", (int)error.code);
    expect_error(&error);
    return;
  }
  use(&manifest);
  livenps_manifest_free(&manifest);
}

static void topic(const char *at, const char *end) {
  livenps_recall recall = {0};
  livenps_text key, value;
  int64_t offset = 0;
  while (offset < RECORDS && at < end && livenps_get_text(&at, end, &key) == 0 &&
         livenps_get_text(&at, end, &value) == 0) {
    if (value.length == 1 && *value.at == 0) {
      value = (livenps_text){NULL, 0};
    }
    livenps_recall_note(&recall, key, offset++, value);
  }
  for (size_t i = 0; i < recall.count; i++) {
    const livenps_recall_record *record = &recall.at[i];
    HOLDS(livenps_recall_find(&recall, record->key) == record);
    if (!record->manifest) {
      continue;
    }
    use(record->manifest);
    livenps_recall_complete(&recall, record->manifest);
    for (size_t j = 0; j < i; j++) {
      const livenps_manifest *other = recall.at[j].manifest;
      if (other) {
        int order = livenps_manifest_compare(record->manifest, other);
        HOLDS(sign(order) == -sign(livenps_manifest_compare(other, record->manifest)));
      }
    }
  }
  livenps_recall_free(&recall);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  livenps_log_level((livenps_level)-1); /* nothing: a line for every input would hide the findings */
  const char *bytes = (const char *)data;
  if (size && bytes[0] == 'M') {
    one(bytes + 1, size - 1);
  } else if (size && bytes[0] == 'T') {
    topic(bytes + 1, bytes + size);
  }
  return 0;
}
