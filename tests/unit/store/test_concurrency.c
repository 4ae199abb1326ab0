/* Goal: transactions are atomic, readers see snapshots and never wait for a writer, and nobody waits for ever. */
#include "support.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static struct kms_error err;

static struct kms_store *store_of(void **state)
{
    return ((struct fixture *)*state)->store;
}

static void a_rolled_back_transaction_leaves_nothing(void **state)
{
    struct fixture *fixture = *state;
    struct kms_store *store = fixture->store;
    fill(store, 1);
    const int64_t log = sql_number(fixture->path, "SELECT max(seq) FROM change_log");
    {
        KMS_TXN txn = begin_write(store);
        const struct kms_customer_record customer = sample_customer(1, 2);
        const struct kms_kek_record kek = sample_kek(1, 2, "service", 1);
        const struct kms_page_record page = sample_page(1, 0, 0);
        uint64_t first = 0;
        assert_ok(store->ops->customer_insert(txn.txn, &customer, &err));
        assert_ok(store->ops->kek_insert(txn.txn, &kek, &err));
        assert_ok(store->ops->kek_reserve(txn.txn, kek.kek_id, 1, &first, &err));
        assert_ok(store->ops->page_put(txn.txn, &page, &err));
    }
    assert_int_equal(sql_number(fixture->path, "SELECT count(*) FROM customer"), 1);
    assert_int_equal(sql_number(fixture->path, "SELECT count(*) FROM kek"), 1);
    assert_int_equal(sql_number(fixture->path, "SELECT count(*) FROM tree_page"), 0);
    assert_int_equal(sql_number(fixture->path, "SELECT max(seq) FROM change_log"), log);
    struct kms_txn again = begin_write(store); /* the memory of the first attempt is gone with it */
    const struct kms_kek_record kek = sample_kek(1, 2, "service", 1);
    assert_status(KMS_NOT_FOUND, store->ops->kek_insert(again.txn, &kek, &err));
    kms_txn_clear(&again);
    store->ops->rollback(NULL);
}

static void a_write_transaction_sees_its_own_writes_and_others_do_not(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 1);
    const struct kms_customer_record customer = sample_customer(1, 2);
    struct kms_txn writer = begin_write(store);
    assert_ok(store->ops->customer_insert(writer.txn, &customer, &err));
    struct kms_customer_record found;
    assert_ok(store->ops->customer_by_uuid(writer.txn, &customer.uuid, &found, &err));
    kms_customer_record_clear(&found);
    struct kms_txn reader = begin_read(store);
    assert_status(KMS_NOT_FOUND, store->ops->customer_by_uuid(reader.txn, &customer.uuid, &found, &err));
    kms_txn_clear(&reader);
    commit(&writer);
    reader = begin_read(store);
    assert_ok(store->ops->customer_by_uuid(reader.txn, &customer.uuid, &found, &err));
    kms_customer_record_clear(&found);
    kms_txn_clear(&reader);
}

static void two_readers_keep_their_snapshots_during_writes(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 1);
    const struct kms_customer_record second = sample_customer(1, 2);
    struct kms_customer_record found;
    struct kms_txn before = begin_read(store);
    assert_status(KMS_NOT_FOUND, store->ops->customer_by_uuid(before.txn, &second.uuid, &found, &err));
    struct kms_txn writer = begin_write(store);
    assert_ok(store->ops->customer_insert(writer.txn, &second, &err));
    commit(&writer);
    struct kms_txn after = begin_read(store);
    assert_ok(store->ops->customer_by_uuid(after.txn, &second.uuid, &found, &err));
    kms_customer_record_clear(&found);
    assert_status(KMS_NOT_FOUND, store->ops->customer_by_uuid(before.txn, &second.uuid, &found, &err));
    commit(&before);
    commit(&after);
}

struct visit {
    struct kms_store *store;
    struct kms_store_txn *txn;
    unsigned count;
};

static enum kms_status look_up_kek(void *context, const struct kms_customer_record *customer)
{
    struct visit *visit = context;
    struct kms_kek_record kek;
    visit->count++;
    return visit->store->ops->kek_primary(visit->txn, &customer->uuid, "service", &kek, &err);
}

