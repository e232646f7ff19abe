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
  int64_t gap; /* offsets lost before they were read */
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
/* Whether it lost fewer records than this ledger, and in no partition more: what is known of the rest is as good. */
bool livenps_manifest_loses_less(const livenps_manifest *manifest, const livenps_partition *ledger,
                                 size_t count);
/* Whether what it does not cover can be read from where the topics stand now. false: why says what is in the way. A partition of another
 * topic than those in now (taken out of the settings) does not matter. */
bool livenps_manifest_reaches(const livenps_manifest *manifest, const livenps_beginning *now, size_t count,
                              char why[256]);

#endif
