#include "core/status.h"

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
 * Format into a member of the error by way of a copy, because an argument may be that member itself. A text that
 * is too long is cut between characters, so that it stays UTF-8.
 */
static void KMS_PRINTF(3, 0) set_text(char *out, size_t size, const char *fmt, va_list args)
{
    char text[TEXT_SIZE];
    KMS_ASSERT(size == sizeof text);
    const int len = vsnprintf(text, size, fmt, args);
    if (len < 0 || (size_t)len >= size) {
        size_t end = size - 1;
        while (end > 0 && ((unsigned char)text[end - 1] & 0xc0) == 0x80)
            end--;
        if (end > 0 && (unsigned char)text[end - 1] >= 0xc0)
            end--;
        text[len < 0 ? 0 : end] = '\0';
    }
    memcpy(out, text, strlen(text) + 1);
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
