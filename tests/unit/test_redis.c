/* The connection, against real servers that refuse, vanish, hang and come back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/log.h"
#include "consumer/redis.h"
#include "tests/unit/redis_server.h"

#ifdef LIVENPS_HAVE_HIREDIS_SSL
#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#endif

static livenps_error error;

static void fails_with(livenps_code code, const char *text) {
  if (error.code != code || !strstr(error.text, text)) {
    fail_msg("wanted error %d with '%s', got %d: %s", code, text, error.code, error.text);
  }
  assert_null(strchr(error.text, '\n'));
  livenps_error_clear(&error);
}

static livenps_redis *opened_for(const char *url, int64_t timeout_ms) {
  livenps_redis *redis = NULL;
  livenps_settings settings = {.redis_url = (char *)(uintptr_t)url, .redis_timeout_ms = timeout_ms};
  if (livenps_redis_open(&redis, &settings, &error) != 0) {
    fail_msg("%s: %s", url, error.text);
  }
  return redis;
}

/* Patient: on a busy machine, and under valgrind, an answer may take its time. */
static livenps_redis *opened(const char *url) {
  return opened_for(url, 30000);
}

static livenps_reply *ask(livenps_redis *redis, const char *line) {
  char copy[256];
  const char *argv[16];
  int argc = 0;
  snprintf(copy, sizeof copy, "%s", line);
  for (char *save = NULL, *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
    argv[argc++] = word;
  }
  return livenps_redis_command(redis, &error, argc, argv, NULL);
}

/* Asked again where a short time-out ran out because the machine stood still. */
static livenps_reply *answered(livenps_redis *redis, const char *line) {
  livenps_reply *reply = ask(redis, line);
  for (int i = 0; i < 30 && !reply && strstr(error.text, "no answer within"); i++) {
    livenps_error_clear(&error);
    reply = ask(redis, line);
  }
  if (!reply) {
    fail_msg("%s: %s", line, error.text);
  }
  return reply;
}

static void fine(livenps_redis *redis, const char *line) {
  livenps_reply_free(answered(redis, line));
}

static void refused(livenps_redis *redis, const char *line, livenps_code code, const char *text) {
  livenps_reply *reply = ask(redis, line);
  assert_null(reply);
  fails_with(code, text);
}

static void urls(void **state) {
  (void)state;
  static const char *const good[] = {"redis://localhost",
                                     "redis://localhost:6380/3",
                                     "REDIS://h/",
                                     "redis://[::1]:6379",
                                     "redis://[::1]",
                                     "redis://user:p%40ss@host:1/15",
                                     "redis://:secret@host",
                                     "unix:///run/redis.sock",
                                     "unix:///run/redis.sock?db=2",
                                     "unix://:pw@/run/a%20b.sock"};
  static const char *const bad[] = {"",
                                    "localhost:6379",
                                    "http://localhost",
                                    "redis://",
                                    "redis://:6379",
                                    "redis://host:0",
                                    "redis://host:65536",
                                    "redis://host:abc",
                                    "redis://host:",
                                    "redis://host/x",
                                    "redis://host/-1",
                                    "redis://host?db=1",
                                    "redis://[::1",
                                    "redis://[::1]x",
                                    "redis://u:%zz@host",
                                    "redis://u:%0@host",
                                    "redis://u:%00@host",
                                    "unix://run/redis.sock",
                                    "unix://",
                                    "unix:///a?database=1"};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    livenps_redis_close(opened(good[i]));
  }
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    livenps_redis *redis = (livenps_redis *)1;
    livenps_settings settings = {.redis_url = (char *)(uintptr_t)bad[i]};
    if (livenps_redis_open(&redis, &settings, &error) == 0) {
      fail_msg("%s was accepted", bad[i]);
    }
    assert_ptr_equal(redis, (livenps_redis *)1); /* set on success only */
    assert_null(strstr(error.text, "secret"));
    fails_with(LIVENPS_E_USAGE, "redis.url");
  }
#ifndef LIVENPS_HAVE_HIREDIS_SSL
  livenps_redis *redis = NULL;
  livenps_settings settings = {.redis_url = (char *)(uintptr_t) "rediss://host"};
  assert_int_equal(livenps_redis_open(&redis, &settings, &error), -1);
  fails_with(LIVENPS_E_USAGE, "hiredis 1.0");
#endif
  livenps_redis_close(NULL);
  livenps_reply_free(NULL);
}

