/* Legal holds, what a tenant has settled about shredding, retention, and the clock of waiting windows. */
#include "store/changelog_shred.h"
#include "store/query.h"
#include "store/sqlite_seal.h"
#include "store/sqlite_shred.h"

enum kms_status kms_sqlite_hold_put(struct kms_store_txn *txn, const struct kms_hold_record *hold,
                                    struct kms_error *err)
{
    const char *problem = kms_hold_problem(hold);
    if (problem != NULL)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, &hold->tenant, &tenant_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_HOLD_PUT);
    kms_query_uuid(&query, &hold->uid);
    kms_query_i64(&query, tenant_no);
    kms_query_uuid(&query, &hold->customer);
    kms_query_text(&query, hold->reference);
    kms_query_text(&query, hold->reason);
    kms_query_text(&query, hold->placed_by);
    kms_query_i64(&query, hold->placed_ns);
    kms_query_text(&query, hold->released_by);
    kms_query_i64(&query, hold->released_ns);
    KMS_TRY(kms_query_run(&query, "hold", err));
    return kms_sqlite_log(txn, KMS_CHANGE_HOLD, kms_changelog_hold(hold, kms_sqlite_payload(txn)), err);
}

/* One row of KMS_HOLD_SELECT. */
static enum kms_status take_hold(struct kms_query *query, struct kms_hold_record *ret_hold,
                                 struct kms_error *err)
{
    struct kms_hold_record hold = {0};
    kms_query_take_uuid(query, &hold.uid);
    kms_query_take_uuid(query, &hold.tenant);
    kms_query_take_uuid(query, &hold.customer);
    kms_query_take_text(query, hold.reference, sizeof hold.reference);
    kms_query_take_text(query, hold.reason, sizeof hold.reason);
    kms_query_take_text(query, hold.placed_by, sizeof hold.placed_by);
    hold.placed_ns = kms_query_take_i64(query);
    kms_query_take_text(query, hold.released_by, sizeof hold.released_by);
    hold.released_ns = kms_query_take_i64(query);
    KMS_TRY(kms_query_row_ok(query, kms_hold_problem(&hold), err));
    KMS_TRY(KMS_SQLITE_SEAL_CHECK(query->txn, KMS_CHANGE_HOLD, hold, &hold, err));
    *ret_hold = hold;
    return KMS_OK;
}

/* A look-up whose one parameter is a UUID. */
static enum kms_status find_hold(struct kms_store_txn *txn, enum kms_statement which,
                                 const struct kms_uuid *key, struct kms_hold_record *ret_hold,
                                 struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, which);
    kms_query_uuid(&query, key);
    const enum kms_status status = kms_query_row(&query, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_NOT_FOUND, "no such hold");
    return status == KMS_OK ? take_hold(&query, ret_hold, err) : status;
}

enum kms_status kms_sqlite_hold_get(struct kms_store_txn *txn, const struct kms_uuid *uid,
                                    struct kms_hold_record *ret_hold, struct kms_error *err)
{
    return find_hold(txn, KMS_STATEMENT_HOLD_GET, uid, ret_hold, err);
}

/* What the holds that were ever placed on a customer are looked at with. */
struct placed {
    struct kms_store_txn *txn;
    const struct kms_uuid *customer;
    struct kms_error *err;
};

/* A hold that is sealed is there, and as it was sealed. */
static enum kms_status look_at_hold(void *context, struct kms_slice uid)
{
    const struct placed *placed = context;
    struct kms_change sealed = {.kind = KMS_CHANGE_HOLD, .hold = {.customer = *placed->customer}};
    struct kms_hold_record hold;
    if (uid.len != KMS_UUID_SIZE)
        return kms_fail(placed->err, KMS_TAMPERED, "the seal of a hold has a key of %zu bytes", uid.len);
    memcpy(sealed.hold.uid.bytes, uid.data, KMS_UUID_SIZE);
    const enum kms_status status =
        find_hold(placed->txn, KMS_STATEMENT_HOLD_GET, &sealed.hold.uid, &hold, placed->err);
    return status == KMS_NOT_FOUND ? kms_sqlite_seal_check_absent(placed->txn, &sealed, placed->err) : status;
}

