#include "publish_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  TREND_ENTRIES = 120, /* entries of a trend per window, about */
  TREND_STEP = 2000,   /* trend entries a tick, so that a back-fill is spread over ticks */
  TRIM_EACH =
      8, /* Redis reads through a stream's oldest entries for a trim: not for every point of a series that goes on */
};

void livenps_trend_forget(livenps_trend *what) {
  for (size_t i = 0; i < what->count; i++) {
    free(what->with_data[i]);
  }
  free(what->with_data);
  what->with_data = NULL;
  what->count = 0;
  what->counted = false;
}

void livenps_trends_drop(livenps_publisher *publisher, size_t rollup, const char *id) {
  for (size_t i = 0; i < publisher->trend_count; i++) {
    livenps_trend *each = &publisher->trends[i];
    char **found = NULL;
    if (each->rollup == rollup && each->count) {
      found = bsearch(&id, each->with_data, each->count, sizeof *each->with_data, livenps_ids_order);
    }
    if (found) {
      free(*found);
      each->count--;
      memmove(found, found + 1, (size_t)(each->with_data + each->count - found) * sizeof *found);
    }
  }
}

void livenps_trends_open(livenps_publisher *publisher) {
  const livenps_publisher_config *config = &publisher->config;
  const livenps_list *wanted = &config->settings->trend_rollups;
  publisher->trends = livenps_alloc(config->rollup_count * config->window_count * sizeof *publisher->trends);
  for (size_t r = 0; r < config->rollup_count; r++) {
    bool listed = false;
    for (size_t i = 0; i < wanted->count; i++) {
      listed |= strcmp(wanted->at[i], config->rollups[r].name) == 0;
    }
    for (size_t w = 0; listed && w < config->window_count; w++) {
      int64_t slices = config->windows[w].length_ms / config->windows[w].slice_ms;
      publisher->trends[publisher->trend_count++] = (livenps_trend){
          .rollup = r,
          .window = w,
          .spacing_ms = config->windows[w].slice_ms * ((slices + TREND_ENTRIES - 1) / TREND_ENTRIES)};
    }
  }
}

void livenps_trends_close(livenps_publisher *publisher) {
  for (size_t i = 0; i < publisher->trend_count; i++) {
    livenps_trend_forget(&publisher->trends[i]);
  }
  free(publisher->trends);
}

livenps_trend *livenps_trend_find(livenps_publisher *publisher, size_t rollup, size_t window) {
  for (size_t i = 0; i < publisher->trend_count; i++) {
    if (publisher->trends[i].rollup == rollup && publisher->trends[i].window == window) {
      return &publisher->trends[i];
    }
  }
  return NULL;
}

typedef struct {
  livenps_publisher *publisher;
  const livenps_trend *trend;
  int64_t end_ms;
  bool complete;
  bool first; /* that this publisher writes: nobody knows when the stream expires */
  livenps_ids ids;
  size_t written;
  int result;
} point;

/* known: the last point was this publisher's too, so that the stream is there and renewed with the view. */
static int write_point(point *at, const livenps_view *view, bool known) {
  livenps_publisher *publisher = at->publisher;
  const livenps_window *window = &publisher->config.windows[view->window];
  livenps_ops *ops = &publisher->ops;
  livenps_view_texts texts;
  livenps_key_text key;
  char id[32], oldest[32];
  livenps_view_print(view, publisher->config.settings->minimum_n, &texts);
  livenps_publish_trend_key(publisher, &key, publisher->config.rollups[view->rollup].name, view->id,
                            window->name);
  snprintf(id, sizeof id, "%" PRId64 "-0", at->end_ms);
  snprintf(oldest, sizeof oldest, "%" PRId64,
           at->end_ms > window->length_ms ? at->end_ms - window->length_ms : 0);
  livenps_ops_add(ops, "XADD", 4);
  livenps_ops_add(ops, key.text, key.length);
  if (!known || at->end_ms / at->trend->spacing_ms % TRIM_EACH == 0) {
    livenps_ops_add(ops, "MINID", 5);
    livenps_ops_add(ops, "=", 1);
    livenps_ops_add(ops, oldest, strlen(oldest));
  }
  livenps_ops_add(ops, id, strlen(id));
  for (size_t i = 0; i < LIVENPS_VIEW_FIELDS; i++) {
    const char *text = texts.text[i][0] ? texts.text[i] : "NaN";
    livenps_ops_add(ops, livenps_view_fields[i], strlen(livenps_view_fields[i]));
    livenps_ops_add(ops, text, strlen(text));
  }
  livenps_ops_add(ops, "complete", 8);
  livenps_ops_add(ops, at->complete ? "1" : "0", 1);
  livenps_ops_end(ops);
  if (!known) {
    livenps_publish_expire(publisher, key.text);
  }
  at->written++;
  return livenps_publish_flush_when_full(publisher);
}

static int point_view(void *opaque, const livenps_view *view) {
  point *at = opaque;
  livenps_ids_add(&at->ids, view->id, strlen(view->id));
  at->result =
      write_point(at, view, !at->first && livenps_ids_has(at->trend->with_data, at->trend->count, view->id));
  return at->result;
}

