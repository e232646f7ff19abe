#include "state_parts.h"

#include "../common/log.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Chunks (all begin with the kind and the format version; numbers are varints, signed ones zigzag)
 *
 *   'S' version  text window, length_ms, slice_ms, signed block, part
 *                roll-ups, then each: text name
 *                until the end: roll-up's place in that list, text id, slices (1..64), then each: number - first of the block
 *                (rising), packed counters
 *   'H' version  started, signed clock_ms, signed entry_clock_ms
 *                windows, then each: text name, length_ms, slice_ms
 *                roll-ups, then each: text name, folding, series_max, per window signed since_ms
 *                chunks, then each: text name, 8 bytes hash
 *                partitions, then each: text topic, partition, signed start, next, through_ms, covered_since_ms, accepted, late,
 *                duplicate, out_of_range, holes, gap; kinds of rejects, then each: text reason, signed count
 *                waiting cells, then each: presence mask, texts, seconds, then each: signed difference, packed counters
 *
 * A chunk that did not change since it was stored may still hold slices that have left since: the loader drops them. */
enum {
  SNAPSHOT_VERSION = 2,
  NAME_MAX_BYTES = 64,
  ID_MAX_BYTES = LIVENPS_DIMENSIONS * (3 * LIVENPS_MAX_ID + 1)
};

/* Tells a chunk of another snapshot under an old name; not a defence, the store is ours. FNV-1a. */
static uint64_t hash_of(const char *bytes, size_t length) {
  uint64_t hash = 14695981039346656037u;
  for (size_t i = 0; i < length; i++) {
    hash = (hash ^ (unsigned char)bytes[i]) * 1099511628211u;
  }
  return hash;
}

static void chunk_name(char out[96], const char *window, int64_t block, uint64_t part) {
  if (part) {
    snprintf(out, 96, "%s.%" PRId64 ".%" PRIu64, window, block, part);
  } else {
    snprintf(out, 96, "%s.%" PRId64, window, block);
  }
}

static void put_start(livenps_buffer *out, char kind) {
  livenps_buffer_add(out, &kind, 1);
  livenps_put_varint(out, SNAPSHOT_VERSION);
}

static void put_packed(livenps_buffer *out, const livenps_cursor *cursor) {
  livenps_buffer_add(out, cursor->bytes, cursor->length);
}

/* -- writing ------------------------------------------------------------------------------------------------------------------ */

static void put_block_start(const livenps_state *state, const livenps_pane *pane, int64_t block,
                            uint32_t part, livenps_buffer *out) {
  out->length = 0;
  put_start(out, 'S');
  livenps_put_text(out, livenps_text_of(pane->config.name));
  livenps_put_varint(out, (uint64_t)pane->config.length_ms);
  livenps_put_varint(out, (uint64_t)pane->config.slice_ms);
  livenps_put_signed(out, block);
  livenps_put_varint(out, part);
  livenps_put_varint(out, state->rollup_count);
  for (size_t r = 0; r < state->rollup_count; r++) {
    livenps_put_text(out, livenps_text_of(state->rollups[r].config.name));
  }
}

static void put_slices(const livenps_series *series, const livenps_slot *slot, int64_t block,
                       livenps_buffer *out) {
  int64_t first = block * LIVENPS_BLOCK;
  uint64_t count = 0;
  livenps_cursor cursor = livenps_slices_from(&slot->slices, first);
  while (livenps_cursor_next(&cursor) && cursor.number < first + LIVENPS_BLOCK) {
    count++;
  }
  if (!count) {
    return;
  }
  livenps_put_varint(out, series->rollup);
  livenps_put_text(out, livenps_text_of(series->id));
  livenps_put_varint(out, count);
  cursor = livenps_slices_from(&slot->slices, first);
  while (livenps_cursor_next(&cursor) && cursor.number < first + LIVENPS_BLOCK) {
    livenps_put_varint(out, (uint64_t)(cursor.number - first));
    put_packed(out, &cursor);
  }
}

typedef struct {
  livenps_chunk_visitor chunk;
  void *opaque;
  size_t chunk_bytes;
  livenps_buffer buffer;
} writer;

static int write_part(writer *to, const livenps_pane *pane, livenps_block *block) {
  char name[96];
  chunk_name(name, pane->config.name, block->number, block->parts);
  block->hashes = livenps_resize(block->hashes, (block->parts + 1) * sizeof *block->hashes);
  block->hashes[block->parts++] = hash_of(to->buffer.at, to->buffer.length);
  return to->chunk(to->opaque, name, true, to->buffer.at, to->buffer.length);
}

