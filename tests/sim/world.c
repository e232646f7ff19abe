#include "sim.h"

#include "common/log.h"
#include "common/stop.h"
#include "consumer/state.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <ucontext.h>

/* Time, chance, coroutines, and what the linker puts in place of libc's functions (the list of --wrap is in CMakeLists.txt). */

enum {
  COROUTINES = SIM_PROCESSES * 6,
  STACK = 512 * 1024,
  ACTIONS = 8192,
  ASK_DONE_US = 100000,
};

typedef struct {
  ucontext_t context;
  char *stack;
  sim_process *process; /* NULL: free */
  bool finished;
  uint64_t serial; /* a place is used again: handles of threads name both */
  int64_t wake_us;
  const void *waiting_for; /* a condition that can wake it sooner */
  void *(*function)(void *);
  void *argument;
} coroutine;

typedef struct {
  int64_t at_us;
  uint64_t order;
  sim_action action;
  void *opaque;
  int64_t number;
} planned;

sim_process sim_processes[SIM_PROCESSES];
int64_t sim_now_us;
bool sim_tracing;
uint64_t sim_steps;
char sim_failed_invariant[64], sim_failure[2048];
uint64_t sim_faults[SIM_FAULTS];
const char *const sim_fault_names[SIM_FAULTS] = {
#define SIM_FAULT_NAME(symbol, name) name,
    SIM_FAULT_LIST(SIM_FAULT_NAME)
#undef SIM_FAULT_NAME
};

static coroutine coroutines[COROUTINES];
static coroutine *running;
static ucontext_t scheduler, seed_end;
static planned actions[ACTIONS]; /* a heap by time, then order */
static size_t action_count;
static uint64_t action_order, serials;
static volatile bool failed, in_seed;
static uint64_t chance[4] = {1, 2, 3, 4}; /* before the first seed: the keys of hash tables */

/* ---- chance: xoshiro256** -------------------------------------------------------------------------------------------- */

static uint64_t rotate(uint64_t value, int by) {
  return value << by | value >> (64 - by);
}

uint64_t sim_random(void) {
  const uint64_t result = rotate(chance[1] * 5, 7) * 9, shifted = chance[1] << 17;
  chance[2] ^= chance[0];
  chance[3] ^= chance[1];
  chance[1] ^= chance[2];
  chance[0] ^= chance[3];
  chance[2] ^= shifted;
  chance[3] = rotate(chance[3], 45);
  return result;
}

static void seed_chance(uint64_t seed) {
  for (int i = 0; i < 4; i++) {
    seed += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = seed;
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    chance[i] = z ^ z >> 31;
  }
}

int64_t sim_between(int64_t low, int64_t high) {
  return low + (int64_t)(sim_random() % (uint64_t)(high - low + 1));
}

bool sim_chance(int percent) {
  return sim_between(0, 99) < percent;
}

void sim_fault_happened(sim_fault fault) {
  sim_faults[fault]++;
  sim_trace("-- fault: %s", sim_fault_names[fault]);
}

/* ---- memory: an arena for each seed ----------------------------------------------------------------------------------- */

/* A process that is killed leaves its memory behind, so everything that our objects allocate comes from one block that begins anew
 * with each seed. Freed pieces are used again by size class. libc, liblua and libcrypto allocate as ever. */
enum { CLASSES = 40 };
#define ARENA_SIZE (UINT64_C(1) << 32)
#define ARENA_AT   ((char *)UINT64_C(0x200000000000))

void *__real_malloc(size_t size);
void *__real_realloc(void *old, size_t size);
void __real_free(void *old);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void __wrap_free(void *old);
char *__wrap_strdup(const char *text);

static char *arena, *arena_at;
static void *free_pieces[CLASSES];

static int class_of(size_t size) {
  return size <= 16 ? 4 : 64 - __builtin_clzll(size - 1);
}

/* The class stands in the 16 bytes before the piece. */
void *__wrap_malloc(size_t size) {
  if (!in_seed)
    return __real_malloc(size);
  const int class = class_of(size);
  if (free_pieces[class]) {
    void *piece = free_pieces[class];
    memcpy(&free_pieces[class], piece, sizeof(void *));
    return piece;
  }
  char *piece = arena_at + 16;
  arena_at += 16 + (UINT64_C(1) << class);
  if (arena_at > arena + ARENA_SIZE)
    sim_fail("memory", "one seed took more than %llu bytes", (unsigned long long)ARENA_SIZE);
  memcpy(piece - 16, &class, sizeof class);
  return piece;
}

static bool of_arena(const void *at) {
  return (const char *)at >= ARENA_AT && (const char *)at < ARENA_AT + ARENA_SIZE;
}