static void replies_are_read_with_care(void **state) {
  (void)state;
  redis_server server = {0};
  redis_server_start(&server, NULL);
  livenps_redis *redis = opened(server.url);
  int64_t value = 0;
  livenps_text text;
  assert_false(livenps_redis_connected(redis));
  fine(redis, "SET number 42");
  assert_true(livenps_redis_connected(redis));
  assert_int_equal(livenps_redis_connections(redis), 1);

  livenps_reply *reply = ask(redis, "GET number");
  assert_true(livenps_reply_integer(reply, &value));
  assert_int_equal(value, 42);
  assert_true(livenps_reply_text(reply, &text));
  assert_int_equal(livenps_reply_count(reply), 0);
  assert_null(livenps_reply_item(reply, 0));
  livenps_reply_free(reply);

  reply = ask(redis, "GET nothing");
  assert_true(livenps_reply_is_nil(reply));
  assert_false(livenps_reply_integer(reply, &value));
  assert_false(livenps_reply_text(reply, &text));
  livenps_reply_free(reply);
  assert_false(livenps_reply_is_nil(NULL));
  assert_false(livenps_reply_integer(NULL, &value));
  assert_false(livenps_reply_text(NULL, &text));
  assert_int_equal(livenps_reply_count(NULL), 0);

  static const char *const no_numbers[] = {"x", "1x", "+1", "9223372036854775808", "1.5", "-", "0x10"};
  for (size_t i = 0; i < sizeof no_numbers / sizeof *no_numbers; i++) {
    const char *argv[] = {"SET", "text", no_numbers[i]};
    livenps_reply_free(livenps_redis_command(redis, &error, 3, argv, NULL));
    reply = ask(redis, "GET text");
    if (livenps_reply_integer(reply, &value)) {
      fail_msg("%s passed for a number", no_numbers[i]);
    }
    livenps_reply_free(reply);
  }
  /* Bytes of any kind come back as they went. */
  const char *argv[] = {"SET", "bytes", "a\0b\r\n%s"};
  const size_t lengths[] = {3, 5, 7};
  livenps_reply_free(livenps_redis_command(redis, &error, 3, argv, lengths));
  reply = livenps_redis_commandf(redis, &error, "GET %s", "bytes");
  assert_true(livenps_reply_text(reply, &text));
  assert_int_equal(text.length, 7);
  assert_memory_equal(text.at, "a\0b\r\n%s", 7);
  livenps_reply_free(reply);

  refused(redis, "INCR bytes", LIVENPS_E_REFUSED, "not an integer");
  refused(redis, "HGET bytes x", LIVENPS_E_REFUSED, "WRONGTYPE");
  assert_true(livenps_redis_connected(redis)); /* an answer is no reason to hang up */
  livenps_redis_close(redis);
  redis_server_stop(&server);
}

static void scripts_are_sent_when_they_are_unknown(void **state) {
  (void)state;
  redis_server server = {0};
  redis_server_start(&server, NULL);
  livenps_redis *redis = opened(server.url);
  livenps_script script = {.text = "return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}"};
  const char *argv[] = {"counter", "argument"};
  for (int i = 1; i <= 3; i++) {
    livenps_reply *reply = livenps_redis_eval(redis, &script, &error, 1, 2, argv, NULL);
    int64_t value = 0;
    assert_non_null(reply);
    assert_true(livenps_reply_integer(livenps_reply_item(reply, 2), &value));
    assert_int_equal(value, i); /* once each: NOSCRIPT ran nothing */
    livenps_reply_free(reply);
    assert_int_equal(strlen(script.sha), 40);
    if (i == 2) {
      fine(redis, "SCRIPT FLUSH");
    }
  }
  livenps_script broken = {.text = "return redis.call('NOSUCH')"};
  assert_null(livenps_redis_eval(redis, &broken, &error, 0, 0, NULL, NULL));
  fails_with(LIVENPS_E_REFUSED, "Unknown Redis command");
  livenps_redis_close(redis);
  redis_server_stop(&server);
}

