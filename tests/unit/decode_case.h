#ifndef LIVENPS_DECODE_CASE_H
#define LIVENPS_DECODE_CASE_H

/* Reading whole files and naming what an event says: shared by the tests of decode, mapping and admit. */
#include "common/admit.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#ifndef LIVENPS_SOURCE_DIR
#define LIVENPS_SOURCE_DIR "."
#endif

/* The file's bytes, NUL-terminated, to be freed; NULL when there is no such file. */
static inline char *read_file(const char *path, size_t *length) {
  FILE *file = fopen(path, "rb");
  if (!file) {
    return NULL;
  }
  livenps_buffer buffer = {0};
  char chunk[65536];
  size_t got;
  while ((got = fread(chunk, 1, sizeof chunk, file)) > 0) {
    livenps_buffer_add(&buffer, chunk, got);
  }
  fclose(file);
  *length = buffer.length;
  livenps_buffer_add(&buffer, "", 1);
  return buffer.at;
}

static inline void set_text(json_t *object, const char *name, livenps_text text) {
  if (text.at) {
    json_object_set_new(object, name, json_stringn(text.at, text.length));
  }
}

#define CASES LIVENPS_SOURCE_DIR "/tests/cases/decode"

/* ---- cases: a directory each
 *
 *   input | input.hex   the value of the record; neither: a tombstone
 *   headers             lines "name: value"
 *   mapping             a mapping file, from the project's folder; else the contract
 *   max_bytes           else 1 MiB
 *   timestamp           of the record; with it the event is admitted too, by the default rules
 *   expected.json       the event, value in hundredths; or
 *   reason              "reason offset field" (field - when there is none); or
 *   fate                "late" */

static inline char *case_file(const char *name, const char *file, size_t *length) {
  char path[512];
  snprintf(path, sizeof path, CASES "/%s/%s", name, file);
  return read_file(path, length);
}

static inline char *case_value(const char *name, size_t *length) {
  char *value = case_file(name, "input", length);
  if (value) {
    return value;
  }
  char *hex = case_file(name, "input.hex", length);
  if (!hex) {
    return NULL;
  }
  size_t bytes = 0;
  unsigned byte;
  int step;
  for (char *at = hex; sscanf(at, " %2x%n", &byte, &step) == 1; at += step) {
    hex[bytes++] = (char)byte;
  }
  *length = bytes;
  return hex;
}

static inline size_t case_headers(char *text, livenps_header *headers, size_t most) {
  size_t count = 0;
  for (char *line = text ? strtok(text, "\n") : NULL; line && count < most; line = strtok(NULL, "\n")) {
    char *colon = strstr(line, ": ");
    if (!colon) {
      break;
    }
    headers[count].name = (livenps_text){line, (size_t)(colon - line)};
    headers[count++].value = livenps_text_of(colon + 2);
  }
  return count;
}

/* What an event says, absent fields left out; value in hundredths. */
static inline json_t *event_to_json(const livenps_event *event) {
  static const char *const types[] = {"interaction", "invitation", "answer"};
  static const char *const scales[] = {NULL, "nps", "csat", "ces"};
  json_t *object = json_object();
  set_text(object, "id", event->id);
  json_object_set_new(object, "type", json_string(types[event->type]));
  json_object_set_new(object, "time_ms", json_integer(event->time_ms));
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
    set_text(object, livenps_dimension_names[d], event->dimensions[d]);
  }
  set_text(object, "customer", event->customer);
  if (event->scale != LIVENPS_SCALE_NONE) {
    json_object_set_new(object, "scale", json_string(scales[event->scale]));
    json_object_set_new(object, "score", json_integer(event->score));
  }
  if (event->has_value) {
    json_object_set_new(object, "value", json_integer(event->value));
  }
  return object;
}

#endif
