#include "sim.h"

#include "common/clock.h"
#include "common/counters.h"
#include "common/entry.h"
#include "consumer/state.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

/* The truth, and the invariants of the design against it. What a record is worth is known because it was made here; nothing of the
 * program's decoding, admission, combining or windows is asked. Everything that stands in Redis is checked when it is written:
 *
 * I1  each log entry holds exactly what the records between its offsets are worth; entries continue one another; a snapshot equals a
 *     recount up to the positions at the entry that it covers.
 * I2  per partition, what an entry counts adds up to the offsets it passes, and its holes are those of the topic.
 * I3  an answer other than OK has changed nothing (the aggregator's: nothing but the lease).
 * I4  when `health` is written, every view equals a recount at its clock and positions, and the clock is none that Redis has not shown.
 * I7  nobody writes outside of his namespace.
 * I8  a rejected record that a commit passes is in quarantine, whole and with its reason.
 * I5 and I6 are asked at the end, by the scenario. */

enum { TOUCHPOINTS = 6, PARTITIONS = 8, WINDOWS = 4 };

typedef struct {
  uint8_t fate, reason, type, scale, touchpoint;
  int8_t score;
  bool quarantined;
  int64_t second;
} truth;

typedef struct {
  int64_t from[16], to[16];
  int count;
} gaps;

static struct {
  const livenps_settings *settings;
  livenps_window windows[WINDOWS];
  size_t window_count;
  truth *at;
  size_t count, capacity;
  sim_topic *topic;
  char prefix[80], meta[80], positions[80], log[80], snapshot[80], health[80], notes[80];
  int64_t newest_clock_ms; /* Redis TIME at its furthest */
  /* Before the command that runs. */
  const void *log_was, *meta_was, *positions_was, *snapshot_was;
  const sim_field *positions_before;
  size_t positions_before_count;
  /* Every set of gaps that a partition has had, in whatever log: a snapshot in Kafka may be of one that Redis has lost. */
  gaps known[PARTITIONS][64];
  int known_count[PARTITIONS];
  char head_before[48], nonce_before[40], lineage_before[40];
  uint64_t serial;
} o;

static void key_of(char out[80], const char *name) {
  snprintf(out, 80, "nps:{" SIM_NAMESPACE "}:%s", name);
}

void sim_oracle_reset(const livenps_settings *settings) {
  memset(&o, 0, sizeof o);
  o.settings = settings;
  for (; o.window_count < settings->windows.count && o.window_count < WINDOWS; o.window_count++)
    livenps_window_parse(settings->windows.at[o.window_count], &o.windows[o.window_count], NULL);
  o.topic = sim_topic_find(SIM_TOPIC);
  key_of(o.prefix, "");
  key_of(o.meta, "meta");
  key_of(o.positions, "positions");
  key_of(o.log, "log");
  key_of(o.snapshot, "snapshot");
  key_of(o.health, "health");
  snprintf(o.notes, sizeof o.notes, "oracle");
}

/* ---- records --------------------------------------------------------------------------------------------------------------- */

static char *print(const char *format, ...) __attribute__((format(printf, 1, 2)));
static char *print(const char *format, ...) {
  char text[1024];
  va_list more;
  va_start(more, format);
  vsnprintf(text, sizeof text, format, more);
  va_end(more);
  return strdup(text);
}

/* What cannot be an event, and why. */
static char *broken_value(truth *what, const char *time, const char *touchpoint) {
  switch (sim_between(0, 6)) {
  case 0: what->reason = LIVENPS_REASON_MALFORMED; return print("{\"id\":\"a-%" PRIu64 "\",", o.serial);
  case 1: what->reason = LIVENPS_REASON_NOT_OBJECT; return strdup("[1,2,3]");
  case 2:
    what->reason = LIVENPS_REASON_MISSING_FIELD;
    return print("{\"id\":\"a-%" PRIu64 "\",\"type\":\"interaction\",\"time\":\"%s\"}", o.serial, time);
  case 3:
    what->reason = LIVENPS_REASON_BAD_SCORE;
    return print(
        "{\"id\":\"a-%" PRIu64
        "\",\"type\":\"answer\",\"time\":\"%s\",\"touchpoint\":\"%s\",\"scale\":\"nps\",\"score\":11}",
        o.serial, time, touchpoint);
  case 4:
    what->reason = LIVENPS_REASON_UNKNOWN_TYPE;
    return print("{\"id\":\"a-%" PRIu64 "\",\"type\":\"opinion\",\"time\":\"%s\",\"touchpoint\":\"%s\"}",
                 o.serial, time, touchpoint);
  case 5:
    what->reason = LIVENPS_REASON_BAD_TIME;
    return print("{\"id\":\"a-%" PRIu64
                 "\",\"type\":\"interaction\",\"time\":\"soon\",\"touchpoint\":\"%s\"}",
                 o.serial, touchpoint);
  default: what->reason = LIVENPS_REASON_TOMBSTONE; return NULL;
  }
}