static void a_server_that_goes_away_and_comes_back(void **state) {
  (void)state;
  redis_server server = {0};
  livenps_redis *redis = opened("unix:///nowhere/redis.sock");
  assert_int_equal(livenps_redis_connect(redis, &error), -1);
  fails_with(LIVENPS_E_LOST, "cannot connect");
  livenps_redis_close(redis);
  redis = opened("redis://127.0.0.1:1");
  assert_int_equal(livenps_redis_connect(redis, &error), -1);
  fails_with(LIVENPS_E_LOST, "redis://127.0.0.1:1");
  livenps_redis_close(redis);

  redis_server_start(&server, NULL);
  redis = opened(server.url);
  fine(redis, "PING");
  redis_server_kill(&server);
  refused(redis, "PING", LIVENPS_E_LOST, "");
  assert_false(livenps_redis_connected(redis));
  refused(redis, "PING", LIVENPS_E_LOST, "cannot connect");
  unlink(server.path);
  redis_server_start(&server, NULL);
  fine(redis, "PING");
  assert_int_equal(livenps_redis_connections(redis), 2);

  /* It hangs: the connection is dropped, so that the late answer is never taken for another's. */
  livenps_redis_close(redis);
  redis = opened_for(server.url, 2000);
  fine(redis, "PING");
  kill(server.pid, SIGSTOP);
  refused(redis, "SET late 1", LIVENPS_E_LOST, "no answer within 2000 ms");
  assert_false(livenps_redis_connected(redis));
  kill(server.pid, SIGCONT);
  livenps_reply *reply = answered(redis, "ECHO mine");
  livenps_text text;
  assert_true(livenps_reply_text(reply, &text));
  assert_true(livenps_text_equal(text, livenps_text_of("mine")));
  livenps_reply_free(reply);
  livenps_redis_close(redis);
  redis_server_stop(&server);
}

static void passwords(void **state) {
  (void)state;
  redis_server server = {0};
  redis_server_start(&server, "--requirepass", "rightword", NULL);
  livenps_redis *redis = opened(server.url);
  assert_int_equal(livenps_redis_connect(redis, &error), -1);
  fails_with(LIVENPS_E_STARTUP, "wants a password");
  livenps_redis_close(redis);

  char path[128], url[160];
  snprintf(path, sizeof path, "%s/password", server.dir);
  FILE *file = fopen(path, "w");
  fputs("rightword\n", file);
  fclose(file);
  livenps_settings settings = redis_server_settings(&server);
  settings.redis_password_file = path;
  assert_int_equal(livenps_redis_open(&redis, &settings, &error), 0);
  fine(redis, "PING");
  fine(redis, "ACL SETUSER reader on >pw ~* +@all");
  /* The password changes under way: waited for, on a new connection. */
  fine(redis, "CONFIG SET requirepass another");
  fine(redis, "CLIENT KILL SKIPME no TYPE normal");
  refused(redis, "PING", LIVENPS_E_LOST, "");
  refused(redis, "PING", LIVENPS_E_LOST, "password refused");
  assert_null(strstr(error.text, "rightword"));
  livenps_redis_close(redis);

  setenv("LIVENPS_REDIS_PASSWORD", "wrong", 1);
  redis = opened(server.url);
  assert_int_equal(livenps_redis_connect(redis, &error), -1);
  assert_null(strstr(error.text, "wrong,"));
  fails_with(LIVENPS_E_STARTUP, "WRONGPASS");
  livenps_redis_close(redis);
  unsetenv("LIVENPS_REDIS_PASSWORD");

  snprintf(url, sizeof url, "unix://reader:pw@%s", server.path);
  redis = opened(url);
  fine(redis, "PING");
  livenps_redis_close(redis);

  settings.redis_password_file = (char *)(uintptr_t) "/nowhere/password";
  assert_int_equal(livenps_redis_open(&redis, &settings, &error), -1);
  fails_with(LIVENPS_E_STARTUP, "/nowhere/password");
  redis_server_stop(&server);
}

static void a_server_that_may_evict(void **state) {
  (void)state;
  redis_server server = {0};
  redis_server_start(&server, "--maxmemory-policy", "allkeys-lru", "--maxmemory", "400mb", NULL);
  livenps_redis *redis = opened(server.url);
  assert_int_equal(livenps_redis_connect(redis, &error), -1);
  fails_with(LIVENPS_E_STARTUP, "allkeys-lru");
  livenps_redis_close(redis);
  livenps_settings settings = redis_server_settings(&server);
  settings.redis_allow_eviction = true;
  livenps_log_level(LIVENPS_ERROR);
  assert_int_equal(livenps_redis_open(&redis, &settings, &error), 0);
  assert_int_equal(livenps_redis_connect(redis, &error), 0);
  livenps_log_level(LIVENPS_INFO);
  assert_int_equal(livenps_redis_log_limit(redis, &settings), 100 * 1024 * 1024);
  settings.log_max_bytes = 5;
  assert_int_equal(livenps_redis_log_limit(redis, &settings), 5);
  livenps_redis_close(redis);
  redis_server_stop(&server);
}

