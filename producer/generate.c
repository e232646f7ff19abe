#include "generate.h"

#include "common/clock.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* All chances are whole numbers out of 1000 unless a name says otherwise. */

enum { VOICE, CHAT, EMAIL, WEB, APP, SMS, SOCIAL, BRANCH, CHANNELS };
static const char *const channel_names[CHANNELS] = {"voice", "chat", "email",  "web",
                                                    "app",   "sms",  "social", "branch"};
enum { BEFORE, DURING, AFTER, STAGES };
static const char *const stage_names[STAGES] = {"before", "during", "after"};
enum { VIP, REGULAR, NEW, SEGMENTS };
static const char *const segment_names[SEGMENTS] = {"vip", "regular", "new"};

typedef struct {
  const char *name;
  int stage;
  int promoters, detractors; /* of 1000 NPS answers; the rest are passives */
  int response;              /* answers to 1000 invitations */
  uint8_t mix[CHANNELS];     /* weights, in the order above */
} touchpoint_profile;

/* True NPS = (promoters - detractors) / 10. Busiest first. The colon in one name is there on purpose: ids of Redis keys must
 * encode it. */
static const touchpoint_profile named[] = {
    {"checkout", DURING, 500, 190, 420, {1, 6, 0, 60, 33, 0, 0, 0}},
    {"customer-service", AFTER, 460, 260, 480, {50, 20, 18, 4, 4, 2, 2, 0}},
    {"delivery", AFTER, 560, 150, 450, {6, 4, 10, 30, 30, 20, 0, 0}},
    {"order-tracking", DURING, 420, 160, 330, {4, 6, 6, 40, 36, 8, 0, 0}},
    {"technical-support", AFTER, 380, 340, 500, {45, 35, 12, 4, 2, 0, 2, 0}},
    {"product-search", BEFORE, 330, 240, 220, {0, 2, 0, 62, 36, 0, 0, 0}},
    {"payment", DURING, 470, 170, 300, {3, 4, 1, 50, 40, 0, 0, 2}},
    {"returns", AFTER, 310, 380, 460, {18, 16, 14, 30, 12, 4, 2, 4}},
    {"billing", AFTER, 240, 430, 380, {48, 14, 26, 8, 4, 0, 0, 0}},
    {"app-login", BEFORE, 290, 330, 200, {4, 8, 2, 0, 86, 0, 0, 0}},
    {"store-visit", DURING, 610, 90, 350, {0, 0, 0, 0, 4, 4, 0, 92}},
    {"product-advice", BEFORE, 640, 80, 520, {24, 28, 4, 14, 4, 0, 6, 20}},
    {"appointment-booking", BEFORE, 520, 140, 360, {26, 10, 2, 34, 26, 0, 0, 2}},
    {"call-back", DURING, 350, 300, 440, {92, 0, 0, 4, 4, 0, 0, 0}},
    {"contract-change", DURING, 360, 280, 400, {40, 14, 18, 18, 6, 0, 0, 4}},
    {"installation", AFTER, 590, 160, 540, {20, 4, 20, 10, 16, 28, 0, 2}},
    {"complaint", AFTER, 130, 620, 410, {44, 10, 30, 4, 2, 0, 10, 0}},
    {"quote", BEFORE, 440, 180, 340, {22, 12, 22, 34, 6, 0, 0, 4}},
    {"onboarding", AFTER, 570, 130, 470, {10, 12, 34, 12, 32, 0, 0, 0}},
    {"claims", AFTER, 270, 400, 450, {46, 8, 28, 12, 6, 0, 0, 0}},
    {"app: upgrade", DURING, 400, 250, 260, {0, 4, 0, 0, 96, 0, 0, 0}},
    {"loyalty-programme", AFTER, 680, 60, 390, {2, 2, 30, 22, 40, 4, 0, 0}},
    {"renewal", BEFORE, 410, 230, 370, {30, 8, 34, 18, 8, 2, 0, 0}},
    {"cancellation", AFTER, 160, 570, 350, {52, 18, 22, 6, 2, 0, 0, 0}},
};
enum { NAMED = sizeof named / sizeof *named, INCIDENT = 2, TOUCHPOINT_NAME = 24 };

