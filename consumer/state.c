#include "state_parts.h"

#include "../common/name.h"
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

/* Invariants kept here
 * 1. A slot's now and previous are the sums of its slices in (head - L, head] and (head - 2L, head - L]; it has no other slices. Pending
 *    rows are in none yet; while there are any, no head moves and no series dies.
 * 2. A slot is in its window's calendar at, or before, the head at which its next slice leaves now or previous.
 * 3. A waiting row's second is above the clock's second; so every slice's number is at most the head.
 * 4. A series is alive while it has a slot, be it hollow until pending rows are spread; the dead are in the list of the dead until they
 *    are reported.
 * 5. While a roll-up folds, no series is made: a series that is alive has all of its numbers. */

enum { CELLS_MAX = 131072 /* kept between folds: what fits, since those with waiting rows always stay */ };

static int64_t second_of(int64_t ms) {
  return livenps_floor_divide(ms, 1000);
}

/* -- making and freeing ------------------------------------------------------------------------------------------------------- */

static int compare_targets(const void *a, const void *b) {
  return strcmp(((const livenps_target *)a)->id, ((const livenps_target *)b)->id);
}

static char *encoded(livenps_text raw) {
  livenps_buffer id = {0};
  livenps_name_encode(raw, &id);
  livenps_buffer_add(&id, "", 1);
  return id.at;
}

void livenps_state_new(livenps_state **out, const livenps_state_config *config) {
  livenps_state *state = livenps_alloc(sizeof *state);
  state->window_count = config->window_count;
  state->windows = livenps_alloc(config->window_count * sizeof *state->windows);
  for (size_t w = 0; w < config->window_count; w++) {
    livenps_pane *pane = &state->windows[w];
    pane->config = config->windows[w];
    assert(pane->config.slice_ms > 0 && pane->config.length_ms % pane->config.slice_ms == 0);
    pane->length = pane->config.length_ms / pane->config.slice_ms;
    assert(pane->length > 0);
  }
  livenps_spread_open(state);
  state->rollup_count = config->rollup_count;
  state->rollups = livenps_alloc(config->rollup_count * sizeof *state->rollups);
  for (size_t r = 0; r < config->rollup_count; r++) {
    livenps_group *group = &state->rollups[r];
    group->config = config->rollups[r];
    group->families = livenps_alloc(config->window_count * sizeof *group->families);
    group->since_ms = livenps_alloc(config->window_count * sizeof *group->since_ms);
    group->bucket_count = 16;
    group->buckets = livenps_alloc(group->bucket_count * sizeof *group->buckets);
  }
  state->series_max = config->series_max;
  state->minimum_n =
      config->minimum_n > 1 ? config->minimum_n : 1; /* without an answer there is nothing to score */
  state->reliable_n = config->reliable_n;
  state->fdr = config->fdr;
  state->targets = livenps_alloc(config->target_count * sizeof *state->targets);
  state->target_count = config->target_count;
  for (size_t i = 0; i < config->target_count; i++) {
    state->targets[i].id = encoded(livenps_text_of(config->targets[i].name));
    state->targets[i].nps = strtod(config->targets[i].value, NULL);
  }
  qsort(state->targets, state->target_count, sizeof *state->targets, compare_targets);
  state->entry_clock_ms = LIVENPS_NO_CLOCK;
  state->cell_buckets = 256;
  state->cells = livenps_alloc(state->cell_buckets * sizeof *state->cells);
  state->epoch = 1;
  *out = state;
}

static void cell_free(livenps_cell_place *cell) {
  livenps_slices_free(&cell->waiting);
  free(cell);
}

static void series_free(livenps_state *state, livenps_series *series) {
  for (size_t w = 0; w < state->window_count; w++) {
    if (series->places[w].slot) {
      livenps_slices_free(&series->places[w].slot->slices);
      free(series->places[w].slot);
    }
  }
  free(series->id);
  free(series);
}

