#ifndef LIVENPS_BATCH_H
#define LIVENPS_BATCH_H

#include "../common/admit.h"
#include "combine.h"

/* What a reader holds between two commits: for each of its partitions how far it has read and what became of the records, and their
 * rows. Pure: records and times in, an entry out; Kafka and Redis are on the other side of ingest.c and commit.c.
 *
 * Invariants: accepted + rejected + late + duplicate + out_of_range + gap + holes = next - stored, per partition (I2);
 * an offset is counted once: lower ones than expected are strays and dropped, higher ones leave a hole; a hole is believed
 * when a fresh fetch shows it again (rule 12). */

/* What a check of a lane's anchors found (watch.c). */
typedef struct {
  livenps_verdict found;
  livenps_position
      of; /* whose anchors were read: of another position it says nothing, also after a flush or a failover */
  int64_t offset; /* where to go on */
  int64_t sure; /* the stored next offset when the anchors were last found again; -1: never by this process */
  bool keep_root; /* the root is still there */
} livenps_finding;

typedef struct {
  char topic[250];
  char field[264]; /* "<topic>/<partition>": its field in Redis's positions */
  int32_t partition;
  const livenps_mapping *mapping;
  livenps_position stored;     /* as Redis has it; next -1: it has none yet (a partition added later) */
  int64_t start;               /* where to begin while Redis has none */
  int64_t next;                /* next offset wanted from Kafka */
  int64_t end;                 /* replay: stop here; INT64_MAX live */
  bool restart;                /* next is of the incarnation after the stored one */
  livenps_advance pending;     /* counts since stored; from, to, through are set when the entry is made */
  livenps_anchor anchor, root; /* to be stored with next; not there: as stored */
  unsigned unanchored;         /* records since the last that was made an anchor */
  int64_t last_ms; /* record timestamp of the last record since stored, LIVENPS_THROUGH_SAME without */
  bool doubt;      /* the next jump is not believed at once: librdkafka may have skipped records */
  int64_t jump;    /* the offset the last unbelieved jump led to, -1 without */
  bool jump_end;   /* it was the end of the topic, not a record */
  bool reseek;     /* fetch from next again; records are dropped until then */
  bool suspect;    /* Kafka hands out what librdkafka cannot read */
  int64_t still_at, still_since_ms, still_ms; /* stands at this offset since then; examined after so long */
  bool out_of_range;                          /* Kafka has no such offset: a gap or a topic made anew */
  int64_t
      uncovered_ms; /* after a gap or a late start: covered from here on, until the next record says it better; else -1 */
  int64_t high, high_asked_ms; /* newest known end offset and when (monotonic) it was asked for; 0 = never */
  int64_t
      wanted_ms; /* the anchors must be found again by a check begun after this moment (monotonic); 0: none need be */
  int64_t checked_ms; /* when the last check began that had an answer */
  livenps_finding finding;
  bool
      beyond; /* the topic ended before next: what is in hand may be gone from it, and other records may stand there by now */
  /* The reader's own: the broker the last record came from (-1: none yet), and until when jumps are believed (0: not said yet). */
  int32_t broker;
  int64_t believed_until_ms;
  int64_t caught_up_ms; /* when (monotonic) it was last seen to be read to its end; 0: never */
} livenps_lane;

typedef struct {
  const livenps_admission *admission;
  livenps_decoder *decoder;
  livenps_combine *combine;
  livenps_lane *lanes;
  size_t lane_count;
  int64_t clock_ms;   /* of the entry in the making */
  uint64_t strays;    /* records below the expected offset, dropped; since the start */
  uint64_t refetches; /* jumps that were not believed at once; since the start */
  uint64_t
      went_back; /* positions adopted that lie before what was stored last: Redis lost commits; since the start */
  uint64_t skips; /* of those, the ones that were no holes: a second fetch brought the records */
} livenps_batch;

