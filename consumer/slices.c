#include "slices.h"

#include "../common/error.h"
#include <assert.h>
#include <stdlib.h>

enum { PAGE = 32 };

struct livenps_page {
  int64_t base;      /* number / PAGE, rounded down */
  uint32_t present;  /* bit i: base * PAGE + i is here */
  uint16_t capacity; /* bytes behind the header */
  uint16_t ends[];   /* one for each present slice, then the packed bytes */
};

static char *packed(livenps_page *page, unsigned count) {
  return (char *)(page->ends + count);
}

static size_t begin(const livenps_page *page, unsigned index) {
  return index ? page->ends[index - 1] : 0;
}

void livenps_slices_free(livenps_slices *slices) {
  for (uint32_t i = 0; i < slices->count; i++) {
    free(slices->pages[i]);
  }
  free(slices->pages);
  *slices = (livenps_slices){0};
}

/* Index of the first page whose base is at or above the given one. The newest page is asked first: most rows go there. As bases differ,
 * a page is at most as far from the newest one as its base: where there are no gaps, that is the place. */
static uint32_t find(const livenps_slices *slices, int64_t base) {
  uint32_t low = 0, high = slices->count;
  if (high == 0 || slices->last_base <= base) {
    return high && slices->last_base == base ? high - 1 : high;
  }
  if (slices->last_base - base < high) {
    low = high - 1 - (uint32_t)(slices->last_base - base);
    high -= slices->pages[low]->base == base ? high - low : 0;
  }
  while (low < high) {
    uint32_t middle = low + (high - low) / 2;
    if (slices->pages[middle]->base < base) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

/* After any change of the list of pages. */
static void note_last(livenps_slices *slices) {
  slices->last = slices->pages[slices->count - 1];
  slices->last_base = slices->last->base;
}

static void page_put(livenps_slices *slices, uint32_t at, livenps_page *page) {
  slices->pages[at] = page;
  if (at + 1 == slices->count) {
    slices->last = page;
  }
}

/* Room is given out in the steps in which malloc has it: eighths to quarters of what there is, so that a growing page seldom moves. */
static livenps_page *reserve(livenps_page *page, size_t bytes) {
  if (page && bytes <= page->capacity) {
    return page;
  }
  size_t header = offsetof(livenps_page, ends), size = header + bytes, step = 16;
  size = size < sizeof *page ? sizeof *page : size;
  while (size > 8 * step) {
    step *= 2;
  }
  size = (size + step - 1) / step * step;
  livenps_page *grown = livenps_resize(page, size);
  grown->capacity = (uint16_t)(size - header);
  return grown;
}

static livenps_page *page_insert(livenps_slices *slices, uint32_t at, int64_t base) {
  if (slices->count == slices->capacity) {
    slices->capacity = slices->capacity ? slices->capacity + slices->capacity / 2 + 1 : 2;
    slices->pages = livenps_resize(slices->pages, slices->capacity * sizeof *slices->pages);
  }
  memmove(slices->pages + at + 1, slices->pages + at, (slices->count - at) * sizeof *slices->pages);
  livenps_page *page = reserve(NULL, 0);
  page->base = base;
  page->present = 0;
  slices->pages[at] = page;
  slices->count++;
  note_last(slices);
  return page;
}

static void pages_remove(livenps_slices *slices, uint32_t at, uint32_t count) {
  for (uint32_t i = at; i < at + count; i++) {
    free(slices->pages[i]);
  }
  slices->count -= count;
  if (slices->count == 0) {
    livenps_slices_free(slices);
    return;
  }
  memmove(slices->pages + at, slices->pages + at + count, (slices->count - at) * sizeof *slices->pages);
  note_last(slices);
}

static livenps_page *slice_insert(livenps_page *page, unsigned bit, const char *bytes, size_t length) {
  unsigned count = livenps_population(page->present),
           index = livenps_population(page->present & ((1u << bit) - 1));
  size_t start = begin(page, index), total = begin(page, count);
  page = reserve(page, (count + 1) * sizeof *page->ends + total + length);
  char *from = packed(page, count), *to = packed(page, count + 1);
  /* The packed bytes move first and from the end: the growing list of ends takes the place of their first two. */
  memmove(to + start + length, from + start, total - start);
  memmove(to, from, start);
  memcpy(to + start, bytes, length);
  for (unsigned i = count; i > index; i--) {
    page->ends[i] = (uint16_t)(page->ends[i - 1] + length);
  }
  page->ends[index] = (uint16_t)(start + length);
  page->present |= 1u << bit;
  return page;
}

static void slice_remove(livenps_page *page, unsigned bit) {
  unsigned count = livenps_population(page->present),
           index = livenps_population(page->present & ((1u << bit) - 1));
  size_t start = begin(page, index), end = page->ends[index], total = begin(page, count);
  for (unsigned i = index; i + 1 < count; i++) {
    page->ends[i] = (uint16_t)(page->ends[i + 1] - (end - start));
  }
  char *from = packed(page, count), *to = packed(page, count - 1);
  memmove(to, from, start);
  memmove(to + start, from + end, total - end);
  page->present &= ~(1u << bit);
}

static livenps_page *slice_replace(livenps_page *page, unsigned index, const char *bytes, size_t length) {
  unsigned count = livenps_population(page->present);
  size_t start = begin(page, index), end = page->ends[index], total = begin(page, count);
  if (length != end - start) {
    page = reserve(page, count * sizeof *page->ends + total - (end - start) + length);
    char *at = packed(page, count);
    memmove(at + start + length, at + end, total - end);
    for (unsigned i = index; i < count; i++) {
      page->ends[i] = (uint16_t)(page->ends[i] + length - (end - start));
    }
  }
  memcpy(packed(page, count) + start, bytes, length);
  return page;
}

int livenps_slices_add(livenps_slices *slices, int64_t number, const int64_t counters[LIVENPS_COUNTERS],
                       uint32_t mask) {
  char bytes[LIVENPS_PACKED_MAX];
  int64_t base = livenps_floor_divide(number, PAGE);
  unsigned bit = (unsigned)(number - base * PAGE);
  uint32_t at = find(slices, base);
  livenps_page *page = at < slices->count && slices->pages[at]->base == base ? slices->pages[at] : NULL;
  if (!page || !(page->present & (1u << bit))) {
    size_t length = livenps_counters_pack_some(counters, mask, bytes);
    if (!length) {
      return 0;
    }
    page = page ? page : page_insert(slices, at, base);
    page_put(slices, at, slice_insert(page, bit, bytes, length));
    return 1;
  }
  unsigned index = livenps_population(page->present & ((1u << bit) - 1)),
           count = livenps_population(page->present);
  size_t start = begin(page, index), before = page->ends[index] - start;
  if (livenps_packed_patch(packed(page, count) + start, before, counters, mask)) {
    return 0;
  }
  size_t length = livenps_packed_add(packed(page, count) + start, before, counters, mask, bytes);
  if (length) {
    page_put(slices, at, slice_replace(page, index, bytes, length));
    return 0;
  }
  slice_remove(page, bit);
  if (!page->present) {
    pages_remove(slices, at, 1);
  }
  return -1;
}

void livenps_slices_drop(livenps_slices *slices, int64_t below) {
  int64_t base = livenps_floor_divide(below, PAGE);
  uint32_t whole = find(slices, base);
  if (whole) {
    pages_remove(slices, 0, whole);
  }
  if (slices->count == 0 || slices->pages[0]->base != base) {
    return;
  }
  livenps_page *page = slices->pages[0];
  for (unsigned bit = 0; bit < (unsigned)(below - base * PAGE); bit++) {
    if (page->present & (1u << bit)) {
      slice_remove(page, bit);
    }
  }
  if (!page->present) {
    pages_remove(slices, 0, 1);
  }
}

livenps_cursor livenps_slices_from(const livenps_slices *slices, int64_t from) {
  int64_t base = livenps_floor_divide(from, PAGE);
  livenps_cursor cursor = {.slices = slices, .page = find(slices, base)};
  if (cursor.page < slices->count) {
    const livenps_page *page = slices->pages[cursor.page];
    cursor.left = page->present;
    if (page->base == base) {
      cursor.left &= ~0u << (unsigned)(from - base * PAGE);
    }
  }
  return cursor;
}

bool livenps_cursor_next(livenps_cursor *cursor) {
  const livenps_slices *slices = cursor->slices;
  while (!cursor->left) {
    if (cursor->page + 1 >= slices->count) {
      return false;
    }
    cursor->left = slices->pages[++cursor->page]->present;
  }
  livenps_page *page = slices->pages[cursor->page];
  unsigned bit = (unsigned)__builtin_ctz(cursor->left);
  unsigned index = livenps_population(page->present & ((1u << bit) - 1));
  cursor->left &= cursor->left - 1;
  cursor->number = page->base * PAGE + bit;
  cursor->bytes = packed(page, livenps_population(page->present)) + begin(page, index);
  cursor->length = page->ends[index] - begin(page, index);
  return true;
}

bool livenps_slices_next(const livenps_slices *slices, int64_t from, int64_t *number) {
  livenps_cursor cursor = livenps_slices_from(slices, from);
  if (!livenps_cursor_next(&cursor)) {
    return false;
  }
  *number = cursor.number;
  return true;
}
