/* Goal: a damaged or hostile file, and a disk that is full, give a clear status and never a crash or a wrong row. */
#include "support.h"

#include "store/sqlite_error.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static struct kms_error err;

/* A customer in a list must be free of damage when it is handed out. */
static enum kms_status look(void *context, const struct kms_customer_record *customer)
{
    ++*(unsigned *)context;
    assert_true(customer->id[0] != '\0' && customer->labels[0] == '{');
    return KMS_OK;
}

/* Damage may be found or not; anything else would be a bug. */
static void note(enum kms_status status, unsigned *corrupt)
{
    if (status == KMS_STORE_CORRUPT)
        ++*corrupt;
    else
        assert_true(status == KMS_OK || status == KMS_NOT_FOUND || status == KMS_ALREADY_EXISTS);
}

/* Use everything that `fill(…, 40)` has made; counts what was refused as corrupt. */
static void use_everything(struct kms_store *store, unsigned *corrupt)
{
    const struct kms_uuid tenant_uuid = sample_uuid(1, 1);
    unsigned seen = 0;
    struct kms_txn txn = {0};
    enum kms_status status = kms_txn_begin(store, true, &txn, NULL);
    note(status, corrupt);
    if (status != KMS_OK)
        return;
    struct kms_tenant_record tenant;
    note(store->ops->tenant_by_id(txn.txn, "tenant-0001", &tenant, NULL), corrupt);
    note(store->ops->tenant_by_uuid(txn.txn, &tenant_uuid, &tenant, NULL), corrupt);
    struct kms_purpose_record purpose;
    note(store->ops->purpose_get(txn.txn, &tenant_uuid, "service", &purpose, NULL), corrupt);
    note(store->ops->customer_list(txn.txn, &tenant_uuid, NULL, NULL, 1000, look, &seen, NULL), corrupt);
    assert_true(seen <= 40);
    for (unsigned i = 1; i <= 40; i++) {
        struct kms_customer_record customer = sample_customer(1, i);
        struct kms_customer_record found;
        status = store->ops->customer_by_id(txn.txn, &tenant_uuid, customer.id, &found, NULL);
        note(status, corrupt);
        if (status == KMS_OK)
            kms_customer_record_clear(&found);
        struct kms_kek_record kek = sample_kek(1, i, "service", 1);
        uint64_t first = 0;
        note(store->ops->kek_by_id(txn.txn, kek.kek_id, &kek, NULL), corrupt);
        struct kms_kek_customer owner;
        note(store->ops->kek_with_customer(txn.txn, kek.kek_id, &kek, &owner, NULL), corrupt);
        note(store->ops->kek_primary(txn.txn, &customer.uuid, "service", &kek, NULL), corrupt);
        note(store->ops->kek_reserve(txn.txn, kek.kek_id, 1, &first, NULL), corrupt);
        struct kms_page_record page = {0};
        status = store->ops->page_get(txn.txn, &tenant_uuid, 0, i, &page, NULL);
        note(status, corrupt);
        if (status == KMS_OK)
            kms_page_record_clear(&page);
    }
    const struct kms_customer_record more = sample_customer(1, 41);
    note(store->ops->customer_insert(txn.txn, &more, NULL), corrupt);
    note(kms_txn_commit(&txn, NULL), corrupt);
}

/* A small database, closed, as bytes on the heap. */
static uint8_t *make_image(struct fixture *fixture, size_t *ret_len)
{
    fixture_open(fixture);
    fill(fixture->store, 40);
    struct kms_txn txn = begin_write(fixture->store);
    for (uint64_t i = 1; i <= 5; i++) {
        const struct kms_page_record page = sample_page(1, 0, i);
        assert_ok(fixture->store->ops->page_put(txn.txn, &page, &err));
    }
    commit(&txn);
    fixture_close(fixture);
    struct stat info;
    assert_int_equal(stat(fixture->path, &info), 0);
    uint8_t *image = malloc((size_t)info.st_size);
    assert_non_null(image);
    FILE *file = fopen(fixture->path, "rb");
    assert_non_null(file);
    assert_int_equal(fread(image, 1, (size_t)info.st_size, file), info.st_size);
    (void)fclose(file);
    *ret_len = (size_t)info.st_size;
    return image;
}

