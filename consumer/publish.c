#include "publish.h"

#include "../common/log.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
  STEP_COMMANDS = 600,     /* commands of one script: a few milliseconds of Redis's only thread */
  STEP_BYTES = 512 * 1024, /* and bytes of their arguments */
  FIELDS_A_COMMAND = 400,  /* field-value pairs of one HSET: Lua's unpack ends at about 8,000 values */
  HEALTH_TTL_MS = 10000,
  TREND_ENTRIES = 120,  /* entries of a trend per window, about */
  TREND_STEP = 2000,    /* trend entries a tick, so that a back-fill is spread over ticks */
  UPDATES_NAMES = 1000, /* names in one message of `updates` */
  SWEEPS_A_TTL = 3,     /* every view is renewed so many times within its expiry */
};

/* A trend: one roll-up and window with a stream for every series. */
typedef struct {
  size_t rollup, window;
  int64_t spacing_ms;
  int64_t last_ms;  /* end of the last point written; INT64_MIN: not known */
  bool stale;       /* the streams in Redis are of another lineage */
  char **with_data; /* sorted ids with data in the last point: those that fall silent get a closing point */
  size_t count;
  bool counted; /* with_data is known */
} trend;

struct livenps_publisher {
  livenps_publisher_config config;
  char last[64]; /* the publish id that ought to stand in meta */
  char serial_prefix[17];
  uint64_t serial;
  bool everything;
  int64_t active_since_ms; /* the clock when everything was published first; 0: not yet */
  livenps_ops ops;
  const livenps_holder *holder; /* of the running tick */
  livenps_fence fence;
  livenps_error *error;
  json_t *changed; /* of the running tick */
  size_t more;
  bool *touched_index; /* by roll-up: renew its expiry */
  bool *touched_rank;  /* by roll-up and window */
  trend *trends;
  size_t trend_count, trend_next;
  size_t sweep_next; /* pair of roll-up and window that is renewed next */
  int64_t sweep_ms;  /* the clock when it was the turn of the one before */
  char ttl[24];
};

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

const char *livenps_number_print(double value, char out[32]) {
  for (int digits = 15; digits <= 17; digits++) {
    snprintf(out, 32, "%.*g", digits, value);
    if (strtod(out, NULL) == value) {
      break;
    }
  }
  return out;
}

/* ---- the fields of a view ------------------------------------------------------------------------------------------ */

const char *const livenps_view_fields[] = {
    "nps",          "nps_rounded", "nps_low",         "nps_high",     "n",
    "promoters",    "passives",    "detractors",      "previous_nps", "previous_n",
    "change",       "change_p",    "change_verdict",  "reliable",     "csat_n",
    "csat_mean",    "csat_share",  "ces_n",           "ces_mean",     "interactions",
    "invitations",  "answers",     "response_rate",   "value_nps",    "target",
    "target_state", "as_of_ms",    "window_start_ms", "window_ms",    "slice_ms",
};
const size_t livenps_view_field_count = sizeof livenps_view_fields / sizeof *livenps_view_fields;
enum { VIEW_FIELDS = sizeof livenps_view_fields / sizeof *livenps_view_fields };

typedef struct {
  char text[VIEW_FIELDS][32]; /* "" where withheld */
} view_texts;

static void view_print(const livenps_view *view, int64_t minimum_n, view_texts *out) {
  size_t field = 0;
  memset(out, 0, sizeof *out);
  /* In the order of livenps_view_fields; the assertion at the end keeps both together. */
#define REAL(condition, value)                                                                               \
  ((condition) ? (void)livenps_number_print(value, out->text[field]) : (void)0, field++)
#define WHOLE(condition, value)                                                                              \
  ((condition) ? (void)snprintf(out->text[field], 32, "%" PRId64, (int64_t)(value)) : (void)0, field++)
  bool compared = view->scored && view->has_previous;
  bool csat = view->csat_n > 0 && view->csat_n >= minimum_n,
       ces = view->ces_n > 0 && view->ces_n >= minimum_n;
  REAL(view->scored, view->nps);
  WHOLE(view->scored, view->nps_rounded);
  REAL(view->scored, view->nps_low);
  REAL(view->scored, view->nps_high);
  WHOLE(true, view->n);
  WHOLE(view->scored, view->promoters);
  WHOLE(view->scored, view->passives);
  WHOLE(view->scored, view->detractors);
  REAL(view->has_previous, view->previous_nps);
  WHOLE(true, view->previous_n);
  REAL(compared, view->change);
  REAL(compared, view->change_p);
  WHOLE(compared, view->change_verdict);
  WHOLE(true, view->reliable);
  WHOLE(true, view->csat_n);
  REAL(csat, view->csat_mean);
  REAL(csat, view->csat_share);
  WHOLE(true, view->ces_n);
  REAL(ces, view->ces_mean);
  WHOLE(true, view->interactions);
  WHOLE(true, view->invitations);
  WHOLE(true, view->answers);
  REAL(view->has_response_rate, view->response_rate);
  REAL(view->has_value_nps, view->value_nps);
  REAL(view->has_target, view->target);
  WHOLE(view->has_target && view->scored, view->target_state);
  WHOLE(true, view->as_of_ms);
  WHOLE(true, view->window_start_ms);
  WHOLE(true, view->window_ms);
  WHOLE(true, view->slice_ms);
#undef REAL
#undef WHOLE
  if (field != VIEW_FIELDS) {
    abort();
  }
}

