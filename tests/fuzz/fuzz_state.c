/* What the aggregator reads back from Redis: log entries and snapshot chunks, from any bytes whatever. Nothing may crash or
 * overflow; and what is accepted must be whole: an entry encodes to the bytes it came from or to bytes that mean the same,
 * a loaded state works on, and its own snapshot loads to the same digest.
 *
 * Input: 'E', then an entry; or 'L', then texts (length, bytes): any number of slice chunks, the head up to its list of
 * chunks, the head behind that list. The list is made here, because no mutation guesses a chunk's hash. */
#include "tests/fuzz/fuzz.h"

#include "consumer/state.h"

#include <inttypes.h>

static livenps_window windows[] = {{"5m", 300000, 1000}, {"1h", 3600000, 10000}};
static livenps_rollup rollups[] = {{"touchpoint", {LIVENPS_TOUCHPOINT}, 1},
                                   {"touchpoint|channel", {LIVENPS_TOUCHPOINT, LIVENPS_CHANNEL}, 2},
                                   {"all", {0}, 0}};
static livenps_pair targets[] = {{(char *)"a", (char *)"10"}};

static livenps_state *make(void) {
  livenps_state_config config = {.windows = windows,
                                 .window_count = 2,
                                 .rollups = rollups,
                                 .rollup_count = 3,
                                 .series_max = 3,
                                 .minimum_n = 1,
                                 .reliable_n = 3,
                                 .fdr = 0.2,
                                 .targets = targets,
                                 .target_count = 1};
  livenps_state *state;
  livenps_state_new(&state, &config);
  return state;
}

static int look(void *opaque, const livenps_view *view) {
  *(int64_t *)opaque += view->n != 0;
  return 0;
}

static int vanish(void *opaque, size_t rollup, const char *id) {
  *(int64_t *)opaque += rollup + (id[0] == '~');
  return 0;
}

static int store(void *opaque, const char *name, bool dirty, const char *bytes, size_t length) {
  livenps_buffer *to = opaque;
  (void)name;
  HOLDS(dirty);
  livenps_put_text(to, (livenps_text){bytes, length});
  return 0;
}

/* The state's own snapshot loads, and to the same digest. */
static void round_trip(livenps_state *state) {
  char before[65], after[65];
  livenps_buffer chunks = {0};
  livenps_error error = {0};
  livenps_state *loaded = make();
  livenps_state_digest(state, before);
  livenps_state_unsaved(state);
  HOLDS(livenps_state_snapshot(state, 256, store, &chunks) == 0);
  const char *at = chunks.at, *end = chunks.at + chunks.length;
  while (at < end) {
    livenps_text chunk;
    HOLDS(livenps_get_text(&at, end, &chunk) == 0);
    HOLDS(livenps_state_load(loaded, chunk.at, chunk.length, &error) == 0);
  }
  if (livenps_state_load_finish(loaded, &error)) {
    fprintf(stderr, "%s\n", error.text);
    abort();
  }
  livenps_state_digest(loaded, after);
  HOLDS(strcmp(before, after) == 0);
  livenps_state_free(loaded);
  livenps_buffer_free(&chunks);
}

static void work_on(livenps_state *state) {
  int64_t sum = 0;
  livenps_visitor visitor = {look, vanish, &sum};
  livenps_state_changed(state, &visitor);
  for (size_t r = 0; r < 3; r++) {
    for (size_t w = 0; w < 2; w++) {
      int64_t slice = windows[w].slice_ms, clock = livenps_state_clock(state);
      int64_t end = clock / slice * slice - (clock % slice < 0 ? slice : 0);
      livenps_state_views(state, r, w, &visitor);
      livenps_state_views_at(state, r, w, end, &visitor);
      livenps_state_views_at(state, r, w, end + slice, &visitor);
    }
  }
  round_trip(state);
  livenps_state_advance(state, livenps_state_clock(state) + 61000);
  livenps_state_changed(state, &visitor);
  round_trip(state);
  livenps_state_advance(state, livenps_state_clock(state) + 3600000);
  livenps_state_changed(state, &visitor);
  livenps_state_advance(state, livenps_state_clock(state) + 100000000);
  livenps_state_changed(state, &visitor);
}

