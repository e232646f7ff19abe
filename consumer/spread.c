#include "state_parts.h"

#include <stdlib.h>

/* From rows to slices. A row counts in every roll-up and every window: 36 places with the defaults. Most of these places are the same ones
 * for many rows, so rows are only noted when they are folded, and spread together, when somebody looks or a slice ends:
 *
 *   rows, by second --added up by cell--> cells of a second --by series--> finest window's slice --> coarser window's slice --> ...
 *
 * One series after the other gets its rows, in the order of their seconds: so a window needs one sum, that of the slice the rows are in, and
 * what a series has in memory - places, slots, newest slices - is needed once and asked for early. A window whose slices consist of whole
 * slices of a finer one is fed from that one's sums, any other from the rows. Rows that are too old for a window go to those that it feeds.
 * So a spread costs one addition per row and roll-up, and one slice per series, window and slice that its rows touch.
 *
 * Addition is exact whatever its order, so what comes out is what adding row by row gives. What is decided at arrival, in the order of the
 * log, is only which series a name gets (resolve): the series is alive from then on by a slot that is hollow until the spread. */

enum {
  PENDING_MAX = 65536, /* rows; bounds the memory, about 50 bytes each, twice */
  DIGIT = 12           /* bits, of the sort by second */
};

/* -- the tree of windows ---------------------------------------------------------------------------------------------------------- */

static bool finer(const livenps_state *state, size_t a, size_t b) {
  int64_t x = state->windows[a].config.slice_ms, y = state->windows[b].config.slice_ms;
  return x != y ? x < y : a < b;
}

void livenps_spread_open(livenps_state *state) {
  size_t count = state->window_count;
  state->finest_first = livenps_alloc((count + 1) * sizeof *state->finest_first);
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
    free(state->windows[w].fed);
  }
  free(state->finest_first);
  free(state->roots);
  free(state->cell_sums.at);
  free(state->hollow);
  free(state->order);
  free(state->served);
  free(state->by_series);
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

static void slot_add(livenps_state *state, livenps_pane *pane, livenps_slot *slot) {
  const livenps_sum *sum = &pane->sum;
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

static void flush(livenps_state *state, livenps_series *series, size_t window);

/* From here on the window's sum is of the slice that this moment is in. */
static void open_slice(livenps_state *state, livenps_series *series, size_t window, int64_t ms) {
  livenps_pane *pane = &state->windows[window];
  if (ms >= pane->begin_ms && ms < pane->end_ms) {
    return;
  }
  flush(state, series, window);
  pane->number = livenps_floor_divide(ms, pane->config.slice_ms);
  pane->begin_ms = pane->number * pane->config.slice_ms;
  pane->end_ms = pane->begin_ms + pane->config.slice_ms;
}

/* Adds the sum to its slice and to the windows that are fed from this one. */
static void flush(livenps_state *state, livenps_series *series, size_t window) {
  livenps_pane *pane = &state->windows[window];
  if (!pane->sum.mask) {
    return;
  }
  /* Else only windows that are fed from this one have a place for it. */
  if (pane->begin_ms >= pane->oldest_ms) {
    livenps_pane_block(pane, livenps_floor_divide(pane->number, LIVENPS_BLOCK))->dirty = true;
    livenps_slot *slot = series->places[window].slot;
    slot_add(state, pane, slot ? slot : livenps_slot_hollow(state, series, window));
  }
  for (size_t i = 0; i < pane->fed_count; i++) {
    open_slice(state, series, pane->fed[i], pane->begin_ms);
    sum_sum(&state->windows[pane->fed[i]].sum, &pane->sum);
  }
  pane->sum.mask = 0;
}

/* A row goes to the finest windows that keep it. */
static void enter(livenps_state *state, livenps_series *series, const size_t *windows, size_t count,
                  const livenps_pending *row, const int64_t *values) {
  for (size_t i = 0; i < count; i++) {
    livenps_pane *pane = &state->windows[windows[i]];
    int64_t ms = row->second * 1000;
    if (ms >= pane->oldest_ms) {
      open_slice(state, series, windows[i], ms);
      sum_row(&pane->sum, row->mask, values);
    } else {
      enter(state, series, pane->fed, pane->fed_count, row, values);
    }
  }
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
  livenps_cell_sums *sums = &state->cell_sums;
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
      if (!row->cell->sum) {
        if (sums->count == sums->capacity) {
          sums->capacity = sums->capacity ? sums->capacity * 2 : 64;
          sums->at = livenps_resize(sums->at, sums->capacity * sizeof *sums->at);
        }
        sums->at[sums->count].cell = row->cell;
        sums->at[sums->count].sum.mask = 0;
        row->cell->sum = ++sums->count;
      }
      sum_row(&sums->at[row->cell->sum - 1].sum, row->mask, rows->values + row->first);
    }
    for (uint32_t s = 0; s < sums->count; s++) {
      livenps_cell_sum *sum = &sums->at[s];
      sum->cell->sum = 0;
      rows_add(&state->merged, sum->cell, of, sum->sum.mask, sum->sum.at);
    }
  }
}

