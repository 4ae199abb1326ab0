/*
 * Goal: master, page and data keys have exactly the rights of their role, cannot leave the token, and die when
 * they shall; the same list on SoftHSM 2 and on NSS softokn.
 */
#include "bench.h"

#include "core/ids.h"

static void a_kek_only_encrypts_and_cannot_leave(void **state)
{
    (void)state;
    const struct kms_hsm_key kek = bench_make_kek();
    bench_assert_usage(kek.handle, true, false, false);
    assert_false(bench_raw_flag(kek.handle, CKA_EXTRACTABLE));
    assert_false(bench_raw_flag(kek.handle, CKA_TOKEN));
    assert_true(bench_raw_flag(kek.handle, CKA_PRIVATE));
    assert_true(bench_raw_flag(kek.handle, CKA_SENSITIVE));

    CK_SESSION_HANDLE session = bench_raw_session();
    CK_BYTE value[64];
    CK_ATTRIBUTE attribute = {CKA_VALUE, value, sizeof value};
    assert_int_equal(bench_raw()->C_GetAttributeValue(session, kek.handle, &attribute, 1),
                     CKR_ATTRIBUTE_SENSITIVE);
    CK_MECHANISM wrap = {CKM_AES_KEY_WRAP, NULL, 0};
    CK_ULONG len = sizeof value;
    const CK_RV wrapped =
        bench_raw()->C_WrapKey(session, &wrap, bench.master.handle, kek.handle, value, &len);
    /* softokn 3.87 does wrap it: its profile says enforces_extractable: false, which is warned of at start */
    assert_int_equal(wrapped, bench.token.kind == KMS_TEST_SOFTHSM ? CKR_KEY_UNEXTRACTABLE : CKR_OK);
    CK_BBOOL yes = CK_TRUE;
    CK_ATTRIBUTE loosen = {CKA_EXTRACTABLE, &yes, sizeof yes};
    assert_int_not_equal(bench_raw()->C_SetAttributeValue(session, kek.handle, &loosen, 1), CKR_OK);
    CK_BBOOL no = CK_FALSE;
    CK_ATTRIBUTE bare = {CKA_SENSITIVE, &no, sizeof no};
    assert_int_not_equal(bench_raw()->C_SetAttributeValue(session, kek.handle, &bare, 1), CKR_OK);
    assert_int_equal(bench_raw()->C_CloseSession(session), CKR_OK);
    must(bench.hsm->ops->destroy(bench.session, kek));
}

static void a_kek_takes_no_other_mechanism_where_the_profile_says_so(void **state)
{
    (void)state;
    const struct kms_hsm_key kek = bench_make_kek();
    CK_SESSION_HANDLE session = bench_raw_session();
    CK_BYTE iv[16] = {0};
    CK_MECHANISM cbc = {CKM_AES_CBC, iv, sizeof iv};
    const CK_RV rv = bench_raw()->C_EncryptInit(session, &cbc, kek.handle);
    /* NSS 3.87 keeps CKA_ALLOWED_MECHANISMS off secret keys, so its profile does not claim it. */
    if (bench.token.kind == KMS_TEST_SOFTHSM)
        assert_int_equal(rv, CKR_MECHANISM_INVALID);
    else
        assert_int_equal(rv, CKR_OK);
    assert_int_equal(bench_raw()->C_CloseSession(session), CKR_OK);
    must(bench.hsm->ops->destroy(bench.session, kek));
}

