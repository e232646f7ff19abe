#include "publish_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* `published` (hash) remembers which roll-ups and windows have keys: field "<roll-up>:<window>", value "<lineage> <end>" of the trend's last
 * point, "-" without trend. With the index sets it leads to every view without walking the keys of the server. */
typedef struct {
  char *rollup, *window, *trend; /* trend: the value */
} pair_name;

static int fetch_published(livenps_publisher *publisher, pair_name **out, size_t *count) {
  livenps_key_text key;
  livenps_publish_key(publisher, &key, "published", NULL, NULL);
  const char *argv[] = {"HGETALL", key.text};
  livenps_reply *reply = livenps_redis_command(publisher->config.redis, publisher->error, 2, argv, NULL);
  if (!reply) {
    return -1;
  }
  size_t fields = livenps_reply_count(reply) / 2;
  pair_name *names = livenps_alloc((fields + 1) * sizeof *names);
  size_t found = 0;
  for (size_t i = 0; i < fields; i++) {
    livenps_text field, value;
    if (!livenps_reply_text(livenps_reply_item(reply, 2 * i), &field) ||
        !livenps_reply_text(livenps_reply_item(reply, 2 * i + 1), &value)) {
      continue;
    }
    const char *colon = memrchr(field.at, ':', field.length);
    if (colon) {
      names[found++] = (pair_name){livenps_copy(field.at, (size_t)(colon - field.at)),
                                   livenps_copy(colon + 1, (size_t)(field.at + field.length - colon - 1)),
                                   livenps_copy(value.at, value.length)};
    }
  }
  livenps_reply_free(reply);
  *out = names;
  *count = found;
  return 0;
}

static void free_pairs(pair_name *pairs, size_t count) {
  for (size_t i = 0; i < count; i++) {
    free(pairs[i].rollup);
    free(pairs[i].window);
    free(pairs[i].trend);
  }
  free(pairs);
}

void livenps_ids_add(livenps_ids *list, const char *at, size_t length) {
  if (list->count == list->capacity) {
    list->capacity = list->capacity ? list->capacity * 2 : 64;
    list->at = livenps_resize(list->at, list->capacity * sizeof *list->at);
  }
  list->at[list->count++] = livenps_copy(at, length);
}

void livenps_ids_free(livenps_ids *list) {
  for (size_t i = 0; i < list->count; i++) {
    free(list->at[i]);
  }
  free(list->at);
  *list = (livenps_ids){0};
}

