/* Goal: the change log alone rebuilds the database, whatever happened to it. */
#include "replay.h"

#include "store/changelog.h"

#include <stdio.h>

static struct kms_error err;

static void the_log_rebuilds_the_same_tables(void **state)
{
    struct fixture *fixture = *state;
    write_a_bit_of_everything(fixture->store);
    fixture_close(fixture);
    assert_int_equal(sql_number(fixture->path, "SELECT count(DISTINCT kind) FROM change_log"),
                     31); /* FREE_SLOT: snapshots only */
    assert_log_matches_tables(fixture->path);
}

static void rolled_back_and_refused_writes_are_not_in_the_log(void **state)
{
    struct fixture *fixture = *state;
    struct kms_store *store = fixture->store;
    write_a_bit_of_everything(store);
    const int64_t before = sql_number(fixture->path, "SELECT max(seq) FROM change_log");
    struct kms_txn txn = begin_write(store);
    struct kms_tenant_record tenant = sample_tenant(5);
    assert_ok(store->ops->tenant_insert(txn.txn, &tenant, &err));
    kms_txn_clear(&txn);
    txn = begin_write(store);
    tenant = sample_tenant(1);
    assert_status(KMS_ALREADY_EXISTS, store->ops->tenant_insert(txn.txn, &tenant, &err));
    const struct kms_customer_record customer = sample_customer(1, 99);
    assert_status(KMS_NOT_FOUND, store->ops->customer_update(txn.txn, &customer, &err));
    assert_ok(store->ops->customer_insert(txn.txn, &customer, &err));
    commit(&txn);
    fixture_close(fixture);
    assert_int_equal(sql_number(fixture->path, "SELECT max(seq) FROM change_log"), before + 1);
    assert_log_matches_tables(fixture->path);
}

static void more_reservations_than_fit_one_record_are_split(void **state)
{
    struct fixture *fixture = *state;
    struct kms_store *store = fixture->store;
    fill(store, 3);
    struct kms_txn txn = begin_write(store);
    for (unsigned i = 0; i < KMS_CHANGELOG_RESERVATIONS_MAX + 10; i++) {
        const struct kms_kek_record kek = sample_kek(1, 1 + i % 3, "service", 1);
        uint64_t first = 0;
        assert_ok(store->ops->kek_reserve(txn.txn, kek.kek_id, 1, &first, &err));
        assert_int_equal(first, i / 3);
    }
    commit(&txn);
    fixture_close(fixture);
    assert_int_equal(sql_number(fixture->path, "SELECT count(*) FROM change_log WHERE kind = 6"), 2);
    assert_log_matches_tables(fixture->path);
}

static void a_change_behind_the_stores_back_shows(void **state)
{
    struct fixture *fixture = *state;
    write_a_bit_of_everything(fixture->store);
    fixture_close(fixture);
    char *before = dump_tables(fixture->path);
    sql_run(fixture->path, "UPDATE kek SET state = 1 WHERE state = 3");
    char *after = dump_tables(fixture->path);
    assert_string_not_equal(before, after); /* the comparison of the other tests is not blind */
    free(before);
    free(after);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_log_rebuilds_the_same_tables),
        TEST(rolled_back_and_refused_writes_are_not_in_the_log),
        TEST(more_reservations_than_fit_one_record_are_split),
        TEST(a_change_behind_the_stores_back_shows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