void sim_oracle_publish(int partition, sim_standing standing, int64_t ago_ms) {
  sim_record record = {
      .standing = standing, .truth = -1, .timestamp_ms = sim_wall_ms() - ago_ms + sim_between(-1000, 1000)};
  if (standing == SIM_MARKER) {
    sim_append(o.topic, partition, &record);
    return;
  }
  if (o.count == o.capacity) {
    o.capacity = o.capacity ? o.capacity * 2 : 1024;
    o.at = realloc(o.at, o.capacity * sizeof *o.at);
  }
  truth *what = &o.at[o.count];
  *what = (truth){.fate = LIVENPS_ACCEPTED, .reason = LIVENPS_REASON_NONE, .score = -1};
  what->touchpoint = (uint8_t)sim_between(0, TOUCHPOINTS - 1);
  const int64_t future_ms = o.settings->admit_future_ms, late_ms = o.settings->admit_late_ms,
                kind = sim_between(0, 99);
  int64_t time_ms = record.timestamp_ms - sim_between(0, 2000);
  if (kind < 18) {
    time_ms = record.timestamp_ms - sim_between(0, 700000);
  } else if (kind < 28) {
    time_ms = record.timestamp_ms + sim_between(0, future_ms);
  } else if (kind < 31) {
    time_ms = record.timestamp_ms - late_ms - sim_between(1, 100000);
    what->fate = LIVENPS_LATE;
  } else if (kind < 32) {
    time_ms = record.timestamp_ms - late_ms; /* just not */
  } else if (kind < 34) {
    time_ms = record.timestamp_ms + future_ms + sim_between(1, 100000);
    what->fate = LIVENPS_REJECTED;
    what->reason = LIVENPS_REASON_FUTURE;
  }
  what->second = time_ms / 1000;
  char time[32], touchpoint[16];
  livenps_time_print(time_ms, time);
  snprintf(touchpoint, sizeof touchpoint, "t%d", what->touchpoint);
  o.serial++;
  char *value;
  const int64_t form = sim_between(0, 99);
  if (what->fate == LIVENPS_ACCEPTED && form < 6) {
    what->fate = LIVENPS_REJECTED;
    value = broken_value(what, time, touchpoint);
  } else if (form < 20) {
    what->type = LIVENPS_INTERACTION;
    value = print("{\"id\":\"a-%" PRIu64 "\",\"type\":\"interaction\",\"time\":\"%s\",\"touchpoint\":\"%s\"}",
                  o.serial, time, touchpoint);
  } else if (form < 30) {
    what->type = LIVENPS_INVITATION;
    value = print("{\"id\":\"a-%" PRIu64 "\",\"type\":\"invitation\",\"time\":\"%s\",\"touchpoint\":\"%s\"}",
                  o.serial, time, touchpoint);
  } else {
    what->type = LIVENPS_ANSWER;
    what->scale = form < 90 ? LIVENPS_SCALE_NPS : LIVENPS_SCALE_CSAT;
    what->score = (int8_t)(form < 90 ? sim_between(0, 10) : sim_between(1, 5));
    value =
        print("{\"id\":\"a-%" PRIu64
              "\",\"type\":\"answer\",\"time\":\"%s\",\"touchpoint\":\"%s\",\"scale\":\"%s\",\"score\":%d}",
              o.serial, time, touchpoint, form < 90 ? "nps" : "csat", what->score);
  }
  record.value = value;
  record.value_size = value ? strlen(value) : 0;
  record.key = print("c-%" PRIu64, o.serial % 37);
  record.key_size = strlen(record.key);
  record.truth = (int)o.count++;
  sim_append(o.topic, partition, &record);
}

/* ---- counting again ------------------------------------------------------------------------------------------------------------ */

/* Sums over (touchpoint, second, counter) as one number: equal sums, equal rows, but for one chance in 2^64. */
static uint64_t weight(int touchpoint, int64_t second, int counter) {
  uint64_t z =
      (uint64_t)second * 64 + (uint64_t)counter + ((uint64_t)touchpoint << 48) + UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}

/* The counters one event raises; returns how many. */
static int counters_of(const truth *what, int out[2]) {
  out[0] = what->type == LIVENPS_INTERACTION  ? LIVENPS_INTERACTIONS
           : what->type == LIVENPS_INVITATION ? LIVENPS_INVITATIONS
                                              : LIVENPS_ANSWERS;
  if (what->type != LIVENPS_ANSWER)
    return 1;
  out[1] = what->scale == LIVENPS_SCALE_NPS ? LIVENPS_SCORE + what->score : LIVENPS_CSAT + what->score - 1;
  return 2;
}

typedef struct {
  int64_t accepted, late, holes, rejected[LIVENPS_REASONS];
  uint64_t sum;
} worth;

static void count_record(const sim_record *record, worth *to) {
  if (record->standing != SIM_STABLE) {
    to->holes++;
    return;
  }
  const truth *what = &o.at[record->truth];
  int raised[2];
  switch (what->fate) {
  case LIVENPS_ACCEPTED:
    to->accepted++;
    for (int i = counters_of(what, raised); i--;)
      to->sum += weight(what->touchpoint, what->second, raised[i]);
    break;
  case LIVENPS_LATE: to->late++; break;
  default: to->rejected[what->reason]++; break;
  }
}

/* Offsets from a to b, without those of the gap [c, d). */
static worth recount(const sim_partition *partition, int64_t a, int64_t b, int64_t c, int64_t d) {
  worth all = {0};
  for (int64_t i = a; i < b; i++)
    if (i < c || i >= d)
      count_record(&partition->at[i], &all);
  return all;
}

static bool same_worth(const worth *a, const worth *b) {
  return !memcmp(a, b, sizeof *a);
}

/* ---- what is stored, by partition -------------------------------------------------------------------------------------------------- */

static int partition_of(const char *field, size_t length) {
  int number;
  char copy[300];
  if (length >= sizeof copy)
    return -1;
  memcpy(copy, field, length);
  copy[length] = 0;
  if (sscanf(copy, SIM_TOPIC "/%d", &number) != 1 || number < 0 || number >= o.topic->count)
    sim_fail("I1", "the position of %s is stored: no such partition", copy);
  return number;
}

