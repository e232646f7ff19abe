#include "common/error.h"
#include "common/log.h"
#include "common/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static void test_buffer(void **state) {
  (void)state;
  livenps_buffer buffer = {0};
  livenps_buffer_free(&buffer);
  livenps_buffer_free(NULL);
  livenps_buffer_add(&buffer, "", 0);
  assert_null(buffer.at);
  char wanted[3000] = "";
  for (int i = 0; i < 500; i++) {
    livenps_buffer_print(&buffer, "%d,", i);
    sprintf(wanted + strlen(wanted), "%d,", i);
  }
  livenps_buffer_print(&buffer, "%s", "");
  assert_int_equal(buffer.length, strlen(wanted));
  assert_memory_equal(buffer.at, wanted, buffer.length);
  livenps_buffer_add(&buffer, "a\0b", 3);
  assert_memory_equal(buffer.at + strlen(wanted), "a\0b", 3);
  livenps_buffer_free(&buffer);
  assert_null(buffer.at);
}

static void test_varints(void **state) {
  (void)state;
  static const uint64_t values[] = {0,         1, 127, 128, 300, 16383, 16384, UINT32_MAX, UINT64_MAX / 2,
                                    UINT64_MAX};
  static const int64_t numbers[] = {0, -1, 1, -64, 64, INT64_MIN, INT64_MAX, -1000000007};
  livenps_buffer buffer = {0};
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
    livenps_put_varint(&buffer, values[i]);
  }
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    livenps_put_signed(&buffer, numbers[i]);
  }
  livenps_put_text(&buffer, livenps_text_of("touchpoint"));
  livenps_put_text(&buffer, livenps_text_of(""));
  const char *at = buffer.at, *end = buffer.at + buffer.length;
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
    uint64_t value;
    assert_int_equal(livenps_get_varint(&at, end, &value), 0);
    assert_true(value == values[i]);
  }
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    int64_t value;
    assert_int_equal(livenps_get_signed(&at, end, &value), 0);
    assert_true(value == numbers[i]);
  }
  livenps_text text;
  assert_int_equal(livenps_get_text(&at, end, &text), 0);
  assert_true(livenps_text_equal(text, livenps_text_of("touchpoint")));
  assert_int_equal(livenps_get_text(&at, end, &text), 0);
  assert_true(text.at && text.length == 0);
  assert_ptr_equal(at, end);
  livenps_buffer_free(&buffer);
}

