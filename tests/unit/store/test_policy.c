/* Goal: versions of the policy follow each other without gaps, and a freeze is there once, until it is lifted. */
#include "support.h"

#include <stdlib.h>

static enum kms_status insert_version(struct kms_store *store, uint64_t version)
{
    struct kms_error err = {0};
    KMS_CLEANUP(kms_policy_record_clear) struct kms_policy_record policy = sample_policy(version);
    struct kms_txn txn = begin_write(store);
    const enum kms_status status = store->ops->policy.insert(txn.txn, &policy, &err);
    if (status == KMS_OK)
        commit(&txn);
    kms_txn_clear(&txn);
    return status;
}

/* The version that get() finds; 0: none. */
static uint64_t found_version(struct kms_store *store, uint64_t asked)
{
    struct kms_error err = {0};
    KMS_CLEANUP(kms_policy_record_clear) struct kms_policy_record policy = {0};
    struct kms_txn txn = begin_read(store);
    const enum kms_status status = store->ops->policy.get(txn.txn, asked, &policy, &err);
    kms_txn_clear(&txn);
    if (status != KMS_OK)
        assert_status(KMS_NOT_FOUND, status);
    if (status == KMS_OK)
        assert_string_equal((const char *)policy.document, "version: 1\nbindings: []\n");
    return policy.version;
}

static void versions_follow_each_other(void **state)
{
    const struct fixture *fixture = *state;
    struct kms_store *store = fixture->store;
    assert_int_equal(found_version(store, 0), 0);
    assert_status(KMS_ABORTED, insert_version(store, 2));
    assert_ok(insert_version(store, 1));
    assert_status(KMS_ABORTED, insert_version(store, 1));
    assert_status(KMS_ABORTED, insert_version(store, 3));
    assert_ok(insert_version(store, 2));
    assert_int_equal(found_version(store, 0), 2);
    assert_int_equal(found_version(store, 1), 1);
    assert_int_equal(found_version(store, 3), 0);
    assert_int_equal(found_version(store, UINT64_MAX), 0);
}

static void a_policy_out_of_limits_is_refused(void **state)
{
    const struct fixture *fixture = *state;
    struct kms_store *store = fixture->store;
    struct kms_error err = {0};
    struct kms_policy_record good = sample_policy(1);
    struct kms_txn txn = begin_write(store);
    struct kms_policy_record policy = good;
    policy.version = 0;
    assert_status(KMS_INVALID_ARGUMENT, store->ops->policy.insert(txn.txn, &policy, &err));
    policy = good;
    policy.document_len = 0;
    assert_status(KMS_INVALID_ARGUMENT, store->ops->policy.insert(txn.txn, &policy, &err));
    policy = good;
    policy.document_len = KMS_POLICY_DOCUMENT_MAX + 1;
    assert_status(KMS_INVALID_ARGUMENT, store->ops->policy.insert(txn.txn, &policy, &err));
    policy = good;
    policy.identity[0] = '\0';
    assert_status(KMS_INVALID_ARGUMENT, store->ops->policy.insert(txn.txn, &policy, &err));
    policy = good;
    policy.comment[0] = '\n';
    assert_status(KMS_INVALID_ARGUMENT, store->ops->policy.insert(txn.txn, &policy, &err));
    kms_txn_clear(&txn);
    kms_policy_record_clear(&good);
}

/* Versions that were visited, as digits. */
static enum kms_status note_version(void *context, const struct kms_policy_record *policy)
{
    char *text = context;
    text[strlen(text)] = (char)('0' + policy->version);
    assert_null(policy->document);
    assert_int_equal(policy->document_len, strlen("version: 1\nbindings: []\n"));
    return KMS_OK;
}

static void the_history_begins_with_the_newest(void **state)
{
    const struct fixture *fixture = *state;
    struct kms_store *store = fixture->store;
    struct kms_error err = {0};
    for (uint64_t version = 1; version <= 5; version++)
        assert_ok(insert_version(store, version));
    struct kms_txn txn = begin_read(store);
    char all[8] = "";
    char page[8] = "";
    assert_ok(store->ops->policy.list(txn.txn, 0, 100, note_version, all, &err));
    assert_string_equal(all, "54321");
    assert_ok(store->ops->policy.list(txn.txn, 4, 2, note_version, page, &err));
    assert_string_equal(page, "32");
    kms_txn_clear(&txn);
}

