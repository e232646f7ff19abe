#include "service.h"

#include "clock.h"
#include "log.h"
#include "pulse.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <systemd/sd-daemon.h>

void livenps_service_ready(const char *format, ...) {
  char status[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(status, sizeof status, format, arguments);
  va_end(arguments);
  sd_notifyf(0, "READY=1\nSTATUS=%s", status);
}

void livenps_service_stopping(void) {
  sd_notify(0, "STOPPING=1\nSTATUS=ending");
}

void livenps_service_turn(void) {
  static int64_t patience_ms = -1, due_ms;
  static livenps_limit limit = {.interval_ms = 10000};
  if (patience_ms < 0) {
    uint64_t patience_us = 0;
    patience_ms = sd_watchdog_enabled(0, &patience_us) > 0 ? (int64_t)(patience_us / 1000) : 0;
  }
  const int64_t now_ms = livenps_monotonic_ms();
  if (!patience_ms || now_ms < due_ms) {
    return;
  }
  int64_t still_ms;
  const char *part = livenps_pulse_slowest(&still_ms);
  if (part && still_ms > patience_ms / 2) {
    livenps_log_limited(
        &limit, LIVENPS_ERROR, "service",
        "thread %s has stood still for %" PRId64
        " s: the service manager is not told that this program is alive, and will start it again",
        part, still_ms / 1000);
    return;
  }
  sd_notify(0, "WATCHDOG=1");
  due_ms = now_ms + patience_ms / 4;
}
