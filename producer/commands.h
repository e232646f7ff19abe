#ifndef LIVENPS_PRODUCER_COMMANDS_H
#define LIVENPS_PRODUCER_COMMANDS_H

#include "../common/settings.h"
#include "../common/stop.h"

/* What the subcommands of livenps-producer do; main.c parses and calls. Each returns the exit code. */

typedef struct {
  const char *topic;
  const char **files; /* "-" is stdin */
  size_t file_count;
  bool history; /* record timestamp = event time, after checking the topic's retention */
} livenps_publish_options;
int livenps_publish(const livenps_settings *settings, const livenps_publish_options *options);

typedef struct {
  const char *topic; /* chooses the mapping; may be NULL */
  const char **files;
  size_t file_count;
} livenps_check_options;
int livenps_check(const livenps_settings *settings, const livenps_check_options *options);

typedef struct {
  const char *topic; /* required unless dry_run */
  uint64_t seed;
  int64_t count; /* 0: until stopped */
  double rate;   /* events per second, 0 = max */
  bool has_start;
  int64_t start_ms; /* with it the times are simulated from here (history), else they follow the wall clock */
  int touchpoints;  /* how many */
  bool incident;    /* one touchpoint goes bad some way in */
  bool dry_run;     /* print the events, one a line, instead of publishing */
  const char *truth; /* file: JSON lines, second, rollup, id and counts of all acknowledged events */
  bool cloudevents;  /* structured CloudEvents instead of the plain form */
} livenps_simulate_options;
int livenps_simulate(const livenps_settings *settings, const livenps_simulate_options *options);

typedef struct {
  const char **topics; /* at least one; /events is the first */
  size_t topic_count;
} livenps_serve_options;
/* Takes events over HTTP until a signal; each request is answered when the broker has acknowledged all of its events. */
int livenps_serve(const livenps_settings *settings, const livenps_serve_options *options);

typedef struct {
  int brokers;
  const char **topics; /* "NAME:PARTITIONS" */
  size_t topic_count;
} livenps_embedded_options;
/* librdkafka's mock cluster, for trying things out: prints "host:port[,...]" on the first line, runs until a signal. */
int livenps_embedded(const livenps_settings *settings, const livenps_embedded_options *options);

#endif