void *__wrap_calloc(size_t count, size_t size) {
  void *piece = __wrap_malloc(count * size);
  return piece ? memset(piece, 0, count * size) : NULL;
}

void __wrap_free(void *old) {
  if (!of_arena(old)) {
    __real_free(old);
    return;
  }
  int class;
  memcpy(&class, (char *)old - 16, sizeof class);
  memcpy(old, &free_pieces[class], sizeof(void *));
  free_pieces[class] = old;
}

void *__wrap_realloc(void *old, size_t size) {
  if (!old)
    return __wrap_malloc(size);
  if (!of_arena(old))
    return __real_realloc(old, size);
  int class;
  memcpy(&class, (char *)old - 16, sizeof class);
  if (class_of(size) == class)
    return old;
  const size_t had = (size_t)1 << class;
  void *piece = __wrap_malloc(size);
  memcpy(piece, old, had < size ? had : size);
  __wrap_free(old);
  return piece;
}

char *__wrap_strdup(const char *text) {
  const size_t size = strlen(text) + 1;
  return memcpy(__wrap_malloc(size), text, size);
}

void *sim_keep(size_t size) {
  return __real_malloc(size);
}

/* ---- telling ------------------------------------------------------------------------------------------------------------ */

static void print_line(const char *text) {
  fprintf(stderr, "%10.3f %-8s %s\n", (double)sim_now_us / 1e6, running ? running->process->name : "world",
          text);
}

void sim_trace(const char *format, ...) {
  if (!sim_tracing)
    return;
  char text[1024];
  va_list more;
  va_start(more, format);
  vsnprintf(text, sizeof text, format, more);
  va_end(more);
  print_line(text);
}

void sim_fail(const char *invariant, const char *format, ...) {
  va_list more;
  va_start(more, format);
  snprintf(sim_failed_invariant, sizeof sim_failed_invariant, "%s", invariant);
  const int used = snprintf(sim_failure, sizeof sim_failure, "at %.3f s, %s: ", (double)sim_now_us / 1e6,
                            running ? running->process->name : "world");
  vsnprintf(sim_failure + used, sizeof sim_failure - (size_t)used, format, more);
  va_end(more);
  sim_trace("** %s: %s", sim_failed_invariant, sim_failure);
  failed = true;
  setcontext(&seed_end);
  abort();
}

/* ---- coroutines ------------------------------------------------------------------------------------------------------------ */

sim_process *sim_self(void) {
  return running ? running->process : NULL;
}

bool sim_paused(const sim_process *process) {
  return process->paused_until_us > sim_now_us;
}

int64_t sim_wall_ms(void) {
  return SIM_EPOCH_MS + sim_now_us / 1000;
}

static void back_to_scheduler(void) {
  coroutine *self = running;
  swapcontext(&self->context, &scheduler);
}

void sim_sleep_us(int64_t us) {
  if (!running)
    abort(); /* only code of a process sleeps */
  running->wake_us = sim_now_us + (us > 0 ? us : 0);
  back_to_scheduler();
}

static void body(void) {
  coroutine *self = running;
  self->function(self->argument);
  self->finished = true;
  back_to_scheduler();
}

static coroutine *spawn(sim_process *process, void *(*function)(void *), void *argument) {
  for (size_t i = 0; i < COROUTINES; i++) {
    coroutine *each = &coroutines[i];
    if (each->process)
      continue;
    if (!each->stack) {
      each->stack =
          mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (each->stack == MAP_FAILED)
        abort();
      mprotect(each->stack, 4096, PROT_NONE);
    }
    getcontext(&each->context);
    each->context.uc_stack.ss_sp = each->stack;
    each->context.uc_stack.ss_size = STACK;
    each->context.uc_link = NULL;
    each->process = process;
    each->finished = false;
    each->waiting_for = NULL;
    each->serial = ++serials;
    each->wake_us = sim_now_us + sim_between(0, 2000);
    each->function = function;
    each->argument = argument;
    makecontext(&each->context, body, 0);
    return each;
  }
  abort();
}

static void *process_body(void *opaque) {
  sim_process *process = opaque;
  process->exit_code = process->entry(process);
  sim_trace("ended with %d", process->exit_code);
  sim_kill(process);
  return NULL;
}

void sim_start(sim_process *process) {
  process->alive = true;
  process->stop = 0;
  process->exit_code = -1;
  process->crash_at = 0;
  process->stop_at_us = 0;
  process->late_commit = false;
  process->paused_until_us = 0;
  process->started_us = sim_now_us;
  spawn(process, process_body, process);
  sim_trace("%s starts", process->name);
}

