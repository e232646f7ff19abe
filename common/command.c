#include "command.h"

#include "clock.h"
#include "decode.h"
#include "kafka.h"
#include "log.h"
#include "settings_table.h"
#include "stop.h"
#include "version.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- parsing ---- */

static const livenps_option *find_option(const livenps_program *program, const char *name, int command) {
  for (size_t i = 0; i < program->option_count; i++) {
    const livenps_option *option = &program->options[i];
    if (strcmp(option->name, name) == 0 && (command < 0 || option->commands >> command & 1)) {
      return option;
    }
  }
  return NULL;
}

static int find_command(const livenps_program *program, const char *name) {
  for (size_t i = 0; i < program->command_count; i++) {
    if (strcmp(program->commands[i].name, name) == 0) {
      return (int)i;
    }
  }
  return -1;
}

static void list_commands(const livenps_program *program, livenps_buffer *out) {
  for (size_t i = 0; i < program->command_count; i++) {
    livenps_buffer_print(out, "%s%s",
                         i == 0                           ? ""
                         : i + 1 < program->command_count ? ", "
                                                          : " or ",
                         program->commands[i].name);
  }
  livenps_buffer_add(out, "", 1);
}

static int refuse_option(const livenps_program *program, int code, const char *word, livenps_error *error) {
  char shown[100];
  /* getopt leaves the word with its value: what stands behind "=" may be a secret, and nobody needs it here. */
  livenps_printable(shown, sizeof shown, word, strcspn(word, "="));
  if (code == ':') {
    return livenps_fail(error, LIVENPS_E_USAGE, "option %s needs a value; see %s --help", shown,
                        program->name);
  }
  if (strchr(word, '=') && word[0] == '-' && word[1] == '-') {
    char *name = livenps_copy(word + 2, strcspn(word + 2, "="));
    const livenps_option *option = find_option(program, name, -1);
    free(name);
    if (option && !option->argument) {
      return livenps_fail(error, LIVENPS_E_USAGE, "option %s takes no value", shown);
    }
  }
  return livenps_fail(error, LIVENPS_E_USAGE, "unknown option %s; see %s --help", shown, program->name);
}

int livenps_command_parse(const livenps_program *program, int argc, char **argv, livenps_command_line *line,
                          livenps_error *error) {
  struct option *known = livenps_alloc((program->option_count + 1) * sizeof *known);
  const char **names = livenps_alloc(((size_t)argc + 1) * sizeof *names),
             **values = livenps_alloc(((size_t)argc + 1) * sizeof *values);
  size_t known_count = 0, count = 0;
  livenps_buffer commands = {0};
  int code, index, result = -1;
  memset(line, 0, sizeof *line);
  line->program = program;
  line->command = -1;
  for (size_t i = 0; i < program->option_count; i++) {
    const livenps_option *option = &program->options[i];
    if (find_option(program, option->name, -1) == option) { /* the first of its name stands for all of them */
      known[known_count++] =
          (struct option){option->name, option->argument ? required_argument : no_argument, NULL, 0};
    }
  }
  optind = 0; /* starts anew also when tests parse several command lines */
  while ((code = getopt_long(argc, argv, ":h", known, &index)) != -1) {
    if (code == 0) {
      names[count] = known[index].name;
      values[count++] = optarg;
    } else if (code == 'h') {
      names[count++] = "help";
    } else {
      const char letter[3] = {'-', (char)optopt, '\0'}; /* optopt is 0 for long names */
      refuse_option(program, code, optopt ? letter : argv[optind - 1], error);
      goto cleanup;
    }
  }

  const char *first = optind < argc ? argv[optind] : NULL;
  list_commands(program, &commands);
  if (first) {
    line->command = find_command(program, first);
    if (line->command < 0) {
      char shown[100];
      livenps_fail(error, LIVENPS_E_USAGE, "unknown command '%s'; allowed: %s",
                   livenps_printable(shown, sizeof shown, first, strlen(first)), commands.at);
      goto cleanup;
    }
    optind++;
  } else {
    bool answers = false;
    for (size_t i = 0; i < count; i++) {
      answers = answers || strcmp(names[i], "help") == 0 || strcmp(names[i], "version") == 0 ||
                strcmp(names[i], "help-settings") == 0;
    }
    /* `livenps-consumer --help` is about the program, `livenps-consumer run --help` about the command. */
    if (program->has_default && !answers) {
      line->command = 0;
    } else if (!answers) {
      bool only_configuration = false;
      for (size_t i = 0; i < count; i++) {
        only_configuration = only_configuration || strcmp(names[i], "dump-config") == 0 ||
                             strcmp(names[i], "check-config") == 0;
      }
      if (!only_configuration) {
        livenps_fail(error, LIVENPS_E_USAGE, "a command is needed: %s; see %s --help", commands.at,
                     program->name);
        goto cleanup;
      }
    }
  }

  line->given = livenps_alloc((count + 1) * sizeof *line->given);
  for (size_t i = 0; i < count; i++) {
    const livenps_option *option = find_option(program, names[i], line->command);
    if (!option) {
      livenps_fail(error, LIVENPS_E_USAGE, "--%s is no option of %s; see %s %s --help", names[i],
                   program->commands[line->command].name, program->name,
                   program->commands[line->command].name);
      goto cleanup;
    }
    line->given[line->given_count].option = option;
    line->given[line->given_count++].value = values[i];
  }
  line->operand_count = (size_t)(argc - optind);
  if (line->operand_count > 0 && !program->commands[line->command].operands) {
    char shown[100];
    livenps_fail(error, LIVENPS_E_USAGE, "%s takes no '%s'; see %s %s --help",
                 program->commands[line->command].name,
                 livenps_printable(shown, sizeof shown, argv[optind], strlen(argv[optind])), program->name,
                 program->commands[line->command].name);
    goto cleanup;
  }
  line->operands = livenps_alloc((line->operand_count + 1) * sizeof *line->operands);
  for (size_t i = 0; i < line->operand_count; i++) {
    line->operands[i] = argv[(size_t)optind + i];
  }
  result = 0;
cleanup:
  if (result != 0) {
    livenps_command_free(line);
  }
  livenps_buffer_free(&commands);
  free(known);
  free(names);
  free(values);
  return result;
}

