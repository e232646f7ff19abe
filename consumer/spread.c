#include "state_parts.h"

#include <stdlib.h>

/* From rows to slices. A row counts in every roll-up and every window: 36 places with the defaults. Most of these places are the same ones
 * for many rows, so rows are only noted when they are folded, and spread together, when somebody looks or a slice ends:
 *
 *   rows, by second --added up by cell--> cells of a second --by series--> finest window's slice --> coarser window's slice --> ...
 *
 * A window whose slices consist of whole slices of a finer one is fed from that one's sums, any other from the cells. Rows that are too old for
 * a window go to those that it feeds. So a second's rows cost one addition per row and roll-up, and one slice per series, window and slice
 * that they touch.
 *
 * Addition is exact whatever its order, so what comes out is what adding row by row gives. What is decided at arrival, in the order of the
 * log, is only which series a name gets (resolve): the series is alive from then on by a slot that is hollow until the spread. */

enum {
  PENDING_MAX = 65536, /* rows; bounds the memory, about 50 bytes each, twice */
  SUMS_MAX =
      4096, /* of one slice; beyond, they are added to the slices early. They should fit the processor's cache */
  DIGIT = 12 /* bits, of the sort by second */
};

/* -- the tree of windows ---------------------------------------------------------------------------------------------------------- */

static bool finer(const livenps_state *state, size_t a, size_t b) {
  int64_t x = state->windows[a].config.slice_ms, y = state->windows[b].config.slice_ms;
  return x != y ? x < y : a < b;
}

void livenps_spread_open(livenps_state *state) {
  size_t count = state->window_count;
  state->finest_first = livenps_alloc((count + 1) * sizeof *state->finest_first);
  state->entrances = livenps_alloc((count + 1) * sizeof *state->entrances);
  state->roots = livenps_alloc((count + 1) * sizeof *state->roots);
  for (size_t w = 0; w < count; w++) {
    size_t at = w;
    for (; at && finer(state, w, state->finest_first[at - 1]); at--) {
      state->finest_first[at] = state->finest_first[at - 1];
    }
    state->finest_first[at] = w;
    state->windows[w].fed = livenps_alloc(count * sizeof *state->windows[w].fed);
  }
  for (size_t i = 0; i < count; i++) {
    size_t w = state->finest_first[i], from = i;
    while (from && state->windows[w].config.slice_ms %
                       state->windows[state->finest_first[from - 1]].config.slice_ms) {
      from--;
    }
    if (from) {
      livenps_pane *feeder = &state->windows[state->finest_first[from - 1]];
      feeder->fed[feeder->fed_count++] = w;
    } else {
      state->roots[state->root_count++] = w;
    }
  }
}

static void pendings_free(livenps_pendings *rows) {
  free(rows->at);
  free(rows->values);
}

void livenps_spread_free(livenps_state *state) {
  for (size_t w = 0; w < state->window_count; w++) {
    free(state->windows[w].sums.at);
    free(state->windows[w].fed);
  }
  free(state->finest_first);
  free(state->roots);
  free(state->entrances);
  free(state->cell_sums.at);
  free(state->hollow);
  free(state->order);
  pendings_free(&state->pending);
  pendings_free(&state->merged);
}

/* -- pending rows ------------------------------------------------------------------------------------------------------------------ */

/* Takes those of the values that the mask names. */
static void rows_add(livenps_pendings *rows, livenps_cell_place *cell, int64_t second, uint32_t mask,
                     const int64_t *values) {
  if (rows->count == rows->capacity) {
    rows->capacity = rows->capacity ? rows->capacity * 2 : 256;
    rows->at = livenps_resize(rows->at, rows->capacity * sizeof *rows->at);
  }
  if (rows->value_count + LIVENPS_COUNTERS > rows->value_capacity) {
    rows->value_capacity = rows->value_capacity ? rows->value_capacity * 2 : 1024;
    rows->values = livenps_resize(rows->values, rows->value_capacity * sizeof *rows->values);
  }
  rows->at[rows->count++] = (livenps_pending){cell, second, mask, (uint32_t)rows->value_count};
  for (; mask; mask &= mask - 1) {
    rows->values[rows->value_count++] = values[__builtin_ctz(mask)];
  }
}

