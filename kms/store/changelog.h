/*
 * Purpose:   the format of the change log: one engine-neutral record for each change, enough to rebuild the
 *            database by applying all of them in order.
 * Owns:      the format below; a decoded kms_change owns its memory.
 * Threads:   pure functions.
 * Never:     accepts two encodings of one change; reads past what it was given.
 *
 * The log is the table change_log(seq, time_ns, kind, payload): seq grows by one with every record and is
 * never used twice; time_ns is the wall clock of the transaction; kind repeats the payload's second byte.
 * Integers are big-endian; text is its length in bytes as u16 and UTF-8 without a terminator; `time` is an
 * i64 of wall-clock nanoseconds.
 *
 *   payload      = version u8 (1) | kind u8 | body
 *   1 TENANT     = uuid 16 | id text | display_name text | state u8 | epoch u64 | master_id 16 | root_blob 40
 *                | height u32 | next_slot u64 | revision u64 | created time | updated time
 *   2 PURPOSE    = tenant 16 | id text | display_name text | legal_basis text | state u8
 *                | required_by_law u8 (0, 1) | retention_seconds i64 | rotation_seconds i64 | revision u64
 *                | created time | updated time
 *   3 CUSTOMER   = uuid 16 | tenant 16 | id text | labels_len u32 | labels (JSON) | state u8 | revision u64
 *                | created time | updated time
 *   4 KEK        = kek_id 16 | tenant 16 | customer 16 | purpose text | version u32 | slot u64 | state u8
 *                | wraps_reserved u64 | created time
 *   5 KEK_STATE  = kek_id 16 | state u8
 *   6 RESERVE    = count u16 (at least 1) | count x (kek_id 16 | wraps_reserved u64)
 *                  in strictly ascending order of kek_id
 *   7 PAGE       = tenant 16 | level u32 | index u64 | body_len u32 | body | mac 32
 *   8 REQUEST    = request_id text | identity text | request_hash 32 | created time
 *   9 OPERATION  = uuid 16 | kind text | tenant text | requester text | digest 32 | approvals_needed u32
 *                | policy_generation u64 | created time | expires time | document_len u32 | document
 *  10 OPERATION_STATE = uuid 16 | state u8 | attempts u32 | done u64 | total u64 | not_before time
 *                | started time | finished time | ended_by text | reason text | result_len u32 | result (JSON)
 *  11 APPROVAL   = operation 16 | identity text | person text | certificate_len u32 | certificate (PEM)
 *                | signature_len u32 | signature | time time
 *  12 OPERATION_REMOVED = uuid 16
 *  13 SHRED_JOB to 19 SHRED_CLOCK: store/changelog_shred.h
 *  20 BATCH      = uuid 16 | tenant 16 | kind u8 | reference text | old_epoch u64 | old_master_id 16 | new_master_id 16
 *                | created time | document_len u32 | document | signature_len u8 | signature | progress
 *  21 BATCH_STATE = uuid 16 | progress
 *     progress   = state u8 | pages u64 | keys_rewrapped u64 | keys_shredded u64 | customers u64 | pages_digest 32
 *                | committed time | sealed time
 *  22 TOMBSTONE  = tenant 16 | customer 16 | purpose text | version u32 | id_mac 32 | epoch u64 | batch 16 | created time
 *  23 FREE_SLOT  = tenant 16 | slot u64
 *  24 SLOT_TAKEN = tenant 16 | slot u64
 *  25 KEK_SHREDDED = kek_id 16          state SHREDDED, and its slot is free
 *  26 CUSTOMER_REMOVED = uuid 16        with its KEKs, whose slots are free
 *  27 REWRAPPED  = kek_id 16 | rewrapped u64
 *  28 POLICY to 30 UNFREEZE: store/changelog_policy.h
 *  31 RECOVERY_KEY, 32 RECOVERY_COVER: store/changelog_recovery.h
 *
 * A CUSTOMER record loses its id (which becomes "shredded/" and a random UUID) and its labels when the customer is removed: the one
 * case in which a record changes. Copies that were shipped before keep them, under the keys of the backup.
 *
 * 1, 2, 3, 7 and 8 hold the whole record: insert it, or replace the one of the same key. 4, 9 and 11 insert;
 * what 9 inserts is pending, and 10 replaces everything that its record does not say. 12 removes with the approvals. 6 holds
 * the counters after the change, all of one transaction in one record. Request ids that were forgotten by age
 * (KMS_STORE_REQUEST_KEPT_NS) are not logged: whoever applies the log forgets by the same rule.
 *
 * Sizes: about 130 + names bytes for a tenant, 75 + id + labels for a customer, 80 + purpose for a KEK,
 * 4 + 24 n for n reservations, 66 + body for a page; plus about 15 bytes for the row.
 */
#ifndef KMS_STORE_CHANGELOG_H
#define KMS_STORE_CHANGELOG_H

#include "store/store.h"

enum {
    KMS_CHANGELOG_VERSION = 1,
    KMS_CHANGELOG_RESERVATIONS_MAX = 1024 /* in one record */
};

