#include "scan_parts.h"

#include <assert.h>
#include <stdlib.h>

/* How keys are told apart
 *
 * A key's tag is its first eight bytes and its length mixed into one word; equal keys have equal tags, so a document's
 * keys are compared with the wanted ones, and with each other, word by word. Wanted keys need no list: each wanted
 * node is reached at most once (anything else is a duplicate key), so a bit per node is enough. The other keys of an
 * open object stand on a stack. From the 17th such key of one object on they are looked up in a hash table, keyed by
 * a secret of the process, which serves all objects of a document: an entry belongs to the object whose serial number
 * it carries. Serial numbers never come back, so a table full of an earlier document's entries counts as empty. */

enum { FEW_KEYS = 16 };

typedef struct {
  uint64_t tag;
  const char *at;
  size_t length;
} seen_key;

typedef struct {
  uint64_t object; /* serial number */
  uint32_t key;    /* index into keys */
  uint32_t hash;
} key_entry;

struct livenps_scanner {
  const char *start, *end;
  const livenps_paths *paths;
  livenps_reason reason;
  const char *fault;
  const char *detail;

  livenps_finds finds;
  uint8_t first[LIVENPS_MAX_NODES]; /* hints: which edge of this node came first last time, */
  uint8_t after[LIVENPS_MAX_NODES]; /* and which edge of its parent came after it */

  seen_key *keys;
  size_t key_count, key_capacity;

  key_entry *table;
  size_t table_capacity, table_count; /* a power of two, and entries of this document */
  uint64_t serial, first_serial;      /* last one given; first one of this document */

  char *room; /* unescaped strings; grown only while empty, so pointers into it hold until the next scan */
  size_t room_length, room_capacity;
};

livenps_scanner *livenps_scanner_new(void) {
  return livenps_alloc(sizeof(livenps_scanner));
}

void livenps_scanner_free(livenps_scanner *scanner) {
  if (!scanner) {
    return;
  }
  free(scanner->keys);
  free(scanner->table);
  free(scanner->room);
  free(scanner);
}

void livenps_scan_begin(livenps_scanner *scanner, const char *bytes, size_t length) {
  scanner->start = bytes;
  scanner->end = bytes + length;
  scanner->reason = LIVENPS_REASON_NONE;
  scanner->room_length = 0;
}

/* ---- wanted paths ---- */

static inline uint64_t tag_of(const char *at, size_t length, const char *end) {
  uint64_t word = 0;
  if (end - at >= 8) {
    memcpy(&word, at, 8);
    if (length < 8) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
      word &= ((uint64_t)1 << (8 * length)) - 1;
#else
      word &= ~(UINT64_MAX >> (8 * length));
#endif
    }
  } else {
    memcpy(&word, at, length < 8 ? length : 8);
  }
  return word ^ (uint64_t)length * UINT64_C(0x9E3779B97F4A7C15);
}

static inline bool same_bytes(const char *a, const char *b, size_t length) {
  return length == 0 || memcmp(a, b, length) == 0;
}

/* Whether two keys of the same tag and the same length are equal: then their first eight bytes are. */
static inline bool same_rest(const char *a, const char *b, size_t length) {
  return length <= 8 || memcmp(a + 8, b + 8, length - 8) == 0;
}

static int64_t array_index(const char *token, size_t length) {
  if (length == 0 || length > 9 || (token[0] == '0' && length > 1)) {
    return -1;
  }
  int64_t index = 0;
  for (size_t i = 0; i < length; i++) {
    if (token[i] < '0' || token[i] > '9') {
      return -1;
    }
    index = index * 10 + (token[i] - '0');
  }
  return index;
}

static int find_child(const livenps_paths *paths, int parent, const char *key, size_t length) {
  for (int i = 1; i < paths->count; i++) {
    const livenps_node *node = &paths->nodes[i];
    if (node->parent == parent && node->length == length && same_bytes(node->key, key, length)) {
      return i;
    }
  }
  return -1;
}