static void each_role_has_exactly_its_usage(void **state)
{
    (void)state;
    static const struct {
        enum kms_hsm_role role;
        bool encrypt, wrap, unwrap, extractable;
    } roles[] = {{KMS_HSM_PAGE_SERVE, false, false, true, false},
                 {KMS_HSM_PAGE_BUILD, false, true, true, false},
                 {KMS_HSM_KEK_SERVE, true, false, false, false},
                 {KMS_HSM_TRANSIT, false, false, false, true}};
    uint8_t blob[KMS_HSM_WRAPPED_SIZE];
    must(bench.hsm->ops->generate_wrapped(bench.session, bench.master, blob, &bench.err));
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        struct kms_hsm_key key = {0};
        must(bench.hsm->ops->unwrap(bench.session, bench.master, blob, roles[i].role, &key, &bench.err));
        bench_assert_usage(key.handle, roles[i].encrypt, roles[i].wrap, roles[i].unwrap);
        assert_int_equal(bench_raw_flag(key.handle, CKA_EXTRACTABLE), roles[i].extractable);
        assert_true(bench_raw_flag(key.handle, CKA_PRIVATE));
        assert_true(bench_raw_flag(key.handle, CKA_SENSITIVE));
        must(bench.hsm->ops->destroy(bench.session, key));
    }
}

static void a_role_cannot_do_what_another_is_for(void **state)
{
    (void)state;
    uint8_t blob[KMS_HSM_WRAPPED_SIZE];
    uint8_t iv[KMS_HSM_GCM_IV_SIZE] = {0};
    uint8_t sealed[48];
    const uint8_t plain[32] = {0};
    struct kms_hsm_key page = {0};
    struct kms_hsm_key transit = {0};
    struct kms_hsm_key none = {0};
    const struct kms_hsm_key kek = bench_make_kek();
    must(bench.hsm->ops->generate_wrapped(bench.session, bench.master, blob, &bench.err));
    must(bench.hsm->ops->unwrap(bench.session, bench.master, blob, KMS_HSM_PAGE_SERVE, &page, &bench.err));
    must(bench.hsm->ops->unwrap(bench.session, bench.master, blob, KMS_HSM_TRANSIT, &transit, &bench.err));
    const struct kms_slice aad = kms_slice_of(NULL, 0);
    assert_int_equal(
        bench.hsm->ops->gcm_seal(bench.session, page, iv, aad, kms_slice_of(plain, 32), sealed, &bench.err),
        KMS_HSM_REFUSED);
    assert_int_equal(bench.hsm->ops->gcm_seal(bench.session, transit, iv, aad, kms_slice_of(plain, 32),
                                              sealed, &bench.err),
                     KMS_HSM_REFUSED);
    assert_int_equal(bench.hsm->ops->gcm_seal(bench.session, bench.master, iv, aad, kms_slice_of(plain, 32),
                                              sealed, &bench.err),
                     KMS_HSM_REFUSED);
    assert_int_equal(bench.hsm->ops->generate_wrapped(bench.session, page, blob, &bench.err),
                     KMS_HSM_REFUSED);
    assert_int_equal(bench.hsm->ops->generate_wrapped(bench.session, kek, blob, &bench.err), KMS_HSM_REFUSED);
    if (bench.token.kind == KMS_TEST_SOFTHSM) /* softokn: enforces_extractable: false */
        assert_int_equal(bench.hsm->ops->wrap(bench.session, bench.master, page, blob, &bench.err),
                         KMS_HSM_REFUSED);
    assert_int_equal(bench.hsm->ops->unwrap(bench.session, kek, blob, KMS_HSM_KEK_SERVE, &none, &bench.err),
                     KMS_HSM_REFUSED);
    must(bench.hsm->ops->ping(bench.hsm, &bench.err)); /* refusals are not taken for a lost device */
    must(bench.hsm->ops->destroy(bench.session, page));
    must(bench.hsm->ops->destroy(bench.session, transit));
    must(bench.hsm->ops->destroy(bench.session, kek));
}

