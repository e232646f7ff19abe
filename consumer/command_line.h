#ifndef LIVENPS_CONSUMER_COMMAND_LINE_H
#define LIVENPS_CONSUMER_COMMAND_LINE_H

#include "../common/command.h"
#include "commands.h"

/* The commands of livenps-consumer, in the order of the table's bits. */
enum {
  LIVENPS_COMMAND_RUN,
  LIVENPS_COMMAND_REPLAY,
  LIVENPS_COMMAND_VERIFY,
  LIVENPS_COMMAND_TABLE,
  LIVENPS_COMMAND_BOARD,
  LIVENPS_COMMAND_LOG
};

extern const livenps_program livenps_consumer_program;

/* The options of a command out of its command line; texts are borrowed from line and settings. 0, or -1 with what is
 * allowed. */
int livenps_replay_arguments(const livenps_command_line *line, const livenps_settings *settings,
                             livenps_replay_options *options, livenps_error *error);
int livenps_verify_arguments(const livenps_command_line *line, livenps_verify_options *options,
                             livenps_error *error);
int livenps_table_arguments(const livenps_command_line *line, const livenps_settings *settings,
                            livenps_table_options *options, livenps_error *error);
/* start and end: room for the stream ids made from times. */
int livenps_log_arguments(const livenps_command_line *line, livenps_log_options *options, char start[32],
                          char end[32], livenps_error *error);
/* Does `run` have what it cannot do without? */
int livenps_run_arguments(const livenps_settings *settings, livenps_error *error);

#endif
