#include "version.h"

#include "settings_table.h"

#include <dlfcn.h>
#include <jansson.h>
#include <librdkafka/rdkafka.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>

#ifndef LIVENPS_BUILD_TYPE
#define LIVENPS_BUILD_TYPE "unknown"
#endif

static const char *compiler(void) {
#if defined(__clang__)
  return "clang " __clang_version__;
#else
  return "gcc " __VERSION__;
#endif
}

static const char *sanitizers(void) {
#if defined(__SANITIZE_ADDRESS__)
  return ", address sanitizer";
#elif defined(__SANITIZE_THREAD__)
  return ", thread sanitizer";
#else
  return "";
#endif
}

static void print_features(livenps_buffer *out) {
  rd_kafka_conf_t *conf = rd_kafka_conf_new();
  char features[512] = "";
  size_t size = sizeof features;
  if (rd_kafka_conf_get(conf, "builtin.features", features, &size) == RD_KAFKA_CONF_OK) {
    livenps_buffer_print(out, " (%s)", features);
  }
  rd_kafka_conf_destroy(conf);
}

/* jemalloc is asked at run time, because it is linked to the programs, not to this library, and may also be preloaded. */
static void print_allocator(livenps_buffer *out) {
  int (*ask)(const char *, void *, size_t *, void *, size_t);
  const char *version = NULL;
  size_t size = sizeof version;
  void *symbol = dlsym(RTLD_DEFAULT, "mallctl");
  memcpy(&ask, &symbol, sizeof ask); /* ISO C has no cast from object to function pointer */
  if (symbol && ask("version", &version, &size, NULL, 0) == 0 && version) {
    livenps_buffer_print(out, "jemalloc %.*s\n", (int)strcspn(version, "-"), version);
  } else {
    livenps_buffer_print(out, "jemalloc: no, the C library's malloc\n");
  }
}

void livenps_version_print(const char *program, const char *extra, livenps_buffer *out) {
  livenps_buffer_print(out, "%s %s\n", program, LIVENPS_VERSION);
  livenps_buffer_print(out, "librdkafka %s", rd_kafka_version_str());
  print_features(out);
  livenps_buffer_print(out, "\n%s", extra);
  livenps_buffer_print(out, "jansson %s\nlibyaml %s\nzlib %s\n%s\n", jansson_version_str(),
                       livenps_settings_yaml_version(), zlibVersion(), OpenSSL_version(OPENSSL_VERSION));
  print_allocator(out);
  livenps_buffer_print(out, "built with %s, %s%s\n", compiler(), LIVENPS_BUILD_TYPE, sanitizers());
}
