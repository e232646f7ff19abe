#ifndef LIVENPS_STATE_H
#define LIVENPS_STATE_H

#include "../common/entry.h"
#include "../common/settings.h"

/* The aggregator's state: cells folded into slices of series (roll-up, id), running totals of every window and of the
 * window before it, and the ledger of partitions. Pure: bytes, structs and a clock value in; no I/O, no wall clock.
 *
 * Invariants: any order of arrival and any batching give the same state at the same clock (while no roll-up is over its cap);
 * totals always equal the sum of the slices they cover; the clock never goes back.
 *
 * Folding is lazy. What a row decides is decided when it is folded, in the order of the log: which series its names get, and so which
 * of them go to ~other above the cap. Adding it to slices and totals waits until somebody looks, a slice ends or 65,536 rows wait; then
 * all are added together, which costs a fraction (spread.c). As the clock of every slice and the set of series are the same then as they
 * were when the rows came, the result is that of adding each row at once: the same entries at the same clocks give the same state
 * whoever looks in between, and also after a snapshot, which holds everything folded. */
typedef struct livenps_state livenps_state;

typedef struct {
  const livenps_window *windows; /* copied */
  size_t window_count;
  const livenps_rollup *rollups; /* copied */
  size_t rollup_count;
  /* Per roll-up. Further names are folded into ~other, then all new ones until ~other has emptied, so that no series
   * shows a part of its numbers. Only a load that finds the limit raised ends that at once. */
  size_t series_max;
  int64_t minimum_n, reliable_n;
  double fdr;
  const livenps_pair *targets; /* raw touchpoint -> NPS; for roll-up touchpoint */
  size_t target_count;
} livenps_state_config;

void livenps_state_new(livenps_state **out, const livenps_state_config *config);
/* The same from checked settings (shape.c). */
void livenps_state_open(livenps_state **out, const livenps_settings *settings);
void livenps_state_free(livenps_state *state);

/* -- folding ---------------------------------------------------------------------------------------------------- */
/* Folds a whole entry whose own time (its stream id's milliseconds) is entry_ms: checks first that every from-offset continues
 * the to-offset in the ledger (a partition the ledger has not seen may start anywhere), then adds rows and ledger. On a break
 * nothing is changed and the error names topic, partition and offsets (LIVENPS_E_DATA). */
int livenps_state_fold(livenps_state *state, const livenps_entry *entry, int64_t entry_ms,
                       livenps_error *error);
/* One row, for tests and benchmarks; its second lies in the years 1 to 9999. Rows ahead of the clock wait until their second <= the clock's. */
void livenps_state_add(livenps_state *state, const livenps_text dimensions[LIVENPS_DIMENSIONS],
                       int64_t second, const livenps_counters *counters);
/* Moves the clock (ms); an earlier one is ignored. Slices leave windows, waiting rows enter. */
void livenps_state_advance(livenps_state *state, int64_t clock_ms);
int64_t livenps_state_clock(const livenps_state *state); /* 0 before the first advance */
/* Highest clock_ms among folded entries (the replay's clock), LIVENPS_NO_CLOCK without. */
int64_t livenps_state_entry_clock(const livenps_state *state);

/* -- ledger ------------------------------------------------------------------------------------------------------ */
typedef struct {
  char *topic;
  int32_t partition;
  int64_t start; /* first offset of this lineage, in the incarnation that it began with */
  livenps_position position;
  int64_t through_ms;       /* read through; 0 = nothing known */
  int64_t covered_since_ms; /* events before this may be missing; 0 = none is */
  int64_t accepted, late, duplicate, out_of_range, holes, gap;
  int64_t rejected[LIVENPS_REASONS];
} livenps_partition;
/* Sorted by topic and partition; borrowed until the next fold. */
const livenps_partition *livenps_state_partitions(const livenps_state *state, size_t *count);
/* Genesis: where a partition starts, in its first incarnation, and since when it is covered. */
void livenps_state_start(livenps_state *state, livenps_text topic, int32_t partition, int64_t start,
                         int64_t covered_since_ms);

