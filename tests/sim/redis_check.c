/* The simulated keyspace against a real redis-server: random commands are played on both, alone and inside scripts, and every reply must be
 * the same. Prints how many; exit 1 at the first difference. redis_check [--commands N] [--seed SEED] */

#include "sim.h"
#include "consumer/scripts.h"
#include "tests/unit/redis_server.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

/* What redis.c wants of the simulator. */
int64_t sim_now_us;
static uint64_t state;

uint64_t sim_random(void) {
  state += UINT64_C(0x9e3779b97f4a7c15);
  uint64_t z = state;
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}

int64_t sim_between(int64_t low, int64_t high) {
  return low + (int64_t)(sim_random() % (uint64_t)(high - low + 1));
}

void sim_fail(const char *invariant, const char *format, ...) {
  va_list more;
  va_start(more, format);
  fprintf(stderr, "%s: ", invariant);
  vfprintf(stderr, format, more);
  va_end(more);
  fputc('\n', stderr);
  exit(1);
}

enum { WORDS = 16 };
typedef struct {
  char at[WORDS][48];
  int count;
} command;

static void word(command *what, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void word(command *what, const char *format, ...) {
  va_list more;
  va_start(more, format);
  vsnprintf(what->at[what->count++], sizeof what->at[0], format, more);
  va_end(more);
}

static int any(int most) {
  return (int)sim_between(0, most);
}

/* Few keys and names, so that types clash and things are found again. */
static command invent(void) {
  static const char *const stems[] = {"s", "h", "e", "z", "x"};
  command what = {.count = 0};
  char key[16];
  snprintf(key, sizeof key, "k:%s%d", stems[any(4)], any(1));
  const int form = any(27);
  /* Mostly the right type for the command. */
  if (any(9)) {
    static const char of_form[] = "sssss"
                                  "hhhhhh"
                                  "eeee"
                                  "zzz"
                                  "xxxxxx"
                                  "ssss";
    snprintf(key, sizeof key, "k:%c%d", of_form[form], any(1));
  }
  const char *names[] = {"SET",    "GET",   "STRLEN",    "DEL",  "SET",     "HSET",    "HSETNX",
                         "HGET",   "HMGET", "HDEL",      "HLEN", "SADD",    "SREM",    "SCARD",
                         "EXISTS", "ZADD",  "ZREM",      "ZADD", "XADD",    "XADD",    "XRANGE",
                         "XTRIM",  "XLEN",  "XREVRANGE", "TYPE", "PERSIST", "PEXPIRE", "UNLINK"};
  const char *name = names[form];
  word(&what, "%s", name);
  word(&what, "%s", key);
  if (!strcmp(name, "SET")) {
    word(&what, "value %d", any(1000));
    if (any(3) == 0)
      word(&what, "PX"), word(&what, "%d", 1000000 + any(5));
  } else if (!strcmp(name, "HSET")) {
    for (int i = any(3); i >= 0; i--)
      word(&what, "f%d", any(5)), word(&what, "%d", any(99));
  } else if (!strcmp(name, "HSETNX")) {
    word(&what, "f%d", any(5)), word(&what, "%d", any(99));
  } else if (!strcmp(name, "HGET")) {
    word(&what, "f%d", any(5));
  } else if (!strcmp(name, "HMGET") || !strcmp(name, "HDEL")) {
    for (int i = any(3); i >= 0; i--)
      word(&what, "f%d", any(5));
  } else if (!strcmp(name, "SADD") || !strcmp(name, "SREM") || !strcmp(name, "ZREM")) {
    for (int i = any(2); i >= 0; i--)
      word(&what, "m%d", any(5));
  } else if (!strcmp(name, "ZADD")) {
    word(&what, any(9) ? "%d.5" : "x%d", any(100) - 50);
    word(&what, "m%d", any(5));
  } else if (!strcmp(name, "XADD")) {
    if (any(3) == 0)
      word(&what, "MINID"), word(&what, "="), word(&what, "%d", any(30));
    word(&what, any(5) ? "%d-0" : "%d", any(60));
    for (int i = any(1); i >= 0; i--)
      word(&what, "f%d", i), word(&what, "%d", any(99));
  } else if (!strcmp(name, "XRANGE") || !strcmp(name, "XREVRANGE")) {
    const bool reverse = name[1] == 'R' && name[2] == 'E';
    const char *low = any(2) ? "-" : any(1) ? "(12-0" : "15", *high = any(2) ? "+" : any(1) ? "(40-0" : "45";
    word(&what, "%s", reverse ? high : low);
    word(&what, "%s", reverse ? low : high);
    if (any(1))
      word(&what, "COUNT"), word(&what, "%d", 1 + any(4));
  } else if (!strcmp(name, "XTRIM")) {
    word(&what, "MINID"), word(&what, "="), word(&what, "%d", any(60));
  } else if (!strcmp(name, "PEXPIRE")) {
    word(&what, "%d", any(9) ? 1000000 : 0);
  }
  return what;
}

static bool same_reply(const redisReply *a, const redisReply *b) {
  if (a->type != b->type)
    return false;
  switch (a->type) {
  case REDIS_REPLY_INTEGER: return a->integer == b->integer;
  case REDIS_REPLY_NIL: return true;
  case REDIS_REPLY_ERROR: /* the first word decides what is done about it; scripts look for one sentence */
    return strcspn(a->str, " ") == strcspn(b->str, " ") && !strncmp(a->str, b->str, strcspn(a->str, " ")) &&
           (strstr(a->str, "equal or smaller") != NULL) == (strstr(b->str, "equal or smaller") != NULL);
  case REDIS_REPLY_ARRAY:
    if (a->elements != b->elements)
      return false;
    for (size_t i = 0; i < a->elements; i++)
      if (!same_reply(a->element[i], b->element[i]))
        return false;
    return true;
  default: return a->len == b->len && !memcmp(a->str, b->str, (size_t)a->len);
  }
}

static void show(const redisReply *reply, int depth) {
  fprintf(stderr, "%*s", depth * 2, "");
  if (reply->type == REDIS_REPLY_INTEGER)
    fprintf(stderr, "integer %lld\n", reply->integer);
  else if (reply->type == REDIS_REPLY_ARRAY)
    fprintf(stderr, "array of %zu\n", (size_t)reply->elements);
  else
    fprintf(stderr, "type %d %s\n", reply->type, reply->str ? reply->str : "");
  for (size_t i = 0; reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++)
    show(reply->element[i], depth + 1);
}

static void compare(redisContext *real, sim_db *db, int argc, const char **argv) {
  redisReply *is = redisCommandArgv(real, argc, argv, NULL),
             *simulated = sim_db_command(db, argc, argv, NULL);
  if (!is)
    sim_fail("redis-server", "%s", real->errstr);
  if (!same_reply(is, simulated)) {
    for (int i = 0; i < argc; i++)
      fprintf(stderr, "%s ", argv[i]);
    fputs("\nreal:\n", stderr);
    show(is, 1);
    fputs("simulated:\n", stderr);
    show(simulated, 1);
    exit(1);
  }
  freeReplyObject(is);
  sim_reply_free(simulated);
}

/* The same command by redis.call and redis.pcall: how Lua sees replies, and what a script gives back. HGETALL and SSCAN may differ in order,
 * so they are sorted there. */
static const char script[] =
    "local r = redis.pcall(unpack(ARGV))\n"
    "if type(r) == 'table' and r.err then return {'err', string.match(r.err, '^%S+')} end\n"
    "if type(r) == 'table' and r.ok then return {'ok', r.ok} end\n"
    "if r == false then return {'nil', redis.call('TYPE', KEYS[1])} end\n"
    "if type(r) == 'number' then return {'number', r, r + 0.7, tostring(r), string.format('%.0f', r)} end\n"
    "local all = redis.call('TYPE', KEYS[1]).ok == 'hash' and redis.call('HGETALL', KEYS[1]) or {}\n"
    "table.sort(all)\n"
    "local set = redis.call('TYPE', KEYS[1]).ok == 'set' and redis.call('SSCAN', KEYS[1], 0, 'COUNT', 100)[2] or {}\n"
    "table.sort(set)\n"
    "return {r, all, set, true, false, 'not reached'}\n";
/* What redis.call raises ends the script and is its answer. */
static const char raising[] = "local r = redis.call(unpack(ARGV)) return {r, redis.call('TYPE', KEYS[1])}";
/* A command as the publisher sends it. */
static const char packed[] = "local r = redis.pcall(cmsgpack.unpack(ARGV[1]))\n"
                             "return {type(r), redis.call('TYPE', KEYS[1]), cmsgpack.unpack(ARGV[1])}";

static const char *pack(const command *what) {
  static livenps_ops ops;
  livenps_ops_clear(&ops);
  for (int i = 0; i < what->count; i++)
    livenps_ops_add(&ops, what->at[i], strlen(what->at[i]));
  livenps_buffer_add(&ops.bytes, "", 1);
  return ops.bytes.at;
}

int main(int argc, char **argv) {
  long commands = 20000;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (!strcmp(argv[i], "--commands"))
      commands = atol(argv[i + 1]);
    else if (!strcmp(argv[i], "--seed"))
      state = strtoull(argv[i + 1], NULL, 10);
  }
  redis_server server = {.dir = ""};
  redis_server_start(&server, NULL);
  redisContext *real = redisConnectUnix(server.path);
  if (!real || real->err)
    sim_fail("redis-server", "cannot connect");
  sim_db *db = sim_db_new();
  for (long i = 0; i < commands; i++) {
    const command what = invent();
    const char *words[WORDS + 4];
    int count = 0;
    static const char *const scripts[] = {script, raising, packed};
    const int way = any(4);
    if (way < 3) {
      words[count++] = "EVAL";
      words[count++] = scripts[way];
      words[count++] = "1";
      words[count++] = what.at[1];
    }
    if (way == 2)
      words[count++] = pack(&what);
    for (int k = 0; way != 2 && k < what.count; k++)
      words[count++] = what.at[k];
    compare(real, db, count, words);
    if (any(400) == 0)
      compare(real, db, 1, (const char *[]){"FLUSHALL"});
  }
  redisFree(real);
  redis_server_stop(&server);
  printf("%ld commands, alone and in scripts: the simulated Redis answers as redis-server does\n", commands);
  return 0;
}