static void test_varints_that_are_none(void **state) {
  (void)state;
  static const struct {
    const char *bytes;
    size_t length;
  } cases[] = {
      {"", 0},
      {"\x80", 1},
      {"\xff\xff", 2},
      {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10},     /* 65 bits */
      {"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 11}, /* too long */
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const char *at = cases[i].bytes;
    uint64_t value = 42;
    assert_int_equal(livenps_get_varint(&at, cases[i].bytes + cases[i].length, &value), -1);
    assert_ptr_equal(at, cases[i].bytes);
    assert_int_equal(value, 42);
  }
  /* A text that claims more than there is, also by a length that would wrap a pointer. */
  const char claims[] = "\x05"
                        "abcd",
             huge[] = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x";
  const char *at = claims;
  livenps_text text;
  assert_int_equal(livenps_get_text(&at, claims + 5, &text), -1);
  assert_ptr_equal(at, claims);
  at = huge;
  assert_int_equal(livenps_get_text(&at, huge + 11, &text), -1);
}

static void test_absent_is_not_empty(void **state) {
  (void)state;
  livenps_text absent = {0}, empty = livenps_text_of("");
  assert_false(livenps_text_equal(absent, empty));
  assert_true(livenps_text_equal(absent, livenps_text_of(NULL)));
  assert_true(livenps_text_equal(empty, livenps_text_of("")));
  assert_false(livenps_text_equal(livenps_text_of("a"), livenps_text_of("b")));
}

static void test_hash(void **state) {
  (void)state;
  char bytes[64] = {0};
  uint64_t seen[64 + 63];
  size_t count = 0;
  /* Zeros of every length, and pieces cut at every place, are different things. */
  for (size_t i = 0; i < 64; i++) {
    seen[count++] = livenps_hash(bytes, i);
    assert_true(livenps_hash(bytes, i) == seen[count - 1]);
  }
  for (size_t i = 1; i < 64; i++) {
    seen[count++] = livenps_hash_more(livenps_hash(bytes, i), bytes, 64 - i);
  }
  for (size_t i = 0; i < count; i++) {
    for (size_t j = 0; j < i; j++) {
      assert_true(seen[i] != seen[j]);
    }
  }
  /* Each bit matters: about half of the hash's bits flip. */
  uint64_t zero = livenps_hash(bytes, 40);
  int flipped = 0;
  for (int bit = 0; bit < 40 * 8; bit++) {
    bytes[bit / 8] = (char)(1 << bit % 8);
    flipped += __builtin_popcountll(livenps_hash(bytes, 40) ^ zero);
    bytes[bit / 8] = 0;
  }
  assert_in_range(flipped, 320 * 28, 320 * 36);
}

/* Each bit of each word matters, and words that change places; buckets fill as by chance, whatever the words have in common. */
static void test_hash_words(void **state) {
  (void)state;
  uint64_t words[LIVENPS_HASH_WORDS] = {0};
  for (size_t count = 2; count <= LIVENPS_HASH_WORDS; count += 2) {
    const uint64_t zero = livenps_hash_words(words, count);
    int flipped = 0;
    for (size_t bit = 0; bit < count * 64; bit++) {
      words[bit / 64] = UINT64_C(1) << bit % 64;
      flipped += __builtin_popcountll(livenps_hash_words(words, count) ^ zero);
      words[bit / 64] = 0;
    }
    assert_in_range(flipped, (int)count * 64 * 30, (int)count * 64 * 34);
  }
  for (size_t at = 0; at < LIVENPS_HASH_WORDS; at++) {
    unsigned buckets[256] = {0}, most = 0;
    for (uint64_t i = 0; i < 4096; i++) {
      words[at] = i << at * 4;
      const unsigned now = ++buckets[livenps_hash_words(words, LIVENPS_HASH_WORDS) % 256];
      most = now > most ? now : most;
    }
    words[at] = 0;
    assert_true(most < 60); /* as below */
  }
  words[0] = 1;
  words[3] = 2;
  const uint64_t hash = livenps_hash_words(words, 4);
  for (size_t i = 0; i < 4; i++) {
    for (size_t j = i + 1; j < 4; j++) {
      const uint64_t kept = words[i];
      words[i] = words[j];
      words[j] = kept;
      assert_true(words[i] == words[j] || livenps_hash_words(words, 4) != hash);
      words[j] = words[i];
      words[i] = kept;
    }
  }
}

/* Texts of one length that differ anywhere have other words; longer ones nearly always. */
static void test_words_of_texts(void **state) {
  (void)state;
  char bytes[40];
  for (size_t length = 0; length <= sizeof bytes; length++) {
    uint64_t one[2], other[2];
    memset(bytes, 'x', sizeof bytes);
    livenps_text_words((livenps_text){bytes, length}, one);
    for (size_t place = 0; place < length; place++) {
      for (int bit = 0; bit < 8; bit++) {
        bytes[place] = (char)(bytes[place] ^ 1 << bit);
        livenps_text_words((livenps_text){bytes, length}, other);
        assert_true(one[0] != other[0] || one[1] != other[1]);
        bytes[place] = (char)(bytes[place] ^ 1 << bit);
      }
    }
  }
  uint64_t absent[2] = {1, 1};
  livenps_text_words((livenps_text){0}, absent);
  assert_true(absent[0] == 0 && absent[1] == 0);
}

enum { COLLIDING = 4096, BUCKETS = 256 };

static size_t name_of(unsigned number, char out[32]) {
  return (size_t)snprintf(out, 32, "touchpoint-%u", number);
}

/* The two ways to hash a name. */
static uint64_t hash_by(bool words, const char *name, size_t length) {
  uint64_t two[2];
  if (!words) {
    return livenps_hash(name, length);
  }
  livenps_text_words((livenps_text){name, length}, two);
  return livenps_hash_words(two, 2);
}

/* What an enemy does who knows the function and one process's keys: names that all fall into the same of 256 buckets there.
 * Run in a process of its own, whose keys are not ours. */
static int print_colliding(bool words) {
  char name[32];
  for (unsigned number = 0, found = 0; found < COLLIDING; number++) {
    if (hash_by(words, name, name_of(number, name)) % BUCKETS == 0) {
      printf("%u\n", number);
      found++;
    }
  }
  return 0;
}

static unsigned fullest(const unsigned *buckets) {
  unsigned most = 0;
  for (unsigned i = 0; i < BUCKETS; i++) {
    most = buckets[i] > most ? buckets[i] : most;
  }
  return most;
}

/* 16 in a bucket on average; by chance 60 would be eleven deviations away, and a hash without keys would have all 4,096. */
static void test_hash_flooding(void **state) {
  (void)state;
  enum { MOST = 60 };
  char line[600], name[32], self[512] = "";
  unsigned buckets[BUCKETS];
  /* By its name: under valgrind the link itself leads to valgrind. */
  assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
  for (int words = 0; words < 2; words++) {
    unsigned count = 0;
    memset(buckets, 0, sizeof buckets);
    snprintf(line, sizeof line, "'%s' --colliding%s", self, words ? "-words" : "");
    FILE *enemy = popen(line, "r");
    assert_non_null(enemy);
    while (fgets(line, sizeof line, enemy)) {
      buckets[hash_by(words, name, name_of((unsigned)atoi(line), name)) % BUCKETS]++;
      count++;
    }
    assert_int_equal(pclose(enemy), 0);
    assert_int_equal(count, COLLIDING);
    assert_true(fullest(buckets) < MOST);
  }

  /* Long names that differ in one place only, whichever it is. */
  for (size_t place = 0; place + 4 <= 255; place += 7) {
    char longest[255];
    memset(longest, 'x', sizeof longest);
    memset(buckets, 0, sizeof buckets);
    for (int i = 0; i < COLLIDING; i++) {
      for (int digit = 0, rest = i; digit < 4; digit++, rest /= 10) {
        longest[place + (size_t)digit] = (char)('0' + rest % 10);
      }
      buckets[livenps_hash(longest, sizeof longest) % BUCKETS]++;
    }
    assert_true(fullest(buckets) < MOST);
  }
}

static void test_random_and_digest(void **state) {
  (void)state;
  char one[33], other[33], odd[6], digest[65];
  livenps_random_hex(one, sizeof one);
  livenps_random_hex(other, sizeof other);
  livenps_random_hex(odd, sizeof odd);
  assert_int_equal(strspn(one, "0123456789abcdef"), 32);
  assert_int_equal(strlen(odd), 5);
  assert_string_not_equal(one, other);
  livenps_sha256_hex("abc", 3, digest); /* FIPS 180-2, B.1 */
  assert_string_equal(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  livenps_sha256_hex(NULL, 0, digest);
  assert_string_equal(digest, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

static void test_utf8(void **state) {
  (void)state;
  static const struct {
    const char *bytes;
    size_t length;
    uint32_t point;
  } cases[] = {
      {"a", 1, 'a'},
      {"\xc3\xbc", 2, 0xfc},
      {"\xe2\x82\xac", 3, 0x20ac},
      {"\xf0\x9f\x98\x80", 4, 0x1f600},
      {"\xc0\x80", 0, 0},
      {"\xe0\x80\x80", 0, 0},
      {"\xed\xa0\x80", 0, 0},
      {"\xf4\x90\x80\x80", 0, 0},
      {"\x80", 0, 0},
      {"\xe2\x82", 0, 0},
      {"\xff", 0, 0},
      {"\xf8\x88\x80\x80\x80", 0, 0},
      {"", 0, 0},
      {"\xc3"
       "a",
       0, 0},
      {"\xf4\x8f\xbf\xbf", 4, 0x10ffff},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    uint32_t point = 0;
    assert_int_equal(livenps_utf8(cases[i].bytes, cases[i].bytes + strlen(cases[i].bytes), &point),
                     cases[i].length);
    assert_int_equal(point, cases[i].point);
  }
}

static void test_printable(void **state) {
  (void)state;
  static const struct {
    const char *text;
    unsigned long size;
    const char *wanted;
  } cases[] = {
      {"plain \xc3\xbc", 64, "plain \xc3\xbc"},
      {"\x1b[31mred", 64, "\\x1b[31mred"},
      {"a\nb\"c'd\\e", 64, "a\\x0ab\\x22c\\x27d\\x5ce"},
      {"\xff\xc3", 64, "\\xff\\xc3"},
      {"\xe2\x80\xae"
       "evil",
       64, "\\xe2\\x80\\xaeevil"},    /* right-to-left override */
      {"\xc2\x9b", 64, "\\xc2\\x9b"}, /* a control of its own to some terminals */
      {"0123456789", 11, "0123456789"},
      {"0123456789", 10, "012345..."},
      {"\xc3\xbc\xc3\xbc\xc3\xbc", 6, "\xc3\xbc..."}, /* never half a character */
      {"\n\n", 8, "\\x0a..."},
      {"abc", 3, ".."},
      {"abc", 1, ""},
      {"", 8, ""},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char buffer[64];
    memset(buffer, '#', sizeof buffer);
    assert_ptr_equal(livenps_printable(buffer, cases[i].size, cases[i].text, strlen(cases[i].text)), buffer);
    assert_string_equal(buffer, cases[i].wanted);
    for (size_t j = cases[i].size; j < sizeof buffer; j++) {
      assert_int_equal(buffer[j], '#');
    }
  }
  char sentence[64];
  assert_string_equal(livenps_printable_sentence(sentence, sizeof sentence, "can't \"x\"\n\\", 11),
                      "can't \"x\"\\x0a\\x5c");
  char buffer[4];
  assert_string_equal(livenps_printable(buffer, sizeof buffer, NULL, 0), "");
}

static void test_first_error_wins(void **state) {
  (void)state;
  livenps_error error = {0};
  assert_int_equal(livenps_fail_prefix(&error, "nothing to prefix"), -1);
  assert_int_equal(error.code, LIVENPS_OK);
  assert_int_equal(livenps_fail(&error, LIVENPS_E_LOST, "first %d", 1), -1);
  assert_int_equal(livenps_fail(&error, LIVENPS_E_USAGE, "second"), -1);
  assert_int_equal(error.code, LIVENPS_E_LOST);
  livenps_fail_prefix(&error, "%s:%d", "file", 7);
  assert_string_equal(error.text, "file:7: first 1");
  livenps_error_clear(&error);
  assert_int_equal(error.code, LIVENPS_OK);
  livenps_fail(NULL, LIVENPS_E_USAGE, "nobody listens");
  livenps_error_clear(NULL);
  char big[2000];
  memset(big, 'x', sizeof big - 1);
  big[sizeof big - 1] = '\0';
  livenps_fail(&error, LIVENPS_E_DATA, "%s", big);
  assert_int_equal(strlen(error.text), sizeof error.text - 1);
  livenps_fail_prefix(&error, "front");
  assert_int_equal(strlen(error.text), sizeof error.text - 1);
  assert_memory_equal(error.text, "front: xxx", 10);
  livenps_fail_prefix(&error, "%s", big);
  assert_int_equal(strlen(error.text), sizeof error.text - 1);
}

/* What a function writes to stderr. */
static void captured(void (*write_lines)(void), char *out, size_t size) {
  FILE *file = tmpfile();
  int saved = dup(STDERR_FILENO);
  dup2(fileno(file), STDERR_FILENO);
  write_lines();
  dup2(saved, STDERR_FILENO);
  close(saved);
  rewind(file);
  out[fread(out, 1, size - 1, file)] = '\0';
  fclose(file);
}

static livenps_limit limit = {.interval_ms = 60000};

static void write_log(void) {
  char big[4000];
  memset(big, 'y', sizeof big - 1);
  big[sizeof big - 1] = '\0';
  livenps_log(LIVENPS_DEBUG, "test", "not at this level");
  livenps_log(LIVENPS_INFO, "test",
              "two\nlines\x1b[2J\x7f\xc2\x9b"
              "1m \xc3\xa9\xc2\xa0 %d",
              7);
  livenps_log(LIVENPS_WARN, "test", "%s", big);
  for (int i = 0; i < 3; i++) {
    livenps_log_limited(&limit, LIVENPS_WARN, "test", "number %d", i);
  }
  limit.last_ms = 0; /* as if the minute were over */
  livenps_log_limited(&limit, LIVENPS_WARN, "test", "again");
  livenps_log_level(LIVENPS_ERROR);
  livenps_log(LIVENPS_WARN, "test", "not at this level either");
  livenps_log_level(LIVENPS_INFO);
}

static void test_log(void **state) {
  (void)state;
  char out[8192];
  captured(write_log, out, sizeof out);
  char *lines[8];
  int count = 0;
  for (char *line = strtok(out, "\n"); line && count < 8; line = strtok(NULL, "\n")) {
    lines[count++] = line;
  }
  assert_int_equal(count, 4);
  assert_string_equal(lines[0] + strlen("2026-11-21T10:15:00.123Z"),
                      " info test: two lines [2J   1m \xc3\xa9\xc2\xa0 7");
  assert_int_equal(strlen(lines[1]), 2047);
  assert_string_equal(lines[2] + 24, " warn test: number 0");
  assert_string_equal(lines[3] + 24, " warn test: again (2 more like this left out)");
}

int main(int argc, char **argv) {
  if (argc > 1 && strncmp(argv[1], "--colliding", 11) == 0) {
    return print_colliding(strcmp(argv[1], "--colliding-words") == 0);
  }
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_buffer),
      cmocka_unit_test(test_varints),
      cmocka_unit_test(test_varints_that_are_none),
      cmocka_unit_test(test_absent_is_not_empty),
      cmocka_unit_test(test_hash),
      cmocka_unit_test(test_hash_words),
      cmocka_unit_test(test_words_of_texts),
      cmocka_unit_test(test_hash_flooding),
      cmocka_unit_test(test_random_and_digest),
      cmocka_unit_test(test_utf8),
      cmocka_unit_test(test_printable),
      cmocka_unit_test(test_first_error_wins),
      cmocka_unit_test(test_log),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
