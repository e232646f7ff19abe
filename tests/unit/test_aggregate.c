/* The aggregator against a real redis-server: entries go in by the commit script, views come out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/clock.h"
#include "common/log.h"
#include "consumer/aggregate.h"
#include "consumer/manifest.h"
#include "consumer/scripts.h"
#include "tests/unit/redis_asked.h"
#include "tests/unit/redis_relay.h"

#include <inttypes.h>
#include <time.h>

static redis_server server;
static redis_relay relay; /* only where a test opens an aggregator through it */
static livenps_keys keys;
static livenps_settings settings;

#define ADMIT "00000000000000000000000000000000000000000000000000000000000000aa"

/* ---- what stands for Kafka ------------------------------------------------------------------------------------------ */

static int64_t asked_since_ms;
static int64_t covered_since_ms;
static size_t partitions = 2;
static bool kafka_away;
static int64_t answer_after_ms;

static bool rival_meanwhile; /* took the lease while Kafka was asked, and let it lapse */
static bool emptied;         /* partitions that once had records and have none */

static int beginnings(void *opaque, int64_t since_ms, livenps_beginning **out, size_t *count,
                      livenps_error *why) {
  (void)opaque;
  if (kafka_away) {
    return livenps_fail(why, LIVENPS_E_LOST, "no broker");
  }
  asked_since_ms = since_ms;
  if (answer_after_ms) {
    struct timespec time = {answer_after_ms / 1000, answer_after_ms % 1000 * 1000000};
    nanosleep(&time, NULL);
    run("SET nps:{t}:lease somebody NX PX 60000"); /* who stands by takes what lapsed */
  }
  if (rival_meanwhile) {
    run("SET nps:{t}:lease:last somebody");
    run("DEL nps:{t}:lease");
  }
  *out = livenps_alloc(partitions * sizeof **out);
  for (size_t i = 0; i < partitions; i++) {
    snprintf((*out)[i].topic, sizeof(*out)[i].topic, "t");
    (*out)[i].partition = (int32_t)i;
    (*out)[i].start = 100 * (int64_t)i;
    (*out)[i].end = 1000;
    (*out)[i].covered_since_ms = emptied ? -1 : covered_since_ms;
  }
  *count = partitions;
  return 0;
}

static bool known_partitions(void *opaque, size_t *total) {
  (void)opaque;
  *total = partitions;
  return true;
}

/* ---- what stands for the snapshots in Kafka: the last one that was offered, its chunks as Redis held them ----------- */

static struct {
  int holding, offers, finds;
  bool wanted, away, better, nothing;
  livenps_manifest manifest;
  livenps_buffer *chunks;
} kept;

static void keeper_hold(void *opaque, bool holding) {
  (void)opaque;
  kept.holding = holding;
}

static bool keeper_wants(void *opaque) {
  (void)opaque;
  return kept.wanted && kept.holding;
}

static void keeper_drop(void) {
  for (size_t i = 0; i < kept.manifest.chunk_count; i++) {
    livenps_buffer_free(&kept.chunks[i]);
  }
  free(kept.chunks);
  kept.chunks = NULL;
  livenps_manifest_free(&kept.manifest);
}

static void keeper_offer(void *opaque, livenps_manifest *manifest) {
  (void)opaque;
  keeper_drop();
  kept.offers++;
  kept.manifest = *manifest;
  *manifest = (livenps_manifest){0};
  kept.chunks = livenps_alloc((kept.manifest.chunk_count + 1) * sizeof *kept.chunks);
  for (size_t i = 0; i < kept.manifest.chunk_count; i++) {
    livenps_reply *reply = command("GET nps:{t}:snapshot:%s", kept.manifest.chunks[i].id);
    livenps_text bytes;
    assert_true(livenps_reply_text(reply, &bytes));
    assert_int_equal(bytes.length, kept.manifest.chunks[i].size);
    livenps_buffer_add(&kept.chunks[i], bytes.at, bytes.length);
    livenps_reply_free(reply);
  }
}

static bool keeper_reading(void *opaque) {
  (void)opaque;
  return false;
}

static int keeper_loses_less(void *opaque, const livenps_manifest *mine) {
  (void)opaque;
  return kept.better && livenps_manifest_better(&kept.manifest, mine, NULL, 0);
}

static int keeper_find(void *opaque, const livenps_search *search, livenps_state **found_state,
                       livenps_manifest *found, livenps_error *why) {
  (void)opaque;
  kept.finds++;
  *found_state = NULL;
  if (kept.away) {
    return livenps_fail(why, LIVENPS_E_LOST, "no broker");
  }
  assert_int_equal(search->count, partitions);
  assert_int_equal(search->beat(search->opaque, why), 0);
  if (kept.nothing || !kept.chunks) {
    return 0;
  }
  livenps_state_open(found_state, &settings);
  for (size_t i = 0; i < kept.manifest.chunk_count; i++) {
    assert_int_equal(livenps_state_load(*found_state, kept.chunks[i].at, kept.chunks[i].length, why), 0);
  }
  assert_int_equal(livenps_state_load_finish(*found_state, why), 0);
  found->genesis = kept.manifest.genesis;
  found->ms = kept.manifest.ms;
  return 0;
}

static const livenps_keeper keeper = {.hold = keeper_hold,
                                      .wants = keeper_wants,
                                      .offer = keeper_offer,
                                      .reading = keeper_reading,
                                      .loses_less = keeper_loses_less,
                                      .find = keeper_find};
static const livenps_keeper *with_keeper; /* of aggregators that are opened; NULL: none */

static livenps_aggregate *open_aggregate(const char *instance) {
  livenps_aggregate *aggregate = NULL;
  livenps_pair extra = {(char *)(uintptr_t) "note", (char *)(uintptr_t) "kept"};
  livenps_aggregate_config config = {.settings = &settings,
                                     .admit_hash = ADMIT,
                                     .instance = instance,
                                     .source = {beginnings, known_partitions, NULL},
                                     .keeper = with_keeper,
                                     .extra = &extra,
                                     .extra_count = 1};
  if (livenps_aggregate_open(&aggregate, &config, &error) != 0) {
    fail_msg("open: %s", error.text);
  }
  return aggregate;
}

static void tick(livenps_aggregate *aggregate) {
  if (livenps_aggregate_tick(aggregate, &error) != 0) {
    fail_msg("tick: %s", error.text);
  }
}

/* ---- what stands for ingest ----------------------------------------------------------------------------------------- */

static int64_t entry_clock = LIVENPS_NO_CLOCK;
static int64_t gap; /* offsets that the next commit loses */
static int64_t log_limit = 1 << 28;
static const char *entry_writer = "w1";

static livenps_commit_answer commit_rows(int partition, const livenps_row *rows, const livenps_cell *cells,
                                         size_t count) {
  char lineage[33], admit[65], detail[512], field[16];
  bool empty;
  int64_t now;
  livenps_position stored;
  livenps_commit_answer answer;
  livenps_entry_id id;
  livenps_buffer payload = {0};
  snprintf(field, sizeof field, "t/%d", partition);
  const char *fields[] = {field};
  if (livenps_script_adopt(redis, &keys, fields, 1, &empty, lineage, admit, &stored, &now, &error) != 0 ||
      empty) {
    fail_msg("adopt: %s", error.code ? error.text : "empty");
  }
  livenps_advance advance = {.topic = livenps_text_of("t"),
                             .partition = partition,
                             .from = stored.next,
                             .to = stored.next + (int64_t)count + gap,
                             .incarnation = stored.incarnation,
                             .through_ms = LIVENPS_THROUGH_NOW,
                             .covered_since_ms = LIVENPS_COVERED_SAME,
                             .accepted = (int64_t)count,
                             .gap = gap};
  livenps_entry entry = {.writer = livenps_text_of(entry_writer),
                         .clock_ms = entry_clock,
                         .advances = &advance,
                         .advance_count = 1,
                         .cells = (livenps_cell *)(uintptr_t)cells,
                         .cell_count = count,
                         .rows = (livenps_row *)(uintptr_t)rows,
                         .row_count = count};
  livenps_entry_encode(&entry, &payload);
  livenps_claim claim = {field, stored, stored};
  claim.position.next += (int64_t)count + gap;
  if (livenps_script_commit(redis, &keys, lineage, ADMIT, log_limit, &claim, 1, &payload, &answer, &now, &id,
                            detail, &error) != 0) {
    fail_msg("commit: %s", error.text);
  }
  livenps_buffer_free(&payload);
  return answer;
}

/* `count` answers with one score for one touchpoint, this second. */
static void answers(int partition, const char *touchpoint, const char *channel, int score, int count,
                    int64_t at_ms) {
  livenps_row rows[1] = {{.cell = 0, .second = at_ms / 1000}};
  livenps_cell cells[1] = {0};
  cells[0].dimensions[LIVENPS_TOUCHPOINT] = livenps_text_of(touchpoint);
  if (channel) {
    cells[0].dimensions[LIVENPS_CHANNEL] = livenps_text_of(channel);
  }
  rows[0].counters.at[LIVENPS_SCORE + score] = count;
  rows[0].counters.at[LIVENPS_ANSWERS] = count;
  rows[0].counters.at[LIVENPS_INVITATIONS] = 2 * count;
  assert_int_equal(commit_rows(partition, rows, cells, 1), LIVENPS_COMMIT_OK);
}