void livenps_state_free(livenps_state *state) {
  if (!state) {
    return;
  }
  livenps_loading_free(state);
  livenps_spread_free(state);
  for (size_t r = 0; r < state->rollup_count; r++) {
    livenps_group *group = &state->rollups[r];
    for (size_t i = 0; i < group->count; i++) {
      series_free(state, group->all[i]);
    }
    for (size_t w = 0; w < state->window_count; w++) {
      free(group->families[w].members);
    }
    free(group->families);
    free(group->since_ms);
    free(group->all);
    free(group->buckets);
  }
  free(state->rollups);
  for (size_t w = 0; w < state->window_count; w++) {
    livenps_pane *pane = &state->windows[w];
    for (size_t i = 0; i < pane->block_count; i++) {
      free(pane->blocks[i].hashes);
    }
    free(pane->blocks);
    livenps_calendar_free(&pane->calendar);
  }
  free(state->windows);
  for (size_t i = 0; i < state->cell_buckets; i++) {
    for (livenps_cell_place *cell = state->cells[i], *next; cell; cell = next) {
      next = cell->next;
      cell_free(cell);
    }
  }
  free(state->cells);
  livenps_calendar_free(&state->waiting);
  livenps_ledger_free(&state->ledger);
  for (size_t i = 0; i < state->target_count; i++) {
    free(state->targets[i].id);
  }
  free(state->targets);
  free(state->changes);
  free(state->dead);
  free(state);
}

/* -- series ------------------------------------------------------------------------------------------------------------------- */

livenps_series *livenps_series_find(const livenps_state *state, size_t rollup, livenps_text id) {
  const livenps_group *group = &state->rollups[rollup];
  uint64_t hash = livenps_hash(id.at, id.length);
  livenps_series *series = group->buckets[hash & (group->bucket_count - 1)];
  while (series && (series->hash != hash || !livenps_text_equal(livenps_text_of(series->id), id))) {
    series = series->next;
  }
  return series;
}

static void group_grow(livenps_group *group) {
  free(group->buckets);
  group->bucket_count *= 2;
  group->buckets = livenps_alloc(group->bucket_count * sizeof *group->buckets);
  for (size_t i = 0; i < group->count; i++) {
    livenps_series **bucket = &group->buckets[group->all[i]->hash & (group->bucket_count - 1)];
    group->all[i]->next = *bucket;
    *bucket = group->all[i];
  }
}

livenps_series *livenps_series_make(livenps_state *state, size_t rollup, livenps_text id) {
  livenps_group *group = &state->rollups[rollup];
  livenps_series *series = livenps_alloc(sizeof *series + state->window_count * sizeof *series->places);
  series->id = livenps_copy(id.at, id.length);
  series->hash = livenps_hash(id.at, id.length);
  series->rollup = (uint32_t)rollup;
  series->other = strcmp(series->id, "~other") == 0;
  if (series->other) {
    group->other = series;
  }
  if (group->config.count == 1 && group->config.dimensions[0] == LIVENPS_TOUCHPOINT && state->target_count) {
    livenps_target key = {.id = series->id};
    const livenps_target *target =
        bsearch(&key, state->targets, state->target_count, sizeof key, compare_targets);
    series->has_target = target != NULL;
    series->target = target ? target->nps : 0;
  }
  if (group->count == group->capacity) {
    group->capacity = group->capacity ? group->capacity * 2 : 16;
    group->all = livenps_resize(group->all, group->capacity * sizeof *group->all);
  }
  series->at = group->count;
  group->all[group->count++] = series;
  if (group->count > group->bucket_count) {
    group_grow(group);
  } else {
    livenps_series **bucket = &group->buckets[series->hash & (group->bucket_count - 1)];
    series->next = *bucket;
    *bucket = series;
  }
  return series;
}

void livenps_series_remove(livenps_state *state, livenps_series *series) {
  livenps_group *group = &state->rollups[series->rollup];
  assert(series->slots == 0);
  livenps_series **link = &group->buckets[series->hash & (group->bucket_count - 1)];
  while (*link != series) {
    link = &(*link)->next;
  }
  *link = series->next;
  group->all[series->at] = group->all[--group->count];
  group->all[series->at]->at = series->at;
  if (group->other == series) {
    group->other = NULL;
  }
  state->epoch++;
  series_free(state, series);
}

static bool alive(const livenps_series *series) {
  return series && series->slots > 0;
}

void livenps_state_mark(livenps_state *state, livenps_series *series, size_t window, bool stale) {
  livenps_place *place = &series->places[window];
  place->stale |= stale;
  if (place->changed) {
    return;
  }
  place->changed = true;
  if (state->change_count == state->change_capacity) {
    state->change_capacity = state->change_capacity ? state->change_capacity * 2 : 64;
    state->changes = livenps_resize(state->changes, state->change_capacity * sizeof *state->changes);
  }
  state->changes[state->change_count++] = (livenps_change){series, (uint32_t)window};
}

