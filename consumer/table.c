#include "commands.h"
#include "scripts.h"

#include "../common/clock.h"
#include "../common/log.h"

#include <inttypes.h>
#include <langinfo.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

/* `livenps-consumer table`: the views of one roll-up and window, drawn again and again. Reads Redis only, so it shows what any other
 * dashboard sees. Knows nothing of the aggregator but the names in docs/redis.md. */

enum {
  DRAW_MS = 500,
  ORDER_MS = 2000, /* how often the order is found out, which asks for every series */
  STEP_KEYS = 500, /* keys of one script: a millisecond of Redis */
  MOST_SERIES = 100000,
  MOST_ROWS = 1000, /* of one drawing */
  PLAIN_ROWS = 50,  /* without a terminal */
  PLAIN_WIDTH = 132,
  STOP_MS = 100,
  BAR = 21, /* -100..100 in steps of 10 */
};
#define LARGEST 1e15 /* of the numbers in a view: counts are exact in a double far beyond */

/* ---- what is read --------------------------------------------------------------------------------------------------- */

#define FIELDS(X)                                                                                            \
  X(NPS, "nps")                                                                                              \
  X(NPS_ROUNDED, "nps_rounded")                                                                              \
  X(NPS_LOW, "nps_low")                                                                                      \
  X(NPS_HIGH, "nps_high")                                                                                    \
  X(N, "n")                                                                                                  \
  X(CHANGE, "change")                                                                                        \
  X(VERDICT, "change_verdict")                                                                               \
  X(RELIABLE, "reliable")                                                                                    \
  X(CSAT_MEAN, "csat_mean")                                                                                  \
  X(RESPONSE, "response_rate")                                                                               \
  X(TARGET, "target")                                                                                        \
  X(TARGET_STATE, "target_state")
enum {
#define FIELD_ENUM(symbol, name) FIELD_##symbol,
  FIELDS(FIELD_ENUM)
#undef FIELD_ENUM
      FIELD_COUNT
};
static const char *const field_names[FIELD_COUNT] = {
#define FIELD_NAME(symbol, name) name,
    FIELDS(FIELD_NAME)
#undef FIELD_NAME
};

typedef struct {
  char *id;
  int64_t n;
  bool there; /* the view exists */
  bool has[FIELD_COUNT];
  double value[FIELD_COUNT];
} table_row;

typedef struct {
  bool there;
  int64_t as_of_ms, lag_ms, instances, series;
  bool complete, lag_known, window_complete;
  int64_t covered_since_ms;
} health_facts;

typedef struct {
  const livenps_settings *settings;
  const char *rollup, *window;
  livenps_redis *redis;
  livenps_keys keys;
  health_facts health;
  table_row whole;
  table_row *rows; /* sorted by n, the largest first */
  size_t row_count;
  size_t series;
  int64_t ordered_at_ms;
  bool terminal, redraw, color, utf8;
  int width, height, drawn;
} live_table;

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

static char *view_key(const live_table *table, const char *rollup, const char *id) {
  livenps_buffer key = {0};
  livenps_buffer_print(&key, "%s%s:%s:%s", table->keys.prefix, rollup, id, table->window);
  livenps_buffer_add(&key, "", 1);
  return key.at;
}

static void free_rows(live_table *table) {
  for (size_t i = 0; i < table->row_count; i++) {
    free(table->rows[i].id);
  }
  free(table->rows);
  table->rows = NULL;
  table->row_count = 0;
}

static bool hash_value(const livenps_reply *reply, const char *field, int64_t *value) {
  for (size_t i = 0; i + 1 < livenps_reply_count(reply); i += 2) {
    livenps_text name;
    if (livenps_reply_text(livenps_reply_item(reply, i), &name) &&
        livenps_text_equal(name, livenps_text_of(field))) {
      return livenps_reply_integer(livenps_reply_item(reply, i + 1), value);
    }
  }
  return false;
}

