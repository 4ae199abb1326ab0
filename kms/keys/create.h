/*
 * Purpose:   make KEKs where there were none: version 1 on first use.
 * Owns:      nothing.
 * Threads:   takes the tenant's writer lock.
 * Never:     makes a second version 1.
 */
#ifndef KMS_KEYS_CREATE_H
#define KMS_KEYS_CREATE_H

#include "keys/keys_internal.h"

/** FAILED_PRECONDITION with a public text when the tenant, the purpose or the customer is closed. */
enum kms_status kms_create_check_open(const struct kms_tenant_record *tenant,
                                      const struct kms_purpose_record *purpose,
                                      enum kms_customer_state customer, struct kms_error *err) KMS_MUST_USE;
/** Version 1 with a new id for (customer, purpose), its first block of wraps reserved; not in the tree yet. */
void kms_create_describe(const struct kms_keys *keys, const struct kms_uuid *customer, const char *purpose,
                         struct kms_kek_record *ret_kek);
/**
 * Make version 1 for (customer, purpose) in a durable transaction, unless somebody else has made one meanwhile
 * (OK too). The work's session is used.
 */
enum kms_status kms_create_first_kek(struct kms_keys_work *work, const struct kms_uuid *tenant,
                                     const struct kms_uuid *customer, const char *purpose,
                                     struct kms_error *err) KMS_MUST_USE;

#endif
