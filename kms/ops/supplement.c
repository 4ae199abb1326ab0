#include "ops/supplement.h"

#include "core/clock.h"
#include "evidence/certificate.h"
#include "evidence/digest.h"
#include "ops/certificate.h"
#include "ops/certificate_json.h"
#include "ops/shred_job.h"
#include "ops/tenants.h"

#include <stdlib.h>

enum { BATCHES_AT_ONCE = 1000 };
#define JSON KMS_CLEANUP(ops_json_clear) json_t

/* Where the walk over a tenant's batches is. */
struct walk {
    struct kms_ops *ops;
    const struct kms_recovery_key_record *key;
    struct kms_tenant_record tenant;
    uint64_t first;       /* epoch from which on the key covers the tenant */
    uint64_t after_epoch; /* of the last batch that was looked at */
    uint32_t part;        /* number of the next certificate */
    uint64_t certificates, batches;
};

/* Batches of a portion that may be completed. */
struct portion {
    struct kms_batch_record *list;
    size_t count, seen;
    uint64_t last_epoch;
};

static void clear_portion(struct portion *portion)
{
    free(portion->list);
}

static enum kms_status take_batch(void *context, const struct kms_batch_record *batch)
{
    struct portion *portion = context;
    portion->seen++;
    portion->last_epoch = batch->old_epoch;
    if (batch->kind == KMS_BATCH_SHRED && batch->state == KMS_BATCH_SEALED)
        portion->list[portion->count++] = *batch;
    return KMS_OK;
}

/* One batch, if nothing but time or the medium stands in its way now, and this key did before. */
static enum kms_status add_batch(const struct walk *walk, struct kms_txn *txn,
                                 const struct kms_batch_record *batch, json_t *completed,
                                 struct kms_error *err)
{
    JSON *remaining = NULL;
    KMS_CLEANUP(kms_certificate_record_clear) struct kms_certificate_record certificate = {0};
    if (batch->old_epoch < walk->first)
        return KMS_OK;
    bool by_recovery_key = false;
    KMS_TRY(ops_shred_remaining(walk->ops, txn, batch, &remaining, &by_recovery_key, err));
    if (by_recovery_key)
        return KMS_OK;
    const enum kms_status status =
        txn->store->ops->shred.certificate_get(txn->txn, &batch->uuid, &certificate, err);
    if (status == KMS_NOT_FOUND)
        return KMS_OK; /* it is made after the retirement, and knows of it */
    KMS_TRY(status);
    json_t *entry = json_pack("{s:o, s:o, s:O, s:o}", "batch", ops_json_uuid(&batch->uuid), "certificate",
                              ops_json_uuid(&certificate.uid), "remaining", remaining, "sealed",
                              ops_json_time(batch->sealed_ns));
    return json_array_append_new(completed, entry) == 0
               ? KMS_OK
               : kms_fail(err, KMS_NO_MEMORY, "no memory for a supplementary certificate");
}

