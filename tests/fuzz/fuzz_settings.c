/* The configuration, from any bytes whatever: the file (YAML), --set, the environment, the URL of Redis. Nothing may crash
 * or run on; what is refused says why; what is accepted and checked can be used and prints as a file that reads back to
 * the same.
 *
 * Input: 'F', then a file; 'S', then assignments of --set; or 'E', then variables; one a line. */
#include "tests/fuzz/fuzz.h"

#include "common/settings.h"
#include "consumer/redis.h"
#include "consumer/state.h"

static char *printed(const livenps_settings *settings) {
  livenps_buffer out = {0};
  livenps_settings_print(settings, &out);
  livenps_buffer_add(&out, "", 1);
  return out.at;
}

/* Secrets print as ***, and then another setting reads back. */
static bool hides_nothing(const livenps_settings *settings, const char *text) {
  return !strstr(text, "***") && !strstr(settings->redis_url, "@");
}

static void use(const livenps_settings *settings) {
  livenps_error error = {0};
  char *text = printed(settings);
  livenps_settings again;
  livenps_settings_default(&again);
  EXPECT(livenps_settings_file(&again, memory_file(text, strlen(text)), &error) == 0, "%s in\n%s", error.text,
         text);
  if (hides_nothing(settings, text)) {
    char *second = printed(&again);
    EXPECT(strcmp(text, second) == 0, "\n%s\nreads back as\n%s", text, second);
    free(second);
  }
  free(text);
  livenps_error refusal = {0};
  if (livenps_settings_check(settings, &refusal)) {
    expect_error(&refusal);
  } else {
    /* Checked settings make a state without further questions. */
    EXPECT(livenps_settings_check(&again, &error) == 0, "%s", error.text);
    livenps_state *state;
    livenps_state_open(&state, settings);
    livenps_state_free(state);
  }
  livenps_redis *redis = NULL;
  free(again.redis_password_file); /* whatever file that names */
  again.redis_password_file = livenps_copy("", 0);
  if (livenps_redis_open(&redis, &again, &error)) {
    expect_error(&error);
    HOLDS(!redis);
  }
  livenps_redis_close(redis);
  livenps_settings_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1) {
    return 0;
  }
  livenps_settings settings;
  livenps_error error = {0};
  int result = 0;
  livenps_settings_default(&settings);
  char *text = livenps_copy((const char *)data + 1, size - 1), *save = NULL;
  if (data[0] == 'F') {
    result = livenps_settings_file(&settings, memory_file(data + 1, size - 1), &error);
  }
  for (char *line = data[0] == 'F' ? NULL : strtok_r(text, "\n", &save); line && !result;
       line = strtok_r(NULL, "\n", &save)) {
    if (data[0] == 'S') {
      result = livenps_settings_set(&settings, line, &error);
    } else {
      char *environment[] = {line, NULL};
      result = livenps_settings_environment(&settings, environment, &error);
    }
  }
  if (result) {
    expect_error(&error);
  } else {
    EXPECT(error.code == LIVENPS_OK, "%s", error.text);
    use(&settings);
  }
  free(text);
  livenps_settings_free(&settings);
  return 0;
}
