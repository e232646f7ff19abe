#ifndef LIVENPS_PROGRESS_H
#define LIVENPS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/* How far a reading is, on stderr: a bar that moves on a terminal twice a second, else a line in the log every ten seconds. */
typedef struct {
  const char *stage; /* of the log lines */
  int64_t started_ms, shown_ms;
} livenps_progress;

void livenps_progress_start(livenps_progress *progress, const char *stage);
/* done: 0 to 1; clock_ms: of the events read, INT64_MIN without. last: the bar stays and ends its line. */
void livenps_progress_show(livenps_progress *progress, double done, uint64_t records, int64_t clock_ms,
                           bool last);

#endif
