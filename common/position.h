#ifndef LIVENPS_POSITION_H
#define LIVENPS_POSITION_H

#include "text.h"

/* Where a partition stands, and how to tell that its offsets still mean the same records. Pure. As text, in Redis's positions:
 *
 *   <next> <incarnation>[ <anchor>[ <root>]]        an anchor is <offset>:<timestamp ms>:<CRC-32 as 8 hex digits>
 *   15234 1 15233:1763720100023:1c291ca3 0:1763000000000:9a71bb4c
 *
 * incarnation: 1 at first, one more each time the offsets begin to mean other records: the topic was made anew, or its log lost its
 * end. So within one incarnation a position only rises. */

/* A record that was read. {0}: none. */
typedef struct {
  bool there;
  uint32_t
      crc; /* zlib's, of key and value, each behind nine bytes: whether it is there, and its length, low first */
  int64_t offset, timestamp_ms;
} livenps_anchor;

typedef struct {
  int64_t next;          /* next offset to read; -1: nothing is stored */
  int64_t incarnation;   /* from 1 */
  livenps_anchor anchor; /* one of the last records read */
  livenps_anchor
      root; /* one read long ago that the topic still had when it was last looked at; may be the anchor itself */
} livenps_position;

/* key and value may be absent (at == NULL), which differs from empty. */
livenps_anchor livenps_anchor_of(int64_t offset, int64_t timestamp_ms, livenps_text key, livenps_text value);
bool livenps_anchor_same(const livenps_anchor *a, const livenps_anchor *b); /* also when neither is there */

bool livenps_position_same(const livenps_position *a, const livenps_position *b);

enum { LIVENPS_POSITION_MAX = 160 }; /* bytes of the text with its NUL */
/* Returns the length. position->next must not be negative. */
size_t livenps_position_print(const livenps_position *position, char out[LIVENPS_POSITION_MAX]);
/* 0, or -1 when the text is not one that print gives (*position is then undefined). */
int livenps_position_parse(livenps_text text, livenps_position *position);

/* ---- whether the offsets still mean the same records ---- */

/* What a topic answers to the offset of an anchor. */
typedef enum {
  LIVENPS_TRACE_NONE,  /* no anchor, or no word: nothing is proven */
  LIVENPS_TRACE_SAME,  /* the record is there */
  LIVENPS_TRACE_OTHER, /* another record is there, or the topic ends before it */
  LIVENPS_TRACE_GONE,  /* the topic begins behind it: nothing is proven */
} livenps_trace;

typedef enum {
  LIVENPS_VERDICT_SAME, /* or nothing that could be proven */
  LIVENPS_VERDICT_ANEW, /* the topic was deleted and made anew: to be read from its start */
  LIVENPS_VERDICT_CUT, /* Kafka lost the end of the log (unclean election, power): to be read on from where it ends */
} livenps_verdict;

/* one: anchor and root are the same record. low: the topic's first offset. beyond: it ends before the position. */
livenps_verdict livenps_position_judge(livenps_trace anchor, livenps_trace root, bool one, int64_t low,
                                       bool beyond);

#endif