void livenps_state_pend(livenps_state *state, livenps_cell_place *cell, int64_t second, uint32_t mask,
                        const int64_t *values) {
  if (second * 1000 < state->oldest_ms) {
    return; /* older than everything kept: only the ledger knows of it */
  }
  if (cell->epoch != state->epoch) {
    livenps_cell_resolve(state, cell, second);
  }
  rows_add(&state->pending, cell, second, mask, values);
  if (state->pending.count >= PENDING_MAX) {
    livenps_state_spread(state);
  }
}

/* -- sums -------------------------------------------------------------------------------------------------------------------------- */

static livenps_sum *sums_new(livenps_sums *sums) {
  if (sums->count == sums->capacity) {
    sums->capacity = sums->capacity ? sums->capacity * 2 : 64;
    sums->at = livenps_resize(sums->at, sums->capacity * sizeof *sums->at);
  }
  return &sums->at[sums->count++];
}

/* Unsigned, as everywhere: a sum that wraps is undone by subtracting. */
static void sum_value(int64_t *to, int64_t value) {
  *to = (int64_t)((uint64_t)*to + (uint64_t)value);
}

/* Adds values that stand side by side, in the order of the mask. */
static void sum_row(livenps_sum *sum, uint32_t mask, const int64_t *values) {
  for (; mask; mask &= mask - 1) {
    int bit = __builtin_ctz(mask);
    if (sum->mask >> bit & 1) {
      sum_value(&sum->at[bit], *values++);
    } else {
      sum->at[bit] = *values++;
      sum->mask |= 1u << bit;
    }
  }
}

static void sum_sum(livenps_sum *sum, const livenps_sum *more) {
  for (uint32_t mask = more->mask; mask; mask &= mask - 1) {
    int bit = __builtin_ctz(mask);
    if (sum->mask >> bit & 1) {
      sum_value(&sum->at[bit], more->at[bit]);
    } else {
      sum->at[bit] = more->at[bit];
    }
  }
  sum->mask |= more->mask;
}

/* -- slices ------------------------------------------------------------------------------------------------------------------------ */

static void note_hollow(livenps_state *state, livenps_slot *slot) {
  if (state->hollow_count == state->hollow_capacity) {
    state->hollow_capacity = state->hollow_capacity ? state->hollow_capacity * 2 : 64;
    state->hollow = livenps_resize(state->hollow, state->hollow_capacity * sizeof *state->hollow);
  }
  slot->hollow = true;
  state->hollow[state->hollow_count++] = slot;
}

livenps_slot *livenps_slot_hollow(livenps_state *state, livenps_series *series, size_t window) {
  livenps_slot *slot = livenps_slot_make(state, series, window);
  note_hollow(state, slot);
  return slot;
}

static void slot_add(livenps_state *state, livenps_pane *pane, livenps_slot *slot, const livenps_sum *sum) {
  bool now = pane->number > pane->head - pane->length;
  livenps_counters *total = now ? &slot->now : &slot->previous;
  for (uint32_t mask = sum->mask; mask; mask &= mask - 1) {
    int bit = __builtin_ctz(mask);
    sum_value(&total->at[bit], sum->at[bit]);
  }
  int change = livenps_slices_add(&slot->slices, pane->number, sum->at, sum->mask);
  livenps_state_mark(state, slot->series, slot->window, true);
  if (change > 0) {
    int64_t when = pane->number + (now ? pane->length : 2 * pane->length);
    if (!slot->due.at || when < slot->due.when) {
      livenps_calendar_set(&pane->calendar, &slot->due, when);
    }
  } else if (change < 0 && slot->slices.count == 0 && !slot->hollow) {
    note_hollow(state,
                slot); /* the next rows may fill it again, and its series must not be dead until then */
  }
}

static bool keeps(const livenps_pane *pane, int64_t second) {
  return livenps_floor_divide(second * 1000, pane->config.slice_ms) > pane->head - 2 * pane->length;
}

static void fed_flush(livenps_state *state, size_t window);

/* From here on sums are of the slice that this second is in. */
static void fed_open(livenps_state *state, size_t window, int64_t second) {
  livenps_pane *pane = &state->windows[window];
  int64_t number = livenps_floor_divide(second * 1000, pane->config.slice_ms);
  if (pane->sums.count && number != pane->number) {
    fed_flush(state, window);
  }
  pane->number = number;
  pane->second = second;
}

