#ifndef LIVENPS_SETTINGS_TABLE_H
#define LIVENPS_SETTINGS_TABLE_H

#include "settings.h"

/* The table behind settings.h, for the readers and writers of settings, the command lines' help, the manual pages and the
 * tests that keep documents in step with it. */

typedef enum {
  LIVENPS_KIND_TEXT,
  LIVENPS_KIND_PATH, /* a file; made absolute when it is read, so that a dump means the same everywhere */
  LIVENPS_KIND_CHOICE,
  LIVENPS_KIND_BOOL,
  LIVENPS_KIND_NUMBER,   /* int64_t */
  LIVENPS_KIND_FRACTION, /* double; low and high in millionths */
  LIVENPS_KIND_DURATION, /* int64_t, milliseconds */
  LIVENPS_KIND_SIZE,     /* int64_t, bytes */
  LIVENPS_KIND_LIST,     /* livenps_list */
  LIVENPS_KIND_MAP,      /* livenps_pairs */
} livenps_kind;

typedef struct {
  const char *group; /* heading in the help; NULL: as the one before */
  const char *path;  /* "commit.interval" */
  livenps_kind kind;
  size_t offset; /* in livenps_settings */
  const char
      *fallback;       /* the default, as it would be written with --set; "" for an empty text, list or map */
  int64_t low, high;   /* numbers, durations, sizes */
  const char *allowed; /* texts, lists, maps: what one value may be; choices: "error|warn|info|debug" */
  /* Texts, list items and values of maps; says in the error what is wrong. NULL: anything. */
  int (*check)(const char *value, livenps_error *error);
  const char *help; /* one or two sentences */
} livenps_setting;

const livenps_setting *livenps_settings_table(size_t *count);
/* The setting of that name, or the map that it is an entry of ("kafka.session.timeout.ms"): then *key is the entry's name,
 * else *key is NULL. NULL when there is none. */
const livenps_setting *livenps_settings_find(const char *path, const char **key);
bool livenps_settings_is_group(const char *path); /* "commit" */
/* "; did you mean X?", "; there are X, Y" (of the same group) or "" for an unknown name. Returns out. */
const char *livenps_settings_nearest(const char *path, char *out, size_t size);

/* Gives a setting a value. Lists: replaces all items by one comma-separated text, or empties and adds; maps: one entry.
 * folder: what relative paths are relative to, NULL for the working directory. The error says what is wrong and what is
 * allowed, but not which setting and where: the caller puts that in front. */
int livenps_settings_assign(livenps_settings *settings, const livenps_setting *setting, const char *key,
                            const char *value, const char *folder, livenps_error *error);
void livenps_settings_list_clear(livenps_settings *settings, const livenps_setting *setting);
int livenps_settings_list_add(livenps_settings *settings, const livenps_setting *setting, const char *item,
                              livenps_error *error);
/* Says that a list was given item by item; assign does so itself. Defaults of other settings may follow. */
void livenps_settings_given(livenps_settings *settings, const livenps_setting *setting);
/* "a duration from 5ms to 10s", "true or false" ... */
void livenps_settings_allowed(const livenps_setting *setting, livenps_buffer *out);
/* True for names whose values must not be shown, or stand on a command line. */
bool livenps_settings_is_secret(const char *path);

const char *livenps_settings_yaml_version(void); /* of libyaml, for --version */

#endif
