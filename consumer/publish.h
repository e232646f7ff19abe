#ifndef LIVENPS_PUBLISH_H
#define LIVENPS_PUBLISH_H

#include "monitor.h"
#include "scripts.h"
#include "state.h"

/* State -> what dashboards read (docs/redis.md): views, ranks, indexes, trends, health, updates. Every write goes through the
 * publish script in bounded steps, so that commits of the same Redis are not held up. */
typedef struct livenps_publisher livenps_publisher;

typedef struct {
  livenps_redis *redis; /* borrowed, as all pointers here */
  const livenps_keys *keys;
  const livenps_settings *settings;
  const livenps_window *windows;
  size_t window_count;
  const livenps_rollup *rollups;
  size_t rollup_count;
  livenps_metrics *metrics; /* NULL: nobody wants to know */
  bool replay;              /* nothing expires: the result of a replay stays */
} livenps_publisher_config;

/* What health shows beside the state. */
typedef struct {
  int64_t genesis;
  const char *aggregator;
  int64_t instances;      /* writers seen in the log during the last 10 s */
  int64_t last_commit_ms; /* Redis TIME of the newest log entry that was folded */
  int64_t log_bytes, log_max_bytes;
  bool total_known; /* Kafka's metadata are there */
  size_t total;     /* partitions by Kafka's metadata */
  bool finishing;   /* the end of a replay: every trend point is due */
} livenps_pulse;

void livenps_publisher_open(livenps_publisher **out, const livenps_publisher_config *config);
void livenps_publisher_close(livenps_publisher *publisher); /* NULL is fine */

/* A new holder, or a state loaded anew: the next tick publishes everything and removes what no longer exists. last: the publish id
 * that stands in meta. */
void livenps_publisher_reset(livenps_publisher *publisher, const char *last);

/* Publishes what changed at the state's clock, trend points that are due, renewals, health. Runs the script also when nothing changed.
 * fence other than OK: the caller must act on it; everything will be published by the next tick. -1: as livenps_redis_eval. */
int livenps_publisher_tick(livenps_publisher *publisher, const livenps_holder *holder, livenps_state *state,
                           const livenps_pulse *pulse, livenps_fence *fence, livenps_error *error);

/* "nps" and the like; how many there are and the names, for the table, the documents' test and the trends. */
extern const char *const livenps_view_fields[];
extern const size_t livenps_view_field_count;

#endif
