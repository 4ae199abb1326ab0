/* A client certificate, as PEM or as DER that the harness puts into PEM: refused, or a name of the three kinds. */
#include "auth/identity.h"

#include <stdlib.h>

#include <openssl/evp.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A name that comes out must be one that a policy could bind. */
static void parse(struct kms_slice pem)
{
    struct kms_certificate certificate;
    struct kms_error err = {0};
    if (kms_identity_parse(pem, &certificate, &err) != KMS_OK) {
        KMS_ASSERT(err.cause[0] != '\0' && err.public_text[0] == '\0');
        return;
    }
    const char *name = certificate.identity.name;
    const size_t len = strlen(name);
    KMS_ASSERT(kms_identity_is_spiffe(name, len) || kms_identity_is_dns(name, len) ||
               kms_identity_is_cn(name, len));
    KMS_ASSERT(strlen(certificate.identity.serial_hex) % 2 == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char begin[] = "-----BEGIN CERTIFICATE-----\n";
    static const char end[] = "\n-----END CERTIFICATE-----\n";
    parse(kms_slice_of(data, size));
    if (size > 8192)
        return 0;
    char *pem = malloc(sizeof begin + sizeof end + size * 2 + 8);
    KMS_ASSERT(pem != NULL);
    memcpy(pem, begin, sizeof begin - 1);
    size_t used = sizeof begin - 1;
    for (size_t i = 0; i < size; i += 48) { /* lines of 64 characters, as PEM wants them */
        const int part = (int)(size - i < 48 ? size - i : 48);
        used += (size_t)EVP_EncodeBlock((unsigned char *)pem + used, data + i, part);
        pem[used++] = '\n';
    }
    memcpy(pem + used - (used > sizeof begin ? 1 : 0), end, sizeof end);
    parse(kms_slice_str(pem));
    free(pem);
    return 0;
}
