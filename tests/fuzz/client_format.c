/* Goal: the header of encrypted content: any bytes are refused or describe content that is written again as it was. */
#include "client/format.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kms_format_header header;
    struct kms_client_error err;
    size_t used = 0;
    if (kms_format_parse(kms_slice_of(data, size), &header, &used, &err) != KMS_CLIENT_OK)
        return 0;
    uint8_t again[KMS_FORMAT_HEADER_MAX];
    const size_t written = kms_format_write(&header, again);
    if (used > size || written != used || memcmp(again, data, used) != 0)
        abort();
    if (header.chunk_size < KMS_FORMAT_CHUNK_MIN || header.chunk_size > KMS_FORMAT_CHUNK_MAX)
        abort();
    return 0;
}
