/* Goal: a recovery key comes from a PEM text of exactly one block, and no text makes the daemon ask somebody for a password. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hsm/rsa_public.h"

#include "core/cleanup.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/ui.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENCRYPTED "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00112233445566778899AABBCCDDEEFF\n\n"

enum { TEXT_MAX = 8192 };

static char pem[TEXT_MAX / 4]; /* of a good key */
static bool asked;

/* The terminal, on which OpenSSL asks when nobody has told it where a password comes from: it is not there. */
static int open_terminal(UI *ui)
{
    (void)ui;
    asked = true;
    return 0;
}

static int make_key(void **state)
{
    (void)state;
    EVP_PKEY *key = EVP_RSA_gen(KMS_RSA_BITS_MIN);
    BIO *bio = BIO_new(BIO_s_mem());
    char *text = NULL;
    assert_int_equal(PEM_write_bio_PUBKEY(bio, key), 1);
    const long len = BIO_get_mem_data(bio, &text);
    assert_in_range(len, 1, TEXT_MAX / 4);
    memcpy(pem, text, (size_t)len);
    BIO_free(bio);
    EVP_PKEY_free(key);
    return 0;
}

/* The body of the block, behind its first line. */
static const char *body(void)
{
    return strchr(pem, '\n') + 1;
}

static void is_refused(const char *text)
{
    struct kms_rsa_public key = {.modulus_len = 1};
    struct kms_error err = {0};
    assert_int_equal(kms_rsa_public_from_pem(kms_slice_str(text), &key, &err), KMS_INVALID_ARGUMENT);
    assert_non_null(strstr(err.public_text, "one block \"PUBLIC KEY\""));
    assert_int_equal(key.modulus_len, 1);
}

static void one_block_is_a_key_whatever_is_written_around_it(void **state)
{
    (void)state;
    struct kms_rsa_public key = {0};
    struct kms_rsa_public again = {0};
    KMS_CLEANUP(kms_buf_clear) struct kms_buf out = {0};
    char text[TEXT_MAX];
    assert_int_equal(kms_rsa_public_from_pem(kms_slice_str(pem), &key, NULL), KMS_OK);
    assert_int_equal(key.modulus_len, KMS_RSA_BITS_MIN / 8);
    assert_int_equal(kms_rsa_public_to_pem(&key, &out, NULL), KMS_OK);
    assert_int_equal(out.len, strlen(pem));
    assert_memory_equal(out.data, pem, out.len);
    (void)snprintf(text, sizeof text, "of the ceremony in spring\n%s\n", pem);
    assert_int_equal(kms_rsa_public_from_pem(kms_slice_str(text), &again, NULL), KMS_OK);
    assert_string_equal(again.fingerprint, key.fingerprint);
}

static void an_encrypted_block_is_refused_and_nobody_is_asked(void **state)
{
    (void)state;
    char text[TEXT_MAX];
    (void)snprintf(text, sizeof text, "-----BEGIN PUBLIC KEY-----\n" ENCRYPTED "%s", body());
    UI_METHOD *terminal = UI_create_method("terminal");
    assert_int_equal(UI_method_set_opener(terminal, open_terminal), 0);
    UI_set_default_method(terminal);
    /* the text is one for which a reader that decrypts does ask */
    BIO *bio = BIO_new_mem_buf(text, -1);
    assert_null(PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL));
    BIO_free(bio);
    assert_true(asked);
    asked = false;
    is_refused(text);
    assert_false(asked);
    UI_set_default_method(NULL);
    UI_destroy_method(terminal);
}

static void a_text_with_more_than_one_block_is_refused(void **state)
{
    (void)state;
    char text[TEXT_MAX];
    (void)snprintf(text, sizeof text, "%s%s", pem, pem);
    is_refused(text);
    (void)snprintf(text, sizeof text, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n%s",
                   pem);
    is_refused(text);
    (void)snprintf(text, sizeof text, "%s-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                   pem);
    is_refused(text);
    (void)snprintf(text, sizeof text, "%s-----BEGIN PUBLIC KEY-----\n\x01", pem); /* a damaged one is one */
    is_refused(text);
}

static void what_is_no_public_key_is_refused(void **state)
{
    (void)state;
    char text[TEXT_MAX];
    is_refused("");
    is_refused("nothing");
    (void)snprintf(text, sizeof text, "-----BEGIN RSA PUBLIC KEY-----\nAAAA\n-----END RSA PUBLIC KEY-----\n");
    is_refused(text);
    (void)snprintf(text, sizeof text, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n");
    is_refused(text);
    (void)snprintf(text, sizeof text, "%.*s", (int)(strlen(pem) / 2), pem);
    is_refused(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_block_is_a_key_whatever_is_written_around_it),
        cmocka_unit_test(an_encrypted_block_is_refused_and_nobody_is_asked),
        cmocka_unit_test(a_text_with_more_than_one_block_is_refused),
        cmocka_unit_test(what_is_no_public_key_is_refused),
    };
    return cmocka_run_group_tests_name("hsm/rsa_public", tests, make_key, NULL);
}
