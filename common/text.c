#include "text.h"

#include "error.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include <openssl/evp.h>

size_t livenps_utf8(const char *at, const char *end, uint32_t *code_point) {
  static const uint32_t lowest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (at == end) {
    return 0;
  }
  unsigned char first = (unsigned char)*at;
  size_t length = first < 0x80 ? 1 : first >> 5 == 6 ? 2 : first >> 4 == 14 ? 3 : first >> 3 == 30 ? 4 : 0;
  if (length == 0 || length > (size_t)(end - at)) {
    return 0;
  }
  uint32_t value = length == 1 ? first : first & (0x7fU >> length);
  for (size_t i = 1; i < length; i++) {
    unsigned char more = (unsigned char)at[i];
    if (more >> 6 != 2) {
      return 0;
    }
    value = value << 6 | (more & 0x3fU);
  }
  if ((length > 1 && value < lowest[length]) || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) {
    return 0;
  }
  *code_point = value;
  return length;
}

void livenps_buffer_free(livenps_buffer *buffer) {
  if (buffer) {
    free(buffer->at);
    *buffer = (livenps_buffer){0};
  }
}

static void reserve(livenps_buffer *buffer, size_t more) {
  if (more <= buffer->capacity - buffer->length) {
    return;
  }
  size_t capacity = buffer->capacity ? buffer->capacity : 64;
  while (capacity - buffer->length < more) {
    /* Beyond half of the address space the allocation fails in livenps_resize, which says so. */
    capacity = capacity > SIZE_MAX / 4 ? SIZE_MAX / 2 : capacity * 2;
    if (capacity == SIZE_MAX / 2) {
      break;
    }
  }
  buffer->at = livenps_resize(buffer->at, capacity);
  buffer->capacity = capacity;
}

void livenps_buffer_add(livenps_buffer *buffer, const void *bytes, size_t length) {
  if (length == 0) {
    return;
  }
  reserve(buffer, length);
  memcpy(buffer->at + buffer->length, bytes, length);
  buffer->length += length;
}

void livenps_buffer_print(livenps_buffer *buffer, const char *format, ...) {
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  int length = vsnprintf(NULL, 0, format, arguments);
  va_end(arguments);
  assert(length >= 0);
  if (length > 0) {
    reserve(buffer,
            (size_t)length + 1); /* vsnprintf wants room for its NUL, which is not part of the bytes */
    vsnprintf(buffer->at + buffer->length, (size_t)length + 1, format, again);
    buffer->length += (size_t)length;
  }
  va_end(again);
}

void livenps_json_text(livenps_buffer *buffer, livenps_text text) {
  const char *at = text.at, *end = text.at + text.length;
  livenps_buffer_add(buffer, "\"", 1);
  while (at < end) {
    uint32_t code;
    size_t length = livenps_utf8(at, end, &code);
    if (length == 0) {
      livenps_buffer_add(buffer, "\xef\xbf\xbd", 3);
      length = 1;
    } else if (code < 0x20 || code == '"' || code == '\\' || code == 0x7f || code == 0x2028 ||
               code == 0x2029) {
      livenps_buffer_print(buffer, "\\u%04x", (unsigned)code);
    } else {
      livenps_buffer_add(buffer, at, length);
    }
    at += length;
  }
  livenps_buffer_add(buffer, "\"", 1);
}

void livenps_put_varint(livenps_buffer *buffer, uint64_t value) {
  char bytes[10];
  size_t length = 0;
  while (value >= 0x80) {
    bytes[length++] = (char)(unsigned char)(value | 0x80);
    value >>= 7;
  }
  bytes[length++] = (char)value;
  livenps_buffer_add(buffer, bytes, length);
}

void livenps_put_signed(livenps_buffer *buffer, int64_t value) {
  livenps_put_varint(buffer, (uint64_t)value << 1 ^ (value < 0 ? UINT64_MAX : 0));
}

void livenps_put_text(livenps_buffer *buffer, livenps_text text) {
  livenps_put_varint(buffer, text.length);
  livenps_buffer_add(buffer, text.at, text.length);
}

int livenps_get_varint(const char **at, const char *end, uint64_t *value) {
  const char *next = *at;
  uint64_t result = 0;
  for (unsigned shift = 0; shift < 64 && next < end; shift += 7) {
    uint64_t byte = (unsigned char)*next++;
    if (shift == 63 && byte > 1) {
      return -1;
    }
    result |= (byte & 0x7f) << shift;
    if (byte < 0x80) {
      *at = next;
      *value = result;
      return 0;
    }
  }
  return -1;
}

