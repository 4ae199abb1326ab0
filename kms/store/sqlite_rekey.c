/* Batches, tombstones and free slots. What a shred does to customers and their KEKs is in sqlite_shredded.c. */
#include "store/sqlite_rekey.h"

#include "store/changelog_rekey.h"
#include "store/query.h"
#include "store/record.h"
#include "store/snapshot.h"
#include "store/sqlite_seal.h"

/* The members that are replaced, in the order of both statements. */
static void bind_progress(struct kms_query *query, const struct kms_batch_record *batch)
{
    kms_query_i64(query, batch->state);
    kms_query_u64(query, batch->pages);
    kms_query_u64(query, batch->keys_rewrapped);
    kms_query_u64(query, batch->keys_shredded);
    kms_query_u64(query, batch->customers);
    kms_query_blob(query, batch->pages_digest, sizeof batch->pages_digest);
    kms_query_i64(query, batch->committed_ns);
    kms_query_i64(query, batch->sealed_ns);
}

/* An abandoned batch of that uuid makes room. */
static enum kms_status remove_abandoned(struct kms_store_txn *txn, const struct kms_uuid *uuid,
                                        struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_BATCH_REMOVE_ABANDONED);
    kms_query_uuid(&query, uuid);
    return kms_query_run(&query, "abandoned batch", err);
}

enum kms_status kms_sqlite_batch_insert(struct kms_store_txn *txn, const struct kms_batch_record *batch,
                                        struct kms_error *err)
{
    const char *problem = kms_batch_problem(batch);
    if (problem != NULL)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, &batch->tenant, &tenant_no, err));
    KMS_TRY(remove_abandoned(txn, &batch->uuid, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_BATCH_INSERT);
    kms_query_uuid(&query, &batch->uuid);
    kms_query_i64(&query, tenant_no);
    kms_query_i64(&query, batch->kind);
    kms_query_text(&query, batch->reference);
    kms_query_u64(&query, batch->old_epoch);
    kms_query_blob(&query, batch->old_master_id, sizeof batch->old_master_id);
    kms_query_blob(&query, batch->new_master_id, sizeof batch->new_master_id);
    kms_query_i64(&query, batch->created_ns);
    kms_query_blob(&query, batch->document, batch->document_len);
    kms_query_blob(&query, batch->signature, batch->signature_len);
    bind_progress(&query, batch);
    KMS_TRY(kms_query_run(&query, "batch", err));
    return kms_sqlite_log(txn, KMS_CHANGE_BATCH, kms_changelog_batch(batch, kms_sqlite_payload(txn)), err);
}

enum kms_status kms_sqlite_batch_update(struct kms_store_txn *txn, const struct kms_batch_record *batch,
                                        struct kms_error *err)
{
    const char *problem = kms_batch_progress_problem(batch);
    if (problem != NULL)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_BATCH_UPDATE);
    kms_query_uuid(&query, &batch->uuid);
    bind_progress(&query, batch);
    KMS_TRY(kms_query_run(&query, "batch", err));
    if (kms_query_changes(&query) == 0)
        return kms_fail(err, KMS_NOT_FOUND, "no such batch");
    return kms_sqlite_log(txn, KMS_CHANGE_BATCH_STATE,
                          kms_changelog_batch_state(batch, kms_sqlite_payload(txn)), err);
}

