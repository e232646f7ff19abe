#include "combine.h"

#include "../common/error.h"

#include <stdlib.h>

/* Two tables with linear probing: `cells` holds each distinct tuple of dimensions once, `rows` each cell and second, both in the order of
 * appearance.
 *
 *   event -> key, hashes -> waiting -> row (where it is new: its cell): counted
 *
 * A batch's rows are more than the caches next to the processor hold, and nearly every event meets others than the one before: looked up
 * one by one, an event would wait for memory four times. So a few events wait until they are a group, whose slots, then rows,
 * then cells are asked for all at once (drain). And rows are small: a row has few events, so it counts in bytes until one runs over. */
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
enum {
  LENGTHS = 2 * LIVENPS_DIMENSIONS, /* sixteen bits each: whether it is there, and its length or LONG */
  KEY_WORDS = LENGTHS + 2           /* the last is zero: words are hashed in pairs */
};
typedef struct {
  uint64_t words[KEY_WORDS];
} cell_key;
enum { LONG = 0x7FFF };

enum {
  SUMS = 3, /* of values: LIVENPS_VALUE_PROMOTERS and what follows it */
  BINS = LIVENPS_COUNTERS - SUMS
};

/* A line of the cache. */
typedef struct {
  int64_t second;
  uint32_t cell;
  uint32_t wide; /* + 1: the counters that take what does not fit here; 0: none yet */
  int32_t sums[SUMS];
  uint8_t bins[BINS + 1]; /* the counters without the sums, and what an event without a score counts */
  char room[9];
} small_row;
_Static_assert(sizeof(small_row) == 64, "a line of the cache");

typedef struct {
  cell_key key;
  int64_t second;
  uint32_t cell_hash, row_hash;
  uint32_t guess; /* + 1: the row that it most likely counts in; 0: a new one */
  livenps_count count;
} waiting;

enum {
  FIRST_SLOTS = 1024,
  FIRST_ROWS = 256,
  LINE = 64,
  GROUP = 16 /* events that wait: enough for the memory to be busy, few enough to stay in the nearest cache */
};

struct livenps_combine {
  uint64_t seconds_key; /* odd, of the process: hashes seconds */
  table row_table, cell_table;
  waiting group[GROUP];
  size_t waiting_count;
  small_row *rows; /* in rows_memory, at the beginning of a line */
  void *rows_memory;
  size_t row_count, row_capacity;
  livenps_counters *wide;
  size_t wide_count, wide_capacity;
  livenps_row *lent;
  size_t lent_capacity;
  struct stored {
    cell_key key;
    size_t offset; /* of its dimensions in names, one behind the other */
    bool has_long;
  } * stored;
  livenps_cell *cells; /* rebuilt from stored when lent: names may move while they grow */
  size_t cell_count, cell_capacity;
  livenps_buffer names;
};

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

