#include "redis.h"

#include "../common/clock.h"
#include "../common/log.h"
#include "../common/pulse.h"
#include "../common/secret.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <openssl/evp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#ifdef LIVENPS_HAVE_HIREDIS_SSL
#include <hiredis/hiredis_ssl.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#endif

enum {
  MAX_ARGUMENTS = 1024 * 1024, /* Redis's own limit on the arguments of one command */
  MAX_REDIRECTS = 3,           /* MOVED answers followed for one command */
};

struct livenps_redis {
  bool local, tls; /* local: a unix socket */
  char *host, *path, *username, *password, *ca_file;
  int port, database;
  int64_t timeout_ms;
  bool allow_eviction;
  char where[300]; /* for messages: the URL without user, password and options */
  /* Where a cluster sent us; NULL: the URL's own host. Forgotten when it is no use, so that the URL's host can tell again. */
  char *moved_host;
  int moved_port;
  redisContext *context;
  unsigned long connections;
  int64_t maxmemory;
};

/* ---- settings ---------------------------------------------------------------------------------------------------- */

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  if (c >= 'a' && c <= 'f') {
    return c - 'a' + 10;
  }
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Undoes percent-encoding; NULL when it is broken or holds a NUL. */
static char *url_decode(const char *at, size_t length) {
  char *text = livenps_copy(at, length);
  size_t out = 0;
  for (size_t i = 0; i < length; i++) {
    int value = (unsigned char)at[i];
    if (at[i] == '%') {
      int high = i + 2 < length ? hex_digit(at[i + 1]) : -1;
      int low = i + 2 < length ? hex_digit(at[i + 2]) : -1;
      if (high < 0 || low < 0) {
        free(text);
        return NULL;
      }
      value = high * 16 + low;
      i += 2;
    }
    if (value == 0) {
      free(text);
      return NULL;
    }
    text[out++] = (char)value;
  }
  text[out] = 0;
  return text;
}

/* A decimal number of at most `most`, or -1. */
static int small_number(const char *at, size_t length, int most) {
  long value = 0;
  if (length == 0 || length > 6) {
    return -1;
  }
  for (size_t i = 0; i < length; i++) {
    if (at[i] < '0' || at[i] > '9') {
      return -1;
    }
    value = value * 10 + (at[i] - '0');
  }
  return value > most ? -1 : (int)value;
}

static int bad_url(livenps_error *error, const char *what) {
  return livenps_fail(error, LIVENPS_E_USAGE,
                      "redis.url: %s; write redis://HOST[:PORT][/DATABASE], rediss://... or "
                      "unix:///PATH[?db=DATABASE], with USER:PASSWORD@ in front of the host where needed",
                      what);
}

/*   redis://user:password@host:6379/0      unix://user:password@/run/redis.sock?db=0
 *   scheme  credentials   place     db                                                */