/* Scores inside a class; detractors rarely give the middle of their range. */
static const uint16_t promoter_scores[2] = {420, 580};
static const uint16_t passive_scores[2] = {430, 570};
static const uint16_t detractor_scores[7] = {150, 60, 80, 120, 130, 230, 230};
static const uint16_t incident_classes[2] = {90, 740}; /* promoters, detractors: NPS -65 */

/* Volume by hour (UTC) and weekday (Monday first), 1000 = average. */
static const uint16_t hours[24] = {260,  170,  130,  120,  150,  280,  560,  900,  1250, 1480, 1580, 1540,
                                   1430, 1440, 1490, 1500, 1470, 1440, 1480, 1570, 1500, 1210, 820,  480};
static const uint16_t weekdays[7] = {1190, 1120, 1090, 1080, 1060, 800, 660};
/* When a channel is staffed or open: [from, to) in hours. */
static const uint8_t open_hours[CHANNELS][2] = {
    [VOICE] = {6, 22}, [CHAT] = {7, 23}, [EMAIL] = {0, 24},  [WEB] = {0, 24},
    [APP] = {0, 24},   [SMS] = {7, 21},  [SOCIAL] = {8, 22}, [BRANCH] = {8, 19}};

enum {
  JOURNEYS = 3450, /* per 1000 simulated seconds at average volume; 10 events a second come of it */
  TRIALS = 16,     /* a second's journeys are as many draws of JOURNEYS / 1000 / TRIALS */
  CUSTOMERS = 250000,
  ANONYMOUS = 60, /* customers who are not known: no id, no segment */
  SECOND_CONTACT = 380,
  THIRD_CONTACT = 300,
  INVITED = 700,
  SURVEY_CSAT = 300, /* answers that come with these scales too */
  SURVEY_CES = 220,
  WITH_VALUE = 420, /* NPS answers that say what the order was worth */
  WARM_UP_S =
      9 * 3600, /* longer than the longest journey: answers to earlier contacts are there from the start */
};

typedef struct {
  int64_t send_ms;
  uint64_t number; /* ties of send_ms are sent in the order they were made */
  int32_t lateness_ms;
  int32_t touchpoint;
  int32_t customer; /* -1: not known */
  uint8_t channel, type, scale;
} pending;

struct livenps_generator {
  livenps_generator_options options;
  touchpoint_profile *profiles;
  char (*names)[TOUCHPOINT_NAME]; /* of those that are numbered */
  uint64_t *cumulative;           /* weights, added up */
  uint64_t random;
  uint64_t ids; /* what event numbers are mixed with */
  uint64_t sent, made;
  int64_t second;   /* next simulated second whose journeys are to be made */
  int64_t first_ms; /* what is sent before is part of the warm-up */
  int incident;
  pending *heap;
  size_t heap_length, heap_capacity;
  char id[24], customer[24];
};

/* ---- randomness ---- */

