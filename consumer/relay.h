#ifndef LIVENPS_RELAY_H
#define LIVENPS_RELAY_H

#include "combine.h"

/* Entries on their way to a thread of their own, which folds them in the order in which they came: a replay decodes the next batch while the
 * one before is folded. Nothing is copied but an entry's advances: its rows change hands with the combine that lends them. */
typedef struct livenps_relay livenps_relay;

typedef int (*livenps_folding)(void *opaque, const livenps_entry *entry, livenps_error *error);

/* Starts the thread; only that one calls fold, until drain or close. */
int livenps_relay_open(livenps_relay **out, livenps_folding fold, void *opaque, livenps_error *error);
/* Waits until there is room, then takes *combine, which lends the entry its cells and rows, and leaves an empty one in its place. The
 * entry's texts outside of it (writer, topics) must live until drain. -1: an earlier entry could not be folded, the error says why; this
 * one is not taken. */
int livenps_relay_put(livenps_relay *relay, livenps_combine **combine, const livenps_entry *entry,
                      livenps_error *error);
/* Waits until everything that was put is folded: what fold touches is the caller's again, until the next put. */
int livenps_relay_drain(livenps_relay *relay, livenps_error *error);
/* Drains, ends the thread, frees. NULL is fine. */
void livenps_relay_close(livenps_relay *relay);

#endif