static int write_block(const livenps_state *state, size_t window, livenps_block *block, writer *to) {
  const livenps_pane *pane = &state->windows[window];
  int stop = 0;
  if (!block->dirty && !block->pending) {
    for (uint32_t part = 0; part < block->parts && !stop; part++) {
      char name[96];
      chunk_name(name, pane->config.name, block->number, part);
      stop = to->chunk(to->opaque, name, false, NULL, 0);
    }
    return stop;
  }
  block->dirty = false;
  block->pending = true;
  block->parts = 0;
  put_block_start(state, pane, block->number, 0, &to->buffer);
  for (size_t r = 0; r < state->rollup_count; r++) {
    for (size_t i = 0; i < state->rollups[r].count; i++) {
      const livenps_series *series = state->rollups[r].all[i];
      if (!series->places[window].slot) {
        continue;
      }
      put_slices(series, series->places[window].slot, block->number, &to->buffer);
      if (to->buffer.length >= to->chunk_bytes) {
        if ((stop = write_part(to, pane, block))) {
          return stop;
        }
        put_block_start(state, pane, block->number, block->parts, &to->buffer);
      }
    }
  }
  return write_part(to, pane, block);
}

static void put_dimensions(livenps_buffer *out, const livenps_text dimensions[LIVENPS_DIMENSIONS]) {
  uint64_t mask = 0;
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
    mask |= (uint64_t)(dimensions[d].at != NULL) << d;
  }
  livenps_put_varint(out, mask);
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
    if (dimensions[d].at) {
      livenps_put_text(out, dimensions[d]);
    }
  }
}

static void put_waiting(const livenps_cell_place *cell, livenps_buffer *out) {
  uint64_t count = 0;
  int64_t before = 0;
  livenps_cursor cursor = livenps_slices_from(&cell->waiting, LIVENPS_FIRST_SECOND);
  while (livenps_cursor_next(&cursor)) {
    count++;
  }
  put_dimensions(out, cell->dimensions);
  livenps_put_varint(out, count);
  cursor = livenps_slices_from(&cell->waiting, LIVENPS_FIRST_SECOND);
  while (livenps_cursor_next(&cursor)) {
    livenps_put_signed(out, cursor.number - before);
    put_packed(out, &cursor);
    before = cursor.number;
  }
}

/* What stands in the digest: neither the manner nor the time of reading. */
static void put_counts(livenps_buffer *out, const livenps_partition *line) {
  const int64_t numbers[] = {line->start,     line->position.next, line->accepted, line->late,
                             line->duplicate, line->out_of_range,  line->holes,    line->gap};
  uint64_t kinds = 0;
  livenps_put_text(out, livenps_text_of(line->topic));
  livenps_put_varint(out, (uint32_t)line->partition);
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    livenps_put_signed(out, numbers[i]);
  }
  for (int reason = 0; reason < LIVENPS_REASONS; reason++) {
    kinds += line->rejected[reason] != 0;
  }
  livenps_put_varint(out, kinds);
  for (int reason = 0; reason < LIVENPS_REASONS; reason++) {
    if (line->rejected[reason]) {
      livenps_put_text(out, livenps_text_of(livenps_reason_name((livenps_reason)reason)));
      livenps_put_signed(out, line->rejected[reason]);
    }
  }
}

static void put_partition(livenps_buffer *out, const livenps_partition *line) {
  char position[LIVENPS_POSITION_MAX];
  put_counts(out, line);
  livenps_put_text(out, (livenps_text){position, livenps_position_print(&line->position, position)});
  livenps_put_signed(out, line->through_ms);
  livenps_put_signed(out, line->covered_since_ms);
}

