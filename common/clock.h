#ifndef LIVENPS_CLOCK_H
#define LIVENPS_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All times are milliseconds since 1970-01-01T00:00:00Z, UTC, unless a name says otherwise. */
int64_t livenps_wall_ms(void); /* CLOCK_REALTIME: for log lines and the simulator only, never for counts */
int64_t livenps_monotonic_ms(void); /* CLOCK_MONOTONIC: for intervals and time-outs */
int64_t livenps_monotonic_us(void); /* for how long something takes that is shorter than a millisecond */

/* RFC 3339: "2026-11-21T10:15:00.123Z", offsets +hh:mm, "t"/"z"/space accepted, fraction of any length cut to ms,
 * second 60 read as 59.999. Years 0001-9999. Pure. Returns 0 or -1. */
int livenps_time_parse(const char *at, size_t length, int64_t *ms);
/* The same, faster for one time after another of the same day: *day remembers it. {0} is empty. */
typedef struct {
  char date[10]; /* as it is written */
  bool there;
  int64_t start_ms;
} livenps_day;
int livenps_time_parse_near(livenps_day *day, const char *at, size_t length, int64_t *ms);
/* RFC 3339 or a decimal number of epoch milliseconds (command lines). */
int livenps_time_argument(const char *text, int64_t *ms);
/* Writes "2026-11-21T10:15:00.123Z". Returns out. */
const char *livenps_time_print(int64_t ms, char out[32]);
/* "100ms", "5s", "2m", "1h", "7d" -> milliseconds; a bare number is refused (never guess the unit). 0 or -1. */
int livenps_duration_parse(const char *text, int64_t *ms);
/* The shortest exact form: 300000 -> "5m". Returns out. */
const char *livenps_duration_print(int64_t ms, char out[32]);

#endif
