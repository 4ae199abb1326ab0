#include "keys/intent.h"

#include "core/clock.h"
#include "core/log.h"
#include "evidence/signature.h"

#include <stdlib.h>

static const char *const kind_names[] = {
    [KMS_BATCH_SHRED] = "shred",
    [KMS_BATCH_ROTATE_MASTER] = "rotate-master",
    [KMS_BATCH_ROTATE_TREE] = "rotate-tree",
};

/* Records hold printable UTF-8: two characters need care. */
static enum kms_status put_text(struct kms_buf *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            KMS_TRY(kms_buf_append(out, "\\", 1));
        KMS_TRY(kms_buf_append(out, text, 1));
    }
    return KMS_OK;
}

/* The part that follows from the row. */
static enum kms_status put_head(const struct kms_batch_record *batch, struct kms_buf *out)
{
    char uuid[KMS_UUID_TEXT_SIZE];
    char tenant[KMS_UUID_TEXT_SIZE];
    char created[KMS_TIME_TEXT_SIZE];
    char old_master[2 * KMS_BATCH_MASTER_ID_SIZE + 1];
    char new_master[2 * KMS_BATCH_MASTER_ID_SIZE + 1];
    kms_hex_encode(batch->old_master_id, sizeof batch->old_master_id, old_master);
    kms_hex_encode(batch->new_master_id, sizeof batch->new_master_id, new_master);
    KMS_TRY(kms_buf_printf(
        out,
        "{\"batch\":\"%s\",\"created\":\"%s\",\"format\":\"kms.rekey.intent.v1\",\"kind\":\"%s\","
        "\"new_epoch\":%llu,\"new_master\":\"%s\",\"old_epoch\":%llu,\"old_master\":\"%s\","
        "\"reference\":\"",
        kms_uuid_format(&batch->uuid, uuid), kms_clock_format(batch->created_ns, created),
        kind_names[batch->kind], (unsigned long long)batch->old_epoch + 1, new_master,
        (unsigned long long)batch->old_epoch, old_master));
    KMS_TRY(put_text(out, batch->reference));
    return kms_buf_printf(out, "\",\"tenant\":\"%s\",\"tombstones\":[",
                          kms_uuid_format(&batch->tenant, tenant));
}

static enum kms_status put_tombstone(const struct kms_tombstone_record *tombstone, bool first,
                                     struct kms_buf *out)
{
    char customer[KMS_UUID_TEXT_SIZE];
    KMS_TRY(kms_buf_printf(out, "%s\"%s", first ? "" : ",", kms_uuid_format(&tombstone->customer, customer)));
    if (tombstone->purpose[0] != '\0') {
        KMS_TRY(kms_buf_append_str(out, "/"));
        KMS_TRY(put_text(out, tombstone->purpose));
    }
    if (tombstone->version != 0)
        KMS_TRY(kms_buf_printf(out, "/%u", tombstone->version));
    return kms_buf_append_str(out, "\"");
}

/* The whole document. */
static enum kms_status put_document(const struct kms_batch_record *batch,
                                    const struct kms_tombstone_record *tombstones, size_t count,
                                    struct kms_buf *out)
{
    KMS_TRY(put_head(batch, out));
    for (size_t i = 0; i < count; i++)
        KMS_TRY(put_tombstone(&tombstones[i], i == 0, out));
    return kms_buf_append_str(out, "]}");
}

enum kms_status kms_intent_make(struct kms_keys *keys, struct kms_batch_record *batch,
                                const struct kms_tombstone_record *tombstones, size_t count,
                                struct kms_error *err)
{
    KMS_CLEANUP(kms_buf_clear) struct kms_buf document = {0};
    if (put_document(batch, tombstones, count, &document) != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for the intent of a batch");
    if (document.len > KMS_BATCH_DOCUMENT_MAX)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "the batch's targets take more than %d bytes: shred fewer at once",
                               KMS_BATCH_DOCUMENT_MAX);
    _Static_assert((int)KMS_BATCH_SIGNATURE_MAX == (int)KMS_HSM_SIGNATURE_MAX,
                   "room for the HSM's signature");
    KMS_TRY(keys->hsm->ops->sign(keys->hsm, kms_buf_slice(&document), batch->signature, &batch->signature_len,
                                 err));
    free(batch->document);
    batch->document_len = document.len;
    batch->document = KMS_TAKE(document.data);
    return KMS_OK;
}

/* An intent that does not hold: nothing may be destroyed on its word. */
static enum kms_status refuse(const struct kms_batch_record *batch, const char *why, struct kms_error *err)
{
    char uuid[KMS_UUID_TEXT_SIZE];
    (void)kms_uuid_format(&batch->uuid, uuid);
    kms_log_error("keys", "TAMPERED: the intent of batch %s: %s; no master key is destroyed", uuid, why);
    return kms_fail_public(
        err, KMS_FAILED_PRECONDITION,
        "the signed intent of batch %s does not hold: %s; nothing was destroyed; restore the "
        "newest backup, or have the database examined",
        uuid, why);
}

/* By this HSM's key, or by that of one that was lost. */
static enum kms_status verify_signature(struct kms_keys *keys, const struct kms_batch_record *batch,
                                        struct kms_error *err)
{
    KMS_FREE char *pem = NULL;
    KMS_TRY(keys->hsm->ops->attestation_public_pem(keys->hsm, &pem, err));
    const struct kms_slice document = kms_slice_of(batch->document, batch->document_len);
    const struct kms_slice signature = kms_slice_of(batch->signature, batch->signature_len);
    enum kms_status status = kms_signature_verify(kms_slice_str(pem), document, signature, err);
    for (size_t i = 0; i < keys->config.predecessor_count && status == KMS_TAMPERED; i++)
        status = kms_signature_verify(keys->config.predecessors[i], document, signature, err);
    return status;
}

enum kms_status kms_intent_verify(struct kms_keys *keys, const struct kms_batch_record *batch,
                                  struct kms_error *err)
{
    KMS_CLEANUP(kms_buf_clear) struct kms_buf head = {0};
    if (put_head(batch, &head) != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to check the intent of a batch");
    if (batch->document_len <= head.len || memcmp(batch->document, head.data, head.len) != 0)
        return refuse(batch, "it is not of this row", err);
    const enum kms_status status = verify_signature(keys, batch, err);
    if (status == KMS_TAMPERED || status == KMS_INVALID_ARGUMENT)
        return refuse(
            batch,
            "its signature is not by the HSM's attestation key, nor by one of hsm.attestation_predecessors",
            err);
    return status;
}
