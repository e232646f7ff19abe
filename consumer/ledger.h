#ifndef LIVENPS_LEDGER_H
#define LIVENPS_LEDGER_H

#include "state.h"

/* What is known of every partition: positions, fates, how far it is read. Sorted by topic and partition. {0} is empty and valid. */
typedef struct {
  livenps_partition *at;
  size_t count, capacity;
} livenps_ledger;

void livenps_ledger_free(livenps_ledger *ledger);
/* The partition's line, made when it is not there. Lines move when another is made. */
livenps_partition *livenps_ledger_line(livenps_ledger *ledger, livenps_text topic, int32_t partition);
/* Whether every advance continues the ledger (and the advances before it); else LIVENPS_E_DATA. Changes nothing. */
int livenps_ledger_check(const livenps_ledger *ledger, const livenps_entry *entry, livenps_error *error);
/* Adds what the entry says; entry_ms is the time of the entry itself. */
void livenps_ledger_fold(livenps_ledger *ledger, const livenps_entry *entry, int64_t entry_ms);

#endif
