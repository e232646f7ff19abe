#include "publish_parts.h"

#include "../common/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  STEP_COMMANDS = 600,     /* commands of one script: a few milliseconds of Redis's only thread */
  STEP_BYTES = 512 * 1024, /* and bytes of their arguments */
  SWEEPS_A_TTL = 3,        /* every view is renewed so many times within its expiry */
};

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
_Static_assert(sizeof livenps_view_fields / sizeof *livenps_view_fields == LIVENPS_VIEW_FIELDS,
               "a field too many or too few");

void livenps_view_print(const livenps_view *view, int64_t minimum_n, livenps_view_texts *out) {
  size_t field = 0;
  memset(out, 0, sizeof *out);
  /* In the order of livenps_view_fields; the assertion at the end keeps both together. */
#define REAL(condition, value)                                                                               \
  ((condition) ? (void)livenps_number_print(value, out->text[field]) : (void)0, field++)
#define WHOLE(condition, value)                                                                              \
  ((condition) ? (void)livenps_whole_print(value, out->text[field]) : (void)0, field++)
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
  if (field != LIVENPS_VIEW_FIELDS) {
    abort();
  }
}

/* ---- open, close, reset -------------------------------------------------------------------------------------------- */

void livenps_publisher_open(livenps_publisher **out, const livenps_publisher_config *config) {
  livenps_publisher *publisher = livenps_alloc(sizeof *publisher);
  publisher->config = *config;
  publisher->touched_index = livenps_alloc(config->rollup_count * sizeof(bool));
  publisher->touched_rank = livenps_alloc(config->rollup_count * config->window_count * sizeof(bool));
  livenps_trends_open(publisher);
  snprintf(publisher->ttl, sizeof publisher->ttl, "%" PRId64, config->settings->view_ttl_ms);
  livenps_random_hex(publisher->serial_prefix, sizeof publisher->serial_prefix);
  livenps_publisher_reset(publisher, "");
  *out = publisher;
}

void livenps_publisher_close(livenps_publisher *publisher) {
  if (!publisher) {
    return;
  }
  livenps_trends_close(publisher);
  livenps_ops_free(&publisher->ops);
  free(publisher->touched_index);
  free(publisher->touched_rank);
  free(publisher);
}

void livenps_publisher_reset(livenps_publisher *publisher, const char *last) {
  snprintf(publisher->last, sizeof publisher->last, "%s", last);
  publisher->everything = true;
  publisher->active_since_ms = 0;
}

/* ---- steps --------------------------------------------------------------------------------------------------------- */

/* The how-manieth publish of this publisher has that id; 0: another one's. */
static uint64_t serial_of(const livenps_publisher *publisher, const char *id) {
  const size_t length = strlen(publisher->serial_prefix);
  return strncmp(id, publisher->serial_prefix, length) == 0 && id[length] == '-'
             ? strtoull(id + length + 1, NULL, 10)
             : 0;
}

/* Sends what is gathered. -1 on an error or a fence; both end the tick. */
int livenps_publish_flush(livenps_publisher *publisher) {
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
    /* A later one of our own happened and its answer was lost: Redis did not go back. */
    publisher->went_back = serial_of(publisher, stored) <= serial_of(publisher, publisher->last);
    snprintf(publisher->last, sizeof publisher->last, "%s", stored);
    return -1;
  }
  if (publisher->fence != LIVENPS_FENCE_OK) {
    return -1;
  }
  memcpy(publisher->last, id, sizeof id);
  return 0;
}

int livenps_publish_flush_when_full(livenps_publisher *publisher) {
  if (publisher->ops.commands < STEP_COMMANDS && publisher->ops.bytes.length < STEP_BYTES) {
    return 0;
  }
  return livenps_publish_flush(publisher);
}

void livenps_publish_key(const livenps_publisher *publisher, livenps_key_text *key, const char *first,
                         const char *second, const char *third) {
  int length = snprintf(key->text, sizeof key->text, "%s%s%s%s%s%s", publisher->config.keys->prefix, first,
                        second ? ":" : "", second ? second : "", third ? ":" : "", third ? third : "");
  key->length = (size_t)length < sizeof key->text ? (size_t)length : sizeof key->text - 1;
}

static void view_key(const livenps_publisher *publisher, livenps_key_text *key, const char *rollup,
                     const char *id, const char *window) {
  livenps_publish_key(publisher, key, rollup, id, window);
}

void livenps_publish_trend_key(const livenps_publisher *publisher, livenps_key_text *key, const char *rollup,
                               const char *id, const char *window) {
  int length = snprintf(key->text, sizeof key->text, "%strend:%s:%s:%s", publisher->config.keys->prefix,
                        rollup, id, window);
  key->length = (size_t)length < sizeof key->text ? (size_t)length : sizeof key->text - 1;
}

