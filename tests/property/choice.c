/* Which snapshot in Kafka a namespace is begun with: small worlds, each with every order of what can happen to it. Here each record has a
 * name, and who counts what is a set of names; the program's choice sees numbers only (positions, starts, gaps, where the topics begin and
 * end) and must be the one that loses the fewest records. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/log.h"
#include "consumer/manifest.h"

#include <inttypes.h>
#include <stdio.h>

enum { PARTITIONS = 2, OFFSETS = 4, SNAPSHOTS = 8, DEPTH = 5, WALKS = 60000, STEPS = 16 };

/* A partition as somebody counts it. */
typedef struct {
  int64_t start, next, gap, incarnation;
  int topic;       /* which topic of that name it is */
  int last;        /* the name of the record before next; 0: none */
  uint64_t counts; /* names */
} line;

typedef struct {
  bool there;
  int64_t genesis;
  line lines[PARTITIONS];
} copy;

typedef struct {
  int topic, names;   /* counted */
  int64_t first, end; /* what it has */
  int name[OFFSETS];  /* of the record at each offset, also when it is gone */
} log_of;

typedef struct {
  log_of logs[PARTITIONS];
  bool cut; /* a log has lost its end */
  copy redis, backup, snapshots[SNAPSHOTS];
  int snapshot_count;
  int steps[STEPS], step_count; /* how it came here, for who reads a failure */
} world;

static struct { uint64_t worlds, restored, overtaken, healed, from_topics; } seen;

static void fail_in(const world *world, const char *what) {
  char path[STEPS * 4 + 1] = "";
  for (int i = 0; i < world->step_count; i++)
    snprintf(path + strlen(path), sizeof path - strlen(path), " %d", world->steps[i]);
  fail_msg("%s, after the steps%s", what, path);
}

