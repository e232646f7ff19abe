#include "settings_table.h"

#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <yaml.h>

/* Reads the file event by event: the settings are a small language (names, single values, flat lists, flat maps), and
 * what YAML has beyond it (anchors, tags, several documents) is refused by name instead of being half understood. */

enum { LARGEST_FILE = 1024 * 1024 };

typedef struct {
  char *path;
  size_t line;
} seen_name;

typedef struct {
  yaml_parser_t parser;
  yaml_event_t event; /* the current one; valid while has_event */
  bool has_event;
  livenps_settings *settings;
  const char *file;
  char *folder;
  seen_name *seen;
  size_t seen_count;
  livenps_error *error;
} file_reader;

__attribute__((format(printf, 3, 4))) static int fail_at(file_reader *reader, size_t line, const char *format,
                                                         ...) {
  char text[400];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return livenps_fail(reader->error, LIVENPS_E_USAGE, "%s:%zu: %s", reader->file, line, text);
}

static size_t line_of(const file_reader *reader) {
  return reader->event.start_mark.line + 1;
}

static int next(file_reader *reader) {
  if (reader->has_event) {
    yaml_event_delete(&reader->event);
    reader->has_event = false;
  }
  if (!yaml_parser_parse(&reader->parser, &reader->event)) {
    const yaml_parser_t *parser = &reader->parser;
    const char *problem = parser->problem ? parser->problem : "cannot be read";
    size_t line = parser->problem_mark.line + 1;
    if (parser->error == YAML_READER_ERROR) { /* the reader counts bytes, not lines */
      return livenps_fail(reader->error, LIVENPS_E_USAGE, "%s: byte %zu: %s", reader->file,
                          parser->problem_offset, problem);
    }
    if (strstr(problem, "cannot start any token")) {
      return fail_at(reader, line, "not valid YAML: %s%s", problem,
                     " (tabs do not indent, and @ ` % begin no plain value)");
    }
    return fail_at(reader, line, "not valid YAML: %s", problem);
  }
  reader->has_event = true;
  const unsigned char *anchor = NULL, *tag = NULL;
  switch (reader->event.type) {
  case YAML_ALIAS_EVENT:
    return fail_at(reader, line_of(reader), "aliases (*name) are not supported: write the value out");
  case YAML_SCALAR_EVENT:
    anchor = reader->event.data.scalar.anchor;
    tag = reader->event.data.scalar.tag;
    break;
  case YAML_SEQUENCE_START_EVENT:
    anchor = reader->event.data.sequence_start.anchor;
    tag = reader->event.data.sequence_start.tag;
    break;
  case YAML_MAPPING_START_EVENT:
    anchor = reader->event.data.mapping_start.anchor;
    tag = reader->event.data.mapping_start.tag;
    break;
  default: break;
  }
  if (anchor) {
    return fail_at(reader, line_of(reader), "anchors (&name) are not supported: write the value out");
  }
  if (tag) {
    return fail_at(reader, line_of(reader), "tags (!name) are not supported: every setting has its type");
  }
  return 0;
}

/* The current scalar as a text of its own; NULL after an error. */
static char *take_scalar(file_reader *reader) {
  const char *value = (const char *)reader->event.data.scalar.value;
  size_t length = reader->event.data.scalar.length;
  if (memchr(value, 0, length)) {
    fail_at(reader, line_of(reader), "a value has a NUL character");
    return NULL;
  }
  return livenps_copy(value, length);
}

/* `name:` with nothing behind it, or null. */
static bool is_nothing(const file_reader *reader) {
  if (reader->event.type != YAML_SCALAR_EVENT || reader->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE) {
    return false;
  }
  const char *value = (const char *)reader->event.data.scalar.value;
  return value[0] == '\0' || strcmp(value, "~") == 0 || strcmp(value, "null") == 0;
}

static const char *what_is_there(const file_reader *reader) {
  return reader->event.type == YAML_SEQUENCE_START_EVENT  ? "a list"
         : reader->event.type == YAML_MAPPING_START_EVENT ? "a group of names and values"
                                                          : "a single value";
}

static int remember(file_reader *reader, const char *path, size_t line) {
  char shown[160];
  for (size_t i = 0; i < reader->seen_count; i++) {
    if (strcmp(reader->seen[i].path, path) == 0) {
      return fail_at(reader, line, "%s: is given twice, first in line %zu",
                     livenps_printable(shown, sizeof shown, path, strlen(path)), reader->seen[i].line);
    }
  }
  reader->seen = livenps_resize(reader->seen, (reader->seen_count + 1) * sizeof *reader->seen);
  reader->seen[reader->seen_count++] = (seen_name){livenps_copy(path, strlen(path)), line};
  return 0;
}

