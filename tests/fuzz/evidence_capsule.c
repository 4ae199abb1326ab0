/*
 * Goal: no bytes make the parser of capsules crash or take what it would write otherwise. The input is a line, a transport capsule's file
 * and a file's name; with a signature that nobody checks, the fuzzer would never come past it.
 */
#include "evidence/capsule.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What was taken is written as the same bytes. */
static void check_round_trip(const struct kms_capsule *capsule, struct kms_slice line)
{
    struct kms_buf again = {0};
    KMS_ASSERT(kms_capsule_encode(capsule, &again, NULL) == KMS_OK);
    KMS_ASSERT(again.len == line.len && memcmp(again.data, line.data, line.len) == 0);
    kms_buf_clear(&again);
}

/* A name that is taken is the name of what it says. */
static void check_name(struct kms_slice bytes)
{
    char name[KMS_CAPSULE_NAME_SIZE] = "";
    char again[KMS_CAPSULE_NAME_SIZE];
    struct kms_uuid tenant;
    uint64_t epoch = 0;
    memcpy(name, bytes.data, bytes.len < sizeof name ? bytes.len : sizeof name - 1);
    if (kms_capsule_name_parse(name, &tenant, &epoch))
        KMS_ASSERT(strcmp(kms_capsule_name(&tenant, epoch, again), name) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char no_key[] = "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n";
    struct kms_capsule capsule = {0};
    if (size == 0)
        return 0;
    const struct kms_slice bytes = kms_slice_of(data, size);
    check_name(bytes);
    KMS_ASSERT(kms_capsule_open(bytes, kms_slice_str(no_key), &capsule, NULL) != KMS_OK);
    if (kms_capsule_open_transport(bytes, &capsule, NULL) == KMS_OK) {
        check_round_trip(&capsule, kms_slice_of(data, size - 1));
        kms_capsule_clear(&capsule);
    }
    if (kms_capsule_parse(bytes, &capsule, NULL) == KMS_OK) {
        check_round_trip(&capsule, bytes);
        kms_capsule_clear(&capsule);
    }
    return 0;
}
