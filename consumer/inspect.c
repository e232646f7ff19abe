#include "commands.h"
#include "scripts.h"

#include "../common/clock.h"
#include "../common/entry.h"
#include "../common/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* `livenps-consumer log`: the commit log for a person. Reads only. */

enum {
  STEP = 16, /* entries of one call: at a megabyte each, still a bounded reply */
  FOLLOW_MS = 100,
};

static void print_text(const char *name, livenps_text text) {
  char shown[1100];
  printf(" %s=%s", name, livenps_printable(shown, sizeof shown, text.at ? text.at : "", text.length));
}

static void print_rejections(const livenps_advance *advance) {
  for (int r = 0; r < LIVENPS_REASONS; r++) {
    if (advance->rejected[r]) {
      printf(", %" PRId64 " rejected as %s", advance->rejected[r], livenps_reason_name((livenps_reason)r));
    }
  }
}

static void print_advance(const livenps_advance *advance) {
  char shown[260], time[32];
  livenps_printable(shown, sizeof shown, advance->topic.at ? advance->topic.at : "", advance->topic.length);
  printf("    %s/%" PRId32 "  %" PRId64 " -> %" PRId64, shown, advance->partition, advance->from,
         advance->to);
  const struct {
    int64_t count;
    const char *name;
  } parts[] = {{advance->accepted, "accepted"},   {advance->late, "late"},
               {advance->duplicate, "duplicate"}, {advance->out_of_range, "out of range"},
               {advance->holes, "holes"},         {advance->gap, "gap"}};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    if (parts[i].count) {
      printf(", %" PRId64 " %s", parts[i].count, parts[i].name);
    }
  }
  print_rejections(advance);
  if (advance->through_ms == LIVENPS_THROUGH_NOW) {
    printf("; at the end");
  } else if (advance->through_ms != LIVENPS_THROUGH_SAME) {
    printf("; read through %s", livenps_time_print(advance->through_ms, time));
  }
  if (advance->covered_since_ms != LIVENPS_COVERED_SAME) {
    printf("; covered since %s", livenps_time_print(advance->covered_since_ms, time));
  }
  printf("\n");
}

static void print_bins(const char *name, const int64_t *bins, int count, int first) {
  for (int i = 0; i < count; i++) {
    if (bins[i]) {
      printf("  %s %d: %" PRId64, name, first + i, bins[i]);
    }
  }
}

static void print_row(const livenps_entry *entry, const livenps_row *row) {
  char time[32];
  const livenps_cell *cell = &entry->cells[row->cell];
  const int64_t *at = row->counters.at;
  printf("    %s", livenps_time_print(row->second * 1000, time));
  for (int d = 0; d < LIVENPS_DIMENSIONS; d++) {
    if (cell->dimensions[d].at) {
      print_text(livenps_dimension_names[d], cell->dimensions[d]);
    }
  }
  print_bins("nps", at + LIVENPS_SCORE, 11, 0);
  print_bins("csat", at + LIVENPS_CSAT, 5, 1);
  print_bins("ces", at + LIVENPS_CES, 7, 1);
  const struct {
    int place;
    const char *name;
  } parts[] = {{LIVENPS_INTERACTIONS, "interactions"},
               {LIVENPS_INVITATIONS, "invitations"},
               {LIVENPS_ANSWERS, "answers"},
               {LIVENPS_VALUE_PROMOTERS, "value of promoters (1/100)"},
               {LIVENPS_VALUE_PASSIVES, "of passives"},
               {LIVENPS_VALUE_DETRACTORS, "of detractors"}};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    if (at[parts[i].place]) {
      printf("  %s: %" PRId64, parts[i].name, at[parts[i].place]);
    }
  }
  printf("\n");
}

static bool field_of(const livenps_reply *item, const char *wanted, livenps_text *value) {
  const livenps_reply *fields = livenps_reply_item(item, 1);
  for (size_t i = 0; i + 1 < livenps_reply_count(fields); i += 2) {
    livenps_text name;
    if (livenps_reply_text(livenps_reply_item(fields, i), &name) &&
        livenps_text_equal(name, livenps_text_of(wanted))) {
      return livenps_reply_text(livenps_reply_item(fields, i + 1), value);
    }
  }
  return false;
}

