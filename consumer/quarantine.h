#ifndef LIVENPS_QUARANTINE_H
#define LIVENPS_QUARANTINE_H

#include "../common/decode.h"
#include "../common/sender.h"

/* Rejected records go to "<topic><suffix>", key "<topic>/<partition>/<offset>", value the raw bytes, headers livenps-reason,
 * -detail, -topic, -partition, -offset, -timestamp, -key and the record's own. They are acknowledged before the commit that passes them
 * (I8), so after a crash a record may be there twice, never not at all. */
typedef struct livenps_quarantine livenps_quarantine;

int livenps_quarantine_open(livenps_quarantine **out, const livenps_settings *settings, livenps_error *error);
void livenps_quarantine_close(livenps_quarantine *quarantine);
/* Makes the topics of the settings if they are missing. The embedded cluster makes them by itself. */
void livenps_quarantine_prepare(livenps_quarantine *quarantine, const livenps_settings *settings);

/* LOST when librdkafka's queue stays full: the caller must not pass this record. */
int livenps_quarantine_put(livenps_quarantine *quarantine, const char *topic, int32_t partition,
                           int64_t offset, const livenps_record *record, livenps_reason reason,
                           const livenps_where *where, livenps_error *error);
size_t livenps_quarantine_pending(const livenps_quarantine *quarantine);
uint64_t livenps_quarantine_written(const livenps_quarantine *quarantine); /* acknowledged since the start */
/* Serves acknowledgements for at most wait_ms: 1 when all is acknowledged, 0 when some are on their way, -1 when some never will be
 * (error says why): then what was read since the last commit must be read again. */
int livenps_quarantine_settle(livenps_quarantine *quarantine, int wait_ms, livenps_error *error);

#endif
