#include "sim.h"

#include <inttypes.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

/* A Redis keyspace: the commands that the program's scripts and publisher use, nothing else - an unknown one ends the simulation. Its
 * likeness to the real one is checked by redis_check.c, which plays random commands on both.
 *
 * Every top-level command is a unit. Before a unit first changes a key, the key's old value is remembered; a failover that loses
 * writes takes units back from the newest on, so what is left is always a prefix. */

typedef enum { NONE, STRING, HASH, SET, ZSET, STREAM } kind;

typedef struct {
  kind kind;
  int64_t expire_ms; /* 0: never */
  const sim_blob *string;
  sim_field *fields; /* hash: in order of arrival; set: no values; sorted set: the score as text */
  sim_item *items;
  size_t count, capacity;
  int64_t last_ms, last_seq; /* of a stream */
} value;

typedef struct slot {
  struct slot *next;
  const sim_blob *key;
  value *value;     /* NULL: nothing there */
  uint64_t touched; /* the unit that last remembered the old value */
} slot;

typedef struct {
  uint64_t unit;
  int64_t us;
  slot *slot;
  value *before; /* NULL: nothing was there */
} memory;

enum { BUCKETS = 512, SCRIPTS = 64 };

struct sim_db {
  slot *buckets[BUCKETS];
  memory *memories;
  size_t memory_count, memory_capacity;
  uint64_t unit;     /* of the running command */
  bool wrote, dirty; /* dirty: the running script has written */
  int64_t frozen_ms; /* the time during a command, which stands still in a script */
  sim_db_mood mood;
  char scripts[SCRIPTS][41];
  size_t script_count;
};

/* ---- replies ------------------------------------------------------------------------------------------------------------ */

redisReply *sim_reply(int type) {
  redisReply *reply = calloc(1, sizeof *reply);
  reply->type = type;
  return reply;
}

redisReply *sim_reply_bytes(int type, const char *bytes, size_t length) {
  redisReply *reply = sim_reply(type);
  reply->str = malloc(length + 1);
  memcpy(reply->str, bytes, length);
  reply->str[length] = 0;
  *(&reply->len) = (__typeof__(reply->len))length;
  return reply;
}

static redisReply *text_reply(int type, const char *text) {
  return sim_reply_bytes(type, text, strlen(text));
}

static redisReply *integer_reply(long long number) {
  redisReply *reply = sim_reply(REDIS_REPLY_INTEGER);
  reply->integer = number;
  return reply;
}

static redisReply *array_reply(size_t count) {
  redisReply *reply = sim_reply(REDIS_REPLY_ARRAY);
  reply->elements = count;
  reply->element = calloc(count + 1, sizeof *reply->element);
  return reply;
}

static redisReply *blob_reply(const sim_blob *blob) {
  return blob ? sim_reply_bytes(REDIS_REPLY_STRING, blob->bytes, blob->length) : sim_reply(REDIS_REPLY_NIL);
}

static redisReply *ok_reply(void) {
  return text_reply(REDIS_REPLY_STATUS, "OK");
}

static redisReply *error_reply(const char *text) {
  return text_reply(REDIS_REPLY_ERROR, text);
}

void sim_reply_free(redisReply *reply) {
  if (!reply)
    return;
  for (size_t i = 0; i < reply->elements; i++)
    sim_reply_free(reply->element[i]);
  free(reply->element);
  free(reply->str);
  free(reply);
}

/* ---- the keyspace ---------------------------------------------------------------------------------------------------------- */

static sim_blob *blob_of(const char *bytes, size_t length) {
  sim_blob *blob = malloc(sizeof *blob + length + 1);
  blob->length = length;
  memcpy(blob->bytes, bytes, length);
  blob->bytes[length] = 0;
  return blob;
}

static bool same(const sim_blob *blob, const char *bytes, size_t length) {
  return blob->length == length && memcmp(blob->bytes, bytes, length) == 0;
}

static size_t bucket_of(const char *key, size_t length) {
  uint32_t hash = 2166136261;
  for (size_t i = 0; i < length; i++)
    hash = (hash ^ (unsigned char)key[i]) * 16777619;
  return hash % BUCKETS;
}

int64_t sim_db_time_ms(const sim_db *db) {
  return (SIM_EPOCH_MS * 1000 + sim_now_us + db->mood.clock_us) / 1000;
}

static slot *find_slot(const sim_db *db, const char *key, size_t length) {
  for (slot *each = db->buckets[bucket_of(key, length)]; each; each = each->next)
    if (same(each->key, key, length))
      return each;
  return NULL;
}

static void *copy_of(const void *from, size_t size) {
  return size ? memcpy(malloc(size), from, size) : NULL;
}

static value *copy_value(const value *from) {
  value *copy = copy_of(from, sizeof *from);
  copy->capacity = from->count;
  copy->fields = copy_of(from->fields, from->fields ? from->count * sizeof *from->fields : 0);
  copy->items = copy_of(from->items, from->items ? from->count * sizeof *from->items : 0);
  return copy;
}

