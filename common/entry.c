#include "entry.h"

#include <inttypes.h>
#include <stdlib.h>

/* A dictionary of a few texts (topics): linear search is right for what one instance reads. */
static size_t topic_index(livenps_text *topics, size_t *count, livenps_text topic) {
  for (size_t i = *count; i-- > 0;)
    if (livenps_text_equal(topics[i], topic))
      return i;
  topics[*count] = topic;
  return (*count)++;
}

enum { RESTART = 1, ANCHOR = 2, ROOT = 4, FLAGS = 7 };

static void put_anchor(livenps_buffer *out, int64_t from, const livenps_anchor *anchor) {
  livenps_put_signed(out, from - anchor->offset);
  livenps_put_signed(out, anchor->timestamp_ms);
  const unsigned char crc[] = {(unsigned char)anchor->crc, (unsigned char)(anchor->crc >> 8),
                               (unsigned char)(anchor->crc >> 16), (unsigned char)(anchor->crc >> 24)};
  livenps_buffer_add(out, crc, sizeof crc);
}

void livenps_entry_encode(const livenps_entry *entry, livenps_buffer *out) {
  livenps_text *topics = livenps_alloc((entry->advance_count + 1) * sizeof *topics);
  size_t topic_count = 0;
  bool occurs[LIVENPS_REASONS] = {false};
  for (size_t i = 0; i < entry->advance_count; i++) {
    topic_index(topics, &topic_count, entry->advances[i].topic);
    for (int r = 0; r < LIVENPS_REASONS; r++)
      occurs[r] |= entry->advances[i].rejected[r] != 0;
  }
  livenps_buffer_add(out, &(char){LIVENPS_ENTRY_VERSION}, 1);
  livenps_put_text(out, entry->writer);
  livenps_put_signed(out, entry->clock_ms);
  livenps_put_varint(out, topic_count);
  for (size_t i = 0; i < topic_count; i++)
    livenps_put_text(out, topics[i]);

  int place[LIVENPS_REASONS];
  int reason_count = 0;
  for (int r = 0; r < LIVENPS_REASONS; r++)
    if (occurs[r])
      place[r] = reason_count++;
  livenps_put_varint(out, (uint64_t)reason_count);
  for (int r = 0; r < LIVENPS_REASONS; r++)
    if (occurs[r])
      livenps_put_text(out, livenps_text_of(livenps_reason_name((livenps_reason)r)));

  livenps_put_varint(out, entry->advance_count);
  for (size_t i = 0; i < entry->advance_count; i++) {
    const livenps_advance *advance = &entry->advances[i];
    livenps_put_varint(out, topic_index(topics, &topic_count, advance->topic));
    livenps_put_varint(out, (uint64_t)advance->partition);
    livenps_put_varint(out, (uint64_t)advance->incarnation);
    livenps_put_varint(out,
                       (uint64_t)((advance->restart ? RESTART : 0) | (advance->anchor.there ? ANCHOR : 0) |
                                  (advance->root.there ? ROOT : 0)));
    livenps_put_signed(out, advance->from);
    livenps_put_signed(out, advance->to - advance->from);
    if (advance->anchor.there)
      put_anchor(out, advance->from, &advance->anchor);
    if (advance->root.there)
      put_anchor(out, advance->from, &advance->root);
    livenps_put_signed(out, advance->through_ms);
    livenps_put_signed(out, advance->covered_since_ms);
    livenps_put_varint(out, (uint64_t)advance->accepted);
    livenps_put_varint(out, (uint64_t)advance->late);
    livenps_put_varint(out, (uint64_t)advance->duplicate);
    livenps_put_varint(out, (uint64_t)advance->out_of_range);
    livenps_put_varint(out, (uint64_t)advance->holes);
    livenps_put_signed(out, advance->gap);
    uint64_t kinds = 0;
    for (int r = 0; r < LIVENPS_REASONS; r++)
      kinds += advance->rejected[r] != 0;
    livenps_put_varint(out, kinds);
    for (int r = 0; r < LIVENPS_REASONS; r++)
      if (advance->rejected[r]) {
        livenps_put_varint(out, (uint64_t)place[r]);
        livenps_put_varint(out, (uint64_t)advance->rejected[r]);
      }
  }
  free(topics);

  livenps_put_varint(out, entry->cell_count);
  for (size_t i = 0; i < entry->cell_count; i++) {
    uint64_t mask = 0;
    for (int d = 0; d < LIVENPS_DIMENSIONS; d++)
      mask |= (uint64_t)(entry->cells[i].dimensions[d].at != NULL) << d;
    livenps_put_varint(out, mask);
    for (int d = 0; d < LIVENPS_DIMENSIONS; d++)
      if (entry->cells[i].dimensions[d].at)
        livenps_put_text(out, entry->cells[i].dimensions[d]);
  }
  livenps_put_varint(out, entry->row_count);
  int64_t second = 0;
  for (size_t i = 0; i < entry->row_count; i++) {
    const livenps_row *row = &entry->rows[i];
    livenps_put_varint(out, row->cell);
    livenps_put_signed(out, row->second - second);
    second = row->second;
    char packed[LIVENPS_PACKED_MAX];
    livenps_buffer_add(out, packed, livenps_counters_pack(&row->counters, packed));
  }
}

