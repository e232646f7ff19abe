#include "mapping.h"
#include "name.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <yaml.h>

const char *const livenps_field_names[LIVENPS_FIELDS] = {
    "id", "type", "time", "touchpoint", "channel", "segment", "stage", "customer", "scale", "score", "value",
};

static livenps_mapping *new_mapping(void) {
  static atomic_uint_least64_t last;
  livenps_mapping *mapping = livenps_alloc(sizeof *mapping);
  mapping->serial = atomic_fetch_add(&last, 1) + 1;
  return mapping;
}

/* ---- the contract ---- */

static int contract_node(livenps_mapping *mapping, const char *prefix, const char *name,
                         livenps_error *error) {
  char pointer[64];
  snprintf(pointer, sizeof pointer, "%s/%s", prefix, name);
  return livenps_paths_add(&mapping->paths, pointer, error);
}

int livenps_mapping_default(livenps_mapping **out, livenps_error *error) {
  livenps_mapping *mapping = new_mapping();
  mapping->contract = true;
  bool good = true;
  for (int f = 0; f < LIVENPS_FIELDS; f++) {
    bool attribute = f == LIVENPS_FIELD_ID || f == LIVENPS_FIELD_TYPE || f == LIVENPS_FIELD_TIME;
    bool lower = f == LIVENPS_FIELD_CHANNEL || f == LIVENPS_FIELD_STAGE;
    int node = contract_node(mapping, "", livenps_field_names[f], error);
    int data_node = attribute ? node : contract_node(mapping, "/data", livenps_field_names[f], error);
    mapping->fields[f] = (livenps_place){.node = node, .lower = lower};
    mapping->data_fields[f] = (livenps_place){.node = data_node, .lower = lower};
    good = good && node >= 0 && data_node >= 0;
  }
  const struct {
    int *node;
    const char *prefix, *name;
  } others[] = {
      {&mapping->specversion, "", "specversion"},
      {&mapping->source, "", "source"},
      {&mapping->datacontenttype, "", "datacontenttype"},
      {&mapping->data, "", "data"},
      {&mapping->data_base64, "", "data_base64"},
      {&mapping->revision, "", "revision"},
      {&mapping->deleted, "", "deleted"},
      {&mapping->data_revision, "/data", "revision"},
      {&mapping->data_deleted, "/data", "deleted"},
  };
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    *others[i].node = contract_node(mapping, others[i].prefix, others[i].name, error);
    good = good && *others[i].node >= 0;
  }
  if (!good) {
    livenps_mapping_free(mapping);
    return -1;
  }
  livenps_paths_compile(&mapping->paths);
  *out = mapping;
  return 0;
}

void livenps_mapping_free(livenps_mapping *mapping) {
  if (!mapping) {
    return;
  }
  for (int f = 0; f < LIVENPS_FIELDS; f++) {
    livenps_place *place = &mapping->fields[f];
    free(place->pointer);
    free(place->fallback);
    for (size_t i = 0; i < place->word_count; i++) {
      free(place->words[i].from);
      free(place->words[i].to);
    }
    free(place->words);
  }
  for (size_t i = 0; i < mapping->rule_count; i++) {
    livenps_rule *rule = &mapping->rules[i];
    free(rule->pointer);
    for (size_t v = 0; v < rule->value_count; v++) {
      free(rule->values[v]);
    }
    free(rule->values);
  }
  free(mapping->rules);
  free(mapping->signature.header);
  free(mapping->signature.prefix);
  livenps_paths_free(&mapping->paths);
  free(mapping);
}

const livenps_signature *livenps_mapping_signature(const livenps_mapping *mapping) {
  return mapping->signature.header ? &mapping->signature : NULL;
}

/* ---- canonical text: every string with its length, so that no two mappings print alike ---- */

static void print_text(livenps_buffer *out, const char *name, const char *text) {
  if (text) {
    livenps_buffer_print(out, " %s %zu:%s", name, strlen(text), text);
  }
}

