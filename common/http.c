#include "http.h"

#include "clock.h"
#include "secret.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <microhttpd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
  CONNECTIONS = 256,
  STREAMS = 100,
  IDLE_SECONDS = 60,        /* a connection on which nothing moves is closed */
  CONNECTION_BYTES = 65536, /* of one request's head: names of touchpoints are long when they are encoded */
  STREAM_BLOCK = 65536,
  BODY_MS = 60 * 1000,    /* one that dribbles in keeps its connection no longer */
  FORGOTTEN = 64 << 20,   /* bytes of a refused body that are read; then the connection is closed */
  FULL_RETRY_AFTER_S = 1, /* when there is no room for another body */
};

struct livenps_http {
  livenps_http_config config;
  struct MHD_Daemon *daemon;
  int events; /* an epoll instance of the daemon's */
  bool closing;
  bool
      resumed; /* a connection goes on at the next turn, which libmicrohttpd 0.9.75 does not count as something to do */
  livenps_http_stream *streams;
  size_t stream_count;
  livenps_http_request *requests;
  size_t bodies; /* bytes of the bodies that are being read */
  char url[100];
  char unknown_host[120]; /* what a browser is told that names another host */
  char too_large[120];
};

struct livenps_http_request {
  livenps_http *http;
  livenps_http_request *next, **back; /* all that are there */
  struct MHD_Connection *connection;
  const char *path;
  bool post;
  int refused; /* with this status; the body is no longer kept */
  const char *why;
  livenps_buffer body;
  size_t forgotten;
  int64_t begun_ms;
  enum { BEFORE_ANSWER, ANSWERED_LATER, ANSWERED } state;
  livenps_http_answer answer;
};

struct livenps_http_stream {
  livenps_http *http;
  livenps_http_stream *next;
  struct MHD_Connection *connection;
  livenps_buffer out;
  size_t sent;
  bool asleep; /* the daemon was told to wait for livenps_http_send */
  void *opaque;
};

/* Nothing is loaded from elsewhere, nothing is run that does not stand in the page's own files, nobody frames it. */
static const char *const headers[][2] = {
    {"Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
                                "connect-src 'self'; base-uri 'none'; form-action 'none'; "
                                "frame-ancestors 'none'"},
    {"X-Content-Type-Options", "nosniff"},
    {"X-Frame-Options", "DENY"},
    {"Referrer-Policy", "no-referrer"},
    {"Cross-Origin-Resource-Policy", "same-origin"},
    {"Cross-Origin-Opener-Policy", "same-origin"},
    {"Cache-Control", "no-store"},
};

/* ---- who may ask ---------------------------------------------------------------------------------------------------- */

/* Takes as long for a wrong token as for the right one. */
static bool same_secret(const char *a, const char *b) {
  size_t length = strlen(a);
  unsigned char differs = strlen(b) != length;
  for (size_t i = 0; i < length; i++) {
    differs |= (unsigned char)(a[i] ^ (differs ? 0 : b[i]));
  }
  return differs == 0;
}

static bool token_is_right(const livenps_http *http, struct MHD_Connection *connection) {
  static const char scheme[] = "Bearer ";
  const char *given = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Authorization");
  return given && strncasecmp(given, scheme, sizeof scheme - 1) == 0 &&
         same_secret(http->config.token, given + sizeof scheme - 1);
}

/* A page of somebody else's can make its own name point here and read the answers, but it cannot make the browser name
 * another host than its own. So names are refused unless they are known; addresses are nobody's name. */
