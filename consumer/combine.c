#include "combine.h"

#include "../common/error.h"

#include <stdlib.h>

/* Two tables with linear probing. `rows` is looked up once per event: its key is the dimensions and the second. `cells` holds each
 * distinct tuple of dimensions once, in the order of appearance, and is asked only when a row is new. Both keep the hash, so that
 * growing and comparing rarely touch the keys. */
typedef struct {
  uint32_t hash;  /* a half of it: small slots, so that more of them are near */
  uint32_t index; /* + 1; 0 is free */
} slot;

typedef struct {
  slot *at;
  size_t mask, used;
} table;

/* The dimensions of a cell in few words. Equal cells have equal keys; cells of equal keys differ at most in texts of more than
 * LIVENPS_SHORT bytes. */
typedef struct {
  uint64_t words[2 * LIVENPS_DIMENSIONS];
  uint64_t lengths; /* sixteen bits each: whether it is there, and its length or LONG */
} cell_key;
enum { LONG = 0x7FFF };

struct livenps_combine {
  table row_table, cell_table;
  livenps_row *rows;
  size_t row_count, row_capacity;
  struct stored {
    cell_key key;
    size_t offset; /* of its dimensions in names, one behind the other */
    bool has_long;
  } * stored;
  livenps_cell *cells; /* rebuilt from stored when lent: names may move while they grow */
  size_t cell_count, cell_capacity;
  livenps_buffer names;
};

enum { FIRST_SLOTS = 1024 };

static void table_new(table *t, size_t slots) {
  *t = (table){livenps_alloc(slots * sizeof(slot)), slots - 1, 0};
}

static void table_put(table *t, uint32_t hash, uint32_t index) {
  size_t i = hash & t->mask;
  while (t->at[i].index)
    i = (i + 1) & t->mask;
  t->at[i] = (slot){hash, index + 1};
  t->used++;
}

static void table_add(table *t, uint32_t hash, uint32_t index) {
  if ((t->used + 1) * 2 > t->mask) {
    table bigger;
    table_new(&bigger, (t->mask + 1) * 2);
    for (size_t i = 0; i <= t->mask; i++)
      if (t->at[i].index)
        table_put(&bigger, t->at[i].hash, t->at[i].index - 1);
    free(t->at);
    *t = bigger;
  }
  table_put(t, hash, index);
}

/* Gives memory back after a burst: a table that once held a million names must not stay for ever. */
static void table_clear(table *t) {
  if (t->mask + 1 > 64 * FIRST_SLOTS && t->used < t->mask / 16) {
    free(t->at);
    table_new(t, FIRST_SLOTS);
  } else if (t->used) {
    memset(t->at, 0, (t->mask + 1) * sizeof(slot));
  }
  t->used = 0;
}

livenps_combine *livenps_combine_new(void) {
  livenps_combine *combine = livenps_alloc(sizeof *combine);
  table_new(&combine->row_table, FIRST_SLOTS);
  table_new(&combine->cell_table, FIRST_SLOTS);
  return combine;
}

void livenps_combine_free(livenps_combine *combine) {
  if (!combine)
    return;
  free(combine->row_table.at);
  free(combine->cell_table.at);
  free(combine->rows);
  free(combine->stored);
  free(combine->cells);
  livenps_buffer_free(&combine->names);
  free(combine);
}

/* The key of the event's cell. */
static inline void make_key(const livenps_event *event, cell_key *key) {
  key->lengths = 0;
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
    const livenps_text text = event->dimensions[d];
    livenps_text_words(text, &key->words[2 * d]);
    const uint64_t length = text.length < LONG ? text.length : LONG;
    key->lengths |= (length << 1 | (text.at != NULL)) << 16 * d;
  }
}

/* second: 0 for the cell alone. */
static inline uint32_t hash_of(const cell_key *key, int64_t second) {
  uint64_t words[2 * LIVENPS_DIMENSIONS + 2];
  memcpy(words, key->words, sizeof key->words);
  words[2 * LIVENPS_DIMENSIONS] = key->lengths;
  words[2 * LIVENPS_DIMENSIONS + 1] = (uint64_t)second;
  return (uint32_t)livenps_hash_words(words, sizeof words / sizeof *words);
}

static bool key_has(const cell_key *key, int dimension) {
  return key->lengths >> 16 * dimension & 1;
}

static size_t key_length(const cell_key *key, int dimension) {
  const size_t length = key->lengths >> (16 * dimension + 1) & LONG;
  return length > LIVENPS_SHORT ? key->words[2 * dimension + 1] : length;
}

