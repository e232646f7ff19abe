#ifndef LIVENPS_DECODE_H
#define LIVENPS_DECODE_H

#include "error.h"
#include "event.h"

/* Bytes of a record -> event, by a mapping. Pure. The JSON reader behind it is our own validating scanner
 * (scan.h): strict RFC 8259, literals of numbers kept, positions known; jansson is its oracle in the tests. */

/* Where the fields of an event are in a topic's payloads. Compiled once; read-only afterwards and shared by threads. */
typedef struct livenps_mapping livenps_mapping;

/* The contract of docs/events.md: plain JSON, CloudEvents structured, CloudEvents binary (told apart by ce_ headers,
 * content-type and the attribute specversion). */
int livenps_mapping_default(livenps_mapping **out, livenps_error *error);
/* A mapping file (YAML, config/mappings/): errors name file and line. */
int livenps_mapping_load(livenps_mapping **out, const char *path, livenps_error *error);
void livenps_mapping_free(livenps_mapping *mapping);
/* Canonical text of all that decides about a record's fate; goes into the admit hash. */
void livenps_mapping_print(const livenps_mapping *mapping, livenps_buffer *out);

/* How a vendor signs the body of a webhook: HMAC-SHA256 with a shared secret, as text in a header. It decides about no record's fate. */
typedef struct {
  char *header; /* "Typeform-Signature" */
  char *prefix; /* in front of the digest, "sha256="; NULL: nothing */
  enum { LIVENPS_SIGNATURE_HEX, LIVENPS_SIGNATURE_BASE64 } encoding;
} livenps_signature;
/* NULL when the mapping names none. Belongs to the mapping. */
const livenps_signature *livenps_mapping_signature(const livenps_mapping *mapping);

/* Scratch memory for unescaped strings, and the outlines of accepted records (outline.h), which make the next ones cheaper and never change
 * what they mean. Reused from record to record; one per thread. */
typedef struct livenps_decoder livenps_decoder;
livenps_decoder *livenps_decoder_new(void);
void livenps_decoder_free(livenps_decoder *decoder);
/* How many records followed an outline so far. */
uint64_t livenps_decoder_short(const livenps_decoder *decoder);

/* Where and what is wrong, for people: byte offset into the value and the field's name ("" when none). */
typedef struct {
  size_t offset;
  char field[64];
  char detail[160];
} livenps_where;

/* Returns LIVENPS_REASON_NONE and fills *event, or the reason; where may be NULL. max_bytes: admit.max_bytes. */
livenps_reason livenps_decode(livenps_decoder *decoder, const livenps_mapping *mapping, size_t max_bytes,
                              const livenps_record *record, livenps_event *event, livenps_where *where);

#endif
