#include "batch.h"

#include <stdio.h>
#include <stdlib.h>

/* How long an end offset that Kafka told counts as the end now (design: section 3). */
enum { HIGH_FRESH_MS = 2000 };

/* End of the year 9999. A broker may store any record timestamp; what we write of it has to be readable again. */
#define LAST_MS INT64_C(253402300799999)

/* The first record of each batch is kept as the lane's anchor, and then one in so many: its CRC costs as much as reading it again. */
enum { ANCHOR_EVERY = 1024 };

void livenps_batch_init(livenps_batch *batch, const livenps_admission *admission) {
  *batch = (livenps_batch){.admission = admission,
                           .decoder = livenps_decoder_new(),
                           .combine = livenps_combine_new(),
                           .clock_ms = LIVENPS_NO_CLOCK};
}

void livenps_batch_free(livenps_batch *batch) {
  livenps_decoder_free(batch->decoder);
  livenps_combine_free(batch->combine);
  free(batch->lanes);
  *batch = (livenps_batch){0};
}

static void forget(livenps_lane *lane) {
  lane->pending = (livenps_advance){.covered_since_ms = LIVENPS_COVERED_SAME};
  lane->last_ms = LIVENPS_THROUGH_SAME;
  lane->anchor = lane->root = (livenps_anchor){0};
  lane->unanchored = 0;
  lane->restart = false;
}

livenps_lane *livenps_batch_open(livenps_batch *batch, const char *topic, int32_t partition,
                                 const livenps_mapping *mapping, int64_t start) {
  batch->lanes = livenps_resize(batch->lanes, (batch->lane_count + 1) * sizeof *batch->lanes);
  livenps_lane *lane = &batch->lanes[batch->lane_count++];
  *lane = (livenps_lane){.partition = partition,
                         .mapping = mapping,
                         .stored = {.next = -1, .incarnation = 1},
                         .start = start,
                         .next = -1,
                         .end = INT64_MAX,
                         .jump = -1,
                         .doubt = true,
                         .broker = -1,
                         .still_at = -1,
                         .uncovered_ms = -1};
  snprintf(lane->topic, sizeof lane->topic, "%s", topic);
  snprintf(lane->field, sizeof lane->field, "%s/%d", lane->topic, partition);
  forget(lane);
  return lane;
}

void livenps_batch_close(livenps_batch *batch, livenps_lane *lane) {
  *lane = batch->lanes[--batch->lane_count];
}

livenps_lane *livenps_batch_find(livenps_batch *batch, const char *topic, int32_t partition) {
  for (size_t i = 0; i < batch->lane_count; i++)
    if (batch->lanes[i].partition == partition && !strcmp(batch->lanes[i].topic, topic))
      return &batch->lanes[i];
  return NULL;
}

/* At most up to the end: a replay's range ends in the middle of a hole just as well. */
static void pass_hole(livenps_lane *lane, int64_t offset) {
  const int64_t to = offset < lane->end ? offset : lane->end;
  if (to > lane->next) {
    lane->pending.holes += to - lane->next;
    lane->next = to;
  }
}

/* Whether the lane may go on at `offset`. A hole is normal (transactions, compaction), but librdkafka can also skip records around
 * assign, seek and a change of leader, or serve stale ones: a jump in doubt is believed only when a fresh fetch from the same place jumps to
 * the same offset. A record stays where it is; the end does not, while transactions are aborted: there what both ends leave out is a hole.
 *
 *   next . . . . jump                 the end, when the first fetch met it
 *   next . . . . . . . . offset       the second one: a hole up to jump; from there on it was seen once only
 */
static bool arrive(livenps_batch *batch, livenps_lane *lane, int64_t offset, bool end) {
  if (lane->reseek || offset < lane->next)
    return false;
  if (offset > lane->next && lane->doubt && lane->jump != offset) {
    if (end && lane->jump_end && lane->jump >= 0 && offset > lane->jump)
      pass_hole(lane, lane->jump);
    lane->jump = offset;
    lane->jump_end = end;
    lane->reseek = true;
    batch->refetches++;
    return false;
  }
  if (lane->jump == offset)
    lane->doubt = false; /* speaks for this stretch of fetching */
  else if (lane->jump >= 0)
    batch->skips++; /* there was no hole */
  lane->jump = -1;
  pass_hole(lane, offset);
  return true;
}

