/*
 * Purpose:   a kms_store in front of a real one, for unit tests: fails on command, and shows what a changed
 *            database would show.
 * Owns:      the store behind it.
 * Threads:   as store/store.h says; failures are ordered at any time, everything else while no other thread works.
 * Never:     is linked into the service.
 */
#ifndef KMS_TESTS_FAULT_STORE_H
#define KMS_TESTS_FAULT_STORE_H

#include "hsm/hsm.h"
#include "store/store.h"

/** Takes `inner` over; kms_store_free() frees both. */
struct kms_store *kms_fault_store_new(struct kms_store *inner);
/** The n-th call from now (1: the next one) fails once with that status and does nothing; 0 cancels. */
void kms_fault_store_fail_after(struct kms_store *store, unsigned n, enum kms_status status);
/** True when the failure that was ordered has not happened yet. */
bool kms_fault_store_failure_is_pending(const struct kms_store *store);
/**
 * The store is of the same process as the fake HSM: while that is dead every call fails, and nothing is written. The process dies
 * in the n-th call from now, where a commit counts twice: before and after it is durable (0: by itself it does not).
 */
void kms_fault_store_die_with(struct kms_store *store, struct kms_hsm *fake, unsigned n);
/** Called after each successful read of such a record; NULL: none. */
void kms_fault_store_edit_keks(struct kms_store *store,
                               void (*edit)(struct kms_kek_record *kek, void *context), void *context);
/** Called before each read transaction begins; NULL: none. */
void kms_fault_store_before_read(struct kms_store *store, void (*hook)(void *context), void *context);

#endif
