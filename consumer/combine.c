#include "combine.h"

#include "../common/error.h"

#include <stdlib.h>

/* Two tables with linear probing. `rows` is looked up once per event: its key is the dimensions and the second. `cells` holds each
 * distinct tuple of dimensions once, in the order of appearance, and is asked only when a row is new. Both keep the hash, so that
 * growing and comparing rarely touch the keys. */
typedef struct {
  uint64_t hash;
  uint32_t index; /* + 1; 0 is free */
} slot;

typedef struct {
  slot *at;
  size_t mask, used;
} table;

struct livenps_combine {
  table row_table, cell_table;
  livenps_row *rows;
  size_t row_count, row_capacity;
  struct stored {
    size_t offset; /* of its key in keys */
    size_t length;
  } * stored;
  livenps_cell *cells; /* rebuilt from stored when lent: keys may move while they grow */
  size_t cell_count, cell_capacity;
  livenps_buffer keys; /* of the cells: a byte of presence, then length and bytes of each present dimension */
  livenps_buffer key;  /* of the event at hand */
};

enum { FIRST_SLOTS = 1024 };

static void table_new(table *t, size_t slots) {
  *t = (table){livenps_alloc(slots * sizeof(slot)), slots - 1, 0};
}

static void table_put(table *t, uint64_t hash, uint32_t index) {
  size_t i = hash & t->mask;
  while (t->at[i].index)
    i = (i + 1) & t->mask;
  t->at[i] = (slot){hash, index + 1};
  t->used++;
}

static void table_add(table *t, uint64_t hash, uint32_t index) {
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
  livenps_buffer_free(&combine->keys);
  livenps_buffer_free(&combine->key);
  free(combine);
}

static void make_key(livenps_buffer *key, const livenps_event *event) {
  key->length = 0;
  char present = 0;
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++)
    present = (char)(present | (event->dimensions[d].at != NULL) << d);
  livenps_buffer_add(key, &present, 1);
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++)
    if (event->dimensions[d].at) {
      const uint32_t length = (uint32_t)event->dimensions[d].length;
      livenps_buffer_add(key, &length, sizeof length);
      livenps_buffer_add(key, event->dimensions[d].at, length);
    }
}

static bool same_key(const livenps_combine *combine, uint32_t cell) {
  const struct stored *stored = &combine->stored[cell];
  return stored->length == combine->key.length &&
         memcmp(combine->keys.at + stored->offset, combine->key.at, stored->length) == 0;
}

/* The cell of combine->key, made if it is new. */
static uint32_t find_cell(livenps_combine *combine, uint64_t hash) {
  for (size_t i = hash & combine->cell_table.mask; combine->cell_table.at[i].index;
       i = (i + 1) & combine->cell_table.mask)
    if (combine->cell_table.at[i].hash == hash && same_key(combine, combine->cell_table.at[i].index - 1))
      return combine->cell_table.at[i].index - 1;
  if (combine->cell_count == combine->cell_capacity) {
    combine->cell_capacity = combine->cell_capacity ? combine->cell_capacity * 2 : 256;
    combine->stored = livenps_resize(combine->stored, combine->cell_capacity * sizeof *combine->stored);
    combine->cells = livenps_resize(combine->cells, combine->cell_capacity * sizeof *combine->cells);
  }
  const uint32_t cell = (uint32_t)combine->cell_count++;
  combine->stored[cell] = (struct stored){combine->keys.length, combine->key.length};
  livenps_buffer_add(&combine->keys, combine->key.at, combine->key.length);
  table_add(&combine->cell_table, hash, cell);
  return cell;
}

void livenps_combine_add(livenps_combine *combine, const livenps_event *event) {
  /* Floor, also before 1970. */
  const int64_t second = event->time_ms >= 0 ? event->time_ms / 1000 : -((-event->time_ms + 999) / 1000);
  make_key(&combine->key, event);
  const uint64_t cell_hash = livenps_hash(combine->key.at, combine->key.length);
  const uint64_t hash = livenps_hash_more(cell_hash, &second, sizeof second);
  size_t i = hash & combine->row_table.mask;
  for (; combine->row_table.at[i].index; i = (i + 1) & combine->row_table.mask) {
    if (combine->row_table.at[i].hash != hash)
      continue;
    livenps_row *row = &combine->rows[combine->row_table.at[i].index - 1];
    if (row->second == second && same_key(combine, row->cell)) {
      livenps_counters_count(&row->counters, event);
      return;
    }
  }
  if (combine->row_count == combine->row_capacity) {
    combine->row_capacity = combine->row_capacity ? combine->row_capacity * 2 : 256;
    combine->rows = livenps_resize(combine->rows, combine->row_capacity * sizeof *combine->rows);
  }
  const uint32_t row = (uint32_t)combine->row_count++;
  combine->rows[row] = (livenps_row){.cell = find_cell(combine, cell_hash), .second = second};
  livenps_counters_count(&combine->rows[row].counters, event);
  table_add(&combine->row_table, hash, row);
}

size_t livenps_combine_rows(const livenps_combine *combine) {
  return combine->row_count;
}

void livenps_combine_lend(const livenps_combine *combine, livenps_entry *entry) {
  for (size_t c = 0; c < combine->cell_count; c++) {
    const char *at = combine->keys.at + combine->stored[c].offset;
    const char present = *at++;
    for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
      combine->cells[c].dimensions[d] = (livenps_text){NULL, 0};
      if (!(present >> d & 1))
        continue;
      uint32_t length;
      memcpy(&length, at, sizeof length);
      combine->cells[c].dimensions[d] = (livenps_text){at + sizeof length, length};
      at += sizeof length + length;
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
  combine->keys.length = 0;
}