static void a_list_visitor_may_use_its_transaction(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 20);
    struct kms_txn txn = begin_read(store);
    struct visit visit = {store, txn.txn, 0};
    const struct kms_uuid tenant = sample_uuid(1, 1);
    assert_ok(store->ops->customer_list(txn.txn, &tenant, NULL, NULL, 100, look_up_kek, &visit, &err));
    assert_int_equal(visit.count, 20);
    kms_txn_clear(&txn);
}

/* What another thread finds when it wants to write. */
struct attempt {
    struct kms_store *store;
    enum kms_status status;
    struct kms_error err;
};

static void *try_to_write(void *argument)
{
    struct attempt *attempt = argument;
    struct kms_txn txn = {0};
    attempt->status = kms_txn_begin(attempt->store, true, &txn, &attempt->err);
    kms_txn_clear(&txn);
    return NULL;
}

static void a_second_writer_gives_up_at_the_busy_timeout(void **state)
{
    struct fixture *fixture = *state;
    fixture_close(fixture);
    const struct kms_store_sqlite_config config = {.path = fixture->path, .busy_timeout_ms = 30};
    assert_ok(kms_store_sqlite_open(&config, &fixture->store, &err));
    struct kms_txn txn = begin_write(fixture->store);
    struct attempt attempt = {.store = fixture->store};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, try_to_write, &attempt), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_status(KMS_STORE_BUSY, attempt.status);
    assert_non_null(strstr(attempt.err.cause, "another write transaction"));
    kms_txn_clear(&txn);
    assert_int_equal(pthread_create(&thread, NULL, try_to_write, &attempt), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_ok(attempt.status);
}

