/* Drives the state from a script on stdin and prints what it shows, one JSON document a line: the other side of
 * tests/oracle/test_recount.py, which recounts the same raw events by brute force. Without a script it does nothing.
 *
 *   config windows=NAME:LENGTH_MS:SLICE_MS,... rollups=a,b|c,all series_max=N minimum_n=N reliable_n=N q=F targets=NAME=NPS,...
 *   event SECOND TYPE SCALE SCORE VALUE TOUCHPOINT CHANNEL SEGMENT STAGE    "-" is absent, a lone "=" an empty name; %XX is a byte
 *   commit ENTRY_MS     the events so far as one log entry, encoded, decoded and folded
 *   advance CLOCK_MS
 *   views               every view of every roll-up and window, then {"clock": ...}
 *   changed             the views that changed and what is gone, then {"clock": ...}
 *   at ROLLUP WINDOW END_MS
 *   digest
 *   snapshot CHUNK_BYTES  stores dirty chunks and the head, confirms them
 *   load                  continues with a new state made from what is stored
 *   series                number of series and whether the roll-up is capped
 */
#include "consumer/state.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { MANY = 16, STORED = 4096, BATCH = 100000 };

static livenps_window windows[MANY];
static livenps_rollup rollups[MANY];
static livenps_pair targets[MANY];
static livenps_state_config config = {.windows = windows, .rollups = rollups, .targets = targets};
static livenps_state *state;
static int64_t offset;

static livenps_cell cells[BATCH];
static livenps_row rows[BATCH];
static size_t cell_count, row_count, event_count;

static struct {
  char name[96];
  livenps_buffer bytes;
  bool listed;
} stored[STORED];
static size_t stored_count;

static void die(const char *what, const char *where) {
  fprintf(stderr, "state_driver: %s: %s\n", what, where);
  exit(1);
}

static void configure(char *line) {
  for (char *word = strtok_r(line, " ", &line); word; word = strtok_r(NULL, " ", &line)) {
    char *value = strchr(word, '='), *next = NULL;
    if (!value) {
      die("not name=value", word);
    }
    *value++ = '\0';
    if (!strcmp(word, "series_max")) {
      config.series_max = (size_t)atoll(value);
    } else if (!strcmp(word, "minimum_n")) {
      config.minimum_n = atoll(value);
    } else if (!strcmp(word, "reliable_n")) {
      config.reliable_n = atoll(value);
    } else if (!strcmp(word, "q")) {
      config.fdr = atof(value);
    } else if (!strcmp(word, "windows")) {
      config.window_count = 0;
      for (char *item = strtok_r(value, ",", &next); item; item = strtok_r(NULL, ",", &next)) {
        livenps_window *window = &windows[config.window_count++];
        if (sscanf(item, "%15[^:]:%" SCNd64 ":%" SCNd64, window->name, &window->length_ms,
                   &window->slice_ms) != 3) {
          die("not a window", item);
        }
      }
    } else if (!strcmp(word, "rollups")) {
      config.rollup_count = 0;
      for (char *item = strtok_r(value, ",", &next); item; item = strtok_r(NULL, ",", &next)) {
        livenps_rollup *rollup = &rollups[config.rollup_count++];
        memset(rollup, 0, sizeof *rollup);
        snprintf(rollup->name, sizeof rollup->name, "%s", item);
        for (char *part = item; part && strcmp(rollup->name, "all");) {
          char *end = strchr(part, '|');
          if (end) {
            *end++ = '\0';
          }
          int d = 0;
          while (d < LIVENPS_DIMENSIONS && strcmp(livenps_dimension_names[d], part)) {
            d++;
          }
          assert(d < LIVENPS_DIMENSIONS);
          rollup->dimensions[rollup->count++] = d;
          part = end;
        }
      }
    } else if (!strcmp(word, "targets")) {
      config.target_count = 0;
      for (char *item = strtok_r(value, ",", &next); item; item = strtok_r(NULL, ",", &next)) {
        char *nps = strrchr(item, '=');
        *nps++ = '\0';
        free(targets[config.target_count].name);
        free(targets[config.target_count].value);
        targets[config.target_count++] = (livenps_pair){strdup(item), strdup(nps)};
      }
    } else {
      die("unknown setting", word);
    }
  }
}

