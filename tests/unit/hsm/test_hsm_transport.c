/*
 * Goal: what was wrapped for the transport key of a new token is there as if it had been made in it; nothing else gets in, nothing that is
 * there is replaced, and the transport key itself does nothing but unwrap.
 */
#include "bench.h"

#include "core/clock.h"
#include "core/ids.h"
#include "hsm/transport.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

enum { KEY_SIZE = 32, WRAPPED_SIZE = KMS_HSM_TRANSPORT_BITS / 8, ITEMS = 3 };

static const char master_label[] = "kms/5f9b1c4e-0d1b-4b7e-9a55-6f0a7c3d2e10/7";

static struct {
    struct kms_test_token token;
    bool recovery;
    struct kms_buf pem;
    char fingerprint[KMS_HSM_FINGERPRINT_SIZE];
    uint8_t values[ITEMS][KEY_SIZE]; /* the keys of the lost token, as only this test knows them */
    uint8_t ids[ITEMS][KMS_HSM_KEY_ID_SIZE];
    uint8_t wrapped[ITEMS][WRAPPED_SIZE];
    struct kms_hsm_transport_item items[ITEMS];
    bool made[ITEMS];
    struct kms_error err;
} site;

static enum kms_status run(kms_hsm_transport_work work)
{
    KMS_SECRET pin = {0};
    struct kms_hsm_p11_config config = kms_test_token_config(&site.token, KMS_TEST_PIN, &pin);
    config.recovery = site.recovery;
    site.err = (struct kms_error){0};
    return kms_hsm_transport_run(&config, work, NULL, &site.err);
}

#define run_must(work)                                                                                       \
    do {                                                                                                     \
        const enum kms_status must_status_ = run(work);                                                      \
        if (must_status_ != KMS_OK)                                                                          \
            fail_msg("%s: %s (%s; %s)", #work, kms_status_name(must_status_),                                \
                     kms_error_cause(&site.err, must_status_), kms_error_public(&site.err, must_status_));   \
    } while (0)

static enum kms_status make_key(void *context, struct kms_hsm_session *session, struct kms_error *err)
{
    (void)context;
    kms_buf_clear(&site.pem);
    return kms_hsm_transport_key(session, true, &site.pem, site.fingerprint, err);
}

static enum kms_status find_key(void *context, struct kms_hsm_session *session, struct kms_error *err)
{
    (void)context;
    KMS_CLEANUP(kms_buf_clear) struct kms_buf pem = {0};
    char fingerprint[KMS_HSM_FINGERPRINT_SIZE];
    KMS_TRY(kms_hsm_transport_key(session, false, &pem, fingerprint, err));
    assert_string_equal(fingerprint, site.fingerprint);
    return KMS_OK;
}

static enum kms_status remove_key(void *context, struct kms_hsm_session *session, struct kms_error *err)
{
    (void)context;
    return kms_hsm_transport_key_remove(session, err);
}

static enum kms_status import_all(void *context, struct kms_hsm_session *session, struct kms_error *err)
{
    (void)context;
    for (size_t i = 0; i < ITEMS; i++)
        KMS_TRY(kms_hsm_transport_import(session, &site.items[i], &site.made[i], err));
    return KMS_OK;
}

static enum kms_status undo_all(void *context, struct kms_hsm_session *session, struct kms_error *err)
{
    (void)context;
    for (size_t i = 0; i < ITEMS; i++)
        KMS_TRY(kms_hsm_transport_undo(session, &site.items[i], err));
    return KMS_OK;
}

/* Wrap a key for the transport key, in software. */
static void wrap(const uint8_t value[KEY_SIZE], uint8_t wrapped[WRAPPED_SIZE])
{
    BIO *bio = BIO_new_mem_buf(site.pem.data, (int)site.pem.len);
    EVP_PKEY *key = PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new(key, NULL);
    size_t len = WRAPPED_SIZE;
    assert_int_equal(EVP_PKEY_encrypt_init(context), 1);
    assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_OAEP_PADDING), 1);
    assert_int_equal(EVP_PKEY_encrypt(context, wrapped, &len, value, KEY_SIZE), 1);
    assert_int_equal(len, WRAPPED_SIZE);
    EVP_PKEY_CTX_free(context);
    EVP_PKEY_free(key);
    BIO_free(bio);
}

