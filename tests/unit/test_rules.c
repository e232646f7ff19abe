/* From the settings to what decides about records, and to the hash that says whether two programs decide alike. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/rules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAPPING                                                                                              \
  "fields: {id: /id, time: {at: /t, format: milliseconds}, touchpoint: /%s, type: {constant: answer},\n"     \
  "         scale: {constant: nps}, score: /s}\n"

static livenps_error error;
static char dir[32], first[64], second[64], broken[64], absent[64];

static void write_file(char path[64], const char *name, const char *text, const char *word) {
  snprintf(path, 64, "%s/%s", dir, name);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fputs(text, file);
  if (word)
    fprintf(file, MAPPING, word);
  assert_int_equal(fclose(file), 0);
}

static int start(void **state) {
  (void)state;
  snprintf(dir, sizeof dir, "/tmp/livenps-rules-XXXXXX");
  assert_non_null(mkdtemp(dir));
  write_file(first, "first.yaml", "", "tp");
  write_file(second, "second.yaml", "# another place\n", "place");
  write_file(broken, "broken.yaml", "fields: 7\n", NULL);
  snprintf(absent, sizeof absent, "%s/absent.yaml", dir);
  return 0;
}

static int stop(void **state) {
  (void)state;
  unlink(first);
  unlink(second);
  unlink(broken);
  return rmdir(dir);
}

/* Settings by "name=value" lines, NULL at the end. */
static livenps_settings settings_of(const char *line, ...) {
  livenps_settings settings;
  livenps_settings_default(&settings);
  va_list more;
  va_start(more, line);
  for (; line; line = va_arg(more, const char *))
    if (livenps_settings_set(&settings, line, &error))
      fail_msg("%s: %s", line, error.text);
  va_end(more);
  return settings;
}

static void add_mapping(livenps_settings *settings, const char *topic, const char *path) {
  livenps_pairs *mappings = &settings->mappings;
  mappings->at = livenps_resize(mappings->at, (mappings->count + 1) * sizeof *mappings->at);
  mappings->at[mappings->count++] =
      (livenps_pair){livenps_copy(topic, strlen(topic)), livenps_copy(path, strlen(path))};
}

/* The hash; frees the settings. */
static void hash_of(livenps_settings settings, const livenps_bounds *replay, char hash[65]) {
  livenps_rules rules;
  if (livenps_rules_open(&rules, &settings, replay, &error))
    fail_msg("open: %s", error.text);
  assert_int_equal(strlen(rules.hash), 64);
  memcpy(hash, rules.hash, 65);
  livenps_rules_close(&rules);
  assert_null(rules.mappings);
  livenps_settings_free(&settings);
}

static void admission_is_the_settings(void **state) {
  (void)state;
  livenps_admission admission;
  livenps_settings settings =
      settings_of("admit.late=3d", "admit.future=5s", "admit.touchpoints=web,app,mail", NULL);
  livenps_rules_admission(&admission, &settings);
  assert_int_equal(admission.late_ms, 3 * 86400000ll);
  assert_int_equal(admission.future_ms, 5000);
  assert_int_equal(admission.max_bytes, settings.admit_max_bytes);
  assert_false(admission.replay);
  /* Sorted, because it is searched by halves. */
  assert_int_equal(admission.touchpoint_count, 3);
  assert_string_equal(admission.touchpoints[0], "app");
  assert_string_equal(admission.touchpoints[1], "mail");
  assert_string_equal(admission.touchpoints[2], "web");
  assert_string_equal(settings.admit_touchpoints.at[0], "web"); /* the settings stay as they were written */
  livenps_rules_free_admission(&admission);
  livenps_settings_free(&settings);
  settings = settings_of(NULL);
  livenps_rules_admission(&admission, &settings);
  assert_int_equal(admission.touchpoint_count, 0);
  assert_null(admission.touchpoints);
  livenps_rules_free_admission(&admission);
  livenps_settings_free(&settings);
}

