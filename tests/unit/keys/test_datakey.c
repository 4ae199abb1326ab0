/* The four data-key operations, the same list on the fake HSM and on a real SoftHSM token. */
#include "unit/keys/fixture.h"

#include "core/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static struct fixture f;

static int with_fake(void **state)
{
    (void)state;
    fixture_new(&f, FIXTURE_FAKE, NULL);
    return 0;
}

static int with_softhsm(void **state)
{
    (void)state;
    fixture_new(&f, FIXTURE_SOFTHSM, NULL);
    return 0;
}

static int clear(void **state)
{
    (void)state;
    fixture_clear(&f);
    return 0;
}

static struct kms_slice wrapped(const struct fixture_blob *blob)
{
    return kms_slice_of(blob->bytes, blob->len);
}

/* A data key of customer c1, purpose service, context k=v. */
static struct fixture_blob make(void)
{
    struct fixture_blob blob = {0};
    if (fixture_generate(&f, "acme", "c1", "service", "k=v", &blob) != KMS_OK)
        fail_msg("%s", kms_error_cause(&f.err, f.err.status));
    return blob;
}

/* Refused with the one answer; `why` is only in the log's cause. */
static void assert_refused(const char *tenant, const char *customer, const char *purpose, const char *context,
                           struct kms_slice bytes)
{
    struct fixture_blob opened = {0};
    assert_int_equal(fixture_unwrap(&f, tenant, customer, purpose, context, bytes, &opened),
                     KMS_BLOB_REFUSED);
    assert_string_equal(f.err.public_text, "");
    assert_string_equal(kms_error_public(&f.err, KMS_BLOB_REFUSED), kms_status_public_text(KMS_BLOB_REFUSED));
    assert_string_not_equal(f.err.cause, "");
    assert_int_equal(opened.plaintext_len, 0);
}

static void a_generated_key_unwraps_to_itself(void **state)
{
    (void)state;
    const struct fixture_blob blob = make();
    assert_int_equal(blob.len, 78);
    assert_int_equal(blob.plaintext_len, 32);
    assert_int_equal(blob.version, 1);
    for (int restarted = 0; restarted < 2; restarted++) {
        struct fixture_blob opened;
        assert_int_equal(fixture_unwrap(&f, "acme", "c1", "service", "k=v", wrapped(&blob), &opened), KMS_OK);
        assert_int_equal(opened.plaintext_len, 32);
        assert_memory_equal(opened.plaintext, blob.plaintext, 32);
        assert_memory_equal(opened.kek_id, blob.kek_id, KMS_KEK_ID_SIZE);
        assert_int_equal(fixture_unwrap(&f, "acme", NULL, NULL, "k=v", wrapped(&blob), &opened), KMS_OK);
        assert_memory_equal(opened.plaintext, blob.plaintext, 32);
        fixture_restart(&f);
    }
}

static void two_generated_keys_have_nothing_in_common(void **state)
{
    (void)state;
    static struct fixture_blob blobs[200]; /* more than one fetch of randomness */
    for (size_t i = 0; i < 200; i++)
        blobs[i] = make();
    for (size_t i = 0; i < 200; i++) {
        for (size_t j = 0; j < i; j++) {
            assert_memory_not_equal(blobs[i].plaintext, blobs[j].plaintext, 32);
            assert_memory_not_equal(blobs[i].bytes + KMS_BLOB_HEADER_SIZE,
                                    blobs[j].bytes + KMS_BLOB_HEADER_SIZE, KMS_BLOB_IV_SIZE);
        }
    }
}

static void every_changed_byte_of_a_blob_is_refused_alike(void **state)
{
    (void)state;
    struct fixture_blob blob = make();
    for (size_t i = 0; i < blob.len; i++) {
        for (unsigned change = 1; change < 256; change *= 2) {
            blob.bytes[i] ^= (uint8_t)change;
            assert_refused("acme", "c1", "service", "k=v", wrapped(&blob));
            blob.bytes[i] ^= (uint8_t)change;
        }
    }
    struct fixture_blob opened;
    assert_int_equal(fixture_unwrap(&f, "acme", "c1", "service", "k=v", wrapped(&blob), &opened), KMS_OK);
}