static int new_site(void **state)
{
    (void)state;
    static const enum kms_hsm_transport_role roles[ITEMS] = {
        KMS_HSM_TRANSPORT_INTEGRITY, KMS_HSM_TRANSPORT_BACKUP, KMS_HSM_TRANSPORT_MASTER};
    site.recovery = true;
    kms_test_token_new(KMS_TEST_SOFTHSM, &site.token);
    run_must(make_key);
    for (size_t i = 0; i < ITEMS; i++) {
        kms_system_random(site.values[i], KEY_SIZE);
        kms_system_random(site.ids[i], KMS_HSM_KEY_ID_SIZE);
        wrap(site.values[i], site.wrapped[i]);
        site.items[i] = (struct kms_hsm_transport_item){
            .role = roles[i],
            .id = site.ids[i],
            .label = roles[i] == KMS_HSM_TRANSPORT_MASTER ? master_label : NULL,
            .wrapped = kms_slice_of(site.wrapped[i], WRAPPED_SIZE)};
    }
    return 0;
}

static int drop_site(void **state)
{
    (void)state;
    kms_buf_clear(&site.pem);
    kms_test_token_clear(&site.token);
    return 0;
}

/* Open the token as a service does; the attestation key is made. */
static void open_service(struct kms_hsm **ret_hsm, struct kms_hsm_session **ret_session)
{
    KMS_SECRET pin = {0};
    struct kms_hsm_p11_config config = kms_test_token_config(&site.token, KMS_TEST_PIN, &pin);
    config.recovery = site.recovery;
    site.err = (struct kms_error){0};
    if (kms_hsm_p11_open(&config, ret_hsm, &site.err) != KMS_OK)
        fail_msg("%s; %s", site.err.public_text, site.err.cause);
    assert_int_equal(
        kms_hsm_checkout(*ret_hsm, kms_clock_mono_ns() + 5 * KMS_NS_PER_SECOND, ret_session, NULL), KMS_OK);
}

/* RFC 3394 in software: what the lost token's master key has wrapped. */
static void software_wrap(const uint8_t key[KEY_SIZE], uint8_t blob[KMS_HSM_WRAPPED_SIZE])
{
    uint8_t child[KEY_SIZE] = "a page key of the lost token";
    int len = 0;
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    EVP_CIPHER_CTX_set_flags(context, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
    assert_int_equal(EVP_EncryptInit_ex(context, EVP_aes_256_wrap(), NULL, key, NULL), 1);
    assert_int_equal(EVP_EncryptUpdate(context, blob, &len, child, KEY_SIZE), 1);
    assert_int_equal(len, KMS_HSM_WRAPPED_SIZE);
    EVP_CIPHER_CTX_free(context);
}

/* The keys in the token are those of the lost one, under their names. */
static void keys_are_the_lost_ones(struct kms_hsm *hsm, struct kms_hsm_session *session)
{
    uint8_t mac[KMS_HSM_MAC_SIZE];
    uint8_t expected[EVP_MAX_MD_SIZE];
    uint8_t blob[KMS_HSM_WRAPPED_SIZE];
    size_t len = 0;
    struct kms_hsm_key key;
    struct kms_hsm_key child;
    struct kms_hsm_service_key service[KMS_HSM_SERVICE_KEYS];
    assert_int_equal(kms_hsm_service_keys(hsm, session, service, NULL), KMS_OK);
    assert_memory_equal(service[KMS_HSM_INTEGRITY].id, site.ids[0], KMS_HSM_KEY_ID_SIZE);
    assert_memory_equal(service[KMS_HSM_BACKUP].id, site.ids[1], KMS_HSM_KEY_ID_SIZE);
    assert_int_equal(kms_hsm_mac(hsm, session, kms_slice_str("page"), mac, NULL), KMS_OK);
    assert_non_null(EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, site.values[0], KEY_SIZE,
                              (const uint8_t *)"page", 4, expected, sizeof expected, &len));
    assert_memory_equal(mac, expected, sizeof mac);
    assert_int_equal(kms_hsm_master_find(hsm, session, site.ids[2], &key, NULL), KMS_OK);
    software_wrap(site.values[2], blob);
    assert_int_equal(kms_hsm_unwrap(hsm, session, key, blob, KMS_HSM_PAGE_SERVE, &child, NULL), KMS_OK);
    assert_int_equal(kms_hsm_destroy(hsm, session, child), KMS_OK);
    software_wrap(site.values[1], blob);
    assert_int_equal(kms_hsm_unwrap(hsm, session, key, blob, KMS_HSM_PAGE_SERVE, &child, NULL),
                     KMS_BLOB_REFUSED);
}