void livenps_mapping_print(const livenps_mapping *mapping, livenps_buffer *out) {
  if (mapping->contract) {
    livenps_buffer_print(out, "mapping contract 1\n");
    return;
  }
  static const char *const formats[] = {"rfc3339", "seconds", "milliseconds"};
  livenps_buffer_print(out, "mapping file 1\n");
  for (int f = 0; f < LIVENPS_FIELDS; f++) {
    const livenps_place *place = &mapping->fields[f];
    livenps_buffer_print(out, "field %s", livenps_field_names[f]);
    print_text(out, "at", place->pointer);
    print_text(out, "default", place->fallback);
    livenps_buffer_print(out, "%s%s", place->lower ? " lower" : "", place->numbers ? " numbers" : "");
    if (f == LIVENPS_FIELD_TIME) {
      livenps_buffer_print(out, " format %s", formats[place->format]);
    }
    for (size_t i = 0; i < place->word_count; i++) {
      print_text(out, "word", place->words[i].from);
      print_text(out, "means", place->words[i].to);
    }
    livenps_buffer_print(out, "\n");
  }
  for (size_t i = 0; i < mapping->rule_count; i++) {
    const livenps_rule *rule = &mapping->rules[i];
    livenps_buffer_print(out, "rule %s", livenps_reason_name(rule->reason));
    print_text(out, "at", rule->pointer);
    livenps_buffer_print(out, " %s", rule->negated ? "is_not" : "is");
    for (size_t v = 0; v < rule->value_count; v++) {
      print_text(out, "value", rule->values[v]);
    }
    livenps_buffer_print(out, "\n");
  }
}

/* ---- mapping files ---- */

typedef struct {
  const char *path;
  yaml_document_t document;
  livenps_mapping *mapping;
  livenps_error *error;
} loader;

__attribute__((format(printf, 3, 4))) static int fail_at(loader *l, size_t line, const char *format, ...) {
  char text[400];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return livenps_fail(l->error, LIVENPS_E_USAGE, "%s:%zu: %s", l->path, line + 1, text);
}

static yaml_node_t *node_of(loader *l, int index) {
  return yaml_document_get_node(&l->document, index);
}

/* The text of a scalar, borrowed; NULL and an error for anything else. */
static const char *scalar(loader *l, const yaml_node_t *node, const char *what) {
  if (node->type != YAML_SCALAR_NODE) {
    fail_at(l, node->start_mark.line, "%s must be one value, not a list or a map", what);
    return NULL;
  }
  const char *text = (const char *)node->data.scalar.value;
  if (strlen(text) != node->data.scalar.length) {
    fail_at(l, node->start_mark.line, "%s contains U+0000", what);
    return NULL;
  }
  return text;
}

/* What the keys of a map mean: a function for each. */
typedef struct {
  const char *name;
  int (*read)(loader *l, yaml_node_t *node, void *into);
} map_key;

static void key_names(const map_key *keys, char *out, size_t size) {
  size_t used = 0;
  out[0] = '\0';
  for (; keys->name && used < size; keys++) {
    used += (size_t)snprintf(out + used, size - used, "%s%s", used ? ", " : "", keys->name);
  }
}

/* Reads a map: every key known, none twice. */
static int read_map(loader *l, const yaml_node_t *node, const char *what, const map_key *keys, void *into) {
  char known[200];
  key_names(keys, known, sizeof known);
  if (node->type != YAML_MAPPING_NODE) {
    return fail_at(l, node->start_mark.line, "%s must be a map; its keys: %s", what, known);
  }
  uint64_t seen = 0;
  for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
    const yaml_node_t *key_node = node_of(l, pair->key);
    const char *name = scalar(l, key_node, "a key");
    if (!name) {
      return -1;
    }
    int index = 0;
    while (keys[index].name && strcmp(keys[index].name, name) != 0) {
      index++;
    }
    if (!keys[index].name) {
      return fail_at(l, key_node->start_mark.line, "%s: unknown key \"%.60s\"; allowed: %s", what, name,
                     known);
    }
    if (seen >> index & 1) {
      return fail_at(l, key_node->start_mark.line, "%s: the key \"%s\" is given twice", what, name);
    }
    seen |= UINT64_C(1) << index;
    if (keys[index].read(l, node_of(l, pair->value), into) < 0) {
      return -1;
    }
  }
  return 0;
}