/* ---- open, close, reset -------------------------------------------------------------------------------------------- */

static void forget_ids(trend *what) {
  for (size_t i = 0; i < what->count; i++) {
    free(what->with_data[i]);
  }
  free(what->with_data);
  what->with_data = NULL;
  what->count = 0;
  what->counted = false;
}

void livenps_publisher_open(livenps_publisher **out, const livenps_publisher_config *config) {
  livenps_publisher *publisher = livenps_alloc(sizeof *publisher);
  const livenps_list *wanted = &config->settings->trend_rollups;
  publisher->config = *config;
  publisher->touched_index = livenps_alloc(config->rollup_count * sizeof(bool));
  publisher->touched_rank = livenps_alloc(config->rollup_count * config->window_count * sizeof(bool));
  publisher->trends = livenps_alloc(config->rollup_count * config->window_count * sizeof *publisher->trends);
  for (size_t r = 0; r < config->rollup_count; r++) {
    bool listed = false;
    for (size_t i = 0; i < wanted->count; i++) {
      listed |= strcmp(wanted->at[i], config->rollups[r].name) == 0;
    }
    for (size_t w = 0; listed && w < config->window_count; w++) {
      int64_t slices = config->windows[w].length_ms / config->windows[w].slice_ms;
      publisher->trends[publisher->trend_count++] =
          (trend){.rollup = r,
                  .window = w,
                  .spacing_ms = config->windows[w].slice_ms * ((slices + TREND_ENTRIES - 1) / TREND_ENTRIES)};
    }
  }
  snprintf(publisher->ttl, sizeof publisher->ttl, "%" PRId64, config->settings->view_ttl_ms);
  livenps_random_hex(publisher->serial_prefix, sizeof publisher->serial_prefix);
  livenps_publisher_reset(publisher, "");
  *out = publisher;
}

void livenps_publisher_close(livenps_publisher *publisher) {
  if (!publisher) {
    return;
  }
  for (size_t i = 0; i < publisher->trend_count; i++) {
    forget_ids(&publisher->trends[i]);
  }
  livenps_ops_free(&publisher->ops);
  free(publisher->touched_index);
  free(publisher->touched_rank);
  free(publisher->trends);
  free(publisher);
}

void livenps_publisher_reset(livenps_publisher *publisher, const char *last) {
  snprintf(publisher->last, sizeof publisher->last, "%s", last);
  publisher->everything = true;
  publisher->active_since_ms = 0;
}

/* ---- steps --------------------------------------------------------------------------------------------------------- */

/* Sends what is gathered. -1 on an error or a fence; both end the tick. */
static int flush(livenps_publisher *publisher) {
  char id[64], stored[64];
  /* Never the same twice, also after a time-out: a late script must not pass for this one. */
  snprintf(id, sizeof id, "%s-%" PRIu64, publisher->serial_prefix, ++publisher->serial);
  int result = livenps_script_publish(publisher->config.redis, publisher->config.keys, publisher->holder,
                                      publisher->last, id, &publisher->ops, &publisher->fence, stored,
                                      publisher->error);
  livenps_ops_clear(&publisher->ops);
  if (result != 0) {
    return -1;
  }
  if (publisher->fence == LIVENPS_FENCE_REPUBLISH) {
    snprintf(publisher->last, sizeof publisher->last, "%s", stored);
    return -1;
  }
  if (publisher->fence != LIVENPS_FENCE_OK) {
    return -1;
  }
  memcpy(publisher->last, id, sizeof id);
  return 0;
}

static int flush_when_full(livenps_publisher *publisher) {
  if (publisher->ops.commands < STEP_COMMANDS && publisher->ops.bytes.length < STEP_BYTES) {
    return 0;
  }
  return flush(publisher);
}

/* Keys grow with ids (256 bytes a dimension, four dimensions at most), so a buffer that is reused holds them. */
typedef struct {
  char text[1400];
  size_t length;
} key_text;

static void key_make(const livenps_publisher *publisher, key_text *key, const char *first, const char *second,
                     const char *third) {
  int length = snprintf(key->text, sizeof key->text, "%s%s%s%s%s%s", publisher->config.keys->prefix, first,
                        second ? ":" : "", second ? second : "", third ? ":" : "", third ? third : "");
  key->length = (size_t)length < sizeof key->text ? (size_t)length : sizeof key->text - 1;
}

