#ifndef LIVENPS_RECOUNT_H
#define LIVENPS_RECOUNT_H

#include "../common/mapping.h"
#include "../common/admit.h"
#include "../common/counters.h"
#include "../common/settings.h"

/* The second opinion of `verify`: records in, plain sums out. Pure, slow, and on purpose without the parts it is to check: jansson
 * reads the JSON, the fields are read by docs/events.md once more, and every event is added where it belongs at one fixed clock, so there
 * are no rows, slices, running totals or packed bytes. Shared with what it checks are only the compiled mapping (what a file said), the
 * encoding of names as ids, and the names of the counters. */
typedef struct livenps_recount livenps_recount;

typedef struct {
  const livenps_window *windows; /* borrowed, like all here, for the life of the recount */
  size_t window_count;
  const livenps_rollup *rollups;
  size_t rollup_count;
  size_t series_max; /* per roll-up; names beyond twice as many are added up as one */
  const livenps_admission *admission;
  int64_t clock_ms;
} livenps_recount_config;

void livenps_recount_new(livenps_recount **out, const livenps_recount_config *config);
void livenps_recount_free(livenps_recount *recount); /* NULL is fine */

/* What became of the records of one partition. */
typedef struct {
  int64_t accepted, late, out_of_range;
  int64_t rejected[LIVENPS_REASONS];
} livenps_tally;
/* One record. Of a value that jansson does not read, the program's own scanner says which of malformed, invalid_utf8, too_deep and
 * duplicate_key it is, because that depends on who reads; that it cannot be read is jansson's word. */
void livenps_recount_record(livenps_recount *recount, const livenps_mapping *mapping,
                            const livenps_record *record, livenps_tally *tally);

/* The reference reader alone: the fate of a record, and its event when it is ACCEPTED, LATE or OUT_OF_RANGE (texts borrow from the
 * recount until its next record). */
livenps_fate livenps_recount_judge(livenps_recount *recount, const livenps_mapping *mapping,
                                   const livenps_record *record, livenps_event *event,
                                   livenps_reason *reason);

/* Since when a window or the one before it begins at the clock: its first millisecond. */
int64_t livenps_recount_start(const livenps_recount *recount, size_t window, bool previous);

/* A series' sums in a window, and in the one before it. */
typedef struct {
  livenps_counters now, previous;
  bool seen; /* the caller's mark */
} livenps_sums;
/* NULL where nothing was added. */
livenps_sums *livenps_recount_find(const livenps_recount *recount, size_t rollup, const char *id,
                                   size_t window);
/* Visits every series that has sums in that window, in no particular order; visit returns 0 to go on. */
int livenps_recount_each(const livenps_recount *recount, size_t rollup, size_t window,
                         int (*visit)(void *opaque, const char *id, const livenps_sums *sums), void *opaque);

#endif
