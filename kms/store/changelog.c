#include "store/changelog.h"

#include "core/cleanup.h"
#include "store/changelog_operation.h"
#include "store/changelog_policy.h"
#include "store/changelog_recovery.h"
#include "store/changelog_shred.h"
#include "store/changelog_rekey.h"
#include "store/codec.h"
#include "store/record.h"

#include <stdlib.h>

enum kms_status kms_changelog_tenant(const struct kms_tenant_record *tenant, struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_TENANT));
    KMS_TRY(kms_buf_append(out, tenant->uuid.bytes, KMS_UUID_SIZE));
    KMS_TRY(kms_codec_put_text(out, tenant->id));
    KMS_TRY(kms_codec_put_text(out, tenant->display_name));
    KMS_TRY(kms_codec_put_u8(out, tenant->state));
    KMS_TRY(kms_codec_put_u64(out, tenant->epoch));
    KMS_TRY(kms_buf_append(out, tenant->master_id, sizeof tenant->master_id));
    KMS_TRY(kms_buf_append(out, tenant->root_blob, sizeof tenant->root_blob));
    KMS_TRY(kms_codec_put_u32(out, tenant->height));
    KMS_TRY(kms_codec_put_u64(out, tenant->next_slot));
    KMS_TRY(kms_codec_put_u64(out, tenant->revision));
    KMS_TRY(kms_codec_put_i64(out, tenant->created_ns));
    return kms_codec_put_i64(out, tenant->updated_ns);
}

enum kms_status kms_changelog_purpose(const struct kms_purpose_record *purpose, struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_PURPOSE));
    KMS_TRY(kms_buf_append(out, purpose->tenant.bytes, KMS_UUID_SIZE));
    KMS_TRY(kms_codec_put_text(out, purpose->id));
    KMS_TRY(kms_codec_put_text(out, purpose->display_name));
    KMS_TRY(kms_codec_put_text(out, purpose->legal_basis));
    KMS_TRY(kms_codec_put_u8(out, purpose->state));
    KMS_TRY(kms_codec_put_u8(out, purpose->required_by_law));
    KMS_TRY(kms_codec_put_i64(out, purpose->retention_seconds));
    KMS_TRY(kms_codec_put_i64(out, purpose->rotation_seconds));
    KMS_TRY(kms_codec_put_u64(out, purpose->revision));
    KMS_TRY(kms_codec_put_i64(out, purpose->created_ns));
    return kms_codec_put_i64(out, purpose->updated_ns);
}

enum kms_status kms_changelog_customer(const struct kms_customer_record *customer, struct kms_buf *out)
{
    const size_t labels_len = strlen(customer->labels);
    KMS_ASSERT(labels_len <= KMS_STORE_LABELS_TEXT_MAX);
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_CUSTOMER));
    KMS_TRY(kms_buf_append(out, customer->uuid.bytes, KMS_UUID_SIZE));
    KMS_TRY(kms_buf_append(out, customer->tenant.bytes, KMS_UUID_SIZE));
    KMS_TRY(kms_codec_put_text(out, customer->id));
    KMS_TRY(kms_codec_put_u32(out, (uint32_t)labels_len));
    KMS_TRY(kms_buf_append(out, customer->labels, labels_len));
    KMS_TRY(kms_codec_put_u8(out, customer->state));
    KMS_TRY(kms_codec_put_u64(out, customer->revision));
    KMS_TRY(kms_codec_put_i64(out, customer->created_ns));
    return kms_codec_put_i64(out, customer->updated_ns);
}

enum kms_status kms_changelog_kek(const struct kms_kek_record *kek, struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_KEK));
    KMS_TRY(kms_buf_append(out, kek->kek_id, sizeof kek->kek_id));
    KMS_TRY(kms_buf_append(out, kek->tenant.bytes, KMS_UUID_SIZE));
    KMS_TRY(kms_buf_append(out, kek->customer.bytes, KMS_UUID_SIZE));
    KMS_TRY(kms_codec_put_text(out, kek->purpose));
    KMS_TRY(kms_codec_put_u32(out, kek->version));
    KMS_TRY(kms_codec_put_u64(out, kek->slot));
    KMS_TRY(kms_codec_put_u8(out, kek->state));
    KMS_TRY(kms_codec_put_u64(out, kek->wraps_reserved));
    return kms_codec_put_i64(out, kek->created_ns);
}