static void a_foreign_exclusive_lock_makes_writers_busy_and_leaves_readers_alone(void **state)
{
    struct fixture *fixture = *state;
    fill(fixture->store, 1);
    fixture_close(fixture);
    const struct kms_store_sqlite_config config = {.path = fixture->path, .busy_timeout_ms = 30};
    assert_ok(kms_store_sqlite_open(&config, &fixture->store, &err));
    sqlite3 *other = NULL;
    assert_int_equal(sqlite3_open(fixture->path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "BEGIN EXCLUSIVE", NULL, NULL, NULL), SQLITE_OK);
    struct kms_txn txn = {0};
    err = (struct kms_error){0};
    assert_status(KMS_STORE_BUSY, kms_txn_begin(fixture->store, true, &txn, &err));
    assert_null(txn.txn);
    assert_non_null(strstr(err.cause, "another process holds a lock"));
    txn = begin_read(fixture->store);
    struct kms_tenant_record tenant;
    assert_ok(fixture->store->ops->tenant_by_id(txn.txn, "tenant-0001", &tenant, &err));
    kms_txn_clear(&txn);
    assert_int_equal(sqlite3_exec(other, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(other), SQLITE_OK);
    txn = begin_write(fixture->store);
    commit(&txn);
}

static void more_readers_than_connections_are_refused_and_come_back(void **state)
{
    struct fixture *fixture = *state;
    fixture_close(fixture);
    const struct kms_store_sqlite_config config = {
        .path = fixture->path, .busy_timeout_ms = 30, .readers = 2};
    assert_ok(kms_store_sqlite_open(&config, &fixture->store, &err));
    struct kms_txn first = begin_read(fixture->store);
    struct kms_txn second = begin_read(fixture->store);
    struct kms_txn third = {0};
    assert_status(KMS_STORE_BUSY, kms_txn_begin(fixture->store, false, &third, &err));
    kms_txn_clear(&first);
    third = begin_read(fixture->store);
    kms_txn_clear(&second);
    kms_txn_clear(&third);
}

static void a_commit_with_a_lost_write_fails_as_a_whole(void **state)
{
    struct fixture *fixture = *state;
    struct kms_store *store = fixture->store;
    fill(store, 1);
    /* The change log refuses the next record: its last sequence number is the largest there is. */
    fixture_close(fixture);
    sql_run(fixture->path, "UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'change_log'");
    fixture_open(fixture);
    store = fixture->store;
    const struct kms_customer_record customer = sample_customer(1, 2);
    struct kms_txn txn = begin_write(store);
    assert_status(KMS_STORE_FULL, store->ops->customer_insert(txn.txn, &customer, &err));
    const struct kms_page_record page = sample_page(1, 0, 0);
    struct kms_tenant_record tenant;
    assert_status(KMS_STORE_FULL, store->ops->page_put(txn.txn, &page, &err));
    assert_status(KMS_STORE_FULL, store->ops->tenant_by_id(txn.txn, "tenant-0001", &tenant, &err));
    assert_status(KMS_STORE_FULL, kms_txn_commit(&txn, &err));
    assert_int_equal(sql_number(fixture->path, "SELECT count(*) FROM tree_page"), 0);
    assert_int_equal(sql_number(fixture->path, "SELECT count(*) FROM customer"), 1);
    txn = begin_write(store); /* the connection is usable again */
    kms_txn_clear(&txn);
}

enum { THREADS = 4, ROUNDS = 40 };

struct worker {
    struct kms_store *store;
    unsigned number;
    unsigned wrong;
    pthread_t thread;
};

/* Move "wraps" between two KEKs so that their sum never changes, or check that it never does. */
static void *writer_thread(void *argument)
{
    struct worker *worker = argument;
    for (unsigned i = 0; i < ROUNDS; i++) {
        KMS_TXN txn = {0};
        uint64_t first = 0;
        const struct kms_kek_record a = sample_kek(1, 1, "service", 1);
        const struct kms_kek_record b = sample_kek(1, 2, "service", 1);
        if (kms_txn_begin(worker->store, true, &txn, NULL) != KMS_OK ||
            worker->store->ops->kek_reserve(txn.txn, a.kek_id, 1, &first, NULL) != KMS_OK ||
            worker->store->ops->kek_reserve(txn.txn, b.kek_id, 1, &first, NULL) != KMS_OK ||
            kms_txn_commit(&txn, NULL) != KMS_OK)
            worker->wrong++;
    }
    return NULL;
}

static void *reader_thread(void *argument)
{
    struct worker *worker = argument;
    for (unsigned i = 0; i < 4 * ROUNDS; i++) {
        KMS_TXN txn = {0};
        struct kms_kek_record a = sample_kek(1, 1, "service", 1);
        struct kms_kek_record b = sample_kek(1, 2, "service", 1);
        if (kms_txn_begin(worker->store, false, &txn, NULL) != KMS_OK ||
            worker->store->ops->kek_by_id(txn.txn, a.kek_id, &a, NULL) != KMS_OK ||
            worker->store->ops->kek_by_id(txn.txn, b.kek_id, &b, NULL) != KMS_OK ||
            a.wraps_reserved != b.wraps_reserved)
            worker->wrong++;
    }
    return NULL;
}

static void threads_never_see_half_a_transaction(void **state)
{
    struct fixture *fixture = *state;
    fill(fixture->store, 2);
    struct worker workers[2 * THREADS] = {0};
    for (unsigned i = 0; i < 2 * THREADS; i++) {
        workers[i].store = fixture->store;
        assert_int_equal(
            pthread_create(&workers[i].thread, NULL, i % 2 == 0 ? writer_thread : reader_thread, &workers[i]),
            0);
    }
    for (unsigned i = 0; i < 2 * THREADS; i++) {
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
        assert_int_equal(workers[i].wrong, 0);
    }
    struct kms_txn txn = begin_read(fixture->store);
    struct kms_kek_record kek = sample_kek(1, 2, "service", 1);
    assert_ok(fixture->store->ops->kek_by_id(txn.txn, kek.kek_id, &kek, &err));
    assert_int_equal(kek.wraps_reserved, THREADS * ROUNDS);
    kms_txn_clear(&txn);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_rolled_back_transaction_leaves_nothing),
        TEST(a_write_transaction_sees_its_own_writes_and_others_do_not),
        TEST(two_readers_keep_their_snapshots_during_writes),
        TEST(a_list_visitor_may_use_its_transaction),
        TEST(a_second_writer_gives_up_at_the_busy_timeout),
        TEST(a_foreign_exclusive_lock_makes_writers_busy_and_leaves_readers_alone),
        TEST(more_readers_than_connections_are_refused_and_come_back),
        TEST(a_commit_with_a_lost_write_fails_as_a_whole),
        TEST(threads_never_see_half_a_transaction),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
