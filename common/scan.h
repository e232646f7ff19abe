#ifndef LIVENPS_SCAN_H
#define LIVENPS_SCAN_H

#include "error.h"
#include "event.h"

/* A validating JSON scanner: one pass over the bytes that checks everything RFC 8259 asks for and remembers where the
 * values are that somebody wants. It builds no tree, copies nothing but escaped strings and, once warm, allocates
 * nothing. Stricter than the RFC where that protects counts: no duplicate keys anywhere, no U+0000, no lone
 * surrogates, at most LIVENPS_MAX_DEPTH levels. Numbers stay literals, of any length. */

/* ---- what is wanted: JSON pointers (RFC 6901), compiled into a tree ---- */

enum { LIVENPS_MAX_NODES = 128, LIVENPS_MAX_POINTER = 512 };

typedef struct {
  char *key; /* unescaped reference token, owned */
  uint32_t length;
  int64_t index; /* the token as an array index, -1 if it is none */
  uint64_t tag;
  int parent;
  uint16_t first, count; /* its children: edges[first..first+count) */
} livenps_node;

/* {0} is empty. Every pointer has a node, and so has each of its parents; node 0 is the whole document. */
typedef struct {
  livenps_node nodes[LIVENPS_MAX_NODES];
  int count;
  uint64_t edge_tags[LIVENPS_MAX_NODES];
  uint8_t edges[LIVENPS_MAX_NODES];
} livenps_paths;

/* Adds a pointer ("/event_data/score"; "" is the document) and returns its node, the same one for the same pointer,
 * or -1 and an error: syntax, longer than LIVENPS_MAX_POINTER, deeper than LIVENPS_MAX_DEPTH, too many nodes. */
int livenps_paths_add(livenps_paths *paths, const char *pointer, livenps_error *error);
/* Must follow the last add and precede the first scan. */
void livenps_paths_compile(livenps_paths *paths);
void livenps_paths_free(livenps_paths *paths);

/* ---- what was found ---- */

typedef enum {
  LIVENPS_JSON_ABSENT,
  LIVENPS_JSON_NULL,
  LIVENPS_JSON_FALSE,
  LIVENPS_JSON_TRUE,
  LIVENPS_JSON_NUMBER,
  LIVENPS_JSON_STRING,
  LIVENPS_JSON_OBJECT,
  LIVENPS_JSON_ARRAY
} livenps_json_kind;

typedef struct {
  livenps_json_kind kind;
  livenps_text text; /* a string's characters, unescaped; a number's literal; empty for the others */
  size_t offset;     /* of its first byte in the document */
} livenps_found;

/* What one scan found, by node. */
typedef struct {
  uint64_t reached[LIVENPS_MAX_NODES / 64];
  livenps_found found[LIVENPS_MAX_NODES]; /* meaningful where reached */
} livenps_finds;

/* The value at a node; kind ABSENT when the document has none, or when node is -1. Never NULL. */
static inline const livenps_found *livenps_find(const livenps_finds *finds, int node) {
  static const livenps_found absent = {.kind = LIVENPS_JSON_ABSENT};
  bool reached = node >= 0 && (finds->reached[(unsigned)node >> 6] >> (node & 63) & 1);
  return reached ? &finds->found[node] : &absent;
}

/* One per thread, reused. What it finds is valid until its next scan. */
typedef struct livenps_scanner livenps_scanner;
livenps_scanner *livenps_scanner_new(void);
void livenps_scanner_free(livenps_scanner *scanner);

/* Returns LIVENPS_REASON_NONE, or MALFORMED, INVALID_UTF8, TOO_DEEP or DUPLICATE_KEY for the first fault in the order
 * of the bytes; *offset and *detail (a static sentence) then say where and what. paths is borrowed until the next scan. */
livenps_reason livenps_scan(livenps_scanner *scanner, const livenps_paths *paths, const char *bytes,
                            size_t length, size_t *offset, const char **detail);
/* What the last scan found, if it returned LIVENPS_REASON_NONE. The same address for the life of the scanner. */
const livenps_finds *livenps_scan_finds(const livenps_scanner *scanner);

/* Room for length bytes that lasts until the next scan, beside what the scan itself unescaped. At most
 * LIVENPS_SCAN_ROOM bytes per scan may be asked for (asserted). */
enum { LIVENPS_SCAN_ROOM = 4096 };
char *livenps_scan_room(livenps_scanner *scanner, size_t length);

/* True when the bytes are valid UTF-8 without U+0000 (header values; strings in documents are checked by the scan). */
bool livenps_utf8_valid(const char *bytes, size_t length);
/* Length (1-4) of the valid UTF-8 sequence at `at`, and its code point; 0 when there is none before end. */
size_t livenps_utf8_next(const char *at, const char *end, uint32_t *code);

#endif
