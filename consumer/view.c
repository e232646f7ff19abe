#include "state_parts.h"

#include "score.h"
#include <assert.h>
#include <stdlib.h>

/* -- the test of one slot, the verdicts of a family --------------------------------------------------------------------------- */

/* Counts beyond this are no counts of answers: they come from damaged bytes, and arithmetic on them would overflow. */
#define COUNT_MAX ((int64_t)1 << 53)

typedef struct {
  int64_t n, promoters, passives, detractors;
  bool scored;
} classes;

static classes classes_of(const livenps_state *state, const livenps_counters *counters) {
  classes c = {.promoters = livenps_promoters(counters),
               .passives = livenps_passives(counters),
               .detractors = livenps_detractors(counters)};
  bool sound = c.promoters >= 0 && c.promoters < COUNT_MAX && c.passives >= 0 && c.passives < COUNT_MAX &&
               c.detractors >= 0 && c.detractors < COUNT_MAX;
  c.n = sound ? c.promoters + c.passives + c.detractors : 0;
  c.scored = c.n >= state->minimum_n;
  return c;
}

static livenps_family *family_of(livenps_state *state, const livenps_slot *slot) {
  return &state->rollups[slot->series->rollup].families[slot->window];
}

void livenps_family_leave(livenps_state *state, livenps_slot *slot) {
  if (!slot->member) {
    return;
  }
  livenps_family *family = family_of(state, slot);
  livenps_slot *last = family->members[--family->count];
  family->members[slot->member - 1] = last;
  last->member = slot->member;
  slot->member = 0;
  family->dirty = true;
  slot->series->places[slot->window].verdict = 0;
}

static void family_join(livenps_state *state, livenps_slot *slot) {
  livenps_family *family = family_of(state, slot);
  if (family->count == family->capacity) {
    family->capacity = family->capacity ? family->capacity * 2 : 16;
    family->members = livenps_resize(family->members, family->capacity * sizeof *family->members);
  }
  family->members[family->count++] = slot;
  slot->member = family->count;
  family->dirty = true;
}

static livenps_test test_of(const classes *now, const classes *before) {
  return livenps_nps_change((int64_t[3]){now->promoters, now->passives, now->detractors},
                            (int64_t[3]){before->promoters, before->passives, before->detractors});
}

static void slot_test(livenps_state *state, livenps_slot *slot) {
  classes now = classes_of(state, &slot->now), before = classes_of(state, &slot->previous);
  if (!now.scored || !before.scored) {
    livenps_family_leave(state, slot);
    return;
  }
  livenps_test test = test_of(&now, &before);
  if (!slot->member) {
    family_join(state, slot);
  } else if (test.p != slot->p || test.z != slot->z) {
    family_of(state, slot)->dirty = true;
  }
  slot->p = test.p;
  slot->z = test.z;
}

static int8_t verdict_of(bool discovery, double z) {
  return (int8_t)(discovery ? (z > 0) - (z < 0) : 0);
}

static void family_judge(livenps_state *state, livenps_family *family) {
  double *p = livenps_alloc(family->count * sizeof *p);
  bool *accepted = livenps_alloc(family->count * sizeof *accepted);
  for (size_t i = 0; i < family->count; i++) {
    p[i] = family->members[i]->p;
  }
  livenps_discoveries(p, family->count, state->fdr, accepted);
  for (size_t i = 0; i < family->count; i++) {
    livenps_slot *slot = family->members[i];
    livenps_place *place = &slot->series->places[slot->window];
    int8_t verdict = verdict_of(accepted[i], slot->z);
    if (verdict != place->verdict) {
      place->verdict = verdict;
      livenps_state_mark(state, slot->series, slot->window, false);
    }
  }
  free(p);
  free(accepted);
  family->dirty = false;
}

void livenps_state_refresh(livenps_state *state) {
  livenps_state_spread(state);
  for (size_t i = 0; i < state->change_count; i++) {
    livenps_place *place = &state->changes[i].series->places[state->changes[i].window];
    if (place->stale) {
      place->stale = false;
      if (place->slot) {
        slot_test(state, place->slot);
      }
    }
  }
  for (size_t r = 0; r < state->rollup_count; r++) {
    for (size_t w = 0; w < state->window_count; w++) {
      if (state->rollups[r].families[w].dirty) {
        family_judge(state, &state->rollups[r].families[w]);
      }
    }
  }
}

/* -- views -------------------------------------------------------------------------------------------------------------------- */

static double percent(int64_t part, int64_t whole) {
  return 100.0 * (double)part / (double)whole;
}

