#include "commands.h"
#include "views.h"

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
  ORDER_MS = 2000,  /* how often the order is found out, which asks for every series */
  MOST_ROWS = 1000, /* of one drawing */
  PLAIN_ROWS = 50,  /* without a terminal */
  PLAIN_WIDTH = 132,
  STOP_MS = 100,
  BAR = 21, /* -100..100 in steps of 10 */
};

/* ---- what is read --------------------------------------------------------------------------------------------------- */

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
  livenps_row whole;
  livenps_row *rows; /* sorted by n, the largest first */
  size_t row_count;
  size_t series;
  int64_t ordered_at_ms;
  bool terminal, redraw, color, utf8;
  int width, height, drawn;
} live_table;

static void free_rows(live_table *table) {
  livenps_rows_free(table->rows, table->row_count);
  table->rows = NULL;
  table->row_count = 0;
}

static int read_health(live_table *table, livenps_error *error) {
  int64_t value = 0;
  health_facts found = {0};
  livenps_reply *reply = livenps_views_health(table->redis, &table->keys, NULL, error);
  if (!reply) {
    return -1;
  }
  found.there = livenps_hash_value(reply, "as_of_ms", &found.as_of_ms);
  found.lag_known = livenps_hash_value(reply, "lag_ms", &found.lag_ms);
  found.complete = livenps_hash_value(reply, "complete", &value) && value == 1;
  livenps_hash_value(reply, "instances", &found.instances);
  livenps_reply_free(reply);
  reply = livenps_views_health(table->redis, &table->keys, table->window, error);
  if (!reply) {
    return -1;
  }
  value = 0;
  found.window_complete = livenps_hash_value(reply, "complete", &value) && value == 1;
  livenps_hash_value(reply, "covered_since_ms", &found.covered_since_ms);
  livenps_reply_free(reply);
  table->health = found;
  return 0;
}

static int by_n(const void *a, const void *b) {
  const livenps_row *x = a, *y = b;
  if (x->n != y->n) {
    return x->n < y->n ? 1 : -1;
  }
  return strcmp(x->id, y->id);
}