static void print_entry(const livenps_reply *item, bool rows) {
  livenps_text id, payload, before, lineage;
  livenps_error error = {0};
  livenps_entry entry = {0};
  char time[32], shown[300];
  if (!livenps_reply_text(livenps_reply_item(item, 0), &id)) {
    return;
  }
  printf("%s  %s", livenps_printable(shown, sizeof shown, id.at, id.length),
         livenps_time_print(strtoll(id.at, NULL, 10), time));
  if (!field_of(item, "d", &payload) || !field_of(item, "p", &before) || !field_of(item, "l", &lineage)) {
    printf("  not an entry that this program writes\n");
    return;
  }
  if (livenps_entry_decode(&entry, payload.at, payload.length, &error) != 0) {
    printf("  %zu bytes that cannot be read: %s\n", payload.length, error.text);
    return;
  }
  print_text("writer", entry.writer);
  print_text("after", before);
  print_text("lineage", lineage);
  printf("  %zu partitions, %zu cells, %zu rows, %zu bytes", entry.advance_count, entry.cell_count,
         entry.row_count, payload.length);
  if (entry.clock_ms != LIVENPS_NO_CLOCK) {
    printf("; event clock %s", livenps_time_print(entry.clock_ms, time));
  }
  printf("\n");
  for (size_t i = 0; i < entry.advance_count; i++) {
    /* Idle partitions would bury the others. */
    if (rows || entry.advances[i].from != entry.advances[i].to) {
      print_advance(&entry.advances[i]);
    }
  }
  for (size_t i = 0; rows && i < entry.row_count; i++) {
    print_row(&entry, &entry.rows[i]);
  }
  livenps_entry_free(&entry);
}

static livenps_reply *range(livenps_redis *redis, const livenps_keys *keys, const char *verb,
                            const char *from, const char *to, int count, livenps_error *error) {
  char number[16];
  snprintf(number, sizeof number, "%d", count);
  const char *argv[] = {verb, keys->log, from, to, "COUNT", number};
  return livenps_redis_command(redis, error, 6, argv, NULL);
}

/* Where to begin for the N newest entries of the range. Only ids are kept, however many are asked for. */
static int find_newest(livenps_redis *redis, const livenps_keys *keys, const char *start, const char *end,
                       long count, char from[64], livenps_error *error) {
  char to[64];
  snprintf(to, sizeof to, "%s", end);
  snprintf(from, 64, "%s", start);
  while (count > 0) {
    livenps_reply *reply =
        range(redis, keys, "XREVRANGE", to, start, count < STEP ? (int)count : STEP, error);
    livenps_text id;
    if (!reply) {
      return -1;
    }
    size_t found = livenps_reply_count(reply);
    if (found == 0 || !livenps_reply_text(livenps_reply_item(livenps_reply_item(reply, found - 1), 0), &id)) {
      livenps_reply_free(reply);
      break;
    }
    count -= (long)found;
    snprintf(from, 64, "%.*s", (int)id.length, id.at);
    snprintf(to, sizeof to, "(%.*s", (int)id.length, id.at);
    livenps_reply_free(reply);
  }
  return 0;
}

static void rest(void) {
  nanosleep(&(struct timespec){0, FOLLOW_MS * 1000000L}, NULL);
}

int livenps_log_command(const livenps_settings *settings, const livenps_log_options *options) {
  livenps_error error = {0};
  livenps_redis *redis = NULL;
  livenps_keys keys;
  char from[64];
  bool any = false, away = false;
  const char *start = options->start && *options->start ? options->start : "-";
  const char *end = options->end && *options->end ? options->end : "+";
  livenps_keys_make(&keys, settings->namespace_);
  if (livenps_redis_open(&redis, settings, &error) != 0 || livenps_redis_connect(redis, &error) != 0) {
    goto failed;
  }
  snprintf(from, sizeof from, "%s", start);
  if (options->count > 0 && find_newest(redis, &keys, start, end, options->count, from, &error) != 0) {
    goto failed;
  }
  while (!livenps_stop) {
    livenps_reply *reply = range(redis, &keys, "XRANGE", from, end, STEP, &error);
    if (!reply) {
      if (!options->follow || error.code != LIVENPS_E_LOST) {
        goto failed;
      }
      if (!away) {
        livenps_log(LIVENPS_WARN, "log", "%s; trying again", error.text);
      }
      away = true;
      livenps_error_clear(&error);
      rest();
      continue;
    }
    if (away) {
      livenps_log(LIVENPS_INFO, "log", "Redis is back");
      away = false;
    }
    size_t count = livenps_reply_count(reply);
    for (size_t i = 0; i < count; i++) {
      livenps_text id;
      print_entry(livenps_reply_item(reply, i), options->rows);
      if (livenps_reply_text(livenps_reply_item(livenps_reply_item(reply, i), 0), &id)) {
        snprintf(from, sizeof from, "(%.*s", (int)id.length, id.at);
      }
      any = true;
    }
    livenps_reply_free(reply);
    fflush(stdout);
    if (ferror(stdout)) {
      livenps_fail(&error, LIVENPS_E_LOST, "standard output cannot be written to");
      goto failed;
    }
    if (count == 0) {
      if (!options->follow) {
        break;
      }
      rest();
    }
  }
  if (!any && !options->follow) {
    fprintf(stderr, "no entries in %s\n", keys.log);
  }
  livenps_redis_close(redis);
  return 0;
failed:
  livenps_log(LIVENPS_ERROR, "log", "%s", error.text);
  livenps_redis_close(redis);
  return error.code;
}
