/*
 * Goal: a recovery key as the operators of a disaster-recovery HSM make it: RSA-3072, whose private half unwraps whatever its holder
 * asks for, and never leaves. What kmsd makes as transport key is bound by an unwrap template, and cannot be one.
 *
 * usage: kms-vault-key MODULE PROFILE PIN-FILE     makes it in the token "kms"; prints the public half as PEM
 */
#include "core/secret.h"
#include "hsm/p11_session.h"
#include "hsm/p11_template.h"
#include "hsm/rsa_public.h"
#include "hsm/transport.h"

#include <stdio.h>

enum { EXIT_REFUSED = 1, EXIT_USAGE = 2, MODULUS_SIZE = 3072 / 8 };

/* Make the pair, and print what everybody may know of it. */
static enum kms_status make(void *context, struct kms_hsm_session *session, struct kms_error *err)
{
    (void)context;
    static const CK_ULONG bits = MODULUS_SIZE * 8;
    static const CK_BYTE exponent[] = {1, 0, 1};
    struct kms_p11_template public = {0};
    struct kms_p11_template private = {0};
    CK_OBJECT_HANDLE handles[2];
    CK_MECHANISM mechanism = {CKM_RSA_PKCS_KEY_PAIR_GEN, NULL, 0};
    uint8_t modulus[MODULUS_SIZE];
    CK_ATTRIBUTE numbers = {CKA_MODULUS, modulus, sizeof modulus};
    struct kms_rsa_public key;
    KMS_CLEANUP(kms_buf_clear) struct kms_buf pem = {0};
    kms_p11_template_flag(&public, CKA_TOKEN, true);
    kms_p11_template_add(&public, CKA_MODULUS_BITS, &bits, sizeof bits);
    kms_p11_template_add(&public, CKA_PUBLIC_EXPONENT, exponent, sizeof exponent);
    kms_p11_template_flag(&private, CKA_TOKEN, true);
    kms_p11_template_flag(&private, CKA_PRIVATE, true);
    kms_p11_template_flag(&private, CKA_SENSITIVE, true);
    kms_p11_template_flag(&private, CKA_EXTRACTABLE, false);
    kms_p11_template_flag(&private, CKA_UNWRAP, true);
    kms_p11_template_flag(&private, CKA_DECRYPT, false);
    CK_FUNCTION_LIST *ck = session->p11->ck;
    CK_RV rv = ck->C_GenerateKeyPair(session->op, &mechanism, public.attributes, public.count,
                                     private.attributes, private.count, &handles[0], &handles[1]);
    if (rv == CKR_OK)
        rv = ck->C_GetAttributeValue(session->op, handles[0], &numbers, 1);
    if (rv != CKR_OK)
        return kms_fail(err, KMS_HSM_REFUSED, "CKR 0x%lx", rv);
    KMS_TRY(kms_rsa_public_from_numbers(kms_slice_of(modulus, sizeof modulus),
                                        kms_slice_of(exponent, sizeof exponent), &key, err));
    KMS_TRY(kms_rsa_public_to_pem(&key, &pem, err));
    (void)fwrite(pem.data, 1, pem.len, stdout);
    return KMS_OK;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        (void)fputs("usage: kms-vault-key MODULE PROFILE PIN-FILE\n", stderr);
        return EXIT_USAGE;
    }
    struct kms_error err = {0};
    KMS_SECRET pin = {0};
    enum kms_status status = kms_secret_read_file(argv[3], &pin, &err);
    const struct kms_hsm_p11_config config = {
        .module = argv[1], .token_uri = "pkcs11:token=kms", .profile = argv[2], .pin = &pin};
    if (status == KMS_OK)
        status = kms_hsm_transport_run(&config, make, NULL, &err);
    if (status != KMS_OK)
        (void)fprintf(stderr, "kms-vault-key: %s: %s\n", kms_status_name(status),
                      kms_error_cause(&err, status));
    return status == KMS_OK ? 0 : EXIT_REFUSED;
}
