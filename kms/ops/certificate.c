#include "ops/certificate.h"

#include "core/clock.h"
#include "core/log.h"
#include "evidence/certificate.h"
#include "ops/certificate_json.h"
#include "ops/shred_job.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

/* What was destroyed, one entry for each tombstone of the batch, in the order of the hash tree. */
struct entry {
    struct kms_uuid customer;
    uint32_t version;
    char purpose[KMS_TOMBSTONE_PURPOSE_MAX + 1];
};

struct entries {
    struct entry *list;
    size_t count, room;
    struct kms_merkle_hash *leaves;
};

static void clear_entries(struct entries *entries)
{
    free(entries->list);
    free(entries->leaves);
}
#define ENTRIES KMS_CLEANUP(clear_entries) struct entries

#define JSON KMS_CLEANUP(ops_json_clear) json_t

static enum kms_status take_tombstone(void *context, const struct kms_tombstone_record *tombstone)
{
    struct entries *entries = context;
    if (entries->count == entries->room) {
        const size_t room = entries->room == 0 ? 64 : 2 * entries->room;
        struct entry *list = realloc(entries->list, room * sizeof *list);
        if (list == NULL)
            return KMS_NO_MEMORY;
        entries->list = list;
        entries->room = room;
    }
    struct entry *entry = &entries->list[entries->count++];
    *entry = (struct entry){.customer = tombstone->customer, .version = tombstone->version};
    memcpy(entry->purpose, tombstone->purpose, sizeof entry->purpose);
    return KMS_OK;
}

/* By customer, purpose and version. */
static int compare_entries(const void *left, const void *right)
{
    const struct entry *a = left;
    const struct entry *b = right;
    int order = memcmp(a->customer.bytes, b->customer.bytes, KMS_UUID_SIZE);
    if (order == 0)
        order = strcmp(a->purpose, b->purpose);
    return order != 0 ? order : (a->version > b->version) - (a->version < b->version);
}

