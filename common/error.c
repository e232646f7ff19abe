#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int livenps_fail(livenps_error *error, livenps_code code, const char *format, ...) {
  if (!error || error->code != LIVENPS_OK) {
    return -1;
  }
  error->code = code;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(error->text, sizeof error->text, format, arguments);
  va_end(arguments);
  return -1;
}

int livenps_fail_prefix(livenps_error *error, const char *format, ...) {
  if (!error || error->code == LIVENPS_OK) {
    return -1;
  }
  char text[sizeof error->text];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  /* What no longer fits is lost at the end: the prefix says where to look. */
  size_t used = strlen(text);
  for (const char *part = ": "; *part && used < sizeof text - 1; part++) {
    text[used++] = *part;
  }
  for (const char *part = error->text; *part && used < sizeof text - 1; part++) {
    text[used++] = *part;
  }
  memcpy(error->text, text, used);
  error->text[used] = '\0';
  return -1;
}

void livenps_error_clear(livenps_error *error) {
  if (error) {
    error->code = LIVENPS_OK;
    error->text[0] = '\0';
  }
}

/* Neither stdio nor atexit: both may want the memory that is not there, or a lock that another thread holds. */
static void out_of_memory(void) {
  static const char line[] = "livenps: out of memory\n";
  ssize_t ignored = write(STDERR_FILENO, line, sizeof line - 1);
  (void)ignored;
  _exit(7);
}

void *livenps_alloc(size_t size) {
  void *memory = calloc(1, size ? size : 1);
  if (!memory) {
    out_of_memory();
  }
  return memory;
}

void *livenps_resize(void *old, size_t size) {
  void *memory = realloc(old, size ? size : 1);
  if (!memory) {
    out_of_memory();
  }
  return memory;
}

char *livenps_copy(const char *text, size_t length) {
  if (length == SIZE_MAX) {
    out_of_memory();
  }
  char *copy = livenps_resize(NULL, length + 1);
  if (length) {
    memcpy(copy, text, length);
  }
  copy[length] = '\0';
  return copy;
}
