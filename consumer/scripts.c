#include "scripts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Every script keeps these:
 * 1. All checks come before the first write. Redis does not roll a script back, so the first write is the one that can be refused
 *    (memory, replicas, a stream at its last id); what follows cannot fail, because the types of all keys are known by then.
 * 2. Keys are declared in KEYS. Where their number depends on the state (snapshot chunks, views) they stand in ARGV; they carry the
 *    same hash tag, so they are in the same slot.
 * 3. Offsets are compared as decimal text, never as Lua numbers, which are doubles.
 * 4. Lua's unpack takes about 8,000 values at most: long lists go in steps. */

/* Shared beginnings of scripts. */
#define LUA_KIND                                                                                                               \
  "local function kind(key) local t = redis.call('TYPE', key) return t.ok or t end\n"                                          \
  "local function wrong(key, want) local k = kind(key)\n"                                                                      \
  "  if k ~= want and k ~= 'none' then\n"                                                                                      \
  "    return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. k .. ', not a ' .. want .. ': another program wrote it')\n" \
  "  end end\n"
#define LUA_TIME                                                                                             \
  "local function now() local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000) end\n"

void livenps_keys_make(livenps_keys *keys, const char *namespace_) {
  snprintf(keys->prefix, sizeof keys->prefix, "nps:{%.64s}:", namespace_);
  snprintf(keys->meta, sizeof keys->meta, "nps:{%.64s}:meta", namespace_);
  snprintf(keys->positions, sizeof keys->positions, "nps:{%.64s}:positions", namespace_);
  snprintf(keys->log, sizeof keys->log, "nps:{%.64s}:log", namespace_);
  snprintf(keys->lease, sizeof keys->lease, "nps:{%.64s}:lease", namespace_);
  snprintf(keys->snapshot, sizeof keys->snapshot, "nps:{%.64s}:snapshot", namespace_);
}

/* ---- arguments of a script --------------------------------------------------------------------------------------- */

/* A growing list of borrowed arguments; numbers are kept in cells of their own. */
typedef struct {
  const char **at;
  size_t *lengths;
  size_t count, capacity;
} arguments;

static void put(arguments *list, const char *bytes, size_t length) {
  if (list->count == list->capacity) {
    list->capacity = list->capacity ? list->capacity * 2 : 32;
    list->at = livenps_resize(list->at, list->capacity * sizeof *list->at);
    list->lengths = livenps_resize(list->lengths, list->capacity * sizeof *list->lengths);
  }
  list->at[list->count] = bytes;
  list->lengths[list->count++] = length;
}

static void put_string(arguments *list, const char *string) {
  put(list, string, strlen(string));
}

static void arguments_free(arguments *list) {
  free(list->at);
  free(list->lengths);
}

/* The first element of a reply, the script's one-word answer. */
static livenps_text answer_of(const livenps_reply *reply) {
  livenps_text word = {NULL, 0};
  if (!livenps_reply_text(reply, &word)) {
    livenps_reply_text(livenps_reply_item(reply, 0), &word);
  }
  return word;
}

static bool is(livenps_text text, const char *word) {
  return livenps_text_equal(text, livenps_text_of(word));
}

static int odd_reply(livenps_error *error, const char *script) {
  return livenps_fail(error, LIVENPS_E_DATA,
                      "Redis: the %s script answered in a form that this version does not write", script);
}

static bool copy_text(const livenps_reply *reply, char *out, size_t size) {
  livenps_text text;
  if (!livenps_reply_text(reply, &text) || text.length >= size) {
    return false;
  }
  memcpy(out, text.at, text.length);
  out[text.length] = 0;
  return true;
}

/* ---- commit ------------------------------------------------------------------------------------------------------ */

