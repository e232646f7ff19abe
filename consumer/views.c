#include "views.h"

#include <stdio.h>
#include <stdlib.h>

enum {
  STEP_KEYS = 250, /* keys of one script: a few milliseconds of Redis */
};
#define LARGEST 1e15 /* of the numbers in a view: counts are exact in a double far beyond */

const char *const livenps_read_fields[LIVENPS_FIELD_COUNT] = {
#define FIELD_NAME(symbol, name) name,
    LIVENPS_READ_FIELDS(FIELD_NAME)
#undef FIELD_NAME
};

static livenps_script counts_script = {
    .text = "local out = {}\n"
            "for i, key in ipairs(KEYS) do out[i] = redis.call('HGET', key, 'n') or '-1' end\n"
            "return out\n",
};

static livenps_script views_script = {
    .text = "local out = {}\n"
            "for i, key in ipairs(KEYS) do out[i] = redis.call('HMGET', key, unpack(ARGV)) end\n"
            "return out\n",
};

static char *view_key(const livenps_keys *keys, const char *rollup, const char *id, const char *window) {
  livenps_buffer key = {0};
  livenps_buffer_print(&key, "%s%s:%s:%s", keys->prefix, rollup, id, window);
  livenps_buffer_add(&key, "", 1);
  return key.at;
}

void livenps_rows_free(livenps_row *rows, size_t count) {
  for (size_t i = 0; i < count; i++) {
    free(rows[i].id);
  }
  free(rows);
}

bool livenps_hash_value(const livenps_reply *reply, const char *field, int64_t *value) {
  for (size_t i = 0; i + 1 < livenps_reply_count(reply); i += 2) {
    livenps_text name;
    if (livenps_reply_text(livenps_reply_item(reply, i), &name) &&
        livenps_text_equal(name, livenps_text_of(field))) {
      return livenps_reply_integer(livenps_reply_item(reply, i + 1), value);
    }
  }
  return false;
}

livenps_reply *livenps_views_health(livenps_redis *redis, const livenps_keys *keys, const char *window,
                                    livenps_error *error) {
  char key[200];
  snprintf(key, sizeof key, "%shealth%s%s", keys->prefix, window ? ":" : "", window ? window : "");
  const char *argv[] = {"HGETALL", key};
  return livenps_redis_command(redis, error, 2, argv, NULL);
}

static int by_id(const void *a, const void *b) {
  return strcmp(((const livenps_row *)a)->id, ((const livenps_row *)b)->id);
}

int livenps_views_ids(livenps_redis *redis, const livenps_keys *keys, const char *rollup, livenps_row **out,
                      size_t *count, livenps_error *error) {
  char key[200], cursor[32] = "0";
  livenps_row *rows = NULL;
  size_t used = 0, capacity = 0;
  snprintf(key, sizeof key, "%sindex:%s", keys->prefix, rollup);
  do {
    const char *argv[] = {"SSCAN", key, cursor, "COUNT", "1000"};
    livenps_reply *reply = livenps_redis_command(redis, error, 5, argv, NULL);
    livenps_text id, next;
    if (!reply) {
      livenps_rows_free(rows, used);
      return -1;
    }
    const livenps_reply *some = livenps_reply_item(reply, 1);
    for (size_t i = 0; i < livenps_reply_count(some) && used < LIVENPS_MOST_SERIES; i++) {
      if (!livenps_reply_text(livenps_reply_item(some, i), &id)) {
        continue;
      }
      if (used == capacity) {
        capacity = capacity ? capacity * 2 : 64;
        rows = livenps_resize(rows, capacity * sizeof *rows);
      }
      rows[used++] = (livenps_row){.id = livenps_copy(id.at, id.length)};
    }
    snprintf(cursor, sizeof cursor, "0");
    if (livenps_reply_text(livenps_reply_item(reply, 0), &next) && next.length < sizeof cursor &&
        used < LIVENPS_MOST_SERIES) {
      memcpy(cursor, next.at, next.length);
      cursor[next.length] = 0;
    }
    livenps_reply_free(reply);
  } while (strcmp(cursor, "0") != 0);
  /* A scan may name a member twice. */
  size_t kept = 0;
  if (used) {
    qsort(rows, used, sizeof *rows, by_id);
  }
  for (size_t i = 0; i < used; i++) {
    if (kept && strcmp(rows[kept - 1].id, rows[i].id) == 0) {
      free(rows[i].id);
    } else {
      rows[kept++] = rows[i];
    }
  }
  *out = rows;
  *count = kept;
  return 0;
}

