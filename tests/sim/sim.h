#ifndef LIVENPS_SIM_H
#define LIVENPS_SIM_H

/* Deterministic simulation: `livenps_run` itself, several times, on a simulated Kafka, Redis and clock, everything from one seed.
 *
 * What is real: every line of consumer/ and common/, down to the calls of librdkafka and hiredis, and Redis's Lua scripts in liblua5.1.
 * What is replaced, by the linker: librdkafka (kafka.c), hiredis (hiredis.c, in front of the keyspace of redis.c), the clock, sleeping,
 * threads, random numbers, the log (world.c). oracle.c holds the truth about every record and recounts.
 *
 * A simulated process is a set of coroutines; one runs until it sleeps or asks a peer, then the scheduler takes the next one by simulated
 * time. So a process can be stopped, or killed, between any two calls of a peer, and nothing depends on the real clock. */

#include "common/settings.h"

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- the world (world.c) ---------------------------------------------------------------------------------------------- */

enum { SIM_PROCESSES = 8 };

typedef struct sim_process {
  int id;
  char name[24];
  bool alive;
  int stop;      /* its livenps_stop */
  int exit_code; /* of the last run; -1 killed */
  int64_t started_us, ended_us;
  int64_t paused_until_us; /* stopped, as by SIGSTOP */
  int64_t skew_us;         /* of its monotonic clock */
  int slow;                /* waiting for Kafka takes so many times as long */
  livenps_settings settings;
  int (*entry)(struct sim_process *process);
  bool restarting;
  char digest[65]; /* of a replay */
  /* Armed by the scenario, taken by the next call of Redis that runs a script: 0 none. */
  int crash_at;       /* 1: before the script ran, 2: after it, before the reply */
  int64_t stop_at_us; /* stopped for so long just before it sends the next commit */
  bool late_commit;   /* the next one is carried out after it has given up waiting */
  /* Of each partition of the topic: when its end was asked for last, and in which era its bounds were. */
  int64_t end_asked_us[64];
  int bounds_era[64];
} sim_process;

extern sim_process sim_processes[SIM_PROCESSES];
extern int64_t sim_now_us; /* since the beginning */
extern bool sim_tracing;
extern uint64_t sim_steps;

/* The time at which the simulation begins: ms since 1970. */
#define SIM_EPOCH_MS INT64_C(1760000000000)
int64_t sim_wall_ms(void);

uint64_t sim_random(void);
int64_t sim_between(int64_t low, int64_t high); /* both inclusive */
bool sim_chance(int percent);

void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Ends the seed: an invariant does not hold. */
void sim_fail(const char *invariant, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));

sim_process *sim_self(void);   /* whose code runs now; NULL: the scheduler's */
void sim_sleep_us(int64_t us); /* of the running coroutine */
void sim_start(sim_process *process);
void sim_kill(sim_process *process); /* may be the running one: then it does not return */
bool sim_paused(const sim_process *process);

typedef void (*sim_action)(void *opaque, int64_t number);
void sim_at(int64_t at_us, sim_action action, void *opaque, int64_t number);

/* Runs coroutines and actions until a time, or until done says so (asked every 100 ms of simulated time). */
void sim_run(int64_t until_us, bool (*done)(void));

/* One seed: calls scenario between setting everything up and tearing it down. true: all invariants held, else sim_failure says what. */
bool sim_seed(uint64_t seed, void (*scenario)(void));
extern char sim_failed_invariant[64], sim_failure[2048];

/* What is kept from seed to seed (compiled scripts) must not come from the arena that each seed begins with. */
void *sim_keep(size_t size);

/* ---- faults: counted by kind ------------------------------------------------------------------------------------------ */