static bool host_is_known(const livenps_http *http, const char *host) {
  char name[260];
  struct in6_addr room;
  if (!host || !*host || strlen(host) >= sizeof name) {
    return false;
  }
  snprintf(name, sizeof name, "%s", host);
  char *port = strrchr(name, ':'), *bracket = strchr(name, ']');
  if (port && (!bracket || port > bracket)) {
    if (strspn(port + 1, "0123456789") != strlen(port + 1)) {
      return false;
    }
    *port = '\0';
  }
  if (name[0] == '[') {
    bracket = strchr(name, ']');
    if (!bracket || bracket[1]) {
      return false;
    }
    *bracket = '\0';
    return inet_pton(AF_INET6, name + 1, &room) == 1;
  }
  if (inet_pton(AF_INET, name, &room) == 1 || strcasecmp(name, "localhost") == 0) {
    return true;
  }
  for (size_t i = 0; i < http->config.host_count; i++) {
    if (strcasecmp(name, http->config.hosts[i]) == 0) {
      return true;
    }
  }
  return false;
}

/* ---- answers ---------------------------------------------------------------------------------------------------------- */

const char *livenps_http_path(const livenps_http_request *request) {
  return request->path;
}

const char *livenps_http_query(const livenps_http_request *request, const char *name) {
  return MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, name);
}

typedef struct {
  const char *name, **out;
  size_t count, most;
} collector;

static enum MHD_Result collect(void *opaque, enum MHD_ValueKind kind, const char *key, const char *value) {
  (void)kind;
  collector *found = opaque;
  if (value && strcmp(key, found->name) == 0 && found->count < found->most) {
    found->out[found->count++] = value;
  }
  return MHD_YES;
}

size_t livenps_http_queries(const livenps_http_request *request, const char *name, const char **out,
                            size_t most) {
  collector found = {.name = name, .out = out, .most = most};
  MHD_get_connection_values(request->connection, MHD_GET_ARGUMENT_KIND, collect, &found);
  return found.count;
}

const char *livenps_http_header(const livenps_http_request *request, const char *name) {
  return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

bool livenps_http_is_post(const livenps_http_request *request) {
  return request->post;
}

livenps_text livenps_http_body(const livenps_http_request *request) {
  return (livenps_text){request->body.at ? request->body.at : "", request->body.length};
}

static enum MHD_Result respond(struct MHD_Connection *connection, const livenps_http_answer *answer,
                               struct MHD_Response *response) {
  if (!response) {
    return MHD_NO;
  }
  MHD_add_response_header(response, "Content-Type", answer->type);
  for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
    MHD_add_response_header(response, headers[i][0], headers[i][1]);
  }
  if (answer->status == MHD_HTTP_METHOD_NOT_ALLOWED) {
    MHD_add_response_header(response, "Allow", answer->allow ? answer->allow : "GET");
  } else if (answer->status == MHD_HTTP_UNAUTHORIZED) {
    MHD_add_response_header(response, "WWW-Authenticate", "Bearer");
  }
  if (answer->retry_after_s) {
    char seconds[16];
    snprintf(seconds, sizeof seconds, "%d", answer->retry_after_s);
    MHD_add_response_header(response, "Retry-After", seconds);
  }
  enum MHD_Result result = MHD_queue_response(connection, (unsigned)answer->status, response);
  MHD_destroy_response(response);
  return result;
}

static enum MHD_Result respond_with(struct MHD_Connection *connection, const livenps_http_answer *answer) {
  if (answer->body.at) {
    return respond(
        connection, answer,
        MHD_create_response_from_buffer(answer->body.length, answer->body.at, MHD_RESPMEM_MUST_FREE));
  }
  const livenps_text constant = answer->constant.at ? answer->constant : livenps_text_of("not found\n");
  /* The library asks for memory that it could write to, and with this mode does not. */
  return respond(connection, answer,
                 MHD_create_response_from_buffer(constant.length, (void *)(uintptr_t)constant.at,
                                                 MHD_RESPMEM_PERSISTENT));
}

static enum MHD_Result refuse(livenps_http *http, struct MHD_Connection *connection, int status,
                              const char *why) {
  return respond_with(
      connection,
      &(livenps_http_answer){.status = status,
                             .type = "text/plain; charset=utf-8",
                             .constant = livenps_text_of(why),
                             .allow = http->config.max_body ? "GET, POST" : "GET",
                             .retry_after_s = status == MHD_HTTP_TOO_MANY_REQUESTS ? FULL_RETRY_AFTER_S : 0});
}