/* A count that the remaining bytes can hold at `least` bytes each: a hostile length must not make us allocate the moon. */
static int get_count(const char **at, const char *end, size_t least, size_t *count) {
  uint64_t value;
  if (livenps_get_varint(at, end, &value) || value > (uint64_t)(end - *at) / least)
    return -1;
  *count = (size_t)value;
  return 0;
}

/* A number of records or an offset: never negative, far from overflow. */
static int get_amount(const char **at, const char *end, int64_t *amount) {
  uint64_t value;
  if (livenps_get_varint(at, end, &value) || value > INT64_MAX / 4)
    return -1;
  *amount = (int64_t)value;
  return 0;
}

static int get_moment(const char **at, const char *end, int64_t least, int64_t *moment) {
  return livenps_get_signed(at, end, moment) || *moment < least || *moment > INT64_MAX / 4 ? -1 : 0;
}

static int get_anchor(const char **at, const char *end, int64_t from, livenps_anchor *anchor) {
  int64_t back;
  if (get_moment(at, end, INT64_MIN / 4, &back) || back > from ||
      livenps_get_signed(at, end, &anchor->timestamp_ms) || end - *at < 4)
    return -1;
  const unsigned char *crc = (const unsigned char *)*at;
  anchor->crc = crc[0] | (uint32_t)crc[1] << 8 | (uint32_t)crc[2] << 16 | (uint32_t)crc[3] << 24;
  anchor->offset = from - back;
  anchor->there = true;
  *at += 4;
  return 0;
}

static int get_advance(const char **at, const char *end, livenps_advance *advance, const livenps_text *topics,
                       size_t topic_count, const livenps_reason *reasons, size_t reason_count) {
  uint64_t topic, partition, flags;
  int64_t step;
  size_t kinds;
  if (livenps_get_varint(at, end, &topic) || topic >= topic_count ||
      livenps_get_varint(at, end, &partition) || partition > INT32_MAX ||
      get_amount(at, end, &advance->incarnation) || advance->incarnation < 1 ||
      livenps_get_varint(at, end, &flags) || flags > FLAGS || get_moment(at, end, 0, &advance->from) ||
      get_moment(at, end, -advance->from, &step) ||
      (flags & ANCHOR && get_anchor(at, end, advance->from, &advance->anchor)) ||
      (flags & ROOT && get_anchor(at, end, advance->from, &advance->root)) ||
      get_moment(at, end, LIVENPS_THROUGH_SAME, &advance->through_ms) ||
      get_moment(at, end, LIVENPS_COVERED_SAME, &advance->covered_since_ms) ||
      get_amount(at, end, &advance->accepted) || get_amount(at, end, &advance->late) ||
      get_amount(at, end, &advance->duplicate) || get_amount(at, end, &advance->out_of_range) ||
      get_amount(at, end, &advance->holes) || get_moment(at, end, INT64_MIN / 4, &advance->gap) ||
      get_count(at, end, 2, &kinds))
    return -1;
  advance->topic = topics[topic];
  advance->partition = (int32_t)partition;
  advance->to = advance->from + step;
  advance->restart = flags & RESTART;
  for (size_t k = 0; k < kinds; k++) {
    uint64_t place;
    int64_t records;
    if (livenps_get_varint(at, end, &place) || place >= reason_count || get_amount(at, end, &records) ||
        advance->rejected[reasons[place]])
      return -1;
    advance->rejected[reasons[place]] = records;
  }
  return 0;
}