static void imported_keys_are_as_if_they_had_been_made_there(void **state)
{
    (void)state;
    struct kms_hsm *hsm = NULL;
    struct kms_hsm_session *session = NULL;
    struct kms_hsm_key made;
    struct kms_hsm_key imported;
    const uint8_t id[KMS_HSM_KEY_ID_SIZE] = "another master";
    static const CK_ATTRIBUTE_TYPE flags[] = {
        CKA_TOKEN,      CKA_PRIVATE,  CKA_SENSITIVE, CKA_EXTRACTABLE, CKA_WRAP_WITH_TRUSTED,
        CKA_MODIFIABLE, CKA_COPYABLE, CKA_WRAP,      CKA_UNWRAP,      CKA_ENCRYPT,
        CKA_DECRYPT,    CKA_SIGN,     CKA_VERIFY,    CKA_DERIVE};
    for (int recovery = 0; recovery < 2; recovery++) {
        site.recovery = recovery == 1;
        run_must(remove_key);
        run_must(make_key);
        for (size_t i = 0; i < ITEMS; i++)
            wrap(site.values[i], site.wrapped[i]);
        run_must(import_all);
        open_service(&hsm, &session);
        keys_are_the_lost_ones(hsm, session);
        bench.token = site.token;
        assert_int_equal(kms_hsm_master_create(hsm, session, id, "kms/x/1", &made, NULL), KMS_OK);
        assert_int_equal(kms_hsm_master_find(hsm, session, site.ids[2], &imported, NULL), KMS_OK);
        for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
            assert_int_equal(bench_raw_flag(imported.handle, flags[i]),
                             bench_raw_flag(made.handle, flags[i]));
        assert_int_equal(kms_hsm_master_destroy(hsm, session, id, NULL), KMS_OK);
        kms_hsm_checkin(hsm, session);
        kms_hsm_free(hsm);
        run_must(undo_all);
    }
}

static void a_second_import_changes_nothing_and_undo_takes_all_away(void **state)
{
    (void)state;
    struct kms_hsm *hsm = NULL;
    struct kms_hsm_session *session = NULL;
    struct kms_hsm_key key;
    run_must(import_all);
    assert_true(site.made[0] && site.made[1] && site.made[2]);
    run_must(import_all);
    assert_false(site.made[0] || site.made[1] || site.made[2]);
    run_must(undo_all);
    run_must(undo_all);
    open_service(&hsm, &session); /* which makes new service keys, because there are none */
    struct kms_hsm_service_key service[KMS_HSM_SERVICE_KEYS];
    assert_int_equal(kms_hsm_service_keys(hsm, session, service, NULL), KMS_OK);
    assert_memory_not_equal(service[KMS_HSM_INTEGRITY].id, site.ids[0], KMS_HSM_KEY_ID_SIZE);
    assert_int_equal(kms_hsm_master_find(hsm, session, site.ids[2], &key, NULL), KMS_NOT_FOUND);
    kms_hsm_checkin(hsm, session);
    kms_hsm_free(hsm);
    /* and into that token, which has a service's keys now, nothing goes */
    assert_int_equal(run(import_all), KMS_FAILED_PRECONDITION);
    assert_non_null(strstr(site.err.public_text, "another key in the place of 'kms/integrity'"));
}

