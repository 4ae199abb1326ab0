/* What could still open the keys of a sealed batch: between SEALED and ERASED. */
#include "core/clock.h"
#include "ops/shred_job.h"

#include <jansson.h>

/* A list of texts that grows. */
struct texts {
    struct kms_txn *txn;
    const struct kms_batch_record *batch;
    json_t *list;
    bool by_recovery_key; /* one of them is about a recovery key */
    struct kms_error *err;
};

static enum kms_status add(struct texts *texts, json_t *text)
{
    return json_array_append_new(texts->list, text) == 0
               ? KMS_OK
               : kms_fail(texts->err, KMS_NO_MEMORY, "no memory for what remains of a shred");
}

/*
 * A recovery key that ever had a capsule of an epoch in which the batch's customers lived, that is of one up to the epoch that the batch
 * has ended. Capsules are removed from the targets with their epoch, but whoever has copied one needs nothing but the key.
 */
static enum kms_status add_recovery_key(void *context, const struct kms_recovery_key_record *key)
{
    struct texts *texts = context;
    uint64_t first = 0;
    if (key->state == KMS_RECOVERY_RETIRED)
        return KMS_OK;
    const enum kms_status status = texts->txn->store->ops->recovery.cover_get(
        texts->txn->txn, key->epoch, &texts->batch->tenant, &first, texts->err);
    if (status == KMS_NOT_FOUND || (status == KMS_OK && first > texts->batch->old_epoch))
        return KMS_OK;
    KMS_TRY(status);
    texts->by_recovery_key = true;
    return add(
        texts,
        json_sprintf("recovery key %s (recovery epoch %llu): it opens capsules of the master keys of this "
                     "tenant's epochs %llu to %llu%s",
                     key->fingerprint, (unsigned long long)key->epoch, (unsigned long long)first,
                     (unsigned long long)texts->batch->old_epoch,
                     key->state == KMS_RECOVERY_RETIRING ? "; it is being retired" : ""));
}

/* What the token and its provider keep. */
static enum kms_status add_media(struct kms_ops *ops, struct texts *texts)
{
    struct kms_hsm_info info;
    ops->hsm->ops->info(ops->hsm, &info);
    if (info.erase_class == 'C')
        KMS_TRY(
            add(texts, json_string("copies of the files in which the token keeps its keys (erase class C: "
                                   "development)")));
    const int64_t until =
        texts->batch->sealed_ns + (int64_t)info.provider_retention_days * 86400 * KMS_NS_PER_SECOND;
    char time[KMS_TIME_TEXT_SIZE];
    if (info.erase_class == 'B' && until > kms_clock_wall_ns())
        KMS_TRY(add(
            texts, json_sprintf("backups of the token's provider, until %s", kms_clock_format(until, time))));
    return KMS_OK;
}

enum kms_status ops_shred_remaining(struct kms_ops *ops, struct kms_txn *txn,
                                    const struct kms_batch_record *batch, json_t **ret_list,
                                    bool *ret_by_recovery_key, struct kms_error *err)
{
    struct texts texts = {.txn = txn, .batch = batch, .list = json_array(), .err = err};
    if (texts.list == NULL) /* which would read as: nothing remains */
        return kms_fail(err, KMS_NO_MEMORY, "no memory for what remains of a shred");
    enum kms_status status = add_media(ops, &texts);
    if (status == KMS_OK)
        status = txn->store->ops->recovery.key_list(txn->txn, add_recovery_key, &texts, err);
    if (status != KMS_OK) {
        json_decref(texts.list);
        return status;
    }
    *ret_list = texts.list;
    if (ret_by_recovery_key != NULL)
        *ret_by_recovery_key = texts.by_recovery_key;
    return KMS_OK;
}
