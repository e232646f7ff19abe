#include "split.h"

void livenps_split_begin(livenps_split *split, livenps_text body, livenps_body_form form) {
  *split = (livenps_split){.at = body.at, .end = body.at + body.length, .form = form};
}

static bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void skip_space(livenps_split *split) {
  while (split->at < split->end && is_space(*split->at))
    split->at++;
}

static livenps_text trimmed(const char *from, const char *to) {
  while (to > from && is_space(to[-1]))
    to--;
  return (livenps_text){from, (size_t)(to - from)};
}

static int next_line(livenps_split *split, livenps_text *event) {
  skip_space(split);
  if (split->at == split->end)
    return 0;
  const char *from = split->at, *newline = memchr(from, '\n', (size_t)(split->end - from));
  split->at = newline ? newline : split->end;
  *event = trimmed(from, split->at);
  return 1;
}

/* The first comma or bracket from `at` on that belongs to the array itself; end if there is none.
 *
 *   [ {"a":[1,2],"b":"],"} , {"c":3} ]
 *     ^at                  ^                                                                        */
static const char *element_end(const char *at, const char *end) {
  size_t depth = 0;
  for (; at < end; at++)
    switch (*at) {
    case '"':
      for (at++; at < end && *at != '"'; at++)
        if (*at == '\\')
          at++;
      if (at >= end)
        return end;
      break;
    case '[':
    case '{': depth++; break;
    case ']':
    case '}':
      if (!depth)
        return at;
      depth--;
      break;
    case ',':
      if (!depth)
        return at;
      break;
    default: break;
    }
  return end;
}

static int next_element(livenps_split *split, livenps_text *event) {
  const bool first = split->state == LIVENPS_SPLIT_BEGIN;
  if (first)
    split->at++; /* the bracket */
  split->state = LIVENPS_SPLIT_INSIDE;
  skip_space(split);
  if (first && split->at < split->end && *split->at == ']') {
    split->at++;
    split->state = LIVENPS_SPLIT_END;
    return 0;
  }
  const char *from = split->at, *to = element_end(from, split->end);
  if (to == split->end || *to == '}') {
    split->at = to;
    return -1;
  }
  *event = trimmed(from, to);
  split->at = to + 1;
  if (*to == ']')
    split->state = LIVENPS_SPLIT_END;
  return 1;
}

int livenps_split_next(livenps_split *split, livenps_text *event) {
  if (split->form == LIVENPS_BODY_LINES)
    return next_line(split, event);
  if (split->state == LIVENPS_SPLIT_BEGIN) {
    skip_space(split);
    if (split->at == split->end)
      return 0;
    if (*split->at != '[') {
      *event = trimmed(split->at, split->end);
      split->at = split->end;
      split->state = LIVENPS_SPLIT_END;
      return 1;
    }
  }
  if (split->state != LIVENPS_SPLIT_END) {
    const int result = next_element(split, event);
    if (result)
      return result;
  }
  skip_space(split);
  return split->at == split->end ? 0 : -1;
}
