#include "board_json.h"
#include "board_page.h"
#include "commands.h"

#include "../common/clock.h"
#include "../common/http.h"
#include "../common/log.h"
#include "../common/secret.h"
#include "../common/service.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

/* `livenps-consumer board`: a page of the scores, and the numbers for it. Reads Redis only and writes nothing.
 *
 * One thread. Per roll-up and window that somebody looks at there is a *picture*: what was read last. It follows the messages of the
 * channel `updates`, which name the views that changed; where they cannot be had, it is read again and again. Viewers get the
 * whole picture once and then what changes, made once for all of them: what Redis is asked does not depend on how many look.
 *
 *   GET /                the page (consumer/board)
 *   GET /api/start       what there is: roll-ups, windows, fields
 *   GET /api/views       a picture and health
 *   GET /api/live        the same as server-sent events: picture, then change; health once a second
 *   GET /api/trend       the trends of up to TRENDS series                                                                  */

enum {
  TICK_MS = 250,    /* how often what changed is read */
  HEALTH_MS = 1000, /* how often health is read, and told: who hears nothing for longer has lost us */
  SWEEP_MS = 30000, /* how often all is read although the channel is heard: keys expire silently */
  MORE_MS = 5000,   /* how often everything is read while more changes than a message names */
  POLL_MS = 2000,   /* how often everything is read when the channel is not heard */
  KEEP_MS = 60000,  /* how long a picture is kept that nobody looks at */
  WAIT_MS = 100,    /* how long the server waits for requests between two looks at the clock */
  AWAY_MS = 500,    /* the first pause after an error of Redis; */
  AWAY_SHARE = 4,   /* and in proportion to how long the error took, so that pages are served meanwhile */
  AWAY_MOST_MS = 10000,
  LISTEN_MS = 5000, /* between two attempts to hear the channel */
  BEHIND = 4 << 20, /* bytes that a viewer has not taken: no more until it has, then everything */
  TRENDS = 16,      /* series of one request */
  LONGEST_ID = 4096,
  PICTURES = 64, /* at a time: 16 windows of a few roll-ups */
};

enum { WHOLE, STAGES, ROWS, SETS };

typedef struct {
  const char *rollup; /* NULL: there is no such set */
  livenps_row *rows;  /* sorted by id */
  bool *dirty;        /* of each row: a message named it */
  size_t count;
} row_set;

typedef struct picture picture;
struct picture {
  picture *next;
  char rollup[64], window[16];
  row_set sets[SETS];
  uint64_t version;    /* of what the rows say; 0: never read */
  livenps_buffer full; /* the rows of this version as JSON; empty: not made yet */
  bool stale;          /* all must be read again */
  bool more;           /* a message left some out */
  bool dirty;          /* some row is */
  int64_t read_at_ms, health_at_ms, used_at_ms;
  livenps_buffer health;
  int viewers;
};

typedef struct viewer viewer;
struct viewer {
  viewer *next;
  livenps_http_stream *stream;
  picture *picture;
  uint64_t version; /* what it knows */
};

typedef struct {
  const livenps_settings *settings;
  livenps_redis *redis, *channel;
  livenps_keys keys;
  char channel_name[160];
  livenps_http *http;
  picture *pictures;
  viewer *viewers;
  size_t picture_count;
  int64_t next_ms, listen_at_ms, away_until_ms;
  bool listening;
  char away[512]; /* why Redis cannot be asked; empty: it can */
} board;

/* ---- pictures ------------------------------------------------------------------------------------------------------- */

static void set_free(row_set *set) {
  livenps_rows_free(set->rows, set->count);
  free(set->dirty);
  set->rows = NULL;
  set->dirty = NULL;
  set->count = 0;
}

static void picture_free(picture *what) {
  for (int s = 0; s < SETS; s++) {
    set_free(&what->sets[s]);
  }
  livenps_buffer_free(&what->full);
  livenps_buffer_free(&what->health);
  free(what);
}

static bool has_rollup(const livenps_settings *settings, const char *rollup) {
  for (size_t i = 0; i < settings->rollups.count; i++) {
    if (strcmp(settings->rollups.at[i], rollup) == 0) {
      return true;
    }
  }
  return false;
}

