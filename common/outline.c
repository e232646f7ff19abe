#include "outline.h"

#include "scan_parts.h"

#include <stdlib.h>

typedef enum {
  STRING, /* the literal ends with the opening quote */
  END,    /* of the document */
  NUMBER,
  SCALAR /* string, number, true, false or null: nobody wants it */
} step_kind;

/* A literal and the value behind it. */
typedef struct {
  uint32_t literal; /* in literals */
  uint16_t length;
  uint8_t kind, text;
  uint16_t next;    /* the first step behind the value, 0 for none; at the END the outline's number */
  uint16_t sibling; /* the step to try if this one does not fit, 0 for none */
} step;

enum {
  STEPS = 1024,
  LITERALS = 32768,
  SIBLINGS = 16, /* steps in one place; each costs every document that it does not fit */
  WIDE = 16      /* bytes compared together: literals are readable that far */
};

struct livenps_outlines {
  uint16_t root, step_count, count;
  bool full;
  uint32_t used;
  step steps[STEPS]; /* the first one is not used: 0 is none */
  char literals[LITERALS + WIDE];
};

livenps_outlines *livenps_outlines_new(void) {
  livenps_outlines *outlines = livenps_alloc(sizeof *outlines);
  outlines->step_count = 1;
  return outlines;
}

void livenps_outlines_free(livenps_outlines *outlines) {
  free(outlines);
}

bool livenps_outlines_full(const livenps_outlines *outlines) {
  return outlines->full;
}

void livenps_outlines_forget(livenps_outlines *outlines) {
  outlines->root = outlines->count = 0;
  outlines->step_count = 1;
  outlines->used = 0;
  outlines->full = false;
}

/* ---- matching ---- */

static inline bool same_few(const char *a, const char *b, size_t length) {
  uint64_t word_a, word_b;
  if (length >= 8) {
    memcpy(&word_a, a, 8);
    memcpy(&word_b, b, 8);
    if (word_a != word_b) {
      return false;
    }
    memcpy(&word_a, a + length - 8, 8);
    memcpy(&word_b, b + length - 8, 8);
    return word_a == word_b;
  }
  for (size_t i = 0; i < length; i++) {
    if (a[i] != b[i]) {
      return false;
    }
  }
  return true;
}

/* Whether the document goes on at p with that literal. */
static inline bool follows(const char *p, const char *end, const char *literal, size_t length) {
  const size_t left = (size_t)(end - p);
  if (left < length) {
    return false;
  }
#ifdef __SSE2__
  if (left >= WIDE) {
    for (;;) {
      const __m128i same = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(const void *)p),
                                          _mm_loadu_si128((const __m128i *)(const void *)literal));
      const unsigned differ = (unsigned)_mm_movemask_epi8(same) ^ 0xFFFF;
      if (length <= WIDE) {
        return (differ & ((UINT32_C(1) << length) - 1)) == 0;
      }
      if (differ) {
        return false;
      }
      /* The last stretch overlaps the one before, so that nothing behind the document is read. */
      const size_t by = length < 2 * WIDE ? length - WIDE : WIDE;
      p += by;
      literal += by;
      length -= by;
    }
  }
#endif
  return length <= WIDE ? same_few(p, literal, length) : memcmp(p, literal, length) == 0;
}

/* Whether a value of that kind can begin at p. */
static inline bool begins(step_kind kind, const char *p, const char *end) {
  if (kind == END) {
    return p == end;
  }
  if (p == end) {
    return false;
  }
  const bool number = *p == '-' || (*p >= '0' && *p <= '9');
  return number || (kind == SCALAR && (*p == '"' || *p == 't' || *p == 'f' || *p == 'n'));
}

/* Behind a string's closing quote; what it says only where it is wanted. NULL: invalid. */
static inline const char *read_string(livenps_scanner *scanner, const char *bytes, const char *p,
                                      const char *end, bool wanted, livenps_text *out) {
  const char *from = p;
  p = livenps_skip_plain(bytes, p, end);
  bool escaped = false;
  if (__builtin_expect(p == end || *p != '"', 0)) {
    p = livenps_scan_string(scanner, p, &escaped);
    if (!p) {
      return NULL;
    }
  }
  *out = (livenps_text){from, (size_t)(p - from)};
  if (escaped && wanted) {
    *out = livenps_scan_unescape(scanner, out->at, out->length);
  }
  return p;
}

static const char *read_word(const char *p, const char *end) {
  static const char *const words[] = {"true", "false", "null"};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    const size_t length = strlen(words[i]);
    if ((size_t)(end - p) >= length && memcmp(p, words[i], length) == 0) {
      return p + length;
    }
  }
  return NULL;
}

