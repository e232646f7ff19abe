#ifndef LIVENPS_VERSION_H
#define LIVENPS_VERSION_H

#include "text.h"

/* For --version: what was built, and with what. extra: whole lines about libraries that only one program links. */
void livenps_version_print(const char *program, const char *extra, livenps_buffer *out);

#endif
