/* Goal: recovery epochs follow each other, a key is known once, and what it covers only ever grows. */
#include "replay.h"

#include "support.h"

#include <stdio.h>

static enum kms_status put_key(struct kms_store *store, const struct kms_recovery_key_record *key)
{
    struct kms_error err = {0};
    struct kms_txn txn = begin_write(store);
    const enum kms_status status = store->ops->recovery.key_put(txn.txn, key, &err);
    if (status == KMS_OK)
        commit(&txn);
    kms_txn_clear(&txn);
    return status;
}

static enum kms_status put_epoch(struct kms_store *store, uint64_t epoch)
{
    const struct kms_recovery_key_record key = sample_recovery_key(epoch);
    return put_key(store, &key);
}

static void epochs_have_no_gaps(void **state)
{
    const struct fixture *fixture = *state;
    assert_status(KMS_ABORTED, put_epoch(fixture->store, 2));
    assert_ok(put_epoch(fixture->store, 1));
    assert_status(KMS_ABORTED, put_epoch(fixture->store, 3));
    assert_ok(put_epoch(fixture->store, 2));
    assert_ok(put_epoch(fixture->store, 1)); /* the same again */
}

static void a_fingerprint_belongs_to_one_epoch(void **state)
{
    const struct fixture *fixture = *state;
    struct kms_recovery_key_record key = sample_recovery_key(1);
    assert_ok(put_key(fixture->store, &key));
    key.epoch = 2;
    assert_status(KMS_ALREADY_EXISTS, put_key(fixture->store, &key));
}

static void a_key_is_found_as_it_was_put(void **state)
{
    const struct fixture *fixture = *state;
    struct kms_error err = {0};
    struct kms_recovery_key_record key = sample_recovery_key(1);
    struct kms_recovery_key_record found = {0};
    assert_ok(put_key(fixture->store, &key));
    key.state = KMS_RECOVERY_RETIRED;
    key.retired_ns = 5;
    key.retire_operation = sample_uuid(6, 2);
    (void)snprintf(key.statement, sizeof key.statement, "burnt");
    assert_ok(put_key(fixture->store, &key));
    struct kms_txn txn = begin_read(fixture->store);
    assert_ok(fixture->store->ops->recovery.key_get(txn.txn, key.fingerprint, &found, &err));
    assert_memory_equal(&found, &key, sizeof key);
    key.fingerprint[0] = '0';
    assert_status(KMS_NOT_FOUND,
                  fixture->store->ops->recovery.key_get(txn.txn, key.fingerprint, &found, &err));
    kms_txn_clear(&txn);
}

static void a_record_out_of_limits_is_refused(void **state)
{
    const struct fixture *fixture = *state;
    const struct kms_recovery_key_record good = sample_recovery_key(1);
    struct kms_recovery_key_record key = good;
    key.epoch = 0;
    assert_status(KMS_INVALID_ARGUMENT, put_key(fixture->store, &key));
    key = good;
    key.fingerprint[0] = 'A';
    assert_status(KMS_INVALID_ARGUMENT, put_key(fixture->store, &key));
    key = good;
    key.fingerprint[63] = '\0';
    assert_status(KMS_INVALID_ARGUMENT, put_key(fixture->store, &key));
    key = good;
    key.state = KMS_RECOVERY_RETIRED; /* by nobody, at no time */
    assert_status(KMS_INVALID_ARGUMENT, put_key(fixture->store, &key));
    key = good;
    key.state = KMS_RECOVERY_RETIRING; /* by nobody */
    assert_status(KMS_INVALID_ARGUMENT, put_key(fixture->store, &key));
    key = good;
    key.retired_ns = 1; /* and ACTIVE */
    assert_status(KMS_INVALID_ARGUMENT, put_key(fixture->store, &key));
    key = good;
    key.enrolled_by[0] = '\0';
    assert_status(KMS_INVALID_ARGUMENT, put_key(fixture->store, &key));
    key = good;
    key.statement[0] = '\n';
    assert_status(KMS_INVALID_ARGUMENT, put_key(fixture->store, &key));
    key = good;
    key.state = 4;
    assert_status(KMS_INVALID_ARGUMENT, put_key(fixture->store, &key));
}

static enum kms_status put_cover(struct kms_store *store, uint64_t epoch, struct kms_uuid tenant,
                                 uint64_t first)
{
    struct kms_error err = {0};
    const struct kms_recovery_cover_record cover = {epoch, tenant, first};
    struct kms_txn txn = begin_write(store);
    const enum kms_status status = store->ops->recovery.cover_put(txn.txn, &cover, &err);
    if (status == KMS_OK)
        commit(&txn);
    kms_txn_clear(&txn);
    return status;
}

/* 0: it covers nothing. */
static uint64_t covered_from(struct kms_store *store, uint64_t epoch, struct kms_uuid tenant)
{
    struct kms_error err = {0};
    uint64_t first = 0;
    struct kms_txn txn = begin_read(store);
    const enum kms_status status = store->ops->recovery.cover_get(txn.txn, epoch, &tenant, &first, &err);
    kms_txn_clear(&txn);
    if (status != KMS_OK)
        assert_status(KMS_NOT_FOUND, status);
    return first;
}

static void what_a_key_covers_only_grows(void **state)
{
    const struct fixture *fixture = *state;
    struct kms_store *store = fixture->store;
    fill(store, 1);
    const struct kms_uuid tenant = sample_tenant(1).uuid;
    assert_ok(put_epoch(store, 1));
    assert_int_equal(covered_from(store, 1, tenant), 0);
    assert_ok(put_cover(store, 1, tenant, 7));
    assert_int_equal(covered_from(store, 1, tenant), 7);
    assert_ok(put_cover(store, 1, tenant, 9));
    assert_int_equal(covered_from(store, 1, tenant), 7);
    assert_ok(put_cover(store, 1, tenant, 2));
    assert_int_equal(covered_from(store, 1, tenant), 2);
    assert_int_equal(covered_from(store, 2, tenant), 0);
    assert_status(KMS_NOT_FOUND, put_cover(store, 2, tenant, 7));
    assert_status(KMS_NOT_FOUND, put_cover(store, 1, sample_uuid(9, 9), 7));
    assert_status(KMS_INVALID_ARGUMENT, put_cover(store, 1, tenant, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(epochs_have_no_gaps, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_fingerprint_belongs_to_one_epoch, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_key_is_found_as_it_was_put, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_record_out_of_limits_is_refused, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(what_a_key_covers_only_grows, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests_name("store/recovery", tests, NULL, NULL);
}