static void idle(int partition) {
  assert_int_equal(commit_rows(partition, NULL, NULL, 0), LIVENPS_COMMIT_OK);
}

static void fresh(void) {
  run("FLUSHALL");
  kafka_away = false;
  covered_since_ms = 0;
  partitions = 2;
  livenps_settings_free(&settings);
  livenps_settings_default(&settings);
  assert_int_equal(livenps_settings_set(&settings, "namespace=t", &error), 0);
  /* A machine that stands still for a while is no lag, and no lapse, that a test is about. */
  assert_int_equal(livenps_settings_set(&settings, "complete_lag=60s", &error), 0);
  assert_int_equal(livenps_settings_set(&settings, "aggregate.lease=60s", &error), 0);
  assert_int_equal(livenps_settings_set(&settings, "redis.timeout=60s", &error), 0);
  char url[160];
  snprintf(url, sizeof url, "redis.url=%s", server.url);
  assert_int_equal(livenps_settings_set(&settings, url, &error), 0);
}

/* A namespace that an aggregator has just begun. */
static livenps_aggregate *begun(void) {
  fresh();
  livenps_aggregate *aggregate = open_aggregate("one");
  tick(aggregate);
  return aggregate;
}

/* ---- tests ---------------------------------------------------------------------------------------------------------- */

static void genesis_begins_the_namespace(void **state) {
  (void)state;
  fresh();
  kafka_away = true;
  livenps_aggregate *aggregate = open_aggregate("one");
  assert_int_equal(livenps_aggregate_tick(aggregate, &error), -1);
  assert_int_equal(error.code, LIVENPS_E_LOST);
  livenps_error_clear(&error);
  assert_int_equal(number("EXISTS nps:{t}:meta"), 0);
  kafka_away = false;
  tick(aggregate);
  assert_true(livenps_aggregate_active(aggregate));
  assert_int_equal(number("HGET nps:{t}:meta genesis"), 1);
  assert_int_equal(number("HGET nps:{t}:meta version"), LIVENPS_FORMAT_VERSION);
  assert_string_equal(text("HGET nps:{t}:meta admit"), ADMIT);
  assert_string_equal(text("HGET nps:{t}:meta note"), "kept");
  assert_string_equal(text("HGET nps:{t}:positions t/0"), "0 1");
  assert_string_equal(text("HGET nps:{t}:positions t/1"), "100 1");
  assert_int_equal(number("XLEN nps:{t}:log"), 1);
  assert_string_equal(text("HGET nps:{t}:snapshot entry"), text("HGET nps:{t}:meta head"));
  /* Twice 90 days, a slice of 6 hours, 60 s of future. */
  int64_t span = redis_now() - asked_since_ms, day = 86400000;
  assert_true(span >= 180 * day + 6 * 3600000 + 60000 && span < 180 * day + 6 * 3600000 + 120000);
  livenps_aggregate_close(aggregate);
  assert_int_equal(number("EXISTS nps:{t}:lease"), 0);
}

static void views_hold_what_was_committed(void **state) {
  (void)state;
  livenps_aggregate *aggregate = begun();
  int64_t now = redis_now();
  answers(0, "delivery", "web", 10, 60, now);
  answers(1, "delivery", "web", 0, 20, now);
  answers(0, "a:b", NULL, 8, 3, now);
  idle(1);
  tick(aggregate);
  assert_int_equal(number("HGET nps:{t}:touchpoint:delivery:5m n"), 80);
  assert_string_equal(text("HGET nps:{t}:touchpoint:delivery:5m nps"), "50");
  assert_int_equal(number("HGET nps:{t}:touchpoint:delivery:5m nps_rounded"), 50);
  assert_int_equal(number("HGET nps:{t}:touchpoint:delivery:5m promoters"), 60);
  assert_int_equal(number("HGET nps:{t}:touchpoint:delivery:5m detractors"), 20);
  assert_int_equal(number("HGET nps:{t}:touchpoint:delivery:5m reliable"), 1);
  assert_string_equal(text("HGET nps:{t}:touchpoint:delivery:5m response_rate"), "50");
  assert_int_equal(number("HGET nps:{t}:touchpoint|channel:delivery|web:90d n"), 80);
  assert_int_equal(number("HGET nps:{t}:all:all:1h n"), 83);
  assert_int_equal(number("HGET nps:{t}:touchpoint:a%3Ab:1h n"), 3);
  assert_string_equal(text("HGET nps:{t}:touchpoint:a%3Ab:1h nps"),
                      "(nil)"); /* withheld: below the minimum */
  assert_string_equal(text("HGET nps:{t}:touchpoint:a%3Ab:1h promoters"), "(nil)");
  assert_int_equal(number("HGET nps:{t}:touchpoint:a%3Ab:1h reliable"), 0);
  assert_string_equal(text("ZSCORE nps:{t}:rank:touchpoint:5m delivery"), "50");
  assert_int_equal(number("ZCARD nps:{t}:rank:touchpoint:5m"), 1);
  assert_int_equal(number("SCARD nps:{t}:index:touchpoint"), 2);
  assert_int_equal(number("SISMEMBER nps:{t}:index:touchpoint a%3Ab"), 1);
  assert_int_equal(number("HGET nps:{t}:health complete"), 1);
  assert_int_equal(number("HGET nps:{t}:health accepted"), 3);
  assert_int_equal(number("HGET nps:{t}:health instances"), 1);
  assert_string_equal(text("HGET nps:{t}:health aggregator"), "one");
  assert_int_equal(number("HGET nps:{t}:health position:t/1"), 101);
  assert_true(number("HGET nps:{t}:health lag:t/1") < 60000);
  assert_int_equal(number("HGET nps:{t}:health:5m complete"), 1);
  assert_int_equal(number("HGET nps:{t}:health:90d previous_complete"), 1);
  /* With what has passed since they were written. */
  int64_t ttl = number("PTTL nps:{t}:touchpoint:delivery:5m");
  assert_true(ttl + redis_now() - now > 899000 && ttl <= 900000);
  ttl = number("PTTL nps:{t}:health");
  assert_true(ttl + redis_now() - now > 9000 && ttl <= 10000);
  ttl = number("PTTL nps:{t}:index:touchpoint");
  assert_true(ttl + redis_now() - now > 899000);
  ttl = number("PTTL nps:{t}:rank:touchpoint:5m");
  assert_true(ttl + redis_now() - now > 899000);
  livenps_aggregate_close(aggregate);
}

static void an_emptied_topic_is_not_covered(void **state) {
  (void)state;
  fresh();
  emptied = true;
  livenps_aggregate *aggregate = open_aggregate("one");
  tick(aggregate);
  emptied = false;
  idle(0);
  idle(1);
  tick(aggregate);
  assert_int_equal(number("HGET nps:{t}:health complete"), 1);
  assert_int_equal(number("HGET nps:{t}:health:5m complete"), 0);
  assert_int_equal(number("HEXISTS nps:{t}:health:5m covered_since_ms"), 1);
  livenps_aggregate_close(aggregate);
}

static void a_missing_partition_is_not_complete(void **state) {
  (void)state;
  livenps_aggregate *aggregate = begun();
  idle(0);
  tick(aggregate);
  assert_int_equal(number("HGET nps:{t}:health complete"), 0); /* partition 1 was never read */
  assert_int_equal(number("HEXISTS nps:{t}:health low_watermark_ms"), 0);
  idle(1);
  tick(aggregate);
  assert_int_equal(number("HGET nps:{t}:health complete"), 1);
  partitions = 3; /* one was added, nobody reads it */
  tick(aggregate);
  assert_int_equal(number("HGET nps:{t}:health complete"), 0);
  livenps_aggregate_close(aggregate);
}

static void finish_and_take_over(void **state) {
  (void)state;
  fresh();
  livenps_aggregate *one = open_aggregate("one"), *two = open_aggregate("two");
  tick(one);
  tick(two);
  assert_true(livenps_aggregate_active(one));
  assert_false(livenps_aggregate_active(two));
  int64_t now = redis_now();
  for (int i = 0; i < 20; i++) {
    answers(i % 2, "delivery", "web", i % 11, 2, now);
  }
  assert_int_equal(livenps_aggregate_finish(one, 0, &error), 0);
  assert_int_equal(number("XLEN nps:{t}:log"), 1); /* the covered entry stays */
  assert_string_equal(text("HGET nps:{t}:snapshot entry"), text("HGET nps:{t}:meta head"));
  assert_int_equal(number("HGET nps:{t}:meta trimmed"), number("HGET nps:{t}:meta bytes"));
  answers(0, "delivery", "web", 10, 7, now);
  tick(one);
  assert_int_equal(number("HGET nps:{t}:touchpoint:delivery:1h n"), 47);
  char digest[2][65];
  livenps_state_digest(livenps_aggregate_state(one), digest[0]);
  assert_int_equal(livenps_aggregate_finish(two, 0, &error), -1); /* not its turn */
  livenps_error_clear(&error);
  livenps_aggregate_close(one);
  assert_int_equal(number("EXISTS nps:{t}:lease"), 0);
  tick(two);
  assert_true(livenps_aggregate_active(two));
  livenps_state_digest(livenps_aggregate_state(two), digest[1]);
  assert_string_equal(text("HGET nps:{t}:health aggregator"), "two");
  assert_int_equal(number("HGET nps:{t}:touchpoint:delivery:1h n"), 47);
  assert_int_equal(number("HGET nps:{t}:meta genesis"), 1);
  livenps_aggregate_close(two);
}

