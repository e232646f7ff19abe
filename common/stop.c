#include "stop.h"

#include <signal.h>
#include <string.h>

atomic_int livenps_stop = 0;
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "a signal handler sets it");

static void on_signal(int number) {
  (void)number;
  livenps_stop = 1;
}

void livenps_stop_on_signals(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  sigemptyset(&action.sa_mask);
  action.sa_handler =
      on_signal; /* no SA_RESTART: a blocking read (stdin, a socket) returns and sees the flag */
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGINT, &action, NULL);
  action.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &action, NULL);
}
