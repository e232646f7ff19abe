#include "truth.h"

#include "common/name.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  int64_t second, value;
  int32_t touchpoint;
  int8_t channel, segment, stage; /* -1: none */
  uint8_t type, scale;
  int8_t score;
  bool has_value, acknowledged;
} seen;

struct livenps_truth {
  FILE *file;
  char *path;
  const livenps_generator *generator;
  seen *events;
  size_t count, capacity;
};

/* The roll-ups of the default configuration: dimensions, -1 where there are fewer than two. */
static const struct {
  const char *name;
  int first, second;
} rollups[] = {
    {"all", -1, -1},
    {"channel", LIVENPS_CHANNEL, -1},
    {"segment", LIVENPS_SEGMENT, -1},
    {"stage", LIVENPS_STAGE, -1},
    {"touchpoint", LIVENPS_TOUCHPOINT, -1},
    {"touchpoint|channel", LIVENPS_TOUCHPOINT, LIVENPS_CHANNEL},
};

int livenps_truth_open(livenps_truth **out, const char *path, const livenps_generator *generator,
                       livenps_error *error) {
  FILE *file = fopen(path, "w");
  if (!file)
    return livenps_fail(error, LIVENPS_E_USAGE, "truth file %s: %s", path, strerror(errno));
  livenps_truth *truth = livenps_alloc(sizeof *truth);
  *truth = (livenps_truth){.file = file, .path = livenps_copy(path, strlen(path)), .generator = generator};
  *out = truth;
  return 0;
}

void livenps_truth_close(livenps_truth *truth) {
  if (!truth)
    return;
  if (truth->file)
    fclose(truth->file);
  free(truth->path);
  free(truth->events);
  free(truth);
}

static int64_t floor_second(int64_t ms) {
  return ms >= 0 ? ms / 1000 : -((999 - ms) / 1000);
}

size_t livenps_truth_add(livenps_truth *truth, const livenps_generated *generated) {
  const livenps_event *event = &generated->event;
  if (truth->count == truth->capacity) {
    truth->capacity = truth->capacity ? truth->capacity * 2 : 4096;
    truth->events = livenps_resize(truth->events, truth->capacity * sizeof *truth->events);
  }
  truth->events[truth->count] = (seen){.second = floor_second(event->time_ms),
                                       .value = event->value,
                                       .touchpoint = generated->index[LIVENPS_TOUCHPOINT],
                                       .channel = (int8_t)generated->index[LIVENPS_CHANNEL],
                                       .segment = (int8_t)generated->index[LIVENPS_SEGMENT],
                                       .stage = (int8_t)generated->index[LIVENPS_STAGE],
                                       .type = (uint8_t)event->type,
                                       .scale = (uint8_t)event->scale,
                                       .score = (int8_t)event->score,
                                       .has_value = event->has_value};
  return truth->count++;
}

void livenps_truth_acknowledge(livenps_truth *truth, size_t number) {
  assert(number < truth->count);
  truth->events[number].acknowledged = true;
}

/* ---- counting ---- */

typedef struct {
  int32_t first, second_index; /* of the roll-up's dimensions */
  int64_t second;
  const seen *event;
} line_key;

typedef struct {
  int64_t histogram[11], csat[5], ces[7];
  int64_t interactions, invitations, answers;
  int64_t value_promoters, value_passives, value_detractors;
} tallied;

static int32_t dimension_of(const seen *event, int dimension) {
  switch (dimension) {
  case LIVENPS_TOUCHPOINT: return event->touchpoint;
  case LIVENPS_CHANNEL: return event->channel;
  case LIVENPS_SEGMENT: return event->segment;
  case LIVENPS_STAGE: return event->stage;
  default: return 0;
  }
}

static int compare_keys(const void *left, const void *right) {
  const line_key *a = left, *b = right;
  if (a->first != b->first)
    return a->first < b->first ? -1 : 1;
  if (a->second_index != b->second_index)
    return a->second_index < b->second_index ? -1 : 1;
  return a->second < b->second ? -1 : a->second > b->second;
}

