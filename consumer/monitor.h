#ifndef LIVENPS_MONITOR_H
#define LIVENPS_MONITOR_H

#include "../common/event.h"
#include "../common/metrics.h"
#include "../common/settings.h"

/* What an instance says of itself (docs/metrics.md): its metrics, and whether it has caught up. The threads
 * write numbers here, and the exporter's thread reads them; nobody waits. NULL is legal everywhere: nobody wants to know. */
typedef struct livenps_monitor livenps_monitor;

/* symbol, name, kind, unit, label (of livenps_monitor_label), shown only when set, help. Part of the contract: docs/metrics.md. */
#define LIVENPS_MONITOR_LIST(X)                                                                              \
  X(CONSUMED, "livenps_records_consumed_total", COUNTER, 1, NONE, false,                                     \
    "Records taken from Kafka by this instance, also those that it reads again.")                            \
  X(DECODED, "livenps_records_decoded_total", COUNTER, 1, NONE, false,                                       \
    "Of those, the ones whose value was an event.")                                                          \
  X(RECORDS, "livenps_records_total", COUNTER, 1, FATE, false, "Of those, by what became of them.")          \
  X(REJECTED, "livenps_records_rejected_total", COUNTER, 1, REASON, false,                                   \
    "Of those, the rejected ones by reason (docs/events.md).")                                               \
  X(QUARANTINED, "livenps_records_quarantined_total", COUNTER, 1, NONE, false,                               \
    "Rejected records that a quarantine topic has acknowledged.")                                            \
  X(QUARANTINE_PENDING, "livenps_quarantine_pending_records", GAUGE, 1, NONE, false,                         \
    "Rejected records that are not acknowledged yet; the commit waits for them.")                            \
  X(ROWS, "livenps_rows_committed_total", COUNTER, 1, NONE, false,                                           \
    "Rows (cell and second) that accepted records were combined to and committed in.")                       \
  X(COMMITS, "livenps_commits_total", COUNTER, 1, COMMIT, false,                                             \
    "Commits to Redis by result; after any but ok and full, positions are adopted and records read again.")  \
  X(COMMIT_TIME, "livenps_commit_duration_seconds", HISTOGRAM, LIVENPS_METRIC_US, NONE, false,               \
    "How long a commit to Redis took, whatever its result.")                                                 \
  X(ADOPTIONS, "livenps_adoptions_total", COUNTER, 1, NONE, false,                                           \
    "How often the positions were taken from Redis: after a rebalance, a refused commit, an outage.")        \
  X(WENT_BACK, "livenps_positions_went_back_total", COUNTER, 1, NONE, false,                                 \
    "Positions found further back than this instance had committed them: Redis lost commits.")               \
  X(REBALANCES, "livenps_rebalances_total", COUNTER, 1, NONE, false,                                         \
    "How often the group gave partitions to this instance or took some away.")                               \
  X(STRAYS, "livenps_stray_records_total", COUNTER, 1, NONE, false,                                          \
    "Records below the expected offset, dropped, so that none counts twice.")                                \
  X(REFETCHES, "livenps_refetches_total", COUNTER, 1, NONE, false,                                           \
    "Jumps of offsets that were read a second time before they were believed.")                              \
  X(RESTARTS, "livenps_topic_restarts_total", COUNTER, 1, NONE, false,                                       \
    "Partitions found deleted and made anew, or cut, under what was read.")                                  \
  X(ASSIGNED, "livenps_partitions_assigned", GAUGE, 1, NONE, false, "Partitions that this instance reads.")  \
  X(PARTITION_POSITION, "livenps_partition_position", GAUGE, 1, PARTITION, true,                             \
    "The next offset that this instance reads.")                                                             \
  X(PARTITION_LAG, "livenps_partition_lag_records", GAUGE, 1, PARTITION, true,                               \
    "Offsets between that and the end of the partition; absent while the end is not known.")                 \
  X(REDIS_UP, "livenps_redis_up", GAUGE, 1, CONNECTION, false,                                               \
    "1 when this instance could use Redis when it last tried.")                                              \
  X(ACTIVE, "livenps_aggregator_active", GAUGE, 1, NONE, false,                                              \
    "1 in the one instance of a namespace that aggregates.")                                                 \
  X(TERMS, "livenps_aggregator_terms_total", COUNTER, 1, NONE, false,                                        \
    "How often this instance took the aggregator's lease.")                                                  \
  X(ENTRIES, "livenps_log_entries_folded_total", COUNTER, 1, NONE, false,                                    \
    "Entries of the commit log that this instance has folded.")                                              \
  X(RELOADS, "livenps_state_reloads_total", COUNTER, 1, RELOAD, false,                                       \
    "How often the aggregator's state was dropped, by why; all but lease mean that Redis went back.")        \
  X(GENESES, "livenps_geneses_total", COUNTER, 1, ORIGIN, false,                                             \
    "How often this instance began the namespace, by with what.")                                            \
  X(HEALS, "livenps_heals_total", COUNTER, 1, NONE, false,                                                   \
    "How often a snapshot in Kafka was looked for because offsets were lost that it may count.")             \
  X(PUBLISHES, "livenps_publishes_total", COUNTER, 1, NONE, false, "Ticks in which views were published.")   \
  X(REPUBLISHES, "livenps_republishes_total", COUNTER, 1, NONE, false,                                       \
    "How often Redis did not hold the last publish any more, and everything was published again.")           \
  X(PUBLISH_TIME, "livenps_publish_duration_seconds", HISTOGRAM, LIVENPS_METRIC_US, NONE, false,             \
    "How long such a tick took to publish.")                                                                 \
  X(VIEWS, "livenps_views_written_total", COUNTER, 1, NONE, false, "Views written, because they changed.")   \
  X(SNAPSHOTS, "livenps_snapshots_total", COUNTER, 1, STORE, false, "Snapshots of the state, by where to.")  \
  X(SNAPSHOT_TIME, "livenps_snapshot_duration_seconds", HISTOGRAM, LIVENPS_METRIC_US, NONE, false,           \
    "How long a snapshot to Redis took.")                                                                    \
  X(COMPLETE, "livenps_namespace_complete", GAUGE, 1, NONE, true,                                            \
    "1 when every partition is read through until now, as far as complete_lag.")                             \
  X(WINDOW_COMPLETE, "livenps_namespace_window_complete", GAUGE, 1, WINDOW, true,                            \
    "1 when, besides, nothing that the window covers is missing.")                                           \
  X(LAG, "livenps_namespace_lag_seconds", GAUGE, LIVENPS_METRIC_MS, NONE, true,                              \
    "How far the slowest partition is behind; absent while it is not known.")                                \
  X(PARTITION_BEHIND, "livenps_namespace_partition_lag_seconds", GAUGE, LIVENPS_METRIC_MS, PARTITION, true,  \
    "How far each partition is behind.")                                                                     \
  X(CLOCK, "livenps_namespace_clock_seconds", GAUGE, LIVENPS_METRIC_MS, NONE, true,                          \
    "The time that the views are of, in seconds since 1970 by Redis's clock.")                               \
  X(NS_RECORDS, "livenps_namespace_records_total", COUNTER, 1, FATE, true,                                   \
    "Records counted in the namespace, each exactly once, by what became of them.")                          \
  X(NS_REJECTED, "livenps_namespace_records_rejected_total", COUNTER, 1, REASON, true,                       \
    "Of those, the rejected ones by reason.")                                                                \
  X(HOLES, "livenps_namespace_holes_total", COUNTER, 1, NONE, true,                                          \
    "Offsets without a record: transactions, compaction, records that nobody can read.")                     \
  X(GAP, "livenps_namespace_gap_offsets", GAUGE, 1, NONE, true,                                              \
    "Offsets that Kafka deleted before they were read.")                                                     \
  X(INSTANCES, "livenps_namespace_instances", GAUGE, 1, NONE, true,                                          \
    "Instances that committed during the last ten seconds; each of an instance's workers counts.")           \
  X(PARTITIONS, "livenps_namespace_partitions", GAUGE, 1, NONE, true,                                        \
    "Partitions that the namespace has counted records of.")                                                 \
  X(SERIES, "livenps_namespace_series", GAUGE, 1, ROLLUP, true, "Series by roll-up.")                        \
  X(CAPPED, "livenps_namespace_capped", GAUGE, 1, NONE, true,                                                \
    "1 when a roll-up has more names than series_max; the others count in ~other.")                          \
  X(LOG_BYTES, "livenps_namespace_log_bytes", GAUGE, 1, NONE, true,                                          \
    "Bytes of the commit log that no snapshot covers yet.")                                                  \
  X(LOG_MAX, "livenps_namespace_log_max_bytes", GAUGE, 1, NONE, true,                                        \
    "Where the log is full and commits wait.")                                                               \
  X(GENESIS, "livenps_namespace_genesis", GAUGE, 1, NONE, true, "How often the namespace was begun.")

