#include "clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static int64_t read_clock(clockid_t id) {
  struct timespec now;
  clock_gettime(id, &now); /* cannot fail for these two clocks */
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t livenps_wall_ms(void) {
  return read_clock(CLOCK_REALTIME);
}

int64_t livenps_monotonic_ms(void) {
  return read_clock(CLOCK_MONOTONIC);
}

int64_t livenps_monotonic_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

enum { SECONDS_A_DAY = 86400 };
static const int64_t first_ms = -62135596800000; /* 0001-01-01T00:00:00.000Z */
static const int64_t last_ms = 253402300799999;  /* 9999-12-31T23:59:59.999Z */

/* Days since 1970-01-01 in the proleptic Gregorian calendar. Years begin in March here, so that the leap day is the
 * last day of a year and months follow the 153-days-in-five-months rule. */
static int64_t days_of(int year, int month, int day) {
  int64_t y = year - (month <= 2);
  int64_t era = (y >= 0 ? y : y - 399) / 400, year_of_era = y - era * 400;
  int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

static void date_of(int64_t days, int *year, int *month, int *day) {
  int64_t z = days + 719468;
  int64_t era = (z >= 0 ? z : z - 146096) / 146097, day_of_era = z - era * 146097;
  int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
  int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  int64_t shifted = (5 * day_of_year + 2) / 153; /* March is 0 */
  *day = (int)(day_of_year - (153 * shifted + 2) / 5 + 1);
  *month = (int)(shifted < 10 ? shifted + 3 : shifted - 9);
  *year = (int)(year_of_era + era * 400 + (*month <= 2));
}

static bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/* Exactly `count` digits at *at, else -1. */
static int digits(const char **at, const char *end, int count) {
  int value = 0;
  if (end - *at < count) {
    return -1;
  }
  for (int i = 0; i < count; i++) {
    char c = *(*at)++;
    if (!is_digit(c)) {
      return -1;
    }
    value = value * 10 + (c - '0');
  }
  return value;
}

static bool take(const char **at, const char *end, const char *any_of) {
  if (*at == end || **at == '\0' || !strchr(any_of, **at)) {
    return false;
  }
  (*at)++;
  return true;
}

static int month_length(int year, int month) {
  static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  return month == 2 && leap ? 29 : lengths[month - 1];
}

int livenps_time_parse(const char *at, size_t length, int64_t *ms) {
  const char *end = at + length;
  int year = digits(&at, end, 4);
  bool dash = take(&at, end, "-");
  int month = dash ? digits(&at, end, 2) : -1;
  dash = dash && take(&at, end, "-");
  int day = dash ? digits(&at, end, 2) : -1;
  if (year < 1 || month < 1 || month > 12 || day < 1 || day > month_length(year, month) ||
      !take(&at, end, "Tt ")) {
    return -1;
  }
  int hour = digits(&at, end, 2);
  bool colon = take(&at, end, ":");
  int minute = colon ? digits(&at, end, 2) : -1;
  colon = colon && take(&at, end, ":");
  int second = colon ? digits(&at, end, 2) : -1;
  if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60) {
    return -1;
  }
  int milliseconds = 0;
  if (take(&at, end, ".")) {
    int count = 0;
    for (; at < end && is_digit(*at); at++, count++) {
      if (count < 3) {
        milliseconds = milliseconds * 10 + (*at - '0');
      }
    }
    if (count == 0) {
      return -1;
    }
    for (; count < 3; count++) {
      milliseconds *= 10;
    }
  }
  if (second == 60) {
    second = 59;
    milliseconds = 999;
  }
  int offset_minutes = 0;
  if (!take(&at, end, "Zz")) {
    bool behind = at < end && *at == '-';
    if (!take(&at, end, "+-")) {
      return -1;
    }
    int hours = digits(&at, end, 2);
    int minutes = take(&at, end, ":") ? digits(&at, end, 2) : -1;
    if (hours < 0 || hours > 23 || minutes < 0 || minutes > 59) {
      return -1;
    }
    offset_minutes = (hours * 60 + minutes) * (behind ? -1 : 1);
  }
  if (at != end) {
    return -1;
  }
  int64_t seconds = days_of(year, month, day) * SECONDS_A_DAY + hour * 3600 + minute * 60 + second -
                    (int64_t)offset_minutes * 60;
  int64_t result = seconds * 1000 + milliseconds;
  if (result < first_ms || result > last_ms) { /* an offset can lead out of the years that we can print */
    return -1;
  }
  *ms = result;
  return 0;
}

/* Whether two times are written with the same date. */
static bool same_date(const char *a, const char *b) {
  uint64_t head_a, head_b;
  uint16_t tail_a, tail_b;
  memcpy(&head_a, a, 8);
  memcpy(&head_b, b, 8);
  memcpy(&tail_a, a + 8, 2);
  memcpy(&tail_b, b + 8, 2);
  return ((head_a ^ head_b) | (uint64_t)(tail_a ^ tail_b)) == 0;
}

/* "10:15:00" as seconds, -1 when it is not of that form. All eight bytes are looked at together: what a digit differs from '0' by is at most
 * 9, and 0x76 more has no high bit; what a colon differs from ':' by is 0, and 0x7F more has none. */