enum kms_status kms_sqlite_hold_on(struct kms_store_txn *txn, const struct kms_uuid *customer,
                                   struct kms_hold_record *ret_hold, struct kms_error *err)
{
    struct placed placed = {txn, customer, err};
    const enum kms_status status = find_hold(txn, KMS_STATEMENT_HOLD_ON, customer, ret_hold, err);
    if (status == KMS_NOT_FOUND) /* that nothing holds it must be as sure as that something does */
        KMS_TRY(kms_sqlite_seal_each(txn, KMS_CHANGE_HOLD, customer, look_at_hold, &placed, err));
    return status;
}

enum kms_status kms_sqlite_hold_list(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                     const struct kms_uuid *customer, bool released,
                                     const struct kms_uuid *after, size_t limit, kms_hold_visit visit,
                                     void *context, struct kms_error *err)
{
    int64_t tenant_no = 0;
    int64_t after_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, tenant, &tenant_no, err));
    KMS_TRY(kms_sqlite_row_no(txn, KMS_STATEMENT_HOLD_NO, after, "hold", &after_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_HOLD_LIST);
    kms_query_i64(&query, tenant_no);
    kms_query_i64(&query, after_no);
    if (customer != NULL)
        kms_query_uuid(&query, customer);
    else
        kms_query_text(&query, NULL);
    kms_query_i64(&query, released);
    kms_query_u64(&query, limit < INT64_MAX ? limit : INT64_MAX);
    for (;;) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        struct kms_hold_record hold;
        KMS_TRY(take_hold(&query, &hold, err));
        KMS_TRY(visit(context, &hold));
    }
}

enum kms_status kms_sqlite_shred_setting_put(struct kms_store_txn *txn,
                                             const struct kms_shred_setting_record *setting,
                                             struct kms_error *err)
{
    const char *problem = kms_shred_setting_problem(setting);
    if (problem != NULL)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, &setting->tenant, &tenant_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_SHRED_SETTING_PUT);
    kms_query_i64(&query, tenant_no);
    kms_query_i64(&query, setting->window_seconds);
    kms_query_i64(&query, setting->shred_closed);
    KMS_TRY(kms_query_run(&query, "shred setting", err));
    return kms_sqlite_log(txn, KMS_CHANGE_SHRED_SETTING,
                          kms_changelog_shred_setting(setting, kms_sqlite_payload(txn)), err);
}

enum kms_status kms_sqlite_shred_setting_get(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                             struct kms_shred_setting_record *ret_setting,
                                             struct kms_error *err)
{
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, tenant, &tenant_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_SHRED_SETTING_GET);
    kms_query_i64(&query, tenant_no);
    const enum kms_status status = kms_query_row(&query, err);
    struct kms_shred_setting_record setting = {.tenant = *tenant};
    if (status == KMS_NOT_FOUND) {
        const struct kms_change none = {.kind = KMS_CHANGE_SHRED_SETTING, .shred_setting = setting};
        KMS_TRY(kms_sqlite_seal_check_absent(txn, &none, err));
        return kms_fail(err, KMS_NOT_FOUND, "nothing was settled about shredding");
    }
    KMS_TRY(status);
    setting.window_seconds = kms_query_take_i64(&query);
    setting.shred_closed = kms_query_take_i64(&query) != 0;
    KMS_TRY(kms_query_row_ok(&query, kms_shred_setting_problem(&setting), err));
    KMS_TRY(KMS_SQLITE_SEAL_CHECK(txn, KMS_CHANGE_SHRED_SETTING, shred_setting, &setting, err));
    *ret_setting = setting;
    return KMS_OK;
}