static void a_key_wrapped_again_is_the_same_key(void **state)
{
    (void)state;
    uint8_t page_blob[KMS_HSM_WRAPPED_SIZE];
    uint8_t kek_blob[KMS_HSM_WRAPPED_SIZE];
    uint8_t again[KMS_HSM_WRAPPED_SIZE];
    uint8_t iv[KMS_HSM_GCM_IV_SIZE] = {3};
    uint8_t sealed[48];
    uint8_t opened[32];
    const uint8_t plain[32] = {5};
    struct kms_hsm_key page = {0};
    struct kms_hsm_key kek = {0};
    struct kms_hsm_key transit = {0};
    struct kms_hsm_key copy = {0};
    must(bench.hsm->ops->generate_wrapped(bench.session, bench.master, page_blob, &bench.err));
    must(bench.hsm->ops->unwrap(bench.session, bench.master, page_blob, KMS_HSM_PAGE_BUILD, &page,
                                &bench.err));
    must(bench.hsm->ops->generate_wrapped(bench.session, bench.master, kek_blob, &bench.err));
    must(bench.hsm->ops->unwrap(bench.session, bench.master, kek_blob, KMS_HSM_KEK_SERVE, &kek, &bench.err));
    must(
        bench.hsm->ops->unwrap(bench.session, bench.master, kek_blob, KMS_HSM_TRANSIT, &transit, &bench.err));
    must(bench.hsm->ops->wrap(bench.session, page, transit, again, &bench.err));
    assert_memory_not_equal(again, kek_blob, sizeof again);
    must(bench.hsm->ops->unwrap(bench.session, page, again, KMS_HSM_KEK_SERVE, &copy, &bench.err));
    const struct kms_slice aad = kms_slice_of(NULL, 0);
    must(bench.hsm->ops->gcm_seal(bench.session, kek, iv, aad, kms_slice_of(plain, 32), sealed, &bench.err));
    must(
        bench.hsm->ops->gcm_open(bench.session, copy, iv, aad, kms_slice_of(sealed, 48), opened, &bench.err));
    assert_memory_equal(plain, opened, 32);
    must(bench.hsm->ops->destroy(bench.session, page));
    must(bench.hsm->ops->destroy(bench.session, kek));
    must(bench.hsm->ops->destroy(bench.session, transit));
    must(bench.hsm->ops->destroy(bench.session, copy));
}

static void unwrap_refuses_every_flipped_byte_and_another_parent(void **state)
{
    (void)state;
    uint8_t blob[KMS_HSM_WRAPPED_SIZE];
    uint8_t page_blob[KMS_HSM_WRAPPED_SIZE];
    struct kms_hsm_key none = {77, 77};
    struct kms_hsm_key page = {0};
    must(bench.hsm->ops->generate_wrapped(bench.session, bench.master, blob, &bench.err));
    for (size_t i = 0; i < sizeof blob; i++) {
        blob[i] ^= 1;
        assert_int_equal(
            bench.hsm->ops->unwrap(bench.session, bench.master, blob, KMS_HSM_KEK_SERVE, &none, &bench.err),
            KMS_BLOB_REFUSED);
        blob[i] ^= 1;
    }
    must(bench.hsm->ops->generate_wrapped(bench.session, bench.master, page_blob, &bench.err));
    must(bench.hsm->ops->unwrap(bench.session, bench.master, page_blob, KMS_HSM_PAGE_SERVE, &page,
                                &bench.err));
    assert_int_equal(bench.hsm->ops->unwrap(bench.session, page, blob, KMS_HSM_KEK_SERVE, &none, &bench.err),
                     KMS_BLOB_REFUSED);
    assert_int_equal(none.handle, 77); /* written only on success */
    must(bench.hsm->ops->ping(bench.hsm, &bench.err));
    must(bench.hsm->ops->destroy(bench.session, page));
}

