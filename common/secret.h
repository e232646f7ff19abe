#ifndef LIVENPS_SECRET_H
#define LIVENPS_SECRET_H

#include "error.h"

/* The first line of a file as a secret, 1 to 4096 bytes without a NUL; setting names who asked, for the error (STARTUP). The caller
 * wipes it. 0 or -1. */
int livenps_secret_read(const char *setting, const char *path, char **out, livenps_error *error);
/* Overwrites and frees; NULL is fine. */
void livenps_secret_wipe(char *secret);

#endif
