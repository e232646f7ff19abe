#include "name.h"

#include "scan.h"

/* Which ASCII bytes are encoded wherever they stand. */
static bool encode_ascii(unsigned char c) {
  return c < 0x20 || c == 0x7F || c == ':' || c == '%' || c == '{' || c == '}' || c == '|';
}

/* C1 controls end a terminal's escape sequence or begin one; line and paragraph separators and the bidirectional
 * controls make one name look like another. */
static bool encode_code(uint32_t code) {
  return (code >= 0x80 && code <= 0x9F) || code == 0x061C || code == 0x200E || code == 0x200F ||
         (code >= 0x2028 && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069);
}

/* The next character of a name: its length in bytes, and whether these are encoded. A byte that is not UTF-8 stands
 * for itself and is encoded, so that the result is valid UTF-8 whatever comes in. */
static size_t next(livenps_text raw, size_t at, bool *encode) {
  unsigned char c = (unsigned char)raw.at[at];
  if (c < 0x80) {
    *encode = encode_ascii(c) || (c == '~' && at == 0);
    return 1;
  }
  uint32_t code;
  size_t length = livenps_utf8_next(raw.at + at, raw.at + raw.length, &code);
  *encode = length == 0 || encode_code(code);
  return length == 0 ? 1 : length;
}

size_t livenps_name_length(livenps_text raw) {
  size_t total = 0;
  for (size_t at = 0; at < raw.length;) {
    bool encode;
    size_t length = next(raw, at, &encode);
    total += encode ? 3 * length : length;
    at += length;
  }
  return total;
}

size_t livenps_name_encode(livenps_text raw, livenps_buffer *out) {
  static const char digits[] = "0123456789ABCDEF";
  size_t total = 0;
  size_t plain = 0; /* where the run of bytes begins that is copied as it is */
  for (size_t at = 0; at < raw.length;) {
    bool encode;
    size_t length = next(raw, at, &encode);
    if (encode) {
      livenps_buffer_add(out, raw.at + plain, at - plain);
      total += at - plain;
      for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)raw.at[at + i];
        char hex[3] = {'%', digits[c >> 4], digits[c & 15]};
        livenps_buffer_add(out, hex, 3);
        total += 3;
      }
      plain = at + length;
    }
    at += length;
  }
  if (plain < raw.length) {
    livenps_buffer_add(out, raw.at + plain, raw.length - plain);
    total += raw.length - plain;
  }
  return total;
}
