#include "number.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A double is m 2^e with a whole m below 2^53. Times 10^k, with k such that 17 digits stand before the point, that is m 5^k 2^(e+k). From
 * 10^-10 to 10^14 k is at most 27, and 5^k has at most 63 bits; e + k is negative and above -66. So m 5^k is a whole number of at most 116
 * bits that stands for the value times a power of two, the shift: its digits, what is left over behind them, and how far a rounded text
 * is from the double are exact in 128 bits. What is published outside those limits are zeros and the smallest p-values. */

enum {
  FEWEST = 15,  /* digits */
  MORE = 16,    /* digits behind the first one: 17 always read back */
  SMALLEST = -4 /* powers of ten below it are written with an exponent */
};

__extension__ typedef unsigned __int128 wide;

/* Powers of five that fit. */
static const uint64_t fives[] = {UINT64_C(1),
                                 UINT64_C(5),
                                 UINT64_C(25),
                                 UINT64_C(125),
                                 UINT64_C(625),
                                 UINT64_C(3125),
                                 UINT64_C(15625),
                                 UINT64_C(78125),
                                 UINT64_C(390625),
                                 UINT64_C(1953125),
                                 UINT64_C(9765625),
                                 UINT64_C(48828125),
                                 UINT64_C(244140625),
                                 UINT64_C(1220703125),
                                 UINT64_C(6103515625),
                                 UINT64_C(30517578125),
                                 UINT64_C(152587890625),
                                 UINT64_C(762939453125),
                                 UINT64_C(3814697265625),
                                 UINT64_C(19073486328125),
                                 UINT64_C(95367431640625),
                                 UINT64_C(476837158203125),
                                 UINT64_C(2384185791015625),
                                 UINT64_C(11920928955078125),
                                 UINT64_C(59604644775390625),
                                 UINT64_C(298023223876953125),
                                 UINT64_C(1490116119384765625),
                                 UINT64_C(7450580596923828125)};

static const uint64_t ten_17 = UINT64_C(100000000000000000);

#define HIDDEN (UINT64_C(1) << 52) /* the bit of a double's significand that is not stored */

static const char *long_way(double value, char *out) {
  if (value == 0) {
    strcpy(out, signbit(value) ? "-0" : "0");
    return out;
  }
  for (int digits = FEWEST; digits <= MORE + 1; digits++) {
    snprintf(out, LIVENPS_NUMBER_SIZE, "%.*g", digits, value);
    if (strtod(out, NULL) == value) {
      break;
    }
  }
  return out;
}

/* The decimal digits of a whole number, without zeros in front; returns how many. */
static int put_digits(uint64_t value, char *out) {
  char reversed[20];
  int count = 0;
  do {
    reversed[count++] = (char)('0' + value % 10);
    value /= 10;
  } while (value);
  for (int i = 0; i < count; i++) {
    out[i] = reversed[count - 1 - i];
  }
  return count;
}

/* A number whose first digit counts 10^power, written as printf's %g does: without zeros at the end, with an exponent where it is small. */
static void put_number(uint64_t digits, int power, char *out) {
  char text[20];
  while (digits % 10 == 0) {
    digits /= 10;
  }
  const int count = put_digits(digits, text);
  const int whole = power < SMALLEST ? 1 : power + 1; /* digits before the point; below 1: zeros behind it */
  if (whole <= 0) {
    *out++ = '0';
    *out++ = '.';
    memset(out, '0', (size_t)-whole);
    out += -whole;
    memcpy(out, text, (size_t)count);
    out += count;
  } else if (count <= whole) {
    memcpy(out, text, (size_t)count);
    memset(out + count, '0', (size_t)(whole - count));
    out += whole;
  } else {
    memcpy(out, text, (size_t)whole);
    out[whole] = '.';
    memcpy(out + whole + 1, text + whole, (size_t)(count - whole));
    out += count + 1;
  }
  if (power < SMALLEST) {
    *out++ = 'e';
    *out++ = '-';
    *out++ = (char)('0' + -power / 10);
    *out++ = (char)('0' + -power % 10);
  }
  *out = 0;
}

/* Rounds what is scaled by 2^shift to a multiple of unit, as printf does: to the nearer one, of two the even one. */
static uint64_t rounded(wide scaled, int shift, uint64_t unit) {
  const uint64_t low = (uint64_t)(scaled >> shift) / unit;
  const wide twice = (scaled - ((wide)(low * unit) << shift)) * 2, whole = (wide)unit << shift;
  return (low + (twice > whole || (twice == whole && low % 2))) * unit;
}

const char *livenps_number_print(double value, char out[LIVENPS_NUMBER_SIZE]) {
  const double size = fabs(value);
  if (!(size >= 1e-10 && size < 1e14)) {
    return long_way(value, out);
  }
  uint64_t bits, digits;
  memcpy(&bits, &size, sizeof bits);
  const uint64_t m = (bits & (HIDDEN - 1)) | HIDDEN;
  const int e = (int)(bits >> 52) - 1075;
  /* The power of ten of the first digit, from that of two: right, or one too small, and then there are 18 digits. */
  int power = (int)floor((e + 52) * 0.30102999566398120);
  wide scaled = (wide)m * fives[MORE - power];
  int shift = power - MORE - e;
  if (scaled >> shift >= ten_17) {
    power++;
    shift++;
    scaled = (wide)m * fives[MORE - power];
  }
  /* A step from one double to the next is 5^k here. A text reads back when it is within half a step; below a power of
   * two the step is half as long. Exactly at a half a text of 17 digits cannot be: that takes 21 and more at these sizes. */
  const wide step = fives[MORE - power];
  for (uint64_t unit = 100;; unit /= 10) {
    digits = rounded(scaled, shift, unit);
    const wide text = (wide)digits << shift;
    const bool below = text < scaled;
    const wide twice = (below ? scaled - text : text - scaled) * (below && m == HIDDEN ? 4 : 2);
    if (unit == 1 || twice < step) {
      break;
    }
  }
  if (signbit(value)) {
    *out = '-';
  }
  put_number(digits, digits == ten_17 ? power + 1 : power, out + (signbit(value) != 0));
  return out;
}

const char *livenps_whole_print(int64_t value, char out[LIVENPS_NUMBER_SIZE]) {
  const bool negative = value < 0;
  *out = '-';
  out[negative + put_digits(negative ? -(uint64_t)value : (uint64_t)value, out + negative)] = 0;
  return out;
}