/* ARGV: 1 version, 2 lineage, 3 admit, 4 limit, 5 nonce, 6 payload, then field, expected, next for every claim. */
static livenps_script commit_script = {
    .text = LUA_KIND LUA_TIME
    "local meta, positions, log = KEYS[1], KEYS[2], KEYS[3]\n"
    "local bad = wrong(meta, 'hash') or wrong(positions, 'hash') or wrong(log, 'stream')\n"
    "if bad then return bad end\n"
    "if kind(meta) == 'none' or kind(log) == 'none' then return {'EMPTY'} end\n"
    "local m = redis.call('HMGET', meta, 'version', 'lineage', 'admit', 'head', 'head_nonce', 'bytes', 'trimmed')\n"
    "if m[1] ~= ARGV[1] then return {'CONFIG', 'format version ' .. tostring(m[1])} end\n"
    "if m[2] ~= ARGV[2] then return {'LINEAGE', tostring(m[2])} end\n"
    "if m[3] ~= ARGV[3] then return {'CONFIG', 'admit hash ' .. tostring(m[3])} end\n"
    "if not (m[4] and m[5] and tonumber(m[6]) and tonumber(m[7])) then\n"
    "  return redis.error_reply('ERR ' .. meta .. ' lacks fields: another program changed it')\n"
    "end\n"
    /* Every claim, in steps of 1,000 fields. */
    "for first = 7, #ARGV, 3000 do\n"
    "  local last = math.min(first + 2999, #ARGV)\n"
    "  local fields = {}\n"
    "  for i = first, last, 3 do fields[#fields + 1] = ARGV[i] end\n"
    "  local stored = redis.call('HMGET', positions, unpack(fields))\n"
    "  for k, value in ipairs(stored) do\n"
    "    local i = first + (k - 1) * 3\n"
    "    local next = value and (string.match(value, '^%d+') or value) or '-1'\n"
    "    if next ~= ARGV[i + 1] then return {'CONFLICT', ARGV[i], next, ARGV[i + 1]} end\n"
    "  end\n"
    "end\n"
    "local bytes, payload = tonumber(m[6]), ARGV[6]\n"
    "local used = bytes - tonumber(m[7])\n"
    /* An empty log takes any entry: otherwise one larger than the limit would wait for ever. */
    "if used > 0 and used + #payload > tonumber(ARGV[4]) then\n"
    "  return {'FULL', string.format('%.0f', used)}\n"
    "end\n"
    "local id = redis.call('XADD', log, '*', 'l', ARGV[2], 'n', ARGV[5], 'p', m[4], 'q', m[5], 'b', m[6], 'd', payload)\n"
    "local pairs_ = {}\n"
    "for i = 7, #ARGV, 3 do\n"
    "  if ARGV[i + 1] ~= ARGV[i + 2] then\n"
    "    pairs_[#pairs_ + 1] = ARGV[i]\n"
    "    pairs_[#pairs_ + 1] = ARGV[i + 2]\n"
    "    if #pairs_ == 2000 then redis.call('HSET', positions, unpack(pairs_)) pairs_ = {} end\n"
    "  end\n"
    "end\n"
    "if #pairs_ > 0 then redis.call('HSET', positions, unpack(pairs_)) end\n"
    "redis.call('HSET', meta, 'head', id, 'head_nonce', ARGV[5], 'bytes', string.format('%.0f', bytes + #payload))\n"
    "return {'OK', now(), id}\n",
};

int livenps_script_commit(livenps_redis *redis, const livenps_keys *keys, const char *lineage,
                          const char *admit, int64_t log_max_bytes, const livenps_claim *claims,
                          size_t claim_count, const livenps_buffer *payload, livenps_commit_answer *answer,
                          int64_t *redis_ms, livenps_entry_id *id, char detail[512], livenps_error *error) {
  int result = -1;
  char version[16], limit[24];
  livenps_entry_id made = {.id = ""};
  arguments list = {0};
  char(*numbers)[2][24] = livenps_alloc((claim_count ? claim_count : 1) * sizeof *numbers);
  livenps_random_hex(made.nonce, sizeof made.nonce);
  snprintf(version, sizeof version, "%d", LIVENPS_FORMAT_VERSION);
  snprintf(limit, sizeof limit, "%" PRId64, log_max_bytes);
  put_string(&list, keys->meta);
  put_string(&list, keys->positions);
  put_string(&list, keys->log);
  put_string(&list, version);
  put_string(&list, lineage);
  put_string(&list, admit);
  put_string(&list, limit);
  put_string(&list, made.nonce);
  put(&list, payload->at ? payload->at : "", payload->length);
  for (size_t i = 0; i < claim_count; i++) {
    snprintf(numbers[i][0], sizeof numbers[i][0], "%" PRId64, claims[i].expected);
    snprintf(numbers[i][1], sizeof numbers[i][1], "%" PRId64, claims[i].next);
    put_string(&list, claims[i].field);
    put_string(&list, numbers[i][0]);
    put_string(&list, numbers[i][1]);
  }
  detail[0] = 0;
  livenps_reply *reply =
      livenps_redis_eval(redis, &commit_script, error, 3, (int)list.count, list.at, list.lengths);
  if (!reply) {
    goto done;
  }
  livenps_text word = answer_of(reply);
  char stored[100] = "", text[300] = "", wanted[24] = "";
  copy_text(livenps_reply_item(reply, 1), text, sizeof text);
  copy_text(livenps_reply_item(reply, 2), stored, sizeof stored);
  copy_text(livenps_reply_item(reply, 3), wanted, sizeof wanted);
  if (is(word, "OK")) {
    if (!livenps_reply_integer(livenps_reply_item(reply, 1), redis_ms) ||
        !copy_text(livenps_reply_item(reply, 2), made.id, sizeof made.id)) {
      odd_reply(error, "commit");
      goto done;
    }
    *id = made;
    *answer = LIVENPS_COMMIT_OK;
  } else if (is(word, "CONFLICT")) {
    *answer = LIVENPS_COMMIT_CONFLICT;
    snprintf(detail, 512, "%s: stored next offset %s, expected %s", text, stored, wanted);
  } else if (is(word, "EMPTY")) {
    *answer = LIVENPS_COMMIT_EMPTY;
    snprintf(detail, 512, "nothing is stored in the namespace");
  } else if (is(word, "LINEAGE")) {
    *answer = LIVENPS_COMMIT_LINEAGE;
    snprintf(detail, 512, "stored lineage %s, expected %s", text, lineage);
  } else if (is(word, "CONFIG")) {
    *answer = LIVENPS_COMMIT_CONFIG;
    snprintf(detail, 512, "stored %s, this program has format version %s, admit hash %s", text, version,
             admit);
  } else if (is(word, "FULL")) {
    *answer = LIVENPS_COMMIT_FULL;
    snprintf(detail, 512, "the log holds %s bytes that no snapshot covers, the limit is %s", text, limit);
  } else {
    odd_reply(error, "commit");
    goto done;
  }
  result = 0;
done:
  livenps_reply_free(reply);
  arguments_free(&list);
  free(numbers);
  return result;
}