static int point_id(void *opaque, const livenps_view *view) {
  point *at = opaque;
  livenps_ids_add(&at->ids, view->id, strlen(view->id));
  return 0;
}

/* A series that had answers at the last point and has nothing now gets one closing point, so that a line in a chart ends at 0 and does
 * not hang in the air. */
static int close_point(point *at, const char *id) {
  const livenps_window *window = &at->publisher->config.windows[at->trend->window];
  livenps_view view = {.rollup = at->trend->rollup,
                       .window = at->trend->window,
                       .id = id,
                       .as_of_ms = at->end_ms - 1,
                       .window_start_ms = at->end_ms - window->length_ms,
                       .window_ms = window->length_ms,
                       .slice_ms = window->slice_ms};
  return write_point(at, &view, false);
}

/* One point of one trend for all its series. Adds to *written. */
static int publish_point(livenps_publisher *publisher, livenps_state *state, const livenps_wholeness *whole,
                         livenps_trend *each, int64_t end_ms, size_t *written) {
  const livenps_window *window = &publisher->config.windows[each->window];
  char field[128], value[80];
  livenps_key_text key;
  int64_t since = whole->covered_since, added = livenps_state_window_since(state, each->rollup, each->window);
  since = added > since ? added : since;
  const bool first = !each->counted;
  if (first) {
    /* A new holder does not know which series the last point had. */
    point before = {.publisher = publisher, .trend = each};
    int64_t last_ms = end_ms - each->spacing_ms;
    if (last_ms > whole->clock - window->length_ms) {
      const livenps_visitor visitor = {.view = point_id, .opaque = &before};
      livenps_state_views_at(state, each->rollup, each->window, last_ms, &visitor);
    }
    livenps_ids_sort(&before.ids);
    each->with_data = before.ids.at;
    each->count = before.ids.count;
    each->counted = true;
  }
  point at = {.publisher = publisher,
              .trend = each,
              .end_ms = end_ms,
              .complete = whole->low >= end_ms && since <= end_ms - window->length_ms,
              .first = first};
  const livenps_visitor visitor = {.view = point_view, .opaque = &at};
  livenps_state_views_at(state, each->rollup, each->window, end_ms, &visitor);
  livenps_ids_sort(&at.ids);
  for (size_t i = 0; at.result == 0 && i < each->count; i++) {
    if (!livenps_ids_has(at.ids.at, at.ids.count, each->with_data[i])) {
      at.result = close_point(&at, each->with_data[i]);
    }
  }
  livenps_trend_forget(each);
  each->with_data = at.ids.at;
  each->count = at.ids.count;
  each->counted = true;
  if (at.result != 0) {
    return -1;
  }
  /* After the points in the same or a later step: what a failover loses is written again, what it keeps is skipped. */
  livenps_publish_key(publisher, &key, "published", NULL, NULL);
  snprintf(field, sizeof field, "%s:%s", publisher->config.rollups[each->rollup].name, window->name);
  snprintf(value, sizeof value, "%s %" PRId64, publisher->holder->lineage, end_ms);
  livenps_ops_command(&publisher->ops, "HSET", key.text, field, value, NULL);
  each->last_ms = end_ms;
  *written += at.written + 1;
  return livenps_publish_flush_when_full(publisher);
}

/* The end of the next point that is due, or 0. Live, a point that nothing waits for any more is written flagged; so soon after the start
 * that would flag everything that a catch-up is about to complete, so the same time is waited then. */
static int64_t due_point(const livenps_publisher *publisher, const livenps_pulse *pulse,
                         const livenps_wholeness *whole, const livenps_trend *each) {
  const livenps_window *window = &publisher->config.windows[each->window];
  int64_t wait = publisher->config.settings->trend_wait_ms;
  /* Older points have left the state, and would be trimmed at once. */
  int64_t first = livenps_floor_to(whole->clock - window->length_ms, each->spacing_ms) + each->spacing_ms;
  int64_t end = each->last_ms == INT64_MIN ? first : each->last_ms + each->spacing_ms;
  end = end < first ? first : end;
  if (end > whole->clock || end <= 0) {
    return 0;
  }
  bool passed = whole->low >= end;
  bool waited = !publisher->config.replay && whole->clock >= end + wait &&
                whole->clock >= publisher->active_since_ms + wait;
  return passed || waited || pulse->finishing ? end : 0;
}

int livenps_publish_trends(livenps_publisher *publisher, livenps_state *state, const livenps_pulse *pulse,
                           const livenps_wholeness *whole) {
  size_t written = 0, idle = 0;
  while (idle < publisher->trend_count && (written < TREND_STEP || pulse->finishing)) {
    livenps_trend *each = &publisher->trends[publisher->trend_next % publisher->trend_count];
    int64_t end = due_point(publisher, pulse, whole, each);
    if (end == 0) {
      idle++;
      publisher->trend_next++;
      continue;
    }
    idle = 0;
    if (publish_point(publisher, state, whole, each, end, &written) != 0) {
      return -1;
    }
    publisher->trend_next++;
  }
  return 0;
}
