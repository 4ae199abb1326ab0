/* Certificates of destruction and proofs: the first line of the input is the certificate, the rest is a proof. */
#include "evidence/certificate.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size > 0 ? memchr(data, '\n', size) : NULL;
    const size_t len = end != NULL ? (size_t)(end - data) : size;
    struct kms_certificate *certificate = NULL;
    struct kms_error err = {0};
    if (kms_certificate_parse(kms_slice_of(data, len), &certificate, &err) != KMS_OK)
        return 0;
    char *page = NULL;
    size_t page_size = 0;
    FILE *file = open_memstream(&page, &page_size);
    KMS_ASSERT(file != NULL);
    kms_certificate_print(certificate, file);
    (void)fclose(file);
    KMS_ASSERT(memchr(page, '\x1b', page_size) == NULL);
    free(page);
    struct kms_proof_facts facts = {0};
    const struct kms_slice proof = end != NULL ? kms_slice_of(end + 1, size - len - 1) : kms_slice_of("", 0);
    if (kms_certificate_prove(certificate, proof, &facts, &err) == KMS_OK)
        KMS_ASSERT(facts.entries > 0);
    kms_certificate_free(certificate);
    return 0;
}
