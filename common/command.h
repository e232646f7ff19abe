#ifndef LIVENPS_COMMAND_H
#define LIVENPS_COMMAND_H

#include "settings.h"

/* A program's command line as a table: it feeds the parser, --help and the manual page. */

typedef struct {
  const char *name;     /* "replay" */
  const char *synopsis; /* "--topic TOPIC --from TIME ... [OPTIONS]" */
  const char *summary;  /* one line, for the list of commands */
  const char *text;     /* what it does; paragraphs separated by "\n\n" */
  const char *examples; /* pairs of lines: what for, then the command line */
  bool operands;        /* takes file names */
} livenps_command;

#define LIVENPS_EVERY_COMMAND (~0U)

typedef struct {
  const char *group;    /* heading; NULL: as the one before */
  unsigned commands;    /* bit i: an option of commands[i] */
  const char *name;     /* "topic"; may occur again for other commands */
  const char *argument; /* "NAME", or NULL */
  const char *help;     /* with default and accepted values */
} livenps_option;

/* What every command of both programs takes, at the end of a table of options; example: an assignment with its --set. */
#define LIVENPS_COMMON_OPTIONS(example)                                                                      \
  {"Settings", LIVENPS_EVERY_COMMAND, "config", "FILE",                                                      \
   "Read settings from FILE (YAML). Default: $LIVENPS_CONFIG"},                                              \
      {NULL, LIVENPS_EVERY_COMMAND, "set", "NAME=VALUE",                                                     \
       "One setting, such as " example "; wins over file and environment. May be repeated."},                \
      {NULL, LIVENPS_EVERY_COMMAND, "dump-config", NULL,                                                     \
       "Print the settings as they are in force, as YAML, secrets as ***, and end."},                        \
      {NULL, LIVENPS_EVERY_COMMAND, "check-config", NULL,                                                    \
       "Check settings, mapping files and librdkafka's properties, and end: 0 or 2."},                       \
      {"About", LIVENPS_EVERY_COMMAND, "help", NULL, "This text (-h); behind a command, the command's."},    \
      {NULL, LIVENPS_EVERY_COMMAND, "help-settings", NULL,                                                   \
       "All settings with defaults and allowed values."},                                                    \
  {                                                                                                          \
    NULL, LIVENPS_EVERY_COMMAND, "version", NULL, "Versions of this program and of its libraries."           \
  }

typedef struct {
  const char *name;    /* "livenps-consumer" */
  const char *summary; /* one line */
  const char *text;
  const livenps_command *commands;
  size_t command_count;
  bool has_default; /* without a command: the first */
  const livenps_option *options;
  size_t option_count;
  const char *signals; /* paragraphs for the manual page */
} livenps_program;

typedef struct {
  const livenps_program *program;
  int command; /* index; -1 when none was named and there is no default: only with --help, --version, --help-settings */
  struct {
    const livenps_option *option;
    const char *value; /* borrowed from argv; NULL for an option without argument */
  } * given;           /* in the order of the command line */
  size_t given_count;
  const char **operands; /* borrowed from argv */
  size_t operand_count;
} livenps_command_line;

/* Reorders argv (getopt_long). Every error is one line that says which option and what is allowed. */
int livenps_command_parse(const livenps_program *program, int argc, char **argv, livenps_command_line *line,
                          livenps_error *error);
void livenps_command_free(livenps_command_line *line);

bool livenps_command_has(const livenps_command_line *line, const char *option);
const char *livenps_command_value(const livenps_command_line *line,
                                  const char *option); /* the last one; NULL without */
/* All values of a repeatable option, in order. The caller frees the array, not the texts. */
const char **livenps_command_values(const livenps_command_line *line, const char *option, size_t *count);
/* Leave *value alone when the option was not given. */
int livenps_command_number(const livenps_command_line *line, const char *option, int64_t low, int64_t high,
                           int64_t *value, livenps_error *error);
int livenps_command_time(const livenps_command_line *line, const char *option, int64_t *ms,
                         livenps_error *error);
/* "max" is 0; else a decimal above 0 with the given suffix ("" or "x"), at most high. */
int livenps_command_rate(const livenps_command_line *line, const char *option, const char *suffix,
                         double high, double *value, livenps_error *error);

/* Defaults, --config or LIVENPS_CONFIG, environment, --set, --bootstrap-servers and --redis, check; sets the log's level.
 * settings must be freed in every case. */
int livenps_command_settings(const livenps_command_line *line, char **environment, livenps_settings *settings,
                             livenps_error *error);
/* Are the files that settings name there and readable, and librdkafka's properties known? For --check-config. */
int livenps_command_check(const livenps_settings *settings, bool producer, livenps_error *error);
/* Help of one command, or of the program (command -1). */
void livenps_command_help(const livenps_program *program, int command, livenps_buffer *out);
/* The manual page, roff. */
void livenps_command_man(const livenps_program *program, livenps_buffer *out);

/* Does the named command: returns its exit code, or -1 with the error set and not yet printed. */
typedef int (*livenps_dispatch)(const livenps_command_line *line, const livenps_settings *settings,
                                livenps_error *error);
/* What main does: parse; answer --help, --version and --help-settings, which need no settings; read the settings; answer
 * --dump-config and --check-config; or set the signals up and dispatch. An error is one line on stderr. Returns the exit code.
 * libraries: lines for --version about what only this program links. */
int livenps_command_main(const livenps_program *program, int argc, char **argv, const char *libraries,
                         livenps_dispatch dispatch);

#endif
