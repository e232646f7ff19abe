#ifndef LIVENPS_MANIFEST_H
#define LIVENPS_MANIFEST_H

#include "aggregate.h"
#include "scripts.h"

/* What a snapshot in Kafka says of itself: which namespace and rules, up to which positions it counts, and the chunks that make it
 * up. Pure: JSON in and out, and the choice among several. keep.c writes and reads the topic.
 *
 * A writer is known by its tenure, a random name that is new each time an aggregator loads its state. Keys of records:
 *   manifest/<genesis>/<tenure>/<sequence>
 *   chunk/<tenure>/<id>/<piece>            id: the chunk's own name in Redis, without the namespace's beginning */

enum {
  LIVENPS_MANIFEST_FORMAT = 1,
  LIVENPS_PIECE_BYTES = 512 * 1024, /* of a chunk in one record; part of the format */
};

typedef struct {
  char *topic;
  int32_t partition;
  livenps_position position;
  int64_t start; /* the first offset that was read, in the first incarnation */
  int64_t gap;   /* offsets lost before they were read */
} livenps_manifest_partition;

typedef struct {
  char *name, *id;
  size_t size;
  char sha256[65];
} livenps_manifest_chunk;

struct livenps_manifest {
  char namespace_[65], admit[65], lineage[33], tenure[17];
  livenps_entry_id entry; /* of the commit log, that it covers */
  int64_t version;        /* LIVENPS_FORMAT_VERSION of the writer */
  int64_t genesis, sequence;
  int64_t ms; /* Redis TIME when it was made */
  livenps_manifest_partition *partitions;
  size_t partition_count;
  livenps_manifest_chunk *chunks;
  size_t chunk_count;
};

void livenps_manifest_free(livenps_manifest *manifest); /* legal on {0} */
/* Partitions of a ledger, copied. */
void livenps_manifest_positions(livenps_manifest *manifest, const livenps_partition *ledger, size_t count);
void livenps_manifest_encode(const livenps_manifest *manifest, livenps_buffer *out);
/* Bytes from a topic that anybody may have written to: E_DATA says what does not fit, *out is {0} then. */
int livenps_manifest_decode(livenps_manifest *out, const char *bytes, size_t length, livenps_error *error);

/* Further means: a higher genesis, then more offsets read, then the later one. As for qsort: the furthest first. */
int livenps_manifest_compare(const livenps_manifest *a, const livenps_manifest *b);
/* Whether a has read something that b has not. */
bool livenps_manifest_ahead(const livenps_manifest *a, const livenps_manifest *b);
/* Whether it says of the positions what the state that it leads to says. */
bool livenps_manifest_matches(const livenps_manifest *manifest, const livenps_partition *ledger,
                              size_t count);

/* ---- which one to begin with ---------------------------------------------------------------------------------------
 * What the topics hold still will be read, whatever is begun with. What they hold no longer is lost, unless the snapshot counts it: so
 * the one is taken that loses the fewest records, and one that retention has overtaken in a partition still serves. A higher genesis goes
 * first all the same: whoever began it meant to replace what was. */

/* Whether the topics are still those that it counts, as far as their offsets tell. false: why says what is in the way. A partition of
 * another topic than those in now (taken out of the settings) does not matter. */
bool livenps_manifest_reaches(const livenps_manifest *manifest, const livenps_beginning *now, size_t count,
                              char why[256]);
/* Offsets behind its positions that the topics have lost; why names a partition when there are any. */
int64_t livenps_manifest_overtaken(const livenps_manifest *manifest, const livenps_beginning *now,
                                   size_t count, char why[256]);
/* Whether fewer records are lost when the state that mine describes (genesis, partitions) is given up and begun anew with this one. now
 * NULL: where the topics begin is not known; true means that it is worth asking. */
bool livenps_manifest_better(const livenps_manifest *manifest, const livenps_manifest *mine,
                             const livenps_beginning *now, size_t count);
/* The places in all of those that can serve, the best first; returns how many. mine: better than that one, whose positions are of the
 * topics that there are now; NULL: any will do. */
size_t livenps_manifest_choose(const livenps_manifest *const *all, size_t count, const livenps_manifest *mine,
                               const livenps_beginning *now, size_t now_count, size_t *order);

#endif
