#ifndef LIVENPS_HTTP_H
#define LIVENPS_HTTP_H

#include "error.h"
#include "text.h"

/* The only file that includes microhttpd.h is http.c. A small server for one thread, that of whoever calls livenps_http_turn:
 * nothing here or in what it calls needs a lock.
 *
 * What it refuses before anybody is asked: everything but GET, and POST where bodies are taken (405), a Host that is neither localhost nor an
 * address nor one of hosts (403), where the caller says that an answer is private, a request without the token (401), a body that is longer than
 * allowed (413), and one for which there is no room beside the others (429). What is refused is read and forgotten, so that the other side hears
 * why. Every answer forbids the browser to load, frame or cache anything (Content-Security-Policy and the like). Limits: 256 connections, of them
 * 100 streams; a body must be there within a minute. */
typedef struct livenps_http livenps_http;
typedef struct livenps_http_request livenps_http_request;
typedef struct livenps_http_stream livenps_http_stream;

typedef struct {
  int status;            /* 200, 404 ... */
  const char *type;      /* borrowed for ever */
  livenps_text constant; /* a body that lives for ever, or */
  livenps_buffer body;   /* one that is taken over */
  bool stream;           /* no body: livenps_http_send sends it, until either side closes */
  bool later;            /* no body yet: livenps_http_finish gives the answer */
  void *opaque;          /* of the stream: handed to closed; of what is answered later: handed to ended */
  int retry_after_s;     /* 0: nothing is said about it */
  const char *allow;     /* with 405: NULL is "GET" */
} livenps_http_answer;

typedef struct {
  const char *name;   /* "board": errors name board.listen, board.hosts, LIVENPS_BOARD_TOKEN ... */
  const char *listen; /* "127.0.0.1:8080"; port 0: any */
  const char *token;  /* NULL: none is asked for */
  const char *const *hosts;
  size_t host_count;
  void *opaque;
  /* Is what stands at the path private? NULL: everything is. */
  bool (*is_private)(void *opaque, const char *path);
  /* request is there until the answer is sent. */
  void (*answer)(void *opaque, livenps_http_request *request, livenps_http_answer *answer);
  /* NULL where no answer is a stream. */
  void (*opened)(void *opaque, livenps_http_stream *stream, void *of_stream);
  void (*closed)(void *opaque, void *of_stream); /* the stream is no more, or never was; once for each */
  size_t max_body;                               /* of one POST, in bytes; 0: POST is not taken */
  size_t max_bodies;                             /* of all that are being read */
  /* What was to be answered later is over, once for each; told: the answer was written to the other side. NULL where nothing is. */
  void (*ended)(void *opaque, void *of_request, bool told);
} livenps_http_config;

/* The token of a file, or else of the variable LIVENPS_<NAME>_TOKEN; NULL: there is none. The caller wipes it (secret.h). 0, or -1 (STARTUP). */
int livenps_http_token(const char *name, const char *file, char **token, livenps_error *error);

/* Texts in config are borrowed. USAGE: no address; STARTUP: it cannot be listened on, or others can reach it and there is no token. */
int livenps_http_open(livenps_http **out, const livenps_http_config *config, livenps_error *error);
void livenps_http_close(livenps_http *http); /* closes all streams; NULL is fine */
/* Where it listens, as a browser would write it. */
const char *livenps_http_url(const livenps_http *http);

/* Does what there is to do; waits for at most wait_ms, or until there is something to read from socket (-1: none). */
void livenps_http_turn(livenps_http *http, int socket, int wait_ms);

/* No new connections from now on; those that are there go on. */
void livenps_http_stop_listening(livenps_http *http);

/* The answer to a request that was to be answered later; once, before it has ended. Takes answer->body over. */
void livenps_http_finish(livenps_http_request *request, const livenps_http_answer *answer);

bool livenps_http_is_post(const livenps_http_request *request);
livenps_text livenps_http_body(
    const livenps_http_request *request); /* while it is being answered, not later */
const char *livenps_http_header(const livenps_http_request *request,
                                const char *name); /* the first of that name; NULL when absent */
const char *livenps_http_path(const livenps_http_request *request);
/* A parameter of the query, percent-decoded; NULL when it is absent. */
const char *livenps_http_query(const livenps_http_request *request, const char *name);
/* All values of one that may be repeated, up to most; returns how many. */
size_t livenps_http_queries(const livenps_http_request *request, const char *name, const char **out,
                            size_t most);

/* Bytes are copied. */
void livenps_http_send(livenps_http_stream *stream, const void *bytes, size_t length);
/* Bytes that the other side has not taken yet. */
size_t livenps_http_waiting(const livenps_http_stream *stream);

#endif