enum kms_status kms_changelog_kek_state(const uint8_t kek_id[KMS_KEK_ID_SIZE], enum kms_kek_state state,
                                        struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_KEK_STATE));
    KMS_TRY(kms_buf_append(out, kek_id, KMS_KEK_ID_SIZE));
    return kms_codec_put_u8(out, state);
}

/* The order of reservations: by KEK, and of one KEK the largest counter first. */
static int compare_reservations(const void *left, const void *right)
{
    const struct kms_change_reservation *a = left;
    const struct kms_change_reservation *b = right;
    const int order = memcmp(a->kek_id, b->kek_id, KMS_KEK_ID_SIZE);
    if (order != 0)
        return order;
    return (a->wraps_reserved < b->wraps_reserved) - (a->wraps_reserved > b->wraps_reserved);
}

enum kms_status kms_changelog_reserve(struct kms_change_reservation *list, size_t count, struct kms_buf *out)
{
    KMS_ASSERT(count > 0 && count <= KMS_CHANGELOG_RESERVATIONS_MAX);
    qsort(list, count, sizeof *list, compare_reservations);
    size_t kept = 1;
    for (size_t i = 1; i < count; i++)
        if (memcmp(list[i].kek_id, list[kept - 1].kek_id, KMS_KEK_ID_SIZE) != 0)
            list[kept++] = list[i];
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_RESERVE));
    uint8_t bytes[2];
    kms_put_be16(bytes, (uint16_t)kept);
    KMS_TRY(kms_buf_append(out, bytes, sizeof bytes));
    for (size_t i = 0; i < kept; i++) {
        KMS_TRY(kms_buf_append(out, list[i].kek_id, KMS_KEK_ID_SIZE));
        KMS_TRY(kms_codec_put_u64(out, list[i].wraps_reserved));
    }
    return KMS_OK;
}

enum kms_status kms_changelog_page(const struct kms_page_record *page, struct kms_buf *out)
{
    KMS_ASSERT(page->body_len <= KMS_STORE_PAGE_BODY_MAX);
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_PAGE));
    KMS_TRY(kms_buf_append(out, page->tenant.bytes, KMS_UUID_SIZE));
    KMS_TRY(kms_codec_put_u32(out, page->level));
    KMS_TRY(kms_codec_put_u64(out, page->index));
    KMS_TRY(kms_codec_put_u32(out, (uint32_t)page->body_len));
    KMS_TRY(kms_buf_append(out, page->body, page->body_len));
    return kms_buf_append(out, page->mac, sizeof page->mac);
}

enum kms_status kms_changelog_request(const struct kms_request_record *request, struct kms_buf *out)
{
    KMS_TRY(kms_codec_put_head(out, KMS_CHANGE_REQUEST));
    KMS_TRY(kms_codec_put_text(out, request->request_id));
    KMS_TRY(kms_codec_put_text(out, request->identity));
    KMS_TRY(kms_buf_append(out, request->request_hash, sizeof request->request_hash));
    return kms_codec_put_i64(out, request->created_ns);
}

