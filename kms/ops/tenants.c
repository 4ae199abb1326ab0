#include "ops/tenants.h"

#include "core/cleanup.h"

enum { TENANTS_AT_ONCE = 256 };

/* The portion behind `after`. */
static enum kms_status read_portion(struct kms_store *store, const char *after,
                                    struct kms_tenant_record **ret_list, size_t *ret_count,
                                    struct kms_error *err)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(store, false, &txn, err));
    return store->ops->tenant_list(txn.txn, after[0] == '\0' ? NULL : after, TENANTS_AT_ONCE, ret_list,
                                   ret_count, err);
}

enum kms_status ops_each_tenant(struct kms_store *store, ops_tenant_visit visit, void *context,
                                struct kms_error *err)
{
    char after[KMS_TENANT_ID_MAX + 1] = "";
    size_t count = TENANTS_AT_ONCE;
    while (count == TENANTS_AT_ONCE) {
        KMS_FREE struct kms_tenant_record *list = NULL;
        KMS_TRY(read_portion(store, after, &list, &count, err));
        for (size_t i = 0; i < count; i++)
            KMS_TRY(visit(context, &list[i], err));
        if (count > 0)
            memcpy(after, list[count - 1].id, sizeof after);
    }
    return KMS_OK;
}