static void put_head(const livenps_state *state, livenps_buffer *out) {
  out->length = 0;
  put_start(out, 'H');
  livenps_put_varint(out, state->started);
  livenps_put_signed(out, state->clock_ms);
  livenps_put_signed(out, state->entry_clock_ms);
  uint64_t chunks = 0;
  livenps_put_varint(out, state->window_count);
  for (size_t w = 0; w < state->window_count; w++) {
    const livenps_pane *pane = &state->windows[w];
    livenps_put_text(out, livenps_text_of(pane->config.name));
    livenps_put_varint(out, (uint64_t)pane->config.length_ms);
    livenps_put_varint(out, (uint64_t)pane->config.slice_ms);
    for (size_t b = 0; b < pane->block_count; b++) {
      chunks += pane->blocks[b].parts;
    }
  }
  livenps_put_varint(out, state->rollup_count);
  for (size_t r = 0; r < state->rollup_count; r++) {
    const livenps_group *group = &state->rollups[r];
    livenps_put_text(out, livenps_text_of(group->config.name));
    livenps_put_varint(out, group->folding);
    livenps_put_varint(out, state->series_max);
    for (size_t w = 0; w < state->window_count; w++) {
      livenps_put_signed(out, group->since_ms[w]);
    }
  }
  livenps_put_varint(out, chunks);
  for (size_t w = 0; w < state->window_count; w++) {
    const livenps_pane *pane = &state->windows[w];
    for (size_t b = 0; b < pane->block_count; b++) {
      for (uint32_t part = 0; part < pane->blocks[b].parts; part++) {
        char name[96];
        chunk_name(name, pane->config.name, pane->blocks[b].number, part);
        livenps_put_text(out, livenps_text_of(name));
        livenps_buffer_add(out, &pane->blocks[b].hashes[part], sizeof *pane->blocks[b].hashes);
      }
    }
  }
  livenps_put_varint(out, state->ledger.count);
  for (size_t i = 0; i < state->ledger.count; i++) {
    put_partition(out, &state->ledger.at[i]);
  }
  livenps_put_varint(out, state->waiting.count);
  for (size_t i = 1; i <= state->waiting.count; i++) {
    put_waiting((const livenps_cell_place *)state->waiting.heap[i], out);
  }
}

int livenps_state_snapshot(livenps_state *state, size_t chunk_bytes, livenps_chunk_visitor chunk,
                           void *opaque) {
  writer to = {.chunk = chunk, .opaque = opaque, .chunk_bytes = chunk_bytes};
  int stop = 0;
  livenps_state_spread(state);
  for (size_t w = 0; w < state->window_count && !stop; w++) {
    for (size_t b = 0; b < state->windows[w].block_count && !stop; b++) {
      stop = write_block(state, w, &state->windows[w].blocks[b], &to);
    }
  }
  if (!stop) {
    put_head(state, &to.buffer);
    stop = chunk(opaque, "head", true, to.buffer.at, to.buffer.length);
  }
  livenps_buffer_free(&to.buffer);
  return stop;
}

void livenps_state_saved(livenps_state *state) {
  for (size_t w = 0; w < state->window_count; w++) {
    for (size_t b = 0; b < state->windows[w].block_count; b++) {
      state->windows[w].blocks[b].pending = false;
    }
  }
}

void livenps_state_unsaved(livenps_state *state) {
  for (size_t w = 0; w < state->window_count; w++) {
    for (size_t b = 0; b < state->windows[w].block_count; b++) {
      state->windows[w].blocks[b].dirty = true;
    }
  }
}

/* -- loading: slices go to their slots at once, totals and calendars are made when the clock is known --------------------------- */

typedef struct {
  char name[96];
  uint64_t hash;
  size_t window; /* window_count: not configured */
  int64_t block;
  uint64_t part;
} seen_chunk;

struct livenps_loading {
  seen_chunk *chunks;
  size_t count, capacity;
  char *head; /* kept until all other chunks are there */
  size_t head_length;
};

void livenps_loading_free(livenps_state *state) {
  if (state->loading) {
    free(state->loading->chunks);
    free(state->loading->head);
    free(state->loading);
    state->loading = NULL;
  }
}

/* Reads from bytes; after the first thing that does not fit, bad is set and all further numbers are 0 and texts empty. */
typedef struct {
  const char *at, *end;
  bool bad;
} reader;

static uint64_t get(reader *from, uint64_t max) {
  uint64_t value = 0;
  from->bad |= from->bad || livenps_get_varint(&from->at, from->end, &value) || value > max;
  return from->bad ? 0 : value;
}

static int64_t get_signed(reader *from, int64_t min, int64_t max) {
  int64_t value = 0;
  from->bad |= from->bad || livenps_get_signed(&from->at, from->end, &value) || value < min || value > max;
  return from->bad ? 0 : value;
}

static livenps_text get_name(reader *from, size_t max) {
  livenps_text text = {"", 0};
  from->bad |= from->bad || livenps_get_text(&from->at, from->end, &text) || text.length == 0 ||
               text.length > max || memchr(text.at, '\0', text.length);
  return from->bad ? (livenps_text){"", 0} : text;
}

