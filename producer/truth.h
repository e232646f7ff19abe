#ifndef LIVENPS_TRUTH_H
#define LIVENPS_TRUTH_H

#include "generate.h"

/* What a dashboard must show, by a way of its own: it shares no code with the consumer's folding. Every event is kept (32 bytes
 * each) until the end, because only then is known which were acknowledged; then it is sorted and counted. */
enum { LIVENPS_TRUTH_MAX = 50 * 1000 * 1000 }; /* events: 1.6 GB */

typedef struct livenps_truth livenps_truth;

/* Opens path for writing at once, so that a wrong one is known before anything is sent. The generator must live longer. */
int livenps_truth_open(livenps_truth **out, const char *path, const livenps_generator *generator,
                       livenps_error *error);
void livenps_truth_close(livenps_truth *truth);
/* Returns the event's number, from 0. It counts only once it is acknowledged. */
size_t livenps_truth_add(livenps_truth *truth, const livenps_generated *generated);
void livenps_truth_acknowledge(livenps_truth *truth, size_t number);
/* JSON lines, sorted by roll-up, id, second: one for each of the default roll-ups, id and second with an acknowledged event:
 *   {"second":S,"rollup":R,"id":I,"histogram":[11],"csat":[5],"ces":[7],"interactions":N,"invitations":N,"answers":N,
 *    "value_promoters":V,"value_passives":V,"value_detractors":V}
 * second is floor(event time / 1000), id is percent-encoded as in Redis, values are hundredths. */
int livenps_truth_write(livenps_truth *truth, livenps_error *error);

#endif
