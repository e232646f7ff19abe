#ifndef LIVENPS_INPUT_H
#define LIVENPS_INPUT_H

#include "common/error.h"
#include "common/text.h"

/* Lines of files, one after another. Blank lines are counted and passed over; a final CR is cut off. A line may be as long as
 * it likes, but no more than max_bytes + 1 bytes of it are kept: enough to see that it is too long. */
typedef struct livenps_input livenps_input;

typedef enum { LIVENPS_INPUT_LINE, LIVENPS_INPUT_NOTHING, LIVENPS_INPUT_END } livenps_input_result;

/* "-", or no file at all, is stdin. USAGE when a file cannot be read: known before the first line. files is borrowed. */
int livenps_input_open(livenps_input **out, const char *const *files, size_t count, size_t max_bytes,
                       livenps_error *error);
void livenps_input_close(livenps_input *input);
/* 0 with *result, -1 on a read error. NOTHING: no line within wait_ms, or a signal arrived. */
int livenps_input_next(livenps_input *input, int wait_ms, livenps_input_result *result, livenps_error *error);
livenps_text livenps_input_line(const livenps_input *input); /* until the next call */
const char *livenps_input_name(const livenps_input *input,
                               size_t file);             /* for messages: "(stdin)" or the path */
size_t livenps_input_file(const livenps_input *input);   /* which file, from 0 */
size_t livenps_input_number(const livenps_input *input); /* which line of it, from 1 */
bool livenps_input_at_stdin(const livenps_input *input);
/* True when every file is a regular one, so that they can be read twice. */
bool livenps_input_rereadable(const livenps_input *input);
void livenps_input_rewind(livenps_input *input);

#endif
