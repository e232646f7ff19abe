#ifndef LIVENPS_STOP_H
#define LIVENPS_STOP_H

#include <stdatomic.h>

/* Set by SIGTERM and SIGINT. Loops look at it at least every 100 ms; the handler does nothing else. Atomic, for threads look too. */
extern atomic_int livenps_stop;

/* Installs the handlers. SIGPIPE is ignored: a write to a peer that has gone is an error to handle, not an end. */
void livenps_stop_on_signals(void);

#endif
