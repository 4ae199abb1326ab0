/*
 * Purpose:   checks of what callers send: identifiers, texts, sizes. Each failure names the field and what is
 *            allowed.
 * Owns:      nothing.
 * Threads:   pure functions.
 * Never:     looks anything up.
 */
#ifndef KMS_OPS_CHECKS_H
#define KMS_OPS_CHECKS_H

#include "core/call.h"
#include "keys/envelope.h"

#include <protobuf-c/protobuf-c.h>

/** A tenant or purpose id or a label key: 1..63 of a-z 0-9 . _ -, beginning and ending with a letter or
 * digit. */
enum kms_status ops_check_id(struct kms_call *call, const char *field, const char *value) KMS_MUST_USE;
/** As above, but may be empty. */
enum kms_status ops_check_optional_id(struct kms_call *call, const char *field,
                                      const char *value) KMS_MUST_USE;
/** A customer's external id: 1..256 bytes of printable UTF-8. */
enum kms_status ops_check_customer(struct kms_call *call, const char *value) KMS_MUST_USE;
/** Free text: up to `max` bytes of printable UTF-8. */
enum kms_status ops_check_text(struct kms_call *call, const char *field, const char *value,
                               size_t max) KMS_MUST_USE;
/** Seconds of a period: 0..1000 years. */
enum kms_status ops_check_seconds(struct kms_call *call, const char *field, int64_t value) KMS_MUST_USE;
/** A client's request id: empty or a UUID. */
enum kms_status ops_check_request_id(struct kms_call *call, const char *value) KMS_MUST_USE;
/** ABORTED unless the etag is empty or the current revision's. */
enum kms_status ops_check_etag(struct kms_call *call, const char *etag, uint64_t revision) KMS_MUST_USE;
/** Number of items of a page: 0 means the default, at most KMS_OPS_PAGE_MAX. */
enum kms_status ops_check_page_size(struct kms_call *call, uint32_t asked, size_t *ret_size) KMS_MUST_USE;
/** Number of items of a batch: 1..KMS_OPS_BATCH_MAX. */
enum kms_status ops_check_batch(struct kms_call *call, size_t count) KMS_MUST_USE;

/** "" as NULL: a field that was not named. */
static inline const char *ops_named(const char *value)
{
    return value == NULL || value[0] == '\0' ? NULL : value;
}

#endif