static char *join(const char *prefix, const char *name) {
  livenps_buffer path = {0};
  livenps_buffer_print(&path, "%s%s%s", prefix, prefix[0] ? "." : "", name);
  livenps_buffer_add(&path, "", 1);
  return path.at;
}

/* "FILE:LINE: path: text" around what assign says. */
static int wrap(file_reader *reader, size_t line, const char *path, int result, const livenps_error *found) {
  char shown[160];
  return result == 0 ? 0
                     : fail_at(reader, line, "%s: %s",
                               livenps_printable(shown, sizeof shown, path, strlen(path)), found->text);
}

static int wrong_kind(file_reader *reader, const livenps_setting *setting, const char *path,
                      const char *wanted) {
  livenps_buffer allowed = {0};
  char shown[160];
  livenps_settings_allowed(setting, &allowed);
  fail_at(reader, line_of(reader), "%s: is %s; allowed: %s%.*s",
          livenps_printable(shown, sizeof shown, path, strlen(path)), what_is_there(reader), wanted,
          (int)allowed.length, allowed.at);
  livenps_buffer_free(&allowed);
  return -1;
}

static int read_single(file_reader *reader, const livenps_setting *setting, const char *key,
                       const char *path) {
  livenps_error found = {0};
  size_t line = line_of(reader);
  if (reader->event.type != YAML_SCALAR_EVENT) {
    return wrong_kind(reader, setting, path, "");
  }
  if (is_nothing(reader)) {
    char shown[160];
    return fail_at(reader, line,
                   "%s: has no value; leave the line out for the default, or write \"\" for an empty text",
                   livenps_printable(shown, sizeof shown, path, strlen(path)));
  }
  char *value = take_scalar(reader);
  if (!value) {
    return -1;
  }
  int result = livenps_settings_assign(reader->settings, setting, key, value, reader->folder, &found);
  free(value);
  return wrap(reader, line, path, result, &found);
}

static int read_list(file_reader *reader, const livenps_setting *setting, const char *path) {
  livenps_error found = {0};
  if (is_nothing(reader)) {
    livenps_settings_list_clear(reader->settings, setting);
    livenps_settings_given(reader->settings, setting);
    return 0;
  }
  if (reader->event.type == YAML_SCALAR_EVENT) { /* one name, or several with commas */
    return read_single(reader, setting, NULL, path);
  }
  if (reader->event.type != YAML_SEQUENCE_START_EVENT) {
    return wrong_kind(reader, setting, path, "a list; each: ");
  }
  livenps_settings_list_clear(reader->settings, setting);
  while (next(reader) == 0) {
    if (reader->event.type == YAML_SEQUENCE_END_EVENT) {
      livenps_settings_given(reader->settings, setting);
      return 0;
    }
    size_t line = line_of(reader);
    if (reader->event.type != YAML_SCALAR_EVENT) {
      return wrong_kind(reader, setting, path, "single values; each: ");
    }
    char *value = take_scalar(reader);
    if (!value) {
      return -1;
    }
    int result = livenps_settings_list_add(reader->settings, setting, value, &found);
    free(value);
    if (wrap(reader, line, path, result, &found) != 0) {
      return -1;
    }
  }
  return -1;
}

/* The name of an entry; NULL after an error. */
static char *take_name(file_reader *reader, const char *prefix) {
  if (reader->event.type != YAML_SCALAR_EVENT) {
    fail_at(reader, line_of(reader), "%s%sa name is expected here, not %s", prefix, prefix[0] ? ": " : "",
            what_is_there(reader));
    return NULL;
  }
  return take_scalar(reader);
}

static int read_map(file_reader *reader, const livenps_setting *setting, const char *path) {
  if (is_nothing(reader)) {
    return 0;
  }
  if (reader->event.type != YAML_MAPPING_START_EVENT) {
    return wrong_kind(reader, setting, path, "one line of NAME: VALUE each; each value: ");
  }
  while (next(reader) == 0) {
    if (reader->event.type == YAML_MAPPING_END_EVENT) {
      return 0;
    }
    size_t line = line_of(reader);
    char *name = take_name(reader, path);
    if (!name) {
      return -1;
    }
    char *full = join(path, name);
    int result = name[0] == '\0' ? fail_at(reader, line, "%s: an entry has no name", path)
                                 : remember(reader, full, line);
    if (result == 0) {
      result = next(reader) == 0 ? read_single(reader, setting, name, full) : -1;
    }
    free(full);
    free(name);
    if (result != 0) {
      return -1;
    }
  }
  return -1;
}

static int read_group(file_reader *reader, const char *prefix);