/* Sum of bins weighted by their score, and their number; values are 1, 2, 3 ... */
static int64_t bins(const livenps_counters *counters, int first, int count, int64_t *weighted) {
  int64_t n = 0;
  *weighted = 0;
  for (int i = 0; i < count; i++) {
    int64_t bin = counters->at[first + i];
    if (bin < 0 || bin > COUNT_MAX || n > COUNT_MAX) {
      *weighted = 0;
      return 0;
    }
    n += bin;
    *weighted += bin * (i + 1);
  }
  return n;
}

__extension__ typedef __int128 wide;

/* Everything but the window's place in time and the verdict. */
static void view_fill(const livenps_state *state, const livenps_series *series, livenps_view *view) {
  const livenps_counters *at = &view->now;
  classes now = classes_of(state, &view->now), before = classes_of(state, &view->previous);
  view->n = now.n;
  view->promoters = now.promoters;
  view->passives = now.passives;
  view->detractors = now.detractors;
  view->previous_n = before.n;
  view->scored = now.scored;
  view->reliable = now.scored && now.n >= state->reliable_n;
  view->has_previous = before.scored;
  if (before.scored) {
    view->previous_nps = livenps_nps(before.promoters, before.detractors, before.n);
  }
  if (now.scored) {
    view->nps = livenps_nps(now.promoters, now.detractors, now.n);
    view->nps_rounded = livenps_round(view->nps);
    livenps_interval interval = livenps_nps_interval(now.promoters, now.passives, now.detractors);
    view->nps_low = interval.low;
    view->nps_high = interval.high;
    wide promoters = at->at[LIVENPS_VALUE_PROMOTERS], detractors = at->at[LIVENPS_VALUE_DETRACTORS];
    wide values = promoters + at->at[LIVENPS_VALUE_PASSIVES] + detractors;
    view->has_value_nps = values > 0;
    view->value_nps = values > 0 ? 100.0 * (double)(promoters - detractors) / (double)values : 0;
  }
  if (now.scored && before.scored) {
    view->change = view->nps - view->previous_nps;
    view->change_p = test_of(&now, &before).p;
  }
  view->has_target = series->has_target;
  view->target = series->target;
  if (series->has_target && now.scored) {
    view->target_state = view->nps_low > series->target ? 1 : view->nps_high < series->target ? -1 : 0;
  }
  int64_t weighted;
  view->csat_n = bins(at, LIVENPS_CSAT, 5, &weighted);
  if (view->csat_n) {
    view->csat_mean = (double)weighted / (double)view->csat_n;
    view->csat_share = percent(at->at[LIVENPS_CSAT + 3] + at->at[LIVENPS_CSAT + 4], view->csat_n);
  }
  view->ces_n = bins(at, LIVENPS_CES, 7, &weighted);
  if (view->ces_n) {
    view->ces_mean = (double)weighted / (double)view->ces_n;
  }
  view->interactions = at->at[LIVENPS_INTERACTIONS];
  view->invitations = at->at[LIVENPS_INVITATIONS];
  view->answers = at->at[LIVENPS_ANSWERS];
  view->has_response_rate = view->invitations > 0;
  if (view->has_response_rate) {
    view->response_rate = percent(view->answers, view->invitations);
  }
}

static void view_now(const livenps_state *state, const livenps_series *series, size_t window,
                     livenps_view *view) {
  const livenps_pane *pane = &state->windows[window];
  const livenps_place *place = &series->places[window];
  *view = (livenps_view){.rollup = series->rollup,
                         .window = window,
                         .id = series->id,
                         .change_verdict = place->verdict,
                         .as_of_ms = state->clock_ms,
                         .window_start_ms = (pane->head - pane->length + 1) * pane->config.slice_ms,
                         .window_ms = pane->config.length_ms,
                         .slice_ms = pane->config.slice_ms};
  if (place->slot) {
    view->now = place->slot->now;
    view->previous = place->slot->previous;
  }
  view_fill(state, series, view);
}

/* Takes the first ones out of a list. */
static void list_drop(void *list, size_t *count, size_t first, size_t size) {
  *count -= first;
  if (first && *count) {
    memmove(list, (char *)list + first * size, *count * size);
  }
}

int livenps_state_changed(livenps_state *state, const livenps_visitor *visitor) {
  livenps_state_refresh(state);
  size_t seen = 0;
  int stop = 0;
  for (; seen < state->change_count; seen++) {
    livenps_series *series = state->changes[seen].series;
    uint32_t window = state->changes[seen].window;
    if (series->slots && visitor->view) {
      livenps_view view;
      view_now(state, series, window, &view);
      view.note = &series->places[window].note;
      if ((stop = visitor->view(visitor->opaque, &view))) {
        break;
      }
    }
    series->places[window].changed = false;
  }
  list_drop(state->changes, &state->change_count, seen, sizeof *state->changes);
  if (stop) {
    return stop; /* a series in the list of the dead may still be in the list of changes */
  }
  for (seen = 0; seen < state->dead_count; seen++) {
    livenps_series *series = state->dead[seen];
    if (series->slots) {
      series->gone = false; /* it came back before anyone was told */
      continue;
    }
    if (visitor->gone && (stop = visitor->gone(visitor->opaque, series->rollup, series->id))) {
      break;
    }
    livenps_series_remove(state, series);
  }
  list_drop(state->dead, &state->dead_count, seen, sizeof *state->dead);
  return stop;
}

