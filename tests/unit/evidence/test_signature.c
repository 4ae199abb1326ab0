/* Goal: a signature is accepted from the key that made it, over the bytes that it was made over, and from nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "evidence/signature.h"

#include <openssl/evp.h>
#include <openssl/pem.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[] = "/tmp/kms-signature-XXXXXX";
static const char message_text[] = "operation 1: shred 3 customers";

/* A new key in <directory>/key.pem; its public half as PEM, to be freed. */
static char *new_key(EVP_PKEY *key, const char *path)
{
    assert_non_null(key);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fchmod(fileno(file), 0600), 0);
    assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
    assert_int_equal(fclose(file), 0);
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_PUBKEY(bio, key), 1);
    char *data = NULL;
    const long len = BIO_get_mem_data(bio, &data);
    char *pem = strndup(data, (size_t)len);
    BIO_free(bio);
    EVP_PKEY_free(key);
    return pem;
}

static const char *key_path(void)
{
    static char path[64];
    (void)snprintf(path, sizeof path, "%s/key.pem", directory);
    return path;
}

static struct kms_slice text_slice(const char *text)
{
    return kms_slice_of((const uint8_t *)text, strlen(text));
}

/* Sign, verify, then flip every byte of message and signature. */
static void check_kind(EVP_PKEY *key)
{
    char *pem = new_key(key, key_path());
    uint8_t signature[KMS_EVIDENCE_SIGNATURE_MAX];
    size_t len = 0;
    struct kms_error err = {0};
    assert_int_equal(kms_signature_make(key_path(), text_slice(message_text), signature, &len, &err), KMS_OK);
    assert_int_equal(
        kms_signature_verify(text_slice(pem), text_slice(message_text), kms_slice_of(signature, len), &err),
        KMS_OK);
    char changed[sizeof message_text];
    for (size_t i = 0; i < sizeof message_text - 1; i++) {
        memcpy(changed, message_text, sizeof changed);
        changed[i] ^= 1;
        assert_int_equal(
            kms_signature_verify(text_slice(pem), text_slice(changed), kms_slice_of(signature, len), &err),
            KMS_TAMPERED);
    }
    for (size_t i = 0; i < len; i++) {
        signature[i] ^= 1;
        assert_int_equal(kms_signature_verify(text_slice(pem), text_slice(message_text),
                                              kms_slice_of(signature, len), &err),
                         KMS_TAMPERED);
        signature[i] ^= 1;
        assert_int_equal(
            kms_signature_verify(text_slice(pem), text_slice(message_text), kms_slice_of(signature, i), &err),
            KMS_TAMPERED);
    }
    free(pem);
}

static void a_p256_signature_verifies_and_no_changed_one(void **state)
{
    (void)state;
    check_kind(EVP_EC_gen("P-256"));
}

static void an_rsa_signature_verifies_and_no_changed_one(void **state)
{
    (void)state;
    check_kind(EVP_RSA_gen(2048));
}

static void an_ed25519_signature_verifies_and_no_changed_one(void **state)
{
    (void)state;
    check_kind(EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"));
}

static void a_weak_or_strange_key_is_refused(void **state)
{
    (void)state;
    EVP_PKEY *const keys[] = {EVP_RSA_gen(1024), EVP_EC_gen("secp256k1"),
                              EVP_PKEY_Q_keygen(NULL, NULL, "X25519")};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char *pem = new_key(keys[i], key_path());
        uint8_t signature[KMS_EVIDENCE_SIGNATURE_MAX] = {0};
        size_t len = 0;
        assert_int_equal(kms_signature_make(key_path(), text_slice(message_text), signature, &len, NULL),
                         KMS_INVALID_ARGUMENT);
        assert_int_equal(kms_signature_verify(text_slice(pem), text_slice(message_text),
                                              kms_slice_of(signature, sizeof signature), NULL),
                         KMS_INVALID_ARGUMENT);
        free(pem);
    }
}