void livenps_command_free(livenps_command_line *line) {
  free(line->given);
  free(line->operands);
  line->given = NULL;
  line->operands = NULL;
  line->given_count = line->operand_count = 0;
}

bool livenps_command_has(const livenps_command_line *line, const char *option) {
  for (size_t i = 0; i < line->given_count; i++) {
    if (strcmp(line->given[i].option->name, option) == 0) {
      return true;
    }
  }
  return false;
}

const char *livenps_command_value(const livenps_command_line *line, const char *option) {
  const char *value = NULL;
  for (size_t i = 0; i < line->given_count; i++) {
    if (strcmp(line->given[i].option->name, option) == 0) {
      value = line->given[i].value;
    }
  }
  return value;
}

const char **livenps_command_values(const livenps_command_line *line, const char *option, size_t *count) {
  const char **values = livenps_alloc((line->given_count + 1) * sizeof *values);
  *count = 0;
  for (size_t i = 0; i < line->given_count; i++) {
    if (strcmp(line->given[i].option->name, option) == 0) {
      values[(*count)++] = line->given[i].value;
    }
  }
  return values;
}

static int refuse_value(const char *option, const char *value, livenps_error *error, const char *allowed) {
  char shown[100];
  return livenps_fail(error, LIVENPS_E_USAGE, "--%s: '%s' is not possible; allowed: %s", option,
                      livenps_printable(shown, sizeof shown, value, strlen(value)), allowed);
}

int livenps_command_number(const livenps_command_line *line, const char *option, int64_t low, int64_t high,
                           int64_t *value, livenps_error *error) {
  const char *text = livenps_command_value(line, option);
  char *end, allowed[80];
  if (!text) {
    return 0;
  }
  size_t digits = text[0] == '-' ? 1 : 0; /* strtoll would take spaces and a plus too */
  errno = 0;
  long long number = strtoll(text, &end, 10);
  if (text[digits] < '0' || text[digits] > '9' || *end != '\0' || errno != 0 || number < low ||
      number > high) {
    snprintf(allowed, sizeof allowed, "a whole number from %lld to %lld", (long long)low, (long long)high);
    return refuse_value(option, text, error, allowed);
  }
  *value = number;
  return 0;
}