/* One row of KMS_BATCH_COLUMNS; lists have neither document nor signature. */
static enum kms_status take_batch(struct kms_query *query, bool whole, struct kms_batch_record *ret_batch,
                                  struct kms_error *err)
{
    KMS_CLEANUP(kms_batch_record_clear) struct kms_batch_record batch = {0};
    kms_query_take_uuid(query, &batch.uuid);
    kms_query_take_uuid(query, &batch.tenant);
    batch.kind = kms_query_take_state(query);
    kms_query_take_text(query, batch.reference, sizeof batch.reference);
    batch.old_epoch = kms_query_take_u64(query);
    kms_query_take_blob(query, batch.old_master_id, sizeof batch.old_master_id);
    kms_query_take_blob(query, batch.new_master_id, sizeof batch.new_master_id);
    batch.created_ns = kms_query_take_i64(query);
    if (whole)
        batch.document = kms_query_take_copy(query, false, KMS_BATCH_DOCUMENT_MAX, &batch.document_len);
    else
        (void)kms_query_take_slice(query); /* the empty stand-in */
    const struct kms_slice signature = kms_query_take_slice(query);
    const bool fits = signature.len <= sizeof batch.signature;
    if (fits && signature.len > 0)
        memcpy(batch.signature, signature.data, signature.len);
    batch.signature_len = fits ? signature.len : 0;
    batch.state = kms_query_take_state(query);
    batch.pages = kms_query_take_u64(query);
    batch.keys_rewrapped = kms_query_take_u64(query);
    batch.keys_shredded = kms_query_take_u64(query);
    batch.customers = kms_query_take_u64(query);
    kms_query_take_blob(query, batch.pages_digest, sizeof batch.pages_digest);
    batch.committed_ns = kms_query_take_i64(query);
    batch.sealed_ns = kms_query_take_i64(query);
    KMS_TRY(
        kms_query_row_ok(query, whole ? kms_batch_problem(&batch) : kms_batch_progress_problem(&batch), err));
    KMS_TRY(KMS_SQLITE_SEAL_CHECK(query->txn, KMS_CHANGE_BATCH_STATE, batch, &batch, err));
    *ret_batch = batch;
    batch.document = NULL;
    return KMS_OK;
}

enum kms_status kms_sqlite_batch_get(struct kms_store_txn *txn, const struct kms_uuid *uuid,
                                     struct kms_batch_record *ret_batch, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_BATCH_GET);
    kms_query_uuid(&query, uuid);
    const enum kms_status status = kms_query_row(&query, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_NOT_FOUND, "no such batch");
    return status == KMS_OK ? take_batch(&query, true, ret_batch, err) : status;
}

enum kms_status kms_sqlite_batch_unfinished(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                            struct kms_batch_record *ret_batch, struct kms_error *err)
{
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, tenant, &tenant_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_BATCH_UNFINISHED);
    kms_query_i64(&query, tenant_no);
    const enum kms_status status = kms_query_row(&query, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_NOT_FOUND, "the tenant has no unfinished batch");
    return status == KMS_OK ? take_batch(&query, true, ret_batch, err) : status;
}

enum kms_status kms_sqlite_batch_list(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                      uint64_t after_epoch, size_t limit, kms_batch_visit visit,
                                      void *context, struct kms_error *err)
{
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, tenant, &tenant_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_BATCH_LIST);
    kms_query_i64(&query, tenant_no);
    kms_query_u64(&query, after_epoch);
    kms_query_u64(&query, limit < INT64_MAX ? limit : INT64_MAX);
    for (;;) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        KMS_CLEANUP(kms_batch_record_clear) struct kms_batch_record batch = {0};
        KMS_TRY(take_batch(&query, false, &batch, err));
        KMS_TRY(visit(context, &batch));
    }
}

enum kms_status kms_sqlite_tombstone_put(struct kms_store_txn *txn,
                                         const struct kms_tombstone_record *tombstone, struct kms_error *err)
{
    const char *problem = kms_tombstone_problem(tombstone);
    if (problem != NULL)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, &tombstone->tenant, &tenant_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_TOMBSTONE_PUT);
    kms_query_uuid(&query, &tombstone->customer);
    kms_query_text(&query, tombstone->purpose);
    kms_query_i64(&query, tombstone->version);
    kms_query_i64(&query, tenant_no);
    kms_query_blob(&query, tombstone->id_mac, sizeof tombstone->id_mac);
    kms_query_u64(&query, tombstone->epoch);
    kms_query_uuid(&query, &tombstone->batch);
    kms_query_i64(&query, tombstone->created_ns);
    KMS_TRY(kms_query_run(&query, "tombstone", err));
    return kms_sqlite_log(txn, KMS_CHANGE_TOMBSTONE,
                          kms_changelog_tombstone(tombstone, kms_sqlite_payload(txn)), err);
}

