#include "sim.h"

#include <errno.h>
#ifdef LIVENPS_HAVE_HIREDIS_SSL
#include <hiredis/hiredis_ssl.h>
#endif
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

/* What consumer/redis.c calls of hiredis, in front of the simulated server: the way there and back takes time, and everything that can
 * happen on it happens. A request that was sent and not answered may still be carried out, also much later. */

typedef struct {
  redisContext context; /* first: this is what the program holds */
  uint64_t epoch;
  int64_t timeout_us;
  bool connected;
} connection;

typedef struct {
  int argc;
  char **argv;
  size_t *lengths;
  const sim_process *process;
  uint64_t epoch;
  int bounds_era[sizeof((sim_process *)NULL)->bounds_era / sizeof(int)]; /* the process's when it was sent */
} request;

sim_redis_server sim_redis;

void sim_redis_reset(void) {
  sim_redis = (sim_redis_server){.db = sim_db_new(), .epoch = 1};
}

/* ---- what happens on the way ------------------------------------------------------------------------------------------------ */

static sim_db *server_of(const sim_process *process) {
  return sim_redis.other && (sim_redis.cut & 1u << process->id) ? sim_redis.other : sim_redis.db;
}

static redisReply *carry_out(const sim_process *process, int argc, const char **argv, const size_t *lengths) {
  sim_db *db = server_of(process);
  if (sim_redis.error_until_us > sim_now_us)
    return sim_reply_bytes(REDIS_REPLY_ERROR, sim_redis.error, strlen(sim_redis.error));
  sim_oracle_before(db, process, argc, argv, lengths);
  redisReply *reply = sim_db_command(db, argc, argv, lengths);
  sim_oracle_after(db, process, argc, argv, lengths, reply);
  if (sim_tracing && (!strcasecmp(argv[0], "EVALSHA") || !strcasecmp(argv[0], "EVAL"))) {
    const redisReply *first = reply->type == REDIS_REPLY_ARRAY && reply->elements ? reply->element[0] : reply;
    sim_trace("   script on %s: %.100s%s", argv[3], first->str ? first->str : "...",
              sim_db_wrote(db) ? "" : " (nothing written)");
  }
  return reply;
}

static void carry_out_late(void *opaque, int64_t number) {
  (void)number;
  request *what = opaque;
  /* A server that was restarted or replaced has no such request any more. */
  if (what->epoch != sim_redis.epoch)
    return;
  sim_trace("-- a late request of %s is carried out", what->process->name);
  /* What it says of Kafka was asked before it was sent. */
  sim_process sender = *what->process;
  memcpy(sender.bounds_era, what->bounds_era, sizeof sender.bounds_era);
  sim_reply_free(carry_out(&sender, what->argc, (const char **)(uintptr_t)what->argv, what->lengths));
}

static void later(const connection *to, int64_t at_us, int argc, const char **argv, const size_t *lengths) {
  request *what = malloc(sizeof *what);
  *what = (request){argc,
                    malloc((size_t)argc * sizeof(char *)),
                    malloc((size_t)argc * sizeof(size_t)),
                    sim_self(),
                    to->epoch,
                    {0}};
  memcpy(what->bounds_era, what->process->bounds_era, sizeof what->bounds_era);
  for (int i = 0; i < argc; i++) {
    what->lengths[i] = lengths ? lengths[i] : strlen(argv[i]);
    what->argv[i] = malloc(what->lengths[i] + 1);
    memcpy(what->argv[i], argv[i], what->lengths[i]);
    what->argv[i][what->lengths[i]] = 0;
  }
  sim_at(at_us, carry_out_late, what, 0);
}

static void *broken(connection *to, int error, int number, const char *text) {
  to->context.err = error;
  errno = number;
  snprintf(to->context.errstr, sizeof to->context.errstr, "%s", text);
  return NULL;
}

static void *timed_out(connection *to) {
  return broken(to, REDIS_ERR_IO, EAGAIN, "Resource temporarily unavailable");
}

static void *closed(connection *to) {
  return broken(to, REDIS_ERR_EOF, 0, "Server closed the connection");
}

static bool gone(const connection *to) {
  return to->epoch != sim_redis.epoch || sim_redis.away_until_us > sim_now_us;
}

static bool is_script(const char *word) {
  return !strcasecmp(word, "EVALSHA") || !strcasecmp(word, "EVAL");
}

/* The writer's, of all scripts: three keys, positions among them, more arguments than an adoption has. */
static bool is_commit(int argc, const char **argv) {
  const char *name = argc > 12 && !strcmp(argv[2], "3") ? strrchr(argv[4], ':') : NULL;
  return name && !strcmp(name, ":positions");
}

static bool happens(int in_a_hundred_thousand) {
  return in_a_hundred_thousand && sim_between(1, 100000) <= in_a_hundred_thousand;
}

