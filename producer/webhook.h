#ifndef LIVENPS_WEBHOOK_H
#define LIVENPS_WEBHOOK_H

#include "common/decode.h"

/* Was the body signed by whoever knows the secret? given: the header's value, NULL when it is absent. HMAC-SHA256 (RFC 2104, libcrypto); the
 * comparison takes as long for a wrong signature as for the right one. */
bool livenps_webhook_signed(const livenps_signature *signature, const char *secret, livenps_text body,
                            const char *given);

#endif
