/* Goal: an operation changes only for whoever saw its state, and each person approves it once. */
#include "support.h"

#include "store/changelog_operation.h"

#include <stdio.h>
#include <stdlib.h>

static struct kms_error err;

/* Insert sample `number` in this state, with these times. */
static void insert(struct kms_store *store, unsigned number, enum kms_operation_state state)
{
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record operation = sample_operation(number);
    operation.state = state;
    operation.not_before_ns = number;
    struct kms_txn txn = begin_write(store);
    assert_ok(store->ops->operation.insert(txn.txn, &operation, &err));
    commit(&txn);
}

/* Sample `number` as the store has it. */
static enum kms_status get(struct kms_store *store, unsigned number,
                           struct kms_operation_record *ret_operation)
{
    const struct kms_uuid uuid = sample_uuid(7, number);
    struct kms_txn txn = begin_read(store);
    const enum kms_status status = store->ops->operation.get(txn.txn, &uuid, ret_operation, &err);
    kms_txn_clear(&txn);
    return status;
}

static enum kms_status approve(struct kms_store *store, unsigned number, const char *person)
{
    KMS_CLEANUP(kms_approval_record_clear)
    struct kms_approval_record approval = sample_approval(number, person);
    KMS_TXN txn = begin_write(store);
    KMS_TRY(store->ops->operation.approve(txn.txn, &approval, &err));
    return kms_txn_commit(&txn, &err);
}

static void an_operation_comes_back_as_it_was_written(void **state)
{
    struct kms_store *store = ((struct fixture *)*state)->store;
    insert(store, 6, KMS_OPERATION_PENDING);
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record wanted = sample_operation(6);
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record found = {0};
    assert_ok(get(store, 6, &found));
    wanted.not_before_ns = 6;
    assert_same(operation, &found, &wanted);
    assert_same(operation_state, &found, &wanted);
    struct kms_operation_record none = {0};
    assert_status(KMS_NOT_FOUND, get(store, 7, &none));
}

static void an_operation_without_a_result_has_none(void **state)
{
    struct kms_store *store = ((struct fixture *)*state)->store;
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record operation = sample_operation(1);
    free(operation.result);
    operation.result = NULL;
    struct kms_txn txn = begin_write(store);
    assert_ok(store->ops->operation.insert(txn.txn, &operation, &err));
    assert_status(KMS_ALREADY_EXISTS, store->ops->operation.insert(txn.txn, &operation, &err));
    commit(&txn);
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record found = {0};
    assert_ok(get(store, 1, &found));
    assert_null(found.result);
}

static void only_the_state_that_was_seen_can_be_left(void **state)
{
    struct kms_store *store = ((struct fixture *)*state)->store;
    insert(store, 1, KMS_OPERATION_PENDING);
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record operation = sample_operation(1);
    struct kms_txn txn = begin_write(store);
    operation.state = KMS_OPERATION_APPROVED;
    assert_ok(store->ops->operation.update(txn.txn, &operation, KMS_OPERATION_PENDING, &err));
    operation.state = KMS_OPERATION_REJECTED;
    assert_status(KMS_ABORTED,
                  store->ops->operation.update(txn.txn, &operation, KMS_OPERATION_PENDING, &err));
    operation.uuid = sample_uuid(7, 2);
    assert_status(KMS_NOT_FOUND,
                  store->ops->operation.update(txn.txn, &operation, KMS_OPERATION_PENDING, &err));
    commit(&txn);
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record found = {0};
    assert_ok(get(store, 1, &found));
    assert_int_equal(found.state, KMS_OPERATION_APPROVED);
}

