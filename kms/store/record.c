#include "store/record.h"

#include <stdlib.h>

bool kms_record_text_fits(const char *text, size_t size, size_t min)
{
    const size_t len = strnlen(text, size);
    return len < size && len >= min && kms_utf8_printable(text, len);
}

/* Database engines keep signed 64-bit integers. */
static bool number_fits(uint64_t number)
{
    return number <= INT64_MAX;
}

const char *kms_record_tenant_problem(const struct kms_tenant_record *tenant)
{
    if (!kms_record_text_fits(tenant->id, sizeof tenant->id, 1))
        return "tenant id: 1..63 bytes of printable UTF-8";
    if (!kms_record_text_fits(tenant->display_name, sizeof tenant->display_name, 0))
        return "tenant display name: at most 256 bytes of printable UTF-8";
    if (tenant->state != KMS_TENANT_ACTIVE && tenant->state != KMS_TENANT_CLOSED)
        return "tenant state: unknown";
    if (tenant->height > KMS_STORE_TREE_LEVELS_MAX)
        return "tenant height: at most 16 levels";
    if (!number_fits(tenant->epoch) || !number_fits(tenant->next_slot) || !number_fits(tenant->revision))
        return "tenant epoch, next slot, revision: at most 2^63-1";
    return NULL;
}

const char *kms_record_purpose_problem(const struct kms_purpose_record *purpose)
{
    if (!kms_record_text_fits(purpose->id, sizeof purpose->id, 1))
        return "purpose id: 1..63 bytes of printable UTF-8";
    if (!kms_record_text_fits(purpose->display_name, sizeof purpose->display_name, 0) ||
        !kms_record_text_fits(purpose->legal_basis, sizeof purpose->legal_basis, 0))
        return "purpose display name, legal basis: at most 256 bytes of printable UTF-8";
    if (purpose->state != KMS_PURPOSE_ACTIVE && purpose->state != KMS_PURPOSE_CLOSED)
        return "purpose state: unknown";
    if (purpose->retention_seconds < 0 || purpose->rotation_seconds < 0)
        return "purpose retention, rotation: not negative";
    if (!number_fits(purpose->revision))
        return "purpose revision: at most 2^63-1";
    return NULL;
}

/* The outer form of canonical labels; what is inside is checked by the database's own JSON parser. */
static bool labels_fit(const char *labels)
{
    if (labels == NULL)
        return false;
    const size_t len = strnlen(labels, (size_t)KMS_STORE_LABELS_TEXT_MAX + 1);
    return len >= 2 && len <= KMS_STORE_LABELS_TEXT_MAX && labels[0] == '{' && labels[len - 1] == '}' &&
           kms_utf8_valid(labels, len);
}

/* What whole and short records of a customer have in common. */
static const char *customer_problem(const char id[KMS_CUSTOMER_ID_MAX + 1], enum kms_customer_state state)
{
    if (!kms_record_text_fits(id, KMS_CUSTOMER_ID_MAX + 1, 1))
        return "customer id: 1..256 bytes of printable UTF-8";
    if (state < KMS_CUSTOMER_ACTIVE || state > KMS_CUSTOMER_RESTRICTED)
        return "customer state: unknown";
    return NULL;
}

const char *kms_record_kek_customer_problem(const struct kms_kek_customer *customer)
{
    return customer_problem(customer->id, customer->state);
}

const char *kms_record_customer_problem(const struct kms_customer_record *customer)
{
    const char *problem = customer_problem(customer->id, customer->state);
    if (problem != NULL)
        return problem;
    if (!labels_fit(customer->labels))
        return "customer labels: a JSON object of at most 64 KiB";
    if (!number_fits(customer->revision))
        return "customer revision: at most 2^63-1";
    return NULL;
}

bool kms_record_kek_state_known(enum kms_kek_state state)
{
    return state == KMS_KEK_ENABLED || state == KMS_KEK_DISABLED || state == KMS_KEK_SHREDDED;
}

const char *kms_record_kek_problem(const struct kms_kek_record *kek)
{
    if (!kms_record_text_fits(kek->purpose, sizeof kek->purpose, 1))
        return "KEK purpose: 1..63 bytes of printable UTF-8";
    if (kek->version == 0)
        return "KEK version: at least 1";
    if (!kms_record_kek_state_known(kek->state))
        return "KEK state: unknown";
    if (!number_fits(kek->slot) || kek->wraps_reserved > KMS_STORE_WRAPS_MAX)
        return "KEK slot: at most 2^63-1; wraps reserved: at most 2^62";
    if (kek->rewrapped > KMS_STORE_WRAPS_MAX)
        return "KEK rewraps: at most 2^62";
    return NULL;
}

const char *kms_record_page_problem(const struct kms_page_record *page)
{
    if (page->level >= KMS_STORE_TREE_LEVELS_MAX)
        return "page level: below 16";
    if (page->index >= KMS_RECORD_PAGE_INDEX_END)
        return "page index: below 2^39";
    if (page->body == NULL || page->body_len == 0 || page->body_len > KMS_STORE_PAGE_BODY_MAX)
        return "page body: 1..65,536 bytes";
    return NULL;
}

const char *kms_record_request_problem(const struct kms_request_record *request)
{
    if (!kms_record_text_fits(request->request_id, sizeof request->request_id, 1))
        return "request id: 1..36 bytes of printable UTF-8";
    if (!kms_record_text_fits(request->identity, sizeof request->identity, 1))
        return "request identity: 1..256 bytes of printable UTF-8";
    return NULL;
}

void kms_customer_record_clear(struct kms_customer_record *customer)
{
    free(customer->labels);
    *customer = (struct kms_customer_record){0};
}

void kms_page_record_clear(struct kms_page_record *page)
{
    free(page->body);
    *page = (struct kms_page_record){0};
}

enum kms_status kms_txn_begin(struct kms_store *store, bool write, struct kms_txn *ret_txn,
                              struct kms_error *err)
{
    struct kms_store_txn *txn = NULL;
    KMS_TRY(store->ops->begin(store, write, &txn, err));
    *ret_txn = (struct kms_txn){store, txn};
    return KMS_OK;
}

enum kms_status kms_txn_commit(struct kms_txn *txn, struct kms_error *err)
{
    KMS_ASSERT(txn->txn != NULL);
    struct kms_store_txn *ended = txn->txn;
    txn->txn = NULL;
    return txn->store->ops->commit(ended, err);
}

void kms_txn_clear(struct kms_txn *txn)
{
    if (txn->txn == NULL)
        return;
    txn->store->ops->rollback(txn->txn);
    txn->txn = NULL;
}
