#ifndef LIVENPS_REDIS_H
#define LIVENPS_REDIS_H

#include "../common/error.h"
#include "../common/settings.h"

/* The only file that includes hiredis.h is redis.c. One connection, one thread. Every reply is checked, nested ones too.
 * A connection that had any I/O error or time-out is closed at once (hiredis errors are sticky, and a late reply must never be taken
 * for the next one's); the next call connects anew. Secrets never appear in errors. */
typedef struct livenps_redis livenps_redis;
typedef struct redisReply livenps_reply; /* read it with the functions below */

/* Parses settings (URL, user, password from file or environment); does not connect. */
int livenps_redis_open(livenps_redis **out, const livenps_settings *settings, livenps_error *error);
void livenps_redis_close(livenps_redis *redis); /* NULL is fine */
/* Connects if needed: AUTH, SELECT, CLIENT SETNAME (ignored when refused), ROLE must say master (or slave in a cluster: it sends on), maxmemory-policy
 * must not evict (INFO memory; allow_eviction makes it a warning), LOADING is waited for as LOST. code LOST: try again later; STARTUP:
 * wrong password, replica, eviction, not Redis; after the first success of this object those are LOST too (a failover: somebody is mending it). */
int livenps_redis_connect(livenps_redis *redis, livenps_error *error);
bool livenps_redis_connected(const livenps_redis *redis);
unsigned long livenps_redis_connections(const livenps_redis *redis); /* rises with every new connection */

/* commit.log_max, or what 0 stands for: a quarter of the server's maxmemory (known once connected), 256 MB without one. */
int64_t livenps_redis_log_limit(const livenps_redis *redis, const livenps_settings *settings);

/* One command (connects first; MOVED of a cluster is followed). The caller frees the reply. An error reply is an error here: LOST for I/O, time-out, LOADING, READONLY,
 * BUSY, MASTERDOWN, TRYAGAIN, CLUSTERDOWN, OOM, MISCONF, NOREPLICAS, NOAUTH (waiting can help; READONLY also drops the connection, CLUSTERDOWN one that MOVED led to), REFUSED for others;
 * the text holds Redis's own words, printable. NOSCRIPT is handled inside livenps_redis_eval. */
livenps_reply *livenps_redis_command(livenps_redis *redis, livenps_error *error, int argc, const char **argv,
                                     const size_t *lengths); /* lengths may be NULL */
livenps_reply *livenps_redis_commandf(livenps_redis *redis, livenps_error *error, const char *format,
                                      ...); /* hiredis format */
/* EVALSHA, EVAL on NOSCRIPT. script is text that lives for ever; its SHA-1 is computed once. */
typedef struct {
  const char *text;
  char sha[41];
} livenps_script;
livenps_reply *livenps_redis_eval(livenps_redis *redis, livenps_script *script, livenps_error *error,
                                  int keys, int argc, const char **argv, const size_t *lengths);
void livenps_reply_free(livenps_reply *reply); /* NULL is fine */

/* Turns this connection into one that listens to a channel (connects first); afterwards it takes no commands. 0, or -1 as of a command:
 * REFUSED where Redis's ACL does not allow it. */
int livenps_redis_subscribe(livenps_redis *redis, const char *channel, livenps_error *error);
/* What has come: 1 and the message (added to the buffer), 0 when none has; never waits. -1: the connection is lost and closed, subscribe anew. */
int livenps_redis_message(livenps_redis *redis, livenps_buffer *message, livenps_error *error);
/* For poll(); -1 while not connected. */
int livenps_redis_socket(const livenps_redis *redis);

bool livenps_reply_is_nil(const livenps_reply *reply);
bool livenps_reply_integer(const livenps_reply *reply, int64_t *value); /* integer, or a string that is one */
bool livenps_reply_text(const livenps_reply *reply, livenps_text *text); /* string or status; borrowed */
size_t livenps_reply_count(const livenps_reply *reply);                  /* 0 when it is no array */
const livenps_reply *livenps_reply_item(const livenps_reply *reply,
                                        size_t index); /* NULL beyond the end or no array */

/* A line for --version: hiredis's version, and whether rediss:// works. */
const char *livenps_redis_version(void);

#endif
