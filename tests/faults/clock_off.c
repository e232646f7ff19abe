/* A wall clock that is wrong by CLOCK_OFF_S seconds, for one process: LD_PRELOAD=clock_off.so. Only CLOCK_REALTIME is
 * wrong, as on a machine whose time was set badly; the monotonic clock and all waiting are right.
 *
 * libfaketime would do, but for jemalloc: both ask the other while they set themselves up, and neither goes on. So the
 * clock is read by the system call here, and nothing is allocated. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static int64_t off_s;
static int (*real_cond_timedwait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
static int (*real_cnd_timedwait)(cnd_t *, mtx_t *, const struct timespec *);

__attribute__((constructor)) static void set_up(void) {
  const char *text = getenv("CLOCK_OFF_S");
  off_s = text ? atoll(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
  const int result = (int)syscall(SYS_clock_gettime, clock, at);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    at->tv_sec += off_s;
  return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  (void)zone;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  *at = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
  return 0;
}

time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at)
    *at = now.tv_sec;
  return now.tv_sec;
}

int timespec_get(struct timespec *at, int base) {
  return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, at) == 0 ? base : 0;
}

/* Whoever waits until a time of day means the one he sees; the kernel has the right one. A time on the monotonic clock
 * (seconds since the start of the machine) is far smaller than any time of day. */
static struct timespec right(const struct timespec *until) {
  struct timespec result = *until;
  if (until->tv_sec > 1000000000 + off_s)
    result.tv_sec -= off_s;
  return result;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
  if (!real_cond_timedwait) {
    /* By its version, where there is an older one of the same name. */
    void *found = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!found)
      found = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    *(void **)&real_cond_timedwait = found;
  }
  const struct timespec when = right(until);
  return real_cond_timedwait(condition, mutex, &when);
}

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until) {
  if (!real_cnd_timedwait)
    *(void **)&real_cnd_timedwait = dlsym(RTLD_NEXT, "cnd_timedwait");
  const struct timespec when = right(until);
  return real_cnd_timedwait(condition, mutex, &when);
}
