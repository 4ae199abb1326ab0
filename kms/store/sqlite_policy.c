#include "store/sqlite_policy.h"

#include "store/changelog_policy.h"
#include "store/query.h"
#include "store/snapshot.h"
#include "store/sqlite_seal.h"

#include <stdlib.h>

enum kms_status kms_sqlite_policy_insert(struct kms_store_txn *txn, const struct kms_policy_record *policy,
                                         struct kms_error *err)
{
    const char *problem = kms_policy_record_problem(policy);
    if (problem != NULL)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
    const struct kms_change same = {.kind = KMS_CHANGE_POLICY, .policy = {.version = policy->version}};
    KMS_TRY(kms_sqlite_seal_check_absent(txn, &same, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_POLICY_INSERT);
    kms_query_u64(&query, policy->version);
    kms_query_blob(&query, policy->sha256, sizeof policy->sha256);
    kms_query_text(&query, policy->identity);
    kms_query_text(&query, policy->operation);
    kms_query_text(&query, policy->comment);
    kms_query_i64(&query, policy->created_ns);
    kms_query_blob(&query, policy->document, policy->document_len);
    KMS_TRY(kms_query_run(&query, "policy", err));
    if (kms_query_changes(&query) == 0)
        return kms_fail(err, KMS_ABORTED, "version %llu of the policy is not the next one",
                        (unsigned long long)policy->version);
    return kms_sqlite_log(txn, KMS_CHANGE_POLICY, kms_changelog_policy(policy, kms_sqlite_payload(txn)), err);
}

/* The row of the query, with its document when it has one. */
static enum kms_status take_policy(struct kms_query *query, bool with_document,
                                   struct kms_policy_record *ret_policy, struct kms_error *err)
{
    KMS_CLEANUP(kms_policy_record_clear) struct kms_policy_record policy = {0};
    policy.version = kms_query_take_u64(query);
    kms_query_take_blob(query, policy.sha256, sizeof policy.sha256);
    kms_query_take_text(query, policy.identity, sizeof policy.identity);
    kms_query_take_text(query, policy.operation, sizeof policy.operation);
    kms_query_take_text(query, policy.comment, sizeof policy.comment);
    policy.created_ns = kms_query_take_i64(query);
    policy.document_len = (size_t)kms_query_take_u64(query);
    if (with_document)
        policy.document = kms_query_take_copy(query, false, KMS_POLICY_DOCUMENT_MAX, &policy.document_len);
    KMS_TRY(kms_query_row_ok(query, with_document ? kms_policy_record_problem(&policy) : NULL, err));
    *ret_policy = policy;
    policy = (struct kms_policy_record){0};
    return KMS_OK;
}

enum kms_status kms_sqlite_policy_get(struct kms_store_txn *txn, uint64_t version,
                                      struct kms_policy_record *ret_policy, struct kms_error *err)
{
    if (version > INT64_MAX)
        return kms_fail(err, KMS_NOT_FOUND, "no such version of the policy");
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_POLICY_GET);
    kms_query_u64(&query, version);
    const enum kms_status status = kms_query_row(&query, err);
    if (status == KMS_NOT_FOUND && version == 0)
        KMS_TRY(kms_sqlite_seal_check_count(txn, KMS_CHANGE_POLICY, NULL, 0, err));
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_NOT_FOUND, "no such version of the policy");
    KMS_TRY(status);
    KMS_CLEANUP(kms_policy_record_clear) struct kms_policy_record policy = {0};
    KMS_TRY(take_policy(&query, true, &policy, err));
    KMS_TRY(KMS_SQLITE_SEAL_CHECK(txn, KMS_CHANGE_POLICY, policy, &policy, err));
    if (version == 0) /* versions have no gaps: as many as are sealed */
        KMS_TRY(kms_sqlite_seal_check_count(txn, KMS_CHANGE_POLICY, NULL, policy.version, err));
    *ret_policy = policy;
    policy = (struct kms_policy_record){0};
    return KMS_OK;
}

enum kms_status kms_sqlite_policy_list(struct kms_store_txn *txn, uint64_t before, size_t limit,
                                       kms_policy_visit visit, void *context, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_POLICY_LIST);
    kms_query_u64(&query, before < INT64_MAX ? before : INT64_MAX);
    kms_query_u64(&query, limit < INT64_MAX ? limit : INT64_MAX);
    for (;;) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        struct kms_policy_record policy = {0};
        KMS_TRY(take_policy(&query, false, &policy, err));
        KMS_TRY(visit(context, &policy));
    }
}

