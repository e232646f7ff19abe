#ifndef LIVENPS_NAME_H
#define LIVENPS_NAME_H

#include "event.h"

/* Percent-encodes what would be a separator, a hash tag, or dangerous on a terminal: `:` `%` `{` `}` `|`, C0, DEL and C1
 * controls, U+2028/2029, the bidirectional controls, and a leading `~` (so that no name can be `~other`). Upper-case hex.
 * The result is valid UTF-8 and one to one. Appends to out; returns the number of bytes appended. */
size_t livenps_name_encode(livenps_text raw, livenps_buffer *out);
/* Length it would have, without writing. */
size_t livenps_name_length(livenps_text raw);

#endif
