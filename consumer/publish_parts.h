#ifndef LIVENPS_PUBLISH_PARTS_H
#define LIVENPS_PUBLISH_PARTS_H

/* What the files of the publisher share: publish.c (steps, views, the tick), retire.c (what no longer exists), trend.c, health.c. */

#include "number.h"
#include "publish.h"

#include <jansson.h>

enum { LIVENPS_UPDATES_NAMES = 1000 }; /* names in one message of `updates` */

/* A trend: one roll-up and window with a stream for every series. */
typedef struct {
  size_t rollup, window;
  int64_t spacing_ms;
  int64_t last_ms;  /* end of the last point written; INT64_MIN: not known */
  bool stale;       /* the streams in Redis are of another lineage */
  char **with_data; /* sorted ids with data in the last point: those that fall silent get a closing point */
  size_t count;
  bool counted; /* with_data is known */
} livenps_trend;

struct livenps_publisher {
  livenps_publisher_config config;
  char last[64]; /* the publish id that ought to stand in meta */
  char serial_prefix[17];
  uint64_t serial;
  bool everything;
  bool went_back;          /* at the last REPUBLISH: what stood there was not a later one of ours */
  int64_t active_since_ms; /* the clock when everything was published first; 0: not yet */
  livenps_ops ops;
  const livenps_holder *holder; /* of the running tick */
  livenps_fence fence;
  livenps_error *error;
  json_t *changed; /* of the running tick */
  size_t more;
  bool *touched_index; /* by roll-up: renew its expiry */
  bool *touched_rank;  /* by roll-up and window */
  livenps_trend *trends;
  size_t trend_count, trend_next;
  size_t sweep_next; /* pair of roll-up and window that is renewed next */
  int64_t sweep_ms;  /* the clock when it was the turn of the one before */
  char ttl[24];
};

/* -- texts of a view, in the order of livenps_view_fields ------------------------------------------------------------ */
enum { LIVENPS_VIEW_FIELDS = 30 };

typedef struct {
  char text[LIVENPS_VIEW_FIELDS][LIVENPS_NUMBER_SIZE]; /* "" where withheld */
} livenps_view_texts;

void livenps_view_print(const livenps_view *view, int64_t minimum_n, livenps_view_texts *out);

/* -- steps (publish.c) ------------------------------------------------------------------------------------------------ */
/* Sends what is gathered in ops. -1 on an error or a fence; both end the tick. */
int livenps_publish_flush(livenps_publisher *publisher);
int livenps_publish_flush_when_full(livenps_publisher *publisher);

/* Keys grow with ids (256 bytes a dimension, four dimensions at most), so a buffer that is reused holds them. */
typedef struct {
  char text[1400];
  size_t length;
} livenps_key_text;

/* "nps:{ns}:first:second:third"; second and third may be NULL. */
void livenps_publish_key(const livenps_publisher *publisher, livenps_key_text *key, const char *first,
                         const char *second, const char *third);
void livenps_publish_trend_key(const livenps_publisher *publisher, livenps_key_text *key, const char *rollup,
                               const char *id, const char *window);
void livenps_publish_expire(livenps_publisher *publisher, const char *key); /* nothing in a replay */
/* Every key of a series for one window; its place in the index. */
void livenps_publish_remove_window(livenps_publisher *publisher, const char *rollup, const char *id,
                                   const char *window);
void livenps_publish_remove_from_index(livenps_publisher *publisher, const char *rollup, const char *id);

/* -- lists of ids (retire.c) ------------------------------------------------------------------------------------------ */
typedef struct {
  char **at;
  size_t count, capacity;
} livenps_ids;

void livenps_ids_add(livenps_ids *list, const char *at, size_t length);
int livenps_ids_order(const void *a, const void *b); /* of two elements, for qsort and bsearch */
void livenps_ids_sort(livenps_ids *list);
bool livenps_ids_has(char *const *sorted, size_t count, const char *id);
void livenps_ids_free(livenps_ids *list);

/* Where the trends stand in Redis; removes what earlier holders published and is not wanted any more. */
int livenps_publish_take_over(livenps_publisher *publisher, livenps_state *state);

/* -- health (health.c) ------------------------------------------------------------------------------------------------ */
typedef struct {
  int64_t clock, low, lag; /* low 0: not known, lag is not either */
  bool complete;
  int64_t covered_since; /* by the partitions */
} livenps_wholeness;

int64_t livenps_floor_to(int64_t value, int64_t step);
livenps_wholeness livenps_publish_wholeness(const livenps_publisher *publisher, const livenps_state *state,
                                            const livenps_pulse *pulse);
void livenps_publish_health(livenps_publisher *publisher, const livenps_state *state,
                            const livenps_pulse *pulse, const livenps_wholeness *whole);
void livenps_publish_updates(livenps_publisher *publisher, const livenps_wholeness *whole);

/* -- trends (trend.c) ------------------------------------------------------------------------------------------------- */
void livenps_trends_open(livenps_publisher *publisher);
void livenps_trends_close(livenps_publisher *publisher);
/* A series that is forgotten gets no closing point: it has no stream any more. */
void livenps_trends_drop(livenps_publisher *publisher, size_t rollup, const char *id);
void livenps_trend_forget(livenps_trend *what); /* which series the last point had */
livenps_trend *livenps_trend_find(livenps_publisher *publisher, size_t rollup,
                                  size_t window); /* NULL: none */
int livenps_publish_trends(livenps_publisher *publisher, livenps_state *state, const livenps_pulse *pulse,
                           const livenps_wholeness *whole);

#endif