static int parse_url(livenps_redis *redis, const char *url, livenps_error *error) {
  const char *at = url;
  if (strncasecmp(at, "redis://", 8) == 0) {
    at += 8;
  } else if (strncasecmp(at, "rediss://", 9) == 0) {
#ifndef LIVENPS_HAVE_HIREDIS_SSL
    return livenps_fail(
        error, LIVENPS_E_USAGE,
        "redis.url: rediss:// needs a build with hiredis 1.0 or later; this one has hiredis %d.%d.%d, which "
        "cannot do TLS: use redis:// or unix://, or a TLS tunnel beside the program",
        HIREDIS_MAJOR, HIREDIS_MINOR, HIREDIS_PATCH);
#else
    at += 9;
    redis->tls = true;
#endif
  } else if (strncasecmp(at, "unix://", 7) == 0) {
    at += 7;
    redis->local = true;
  } else {
    return bad_url(error, "unknown scheme");
  }
  const char *end = at + strlen(at);
  const char *question = strchr(at, '?');
  const char *options = question ? question + 1 : end;
  const char *stop = question ? question : end;
  const char *slash = memchr(at, '/', (size_t)(stop - at));
  const char *authority_end = slash ? slash : stop;
  const char *at_sign = NULL;
  for (const char *c = at; c < authority_end; c++) {
    at_sign = *c == '@' ? c : at_sign;
  }
  if (at_sign) {
    const char *colon = memchr(at, ':', (size_t)(at_sign - at));
    const char *user_end = colon ? colon : at_sign;
    if (user_end > at && !(redis->username = url_decode(at, (size_t)(user_end - at)))) {
      return bad_url(error, "the user is not percent-encoded correctly");
    }
    if (colon && !(redis->password = url_decode(colon + 1, (size_t)(at_sign - colon - 1)))) {
      return bad_url(error, "the password is not percent-encoded correctly");
    }
    at = at_sign + 1;
  }
  if (redis->local) {
    if (at == stop || *at != '/') {
      return bad_url(error, "unix:// wants an absolute path (three slashes)");
    }
    if (!(redis->path = url_decode(at, (size_t)(stop - at)))) {
      return bad_url(error, "the path is not percent-encoded correctly");
    }
    if (question) {
      if (strncmp(options, "db=", 3) != 0 ||
          (redis->database = small_number(options + 3, (size_t)(end - options - 3), 99999)) < 0) {
        return bad_url(error, "the only option is ?db=NUMBER");
      }
    }
    snprintf(redis->where, sizeof redis->where, "unix://%s", redis->path);
    return 0;
  }
  if (question) {
    return bad_url(error, "options behind ? are for unix:// only");
  }
  const char *host_end, *port = NULL;
  if (at < authority_end && *at == '[') {
    const char *bracket = memchr(at, ']', (size_t)(authority_end - at));
    if (!bracket || (bracket + 1 < authority_end && bracket[1] != ':')) {
      return bad_url(error, "an IPv6 address wants brackets: redis://[::1]:6379");
    }
    at++;
    host_end = bracket;
    port = bracket + 1 < authority_end ? bracket + 2 : NULL;
  } else {
    const char *colon = memchr(at, ':', (size_t)(authority_end - at));
    host_end = colon ? colon : authority_end;
    port = colon ? colon + 1 : NULL;
  }
  if (host_end == at) {
    return bad_url(error, "no host");
  }
  redis->host = livenps_copy(at, (size_t)(host_end - at));
  redis->port = 6379;
  if (port && ((redis->port = small_number(port, (size_t)(authority_end - port), 65535)) < 1)) {
    return bad_url(error, "the port is not a number from 1 to 65535");
  }
  if (slash && slash + 1 < stop) {
    redis->database = small_number(slash + 1, (size_t)(stop - slash - 1), 99999);
    if (redis->database < 0) {
      return bad_url(error, "the database behind / is not a number");
    }
  }
  snprintf(redis->where, sizeof redis->where, "%s://%s:%d/%d", redis->tls ? "rediss" : "redis", redis->host,
           redis->port, redis->database);
  return 0;
}

static void set_text(char **to, char *text) {
  free(*to);
  *to = text;
}

int livenps_redis_open(livenps_redis **out, const livenps_settings *settings, livenps_error *error) {
  livenps_redis *redis = livenps_alloc(sizeof *redis);
  redis->timeout_ms = settings->redis_timeout_ms > 0 ? settings->redis_timeout_ms : 2000;
  redis->allow_eviction = settings->redis_allow_eviction;
  if (parse_url(redis, settings->redis_url ? settings->redis_url : "", error) != 0) {
    goto failed;
  }
  if (settings->redis_username && *settings->redis_username) {
    set_text(&redis->username, livenps_copy(settings->redis_username, strlen(settings->redis_username)));
  }
  if (settings->redis_ca_file && *settings->redis_ca_file) {
    redis->ca_file = livenps_copy(settings->redis_ca_file, strlen(settings->redis_ca_file));
  }
  const char *password = getenv("LIVENPS_REDIS_PASSWORD");
  if (settings->redis_password_file && *settings->redis_password_file) {
    char *found;
    if (livenps_secret_read("redis.password_file", settings->redis_password_file, &found, error) != 0) {
      goto failed;
    }
    livenps_secret_wipe(redis->password);
    redis->password = found;
  } else if (password && *password) {
    set_text(&redis->password, livenps_copy(password, strlen(password)));
  }
  /* hiredis writes with write(2): a peer that hung up would end the process. */
  signal(SIGPIPE, SIG_IGN);
  *out = redis;
  return 0;
failed:
  livenps_redis_close(redis);
  return -1;
}

static void drop(livenps_redis *redis) {
  if (redis->context) {
    redisFree(redis->context);
    redis->context = NULL;
  }
}

