/*
 * Goal: keys that may leave for a recovery key leave for a trusted one only; what the security officer has not put there, or has not
 * marked, is no recovery key; and whoever has the private half gets exactly the key that was wrapped.
 */
#include "bench.h"

#include "core/clock.h"
#include "core/ids.h"
#include "hsm/rsa_public.h"

#include <dlfcn.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

static struct {
    struct kms_test_token token;
    struct kms_hsm *hsm;
    struct kms_hsm_session *session;
    EVP_PKEY *pair; /* RSA-3072: takes a second to make, so all share it */
    char *pem;
    char fingerprint[KMS_HSM_FINGERPRINT_SIZE];
    struct kms_error err;
} site;

#define site_must(expression)                                                                                \
    do {                                                                                                     \
        const enum kms_status must_status_ = (expression);                                                   \
        if (must_status_ != KMS_OK)                                                                          \
            fail_msg("%s: %s (%s; %s)", #expression, kms_status_name(must_status_),                          \
                     kms_error_cause(&site.err, must_status_), kms_error_public(&site.err, must_status_));   \
    } while (0)

static char *public_pem(EVP_PKEY *key)
{
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_PUBKEY(bio, key), 1);
    char *data = NULL;
    const long len = BIO_get_mem_data(bio, &data);
    char *pem = strndup(data, (size_t)len);
    BIO_free(bio);
    return pem;
}

static enum kms_status trust_with(const char *so_pin, const char *pem,
                                  char fingerprint[KMS_HSM_FINGERPRINT_SIZE])
{
    KMS_SECRET pin = {0};
    site.err = (struct kms_error){0};
    const struct kms_hsm_p11_config config = kms_test_token_config(&site.token, so_pin, &pin);
    return kms_hsm_p11_trust(&config, kms_slice_str(pem), fingerprint, &site.err);
}

static enum kms_status open_site(bool recovery)
{
    KMS_SECRET pin = {0};
    struct kms_hsm_p11_config config = kms_test_token_config(&site.token, KMS_TEST_PIN, &pin);
    config.recovery = recovery;
    site.err = (struct kms_error){0};
    const enum kms_status status = kms_hsm_p11_open(&config, &site.hsm, &site.err);
    if (status == KMS_OK)
        site_must(kms_hsm_checkout(site.hsm, kms_clock_mono_ns() + 5 * KMS_NS_PER_SECOND, &site.session,
                                   &site.err));
    return status;
}

static void close_site(void)
{
    kms_hsm_checkin(site.hsm, site.session);
    kms_hsm_free(site.hsm);
    site.hsm = NULL;
    site.session = NULL;
}

static int make_pair(void **state)
{
    (void)state;
    site.pair = EVP_RSA_gen(3072);
    assert_non_null(site.pair);
    site.pem = public_pem(site.pair);
    return 0;
}

static int drop_pair(void **state)
{
    (void)state;
    EVP_PKEY_free(site.pair);
    free(site.pem);
    return 0;
}

static int new_token(void **state)
{
    (void)state;
    kms_test_token_new(KMS_TEST_SOFTHSM, &site.token);
    return 0;
}

static int drop_token(void **state)
{
    (void)state;
    if (site.hsm != NULL)
        close_site();
    kms_test_token_clear(&site.token);
    return 0;
}

static struct kms_hsm_key new_master(uint8_t ret_id[KMS_HSM_KEY_ID_SIZE])
{
    struct kms_hsm_key master = {0};
    kms_system_random(ret_id, KMS_HSM_KEY_ID_SIZE);
    site_must(kms_hsm_master_create(site.hsm, site.session, ret_id, "kms/test/1", &master, &site.err));
    return master;
}

