#include "counters.h"

#include <assert.h>

/* Additions are made on unsigned numbers: a sum of values that wraps is then defined, and subtracting undoes it. */
static int64_t plus(int64_t a, int64_t b) {
  return (int64_t)((uint64_t)a + (uint64_t)b);
}

static int64_t minus(int64_t a, int64_t b) {
  return (int64_t)((uint64_t)a - (uint64_t)b);
}

/* The first counters are in the order of livenps_type. */
enum { kind_counters = LIVENPS_INTERACTIONS };
_Static_assert((int)LIVENPS_INVITATIONS == (int)kind_counters + (int)LIVENPS_INVITATION &&
                   (int)LIVENPS_ANSWERS == (int)kind_counters + (int)LIVENPS_ANSWER,
               "the order of livenps_type");

/* By scale: the first bin, the lowest score and how many there are. */
static const struct {
  uint8_t bin, low, scores;
} scales[] = {[LIVENPS_SCALE_NONE] = {LIVENPS_COUNTERS, 0, 1},
              [LIVENPS_SCALE_NPS] = {LIVENPS_SCORE, 0, 11},
              [LIVENPS_SCALE_CSAT] = {LIVENPS_CSAT, 1, 5},
              [LIVENPS_SCALE_CES] = {LIVENPS_CES, 1, 7}};
static const uint8_t value_counters[11] = {
    LIVENPS_VALUE_DETRACTORS, LIVENPS_VALUE_DETRACTORS, LIVENPS_VALUE_DETRACTORS, LIVENPS_VALUE_DETRACTORS,
    LIVENPS_VALUE_DETRACTORS, LIVENPS_VALUE_DETRACTORS, LIVENPS_VALUE_DETRACTORS, LIVENPS_VALUE_PASSIVES,
    LIVENPS_VALUE_PASSIVES,   LIVENPS_VALUE_PROMOTERS,  LIVENPS_VALUE_PROMOTERS};

/* One kind of event follows another as it likes, so this looks things up instead of asking: a branch would be guessed wrong too often. */
livenps_count livenps_count_of(const livenps_event *event) {
  const unsigned scale = (unsigned)event->scale * (event->type == LIVENPS_ANSWER);
  const unsigned from_low = (unsigned)event->score * (scale != LIVENPS_SCALE_NONE) - scales[scale].low;
  const unsigned valued = event->has_value & (scale == LIVENPS_SCALE_NPS);
  assert(from_low < scales[scale].scores);
  return (livenps_count){.kind = (uint8_t)(kind_counters + (int)event->type),
                         .bin = (uint8_t)(scales[scale].bin + from_low),
                         .sum = value_counters[from_low],
                         .value = event->value & -(int64_t)valued};
}

void livenps_counters_count(livenps_counters *counters, const livenps_event *event) {
  const livenps_count count = livenps_count_of(event);
  counters->at[count.kind]++;
  if (count.bin < LIVENPS_COUNTERS) {
    counters->at[count.bin]++;
  }
  counters->at[count.sum] = plus(counters->at[count.sum], count.value);
}

void livenps_counters_add(livenps_counters *to, const livenps_counters *what) {
  for (int i = 0; i < LIVENPS_COUNTERS; i++) {
    to->at[i] = plus(to->at[i], what->at[i]);
  }
}

void livenps_counters_subtract(livenps_counters *from, const livenps_counters *what) {
  for (int i = 0; i < LIVENPS_COUNTERS; i++) {
    from->at[i] = minus(from->at[i], what->at[i]);
  }
}

bool livenps_counters_zero(const livenps_counters *counters) {
  int64_t any = 0;
  for (int i = 0; i < LIVENPS_COUNTERS; i++) {
    any |= counters->at[i];
  }
  return any == 0;
}

static int64_t sum(const livenps_counters *counters, int first, int last) {
  int64_t total = 0;
  for (int score = first; score <= last; score++) {
    total = plus(total, counters->at[LIVENPS_SCORE + score]);
  }
  return total;
}

