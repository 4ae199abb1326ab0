/*
 * Purpose:   records of the store to messages of the API, and back.
 * Owns:      nothing; messages lie in the call's arena.
 * Threads:   pure functions.
 * Never:     fails for another reason than a full arena or a damaged record.
 */
#ifndef KMS_OPS_CONVERT_H
#define KMS_OPS_CONVERT_H

#include "core/call.h"
#include "store/store.h"

#include "kms/v1/directory.pb-c.h"

/* NULL when the arena is full. */
Kms__V1__Tenant *ops_tenant_message(struct kms_arena *arena, const struct kms_tenant_record *tenant);
Kms__V1__Purpose *ops_purpose_message(struct kms_arena *arena, const char *tenant_id,
                                      const struct kms_purpose_record *purpose);
Kms__V1__KekVersion *ops_kek_message(struct kms_arena *arena, const struct kms_kek_record *kek, bool primary);
/** STORE_CORRUPT when the record's labels are not what the service writes. */
enum kms_status ops_customer_message(struct kms_call *call, const char *tenant_id,
                                     const struct kms_customer_record *customer,
                                     Kms__V1__Customer **ret_message) KMS_MUST_USE;

/**
 * Labels of a message, checked, as the store's canonical JSON on the heap (the caller frees it).
 * INVALID_ARGUMENT names the label that is wrong.
 */
enum kms_status ops_labels_json(struct kms_call *call, const Kms__V1__Customer *customer,
                                char **ret_json) KMS_MUST_USE;

#endif