/* -1 where there is none. */
static void read_positions(const sim_field *fields, size_t count, int64_t out[PARTITIONS]) {
  for (int p = 0; p < PARTITIONS; p++)
    out[p] = -1;
  for (size_t i = 0; i < count; i++)
    out[partition_of(fields[i].name->bytes, fields[i].name->length)] =
        strtoll(fields[i].value->bytes, NULL, 10);
}

static void stored_positions(const sim_db *db, int64_t out[PARTITIONS]) {
  size_t count;
  const sim_field *fields = sim_db_fields(db, o.positions, &count);
  read_positions(fields, count, out);
}

/* Notes: "s<partition>" the first offset of this lineage, "g<partition>" gaps as "from-to,". */
static int64_t noted_start(const sim_db *db, int partition) {
  char field[16];
  snprintf(field, sizeof field, "s%d", partition);
  const sim_blob *text = sim_db_field(db, o.notes, field);
  return text ? strtoll(text->bytes, NULL, 10) : -1;
}

static gaps noted_gaps(const sim_db *db, int partition) {
  char field[16];
  gaps found = {.count = 0};
  snprintf(field, sizeof field, "g%d", partition);
  const sim_blob *text = sim_db_field(db, o.notes, field);
  for (const char *at = text ? text->bytes : ""; *at && found.count < 16; found.count++) {
    char *end;
    found.from[found.count] = strtoll(at, &end, 10);
    found.to[found.count] = strtoll(end + 1, &end, 10);
    at = end + 1;
  }
  return found;
}

static void note_gap(sim_db *db, int partition, int64_t from, int64_t to) {
  char field[16], text[700];
  snprintf(field, sizeof field, "g%d", partition);
  const sim_blob *before = sim_db_field(db, o.notes, field);
  snprintf(text, sizeof text, "%.600s%" PRId64 "-%" PRId64 ",", before ? before->bytes : "", from, to);
  sim_db_note(db, o.notes, field, text);
  if (o.known_count[partition] < 64)
    o.known[partition][o.known_count[partition]++] = noted_gaps(db, partition);
}

static void note_start(sim_db *db, int partition, int64_t start) {
  char field[16], text[24];
  snprintf(field, sizeof field, "s%d", partition);
  snprintf(text, sizeof text, "%" PRId64, start);
  sim_db_note(db, o.notes, field, text);
}

static bool counted(const gaps *gaps, int64_t offset) {
  for (int i = 0; i < gaps->count; i++)
    if (offset >= gaps->from[i] && offset < gaps->to[i])
      return false;
  return true;
}

/* ---- views ---------------------------------------------------------------------------------------------------------------------------- */

/* What all windows of all series hold at a clock and positions: [window][touchpoint, last: all][0 now, 1 before][counter]. */
static int64_t totals[WINDOWS][TOUCHPOINTS + 1][2][LIVENPS_COUNTERS];

static int64_t floor_to(int64_t value, int64_t step) {
  return value - value % step; /* none is negative here */
}

static void total_up(const sim_db *db, const int64_t positions[PARTITIONS], int64_t clock_ms) {
  memset(totals, 0, sizeof totals);
  for (int p = 0; p < o.topic->count; p++) {
    const sim_partition *partition = &o.topic->at[p];
    const int64_t start = noted_start(db, p);
    const gaps gone = noted_gaps(db, p);
    for (int64_t i = start < 0 ? 0 : start; i < positions[p]; i++) {
      if (partition->at[i].standing != SIM_STABLE || !counted(&gone, i))
        continue;
      const truth *what = &o.at[partition->at[i].truth];
      if (what->fate != LIVENPS_ACCEPTED || what->second > clock_ms / 1000)
        continue;
      int raised[2];
      const int count = counters_of(what, raised);
      for (size_t w = 0; w < o.window_count; w++) {
        const livenps_window *window = &o.windows[w];
        const int64_t end_ms = floor_to(clock_ms, window->slice_ms) + window->slice_ms;
        const int64_t slice_ms = floor_to(what->second * 1000, window->slice_ms);
        const int when = slice_ms >= end_ms - window->length_ms       ? 0
                         : slice_ms >= end_ms - 2 * window->length_ms ? 1
                                                                      : 2;
        for (int k = 0; when < 2 && k < count; k++) {
          totals[w][what->touchpoint][when][raised[k]]++;
          totals[w][TOUCHPOINTS][when][raised[k]]++;
        }
      }
    }
  }
}

static int64_t sum(const int64_t *counters, int first, int last) {
  int64_t all = 0;
  for (int i = first; i <= last; i++)
    all += counters[i];
  return all;
}

static void series_name(int series, char out[16]) {
  if (series == TOUCHPOINTS)
    snprintf(out, 16, "all");
  else
    snprintf(out, 16, "t%d", series);
}

static void check_field(const sim_db *db, const char *key, const char *field, int64_t expected) {
  const sim_blob *text = sim_db_field(db, key, field);
  const int64_t is = text ? strtoll(text->bytes, NULL, 10) : -1;
  if (is != expected)
    sim_fail("I4", "%s: %s is %s, a recount at its clock and positions gives %" PRId64, key, field,
             text ? text->bytes : "absent", expected);
}

