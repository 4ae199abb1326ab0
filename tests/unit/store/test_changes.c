/* Goal: the change log can be shipped, pruned and continued, and a snapshot holds as much as the log since the beginning. */
#include "replay.h"

#include "store/apply.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct kms_error err;

/* What a visitor has seen. */
struct seen {
    uint64_t count, first, last;
    uint64_t stop_after; /* 0: never */
};

static enum kms_status note_row(void *context, const struct kms_change_row *row)
{
    struct seen *seen = context;
    if (seen->count++ == 0)
        seen->first = row->seq;
    else
        assert_int_equal(row->seq, seen->last + 1);
    seen->last = row->seq;
    struct kms_change change = {0};
    assert_ok(kms_changelog_decode(row->payload, &change, &err));
    kms_change_clear(&change);
    return seen->stop_after == seen->count ? KMS_CANCELLED : KMS_OK;
}

static uint64_t last_of(struct kms_store *store)
{
    struct kms_txn txn = begin_read(store);
    uint64_t last = 0;
    assert_ok(store->ops->changes.last(txn.txn, &last, &err));
    kms_txn_clear(&txn);
    return last;
}

static size_t prune(struct kms_store *store, uint64_t up_to, size_t limit)
{
    struct kms_txn txn = begin_write(store);
    size_t removed = 0;
    assert_ok(store->ops->changes.prune(txn.txn, up_to, limit, &removed, &err));
    commit(&txn);
    return removed;
}

static void changes_are_read_in_order_and_in_portions(void **state)
{
    struct kms_store *store = ((struct fixture *)*state)->store;
    assert_int_equal(last_of(store), 0);
    write_a_bit_of_everything(store);
    const uint64_t last = last_of(store);
    struct kms_txn txn = begin_read(store);
    struct seen all = {0};
    assert_ok(store->ops->changes.read(txn.txn, 0, SIZE_MAX, note_row, &all, &err));
    assert_int_equal(all.first, 1);
    assert_int_equal(all.last, last);
    struct seen some = {0};
    assert_ok(store->ops->changes.read(txn.txn, 10, 5, note_row, &some, &err));
    assert_int_equal(some.first, 11);
    assert_int_equal(some.count, 5);
    struct seen none = {0};
    assert_ok(store->ops->changes.read(txn.txn, last, 5, note_row, &none, &err));
    assert_int_equal(none.count, 0);
    struct seen ended = {.stop_after = 3};
    assert_status(KMS_CANCELLED, store->ops->changes.read(txn.txn, 0, 50, note_row, &ended, &err));
    assert_int_equal(ended.count, 3);
    kms_txn_clear(&txn);
}

static void pruned_numbers_are_never_used_again(void **state)
{
    struct kms_store *store = ((struct fixture *)*state)->store;
    write_a_bit_of_everything(store);
    const uint64_t last = last_of(store);
    assert_int_equal(prune(store, 10, 4), 4);
    assert_int_equal(prune(store, 10, 100), 6);
    assert_int_equal(prune(store, 10, 100), 0);
    assert_int_equal(prune(store, UINT64_MAX >> 1, 100000), last - 10);
    assert_int_equal(last_of(store), last);
    struct kms_txn txn = begin_write(store);
    const struct kms_tenant_record tenant = sample_tenant(7);
    assert_ok(store->ops->tenant_insert(txn.txn, &tenant, &err));
    commit(&txn);
    assert_int_equal(last_of(store), last + 1);
}

static struct kms_store_waiting waiting_after(struct kms_store *store, uint64_t after, size_t limit)
{
    struct kms_store_waiting waiting;
    struct kms_txn txn = begin_read(store);
    assert_ok(store->ops->changes.waiting(txn.txn, after, limit, &waiting, &err));
    kms_txn_clear(&txn);
    return waiting;
}

