/* Pages from the database: what decodes encodes to the same bytes again, so that a MAC covers one meaning. */
#include "keys/page.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct kms_page page;
    static uint8_t again[KMS_PAGE_BODY_MAX];
    if (kms_page_decode(kms_slice_of(data, size), &page) != KMS_OK)
        return 0;
    KMS_ASSERT(kms_page_encode(&page, again) == size);
    KMS_ASSERT(memcmp(again, data, size) == 0);
    return 0;
}
