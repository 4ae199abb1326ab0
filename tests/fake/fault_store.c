#include "fake/fault_state.h"

#include "fake/fake_hsm.h"

#include <stdlib.h>

static struct fault_store *fault_of(struct kms_store *store)
{
    return (struct fault_store *)store;
}

/* Whether the process died before this call, or does in it. */
static bool is_dead(struct fault_store *store)
{
    if (store->dies_with == NULL)
        return false;
    if (atomic_load(&store->die_in) > 0 && atomic_fetch_sub(&store->die_in, 1) == 1)
        kms_fake_hsm_die(store->dies_with);
    return kms_fake_hsm_is_dead(store->dies_with);
}

bool kms_fault_store_breaks(struct fault_store *store)
{
    if (is_dead(store)) {
        store->fail_with = KMS_STORE_UNAVAILABLE;
        return true;
    }
    unsigned left = atomic_load(&store->fail_in);
    while (left > 0 && !atomic_compare_exchange_weak(&store->fail_in, &left, left - 1))
        ;
    return left == 1;
}

static void fault_free(struct kms_store *store)
{
    kms_store_free(fault_of(store)->inner);
    free(store);
}

static enum kms_status fault_begin(struct kms_store *store, bool write, struct kms_store_txn **ret_txn,
                                   struct kms_error *err)
{
    struct fault_store *fault = fault_of(store);
    if (!write && fault->before_read != NULL)
        fault->before_read(fault->before_read_context);
    FAULT_CHECK(fault, err);
    struct kms_store_txn *inner = NULL;
    KMS_TRY(fault->inner->ops->begin(fault->inner, write, &inner, err));
    struct kms_store_txn *txn = calloc(1, sizeof *txn);
    KMS_ASSERT(txn != NULL);
    txn->store = fault;
    txn->inner = inner;
    *ret_txn = txn;
    return KMS_OK;
}

static void fault_rollback(struct kms_store_txn *txn)
{
    if (txn == NULL)
        return;
    txn->store->inner->ops->rollback(txn->inner);
    free(txn);
}

static enum kms_status fault_commit(struct kms_store_txn *txn, struct kms_error *err)
{
    struct fault_store *fault = txn->store;
    if (kms_fault_store_breaks(fault)) {
        fault_rollback(txn);
        return kms_fail(err, fault->fail_with, "ordered failure of the store");
    }
    enum kms_status status = fault->inner->ops->commit(txn->inner, err);
    free(txn);
    if (is_dead(fault)) /* committed, but nobody learns of it */
        status = kms_fail(err, KMS_STORE_UNAVAILABLE, "the process died in a commit");
    return status;
}

FAULT_PASS(tenant_insert,
           (struct kms_store_txn * txn, const struct kms_tenant_record *tenant, struct kms_error *err),
           (txn->inner, tenant, err))
FAULT_PASS(tenant_update,
           (struct kms_store_txn * txn, const struct kms_tenant_record *tenant, struct kms_error *err),
           (txn->inner, tenant, err))
FAULT_PASS(tenant_by_id,
           (struct kms_store_txn * txn, const char *id, struct kms_tenant_record *ret, struct kms_error *err),
           (txn->inner, id, ret, err))
FAULT_PASS(tenant_by_uuid,
           (struct kms_store_txn * txn, const struct kms_uuid *uuid, struct kms_tenant_record *ret,
            struct kms_error *err),
           (txn->inner, uuid, ret, err))
FAULT_PASS(tenant_list,
           (struct kms_store_txn * txn, const char *after, size_t limit, struct kms_tenant_record **ret_list,
            size_t *ret_count, struct kms_error *err),
           (txn->inner, after, limit, ret_list, ret_count, err))
FAULT_PASS(purpose_insert,
           (struct kms_store_txn * txn, const struct kms_purpose_record *purpose, struct kms_error *err),
           (txn->inner, purpose, err))
FAULT_PASS(purpose_update,
           (struct kms_store_txn * txn, const struct kms_purpose_record *purpose, struct kms_error *err),
           (txn->inner, purpose, err))
FAULT_PASS(purpose_get,
           (struct kms_store_txn * txn, const struct kms_uuid *tenant, const char *id,
            struct kms_purpose_record *ret, struct kms_error *err),
           (txn->inner, tenant, id, ret, err))
FAULT_PASS(purpose_list,
           (struct kms_store_txn * txn, const struct kms_uuid *tenant, const char *after, size_t limit,
            struct kms_purpose_record **ret_list, size_t *ret_count, struct kms_error *err),
           (txn->inner, tenant, after, limit, ret_list, ret_count, err))
