#ifndef LIVENPS_DRAIN_H
#define LIVENPS_DRAIN_H

#include "common/sender.h"

/* Waits until every record that was handed over is acknowledged or failed, for as long as acknowledgements keep coming: gives up
 * after LIVENPS_SILENCE_MS without one, once livenps_stop is set after LIVENPS_SILENCE_STOPPED_MS. */
enum { LIVENPS_SILENCE_MS = 60 * 1000, LIVENPS_SILENCE_STOPPED_MS = 10 * 1000 };
void livenps_drain(livenps_sender *sender);

#endif