int livenps_get_signed(const char **at, const char *end, int64_t *value) {
  uint64_t raw;
  if (livenps_get_varint(at, end, &raw) != 0) {
    return -1;
  }
  *value = (int64_t)(raw >> 1 ^ (raw & 1 ? UINT64_MAX : 0));
  return 0;
}

int livenps_get_text(const char **at, const char *end, livenps_text *text) {
  const char *next = *at;
  uint64_t length;
  if (livenps_get_varint(&next, end, &length) != 0 || length > (uint64_t)(end - next)) {
    return -1;
  }
  *text = (livenps_text){next, (size_t)length};
  *at = next + length;
  return 0;
}

static void fill_random(void *out, size_t size) {
  char *at = out;
  while (size > 0) {
    ssize_t got = getrandom(at, size, 0);
    if (got < 0) {
      if (errno == EINTR) {
        continue;
      }
      perror("livenps: getrandom");
      exit(LIVENPS_E_STARTUP);
    }
    at += got;
    size -= (size_t)got;
  }
}

/* The folded 64 x 64 -> 128 bit product of wyhash. Without the keys nobody can aim at a collision. */
static inline uint64_t mix(uint64_t a, uint64_t b) {
  __extension__ typedef unsigned __int128 wide;
  wide product = (wide)a * b;
  return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t hash_keys[4], word_keys[LIVENPS_HASH_WORDS + 2];

/* Before main, so that the hot path has no test for a first time and threads have nothing to agree on. */
__attribute__((constructor)) static void fill_hash_keys(void) {
  fill_random(hash_keys, sizeof hash_keys);
  for (size_t i = 0; i < sizeof word_keys / sizeof *word_keys; i++) {
    word_keys[i] = mix(hash_keys[i % 4] + i, hash_keys[(i + 1) % 4] ^ UINT64_C(0x9E3779B97F4A7C15) * (i + 1));
  }
}

static inline uint64_t load8(const unsigned char *at) {
  uint64_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

static inline uint64_t load4(const unsigned char *at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

uint64_t livenps_hash_more(uint64_t hash, const void *bytes, size_t length) {
  const unsigned char *at = bytes;
  size_t left = length;
  uint64_t a = 0, b = 0;
  hash ^= hash_keys[0];
  while (left > 16) {
    hash = mix(load8(at) ^ hash_keys[1], load8(at + 8) ^ hash);
    at += 16;
    left -= 16;
  }
  if (left >= 8) {
    a = load8(at);
    b = load8(at + left - 8);
  } else if (left >= 4) {
    a = load4(at);
    b = load4(at + left - 4);
  } else if (left > 0) {
    a = (uint64_t)at[0] << 16 | (uint64_t)at[left >> 1] << 8 | at[left - 1];
  }
  /* The length tells apart what overlapping loads do not, and the pieces of several calls. */
  return mix(hash_keys[2] ^ length, mix(a ^ hash_keys[1], b ^ hash) ^ hash_keys[3]);
}

uint64_t livenps_hash(const void *bytes, size_t length) {
  return livenps_hash_more(0, bytes, length);
}

/* Each pair by keys of its own, none waits for another. */
uint64_t livenps_hash_words(const uint64_t *words, size_t count) {
  uint64_t hash = 0;
  assert(count % 2 == 0 && count <= LIVENPS_HASH_WORDS);
  for (size_t i = 0; i < count; i += 2) {
    hash ^= mix(words[i] ^ word_keys[i], words[i + 1] ^ word_keys[i + 1]);
  }
  /* Both factors depend on it: by a constant, keys in equal steps would stay so for some constants. */
  return mix(hash ^ word_keys[LIVENPS_HASH_WORDS],
             (hash << 32 | hash >> 32) ^ word_keys[LIVENPS_HASH_WORDS + 1]);
}

static void print_hex(char *out, const unsigned char *bytes, size_t digits) {
  static const char hex[] = "0123456789abcdef";
  for (size_t i = 0; i < digits; i++) {
    out[i] = hex[i % 2 ? bytes[i / 2] & 15 : bytes[i / 2] >> 4];
  }
  out[digits] = '\0';
}

void livenps_random_hex(char *out, size_t size) {
  unsigned char bytes[64];
  assert(size > 0 && size - 1 <= 2 * sizeof bytes);
  fill_random(bytes, size / 2);
  print_hex(out, bytes, size - 1);
}

void livenps_sha256_hex(const void *bytes, size_t length, char out[65]) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned digest_length = 0;
  if (!EVP_Digest(length ? bytes : "", length, digest, &digest_length, EVP_sha256(), NULL) ||
      digest_length != 32) {
    fputs("livenps: libcrypto refuses SHA-256\n", stderr);
    exit(LIVENPS_E_STARTUP);
  }
  print_hex(out, digest, 64);
}