/* Packed counters that are not all zero, as every slice has them. */
static uint32_t get_counters(reader *from, livenps_counters *counters) {
  uint32_t mask = 0;
  *counters = (livenps_counters){0};
  from->bad |= from->bad || livenps_counters_unpack(&from->at, from->end, counters, &mask) || !mask;
  return from->bad ? 0 : mask;
}

static bool name_is(const char *name, livenps_text text) {
  return livenps_text_equal(livenps_text_of(name), text);
}

static size_t find_window(const livenps_state *state, livenps_text name, uint64_t length_ms,
                          uint64_t slice_ms) {
  size_t w = 0;
  while (w < state->window_count && !(name_is(state->windows[w].config.name, name) &&
                                      (uint64_t)state->windows[w].config.length_ms == length_ms &&
                                      (uint64_t)state->windows[w].config.slice_ms == slice_ms)) {
    w++;
  }
  return w;
}

static size_t find_rollup(const livenps_state *state, livenps_text name) {
  size_t r = 0;
  while (r < state->rollup_count && !name_is(state->rollups[r].config.name, name)) {
    r++;
  }
  return r;
}

static int damaged(livenps_error *error, const char *name) {
  return livenps_fail(error, LIVENPS_E_DATA,
                      "snapshot: chunk %s is damaged or not ours; an older snapshot or a genesis is needed",
                      name);
}

static void load_series(livenps_state *state, reader *from, size_t window, int64_t block,
                        const size_t *rollups, size_t rollup_count) {
  uint64_t index = get(from, rollup_count - 1);
  livenps_text id = get_name(from, ID_MAX_BYTES);
  uint64_t count = get(from, LIVENPS_BLOCK), last = 0;
  from->bad |= count == 0;
  livenps_slot *slot = NULL;
  if (!from->bad && window < state->window_count && rollups[index] < state->rollup_count) {
    livenps_series *series = livenps_series_find(state, rollups[index], id);
    series = series ? series : livenps_series_make(state, rollups[index], id);
    slot = series->places[window].slot;
    slot = slot ? slot : livenps_slot_make(state, series, window);
  }
  for (uint64_t i = 0; i < count && !from->bad; i++) {
    uint64_t offset = get(from, LIVENPS_BLOCK - 1);
    from->bad |= i > 0 && offset <= last;
    last = offset;
    livenps_counters counters;
    uint32_t mask = get_counters(from, &counters);
    if (slot && !from->bad) {
      /* A slice that is there already came with another chunk of this block: no writer makes that. */
      from->bad |=
          livenps_slices_add(&slot->slices, block * LIVENPS_BLOCK + (int64_t)offset, counters.at, mask) != 1;
    }
  }
}

static int load_slices(livenps_state *state, const char *bytes, size_t length, livenps_error *error) {
  reader from = {.at = bytes + 2, .end = bytes + length};
  struct livenps_loading *loading = state->loading;
  seen_chunk seen = {.hash = hash_of(bytes, length)};
  livenps_text window = get_name(&from, NAME_MAX_BYTES);
  uint64_t length_ms = get(&from, INT64_MAX), slice_ms = get(&from, INT64_MAX);
  if (from.bad || slice_ms == 0) {
    return damaged(error, "of slices");
  }
  /* Every slice of a real block lies in the years that event times have. */
  int64_t most = LIVENPS_LAST_SECOND * 1000 / (int64_t)slice_ms / LIVENPS_BLOCK + 1;
  seen.block = get_signed(&from, -most, most);
  seen.part = get(&from, UINT32_MAX);
  seen.window = find_window(state, window, length_ms, slice_ms);
  char name[NAME_MAX_BYTES + 1];
  livenps_printable(name, sizeof name, window.at, window.length);
  chunk_name(seen.name, name, seen.block, seen.part);
  uint64_t count = get(&from, 1024);
  size_t rollups[1024];
  for (uint64_t r = 0; r < count; r++) {
    rollups[r] = find_rollup(state, get_name(&from, NAME_MAX_BYTES));
  }
  while (!from.bad && from.at < from.end) {
    if (count == 0) {
      from.bad = true;
      break;
    }
    load_series(state, &from, seen.window, seen.block, rollups, count);
  }
  if (from.bad) {
    return damaged(error, seen.name);
  }
  if (loading->count == loading->capacity) {
    loading->capacity = loading->capacity ? loading->capacity * 2 : 64;
    loading->chunks = livenps_resize(loading->chunks, loading->capacity * sizeof *loading->chunks);
  }
  loading->chunks[loading->count++] = seen;
  return 0;
}

