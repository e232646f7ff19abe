#ifndef LIVENPS_KEEP_H
#define LIVENPS_KEEP_H

#include "manifest.h"

/* Keeps snapshots in Kafka, where they outlive Redis: the chunks of a snapshot as records of a compacted topic with one partition, then,
 * when all are acknowledged, a manifest (manifest.h); and finds the best one again. Writing has a thread, a producer and a Redis
 * connection of its own, so that the aggregator's tick waits for neither Kafka nor it.
 *
 * What makes any zombie harmless, however late its records come:
 * 1. A manifest lists only chunks that its own writer wrote in the same tenure, so nobody else's tombstone is for them, except
 * 2. that a writer removes what it read at the beginning of its tenure, before which whoever wrote it had lost the lease; and only once a
 *    manifest of its own is acknowledged that has read everything which the removed one had.
 * 3. The newest two manifests of a tenure stay. Before the second one, so does the furthest of those before it; and one that may lose fewer
 *    records than the newest stays until somebody has looked whether it does.
 * 4. Who reads takes the best manifest (manifest.h) whose chunks are all there with the right sums; another's may be older, never wrong. */
typedef struct livenps_keep livenps_keep;

/* Makes the topic if it is missing. *out is NULL when there is to be none (snapshot.topic: none, the embedded cluster). STARTUP: the topic
 * is one that would lose snapshots (not compacted, several partitions). */
int livenps_keep_open(livenps_keep **out, const livenps_settings *settings, const char *admit_hash,
                      livenps_error *error);
/* The thread. metrics: borrowed; may be NULL. */
void livenps_keep_start(livenps_keep *keep, livenps_metrics *metrics);
void livenps_keep_close(livenps_keep *keep);

/* What the aggregator is given; borrowed, lives as long as keep. NULL for NULL. */
const livenps_keeper *livenps_keep_keeper(const livenps_keep *keep);

/* ---- between keep.c, which writes, and recall.c, which reads ------------------------------------------------------- */

/* One key of the topic: its newest record. */
typedef struct {
  char *key;
  int64_t offset;
  size_t size;
  bool gone;                  /* a tombstone */
  bool listed;                /* free to use */
  livenps_manifest *manifest; /* of a record manifest/... that can be read */
} livenps_recall_record;
typedef struct {
  livenps_recall_record *at;
  size_t count, capacity;
  size_t *index; /* hash -> place + 1 */
  size_t index_size;
} livenps_recall;

typedef struct {
  int (*at)(void *opaque, livenps_error *error);
  void *opaque;
} livenps_beat;

void livenps_recall_free(livenps_recall *recall); /* legal on {0} */
livenps_recall_record *livenps_recall_find(livenps_recall *recall, const char *key);
void livenps_recall_note(livenps_recall *recall, livenps_text key, int64_t offset, livenps_text value);
/* Whether every piece of its chunks is there in its size. */
bool livenps_recall_complete(livenps_recall *recall, const livenps_manifest *manifest);
/* The key of a piece of a chunk. Returns out. */
const char *livenps_recall_piece(char out[400], const char *tenure, const char *id, size_t piece);

/* A topic, read from its start to the end it has when it is opened. */
typedef struct livenps_recaller livenps_recaller;
/* found false: there is no such topic. LOST: Kafka is away. */
int livenps_recaller_open(livenps_recaller **out, const livenps_settings *settings, const char *topic,
                          bool *found, const livenps_beat *beat, livenps_error *error);
void livenps_recaller_close(livenps_recaller *recaller);
int livenps_recaller_list(livenps_recaller *recaller, livenps_recall *recall, const livenps_beat *beat,
                          livenps_error *error);
/* The chunks of a manifest as a state. E_DATA: damaged; LOST: try later. */
int livenps_recaller_load(livenps_recaller *recaller, livenps_recall *recall,
                          const livenps_manifest *manifest, livenps_state *state, const livenps_beat *beat,
                          livenps_error *error);
/* Reads again the records that the manifest's positions name as their anchors, of partitions in now. *same false: one is another record, so
 * the topic was made anew, or lost its end and grew again; why says which. What is not there any more proves nothing. */
int livenps_recall_anchors(const livenps_settings *settings, const livenps_manifest *manifest,
                           const livenps_beginning *now, size_t count, const livenps_beat *beat, bool *same,
                           char why[256], livenps_error *error);

#endif
