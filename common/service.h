#ifndef LIVENPS_SERVICE_H
#define LIVENPS_SERVICE_H

/* What the manager of a service is told (systemd: Type=notify, WatchdogSec). Without one, that is without NOTIFY_SOCKET in the
 * environment, nothing happens. Only this file's source includes systemd's header. */

/* Started: what follows would be work. status says in a few words what is done, for `systemctl status`. */
void livenps_service_ready(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Asked to end, and about to. */
void livenps_service_stopping(void);

/* To be called at least ten times a second by a thread that does nothing else, or by the only loop there is. Tells the manager that the
 * program is alive, as often as it wants to hear it, as long as every part (pulse.h) has beaten within half of its patience. Else the manager
 * ends the program when the rest of it is over, and starts it again: a crash is exact. */
void livenps_service_turn(void);

#endif
