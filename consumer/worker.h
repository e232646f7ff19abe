#ifndef LIVENPS_WORKER_H
#define LIVENPS_WORKER_H

#include "../common/rules.h"
#include "reader.h"

#include <pthread.h>

/* A reader of a live instance with all that it needs: to Kafka it is a member of the group, to Redis a writer, with handles, connection,
 * batch and commits of its own. An instance has as many as the setting workers says. They know nothing of each other and the commit
 * protocol knows nothing of workers: two of them are to it what two instances are.
 *
 * Life: open, join, step again and again, flush, leave, close; or open, start, finish, close, where a thread does what lies between. */
typedef struct {
  const livenps_rules *rules;
  livenps_settings settings; /* what it borrows is the instance's */
  int number;
  livenps_monitor *monitor;
  char instance[80]; /* of a static member */
  livenps_commit commit;
  livenps_watch *watch;
  livenps_quarantine *quarantine;
  livenps_reader *reader;
  pthread_t thread;
  bool started;
  livenps_error error; /* the thread's, read after it was joined */
} livenps_worker;

/* writer: the instance's name in the log. Worker 0 keeps that name and, if it is static, the member's; those of the others end in .w2, .w3
 * ... *worker is a place that does not move; livenps_worker_close takes it also after a failure, or all zero. Settings, rules and
 * monitor (which may be NULL) are borrowed. */
int livenps_worker_open(livenps_worker *worker, const livenps_settings *settings, const livenps_rules *rules,
                        const char *writer, int number, livenps_monitor *monitor, livenps_error *error);
int livenps_worker_join(livenps_worker *worker, livenps_error *error);
/* 0, or -1 when the program must stop. */
int livenps_worker_step(livenps_worker *worker, livenps_error *error);
/* Commits what is in hand and says what was done. Nothing without a reader, or when there is an error already. */
void livenps_worker_flush(livenps_worker *worker, livenps_error *error);
void livenps_worker_leave(livenps_worker *worker);
void livenps_worker_close(livenps_worker *worker);

/* The thread ends with livenps_stop; when it fails it sets that, so that the others end too. */
int livenps_worker_start(livenps_worker *worker, livenps_error *error);
/* Waits for it (not started: nothing); the first error wins. */
void livenps_worker_finish(livenps_worker *worker, livenps_error *error);

#endif
