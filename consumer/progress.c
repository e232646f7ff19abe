#include "progress.h"

#include "../common/clock.h"
#include "../common/log.h"

#include <stdio.h>
#include <unistd.h>

void livenps_progress_start(livenps_progress *progress, const char *stage) {
  progress->stage = stage;
  progress->started_ms = progress->shown_ms = livenps_monotonic_ms();
}

void livenps_progress_show(livenps_progress *progress, double done, uint64_t records, int64_t clock_ms,
                           bool last) {
  const bool terminal = isatty(STDERR_FILENO);
  const int64_t now_ms = livenps_monotonic_ms();
  if (!last && now_ms - progress->shown_ms < (terminal ? 500 : 10000))
    return;
  if (last && !terminal)
    return;
  progress->shown_ms = now_ms;
  const double seconds = (double)(now_ms - progress->started_ms) / 1000.0;
  const double left = done > 0.001 ? seconds / done - seconds : 0.0;
  char clock[32] = "-";
  if (clock_ms != INT64_MIN)
    livenps_time_print(clock_ms, clock);
  if (!terminal) {
    livenps_log(LIVENPS_INFO, progress->stage, "%.1f %% read, %llu records, clock %s, about %.0f s left",
                100 * done, (unsigned long long)records, clock, left);
    return;
  }
  char bar[31];
  for (int i = 0; i < 30; i++)
    bar[i] = i < (int)(30 * done) ? '#' : '.';
  bar[30] = 0;
  fprintf(stderr, "\r[%s] %5.1f %%  %llu records  %.0f/s  clock %s  ETA %.0f s   %s", bar, 100 * done,
          (unsigned long long)records, seconds > 0 ? (double)records / seconds : 0.0, clock, left,
          last ? "\n" : "");
}