typedef enum {
#define LIVENPS_MONITOR_ENUM(symbol, name, kind, unit, label, later, help) LIVENPS_M_##symbol,
  LIVENPS_MONITOR_LIST(LIVENPS_MONITOR_ENUM)
#undef LIVENPS_MONITOR_ENUM
      LIVENPS_M_COUNT
} livenps_monitor_metric;

/* Indices of labels' values. Fates and reasons are those of event.h; windows and roll-ups those of the settings. */
typedef enum {
  LIVENPS_M_COMMIT_OK,
  LIVENPS_M_COMMIT_CONFLICT, /* the stored positions are not those that this instance started from */
  LIVENPS_M_COMMIT_ANEW,     /* the namespace was flushed, or begun anew */
  LIVENPS_M_COMMIT_FULL,
  LIVENPS_M_COMMIT_LOST /* no answer, so nobody knows */
} livenps_monitor_commit;
typedef enum {
  LIVENPS_M_RELOAD_LEASE,   /* another instance aggregates */
  LIVENPS_M_RELOAD_BROKEN,  /* the log does not continue what was folded */
  LIVENPS_M_RELOAD_GONE,    /* it no longer holds what was folded */
  LIVENPS_M_RELOAD_LINEAGE, /* the namespace was begun anew */
  LIVENPS_M_RELOAD_LATER    /* a later snapshot is stored than the one that was to be */
} livenps_monitor_reload;
typedef enum { LIVENPS_M_FROM_TOPIC, LIVENPS_M_FROM_SNAPSHOT } livenps_monitor_origin;
typedef enum { LIVENPS_M_TO_REDIS, LIVENPS_M_TO_KAFKA } livenps_monitor_store;
typedef enum {
  LIVENPS_M_BY_COMMIT,
  LIVENPS_M_BY_AGGREGATE,
  LIVENPS_M_CONNECTIONS
} livenps_monitor_connection;

/* *out is NULL where metrics.listen is empty. USAGE, STARTUP: it cannot be served there. settings are borrowed. */
int livenps_monitor_open(livenps_monitor **out, const livenps_settings *settings, livenps_error *error);
void livenps_monitor_close(livenps_monitor *monitor); /* first the threads that write */
livenps_metrics *livenps_monitor_metrics(livenps_monitor *monitor);

/* The aggregator: whether it could use Redis when it last tried. */
void livenps_monitor_aggregator(livenps_monitor *monitor, bool redis);
/* A reader, by its number: the same; whether the group has given it partitions (or none), and they may be read; since when all of them
 * were last seen read to their ends (monotonic; INT64_MAX where there are none). */
void livenps_monitor_reading(livenps_monitor *monitor, int reader, bool redis, bool assigned,
                             int64_t caught_up_ms);
/* The aggregator stands by: what it said of the namespace is another's to say. */
void livenps_monitor_standby(livenps_monitor *monitor);

#endif