/* ---- streams ---------------------------------------------------------------------------------------------------------- */

static ssize_t stream_more(void *opaque, uint64_t position, char *room, size_t size) {
  (void)position;
  livenps_http_stream *stream = opaque;
  size_t left = stream->out.length - stream->sent;
  if (left == 0 && stream->http->closing) {
    return MHD_CONTENT_READER_END_OF_STREAM;
  }
  if (left == 0) {
    stream->asleep = true;
    MHD_suspend_connection(stream->connection);
    return 0;
  }
  size_t step = left < size ? left : size;
  memcpy(room, stream->out.at + stream->sent, step);
  stream->sent += step;
  if (stream->sent == stream->out.length) {
    livenps_buffer_free(&stream->out);
    stream->sent = 0;
  }
  return (ssize_t)step;
}

static void stream_free(void *opaque) {
  livenps_http_stream *stream = opaque;
  livenps_http *http = stream->http;
  for (livenps_http_stream **at = &http->streams; *at; at = &(*at)->next) {
    if (*at == stream) {
      *at = stream->next;
      http->stream_count--;
      break;
    }
  }
  http->config.closed(http->config.opaque, stream->opaque);
  livenps_buffer_free(&stream->out);
  free(stream);
}

void livenps_http_send(livenps_http_stream *stream, const void *bytes, size_t length) {
  livenps_buffer_add(&stream->out, bytes, length);
  if (stream->asleep) {
    stream->asleep = false;
    stream->http->resumed = true;
    MHD_resume_connection(stream->connection);
  }
}

size_t livenps_http_waiting(const livenps_http_stream *stream) {
  return stream->out.length - stream->sent;
}

static enum MHD_Result begin_stream(livenps_http *http, struct MHD_Connection *connection,
                                    livenps_http_answer *answer) {
  if (http->stream_count >= STREAMS) {
    http->config.closed(http->config.opaque, answer->opaque);
    return refuse(http, connection, MHD_HTTP_SERVICE_UNAVAILABLE, "too many pages are open\n");
  }
  livenps_http_stream *stream = livenps_alloc(sizeof *stream);
  *stream = (livenps_http_stream){
      .http = http, .next = http->streams, .connection = connection, .opaque = answer->opaque};
  http->streams = stream;
  http->stream_count++;
  struct MHD_Response *response =
      MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, stream_more, stream, stream_free);
  if (!response) {
    stream_free(stream);
    return MHD_NO;
  }
  http->config.opened(http->config.opaque, stream, answer->opaque);
  return respond(connection, answer, response);
}

/* ---- one request ------------------------------------------------------------------------------------------------------- */

static livenps_http_request *request_new(livenps_http *http, struct MHD_Connection *connection,
                                         const char *path) {
  livenps_http_request *request = livenps_alloc(sizeof *request);
  *request = (livenps_http_request){.http = http,
                                    .next = http->requests,
                                    .back = &http->requests,
                                    .connection = connection,
                                    .path = path,
                                    .begun_ms = livenps_monotonic_ms()};
  if (http->requests) {
    http->requests->back = &request->next;
  }
  http->requests = request;
  return request;
}

static void forget_body(livenps_http_request *request) {
  request->http->bodies -= request->body.capacity;
  livenps_buffer_free(&request->body);
}

static void refuse_body(livenps_http_request *request, int status, const char *why) {
  request->refused = status;
  request->why = why;
  forget_body(request);
}