static void a_master_key_has_its_template(void **state)
{
    (void)state;
    const CK_OBJECT_HANDLE key = bench.master.handle;
    bench_assert_usage(key, false, true, true);
    assert_true(bench_raw_flag(key, CKA_TOKEN));
    assert_true(bench_raw_flag(key, CKA_PRIVATE));
    assert_true(bench_raw_flag(key, CKA_SENSITIVE));
    assert_false(bench_raw_flag(key, CKA_EXTRACTABLE));
    assert_false(bench_raw_flag(key, CKA_MODIFIABLE));
    CK_SESSION_HANDLE session = bench_raw_session();
    CK_BYTE value[64];
    CK_ATTRIBUTE attribute = {CKA_VALUE, value, sizeof value};
    assert_int_equal(bench_raw()->C_GetAttributeValue(session, key, &attribute, 1), CKR_ATTRIBUTE_SENSITIVE);
    assert_int_equal(bench_raw()->C_CloseSession(session), CKR_OK);
}

static void a_master_key_is_found_again_and_others_are_not(void **state)
{
    (void)state;
    struct kms_hsm_key key = {0};
    must(bench.hsm->ops->master_find(bench.session, bench.id, &key, &bench.err));
    assert_int_equal(key.handle, bench.master.handle);
    uint8_t other[KMS_HSM_KEY_ID_SIZE];
    kms_system_random(other, sizeof other);
    assert_int_equal(bench.hsm->ops->master_find(bench.session, other, &key, &bench.err), KMS_NOT_FOUND);
    assert_int_equal(bench.hsm->ops->master_create(bench.session, bench.id, "kms/test/2", &key, &bench.err),
                     KMS_ALREADY_EXISTS);
}

static void a_master_key_dies_with_its_destruction(void **state)
{
    (void)state;
    uint8_t id[KMS_HSM_KEY_ID_SIZE];
    uint8_t blob[KMS_HSM_WRAPPED_SIZE];
    struct kms_hsm_key key = {0};
    struct kms_hsm_key none = {0};
    kms_system_random(id, sizeof id);
    must(bench.hsm->ops->master_create(bench.session, id, "kms/test/3", &key, &bench.err));
    must(bench.hsm->ops->generate_wrapped(bench.session, key, blob, &bench.err));
    must(bench.hsm->ops->master_destroy(bench.session, id, &bench.err));
    assert_int_equal(bench.hsm->ops->master_find(bench.session, id, &none, &bench.err), KMS_NOT_FOUND);
    assert_int_equal(bench.hsm->ops->master_destroy(bench.session, id, &bench.err), KMS_NOT_FOUND);
    assert_int_equal(bench.hsm->ops->unwrap(bench.session, key, blob, KMS_HSM_PAGE_SERVE, &none, &bench.err),
                     KMS_HSM_STALE);
    must(bench.hsm->ops->ping(bench.hsm, &bench.err));
}

static void a_master_key_that_another_process_destroyed_is_stale_then_not_found(void **state)
{
    (void)state;
    uint8_t id[KMS_HSM_KEY_ID_SIZE];
    uint8_t blob[KMS_HSM_WRAPPED_SIZE];
    struct kms_hsm_key key = {0};
    kms_system_random(id, sizeof id);
    must(bench.hsm->ops->master_create(bench.session, id, "kms/test/4", &key, &bench.err));
    CK_SESSION_HANDLE session = bench_raw_session();
    assert_int_equal(bench_raw()->C_DestroyObject(session, key.handle), CKR_OK);
    assert_int_equal(bench_raw()->C_CloseSession(session), CKR_OK);
    assert_int_equal(bench.hsm->ops->generate_wrapped(bench.session, key, blob, &bench.err), KMS_HSM_STALE);
    assert_int_equal(bench.hsm->ops->master_find(bench.session, id, &key, &bench.err), KMS_NOT_FOUND);
    must(bench.hsm->ops->ping(bench.hsm, &bench.err));
}

static void the_list_names_master_keys_and_no_service_key(void **state)
{
    (void)state;
    KMS_FREE struct kms_hsm_master_info *list = NULL;
    size_t count = 0;
    must(bench.hsm->ops->master_list(bench.session, &list, &count, &bench.err));
    assert_int_equal(count, 1);
    assert_string_equal(list[0].label, "kms/test/1");
    assert_memory_equal(list[0].id, bench.id, sizeof bench.id);
}

