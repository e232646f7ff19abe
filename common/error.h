#ifndef LIVENPS_ERROR_H
#define LIVENPS_ERROR_H

#include <stdbool.h>
#include <stddef.h>

/* What kind of failure it is: decides the exit code and whether waiting can help. */
typedef enum {
  LIVENPS_OK = 0,
  LIVENPS_E_USAGE = 2,   /* wrong option or setting: exit code 2 */
  LIVENPS_E_STARTUP = 3, /* something needed at the start is missing or refuses us: exit code 3 */
  LIVENPS_E_LOST = 4,    /* a peer is away, waiting may help: exit code 4 when we stop in this state */
  LIVENPS_E_DATA = 5,    /* stored bytes are not what we write (log entry, snapshot, reply) */
  LIVENPS_E_REFUSED = 6, /* the other side answered, and said no (lineage, configuration, token) */
} livenps_code;

/* Caller-owned. The first error wins: setting an error that is already set changes nothing. */
typedef struct {
  livenps_code code;
  char text[512];
} livenps_error;

/* Sets code and text unless one is set already; error may be NULL. Always returns -1, so that
 * `return livenps_fail(error, ...)` reads well in functions that return 0 or -1. */
int livenps_fail(livenps_error *error, livenps_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts the formatted text and ": " in front of the text that is there ("livenps.yaml:12: ..."). Returns -1. */
int livenps_fail_prefix(livenps_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

void livenps_error_clear(livenps_error *error);

/* malloc, calloc-like, realloc and strdup that do not return on failure: they print one line and exit 7.
 * Out of memory is no state in which counts can be kept right, and the commit protocol makes a crash exact. */
void *livenps_alloc(size_t size); /* zeroed */
void *livenps_resize(void *old, size_t size);
char *livenps_copy(const char *text, size_t length); /* adds the final NUL */

#endif