/* What can be known of the head alone. */
static void judge_head(livenps_http_request *request, const char *method) {
  livenps_http *http = request->http;
  request->post = http->config.max_body && strcmp(method, "POST") == 0;
  if (!request->post && strcmp(method, "GET") != 0) {
    refuse_body(request, MHD_HTTP_METHOD_NOT_ALLOWED,
                http->config.max_body ? "GET and POST only\n" : "GET only\n");
    return;
  }
  if (!host_is_known(http, livenps_http_header(request, "Host"))) {
    refuse_body(request, MHD_HTTP_FORBIDDEN, http->unknown_host);
    return;
  }
  bool is_private = !http->config.is_private || http->config.is_private(http->config.opaque, request->path);
  if (http->config.token && is_private && !token_is_right(http, request->connection)) {
    refuse_body(request, MHD_HTTP_UNAUTHORIZED, "a token is needed: Authorization: Bearer TOKEN\n");
    return;
  }
  const char *length = livenps_http_header(request, "Content-Length");
  if (request->post && length && strtoull(length, NULL, 10) > http->config.max_body) {
    refuse_body(request, MHD_HTTP_CONTENT_TOO_LARGE, http->too_large);
  }
}

/* A part of the body. MHD_NO closes the connection. */
static enum MHD_Result take_part(livenps_http_request *request, const char *part, size_t size) {
  livenps_http *http = request->http;
  if (livenps_monotonic_ms() - request->begun_ms > BODY_MS) {
    return MHD_NO;
  }
  if (request->post && !request->refused) {
    if (request->body.length + size > http->config.max_body) {
      refuse_body(request, MHD_HTTP_CONTENT_TOO_LARGE, http->too_large);
    } else if (http->bodies + size > http->config.max_bodies) {
      refuse_body(request, MHD_HTTP_TOO_MANY_REQUESTS,
                  "there is no room for more at the moment: send it again in a second\n");
    } else {
      http->bodies -= request->body.capacity;
      livenps_buffer_add(&request->body, part, size);
      http->bodies += request->body.capacity;
      return MHD_YES;
    }
  }
  request->forgotten += size;
  return request->forgotten > FORGOTTEN ? MHD_NO : MHD_YES;
}

static enum MHD_Result answer_request(livenps_http_request *request) {
  livenps_http *http = request->http;
  livenps_http_answer *answer = &request->answer;
  *answer = (livenps_http_answer){.status = MHD_HTTP_NOT_FOUND, .type = "text/plain; charset=utf-8"};
  http->config.answer(http->config.opaque, request, answer);
  forget_body(request);
  if (answer->stream) {
    request->state = ANSWERED;
    return begin_stream(http, request->connection, answer);
  }
  if (answer->later) {
    request->state = ANSWERED_LATER;
    MHD_suspend_connection(request->connection);
    return MHD_YES;
  }
  request->state = ANSWERED;
  return respond_with(request->connection, answer);
}

void livenps_http_finish(livenps_http_request *request, const livenps_http_answer *answer) {
  void *opaque = request->answer.opaque;
  request->answer = *answer;
  request->answer.opaque = opaque;
  request->answer.later = true;
  request->state = ANSWERED;
  request->http->resumed = true;
  MHD_resume_connection(request->connection);
}

static enum MHD_Result on_request(void *opaque, struct MHD_Connection *connection, const char *path,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **state) {
  (void)version;
  livenps_http_request *request = *state;
  /* Called first with the head alone. An answer then would close the connection of every request; but who waits for leave to send a body is told
   * at once. */
  if (!request) {
    *state = request = request_new(opaque, connection, path);
    judge_head(request, method);
    return request->refused && livenps_http_header(request, "Expect")
               ? refuse(opaque, connection, request->refused, request->why)
               : MHD_YES;
  }
  if (*upload_size) {
    size_t size = *upload_size;
    *upload_size = 0;
    return take_part(request, upload, size);
  }
  if (request->refused) {
    return refuse(opaque, connection, request->refused, request->why);
  }
  if (request->state == BEFORE_ANSWER) {
    return answer_request(request);
  }
  if (request->state == ANSWERED_LATER) { /* woken for another reason */
    MHD_suspend_connection(connection);
    return MHD_YES;
  }
  livenps_http_answer answer = request->answer;
  request->answer.body = (livenps_buffer){0};
  return respond_with(connection, &answer);
}