static void a_flush_is_noticed(void **state) {
  (void)state;
  livenps_aggregate *aggregate = begun();
  answers(0, "delivery", "web", 10, 7, redis_now());
  tick(aggregate);
  char lineage[64];
  snprintf(lineage, sizeof lineage, "%s", text("HGET nps:{t}:meta lineage"));
  run("FLUSHALL");
  tick(aggregate); /* the token is gone */
  tick(aggregate);
  assert_true(livenps_aggregate_active(aggregate));
  assert_string_not_equal(lineage, text("HGET nps:{t}:meta lineage"));
  assert_int_equal(number("EXISTS nps:{t}:touchpoint:delivery:5m"), 0);
  answers(0, "delivery", "web", 10, 7, redis_now());
  tick(aggregate);
  assert_int_equal(number("HGET nps:{t}:touchpoint:delivery:5m n"), 7);
  livenps_aggregate_close(aggregate);
}

static void a_lost_token_stands_by(void **state) {
  (void)state;
  livenps_aggregate *aggregate = begun();
  answers(0, "delivery", "web", 10, 7, redis_now());
  run("SET nps:{t}:lease somebody");
  tick(aggregate);
  assert_false(livenps_aggregate_active(aggregate));
  assert_null(livenps_aggregate_state(aggregate));
  assert_int_equal(number("EXISTS nps:{t}:touchpoint:delivery:5m"), 0);
  assert_string_equal(text("GET nps:{t}:lease"), "somebody");
  run("DEL nps:{t}:lease"); /* it lapsed */
  tick(aggregate);
  assert_true(livenps_aggregate_active(aggregate));
  assert_int_equal(number("HGET nps:{t}:touchpoint:delivery:5m n"), 7);
  livenps_aggregate_close(aggregate);
}

/* On a busy machine a lease lapses; as long as nobody took it, that must cost nothing. */
static void a_slow_kafka_does_not_cost_the_lease(void **state) {
  (void)state;
  fresh();
  assert_int_equal(livenps_settings_set(&settings, "aggregate.lease=300ms", &error), 0);
  answer_after_ms = 700;
  livenps_aggregate *aggregate = open_aggregate("one");
  tick(aggregate);
  answer_after_ms = 0;
  assert_true(livenps_aggregate_active(aggregate));
  assert_int_equal(number("HGET nps:{t}:meta genesis"), 1);
  assert_true(number("PTTL nps:{t}:lease") <= 300); /* less than nothing when it lapsed meanwhile */
  livenps_aggregate_close(aggregate);
}

static void a_rival_while_kafka_is_asked_makes_its_answer_worthless(void **state) {
  (void)state;
  fresh();
  livenps_aggregate *aggregate = open_aggregate("one");
  rival_meanwhile = true;
  tick(aggregate);
  rival_meanwhile = false;
  assert_int_equal(number("EXISTS nps:{t}:meta"), 0);
  tick(aggregate);
  assert_true(livenps_aggregate_active(aggregate));
  assert_int_equal(number("HGET nps:{t}:meta genesis"), 1);
  livenps_aggregate_close(aggregate);
}

static void a_lapse_that_nobody_used_keeps_the_state(void **state) {
  (void)state;
  livenps_aggregate *aggregate = begun();
  answers(0, "delivery", "web", 10, 7, redis_now());
  tick(aggregate);
  const livenps_state *before = livenps_aggregate_state(aggregate);
  run("DEL nps:{t}:lease");
  tick(aggregate);
  assert_ptr_equal(livenps_aggregate_state(aggregate), before);
  assert_int_equal(number("EXISTS nps:{t}:lease"), 1);
  /* But a rival that came and went makes it worthless. */
  run("DEL nps:{t}:lease");
  run("SET nps:{t}:lease:last somebody");
  tick(aggregate);
  assert_null(livenps_aggregate_state(aggregate));
  tick(aggregate);
  assert_true(livenps_aggregate_active(aggregate));
  livenps_aggregate_close(aggregate);
}

static void another_publish_id_publishes_everything(void **state) {
  (void)state;
  livenps_aggregate *aggregate = begun();
  answers(0, "delivery", "web", 10, 7, redis_now());
  tick(aggregate);
  run("DEL nps:{t}:touchpoint:delivery:5m nps:{t}:all:all:90d");
  tick(aggregate);
  assert_int_equal(number("EXISTS nps:{t}:touchpoint:delivery:5m nps:{t}:all:all:90d"),
                   0); /* nothing changed, nothing told */
  run("HSET nps:{t}:meta publish stale");
  run("HSET nps:{t}:touchpoint:delivery:1h n 99");
  tick(aggregate);
  assert_int_equal(number("HGET nps:{t}:touchpoint:delivery:5m n"), 7);
  assert_int_equal(number("HGET nps:{t}:touchpoint:delivery:1h n"), 7);
  assert_int_equal(number("HGET nps:{t}:all:all:90d n"), 7);
  livenps_aggregate_close(aggregate);
}

static void a_missing_chunk_begins_anew(void **state) {
  (void)state;
  livenps_aggregate *aggregate = begun();
  answers(0, "delivery", "web", 10, 7, redis_now());
  assert_int_equal(livenps_aggregate_finish(aggregate, 0, &error), 0);
  livenps_aggregate_close(aggregate);
  livenps_reply *names = command("KEYS nps:{t}:snapshot:*");
  livenps_text name;
  assert_true(livenps_reply_text(livenps_reply_item(names, 0), &name));
  livenps_reply_free(command("DEL %.*s", (int)name.length, name.at));
  livenps_reply_free(names);
  aggregate = open_aggregate("two");
  tick(aggregate);
  assert_int_equal(number("HGET nps:{t}:meta genesis"), 2);
  assert_int_equal(number("EXISTS nps:{t}:touchpoint:delivery:5m"),
                   0); /* removed: the new state knows nothing of it yet */
  assert_string_equal(text("HGET nps:{t}:positions t/1"), "100 1");
  livenps_aggregate_close(aggregate);
}

static void a_broken_log_is_loaded_again_then_begun_anew(void **state) {
  (void)state;
  livenps_aggregate *aggregate = begun();
  answers(0, "delivery", "web", 10, 7, redis_now());
  tick(aggregate);
  /* A failover that lost the newest entry: everything goes back together. */
  livenps_reply_free(command("XDEL nps:{t}:log %s", text("HGET nps:{t}:meta head")));
  livenps_reply *first = command("XRANGE nps:{t}:log - +");
  livenps_text id, nonce;
  assert_true(livenps_reply_text(livenps_reply_item(livenps_reply_item(first, 0), 0), &id));
  assert_true(
      livenps_reply_text(livenps_reply_item(livenps_reply_item(livenps_reply_item(first, 0), 1), 3), &nonce));
  livenps_reply_free(command("HSET nps:{t}:meta head %.*s head_nonce %.*s", (int)id.length, id.at,
                             (int)nonce.length, nonce.at));
  livenps_reply_free(first);
  run("HSET nps:{t}:positions t/0 0^1");
  tick(aggregate); /* notices, drops */
  tick(aggregate); /* loads, publishes everything */
  assert_int_equal(number("HGET nps:{t}:meta genesis"), 1);
  assert_int_equal(number("EXISTS nps:{t}:touchpoint:delivery:5m"), 0);
  answers(0, "delivery", "web", 10, 4, redis_now());
  tick(aggregate);
  assert_int_equal(number("HGET nps:{t}:touchpoint:delivery:5m n"), 4);
  /* An entry in the middle is gone for good. */
  answers(0, "delivery", "web", 10, 4, redis_now());
  answers(0, "delivery", "web", 10, 4, redis_now());
  first = command("XRANGE nps:{t}:log - +");
  assert_int_equal(livenps_reply_count(first), 4);
  assert_true(livenps_reply_text(livenps_reply_item(livenps_reply_item(first, 2), 0), &id));
  livenps_reply_free(command("XDEL nps:{t}:log %.*s", (int)id.length, id.at));
  livenps_reply_free(first);
  for (int i = 0; i < 5; i++) {
    tick(aggregate);
  }
  assert_int_equal(number("HGET nps:{t}:meta genesis"), 2);
  assert_true(livenps_aggregate_active(aggregate));
  livenps_aggregate_close(aggregate);
}

/* The id of the n-th entry in the log. */
static void log_id(size_t n, char out[64]) {
  livenps_reply *entries = command("XRANGE nps:{t}:log - +");
  livenps_text id;
  assert_true(livenps_reply_text(livenps_reply_item(livenps_reply_item(entries, n), 0), &id));
  snprintf(out, 64, "%.*s", (int)id.length, id.at);
  livenps_reply_free(entries);
}