static int read_pointer(loader *l, const yaml_node_t *node, char **pointer, int *place) {
  const char *text = scalar(l, node, "a JSON pointer");
  if (!text) {
    return -1;
  }
  if (!*text) {
    return fail_at(l, node->start_mark.line,
                   "the JSON pointer is empty; it must name a value, such as /data/score");
  }
  livenps_error error = {0};
  *place = livenps_paths_add(&l->mapping->paths, text, &error);
  if (*place < 0) {
    return fail_at(l, node->start_mark.line, "%.300s", error.text);
  }
  free(*pointer);
  *pointer = livenps_copy(text, strlen(text));
  return 0;
}

static int read_bool(loader *l, const yaml_node_t *node, const char *what, bool *out) {
  const char *text = scalar(l, node, what);
  if (!text) {
    return -1;
  }
  if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0) {
    return fail_at(l, node->start_mark.line, "%s must be true or false", what);
  }
  *out = strcmp(text, "true") == 0;
  return 0;
}

/* -- one field -- */

typedef struct {
  livenps_field field;
  livenps_place *place;
  bool constant, format;
} field_reading;

static int field_at(loader *l, yaml_node_t *node, void *into) {
  field_reading *reading = into;
  return read_pointer(l, node, &reading->place->pointer, &reading->place->node);
}

static bool one_of(const char *text, const char *const *allowed) {
  while (*allowed && strcmp(*allowed, text) != 0) {
    allowed++;
  }
  return *allowed != NULL;
}

/* A text that stands for a field: checked now, so that a typing error does not send every record to quarantine. */
static int check_text(loader *l, const yaml_node_t *node, livenps_field field, const char *text) {
  static const char *const types[] = {"interaction", "invitation", "answer", NULL};
  static const char *const scales[] = {"nps", "csat", "ces", NULL};
  static const char *const scores[] = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", NULL};
  if (field == LIVENPS_FIELD_TYPE && !one_of(text, types)) {
    return fail_at(l, node->start_mark.line, "type: \"%.60s\" must be interaction, invitation or answer",
                   text);
  }
  if (field == LIVENPS_FIELD_SCALE && !one_of(text, scales)) {
    return fail_at(l, node->start_mark.line, "scale: \"%.60s\" must be nps, csat or ces", text);
  }
  if (field == LIVENPS_FIELD_SCORE && !one_of(text, scores)) {
    return fail_at(l, node->start_mark.line, "score: \"%.60s\" must be a whole number from 0 to 10", text);
  }
  if (!*text || livenps_name_length(livenps_text_of(text)) > LIVENPS_MAX_ID) {
    return fail_at(l, node->start_mark.line,
                   "%s: must not be empty nor longer than %d bytes, percent-encoded",
                   livenps_field_names[field], LIVENPS_MAX_ID);
  }
  return 0;
}

static int read_fallback(loader *l, yaml_node_t *node, field_reading *reading, const char *what) {
  const char *text = scalar(l, node, what);
  if (!text) {
    return -1;
  }
  if (reading->place->fallback) {
    return fail_at(l, node->start_mark.line, "%s: either default or constant, not both",
                   livenps_field_names[reading->field]);
  }
  if (reading->field == LIVENPS_FIELD_ID || reading->field == LIVENPS_FIELD_TIME ||
      reading->field == LIVENPS_FIELD_SCORE || reading->field == LIVENPS_FIELD_VALUE) {
    return fail_at(l, node->start_mark.line, "%s: has no %s; it must come from the payload",
                   livenps_field_names[reading->field], what);
  }
  if (check_text(l, node, reading->field, text) < 0) {
    return -1;
  }
  reading->place->fallback = livenps_copy(text, strlen(text));
  return 0;
}

