/* What a re-keying does to customers and their KEKs. */
#include "store/changelog_rekey.h"
#include "store/query.h"
#include "store/record.h"
#include "store/sqlite_rekey.h"

#include <stdio.h>
#include <stdlib.h>

/* The slot of a KEK that dies can be used again; the record of its death says so to whoever applies the log. */
static enum kms_status free_slot(struct kms_store_txn *txn, int64_t tenant_no, uint64_t slot,
                                 struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_FREE_SLOT_PUT);
    kms_query_i64(&query, tenant_no);
    kms_query_u64(&query, slot);
    return kms_query_run(&query, "free slot", err);
}

/* Free the KEK's slot unless it was free before. */
static enum kms_status free_place(struct kms_store_txn *txn, const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                  struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_KEK_PLACE);
    kms_query_blob(&query, kek_id, KMS_KEK_ID_SIZE);
    const enum kms_status status = kms_query_row(&query, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_NOT_FOUND, "no such KEK");
    KMS_TRY(status);
    const int64_t tenant_no = kms_query_take_i64(&query);
    const uint64_t slot = kms_query_take_u64(&query);
    const unsigned state = kms_query_take_state(&query);
    KMS_TRY(kms_query_row_ok(&query, NULL, err));
    return state == KMS_KEK_SHREDDED ? KMS_OK : free_slot(txn, tenant_no, slot, err);
}

enum kms_status kms_sqlite_kek_shred(struct kms_store_txn *txn, const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                     struct kms_error *err)
{
    KMS_TRY(free_place(txn, kek_id, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_KEK_SET_STATE);
    kms_query_blob(&query, kek_id, KMS_KEK_ID_SIZE);
    kms_query_i64(&query, KMS_KEK_SHREDDED);
    KMS_TRY(kms_query_run(&query, "KEK state", err));
    return kms_sqlite_log(txn, KMS_CHANGE_KEK_SHREDDED,
                          kms_changelog_kek_shredded(kek_id, kms_sqlite_payload(txn)), err);
}

/* The slots of the customer's keys that still live. */
static enum kms_status free_slots_of(struct kms_store_txn *txn, int64_t customer_no, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_CUSTOMER_SLOTS);
    kms_query_i64(&query, customer_no);
    for (;;) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        const int64_t tenant_no = kms_query_take_i64(&query);
        const uint64_t slot = kms_query_take_u64(&query);
        KMS_TRY(kms_query_row_ok(&query, NULL, err));
        KMS_TRY(free_slot(txn, tenant_no, slot, err));
    }
}

/* The next change record of the customer behind `seq`; NOT_FOUND. */
static enum kms_status next_record(struct kms_store_txn *txn, const struct kms_uuid *uuid, int64_t *seq,
                                   struct kms_change *ret_change, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_CUSTOMER_LOG);
    kms_query_uuid(&query, uuid);
    kms_query_i64(&query, *seq);
    KMS_TRY(kms_query_row(&query, err));
    *seq = kms_query_take_i64(&query);
    const struct kms_slice payload = kms_query_take_slice(&query);
    KMS_TRY(kms_query_row_ok(&query, NULL, err));
    return kms_changelog_decode(payload, ret_change, err);
}

/* Put the record back under the name, without labels. */
static enum kms_status rename_record(struct kms_store_txn *txn, int64_t seq, struct kms_change *change,
                                     const char *name, struct kms_error *err)
{
    (void)snprintf(change->customer.id, sizeof change->customer.id, "%s", name);
    memcpy(change->customer.labels, "{}", sizeof "{}"); /* labels have at least two bytes */
    struct kms_buf *payload = kms_sqlite_payload(txn);
    const enum kms_status encoded = kms_changelog_customer(&change->customer, payload);
    if (encoded != KMS_OK)
        return kms_fail(err, encoded, "no memory to encode a change record");
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_LOG_REPLACE);
    kms_query_i64(&query, seq);
    kms_query_blob(&query, payload->data, payload->len);
    return kms_query_run(&query, "change record", err);
}

/*
 * The log must still lead to the same database, so the customer's records stay, under a name that nobody can have taken:
 * "shredded/" and a random UUID.
 */
static enum kms_status forget_name(struct kms_store_txn *txn, const struct kms_uuid *uuid,
                                   struct kms_error *err)
{
    const struct kms_uuid random = kms_uuid_random();
    char text[KMS_UUID_TEXT_SIZE];
    char name[KMS_UUID_TEXT_SIZE + sizeof "shredded/"];
    (void)snprintf(name, sizeof name, "shredded/%s", kms_uuid_format(&random, text));
    for (int64_t seq = 0;;) {
        KMS_CLEANUP(kms_change_clear) struct kms_change change = {0};
        const enum kms_status status = next_record(txn, uuid, &seq, &change, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        KMS_TRY(rename_record(txn, seq, &change, name, err));
    }
}

/* Run a statement with the customer's number. */
static enum kms_status remove_rows(struct kms_store_txn *txn, enum kms_statement which, int64_t customer_no,
                                   struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, which);
    kms_query_i64(&query, customer_no);
    return kms_query_run(&query, "customer", err);
}