/* An entry that advanced nothing leaves no hole in the offsets: only the chain shows that it is gone. */
static void a_lost_idle_entry_is_noticed(void **state) {
  (void)state;
  char id[64];
  livenps_aggregate *aggregate = begun();
  answers(0, "delivery", "web", 10, 7, redis_now());
  idle(0);
  idle(0);
  log_id(2, id);
  livenps_reply_free(command("XDEL nps:{t}:log %s", id));
  for (int i = 0; i < 5; i++) {
    tick(aggregate);
  }
  assert_int_equal(number("HGET nps:{t}:meta genesis"), 2);
  livenps_aggregate_close(aggregate);
}

static void a_lost_covered_entry_begins_anew(void **state) {
  (void)state;
  char id[64];
  livenps_aggregate *aggregate = begun();
  answers(0, "delivery", "web", 10, 7, redis_now());
  tick(aggregate);
  log_id(0, id);
  livenps_reply_free(command("XDEL nps:{t}:log %s", id));
  run("SET nps:{t}:lease somebody"); /* what is in memory would not need it */
  tick(aggregate);
  assert_false(livenps_aggregate_active(aggregate));
  run("DEL nps:{t}:lease");
  tick(aggregate);
  assert_int_equal(number("HGET nps:{t}:meta genesis"), 2);
  assert_true(livenps_aggregate_active(aggregate));
  livenps_aggregate_close(aggregate);
}

/* The replica that takes over had every entry, but not the flip of the snapshot that covers them: its log is full, so no entry comes that
 * would make another snapshot due. */
static void a_snapshot_that_a_failover_lost_is_made_again(void **state) {
  (void)state;
  fresh();
  assert_int_equal(livenps_settings_set(&settings, "aggregate.snapshot=200ms", &error), 0);
  livenps_aggregate *aggregate = open_aggregate("one");
  tick(aggregate);
  answers(0, "delivery", "web", 10, 7, redis_now());
  livenps_reply *names = command("KEYS nps:{t}:*");
  for (size_t i = 0; i < livenps_reply_count(names); i++) {
    livenps_text name;
    assert_true(livenps_reply_text(livenps_reply_item(names, i), &name));
    livenps_reply_free(command("COPY %.*s %.*s DB 1", (int)name.length, name.at, (int)name.length, name.at));
  }
  livenps_reply_free(names);
  for (int i = 0; i < 2000 && number("XLEN nps:{t}:log") > 1; i++) {
    tick(aggregate);
    nanosleep(&(struct timespec){0, 10000000}, NULL);
  }
  assert_string_equal(text("HGET nps:{t}:snapshot entry"), text("HGET nps:{t}:meta head"));
  run("SWAPDB 0 1");
  assert_int_equal(number("XLEN nps:{t}:log"), 2);
  assert_string_not_equal(text("HGET nps:{t}:snapshot entry"), text("HGET nps:{t}:meta head"));
  log_limit = 1;
  livenps_commit_answer answer = commit_rows(0, NULL, NULL, 0);
  assert_int_equal(answer, LIVENPS_COMMIT_FULL);
  for (int i = 0; i < 2000 && answer == LIVENPS_COMMIT_FULL; i++) {
    tick(aggregate);
    nanosleep(&(struct timespec){0, 10000000}, NULL);
    answer = commit_rows(0, NULL, NULL, 0);
  }
  log_limit = 1 << 28;
  assert_int_equal(answer, LIVENPS_COMMIT_OK);
  tick(aggregate);
  assert_int_equal(number("HGET nps:{t}:meta genesis"), 1);
  assert_int_equal(number("HGET nps:{t}:touchpoint:delivery:5m n"), 7);
  livenps_aggregate_close(aggregate);
}

static void coverage_is_told_by_window(void **state) {
  (void)state;
  fresh();
  covered_since_ms = redis_now() - 420000;
  livenps_aggregate *aggregate = open_aggregate("one");
  tick(aggregate);
  idle(0);
  idle(1);
  tick(aggregate);
  assert_int_equal(number("HGET nps:{t}:health complete"), 1);
  assert_int_equal(number("HGET nps:{t}:health:5m complete"), 1);
  assert_int_equal(number("HGET nps:{t}:health:5m previous_complete"), 0);
  assert_int_equal(number("HGET nps:{t}:health:1h complete"), 0);
  assert_int_equal(number("HGET nps:{t}:health:1h covered_since_ms"), covered_since_ms);
  livenps_aggregate_close(aggregate);
}

/* Nobody reads partition 1: the points are written all the same after trend_wait, and say so. Then a holder comes that finds trends
 * far behind: it goes on with the last window, not with years. */
static void trends_that_waited_in_vain_are_flagged(void **state) {
  (void)state;
  fresh();
  assert_int_equal(livenps_settings_set(&settings, "windows=5m/1s", &error), 0);
  assert_int_equal(livenps_settings_set(&settings, "trends=touchpoint", &error), 0);
  assert_int_equal(livenps_settings_set(&settings, "trend_wait=1s", &error), 0);
  livenps_aggregate *aggregate = open_aggregate("one");
  tick(aggregate);
  const int64_t opened_ms = redis_now(), first_ms = opened_ms - 20000;
  answers(0, "delivery", "web", 10, 7, first_ms);
  tick(aggregate);
  const int64_t early = number("EXISTS nps:{t}:trend:touchpoint:delivery:5m");
  assert_true(early == 0 || redis_now() - opened_ms >= 1000); /* so soon after the start it waits */
  usleep(1100000);
  tick(aggregate);
  int64_t count = number("XLEN nps:{t}:trend:touchpoint:delivery:5m");
  assert_true(count >= 5 && count <= (redis_now() - first_ms) / 3000 + 1);
  assert_true(number("PTTL nps:{t}:trend:touchpoint:delivery:5m") > 0);
  livenps_reply *points = command("XRANGE nps:{t}:trend:touchpoint:delivery:5m - +");
  livenps_text complete;
  assert_true(livenps_reply_text(livenps_reply_item(livenps_reply_item(livenps_reply_item(points, 0), 1), 61),
                                 &complete));
  assert_true(livenps_text_equal(complete, livenps_text_of("0")));
  livenps_reply_free(points);
  assert_int_equal(livenps_aggregate_finish(aggregate, 0, &error), 0);
  livenps_aggregate_close(aggregate);

  livenps_reply_free(command("DEL nps:{t}:trend:touchpoint:delivery:5m"));
  const char *value[] = {"HSET", "nps:{t}:published", "touchpoint:5m", NULL};
  char behind[80];
  snprintf(behind, sizeof behind, "%s %d", text("HGET nps:{t}:meta lineage"), 3000);
  value[3] = behind;
  livenps_reply_free(livenps_redis_command(redis, &error, 4, value, NULL));
  aggregate = open_aggregate("two");
  tick(aggregate);
  usleep(1100000);
  tick(aggregate);
  int64_t again = number("XLEN nps:{t}:trend:touchpoint:delivery:5m");
  assert_true(again >= count && again <= (redis_now() - first_ms) / 3000 + 1);
  livenps_aggregate_close(aggregate);
}

static void another_admit_hash_is_refused(void **state) {
  (void)state;
  livenps_aggregate *aggregate = begun();
  livenps_aggregate_close(aggregate);
  run("HSET nps:{t}:meta admit another");
  aggregate = open_aggregate("one");
  assert_int_equal(livenps_aggregate_tick(aggregate, &error), -1);
  assert_int_equal(error.code, LIVENPS_E_REFUSED);
  assert_non_null(strstr(error.text, "another"));
  assert_non_null(strstr(error.text, ADMIT));
  livenps_error_clear(&error);
  livenps_aggregate_close(aggregate);
  assert_int_equal(number("EXISTS nps:{t}:lease"), 0);
}

static void changed_windows_and_rollups_leave_nothing_behind(void **state) {
  (void)state;
  livenps_aggregate *aggregate = begun();
  answers(0, "delivery", "web", 10, 7, redis_now());
  assert_int_equal(livenps_aggregate_finish(aggregate, 0, &error), 0);
  livenps_aggregate_close(aggregate);
  run("SADD nps:{t}:index:touchpoint ghost");
  run("HSET nps:{t}:touchpoint:ghost:5m n 1");
  run("ZADD nps:{t}:rank:touchpoint:5m 3 ghost");
  run("XADD nps:{t}:trend:touchpoint:ghost:5m 1-0 n 1");
  assert_int_equal(number("EXISTS nps:{t}:channel:web:24h"), 1);
  assert_int_equal(livenps_settings_set(&settings, "windows=5m/1s,1h/10s", &error), 0);
  assert_int_equal(livenps_settings_set(&settings, "rollups=all,touchpoint", &error), 0);
  assert_int_equal(livenps_settings_set(&settings, "trends=all", &error), 0);
  aggregate = open_aggregate("two");
  tick(aggregate);
  assert_int_equal(number("HGET nps:{t}:touchpoint:delivery:5m n"), 7);
  livenps_reply *names = command("KEYS *");
  for (size_t i = 0; i < livenps_reply_count(names); i++) {
    livenps_text name;
    assert_true(livenps_reply_text(livenps_reply_item(names, i), &name));
    char *copy = livenps_copy(name.at, name.length);
    if (!strstr(copy, ":snapshot:") &&
        (strstr(copy, "ghost") || strstr(copy, "channel") || strstr(copy, ":24h") ||
         strstr(copy, "trend:touchpoint") || strstr(copy, ":stage") || strstr(copy, "90d"))) {
      fail_msg("%s is still there", copy);
    }
    free(copy);
  }
  livenps_reply_free(names);
  assert_string_equal(text("ZSCORE nps:{t}:rank:touchpoint:5m ghost"), "(nil)");
  assert_int_equal(number("SISMEMBER nps:{t}:index:touchpoint ghost"), 0);
  assert_int_equal(number("HLEN nps:{t}:published"), 4);
  livenps_aggregate_close(aggregate);
}

