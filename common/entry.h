#ifndef LIVENPS_ENTRY_H
#define LIVENPS_ENTRY_H

#include "counters.h"
#include "error.h"
#include "position.h"

/* The payload of a commit-log entry: binary, versioned, self-describing (its own dictionary of cells). Pure.
 *
 *   byte    format version (2)
 *   text    writer
 *   signed  clock_ms: the highest min(event time, record timestamp) among its records, LIVENPS_NO_CLOCK without
 *   varint  topics, then each: text
 *   varint  reasons, then each: text (only those that occur)
 *   varint  partitions, then each: varint topic, varint partition, varint incarnation, varint flags (1 restart, 2 anchor,
 *           4 root), signed from, signed to - from; for the anchor and for the root where its flag is set: signed from - its
 *           offset, signed timestamp_ms, 4 bytes CRC, low first; signed through_ms, signed covered_since_ms, varint accepted,
 *           late, duplicate, out_of_range, holes, signed gap, varint rejected kinds, then each: varint reason, varint count
 *   varint  cells, then each: varint presence mask of dimensions, then a text for each present one
 *   varint  rows, then each: varint cell, signed second - previous row's second, packed counters
 */
enum { LIVENPS_ENTRY_VERSION = 2 };
#define LIVENPS_NO_CLOCK INT64_MIN
#define LIVENPS_THROUGH_NOW                                                                                  \
  (-1) /* the position had reached the topic's end: read through the entry's own time */
#define LIVENPS_THROUGH_SAME (-2) /* nothing new is known */
#define LIVENPS_COVERED_SAME (-1) /* no gap in this entry: coverage as before */

/* What one entry says of one partition. covered_since_ms: after a gap or a fresh start, events before this time may be
 * missing; LIVENPS_COVERED_SAME otherwise. 0 = everything is there. */
typedef struct {
  livenps_text topic;
  int32_t partition;
  int64_t from, to;            /* next offset to read, before and after */
  int64_t incarnation;         /* of from; of to as well, or one less where restart is set */
  bool restart;                /* the offsets mean other records from here on (common/position.h) */
  livenps_anchor anchor, root; /* only where another one than before is stored */
  int64_t through_ms;          /* record timestamp of the last record, or one of the two above */
  int64_t covered_since_ms;
  int64_t accepted, late, duplicate, out_of_range, holes, gap; /* gap is signed: a restart goes back */
  int64_t rejected[LIVENPS_REASONS];
} livenps_advance;

typedef struct {
  livenps_text dimensions[LIVENPS_DIMENSIONS]; /* raw names, absent where at is NULL */
} livenps_cell;

typedef struct {
  uint32_t cell;
  uint32_t mask;  /* of the counters that are not zero, from decoding; 0: not said, look */
  int64_t second; /* event time, seconds since 1970, floor */
  livenps_counters counters;
} livenps_row;

typedef struct {
  livenps_text writer;
  int64_t clock_ms;
  livenps_advance *advances;
  size_t advance_count;
  livenps_cell *cells;
  size_t cell_count;
  livenps_row *rows;
  size_t row_count;
} livenps_entry;

void livenps_entry_encode(const livenps_entry *entry, livenps_buffer *out); /* appends */
/* Texts borrow from bytes; arrays belong to *entry, which livenps_entry_free releases (legal on {0}). Checks every index and
 * bound. Reasons that this program does not know are an error: a newer format must say so by its version. */
int livenps_entry_decode(livenps_entry *entry, const char *bytes, size_t length, livenps_error *error);
void livenps_entry_free(livenps_entry *entry);

#endif