int livenps_ids_order(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

void livenps_ids_sort(livenps_ids *list) {
  if (list->count) {
    qsort(list->at, list->count, sizeof *list->at, livenps_ids_order);
  }
}

bool livenps_ids_has(char *const *sorted, size_t count, const char *id) {
  return count && bsearch(&id, sorted, count, sizeof *sorted, livenps_ids_order);
}

static int collect_id(void *opaque, const livenps_view *view) {
  livenps_ids_add(opaque, view->id, strlen(view->id));
  return 0;
}

/* All members of a set, in steps that do not hold up Redis. May name one twice. */
static int fetch_index(livenps_publisher *publisher, const char *rollup, livenps_ids *ids) {
  livenps_key_text key;
  char cursor[32] = "0";
  livenps_publish_key(publisher, &key, "index", rollup, NULL);
  do {
    const char *argv[] = {"SSCAN", key.text, cursor, "COUNT", "1000"};
    livenps_reply *reply = livenps_redis_command(publisher->config.redis, publisher->error, 5, argv, NULL);
    livenps_text next, id;
    if (!reply) {
      return -1;
    }
    const livenps_reply *some = livenps_reply_item(reply, 1);
    for (size_t i = 0; i < livenps_reply_count(some); i++) {
      if (livenps_reply_text(livenps_reply_item(some, i), &id)) {
        livenps_ids_add(ids, id.at, id.length);
      }
    }
    snprintf(cursor, sizeof cursor, "0");
    if (livenps_reply_text(livenps_reply_item(reply, 0), &next) && next.length < sizeof cursor) {
      memcpy(cursor, next.at, next.length);
      cursor[next.length] = 0;
    }
    livenps_reply_free(reply);
  } while (strcmp(cursor, "0") != 0);
  return 0;
}

static size_t find_rollup(const livenps_publisher *publisher, const char *name) {
  size_t i = 0;
  while (i < publisher->config.rollup_count && strcmp(publisher->config.rollups[i].name, name) != 0) {
    i++;
  }
  return i;
}

static size_t find_window(const livenps_publisher *publisher, const char *name) {
  size_t i = 0;
  while (i < publisher->config.window_count && strcmp(publisher->config.windows[i].name, name) != 0) {
    i++;
  }
  return i;
}

/* Everything of one roll-up that stood there before and shall not stand any longer. */
static int remove_old_ids(livenps_publisher *publisher, livenps_state *state, const char *rollup,
                          const pair_name *pairs, size_t pair_count) {
  size_t r = find_rollup(publisher, rollup);
  bool known = r < publisher->config.rollup_count;
  livenps_ids old = {0}, now = {0};
  int result = -1;
  if (fetch_index(publisher, rollup, &old) != 0) {
    goto done;
  }
  if (known) {
    const livenps_visitor visitor = {.view = collect_id, .opaque = &now};
    livenps_state_views(state, r, 0, &visitor);
    livenps_ids_sort(&now);
  }
  for (size_t i = 0; i < old.count; i++) {
    bool alive = known && livenps_ids_has(now.at, now.count, old.at[i]);
    for (size_t p = 0; p < pair_count; p++) {
      if (strcmp(pairs[p].rollup, rollup) != 0) {
        continue;
      }
      size_t w = find_window(publisher, pairs[p].window);
      const livenps_trend *wanted =
          known && w < publisher->config.window_count ? livenps_trend_find(publisher, r, w) : NULL;
      if (!alive || w == publisher->config.window_count) {
        livenps_publish_remove_window(publisher, rollup, old.at[i], pairs[p].window);
      } else if (strcmp(pairs[p].trend, "-") != 0 && (!wanted || wanted->stale)) {
        livenps_key_text key;
        livenps_publish_trend_key(publisher, &key, rollup, old.at[i], pairs[p].window);
        livenps_ops_command(&publisher->ops, "UNLINK", key.text, NULL);
      }
    }
    if (!alive) {
      livenps_publish_remove_from_index(publisher, rollup, old.at[i]);
    }
    if (livenps_publish_flush_when_full(publisher) != 0) {
      goto done;
    }
  }
  result = 0;
done:
  livenps_ids_free(&old);
  livenps_ids_free(&now);
  return result;
}

/* Where the trends stand, from `published`; then removes what is not wanted any more. */
int livenps_publish_take_over(livenps_publisher *publisher, livenps_state *state) {
  pair_name *pairs = NULL;
  size_t count = 0;
  int result = -1;
  livenps_key_text key;
  if (fetch_published(publisher, &pairs, &count) != 0) {
    return -1;
  }
  for (size_t i = 0; i < publisher->trend_count; i++) {
    livenps_trend *each = &publisher->trends[i];
    livenps_trend_forget(each);
    each->last_ms = INT64_MIN;
    each->stale = true;
    for (size_t p = 0; p < count; p++) {
      char lineage[33];
      long long end;
      if (strcmp(pairs[p].rollup, publisher->config.rollups[each->rollup].name) == 0 &&
          strcmp(pairs[p].window, publisher->config.windows[each->window].name) == 0 &&
          sscanf(pairs[p].trend, "%32s %lld", lineage, &end) == 2 &&
          strcmp(lineage, publisher->holder->lineage) == 0) {
        each->last_ms = livenps_floor_to(end, each->spacing_ms); /* the spacing may have been another */
        each->stale = false;
      }
    }
  }
  for (size_t p = 0; p < count; p++) {
    bool first = true;
    for (size_t q = 0; q < p; q++) {
      first &= strcmp(pairs[p].rollup, pairs[q].rollup) != 0;
    }
    if (first && remove_old_ids(publisher, state, pairs[p].rollup, pairs, count) != 0) {
      goto done;
    }
  }
  /* The names of what is about to be published stand there before the first view does. */
  livenps_publish_key(publisher, &key, "published", NULL, NULL);
  for (size_t p = 0; p < count; p++) {
    size_t r = find_rollup(publisher, pairs[p].rollup), w = find_window(publisher, pairs[p].window);
    if (r == publisher->config.rollup_count || w == publisher->config.window_count) {
      char field[128];
      livenps_key_text gone;
      snprintf(field, sizeof field, "%s:%s", pairs[p].rollup, pairs[p].window);
      livenps_ops_command(&publisher->ops, "HDEL", key.text, field, NULL);
      livenps_publish_key(publisher, &gone, "rank", pairs[p].rollup, pairs[p].window);
      livenps_ops_command(&publisher->ops, "UNLINK", gone.text, NULL);
      if (w == publisher->config.window_count) {
        livenps_publish_key(publisher, &gone, "health", pairs[p].window, NULL);
        livenps_ops_command(&publisher->ops, "UNLINK", gone.text, NULL);
      }
    }
  }
  for (size_t r = 0; r < publisher->config.rollup_count; r++) {
    for (size_t w = 0; w < publisher->config.window_count; w++) {
      const livenps_trend *wanted = livenps_trend_find(publisher, r, w);
      char field[128], value[80] = "-";
      snprintf(field, sizeof field, "%s:%s", publisher->config.rollups[r].name,
               publisher->config.windows[w].name);
      if (wanted) {
        snprintf(value, sizeof value, "%s %" PRId64, publisher->holder->lineage,
                 wanted->last_ms == INT64_MIN ? 0 : wanted->last_ms);
      }
      livenps_ops_command(&publisher->ops, "HSET", key.text, field, value, NULL);
    }
  }
  result = 0;
done:
  free_pairs(pairs, count);
  return result;
}
