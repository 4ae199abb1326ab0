#include "keys/build.h"
#include "keys/create.h"

#include <stdlib.h>

enum { ATTEMPTS = 3 }; /* when somebody else changes the same things meanwhile */

/* A customer of the request, found by its id (twice in one request?) and by its UUID (whose KEKs?). */
struct new_customer {
    UT_hash_handle by_id, by_uuid;
    const struct kms_customer_record *record;
    enum kms_status status;
};

/* A wanted KEK that will be made. */
struct new_kek {
    UT_hash_handle hh;
    struct {
        struct kms_uuid customer;
        char purpose[KMS_PURPOSE_ID_MAX + 1]; /* zero-padded */
    } key;
    struct kms_kek_wanted *wanted;
    struct kms_kek_record record;
};

/* What is known of a purpose that was named. */
struct named_purpose {
    UT_hash_handle hh;
    char id[KMS_PURPOSE_ID_MAX + 1];
    enum kms_status status;
};

struct bulk {
    const struct kms_uuid *tenant_uuid;
    const struct kms_customer_record *customers;
    size_t customer_count;
    enum kms_status *ret_customer_status;
    struct kms_kek_wanted *keks;
    size_t kek_count;

    struct kms_tenant_record tenant;
    struct new_customer *new_customers; /* one for each of the request */
    struct new_customer *by_id, *by_uuid;
    struct new_kek *new_keks; /* room for each of the request */
    size_t new_kek_count;
    struct new_kek *kek_set;
    struct named_purpose *purposes;
};

static void bulk_clear(struct bulk *bulk)
{
    HASH_CLEAR(by_id, bulk->by_id);
    HASH_CLEAR(by_uuid, bulk->by_uuid);
    HASH_CLEAR(hh, bulk->kek_set);
    struct named_purpose *purpose = NULL;
    struct named_purpose *next = NULL;
    HASH_ITER (hh, bulk->purposes, purpose, next) {
        HASH_DEL(bulk->purposes, purpose);
        free(purpose);
    }
    free(bulk->new_customers);
    free(bulk->new_keks);
}

/* The one failure of every allocation here. */
static enum kms_status no_memory(struct kms_error *err)
{
    return kms_fail(err, KMS_NO_MEMORY, "no memory to create customers in bulk");
}

/* Whether the id is free: neither earlier in the request nor in the store. */
static enum kms_status plan_id(struct kms_txn *txn, struct bulk *bulk, struct new_customer *customer,
                               enum kms_status *ret_status, struct kms_error *err)
{
    const char *id = customer->record->id;
    struct new_customer *earlier = NULL;
    HASH_FIND(by_id, bulk->by_id, id, strlen(id), earlier);
    if (earlier != NULL) {
        *ret_status = KMS_ALREADY_EXISTS;
        return KMS_OK;
    }
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record stored = {0};
    const enum kms_status status =
        txn->store->ops->customer_by_id(txn->txn, bulk->tenant_uuid, id, &stored, err);
    if (status != KMS_OK && status != KMS_NOT_FOUND)
        return status;
    *ret_status = status == KMS_OK ? KMS_ALREADY_EXISTS : KMS_OK;
    HASH_ADD_KEYPTR(by_id, bulk->by_id, id, strlen(id), customer);
    return customer->by_id.tbl == NULL ? no_memory(err) : KMS_OK;
}

/* Decide whether a customer will be inserted; its KEKs find it by its UUID in either case. */
static enum kms_status plan_customer(struct kms_txn *txn, struct bulk *bulk, struct new_customer *customer,
                                     struct kms_error *err)
{
    const struct kms_uuid *uuid = &customer->record->uuid;
    struct new_customer *earlier = NULL;
    HASH_FIND(by_uuid, bulk->by_uuid, uuid->bytes, KMS_UUID_SIZE, earlier);
    if (earlier != NULL) {
        customer->status = KMS_ALREADY_EXISTS;
        return KMS_OK;
    }
    KMS_TRY(plan_id(txn, bulk, customer, &customer->status, err));
    HASH_ADD_KEYPTR(by_uuid, bulk->by_uuid, uuid->bytes, KMS_UUID_SIZE, customer);
    return customer->by_uuid.tbl == NULL ? no_memory(err) : KMS_OK;
}

/* NOT_FOUND, FAILED_PRECONDITION or OK for a purpose by name, asked once. */
static enum kms_status plan_purpose(struct kms_txn *txn, struct bulk *bulk, const char *id,
                                    enum kms_status *ret_status, struct kms_error *err)
{
    struct named_purpose *purpose = NULL;
    const size_t len = strlen(id);
    if (len > KMS_PURPOSE_ID_MAX) {
        *ret_status = KMS_NOT_FOUND;
        return KMS_OK;
    }
    HASH_FIND(hh, bulk->purposes, id, len, purpose);
    if (purpose == NULL) {
        struct kms_purpose_record record;
        enum kms_status status = txn->store->ops->purpose_get(txn->txn, bulk->tenant_uuid, id, &record, err);
        if (status != KMS_OK && status != KMS_NOT_FOUND)
            return status;
        if (status == KMS_OK && record.state != KMS_PURPOSE_ACTIVE)
            status = KMS_FAILED_PRECONDITION;
        purpose = calloc(1, sizeof *purpose);
        if (purpose == NULL)
            return no_memory(err);
        memcpy(purpose->id, id, len);
        purpose->status = status;
        HASH_ADD_KEYPTR(hh, bulk->purposes, purpose->id, len, purpose);
        if (purpose->hh.tbl == NULL) {
            free(purpose);
            return no_memory(err);
        }
    }
    *ret_status = purpose->status;
    return KMS_OK;
}