/* Where a cluster sent us is no place to stay at: it may be a replica by now. Who redis.url names knows better. */
static void forget_moved(livenps_redis *redis) {
  free(redis->moved_host);
  redis->moved_host = NULL;
}

void livenps_redis_close(livenps_redis *redis) {
  if (!redis) {
    return;
  }
  drop(redis);
  free(redis->host);
  free(redis->path);
  free(redis->username);
  free(redis->ca_file);
  forget_moved(redis);
  livenps_secret_wipe(redis->password);
  free(redis);
}

bool livenps_redis_connected(const livenps_redis *redis) {
  return redis->context != NULL;
}

unsigned long livenps_redis_connections(const livenps_redis *redis) {
  return redis->connections;
}

int64_t livenps_redis_log_limit(const livenps_redis *redis, const livenps_settings *settings) {
  if (settings->log_max_bytes > 0) {
    return settings->log_max_bytes;
  }
  return redis->maxmemory > 0 ? redis->maxmemory / 4 : INT64_C(256) * 1024 * 1024;
}

/* ---- errors ------------------------------------------------------------------------------------------------------ */

static bool begins(const char *text, const char *with) {
  return strncmp(text, with, strlen(with)) == 0;
}

/* Before version 7 an error inside a script came wrapped: "ERR Error running script (...): -READONLY You can't ...". */
static bool says(const char *text, const char *word) {
  char inside[32];
  snprintf(inside, sizeof inside, " -%s ", word);
  return (begins(text, word) && (text[strlen(word)] == ' ' || !text[strlen(word)])) || strstr(text, inside);
}

/* Redis's answers that go away by themselves or by an operator's hand, so that waiting is right. */
static livenps_code answer_code(const char *text) {
  static const char *const passing[] = {"LOADING",     "READONLY", "BUSY",      "MASTERDOWN", "TRYAGAIN",
                                        "CLUSTERDOWN", "OOM",      "MISCONF",   "NOREPLICAS", "NOAUTH",
                                        "MOVED",       "ASK",      "UNKILLABLE"};
  for (size_t i = 0; i < sizeof passing / sizeof *passing; i++) {
    if (says(text, passing[i])) {
      return LIVENPS_E_LOST;
    }
  }
  return LIVENPS_E_REFUSED;
}

static int fail_answer(livenps_redis *redis, livenps_error *error, livenps_code code, const char *doing,
                       const livenps_reply *reply) {
  char words[300];
  livenps_printable_sentence(words, sizeof words, reply->str ? reply->str : "",
                             reply->str ? (unsigned long)reply->len : 0);
  return livenps_fail(error, code, "Redis at %s: %s: %s", redis->where, doing, words);
}

/* An I/O error ends the connection: a late reply must never be taken for the next one's. */
static int fail_io(livenps_redis *redis, livenps_error *error, const char *doing) {
  int saved = errno;
  char words[200];
  const redisContext *context = redis->context;
  if (context && context->err == REDIS_ERR_IO && (saved == EAGAIN || saved == EWOULDBLOCK)) {
    snprintf(words, sizeof words, "no answer within %lld ms", (long long)redis->timeout_ms);
  } else if (context && context->err == REDIS_ERR_EOF) {
    snprintf(words, sizeof words, "the server closed the connection");
  } else {
    const char *text = context && context->errstr[0] ? context->errstr : strerror(saved);
    livenps_printable_sentence(words, sizeof words, text, strlen(text));
  }
  drop(redis);
  return livenps_fail(error, LIVENPS_E_LOST, "Redis at %s: %s: %s", redis->where, doing, words);
}

/* ---- connecting -------------------------------------------------------------------------------------------------- */