static int read_entry(file_reader *reader, const char *path, size_t line) {
  const char *key;
  char hint[256], shown[160];
  const livenps_setting *setting = livenps_settings_find(path, &key);
  livenps_printable(shown, sizeof shown, path, strlen(path));
  if (!setting && livenps_settings_is_group(path)) {
    if (next(reader) != 0) {
      return -1;
    }
    if (is_nothing(reader)) { /* everything in the group is commented out */
      return 0;
    }
    return reader->event.type == YAML_MAPPING_START_EVENT
               ? read_group(reader, path)
               : fail_at(reader, line_of(reader),
                         "%s: is %s; it is a group: its settings stand below it, indented", shown,
                         what_is_there(reader));
  }
  if (!setting) {
    return fail_at(reader, line, "%s: unknown setting%s", shown,
                   livenps_settings_nearest(path, hint, sizeof hint));
  }
  if (next(reader) != 0) {
    return -1;
  }
  return setting->kind == LIVENPS_KIND_LIST          ? read_list(reader, setting, path)
         : setting->kind == LIVENPS_KIND_MAP && !key ? read_map(reader, setting, path)
                                                     : read_single(reader, setting, key, path);
}

/* From behind the start of a mapping to its end. */
static int read_group(file_reader *reader, const char *prefix) {
  while (next(reader) == 0) {
    if (reader->event.type == YAML_MAPPING_END_EVENT) {
      return 0;
    }
    size_t line = line_of(reader);
    char *name = take_name(reader, prefix);
    if (!name) {
      return -1;
    }
    char *path = join(prefix, name);
    int result = remember(reader, path, line) == 0 ? read_entry(reader, path, line) : -1;
    free(path);
    free(name);
    if (result != 0) {
      return -1;
    }
  }
  return -1;
}

/* Goes on to the event behind one of this type; the first event of all is read here too. */
static int skip(file_reader *reader, yaml_event_type_t type) {
  if (!reader->has_event && next(reader) != 0) {
    return -1;
  }
  return reader->event.type == type ? next(reader) : 0;
}

static int read_stream(file_reader *reader) {
  if (skip(reader, YAML_STREAM_START_EVENT) != 0) {
    return -1;
  }
  if (reader->event.type == YAML_STREAM_END_EVENT) { /* an empty file */
    return 0;
  }
  if (skip(reader, YAML_DOCUMENT_START_EVENT) != 0) {
    return -1;
  }
  if (!is_nothing(reader)) {
    if (reader->event.type != YAML_MAPPING_START_EVENT) {
      return fail_at(reader, line_of(reader), "is %s; a configuration file has lines of NAME: VALUE",
                     what_is_there(reader));
    }
    if (read_group(reader, "") != 0) {
      return -1;
    }
  }
  if (next(reader) != 0 || skip(reader, YAML_DOCUMENT_END_EVENT) != 0) {
    return -1;
  }
  if (reader->event.type != YAML_STREAM_END_EVENT) {
    return fail_at(reader, line_of(reader), "a second document begins; only one is read");
  }
  return 0;
}

static int read_bytes(const char *path, livenps_buffer *out, livenps_error *error) {
  char block[16384];
  size_t got;
  FILE *file = fopen(path, "rbe");
  if (!file) {
    return livenps_fail(error, LIVENPS_E_USAGE, "%s: cannot be opened: %s", path, strerror(errno));
  }
  while ((got = fread(block, 1, sizeof block, file)) > 0 && out->length <= LARGEST_FILE) {
    livenps_buffer_add(out, block, got);
  }
  int failed = ferror(file) ? errno : 0;
  fclose(file);
  if (failed) {
    return livenps_fail(error, LIVENPS_E_USAGE, "%s: cannot be read: %s", path, strerror(failed));
  }
  if (out->length > LARGEST_FILE) {
    return livenps_fail(error, LIVENPS_E_USAGE, "%s: is larger than %d bytes, which no configuration is",
                        path, LARGEST_FILE);
  }
  return 0;
}

int livenps_settings_file(livenps_settings *settings, const char *path, livenps_error *error) {
  file_reader reader = {.settings = settings, .file = path, .error = error};
  livenps_buffer bytes = {0};
  const char *slash = strrchr(path, '/');
  int result = -1;
  reader.folder =
      slash ? livenps_copy(path, slash == path ? 1 : (size_t)(slash - path)) : livenps_copy(".", 1);
  if (!yaml_parser_initialize(&reader.parser)) {
    livenps_fail(error, LIVENPS_E_STARTUP, "libyaml cannot be initialised");
    goto cleanup;
  }
  if (read_bytes(path, &bytes, error) == 0) {
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)(bytes.at ? bytes.at : ""),
                                 bytes.length);
    result = read_stream(&reader);
  }
  if (reader.has_event) {
    yaml_event_delete(&reader.event);
  }
  yaml_parser_delete(&reader.parser);
cleanup:
  for (size_t i = 0; i < reader.seen_count; i++) {
    free(reader.seen[i].path);
  }
  free(reader.seen);
  free(reader.folder);
  livenps_buffer_free(&bytes);
  return result;
}

const char *livenps_settings_yaml_version(void) {
  return yaml_get_version_string();
}