enum kms_status kms_sqlite_customer_remove(struct kms_store_txn *txn, const struct kms_uuid *customer,
                                           struct kms_error *err)
{
    int64_t customer_no = 0;
    KMS_TRY(kms_sqlite_customer_no(txn, customer, &customer_no, err));
    KMS_TRY(free_slots_of(txn, customer_no, err));
    KMS_TRY(remove_rows(txn, KMS_STATEMENT_CUSTOMER_KEKS_REMOVE, customer_no, err));
    KMS_TRY(remove_rows(txn, KMS_STATEMENT_CUSTOMER_REMOVE, customer_no, err));
    txn->customer.known = false; /* its number may be given again */
    KMS_TRY(forget_name(txn, customer, err));
    return kms_sqlite_log(txn, KMS_CHANGE_CUSTOMER_REMOVED,
                          kms_changelog_customer_removed(customer, kms_sqlite_payload(txn)), err);
}

/* The rows of a query of KEKs into a list; `ret_last` (may be NULL) is the number behind the columns of the last one. */
static enum kms_status take_keks(struct kms_query *query, struct kms_buf *list, size_t *ret_count,
                                 uint64_t *ret_last, struct kms_error *err)
{
    for (size_t count = 0;; count++) {
        const enum kms_status status = kms_query_row(query, err);
        if (status == KMS_NOT_FOUND) {
            *ret_count = count;
            return KMS_OK;
        }
        KMS_TRY(status);
        struct kms_kek_record kek;
        KMS_TRY(kms_sqlite_kek_take(query, &kek, err));
        if (ret_last != NULL)
            *ret_last = kms_query_take_u64(query);
        if (kms_buf_append(list, &kek, sizeof kek) != KMS_OK)
            return kms_fail(err, KMS_NO_MEMORY, "no memory for a list of KEKs");
    }
}

enum kms_status kms_sqlite_keks_in_slots(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                         uint64_t first, uint64_t count, struct kms_kek_record **ret_list,
                                         size_t *ret_count, struct kms_error *err)
{
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, tenant, &tenant_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_KEK_IN_SLOTS);
    kms_query_i64(&query, tenant_no);
    kms_query_u64(&query, first);
    kms_query_u64(&query, first + count);
    KMS_CLEANUP(kms_buf_clear) struct kms_buf list = {0};
    KMS_TRY(take_keks(&query, &list, ret_count, NULL, err));
    *ret_list = (struct kms_kek_record *)(void *)KMS_TAKE(list.data);
    return KMS_OK;
}

/* The largest customer number that there is. */
static enum kms_status last_customer(struct kms_store_txn *txn, uint64_t *ret_no, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_CUSTOMER_LAST);
    KMS_TRY(kms_query_row(&query, err));
    const uint64_t no = kms_query_take_u64(&query);
    KMS_TRY(kms_query_row_ok(&query, NULL, err));
    *ret_no = no;
    return KMS_OK;
}

enum kms_status kms_sqlite_keks_due(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                    const char *purpose, int64_t created_before_ns, uint64_t after,
                                    uint64_t scan, size_t limit, struct kms_kek_record **ret_list,
                                    size_t *ret_count, uint64_t *ret_next, struct kms_error *err)
{
    int64_t tenant_no = 0;
    uint64_t end = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, tenant, &tenant_no, err));
    KMS_TRY(last_customer(txn, &end, err));
    uint64_t until = 0;
    if (__builtin_add_overflow(after, scan, &until) || until > end)
        until = end;
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_KEK_DUE);
    kms_query_u64(&query, after);
    kms_query_u64(&query, until);
    kms_query_i64(&query, tenant_no);
    kms_query_text(&query, purpose);
    kms_query_i64(&query, created_before_ns);
    kms_query_u64(&query, limit < INT64_MAX ? limit : INT64_MAX);
    KMS_CLEANUP(kms_buf_clear) struct kms_buf list = {0};
    size_t count = 0;
    uint64_t last = 0;
    KMS_TRY(take_keks(&query, &list, &count, &last, err));
    *ret_list = (struct kms_kek_record *)(void *)KMS_TAKE(list.data);
    *ret_count = count;
    *ret_next = count == limit ? last : until;
    if (*ret_next >= end)
        *ret_next = 0;
    return KMS_OK;
}

/* What is counted so far. */
static enum kms_status read_rewrapped(struct kms_store_txn *txn, const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                      uint64_t *ret_rewrapped, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_KEK_REWRAPPED);
    kms_query_blob(&query, kek_id, KMS_KEK_ID_SIZE);
    const enum kms_status status = kms_query_row(&query, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_NOT_FOUND, "no such KEK");
    KMS_TRY(status);
    const uint64_t rewrapped = kms_query_take_u64(&query);
    KMS_TRY(kms_query_row_ok(&query, NULL, err));
    *ret_rewrapped = rewrapped;
    return KMS_OK;
}

enum kms_status kms_sqlite_kek_add_rewrapped(struct kms_store_txn *txn, const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                             uint64_t count, struct kms_error *err)
{
    struct kms_change_rewrapped change = {0};
    memcpy(change.kek_id, kek_id, sizeof change.kek_id);
    KMS_TRY(read_rewrapped(txn, kek_id, &change.rewrapped, err));
    if (__builtin_add_overflow(change.rewrapped, count, &change.rewrapped) ||
        change.rewrapped > KMS_STORE_WRAPS_MAX)
        return kms_fail(err, KMS_OUT_OF_RANGE, "a KEK cannot have more than 2^62 rewraps");
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_KEK_SET_REWRAPPED);
    kms_query_blob(&query, kek_id, KMS_KEK_ID_SIZE);
    kms_query_u64(&query, change.rewrapped);
    KMS_TRY(kms_query_run(&query, "KEK rewraps", err));
    return kms_sqlite_log(txn, KMS_CHANGE_REWRAPPED,
                          kms_changelog_rewrapped(&change, kms_sqlite_payload(txn)), err);
}