/* Opens a replay of namespace t whose only window is 5 minutes, with a point of touchpoints' trends each 3 s, and ticks it once. */
static livenps_aggregate *open_replay(int64_t to_ms) {
  fresh();
  assert_int_equal(livenps_settings_set(&settings, "windows=5m/1s", &error), 0);
  assert_int_equal(livenps_settings_set(&settings, "trends=touchpoint", &error), 0);
  livenps_aggregate *aggregate = NULL;
  livenps_aggregate_config config = {.settings = &settings,
                                     .admit_hash = ADMIT,
                                     .instance = "one",
                                     .source = {beginnings, known_partitions, NULL},
                                     .replay = true,
                                     .to_ms = to_ms};
  assert_int_equal(livenps_aggregate_open(&aggregate, &config, &error), 0);
  tick(aggregate);
  return aggregate;
}

/* Both partitions have been read up to there; count answers for delivery in it. */
static void replay_up_to(livenps_aggregate *aggregate, int64_t at_ms, int count) {
  for (int partition = 0; partition < 2; partition++) {
    livenps_row row = {.cell = 0, .second = at_ms / 1000};
    livenps_cell cell = {0};
    cell.dimensions[LIVENPS_TOUCHPOINT] = livenps_text_of("delivery");
    row.counters.at[LIVENPS_SCORE + 10] = row.counters.at[LIVENPS_ANSWERS] = count;
    entry_clock = at_ms;
    assert_int_equal(commit_rows(partition, &row, &cell, count && partition == 0 ? 1 : 0), LIVENPS_COMMIT_OK);
  }
  entry_clock = LIVENPS_NO_CLOCK;
  tick(aggregate);
}

/* In a replay the clock is the entries': minutes pass at once. A window of 5 minutes has a point each 3 s. */
static void trends_are_written_once_and_closed(void **state) {
  (void)state;
  const int64_t begin = INT64_C(1700000000000) / 3000 * 3000, to_ms = begin + 320000;
  livenps_aggregate *aggregate = open_replay(to_ms);
  assert_int_equal(number("EXISTS nps:{t}:health"), 1);
  assert_int_equal(number("PTTL nps:{t}:health"), -1); /* nothing expires */
  for (int64_t at = begin + 500; at < begin + 330000; at += 1500)
    replay_up_to(aggregate, at, at == begin + 500 ? 7 : 0);
  assert_int_equal(livenps_aggregate_finish(aggregate, to_ms, &error), 0);
  assert_int_equal(number("HGET nps:{t}:health as_of_ms"), to_ms);
  assert_int_equal(number("PTTL nps:{t}:touchpoint:delivery:5m"), -1);
  livenps_reply *points = command("XRANGE nps:{t}:trend:touchpoint:delivery:5m - +");
  size_t count = livenps_reply_count(points);
  assert_int_equal(count,
                   101); /* 3 s to 300 s, and the closing one; MINID keeps those of the last 5 minutes */
  int64_t before = 0;
  for (size_t i = 0; i < count; i++) {
    const livenps_reply *point = livenps_reply_item(points, i);
    livenps_text id, n, nps, complete;
    assert_true(livenps_reply_text(livenps_reply_item(point, 0), &id));
    assert_int_equal(livenps_reply_count(livenps_reply_item(point, 1)), 62);
    assert_true(livenps_reply_text(livenps_reply_item(livenps_reply_item(point, 1), 1), &nps));
    assert_true(livenps_reply_text(livenps_reply_item(livenps_reply_item(point, 1), 9), &n));
    assert_true(livenps_reply_text(livenps_reply_item(livenps_reply_item(point, 1), 61), &complete));
    assert_true(livenps_text_equal(complete, livenps_text_of("1")));
    int64_t end = strtoll(id.at, NULL, 10);
    assert_int_equal(end % 3000, 0);
    assert_true(before == 0 || end == before + 3000);
    before = end;
    assert_int_equal(strtoll(n.at, NULL, 10), i + 1 < count ? 7 : 0);
    assert_true(livenps_text_equal(nps, livenps_text_of(i + 1 < count ? "100" : "NaN")));
  }
  livenps_reply_free(points);
  /* What is withheld now does not stay from before. */
  assert_int_equal(number("HGET nps:{t}:touchpoint:delivery:5m n"), 0);
  assert_int_equal(number("HEXISTS nps:{t}:touchpoint:delivery:5m nps"), 0);
  assert_int_equal(number("ZCARD nps:{t}:rank:touchpoint:5m"), 0);
  /* After twice the window the series is forgotten, with all its keys. */
  assert_int_equal(number("SCARD nps:{t}:index:touchpoint"), 1);
  assert_int_equal(livenps_aggregate_finish(aggregate, begin + 700000, &error), 0);
  assert_int_equal(number("SCARD nps:{t}:index:touchpoint"), 0);
  assert_int_equal(number("EXISTS nps:{t}:touchpoint:delivery:5m nps:{t}:trend:touchpoint:delivery:5m"), 0);
  livenps_aggregate_close(aggregate);
}

/* 450 s of answers, windows of 300 s with a point each 3 s: with every eighth point what is older than the window goes. */
static void trends_are_trimmed_to_the_window(void **state) {
  (void)state;
  const int64_t begin = INT64_C(1700000000000) / 24000 * 24000, to_ms = begin + 460000;
  livenps_aggregate *aggregate = open_replay(to_ms);
  int64_t most = 0, least = INT64_MAX;
  for (int64_t at = begin + 500; at < begin + 450000; at += 3000) {
    replay_up_to(aggregate, at, 1);
    const int64_t count = number("XLEN nps:{t}:trend:touchpoint:delivery:5m");
    most = count > most ? count : most;
    least = at > begin + 400000 && count < least ? count : least;
  }
  assert_int_equal(most, 108); /* both ends of the window, and seven more */
  assert_int_equal(least, 101);
  assert_int_equal(livenps_aggregate_finish(aggregate, to_ms, &error), 0);
  livenps_aggregate_close(aggregate);
}

/* Answers at the beginning, then again after the closing point: what is older than the window goes with the first point, which is not an eighth. */
static void trends_are_trimmed_after_a_silence(void **state) {
  (void)state;
  const int64_t begin = INT64_C(1700000000000) / 24000 * 24000;
  livenps_aggregate *aggregate = open_replay(begin + 340000);
  for (int64_t at = begin + 500; at < begin + 330000; at += 3000)
    replay_up_to(aggregate, at, at == begin + 500 ? 7 : 0);
  assert_int_equal(number("XLEN nps:{t}:trend:touchpoint:delivery:5m"), 101);
  replay_up_to(aggregate, begin + 330500, 7);
  replay_up_to(aggregate, begin + 333500, 0);                                /* the 111th point */
  assert_int_equal(number("XLEN nps:{t}:trend:touchpoint:delivery:5m"), 92); /* 33 s to 303 s, and 333 s */
  livenps_aggregate_close(aggregate);
}

/* A night without a record between two ticks: what is forgotten then had no closing point, and gets none. */
static void a_forgotten_series_leaves_no_trend(void **state) {
  (void)state;
  const int64_t begin = INT64_C(1700000000000) / 3000 * 3000, to_ms = begin + 40000000;
  livenps_aggregate *aggregate = open_replay(to_ms);
  for (int64_t at = begin + 500; at < begin + 10000; at += 1500)
    replay_up_to(aggregate, at, 7);
  assert_int_equal(number("XLEN nps:{t}:trend:touchpoint:delivery:5m"), 3);
  replay_up_to(aggregate, to_ms, 0);
  assert_int_equal(livenps_aggregate_finish(aggregate, to_ms, &error), 0);
  assert_int_equal(number("SCARD nps:{t}:index:touchpoint"), 0);
  assert_int_equal(number("EXISTS nps:{t}:touchpoint:delivery:5m nps:{t}:trend:touchpoint:delivery:5m"), 0);
  livenps_aggregate_close(aggregate);
}

/* The last point was written with slices of 1 s, 5 s apart; now they are 2 s, and points 6 s apart. It may be all but a window old: the
 * first look at it must not ask for slices that have gone. */