/* -- views -------------------------------------------------------------------------------------------------------- */
typedef struct {
  size_t rollup, window; /* indices into the configuration */
  const char *id; /* percent-encoded, compound by '|', "all", "~other"; borrowed until the series goes */
  livenps_counters now, previous;
  int64_t n, promoters, passives, detractors, previous_n;
  bool scored; /* n >= minimum_n: nps*, classes, change*, target_state only then */
  double nps;
  int nps_rounded;
  double nps_low, nps_high;
  bool reliable;
  bool
      has_previous; /* previous_n >= minimum_n: previous_nps; and with scored: change, change_p, change_verdict */
  double previous_nps, change, change_p;
  int change_verdict; /* -1 0 1 after Benjamini-Hochberg */
  bool has_target;
  double target;
  int target_state; /* 1 interval above, -1 below, 0 undecided; only when scored */
  int64_t csat_n, ces_n;
  double csat_mean, csat_share,
      ces_mean; /* share of 4-5 in percent; published when csat_n >= minimum_n, ces_n >= minimum_n */
  int64_t interactions, invitations, answers;
  bool has_response_rate; /* invitations > 0 */
  double response_rate;   /* percent, may exceed 100 */
  bool has_value_nps;     /* n >= minimum_n and the sum of values > 0 */
  double value_nps;
  int64_t as_of_ms, window_start_ms, window_ms, slice_ms; /* window_start = (floor(t/g) - W/g + 1) g */
  /* From livenps_state_changed only: the visitor's own, kept with the series and window; 0 at first and after livenps_state_change_all. */
  uint32_t *note;
} livenps_view;

/* Visits every (series, window) whose published numbers changed since the last visit that returned 0 for it: a fold into it, a slice
 * that left, a verdict that flipped. visit returns 0 to go on (the view counts as published), else the visit stops and the rest stays
 * changed. gone(): a series lost its last slice in every window: its keys are to be removed. First refreshes verdicts. */
typedef struct {
  int (*view)(void *opaque, const livenps_view *view);
  int (*gone)(void *opaque, size_t rollup, const char *id);
  void *opaque;
} livenps_visitor;
int livenps_state_changed(livenps_state *state, const livenps_visitor *visitor);
void livenps_state_change_all(livenps_state *state); /* everything counts as changed */
/* Visits all views of one window of one roll-up, changed or not; no side effect. */
void livenps_state_views(livenps_state *state, size_t rollup, size_t window, const livenps_visitor *visitor);
/* The window as it was when it ended at end_ms (a multiple of its slice, clock - length < end_ms <= clock + 1 slice; asserted): for trend points.
 * Covers slices [end/g - W/g, end/g - 1]. Views have as_of_ms = end_ms - 1; series without data in it are left out. previous is not
 * computed further back than slices are kept: has_previous = false there. */
void livenps_state_views_at(livenps_state *state, size_t rollup, size_t window, int64_t end_ms,
                            const livenps_visitor *visitor);
size_t livenps_state_series(const livenps_state *state, size_t rollup,
                            bool *capped); /* number of series; is ~other in use */

/* -- snapshot and digest ------------------------------------------------------------------------------------------ */
/* The state in chunks, so that no string is huge and chunks that did not change need not be written again. A chunk is a block of
 * slices of one window (all series), or the head (version, clock, ledger, configuration of windows and roll-ups, waiting rows).
 * chunk() is called for every chunk of the snapshot with its name ("head", "5m.1041", "5m.1041.1" ...); dirty says whether its bytes
 * may differ from the last snapshot that livenps_state_saved confirmed; bytes are given only when dirty. Chunks stay below
 * chunk_bytes (roughly). chunk returns 0 to go on. */
typedef int (*livenps_chunk_visitor)(void *opaque, const char *name, bool dirty, const char *bytes,
                                     size_t length);
int livenps_state_snapshot(livenps_state *state, size_t chunk_bytes, livenps_chunk_visitor chunk,
                           void *opaque);
void livenps_state_saved(
    livenps_state *state); /* the snapshot just visited is stored: its chunks are clean now */
void livenps_state_unsaved(
    livenps_state *state); /* nothing is stored any more (new lineage): all chunks are dirty */
/* Loads chunks in any order into a new state; the head may come last. After all of them: finish checks and moves the clock to
 * the head's. Windows, roll-ups and targets may differ from those of the snapshot's writer: what the snapshot holds for other windows or
 * roll-ups is ignored; a window or roll-up it does not have starts empty, and covered_since of a new one is said by livenps_state_window_since. */
int livenps_state_load(livenps_state *state, const char *bytes, size_t length, livenps_error *error);
int livenps_state_load_finish(livenps_state *state, livenps_error *error);
/* A window or roll-up added by configuration after genesis knows nothing before this time; 0 otherwise. */
int64_t livenps_state_window_since(const livenps_state *state, size_t rollup, size_t window);

/* SHA-256 of the canonical state: windows, roll-ups, series sorted by roll-up and id, slices with packed counters, ledger, clock.
 * Independent of batching, of the order of arrival and of snapshots in between. through_ms, covered_since_ms, incarnations and anchors
 * stay out: they are of the time and the manner of reading. Above series_max it depends on arrival: say so (livenps_state_series). */
void livenps_state_digest(const livenps_state *state, char out[65]);

#endif