int livenps_paths_add(livenps_paths *paths, const char *pointer, livenps_error *error) {
  size_t pointer_length = strlen(pointer);
  if (pointer_length > LIVENPS_MAX_POINTER) {
    return livenps_fail(error, LIVENPS_E_USAGE, "a JSON pointer is longer than %d bytes",
                        LIVENPS_MAX_POINTER);
  }
  if (pointer_length > 0 && pointer[0] != '/') {
    return livenps_fail(error, LIVENPS_E_USAGE, "\"%s\" is no JSON pointer: it must begin with /", pointer);
  }
  if (paths->count == 0) {
    paths->nodes[0].parent = -1;
    paths->nodes[0].index = -1;
    paths->count = 1;
  }
  int node = 0;
  int depth = 0;
  for (const char *p = pointer; *p;) {
    p++; /* the slash */
    char token[LIVENPS_MAX_POINTER + 1];
    size_t length = 0;
    for (; *p && *p != '/'; p++) {
      char c = *p;
      if (c == '~') {
        p++;
        if (*p != '0' && *p != '1') {
          return livenps_fail(error, LIVENPS_E_USAGE,
                              "\"%s\" is no JSON pointer: ~ must be followed by 0 or 1", pointer);
        }
        c = *p == '0' ? '~' : '/';
      }
      token[length++] = c;
    }
    if (++depth > LIVENPS_MAX_DEPTH) {
      return livenps_fail(error, LIVENPS_E_USAGE, "\"%s\" goes deeper than %d levels", pointer,
                          LIVENPS_MAX_DEPTH);
    }
    int child = find_child(paths, node, token, length);
    if (child < 0) {
      if (paths->count == LIVENPS_MAX_NODES) {
        return livenps_fail(error, LIVENPS_E_USAGE, "more than %d places in a document are named",
                            LIVENPS_MAX_NODES);
      }
      child = paths->count++;
      paths->nodes[child] = (livenps_node){
          .key = livenps_copy(token, length),
          .length = (uint32_t)length,
          .index = array_index(token, length),
          .tag = tag_of(token, length, token + length),
          .parent = node,
      };
    }
    node = child;
  }
  return node;
}

void livenps_paths_compile(livenps_paths *paths) {
  uint16_t edge = 0;
  for (int parent = 0; parent < paths->count; parent++) {
    paths->nodes[parent].first = edge;
    for (int i = 1; i < paths->count; i++) {
      if (paths->nodes[i].parent == parent) {
        paths->edges[edge] = (uint8_t)i;
        paths->edge_tags[edge] = paths->nodes[i].tag;
        edge++;
      }
    }
    paths->nodes[parent].count = (uint16_t)(edge - paths->nodes[parent].first);
  }
}

void livenps_paths_free(livenps_paths *paths) {
  for (int i = 0; i < paths->count; i++) {
    free(paths->nodes[i].key);
  }
  memset(paths, 0, sizeof *paths);
}

/* ---- room ---- */

/* Called before the first use in a scan: nothing points into the old room then. All strings of a document, unescaped,
 * are shorter than the document. */
static void room_ready(livenps_scanner *s) {
  size_t need = (size_t)(s->end - s->start) + LIVENPS_SCAN_ROOM;
  if (s->room_length == 0 && s->room_capacity < need) {
    free(s->room);
    s->room = livenps_alloc(need);
    s->room_capacity = need;
  }
}

char *livenps_scan_room(livenps_scanner *scanner, size_t length) {
  room_ready(scanner);
  assert(length <= scanner->room_capacity - scanner->room_length);
  char *at = scanner->room + scanner->room_length;
  scanner->room_length += length;
  return at;
}

/* ---- strings ---- */

static const char *fail(livenps_scanner *s, livenps_reason reason, const char *at, const char *detail) {
  s->reason = reason;
  s->fault = at;
  s->detail = detail;
  return NULL;
}

