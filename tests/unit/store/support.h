/* What the store's tests share: a temporary directory with a real database file, sample records, SQL at hand. */
#ifndef TESTS_STORE_SUPPORT_H
#define TESTS_STORE_SUPPORT_H

#include "store/changelog.h"
#include "store/sqlite.h"

#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

/* One test's directory, database and open store. */
struct fixture {
    char dir[64];
    char path[96];
    struct kms_store *store;
};

/* cmocka set-up and tear-down: a fresh directory with an open store in it; closed and removed again. */
int fixture_setup(void **state);
int fixture_teardown(void **state);
/* A directory and a path only. */
int fixture_setup_dir(void **state);

/* Open or close the fixture's store; opening must succeed. */
void fixture_open(struct fixture *fixture);
/* A database under construction (store/sqlite.h). */
void fixture_open_draft(struct fixture *fixture);
void fixture_close(struct fixture *fixture);
/* Open with a short busy timeout and return what comes; the store is freed again when it was opened. */
enum kms_status fixture_try_open(struct fixture *fixture, struct kms_error *err);

/* `path` with a suffix; one static buffer. */
const char *fixture_file(const struct fixture *fixture, const char *suffix);

/* Run SQL on the file with a connection of its own, as an operator or an attacker would; must succeed. */
void sql_run(const char *path, const char *sql);
/* First column of the first row, as an integer. */
int64_t sql_number(const char *path, const char *sql);

/* Transactions that must begin and end well. */
struct kms_txn begin_write(struct kms_store *store);
struct kms_txn begin_read(struct kms_store *store);
void commit(struct kms_txn *txn);

/* Samples: deterministic by number, every member set. */
struct kms_uuid sample_uuid(unsigned kind, unsigned number);
struct kms_tenant_record sample_tenant(unsigned number);
struct kms_purpose_record sample_purpose(unsigned tenant, const char *id);
struct kms_customer_record sample_customer(unsigned tenant, unsigned number); /* labels are a constant */
struct kms_kek_record sample_kek(unsigned tenant, unsigned customer, const char *purpose, uint32_t version);
struct kms_page_record sample_page(unsigned tenant, uint32_t level, uint64_t index); /* body is static */
struct kms_request_record sample_request(unsigned number);
struct kms_policy_record sample_policy(uint64_t version); /* document on the heap */
struct kms_freeze_record sample_freeze(enum kms_freeze_scope scope, unsigned number);
struct kms_operation_record sample_operation(unsigned number); /* on the heap: clear it */
struct kms_approval_record sample_approval(unsigned operation,
                                           const char *person); /* on the heap: clear it */

/* Tenant 1 with purpose "service" and customers 1..count, each with KEK version 1; committed. */
void fill(struct kms_store *store, unsigned count);

#define assert_status(expected, actual)                                                                      \
    assert_string_equal(kms_status_name(actual), kms_status_name(expected))
#define assert_ok(actual) assert_status(KMS_OK, actual)

/* Two records of a kind (tenant, purpose, kek, request) are equal in every member: they encode alike. */
#define assert_same(kind, found, wanted)                                                                     \
    do {                                                                                                     \
        struct kms_buf same_found = {0};                                                                     \
        struct kms_buf same_wanted = {0};                                                                    \
        assert_ok(kms_changelog_##kind(found, &same_found));                                                 \
        assert_ok(kms_changelog_##kind(wanted, &same_wanted));                                               \
        assert_true(kms_slice_equal(kms_buf_slice(&same_found), kms_buf_slice(&same_wanted)));               \
        kms_buf_clear(&same_found);                                                                          \
        kms_buf_clear(&same_wanted);                                                                         \
    } while (0)

#endif
