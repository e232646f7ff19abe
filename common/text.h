#ifndef LIVENPS_TEXT_H
#define LIVENPS_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A borrowed run of bytes; at == NULL means absent (an empty text has at != NULL and length 0). */
typedef struct {
  const char *at;
  size_t length;
} livenps_text;

static inline livenps_text livenps_text_of(const char *string) {
  return (livenps_text){string, string ? strlen(string) : 0};
}

static inline bool livenps_text_equal(livenps_text a, livenps_text b) {
  return (a.at == NULL) == (b.at == NULL) && a.length == b.length &&
         (a.length == 0 || memcmp(a.at, b.at, a.length) == 0);
}

/* Length of the valid UTF-8 sequence that begins at `at`, and its code point; 0 if there is none (cut, overlong, a surrogate,
 * beyond U+10FFFF, or at == end). */
size_t livenps_utf8(const char *at, const char *end, uint32_t *code_point);

/* A growing buffer of bytes. {0} is empty and valid; livenps_buffer_free leaves {0}. */
typedef struct {
  char *at;
  size_t length, capacity;
} livenps_buffer;

void livenps_buffer_free(livenps_buffer *buffer);
void livenps_buffer_add(livenps_buffer *buffer, const void *bytes, size_t length);
void livenps_buffer_print(livenps_buffer *buffer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The text as a JSON string, with its quotes. Whatever bytes it has, that is valid UTF-8 and valid JSON: broken UTF-8 becomes U+FFFD. */
void livenps_json_text(livenps_buffer *buffer, livenps_text text);

/* LEB128: 7 bits a byte, low first, at most 10 bytes; zigzag for signed. Readers return 0, or -1 at the end of
 * the bytes or when a number is longer than 64 bits; *at moves behind what was read. */
void livenps_put_varint(livenps_buffer *buffer, uint64_t value);
void livenps_put_signed(livenps_buffer *buffer, int64_t value);
void livenps_put_text(livenps_buffer *buffer, livenps_text text); /* varint length, bytes */
int livenps_get_varint(const char **at, const char *end, uint64_t *value);
int livenps_get_signed(const char **at, const char *end, int64_t *value);
int livenps_get_text(const char **at, const char *end, livenps_text *text); /* borrowed */

/* 64-bit hash of bytes for tables in memory. Keyed once per process from getrandom, so that names chosen by an
 * enemy cannot collide on purpose; never stored, never sent. */
uint64_t livenps_hash(const void *bytes, size_t length);
uint64_t livenps_hash_more(uint64_t hash, const void *bytes, size_t length);

/* Sixteen bytes that stand for a text in keys of several texts: two are equal where texts of at most 16 bytes and of equal length are. A
 * text of at most so many is there itself, zeros behind it. */
enum { LIVENPS_SHORT = 16 };
static inline void livenps_text_words(livenps_text text, uint64_t words[2]) {
  words[0] = words[1] = 0;
  if (text.length > LIVENPS_SHORT) {
    words[0] = livenps_hash(text.at, text.length);
    words[1] = text.length;
  } else if (text.length > 0) {
    memcpy(words, text.at, text.length);
  }
}
/* The same where sixteen bytes can be read at the text's beginning: without a branch, because how long the next name is nobody can guess. */
static inline void livenps_short_words(const char *at, size_t length, uint64_t words[2]) {
  static const unsigned char ones[2 * LIVENPS_SHORT] = {255, 255, 255, 255, 255, 255, 255, 255,
                                                        255, 255, 255, 255, 255, 255, 255, 255};
  for (size_t i = 0; i < 2; i++) {
    uint64_t bytes, mask;
    memcpy(&bytes, at + 8 * i, sizeof bytes);
    memcpy(&mask, ones + LIVENPS_SHORT + 8 * i - length, sizeof mask);
    words[i] = bytes & mask;
  }
}
/* The same kind of hash over such words, faster: an even number of them, at most LIVENPS_HASH_WORDS. */
enum { LIVENPS_HASH_WORDS = 12 };
uint64_t livenps_hash_words(const uint64_t *words, size_t count);

/* Fills with random bytes (getrandom) as lower-case hex; size counts the final NUL: 33 gives 128 bits. */
void livenps_random_hex(char *out, size_t size);

/* SHA-256 (libcrypto) of bytes as 64 lower-case hex digits and a NUL. */
void livenps_sha256_hex(const void *bytes, size_t length, char out[65]);

#endif