size_t livenps_utf8_next(const char *at, const char *end, uint32_t *code) {
  if (at == end) {
    return 0;
  }
  const unsigned char *p = (const unsigned char *)at;
  size_t left = (size_t)(end - at);
  uint32_t c = p[0];
  if (c < 0x80) {
    *code = c;
    return 1;
  }
  size_t length = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : 2;
  if (c < 0xC2 || c > 0xF4 || left < length) {
    return 0;
  }
  c &= 0x7Fu >> length;
  for (size_t i = 1; i < length; i++) {
    if ((p[i] & 0xC0) != 0x80) {
      return 0;
    }
    c = c << 6 | (p[i] & 0x3F);
  }
  if ((length == 3 && (c < 0x800 || (c >= 0xD800 && c <= 0xDFFF))) ||
      (length == 4 && (c < 0x10000 || c > 0x10FFFF))) {
    return 0;
  }
  *code = c;
  return length;
}

/* Whether the bytes are ASCII without NUL, as nearly all are. */
static bool plain_ascii(const char *bytes, size_t length) {
  uint64_t word,
      odd = 0; /* high bits: of a byte that is not ASCII, of a NUL and perhaps of what is behind it */
  if (length >= sizeof word) {
    for (size_t i = 0; i + sizeof word < length; i += sizeof word) {
      memcpy(&word, bytes + i, sizeof word);
      odd |= (word - LIVENPS_EVERY(1)) | word;
    }
    memcpy(&word, bytes + length - sizeof word, sizeof word);
    odd |= (word - LIVENPS_EVERY(1)) | word;
  } else {
    for (size_t i = 0; i < length; i++) {
      const unsigned char c = (unsigned char)bytes[i];
      odd |= c - UINT64_C(1) > 0x7E ? 0x80 : 0;
    }
  }
  return (odd & LIVENPS_EVERY(0x80)) == 0;
}

bool livenps_utf8_valid(const char *bytes, size_t length) {
  if (plain_ascii(bytes, length)) {
    return true;
  }
  const char *end = bytes + length;
  for (const char *p = bytes; p < end;) {
    uint32_t code;
    size_t step = livenps_utf8_next(p, end, &code);
    if (step == 0 || code == 0) {
      return false;
    }
    p += step;
  }
  return true;
}

/* Four hexadecimal digits, or -1. */
static int32_t hex4(const char *at, const char *end) {
  if (end - at < 4) {
    return -1;
  }
  int32_t value = 0;
  for (int i = 0; i < 4; i++) {
    char c = at[i];
    int digit = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
    if (digit < 0) {
      return -1;
    }
    value = value << 4 | digit;
  }
  return value;
}

/* p is at the backslash; returns behind the escape. */
static const char *scan_escape(livenps_scanner *s, const char *p) {
  const char *start = p;
  if (s->end - p < 2) {
    return fail(s, LIVENPS_REASON_MALFORMED, s->end, "ends inside a string");
  }
  p++;
  switch (*p) {
  case '"':
  case '\\':
  case '/':
  case 'b':
  case 'f':
  case 'n':
  case 'r':
  case 't': return p + 1;
  case 'u': break;
  default: return fail(s, LIVENPS_REASON_MALFORMED, start, "unknown escape in a string");
  }
  int32_t unit = hex4(p + 1, s->end);
  if (unit < 0) {
    return fail(s, LIVENPS_REASON_MALFORMED, start, "\\u without four hexadecimal digits");
  }
  p += 5;
  if (unit == 0) {
    return fail(s, LIVENPS_REASON_INVALID_UTF8, start, "U+0000 in a string");
  }
  if (unit < 0xD800 || unit > 0xDFFF) {
    return p;
  }
  if (unit > 0xDBFF || s->end - p < 2 || p[0] != '\\' || p[1] != 'u') {
    return fail(s, LIVENPS_REASON_INVALID_UTF8, start, "lone surrogate in a string");
  }
  int32_t low = hex4(p + 2, s->end);
  if (low < 0) {
    return fail(s, LIVENPS_REASON_MALFORMED, p, "\\u without four hexadecimal digits");
  }
  if (low < 0xDC00 || low > 0xDFFF) {
    return fail(s, LIVENPS_REASON_INVALID_UTF8, start, "lone surrogate in a string");
  }
  return p + 6;
}