static void a_truncated_or_extended_blob_is_refused(void **state)
{
    (void)state;
    struct fixture_blob blob = make();
    const size_t len = blob.len;
    for (blob.len = 0; blob.len < len + 20; blob.len++) {
        if (blob.len != len)
            assert_refused("acme", NULL, NULL, "k=v", wrapped(&blob));
    }
    blob.len = len;
    blob.bytes[0] = 2; /* a future format */
    assert_refused("acme", NULL, NULL, "k=v", wrapped(&blob));
}

static void another_owner_or_context_is_refused(void **state)
{
    (void)state;
    (void)fixture_tenant(&f, "other");
    fixture_purpose(&f, "other", "service");
    fixture_customer(&f, "other", "c1");
    fixture_customer(&f, "acme", "c2");
    const struct fixture_blob blob = make();
    for (int restarted = 0; restarted < 2; restarted++) { /* cached, and not */
        assert_refused("acme", "c1", "service", NULL, wrapped(&blob));
        assert_refused("acme", "c1", "service", "k=w", wrapped(&blob));
        assert_refused("acme", "c1", "service", "l=v", wrapped(&blob));
        assert_refused("acme", "c1", "kyc", "k=v", wrapped(&blob));
        assert_refused("acme", "c1", "nothing", "k=v", wrapped(&blob));
        assert_refused("acme", "c2", "service", "k=v", wrapped(&blob));
        assert_refused("acme", "nobody", NULL, "k=v", wrapped(&blob));
        assert_refused("other", "c1", "service", "k=v", wrapped(&blob));
        assert_refused("other", NULL, NULL, "k=v", wrapped(&blob));
        assert_refused("missing", NULL, NULL, "k=v", wrapped(&blob));
        fixture_restart(&f);
    }
}

static void a_key_without_plaintext_can_be_unwrapped_later(void **state)
{
    (void)state;
    const struct kms_key_owner owner = {"acme", "c1", "service"};
    struct kms_keys_work *work = NULL;
    struct kms_data_key key = {0};
    struct kms_data_key opened = {0};
    assert_int_equal(kms_keys_work_begin(f.keys, INT64_MAX, &work, &f.err), KMS_OK);
    const struct kms_slice context = fixture_context(&f, NULL);
    assert_int_equal(
        kms_keys_generate(work, f.arena, &owner, context, KMS_KEY_SPEC_AES_128, false, &key, &f.err), KMS_OK);
    assert_int_equal(kms_keys_work_commit(work, &f.err), KMS_OK);
    assert_int_equal(key.plaintext.len, 0);
    assert_int_equal(key.wrapped.len, KMS_BLOB_OVERHEAD + 16);
    assert_int_equal(kms_keys_unwrap(work, f.arena, &owner, context, key.wrapped, &opened, &f.err), KMS_OK);
    assert_int_equal(opened.plaintext.len, 16);
    assert_int_equal(opened.spec, KMS_KEY_SPEC_AES_128);
    assert_string_equal(opened.purpose, "service");
    kms_keys_work_end(work);
}

static void only_known_specs_are_generated(void **state)
{
    (void)state;
    const struct kms_key_owner owner = {"acme", "c1", "service"};
    static const enum kms_key_spec bad[] = {KMS_KEY_SPEC_RAW, (enum kms_key_spec)0, (enum kms_key_spec)77};
    struct kms_keys_work *work = NULL;
    struct kms_data_key key;
    assert_int_equal(kms_keys_work_begin(f.keys, INT64_MAX, &work, &f.err), KMS_OK);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(
            kms_keys_generate(work, f.arena, &owner, fixture_context(&f, NULL), bad[i], true, &key, &f.err),
            KMS_INVALID_ARGUMENT);
    kms_keys_work_end(work);
}