static void what_was_requested_never_changes(void **state)
{
    struct kms_store *store = ((struct fixture *)*state)->store;
    insert(store, 1, KMS_OPERATION_PENDING);
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record operation = sample_operation(1);
    operation.document[2] ^= 1;
    operation.digest[0] ^= 1;
    operation.approvals_needed = 0;
    operation.expires_ns++;
    struct kms_txn txn = begin_write(store);
    assert_ok(store->ops->operation.update(txn.txn, &operation, 0, &err));
    commit(&txn);
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record found = {0};
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record wanted = sample_operation(1);
    assert_ok(get(store, 1, &found));
    assert_same(operation, &found, &wanted);
}

static void one_person_approves_one_operation_once(void **state)
{
    struct kms_store *store = ((struct fixture *)*state)->store;
    insert(store, 1, KMS_OPERATION_PENDING);
    insert(store, 2, KMS_OPERATION_PENDING);
    assert_ok(approve(store, 1, "erin"));
    assert_status(KMS_ALREADY_EXISTS, approve(store, 1, "erin"));
    assert_ok(approve(store, 1, "dave"));
    assert_ok(approve(store, 2, "erin"));
    assert_status(KMS_NOT_FOUND, approve(store, 3, "erin"));
    struct kms_approval_record *list = NULL;
    size_t count = 0;
    const struct kms_uuid uuid = sample_uuid(7, 1);
    struct kms_txn txn = begin_read(store);
    assert_ok(store->ops->operation.approvals(txn.txn, &uuid, &list, &count, &err));
    kms_txn_clear(&txn);
    assert_int_equal(count, 2);
    KMS_CLEANUP(kms_approval_record_clear) struct kms_approval_record wanted = sample_approval(1, "dave");
    assert_same(approval, &list[0], &wanted);
    kms_approval_list_clear(list, count);
}

/* The numbers of the samples that a list has shown, in order. */
struct seen {
    unsigned numbers[16];
    size_t count;
    struct kms_operation_place last;
};

static enum kms_status see(void *context, const struct kms_operation_record *operation)
{
    struct seen *seen = context;
    assert_null(operation->document);
    assert_null(operation->result);
    seen->numbers[seen->count++] = kms_get_be32(operation->uuid.bytes + 8);
    seen->last = (struct kms_operation_place){operation->created_ns, operation->uuid};
    return KMS_OK;
}

static struct seen list(struct kms_store *store, const struct kms_operation_filter *filter,
                        const struct kms_operation_place *after, size_t limit)
{
    struct seen seen = {0};
    struct kms_txn txn = begin_read(store);
    assert_ok(store->ops->operation.list(txn.txn, filter, after, limit, see, &seen, &err));
    kms_txn_clear(&txn);
    return seen;
}

static void a_list_shows_the_newest_first_page_by_page(void **state)
{
    struct kms_store *store = ((struct fixture *)*state)->store;
    for (unsigned i = 1; i <= 5; i++)
        insert(store, i, i % 2 == 0 ? KMS_OPERATION_PENDING : KMS_OPERATION_FAILED);
    struct kms_operation_filter filter = {0};
    struct seen seen = list(store, &filter, NULL, 3);
    assert_int_equal(seen.count, 3);
    assert_memory_equal(seen.numbers, ((unsigned[]){5, 4, 3}), 3 * sizeof(unsigned));
    seen = list(store, &filter, &seen.last, 3);
    assert_int_equal(seen.count, 2);
    assert_memory_equal(seen.numbers, ((unsigned[]){2, 1}), 2 * sizeof(unsigned));
    filter.state = KMS_OPERATION_PENDING;
    seen = list(store, &filter, NULL, 10);
    assert_int_equal(seen.count, 2);
    filter = (struct kms_operation_filter){.kind = "other"};
    assert_int_equal(list(store, &filter, NULL, 10).count, 0);
    filter =
        (struct kms_operation_filter){.tenant = "tenant-0001", .requester = "spiffe://kms.example/ops/carol"};
    assert_int_equal(list(store, &filter, NULL, 10).count, 5);
    filter.requester = "spiffe://kms.example/ops/carl";
    assert_int_equal(list(store, &filter, NULL, 10).count, 0);
}