static livenps_text name_of(const char *word) {
  size_t length = strlen(word), to = 0;
  if (!strcmp(word, "-")) {
    return (livenps_text){0};
  }
  char *name = livenps_copy(word, length);
  for (size_t i = strcmp(word, "=") ? 0 : length; i < length; i++) {
    unsigned byte = (unsigned char)word[i];
    if (word[i] == '%') {
      sscanf(word + i + 1, "%2x", &byte);
      i += 2;
    }
    name[to++] = (char)byte;
  }
  return (livenps_text){name, to};
}

static void take_event(char *line) {
  char *word[9], *next = NULL;
  for (int i = 0; i < 9; i++) {
    word[i] = strtok_r(i ? NULL : line, " ", &next);
    if (!word[i]) {
      die("event with too few words", line);
    }
  }
  livenps_event event = {
      .type = (livenps_type)atoi(word[1]), .scale = (livenps_scale)atoi(word[2]), .score = atoi(word[3])};
  event.has_value = strcmp(word[4], "-") != 0;
  event.value = event.has_value ? atoll(word[4]) : 0;
  livenps_cell cell;
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
    cell.dimensions[d] = name_of(word[5 + d]);
  }
  size_t c = 0, r = 0;
  for (; c < cell_count; c++) {
    bool same = true;
    for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
      same &= livenps_text_equal(cells[c].dimensions[d], cell.dimensions[d]);
    }
    if (same) {
      break;
    }
  }
  assert(c < BATCH && row_count < BATCH);
  if (c == cell_count) {
    cells[cell_count++] = cell;
  } else {
    for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
      free((void *)(uintptr_t)cell.dimensions[d].at);
    }
  }
  int64_t second = atoll(word[0]);
  while (r < row_count && (rows[r].cell != c || rows[r].second != second)) {
    r++;
  }
  if (r == row_count) {
    rows[row_count++] = (livenps_row){.cell = (uint32_t)c, .second = second};
  }
  livenps_counters_count(&rows[r].counters, &event);
  event_count++;
}

static void commit(int64_t entry_ms) {
  livenps_advance advance = {.topic = livenps_text_of("t"),
                             .incarnation = 1,
                             .partition = 0,
                             .from = offset,
                             .to = offset + (int64_t)event_count,
                             .through_ms = LIVENPS_THROUGH_NOW,
                             .covered_since_ms = LIVENPS_COVERED_SAME,
                             .accepted = (int64_t)event_count};
  livenps_entry entry = {.writer = livenps_text_of("driver"),
                         .clock_ms = LIVENPS_NO_CLOCK,
                         .advances = &advance,
                         .advance_count = 1,
                         .cells = cells,
                         .cell_count = cell_count,
                         .rows = rows,
                         .row_count = row_count};
  livenps_buffer bytes = {0};
  livenps_entry decoded = {0};
  livenps_error error = {0};
  livenps_entry_encode(&entry, &bytes);
  if (livenps_entry_decode(&decoded, bytes.at, bytes.length, &error) ||
      livenps_state_fold(state, &decoded, entry_ms, &error)) {
    die("commit", error.text);
  }
  offset += (int64_t)event_count;
  livenps_entry_free(&decoded);
  livenps_buffer_free(&bytes);
  for (size_t c = 0; c < cell_count; c++) {
    for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
      free((void *)(uintptr_t)cells[c].dimensions[d].at);
    }
  }
  cell_count = row_count = event_count = 0;
}

static void print_text(const char *name, const char *text) {
  printf(", \"%s\": \"", name);
  for (; *text; text++) {
    if (*text == '"' || *text == '\\') {
      putchar('\\');
    }
    putchar(*text);
  }
  putchar('"');
}

