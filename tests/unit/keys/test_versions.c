/* Versions of KEKs: rotated by hand and by schedule, enabled and disabled, and how many of their blobs are rewrapped. */
#include "keys/page.h"
#include "keys/rekey.h"
#include "unit/keys/fixture.h"

#include "core/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static struct fixture f;
static struct kms_uuid tenant;
static struct kms_uuid customer;

static int setup(void **state)
{
    (void)state;
    fixture_new(&f, FIXTURE_FAKE, NULL);
    tenant = fixture_tenant_record(&f, "acme").uuid;
    customer = fixture_customer_uuid(&f, "acme", "c1");
    return 0;
}

static int clear(void **state)
{
    (void)state;
    fixture_clear(&f);
    return 0;
}

static struct fixture_blob wrap(void)
{
    struct fixture_blob blob;
    assert_int_equal(fixture_generate(&f, "acme", "c1", "service", NULL, &blob), KMS_OK);
    return blob;
}

static enum kms_status unwrap(const struct fixture_blob *blob)
{
    struct fixture_blob opened;
    const enum kms_status status =
        fixture_unwrap(&f, "acme", "c1", "service", NULL, kms_slice_of(blob->bytes, blob->len), &opened);
    if (status == KMS_OK)
        assert_memory_equal(opened.plaintext, blob->plaintext, blob->plaintext_len);
    return status;
}

static struct kms_kek_record rotate(void)
{
    struct kms_kek_record kek;
    assert_int_equal(kms_keys_rotate_kek(f.keys, &tenant, &customer, "service", &kek, &f.err), KMS_OK);
    return kek;
}

static enum kms_status set_state(uint32_t version, enum kms_kek_state state)
{
    f.err = (struct kms_error){0};
    return kms_keys_set_version_state(f.keys, &tenant, &customer, "service", version, state, &f.err);
}

static void a_new_version_wraps_and_the_old_one_opens(void **state)
{
    (void)state;
    const struct fixture_blob first = wrap();
    assert_int_equal(rotate().version, 2);
    const struct fixture_blob second = wrap(); /* the old handle was cached */
    assert_int_equal(first.version, 1);
    assert_int_equal(second.version, 2);
    assert_int_equal(rotate().version, 3);
    fixture_restart(&f);
    assert_int_equal(wrap().version, 3);
    assert_int_equal(unwrap(&first), KMS_OK);
    assert_int_equal(unwrap(&second), KMS_OK);
    fixture_check_no_stray_keys(&f);
}

static void what_cannot_be_rotated_is_told(void **state)
{
    (void)state;
    struct kms_kek_record kek;
    assert_int_equal(kms_keys_rotate_kek(f.keys, &tenant, &customer, "service", &kek, &f.err), KMS_NOT_FOUND);
    (void)wrap();
    const struct kms_uuid nobody = kms_uuid_random();
    assert_int_equal(kms_keys_rotate_kek(f.keys, &tenant, &nobody, "service", &kek, &f.err), KMS_NOT_FOUND);
    assert_int_equal(kms_keys_rotate_kek(f.keys, &nobody, &customer, "service", &kek, &f.err), KMS_NOT_FOUND);
    assert_int_equal(kms_keys_rotate_kek(f.keys, &tenant, &customer, "marketing", &kek, &f.err),
                     KMS_NOT_FOUND);
    (void)fixture_tenant(&f, "beta");
    fixture_purpose(&f, "beta", "service");
    const struct kms_uuid beta = fixture_tenant_record(&f, "beta").uuid;
    assert_int_equal(kms_keys_rotate_kek(f.keys, &beta, &customer, "service", &kek, &f.err), KMS_NOT_FOUND);
    fixture_set_customer_state(&f, "acme", "c1", KMS_CUSTOMER_CLOSED);
    assert_int_equal(kms_keys_rotate_kek(f.keys, &tenant, &customer, "service", &kek, &f.err),
                     KMS_FAILED_PRECONDITION);
}

static void a_disabled_version_does_nothing_until_it_is_enabled(void **state)
{
    (void)state;
    const struct fixture_blob first = wrap();
    (void)rotate();
    const struct fixture_blob second = wrap();
    assert_int_equal(set_state(2, KMS_KEK_DISABLED), KMS_OK);
    assert_int_equal(unwrap(&second), KMS_FAILED_PRECONDITION); /* its handle was cached */
    assert_int_equal(unwrap(&first), KMS_OK);
    assert_int_equal(wrap().version, 1); /* the highest enabled one */
    assert_int_equal(set_state(1, KMS_KEK_DISABLED), KMS_OK);
    struct fixture_blob blob;
    assert_int_equal(fixture_generate(&f, "acme", "c1", "service", NULL, &blob), KMS_FAILED_PRECONDITION);
    fixture_restart(&f);
    assert_int_equal(unwrap(&first), KMS_FAILED_PRECONDITION);
    struct kms_page_record record = fixture_page(&f, "acme", 0, 0);
    struct kms_page page;
    assert_int_equal(kms_page_decode(kms_slice_of(record.body, record.body_len), &page), KMS_OK);
    assert_int_equal(page.slots[0].state, KMS_KEK_DISABLED);
    kms_page_record_clear(&record);
    assert_int_equal(set_state(2, KMS_KEK_ENABLED), KMS_OK);
    assert_int_equal(unwrap(&second), KMS_OK);
    assert_int_equal(wrap().version, 2);
    fixture_check_no_stray_keys(&f);
}

