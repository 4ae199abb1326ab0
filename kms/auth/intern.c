#include "auth/auth_impl.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/log.h"

#include <stdlib.h>

#include <openssl/evp.h>

enum { SWEEP_EVERY = 1000 };

/* How long after its certificate's end an identity may be forgotten. */
#define KEEP_EXPIRED_NS (INT64_C(24) * 3600 * KMS_NS_PER_SECOND)

struct auth_entry *auth_entry_of(const struct kms_auth *auth, const struct kms_identity *identity)
{
    struct auth_entry *entry = (struct auth_entry *)(uintptr_t)identity;
    KMS_ASSERT(entry->owner == auth);
    return entry;
}

/* One certificate less of a name. */
static void leave_name_locked(struct kms_auth *auth, struct auth_name *name)
{
    if (--name->certificates > 0)
        return;
    HASH_DEL(auth->names, name);
    free(name);
}

/* One certificate more of a name. */
static enum kms_status join_name_locked(struct kms_auth *auth, const char *text, struct auth_name **ret_name)
{
    const size_t len = strlen(text);
    struct auth_name *name = NULL;
    HASH_FIND(hh, auth->names, text, len, name);
    if (name == NULL) {
        name = calloc(1, sizeof *name + len + 1);
        if (name == NULL)
            return KMS_NO_MEMORY;
        memcpy(name->name, text, len);
        HASH_ADD_KEYPTR(hh, auth->names, name->name, len, name);
        if (name->hh.tbl == NULL) {
            free(name);
            return KMS_NO_MEMORY;
        }
    }
    name->certificates++;
    *ret_name = name;
    return KMS_OK;
}

/* Take an entry out of the table and free it. */
static void forget_locked(struct kms_auth *auth, struct auth_entry *entry)
{
    HASH_DEL(auth->entries, entry);
    leave_name_locked(auth, entry->name);
    free(entry);
}

void auth_forget_all(struct kms_auth *auth)
{
    struct auth_entry *entry = NULL;
    struct auth_entry *next = NULL;
    HASH_ITER (hh, auth->entries, entry, next)
        forget_locked(auth, entry);
}

/*
 * Forget identities whose certificate ended long ago. A sweep only marks what it finds expired; the next ones
 * count from that mark on the monotonic clock, so that a wall clock set wrong for a while frees nothing.
 */
void auth_sweep_locked(struct kms_auth *auth)
{
    const int64_t wall_ns = kms_clock_wall_ns();
    const int64_t mono_ns = kms_clock_mono_ns();
    struct auth_entry *entry = NULL;
    struct auth_entry *next = NULL;
    HASH_ITER (hh, auth->entries, entry, next) {
        if (entry->certificate.identity.not_after_ns >= wall_ns) {
            entry->expired_since_ns = 0;
        } else if (entry->expired_since_ns == 0) {
            entry->expired_since_ns = mono_ns;
        } else if (mono_ns - entry->expired_since_ns >= KEEP_EXPIRED_NS &&
                   HASH_COUNT(auth->entries) >= auth->max_identities) {
            forget_locked(auth, entry);
        }
    }
}

/* The answer to a failed check; the time helps the operator to find the certificate or list. */
static enum kms_status refuse_dates(const char *what, int64_t time_ns, struct kms_error *err)
{
    char time_text[KMS_TIME_TEXT_SIZE];
    return kms_fail(err, KMS_UNAUTHENTICATED, "%s %s", what, kms_clock_format(time_ns, time_text));
}

/* Revocation in words: the cause for the audit log, and for the operator what must be mended. */
static enum kms_status answer_crl(enum kms_crl_answer answer, struct kms_error *err)
{
    switch (answer) {
    case KMS_CRL_GOOD:
        return KMS_OK;
    case KMS_CRL_REVOKED:
        return kms_fail(err, KMS_UNAUTHENTICATED, "the certificate is revoked");
    case KMS_CRL_CHAIN_REVOKED:
        return kms_fail(err, KMS_UNAUTHENTICATED, "an authority above the certificate is revoked");
    case KMS_CRL_NO_LIST:
        kms_log_error(
            "auth",
            "clients are refused: there is no revocation list of their issuer, or of one above it, in "
            "the CRL file");
        return kms_fail(err, KMS_UNAUTHENTICATED,
                        "there is no revocation list of the certificate's issuer, or of one above it");
    case KMS_CRL_EXPIRED:
    default:
        kms_log_error("auth",
                      "clients are refused: the revocation list of their issuer, or of one above it, has "
                      "expired; put a new one in place and reload");
        return kms_fail(err, KMS_UNAUTHENTICATED,
                        "the revocation list of the certificate's issuer, or of one above it, has expired");
    }
}