static void a_topic_has_its_own_mapping_or_the_contracts(void **state) {
  (void)state;
  livenps_settings settings = settings_of("topics=a,b", NULL);
  add_mapping(&settings, "b", second);
  livenps_mapping *mapping;
  livenps_buffer texts[3] = {0};
  const char *topics[] = {NULL, "a", "b"};
  for (int i = 0; i < 3; i++) {
    assert_int_equal(livenps_rules_mapping(&mapping, &settings, topics[i], &error), 0);
    livenps_mapping_print(mapping, &texts[i]);
    livenps_buffer_add(&texts[i], "", 1);
    livenps_mapping_free(mapping);
  }
  assert_string_equal(texts[0].at, texts[1].at);
  assert_null(strstr(texts[1].at, "place"));
  assert_non_null(strstr(texts[2].at, "place"));
  for (int i = 0; i < 3; i++)
    livenps_buffer_free(&texts[i]);
  livenps_settings_free(&settings);
}

static void the_hash_is_all_that_decides(void **state) {
  (void)state;
  char plain[65], other[65];
  hash_of(settings_of("topics=a", NULL), NULL, plain);
  /* What decides about no record: windows, lease, which topics are read without a mapping of their own. */
  hash_of(settings_of("topics=a,b", "windows=5m/1s", "namespace=elsewhere", NULL), NULL, other);
  assert_string_equal(plain, other);
  /* The order in which names are written down. */
  char left[65], right[65];
  hash_of(settings_of("admit.touchpoints=web,app", NULL), NULL, left);
  hash_of(settings_of("admit.touchpoints=app,web", NULL), NULL, right);
  assert_string_equal(left, right);
  assert_string_not_equal(left, plain);
  hash_of(settings_of("topics=a", "admit.late=3d", NULL), NULL, other);
  assert_string_not_equal(other, plain);
  hash_of(settings_of("topics=a", "admit.future=5s", NULL), NULL, other);
  assert_string_not_equal(other, plain);
  /* A replay's range is part of it: another range is another result. */
  hash_of(settings_of("topics=a", NULL), &(livenps_bounds){1000, 2000}, left);
  hash_of(settings_of("topics=a", NULL), &(livenps_bounds){1000, 2001}, right);
  assert_string_not_equal(left, plain);
  assert_string_not_equal(left, right);
}

static void mappings_are_part_of_the_hash(void **state) {
  (void)state;
  char plain[65], hashes[5][65];
  hash_of(settings_of("topics=a,b", NULL), NULL, plain);
  for (int i = 0; i < 5; i++) {
    livenps_settings settings = settings_of("topics=a,b", NULL);
    switch (i) {
    case 0:
      add_mapping(&settings, "a", first);
      add_mapping(&settings, "b", second);
      break;
    case 1: /* the order of topics does not matter */
      add_mapping(&settings, "b", second);
      add_mapping(&settings, "a", first);
      break;
    case 2: /* which topic has which does */
      add_mapping(&settings, "a", second);
      add_mapping(&settings, "b", first);
      break;
    case 3: add_mapping(&settings, "a", first); break;
    default: add_mapping(&settings, "b", first); break;
    }
    hash_of(settings, NULL, hashes[i]);
    assert_string_not_equal(hashes[i], plain);
  }
  assert_string_equal(hashes[0], hashes[1]);
  for (int i = 1; i < 5; i++)
    for (int j = 1; j < i; j++)
      assert_string_not_equal(hashes[i], hashes[j]);
}

static void a_mapping_that_cannot_be_read_is_said(void **state) {
  (void)state;
  const char *paths[] = {broken, absent};
  for (int i = 0; i < 2; i++) {
    livenps_rules rules;
    /* Of a topic that is read, and of one that is not: it would be part of the hash. */
    for (int topic = 0; topic < 2; topic++) {
      livenps_settings settings = settings_of("topics=a,b", NULL);
      add_mapping(&settings, topic ? "b" : "elsewhere", paths[i]);
      livenps_error_clear(&error);
      assert_int_equal(livenps_rules_open(&rules, &settings, NULL, &error), -1);
      assert_non_null(strstr(error.text, paths[i]));
      assert_null(rules.mappings);
      assert_int_equal(rules.count, 0);
      livenps_settings_free(&settings);
    }
  }
  livenps_error_clear(&error);
  livenps_rules_close(&(livenps_rules){0});
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(admission_is_the_settings),
      cmocka_unit_test(a_topic_has_its_own_mapping_or_the_contracts),
      cmocka_unit_test(the_hash_is_all_that_decides),
      cmocka_unit_test(mappings_are_part_of_the_hash),
      cmocka_unit_test(a_mapping_that_cannot_be_read_is_said),
  };
  return cmocka_run_group_tests(tests, start, stop);
}
