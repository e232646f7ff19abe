#ifndef LIVENPS_COMBINE_H
#define LIVENPS_COMBINE_H

#include "../common/entry.h"

/* Accepted events of one batch -> rows of (cell, second, counters): what leaves the process does not grow with the number of
 * events, only with the number of distinct cells and seconds among them. Pure; reused from batch to batch. */
typedef struct livenps_combine livenps_combine;

livenps_combine *livenps_combine_new(void);
void livenps_combine_free(livenps_combine *combine);
/* value: the record's, in which texts of the event may lie: there their ends are read past, which is faster. {0}: in none. */
void livenps_combine_add(livenps_combine *combine, const livenps_event *event, livenps_text value);
size_t livenps_combine_rows(livenps_combine *combine);
/* Whether there are at least so many rows; asked after every event, cheaper than the number. */
bool livenps_combine_full(livenps_combine *combine, size_t rows);
/* Lends cells and rows to the entry, until the next add or reset (do not livenps_entry_free such an entry's). */
void livenps_combine_lend(livenps_combine *combine, livenps_entry *entry);
void livenps_combine_reset(livenps_combine *combine);

#endif