static void states_of_versions_that_are_not_there_cannot_be_set(void **state)
{
    (void)state;
    (void)wrap();
    assert_int_equal(set_state(0, KMS_KEK_DISABLED), KMS_INVALID_ARGUMENT);
    assert_int_equal(set_state(1, KMS_KEK_SHREDDED), KMS_INVALID_ARGUMENT);
    assert_int_equal(set_state(2, KMS_KEK_DISABLED), KMS_NOT_FOUND);
    const struct kms_uuid nobody = kms_uuid_random();
    assert_int_equal(
        kms_keys_set_version_state(f.keys, &tenant, &nobody, "service", 1, KMS_KEK_DISABLED, &f.err),
        KMS_NOT_FOUND);
    assert_int_equal(
        kms_keys_set_version_state(f.keys, &nobody, &customer, "service", 1, KMS_KEK_DISABLED, &f.err),
        KMS_NOT_FOUND);
}

static void rewraps_are_counted_per_version(void **state)
{
    (void)state;
    struct fixture_blob old[5];
    for (unsigned i = 0; i < 5; i++)
        old[i] = wrap();
    (void)rotate();
    struct kms_keys_work *work = NULL;
    const struct kms_key_owner owner = {.tenant = "acme"};
    assert_int_equal(kms_keys_work_begin(f.keys, INT64_MAX, &work, &f.err), KMS_OK);
    for (unsigned i = 0; i < 3; i++) {
        struct kms_data_key key = {0};
        assert_int_equal(kms_keys_rewrap(work, f.arena, &owner, fixture_context(&f, NULL),
                                         kms_slice_of(old[i].bytes, old[i].len), &key, &f.err),
                         KMS_OK);
        assert_int_equal(key.previous_kek_version, 1);
        assert_int_equal(key.kek_version, 2);
        struct kms_data_key again = {0}; /* under the primary already: nothing is rewrapped away */
        assert_int_equal(
            kms_keys_rewrap(work, f.arena, &owner, fixture_context(&f, NULL), key.wrapped, &again, &f.err),
            KMS_OK);
    }
    assert_int_equal(kms_keys_work_commit(work, &f.err), KMS_OK);
    kms_keys_work_end(work);
    kms_fault_store_fail_after(f.store, 1, KMS_STORE_BUSY);
    kms_keys_expire(f.keys); /* cannot write now, and keeps the count */
    assert_int_equal(kms_fault_store_failure_is_pending(f.store), 0);
    kms_keys_expire(f.keys);
    struct kms_kek_record kek;
    struct kms_txn txn = {0};
    assert_int_equal(kms_txn_begin(f.store, false, &txn, &f.err), KMS_OK);
    assert_int_equal(f.store->ops->kek_by_id(txn.txn, old[0].kek_id, &kek, &f.err), KMS_OK);
    kms_txn_clear(&txn);
    assert_int_equal(kek.rewrapped, 3);
    assert_int_equal(fixture_kek(&f, "acme", "c1", "service").rewrapped, 0);
}

static void the_schedule_rotates_what_is_due_and_nothing_else(void **state)
{
    (void)state;
    fixture_clock_start();
    fixture_bulk(&f, "acme", "k", 30); /* with keys for "service" */
    struct fixture_blob kyc;
    assert_int_equal(fixture_generate(&f, "acme", "c1", "kyc", NULL, &kyc), KMS_OK);
    struct kms_purpose_record purpose;
    struct kms_txn txn = {0};
    assert_int_equal(kms_txn_begin(f.store, true, &txn, &f.err), KMS_OK);
    assert_int_equal(f.store->ops->purpose_get(txn.txn, &tenant, "service", &purpose, &f.err), KMS_OK);
    purpose.rotation_seconds = 3600;
    assert_int_equal(f.store->ops->purpose_update(txn.txn, &purpose, &f.err), KMS_OK);
    assert_int_equal(kms_txn_commit(&txn, &f.err), KMS_OK);
    struct kms_rotation_cursor cursor = {0};
    size_t total = 0;
    for (unsigned pass = 0; pass < 40; pass++) {
        size_t rotated = 0;
        if (pass == 10)
            fixture_clock_advance(3601 * KMS_NS_PER_SECOND);
        assert_int_equal(
            kms_keys_rotate_due(f.keys, &tenant, kms_clock_wall_ns(), 4, &cursor, &rotated, &f.err), KMS_OK);
        assert_in_range(rotated, 0, 4);
        total += rotated;
        if (pass < 10)
            assert_int_equal(total, 0);
    }
    assert_int_equal(total, 30);
    for (unsigned i = 0; i < 30; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "k%u", i);
        assert_int_equal(fixture_kek(&f, "acme", name, "service").version, 2);
    }
    assert_int_equal(fixture_kek(&f, "acme", "c1", "kyc").version, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, clear)
    const struct CMUnitTest tests[] = {
        TEST(a_new_version_wraps_and_the_old_one_opens),
        TEST(what_cannot_be_rotated_is_told),
        TEST(a_disabled_version_does_nothing_until_it_is_enabled),
        TEST(states_of_versions_that_are_not_there_cannot_be_set),
        TEST(rewraps_are_counted_per_version),
        TEST(the_schedule_rotates_what_is_due_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
