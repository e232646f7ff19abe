/* Whether threads move (common/pulse.c) and what /healthz says of it, with a clock of the test's own. */

#include "common/exporter.h"
#include "common/pulse.h"

#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { LIMIT_MS = 60000 }; /* docs/metrics.md: a minute */

int64_t __wrap_livenps_monotonic_ms(void);
static int64_t clock_ms = 5000;

int64_t __wrap_livenps_monotonic_ms(void) {
  return clock_ms;
}

/* ---- threads that beat only when they are told ---------------------------------------------------------------------- */

typedef enum { BEAT, END } order;

typedef struct {
  livenps_part part;
  order order;
  sem_t go, done;
  pthread_t thread;
} member;

static void *run(void *opaque) {
  member *self = opaque;
  livenps_pulse_begin(self->part);
  sem_post(&self->done);
  for (;;) {
    sem_wait(&self->go);
    if (self->order == END) {
      livenps_pulse_end();
      return NULL;
    }
    livenps_pulse();
    sem_post(&self->done);
  }
}

static void begin(member *self, livenps_part part) {
  *self = (member){.part = part};
  assert_int_equal(sem_init(&self->go, 0, 0) | sem_init(&self->done, 0, 0), 0);
  assert_int_equal(pthread_create(&self->thread, NULL, run, self), 0);
  sem_wait(&self->done);
}

static void beat(member *self) {
  self->order = BEAT;
  sem_post(&self->go);
  sem_wait(&self->done);
}

static void end(member *self) {
  self->order = END;
  sem_post(&self->go);
  pthread_join(self->thread, NULL);
  sem_destroy(&self->go);
  sem_destroy(&self->done);
}

/* ---- what is asked --------------------------------------------------------------------------------------------------- */

static void healthz(int status, const char *body) {
  const livenps_exported exported = {0};
  livenps_http_answer answer = {0};
  assert_true(livenps_exporter_answer(&exported, "/healthz", &answer));
  const livenps_text text =
      answer.constant.at ? answer.constant : (livenps_text){answer.body.at, answer.body.length};
  char said[200];
  snprintf(said, sizeof said, "%.*s", (int)text.length, text.at);
  assert_string_equal(said, body);
  assert_int_equal(answer.status, status);
  livenps_buffer_free(&answer.body);
}

/* ---- tests ----------------------------------------------------------------------------------------------------------- */

static void without_threads_all_is_well(void **state) {
  (void)state;
  int64_t still_ms = -1;
  assert_null(livenps_pulse_slowest(&still_ms));
  assert_int_equal(still_ms, 0);
  healthz(200, "ok\n");
  livenps_pulse(); /* of a thread that is no part */
  clock_ms += 10 * LIMIT_MS;
  healthz(200, "ok\n");
}

static void the_thread_that_hangs_is_named(void **state) {
  (void)state;
  static const char *const names[LIVENPS_PULSE_COUNT] = {"main", "aggregator", "watch", "keep", "worker"};
  member moving, hanging;
  begin(&moving, LIVENPS_PULSE_MAIN);
  for (int part = 0; part < LIVENPS_PULSE_COUNT; part++) {
    char text[100];
    int64_t still_ms;
    begin(&hanging, (livenps_part)part);
    healthz(200, "ok\n");
    clock_ms += LIMIT_MS;
    beat(&moving);
    healthz(200, "ok\n"); /* a minute is not more than a minute */
    clock_ms++;
    snprintf(text, sizeof text, "the thread %s has not moved for 60 s\n", names[part]);
    healthz(503, text);
    assert_string_equal(livenps_pulse_slowest(&still_ms), names[part]);
    assert_int_equal(still_ms, LIMIT_MS + 1);
    /* It may come back. */
    beat(&hanging);
    healthz(200, "ok\n");
    clock_ms += 3 * LIMIT_MS;
    beat(&moving);
    snprintf(text, sizeof text, "the thread %s has not moved for 180 s\n", names[part]);
    healthz(503, text);
    /* Who ends on purpose is not waited for. */
    end(&hanging);
    healthz(200, "ok\n");
  }
  end(&moving);
  healthz(200, "ok\n");
}

/* Of two workers, one must not beat for the other, and of two that hang the one that does so longer is told. */
static void each_thread_beats_for_itself(void **state) {
  (void)state;
  member workers[2], keeper;
  begin(&workers[0], LIVENPS_PULSE_WORKER);
  begin(&workers[1], LIVENPS_PULSE_WORKER);
  begin(&keeper, LIVENPS_PULSE_KEEP);
  clock_ms += LIMIT_MS;
  beat(&workers[0]);
  beat(&keeper);
  clock_ms += LIMIT_MS;
  beat(&workers[0]);
  healthz(503, "the thread worker has not moved for 120 s\n");
  clock_ms += LIMIT_MS;
  beat(&workers[0]);
  beat(&workers[1]);
  healthz(503, "the thread keep has not moved for 120 s\n");
  beat(&keeper);
  healthz(200, "ok\n");
  end(&workers[0]);
  end(&workers[1]);
  end(&keeper);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(without_threads_all_is_well),
      cmocka_unit_test(the_thread_that_hangs_is_named),
      cmocka_unit_test(each_thread_beats_for_itself),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
