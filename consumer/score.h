#ifndef LIVENPS_SCORE_H
#define LIVENPS_SCORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The statistics, pure: numbers in, numbers out. Percentages are on the scale -100..100.
 * Sources: Rocks 2016, "Interval estimation for the Net Promoter Score" (adjusted Wald (3,T)); Benjamini, Hochberg 1995. */

double livenps_nps(int64_t promoters, int64_t detractors,
                   int64_t n); /* n > 0; 100 (P - D) / n, divided once */
int livenps_round(double nps); /* half away from zero */

typedef struct {
  double low, high;
} livenps_interval;
/* 95 %, (3,T): adds 0.75 detractor, 1.5 passive, 0.75 promoter, then Wald; clamped to [-100, 100]. Any n >= 0. */
livenps_interval livenps_nps_interval(int64_t promoters, int64_t passives, int64_t detractors);
/* Variance of NPS/100 of one answer: (P+D)/n - ((P-D)/n)^2. */
double livenps_nps_variance(int64_t promoters, int64_t passives, int64_t detractors);

/* Change of this window against the previous, disjoint one, from the (3,T) counts of both: z and two-sided p (normal). */
typedef struct {
  double z, p;
} livenps_test;
livenps_test livenps_nps_change(const int64_t now[3],
                                const int64_t before[3]); /* {promoters, passives, detractors} */

/* Benjamini-Hochberg: accepted[i] says whether p[i] is a discovery at false discovery rate q. */
void livenps_discoveries(const double *p, size_t count, double q, bool *accepted);

#endif