static void on_completed(void *opaque, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode how) {
  (void)connection;
  livenps_http *http = opaque;
  livenps_http_request *request = *state;
  if (!request) {
    return;
  }
  *state = NULL;
  if (request->answer.later) {
    http->config.ended(http->config.opaque, request->answer.opaque,
                       how == MHD_REQUEST_TERMINATED_COMPLETED_OK);
    livenps_buffer_free(&request->answer.body); /* when it was never sent */
  }
  forget_body(request);
  *request->back = request->next;
  if (request->next) {
    request->next->back = request->back;
  }
  free(request);
}

/* ---- opening, turning, closing ------------------------------------------------------------------------------------------- */

typedef union {
  struct sockaddr any;
  struct sockaddr_in four;
  struct sockaddr_in6 six;
} endpoint;

static int parse_listen(const livenps_http_config *config, endpoint *address, socklen_t *size, bool *loopback,
                        livenps_error *error) {
  const char *text = config->listen;
  char place[64];
  const char *colon = strrchr(text, ':');
  size_t length = colon ? (size_t)(colon - text) : 0;
  if (!colon || length == 0 || length >= sizeof place) {
    return livenps_fail(error, LIVENPS_E_USAGE, "%s.listen: '%s' is not ADDRESS:PORT", config->name, text);
  }
  uint16_t port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
  bool bracketed = text[0] == '[' && colon[-1] == ']';
  snprintf(place, sizeof place, "%.*s", (int)(bracketed ? length - 2 : length), text + bracketed);
  if (strcmp(place, "localhost") == 0) {
    snprintf(place, sizeof place, "127.0.0.1");
  }
  if (bracketed && inet_pton(AF_INET6, place, &address->six.sin6_addr) == 1) {
    address->six.sin6_family = AF_INET6;
    address->six.sin6_port = port;
    *size = sizeof address->six;
    *loopback = IN6_IS_ADDR_LOOPBACK(&address->six.sin6_addr);
    return 0;
  }
  if (!bracketed && inet_pton(AF_INET, place, &address->four.sin_addr) == 1) {
    address->four.sin_family = AF_INET;
    address->four.sin_port = port;
    *size = sizeof address->four;
    *loopback = ntohl(address->four.sin_addr.s_addr) >> 24 == 127;
    return 0;
  }
  return livenps_fail(error, LIVENPS_E_USAGE,
                      "%s.listen: '%s' is not an address; write 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080",
                      config->name, text);
}

/* A socket of our own, so that what is wrong with it can be said. */
static int listen_on(const endpoint *address, socklen_t size) {
  int on = 1, listener = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (listener >= 0 && (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
                        (address->any.sa_family == AF_INET6 &&
                         setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) != 0) ||
                        bind(listener, &address->any, size) != 0 || listen(listener, SOMAXCONN) != 0)) {
    int saved = errno;
    close(listener);
    errno = saved;
    return -1;
  }
  return listener;
}

/* LIVENPS_BOARD_TOKEN for "board". Returns out. */
static const char *token_variable(const char *name, char out[64]) {
  int length = snprintf(out, 64, "LIVENPS_%s_TOKEN", name);
  for (int i = 0; i < length && i < 63; i++) {
    out[i] = (char)toupper((unsigned char)out[i]);
  }
  return out;
}

int livenps_http_token(const char *name, const char *file, char **token, livenps_error *error) {
  char setting[64], variable[64];
  const char *given = getenv(token_variable(name, variable));
  *token = NULL;
  if (file[0]) {
    snprintf(setting, sizeof setting, "%s.token_file", name);
    return livenps_secret_read(setting, file, token, error);
  }
  if (given && *given) {
    *token = livenps_copy(given, strlen(given));
  }
  return 0;
}