static void what_has_expired_and_what_is_old_are_found(void **state)
{
    struct kms_store *store = ((struct fixture *)*state)->store;
    const int64_t expires = 1700000600000000000; /* of every sample */
    insert(store, 1, KMS_OPERATION_PENDING);
    insert(store, 2, KMS_OPERATION_APPROVED);
    insert(store, 3, KMS_OPERATION_REJECTED);
    struct kms_txn txn = begin_read(store);
    struct seen seen = {0};
    assert_ok(store->ops->operation.expired(txn.txn, expires - 1, 10, see, &seen, &err));
    assert_int_equal(seen.count, 0);
    assert_ok(store->ops->operation.expired(txn.txn, expires, 10, see, &seen, &err));
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.numbers[0], 1);
    seen.count = 0;
    assert_ok(store->ops->operation.old(txn.txn, 9, 10, see, &seen, &err)); /* it was finished at 9 */
    assert_int_equal(seen.count, 0);
    assert_ok(store->ops->operation.old(txn.txn, INT64_MAX, 10, see, &seen, &err));
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.numbers[0], 3);
    kms_txn_clear(&txn);
}

/* The number of the next operation among these kinds, or not among them; 0: there is none. */
static uint32_t next_of(struct kms_store *store, const char *kinds, bool among)
{
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record operation = {0};
    KMS_TXN txn = begin_read(store);
    const enum kms_status status = store->ops->operation.next(txn.txn, 9, kinds, among, &operation, &err);
    if (status == KMS_NOT_FOUND)
        return 0;
    assert_ok(status);
    return kms_get_be32(operation.uuid.bytes + 8);
}

static void the_next_to_run_is_of_the_wanted_kinds(void **state)
{
    struct kms_store *store = ((struct fixture *)*state)->store;
    insert(store, 1, KMS_OPERATION_APPROVED);
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record other = sample_operation(2);
    (void)strcpy(other.kind, "test.other");
    other.state = KMS_OPERATION_APPROVED;
    struct kms_txn txn = begin_write(store);
    assert_ok(store->ops->operation.insert(txn.txn, &other, &err));
    commit(&txn);
    assert_int_equal(next_of(store, "", false), 1);
    assert_int_equal(next_of(store, "", true), 0);
    assert_int_equal(next_of(store, " test.none  test.other ", true), 2);
    assert_int_equal(next_of(store, " test.none  test.other ", false), 1);
    assert_int_equal(next_of(store, " test.other.longer  a.test.other ", true), 0); /* whole names only */
}

static void the_next_to_run_is_the_oldest_whose_time_has_come(void **state)
{
    struct kms_store *store = ((struct fixture *)*state)->store;
    insert(store, 1, KMS_OPERATION_PENDING);
    insert(store, 3, KMS_OPERATION_RUNNING);
    insert(store, 2, KMS_OPERATION_APPROVED);
    insert(store, 4, KMS_OPERATION_SUCCEEDED);
    struct kms_operation_record operation = {0};
    struct kms_txn txn = begin_read(store);
    assert_status(KMS_NOT_FOUND, store->ops->operation.next(txn.txn, 1, "", false, &operation, &err));
    assert_ok(store->ops->operation.next(txn.txn, 5, "", false, &operation, &err));
    uint64_t open = 0;
    uint64_t of_requester = 0;
    assert_ok(store->ops->operation.count_open(txn.txn, operation.requester, &open, &of_requester, &err));
    assert_int_equal(of_requester, 3);
    assert_ok(store->ops->operation.count_open(txn.txn, "cn:nobody", &open, &of_requester, &err));
    assert_int_equal(of_requester, 0);
    kms_txn_clear(&txn);
    assert_int_equal(kms_get_be32(operation.uuid.bytes + 8), 2);
    assert_non_null(operation.document);
    assert_int_equal(open, 3);
    kms_operation_record_clear(&operation);
}