enum kms_status kms_sqlite_policy_snapshot(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                           struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_POLICY_ALL);
    for (;;) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        KMS_CLEANUP(kms_policy_record_clear) struct kms_policy_record policy = {0};
        KMS_TRY(take_policy(&query, true, &policy, err));
        KMS_TRY(
            kms_snapshot_give(snapshot, kms_changelog_policy(&policy, kms_snapshot_payload(snapshot)), err));
    }
}

enum kms_status kms_sqlite_freeze_insert(struct kms_store_txn *txn, const struct kms_freeze_record *freeze,
                                         struct kms_error *err)
{
    const char *problem = kms_freeze_record_problem(freeze);
    if (problem != NULL)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_FREEZE_INSERT);
    kms_query_i64(&query, freeze->scope);
    kms_query_text(&query, freeze->tenant);
    kms_query_text(&query, freeze->name);
    kms_query_text(&query, freeze->reason);
    kms_query_text(&query, freeze->identity);
    kms_query_i64(&query, freeze->created_ns);
    KMS_TRY(kms_query_run(&query, "freeze", err));
    return kms_sqlite_log(txn, KMS_CHANGE_FREEZE, kms_changelog_freeze(freeze, kms_sqlite_payload(txn)), err);
}

enum kms_status kms_sqlite_freeze_remove(struct kms_store_txn *txn, enum kms_freeze_scope scope,
                                         const char *tenant, const char *name, struct kms_error *err)
{
    struct kms_freeze_record freeze = {.scope = scope};
    if (strlen(tenant) >= sizeof freeze.tenant || strlen(name) >= sizeof freeze.name)
        return kms_fail(err, KMS_NOT_FOUND, "not frozen: no such name can be");
    memcpy(freeze.tenant, tenant, strlen(tenant));
    memcpy(freeze.name, name, strlen(name));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_FREEZE_REMOVE);
    kms_query_i64(&query, scope);
    kms_query_text(&query, tenant);
    kms_query_text(&query, name);
    KMS_TRY(kms_query_run(&query, "unfreezing", err));
    if (kms_query_changes(&query) == 0)
        return kms_fail(err, KMS_NOT_FOUND, "not frozen");
    return kms_sqlite_log(txn, KMS_CHANGE_UNFREEZE, kms_changelog_unfreeze(&freeze, kms_sqlite_payload(txn)),
                          err);
}

enum kms_status kms_sqlite_freeze_list(struct kms_store_txn *txn, const struct kms_freeze_record *after,
                                       size_t limit, kms_freeze_visit visit, void *context,
                                       struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_FREEZE_LIST);
    kms_query_i64(&query, after != NULL ? after->scope : 0);
    kms_query_text(&query, after != NULL ? after->tenant : "");
    kms_query_text(&query, after != NULL ? after->name : "");
    kms_query_u64(&query, limit < INT64_MAX ? limit : INT64_MAX);
    for (size_t count = 0;; count++) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return after == NULL && count < limit
                       ? kms_sqlite_seal_check_count(txn, KMS_CHANGE_FREEZE, NULL, count, err)
                       : KMS_OK;
        KMS_TRY(status);
        struct kms_freeze_record freeze = {0};
        freeze.scope = kms_query_take_state(&query);
        kms_query_take_text(&query, freeze.tenant, sizeof freeze.tenant);
        kms_query_take_text(&query, freeze.name, sizeof freeze.name);
        kms_query_take_text(&query, freeze.reason, sizeof freeze.reason);
        kms_query_take_text(&query, freeze.identity, sizeof freeze.identity);
        freeze.created_ns = kms_query_take_i64(&query);
        KMS_TRY(kms_query_row_ok(&query, kms_freeze_record_problem(&freeze), err));
        KMS_TRY(KMS_SQLITE_SEAL_CHECK(txn, KMS_CHANGE_FREEZE, freeze, &freeze, err));
        KMS_TRY(visit(context, &freeze));
    }
}

/* A snapshot that freezes are handed to. */
struct freeze_taker {
    struct kms_snapshot *snapshot;
    struct kms_error *err;
};

/* One row becomes one change. */
static enum kms_status give_freeze(void *context, const struct kms_freeze_record *freeze)
{
    const struct freeze_taker *taker = context;
    return kms_snapshot_give(taker->snapshot,
                             kms_changelog_freeze(freeze, kms_snapshot_payload(taker->snapshot)), taker->err);
}

enum kms_status kms_sqlite_freeze_snapshot(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                           struct kms_error *err)
{
    struct freeze_taker taker = {snapshot, err};
    return kms_sqlite_freeze_list(txn, NULL, SIZE_MAX, give_freeze, &taker, err);
}