static void check_view(const sim_db *db, size_t w, int series) {
  char key[200], id[16];
  series_name(series, id);
  snprintf(key, sizeof key, "%s%s:%s:%s", o.prefix, series == TOUCHPOINTS ? "all" : "touchpoint", id,
           o.windows[w].name);
  const int64_t *now = totals[w][series][0], *before = totals[w][series][1];
  if (!sim_db_exists(db, key)) {
    if (sum(now, 0, LIVENPS_ANSWERS))
      sim_fail("I4",
               "%s does not exist, a recount gives %" PRId64 " answers, %" PRId64 " interactions, %" PRId64
               " invitations",
               key, now[LIVENPS_ANSWERS], now[LIVENPS_INTERACTIONS], now[LIVENPS_INVITATIONS]);
    return;
  }
  const int64_t promoters = sum(now, LIVENPS_SCORE + 9, LIVENPS_SCORE + 10),
                passives = sum(now, LIVENPS_SCORE + 7, LIVENPS_SCORE + 8),
                detractors = sum(now, LIVENPS_SCORE, LIVENPS_SCORE + 6),
                n = promoters + passives + detractors;
  check_field(db, key, "n", n);
  check_field(db, key, "interactions", now[LIVENPS_INTERACTIONS]);
  check_field(db, key, "invitations", now[LIVENPS_INVITATIONS]);
  check_field(db, key, "answers", now[LIVENPS_ANSWERS]);
  check_field(db, key, "csat_n", sum(now, LIVENPS_CSAT, LIVENPS_CSAT + 4));
  check_field(db, key, "previous_n", sum(before, LIVENPS_SCORE, LIVENPS_SCORE + 10));
  const sim_blob *nps = sim_db_field(db, key, "nps");
  if ((nps != NULL) != (n >= o.settings->minimum_n))
    sim_fail("I4", "%s: nps is %s with n = %" PRId64, key, nps ? "there" : "withheld", n);
  if (!nps)
    return;
  check_field(db, key, "promoters", promoters);
  check_field(db, key, "passives", passives);
  check_field(db, key, "detractors", detractors);
  if (fabs(strtod(nps->bytes, NULL) - 100.0 * (double)(promoters - detractors) / (double)n) > 1e-9)
    sim_fail("I4", "%s: nps is %s, of %" PRId64 " promoters, %" PRId64 " detractors, n = %" PRId64, key,
             nps->bytes, promoters, detractors, n);
}

static int64_t health_number(const sim_db *db, const char *field, int64_t otherwise) {
  const sim_blob *text = sim_db_field(db, o.health, field);
  return text ? strtoll(text->bytes, NULL, 10) : otherwise;
}

/* What `health` says of positions; -1 where it is silent. */
static void health_positions(const sim_db *db, int64_t out[PARTITIONS]) {
  for (int p = 0; p < PARTITIONS; p++) {
    char field[64];
    snprintf(field, sizeof field, "position:" SIM_TOPIC "/%d", p);
    out[p] = health_number(db, field, -1);
  }
}

/* Whoever says `complete` has read everything that was there when the lag it allows began. */
static void check_complete(const int64_t positions[PARTITIONS], int64_t clock_ms) {
  enum { SLACK_MS = 6000 }; /* publishers' clocks are off by a second, ends are known for two, ... */
  const int64_t until_us = (clock_ms - SIM_EPOCH_MS - o.settings->complete_lag_ms - SLACK_MS) * 1000;
  if (sim_faults[SIM_CLOCK])
    return;
  for (int p = 0; p < o.topic->count; p++) {
    const sim_partition *partition = &o.topic->at[p];
    for (int64_t i = positions[p] < 0 ? 0 : positions[p]; i < partition->count; i++)
      if (partition->at[i].appended_us < until_us)
        sim_fail("complete",
                 "health says complete=1, but offset %" PRId64
                 " of partition %d, appended at %.3f s, is not read",
                 i, p, (double)partition->at[i].appended_us / 1e6);
  }
}

static void check_views(const sim_db *db) {
  int64_t positions[PARTITIONS], stored[PARTITIONS];
  const int64_t clock_ms = health_number(db, "as_of_ms", -1);
  if (clock_ms < 0)
    sim_fail("I4", "health without as_of_ms");
  if (clock_ms > o.newest_clock_ms)
    sim_fail("I4", "health's clock is %" PRId64 " ms ahead of Redis TIME", clock_ms - o.newest_clock_ms);
  health_positions(db, positions);
  stored_positions(db, stored);
  for (int p = 0; p < PARTITIONS; p++)
    if (positions[p] > stored[p])
      sim_fail("I4", "health shows partition %d read up to %" PRId64 ", stored is %" PRId64, p, positions[p],
               stored[p]);
  total_up(db, positions, clock_ms);
  for (size_t w = 0; w < o.window_count; w++)
    for (int series = 0; series <= TOUCHPOINTS; series++)
      check_view(db, w, series);
  if (health_number(db, "complete", 0))
    check_complete(positions, clock_ms);
}

/* ---- what is stored ---------------------------------------------------------------------------------------------------------------------- */

static const sim_blob *item_field(const sim_item *item, const char *name) {
  for (size_t i = 0; i + 1 < item->count; i += 2)
    if (item->fields[i]->length == 1 && *item->fields[i]->bytes == *name)
      return item->fields[i + 1];
  sim_fail("I1", "a log entry lacks the field %s", name);
}

static void item_id(const sim_item *item, char out[48]) {
  snprintf(out, 48, "%" PRId64 "-%" PRId64, item->ms, item->seq);
}

static void decode(const sim_item *item, livenps_entry *entry) {
  const sim_blob *payload = item_field(item, "d");
  livenps_error error = {0};
  if (livenps_entry_decode(entry, payload->bytes, payload->length, &error))
    sim_fail("I1", "a log entry cannot be decoded: %s", error.text);
}

static int advance_partition(const livenps_advance *advance) {
  char field[300];
  const int length = snprintf(field, sizeof field, "%.*s/%d", (int)advance->topic.length, advance->topic.at,
                              (int)advance->partition);
  return partition_of(field, (size_t)length);
}

static const char *text_of(const sim_db *db, const char *key, const char *field) {
  const sim_blob *text = sim_db_field(db, key, field);
  return text ? text->bytes : "";
}