void sim_kill(sim_process *process) {
  process->alive = false;
  process->ended_us = sim_now_us;
  sim_kafka_process_died(process);
  for (size_t i = 0; i < COROUTINES; i++)
    if (coroutines[i].process == process) {
      coroutines[i].process = NULL;
      coroutines[i].finished = true;
    }
  if (running && running->finished && !running->process) {
    /* The stack under our feet may be given away as soon as the scheduler runs, not before. */
    running = NULL;
    setcontext(&scheduler);
    abort();
  }
}

/* ---- what is planned --------------------------------------------------------------------------------------------------------- */

static bool sooner(const planned *a, const planned *b) {
  return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

void sim_at(int64_t at_us, sim_action action, void *opaque, int64_t number) {
  if (action_count == ACTIONS)
    abort();
  size_t i = action_count++;
  const planned what = {at_us < sim_now_us ? sim_now_us : at_us, action_order++, action, opaque, number};
  for (; i && sooner(&what, &actions[(i - 1) / 2]); i = (i - 1) / 2)
    actions[i] = actions[(i - 1) / 2];
  actions[i] = what;
}

static planned next_action(void) {
  const planned first = actions[0], last = actions[--action_count];
  size_t i = 0;
  for (size_t child; (child = 2 * i + 1) < action_count; i = child) {
    if (child + 1 < action_count && sooner(&actions[child + 1], &actions[child]))
      child++;
    if (!sooner(&actions[child], &last))
      break;
    actions[i] = actions[child];
  }
  actions[i] = last;
  return first;
}

static void resume(coroutine *next) {
  sim_process *process = next->process;
  livenps_stop = process->stop;
  running = next;
  sim_steps++;
  /* A coroutine that dies comes back by setcontext, so what is needed afterwards is not kept in registers: only globals are read. */
  swapcontext(&scheduler, &next->context);
  if (running) {
    running->process->stop = livenps_stop;
    if (running->finished)
      running->process = NULL;
  }
  running = NULL;
}

void sim_run(int64_t until_us, bool (*done)(void)) {
  int64_t ask_us = sim_now_us;
  for (;;) {
    coroutine *next = NULL;
    int64_t at_us = INT64_MAX;
    for (size_t i = 0; i < COROUTINES; i++) {
      coroutine *each = &coroutines[i];
      if (!each->process)
        continue;
      const int64_t paused_us = each->process->paused_until_us;
      const int64_t wake_us = each->wake_us < paused_us ? paused_us : each->wake_us;
      if (wake_us < at_us)
        next = each, at_us = wake_us;
    }
    const bool acting = action_count && actions[0].at_us <= at_us;
    at_us = acting ? actions[0].at_us : at_us;
    if (at_us > until_us) {
      sim_now_us = until_us;
      return;
    }
    if (at_us > sim_now_us)
      sim_now_us = at_us;
    if (done && sim_now_us >= ask_us) {
      if (done())
        return;
      ask_us = sim_now_us + ASK_DONE_US;
    }
    if (acting) {
      const planned what = next_action();
      what.action(what.opaque, what.number);
    } else {
      resume(next);
    }
  }
}

bool sim_seed(uint64_t seed, void (*scenario)(void)) {
  if (!arena) {
    arena = mmap(ARENA_AT, ARENA_SIZE, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (arena != ARENA_AT) {
      perror("the simulator's memory");
      exit(1);
    }
  }
  arena_at = arena;
  memset(free_pieces, 0, sizeof free_pieces);
  memset(sim_processes, 0, sizeof sim_processes);
  memset(sim_faults, 0, sizeof sim_faults);
  for (size_t i = 0; i < COROUTINES; i++)
    coroutines[i].process = NULL;
  for (int i = 0; i < SIM_PROCESSES; i++) {
    sim_processes[i].id = i;
    snprintf(sim_processes[i].name, sizeof sim_processes[i].name, "p%d", i);
  }
  action_count = 0;
  action_order = serials = 0;
  sim_now_us = 0;
  running = NULL;
  seed_chance(seed);
  static volatile bool returned;
  failed = returned = false;
  in_seed = true;
  getcontext(&seed_end);
  if (!failed && !returned) {
    returned = true;
    scenario();
  }
  in_seed = false;
  running = NULL;
  livenps_stop = 0;
  return !failed;
}

/* ---- in place of libc and of common/ ------------------------------------------------------------------------------------------ */

int64_t __wrap_livenps_monotonic_ms(void);
int64_t __wrap_livenps_wall_ms(void);
int __wrap_nanosleep(const struct timespec *time, struct timespec *rest);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*function)(void *),
                          void *argument);
int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_detach(pthread_t thread);
int __real_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex,
                                  const struct timespec *until);
