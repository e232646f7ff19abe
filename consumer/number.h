#ifndef LIVENPS_NUMBER_H
#define LIVENPS_NUMBER_H

#include <stdint.h>

/* Numbers as they are published. A tick prints hundred thousands of them: printf and strtod, three times each, took most of its time. */

enum { LIVENPS_NUMBER_SIZE = 32 }; /* room for any number and its NUL */

/* A number in 15, 16 or 17 significant digits: the fewest of those that read back to the same double, as printf writes them with %.15g,
 * %.16g and %.17g. Returns out. */
const char *livenps_number_print(double value, char out[LIVENPS_NUMBER_SIZE]);

/* A whole number. Returns out. */
const char *livenps_whole_print(int64_t value, char out[LIVENPS_NUMBER_SIZE]);

#endif