static void load_snapshot(const sim_db *db, livenps_state **state) {
  livenps_error error = {0};
  const char *listing = text_of(db, o.snapshot, "chunks");
  livenps_state_open(state, o.settings);
  while (*listing) {
    char name[128], key[400];
    size_t size;
    if (sscanf(listing, "%127s %399s %zu", name, key, &size) != 3)
      sim_fail("snapshot", "its list of chunks cannot be read");
    const sim_blob *chunk = sim_db_string(db, key);
    if (!chunk || chunk->length != size)
      sim_fail("snapshot", "chunk %s is %s", name, chunk ? "of another length" : "gone");
    if (livenps_state_load(*state, chunk->bytes, chunk->length, &error))
      sim_fail("snapshot", "chunk %s: %s", name, error.text);
    listing = strchr(listing, '\n') + 1;
  }
  if (livenps_state_load_finish(*state, &error))
    sim_fail("snapshot", "%s", error.text);
}

typedef struct {
  size_t window;
  int rollup; /* index into the settings' */
} viewing;

static int compare_view(void *opaque, const livenps_view *view) {
  (void)opaque;
  const bool all = !strcmp(o.settings->rollups.at[view->rollup], "all");
  const int series = all ? TOUCHPOINTS : atoi(view->id + 1);
  if (memcmp(totals[view->window][series][0], view->now.at, sizeof view->now.at))
    sim_fail("I1", "the stored snapshot: %s %s differs from a recount at its clock and positions", view->id,
             o.settings->windows.at[view->window]);
  memset(totals[view->window][series][0], 0, sizeof view->now.at); /* seen */
  return 0;
}

static void check_snapshot(const sim_db *db, const int64_t positions[PARTITIONS]) {
  livenps_state *state;
  size_t count;
  load_snapshot(db, &state);
  const livenps_partition *ledger = livenps_state_partitions(state, &count);
  size_t expected = 0;
  for (int p = 0; p < PARTITIONS; p++)
    expected += positions[p] >= 0;
  if (count != expected)
    sim_fail("I1", "the stored snapshot knows %zu partitions, the log %zu at the entry it covers", count,
             expected);
  for (size_t i = 0; i < count; i++) {
    const livenps_partition *line = &ledger[i];
    const int p = line->partition;
    if (line->position.next != positions[p])
      sim_fail("I1",
               "the stored snapshot is at offset %" PRId64
               " of partition %d, the entry that it covers at %" PRId64,
               line->position.next, p, positions[p]);
    const gaps gone = noted_gaps(db, p);
    worth all = {0};
    int64_t gap = 0;
    for (int64_t k = noted_start(db, p); k < positions[p]; k++)
      if (counted(&gone, k))
        count_record(&o.topic->at[p].at[k], &all);
      else
        gap++;
    worth is = {.accepted = line->accepted, .late = line->late, .holes = line->holes, .sum = all.sum};
    memcpy(is.rejected, line->rejected, sizeof is.rejected);
    if (!same_worth(&is, &all) || line->gap != gap)
      sim_fail("I2",
               "the stored snapshot, partition %d: accepted %" PRId64 " late %" PRId64 " holes %" PRId64
               " gap %" PRId64 ", a recount gives %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64,
               p, is.accepted, is.late, is.holes, line->gap, all.accepted, all.late, all.holes, gap);
  }
  const int64_t clock_ms = livenps_state_clock(state);
  if (clock_ms > o.newest_clock_ms)
    sim_fail("I4", "the stored snapshot's clock is %" PRId64 " ms ahead of Redis TIME",
             clock_ms - o.newest_clock_ms);
  total_up(db, positions, clock_ms);
  for (size_t r = 0; r < o.settings->rollups.count; r++)
    for (size_t w = 0; w < o.window_count; w++)
      livenps_state_views(state, r, w, &(livenps_visitor){.view = compare_view});
  for (size_t w = 0; w < o.window_count; w++)
    for (int series = 0; series <= TOUCHPOINTS; series++)
      if (sum(totals[w][series][0], 0, LIVENPS_COUNTERS - 1))
        sim_fail("I1", "the stored snapshot lacks series %d of %s, a recount has it", series,
                 o.windows[w].name);
  livenps_state_free(state);
}

void sim_oracle_stored(const sim_db *db) {
  if (!sim_db_exists(db, o.meta) || !sim_db_exists(db, o.log))
    return; /* nothing, or what will be begun anew */
  size_t count;
  const sim_item *items = sim_db_items(db, o.log, &count);
  const char *lineage = text_of(db, o.meta, "lineage");
  char id[48] = "";
  if (strcmp(text_of(db, o.snapshot, "lineage"), lineage))
    sim_fail("snapshot", "the pointer is of lineage %s, the log of %s", text_of(db, o.snapshot, "lineage"),
             lineage);
  if (!count)
    sim_fail("log", "it is empty");
  item_id(&items[count - 1], id);
  if (strcmp(id, text_of(db, o.meta, "head")) ||
      strcmp(item_field(&items[count - 1], "n")->bytes, text_of(db, o.meta, "head_nonce")))
    sim_fail("log", "its last entry is %s, meta names %s", id, text_of(db, o.meta, "head"));
  int64_t positions[PARTITIONS];
  stored_positions(db, positions);
  for (size_t i = count; i--;) {
    item_id(&items[i], id);
    if (strcmp(item_field(&items[i], "l")->bytes, lineage))
      sim_fail("log", "entry %s is of another lineage", id);
    if (!strcmp(id, text_of(db, o.snapshot, "entry")) &&
        !strcmp(item_field(&items[i], "n")->bytes, text_of(db, o.snapshot, "nonce"))) {
      check_snapshot(db, positions);
      return;
    }
    if (!i)
      break;
    char before[48];
    item_id(&items[i - 1], before);
    if (strcmp(before, item_field(&items[i], "p")->bytes) ||
        strcmp(item_field(&items[i - 1], "n")->bytes, item_field(&items[i], "q")->bytes))
      sim_fail("log", "entry %s does not name the one before it", id);
    livenps_entry entry = {0};
    decode(&items[i], &entry);
    for (size_t k = 0; k < entry.advance_count; k++) {
      const livenps_advance *advance = &entry.advances[k];
      const int p = advance_partition(advance);
      if (positions[p] != advance->to)
        sim_fail("I1", "entry %s ends at offset %" PRId64 " of partition %d, the next one begins at %" PRId64,
                 id, advance->to, p, positions[p]);
      /* Began with this entry: nothing is known before. */
      positions[p] = advance->from;
      char field[16];
      snprintf(field, sizeof field, "e%d", p);
      const sim_blob *began = sim_db_field(db, o.notes, field);
      if (began && !strcmp(began->bytes, id))
        positions[p] = -1;
    }
    livenps_entry_free(&entry);
  }
  sim_fail("snapshot", "it covers entry %s, which the log no longer holds", text_of(db, o.snapshot, "entry"));
}

