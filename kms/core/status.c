#include "core/status.h"

#include "core/bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_SIZE = sizeof(((struct kms_error *)NULL)->public_text) };

struct status_row {
    const char *name;
    int grpc_code;
    bool retryable;
    const char *public_text;
};

static const struct status_row status_rows[] = {
#define KMS_STATUS_ROW(name, grpc, retryable, text) [KMS_##name] = {#name, grpc, retryable, text},
    KMS_STATUS_TABLE(KMS_STATUS_ROW)
#undef KMS_STATUS_ROW
};

static const struct status_row status_unknown = {"UNKNOWN", 2, false, "unknown error"};

/* One place decides what an out-of-range value maps to. */
static const struct status_row *row_of(enum kms_status status)
{
    return (unsigned)status < (unsigned)KMS_STATUS_COUNT ? &status_rows[status] : &status_unknown;
}

const char *kms_status_name(enum kms_status status)
{
    return row_of(status)->name;
}

int kms_status_grpc_code(enum kms_status status)
{
    return row_of(status)->grpc_code;
}

bool kms_status_retryable(enum kms_status status)
{
    return row_of(status)->retryable;
}

const char *kms_status_public_text(enum kms_status status)
{
    return row_of(status)->public_text;
}

/*
 * Format into a member of the error, by way of a copy because an argument may be that member itself. Whatever went
 * in (names that a "%.64s" has cut inside a character, texts of libraries with line ends), UTF-8 without control
 * characters comes out.
 */
static void KMS_PRINTF(3, 0) set_text(char *out, size_t size, const char *fmt, va_list args)
{
    char text[TEXT_SIZE];
    KMS_ASSERT(size == sizeof text);
    if (vsnprintf(text, size, fmt, args) < 0)
        text[0] = '\0';
    size_t left = strlen(text);
    for (const char *next = text; left > 0;) {
        const size_t len = kms_utf8_printable_prefix(next, left);
        const size_t used = len > 0 ? len : 1;
        if (len > 0)
            memcpy(out, next, len);
        else
            *out = (unsigned char)*next < 0x80 ? ' ' : '?';
        out += used;
        next += used;
        left -= used;
    }
    *out = '\0';
}

enum kms_status kms_fail_public(struct kms_error *err, enum kms_status status, const char *fmt, ...)
{
    if (err != NULL) {
        va_list args;
        va_start(args, fmt);
        err->status = status;
        set_text(err->public_text, sizeof err->public_text, fmt, args);
        va_end(args);
    }
    return status;
}

enum kms_status kms_fail(struct kms_error *err, enum kms_status status, const char *fmt, ...)
{
    if (err != NULL) {
        va_list args;
        va_start(args, fmt);
        err->status = status;
        set_text(err->cause, sizeof err->cause, fmt, args);
        va_end(args);
    }
    return status;
}

const char *kms_error_public(const struct kms_error *err, enum kms_status status)
{
    if (err != NULL && err->public_text[0] != '\0')
        return err->public_text;
    return kms_status_public_text(status);
}

const char *kms_error_cause(const struct kms_error *err, enum kms_status status)
{
    if (err != NULL && err->cause[0] != '\0')
        return err->cause;
    return kms_error_public(err, status);
}

_Noreturn void kms_assert_failed(const char *condition, const char *file, int line)
{
    (void)fprintf(stderr, "kms: programming error: %s is false at %s:%d\n", condition, file, line);
    abort();
}
