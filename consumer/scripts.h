#ifndef LIVENPS_SCRIPTS_H
#define LIVENPS_SCRIPTS_H

#include "redis.h"

/* What Redis does atomically, as Lua texts, and the C call of each. Every script checks everything before its first write: a
 * script that fails half-way is not rolled back. Keys (hash tag {ns}): nps:{ns}:meta :positions :log :lease :snapshot.
 *
 * meta (hash): version, lineage (32 hex), genesis (number), admit (64 hex), head (stream id), head_nonce, bytes (all payload bytes ever
 *   appended), trimmed (bytes trimmed), publish (id of the last publish), and free extra fields given at genesis (replay: topic, from, to, ends).
 * positions (hash): "<topic>/<partition>" -> decimal next offset (later: more, behind a space; compare the number only).
 * log (stream): l lineage, n nonce, p predecessor id, q predecessor nonce, b bytes before this entry, d payload.
 * lease (string): token, with expiry. snapshot (hash): id, entry, nonce, lineage, genesis, chunks (newline-separated "name key"). */

/* Of what stands in Redis: keys, log entries, snapshot pointer. Another version is refused. */
enum { LIVENPS_FORMAT_VERSION = 1 };

typedef struct {
  char meta[128], positions[128], log[128], lease[128], snapshot[128], prefix[128]; /* prefix "nps:{ns}:" */
} livenps_keys;
void livenps_keys_make(livenps_keys *keys, const char *namespace_);

/* An entry's identity: a stream id alone comes back after a failover. */
typedef struct {
  char id[44];    /* "1732184100123-0" */
  char nonce[33];
} livenps_entry_id;

typedef enum { LIVENPS_COMMIT_OK, LIVENPS_COMMIT_CONFLICT, LIVENPS_COMMIT_EMPTY, LIVENPS_COMMIT_LINEAGE, LIVENPS_COMMIT_CONFIG,
               LIVENPS_COMMIT_FULL } livenps_commit_answer;

/* One partition of the writer: expected stored next offset (-1: none is stored yet) and the new one (equal when not advanced). */
typedef struct {
  const char *field; /* "<topic>/<partition>" */
  int64_t expected, next;
} livenps_claim;

/* The commit. 0 and *answer, or -1 (error; with LOST nobody knows whether it happened: adopt the stored positions). On OK *redis_ms
 * is Redis TIME and *id the new entry. detail (512 bytes) says what is stored on CONFLICT, LINEAGE, CONFIG, FULL. */
int livenps_script_commit(livenps_redis *redis, const livenps_keys *keys, const char *lineage, const char *admit,
                          int64_t log_max_bytes, const livenps_claim *claims, size_t claim_count, const livenps_buffer *payload,
                          livenps_commit_answer *answer, int64_t *redis_ms, livenps_entry_id *id, char detail[512],
                          livenps_error *error);

/* What a writer needs before it reads: lineage, admit and format version, and the stored positions of the given fields (-1: none),
 * read in one atomic script. *empty: there is no meta yet (wait for genesis). */
int livenps_script_adopt(livenps_redis *redis, const livenps_keys *keys, const char **fields, size_t count, bool *empty,
                         char lineage[33], char admit[65], int64_t *positions, int64_t *redis_ms, livenps_error *error);

/* The rest (lease, genesis, snapshot flip and trim, publish) is declared by scripts.c's other user, aggregate.c, further down here. */

#endif
