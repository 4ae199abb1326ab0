#include "core/ids.h"

#include <errno.h>
#include <sys/random.h>

void kms_system_random(void *out, size_t len)
{
    uint8_t *next = out;
    while (len > 0) {
        const ssize_t got = getrandom(next, len, 0);
        KMS_ASSERT(got > 0 || errno == EINTR);
        if (got > 0) {
            next += got;
            len -= (size_t)got;
        }
    }
}

struct kms_uuid kms_uuid_random(void)
{
    struct kms_uuid uuid;
    kms_system_random(uuid.bytes, sizeof uuid.bytes);
    uuid.bytes[6] = (uint8_t)((uuid.bytes[6] & 0x0f) | 0x40);
    uuid.bytes[8] = (uint8_t)((uuid.bytes[8] & 0x3f) | 0x80);
    return uuid;
}

/* Where the five groups of the text form begin in the bytes, and how long they are. */
static const struct {
    uint8_t start;
    uint8_t len;
} uuid_groups[] = {{0, 4}, {4, 2}, {6, 2}, {8, 2}, {10, 6}};

const char *kms_uuid_format(const struct kms_uuid *uuid, char out[KMS_UUID_TEXT_SIZE])
{
    char *next = out;
    for (size_t i = 0; i < sizeof uuid_groups / sizeof uuid_groups[0]; i++) {
        if (i > 0)
            *next++ = '-';
        kms_hex_encode(uuid->bytes + uuid_groups[i].start, uuid_groups[i].len, next);
        next += (size_t)2 * uuid_groups[i].len;
    }
    return out;
}

enum kms_status kms_uuid_parse(const char *text, struct kms_uuid *ret_uuid)
{
    if (strlen(text) != KMS_UUID_TEXT_SIZE - 1)
        return KMS_INVALID_ARGUMENT;
    struct kms_uuid uuid;
    for (size_t i = 0; i < sizeof uuid_groups / sizeof uuid_groups[0]; i++) {
        if (i > 0 && *text++ != '-')
            return KMS_INVALID_ARGUMENT;
        const size_t digits = (size_t)2 * uuid_groups[i].len;
        KMS_TRY(kms_hex_decode(text, digits, uuid.bytes + uuid_groups[i].start, uuid_groups[i].len));
        text += digits;
    }
    *ret_uuid = uuid;
    return KMS_OK;
}