/* Pictures that nobody has looked at for a while go; all of them when there are too many. */
static void forget_pictures(board *on, int64_t now) {
  for (picture **at = &on->pictures; *at;) {
    picture *what = *at;
    if (what->viewers == 0 && (now - what->used_at_ms > KEEP_MS || on->picture_count >= PICTURES)) {
      *at = what->next;
      on->picture_count--;
      picture_free(what);
    } else {
      at = &what->next;
    }
  }
}

static picture *picture_of(board *on, const char *rollup, const char *window) {
  int64_t now = livenps_monotonic_ms();
  for (picture *what = on->pictures; what; what = what->next) {
    if (strcmp(what->rollup, rollup) == 0 && strcmp(what->window, window) == 0) {
      what->used_at_ms = now;
      return what;
    }
  }
  forget_pictures(on, now);
  picture *what = livenps_alloc(sizeof *what);
  *what = (picture){.next = on->pictures, .stale = true, .used_at_ms = now};
  snprintf(what->rollup, sizeof what->rollup, "%s", rollup);
  snprintf(what->window, sizeof what->window, "%s", window);
  what->sets[WHOLE].rollup = has_rollup(on->settings, "all") ? "all" : NULL;
  what->sets[STAGES].rollup = has_rollup(on->settings, "stage") ? "stage" : NULL;
  what->sets[ROWS].rollup = what->rollup;
  on->pictures = what;
  on->picture_count++;
  return what;
}

static bool same_row(const livenps_row *a, const livenps_row *b) {
  bool same = a->there == b->there;
  for (size_t f = 0; f < LIVENPS_FIELD_COUNT && same; f++) {
    same = a->has[f] == b->has[f] && a->value[f] == b->value[f];
  }
  return same;
}

/* {"rows":[...],"gone":[...]}: what differs between two readings of a set, both sorted by id. Returns whether anything does. */
static bool tell_difference(livenps_buffer *out, const row_set *before, const row_set *after) {
  size_t told = 0, gone = 0;
  livenps_buffer left = {0};
  livenps_buffer_print(out, "{\"rows\":[");
  for (size_t a = 0, b = 0; a < before->count || b < after->count;) {
    int order = a == before->count  ? 1
                : b == after->count ? -1
                                    : strcmp(before->rows[a].id, after->rows[b].id);
    if (order < 0) {
      livenps_buffer_print(&left, gone++ ? "," : "");
      livenps_json_text(&left, livenps_text_of(before->rows[a++].id));
      continue;
    }
    if (order > 0 || !same_row(&before->rows[a], &after->rows[b])) {
      livenps_buffer_print(out, told++ ? "," : "");
      livenps_json_row(out, &after->rows[b]);
    }
    a += order == 0;
    b++;
  }
  livenps_buffer_print(out, "],\"gone\":[");
  livenps_buffer_add(out, left.at ? left.at : "", left.length);
  livenps_buffer_print(out, "]}");
  livenps_buffer_free(&left);
  return told || gone;
}

static int read_set(board *on, const picture *what, int which, row_set *out, livenps_error *error) {
  const char *rollup = what->sets[which].rollup;
  *out = (row_set){.rollup = rollup};
  if (!rollup) {
    return 0;
  }
  if (which == WHOLE) {
    out->rows = livenps_alloc(sizeof *out->rows);
    out->rows[0].id = livenps_copy("all", 3);
    out->count = 1;
  } else if (livenps_views_ids(on->redis, &on->keys, rollup, &out->rows, &out->count, error) != 0) {
    *out = (row_set){.rollup = rollup};
    return -1;
  }
  out->dirty = livenps_alloc(out->count + 1);
  livenps_row **all = livenps_alloc((out->count + 1) * sizeof *all);
  for (size_t i = 0; i < out->count; i++) {
    all[i] = &out->rows[i];
  }
  int result = livenps_views_read(on->redis, &on->keys, rollup, what->window, all, out->count, error);
  free(all);
  if (result != 0) {
    set_free(out);
  }
  return result;
}