int __wrap_pthread_cond_signal(pthread_cond_t *condition);
int __real_clock_gettime(clockid_t id, struct timespec *now);
int __wrap_clock_gettime(clockid_t id, struct timespec *now);
ssize_t __wrap_getrandom(void *out, size_t size, unsigned flags);
void __wrap__exit(int code) __attribute__((noreturn));
void __wrap_livenps_log(livenps_level level, const char *stage, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void __wrap_livenps_log_limited(livenps_limit *limit, livenps_level level, const char *stage,
                                const char *format, ...) __attribute__((format(printf, 4, 5)));
void __wrap_livenps_state_digest(const livenps_state *state, char out[65]);
void __real_livenps_state_digest(const livenps_state *state, char out[65]);

int64_t __wrap_livenps_monotonic_ms(void) {
  return 10000000 + (sim_now_us + (running ? running->process->skew_us : 0)) / 1000;
}

/* The machines' clocks are off by what their monotonic ones are: nothing may depend on it. */
int64_t __wrap_livenps_wall_ms(void) {
  return sim_wall_ms() + (running ? running->process->skew_us / 1000 : 0);
}

int __wrap_nanosleep(const struct timespec *time, struct timespec *rest) {
  (void)rest;
  sim_sleep_us((int64_t)time->tv_sec * 1000000 + time->tv_nsec / 1000);
  return 0;
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*function)(void *),
                          void *argument) {
  (void)attributes;
  const coroutine *made = spawn(running->process, function, argument);
  *thread = made->serial * COROUTINES + (uint64_t)(made - coroutines);
  return 0;
}

int __wrap_pthread_join(pthread_t thread, void **result) {
  (void)result;
  const coroutine *other = &coroutines[thread % COROUTINES];
  while (other->serial == thread / COROUTINES && !other->finished)
    sim_sleep_us(1000);
  return 0;
}

int __wrap_pthread_detach(pthread_t thread) {
  (void)thread;
  return 0;
}

/* All of it is one thread: who finds a lock taken lets others run. */
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex) {
  if (!running)
    return __real_pthread_mutex_lock(mutex);
  while (pthread_mutex_trylock(mutex))
    sim_sleep_us(100);
  return 0;
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex,
                                  const struct timespec *until) {
  struct timespec now;
  __wrap_clock_gettime(CLOCK_MONOTONIC, &now);
  const int64_t left_us =
      (until->tv_sec - now.tv_sec) * INT64_C(1000000) + (until->tv_nsec - now.tv_nsec) / 1000;
  pthread_mutex_unlock(mutex);
  running->waiting_for = condition;
  sim_sleep_us(left_us);
  running->waiting_for = NULL;
  return __wrap_pthread_mutex_lock(mutex);
}

int __wrap_pthread_cond_signal(pthread_cond_t *condition) {
  for (size_t i = 0; i < COROUTINES; i++)
    if (coroutines[i].process && coroutines[i].waiting_for == condition)
      coroutines[i].wake_us = sim_now_us;
  return 0;
}

int __wrap_clock_gettime(clockid_t id, struct timespec *now) {
  if (!running)
    return __real_clock_gettime(id, now);
  const int64_t ms = id == CLOCK_MONOTONIC ? __wrap_livenps_monotonic_ms() : __wrap_livenps_wall_ms();
  *now = (struct timespec){ms / 1000, ms % 1000 * 1000000};
  return 0;
}

/* Also before main, for the keys of the hash tables. */
ssize_t __wrap_getrandom(void *out, size_t size, unsigned flags) {
  (void)flags;
  unsigned char *at = out;
  for (size_t i = 0; i < size; i++)
    at[i] = (unsigned char)sim_random();
  return (ssize_t)size;
}

void __wrap__exit(int code) {
  if (!running)
    _Exit(code);
  sim_trace("_exit(%d)", code);
  running->process->exit_code = code;
  sim_kill(running->process);
  abort();
}

__attribute__((format(printf, 2, 0))) static void log_line(const char *stage, const char *format,
                                                           va_list more) {
  char text[900];
  vsnprintf(text, sizeof text, format, more);
  sim_trace("%s: %s", stage, text);
}

void __wrap_livenps_log(livenps_level level, const char *stage, const char *format, ...) {
  (void)level;
  if (!sim_tracing)
    return;
  va_list more;
  va_start(more, format);
  log_line(stage, format, more);
  va_end(more);
}

void __wrap_livenps_log_limited(livenps_limit *limit, livenps_level level, const char *stage,
                                const char *format, ...) {
  (void)limit, (void)level;
  if (!sim_tracing)
    return;
  va_list more;
  va_start(more, format);
  log_line(stage, format, more);
  va_end(more);
}

/* A replay prints its digest; here it is kept. */
void __wrap_livenps_state_digest(const livenps_state *state, char out[65]) {
  __real_livenps_state_digest(state, out);
  if (running)
    memcpy(running->process->digest, out, 65);
}