int livenps_outlines_match(const livenps_outlines *outlines, livenps_scanner *scanner, const char *bytes,
                           size_t length, livenps_text texts[LIVENPS_OUTLINE_TEXTS]) {
  const char *p = bytes;
  const char *end = bytes + length;
  livenps_scan_begin(scanner, bytes, length);
  for (unsigned at = outlines->root;;) {
    const step *this = &outlines->steps[at];
    for (;; this = &outlines->steps[this->sibling]) {
      if (this == outlines->steps) {
        return -1;
      }
      if (follows(p, end, &outlines->literals[this->literal], this->length) &&
          (this->kind == STRING || begins(this->kind, p + this->length, end))) {
        break;
      }
    }
    p += this->length;
    at = this->next;
    livenps_text *text = &texts[this->text];
    const bool wanted = this->text != LIVENPS_OUTLINE_TEXTS - 1;
    if (this->kind == STRING || (this->kind == SCALAR && *p == '"')) {
      p = read_string(scanner, bytes, p + (this->kind == SCALAR), end, wanted, text);
      if (!p) {
        return -1;
      }
      p += this->kind == SCALAR;
      continue;
    }
    if (this->kind == END) {
      return (int)at;
    }
    const char *from = p;
    p = this->kind == SCALAR && *p >= 'a' ? read_word(p, end) : livenps_scan_number(scanner, p);
    if (!p) {
      return -1;
    }
    *text = (livenps_text){from, (size_t)(p - from)};
  }
}

/* ---- learning ---- */

/* The step with that literal and that kind among those that begin at *link, made if there is none; *made is then where the first new one
 * is linked. NULL: no room. */
static step *step_at(livenps_outlines *outlines, uint16_t *link, const char *literal, size_t length,
                     step_kind kind, int text, uint16_t **made) {
  int siblings = 0;
  for (; *link; link = &outlines->steps[*link].sibling, siblings++) {
    step *this = &outlines->steps[*link];
    if (this->kind == kind && this->text == text && this->length == length &&
        memcmp(&outlines->literals[this->literal], literal, length) == 0) {
      return this;
    }
  }
  if (siblings == SIBLINGS || outlines->step_count == STEPS || length > LITERALS - outlines->used) {
    return NULL;
  }
  *made = *made ? *made : link;
  *link = outlines->step_count++;
  step *new = &outlines->steps[*link];
  *new = (step){
      .literal = outlines->used, .length = (uint16_t)length, .kind = (uint8_t)kind, .text = (uint8_t)text};
  memcpy(&outlines->literals[outlines->used], literal, length);
  outlines->used += (uint32_t)length;
  return new;
}

/* Behind the closing quote of a string in a valid document; p is behind the opening one. */
static const char *string_end(const char *p) {
  for (; *p != '"'; p++) {
    p += *p == '\\';
  }
  return p + 1;
}

static bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Walks the scalars of a valid document: where the next one begins at or behind p, and where it ends. False: none. */
static bool next_scalar(const char *p, const char *end, const char **from, const char **to) {
  while (p < end) {
    if (*p == '"') {
      const char *close = string_end(p + 1);
      const char *behind = close;
      while (behind < end && is_space(*behind)) {
        behind++;
      }
      if (behind == end || *behind != ':') { /* else a key */
        *from = p;
        *to = close;
        return true;
      }
      p = behind + 1;
    } else if (*p == '{' || *p == '}' || *p == '[' || *p == ']' || *p == ',' || is_space(*p)) {
      p++;
    } else {
      *from = p;
      while (p < end && *p != ',' && *p != '}' && *p != ']' && !is_space(*p)) {
        p++;
      }
      *to = p;
      return true;
    }
  }
  return false;
}

int livenps_outlines_learn(livenps_outlines *outlines, const char *bytes, size_t length,
                           const livenps_wanted *wanted, size_t count) {
  const char *end = bytes + length;
  const uint32_t used = outlines->used;
  const uint16_t step_count = outlines->step_count;
  uint16_t *link = &outlines->root;
  uint16_t *made = NULL;
  const char *literal = bytes;
  const char *from, *to;
  step *this;
  for (const char *p = bytes; next_scalar(p, end, &from, &to); p = to) {
    const livenps_wanted *who = NULL;
    for (size_t i = 0; i < count; i++) {
      if (wanted[i].offset == (size_t)(from - bytes)) {
        who = &wanted[i];
      }
    }
    if (who && (who->text < 0 || *from >= 'a')) {
      continue;
    }
    const step_kind kind = !who ? SCALAR : *from == '"' ? STRING : NUMBER;
    const char *value = from + (kind == STRING);
    this = step_at(outlines, link, literal, (size_t)(value - literal), kind,
                   who ? who->text : LIVENPS_OUTLINE_TEXTS - 1, &made);
    if (!this) {
      goto no_room;
    }
    link = &this->next;
    literal = kind == STRING ? to - 1 : to;
  }
  this = step_at(outlines, link, literal, (size_t)(end - literal), END, LIVENPS_OUTLINE_TEXTS - 1, &made);
  if (!this || (made && outlines->count == LIVENPS_OUTLINES)) {
    goto no_room;
  }
  if (made) {
    this->next = outlines->count++;
  }
  return this->next;

no_room:
  outlines->full = true;
  outlines->step_count = step_count;
  outlines->used = used;
  if (made) {
    *made = 0;
  }
  return -1;
}