static void another_key_and_no_key_are_told_apart(void **state)
{
    (void)state;
    char *other = new_key(EVP_EC_gen("P-256"), key_path());
    char *pem = new_key(EVP_EC_gen("P-256"), key_path());
    uint8_t signature[KMS_EVIDENCE_SIGNATURE_MAX];
    size_t len = 0;
    assert_int_equal(kms_signature_make(key_path(), text_slice(message_text), signature, &len, NULL), KMS_OK);
    const struct kms_slice made = kms_slice_of(signature, len);
    assert_int_equal(kms_signature_verify(text_slice(other), text_slice(message_text), made, NULL),
                     KMS_TAMPERED);
    assert_int_equal(
        kms_signature_verify(text_slice("-----BEGIN PUBLIC KEY-----"), text_slice(message_text), made, NULL),
        KMS_INVALID_ARGUMENT);
    assert_int_equal(kms_signature_verify(text_slice(""), text_slice(message_text), made, NULL),
                     KMS_INVALID_ARGUMENT);
    free(pem);
    free(other);
}

static void a_text_with_more_than_one_key_is_none(void **state)
{
    (void)state;
    char *other = new_key(EVP_EC_gen("P-256"), key_path());
    char *pem = new_key(EVP_EC_gen("P-256"), key_path());
    uint8_t signature[KMS_EVIDENCE_SIGNATURE_MAX];
    size_t len = 0;
    assert_int_equal(kms_signature_make(key_path(), text_slice(message_text), signature, &len, NULL), KMS_OK);
    static const char damaged[] = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    static const char cut[] = "-----BEGIN CERTIFICATE-----\nMIIB";
    const char *const pairs[][2] = {{pem, other},   {other, pem}, {pem, pem}, {damaged, pem},
                                    {pem, damaged}, {cut, pem},   {pem, cut}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        char text[2048];
        (void)snprintf(text, sizeof text, "%s\n%s", pairs[i][0], pairs[i][1]);
        assert_int_equal(kms_signature_verify(text_slice(text), text_slice(message_text),
                                              kms_slice_of(signature, len), NULL),
                         KMS_INVALID_ARGUMENT);
    }
    char around[2048]; /* what openssl prints around a block is no block */
    (void)snprintf(around, sizeof around, "Public-Key: (256 bit)\n%s\n-- \nthe end\n", pem);
    assert_int_equal(kms_signature_verify(text_slice(around), text_slice(message_text),
                                          kms_slice_of(signature, len), NULL),
                     KMS_OK);
    free(pem);
    free(other);
}

static void a_private_key_that_others_may_read_is_refused(void **state)
{
    (void)state;
    free(new_key(EVP_EC_gen("P-256"), key_path()));
    assert_int_equal(chmod(key_path(), 0644), 0);
    uint8_t signature[KMS_EVIDENCE_SIGNATURE_MAX];
    size_t len = 0;
    struct kms_error err = {0};
    assert_int_equal(kms_signature_make(key_path(), text_slice(message_text), signature, &len, &err),
                     KMS_CONFIG_INVALID);
    assert_non_null(strstr(kms_error_cause(&err, KMS_CONFIG_INVALID), "key.pem"));
    assert_int_equal(chmod(key_path(), 0600), 0);
}

static int make_directory(void **state)
{
    (void)state;
    return mkdtemp(directory) != NULL ? 0 : -1;
}

static int remove_directory(void **state)
{
    (void)state;
    (void)unlink(key_path());
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_p256_signature_verifies_and_no_changed_one),
        cmocka_unit_test(an_rsa_signature_verifies_and_no_changed_one),
        cmocka_unit_test(an_ed25519_signature_verifies_and_no_changed_one),
        cmocka_unit_test(a_weak_or_strange_key_is_refused),
        cmocka_unit_test(another_key_and_no_key_are_told_apart),
        cmocka_unit_test(a_text_with_more_than_one_key_is_none),
        cmocka_unit_test(a_private_key_that_others_may_read_is_refused),
    };
    return cmocka_run_group_tests_name("evidence/signature", tests, make_directory, remove_directory);
}