#ifdef LIVENPS_HAVE_HIREDIS_SSL
/* hiredis's own helper checks the chain but not the name: so the SSL object is made here. */
static int start_tls(livenps_redis *redis, const char *host, livenps_error *error) {
  int result = -1;
  SSL *ssl = NULL;
  SSL_CTX *tls = SSL_CTX_new(TLS_client_method());
  if (!tls) {
    livenps_fail(error, LIVENPS_E_STARTUP, "Redis at %s: TLS cannot be set up", redis->where);
    goto done;
  }
  SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
  SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
  if (redis->ca_file ? SSL_CTX_load_verify_locations(tls, redis->ca_file, NULL) != 1
                     : SSL_CTX_set_default_verify_paths(tls) != 1) {
    livenps_fail(error, LIVENPS_E_STARTUP, "redis.ca_file: no certificates can be read from %s",
                 redis->ca_file ? redis->ca_file : "the system's store");
    goto done;
  }
  ssl = SSL_new(tls);
  if (!ssl) {
    livenps_fail(error, LIVENPS_E_STARTUP, "Redis at %s: TLS cannot be set up", redis->where);
    goto done;
  }
  X509_VERIFY_PARAM *parameters = SSL_get0_param(ssl);
  if (X509_VERIFY_PARAM_set1_ip_asc(parameters, host) != 1) { /* not an address: a name */
    /* The macro casts const away, which clang tells of. */
    SSL_set_tlsext_host_name(ssl, (void *)(uintptr_t)host);
    if (X509_VERIFY_PARAM_set1_host(parameters, host, 0) != 1) {
      livenps_fail(error, LIVENPS_E_STARTUP, "Redis at %s: not a host name that TLS can check", redis->where);
      goto done;
    }
  }
  if (redisInitiateSSL(redis->context, ssl) != REDIS_OK) {
    long verdict = SSL_get_verify_result(ssl);
    if (verdict != X509_V_OK) {
      livenps_fail(error, LIVENPS_E_STARTUP,
                   "Redis at %s: its certificate is not trusted: %s (redis.ca_file names whom to trust)",
                   redis->where, X509_verify_cert_error_string(verdict));
    } else {
      fail_io(redis, error, "TLS handshake");
    }
    goto done;
  }
  ssl = NULL; /* from here on hiredis owns it */
  result = 0;
done:
  SSL_free(ssl);
  SSL_CTX_free(tls);
  return result;
}
#endif

static livenps_reply *ask(livenps_redis *redis, livenps_error *error, const char *doing, int argc,
                          const char **argv) {
  livenps_reply *reply = redisCommandArgv(redis->context, argc, argv, NULL);
  if (!reply) {
    fail_io(redis, error, doing);
  }
  return reply;
}

/* The value behind "name:" in a reply of INFO; empty when it is not there. */
static void info_value(const livenps_reply *reply, const char *name, char *out, size_t size) {
  size_t length = strlen(name);
  out[0] = 0;
  for (const char *line = reply->str; line && *line;
       line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
    if (strncmp(line, name, length) == 0 && line[length] == ':') {
      snprintf(out, size, "%.*s", (int)strcspn(line + length + 1, "\r\n"), line + length + 1);
      return;
    }
  }
}

/* What is wrong with a server stops a program that is starting; one that has worked already waits for the operator. */
static livenps_code startup_code(const livenps_redis *redis) {
  return redis->connections ? LIVENPS_E_LOST : LIVENPS_E_STARTUP;
}

static int authenticate(livenps_redis *redis, livenps_error *error) {
  if (!redis->password) {
    return 0;
  }
  const char *argv[3] = {"AUTH"};
  int argc = 1;
  if (redis->username) {
    argv[argc++] = redis->username;
  }
  argv[argc++] = redis->password;
  livenps_reply *reply = ask(redis, error, "AUTH", argc, argv);
  if (!reply) {
    return -1;
  }
  int result = 0;
  if (reply->type == REDIS_REPLY_ERROR) {
    bool passing = answer_code(reply->str) == LIVENPS_E_LOST;
    result = fail_answer(
        redis, error, passing ? LIVENPS_E_LOST : startup_code(redis),
        "user or password refused (redis.username, redis.password_file, LIVENPS_REDIS_PASSWORD)", reply);
  }
  livenps_reply_free(reply);
  return result;
}

/* 1: this server is one of a cluster; 0: it is not, or does not tell; -1: it does not answer. */
static int in_cluster(livenps_redis *redis, livenps_error *error) {
  const char *argv[] = {"INFO", "cluster"};
  livenps_reply *reply = ask(redis, error, "INFO", 2, argv);
  if (!reply) {
    return -1;
  }
  char enabled[8] = "";
  if (reply->type != REDIS_REPLY_ERROR) {
    info_value(reply, "cluster_enabled", enabled, sizeof enabled);
  }
  livenps_reply_free(reply);
  return strcmp(enabled, "1") == 0;
}