/* A copy of the set in which the rows that messages named are read anew. */
static int read_dirty(board *on, const picture *what, int which, row_set *out, livenps_error *error) {
  const row_set *old = &what->sets[which];
  *out = (row_set){.rollup = old->rollup, .count = old->count};
  out->rows = livenps_alloc((old->count + 1) * sizeof *out->rows);
  out->dirty = livenps_alloc(old->count + 1);
  livenps_row **some = livenps_alloc((old->count + 1) * sizeof *some);
  size_t asked = 0;
  for (size_t i = 0; i < old->count; i++) {
    out->rows[i] = old->rows[i];
    out->rows[i].id = livenps_copy(old->rows[i].id, strlen(old->rows[i].id));
    if (old->dirty[i]) {
      some[asked++] = &out->rows[i];
    }
  }
  int result =
      asked ? livenps_views_read(on->redis, &on->keys, old->rollup, what->window, some, asked, error) : 0;
  free(some);
  if (result != 0) {
    set_free(out);
  }
  return result;
}

static void tell_change(board *on, picture *what, const livenps_buffer *change);

/* Reads a picture anew, all of it or what is dirty, and tells its viewers. Either all sets are taken over or none. */
static int read_picture(board *on, picture *what, bool all, livenps_error *error) {
  row_set found[SETS] = {{0}};
  livenps_buffer change = {0};
  for (int s = 0; s < SETS; s++) {
    int result = all ? read_set(on, what, s, &found[s], error) : read_dirty(on, what, s, &found[s], error);
    if (result != 0) {
      while (s-- > 0) {
        set_free(&found[s]);
      }
      return -1;
    }
  }
  bool changed = false;
  livenps_buffer_print(&change, "event: change\ndata: {\"sets\":[");
  for (int s = 0; s < SETS; s++) {
    livenps_buffer_print(&change, s ? "," : "");
    changed |= tell_difference(&change, &what->sets[s], &found[s]);
    set_free(&what->sets[s]);
    what->sets[s] = found[s];
  }
  livenps_buffer_print(&change, "]}\n\n");
  what->dirty = false;
  if (all) {
    what->read_at_ms = livenps_monotonic_ms();
    what->stale = what->more = false;
  }
  if (changed || what->version == 0) {
    what->version++;
    livenps_buffer_free(&what->full);
    tell_change(on, what, &change);
  }
  livenps_buffer_free(&change);
  return 0;
}

/* {"sets":[...]} of all rows. */
static const livenps_buffer *full_picture(picture *what) {
  if (!what->full.length) {
    static const row_set nothing;
    livenps_buffer_print(&what->full, "\"sets\":[");
    for (int s = 0; s < SETS; s++) {
      livenps_buffer_print(&what->full, s ? "," : "");
      tell_difference(&what->full, &nothing, &what->sets[s]);
    }
    livenps_buffer_print(&what->full, "]");
  }
  return &what->full;
}

/* {"redis":true,"health":{...},"window":{...}}, or why there is none. */
static int read_health(board *on, picture *what, livenps_error *error) {
  livenps_reply *health = livenps_views_health(on->redis, &on->keys, NULL, error);
  livenps_reply *window = health ? livenps_views_health(on->redis, &on->keys, what->window, error) : NULL;
  if (window) {
    livenps_buffer_free(&what->health);
    livenps_buffer_print(&what->health,
                         "{\"redis\":true,\"listening\":%s,\"health\":", on->listening ? "true" : "false");
    livenps_json_hash(&what->health, health);
    livenps_buffer_print(&what->health, ",\"window\":");
    livenps_json_hash(&what->health, window);
    livenps_buffer_print(&what->health, "}");
    what->health_at_ms = livenps_monotonic_ms();
  }
  livenps_reply_free(health);
  livenps_reply_free(window);
  return window ? 0 : -1;
}

static void health_away(const board *on, livenps_buffer *out) {
  livenps_buffer_print(out, "{\"redis\":false,\"why\":");
  livenps_json_text(out, livenps_text_of(on->away));
  livenps_buffer_print(out, "}");
}

/* ---- viewers -------------------------------------------------------------------------------------------------------- */

static void send_event(const viewer *to, const char *name, const livenps_buffer *data) {
  livenps_buffer head = {0};
  livenps_buffer_print(&head, "event: %s\ndata: ", name);
  livenps_http_send(to->stream, head.at, head.length);
  livenps_http_send(to->stream, data->at, data->length);
  livenps_http_send(to->stream, "\n\n", 2);
  livenps_buffer_free(&head);
}

static void send_full(viewer *to) {
  livenps_buffer data = {0};
  const livenps_buffer *rows = full_picture(to->picture);
  livenps_buffer_print(&data, "{");
  livenps_buffer_add(&data, rows->at, rows->length);
  livenps_buffer_print(&data, "}");
  send_event(to, "picture", &data);
  livenps_buffer_free(&data);
  to->version = to->picture->version;
}