/* Put an image in place of the database, open it and use it. */
static void try_image(struct fixture *fixture, const uint8_t *image, size_t len, unsigned *corrupt)
{
    (void)unlink(fixture_file(fixture, "-wal"));
    (void)unlink(fixture_file(fixture, "-shm"));
    FILE *file = fopen(fixture->path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(image, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
    const struct kms_store_sqlite_config config = {.path = fixture->path, .readers = 1};
    struct kms_store *store = NULL;
    err = (struct kms_error){0};
    const enum kms_status status = kms_store_sqlite_open(&config, &store, &err);
    if (status != KMS_OK) {
        if (status != KMS_STORE_CORRUPT && status != KMS_STORE_NEWER)
            fail_msg("%s: %s", kms_status_name(status), err.cause);
        ++*corrupt;
        return;
    }
    use_everything(store, corrupt);
    kms_store_free(store);
}

static void flipped_bytes_are_refused_or_harmless(void **state)
{
    struct fixture *fixture = *state;
    size_t len = 0;
    uint8_t *image = make_image(fixture, &len);
    unsigned corrupt = 0;
    unsigned rounds = 0;
    for (size_t at = 0; at < len; at += at < 120 ? 7 : 911, rounds++) {
        image[at] ^= (uint8_t)(0x01U << (at % 8));
        try_image(fixture, image, len, &corrupt);
        image[at] ^= (uint8_t)(0x01U << (at % 8));
    }
    assert_true(rounds > 60);
    assert_true(corrupt > 5);
    free(image);
}

static void overwritten_pages_are_refused_or_harmless(void **state)
{
    struct fixture *fixture = *state;
    size_t len = 0;
    uint8_t *image = make_image(fixture, &len);
    uint8_t saved[4096];
    for (size_t page = 0; page + 4096 <= len; page += 4096) {
        unsigned corrupt = 0;
        memcpy(saved, image + page, sizeof saved);
        memset(image + page, page % 8192 == 0 ? 0x00 : 0xff, sizeof saved);
        try_image(fixture, image, len, &corrupt);
        if (page == 0)
            assert_int_equal(corrupt, 1); /* the header itself */
        memcpy(image + page, saved, sizeof saved);
    }
    free(image);
}

static void a_truncated_file_is_refused_or_harmless(void **state)
{
    struct fixture *fixture = *state;
    size_t len = 0;
    uint8_t *image = make_image(fixture, &len);
    unsigned corrupt = 0;
    for (size_t pages = 1; pages * 4096 < len; pages++)
        try_image(fixture, image, pages * 4096, &corrupt);
    assert_true(corrupt > len / 4096 / 2);
    for (size_t cut = 1; cut < 4096; cut *= 8) { /* to SQLite this would be a new database */
        corrupt = 0;
        try_image(fixture, image, 4096 - cut, &corrupt);
        assert_int_equal(corrupt, 1);
    }
    free(image);
}

/* Each damages rows behind the store's back; the reads that follow must say so. */
struct hostile_row {
    const char *sql;
    enum { TENANT, PURPOSE, CUSTOMER, KEK, SERVED, RESERVE, PAGE, LIST, REQUEST } reader;
};

static enum kms_status read_one(struct kms_store *store, struct kms_store_txn *txn, int reader)
{
    const struct kms_uuid tenant_uuid = sample_uuid(1, 1);
    const struct kms_customer_record customer = sample_customer(1, 1);
    struct kms_kek_record kek = sample_kek(1, 1, "service", 1);
    struct kms_tenant_record tenant;
    struct kms_purpose_record purpose;
    struct kms_customer_record found = {0};
    struct kms_kek_customer owner;
    struct kms_page_record page = {0};
    struct kms_request_record request;
    unsigned seen = 0;
    uint64_t first = 0;
    switch (reader) {
    case TENANT:
        return store->ops->tenant_by_uuid(txn, &tenant_uuid, &tenant, &err);
    case PURPOSE:
        return store->ops->purpose_get(txn, &tenant_uuid, "service", &purpose, &err);
    case CUSTOMER:
        return store->ops->customer_by_uuid(txn, &customer.uuid, &found, &err);
    case KEK:
        return store->ops->kek_by_id(txn, kek.kek_id, &kek, &err);
    case SERVED:
        return store->ops->kek_with_customer(txn, kek.kek_id, &kek, &owner, &err);
    case RESERVE:
        return store->ops->kek_reserve(txn, kek.kek_id, 1, &first, &err);
    case PAGE:
        return store->ops->page_get(txn, &tenant_uuid, 0, 1, &page, &err);
    case LIST:
        return store->ops->customer_list(txn, &tenant_uuid, NULL, NULL, 9, look, &seen, &err);
    default:
        request = sample_request(1);
        return store->ops->request_get(txn, request.request_id, request.identity, &request, &err);
    }
}

static const struct hostile_row hostile_rows[] = {
    {"UPDATE tenant SET id = ''", TENANT},
    {"UPDATE tenant SET id = CAST(zeroblob(3) AS TEXT)", TENANT},
    {"UPDATE tenant SET id = printf('%.*c', 64, 'x')", TENANT},
    {"UPDATE tenant SET display_name = CAST(x'ff' AS TEXT)", TENANT},
    {"UPDATE tenant SET display_name = printf('%.*c', 257, 'x')", TENANT},
    {"UPDATE tenant SET state = 0", TENANT},
    {"UPDATE tenant SET state = 4294967297", TENANT},
    {"UPDATE tenant SET epoch = -1", TENANT},
    {"UPDATE tenant SET master_id = x'00'", TENANT},
    {"UPDATE tenant SET root_blob = zeroblob(41)", TENANT},
    {"UPDATE tenant SET height = 17", TENANT},
    {"UPDATE tenant SET height = 4294967296", TENANT},
    {"UPDATE purpose SET required_by_law = 2", PURPOSE},
    {"UPDATE purpose SET retention_seconds = -5", PURPOSE},
    {"UPDATE purpose SET legal_basis = printf('%.*c', 300, 'x')", PURPOSE},
    {"UPDATE customer SET id = 'a' || char(10)", CUSTOMER},
    {"UPDATE customer SET id = printf('%.*c', 257, 'x')", CUSTOMER},
    {"UPDATE customer SET labels = ''", CUSTOMER},
    {"UPDATE customer SET labels = '{' || printf('%.*c', 65536, 'x') || '}'", CUSTOMER},
    {"UPDATE customer SET labels = '{' || CAST(x'00' AS TEXT) || '}'", CUSTOMER},
    {"UPDATE customer SET state = 4", CUSTOMER},
    {"UPDATE customer SET revision = -9223372036854775808", CUSTOMER},
    {"UPDATE customer SET uuid = x'0102' WHERE id = 'customer-000001'", LIST},
    {"UPDATE customer SET tenant_no = 77", CUSTOMER},
    {"DELETE FROM customer", KEK},
    {"DELETE FROM tenant", KEK},
    {"DELETE FROM customer", SERVED},
    {"DELETE FROM tenant", SERVED},
    {"UPDATE kek SET slot = -1", SERVED},
    {"UPDATE customer SET id = 'a' || char(10)", SERVED},
    {"UPDATE customer SET id = ''", SERVED},
    {"UPDATE customer SET state = 4", SERVED},
    {"UPDATE kek SET version = 4294967296", KEK},
    {"UPDATE kek SET version = 0", KEK},
    {"UPDATE kek SET slot = -1", KEK},
    {"UPDATE kek SET state = 9", KEK},
    {"UPDATE kek SET wraps_reserved = 0", KEK},
    {"UPDATE kek SET wraps_reserved = 9223372036854775807", KEK},
    {"UPDATE kek SET wraps_reserved = 5", RESERVE},
    {"UPDATE kek SET purpose = printf('%.*c', 64, 'x')", RESERVE},
    {"UPDATE tree_page SET level = 1", PAGE},
    {"UPDATE tree_page SET page_index = 2", PAGE},
    {"UPDATE tree_page SET tenant_no = 2", PAGE},
    {"UPDATE tree_page SET mac = zeroblob(31)", PAGE},
    {"UPDATE tree_page SET body = x''", PAGE},
    {"UPDATE tree_page SET body = zeroblob(65537)", PAGE},
    {"UPDATE request SET request_hash = zeroblob(33)", REQUEST},
};

static void hostile_rows_are_refused_when_read(void **state)
{
    struct fixture *fixture = *state;
    for (size_t i = 0; i < sizeof hostile_rows / sizeof hostile_rows[0]; i++) {
        fixture_open(fixture);
        fill(fixture->store, 1);
        struct kms_txn txn = begin_write(fixture->store);
        const struct kms_page_record page = sample_page(1, 0, 1);
        const struct kms_request_record request = sample_request(1);
        assert_ok(fixture->store->ops->page_put(txn.txn, &page, &err));
        assert_ok(fixture->store->ops->request_put(txn.txn, &request, &err));
        commit(&txn);
        fixture_close(fixture);
        char sql[256];
        (void)snprintf(sql, sizeof sql, "PRAGMA ignore_check_constraints=ON; PRAGMA foreign_keys=OFF; %s",
                       hostile_rows[i].sql);
        sql_run(fixture->path, sql);
        fixture_open(fixture);
        txn = begin_write(fixture->store);
        const enum kms_status status = read_one(fixture->store, txn.txn, (int)hostile_rows[i].reader);
        if (status != KMS_STORE_CORRUPT)
            fail_msg("%s: %s", hostile_rows[i].sql, kms_status_name(status));
        kms_txn_clear(&txn);
        fixture_close(fixture);
        assert_int_equal(unlink(fixture->path), 0);
    }
}

/* No file of this process may grow beyond `bytes`; RLIM_INFINITY puts things back. */
static void limit_files(rlim_t bytes)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static enum kms_status insert_many(struct kms_store *store, unsigned first, unsigned count)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(store, true, &txn, &err));
    for (unsigned i = first; i < first + count; i++) {
        const struct kms_customer_record customer = sample_customer(1, i);
        KMS_TRY(store->ops->customer_insert(txn.txn, &customer, &err));
    }
    return kms_txn_commit(&txn, &err);
}