int livenps_command_time(const livenps_command_line *line, const char *option, int64_t *ms,
                         livenps_error *error) {
  const char *text = livenps_command_value(line, option);
  if (!text) {
    return 0;
  }
  if (livenps_time_argument(text, ms) != 0) {
    return refuse_value(option, text, error,
                        "a time such as 2026-11-21T10:15:00Z (RFC 3339), or milliseconds since 1970-01-01");
  }
  return 0;
}

int livenps_command_rate(const livenps_command_line *line, const char *option, const char *suffix,
                         double high, double *value, livenps_error *error) {
  const char *text = livenps_command_value(line, option);
  char allowed[80];
  if (!text) {
    return 0;
  }
  if (strcmp(text, "max") == 0) {
    *value = 0;
    return 0;
  }
  /* strtod also reads hexadecimal, exponents, infinity and spaces, which nobody means here. */
  size_t length = strspn(text, "0123456789.");
  double number = 0;
  char *copy = livenps_copy(text, length), *end;
  number = strtod(copy, &end);
  bool good =
      length > 0 && *end == '\0' && strcmp(text + length, suffix) == 0 && number > 0 && number <= high;
  free(copy);
  if (!good) {
    snprintf(allowed, sizeof allowed, "max, or N%s with N above 0 and at most %.0f", suffix, high);
    return refuse_value(option, text, error, allowed);
  }
  *value = number;
  return 0;
}

/* ---- settings ---- */

/* --bootstrap-servers, --redis and --listen are --set under another name, so that they refuse what --set refuses. */
static int set_short_cut(livenps_settings *settings, const char *option, const char *path, const char *value,
                         livenps_error *error) {
  livenps_buffer assignment = {0};
  livenps_error found = {0};
  livenps_buffer_print(&assignment, "%s=%s", path, value);
  livenps_buffer_add(&assignment, "", 1);
  int result = livenps_settings_set(settings, assignment.at, &found);
  livenps_buffer_free(&assignment);
  if (result != 0) {
    const char *rest = strstr(found.text, ": ");
    livenps_fail(error, found.code, "--%s: %s", option, rest ? rest + 2 : found.text);
  }
  return result;
}

int livenps_command_settings(const livenps_command_line *line, char **environment, livenps_settings *settings,
                             livenps_error *error) {
  const char *path = livenps_command_value(line, "config");
  livenps_settings_default(settings);
  if (!path) {
    path = getenv("LIVENPS_CONFIG");
  }
  if (path && path[0] && livenps_settings_file(settings, path, error) != 0) {
    return -1;
  }
  if (livenps_settings_environment(settings, environment, error) != 0) {
    return -1;
  }
  for (size_t i = 0; i < line->given_count; i++) {
    const char *name = line->given[i].option->name, *value = line->given[i].value;
    int result = 0;
    if (strcmp(name, "set") == 0) {
      result = livenps_settings_set(settings, value, error);
    } else if (strcmp(name, "bootstrap-servers") == 0) {
      result = set_short_cut(settings, name, "kafka.bootstrap.servers", value, error);
    } else if (strcmp(name, "redis") == 0) {
      result = set_short_cut(settings, name, "redis.url", value, error);
    } else if (strcmp(name, "listen") == 0) {
      result = set_short_cut(
          settings, name,
          strcmp(line->program->commands[line->command].name, "serve") == 0 ? "serve.listen" : "board.listen",
          value, error);
    }
    if (result != 0) {
      return -1;
    }
  }
  if (livenps_settings_check(settings, error) != 0) {
    return -1;
  }
  static const char *const levels[] = {"error", "warn", "info", "debug"};
  for (int i = 0; i < 4; i++) {
    if (strcmp(settings->log_level, levels[i]) == 0) {
      livenps_log_level((livenps_level)i);
    }
  }
  return 0;
}

static int check_file(const char *setting, const char *path, livenps_error *error) {
  if (path[0] && access(path, R_OK) != 0) {
    return livenps_fail(error, LIVENPS_E_USAGE, "%s: %s: %s", setting, path, strerror(errno));
  }
  return 0;
}