int64_t livenps_promoters(const livenps_counters *counters) {
  return sum(counters, 9, 10);
}

int64_t livenps_passives(const livenps_counters *counters) {
  return sum(counters, 7, 8);
}

int64_t livenps_detractors(const livenps_counters *counters) {
  return sum(counters, 0, 6);
}

/* The varints are written out here rather than through a buffer: a slice is packed again for every row it receives. */
static char *put(char *out, uint64_t value) {
  while (value >= 0x80) {
    *out++ = (char)(value | 0x80);
    value >>= 7;
  }
  *out++ = (char)value;
  return out;
}

/* Refuses a number with needless zero groups or beyond 64 bits, so that equal numbers have equal bytes. */
static const char *get_long(const char *at, const char *end, uint64_t *value) {
  uint64_t result = 0;
  for (int shift = 0; shift < 64 && at < end; shift += 7) {
    unsigned char byte = (unsigned char)*at++;
    if (shift == 63 && byte > 1) {
      return NULL;
    }
    result |= (uint64_t)(byte & 0x7f) << shift;
    if (!(byte & 0x80)) {
      *value = result;
      return byte == 0 && shift > 0 ? NULL : at;
    }
  }
  return NULL;
}

static inline const char *get(const char *at, const char *end, uint64_t *value) {
  if (at < end && !(*at & 0x80)) { /* nearly all of them */
    *value = (unsigned char)*at;
    return at + 1;
  }
  return get_long(at, end, value);
}

static uint64_t zigzag(int64_t value) {
  return ((uint64_t)value << 1) ^ (value < 0 ? UINT64_MAX : 0);
}

static int64_t unzigzag(uint64_t value) {
  return (int64_t)((value >> 1) ^ (0 - (value & 1)));
}

/* Most counters are zero: four are looked at together. */
uint32_t livenps_counters_mask(const livenps_counters *counters) {
  const int64_t *at = counters->at;
  uint32_t mask = 0;
  int i = 0;
  for (; i + 4 <= LIVENPS_COUNTERS; i += 4) {
    if (at[i] | at[i + 1] | at[i + 2] | at[i + 3]) {
      uint32_t four = (uint32_t)(at[i] != 0) | (uint32_t)(at[i + 1] != 0) << 1 |
                      (uint32_t)(at[i + 2] != 0) << 2 | (uint32_t)(at[i + 3] != 0) << 3;
      mask |= four << i;
    }
  }
  for (; i < LIVENPS_COUNTERS; i++) {
    mask |= (uint32_t)(at[i] != 0) << i;
  }
  return mask;
}

static size_t pack(const int64_t *values, uint32_t mask, char *out) {
  char *at = put(out, mask);
  for (; mask; mask &= mask - 1) {
    at = put(at, zigzag(values[__builtin_ctz(mask)]));
  }
  return (size_t)(at - out);
}

size_t livenps_counters_pack(const livenps_counters *counters, char out[LIVENPS_PACKED_MAX]) {
  return pack(counters->at, livenps_counters_mask(counters), out);
}

size_t livenps_counters_pack_some(const int64_t at[LIVENPS_COUNTERS], uint32_t mask,
                                  char out[LIVENPS_PACKED_MAX]) {
  for (uint32_t left = mask; left; left &= left - 1) {
    int bit = __builtin_ctz(left);
    mask &= ~((uint32_t)(at[bit] == 0) << bit);
  }
  return mask ? pack(at, mask, out) : 0;
}

int livenps_counters_unpack(const char **at, const char *end, livenps_counters *counters, uint32_t *mask) {
  uint64_t said, value;
  const char *next = get(*at, end, &said);
  if (!next || said >> LIVENPS_COUNTERS) {
    return -1;
  }
  *mask = (uint32_t)said;
  memset(counters, 0, sizeof *counters);
  for (uint32_t left = (uint32_t)said; left; left &= left - 1) {
    next = get(next, end, &value);
    if (!next || value == 0) {
      return -1;
    }
    counters->at[__builtin_ctz(left)] = unzigzag(value);
  }
  *at = next;
  return 0;
}

