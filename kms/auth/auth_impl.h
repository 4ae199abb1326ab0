/*
 * Purpose:   the inside of a kms_auth, shared by its files.
 * Owns:      nothing.
 * Threads:   readers of the policy, the CRL, the identities and the freezes hold one gate, chosen by their thread, so that they
 *            do not contend; a writer holds all of them. Gates are leaves: nothing else is locked while one is held.
 * Never:     is included outside kms/auth/auth.c, intern.c and ask.c.
 */
#ifndef KMS_AUTH_AUTH_IMPL_H
#define KMS_AUTH_AUTH_IMPL_H

#include "auth/auth.h"
#include "auth/bucket.h"
#include "auth/crl.h"
#include "auth/frozen.h"
#include "core/lock.h"

/* Running out of memory must not end the process, as it does by default. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

enum { AUTH_GATES = 32, AUTH_CACHE_LINE = 64, AUTH_DIGEST_SIZE = 32 };

struct auth_gate {
    pthread_rwlock_t lock;
} __attribute__((aligned(AUTH_CACHE_LINE)));

/* What the certificates of one name share. */
struct auth_name {
    struct kms_bucket bucket;
    size_t certificates; /* remembered; the last one frees it; protected by all gates */
    UT_hash_handle hh;
    char name[];
};

/* An interned identity; `certificate.identity` comes first, so that its address is the entry's. */
struct auth_entry {
    struct kms_certificate certificate;
    const struct kms_auth *owner;
    struct auth_name *name;
    _Atomic uint64_t checked; /* generation at which it was found good; 0: never */
    _Atomic int64_t until_ns; /* wall clock until which that holds, unless the generation changes */
    int64_t
        expired_since_ns; /* monotonic; 0: not expired as far as a sweep has seen; protected by all gates */
    uint8_t digest[AUTH_DIGEST_SIZE]; /* of the certificate's PEM */
    UT_hash_handle hh;
};

struct kms_auth {
    struct auth_gate gates[AUTH_GATES];
    struct kms_policy *policy; /* these are protected by the gates */
    uint64_t policy_version;
    struct kms_crl *crl;        /* NULL when none is configured */
    struct auth_entry *entries; /* hash table by digest */
    struct auth_name *names;    /* hash table by name */
    struct kms_frozen_set frozen;
    _Atomic uint64_t generation;     /* written with all gates held */
    _Atomic size_t frozen_customers; /* frozen.count of customers, for those who hold no gate */
    _Atomic uint64_t refused_frozen, refused_rate;
    size_t max_identities;
    struct kms_mutex reload_lock; /* one reload at a time */
    char *crl_path, *client_ca_path;
};

/** Begin to read; nothing that is found may be kept after auth_leave() but interned entries. */
struct auth_gate *auth_enter(struct kms_auth *auth);
/** The end of what auth_enter() began. */
void auth_leave(struct auth_gate *gate);
/** Begin to change; always in the same order, so that two writers cannot wait for each other. */
void auth_enter_all(struct kms_auth *auth);
/** The end of what auth_enter_all() began. */
void auth_leave_all(struct kms_auth *auth);

/** The private part of an identity that this auth has handed out. */
struct auth_entry *auth_entry_of(const struct kms_auth *auth, const struct kms_identity *identity);
/** Forget identities whose certificate ended long ago; with all gates held. */
void auth_sweep_locked(struct kms_auth *auth);
/** Forget all. */
void auth_forget_all(struct kms_auth *auth);

#endif