/* Those that the scenario plans first, then those that happen by themselves. */
#define SIM_FAULT_LIST(X)                                                                                    \
  X(KILL, "kill")                                                                                            \
  X(KILL_AT_SCRIPT, "kill around a script")                                                                  \
  X(STOP, "stop and go on (zombie)")                                                                         \
  X(TERM, "SIGTERM")                                                                                         \
  X(REBALANCE, "rebalance")                                                                                  \
  X(LOST_REPLY, "lost reply")                                                                                \
  X(LOST_REQUEST, "lost request")                                                                            \
  X(LATE, "late script")                                                                                     \
  X(AWAY, "Redis away")                                                                                      \
  X(HANG, "Redis hangs")                                                                                     \
  X(FAILOVER, "failover, writes lost")                                                                       \
  X(SPLIT, "two masters for a while")                                                                        \
  X(BACKUP, "old backup")                                                                                    \
  X(FLUSH, "flush")                                                                                          \
  X(READONLY, "READONLY")                                                                                    \
  X(OOM, "OOM")                                                                                              \
  X(LOADING, "LOADING")                                                                                      \
  X(BUSY, "BUSY")                                                                                            \
  X(NOSCRIPT, "script flush")                                                                                \
  X(CLOCK, "Redis clock jumps")                                                                              \
  X(BROKER, "broker away")                                                                                   \
  X(SKIP, "records skipped")                                                                                 \
  X(STRAY, "stale records")                                                                                  \
  X(RETENTION, "retention passes")                                                                           \
  X(PARTITION, "partition added")                                                                            \
  X(ANEW, "topic made anew")                                                                                 \
  X(CUT, "log loses its end")                                                                                \
  X(UNACKED, "quarantine not acknowledged")                                                                  \
  X(REFUSED, "quarantine refuses")                                                                           \
  X(ABORTED, "aborted transaction")                                                                          \
  X(OPEN, "open transaction")                                                                                \
  X(FULL, "log full")
typedef enum {
#define SIM_FAULT_ENUM(symbol, name) SIM_##symbol,
  SIM_FAULT_LIST(SIM_FAULT_ENUM)
#undef SIM_FAULT_ENUM
      SIM_FAULTS,
  SIM_PLANNED = SIM_ABORTED
} sim_fault;
extern const char *const sim_fault_names[SIM_FAULTS];
extern uint64_t sim_faults[SIM_FAULTS]; /* of this seed */
void sim_fault_happened(sim_fault fault);

/* ---- Redis: the keyspace (redis.c) ------------------------------------------------------------------------------------- */

typedef struct {
  size_t length;
  char bytes[];
} sim_blob; /* never changed once made; belongs to the seed */

typedef struct sim_db sim_db;
sim_db *sim_db_new(void);
sim_db *sim_db_copy(const sim_db *db);
/* One command, also EVAL and EVALSHA, as one unit: what it writes is lost or kept together. */
redisReply *sim_db_command(sim_db *db, int argc, const char **argv, const size_t *lengths);
uint64_t sim_db_unit(const sim_db *db);                    /* units that wrote, so far */
uint64_t sim_db_unit_before(const sim_db *db, int64_t us); /* the number at that time */
void sim_db_rollback(sim_db *db, uint64_t unit);           /* to the state after that unit */
void sim_db_forget_scripts(sim_db *db);
bool sim_db_wrote(const sim_db *db); /* the last command changed something */

typedef struct {
  bool readonly, oom;
  int64_t clock_us; /* its clock minus the world's */
} sim_db_mood;
sim_db_mood *sim_db_mood_of(sim_db *db);
int64_t sim_db_time_ms(const sim_db *db);

/* Looking into it, for the oracle: no side effects, expiry is honoured. NULL where nothing is. */
typedef struct {
  const sim_blob *name, *value;
} sim_field;
typedef struct {
  int64_t ms, seq;
  const sim_blob **fields;
  size_t count;
} sim_item;
const sim_blob *sim_db_string(const sim_db *db, const char *key);
const sim_blob *sim_db_field(const sim_db *db, const char *key, const char *field);
const sim_field *sim_db_fields(const sim_db *db, const char *key, size_t *count); /* hash, set, sorted set */
const sim_item *sim_db_items(const sim_db *db, const char *key, size_t *count);
bool sim_db_exists(const sim_db *db, const char *key);
/* Differs from what it was before a command when that changed the key; NULL: nothing there. */
const void *sim_db_identity(const sim_db *db, const char *key);
const char *sim_db_changed(const sim_db *db,
                           size_t i); /* names of the keys that the last command changed; NULL at the end */
void sim_scripts_reset(void);         /* after a script was left in its middle */
/* A hash of the oracle's own beside the data: lost and kept with it. */
void sim_db_note(sim_db *db, const char *key, const char *field, const char *value);
void sim_db_unnote(sim_db *db, const char *key);

redisReply *sim_reply(int type);
redisReply *sim_reply_bytes(int type, const char *bytes, size_t length);
void sim_reply_free(redisReply *reply);

/* ---- Redis: the way to it (hiredis.c) ----------------------------------------------------------------------------------- */

