/* What the tests of kmsd.yaml share: a good one, of which a test exchanges a line; config_text.c shows the lines. */
#ifndef TESTS_DAEMON_CONFIG_TEXT_H
#define TESTS_DAEMON_CONFIG_TEXT_H

#include "daemon/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

/* The good file with one line (from 1) replaced; line 0: nothing. Valid until the next call. */
const char *text_with(unsigned line, const char *replacement);
/* With that line in its place /etc/kms/kmsd.yaml must be accepted. */
void parse_good(unsigned line, const char *replacement, struct kms_config *config);
/* With that line in its place the file must be refused at line `at`, with this text. */
void expect_refusal_at(unsigned line, const char *replacement, unsigned at, const char *what);
/* The same at the line itself. */
void expect_refusal(unsigned line, const char *replacement, const char *what);

#endif