uint64_t livenps_mix(uint64_t state) {
  state = (state ^ (state >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  state = (state ^ (state >> 27)) * UINT64_C(0x94d049bb133111eb);
  return state ^ (state >> 31);
}

uint64_t livenps_random(uint64_t *state) {
  return livenps_mix(*state += UINT64_C(0x9e3779b97f4a7c15));
}

uint32_t livenps_random_below(uint64_t *state, uint32_t bound) {
  return (uint32_t)(((livenps_random(state) >> 32) * bound) >> 32);
}

static uint32_t below(livenps_generator *generator, uint32_t bound) {
  return livenps_random_below(&generator->random, bound);
}

static int32_t between(livenps_generator *generator, int32_t from, int32_t to) {
  return from + (int32_t)below(generator, (uint32_t)(to - from + 1));
}

static bool chance(livenps_generator *generator, uint32_t of_1000) {
  return below(generator, 1000) < of_1000;
}

/* Index of one of count weights that add up to 1000. */
static int pick(livenps_generator *generator, const uint16_t *weights, int count) {
  uint32_t left = below(generator, 1000);
  for (int i = 0; i < count - 1; i++) {
    if (left < weights[i])
      return i;
    left -= weights[i];
  }
  return count - 1;
}

/* ---- the heap of what is still to be sent, earliest first ---- */

static bool earlier(const pending *a, const pending *b) {
  return a->send_ms != b->send_ms ? a->send_ms < b->send_ms : a->number < b->number;
}

static void heap_push(livenps_generator *generator, pending item) {
  if (generator->heap_length == generator->heap_capacity) {
    generator->heap_capacity = generator->heap_capacity ? generator->heap_capacity * 2 : 1024;
    generator->heap = livenps_resize(generator->heap, generator->heap_capacity * sizeof *generator->heap);
  }
  size_t at = generator->heap_length++;
  for (; at && earlier(&item, &generator->heap[(at - 1) / 2]); at = (at - 1) / 2)
    generator->heap[at] = generator->heap[(at - 1) / 2];
  generator->heap[at] = item;
}

static pending heap_pop(livenps_generator *generator) {
  pending *heap = generator->heap;
  const pending top = heap[0], last = heap[--generator->heap_length];
  size_t at = 0;
  for (;;) {
    size_t child = 2 * at + 1;
    if (child >= generator->heap_length)
      break;
    if (child + 1 < generator->heap_length && earlier(&heap[child + 1], &heap[child]))
      child++;
    if (!earlier(&heap[child], &last))
      break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = last;
  return top;
}

/* ---- journeys ---- */

/* Which hour and weekday (0 is Monday) it is. 1970-01-01 was a Thursday. */
static void calendar(int64_t second, int *hour, int *weekday) {
  int64_t day = second / 86400, rest = second % 86400;
  if (rest < 0) {
    rest += 86400;
    day--;
  }
  *hour = (int)(rest / 3600);
  *weekday = (int)(((day + 3) % 7 + 7) % 7);
}

static int32_t pick_touchpoint(livenps_generator *generator) {
  const uint64_t *cumulative = generator->cumulative;
  const int count = generator->options.touchpoints;
  /* Weights add up to less than 2^40, so 24 random bits more keep the bias below notice. */
  const uint64_t want = livenps_random(&generator->random) % cumulative[count - 1];
  int low = 0, high = count - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (cumulative[middle] > want)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

static uint8_t pick_channel(livenps_generator *generator, const touchpoint_profile *profile, int hour) {
  uint32_t weights[CHANNELS], total = 0;
  for (int c = 0; c < CHANNELS; c++)
    total += weights[c] = hour >= open_hours[c][0] && hour < open_hours[c][1] ? profile->mix[c] : 0;
  if (!total)
    return WEB; /* everything is closed: a form on the web */
  uint32_t left = below(generator, total);
  uint8_t channel = 0;
  while (left >= weights[channel])
    left -= weights[channel++];
  return channel;
}

/* Event time minus send time, the other way round: positive is late. */
static int32_t pick_lateness(livenps_generator *generator) {
  const uint32_t kind = below(generator, 1000);
  if (kind < 920)
    return between(generator, 20, 2000);
  if (kind < 960)
    return between(generator, 2000, 60 * 1000);
  if (kind < 985)
    return between(generator, 60 * 1000, 20 * 60 * 1000);
  if (kind < 994)
    return between(generator, 20 * 60 * 1000, LIVENPS_LATE_MS);
  return -between(generator, 1, LIVENPS_EARLY_MS);
}

/* How long people take to answer. */
static int64_t pick_patience(livenps_generator *generator) {
  const uint32_t kind = below(generator, 1000);
  if (kind < 400)
    return between(generator, 8 * 1000, 120 * 1000);
  if (kind < 700)
    return between(generator, 120 * 1000, 15 * 60 * 1000);
  if (kind < 920)
    return between(generator, 15 * 60 * 1000, 60 * 60 * 1000);
  return between(generator, 60 * 60 * 1000, 4 * 60 * 60 * 1000);
}

static void plan(livenps_generator *generator, int64_t time_ms, int32_t touchpoint, int32_t customer,
                 uint8_t channel, livenps_type type, livenps_scale scale) {
  pending item = {.number = generator->made++,
                  .touchpoint = touchpoint,
                  .customer = customer,
                  .channel = channel,
                  .type = (uint8_t)type,
                  .scale = (uint8_t)scale};
  item.lateness_ms = pick_lateness(generator);
  item.send_ms = time_ms + item.lateness_ms;
  /* The warm-up keeps only what reaches into the time that is asked for. */
  if (item.send_ms < generator->first_ms)
    return;
  if (generator->options.has_start && time_ms < generator->first_ms)
    return;
  heap_push(generator, item);
}

static void make_journey(livenps_generator *generator, int64_t time_ms, int hour) {
  /* The product of two draws: some customers come often, most rarely. */
  const uint64_t draw = (uint64_t)below(generator, CUSTOMERS) * below(generator, CUSTOMERS) / CUSTOMERS;
  const int32_t customer = chance(generator, ANONYMOUS) ? -1 : (int32_t)draw;
  const int contacts = 1 + (chance(generator, SECOND_CONTACT) ? 1 + chance(generator, THIRD_CONTACT) : 0);
  for (int i = 0; i < contacts; i++) {
    const int32_t touchpoint = pick_touchpoint(generator);
    const touchpoint_profile *profile = &generator->profiles[touchpoint];
    const uint8_t channel = pick_channel(generator, profile, hour);
    plan(generator, time_ms, touchpoint, customer, channel, LIVENPS_INTERACTION, LIVENPS_SCALE_NONE);
    if (chance(generator, INVITED)) {
      const int64_t invited_ms = time_ms + between(generator, 5 * 1000, 180 * 1000);
      plan(generator, invited_ms, touchpoint, customer, channel, LIVENPS_INVITATION, LIVENPS_SCALE_NONE);
      if (chance(generator, (uint32_t)profile->response)) {
        int64_t answered_ms = invited_ms + pick_patience(generator);
        plan(generator, answered_ms, touchpoint, customer, channel, LIVENPS_ANSWER, LIVENPS_SCALE_NPS);
        if (chance(generator, SURVEY_CSAT))
          plan(generator, answered_ms += between(generator, 2000, 20000), touchpoint, customer, channel,
               LIVENPS_ANSWER, LIVENPS_SCALE_CSAT);
        if (chance(generator, SURVEY_CES))
          plan(generator, answered_ms + between(generator, 2000, 20000), touchpoint, customer, channel,
               LIVENPS_ANSWER, LIVENPS_SCALE_CES);
      }
    }
    time_ms += between(generator, 60 * 1000, 90 * 60 * 1000);
  }
}

/* All journeys that begin in the next simulated second. mix_ms: whose hour shapes the mix. */
static void make_second(livenps_generator *generator, int64_t mix_ms) {
  int hour, weekday;
  calendar(generator->options.has_start ? generator->second : mix_ms / 1000, &hour, &weekday);
  /* Out of a million, per trial. */
  uint32_t volume = JOURNEYS * 1000 / TRIALS;
  if (generator->options.has_start)
    volume = (uint32_t)((uint64_t)volume * hours[hour] / 1000 * weekdays[weekday] / 1000);
  for (int trial = 0; trial < TRIALS; trial++)
    if (below(generator, 1000000) < volume)
      make_journey(generator, generator->second * 1000 + below(generator, 1000), hour);
  generator->second++;
}

/* ---- one event ---- */

static int pick_score(livenps_generator *generator, const pending *item, int segment) {
  const touchpoint_profile *profile = &generator->profiles[item->touchpoint];
  int promoters = profile->promoters, detractors = profile->detractors;
  /* Good customers are milder, new ones stricter. */
  if (segment == VIP) {
    promoters += 70;
    detractors -= detractors * 3 / 10;
  } else if (segment == NEW) {
    promoters -= promoters * 15 / 100;
    detractors += 60;
  }
  if (item->touchpoint == generator->incident && (int64_t)generator->sent >= generator->options.incident_at) {
    promoters = incident_classes[0];
    detractors = incident_classes[1];
  }
  const int mood = (int)below(generator, 1000);
  const bool happy = mood < promoters, unhappy = !happy && mood < promoters + detractors;
  switch (item->scale) {
  case LIVENPS_SCALE_NPS:
    if (happy)
      return 9 + pick(generator, promoter_scores, 2);
    return unhappy ? pick(generator, detractor_scores, 7) : 7 + pick(generator, passive_scores, 2);
  case LIVENPS_SCALE_CSAT:
    return happy ? between(generator, 4, 5) : unhappy ? between(generator, 1, 3) : between(generator, 3, 4);
  case LIVENPS_SCALE_CES:
    return happy ? between(generator, 6, 7) : unhappy ? between(generator, 1, 4) : between(generator, 4, 6);
  default: return -1;
  }
}

/* What an order was worth, in hundredths: mostly small, some large, a few refunds; prices like round numbers. */
static int64_t pick_value(livenps_generator *generator) {
  const uint32_t kind = below(generator, 1000);
  int64_t value = kind < 700   ? between(generator, 499, 12000)
                  : kind < 970 ? between(generator, 12000, 90000)
                               : between(generator, 90000, 499999);
  const uint32_t shape = below(generator, 10);
  if (shape < 3)
    value -= value % 100;
  else if (shape < 5)
    value -= value % 10;
  return chance(generator, 20) ? -value : value;
}

/* Customer and segment are functions of the customer's number: who comes back is the same person. */
static int customer_segment(const livenps_generator *generator, int32_t customer) {
  const uint64_t kind = livenps_mix((uint64_t)customer + generator->options.seed * 2 + 1) % 1000;
  return kind < 80 ? VIP : kind < 800 ? REGULAR : NEW;
}

static const char type_letters[] = {
    [LIVENPS_INTERACTION] = 'i', [LIVENPS_INVITATION] = 'v', [LIVENPS_ANSWER] = 'a'};

void livenps_generator_next(livenps_generator *generator, int64_t now_ms, livenps_generated *out) {
  /* Without history the mix is that of the caller's hour, also for what the warm-up leaves. */
  const int64_t mix_ms = generator->options.has_start ? 0 : now_ms;
  /* An event may be sent up to LIVENPS_EARLY_MS before its journey begins: those seconds must have been made. */
  while (!generator->heap_length || generator->second * 1000 <= generator->heap[0].send_ms + LIVENPS_EARLY_MS)
    make_second(generator, mix_ms);
  const pending item = heap_pop(generator);
  const int segment = item.customer < 0 ? -1 : customer_segment(generator, item.customer);
  livenps_event *event = &out->event;
  *out = (livenps_generated){.send_ms = generator->options.has_start ? item.send_ms : now_ms};
  event->type = (livenps_type)item.type;
  event->scale = (livenps_scale)item.scale;
  event->score = event->type == LIVENPS_ANSWER ? pick_score(generator, &item, segment) : -1;
  if (event->scale == LIVENPS_SCALE_NPS && chance(generator, WITH_VALUE)) {
    event->has_value = true;
    event->value = pick_value(generator);
  }
  event->time_ms = out->send_ms - item.lateness_ms;
  /* Mixing is one to one, so ids are unique as long as the events of a run are. */
  const int length = snprintf(generator->id, sizeof generator->id, "%c-%016llx", type_letters[event->type],
                              (unsigned long long)livenps_mix(generator->sent + generator->ids));
  event->id = (livenps_text){generator->id, (size_t)length};
  if (item.customer >= 0) {
    const uint64_t name = livenps_mix((uint64_t)item.customer ^ livenps_mix(generator->options.seed)) >> 24;
    snprintf(generator->customer, sizeof generator->customer, "c-%010llx", (unsigned long long)name);
    event->customer = livenps_text_of(generator->customer);
  }
  out->index[LIVENPS_TOUCHPOINT] = item.touchpoint;
  out->index[LIVENPS_CHANNEL] = item.channel;
  out->index[LIVENPS_SEGMENT] = segment;
  out->index[LIVENPS_STAGE] = generator->profiles[item.touchpoint].stage;
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++)
    if (out->index[d] >= 0)
      event->dimensions[d] = livenps_text_of(livenps_generator_name(generator, d, out->index[d]));
  generator->sent++;
}

/* ---- opening and closing ---- */

/* Touchpoints beyond the named ones are made of their number alone, not of the seed: team-025 is the same in every run. */
static void number_touchpoint(livenps_generator *generator, int i) {
  uint64_t random = (uint64_t)i;
  touchpoint_profile *profile = &generator->profiles[i];
  snprintf(generator->names[i - NAMED], TOUCHPOINT_NAME, "team-%03d", i + 1);
  profile->name = generator->names[i - NAMED];
  profile->stage = (int)livenps_random_below(&random, STAGES);
  profile->promoters = 150 + (int)livenps_random_below(&random, 500);
  profile->detractors = 80 + (int)livenps_random_below(&random, (uint32_t)(800 - profile->promoters));
  profile->response = 200 + (int)livenps_random_below(&random, 350);
  /* Teams work in one main channel and help out in two others. */
  profile->mix[livenps_random_below(&random, CHANNELS)] += 70;
  profile->mix[livenps_random_below(&random, CHANNELS)] += 20;
  profile->mix[livenps_random_below(&random, CHANNELS)] += 10;
}

int livenps_generator_open(livenps_generator **out, const livenps_generator_options *options,
                           livenps_error *error) {
  if (options->touchpoints < 1 || options->touchpoints > LIVENPS_MAX_TOUCHPOINTS)
    return livenps_fail(error, LIVENPS_E_USAGE, "simulate: %d touchpoints: allowed are 1 to %d",
                        options->touchpoints, LIVENPS_MAX_TOUCHPOINTS);
  /* Years 1971 to 9998, so that the warm-up and later journeys stay within times that can be written down. */
  if (options->start_ms < INT64_C(31536000000) || options->start_ms > INT64_C(253370764800000))
    return livenps_fail(error, LIVENPS_E_USAGE, "simulate: the start must lie in the years 1971 to 9998");
  livenps_generator *generator = livenps_alloc(sizeof *generator);
  const size_t count = (size_t)options->touchpoints;
  generator->options = *options;
  generator->profiles = livenps_alloc(count * sizeof *generator->profiles);
  generator->names = count > NAMED ? livenps_alloc((count - NAMED) * sizeof *generator->names) : NULL;
  generator->cumulative = livenps_alloc(count * sizeof *generator->cumulative);
  uint64_t total = 0;
  for (size_t i = 0; i < count; i++) {
    if (i < NAMED)
      generator->profiles[i] = named[i];
    else
      number_touchpoint(generator, (int)i);
    generator->cumulative[i] = total += UINT64_C(1000000000) / (i + 4);
  }
  generator->random = livenps_mix(options->seed + 1);
  generator->ids = livenps_mix(options->seed ^ UINT64_C(0x6c6976656e7073));
  if (!options->has_start)
    generator->ids += (uint64_t)options->start_ms;
  generator->incident = options->touchpoints > INCIDENT ? INCIDENT : options->touchpoints - 1;
  generator->first_ms = options->start_ms;
  generator->second = options->start_ms / 1000 - WARM_UP_S;
  *out = generator;
  return 0;
}

void livenps_generator_close(livenps_generator *generator) {
  if (!generator)
    return;
  free(generator->profiles);
  free(generator->names);
  free(generator->cumulative);
  free(generator->heap);
  free(generator);
}

const char *livenps_generator_name(const livenps_generator *generator, int dimension, int32_t index) {
  assert(index >= 0);
  switch (dimension) {
  case LIVENPS_TOUCHPOINT: return generator->profiles[index].name;
  case LIVENPS_CHANNEL: return channel_names[index];
  case LIVENPS_SEGMENT: return segment_names[index];
  default: return stage_names[index];
  }
}

const char *livenps_generator_incident(const livenps_generator *generator) {
  return generator->profiles[generator->incident].name;
}
