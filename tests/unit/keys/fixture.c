#include "fixture.h"

#include "core/clock.h"
#include "store/sqlite.h"
#include "support/softhsm_token.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>
#include <cmocka.h>

struct fixture_token {
    struct kms_test_token token;
};

static int64_t clock_ns;

static int64_t read_clock(void)
{
    return clock_ns;
}

void fixture_clock_start(void)
{
    static const struct kms_clock_source source = {read_clock, read_clock};
    clock_ns = INT64_C(1800000000) * KMS_NS_PER_SECOND;
    kms_clock_set_source(&source);
}

void fixture_clock_advance(int64_t ns)
{
    clock_ns += ns;
}

/* Remove the fixture's files; there are no directories among them. */
static void remove_directory(const char *path)
{
    DIR *directory = opendir(path);
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        char file[400];
        (void)snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
        if (entry->d_name[0] != '.')
            assert_int_equal(unlink(file), 0);
    }
    (void)closedir(directory);
    assert_int_equal(rmdir(path), 0);
}

static void make_keys(struct fixture *f)
{
    assert_int_equal(kms_keys_new(f->hsm, f->store, &f->config, &f->keys, &f->err), KMS_OK);
}

static void open_hsm(struct fixture *f, enum fixture_hsm kind)
{
    if (kind == FIXTURE_FAKE) {
        f->hsm = kms_fake_hsm_new(2);
        return;
    }
    f->token = calloc(1, sizeof *f->token);
    assert_non_null(f->token);
    kms_test_token_new(KMS_TEST_SOFTHSM, &f->token->token);
    if (kms_test_token_open(&f->token->token, &f->hsm, &f->err) != KMS_OK)
        fail_msg("cannot open the token: %s", kms_error_cause(&f->err, f->err.status));
}

void fixture_new(struct fixture *f, enum fixture_hsm kind, const struct kms_keys_config *config)
{
    *f = (struct fixture){0};
    if (config != NULL)
        f->config = *config;
    (void)snprintf(f->directory, sizeof f->directory, "/tmp/kms-keys-XXXXXX");
    assert_non_null(mkdtemp(f->directory));
    open_hsm(f, kind);
    char path[128];
    (void)snprintf(path, sizeof path, "%s/kms.db", f->directory);
    struct kms_store *inner = NULL;
    const struct kms_store_sqlite_config store = {.path = path};
    if (kms_store_sqlite_open(&store, &inner, &f->err) != KMS_OK)
        fail_msg("cannot open the store: %s", kms_error_cause(&f->err, f->err.status));
    f->store = kms_fault_store_new(inner);
    assert_int_equal(kms_arena_new(1 << 22, &f->arena), KMS_OK);
    make_keys(f);
    (void)fixture_tenant(f, "acme");
    fixture_purpose(f, "acme", "service");
    fixture_purpose(f, "acme", "kyc");
    fixture_customer(f, "acme", "c1");
}

void fixture_clear(struct fixture *f)
{
    kms_keys_free(f->keys);
    if (f->token == NULL)
        assert_int_equal(kms_fake_hsm_session_keys(f->hsm), 0);
    kms_store_free(f->store);
    kms_hsm_free(f->hsm);
    if (f->token != NULL)
        kms_test_token_clear(&f->token->token);
    free(f->token);
    kms_arena_free(f->arena);
    remove_directory(f->directory);
    kms_clock_set_source(NULL);
}

void fixture_restart(struct fixture *f)
{
    kms_keys_free(f->keys);
    make_keys(f);
}

/* Transactions of the fixture must succeed; the failing of others is what tests are about. */
#define IN_TXN(f_, write_, statement_)                                                                       \
    do {                                                                                                     \
        struct kms_txn txn = {0};                                                                            \
        assert_int_equal(kms_txn_begin((f_)->store, write_, &txn, &(f_)->err), KMS_OK);                      \
        const struct kms_store_ops *ops = txn.store->ops;                                                    \
        statement_;                                                                                          \
        if (write_)                                                                                          \
            assert_int_equal(kms_txn_commit(&txn, &(f_)->err), KMS_OK);                                      \
        kms_txn_clear(&txn);                                                                                 \
    } while (0)

struct kms_tenant_record fixture_tenant_record(struct fixture *f, const char *id)
{
    struct kms_tenant_record tenant = {0};
    IN_TXN(f, false, assert_int_equal(ops->tenant_by_id(txn.txn, id, &tenant, &f->err), KMS_OK));
    return tenant;
}

