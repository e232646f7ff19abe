/* Outlines of documents: what follows one and what does not, and that there is an end to how many are remembered. What they mean for events
 * is in tests/property/outlines.c. */
#include "common/outline.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static livenps_scanner *scanner;
static livenps_outlines *outlines;

static int set_up(void **state) {
  (void)state;
  scanner = livenps_scanner_new();
  outlines = livenps_outlines_new();
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  livenps_scanner_free(scanner);
  livenps_outlines_free(outlines);
  return 0;
}

/* wanted: what stands before each value that is wanted, in its order. fixed: what stands before a value that stays the same. */
static int learn(const char *document, const char *const *wanted, const char *fixed) {
  livenps_wanted places[8];
  size_t count = 0;
  for (; wanted && wanted[count]; count++) {
    const char *at = strstr(document, wanted[count]);
    assert_non_null(at);
    places[count] = (livenps_wanted){(size_t)(at - document) + strlen(wanted[count]), (int)count};
  }
  const char *at = fixed ? strstr(document, fixed) : NULL;
  if (at)
    places[count++] = (livenps_wanted){(size_t)(at - document) + strlen(fixed), -1};
  return livenps_outlines_learn(outlines, document, strlen(document), places, count);
}

/* In a block of its exact size, so that a sanitizer sees every step outside. */
static int match(const char *document, livenps_text *texts) {
  static char *last;
  const size_t length = strlen(document);
  free(last);
  last = malloc(length ? length : 1);
  memcpy(last, document, length);
  memset(texts, 0, LIVENPS_OUTLINE_TEXTS * sizeof *texts);
  const int number = livenps_outlines_match(outlines, scanner, last, length, texts);
  if (!length) {
    free(last);
    last = NULL;
  }
  return number;
}

static void is(livenps_text text, const char *wanted) {
  assert_int_equal(text.length, strlen(wanted));
  assert_memory_equal(text.at, wanted, text.length);
}

static void follows(void **state) {
  (void)state;
  static const char *const wanted[] = {"\"id\":", "\"n\": ", NULL};
  livenps_text texts[LIVENPS_OUTLINE_TEXTS];
  livenps_outlines_forget(outlines);
  assert_int_equal(match("{}", texts), -1);
  const char *first = " {\"id\":\"a\",\"kind\":\"answer\",\"x\":{\"y\":[1,\"two\",null]},\"n\": 7}\n";
  assert_int_equal(learn(first, wanted, "\"kind\":"), 0);
  assert_int_equal(learn(first, wanted, "\"kind\":"), 0);
  assert_int_equal(match(first, texts), 0);
  is(texts[0], "a");
  is(texts[1], "7");
  assert_int_equal(
      match(" {\"id\":\"\",\"kind\":\"answer\",\"x\":{\"y\":[\"\\u00e4\",true,-1.5e+3]},\"n\": -0.25}\n",
            texts),
      0);
  is(texts[0], "");
  is(texts[1], "-0.25");
  assert_int_equal(
      match(" {\"id\":\"\\u00e4\xC3\xB6 and twenty more characters\\n\",\"kind\":\"answer\",\"x\":{\"y\":"
            "[false,0,\"a string of more than sixteen\"]},\"n\": 1}\n",
            texts),
      0);
  is(texts[0], "\xC3\xA4\xC3\xB6 and twenty more characters\n");
  static const char *const others[] = {
      "",
      " ",
      " {\"id\":\"a",
      " {\"id\":\"a\"",
      " {\"id\":\"a\\\"",
      " {\"id\":\"a\x01\",\"kind\":\"answer\",\"x\":{\"y\":[1,2,3]},\"n\": 7}\n",
      " {\"id\":\"a\xFF\",\"kind\":\"answer\",\"x\":{\"y\":[1,2,3]},\"n\": 7}\n",
      " {\"id\":\"\\ud800\",\"kind\":\"answer\",\"x\":{\"y\":[1,2,3]},\"n\": 7}\n",
      " {\"id\":5,\"kind\":\"answer\",\"x\":{\"y\":[1,2,3]},\"n\": 7}\n",
      " {\"id\":\"a\",\"kind\":\"Answer\",\"x\":{\"y\":[1,2,3]},\"n\": 7}\n",
      " {\"id\":\"a\",\"kind\":\"answer\",\"x\":{\"y\":[1,2,3]},\"n\": \"7\"}\n",
      " {\"id\":\"a\",\"kind\":\"answer\",\"x\":{\"y\":[1,2,3]},\"n\": null}\n",
      " {\"id\":\"a\",\"kind\":\"answer\",\"x\":{\"y\":[1,2,3]},\"n\": 07}\n",
      " {\"id\":\"a\",\"kind\":\"answer\",\"x\":{\"y\":[1,2,3]},\"n\": -}\n",
      " {\"id\":\"a\",\"kind\":\"answer\",\"x\":{\"y\":[1,2,nul]},\"n\": 7}\n",
      " {\"id\":\"a\",\"kind\":\"answer\",\"x\":{\"y\":[1,2,\"]},\"n\": 7}\n",
      " {\"id\":\"a\",\"kind\":\"answer\",\"x\":{\"y\":[1,2,{}]},\"n\": 7}\n",
      " {\"id\":\"a\",\"kind\":\"answer\",\"x\":{\"y\":[1,2]},\"n\": 7}\n",
      " {\"id\":\"a\",\"kind\":\"answer\",\"x\":{\"y\":[1,2,3]},\"n\": 7}",
      " {\"id\":\"a\",\"kind\":\"answer\",\"x\":{\"y\":[1,2,3]},\"n\": 7}\n ",
      " {\"id\":\"a\",\"kind\":\"answer\",\"x\":{\"y\":[1,2,3]},\"n\": 7",
  };
  for (size_t i = 0; i < sizeof others / sizeof *others; i++)
    if (match(others[i], texts) != -1)
      fail_msg("%s", others[i]);
  assert_int_equal(learn("{\"id\":\"a\"}", wanted + 2, NULL), 1);
  assert_int_equal(match("{\"id\":null}", texts), 1); /* nobody wants it */
  assert_int_equal(match(first, texts), 0);
}