void *redisCommandArgv(redisContext *c, int argc, const char **argv, const size_t *lengths) {
  connection *to = (connection *)c;
  sim_process *self = sim_self();
  const bool script = is_script(argv[0]);
  if (script && self->stop_at_us && is_commit(argc, argv)) {
    /* The zombie at its worst: what it sends when it wakes was true when it went to sleep. */
    sim_fault_happened(SIM_STOP);
    self->paused_until_us = sim_now_us + self->stop_at_us;
    self->stop_at_us = 0;
  }
  sim_sleep_us(sim_between(50, script ? 1500 : 400));
  if (gone(to))
    return closed(to);
  if (sim_redis.hang_until_us > sim_now_us) {
    /* It reads what was sent when it wakes, whether or not anybody still waits for the answer. */
    const int64_t wait_us = sim_redis.hang_until_us - sim_now_us;
    if (wait_us >= to->timeout_us) {
      later(to, sim_redis.hang_until_us, argc, argv, lengths);
      sim_sleep_us(to->timeout_us);
      return timed_out(to);
    }
    sim_sleep_us(wait_us);
    if (gone(to))
      return closed(to);
  }
  if (script && happens(sim_redis.lose_request)) {
    sim_fault_happened(SIM_LOST_REQUEST);
    return closed(to);
  }
  if (script && (happens(sim_redis.late) || (self->late_commit && is_commit(argc, argv)))) {
    self->late_commit = false;
    sim_fault_happened(SIM_LATE);
    later(to, sim_now_us + to->timeout_us + sim_between(-500000, 4000000), argc, argv, lengths);
    sim_sleep_us(to->timeout_us);
    return timed_out(to);
  }
  if (script && self->crash_at == 1) {
    sim_fault_happened(SIM_KILL_AT_SCRIPT);
    sim_kill(self);
  }
  redisReply *reply = carry_out(self, argc, argv, lengths);
  if (script && self->crash_at == 2) {
    sim_fault_happened(SIM_KILL_AT_SCRIPT);
    sim_kill(self);
  }
  if (script && happens(sim_redis.lose_reply)) {
    sim_fault_happened(SIM_LOST_REPLY);
    sim_reply_free(reply);
    if (sim_chance(50))
      return closed(to);
    sim_sleep_us(to->timeout_us);
    return timed_out(to);
  }
  sim_sleep_us(sim_between(50, script ? 1500 : 400));
  if (gone(to)) {
    sim_reply_free(reply);
    return closed(to);
  }
  return reply;
}

/* ---- connections ------------------------------------------------------------------------------------------------------------------ */

redisContext *redisConnectWithTimeout(const char *ip, int port, const struct timeval tv) {
  (void)ip, (void)port;
  connection *to = calloc(1, sizeof *to);
  to->timeout_us = (int64_t)tv.tv_sec * 1000000 + tv.tv_usec;
  sim_sleep_us(sim_between(50, 1000));
  if (sim_redis.away_until_us > sim_now_us)
    broken(to, REDIS_ERR_IO, ECONNREFUSED, "Connection refused");
  to->epoch = sim_redis.epoch;
  return &to->context;
}

redisContext *redisConnectUnixWithTimeout(const char *path, const struct timeval tv) {
  return redisConnectWithTimeout(path, 0, tv);
}

int redisSetTimeout(redisContext *c, const struct timeval tv) {
  (void)c, (void)tv;
  return REDIS_OK;
}

int redisEnableKeepAlive(redisContext *c) {
  (void)c;
  return REDIS_OK;
}

void redisFree(redisContext *c) {
  free(c);
}

void freeReplyObject(void *reply) {
  sim_reply_free(reply);
}

/* Only with %s, as the program uses it. */
void *redisvCommand(redisContext *c, const char *format, va_list ap) {
  const char *argv[16];
  char *copy = strdup(format), *save = NULL;
  int argc = 0;
  for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
    if (argc == 16 || (strchr(word, '%') && strcmp(word, "%s") != 0))
      sim_fail("simulator", "hiredis: the format %s is not simulated", format);
    argv[argc++] = strcmp(word, "%s") ? word : va_arg(ap, const char *);
  }
  void *reply = redisCommandArgv(c, argc, argv, NULL);
  free(copy);
  return reply;
}

/* Only the board listens to a channel, and it is no part of what is simulated. */
int redisBufferRead(redisContext *c) {
  (void)c;
  sim_fail("simulator", "hiredis: listening is not simulated");
}

int redisGetReplyFromReader(redisContext *c, void **reply) {
  (void)c;
  (void)reply;
  sim_fail("simulator", "hiredis: listening is not simulated");
}

#ifdef LIVENPS_HAVE_HIREDIS_SSL
/* hiredis 1.0 and later. The simulated server is reached without TLS. */
int redisInitiateSSL(redisContext *c, struct ssl_st *ssl) {
  (void)c;
  (void)ssl;
  sim_fail("simulator", "hiredis: TLS is not simulated");
}
#endif