/* What was wrapped, opened with the private half in software. */
static void open_blob(const struct kms_hsm_recovery_blob *blob, uint8_t ret_key[32])
{
    uint8_t out[512];
    size_t len = sizeof out;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new(site.pair, NULL);
    assert_int_equal(EVP_PKEY_decrypt_init(context), 1);
    assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_OAEP_PADDING), 1);
    assert_int_equal(EVP_PKEY_CTX_set_rsa_oaep_md(context, blob->sha256 ? EVP_sha256() : EVP_sha1()), 1);
    assert_int_equal(EVP_PKEY_decrypt(context, out, &len, blob->bytes, blob->len), 1);
    assert_int_equal(len, 32);
    memcpy(ret_key, out, 32);
    EVP_PKEY_CTX_free(context);
}

/* RFC 3394 in software, to compare with what the token wraps under the same key. */
static bool unwraps(const uint8_t key[32], const uint8_t blob[KMS_HSM_WRAPPED_SIZE])
{
    uint8_t out[KMS_HSM_WRAPPED_SIZE];
    int len = 0;
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    EVP_CIPHER_CTX_set_flags(context, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
    assert_int_equal(EVP_DecryptInit_ex(context, EVP_aes_256_wrap(), NULL, key, NULL), 1);
    const bool opened = EVP_DecryptUpdate(context, out, &len, blob, KMS_HSM_WRAPPED_SIZE) == 1 && len == 32;
    EVP_CIPHER_CTX_free(context);
    return opened;
}

static void whoever_has_the_private_half_gets_the_key_that_was_wrapped(void **state)
{
    (void)state;
    char fingerprint[KMS_HSM_FINGERPRINT_SIZE];
    uint8_t id[KMS_HSM_KEY_ID_SIZE];
    uint8_t value[32];
    uint8_t child[KMS_HSM_WRAPPED_SIZE];
    struct kms_hsm_key recovery = {0};
    struct kms_hsm_recovery_blob blob;
    struct kms_hsm_service_key keys[KMS_HSM_SERVICE_KEYS];
    site_must(trust_with(KMS_TEST_SO_PIN, site.pem, fingerprint));
    site_must(open_site(true));
    site_must(kms_hsm_recovery_find(site.hsm, site.session, fingerprint, &recovery, &site.err));
    const struct kms_hsm_key master = new_master(id);
    site_must(kms_hsm_recovery_wrap(site.hsm, site.session, recovery, master, &blob, &site.err));
    assert_int_equal(blob.len, 384);
    assert_false(blob.sha256);
    open_blob(&blob, value);
    site_must(kms_hsm_generate_wrapped(site.hsm, site.session, master, child, &site.err));
    assert_true(unwraps(value, child));
    value[0] ^= 1;
    assert_false(unwraps(value, child));

    uint8_t mac[KMS_HSM_MAC_SIZE];
    uint8_t expected[EVP_MAX_MD_SIZE];
    size_t len = 0;
    site_must(kms_hsm_service_keys(site.hsm, site.session, keys, &site.err));
    assert_string_equal(keys[KMS_HSM_INTEGRITY].label, "kms/integrity");
    assert_string_equal(keys[KMS_HSM_BACKUP].label, "kms/backup");
    site_must(kms_hsm_recovery_wrap(site.hsm, site.session, recovery, keys[KMS_HSM_INTEGRITY].key, &blob,
                                    &site.err));
    open_blob(&blob, value);
    site_must(kms_hsm_mac(site.hsm, site.session, kms_slice_str("page"), mac, &site.err));
    assert_non_null(EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, value, 32, (const uint8_t *)"page", 4,
                              expected, sizeof expected, &len));
    assert_memory_equal(mac, expected, sizeof mac);
    site_must(
        kms_hsm_recovery_wrap(site.hsm, site.session, recovery, keys[KMS_HSM_BACKUP].key, &blob, &site.err));
    open_blob(&blob, value);
}

