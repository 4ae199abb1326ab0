/* Revocation lists: the input is at once the file of CAs and the file of lists. */
#include "auth/crl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* a moment at which the lists of the corpus are in force */
    const int64_t now_ns = INT64_C(1800000000) * 1000000000;
    struct kms_crl *crl = NULL;
    struct kms_error err = {0};
    const struct kms_slice text = kms_slice_of(data, size);
    if (kms_crl_parse("ca.crl", text, text, now_ns, &crl, &err) != KMS_OK) {
        KMS_ASSERT(crl == NULL && err.public_text[0] != '\0');
        return 0;
    }
    const struct kms_certificate nobody = {0};
    int64_t until_ns = 0;
    KMS_ASSERT(kms_crl_check(crl, &nobody, now_ns, &until_ns) == KMS_CRL_NO_LIST);
    kms_crl_free(crl);
    return 0;
}