/* One row of KMS_TOMBSTONE_COLUMNS. */
static enum kms_status take_tombstone(struct kms_query *query, struct kms_tombstone_record *ret_tombstone,
                                      struct kms_error *err)
{
    struct kms_tombstone_record tombstone = {0};
    kms_query_take_uuid(query, &tombstone.customer);
    kms_query_take_text(query, tombstone.purpose, sizeof tombstone.purpose);
    tombstone.version = kms_query_take_u32(query);
    kms_query_take_uuid(query, &tombstone.tenant);
    kms_query_take_blob(query, tombstone.id_mac, sizeof tombstone.id_mac);
    tombstone.epoch = kms_query_take_u64(query);
    kms_query_take_uuid(query, &tombstone.batch);
    tombstone.created_ns = kms_query_take_i64(query);
    KMS_TRY(kms_query_row_ok(query, kms_tombstone_problem(&tombstone), err));
    *ret_tombstone = tombstone;
    return KMS_OK;
}

/* After the look-up was bound. */
static enum kms_status get_tombstone(struct kms_query *query, struct kms_tombstone_record *ret_tombstone,
                                     struct kms_error *err)
{
    const enum kms_status status = kms_query_row(query, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_NOT_FOUND, "no such tombstone");
    return status == KMS_OK ? take_tombstone(query, ret_tombstone, err) : status;
}

enum kms_status kms_sqlite_tombstone_by_mac(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                            const uint8_t id_mac[KMS_TOMBSTONE_MAC_SIZE],
                                            struct kms_tombstone_record *ret_tombstone, struct kms_error *err)
{
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, tenant, &tenant_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_TOMBSTONE_BY_MAC);
    kms_query_i64(&query, tenant_no);
    kms_query_blob(&query, id_mac, KMS_TOMBSTONE_MAC_SIZE);
    return get_tombstone(&query, ret_tombstone, err);
}

enum kms_status kms_sqlite_tombstone_for(struct kms_store_txn *txn, const struct kms_uuid *customer,
                                         const char *purpose, struct kms_tombstone_record *ret_tombstone,
                                         struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_TOMBSTONE_FOR);
    kms_query_uuid(&query, customer);
    kms_query_text(&query, purpose);
    return get_tombstone(&query, ret_tombstone, err);
}

enum kms_status kms_sqlite_tombstone_list(struct kms_store_txn *txn, const struct kms_uuid *batch,
                                          kms_tombstone_visit visit, void *context, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_TOMBSTONE_LIST);
    kms_query_uuid(&query, batch);
    for (;;) {
        struct kms_tombstone_record tombstone;
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        KMS_TRY(take_tombstone(&query, &tombstone, err));
        KMS_TRY(visit(context, &tombstone));
    }
}

enum kms_status kms_sqlite_tombstone_any(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                         bool *ret_any, struct kms_error *err)
{
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, tenant, &tenant_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_TOMBSTONE_ANY);
    kms_query_i64(&query, tenant_no);
    KMS_TRY(kms_query_row(&query, err));
    const bool any = kms_query_take_i64(&query) != 0;
    KMS_TRY(kms_query_row_ok(&query, NULL, err));
    *ret_any = any;
    return KMS_OK;
}

enum kms_status kms_sqlite_free_slots(struct kms_store_txn *txn, const struct kms_uuid *tenant, size_t limit,
                                      uint64_t **ret_slots, size_t *ret_count, struct kms_error *err)
{
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, tenant, &tenant_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_FREE_SLOTS);
    kms_query_i64(&query, tenant_no);
    kms_query_u64(&query, limit < INT64_MAX ? limit : INT64_MAX);
    KMS_CLEANUP(kms_buf_clear) struct kms_buf list = {0};
    size_t count = 0;
    for (;; count++) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            break;
        KMS_TRY(status);
        const uint64_t slot = kms_query_take_u64(&query);
        KMS_TRY(kms_query_row_ok(&query, NULL, err));
        if (kms_buf_append(&list, &slot, sizeof slot) != KMS_OK)
            return kms_fail(err, KMS_NO_MEMORY, "no memory for a list of slots");
    }
    *ret_slots = (uint64_t *)(void *)KMS_TAKE(list.data);
    *ret_count = count;
    return KMS_OK;
}

