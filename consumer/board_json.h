#ifndef LIVENPS_BOARD_JSON_H
#define LIVENPS_BOARD_JSON_H

#include "views.h"

/* What the board tells its page, as JSON. Pure: rows and replies in, text out. Names come from anywhere: whatever bytes they have, the
 * text is valid UTF-8 and valid JSON. */

void livenps_json_number(livenps_buffer *out, double value); /* finite */
/* ["delivery",41.79,42, ...]: the id, then livenps_read_fields in their order, null where absent. Nothing but the id: no such view. */
void livenps_json_row(livenps_buffer *out, const livenps_row *row);
/* A hash as an object: what is a number stands there as one. */
void livenps_json_hash(livenps_buffer *out, const livenps_reply *hash);
/* A trend as an array of [end_ms, nps, nps_low, nps_high, n, complete]. */
void livenps_json_trend(livenps_buffer *out, const livenps_reply *entries);

#endif
