#include "webhook.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>

enum { DIGEST = 32, LONGEST = 128 };

/* As text, without the prefix. Returns its length, 0 when libcrypto refuses. */
static size_t sign(const livenps_signature *signature, const char *secret, livenps_text body,
                   char out[LONGEST]) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  if (!HMAC(EVP_sha256(), secret, (int)strlen(secret), (const unsigned char *)body.at, body.length, digest,
            &length) ||
      length != DIGEST)
    return 0;
  if (signature->encoding == LIVENPS_SIGNATURE_BASE64)
    return (size_t)EVP_EncodeBlock((unsigned char *)out, digest, DIGEST);
  for (size_t i = 0; i < DIGEST; i++)
    snprintf(out + 2 * i, 3, "%02x", digest[i]);
  return 2 * (size_t)DIGEST;
}

bool livenps_webhook_signed(const livenps_signature *signature, const char *secret, livenps_text body,
                            const char *given) {
  char own[LONGEST];
  const size_t prefix = signature->prefix ? strlen(signature->prefix) : 0;
  if (!given || (prefix && strncmp(given, signature->prefix, prefix) != 0))
    return false;
  given += prefix;
  const size_t length = sign(signature, secret, body, own);
  return length && strlen(given) == length && CRYPTO_memcmp(given, own, length) == 0;
}