/* ---- adopt ------------------------------------------------------------------------------------------------------- */

/* ARGV: fields. */
static livenps_script adopt_script = {
    .text = LUA_KIND LUA_TIME
    "local meta, positions, log = KEYS[1], KEYS[2], KEYS[3]\n"
    "local bad = wrong(meta, 'hash') or wrong(positions, 'hash') or wrong(log, 'stream')\n"
    "if bad then return bad end\n"
    "if kind(meta) == 'none' or kind(log) == 'none' then return {'EMPTY', now()} end\n"
    "local m = redis.call('HMGET', meta, 'version', 'lineage', 'admit')\n"
    "local out = {'OK', now(), m[1], m[2], m[3]}\n"
    "for first = 1, #ARGV, 1000 do\n"
    "  local stored = redis.call('HMGET', positions, unpack(ARGV, first, math.min(first + 999, #ARGV)))\n"
    "  for _, value in ipairs(stored) do out[#out + 1] = value and (string.match(value, '^%d+') or value) or '-1' end\n"
    "end\n"
    "return out\n",
};

int livenps_script_adopt(livenps_redis *redis, const livenps_keys *keys, const char **fields, size_t count,
                         bool *empty, char lineage[33], char admit[65], int64_t *positions, int64_t *redis_ms,
                         livenps_error *error) {
  int result = -1;
  arguments list = {0};
  put_string(&list, keys->meta);
  put_string(&list, keys->positions);
  put_string(&list, keys->log);
  for (size_t i = 0; i < count; i++) {
    put_string(&list, fields[i]);
  }
  livenps_reply *reply =
      livenps_redis_eval(redis, &adopt_script, error, 3, (int)list.count, list.at, list.lengths);
  arguments_free(&list);
  if (!reply) {
    return -1;
  }
  livenps_text word = answer_of(reply);
  int64_t version = 0;
  if (!livenps_reply_integer(livenps_reply_item(reply, 1), redis_ms)) {
    odd_reply(error, "adopt");
    goto done;
  }
  if (is(word, "EMPTY")) {
    *empty = true;
    result = 0;
    goto done;
  }
  if (!is(word, "OK")) {
    odd_reply(error, "adopt");
    goto done;
  }
  if (!livenps_reply_integer(livenps_reply_item(reply, 2), &version) || version != LIVENPS_FORMAT_VERSION) {
    livenps_fail(error, LIVENPS_E_REFUSED,
                 "%s: written in format version %" PRId64
                 ", this program writes %d: use the program that wrote it, or another "
                 "namespace",
                 keys->meta, version, LIVENPS_FORMAT_VERSION);
    goto done;
  }
  if (!copy_text(livenps_reply_item(reply, 3), lineage, 33) ||
      !copy_text(livenps_reply_item(reply, 4), admit, 65) || livenps_reply_count(reply) != 5 + count) {
    odd_reply(error, "adopt");
    goto done;
  }
  for (size_t i = 0; i < count; i++) {
    if (!livenps_reply_integer(livenps_reply_item(reply, 5 + i), &positions[i])) {
      livenps_fail(error, LIVENPS_E_DATA, "%s: the position of %s is not a number: another program wrote it",
                   keys->positions, fields[i]);
      goto done;
    }
  }
  *empty = false;
  result = 0;
done:
  livenps_reply_free(reply);
  return result;
}