static int field_constant(loader *l, yaml_node_t *node, void *into) {
  field_reading *reading = into;
  reading->constant = true;
  return read_fallback(l, node, reading, "constant");
}

static int field_default(loader *l, yaml_node_t *node, void *into) {
  return read_fallback(l, node, into, "default");
}

static int field_values(loader *l, yaml_node_t *node, void *into) {
  field_reading *reading = into;
  const char *name = livenps_field_names[reading->field];
  if (reading->field == LIVENPS_FIELD_ID || reading->field == LIVENPS_FIELD_TIME ||
      reading->field == LIVENPS_FIELD_VALUE) {
    return fail_at(l, node->start_mark.line, "%s: has no values", name);
  }
  if (node->type != YAML_MAPPING_NODE) {
    return fail_at(l, node->start_mark.line, "%s: values must be a map from the payload's words to ours",
                   name);
  }
  for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
    const yaml_node_t *from_node = node_of(l, pair->key);
    const yaml_node_t *to_node = node_of(l, pair->value);
    const char *from = scalar(l, from_node, "a word of values");
    const char *to = from ? scalar(l, to_node, "a meaning in values") : NULL;
    if (!to || check_text(l, to_node, reading->field, to) < 0) {
      return -1;
    }
    livenps_place *place = reading->place;
    for (size_t i = 0; i < place->word_count; i++) {
      if (strcmp(place->words[i].from, from) == 0) {
        return fail_at(l, from_node->start_mark.line, "%s: the word \"%.60s\" is given twice", name, from);
      }
    }
    place->words = livenps_resize(place->words, (place->word_count + 1) * sizeof *place->words);
    place->words[place->word_count++] =
        (livenps_word){livenps_copy(from, strlen(from)), livenps_copy(to, strlen(to))};
  }
  return 0;
}

static int field_lower(loader *l, yaml_node_t *node, void *into) {
  field_reading *reading = into;
  if (reading->field == LIVENPS_FIELD_TIME || reading->field >= LIVENPS_FIELD_SCORE) {
    return fail_at(l, node->start_mark.line, "%s: has no lower", livenps_field_names[reading->field]);
  }
  bool lower = false;
  if (read_bool(l, node, "lower", &lower) < 0) {
    return -1;
  }
  if (!lower && (reading->field == LIVENPS_FIELD_CHANNEL || reading->field == LIVENPS_FIELD_STAGE)) {
    return fail_at(l, node->start_mark.line, "%s: is always in small letters",
                   livenps_field_names[reading->field]);
  }
  reading->place->lower = lower;
  return 0;
}

static int field_numbers(loader *l, yaml_node_t *node, void *into) {
  field_reading *reading = into;
  if (reading->field == LIVENPS_FIELD_TIME || reading->field >= LIVENPS_FIELD_SCORE) {
    return fail_at(l, node->start_mark.line, "%s: numbers are read anyhow",
                   livenps_field_names[reading->field]);
  }
  return read_bool(l, node, "numbers", &reading->place->numbers);
}

static int field_format(loader *l, yaml_node_t *node, void *into) {
  field_reading *reading = into;
  if (reading->field != LIVENPS_FIELD_TIME) {
    return fail_at(l, node->start_mark.line, "%s: only the time has a format",
                   livenps_field_names[reading->field]);
  }
  static const char *const formats[] = {"rfc3339", "seconds", "milliseconds"};
  const char *text = scalar(l, node, "format");
  for (int format = LIVENPS_TIME_RFC3339; text && format <= LIVENPS_TIME_MILLISECONDS; format++) {
    if (strcmp(text, formats[format]) == 0) {
      reading->place->format = (livenps_time_format)format;
      reading->format = true;
      return 0;
    }
  }
  return text ? fail_at(l, node->start_mark.line, "format must be rfc3339, seconds or milliseconds") : -1;
}

