#ifndef LIVENPS_OUTLINE_H
#define LIVENPS_OUTLINE_H

#include "scan.h"

/* Outlines of documents that the scanner accepted: the bytes between their values - punctuation, keys, values that stay the same. Events
 * of one publisher share a few of them, and comparing those bytes is several times faster than reading them once more.
 *
 *   {"id":"a-7","type":"answer","time":"2026-11-21T10:15:00Z","note":null,"score":9}
 *   -------   ----------------------------                    --------    ---------- -      literals, compared
 *          ===                            ====================        ====          =       values, read and checked
 *
 * A document that follows an outline is valid JSON with the same keys at the same places, because values cannot contain structure: so what
 * holds of structure - no key twice, the depth, the type of what is wanted - holds of it as it did of the first one. A document that
 * follows none says nothing; the scanner then finds out. Outlines with a common beginning share it: they form a tree. */
typedef struct livenps_outlines livenps_outlines;

enum {
  LIVENPS_OUTLINES = 64,     /* of one tree; numbered from 0 */
  LIVENPS_OUTLINE_TEXTS = 16 /* values that somebody wants; the last one is where all the others go */
};

/* A wanted value of the document that is to be learned. */
typedef struct {
  size_t offset; /* of its first byte */
  int text;      /* where its characters go, if it varies; -1: always the same, a part of the outline */
} livenps_wanted;

livenps_outlines *livenps_outlines_new(void);
void livenps_outlines_free(livenps_outlines *outlines);
/* Learns a document that the scanner accepted. Wanted strings and numbers vary in their characters, not in their type; true, false and null
 * are always the same; values that nobody wants may be any scalar. Returns its number, the same one for the same outline, or -1 when there
 * is no room for it. */
int livenps_outlines_learn(livenps_outlines *outlines, const char *bytes, size_t length,
                           const livenps_wanted *wanted, size_t count);
/* The outline that the document follows, or -1. Fills texts as the outline says, leaves the others. They borrow from the document or from
 * the scanner, until its next document. */
int livenps_outlines_match(const livenps_outlines *outlines, livenps_scanner *scanner, const char *bytes,
                           size_t length, livenps_text texts[LIVENPS_OUTLINE_TEXTS]);
bool livenps_outlines_full(const livenps_outlines *outlines); /* learning has been refused */
void livenps_outlines_forget(livenps_outlines *outlines);     /* all of them */

#endif