/* p is behind the opening quote; returns at the closing one. */
static inline const char *scan_string(livenps_scanner *s, const char *p, bool *escaped) {
  *escaped = false;
  const char *end = s->end;
  for (;;) {
    p = livenps_skip_plain(s->start, p, end);
    if (p == end) {
      return fail(s, LIVENPS_REASON_MALFORMED, p, "ends inside a string");
    }
    unsigned char c = (unsigned char)*p;
    if (c == '"') {
      return p;
    }
    if (c == '\\') {
      *escaped = true;
      p = scan_escape(s, p);
      if (!p) {
        return NULL;
      }
    } else if (c < 0x20) {
      return fail(s, LIVENPS_REASON_MALFORMED, p, "control character in a string");
    } else if (c < 0x80) {
      p++;
    } else {
      uint32_t code;
      size_t step = livenps_utf8_next(p, end, &code);
      if (step == 0) {
        return fail(s, LIVENPS_REASON_INVALID_UTF8, p, "invalid UTF-8 in a string");
      }
      p += step;
    }
  }
}

const char *livenps_scan_string(livenps_scanner *scanner, const char *at, bool *escaped) {
  return scan_string(scanner, at, escaped);
}

static char *put_utf8(char *out, uint32_t code) {
  if (code < 0x80) {
    *out++ = (char)code;
  } else if (code < 0x800) {
    *out++ = (char)(0xC0 | code >> 6);
    *out++ = (char)(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    *out++ = (char)(0xE0 | code >> 12);
    *out++ = (char)(0x80 | (code >> 6 & 0x3F));
    *out++ = (char)(0x80 | (code & 0x3F));
  } else {
    *out++ = (char)(0xF0 | code >> 18);
    *out++ = (char)(0x80 | (code >> 12 & 0x3F));
    *out++ = (char)(0x80 | (code >> 6 & 0x3F));
    *out++ = (char)(0x80 | (code & 0x3F));
  }
  return out;
}

/* The characters of a string that scan_string accepted. */
static livenps_text unescape(livenps_scanner *s, const char *at, size_t length) {
  room_ready(s);
  char *start = s->room + s->room_length;
  char *out = start;
  const char *end = at + length;
  while (at < end) {
    if (*at != '\\') {
      *out++ = *at++;
      continue;
    }
    char c = at[1];
    at += 2;
    switch (c) {
    case 'b': *out++ = '\b'; break;
    case 'f': *out++ = '\f'; break;
    case 'n': *out++ = '\n'; break;
    case 'r': *out++ = '\r'; break;
    case 't': *out++ = '\t'; break;
    case 'u': {
      uint32_t code = (uint32_t)hex4(at, end);
      at += 4;
      if (code >= 0xD800 && code <= 0xDBFF) {
        code = 0x10000 + ((code - 0xD800) << 10) + ((uint32_t)hex4(at + 2, end) - 0xDC00);
        at += 6;
      }
      out = put_utf8(out, code);
      break;
    }
    default: *out++ = c; /* quote, backslash, slash */
    }
  }
  s->room_length += (size_t)(out - start);
  return (livenps_text){start, (size_t)(out - start)};
}

livenps_text livenps_scan_unescape(livenps_scanner *scanner, const char *at, size_t length) {
  return unescape(scanner, at, length);
}

/* ---- duplicate keys ---- */

static void table_insert(key_entry *table, size_t capacity, uint64_t first_serial, key_entry entry) {
  size_t slot = entry.hash & (capacity - 1);
  while (table[slot].object >= first_serial) {
    slot = (slot + 1) & (capacity - 1);
  }
  table[slot] = entry;
}

static void table_grow(livenps_scanner *s) {
  size_t capacity = s->table_capacity ? s->table_capacity * 2 : 256;
  key_entry *table = livenps_alloc(capacity * sizeof *table);
  for (size_t i = 0; i < s->table_capacity; i++) {
    if (s->table[i].object >= s->first_serial) {
      table_insert(table, capacity, s->first_serial, s->table[i]);
    }
  }
  free(s->table);
  s->table = table;
  s->table_capacity = capacity;
}

/* Enters keys[index] for an object. True when the object has that key already. */
static bool table_has(livenps_scanner *s, uint64_t object, size_t index) {
  if ((s->table_count + 1) * 2 > s->table_capacity) {
    table_grow(s);
  }
  const seen_key *key = &s->keys[index];
  uint32_t hash = (uint32_t)livenps_hash_more(object, key->at, key->length);
  size_t slot = hash & (s->table_capacity - 1);
  for (; s->table[slot].object >= s->first_serial; slot = (slot + 1) & (s->table_capacity - 1)) {
    const key_entry *entry = &s->table[slot];
    if (entry->object == object && entry->hash == hash) {
      const seen_key *other = &s->keys[entry->key];
      if (other->length == key->length && same_bytes(other->at, key->at, key->length)) {
        return true;
      }
    }
  }
  s->table[slot] = (key_entry){object, (uint32_t)index, hash};
  s->table_count++;
  return false;
}

/* Remembers a key of the object whose keys begin at keys[base]. True when the object has that key already.
 * *object is 0 until the object has more than FEW_KEYS of them. */
static inline bool key_again(livenps_scanner *s, size_t base, uint64_t *object, uint64_t tag,
                             livenps_text key) {
  if (s->key_count == s->key_capacity) {
    s->key_capacity = s->key_capacity ? s->key_capacity * 2 : 64;
    s->keys = livenps_resize(s->keys, s->key_capacity * sizeof *s->keys);
  }
  size_t index = s->key_count++;
  s->keys[index] = (seen_key){tag, key.at, key.length};
  if (index - base < FEW_KEYS) {
    for (size_t i = base; i < index; i++) {
      const seen_key *other = &s->keys[i];
      if (other->tag == tag && other->length == key.length && same_rest(other->at, key.at, key.length)) {
        return true;
      }
    }
    return false;
  }
  if (*object == 0) {
    *object = ++s->serial;
    for (size_t i = base; i < index; i++) {
      table_has(s, *object, i);
    }
  }
  return table_has(s, *object, index);
}

/* ---- values ---- */

static inline const char *skip_space(const char *p, const char *end) {
  if (p<end && * p> ' ') {
    return p; /* by far the most frequent case */
  }
  while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) {
    p++;
  }
  return p;
}