static int read_field(loader *l, yaml_node_t *node, livenps_field field) {
  static const map_key keys[] = {
      {"at", field_at},           {"constant", field_constant},
      {"default", field_default}, {"values", field_values},
      {"lower", field_lower},     {"numbers", field_numbers},
      {"format", field_format},   {NULL, NULL},
  };
  const char *name = livenps_field_names[field];
  field_reading reading = {.field = field, .place = &l->mapping->fields[field]};
  if (node->type == YAML_SCALAR_NODE) {
    if (field_at(l, node, &reading) < 0) {
      return -1;
    }
  } else if (read_map(l, node, name, keys, &reading) < 0) {
    return -1;
  }
  if (reading.constant ? reading.place->pointer != NULL : reading.place->pointer == NULL) {
    return fail_at(l, node->start_mark.line, "%s: needs either at (a JSON pointer) or constant", name);
  }
  if (field == LIVENPS_FIELD_TIME && !reading.format) {
    return fail_at(l, node->start_mark.line,
                   "time: say its format (rfc3339, seconds or milliseconds): it is never "
                   "guessed, for example {at: %s, format: seconds}",
                   reading.place->pointer);
  }
  return 0;
}

#define FIELD(symbol, function)                                                                              \
  static int function(loader *l, yaml_node_t *node, void *into) {                                            \
    (void)into;                                                                                              \
    return read_field(l, node, symbol);                                                                      \
  }
FIELD(LIVENPS_FIELD_ID, fields_id)
FIELD(LIVENPS_FIELD_TYPE, fields_type)
FIELD(LIVENPS_FIELD_TIME, fields_time)
FIELD(LIVENPS_FIELD_TOUCHPOINT, fields_touchpoint)
FIELD(LIVENPS_FIELD_CHANNEL, fields_channel)
FIELD(LIVENPS_FIELD_SEGMENT, fields_segment)
FIELD(LIVENPS_FIELD_STAGE, fields_stage)
FIELD(LIVENPS_FIELD_CUSTOMER, fields_customer)
FIELD(LIVENPS_FIELD_SCALE, fields_scale)
FIELD(LIVENPS_FIELD_SCORE, fields_score)
FIELD(LIVENPS_FIELD_VALUE, fields_value)
#undef FIELD

static int read_fields(loader *l, yaml_node_t *node, void *into) {
  static const map_key keys[] = {
      {"id", fields_id},           {"type", fields_type},
      {"time", fields_time},       {"touchpoint", fields_touchpoint},
      {"channel", fields_channel}, {"segment", fields_segment},
      {"stage", fields_stage},     {"customer", fields_customer},
      {"scale", fields_scale},     {"score", fields_score},
      {"value", fields_value},     {NULL, NULL},
  };
  (void)into;
  if (read_map(l, node, "fields", keys, NULL) < 0) {
    return -1;
  }
  const livenps_place *fields = l->mapping->fields;
  const char *type = fields[LIVENPS_FIELD_TYPE].pointer ? NULL : fields[LIVENPS_FIELD_TYPE].fallback;
  bool answers = !type || strcmp(type, "answer") == 0;
  for (int f = 0; f < LIVENPS_FIELDS; f++) {
    bool required =
        f <= LIVENPS_FIELD_TOUCHPOINT || (answers && (f == LIVENPS_FIELD_SCALE || f == LIVENPS_FIELD_SCORE));
    if (required && !fields[f].pointer && !fields[f].fallback) {
      return fail_at(l, node->start_mark.line, "fields: %s is missing; say where it is or give a constant",
                     livenps_field_names[f]);
    }
  }
  return 0;
}

/* -- rules -- */

static int add_value(loader *l, const yaml_node_t *node, livenps_rule *rule) {
  const char *text = scalar(l, node, "a value of a rule");
  if (!text) {
    return -1;
  }
  rule->values = livenps_resize(rule->values, (rule->value_count + 1) * sizeof *rule->values);
  rule->values[rule->value_count++] = livenps_copy(text, strlen(text));
  return 0;
}

