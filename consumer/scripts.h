#ifndef LIVENPS_SCRIPTS_H
#define LIVENPS_SCRIPTS_H

#include "../common/position.h"
#include "redis.h"

/* What Redis does atomically, as Lua texts, and the C call of each. Every script checks everything before its first write: a
 * script that fails half-way is not rolled back. Keys (hash tag {ns}): nps:{ns}:meta :positions :log :lease :snapshot.
 *
 * meta (hash): version, lineage (32 hex), genesis (number), admit (64 hex), head (stream id), head_nonce, bytes (all payload bytes ever
 *   appended), trimmed (bytes trimmed), publish (id of the last publish), and free extra fields given at genesis (replay: topic, from, to, ends).
 * positions (hash): "<topic>/<partition>" -> a position (common/position.h). A commit compares all of it.
 * log (stream): l lineage, n nonce, p predecessor id, q predecessor nonce, b bytes before this entry, d payload.
 * lease (string): token, with expiry; lease:last (string): the token that held it last. snapshot (hash): id, entry, nonce, lineage, genesis, chunks (newline-separated "name key"). */

/* Of what stands in Redis: keys, log entries, snapshot pointer. Another version is refused. */
enum { LIVENPS_FORMAT_VERSION = 2 };

typedef struct {
  char meta[128], positions[128], log[128], lease[128], lease_last[128], snapshot[128],
      prefix[128]; /* prefix "nps:{ns}:" */
} livenps_keys;
void livenps_keys_make(livenps_keys *keys, const char *namespace_);

/* An entry's identity: a stream id alone comes back after a failover. */
typedef struct {
  char id[44]; /* "1732184100123-0" */
  char nonce[33];
} livenps_entry_id;

typedef enum {
  LIVENPS_COMMIT_OK,
  LIVENPS_COMMIT_CONFLICT,
  LIVENPS_COMMIT_EMPTY,
  LIVENPS_COMMIT_LINEAGE,
  LIVENPS_COMMIT_CONFIG,
  LIVENPS_COMMIT_FULL
} livenps_commit_answer;

/* One partition of the writer: the position that it started from (next -1: none is stored yet) and the new one. Written when their
 * texts differ. */
typedef struct {
  const char *field; /* "<topic>/<partition>" */
  livenps_position stored, position;
} livenps_claim;

/* The commit. 0 and *answer, or -1 (error; with LOST nobody knows whether it happened: adopt the stored positions). On OK *redis_ms
 * is Redis TIME and *id the new entry. detail (512 bytes) says what is stored on CONFLICT, LINEAGE, CONFIG, FULL. */
int livenps_script_commit(livenps_redis *redis, const livenps_keys *keys, const char *lineage,
                          const char *admit, int64_t log_max_bytes, const livenps_claim *claims,
                          size_t claim_count, const livenps_buffer *payload, livenps_commit_answer *answer,
                          int64_t *redis_ms, livenps_entry_id *id, char detail[512], livenps_error *error);

/* What a writer needs before it reads: lineage, admit and format version, and the stored positions of the given fields (next -1: none),
 * read in one atomic script. *empty: there is no meta yet (wait for genesis). */
int livenps_script_adopt(livenps_redis *redis, const livenps_keys *keys, const char **fields, size_t count,
                         bool *empty, char lineage[33], char admit[65], livenps_position *positions,
                         int64_t *redis_ms, livenps_error *error);

/* ---- the aggregator's scripts: each renews the lease it checks ---------------------------------------------------- */

/* Why a script of the aggregator did nothing. */
typedef enum {
  LIVENPS_FENCE_OK,
  LIVENPS_FENCE_LEASE,     /* the token is not ours (any more): stand by */
  LIVENPS_FENCE_LINEAGE,   /* another genesis happened (or meta is gone): load what is there */
  LIVENPS_FENCE_GONE,      /* the covered entry (or the log) is not there: reload the snapshot */
  LIVENPS_FENCE_REPUBLISH, /* the last publish id is not the one we left: publish everything */
  LIVENPS_FENCE_CHUNK, /* a chunk of the snapshot is missing or has another length: write all chunks again */
  LIVENPS_FENCE_BACKWARDS, /* a snapshot of the same lineage covers a later entry */
} livenps_fence;

typedef struct {
  char token[33];
  int64_t lease_ms;
  char lineage[33];
  livenps_entry_id covered;
} livenps_holder;

/* Takes or renews. *taken: it was free and is ours now; *held false: another holds it. */
int livenps_script_lease(livenps_redis *redis, const livenps_keys *keys, const livenps_holder *holder,
                         bool *held, bool *taken, livenps_error *error);
int livenps_script_release(livenps_redis *redis, const livenps_keys *keys, const livenps_holder *holder,
                           livenps_error *error);

/* What stands in the namespace. present: meta and log are there; without a log lineage is still told, for the genesis that replaces it.
 * covered.id is "" without a snapshot; covered_exists: the log still holds that entry. chunks belongs to the caller (free). */
typedef struct {
  int64_t redis_ms;
  bool present;
  int64_t version, genesis;
  char lineage[33], admit[65], publish[64];
  livenps_entry_id head, covered;
  bool covered_exists;
  char *chunks;
} livenps_stored;
int livenps_script_look(livenps_redis *redis, const livenps_keys *keys, livenps_stored *stored,
                        livenps_error *error);

