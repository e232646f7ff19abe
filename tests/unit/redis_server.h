#ifndef LIVENPS_TEST_REDIS_SERVER_H
#define LIVENPS_TEST_REDIS_SERVER_H

/* A private redis-server on a unix socket in a temporary folder, for the unit tests that want a real one. */

#include "common/settings.h"
#include "consumer/redis.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct {
  char dir[64], path[96], url[128];
  pid_t pid;
} redis_server;

static inline int redis_server_reachable(const redis_server *server) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  snprintf(address.sun_path, sizeof address.sun_path, "%s", server->path);
  int reachable = connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
  close(fd);
  return reachable;
}

/* Further options of redis-server, NULL at the end. The same folder again after redis_server_kill (server->dir set). */
static inline void redis_server_start(redis_server *server, ...) {
  const char *argv[40] = {"redis-server", "--port",       "0",          "--save", "",         "--daemonize",
                          "no",           "--unixsocket", server->path, "--dir",  server->dir};
  int argc = 11;
  va_list more;
  va_start(more, server);
  for (const char *option; argc < 38 && (option = va_arg(more, const char *));) {
    argv[argc++] = option;
  }
  va_end(more);
  if (!server->dir[0]) {
    snprintf(server->dir, sizeof server->dir, "/tmp/livenps-test-XXXXXX");
    if (!mkdtemp(server->dir)) {
      perror("mkdtemp");
      exit(1);
    }
  }
  snprintf(server->path, sizeof server->path, "%s/redis.sock", server->dir);
  snprintf(server->url, sizeof server->url, "unix://%s", server->path);
  server->pid = fork();
  if (server->pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* no server outlives a test that aborts */
    char log[96];
    snprintf(log, sizeof log, "%s/redis.log", server->dir);
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(fd, 1);
    dup2(fd, 2);
    execvp("redis-server", (char *const *)(void *)argv);
    _exit(127);
  }
  for (int i = 0; i < 6000 && !redis_server_reachable(server); i++) {
    usleep(10000);
  }
  if (!redis_server_reachable(server)) {
    fprintf(stderr, "redis-server did not start in %s\n", server->dir);
    exit(1);
  }
}

static inline void redis_server_kill(redis_server *server) {
  if (server->pid > 0) {
    kill(server->pid, SIGKILL);
    waitpid(server->pid, NULL, 0);
    server->pid = 0;
  }
}

static inline void redis_server_stop(redis_server *server) {
  redis_server_kill(server);
  if (server->dir[0]) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", server->dir);
    if (system(command) != 0) {
      fprintf(stderr, "cannot remove %s\n", server->dir);
    }
    server->dir[0] = 0;
  }
}

static inline livenps_settings redis_server_settings(const redis_server *server) {
  livenps_settings settings = {0};
  settings.redis_url = (char *)(uintptr_t)server->url;
  settings.redis_timeout_ms = 60000; /* a machine that stands still for a while is no Redis that is away */
  return settings;
}

#endif