/* Where the search for a hash most likely ends, + 1; 0: nowhere. */
static inline uint32_t table_guess(const table *t, uint32_t hash) {
  size_t i = hash & t->mask;
  while (t->at[i].index && t->at[i].hash != hash)
    i = (i + 1) & t->mask;
  return t->at[i].index;
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

static void grow_rows(livenps_combine *combine) {
  const size_t capacity = combine->row_capacity ? combine->row_capacity * 2 : FIRST_ROWS;
  char *memory = livenps_resize(NULL, capacity * sizeof(small_row) + LINE);
  small_row *rows = (small_row *)(void *)(memory + (LINE - (uintptr_t)memory % LINE) % LINE);
  if (combine->row_count)
    memcpy(rows, combine->rows, combine->row_count * sizeof *rows);
  free(combine->rows_memory);
  combine->rows_memory = memory;
  combine->rows = rows;
  combine->row_capacity = capacity;
}

livenps_combine *livenps_combine_new(void) {
  livenps_combine *combine = livenps_alloc(sizeof *combine);
  combine->seconds_key = livenps_hash("second", 6) | 1;
  table_new(&combine->row_table, FIRST_SLOTS);
  table_new(&combine->cell_table, FIRST_SLOTS);
  return combine;
}

void livenps_combine_free(livenps_combine *combine) {
  if (!combine)
    return;
  free(combine->row_table.at);
  free(combine->cell_table.at);
  free(combine->rows_memory);
  free(combine->wide);
  free(combine->lent);
  free(combine->stored);
  free(combine->cells);
  livenps_buffer_free(&combine->names);
  free(combine);
}

/* The key of the event's cell. Returns whether a text is longer than the key holds. */
static inline bool make_key(const livenps_event *event, livenps_text value, cell_key *key) {
  const size_t readable = value.length >= LIVENPS_SHORT ? value.length - LIVENPS_SHORT + 1 : 0;
  uint64_t lengths = 0;
  bool is_long = false;
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
    const livenps_text text = event->dimensions[d];
    const uintptr_t there = text.at != NULL; /* of an absent one nothing is kept, whatever is read */
    const uintptr_t offset = ((uintptr_t)text.at - (uintptr_t)value.at) & -there;
    uint64_t length = text.length;
    if (__builtin_expect((length <= LIVENPS_SHORT) & (offset < readable), 1)) {
      livenps_short_words(value.at + offset, length, &key->words[2 * d]);
    } else {
      livenps_text_words(text, &key->words[2 * d]);
      is_long |= length > LIVENPS_SHORT;
      length = length < LONG ? length : LONG;
    }
    lengths |= (length << 1 | there) << 16 * d;
  }
  key->words[LENGTHS] = lengths;
  key->words[LENGTHS + 1] = 0;
  return is_long;
}

static bool key_has(const cell_key *key, int dimension) {
  return key->words[LENGTHS] >> 16 * dimension & 1;
}

static size_t key_length(const cell_key *key, int dimension) {
  const size_t length = key->words[LENGTHS] >> (16 * dimension + 1) & LONG;
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
  uint64_t differ = 0;
  for (int i = 0; i < KEY_WORDS; i++)
    differ |= stored->key.words[i] ^ key->words[i];
  return differ == 0 && (!stored->has_long || same_long_texts(combine, stored, event));
}

/* event: NULL where the key says it all. */
static void store_cell(livenps_combine *combine, const cell_key *key, const livenps_event *event) {
  if (combine->cell_count == combine->cell_capacity) {
    combine->cell_capacity = combine->cell_capacity ? combine->cell_capacity * 2 : 256;
    combine->stored = livenps_resize(combine->stored, combine->cell_capacity * sizeof *combine->stored);
    combine->cells = livenps_resize(combine->cells, combine->cell_capacity * sizeof *combine->cells);
  }
  struct stored *stored = &combine->stored[combine->cell_count++];
  *stored = (struct stored){.key = *key, .offset = combine->names.length, .has_long = event != NULL};
  if (event) {
    for (int d = 0; d < LIVENPS_DIMENSIONS; d++)
      livenps_buffer_add(&combine->names, event->dimensions[d].at, key_length(key, d));
    return;
  }
  char texts[LIVENPS_DIMENSIONS * LIVENPS_SHORT];
  size_t length = 0;
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
    /* Its zeros too: the next is written over them. */
    memcpy(texts + length, &key->words[2 * d], LIVENPS_SHORT);
    length += key_length(key, d);
  }
  livenps_buffer_add(&combine->names, texts, length);
}

/* The cell, made if it is new. */
static inline uint32_t find_cell(livenps_combine *combine, const cell_key *key, uint32_t hash,
                                 const livenps_event *event) {
  const table *t = &combine->cell_table;
  for (size_t i = hash & t->mask; t->at[i].index; i = (i + 1) & t->mask)
    if (t->at[i].hash == hash && same_cell(combine, t->at[i].index - 1, key, event))
      return t->at[i].index - 1;
  const uint32_t cell = (uint32_t)combine->cell_count;
  store_cell(combine, key, event);
  table_add(&combine->cell_table, hash, cell);
  return cell;
}

static inline bool same_row(const livenps_combine *combine, const small_row *row, const waiting *this,
                            const livenps_event *event) {
  return row->second == this->second && same_cell(combine, row->cell, &this->key, event);
}