/* -- slots: a series in one window ---------------------------------------------------------------------------------------------- */

livenps_slot *livenps_slot_make(livenps_state *state, livenps_series *series, size_t window) {
  livenps_slot *slot = livenps_alloc(sizeof *slot);
  slot->series = series;
  slot->window = (uint32_t)window;
  series->places[window].slot = slot;
  if (series->slots++ == 0) {
    state->rollups[series->rollup].named += !series->other;
    /* All windows of a series are shown from its first answer on, the empty ones with n = 0. */
    for (size_t w = 0; w < state->window_count; w++) {
      livenps_state_mark(state, series, w, false);
    }
  }
  return slot;
}

void livenps_slot_remove(livenps_state *state, livenps_slot *slot) {
  livenps_series *series = slot->series;
  livenps_group *group = &state->rollups[series->rollup];
  livenps_family_leave(state, slot);
  livenps_calendar_remove(&state->windows[slot->window].calendar, &slot->due);
  livenps_slices_free(&slot->slices);
  series->places[slot->window].slot = NULL;
  free(slot);
  if (--series->slots > 0) {
    return;
  }
  group->named -= !series->other;
  if (series->other) {
    group->folding = false;
  }
  state->epoch++;
  if (!series->gone) {
    series->gone = true;
    if (state->dead_count == state->dead_capacity) {
      state->dead_capacity = state->dead_capacity ? state->dead_capacity * 2 : 64;
      state->dead = livenps_resize(state->dead, state->dead_capacity * sizeof *state->dead);
    }
    state->dead[state->dead_count++] = series;
  }
}

void livenps_slot_schedule(livenps_state *state, livenps_slot *slot) {
  livenps_pane *pane = &state->windows[slot->window];
  int64_t first, newer;
  if (!livenps_slices_next(&slot->slices, pane->head - 2 * pane->length + 1, &first)) {
    return;
  }
  int64_t when = first + 2 * pane->length;
  if (livenps_slices_next(&slot->slices, pane->head - pane->length + 1, &newer) &&
      newer + pane->length < when) {
    when = newer + pane->length;
  }
  livenps_calendar_set(&pane->calendar, &slot->due, when);
}

livenps_block *livenps_pane_block(livenps_pane *pane, int64_t number) {
  size_t low = 0, high = pane->block_count;
  if (high && pane->blocks[high - 1].number == number) {
    return &pane->blocks[high - 1];
  }
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (pane->blocks[middle].number < number) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low < pane->block_count && pane->blocks[low].number == number) {
    return &pane->blocks[low];
  }
  if (pane->block_count == pane->block_capacity) {
    pane->block_capacity = pane->block_capacity ? pane->block_capacity * 2 : 16;
    pane->blocks = livenps_resize(pane->blocks, pane->block_capacity * sizeof *pane->blocks);
  }
  memmove(pane->blocks + low + 1, pane->blocks + low, (pane->block_count - low) * sizeof *pane->blocks);
  pane->blocks[low] = (livenps_block){.number = number};
  pane->block_count++;
  return &pane->blocks[low];
}

/* -- cells ---------------------------------------------------------------------------------------------------------------------- */

static uint64_t cell_hash(const livenps_text dimensions[LIVENPS_DIMENSIONS]) {
  uint64_t hash = 0;
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
    uint64_t length = dimensions[d].at ? dimensions[d].length + 1 : 0;
    hash = livenps_hash_more(hash, &length, sizeof length);
    if (length) {
      hash = livenps_hash_more(hash, dimensions[d].at, dimensions[d].length);
    }
  }
  return hash;
}

static bool cell_equal(const livenps_cell_place *cell, const livenps_text dimensions[LIVENPS_DIMENSIONS]) {
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
    if (!livenps_text_equal(cell->dimensions[d], dimensions[d])) {
      return false;
    }
  }
  return true;
}

static void cells_grow(livenps_state *state) {
  size_t count = state->cell_buckets * 2;
  livenps_cell_place **buckets = livenps_alloc(count * sizeof *buckets);
  for (size_t i = 0; i < state->cell_buckets; i++) {
    for (livenps_cell_place *cell = state->cells[i], *next; cell; cell = next) {
      next = cell->next;
      cell->next = buckets[cell->hash & (count - 1)];
      buckets[cell->hash & (count - 1)] = cell;
    }
  }
  free(state->cells);
  state->cells = buckets;
  state->cell_buckets = count;
}