static void a_full_disk_refuses_writes_keeps_reading_and_recovers(void **state)
{
    struct fixture *fixture = *state;
    (void)signal(SIGXFSZ, SIG_IGN);
    fixture_open(fixture);
    fill(fixture->store, 10);
    struct stat info;
    assert_int_equal(stat(fixture_file(fixture, "-wal"), &info), 0);
    limit_files((rlim_t)info.st_size + 20000);
    unsigned next = 100;
    enum kms_status status = KMS_OK;
    for (unsigned i = 0; status == KMS_OK && i < 100; i++, next += 10)
        status = insert_many(fixture->store, next, 10);
    assert_status(KMS_STORE_FULL, status);
    assert_non_null(strstr(err.cause, "free space"));
    struct kms_txn txn = begin_read(fixture->store);
    struct kms_tenant_record tenant;
    assert_ok(fixture->store->ops->tenant_by_id(txn.txn, "tenant-0001", &tenant, &err));
    kms_txn_clear(&txn);
    limit_files(RLIM_INFINITY);
    const int64_t before = sql_number(fixture->path, "SELECT count(*) FROM customer");
    assert_int_equal(before % 10, 0); /* whole transactions only */
    assert_ok(insert_many(fixture->store, 5000, 10));
    assert_int_equal(sql_number(fixture->path, "SELECT count(*) FROM customer"), before + 10);
    (void)signal(SIGXFSZ, SIG_DFL);
}