static int read_values(loader *l, const yaml_node_t *node, livenps_rule *rule) {
  if (rule->value_count > 0) {
    return fail_at(l, node->start_mark.line, "a rule has either is or is_not, not both");
  }
  if (node->type != YAML_SEQUENCE_NODE) {
    return add_value(l, node, rule);
  }
  for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top;
       item++) {
    if (add_value(l, node_of(l, *item), rule) < 0) {
      return -1;
    }
  }
  return rule->value_count > 0 ? 0 : fail_at(l, node->start_mark.line, "a rule needs at least one value");
}

static int rule_when(loader *l, yaml_node_t *node, void *into) {
  livenps_rule *rule = into;
  return read_pointer(l, node, &rule->pointer, &rule->node);
}

static int rule_is(loader *l, yaml_node_t *node, void *into) {
  return read_values(l, node, into);
}

static int rule_is_not(loader *l, yaml_node_t *node, void *into) {
  livenps_rule *rule = into;
  if (read_values(l, node, rule) < 0) {
    return -1;
  }
  rule->negated = true;
  return 0;
}

static int rule_then(loader *l, yaml_node_t *node, void *into) {
  livenps_rule *rule = into;
  const char *text = scalar(l, node, "then");
  livenps_reason reason = text ? livenps_reason_find(livenps_text_of(text)) : LIVENPS_REASON_NONE;
  if (text && reason != LIVENPS_REASON_CORRECTION && reason != LIVENPS_REASON_NO_EVENT) {
    return fail_at(l, node->start_mark.line, "then must be correction or no_event");
  }
  rule->reason = reason;
  return text ? 0 : -1;
}

static int read_rules(loader *l, yaml_node_t *node, void *into) {
  static const map_key keys[] = {
      {"when", rule_when}, {"is", rule_is}, {"is_not", rule_is_not}, {"then", rule_then}, {NULL, NULL},
  };
  (void)into;
  if (node->type != YAML_SEQUENCE_NODE) {
    return fail_at(l, node->start_mark.line, "rules must be a list");
  }
  livenps_mapping *mapping = l->mapping;
  for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top;
       item++) {
    const yaml_node_t *rule_node = node_of(l, *item);
    mapping->rules = livenps_resize(mapping->rules, (mapping->rule_count + 1) * sizeof *mapping->rules);
    livenps_rule *rule = &mapping->rules[mapping->rule_count++];
    *rule = (livenps_rule){.node = -1, .reason = LIVENPS_REASON_NONE};
    if (read_map(l, rule_node, "a rule", keys, rule) < 0) {
      return -1;
    }
    if (!rule->pointer || rule->value_count == 0 || rule->reason == LIVENPS_REASON_NONE) {
      return fail_at(l, rule_node->start_mark.line,
                     "a rule needs when (a JSON pointer), is or is_not, and then (correction or no_event)");
    }
  }
  return 0;
}

/* -- signature -- */

/* What may stand in a header's name (RFC 9110, a token) or value: visible ASCII. */
static int signature_text(loader *l, yaml_node_t *node, const char *what, const char *forbidden, char **out) {
  const char *text = scalar(l, node, what);
  for (const char *at = text; at && *at; at++) {
    if (*at <= ' ' || *at >= 0x7f || strchr(forbidden, *at)) {
      return fail_at(l, node->start_mark.line, "%s: no character but visible ASCII%s%s", what,
                     *forbidden ? ", and none of " : "", forbidden);
    }
  }
  if (!text || !*text) {
    return text ? fail_at(l, node->start_mark.line, "%s must not be empty", what) : -1;
  }
  *out = livenps_copy(text, strlen(text));
  return 0;
}

static int signature_header(loader *l, yaml_node_t *node, void *into) {
  livenps_signature *signature = into;
  return signature_text(l, node, "header", "\"(),/:;<=>?@[\\]{}", &signature->header);
}

