/* The manual pages are made from the tables behind --help. `test_man --write` (target `man`) makes them anew; the test
 * says when they are stale. */
#include "consumer/command_line.h"
#include "producer/command_line.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct {
  const livenps_program *program;
  const char *path;
} pages[] = {
    {&livenps_consumer_program, LIVENPS_SOURCE_DIR "/docs/man/livenps-consumer.1"},
    {&livenps_producer_program, LIVENPS_SOURCE_DIR "/docs/man/livenps-producer.1"},
};

static void test_pages_are_fresh(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
    static char there[262144];
    livenps_buffer page = {0};
    FILE *file = fopen(pages[i].path, "r");
    if (!file) {
      fail_msg("%s is missing: cmake --build --preset release --target man", pages[i].path);
    }
    size_t length = fread(there, 1, sizeof there, file);
    fclose(file);
    livenps_command_man(pages[i].program, &page);
    if (length != page.length || memcmp(there, page.at, length) != 0) {
      fail_msg("%s is stale: cmake --build --preset release --target man", pages[i].path);
    }
    livenps_buffer_free(&page);
  }
}

static int write_pages(void) {
  for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
    livenps_buffer page = {0};
    FILE *file = fopen(pages[i].path, "w");
    livenps_command_man(pages[i].program, &page);
    if (!file || fwrite(page.at, 1, page.length, file) != page.length || fclose(file) != 0) {
      perror(pages[i].path);
      return 1;
    }
    livenps_buffer_free(&page);
  }
  return 0;
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_pages_are_fresh)};
  if (argc == 2 && strcmp(argv[1], "--write") == 0) {
    return write_pages();
  }
  return cmocka_run_group_tests(tests, NULL, NULL);
}
