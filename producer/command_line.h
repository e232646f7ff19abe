#ifndef LIVENPS_PRODUCER_COMMAND_LINE_H
#define LIVENPS_PRODUCER_COMMAND_LINE_H

#include "../common/command.h"
#include "commands.h"

/* The commands of livenps-producer, in the order of the table's bits. */
enum {
  LIVENPS_COMMAND_PUBLISH,
  LIVENPS_COMMAND_CHECK,
  LIVENPS_COMMAND_SERVE,
  LIVENPS_COMMAND_SIMULATE,
  LIVENPS_COMMAND_EMBEDDED
};

extern const livenps_program livenps_producer_program;

/* The options of a command out of its command line; texts are borrowed from line and settings. 0, or -1 with what is
 * allowed. */
int livenps_publish_arguments(const livenps_command_line *line, const livenps_settings *settings,
                              livenps_publish_options *options, livenps_error *error);
int livenps_check_arguments(const livenps_command_line *line, const livenps_settings *settings,
                            livenps_check_options *options, livenps_error *error);
int livenps_simulate_arguments(const livenps_command_line *line, const livenps_settings *settings,
                               livenps_simulate_options *options, livenps_error *error);
/* The caller frees options->topics (the array) of the next two. */
int livenps_serve_arguments(const livenps_command_line *line, const livenps_settings *settings,
                            livenps_serve_options *options, livenps_error *error);
int livenps_embedded_arguments(const livenps_command_line *line, livenps_embedded_options *options,
                               livenps_error *error);

#endif