static int check_role(livenps_redis *redis, livenps_error *error) {
  const char *argv[] = {"ROLE"};
  livenps_reply *reply = ask(redis, error, "ROLE", 1, argv);
  if (!reply) {
    return -1;
  }
  int result = 0;
  livenps_text role;
  if (reply->type == REDIS_REPLY_ERROR) {
    if (says(reply->str, "NOAUTH")) {
      result = fail_answer(redis, error, startup_code(redis),
                           "it wants a password (redis.password_file or LIVENPS_REDIS_PASSWORD)", reply);
    } else if (answer_code(reply->str) == LIVENPS_E_LOST) {
      result = fail_answer(redis, error, LIVENPS_E_LOST, "connecting", reply);
    } else {
      result = fail_answer(redis, error, startup_code(redis),
                           "ROLE must be allowed, to know a replica from a master", reply);
    }
  } else if (!livenps_reply_text(livenps_reply_item(reply, 0), &role)) {
    result = livenps_fail(error, startup_code(redis), "Redis at %s: does not answer ROLE as Redis does",
                          redis->where);
  } else if (!livenps_text_equal(role, livenps_text_of("master"))) {
    /* A replica in a cluster is no dead end: it answers whatever we ask with its master's place (MOVED). */
    const int cluster = livenps_text_equal(role, livenps_text_of("slave")) ? in_cluster(redis, error) : 0;
    result = cluster > 0 ? 0 : -1;
    if (cluster == 0) {
      char words[64];
      livenps_printable(words, sizeof words, role.at, role.length);
      result = livenps_fail(error, startup_code(redis),
                            "Redis at %s: is a replica (ROLE says %s); redis.url must name the master",
                            redis->where, words);
    }
  }
  livenps_reply_free(reply);
  return result;
}

/* Whether it may evict keys. maxmemory is remembered for livenps_redis_log_limit. */
static int check_memory(livenps_redis *redis, const livenps_reply *info, livenps_error *error) {
  char policy[64], maxmemory[32];
  info_value(info, "maxmemory_policy", policy, sizeof policy);
  info_value(info, "maxmemory", maxmemory, sizeof maxmemory);
  redis->maxmemory = strtoll(maxmemory, NULL, 10);
  if (strcmp(policy, "noeviction") == 0) {
    return 0;
  }
  if (redis->allow_eviction) {
    livenps_log(LIVENPS_WARN, "redis", "Redis at %s may evict keys (maxmemory-policy %s): counts can be lost",
                redis->where, policy[0] ? policy : "unknown");
    return 0;
  }
  if (!policy[0]) {
    return livenps_fail(
        error, startup_code(redis),
        "Redis at %s: does not tell its maxmemory-policy, so it may evict keys: allow INFO, or set "
        "redis.allow_eviction: true",
        redis->where);
  }
  return livenps_fail(
      error, startup_code(redis),
      "Redis at %s: may evict keys (maxmemory-policy %s), which loses counts: set it to noeviction, or "
      "redis.allow_eviction: true to run all the same",
      redis->where, policy);
}

static int check_server(livenps_redis *redis, livenps_error *error) {
  const char *argv[] = {"INFO"};
  livenps_reply *reply = ask(redis, error, "INFO", 1, argv);
  if (!reply) {
    return -1;
  }
  static const redisReply nothing = {0};
  const livenps_reply *info = reply->type == REDIS_REPLY_ERROR ? &nothing : reply;
  int result = 0, major = 0, minor = 0;
  char version[32], loading[8];
  info_value(info, "redis_version", version, sizeof version);
  info_value(info, "loading", loading, sizeof loading);
  if (reply->type == REDIS_REPLY_ERROR && answer_code(reply->str) == LIVENPS_E_LOST) {
    result = fail_answer(redis, error, LIVENPS_E_LOST, "INFO", reply);
  } else if (strcmp(loading, "1") == 0) {
    result = livenps_fail(error, LIVENPS_E_LOST, "Redis at %s: is loading its data", redis->where);
  } else if (sscanf(version, "%d.%d", &major, &minor) == 2 && (major < 6 || (major == 6 && minor < 2))) {
    /* XTRIM MINID came with 6.2. */
    result = livenps_fail(error, startup_code(redis), "Redis at %s: is version %s; 6.2 or later is needed",
                          redis->where, version);
  } else {
    result = check_memory(redis, info, error);
  }
  livenps_reply_free(reply);
  return result;
}