static void labels_that_are_not_for_master_keys_are_refused(void **state)
{
    (void)state;
    static const char *const labels[] = {
        "kms/integrity", "kms/attestation", "other/1",
        "kms/a-label-that-is-longer-than-the-sixty-four-bytes-that-are-allowed-for-it"};
    uint8_t id[KMS_HSM_KEY_ID_SIZE];
    struct kms_hsm_key key = {0};
    kms_system_random(id, sizeof id);
    for (size_t i = 0; i < sizeof labels / sizeof labels[0]; i++)
        assert_int_equal(bench.hsm->ops->master_create(bench.session, id, labels[i], &key, &bench.err),
                         KMS_INVALID_ARGUMENT);
    assert_int_equal(bench.hsm->ops->master_find(bench.session, id, &key, &bench.err), KMS_NOT_FOUND);
}

static void a_marker_stays_until_it_is_removed_and_is_no_master_key(void **state)
{
    (void)state;
    static const char label[] = "kms/committed/00000000-0000-4000-8000-000000000001";
    bool found = true;
    must(kms_hsm_marker_find(bench.hsm, bench.session, label, &found, &bench.err));
    assert_false(found);
    for (int twice = 0; twice < 2; twice++)
        must(kms_hsm_marker_put(bench.hsm, bench.session, label, &bench.err));
    must(kms_hsm_marker_find(bench.hsm, bench.session, label, &found, &bench.err));
    assert_true(found);
    must(kms_hsm_marker_find(bench.hsm, bench.session, "kms/committed/00000000-0000-4000-8000-000000000002",
                             &found, &bench.err));
    assert_false(found);
    for (int twice = 0; twice < 2; twice++)
        must(kms_hsm_marker_remove(bench.hsm, bench.session, label, &bench.err));
    must(kms_hsm_marker_find(bench.hsm, bench.session, label, &found, &bench.err));
    assert_false(found);
}

static void objects_are_counted_and_a_stale_handle_is_refused(void **state)
{
    (void)state;
    struct kms_hsm_info before;
    struct kms_hsm_info during;
    struct kms_hsm_info after;
    bench.hsm->ops->info(bench.hsm, &before);
    const struct kms_hsm_key kek = bench_make_kek();
    bench.hsm->ops->info(bench.hsm, &during);
    assert_int_equal(during.session_objects, before.session_objects + 1);
    must(bench.hsm->ops->destroy(bench.session, kek));
    must(bench.hsm->ops->destroy(bench.session, kek)); /* gone already: fine, and not counted twice */
    bench.hsm->ops->info(bench.hsm, &after);
    assert_int_equal(after.session_objects, before.session_objects);

    uint8_t iv[KMS_HSM_GCM_IV_SIZE] = {0};
    uint8_t sealed[48];
    const uint8_t plain[32] = {0};
    const struct kms_hsm_key stale[] = {kek, {kek.handle, kek.generation - 1}, {0, 0}};
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(bench.hsm->ops->gcm_seal(bench.session, stale[i], iv, kms_slice_of(NULL, 0),
                                                  kms_slice_of(plain, 32), sealed, &bench.err),
                         KMS_HSM_STALE);
    must(bench.hsm->ops->destroy(bench.session, stale[1]));
}

static void info_tells_what_the_token_is(void **state)
{
    (void)state;
    struct kms_hsm_info info;
    bench.hsm->ops->info(bench.hsm, &info);
    assert_string_equal(info.profile, bench.token.kind == KMS_TEST_SOFTHSM ? "softhsm2" : "nss");
    assert_string_equal(info.label, bench.token.kind == KMS_TEST_SOFTHSM ? "kms" : "NSS Certificate DB");
    assert_int_equal(info.erase_class, 'C');
    assert_true(info.available);
    assert_int_equal(info.sessions_total, 2);
    assert_int_equal(info.sessions_free, 1); /* the bench holds one */
    assert_int_equal(kms_hsm_generation(bench.hsm), info.generation);
}