static inline int clock_time(const char *at) {
  static const char zeros[] = "00:00:00", most[] = "vv\x7Fvv\x7Fvv";
  uint64_t word, zero, add;
  memcpy(&word, at, 8);
  memcpy(&zero, zeros, 8);
  memcpy(&add, most, 8);
  word ^= zero;
  if (((word + add) | word) & UINT64_C(0x8080808080808080)) {
    return -1;
  }
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  word = word * 10 + (word >> 8); /* at most 99 in a byte: nothing is carried */
  const int hour = (int)(word & 0xFF), minute = (int)(word >> 24 & 0xFF), second = (int)(word >> 48 & 0xFF);
#else
  const int hour = (at[0] - '0') * 10 + at[1] - '0';
  const int minute = (at[3] - '0') * 10 + at[4] - '0';
  const int second = (at[6] - '0') * 10 + at[7] - '0';
#endif
  return hour > 23 || minute > 59 || second > 59 ? -1 : hour * 3600 + minute * 60 + second;
}

/* "2026-11-21T10:15:00.123Z" of the remembered day, or false. */
static bool time_of_day(const livenps_day *day, const char *at, size_t length, int64_t *ms) {
  if (length < 20 || !day->there || at[10] != 'T' || at[length - 1] != 'Z' || !same_date(at, day->date)) {
    return false;
  }
  const int seconds = clock_time(at + 11);
  if (seconds < 0 || (length > 20 && (at[19] != '.' || length == 21))) {
    return false;
  }
  int milliseconds = 0;
  if (length == 24) {
    const unsigned tenths = (unsigned)(at[20] - '0'), hundredths = (unsigned)(at[21] - '0');
    const unsigned last = (unsigned)(at[22] - '0');
    if (tenths > 9 || hundredths > 9 || last > 9) {
      return false;
    }
    milliseconds = (int)(tenths * 100 + hundredths * 10 + last);
  } else {
    for (size_t i = 20, worth = 100; i + 1 < length; i++, worth /= 10) {
      if (!is_digit(at[i])) {
        return false;
      }
      milliseconds += (at[i] - '0') * (int)worth;
    }
  }
  *ms = day->start_ms + (int64_t)seconds * 1000 + milliseconds;
  return true;
}

int livenps_time_parse_near(livenps_day *day, const char *at, size_t length, int64_t *ms) {
  if (time_of_day(day, at, length, ms)) {
    return 0;
  }
  if (livenps_time_parse(at, length, ms) != 0) {
    return -1;
  }
  if (at[length - 1] == 'Z') { /* no offset that could lead to another day */
    static const int64_t day_ms = SECONDS_A_DAY * INT64_C(1000);
    memcpy(day->date, at, sizeof day->date);
    day->start_ms = first_ms + (*ms - first_ms) / day_ms * day_ms; /* first_ms begins a day */
    day->there = true;
  }
  return 0;
}

/* A run of decimal digits, nothing else before `end`. */
static int parse_number(const char *at, const char *end, int64_t *value) {
  int64_t result = 0;
  if (at == end) {
    return -1;
  }
  for (; at < end; at++) {
    if (!is_digit(*at) || __builtin_mul_overflow(result, (int64_t)10, &result) ||
        __builtin_add_overflow(result, (int64_t)(*at - '0'), &result)) {
      return -1;
    }
  }
  *value = result;
  return 0;
}

int livenps_time_argument(const char *text, int64_t *ms) {
  size_t length = strlen(text);
  int64_t value;
  if (livenps_time_parse(text, length, ms) == 0) {
    return 0;
  }
  if (parse_number(text, text + length, &value) != 0 || value > last_ms) {
    return -1;
  }
  *ms = value;
  return 0;
}

const char *livenps_time_print(int64_t ms, char out[32]) {
  int year, month, day;
  if (ms < first_ms || ms > last_ms) { /* nothing we stored; the form must hold all the same */
    ms = ms < first_ms ? first_ms : last_ms;
  }
  int64_t days =
      (ms - first_ms) / (SECONDS_A_DAY * 1000LL); /* from year 1, so that division never rounds up */
  int64_t rest = (ms - first_ms) % (SECONDS_A_DAY * 1000LL);
  date_of(days + first_ms / (SECONDS_A_DAY * 1000LL), &year, &month, &day);
  snprintf(out, 32, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", year % 10000, month % 100, day % 100,
           (int)(rest / 3600000), (int)(rest / 60000 % 60), (int)(rest / 1000 % 60), (int)(rest % 1000));
  return out;
}

static const struct {
  char name[3];
  int64_t ms;
} units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};

int livenps_duration_parse(const char *text, int64_t *ms) {
  size_t number = strspn(text, "0123456789");
  int64_t value;
  if (parse_number(text, text + number, &value) != 0) {
    return -1;
  }
  for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
    if (strcmp(text + number, units[i].name) == 0) {
      return __builtin_mul_overflow(value, units[i].ms, ms) ? -1 : 0;
    }
  }
  return -1;
}

const char *livenps_duration_print(int64_t ms, char out[32]) {
  if (ms == 0) {
    return strcpy(out, "0s");
  }
  size_t i = 0;
  while (ms % units[i].ms != 0) {
    i++;
  }
  snprintf(out, 32, "%lld%.2s", (long long)(ms / units[i].ms), units[i].name);
  return out;
}