/* Bytes that pack wrote are read without doubts about their end. */
static inline const char *get_packed(const char *at, const char *end, uint64_t *value) {
  at = get(at, end, value);
  assert(at);
  return at;
}

void livenps_packed_apply(livenps_counters *to, const char *bytes, size_t length, int sign) {
  const char *end = bytes + length;
  uint64_t mask, value;
  bytes = get_packed(bytes, end, &mask);
  for (uint32_t left = (uint32_t)mask; left; left &= left - 1) {
    int64_t *at = &to->at[__builtin_ctz(left)];
    bytes = get_packed(bytes, end, &value);
    *at = sign < 0 ? minus(*at, unzigzag(value)) : plus(*at, unzigzag(value));
  }
  assert(bytes == end);
}

size_t livenps_packed_add(const char *bytes, size_t length, const int64_t at[LIVENPS_COUNTERS], uint32_t mask,
                          char out[LIVENPS_PACKED_MAX]) {
  const char *end = bytes + length;
  uint64_t packed_mask, value;
  bytes = get_packed(bytes, end, &packed_mask);
  uint32_t both = (uint32_t)packed_mask | mask;
  char *to = put(out, both);
  const char *from = bytes;
  bool cancels = both == 0;
  for (uint32_t left = both; left; left &= left - 1) {
    int bit = __builtin_ctz(left);
    int64_t sum = mask >> bit & 1 ? at[bit] : 0;
    if (packed_mask >> bit & 1) {
      from = get_packed(from, end, &value);
      sum = plus(sum, unzigzag(value));
    }
    cancels |= sum == 0;
    to = put(to, zigzag(sum));
  }
  assert(from == end);
  if (!cancels) {
    return (size_t)(to - out);
  }
  /* Rare: another mask, so from the start. */
  int64_t sums[LIVENPS_COUNTERS];
  for (uint32_t left = both; left; left &= left - 1) {
    int bit = __builtin_ctz(left);
    sums[bit] = mask >> bit & 1 ? at[bit] : 0;
    if (packed_mask >> bit & 1) {
      bytes = get_packed(bytes, end, &value);
      sums[bit] = plus(sums[bit], unzigzag(value));
    }
  }
  return livenps_counters_pack_some(sums, both, out);
}

/* A busy slice gets one or two counters of its ten: the others are only stepped over. */
bool livenps_packed_patch(char *bytes, size_t length, const int64_t at[LIVENPS_COUNTERS], uint32_t mask) {
  struct {
    char *to;
    uint64_t value;
  } found[LIVENPS_COUNTERS];
  size_t count = 0;
  const char *end = bytes + length;
  uint64_t packed_mask, value;
  const char *from = get_packed(bytes, end, &packed_mask);
  uint32_t behind = (uint32_t)packed_mask; /* where from stands and what follows */
  if (mask & ~behind) {
    return false;
  }
  for (; mask; mask &= mask - 1) {
    int bit = __builtin_ctz(mask);
    for (unsigned skip = livenps_population(behind & ((1u << bit) - 1)); skip; from++) {
      skip -= !(*from & 0x80);
    }
    const char *next = get_packed(from, end, &value);
    uint64_t sum = zigzag(plus(unzigzag(value), at[bit]));
    /* The last group of seven bits is there, and no more than that; of a sum that is zero it is not. */
    uint64_t group = sum >> 7 * (next - from - 1);
    if (group == 0 || group > 0x7f) {
      return false;
    }
    found[count].to = bytes + (from - bytes);
    found[count++].value = sum;
    behind &= ~((2u << bit) - 1);
    from = next;
  }
  for (size_t i = 0; i < count; i++) {
    put(found[i].to, found[i].value);
  }
  return true;
}
