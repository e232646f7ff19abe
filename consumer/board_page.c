#include "board_page.h"

/* The assembler takes the files in as they are, so that no tool has to turn them into C first. */
#define LABEL(name) ".hidden " name "\n.global " name "\n" name ":\n"
#define TAKE_IN(name, file)                                                                                  \
  __asm__(".pushsection .rodata\n" LABEL(name) ".incbin \"" LIVENPS_PAGE_DIR "/" file                        \
                                               "\"\n" LABEL(name "_end") ".byte 0\n.popsection\n")

TAKE_IN("livenps_page_html", "index.html");
TAKE_IN("livenps_page_css", "board.css");
TAKE_IN("livenps_page_js", "board.js");
TAKE_IN("livenps_page_icon", "icon.svg");
extern const char livenps_page_html[], livenps_page_html_end[], livenps_page_css[], livenps_page_css_end[],
    livenps_page_js[], livenps_page_js_end[], livenps_page_icon[], livenps_page_icon_end[];

const livenps_page *livenps_page_find(const char *path) {
  static livenps_page pages[] = {
      {"/", "text/html; charset=utf-8", {livenps_page_html, 0}},
      {"/board.css", "text/css; charset=utf-8", {livenps_page_css, 0}},
      {"/board.js", "text/javascript; charset=utf-8", {livenps_page_js, 0}},
      {"/icon.svg", "image/svg+xml", {livenps_page_icon, 0}},
  };
  static const char *const ends[] = {livenps_page_html_end, livenps_page_css_end, livenps_page_js_end,
                                     livenps_page_icon_end};
  for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
    if (strcmp(path, pages[i].path) == 0) {
      /* Not a constant of C: only the linker knows how far the two are apart. */
      pages[i].content.length = (size_t)(ends[i] - pages[i].content.at);
      return &pages[i];
    }
  }
  return NULL;
}
