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
typedef struct step step;
struct step {
  const char *literal;
  step *sibling;   /* the step to try if this one does not fit, NULL for none */
  step *next;      /* the first step behind the value; NULL at the END */
  uint16_t length; /* of the literal */
  uint16_t reach;  /* as many bytes are looked at together with it */
  uint16_t mask;   /* of the first WIDE of them, those that count: a bit each */
  uint8_t kind, text;
  uint16_t number; /* at the END: the outline's */
};

enum {
  STEPS = 1024,
  LITERALS = 32768,
  SIBLINGS = 16, /* steps in one place; each costs every document that it does not fit */
  WIDE = 16      /* bytes compared together: literals are readable that far */
};

struct livenps_outlines {
  step *root;
  uint16_t step_count, count;
  bool full;
  uint32_t used;
  step steps[STEPS];
  char literals[LITERALS + WIDE];
};

livenps_outlines *livenps_outlines_new(void) {
  return livenps_alloc(sizeof(livenps_outlines));
}

void livenps_outlines_free(livenps_outlines *outlines) {
  free(outlines);
}

bool livenps_outlines_full(const livenps_outlines *outlines) {
  return outlines->full;
}

void livenps_outlines_forget(livenps_outlines *outlines) {
  outlines->root = NULL;
  outlines->step_count = outlines->count = 0;
  outlines->used = 0;
  outlines->full = false;
}

/* ---- matching ---- */

#ifdef __SSE2__
static inline __m128i same_wide(const char *a, const char *b) {
  return _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(const void *)a),
                        _mm_loadu_si128((const __m128i *)(const void *)b));
}
#endif

/* Whether the document goes on at p with the step's literal. */
static inline __attribute__((always_inline)) bool follows(const step *this, const char *p, const char *end) {
  const char *literal = this->literal;
  const size_t length = this->length;
#ifdef __SSE2__
  if (__builtin_expect(end - p >= this->reach, 1)) {
    __m128i same = same_wide(p, literal);
    if (length > WIDE) {
      /* The last stretch overlaps the one before, so that nothing behind the document is read. */
      same = _mm_and_si128(same, same_wide(p + length - WIDE, literal + length - WIDE));
      for (size_t i = WIDE; i + WIDE < length; i += WIDE) {
        same = _mm_and_si128(same, same_wide(p + i, literal + i));
      }
    }
    return (~(unsigned)_mm_movemask_epi8(same) & this->mask) == 0;
  }
#endif
  if ((size_t)(end - p) < length) {
    return false;
  }
  for (size_t i = 0; i < length && i < WIDE; i++) { /* most are that short, and no call is worth it */
    if (p[i] != literal[i]) {
      return false;
    }
  }
  return length <= WIDE || memcmp(p + WIDE, literal + WIDE, length - WIDE) == 0;
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

/* The rest of a string, from a character on that is not plain; from is its first one. Returns at the closing quote, NULL: invalid. */
static __attribute__((noinline)) const char *read_string(livenps_scanner *scanner, const char *from,
                                                         const char *p, bool wanted, livenps_text *out) {
  bool escaped = false;
  p = livenps_scan_string(scanner, p, &escaped);
  if (p) {
    *out = (livenps_text){from, (size_t)(p - from)};
    if (escaped && wanted) {
      *out = livenps_scan_unescape(scanner, from, out->length);
    }
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

/* A number, or a word that nobody wants. Returns behind it, NULL: invalid. */
static __attribute__((noinline)) const char *read_literal(livenps_scanner *scanner, step_kind kind,
                                                          const char *p, const char *end, livenps_text *out) {
  const char *from = p;
  p = kind == SCALAR && *p >= 'a' ? read_word(p, end) : livenps_scan_number(scanner, p);
  if (p) {
    *out = (livenps_text){from, (size_t)(p - from)};
  }
  return p;
}

int livenps_outlines_match(const livenps_outlines *outlines, livenps_scanner *scanner, const char *bytes,
                           size_t length, livenps_text texts[LIVENPS_OUTLINE_TEXTS]) {
  const char *p = bytes;
  const char *end = bytes + length;
  const char *string = NULL; /* where the last value began, if it is a string that a quote must follow */
  livenps_text *text = texts;
  if (!outlines->root) {
    return -1; /* each other step that is no end has one behind it */
  }
  livenps_scan_begin(scanner, bytes, length);
  for (const step *first = outlines->root;;) {
    const step *this = first;
    while (__builtin_expect(
        !follows(this, p, end) || (this->kind != STRING && !begins(this->kind, p + this->length, end)), 0)) {
      this = this->sibling;
      if (!this) {
        /* Every literal behind a string begins with its closing quote: that is looked at here only. */
        if (!string || p == end || *p == '"') {
          return -1;
        }
        p = read_string(scanner, string, p, text != &texts[LIVENPS_OUTLINE_TEXTS - 1], text);
        if (!p) {
          return -1;
        }
        string = NULL;
        this = first;
      }
    }
    p += this->length;
    first = this->next;
    text = &texts[this->text];
    if (__builtin_expect(this->kind == STRING, 1)) {
      string = p;
      p = livenps_skip_plain(bytes, p, end);
      *text = (livenps_text){string, (size_t)(p - string)};
    } else if (this->kind == END) {
      return this->number;
    } else if (*p == '"') {
      string = NULL;
      const char *from = p + 1;
      p = livenps_skip_plain(bytes, from, end);
      if (p == end || *p != '"') {
        p = read_string(scanner, from, p, false, text);
        if (!p) {
          return -1;
        }
      }
      p++;
    } else {
      string = NULL;
      p = read_literal(scanner, (step_kind)this->kind, p, end, text);
      if (!p) {
        return -1;
      }
    }
  }
}

/* ---- learning ---- */

/* The step with that literal and that kind among those that begin at *link, made if there is none; *made is then where the first new one
 * is linked. NULL: no room. */
static step *step_at(livenps_outlines *outlines, step **link, const char *literal, size_t length,
                     step_kind kind, int text, step ***made) {
  int siblings = 0;
  for (; *link; link = &(*link)->sibling, siblings++) {
    step *this = *link;
    if (this->kind == kind && this->text == text && this->length == length &&
        memcmp(this->literal, literal, length) == 0) {
      return this;
    }
  }
  if (siblings == SIBLINGS || outlines->step_count == STEPS || length > LITERALS - outlines->used) {
    return NULL;
  }
  char *copy = &outlines->literals[outlines->used];
  memcpy(copy, literal, length);
  outlines->used += (uint32_t)length;
  *made = *made ? *made : link;
  step *new = &outlines->steps[outlines->step_count++];
  *link = new;
  *new = (step){
      .literal = copy,
      .length = (uint16_t)length,
      .reach = (uint16_t)(length < WIDE ? WIDE : length),
      .mask = (uint16_t)(length < WIDE ? (1u << length) - 1 : 0xFFFF),
      .kind = (uint8_t)kind,
      .text = (uint8_t)text,
  };
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
  step **link = &outlines->root;
  step **made = NULL;
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
    this->number = outlines->count++;
  }
  return this->number;

no_room:
  outlines->full = true;
  outlines->step_count = step_count;
  outlines->used = used;
  if (made) {
    *made = NULL;
  }
  return -1;
}