static void a_changed_slice_moves_the_points(void **state) {
  (void)state;
  const int64_t ages[] = {7000, 599000};
  for (size_t i = 0; i < sizeof ages / sizeof *ages; i++) {
    fresh();
    assert_int_equal(livenps_settings_set(&settings, "windows=10m/2s", &error), 0);
    assert_int_equal(livenps_settings_set(&settings, "trends=touchpoint", &error), 0);
    livenps_aggregate *aggregate = open_aggregate("one");
    tick(aggregate);
    while (redis_now() % 2000 > 200)
      usleep(10000);
    const int64_t now = redis_now();
    answers(0, "delivery", "web", 10, 7, now - 200000);
    idle(1);
    assert_int_equal(livenps_aggregate_finish(aggregate, 0, &error), 0);
    livenps_aggregate_close(aggregate);
    livenps_reply_free(command("DEL nps:{t}:trend:touchpoint:delivery:10m"));
    char behind[80];
    snprintf(behind, sizeof behind, "%s %" PRId64, text("HGET nps:{t}:meta lineage"),
             now / 2000 * 2000 - ages[i]);
    const char *value[] = {"HSET", "nps:{t}:published", "touchpoint:10m", behind};
    livenps_reply_free(livenps_redis_command(redis, &error, 4, value, NULL));
    aggregate = open_aggregate("two");
    for (int tries = 0; tries < 1000 && number("EXISTS nps:{t}:trend:touchpoint:delivery:10m") == 0;
         tries++) {
      idle(0);
      idle(1);
      tick(aggregate);
      usleep(10000);
    }
    livenps_reply *points = command("XRANGE nps:{t}:trend:touchpoint:delivery:10m - +");
    assert_true(livenps_reply_count(points) > 0);
    for (size_t p = 0; p < livenps_reply_count(points); p++) {
      livenps_text id;
      assert_true(livenps_reply_text(livenps_reply_item(livenps_reply_item(points, p), 0), &id));
      assert_int_equal(strtoll(id.at, NULL, 10) % 6000, 0);
    }
    livenps_reply_free(points);
    livenps_aggregate_close(aggregate);
  }
}

/* A commit that counts nothing but offsets that Kafka no longer had. */
static void lose(int partition, int64_t count) {
  gap = count;
  assert_int_equal(commit_rows(partition, NULL, NULL, 0), LIVENPS_COMMIT_OK);
  gap = 0;
}

static void begin_kept(void) {
  fresh();
  keeper_drop();
  memset(&kept, 0, sizeof kept);
  kept.wanted = true;
  with_keeper = &keeper;
  assert_int_equal(livenps_settings_set(&settings, "aggregate.snapshot=200ms", &error), 0);
}

static void wait_offer(livenps_aggregate *aggregate, int64_t next) {
  for (int i = 0; i < 2000; i++) {
    tick(aggregate);
    if (kept.offers && kept.manifest.partitions[0].position.next == next) {
      return;
    }
    nanosleep(&(struct timespec){0, 10000000}, NULL);
  }
  fail_msg("no snapshot up to %" PRId64 " was offered", next);
}

static void a_wiped_redis_is_restored_from_kafka(void **state) {
  (void)state;
  begin_kept();
  livenps_aggregate *aggregate = open_aggregate("one");
  tick(aggregate);
  assert_int_equal(kept.finds, 1);
  assert_true(kept.holding);
  int64_t now = redis_now();
  answers(0, "delivery", "web", 10, 60, now);
  answers(1, "delivery", "web", 0, 20, now);
  wait_offer(aggregate, 1);
  kept.wanted = false;
  answers(0, "delivery", "web", 5, 7, now); /* behind the snapshot: read again by whoever reads */
  tick(aggregate);
  assert_int_equal(number("HGET nps:{t}:all:all:1h n"), 87);
  run("FLUSHALL");
  /* Nothing is begun while Kafka cannot be asked for snapshots. */
  kept.away = true;
  for (int i = 0; i < 3; i++) {
    livenps_aggregate_tick(aggregate, &error);
    livenps_error_clear(&error);
  }
  assert_int_equal(number("EXISTS nps:{t}:meta"), 0);
  assert_false(kept.holding);
  kept.away = false;
  partitions = 3; /* one was added since */
  for (int i = 0; i < 5 && !livenps_aggregate_active(aggregate); i++) {
    tick(aggregate);
  }
  tick(aggregate);
  assert_true(kept.holding);
  assert_int_equal(number("HGET nps:{t}:meta genesis"), 2);
  assert_string_equal(text("HGET nps:{t}:positions t/0"), "1 1");
  assert_string_equal(text("HGET nps:{t}:positions t/1"), "101 1");
  assert_string_equal(text("HGET nps:{t}:positions t/2"), "200 1");
  assert_int_equal(number("HGET nps:{t}:all:all:1h n"), 80);
  assert_int_equal(number("HGET nps:{t}:health accepted"), 2);
  answers(0, "delivery", "web", 5, 7, now);
  tick(aggregate);
  assert_int_equal(number("HGET nps:{t}:all:all:1h n"), 87);
  /* Its chunks are in Redis as well: another aggregator loads them from there. */
  kept.nothing = true;
  livenps_aggregate_close(aggregate);
  aggregate = open_aggregate("two");
  tick(aggregate);
  assert_int_equal(number("HGET nps:{t}:meta genesis"), 2);
  assert_int_equal(number("HGET nps:{t}:all:all:1h n"), 87);
  livenps_aggregate_close(aggregate);
  with_keeper = NULL;
}

static void a_gap_is_healed_by_a_snapshot_that_has_none(void **state) {
  (void)state;
  begin_kept();
  livenps_aggregate *aggregate = open_aggregate("one");
  tick(aggregate);
  int64_t now = redis_now();
  answers(0, "delivery", "web", 10, 60, now);
  wait_offer(aggregate, 1);
  kept.wanted = false;
  /* A gap that no snapshot counts stays one, and is asked about once. */
  int finds = kept.finds;
  lose(1, 5);
  for (int i = 0; i < 3; i++) {
    tick(aggregate);
  }
  assert_int_equal(kept.finds, finds);
  assert_int_equal(number("HGET nps:{t}:health gap"), 5);
  assert_int_equal(number("HGET nps:{t}:meta genesis"), 1);
  /* One that a snapshot lost less than: it takes the place of the state; while Kafka is away, publishing goes on. */
  kept.better = kept.away = true;
  lose(0, 3);
  tick(aggregate);
  assert_int_equal(kept.finds, finds + 1);
  assert_int_equal(number("HGET nps:{t}:health gap"), 8);
  assert_int_equal(number("HGET nps:{t}:meta genesis"), 1);
  tick(aggregate);
  assert_int_equal(kept.finds, finds + 1); /* not in every tick */
  kept.away = false;
  /* A new aggregator asks at once. */
  livenps_aggregate_close(aggregate);
  aggregate = open_aggregate("two");
  for (int i = 0; i < 3; i++) {
    tick(aggregate);
  }
  assert_int_equal(number("HGET nps:{t}:meta genesis"), 2);
  assert_int_equal(number("HGET nps:{t}:health gap"), 0);
  assert_string_equal(text("HGET nps:{t}:positions t/0"), "1 1");
  assert_int_equal(number("HGET nps:{t}:all:all:1h n"), 60);
  /* None is left that lost less: the state stays. */
  kept.nothing = true;
  lose(0, 3);
  for (int i = 0; i < 3; i++) {
    tick(aggregate);
  }
  assert_int_equal(number("HGET nps:{t}:meta genesis"), 2);
  assert_int_equal(number("HGET nps:{t}:health gap"), 3);
  livenps_aggregate_close(aggregate);
  with_keeper = NULL;
  keeper_drop();
}

/* ---- whatever is refused or lost on the way -------------------------------------------------------------------------- */

static void through_the_relay(void) {
  char url[160];
  fresh();
  snprintf(url, sizeof url, "redis.url=%s", relay.url);
  assert_int_equal(livenps_settings_set(&settings, url, &error), 0);
  assert_int_equal(livenps_settings_set(&settings, "windows=5m/1s,1h/10s", &error), 0);
  assert_int_equal(livenps_settings_set(&settings, "rollups=all,touchpoint", &error), 0);
  assert_int_equal(livenps_settings_set(&settings, "trends=touchpoint", &error), 0);
  settings.lease_ms = 1; /* renewed wherever it can be; nobody else takes it */
}

/* As the program does: again, until it is done. only_lost: of the errors, nothing but LOST. */
static void persist(livenps_aggregate *aggregate, bool finish, bool only_lost) {
  for (int i = 0; i < 8; i++) {
    int result =
        finish ? livenps_aggregate_finish(aggregate, 0, &error) : livenps_aggregate_tick(aggregate, &error);
    if (result == 0 && livenps_aggregate_active(aggregate))
      return;
    if (only_lost && error.code && error.code != LIVENPS_E_LOST)
      fail_msg("not LOST: %s", error.text);
    livenps_error_clear(&error);
  }
  fail_msg("one spoilt exchange was not got over");
}

static void published(const char *who, int expected) {
  if (number("HGET nps:{t}:touchpoint:delivery:5m n") != expected ||
      number("HGET nps:{t}:all:all:1h n") != expected || number("HGET nps:{t}:meta genesis") != 1 ||
      number("SCARD nps:{t}:index:touchpoint") != 1)
    fail_msg("%s: exchange %d: %s of %d answers, genesis %s", who, atomic_load(&relay.exchanges),
             text("HGET nps:{t}:touchpoint:delivery:5m n"), expected, text("HGET nps:{t}:meta genesis"));
}

