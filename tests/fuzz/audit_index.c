/* Goal: whatever stands in an index file, it is refused or taken; what is taken names parts within its segment and packs to itself. */
#include "audit/index.h"
#include "core/cleanup.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void free_index(struct kms_audit_index **index)
{
    kms_audit_index_free(*index);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    KMS_CLEANUP(free_index) struct kms_audit_index *index = NULL;
    if (kms_audit_index_parse(kms_slice_of(data, size), &index) != KMS_OK)
        return 0;
    static const struct kms_audit_filter everything = {0};
    static struct kms_audit_matcher matcher;
    kms_audit_matcher_init(&matcher, &everything);
    size_t cursor = 0;
    struct kms_audit_range range;
    for (uint64_t before = 0; kms_audit_index_next(index, &matcher, &cursor, &range); before = range.end)
        KMS_ASSERT(range.begin >= before && range.end > range.begin);
    KMS_CLEANUP(kms_buf_clear) struct kms_buf packed = {0};
    KMS_ASSERT(kms_audit_index_pack(index, &packed) == KMS_OK);
    KMS_ASSERT(packed.len == size && memcmp(packed.data, data, size) == 0);
    return 0;
}