static void tell_change(board *on, picture *what, const livenps_buffer *change) {
  for (viewer *to = on->viewers; to; to = to->next) {
    if (to->picture != what || livenps_http_waiting(to->stream) > BEHIND) {
      continue; /* who is behind gets everything later */
    }
    if (to->version && to->version + 1 == what->version) {
      livenps_http_send(to->stream, change->at, change->length);
      to->version = what->version;
    } else {
      send_full(to);
    }
  }
}

static void tell_health(board *on, const picture *what, const livenps_buffer *health) {
  for (viewer *to = on->viewers; to; to = to->next) {
    if (to->picture != what || livenps_http_waiting(to->stream) > BEHIND) {
      continue;
    }
    if (to->version != what->version && what->version) {
      send_full(to);
    }
    send_event(to, "health", health);
  }
}

static void opened(void *opaque, livenps_http_stream *stream, void *of_stream) {
  board *on = opaque;
  viewer *to = of_stream;
  to->stream = stream;
  to->next = on->viewers;
  on->viewers = to;
  to->picture->viewers++;
  if (to->picture->version && !to->picture->stale) {
    send_full(to);
  }
  /* Something at once, so that the page knows that it is connected: what is not read yet comes with the next tick. */
  livenps_buffer health = {0};
  if (on->away[0]) {
    health_away(on, &health);
    send_event(to, "health", &health);
  } else if (to->picture->health.length) {
    send_event(to, "health", &to->picture->health);
  } else {
    livenps_http_send(stream, ":\n\n", 3);
  }
  livenps_buffer_free(&health);
  on->next_ms = 0;
}

static void closed(void *opaque, void *of_stream) {
  board *on = opaque;
  viewer *gone = of_stream;
  for (viewer **at = &on->viewers; *at; at = &(*at)->next) {
    if (*at == gone) {
      *at = gone->next;
      gone->picture->viewers--;
      gone->picture->used_at_ms = livenps_monotonic_ms();
      break;
    }
  }
  free(gone);
}

/* ---- what Redis says --------------------------------------------------------------------------------------------------- */

static int compare_id(const void *key, const void *row) {
  return strcmp(key, ((const livenps_row *)row)->id);
}

/* A view changed: "<rollup>:<id>:<window>". In an id there is no colon. */
static void note_view(board *on, const char *name) {
  const char *first = strchr(name, ':'), *last = strrchr(name, ':');
  if (!first || first == last) {
    return;
  }
  char *id = livenps_copy(first + 1, (size_t)(last - first - 1));
  for (picture *what = on->pictures; what; what = what->next) {
    if (strcmp(last + 1, what->window) != 0) {
      continue;
    }
    for (int s = 0; s < SETS; s++) {
      row_set *set = &what->sets[s];
      if (!set->rollup || strlen(set->rollup) != (size_t)(first - name) ||
          strncmp(set->rollup, name, (size_t)(first - name)) != 0) {
        continue;
      }
      const livenps_row *row =
          set->count ? bsearch(id, set->rows, set->count, sizeof *set->rows, compare_id) : NULL;
      if (row) {
        set->dirty[row - set->rows] = what->dirty = true;
      } else {
        what->more = true; /* a new one */
      }
    }
  }
  free(id);
}

static void note_message(board *on, const livenps_buffer *message) {
  json_t *root = json_loadb(message->at, message->length, 0, NULL);
  const json_t *changed = json_object_get(root, "changed");
  for (size_t i = 0; i < json_array_size(changed); i++) {
    const char *name = json_string_value(json_array_get(changed, i));
    if (name) {
      note_view(on, name);
    }
  }
  if (json_integer_value(json_object_get(root, "more")) > 0 || !json_is_array(changed)) {
    for (picture *what = on->pictures; what; what = what->next) {
      what->more = true;
    }
  }
  json_decref(root);
}

static void listen_again(board *on, int64_t now) {
  livenps_error error = {0};
  on->listen_at_ms = now + LISTEN_MS;
  if (livenps_redis_subscribe(on->channel, on->channel_name, &error) == 0) {
    on->listening = true;
    for (picture *what = on->pictures; what; what = what->next) {
      what->stale = true; /* what was said meanwhile was not heard */
    }
    return;
  }
  static livenps_limit limit = {.interval_ms = 60000};
  livenps_log_limited(&limit, LIVENPS_WARN, "board", "the channel cannot be heard, asking instead: %s",
                      error.text);
}

