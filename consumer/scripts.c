#include "scripts.h"

#include "../common/log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Every script keeps these:
 * 1. All checks come before the first write. Redis does not roll a script back, so the first write is the one that can be refused
 *    (memory, replicas, a stream at its last id); what follows cannot fail, because the types of all keys are known by then.
 * 2. Keys are declared in KEYS. Where their number depends on the state (snapshot chunks, views) they stand in ARGV; they carry the
 *    same hash tag, so they are in the same slot.
 * 3. Positions are compared as text: never as Lua numbers, which are doubles, and as a whole. A topic that was made anew comes past
 *    every offset once more, and past an incarnation too where a failover forgot the one before; then the anchor differs.
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
  snprintf(keys->lease_last, sizeof keys->lease_last, "nps:{%.64s}:lease:last", namespace_);
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

/* ARGV: 1 version, 2 lineage, 3 admit, 4 limit, 5 nonce, 6 payload, then for every claim: field, the position expected or "-1",
 * the new position or "" where it stays. */
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
    "    if (value or '-1') ~= ARGV[i + 1] then return {'CONFLICT', ARGV[i], value or '-1', ARGV[i + 1]} end\n"
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
    "  if ARGV[i + 2] ~= '' then\n"
    "    pairs_[#pairs_ + 1] = ARGV[i]\n"
    "    pairs_[#pairs_ + 1] = ARGV[i + 2]\n"
    "    if #pairs_ == 2000 then redis.call('HSET', positions, unpack(pairs_)) pairs_ = {} end\n"
    "  end\n"
    "end\n"
    "if #pairs_ > 0 then redis.call('HSET', positions, unpack(pairs_)) end\n"
    "redis.call('HSET', meta, 'head', id, 'head_nonce', ARGV[5], 'bytes', string.format('%.0f', bytes + #payload))\n"
    "return {'OK', now(), id}\n",
};

/* What a commit compares, and what it writes. */
static void print_claim(const livenps_claim *claim, char texts[2][LIVENPS_POSITION_MAX]) {
  if (claim->stored.next >= 0) {
    livenps_position_print(&claim->stored, texts[0]);
  } else {
    memcpy(texts[0], "-1", sizeof "-1");
  }
  livenps_position_print(&claim->position, texts[1]);
  if (strcmp(texts[0], texts[1]) == 0) {
    texts[1][0] = 0;
  }
}

int livenps_script_commit(livenps_redis *redis, const livenps_keys *keys, const char *lineage,
                          const char *admit, int64_t log_max_bytes, const livenps_claim *claims,
                          size_t claim_count, const livenps_buffer *payload, livenps_commit_answer *answer,
                          int64_t *redis_ms, livenps_entry_id *id, char detail[512], livenps_error *error) {
  int result = -1;
  char version[16], limit[24];
  livenps_entry_id made = {.id = ""};
  arguments list = {0};
  char(*texts)[2][LIVENPS_POSITION_MAX] = livenps_alloc((claim_count ? claim_count : 1) * sizeof *texts);
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
    print_claim(&claims[i], texts[i]);
    put_string(&list, claims[i].field);
    put_string(&list, texts[i][0]);
    put_string(&list, texts[i][1]);
  }
  detail[0] = 0;
  livenps_reply *reply =
      livenps_redis_eval(redis, &commit_script, error, 3, (int)list.count, list.at, list.lengths);
  if (!reply) {
    goto done;
  }
  livenps_text word = answer_of(reply);
  char stored[LIVENPS_POSITION_MAX] = "", text[300] = "", wanted[LIVENPS_POSITION_MAX] = "";
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
    snprintf(detail, 512, "%.150s: stored position %.159s, expected %.159s", text, stored, wanted);
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
  free(texts);
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
    "  for _, value in ipairs(stored) do out[#out + 1] = value or '' end\n"
    "end\n"
    "return out\n",
};

