#ifndef LIVENPS_TEST_REDIS_RELAY_H
#define LIVENPS_TEST_REDIS_RELAY_H

/* A relay before a private redis-server (redis_server.h): one client at a time; it counts exchanges (a command and its reply, those of
 * connecting too) and spoils one of them. */

#include "tests/unit/redis_server.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

enum {
  RELAY_BEFORE, /* the command never comes to the server */
  RELAY_AFTER,  /* the server does it, the reply never comes back */
  RELAY_ANSWER, /* the command never comes to the server, `answer` comes back; for commands of less than 64 KB */
};

typedef struct {
  const redis_server *server;
  char path[108], url[128];
  int listener, wake[2];
  pthread_t thread;
  atomic_int exchanges, spoilt; /* begun, and spoilt, since the relay was told */
  pthread_mutex_t lock;         /* of what follows */
  int at, how;                  /* the exchange to spoil, 0: none */
  char answer[4096];            /* a reply as Redis writes it */
} redis_relay;

static inline bool redis_relay_send(int to, const char *bytes, ssize_t length) {
  for (ssize_t sent = 0; sent < length;) {
    ssize_t n = send(to, bytes + sent, (size_t)(length - sent), MSG_NOSIGNAL);
    if (n <= 0)
      return false;
    sent += n;
  }
  return true;
}

/* Whether the exchange that begins now is the one, and how; -1: it is not. */
static inline int redis_relay_spoils(redis_relay *relay, char *answer) {
  int how = -1;
  pthread_mutex_lock(&relay->lock);
  if (atomic_fetch_add(&relay->exchanges, 1) + 1 == relay->at) {
    relay->at = 0;
    how = relay->how;
    memcpy(answer, relay->answer, sizeof relay->answer);
    atomic_fetch_add(&relay->spoilt, 1);
  }
  pthread_mutex_unlock(&relay->lock);
  return how;
}

/* Until the client or the server hangs up, or the exchange comes that ends the connection. false: the test is over. */
static inline bool redis_relay_serve(redis_relay *relay, int client, int server) {
  char bytes[65536], answer[sizeof relay->answer];
  bool asked = false, mute = false;
  struct pollfd both[3] = {{client, POLLIN, 0}, {server, POLLIN, 0}, {relay->wake[0], POLLIN, 0}};
  for (;;) {
    poll(both, 3, -1);
    if (both[2].revents)
      return false;
    if (both[0].revents) {
      ssize_t length = read(client, bytes, sizeof bytes);
      if (length <= 0)
        return true;
      if (!asked) {
        asked = true;
        int how = redis_relay_spoils(relay, answer);
        if (how == RELAY_BEFORE)
          return true;
        mute = how == RELAY_AFTER;
        if (how == RELAY_ANSWER) {
          asked = false;
          if (!redis_relay_send(client, answer, (ssize_t)strlen(answer)))
            return true;
          continue;
        }
      }
      if (!redis_relay_send(server, bytes, length))
        return true;
    }
    if (both[1].revents) {
      ssize_t length = read(server, bytes, sizeof bytes);
      if (length <= 0 || mute || !redis_relay_send(client, bytes, length))
        return true;
      asked = false;
    }
  }
}

static inline int redis_relay_socket(const char *path, struct sockaddr_un *address) {
  *address = (struct sockaddr_un){.sun_family = AF_UNIX};
  snprintf(address->sun_path, sizeof address->sun_path, "%s", path);
  return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static inline void *redis_relay_run(void *opaque) {
  redis_relay *relay = opaque;
  for (bool more = true; more;) {
    struct pollfd wanted[2] = {{relay->listener, POLLIN, 0}, {relay->wake[0], POLLIN, 0}};
    poll(wanted, 2, -1);
    if (wanted[1].revents)
      break;
    int client = accept(relay->listener, NULL, NULL);
    if (client < 0)
      continue;
    struct sockaddr_un address;
    int server = redis_relay_socket(relay->server->path, &address);
    if (connect(server, (struct sockaddr *)&address, sizeof address) == 0)
      more = redis_relay_serve(relay, client, server);
    close(server);
    close(client);
  }
  return NULL;
}

static inline void redis_relay_start(redis_relay *relay, const redis_server *server) {
  *relay = (redis_relay){.server = server};
  pthread_mutex_init(&relay->lock, NULL);
  snprintf(relay->path, sizeof relay->path, "%s/relay.sock", server->dir);
  snprintf(relay->url, sizeof relay->url, "unix://%s", relay->path);
  struct sockaddr_un address;
  relay->listener = redis_relay_socket(relay->path, &address);
  if (pipe2(relay->wake, O_CLOEXEC) || bind(relay->listener, (struct sockaddr *)&address, sizeof address) ||
      listen(relay->listener, 16) || pthread_create(&relay->thread, NULL, redis_relay_run, relay)) {
    perror("redis_relay_start");
    exit(1);
  }
}

static inline void redis_relay_stop(redis_relay *relay) {
  if (write(relay->wake[1], "", 1) != 1)
    exit(1);
  pthread_join(relay->thread, NULL);
  close(relay->wake[0]);
  close(relay->wake[1]);
  close(relay->listener);
  pthread_mutex_destroy(&relay->lock);
}

/* Spoils the n-th exchange from now on; 0: none, only counts. */
static inline void redis_relay_spoil(redis_relay *relay, int how, int n, const char *answer) {
  pthread_mutex_lock(&relay->lock);
  relay->how = how;
  relay->at = n;
  snprintf(relay->answer, sizeof relay->answer, "%s", answer ? answer : "");
  atomic_store(&relay->exchanges, 0);
  atomic_store(&relay->spoilt, 0);
  pthread_mutex_unlock(&relay->lock);
}

#endif