int livenps_http_open(livenps_http **out, const livenps_http_config *config, livenps_error *error) {
  endpoint address = {0};
  socklen_t size = 0;
  bool loopback = false;
  if (parse_listen(config, &address, &size, &loopback, error) != 0) {
    return -1;
  }
  if (!loopback && !config->token) {
    char variable[64];
    return livenps_fail(error, LIVENPS_E_STARTUP,
                        "%s.listen: others can reach %s, so a token is needed: %s.token_file or %s",
                        config->name, config->listen, config->name, token_variable(config->name, variable));
  }
  int listener = listen_on(&address, size);
  if (listener < 0) {
    return livenps_fail(error, LIVENPS_E_STARTUP, "%s.listen: cannot listen on %s: %s%s", config->name,
                        config->listen, strerror(errno),
                        errno == EADDRINUSE ? " by another process: choose another port" : "");
  }
  livenps_http *http = livenps_alloc(sizeof *http);
  http->config = *config;
  snprintf(http->unknown_host, sizeof http->unknown_host,
           "this host name is not known here: add it to the setting %s.hosts\n", config->name);
  snprintf(http->too_large, sizeof http->too_large,
           "the body is longer than the %zu bytes of %s.max_body: send it in parts\n", config->max_body,
           config->name);
  http->daemon = MHD_start_daemon(
      MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, http, MHD_OPTION_LISTEN_SOCKET,
      listener, MHD_OPTION_NOTIFY_COMPLETED, on_completed, http, MHD_OPTION_CONNECTION_LIMIT,
      (unsigned)CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS,
      MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES, MHD_OPTION_END);
  const union MHD_DaemonInfo *info =
      http->daemon ? MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
  if (!info) {
    livenps_http_close(http);
    close(listener);
    return livenps_fail(error, LIVENPS_E_STARTUP, "%s.listen: the HTTP server cannot start", config->name);
  }
  http->events = info->epoll_fd;
  size = sizeof address;
  uint16_t port = 0;
  if (getsockname(listener, &address.any, &size) == 0) {
    port = ntohs(address.any.sa_family == AF_INET6 ? address.six.sin6_port : address.four.sin_port);
  }
  snprintf(http->url, sizeof http->url, "http://%.*s:%u/",
           (int)(strrchr(config->listen, ':') - config->listen), config->listen, port);
  *out = http;
  return 0;
}

void livenps_http_close(livenps_http *http) {
  if (!http) {
    return;
  }
  http->closing = true;
  if (http->daemon) {
    /* The daemon must not stop while one sleeps. */
    for (livenps_http_stream *stream = http->streams; stream; stream = stream->next) {
      livenps_http_send(stream, "", 0);
    }
    for (livenps_http_request *request = http->requests; request; request = request->next) {
      if (request->state == ANSWERED_LATER) {
        livenps_http_finish(request, &(livenps_http_answer){.status = MHD_HTTP_SERVICE_UNAVAILABLE,
                                                            .type = "text/plain; charset=utf-8",
                                                            .constant = livenps_text_of("it ends\n")});
      }
    }
    MHD_run(http->daemon);
    MHD_stop_daemon(http->daemon);
  }
  free(http);
}

void livenps_http_stop_listening(livenps_http *http) {
  int listener = MHD_quiesce_daemon(http->daemon);
  if (listener >= 0) {
    close(listener);
  }
}

const char *livenps_http_url(const livenps_http *http) {
  return http->url;
}

void livenps_http_turn(livenps_http *http, int socket, int wait_ms) {
  MHD_UNSIGNED_LONG_LONG due;
  if (MHD_get_timeout(http->daemon, &due) == MHD_YES && due < (MHD_UNSIGNED_LONG_LONG)wait_ms) {
    wait_ms = (int)due;
  }
  if (http->resumed) {
    wait_ms = 0;
    http->resumed = false;
  }
  struct pollfd both[2] = {{.fd = http->events, .events = POLLIN}, {.fd = socket, .events = POLLIN}};
  poll(both, 2, wait_ms);
  MHD_run(http->daemon);
}
