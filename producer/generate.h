#ifndef LIVENPS_GENERATE_H
#define LIVENPS_GENERATE_H

#include "common/error.h"
#include "common/event.h"

/* A contact centre that does not exist. Pure: seeded, no clock, no files; integers only, so that no compiler or machine
 * rounds differently. Equal options give equal events.
 *
 * Customers make journeys: one to three contacts at touchpoints (interactions) over channels; most contacts are followed
 * by an invitation, some invitations by an answer (nps, sometimes csat and ces too). Touchpoints share the volume by a
 * Zipf-like law, and each has its own channels, response rate and true NPS. Hour and weekday (UTC) shape the volume and the
 * choice of channels.
 *
 * Two clocks:
 *   history     (has_start) a simulated clock starts at start_ms; about 10 events a simulated second on average. An
 *               event's send_ms is simulated too, never decreases, and no event time lies before start_ms.
 *   wall clock  the caller says what time it is: send_ms is now_ms, and the event time differs from it as below. The volume
 *               is the caller's, the hour only changes the mix.
 * In both an event is sent at most LIVENPS_EARLY_MS before and LIVENPS_LATE_MS after its time; most within 2 s. */
enum { LIVENPS_EARLY_MS = 29 * 1000, LIVENPS_LATE_MS = 3599 * 1000 };
enum { LIVENPS_MAX_TOUCHPOINTS = 1000000 };
#define LIVENPS_NO_INCIDENT INT64_MAX

typedef struct {
  uint64_t seed;
  int touchpoints; /* 1 to LIVENPS_MAX_TOUCHPOINTS; the first 24 have names of their own */
  bool has_start;
  int64_t start_ms;    /* history: when it begins. Wall clock: only makes ids differ between runs */
  int64_t incident_at; /* from the event of this number on (0 is the first) one touchpoint is clearly worse */
} livenps_generator_options;

/* Texts in event borrow from the generator until its next call. index: the dimensions as numbers for
 * livenps_generator_name, -1 where the event has none. */
typedef struct {
  livenps_event event;
  int32_t index[LIVENPS_DIMENSIONS];
  int64_t send_ms;
} livenps_generated;

typedef struct livenps_generator livenps_generator;
int livenps_generator_open(livenps_generator **out, const livenps_generator_options *options,
                           livenps_error *error);
void livenps_generator_close(livenps_generator *generator);
/* now_ms is not looked at in history. */
void livenps_generator_next(livenps_generator *generator, int64_t now_ms, livenps_generated *out);
/* A dimension's raw name; lives as long as the generator. */
const char *livenps_generator_name(const livenps_generator *generator, int dimension, int32_t index);
/* The touchpoint that --incident makes worse. */
const char *livenps_generator_incident(const livenps_generator *generator);

/* splitmix64 (Steele, Lea, Flood 2014): one 64-bit state, every seed is good. */
uint64_t livenps_mix(uint64_t state);
uint64_t livenps_random(uint64_t *state);
/* 0 <= result < bound, by multiplication: the bias is below bound / 2^32. 1 <= bound < 2^32. */
uint32_t livenps_random_below(uint64_t *state, uint32_t bound);

#endif