static void view_key(const livenps_publisher *publisher, key_text *key, const char *rollup, const char *id,
                     const char *window) {
  key_make(publisher, key, rollup, id, window);
}

static void trend_key(const livenps_publisher *publisher, key_text *key, const char *rollup, const char *id,
                      const char *window) {
  int length = snprintf(key->text, sizeof key->text, "%strend:%s:%s:%s", publisher->config.keys->prefix,
                        rollup, id, window);
  key->length = (size_t)length < sizeof key->text ? (size_t)length : sizeof key->text - 1;
}

static void expire(livenps_publisher *publisher, const char *key) {
  if (!publisher->config.replay) {
    livenps_ops_command(&publisher->ops, "PEXPIRE", key, publisher->ttl, NULL);
  }
}

/* ---- views --------------------------------------------------------------------------------------------------------- */

static int publish_view(void *opaque, const livenps_view *view) {
  livenps_publisher *publisher = opaque;
  const char *rollup = publisher->config.rollups[view->rollup].name,
             *window = publisher->config.windows[view->window].name;
  livenps_ops *ops = &publisher->ops;
  view_texts texts;
  key_text key;
  view_print(view, publisher->config.settings->minimum_n, &texts);

  key_make(publisher, &key, "index", rollup, NULL);
  livenps_ops_command(ops, "SADD", key.text, view->id, NULL);
  publisher->touched_index[view->rollup] = true;
  key_make(publisher, &key, "rank", rollup, window);
  if (view->scored) {
    livenps_ops_command(ops, "ZADD", key.text, texts.text[0], view->id, NULL);
    publisher->touched_rank[view->rollup * publisher->config.window_count + view->window] = true;
  } else {
    livenps_ops_command(ops, "ZREM", key.text, view->id, NULL);
  }

  /* DEL first: a field that is withheld now must not stay. */
  view_key(publisher, &key, rollup, view->id, window);
  livenps_ops_command(ops, "DEL", key.text, NULL);
  livenps_ops_begin(ops);
  livenps_ops_add(ops, "HSET", 4);
  livenps_ops_add(ops, key.text, key.length);
  for (size_t i = 0; i < VIEW_FIELDS; i++) {
    if (texts.text[i][0]) {
      livenps_ops_add(ops, livenps_view_fields[i], strlen(livenps_view_fields[i]));
      livenps_ops_add(ops, texts.text[i], strlen(texts.text[i]));
    }
  }
  livenps_ops_end(ops);
  expire(publisher, key.text);

  if (json_array_size(publisher->changed) < UPDATES_NAMES) {
    json_array_append_new(publisher->changed, json_string(key.text + strlen(publisher->config.keys->prefix)));
  } else {
    publisher->more++;
  }
  return flush_when_full(publisher);
}

/* Removes every key of a series for one window. */
static void remove_window(livenps_publisher *publisher, const char *rollup, const char *id,
                          const char *window) {
  key_text key;
  view_key(publisher, &key, rollup, id, window);
  livenps_ops_command(&publisher->ops, "UNLINK", key.text, NULL);
  trend_key(publisher, &key, rollup, id, window);
  livenps_ops_command(&publisher->ops, "UNLINK", key.text, NULL);
  key_make(publisher, &key, "rank", rollup, window);
  livenps_ops_command(&publisher->ops, "ZREM", key.text, id, NULL);
}

static void remove_from_index(livenps_publisher *publisher, const char *rollup, const char *id) {
  key_text key;
  key_make(publisher, &key, "index", rollup, NULL);
  livenps_ops_command(&publisher->ops, "SREM", key.text, id, NULL);
}

static int publish_gone(void *opaque, size_t rollup, const char *id) {
  livenps_publisher *publisher = opaque;
  const char *name = publisher->config.rollups[rollup].name;
  for (size_t w = 0; w < publisher->config.window_count; w++) {
    remove_window(publisher, name, id, publisher->config.windows[w].name);
  }
  remove_from_index(publisher, name, id);
  return flush_when_full(publisher);
}

/* ---- what no longer exists ------------------------------------------------------------------------------------------ */

/* `published` (hash) remembers which roll-ups and windows have keys: field "<roll-up>:<window>", value "<lineage> <end>" of the trend's last
 * point, "-" without trend. With the index sets it leads to every view without walking the keys of the server. */
typedef struct {
  char *rollup, *window, *trend; /* trend: the value */
} pair_name;