enum kms_status kms_changelog_encode(struct kms_change *change, struct kms_buf *out)
{
    switch (change->kind) {
    case KMS_CHANGE_TENANT:
        return kms_changelog_tenant(&change->tenant, out);
    case KMS_CHANGE_PURPOSE:
        return kms_changelog_purpose(&change->purpose, out);
    case KMS_CHANGE_CUSTOMER:
        return kms_changelog_customer(&change->customer, out);
    case KMS_CHANGE_KEK:
        return kms_changelog_kek(&change->kek, out);
    case KMS_CHANGE_KEK_STATE:
        return kms_changelog_kek_state(change->kek_state.kek_id, change->kek_state.state, out);
    case KMS_CHANGE_RESERVE:
        return kms_changelog_reserve(change->reserve.list, change->reserve.count, out);
    case KMS_CHANGE_PAGE:
        return kms_changelog_page(&change->page, out);
    case KMS_CHANGE_REQUEST:
        return kms_changelog_request(&change->request, out);
    case KMS_CHANGE_OPERATION:
        return kms_changelog_operation(&change->operation, out);
    case KMS_CHANGE_OPERATION_STATE:
        return kms_changelog_operation_state(&change->operation, out);
    case KMS_CHANGE_APPROVAL:
        return kms_changelog_approval(&change->approval, out);
    case KMS_CHANGE_OPERATION_REMOVED:
        return kms_changelog_operation_removed(&change->operation_removed, out);
    case KMS_CHANGE_SHRED_JOB:
        return kms_changelog_shred_job(&change->shred_job, out);
    case KMS_CHANGE_SHRED_TARGET:
        return kms_changelog_shred_target(&change->shred_target, out);
    case KMS_CHANGE_HOLD:
        return kms_changelog_hold(&change->hold, out);
    case KMS_CHANGE_CERTIFICATE:
        return kms_changelog_certificate(&change->certificate, out);
    case KMS_CHANGE_SHRED_SETTING:
        return kms_changelog_shred_setting(&change->shred_setting, out);
    case KMS_CHANGE_RETENTION:
        return kms_changelog_retention(&change->retention, out);
    case KMS_CHANGE_SHRED_CLOCK:
        return kms_changelog_shred_clock(&change->shred_clock, out);
    case KMS_CHANGE_BATCH:
    case KMS_CHANGE_BATCH_STATE:
    case KMS_CHANGE_TOMBSTONE:
    case KMS_CHANGE_FREE_SLOT:
    case KMS_CHANGE_SLOT_TAKEN:
    case KMS_CHANGE_KEK_SHREDDED:
    case KMS_CHANGE_CUSTOMER_REMOVED:
    case KMS_CHANGE_REWRAPPED:
        return kms_changelog_rekey(change, out);
    case KMS_CHANGE_POLICY:
        return kms_changelog_policy(&change->policy, out);
    case KMS_CHANGE_FREEZE:
        return kms_changelog_freeze(&change->freeze, out);
    case KMS_CHANGE_UNFREEZE:
        return kms_changelog_unfreeze(&change->freeze, out);
    case KMS_CHANGE_RECOVERY_KEY:
        return kms_changelog_recovery_key(&change->recovery_key, out);
    case KMS_CHANGE_RECOVERY_COVER:
        return kms_changelog_recovery_cover(&change->recovery_cover, out);
    }
    KMS_ASSERT(false && "a change of an unknown kind is never made");
    return KMS_INTERNAL;
}

/* The bodies, one function for each kind: the drawing in the header, read aloud. */
static void take_tenant(struct kms_reader *reader, struct kms_tenant_record *tenant)
{
    kms_codec_take_uuid(reader, &tenant->uuid);
    kms_codec_take_text(reader, tenant->id, sizeof tenant->id);
    kms_codec_take_text(reader, tenant->display_name, sizeof tenant->display_name);
    tenant->state = kms_reader_u8(reader);
    tenant->epoch = kms_reader_u64(reader);
    kms_codec_take_bytes(reader, tenant->master_id, sizeof tenant->master_id);
    kms_codec_take_bytes(reader, tenant->root_blob, sizeof tenant->root_blob);
    tenant->height = kms_reader_u32(reader);
    tenant->next_slot = kms_reader_u64(reader);
    tenant->revision = kms_reader_u64(reader);
    tenant->created_ns = kms_codec_take_i64(reader);
    tenant->updated_ns = kms_codec_take_i64(reader);
}

static void take_purpose(struct kms_reader *reader, struct kms_purpose_record *purpose)
{
    kms_codec_take_uuid(reader, &purpose->tenant);
    kms_codec_take_text(reader, purpose->id, sizeof purpose->id);
    kms_codec_take_text(reader, purpose->display_name, sizeof purpose->display_name);
    kms_codec_take_text(reader, purpose->legal_basis, sizeof purpose->legal_basis);
    purpose->state = kms_reader_u8(reader);
    const uint8_t required = kms_reader_u8(reader);
    if (required > 1)
        reader->failed = true;
    purpose->required_by_law = required == 1;
    purpose->retention_seconds = kms_codec_take_i64(reader);
    purpose->rotation_seconds = kms_codec_take_i64(reader);
    purpose->revision = kms_reader_u64(reader);
    purpose->created_ns = kms_codec_take_i64(reader);
    purpose->updated_ns = kms_codec_take_i64(reader);
}

