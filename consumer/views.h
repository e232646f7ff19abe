#ifndef LIVENPS_VIEWS_H
#define LIVENPS_VIEWS_H

#include "scripts.h"

/* Views as any dashboard reads them: from Redis, by the names of docs/redis.md and nothing else. For the live table and the board.
 * What is no number there, or none that could be, stands there by somebody else's hand and counts as absent. */

#define LIVENPS_READ_FIELDS(X)                                                                               \
  X(NPS, "nps")                                                                                              \
  X(NPS_ROUNDED, "nps_rounded")                                                                              \
  X(NPS_LOW, "nps_low")                                                                                      \
  X(NPS_HIGH, "nps_high")                                                                                    \
  X(N, "n")                                                                                                  \
  X(PROMOTERS, "promoters")                                                                                  \
  X(PASSIVES, "passives")                                                                                    \
  X(DETRACTORS, "detractors")                                                                                \
  X(PREVIOUS_NPS, "previous_nps")                                                                            \
  X(PREVIOUS_N, "previous_n")                                                                                \
  X(CHANGE, "change")                                                                                        \
  X(CHANGE_P, "change_p")                                                                                    \
  X(VERDICT, "change_verdict")                                                                               \
  X(RELIABLE, "reliable")                                                                                    \
  X(CSAT_N, "csat_n")                                                                                        \
  X(CSAT_MEAN, "csat_mean")                                                                                  \
  X(CSAT_SHARE, "csat_share")                                                                                \
  X(CES_N, "ces_n")                                                                                          \
  X(CES_MEAN, "ces_mean")                                                                                    \
  X(INTERACTIONS, "interactions")                                                                            \
  X(INVITATIONS, "invitations")                                                                              \
  X(ANSWERS, "answers")                                                                                      \
  X(RESPONSE, "response_rate")                                                                               \
  X(VALUE_NPS, "value_nps")                                                                                  \
  X(TARGET, "target")                                                                                        \
  X(TARGET_STATE, "target_state")                                                                            \
  X(AS_OF, "as_of_ms")
enum {
#define LIVENPS_FIELD_ENUM(symbol, name) LIVENPS_FIELD_##symbol,
  LIVENPS_READ_FIELDS(LIVENPS_FIELD_ENUM)
#undef LIVENPS_FIELD_ENUM
      LIVENPS_FIELD_COUNT
};
extern const char *const livenps_read_fields[LIVENPS_FIELD_COUNT];

typedef struct {
  char *id; /* owned; percent-encoded, as it stands in the keys */
  int64_t n;
  bool there; /* the view exists */
  bool has[LIVENPS_FIELD_COUNT];
  double value[LIVENPS_FIELD_COUNT];
} livenps_row;

void livenps_rows_free(livenps_row *rows, size_t count); /* NULL is fine */

/* All ids of the roll-up, from its index, each once and sorted by id; at most LIVENPS_MOST_SERIES. The caller frees the rows. */
enum { LIVENPS_MOST_SERIES = 100000 };
int livenps_views_ids(livenps_redis *redis, const livenps_keys *keys, const char *rollup, livenps_row **out,
                      size_t *count, livenps_error *error);

/* Only n of each row; -1 for one without a view. Steps of bounded size, so that nobody waits long for the same Redis. */
int livenps_views_counts(livenps_redis *redis, const livenps_keys *keys, const char *rollup,
                         const char *window, livenps_row *rows, size_t count, livenps_error *error);

/* Everything of the rows pointed to, in steps likewise. After an error some rows may be new and others old. */
int livenps_views_read(livenps_redis *redis, const livenps_keys *keys, const char *rollup, const char *window,
                       livenps_row **rows, size_t count, livenps_error *error);

/* A number as views and trends have it: false when the text is none (NaN too), or beyond what can be counted. */
bool livenps_view_number(const livenps_reply *reply, double *value);

/* HGETALL of nps:{ns}:health, or of nps:{ns}:health:<window>; the caller frees the reply. */
livenps_reply *livenps_views_health(livenps_redis *redis, const livenps_keys *keys, const char *window,
                                    livenps_error *error);
/* A whole number out of such a reply; false and untouched when it is not there. */
bool livenps_hash_value(const livenps_reply *reply, const char *field, int64_t *value);

/* The roll-up and window must be ones that the settings have, else a typing error would look like silence. */
int livenps_views_check(const livenps_settings *settings, const char *rollup, const char *window,
                        livenps_error *error);

#endif
