/* Each call to the HSM and to the store fails once: no key is left behind, nothing is lost, and the next try works. */
#include "unit/keys/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static struct fixture f;
static unsigned serial;        /* makes names that were never used */
static struct kms_uuid tenant; /* acme */

static int setup(void **state)
{
    (void)state;
    const struct kms_keys_config config = {.wrap_block = 2};
    fixture_new(&f, FIXTURE_FAKE, &config);
    tenant = fixture_tenant_record(&f, "acme").uuid;
    return 0;
}

static int clear(void **state)
{
    (void)state;
    fixture_clear(&f);
    return 0;
}

/* An operation under test; returns its status. */
typedef enum kms_status (*operation)(void);

static struct fixture_blob witness; /* of customer c1: must open after every failure */

static enum kms_status first_use(void)
{
    char name[32];
    struct fixture_blob blob;
    (void)snprintf(name, sizeof name, "f%u", serial);
    return fixture_generate(&f, "acme", name, "service", NULL, &blob);
}

static enum kms_status cold_unwrap(void)
{
    struct fixture_blob opened;
    return fixture_unwrap(&f, "acme", NULL, NULL, NULL, kms_slice_of(witness.bytes, witness.len), &opened);
}

static enum kms_status cold_generate(void)
{
    struct fixture_blob blob;
    return fixture_generate(&f, "acme", "c1", "service", NULL, &blob);
}

static enum kms_status new_tenant(void)
{
    struct kms_tenant_record record = {.uuid = kms_uuid_random(), .state = KMS_TENANT_ACTIVE, .revision = 1};
    (void)snprintf(record.id, sizeof record.id, "t%u", serial);
    return kms_keys_tenant_create(f.keys, &record, NULL, NULL, &f.err);
}

static enum kms_status check_roots(void)
{
    return kms_keys_check_roots(f.keys, NULL, &f.err);
}

enum { BULK = 20 };

static enum kms_status bulk(void)
{
    struct kms_customer_record customers[BULK];
    struct kms_kek_wanted keks[2 * BULK];
    enum kms_status statuses[BULK];
    char labels[] = "{}";
    for (size_t i = 0; i < BULK; i++) {
        customers[i] = (struct kms_customer_record){.uuid = kms_uuid_random(),
                                                    .tenant = tenant,
                                                    .labels = labels,
                                                    .state = KMS_CUSTOMER_ACTIVE,
                                                    .revision = 1};
        (void)snprintf(customers[i].id, sizeof customers[i].id, "b%u-%zu", serial, i);
        keks[2 * i] = (struct kms_kek_wanted){.customer = customers[i].uuid, .purpose = "service"};
        keks[2 * i + 1] = (struct kms_kek_wanted){.customer = customers[i].uuid, .purpose = "kyc"};
    }
    const enum kms_status status = kms_keys_create_bulk(f.keys, &tenant, customers, BULK, statuses, keks,
                                                        sizeof keks / sizeof keks[0], &f.err);
    for (size_t i = 0; i < BULK && status == KMS_OK; i++)
        assert_int_equal(statuses[i], KMS_OK);
    return status;
}

/* What must hold whatever failed. */
static void check_invariants(void)
{
    struct fixture_blob opened;
    assert_int_equal(
        fixture_unwrap(&f, "acme", "c1", "service", NULL, kms_slice_of(witness.bytes, witness.len), &opened),
        KMS_OK);
    assert_memory_equal(opened.plaintext, witness.plaintext, 32);
    fixture_check_no_stray_keys(&f);
}

/* Fail the n-th call for n = 1, 2, .. until the operation needs no more calls; then it must have succeeded. */
static void sweep(operation run, bool in_store, enum kms_status failure, bool needs_customer)
{
    for (unsigned n = 1;; n++) {
        assert_in_range(n, 1, 2000);
        serial++;
        if (needs_customer) {
            char name[32];
            (void)snprintf(name, sizeof name, "f%u", serial);
            fixture_customer(&f, "acme", name);
        }
        kms_keys_forget(f.keys, &tenant, NULL);
        if (in_store)
            kms_fault_store_fail_after(f.store, n, failure);
        else
            kms_fake_hsm_fail_after(f.hsm, n, failure);
        const enum kms_status status = run();
        const bool pending =
            in_store ? kms_fault_store_failure_is_pending(f.store) : kms_fake_hsm_failure_is_pending(f.hsm);
        kms_fault_store_fail_after(f.store, 0, KMS_OK);
        kms_fake_hsm_fail_after(f.hsm, 0, KMS_OK);
        if (status != KMS_OK)
            assert_int_equal(status, failure);
        check_invariants();
        if (pending) {
            assert_int_equal(status, KMS_OK);
            return;
        }
        const enum kms_status again = run(); /* the same names once more */
        if (status != KMS_OK)
            assert_int_equal(again, KMS_OK);
        check_invariants();
    }
}

static void make_witness(void)
{
    assert_int_equal(fixture_generate(&f, "acme", "c1", "service", NULL, &witness), KMS_OK);
}

static void a_first_use_survives_every_failure_of_the_hsm(void **state)
{
    (void)state;
    make_witness();
    sweep(first_use, false, KMS_HSM_REFUSED, true);
    fixture_bulk(&f, "acme", "fill", 256 - fixture_tenant_record(&f, "acme").next_slot);
    assert_int_equal(fixture_tenant_record(&f, "acme").next_slot, 256); /* the next one grows the tree */
    sweep(first_use, false, KMS_HSM_REFUSED, true);
    assert_int_equal(fixture_tenant_record(&f, "acme").height, 3);
}

