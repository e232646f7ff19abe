#include "sim.h"

#include "consumer/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The scenario of a seed, and the command line. */

enum {
  LIVE = 3, /* processes of the live namespace at most */
  MOST_PARTITIONS = 5,
  REPLAYS = 2,
  EVERY_REPLAY = 10,   /* of so many seeds one is replayed at the end */
  RECOVERY_MS = 30000, /* I5: after the last fault, and the session time-out, and */
  CATCH_UP_MS = 15000, /* and the longest stop of a process */
  STOP_MOST_MS = 10000,
  FAULTS_LEAST = 5,
  RENEWALS = 1, /* of a topic, in one seed */
};

static uint64_t seed_now;
static livenps_settings settings;
static int live_count;
static int64_t faults_end_us;
static bool calm; /* faults are over */
/* A topic that was made anew, or a log that lost its end, under readers: nothing is appended before all of them have asked twice how far it
 * reaches (docs/guarantees.md, "A topic made anew between two looks"). */
static struct {
  bool on, once;
  int64_t since_us;
  bool fill[MOST_PARTITIONS];
  int64_t lost[MOST_PARTITIONS];
} hold;
static int renewals; /* of this seed */

/* ---- processes ------------------------------------------------------------------------------------------------------------ */

static void set(livenps_settings *to, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void set(livenps_settings *to, const char *format, ...) {
  char text[256];
  livenps_error error = {0};
  va_list more;
  va_start(more, format);
  vsnprintf(text, sizeof text, format, more);
  va_end(more);
  if (livenps_settings_set(to, text, &error))
    sim_fail("simulator", "setting %s: %s", text, error.text);
}

static void shared_settings(livenps_settings *to, const char *windows, bool trends, bool cooperative,
                            bool kept) {
  livenps_settings_default(to);
  set(to, "kafka.bootstrap.servers=simulated:9092");
  set(to, "kafka.partition.assignment.strategy=%s", cooperative ? "cooperative-sticky" : "range");
  set(to, "topics=" SIM_TOPIC);
  set(to, "namespace=" SIM_NAMESPACE);
  set(to, "redis.url=redis://simulated");
  set(to, "windows=%s", windows);
  set(to, "rollups=touchpoint,all");
  set(to, "trends=%s", trends ? "all" : "");
  set(to, "trend_wait=5s");
  set(to, "minimum_n=3");
  set(to, "admit.late=20m");
  set(to, "snapshot.topic=%s", kept ? "kept" : "none");
}

static const char *of_list(const char *const *list, int count) {
  return list[sim_between(0, count - 1)];
}

static void own_settings(livenps_settings *to) {
  static const char *const intervals[] = {"50ms", "100ms", "200ms", "400ms", "700ms"},
                           *const ticks[] = {"250ms", "400ms", "600ms"}, *const leases[] = {"800ms", "2s"},
                           *const snapshots[] = {"400ms", "1s", "3s"},
                           *const timeouts[] = {"200ms", "500ms", "1s"}, *const rows[] = {"4", "30", "25000"};
  set(to, "commit.interval=%s", of_list(intervals, 5));
  set(to, "commit.idle=%s", sim_chance(50) ? "1s" : "400ms");
  set(to, "commit.max_cells=%s", of_list(rows, 3));
  set(to, "aggregate.tick=%s", of_list(ticks, 3));
  set(to, "aggregate.lease=%s", of_list(leases, 2));
  set(to, "aggregate.snapshot=%s", of_list(snapshots, 3));
  set(to, "redis.timeout=%s", of_list(timeouts, 3));
  set(to, "redis.backoff_max=500ms");
  set(to, "snapshot.kafka_interval=%s", sim_chance(50) ? "1s" : "4s");
  set(to, "startup_timeout=10s");
}

static int run_live(sim_process *process) {
  return livenps_run(&process->settings);
}

static void start_live(void *opaque, int64_t number) {
  (void)number;
  sim_process *process = opaque;
  process->restarting = false;
  if (!process->alive) {
    process->skew_us = sim_between(-3600, 3600) * 1000000;
    process->slow = (int)sim_between(2, 6);
    sim_start(process);
  }
}

/* Whoever ends is started again, as by systemd; a reason to end that waiting could have mended is a bug. */
static void supervise(void *opaque, int64_t number) {
  (void)opaque, (void)number;
  for (int i = 0; i < live_count; i++) {
    sim_process *process = &sim_processes[i];
    if (process->alive || !process->ended_us || process->restarting)
      continue;
    const int code = process->exit_code;
    if (code != -1 && code != LIVENPS_E_STARTUP && !(process->stop && (code == 0 || code == LIVENPS_E_LOST)))
      sim_fail("end", "%s ended by itself with code %d", process->name, code);
    process->restarting = true;
    sim_at(sim_now_us + sim_between(20000, calm ? 200000 : 2500000), start_live, process, 0);
  }
  sim_at(sim_now_us + 50000, supervise, NULL, 0);
}

/* ---- what is published ------------------------------------------------------------------------------------------------------- */

static void end_transaction(sim_partition *partition, int number, bool commit) {
  for (int64_t i = partition->opened; i < partition->count; i++)
    if (partition->at[i].standing == SIM_OPEN_RECORD)
      partition->at[i].standing = commit ? SIM_STABLE : SIM_ABORTED_RECORD;
  partition->opened = -1;
  if (!commit)
    sim_fault_happened(SIM_ABORTED);
  sim_oracle_publish(number, SIM_MARKER, 0);
}

static void publish(void *opaque, int64_t number) {
  (void)opaque, (void)number;
  if (calm) /* the end stays where it is: two replays are asked for the same range */
    return;
  sim_topic *topic = sim_topic_find(SIM_TOPIC);
  const int p = (int)sim_between(0, topic->count - 1);
  sim_partition *partition = &topic->at[p];
  if (hold.on || topic->away_until_us > sim_now_us) {
    sim_at(sim_now_us + 50000, publish, NULL, 0);
    return;
  }
  if (partition->opened >= 0 && sim_chance(40))
    end_transaction(partition, p, sim_chance(50));
  else if (partition->opened < 0 && sim_chance(8)) {
    sim_fault_happened(SIM_OPEN);
    sim_oracle_publish(p, SIM_OPEN_RECORD, 0);
  }
  for (int64_t i = sim_between(1, 10); i--;)
    sim_oracle_publish(p, partition->opened >= 0 && sim_chance(60) ? SIM_OPEN_RECORD : SIM_STABLE, 0);
  sim_at(sim_now_us + sim_between(20000, 250000), publish, NULL, 0);
}

/* What was in the topic before: of the last quarter of an hour, and of hours ago. */
static void prefill(const sim_topic *topic) {
  for (int p = 0; p < topic->count; p++) {
    const int64_t count = sim_between(0, 60);
    for (int64_t i = count; i--;) {
      const int64_t ago_ms = i * 1000000 / (count + 1);
      const bool aborted = sim_chance(6);
      sim_oracle_publish(p, aborted ? SIM_ABORTED_RECORD : SIM_STABLE, ago_ms);
      if (aborted)
        sim_oracle_publish(p, SIM_MARKER, ago_ms);
    }
  }
}

/* ---- faults -------------------------------------------------------------------------------------------------------------------- */

static void stop_rates(void *opaque, int64_t number) {
  (void)opaque, (void)number;
  sim_redis.lose_reply = sim_redis.lose_request = sim_redis.late = 0;
}

static void heal_mood(void *opaque, int64_t number) {
  (void)number;
  sim_db_mood *mood = sim_db_mood_of(opaque);
  mood->readonly = mood->oom = false;
}

static void end_split(void *opaque, int64_t number) {
  (void)opaque;
  if (sim_redis.other && sim_redis.epoch == (uint64_t)number) {
    sim_redis.other = NULL;
    sim_redis.epoch++;
  }
}

static void stop_kafka_faults(void *opaque, int64_t number) {
  (void)opaque, (void)number;
  sim_kafka.skip = sim_kafka.refuse = 0;
}

static sim_process *somebody(void) {
  sim_process *process = &sim_processes[sim_between(0, live_count - 1)];
  return process->alive ? process : NULL;
}

static int64_t ms(int64_t low, int64_t high) {
  return sim_now_us + sim_between(low, high) * 1000;
}

static void new_master(int64_t lost_us) {
  sim_db_rollback(sim_redis.db, sim_db_unit_before(sim_redis.db, sim_now_us - lost_us));
  sim_db_forget_scripts(sim_redis.db);
  sim_redis.other = NULL;
  sim_redis.epoch++;
  sim_redis.away_until_us = ms(0, 1500);
  sim_oracle_stored(sim_redis.db);
}

static void answer_with(const char *error, int64_t until_us) {
  sim_redis.error = error;
  sim_redis.error_until_us = until_us;
}

/* What comes at once: a log that is shorter than the one before, of the same length, or longer. */
static void fill(int p, int64_t lost) {
  const int64_t most = sim_chance(30) ? 0 : sim_chance(30) ? lost : sim_between(1, lost + 20);
  for (int64_t i = 0; i < most; i++)
    sim_oracle_publish(p, sim_chance(5) ? SIM_ABORTED_RECORD : SIM_STABLE, 0);
}

static void let_go(void *opaque, int64_t number) {
  (void)opaque, (void)number;
  if (!hold.on || calm)
    return;
  for (int p = 0; p < MOST_PARTITIONS; p++)
    if (hold.fill[p] && !sim_kafka_looked(p, hold.since_us)) {
      sim_at(sim_now_us + 20000, let_go, NULL, 0);
      return;
    }
  if (!hold.once) {
    hold.once = true;
    hold.since_us = sim_now_us;
    sim_at(sim_now_us + 20000, let_go, NULL, 0);
    return;
  }
  sim_trace("-- all have looked");
  hold.on = false;
  for (int p = 0; p < MOST_PARTITIONS; p++)
    if (hold.fill[p])
      fill(p, hold.lost[p]);
}

static void renew(sim_topic *topic, int p, bool anew, int64_t kept) {
  hold.fill[p] = true;
  hold.lost[p] = topic->at[p].count - kept;
  sim_renew(&topic->at[p], anew, kept);
  sim_trace("-- partition %d: era %d, %lld of %lld records are left", p, topic->at[p].era, (long long)kept,
            (long long)(kept + hold.lost[p]));
}

/* While it is read, or while nobody is there. */
static bool renew_topic(sim_topic *topic, bool anew) {
  const int only = (int)sim_between(0, topic->count - 1);
  const sim_partition *cut = &topic->at[only];
  /* An election does not lose what was read long ago. */
  int64_t least = cut->count - cut->low > 40 ? cut->count - 40 : cut->low;
  const sim_db *const masters[] = {sim_redis.db, sim_redis.other};
  for (int i = 0; i < 2; i++)
    if (masters[i] && sim_oracle_root(masters[i], only) >= least)
      least = sim_oracle_root(masters[i], only) + 1;
  /* Retention has just taken a root, and a newer record takes its place: guarantees.md says what is not promised then. */
  for (int i = 0; i < 2 && !anew; i++)
    if (masters[i] && sim_oracle_root(masters[i], only) >= 0 && sim_oracle_root(masters[i], only) < cut->low)
      return false;
  if (hold.on || renewals == RENEWALS || (!anew && least >= cut->count))
    return false;
  renewals++;
  memset(&hold, 0, sizeof hold);
  hold.since_us = sim_now_us;
  const bool read = sim_chance(60);
  for (int i = 0; i < live_count && !read; i++)
    if (sim_processes[i].alive)
      sim_kill(&sim_processes[i]);
  if (anew) {
    for (int p = 0; p < topic->count; p++)
      renew(topic, p, true, 0);
    topic->away_until_us = sim_chance(50) ? 0 : ms(100, 3000);
  } else {
    renew(topic, only, false, sim_between(least, cut->count - 1));
  }
  for (int p = 0; p < MOST_PARTITIONS && !read; p++)
    if (hold.fill[p])
      fill(p, hold.lost[p]);
  hold.on = read;
  let_go(NULL, 0);
  return true;
}

/* true when it happened: some need a process that is there. */
static bool make(sim_fault fault) {
  sim_process *process = somebody();
  sim_topic *topic = sim_topic_find(SIM_TOPIC);
  switch (fault) {
  case SIM_KILL:
    if (!process)
      return false;
    sim_kill(process);
    break;
  case SIM_KILL_AT_SCRIPT:
    if (process)
      process->crash_at = (int)sim_between(1, 2);
    return false; /* counted when it comes to that */
  case SIM_STOP:
    if (!process)
      return false;
    if (sim_chance(60)) {
      process->stop_at_us = sim_between(3000000, STOP_MOST_MS * 1000);
      return false;
    }
    process->paused_until_us = ms(200, 9000);
    break;
  case SIM_TERM:
    if (!process)
      return false;
    process->stop = 1;
    break;
  case SIM_REBALANCE: sim_kafka_rebalance(); break;
  case SIM_LOST_REPLY:
    sim_redis.lose_reply = 15000;
    sim_at(ms(200, 2000), stop_rates, NULL, 0);
    return false;
  case SIM_LOST_REQUEST:
    sim_redis.lose_request = 15000;
    sim_at(ms(200, 2000), stop_rates, NULL, 0);
    return false;
  case SIM_LATE:
    if (process && sim_chance(70)) {
      process->late_commit = true;
      return false;
    }
    sim_redis.late = 10000;
    sim_at(ms(200, 2000), stop_rates, NULL, 0);
    return false;
  case SIM_AWAY:
    sim_redis.epoch++;
    sim_redis.away_until_us = ms(100, 5000);
    break;
  case SIM_HANG: sim_redis.hang_until_us = ms(200, 4000); break;
  case SIM_FAILOVER: new_master(sim_chance(50) ? sim_between(0, 300000) : sim_between(0, 3000000)); break;
  case SIM_SPLIT:
    if (sim_redis.other)
      return false;
    sim_redis.other = sim_db_copy(sim_redis.db);
    sim_db_rollback(sim_redis.db, sim_db_unit_before(sim_redis.db, sim_now_us - sim_between(0, 500000)));
    sim_redis.cut = (unsigned)sim_between(0, (1 << live_count) - 1);
    sim_redis.epoch++;
    sim_at(ms(300, 4000), end_split, NULL, (int64_t)sim_redis.epoch);
    break;
  case SIM_BACKUP: new_master(sim_between(0, sim_now_us)); break;
  case SIM_FLUSH: sim_reply_free(sim_db_command(sim_redis.db, 1, (const char *[]){"FLUSHALL"}, NULL)); break;
  case SIM_READONLY:
    sim_db_mood_of(sim_redis.db)->readonly = true;
    sim_at(ms(200, 3000), heal_mood, sim_redis.db, 0);
    break;
  case SIM_OOM:
    sim_db_mood_of(sim_redis.db)->oom = true;
    sim_at(ms(200, 3000), heal_mood, sim_redis.db, 0);
    break;
  case SIM_LOADING:
    sim_redis.epoch++;
    sim_db_forget_scripts(sim_redis.db);
    answer_with("LOADING Redis is loading the dataset in memory", ms(200, 2000));
    break;
  case SIM_BUSY: answer_with("BUSY Redis is busy running a script.", ms(200, 2000)); break;
  case SIM_NOSCRIPT: sim_db_forget_scripts(sim_redis.db); break;
  case SIM_CLOCK: sim_db_mood_of(sim_redis.db)->clock_us += sim_between(-3000000, 3000000); break;
  case SIM_BROKER: sim_kafka.away_until_us = ms(200, 5000); break;
  case SIM_SKIP:
    sim_kafka.skip = 60;
    sim_kafka_rebalance();
    sim_at(ms(500, 5000), stop_kafka_faults, NULL, 0);
    return false;
  case SIM_STRAY:
    if (sim_kafka.stray)
      return false;
    sim_kafka.stray = true;
    sim_kafka_rebalance();
    break;
  case SIM_RETENTION: {
    sim_partition *partition = &topic->at[sim_between(0, topic->count - 1)];
    if (partition->era)
      return false;
    sim_retain(partition, sim_between(partition->low, sim_stable_end(partition)));
    break;
  }
  case SIM_PARTITION:
    if (topic->count >= MOST_PARTITIONS)
      return false;
    sim_topic_make(SIM_TOPIC, topic->count + 1);
    break;
  case SIM_ANEW:
  case SIM_CUT:
    if (!renew_topic(topic, fault == SIM_ANEW))
      return false;
    break;
  case SIM_UNACKED: sim_kafka.hold_acks_until_us = ms(200, 4000); break;
  case SIM_REFUSED:
    sim_kafka.refuse = 50;
    if (sim_chance(30))
      sim_kafka.queue_full_until_us = ms(50, 500);
    sim_at(ms(200, 2000), stop_kafka_faults, NULL, 0);
    return false;
  default: abort();
  }
  sim_fault_happened(fault);
  return true;
}

static void fault(void *opaque, int64_t number) {
  (void)opaque;
  sim_trace("-- planned: %s", sim_fault_names[number]);
  make((sim_fault)number);
}

/* ---- the end: everything heals, and then ------------------------------------------------------------------------------------------ */

static bool caught_up(void) {
  for (int i = 0; i < live_count; i++)
    if (!sim_processes[i].alive || sim_paused(&sim_processes[i]))
      return false;
  return sim_oracle_caught_up(sim_redis.db);
}

static void heal(void) {
  calm = true;
  stop_rates(NULL, 0);
  stop_kafka_faults(NULL, 0);
  sim_kafka.stray = false;
  hold.on = false;
  sim_topic_find(SIM_TOPIC)->away_until_us = 0;
  sim_kafka.away_until_us = sim_kafka.hold_acks_until_us = sim_kafka.queue_full_until_us = 0;
  if (sim_redis.other)
    end_split(NULL, (int64_t)sim_redis.epoch);
  sim_redis.away_until_us = sim_redis.hang_until_us = sim_redis.error_until_us = 0;
  heal_mood(sim_redis.db, 0);
  for (int i = 0; i < live_count; i++)
    sim_processes[i].stop_at_us = sim_processes[i].crash_at = sim_processes[i].late_commit =
        0; /* who is stopped wakes when it was to */
  sim_topic *topic = sim_topic_find(SIM_TOPIC);
  for (int p = 0; p < topic->count; p++)
    if (topic->at[p].opened >= 0)
      end_transaction(&topic->at[p], p, sim_chance(50));
}

static int run_replay(sim_process *process) {
  const livenps_replay_options options = {.topic = SIM_TOPIC,
                                          .from_ms = SIM_EPOCH_MS - 1800000,
                                          .to_ms = SIM_EPOCH_MS + faults_end_us / 1000,
                                          .into = process->name,
                                          .digest = true};
  return livenps_replay(&process->settings, &options);
}

static sim_process *replays(int i) {
  return &sim_processes[LIVE + i];
}

static bool replayed(void) {
  for (int i = 0; i < REPLAYS; i++)
    if (replays(i)->alive)
      return false;
  return true;
}

/* I6: two replays with other batches, one of them killed on the way, end alike. */
static void replay_twice(void) {
  for (int i = 0; i < REPLAYS; i++) {
    sim_process *process = replays(i);
    shared_settings(&process->settings, "5m/1s", false, false, false);
    own_settings(&process->settings);
    set(&process->settings, "namespace=%s", process->name);
    process->slow = (int)sim_between(1, 4);
    process->entry = run_replay;
    sim_start(process);
  }
  sim_run(sim_now_us + sim_between(1, 600) * 1000, NULL);
  sim_process *killed = replays(0);
  if (killed->alive) {
    sim_fault_happened(SIM_KILL);
    sim_kill(killed);
    sim_start(killed);
  }
  sim_run(sim_now_us + INT64_C(90000000), replayed);
  for (int i = 0; i < REPLAYS; i++)
    if (replays(i)->alive || replays(i)->exit_code)
      sim_fail("I6", "replay %d %s with %d", i, replays(i)->alive ? "has not ended" : "ended",
               replays(i)->exit_code);
  if (!replays(0)->digest[0] || strcmp(replays(0)->digest, replays(1)->digest))
    sim_fail("I6", "two replays of the same range end with digests %s and %s", replays(0)->digest,
             replays(1)->digest);
}

/* Moments in which several writers believe to own one partition, or in which Redis steps back, are the hard ones. */
static sim_fault of_weight(void) {
  static const sim_fault hard[] = {SIM_STOP, SIM_REBALANCE,  SIM_FAILOVER, SIM_SPLIT,
                                   SIM_KILL, SIM_LOST_REPLY, SIM_LATE,     SIM_RETENTION};
  return sim_chance(50) ? hard[sim_between(0, sizeof hard / sizeof *hard - 1)]
                        : (sim_fault)sim_between(0, SIM_PLANNED - 1);
}

static uint64_t happened(void) {
  uint64_t count = 0;
  for (int i = 0; i < SIM_FAULTS; i++)
    count += sim_faults[i];
  return count;
}

static void scenario(void) {
  static const char *const windows[] = {"5m/1s", "5m/1s,10m/2s"};
  sim_redis_reset();
  sim_kafka_reset();
  sim_kafka.session_us = sim_between(2, 5) * 1000000;
  calm = false;
  memset(&hold, 0, sizeof hold);
  renewals = 0;
  live_count = sim_chance(20) ? 1 : (int)sim_between(2, LIVE);
  const bool trends = sim_chance(20), cooperative = sim_chance(30), kept = sim_chance(80);
  const char *chosen = of_list(windows, 2);
  sim_topic *topic = sim_topic_make(SIM_TOPIC, (int)sim_between(1, 4));
  if (sim_chance(80))
    sim_topic_make(SIM_TOPIC ".quarantine", 1);
  shared_settings(&settings, chosen, trends, cooperative, kept);
  sim_oracle_reset(&settings);
  prefill(topic);
  if (sim_chance(20))
    sim_retain(&topic->at[0], sim_stable_end(&topic->at[0]) / 2);
  const bool small_log = sim_chance(20);
  for (int i = 0; i < live_count; i++) {
    sim_process *process = &sim_processes[i];
    shared_settings(&process->settings, chosen, trends, cooperative, kept);
    own_settings(&process->settings);
    if (small_log)
      set(&process->settings, "commit.log_max=4kb");
    process->entry = run_live;
    sim_at(sim_between(0, 1500000), start_live, process, 0);
  }
  faults_end_us = sim_between(6000000, 14000000);
  for (int64_t i = sim_between(8, 16); i--;)
    sim_at(sim_between(500000, faults_end_us), fault, NULL, of_weight());
  sim_at(0, supervise, NULL, 0);
  sim_at(sim_between(0, 100000), publish, NULL, 0);
  sim_run(faults_end_us, NULL);
  /* Some of what was planned may have found nothing to break. */
  while (happened() < FAULTS_LEAST) {
    fault(NULL, SIM_KILL);
    sim_run(faults_end_us += 500000, NULL);
  }
  sim_trace("-- the faults are over");
  heal();
  sim_run(sim_now_us + RECOVERY_MS * 1000 + sim_kafka.session_us + (CATCH_UP_MS + STOP_MOST_MS) * 1000,
          caught_up);
  if (!caught_up()) {
    char text[1500];
    sim_oracle_explain(sim_redis.db, text, sizeof text);
    sim_fail("I5", "%.1f s after the last fault: %s", (double)(sim_now_us - faults_end_us) / 1e6, text);
  }
  sim_oracle_stored(sim_redis.db);
  if (seed_now % EVERY_REPLAY == 0)
    replay_twice();
}

/* ---- many seeds ------------------------------------------------------------------------------------------------------------------------ */

typedef struct {
  uint64_t seeds, steps, faults[SIM_FAULTS], fewest;
  int64_t simulated_ms;
  uint64_t running;
  uint64_t failed; /* seed + 1; 0 none */
  char invariant[64], failure[2048];
} outcome;

static const char *own_name = "tests/sim/run";

static void run_seed(uint64_t seed, outcome *out) {
  out->running = seed_now = seed;
  sim_steps = 0;
  const bool held = sim_seed(seed, scenario);
  out->steps += sim_steps;
  const uint64_t count = happened();
  out->seeds++;
  out->simulated_ms += sim_now_us / 1000;
  for (int i = 0; i < SIM_FAULTS; i++)
    out->faults[i] += sim_faults[i];
  if (count < out->fewest)
    out->fewest = count;
  if (held)
    return;
  sim_scripts_reset();
  if (out->failed)
    return;
  out->failed = seed + 1;
  memcpy(out->invariant, sim_failed_invariant, sizeof out->invariant);
  memcpy(out->failure, sim_failure, sizeof out->failure);
}

static void tell_failure(const outcome *out, const char *bug) {
  printf("seed %" PRIu64 " breaks %s: %s\n  again: %s%s%s --seed %" PRIu64 " --trace\n", out->failed - 1,
         out->invariant, out->failure, own_name, bug ? " --bug " : "", bug ? bug : "", out->failed - 1);
}

static int usage(void) {
  fputs(
      "usage: sim [--seeds N] [--from SEED] [--jobs N] [--seed SEED [--trace]] [--bug NAME: only shown in messages]\n",
      stderr);
  return 2;
}

int main(int argc, char **argv) {
  uint64_t from = 1, seeds = 1000;
  int jobs = 1;
  const char *bug = NULL;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--trace")) {
      sim_tracing = true;
      continue;
    }
    if (i + 1 == argc)
      return usage();
    const char *value = argv[++i];
    if (!strcmp(argv[i - 1], "--bug"))
      bug = value;
    else if (!strcmp(argv[i - 1], "--seed"))
      from = strtoull(value, NULL, 10), seeds = 1;
    else if (!strcmp(argv[i - 1], "--seeds"))
      seeds = strtoull(value, NULL, 10);
    else if (!strcmp(argv[i - 1], "--from"))
      from = strtoull(value, NULL, 10);
    else if (!strcmp(argv[i - 1], "--jobs"))
      jobs = atoi(value);
    else
      return usage();
  }
  if (jobs < 1 || jobs > 64 || !seeds)
    return usage();
  outcome *outcomes =
      mmap(NULL, sizeof *outcomes * 64, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  struct timespec began, ended;
  clock_gettime(CLOCK_MONOTONIC, &began);
  fflush(stdout);
  pid_t children[64];
  for (int j = 0; j < jobs; j++) {
    outcomes[j].fewest = UINT64_MAX;
    children[j] = fork();
    if (children[j] < 0) {
      perror("fork");
      return 1;
    }
    if (children[j] == 0) {
      /* A replay prints its report. */
      const int nowhere = open("/dev/null", O_WRONLY);
      if (nowhere < 0 || dup2(nowhere, 1) < 0)
        _Exit(1);
      for (uint64_t seed = from + (uint64_t)j; seed < from + seeds && !outcomes[j].failed;
           seed += (uint64_t)jobs)
        run_seed(seed, &outcomes[j]);
      _Exit(0);
    }
  }
  outcome all = {.fewest = UINT64_MAX};
  for (int j = 0; j < jobs; j++) {
    int status;
    while (waitpid(children[j], &status, 0) < 0 && errno == EINTR) {
    }
    outcome *each = &outcomes[j];
    if (!WIFEXITED(status) || WEXITSTATUS(status)) {
      each->failed = each->running + 1;
      snprintf(each->invariant, sizeof each->invariant, "the process");
      snprintf(each->failure, sizeof each->failure, "%s %d", WIFSIGNALED(status) ? "signal" : "exit code",
               WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    if (each->failed && (!all.failed || each->failed < all.failed)) {
      all.failed = each->failed;
      memcpy(all.invariant, each->invariant, sizeof all.invariant);
      memcpy(all.failure, each->failure, sizeof all.failure);
    }
    all.seeds += each->seeds;
    all.simulated_ms += each->simulated_ms;
    all.fewest = each->fewest < all.fewest ? each->fewest : all.fewest;
    for (int i = 0; i < SIM_FAULTS; i++)
      all.faults[i] += each->faults[i];
    all.steps += each->steps;
  }
  clock_gettime(CLOCK_MONOTONIC, &ended);
  uint64_t faults = 0;
  for (int i = 0; i < SIM_FAULTS; i++)
    faults += all.faults[i];
  if (!bug) {
    for (int i = 0; i < SIM_FAULTS; i++)
      printf("  %-28s %10" PRIu64 "\n", sim_fault_names[i], all.faults[i]);
  }
  printf("%" PRIu64 " seeds, %" PRIu64 " steps, %.1f h simulated, %" PRIu64
         " faults (mean %.1f, fewest %" PRIu64 " a seed), %.1f s\n",
         all.seeds, all.steps, (double)all.simulated_ms / 3600000.0, faults,
         (double)faults / (double)all.seeds, all.fewest,
         (double)(ended.tv_sec - began.tv_sec) + (double)(ended.tv_nsec - began.tv_nsec) / 1e9);
  if (!all.failed)
    return 0;
  tell_failure(&all, bug);
  return 1;
}