/* Remembers what is there before this unit changes it. The value itself goes into the memory, a copy of it stays to be changed. */
static void remember(sim_db *db, slot *place, bool replaced) {
  db->wrote = true;
  if (place->touched == db->unit)
    return;
  place->touched = db->unit;
  if (db->memory_count == db->memory_capacity) {
    db->memory_capacity = db->memory_capacity ? db->memory_capacity * 2 : 4096;
    db->memories = realloc(db->memories, db->memory_capacity * sizeof *db->memories);
  }
  db->memories[db->memory_count++] = (memory){db->unit, sim_now_us, place, place->value};
  if (place->value && !replaced)
    place->value = copy_value(place->value);
}

static bool expired(const sim_db *db, const value *what) {
  return what->expire_ms && what->expire_ms <= db->frozen_ms;
}

static value *look(const sim_db *db, const char *key, size_t length) {
  slot *place = find_slot(db, key, length);
  return place && place->value && !expired(db, place->value) ? place->value : NULL;
}

static void erase(sim_db *db, slot *place) {
  remember(db, place, true);
  place->value = NULL;
}

/* For writing; a new one where nothing is. */
static value *open_value(sim_db *db, const char *key, size_t length, kind kind) {
  slot *place = find_slot(db, key, length);
  if (!place) {
    const size_t bucket = bucket_of(key, length);
    place = calloc(1, sizeof *place);
    place->key = blob_of(key, length);
    place->next = db->buckets[bucket];
    db->buckets[bucket] = place;
  }
  if (place->value && expired(db, place->value))
    erase(db, place);
  remember(db, place, false);
  if (!place->value) {
    place->value = calloc(1, sizeof *place->value);
    place->value->kind = kind;
  }
  return place->value;
}

static bool drop_key(sim_db *db, const char *key, size_t length) {
  slot *place = find_slot(db, key, length);
  if (!place || !place->value)
    return false;
  const bool there = !expired(db, place->value);
  erase(db, place);
  return there;
}

sim_db *sim_db_new(void) {
  return calloc(1, sizeof(sim_db));
}

sim_db *sim_db_copy(const sim_db *db) {
  sim_db *copy = sim_db_new();
  *copy = *db;
  copy->memories = NULL;
  copy->memory_count = copy->memory_capacity = 0;
  for (size_t i = 0; i < BUCKETS; i++) {
    slot **end = &copy->buckets[i];
    for (const slot *each = db->buckets[i]; each; each = each->next) {
      *end = copy_of(each, sizeof *each);
      (*end)->value = each->value ? copy_value(each->value) : NULL;
      (*end)->touched = 0;
      end = &(*end)->next;
    }
    *end = NULL;
  }
  return copy;
}

uint64_t sim_db_unit(const sim_db *db) {
  return db->unit;
}

uint64_t sim_db_unit_before(const sim_db *db, int64_t us) {
  size_t i = db->memory_count;
  while (i && db->memories[i - 1].us > us)
    i--;
  return i ? db->memories[i - 1].unit : 0;
}

void sim_db_rollback(sim_db *db, uint64_t unit) {
  while (db->memory_count && db->memories[db->memory_count - 1].unit > unit) {
    const memory *last = &db->memories[--db->memory_count];
    last->slot->value = last->before;
    last->slot->touched = 0;
  }
}

void sim_db_forget_scripts(sim_db *db) {
  db->script_count = 0;
}

bool sim_db_wrote(const sim_db *db) {
  return db->wrote;
}

sim_db_mood *sim_db_mood_of(sim_db *db) {
  return &db->mood;
}

/* ---- looking into it ---------------------------------------------------------------------------------------------------------- */

static const value *peek(const sim_db *db, const char *key) {
  const slot *place = find_slot(db, key, strlen(key));
  return place && place->value && !(place->value->expire_ms && place->value->expire_ms <= sim_db_time_ms(db))
             ? place->value
             : NULL;
}

bool sim_db_exists(const sim_db *db, const char *key) {
  return peek(db, key) != NULL;
}

const void *sim_db_identity(const sim_db *db, const char *key) {
  return peek(db, key);
}

const char *sim_db_changed(const sim_db *db, size_t i) {
  const size_t place = db->memory_count - 1 - i;
  return i < db->memory_count && db->memories[place].unit == db->unit ? db->memories[place].slot->key->bytes
                                                                      : NULL;
}

const sim_blob *sim_db_string(const sim_db *db, const char *key) {
  const value *what = peek(db, key);
  return what ? what->string : NULL;
}

static sim_field *find_field(const value *what, const char *name, size_t length) {
  for (size_t i = 0; i < what->count; i++)
    if (same(what->fields[i].name, name, length))
      return &what->fields[i];
  return NULL;
}

const sim_blob *sim_db_field(const sim_db *db, const char *key, const char *field) {
  const value *what = peek(db, key);
  const sim_field *found = what && what->fields ? find_field(what, field, strlen(field)) : NULL;
  return found ? found->value : NULL;
}

const sim_field *sim_db_fields(const sim_db *db, const char *key, size_t *count) {
  const value *what = peek(db, key);
  *count = what && what->fields ? what->count : 0;
  return what ? what->fields : NULL;
}

const sim_item *sim_db_items(const sim_db *db, const char *key, size_t *count) {
  const value *what = peek(db, key);
  *count = what && what->kind == STREAM ? what->count : 0;
  return what ? what->items : NULL;
}

/* ---- commands ------------------------------------------------------------------------------------------------------------------- */

typedef struct {
  sim_db *db;
  size_t argc;
  const char **argv;
  const size_t *lengths;
} call;