static int read_health(live_table *table, livenps_error *error) {
  char key[200];
  int64_t value = 0;
  health_facts found = {0};
  snprintf(key, sizeof key, "%shealth", table->keys.prefix);
  const char *argv[] = {"HGETALL", key};
  livenps_reply *reply = livenps_redis_command(table->redis, error, 2, argv, NULL);
  if (!reply) {
    return -1;
  }
  found.there = hash_value(reply, "as_of_ms", &found.as_of_ms);
  found.lag_known = hash_value(reply, "lag_ms", &found.lag_ms);
  found.complete = hash_value(reply, "complete", &value) && value == 1;
  hash_value(reply, "instances", &found.instances);
  livenps_reply_free(reply);
  snprintf(key, sizeof key, "%shealth:%s", table->keys.prefix, table->window);
  reply = livenps_redis_command(table->redis, error, 2, argv, NULL);
  if (!reply) {
    return -1;
  }
  value = 0;
  found.window_complete = hash_value(reply, "complete", &value) && value == 1;
  hash_value(reply, "covered_since_ms", &found.covered_since_ms);
  livenps_reply_free(reply);
  table->health = found;
  return 0;
}

static int by_n(const void *a, const void *b) {
  const table_row *x = a, *y = b;
  if (x->n != y->n) {
    return x->n < y->n ? 1 : -1;
  }
  return strcmp(x->id, y->id);
}

static int by_id(const void *a, const void *b) {
  return strcmp(((const table_row *)a)->id, ((const table_row *)b)->id);
}