static void hear(board *on) {
  livenps_buffer message = {0};
  livenps_error error = {0};
  int result = 0;
  while (on->listening && (result = livenps_redis_message(on->channel, &message, &error)) == 1) {
    note_message(on, &message);
    message.length = 0;
  }
  if (result < 0) {
    on->listening = false;
    on->listen_at_ms = 0;
  }
  livenps_buffer_free(&message);
}

/* After an error nobody knows what is still so. */
static void redis_away(board *on, int64_t began_ms, const livenps_error *error) {
  int64_t now = livenps_monotonic_ms(), pause = (now - began_ms) * AWAY_SHARE;
  pause = pause < AWAY_MS ? AWAY_MS : pause > AWAY_MOST_MS ? AWAY_MOST_MS : pause;
  on->away_until_ms = now + pause;
  if (!on->away[0]) {
    livenps_log(LIVENPS_WARN, "board", "%s", error->text);
  }
  snprintf(on->away, sizeof on->away, "%s", error->text);
  for (picture *what = on->pictures; what; what = what->next) {
    what->stale = true;
    livenps_buffer health = {0};
    health_away(on, &health);
    tell_health(on, what, &health);
    livenps_buffer_free(&health);
  }
}

static void redis_is_back(board *on) {
  if (on->away[0]) {
    livenps_log(LIVENPS_INFO, "board", "Redis answers again");
    on->away[0] = '\0';
  }
}

static int refresh(board *on, picture *what, int64_t now, livenps_error *error) {
  int64_t age = now - what->read_at_ms;
  bool all = what->stale || age >= (on->listening ? SWEEP_MS : POLL_MS) || (what->more && age >= MORE_MS);
  /* Small ones are read at once when a series is new: who starts wants to see it. */
  all |= what->more && what->sets[ROWS].count < 1000;
  if ((all || what->dirty) && read_picture(on, what, all, error) != 0) {
    return -1;
  }
  if (now - what->health_at_ms >= HEALTH_MS) {
    if (read_health(on, what, error) != 0) {
      return -1;
    }
    tell_health(on, what, &what->health);
  }
  return 0;
}

static void step(board *on) {
  hear(on);
  int64_t now = livenps_monotonic_ms();
  if (!on->viewers || now < on->next_ms || now < on->away_until_ms) {
    return;
  }
  on->next_ms = now + TICK_MS;
  livenps_error error = {0};
  if (on->away[0] && livenps_redis_connect(on->redis, &error) != 0) {
    redis_away(on, now, &error);
    return;
  }
  if (!on->listening && now >= on->listen_at_ms) {
    listen_again(on, now);
  }
  for (picture *what = on->pictures; what; what = what->next) {
    if (what->viewers && refresh(on, what, now, &error) != 0) {
      redis_away(on, now, &error);
      return;
    }
  }
  redis_is_back(on);
  forget_pictures(on, now);
}

/* ---- answers ---------------------------------------------------------------------------------------------------------- */

static const char type_json[] = "application/json";

static void answer_error(livenps_http_answer *answer, int status, const char *text) {
  answer->status = status;
  answer->type = type_json;
  livenps_buffer_print(&answer->body, "{\"error\":");
  livenps_json_text(&answer->body, livenps_text_of(text));
  livenps_buffer_print(&answer->body, "}\n");
}

static void json_list(livenps_buffer *out, const char *name, const char *const *at, size_t count) {
  livenps_buffer_print(out, "\"%s\":[", name);
  for (size_t i = 0; i < count; i++) {
    livenps_buffer_print(out, i ? "," : "");
    livenps_json_text(out, livenps_text_of(at[i]));
  }
  livenps_buffer_print(out, "],");
}