static void what_was_changed_or_is_for_another_key_does_not_get_in(void **state)
{
    (void)state;
    for (size_t i = 0; i < WRAPPED_SIZE; i += 23) {
        site.wrapped[0][i] ^= 0x10;
        assert_int_equal(run(import_all), KMS_TAMPERED);
        assert_non_null(
            strstr(site.err.public_text, "'kms/integrity' of the transport capsule does not open"));
        site.wrapped[0][i] ^= 0x10;
    }
    site.items[0].wrapped.len = WRAPPED_SIZE - 1;
    assert_int_equal(run(import_all), KMS_TAMPERED);
    site.items[0].wrapped.len = WRAPPED_SIZE;
    char old[KMS_HSM_FINGERPRINT_SIZE];
    memcpy(old, site.fingerprint, sizeof old);
    run_must(remove_key);
    assert_int_equal(run(import_all), KMS_NOT_FOUND);
    assert_int_equal(run(find_key), KMS_NOT_FOUND);
    assert_non_null(strstr(site.err.public_text, "kmsctl recovery transport-key"));
    run_must(make_key);
    assert_string_not_equal(old, site.fingerprint);
    assert_int_equal(run(import_all), KMS_TAMPERED);
}

static void the_transport_key_stays_the_same_until_it_is_removed(void **state)
{
    (void)state;
    run_must(find_key);
    run_must(find_key);
    char old[KMS_HSM_FINGERPRINT_SIZE];
    memcpy(old, site.fingerprint, sizeof old);
    run_must(make_key);
    assert_string_equal(old, site.fingerprint);
    run_must(remove_key);
    run_must(remove_key);
}

/* Look at the private half past kms_hsm. */
static enum kms_status check_private_half(void *context, struct kms_hsm_session *session,
                                          struct kms_error *err)
{
    (void)context, (void)session, (void)err;
    bench.token = site.token;
    CK_FUNCTION_LIST *ck = bench_raw();
    CK_SESSION_HANDLE raw = bench_raw_session();
    CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
    CK_OBJECT_HANDLE key = 0;
    CK_ULONG found = 0;
    CK_ATTRIBUTE search[] = {{CKA_CLASS, &class, sizeof class}};
    assert_int_equal(ck->C_FindObjectsInit(raw, search, 1), CKR_OK);
    assert_int_equal(ck->C_FindObjects(raw, &key, 1, &found), CKR_OK);
    assert_int_equal(ck->C_FindObjectsFinal(raw), CKR_OK);
    assert_int_equal(found, 1);
    static const CK_ATTRIBUTE_TYPE off[] = {CKA_DECRYPT, CKA_SIGN, CKA_EXTRACTABLE};
    static const CK_ATTRIBUTE_TYPE on[] = {CKA_UNWRAP, CKA_SENSITIVE, CKA_PRIVATE, CKA_TOKEN};
    for (size_t i = 0; i < sizeof off / sizeof *off; i++)
        assert_false(bench_raw_flag(key, off[i]));
    for (size_t i = 0; i < sizeof on / sizeof *on; i++)
        assert_true(bench_raw_flag(key, on[i]));
    CK_RSA_PKCS_OAEP_PARAMS oaep = {.hashAlg = CKM_SHA_1, .mgf = CKG_MGF1_SHA1, .source = CKZ_DATA_SPECIFIED};
    CK_MECHANISM mechanism = {CKM_RSA_PKCS_OAEP, &oaep, sizeof oaep};
    assert_int_not_equal(ck->C_DecryptInit(raw, &mechanism, key), CKR_OK);
    CK_BBOOL yes = CK_TRUE;
    CK_ATTRIBUTE decrypts[] = {{CKA_DECRYPT, &yes, sizeof yes}};
    CK_OBJECT_HANDLE copy = 0;
    assert_int_not_equal(ck->C_SetAttributeValue(raw, key, decrypts, 1), CKR_OK);
    assert_int_not_equal(ck->C_CopyObject(raw, key, decrypts, 1, &copy), CKR_OK);
    assert_int_equal(ck->C_CloseSession(raw), CKR_OK);
    return KMS_OK;
}

/* Neither read, nor wrapped for anybody but a recovery key. */
static void assert_cannot_be_taken_out(CK_FUNCTION_LIST *ck, CK_SESSION_HANDLE raw, CK_OBJECT_HANDLE key)
{
    uint8_t value[KEY_SIZE] = {0};
    CK_ATTRIBUTE read = {CKA_VALUE, value, sizeof value};
    assert_int_not_equal(ck->C_GetAttributeValue(raw, key, &read, 1), CKR_OK);
    assert_memory_not_equal(value, site.values[2], KEY_SIZE);
    assert_true(!bench_raw_flag(key, CKA_EXTRACTABLE) || bench_raw_flag(key, CKA_WRAP_WITH_TRUSTED));
}

