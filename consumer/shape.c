#include "state.h"

#include <stdlib.h>

void livenps_state_open(livenps_state **out, const livenps_settings *settings) {
  livenps_window *windows = livenps_alloc((settings->windows.count + 1) * sizeof *windows);
  livenps_rollup *rollups = livenps_alloc((settings->rollups.count + 1) * sizeof *rollups);
  livenps_error error = {0}; /* livenps_settings_check has accepted them */
  for (size_t i = 0; i < settings->windows.count; i++)
    livenps_window_parse(settings->windows.at[i], &windows[i], &error);
  for (size_t i = 0; i < settings->rollups.count; i++)
    livenps_rollup_parse(settings->rollups.at[i], &rollups[i], &error);
  const livenps_state_config config = {.windows = windows,
                                       .window_count = settings->windows.count,
                                       .rollups = rollups,
                                       .rollup_count = settings->rollups.count,
                                       .series_max = (size_t)settings->series_max,
                                       .minimum_n = settings->minimum_n,
                                       .reliable_n = settings->reliable_n,
                                       .fdr = settings->fdr,
                                       .targets = settings->targets.at,
                                       .target_count = settings->targets.count};
  livenps_state_new(out, &config);
  free(windows);
  free(rollups);
}