static void what_waits_to_be_shipped_is_counted(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(waiting_after(fixture->store, 0, 100).oldest_ns, 0);
    fill(fixture->store, 10);
    const uint64_t last = last_of(fixture->store);
    const struct kms_store_waiting all = waiting_after(fixture->store, 0, SIZE_MAX);
    assert_int_equal(all.count, last);
    assert_true(all.oldest_ns > 0);
    assert_int_equal(waiting_after(fixture->store, last - 3, 100).count, 3);
    assert_int_equal(waiting_after(fixture->store, last, 100).count, 0);
    assert_int_equal(waiting_after(fixture->store, 0, 4).count, 4);
    fixture_close(fixture);
    assert_int_equal(all.bytes, sql_number(fixture->path, "SELECT sum(length(payload)) FROM change_log"));
}

/* Where a snapshot's records go. */
struct copy {
    struct kms_store *to;
    struct kms_store_txn *txn;
};

static enum kms_status apply_row(void *context, const struct kms_change_row *row)
{
    const struct copy *copy = context;
    struct kms_change change = {0};
    assert_ok(kms_changelog_decode(row->payload, &change, &err));
    assert_ok(kms_store_apply(copy->to, copy->txn, &change, &err));
    kms_change_clear(&change);
    return KMS_OK;
}

static void a_snapshot_rebuilds_the_same_tables_and_the_log_goes_on(void **state)
{
    struct fixture *fixture = *state;
    write_a_bit_of_everything(fixture->store);
    const uint64_t last = last_of(fixture->store);
    struct fixture rebuilt = {0};
    (void)snprintf(rebuilt.path, sizeof rebuilt.path, "%s", fixture_file(fixture, "-copy"));
    fixture_open(&rebuilt);
    struct kms_txn from = begin_read(fixture->store);
    struct kms_txn to = begin_write(rebuilt.store);
    rebuilt.store->ops->changes.silence(to.txn);
    struct copy copy = {rebuilt.store, to.txn};
    assert_ok(fixture->store->ops->changes.snapshot(from.txn, apply_row, &copy, &err));
    assert_ok(rebuilt.store->ops->changes.resume(to.txn, last, &err));
    commit(&to);
    kms_txn_clear(&from);
    assert_int_equal(last_of(rebuilt.store), last);
    to = begin_write(rebuilt.store);
    assert_status(KMS_FAILED_PRECONDITION, rebuilt.store->ops->changes.resume(to.txn, 1, &err));
    kms_txn_clear(&to);
    fixture_close(&rebuilt);
    fixture_close(fixture);
    assert_int_equal(sql_number(rebuilt.path, "SELECT count(*) FROM change_log"), 0);
    char *wanted = dump_tables(fixture->path);
    char *found = dump_tables(rebuilt.path);
    assert_string_equal(found, wanted);
    free(wanted);
    free(found);
    (void)unlink(rebuilt.path);
    (void)unlink(fixture_file(&rebuilt, ".lock"));
}

static void a_change_that_contradicts_the_ones_before_is_refused(void **state)
{
    struct kms_store *store = ((struct fixture *)*state)->store;
    fill(store, 2);
    struct kms_change change = {.kind = KMS_CHANGE_KEK_STATE, .kek_state.state = KMS_KEK_DISABLED};
    struct kms_txn txn = begin_write(store);
    assert_status(KMS_STORE_CORRUPT, kms_store_apply(store, txn.txn, &change, &err));
    change = (struct kms_change){.kind = KMS_CHANGE_KEK, .kek = sample_kek(1, 1, "service", 1)};
    assert_status(KMS_STORE_CORRUPT, kms_store_apply(store, txn.txn, &change, &err));
    change = (struct kms_change){.kind = KMS_CHANGE_CUSTOMER, .customer = sample_customer(9, 1)};
    assert_status(KMS_STORE_CORRUPT, kms_store_apply(store, txn.txn, &change, &err));
    kms_txn_clear(&txn);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(changes_are_read_in_order_and_in_portions),
        TEST(pruned_numbers_are_never_used_again),
        TEST(what_waits_to_be_shipped_is_counted),
        TEST(a_snapshot_rebuilds_the_same_tables_and_the_log_goes_on),
        TEST(a_change_that_contradicts_the_ones_before_is_refused),
    };
    return cmocka_run_group_tests_name("store/changes", tests, NULL, NULL);
}