static void a_first_use_survives_every_failure_of_the_store(void **state)
{
    (void)state;
    make_witness();
    sweep(first_use, true, KMS_STORE_UNAVAILABLE, true);
    fixture_bulk(&f, "acme", "fill", 256 - fixture_tenant_record(&f, "acme").next_slot);
    sweep(first_use, true, KMS_STORE_FULL, true);
    assert_int_equal(fixture_tenant_record(&f, "acme").height, 3);
}

static void loading_survives_every_failure(void **state)
{
    (void)state;
    make_witness();
    fixture_bulk(&f, "acme", "fill", 30);
    sweep(cold_unwrap, false, KMS_HSM_REFUSED, false);
    sweep(cold_unwrap, true, KMS_STORE_UNAVAILABLE, false);
    sweep(cold_generate, false, KMS_HSM_REFUSED, false);
    sweep(cold_generate, true, KMS_STORE_BUSY, false);
}

static void bulk_creation_is_all_or_nothing(void **state)
{
    (void)state;
    make_witness();
    sweep(bulk, true, KMS_STORE_FULL, false);
    sweep(bulk, false, KMS_HSM_FULL, false);
    assert_int_equal((fixture_tenant_record(&f, "acme").next_slot - 1) % ((uint64_t)2 * BULK), 0);
}

static void a_tenant_that_cannot_be_stored_leaves_no_master_key(void **state)
{
    (void)state;
    make_witness();
    const unsigned before = serial;
    sweep(new_tenant, true, KMS_STORE_FULL, false);
    sweep(new_tenant, false, KMS_HSM_FULL, false);
    assert_int_equal(kms_fake_hsm_masters(f.hsm), 1 + serial - before); /* acme, and one a round */
}

static void checking_roots_survives_every_failure(void **state)
{
    (void)state;
    make_witness();
    sweep(check_roots, false, KMS_HSM_FULL, false);
    sweep(check_roots, true, KMS_STORE_UNAVAILABLE, false);
}

/* Lose the device in the n-th call of the operation, for every n: it succeeds all the same. */
static void sweep_losses(operation run, bool needs_customer)
{
    for (unsigned n = 1;; n++) {
        assert_in_range(n, 1, 2000);
        serial++;
        if (needs_customer) {
            char name[32];
            (void)snprintf(name, sizeof name, "f%u", serial);
            fixture_customer(&f, "acme", name);
        }
        if (n % 2 == 0)
            kms_keys_forget(f.keys, &tenant, NULL);
        kms_fake_hsm_lose_after(f.hsm, n);
        const enum kms_status status = run();
        const bool pending = kms_fake_hsm_failure_is_pending(f.hsm);
        kms_fake_hsm_lose_after(f.hsm, 0);
        if (n > 1) /* the first call takes the session, and nothing can be retried without one */
            assert_int_equal(status, KMS_OK);
        check_invariants();
        if (pending)
            return;
    }
}

static void a_device_that_is_lost_in_the_middle_is_retried_once(void **state)
{
    (void)state;
    make_witness();
    fixture_bulk(&f, "acme", "fill", 14);
    sweep_losses(first_use, true);
    sweep_losses(cold_generate, false);
    sweep_losses(cold_unwrap, false);
    sweep_losses(bulk, false);
    sweep_losses(check_roots, false);
}

static void handles_of_a_lost_connection_are_replaced(void **state)
{
    (void)state;
    make_witness();
    fixture_bulk(&f, "acme", "fill", 30);
    for (unsigned i = 0; i < 5; i++) {
        kms_fake_hsm_lose(f.hsm);
        assert_int_equal(i % 2 == 0 ? cold_unwrap() : cold_generate(), KMS_OK);
        check_invariants();
    }
}

static void a_device_that_is_lost_twice_is_an_answer(void **state)
{
    (void)state;
    make_witness();
    struct kms_keys_work *work = NULL;
    struct kms_data_key key;
    const struct kms_key_owner owner = {"acme", "c1", "service"};
    assert_int_equal(kms_keys_work_begin(f.keys, INT64_MAX, &work, &f.err), KMS_OK);
    kms_fake_hsm_lose(f.hsm);
    kms_fake_hsm_fail_after(f.hsm, 2, KMS_HSM_UNAVAILABLE); /* the new session */
    const struct kms_slice context = fixture_context(&f, NULL);
    assert_int_equal(
        kms_keys_generate(work, f.arena, &owner, context, KMS_KEY_SPEC_AES_256, true, &key, &f.err),
        KMS_HSM_UNAVAILABLE);
    /* the work finds a session again by itself */
    assert_int_equal(
        kms_keys_generate(work, f.arena, &owner, context, KMS_KEY_SPEC_AES_256, true, &key, &f.err), KMS_OK);
    assert_int_equal(kms_keys_work_commit(work, &f.err), KMS_OK);
    kms_keys_work_end(work);
    check_invariants();
}

int main(void)
{
#define SWEPT(test) cmocka_unit_test_setup_teardown(test, setup, clear)
    const struct CMUnitTest tests[] = {
        SWEPT(a_first_use_survives_every_failure_of_the_hsm),
        SWEPT(a_first_use_survives_every_failure_of_the_store),
        SWEPT(loading_survives_every_failure),
        SWEPT(bulk_creation_is_all_or_nothing),
        SWEPT(a_tenant_that_cannot_be_stored_leaves_no_master_key),
        SWEPT(checking_roots_survives_every_failure),
        SWEPT(a_device_that_is_lost_in_the_middle_is_retried_once),
        SWEPT(handles_of_a_lost_connection_are_replaced),
        SWEPT(a_device_that_is_lost_twice_is_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