void livenps_publish_expire(livenps_publisher *publisher, const char *key) {
  if (!publisher->config.replay) {
    livenps_ops_command(&publisher->ops, "PEXPIRE", key, publisher->ttl, NULL);
  }
}

/* ---- views --------------------------------------------------------------------------------------------------------- */

/* A view's note: which fields stand in Redis, bit by bit, and whether anything does. The rest is as good as unknown: keys that were lost to
 * somebody's hand come back with the next change and the next renewal. */
enum { PUBLISHED = 1u << 31 };
_Static_assert(LIVENPS_VIEW_FIELDS < 31, "a bit for every field");

static void index_view(livenps_publisher *publisher, const livenps_view *view) {
  livenps_key_text key;
  livenps_publish_key(publisher, &key, "index", publisher->config.rollups[view->rollup].name, NULL);
  livenps_ops_command(&publisher->ops, "SADD", key.text, view->id, NULL);
  publisher->touched_index[view->rollup] = true;
}

/* before: its note. */
static void rank_view(livenps_publisher *publisher, const livenps_view *view, const char *nps,
                      uint32_t before) {
  livenps_key_text key;
  const char *rollup = publisher->config.rollups[view->rollup].name,
             *window = publisher->config.windows[view->window].name;
  livenps_publish_key(publisher, &key, "rank", rollup, window);
  if (view->scored) {
    livenps_ops_command(&publisher->ops, "ZADD", key.text, nps, view->id, NULL);
    publisher->touched_rank[view->rollup * publisher->config.window_count + view->window] = true;
  } else if (!(before & PUBLISHED) || before & 1) {
    livenps_ops_command(&publisher->ops, "ZREM", key.text, view->id, NULL);
  }
}

/* word key field... for the fields whose bits are set; HSET: with their texts. */
static void put_fields(livenps_ops *ops, const char *word, const livenps_key_text *key, uint32_t fields,
                       const livenps_view_texts *texts) {
  livenps_ops_add(ops, word, strlen(word));
  livenps_ops_add(ops, key->text, key->length);
  for (size_t i = 0; i < LIVENPS_VIEW_FIELDS; i++) {
    if (fields & 1u << i) {
      livenps_ops_add(ops, livenps_view_fields[i], strlen(livenps_view_fields[i]));
      if (texts) {
        livenps_ops_add(ops, texts->text[i], strlen(texts->text[i]));
      }
    }
  }
  livenps_ops_end(ops);
}

static int publish_view(void *opaque, const livenps_view *view) {
  livenps_publisher *publisher = opaque;
  livenps_ops *ops = &publisher->ops;
  livenps_view_texts texts;
  livenps_key_text key;
  const uint32_t before = *view->note;
  uint32_t fields = 0;
  livenps_view_print(view, publisher->config.settings->minimum_n, &texts);
  for (size_t i = 0; i < LIVENPS_VIEW_FIELDS; i++) {
    fields |= (uint32_t)(texts.text[i][0] != 0) << i;
  }
  *view->note = fields | PUBLISHED;
  livenps_metrics_add(publisher->config.metrics, LIVENPS_M_VIEWS, 0, 1);

  rank_view(publisher, view, texts.text[0], before);
  view_key(publisher, &key, publisher->config.rollups[view->rollup].name, view->id,
           publisher->config.windows[view->window].name);
  /* A field that is withheld now must not stay. */
  if (!(before & PUBLISHED)) {
    index_view(publisher, view);
    livenps_ops_command(ops, "DEL", key.text, NULL);
  } else if (before & ~fields & ~PUBLISHED) {
    put_fields(ops, "HDEL", &key, before & ~fields & ~PUBLISHED, NULL);
  }
  put_fields(ops, "HSET", &key, fields, &texts);
  if (!(before & PUBLISHED)) {
    livenps_publish_expire(publisher, key.text);
  }

  if (json_array_size(publisher->changed) < LIVENPS_UPDATES_NAMES) {
    json_array_append_new(publisher->changed, json_string(key.text + strlen(publisher->config.keys->prefix)));
  } else {
    publisher->more++;
  }
  return livenps_publish_flush_when_full(publisher);
}

/* Removes every key of a series for one window. */
void livenps_publish_remove_window(livenps_publisher *publisher, const char *rollup, const char *id,
                                   const char *window) {
  livenps_key_text key;
  view_key(publisher, &key, rollup, id, window);
  livenps_ops_command(&publisher->ops, "UNLINK", key.text, NULL);
  livenps_publish_trend_key(publisher, &key, rollup, id, window);
  livenps_ops_command(&publisher->ops, "UNLINK", key.text, NULL);
  livenps_publish_key(publisher, &key, "rank", rollup, window);
  livenps_ops_command(&publisher->ops, "ZREM", key.text, id, NULL);
}