static void answer_start(const board *on, livenps_http_answer *answer) {
  const livenps_settings *settings = on->settings;
  livenps_buffer *out = &answer->body;
  answer->status = 200;
  answer->type = type_json;
  livenps_buffer_print(out, "{\"namespace\":\"%s\",", settings->namespace_);
  json_list(out, "fields", livenps_read_fields, LIVENPS_FIELD_COUNT);
  json_list(out, "rollups", (const char *const *)settings->rollups.at, settings->rollups.count);
  json_list(out, "trends", (const char *const *)settings->trend_rollups.at, settings->trend_rollups.count);
  livenps_buffer_print(out, "\"windows\":[");
  for (size_t i = 0; i < settings->windows.count; i++) {
    livenps_window window;
    livenps_error error = {0};
    if (livenps_window_parse(settings->windows.at[i], &window, &error) == 0) {
      livenps_buffer_print(out, "%s{\"name\":\"%s\",\"length_ms\":%" PRId64 ",\"slice_ms\":%" PRId64 "}",
                           i ? "," : "", window.name, window.length_ms, window.slice_ms);
    }
  }
  livenps_buffer_print(out, "],\"window\":\"%s\",\"minimum_n\":%" PRId64 ",\"reliable_n\":%" PRId64 "}\n",
                       settings->table_window, settings->minimum_n, settings->reliable_n);
}

/* The roll-up and window that a request asks for; false and answered when there are none such. */
static bool asked_for(const board *on, const livenps_http_request *request, const char **rollup,
                      const char **window, livenps_http_answer *answer) {
  livenps_error error = {0};
  *rollup = livenps_http_query(request, "rollup");
  *window = livenps_http_query(request, "window");
  *rollup = *rollup ? *rollup : "touchpoint";
  *window = *window ? *window : on->settings->table_window;
  if (strlen(*rollup) > 63 || strlen(*window) > 15) {
    answer_error(answer, 400, "no such roll-up or window");
    return false;
  }
  if (livenps_views_check(on->settings, *rollup, *window, &error) != 0) {
    answer_error(answer, 400, error.text);
    return false;
  }
  return true;
}

/* While Redis is away, its error is the answer: another attempt of every request would hold up all others. */
static bool is_away(board *on, livenps_http_answer *answer) {
  if (!on->away[0] || livenps_monotonic_ms() >= on->away_until_ms) {
    return false;
  }
  answer_error(answer, 503, on->away);
  return true;
}

static void answer_views(board *on, const livenps_http_request *request, livenps_http_answer *answer) {
  const char *rollup, *window;
  if (!asked_for(on, request, &rollup, &window, answer) || is_away(on, answer)) {
    return;
  }
  int64_t now = livenps_monotonic_ms();
  livenps_error error = {0};
  picture *what = picture_of(on, rollup, window);
  bool all = what->stale || !what->viewers || now - what->read_at_ms >= POLL_MS;
  if ((all && now - what->read_at_ms >= TICK_MS && read_picture(on, what, true, &error) != 0) ||
      read_health(on, what, &error) != 0) {
    redis_away(on, now, &error);
    answer_error(answer, 503, error.text);
    return;
  }
  redis_is_back(on);
  const livenps_buffer *rows = full_picture(what);
  answer->status = 200;
  answer->type = type_json;
  livenps_buffer_print(&answer->body, "{\"health\":");
  livenps_buffer_add(&answer->body, what->health.at, what->health.length);
  livenps_buffer_print(&answer->body, ",");
  livenps_buffer_add(&answer->body, rows->at, rows->length);
  livenps_buffer_print(&answer->body, "}\n");
}

static void answer_live(board *on, const livenps_http_request *request, livenps_http_answer *answer) {
  const char *rollup, *window;
  if (!asked_for(on, request, &rollup, &window, answer)) {
    return;
  }
  viewer *to = livenps_alloc(sizeof *to);
  to->picture = picture_of(on, rollup, window);
  *answer = (livenps_http_answer){.status = 200, .type = "text/event-stream", .stream = true, .opaque = to};
}