static const char *scan_number(livenps_scanner *s, const char *p) {
  const char *end = s->end;
  if (*p == '-') {
    p++;
  }
  if (p < end && *p == '0') {
    p++;
  } else {
    const char *digits = p;
    while (p < end && *p >= '0' && *p <= '9') {
      p++;
    }
    if (p == digits) {
      return fail(s, LIVENPS_REASON_MALFORMED, p, "a number without digits");
    }
  }
  if (p < end && *p == '.') {
    const char *digits = ++p;
    while (p < end && *p >= '0' && *p <= '9') {
      p++;
    }
    if (p == digits) {
      return fail(s, LIVENPS_REASON_MALFORMED, p, "a number without digits after the point");
    }
  }
  if (p < end && (*p == 'e' || *p == 'E')) {
    p++;
    if (p < end && (*p == '+' || *p == '-')) {
      p++;
    }
    const char *digits = p;
    while (p < end && *p >= '0' && *p <= '9') {
      p++;
    }
    if (p == digits) {
      return fail(s, LIVENPS_REASON_MALFORMED, p, "a number without digits in the exponent");
    }
  }
  return p;
}

const char *livenps_scan_number(livenps_scanner *scanner, const char *at) {
  return scan_number(scanner, at);
}

static const char *scan_word(livenps_scanner *s, const char *p, const char *word, size_t length) {
  if ((size_t)(s->end - p) < length || memcmp(p, word, length) != 0) {
    return fail(s, LIVENPS_REASON_MALFORMED, p, "not a JSON value");
  }
  return p + length;
}

/* The child of a node by that key. Publishers write their fields in one order, so what came after the key before it
 * in an earlier document is tried first: *hint says which, and is moved. */