static void a_replica(void **state) {
  (void)state;
  redis_server server = {0};
  redis_server_start(&server, NULL);
  livenps_redis *redis = opened(server.url);
  fine(redis, "SET x 1");
  fine(redis, "REPLICAOF 127.0.0.1 1");
  refused(redis, "SET x 2", LIVENPS_E_LOST, "READONLY");
  assert_false(livenps_redis_connected(redis)); /* so that the next call asks for the role again */
  refused(redis, "SET x 2", LIVENPS_E_LOST, "is a replica");
  livenps_redis *fresh = opened(server.url);
  assert_int_equal(livenps_redis_connect(fresh, &error), -1);
  fails_with(LIVENPS_E_STARTUP, "is a replica");
  livenps_redis_close(fresh);
  livenps_redis_close(redis);
  redis_server_stop(&server);
}

static void memory_runs_out(void **state) {
  (void)state;
  redis_server server = {0};
  redis_server_start(&server, NULL);
  livenps_redis *redis = opened(server.url);
  fine(redis, "CONFIG SET maxmemory 1");
  refused(redis, "SET x 1", LIVENPS_E_LOST, "OOM");
  livenps_script script = {.text = "return redis.call('SET', KEYS[1], 'x')"};
  const char *argv[] = {"x"};
  assert_null(livenps_redis_eval(redis, &script, &error, 1, 1, argv, NULL));
  fails_with(LIVENPS_E_LOST, "OOM");
  assert_true(livenps_redis_connected(redis));
  fine(redis, "CONFIG SET maxmemory 0");
  fine(redis, "SET x 1");
  livenps_redis_close(redis);
  redis_server_stop(&server);
}

/* A server that loads its file answers LOADING: that passes. */
static void a_server_that_is_loading(void **state) {
  (void)state;
  redis_server server = {0};
  redis_server_start(&server, NULL);
  livenps_redis *redis = opened(server.url);
  livenps_reply *reply = livenps_redis_commandf(
      redis, &error, "EVAL %s 0", "for i = 1, 2000 do redis.call('SET', 'k' .. i, i) end return 1");
  assert_non_null(reply);
  livenps_reply_free(reply);
  fine(redis, "SAVE");
  int refusals = 0;
  /* Once more where this process stood still all the while. */
  for (int i = 0; i < 20 && refusals == 0; i++) {
    redis_server_kill(&server);
    unlink(server.path);
    livenps_redis_close(redis);
    /* A millisecond for each key: two seconds of loading. */
    redis_server_start(&server, "--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024",
                       NULL);
    redis = opened(server.url);
    for (; livenps_redis_connect(redis, &error) != 0 && refusals < 2000; refusals++) {
      assert_int_equal(error.code, LIVENPS_E_LOST);
      livenps_error_clear(&error);
      usleep(50000);
    }
  }
  assert_true(refusals > 0);
  assert_true(livenps_redis_connected(redis));
  livenps_redis_close(redis);
  redis_server_stop(&server);
}

/* Not Redis at all, or an old one: something that speaks the protocol and answers what it likes. */
static void not_redis(void **state) {
  (void)state;
  static const struct {
    const char *answers;
    livenps_code code;
    const char *text;
  } cases[] = {
      {"HTTP/1.1 400 Bad Request\r\n\r\n", LIVENPS_E_LOST, "Protocol error"},
      {"-ERR unknown command 'ROLE'\r\n", LIVENPS_E_STARTUP, "ROLE must be allowed"},
      {"+OK\r\n", LIVENPS_E_STARTUP, "does not answer ROLE as Redis does"},
      {"*1\r\n$8\r\nsentinel\r\n", LIVENPS_E_STARTUP, "sentinel"},
      {"*1\r\n$6\r\nmaster\r\n$21\r\nredis_version:6.0.16\r\n\r\n", LIVENPS_E_STARTUP, "6.2 or later"},
      {"*1\r\n$6\r\nmaster\r\n-NOPERM no\r\n", LIVENPS_E_STARTUP, "does not tell its maxmemory-policy"},
      {"", LIVENPS_E_LOST, "closed the connection"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char url[160];
    snprintf(address.sun_path, sizeof address.sun_path, "/tmp/livenps-test-%d.sock", (int)getpid());
    snprintf(url, sizeof url, "unix://%s", address.sun_path);
    unlink(address.sun_path);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 1), 0);
    pid_t pid = fork();
    if (pid == 0) {
      char dropped[512];
      int fd = accept(listener, NULL, NULL);
      if (read(fd, dropped, sizeof dropped) > 0 &&
          write(fd, cases[i].answers, strlen(cases[i].answers)) > 0) {
        shutdown(fd, SHUT_WR);
        while (read(fd, dropped, sizeof dropped) > 0) {
        }
      }
      _exit(0);
    }
    livenps_redis *redis = opened(url);
    assert_int_equal(livenps_redis_connect(redis, &error), -1);
    fails_with(cases[i].code, cases[i].text);
    livenps_redis_close(redis);
    waitpid(pid, NULL, 0);
    close(listener);
    unlink(address.sun_path);
  }
}

