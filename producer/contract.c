#include "contract.h"

#include "common/log.h"
#include "common/rules.h"

#include <stdio.h>
#include <string.h>

int livenps_contract_open(livenps_contract *contract, const livenps_settings *settings, const char *topic,
                          livenps_error *error) {
  *contract = (livenps_contract){0};
  if (livenps_rules_mapping(&contract->mapping, settings, topic, error))
    return -1;
  contract->decoder = livenps_decoder_new();
  livenps_rules_admission(&contract->admission, settings);
  return 0;
}

void livenps_contract_close(livenps_contract *contract) {
  livenps_mapping_free(contract->mapping);
  livenps_decoder_free(contract->decoder);
  livenps_rules_free_admission(&contract->admission);
  *contract = (livenps_contract){0};
}

static void describe(livenps_objection *objection, const char *reason, const livenps_where *where,
                     const char *text) {
  char detail[4 * sizeof where->detail], field[4 * sizeof where->field];
  /* The reason's own sentence is general; where the decoder says more, that is the text. */
  livenps_printable_sentence(detail, sizeof detail, where->detail, strlen(where->detail));
  livenps_printable(field, sizeof field, where->field, strlen(where->field));
  objection->name = reason;
  objection->at = where->offset + 1;
  snprintf(objection->text, sizeof objection->text, *field ? "%s (%s)" : "%s%s", *detail ? detail : text,
           field);
}

static void print(const livenps_objection *objection, livenps_buffer *out) {
  if (!out)
    return;
  out->length = 0;
  livenps_buffer_print(out, "%zu: %s: %s", objection->at, objection->name, objection->text);
}

livenps_fate livenps_contract_examine(livenps_contract *contract, livenps_text value, int64_t timestamp_ms,
                                      livenps_event *event, livenps_objection *objection) {
  livenps_where where = {0};
  livenps_reason reason = LIVENPS_REASON_NONE;
  const livenps_record record = {.value = value, .timestamp_ms = timestamp_ms};
  const livenps_fate fate = livenps_admit(contract->decoder, contract->mapping, &contract->admission, &record,
                                          event, &reason, &where);
  if (fate == LIVENPS_ACCEPTED)
    return fate;
  objection->reason = fate == LIVENPS_LATE ? LIVENPS_REASON_NONE : reason;
  if (fate == LIVENPS_LATE)
    describe(objection, "late", &where,
             "the event is older than its record timestamp by more than admit.late");
  else
    describe(objection, livenps_reason_name(reason), &where, livenps_reason_text(reason));
  return fate;
}

livenps_fate livenps_contract_judge(livenps_contract *contract, livenps_text value, int64_t timestamp_ms,
                                    livenps_event *event, livenps_buffer *out) {
  livenps_objection objection;
  const livenps_fate fate = livenps_contract_examine(contract, value, timestamp_ms, event, &objection);
  if (fate != LIVENPS_ACCEPTED)
    print(&objection, out);
  return fate;
}

int livenps_contract_decode(livenps_contract *contract, livenps_text value, livenps_event *event,
                            livenps_buffer *out) {
  livenps_where where = {0};
  livenps_objection objection = {0};
  const livenps_record record = {.value = value, .timestamp_ms = 1};
  const livenps_reason reason = livenps_decode(contract->decoder, contract->mapping,
                                               contract->admission.max_bytes, &record, event, &where);
  if (reason == LIVENPS_REASON_NONE)
    return 0;
  describe(&objection, livenps_reason_name(reason), &where, livenps_reason_text(reason));
  print(&objection, out);
  return -1;
}