/* Of nearly all events the row is there and the guess is right: then that row's cell is the event's, and the cells' table is not asked. */
static inline small_row *find_row(livenps_combine *combine, const waiting *this, const livenps_event *event) {
  if (this->guess && same_row(combine, &combine->rows[this->guess - 1], this, event))
    return &combine->rows[this->guess - 1];
  const table *t = &combine->row_table;
  for (size_t i = this->row_hash & t->mask; t->at[i].index; i = (i + 1) & t->mask) {
    small_row *row = &combine->rows[t->at[i].index - 1];
    if (t->at[i].hash == this->row_hash && same_row(combine, row, this, event))
      return row;
  }
  const uint32_t cell = find_cell(combine, &this->key, this->cell_hash, event);
  if (combine->row_count == combine->row_capacity)
    grow_rows(combine);
  const uint32_t index = (uint32_t)combine->row_count++;
  combine->rows[index] = (small_row){.cell = cell, .second = this->second};
  table_add(&combine->row_table, this->row_hash, index);
  return &combine->rows[index];
}

/* Where a counter that is no sum stands among the bins. */
static inline int bin_of(int counter) {
  return counter - (counter < LIVENPS_VALUE_PROMOTERS ? 0 : SUMS);
}

/* Adds what the row holds to wider counters, which may wrap as all sums do. */
static void widen(const small_row *row, livenps_counters *to) {
  for (int i = 0; i < LIVENPS_VALUE_PROMOTERS; i++)
    to->at[i] += row->bins[i];
  for (int i = LIVENPS_VALUE_PROMOTERS + SUMS; i < LIVENPS_COUNTERS; i++)
    to->at[i] += row->bins[bin_of(i)];
  for (int i = 0; i < SUMS; i++) {
    int64_t *sum = &to->at[LIVENPS_VALUE_PROMOTERS + i];
    *sum = (int64_t)((uint64_t)*sum + (uint64_t)(int64_t)row->sums[i]);
  }
}

/* The row's wider counters take what it holds, and it begins at zero again. */
static __attribute__((noinline)) livenps_counters *run_over(livenps_combine *combine, small_row *row) {
  if (!row->wide) {
    if (combine->wide_count == combine->wide_capacity) {
      combine->wide_capacity = combine->wide_capacity ? combine->wide_capacity * 2 : 16;
      combine->wide = livenps_resize(combine->wide, combine->wide_capacity * sizeof *combine->wide);
    }
    combine->wide[combine->wide_count++] = (livenps_counters){0};
    row->wide = (uint32_t)combine->wide_count;
  }
  livenps_counters *wide = &combine->wide[row->wide - 1];
  widen(row, wide);
  memset(row->sums, 0, sizeof row->sums);
  memset(row->bins, 0, sizeof row->bins);
  return wide;
}

/* What kind of event comes next nobody can guess, so this does not branch by it: a bin and a sum are always added to. */
static inline void count(livenps_combine *combine, small_row *row, const livenps_count *what) {
  _Static_assert(LIVENPS_COUNTERS - SUMS == BINS,
                 "an event without a score counts in the bin behind the last");
  /* An answer's score is counted at most as often as the answer. */
  if (__builtin_expect(row->bins[what->kind] == UINT8_MAX, 0))
    run_over(combine, row);
  row->bins[what->kind]++;
  row->bins[bin_of(what->bin)]++;
  int32_t *sum = &row->sums[what->sum - LIVENPS_VALUE_PROMOTERS];
  const int64_t more = *sum + what->value; /* far from overflow: a value is at most 10^11 */
  if (__builtin_expect(more == (int32_t)more, 1)) {
    *sum = (int32_t)more;
  } else {
    int64_t *wide = &run_over(combine, row)->at[what->sum];
    *wide = (int64_t)((uint64_t)*wide + (uint64_t)what->value);
  }
}

static inline void add(livenps_combine *combine, const waiting *this, const livenps_event *event) {
  count(combine, find_row(combine, this, event), &this->count);
}

