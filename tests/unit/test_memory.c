/* Memory that runs out in the pure parts: a child does a whole piece of work - decode, admit, combine, encode, decode, fold, snapshot, load,
 * digest, recount - with its n-th allocation refused, for every n. It must end as documented (one line, exit code 7; 3 where libcrypto only
 * says that it failed), or with the right answer where a library that was refused went on; never by a signal, never with another answer. */
#include "common/clock.h"
#include "common/rules.h"
#include "consumer/batch.h"
#include "consumer/recount.h"
#include "consumer/state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

#ifdef SANITIZED
/* A sanitizer has an allocator of its own in this place. */
static void every_allocation_refused_once(void **state) {
  (void)state;
  print_message("not under a sanitizer, whose allocator stands where this test's would\n");
  skip();
}
#else

/* In front of the C library's, for us and for every library: counts, and refuses the n-th. */
static long refuse_at, asked;

static int refused(void) {
  return refuse_at && ++asked == refuse_at;
}

/* The C library's own names of them. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);

void *malloc(size_t size) {
  return refused() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
  return refused() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
  return refused() ? NULL : __libc_realloc(old, size);
}

enum { RIGHT = 0, WRONG = 1, OUT_OF_MEMORY = 7 };

static int load_chunk(void *opaque, const char *name, bool dirty, const char *bytes, size_t length) {
  livenps_error error = {0};
  (void)name;
  return dirty ? livenps_state_load(opaque, bytes, length, &error) : 0;
}

/* The digest of twelve events' state, as it comes out of its snapshot; and the recount's number of them. */
static int work(char digest[65], int64_t *counted) {
  livenps_error error = {0};
  livenps_settings settings;
  livenps_rules rules;
  livenps_batch batch;
  livenps_state *folded, *loaded;
  livenps_recount *recount;
  livenps_settings_default(&settings);
  if (livenps_rules_open(&rules, &settings, NULL, &error))
    return -1;
  livenps_mapping *mapping;
  if (livenps_rules_mapping(&mapping, &settings, NULL, &error))
    return -1;
  livenps_batch_init(&batch, &rules.admission);
  livenps_lane *lane = livenps_batch_open(&batch, "events", 0, mapping, 0);
  const livenps_position position = {.next = 0, .incarnation = 1};
  livenps_batch_adopt(&batch, lane, &position, 0);
  livenps_window window = {.name = "5m", .length_ms = 300000, .slice_ms = 1000};
  livenps_rollup rollup;
  if (livenps_rollup_parse("touchpoint", &rollup, &error))
    return -1;
  const livenps_recount_config config = {.windows = &window,
                                         .window_count = 1,
                                         .rollups = &rollup,
                                         .rollup_count = 1,
                                         .series_max = 10,
                                         .admission = &rules.admission,
                                         .clock_ms = 1795256200000};
  livenps_recount_new(&recount, &config);
  livenps_tally tally = {0};
  for (int i = 0; i < 12; i++) {
    char value[300];
    const int length = snprintf(
        value, sizeof value,
        "{\"id\":\"%d\",\"type\":\"answer\",\"time\":\"2026-11-21T10:15:%02dZ\",\"touchpoint\":\"t\\u00e9%d\","
        "\"channel\":\"WEB\",\"scale\":\"nps\",\"score\":%d,\"value\":%d.5}",
        i, i, i % 7, i % 11, i);
    const livenps_record record = {.value = {value, (size_t)length},
                                   .timestamp_ms = 1795256100000 + i * 1000};
    livenps_fate fate;
    livenps_reason reason;
    livenps_batch_record(&batch, lane, i, &record, &fate, &reason, NULL);
    livenps_recount_record(recount, mapping, &record, &tally);
  }
  livenps_advance advance;
  livenps_entry entry, read = {0};
  livenps_buffer bytes = {0};
  livenps_batch_entry(&batch, livenps_text_of("writer"), 0, &advance, &entry);
  livenps_entry_encode(&entry, &bytes);
  if (livenps_entry_decode(&read, bytes.at, bytes.length, &error))
    return -1;
  livenps_state_open(&folded, &settings);
  livenps_state_open(&loaded, &settings);
  livenps_state_advance(folded, 1795256106000); /* half of the events wait */
  if (livenps_state_fold(folded, &read, 1795256106000, &error))
    return -1;
  if (livenps_state_snapshot(folded, 1000, load_chunk, loaded) || livenps_state_load_finish(loaded, &error))
    return -1;
  livenps_state_advance(loaded, 1795256200000);
  livenps_state_digest(loaded, digest);
  *counted = tally.accepted;
  livenps_recount_free(recount);
  livenps_state_free(folded);
  livenps_state_free(loaded);
  livenps_entry_free(&read);
  livenps_buffer_free(&bytes);
  livenps_batch_free(&batch);
  livenps_mapping_free(mapping);
  livenps_rules_close(&rules);
  livenps_settings_free(&settings);
  return 0;
}

/* In a child, so that it may end; its stderr comes back. */
static int try_work(long refuse, const char *right, int64_t counted, char said[256]) {
  int ends[2];
  if (pipe(ends))
    return -1;
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    char digest[65] = "";
    int64_t count = 0;
    asked = 0;
    refuse_at = refuse;
    const int result = work(digest, &count);
    refuse_at = 0;
    _exit(result == 0 && strcmp(digest, right) == 0 && count == counted ? RIGHT : WRONG);
  }
  close(ends[1]);
  const ssize_t length = read(ends[0], said, 255);
  said[length > 0 ? length : 0] = 0;
  close(ends[0]);
  int status;
  if (waitpid(child, &status, 0) != child)
    return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void every_allocation_refused_once(void **state) {
  (void)state;
  char right[65];
  int64_t counted = 0;
  assert_int_equal(work(right, &counted), 0); /* what libraries do once per process is done */
  asked = 0;
  refuse_at = -1; /* only counts */
  assert_int_equal(work(right, &counted), 0);
  const long all = asked;
  refuse_at = 0;
  assert_int_equal(counted, 12);
  assert_true(all > 300);
  long ended = 0, went_on = 0;
  for (long n = 1; n <= all; n++) {
    char said[256];
    const int code = try_work(n, right, counted, said);
    if (code == OUT_OF_MEMORY) {
      assert_string_equal(said, "livenps: out of memory\n");
      ended++;
    } else if (code == 3 && strstr(said, "libcrypto refuses SHA-256")) {
      ended++; /* it does not say why, so neither can we */
    } else if (code == RIGHT) {
      went_on++;
    } else {
      fail_msg("allocation %ld of %ld refused: %s %d: %s", n, all, code < 0 ? "signal" : "exit code",
               code < 0 ? -code : code, said);
    }
  }
  print_message("%ld allocations: %ld ended, %ld went on and were right\n", all, ended, went_on);
  assert_true(ended > all / 2);
}
#endif

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_refused_once)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
