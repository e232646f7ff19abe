#ifndef LIVENPS_BOARD_PAGE_H
#define LIVENPS_BOARD_PAGE_H

#include "../common/text.h"

/* A file of consumer/board, as it was when the program was built. */
typedef struct {
  const char *path; /* "/" ... */
  const char *type; /* its Content-Type */
  livenps_text content;
} livenps_page;

/* NULL when the page has no such file. */
const livenps_page *livenps_page_find(const char *path);

#endif
