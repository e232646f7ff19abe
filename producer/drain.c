#include "drain.h"

#include "common/clock.h"
#include "common/stop.h"

void livenps_drain(livenps_sender *sender) {
  int64_t last_ms = livenps_monotonic_ms();
  size_t left = livenps_sender_pending(sender);
  while (left && livenps_monotonic_ms() - last_ms <=
                     (livenps_stop ? LIVENPS_SILENCE_STOPPED_MS : LIVENPS_SILENCE_MS)) {
    livenps_sender_flush(sender, 100, NULL);
    const size_t now_left = livenps_sender_pending(sender);
    if (now_left < left)
      last_ms = livenps_monotonic_ms();
    left = now_left;
  }
}
