/* Whose keys the tree holds, read from the pages themselves: rows of the database can be removed, a slot cannot. */
#include "keys/rekey.h"

#include "keys/keys_internal.h"
#include "keys/tree.h"

enum { PAGES_AT_ONCE = 64 }; /* before the session is given back for a moment */

/* A walk over one tenant's tree. */
struct census {
    struct kms_keys_work *work;
    struct kms_tenant_record tenant;
    kms_census_visit visit;
    void *context;
    unsigned pages; /* since the session was taken */
};

/* The session goes back now and then: a recovery waits for it. */
static enum kms_status breathe(struct census *census, struct kms_error *err)
{
    if (++census->pages < PAGES_AT_ONCE)
        return KMS_OK;
    census->pages = 0;
    kms_work_pause(census->work);
    return kms_work_resume(census->work, err);
}

/* A page whose MAC is good, and everything below it. The depth is bounded by KMS_SHAPE_HEIGHT_MAX. */
static enum kms_status count_page(struct census *census, uint32_t level, uint64_t index,
                                  struct kms_error *err)
{
    struct kms_page page;
    KMS_TRY(breathe(census, err));
    KMS_TRY(kms_tree_read(census->work, &census->tenant, level, index, &page, err));
    for (unsigned i = 0; i < KMS_SHAPE_FAN_OUT; i++) {
        if (!page.slots[i].used)
            continue;
        if (level > 0)
            KMS_TRY(count_page(census, level - 1, index * KMS_SHAPE_FAN_OUT + i, err));
        else
            KMS_TRY(census->visit(census->context, &page.slots[i].customer));
    }
    return KMS_OK;
}

/* The tenant, whose record and with it the height of the tree is sealed. */
static enum kms_status read_tenant(struct census *census, const struct kms_uuid *uuid, struct kms_error *err)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(census->work->keys->store, false, &txn, err));
    return txn.store->ops->tenant_by_uuid(txn.txn, uuid, &census->tenant, err);
}

enum kms_status kms_keys_census(struct kms_keys *keys, const struct kms_uuid *tenant, kms_census_visit visit,
                                void *context, struct kms_error *err)
{
    KMS_CLEANUP(kms_cleanup_work) struct kms_keys_work *work = NULL;
    KMS_TRY(kms_keys_background_begin(keys, &work, err));
    struct census census = {.work = work, .visit = visit, .context = context};
    KMS_TRY(read_tenant(&census, tenant, err));
    return census.tenant.height == 0 ? KMS_OK : count_page(&census, census.tenant.height - 1, 0, err);
}