void livenps_batch_init(livenps_batch *batch, const livenps_admission *admission);
void livenps_batch_free(livenps_batch *batch);

/* A partition, not positioned yet: adopt comes next. start: its first offset, for when Redis has no position. Returns the lane
 * (borrowed until the next open or close). */
livenps_lane *livenps_batch_open(livenps_batch *batch, const char *topic, int32_t partition,
                                 const livenps_mapping *mapping, int64_t start);
void livenps_batch_close(livenps_batch *batch, livenps_lane *lane); /* only after drop or a commit */
livenps_lane *livenps_batch_find(livenps_batch *batch, const char *topic, int32_t partition);

/* One record of a lane. Returns its fate in *fate and *reason, and true when it was counted; false when it was dropped (a stray, or
 * lane->reseek is set now because of a jump that is not believed yet, or it lies at or beyond lane->end).
 * Quarantine is the caller's: it writes the record when *fate is LIVENPS_REJECTED. */
bool livenps_batch_record(livenps_batch *batch, livenps_lane *lane, int64_t offset,
                          const livenps_record *record, livenps_fate *fate, livenps_reason *reason,
                          livenps_where *where);
/* Takes back the record that was rejected just now, because quarantine had no room: it is fetched again, what came before it stays. */
void livenps_batch_take_back(livenps_lane *lane, int64_t offset, livenps_reason reason);
/* Kafka says the partition ends at offset: what lies between is a hole. */
void livenps_batch_end(livenps_batch *batch, livenps_lane *lane, int64_t offset);
/* What comes next in Kafka begins at offset, whether or not it can be read: what lies between is a hole. */
void livenps_batch_begins(livenps_batch *batch, livenps_lane *lane, int64_t offset);
/* The topic now starts at offset (rule 11): a gap, said out loud by the caller. redis_ms: the last known Redis TIME. */
void livenps_batch_gap(livenps_batch *batch, livenps_lane *lane, int64_t offset, int64_t redis_ms);
/* The offsets mean other records: on at offset, in the next incarnation. What was not read in between, forward or back, is a gap. The
 * batch holds nothing of the lane that is not of the old records. keep_root: it is still there. */
void livenps_batch_restart(livenps_batch *batch, livenps_lane *lane, int64_t offset, bool keep_root,
                           int64_t redis_ms);
/* The root is no longer in the topic: the newest anchor takes its place. */
void livenps_batch_root(livenps_lane *lane);
/* Every lane with something to commit has had its anchors found again since it was wanted, and Kafka has what it is to read next: only then
 * it is committed. */
bool livenps_batch_verified(const livenps_batch *batch);

/* Kafka has the records before offset, and nobody can read them: holes that uncover windows as a gap does; said out loud by the
 * caller. No gap, because a gap is what an older snapshot may count: here that one would lead to the same records again. */
void livenps_batch_unreadable(livenps_batch *batch, livenps_lane *lane, int64_t offset, int64_t redis_ms);

bool livenps_batch_empty(const livenps_batch *batch); /* no lane advanced */
/* The entry of all that is in hand, a line for every lane; lends, see combine.h. now_ms is monotonic, for the freshness of
 * lane->high. advances must have room for lane_count. */
void livenps_batch_entry(const livenps_batch *batch, livenps_text writer, int64_t now_ms,
                         livenps_advance *advances, livenps_entry *entry);
/* After OK: what was in hand is stored. */
void livenps_batch_committed(livenps_batch *batch);
/* After anything else: forget what is in hand. The caller adopts positions next. */
void livenps_batch_drop(livenps_batch *batch);
/* Redis's word on a lane: stored and next become this (next -1: none, begin at start). true when Kafka must seek there. redis_ms: when. */
bool livenps_batch_adopt(livenps_batch *batch, livenps_lane *lane, const livenps_position *stored,
                         int64_t redis_ms);
/* What is to stand in Redis after this batch. */
livenps_position livenps_batch_position(const livenps_lane *lane);

#endif