/* The merged rows' places by series; returns how many series there are. Each one's rows end at its number of them then. */
static size_t group(livenps_state *state, size_t rollup) {
  const livenps_pendings *rows = &state->merged;
  size_t count = 0;
  uint32_t end = 0;
  for (size_t i = 0; i < rows->count; i++) {
    if (i + 32 < rows->count) {
      __builtin_prefetch(&rows->at[i + 32].cell->series[rollup]);
    }
    if (i + 12 < rows->count && rows->at[i + 12].cell->series[rollup]) {
      __builtin_prefetch(&rows->at[i + 12].cell->series[rollup]->rows, 1);
    }
    livenps_series *series = rows->at[i].cell->series[rollup];
    if (series && series->rows++ == 0) {
      state->served[count++] = series;
    }
  }
  for (size_t i = 0; i < count; i++) {
    uint32_t own = state->served[i]->rows;
    state->served[i]->rows = end;
    end += own;
  }
  for (size_t i = 0; i < rows->count; i++) {
    livenps_series *series = rows->at[i].cell->series[rollup];
    if (series) {
      state->by_series[series->rows++] = (uint32_t)i;
    }
  }
  return count;
}

/* A busy state is larger than any cache: what a series needs is asked for before its turn, in the order in which it is found. */
static void prefetch(const livenps_state *state, size_t at, size_t count) {
  if (at + 12 < count) {
    const char *series = (const char *)state->served[at + 12];
    __builtin_prefetch(series);
    __builtin_prefetch(series + 64);
    __builtin_prefetch(series + 128);
  }
  for (size_t w = 0; at + 6 < count && w < state->window_count; w++) {
    const livenps_slot *slot = state->served[at + 6]->places[w].slot;
    if (slot) {
      __builtin_prefetch(slot, 1);
      __builtin_prefetch(&slot->now, 1);
      __builtin_prefetch(&slot->now.at[8], 1);
    }
  }
  for (size_t w = 0; at + 2 < count && w < state->window_count; w++) {
    const livenps_slot *slot = state->served[at + 2]->places[w].slot;
    if (slot && slot->slices.last) {
      __builtin_prefetch(slot->slices.last, 1);
      __builtin_prefetch((const char *)slot->slices.last + 64, 1);
      __builtin_prefetch(slot->slices.pages + slot->slices.count - 1);
    }
  }
}

static void spread_rollup(livenps_state *state, size_t rollup) {
  const livenps_pendings *rows = &state->merged;
  size_t count = group(state, rollup), at = 0;
  for (size_t i = 0; i < count; i++) {
    livenps_series *series = state->served[i];
    prefetch(state, i, count);
    for (; at < series->rows; at++) {
      const livenps_pending *row = &rows->at[state->by_series[at]];
      enter(state, series, state->roots, state->root_count, row, rows->values + row->first);
    }
    series->rows = 0;
    for (size_t w = 0; w < state->window_count; w++) {
      flush(state, series, state->finest_first[w]);
    }
  }
}

void livenps_state_spread(const livenps_state *constant) {
  livenps_state *state = (livenps_state *)(uintptr_t)constant;
  if (!state->pending.count) {
    return;
  }
  merge(state);
  if (state->served_capacity < state->merged.count) {
    state->served_capacity = state->merged.capacity;
    state->served = livenps_resize(state->served, state->served_capacity * sizeof *state->served);
    state->by_series = livenps_resize(state->by_series, state->served_capacity * sizeof *state->by_series);
  }
  for (size_t w = 0; w < state->window_count; w++) {
    livenps_pane *pane = &state->windows[w];
    pane->oldest_ms = (pane->head - 2 * pane->length + 1) * pane->config.slice_ms;
  }
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