enum kms_status kms_sqlite_retention_put(struct kms_store_txn *txn,
                                         const struct kms_retention_record *retention, struct kms_error *err)
{
    const char *problem = kms_retention_problem(retention);
    if (problem != NULL)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, &retention->tenant, &tenant_no, err));
    KMS_QUERY query = kms_query_of(txn, retention->due_ns != 0 ? KMS_STATEMENT_RETENTION_PUT
                                                               : KMS_STATEMENT_RETENTION_REMOVE);
    kms_query_uuid(&query, &retention->customer);
    kms_query_text(&query, retention->purpose);
    if (retention->due_ns != 0) {
        kms_query_i64(&query, tenant_no);
        kms_query_i64(&query, retention->due_ns);
        kms_query_i64(&query, retention->began_ns);
    }
    KMS_TRY(kms_query_run(&query, "retention", err));
    if (kms_query_changes(&query) == 0)
        return kms_fail(err, KMS_NOT_FOUND, "no such retention");
    return kms_sqlite_log(txn, KMS_CHANGE_RETENTION,
                          kms_changelog_retention(retention, kms_sqlite_payload(txn)), err);
}

enum kms_status kms_sqlite_retention_list(struct kms_store_txn *txn, const struct kms_uuid *customer,
                                          int64_t due_until_ns, size_t limit, kms_retention_visit visit,
                                          void *context, struct kms_error *err)
{
    KMS_QUERY query =
        kms_query_of(txn, customer != NULL ? KMS_STATEMENT_RETENTION_LIST : KMS_STATEMENT_RETENTION_DUE);
    if (customer != NULL)
        kms_query_uuid(&query, customer);
    else
        kms_query_i64(&query, due_until_ns);
    kms_query_u64(&query, limit < INT64_MAX ? limit : INT64_MAX);
    for (;;) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        struct kms_retention_record retention = {0};
        kms_query_take_uuid(&query, &retention.tenant);
        kms_query_take_uuid(&query, &retention.customer);
        kms_query_take_text(&query, retention.purpose, sizeof retention.purpose);
        retention.due_ns = kms_query_take_i64(&query);
        retention.began_ns = kms_query_take_i64(&query);
        KMS_TRY(kms_query_row_ok(&query, kms_retention_problem(&retention), err));
        KMS_TRY(KMS_SQLITE_SEAL_CHECK(txn, KMS_CHANGE_RETENTION, retention, &retention, err));
        KMS_TRY(visit(context, &retention));
    }
}

enum kms_status kms_sqlite_shred_clock_put(struct kms_store_txn *txn,
                                           const struct kms_shred_clock_record *clock, struct kms_error *err)
{
    const char *problem = kms_shred_clock_problem(clock);
    if (problem != NULL)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_SHRED_CLOCK_PUT);
    kms_query_i64(&query, clock->trusted_ns);
    kms_query_i64(&query, clock->boot_ns);
    kms_query_text(&query, clock->boot_id);
    KMS_TRY(kms_query_run(&query, "shred clock", err));
    return kms_sqlite_log(txn, KMS_CHANGE_SHRED_CLOCK,
                          kms_changelog_shred_clock(clock, kms_sqlite_payload(txn)), err);
}

enum kms_status kms_sqlite_shred_clock_get(struct kms_store_txn *txn,
                                           struct kms_shred_clock_record *ret_clock, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_SHRED_CLOCK_GET);
    const enum kms_status status = kms_query_row(&query, err);
    struct kms_shred_clock_record clock = {0};
    if (status == KMS_NOT_FOUND) {
        KMS_TRY(kms_sqlite_seal_check_absent(txn, &(const struct kms_change){.kind = KMS_CHANGE_SHRED_CLOCK},
                                             err));
        return kms_fail(err, KMS_NOT_FOUND, "no clock was kept");
    }
    KMS_TRY(status);
    clock.trusted_ns = kms_query_take_i64(&query);
    clock.boot_ns = kms_query_take_i64(&query);
    kms_query_take_text(&query, clock.boot_id, sizeof clock.boot_id);
    KMS_TRY(kms_query_row_ok(&query, kms_shred_clock_problem(&clock), err));
    KMS_TRY(KMS_SQLITE_SEAL_CHECK(txn, KMS_CHANGE_SHRED_CLOCK, shred_clock, &clock, err));
    *ret_clock = clock;
    return KMS_OK;
}
