#ifndef LIVENPS_LOG_H
#define LIVENPS_LOG_H

/* Log lines go to stderr: "2026-11-21T10:15:00.123Z info ingest: text". Text from outside is passed through
 * livenps_printable first by whoever logs it. Never log customer identities, comments or secrets. */
typedef enum { LIVENPS_ERROR, LIVENPS_WARN, LIVENPS_INFO, LIVENPS_DEBUG } livenps_level;

void livenps_log_level(livenps_level level); /* default LIVENPS_INFO */
void livenps_log(livenps_level level, const char *stage, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* At most one line per interval from this place; the next line says how many were left out.
 * Usage: static livenps_limit limit = {.interval_ms = 5000}; livenps_log_limited(&limit, LIVENPS_WARN, "commit", ...).
 * Safe from several threads. */
typedef struct {
  int interval_ms;
  _Atomic long long last_ms;
  _Atomic long long left_out;
} livenps_limit;
void livenps_log_limited(livenps_limit *limit, livenps_level level, const char *stage, const char *format,
                         ...) __attribute__((format(printf, 4, 5)));

/* Copies text of a given length into a buffer with controls, quotes, backslash and invalid UTF-8 as \xNN; cut with "...".
 * Returns buffer. For log lines and terminals: names from outside are hostile. */
const char *livenps_printable(char *buffer, unsigned long size, const char *text, unsigned long length);

/* The same, but quotes stay: for whole sentences of a library or a server, which nothing of ours puts in quotes. */
const char *livenps_printable_sentence(char *buffer, unsigned long size, const char *text,
                                       unsigned long length);

#endif