static void material_of_16_to_4096_bytes_can_be_wrapped(void **state)
{
    (void)state;
    static uint8_t material[KMS_RAW_KEY_MAX + 1];
    static const size_t good[] = {16, 17, 32, 1000, 4096};
    static const size_t bad[] = {0, 15, 4097};
    const struct kms_key_owner owner = {"acme", "c1", "kyc"};
    memset(material, 0x77, sizeof material);
    struct kms_keys_work *work = NULL;
    struct kms_data_key key = {0};
    struct kms_data_key opened = {0};
    assert_int_equal(kms_keys_work_begin(f.keys, INT64_MAX, &work, &f.err), KMS_OK);
    const struct kms_slice context = fixture_context(&f, NULL);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        const struct kms_slice given = kms_slice_of(material, good[i]);
        assert_int_equal(kms_keys_wrap(work, f.arena, &owner, context, given, &key, &f.err), KMS_OK);
        assert_int_equal(key.plaintext.len, 0);
        assert_int_equal(kms_keys_unwrap(work, f.arena, &owner, context, key.wrapped, &opened, &f.err),
                         KMS_OK);
        assert_true(kms_slice_equal(opened.plaintext, given));
        assert_int_equal(opened.spec, KMS_KEY_SPEC_RAW);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(
            kms_keys_wrap(work, f.arena, &owner, context, kms_slice_of(material, bad[i]), &key, &f.err),
            KMS_INVALID_ARGUMENT);
    assert_int_equal(kms_keys_work_commit(work, &f.err), KMS_OK);
    kms_keys_work_end(work);
}

/* Rewrap in a work of its own. */
static enum kms_status rewrap(const struct kms_key_owner *owner, const char *context,
                              const struct fixture_blob *blob, struct fixture_blob *ret_blob)
{
    f.err = (struct kms_error){0};
    struct kms_keys_work *work = NULL;
    struct kms_data_key key = {0};
    assert_int_equal(kms_keys_work_begin(f.keys, INT64_MAX, &work, &f.err), KMS_OK);
    const enum kms_status status =
        kms_keys_rewrap(work, f.arena, owner, fixture_context(&f, context), wrapped(blob), &key, &f.err);
    if (status == KMS_OK) {
        assert_int_equal(kms_keys_work_commit(work, &f.err), KMS_OK);
        assert_int_equal(key.plaintext.len, 0);
        *ret_blob = (struct fixture_blob){
            .len = key.wrapped.len, .version = key.kek_version, .previous_version = key.previous_kek_version};
        memcpy(ret_blob->bytes, key.wrapped.data, key.wrapped.len);
    }
    kms_keys_work_end(work);
    kms_arena_reset(f.arena);
    return status;
}

static void a_rewrapped_key_is_the_same_key_in_another_blob(void **state)
{
    (void)state;
    const struct fixture_blob blob = make();
    struct fixture_blob again;
    struct fixture_blob opened;
    const struct kms_key_owner owner = {"acme", NULL, NULL};
    assert_int_equal(rewrap(&owner, "k=v", &blob, &again), KMS_OK);
    assert_int_equal(again.len, blob.len);
    assert_memory_not_equal(again.bytes, blob.bytes, blob.len);
    assert_int_equal(again.version, 1);
    assert_int_equal(again.previous_version, 1);
    assert_int_equal(fixture_unwrap(&f, "acme", "c1", "service", "k=v", wrapped(&again), &opened), KMS_OK);
    assert_memory_equal(opened.plaintext, blob.plaintext, 32);
    assert_int_equal(rewrap(&owner, "k=w", &blob, &again), KMS_BLOB_REFUSED);
    const struct kms_key_owner wrong = {"acme", "nobody", NULL};
    assert_int_equal(rewrap(&wrong, "k=v", &blob, &again), KMS_BLOB_REFUSED);
}

static void unknown_names_are_not_found_and_named(void **state)
{
    (void)state;
    struct fixture_blob blob;
    assert_int_equal(fixture_generate(&f, "nobody", "c1", "service", NULL, &blob), KMS_NOT_FOUND);
    assert_non_null(strstr(f.err.public_text, "tenant 'nobody'"));
    assert_int_equal(fixture_generate(&f, "acme", "c9", "service", NULL, &blob), KMS_NOT_FOUND);
    assert_non_null(strstr(f.err.public_text, "customer 'c9'"));
    assert_int_equal(fixture_generate(&f, "acme", "c1", "none", NULL, &blob), KMS_NOT_FOUND);
    assert_non_null(strstr(f.err.public_text, "purpose 'none'"));
    char long_name[400];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    assert_int_equal(fixture_generate(&f, "acme", long_name, "service", NULL, &blob), KMS_INVALID_ARGUMENT);
}