static void entry(const char *bytes, size_t length) {
  livenps_entry first = {0}, second = {0};
  livenps_buffer again = {0}, third = {0};
  livenps_error error = {0};
  if (livenps_entry_decode(&first, bytes, length, &error)) {
    HOLDS(error.code == LIVENPS_E_DATA && error.text[0]);
    return;
  }
  livenps_entry_encode(&first, &again);
  HOLDS(livenps_entry_decode(&second, again.at, again.length, &error) == 0);
  livenps_entry_encode(&second, &third);
  HOLDS(again.length == third.length && memcmp(again.at, third.at, third.length) == 0);
  livenps_state *state = make();
  livenps_state_advance(state, 1700000000000);
  if (livenps_state_fold(state, &first, 1700000000000, &error) == 0) {
    work_on(state);
    /* The same entry again does not continue itself, unless it goes nowhere: neither on nor into another incarnation. */
    bool moves = false;
    for (size_t i = 0; i < first.advance_count; i++) {
      moves |= first.advances[i].from != first.advances[i].to || first.advances[i].restart;
    }
    HOLDS(moves || livenps_state_fold(state, &first, 1700000000000, &error) == 0);
  }
  livenps_state_free(state);
  livenps_entry_free(&first);
  livenps_entry_free(&second);
  livenps_buffer_free(&again);
  livenps_buffer_free(&third);
}

/* Adds a slice chunk's line of the head's list: its name and hash. */
static void put_line(livenps_buffer *list, livenps_text chunk) {
  const char *at = chunk.at + (chunk.length < 2 ? chunk.length : 2), *end = chunk.at + chunk.length;
  livenps_text window = {"", 0};
  uint64_t length_ms, slice_ms, part = 0, hash = 14695981039346656037u;
  int64_t block = 0;
  char name[512];
  if (livenps_get_text(&at, end, &window) || livenps_get_varint(&at, end, &length_ms) ||
      livenps_get_varint(&at, end, &slice_ms) || livenps_get_signed(&at, end, &block) ||
      livenps_get_varint(&at, end, &part)) {
    return;
  }
  int printed = snprintf(name, sizeof name, part ? "%.*s.%" PRId64 ".%" PRIu64 : "%.*s.%" PRId64,
                         window.length > 64 ? 64 : (int)window.length, window.at, block, part);
  for (size_t i = 0; i < chunk.length; i++) {
    hash = (hash ^ (unsigned char)chunk.at[i]) * 1099511628211u;
  }
  livenps_put_text(list, (livenps_text){name, (size_t)printed});
  livenps_buffer_add(list, &hash, sizeof hash);
}

static void load(const char *at, const char *end) {
  livenps_text parts[64];
  size_t count = 0;
  livenps_error error = {0};
  while (count < 64 && at < end && livenps_get_text(&at, end, &parts[count]) == 0) {
    count++;
  }
  livenps_state *state = make();
  int bad = 0;
  for (size_t i = 0; i + 2 < count && !bad; i++) {
    bad = livenps_state_load(state, parts[i].at, parts[i].length, &error);
  }
  if (!bad && count >= 2) {
    livenps_buffer head = {0};
    livenps_buffer_add(&head, parts[count - 2].at, parts[count - 2].length);
    livenps_put_varint(&head, count - 2);
    for (size_t i = 0; i + 2 < count; i++) {
      put_line(&head, parts[i]);
    }
    livenps_buffer_add(&head, parts[count - 1].at, parts[count - 1].length);
    bad = livenps_state_load(state, head.at ? head.at : "", head.length, &error) ||
          livenps_state_load_finish(state, &error);
    livenps_buffer_free(&head);
    if (!bad) {
      work_on(state);
    }
  }
  HOLDS(!bad || (error.code == LIVENPS_E_DATA && error.text[0]));
  livenps_state_free(state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *bytes = (const char *)data;
  if (size && bytes[0] == 'E') {
    entry(bytes + 1, size - 1);
  } else if (size && bytes[0] == 'L') {
    load(bytes + 1, bytes + size);
  }
  return 0;
}