/* The next portion of the tenant's batches. */
static enum kms_status read_portion(struct walk *walk, struct kms_txn *txn, struct portion *portion,
                                    json_t *completed, struct kms_error *err)
{
    portion->list = calloc(BATCHES_AT_ONCE, sizeof *portion->list);
    if (portion->list == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a supplementary certificate");
    KMS_TRY(txn->store->ops->rekey.batch_list(txn->txn, &walk->tenant.uuid, walk->after_epoch,
                                              BATCHES_AT_ONCE, take_batch, portion, err));
    for (size_t i = 0; i < portion->count; i++)
        KMS_TRY(add_batch(walk, txn, &portion->list[i], completed, err));
    walk->after_epoch = portion->last_epoch;
    return KMS_OK;
}

/* What stands for (operation, tenant, part), so that the same certificate is not issued twice. */
static enum kms_status name_part(const struct walk *walk, struct kms_uuid *ret_name, struct kms_error *err)
{
    uint8_t data[2 * KMS_UUID_SIZE + 4];
    uint8_t digest[KMS_SHA256_SIZE];
    memcpy(data, walk->key->retire_operation.bytes, KMS_UUID_SIZE);
    memcpy(data + KMS_UUID_SIZE, walk->tenant.uuid.bytes, KMS_UUID_SIZE);
    kms_put_be32(data + 2 * KMS_UUID_SIZE, walk->part);
    KMS_TRY(kms_sha256(kms_slice_of(data, sizeof data), digest, err));
    memcpy(ret_name->bytes, digest, KMS_UUID_SIZE);
    return KMS_OK;
}

/* The document. A member that memory was short for is missing; parsing it again finds that. */
static enum kms_status compose(const struct walk *walk, struct kms_txn *txn, json_t *completed,
                               struct kms_certificate_record *certificate, struct kms_error *err)
{
    struct kms_hsm_info info;
    const struct kms_recovery_key_record *key = walk->key;
    walk->ops->hsm->ops->info(walk->ops->hsm, &info);
    JSON *document =
        json_pack("{s:o, s:O, s:o, s:b, s:s, s:{s:I, s:s, s:o, s:s}, s:o}", "certificate",
                  ops_json_uuid(&certificate->uid), "completed", completed, "created",
                  ops_json_time(certificate->created_ns), "development", info.erase_class == 'C', "format",
                  KMS_SUPPLEMENT_FORMAT, "recovery_key", "epoch", (json_int_t)key->epoch, "fingerprint",
                  key->fingerprint, "retired", ops_json_time(key->retired_ns), "statement", key->statement,
                  "tenant", ops_json_uuid(&walk->tenant.uuid));
    if (document == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a supplementary certificate");
    KMS_TRY(ops_json_people(txn, &key->retire_operation, key->retired_by, document, err));
    KMS_TRY(ops_json_audit(walk->ops, document, err));
    return ops_certificate_take(document, certificate, err);
}

/* One certificate over a portion of batches; `*ret_more`: there may be others behind it. */
static enum kms_status issue_part(struct walk *walk, bool *ret_more, struct kms_error *err)
{
    KMS_CLEANUP(kms_certificate_record_clear)
    struct kms_certificate_record certificate = {.uid = kms_uuid_random(),
                                                 .tenant = walk->tenant.uuid,
                                                 .kind = KMS_CERTIFICATE_SUPPLEMENT,
                                                 .created_ns = kms_clock_wall_ns()};
    JSON *completed = json_array();
    KMS_CLEANUP(clear_portion) struct portion portion = {0};
    KMS_TRY(name_part(walk, &certificate.batch, err));
    {
        KMS_TXN txn = {0};
        KMS_TRY(kms_txn_begin(walk->ops->store, false, &txn, err));
        KMS_TRY(read_portion(walk, &txn, &portion, completed, err));
        if (json_array_size(completed) > 0)
            KMS_TRY(compose(walk, &txn, completed, &certificate, err));
    }
    *ret_more = portion.seen == BATCHES_AT_ONCE;
    walk->part++;
    if (json_array_size(completed) == 0)
        return KMS_OK;
    walk->certificates++;
    walk->batches += json_array_size(completed);
    return ops_certificate_keep(walk->ops, &certificate, err);
}

/* All of one tenant, if the key ever covered it. */
static enum kms_status issue_tenant(void *context, const struct kms_tenant_record *tenant,
                                    struct kms_error *err)
{
    struct walk *walk = context;
    walk->tenant = *tenant;
    walk->after_epoch = 0;
    walk->part = 0;
    {
        KMS_TXN txn = {0};
        KMS_TRY(kms_txn_begin(walk->ops->store, false, &txn, err));
        const enum kms_status status =
            txn.store->ops->recovery.cover_get(txn.txn, walk->key->epoch, &tenant->uuid, &walk->first, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
    }
    for (bool more = true; more;)
        KMS_TRY(issue_part(walk, &more, err));
    return KMS_OK;
}

enum kms_status ops_supplement_issue(struct kms_ops *ops, const struct kms_recovery_key_record *key,
                                     uint64_t *ret_certificates, uint64_t *ret_batches, struct kms_error *err)
{
    struct walk walk = {.ops = ops, .key = key};
    KMS_TRY(ops_each_tenant(ops->store, issue_tenant, &walk, err));
    *ret_certificates = walk.certificates;
    *ret_batches = walk.batches;
    return KMS_OK;
}
