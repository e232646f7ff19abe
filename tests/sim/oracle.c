#include "sim.h"

#include "common/clock.h"
#include "common/counters.h"
#include "common/entry.h"
#include "consumer/scripts.h"
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

/* What a partition's position has gone through since its genesis: stretches of offsets that were counted, each in one era of the log. Within
 * one incarnation they rise; what lies between two of them is a gap (negative where offsets begin anew). The last one is open. */
typedef struct {
  int64_t incarnation, from, to;
  int64_t era;
} stretch;

enum { STRETCHES = 24, PASTS = 128 };
typedef struct {
  stretch at[STRETCHES];
  size_t count;
} past;

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
  livenps_entry_id covered; /* by the publish that runs */
  char head_before[48], nonce_before[40], lineage_before[40];
  uint64_t serial;
} o;

/* Every past that a partition has had, in whatever log: a snapshot in Kafka may be of one that Redis has lost. */
static past known[PARTITIONS][PASTS];
static size_t known_count[PARTITIONS];

static void key_of(char out[80], const char *name) {
  snprintf(out, 80, "nps:{" SIM_NAMESPACE "}:%s", name);
}

void sim_oracle_reset(const livenps_settings *settings) {
  memset(&o, 0, sizeof o);
  memset(known_count, 0, sizeof known_count);
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

static void count_all(const sim_partition *log, int64_t from, int64_t to, worth *all) {
  for (int64_t i = from; i < to; i++)
    count_record(&log->at[i], all);
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

/* next -1 where there is none. */
static void read_positions(const sim_field *fields, size_t count, livenps_position out[PARTITIONS]) {
  for (int p = 0; p < PARTITIONS; p++)
    out[p] = (livenps_position){.next = -1};
  for (size_t i = 0; i < count; i++)
    if (livenps_position_parse((livenps_text){fields[i].value->bytes, fields[i].value->length},
                               &out[partition_of(fields[i].name->bytes, fields[i].name->length)]))
      sim_fail("I1", "the position %s cannot be read", fields[i].value->bytes);
}

static void stored_positions(const sim_db *db, livenps_position out[PARTITIONS]) {
  size_t count;
  const sim_field *fields = sim_db_fields(db, o.positions, &count);
  read_positions(fields, count, out);
}

/* ---- what became of a partition ------------------------------------------------------------------------------------------------------- */

/* Notes beside the data: "p<partition>" its past. */
static past noted(const sim_db *db, int partition) {
  char field[16];
  past found = {.count = 0};
  snprintf(field, sizeof field, "p%d", partition);
  const sim_blob *text = sim_db_field(db, o.notes, field);
  for (char *at = text ? (char *)(uintptr_t)text->bytes : ""; *at; at++) {
    stretch *each = &found.at[found.count++];
    each->incarnation = strtoll(at, &at, 10);
    each->era = strtoll(at + 1, &at, 10);
    each->from = strtoll(at + 1, &at, 10);
    each->to = strtoll(at + 1, &at, 10);
  }
  return found;
}

static bool same_past(const past *a, const past *b) {
  bool same = a->count == b->count;
  for (size_t i = 0; same && i < a->count; i++)
    same = a->at[i].incarnation == b->at[i].incarnation && a->at[i].era == b->at[i].era &&
           a->at[i].from == b->at[i].from && a->at[i].to == b->at[i].to;
  return same;
}

/* Adds it unless it is there. */
static void keep_past(past *list, size_t *count, const past *what) {
  for (size_t i = 0; i < *count; i++)
    if (same_past(&list[i], what))
      return;
  if (*count == PASTS)
    sim_fail("simulator", "a partition has more pasts than the oracle can keep");
  list[(*count)++] = *what;
}

static void note(sim_db *db, int partition, const past *what) {
  char field[16], text[STRETCHES * 80];
  size_t length = 0;
  for (size_t i = 0; i < what->count; i++)
    length += (size_t)snprintf(text + length, sizeof text - length,
                               "%" PRId64 ":%" PRId64 ":%" PRId64 ":%" PRId64 ",", what->at[i].incarnation,
                               what->at[i].era, what->at[i].from, what->at[i].to);
  snprintf(field, sizeof field, "p%d", partition);
  sim_db_note(db, o.notes, field, text);
  keep_past(known[partition], &known_count[partition], what);
}

/* The partition goes on from here: at `next` of the incarnation before, at `from` of an era. */
static void go_on(past *what, int64_t incarnation, int era, int64_t next, int64_t from) {
  if (what->count == STRETCHES)
    sim_fail("simulator", "a partition has a longer past than the oracle can keep");
  if (what->count)
    what->at[what->count - 1].to = next;
  what->at[what->count++] = (stretch){incarnation, from, INT64_MAX, era};
}

/* How much of a stretch lies below a position; -1: none of it, not even its gap. */
static int64_t reached(const stretch *each, const livenps_position *at) {
  if (each->incarnation > at->incarnation || (each->incarnation == at->incarnation && each->from > at->next))
    return -1;
  return each->incarnation < at->incarnation || each->to < at->next ? each->to : at->next;
}

/* All that a partition has counted at a position, and what the gaps are together. Nothing is worth so little as what never was: -1 holes. */
static worth worth_at(const past *what, int partition, const livenps_position *at, int64_t *gap) {
  worth all = {0};
  int64_t end = what->count ? what->at[0].from : 0;
  *gap = 0;
  for (size_t i = 0; i < what->count && reached(&what->at[i], at) >= 0; i++) {
    const stretch *each = &what->at[i];
    *gap += each->from - end;
    end = reached(each, at);
    const sim_partition *log = sim_era(&o.topic->at[partition], (int)each->era);
    if (end > log->count)
      return (worth){.holes = -1};
    count_all(log, each->from, end, &all);
  }
  return all;
}

/* The era in which a position stands. */
static const sim_partition *era_at(const past *what, int partition, const livenps_position *at) {
  int era = 0;
  for (size_t i = 0; i < what->count && reached(&what->at[i], at) >= 0; i++)
    era = (int)what->at[i].era;
  return sim_era(&o.topic->at[partition], era);
}

/* Below this offset two eras of a partition have the same records. */
static int64_t shared(const sim_partition *newer, const sim_partition *older) {
  int64_t below = INT64_MAX;
  for (; newer != older; newer = newer->before)
    below = newer->kept < below ? newer->kept : below;
  return below;
}

/* Whether an anchor shows that this is not the log that it was taken from. What stands behind docs/guarantees.md, "Which topic it is, where no
 * record tells". */
static bool tells(const livenps_anchor *anchor, const sim_partition *log) {
  if (!anchor->there || anchor->offset < log->low)
    return false;
  if (anchor->offset >= log->count)
    return true;
  const sim_record *record = &log->at[anchor->offset];
  if (record->standing == SIM_MARKER)
    return false;
  const livenps_anchor here =
      livenps_anchor_of(anchor->offset, record->timestamp_ms, (livenps_text){record->key, record->key_size},
                        (livenps_text){record->value, record->value_size});
  return !livenps_anchor_same(anchor, &here);
}

/* Whether a position of an older era may be read on in a newer one as if nothing had been: it is the same up to there, or nothing that is
 * stored could tell. */
static bool reads_on(const livenps_position *at, const sim_partition *older, const sim_partition *newer) {
  if (older == newer || at->next <= shared(newer, older))
    return true;
  return at->next <= newer->count && !tells(&at->anchor, newer) && !tells(&at->root, newer);
}

/* ---- views ---------------------------------------------------------------------------------------------------------------------------- */

/* What all windows of all series hold at a clock and positions: [window][touchpoint, last: all][0 now, 1 before][counter]. */
static int64_t totals[WINDOWS][TOUCHPOINTS + 1][2][LIVENPS_COUNTERS];

static int64_t floor_to(int64_t value, int64_t step) {
  return value - value % step; /* none is negative here */
}

static void add_to_totals(const sim_record *record, int64_t clock_ms) {
  const truth *what = record->standing == SIM_STABLE ? &o.at[record->truth] : NULL;
  if (!what || what->fate != LIVENPS_ACCEPTED || what->second > clock_ms / 1000)
    return;
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

static void total_up(const sim_db *db, const livenps_position positions[PARTITIONS], int64_t clock_ms) {
  memset(totals, 0, sizeof totals);
  for (int p = 0; p < o.topic->count; p++) {
    if (positions[p].next < 0)
      continue;
    const past was = noted(db, p);
    for (size_t i = 0; i < was.count; i++) {
      const sim_partition *log = sim_era(&o.topic->at[p], (int)was.at[i].era);
      const int64_t end = reached(&was.at[i], &positions[p]);
      for (int64_t k = was.at[i].from; k < end && k < log->count; k++)
        add_to_totals(&log->at[k], clock_ms);
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
static void check_complete(const sim_db *db, const livenps_position positions[PARTITIONS], int64_t clock_ms) {
  enum { SLACK_MS = 6000 }; /* publishers' clocks are off by a second, ends are known for two, ... */
  const int64_t until_us = (clock_ms - SIM_EPOCH_MS - o.settings->complete_lag_ms - SLACK_MS) * 1000;
  if (sim_faults[SIM_CLOCK])
    return;
  livenps_position stored[PARTITIONS];
  stored_positions(db, stored);
  for (int p = 0; p < o.topic->count; p++) {
    const sim_partition *log = &o.topic->at[p];
    const past was = noted(db, p);
    int64_t next = positions[p].next < 0 ? 0 : positions[p].next;
    const sim_partition *read = era_at(&was, p, &positions[p]);
    if (!reads_on(&positions[p], read, log) &&
        (stored[p].incarnation != positions[p].incarnation || !reads_on(&stored[p], read, log)))
      next = shared(log, read);
    for (int64_t i = next; i < log->count; i++)
      if (log->at[i].appended_us < until_us)
        sim_fail("complete",
                 "health says complete=1, but offset %" PRId64
                 " of partition %d, appended at %.3f s, is not read",
                 i, p, (double)log->at[i].appended_us / 1e6);
  }
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

/* The first difference is told in `opaque`, a text of DIFFERENCE bytes. */
enum { DIFFERENCE = 160 };
static int compare_view(void *opaque, const livenps_view *view) {
  const bool all = !strcmp(o.settings->rollups.at[view->rollup], "all");
  const int series = all ? TOUCHPOINTS : atoi(view->id + 1);
  if (memcmp(totals[view->window][series][0], view->now.at, sizeof view->now.at))
    return snprintf(opaque, DIFFERENCE, "%s %s differs from a recount at its clock and positions", view->id,
                    o.settings->windows.at[view->window]);
  memset(totals[view->window][series][0], 0, sizeof view->now.at); /* seen */
  return 0;
}

/* Whether a state is what the noted pasts are worth at its clock. */
static bool is_recount(const sim_db *db, livenps_state *state, const livenps_position positions[PARTITIONS],
                       char difference[DIFFERENCE]) {
  *difference = 0;
  total_up(db, positions, livenps_state_clock(state));
  for (size_t r = 0; r < o.settings->rollups.count && !*difference; r++)
    for (size_t w = 0; w < o.window_count && !*difference; w++)
      livenps_state_views(state, r, w, &(livenps_visitor){.opaque = difference, .view = compare_view});
  for (size_t w = 0; w < o.window_count && !*difference; w++)
    for (int series = 0; series <= TOUCHPOINTS && !*difference; series++)
      if (sum(totals[w][series][0], 0, LIVENPS_COUNTERS - 1))
        snprintf(difference, DIFFERENCE, "it lacks series %d of %s, a recount has it", series,
                 o.windows[w].name);
  return !*difference;
}

static void check_snapshot(const sim_db *db, const livenps_position positions[PARTITIONS]) {
  livenps_state *state;
  size_t count;
  load_snapshot(db, &state);
  const livenps_partition *ledger = livenps_state_partitions(state, &count);
  size_t expected = 0;
  for (int p = 0; p < PARTITIONS; p++)
    expected += positions[p].next >= 0;
  if (count != expected)
    sim_fail("I1", "the stored snapshot knows %zu partitions, the log %zu at the entry it covers", count,
             expected);
  for (size_t i = 0; i < count; i++) {
    const livenps_partition *line = &ledger[i];
    const int p = line->partition;
    if (line->position.next != positions[p].next || line->position.incarnation != positions[p].incarnation)
      sim_fail("I1",
               "the stored snapshot is at offset %" PRId64 " of partition %d (incarnation %" PRId64
               "), the entry that it covers at %" PRId64 " (%" PRId64 ")",
               line->position.next, p, line->position.incarnation, positions[p].next,
               positions[p].incarnation);
    const past was = noted(db, p);
    int64_t gap;
    const worth all = worth_at(&was, p, &positions[p], &gap);
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
  char difference[DIFFERENCE];
  if (!is_recount(db, state, positions, difference))
    sim_fail("I1", "the stored snapshot: %s", difference);
  livenps_state_free(state);
}

/* From the newest entry back to another one: the positions there. Entries must continue one another. false: it is not in the log. */
static bool positions_at(const sim_db *db, const char *id, const char *nonce,
                         livenps_position positions[PARTITIONS]) {
  size_t count;
  const sim_item *items = sim_db_items(db, o.log, &count);
  const char *lineage = text_of(db, o.meta, "lineage");
  for (size_t i = count; i--;) {
    char at[48], before[48];
    item_id(&items[i], at);
    if (strcmp(item_field(&items[i], "l")->bytes, lineage))
      sim_fail("log", "entry %s is of another lineage", at);
    if (!strcmp(at, id) && !strcmp(item_field(&items[i], "n")->bytes, nonce))
      return true;
    if (!i)
      break;
    item_id(&items[i - 1], before);
    if (strcmp(before, item_field(&items[i], "p")->bytes) ||
        strcmp(item_field(&items[i - 1], "n")->bytes, item_field(&items[i], "q")->bytes))
      sim_fail("log", "entry %s does not name the one before it", at);
    livenps_entry entry = {0};
    decode(&items[i], &entry);
    for (size_t k = 0; k < entry.advance_count; k++) {
      const livenps_advance *advance = &entry.advances[k];
      const int p = advance_partition(advance);
      if (positions[p].next != advance->to ||
          positions[p].incarnation != advance->incarnation + advance->restart)
        sim_fail("I1",
                 "entry %s ends at offset %" PRId64 " of partition %d (incarnation %" PRId64
                 "), the next one begins at %" PRId64 " (%" PRId64 ")",
                 at, advance->to, p, advance->incarnation + advance->restart, positions[p].next,
                 positions[p].incarnation);
      /* Began with this entry: nothing is known before. */
      positions[p] = (livenps_position){.next = advance->from, .incarnation = advance->incarnation};
      char field[16];
      snprintf(field, sizeof field, "e%d", p);
      const sim_blob *began = sim_db_field(db, o.notes, field);
      if (began && !strcmp(began->bytes, at))
        positions[p].next = -1;
    }
    livenps_entry_free(&entry);
  }
  return false;
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
  livenps_position positions[PARTITIONS];
  stored_positions(db, positions);
  if (!positions_at(db, text_of(db, o.snapshot, "entry"), text_of(db, o.snapshot, "nonce"), positions))
    sim_fail("snapshot", "it covers entry %s, which the log no longer holds",
             text_of(db, o.snapshot, "entry"));
  check_snapshot(db, positions);
}

/* ---- what is published ------------------------------------------------------------------------------------------------------------------------ */

static void check_views(const sim_db *db) {
  int64_t shown[PARTITIONS];
  livenps_position positions[PARTITIONS];
  const int64_t clock_ms = health_number(db, "as_of_ms", -1);
  if (clock_ms < 0)
    sim_fail("I4", "health without as_of_ms");
  if (clock_ms > o.newest_clock_ms)
    sim_fail("I4", "health's clock is %" PRId64 " ms ahead of Redis TIME", clock_ms - o.newest_clock_ms);
  health_positions(db, shown);
  stored_positions(db, positions);
  if (!positions_at(db, o.covered.id, o.covered.nonce, positions))
    sim_fail("I4", "what is published covers entry %s, which the log does not hold", o.covered.id);
  for (int p = 0; p < PARTITIONS; p++)
    if (shown[p] != positions[p].next)
      sim_fail("I4",
               "health shows partition %d read up to %" PRId64 ", at the entry that it covers it is %" PRId64,
               p, shown[p], positions[p].next);
  total_up(db, positions, clock_ms);
  for (size_t w = 0; w < o.window_count; w++)
    for (int series = 0; series <= TOUCHPOINTS; series++)
      check_view(db, w, series);
  if (health_number(db, "complete", 0))
    check_complete(db, positions, clock_ms);
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

/* The first rejected record that is not in quarantine; `to` when all are. */
static int64_t not_quarantined(const sim_partition *log, int64_t from, int64_t to) {
  int64_t i = from;
  while (i < to && (log->at[i].standing != SIM_STABLE || o.at[log->at[i].truth].fate != LIVENPS_REJECTED ||
                    o.at[log->at[i].truth].quarantined))
    i++;
  return i;
}

/* One way in which a line of an entry can have come about: stretches of records, each of one era, one after the other. Where the line begins
 * a new incarnation, it begins with the last of them. */
enum { PARTS = 3 };
typedef struct {
  const sim_partition *log;
  int64_t from, to;
} part;
typedef struct {
  part at[PARTS];
  size_t count;
  uint64_t sum;
} way;

enum { WAYS = 64 };
typedef struct {
  const livenps_advance *advance;
  int partition;
  way at[WAYS];
  size_t count, quarantined, chosen;
} ways;

/* Is it what the line says? Then it is one more; before those whose rejected records are not in quarantine. */
static void try_way(ways *to, size_t count, const part *parts) {
  const livenps_advance *advance = to->advance;
  way way = {.count = count};
  bool quarantined = true;
  worth is = {.accepted = advance->accepted, .late = advance->late, .holes = advance->holes}, want = {0};
  memcpy(is.rejected, advance->rejected, sizeof is.rejected);
  for (size_t i = 0; i < count; i++) {
    const part *each = &parts[i];
    /* Nothing is read behind an open transaction; but where a log has lost its end, reading goes on at the end that it has, committed or not. */
    const int64_t end = each->from == each->to ? each->log->count : sim_stable_end(each->log);
    if (each->from > each->to || each->to > end || to->count == WAYS)
      return;
    count_all(each->log, each->from, each->to, &want);
    quarantined &= not_quarantined(each->log, each->from, each->to) >= each->to;
    way.at[i] = *each;
  }
  way.sum = is.sum = want.sum;
  if (!same_worth(&is, &want))
    return;
  const size_t place = quarantined ? to->quarantined++ : to->count;
  memmove(&to->at[place + 1], &to->at[place], (to->count++ - place) * sizeof *to->at);
  to->at[place] = way;
}

/* Past what retention took before it was read, once or twice: offsets end at a start that the log has had. */
static void ways_past_gaps(ways *to, const sim_partition *before, const sim_partition *after) {
  const livenps_advance *advance = to->advance;
  const int64_t gap = advance->gap;
  for (int i = 0; i < after->low_count; i++) {
    const int64_t low = after->lows[i];
    try_way(to, 2, (part[]){{before, advance->from, low - gap}, {after, low, advance->to}});
    for (int k = i + 1; k < after->low_count; k++)
      for (int64_t left = advance->from > low - gap + 1 ? advance->from : low - gap + 1; left < low; left++) {
        const int64_t next = after->lows[k], until = next - (gap - (low - left));
        try_way(to, 3,
                (part[]){{before, advance->from, left}, {after, low, until}, {after, next, advance->to}});
      }
  }
}

/* On in the same incarnation. `at`: the position as it was stored. Of a log that has lost its end records may still have been on their way,
 * also to somebody who knew it only without them; and for more than one commit: what is stored is compared every second. */
static void ways_on(ways *to, const livenps_position *stored, bool fresh, const sim_partition *read) {
  livenps_position position = *stored;
  const livenps_position *at = &position;
  position.anchor.there &= !fresh;
  const sim_partition *newest = &o.topic->at[to->partition];
  const livenps_advance *advance = to->advance;
  for (int k = 0; k <= newest->era; k++) {
    const int first = (read->era + k) % (newest->era + 1); /* most likely where it was read */
    const sim_partition *before = sim_era(newest, first);
    if (first < read->era ? at->next > shared(read, before) : !reads_on(at, read, before))
      continue;
    if (advance->gap == 0)
      try_way(to, 1, (part[]){{before, advance->from, advance->to}});
    for (int second = first; second <= newest->era; second++) {
      const sim_partition *after = sim_era(newest, second);
      if (second < read->era || !reads_on(at, read, after))
        continue;
      if (advance->gap > 0)
        ways_past_gaps(to, before, after);
      for (int64_t left = advance->from + 1; !advance->gap && second > first && left < advance->to; left++)
        try_way(to, 2, (part[]){{before, advance->from, left}, {after, left, advance->to}});
    }
  }
}

/* Whether a past has counted a record between two offsets of its last era. */
static bool counted(const past *was, const livenps_position *at, const sim_partition *read, int64_t from,
                    int64_t to) {
  for (size_t i = 0; i < was->count && reached(&was->at[i], at) >= 0; i++) {
    const int64_t end = reached(&was->at[i], at);
    for (int64_t k = was->at[i].from > from ? was->at[i].from : from; k < to && k < end; k++)
      if (read->at[k].standing == SIM_STABLE)
        return true;
  }
  return false;
}

/* Into the next incarnation, from wherever reading was: of a topic that was made anew all is read; of a log that lost its end nothing that
 * it kept and that is counted, and nothing ahead of where reading was. A genesis may have begun behind all that was kept: then no record tells
 * which of them it is, and all is read. */
static void ways_anew(ways *to, const livenps_position *at, const past *was, const sim_partition *read) {
  const sim_partition *newest = &o.topic->at[to->partition];
  const int64_t end = to->advance->to;
  if (to->advance->gap == 0 && tells(&at->anchor, read))
    try_way(to, 2, (part[]){{read, to->advance->from, end}, {read, end, end}});
  for (int era = read->era + 1; era <= newest->era; era++) {
    const sim_partition *log = sim_era(newest, era);
    bool anew = false;
    for (const sim_partition *each = log; each != read; each = each->before)
      anew |= each->kept == 0;
    const int64_t kept = shared(log, read);
    const bool whole = anew || !counted(was, at, read, 0, kept);
    for (int64_t left = to->advance->from; left <= sim_stable_end(read); left++) {
      const int64_t went_on = left + to->advance->gap;
      if (anew ? went_on == 0 : (whole && went_on == 0) || (went_on >= kept && went_on <= left))
        try_way(to, 2, (part[]){{read, to->advance->from, left}, {log, went_on, end}});
    }
  }
}

/* One line of an entry against the records. */
static void find_ways(ways *to, const livenps_position *at, bool fresh, const past *was) {
  const livenps_advance *advance = to->advance;
  const int p = to->partition;
  int64_t rejected = 0;
  for (int r = 0; r < LIVENPS_REASONS; r++)
    rejected += advance->rejected[r];
  if (advance->from < 0 || (!advance->restart && advance->to < advance->from))
    sim_fail("I1", "a commit goes from %" PRId64 " to %" PRId64 " of partition %d", advance->from,
             advance->to, p);
  if (advance->accepted + advance->late + advance->holes + rejected + advance->gap + advance->duplicate +
          advance->out_of_range !=
      advance->to - advance->from)
    sim_fail("I2", "a commit of partition %d passes %" PRId64 " offsets and counts another number", p,
             advance->to - advance->from);
  if (advance->duplicate || advance->out_of_range || (advance->gap < 0 && !advance->restart))
    sim_fail("I2", "a commit of partition %d counts what cannot be", p);
  const sim_partition *read = era_at(was, p, at);
  if (advance->restart)
    ways_anew(to, at, was, read);
  else
    ways_on(to, at, fresh, read);
  if (!to->count)
    sim_fail("I1",
             "a commit of partition %d%s from %" PRId64 " to %" PRId64 " counts accepted %" PRId64
             " late %" PRId64 " holes %" PRId64 " gap %" PRId64
             ": no records are like that (it was read in era %d, kept %" PRId64 " of it, %" PRId64
             " there now)",
             p, advance->restart ? " begins a new incarnation and goes" : "", advance->from, advance->to,
             advance->accepted, advance->late, advance->holes, advance->gap, read->era,
             shared(&o.topic->at[p], read), o.topic->at[p].count);
}

/* Rows are of all partitions together: which of the ways that one partition's counts allow it was, they tell. */
static bool choose_ways(ways *lines, size_t count, uint64_t rows) {
  if (!count)
    return rows == 0;
  for (lines->chosen = 0; lines->chosen < lines->count; lines->chosen++)
    if (choose_ways(lines + 1, count - 1, rows - lines->at[lines->chosen].sum))
      return true;
  return false;
}

/* What the chosen way adds to the partition's past, if it is not just more of the same. */
static void take_way(sim_db *db, const ways *line, past *was) {
  const way *chosen = &line->at[line->chosen];
  const livenps_advance *advance = line->advance;
  const int p = line->partition;
  const stretch last = was->at[was->count - 1];
  bool moved = false;
  for (size_t i = 0; i < chosen->count; i++) {
    const part *each = &chosen->at[i];
    const bool first = i == 0, renewed = advance->restart && i == chosen->count - 1;
    const int64_t missing = not_quarantined(each->log, each->from, each->to);
    if (missing < each->to)
      sim_fail("I8", "a commit passes the rejected record %d/%" PRId64 ", which is not in quarantine", p,
               missing);
    if (first && each->log->era == last.era)
      continue;
    go_on(was, advance->incarnation + renewed, each->log->era, first ? each->from : each[-1].to, each->from);
    moved = true;
  }
  if (moved)
    note(db, p, was);
}

/* Whether the position was moved within the time that an anchor may wait to be compared. moves: now it is again. */
static bool moved_lately(sim_db *db, int partition, bool moves) {
  enum { COMPARED_MS = 1000 };
  char field[16], now[24];
  snprintf(field, sizeof field, "t%d", partition);
  snprintf(now, sizeof now, "%" PRId64, sim_now_us);
  const sim_blob *last = sim_db_field(db, o.notes, field);
  const bool lately = last && sim_now_us - strtoll(last->bytes, NULL, 10) < COMPARED_MS * 1000;
  if (moves)
    sim_db_note(db, o.notes, field, now);
  return lately;
}

static void check_commit(sim_db *db, const sim_process *process, const sim_item *item) {
  livenps_position before[PARTITIONS], after[PARTITIONS];
  past pasts[PARTITIONS];
  ways lines[PARTITIONS];
  bool seen[PARTITIONS] = {false};
  livenps_entry entry = {0};
  char id[48];
  item_id(item, id);
  read_positions(o.positions_before, o.positions_before_count, before);
  stored_positions(db, after);
  decode(item, &entry);
  if (entry.advance_count > PARTITIONS)
    sim_fail("I1", "an entry has %zu lines", entry.advance_count);
  for (size_t i = 0; i < entry.advance_count; i++) {
    const livenps_advance *advance = &entry.advances[i];
    const int p = advance_partition(advance);
    past *was = &pasts[p];
    *was = noted(db, p);
    if (seen[p])
      sim_fail("I1", "an entry names partition %d twice", p);
    seen[p] = true;
    if (before[p].next < 0) {
      char field[16];
      /* Kafka may have been asked in an earlier era than it was read in: without a record nobody can tell. */
      const sim_partition *asked = sim_era(&o.topic->at[p], process->bounds_era[p]);
      for (const sim_partition *each = asked; each && advance->from > asked->low; each = each->before)
        if (each->low >= advance->from)
          asked = each;
      before[p] = (livenps_position){.next = advance->from, .incarnation = 1};
      *was = (past){.count = 0};
      go_on(was, 1, asked->era, 0, advance->from);
      note(db, p, was);
      snprintf(field, sizeof field, "e%d", p);
      sim_db_note(db, o.notes, field, id);
      if (advance->from > asked->low)
        sim_fail("I1", "a new partition %d is read from %" PRId64 ", it has records from %" PRId64, p,
                 advance->from, asked->low);
    } else if (before[p].next != advance->from || before[p].incarnation != advance->incarnation) {
      sim_fail("I3",
               "a commit goes on at offset %" PRId64 " of partition %d (incarnation %" PRId64
               "), stored was %" PRId64 " (%" PRId64 ")",
               advance->from, p, advance->incarnation, before[p].next, before[p].incarnation);
    }
    if (after[p].next != advance->to || after[p].incarnation != advance->incarnation + advance->restart)
      sim_fail("I1",
               "a commit ends at offset %" PRId64 " of partition %d (incarnation %" PRId64
               "), stored is %" PRId64 " (%" PRId64 ")",
               advance->to, p, advance->incarnation + advance->restart, after[p].next, after[p].incarnation);
    sim_trace("   counted: partition %d from %" PRId64 " to %" PRId64 "%s, accepted %" PRId64
              "; anchor %" PRId64 ", root %" PRId64,
              p, advance->from, advance->to, advance->restart ? " of the next incarnation" : "",
              advance->accepted, after[p].anchor.there ? after[p].anchor.offset : -1,
              after[p].root.there ? after[p].root.offset : -1);
    lines[i] = (ways){.advance = advance, .partition = p};
    find_ways(&lines[i], &before[p], moved_lately(db, p, advance->from != advance->to), was);
  }
  for (int p = 0; p < PARTITIONS; p++)
    if (!seen[p] && before[p].next != after[p].next)
      sim_fail("I1", "the position of partition %d moved without an entry", p);
  if (!choose_ways(lines, entry.advance_count, rows_sum(&entry)))
    sim_fail("I1", "entry %s: its rows are not what its records are worth (%" PRIu64 " accepted)", id,
             (uint64_t)entry.row_count);
  for (size_t i = 0; i < entry.advance_count; i++)
    take_way(db, &lines[i], &pasts[lines[i].partition]);
  if (strcmp(item_field(item, "p")->bytes, o.head_before) ||
      strcmp(item_field(item, "q")->bytes, o.nonce_before))
    sim_fail("log", "entry %s names another predecessor than the head", id);
  livenps_entry_free(&entry);
}

/* ---- a genesis ------------------------------------------------------------------------------------------------------------------------------ */

/* Whether a line of a snapshot is what this past is worth. */
static bool worth_of_line(const livenps_partition *line, const past *was) {
  int64_t gap;
  if (!was->count || was->at[0].from != line->start ||
      was->at[was->count - 1].incarnation < line->position.incarnation)
    return false;
  const worth all = worth_at(was, line->partition, &line->position, &gap);
  const sim_partition *log = era_at(was, line->partition, &line->position);
  if (line->position.anchor.offset < log->count && log->low == 0 && tells(&line->position.anchor, log))
    return false;
  worth is = {.accepted = line->accepted, .late = line->late, .holes = line->holes, .sum = all.sum};
  memcpy(is.rejected, line->rejected, sizeof is.rejected);
  return gap == line->gap && same_worth(&is, &all);
}

/* The pasts that a partition of a snapshot from Kafka can have had: of all that there were, those that are worth as much at its position. None
 * where it begins here. */
static size_t find_pasts(const livenps_partition *line, past out[PASTS]) {
  const int p = line->partition;
  size_t count = 0;
  if (line->position.next == line->start && line->position.incarnation == 1 && !line->position.anchor.there)
    return 0;
  for (size_t i = known_count[p]; i--;) {
    past was = known[p][i];
    if (!worth_of_line(line, &was))
      continue;
    while (was.count > 1 && reached(&was.at[was.count - 1], &line->position) < 0)
      was.count--;
    was.at[was.count - 1].to = INT64_MAX;
    keep_past(out, &count, &was);
  }
  return count;
}

/* Worth as much, yet not the same: where an old Redis came back, records of two versions were read at the same offsets, and both histories were
 * kept in Kafka. Which of them a snapshot is of, what it holds tells, when also that has come which is dated ahead. */
static bool is_past(const sim_db *db, livenps_state **state, const livenps_position positions[PARTITIONS]) {
  char difference[DIFFERENCE];
  if (!is_recount(db, *state, positions, difference))
    return false;
  livenps_state_advance(*state, livenps_state_clock(*state) + o.settings->admit_future_ms + 2000);
  const bool is = is_recount(db, *state, positions, difference);
  livenps_state_free(*state);
  load_snapshot(db, state);
  return is;
}

/* The log that a process asked for its bounds before it began there. Another thread of it may have asked again since, of a newer one: that has
 * no such offset. */
static const sim_partition *log_asked(const sim_process *process, int partition, int64_t start) {
  const sim_partition *asked = sim_era(&o.topic->at[partition], process->bounds_era[partition]);
  while (asked->before && asked->count < start)
    asked = asked->before;
  return asked;
}

/* A genesis begins at the topic's start, or with a snapshot from Kafka, which brings its own past. Notes it; begun[p]: from the topic. */
static void note_pasts(sim_db *db, const sim_process *process, livenps_state **state,
                       bool begun[PARTITIONS]) {
  static past found[PARTITIONS][PASTS];
  size_t count, counts[PARTITIONS] = {0}, chosen[PARTITIONS] = {0};
  livenps_position positions[PARTITIONS];
  bool several = false;
  const livenps_partition *ledger = livenps_state_partitions(*state, &count);
  for (int p = 0; p < PARTITIONS; p++)
    positions[p] = (livenps_position){.next = -1};
  for (size_t k = 0; k < count; k++) {
    const int p = ledger[k].partition;
    positions[p] = ledger[k].position;
    counts[p] = find_pasts(&ledger[k], found[p]);
    several |= counts[p] > 1;
    begun[p] = !counts[p];
    if (begun[p]) {
      counts[p] = 1;
      found[p][0] = (past){.count = 0};
      go_on(&found[p][0], 1, log_asked(process, p, ledger[k].start)->era, 0, ledger[k].start);
    }
    note(db, p, &found[p][0]);
  }
  while (several && !is_past(db, state, positions)) {
    int p = 0;
    while (p < PARTITIONS && (!counts[p] || ++chosen[p] == counts[p]))
      chosen[p++] = 0;
    if (p == PARTITIONS)
      return; /* none: what is stored is checked after this, and told */
    for (p = 0; p < PARTITIONS; p++)
      if (counts[p])
        note(db, p, &found[p][chosen[p]]);
  }
}

/* Nothing was read there yet: whether it is begun here or comes from a snapshot that began there in another era, nobody can tell. */
static bool began_before(const livenps_partition *line) {
  for (size_t i = 0; i < known_count[line->partition]; i++)
    if (known[line->partition][i].at[0].from == line->start &&
        known[line->partition][i].at[0].era < o.topic->at[line->partition].era)
      return true;
  return false;
}

static void check_genesis(sim_db *db, const sim_process *process) {
  int64_t longest_ms = 0;
  size_t count;
  livenps_state *state;
  bool begun[PARTITIONS] = {false};
  sim_db_unnote(db, o.notes);
  load_snapshot(db, &state);
  note_pasts(db, process, &state, begun);
  for (size_t w = 0; w < o.window_count; w++)
    longest_ms = o.windows[w].length_ms > longest_ms ? o.windows[w].length_ms : longest_ms;
  /* Whatever can still stand in a window, or the one before, must be read. */
  const int64_t since_ms = sim_db_time_ms(db) - 2 * longest_ms;
  const livenps_partition *ledger = livenps_state_partitions(state, &count);
  for (size_t k = 0; k < count; k++) {
    const livenps_partition *line = &ledger[k];
    if (!begun[line->partition])
      continue;
    const sim_partition *asked = log_asked(process, line->partition, line->start);
    for (int64_t i = asked->low; i < line->start && !began_before(line); i++)
      if (asked->at[i].standing == SIM_STABLE && o.at[asked->at[i].truth].fate == LIVENPS_ACCEPTED &&
          o.at[asked->at[i].truth].second * 1000 >= since_ms)
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
  (void)process;
  const int64_t clock_ms = sim_db_time_ms(db);
  o.newest_clock_ms = clock_ms > o.newest_clock_ms ? clock_ms : o.newest_clock_ms;
  o.log_was = sim_db_identity(db, o.log);
  o.meta_was = sim_db_identity(db, o.meta);
  o.positions_was = sim_db_identity(db, o.positions);
  o.snapshot_was = sim_db_identity(db, o.snapshot);
  o.positions_before = sim_db_fields(db, o.positions, &o.positions_before_count);
  /* Where a publish has them, see scripts.c. */
  const int covered = argc > 3 ? 2 + atoi(argv[2]) + 4 : argc;
  o.covered.id[0] = o.covered.nonce[0] = 0;
  if (covered + 1 < argc && lengths && lengths[covered] < 48 && lengths[covered + 1] < 40) {
    copy_text(o.covered.id, sizeof o.covered.id, argv[covered]);
    copy_text(o.covered.nonce, sizeof o.covered.nonce, argv[covered + 1]);
  }
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
    check_genesis(db, process);
    listed = true;
  } else if (count && strcmp(head, o.head_before)) {
    check_commit(db, process, &items[count - 1]);
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

/* What a quarantined record says it is, in one of the eras: NULL when it is not like that. */
static truth *rejected_there(const sim_partition *log, int64_t offset, const sim_record *record,
                             const char *reason) {
  const sim_record *from = offset < log->count ? &log->at[offset] : NULL;
  truth *what = from && from->truth >= 0 ? &o.at[from->truth] : NULL;
  if (!what || what->fate != LIVENPS_REJECTED || record->value_size != from->value_size ||
      (from->value && memcmp(record->value, from->value, from->value_size)) ||
      strcmp(reason, livenps_reason_name((livenps_reason)what->reason)))
    return NULL;
  return what;
}

void sim_oracle_quarantined(const sim_record *record) {
  int p;
  long long offset;
  if (!record->key || sscanf(record->key, SIM_TOPIC "/%d/%lld", &p, &offset) != 2)
    return; /* something else that is produced */
  if (p < 0 || p >= o.topic->count || offset < 0)
    sim_fail("I8", "quarantine holds %s, which does not exist", record->key);
  const char *reason = "";
  for (size_t i = 0; i < record->header_count; i++)
    if (!strcmp(record->headers[i].name, "livenps-reason"))
      reason = record->headers[i].value;
  for (const sim_partition *log = &o.topic->at[p]; log; log = log->before) {
    truth *what = rejected_there(log, offset, record, reason);
    if (what) {
      what->quarantined = true;
      return;
    }
  }
  sim_fail("I8", "quarantine holds %s with the reason %s: no rejected record with that value was there",
           record->key, reason);
}

int64_t sim_oracle_root(const sim_db *db, int partition) {
  livenps_position stored[PARTITIONS];
  stored_positions(db, stored);
  return stored[partition].next >= 0 && stored[partition].root.there ? stored[partition].root.offset : -1;
}

static const char *missing(const sim_db *db, int *partition) {
  int64_t shown[PARTITIONS];
  livenps_position stored[PARTITIONS];
  if (!sim_db_exists(db, o.meta))
    return "the namespace is not begun";
  stored_positions(db, stored);
  health_positions(db, shown);
  for (*partition = 0; *partition < o.topic->count; ++*partition) {
    const sim_partition *log = &o.topic->at[*partition];
    const int64_t end = sim_stable_end(log);
    const past was = noted(db, *partition);
    if (stored[*partition].next != end)
      return "the stored position is not at the end";
    if (shown[*partition] != end)
      return "health does not show the end";
    if (!reads_on(&stored[*partition], era_at(&was, *partition, &stored[*partition]), log))
      return "the stored position is of a log that is no longer there";
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
  livenps_position stored[PARTITIONS];
  stored_positions(db, stored);
  size_t used =
      (size_t)snprintf(out, size, "%s; partition %d of %d, stored %" PRId64 ", end %" PRId64 "; health:",
                       what ? what : "nothing is missing", p, o.topic->count, p >= 0 ? stored[p].next : 0,
                       p >= 0 ? sim_stable_end(&o.topic->at[p]) : 0);
  size_t count;
  const sim_field *fields = sim_db_fields(db, o.health, &count);
  for (size_t i = 0; i < count && used < size; i++)
    used +=
        (size_t)snprintf(out + used, size - used, " %s=%s", fields[i].name->bytes, fields[i].value->bytes);
}
