#ifndef LIVENPS_STATE_PARTS_H
#define LIVENPS_STATE_PARTS_H

/* What state.c (fold and clock), spread.c (rows to slices), view.c (scores and changes) and snapshot.c share; nobody else includes this.
 *
 *   row -> cell (touchpoint, channel, ...)  one for each tuple of dimensions: a cache, and the place of its waiting rows
 *     |  resolved once; rows are pending until somebody looks or a slice ends, then added up and spread (spread.c)
 *     v
 *   series (roll-up, id) -- one place per window -- slot (slices, running totals)   a slot exists while it has slices
 *                                                    |
 *                                                    v
 *                                                   calendar of the window: when the next slice of the slot leaves
 */

#include "calendar.h"
#include "ledger.h"
#include "slices.h"
#include "state.h"

typedef struct livenps_series livenps_series;

/* A series in one window. now: slices in (head - W/g, head]; previous: the W/g slices before those. */
typedef struct {
  livenps_due
      due; /* first: the calendar knows a slot by it. The head at which a slice leaves now or previous */
  livenps_series *series;
  uint32_t window;
  bool hollow; /* in the list of those that may be without a slice */
  livenps_slices slices;
  livenps_counters now, previous;
  double p; /* of the change, while in a family */
  double z;
  size_t member; /* place in the family, from 1; 0: no test, because now or previous is below the minimum */
} livenps_slot;

typedef struct {
  livenps_slot *slot; /* NULL while there is no slice */
  bool changed;       /* in the list of changes */
  bool stale;         /* the test must be made again */
  int8_t verdict;
  uint32_t note; /* see livenps_view */
} livenps_place;

struct livenps_series {
  livenps_series *next; /* in its bucket */
  uint64_t hash;
  size_t at; /* place in the roll-up's list */
  uint32_t rollup;
  uint32_t slots; /* windows with slices; a series without any is dead */
  uint32_t rows;  /* only inside a spread: how many it gets, then where they end in the order by series */
  bool gone;      /* in the list of the dead */
  bool other;     /* this is ~other */
  bool has_target;
  double target;
  char *id;
  livenps_place places[];
};

/* The tests of one roll-up and window that Benjamini-Hochberg judges together. */
typedef struct {
  livenps_slot **members;
  size_t count, capacity;
  bool dirty;
} livenps_family;

typedef struct {
  livenps_rollup config;
  livenps_series **all; /* the dead that are not reported yet among them */
  size_t count, capacity;
  livenps_series **buckets;
  size_t bucket_count;
  size_t named; /* series alive, without ~other */
  livenps_series *other;
  bool
      folding; /* new names go to ~other, until that has emptied: so no other series ever shows a part of its numbers */
  livenps_family *families; /* one per window */
  int64_t *since_ms;        /* one per window: nothing is known before; 0: from genesis on */
} livenps_group;

/* Slices are written to snapshots in blocks of neighbouring numbers. dirty: changed since the last snapshot was made; pending: that
 * snapshot is not confirmed yet. parts: chunks it took, with their hashes. */
enum { LIVENPS_BLOCK = 64 };
typedef struct {
  int64_t number;
  bool dirty, pending;
  uint32_t parts;
  uint64_t *hashes;
} livenps_block;

/* Counters of which few are not zero: at[i] says something only where the mask has bit i. */
typedef struct {
  uint32_t mask;
  int64_t at[LIVENPS_COUNTERS];
} livenps_sum;

/* The sums of one second's rows by cell, inside a spread. */
typedef struct {
  struct livenps_cell_place *cell;
  livenps_sum sum;
} livenps_cell_sum;

typedef struct {
  livenps_cell_sum *at;
  uint32_t count, capacity;
} livenps_cell_sums;

typedef struct {
  livenps_window config;
  int64_t length; /* in slices: W/g */
  int64_t head;   /* the newest slice at the clock */
  livenps_calendar calendar;
  /* While a series' rows are spread: what it gets in one slice, and that slice: its number, and [begin_ms, end_ms). */
  livenps_sum sum;
  int64_t number, begin_ms, end_ms;
  int64_t oldest_ms; /* the same: the window keeps what is not older than this */
  size_t *fed; /* windows whose slices consist of whole slices of this one, and of no coarser window's */
  size_t fed_count;
  livenps_block *blocks; /* sorted */
  size_t block_count, block_capacity;
} livenps_pane;

typedef struct livenps_cell_place livenps_cell_place;
struct livenps_cell_place {
  livenps_due due;        /* first: the earliest waiting second */
  livenps_slices waiting; /* by second */
  livenps_cell_place *next;
  uint64_t hash, epoch; /* the series are good while the epoch is the state's */
  uint32_t sum;         /* only inside a spread: place of its sum among those of one second, from 1 */
  livenps_text dimensions[LIVENPS_DIMENSIONS];
  livenps_series *series[]; /* one per roll-up; NULL: a dimension is absent */
};

typedef struct {
  char *id; /* percent-encoded */
  double nps;
} livenps_target;

