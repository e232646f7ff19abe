/* What livenps-producer serve is made of: a body taken apart into events, and a vendor's signature. */
#include "producer/split.h"
#include "producer/webhook.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* "a|b|c" of the events, then ! where the body is broken off. */
static void splits(const char *body, livenps_body_form form, const char *want) {
  /* A block of its very size, so that a sanitizer sees a step beyond it. */
  const size_t length = strlen(body);
  char *copy = malloc(length ? length : 1);
  livenps_split split;
  livenps_text event;
  livenps_buffer got = {0};
  int result;
  memcpy(copy, body, length);
  livenps_split_begin(&split, (livenps_text){copy, length}, form);
  for (int count = 0; (result = livenps_split_next(&split, &event)) == 1; count++)
    livenps_buffer_print(&got, "%s%.*s", count ? "|" : "", (int)event.length, event.at);
  livenps_buffer_print(&got, "%s", result < 0 ? "!" : "");
  livenps_buffer_add(&got, "", 1);
  if (strcmp(got.at, want) != 0)
    fail_msg("%s: got \"%s\", want \"%s\"", body, got.at, want);
  livenps_buffer_free(&got);
  free(copy);
}

static void test_json_bodies(void **state) {
  (void)state;
  static const char *const rows[][2] = {
      {"", ""},
      {" \n", ""},
      {"{\"a\":1}", "{\"a\":1}"},
      {" {\n \"a\": 1\n} \r\n", "{\n \"a\": 1\n}"},
      {"{\"a\":1}{\"b\":2}", "{\"a\":1}{\"b\":2}"}, /* the contract refuses it */
      {"nonsense", "nonsense"},
      {"[]", ""},
      {" [ ] ", ""},
      {"[{\"a\":1}]", "{\"a\":1}"},
      {"[ {\"a\":[1,{\"x\":2}],\"b\":\"],{\"} , {\"c\":3} ]\n",
       "{\"a\":[1,{\"x\":2}],\"b\":\"],{\"}|{\"c\":3}"},
      {"[{\"a\":\"\\\"]\\\\\"},1]", "{\"a\":\"\\\"]\\\\\"}|1"},
      {"[1,]", "1|"},
      {"[,1]", "|1"},
      {"[", "!"},
      {"[1", "!"},
      {"[1,", "1!"},
      {"[1,2", "1!"},
      {"[1]x", "1!"},
      {"[]x", "!"},
      {"[1] [2]", "1!"},
      {"[}]", "!"},
      {"[{\"a\":1]", "!"},
      {"[\"a", "!"},
      {"[\"a\\", "!"},
      {"[\"a\\\"]", "!"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    splits(rows[i][0], LIVENPS_BODY_JSON, rows[i][1]);
}

static void test_lines(void **state) {
  (void)state;
  splits("", LIVENPS_BODY_LINES, "");
  splits("\n \r\n", LIVENPS_BODY_LINES, "");
  splits("{\"a\":1}", LIVENPS_BODY_LINES, "{\"a\":1}");
  splits("{\"a\":1}\r\n\n{\"b\":2}\n", LIVENPS_BODY_LINES, "{\"a\":1}|{\"b\":2}");
  splits("[1,2]\n3", LIVENPS_BODY_LINES, "[1,2]|3"); /* the contract refuses what is no object */
}

/* Whatever jansson says is an array has as many events as it has elements, each of them the same; whatever it refuses is broken off, or has an
 * element that it refuses. The bytes are pieces that matter, put together by chance. */
static void test_against_jansson(void **state) {
  (void)state;
  static const char *const pieces[] = {
      "[", "]", "{", "}", ",", "\"", "\\", "\"a\":", "1", " ", "x", "{}", "\"]\"", "[]", "\\\"", "\n"};
  uint64_t seed = 7;
  int arrays = 0;
  for (int round = 0; round < 200000; round++) {
    char body[128] = "[";
    for (int i = 0, count = (int)(seed >> 60); i <= count; i++) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      strcat(body, pieces[seed >> 32 & 15]);
    }
    if (round % 2)
      strcat(body, "]");
    json_t *whole = json_loads(body, 0, NULL);
    livenps_split split;
    livenps_text event;
    size_t count = 0;
    int result;
    bool good = true;
    livenps_split_begin(&split, livenps_text_of(body), LIVENPS_BODY_JSON);
    while ((result = livenps_split_next(&split, &event)) == 1) {
      json_t *one = json_loadb(event.at, event.length, JSON_DECODE_ANY, NULL);
      good = good && one && (!whole || json_equal(one, json_array_get(whole, count)));
      count++;
      json_decref(one);
    }
    good = good && result == 0;
    if (good != (whole != NULL) || (whole && count != json_array_size(whole)))
      fail_msg("%s", body);
    arrays += whole != NULL;
    json_decref(whole);
  }
  assert_true(arrays > 1000);
}

static void test_signatures(void **state) {
  (void)state;
  /* RFC 4231, test case 2. */
  static const char secret[] = "Jefe", body[] = "what do ya want for nothing?",
                    hex[] = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
                    base64[] = "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=";
  const livenps_text text = livenps_text_of(body);
  livenps_signature signature = {.header = "X", .prefix = NULL, .encoding = LIVENPS_SIGNATURE_HEX};
  char wrong[80];
  assert_true(livenps_webhook_signed(&signature, secret, text, hex));
  assert_false(livenps_webhook_signed(&signature, secret, text, base64));
  assert_false(livenps_webhook_signed(&signature, secret, text, NULL));
  assert_false(livenps_webhook_signed(&signature, secret, text, ""));
  assert_false(livenps_webhook_signed(&signature, "jefe", text, hex));
  assert_false(livenps_webhook_signed(&signature, secret, (livenps_text){body, text.length - 1}, hex));
  for (size_t i = 0; i < sizeof hex - 1; i++) {
    memcpy(wrong, hex, sizeof hex);
    wrong[i] = wrong[i] == '0' ? '1' : '0';
    assert_false(livenps_webhook_signed(&signature, secret, text, wrong));
  }
  snprintf(wrong, sizeof wrong, "%s0", hex);
  assert_false(livenps_webhook_signed(&signature, secret, text, wrong));
  wrong[63] = '\0';
  assert_false(livenps_webhook_signed(&signature, secret, text, wrong));
  signature.prefix = "sha256=";
  assert_false(livenps_webhook_signed(&signature, secret, text, hex));
  snprintf(wrong, sizeof wrong, "sha256=%s", hex);
  assert_true(livenps_webhook_signed(&signature, secret, text, wrong));
  signature.encoding = LIVENPS_SIGNATURE_BASE64;
  assert_false(livenps_webhook_signed(&signature, secret, text, wrong));
  snprintf(wrong, sizeof wrong, "sha256=%s", base64);
  assert_true(livenps_webhook_signed(&signature, secret, text, wrong));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_json_bodies),
      cmocka_unit_test(test_lines),
      cmocka_unit_test(test_against_jansson),
      cmocka_unit_test(test_signatures),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
