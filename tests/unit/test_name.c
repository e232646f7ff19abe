/* Percent-encoding of names: what is encoded, that it is one to one, and that it stays UTF-8. */
#include "common/name.h"
#include "common/scan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static void encodes(const char *raw, size_t length, const char *want) {
  livenps_buffer out = {0};
  livenps_buffer_add(&out, "before", 6);
  size_t added = livenps_name_encode((livenps_text){raw, length}, &out);
  assert_int_equal(added, out.length - 6);
  assert_int_equal(added, livenps_name_length((livenps_text){raw, length}));
  assert_int_equal(added, strlen(want));
  assert_memory_equal(out.at, "before", 6);
  assert_memory_equal(out.at + 6, want, added);
  assert_true(livenps_utf8_valid(out.at, out.length));
  livenps_buffer_free(&out);
}

static void texts(void **state) {
  (void)state;
  static const struct {
    const char *raw, *want;
  } rows[] = {
      {"delivery", "delivery"},
      {"technical support", "technical support"},
      {"a:b", "a%3Ab"},
      {"100%", "100%25"},
      {"{x}", "%7Bx%7D"},
      {"a|b", "a%7Cb"},
      {"\x1b[31m\n\x7f", "%1B[31m%0A%7F"},
      {"~other", "%7Eother"},
      {"a~b", "a~b"},
      {"~", "%7E"},
      {"%7Eother", "%257Eother"},
      {"\xC2\x9B", "%C2%9B"},   /* C1: a one-byte escape sequence introducer on some terminals */
      {"\xC2\xA0", "\xC2\xA0"}, /* the first one behind C1 */
      {"\xE2\x80\xA8\xE2\x80\xA9", "%E2%80%A8%E2%80%A9"},
      {"\xE2\x80\xAE", "%E2%80%AE"},    /* U+202E */
      {"\xE2\x80\xAF", "\xE2\x80\xAF"}, /* U+202F is only a narrow space */
      {"\xE2\x80\x8E\xE2\x80\x8F", "%E2%80%8E%E2%80%8F"},
      {"\xE2\x81\xA6\xE2\x81\xA9", "%E2%81%A6%E2%81%A9"},
      {"\xD8\x9C", "%D8%9C"},
      {"\xF0\x9F\x93\xA6 \xE4\xBA\xAC", "\xF0\x9F\x93\xA6 \xE4\xBA\xAC"},
      {"", ""},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    encodes(rows[i].raw, strlen(rows[i].raw), rows[i].want);
  }
  encodes("a\0b", 3, "a%00b");
  encodes("\xFF\xC3", 2, "%FF%C3"); /* not UTF-8, and still the result is */
}

static int digit(char c) {
  return c <= '9' ? c - '0' : c - 'A' + 10;
}

/* All one- and two-byte names, valid UTF-8 or not, decode back to themselves. */
static void one_to_one(void **state) {
  (void)state;
  for (int i = 0; i < 65536 + 256; i++) {
    char raw[2] = {(char)(i < 256 ? i : (i - 256) >> 8), (char)(i - 256)};
    size_t length = i < 256 ? 1 : 2;
    livenps_buffer out = {0};
    livenps_name_encode((livenps_text){raw, length}, &out);
    assert_true(livenps_utf8_valid(out.at, out.length));
    char back[16];
    size_t count = 0;
    for (size_t k = 0; k < out.length; k++) {
      assert_true((unsigned char)out.at[k] >= 0x20 && !strchr(":{}|\x7F", out.at[k]));
      if (out.at[k] == '%') {
        back[count++] = (char)(digit(out.at[k + 1]) << 4 | digit(out.at[k + 2]));
        k += 2;
      } else {
        back[count++] = out.at[k];
      }
    }
    assert_int_equal(count, length);
    assert_memory_equal(back, raw, length);
    livenps_buffer_free(&out);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(texts), cmocka_unit_test(one_to_one)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
