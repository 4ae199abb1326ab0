/*
 * Goal: randomness, AES-GCM, HMAC and signatures on a real token, positive and negative; the same list on
 * SoftHSM 2 and on NSS softokn.
 */
#include "bench.h"

#include "core/ids.h"

#include <openssl/evp.h>
#include <openssl/pem.h>

static void random_bytes_differ_and_have_any_length_up_to_the_limit(void **state)
{
    (void)state;
    uint8_t a[64] = {0};
    uint8_t b[64] = {0};
    must(bench.hsm->ops->random(bench.session, a, sizeof a, &bench.err));
    must(bench.hsm->ops->random(bench.session, b, sizeof b, &bench.err));
    assert_memory_not_equal(a, b, sizeof a);
    must(bench.hsm->ops->random(bench.session, a, 0, &bench.err));
    KMS_FREE uint8_t *large = calloc(1, 1 << 20);
    assert_non_null(large);
    must(bench.hsm->ops->random(bench.session, large, 1 << 20, &bench.err));
    assert_int_equal(bench.hsm->ops->random(bench.session, large, (1 << 20) + 1, &bench.err),
                     KMS_INVALID_ARGUMENT);
}

static void gcm_opens_what_it_sealed_at_every_size(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 15, 16, 32, 4096};
    const struct kms_hsm_key kek = bench_make_kek();
    uint8_t iv[KMS_HSM_GCM_IV_SIZE] = {1, 2, 3};
    uint8_t plain[4096];
    uint8_t sealed[4096 + KMS_HSM_GCM_TAG_SIZE];
    kms_system_random(plain, sizeof plain);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        /* exactly as much room as hsm.h promises */
        KMS_FREE uint8_t *opened = malloc(sizes[i] > 0 ? sizes[i] : 1);
        must(bench.hsm->ops->gcm_seal(bench.session, kek, iv, kms_slice_str("context"),
                                      kms_slice_of(plain, sizes[i]), sealed, &bench.err));
        must(bench.hsm->ops->gcm_open(bench.session, kek, iv, kms_slice_str("context"),
                                      kms_slice_of(sealed, sizes[i] + KMS_HSM_GCM_TAG_SIZE), opened,
                                      &bench.err));
        assert_memory_equal(plain, opened, sizes[i]);
    }
    must(bench.hsm->ops->destroy(bench.session, kek));
}

static void gcm_is_a_function_of_key_iv_text_and_context(void **state)
{
    (void)state;
    /* The HSM's key is not known, so compare properties: same key, IV and AAD give the same ciphertext. */
    const struct kms_hsm_key kek = bench_make_kek();
    uint8_t iv[KMS_HSM_GCM_IV_SIZE] = {7};
    uint8_t first[48];
    uint8_t second[48];
    uint8_t other_aad[48];
    const uint8_t plain[32] = {42};
    must(bench.hsm->ops->gcm_seal(bench.session, kek, iv, kms_slice_str("a"), kms_slice_of(plain, 32), first,
                                  &bench.err));
    must(bench.hsm->ops->gcm_seal(bench.session, kek, iv, kms_slice_str("a"), kms_slice_of(plain, 32), second,
                                  &bench.err));
    must(bench.hsm->ops->gcm_seal(bench.session, kek, iv, kms_slice_str("b"), kms_slice_of(plain, 32),
                                  other_aad, &bench.err));
    assert_memory_equal(first, second, sizeof first);
    assert_memory_equal(first, other_aad, 32);
    assert_memory_not_equal(first + 32, other_aad + 32, 16);
    must(bench.hsm->ops->destroy(bench.session, kek));
}

static void gcm_refuses_every_flipped_byte_with_one_answer_and_wipes(void **state)
{
    (void)state;
    const struct kms_hsm_key kek = bench_make_kek();
    uint8_t iv[KMS_HSM_GCM_IV_SIZE] = {9};
    const uint8_t plain[32] = {42};
    uint8_t sealed[48];
    uint8_t opened[32];
    must(bench.hsm->ops->gcm_seal(bench.session, kek, iv, kms_slice_str("aad"), kms_slice_of(plain, 32),
                                  sealed, &bench.err));
    static const uint8_t wiped[32];
    for (size_t i = 0; i < sizeof sealed; i++) {
        sealed[i] ^= 0x40;
        memset(opened, 0xee, sizeof opened);
        assert_int_equal(bench.hsm->ops->gcm_open(bench.session, kek, iv, kms_slice_str("aad"),
                                                  kms_slice_of(sealed, sizeof sealed), opened, &bench.err),
                         KMS_BLOB_REFUSED);
        assert_memory_equal(opened, wiped, sizeof opened);
        sealed[i] ^= 0x40;
    }
    must(bench.hsm->ops->gcm_open(bench.session, kek, iv, kms_slice_str("aad"),
                                  kms_slice_of(sealed, sizeof sealed), opened, &bench.err));
    must(bench.hsm->ops->destroy(bench.session, kek));
}

