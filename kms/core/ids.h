/*
 * Purpose:   random 16-byte identifiers (RFC 4122 version 4 UUIDs) and system randomness for them.
 * Owns:      nothing.
 * Threads:   safe.
 * Never:     makes keys: key material comes from the HSM.
 */
#ifndef KMS_CORE_IDS_H
#define KMS_CORE_IDS_H

#include "core/bytes.h"

enum { KMS_UUID_SIZE = 16, KMS_UUID_TEXT_SIZE = 37 };

struct kms_uuid {
    uint8_t bytes[KMS_UUID_SIZE];
};

/** Fill with bytes of getrandom(2); aborts if the kernel cannot give any (it always can after boot). */
void kms_system_random(void *out, size_t len);
/** A new random version-4 UUID. */
struct kms_uuid kms_uuid_random(void);
/** "xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx", NUL-terminated. Returns `out`. */
const char *kms_uuid_format(const struct kms_uuid *uuid, char out[KMS_UUID_TEXT_SIZE]);
/** Parse the form above (either case). INVALID_ARGUMENT leaves `*ret_uuid` unchanged. */
enum kms_status kms_uuid_parse(const char *text, struct kms_uuid *ret_uuid) KMS_MUST_USE;

static inline bool kms_uuid_equal(const struct kms_uuid *a, const struct kms_uuid *b)
{
    return memcmp(a->bytes, b->bytes, KMS_UUID_SIZE) == 0;
}

static inline bool kms_uuid_is_zero(const struct kms_uuid *uuid)
{
    static const struct kms_uuid zero;
    return kms_uuid_equal(uuid, &zero);
}

#endif
