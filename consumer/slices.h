#ifndef LIVENPS_SLICES_H
#define LIVENPS_SLICES_H

#include "../common/counters.h"

/* Counters by number, sorted: the slices of one series in one window, or the waiting seconds of one cell. Kept packed, because a
 * typical slice holds one to five counters that are not zero and a busy series has thousands of slices. {0} is empty and valid.
 *
 *   pages, sorted by base:   [base 3 | present 00...0100101 | ends 6 11 19 | packed packed packed ]
 *
 * A page holds thirty-two neighbouring numbers; ends[i] is where the i-th present one ends, so that any slice is found without
 * reading those before it. A slice whose counters cancel to zero does not exist: equal contents have equal bytes. */
typedef struct livenps_page livenps_page;
typedef struct {
  livenps_page **pages;
  livenps_page
      *last; /* the newest page and its base: most rows go there, and its memory can be asked for early */
  int64_t last_base;
  uint32_t count, capacity;
} livenps_slices;

void livenps_slices_free(livenps_slices *slices); /* leaves {0} */
/* Adds counters, of which only those in the mask are looked at. 1: the slice is new; -1: it became zero and is gone; 0: neither. */
int livenps_slices_add(livenps_slices *slices, int64_t number, const int64_t at[LIVENPS_COUNTERS],
                       uint32_t mask);
/* Removes all slices with numbers below the given one. */
void livenps_slices_drop(livenps_slices *slices, int64_t below);
/* The smallest number at or above from; false when there is none. */
bool livenps_slices_next(const livenps_slices *slices, int64_t from, int64_t *number);

/* Walks upwards. A cursor is good until slices are added or dropped. */
typedef struct {
  const livenps_slices *slices;
  uint32_t page;
  uint32_t left;     /* what is still to be visited in that page, as a mask */
  int64_t number;    /* of the slice visited */
  const char *bytes; /* its packed counters */
  size_t length;
} livenps_cursor;
livenps_cursor livenps_slices_from(const livenps_slices *slices, int64_t from);
bool livenps_cursor_next(livenps_cursor *cursor);

/* Division that rounds down, for times before 1970 too. b > 0. */
static inline int64_t livenps_floor_divide(int64_t a, int64_t b) {
  return a / b - (a % b < 0);
}

#endif