/* The entries of a batch and the hashes of their leaves. */
static enum kms_status read_entries(struct kms_txn *txn, const struct kms_uuid *batch,
                                    struct entries *entries, struct kms_error *err)
{
    KMS_TRY(txn->store->ops->rekey.tombstone_list(txn->txn, batch, take_tombstone, entries, err));
    if (entries->count == 0)
        return kms_fail(err, KMS_STORE_CORRUPT, "a batch of shredding has no tombstones");
    qsort(entries->list, entries->count, sizeof *entries->list, compare_entries);
    entries->leaves = calloc(entries->count, sizeof *entries->leaves);
    if (entries->leaves == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for the hash tree of a certificate");
    for (size_t i = 0; i < entries->count; i++)
        KMS_TRY(kms_certificate_leaf(&entries->list[i].customer, entries->list[i].purpose,
                                     entries->list[i].version, &entries->leaves[i]));
    return KMS_OK;
}

/* "destroyed": the tree, and the one customer if there is only one. */
static json_t *destroyed_json(const struct entries *entries, const struct kms_batch_record *batch)
{
    struct kms_merkle_hash root;
    if (kms_merkle_root(entries->leaves, entries->count, &root) != KMS_OK)
        return NULL;
    json_t *destroyed =
        json_pack("{s:I, s:I, s:I, s:o, s:s}", "count", (json_int_t)entries->count, "customers",
                  (json_int_t)batch->customers, "keys", (json_int_t)batch->keys_shredded, "root",
                  ops_json_hex(root.bytes, sizeof root.bytes), "tree", "RFC 6962 SHA-256");
    const bool only = kms_uuid_equal(&entries->list[0].customer, &entries->list[entries->count - 1].customer);
    if (destroyed != NULL && only)
        (void)json_object_set_new(destroyed, "customer", ops_json_uuid(&entries->list[0].customer));
    return destroyed;
}

/* "media": the token. */
static json_t *media_json(const struct kms_hsm_info *info, int64_t sealed_ns)
{
    json_t *media =
        json_pack("{s:s#, s:s, s:s, s:s, s:s, s:s, s:s}", "erase_class", &info->erase_class, 1, "firmware",
                  info->firmware, "label", info->label, "manufacturer", info->manufacturer, "model",
                  info->model, "serial", info->serial, "type", "keys in a PKCS #11 token");
    if (media != NULL && info->erase_class == 'B')
        (void)json_object_set_new(
            media, "provider_retention_until",
            ops_json_time(sealed_ns + (int64_t)info->provider_retention_days * 86400 * KMS_NS_PER_SECOND));
    return media;
}

/* "sanitization": how, and with what. The category is what the erase class allows to claim. */
static json_t *sanitization_json(const struct kms_ops *ops, char erase_class, int64_t sealed_ns)
{
    return json_pack(
        "{s:s, s:o, s:s, s:s, s:s, s:s, s:s}", "category",
        erase_class == 'A'   ? "Purge"
        : erase_class == 'B' ? "Purge, complete when the provider's retention ends"
                             : "none: development",
        "destroyed_time", ops_json_time(sealed_ns), "method", "Cryptographic Erase", "standard",
        "NIST SP 800-88 Rev. 1", "technique",
        "new keys for every page of the key tree on the way to the destroyed keys, new master key, old "
        "master key destroyed in the token",
        "tool", "kms", "tool_version", ops->version);
}

static json_t *verification_json(int64_t sealed_ns)
{
    return json_pack(
        "{s:s, s:s, s:[s, s, s, s], s:o}", "method", "full", "result", "verified", "steps",
        "the authentication code of every page was checked before its keys were wrapped again",
        "every changed page was read back and opened under the new master key",
        "every key that lives on was wrapped twice alike under its new page key, and one of every page "
        "was opened under it",
        "the old master key can neither be found in the token nor used", "time", ops_json_time(sealed_ns));
}

enum kms_status ops_certificate_take(const json_t *document, struct kms_certificate_record *certificate,
                                     struct kms_error *err)
{
    certificate->document = (uint8_t *)json_dumps(document, JSON_COMPACT | JSON_SORT_KEYS);
    if (certificate->document == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a certificate");
    certificate->document_len = strlen((const char *)certificate->document);
    struct kms_certificate *parsed = NULL;
    KMS_TRY(
        kms_certificate_parse(kms_slice_of(certificate->document, certificate->document_len), &parsed, err));
    kms_certificate_free(parsed);
    return KMS_OK;
}

/* Write it; somebody else's is as good. */
static enum kms_status save(struct kms_ops *ops, const struct kms_certificate_record *certificate,
                            struct kms_error *err)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(ops->store, true, &txn, err));
    const enum kms_status status = txn.store->ops->shred.certificate_insert(txn.txn, certificate, err);
    if (status == KMS_ALREADY_EXISTS)
        return KMS_OK;
    KMS_TRY(status);
    return kms_txn_commit(&txn, err);
}

enum kms_status ops_certificate_keep(struct kms_ops *ops, struct kms_certificate_record *certificate,
                                     struct kms_error *err)
{
    KMS_TRY(kms_hsm_sign(ops->hsm, kms_slice_of(certificate->document, certificate->document_len),
                         certificate->signature, &certificate->signature_len, err));
    return save(ops, certificate, err);
}