/* Both directions fail because something is closed, and a stranger still learns nothing. */
static void assert_closed(const struct fixture_blob *blob, const char *word)
{
    struct fixture_blob result;
    assert_int_equal(fixture_generate(&f, "acme", "c1", "service", "k=v", &result), KMS_FAILED_PRECONDITION);
    assert_non_null(strstr(f.err.public_text, word));
    assert_int_equal(fixture_unwrap(&f, "acme", NULL, NULL, "k=v", wrapped(blob), &result),
                     KMS_FAILED_PRECONDITION);
    assert_non_null(strstr(f.err.public_text, word));
    assert_refused("other", NULL, NULL, "k=v", wrapped(blob));
    assert_refused("acme", "c2", NULL, "k=v", wrapped(blob));
}

static void closed_tenants_purposes_and_customers_are_refused_at_once(void **state)
{
    (void)state;
    const struct fixture_blob blob = make();
    const struct kms_uuid tenant = fixture_tenant_record(&f, "acme").uuid;
    const struct kms_uuid customer = fixture_customer_uuid(&f, "acme", "c1");
    fixture_set_customer_state(&f, "acme", "c1", KMS_CUSTOMER_CLOSED);
    kms_keys_forget(f.keys, &tenant, &customer);
    assert_closed(&blob, "customer");
    fixture_set_customer_state(&f, "acme", "c1", KMS_CUSTOMER_ACTIVE);
    (void)make();
    fixture_set_purpose_state(&f, "acme", "service", KMS_PURPOSE_CLOSED);
    kms_keys_forget_purpose(f.keys, &tenant, "service");
    assert_closed(&blob, "purpose");
    fixture_set_purpose_state(&f, "acme", "service", KMS_PURPOSE_ACTIVE);
    (void)make();
    fixture_set_tenant_state(&f, "acme", KMS_TENANT_CLOSED);
    kms_keys_forget(f.keys, &tenant, NULL);
    assert_closed(&blob, "tenant");
    struct kms_keys_stats stats;
    kms_keys_stats(f.keys, &stats);
    assert_int_equal(stats.kek_cached + stats.page_cached, 0);
}

static void forgetting_one_leaves_the_others(void **state)
{
    (void)state;
    struct fixture_blob blob;
    fixture_customer(&f, "acme", "c2");
    (void)make();
    assert_int_equal(fixture_generate(&f, "acme", "c2", "service", NULL, &blob), KMS_OK);
    assert_int_equal(fixture_generate(&f, "acme", "c2", "kyc", NULL, &blob), KMS_OK);
    const struct kms_uuid tenant = fixture_tenant_record(&f, "acme").uuid;
    const struct kms_uuid stranger = kms_uuid_random();
    const struct kms_uuid customer = fixture_customer_uuid(&f, "acme", "c1");
    struct kms_keys_stats stats;
    kms_keys_forget(f.keys, &stranger, NULL);
    kms_keys_forget(f.keys, &tenant, &stranger);
    kms_keys_forget_purpose(f.keys, &tenant, "none");
    kms_keys_stats(f.keys, &stats);
    assert_int_equal(stats.kek_cached, 3);
    kms_keys_forget(f.keys, &tenant, &customer);
    kms_keys_stats(f.keys, &stats);
    assert_int_equal(stats.kek_cached, 2);
    kms_keys_forget_purpose(f.keys, &tenant, "kyc");
    kms_keys_stats(f.keys, &stats);
    assert_int_equal(stats.kek_cached, 1);
    assert_int_not_equal(stats.page_cached, 0);
}

static void disabled_and_shredded_versions_do_not_serve(void **state)
{
    (void)state;
    const struct fixture_blob blob = make();
    const struct kms_uuid tenant = fixture_tenant_record(&f, "acme").uuid;
    struct fixture_blob result;
    fixture_set_kek_state(&f, blob.kek_id, KMS_KEK_DISABLED);
    kms_keys_forget(f.keys, &tenant, NULL);
    assert_int_equal(fixture_unwrap(&f, "acme", "c1", "service", "k=v", wrapped(&blob), &result),
                     KMS_FAILED_PRECONDITION);
    assert_non_null(strstr(f.err.public_text, "disabled"));
    assert_int_equal(fixture_generate(&f, "acme", "c1", "service", NULL, &result), KMS_FAILED_PRECONDITION);
    assert_non_null(strstr(f.err.public_text, "enabled"));
    fixture_set_kek_state(&f, blob.kek_id, KMS_KEK_SHREDDED);
    assert_refused("acme", "c1", "service", "k=v", wrapped(&blob));
    assert_int_equal(fixture_generate(&f, "acme", "c1", "service", NULL, &result), KMS_FAILED_PRECONDITION);
}