/* What the host does that has the user's PIN: unwrap into a key that it may read, or wrap under one that it knows. */
static enum kms_status try_to_take_out(void *context, struct kms_hsm_session *session, struct kms_error *err)
{
    (void)context, (void)session, (void)err;
    bench.token = site.token;
    CK_FUNCTION_LIST *ck = bench_raw();
    CK_SESSION_HANDLE raw = bench_raw_session();
    CK_OBJECT_CLASS private_key = CKO_PRIVATE_KEY;
    CK_OBJECT_CLASS secret_key = CKO_SECRET_KEY;
    CK_KEY_TYPE generic = CKK_GENERIC_SECRET;
    CK_BBOOL yes = CK_TRUE;
    CK_BBOOL no = CK_FALSE;
    CK_OBJECT_HANDLE transport = 0;
    CK_OBJECT_HANDLE out = 0;
    CK_ULONG found = 0;
    CK_ATTRIBUTE search[] = {{CKA_CLASS, &private_key, sizeof private_key}};
    assert_int_equal(ck->C_FindObjectsInit(raw, search, 1), CKR_OK);
    assert_int_equal(ck->C_FindObjects(raw, &transport, 1, &found), CKR_OK);
    assert_int_equal(ck->C_FindObjectsFinal(raw), CKR_OK);
    CK_RSA_PKCS_OAEP_PARAMS oaep = {.hashAlg = CKM_SHA_1, .mgf = CKG_MGF1_SHA1, .source = CKZ_DATA_SPECIFIED};
    CK_MECHANISM mechanism = {CKM_RSA_PKCS_OAEP, &oaep, sizeof oaep};
    CK_BBOOL leaves = site.recovery;
    CK_ATTRIBUTE greedy[] = {{CKA_CLASS, &secret_key, sizeof secret_key},
                             {CKA_KEY_TYPE, &generic, sizeof generic},
                             {CKA_TOKEN, &no, sizeof no},
                             {CKA_EXTRACTABLE, &yes, sizeof yes},
                             {CKA_SENSITIVE, &no, sizeof no}};
    CK_ATTRIBUTE modest[] = {{CKA_CLASS, &secret_key, sizeof secret_key},
                             {CKA_KEY_TYPE, &generic, sizeof generic},
                             {CKA_TOKEN, &no, sizeof no},
                             {CKA_PRIVATE, &yes, sizeof yes},
                             {CKA_SENSITIVE, &yes, sizeof yes},
                             {CKA_EXTRACTABLE, &leaves, sizeof leaves},
                             {CKA_WRAP_WITH_TRUSTED, &yes, sizeof yes}};
    for (CK_ULONG count = 3; count <= 5; count++)
        if (ck->C_UnwrapKey(raw, &mechanism, transport, site.wrapped[2], WRAPPED_SIZE, greedy, count, &out) ==
            CKR_OK)
            assert_cannot_be_taken_out(ck, raw, out);
    /* what the template wants does open, so the blob is not what stood in the way before */
    assert_int_equal(ck->C_UnwrapKey(raw, &mechanism, transport, site.wrapped[2], WRAPPED_SIZE, modest,
                                     site.recovery ? 7 : 6, &out),
                     CKR_OK);
    assert_cannot_be_taken_out(ck, raw, out);
    assert_int_equal(ck->C_CloseSession(raw), CKR_OK);
    return KMS_OK;
}

static void what_comes_out_of_it_cannot_be_read_or_wrapped_for_anybody(void **state)
{
    (void)state;
    for (int recovery = 0; recovery < 2; recovery++) {
        site.recovery = recovery == 1;
        run_must(remove_key);
        run_must(make_key);
        wrap(site.values[2], site.wrapped[2]);
        run_must(try_to_take_out);
    }
}