/* A purpose that was shredded before it was used never gets a key. */
static enum kms_status plan_unused_purpose(struct kms_txn *txn, const struct kms_kek_wanted *wanted,
                                           enum kms_status *ret_status, struct kms_error *err)
{
    struct kms_tombstone_record tombstone;
    const enum kms_status status =
        txn->store->ops->rekey.tombstone_for(txn->txn, &wanted->customer, wanted->purpose, &tombstone, err);
    if (status != KMS_OK && status != KMS_NOT_FOUND)
        return status;
    *ret_status = status == KMS_OK ? KMS_FAILED_PRECONDITION : KMS_OK;
    return KMS_OK;
}

/* Whether a customer that was there before can get a first KEK for that purpose. */
static enum kms_status plan_old_customer(struct kms_txn *txn, struct bulk *bulk,
                                         const struct kms_kek_wanted *wanted, enum kms_status *ret_status,
                                         struct kms_error *err)
{
    const struct kms_store_ops *store = txn->store->ops;
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record stored = {0};
    enum kms_status status = store->customer_by_uuid(txn->txn, &wanted->customer, &stored, err);
    if (status == KMS_OK && !kms_uuid_equal(&stored.tenant, bulk->tenant_uuid))
        status = KMS_NOT_FOUND;
    if (status == KMS_OK && stored.state != KMS_CUSTOMER_ACTIVE)
        status = KMS_FAILED_PRECONDITION;
    if (status == KMS_OK) {
        KMS_FREE struct kms_kek_record *any = NULL;
        size_t count = 0;
        KMS_TRY(store->kek_list(txn->txn, &wanted->customer, wanted->purpose, 0, 1, &any, &count, err));
        if (count > 0)
            status = KMS_ALREADY_EXISTS;
        else
            KMS_TRY(plan_unused_purpose(txn, wanted, &status, err));
    } else if (status != KMS_NOT_FOUND && status != KMS_FAILED_PRECONDITION) {
        return status;
    }
    *ret_status = status;
    return KMS_OK;
}

/* Decide one wanted KEK's status; when OK it is put into the list of those to make. */
static enum kms_status plan_kek(struct kms_keys *keys, struct kms_txn *txn, struct bulk *bulk,
                                struct kms_kek_wanted *wanted, struct kms_error *err)
{
    struct new_customer *customer = NULL;
    HASH_FIND(by_uuid, bulk->by_uuid, wanted->customer.bytes, KMS_UUID_SIZE, customer);
    KMS_TRY(plan_purpose(txn, bulk, wanted->purpose, &wanted->ret_status, err));
    if (customer != NULL && customer->status != KMS_OK)
        wanted->ret_status = customer->status;
    if (wanted->ret_status == KMS_OK && customer == NULL)
        KMS_TRY(plan_old_customer(txn, bulk, wanted, &wanted->ret_status, err));
    if (wanted->ret_status != KMS_OK)
        return KMS_OK;
    struct new_kek *made = &bulk->new_keks[bulk->new_kek_count];
    made->key.customer = wanted->customer;
    memcpy(made->key.purpose, wanted->purpose, strlen(wanted->purpose));
    struct new_kek *earlier = NULL;
    HASH_FIND(hh, bulk->kek_set, &made->key, sizeof made->key, earlier);
    if (earlier != NULL) {
        memset(&made->key, 0, sizeof made->key);
        wanted->ret_status = KMS_ALREADY_EXISTS;
        return KMS_OK;
    }
    HASH_ADD(hh, bulk->kek_set, key, sizeof made->key, made);
    if (made->hh.tbl == NULL)
        return no_memory(err);
    made->wanted = wanted;
    kms_create_describe(keys, &wanted->customer, wanted->purpose, &made->record);
    bulk->new_kek_count++;
    return KMS_OK;
}