static bool take(livenps_batch *batch, livenps_lane *lane, int64_t offset, int64_t timestamp_ms) {
  if (offset < lane->next && !lane->reseek)
    batch->strays++;
  if (!arrive(batch, lane, offset, false) || offset >= lane->end)
    return false;
  lane->next = offset + 1;
  if (timestamp_ms > LAST_MS)
    timestamp_ms = LAST_MS;
  if (timestamp_ms >= 0) {
    lane->last_ms = timestamp_ms;
    /* What was lost lay before this record, so its events were no later than that plus the skew we admit. */
    const int64_t covered_ms = timestamp_ms + batch->admission->future_ms;
    if (lane->uncovered_ms > covered_ms)
      lane->pending.covered_since_ms = covered_ms;
    lane->uncovered_ms = -1;
  }
  return true;
}

bool livenps_batch_record(livenps_batch *batch, livenps_lane *lane, int64_t offset,
                          const livenps_record *record, livenps_fate *fate, livenps_reason *reason,
                          livenps_where *where) {
  if (!take(batch, lane, offset, record->timestamp_ms))
    return false;
  if (lane->unanchored++ % ANCHOR_EVERY == 0)
    lane->anchor = livenps_anchor_of(offset, record->timestamp_ms, record->key, record->value);
  livenps_event event;
  *fate = livenps_admit(batch->decoder, lane->mapping, batch->admission, record, &event, reason, where);
  switch (*fate) {
  case LIVENPS_ACCEPTED: {
    lane->pending.accepted++;
    livenps_combine_add(batch->combine, &event, record->value);
    const int64_t clock = event.time_ms < record->timestamp_ms ? event.time_ms : record->timestamp_ms;
    if (clock > batch->clock_ms)
      batch->clock_ms = clock;
    break;
  }
  case LIVENPS_REJECTED: lane->pending.rejected[*reason]++; break;
  case LIVENPS_LATE: lane->pending.late++; break;
  case LIVENPS_DUPLICATE: lane->pending.duplicate++; break;
  case LIVENPS_OUT_OF_RANGE: lane->pending.out_of_range++; break;
  }
  return true;
}

void livenps_batch_take_back(livenps_lane *lane, int64_t offset, livenps_reason reason) {
  if (lane->anchor.there && lane->anchor.offset == offset) {
    lane->anchor = (livenps_anchor){0};
    lane->unanchored = 0;
  }
  lane->pending.rejected[reason]--;
  lane->next = offset;
  lane->reseek = true;
}

void livenps_batch_end(livenps_batch *batch, livenps_lane *lane, int64_t offset) {
  arrive(batch, lane, offset, true);
}

void livenps_batch_begins(livenps_batch *batch, livenps_lane *lane, int64_t offset) {
  arrive(batch, lane, offset, false);
}

static void uncover(livenps_batch *batch, livenps_lane *lane, int64_t redis_ms) {
  lane->uncovered_ms = lane->pending.covered_since_ms = redis_ms + batch->admission->future_ms;
}

void livenps_batch_gap(livenps_batch *batch, livenps_lane *lane, int64_t offset, int64_t redis_ms) {
  lane->pending.gap += offset - lane->next;
  lane->next = offset;
  lane->out_of_range = false;
  lane->doubt = true;
  lane->jump = -1;
  uncover(batch, lane, redis_ms);
}

void livenps_batch_restart(livenps_batch *batch, livenps_lane *lane, int64_t offset, bool keep_root,
                           int64_t redis_ms) {
  livenps_batch_gap(batch, lane, offset, redis_ms);
  lane->anchor = lane->root = keep_root ? lane->stored.root : (livenps_anchor){0};
  lane->unanchored = 0;
  lane->restart = true;
  lane->finding = (livenps_finding){0};
  lane->wanted_ms = 0;
}

void livenps_batch_root(livenps_lane *lane) {
  if (!lane->restart)
    lane->root = lane->stored.anchor;
}

bool livenps_batch_verified(const livenps_batch *batch) {
  for (size_t i = 0; i < batch->lane_count; i++) {
    const livenps_lane *lane = &batch->lanes[i];
    if (lane->next != lane->stored.next &&
        (lane->out_of_range || (lane->wanted_ms && lane->checked_ms < lane->wanted_ms)))
      return false;
  }
  return true;
}

