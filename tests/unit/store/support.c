#define _GNU_SOURCE
#include "support.h"

#include "core/clock.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int fixture_setup_dir(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    (void)snprintf(fixture->dir, sizeof fixture->dir, "/tmp/kms-store-XXXXXX");
    assert_non_null(mkdtemp(fixture->dir));
    (void)snprintf(fixture->path, sizeof fixture->path, "%s/kms.db", fixture->dir);
    *state = fixture;
    return 0;
}

int fixture_setup(void **state)
{
    (void)fixture_setup_dir(state);
    fixture_open(*state);
    return 0;
}

/* Remove one entry of the test's own directory. */
static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *ftw)
{
    (void)info;
    (void)type;
    (void)ftw;
    return remove(path);
}

int fixture_teardown(void **state)
{
    struct fixture *fixture = *state;
    kms_clock_set_source(NULL);
    kms_store_free(fixture->store);
    (void)nftw(fixture->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    free(fixture);
    return 0;
}

static void open_as(struct fixture *fixture, bool draft)
{
    const struct kms_store_sqlite_config config = {
        .path = fixture->path, .busy_timeout_ms = 10000, .draft = draft};
    struct kms_error err = {0};
    const enum kms_status status = kms_store_sqlite_open(&config, &fixture->store, &err);
    if (status != KMS_OK)
        fail_msg("open: %s: %s", kms_status_name(status), kms_error_cause(&err, status));
}

void fixture_open(struct fixture *fixture)
{
    open_as(fixture, false);
}

void fixture_open_draft(struct fixture *fixture)
{
    open_as(fixture, true);
}

void fixture_close(struct fixture *fixture)
{
    kms_store_free(fixture->store);
    fixture->store = NULL;
}

enum kms_status fixture_try_open(struct fixture *fixture, struct kms_error *err)
{
    const struct kms_store_sqlite_config config = {.path = fixture->path, .busy_timeout_ms = 20};
    struct kms_store *store = NULL;
    *err = (struct kms_error){0};
    const enum kms_status status = kms_store_sqlite_open(&config, &store, err);
    assert_true((store != NULL) == (status == KMS_OK));
    assert_true((err->cause[0] != '\0') == (status != KMS_OK));
    kms_store_free(store);
    return status;
}

const char *fixture_file(const struct fixture *fixture, const char *suffix)
{
    static char path[128];
    (void)snprintf(path, sizeof path, "%s%s", fixture->path, suffix);
    return path;
}

void sql_run(const char *path, const char *sql)
{
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    char *message = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", sql, message);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

int64_t sql_number(const char *path, const char *sql)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    const int64_t number = sqlite3_column_int64(stmt, 0);
    assert_int_equal(sqlite3_finalize(stmt), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    return number;
}

/* Begin that must succeed. */
static struct kms_txn begin(struct kms_store *store, bool write)
{
    struct kms_txn txn = {0};
    struct kms_error err = {0};
    const enum kms_status status = kms_txn_begin(store, write, &txn, &err);
    if (status != KMS_OK)
        fail_msg("begin: %s: %s", kms_status_name(status), kms_error_cause(&err, status));
    return txn;
}

struct kms_txn begin_write(struct kms_store *store)
{
    return begin(store, true);
}

struct kms_txn begin_read(struct kms_store *store)
{
    return begin(store, false);
}

void commit(struct kms_txn *txn)
{
    struct kms_error err = {0};
    const enum kms_status status = kms_txn_commit(txn, &err);
    if (status != KMS_OK)
        fail_msg("commit: %s: %s", kms_status_name(status), kms_error_cause(&err, status));
    assert_null(txn->txn);
}

/* Well spread, so that trees of UUIDs are filled out of order, and different for every pair. */
struct kms_uuid sample_uuid(unsigned kind, unsigned number)
{
    struct kms_uuid uuid = {{0}};
    kms_put_be32(uuid.bytes, number * 2654435761U);
    kms_put_be32(uuid.bytes + 4, kind);
    kms_put_be32(uuid.bytes + 8, number);
    return uuid;
}

struct kms_tenant_record sample_tenant(unsigned number)
{
    struct kms_tenant_record tenant = {.uuid = sample_uuid(1, number),
                                       .state = KMS_TENANT_ACTIVE,
                                       .epoch = 3,
                                       .height = 2,
                                       .next_slot = 17,
                                       .revision = 5,
                                       .created_ns = 1700000000000000001,
                                       .updated_ns = 1700000000000000002};
    (void)snprintf(tenant.id, sizeof tenant.id, "tenant-%04u", number);
    (void)snprintf(tenant.display_name, sizeof tenant.display_name, "Bank No. %u, Z\xc3\xbcrich", number);
    memset(tenant.master_id, 0xa1, sizeof tenant.master_id);
    memset(tenant.root_blob, 0xb2, sizeof tenant.root_blob);
    return tenant;
}

struct kms_purpose_record sample_purpose(unsigned tenant, const char *id)
{
    struct kms_purpose_record purpose = {.tenant = sample_uuid(1, tenant),
                                         .state = KMS_PURPOSE_ACTIVE,
                                         .required_by_law = true,
                                         .retention_seconds = 315360000,
                                         .rotation_seconds = 7776000,
                                         .revision = 2,
                                         .created_ns = 1700000000000000003,
                                         .updated_ns = 1700000000000000004};
    (void)snprintf(purpose.id, sizeof purpose.id, "%s", id);
    (void)snprintf(purpose.display_name, sizeof purpose.display_name, "Purpose %s", id);
    (void)snprintf(purpose.legal_basis, sizeof purpose.legal_basis, "GDPR Art. 6(1)(b)");
    return purpose;
}

struct kms_customer_record sample_customer(unsigned tenant, unsigned number)
{
    static char labels[] = "{\"branch\":\"north\",\"tier\":\"gold\"}";
    struct kms_customer_record customer = {.uuid = sample_uuid(2, tenant * 1000000 + number),
                                           .tenant = sample_uuid(1, tenant),
                                           .labels = labels,
                                           .state = KMS_CUSTOMER_ACTIVE,
                                           .revision = 1,
                                           .created_ns = 1700000000000000000 + number,
                                           .updated_ns = 1700000000000000000 + number};
    (void)snprintf(customer.id, sizeof customer.id, "customer-%06u", number);
    return customer;
}

struct kms_kek_record sample_kek(unsigned tenant, unsigned customer, const char *purpose, uint32_t version)
{
    struct kms_kek_record kek = {.tenant = sample_uuid(1, tenant),
                                 .customer = sample_uuid(2, tenant * 1000000 + customer),
                                 .version = version,
                                 .slot = (uint64_t)customer * 100 + version,
                                 .state = KMS_KEK_ENABLED,
                                 .created_ns = 1700000000000000009};
    (void)snprintf(kek.purpose, sizeof kek.purpose, "%s", purpose);
    const struct kms_uuid id = sample_uuid(3 + version, tenant * 1000000 + customer);
    memcpy(kek.kek_id, id.bytes, sizeof kek.kek_id);
    return kek;
}

struct kms_page_record sample_page(unsigned tenant, uint32_t level, uint64_t index)
{
    static uint8_t body[1700];
    memset(body, (int)(level * 16 + index) & 0xff, sizeof body);
    struct kms_page_record page = {.tenant = sample_uuid(1, tenant),
                                   .level = level,
                                   .index = index,
                                   .body = body,
                                   .body_len = sizeof body};
    memset(page.mac, 0xc3, sizeof page.mac);
    return page;
}

struct kms_policy_record sample_policy(uint64_t version)
{
    struct kms_policy_record policy = {.version = version,
                                       .identity = "spiffe://kms.example/admin/dan",
                                       .operation = "018f4b1e-0000-4000-8000-000000000001",
                                       .comment = "more approvers",
                                       .created_ns = 1700000000000000000 + (int64_t)version};
    memset(policy.sha256, (int)version, sizeof policy.sha256);
    policy.document = (uint8_t *)strdup("version: 1\nbindings: []\n");
    policy.document_len = strlen((const char *)policy.document);
    return policy;
}

struct kms_freeze_record sample_freeze(enum kms_freeze_scope scope, unsigned number)
{
    struct kms_freeze_record freeze = {.scope = scope,
                                       .reason = "a dispute",
                                       .identity = "spiffe://kms.example/operator/alice",
                                       .created_ns = 1700000000000000000 + number};
    if (scope == KMS_FREEZE_TENANT || scope == KMS_FREEZE_PURPOSE)
        (void)snprintf(freeze.tenant, sizeof freeze.tenant, "tenant-%04u", number);
    if (scope != KMS_FREEZE_TENANT)
        (void)snprintf(freeze.name, sizeof freeze.name, "name-%u", number);
    return freeze;
}

struct kms_operation_record sample_operation(unsigned number)
{
    struct kms_operation_record operation = {.uuid = sample_uuid(7, number),
                                             .kind = "shred",
                                             .tenant = "tenant-0001",
                                             .requester = "spiffe://kms.example/ops/carol",
                                             .approvals_needed = 2,
                                             .policy_generation = 7,
                                             .created_ns = 1700000000000000000 + number,
                                             .expires_ns = 1700000600000000000,
                                             .state = KMS_OPERATION_PENDING,
                                             .attempts = 3,
                                             .done = 4,
                                             .total = 5,
                                             .not_before_ns = 6,
                                             .started_ns = 8,
                                             .finished_ns = 9,
                                             .ended_by = "spiffe://kms.example/ops/dave",
                                             .reason = "too early",
                                             .result = strdup("{\"shredded\":3}")};
    memset(operation.digest, (int)number, sizeof operation.digest);
    operation.document = (uint8_t *)strdup("{\"kind\":\"shred\"}");
    operation.document_len = strlen((const char *)operation.document);
    return operation;
}

struct kms_approval_record sample_approval(unsigned operation, const char *person)
{
    struct kms_approval_record approval = {.operation = sample_uuid(7, operation),
                                           .certificate = strdup("-----BEGIN CERTIFICATE-----\n"),
                                           .signature = (uint8_t *)strdup("0E"),
                                           .signature_len = 2,
                                           .time_ns = 1700000000000000005};
    (void)snprintf(approval.person, sizeof approval.person, "%s", person);
    (void)snprintf(approval.identity, sizeof approval.identity, "spiffe://kms.example/ops/%s", person);
    return approval;
}

struct kms_request_record sample_request(unsigned number)
{
    struct kms_request_record request = {.identity = "spiffe://kms.example/app/demo",
                                         .created_ns = kms_clock_wall_ns()};
    const struct kms_uuid uuid = sample_uuid(9, number);
    (void)kms_uuid_format(&uuid, request.request_id);
    memset(request.request_hash, (int)number & 0xff, sizeof request.request_hash);
    return request;
}

void fill(struct kms_store *store, unsigned count)
{
    struct kms_error err = {0};
    struct kms_txn txn = begin_write(store);
    const struct kms_tenant_record tenant = sample_tenant(1);
    assert_ok(store->ops->tenant_insert(txn.txn, &tenant, &err));
    const struct kms_purpose_record purpose = sample_purpose(1, "service");
    assert_ok(store->ops->purpose_insert(txn.txn, &purpose, &err));
    for (unsigned i = 1; i <= count; i++) {
        const struct kms_customer_record customer = sample_customer(1, i);
        assert_ok(store->ops->customer_insert(txn.txn, &customer, &err));
        const struct kms_kek_record kek = sample_kek(1, i, "service", 1);
        assert_ok(store->ops->kek_insert(txn.txn, &kek, &err));
    }
    commit(&txn);
}
