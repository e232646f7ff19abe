#include "ledger.h"

#include "../common/log.h"
#include <inttypes.h>
#include <stdlib.h>

void livenps_ledger_free(livenps_ledger *ledger) {
  for (size_t i = 0; i < ledger->count; i++) {
    free(ledger->at[i].topic);
  }
  free(ledger->at);
  *ledger = (livenps_ledger){0};
}

static int compare_texts(livenps_text a, livenps_text b) {
  size_t shorter = a.length < b.length ? a.length : b.length;
  int order = shorter ? memcmp(a.at, b.at, shorter) : 0;
  return order ? order : (a.length > b.length) - (a.length < b.length);
}

static int compare(livenps_text topic, int32_t partition, livenps_text other, int32_t other_partition) {
  int order = compare_texts(topic, other);
  return order ? order : (partition > other_partition) - (partition < other_partition);
}

/* The first line at or behind topic and partition. */
static size_t find(const livenps_ledger *ledger, livenps_text topic, int32_t partition, bool *there) {
  size_t low = 0, high = ledger->count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    const livenps_partition *line = &ledger->at[middle];
    if (compare(livenps_text_of(line->topic), line->partition, topic, partition) < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  *there = low < ledger->count &&
           compare(livenps_text_of(ledger->at[low].topic), ledger->at[low].partition, topic, partition) == 0;
  return low;
}

livenps_partition *livenps_ledger_line(livenps_ledger *ledger, livenps_text topic, int32_t partition) {
  bool there;
  size_t at = find(ledger, topic, partition, &there);
  if (!there) {
    if (ledger->count == ledger->capacity) {
      ledger->capacity = ledger->capacity ? ledger->capacity * 2 : 16;
      ledger->at = livenps_resize(ledger->at, ledger->capacity * sizeof *ledger->at);
    }
    memmove(ledger->at + at + 1, ledger->at + at, (ledger->count - at) * sizeof *ledger->at);
    ledger->at[at] =
        (livenps_partition){.topic = livenps_copy(topic.at, topic.length), .partition = partition};
    ledger->count++;
  }
  return &ledger->at[at];
}

static int advance_order(const void *a, const void *b) {
  const livenps_advance *x = *(livenps_advance *const *)a, *y = *(livenps_advance *const *)b;
  int order = compare(x->topic, x->partition, y->topic, y->partition);
  return order ? order : (x > y) - (x < y);
}

/* Kafka's own limit. A NUL would cut the name where it is kept as a string. */
static bool topic_sound(livenps_text topic) {
  return topic.at && topic.length > 0 && topic.length <= 249 && !memchr(topic.at, '\0', topic.length);
}

int livenps_ledger_check(const livenps_ledger *ledger, const livenps_entry *entry, livenps_error *error) {
  int result = 0;
  livenps_advance **sorted = livenps_alloc(entry->advance_count * sizeof *sorted);
  for (size_t i = 0; i < entry->advance_count; i++) {
    sorted[i] = &entry->advances[i];
    if (!topic_sound(sorted[i]->topic) || sorted[i]->partition < 0 || sorted[i]->incarnation < 1) {
      free(sorted);
      return livenps_fail(error, LIVENPS_E_DATA,
                          "log entry: partition %zu has no topic that Kafka could have, or no incarnation",
                          i);
    }
  }
  qsort(sorted, entry->advance_count, sizeof *sorted, advance_order);
  for (size_t i = 0; i < entry->advance_count && !result; i++) {
    const livenps_advance *advance = sorted[i], *before = i ? sorted[i - 1] : NULL;
    bool there;
    size_t at = find(ledger, advance->topic, advance->partition, &there);
    int64_t expected = there ? ledger->at[at].position.next : advance->from;
    int64_t incarnation = there ? ledger->at[at].position.incarnation : advance->incarnation;
    if (before && compare(before->topic, before->partition, advance->topic, advance->partition) == 0) {
      expected = before->to;
      incarnation = before->incarnation + before->restart;
    }
    if (advance->from != expected || advance->incarnation != incarnation) {
      char name[256], writer[128];
      result = livenps_fail(
          error, LIVENPS_E_DATA,
          "log entry of writer %s goes on at offset %" PRId64 " of %s/%" PRId32 " (incarnation %" PRId64
          "), but offsets up to %" PRId64 " (incarnation %" PRId64
          ") are folded: the log is not the one this state was made from; load the snapshot and fold again",
          livenps_printable(writer, sizeof writer, entry->writer.at ? entry->writer.at : "",
                            entry->writer.length),
          advance->from,
          livenps_printable(name, sizeof name, advance->topic.at ? advance->topic.at : "",
                            advance->topic.length),
          advance->partition, advance->incarnation, expected, incarnation);
    }
  }
  free(sorted);
  return result;
}

/* Counts come from bytes that others wrote: sums wrap rather than be undefined. */
static void add(int64_t *to, int64_t what) {
  *to = (int64_t)((uint64_t)*to + (uint64_t)what);
}

/* What stands in Redis's positions after this advance. A restart forgets anchors that the entry does not name again. */
static void follow(livenps_position *position, const livenps_advance *advance) {
  if (advance->restart) {
    position->anchor = position->root = (livenps_anchor){0};
  }
  position->next = advance->to;
  position->incarnation = advance->incarnation + advance->restart;
  if (advance->anchor.there) {
    position->anchor = advance->anchor;
  }
  if (advance->root.there) {
    position->root = advance->root;
  }
}

void livenps_ledger_fold(livenps_ledger *ledger, const livenps_entry *entry, int64_t entry_ms) {
  for (size_t i = 0; i < entry->advance_count; i++) {
    const livenps_advance *advance = &entry->advances[i];
    bool there;
    find(ledger, advance->topic, advance->partition, &there);
    livenps_partition *line = livenps_ledger_line(ledger, advance->topic, advance->partition);
    if (!there) {
      line->start = advance->from;
    }
    follow(&line->position, advance);
    if (advance->through_ms != LIVENPS_THROUGH_SAME) {
      /* Once read through a time, a partition stays so, whatever older timestamps follow; a record from a clock that is ahead does not
       * promise the future. Only a gap, or a topic made anew, starts over. */
      int64_t through = advance->through_ms == LIVENPS_THROUGH_NOW || advance->through_ms > entry_ms
                            ? entry_ms
                            : advance->through_ms;
      line->through_ms =
          advance->gap || advance->restart || through > line->through_ms ? through : line->through_ms;
    }
    if (advance->covered_since_ms != LIVENPS_COVERED_SAME &&
        advance->covered_since_ms > line->covered_since_ms) {
      line->covered_since_ms = advance->covered_since_ms;
    }
    add(&line->accepted, advance->accepted);
    add(&line->late, advance->late);
    add(&line->duplicate, advance->duplicate);
    add(&line->out_of_range, advance->out_of_range);
    add(&line->holes, advance->holes);
    add(&line->gap, advance->gap);
    for (int reason = 0; reason < LIVENPS_REASONS; reason++) {
      add(&line->rejected[reason], advance->rejected[reason]);
    }
  }
}