#ifdef LIVENPS_HAVE_HIREDIS_SSL
/* A key and a certificate for localhost and 127.0.0.1 that signs itself. */
static void make_certificate(const char *key_path, const char *certificate_path) {
  EVP_PKEY *key = EVP_RSA_gen(2048);
  X509 *certificate = X509_new();
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
  X509_set_version(certificate, 2);
  X509_set_pubkey(certificate, key);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                             (const unsigned char *)"test", -1, -1, 0);
  X509_set_issuer_name(certificate, X509_get_subject_name(certificate));
  X509_EXTENSION *names = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1");
  X509_add_ext(certificate, names, -1);
  X509_EXTENSION_free(names);
  assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
  FILE *file = fopen(key_path, "w");
  PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
  fclose(file);
  file = fopen(certificate_path, "w");
  PEM_write_X509(file, certificate);
  fclose(file);
  X509_free(certificate);
  EVP_PKEY_free(key);
}

static int free_port(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof address;
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
  assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
  close(fd);
  return ntohs(address.sin_port);
}

static void tls_checks_chain_and_name(void **state) {
  (void)state;
  redis_server server = {.dir = "/tmp/livenps-test-XXXXXX"};
  char key[128], certificate[128], port[16], url[64];
  assert_non_null(mkdtemp(server.dir));
  snprintf(key, sizeof key, "%s/key.pem", server.dir);
  snprintf(certificate, sizeof certificate, "%s/certificate.pem", server.dir);
  make_certificate(key, certificate);
  snprintf(port, sizeof port, "%d", free_port());
  redis_server_start(&server, "--tls-port", port, "--tls-cert-file", certificate, "--tls-key-file", key,
                     "--tls-ca-cert-file", certificate, "--tls-auth-clients", "no", "--bind", "127.0.0.1",
                     "127.0.0.2", NULL);
  livenps_settings settings = {.redis_url = url, .redis_timeout_ms = 2000, .redis_ca_file = certificate};
  livenps_redis *redis = NULL;
  static const char *const names[] = {"localhost", "127.0.0.1"};
  for (size_t i = 0; i < 2; i++) {
    snprintf(url, sizeof url, "rediss://%s:%s", names[i], port);
    assert_int_equal(livenps_redis_open(&redis, &settings, &error), 0);
    fine(redis, "PING");
    livenps_redis_close(redis);
  }
  snprintf(url, sizeof url, "rediss://127.0.0.2:%s", port); /* a certificate for somebody else */
  assert_int_equal(livenps_redis_open(&redis, &settings, &error), 0);
  assert_int_equal(livenps_redis_connect(redis, &error), -1);
  fails_with(LIVENPS_E_STARTUP, "not trusted");
  livenps_redis_close(redis);
  snprintf(url, sizeof url, "rediss://127.0.0.1:%s", port);
  settings.redis_ca_file = NULL; /* signed by nobody that the system knows */
  assert_int_equal(livenps_redis_open(&redis, &settings, &error), 0);
  assert_int_equal(livenps_redis_connect(redis, &error), -1);
  fails_with(LIVENPS_E_STARTUP, "not trusted");
  livenps_redis_close(redis);
  settings.redis_ca_file = key; /* no certificate in it */
  assert_int_equal(livenps_redis_open(&redis, &settings, &error), 0);
  assert_int_equal(livenps_redis_connect(redis, &error), -1);
  fails_with(LIVENPS_E_STARTUP, "redis.ca_file");
  livenps_redis_close(redis);
  redis_server_stop(&server);
}
#endif

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(urls),
      cmocka_unit_test(replies_are_read_with_care),
      cmocka_unit_test(scripts_are_sent_when_they_are_unknown),
      cmocka_unit_test(a_server_that_goes_away_and_comes_back),
      cmocka_unit_test(passwords),
      cmocka_unit_test(a_server_that_may_evict),
      cmocka_unit_test(a_replica),
      cmocka_unit_test(memory_runs_out),
      cmocka_unit_test(a_server_that_is_loading),
      cmocka_unit_test(not_redis),
#ifdef LIVENPS_HAVE_HIREDIS_SSL
      cmocka_unit_test(tls_checks_chain_and_name),
#endif
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