/* Keys that say much, in strings that need escapes; a wanted null is a part of the outline. */
static void odd_documents(void **state) {
  (void)state;
  static const char *const wanted[] = {"\"b\\\\\" :", NULL};
  livenps_text texts[LIVENPS_OUTLINE_TEXTS];
  livenps_outlines_forget(outlines);
  const char *document = "{\"a\\\":1\":\"\\\\\" , \"b\\\\\" :null,\"c\" \t:\t\"\\\"\"}";
  assert_int_equal(learn(document, wanted, NULL), 0);
  assert_int_equal(match(document, texts), 0);
  assert_null(texts[0].at);
  assert_int_equal(match("{\"a\\\":1\":1 , \"b\\\\\" :null,\"c\" \t:\t2}", texts), 0);
  assert_int_equal(match("{\"a\\\":1\":1 , \"b\\\\\" :1,\"c\" \t:\t2}", texts), -1);
}

static const char *numbered(unsigned number, unsigned keys, char *out, size_t size) {
  size_t length = (size_t)snprintf(out, size, "{\"id\":\"x\"");
  for (unsigned i = 0; i < keys; i++)
    length += (size_t)snprintf(out + length, size - length, ",\"%c%u\":%u",
                               'a' + (int)(i < 16 ? number >> 2 * i & 3 : 0), i, number);
  snprintf(out + length, size - length, "}");
  return out;
}

/* Once there is no room, nothing is learned in part, and what was learned stays; afterwards it begins anew. */
static void room(void **state) {
  (void)state;
  static const char *const wanted[] = {"\"id\":", NULL};
  livenps_text texts[LIVENPS_OUTLINE_TEXTS];
  char document[20000];
  for (unsigned keys = 4; keys <= 1000; keys = keys * 5) {
    livenps_outlines_forget(outlines);
    assert_false(livenps_outlines_full(outlines));
    unsigned known[LIVENPS_OUTLINES];
    int count = 0;
    for (unsigned number = 0; number < 200; number++) {
      const int learned = learn(numbered(number, keys, document, sizeof document), wanted, NULL);
      if (learned < 0) {
        assert_true(livenps_outlines_full(outlines));
        assert_int_equal(match(document, texts), -1);
      } else if (learned == count) {
        known[count++] = number;
      }
      for (int i = 0; i < count; i++)
        assert_int_equal(match(numbered(known[i], keys, document, sizeof document), texts), i);
    }
    print_message("%u keys: %d outlines\n", keys, count);
    assert_true(livenps_outlines_full(outlines) && count > 0);
  }
  livenps_outlines_forget(outlines);
  char *large = malloc(70000);
  memset(large, 'x', 70000);
  memcpy(large, "{\"", 2);
  strcpy(large + 60000, "\":1}");
  assert_int_equal(learn(large, NULL, NULL), -1);
  strcpy(large + 50, "\":1}");
  assert_int_equal(learn(large, NULL, NULL), 0);
  assert_int_equal(match(large, texts), 0);
  free(large);
  /* as many ways to go on behind one value as are kept */
  livenps_outlines_forget(outlines);
  int kept = 0;
  for (unsigned i = 0; i < 40; i++) {
    snprintf(document, sizeof document, "{\"id\":\"x\",\"k%u\":1}", i);
    kept += learn(document, wanted, NULL) >= 0;
    assert_int_equal(match(document, texts) >= 0, kept > (int)i);
  }
  assert_true(kept > 4 && kept < 40);
}

static void free_nothing(void **state) {
  (void)state;
  livenps_outlines_free(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(follows),
      cmocka_unit_test(odd_documents),
      cmocka_unit_test(room),
      cmocka_unit_test(free_nothing),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