static void a_key_for_recovery_leaves_under_no_other_key(void **state)
{
    (void)state;
    uint8_t id[KMS_HSM_KEY_ID_SIZE];
    struct kms_hsm_service_key keys[KMS_HSM_SERVICE_KEYS];
    site_must(open_site(true));
    const struct kms_hsm_key master = new_master(id);
    const struct kms_hsm_key other = new_master(id);
    uint8_t blob[KMS_HSM_WRAPPED_SIZE];
    site_must(kms_hsm_service_keys(site.hsm, site.session, keys, &site.err));
    assert_int_equal(kms_hsm_wrap(site.hsm, site.session, other, master, blob, &site.err), KMS_HSM_REFUSED);
    for (size_t i = 0; i < KMS_HSM_SERVICE_KEYS; i++)
        assert_int_equal(kms_hsm_wrap(site.hsm, site.session, other, keys[i].key, blob, &site.err),
                         KMS_HSM_REFUSED);
    /* an RSA key that the user has made is as good as any, but not trusted */
    struct kms_rsa_public key;
    site_must(kms_rsa_public_from_pem(kms_slice_str(site.pem), &key, &site.err));
    CK_FUNCTION_LIST *ck = NULL;
    bench.token = site.token; /* bench_raw() works on the token that is open */
    ck = bench_raw();
    CK_SESSION_HANDLE session = bench_raw_session();
    CK_OBJECT_CLASS class = CKO_PUBLIC_KEY;
    CK_KEY_TYPE type = CKK_RSA;
    CK_BBOOL yes = CK_TRUE;
    CK_BBOOL no = CK_FALSE;
    char label[128];
    (void)snprintf(label, sizeof label, "kms/recovery/%s", key.fingerprint);
    CK_ATTRIBUTE template[] = {{CKA_CLASS, &class, sizeof class},
                               {CKA_KEY_TYPE, &type, sizeof type},
                               {CKA_TOKEN, &yes, sizeof yes},
                               {CKA_PRIVATE, &no, sizeof no},
                               {CKA_WRAP, &yes, sizeof yes},
                               {CKA_LABEL, label, strlen(label)},
                               {CKA_MODULUS, key.modulus, key.modulus_len},
                               {CKA_PUBLIC_EXPONENT, key.exponent, key.exponent_len},
                               {CKA_TRUSTED, &yes, sizeof yes}};
    CK_OBJECT_HANDLE forged = 0;
    assert_int_not_equal(ck->C_CreateObject(session, template, 9, &forged), CKR_OK);
    assert_int_equal(ck->C_CreateObject(session, template, 8, &forged), CKR_OK);
    struct kms_hsm_key found = {0};
    assert_int_equal(kms_hsm_recovery_find(site.hsm, site.session, key.fingerprint, &found, &site.err),
                     KMS_FAILED_PRECONDITION);
    assert_non_null(strstr(kms_error_public(&site.err, KMS_FAILED_PRECONDITION), "not trusted"));
    struct kms_hsm_recovery_blob wrapped;
    const struct kms_hsm_key untrusted = {forged, kms_hsm_generation(site.hsm)};
    assert_int_equal(kms_hsm_recovery_wrap(site.hsm, site.session, untrusted, master, &wrapped, &site.err),
                     KMS_HSM_REFUSED);
    assert_int_equal(ck->C_CloseSession(session), CKR_OK);
}