livenps_cell_place *livenps_cell_find(livenps_state *state,
                                      const livenps_text dimensions[LIVENPS_DIMENSIONS]) {
  uint64_t hash = cell_hash(dimensions);
  livenps_cell_place *cell = state->cells[hash & (state->cell_buckets - 1)];
  while (cell && (cell->hash != hash || !cell_equal(cell, dimensions))) {
    cell = cell->next;
  }
  if (cell) {
    return cell;
  }
  size_t fixed = sizeof *cell + state->rollup_count * sizeof *cell->series, names = 0;
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
    names += dimensions[d].at ? dimensions[d].length : 0;
  }
  cell = livenps_alloc(fixed + names);
  cell->hash = hash;
  char *name = (char *)cell + fixed;
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
    if (dimensions[d].at) {
      memcpy(name, dimensions[d].at, dimensions[d].length);
      cell->dimensions[d] = (livenps_text){name, dimensions[d].length};
      name += dimensions[d].length;
    }
  }
  if (++state->cell_count > state->cell_buckets) {
    cells_grow(state);
  }
  livenps_cell_place **bucket = &state->cells[hash & (state->cell_buckets - 1)];
  cell->next = *bucket;
  *bucket = cell;
  return cell;
}

/* Only between folds: a fold keeps pointers to its cells. */
static void cells_sweep(livenps_state *state) {
  if (state->cell_count <= CELLS_MAX) {
    return;
  }
  livenps_state_spread(state); /* what is pending points to its cells */
  for (size_t i = 0; i < state->cell_buckets; i++) {
    for (livenps_cell_place **link = &state->cells[i]; *link;) {
      livenps_cell_place *cell = *link;
      if (cell->waiting.count) {
        link = &cell->next;
      } else {
        *link = cell->next;
        cell_free(cell);
        state->cell_count--;
      }
    }
  }
}

/* The series that a cell counts for in one roll-up; NULL when a dimension is absent. */
static livenps_series *resolve_one(livenps_state *state, const livenps_cell_place *cell, size_t rollup,
                                   livenps_buffer *id) {
  livenps_group *group = &state->rollups[rollup];
  id->length = 0;
  for (int i = 0; i < group->config.count; i++) {
    livenps_text name = cell->dimensions[group->config.dimensions[i]];
    if (!name.at || name.length == 0) {
      return NULL;
    }
    if (i) {
      livenps_buffer_add(id, "|", 1);
    }
    livenps_name_encode(name, id);
  }
  if (group->config.count == 0) {
    livenps_buffer_add(id, "all", 3);
  }
  livenps_text text = {id->at, id->length};
  livenps_series *series = livenps_series_find(state, rollup, text);
  if (alive(series)) {
    return series;
  }
  if (group->named >= state->series_max) {
    group->folding = true;
  }
  if (!group->folding) {
    return series ? series : livenps_series_make(state, rollup, text);
  }
  return group->other ? group->other : livenps_series_make(state, rollup, livenps_text_of("~other"));
}

void livenps_cell_resolve(livenps_state *state, livenps_cell_place *cell, int64_t second) {
  size_t window = 0; /* one that keeps the second */
  while (livenps_floor_divide(second * 1000, state->windows[window].config.slice_ms) <=
         state->windows[window].head - 2 * state->windows[window].length) {
    window++;
  }
  livenps_buffer id = {0};
  for (size_t r = 0; r < state->rollup_count; r++) {
    livenps_series *series = cell->series[r] = resolve_one(state, cell, r, &id);
    if (series && !alive(series)) {
      livenps_slot_hollow(state, series, window);
    }
  }
  livenps_buffer_free(&id);
  cell->epoch = state->epoch;
}

void livenps_cell_wait(livenps_state *state, livenps_cell_place *cell, int64_t second,
                       const livenps_counters *counters) {
  livenps_slices_add(&cell->waiting, second, counters->at, livenps_counters_mask(counters));
  int64_t first;
  if (livenps_slices_next(&cell->waiting, LIVENPS_FIRST_SECOND, &first)) {
    livenps_calendar_set(&state->waiting, &cell->due, first);
  } else {
    livenps_calendar_remove(&state->waiting, &cell->due);
  }
}