static bool same_long_texts(const livenps_combine *combine, const struct stored *stored,
                            const livenps_event *event) {
  const char *at = combine->names.at + stored->offset;
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
    const size_t length = key_length(&stored->key, d);
    if (length > LIVENPS_SHORT && memcmp(at, event->dimensions[d].at, length) != 0)
      return false;
    at += length;
  }
  return true;
}

static inline bool same_cell(const livenps_combine *combine, uint32_t cell, const cell_key *key,
                             const livenps_event *event) {
  const struct stored *stored = &combine->stored[cell];
  uint64_t differ = stored->key.lengths ^ key->lengths;
  for (int i = 0; i < 2 * LIVENPS_DIMENSIONS; i++)
    differ |= stored->key.words[i] ^ key->words[i];
  return differ == 0 && (!stored->has_long || same_long_texts(combine, stored, event));
}

/* The event's cell, made if it is new. */
static uint32_t find_cell(livenps_combine *combine, const cell_key *key, const livenps_event *event) {
  const uint32_t hash = hash_of(key, 0);
  for (size_t i = hash & combine->cell_table.mask; combine->cell_table.at[i].index;
       i = (i + 1) & combine->cell_table.mask)
    if (combine->cell_table.at[i].hash == hash &&
        same_cell(combine, combine->cell_table.at[i].index - 1, key, event))
      return combine->cell_table.at[i].index - 1;
  if (combine->cell_count == combine->cell_capacity) {
    combine->cell_capacity = combine->cell_capacity ? combine->cell_capacity * 2 : 256;
    combine->stored = livenps_resize(combine->stored, combine->cell_capacity * sizeof *combine->stored);
    combine->cells = livenps_resize(combine->cells, combine->cell_capacity * sizeof *combine->cells);
  }
  const uint32_t cell = (uint32_t)combine->cell_count++;
  struct stored *stored = &combine->stored[cell];
  *stored = (struct stored){.key = *key, .offset = combine->names.length};
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
    livenps_buffer_add(&combine->names, key_has(key, d) ? event->dimensions[d].at : "", key_length(key, d));
    stored->has_long |= key_length(key, d) > LIVENPS_SHORT;
  }
  table_add(&combine->cell_table, hash, cell);
  return cell;
}

void livenps_combine_add(livenps_combine *combine, const livenps_event *event) {
  /* Floor, also before 1970. */
  const int64_t second = event->time_ms >= 0 ? event->time_ms / 1000 : -((-event->time_ms + 999) / 1000);
  cell_key key;
  make_key(event, &key);
  const uint32_t hash = hash_of(&key, second);
  size_t i = hash & combine->row_table.mask;
  for (; combine->row_table.at[i].index; i = (i + 1) & combine->row_table.mask) {
    if (combine->row_table.at[i].hash != hash)
      continue;
    livenps_row *row = &combine->rows[combine->row_table.at[i].index - 1];
    if (row->second == second && same_cell(combine, row->cell, &key, event)) {
      livenps_counters_count(&row->counters, event);
      return;
    }
  }
  if (combine->row_count == combine->row_capacity) {
    combine->row_capacity = combine->row_capacity ? combine->row_capacity * 2 : 256;
    combine->rows = livenps_resize(combine->rows, combine->row_capacity * sizeof *combine->rows);
  }
  const uint32_t row = (uint32_t)combine->row_count++;
  combine->rows[row] = (livenps_row){.cell = find_cell(combine, &key, event), .second = second};
  livenps_counters_count(&combine->rows[row].counters, event);
  table_add(&combine->row_table, hash, row);
}

size_t livenps_combine_rows(const livenps_combine *combine) {
  return combine->row_count;
}

void livenps_combine_lend(const livenps_combine *combine, livenps_entry *entry) {
  for (size_t c = 0; c < combine->cell_count; c++) {
    const struct stored *stored = &combine->stored[c];
    const char *at = combine->names.at ? combine->names.at + stored->offset : "";
    for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
      const size_t length = key_length(&stored->key, d);
      combine->cells[c].dimensions[d] = (livenps_text){key_has(&stored->key, d) ? at : NULL, length};
      at += length;
    }
  }
  entry->cells = combine->cells;
  entry->cell_count = combine->cell_count;
  entry->rows = combine->rows;
  entry->row_count = combine->row_count;
}

void livenps_combine_reset(livenps_combine *combine) {
  table_clear(&combine->row_table);
  table_clear(&combine->cell_table);
  combine->row_count = combine->cell_count = 0;
  combine->names.length = 0;
}