#define CHECK(world_, condition)                                                                             \
  do {                                                                                                       \
    if (!(condition))                                                                                        \
      fail_in(world_, #condition);                                                                           \
  } while (0)

static int count_of(uint64_t set) {
  int count = 0;
  for (; set; set &= set - 1)
    count++;
  return count;
}

/* -- what happens ------------------------------------------------------------------------------------------------- */

static bool is_same(const line *line, const log_of *log) {
  return line->topic == log->topic && line->next <= log->end &&
         (!line->next || log->name[line->next - 1] == line->last);
}

/* What ingest does before it reads on: a topic made anew is read from its start, a log that lost its end is read on at its end, and
 * what retention removed is a gap. */
static void settle(line *line, const log_of *log) {
  if (!is_same(line, log)) {
    const int64_t to = line->topic == log->topic ? log->end : 0;
    line->gap += to - line->next;
    line->next = to;
    line->incarnation++;
    line->topic = log->topic;
    line->last = to ? log->name[to - 1] : 0;
  }
  if (line->next < log->first) {
    line->gap += log->first - line->next;
    line->next = log->first;
    line->last = log->name[line->next - 1];
  }
}

static void read_on(line *line, const log_of *log) {
  settle(line, log);
  if (line->next < log->end) {
    line->last = log->name[line->next];
    line->counts |= UINT64_C(1) << line->last;
    line->next++;
  }
}

/* Everything that will be counted from here on, when nothing more is lost. */
static int final_count(const copy *copy, const world *world) {
  int count = 0;
  for (int p = 0; p < PARTITIONS; p++) {
    line end = copy->lines[p];
    do
      read_on(&end, &world->logs[p]);
    while (end.next < world->logs[p].end);
    CHECK(world, count_of(end.counts) == end.next - end.start - end.gap); /* I2 */
    count += count_of(end.counts);
  }
  return count;
}

static void append(log_of *log) {
  if (log->end < OFFSETS)
    log->name[log->end++] = ++log->names;
}

/* -- what the program is told ------------------------------------------------------------------------------------- */

typedef struct {
  livenps_manifest manifest;
  livenps_manifest_partition partitions[PARTITIONS];
} told;

static const livenps_manifest *tell(told *out, const copy *copy) {
  static char topic[] = "t";
  out->manifest = (livenps_manifest){
      .genesis = copy->genesis, .partitions = out->partitions, .partition_count = PARTITIONS};
  for (int p = 0; p < PARTITIONS; p++) {
    const line *line = &copy->lines[p];
    out->partitions[p] =
        (livenps_manifest_partition){.topic = topic,
                                     .partition = p,
                                     .position = {.next = line->next, .incarnation = line->incarnation},
                                     .start = line->start,
                                     .gap = line->gap};
  }
  return &out->manifest;
}

static bool can_serve(const world *world, const copy *copy) {
  bool can = true;
  for (int p = 0; p < PARTITIONS; p++)
    can &= is_same(&copy->lines[p], &world->logs[p]);
  return can;
}

/* That offset is another record now. Beyond the end no record tells. */
static bool anchors_differ(const world *world, const copy *copy) {
  bool differ = false;
  for (int p = 0; p < PARTITIONS; p++)
    differ |= copy->lines[p].next <= world->logs[p].end && !is_same(&copy->lines[p], &world->logs[p]);
  return differ;
}

/* As keep.c goes through them: what stands at other records now is left out. -1: none. */
static int choose(const world *world, const copy *mine) {
  if (mine && anchors_differ(world, mine))
    return -1; /* ingest notices first */
  told all[SNAPSHOTS], our;
  const livenps_manifest *list[SNAPSHOTS];
  livenps_beginning now[PARTITIONS];
  size_t order[SNAPSHOTS];
  for (int i = 0; i < world->snapshot_count; i++)
    list[i] = tell(&all[i], &world->snapshots[i]);
  for (int p = 0; p < PARTITIONS; p++)
    now[p] = (livenps_beginning){.topic = "t",
                                 .partition = p,
                                 .start = world->logs[p].first,
                                 .first = world->logs[p].first,
                                 .end = world->logs[p].end};
  const size_t count = livenps_manifest_choose(list, (size_t)world->snapshot_count,
                                               mine ? tell(&our, mine) : NULL, now, PARTITIONS, order);
  for (size_t i = 0; i < count; i++)
    if (!anchors_differ(world, &world->snapshots[order[i]]))
      return (int)order[i];
  return -1;
}

/* -- what must hold ----------------------------------------------------------------------------------------------- */

static bool overtaken(const copy *copy, const world *world) {
  bool yes = false;
  for (int p = 0; p < PARTITIONS; p++)
    yes |= copy->lines[p].next < world->logs[p].first;
  return yes;
}

/* Redis is empty: of the highest genesis that can serve, the snapshot that loses the fewest; never a record that the topics still have. */
static void begin(world *world) {
  const int chosen = choose(world, NULL);
  int64_t genesis = 0;
  int most = 0, from_topics = 0;
  for (int i = 0; i < world->snapshot_count; i++)
    if (can_serve(world, &world->snapshots[i]) && world->snapshots[i].genesis > genesis)
      genesis = world->snapshots[i].genesis;
  for (int i = 0; i < world->snapshot_count; i++)
    if (can_serve(world, &world->snapshots[i]) && world->snapshots[i].genesis == genesis) {
      const int count = final_count(&world->snapshots[i], world);
      most = count > most ? count : most;
    }
  copy topics = {.there = true, .genesis = 1};
  for (int p = 0; p < PARTITIONS; p++) {
    const log_of *log = &world->logs[p];
    topics.lines[p] = (line){.start = log->first,
                             .next = log->first,
                             .incarnation = 1,
                             .topic = log->topic,
                             .last = log->first ? log->name[log->first - 1] : 0};
    from_topics += (int)(log->end - log->first);
  }
  CHECK(world, (chosen >= 0) == (genesis > 0));
  if (chosen < 0) {
    world->redis = topics;
    seen.from_topics++;
    return;
  }
  CHECK(world, world->snapshots[chosen].genesis == genesis);
  CHECK(world, final_count(&world->snapshots[chosen], world) == most);
  /* What took the place of an end that was lost is not always read. */
  CHECK(world, most >= from_topics || world->cut);
  world->redis = world->snapshots[chosen];
  world->redis.genesis = genesis + 1;
  seen.restored++;
  seen.overtaken += overtaken(&world->redis, world);
}

static bool settled(const world *world) {
  return can_serve(world, &world->redis) && !overtaken(&world->redis, world);
}

/* Records were lost: begun anew only with a snapshot that loses fewer; and whenever there is one, unless ingest has not told all gaps yet.
 * Each time fewer are lost than before, so it ends. */
static void heal(world *world) {
  for (int turn = 0;; turn++) {
    told our, its;
    const livenps_manifest *mine = tell(&our, &world->redis);
    const int now = final_count(&world->redis, world), chosen = choose(world, &world->redis);
    bool worth = false;
    for (int i = 0; i < world->snapshot_count; i++)
      worth |= livenps_manifest_better(tell(&its, &world->snapshots[i]), mine, NULL, 0);
    if (chosen < 0) {
      for (int i = 0; i < world->snapshot_count && settled(world); i++) {
        const copy *other = &world->snapshots[i];
        bool older = other->genesis < world->redis.genesis;
        for (int p = 0; p < PARTITIONS; p++)
          older |= other->lines[p].incarnation < world->redis.lines[p].incarnation;
        CHECK(world, older || !can_serve(world, other) || final_count(other, world) <= now);
      }
      return;
    }
    CHECK(world, turn <= SNAPSHOTS);
    CHECK(world, final_count(&world->snapshots[chosen], world) > now);
    CHECK(world, worth || !settled(world));
    CHECK(world, world->snapshots[chosen].genesis >= world->redis.genesis);
    const int64_t genesis = world->redis.genesis;
    world->redis = world->snapshots[chosen];
    world->redis.genesis = (world->redis.genesis > genesis ? world->redis.genesis : genesis) + 1;
    seen.healed++;
  }
}

/* -- every order, and long random ones ---------------------------------------------------------------------------- */

enum { ACTIONS = 17 };

static void keep(world *world, const copy *copy) {
  if (copy->there && world->snapshot_count < SNAPSHOTS)
    world->snapshots[world->snapshot_count++] = *copy;
}

/* false: nothing happened. */
static bool act(world *world, int action) {
  const int p = action % 2;
  log_of *log = &world->logs[p];
  if (world->step_count < STEPS)
    world->steps[world->step_count++] = action;
  switch (action / 2) {
  case 0: read_on(&world->redis.lines[p], log); break;
  case 1: /* retention */
    if (log->first == log->end)
      return false;
    log->first++;
    break;
  case 2: append(log); break;
  case 3: /* the topic is made anew */
    if (log->topic > 2)
      return false;
    *log = (log_of){.topic = log->topic + 1, .names = log->names};
    append(log);
    break;
  case 4: /* the log loses its end */
    if (log->end == log->first)
      return false;
    log->end--;
    world->cut = true;
    break;
  case 5: /* both partitions, so that short orders come far */
    read_on(&world->redis.lines[0], &world->logs[0]);
    read_on(&world->redis.lines[1], &world->logs[1]);
    if (p)
      keep(world, &world->redis);
    break;
  case 6: keep(world, p ? &world->redis : &world->backup); break; /* the older one: a zombie's */
  case 7:
    if (p) {
      world->backup = world->redis;
    } else {
      if (!world->backup.there)
        return false;
      world->redis = world->backup;
    }
    break;
  default: begin(world); break; /* Redis was wiped */
  }
  heal(world);
  seen.worlds++;
  return true;
}

static world fresh(void) {
  world world = {0};
  for (int p = 0; p < PARTITIONS; p++) {
    world.logs[p].topic = 1;
    while (world.logs[p].end < 2)
      append(&world.logs[p]);
  }
  begin(&world);
  return world;
}

static void go_on(const world *from, int depth) {
  for (int action = 0; action < ACTIONS && depth; action++) {
    world next = *from;
    if (act(&next, action))
      go_on(&next, depth - 1);
  }
}

static void every_short_order(void **state) {
  (void)state;
  const world from = fresh();
  go_on(&from, DEPTH);
  assert_true(seen.restored && seen.overtaken && seen.healed && seen.from_topics);
}

static void many_long_orders(void **state) {
  (void)state;
  uint64_t random = 88172645463325252u;
  for (int walk = 0; walk < WALKS; walk++) {
    world at = fresh();
    for (int step = 0; step < STEPS; step++) {
      random ^= random << 13;
      random ^= random >> 7;
      random ^= random << 17;
      act(&at, (int)(random % ACTIONS));
    }
  }
  print_message("%" PRIu64 " worlds: %" PRIu64 " restored (%" PRIu64 " from an overtaken snapshot), %" PRIu64
                " healed, %" PRIu64 " begun from the topics\n",
                seen.worlds, seen.restored, seen.overtaken, seen.healed, seen.from_topics);
}

static int quiet(void **state) {
  (void)state;
  livenps_log_level(LIVENPS_ERROR);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(every_short_order), cmocka_unit_test(many_long_orders)};
  return cmocka_run_group_tests(tests, quiet, NULL);
}