int livenps_script_adopt(livenps_redis *redis, const livenps_keys *keys, const char **fields, size_t count,
                         bool *empty, char lineage[33], char admit[65], livenps_position *positions,
                         int64_t *redis_ms, livenps_error *error) {
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
    livenps_text stored = {0};
    positions[i] = (livenps_position){.next = -1};
    if (!livenps_reply_text(livenps_reply_item(reply, 5 + i), &stored) ||
        (stored.length && livenps_position_parse(stored, &positions[i]) != 0)) {
      livenps_fail(error, LIVENPS_E_DATA,
                   "%s: the position of %s is not one that this program writes: another program wrote it",
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

/* ---- lease ------------------------------------------------------------------------------------------------------- */

/* A lease that somebody else held in between is TAKEN anew: whatever the holder remembers is worth nothing then. */
static livenps_script lease_script = {
    .text = "local lease = redis.call('GET', KEYS[1])\n"
            "if lease and lease ~= ARGV[1] then return 'OTHER' end\n"
            "local last = redis.call('GET', KEYS[2])\n"
            "if lease then redis.call('PEXPIRE', KEYS[1], ARGV[2])\n"
            "else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end\n"
            "if last == ARGV[1] then return 'HELD' end\n"
            "redis.call('SET', KEYS[2], ARGV[1])\n"
            "return 'TAKEN'\n",
};

static livenps_script release_script = {
    .text = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end\n"
            "return 'OK'\n",
};

int livenps_script_lease(livenps_redis *redis, const livenps_keys *keys, const livenps_holder *holder,
                         bool *held, bool *taken, livenps_error *error) {
  char ms[24];
  snprintf(ms, sizeof ms, "%" PRId64, holder->lease_ms);
  const char *argv[] = {keys->lease, keys->lease_last, holder->token, ms};
  livenps_reply *reply = livenps_redis_eval(redis, &lease_script, error, 2, 4, argv, NULL);
  if (!reply) {
    return -1;
  }
  livenps_text word = answer_of(reply);
  *taken = is(word, "TAKEN");
  *held = *taken || is(word, "HELD");
  livenps_reply_free(reply);
  return 0;
}

int livenps_script_release(livenps_redis *redis, const livenps_keys *keys, const livenps_holder *holder,
                           livenps_error *error) {
  const char *argv[] = {keys->lease, holder->token};
  livenps_reply *reply = livenps_redis_eval(redis, &release_script, error, 1, 2, argv, NULL);
  livenps_reply_free(reply);
  return reply ? 0 : -1;
}

/* ---- look -------------------------------------------------------------------------------------------------------- */

/* Whether an entry with this id and nonce is in the log. Fields stand in the order in which commit wrote them. */
#define LUA_ENTRY                                                                                            \
  "local function entry(log, id, nonce)\n"                                                                   \
  "  local found = redis.call('XRANGE', log, id, id)[1]\n"                                                   \
  "  if found and found[2][3] == 'n' and found[2][4] == nonce then return found[2] end\n"                    \
  "  return nil\n"                                                                                           \
  "end\n"

static livenps_script look_script = {
    .text = LUA_KIND LUA_TIME LUA_ENTRY
    "local meta, log, snapshot = KEYS[1], KEYS[2], KEYS[3]\n"
    "local bad = wrong(meta, 'hash') or wrong(log, 'stream') or wrong(snapshot, 'hash')\n"
    "if bad then return bad end\n"
    "local m = redis.call('HMGET', meta, 'version', 'lineage', 'genesis', 'admit', 'publish', 'head', 'head_nonce')\n"
    "local s = redis.call('HMGET', snapshot, 'entry', 'nonce', 'lineage', 'chunks')\n"
    "local present = kind(meta) ~= 'none' and kind(log) ~= 'none'\n"
    "local covered = false\n"
    /* A pointer of another lineage is not this log's. */
    "if not (s[1] and s[2] and s[4]) or s[3] ~= m[2] then s = {'', '', '', ''}\n"
    "elseif present then covered = entry(log, s[1], s[2]) end\n"
    "local out = {now(), present and 1 or 0, m[1] or '0', m[2] or '', m[3] or '0', m[4] or '', m[5] or '',\n"
    "  m[6] or '', m[7] or '', s[1], s[2], covered and 1 or 0, s[4]}\n"
    "return out\n",
};

int livenps_script_look(livenps_redis *redis, const livenps_keys *keys, livenps_stored *stored,
                        livenps_error *error) {
  const char *argv[] = {keys->meta, keys->log, keys->snapshot};
  livenps_reply *reply = livenps_redis_eval(redis, &look_script, error, 3, 3, argv, NULL);
  if (!reply) {
    return -1;
  }
  livenps_stored found = {0};
  int64_t present = 0, exists = 0;
  livenps_text chunks = {0};
  int result = -1;
  if (livenps_reply_count(reply) != 13 ||
      !livenps_reply_integer(livenps_reply_item(reply, 0), &found.redis_ms) ||
      !livenps_reply_integer(livenps_reply_item(reply, 1), &present) ||
      !livenps_reply_integer(livenps_reply_item(reply, 2), &found.version) ||
      !copy_text(livenps_reply_item(reply, 3), found.lineage, sizeof found.lineage) ||
      !livenps_reply_integer(livenps_reply_item(reply, 4), &found.genesis) ||
      !copy_text(livenps_reply_item(reply, 5), found.admit, sizeof found.admit) ||
      !copy_text(livenps_reply_item(reply, 6), found.publish, sizeof found.publish) ||
      !copy_text(livenps_reply_item(reply, 7), found.head.id, sizeof found.head.id) ||
      !copy_text(livenps_reply_item(reply, 8), found.head.nonce, sizeof found.head.nonce) ||
      !copy_text(livenps_reply_item(reply, 9), found.covered.id, sizeof found.covered.id) ||
      !copy_text(livenps_reply_item(reply, 10), found.covered.nonce, sizeof found.covered.nonce) ||
      !livenps_reply_integer(livenps_reply_item(reply, 11), &exists) ||
      !livenps_reply_text(livenps_reply_item(reply, 12), &chunks)) {
    odd_reply(error, "look");
  } else {
    found.present = present != 0;
    found.covered_exists = exists != 0;
    found.chunks = livenps_copy(chunks.at, chunks.length);
    *stored = found;
    result = 0;
  }
  livenps_reply_free(reply);
  return result;
}

/* ---- what the aggregator's scripts check first ------------------------------------------------------------------- */

/* Redis refuses commands that take memory beyond maxmemory, but only as a script's first write. PEXPIRE is none of those, so what a
 * holder does goes on when memory is out: else nobody could write the snapshot that lets the log be trimmed. */

/* A lease that lapsed while nobody took it is still ours: a busy machine must not lose its state for that. Who held it last stands
 * beside it, in <lease>:last, without an expiry. */
#define LUA_HOLDER                                                                                           \
  "local function refused(lease, token, ms)\n"                                                               \
  "  local holder = redis.call('GET', lease)\n"                                                              \
  "  if holder and holder ~= token then return {'LEASE'} end\n"                                              \
  "  if not holder and redis.call('GET', lease .. ':last') ~= token then return {'LEASE'} end\n"             \
  "  if holder then redis.call('PEXPIRE', lease, ms) else redis.call('SET', lease, token, 'PX', ms) end\n"   \
  "end\n"

static int read_fence(const livenps_reply *reply, livenps_fence *fence, const char *script,
                      livenps_error *error) {
  static const char *const words[] = {"OK", "LEASE", "LINEAGE", "GONE", "REPUBLISH", "CHUNK", "BACKWARDS"};
  livenps_text word = answer_of(reply);
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    if (is(word, words[i])) {
      *fence = (livenps_fence)i;
      return 0;
    }
  }
  return odd_reply(error, script);
}

static void put_chunks(arguments *list, const livenps_chunk *chunks, size_t count, char (*sizes)[24],
                       livenps_buffer *listing) {
  for (size_t i = 0; i < count; i++) {
    livenps_buffer_print(listing, "%s %s %zu\n", chunks[i].name, chunks[i].key, chunks[i].size);
  }
  put(list, listing->at ? listing->at : "", listing->length);
  snprintf(sizes[count], sizeof sizes[count], "%zu", count);
  put_string(list, sizes[count]);
  for (size_t i = 0; i < count; i++) {
    snprintf(sizes[i], sizeof sizes[i], "%zu", chunks[i].size);
    put_string(list, chunks[i].key);
    put_string(list, sizes[i]);
  }
}

/* Chunks stand in ARGV as listing, count, then key and size of each. `first` is the listing's index. */
#define LUA_CHUNKS                                                                                                       \
  "local function missing(first)\n"                                                                                      \
  "  for i = first + 2, first + 1 + 2 * ARGV[first + 1], 2 do\n"                                                         \
  "    if kind(ARGV[i]) ~= 'string' or redis.call('STRLEN', ARGV[i]) ~= tonumber(ARGV[i + 1]) then return ARGV[i] end\n" \
  "  end\n"                                                                                                              \
  "end\n"                                                                                                                \
  "local function keep(first, old)\n"                                                                                    \
  "  local listed = {}\n"                                                                                                \
  "  for i = first + 2, first + 1 + 2 * ARGV[first + 1], 2 do listed[ARGV[i]] = 1 redis.call('PERSIST', ARGV[i]) end\n"  \
  "  for key in string.gmatch(old or '', '%S+ (%S+) %d+\\n') do\n"                                                       \
  "    if not listed[key] then redis.call('UNLINK', key) end\n"                                                          \
  "  end\n"                                                                                                              \
  "end\n"

/* ---- genesis ----------------------------------------------------------------------------------------------------- */

/* ARGV: 1 token, 2 lease ms, 3 lineage seen, 4 version, 5 lineage, 6 admit, 7 nonce, 8 payload, 9 snapshot id, 10 a genesis
 * number to rise above, 11 chunk listing, 12 number of chunks, key and size of each, number of extra fields, name and value of each, then positions: field and text. */
static livenps_script genesis_script = {
    .text = LUA_KIND LUA_TIME LUA_HOLDER LUA_CHUNKS
    "local meta, positions, log, lease, snapshot = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]\n"
    "local no = refused(lease, ARGV[1], ARGV[2])\n"
    "if no then return no end\n"
    "local bad = wrong(meta, 'hash')\n"
    "if bad then return bad end\n"
    "local stored = redis.call('HMGET', meta, 'lineage', 'genesis')\n"
    "if (stored[1] or '') ~= ARGV[3] then return {'LINEAGE'} end\n"
    "local lost = missing(11)\n"
    "if lost then return {'CHUNK', lost} end\n"
    "local old = kind(snapshot) == 'hash' and redis.call('HGET', snapshot, 'chunks') or ''\n"
    "local genesis = string.format('%.0f', math.max(tonumber(stored[2] or '') or 0, tonumber(ARGV[10])) + 1)\n"
    "local extra = 13 + 2 * ARGV[12]\n"
    "local first = extra + 1 + 2 * ARGV[extra]\n"
    "redis.call('UNLINK', meta, positions, log, snapshot)\n"
    "local id = redis.call('XADD', log, '*', 'l', ARGV[5], 'n', ARGV[7], 'p', '0-0', 'q', '-', 'b', '0', 'd', ARGV[8])\n"
    "redis.call('HSET', meta, 'version', ARGV[4], 'lineage', ARGV[5], 'genesis', genesis, 'admit', ARGV[6], 'head', id,\n"
    "  'head_nonce', ARGV[7], 'bytes', string.format('%d', #ARGV[8]), 'trimmed', string.format('%d', #ARGV[8]), 'publish', '')\n"
    "for i = extra + 1, first - 1, 2 do redis.call('HSETNX', meta, ARGV[i], ARGV[i + 1]) end\n"
    "for i = first, #ARGV, 2000 do\n"
    "  redis.call('HSET', positions, unpack(ARGV, i, math.min(i + 1999, #ARGV)))\n"
    "end\n"
    "redis.call('HSET', snapshot, 'id', ARGV[9], 'entry', id, 'nonce', ARGV[7], 'lineage', ARGV[5], 'genesis', genesis,\n"
    "  'chunks', ARGV[11])\n"
    "keep(11, old)\n"
    "return {'OK', now(), id, genesis}\n",
};

int livenps_script_genesis(livenps_redis *redis, const livenps_keys *keys, livenps_holder *holder,
                           const livenps_birth *birth, livenps_fence *fence, int64_t *genesis,
                           int64_t *redis_ms, livenps_error *error) {
  int result = -1;
  char version[16], lease[24], extras[24], above[24];
  livenps_entry_id made = {.id = ""};
  arguments list = {0};
  livenps_buffer listing = {0};
  char(*sizes)[24] = livenps_alloc((birth->chunk_count + 1) * sizeof *sizes);
  char(*texts)[LIVENPS_POSITION_MAX] = livenps_alloc((birth->position_count + 1) * sizeof *texts);
  livenps_random_hex(made.nonce, sizeof made.nonce);
  snprintf(version, sizeof version, "%d", LIVENPS_FORMAT_VERSION);
  snprintf(lease, sizeof lease, "%" PRId64, holder->lease_ms);
  snprintf(extras, sizeof extras, "%zu", birth->extra_count);
  snprintf(above, sizeof above, "%" PRId64, birth->above);
  put_string(&list, keys->meta);
  put_string(&list, keys->positions);
  put_string(&list, keys->log);
  put_string(&list, keys->lease);
  put_string(&list, keys->snapshot);
  put_string(&list, holder->token);
  put_string(&list, lease);
  put_string(&list, birth->seen);
  put_string(&list, version);
  put_string(&list, holder->lineage);
  put_string(&list, birth->admit);
  put_string(&list, made.nonce);
  put(&list, birth->payload->at ? birth->payload->at : "", birth->payload->length);
  put_string(&list, birth->snapshot_id);
  put_string(&list, above);
  put_chunks(&list, birth->chunks, birth->chunk_count, sizes, &listing);
  put_string(&list, extras);
  for (size_t i = 0; i < birth->extra_count; i++) {
    put_string(&list, birth->extra[i].name);
    put_string(&list, birth->extra[i].value);
  }
  for (size_t i = 0; i < birth->position_count; i++) {
    livenps_position_print(&birth->positions[i].position, texts[i]);
    put_string(&list, birth->positions[i].field);
    put_string(&list, texts[i]);
  }
  livenps_reply *reply =
      livenps_redis_eval(redis, &genesis_script, error, 5, (int)list.count, list.at, list.lengths);
  if (!reply || read_fence(reply, fence, "genesis", error) != 0) {
    goto done;
  }
  if (*fence == LIVENPS_FENCE_OK) {
    if (!livenps_reply_integer(livenps_reply_item(reply, 1), redis_ms) ||
        !copy_text(livenps_reply_item(reply, 2), made.id, sizeof made.id) ||
        !livenps_reply_integer(livenps_reply_item(reply, 3), genesis)) {
      odd_reply(error, "genesis");
      goto done;
    }
    holder->covered = made;
  }
  result = 0;
done:
  livenps_reply_free(reply);
  arguments_free(&list);
  livenps_buffer_free(&listing);
  free(sizes);
  free(texts);
  return result;
}

/* ---- read -------------------------------------------------------------------------------------------------------- */

/* ARGV: 1 token, 2 lease ms, 3 lineage, 4 last id, 5 bytes. Entries are read in small steps until the bytes are there, so that the
 * reply stays bounded whatever the entries' sizes. */
static livenps_script read_script = {
    .text = LUA_KIND LUA_TIME LUA_HOLDER
    "local meta, log, lease = KEYS[1], KEYS[2], KEYS[3]\n"
    "local no = refused(lease, ARGV[1], ARGV[2])\n"
    "if no then return no end\n"
    "local bad = wrong(meta, 'hash') or wrong(log, 'stream')\n"
    "if bad then return bad end\n"
    "if kind(meta) == 'none' or kind(log) == 'none' then return {'GONE'} end\n"
    "local m = redis.call('HMGET', meta, 'lineage', 'head', 'head_nonce', 'bytes', 'trimmed', 'publish')\n"
    "if m[1] ~= ARGV[3] then return {'LINEAGE'} end\n"
    "local out, size, from, step = {}, 0, '(' .. ARGV[4], 4\n"
    "repeat\n"
    "  local some = redis.call('XRANGE', log, from, '+', 'COUNT', step)\n"
    "  for _, e in ipairs(some) do\n"
    "    out[#out + 1] = e\n"
    "    for i = 2, #e[2], 2 do size = size + #e[2][i] end\n"
    "    from = '(' .. e[1]\n"
    "  end\n"
    "until #some < step or size >= tonumber(ARGV[5])\n"
    "return {'OK', now(), m[2] or '', m[3] or '', m[4] or '0', m[5] or '0', m[6] or '', out}\n",
};

void livenps_reading_free(livenps_reading *reading) {
  livenps_reply_free(reading->reply);
  free(reading->at);
  *reading = (livenps_reading){0};
}

static int read_logged(const livenps_reply *item, livenps_logged *logged, livenps_error *error) {
  const livenps_reply *fields = livenps_reply_item(item, 1);
  int seen = 0;
  if (!copy_text(livenps_reply_item(item, 0), logged->id.id, sizeof logged->id.id)) {
    return odd_reply(error, "read");
  }
  logged->ms = strtoll(logged->id.id, NULL, 10);
  for (size_t i = 0; i + 1 < livenps_reply_count(fields); i += 2) {
    livenps_text name;
    const livenps_reply *value = livenps_reply_item(fields, i + 1);
    if (!livenps_reply_text(livenps_reply_item(fields, i), &name) || name.length != 1) {
      continue;
    }
    switch (*name.at) {
    case 'l': seen += livenps_reply_text(value, &logged->lineage); break;
    case 'n': seen += copy_text(value, logged->id.nonce, sizeof logged->id.nonce); break;
    case 'p': seen += copy_text(value, logged->before.id, sizeof logged->before.id); break;
    case 'q': seen += copy_text(value, logged->before.nonce, sizeof logged->before.nonce); break;
    case 'd': seen += livenps_reply_text(value, &logged->payload); break;
    default: break;
    }
  }
  if (seen != 5) {
    return livenps_fail(error, LIVENPS_E_DATA, "log entry %s lacks fields: another program wrote it",
                        logged->id.id);
  }
  return 0;
}

int livenps_script_read(livenps_redis *redis, const livenps_keys *keys, const livenps_holder *holder,
                        const char *last, int64_t max_bytes, livenps_reading *reading, livenps_error *error) {
  char lease[24], bytes[24];
  *reading = (livenps_reading){0};
  snprintf(lease, sizeof lease, "%" PRId64, holder->lease_ms);
  snprintf(bytes, sizeof bytes, "%" PRId64, max_bytes);
  const char *argv[] = {keys->meta, keys->log,       keys->lease, holder->token,
                        lease,      holder->lineage, last,        bytes};
  livenps_reply *reply = livenps_redis_eval(redis, &read_script, error, 3, 8, argv, NULL);
  if (!reply) {
    return -1;
  }
  reading->reply = reply;
  if (read_fence(reply, &reading->fence, "read", error) != 0) {
    goto failed;
  }
  if (reading->fence != LIVENPS_FENCE_OK) {
    return 0;
  }
  const livenps_reply *entries = livenps_reply_item(reply, 7);
  if (!entries || !livenps_reply_integer(livenps_reply_item(reply, 1), &reading->redis_ms) ||
      !copy_text(livenps_reply_item(reply, 2), reading->head.id, sizeof reading->head.id) ||
      !copy_text(livenps_reply_item(reply, 3), reading->head.nonce, sizeof reading->head.nonce) ||
      !livenps_reply_integer(livenps_reply_item(reply, 4), &reading->bytes) ||
      !livenps_reply_integer(livenps_reply_item(reply, 5), &reading->trimmed) ||
      !copy_text(livenps_reply_item(reply, 6), reading->publish, sizeof reading->publish)) {
    odd_reply(error, "read");
    goto failed;
  }
  reading->count = livenps_reply_count(entries);
  reading->at = livenps_alloc((reading->count + 1) * sizeof *reading->at);
  for (size_t i = 0; i < reading->count; i++) {
    if (read_logged(livenps_reply_item(entries, i), &reading->at[i], error) != 0) {
      goto failed;
    }
  }
  return 0;
failed:
  livenps_reading_free(reading);
  return -1;
}

int livenps_log_read(livenps_redis *redis, const livenps_keys *keys, const char *last, const char *head,
                     int count, livenps_reading *reading, livenps_error *error) {
  char from[48], number[16];
  *reading = (livenps_reading){0};
  snprintf(from, sizeof from, "(%s", last);
  snprintf(number, sizeof number, "%d", count);
  const char *argv[] = {"XRANGE", keys->log, from, head, "COUNT", number};
  reading->reply = livenps_redis_command(redis, error, 6, argv, NULL);
  if (!reading->reply) {
    return -1;
  }
  reading->count = livenps_reply_count(reading->reply);
  reading->at = livenps_alloc((reading->count + 1) * sizeof *reading->at);
  for (size_t i = 0; i < reading->count; i++) {
    if (read_logged(livenps_reply_item(reading->reply, i), &reading->at[i], error) != 0) {
      livenps_reading_free(reading);
      return -1;
    }
  }
  return 0;
}

/* ---- positions --------------------------------------------------------------------------------------------------- */

static livenps_script positions_script = {
    .text = LUA_KIND LUA_TIME
    "local meta, positions = KEYS[1], KEYS[2]\n"
    "local bad = wrong(meta, 'hash') or wrong(positions, 'hash')\n"
    "if bad then return bad end\n"
    "local m = redis.call('HMGET', meta, 'lineage', 'head', 'head_nonce')\n"
    "return {now(), m[1] or '', m[2] or '', m[3] or '', redis.call('HGETALL', positions)}\n",
};

void livenps_positions_free(livenps_positions *positions) {
  livenps_reply_free(positions->reply);
  free(positions->at);
  *positions = (livenps_positions){0};
}

int livenps_script_positions(livenps_redis *redis, const livenps_keys *keys, livenps_positions *positions,
                             livenps_error *error) {
  const char *argv[] = {keys->meta, keys->positions};
  livenps_reply *reply = livenps_redis_eval(redis, &positions_script, error, 2, 2, argv, NULL);
  *positions = (livenps_positions){.reply = reply};
  if (!reply) {
    return -1;
  }
  const livenps_reply *fields = livenps_reply_item(reply, 4);
  if (!fields || !livenps_reply_integer(livenps_reply_item(reply, 0), &positions->redis_ms) ||
      !copy_text(livenps_reply_item(reply, 1), positions->lineage, sizeof positions->lineage) ||
      !copy_text(livenps_reply_item(reply, 2), positions->head.id, sizeof positions->head.id) ||
      !copy_text(livenps_reply_item(reply, 3), positions->head.nonce, sizeof positions->head.nonce)) {
    odd_reply(error, "positions");
    goto failed;
  }
  positions->count = livenps_reply_count(fields) / 2;
  positions->at = livenps_alloc((positions->count + 1) * sizeof *positions->at);
  for (size_t i = 0; i < positions->count; i++) {
    livenps_standing *standing = &positions->at[i];
    livenps_text text = {0};
    livenps_reply_text(livenps_reply_item(fields, 2 * i), &standing->field);
    if (!livenps_reply_text(livenps_reply_item(fields, 2 * i + 1), &text) ||
        livenps_position_parse(text, &standing->position) != 0) {
      char shown[300];
      livenps_fail(error, LIVENPS_E_DATA, "%s: the position of %s is not one that this program writes",
                   keys->positions,
                   livenps_printable(shown, sizeof shown, standing->field.at, standing->field.length));
      goto failed;
    }
  }
  return 0;
failed:
  livenps_positions_free(positions);
  return -1;
}

/* ---- publish ----------------------------------------------------------------------------------------------------- */

/* A word as MessagePack's string: what cmsgpack.unpack makes of several, one after the other, are as many values. */
void livenps_ops_add(livenps_ops *ops, const char *bytes, size_t length) {
  const uint32_t size = (uint32_t)length;
  const char head[] = {(char)(size < 32      ? 0xa0 | size
                              : size < 256   ? 0xd9
                              : size < 65536 ? 0xda
                                             : 0xdb),
                       (char)(size >> 24), (char)(size >> 16), (char)(size >> 8), (char)size};
  const size_t digits = size < 32 ? 0 : size < 256 ? 1 : size < 65536 ? 2 : 4;
  livenps_buffer_add(&ops->bytes, head, 1);
  livenps_buffer_add(&ops->bytes, head + sizeof head - digits, digits);
  livenps_buffer_add(&ops->bytes, bytes, length);
}

void livenps_ops_end(livenps_ops *ops) {
  if (ops->commands == ops->capacity) {
    ops->capacity = ops->capacity ? ops->capacity * 2 : 1024;
    ops->ends = livenps_resize(ops->ends, ops->capacity * sizeof *ops->ends);
  }
  ops->ends[ops->commands++] = ops->bytes.length;
}

void livenps_ops_command(livenps_ops *ops, const char *word, ...) {
  va_list more;
  va_start(more, word);
  for (; word; word = va_arg(more, const char *)) {
    livenps_ops_add(ops, word, strlen(word));
  }
  livenps_ops_end(ops);
  va_end(more);
}

void livenps_ops_clear(livenps_ops *ops) {
  ops->bytes.length = 0;
  ops->commands = 0;
}

void livenps_ops_free(livenps_ops *ops) {
  livenps_buffer_free(&ops->bytes);
  free(ops->ends);
  *ops = (livenps_ops){0};
}

/* ARGV: 1 token, 2 lease ms, 3 lineage, 4 covered id, 5 its nonce, 6 last publish id, 7 new one, then every command, its
 * words packed into one argument, because Redis reads an argument of a script twice, as an object and as Lua's string. The new id is the first
 * write: what fails later is published again, because the caller then knows of an error and publishes everything. */
static livenps_script publish_script = {
    .text = LUA_KIND LUA_HOLDER LUA_ENTRY
    "local meta, log, lease = KEYS[1], KEYS[2], KEYS[3]\n"
    "local no = refused(lease, ARGV[1], ARGV[2])\n"
    "if no then return no end\n"
    "local bad = wrong(meta, 'hash') or wrong(log, 'stream')\n"
    "if bad then return bad end\n"
    "local m = redis.call('HMGET', meta, 'lineage', 'publish')\n"
    "if m[1] ~= ARGV[3] then return {'LINEAGE'} end\n"
    "if not entry(log, ARGV[4], ARGV[5]) then return {'GONE'} end\n"
    "if (m[2] or '') ~= ARGV[6] then return {'REPUBLISH', m[2] or ''} end\n"
    "redis.call('HSET', meta, 'publish', ARGV[7])\n"
    "local unpacked = cmsgpack.unpack\n"
    "for i = 8, #ARGV do\n"
    "  local reply = redis.pcall(unpacked(ARGV[i]))\n"
    "  if type(reply) == 'table' and reply.err then\n"
    "    local word, key = unpacked(ARGV[i])\n"
    "    if string.find(reply.err, 'WRONGTYPE', 1, true) then\n"
    "      redis.call('UNLINK', key)\n"
    "      redis.call(unpacked(ARGV[i]))\n"
    "    elseif not (word == 'XADD' and string.find(reply.err, 'equal or smaller', 1, true)) then\n"
    "      return reply\n"
    "    end\n"
    "  end\n"
    "end\n"
    "return {'OK'}\n",
};

int livenps_script_publish(livenps_redis *redis, const livenps_keys *keys, const livenps_holder *holder,
                           const char *before, const char *id, const livenps_ops *ops, livenps_fence *fence,
                           char stored[64], livenps_error *error) {
  char lease[24];
  arguments list = {0};
  snprintf(lease, sizeof lease, "%" PRId64, holder->lease_ms);
  put_string(&list, keys->meta);
  put_string(&list, keys->log);
  put_string(&list, keys->lease);
  put_string(&list, holder->token);
  put_string(&list, lease);
  put_string(&list, holder->lineage);
  put_string(&list, holder->covered.id);
  put_string(&list, holder->covered.nonce);
  put_string(&list, before);
  put_string(&list, id);
  for (size_t i = 0; i < ops->commands; i++) {
    size_t from = i ? ops->ends[i - 1] : 0;
    put(&list, ops->bytes.at + from, ops->ends[i] - from);
  }
  livenps_reply *reply =
      livenps_redis_eval(redis, &publish_script, error, 3, (int)list.count, list.at, list.lengths);
  arguments_free(&list);
  if (!reply) {
    return -1;
  }
  int result = read_fence(reply, fence, "publish", error);
  stored[0] = 0;
  if (result == 0 && *fence == LIVENPS_FENCE_REPUBLISH) {
    copy_text(livenps_reply_item(reply, 1), stored, 64);
  }
  livenps_reply_free(reply);
  return result;
}

/* ---- snapshot ---------------------------------------------------------------------------------------------------- */

/* ARGV: 1 token, 2 lease ms, 3 bytes, 4 expiry. */
static livenps_script chunk_script = {
    .text = LUA_HOLDER "local no = refused(KEYS[1], ARGV[1], ARGV[2])\n"
                       "if no then return no end\n"
                       "redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])\n"
                       "return {'OK'}\n",
};

int livenps_script_chunk(livenps_redis *redis, const livenps_keys *keys, const livenps_holder *holder,
                         const char *key, livenps_text bytes, livenps_fence *fence, livenps_error *error) {
  char lease[24], ttl[16];
  arguments list = {0};
  snprintf(lease, sizeof lease, "%" PRId64, holder->lease_ms);
  snprintf(ttl, sizeof ttl, "%d", LIVENPS_CHUNK_TTL_MS);
  put_string(&list, keys->lease);
  put_string(&list, key);
  put_string(&list, holder->token);
  put_string(&list, lease);
  put(&list, bytes.at ? bytes.at : "", bytes.length);
  put_string(&list, ttl);
  livenps_reply *reply =
      livenps_redis_eval(redis, &chunk_script, error, 2, (int)list.count, list.at, list.lengths);
  int result = reply ? read_fence(reply, fence, "chunk", error) : -1;
  livenps_reply_free(reply);
  arguments_free(&list);
  return result;
}

/* ARGV: 1 token, 2 lease ms, 3 lineage, 4 snapshot id, 5 covered id, 6 its nonce, 7 chunk listing, 8 number of chunks, key and size of
 * each. Payload bytes up to and with the covered entry no longer count as waiting in the log. */
static livenps_script flip_script = {
    .text = LUA_KIND LUA_HOLDER LUA_ENTRY LUA_CHUNKS
    "local meta, log, lease, snapshot = KEYS[1], KEYS[2], KEYS[3], KEYS[4]\n"
    "local no = refused(lease, ARGV[1], ARGV[2])\n"
    "if no then return no end\n"
    "local bad = wrong(meta, 'hash') or wrong(log, 'stream') or wrong(snapshot, 'hash')\n"
    "if bad then return bad end\n"
    "local m = redis.call('HMGET', meta, 'lineage', 'genesis')\n"
    "if m[1] ~= ARGV[3] then return {'LINEAGE'} end\n"
    "local covered = entry(log, ARGV[5], ARGV[6])\n"
    "if not covered then return {'GONE'} end\n"
    "local lost = missing(7)\n"
    "if lost then return {'CHUNK', lost} end\n"
    "local old = redis.call('HMGET', snapshot, 'entry', 'lineage', 'chunks')\n"
    "local function parts(id) local a, b = string.match(id, '^(%d+)-(%d+)$') return tonumber(a), tonumber(b) end\n"
    "if old[1] and old[2] == ARGV[3] then\n"
    "  local a, b = parts(old[1])\n"
    "  local c, d = parts(ARGV[5])\n"
    "  if a and (a > c or (a == c and b > d)) then return {'BACKWARDS', old[1]} end\n"
    "end\n"
    "redis.call('HSET', snapshot, 'id', ARGV[4], 'entry', ARGV[5], 'nonce', ARGV[6], 'lineage', ARGV[3],\n"
    "  'genesis', m[2] or '0', 'chunks', ARGV[7])\n"
    "redis.call('HSET', meta, 'trimmed', string.format('%.0f', tonumber(covered[10]) + #covered[12]))\n"
    "redis.call('XTRIM', log, 'MINID', '=', ARGV[5])\n"
    "keep(7, old[3])\n"
    "return {'OK'}\n",
};

int livenps_script_flip(livenps_redis *redis, const livenps_keys *keys, livenps_holder *holder,
                        const livenps_entry_id *covers, const char *snapshot_id, const livenps_chunk *chunks,
                        size_t chunk_count, livenps_fence *fence, livenps_error *error) {
  char lease[24];
  arguments list = {0};
  livenps_buffer listing = {0};
  char(*sizes)[24] = livenps_alloc((chunk_count + 1) * sizeof *sizes);
  snprintf(lease, sizeof lease, "%" PRId64, holder->lease_ms);
  put_string(&list, keys->meta);
  put_string(&list, keys->log);
  put_string(&list, keys->lease);
  put_string(&list, keys->snapshot);
  put_string(&list, holder->token);
  put_string(&list, lease);
  put_string(&list, holder->lineage);
  put_string(&list, snapshot_id);
  put_string(&list, covers->id);
  put_string(&list, covers->nonce);
  put_chunks(&list, chunks, chunk_count, sizes, &listing);
  livenps_reply *reply =
      livenps_redis_eval(redis, &flip_script, error, 4, (int)list.count, list.at, list.lengths);
  int result = reply ? read_fence(reply, fence, "snapshot", error) : -1;
  if (result == 0 && *fence == LIVENPS_FENCE_OK) {
    holder->covered = *covers;
  }
  livenps_reply_free(reply);
  arguments_free(&list);
  livenps_buffer_free(&listing);
  free(sizes);
  return result;
}