/* Genesis, folding, publishing, a snapshot, the end: one exchange of it is spoilt, and nothing is counted twice or lost, nor is the namespace
 * begun twice. true while there was an exchange to spoil. */
static bool a_life_with(int how, int n, const char *reply) {
  const bool only_lost = how != RELAY_ANSWER;
  through_the_relay();
  redis_relay_spoil(&relay, how, n, reply);
  livenps_aggregate *aggregate = open_aggregate("one");
  persist(aggregate, false, only_lost);
  const int64_t now = redis_now();
  answers(0, "delivery", NULL, 10, 60, now);
  answers(1, "delivery", NULL, 0, 20, now);
  persist(aggregate, false, only_lost);
  persist(aggregate, true, only_lost);
  answers(0, "delivery", NULL, 8, 3, now);
  persist(aggregate, false, only_lost);
  persist(aggregate, false, only_lost);
  published("one", 83);
  livenps_aggregate_close(aggregate);
  const bool spoilt = atomic_load(&relay.spoilt) > 0;
  redis_relay_spoil(&relay, RELAY_BEFORE, 0, NULL);
  run("DEL nps:{t}:lease"); /* giving it back may be what got lost */
  aggregate = open_aggregate("two");
  persist(aggregate, false, true);
  published("two", 83);
  assert_int_equal(number("HGET nps:{t}:health accepted"), 3);
  livenps_aggregate_close(aggregate);
  return spoilt;
}

static void every_exchange_may_be_lost(void **state) {
  (void)state;
  for (int how = RELAY_BEFORE; how <= RELAY_AFTER; how++) {
    int n = 1;
    while (a_life_with(how, n, NULL))
      n++;
    assert_true(n > 20);
  }
}

static void every_exchange_may_be_refused(void **state) {
  (void)state;
  static const char *const words[] = {"LEASE", "LINEAGE", "GONE", "REPUBLISH", "CHUNK", "BACKWARDS"};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    char reply[32];
    int n = 4; /* the first three make the connection */
    snprintf(reply, sizeof reply, "*1\r\n+%s\r\n", words[i]);
    while (a_life_with(RELAY_ANSWER, n, reply))
      n++;
    assert_true(n > 20);
  }
}

/* A namespace with one snapshot and seven answers behind it, and nobody who holds it. */
static void left_behind(void) {
  livenps_aggregate *aggregate = begun();
  answers(0, "delivery", "web", 10, 7, redis_now());
  assert_int_equal(livenps_aggregate_finish(aggregate, 0, &error), 0);
  livenps_aggregate_close(aggregate);
}

static void refused_with(livenps_aggregate *aggregate, livenps_code code, const char *words) {
  assert_int_equal(livenps_aggregate_tick(aggregate, &error), -1);
  if (error.code != code || !strstr(error.text, words))
    fail_msg("wanted error %d with '%s', got %d: %s", code, words, error.code, error.text);
  livenps_error_clear(&error);
}

static void what_another_program_wrote_is_refused(void **state) {
  (void)state;
  left_behind();
  run("HSET nps:{t}:meta version 1");
  livenps_aggregate *aggregate = open_aggregate("two");
  refused_with(aggregate, LIVENPS_E_REFUSED, "written in format version 1");
  run("HSET nps:{t}:meta version 2");
  tick(aggregate);
  assert_int_equal(number("HGET nps:{t}:touchpoint:delivery:5m n"), 7);
  /* An entry that continues the log, and that nobody can read: not skipped. */
  char lineage[64], head[64], nonce[64];
  snprintf(lineage, sizeof lineage, "%s", text("HGET nps:{t}:meta lineage"));
  snprintf(head, sizeof head, "%s", text("HGET nps:{t}:meta head"));
  snprintf(nonce, sizeof nonce, "%s", text("HGET nps:{t}:meta head_nonce"));
  livenps_reply_free(command("XADD nps:{t}:log * l %s n x p %s q %s b 0 d ?", lineage, head, nonce));
  refused_with(aggregate, LIVENPS_E_REFUSED, "cannot be read");
  livenps_aggregate_close(aggregate);
  /* A replay says it in its own words. */
  left_behind();
  livenps_aggregate_config config = {.settings = &settings,
                                     .admit_hash = "another",
                                     .instance = "two",
                                     .source = {beginnings, known_partitions, NULL},
                                     .replay = true};
  assert_int_equal(livenps_aggregate_open(&aggregate, &config, &error), 0);
  refused_with(aggregate, LIVENPS_E_REFUSED, "holds a replay of another range");
  livenps_aggregate_close(aggregate);
}

/* The topic is the truth: a snapshot that cannot be used, in whatever way, makes a new beginning, and says so. */
static void a_snapshot_that_cannot_be_used_begins_anew(void **state) {
  (void)state;
  for (int i = 0; i < 5; i++) {
    left_behind();
    char name[128] = "";
    livenps_reply *names = command("KEYS nps:{t}:snapshot:*");
    livenps_text found;
    assert_true(livenps_reply_text(livenps_reply_item(names, 0), &found));
    snprintf(name, sizeof name, "%.*s", (int)found.length, found.at);
    livenps_reply_free(names);
    switch (i) {
    case 0: livenps_reply_free(command("SETRANGE %s 0 ????", name)); break; /* the length stays */
    case 1: livenps_reply_free(command("APPEND %s x", name)); break;
    case 2: run("HSET nps:{t}:snapshot chunks rubbish"); break;
    case 3: run("DEL nps:{t}:snapshot"); break;
    default: run("HSET nps:{t}:snapshot lineage other"); break;
    }
    livenps_aggregate *aggregate = open_aggregate("two");
    tick(aggregate);
    assert_true(livenps_aggregate_active(aggregate));
    assert_int_equal(number("HGET nps:{t}:meta genesis"), 2);
    assert_string_equal(text("HGET nps:{t}:positions t/0"), "0 1");
    livenps_aggregate_close(aggregate);
  }
}

/* Redis says that there is more in the log than there is: loaded twice, then begun anew. */
static void a_head_that_is_not_there_begins_anew(void **state) {
  (void)state;
  left_behind();
  livenps_aggregate *aggregate = open_aggregate("two");
  tick(aggregate);
  run("HSET nps:{t}:meta head 9999999999999-0");
  for (int i = 0; i < 6; i++)
    tick(aggregate);
  assert_int_equal(number("HGET nps:{t}:meta genesis"), 2);
  assert_true(livenps_aggregate_active(aggregate));
  livenps_aggregate_close(aggregate);
}

/* `instances` counts who wrote lately; names without end make it no more than it can hold. */
static void writers_are_counted_within_bounds(void **state) {
  (void)state;
  char name[200];
  livenps_aggregate *aggregate = begun();
  for (int i = 0; i < 3; i++) {
    snprintf(name, sizeof name, "%0150d", i % 2); /* longer than is remembered: the beginning is one writer */
    entry_writer = name;
    idle(0);
  }
  entry_writer = "";
  idle(0);
  tick(aggregate);
  assert_int_equal(number("HGET nps:{t}:health instances"), 2);
  for (int i = 0; i < 300; i++) {
    snprintf(name, sizeof name, "w%d", i);
    entry_writer = name;
    idle(0);
  }
  entry_writer = "w1";
  tick(aggregate);
  assert_int_equal(number("HGET nps:{t}:health instances"), 256);
  livenps_aggregate_close(aggregate);
}

static void settings_that_mean_nothing_are_refused(void **state) {
  (void)state;
  livenps_aggregate *aggregate = NULL;
  livenps_aggregate_config config = {.settings = &settings,
                                     .admit_hash = ADMIT,
                                     .instance = "one",
                                     .source = {beginnings, known_partitions, NULL}};
  for (int i = 0; i < 3; i++) {
    fresh();
    char **value = i == 0 ? &settings.windows.at[0] : i == 1 ? &settings.rollups.at[0] : &settings.redis_url;
    free(*value);
    *value = livenps_copy("nonsense", 8);
    assert_int_equal(livenps_aggregate_open(&aggregate, &config, &error), -1);
    assert_null(aggregate);
    assert_true(error.code == LIVENPS_E_USAGE);
    livenps_error_clear(&error);
  }
  livenps_aggregate_close(NULL);
}

/* ---- the publisher's steps ------------------------------------------------------------------------------------------- */

/* `count` series of 50 answers each. */
static void many_series(int count) {
  livenps_row *rows = livenps_alloc((size_t)count * sizeof *rows);
  livenps_cell *cells = livenps_alloc((size_t)count * sizeof *cells);
  char(*names)[16] = livenps_alloc((size_t)count * sizeof *names);
  const int64_t second = redis_now() / 1000;
  for (int i = 0; i < count; i++) {
    snprintf(names[i], sizeof names[i], "s%d", i);
    cells[i].dimensions[LIVENPS_TOUCHPOINT] = livenps_text_of(names[i]);
    rows[i].cell = (uint32_t)i;
    rows[i].second = second;
    rows[i].counters.at[LIVENPS_SCORE + 10] = rows[i].counters.at[LIVENPS_ANSWERS] = 50;
  }
  assert_int_equal(commit_rows(0, rows, cells, (size_t)count), LIVENPS_COMMIT_OK);
  free(rows);
  free(cells);
  free(names);
}

