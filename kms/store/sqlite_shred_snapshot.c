/* Everything of store/store_shred.h as change records. */
#include "store/changelog_shred.h"
#include "store/query.h"
#include "store/snapshot.h"
#include "store/sqlite_shred.h"

/* What the visitors of the lists carry. */
struct giving {
    struct kms_store_txn *txn;
    struct kms_snapshot *snapshot;
    struct kms_error *err;
};

static enum kms_status give_target(void *context, const struct kms_shred_target_record *target)
{
    const struct giving *giving = context;
    return kms_snapshot_give(giving->snapshot,
                             kms_changelog_shred_target(target, kms_snapshot_payload(giving->snapshot)),
                             giving->err);
}

/* A job, then its targets, which refer to it. */
static enum kms_status give_job(void *context, const struct kms_shred_job_record *job)
{
    struct giving *giving = context;
    KMS_TRY(kms_snapshot_give(
        giving->snapshot, kms_changelog_shred_job(job, kms_snapshot_payload(giving->snapshot)), giving->err));
    const struct kms_shred_target_filter filter = {.job = &job->uid};
    return kms_sqlite_shred_target_list(giving->txn, &filter, NULL, SIZE_MAX, give_target, giving,
                                        giving->err);
}

static enum kms_status give_hold(void *context, const struct kms_hold_record *hold)
{
    const struct giving *giving = context;
    return kms_snapshot_give(giving->snapshot,
                             kms_changelog_hold(hold, kms_snapshot_payload(giving->snapshot)), giving->err);
}

/* The list has left the document out. */
static enum kms_status give_certificate(void *context, const struct kms_certificate_record *head)
{
    const struct giving *giving = context;
    KMS_CLEANUP(kms_certificate_record_clear) struct kms_certificate_record whole = {0};
    KMS_TRY(kms_sqlite_certificate_get(giving->txn, &head->uid, &whole, giving->err));
    return kms_snapshot_give(giving->snapshot,
                             kms_changelog_certificate(&whole, kms_snapshot_payload(giving->snapshot)),
                             giving->err);
}

static enum kms_status give_retention(void *context, const struct kms_retention_record *retention)
{
    const struct giving *giving = context;
    return kms_snapshot_give(giving->snapshot,
                             kms_changelog_retention(retention, kms_snapshot_payload(giving->snapshot)),
                             giving->err);
}

/* Holds, certificates and settings belong to a tenant. */
static enum kms_status give_tenant(struct giving *giving, const struct kms_uuid *tenant)
{
    KMS_TRY(kms_sqlite_hold_list(giving->txn, tenant, NULL, true, NULL, SIZE_MAX, give_hold, giving,
                                 giving->err));
    KMS_TRY(kms_sqlite_certificate_list(giving->txn, tenant, NULL, SIZE_MAX, give_certificate, giving,
                                        giving->err));
    struct kms_shred_setting_record setting;
    const enum kms_status status = kms_sqlite_shred_setting_get(giving->txn, tenant, &setting, giving->err);
    if (status == KMS_NOT_FOUND)
        return KMS_OK;
    KMS_TRY(status);
    return kms_snapshot_give(giving->snapshot,
                             kms_changelog_shred_setting(&setting, kms_snapshot_payload(giving->snapshot)),
                             giving->err);
}

enum kms_status kms_sqlite_shred_snapshot(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                          struct kms_error *err)
{
    struct giving giving = {txn, snapshot, err};
    KMS_TRY(kms_sqlite_shred_job_list(txn, NULL, 0, NULL, SIZE_MAX, give_job, &giving, err));
    KMS_FREE struct kms_tenant_record *tenants = NULL;
    size_t count = 0;
    KMS_TRY(kms_sqlite_tenant_list(txn, NULL, SIZE_MAX, &tenants, &count, err));
    for (size_t i = 0; i < count; i++)
        KMS_TRY(give_tenant(&giving, &tenants[i].uuid));
    KMS_TRY(kms_sqlite_retention_list(txn, NULL, INT64_MAX, SIZE_MAX, give_retention, &giving, err));
    struct kms_shred_clock_record clock;
    const enum kms_status status = kms_sqlite_shred_clock_get(txn, &clock, err);
    if (status == KMS_NOT_FOUND)
        return KMS_OK;
    KMS_TRY(status);
    return kms_snapshot_give(snapshot, kms_changelog_shred_clock(&clock, kms_snapshot_payload(snapshot)),
                             err);
}
