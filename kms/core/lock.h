/*
 * Purpose:   mutexes with a name and a place in one order; taking them against the order is a programming
 *            error.
 * Owns:      nothing; a kms_mutex lives in the struct that it protects.
 * Threads:   that is what it is for.
 * Never:     is held across a call to the network.
 *
 * A thread may take a lock only if it holds none with the same or a later place in this table. Two locks of
 * one place are never held together.
 */
#ifndef KMS_CORE_LOCK_H
#define KMS_CORE_LOCK_H

#include <pthread.h>
#include <stdbool.h>

/* place, what it protects; taken from the top to the bottom */
#define KMS_LOCK_TABLE(X)                                                                                    \
    X(RPC_SERVER, "the server's list of live calls and its life cycle")                                      \
    X(RPC_QUEUE, "the queue between completion-queue threads and the control worker")                        \
    X(OPS, "state shared by operations of one service")                                                      \
    X(TENANT, "one tenant's key tree: its only writer")                                                      \
    X(KEYRING, "the handle cache of KEKs and page keys")                                                     \
    X(RECOVERY, "recovery capsules that are being written, looked through or removed")                       \
    X(STORE, "the database's writing connection")                                                            \
    X(HSM_POOL, "the device's life cycle (open, lost, being recovered) and the pool of free sessions")       \
    X(HSM_MASTERS, "the cache of master-key handles")                                                        \
    X(BACKUP_WAIT, "waiting for backup targets")                                                             \
    X(BACKUP, "what is durable in a backup target")                                                          \
    X(RECOVERY_STATUS, "how the recovery capsules stand")                                                    \
    X(SHELF, "what is to be done with the capsules beside the backups")                                      \
    X(AUTH, "one reload of the policy and the revocation list at a time")                                    \
    X(SHRED, "who waits to be shredded, and the clock of waiting windows")                                   \
    X(AUDIT, "the audit chain's head and its buffer")                                                        \
    X(DETECT, "what the detection rules remember, and their queue of alerts")                                \
    X(AUDIT_OUTBOX, "checkpoints on their way out of the machine, and what signing them last said")          \
    X(RPC_CALL, "one call's outgoing messages")                                                              \
    X(CLIENT, "the client library's data-key cache")                                                         \
    X(RPC_TLS, "the certificate, key and client CA that new connections get")                                \
    X(METRICS, "which connections read metrics")                                                             \
    X(SEALS, "the hashes of sealed records, from a commit to what is remembered of it")                      \
    X(LOG, "the log's rate limits and its output")

enum kms_lock_place {
#define KMS_LOCK_ENUM(name, what) KMS_LOCK_##name,
    KMS_LOCK_TABLE(KMS_LOCK_ENUM)
#undef KMS_LOCK_ENUM
        KMS_LOCK_COUNT
};

struct kms_mutex {
    pthread_mutex_t mutex;
    enum kms_lock_place place;
};

void kms_mutex_init(struct kms_mutex *mutex, enum kms_lock_place place);
void kms_mutex_clear(struct kms_mutex *mutex);
void kms_mutex_lock(struct kms_mutex *mutex);
/** Wait no longer than until `deadline_mono_ns` (CLOCK_MONOTONIC). False when it passed: the lock is not held. */
bool kms_mutex_lock_until(struct kms_mutex *mutex, long long deadline_mono_ns);
void kms_mutex_unlock(struct kms_mutex *mutex);
/** Asserts that this thread holds the place of `mutex`; for functions named `_locked`. */
void kms_mutex_assert_held(const struct kms_mutex *mutex);
/** Wait on a condition made with kms_cond_init(); `deadline_mono_ns` < 0 waits for ever. False when it
 * passed. */
bool kms_cond_wait(pthread_cond_t *cond, struct kms_mutex *mutex, long long deadline_mono_ns);
/** A condition variable on the monotonic clock. */
void kms_cond_init(pthread_cond_t *cond);

/* Scope lock: `KMS_LOCKED(&x->lock);` holds until the end of the scope. */
static inline void kms_cleanup_unlock(struct kms_mutex **mutex)
{
    kms_mutex_unlock(*mutex);
}
static inline struct kms_mutex *kms_mutex_lock_scope(struct kms_mutex *mutex)
{
    kms_mutex_lock(mutex);
    return mutex;
}
#define KMS_LOCK_NAME2(line) kms_scope_lock_##line
#define KMS_LOCK_NAME(line)  KMS_LOCK_NAME2(line)
#define KMS_LOCKED(mutex)                                                                                    \
    struct kms_mutex *KMS_LOCK_NAME(__LINE__) __attribute__((cleanup(kms_cleanup_unlock), unused)) =         \
        kms_mutex_lock_scope(mutex)

#endif