static void count_event(tallied *tally, const seen *event) {
  if (event->type == LIVENPS_INTERACTION) {
    tally->interactions++;
    return;
  }
  if (event->type == LIVENPS_INVITATION) {
    tally->invitations++;
    return;
  }
  tally->answers++;
  if (event->scale == LIVENPS_SCALE_CSAT)
    tally->csat[event->score - 1]++;
  if (event->scale == LIVENPS_SCALE_CES)
    tally->ces[event->score - 1]++;
  if (event->scale != LIVENPS_SCALE_NPS)
    return;
  tally->histogram[event->score]++;
  if (!event->has_value)
    return;
  if (event->score >= 9)
    tally->value_promoters += event->value;
  else if (event->score >= 7)
    tally->value_passives += event->value;
  else
    tally->value_detractors += event->value;
}

static void print_array(FILE *file, const char *name, const int64_t *values, int count) {
  fprintf(file, ",\"%s\":[", name);
  for (int i = 0; i < count; i++)
    fprintf(file, "%s%" PRId64, i ? "," : "", values[i]);
  fputc(']', file);
}

/* Encoded names still need JSON's own escapes. */
static void print_id(FILE *file, const char *id, size_t length) {
  for (size_t i = 0; i < length; i++) {
    if (id[i] == '"' || id[i] == '\\')
      fputc('\\', file);
    fputc(id[i], file);
  }
}

static void print_line(livenps_truth *truth, size_t rollup, const line_key *key, const tallied *tally,
                       livenps_buffer *id) {
  id->length = 0;
  if (rollups[rollup].first < 0)
    livenps_buffer_print(id, "all");
  if (rollups[rollup].first >= 0)
    livenps_name_encode(
        livenps_text_of(livenps_generator_name(truth->generator, rollups[rollup].first, key->first)), id);
  if (rollups[rollup].second >= 0) {
    livenps_buffer_print(id, "|");
    livenps_name_encode(
        livenps_text_of(livenps_generator_name(truth->generator, rollups[rollup].second, key->second_index)),
        id);
  }
  FILE *file = truth->file;
  fprintf(file, "{\"second\":%" PRId64 ",\"rollup\":\"%s\",\"id\":\"", key->second, rollups[rollup].name);
  print_id(file, id->at, id->length);
  fputc('"', file);
  print_array(file, "histogram", tally->histogram, 11);
  print_array(file, "csat", tally->csat, 5);
  print_array(file, "ces", tally->ces, 7);
  fprintf(file,
          ",\"interactions\":%" PRId64 ",\"invitations\":%" PRId64 ",\"answers\":%" PRId64
          ",\"value_promoters\":%" PRId64 ",\"value_passives\":%" PRId64 ",\"value_detractors\":%" PRId64
          "}\n",
          tally->interactions, tally->invitations, tally->answers, tally->value_promoters,
          tally->value_passives, tally->value_detractors);
}

int livenps_truth_write(livenps_truth *truth, livenps_error *error) {
  line_key *keys = livenps_alloc(truth->count * sizeof *keys);
  livenps_buffer id = {0};
  for (size_t r = 0; r < sizeof rollups / sizeof *rollups; r++) {
    size_t count = 0;
    for (size_t i = 0; i < truth->count; i++) {
      const seen *event = &truth->events[i];
      const int32_t first = dimension_of(event, rollups[r].first),
                    second = dimension_of(event, rollups[r].second);
      if (event->acknowledged && first >= 0 && second >= 0)
        keys[count++] = (line_key){first, second, event->second, event};
    }
    qsort(keys, count, sizeof *keys, compare_keys);
    tallied tally = {0};
    for (size_t i = 0; i < count; i++) {
      count_event(&tally, keys[i].event);
      if (i + 1 < count && !compare_keys(&keys[i], &keys[i + 1]))
        continue;
      print_line(truth, r, &keys[i], &tally, &id);
      memset(&tally, 0, sizeof tally);
    }
  }
  free(keys);
  livenps_buffer_free(&id);
  const bool failed = ferror(truth->file) != 0;
  if (fclose(truth->file) || failed) {
    truth->file = NULL;
    return livenps_fail(error, LIVENPS_E_STARTUP, "truth file %s could not be written: %s", truth->path,
                        strerror(errno));
  }
  truth->file = NULL;
  return 0;
}