int livenps_command_check(const livenps_settings *settings, bool producer, livenps_error *error) {
  if (check_file("redis.password_file", settings->redis_password_file, error) != 0 ||
      check_file("board.token_file", settings->board_token_file, error) != 0 ||
      check_file("metrics.token_file", settings->metrics_token_file, error) != 0 ||
      check_file("serve.token_file", settings->serve_token_file, error) != 0 ||
      check_file("redis.ca_file", settings->redis_ca_file, error) != 0) {
    return -1;
  }
  for (size_t i = 0; i < settings->webhooks.count; i++) {
    if (check_file("webhooks", settings->webhooks.at[i].value, error) != 0) {
      return -1;
    }
  }
  for (size_t i = 0; i < settings->mappings.count; i++) {
    livenps_mapping *mapping = NULL;
    if (livenps_mapping_load(&mapping, settings->mappings.at[i].value, error) != 0) {
      return livenps_fail_prefix(error, "mappings.%s", settings->mappings.at[i].name);
    }
    livenps_mapping_free(mapping);
  }
  /* librdkafka knows its own names and values best. Where a broker is may come later, from the environment. */
  static const char *const anywhere[] = {"bootstrap.servers", "127.0.0.1:9092", NULL};
  rd_kafka_conf_t *conf;
  if (livenps_kafka_conf(&conf, settings, producer ? LIVENPS_KAFKA_PRODUCER : LIVENPS_KAFKA_CONSUMER,
                         anywhere, error)) {
    return -1;
  }
  rd_kafka_conf_destroy(conf);
  return 0;
}

/* ---- help ---- */

enum { WIDTH = 80, OPTION_COLUMN = 26 };

/* Adds words up to WIDTH, indented; the first line goes on at `column`. "\n" in text starts a new line. */
static void wrap(livenps_buffer *out, const char *text, int indent, int column) {
  bool first = true;
  while (*text) {
    size_t length = strcspn(text, " \n");
    if (!first && (size_t)column + 1 + length > WIDTH) {
      livenps_buffer_print(out, "\n");
      first = true;
      column = 0;
    }
    if (first) {
      livenps_buffer_print(out, "%*s", indent > column ? indent - column : 0, "");
      column = indent > column ? indent : column;
    } else {
      livenps_buffer_print(out, " ");
      column++;
    }
    livenps_buffer_add(out, text, length);
    column += (int)length;
    first = false;
    text += length;
    if (*text == '\n') {
      livenps_buffer_print(out, "\n");
      first = true;
      column = 0;
    }
    if (*text) {
      text++;
    }
  }
  livenps_buffer_print(out, "\n");
}

static void help_option(const livenps_option *option, livenps_buffer *out) {
  size_t start = out->length;
  livenps_buffer_print(out, "  --%s%s%s", option->name, option->argument ? " " : "",
                       option->argument ? option->argument : "");
  int column = (int)(out->length - start);
  if (column > OPTION_COLUMN - 2) {
    livenps_buffer_print(out, "\n");
    column = 0;
  }
  wrap(out, option->help, OPTION_COLUMN, column);
}

/* For the program itself: the options that every command has. */
static bool shows(const livenps_option *option, int command) {
  return command < 0 ? option->commands == LIVENPS_EVERY_COMMAND : (option->commands >> command & 1) != 0;
}

/* Calls for each line of "a\nb\n...". */
static const char *next_line(const char *text, size_t *length) {
  *length = strcspn(text, "\n");
  return text[*length] ? text + *length + 1 : text + *length;
}

static void help_examples(const livenps_command *command, livenps_buffer *out) {
  size_t length;
  for (const char *at = command->examples; *at;) {
    const char *next = next_line(at, &length);
    livenps_buffer_print(out, "  %.*s:\n", (int)length, at);
    at = next;
    next = next_line(at, &length);
    livenps_buffer_print(out, "    %.*s\n", (int)length, at);
    at = next;
  }
}

