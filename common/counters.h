#ifndef LIVENPS_COUNTERS_H
#define LIVENPS_COUNTERS_H

#include "event.h"

/* What is counted for a cell, a slice, a window: integers that add and subtract exactly. Value sums are in hundredths and
 * wrap modulo 2^64 (unsigned arithmetic inside), so that subtraction undoes addition even after an overflow. */
enum {
  LIVENPS_INTERACTIONS, /* what nearly every slice has comes first: the packed mask stays short */
  LIVENPS_INVITATIONS,
  LIVENPS_ANSWERS,                              /* answers of any scale */
  LIVENPS_SCORE,                                /* 11 bins: score 0..10 */
  LIVENPS_VALUE_PROMOTERS = LIVENPS_SCORE + 11, /* sums of value over NPS answers that carry one */
  LIVENPS_VALUE_PASSIVES,
  LIVENPS_VALUE_DETRACTORS,
  LIVENPS_CSAT,                   /* 5 bins: 1..5 */
  LIVENPS_CES = LIVENPS_CSAT + 5, /* 7 bins: 1..7 */
  LIVENPS_COUNTERS = LIVENPS_CES + 7
};

typedef struct {
  int64_t at[LIVENPS_COUNTERS];
} livenps_counters;

/* What one accepted event moves: two counters by one, a third by its value. */
typedef struct {
  uint8_t kind;  /* LIVENPS_INTERACTIONS, INVITATIONS or ANSWERS */
  uint8_t bin;   /* the score's; LIVENPS_COUNTERS: there is none */
  uint8_t sum;   /* the value's; any of them where there is none */
  int64_t value; /* 0 without */
} livenps_count;
livenps_count livenps_count_of(const livenps_event *event);

/* Adds one accepted event. */
void livenps_counters_count(livenps_counters *counters, const livenps_event *event);
void livenps_counters_add(livenps_counters *to, const livenps_counters *what);
void livenps_counters_subtract(livenps_counters *from, const livenps_counters *what);
bool livenps_counters_zero(const livenps_counters *counters);

int64_t livenps_promoters(const livenps_counters *counters);  /* scores 9-10 */
int64_t livenps_passives(const livenps_counters *counters);   /* 7-8 */
int64_t livenps_detractors(const livenps_counters *counters); /* 0-6 */

/* Packed: varint mask of the counters that are not zero, then each as a zigzag varint, in order. One encoding for log entries,
 * snapshots, digests and slices in memory. At most LIVENPS_PACKED_MAX bytes; canonical (equal counters, equal bytes). */
enum { LIVENPS_PACKED_MAX = 5 + 10 * LIVENPS_COUNTERS };
size_t livenps_counters_pack(const livenps_counters *counters, char out[LIVENPS_PACKED_MAX]);
/* The same for counters of which only those in the mask are looked at; 0 when all of them are zero. */
size_t livenps_counters_pack_some(const int64_t at[LIVENPS_COUNTERS], uint32_t mask,
                                  char out[LIVENPS_PACKED_MAX]);
uint32_t livenps_counters_mask(const livenps_counters *counters); /* of those that are not zero */
/* Reads what pack wrote, and which counters are not zero. 0, or -1 when the bytes are not canonical or end early; *at moves behind. */
int livenps_counters_unpack(const char **at, const char *end, livenps_counters *counters, uint32_t *mask);
/* The same sums without unpacking: bytes are what pack wrote (asserted). Adds (sign 1) or subtracts (sign -1). */
void livenps_packed_apply(livenps_counters *to, const char *bytes, size_t length, int sign);
/* Packs the sum of packed ones and of counters of which only those in the mask are looked at; returns its length, 0 when everything
 * cancels. */
size_t livenps_packed_add(const char *bytes, size_t length, const int64_t at[LIVENPS_COUNTERS], uint32_t mask,
                          char out[LIVENPS_PACKED_MAX]);
/* The same in place, where that is possible: every counter in the mask is in the packed ones already, stays other than zero, and keeps its
 * length. Else false, and nothing is changed. */
bool livenps_packed_patch(char *bytes, size_t length, const int64_t at[LIVENPS_COUNTERS], uint32_t mask);

/* Bits that are set. Written out, because without a flag for newer processors the builtin is a call. */
static inline unsigned livenps_population(uint32_t mask) {
  mask = mask - (mask >> 1 & 0x55555555u);
  mask = (mask & 0x33333333u) + (mask >> 2 & 0x33333333u);
  return ((mask + (mask >> 4)) & 0x0f0f0f0fu) * 0x01010101u >> 24;
}

#endif