static int signature_prefix(loader *l, yaml_node_t *node, void *into) {
  livenps_signature *signature = into;
  return signature_text(l, node, "prefix", "", &signature->prefix);
}

static int signature_encoding(loader *l, yaml_node_t *node, void *into) {
  livenps_signature *signature = into;
  const char *text = scalar(l, node, "encoding");
  if (text && strcmp(text, "base64") == 0) {
    signature->encoding = LIVENPS_SIGNATURE_BASE64;
  } else if (text && strcmp(text, "hex") != 0) {
    return fail_at(l, node->start_mark.line, "encoding must be hex or base64");
  }
  return text ? 0 : -1;
}

static int read_signature(loader *l, yaml_node_t *node, void *into) {
  static const map_key keys[] = {
      {"header", signature_header},
      {"prefix", signature_prefix},
      {"encoding", signature_encoding},
      {NULL, NULL},
  };
  (void)into;
  livenps_signature *signature = &l->mapping->signature;
  if (read_map(l, node, "signature", keys, signature) < 0) {
    return -1;
  }
  return signature->header ? 0 : fail_at(l, node->start_mark.line, "signature: needs header");
}

static int read_document(loader *l) {
  static const map_key keys[] = {
      {"fields", read_fields}, {"rules", read_rules}, {"signature", read_signature}, {NULL, NULL}};
  yaml_node_t *root = yaml_document_get_root_node(&l->document);
  if (!root) {
    return fail_at(l, 0, "the file is empty; it needs fields");
  }
  if (read_map(l, root, "a mapping file", keys, NULL) < 0) {
    return -1;
  }
  if (!l->mapping->fields[LIVENPS_FIELD_ID].pointer) {
    return fail_at(l, root->start_mark.line, "a mapping file needs fields");
  }
  return 0;
}

int livenps_mapping_load(livenps_mapping **out, const char *path, livenps_error *error) {
  FILE *file = fopen(path, "rb");
  if (!file) {
    return livenps_fail(error, LIVENPS_E_USAGE, "%s: %s", path, strerror(errno));
  }
  int result = -1;
  livenps_mapping *mapping = new_mapping();
  for (int f = 0; f < LIVENPS_FIELDS; f++) {
    mapping->fields[f].node = -1;
    mapping->fields[f].lower = f == LIVENPS_FIELD_CHANNEL || f == LIVENPS_FIELD_STAGE;
  }
  loader l = {.path = path, .mapping = mapping, .error = error};
  yaml_parser_t parser;
  yaml_document_t second;
  bool loaded = false;
  if (!yaml_parser_initialize(&parser)) {
    livenps_fail(error, LIVENPS_E_USAGE, "%s: libyaml has no memory", path);
    goto done;
  }
  yaml_parser_set_input_file(&parser, file);
  if (!yaml_parser_load(&parser, &l.document)) {
    fail_at(&l, parser.problem_mark.line, "%s", parser.problem ? parser.problem : "cannot be read as YAML");
    goto parsed;
  }
  loaded = true;
  if (read_document(&l) < 0) {
    goto parsed;
  }
  if (!yaml_parser_load(&parser, &second)) {
    fail_at(&l, parser.problem_mark.line, "%s", parser.problem ? parser.problem : "cannot be read as YAML");
    goto parsed;
  }
  yaml_node_t *more = yaml_document_get_root_node(&second);
  if (more) {
    fail_at(&l, more->start_mark.line, "a second YAML document in the file; only one is read");
  } else {
    livenps_paths_compile(&mapping->paths);
    *out = mapping;
    mapping = NULL;
    result = 0;
  }
  yaml_document_delete(&second);
parsed:
  if (loaded) {
    yaml_document_delete(&l.document);
  }
  yaml_parser_delete(&parser);
done:
  livenps_mapping_free(mapping);
  fclose(file);
  return result;
}