FAULT_PASS(customer_insert,
           (struct kms_store_txn * txn, const struct kms_customer_record *customer, struct kms_error *err),
           (txn->inner, customer, err))
FAULT_PASS(customer_update,
           (struct kms_store_txn * txn, const struct kms_customer_record *customer, struct kms_error *err),
           (txn->inner, customer, err))
FAULT_PASS(customer_by_id,
           (struct kms_store_txn * txn, const struct kms_uuid *tenant, const char *id,
            struct kms_customer_record *ret, struct kms_error *err),
           (txn->inner, tenant, id, ret, err))
FAULT_PASS(customer_by_uuid,
           (struct kms_store_txn * txn, const struct kms_uuid *uuid, struct kms_customer_record *ret,
            struct kms_error *err),
           (txn->inner, uuid, ret, err))
FAULT_PASS(customer_list,
           (struct kms_store_txn * txn, const struct kms_uuid *tenant,
            const struct kms_customer_filter *filter, const char *after, size_t limit,
            kms_customer_visit visit, void *context, struct kms_error *err),
           (txn->inner, tenant, filter, after, limit, visit, context, err))
FAULT_PASS(kek_insert, (struct kms_store_txn * txn, const struct kms_kek_record *kek, struct kms_error *err),
           (txn->inner, kek, err))
FAULT_PASS(kek_set_state,
           (struct kms_store_txn * txn, const uint8_t kek_id[KMS_KEK_ID_SIZE], enum kms_kek_state state,
            struct kms_error *err),
           (txn->inner, kek_id, state, err))
FAULT_PASS(kek_reserve,
           (struct kms_store_txn * txn, const uint8_t kek_id[KMS_KEK_ID_SIZE], uint64_t count,
            uint64_t *ret_first, struct kms_error *err),
           (txn->inner, kek_id, count, ret_first, err))
FAULT_PASS(kek_list,
           (struct kms_store_txn * txn, const struct kms_uuid *customer, const char *purpose, uint32_t after,
            size_t limit, struct kms_kek_record **ret_list, size_t *ret_count, struct kms_error *err),
           (txn->inner, customer, purpose, after, limit, ret_list, ret_count, err))
FAULT_PASS(page_get,
           (struct kms_store_txn * txn, const struct kms_uuid *tenant, uint32_t level, uint64_t index,
            struct kms_page_record *ret, struct kms_error *err),
           (txn->inner, tenant, level, index, ret, err))
FAULT_PASS(page_put, (struct kms_store_txn * txn, const struct kms_page_record *page, struct kms_error *err),
           (txn->inner, page, err))
FAULT_PASS(request_get,
           (struct kms_store_txn * txn, const char *request_id, const char *identity,
            struct kms_request_record *ret, struct kms_error *err),
           (txn->inner, request_id, identity, ret, err))
FAULT_PASS(request_put,
           (struct kms_store_txn * txn, const struct kms_request_record *request, struct kms_error *err),
           (txn->inner, request, err))

static enum kms_status fault_kek_by_id(struct kms_store_txn *txn, const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                       struct kms_kek_record *ret_kek, struct kms_error *err)
{
    FAULT_CHECK(txn->store, err);
    KMS_TRY(txn->store->inner->ops->kek_by_id(txn->inner, kek_id, ret_kek, err));
    if (txn->store->edit != NULL)
        txn->store->edit(ret_kek, txn->store->edit_context);
    return KMS_OK;
}

static enum kms_status fault_kek_with_customer(struct kms_store_txn *txn,
                                               const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                               struct kms_kek_record *ret_kek,
                                               struct kms_kek_customer *ret_customer, struct kms_error *err)
{
    FAULT_CHECK(txn->store, err);
    KMS_TRY(txn->store->inner->ops->kek_with_customer(txn->inner, kek_id, ret_kek, ret_customer, err));
    if (txn->store->edit != NULL)
        txn->store->edit(ret_kek, txn->store->edit_context);
    return KMS_OK;
}

static enum kms_status fault_kek_primary(struct kms_store_txn *txn, const struct kms_uuid *customer,
                                         const char *purpose, struct kms_kek_record *ret_kek,
                                         struct kms_error *err)
{
    FAULT_CHECK(txn->store, err);
    KMS_TRY(txn->store->inner->ops->kek_primary(txn->inner, customer, purpose, ret_kek, err));
    if (txn->store->edit != NULL)
        txn->store->edit(ret_kek, txn->store->edit_context);
    return KMS_OK;
}

