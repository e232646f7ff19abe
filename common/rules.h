#ifndef LIVENPS_RULES_H
#define LIVENPS_RULES_H

#include "admit.h"
#include "settings.h"

/* From the settings to what decides about records: the one way for both programs. */

/* The admission of the settings; the allow-list is sorted, its names stay the settings'. livenps_rules_free_admission releases it. */
void livenps_rules_admission(livenps_admission *admission, const livenps_settings *settings);
void livenps_rules_free_admission(livenps_admission *admission);
/* The mapping of a topic: mappings.<topic>, else the contract's own forms. topic may be NULL. */
int livenps_rules_mapping(livenps_mapping **out, const livenps_settings *settings, const char *topic,
                          livenps_error *error);

/* A consumer's rules: one mapping for each of the settings' topics, and the hash over all that changes a record's fate. A topic
 * that has no mapping file does not enter the hash, so that such topics can be added to a namespace. */
typedef struct {
  livenps_admission admission;
  livenps_mapping **mappings; /* of settings->topics, in order */
  size_t count;
  char hash[65];
} livenps_rules;
/* replay: bounds of event time become part of the rules; NULL live. */
typedef struct {
  int64_t from_ms, to_ms;
} livenps_bounds;
int livenps_rules_open(livenps_rules *rules, const livenps_settings *settings, const livenps_bounds *replay,
                       livenps_error *error);
void livenps_rules_close(livenps_rules *rules); /* legal on {0} */

#endif