int livenps_state_load(livenps_state *state, const char *bytes, size_t length, livenps_error *error) {
  if (!state->loading) {
    /* A state that already counted something cannot take a snapshot in: both would be counted. */
    assert(!state->started && state->ledger.count == 0);
    state->loading = livenps_alloc(sizeof *state->loading);
  }
  if (length < 2 || (bytes[0] != 'S' && bytes[0] != 'H')) {
    return livenps_fail(error, LIVENPS_E_DATA, "snapshot: a chunk of %zu bytes is not one of ours", length);
  }
  if (bytes[1] != SNAPSHOT_VERSION) {
    return livenps_fail(error, LIVENPS_E_DATA,
                        "snapshot: a chunk has format %d, this program reads format %d", bytes[1],
                        SNAPSHOT_VERSION);
  }
  if (bytes[0] == 'S') {
    return load_slices(state, bytes, length, error);
  }
  if (state->loading->head) {
    return livenps_fail(error, LIVENPS_E_DATA, "snapshot: two heads");
  }
  state->loading->head = livenps_copy(bytes, length);
  state->loading->head_length = length;
  return 0;
}

static int compare_chunks(const void *a, const void *b) {
  return strcmp(((const seen_chunk *)a)->name, ((const seen_chunk *)b)->name);
}

/* Every chunk that the head names must be here, as it was then, and no other. */
static int load_chunk_list(livenps_state *state, reader *from, livenps_error *error) {
  struct livenps_loading *loading = state->loading;
  uint64_t count = get(from, (uint64_t)(from->end - from->at) / 8), known = 0, parts = 0;
  if (loading->count) {
    qsort(loading->chunks, loading->count, sizeof *loading->chunks, compare_chunks);
  }
  for (size_t i = 1; i < loading->count; i++) {
    if (strcmp(loading->chunks[i - 1].name, loading->chunks[i].name) == 0) {
      return livenps_fail(error, LIVENPS_E_DATA, "snapshot: chunk %s is there twice",
                          loading->chunks[i].name);
    }
  }
  for (uint64_t i = 0; i < count && !from->bad; i++) {
    seen_chunk key = {0};
    livenps_text name = get_name(from, sizeof key.name - 1);
    if (from->bad || from->end - from->at < 8) {
      return damaged(error, "head");
    }
    memcpy(key.name, name.at, name.length);
    memcpy(&key.hash, from->at, sizeof key.hash);
    from->at += sizeof key.hash;
    seen_chunk *seen =
        loading->count ? bsearch(&key, loading->chunks, loading->count, sizeof key, compare_chunks) : NULL;
    if (!seen || seen->hash != key.hash) {
      char text[96];
      return livenps_fail(error, LIVENPS_E_DATA,
                          "snapshot: chunk %s %s; an older snapshot or a genesis is needed",
                          livenps_printable(text, sizeof text, name.at, name.length),
                          seen ? "belongs to another snapshot" : "is missing");
    }
    /* These chunks are stored and name no other slices than we hold: they are clean. */
    if (seen->window < state->window_count) {
      livenps_block *block = livenps_pane_block(&state->windows[seen->window], seen->block);
      if (seen->part >= loading->count) {
        return damaged(error, seen->name);
      }
      known++;
      if (seen->part >= block->parts) {
        block->hashes = livenps_resize(block->hashes, (seen->part + 1) * sizeof *block->hashes);
        memset(block->hashes + block->parts, 0, (seen->part + 1 - block->parts) * sizeof *block->hashes);
        block->parts = (uint32_t)seen->part + 1;
      }
      block->hashes[seen->part] = seen->hash;
    }
  }
  for (size_t w = 0; w < state->window_count; w++) {
    for (size_t b = 0; b < state->windows[w].block_count; b++) {
      parts += state->windows[w].blocks[b].parts;
    }
  }
  from->bad |= parts != known; /* a part is not in the list, though a later one is */
  if (!from->bad && count != loading->count) {
    return livenps_fail(error, LIVENPS_E_DATA, "snapshot: %zu chunks are there, the head names %" PRIu64,
                        loading->count, count);
  }
  return 0;
}