static void gcm_refuses_another_key_iv_context_and_length(void **state)
{
    (void)state;
    const struct kms_hsm_key kek = bench_make_kek();
    const struct kms_hsm_key other = bench_make_kek();
    uint8_t iv[KMS_HSM_GCM_IV_SIZE] = {9};
    uint8_t other_iv[KMS_HSM_GCM_IV_SIZE] = {10};
    const uint8_t plain[32] = {42};
    uint8_t sealed[48];
    uint8_t opened[48];
    const struct kms_slice aad = kms_slice_str("aad");
    const struct kms_slice all = kms_slice_of(sealed, sizeof sealed);
    must(bench.hsm->ops->gcm_seal(bench.session, kek, iv, aad, kms_slice_of(plain, 32), sealed, &bench.err));
    assert_int_equal(bench.hsm->ops->gcm_open(bench.session, other, iv, aad, all, opened, &bench.err),
                     KMS_BLOB_REFUSED);
    assert_int_equal(bench.hsm->ops->gcm_open(bench.session, kek, other_iv, aad, all, opened, &bench.err),
                     KMS_BLOB_REFUSED);
    assert_int_equal(
        bench.hsm->ops->gcm_open(bench.session, kek, iv, kms_slice_str("aae"), all, opened, &bench.err),
        KMS_BLOB_REFUSED);
    assert_int_equal(
        bench.hsm->ops->gcm_open(bench.session, kek, iv, kms_slice_of(NULL, 0), all, opened, &bench.err),
        KMS_BLOB_REFUSED);
    for (size_t len = 0; len < sizeof sealed; len++)
        assert_int_equal(bench.hsm->ops->gcm_open(bench.session, kek, iv, aad, kms_slice_of(sealed, len),
                                                  opened, &bench.err),
                         KMS_BLOB_REFUSED);
    must(bench.hsm->ops->ping(bench.hsm, &bench.err));
    must(bench.hsm->ops->destroy(bench.session, kek));
    must(bench.hsm->ops->destroy(bench.session, other));
}

static void the_mac_depends_on_every_byte_and_works_for_large_input(void **state)
{
    (void)state;
    uint8_t data[5000];
    uint8_t first[KMS_HSM_MAC_SIZE];
    uint8_t second[KMS_HSM_MAC_SIZE];
    kms_system_random(data, sizeof data);
    must(bench.hsm->ops->mac(bench.session, kms_slice_of(data, sizeof data), first, &bench.err));
    must(bench.hsm->ops->mac(bench.session, kms_slice_of(data, sizeof data), second, &bench.err));
    assert_memory_equal(first, second, sizeof first);
    for (size_t i = 0; i < sizeof data; i += 499) {
        data[i] ^= 1;
        must(bench.hsm->ops->mac(bench.session, kms_slice_of(data, sizeof data), second, &bench.err));
        assert_memory_not_equal(first, second, sizeof first);
        data[i] ^= 1;
    }
    must(bench.hsm->ops->mac(bench.session, kms_slice_of(NULL, 0), second, &bench.err));
}

static void a_signature_verifies_with_openssl_and_not_for_other_text(void **state)
{
    (void)state;
    KMS_FREE char *pem = NULL;
    uint8_t signature[KMS_HSM_SIGNATURE_MAX];
    size_t len = 0;
    must(bench.hsm->ops->attestation_public_pem(bench.hsm, &pem, &bench.err));
    must(bench.hsm->ops->sign(bench.hsm, kms_slice_str("checkpoint"), signature, &len, &bench.err));
    assert_in_range(len, 8, KMS_HSM_SIGNATURE_MAX);
    BIO *bio = BIO_new_mem_buf(pem, -1);
    EVP_PKEY *key = PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);
    assert_non_null(key);
    assert_int_equal(EVP_PKEY_get_bits(key), 256);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    assert_int_equal(EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key), 1);
    assert_int_equal(EVP_DigestVerify(context, signature, len, (const uint8_t *)"checkpoint", 10), 1);
    assert_int_equal(EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key), 1);
    assert_int_not_equal(EVP_DigestVerify(context, signature, len, (const uint8_t *)"checkpoinu", 10), 1);
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(key);
    BIO_free(bio);
}

#define LIST                                                                                                 \
    cmocka_unit_test(random_bytes_differ_and_have_any_length_up_to_the_limit),                               \
        cmocka_unit_test(gcm_opens_what_it_sealed_at_every_size),                                            \
        cmocka_unit_test(gcm_is_a_function_of_key_iv_text_and_context),                                      \
        cmocka_unit_test(gcm_refuses_every_flipped_byte_with_one_answer_and_wipes),                          \
        cmocka_unit_test(gcm_refuses_another_key_iv_context_and_length),                                     \
        cmocka_unit_test(the_mac_depends_on_every_byte_and_works_for_large_input),                           \
        cmocka_unit_test(a_signature_verifies_with_openssl_and_not_for_other_text)

int main(void)
{
    const struct CMUnitTest softhsm[] = {LIST};
    const struct CMUnitTest nss[] = {LIST};
    const int failed = cmocka_run_group_tests_name("SoftHSM 2", softhsm, bench_open_softhsm, bench_close);
    return failed + cmocka_run_group_tests_name("NSS softokn", nss, bench_open_nss, bench_close);
}