static void a_full_disk_refuses_to_make_a_database_and_leaves_none(void **state)
{
    struct fixture *fixture = *state;
    (void)signal(SIGXFSZ, SIG_IGN);
    limit_files(8192);
    assert_status(KMS_STORE_FULL, fixture_try_open(fixture, &err));
    limit_files(RLIM_INFINITY);
    assert_int_equal(access(fixture->path, F_OK), -1);
    assert_ok(fixture_try_open(fixture, &err));
    (void)signal(SIGXFSZ, SIG_DFL);
}

static void every_sqlite_code_has_its_status(void **state)
{
    static const struct {
        int rc;
        enum kms_status status;
    } rows[] = {
        {SQLITE_FULL, KMS_STORE_FULL},
        {SQLITE_BUSY, KMS_STORE_BUSY},
        {SQLITE_BUSY_SNAPSHOT, KMS_STORE_BUSY},
        {SQLITE_BUSY_RECOVERY, KMS_STORE_BUSY},
        {SQLITE_LOCKED, KMS_STORE_BUSY},
        {SQLITE_PROTOCOL, KMS_STORE_BUSY},
        {SQLITE_CORRUPT, KMS_STORE_CORRUPT},
        {SQLITE_CORRUPT_INDEX, KMS_STORE_CORRUPT},
        {SQLITE_NOTADB, KMS_STORE_CORRUPT},
        {SQLITE_TOOBIG, KMS_STORE_CORRUPT},
        {SQLITE_IOERR_SHORT_READ, KMS_STORE_CORRUPT},
        {SQLITE_IOERR, KMS_STORE_UNAVAILABLE},
        {SQLITE_IOERR_FSYNC, KMS_STORE_UNAVAILABLE},
        {SQLITE_READONLY, KMS_STORE_UNAVAILABLE},
        {SQLITE_READONLY_DBMOVED, KMS_STORE_UNAVAILABLE},
        {SQLITE_CANTOPEN, KMS_STORE_UNAVAILABLE},
        {SQLITE_PERM, KMS_STORE_UNAVAILABLE},
        {SQLITE_NOMEM, KMS_NO_MEMORY},
        {SQLITE_IOERR_NOMEM, KMS_NO_MEMORY},
        {SQLITE_MISUSE, KMS_INTERNAL},
        {SQLITE_ERROR, KMS_INTERNAL},
    };
    (void)state;
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct kms_error error = {0};
        assert_status(rows[i].status, kms_sqlite_error(db, rows[i].rc, "testing", &error));
        assert_non_null(strstr(error.cause, "testing"));
        assert_int_equal(error.public_text[0], '\0');
        assert_ok(kms_sqlite_constraint(rows[i].rc));
    }
    assert_int_equal(sqlite3_exec(db, "PRAGMA max_page_count=2; CREATE TABLE t (a)", NULL, NULL, NULL),
                     SQLITE_OK);
    const int rc = sqlite3_exec(db, "INSERT INTO t VALUES (zeroblob(100000))", NULL, NULL, NULL);
    assert_status(KMS_STORE_FULL, kms_sqlite_error(db, rc, "filling", NULL));
    assert_status(KMS_NO_MEMORY, kms_sqlite_error(NULL, SQLITE_NOMEM, "opening", NULL));
    assert_status(KMS_ALREADY_EXISTS, kms_sqlite_constraint(SQLITE_CONSTRAINT_UNIQUE));
    assert_status(KMS_NOT_FOUND, kms_sqlite_constraint(SQLITE_CONSTRAINT_FOREIGNKEY));
    assert_status(KMS_INVALID_ARGUMENT, kms_sqlite_constraint(SQLITE_CONSTRAINT_CHECK));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup_dir, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(flipped_bytes_are_refused_or_harmless),
        TEST(overwritten_pages_are_refused_or_harmless),
        TEST(a_truncated_file_is_refused_or_harmless),
        TEST(hostile_rows_are_refused_when_read),
        TEST(a_full_disk_refuses_writes_keeps_reading_and_recovers),
        TEST(a_full_disk_refuses_to_make_a_database_and_leaves_none),
        TEST(every_sqlite_code_has_its_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