#define AT(i)  call->argv[i]
#define LEN(i) call->lengths[i]

static const char wrong_type[] = "WRONGTYPE Operation against a key holding the wrong kind of value";

static bool word_is(const call *call, size_t i, const char *word) {
  return i < call->argc && strlen(word) == LEN(i) && strncasecmp(AT(i), word, LEN(i)) == 0;
}

static int64_t number_at(const call *call, size_t i) {
  return strtoll(AT(i), NULL, 10);
}

/* The value of a kind behind argument 1; *wrong when it is of another. */
static value *of_kind(const call *call, kind kind, bool *wrong) {
  value *what = look(call->db, AT(1), LEN(1));
  *wrong = what && what->kind != kind;
  return *wrong ? NULL : what;
}

static void put_field(value *what, const char *name, size_t name_length, const char *text, size_t length) {
  sim_field *field = find_field(what, name, name_length);
  if (!field) {
    if (what->count == what->capacity || !what->fields) {
      what->capacity = what->count ? what->count * 2 : 32;
      what->fields = realloc(what->fields, what->capacity * sizeof *what->fields);
    }
    field = &what->fields[what->count++];
    field->name = blob_of(name, name_length);
  }
  field->value = text ? blob_of(text, length) : NULL;
}

static bool take_field(value *what, const char *name, size_t length) {
  sim_field *field = find_field(what, name, length);
  if (!field)
    return false;
  const size_t i = (size_t)(field - what->fields);
  memmove(field, field + 1, (what->count - i - 1) * sizeof *field);
  what->count--;
  return true;
}

static redisReply *do_get(const call *call) {
  bool wrong;
  const value *what = of_kind(call, STRING, &wrong);
  return wrong ? error_reply(wrong_type) : blob_reply(what ? what->string : NULL);
}

static redisReply *do_set(const call *call) {
  int64_t expire_ms = 0;
  if (call->argc == 5 && word_is(call, 3, "PX"))
    expire_ms = call->db->frozen_ms + number_at(call, 4);
  else if (call->argc != 3)
    return NULL;
  drop_key(call->db, AT(1), LEN(1));
  value *what = open_value(call->db, AT(1), LEN(1), STRING);
  what->string = blob_of(AT(2), LEN(2));
  what->expire_ms = expire_ms;
  return ok_reply();
}

static redisReply *do_del(const call *call) {
  long long gone = 0;
  for (size_t i = 1; i < call->argc; i++)
    gone += drop_key(call->db, AT(i), LEN(i));
  return integer_reply(gone);
}

static redisReply *do_exists(const call *call) {
  long long there = 0;
  for (size_t i = 1; i < call->argc; i++)
    there += look(call->db, AT(i), LEN(i)) != NULL;
  return integer_reply(there);
}

static redisReply *do_type(const call *call) {
  static const char *const names[] = {"none", "string", "hash", "set", "zset", "stream"};
  const value *what = look(call->db, AT(1), LEN(1));
  return text_reply(REDIS_REPLY_STATUS, names[what ? what->kind : NONE]);
}

static redisReply *do_strlen(const call *call) {
  bool wrong;
  const value *what = of_kind(call, STRING, &wrong);
  return wrong ? error_reply(wrong_type) : integer_reply(what ? (long long)what->string->length : 0);
}

static redisReply *do_pexpire(const call *call) {
  if (!look(call->db, AT(1), LEN(1)))
    return integer_reply(0);
  const int64_t ms = number_at(call, 2);
  if (ms <= 0)
    drop_key(call->db, AT(1), LEN(1));
  else
    open_value(call->db, AT(1), LEN(1), NONE)->expire_ms = call->db->frozen_ms + ms;
  return integer_reply(1);
}

static redisReply *do_persist(const call *call) {
  const value *what = look(call->db, AT(1), LEN(1));
  if (!what || !what->expire_ms)
    return integer_reply(0);
  open_value(call->db, AT(1), LEN(1), NONE)->expire_ms = 0;
  return integer_reply(1);
}

static redisReply *do_time(const call *call) {
  char text[24];
  const int64_t us = SIM_EPOCH_MS * 1000 + sim_now_us + call->db->mood.clock_us;
  redisReply *reply = array_reply(2);
  snprintf(text, sizeof text, "%" PRId64, us / 1000000);
  reply->element[0] = text_reply(REDIS_REPLY_STRING, text);
  snprintf(text, sizeof text, "%" PRId64, us % 1000000);
  reply->element[1] = text_reply(REDIS_REPLY_STRING, text);
  return reply;
}

static redisReply *do_hset(const call *call) {
  bool wrong;
  of_kind(call, HASH, &wrong);
  if (wrong)
    return error_reply(wrong_type);
  if (call->argc < 4 || call->argc % 2)
    return error_reply("ERR wrong number of arguments for 'hset' command");
  value *what = open_value(call->db, AT(1), LEN(1), HASH);
  const size_t before = what->count;
  for (size_t i = 2; i < call->argc; i += 2)
    put_field(what, AT(i), LEN(i), AT(i + 1), LEN(i + 1));
  return integer_reply((long long)(what->count - before));
}