static int select_database(livenps_redis *redis, livenps_error *error) {
  if (redis->database == 0) {
    return 0;
  }
  char number[16];
  snprintf(number, sizeof number, "%d", redis->database);
  const char *argv[] = {"SELECT", number};
  livenps_reply *reply = ask(redis, error, "SELECT", 2, argv);
  if (!reply) {
    return -1;
  }
  int result = 0;
  if (reply->type == REDIS_REPLY_ERROR) {
    result = fail_answer(redis, error,
                         answer_code(reply->str) == LIVENPS_E_LOST ? LIVENPS_E_LOST : startup_code(redis),
                         "SELECT", reply);
  }
  livenps_reply_free(reply);
  return result;
}

int livenps_redis_connect(livenps_redis *redis, livenps_error *error) {
  if (redis->context) {
    return 0;
  }
  struct timeval timeout = {.tv_sec = redis->timeout_ms / 1000, .tv_usec = redis->timeout_ms % 1000 * 1000};
  const char *host = redis->moved_host ? redis->moved_host : redis->host;
  int port = redis->moved_host ? redis->moved_port : redis->port;
  errno = 0;
  redis->context = redis->local ? redisConnectUnixWithTimeout(redis->path, timeout)
                                : redisConnectWithTimeout(host, port, timeout);
  if (!redis->context || redis->context->err) {
    forget_moved(redis);
    return fail_io(redis, error, "cannot connect");
  }
#ifdef LIVENPS_HAVE_HIREDIS_SSL
  if (redis->tls && start_tls(redis, host, error) != 0) {
    goto failed;
  }
#endif
  if (redisSetTimeout(redis->context, timeout) != REDIS_OK) {
    return fail_io(redis, error, "setting the time-out");
  }
  if (!redis->local) {
    redisEnableKeepAlive(redis->context);
  }
  if (authenticate(redis, error) != 0 || check_role(redis, error) != 0 || check_server(redis, error) != 0 ||
      select_database(redis, error) != 0) {
    goto failed;
  }
  const char *name[] = {"CLIENT", "SETNAME", "livenps"};
  livenps_reply *reply = ask(redis, error, "CLIENT SETNAME", 3, name);
  if (!reply) {
    goto failed;
  }
  livenps_reply_free(reply); /* a refusal costs nothing but the name */
  redis->connections++;
  return 0;
failed:
  forget_moved(redis);
  drop(redis);
  return -1;
}

/* ---- commands ---------------------------------------------------------------------------------------------------- */

/* "MOVED 3999 127.0.0.1:6381": a cluster keeps the namespace elsewhere. All keys of a namespace share one slot, so following once
 * moves the whole connection. An empty host means the one that answered. */
static bool follow(livenps_redis *redis, const livenps_reply *reply) {
  const char *place = strchr(reply->str, ' ');
  place = place ? strchr(place + 1, ' ') : NULL;
  const char *colon = place ? strrchr(place, ':') : NULL;
  if (redis->local || !colon) {
    return false;
  }
  int port = small_number(colon + 1, strlen(colon + 1), 65535);
  if (port < 1) {
    return false;
  }
  const char *from = redis->moved_host ? redis->moved_host : redis->host;
  char *host = colon > place + 1 ? livenps_copy(place + 1, (size_t)(colon - place - 1))
                                 : livenps_copy(from, strlen(from));
  free(redis->moved_host);
  redis->moved_host = host;
  redis->moved_port = port;
  drop(redis);
  return true;
}

/* Sends and waits; the reply may be an error reply, MOVED ones are followed. */
static livenps_reply *exchange(livenps_redis *redis, livenps_error *error, int argc, const char **argv,
                               const size_t *lengths) {
  if (argc > MAX_ARGUMENTS) {
    livenps_fail(error, LIVENPS_E_REFUSED, "Redis at %s: %s with %d arguments is more than Redis takes (%d)",
                 redis->where, argv[0], argc, MAX_ARGUMENTS);
    return NULL;
  }
  livenps_pulse();
  for (int redirects = 0;; redirects++) {
    if (livenps_redis_connect(redis, error) != 0) {
      return NULL;
    }
    errno = 0;
    livenps_reply *reply = redisCommandArgv(redis->context, argc, argv, lengths);
    if (!reply) {
      fail_io(redis, error, argv[0]);
      return NULL;
    }
    if (reply->type == REDIS_REPLY_ERROR && begins(reply->str, "MOVED ") && redirects < MAX_REDIRECTS &&
        follow(redis, reply)) {
      livenps_reply_free(reply);
      continue;
    }
    return reply;
  }
}