static enum kms_status take_customer(struct kms_reader *reader, struct kms_customer_record *customer)
{
    kms_codec_take_uuid(reader, &customer->uuid);
    kms_codec_take_uuid(reader, &customer->tenant);
    kms_codec_take_text(reader, customer->id, sizeof customer->id);
    uint8_t *labels = NULL;
    const size_t labels_len = kms_reader_u32(reader);
    KMS_TRY(kms_codec_take_copy(reader, labels_len, KMS_STORE_LABELS_TEXT_MAX, &labels));
    customer->labels = (char *)labels;
    if (labels != NULL && memchr(labels, 0, labels_len) != NULL)
        reader->failed = true;
    customer->state = kms_reader_u8(reader);
    customer->revision = kms_reader_u64(reader);
    customer->created_ns = kms_codec_take_i64(reader);
    customer->updated_ns = kms_codec_take_i64(reader);
    return KMS_OK;
}

static void take_kek(struct kms_reader *reader, struct kms_kek_record *kek)
{
    kms_codec_take_bytes(reader, kek->kek_id, sizeof kek->kek_id);
    kms_codec_take_uuid(reader, &kek->tenant);
    kms_codec_take_uuid(reader, &kek->customer);
    kms_codec_take_text(reader, kek->purpose, sizeof kek->purpose);
    kek->version = kms_reader_u32(reader);
    kek->slot = kms_reader_u64(reader);
    kek->state = kms_reader_u8(reader);
    kek->wraps_reserved = kms_reader_u64(reader);
    kek->created_ns = kms_codec_take_i64(reader);
}

static enum kms_status take_reserve(struct kms_reader *reader, struct kms_change *change)
{
    const size_t count = kms_reader_u16(reader);
    if (count == 0 || count > KMS_CHANGELOG_RESERVATIONS_MAX ||
        reader->left != count * (KMS_KEK_ID_SIZE + sizeof(uint64_t))) {
        reader->failed = true;
        return KMS_OK;
    }
    struct kms_change_reservation *list = calloc(count, sizeof *list);
    if (list == NULL)
        return KMS_NO_MEMORY;
    change->reserve.list = list;
    change->reserve.count = count;
    for (size_t i = 0; i < count; i++) {
        kms_codec_take_bytes(reader, list[i].kek_id, KMS_KEK_ID_SIZE);
        list[i].wraps_reserved = kms_reader_u64(reader);
        if (list[i].wraps_reserved > KMS_STORE_WRAPS_MAX ||
            (i > 0 && memcmp(list[i - 1].kek_id, list[i].kek_id, KMS_KEK_ID_SIZE) >= 0))
            reader->failed = true;
    }
    return KMS_OK;
}

static enum kms_status take_page(struct kms_reader *reader, struct kms_page_record *page)
{
    kms_codec_take_uuid(reader, &page->tenant);
    page->level = kms_reader_u32(reader);
    page->index = kms_reader_u64(reader);
    page->body_len = kms_reader_u32(reader);
    KMS_TRY(kms_codec_take_copy(reader, page->body_len, KMS_STORE_PAGE_BODY_MAX, &page->body));
    kms_codec_take_bytes(reader, page->mac, sizeof page->mac);
    return KMS_OK;
}

static void take_request(struct kms_reader *reader, struct kms_request_record *request)
{
    kms_codec_take_text(reader, request->request_id, sizeof request->request_id);
    kms_codec_take_text(reader, request->identity, sizeof request->identity);
    kms_codec_take_bytes(reader, request->request_hash, sizeof request->request_hash);
    request->created_ns = kms_codec_take_i64(reader);
}