void livenps_command_help(const livenps_program *program, int command, livenps_buffer *out) {
  for (size_t i = 0; i < program->command_count; i++) {
    if (command >= 0 && command != (int)i) {
      continue;
    }
    const livenps_command *one = &program->commands[i];
    bool optional = program->has_default && i == 0;
    size_t start = out->length;
    livenps_buffer_print(out, "%s %s %s%s%s ", i == 0 || command >= 0 ? "Usage:" : "      ", program->name,
                         optional ? "[" : "", one->name, optional ? "]" : "");
    wrap(out, one->synopsis, 10, (int)(out->length - start));
  }
  livenps_buffer_print(out, "\n");
  wrap(out, command < 0 ? program->text : program->commands[command].text, 0, 0);
  if (command < 0) {
    livenps_buffer_print(out, "\nCommands (each has its own --help):\n");
    for (size_t i = 0; i < program->command_count; i++) {
      size_t start = out->length;
      livenps_buffer_print(out, "  %s", program->commands[i].name);
      wrap(out, program->commands[i].summary, 14, (int)(out->length - start));
    }
  }
  const char *group = "", *printed = "";
  for (size_t i = 0; i < program->option_count; i++) {
    group = program->options[i].group ? program->options[i].group : group;
    if (!shows(&program->options[i], command)) {
      continue;
    }
    if (strcmp(group, printed) != 0) {
      livenps_buffer_print(out, "\n%s:\n", group);
      printed = group;
    }
    help_option(&program->options[i], out);
  }
  livenps_buffer_print(out, "\nExamples:\n");
  if (command >= 0) {
    help_examples(&program->commands[command], out);
  } else {
    for (size_t i = 0; i < program->command_count; i++) {
      size_t length;
      const char *what = program->commands[i].examples, *line = next_line(what, &length);
      next_line(line, &length);
      livenps_buffer_print(out, "  %.*s\n", (int)length, line);
    }
  }
  livenps_buffer_print(out,
                       "\nAll settings: %s --help-settings\n"
                       "Their manual, with what each choice costs: config/livenps.yaml in the sources,\n"
                       "share/livenps/livenps.yaml where it is installed.\n",
                       program->name);
}

/* ---- the manual page ---- */

/* Text for roff: hyphens that can be copied, no line that begins like a request. */
static void put_roff(livenps_buffer *out, const char *text, size_t length) {
  bool line_start = true;
  for (size_t i = 0; i < length; i++) {
    char c = text[i];
    if (line_start && (c == '.' || c == '\'')) {
      livenps_buffer_print(out, "\\&");
    }
    line_start = c == '\n';
    if (c == '-') {
      livenps_buffer_print(out, "\\-");
    } else if (c == '\\') {
      livenps_buffer_print(out, "\\e");
    } else {
      livenps_buffer_add(out, &c, 1);
    }
  }
}

static void man_text(livenps_buffer *out, const char *text) {
  while (*text) {
    const char *end = strstr(text, "\n\n");
    size_t length = end ? (size_t)(end - text) : strlen(text);
    put_roff(out, text, length);
    text += length;
    livenps_buffer_print(out, *text ? "\n.PP\n" : "\n");
    text += *text ? 2 : 0;
  }
}

static void man_options(const livenps_program *program, int command, livenps_buffer *out) {
  for (size_t i = 0; i < program->option_count; i++) {
    const livenps_option *option = &program->options[i];
    /* What all commands have is told once, in a section of its own. */
    if (!shows(option, command) || (command >= 0 && option->commands == LIVENPS_EVERY_COMMAND)) {
      continue;
    }
    livenps_buffer_print(out, ".TP\n\\fB\\-\\-");
    put_roff(out, option->name, strlen(option->name));
    livenps_buffer_print(out, "\\fR");
    if (option->argument) {
      livenps_buffer_print(out, " \\fI");
      put_roff(out, option->argument, strlen(option->argument));
      livenps_buffer_print(out, "\\fR");
    }
    livenps_buffer_print(out, "\n");
    man_text(out, option->help);
  }
}

static void man_synopsis(const livenps_program *program, livenps_buffer *out) {
  for (size_t i = 0; i < program->command_count; i++) {
    bool optional = program->has_default && i == 0;
    livenps_buffer_print(out, "%s.B ", i ? ".br\n" : "");
    put_roff(out, program->name, strlen(program->name));
    livenps_buffer_print(out, optional ? "\n[\\fB%s\\fR] " : "\n\\fB%s\\fR ", program->commands[i].name);
    put_roff(out, program->commands[i].synopsis, strlen(program->commands[i].synopsis));
    livenps_buffer_print(out, "\n");
  }
}