static redisReply *do_hsetnx(const call *call) {
  bool wrong;
  const value *there = of_kind(call, HASH, &wrong);
  if (wrong)
    return error_reply(wrong_type);
  if (there && find_field(there, AT(2), LEN(2)))
    return integer_reply(0);
  put_field(open_value(call->db, AT(1), LEN(1), HASH), AT(2), LEN(2), AT(3), LEN(3));
  return integer_reply(1);
}

static redisReply *do_hget(const call *call) {
  bool wrong;
  const value *what = of_kind(call, HASH, &wrong);
  const sim_field *field = what ? find_field(what, AT(2), LEN(2)) : NULL;
  return wrong ? error_reply(wrong_type) : blob_reply(field ? field->value : NULL);
}

static redisReply *do_hmget(const call *call) {
  bool wrong;
  const value *what = of_kind(call, HASH, &wrong);
  if (wrong)
    return error_reply(wrong_type);
  redisReply *reply = array_reply(call->argc - 2);
  for (size_t i = 2; i < call->argc; i++) {
    const sim_field *field = what ? find_field(what, AT(i), LEN(i)) : NULL;
    reply->element[i - 2] = blob_reply(field ? field->value : NULL);
  }
  return reply;
}

static redisReply *do_hgetall(const call *call) {
  bool wrong;
  const value *what = of_kind(call, HASH, &wrong);
  if (wrong)
    return error_reply(wrong_type);
  redisReply *reply = array_reply(what ? 2 * what->count : 0);
  for (size_t i = 0; what && i < what->count; i++) {
    reply->element[2 * i] = blob_reply(what->fields[i].name);
    reply->element[2 * i + 1] = blob_reply(what->fields[i].value);
  }
  return reply;
}

static redisReply *count_of(const call *call, kind kind) {
  bool wrong;
  const value *what = of_kind(call, kind, &wrong);
  return wrong ? error_reply(wrong_type) : integer_reply(what ? (long long)what->count : 0);
}

static redisReply *do_hlen(const call *call) {
  return count_of(call, HASH);
}

/* HDEL, SREM, ZREM: the last one takes the key with it. */
static redisReply *take_fields(const call *call, kind kind) {
  bool wrong;
  const value *there = of_kind(call, kind, &wrong);
  if (wrong)
    return error_reply(wrong_type);
  long long gone = 0;
  for (size_t i = 2; there && i < call->argc; i++) {
    if (!find_field(there, AT(i), LEN(i)))
      continue;
    value *what = open_value(call->db, AT(1), LEN(1), kind);
    gone += take_field(what, AT(i), LEN(i));
    there = what;
    if (!what->count) {
      drop_key(call->db, AT(1), LEN(1));
      break;
    }
  }
  return integer_reply(gone);
}

static redisReply *do_hdel(const call *call) {
  return take_fields(call, HASH);
}

static redisReply *do_srem(const call *call) {
  return take_fields(call, SET);
}

static redisReply *do_zrem(const call *call) {
  return take_fields(call, ZSET);
}

static redisReply *do_sadd(const call *call) {
  bool wrong;
  const value *there = of_kind(call, SET, &wrong);
  if (wrong)
    return error_reply(wrong_type);
  long long added = 0;
  for (size_t i = 2; i < call->argc; i++) {
    if (there && find_field(there, AT(i), LEN(i)))
      continue;
    value *what = open_value(call->db, AT(1), LEN(1), SET);
    put_field(what, AT(i), LEN(i), NULL, 0);
    there = what;
    added++;
  }
  return integer_reply(added);
}

static redisReply *do_scard(const call *call) {
  return count_of(call, SET);
}

/* Everything in one step: a cursor that ends at once is as allowed as any other. */
static redisReply *do_sscan(const call *call) {
  bool wrong;
  const value *what = of_kind(call, SET, &wrong);
  if (wrong)
    return error_reply(wrong_type);
  redisReply *reply = array_reply(2);
  reply->element[0] = text_reply(REDIS_REPLY_STRING, "0");
  reply->element[1] = array_reply(what ? what->count : 0);
  for (size_t i = 0; what && i < what->count; i++)
    reply->element[1]->element[i] = blob_reply(what->fields[i].name);
  return reply;
}

static redisReply *do_zadd(const call *call) {
  bool wrong;
  const value *there = of_kind(call, ZSET, &wrong);
  if (call->argc != 4)
    return NULL;
  char *end;
  strtod(AT(2), &end);
  if (!LEN(2) || end != AT(2) + LEN(2))
    return error_reply("ERR value is not a valid float");
  if (wrong)
    return error_reply(wrong_type);
  const bool known = there && find_field(there, AT(3), LEN(3));
  put_field(open_value(call->db, AT(1), LEN(1), ZSET), AT(3), LEN(3), AT(2), LEN(2));
  return integer_reply(!known);
}

static redisReply *do_publish(const call *call) {
  (void)call;
  return integer_reply(0);
}

/* ---- streams ---------------------------------------------------------------------------------------------------------------------- */

static bool parse_id(const char *text, size_t length, int64_t missing_seq, int64_t *ms, int64_t *seq) {
  char copy[48];
  if (length == 0 || length >= sizeof copy)
    return false;
  memcpy(copy, text, length);
  copy[length] = 0;
  char *end;
  *ms = strtoll(copy, &end, 10);
  *seq = missing_seq;
  if (*end == '-')
    *seq = strtoll(end + 1, &end, 10);
  return !*end && copy[0] >= '0' && copy[0] <= '9';
}

