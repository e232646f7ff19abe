#include "secret.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST = 4096 };

int livenps_secret_read(const char *setting, const char *path, char **out, livenps_error *error) {
  FILE *file = fopen(path, "re");
  if (!file) {
    return livenps_fail(error, LIVENPS_E_STARTUP, "%s: cannot read %s: %s", setting, path, strerror(errno));
  }
  char *text = livenps_alloc(LONGEST + 2);
  size_t length = fread(text, 1, LONGEST + 1, file);
  bool failed = ferror(file) != 0;
  int saved = errno;
  fclose(file);
  /* Editors and `echo` leave a newline behind it. */
  while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == '\r')) {
    text[--length] = 0;
  }
  if (failed || length == 0 || length > LONGEST || strlen(text) != length) {
    livenps_secret_wipe(text);
    return livenps_fail(error, LIVENPS_E_STARTUP, "%s: %s %s", setting, path,
                        failed        ? strerror(saved)
                        : length == 0 ? "is empty"
                                      : "does not hold one line of at most 4096 bytes");
  }
  *out = text;
  return 0;
}

void livenps_secret_wipe(char *secret) {
  if (secret) {
    explicit_bzero(secret, strlen(secret));
    free(secret);
  }
}
