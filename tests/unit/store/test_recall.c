/* Goal: what a reading connection recalls instead of reading it again is what its snapshot holds, whoever has changed the database. */
#include "support.h"

static struct kms_error err;

static struct kms_store *store_of(void **state)
{
    return ((struct fixture *)*state)->store;
}

/* As the data plane reads. */
static struct kms_txn begin_trusting(struct kms_store *store)
{
    struct kms_txn txn = begin_read(store);
    store->ops->seal.trust(txn.txn);
    return txn;
}

/* The revision of tenant 1 and of its purpose, found in each way there is; they must agree. */
static uint64_t seen_revision(struct kms_store *store, struct kms_store_txn *txn)
{
    const struct kms_tenant_record wanted = sample_tenant(1);
    struct kms_tenant_record by_id, by_uuid;
    struct kms_purpose_record purpose;
    assert_ok(store->ops->tenant_by_id(txn, wanted.id, &by_id, &err));
    assert_ok(store->ops->tenant_by_uuid(txn, &wanted.uuid, &by_uuid, &err));
    assert_ok(store->ops->purpose_get(txn, &wanted.uuid, "service", &purpose, &err));
    assert_same(tenant, &by_id, &by_uuid);
    assert_int_equal(purpose.revision, by_id.revision);
    return by_id.revision;
}

static uint64_t revision(struct kms_store *store)
{
    struct kms_txn txn = begin_trusting(store);
    const uint64_t first = seen_revision(store, txn.txn);
    assert_int_equal(seen_revision(store, txn.txn), first);
    kms_txn_clear(&txn);
    return first;
}

static void set_revision(struct kms_store *store, uint64_t to)
{
    struct kms_tenant_record tenant = sample_tenant(1);
    struct kms_purpose_record purpose = sample_purpose(1, "service");
    tenant.revision = purpose.revision = to;
    struct kms_txn txn = begin_write(store);
    assert_ok(store->ops->tenant_update(txn.txn, &tenant, &err));
    assert_ok(store->ops->purpose_update(txn.txn, &purpose, &err));
    commit(&txn);
}

static void a_change_is_seen_by_the_next_snapshot(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 1);
    for (uint64_t i = 100; i < 110; i++) {
        set_revision(store, i);
        assert_int_equal(revision(store), i);
        assert_int_equal(revision(store), i);
    }
}

static void a_change_by_somebody_else_is_seen_too(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 1);
    set_revision(store, 100);
    assert_int_equal(revision(store), 100);
    sql_run(((struct fixture *)*state)->path,
            "BEGIN; UPDATE tenant SET revision = 101; UPDATE purpose SET revision = 101; COMMIT");
    assert_int_equal(revision(store), 101);
}

static void a_snapshot_keeps_what_it_has_seen_and_the_next_one_does_not(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 1);
    set_revision(store, 100);
    struct kms_txn untouched = begin_trusting(store); /* nothing is read before the change */
    set_revision(store, 101);
    assert_int_equal(seen_revision(store, untouched.txn), 100);
    set_revision(store, 102);
    assert_int_equal(seen_revision(store, untouched.txn), 100);
    kms_txn_clear(&untouched);
    assert_int_equal(revision(store), 102);
}

static void a_writer_sees_its_own_changes(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 1);
    set_revision(store, 100);
    assert_int_equal(revision(store), 100);
    struct kms_tenant_record tenant = sample_tenant(1);
    tenant.revision = 101;
    struct kms_txn txn = begin_write(store);
    assert_ok(store->ops->tenant_by_id(txn.txn, tenant.id, &tenant, &err));
    tenant.revision = 101;
    assert_ok(store->ops->tenant_update(txn.txn, &tenant, &err));
    assert_ok(store->ops->tenant_by_id(txn.txn, tenant.id, &tenant, &err));
    assert_int_equal(tenant.revision, 101);
    kms_txn_clear(&txn); /* rolled back */
    assert_int_equal(revision(store), 100);
}

static void tenants_and_purposes_are_not_taken_for_each_other(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 1);
    set_revision(store, 100);
    const struct kms_tenant_record other = sample_tenant(2);
    const struct kms_purpose_record billing = sample_purpose(1, "billing");
    struct kms_txn txn = begin_write(store);
    assert_ok(store->ops->tenant_insert(txn.txn, &other, &err));
    assert_ok(store->ops->purpose_insert(txn.txn, &billing, &err));
    commit(&txn);
    txn = begin_trusting(store);
    for (int i = 0; i < 2; i++) {
        struct kms_tenant_record tenant;
        struct kms_purpose_record purpose;
        (void)seen_revision(store, txn.txn);
        assert_ok(store->ops->tenant_by_uuid(txn.txn, &other.uuid, &tenant, &err));
        assert_same(tenant, &tenant, &other);
        assert_status(KMS_NOT_FOUND,
                      store->ops->purpose_get(txn.txn, &other.uuid, "service", &purpose, &err));
        assert_ok(store->ops->purpose_get(txn.txn, &billing.tenant, "billing", &purpose, &err));
        assert_same(purpose, &purpose, &billing);
        assert_status(KMS_NOT_FOUND, store->ops->tenant_by_id(txn.txn, "tenant", &tenant, &err));
    }
    kms_txn_clear(&txn);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_change_is_seen_by_the_next_snapshot),
        TEST(a_change_by_somebody_else_is_seen_too),
        TEST(a_snapshot_keeps_what_it_has_seen_and_the_next_one_does_not),
        TEST(a_writer_sees_its_own_changes),
        TEST(tenants_and_purposes_are_not_taken_for_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
