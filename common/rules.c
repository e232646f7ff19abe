#include "rules.h"

#include <stdlib.h>
#include <string.h>

static int compare_names(const void *left, const void *right) {
  return strcmp(*(char *const *)left, *(char *const *)right);
}

void livenps_rules_admission(livenps_admission *admission, const livenps_settings *settings) {
  const livenps_list *allowed = &settings->admit_touchpoints;
  *admission = (livenps_admission){.max_bytes = (size_t)settings->admit_max_bytes,
                                   .late_ms = settings->admit_late_ms,
                                   .future_ms = settings->admit_future_ms,
                                   .touchpoint_count = allowed->count};
  if (!allowed->count)
    return;
  admission->touchpoints = livenps_alloc(allowed->count * sizeof(char *));
  memcpy(admission->touchpoints, allowed->at, allowed->count * sizeof(char *));
  qsort(admission->touchpoints, allowed->count, sizeof(char *), compare_names);
}

void livenps_rules_free_admission(livenps_admission *admission) {
  free(admission->touchpoints);
  *admission = (livenps_admission){0};
}

static const char *mapping_path(const livenps_settings *settings, const char *topic) {
  for (size_t i = 0; topic && i < settings->mappings.count; i++)
    if (!strcmp(settings->mappings.at[i].name, topic))
      return settings->mappings.at[i].value;
  return NULL;
}

int livenps_rules_mapping(livenps_mapping **out, const livenps_settings *settings, const char *topic,
                          livenps_error *error) {
  const char *path = mapping_path(settings, topic);
  return path ? livenps_mapping_load(out, path, error) : livenps_mapping_default(out, error);
}

static int compare_pairs(const void *left, const void *right) {
  return strcmp((*(const livenps_pair *const *)left)->name, (*(const livenps_pair *const *)right)->name);
}

/* The canonical text of everything that decides: the order in which topics are written down must not matter. */
static int print_rules(livenps_rules *rules, const livenps_settings *settings, livenps_buffer *text,
                       livenps_error *error) {
  livenps_admission_print(&rules->admission, text);
  const livenps_pair **pairs = livenps_alloc((settings->mappings.count + 1) * sizeof(livenps_pair *));
  for (size_t i = 0; i < settings->mappings.count; i++)
    pairs[i] = &settings->mappings.at[i];
  qsort(pairs, settings->mappings.count, sizeof(livenps_pair *), compare_pairs);
  int result = 0;
  for (size_t i = 0; i < settings->mappings.count && !result; i++) {
    livenps_mapping *mapping;
    result = livenps_mapping_load(&mapping, pairs[i]->value, error);
    if (result)
      break;
    livenps_buffer_print(text, "\ntopic %s\n", pairs[i]->name);
    livenps_mapping_print(mapping, text);
    livenps_mapping_free(mapping);
  }
  free(pairs);
  return result;
}

int livenps_rules_open(livenps_rules *rules, const livenps_settings *settings, const livenps_bounds *replay,
                       livenps_error *error) {
  livenps_buffer text = {0};
  *rules = (livenps_rules){0};
  livenps_rules_admission(&rules->admission, settings);
  if (replay) {
    rules->admission.replay = true;
    rules->admission.from_ms = replay->from_ms;
    rules->admission.to_ms = replay->to_ms;
  }
  rules->mappings = livenps_alloc((settings->topics.count + 1) * sizeof(livenps_mapping *));
  for (; rules->count < settings->topics.count; rules->count++)
    if (livenps_rules_mapping(&rules->mappings[rules->count], settings, settings->topics.at[rules->count],
                              error))
      goto failed;
  if (print_rules(rules, settings, &text, error))
    goto failed;
  livenps_sha256_hex(text.at, text.length, rules->hash);
  livenps_buffer_free(&text);
  return 0;

failed:
  livenps_buffer_free(&text);
  livenps_rules_close(rules);
  return -1;
}

void livenps_rules_close(livenps_rules *rules) {
  for (size_t i = 0; i < rules->count; i++)
    livenps_mapping_free(rules->mappings[i]);
  free(rules->mappings);
  livenps_rules_free_admission(&rules->admission);
  *rules = (livenps_rules){0};
}