void livenps_publish_remove_from_index(livenps_publisher *publisher, const char *rollup, const char *id) {
  livenps_key_text key;
  livenps_publish_key(publisher, &key, "index", rollup, NULL);
  livenps_ops_command(&publisher->ops, "SREM", key.text, id, NULL);
}

static int publish_gone(void *opaque, size_t rollup, const char *id) {
  livenps_publisher *publisher = opaque;
  const char *name = publisher->config.rollups[rollup].name;
  for (size_t w = 0; w < publisher->config.window_count; w++) {
    livenps_publish_remove_window(publisher, name, id, publisher->config.windows[w].name);
  }
  livenps_publish_remove_from_index(publisher, name, id);
  livenps_trends_drop(publisher, rollup, id);
  return livenps_publish_flush_when_full(publisher);
}

/* ---- renewal -------------------------------------------------------------------------------------------------------- */

typedef struct {
  livenps_publisher *publisher;
  bool trend;
} renewal;

static int renew_view(void *opaque, const livenps_view *view) {
  renewal *what = opaque;
  livenps_publisher *publisher = what->publisher;
  livenps_key_text key;
  const char *rollup = publisher->config.rollups[view->rollup].name,
             *window = publisher->config.windows[view->window].name;
  if (view->window == 0) {
    index_view(publisher, view);
  }
  view_key(publisher, &key, rollup, view->id, window);
  livenps_publish_expire(publisher, key.text);
  if (what->trend) {
    livenps_publish_trend_key(publisher, &key, rollup, view->id, window);
    livenps_publish_expire(publisher, key.text);
  }
  return livenps_publish_flush_when_full(publisher);
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
    renewal what = {publisher, livenps_trend_find(publisher, rollup, window) != NULL};
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
    livenps_key_text key;
    if (publisher->touched_index[r]) {
      livenps_publish_key(publisher, &key, "index", publisher->config.rollups[r].name, NULL);
      livenps_publish_expire(publisher, key.text);
      publisher->touched_index[r] = false;
    }
    for (size_t w = 0; w < publisher->config.window_count; w++) {
      bool *touched = &publisher->touched_rank[r * publisher->config.window_count + w];
      if (*touched) {
        livenps_publish_key(publisher, &key, "rank", publisher->config.rollups[r].name,
                            publisher->config.windows[w].name);
        livenps_publish_expire(publisher, key.text);
        *touched = false;
      }
    }
  }
}

/* ---- the tick ------------------------------------------------------------------------------------------------------- */

static int publish_all(livenps_publisher *publisher, livenps_state *state, const livenps_pulse *pulse) {
  livenps_wholeness whole = livenps_publish_wholeness(publisher, state, pulse);
  const livenps_visitor visitor = {.view = publish_view, .gone = publish_gone, .opaque = publisher};
  /* After a sleep so long views may have expired, also those that did not change since. */
  const bool slept = !publisher->config.replay && publisher->sweep_ms &&
                     whole.clock - publisher->sweep_ms > publisher->config.settings->view_ttl_ms / 2;
  if (publisher->everything || slept) {
    livenps_state_change_all(state);
    if (livenps_publish_take_over(publisher, state) != 0) {
      return -1;
    }
    publisher->sweep_ms = slept ? publisher->sweep_ms : whole.clock;
  }
  if (publisher->active_since_ms == 0) {
    publisher->active_since_ms = whole.clock;
  }
  if (livenps_state_changed(state, &visitor) != 0 ||
      livenps_publish_trends(publisher, state, pulse, &whole) != 0 || sweep(publisher, state) != 0) {
    return -1;
  }
  renew_touched(publisher);
  if (publisher->ops.commands > STEP_COMMANDS / 2 && livenps_publish_flush(publisher) != 0) {
    return -1;
  }
  /* Health last: when it says a clock, the views of that clock are there. */
  livenps_publish_health(publisher, state, pulse, &whole);
  livenps_publish_updates(publisher, &whole);
  return livenps_publish_flush(publisher);
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
    if (publisher->went_back) {
      livenps_log(LIVENPS_WARN, "publish",
                  "the last publish is not the one left here: publishing everything again");
      livenps_metrics_add(publisher->config.metrics, LIVENPS_M_REPUBLISHES, 0, 1);
    } else {
      livenps_log(LIVENPS_INFO, "publish",
                  "a publish happened without an answer: publishing everything again");
    }
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
