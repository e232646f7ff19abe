#ifndef LIVENPS_COMMANDS_H
#define LIVENPS_COMMANDS_H

#include "../common/settings.h"
#include "../common/stop.h"

/* What the subcommands of livenps-consumer do; main.c parses and calls. Each returns the exit code and has printed its own errors with
 * livenps_log or on stderr in one readable line. */

int livenps_run(const livenps_settings *settings);

typedef struct {
  const char *topic; /* required */
  int64_t from_ms, to_ms;
  const char *into; /* namespace to write; required unless dry_run */
  double speed;     /* 0: as fast as it goes; else event seconds per second ("1x", "10x") */
  bool dry_run;     /* nothing is written to Redis; the result is printed */
  bool digest;      /* print the SHA-256 of the final state, alone on the last line of stdout */
} livenps_replay_options;
int livenps_replay(const livenps_settings *settings, const livenps_replay_options *options);

typedef struct {
  const char *topic; /* required; several, separated by commas, for a namespace that counts several */
  const char *into;  /* NULL: the setting namespace */
  bool replay;       /* the namespace is a replay's, of this range */
  int64_t from_ms, to_ms;
} livenps_verify_options;
/* Exit codes besides those of an error. */
enum { LIVENPS_VERIFY_DIFFERS = 1, LIVENPS_VERIFY_IN_PART = 8 };
int livenps_verify(const livenps_settings *settings, const livenps_verify_options *options);

typedef struct {
  const char *rollup, *window; /* defaults: touchpoint, settings->table_window */
  bool once;                   /* print one table and exit (also when stdout is no terminal) */
  int64_t seconds;             /* 0: until a signal */
} livenps_table_options;
int livenps_table(const livenps_settings *settings, const livenps_table_options *options);

/* Serves the page and its numbers until a signal. */
int livenps_board(const livenps_settings *settings);

typedef struct {
  const char *start, *end; /* stream ids or "-" and "+" */
  long count;              /* newest N entries when > 0 */
  bool follow, rows;       /* rows: every row, else a summary of the entry */
} livenps_log_options;
int livenps_log_command(const livenps_settings *settings, const livenps_log_options *options);

#endif
