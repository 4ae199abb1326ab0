/*
 * Purpose:   the one status type of the project and the error record that travels beside it.
 * Owns:      nothing.
 * Threads:   all functions are pure or touch only their arguments.
 * Never:     decides what a caller may see by itself: the public text comes from the table or was set as
 *            public.
 */
#ifndef KMS_CORE_STATUS_H
#define KMS_CORE_STATUS_H

#include <stdbool.h>
#include <stdint.h>

/*
 * name, gRPC status code (https://grpc.github.io/grpc/core/md_doc_statuscodes.html), retryable by the caller
 * without a change of its own, public text.
 *
 * The public text is what a remote caller reads when no public message was set with kms_fail_public().
 * Every failure to open a wrapped data key is BLOB_REFUSED, whatever its cause (one and the same answer).
 */
#define KMS_STATUS_TABLE(X)                                                                                  \
    X(OK, 0, false, "ok")                                                                                    \
    X(CANCELLED, 1, false, "the call was cancelled")                                                         \
    X(INVALID_ARGUMENT, 3, false, "the request is not valid")                                                \
    X(BLOB_REFUSED, 3, false,                                                                                \
      "the wrapped data key cannot be opened: it is damaged, or was not made for this tenant, customer, "    \
      "purpose and context")                                                                                 \
    X(DEADLINE_EXCEEDED, 4, true, "the deadline passed before the call was done")                            \
    X(NOT_FOUND, 5, false, "no such resource")                                                               \
    X(ALREADY_EXISTS, 6, false, "the resource exists already")                                               \
    X(PERMISSION_DENIED, 7, false, "this identity may not do that; ask an administrator of the key service") \
    X(RESOURCE_EXHAUSTED, 8, true, "a limit is reached; slow down and try again")                            \
    X(TOO_LARGE, 8, false, "the request is larger than the service accepts")                                 \
    X(NO_MEMORY, 8, true, "the service is short of memory; try again later")                                 \
    X(FAILED_PRECONDITION, 9, false, "the resource is in a state that does not allow this")                  \
    X(ABORTED, 10, true, "the resource was changed by somebody else meanwhile; read it again and retry")     \
    X(OUT_OF_RANGE, 11, false, "a value is out of range")                                                    \
    X(UNIMPLEMENTED, 12, false, "the service does not offer this method")                                    \
    X(INTERNAL, 13, false, "internal error; the operator's log has the details under this request id")       \
    X(UNAVAILABLE, 14, true, "the service is not available at the moment; try again")                        \
    X(HSM_UNAVAILABLE, 14, true, "the HSM is not available at the moment; try again")                        \
    X(HSM_STALE, 14, true, "the HSM connection was renewed meanwhile; try again")                            \
    X(HSM_REFUSED, 13, false, "the HSM refused the operation; the operator's log has the details")           \
    X(HSM_FULL, 8, false, "the HSM has no room for another object; an operator must make room")              \
    X(STORE_BUSY, 14, true, "the database is busy; try again")                                               \
    X(STORE_UNAVAILABLE, 14, true, "the database cannot be written at the moment; try again later")          \
    X(STORE_FULL, 14, true, "the disk of the database is full; an operator must make room; try again later") \
    X(STORE_CORRUPT, 15, false, "the database is damaged; an operator must restore it")                      \
    X(STORE_NEWER, 9, false, "the database was written by a newer version of the service")                   \
    X(TAMPERED, 15, false,                                                                                   \
      "a stored record failed its integrity check and is refused; an operator was told")                     \
    X(AUDIT_UNAVAILABLE, 14, true, "the audit log cannot be written, so nothing is served; try again later") \
    X(CONFIG_INVALID, 9, false, "the configuration is not valid")                                            \
    X(IO, 13, false, "an input or output operation failed")                                                  \
    X(UNAUTHENTICATED, 16, false, "the client certificate is missing, revoked or names nobody")

enum kms_status {
#define KMS_STATUS_ENUM(name, grpc, retryable, text) KMS_##name,
    KMS_STATUS_TABLE(KMS_STATUS_ENUM)
#undef KMS_STATUS_ENUM
        KMS_STATUS_COUNT
};

#define KMS_MUST_USE          __attribute__((warn_unused_result))
#define KMS_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/** Symbolic name, as in the table ("NOT_FOUND"); never NULL, "UNKNOWN" for a value out of range. */
const char *kms_status_name(enum kms_status status);
/** gRPC status code of the table; 2 (UNKNOWN) for a value out of range. */
int kms_status_grpc_code(enum kms_status status);
/** True when the same request may succeed later without a change by the caller. */
bool kms_status_retryable(enum kms_status status);
/** Text that may be shown to anybody; never NULL. */
const char *kms_status_public_text(enum kms_status status);

/*
 * What went wrong, beside the status. `public_text` may be shown to the remote caller and says what to do;
 * `cause` is for the operator's log only (CKR values, SQL states, file names). Both are NUL-terminated UTF-8 without control
 * characters, whatever was formatted into them.
 * Zero-initialised = no error. Functions that take a `struct kms_error *` accept NULL.
 */
struct kms_error {
    enum kms_status status;
    char public_text[320];
    char cause[320];
};

/**
 * Record a failure whose text the remote caller may read. Returns `status`, so that a function can end with
 * `return kms_fail_public(err, KMS_NOT_FOUND, "tenant '%s' does not exist", id);`.
 * Overwrites what an inner layer has recorded as public text, keeps its cause.
 */
enum kms_status kms_fail_public(struct kms_error *err, enum kms_status status, const char *fmt, ...)
    KMS_PRINTF(3, 4);
/**
 * Record a failure whose text only the operator may read; the caller sees the table's public text (or a
 * public text set before). Returns `status`. Overwrites an older cause.
 */
enum kms_status kms_fail(struct kms_error *err, enum kms_status status, const char *fmt, ...)
    KMS_PRINTF(3, 4);
/** The text for the remote caller: the public text that was set, else the table's. `err` may be NULL. */
const char *kms_error_public(const struct kms_error *err, enum kms_status status);
/** The text for the operator: cause, else public text, else the table's. `err` may be NULL. */
const char *kms_error_cause(const struct kms_error *err, enum kms_status status);

/** Return early with a failed status. Hides nothing: the status is returned as it came. */
#define KMS_TRY(expression)                                                                                  \
    do {                                                                                                     \
        const enum kms_status kms_try_status_ = (expression);                                                \
        if (kms_try_status_ != KMS_OK)                                                                       \
            return kms_try_status_;                                                                          \
    } while (0)

/**
 * For programming errors only, in release builds too: prints the place and aborts. Input and environment
 * errors are handled, never asserted.
 */
#define KMS_ASSERT(condition)                                                                                \
    do {                                                                                                     \
        if (__builtin_expect(!(condition), 0))                                                               \
            kms_assert_failed(#condition, __FILE__, __LINE__);                                               \
    } while (0)
_Noreturn void kms_assert_failed(const char *condition, const char *file, int line);

#endif