/* The full check; a good answer is remembered for this generation of the CRL. */
static enum kms_status check_anew(struct kms_auth *auth, struct auth_entry *entry, int64_t now_ns,
                                  struct kms_error *err)
{
    const struct kms_certificate *certificate = &entry->certificate;
    if (now_ns > certificate->identity.not_after_ns)
        return refuse_dates("the certificate expired at", certificate->identity.not_after_ns, err);
    if (now_ns < certificate->not_before_ns)
        return refuse_dates("the certificate is not valid before", certificate->not_before_ns, err);
    int64_t until_ns = certificate->identity.not_after_ns;
    int64_t list_until_ns = INT64_MAX;
    struct auth_gate *gate = auth_enter(auth);
    const enum kms_crl_answer answer =
        auth->crl == NULL ? KMS_CRL_GOOD : kms_crl_check(auth->crl, certificate, now_ns, &list_until_ns);
    if (answer == KMS_CRL_GOOD) {
        until_ns = list_until_ns < until_ns ? list_until_ns : until_ns;
        atomic_store_explicit(&entry->until_ns, until_ns, memory_order_relaxed);
        atomic_store_explicit(&entry->checked, atomic_load_explicit(&auth->generation, memory_order_relaxed),
                              memory_order_release);
    }
    auth_leave(gate);
    return answer_crl(answer, err);
}

/* The check of every call: two loads and a clock, as long as nothing was reloaded. */
static enum kms_status check(struct kms_auth *auth, struct auth_entry *entry, struct kms_error *err)
{
    const int64_t now_ns = kms_clock_wall_coarse_ns();
    const uint64_t generation = atomic_load_explicit(&auth->generation, memory_order_acquire);
    if (atomic_load_explicit(&entry->checked, memory_order_acquire) == generation &&
        now_ns <= atomic_load_explicit(&entry->until_ns, memory_order_relaxed) &&
        now_ns >= entry->certificate.not_before_ns)
        return KMS_OK;
    return check_anew(auth, entry, now_ns, err);
}

/* The table is looked up before and again while it is changed. */
static struct auth_entry *find_entry_locked(struct kms_auth *auth, const uint8_t digest[AUTH_DIGEST_SIZE])
{
    struct auth_entry *entry = NULL;
    HASH_FIND(hh, auth->entries, digest, AUTH_DIGEST_SIZE, entry);
    return entry;
}

/* Put a new entry into the table unless another thread was faster (then use its entry) or the table is full. */
static enum kms_status insert_locked(struct kms_auth *auth, struct auth_entry **entry,
                                     struct auth_entry **ret_interned)
{
    struct auth_entry *known = find_entry_locked(auth, (*entry)->digest);
    if (known == NULL) {
        const size_t count = HASH_COUNT(auth->entries);
        if (count % SWEEP_EVERY == SWEEP_EVERY - 1 || count >= auth->max_identities)
            auth_sweep_locked(auth);
        if (HASH_COUNT(auth->entries) >= auth->max_identities)
            return KMS_UNAUTHENTICATED;
        KMS_TRY(join_name_locked(auth, (*entry)->certificate.identity.name, &(*entry)->name));
        HASH_ADD(hh, auth->entries, digest, AUTH_DIGEST_SIZE, *entry);
        if ((*entry)->hh.tbl == NULL) {
            leave_name_locked(auth, (*entry)->name);
            return KMS_NO_MEMORY;
        }
        known = KMS_TAKE(*entry);
    }
    *ret_interned = known;
    return KMS_OK;
}

/* A certificate that was not seen before. */
static enum kms_status intern(struct kms_auth *auth, struct kms_slice pem,
                              const uint8_t digest[AUTH_DIGEST_SIZE], struct auth_entry **ret_entry,
                              struct kms_error *err)
{
    KMS_FREE struct auth_entry *entry = calloc(1, sizeof *entry);
    if (entry == NULL)
        return KMS_NO_MEMORY;
    KMS_TRY(kms_identity_parse(pem, &entry->certificate, err));
    memcpy(entry->digest, digest, AUTH_DIGEST_SIZE);
    entry->owner = auth;
    auth_enter_all(auth);
    const enum kms_status status = insert_locked(auth, &entry, ret_entry);
    auth_leave_all(auth);
    if (status == KMS_UNAUTHENTICATED) {
        kms_log_error(
            "auth",
            "a client is refused: %zu certificates are remembered, and none of them ended a day ago; "
            "restart the daemon to forget them",
            auth->max_identities);
        return kms_fail(err, KMS_UNAUTHENTICATED, "too many client certificates were seen");
    }
    return status;
}

enum kms_status kms_auth_identify(struct kms_auth *auth, struct kms_slice pem,
                                  const struct kms_identity **ret_identity, struct kms_error *err)
{
    uint8_t digest[AUTH_DIGEST_SIZE];
    if (pem.len > KMS_IDENTITY_PEM_MAX)
        return kms_fail(err, KMS_UNAUTHENTICATED, "the client certificate is too large");
    if (EVP_Digest(pem.data, pem.len, digest, NULL, EVP_sha256(), NULL) != 1)
        return KMS_NO_MEMORY;
    struct auth_gate *gate = auth_enter(auth);
    struct auth_entry *entry = find_entry_locked(auth, digest);
    const int64_t not_after_ns = entry != NULL ? entry->certificate.identity.not_after_ns : INT64_MAX;
    auth_leave(gate);
    if (not_after_ns < kms_clock_wall_coarse_ns()) /* a sweep may free it from now on */
        return refuse_dates("the certificate expired at", not_after_ns, err);
    if (entry == NULL)
        KMS_TRY(intern(auth, pem, digest, &entry, err));
    KMS_TRY(check(auth, entry, err));
    *ret_identity = &entry->certificate.identity;
    return KMS_OK;
}

enum kms_status kms_auth_still_valid(struct kms_auth *auth, const struct kms_identity *identity,
                                     struct kms_error *err)
{
    return check(auth, auth_entry_of(auth, identity), err);
}