/* ---- a commit -------------------------------------------------------------------------------------------------------------------------------- */

static uint64_t rows_sum(const livenps_entry *entry) {
  uint64_t all = 0;
  for (size_t i = 0; i < entry->row_count; i++) {
    const livenps_row *row = &entry->rows[i];
    const livenps_text *dimensions = entry->cells[row->cell].dimensions;
    if (dimensions[LIVENPS_TOUCHPOINT].length != 2 || *dimensions[LIVENPS_TOUCHPOINT].at != 't' ||
        dimensions[LIVENPS_CHANNEL].at || dimensions[LIVENPS_SEGMENT].at || dimensions[LIVENPS_STAGE].at)
      sim_fail("I1", "an entry has a cell that no record has");
    for (int k = 0; k < LIVENPS_COUNTERS; k++)
      all +=
          (uint64_t)row->counters.at[k] * weight(dimensions[LIVENPS_TOUCHPOINT].at[1] - '0', row->second, k);
  }
  return all;
}

static void check_quarantined(const sim_partition *partition, int p, int64_t from, int64_t to, int64_t c,
                              int64_t d) {
  for (int64_t i = from; i < to; i++) {
    const sim_record *record = &partition->at[i];
    if ((i >= c && i < d) || record->standing != SIM_STABLE || o.at[record->truth].fate != LIVENPS_REJECTED)
      continue;
    if (!o.at[record->truth].quarantined)
      sim_fail("I8", "a commit passes the rejected record %d/%" PRId64 ", which is not in quarantine", p, i);
  }
}

/* One line of an entry against the records. Adds what its rows must hold. */
static void check_advance(sim_db *db, const livenps_advance *advance, int p, uint64_t *rows) {
  const sim_partition *partition = &o.topic->at[p];
  const int64_t from = advance->from, to = advance->to;
  if (from < 0 || to < from || to > sim_stable_end(partition))
    sim_fail("I1", "a commit goes from %" PRId64 " to %" PRId64 " of partition %d, which ends at %" PRId64,
             from, to, p, sim_stable_end(partition));
  worth is = {.accepted = advance->accepted, .late = advance->late, .holes = advance->holes};
  memcpy(is.rejected, advance->rejected, sizeof is.rejected);
  int64_t rejected = 0;
  for (int r = 0; r < LIVENPS_REASONS; r++)
    rejected += advance->rejected[r];
  if (is.accepted + is.late + is.holes + rejected + advance->gap + advance->duplicate +
          advance->out_of_range !=
      to - from)
    sim_fail("I2", "a commit of partition %d passes %" PRId64 " offsets and counts another number", p,
             to - from);
  if (advance->duplicate || advance->out_of_range || advance->gap < 0)
    sim_fail("I2", "a commit of partition %d counts what cannot be", p);
  int64_t c = 0, d = 0;
  worth want = recount(partition, from, to, 0, 0);
  /* The offsets that retention took before they were read: they end at a start that the topic has had. */
  bool found = !advance->gap;
  for (int i = 0; advance->gap && !found && i < partition->low_count; i++) {
    d = partition->lows[i], c = d - advance->gap;
    want = recount(partition, from, to, c, d);
    want.sum = 0;
    found = c >= from && d <= to && same_worth(&is, &want);
    if (found)
      want = recount(partition, from, to, c, d);
  }
  if (!found)
    sim_fail("I2", "a commit of partition %d counts a gap of %" PRId64 " that retention did not make", p,
             advance->gap);
  is.sum = want.sum;
  if (!same_worth(&is, &want))
    sim_fail("I1",
             "a commit of partition %d from %" PRId64 " to %" PRId64 " counts accepted %" PRId64
             " late %" PRId64 " holes %" PRId64 ", the records are %" PRId64 " %" PRId64 " %" PRId64,
             p, from, to, is.accepted, is.late, is.holes, want.accepted, want.late, want.holes);
  *rows += want.sum;
  if (c < d)
    note_gap(db, p, c, d);
  check_quarantined(partition, p, from, to, c, d);
}

