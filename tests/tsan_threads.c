/* Linked into everything built under the thread sanitizer, and only there. librdkafka makes its threads and locks with
 * C11's <threads.h>, which gcc 12's sanitizer does not know: a thread that begins unknown to it crashes the program. These
 * definitions stand in front of the C library's and go through POSIX threads, so that the sanitizer sees every thread and
 * every lock. glibc's C11 and POSIX objects are the same ones under two names. */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <threads.h>

_Static_assert(sizeof(mtx_t) >= sizeof(pthread_mutex_t) && sizeof(cnd_t) >= sizeof(pthread_cond_t) &&
                   sizeof(thrd_t) == sizeof(pthread_t),
               "C11 objects hold POSIX ones");

typedef struct {
  thrd_start_t run;
  void *argument;
} beginning;

static void *begin(void *opaque) {
  beginning what = *(beginning *)opaque;
  free(opaque);
  return (void *)(intptr_t)what.run(what.argument);
}

static int answer(int code) {
  return code == 0           ? thrd_success
         : code == ETIMEDOUT ? thrd_timedout
         : code == EBUSY     ? thrd_busy
         : code == ENOMEM    ? thrd_nomem
                             : thrd_error;
}

int thrd_create(thrd_t *thread, thrd_start_t run, void *argument) {
  beginning *what = malloc(sizeof *what);
  if (!what) {
    return thrd_nomem;
  }
  *what = (beginning){run, argument};
  int code = pthread_create(thread, NULL, begin, what);
  if (code != 0) {
    free(what);
  }
  return answer(code);
}

int thrd_join(thrd_t thread, int *result) {
  void *returned = NULL;
  int code = pthread_join(thread, &returned);
  if (result) {
    *result = (int)(intptr_t)returned;
  }
  return answer(code);
}

int thrd_detach(thrd_t thread) {
  return answer(pthread_detach(thread));
}

int mtx_init(mtx_t *lock, int type) {
  pthread_mutexattr_t kind;
  pthread_mutexattr_init(&kind);
  pthread_mutexattr_settype(&kind, type & mtx_recursive ? PTHREAD_MUTEX_RECURSIVE : PTHREAD_MUTEX_NORMAL);
  int code = pthread_mutex_init((pthread_mutex_t *)lock, &kind);
  pthread_mutexattr_destroy(&kind);
  return answer(code);
}

int mtx_lock(mtx_t *lock) {
  return answer(pthread_mutex_lock((pthread_mutex_t *)lock));
}

int mtx_trylock(mtx_t *lock) {
  return answer(pthread_mutex_trylock((pthread_mutex_t *)lock));
}

int mtx_unlock(mtx_t *lock) {
  return answer(pthread_mutex_unlock((pthread_mutex_t *)lock));
}

void mtx_destroy(mtx_t *lock) {
  pthread_mutex_destroy((pthread_mutex_t *)lock);
}

int cnd_init(cnd_t *condition) {
  return answer(pthread_cond_init((pthread_cond_t *)condition, NULL));
}

int cnd_signal(cnd_t *condition) {
  return answer(pthread_cond_signal((pthread_cond_t *)condition));
}

int cnd_broadcast(cnd_t *condition) {
  return answer(pthread_cond_broadcast((pthread_cond_t *)condition));
}

int cnd_wait(cnd_t *condition, mtx_t *lock) {
  return answer(pthread_cond_wait((pthread_cond_t *)condition, (pthread_mutex_t *)lock));
}

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict lock, const struct timespec *restrict until) {
  return answer(pthread_cond_timedwait((pthread_cond_t *)condition, (pthread_mutex_t *)lock, until));
}

void cnd_destroy(cnd_t *condition) {
  pthread_cond_destroy((pthread_cond_t *)condition);
}