/* Body by kind; an unknown kind fails the reader. */
static enum kms_status take_body(struct kms_reader *reader, struct kms_change *change)
{
    switch (change->kind) {
    case KMS_CHANGE_TENANT:
        take_tenant(reader, &change->tenant);
        return KMS_OK;
    case KMS_CHANGE_PURPOSE:
        take_purpose(reader, &change->purpose);
        return KMS_OK;
    case KMS_CHANGE_CUSTOMER:
        return take_customer(reader, &change->customer);
    case KMS_CHANGE_KEK:
        take_kek(reader, &change->kek);
        return KMS_OK;
    case KMS_CHANGE_KEK_STATE:
        kms_codec_take_bytes(reader, change->kek_state.kek_id, KMS_KEK_ID_SIZE);
        change->kek_state.state = kms_reader_u8(reader);
        return KMS_OK;
    case KMS_CHANGE_RESERVE:
        return take_reserve(reader, change);
    case KMS_CHANGE_PAGE:
        return take_page(reader, &change->page);
    case KMS_CHANGE_REQUEST:
        take_request(reader, &change->request);
        return KMS_OK;
    case KMS_CHANGE_OPERATION:
        return kms_changelog_take_operation(reader, &change->operation);
    case KMS_CHANGE_OPERATION_STATE:
        return kms_changelog_take_operation_state(reader, &change->operation);
    case KMS_CHANGE_APPROVAL:
        return kms_changelog_take_approval(reader, &change->approval);
    case KMS_CHANGE_OPERATION_REMOVED:
        kms_codec_take_uuid(reader, &change->operation_removed);
        return KMS_OK;
    case KMS_CHANGE_SHRED_JOB:
        kms_changelog_take_shred_job(reader, &change->shred_job);
        return KMS_OK;
    case KMS_CHANGE_SHRED_TARGET:
        kms_changelog_take_shred_target(reader, &change->shred_target);
        return KMS_OK;
    case KMS_CHANGE_HOLD:
        kms_changelog_take_hold(reader, &change->hold);
        return KMS_OK;
    case KMS_CHANGE_CERTIFICATE:
        return kms_changelog_take_certificate(reader, &change->certificate);
    case KMS_CHANGE_SHRED_SETTING:
        kms_changelog_take_shred_setting(reader, &change->shred_setting);
        return KMS_OK;
    case KMS_CHANGE_RETENTION:
        kms_changelog_take_retention(reader, &change->retention);
        return KMS_OK;
    case KMS_CHANGE_SHRED_CLOCK:
        kms_changelog_take_shred_clock(reader, &change->shred_clock);
        return KMS_OK;
    case KMS_CHANGE_BATCH:
    case KMS_CHANGE_BATCH_STATE:
    case KMS_CHANGE_TOMBSTONE:
    case KMS_CHANGE_FREE_SLOT:
    case KMS_CHANGE_SLOT_TAKEN:
    case KMS_CHANGE_KEK_SHREDDED:
    case KMS_CHANGE_CUSTOMER_REMOVED:
    case KMS_CHANGE_REWRAPPED:
        return kms_changelog_take_rekey(reader, change);
    case KMS_CHANGE_POLICY:
        return kms_changelog_take_policy(reader, &change->policy);
    case KMS_CHANGE_FREEZE:
        kms_changelog_take_freeze(reader, &change->freeze);
        return KMS_OK;
    case KMS_CHANGE_UNFREEZE:
        kms_changelog_take_unfreeze(reader, &change->freeze);
        return KMS_OK;
    case KMS_CHANGE_RECOVERY_KEY:
        kms_changelog_take_recovery_key(reader, &change->recovery_key);
        return KMS_OK;
    case KMS_CHANGE_RECOVERY_COVER:
        kms_changelog_take_recovery_cover(reader, &change->recovery_cover);
        return KMS_OK;
    }
    reader->failed = true;
    return KMS_OK;
}