static void what_serves_twice_is_loaded_once(void **state)
{
    (void)state;
    struct kms_keys_stats stats;
    const struct fixture_blob blob = make();
    struct fixture_blob opened;
    (void)make();
    assert_int_equal(fixture_unwrap(&f, "acme", "c1", "service", "k=v", wrapped(&blob), &opened), KMS_OK);
    kms_keys_stats(f.keys, &stats);
    assert_int_equal(stats.kek_misses, 1);
    assert_int_equal(stats.kek_hits, 2);
    assert_int_equal(stats.kek_cached, 1);
    assert_int_equal(stats.keks_created, 1);
    assert_int_equal(stats.wraps, 2);
    assert_int_equal(stats.unwraps, 1);
    fixture_restart(&f); /* an unwrap loads for a later wrap too */
    assert_int_equal(fixture_unwrap(&f, "acme", NULL, NULL, "k=v", wrapped(&blob), &opened), KMS_OK);
    (void)make();
    (void)make();
    kms_keys_stats(f.keys, &stats);
    assert_int_equal(stats.kek_misses, 1);
    assert_int_equal(stats.kek_hits, 2);
    assert_int_equal(stats.kek_cached, 1);
}

static void neighbours_share_their_pages_key(void **state)
{
    (void)state;
    fixture_bulk(&f, "acme", "b", 40);
    fixture_restart(&f);
    struct fixture_blob blob;
    for (unsigned i = 0; i < 40; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "b%u", i);
        assert_int_equal(fixture_generate(&f, "acme", name, "service", NULL, &blob), KMS_OK);
    }
    struct kms_keys_stats stats;
    kms_keys_stats(f.keys, &stats);
    assert_int_equal(stats.kek_cached, 40);
    assert_int_equal(stats.page_cached, 4); /* three leaves and the root */
    assert_int_equal(stats.page_misses, 4);
}

#define LIST(on)                                                                                             \
    cmocka_unit_test_setup_teardown(a_generated_key_unwraps_to_itself, on, clear),                           \
        cmocka_unit_test_setup_teardown(two_generated_keys_have_nothing_in_common, on, clear),               \
        cmocka_unit_test_setup_teardown(every_changed_byte_of_a_blob_is_refused_alike, on, clear),           \
        cmocka_unit_test_setup_teardown(a_truncated_or_extended_blob_is_refused, on, clear),                 \
        cmocka_unit_test_setup_teardown(another_owner_or_context_is_refused, on, clear),                     \
        cmocka_unit_test_setup_teardown(a_key_without_plaintext_can_be_unwrapped_later, on, clear),          \
        cmocka_unit_test_setup_teardown(only_known_specs_are_generated, on, clear),                          \
        cmocka_unit_test_setup_teardown(material_of_16_to_4096_bytes_can_be_wrapped, on, clear),             \
        cmocka_unit_test_setup_teardown(a_rewrapped_key_is_the_same_key_in_another_blob, on, clear),         \
        cmocka_unit_test_setup_teardown(unknown_names_are_not_found_and_named, on, clear),                   \
        cmocka_unit_test_setup_teardown(closed_tenants_purposes_and_customers_are_refused_at_once, on,       \
                                        clear),                                                              \
        cmocka_unit_test_setup_teardown(forgetting_one_leaves_the_others, on, clear),                        \
        cmocka_unit_test_setup_teardown(disabled_and_shredded_versions_do_not_serve, on, clear),             \
        cmocka_unit_test_setup_teardown(what_serves_twice_is_loaded_once, on, clear),                        \
        cmocka_unit_test_setup_teardown(neighbours_share_their_pages_key, on, clear)

int main(void)
{
    const struct CMUnitTest on_fake[] = {LIST(with_fake)};
    const struct CMUnitTest on_softhsm[] = {LIST(with_softhsm)};
    const int failed = cmocka_run_group_tests_name("fake HSM", on_fake, NULL, NULL);
    return failed + cmocka_run_group_tests_name("SoftHSM", on_softhsm, NULL, NULL);
}