static void only_touchpoints(void) {
  assert_int_equal(livenps_settings_set(&settings, "windows=5m/1s", &error), 0);
  assert_int_equal(livenps_settings_set(&settings, "rollups=touchpoint", &error), 0);
  assert_int_equal(livenps_settings_set(&settings, "trends=touchpoint", &error), 0);
}

/* More than fits in one step of the script and in one message. */
static void many_views_go_in_steps(void **state) {
  (void)state;
  fresh();
  only_touchpoints();
  livenps_aggregate *aggregate = open_aggregate("one");
  tick(aggregate);
  struct sockaddr_un address;
  int fd = redis_relay_socket(server.path, &address);
  assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
  assert_true(redis_relay_send(fd, "SUBSCRIBE nps:{t}:updates\r\n", 27));
  static char told[256 * 1024];
  size_t length = 0;
  while (!strstr(told, ":1\r\n")) { /* the answer to SUBSCRIBE */
    ssize_t n = read(fd, told + length, sizeof told - 1 - length);
    assert_true(n > 0);
    length += (size_t)n;
    told[length] = 0;
  }
  many_series(1300);
  tick(aggregate);
  assert_int_equal(number("SCARD nps:{t}:index:touchpoint"), 1300);
  assert_int_equal(number("HGET nps:{t}:touchpoint:s0:5m n"), 50);
  assert_int_equal(number("HGET nps:{t}:touchpoint:s1299:5m n"), 50);
  while (!strstr(told, "\"more\":300}")) {
    ssize_t n = read(fd, told + length, sizeof told - 1 - length);
    assert_true(n > 0);
    length += (size_t)n;
    told[length] = 0;
  }
  int names = 0;
  for (char *at = strstr(told, "\"changed\""); (at = strstr(at, "\"touchpoint:s")); at++)
    names++;
  assert_int_equal(names, 1000);
  close(fd);
  livenps_aggregate_close(aggregate);
}

/* What nobody changes is renewed all the same, its trend too: a view that expired would look like one without answers. */
static void views_are_renewed_before_they_expire(void **state) {
  (void)state;
  through_the_relay();
  only_touchpoints();
  settings.lease_ms = 60000;
  assert_int_equal(livenps_settings_set(&settings, "trend_wait=1s", &error), 0);
  livenps_aggregate *aggregate = open_aggregate("one");
  tick(aggregate);
  many_series(700);
  for (int i = 0; i < 2000 && number("EXISTS nps:{t}:trend:touchpoint:s0:5m") == 0; i++) {
    nanosleep(&(struct timespec){0, 20000000}, NULL);
    tick(aggregate);
  }
  static const char *const names[] = {"touchpoint:s0:5m", "touchpoint:s699:5m", "trend:touchpoint:s0:5m",
                                      "index:touchpoint", "rank:touchpoint:5m"};
  char line[100];
  for (int spoilt = 0; spoilt < 3; spoilt++) {
    settings.view_ttl_ms = 900000;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
      snprintf(line, sizeof line, "PERSIST nps:{t}:%s", names[i]);
      run(line);
    }
    settings.view_ttl_ms =
        3; /* the turn of all of them has come; what is set is still what was set at the start */
    /* As after a sleep of the whole expiry: what is gone comes back, changed or not. */
    run("DEL nps:{t}:touchpoint:s7:5m nps:{t}:index:touchpoint");
    nanosleep(&(struct timespec){0, 20000000}, NULL);
    /* In the middle of it a script may be lost: everything is published again. */
    redis_relay_spoil(&relay, RELAY_BEFORE, spoilt ? spoilt + 1 : 0, NULL);
    persist(aggregate, false, true);
    persist(aggregate, false, true);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
      snprintf(line, sizeof line, "PTTL nps:{t}:%s", names[i]);
      if (number(line) <= 3)
        fail_msg("%d: %s was not renewed", spoilt, names[i]);
    }
    assert_int_equal(number("EXISTS nps:{t}:touchpoint:s7:5m"), 1);
    assert_int_equal(number("SCARD nps:{t}:index:touchpoint"), 700);
  }
  livenps_aggregate_close(aggregate);
}

static void health_knows_every_partition_and_which_are_read(void **state) {
  (void)state;
  fresh();
  partitions = 250; /* more fields than one HSET takes */
  livenps_aggregate *aggregate = open_aggregate("one");
  tick(aggregate);
  for (int i = 0; i < 250; i++)
    idle(i);
  tick(aggregate);
  assert_int_equal(number("HGET nps:{t}:health partitions"), 250);
  assert_int_equal(number("HGET nps:{t}:health position:t/0"), 0);
  assert_int_equal(number("HGET nps:{t}:health position:t/249"), 24900);
  assert_int_equal(number("HEXISTS nps:{t}:health lag:t/249"), 1);
  assert_int_equal(number("HGET nps:{t}:health complete"), 1);
  assert_int_equal(number("HGET nps:{t}:health capped"), 0); /* the last of all */
  livenps_aggregate_close(aggregate);
  /* Topics that are not in the settings stand still by intent. */
  partitions = 2;
  for (int listed = 0; listed < 2; listed++) {
    fresh();
    assert_int_equal(livenps_settings_set(&settings, listed ? "topics=other,t" : "topics=other", &error), 0);
    aggregate = open_aggregate("one");
    tick(aggregate);
    answers(0, "delivery", "web", 10, 7, redis_now());
    idle(1);
    tick(aggregate);
    assert_int_equal(number("HGET nps:{t}:health accepted"), 1);
    assert_int_equal(number("HEXISTS nps:{t}:health low_watermark_ms"), listed);
    assert_int_equal(number("HGET nps:{t}:health complete"), listed);
    livenps_aggregate_close(aggregate);
  }
}

static int start(void **state) {
  (void)state;
  livenps_log_level(LIVENPS_ERROR);
  redis_server_start(&server, NULL);
  redis_relay_start(&relay, &server);
  livenps_settings plain = redis_server_settings(&server);
  livenps_keys_make(&keys, "t");
  livenps_settings_default(&settings);
  return livenps_redis_open(&redis, &plain, &error);
}

static int stop(void **state) {
  (void)state;
  livenps_redis_close(redis);
  livenps_settings_free(&settings);
  redis_relay_stop(&relay);
  redis_server_stop(&server);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(genesis_begins_the_namespace),
      cmocka_unit_test(views_hold_what_was_committed),
      cmocka_unit_test(an_emptied_topic_is_not_covered),
      cmocka_unit_test(a_missing_partition_is_not_complete),
      cmocka_unit_test(finish_and_take_over),
      cmocka_unit_test(a_flush_is_noticed),
      cmocka_unit_test(a_lost_token_stands_by),
      cmocka_unit_test(a_slow_kafka_does_not_cost_the_lease),
      cmocka_unit_test(a_rival_while_kafka_is_asked_makes_its_answer_worthless),
      cmocka_unit_test(a_lapse_that_nobody_used_keeps_the_state),
      cmocka_unit_test(another_publish_id_publishes_everything),
      cmocka_unit_test(a_missing_chunk_begins_anew),
      cmocka_unit_test(a_broken_log_is_loaded_again_then_begun_anew),
      cmocka_unit_test(a_lost_idle_entry_is_noticed),
      cmocka_unit_test(a_lost_covered_entry_begins_anew),
      cmocka_unit_test(a_snapshot_that_a_failover_lost_is_made_again),
      cmocka_unit_test(coverage_is_told_by_window),
      cmocka_unit_test(trends_that_waited_in_vain_are_flagged),
      cmocka_unit_test(another_admit_hash_is_refused),
      cmocka_unit_test(changed_windows_and_rollups_leave_nothing_behind),
      cmocka_unit_test(trends_are_written_once_and_closed),
      cmocka_unit_test(trends_are_trimmed_to_the_window),
      cmocka_unit_test(trends_are_trimmed_after_a_silence),
      cmocka_unit_test(a_forgotten_series_leaves_no_trend),
      cmocka_unit_test(a_changed_slice_moves_the_points),
      cmocka_unit_test(a_wiped_redis_is_restored_from_kafka),
      cmocka_unit_test(a_gap_is_healed_by_a_snapshot_that_has_none),
      cmocka_unit_test(every_exchange_may_be_lost),
      cmocka_unit_test(every_exchange_may_be_refused),
      cmocka_unit_test(what_another_program_wrote_is_refused),
      cmocka_unit_test(a_snapshot_that_cannot_be_used_begins_anew),
      cmocka_unit_test(a_head_that_is_not_there_begins_anew),
      cmocka_unit_test(writers_are_counted_within_bounds),
      cmocka_unit_test(settings_that_mean_nothing_are_refused),
      cmocka_unit_test(many_views_go_in_steps),
      cmocka_unit_test(views_are_renewed_before_they_expire),
      cmocka_unit_test(health_knows_every_partition_and_which_are_read),
  };
  return cmocka_run_group_tests(tests, start, stop);
}