static int print_view(void *opaque, const livenps_view *view) {
  (void)opaque;
  printf("{\"rollup\": \"%s\", \"window\": \"%s\"", rollups[view->rollup].name, windows[view->window].name);
  print_text("id", view->id);
  printf(", \"n\": %" PRId64 ", \"previous_n\": %" PRId64, view->n, view->previous_n);
  printf(", \"now\": [");
  for (int i = 0; i < LIVENPS_COUNTERS; i++) {
    printf("%s%" PRId64, i ? ", " : "", view->now.at[i]);
  }
  printf("], \"previous\": [");
  for (int i = 0; i < LIVENPS_COUNTERS; i++) {
    printf("%s%" PRId64, i ? ", " : "", view->previous.at[i]);
  }
  printf("]");
  if (view->scored) {
    printf(", \"nps\": %.17g, \"nps_rounded\": %d, \"nps_low\": %.17g, \"nps_high\": %.17g", view->nps,
           view->nps_rounded, view->nps_low, view->nps_high);
    printf(", \"promoters\": %" PRId64 ", \"passives\": %" PRId64 ", \"detractors\": %" PRId64,
           view->promoters, view->passives, view->detractors);
  }
  if (view->has_previous) {
    printf(", \"previous_nps\": %.17g", view->previous_nps);
  }
  if (view->scored && view->has_previous) {
    printf(", \"change\": %.17g, \"change_p\": %.17g, \"change_verdict\": %d", view->change, view->change_p,
           view->change_verdict);
  }
  printf(", \"reliable\": %d", view->reliable);
  if (view->has_target) {
    printf(", \"target\": %.17g", view->target);
    if (view->scored) {
      printf(", \"target_state\": %d", view->target_state);
    }
  }
  if (view->csat_n) {
    printf(", \"csat_n\": %" PRId64 ", \"csat_mean\": %.17g, \"csat_share\": %.17g", view->csat_n,
           view->csat_mean, view->csat_share);
  }
  if (view->ces_n) {
    printf(", \"ces_n\": %" PRId64 ", \"ces_mean\": %.17g", view->ces_n, view->ces_mean);
  }
  printf(", \"interactions\": %" PRId64 ", \"invitations\": %" PRId64 ", \"answers\": %" PRId64,
         view->interactions, view->invitations, view->answers);
  if (view->has_response_rate) {
    printf(", \"response_rate\": %.17g", view->response_rate);
  }
  if (view->has_value_nps) {
    printf(", \"value_nps\": %.17g", view->value_nps);
  }
  printf(", \"as_of_ms\": %" PRId64 ", \"window_start_ms\": %" PRId64 ", \"window_ms\": %" PRId64
         ", \"slice_ms\": %" PRId64 "}\n",
         view->as_of_ms, view->window_start_ms, view->window_ms, view->slice_ms);
  return 0;
}

static int print_gone(void *opaque, size_t rollup, const char *id) {
  (void)opaque;
  printf("{\"gone\": \"%s\"", rollups[rollup].name);
  print_text("id", id);
  printf("}\n");
  return 0;
}

static int store(void *opaque, const char *name, bool dirty, const char *bytes, size_t length) {
  (void)opaque;
  size_t i = 0;
  while (i < stored_count && strcmp(stored[i].name, name)) {
    i++;
  }
  assert(i < STORED);
  if (i == stored_count) {
    if (!dirty) {
      die("a chunk is clean that was never stored", name);
    }
    snprintf(stored[i].name, sizeof stored[i].name, "%s", name);
    stored_count++;
  }
  stored[i].listed = true;
  if (dirty) {
    stored[i].bytes.length = 0;
    livenps_buffer_add(&stored[i].bytes, bytes, length);
  }
  return 0;
}