/* The series' sum in the slice that is open; *fresh: it has nothing in it yet. */
static livenps_sum *fed_sum(livenps_state *state, livenps_series *series, size_t window) {
  livenps_pane *pane = &state->windows[window];
  livenps_place *place = &series->places[window];
  if (place->sum) {
    return &pane->sums.at[place->sum - 1];
  }
  if (pane->sums.count == SUMS_MAX) {
    fed_flush(state, window);
  }
  livenps_sum *sum = sums_new(&pane->sums);
  place->sum = pane->sums.count;
  sum->of.series = series;
  sum->slot = place->slot;
  sum->mask = 0;
  return sum;
}

/* A busy state is larger than any cache: memory is asked for before it is used, so that the waits overlap. */
static void prefetch(const livenps_pane *pane, size_t now, uint32_t at) {
  if (at + 12 < pane->sums.count) {
    const livenps_sum *sum = &pane->sums.at[at + 12];
    const char *slot = (const char *)sum->slot;
    if (slot) {
      __builtin_prefetch(slot, 1);
      __builtin_prefetch(slot + now + sizeof(int64_t) * (size_t)__builtin_ctz(sum->mask), 1);
      __builtin_prefetch(slot + now + sizeof(int64_t) * (size_t)(31 - __builtin_clz(sum->mask)), 1);
    }
  }
  if (at + 4 < pane->sums.count) {
    const livenps_slot *slot = pane->sums.at[at + 4].slot;
    if (slot && slot->slices.last) {
      __builtin_prefetch(slot->slices.last, 1);
      __builtin_prefetch((const char *)slot->slices.last + 64, 1);
      __builtin_prefetch(slot->slices.pages + slot->slices.count - 1);
    }
  }
}

/* Adds the sums to their slices and to the windows that are fed from this one. */
static void fed_flush(livenps_state *state, size_t window) {
  livenps_pane *pane = &state->windows[window];
  size_t total = pane->number > pane->head - pane->length ? offsetof(livenps_slot, now)
                                                          : offsetof(livenps_slot, previous);
  bool kept =
      keeps(pane, pane->second); /* else only windows that are fed from this one have a place for it */
  if (pane->sums.count == 0) {
    return;
  }
  if (kept) {
    livenps_pane_block(pane, livenps_floor_divide(pane->number, LIVENPS_BLOCK))->dirty = true;
  }
  for (size_t i = 0; i < pane->fed_count; i++) {
    fed_open(state, pane->fed[i], pane->second);
  }
  for (uint32_t i = 0; i < pane->sums.count; i++) {
    livenps_sum *sum = &pane->sums.at[i];
    livenps_series *series = sum->of.series;
    series->places[window].sum = 0;
    if (kept) {
      prefetch(pane, total, i);
      slot_add(state, pane, sum->slot ? sum->slot : livenps_slot_hollow(state, series, window), sum);
    }
    for (size_t f = 0; f < pane->fed_count; f++) {
      sum_sum(fed_sum(state, series, pane->fed[f]), sum);
    }
  }
  pane->sums.count = 0;
}

/* -- the spread -------------------------------------------------------------------------------------------------------------------- */

/* The rows' places in the order of their seconds: a radix sort, of as many digits as the span of seconds needs. */
static const livenps_order *sort(livenps_state *state) {
  const livenps_pendings *rows = &state->pending;
  int64_t first = rows->at[0].second, last = first;
  for (size_t i = 1; i < rows->count; i++) {
    first = rows->at[i].second < first ? rows->at[i].second : first;
    last = rows->at[i].second > last ? rows->at[i].second : last;
  }
  if (state->order_capacity < rows->count) {
    state->order_capacity = rows->capacity;
    state->order = livenps_resize(state->order, 2 * state->order_capacity * sizeof *state->order);
  }
  livenps_order *from = state->order, *to = from + rows->count;
  for (size_t i = 0; i < rows->count; i++) {
    from[i] = (livenps_order){(uint64_t)(rows->at[i].second - first), (uint32_t)i};
  }
  uint64_t span = (uint64_t)(last - first);
  for (int shift = 0; shift < 64 && span >> shift; shift += DIGIT) {
    uint32_t starts[1 << DIGIT] = {0}, start = 0;
    for (size_t i = 0; i < rows->count; i++) {
      starts[from[i].key >> shift & ((1 << DIGIT) - 1)]++;
    }
    for (size_t d = 0; d < 1 << DIGIT; d++) {
      uint32_t count = starts[d];
      starts[d] = start;
      start += count;
    }
    for (size_t i = 0; i < rows->count; i++) {
      to[starts[from[i].key >> shift & ((1 << DIGIT) - 1)]++] = from[i];
    }
    livenps_order *other = from;
    from = to;
    to = other;
  }
  return from;
}