static void add(livenps_state *state, livenps_cell_place *cell, int64_t second,
                const livenps_counters *counters, uint32_t mask) {
  if (!mask) {
    return;
  }
  if (state->started && second <= second_of(state->clock_ms)) {
    livenps_state_pend(state, cell, second, mask, counters->at);
  } else {
    livenps_cell_wait(state, cell, second, counters);
  }
}

/* -- folding -------------------------------------------------------------------------------------------------------------------- */

int livenps_state_fold(livenps_state *state, const livenps_entry *entry, int64_t entry_ms,
                       livenps_error *error) {
  if (livenps_ledger_check(&state->ledger, entry, error)) {
    return -1;
  }
  for (size_t i = 0; i < entry->cell_count; i++) {
    for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
      if (entry->cells[i].dimensions[d].length > LIVENPS_MAX_ID) {
        return livenps_fail(error, LIVENPS_E_DATA, "log entry: cell %zu has a %s of more than %d bytes", i,
                            livenps_dimension_names[d], LIVENPS_MAX_ID);
      }
    }
  }
  for (size_t i = 0; i < entry->row_count; i++) {
    const livenps_row *row = &entry->rows[i];
    assert(row->cell < entry->cell_count);
    if (row->second < LIVENPS_FIRST_SECOND || row->second > LIVENPS_LAST_SECOND) {
      return livenps_fail(error, LIVENPS_E_DATA,
                          "log entry: row %zu is of second %" PRId64 ", outside the years 1 to 9999", i,
                          row->second);
    }
  }
  livenps_ledger_fold(&state->ledger, entry, entry_ms);
  if (entry->clock_ms > state->entry_clock_ms) {
    state->entry_clock_ms = entry->clock_ms;
  }
  cells_sweep(state);
  livenps_cell_place **cells = livenps_alloc(entry->cell_count * sizeof *cells);
  for (size_t i = 0; i < entry->row_count; i++) {
    const livenps_row *row = &entry->rows[i];
    if (!cells[row->cell]) {
      cells[row->cell] = livenps_cell_find(state, entry->cells[row->cell].dimensions);
    }
    add(state, cells[row->cell], row->second, &row->counters,
        row->mask ? row->mask : livenps_counters_mask(&row->counters));
  }
  free(cells);
  return 0;
}

void livenps_state_add(livenps_state *state, const livenps_text dimensions[LIVENPS_DIMENSIONS],
                       int64_t second, const livenps_counters *counters) {
  assert(second >= LIVENPS_FIRST_SECOND && second <= LIVENPS_LAST_SECOND);
  cells_sweep(state);
  add(state, livenps_cell_find(state, dimensions), second, counters, livenps_counters_mask(counters));
}

void livenps_state_start(livenps_state *state, livenps_text topic, int32_t partition, int64_t start,
                         int64_t covered_since_ms) {
  livenps_partition *line = livenps_ledger_line(&state->ledger, topic, partition);
  line->start = start;
  line->position = (livenps_position){.next = start, .incarnation = 1};
  line->through_ms = 0;
  line->covered_since_ms = covered_since_ms;
}

const livenps_partition *livenps_state_partitions(const livenps_state *state, size_t *count) {
  *count = state->ledger.count;
  return state->ledger.at;
}

/* -- the clock ------------------------------------------------------------------------------------------------------------------ */

/* The head has moved from `before`: what is behind the border between now and previous changes sides, what is behind both goes. */
static void slot_move(livenps_state *state, livenps_slot *slot, int64_t before) {
  const livenps_pane *pane = &state->windows[slot->window];
  int64_t border_before = before - pane->length, border = pane->head - pane->length,
          end = border - pane->length;
  livenps_cursor cursor = livenps_slices_from(&slot->slices, before - 2 * pane->length + 1);
  while (livenps_cursor_next(&cursor) && cursor.number <= end) {
    livenps_packed_apply(cursor.number > border_before ? &slot->now : &slot->previous, cursor.bytes,
                         cursor.length, -1);
  }
  cursor = livenps_slices_from(&slot->slices, (border_before > end ? border_before : end) + 1);
  while (livenps_cursor_next(&cursor) && cursor.number <= border) {
    livenps_packed_apply(&slot->now, cursor.bytes, cursor.length, -1);
    livenps_packed_apply(&slot->previous, cursor.bytes, cursor.length, 1);
  }
  livenps_slices_drop(&slot->slices, end + 1);
  livenps_state_mark(state, slot->series, slot->window, true);
  if (slot->slices.count == 0) {
    livenps_slot_remove(state, slot);
  } else {
    livenps_slot_schedule(state, slot);
  }
}