struct kms_uuid fixture_tenant(struct fixture *f, const char *id)
{
    struct kms_tenant_record tenant = {.uuid = kms_uuid_random(), .state = KMS_TENANT_ACTIVE, .revision = 1};
    (void)snprintf(tenant.id, sizeof tenant.id, "%s", id);
    (void)snprintf(tenant.display_name, sizeof tenant.display_name, "%s", id);
    const enum kms_status status = kms_keys_tenant_create(f->keys, &tenant, NULL, NULL, &f->err);
    if (status != KMS_ALREADY_EXISTS)
        assert_int_equal(status, KMS_OK);
    return fixture_tenant_record(f, id).uuid;
}

void fixture_purpose(struct fixture *f, const char *tenant, const char *purpose)
{
    struct kms_purpose_record record = {
        .tenant = fixture_tenant_record(f, tenant).uuid, .state = KMS_PURPOSE_ACTIVE, .revision = 1};
    (void)snprintf(record.id, sizeof record.id, "%s", purpose);
    IN_TXN(f, true, assert_int_equal(ops->purpose_insert(txn.txn, &record, &f->err), KMS_OK));
}

void fixture_customer(struct fixture *f, const char *tenant, const char *customer)
{
    struct kms_customer_record record = {.uuid = kms_uuid_random(),
                                         .tenant = fixture_tenant_record(f, tenant).uuid,
                                         .labels = strdup("{}"),
                                         .state = KMS_CUSTOMER_ACTIVE,
                                         .revision = 1};
    (void)snprintf(record.id, sizeof record.id, "%s", customer);
    IN_TXN(f, true, assert_int_equal(ops->customer_insert(txn.txn, &record, &f->err), KMS_OK));
    kms_customer_record_clear(&record);
}

/* Read, change with `statement_`, write. */
static void read_customer(struct fixture *f, const char *tenant, const char *customer,
                          struct kms_customer_record *ret)
{
    const struct kms_uuid uuid = fixture_tenant_record(f, tenant).uuid;
    IN_TXN(f, false, assert_int_equal(ops->customer_by_id(txn.txn, &uuid, customer, ret, &f->err), KMS_OK));
}

struct kms_uuid fixture_customer_uuid(struct fixture *f, const char *tenant, const char *customer)
{
    struct kms_customer_record record = {0};
    read_customer(f, tenant, customer, &record);
    const struct kms_uuid uuid = record.uuid;
    kms_customer_record_clear(&record);
    return uuid;
}

void fixture_set_tenant_state(struct fixture *f, const char *tenant, enum kms_tenant_state state)
{
    struct kms_tenant_record record = fixture_tenant_record(f, tenant);
    record.state = state;
    record.revision++;
    IN_TXN(f, true, assert_int_equal(ops->tenant_update(txn.txn, &record, &f->err), KMS_OK));
}

void fixture_set_purpose_state(struct fixture *f, const char *tenant, const char *purpose,
                               enum kms_purpose_state state)
{
    const struct kms_uuid uuid = fixture_tenant_record(f, tenant).uuid;
    struct kms_purpose_record record = {0};
    IN_TXN(f, true, {
        assert_int_equal(ops->purpose_get(txn.txn, &uuid, purpose, &record, &f->err), KMS_OK);
        record.state = state;
        record.revision++;
        assert_int_equal(ops->purpose_update(txn.txn, &record, &f->err), KMS_OK);
    });
}

void fixture_set_customer_state(struct fixture *f, const char *tenant, const char *customer,
                                enum kms_customer_state state)
{
    struct kms_customer_record record = {0};
    read_customer(f, tenant, customer, &record);
    record.state = state;
    record.revision++;
    IN_TXN(f, true, assert_int_equal(ops->customer_update(txn.txn, &record, &f->err), KMS_OK));
    kms_customer_record_clear(&record);
}

void fixture_set_kek_state(struct fixture *f, const uint8_t kek_id[KMS_KEK_ID_SIZE], enum kms_kek_state state)
{
    IN_TXN(f, true, assert_int_equal(ops->kek_set_state(txn.txn, kek_id, state, &f->err), KMS_OK));
}

struct kms_kek_record fixture_kek(struct fixture *f, const char *tenant, const char *customer,
                                  const char *purpose)
{
    const struct kms_uuid uuid = fixture_customer_uuid(f, tenant, customer);
    struct kms_kek_record kek = {0};
    IN_TXN(f, false, assert_int_equal(ops->kek_primary(txn.txn, &uuid, purpose, &kek, &f->err), KMS_OK));
    return kek;
}

struct kms_page_record fixture_page(struct fixture *f, const char *tenant, uint32_t level, uint64_t index)
{
    const struct kms_uuid uuid = fixture_tenant_record(f, tenant).uuid;
    struct kms_page_record page = {0};
    IN_TXN(f, false, assert_int_equal(ops->page_get(txn.txn, &uuid, level, index, &page, &f->err), KMS_OK));
    return page;
}