/* The change log has no failures of its own to inject: what matters is that its numbers are the inner store's. */
static uint64_t fault_changes_committed(struct kms_store *store)
{
    return fault_of(store)->inner->ops->changes.committed(fault_of(store)->inner);
}

static uint64_t fault_changes_take_mine(struct kms_store *store)
{
    return fault_of(store)->inner->ops->changes.take_mine(fault_of(store)->inner);
}

static enum kms_status fault_changes_prune(struct kms_store_txn *txn, uint64_t up_to, size_t limit,
                                           size_t *ret_removed, struct kms_error *err)
{
    FAULT_CHECK(txn->store, err);
    return txn->store->inner->ops->changes.prune(txn->inner, up_to, limit, ret_removed, err);
}

/* Seals are the inner store's. */
static void fault_seal_trust(struct kms_store_txn *txn)
{
    txn->store->inner->ops->seal.trust(txn->inner);
}

static enum kms_status fault_seal_begin(struct kms_store *store, const struct kms_store_sealer *sealer,
                                        bool anew, struct kms_error *err)
{
    struct kms_store *inner = fault_of(store)->inner;
    return inner->ops->seal.begin(inner, sealer, anew, err);
}

static uint64_t fault_seal_generation(struct kms_store *store)
{
    struct kms_store *inner = fault_of(store)->inner;
    return inner->ops->seal.generation(inner);
}

/* Without the topics, which kms_fault_store_set_topics() adds. */
static const struct kms_store_ops fault_ops = {
    .free = fault_free,
    .begin = fault_begin,
    .commit = fault_commit,
    .rollback = fault_rollback,
    .tenant_insert = fault_tenant_insert,
    .tenant_update = fault_tenant_update,
    .tenant_by_id = fault_tenant_by_id,
    .tenant_by_uuid = fault_tenant_by_uuid,
    .tenant_list = fault_tenant_list,
    .purpose_insert = fault_purpose_insert,
    .purpose_update = fault_purpose_update,
    .purpose_get = fault_purpose_get,
    .purpose_list = fault_purpose_list,
    .customer_insert = fault_customer_insert,
    .customer_update = fault_customer_update,
    .customer_by_id = fault_customer_by_id,
    .customer_by_uuid = fault_customer_by_uuid,
    .customer_list = fault_customer_list,
    .kek_insert = fault_kek_insert,
    .kek_set_state = fault_kek_set_state,
    .kek_reserve = fault_kek_reserve,
    .kek_by_id = fault_kek_by_id,
    .kek_with_customer = fault_kek_with_customer,
    .kek_primary = fault_kek_primary,
    .kek_list = fault_kek_list,
    .page_get = fault_page_get,
    .page_put = fault_page_put,
    .request_get = fault_request_get,
    .request_put = fault_request_put,
    .seal = {.begin = fault_seal_begin, .trust = fault_seal_trust, .generation = fault_seal_generation},
    .changes =
        {
            .committed = fault_changes_committed,
            .take_mine = fault_changes_take_mine,
            .prune = fault_changes_prune,
        },
};

struct kms_store *kms_fault_store_new(struct kms_store *inner)
{
    struct fault_store *fault = calloc(1, sizeof *fault);
    KMS_ASSERT(fault != NULL);
    fault->ops = fault_ops;
    kms_fault_store_set_topics(&fault->ops);
    fault->base.ops = &fault->ops;
    fault->inner = inner;
    return &fault->base;
}

void kms_fault_store_fail_after(struct kms_store *store, unsigned n, enum kms_status status)
{
    fault_of(store)->fail_with = status;
    atomic_store(&fault_of(store)->fail_in, n);
}

bool kms_fault_store_failure_is_pending(const struct kms_store *store)
{
    return atomic_load(&((const struct fault_store *)store)->fail_in) > 0;
}

void kms_fault_store_die_with(struct kms_store *store, struct kms_hsm *fake, unsigned n)
{
    fault_of(store)->dies_with = fake;
    atomic_store(&fault_of(store)->die_in, n);
}

void kms_fault_store_edit_keks(struct kms_store *store,
                               void (*edit)(struct kms_kek_record *kek, void *context), void *context)
{
    fault_of(store)->edit = edit;
    fault_of(store)->edit_context = context;
}

void kms_fault_store_before_read(struct kms_store *store, void (*hook)(void *context), void *context)
{
    fault_of(store)->before_read = hook;
    fault_of(store)->before_read_context = context;
}