static int order(int64_t ms, int64_t seq, int64_t other_ms, int64_t other_seq) {
  return ms != other_ms ? (ms > other_ms) - (ms < other_ms) : (seq > other_seq) - (seq < other_seq);
}

static long long trim_before(value *what, int64_t ms, int64_t seq) {
  size_t gone = 0;
  while (gone < what->count && order(what->items[gone].ms, what->items[gone].seq, ms, seq) < 0)
    gone++;
  memmove(what->items, what->items + gone, (what->count - gone) * sizeof *what->items);
  what->count -= gone;
  return (long long)gone;
}

static redisReply *do_xadd(const call *call) {
  bool wrong, trim = false;
  size_t i = 2;
  int64_t ms, seq, least_ms = 0, least_seq = 0;
  const value *there = of_kind(call, STREAM, &wrong);
  if (word_is(call, i, "MINID")) {
    i += word_is(call, i + 1, "=") ? 2 : 1;
    if (i >= call->argc || !parse_id(AT(i), LEN(i), 0, &least_ms, &least_seq))
      return NULL;
    trim = true;
    i++;
  }
  const int64_t last_ms = there ? there->last_ms : 0, last_seq = there ? there->last_seq : 0;
  if (word_is(call, i, "*")) {
    ms = call->db->frozen_ms, seq = 0;
    if (ms <= last_ms)
      ms = last_ms, seq = last_seq + 1;
  } else {
    if (i >= call->argc || !parse_id(AT(i), LEN(i), 0, &ms, &seq))
      return NULL;
    if (ms == 0 && seq == 0)
      return error_reply("ERR The ID specified in XADD must be greater than 0-0");
    if (wrong)
      return error_reply(wrong_type);
    if (order(ms, seq, last_ms, last_seq) <= 0)
      return error_reply("ERR The ID specified in XADD is equal or smaller than the target stream top item");
  }
  if (wrong)
    return error_reply(wrong_type);
  const size_t fields = call->argc - i - 1;
  if (fields == 0 || fields % 2)
    return error_reply("ERR wrong number of arguments for 'xadd' command");
  value *what = open_value(call->db, AT(1), LEN(1), STREAM);
  if (what->count == what->capacity || !what->items) {
    what->capacity = what->count ? what->count * 2 : 16;
    what->items = realloc(what->items, what->capacity * sizeof *what->items);
  }
  sim_item *item = &what->items[what->count++];
  *item = (sim_item){ms, seq, malloc(fields * sizeof *item->fields), fields};
  for (size_t f = 0; f < fields; f++)
    item->fields[f] = blob_of(AT(i + 1 + f), LEN(i + 1 + f));
  what->last_ms = ms;
  what->last_seq = seq;
  if (trim)
    trim_before(what, least_ms, least_seq);
  char id[48];
  snprintf(id, sizeof id, "%" PRId64 "-%" PRId64, ms, seq);
  return text_reply(REDIS_REPLY_STRING, id);
}

static redisReply *do_xtrim(const call *call) {
  bool wrong;
  int64_t ms, seq;
  const value *there = of_kind(call, STREAM, &wrong);
  if (wrong)
    return error_reply(wrong_type);
  if (call->argc != 5 || !word_is(call, 2, "MINID") || !word_is(call, 3, "=") ||
      !parse_id(AT(4), LEN(4), 0, &ms, &seq))
    return NULL;
  return integer_reply(there ? trim_before(open_value(call->db, AT(1), LEN(1), STREAM), ms, seq) : 0);
}

static redisReply *do_xlen(const call *call) {
  return count_of(call, STREAM);
}

/* XRANGE and, with the bounds the other way round, XREVRANGE. */
static redisReply *xrange(const call *call, bool reverse) {
  bool wrong;
  const value *what = of_kind(call, STREAM, &wrong);
  const size_t from = reverse ? 3 : 2, to = reverse ? 2 : 3;
  int64_t first_ms = 0, first_seq = 0, last_ms = INT64_MAX, last_seq = INT64_MAX;
  bool open_first = false, open_last = false;
  size_t most = SIZE_MAX;
  if (wrong)
    return error_reply(wrong_type);
  if (!word_is(call, from, "-")) {
    open_first = AT(from)[0] == '(';
    if (!parse_id(AT(from) + open_first, LEN(from) - open_first, 0, &first_ms, &first_seq))
      return error_reply("ERR Invalid stream ID specified as stream command argument");
  }
  if (!word_is(call, to, "+")) {
    open_last = AT(to)[0] == '(';
    if (!parse_id(AT(to) + open_last, LEN(to) - open_last, INT64_MAX, &last_ms, &last_seq))
      return error_reply("ERR Invalid stream ID specified as stream command argument");
  }
  if (word_is(call, 4, "COUNT"))
    most = (size_t)number_at(call, 5);
  const size_t count = what ? what->count : 0;
  redisReply *reply = array_reply(count < most ? count : most);
  reply->elements = 0;
  for (size_t k = 0; k < count && reply->elements < most; k++) {
    const sim_item *item = &what->items[reverse ? count - 1 - k : k];
    const int low = order(item->ms, item->seq, first_ms, first_seq),
              high = order(item->ms, item->seq, last_ms, last_seq);
    if (low < 0 || (low == 0 && open_first) || high > 0 || (high == 0 && open_last))
      continue;
    char id[48];
    snprintf(id, sizeof id, "%" PRId64 "-%" PRId64, item->ms, item->seq);
    redisReply *pair = array_reply(2);
    pair->element[0] = text_reply(REDIS_REPLY_STRING, id);
    pair->element[1] = array_reply(item->count);
    for (size_t f = 0; f < item->count; f++)
      pair->element[1]->element[f] = blob_reply(item->fields[f]);
    reply->element[reply->elements++] = pair;
  }
  return reply;
}