/* Which series there are and in what order. */
static int read_order(live_table *table, livenps_error *error) {
  livenps_row *rows;
  size_t count;
  if (livenps_views_ids(table->redis, &table->keys, table->rollup, &rows, &count, error) != 0) {
    return -1;
  }
  if (livenps_views_counts(table->redis, &table->keys, table->rollup, table->window, rows, count, error) !=
      0) {
    livenps_rows_free(rows, count);
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

/* The numbers of the whole and of the rows that will be seen. */
static int read_views(live_table *table, size_t visible, livenps_error *error) {
  static char whole[] = "all";
  visible = visible < table->row_count ? visible : table->row_count;
  livenps_row **seen = livenps_alloc((visible + 1) * sizeof *seen);
  for (size_t i = 0; i < visible; i++) {
    seen[i] = &table->rows[i];
  }
  table->whole.id = whole;
  livenps_row *only = &table->whole;
  int result = livenps_views_read(table->redis, &table->keys, "all", table->window, &only, 1, error);
  if (result == 0) {
    result =
        livenps_views_read(table->redis, &table->keys, table->rollup, table->window, seen, visible, error);
  }
  free(seen);
  /* The order is a little older than the numbers: among those that are seen it is set right. */
  if (result == 0 && visible) {
    qsort(table->rows, visible, sizeof *table->rows, by_n);
  }
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
static void bar(const drawing *canvas, const livenps_row *row, char out[BAR * 4 + 1]) {
  static const char *const plain[] = {".", "|", "=", "#"}, *const pretty[] = {"·", "┼", "━", "●"};
  const char *const *glyphs = canvas->table->utf8 ? pretty : plain;
  int score = place_of(row->value[LIVENPS_FIELD_NPS]), low = place_of(row->value[LIVENPS_FIELD_NPS_LOW]),
      high = place_of(row->value[LIVENPS_FIELD_NPS_HIGH]);
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

static void cell(const drawing *canvas, const livenps_row *row, column which, char *out, size_t size) {
  const bool *has = row->has;
  const double *value = row->value;
  out[0] = 0;
  switch (which) {
  case COLUMN_NPS:
    if (has[LIVENPS_FIELD_NPS_ROUNDED]) {
      snprintf(out, size, "%+.0f", shown_as(value[LIVENPS_FIELD_NPS_ROUNDED], 1));
    }
    break;
  case COLUMN_INTERVAL:
    if (!row->there) {
      snprintf(out, size, "no data yet");
    } else if (row->n == 0) {
      snprintf(out, size, "no answers");
    } else if (!has[LIVENPS_FIELD_NPS]) {
      snprintf(out, size, "fewer than %" PRId64, canvas->table->settings->minimum_n);
    } else {
      snprintf(out, size, "%+.0f..%+.0f%s", shown_as(value[LIVENPS_FIELD_NPS_LOW], 1),
               shown_as(value[LIVENPS_FIELD_NPS_HIGH], 1), value[LIVENPS_FIELD_RELIABLE] != 0 ? "" : " ?");
    }
    break;
  case COLUMN_BAR:
    if (has[LIVENPS_FIELD_NPS]) {
      bar(canvas, row, out);
    }
    break;
  case COLUMN_N:
    if (row->there) {
      snprintf(out, size, "%" PRId64, row->n);
    }
    break;
  case COLUMN_CHANGE:
    if (has[LIVENPS_FIELD_CHANGE]) {
      const char *arrow = value[LIVENPS_FIELD_VERDICT] > 0   ? canvas->table->utf8 ? " ▲" : " ^"
                          : value[LIVENPS_FIELD_VERDICT] < 0 ? canvas->table->utf8 ? " ▼" : " v"
                                                             : "  ";
      snprintf(out, size, "%+.1f%s", shown_as(value[LIVENPS_FIELD_CHANGE], 0.1), arrow);
    }
    break;
  case COLUMN_CSAT:
    if (has[LIVENPS_FIELD_CSAT_MEAN]) {
      snprintf(out, size, "%.2f", value[LIVENPS_FIELD_CSAT_MEAN]);
    }
    break;
  case COLUMN_RESPONSE:
    if (has[LIVENPS_FIELD_RESPONSE]) {
      snprintf(out, size, "%.1f %%", value[LIVENPS_FIELD_RESPONSE]);
    }
    break;
  case COLUMN_TARGET:
    if (has[LIVENPS_FIELD_TARGET]) {
      snprintf(out, size, "%+.0f %s", value[LIVENPS_FIELD_TARGET],
               !has[LIVENPS_FIELD_TARGET_STATE]        ? ""
               : value[LIVENPS_FIELD_TARGET_STATE] > 0 ? "met"
               : value[LIVENPS_FIELD_TARGET_STATE] < 0 ? "missed"
                                                       : "open");
    }
    break;
  case COLUMNS: break;
  }
}

static const char *row_color(const livenps_row *row, column which) {
  switch (which) {
  case COLUMN_CHANGE:
    return row->value[LIVENPS_FIELD_VERDICT] > 0 ? GREEN : row->value[LIVENPS_FIELD_VERDICT] < 0 ? RED : "";
  case COLUMN_TARGET:
    return row->value[LIVENPS_FIELD_TARGET_STATE] > 0   ? GREEN
           : row->value[LIVENPS_FIELD_TARGET_STATE] < 0 ? RED
                                                        : "";
  default: return row->has[LIVENPS_FIELD_NPS] ? "" : DIM;
  }
}

static void draw_row(drawing *canvas, const livenps_row *row, const char *name, int name_width,
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
  if (livenps_views_check(settings, table.rollup, table.window, &error) != 0 ||
      livenps_redis_open(&table.redis, settings, &error) != 0 ||
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