static void answer_trend(board *on, const livenps_http_request *request, livenps_http_answer *answer) {
  const char *rollup, *window, *ids[TRENDS];
  if (!asked_for(on, request, &rollup, &window, answer) || is_away(on, answer)) {
    return;
  }
  size_t count = livenps_http_queries(request, "id", ids, TRENDS);
  livenps_buffer out = {0};
  livenps_buffer_print(&out, "{\"series\":[");
  for (size_t i = 0; i < count; i++) {
    livenps_buffer key = {0};
    livenps_error error = {0};
    int64_t began_ms = livenps_monotonic_ms();
    if (strlen(ids[i]) > LONGEST_ID) {
      livenps_buffer_free(&out);
      answer_error(answer, 400, "no such series");
      return;
    }
    livenps_buffer_print(&key, "%strend:%s:%s:%s", on->keys.prefix, rollup, ids[i], window);
    livenps_buffer_add(&key, "", 1);
    const char *argv[] = {"XRANGE", key.at, "-", "+", "COUNT", "1000"};
    livenps_reply *reply = livenps_redis_command(on->redis, &error, 6, argv, NULL);
    livenps_buffer_free(&key);
    if (!reply) {
      livenps_buffer_free(&out);
      redis_away(on, began_ms, &error);
      answer_error(answer, 503, error.text);
      return;
    }
    livenps_buffer_print(&out, "%s{\"id\":", i ? "," : "");
    livenps_json_text(&out, livenps_text_of(ids[i]));
    livenps_buffer_print(&out, ",\"points\":");
    livenps_json_trend(&out, reply);
    livenps_buffer_print(&out, "}");
    livenps_reply_free(reply);
  }
  livenps_buffer_print(&out, "]}\n");
  *answer = (livenps_http_answer){.status = 200, .type = type_json, .body = out};
}

static bool is_private(void *opaque, const char *path) {
  (void)opaque;
  return strncmp(path, "/api/", 5) == 0;
}

static void answer_request(void *opaque, livenps_http_request *request, livenps_http_answer *answer) {
  board *on = opaque;
  const char *path = livenps_http_path(request);
  const livenps_page *page = livenps_page_find(path);
  if (page) {
    *answer = (livenps_http_answer){.status = 200, .type = page->type, .constant = page->content};
  } else if (strcmp(path, "/api/start") == 0) {
    answer_start(on, answer);
  } else if (strcmp(path, "/api/views") == 0) {
    answer_views(on, request, answer);
  } else if (strcmp(path, "/api/live") == 0) {
    answer_live(on, request, answer);
  } else if (strcmp(path, "/api/trend") == 0) {
    answer_trend(on, request, answer);
  }
}

/* ---- the command -------------------------------------------------------------------------------------------------------- */

int livenps_board(const livenps_settings *settings) {
  livenps_error error = {0};
  board on = {.settings = settings};
  char *token = NULL;
  int code = 0;
  livenps_keys_make(&on.keys, settings->namespace_);
  snprintf(on.channel_name, sizeof on.channel_name, "%supdates", on.keys.prefix);
  if (livenps_http_token("board", settings->board_token_file, &token, &error) != 0 ||
      livenps_redis_open(&on.redis, settings, &error) != 0 ||
      livenps_redis_open(&on.channel, settings, &error) != 0) {
    goto failed;
  }
  /* A Redis that is away is waited for, and the page says so; one that refuses us is for whoever starts this to mend. */
  int64_t began_ms = livenps_monotonic_ms();
  if (livenps_redis_connect(on.redis, &error) != 0) {
    if (error.code != LIVENPS_E_LOST) {
      goto failed;
    }
    redis_away(&on, began_ms, &error);
    livenps_error_clear(&error);
  }
  const livenps_http_config config = {.name = "board",
                                      .listen = settings->board_listen,
                                      .token = token,
                                      .hosts = (const char *const *)settings->board_hosts.at,
                                      .host_count = settings->board_hosts.count,
                                      .opaque = &on,
                                      .is_private = is_private,
                                      .answer = answer_request,
                                      .opened = opened,
                                      .closed = closed};
  if (livenps_http_open(&on.http, &config, &error) != 0) {
    goto failed;
  }
  printf("livenps board of namespace %s: %s\n", settings->namespace_, livenps_http_url(on.http));
  fflush(stdout);
  livenps_service_ready("namespace %s: %s", settings->namespace_, livenps_http_url(on.http));
  while (!livenps_stop) {
    livenps_service_turn();
    step(&on);
    livenps_http_turn(on.http, on.listening ? livenps_redis_socket(on.channel) : -1, WAIT_MS);
  }
  livenps_service_stopping();
  goto done;
failed:
  livenps_log(LIVENPS_ERROR, "board", "%s", error.text);
  code = error.code;
done:
  livenps_http_close(on.http);
  while (on.pictures) {
    picture *next = on.pictures->next;
    picture_free(on.pictures);
    on.pictures = next;
  }
  livenps_redis_close(on.channel);
  livenps_redis_close(on.redis);
  livenps_secret_wipe(token);
  return code;
}