/* Another trusted key under the label of this one, as an officer could make it who means ill. */
static void forge_as_officer(const struct kms_rsa_public *shown, const struct kms_rsa_public *other)
{
    char label[128];
    (void)snprintf(label, sizeof label, "kms/recovery/%s", shown->fingerprint);
    CK_OBJECT_CLASS class = CKO_PUBLIC_KEY;
    CK_KEY_TYPE type = CKK_RSA;
    CK_BBOOL yes = CK_TRUE;
    CK_BBOOL no = CK_FALSE;
    uint8_t modulus[KMS_RSA_BITS_MAX / 8];
    uint8_t exponent[KMS_RSA_EXPONENT_MAX];
    memcpy(modulus, other->modulus, sizeof modulus);
    memcpy(exponent, other->exponent, sizeof exponent);
    CK_ATTRIBUTE template[] = {{CKA_CLASS, &class, sizeof class},
                               {CKA_KEY_TYPE, &type, sizeof type},
                               {CKA_TOKEN, &yes, sizeof yes},
                               {CKA_PRIVATE, &no, sizeof no},
                               {CKA_WRAP, &yes, sizeof yes},
                               {CKA_TRUSTED, &yes, sizeof yes},
                               {CKA_LABEL, label, strlen(label)},
                               {CKA_MODULUS, modulus, other->modulus_len},
                               {CKA_PUBLIC_EXPONENT, exponent, other->exponent_len}};
    char pin[] = KMS_TEST_SO_PIN;
    void *library = dlopen(site.token.module, RTLD_NOW); /* for as long as the process */
    assert_non_null(library);
    bench.token = site.token;
    CK_FUNCTION_LIST *ck = bench_raw();
    assert_int_equal(ck->C_Initialize(NULL), CKR_OK);
    CK_SESSION_HANDLE session = bench_raw_session();
    CK_OBJECT_HANDLE handle = 0;
    assert_int_equal(ck->C_Login(session, CKU_SO, (CK_UTF8CHAR *)pin, strlen(pin)), CKR_OK);
    assert_int_equal(ck->C_CreateObject(session, template, sizeof template / sizeof *template, &handle),
                     CKR_OK);
    assert_int_equal(ck->C_Finalize(NULL), CKR_OK);
}

static void a_trusted_key_under_the_label_of_another_is_refused(void **state)
{
    (void)state;
    struct kms_rsa_public shown;
    struct kms_rsa_public other;
    struct kms_hsm_key found = {0};
    EVP_PKEY *pair = EVP_RSA_gen(3072);
    char *pem = public_pem(pair);
    site_must(kms_rsa_public_from_pem(kms_slice_str(site.pem), &shown, &site.err));
    site_must(kms_rsa_public_from_pem(kms_slice_str(pem), &other, &site.err));
    free(pem);
    EVP_PKEY_free(pair);
    forge_as_officer(&shown, &other);
    site_must(open_site(true));
    assert_int_equal(kms_hsm_recovery_find(site.hsm, site.session, shown.fingerprint, &found, &site.err),
                     KMS_FAILED_PRECONDITION);
    assert_non_null(strstr(kms_error_public(&site.err, KMS_FAILED_PRECONDITION), "another key"));
    assert_int_equal(kms_hsm_recovery_find(site.hsm, site.session, other.fingerprint, &found, &site.err),
                     KMS_NOT_FOUND);
}

static void what_the_officer_brought_is_there_once_and_can_be_removed(void **state)
{
    (void)state;
    char fingerprint[KMS_HSM_FINGERPRINT_SIZE];
    struct kms_hsm_key found = {0};
    site_must(trust_with(KMS_TEST_SO_PIN, site.pem, fingerprint));
    assert_int_equal(trust_with(KMS_TEST_SO_PIN, site.pem, fingerprint), KMS_ALREADY_EXISTS);
    site_must(open_site(true));
    site_must(kms_hsm_recovery_find(site.hsm, site.session, fingerprint, &found, &site.err));
    site_must(kms_hsm_recovery_remove(site.hsm, site.session, fingerprint, &site.err));
    assert_int_equal(kms_hsm_recovery_find(site.hsm, site.session, fingerprint, &found, &site.err),
                     KMS_NOT_FOUND);
    site_must(kms_hsm_recovery_remove(site.hsm, site.session, fingerprint, &site.err));
}