typedef struct {
  sim_db *db, *other;     /* other: a second master, for the processes of `cut` */
  unsigned cut;           /* bit of a process: it talks to other */
  int64_t away_until_us;  /* refuses connections */
  int64_t hang_until_us;  /* takes requests, answers later */
  int64_t error_until_us; /* answers with `error` */
  const char *error;
  uint64_t epoch;                     /* connections of an older one are dead */
  int lose_reply, lose_request, late; /* of that many calls in a hundred thousand */
} sim_redis_server;
extern sim_redis_server sim_redis;
void sim_redis_reset(void);

/* ---- Kafka (kafka.c) ---------------------------------------------------------------------------------------------------- */

typedef enum { SIM_STABLE, SIM_ABORTED_RECORD, SIM_OPEN_RECORD, SIM_MARKER } sim_standing;
typedef struct {
  const char *name, *value;
  size_t size;
} sim_header;
typedef struct {
  sim_standing standing;
  const char *key, *value; /* NULL: none */
  size_t key_size, value_size;
  const sim_header *headers;
  size_t header_count;
  int64_t timestamp_ms, appended_us;
  int truth; /* index into the oracle's records, -1 none */
} sim_record;
typedef struct sim_partition {
  sim_record *at; /* by offset, from 0: nothing is forgotten, `low` says what retention took */
  int64_t count, capacity, low;
  int64_t lows[16]; /* what low has been */
  int low_count;
  int64_t opened;        /* first offset of the open transaction, -1 none */
  int64_t away_until_us; /* its leader */
  /* How often its offsets have begun to mean other records, and what it was before (never changed). What is below `kept` is still the
   * same: all that an election left of the log; nothing of a topic that was made anew. */
  int era;
  const struct sim_partition *before;
  int64_t kept, renewed_us;
} sim_partition;
typedef struct {
  char name[250];
  sim_partition at[64];
  int count;
  char policy[32];       /* cleanup.policy */
  int64_t away_until_us; /* deleted until then */
} sim_topic;
sim_topic *sim_topic_find(const char *name); /* NULL: none */
sim_topic *sim_topic_make(const char *name, int partitions);
int64_t sim_append(sim_topic *topic, int partition, const sim_record *record); /* its offset */
int64_t sim_stable_end(const sim_partition *partition);
void sim_retain(sim_partition *partition, int64_t low); /* forgets what lies before */
/* A new era: the log ends at `kept` now; anew: it begins at 0, empty. */
void sim_renew(sim_partition *partition, bool anew, int64_t kept);
const sim_partition *sim_era(const sim_partition *partition, int era);

typedef struct {
  int64_t away_until_us;
  int64_t session_us;
  int skip;                   /* fetches after an assignment or seek that leave records out, in a hundred */
  bool stray;                 /* what was fetched before a revocation is served all the same */
  int64_t hold_acks_until_us; /* producers' records wait */
  int refuse;                 /* produced records refused, in a hundred */
  int64_t queue_full_until_us;
} sim_kafka_cluster;
extern sim_kafka_cluster sim_kafka;
void sim_kafka_reset(void);
void sim_kafka_rebalance(void); /* every group, for no reason */
void sim_kafka_process_died(sim_process *process);
/* Whoever reads the partition has asked for its end since then, and has tried to fetch. */
bool sim_kafka_looked(int partition, int64_t since_us);

/* ---- the truth (oracle.c) ------------------------------------------------------------------------------------------------ */

#define SIM_NAMESPACE "live"
#define SIM_TOPIC     "events"

void sim_oracle_reset(const livenps_settings *settings);
/* Makes one record and appends it to a partition (of the topic that is read). */
void sim_oracle_publish(int partition, sim_standing standing, int64_t ago_ms);
/* Around every command that reaches a keyspace. */
void sim_oracle_before(sim_db *db, const sim_process *process, int argc, const char **argv,
                       const size_t *lengths);
void sim_oracle_after(sim_db *db, const sim_process *process, int argc, const char **argv,
                      const size_t *lengths, const redisReply *reply);
/* What is stored is whole: pointer, chunks, log, positions agree, and equal a recount. */
void sim_oracle_stored(const sim_db *db);
/* All positions are at the end, views are of these positions and complete. */
bool sim_oracle_caught_up(const sim_db *db);
void sim_oracle_explain(const sim_db *db, char *out, size_t size); /* what is missing for that */
void sim_oracle_quarantined(const sim_record *record);
/* The oldest record that a partition's position remembers: its offset, -1 without. */
int64_t sim_oracle_root(const sim_db *db, int partition);

#endif