static void load_partition(livenps_state *state, reader *from) {
  livenps_text topic = get_name(from, 249);
  int32_t partition = (int32_t)get(from, INT32_MAX);
  if (from->bad) {
    return;
  }
  size_t before = state->ledger.count;
  livenps_partition *line = livenps_ledger_line(&state->ledger, topic, partition);
  from->bad |= state->ledger.count == before;
  int64_t next;
  int64_t *numbers[] = {&line->start,        &next,        &line->accepted, &line->late, &line->duplicate,
                        &line->out_of_range, &line->holes, &line->gap};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    *numbers[i] = get_signed(from, INT64_MIN, INT64_MAX);
  }
  uint64_t kinds = get(from, LIVENPS_REASONS);
  for (uint64_t i = 0; i < kinds; i++) {
    livenps_reason reason = livenps_reason_find(get_name(from, NAME_MAX_BYTES));
    int64_t count = get_signed(from, INT64_MIN, INT64_MAX);
    /* A reason that this program does not know: a newer writer says so by its version. */
    from->bad |= reason == LIVENPS_REASON_NONE || line->rejected[reason] || !count;
    if (!from->bad) {
      line->rejected[reason] = count;
    }
  }
  livenps_text position = {0};
  from->bad |= livenps_get_text(&from->at, from->end, &position) != 0 ||
               livenps_position_parse(position, &line->position) != 0 || line->position.next != next;
  line->through_ms = get_signed(from, INT64_MIN, INT64_MAX);
  line->covered_since_ms = get_signed(from, INT64_MIN, INT64_MAX);
}

static void load_waiting(livenps_state *state, reader *from) {
  livenps_text dimensions[LIVENPS_DIMENSIONS] = {0};
  uint64_t mask = get(from, (1u << LIVENPS_DIMENSIONS) - 1);
  for (int d = 0; d < LIVENPS_DIMENSIONS && !from->bad; d++) {
    if (mask >> d & 1) {
      from->bad |= livenps_get_text(&from->at, from->end, &dimensions[d]) != 0 ||
                   dimensions[d].length > LIVENPS_MAX_ID;
    }
  }
  uint64_t count = get(from, (uint64_t)(from->end - from->at));
  from->bad |= count == 0;
  int64_t second = 0,
          first = state->started ? livenps_floor_divide(state->clock_ms, 1000) + 1 : LIVENPS_FIRST_SECOND;
  for (uint64_t i = 0; i < count && !from->bad; i++) {
    second += get_signed(from, i ? 1 : LIVENPS_FIRST_SECOND, 2 * LIVENPS_LAST_SECOND);
    livenps_counters counters;
    get_counters(from, &counters);
    from->bad |= second < first || second > LIVENPS_LAST_SECOND;
    if (!from->bad) {
      livenps_cell_wait(state, livenps_cell_find(state, dimensions), second, &counters);
    }
  }
}

/* Windows and roll-ups of the writer; what is ours but not theirs starts now. stale: chunks may still hold a roll-up that was configured,
 * then not, and is again, with a hole between. */
static void load_configuration(livenps_state *state, reader *from, bool *stale) {
  bool had_window[64] = {false};
  size_t windows[64];
  uint64_t window_count = get(from, 64);
  for (uint64_t w = 0; w < window_count; w++) {
    livenps_text name = get_name(from, NAME_MAX_BYTES);
    uint64_t length_ms = get(from, INT64_MAX), slice_ms = get(from, INT64_MAX);
    windows[w] = find_window(state, name, length_ms, slice_ms);
    if (windows[w] < state->window_count) {
      had_window[windows[w]] = true;
    }
  }
  int64_t since = (livenps_floor_divide(state->clock_ms, 1000) + 1) * 1000;
  bool *had = livenps_alloc(state->rollup_count * sizeof *had);
  uint64_t rollup_count = get(from, 1024);
  for (uint64_t i = 0; i < rollup_count; i++) {
    size_t r = find_rollup(state, get_name(from, NAME_MAX_BYTES));
    bool folding = get(from, 1);
    uint64_t series_max = get(from, UINT64_MAX);
    livenps_group *group = r < state->rollup_count ? &state->rollups[r] : NULL;
    if (group) {
      had[r] = true;
      /* A larger limit takes effect at once; a name from ~other then shows what came since. */
      group->folding = folding && state->series_max <= series_max;
    }
    for (uint64_t w = 0; w < window_count; w++) {
      int64_t value = get_signed(from, INT64_MIN, INT64_MAX);
      if (group && windows[w] < state->window_count) {
        group->since_ms[windows[w]] = value;
      }
    }
  }
  for (size_t r = 0; r < state->rollup_count; r++) {
    livenps_group *group = &state->rollups[r];
    for (size_t w = 0; w < state->window_count; w++) {
      if (!had[r] || !had_window[w]) {
        group->since_ms[w] = since;
      }
    }
    if (had[r]) {
      continue;
    }
    *stale = true;
    for (size_t i = 0; i < group->count; i++) {
      for (size_t w = 0; w < state->window_count; w++) {
        if (group->all[i]->places[w].slot) {
          livenps_slices_free(&group->all[i]->places[w].slot->slices);
        }
      }
    }
  }
  free(had);
}

