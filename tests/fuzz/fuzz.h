#ifndef LIVENPS_FUZZ_H
#define LIVENPS_FUZZ_H

/* What the fuzz targets share: a condition that must hold, files that stand in memory only, and jansson's tree as an
 * oracle of what the scanner found. */
#include "common/error.h"
#include "common/scan.h"

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define EXPECT(condition, ...)                                                                               \
  do {                                                                                                       \
    if (!(condition)) {                                                                                      \
      fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);                                        \
      fprintf(stderr, __VA_ARGS__);                                                                          \
      fprintf(stderr, "\n");                                                                                 \
      abort();                                                                                               \
    }                                                                                                        \
  } while (0)

#define HOLDS(condition) EXPECT(condition, "%s", "does not hold")

/* A file of these bytes that can be opened by its path as often as wanted. The same file with every call. */
static inline const char *memory_file(const void *bytes, size_t length) {
  static char path[64];
  static int file = -1;
  if (file < 0) {
    file = memfd_create("fuzz", MFD_CLOEXEC);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
  }
  EXPECT(file >= 0 && ftruncate(file, 0) == 0 && pwrite(file, bytes, length, 0) == (ssize_t)length,
         "memory file of %zu bytes", length);
  return path;
}

/* A refusal says what is wrong, and as one of the codes that the caller knows. */
static inline void expect_error(const livenps_error *error) {
  EXPECT(error->code != LIVENPS_OK && error->text[0] && memchr(error->text, 0, sizeof error->text), "code %d",
         error->code);
}

/* A plain reading of RFC 6901 over jansson. */
static inline const json_t *resolve(const json_t *at, const char *pointer) {
  while (*pointer && at) {
    char token[1024];
    size_t length = 0;
    for (pointer++; *pointer && *pointer != '/'; pointer++) {
      token[length++] = *pointer == '~' ? (*++pointer == '0' ? '~' : '/') : *pointer;
    }
    token[length] = '\0';
    if (json_is_object(at)) {
      at = json_object_get(at, token);
    } else if (json_is_array(at) && length > 0 && length < 10 && strspn(token, "0123456789") == length &&
               (length == 1 || token[0] != '0')) {
      at = json_array_get(at, strtoul(token, NULL, 10));
    } else {
      at = NULL;
    }
  }
  return at;
}

static inline int depth_of(const json_t *at) {
  int deepest = 0;
  if (json_is_object(at)) {
    const char *key;
    json_t *child;
    json_t *object = (json_t *)(uintptr_t)at;
    json_object_foreach(object, key, child) {
      int depth = depth_of(child);
      deepest = depth > deepest ? depth : deepest;
    }
    return deepest + 1;
  }
  if (json_is_array(at)) {
    for (size_t i = 0; i < json_array_size(at); i++) {
      int depth = depth_of(json_array_get(at, i));
      deepest = depth > deepest ? depth : deepest;
    }
    return deepest + 1;
  }
  return 0;
}

static inline bool text_is(livenps_text text, const char *string, size_t length) {
  return text.length == length && (length == 0 || memcmp(text.at, string, length) == 0);
}

/* The scanner found at that pointer what jansson has there. */
static inline void same_value(const livenps_found *found, const json_t *value, const char *pointer) {
  if (!value) {
    EXPECT(found->kind == LIVENPS_JSON_ABSENT, "%s: kind %d", pointer, found->kind);
    return;
  }
  switch (json_typeof(value)) {
  case JSON_OBJECT: EXPECT(found->kind == LIVENPS_JSON_OBJECT, "%s", pointer); break;
  case JSON_ARRAY: EXPECT(found->kind == LIVENPS_JSON_ARRAY, "%s", pointer); break;
  case JSON_NULL: EXPECT(found->kind == LIVENPS_JSON_NULL, "%s", pointer); break;
  case JSON_TRUE: EXPECT(found->kind == LIVENPS_JSON_TRUE, "%s", pointer); break;
  case JSON_FALSE: EXPECT(found->kind == LIVENPS_JSON_FALSE, "%s", pointer); break;
  case JSON_STRING:
    EXPECT(found->kind == LIVENPS_JSON_STRING, "%s", pointer);
    EXPECT(text_is(found->text, json_string_value(value), json_string_length(value)), "%s", pointer);
    break;
  case JSON_INTEGER:
  case JSON_REAL: {
    EXPECT(found->kind == LIVENPS_JSON_NUMBER, "%s", pointer);
    char *literal = strndup(found->text.at, found->text.length);
    EXPECT(strtod(literal, NULL) == json_number_value(value), "%s: %s", pointer, literal);
    free(literal);
    break;
  }
  }
}

#endif
