/* The file of known places: damaged bytes give nothing, good ones are written as they were read; and any peer has a place. */
#include "core/cleanup.h"
#include "detect/memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Rules with an empty memory. */
static struct kms_detect *make(void)
{
    struct kms_detect_config config;
    struct kms_detect *detect = NULL;
    kms_detect_defaults(&config);
    KMS_ASSERT(kms_detect_new(&config, &detect) == KMS_OK);
    return detect;
}

/* The text of any peer's place can be read back. */
static void check_peer(const uint8_t *data, size_t size)
{
    char peer[256];
    const size_t len = size < sizeof peer ? size : sizeof peer - 1;
    memcpy(peer, data, len);
    peer[len] = '\0';
    char text[KMS_PLACE_TEXT_SIZE];
    struct kms_place again;
    const struct kms_place place = kms_place_of_peer(peer, 24, 64);
    KMS_ASSERT(kms_place_parse(kms_place_format(&place, text), &again) && kms_place_equal(&place, &again));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0)
        check_peer(data, size);
    struct kms_error err = {0};
    if (kms_detect_memory_parse(kms_slice_of(data, size), NULL, &err) != KMS_OK)
        return 0;
    KMS_CLEANUP(kms_buf_clear) struct kms_buf text = {0};
    KMS_CLEANUP(kms_buf_clear) struct kms_buf again = {0};
    struct kms_detect *first = make();
    struct kms_detect *second = make();
    KMS_ASSERT(kms_detect_memory_parse(kms_slice_of(data, size), first, &err) == KMS_OK);
    KMS_ASSERT(kms_detect_memory_text(first, &text) == KMS_OK);
    KMS_ASSERT(kms_detect_memory_parse(kms_buf_slice(&text), second, &err) == KMS_OK);
    KMS_ASSERT(kms_detect_memory_text(second, &again) == KMS_OK);
    KMS_ASSERT(kms_slice_equal(kms_buf_slice(&text), kms_buf_slice(&again)));
    kms_detect_free(second);
    kms_detect_free(first);
    return 0;
}
