#ifndef LIVENPS_WATCH_H
#define LIVENPS_WATCH_H

#include "aggregate.h"
#include "batch.h"

/* What is asked of Kafka beside the reading: how far the topics reach now, which partitions there are, where to begin, and whether the
 * records that were read are still where they were (rule 11). On handles of its own, because a question on the reading handle waits behind its long poll, and with read_uncommitted, because behind an
 * open transaction the end is further than the last stable offset (kafka: high watermark). A thread asks; all functions are safe
 * from several threads. */
typedef struct livenps_watch livenps_watch;

/* Connects, checks the topics: STARTUP when no broker answers within startup_timeout, a topic is missing or compacted. */
int livenps_watch_open(livenps_watch **out, const livenps_settings *settings, livenps_error *error);
/* The thread. ends: it asks for the ends too (live; a replay's ends are fixed). */
void livenps_watch_start(livenps_watch *watch, bool ends);
void livenps_watch_close(livenps_watch *watch);

/* Which partitions' ends to follow from now on: those of the batch. Called when lanes came or went. */
void livenps_watch_follow(livenps_watch *watch, const livenps_batch *batch);
/* Takes the lanes' stored positions along, for the checks of their anchors, and brings back the newest known ends and what the checks
 * found. Cheap: once a step. */
void livenps_watch_exchange(livenps_watch *watch, livenps_batch *batch);
/* First and next offset of a partition, asked now. stable: the last stable offset instead of the high watermark as end. */
int livenps_watch_bounds(livenps_watch *watch, const char *topic, int32_t partition, bool stable,
                         int64_t *low, int64_t *high, livenps_error *error);

/* The functions of livenps_source (aggregate.h); opaque is the watch. */
int livenps_watch_beginnings(void *watch, int64_t since_ms, livenps_beginning **out, size_t *count,
                             livenps_error *error);
bool livenps_watch_partitions(void *watch, size_t *total);

#endif
