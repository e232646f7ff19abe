#ifndef LIVENPS_READER_H
#define LIVENPS_READER_H

#include "commit.h"
#include "monitor.h"
#include "quarantine.h"
#include "watch.h"

/* Reads the topics into the batch and commits it: the Kafka consumer of `run` (a group) and of `replay` (all partitions, up to fixed
 * ends). One thread; its callbacks only set state, livenps_reader_step does the work at its own pace. */
typedef struct livenps_reader livenps_reader;

typedef struct {
  const livenps_settings *settings;
  const livenps_admission *admission;
  const livenps_mapping *const *mappings; /* one for each of settings->topics */
  livenps_watch *watch;
  livenps_commit *commit; /* NULL in a dry run: nothing is committed, see sink */
  livenps_quarantine
      *quarantine;          /* NULL: rejected records are counted only (replay: live has quarantined them) */
  livenps_monitor *monitor; /* NULL: nobody wants to know */
  int number;               /* this reader's, for the monitor: below LIVENPS_WORKERS_MAX */
  /* In a dry run each batch goes here instead of Redis, with the combine that lends its cells and rows: whoever keeps that one leaves an
   * empty one in its place. The entry's topics live as long as the assignment. A failure ends the program. */
  int (*sink)(void *opaque, livenps_combine **combine, const livenps_entry *entry, livenps_error *error);
  void *opaque;
} livenps_reader_config;

int livenps_reader_open(livenps_reader **out, const livenps_reader_config *config, livenps_error *error);
/* Joins the group. */
int livenps_reader_subscribe(livenps_reader *reader, livenps_error *error);
/* Reads these partitions from the stored positions (dry run: from start) up to end, without a group. Where no position is known yet the
 * steps ask on, and read then. */
typedef struct {
  char topic[250];
  int32_t partition;
  int64_t start, end;
  int64_t covered_since_ms; /* as in livenps_beginning; not looked at by the reader */
} livenps_range;
int livenps_reader_assign(livenps_reader *reader, const livenps_range *ranges, size_t count,
                          livenps_error *error);

/* Serves Kafka for about wait_ms, commits when it is time. 0, or -1 when the program must stop (error says why). Lost peers are waited
 * for inside, with a line in the log at the start and the end of the outage. */
int livenps_reader_step(livenps_reader *reader, int wait_ms, livenps_error *error);
/* Reading pauses behind the record whose clock passes this one, until it is moved on: a replay's pace. At first INT64_MAX. */
void livenps_reader_pause_at(livenps_reader *reader, int64_t clock_ms);
/* Commits what is in hand, once: 0, or -1 with the reason (nothing is lost: it will be read again). */
int livenps_reader_flush(livenps_reader *reader, livenps_error *error);
bool livenps_reader_done(
    const livenps_reader *reader); /* assign: every partition is at its end, and committed */

typedef struct {
  uint64_t records, accepted, rejected, strays, rebalances;
  uint64_t fates[LIVENPS_OUT_OF_RANGE + 1], reasons[LIVENPS_REASONS]; /* the same, one by one */
  uint64_t adoptions;                                                 /* of positions */
  uint64_t restarts;  /* of partitions whose offsets mean other records now */
  uint64_t refetches; /* jumps of offsets that were read a second time before they were believed */
  int64_t clock_ms;   /* newest min(event time, record timestamp) read, LIVENPS_NO_CLOCK before */
  int64_t left;       /* assign: offsets still to read */
  size_t lanes;
} livenps_reader_stats;
void livenps_reader_stats_get(const livenps_reader *reader, livenps_reader_stats *stats);

/* Leaves the group and frees. */
void livenps_reader_close(livenps_reader *reader);

#endif