/* Written to disk and to backups: never renumber. */
enum kms_change_kind {
    KMS_CHANGE_TENANT = 1,
    KMS_CHANGE_PURPOSE = 2,
    KMS_CHANGE_CUSTOMER = 3,
    KMS_CHANGE_KEK = 4,
    KMS_CHANGE_KEK_STATE = 5,
    KMS_CHANGE_RESERVE = 6,
    KMS_CHANGE_PAGE = 7,
    KMS_CHANGE_REQUEST = 8,
    KMS_CHANGE_OPERATION = 9,
    KMS_CHANGE_OPERATION_STATE = 10,
    KMS_CHANGE_APPROVAL = 11,
    KMS_CHANGE_OPERATION_REMOVED = 12,
    KMS_CHANGE_SHRED_JOB = 13,
    KMS_CHANGE_SHRED_TARGET = 14,
    KMS_CHANGE_HOLD = 15,
    KMS_CHANGE_CERTIFICATE = 16,
    KMS_CHANGE_SHRED_SETTING = 17,
    KMS_CHANGE_RETENTION = 18,
    KMS_CHANGE_SHRED_CLOCK = 19,
    KMS_CHANGE_BATCH = 20,
    KMS_CHANGE_BATCH_STATE = 21,
    KMS_CHANGE_TOMBSTONE = 22,
    KMS_CHANGE_FREE_SLOT = 23,
    KMS_CHANGE_SLOT_TAKEN = 24,
    KMS_CHANGE_KEK_SHREDDED = 25,
    KMS_CHANGE_CUSTOMER_REMOVED = 26,
    KMS_CHANGE_REWRAPPED = 27,
    KMS_CHANGE_POLICY = 28,
    KMS_CHANGE_FREEZE = 29,
    KMS_CHANGE_UNFREEZE = 30,
    KMS_CHANGE_RECOVERY_KEY = 31,
    KMS_CHANGE_RECOVERY_COVER = 32
};

struct kms_change_reservation {
    uint8_t kek_id[KMS_KEK_ID_SIZE];
    uint64_t wraps_reserved; /* after the change */
};

struct kms_change_slot {
    struct kms_uuid tenant;
    uint64_t slot;
};

struct kms_change_rewrapped {
    uint8_t kek_id[KMS_KEK_ID_SIZE];
    uint64_t rewrapped; /* after the change */
};

/** One decoded change; `kind` says which member counts. */
struct kms_change {
    enum kms_change_kind kind;
    union {
        struct kms_tenant_record tenant;
        struct kms_purpose_record purpose;
        struct kms_customer_record customer;
        struct kms_kek_record kek;
        struct {
            uint8_t kek_id[KMS_KEK_ID_SIZE];
            enum kms_kek_state state;
        } kek_state;
        struct {
            struct kms_change_reservation *list; /* on the heap */
            size_t count;
        } reserve;
        struct kms_page_record page;
        struct kms_request_record request;
        struct kms_operation_record operation; /* OPERATION, OPERATION_STATE: the members of that record */
        struct kms_approval_record approval;
        struct kms_uuid operation_removed;
        struct kms_shred_job_record shred_job;
        struct kms_shred_target_record shred_target;
        struct kms_hold_record hold;
        struct kms_certificate_record certificate;
        struct kms_shred_setting_record shred_setting;
        struct kms_retention_record retention;
        struct kms_shred_clock_record shred_clock;
        struct kms_batch_record batch; /* BATCH_STATE: the uuid, and from `state` on */
        struct kms_tombstone_record tombstone;
        struct kms_change_slot slot; /* FREE_SLOT, SLOT_TAKEN */
        uint8_t kek_shredded[KMS_KEK_ID_SIZE];
        struct kms_uuid customer_removed;
        struct kms_change_rewrapped rewrapped;
        struct kms_policy_record policy;
        struct kms_freeze_record freeze; /* FREEZE; UNFREEZE: its names */
        struct kms_recovery_key_record recovery_key;
        struct kms_recovery_cover_record recovery_cover;
    };
};

/*
 * Append one payload to `out`. The record must have passed its check of store/record.h. NO_MEMORY: `out` may
 * hold a part of it.
 */
enum kms_status kms_changelog_tenant(const struct kms_tenant_record *tenant,
                                     struct kms_buf *out) KMS_MUST_USE;
enum kms_status kms_changelog_purpose(const struct kms_purpose_record *purpose,
                                      struct kms_buf *out) KMS_MUST_USE;
enum kms_status kms_changelog_customer(const struct kms_customer_record *customer,
                                       struct kms_buf *out) KMS_MUST_USE;
enum kms_status kms_changelog_kek(const struct kms_kek_record *kek, struct kms_buf *out) KMS_MUST_USE;
enum kms_status kms_changelog_kek_state(const uint8_t kek_id[KMS_KEK_ID_SIZE], enum kms_kek_state state,
                                        struct kms_buf *out) KMS_MUST_USE;
/** Sorts `list` in place and drops all but the largest counter of a KEK. 1..KMS_CHANGELOG_RESERVATIONS_MAX. */
enum kms_status kms_changelog_reserve(struct kms_change_reservation *list, size_t count,
                                      struct kms_buf *out) KMS_MUST_USE;
enum kms_status kms_changelog_page(const struct kms_page_record *page, struct kms_buf *out) KMS_MUST_USE;
enum kms_status kms_changelog_request(const struct kms_request_record *request,
                                      struct kms_buf *out) KMS_MUST_USE;
/** Any of the above, by `change->kind`. */
enum kms_status kms_changelog_encode(struct kms_change *change, struct kms_buf *out) KMS_MUST_USE;

/**
 * Decode one payload. STORE_CORRUPT: not exactly one canonical record (the cause says what is wrong);
 * STORE_NEWER: of a later format version. `*ret_change` is the caller's: kms_change_clear().
 */
enum kms_status kms_changelog_decode(struct kms_slice payload, struct kms_change *ret_change,
                                     struct kms_error *err) KMS_MUST_USE;
/** Free what a change owns; accepts a zeroed one. */
void kms_change_clear(struct kms_change *change);

#endif
