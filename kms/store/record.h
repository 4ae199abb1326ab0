/*
 * Purpose:   what every stored record must satisfy, wherever it comes from: a caller, a row, a change record.
 * Owns:      nothing.
 * Threads:   pure functions.
 * Never:     knows how records are stored.
 */
#ifndef KMS_STORE_RECORD_H
#define KMS_STORE_RECORD_H

#include "store/store.h"

enum {
    KMS_RECORD_PAGE_INDEX_BITS = 39,   /* a page index is below 2^39: room for 2^43 KEK slots */
    KMS_RECORD_TENANT_NO_MAX = 1048575 /* tenants of one database, 2^20 - 1 */
};
#define KMS_RECORD_PAGE_INDEX_END (UINT64_C(1) << KMS_RECORD_PAGE_INDEX_BITS)

/*
 * Each returns NULL when the record may be stored, else a constant text that names the member and its limit.
 * Texts are terminated within their arrays, printable UTF-8 and not longer than allowed; states are known;
 * unsigned numbers fit into 63 bits, which is what every database engine can keep.
 */
const char *kms_record_tenant_problem(const struct kms_tenant_record *tenant);
const char *kms_record_purpose_problem(const struct kms_purpose_record *purpose);
/** Labels are looked at no further than their length and outer braces. */
const char *kms_record_customer_problem(const struct kms_customer_record *customer);
const char *kms_record_kek_customer_problem(const struct kms_kek_customer *customer);
const char *kms_record_kek_problem(const struct kms_kek_record *kek);
const char *kms_record_page_problem(const struct kms_page_record *page);
const char *kms_record_request_problem(const struct kms_request_record *request);
/** As kms_batch_problem(), of the members from `state` on. */
const char *kms_batch_progress_problem(const struct kms_batch_record *batch);
/** True when a text in an array of `size` bytes is terminated there, printable, and has at least `min` bytes. */
bool kms_record_text_fits(const char *text, size_t size, size_t min);
bool kms_record_kek_state_known(enum kms_kek_state state);

#endif
