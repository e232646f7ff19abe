#include "log.h"

#include "clock.h"
#include "text.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

static _Atomic int threshold = LIVENPS_INFO;
static const char *const level_names[] = {"error", "warn", "info", "debug"};

void livenps_log_level(livenps_level level) {
  atomic_store(&threshold, (int)level);
}

/* One write for the whole line: lines of several threads, and of several programs on one terminal, stay whole. */
__attribute__((format(printf, 4, 0))) static void put_line(livenps_level level, const char *stage,
                                                           long long left_out, const char *format,
                                                           va_list arguments) {
  char line[2048], now[32];
  int head = snprintf(line, sizeof line, "%s %s %s: ", livenps_time_print(livenps_wall_ms(), now),
                      level_names[level], stage);
  size_t used = head < 0 ? 0 : (size_t)head < sizeof line ? (size_t)head : sizeof line - 1;
  int body = vsnprintf(line + used, sizeof line - used, format, arguments);
  if (body > 0) {
    used = used + (size_t)body < sizeof line ? used + (size_t)body : sizeof line - 1;
  }
  char tail[64] = "\n";
  if (left_out > 0) {
    snprintf(tail, sizeof tail, " (%lld more like this left out)\n", left_out);
  }
  size_t tail_length = strlen(tail);
  if (used > sizeof line - tail_length) {
    used = sizeof line - tail_length;
  }
  /* A line is a line, and nothing in it steers a terminal: what reads logs, and who, must not be misled by a text that
   * came from outside and that somebody forgot to make printable. C2 leads the second block of controls in UTF-8. */
  for (size_t i = 0; i < used; i++) {
    unsigned char c = (unsigned char)line[i], before = i ? (unsigned char)line[i - 1] : 0;
    if (c < 0x20 || c == 0x7f || (before == 0xc2 && c >= 0x80 && c < 0xa0)) {
      line[i] = ' ';
      line[i - (c >= 0x80)] = ' ';
    }
  }
  memcpy(line + used, tail, tail_length);
  ssize_t ignored = write(STDERR_FILENO, line, used + tail_length);
  (void)ignored;
}

void livenps_log(livenps_level level, const char *stage, const char *format, ...) {
  if ((int)level > atomic_load_explicit(&threshold, memory_order_relaxed)) {
    return;
  }
  va_list arguments;
  va_start(arguments, format);
  put_line(level, stage, 0, format, arguments);
  va_end(arguments);
}

void livenps_log_limited(livenps_limit *limit, livenps_level level, const char *stage, const char *format,
                         ...) {
  if ((int)level > atomic_load_explicit(&threshold, memory_order_relaxed)) {
    return;
  }
  long long now = livenps_monotonic_ms() + 1; /* never 0, which means that nothing was logged yet */
  long long last = atomic_load(&limit->last_ms);
  if ((last != 0 && now - last < limit->interval_ms) ||
      !atomic_compare_exchange_strong(&limit->last_ms, &last, now)) {
    atomic_fetch_add(&limit->left_out, 1);
    return;
  }
  va_list arguments;
  va_start(arguments, format);
  put_line(level, stage, atomic_exchange(&limit->left_out, 0), format, arguments);
  va_end(arguments);
}

/* Besides controls: what breaks lines or turns the reading direction on a terminal. */
static bool is_harmless(uint32_t value) {
  return value >= 0x20 && !(value >= 0x7f && value <= 0x9f) && value != '\\' && value != 0x061c &&
         value != 0xfeff && !(value >= 0x200b && value <= 0x200f) && !(value >= 0x2028 && value <= 0x202e) &&
         !(value >= 0x2066 && value <= 0x2069);
}

static const char *printable(char *buffer, unsigned long size, const char *text, unsigned long length,
                             bool quotes) {
  static const char hex[] = "0123456789abcdef";
  const char *at = text, *end = text ? text + length : text;
  unsigned long used = 0, cut = 0; /* cut: how much may stay when "..." must follow */
  if (size == 0) {
    return buffer;
  }
  while (at < end) {
    uint32_t value = 0;
    unsigned long taken = livenps_utf8(at, end, &value);
    bool plain = taken > 0 && is_harmless(value) && (quotes || (value != '"' && value != '\''));
    if (taken == 0) {
      taken = 1;
    }
    unsigned long needed = plain ? taken : 4 * taken;
    if (used + needed >= size) {
      unsigned long dots = size - 1 < 3 ? size - 1 : 3;
      memcpy(buffer + cut, "...", dots);
      buffer[cut + dots] = '\0';
      return buffer;
    }
    for (unsigned long i = 0; i < taken; i++, at++) {
      if (plain) {
        buffer[used++] = *at;
      } else {
        buffer[used++] = '\\';
        buffer[used++] = 'x';
        buffer[used++] = hex[(unsigned char)*at >> 4];
        buffer[used++] = hex[(unsigned char)*at & 15];
      }
    }
    if (used + 4 <= size) {
      cut = used;
    }
  }
  buffer[used] = '\0';
  return buffer;
}

const char *livenps_printable(char *buffer, unsigned long size, const char *text, unsigned long length) {
  return printable(buffer, size, text, length, false);
}

const char *livenps_printable_sentence(char *buffer, unsigned long size, const char *text,
                                       unsigned long length) {
  return printable(buffer, size, text, length, true);
}