void livenps_pane_move(livenps_pane *pane, int64_t clock_ms) {
  pane->head = livenps_floor_divide(clock_ms, pane->config.slice_ms);
  int64_t oldest = livenps_floor_divide(pane->head - 2 * pane->length + 1, LIVENPS_BLOCK);
  size_t left = 0;
  while (left < pane->block_count && pane->blocks[left].number < oldest) {
    free(pane->blocks[left++].hashes);
  }
  if (left) {
    pane->block_count -= left;
    memmove(pane->blocks, pane->blocks + left, pane->block_count * sizeof *pane->blocks);
  }
}

void livenps_state_oldest(livenps_state *state) {
  state->oldest_ms = INT64_MAX;
  for (size_t w = 0; w < state->window_count; w++) {
    const livenps_pane *pane = &state->windows[w];
    int64_t oldest_ms = (pane->head - 2 * pane->length + 1) * pane->config.slice_ms;
    state->oldest_ms = oldest_ms < state->oldest_ms ? oldest_ms : state->oldest_ms;
  }
}

/* While no slice ends the clock costs nothing, and what is pending stays so. */
static void move_windows(livenps_state *state, int64_t clock_ms) {
  bool still = state->started;
  for (size_t w = 0; w < state->window_count && still; w++) {
    const livenps_pane *pane = &state->windows[w];
    still = livenps_floor_divide(clock_ms, pane->config.slice_ms) == pane->head;
  }
  if (still) {
    return;
  }
  livenps_state_spread(state);
  for (size_t w = 0; w < state->window_count; w++) {
    livenps_pane *pane = &state->windows[w];
    int64_t before = pane->head;
    livenps_pane_move(pane, clock_ms);
    for (livenps_due *due; (due = livenps_calendar_first(&pane->calendar)) && due->when <= pane->head;) {
      slot_move(state, (livenps_slot *)due, before);
    }
  }
  livenps_state_oldest(state);
}

void livenps_state_advance(livenps_state *state, int64_t clock_ms) {
  if (clock_ms > LIVENPS_LAST_SECOND * 1000) {
    clock_ms = LIVENPS_LAST_SECOND * 1000;
  }
  if (clock_ms < LIVENPS_FIRST_SECOND * 1000 || (state->started && clock_ms <= state->clock_ms)) {
    return;
  }
  move_windows(state, clock_ms);
  state->started = true;
  state->clock_ms = clock_ms;
  for (livenps_due *due;
       (due = livenps_calendar_first(&state->waiting)) && due->when <= second_of(clock_ms);) {
    livenps_cell_place *cell = (livenps_cell_place *)due;
    livenps_cursor cursor = livenps_slices_from(&cell->waiting, due->when);
    while (livenps_cursor_next(&cursor) && cursor.number <= second_of(clock_ms)) {
      const char *at = cursor.bytes;
      livenps_counters counters;
      uint32_t mask = 0;
      livenps_counters_unpack(&at, at + cursor.length, &counters, &mask);
      livenps_state_pend(state, cell, cursor.number, mask, counters.at);
    }
    livenps_slices_drop(&cell->waiting, second_of(clock_ms) + 1);
    int64_t first;
    if (livenps_slices_next(&cell->waiting, second_of(clock_ms) + 1, &first)) {
      livenps_calendar_set(&state->waiting, due, first);
    } else {
      livenps_calendar_remove(&state->waiting, due);
    }
  }
}

int64_t livenps_state_clock(const livenps_state *state) {
  return state->clock_ms;
}

int64_t livenps_state_entry_clock(const livenps_state *state) {
  return state->entry_clock_ms;
}

size_t livenps_state_series(const livenps_state *state, size_t rollup, bool *capped) {
  livenps_state_spread(state);
  const livenps_group *group = &state->rollups[rollup];
  bool other = alive(group->other);
  if (capped) {
    *capped = other;
  }
  return group->named + other;
}

int64_t livenps_state_window_since(const livenps_state *state, size_t rollup, size_t window) {
  return state->rollups[rollup].since_ms[window];
}