static int fetch_published(livenps_publisher *publisher, pair_name **out, size_t *count) {
  key_text key;
  key_make(publisher, &key, "published", NULL, NULL);
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

typedef struct {
  char **at;
  size_t count, capacity;
} id_list;

static void id_add(id_list *list, const char *at, size_t length) {
  if (list->count == list->capacity) {
    list->capacity = list->capacity ? list->capacity * 2 : 64;
    list->at = livenps_resize(list->at, list->capacity * sizeof *list->at);
  }
  list->at[list->count++] = livenps_copy(at, length);
}

static void id_list_free(id_list *list) {
  for (size_t i = 0; i < list->count; i++) {
    free(list->at[i]);
  }
  free(list->at);
  *list = (id_list){0};
}

static int by_text(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

static void id_sort(id_list *list) {
  if (list->count) {
    qsort(list->at, list->count, sizeof *list->at, by_text);
  }
}

static bool id_has(char *const *sorted, size_t count, const char *id) {
  return count && bsearch(&id, sorted, count, sizeof *sorted, by_text);
}

static int collect_id(void *opaque, const livenps_view *view) {
  id_add(opaque, view->id, strlen(view->id));
  return 0;
}

/* All members of a set, in steps that do not hold up Redis. May name one twice. */
static int fetch_index(livenps_publisher *publisher, const char *rollup, id_list *ids) {
  key_text key;
  char cursor[32] = "0";
  key_make(publisher, &key, "index", rollup, NULL);
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
        id_add(ids, id.at, id.length);
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

static trend *find_trend(livenps_publisher *publisher, size_t rollup, size_t window) {
  for (size_t i = 0; i < publisher->trend_count; i++) {
    if (publisher->trends[i].rollup == rollup && publisher->trends[i].window == window) {
      return &publisher->trends[i];
    }
  }
  return NULL;
}

/* Everything of one roll-up that stood there before and shall not stand any longer. */
static int remove_old_ids(livenps_publisher *publisher, livenps_state *state, const char *rollup,
                          const pair_name *pairs, size_t pair_count) {
  size_t r = find_rollup(publisher, rollup);
  bool known = r < publisher->config.rollup_count;
  id_list old = {0}, now = {0};
  int result = -1;
  if (fetch_index(publisher, rollup, &old) != 0) {
    goto done;
  }
  if (known) {
    const livenps_visitor visitor = {.view = collect_id, .opaque = &now};
    livenps_state_views(state, r, 0, &visitor);
    id_sort(&now);
  }
  for (size_t i = 0; i < old.count; i++) {
    bool alive = known && id_has(now.at, now.count, old.at[i]);
    for (size_t p = 0; p < pair_count; p++) {
      if (strcmp(pairs[p].rollup, rollup) != 0) {
        continue;
      }
      size_t w = find_window(publisher, pairs[p].window);
      const trend *wanted = known && w < publisher->config.window_count ? find_trend(publisher, r, w) : NULL;
      if (!alive || w == publisher->config.window_count) {
        remove_window(publisher, rollup, old.at[i], pairs[p].window);
      } else if (strcmp(pairs[p].trend, "-") != 0 && (!wanted || wanted->stale)) {
        key_text key;
        trend_key(publisher, &key, rollup, old.at[i], pairs[p].window);
        livenps_ops_command(&publisher->ops, "UNLINK", key.text, NULL);
      }
    }
    if (!alive) {
      remove_from_index(publisher, rollup, old.at[i]);
    }
    if (flush_when_full(publisher) != 0) {
      goto done;
    }
  }
  result = 0;
done:
  id_list_free(&old);
  id_list_free(&now);
  return result;
}

/* Where the trends stand, from `published`; then removes what is not wanted any more. */
static int take_over(livenps_publisher *publisher, livenps_state *state) {
  pair_name *pairs = NULL;
  size_t count = 0;
  int result = -1;
  key_text key;
  if (fetch_published(publisher, &pairs, &count) != 0) {
    return -1;
  }
  for (size_t i = 0; i < publisher->trend_count; i++) {
    trend *each = &publisher->trends[i];
    forget_ids(each);
    each->last_ms = INT64_MIN;
    each->stale = true;
    for (size_t p = 0; p < count; p++) {
      char lineage[33];
      long long end;
      if (strcmp(pairs[p].rollup, publisher->config.rollups[each->rollup].name) == 0 &&
          strcmp(pairs[p].window, publisher->config.windows[each->window].name) == 0 &&
          sscanf(pairs[p].trend, "%32s %lld", lineage, &end) == 2 &&
          strcmp(lineage, publisher->holder->lineage) == 0) {
        each->last_ms = end;
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
  key_make(publisher, &key, "published", NULL, NULL);
  for (size_t p = 0; p < count; p++) {
    size_t r = find_rollup(publisher, pairs[p].rollup), w = find_window(publisher, pairs[p].window);
    if (r == publisher->config.rollup_count || w == publisher->config.window_count) {
      char field[128];
      key_text gone;
      snprintf(field, sizeof field, "%s:%s", pairs[p].rollup, pairs[p].window);
      livenps_ops_command(&publisher->ops, "HDEL", key.text, field, NULL);
      key_make(publisher, &gone, "rank", pairs[p].rollup, pairs[p].window);
      livenps_ops_command(&publisher->ops, "UNLINK", gone.text, NULL);
      if (w == publisher->config.window_count) {
        key_make(publisher, &gone, "health", pairs[p].window, NULL);
        livenps_ops_command(&publisher->ops, "UNLINK", gone.text, NULL);
      }
    }
  }
  for (size_t r = 0; r < publisher->config.rollup_count; r++) {
    for (size_t w = 0; w < publisher->config.window_count; w++) {
      const trend *wanted = find_trend(publisher, r, w);
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

/* ---- completeness --------------------------------------------------------------------------------------------------- */

typedef struct {
  int64_t clock, low, lag; /* low 0: not known, lag is not either */
  bool complete;
  int64_t covered_since; /* by the partitions */
} wholeness;

static int64_t floor_to(int64_t value, int64_t step) {
  int64_t quotient = value / step;
  return (value % step < 0 ? quotient - 1 : quotient) * step;
}

static wholeness how_whole(const livenps_publisher *publisher, const livenps_state *state,
                           const livenps_pulse *pulse) {
  size_t count;
  const livenps_partition *partitions = livenps_state_partitions(state, &count);
  wholeness whole = {.clock = livenps_state_clock(state)};
  bool known = count > 0;
  int64_t low = whole.clock;
  for (size_t i = 0; i < count; i++) {
    known &= partitions[i].through_ms > 0;
    low = partitions[i].through_ms < low ? partitions[i].through_ms : low;
    whole.covered_since = partitions[i].covered_since_ms > whole.covered_since
                              ? partitions[i].covered_since_ms
                              : whole.covered_since;
  }
  if (known) {
    whole.low = low;
    whole.lag = whole.clock - low;
  }
  whole.complete = known && whole.lag <= publisher->config.settings->complete_lag_ms && pulse->total_known &&
                   count >= pulse->total;
  return whole;
}

static int64_t window_covered_since(const livenps_publisher *publisher, const livenps_state *state,
                                    const wholeness *whole, size_t window) {
  int64_t since = whole->covered_since;
  for (size_t r = 0; r < publisher->config.rollup_count; r++) {
    int64_t added = livenps_state_window_since(state, r, window);
    since = added > since ? added : since;
  }
  return since;
}

/* ---- trends --------------------------------------------------------------------------------------------------------- */

typedef struct {
  livenps_publisher *publisher;
  const trend *trend;
  int64_t end_ms;
  bool complete;
  id_list ids;
  size_t written;
  int result;
} point;

static int write_point(point *at, const livenps_view *view) {
  livenps_publisher *publisher = at->publisher;
  const livenps_window *window = &publisher->config.windows[view->window];
  livenps_ops *ops = &publisher->ops;
  view_texts texts;
  key_text key;
  char id[32], oldest[32];
  view_print(view, publisher->config.settings->minimum_n, &texts);
  trend_key(publisher, &key, publisher->config.rollups[view->rollup].name, view->id, window->name);
  snprintf(id, sizeof id, "%" PRId64 "-0", at->end_ms);
  snprintf(oldest, sizeof oldest, "%" PRId64,
           at->end_ms > window->length_ms ? at->end_ms - window->length_ms : 0);
  livenps_ops_begin(ops);
  livenps_ops_add(ops, "XADD", 4);
  livenps_ops_add(ops, key.text, key.length);
  livenps_ops_add(ops, "MINID", 5);
  livenps_ops_add(ops, "=", 1);
  livenps_ops_add(ops, oldest, strlen(oldest));
  livenps_ops_add(ops, id, strlen(id));
  for (size_t i = 0; i < VIEW_FIELDS; i++) {
    const char *text = texts.text[i][0] ? texts.text[i] : "NaN";
    livenps_ops_add(ops, livenps_view_fields[i], strlen(livenps_view_fields[i]));
    livenps_ops_add(ops, text, strlen(text));
  }
  livenps_ops_add(ops, "complete", 8);
  livenps_ops_add(ops, at->complete ? "1" : "0", 1);
  livenps_ops_end(ops);
  expire(publisher, key.text);
  at->written++;
  return flush_when_full(publisher);
}

static int point_view(void *opaque, const livenps_view *view) {
  point *at = opaque;
  id_add(&at->ids, view->id, strlen(view->id));
  at->result = write_point(at, view);
  return at->result;
}

static int point_id(void *opaque, const livenps_view *view) {
  point *at = opaque;
  id_add(&at->ids, view->id, strlen(view->id));
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
  return write_point(at, &view);
}

/* One point of one trend for all its series. Adds to *written. */
static int publish_point(livenps_publisher *publisher, livenps_state *state, const wholeness *whole,
                         trend *each, int64_t end_ms, size_t *written) {
  const livenps_window *window = &publisher->config.windows[each->window];
  char field[128], value[80];
  key_text key;
  int64_t since = whole->covered_since, added = livenps_state_window_since(state, each->rollup, each->window);
  since = added > since ? added : since;
  if (!each->counted) {
    /* A new holder does not know which series the last point had. */
    point before = {.publisher = publisher, .trend = each};
    int64_t last_ms = end_ms - each->spacing_ms;
    if (last_ms > whole->clock - window->length_ms) {
      const livenps_visitor visitor = {.view = point_id, .opaque = &before};
      livenps_state_views_at(state, each->rollup, each->window, last_ms, &visitor);
    }
    id_sort(&before.ids);
    each->with_data = before.ids.at;
    each->count = before.ids.count;
    each->counted = true;
  }
  point at = {.publisher = publisher,
              .trend = each,
              .end_ms = end_ms,
              .complete = whole->low >= end_ms && since <= end_ms - window->length_ms};
  const livenps_visitor visitor = {.view = point_view, .opaque = &at};
  livenps_state_views_at(state, each->rollup, each->window, end_ms, &visitor);
  id_sort(&at.ids);
  for (size_t i = 0; at.result == 0 && i < each->count; i++) {
    if (!id_has(at.ids.at, at.ids.count, each->with_data[i])) {
      at.result = close_point(&at, each->with_data[i]);
    }
  }
  forget_ids(each);
  each->with_data = at.ids.at;
  each->count = at.ids.count;
  each->counted = true;
  if (at.result != 0) {
    return -1;
  }
  /* After the points in the same or a later step: what a failover loses is written again, what it keeps is skipped. */
  key_make(publisher, &key, "published", NULL, NULL);
  snprintf(field, sizeof field, "%s:%s", publisher->config.rollups[each->rollup].name, window->name);
  snprintf(value, sizeof value, "%s %" PRId64, publisher->holder->lineage, end_ms);
  livenps_ops_command(&publisher->ops, "HSET", key.text, field, value, NULL);
  each->last_ms = end_ms;
  *written += at.written + 1;
  return flush_when_full(publisher);
}

/* The end of the next point that is due, or 0. Live, a point that nothing waits for any more is written flagged; so soon after the start
 * that would flag everything that a catch-up is about to complete, so the same time is waited then. */
static int64_t due_point(const livenps_publisher *publisher, const livenps_pulse *pulse,
                         const wholeness *whole, const trend *each) {
  const livenps_window *window = &publisher->config.windows[each->window];
  int64_t wait = publisher->config.settings->trend_wait_ms;
  /* Older points have left the state, and would be trimmed at once. */
  int64_t first = floor_to(whole->clock - window->length_ms, each->spacing_ms) + each->spacing_ms;
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

static int publish_trends(livenps_publisher *publisher, livenps_state *state, const livenps_pulse *pulse,
                          const wholeness *whole) {
  size_t written = 0, idle = 0;
  while (idle < publisher->trend_count && (written < TREND_STEP || pulse->finishing)) {
    trend *each = &publisher->trends[publisher->trend_next % publisher->trend_count];
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

/* ---- renewal -------------------------------------------------------------------------------------------------------- */

typedef struct {
  livenps_publisher *publisher;
  bool trend;
} renewal;

static int renew_view(void *opaque, const livenps_view *view) {
  renewal *what = opaque;
  livenps_publisher *publisher = what->publisher;
  key_text key;
  const char *rollup = publisher->config.rollups[view->rollup].name,
             *window = publisher->config.windows[view->window].name;
  view_key(publisher, &key, rollup, view->id, window);
  expire(publisher, key.text);
  if (what->trend) {
    trend_key(publisher, &key, rollup, view->id, window);
    expire(publisher, key.text);
  }
  return flush_when_full(publisher);
}

/* Renews one pair of roll-up and window after the other, so that all have had their turn within a third of the expiry. */
static int sweep(livenps_publisher *publisher, livenps_state *state) {
  size_t pairs = publisher->config.rollup_count * publisher->config.window_count;
  int64_t clock = livenps_state_clock(state);
  int64_t turn = publisher->config.settings->view_ttl_ms / SWEEPS_A_TTL / (int64_t)pairs;
  if (publisher->config.replay) {
    return 0;
  }
  for (size_t done = 0; done < pairs && clock - publisher->sweep_ms >= turn; done++) {
    size_t rollup = publisher->sweep_next / publisher->config.window_count;
    size_t window = publisher->sweep_next % publisher->config.window_count;
    renewal what = {publisher, find_trend(publisher, rollup, window) != NULL};
    const livenps_visitor visitor = {.view = renew_view, .opaque = &what};
    publisher->fence = LIVENPS_FENCE_OK;
    livenps_state_views(state, rollup, window, &visitor);
    if (publisher->fence != LIVENPS_FENCE_OK || (publisher->error && publisher->error->code)) {
      return -1;
    }
    publisher->touched_index[rollup] = true;
    publisher->touched_rank[publisher->sweep_next] = true;
    publisher->sweep_next = (publisher->sweep_next + 1) % pairs;
    /* After a long silence every pair gets one turn, not as many as there were missed. */
    publisher->sweep_ms =
        clock - publisher->sweep_ms >= turn * (int64_t)pairs ? clock : publisher->sweep_ms + turn;
  }
  return 0;
}

static void renew_touched(livenps_publisher *publisher) {
  for (size_t r = 0; r < publisher->config.rollup_count; r++) {
    key_text key;
    if (publisher->touched_index[r]) {
      key_make(publisher, &key, "index", publisher->config.rollups[r].name, NULL);
      expire(publisher, key.text);
      publisher->touched_index[r] = false;
    }
    for (size_t w = 0; w < publisher->config.window_count; w++) {
      bool *touched = &publisher->touched_rank[r * publisher->config.window_count + w];
      if (*touched) {
        key_make(publisher, &key, "rank", publisher->config.rollups[r].name,
                 publisher->config.windows[w].name);
        expire(publisher, key.text);
        *touched = false;
      }
    }
  }
}

/* ---- health --------------------------------------------------------------------------------------------------------- */

/* Field by field into HSET commands of bounded length. */
typedef struct {
  livenps_ops *ops;
  const char *key;
  size_t open;
} hash_writer;

static void hash_text(hash_writer *hash, const char *field, const char *value) {
  if (hash->open == FIELDS_A_COMMAND) {
    livenps_ops_end(hash->ops);
    hash->open = 0;
  }
  if (hash->open == 0) {
    livenps_ops_begin(hash->ops);
    livenps_ops_add(hash->ops, "HSET", 4);
    livenps_ops_add(hash->ops, hash->key, strlen(hash->key));
  }
  livenps_ops_add(hash->ops, field, strlen(field));
  livenps_ops_add(hash->ops, value, strlen(value));
  hash->open++;
}

static void hash_number(hash_writer *hash, const char *field, int64_t value) {
  char text[24];
  snprintf(text, sizeof text, "%" PRId64, value);
  hash_text(hash, field, text);
}

static void hash_end(hash_writer *hash) {
  if (hash->open) {
    livenps_ops_end(hash->ops);
  }
}

static void expire_health(livenps_publisher *publisher, const char *key) {
  if (!publisher->config.replay) {
    char ttl[16];
    snprintf(ttl, sizeof ttl, "%d", HEALTH_TTL_MS);
    livenps_ops_command(&publisher->ops, "PEXPIRE", key, ttl, NULL);
  }
}

static void publish_health(livenps_publisher *publisher, const livenps_state *state,
                           const livenps_pulse *pulse, const wholeness *whole) {
  size_t count;
  const livenps_partition *partitions = livenps_state_partitions(state, &count);
  livenps_partition sum = {0};
  key_text key;
  char field[320];
  key_make(publisher, &key, "health", NULL, NULL);
  hash_writer hash = {.ops = &publisher->ops, .key = key.text};
  livenps_ops_command(&publisher->ops, "DEL", key.text, NULL);
  hash_number(&hash, "as_of_ms", whole->clock);
  if (whole->low > 0) {
    hash_number(&hash, "low_watermark_ms", whole->low);
    hash_number(&hash, "lag_ms", whole->lag);
  }
  hash_number(&hash, "complete", whole->complete);
  hash_text(&hash, "lineage", publisher->holder->lineage);
  hash_number(&hash, "genesis", pulse->genesis);
  hash_text(&hash, "aggregator", pulse->aggregator);
  hash_number(&hash, "instances", pulse->instances);
  hash_number(&hash, "log_bytes", pulse->log_bytes);
  hash_number(&hash, "log_max_bytes", pulse->log_max_bytes);
  for (size_t i = 0; i < count; i++) {
    const livenps_partition *each = &partitions[i];
    sum.accepted += each->accepted;
    sum.late += each->late;
    sum.duplicate += each->duplicate;
    sum.out_of_range += each->out_of_range;
    sum.holes += each->holes;
    sum.gap += each->gap;
    for (int r = 0; r < LIVENPS_REASONS; r++) {
      sum.rejected[r] += each->rejected[r];
    }
    snprintf(field, sizeof field, "position:%s/%" PRId32, each->topic, each->partition);
    hash_number(&hash, field, each->next);
    if (each->through_ms > 0) {
      snprintf(field, sizeof field, "lag:%s/%" PRId32, each->topic, each->partition);
      hash_number(&hash, field, each->through_ms < whole->clock ? whole->clock - each->through_ms : 0);
    }
  }
  hash_number(&hash, "partitions", (int64_t)count);
  hash_number(&hash, "accepted", sum.accepted);
  hash_number(&hash, "late", sum.late);
  hash_number(&hash, "duplicate", sum.duplicate);
  hash_number(&hash, "out_of_range", sum.out_of_range);
  hash_number(&hash, "holes", sum.holes);
  hash_number(&hash, "gap", sum.gap);
  for (int r = 0; r < LIVENPS_REASONS; r++) {
    if (sum.rejected[r]) {
      snprintf(field, sizeof field, "rejected:%s", livenps_reason_name((livenps_reason)r));
      hash_number(&hash, field, sum.rejected[r]);
    }
  }
  bool any_capped = false;
  for (size_t r = 0; r < publisher->config.rollup_count; r++) {
    bool capped = false;
    snprintf(field, sizeof field, "series:%s", publisher->config.rollups[r].name);
    hash_number(&hash, field, (int64_t)livenps_state_series(state, r, &capped));
    any_capped |= capped;
  }
  hash_number(&hash, "capped", any_capped);
  hash_end(&hash);
  expire_health(publisher, key.text);

  for (size_t w = 0; w < publisher->config.window_count; w++) {
    const livenps_window *window = &publisher->config.windows[w];
    int64_t since = window_covered_since(publisher, state, whole, w);
    int64_t start = floor_to(whole->clock, window->slice_ms) - window->length_ms + window->slice_ms;
    key_make(publisher, &key, "health", window->name, NULL);
    hash = (hash_writer){.ops = &publisher->ops, .key = key.text};
    hash_number(&hash, "complete", whole->complete && since <= start);
    hash_number(&hash, "previous_complete", whole->complete && since <= start - window->length_ms);
    hash_number(&hash, "covered_since_ms", since);
    hash_end(&hash);
    expire_health(publisher, key.text);
  }
}

static void publish_updates(livenps_publisher *publisher, const wholeness *whole) {
  if (json_array_size(publisher->changed) == 0) {
    return;
  }
  key_text channel;
  json_t *message = json_object();
  json_object_set_new(message, "as_of_ms", json_integer(whole->clock));
  json_object_set(message, "changed", publisher->changed);
  if (publisher->more) {
    json_object_set_new(message, "more", json_integer((json_int_t)publisher->more));
  }
  char *text = json_dumps(message, JSON_COMPACT);
  key_make(publisher, &channel, "updates", NULL, NULL);
  if (text) {
    livenps_ops_command(&publisher->ops, "PUBLISH", channel.text, text, NULL);
  }
  free(text);
  json_decref(message);
}

/* ---- the tick ------------------------------------------------------------------------------------------------------- */

static int publish_all(livenps_publisher *publisher, livenps_state *state, const livenps_pulse *pulse) {
  wholeness whole = how_whole(publisher, state, pulse);
  const livenps_visitor visitor = {.view = publish_view, .gone = publish_gone, .opaque = publisher};
  if (publisher->everything) {
    livenps_state_change_all(state);
    if (take_over(publisher, state) != 0) {
      return -1;
    }
    publisher->sweep_ms = whole.clock;
  }
  if (publisher->active_since_ms == 0) {
    publisher->active_since_ms = whole.clock;
  }
  if (livenps_state_changed(state, &visitor) != 0 || publish_trends(publisher, state, pulse, &whole) != 0 ||
      sweep(publisher, state) != 0) {
    return -1;
  }
  renew_touched(publisher);
  if (publisher->ops.commands > STEP_COMMANDS / 2 && flush(publisher) != 0) {
    return -1;
  }
  /* Health last: when it says a clock, the views of that clock are there. */
  publish_health(publisher, state, pulse, &whole);
  publish_updates(publisher, &whole);
  return flush(publisher);
}

int livenps_publisher_tick(livenps_publisher *publisher, const livenps_holder *holder, livenps_state *state,
                           const livenps_pulse *pulse, livenps_fence *fence, livenps_error *error) {
  livenps_error own = {0};
  int result = -1;
  publisher->holder = holder;
  publisher->error = &own;
  /* Twice: a publish that got lost, or a late one of an earlier holder, is mended in the same tick. */
  for (int attempt = 0; attempt < 2; attempt++) {
    publisher->fence = LIVENPS_FENCE_OK;
    publisher->changed = json_array();
    publisher->more = 0;
    livenps_ops_clear(&publisher->ops);
    result = publish_all(publisher, state, pulse);
    json_decref(publisher->changed);
    publisher->changed = NULL;
    publisher->everything = result != 0;
    if (result == 0 || own.code || publisher->fence != LIVENPS_FENCE_REPUBLISH) {
      break;
    }
    livenps_log(LIVENPS_WARN, "publish",
                "the last publish is not the one left here: publishing everything again");
  }
  publisher->error = NULL;
  publisher->holder = NULL;
  if (own.code) {
    livenps_fail(error, own.code, "%s", own.text);
    return -1;
  }
  *fence = publisher->fence;
  return 0;
}