static inline int wanted_key(livenps_scanner *s, const livenps_node *node, uint8_t **hint, uint64_t tag,
                             livenps_text key) {
  const livenps_paths *paths = s->paths;
  unsigned count = node->count;
  unsigned i = **hint;
  for (unsigned tried = 0; tried < count; tried++, i++) {
    if (i >= count) {
      i = 0;
    }
    if (paths->edge_tags[node->first + i] == tag) {
      int child = paths->edges[node->first + i];
      const livenps_node *wanted = &paths->nodes[child];
      if (wanted->length == key.length && same_rest(wanted->key, key.at, key.length)) {
        **hint = (uint8_t)i;
        *hint = &s->after[child];
        return child;
      }
    }
  }
  return -1;
}

static int wanted_index(const livenps_paths *paths, int node, int64_t index) {
  for (unsigned i = 0; i < paths->nodes[node].count; i++) {
    int child = paths->edges[paths->nodes[node].first + i];
    if (paths->nodes[child].index == index) {
      return child;
    }
  }
  return -1;
}

static const char *scan_object(livenps_scanner *s, const char *p, int node, int depth);
static const char *scan_array(livenps_scanner *s, const char *p, int node, int depth);

/* Inlined into the loops over members and elements: most values are strings and numbers, and a call each would cost
 * as much as reading them. Containers recurse, at most LIVENPS_MAX_DEPTH deep. */
static inline __attribute__((always_inline)) const char *scan_value(livenps_scanner *s, const char *p,
                                                                    int node, int depth) {
  const char *start = p;
  if (p == s->end) {
    return fail(s, LIVENPS_REASON_MALFORMED, p, "ends where a value is expected");
  }
  livenps_found found = {.kind = LIVENPS_JSON_ABSENT, .text = {p, 0}, .offset = (size_t)(p - s->start)};
  switch (*p) {
  case '"': {
    bool escaped;
    p = scan_string(s, p + 1, &escaped);
    if (!p) {
      return NULL;
    }
    found.kind = LIVENPS_JSON_STRING;
    if (node >= 0) {
      found.text = (livenps_text){start + 1, (size_t)(p - start - 1)};
      if (escaped) {
        found.text = unescape(s, found.text.at, found.text.length);
      }
    }
    p++;
    break;
  }
  case '{':
  case '[':
    if (depth == LIVENPS_MAX_DEPTH) {
      return fail(s, LIVENPS_REASON_TOO_DEEP, p, "nested more than 32 levels");
    }
    found.kind = *p == '{' ? LIVENPS_JSON_OBJECT : LIVENPS_JSON_ARRAY;
    p = *p == '{' ? scan_object(s, p + 1, node, depth + 1) : scan_array(s, p + 1, node, depth + 1);
    break;
  case 't':
    found.kind = LIVENPS_JSON_TRUE;
    p = scan_word(s, p, "true", 4);
    break;
  case 'f':
    found.kind = LIVENPS_JSON_FALSE;
    p = scan_word(s, p, "false", 5);
    break;
  case 'n':
    found.kind = LIVENPS_JSON_NULL;
    p = scan_word(s, p, "null", 4);
    break;
  case '-':
  case '0':
  case '1':
  case '2':
  case '3':
  case '4':
  case '5':
  case '6':
  case '7':
  case '8':
  case '9':
    found.kind = LIVENPS_JSON_NUMBER;
    p = scan_number(s, p);
    if (p) {
      found.text.length = (size_t)(p - start);
    }
    break;
  default: return fail(s, LIVENPS_REASON_MALFORMED, p, "not a JSON value");
  }
  if (node >= 0) {
    s->finds.found[node] = found;
  }
  return p;
}