int livenps_views_counts(livenps_redis *redis, const livenps_keys *keys, const char *rollup,
                         const char *window, livenps_row *rows, size_t count, livenps_error *error) {
  int result = 0;
  for (size_t first = 0; first < count && result == 0; first += STEP_KEYS) {
    size_t step = count - first < STEP_KEYS ? count - first : STEP_KEYS;
    const char *argv[STEP_KEYS];
    for (size_t i = 0; i < step; i++) {
      argv[i] = view_key(keys, rollup, rows[first + i].id, window);
    }
    livenps_reply *reply = livenps_redis_eval(redis, &counts_script, error, (int)step, (int)step, argv, NULL);
    for (size_t i = 0; i < step; i++) {
      livenps_reply_integer(livenps_reply_item(reply, i), &rows[first + i].n);
      free((void *)(uintptr_t)argv[i]);
    }
    result = reply ? 0 : -1;
    livenps_reply_free(reply);
  }
  return result;
}

bool livenps_view_number(const livenps_reply *reply, double *value) {
  livenps_text text;
  if (!livenps_reply_text(reply, &text)) {
    return false;
  }
  char *end;
  double number = strtod(text.at, &end);
  /* Not a number compares false. */
  if (end == text.at || !(number >= -LARGEST && number <= LARGEST)) {
    return false;
  }
  *value = number;
  return true;
}

static void read_row(livenps_row *row, const livenps_reply *fields) {
  row->there = false;
  for (size_t f = 0; f < LIVENPS_FIELD_COUNT; f++) {
    const livenps_reply *field = livenps_reply_item(fields, f);
    livenps_text text;
    row->value[f] = 0;
    row->has[f] = livenps_view_number(field, &row->value[f]);
    row->there |= livenps_reply_text(field, &text);
  }
  row->n = (int64_t)row->value[LIVENPS_FIELD_N];
}

int livenps_views_read(livenps_redis *redis, const livenps_keys *keys, const char *rollup, const char *window,
                       livenps_row **rows, size_t count, livenps_error *error) {
  int result = 0;
  for (size_t first = 0; first < count && result == 0; first += STEP_KEYS) {
    size_t step = count - first < STEP_KEYS ? count - first : STEP_KEYS;
    const char *argv[STEP_KEYS + LIVENPS_FIELD_COUNT];
    for (size_t i = 0; i < step; i++) {
      argv[i] = view_key(keys, rollup, rows[first + i]->id, window);
    }
    memcpy(argv + step, livenps_read_fields, sizeof livenps_read_fields);
    livenps_reply *reply = livenps_redis_eval(redis, &views_script, error, (int)step,
                                              (int)(step + LIVENPS_FIELD_COUNT), argv, NULL);
    for (size_t i = 0; i < step; i++) {
      if (reply) {
        read_row(rows[first + i], livenps_reply_item(reply, i));
      }
      free((void *)(uintptr_t)argv[i]);
    }
    result = reply ? 0 : -1;
    livenps_reply_free(reply);
  }
  return result;
}

int livenps_views_check(const livenps_settings *settings, const char *rollup, const char *window_name,
                        livenps_error *error) {
  bool known_rollup = false, known_window = false;
  livenps_buffer rollups = {0}, windows = {0};
  for (size_t i = 0; i < settings->rollups.count; i++) {
    known_rollup |= strcmp(settings->rollups.at[i], rollup) == 0;
    livenps_buffer_print(&rollups, "%s%s", i ? ", " : "", settings->rollups.at[i]);
  }
  for (size_t i = 0; i < settings->windows.count; i++) {
    livenps_window window;
    if (livenps_window_parse(settings->windows.at[i], &window, error) == 0) {
      known_window |= strcmp(window.name, window_name) == 0;
      livenps_buffer_print(&windows, "%s%s", i ? ", " : "", window.name);
    }
  }
  if (!known_rollup) {
    livenps_fail(error, LIVENPS_E_USAGE, "no roll-up '%s'; there are: %.*s", rollup, (int)rollups.length,
                 rollups.at);
  } else if (!known_window) {
    livenps_fail(error, LIVENPS_E_USAGE, "no window '%s'; there are: %.*s", window_name, (int)windows.length,
                 windows.at);
  }
  livenps_buffer_free(&rollups);
  livenps_buffer_free(&windows);
  return known_rollup && known_window ? 0 : -1;
}