static redisReply *do_xrange(const call *call) {
  return xrange(call, false);
}

static redisReply *do_xrevrange(const call *call) {
  return xrange(call, true);
}

static redisReply *do_flushall(const call *call) {
  for (size_t i = 0; i < BUCKETS; i++)
    for (slot *each = call->db->buckets[i]; each; each = each->next)
      if (each->value)
        erase(call->db, each);
  return ok_reply();
}

/* ---- the connection's commands: just enough for redis.c's connecting ------------------------------------------------------- */

static redisReply *do_role(const call *call) {
  redisReply *reply = array_reply(3);
  reply->element[0] = text_reply(REDIS_REPLY_STRING, call->db->mood.readonly ? "slave" : "master");
  reply->element[1] = integer_reply(0);
  reply->element[2] = array_reply(0);
  return reply;
}

static redisReply *do_info(const call *call) {
  (void)call;
  return text_reply(REDIS_REPLY_STRING,
                    "redis_version:7.0.15\r\nloading:0\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n");
}

static redisReply *do_client(const call *call) {
  (void)call;
  return ok_reply();
}

static redisReply *do_eval(const call *call);
static redisReply *do_evalsha(const call *call);

enum { WRITES = 1, TAKES_MEMORY = 2, NOT_IN_SCRIPTS = 4 };

static const struct {
  const char *name;
  size_t least;
  int flags;
  redisReply *(*run)(const call *call);
} commands[] = {
    {"HMGET", 3, 0, do_hmget},
    {"HSET", 4, WRITES | TAKES_MEMORY, do_hset},
    {"TYPE", 2, 0, do_type},
    {"PEXPIRE", 3, WRITES, do_pexpire},
    {"DEL", 2, WRITES, do_del},
    {"GET", 2, 0, do_get},
    {"SADD", 3, WRITES | TAKES_MEMORY, do_sadd},
    {"ZADD", 4, WRITES | TAKES_MEMORY, do_zadd},
    {"ZREM", 3, WRITES, do_zrem},
    {"XRANGE", 4, 0, do_xrange},
    {"XADD", 5, WRITES | TAKES_MEMORY, do_xadd},
    {"TIME", 1, 0, do_time},
    {"EVALSHA", 3, NOT_IN_SCRIPTS, do_evalsha},
    {"EVAL", 3, NOT_IN_SCRIPTS, do_eval},
    {"SET", 3, WRITES | TAKES_MEMORY, do_set},
    {"UNLINK", 2, WRITES, do_del},
    {"EXISTS", 2, 0, do_exists},
    {"STRLEN", 2, 0, do_strlen},
    {"PERSIST", 2, WRITES, do_persist},
    {"HSETNX", 4, WRITES | TAKES_MEMORY, do_hsetnx},
    {"HGET", 3, 0, do_hget},
    {"HGETALL", 2, 0, do_hgetall},
    {"HLEN", 2, 0, do_hlen},
    {"HDEL", 3, WRITES, do_hdel},
    {"SREM", 3, WRITES, do_srem},
    {"SCARD", 2, 0, do_scard},
    {"SSCAN", 3, 0, do_sscan},
    {"PUBLISH", 3, 0, do_publish},
    {"XTRIM", 5, WRITES, do_xtrim},
    {"XLEN", 2, 0, do_xlen},
    {"XREVRANGE", 4, 0, do_xrevrange},
    {"FLUSHALL", 1, WRITES, do_flushall},
    {"ROLE", 1, NOT_IN_SCRIPTS, do_role},
    {"INFO", 1, NOT_IN_SCRIPTS, do_info},
    {"CLIENT", 2, NOT_IN_SCRIPTS, do_client},
};

static redisReply *run_command(const call *call, bool in_script) {
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
    if (!word_is(call, 0, commands[i].name))
      continue;
    if (call->argc < commands[i].least || (in_script && (commands[i].flags & NOT_IN_SCRIPTS)))
      break;
    if (call->db->mood.readonly && (commands[i].flags & WRITES))
      return error_reply("READONLY You can't write against a read only replica.");
    /* Once a script has written it is never stopped for memory. */
    if (call->db->mood.oom && (commands[i].flags & TAKES_MEMORY) && !call->db->dirty)
      return error_reply("OOM command not allowed when used memory > 'maxmemory'.");
    redisReply *reply = commands[i].run(call);
    if (!reply)
      break;
    if (in_script && (commands[i].flags & WRITES))
      call->db->dirty = true;
    return reply;
  }
  sim_fail("simulator", "Redis: %.*s with %zu arguments is not simulated", (int)LEN(0), AT(0), call->argc);
}

/* ---- scripts --------------------------------------------------------------------------------------------------------------------------- */