/* The same limits as for records from anywhere else. NULL when they hold. */
static const char *change_problem(const struct kms_change *change)
{
    switch (change->kind) {
    case KMS_CHANGE_TENANT:
        return kms_record_tenant_problem(&change->tenant);
    case KMS_CHANGE_PURPOSE:
        return kms_record_purpose_problem(&change->purpose);
    case KMS_CHANGE_CUSTOMER:
        return kms_record_customer_problem(&change->customer);
    case KMS_CHANGE_KEK:
        return kms_record_kek_problem(&change->kek);
    case KMS_CHANGE_KEK_STATE:
        return kms_record_kek_state_known(change->kek_state.state) ? NULL : "KEK state: unknown";
    case KMS_CHANGE_RESERVE:
        return NULL; /* checked entry by entry */
    case KMS_CHANGE_PAGE:
        return kms_record_page_problem(&change->page);
    case KMS_CHANGE_REQUEST:
        return kms_record_request_problem(&change->request);
    case KMS_CHANGE_OPERATION:
        return kms_operation_request_problem(&change->operation);
    case KMS_CHANGE_OPERATION_STATE:
        return kms_operation_progress_problem(&change->operation);
    case KMS_CHANGE_APPROVAL:
        return kms_approval_problem(&change->approval);
    case KMS_CHANGE_OPERATION_REMOVED:
        return NULL;
    case KMS_CHANGE_SHRED_JOB:
        return kms_shred_job_problem(&change->shred_job);
    case KMS_CHANGE_SHRED_TARGET:
        return kms_shred_target_problem(&change->shred_target);
    case KMS_CHANGE_HOLD:
        return kms_hold_problem(&change->hold);
    case KMS_CHANGE_CERTIFICATE:
        return kms_certificate_problem(&change->certificate);
    case KMS_CHANGE_SHRED_SETTING:
        return kms_shred_setting_problem(&change->shred_setting);
    case KMS_CHANGE_RETENTION:
        return kms_retention_problem(&change->retention);
    case KMS_CHANGE_SHRED_CLOCK:
        return kms_shred_clock_problem(&change->shred_clock);
    case KMS_CHANGE_BATCH:
    case KMS_CHANGE_BATCH_STATE:
    case KMS_CHANGE_TOMBSTONE:
    case KMS_CHANGE_FREE_SLOT:
    case KMS_CHANGE_SLOT_TAKEN:
    case KMS_CHANGE_KEK_SHREDDED:
    case KMS_CHANGE_CUSTOMER_REMOVED:
    case KMS_CHANGE_REWRAPPED:
        return kms_changelog_rekey_problem(change);
    case KMS_CHANGE_POLICY:
        return kms_policy_record_problem(&change->policy);
    case KMS_CHANGE_FREEZE:
        return kms_freeze_record_problem(&change->freeze);
    case KMS_CHANGE_UNFREEZE:
        return kms_freeze_names_problem(&change->freeze);
    case KMS_CHANGE_RECOVERY_KEY:
        return kms_recovery_key_problem(&change->recovery_key);
    case KMS_CHANGE_RECOVERY_COVER:
        return kms_recovery_cover_problem(&change->recovery_cover);
    }
    return "unknown kind";
}

enum kms_status kms_changelog_decode(struct kms_slice payload, struct kms_change *ret_change,
                                     struct kms_error *err)
{
    struct kms_reader reader = kms_reader_of(payload);
    const unsigned version = kms_reader_u8(&reader);
    if (!reader.failed && version > KMS_CHANGELOG_VERSION)
        return kms_fail(err, KMS_STORE_NEWER,
                        "change record of format version %u; this program knows up to %d", version,
                        KMS_CHANGELOG_VERSION);
    KMS_CLEANUP(kms_change_clear) struct kms_change change = {0};
    change.kind = kms_reader_u8(&reader);
    if (take_body(&reader, &change) != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to decode a change record");
    if (version != KMS_CHANGELOG_VERSION || !kms_reader_done(&reader))
        return kms_fail(err, KMS_STORE_CORRUPT, "a change record of %zu bytes is damaged", payload.len);
    const char *problem = change_problem(&change);
    if (problem != NULL)
        return kms_fail(err, KMS_STORE_CORRUPT, "a change record is out of limits (%s)", problem);
    *ret_change = change;
    change = (struct kms_change){0};
    return KMS_OK;
}

void kms_change_clear(struct kms_change *change)
{
    if (change->kind == KMS_CHANGE_CUSTOMER)
        free(change->customer.labels);
    else if (change->kind == KMS_CHANGE_RESERVE)
        free(change->reserve.list);
    else if (change->kind == KMS_CHANGE_PAGE)
        free(change->page.body);
    else if (change->kind == KMS_CHANGE_OPERATION || change->kind == KMS_CHANGE_OPERATION_STATE)
        kms_operation_record_clear(&change->operation);
    else if (change->kind == KMS_CHANGE_APPROVAL)
        kms_approval_record_clear(&change->approval);
    else if (change->kind == KMS_CHANGE_CERTIFICATE)
        free(change->certificate.document);
    else if (change->kind == KMS_CHANGE_BATCH)
        kms_batch_record_clear(&change->batch);
    else if (change->kind == KMS_CHANGE_POLICY)
        kms_policy_record_clear(&change->policy);
    *change = (struct kms_change){0};
}