static void man_settings(livenps_buffer *out) {
  size_t count;
  const livenps_setting *settings = livenps_settings_table(&count);
  for (size_t i = 0; i < count; i++) {
    livenps_buffer allowed = {0};
    if (settings[i].group) {
      livenps_buffer_print(out, ".SS ");
      put_roff(out, settings[i].group, strlen(settings[i].group));
      livenps_buffer_print(out, "\n");
    }
    livenps_buffer_print(out, ".TP\n\\fB%s\\fR", settings[i].path);
    if (settings[i].fallback[0]) {
      livenps_buffer_print(out, " (default ");
      put_roff(out, settings[i].fallback, strlen(settings[i].fallback));
      livenps_buffer_print(out, ")");
    }
    livenps_buffer_print(out, "\n");
    man_text(out, settings[i].help);
    livenps_buffer_print(out, "Allowed: ");
    livenps_settings_allowed(&settings[i], &allowed);
    put_roff(out, allowed.at, allowed.length);
    livenps_buffer_print(out, ".\n");
    livenps_buffer_free(&allowed);
  }
}

void livenps_command_man(const livenps_program *program, livenps_buffer *out) {
  size_t length;
  livenps_buffer_print(out, ".\\\" Made from the tables behind --help (target `man`); do not edit.\n.TH ");
  for (const char *at = program->name; *at; at++) {
    char upper = *at >= 'a' && *at <= 'z' ? (char)(*at - 'a' + 'A') : *at;
    put_roff(out, &upper, 1);
  }
  livenps_buffer_print(out, " 1 \"\" \"livenps %s\" \"livenps\"\n.SH NAME\n", LIVENPS_VERSION);
  put_roff(out, program->name, strlen(program->name));
  livenps_buffer_print(out, " \\- ");
  put_roff(out, program->summary, strlen(program->summary));
  livenps_buffer_print(out, "\n.SH SYNOPSIS\n");
  man_synopsis(program, out);
  livenps_buffer_print(out, ".SH DESCRIPTION\n");
  man_text(out, program->text);
  livenps_buffer_print(out, ".SH COMMANDS\n");
  for (size_t i = 0; i < program->command_count; i++) {
    livenps_buffer_print(out, ".SS %s\n", program->commands[i].name);
    man_text(out, program->commands[i].text);
    man_options(program, (int)i, out);
  }
  livenps_buffer_print(out, ".SH OPTIONS OF EVERY COMMAND\n");
  man_options(program, -1, out);
  livenps_buffer_print(out, ".SH EXAMPLES\n");
  for (size_t i = 0; i < program->command_count; i++) {
    for (const char *at = program->commands[i].examples; *at;) {
      const char *next = next_line(at, &length);
      livenps_buffer_print(out, ".PP\n");
      put_roff(out, at, length);
      at = next;
      next = next_line(at, &length);
      livenps_buffer_print(out, ":\n.PP\n.RS 4\n.nf\n");
      put_roff(out, at, length);
      livenps_buffer_print(out, "\n.fi\n.RE\n");
      at = next;
    }
  }
  livenps_buffer_print(out, ".SH SETTINGS\n");
  man_text(
      out,
      "In the file named by --config, YAML, the parts of a name stand indented below each other. In the "
      "environment a setting is LIVENPS_ and its name in capitals with underscores. With --set it is "
      "NAME=VALUE. Later ones win: defaults, file, environment, command line. Lists and maps in the environment "
      "and with --set are A,B,C and NAME=VALUE,NAME=VALUE. Durations are written 100ms, 5s, 2m, 1h, 7d; sizes "
      "64kb, 256mb.");
  man_settings(out);
  livenps_buffer_print(out, ".SH ENVIRONMENT\n");
  man_text(
      out,
      "LIVENPS_CONFIG names the configuration file when --config is not given. LIVENPS_REDIS_PASSWORD is "
      "Redis's password, LIVENPS_BOARD_TOKEN the board's token, LIVENPS_SERVE_TOKEN that of livenps-producer serve, LIVENPS_METRICS_TOKEN that of /metrics. LIVENPS_KAFKA_SASL_PASSWORD is kafka.sasl.password, and so on for every setting. An unknown name "
      "that begins with LIVENPS_ is an error, for it is most likely a mistake.");
  livenps_buffer_print(out, ".SH SIGNALS\n");
  man_text(out, program->signals);
  livenps_buffer_print(out, ".SH EXIT STATUS\n");
  man_text(
      out,
      "0: done, or stopped by a signal with nothing left undone. 1: output could not be written, or as the command says. 2: wrong option or setting. 3: something needed at the "
      "start is missing or refuses. 4: stopped while Kafka or Redis was away; nothing is lost. 5: stored data is not "
      "what livenps writes. 6: refused by what is stored or by a broker. 7: out of memory.");
  livenps_buffer_print(
      out, ".SH FILES\n.TP\nshare/livenps/livenps.yaml\nEvery setting, commented: what it costs, and what to "
           "choose if unsure.\n.SH SEE ALSO\n");
  livenps_buffer_print(out, "\\fB%s\\fR(1), \\fBredis\\-cli\\fR(1)\n",
                       strcmp(program->name, "livenps-consumer") == 0 ? "livenps\\-producer"
                                                                      : "livenps\\-consumer");
}