void livenps_state_change_all(livenps_state *state) {
  livenps_state_spread(state);
  for (size_t r = 0; r < state->rollup_count; r++) {
    for (size_t i = 0; i < state->rollups[r].count; i++) {
      livenps_series *series = state->rollups[r].all[i];
      for (size_t w = 0; w < state->window_count; w++) {
        series->places[w].note = 0;
        if (series->slots) {
          livenps_state_mark(state, series, w, false);
        }
      }
    }
  }
}

void livenps_state_views(livenps_state *state, size_t rollup, size_t window, const livenps_visitor *visitor) {
  const livenps_group *group = &state->rollups[rollup];
  livenps_state_refresh(state);
  for (size_t i = 0; i < group->count; i++) {
    if (group->all[i]->slots) {
      livenps_view view;
      view_now(state, group->all[i], window, &view);
      if (visitor->view(visitor->opaque, &view)) {
        return;
      }
    }
  }
}

/* -- the window as it was when it ended ------------------------------------------------------------------------------------------ */

/* Adds (or subtracts) the slices from first to last. */
static void sum(const livenps_slices *slices, int64_t first, int64_t last, int sign,
                livenps_counters *total) {
  livenps_cursor cursor = livenps_slices_from(slices, first);
  while (livenps_cursor_next(&cursor) && cursor.number <= last) {
    livenps_packed_apply(total, cursor.bytes, cursor.length, sign);
  }
}

static void judge_views(const livenps_state *state, livenps_view *views, size_t count) {
  double *p = livenps_alloc(count * sizeof *p), *z = livenps_alloc(count * sizeof *z);
  bool *accepted = livenps_alloc(count * sizeof *accepted);
  size_t *from = livenps_alloc(count * sizeof *from), tests = 0;
  for (size_t i = 0; i < count; i++) {
    if (views[i].scored && views[i].has_previous) {
      classes now = classes_of(state, &views[i].now), before = classes_of(state, &views[i].previous);
      livenps_test test = test_of(&now, &before);
      p[tests] = test.p;
      z[tests] = test.z;
      from[tests++] = i;
    }
  }
  livenps_discoveries(p, tests, state->fdr, accepted);
  for (size_t i = 0; i < tests; i++) {
    views[from[i]].change_verdict = verdict_of(accepted[i], z[i]);
  }
  free(p);
  free(z);
  free(accepted);
  free(from);
}

void livenps_state_views_at(livenps_state *state, size_t rollup, size_t window, int64_t end_ms,
                            const livenps_visitor *visitor) {
  const livenps_group *group = &state->rollups[rollup];
  const livenps_pane *pane = &state->windows[window];
  int64_t end = livenps_floor_divide(end_ms, pane->config.slice_ms), first = end - pane->length;
  livenps_state_spread(state);
  /* The running totals are at hand: of a window that ended a short while ago only the slices are read in which the two differ, some at either
   * end. In an older one there are fewer slices than that. */
  const bool differ = 2 * (pane->head - end) <= pane->length;
  assert(end <= pane->head + 1 && end > pane->head - pane->length);
  bool previous_kept = first - pane->length > pane->head - 2 * pane->length;
  livenps_view *views = livenps_alloc(group->count * sizeof *views);
  size_t count = 0;
  for (size_t i = 0; i < group->count; i++) {
    const livenps_series *series = group->all[i];
    const livenps_slot *slot = series->places[window].slot;
    if (!slot) {
      continue;
    }
    livenps_view view = {.rollup = rollup,
                         .window = window,
                         .id = series->id,
                         .as_of_ms = end * pane->config.slice_ms - 1,
                         .window_start_ms = first * pane->config.slice_ms,
                         .window_ms = pane->config.length_ms,
                         .slice_ms = pane->config.slice_ms};
    if (differ) {
      view.now = slot->now;
      sum(&slot->slices, end, pane->head, -1, &view.now);
      sum(&slot->slices, first, pane->head - pane->length, 1, &view.now);
    } else {
      sum(&slot->slices, first, end - 1, 1, &view.now);
    }
    if (livenps_counters_zero(&view.now)) {
      continue;
    }
    if (previous_kept) {
      view.previous = slot->previous;
    }
    view_fill(state, series, &view);
    views[count++] = view;
  }
  judge_views(state, views, count);
  for (size_t i = 0; i < count && !visitor->view(visitor->opaque, &views[i]); i++) {
  }
  free(views);
}