/* The reply, or NULL with the error when it is an error reply (freed here). */
static livenps_reply *checked(livenps_redis *redis, livenps_error *error, const char *doing,
                              livenps_reply *reply) {
  if (!reply || reply->type != REDIS_REPLY_ERROR) {
    return reply;
  }
  fail_answer(redis, error, answer_code(reply->str), doing, reply);
  if (says(reply->str, "READONLY") || says(reply->str, "NOAUTH")) {
    /* A master that became a replica, or a server that came back with a password: only a new connection checks that anew. */
    drop(redis);
  } else if (says(reply->str, "CLUSTERDOWN") && redis->moved_host) {
    /* That node has lost the others, or has left them; who redis.url names may still see them. */
    forget_moved(redis);
    drop(redis);
  }
  livenps_reply_free(reply);
  return NULL;
}

livenps_reply *livenps_redis_command(livenps_redis *redis, livenps_error *error, int argc, const char **argv,
                                     const size_t *lengths) {
  return checked(redis, error, argv[0], exchange(redis, error, argc, argv, lengths));
}

livenps_reply *livenps_redis_commandf(livenps_redis *redis, livenps_error *error, const char *format, ...) {
  if (livenps_redis_connect(redis, error) != 0) {
    return NULL;
  }
  char doing[32];
  snprintf(doing, sizeof doing, "%.*s", (int)strcspn(format, " "), format);
  livenps_reply *reply = NULL;
  for (int redirects = 0;; redirects++) {
    va_list arguments;
    va_start(arguments, format);
    errno = 0;
    reply = redisvCommand(redis->context, format, arguments);
    va_end(arguments);
    if (!reply) {
      fail_io(redis, error, doing);
      return NULL;
    }
    if (reply->type == REDIS_REPLY_ERROR && begins(reply->str, "MOVED ") && redirects < MAX_REDIRECTS &&
        follow(redis, reply)) {
      livenps_reply_free(reply);
      if (livenps_redis_connect(redis, error) != 0) {
        return NULL;
      }
      continue;
    }
    return checked(redis, error, doing, reply);
  }
}

/* Scripts are shared by the threads of the process, so the first to need a digest must not be seen half-way by another. */
static void script_sha(livenps_script *script, char out[41]) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&lock);
  if (!script->sha[0]) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    if (EVP_Digest(script->text, strlen(script->text), digest, &length, EVP_sha1(), NULL) == 1) {
      for (unsigned i = 0; i < length && i < 20; i++) {
        snprintf(script->sha + 2 * i, 3, "%02x", digest[i]);
      }
    } else {
      memset(script->sha, '0', 40); /* never a script's digest: NOSCRIPT follows and the text is sent */
      script->sha[40] = 0;
    }
  }
  memcpy(out, script->sha, 41);
  pthread_mutex_unlock(&lock);
}

livenps_reply *livenps_redis_eval(livenps_redis *redis, livenps_script *script, livenps_error *error,
                                  int keys, int argc, const char **argv, const size_t *lengths) {
  char sha[41], count[16];
  script_sha(script, sha);
  snprintf(count, sizeof count, "%d", keys);
  const char **all = livenps_alloc((size_t)(argc + 3) * sizeof *all);
  size_t *sizes = livenps_alloc((size_t)(argc + 3) * sizeof *sizes);
  all[0] = "EVALSHA";
  all[1] = sha;
  all[2] = count;
  for (int i = 0; i < argc; i++) {
    all[i + 3] = argv[i];
    sizes[i + 3] = lengths ? lengths[i] : strlen(argv[i]);
  }
  sizes[0] = 7;
  sizes[1] = 40;
  sizes[2] = strlen(count);
  livenps_reply *reply = exchange(redis, error, argc + 3, all, sizes);
  if (reply && reply->type == REDIS_REPLY_ERROR && says(reply->str, "NOSCRIPT")) {
    /* A new master, or SCRIPT FLUSH. NOSCRIPT means that nothing ran, so sending the text cannot run it twice. */
    livenps_reply_free(reply);
    all[0] = "EVAL";
    sizes[0] = 4;
    all[1] = script->text;
    sizes[1] = strlen(script->text);
    reply = exchange(redis, error, argc + 3, all, sizes);
  }
  free(all);
  free(sizes);
  return checked(redis, error, "script", reply);
}

