/* Goal: wherever memory runs out, the call fails with NO_MEMORY, nothing leaks and the database stays whole. */
#include "replay.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Allocations count down to the one that fails; 0: none does. One counter for the store, one for SQLite. */
static long own_countdown;
static long sqlite_countdown;
static bool failed;

static bool fails(long *countdown)
{
    if (*countdown == 0 || --*countdown != 0)
        return false;
    failed = true;
    return true;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
char *__wrap_strdup(const char *text);

void *__wrap_malloc(size_t size)
{
    return fails(&own_countdown) ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails(&own_countdown) ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return fails(&own_countdown) ? NULL : __real_realloc(old, size);
}

char *__wrap_strdup(const char *text)
{
    return fails(&own_countdown) ? NULL : __real_strdup(text);
}

/* SQLite's allocator, the same way. */
static sqlite3_mem_methods real_methods;

static void *sqlite_malloc(int size)
{
    return fails(&sqlite_countdown) ? NULL : real_methods.xMalloc(size);
}

static void *sqlite_realloc(void *old, int size)
{
    return fails(&sqlite_countdown) ? NULL : real_methods.xRealloc(old, size);
}

static int hook_sqlite(void **state)
{
    (void)state;
    assert_int_equal(sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real_methods), SQLITE_OK);
    sqlite3_mem_methods methods = real_methods;
    methods.xMalloc = sqlite_malloc;
    methods.xRealloc = sqlite_realloc;
    return sqlite3_config(SQLITE_CONFIG_MALLOC, &methods);
}

/* Reads of a transaction that has everything. */
static enum kms_status read_all(struct kms_store *store)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(store, false, &txn, NULL));
    const struct kms_customer_record wanted = sample_customer(1, 1);
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
    KMS_TRY(store->ops->customer_by_id(txn.txn, &wanted.tenant, wanted.id, &customer, NULL));
    KMS_CLEANUP(kms_page_record_clear) struct kms_page_record page = {0};
    KMS_TRY(store->ops->page_get(txn.txn, &wanted.tenant, 0, 0, &page, NULL));
    struct kms_tenant_record *tenants = NULL;
    size_t count = 0;
    KMS_TRY(store->ops->tenant_list(txn.txn, NULL, 10, &tenants, &count, NULL));
    free(tenants);
    struct kms_kek_record *keks = NULL;
    KMS_TRY(store->ops->kek_list(txn.txn, &wanted.uuid, NULL, 0, 10, &keks, &count, NULL));
    free(keks);
    return kms_txn_commit(&txn, NULL);
}

static enum kms_status write_all(struct kms_store *store)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(store, true, &txn, NULL));
    const struct kms_tenant_record tenant = sample_tenant(1);
    const struct kms_purpose_record purpose = sample_purpose(1, "service");
    const struct kms_customer_record customer = sample_customer(1, 1);
    const struct kms_kek_record kek = sample_kek(1, 1, "service", 1);
    const struct kms_page_record page = sample_page(1, 0, 0);
    const struct kms_request_record request = sample_request(1);
    uint64_t first = 0;
    KMS_TRY(store->ops->tenant_insert(txn.txn, &tenant, NULL));
    KMS_TRY(store->ops->purpose_insert(txn.txn, &purpose, NULL));
    KMS_TRY(store->ops->customer_insert(txn.txn, &customer, NULL));
    KMS_TRY(store->ops->kek_insert(txn.txn, &kek, NULL));
    KMS_TRY(store->ops->kek_reserve(txn.txn, kek.kek_id, 5, &first, NULL));
    KMS_TRY(store->ops->page_put(txn.txn, &page, NULL));
    KMS_TRY(store->ops->request_put(txn.txn, &request, NULL));
    return kms_txn_commit(&txn, NULL);
}

/* Open the database, which is made when there is none, write and read, close. */
static enum kms_status scenario(const char *path)
{
    const struct kms_store_sqlite_config config = {.path = path, .readers = 1};
    struct kms_store *store = NULL;
    KMS_TRY(kms_store_sqlite_open(&config, &store, NULL));
    enum kms_status status = write_all(store);
    if (status == KMS_OK)
        status = read_all(store);
    kms_store_free(store);
    return status;
}

/* As before the scenario: no database, or one without records. */
static void start_over(struct fixture *fixture, bool exists)
{
    (void)unlink(fixture->path);
    (void)unlink(fixture_file(fixture, "-wal"));
    (void)unlink(fixture_file(fixture, "-shm"));
    if (exists) {
        fixture_open(fixture);
        fixture_close(fixture);
    }
}

/* How many allocations of one kind the scenario makes when all succeed. */
static long allocations(struct fixture *fixture, long *countdown, bool exists)
{
    start_over(fixture, exists);
    *countdown = LONG_MAX;
    assert_ok(scenario(fixture->path));
    const long count = LONG_MAX - *countdown;
    *countdown = 0;
    return count;
}

/* Fail about `rounds` allocations of one kind, one in each, spread evenly from the first to the last. */
static void sweep(struct fixture *fixture, long *countdown, bool exists, long rounds)
{
    const long step = allocations(fixture, countdown, exists) / rounds + 1;
    unsigned refused = 0;
    for (long n = 1;; n += step) {
        start_over(fixture, exists);
        failed = false;
        *countdown = n;
        const enum kms_status status = scenario(fixture->path);
        *countdown = 0;
        if (!failed) {
            assert_ok(status);
            break;
        }
        if (status != KMS_OK) { /* SQLite does without some: a page cache may stay smaller */
            assert_status(KMS_NO_MEMORY, status);
            refused++;
        }
        if (access(fixture->path, F_OK) == 0) {
            fixture_open(fixture);
            fixture_close(fixture);
        }
    }
    assert_true(refused > 5);
    assert_log_matches_tables(fixture->path);
}

static void every_allocation_of_the_store_may_fail(void **state)
{
    sweep(*state, &own_countdown, false, LONG_MAX);
}

static void any_allocation_of_sqlite_may_fail_while_a_database_is_made(void **state)
{
    sweep(*state, &sqlite_countdown, false, 100);
}

static void any_allocation_of_sqlite_may_fail_in_a_database_that_exists(void **state)
{
    sweep(*state, &sqlite_countdown, true, 100);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup_dir, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(every_allocation_of_the_store_may_fail),
        TEST(any_allocation_of_sqlite_may_fail_while_a_database_is_made),
        TEST(any_allocation_of_sqlite_may_fail_in_a_database_that_exists),
    };
    return cmocka_run_group_tests(tests, hook_sqlite, NULL);
}
