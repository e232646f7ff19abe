#include "position.h"

#include <inttypes.h>
#include <stdio.h>
#include <zlib.h>

/* The length first, so that bytes moved from the key to the value show; absent is not empty. */
static uLong crc_text(uLong sum, livenps_text text) {
  unsigned char length[9] = {text.at != NULL};
  for (int i = 0; i < 8; i++)
    length[i + 1] = (unsigned char)((uint64_t)text.length >> 8 * i);
  sum = crc32_z(sum, length, sizeof length);
  /* zlib would take NULL for the wish to begin anew. */
  return text.at ? crc32_z(sum, (const unsigned char *)text.at, text.length) : sum;
}

livenps_anchor livenps_anchor_of(int64_t offset, int64_t timestamp_ms, livenps_text key, livenps_text value) {
  return (livenps_anchor){.there = true,
                          .crc = (uint32_t)crc_text(crc_text(0, key), value),
                          .offset = offset,
                          .timestamp_ms = timestamp_ms};
}

bool livenps_anchor_same(const livenps_anchor *a, const livenps_anchor *b) {
  return a->there == b->there &&
         (!a->there || (a->offset == b->offset && a->timestamp_ms == b->timestamp_ms && a->crc == b->crc));
}

bool livenps_position_same(const livenps_position *a, const livenps_position *b) {
  return a->next == b->next && a->incarnation == b->incarnation &&
         livenps_anchor_same(&a->anchor, &b->anchor) && livenps_anchor_same(&a->root, &b->root);
}

static size_t print_anchor(const livenps_anchor *anchor, char *out, size_t size) {
  return (size_t)snprintf(out, size, " %" PRId64 ":%" PRId64 ":%08" PRIx32, anchor->offset,
                          anchor->timestamp_ms, anchor->crc);
}

size_t livenps_position_print(const livenps_position *position, char out[LIVENPS_POSITION_MAX]) {
  size_t length = (size_t)snprintf(out, LIVENPS_POSITION_MAX, "%" PRId64 " %" PRId64, position->next,
                                   position->incarnation);
  if (position->anchor.there) {
    length += print_anchor(&position->anchor, out + length, LIVENPS_POSITION_MAX - length);
    if (position->root.there && !livenps_anchor_same(&position->anchor, &position->root))
      length += print_anchor(&position->root, out + length, LIVENPS_POSITION_MAX - length);
  }
  return length;
}

/* A decimal number without a plus, blanks or leading zeros: what is read is exactly what print writes, so that equal positions are
 * equal texts. */
static int get_decimal(const char **at, const char *end, int64_t *value) {
  const bool minus = *at < end && **at == '-';
  const char *digit = *at + minus;
  uint64_t sum = 0;
  if (digit == end || *digit < '0' || *digit > '9' ||
      (*digit == '0' && (minus || (digit + 1 < end && digit[1] >= '0' && digit[1] <= '9'))))
    return -1;
  for (; digit < end && *digit >= '0' && *digit <= '9'; digit++)
    if (__builtin_mul_overflow(sum, 10, &sum) || __builtin_add_overflow(sum, (uint64_t)(*digit - '0'), &sum))
      return -1;
  if (sum > (uint64_t)INT64_MAX + minus)
    return -1;
  *value = minus ? (int64_t)(0 - sum) : (int64_t)sum;
  *at = digit;
  return 0;
}

static int get_char(const char **at, const char *end, char wanted) {
  return *at < end && *(*at)++ == wanted ? 0 : -1;
}

static int get_anchor(const char **at, const char *end, livenps_anchor *anchor) {
  if (get_char(at, end, ' ') || get_decimal(at, end, &anchor->offset) || anchor->offset < 0 ||
      get_char(at, end, ':') || get_decimal(at, end, &anchor->timestamp_ms) || get_char(at, end, ':') ||
      end - *at < 8)
    return -1;
  for (const char *last = *at + 8; *at < last; (*at)++) {
    static const char digits[] = "0123456789abcdef";
    const char *digit = memchr(digits, **at, 16);
    if (!digit)
      return -1;
    anchor->crc = anchor->crc << 4 | (uint32_t)(digit - digits);
  }
  anchor->there = true;
  return 0;
}

int livenps_position_parse(livenps_text text, livenps_position *position) {
  const char *at = text.at, *end = text.at + text.length;
  *position = (livenps_position){0};
  if (!text.at || get_decimal(&at, end, &position->next) || position->next < 0 || get_char(&at, end, ' ') ||
      get_decimal(&at, end, &position->incarnation) || position->incarnation < 1 ||
      (at < end && get_anchor(&at, end, &position->anchor)) ||
      (at < end &&
       (get_anchor(&at, end, &position->root) || livenps_anchor_same(&position->anchor, &position->root))) ||
      at != end)
    return -1;
  if (!position->root.there)
    position->root = position->anchor;
  return 0;
}

livenps_verdict livenps_position_judge(livenps_trace anchor, livenps_trace root, bool one, int64_t low,
                                       bool beyond) {
  const bool other = anchor == LIVENPS_TRACE_OTHER || root == LIVENPS_TRACE_OTHER;
  if (!other && !beyond)
    return LIVENPS_VERDICT_SAME;
  /* What was read behind the newest anchor can be lost as well: then both are there. */
  if (root == LIVENPS_TRACE_SAME || (!other && anchor == LIVENPS_TRACE_SAME))
    return LIVENPS_VERDICT_CUT;
  /* The newest anchor may be a record of the new topic already; the root lies far behind what an election can lose. */
  if (root == LIVENPS_TRACE_OTHER && !one)
    return LIVENPS_VERDICT_ANEW;
  /* Nothing old is left to compare. A new topic begins at 0; to take an old one for it would count all of it twice. */
  return low == 0 ? LIVENPS_VERDICT_ANEW : LIVENPS_VERDICT_CUT;
}
