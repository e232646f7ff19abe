/* livenps-producer: which function does which command. */
#include "command_line.h"

#include <stdlib.h>

static int dispatch(const livenps_command_line *line, const livenps_settings *settings,
                    livenps_error *error) {
  switch (line->command) {
  case LIVENPS_COMMAND_CHECK: {
    livenps_check_options options;
    return livenps_check_arguments(line, settings, &options, error) ? -1 : livenps_check(settings, &options);
  }
  case LIVENPS_COMMAND_SIMULATE: {
    livenps_simulate_options options;
    return livenps_simulate_arguments(line, settings, &options, error) ? -1
                                                                       : livenps_simulate(settings, &options);
  }
  case LIVENPS_COMMAND_SERVE: {
    livenps_serve_options options;
    int code =
        livenps_serve_arguments(line, settings, &options, error) ? -1 : livenps_serve(settings, &options);
    free(options.topics);
    return code;
  }
  case LIVENPS_COMMAND_EMBEDDED: {
    livenps_embedded_options options;
    int code = livenps_embedded_arguments(line, &options, error) ? -1 : livenps_embedded(settings, &options);
    free(options.topics);
    return code;
  }
  default: {
    livenps_publish_options options;
    return livenps_publish_arguments(line, settings, &options, error) ? -1
                                                                      : livenps_publish(settings, &options);
  }
  }
}

int main(int argc, char **argv) {
  return livenps_command_main(&livenps_producer_program, argc, argv, "", dispatch);
}