/* The whole document. A member that memory was short for is missing; parsing it again finds that. */
static enum kms_status compose(struct kms_ops *ops, struct kms_txn *txn, const struct kms_batch_record *batch,
                               const struct kms_shred_job_record *job,
                               struct kms_certificate_record *certificate, struct kms_error *err)
{
    ENTRIES entries = {0};
    struct kms_hsm_info info;
    json_t *remaining = NULL;
    ops->hsm->ops->info(ops->hsm, &info);
    KMS_TRY(read_entries(txn, &batch->uuid, &entries, err));
    KMS_TRY(ops_shred_remaining(ops, txn, batch, &remaining, NULL, err));
    JSON *document = json_pack(
        "{s:o, s:o, s:o, s:o, s:b, s:s, s:{s:I, s:o, s:I, s:o}, s:o, s:{s:I, s:o}, s:o, s:o, s:o, s:{s:o, "
        "s:o, "
        "s:o}, s:o}",
        "batch", ops_json_uuid(&batch->uuid), "certificate", ops_json_uuid(&certificate->uid), "created",
        ops_json_time(certificate->created_ns), "destroyed", destroyed_json(&entries, batch), "development",
        info.erase_class == 'C', "format", KMS_CERTIFICATE_FORMAT, "keys", "new_epoch",
        (json_int_t)batch->old_epoch + 1, "new_master_id",
        ops_json_hex(batch->new_master_id, sizeof batch->new_master_id), "old_epoch",
        (json_int_t)batch->old_epoch, "old_master_id",
        ops_json_hex(batch->old_master_id, sizeof batch->old_master_id), "media",
        media_json(&info, batch->sealed_ns), "pages", "changed", (json_int_t)batch->pages, "digest",
        ops_json_hex(batch->pages_digest, sizeof batch->pages_digest), "remaining", remaining, "sanitization",
        sanitization_json(ops, info.erase_class, batch->sealed_ns), "tenant", ops_json_uuid(&batch->tenant),
        "times", "committed", ops_json_time(batch->committed_ns), "requested",
        ops_json_time(job->requested_ns), "sealed", ops_json_time(batch->sealed_ns), "verification",
        verification_json(batch->sealed_ns));
    if (document == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a certificate");
    KMS_TRY(ops_json_people(txn, &job->operation, job->requested_by, document, err));
    KMS_TRY(ops_json_audit(ops, document, err));
    return ops_certificate_take(document, certificate, err);
}

enum kms_status ops_certificate_issue(struct kms_ops *ops, const struct kms_uuid *batch_uid,
                                      const struct kms_shred_job_record *job, struct kms_error *err)
{
    KMS_CLEANUP(kms_certificate_record_clear)
    struct kms_certificate_record certificate = {.uid = kms_uuid_random(),
                                                 .tenant = job->tenant,
                                                 .batch = *batch_uid,
                                                 .kind = KMS_CERTIFICATE_DESTRUCTION,
                                                 .created_ns = kms_clock_wall_ns()};
    {
        KMS_TXN txn = {0};
        KMS_CLEANUP(kms_batch_record_clear) struct kms_batch_record batch = {0};
        KMS_CLEANUP(kms_certificate_record_clear) struct kms_certificate_record before = {0};
        KMS_TRY(kms_txn_begin(ops->store, false, &txn, err));
        const enum kms_status status =
            txn.store->ops->shred.certificate_get(txn.txn, batch_uid, &before, err);
        if (status != KMS_NOT_FOUND)
            return status;
        KMS_TRY(txn.store->ops->rekey.batch_get(txn.txn, batch_uid, &batch, err));
        if (batch.state != KMS_BATCH_SEALED)
            return kms_fail_public(err, KMS_UNAVAILABLE, "the old master key is not destroyed yet");
        KMS_TRY(compose(ops, &txn, &batch, job, &certificate, err));
    }
    return ops_certificate_keep(ops, &certificate, err);
}

/* The path of one entry as a member of a proof. */
static json_t *entry_json(const struct entries *entries, size_t index)
{
    struct kms_merkle_hash path[KMS_MERKLE_PATH_MAX];
    size_t len = 0;
    if (kms_merkle_path(entries->leaves, entries->count, index, path, &len) != KMS_OK)
        return NULL;
    json_t *hashes = json_array();
    for (size_t i = 0; i < len; i++)
        (void)json_array_append_new(hashes, ops_json_hex(path[i].bytes, KMS_MERKLE_SIZE));
    return json_pack("{s:I, s:o, s:s, s:I}", "index", (json_int_t)index, "path", hashes, "purpose",
                     entries->list[index].purpose, "version", (json_int_t)entries->list[index].version);
}

enum kms_status ops_certificate_proof(struct kms_txn *txn, const struct kms_certificate_record *certificate,
                                      const struct kms_uuid *customer, char **ret_proof,
                                      struct kms_error *err)
{
    ENTRIES entries = {0};
    KMS_TRY(read_entries(txn, &certificate->batch, &entries, err));
    JSON *list = json_array();
    for (size_t i = 0; i < entries.count; i++) {
        if (kms_uuid_equal(&entries.list[i].customer, customer))
            (void)json_array_append_new(list, entry_json(&entries, i));
    }
    if (json_array_size(list) == 0)
        return kms_fail_public(err, KMS_NOT_FOUND, "this customer is not among those of the certificate");
    JSON *proof = json_pack("{s:o, s:o, s:O, s:s}", "certificate", ops_json_uuid(&certificate->uid),
                            "customer", ops_json_uuid(customer), "entries", list, "format", KMS_PROOF_FORMAT);
    *ret_proof = proof != NULL ? json_dumps(proof, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    return *ret_proof != NULL ? KMS_OK : kms_fail(err, KMS_NO_MEMORY, "no memory for a proof");
}
