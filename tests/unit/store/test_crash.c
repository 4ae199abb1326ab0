/* Goal: a daemon killed at any moment loses nothing that it had confirmed and keeps nothing by halves. */
#include "replay.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CRASHES = 30, PER_TRANSACTION = 3, CHECKED_EVERY = 5 };

static struct kms_error err;

/* One transaction: PER_TRANSACTION customers with their KEKs, a page, a reservation, and the tenant. */
static enum kms_status write_some(struct kms_store *store, unsigned first)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(store, true, &txn, NULL));
    for (unsigned i = first; i < first + PER_TRANSACTION; i++) {
        const struct kms_customer_record customer = sample_customer(1, i);
        KMS_TRY(store->ops->customer_insert(txn.txn, &customer, NULL));
        const struct kms_kek_record kek = sample_kek(1, i, "service", 1);
        KMS_TRY(store->ops->kek_insert(txn.txn, &kek, NULL));
        uint64_t before = 0;
        KMS_TRY(store->ops->kek_reserve(txn.txn, kek.kek_id, 65536, &before, NULL));
    }
    const struct kms_page_record page = sample_page(1, 0, first % 64);
    KMS_TRY(store->ops->page_put(txn.txn, &page, NULL));
    struct kms_tenant_record tenant = sample_tenant(1);
    tenant.next_slot = first + PER_TRANSACTION;
    KMS_TRY(store->ops->tenant_update(txn.txn, &tenant, NULL));
    return kms_txn_commit(&txn, NULL);
}

/* The child: opens the store and writes until it is killed, one byte down the pipe for each confirmed commit. */
static _Noreturn void write_until_killed(const char *path, int confirmations)
{
    const struct kms_store_sqlite_config config = {.path = path};
    struct kms_store *store = NULL;
    if (kms_store_sqlite_open(&config, &store, NULL) != KMS_OK)
        _exit(1);
    struct kms_tenant_record tenant;
    struct kms_txn txn = {0};
    if (kms_txn_begin(store, false, &txn, NULL) != KMS_OK ||
        store->ops->tenant_by_id(txn.txn, "tenant-0001", &tenant, NULL) != KMS_OK)
        _exit(2);
    kms_txn_clear(&txn);
    for (unsigned next = (unsigned)tenant.next_slot;; next += PER_TRANSACTION)
        if (write_some(store, next) != KMS_OK || write(confirmations, "", 1) != 1)
            _exit(3);
}

/* Start a child, read `wanted` confirmations, kill it; returns how many were confirmed in all. */
static unsigned run_and_kill(const char *path, unsigned wanted)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)close(ends[0]);
        write_until_killed(path, ends[1]);
    }
    (void)close(ends[1]);
    unsigned confirmed = 0;
    char byte;
    while (confirmed < wanted && read(ends[0], &byte, 1) == 1)
        confirmed++;
    assert_int_equal(confirmed, wanted); /* it did not end by itself */
    assert_int_equal(kill(child, SIGKILL), 0);
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
    while (read(ends[0], &byte, 1) == 1)
        confirmed++;
    (void)close(ends[0]);
    return confirmed;
}

/* What is in the database now: the end of the customers' numbers; all or nothing of each transaction. */
static unsigned check_state(const char *path)
{
    const int64_t end = sql_number(path, "SELECT next_slot FROM tenant");
    assert_int_equal(sql_number(path, "SELECT count(*) FROM customer"), end - 1);
    assert_int_equal(sql_number(path, "SELECT count(*) FROM kek"), end - 1);
    assert_int_equal(sql_number(path, "SELECT count(*) FROM change_log WHERE kind = 6"),
                     (end - 1) / PER_TRANSACTION);
    assert_int_equal((end - 1) % PER_TRANSACTION, 0);
    return (unsigned)end;
}

static void nothing_confirmed_is_lost_by_a_kill_and_nothing_is_half_done(void **state)
{
    struct fixture *fixture = *state;
    fixture_open(fixture);
    fill(fixture->store, 0);
    struct kms_txn txn = begin_write(fixture->store);
    struct kms_tenant_record tenant = sample_tenant(1);
    tenant.next_slot = 1;
    assert_ok(fixture->store->ops->tenant_update(txn.txn, &tenant, &err));
    commit(&txn);
    fixture_close(fixture); /* no store is open when the process forks */
    unsigned end = 1;
    for (unsigned round = 0; round < CRASHES; round++) {
        const unsigned confirmed = run_and_kill(fixture->path, round * 7 % 23);
        const unsigned new_end = check_state(fixture->path);
        assert_true(new_end >= end + confirmed * PER_TRANSACTION);
        assert_true(new_end <= end + (confirmed + 1) * PER_TRANSACTION);
        end = new_end;
        if (round % CHECKED_EVERY == 0)
            assert_log_matches_tables(fixture->path);
    }
    assert_true(end > CRASHES);
    assert_log_matches_tables(fixture->path);
    fixture_open(fixture);
}

/* The child makes a database, over and over, until it is killed somewhere in the middle. */
static void a_kill_while_a_database_is_made_leaves_none_or_a_whole_one(void **state)
{
    struct fixture *fixture = *state;
    for (unsigned round = 0; round < CRASHES; round++) {
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            const struct kms_store_sqlite_config config = {.path = fixture->path};
            for (;;) {
                struct kms_store *store = NULL;
                if (write(ends[1], "", 1) != 1 || kms_store_sqlite_open(&config, &store, NULL) != KMS_OK)
                    _exit(1);
                kms_store_free(store);
                (void)unlink(fixture->path);
            }
        }
        (void)close(ends[1]);
        char byte;
        for (unsigned i = 0; i <= round % 4; i++)
            assert_int_equal(read(ends[0], &byte, 1), 1);
        for (volatile unsigned spin = 0; spin < round * 20000; spin++)
            continue; /* another moment each time; none of them is waited for */
        assert_int_equal(kill(child, SIGKILL), 0);
        int how = 0;
        assert_int_equal(waitpid(child, &how, 0), child);
        assert_true(WIFSIGNALED(how));
        (void)close(ends[0]);
        fixture_open(fixture);
        fixture_close(fixture);
        assert_int_equal(unlink(fixture->path), 0);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup_dir, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(nothing_confirmed_is_lost_by_a_kill_and_nothing_is_half_done),
        TEST(a_kill_while_a_database_is_made_leaves_none_or_a_whole_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