/* A pair under the label that could be known outside: as long as it is marked as able to leave, nobody vouches for it. */
static enum kms_status plant_pair(void *context, struct kms_hsm_session *session, struct kms_error *err)
{
    (void)context, (void)session, (void)err;
    static const char label[] = "kms/transport";
    CK_BBOOL yes = CK_TRUE;
    CK_BBOOL no = CK_FALSE;
    CK_ULONG bits = KMS_HSM_TRANSPORT_BITS;
    CK_BYTE exponent[] = {1, 0, 1};
    CK_OBJECT_HANDLE handles[2];
    CK_MECHANISM mechanism = {CKM_RSA_PKCS_KEY_PAIR_GEN, NULL, 0};
    char text[sizeof label];
    memcpy(text, label, sizeof label);
    CK_ATTRIBUTE public[] = {{CKA_TOKEN, &yes, sizeof yes},
                             {CKA_PRIVATE, &no, sizeof no},
                             {CKA_MODULUS_BITS, &bits, sizeof bits},
                             {CKA_PUBLIC_EXPONENT, exponent, sizeof exponent},
                             {CKA_LABEL, text, sizeof text - 1}};
    CK_ATTRIBUTE private[] = {{CKA_TOKEN, &yes, sizeof yes},       {CKA_PRIVATE, &yes, sizeof yes},
                              {CKA_SENSITIVE, &yes, sizeof yes},   {CKA_UNWRAP, &yes, sizeof yes},
                              {CKA_EXTRACTABLE, &yes, sizeof yes}, {CKA_LABEL, text, sizeof text - 1}};
    bench.token = site.token;
    CK_FUNCTION_LIST *ck = bench_raw();
    CK_SESSION_HANDLE raw = bench_raw_session();
    assert_int_equal(ck->C_GenerateKeyPair(raw, &mechanism, public, sizeof public / sizeof *public, private,
                                           sizeof private / sizeof *private, &handles[0], &handles[1]),
                     CKR_OK);
    assert_int_equal(ck->C_CloseSession(raw), CKR_OK);
    return KMS_OK;
}

static void a_pair_that_somebody_else_has_put_there_is_not_taken_for_it(void **state)
{
    (void)state;
    run_must(remove_key);
    run_must(plant_pair);
    assert_int_equal(run(make_key), KMS_FAILED_PRECONDITION);
    assert_non_null(strstr(site.err.public_text, "was not made in the token"));
    run_must(remove_key);
    run_must(make_key);
    run_must(find_key);
}

/* Somebody's own public key in the place of the right one. */
static enum kms_status swap_public_half(void *context, struct kms_hsm_session *session, struct kms_error *err)
{
    (void)context, (void)session, (void)err;
    bench.token = site.token;
    CK_FUNCTION_LIST *ck = bench_raw();
    CK_SESSION_HANDLE raw = bench_raw_session();
    CK_OBJECT_CLASS class = CKO_PUBLIC_KEY;
    CK_KEY_TYPE type = CKK_RSA;
    CK_BBOOL yes = CK_TRUE;
    CK_BBOOL no = CK_FALSE;
    CK_OBJECT_HANDLE key = 0;
    CK_ULONG found = 0;
    CK_BYTE modulus[WRAPPED_SIZE];
    CK_BYTE exponent[] = {1, 0, 1};
    char label[] = "kms/transport";
    CK_ATTRIBUTE search[] = {{CKA_CLASS, &class, sizeof class}};
    kms_system_random(modulus, sizeof modulus);
    modulus[0] |= 0x80;
    modulus[WRAPPED_SIZE - 1] |= 1;
    CK_ATTRIBUTE other[] = {
        {CKA_CLASS, &class, sizeof class},      {CKA_KEY_TYPE, &type, sizeof type},
        {CKA_TOKEN, &yes, sizeof yes},          {CKA_PRIVATE, &no, sizeof no},
        {CKA_MODULUS, modulus, sizeof modulus}, {CKA_PUBLIC_EXPONENT, exponent, sizeof exponent},
        {CKA_LABEL, label, sizeof label - 1}};
    assert_int_equal(ck->C_FindObjectsInit(raw, search, 1), CKR_OK);
    assert_int_equal(ck->C_FindObjects(raw, &key, 1, &found), CKR_OK);
    assert_int_equal(ck->C_FindObjectsFinal(raw), CKR_OK);
    assert_int_equal(ck->C_DestroyObject(raw, key), CKR_OK);
    assert_int_equal(ck->C_CreateObject(raw, other, sizeof other / sizeof *other, &key), CKR_OK);
    assert_int_equal(ck->C_CloseSession(raw), CKR_OK);
    return KMS_OK;
}