static int slot_finish(livenps_state *state, livenps_slot *slot, livenps_error *error) {
  livenps_pane *pane = &state->windows[slot->window];
  livenps_slices_drop(&slot->slices, pane->head - 2 * pane->length + 1);
  livenps_cursor cursor = livenps_slices_from(&slot->slices, pane->head - 2 * pane->length + 1);
  while (livenps_cursor_next(&cursor)) {
    if (cursor.number > pane->head) {
      return livenps_fail(error, LIVENPS_E_DATA,
                          "snapshot: slice %" PRId64 " of window %s is ahead of the head's clock",
                          cursor.number, pane->config.name);
    }
    livenps_packed_apply(cursor.number > pane->head - pane->length ? &slot->now : &slot->previous,
                         cursor.bytes, cursor.length, 1);
  }
  if (slot->slices.count == 0) {
    livenps_slot_remove(state, slot);
    return 0;
  }
  livenps_slot_schedule(state, slot);
  livenps_state_mark(state, slot->series, slot->window, true);
  return 0;
}

/* Series that hold nothing at the head's clock were never shown by this state: they go without a word. */
static void bury(livenps_state *state) {
  static const livenps_visitor nobody = {0};
  livenps_state_changed(state, &nobody);
  livenps_state_change_all(state);
}

int livenps_state_load_finish(livenps_state *state, livenps_error *error) {
  struct livenps_loading *loading = state->loading;
  if (!loading || !loading->head) {
    return livenps_fail(error, LIVENPS_E_DATA, "snapshot: the head is missing");
  }
  reader from = {.at = loading->head + 2, .end = loading->head + loading->head_length};
  bool started = get(&from, 1);
  state->clock_ms = get_signed(&from, LIVENPS_FIRST_SECOND * 1000, LIVENPS_LAST_SECOND * 1000);
  state->entry_clock_ms = get_signed(&from, INT64_MIN, INT64_MAX);
  state->started = started;
  bool stale = false;
  load_configuration(state, &from, &stale);
  if (from.bad) {
    return damaged(error, "head");
  }
  if (load_chunk_list(state, &from, error)) {
    return -1;
  }
  uint64_t count = get(&from, (uint64_t)(from.end - from.at));
  for (uint64_t i = 0; i < count && !from.bad; i++) {
    load_partition(state, &from);
  }
  count = get(&from, (uint64_t)(from.end - from.at));
  for (uint64_t i = 0; i < count && !from.bad; i++) {
    load_waiting(state, &from);
  }
  if (from.bad || from.at != from.end || (!started && (loading->count || state->clock_ms))) {
    return damaged(error, "head");
  }
  for (size_t w = 0; w < state->window_count && started; w++) {
    livenps_pane_move(&state->windows[w], state->clock_ms);
  }
  livenps_state_oldest(state);
  for (size_t r = 0; r < state->rollup_count; r++) {
    livenps_group *group = &state->rollups[r];
    bool folding = group->folding;
    for (size_t i = 0; i < group->count; i++) {
      for (size_t w = 0; w < state->window_count; w++) {
        if (group->all[i]->places[w].slot && slot_finish(state, group->all[i]->places[w].slot, error)) {
          return -1;
        }
      }
    }
    group->folding = folding && group->other && group->other->slots;
  }
  bury(state);
  if (stale) {
    livenps_state_unsaved(state);
  }
  livenps_loading_free(state);
  return 0;
}

/* -- digest ------------------------------------------------------------------------------------------------------------------- */

static int compare_series(const void *a, const void *b) {
  return strcmp((*(livenps_series *const *)a)->id, (*(livenps_series *const *)b)->id);
}