/* Read all that the request depends on, in one snapshot. */
static enum kms_status plan(struct kms_keys *keys, struct bulk *bulk, struct kms_error *err)
{
    bulk->new_customers = calloc(bulk->customer_count + 1, sizeof *bulk->new_customers);
    bulk->new_keks = calloc(bulk->kek_count + 1, sizeof *bulk->new_keks);
    if (bulk->new_customers == NULL || bulk->new_keks == NULL)
        return no_memory(err);
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(keys->store, false, &txn, err));
    KMS_TRY(txn.store->ops->tenant_by_uuid(txn.txn, bulk->tenant_uuid, &bulk->tenant, err));
    if (bulk->tenant.state != KMS_TENANT_ACTIVE)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION, "tenant '%s' is closed", bulk->tenant.id);
    for (size_t i = 0; i < bulk->customer_count; i++) {
        bulk->new_customers[i].record = &bulk->customers[i];
        KMS_TRY(plan_customer(&txn, bulk, &bulk->new_customers[i], err));
        bulk->ret_customer_status[i] = bulk->new_customers[i].status;
    }
    for (size_t i = 0; i < bulk->kek_count; i++)
        KMS_TRY(plan_kek(keys, &txn, bulk, &bulk->keks[i], err));
    return KMS_OK;
}

/* Write customers, pages, tree and KEKs in one durable transaction. */
static enum kms_status store_all(struct kms_keys *keys, struct bulk *bulk, struct kms_build *build,
                                 struct kms_error *err)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(keys->store, true, &txn, err));
    const struct kms_store_ops *store = txn.store->ops;
    enum kms_status status = KMS_OK;
    for (size_t i = 0; i < bulk->customer_count && status == KMS_OK; i++) {
        if (bulk->new_customers[i].status == KMS_OK)
            status = store->customer_insert(txn.txn, &bulk->customers[i], err);
    }
    if (status == KMS_OK && build != NULL)
        status = kms_build_write(build, txn.txn, err);
    for (size_t i = 0; i < bulk->new_kek_count && status == KMS_OK; i++)
        status = store->kek_insert(txn.txn, &bulk->new_keks[i].record, err);
    if (status == KMS_ALREADY_EXISTS)
        return kms_fail(err, KMS_ABORTED,
                        "customers or KEKs of the request were created by others meanwhile");
    KMS_TRY(status);
    return kms_txn_commit(&txn, err);
}

/* Keep the first blocks of wraps for the first uses, and tell the ids. */
static void hand_over(struct kms_keys *keys, struct bulk *bulk)
{
    atomic_fetch_add_explicit(&keys->keks_created, bulk->new_kek_count, memory_order_relaxed);
    KMS_LOCKED(&keys->lock);
    for (size_t i = 0; i < bulk->new_kek_count; i++) {
        struct new_kek *made = &bulk->new_keks[i];
        memcpy(made->wanted->ret_kek_id, made->record.kek_id, KMS_KEK_ID_SIZE);
        kms_wraps_keep_id_locked(keys, made->record.kek_id, made->record.wraps_reserved);
    }
}

/* The HSM's part, then the database's. */
static enum kms_status make_all(struct kms_keys_work *work, struct bulk *bulk, struct kms_error *err)
{
    KMS_CLEANUP(kms_cleanup_build) struct kms_build *build = NULL;
    if (bulk->new_kek_count > 0) {
        KMS_TRY(kms_build_new(work, &bulk->tenant, bulk->new_kek_count, &build, err));
        for (size_t i = 0; i < bulk->new_kek_count; i++)
            KMS_TRY(kms_build_add(build, &bulk->new_keks[i].record, err));
        KMS_TRY(kms_build_finish(build, err));
    }
    KMS_TRY(store_all(work->keys, bulk, build, err));
    hand_over(work->keys, bulk);
    return KMS_OK;
}

/* One whole try, from reading to the commit. */
static enum kms_status attempt(struct kms_keys_work *work, void *arguments, struct kms_error *err)
{
    KMS_CLEANUP(bulk_clear) struct bulk bulk = *(const struct bulk *)arguments;
    KMS_CLEANUP(kms_work_unlock_writer) struct kms_mutex *writer = NULL;
    KMS_TRY(kms_work_lock_writer(work, bulk.tenant_uuid, &writer, err));
    kms_keys_begin_reading(work);
    KMS_TRY(plan(work->keys, &bulk, err));
    return make_all(work, &bulk, err);
}

enum kms_status kms_keys_create_bulk(struct kms_keys *keys, const struct kms_uuid *tenant,
                                     const struct kms_customer_record *customers, size_t customer_count,
                                     enum kms_status *ret_customer_status, struct kms_kek_wanted *keks,
                                     size_t kek_count, struct kms_error *err)
{
    if (customer_count > KMS_KEYS_BULK_CUSTOMERS || kek_count > KMS_KEYS_BULK_KEKS)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "at most %d customers with %d keys can be made at once",
                               KMS_KEYS_BULK_CUSTOMERS, KMS_KEYS_BULK_KEKS);
    struct bulk request = {.tenant_uuid = tenant,
                           .customers = customers,
                           .customer_count = customer_count,
                           .ret_customer_status = ret_customer_status,
                           .keks = keks,
                           .kek_count = kek_count};
    struct kms_keys_work *work = NULL;
    KMS_TRY(kms_keys_control_begin(keys, &work, err));
    enum kms_status status = KMS_ABORTED;
    for (int i = 0; i < ATTEMPTS && status == KMS_ABORTED; i++)
        status = kms_work_run(work, attempt, &request, err);
    kms_keys_work_end(work);
    return status;
}
