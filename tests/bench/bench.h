#ifndef LIVENPS_BENCH_H
#define LIVENPS_BENCH_H

/* What the programs of tests/bench share: clocks, options of the form --name=value, and events of an exact size. */

#include "common/clock.h"
#include "common/error.h"
#include "producer/encode.h"
#include "producer/generate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static inline double bench_clock(clockid_t id) {
  struct timespec time;
  clock_gettime(id, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static inline double bench_now(void) {
  return bench_clock(CLOCK_MONOTONIC);
}

/* User and system time of the whole process, all threads. */
static inline double bench_cpu(void) {
  return bench_clock(CLOCK_PROCESS_CPUTIME_ID);
}

static inline const char *bench_option(int argc, char **argv, const char *name, const char *fallback) {
  const size_t length = strlen(name);
  for (int i = 1; i < argc; i++)
    if (!strncmp(argv[i], "--", 2) && !strncmp(argv[i] + 2, name, length) && argv[i][2 + length] == '=')
      return argv[i] + 3 + length;
  return fallback;
}

static inline long bench_number(int argc, char **argv, const char *name, const char *fallback) {
  return strtol(bench_option(argc, argv, name, fallback), NULL, 10);
}

_Noreturn static inline void bench_fail(const char *what, const char *text) {
  fprintf(stderr, "bench: %s: %s\n", what, text);
  exit(1);
}

/* An event of the simulated contact centre in exactly `size` bytes: what is missing is filled up by a field that the contract
 * ignores, what is optional is left out until it fits. */
static inline void bench_event(livenps_event *event, bool cloudevent, size_t size, livenps_buffer *out) {
  static const char plain[] = ",\"comment\":\"\"}", cloud[] = ",\"subject\":\"\"}";
  const char *filler = cloudevent ? cloud : plain;
  const size_t frame = strlen(filler);
  livenps_text *const optional[] = {NULL, &event->customer, &event->dimensions[LIVENPS_STAGE],
                                    &event->dimensions[LIVENPS_SEGMENT]};
  for (size_t i = 0; i < sizeof optional / sizeof *optional; i++) {
    if (optional[i])
      *optional[i] = (livenps_text){NULL, 0};
    out->length = 0;
    if (cloudevent)
      livenps_encode_cloudevent(event, out);
    else
      livenps_encode(event, out);
    if (out->length + frame - 1 <= size)
      break;
  }
  if (out->length + frame - 1 > size)
    return;      /* a few bytes more than asked for */
  out->length--; /* the last brace */
  const size_t fill = size - out->length - frame;
  livenps_buffer_add(out, filler, frame - 2);
  for (size_t i = 0; i < fill; i++) {
    const char letter = (char)('a' + (i * 7 + out->length) % 26);
    livenps_buffer_add(out, &letter, 1);
  }
  livenps_buffer_add(out, filler + frame - 2, 2);
}

#endif