void livenps_batch_unreadable(livenps_batch *batch, livenps_lane *lane, int64_t offset, int64_t redis_ms) {
  lane->pending.holes += offset - lane->next;
  lane->next = offset;
  lane->reseek = true;
  lane->jump = -1;
  uncover(batch, lane, redis_ms);
}

bool livenps_batch_empty(const livenps_batch *batch) {
  for (size_t i = 0; i < batch->lane_count; i++)
    if (batch->lanes[i].next != batch->lanes[i].stored.next || batch->lanes[i].restart)
      return false;
  return true;
}

void livenps_batch_entry(const livenps_batch *batch, livenps_text writer, int64_t now_ms,
                         livenps_advance *advances, livenps_entry *entry) {
  *entry = (livenps_entry){.writer = writer,
                           .clock_ms = batch->clock_ms,
                           .advances = advances,
                           .advance_count = batch->lane_count};
  livenps_combine_lend(batch->combine, entry);
  for (size_t i = 0; i < batch->lane_count; i++) {
    const livenps_lane *lane = &batch->lanes[i];
    livenps_advance *advance = &advances[i];
    *advance = lane->pending;
    advance->topic = livenps_text_of(lane->topic);
    advance->partition = lane->partition;
    advance->from = lane->stored.next < 0 ? lane->start : lane->stored.next;
    advance->to = lane->next;
    advance->incarnation = lane->stored.incarnation;
    advance->restart = lane->restart;
    const livenps_position position = livenps_batch_position(lane);
    if (lane->restart || !livenps_anchor_same(&position.anchor, &lane->stored.anchor))
      advance->anchor = position.anchor;
    if (lane->restart || !livenps_anchor_same(&position.root, &lane->stored.root))
      advance->root = position.root;
    const bool at_end = lane->next >= lane->end || (lane->high_asked_ms && lane->next >= lane->high &&
                                                    now_ms - lane->high_asked_ms < HIGH_FRESH_MS);
    advance->through_ms = at_end ? LIVENPS_THROUGH_NOW : lane->last_ms;
  }
}

void livenps_batch_committed(livenps_batch *batch) {
  for (size_t i = 0; i < batch->lane_count; i++) {
    livenps_lane *lane = &batch->lanes[i];
    lane->stored = livenps_batch_position(lane);
    forget(lane);
  }
  livenps_combine_reset(batch->combine);
  batch->clock_ms = LIVENPS_NO_CLOCK;
}

void livenps_batch_drop(livenps_batch *batch) {
  for (size_t i = 0; i < batch->lane_count; i++)
    forget(&batch->lanes[i]);
  livenps_combine_reset(batch->combine);
  batch->clock_ms = LIVENPS_NO_CLOCK;
}

livenps_position livenps_batch_position(const livenps_lane *lane) {
  livenps_position position = lane->stored;
  if (lane->restart) {
    position.incarnation++;
    position.anchor = position.root = (livenps_anchor){0};
  }
  position.next = lane->next;
  if (lane->anchor.there)
    position.anchor = lane->anchor;
  if (lane->root.there)
    position.root = lane->root;
  if (!position.root.there)
    position.root = position.anchor;
  return position;
}

bool livenps_batch_adopt(livenps_batch *batch, livenps_lane *lane, const livenps_position *stored,
                         int64_t redis_ms) {
  const int64_t next = stored->next < 0 ? lane->start : stored->next;
  const bool seek = lane->next != next || lane->reseek || lane->out_of_range;
  /* In an incarnation before, or before the offset that was stored in the same one. */
  batch->went_back += lane->stored.next >= 0 &&
                      (stored->incarnation < lane->stored.incarnation ||
                       (stored->incarnation == lane->stored.incarnation && stored->next < lane->stored.next));
  lane->stored = *stored;
  if (stored->next < 0)
    lane->stored = (livenps_position){.next = -1, .incarnation = 1};
  lane->next = next;
  lane->reseek = lane->out_of_range = lane->beyond = false;
  if (seek) {
    lane->doubt = true;
    lane->jump = -1;
  }
  if (stored->next >= 0) {
    lane->uncovered_ms = -1;
  } else if (next <= 0) {
    lane->uncovered_ms = -1;
    lane->pending.covered_since_ms = 0;
  } else {
    uncover(batch, lane, redis_ms);
  }
  return seek;
}