/* Both directions; `*ret_changes` rows were changed. */
static enum kms_status change_slot(struct kms_store_txn *txn, enum kms_statement which,
                                   const struct kms_uuid *tenant, uint64_t slot, int64_t *ret_changes,
                                   struct kms_error *err)
{
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, tenant, &tenant_no, err));
    if (slot > INT64_MAX)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "slot: at most 2^63-1");
    KMS_QUERY query = kms_query_of(txn, which);
    kms_query_i64(&query, tenant_no);
    kms_query_u64(&query, slot);
    KMS_TRY(kms_query_run(&query, "free slot", err));
    *ret_changes = kms_query_changes(&query);
    return KMS_OK;
}

enum kms_status kms_sqlite_free_slot_put(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                         uint64_t slot, struct kms_error *err)
{
    int64_t changes = 0;
    KMS_TRY(change_slot(txn, KMS_STATEMENT_FREE_SLOT_PUT, tenant, slot, &changes, err));
    const struct kms_change_slot record = {*tenant, slot};
    return kms_sqlite_log(txn, KMS_CHANGE_FREE_SLOT,
                          kms_changelog_slot(KMS_CHANGE_FREE_SLOT, &record, kms_sqlite_payload(txn)), err);
}

enum kms_status kms_sqlite_free_slot_take(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                          uint64_t slot, struct kms_error *err)
{
    int64_t changes = 0;
    KMS_TRY(change_slot(txn, KMS_STATEMENT_FREE_SLOT_TAKE, tenant, slot, &changes, err));
    if (changes == 0)
        return kms_fail(err, KMS_NOT_FOUND, "the slot is not free");
    const struct kms_change_slot record = {*tenant, slot};
    return kms_sqlite_log(txn, KMS_CHANGE_SLOT_TAKEN,
                          kms_changelog_slot(KMS_CHANGE_SLOT_TAKEN, &record, kms_sqlite_payload(txn)), err);
}

/* Every batch as it is now: one record says it all. */
static enum kms_status snapshot_batches(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                        struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_BATCH_ALL);
    for (;;) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        KMS_CLEANUP(kms_batch_record_clear) struct kms_batch_record batch = {0};
        KMS_TRY(take_batch(&query, true, &batch, err));
        KMS_TRY(
            kms_snapshot_give(snapshot, kms_changelog_batch(&batch, kms_snapshot_payload(snapshot)), err));
    }
}

static enum kms_status snapshot_tombstones(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                           struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_TOMBSTONE_ALL);
    for (;;) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        struct kms_tombstone_record tombstone;
        KMS_TRY(take_tombstone(&query, &tombstone, err));
        KMS_TRY(kms_snapshot_give(snapshot,
                                  kms_changelog_tombstone(&tombstone, kms_snapshot_payload(snapshot)), err));
    }
}

static enum kms_status snapshot_slots(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                      struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_FREE_SLOT_ALL);
    for (;;) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        struct kms_change_slot slot;
        kms_query_take_uuid(&query, &slot.tenant);
        slot.slot = kms_query_take_u64(&query);
        KMS_TRY(kms_query_row_ok(&query, NULL, err));
        KMS_TRY(kms_snapshot_give(
            snapshot, kms_changelog_slot(KMS_CHANGE_FREE_SLOT, &slot, kms_snapshot_payload(snapshot)), err));
    }
}

enum kms_status kms_sqlite_rekey_snapshot(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                          struct kms_error *err)
{
    KMS_TRY(snapshot_batches(txn, snapshot, err));
    KMS_TRY(snapshot_tombstones(txn, snapshot, err));
    return snapshot_slots(txn, snapshot, err);
}