/* A chunk as the pointer lists it. */
typedef struct {
  char *name, *key;
  size_t size;
} livenps_chunk;

/* Raises the genesis number and replaces whatever the namespace holds by meta, positions, a snapshot pointer and one entry with
 * this payload, which the snapshot covers. seen: the lineage that was looked at, "" for none; another one is LINEAGE. On OK
 * holder->covered is the new entry. holder->lineage is the new lineage. */
typedef struct {
  const char *seen, *admit, *snapshot_id;
  const livenps_chunk *chunks;
  size_t chunk_count;
  const livenps_claim *positions; /* only field and position are looked at */
  size_t position_count;
  const livenps_pair *extra;
  size_t extra_count;
  int64_t
      above; /* the genesis number rises above this one as well (of a snapshot from elsewhere); 0 without */
  const livenps_buffer *payload;
} livenps_birth;
int livenps_script_genesis(livenps_redis *redis, const livenps_keys *keys, livenps_holder *holder,
                           const livenps_birth *birth, livenps_fence *fence, int64_t *genesis,
                           int64_t *redis_ms, livenps_error *error);

/* Entries after `last`, at most about max_bytes of payload, with Redis TIME read in the same moment. */
typedef struct {
  livenps_entry_id id, before; /* before: what it names as its predecessor */
  int64_t ms;                  /* of its id */
  livenps_text lineage, payload;
} livenps_logged;
typedef struct {
  livenps_reply *reply; /* the texts borrow from it */
  livenps_fence fence;
  int64_t redis_ms, bytes, trimmed;
  livenps_entry_id head;
  char publish[64];
  livenps_logged *at;
  size_t count;
} livenps_reading;
int livenps_script_read(livenps_redis *redis, const livenps_keys *keys, const livenps_holder *holder,
                        const char *last, int64_t max_bytes, livenps_reading *reading, livenps_error *error);
void livenps_reading_free(livenps_reading *reading); /* legal on {0} */

/* The same for whoever only looks (verify): no lease, nothing is renewed. Entries after `last` up to `head`, at most `count`; only at, count and
 * reply are set. */
int livenps_log_read(livenps_redis *redis, const livenps_keys *keys, const char *last, const char *head,
                     int count, livenps_reading *reading, livenps_error *error);

/* All positions, and the entry that brought them there, read in the same moment. Writes nothing. */
typedef struct {
  livenps_text field; /* "<topic>/<partition>" */
  livenps_position position;
} livenps_standing;
typedef struct {
  livenps_reply *reply; /* the texts borrow from it */
  int64_t redis_ms;
  char lineage[33];
  livenps_entry_id head;
  livenps_standing *at;
  size_t count;
} livenps_positions;
int livenps_script_positions(livenps_redis *redis, const livenps_keys *keys, livenps_positions *positions,
                             livenps_error *error);
void livenps_positions_free(livenps_positions *positions); /* legal on {0} */

/* Commands to apply in one script. {0} is empty. A command is the words added since the end of the one before: at most some thousand, as
 * Lua takes no more at once. */
typedef struct {
  livenps_buffer bytes; /* all commands, one after the other, their words packed */
  size_t *ends;         /* of each command */
  size_t commands, capacity;
} livenps_ops;
void livenps_ops_add(livenps_ops *ops, const char *bytes, size_t length);
void livenps_ops_end(livenps_ops *ops);
void livenps_ops_command(livenps_ops *ops, const char *word, ...)
    __attribute__((sentinel)); /* whole, strings, NULL */
void livenps_ops_clear(livenps_ops *ops);
void livenps_ops_free(livenps_ops *ops);

/* Checks token, lineage, covered entry and that the last publish id is `before`, leaves `id`, then applies the commands. A key of another
 * type is replaced (views are ours to write), an XADD at or below the stream's last id is left out. stored: on REPUBLISH what is there. */
int livenps_script_publish(livenps_redis *redis, const livenps_keys *keys, const livenps_holder *holder,
                           const char *before, const char *id, const livenps_ops *ops, livenps_fence *fence,
                           char stored[64], livenps_error *error);

/* Writes one chunk of a snapshot, which expires unless a pointer comes to list it. Renews the lease, and goes on when memory is out. */
enum { LIVENPS_CHUNK_TTL_MS = 3600 * 1000 };
int livenps_script_chunk(livenps_redis *redis, const livenps_keys *keys, const livenps_holder *holder,
                         const char *key, livenps_text bytes, livenps_fence *fence, livenps_error *error);

/* The snapshot's flip: checks token, lineage, that `covers` is in the log, that every chunk exists in its length, and that it does not go
 * backwards; then points to it, removes chunks that are no longer listed, trims the log before the covered entry. On OK holder->covered
 * is `covers`. */
int livenps_script_flip(livenps_redis *redis, const livenps_keys *keys, livenps_holder *holder,
                        const livenps_entry_id *covers, const char *snapshot_id, const livenps_chunk *chunks,
                        size_t chunk_count, livenps_fence *fence, livenps_error *error);

#endif
