#include "input.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* read() and not stdio: a wait can be bounded, and a signal ends it. */
enum { CHUNK = 64 * 1024 };

struct livenps_input {
  const char *const *files;
  size_t count, max_bytes;
  size_t file, number;
  int fd; /* -1: the file is not open yet */
  bool ended, started;
  bool rereadable;
  livenps_buffer line; /* of the line so far at most max_bytes + 1 bytes */
  bool complete;       /* the line was handed out: the next call starts a new one */
  char chunk[CHUNK];
  size_t chunk_at, chunk_end;
};

static const char *const standard_input[] = {"-"};

static bool is_stdin(const char *name) {
  return !strcmp(name, "-");
}

int livenps_input_open(livenps_input **out, const char *const *files, size_t count, size_t max_bytes,
                       livenps_error *error) {
  if (!count) {
    files = standard_input;
    count = 1;
  }
  bool rereadable = true;
  for (size_t i = 0; i < count; i++) {
    struct stat facts;
    if (is_stdin(files[i])) {
      rereadable = false;
      continue;
    }
    /* Not opened here: a pipe's writer would lose its reader when we close it again. */
    if (stat(files[i], &facts) || access(files[i], R_OK))
      return livenps_fail(error, LIVENPS_E_USAGE, "%s: %s", files[i], strerror(errno));
    if (S_ISDIR(facts.st_mode))
      return livenps_fail(error, LIVENPS_E_USAGE, "%s: is a directory", files[i]);
    if (!S_ISREG(facts.st_mode))
      rereadable = false;
  }
  livenps_input *input = livenps_alloc(sizeof *input);
  *input = (livenps_input){
      .files = files, .count = count, .max_bytes = max_bytes, .fd = -1, .rereadable = rereadable};
  *out = input;
  return 0;
}

static void close_file(livenps_input *input) {
  if (input->fd > STDIN_FILENO)
    close(input->fd);
  input->fd = -1;
}

void livenps_input_close(livenps_input *input) {
  if (!input)
    return;
  close_file(input);
  livenps_buffer_free(&input->line);
  free(input);
}

void livenps_input_rewind(livenps_input *input) {
  close_file(input);
  input->file = input->number = 0;
  input->chunk_at = input->chunk_end = 0;
  input->line.length = 0;
  input->ended = input->started = input->complete = false;
}

livenps_text livenps_input_line(const livenps_input *input) {
  return (livenps_text){input->line.at ? input->line.at : "", input->line.length};
}

const char *livenps_input_name(const livenps_input *input, size_t file) {
  return is_stdin(input->files[file]) ? "(stdin)" : input->files[file];
}

size_t livenps_input_file(const livenps_input *input) {
  return input->file;
}

size_t livenps_input_number(const livenps_input *input) {
  return input->number;
}

bool livenps_input_at_stdin(const livenps_input *input) {
  return is_stdin(input->files[input->file]);
}

bool livenps_input_rereadable(const livenps_input *input) {
  return input->rereadable;
}

static void keep(livenps_input *input, const char *bytes, size_t length) {
  const size_t room = input->max_bytes + 1 - input->line.length;
  livenps_buffer_add(&input->line, bytes, length < room ? length : room);
}

/* The line is whole: cuts the CR off; false when it is blank. */
static bool finish_line(livenps_input *input) {
  if (input->line.length && input->line.at[input->line.length - 1] == '\r')
    input->line.length--;
  for (size_t i = 0; i < input->line.length; i++)
    if (input->line.at[i] != ' ' && input->line.at[i] != '\t')
      return true;
  input->line.length = 0;
  return false;
}

/* Fills the chunk: 1, 0 when there is nothing within wait_ms, -1. An empty chunk afterwards is the file's end. */
static int read_chunk(livenps_input *input, int wait_ms, livenps_error *error) {
  const char *name = input->files[input->file];
  if (input->fd < 0) {
    input->fd = is_stdin(name) ? STDIN_FILENO : open(name, O_RDONLY | O_CLOEXEC);
    if (input->fd < 0)
      return livenps_fail(error, LIVENPS_E_USAGE, "%s: %s", name, strerror(errno));
    input->number = 0;
    input->started = false;
  }
  struct pollfd ready = {.fd = input->fd, .events = POLLIN};
  const int count = poll(&ready, 1, wait_ms);
  if (count == 0 || (count < 0 && errno == EINTR))
    return 0;
  const ssize_t length = count < 0 ? -1 : read(input->fd, input->chunk, sizeof input->chunk);
  if (length < 0 && (errno == EINTR || errno == EAGAIN))
    return 0;
  if (length < 0)
    return livenps_fail(error, LIVENPS_E_STARTUP, "%s:%zu: %s", livenps_input_name(input, input->file),
                        input->number, strerror(errno));
  input->chunk_at = 0;
  input->chunk_end = (size_t)length;
  return 1;
}

int livenps_input_next(livenps_input *input, int wait_ms, livenps_input_result *result,
                       livenps_error *error) {
  if (input->complete) {
    input->line.length = 0;
    input->complete = false;
  }
  while (!input->ended) {
    const char *from = input->chunk + input->chunk_at;
    const size_t length = input->chunk_end - input->chunk_at;
    if (length) {
      if (!input->started)
        input->number++;
      input->started = true;
      const char *newline = memchr(from, '\n', length);
      keep(input, from, newline ? (size_t)(newline - from) : length);
      input->chunk_at += newline ? (size_t)(newline - from) + 1 : length;
      if (!newline)
        continue;
      input->started = false;
      if (!finish_line(input))
        continue;
      input->complete = true;
      *result = LIVENPS_INPUT_LINE;
      return 0;
    }
    const int got = read_chunk(input, wait_ms, error);
    if (got < 0)
      return -1;
    if (!got) {
      *result = LIVENPS_INPUT_NOTHING;
      return 0;
    }
    if (input->chunk_end)
      continue;
    /* The file's end. A last line without a newline is a line. */
    const bool rest = input->started && finish_line(input);
    input->started = false;
    if (rest) {
      input->complete = true;
      *result = LIVENPS_INPUT_LINE;
      return 0;
    }
    if (input->file + 1 == input->count) {
      input->ended = true;
    } else {
      close_file(input);
      input->file++;
    }
  }
  *result = LIVENPS_INPUT_END;
  return 0;
}