static void a_removed_operation_is_gone_with_its_approvals(void **state)
{
    struct fixture *fixture = *state;
    struct kms_store *store = fixture->store;
    insert(store, 1, KMS_OPERATION_PENDING);
    assert_ok(approve(store, 1, "erin"));
    const struct kms_uuid uuid = sample_uuid(7, 1);
    struct kms_txn txn = begin_write(store);
    assert_ok(store->ops->operation.remove(txn.txn, &uuid, &err));
    assert_status(KMS_NOT_FOUND, store->ops->operation.remove(txn.txn, &uuid, &err));
    commit(&txn);
    assert_int_equal(sql_number(fixture->path, "SELECT count(*) FROM approval"), 0);
    struct kms_operation_record none = {0};
    assert_status(KMS_NOT_FOUND, get(store, 1, &none));
}

static void records_out_of_limits_are_refused(void **state)
{
    struct kms_store *store = ((struct fixture *)*state)->store;
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record operation = sample_operation(1);
    struct kms_txn txn = begin_write(store);
    operation.document_len = KMS_OPERATION_DOCUMENT_MAX + 1;
    assert_status(KMS_INVALID_ARGUMENT, store->ops->operation.insert(txn.txn, &operation, &err));
    operation.document_len = 0;
    assert_status(KMS_INVALID_ARGUMENT, store->ops->operation.insert(txn.txn, &operation, &err));
    operation.document_len = 3;
    operation.approvals_needed = KMS_OPERATION_APPROVALS_MAX + 1;
    assert_status(KMS_INVALID_ARGUMENT, store->ops->operation.insert(txn.txn, &operation, &err));
    operation.approvals_needed = 1;
    operation.state = KMS_OPERATION_EXPIRED + 1;
    assert_status(KMS_INVALID_ARGUMENT, store->ops->operation.insert(txn.txn, &operation, &err));
    operation.state = KMS_OPERATION_PENDING;
    operation.requester[0] = '\0';
    assert_status(KMS_INVALID_ARGUMENT, store->ops->operation.insert(txn.txn, &operation, &err));
    operation.requester[0] = 'c';
    assert_ok(store->ops->operation.insert(txn.txn, &operation, &err));
    KMS_CLEANUP(kms_approval_record_clear) struct kms_approval_record approval = sample_approval(1, "erin");
    approval.signature_len = KMS_OPERATION_SIGNATURE_MAX + 1;
    assert_status(KMS_INVALID_ARGUMENT, store->ops->operation.approve(txn.txn, &approval, &err));
    approval.signature_len = 0;
    assert_status(KMS_INVALID_ARGUMENT, store->ops->operation.approve(txn.txn, &approval, &err));
    commit(&txn);
}

static void a_damaged_row_is_refused(void **state)
{
    struct fixture *fixture = *state;
    insert(fixture->store, 1, KMS_OPERATION_PENDING);
    sql_run(fixture->path, "UPDATE operation SET kind = 'shred' || char(10)");
    struct kms_operation_record none = {0};
    assert_status(KMS_STORE_CORRUPT, get(fixture->store, 1, &none));
    sql_run(fixture->path, "UPDATE operation SET kind = 'shred', done = -1");
    assert_status(KMS_STORE_CORRUPT, get(fixture->store, 1, &none));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(an_operation_comes_back_as_it_was_written),
        TEST(an_operation_without_a_result_has_none),
        TEST(only_the_state_that_was_seen_can_be_left),
        TEST(what_was_requested_never_changes),
        TEST(one_person_approves_one_operation_once),
        TEST(a_list_shows_the_newest_first_page_by_page),
        TEST(what_has_expired_and_what_is_old_are_found),
        TEST(the_next_to_run_is_the_oldest_whose_time_has_come),
        TEST(the_next_to_run_is_of_the_wanted_kinds),
        TEST(a_removed_operation_is_gone_with_its_approvals),
        TEST(records_out_of_limits_are_refused),
        TEST(a_damaged_row_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