static void check_commit(sim_db *db, const sim_item *item) {
  int64_t before[PARTITIONS], after[PARTITIONS];
  bool seen[PARTITIONS] = {false};
  livenps_entry entry = {0};
  uint64_t rows = 0;
  char id[48];
  item_id(item, id);
  read_positions(o.positions_before, o.positions_before_count, before);
  stored_positions(db, after);
  decode(item, &entry);
  for (size_t i = 0; i < entry.advance_count; i++) {
    const livenps_advance *advance = &entry.advances[i];
    const int p = advance_partition(advance);
    if (seen[p])
      sim_fail("I1", "an entry names partition %d twice", p);
    seen[p] = true;
    if (before[p] < 0) {
      char field[16];
      note_start(db, p, advance->from);
      snprintf(field, sizeof field, "e%d", p);
      sim_db_note(db, o.notes, field, id);
      if (advance->from > o.topic->at[p].low)
        sim_fail("I1", "a new partition %d is read from %" PRId64 ", it has records from %" PRId64, p,
                 advance->from, o.topic->at[p].low);
    } else if (before[p] != advance->from) {
      sim_fail("I3", "a commit goes on at offset %" PRId64 " of partition %d, stored was %" PRId64,
               advance->from, p, before[p]);
    }
    if (after[p] != advance->to)
      sim_fail("I1", "a commit ends at offset %" PRId64 " of partition %d, stored is %" PRId64, advance->to,
               p, after[p]);
    check_advance(db, advance, p, &rows);
  }
  for (int p = 0; p < PARTITIONS; p++)
    if (!seen[p] && before[p] != after[p])
      sim_fail("I1", "the position of partition %d moved without an entry", p);
  if (rows != rows_sum(&entry))
    sim_fail("I1", "entry %s: its rows are not what its records are worth (%" PRIu64 " accepted)", id,
             (uint64_t)entry.row_count);
  if (strcmp(item_field(item, "p")->bytes, o.head_before) ||
      strcmp(item_field(item, "q")->bytes, o.nonce_before))
    sim_fail("log", "entry %s names another predecessor than the head", id);
  livenps_entry_free(&entry);
}

/* Whether a line of a snapshot is what the records from its start are worth, without those of these gaps. */
static bool worth_of_line(const livenps_partition *line, const gaps *gone) {
  worth all = {0};
  int64_t gap = 0;
  for (int64_t i = line->start; i < line->position.next; i++)
    if (counted(gone, i))
      count_record(&o.topic->at[line->partition].at[i], &all);
    else
      gap++;
  worth is = {.accepted = line->accepted, .late = line->late, .holes = line->holes, .sum = all.sum};
  memcpy(is.rejected, line->rejected, sizeof is.rejected);
  return gap == line->gap && same_worth(&is, &all);
}

/* A snapshot from Kafka brings its own past: which offsets it never had is found again among all gaps that there were. */
static void note_past(sim_db *db, const livenps_partition *line) {
  static const gaps none;
  const int p = line->partition;
  const gaps *past = &none;
  for (int i = o.known_count[p]; i-- && !worth_of_line(line, past);)
    past = &o.known[p][i];
  note_start(db, p, line->start);
  for (int i = 0; i < past->count; i++)
    if (past->to[i] <= line->position.next)
      note_gap(db, p, past->from[i], past->to[i]);
}

static void check_genesis(sim_db *db) {
  int64_t longest_ms = 0;
  size_t count;
  livenps_state *state;
  sim_db_unnote(db, o.notes);
  load_snapshot(db, &state);
  for (size_t w = 0; w < o.window_count; w++)
    longest_ms = o.windows[w].length_ms > longest_ms ? o.windows[w].length_ms : longest_ms;
  /* Whatever can still stand in a window, or the one before, must be read. */
  const int64_t since_ms = sim_db_time_ms(db) - 2 * longest_ms;
  const livenps_partition *ledger = livenps_state_partitions(state, &count);
  for (size_t k = 0; k < count; k++) {
    const livenps_partition *line = &ledger[k];
    const sim_partition *partition = &o.topic->at[line->partition];
    note_past(db, line);
    for (int64_t i = partition->low; i < line->start; i++)
      if (partition->at[i].standing == SIM_STABLE && o.at[partition->at[i].truth].fate == LIVENPS_ACCEPTED &&
          o.at[partition->at[i].truth].second * 1000 >= since_ms)
        sim_fail("I1", "a genesis begins partition %d at %" PRId64 ", but offset %" PRId64 " still matters",
                 line->partition, line->start, i);
  }
  livenps_state_free(state);
}

/* ---- around a command ----------------------------------------------------------------------------------------------------------------------------- */

static void copy_text(char *out, size_t size, const char *text) {
  snprintf(out, size, "%s", text);
}

void sim_oracle_before(sim_db *db, const sim_process *process, int argc, const char **argv,
                       const size_t *lengths) {
  (void)process, (void)argc, (void)argv, (void)lengths;
  const int64_t clock_ms = sim_db_time_ms(db);
  o.newest_clock_ms = clock_ms > o.newest_clock_ms ? clock_ms : o.newest_clock_ms;
  o.log_was = sim_db_identity(db, o.log);
  o.meta_was = sim_db_identity(db, o.meta);
  o.positions_was = sim_db_identity(db, o.positions);
  o.snapshot_was = sim_db_identity(db, o.snapshot);
  o.positions_before = sim_db_fields(db, o.positions, &o.positions_before_count);
  copy_text(o.head_before, sizeof o.head_before, text_of(db, o.meta, "head"));
  copy_text(o.nonce_before, sizeof o.nonce_before, text_of(db, o.meta, "head_nonce"));
  copy_text(o.lineage_before, sizeof o.lineage_before, text_of(db, o.meta, "lineage"));
}

static bool starts(const char *text, const char *with) {
  return strncmp(text, with, strlen(with)) == 0;
}