typedef struct {
  livenps_series *series;
  uint32_t window;
} livenps_change;

/* A row that was folded and is not in any slice yet. Its counters that are not zero stand in the list of values. */
typedef struct {
  livenps_cell_place *cell;
  int64_t second;
  uint32_t mask;
  uint32_t first;
} livenps_pending;

typedef struct {
  livenps_pending *at;
  size_t count, capacity;
  int64_t *values;
  size_t value_count, value_capacity;
} livenps_pendings;

/* A pending row and its second, counted from the first one. */
typedef struct {
  uint64_t key;
  uint32_t row;
} livenps_order;

struct livenps_state {
  livenps_pane *windows;
  size_t window_count;
  size_t *finest_first; /* windows by slice */
  size_t *roots;        /* windows that are fed from rows */
  size_t root_count;
  livenps_group *rollups;
  size_t rollup_count;
  size_t series_max;
  int64_t minimum_n, reliable_n;
  double fdr;
  livenps_target *targets;
  size_t target_count;

  bool started; /* the clock was moved once */
  int64_t clock_ms, entry_clock_ms;
  livenps_ledger ledger;

  livenps_cell_place **cells;
  size_t cell_buckets, cell_count;
  livenps_calendar waiting;
  uint64_t epoch; /* rises when what a cell resolved to may be wrong; never while rows are pending */

  int64_t oldest_ms;        /* what is older than this is in no window at the clock */
  livenps_pendings pending; /* in the order of arrival */
  livenps_pendings merged;  /* only inside a spread: by second, one for each cell */
  livenps_cell_sums cell_sums;
  livenps_order *order; /* the same: room for twice order_capacity */
  size_t order_capacity;
  livenps_series **served; /* the same: the series of one roll-up that have rows */
  uint32_t *by_series;     /* the same: the merged rows by series, and by second within one */
  size_t served_capacity;
  livenps_slot **hollow; /* slots that may be without a slice when everything is spread */
  size_t hollow_count, hollow_capacity;

  livenps_change *changes;
  size_t change_count, change_capacity;
  livenps_series **dead;
  size_t dead_count, dead_capacity;

  struct livenps_loading *loading; /* between the first chunk and load_finish */
};

/* Event times are within the years 0001 to 9999, so that no multiplication below overflows. */
#define LIVENPS_FIRST_SECOND (-62135596800)
#define LIVENPS_LAST_SECOND  253402300799

/* state.c */
livenps_series *livenps_series_find(const livenps_state *state, size_t rollup, livenps_text id);
livenps_series *livenps_series_make(livenps_state *state, size_t rollup,
                                    livenps_text id);                     /* must not be there */
void livenps_series_remove(livenps_state *state, livenps_series *series); /* frees it; must be dead */
livenps_slot *livenps_slot_make(livenps_state *state, livenps_series *series, size_t window);
void livenps_slot_remove(livenps_state *state, livenps_slot *slot); /* the series may be dead then */
void livenps_slot_schedule(livenps_state *state, livenps_slot *slot);
livenps_cell_place *livenps_cell_find(livenps_state *state,
                                      const livenps_text dimensions[LIVENPS_DIMENSIONS]); /* made if needed */
void livenps_cell_wait(livenps_state *state, livenps_cell_place *cell, int64_t second,
                       const livenps_counters *counters);
/* Finds or makes the cell's series: now, because above the cap it matters who comes first. The second is in one window at least; the
 * rows that make its series alive are pending. */
void livenps_cell_resolve(livenps_state *state, livenps_cell_place *cell, int64_t second);
void livenps_state_mark(livenps_state *state, livenps_series *series, size_t window, bool stale);
void livenps_pane_move(livenps_pane *pane, int64_t clock_ms);         /* the head only */
void livenps_state_oldest(livenps_state *state);                      /* after the heads have moved */
livenps_block *livenps_pane_block(livenps_pane *pane, int64_t block); /* made (not dirty) if needed */

/* spread.c */
void livenps_spread_open(livenps_state *state); /* when the windows are known */
void livenps_spread_free(livenps_state *state);
/* Notes a row whose second is not ahead of the clock. mask: its counters that are not zero; they stand in values by their number. */
void livenps_state_pend(livenps_state *state, livenps_cell_place *cell, int64_t second, uint32_t mask,
                        const int64_t *values);
/* Adds what is pending to slices and totals. Whoever reads or moves slots calls it first, also who only looks: what there is to be
 * seen is the same before and after. */
void livenps_state_spread(const livenps_state *state);
livenps_slot *livenps_slot_hollow(livenps_state *state, livenps_series *series,
                                  size_t window); /* makes one; a spread fills it */

/* view.c */
void livenps_family_leave(livenps_state *state, livenps_slot *slot); /* legal when it is in none */
void livenps_state_refresh(livenps_state *state);                    /* tests and verdicts of what changed */

/* snapshot.c */
void livenps_loading_free(livenps_state *state);

#endif