/* Rows of one cell and second, from several entries, become one. */
static void merge(livenps_state *state) {
  const livenps_pendings *rows = &state->pending;
  livenps_sums *sums = &state->cell_sums;
  const livenps_order *sorted = sort(state);
  state->merged.count = state->merged.value_count = 0;
  for (size_t i = 0; i < rows->count;) {
    uint64_t second = sorted[i].key;
    sums->count = 0;
    int64_t of = rows->at[sorted[i].row].second;
    for (; i < rows->count && sorted[i].key == second; i++) {
      if (i + 16 < rows->count) {
        __builtin_prefetch(&rows->at[sorted[i + 16].row]);
      }
      if (i + 8 < rows->count) {
        __builtin_prefetch(&rows->at[sorted[i + 8].row].cell->sum, 1);
      }
      const livenps_pending *row = &rows->at[sorted[i].row];
      livenps_sum *sum;
      if (row->cell->sum) {
        sum = &sums->at[row->cell->sum - 1];
      } else {
        sum = sums_new(sums);
        sum->of.cell = row->cell;
        sum->mask = 0;
        row->cell->sum = sums->count;
      }
      sum_row(sum, row->mask, rows->values + row->first);
    }
    for (uint32_t s = 0; s < sums->count; s++) {
      sums->at[s].of.cell->sum = 0;
      rows_add(&state->merged, sums->at[s].of.cell, of, sums->at[s].mask, sums->at[s].at);
    }
  }
}

/* The windows that rows of this second are added to: the finest ones that keep it. */
static size_t entrances(const livenps_state *state, const size_t *windows, size_t count, int64_t second,
                        size_t *out) {
  size_t found = 0;
  for (size_t i = 0; i < count; i++) {
    const livenps_pane *pane = &state->windows[windows[i]];
    if (keeps(pane, second)) {
      out[found++] = windows[i];
    } else {
      found += entrances(state, pane->fed, pane->fed_count, second, out + found);
    }
  }
  return found;
}

static void prefetch_series(const livenps_pendings *rows, size_t at, size_t rollup, size_t window) {
  if (at + 32 < rows->count) {
    __builtin_prefetch(&rows->at[at + 32].cell->series[rollup]);
  }
  if (at + 8 < rows->count) {
    const livenps_series *series = rows->at[at + 8].cell->series[rollup];
    if (series) {
      __builtin_prefetch(&series->places[window], 1);
    }
  }
}

static void spread_rollup(livenps_state *state, size_t rollup) {
  const livenps_pendings *rows = &state->merged;
  for (size_t i = 0; i < rows->count;) {
    int64_t second = rows->at[i].second;
    size_t count = entrances(state, state->roots, state->root_count, second, state->entrances);
    for (size_t e = 0; e < count; e++) {
      fed_open(state, state->entrances[e], second);
    }
    for (; i < rows->count && rows->at[i].second == second; i++) {
      prefetch_series(rows, i, rollup, state->finest_first[0]);
      livenps_series *series = rows->at[i].cell->series[rollup];
      for (size_t e = 0; series && e < count; e++) {
        sum_row(fed_sum(state, series, state->entrances[e]), rows->at[i].mask,
                rows->values + rows->at[i].first);
      }
    }
  }
  for (size_t i = 0; i < state->window_count; i++) {
    fed_flush(state, state->finest_first[i]);
  }
}

void livenps_state_spread(const livenps_state *constant) {
  livenps_state *state = (livenps_state *)(uintptr_t)constant;
  if (!state->pending.count) {
    return;
  }
  merge(state);
  for (size_t r = 0; r < state->rollup_count; r++) {
    spread_rollup(state, r);
  }
  state->pending.count = state->pending.value_count = 0;
  for (size_t i = 0; i < state->hollow_count; i++) {
    state->hollow[i]->hollow = false;
    if (state->hollow[i]->slices.count == 0) {
      livenps_slot_remove(state, state->hollow[i]);
    }
  }
  state->hollow_count = 0;
}