static void the_fingerprint_is_that_of_the_private_half(void **state)
{
    (void)state;
    run_must(swap_public_half);
    run_must(find_key); /* which compares with the fingerprint of the pair that was made */
}

/* Made in the token and never to leave it, but what it unwraps can be read. */
static enum kms_status plant_open_pair(void *context, struct kms_hsm_session *session, struct kms_error *err)
{
    (void)context, (void)session, (void)err;
    CK_BBOOL yes = CK_TRUE;
    CK_BBOOL no = CK_FALSE;
    CK_ULONG bits = KMS_HSM_TRANSPORT_BITS;
    CK_BYTE exponent[] = {1, 0, 1};
    CK_OBJECT_HANDLE handles[2];
    CK_MECHANISM mechanism = {CKM_RSA_PKCS_KEY_PAIR_GEN, NULL, 0};
    char label[] = "kms/transport";
    CK_ATTRIBUTE public[] = {{CKA_TOKEN, &yes, sizeof yes},
                             {CKA_PRIVATE, &no, sizeof no},
                             {CKA_MODULUS_BITS, &bits, sizeof bits},
                             {CKA_PUBLIC_EXPONENT, exponent, sizeof exponent},
                             {CKA_LABEL, label, sizeof label - 1}};
    CK_ATTRIBUTE private[] = {{CKA_TOKEN, &yes, sizeof yes},        {CKA_PRIVATE, &yes, sizeof yes},
                              {CKA_SENSITIVE, &yes, sizeof yes},    {CKA_EXTRACTABLE, &no, sizeof no},
                              {CKA_UNWRAP, &yes, sizeof yes},       {CKA_DECRYPT, &no, sizeof no},
                              {CKA_LABEL, label, sizeof label - 1}, {CKA_MODIFIABLE, &no, sizeof no}};
    bench.token = site.token;
    CK_FUNCTION_LIST *ck = bench_raw();
    CK_SESSION_HANDLE raw = bench_raw_session();
    assert_int_equal(ck->C_GenerateKeyPair(raw, &mechanism, public, sizeof public / sizeof *public, private,
                                           sizeof private / sizeof *private, &handles[0], &handles[1]),
                     CKR_OK);
    assert_int_equal(ck->C_CloseSession(raw), CKR_OK);
    return KMS_OK;
}

static void a_pair_whose_keys_could_be_read_is_not_taken_for_it(void **state)
{
    (void)state;
    run_must(remove_key);
    run_must(plant_open_pair);
    assert_int_equal(run(make_key), KMS_FAILED_PRECONDITION);
    assert_non_null(strstr(site.err.public_text, "was not made in the token"));
}

static void the_private_half_unwraps_and_does_nothing_else(void **state)
{
    (void)state;
    run_must(check_private_half);
}

int main(void)
{
#define on_a_token(test) cmocka_unit_test_setup_teardown(test, new_site, drop_site)
    const struct CMUnitTest tests[] = {
        on_a_token(imported_keys_are_as_if_they_had_been_made_there),
        on_a_token(a_second_import_changes_nothing_and_undo_takes_all_away),
        on_a_token(what_was_changed_or_is_for_another_key_does_not_get_in),
        on_a_token(the_transport_key_stays_the_same_until_it_is_removed),
        on_a_token(the_private_half_unwraps_and_does_nothing_else),
        on_a_token(a_pair_that_somebody_else_has_put_there_is_not_taken_for_it),
        on_a_token(a_pair_whose_keys_could_be_read_is_not_taken_for_it),
        on_a_token(the_fingerprint_is_that_of_the_private_half),
        on_a_token(what_comes_out_of_it_cannot_be_read_or_wrapped_for_anybody),
    };
    return cmocka_run_group_tests_name("hsm/transport", tests, NULL, NULL);
}