/* ---- listening ----------------------------------------------------------------------------------------------------- */

int livenps_redis_subscribe(livenps_redis *redis, const char *channel, livenps_error *error) {
  const char *argv[] = {"SUBSCRIBE", channel};
  livenps_reply *reply = livenps_redis_command(redis, error, 2, argv, NULL);
  livenps_reply_free(reply);
  return reply ? 0 : -1;
}

int livenps_redis_socket(const livenps_redis *redis) {
  return redis->context ? redis->context->fd : -1;
}

int livenps_redis_message(livenps_redis *redis, livenps_buffer *message, livenps_error *error) {
  for (;;) {
    if (!redis->context) {
      return livenps_fail(error, LIVENPS_E_LOST, "Redis at %s: not connected", redis->where);
    }
    void *found = NULL;
    errno = 0;
    if (redisGetReplyFromReader(redis->context, &found) != REDIS_OK) {
      return fail_io(redis, error, "listening");
    }
    livenps_reply *reply = found;
    livenps_text kind, text;
    if (reply && livenps_reply_text(livenps_reply_item(reply, 0), &kind) &&
        livenps_text_equal(kind, livenps_text_of("message")) &&
        livenps_reply_text(livenps_reply_item(reply, 2), &text)) {
      livenps_buffer_add(message, text.at, text.length);
      livenps_reply_free(reply);
      return 1;
    }
    livenps_reply_free(reply);
    if (reply) {
      continue; /* an answer to SUBSCRIBE */
    }
    /* Only when there is something: the context's reads wait. */
    struct pollfd socket = {.fd = redis->context->fd, .events = POLLIN};
    if (poll(&socket, 1, 0) <= 0) {
      return 0;
    }
    errno = 0;
    if (redisBufferRead(redis->context) != REDIS_OK) {
      return fail_io(redis, error, "listening");
    }
  }
}

/* ---- replies ----------------------------------------------------------------------------------------------------- */

void livenps_reply_free(livenps_reply *reply) {
  if (reply) {
    freeReplyObject(reply);
  }
}

bool livenps_reply_is_nil(const livenps_reply *reply) {
  return reply && reply->type == REDIS_REPLY_NIL;
}

bool livenps_reply_integer(const livenps_reply *reply, int64_t *value) {
  if (!reply) {
    return false;
  }
  if (reply->type == REDIS_REPLY_INTEGER) {
    *value = reply->integer;
    return true;
  }
  if (reply->type != REDIS_REPLY_STRING || !reply->str || reply->len == 0 || reply->len > 20 ||
      strlen(reply->str) != reply->len ||
      !(reply->str[0] == '-' || (reply->str[0] >= '0' && reply->str[0] <= '9'))) {
    return false;
  }
  char *end;
  errno = 0;
  long long number = strtoll(reply->str, &end, 10);
  if (errno || *end) {
    return false;
  }
  *value = number;
  return true;
}

bool livenps_reply_text(const livenps_reply *reply, livenps_text *text) {
  if (!reply || (reply->type != REDIS_REPLY_STRING && reply->type != REDIS_REPLY_STATUS) || !reply->str) {
    return false;
  }
  *text = (livenps_text){reply->str, (size_t)reply->len};
  return true;
}

size_t livenps_reply_count(const livenps_reply *reply) {
  return reply && reply->type == REDIS_REPLY_ARRAY ? reply->elements : 0;
}

const livenps_reply *livenps_reply_item(const livenps_reply *reply, size_t index) {
  return index < livenps_reply_count(reply) ? reply->element[index] : NULL;
}

#define DIGITS_(number) #number
#define DIGITS(number)  DIGITS_(number)

const char *livenps_redis_version(void) {
  return "hiredis " DIGITS(HIREDIS_MAJOR) "." DIGITS(HIREDIS_MINOR) "." DIGITS(HIREDIS_PATCH)
#ifdef LIVENPS_HAVE_HIREDIS_SSL
      ", TLS to Redis: yes\n";
#else
      ", TLS to Redis: no (needs hiredis 1.0 or later)\n";
#endif
}
