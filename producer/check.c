#include "commands.h"

#include "contract.h"
#include "input.h"

#include "common/clock.h"
#include "common/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int livenps_check(const livenps_settings *settings, const livenps_check_options *options) {
  livenps_error error = {0};
  livenps_contract contract = {0};
  livenps_input *input = NULL;
  livenps_buffer told = {0};
  int64_t admitted = 0, not_admitted = 0;
  if (livenps_contract_open(&contract, settings, options->topic, &error) ||
      livenps_input_open(&input, options->files, options->file_count, contract.admission.max_bytes, &error))
    goto out;
  while (!livenps_stop) {
    livenps_input_result result;
    livenps_event event;
    if (livenps_input_next(input, 100, &result, &error) || result == LIVENPS_INPUT_END)
      break;
    if (result == LIVENPS_INPUT_NOTHING)
      continue;
    const int64_t now_ms = livenps_wall_ms();
    const livenps_text line = livenps_input_line(input);
    const livenps_fate fate = livenps_contract_judge(&contract, line, now_ms, &event, &told);
    const char *name = livenps_input_name(input, livenps_input_file(input));
    if (fate == LIVENPS_ACCEPTED) {
      admitted++;
      printf("%s:%zu: admitted\n", name, livenps_input_number(input));
    } else {
      not_admitted++;
      printf("%s:%zu:%.*s", name, livenps_input_number(input), (int)told.length, told.at);
      /* The one thing that another moment would change. */
      char now[32];
      const bool by_time =
          livenps_contract_decode(&contract, line, &event, NULL) == 0 &&
          livenps_contract_judge(&contract, line, event.time_ms, &event, NULL) == LIVENPS_ACCEPTED;
      if (by_time)
        printf(", were it sent now (%s)", livenps_time_print(now_ms, now));
      putchar('\n');
    }
    if (ferror(stdout)) {
      if (errno != EPIPE)
        livenps_fail(&error, LIVENPS_E_STARTUP, "check: stdout: %s", strerror(errno));
      break;
    }
  }
  if (fflush(stdout) && errno != EPIPE)
    livenps_fail(&error, LIVENPS_E_STARTUP, "check: stdout: %s", strerror(errno));
  fprintf(stderr, "check: %" PRId64 " events would be admitted, %" PRId64 " would not\n", admitted,
          not_admitted);

out:
  if (error.code)
    livenps_log(LIVENPS_ERROR, "check", "%s", error.text);
  livenps_buffer_free(&told);
  livenps_input_close(input);
  livenps_contract_close(&contract);
  return error.code ? (int)error.code : not_admitted ? 1 : 0;
}