static inline void prefetch_cell(const livenps_combine *combine, uint32_t cell) {
  const char *stored = (const char *)&combine->stored[cell];
  __builtin_prefetch(stored);
  __builtin_prefetch(stored + sizeof(cell_key));
}

/* The slots were asked for when the events came; now rows are, or where a row is new the slots of its cell; then the cells; then the events
 * are counted in the order in which they came. */
static void drain(livenps_combine *combine) {
  const table *cells = &combine->cell_table;
  const size_t group = combine->waiting_count;
  for (size_t i = 0; i < group; i++) {
    waiting *this = &combine->group[i];
    this->guess = table_guess(&combine->row_table, this->row_hash);
    if (this->guess) {
      __builtin_prefetch(&combine->rows[this->guess - 1], 1);
    } else {
      __builtin_prefetch(&cells->at[this->cell_hash & cells->mask]);
    }
  }
  for (size_t i = 0; i < group; i++) {
    const waiting *this = &combine->group[i];
    const uint32_t cell =
        this->guess ? combine->rows[this->guess - 1].cell + 1 : table_guess(cells, this->cell_hash);
    if (cell)
      prefetch_cell(combine, cell - 1);
  }
  for (size_t i = 0; i < group; i++)
    add(combine, &combine->group[i], NULL);
  combine->waiting_count = 0;
}

void livenps_combine_add(livenps_combine *combine, const livenps_event *event, livenps_text value) {
  waiting *this = &combine->group[combine->waiting_count];
  /* Floor, also before 1970. */
  this->second = event->time_ms >= 0 ? event->time_ms / 1000 : -((-event->time_ms + 999) / 1000);
  this->count = livenps_count_of(event);
  const bool is_long = make_key(event, value, &this->key);
  const uint64_t hash = livenps_hash_words(this->key.words, KEY_WORDS);
  this->cell_hash = (uint32_t)hash;
  this->row_hash = (uint32_t)((hash + (uint64_t)this->second * combine->seconds_key) >> 32);
  if (__builtin_expect(is_long, 0)) {
    /* Its texts are borrowed until we return. */
    waiting now = *this;
    now.guess = 0;
    drain(combine);
    add(combine, &now, event);
    return;
  }
  __builtin_prefetch(&combine->row_table.at[this->row_hash & combine->row_table.mask]);
  if (++combine->waiting_count == GROUP)
    drain(combine);
}

size_t livenps_combine_rows(livenps_combine *combine) {
  drain(combine);
  return combine->row_count;
}

bool livenps_combine_full(livenps_combine *combine, size_t rows) {
  return combine->row_count + combine->waiting_count >= rows && livenps_combine_rows(combine) >= rows;
}

void livenps_combine_lend(livenps_combine *combine, livenps_entry *entry) {
  drain(combine);
  for (size_t c = 0; c < combine->cell_count; c++) {
    const struct stored *stored = &combine->stored[c];
    const char *at = combine->names.at ? combine->names.at + stored->offset : "";
    for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
      const size_t length = key_length(&stored->key, d);
      combine->cells[c].dimensions[d] = (livenps_text){key_has(&stored->key, d) ? at : NULL, length};
      at += length;
    }
  }
  if (combine->lent_capacity < combine->row_count) {
    combine->lent_capacity = combine->row_capacity;
    free(combine->lent);
    combine->lent = livenps_resize(NULL, combine->lent_capacity * sizeof *combine->lent);
  }
  for (size_t r = 0; r < combine->row_count; r++) {
    const small_row *row = &combine->rows[r];
    combine->lent[r] = (livenps_row){.cell = row->cell, .second = row->second};
    if (row->wide)
      combine->lent[r].counters = combine->wide[row->wide - 1];
    widen(row, &combine->lent[r].counters);
  }
  entry->cells = combine->cells;
  entry->cell_count = combine->cell_count;
  entry->rows = combine->lent;
  entry->row_count = combine->row_count;
}

void livenps_combine_reset(livenps_combine *combine) {
  table_clear(&combine->row_table);
  table_clear(&combine->cell_table);
  combine->waiting_count = 0;
  combine->row_count = combine->cell_count = combine->wide_count = 0;
  combine->names.length = 0;
}
