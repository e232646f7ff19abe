/* livenps-consumer: which function does which command. */
#include "command_line.h"
#include "redis.h"

static int dispatch(const livenps_command_line *line, const livenps_settings *settings,
                    livenps_error *error) {
  switch (line->command) {
  case LIVENPS_COMMAND_REPLAY: {
    livenps_replay_options options;
    return livenps_replay_arguments(line, settings, &options, error) ? -1
                                                                     : livenps_replay(settings, &options);
  }
  case LIVENPS_COMMAND_VERIFY: {
    livenps_verify_options options;
    return livenps_verify_arguments(line, &options, error) ? -1 : livenps_verify(settings, &options);
  }
  case LIVENPS_COMMAND_TABLE: {
    livenps_table_options options;
    return livenps_table_arguments(line, settings, &options, error) ? -1 : livenps_table(settings, &options);
  }
  case LIVENPS_COMMAND_BOARD: return livenps_board(settings);
  case LIVENPS_COMMAND_LOG: {
    livenps_log_options options;
    char start[32], end[32];
    return livenps_log_arguments(line, &options, start, end, error) ? -1
                                                                    : livenps_log_command(settings, &options);
  }
  default: return livenps_run_arguments(settings, error) ? -1 : livenps_run(settings);
  }
}

int main(int argc, char **argv) {
  return livenps_command_main(&livenps_consumer_program, argc, argv, livenps_redis_version(), dispatch);
}