static enum kms_status freeze(struct kms_store *store, const struct kms_freeze_record *record)
{
    struct kms_error err = {0};
    struct kms_txn txn = begin_write(store);
    const enum kms_status status = store->ops->freeze.insert(txn.txn, record, &err);
    if (status == KMS_OK)
        commit(&txn);
    kms_txn_clear(&txn);
    return status;
}

static enum kms_status count_freeze(void *context, const struct kms_freeze_record *record)
{
    size_t *count = context;
    assert_string_equal(record->reason, "a dispute");
    (*count)++;
    return KMS_OK;
}

static size_t frozen(struct kms_store *store, const struct kms_freeze_record *after)
{
    struct kms_error err = {0};
    size_t count = 0;
    struct kms_txn txn = begin_read(store);
    assert_ok(store->ops->freeze.list(txn.txn, after, 100, count_freeze, &count, &err));
    kms_txn_clear(&txn);
    return count;
}

static void a_freeze_stays_until_it_is_lifted(void **state)
{
    const struct fixture *fixture = *state;
    struct kms_store *store = fixture->store;
    struct kms_error err = {0};
    for (unsigned scope = KMS_FREEZE_TENANT; scope <= KMS_FREEZE_IDENTITY; scope++) {
        const struct kms_freeze_record record = sample_freeze((enum kms_freeze_scope)scope, 1);
        assert_ok(freeze(store, &record));
        assert_status(KMS_ALREADY_EXISTS, freeze(store, &record));
    }
    assert_int_equal(frozen(store, NULL), 4);
    const struct kms_freeze_record customer = sample_freeze(KMS_FREEZE_CUSTOMER, 1);
    assert_int_equal(frozen(store, &customer), 2);
    struct kms_txn txn = begin_write(store);
    assert_ok(store->ops->freeze.remove(txn.txn, KMS_FREEZE_CUSTOMER, "", customer.name, &err));
    assert_status(KMS_NOT_FOUND,
                  store->ops->freeze.remove(txn.txn, KMS_FREEZE_CUSTOMER, "", customer.name, &err));
    assert_status(KMS_NOT_FOUND,
                  store->ops->freeze.remove(txn.txn, KMS_FREEZE_IDENTITY, "tenant-0001", "", &err));
    commit(&txn);
    assert_int_equal(frozen(store, NULL), 3);
    assert_ok(freeze(store, &customer));
}

static void a_freeze_of_nothing_is_refused(void **state)
{
    const struct fixture *fixture = *state;
    struct kms_freeze_record record = sample_freeze(KMS_FREEZE_TENANT, 1);
    record.tenant[0] = '\0';
    assert_status(KMS_INVALID_ARGUMENT, freeze(fixture->store, &record));
    record = sample_freeze(KMS_FREEZE_PURPOSE, 1);
    record.name[0] = '\0';
    assert_status(KMS_INVALID_ARGUMENT, freeze(fixture->store, &record));
    record = sample_freeze(KMS_FREEZE_IDENTITY, 1);
    record.scope = 5;
    assert_status(KMS_INVALID_ARGUMENT, freeze(fixture->store, &record));
    record = sample_freeze(KMS_FREEZE_IDENTITY, 1);
    record.identity[0] = '\0';
    assert_status(KMS_INVALID_ARGUMENT, freeze(fixture->store, &record));
    record = sample_freeze(KMS_FREEZE_IDENTITY, 1);
    memset(record.reason, 'x', sizeof record.reason);
    assert_status(KMS_INVALID_ARGUMENT, freeze(fixture->store, &record));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(versions_follow_each_other, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_policy_out_of_limits_is_refused, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(the_history_begins_with_the_newest, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_freeze_stays_until_it_is_lifted, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_freeze_of_nothing_is_refused, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests_name("policy", tests, NULL, NULL);
}