/* I3: a script that says no has changed nothing; the aggregator's may have renewed the lease it checked. */
static void check_refusal(const sim_db *db, const redisReply *reply) {
  const redisReply *first = reply->type == REDIS_REPLY_ARRAY && reply->elements ? reply->element[0] : reply;
  if (first->type == REDIS_REPLY_INTEGER || (first->str && !strcmp(first->str, "OK")) || !first->str ||
      !strcmp(first->str, "TAKEN") || !strcmp(first->str, "HELD"))
    return;
  for (size_t i = 0; sim_db_changed(db, i); i++)
    if (!strstr(sim_db_changed(db, i), ":lease"))
      sim_fail("I3", "a script answered %s and changed %s", first->str, sim_db_changed(db, i));
}

void sim_oracle_after(sim_db *db, const sim_process *process, int argc, const char **argv,
                      const size_t *lengths, const redisReply *reply) {
  (void)argc, (void)lengths;
  if (!sim_db_wrote(db)) {
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements && reply->element[0]->str &&
        !strcmp(reply->element[0]->str, "FULL"))
      sim_fault_happened(SIM_FULL);
    return;
  }
  if (!strcasecmp(argv[0], "EVALSHA") || !strcasecmp(argv[0], "EVAL"))
    check_refusal(db, reply);
  char prefix[100];
  snprintf(prefix, sizeof prefix, "nps:{%s}:", process->settings.namespace_);
  bool health = false, listed = false;
  for (size_t i = 0; sim_db_changed(db, i); i++) {
    const char *key = sim_db_changed(db, i);
    if (!starts(key, prefix))
      sim_fail("I7", "%s wrote %s", process->name, key);
    health |= !strcmp(key, o.health);
    listed |= starts(key, o.snapshot) && strstr(text_of(db, o.snapshot, "chunks"), key);
  }
  if (strcmp(process->settings.namespace_, SIM_NAMESPACE))
    return;
  size_t count;
  const sim_item *items = sim_db_items(db, o.log, &count);
  char head[48] = "";
  if (count)
    item_id(&items[count - 1], head);
  const bool log_moved = sim_db_identity(db, o.log) != o.log_was;
  if (count && strcmp(text_of(db, o.meta, "lineage"), o.lineage_before)) {
    check_genesis(db);
    listed = true;
  } else if (count && strcmp(head, o.head_before)) {
    check_commit(db, &items[count - 1]);
  } else {
    if (sim_db_identity(db, o.positions) != o.positions_was)
      sim_fail("I1", "positions were written without an entry");
    listed |= log_moved;
  }
  listed |= sim_db_identity(db, o.snapshot) != o.snapshot_was;
  if (listed)
    sim_oracle_stored(db);
  if (health)
    check_views(db);
}

/* ---- quarantine, the end ------------------------------------------------------------------------------------------------------------------------------ */

void sim_oracle_quarantined(const sim_record *record) {
  int p;
  long long offset;
  if (!record->key || sscanf(record->key, SIM_TOPIC "/%d/%lld", &p, &offset) != 2)
    return; /* something else that is produced */
  if (p < 0 || p >= o.topic->count || offset < 0 || offset >= o.topic->at[p].count)
    sim_fail("I8", "quarantine holds %s, which does not exist", record->key);
  const sim_record *from = &o.topic->at[p].at[offset];
  truth *what = from->truth >= 0 ? &o.at[from->truth] : NULL;
  if (!what || what->fate != LIVENPS_REJECTED)
    sim_fail("I8", "quarantine holds %s, which is no rejected record", record->key);
  if (record->value_size != from->value_size ||
      (from->value && memcmp(record->value, from->value, from->value_size)))
    sim_fail("I8", "quarantine holds %s with another value", record->key);
  const char *reason = "";
  for (size_t i = 0; i < record->header_count; i++)
    if (!strcmp(record->headers[i].name, "livenps-reason"))
      reason = record->headers[i].value;
  if (strcmp(reason, livenps_reason_name((livenps_reason)what->reason)))
    sim_fail("I8", "quarantine holds %s with the reason %s, it is %s", record->key, reason,
             livenps_reason_name((livenps_reason)what->reason));
  what->quarantined = true;
}

static const char *missing(const sim_db *db, int *partition) {
  int64_t stored[PARTITIONS], shown[PARTITIONS];
  if (!sim_db_exists(db, o.meta))
    return "the namespace is not begun";
  stored_positions(db, stored);
  health_positions(db, shown);
  for (*partition = 0; *partition < o.topic->count; ++*partition) {
    const int64_t end = sim_stable_end(&o.topic->at[*partition]);
    if (stored[*partition] != end)
      return "the stored position is not at the end";
    if (shown[*partition] != end)
      return "health does not show the end";
  }
  *partition = -1;
  if (health_number(db, "complete", 0) != 1)
    return "health says complete=0";
  return NULL;
}

bool sim_oracle_caught_up(const sim_db *db) {
  int partition;
  return !missing(db, &partition);
}

void sim_oracle_explain(const sim_db *db, char *out, size_t size) {
  int p = -1;
  const char *what = missing(db, &p);
  int64_t stored[PARTITIONS];
  stored_positions(db, stored);
  size_t used =
      (size_t)snprintf(out, size, "%s; partition %d of %d, stored %" PRId64 ", end %" PRId64 "; health:",
                       what ? what : "nothing is missing", p, o.topic->count, p >= 0 ? stored[p] : 0,
                       p >= 0 ? sim_stable_end(&o.topic->at[p]) : 0);
  size_t count;
  const sim_field *fields = sim_db_fields(db, o.health, &count);
  for (size_t i = 0; i < count && used < size; i++)
    used +=
        (size_t)snprintf(out + used, size - used, " %s=%s", fields[i].name->bytes, fields[i].value->bytes);
}
