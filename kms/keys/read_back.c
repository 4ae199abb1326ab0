/*
 * Step 4 of a re-keying: before the old master key goes, every changed page is verified and its key opened once under the new
 * one, and with it everything in pages above level 0 and one KEK in each page at level 0. The others were each wrapped twice alike under
 * that same key (rewrap.c), and the page's MAC says that these bytes are what is stored.
 */
#include "keys/rewrap.h"
#include "keys/tree.h"

struct read_back {
    struct kms_keys_work *work;
    const struct kms_tenant_record *tenant;
    const struct kms_changed *changed; /* NULL: pages whose key is of the tenant's epoch */
};

static enum kms_status read_page(const struct read_back *back, uint32_t level, uint64_t index,
                                 struct kms_hsm_key key, struct kms_error *err);

/* Whether a child is one of those that must be read. */
static enum kms_status is_changed(const struct read_back *back, uint32_t level, uint64_t index,
                                  bool *ret_changed, struct kms_error *err)
{
    if (back->changed != NULL) {
        *ret_changed = kms_changed_has(back->changed, level, index);
        return KMS_OK;
    }
    struct kms_page page;
    KMS_TRY(kms_tree_read(back->work, back->tenant, level, index, &page, err));
    *ret_changed = page.key_epoch == back->tenant->epoch;
    return KMS_OK;
}

/* A key in a page opens, and if it is that of a changed page, everything below does. */
static enum kms_status read_key(const struct read_back *back, uint32_t level, uint64_t index,
                                struct kms_hsm_key parent, const uint8_t blob[KMS_WRAPPED_KEY_SIZE],
                                bool changed, enum kms_hsm_role role, struct kms_error *err)
{
    const struct kms_hsm_ops *hsm = back->work->keys->hsm->ops;
    struct kms_hsm_key key;
    const enum kms_status opened = hsm->unwrap(back->work->session, parent, blob, role, &key, err);
    if (opened == KMS_BLOB_REFUSED)
        return kms_tree_tampered(err, &back->tenant->uuid, level, index,
                                 "a key does not open after a re-keying; the old master key is kept");
    KMS_TRY(opened);
    const enum kms_status below = changed ? read_page(back, level, index, key, err) : KMS_OK;
    kms_keys_discard(back->work, key);
    return below;
}

static enum kms_status read_page(const struct read_back *back, uint32_t level, uint64_t index,
                                 struct kms_hsm_key key, struct kms_error *err)
{
    struct kms_page page;
    KMS_TRY(kms_tree_read(back->work, back->tenant, level, index, &page, err));
    for (unsigned i = 0; i < KMS_SHAPE_FAN_OUT; i++) {
        const uint64_t child = index * KMS_SHAPE_FAN_OUT + i;
        bool changed = false;
        if (!page.slots[i].used)
            continue;
        if (level == 0) {
            KMS_TRY(read_key(back, 0, index, key, page.slots[i].blob, false, KMS_HSM_KEK_SERVE, err));
            break;
        }
        KMS_TRY(is_changed(back, level - 1, child, &changed, err));
        KMS_TRY(read_key(back, level - 1, child, key, page.slots[i].blob, changed, KMS_HSM_PAGE_SERVE, err));
    }
    kms_work_pause(back->work); /* let others at the HSM, and its recovery, between two pages */
    return kms_work_resume(back->work, err);
}

enum kms_status kms_read_back(struct kms_keys_work *work, const struct kms_tenant_record *tenant,
                              const struct kms_changed *changed, struct kms_error *err)
{
    const struct read_back back = {work, tenant, changed};
    struct kms_hsm_key master;
    KMS_TRY(kms_tree_master(work, tenant, &master, err));
    if (tenant->height == 0)
        return KMS_OK;
    return read_key(&back, tenant->height - 1, 0, master, tenant->root_blob, true, KMS_HSM_PAGE_SERVE, err);
}
