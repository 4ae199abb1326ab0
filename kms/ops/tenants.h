/*
 * Purpose:   a walk over all tenants, for work that looks at each of them.
 * Owns:      nothing.
 * Threads:   any.
 * Never:     keeps a transaction open while somebody works, or more than a portion of them in memory.
 */
#ifndef KMS_OPS_TENANTS_H
#define KMS_OPS_TENANTS_H

#include "store/store.h"

/** Another status than OK ends the walk and is returned. */
typedef enum kms_status (*ops_tenant_visit)(void *context, const struct kms_tenant_record *tenant,
                                            struct kms_error *err);

/** Every tenant in the order of their ids, as it was a moment ago; one that is made meanwhile may be left out. */
enum kms_status ops_each_tenant(struct kms_store *store, ops_tenant_visit visit, void *context,
                                struct kms_error *err) KMS_MUST_USE;

#endif