/* All ids of the roll-up, from its index. */
static int read_ids(live_table *table, table_row **out, size_t *count, livenps_error *error) {
  char key[200], cursor[32] = "0";
  table_row *rows = NULL;
  size_t used = 0, capacity = 0;
  snprintf(key, sizeof key, "%sindex:%s", table->keys.prefix, table->rollup);
  do {
    const char *argv[] = {"SSCAN", key, cursor, "COUNT", "1000"};
    livenps_reply *reply = livenps_redis_command(table->redis, error, 5, argv, NULL);
    livenps_text id, next;
    if (!reply) {
      for (size_t i = 0; i < used; i++) {
        free(rows[i].id);
      }
      free(rows);
      return -1;
    }
    const livenps_reply *some = livenps_reply_item(reply, 1);
    for (size_t i = 0; i < livenps_reply_count(some) && used < MOST_SERIES; i++) {
      if (!livenps_reply_text(livenps_reply_item(some, i), &id)) {
        continue;
      }
      if (used == capacity) {
        capacity = capacity ? capacity * 2 : 64;
        rows = livenps_resize(rows, capacity * sizeof *rows);
      }
      rows[used++] = (table_row){.id = livenps_copy(id.at, id.length)};
    }
    snprintf(cursor, sizeof cursor, "0");
    if (livenps_reply_text(livenps_reply_item(reply, 0), &next) && next.length < sizeof cursor &&
        used < MOST_SERIES) {
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

/* Which series there are and in what order. */
static int read_order(live_table *table, livenps_error *error) {
  table_row *rows;
  size_t count;
  if (read_ids(table, &rows, &count, error) != 0) {
    return -1;
  }
  int result = 0;
  for (size_t first = 0; first < count && result == 0; first += STEP_KEYS) {
    size_t step = count - first < STEP_KEYS ? count - first : STEP_KEYS;
    const char *argv[STEP_KEYS];
    for (size_t i = 0; i < step; i++) {
      argv[i] = view_key(table, table->rollup, rows[first + i].id);
    }
    livenps_reply *reply =
        livenps_redis_eval(table->redis, &counts_script, error, (int)step, (int)step, argv, NULL);
    for (size_t i = 0; i < step; i++) {
      livenps_reply_integer(livenps_reply_item(reply, i), &rows[first + i].n);
      free((void *)(uintptr_t)argv[i]);
    }
    result = reply ? 0 : -1;
    livenps_reply_free(reply);
  }
  if (result != 0) {
    for (size_t i = 0; i < count; i++) {
      free(rows[i].id);
    }
    free(rows);
    return -1;
  }
  if (count) {
    qsort(rows, count, sizeof *rows, by_n);
  }
  free_rows(table);
  table->rows = rows;
  table->row_count = table->series = count;
  while (table->row_count > MOST_ROWS) {
    free(table->rows[--table->row_count].id);
  }
  table->ordered_at_ms = livenps_monotonic_ms();
  return 0;
}

static void read_row(table_row *row, const livenps_reply *fields) {
  row->there = false;
  for (size_t f = 0; f < FIELD_COUNT; f++) {
    livenps_text text;
    bool there = livenps_reply_text(livenps_reply_item(fields, f), &text);
    double value = there ? strtod(text.at, NULL) : 0;
    /* What is no number, or no count that could be, stands there by somebody else's hand: not shown. */
    row->has[f] = there && value >= -LARGEST && value <= LARGEST;
    row->value[f] = row->has[f] ? value : 0;
    row->there |= there;
  }
  row->n = (int64_t)row->value[FIELD_N];
}

/* The numbers of the whole and of the rows that will be seen. */
static int read_views(live_table *table, size_t visible, livenps_error *error) {
  visible = visible < table->row_count ? visible : table->row_count;
  const char **argv = livenps_alloc((visible + 1 + FIELD_COUNT) * sizeof *argv);
  int result = -1;
  argv[0] = view_key(table, "all", "all");
  for (size_t i = 0; i < visible; i++) {
    argv[i + 1] = view_key(table, table->rollup, table->rows[i].id);
  }
  for (size_t f = 0; f < FIELD_COUNT; f++) {
    argv[visible + 1 + f] = field_names[f];
  }
  livenps_reply *reply = livenps_redis_eval(table->redis, &views_script, error, (int)visible + 1,
                                            (int)(visible + 1 + FIELD_COUNT), argv, NULL);
  if (reply) {
    read_row(&table->whole, livenps_reply_item(reply, 0));
    for (size_t i = 0; i < visible; i++) {
      read_row(&table->rows[i], livenps_reply_item(reply, i + 1));
    }
    /* The order is a little older than the numbers: among those that are seen it is set right. */
    if (visible) {
      qsort(table->rows, visible, sizeof *table->rows, by_n);
    }
    result = 0;
  }
  livenps_reply_free(reply);
  for (size_t i = 0; i <= visible; i++) {
    free((void *)(uintptr_t)argv[i]);
  }
  free(argv);
  return result;
}

/* ---- how it is drawn ------------------------------------------------------------------------------------------------ */

#define BOLD  "\033[1m"
#define DIM   "\033[2m"
#define RED   "\033[31m"
#define GREEN "\033[32m"
#define PLAIN "\033[0m"

/* A line under construction: columns are counted apart from bytes, because colours take none and some letters take two. */
typedef struct {
  const live_table *table;
  livenps_buffer out;
  int column;
} drawing;

static void end_line(drawing *canvas) {
  if (canvas->table->redraw) {
    livenps_buffer_print(&canvas->out, "\033[K");
  }
  livenps_buffer_print(&canvas->out, "\n");
  canvas->column = 0;
}

static void paint(drawing *canvas, const char *code) {
  if (canvas->table->color) {
    livenps_buffer_print(&canvas->out, "%s", code);
  }
}

/* Adds text up to a column (of the line); what does not fit is cut. */
static void put(drawing *canvas, const char *text, int until) {
  until = until < canvas->table->width ? until : canvas->table->width;
  mbstate_t shift = {0};
  for (size_t left = strlen(text); left;) {
    wchar_t letter;
    size_t bytes = canvas->table->utf8 ? mbrtowc(&letter, text, left, &shift) : 1;
    int columns = 1;
    if (bytes == 0 || bytes > left) {
      break;
    }
    if (canvas->table->utf8) {
      columns = wcwidth(letter);
      columns = columns < 0 ? 1 : columns;
    }
    if (canvas->column + columns > until) {
      break;
    }
    livenps_buffer_add(&canvas->out, text, bytes);
    canvas->column += columns;
    text += bytes;
    left -= bytes;
  }
}

static void pad(drawing *canvas, int until) {
  until = until < canvas->table->width ? until : canvas->table->width;
  for (; canvas->column < until; canvas->column++) {
    livenps_buffer_add(&canvas->out, " ", 1);
  }
}

static void put_left(drawing *canvas, const char *text, int width) {
  int until = canvas->column + width;
  put(canvas, text, until);
  pad(canvas, until);
}

static int columns_of(const drawing *canvas, const char *text) {
  if (!canvas->table->utf8) {
    return (int)strlen(text);
  }
  int columns = 0;
  mbstate_t shift = {0};
  for (size_t left = strlen(text); left;) {
    wchar_t letter;
    size_t bytes = mbrtowc(&letter, text, left, &shift);
    if (bytes == 0 || bytes > left) {
      break;
    }
    int width = wcwidth(letter);
    columns += width < 0 ? 1 : width;
    text += bytes;
    left -= bytes;
  }
  return columns;
}

static void put_right(drawing *canvas, const char *text, int width) {
  int until = canvas->column + width, columns = columns_of(canvas, text);
  pad(canvas, until - (columns < width ? columns : width));
  put(canvas, text, until);
  pad(canvas, until);
}

static int place_of(double score) {
  return score < -100 ? -1 : score > 100 ? BAR : (int)((score + 105) / 10);
}

/*   -100 . . . . [===#==] . . . +100: the interval, the score in it, the middle */
static void bar(const drawing *canvas, const table_row *row, char out[BAR * 4 + 1]) {
  static const char *const plain[] = {".", "|", "=", "#"}, *const pretty[] = {"·", "┼", "━", "●"};
  const char *const *glyphs = canvas->table->utf8 ? pretty : plain;
  int score = place_of(row->value[FIELD_NPS]), low = place_of(row->value[FIELD_NPS_LOW]),
      high = place_of(row->value[FIELD_NPS_HIGH]);
  out[0] = 0;
  for (int i = 0; i < BAR; i++) {
    const char *glyph = i == BAR / 2 ? glyphs[1] : glyphs[0];
    glyph = i >= low && i <= high ? glyphs[2] : glyph;
    strcat(out, i == score ? glyphs[3] : glyph);
  }
}

typedef enum {
  COLUMN_NPS,
  COLUMN_INTERVAL,
  COLUMN_BAR,
  COLUMN_N,
  COLUMN_CHANGE,
  COLUMN_CSAT,
  COLUMN_RESPONSE,
  COLUMN_TARGET,
  COLUMNS
} column;
static const struct {
  const char *title;
  int width;
  int keep; /* the column with the lowest number goes first when the terminal is narrow */
} columns[COLUMNS] = {
    {"NPS", 5, 9},       {"95 % interval", 15, 7}, {"-100       0      100", 23, 3},
    {"n", 9, 8},         {"change", 10, 6},        {"CSAT", 6, 4},
    {"response", 10, 2}, {"target", 13, 1},
};

/* Rounded for display, half away from zero, and never "-0". */
static double shown_as(double value, double unit) {
  double rounded = round(value / unit) * unit;
  return rounded == 0 ? 0 : rounded;
}

static void cell(const drawing *canvas, const table_row *row, column which, char *out, size_t size) {
  const bool *has = row->has;
  const double *value = row->value;
  out[0] = 0;
  switch (which) {
  case COLUMN_NPS:
    if (has[FIELD_NPS_ROUNDED]) {
      snprintf(out, size, "%+.0f", shown_as(value[FIELD_NPS_ROUNDED], 1));
    }
    break;
  case COLUMN_INTERVAL:
    if (!row->there) {
      snprintf(out, size, "no data yet");
    } else if (row->n == 0) {
      snprintf(out, size, "no answers");
    } else if (!has[FIELD_NPS]) {
      snprintf(out, size, "fewer than %" PRId64, canvas->table->settings->minimum_n);
    } else {
      snprintf(out, size, "%+.0f..%+.0f%s", shown_as(value[FIELD_NPS_LOW], 1),
               shown_as(value[FIELD_NPS_HIGH], 1), value[FIELD_RELIABLE] != 0 ? "" : " ?");
    }
    break;
  case COLUMN_BAR:
    if (has[FIELD_NPS]) {
      bar(canvas, row, out);
    }
    break;
  case COLUMN_N:
    if (row->there) {
      snprintf(out, size, "%" PRId64, row->n);
    }
    break;
  case COLUMN_CHANGE:
    if (has[FIELD_CHANGE]) {
      const char *arrow = value[FIELD_VERDICT] > 0   ? canvas->table->utf8 ? " ▲" : " ^"
                          : value[FIELD_VERDICT] < 0 ? canvas->table->utf8 ? " ▼" : " v"
                                                     : "  ";
      snprintf(out, size, "%+.1f%s", shown_as(value[FIELD_CHANGE], 0.1), arrow);
    }
    break;
  case COLUMN_CSAT:
    if (has[FIELD_CSAT_MEAN]) {
      snprintf(out, size, "%.2f", value[FIELD_CSAT_MEAN]);
    }
    break;
  case COLUMN_RESPONSE:
    if (has[FIELD_RESPONSE]) {
      snprintf(out, size, "%.1f %%", value[FIELD_RESPONSE]);
    }
    break;
  case COLUMN_TARGET:
    if (has[FIELD_TARGET]) {
      snprintf(out, size, "%+.0f %s", value[FIELD_TARGET],
               !has[FIELD_TARGET_STATE]        ? ""
               : value[FIELD_TARGET_STATE] > 0 ? "met"
               : value[FIELD_TARGET_STATE] < 0 ? "missed"
                                               : "open");
    }
    break;
  case COLUMNS: break;
  }
}

static const char *row_color(const table_row *row, column which) {
  switch (which) {
  case COLUMN_CHANGE: return row->value[FIELD_VERDICT] > 0 ? GREEN : row->value[FIELD_VERDICT] < 0 ? RED : "";
  case COLUMN_TARGET:
    return row->value[FIELD_TARGET_STATE] > 0 ? GREEN : row->value[FIELD_TARGET_STATE] < 0 ? RED : "";
  default: return row->has[FIELD_NPS] ? "" : DIM;
  }
}

static void draw_row(drawing *canvas, const table_row *row, const char *name, int name_width,
                     const bool shown[COLUMNS], bool bold) {
  char text[BAR * 4 + 64];
  if (bold) {
    paint(canvas, BOLD);
  }
  put_left(canvas, name, name_width);
  for (column which = 0; which < COLUMNS; which++) {
    if (shown[which]) {
      const char *color = row_color(row, which);
      cell(canvas, row, which, text, sizeof text);
      paint(canvas, color);
      put_right(canvas, text, columns[which].width);
      if (*color) {
        paint(canvas, PLAIN);
        paint(canvas, bold ? BOLD : "");
      }
    }
  }
  paint(canvas, bold ? PLAIN : "");
  end_line(canvas);
}

static void draw_head(drawing *canvas, const char *away) {
  const live_table *table = canvas->table;
  const health_facts *health = &table->health;
  char text[640], time[32], since[32], shown[300];
  snprintf(text, sizeof text, "livenps  namespace %s  %s over %s", table->settings->namespace_,
           livenps_printable(shown, sizeof shown, table->rollup, strlen(table->rollup)), table->window);
  paint(canvas, BOLD);
  put(canvas, text, table->width);
  paint(canvas, PLAIN);
  end_line(canvas);
  if (away) {
    paint(canvas, RED);
    snprintf(text, sizeof text, "Redis is away, trying again: %s", away);
  } else if (!health->there && table->row_count == 0 && !table->whole.there) {
    paint(canvas, RED);
    snprintf(text, sizeof text,
             "no data yet, and nobody writes (health is gone): is livenps-consumer run running?");
  } else if (!health->there) {
    paint(canvas, RED);
    snprintf(text, sizeof text, "nobody writes (health is gone): what follows is old");
  } else {
    int used = snprintf(text, sizeof text, "as of %s  ", livenps_time_print(health->as_of_ms, time));
    if (health->lag_known) {
      used +=
          snprintf(text + used, sizeof text - (size_t)used, "lag %.1f s  ", (double)health->lag_ms / 1000);
    } else {
      used += snprintf(text + used, sizeof text - (size_t)used, "lag not known  ");
    }
    used += snprintf(text + used, sizeof text - (size_t)used, "instances %" PRId64 "  ", health->instances);
    paint(canvas, health->window_complete ? GREEN : RED);
    if (health->window_complete) {
      snprintf(text + used, sizeof text - (size_t)used, "complete");
    } else if (!health->complete) {
      snprintf(text + used, sizeof text - (size_t)used, "not complete: %s",
               health->instances > 0 ? "still reading" : "nobody reads (yet)");
    } else {
      snprintf(text + used, sizeof text - (size_t)used, "not complete: known since %s only",
               livenps_time_print(health->covered_since_ms, since));
    }
  }
  put(canvas, text, table->width);
  paint(canvas, PLAIN);
  end_line(canvas);
  end_line(canvas);
}

static void draw(live_table *table, const char *away, size_t visible) {
  drawing canvas = {.table = table};
  bool shown[COLUMNS];
  int width = 0, name_width = 16;
  for (column which = 0; which < COLUMNS; which++) {
    shown[which] = true;
    width += columns[which].width;
  }
  char text[600];
  for (size_t i = 0; i < visible && i < table->row_count; i++) {
    int wide = columns_of(&canvas, table->rows[i].id) + 1;
    name_width = wide > name_width ? wide : name_width;
  }
  name_width = name_width > 40 ? 40 : name_width;
  while (name_width + width > table->width) {
    column first = COLUMNS;
    for (column which = 0; which < COLUMNS; which++) {
      first = shown[which] && (first == COLUMNS || columns[which].keep < columns[first].keep) ? which : first;
    }
    if (first == COLUMNS) {
      break;
    }
    shown[first] = false;
    width -= columns[first].width;
  }
  if (table->redraw && table->drawn) {
    livenps_buffer_print(&canvas.out, "\033[%dA\r", table->drawn);
  }
  draw_head(&canvas, away);
  paint(&canvas, DIM);
  put_left(&canvas, table->rollup, name_width);
  for (column which = 0; which < COLUMNS; which++) {
    if (shown[which]) {
      put_right(&canvas, columns[which].title, columns[which].width);
    }
  }
  paint(&canvas, PLAIN);
  end_line(&canvas);
  draw_row(&canvas, &table->whole, "all", name_width, shown, true);
  int lines = 5;
  for (size_t i = 0; i < visible && i < table->row_count; i++, lines++) {
    livenps_printable(text, sizeof text, table->rows[i].id, strlen(table->rows[i].id));
    draw_row(&canvas, &table->rows[i], text, name_width, shown, false);
  }
  if (table->series > visible) {
    snprintf(text, sizeof text, "... and %zu more", table->series - visible);
    put(&canvas, text, table->width);
    end_line(&canvas);
    lines++;
  }
  if (table->redraw) {
    livenps_buffer_print(&canvas.out, "\033[J");
  }
  table->drawn = lines;
  fwrite(canvas.out.at, 1, canvas.out.length, stdout);
  fflush(stdout);
  livenps_buffer_free(&canvas.out);
}

/* ---- the loop ------------------------------------------------------------------------------------------------------- */

static size_t measure(live_table *table) {
  struct winsize size;
  table->width = PLAIN_WIDTH;
  table->height = PLAIN_ROWS + 7;
  if (table->terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0) {
    table->width = size.ws_col;
    if (table->redraw) {
      table->height = size.ws_row;
    }
  }
  /* Head, titles, the whole, a line for the rest, and the cursor's own. */
  return table->height > 8 ? (size_t)table->height - 7 : 1;
}

static int refresh(live_table *table, size_t visible, livenps_error *error) {
  if (read_health(table, error) != 0) {
    return -1;
  }
  if ((!table->ordered_at_ms || livenps_monotonic_ms() - table->ordered_at_ms >= ORDER_MS) &&
      read_order(table, error) != 0) {
    return -1;
  }
  return read_views(table, visible, error);
}

static void wait_until(int64_t due_ms) {
  while (!livenps_stop && livenps_monotonic_ms() < due_ms) {
    int64_t left = due_ms - livenps_monotonic_ms();
    left = left > STOP_MS ? STOP_MS : left > 0 ? left : 0;
    nanosleep(&(struct timespec){0, left * 1000000L}, NULL);
  }
}

/* The roll-up and window must be ones that the settings have, else a typing error would look like silence. */
static int check_names(const live_table *table, livenps_error *error) {
  bool known_rollup = false, known_window = false;
  livenps_buffer rollups = {0}, windows = {0};
  for (size_t i = 0; i < table->settings->rollups.count; i++) {
    known_rollup |= strcmp(table->settings->rollups.at[i], table->rollup) == 0;
    livenps_buffer_print(&rollups, "%s%s", i ? ", " : "", table->settings->rollups.at[i]);
  }
  for (size_t i = 0; i < table->settings->windows.count; i++) {
    livenps_window window;
    if (livenps_window_parse(table->settings->windows.at[i], &window, error) == 0) {
      known_window |= strcmp(window.name, table->window) == 0;
      livenps_buffer_print(&windows, "%s%s", i ? ", " : "", window.name);
    }
  }
  if (!known_rollup) {
    livenps_fail(error, LIVENPS_E_USAGE, "no roll-up '%s'; there are: %.*s", table->rollup,
                 (int)rollups.length, rollups.at);
  } else if (!known_window) {
    livenps_fail(error, LIVENPS_E_USAGE, "no window '%s'; there are: %.*s", table->window,
                 (int)windows.length, windows.at);
  }
  livenps_buffer_free(&rollups);
  livenps_buffer_free(&windows);
  return known_rollup && known_window ? 0 : -1;
}

int livenps_table(const livenps_settings *settings, const livenps_table_options *options) {
  livenps_error error = {0};
  const char *no_color = getenv("NO_COLOR"), *kind = getenv("TERM");
  live_table table = {.settings = settings,
                      .rollup = options->rollup && *options->rollup ? options->rollup : "touchpoint",
                      .window =
                          options->window && *options->window ? options->window : settings->table_window};
  int code = 0;
  setlocale(LC_CTYPE, "");
  table.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
  table.terminal = isatty(STDOUT_FILENO) == 1;
  table.redraw = table.terminal && !options->once && kind && strcmp(kind, "dumb") != 0;
  table.color = table.terminal && kind && strcmp(kind, "dumb") != 0 && !(no_color && *no_color);
  livenps_keys_make(&table.keys, settings->namespace_);
  bool once = options->once || !table.terminal;
  int64_t end_ms = options->seconds > 0 ? livenps_monotonic_ms() + options->seconds * 1000 : INT64_MAX;
  if (check_names(&table, &error) != 0 || livenps_redis_open(&table.redis, settings, &error) != 0 ||
      livenps_redis_connect(table.redis, &error) != 0) {
    goto failed;
  }
  if (table.redraw) {
    fputs("\033[?25l", stdout); /* a cursor that jumps about is no help */
  }
  while (!livenps_stop && livenps_monotonic_ms() < end_ms) {
    int64_t due_ms = livenps_monotonic_ms() + DRAW_MS;
    size_t visible = measure(&table);
    livenps_error_clear(&error);
    bool away = refresh(&table, visible, &error) != 0;
    if (away && (once || error.code != LIVENPS_E_LOST)) {
      goto failed;
    }
    draw(&table, away ? error.text : NULL, visible);
    if (ferror(stdout)) {
      livenps_fail(&error, LIVENPS_E_LOST, "standard output cannot be written to");
      goto failed;
    }
    if (once) {
      break;
    }
    wait_until(due_ms < end_ms ? due_ms : end_ms);
  }
  goto done;
failed:
  livenps_log(LIVENPS_ERROR, "table", "%s", error.text);
  code = error.code;
done:
  if (table.redraw) {
    fputs("\033[?25h", stdout);
    fflush(stdout);
  }
  free_rows(&table);
  livenps_redis_close(table.redis);
  return code;
}