/* One Lua for all seeds; scripts are compiled once. */
static lua_State *lua;
static struct {
  char sha[41];
  int function;
} compiled[SCRIPTS];
static size_t compiled_count;
static sim_db *scripted; /* whose script runs */

void sim_scripts_reset(void) {
  lua = NULL;
  compiled_count = 0;
}

static void push_reply(lua_State *L, const redisReply *reply) {
  switch (reply->type) {
  case REDIS_REPLY_INTEGER: lua_pushnumber(L, (lua_Number)reply->integer); break;
  case REDIS_REPLY_STRING: lua_pushlstring(L, reply->str, (size_t)reply->len); break;
  case REDIS_REPLY_NIL: lua_pushboolean(L, 0); break;
  case REDIS_REPLY_STATUS:
  case REDIS_REPLY_ERROR:
    lua_newtable(L);
    lua_pushlstring(L, reply->str, (size_t)reply->len);
    lua_setfield(L, -2, reply->type == REDIS_REPLY_STATUS ? "ok" : "err");
    break;
  default:
    lua_createtable(L, (int)reply->elements, 0);
    for (size_t i = 0; i < reply->elements; i++) {
      push_reply(L, reply->element[i]);
      lua_rawseti(L, -2, (int)i + 1);
    }
  }
}

static int call_redis(lua_State *L, bool raise) {
  enum { FEW = 64 };
  const int argc = lua_gettop(L);
  const char *few[FEW];
  size_t few_lengths[FEW];
  const char **argv = argc <= FEW ? few : malloc((size_t)argc * sizeof *argv);
  size_t *lengths = argc <= FEW ? few_lengths : malloc((size_t)argc * sizeof *lengths);
  for (int i = 0; i < argc; i++) {
    if (lua_type(L, i + 1) == LUA_TNUMBER) {
      char number[40];
      snprintf(number, sizeof number, "%.17g", lua_tonumber(L, i + 1));
      lua_pushstring(L, number);
      lua_replace(L, i + 1);
    }
    argv[i] = lua_tolstring(L, i + 1, &lengths[i]);
    if (!argv[i])
      sim_fail("simulator", "Redis: a script calls with an argument that is no text");
  }
  redisReply *reply = run_command(&(call){scripted, (size_t)argc, argv, lengths}, true);
  if (argc > FEW) {
    free(argv);
    free(lengths);
  }
  const bool error = reply->type == REDIS_REPLY_ERROR;
  push_reply(L, reply);
  sim_reply_free(reply);
  if (error && raise)
    return lua_error(L);
  return 1;
}

static int redis_call(lua_State *L) {
  return call_redis(L, true);
}

static int redis_pcall(lua_State *L) {
  return call_redis(L, false);
}

static int one_field(lua_State *L, const char *name) {
  lua_newtable(L);
  lua_pushvalue(L, 1);
  lua_setfield(L, -2, name);
  return 1;
}

static int redis_error_reply(lua_State *L) {
  return one_field(L, "err");
}

static int redis_status_reply(lua_State *L) {
  return one_field(L, "ok");
}

/* Of MessagePack what scripts are sent: strings, each a value. */
static int cmsgpack_unpack(lua_State *L) {
  size_t length;
  const char *text = luaL_checklstring(L, 1, &length);
  const uint8_t *at = (const uint8_t *)text, *end = at + length;
  int count = 0;
  while (at < end) {
    const uint8_t kind = *at++;
    size_t size = kind & 31;
    if (kind >> 5 != 5) {
      if (kind < 0xd9 || kind > 0xdb)
        sim_fail("simulator", "Redis: MessagePack of kind %d is not simulated", kind);
      size = 0;
      for (int digits = 1 << (kind - 0xd9); digits > 0 && at < end; digits--)
        size = size << 8 | *at++;
    }
    if (size > (size_t)(end - at))
      return luaL_error(L, "Missing bytes in input.");
    luaL_checkstack(L, 1, "too many values");
    lua_pushlstring(L, (const char *)at, size);
    at += size;
    count++;
  }
  return count;
}

static void open_lua(void) {
  static const luaL_Reg functions[] = {{"call", redis_call},
                                       {"pcall", redis_pcall},
                                       {"error_reply", redis_error_reply},
                                       {"status_reply", redis_status_reply},
                                       {NULL, NULL}},
                        packing[] = {{"unpack", cmsgpack_unpack}, {NULL, NULL}};
  lua = luaL_newstate();
  luaL_openlibs(lua);
  luaL_register(lua, "redis", functions);
  luaL_register(lua, "cmsgpack", packing);
  lua_settop(lua, 0);
}