static int get_cell(const char **at, const char *end, livenps_cell *cell) {
  uint64_t mask;
  if (livenps_get_varint(at, end, &mask) || mask >> LIVENPS_DIMENSIONS)
    return -1;
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++)
    if (mask >> d & 1 && livenps_get_text(at, end, &cell->dimensions[d]))
      return -1;
  return 0;
}

int livenps_entry_decode(livenps_entry *entry, const char *bytes, size_t length, livenps_error *error) {
  const char *at = bytes, *end = bytes + length, *what = "version";
  livenps_text *topics = NULL;
  livenps_reason reasons[LIVENPS_REASONS];
  size_t topic_count = 0, reason_count = 0;
  *entry = (livenps_entry){0};
  if (length == 0 || *at++ != LIVENPS_ENTRY_VERSION)
    goto broken;
  what = "writer and clock";
  if (livenps_get_text(&at, end, &entry->writer) || livenps_get_signed(&at, end, &entry->clock_ms))
    goto broken;
  what = "topics";
  if (get_count(&at, end, 1, &topic_count))
    goto broken;
  topics = livenps_alloc((topic_count + 1) * sizeof *topics);
  for (size_t i = 0; i < topic_count; i++)
    if (livenps_get_text(&at, end, &topics[i]))
      goto broken;
  what = "reasons";
  if (get_count(&at, end, 1, &reason_count) || reason_count > LIVENPS_REASONS)
    goto broken;
  for (size_t i = 0; i < reason_count; i++) {
    livenps_text name;
    if (livenps_get_text(&at, end, &name))
      goto broken;
    reasons[i] = livenps_reason_find(name);
    if (reasons[i] == LIVENPS_REASON_NONE)
      goto broken;
  }
  what = "partitions";
  if (get_count(&at, end, 14, &entry->advance_count))
    goto broken;
  entry->advances = livenps_alloc((entry->advance_count + 1) * sizeof *entry->advances);
  for (size_t i = 0; i < entry->advance_count; i++)
    if (get_advance(&at, end, &entry->advances[i], topics, topic_count, reasons, reason_count))
      goto broken;
  what = "cells";
  if (get_count(&at, end, 1, &entry->cell_count))
    goto broken;
  entry->cells = livenps_alloc((entry->cell_count + 1) * sizeof *entry->cells);
  for (size_t i = 0; i < entry->cell_count; i++)
    if (get_cell(&at, end, &entry->cells[i]))
      goto broken;
  what = "rows";
  if (get_count(&at, end, 3, &entry->row_count))
    goto broken;
  /* Not zeroed: every field is written below, and a large entry's rows are megabytes. */
  entry->rows = livenps_resize(NULL, (entry->row_count + 1) * sizeof *entry->rows);
  int64_t second = 0;
  for (size_t i = 0; i < entry->row_count; i++) {
    livenps_row *row = &entry->rows[i];
    uint64_t cell;
    int64_t step;
    if (livenps_get_varint(&at, end, &cell) || cell >= entry->cell_count ||
        livenps_get_signed(&at, end, &step) || __builtin_add_overflow(second, step, &second) ||
        second > INT64_MAX / 4000 || second < INT64_MIN / 4000 ||
        livenps_counters_unpack(&at, end, &row->counters, &row->mask))
      goto broken;
    row->cell = (uint32_t)cell;
    row->second = second;
  }
  what = "end";
  if (at != end)
    goto broken;
  free(topics);
  return 0;

broken:
  free(topics);
  livenps_entry_free(entry);
  return livenps_fail(error, LIVENPS_E_DATA,
                      "commit-log entry of %zu bytes is not of format %d: %s, near byte %td", length,
                      LIVENPS_ENTRY_VERSION, what, at - bytes);
}

void livenps_entry_free(livenps_entry *entry) {
  free(entry->advances);
  free(entry->cells);
  free(entry->rows);
  *entry = (livenps_entry){0};
}