static void a_checkout_without_a_free_session_ends_at_its_deadline(void **state)
{
    (void)state;
    struct kms_hsm_session *second = NULL;
    struct kms_hsm_session *third = NULL;
    must(kms_hsm_checkout(bench.hsm, 0, &second, &bench.err));
    assert_int_equal(kms_hsm_checkout(bench.hsm, 1, &third, &bench.err), KMS_HSM_UNAVAILABLE);
    kms_hsm_checkin(bench.hsm, second);
    must(kms_hsm_checkout(bench.hsm, 0, &third, &bench.err));
    kms_hsm_checkin(bench.hsm, third);
}

static void long_work_has_a_session_beside_the_pool(void **state)
{
    (void)state;
    struct kms_hsm_session *second = NULL;
    struct kms_hsm_session *background = NULL;
    struct kms_hsm_session *another = NULL;
    uint8_t random[8];
    must(kms_hsm_checkout(bench.hsm, 0, &second, &bench.err)); /* the last one of the pool */
    must(kms_hsm_checkout_background(bench.hsm, 0, &background, &bench.err));
    must(kms_hsm_random(bench.hsm, background, random, sizeof random, &bench.err));
    assert_int_equal(kms_hsm_checkout_background(bench.hsm, 1, &another, &bench.err), KMS_HSM_UNAVAILABLE);
    kms_hsm_checkin(bench.hsm, background);
    assert_int_equal(kms_hsm_checkout(bench.hsm, 1, &another, &bench.err), KMS_HSM_UNAVAILABLE);
    must(kms_hsm_checkout_background(bench.hsm, 0, &background, &bench.err));
    kms_hsm_checkin(bench.hsm, background);
    kms_hsm_checkin(bench.hsm, second);
}

#define LIST                                                                                                 \
    cmocka_unit_test(a_kek_only_encrypts_and_cannot_leave),                                                  \
        cmocka_unit_test(a_kek_takes_no_other_mechanism_where_the_profile_says_so),                          \
        cmocka_unit_test(each_role_has_exactly_its_usage),                                                   \
        cmocka_unit_test(a_role_cannot_do_what_another_is_for),                                              \
        cmocka_unit_test(a_key_wrapped_again_is_the_same_key),                                               \
        cmocka_unit_test(unwrap_refuses_every_flipped_byte_and_another_parent),                              \
        cmocka_unit_test(a_master_key_has_its_template),                                                     \
        cmocka_unit_test(a_master_key_is_found_again_and_others_are_not),                                    \
        cmocka_unit_test(a_master_key_dies_with_its_destruction),                                            \
        cmocka_unit_test(a_master_key_that_another_process_destroyed_is_stale_then_not_found),               \
        cmocka_unit_test(the_list_names_master_keys_and_no_service_key),                                     \
        cmocka_unit_test(labels_that_are_not_for_master_keys_are_refused),                                   \
        cmocka_unit_test(a_marker_stays_until_it_is_removed_and_is_no_master_key),                           \
        cmocka_unit_test(objects_are_counted_and_a_stale_handle_is_refused),                                 \
        cmocka_unit_test(info_tells_what_the_token_is),                                                      \
        cmocka_unit_test(a_checkout_without_a_free_session_ends_at_its_deadline),                            \
        cmocka_unit_test(long_work_has_a_session_beside_the_pool)

int main(void)
{
    const struct CMUnitTest softhsm[] = {LIST};
    const struct CMUnitTest nss[] = {LIST};
    const int failed = cmocka_run_group_tests_name("SoftHSM 2", softhsm, bench_open_softhsm, bench_close);
    return failed + cmocka_run_group_tests_name("NSS softokn", nss, bench_open_nss, bench_close);
}
