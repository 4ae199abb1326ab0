/*
 * Purpose:   seals over the records that decide something: what is read for a decision is what this service wrote last.
 * Owns:      nothing; the sealer is the caller's and outlives the store.
 * Threads:   as store.h. begin() comes before any other thread uses the store.
 * Never:     knows the key: who made a seal is the sealer's business.
 *
 * The sealed records are those by which somebody's keys live or die, or by which somebody may do something: tenants (but for the
 * newest keys of their trees), purposes, customers that are not active, operations, shred jobs and the targets that were taken out of
 * them, holds, what a tenant has settled, retentions, the clock of waiting windows, how far a batch has come, policies, freezes,
 * recovery keys and what they open.
 * Approvals, intents and certificates carry signatures of their own, pages their MACs; the targets of a job are bound by the hash
 * of the list in the job.
 *
 * Each sealed record has an entry (key, SHA-256 of its canonical bytes: those of its change record). Entries lie in buckets, the
 * hash of each bucket is a leaf under one root, and the sealer's MAC covers the root and the number of its generation:
 *
 *     head     = MAC("KMSSEAL1" | generation u64 | SHA-256(bucket 0 | bucket 1 | ... | bucket 1023))
 *     bucket   = SHA-256(entry | entry | ...) in the order of keys; 32 zero bytes when there is none
 *     entry    = key_len u16 | key | digest 32
 *     key      = kind u8 (of the change record) | scope 16 | what else names the record
 *
 * A write transaction that changes a sealed record changes its entry and, at its commit, the head: one MAC for each transaction. The
 * hashes of the buckets are kept in memory from the start on, so that a record, an entry or a head of yesterday that somebody puts
 * back, and one that somebody removes, is found as well as one that somebody has changed. A record is checked whenever it is read:
 * TAMPERED, with what is wrong as the cause, and the sealer's alarm. So is its absence where that decides: no hold, no setting, no
 * newer policy, no further purpose. Not checked are lists of operations (which have no documents), customers and policy versions, a
 * customer's state beside a KEK, and what a base takes of policies, tenants, purposes, operations and covers: what is done with one reads
 * it whole.
 *
 * What this cannot see: the whole database of yesterday, with its head, put in its place while the service is stopped.
 */
#ifndef KMS_STORE_STORE_SEAL_H
#define KMS_STORE_STORE_SEAL_H

#include "core/bytes.h"

struct kms_store;
struct kms_store_txn;

enum { KMS_STORE_SEAL_SIZE = 32 };

struct kms_store_sealer {
    /** A MAC that nobody without the key can make. Called with the store's lock held, about once a write transaction. */
    enum kms_status (*mac)(void *context, struct kms_slice message, uint8_t ret_mac[KMS_STORE_SEAL_SIZE],
                           struct kms_error *err);
    /** A record was found to be tampered with; `text` says which. May be called from any thread and often; NULL: nobody. */
    void (*alarm)(void *context, const char *text);
    void *context;
};

struct kms_store_seal_ops {
    /**
     * From now on records are sealed when they are written and checked when they are read. A database without any record is sealed
     * as it is. FAILED_PRECONDITION: it has records but no seals; TAMPERED: the head is not the sealer's, or not that of the
     * entries. `anew` seals what is there, whatever it is.
     */
    enum kms_status (*begin)(struct kms_store *store, const struct kms_store_sealer *sealer, bool anew,
                             struct kms_error *err);
    /**
     * This reading transaction takes tenants, purposes and customers as it finds them: the data plane, which destroys nothing and has no
     * time. Everything else is checked all the same.
     */
    void (*trust)(struct kms_store_txn *txn);
    /** How many transactions have changed the head; 0: nothing is sealed. */
    uint64_t (*generation)(struct kms_store *store);
};

#endif
