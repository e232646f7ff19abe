#ifndef LIVENPS_CONTRACT_H
#define LIVENPS_CONTRACT_H

#include "common/admit.h"
#include "common/settings.h"

/* What the consumer will make of a payload: its own decoder, mapping and admission rules, opened from the same settings. */
typedef struct {
  livenps_mapping *mapping;
  livenps_decoder *decoder;
  livenps_admission admission;
} livenps_contract;

/* topic chooses the mapping; NULL: the contract's own forms. */
int livenps_contract_open(livenps_contract *contract, const livenps_settings *settings, const char *topic,
                          livenps_error *error);
void livenps_contract_close(livenps_contract *contract); /* legal on {0} */

/* Why a payload is not admitted, for people. */
typedef struct {
  livenps_reason reason; /* NONE: it is late */
  const char *name;      /* "bad_score", "late" */
  size_t at;             /* the byte of the payload, from 1 */
  char text[900];        /* "must be a whole number from 0 to 10 (score)", printable */
} livenps_objection;

/* The fate of a payload with that record timestamp; *objection is filled when it is not ACCEPTED. event borrows from value and from the
 * contract, until the next call. */
livenps_fate livenps_contract_examine(livenps_contract *contract, livenps_text value, int64_t timestamp_ms,
                                      livenps_event *event, livenps_objection *objection);
/* The same. When it is not ACCEPTED and out is not NULL, *out gets "COLUMN: reason: text (field)" with column from 1. */
livenps_fate livenps_contract_judge(livenps_contract *contract, livenps_text value, int64_t timestamp_ms,
                                    livenps_event *event, livenps_buffer *out);
/* The event alone, whatever its time: 0, or -1 with *out as above. */
int livenps_contract_decode(livenps_contract *contract, livenps_text value, livenps_event *event,
                            livenps_buffer *out);

#endif
