#ifndef LIVENPS_SCAN_PARTS_H
#define LIVENPS_SCAN_PARTS_H

#include "scan.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* The values of a document, one by one: shared by scan.c, which reads whole documents, and outline.c, which knows their frame. */

/* A document begins: what the functions below read lies in it, and what they unescape lasts until the next one. */
void livenps_scan_begin(livenps_scanner *scanner, const char *bytes, size_t length);
/* at is inside a string, at a character's first byte; returns at the closing quote. NULL: invalid. */
const char *livenps_scan_string(livenps_scanner *scanner, const char *at, bool *escaped);
/* at is at the minus or the first digit; returns behind the number. NULL: invalid. */
const char *livenps_scan_number(livenps_scanner *scanner, const char *at);
/* The characters of a string that livenps_scan_string accepted; length: as it is written. */
livenps_text livenps_scan_unescape(livenps_scanner *scanner, const char *at, size_t length);

#define LIVENPS_EVERY(byte) (UINT64_C(0x0101010101010101) * (byte))

#ifdef __SSE2__
/* A bit for each of sixteen bytes that needs no look. With one bit turned the quote is where the space was: signed, it is at most that, and so
 * are the controls and all bytes from 0x80 on. */
static inline unsigned livenps_plain_bytes(const char *at) {
  const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)at);
  const __m128i turned = _mm_xor_si128(bytes, _mm_set1_epi8('"' ^ ' '));
  const __m128i more = _mm_cmpgt_epi8(turned, _mm_set1_epi8(' '));
  const __m128i backslash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\'));
  return (unsigned)_mm_movemask_epi8(_mm_andnot_si128(backslash, more));
}

/* A bit for each of 32 bytes that needs one. */
static inline uint32_t livenps_marks(const char *at) {
  return ~(livenps_plain_bytes(at) | livenps_plain_bytes(at + 16) << 16);
}
#endif

/* Behind a run of characters that need no look: printable ASCII but quote and backslash. It may stop early where fewer
 * bytes are left than are looked at together. start..end is memory that may be read. */
static inline const char *livenps_skip_plain(const char *start, const char *p, const char *end) {
#ifdef __SSE2__
  /* Wide stretches: how long a string is then seldom decides about a jump, which is dearer than looking at bytes in vain. */
  while (end - p >= 32) {
    const uint32_t marks = livenps_marks(p);
    if (marks) {
      return p + __builtin_ctz(marks);
    }
    p += 32;
  }
  /* The last few bytes are looked at together with some before them. */
  if (end - start >= 32) {
    const uint64_t rest = (uint64_t)livenps_marks(end - 32) >> (32 - (end - p));
    return rest ? p + __builtin_ctzll(rest) : end;
  }
#elif __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  (void)start;
  /* The lowest mark is exact. A false one can only stand above a true one, where nobody looks. */
  while (end - p >= 8) {
    uint64_t word;
    memcpy(&word, p, 8);
    uint64_t quote = word ^ LIVENPS_EVERY(0x22);
    uint64_t backslash = word ^ LIVENPS_EVERY(0x5C);
    uint64_t marks = (((quote - LIVENPS_EVERY(1)) & ~quote) | ((backslash - LIVENPS_EVERY(1)) & ~backslash) |
                      ((word - LIVENPS_EVERY(0x20)) & ~word) | word) &
                     LIVENPS_EVERY(0x80);
    if (marks) {
      return p + (__builtin_ctzll(marks) >> 3);
    }
    p += 8;
  }
#else
  (void)start;
  (void)end;
#endif
  return p;
}

#endif