/* p is behind the brace. node is -1 where nobody wants anything. */
static const char *scan_object(livenps_scanner *s, const char *p, int node, int depth) {
  const char *end = s->end;
  size_t base = s->key_count;
  uint64_t object = 0;
  uint8_t *hint = node < 0 ? NULL : &s->first[node];
  p = skip_space(p, end);
  if (p < end && *p == '}') {
    return p + 1;
  }
  for (;;) {
    if (p == end || *p != '"') {
      return fail(s, LIVENPS_REASON_MALFORMED, p,
                  p == end ? "ends inside an object" : "an object's key must be a string");
    }
    const char *quote = p;
    bool escaped;
    p = scan_string(s, quote + 1, &escaped);
    if (!p) {
      return NULL;
    }
    livenps_text key = {quote + 1, (size_t)(p - quote - 1)};
    const char *readable = end; /* as far as the key's memory may be read for its tag */
    if (escaped) {
      key = unescape(s, key.at, key.length);
      readable = key.at + key.length;
    }
    uint64_t tag = tag_of(key.at, key.length, readable);
    int child = node < 0 ? -1 : wanted_key(s, &s->paths->nodes[node], &hint, tag, key);
    if (child >= 0) {
      uint64_t bit = UINT64_C(1) << (child & 63);
      if (s->finds.reached[child >> 6] & bit) {
        return fail(s, LIVENPS_REASON_DUPLICATE_KEY, quote, "an object names this key twice");
      }
      s->finds.reached[child >> 6] |= bit;
    } else if (key_again(s, base, &object, tag, key)) {
      return fail(s, LIVENPS_REASON_DUPLICATE_KEY, quote, "an object names this key twice");
    }
    p = skip_space(p + 1, end);
    if (p == end || *p != ':') {
      return fail(s, LIVENPS_REASON_MALFORMED, p, "a colon must follow a key");
    }
    p = scan_value(s, skip_space(p + 1, end), child, depth);
    if (!p) {
      return NULL;
    }
    p = skip_space(p, end);
    if (p < end && *p == ',') {
      p = skip_space(p + 1, end);
      continue;
    }
    if (p < end && *p == '}') {
      s->key_count = base;
      return p + 1;
    }
    return fail(s, LIVENPS_REASON_MALFORMED, p,
                p == end ? "ends inside an object" : "expected , or } in an object");
  }
}

static const char *scan_array(livenps_scanner *s, const char *p, int node, int depth) {
  const char *end = s->end;
  p = skip_space(p, end);
  if (p < end && *p == ']') {
    return p + 1;
  }
  for (int64_t index = 0;; index++) {
    int child = node < 0 ? -1 : wanted_index(s->paths, node, index);
    if (child >= 0) {
      s->finds.reached[child >> 6] |= UINT64_C(1) << (child & 63);
    }
    p = scan_value(s, p, child, depth);
    if (!p) {
      return NULL;
    }
    p = skip_space(p, end);
    if (p < end && *p == ',') {
      p = skip_space(p + 1, end);
      continue;
    }
    if (p < end && *p == ']') {
      return p + 1;
    }
    return fail(s, LIVENPS_REASON_MALFORMED, p,
                p == end ? "ends inside an array" : "expected , or ] in an array");
  }
}

livenps_reason livenps_scan(livenps_scanner *scanner, const livenps_paths *paths, const char *bytes,
                            size_t length, size_t *offset, const char **detail) {
  livenps_scanner *s = scanner;
  livenps_scan_begin(s, bytes, length);
  s->paths = paths;
  s->key_count = 0;
  s->table_count = 0;
  s->first_serial = s->serial + 1;
  memset(s->finds.reached, 0, sizeof s->finds.reached);
  int root = paths->count > 0 ? 0 : -1;
  if (root == 0) {
    s->finds.reached[0] = 1;
  }
  const char *p = skip_space(bytes, s->end);
  if (length >= 3 && memcmp(bytes, "\xEF\xBB\xBF", 3) == 0) {
    p = fail(s, LIVENPS_REASON_MALFORMED, bytes, "begins with a byte order mark");
  } else {
    p = scan_value(s, p, root, 0);
  }
  if (p) {
    p = skip_space(p, s->end);
    if (p < s->end) {
      fail(s, LIVENPS_REASON_MALFORMED, p, "more bytes behind the value");
    }
  }
  if (s->reason != LIVENPS_REASON_NONE) {
    *offset = (size_t)(s->fault - bytes);
    *detail = s->detail;
  }
  return s->reason;
}

const livenps_finds *livenps_scan_finds(const livenps_scanner *scanner) {
  return &scanner->finds;
}
