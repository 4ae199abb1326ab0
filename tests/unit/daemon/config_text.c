#include "config_text.h"

#include <stdio.h>

/* Line by line, so that a test can exchange one; NULL ends it. */
static const char *const base_lines[] = {
    /*  1 */ "listen: ['127.0.0.1:0', 'unix:kms.sock']",
    /*  2 */ "tls:",
    /*  3 */ "  certificate: pki/server.pem",
    /*  4 */ "  private_key: /abs/server.key",
    /*  5 */ "  client_ca: pki/ca.pem",
    /*  6 */ "policy: policy.yaml",
    /*  7 */ "hsm:",
    /*  8 */ "  module: libsofthsm2.so",
    /*  9 */ "  token: 'pkcs11:token=kms'",
    /* 10 */ "  profile: profiles/softhsm2.yaml",
    /* 11 */ "  pin_file: user.pin",
    /* 12 */ "  sessions: 0",
    /* 13 */ "store: {path: kms.db}",
    /* 14 */ "audit: {directory: audit}",
    /* 15 */ "cache: {}",
    /* 16 */ "limits: {}",
    /* 17 */ "log: {level: info}",
    NULL,
};

const char *text_with(unsigned line, const char *replacement)
{
    static char text[16384];
    size_t used = 0;
    for (unsigned i = 0; base_lines[i] != NULL; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s\n",
                                 i + 1 == line ? replacement : base_lines[i]);
    assert_true(used < sizeof text);
    return text;
}

/* Whatever comes of it. */
static enum kms_status parse(unsigned line, const char *replacement, struct kms_config *config,
                             struct kms_error *err)
{
    return kms_config_parse("/etc/kms/kmsd.yaml", kms_slice_str(text_with(line, replacement)), config, err);
}

void parse_good(unsigned line, const char *replacement, struct kms_config *config)
{
    struct kms_error err = {0};
    if (parse(line, replacement, config, &err) != KMS_OK)
        fail_msg("%s", err.public_text);
}

void expect_refusal_at(unsigned line, const char *replacement, unsigned at, const char *what)
{
    struct kms_config config = {0};
    struct kms_error err = {0};
    char start[64];
    (void)snprintf(start, sizeof start, "/etc/kms/kmsd.yaml:%u: ", at);
    if (parse(line, replacement, &config, &err) != KMS_CONFIG_INVALID)
        fail_msg("'%s' was accepted or failed otherwise", replacement);
    assert_null(config.document);
    if (strncmp(err.public_text, start, strlen(start)) != 0 || strstr(err.public_text, what) == NULL)
        fail_msg("text is '%s', not '%s...%s'", err.public_text, start, what);
}

void expect_refusal(unsigned line, const char *replacement, const char *what)
{
    expect_refusal_at(line, replacement, line, what);
}
