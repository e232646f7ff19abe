#include "score.h"

#include "../common/error.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>

/* The 97.5 % quantile of the normal distribution. */
#define QUANTILE 1.959963984540054

double livenps_nps(int64_t promoters, int64_t detractors, int64_t n) {
  assert(n > 0);
  return 100.0 * (double)(promoters - detractors) / (double)n;
}

int livenps_round(double nps) {
  /* round() is half away from zero, whatever the rounding mode. */
  return nps >= -100.0 && nps <= 100.0 ? (int)round(nps) : nps > 100.0 ? 100 : -100;
}

double livenps_nps_variance(int64_t promoters, int64_t passives, int64_t detractors) {
  double n = (double)(promoters + passives + detractors);
  double mean = (double)(promoters - detractors) / n;
  return (double)(promoters + detractors) / n - mean * mean;
}

/* The (3,T) estimate: three more answers, a quarter, a half and a quarter of them in the three classes. */
typedef struct {
  double mean;    /* (P - D) / n */
  double squared; /* of its standard error */
} estimate;

static estimate estimate_of(int64_t promoters, int64_t passives, int64_t detractors) {
  double p = (double)promoters + 0.75;
  double d = (double)detractors + 0.75;
  double n = p + (double)passives + 1.5 + d;
  double mean = (p - d) / n;
  return (estimate){mean, ((p + d) / n - mean * mean) / n};
}

livenps_interval livenps_nps_interval(int64_t promoters, int64_t passives, int64_t detractors) {
  estimate at = estimate_of(promoters, passives, detractors);
  double half = QUANTILE * sqrt(at.squared);
  return (livenps_interval){fmax(-100.0, 100.0 * (at.mean - half)), fmin(100.0, 100.0 * (at.mean + half))};
}

livenps_test livenps_nps_change(const int64_t now[3], const int64_t before[3]) {
  estimate a = estimate_of(now[0], now[1], now[2]);
  estimate b = estimate_of(before[0], before[1], before[2]);
  double z = (a.mean - b.mean) / sqrt(a.squared + b.squared);
  return (livenps_test){z, erfc(fabs(z) / sqrt(2.0))};
}

/* The largest k with k or more p-values at or below k q / m. Sorting is not needed: start with k = m and let k be the number
 * of p-values at or below k q / m until it no longer falls. Every pass looks only at the candidates the last one left, and the
 * first leaves about a q-th of them. */
void livenps_discoveries(const double *p, size_t count, double q, bool *accepted) {
  size_t *left = livenps_alloc(count * sizeof *left);
  size_t k = count, pool = 0;
  for (size_t i = 0; i < count; i++) {
    accepted[i] = false;
    left[pool++] = i;
  }
  for (;;) {
    size_t kept = 0;
    for (size_t i = 0; i < pool; i++) {
      if (p[left[i]] * (double)count <= (double)k * q) {
        left[kept++] = left[i];
      }
    }
    pool = kept;
    if (kept == k) {
      break;
    }
    k = kept;
  }
  for (size_t i = 0; i < pool; i++) {
    accepted[left[i]] = true;
  }
  free(left);
}