static int compare_cells(const void *a, const void *b) {
  const livenps_cell_place *x = *(const livenps_cell_place *const *)a,
                           *y = *(const livenps_cell_place *const *)b;
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
    livenps_text s = x->dimensions[d], t = y->dimensions[d];
    if ((s.at == NULL) != (t.at == NULL)) {
      return s.at ? 1 : -1;
    }
    size_t shorter = s.length < t.length ? s.length : t.length;
    int order = shorter ? memcmp(s.at, t.at, shorter) : 0;
    order = order ? order : (s.length > t.length) - (s.length < t.length);
    if (order) {
      return order;
    }
  }
  return 0;
}

/* The state is hashed piece by piece into a list of digests, which is hashed in the end: nothing large is built. */
static void digest_piece(livenps_buffer *digests, livenps_buffer *piece) {
  char hash[65];
  livenps_sha256_hex(piece->at, piece->length, hash);
  livenps_buffer_add(digests, hash, 64);
  piece->length = 0;
}

static void digest_group(const livenps_state *state, const livenps_group *group, livenps_buffer *digests,
                         livenps_buffer *piece) {
  livenps_series **sorted = livenps_alloc(group->count * sizeof *sorted);
  size_t count = 0;
  for (size_t i = 0; i < group->count; i++) {
    if (group->all[i]->slots) {
      sorted[count++] = group->all[i];
    }
  }
  qsort(sorted, count, sizeof *sorted, compare_series);
  livenps_put_text(piece, livenps_text_of(group->config.name));
  livenps_put_varint(piece, count);
  digest_piece(digests, piece);
  for (size_t i = 0; i < count; i++) {
    livenps_put_text(piece, livenps_text_of(sorted[i]->id));
    for (size_t w = 0; w < state->window_count; w++) {
      const livenps_slot *slot = sorted[i]->places[w].slot;
      if (slot) {
        livenps_cursor cursor = livenps_slices_from(&slot->slices, INT64_MIN / 2);
        while (livenps_cursor_next(&cursor)) {
          livenps_put_varint(piece, w + 1);
          livenps_put_signed(piece, cursor.number);
          put_packed(piece, &cursor);
        }
      }
    }
    digest_piece(digests, piece);
  }
  free(sorted);
}

/* How far a partition is read through, and since when it is covered, are of the clock on the wall, not of the records; anchors depend
 * on the batches. */
static void digest_ledger(const livenps_state *state, livenps_buffer *digests, livenps_buffer *piece) {
  livenps_put_varint(piece, state->ledger.count);
  for (size_t i = 0; i < state->ledger.count; i++) {
    put_counts(piece, &state->ledger.at[i]);
  }
  digest_piece(digests, piece);
}

static void digest_waiting(const livenps_state *state, livenps_buffer *digests, livenps_buffer *piece) {
  size_t count = state->waiting.count;
  const livenps_cell_place **sorted = livenps_alloc(count * sizeof *sorted);
  for (size_t i = 0; i < count; i++) {
    sorted[i] = (const livenps_cell_place *)state->waiting.heap[i + 1];
  }
  qsort(sorted, count, sizeof *sorted, compare_cells);
  livenps_put_varint(piece, count);
  for (size_t i = 0; i < count; i++) {
    put_waiting(sorted[i], piece);
  }
  digest_piece(digests, piece);
  free(sorted);
}

void livenps_state_digest(const livenps_state *state, char out[65]) {
  livenps_buffer digests = {0}, piece = {0};
  livenps_state_spread(state);
  livenps_put_varint(&piece, state->started);
  livenps_put_signed(&piece, state->clock_ms);
  livenps_put_varint(&piece, state->window_count);
  for (size_t w = 0; w < state->window_count; w++) {
    livenps_put_text(&piece, livenps_text_of(state->windows[w].config.name));
    livenps_put_varint(&piece, (uint64_t)state->windows[w].config.length_ms);
    livenps_put_varint(&piece, (uint64_t)state->windows[w].config.slice_ms);
  }
  livenps_put_varint(&piece, state->rollup_count);
  digest_piece(&digests, &piece);
  for (size_t r = 0; r < state->rollup_count; r++) {
    digest_group(state, &state->rollups[r], &digests, &piece);
  }
  digest_ledger(state, &digests, &piece);
  digest_waiting(state, &digests, &piece);
  livenps_sha256_hex(digests.at, digests.length, out);
  livenps_buffer_free(&digests);
  livenps_buffer_free(&piece);
}