/* What is not part of the newest snapshot is forgotten, as the program trims it. */
static void snapshot(size_t chunk_bytes) {
  for (size_t i = 0; i < stored_count; i++) {
    stored[i].listed = false;
  }
  livenps_state_snapshot(state, chunk_bytes, store, NULL);
  livenps_state_saved(state);
  for (size_t i = 0; i < stored_count;) {
    if (stored[i].listed) {
      i++;
    } else {
      livenps_buffer_free(&stored[i].bytes);
      stored[i] = stored[--stored_count];
      memset(&stored[stored_count], 0, sizeof *stored);
    }
  }
}

static void load(void) {
  livenps_state *loaded;
  livenps_error error = {0};
  livenps_state_new(&loaded, &config);
  for (size_t i = 0; i < stored_count; i++) {
    if (livenps_state_load(loaded, stored[i].bytes.at, stored[i].bytes.length, &error)) {
      die(stored[i].name, error.text);
    }
  }
  if (livenps_state_load_finish(loaded, &error)) {
    die("load", error.text);
  }
  livenps_state_free(state);
  state = loaded;
}

static size_t window_named(const char *name) {
  size_t w = 0;
  while (w < config.window_count && strcmp(windows[w].name, name)) {
    w++;
  }
  return w;
}

static size_t rollup_named(const char *name) {
  size_t r = 0;
  while (r < config.rollup_count && strcmp(rollups[r].name, name)) {
    r++;
  }
  return r;
}

static void run(char *line) {
  static const livenps_visitor print = {.view = print_view, .gone = print_gone};
  char word[16], first[64], second[64];
  int64_t number = 0;
  int used = 0;
  if (sscanf(line, "%15s %n", word, &used) != 1) {
    return;
  }
  line += used;
  bool show_clock = false;
  if (!strcmp(word, "config")) {
    configure(line);
    if (!state) {
      livenps_state_new(&state, &config);
    }
  } else if (!strcmp(word, "event")) {
    take_event(line);
  } else if (!strcmp(word, "commit")) {
    commit(atoll(line));
  } else if (!strcmp(word, "advance")) {
    livenps_state_advance(state, atoll(line));
  } else if (!strcmp(word, "views")) {
    for (size_t r = 0; r < config.rollup_count; r++) {
      for (size_t w = 0; w < config.window_count; w++) {
        livenps_state_views(state, r, w, &print);
      }
    }
    show_clock = true;
  } else if (!strcmp(word, "changed")) {
    livenps_state_changed(state, &print);
    show_clock = true;
  } else if (sscanf(line, "%63s %63s %" SCNd64, first, second, &number) == 3 && !strcmp(word, "at")) {
    livenps_state_views_at(state, rollup_named(first), window_named(second), number, &print);
    show_clock = true;
  } else if (!strcmp(word, "digest")) {
    char digest[65];
    livenps_state_digest(state, digest);
    printf("{\"digest\": \"%s\"}\n", digest);
  } else if (!strcmp(word, "snapshot")) {
    snapshot((size_t)atoll(line));
  } else if (!strcmp(word, "load")) {
    load();
  } else if (!strcmp(word, "series")) {
    for (size_t r = 0; r < config.rollup_count; r++) {
      bool capped;
      size_t count = livenps_state_series(state, r, &capped);
      printf("%s\"%s\": [%zu, %d]%s", r ? ", " : "{", rollups[r].name, count, capped,
             r + 1 < config.rollup_count ? "" : "}\n");
    }
  } else {
    die("unknown operation", word);
  }
  if (show_clock) {
    printf("{\"clock\": %" PRId64 "}\n", livenps_state_clock(state));
  }
  fflush(stdout);
}

int main(void) {
  char *line = NULL;
  size_t size = 0;
  ssize_t length;
  while ((length = getline(&line, &size, stdin)) >= 0) {
    if (length && line[length - 1] == '\n') {
      line[length - 1] = '\0';
    }
    run(line);
  }
  free(line);
  livenps_state_free(state);
  for (size_t i = 0; i < stored_count; i++) {
    livenps_buffer_free(&stored[i].bytes);
  }
  for (size_t i = 0; i < config.target_count; i++) {
    free(targets[i].name);
    free(targets[i].value);
  }
  return 0;
}