void fixture_put_page(struct fixture *f, const struct kms_page_record *page)
{
    IN_TXN(f, true, assert_int_equal(ops->page_put(txn.txn, page, &f->err), KMS_OK));
}

void fixture_bulk(struct fixture *f, const char *tenant, const char *prefix, size_t count)
{
    const struct kms_uuid uuid = fixture_tenant_record(f, tenant).uuid;
    struct kms_customer_record *customers = calloc(count, sizeof *customers);
    struct kms_kek_wanted *keks = calloc(count, sizeof *keks);
    enum kms_status *statuses = calloc(count, sizeof *statuses);
    assert_true(customers != NULL && keks != NULL && statuses != NULL);
    char labels[] = "{}";
    for (size_t i = 0; i < count; i++) {
        customers[i] = (struct kms_customer_record){.uuid = kms_uuid_random(),
                                                    .tenant = uuid,
                                                    .labels = labels,
                                                    .state = KMS_CUSTOMER_ACTIVE,
                                                    .revision = 1};
        (void)snprintf(customers[i].id, sizeof customers[i].id, "%s%zu", prefix, i);
        keks[i] = (struct kms_kek_wanted){.customer = customers[i].uuid, .purpose = "service"};
    }
    assert_int_equal(kms_keys_create_bulk(f->keys, &uuid, customers, count, statuses, keks, count, &f->err),
                     KMS_OK);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(statuses[i], KMS_OK);
        assert_int_equal(keks[i].ret_status, KMS_OK);
    }
    free(customers);
    free(keks);
    free(statuses);
}

struct kms_slice fixture_context(struct fixture *f, const char *context)
{
    struct kms_context_entry entry = {0};
    struct kms_slice canonical = {0};
    size_t count = 0;
    if (context != NULL) {
        const char *equals = strchr(context, '=');
        assert_non_null(equals);
        entry.key = kms_slice_of(context, (size_t)(equals - context));
        entry.value = kms_slice_str(equals + 1);
        count = 1;
    }
    assert_int_equal(kms_context_canonical(f->arena, &entry, count, &canonical, &f->err), KMS_OK);
    return canonical;
}

/* Keep a result beyond the arena's reset. */
static void keep(const struct kms_data_key *key, struct fixture_blob *blob)
{
    *blob = (struct fixture_blob){.len = key->wrapped.len,
                                  .plaintext_len = key->plaintext.len,
                                  .version = key->kek_version,
                                  .previous_version = key->previous_kek_version};
    if (blob->len > 0)
        memcpy(blob->bytes, key->wrapped.data, blob->len);
    if (blob->plaintext_len > 0)
        memcpy(blob->plaintext, key->plaintext.data, blob->plaintext_len);
    memcpy(blob->kek_id, key->kek_id, sizeof blob->kek_id);
}

enum kms_status fixture_generate(struct fixture *f, const char *tenant, const char *customer,
                                 const char *purpose, const char *context, struct fixture_blob *ret_blob)
{
    f->err = (struct kms_error){0};
    const struct kms_key_owner owner = {tenant, customer, purpose};
    struct kms_keys_work *work = NULL;
    struct kms_data_key key = {0};
    KMS_TRY(kms_keys_work_begin(f->keys, INT64_MAX, &work, &f->err));
    enum kms_status status = kms_keys_generate(work, f->arena, &owner, fixture_context(f, context),
                                               KMS_KEY_SPEC_AES_256, true, &key, &f->err);
    if (status == KMS_OK)
        status = kms_keys_work_commit(work, &f->err);
    if (status == KMS_OK)
        keep(&key, ret_blob);
    kms_keys_work_end(work);
    kms_arena_reset(f->arena);
    return status;
}

enum kms_status fixture_unwrap(struct fixture *f, const char *tenant, const char *customer,
                               const char *purpose, const char *context, struct kms_slice wrapped,
                               struct fixture_blob *ret_blob)
{
    f->err = (struct kms_error){0};
    const struct kms_key_owner owner = {tenant, customer, purpose};
    struct kms_keys_work *work = NULL;
    struct kms_data_key key = {0};
    KMS_TRY(kms_keys_work_begin(f->keys, INT64_MAX, &work, &f->err));
    const enum kms_status status =
        kms_keys_unwrap(work, f->arena, &owner, fixture_context(f, context), wrapped, &key, &f->err);
    if (status == KMS_OK)
        keep(&key, ret_blob);
    kms_keys_work_end(work);
    kms_arena_reset(f->arena);
    return status;
}

void fixture_check_no_stray_keys(struct fixture *f)
{
    struct kms_keys_stats stats;
    kms_keys_stats(f->keys, &stats);
    assert_int_equal(kms_fake_hsm_session_keys(f->hsm), stats.kek_cached + stats.page_cached);
    assert_int_equal(kms_fake_hsm_sessions_out(f->hsm), 0);
}