/* What a script returns, as Redis converts it. */
static redisReply *to_reply(lua_State *L, int index) {
  switch (lua_type(L, index)) {
  case LUA_TSTRING: {
    size_t length;
    const char *text = lua_tolstring(L, index, &length);
    return sim_reply_bytes(REDIS_REPLY_STRING, text, length);
  }
  case LUA_TNUMBER: return integer_reply((long long)lua_tonumber(L, index));
  case LUA_TBOOLEAN: return lua_toboolean(L, index) ? integer_reply(1) : sim_reply(REDIS_REPLY_NIL);
  case LUA_TTABLE: break;
  default: return sim_reply(REDIS_REPLY_NIL);
  }
  static const struct {
    const char *name;
    int type;
  } words[] = {{"err", REDIS_REPLY_ERROR}, {"ok", REDIS_REPLY_STATUS}};
  for (int w = 0; w < 2; w++) {
    lua_getfield(L, index, words[w].name);
    if (lua_type(L, -1) == LUA_TSTRING) {
      size_t length;
      const char *text = lua_tolstring(L, -1, &length);
      redisReply *reply = sim_reply_bytes(words[w].type, text, length);
      lua_pop(L, 1);
      return reply;
    }
    lua_pop(L, 1);
  }
  /* Up to the first nil. */
  size_t count = 0;
  for (;; count++) {
    lua_rawgeti(L, index, (int)count + 1);
    const bool end = lua_isnil(L, -1);
    lua_pop(L, 1);
    if (end)
      break;
  }
  redisReply *reply = array_reply(count);
  for (size_t i = 0; i < count; i++) {
    lua_rawgeti(L, index, (int)i + 1);
    reply->element[i] = to_reply(L, lua_gettop(L));
    lua_pop(L, 1);
  }
  return reply;
}

static void push_list(const call *call, size_t first, size_t count, const char *name) {
  lua_createtable(lua, (int)count, 0);
  for (size_t i = 0; i < count; i++) {
    lua_pushlstring(lua, AT(first + i), LEN(first + i));
    lua_rawseti(lua, -2, (int)i + 1);
  }
  lua_setglobal(lua, name);
}

static redisReply *run_script(const call *call, int function) {
  const size_t keys = (size_t)number_at(call, 2);
  push_list(call, 3, keys, "KEYS");
  push_list(call, 3 + keys, call->argc - 3 - keys, "ARGV");
  scripted = call->db;
  call->db->dirty = false;
  lua_rawgeti(lua, LUA_REGISTRYINDEX, function);
  redisReply *reply;
  if (lua_pcall(lua, 0, 1, 0) == 0) {
    reply = to_reply(lua, lua_gettop(lua));
  } else if (lua_istable(lua, -1)) { /* what redis.call raised */
    reply = to_reply(lua, lua_gettop(lua));
  } else {
    sim_fail("simulator", "Redis: a script failed: %s", lua_tostring(lua, -1));
  }
  if (reply->type == REDIS_REPLY_ERROR && call->db->dirty && call->db->wrote)
    sim_fail("scripts", "a script failed after it had written: %s", reply->str);
  lua_settop(lua, 0);
  call->db->dirty = false;
  return reply;
}

static void sha_of(const char *text, size_t length, char out[41]) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_Digest(text, length, digest, &size, EVP_sha1(), NULL);
  for (unsigned i = 0; i < 20; i++)
    snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

static int function_of(const char *sha) {
  for (size_t i = 0; i < compiled_count; i++)
    if (!memcmp(compiled[i].sha, sha, 40))
      return compiled[i].function;
  return LUA_NOREF;
}

static bool knows(const sim_db *db, const char *sha) {
  for (size_t i = 0; i < db->script_count; i++)
    if (!memcmp(db->scripts[i], sha, 40))
      return true;
  return false;
}

static redisReply *do_eval(const call *call) {
  char sha[41];
  if (!lua)
    open_lua();
  sha_of(AT(1), LEN(1), sha);
  if (function_of(sha) == LUA_NOREF) {
    if (compiled_count == SCRIPTS || luaL_loadbuffer(lua, AT(1), LEN(1), "script"))
      sim_fail("simulator", "Redis: a script cannot be compiled: %s", lua_tostring(lua, -1));
    memcpy(compiled[compiled_count].sha, sha, sizeof sha);
    compiled[compiled_count++].function = luaL_ref(lua, LUA_REGISTRYINDEX);
  }
  if (!knows(call->db, sha) && call->db->script_count < SCRIPTS)
    memcpy(call->db->scripts[call->db->script_count++], sha, sizeof sha);
  return run_script(call, function_of(sha));
}

static redisReply *do_evalsha(const call *call) {
  if (LEN(1) != 40 || !knows(call->db, AT(1)))
    return error_reply("NOSCRIPT No matching script. Please use EVAL.");
  return run_script(call, function_of(AT(1)));
}

redisReply *sim_db_command(sim_db *db, int argc, const char **argv, const size_t *lengths) {
  enum { FEW = 32 };
  size_t few[FEW];
  size_t *measured = NULL;
  if (!lengths) {
    measured = argc <= FEW ? few : malloc((size_t)argc * sizeof *measured);
    for (int i = 0; i < argc; i++)
      measured[i] = strlen(argv[i]);
    lengths = measured;
  }
  db->unit++;
  db->wrote = db->dirty = false;
  db->frozen_ms = sim_db_time_ms(db);
  redisReply *reply = run_command(&(call){db, (size_t)argc, argv, lengths}, false);
  if (measured && measured != few)
    free(measured);
  return reply;
}

/* ---- the oracle's notes ------------------------------------------------------------------------------------------------------------------ */

/* In the unit of the command that was just run, so that both are kept or lost together. */
void sim_db_note(sim_db *db, const char *key, const char *field, const char *text) {
  put_field(open_value(db, key, strlen(key), HASH), field, strlen(field), text, strlen(text));
}

void sim_db_unnote(sim_db *db, const char *key) {
  drop_key(db, key, strlen(key));
}