/* ---- main ---- */

/* The answers that need no settings. */
static bool answered(const livenps_command_line *line, const char *libraries) {
  livenps_buffer out = {0};
  bool answers = true;
  if (livenps_command_has(line, "help")) {
    livenps_command_help(line->program, line->command, &out);
  } else if (livenps_command_has(line, "version")) {
    livenps_version_print(line->program->name, libraries, &out);
  } else if (livenps_command_has(line, "help-settings")) {
    livenps_buffer_print(
        &out, "Settings stand in the YAML file named by --config, each name's parts indented below\n"
              "each other; in the environment as LIVENPS_ and the name in capitals with\n"
              "underscores (LIVENPS_COMMIT_INTERVAL=50ms); or in --set NAME=VALUE. The latter win\n"
              "over the former. Lists and maps there: A,B,C and NAME=VALUE,NAME=VALUE.\n\n");
    livenps_settings_help(&out);
  } else {
    answers = false;
  }
  if (out.length > 0) {
    fwrite(out.at, 1, out.length, stdout);
  }
  livenps_buffer_free(&out);
  return answers;
}

static int dump_settings(const livenps_settings *settings) {
  livenps_buffer out = {0};
  livenps_settings_print(settings, &out);
  fwrite(out.at, 1, out.length, stdout);
  livenps_buffer_free(&out);
  return 0;
}

static int check_settings(const livenps_program *program, const livenps_settings *settings,
                          livenps_error *error) {
  if (livenps_command_check(settings, strcmp(program->name, "livenps-producer") == 0, error) != 0) {
    return -1;
  }
  printf("the configuration is right\n");
  if (strcmp(livenps_kafka_servers(settings), "(not set)") == 0) {
    printf("note: kafka.bootstrap.servers is not set; it is needed to reach Kafka\n");
  }
  if (settings->topics.count == 0) {
    printf("note: topics is not set; livenps-consumer run needs it\n");
  }
  return 0;
}

int livenps_command_main(const livenps_program *program, int argc, char **argv, const char *libraries,
                         livenps_dispatch dispatch) {
  livenps_command_line line = {0};
  livenps_settings settings = {0};
  livenps_error error = {0};
  int code = -1;
  if (livenps_command_parse(program, argc, argv, &line, &error) != 0) {
    goto cleanup;
  }
  if (answered(&line, libraries)) {
    code = 0;
    goto cleanup;
  }
  if (livenps_command_settings(&line, environ, &settings, &error) != 0) {
    goto cleanup;
  }
  if (livenps_command_has(&line, "dump-config")) {
    code = dump_settings(&settings);
  } else if (livenps_command_has(&line, "check-config")) {
    code = check_settings(program, &settings, &error);
  } else {
    livenps_stop_on_signals();
    code = dispatch(&line, &settings, &error);
  }
cleanup:
  if (error.code != LIVENPS_OK) {
    fprintf(stderr, "%s: %s\n", program->name, error.text);
    code = (int)error.code;
  }
  livenps_settings_free(&settings);
  livenps_command_free(&line);
  /* What was to be printed and could not be is a failure (a full disk), but not that the reader has gone (head). */
  errno = 0;
  if (fflush(stdout) != 0 && errno != EPIPE && code == 0) {
    fprintf(stderr, "%s: output cannot be written: %s\n", program->name, strerror(errno));
    code = 1;
  }
  return code;
}