static void a_wrong_pin_and_a_wrong_key_change_nothing(void **state)
{
    (void)state;
    char fingerprint[KMS_HSM_FINGERPRINT_SIZE];
    assert_int_equal(trust_with("wrong-12345", site.pem, fingerprint), KMS_CONFIG_INVALID);
    assert_int_equal(trust_with(KMS_TEST_SO_PIN, "no key", fingerprint), KMS_INVALID_ARGUMENT);
    EVP_PKEY *weak = EVP_RSA_gen(2048);
    char *weak_pem = public_pem(weak);
    assert_int_equal(trust_with(KMS_TEST_SO_PIN, weak_pem, fingerprint), KMS_INVALID_ARGUMENT);
    free(weak_pem);
    EVP_PKEY_free(weak);
    EVP_PKEY *curve = EVP_EC_gen("P-256");
    char *curve_pem = public_pem(curve);
    assert_int_equal(trust_with(KMS_TEST_SO_PIN, curve_pem, fingerprint), KMS_INVALID_ARGUMENT);
    free(curve_pem);
    EVP_PKEY_free(curve);
    struct kms_hsm_key found = {0};
    struct kms_rsa_public key;
    site_must(kms_rsa_public_from_pem(kms_slice_str(site.pem), &key, &site.err));
    site_must(open_site(true));
    assert_int_equal(kms_hsm_recovery_find(site.hsm, site.session, key.fingerprint, &found, &site.err),
                     KMS_NOT_FOUND);
}

static void keys_made_without_recovery_never_leave(void **state)
{
    (void)state;
    char fingerprint[KMS_HSM_FINGERPRINT_SIZE];
    struct kms_hsm_key found = {0};
    site_must(trust_with(KMS_TEST_SO_PIN, site.pem, fingerprint));
    site_must(open_site(false));
    assert_int_equal(kms_hsm_recovery_find(site.hsm, site.session, fingerprint, &found, &site.err),
                     KMS_FAILED_PRECONDITION);
    close_site();
    assert_int_equal(open_site(true), KMS_CONFIG_INVALID);
    assert_non_null(strstr(kms_error_public(&site.err, KMS_CONFIG_INVALID), "recovery.enabled"));
}

static void masters_made_while_it_was_turned_off_are_told_apart(void **state)
{
    (void)state;
    char fingerprint[KMS_HSM_FINGERPRINT_SIZE];
    uint8_t old_id[KMS_HSM_KEY_ID_SIZE];
    struct kms_hsm_key recovery = {0};
    struct kms_hsm_key old_master = {0};
    struct kms_hsm_recovery_blob blob;
    site_must(trust_with(KMS_TEST_SO_PIN, site.pem, fingerprint));
    site_must(open_site(true));
    close_site();
    site_must(open_site(false));
    (void)new_master(old_id);
    close_site();
    site_must(open_site(true));
    site_must(kms_hsm_recovery_find(site.hsm, site.session, fingerprint, &recovery, &site.err));
    site_must(kms_hsm_master_find(site.hsm, site.session, old_id, &old_master, &site.err));
    assert_int_equal(kms_hsm_recovery_wrap(site.hsm, site.session, recovery, old_master, &blob, &site.err),
                     KMS_FAILED_PRECONDITION);
}

static void a_token_that_keeps_no_trusted_keys_is_refused_before_it_is_opened(void **state)
{
    (void)state;
    kms_test_token_clear(&site.token);
    kms_test_token_new(KMS_TEST_NSS, &site.token);
    assert_int_equal(open_site(true), KMS_CONFIG_INVALID);
}

int main(void)
{
#define on_a_token(test) cmocka_unit_test_setup_teardown(test, new_token, drop_token)
    const struct CMUnitTest tests[] = {
        on_a_token(whoever_has_the_private_half_gets_the_key_that_was_wrapped),
        on_a_token(a_key_for_recovery_leaves_under_no_other_key),
        on_a_token(a_trusted_key_under_the_label_of_another_is_refused),
        on_a_token(what_the_officer_brought_is_there_once_and_can_be_removed),
        on_a_token(a_wrong_pin_and_a_wrong_key_change_nothing),
        on_a_token(keys_made_without_recovery_never_leave),
        on_a_token(masters_made_while_it_was_turned_off_are_told_apart),
        on_a_token(a_token_that_keeps_no_trusted_keys_is_refused_before_it_is_opened),
    };
    return cmocka_run_group_tests_name("hsm/trusted", tests, make_pair, drop_pair);
}
