/*
 * A pass over the capsules: what the store expects against what lies in the targets. The names are read before the store, and under
 * the lock nobody writes a capsule, so a file that the store does not explain is of no use.
 */
#include "core/clock.h"
#include "core/log.h"
#include "core/testpoint.h"
#include "ops/escrow_internal.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    NEWBORN_SECONDS = 120, /* a capsule may be older than its tenant by so much */
    LIST_SECONDS = 5,
    READING_SECONDS = 86400,
    USELESS_AT_ONCE = 1000
};

/* What one pass comes to. */
struct pass {
    struct ops_escrow *escrow;
    struct ops_escrow_status status;
    bool may_remove;
    bool left;         /* something that may be of no use, because of that or for want of time */
    char *attestation; /* PEM; NULL: capsules are not read, their names are enough */
    struct kms_shelf_listing listings[KMS_BACKUP_TARGETS_MAX];
};

/* The first thing that is wrong. */
static void note_failure(struct pass *pass, const char *text)
{
    if (pass->status.failure[0] == '\0')
        (void)snprintf(pass->status.failure, sizeof pass->status.failure, "%s", text);
}

/*
 * Whether every target holds an older state of this very database, or the same. One that was away may know changes that this database
 * does not, because it was rolled back: what looks useless here is then what the newest state needs.
 */
static bool targets_are_behind(struct ops_escrow *escrow)
{
    if (escrow->backup == NULL)
        return true;
    for (size_t i = 0; i < kms_backup_targets(escrow->backup); i++) {
        struct kms_backup_target_status status;
        kms_backup_status(escrow->backup, i, &status);
        if (status.shipped_ns == 0 || status.failing || status.rolled_back)
            return false;
    }
    return true;
}

/* Whether a tenant is just being made; a note that was never taken back is forgotten after a while. */
static bool is_newborn(struct ops_escrow *escrow, const struct kms_uuid *tenant)
{
    const int64_t oldest = kms_clock_mono_ns() - NEWBORN_SECONDS * KMS_NS_PER_SECOND;
    KMS_LOCKED(&escrow->status_lock);
    for (size_t i = 0; i < OPS_ESCROW_NEWBORN_MAX; i++) {
        if (kms_uuid_equal(&escrow->newborn[i].tenant, tenant) && escrow->newborn[i].since_ns > oldest)
            return true;
    }
    return false;
}

/* A file that no row explains; that of a tenant which is just being made, and has no row yet, is left alone. */
static bool is_useless(const struct pass *pass, struct ops_escrow_entries *entries,
                       const struct kms_uuid *tenant, uint64_t epoch)
{
    return !kms_test_mutation("keep-capsules") && pass->may_remove &&
           ops_escrow_find(entries, tenant, epoch) == NULL &&
           (ops_escrow_knows(entries, tenant) || !is_newborn(pass->escrow, tenant));
}

/* One target's names: those that are expected are counted, the others removed everywhere. */
static void look_at_target(struct pass *pass, const struct kms_recovery_key_record *key,
                           const struct kms_shelf_listing *listing, struct ops_escrow_entries *entries)
{
    const char *name = (const char *)listing->names.data;
    unsigned removed = 0;
    for (size_t i = 0; i < listing->count; i++, name += strlen(name) + 1) {
        struct kms_uuid tenant;
        uint64_t epoch = 0;
        struct kms_error err = {0};
        if (!kms_capsule_name_parse(name, &tenant, &epoch))
            continue; /* nobody here has made it */
        struct ops_escrow_entry *entry = ops_escrow_find(entries, &tenant, epoch);
        if (entry != NULL)
            entry->present++;
        pass->left |= entry == NULL && !pass->may_remove;
        if (entry != NULL || !is_useless(pass, entries, &tenant, epoch))
            continue;
        if (removed == USELESS_AT_ONCE) { /* others wait for the lock */
            pass->left = true;
            continue;
        }
        const enum kms_status status =
            kms_shelf_remove(pass->escrow->shelf, key->fingerprint, name, ops_escrow_deadline(), &err);
        if (status == KMS_OK) {
            removed++;
            pass->status.removed++;
        } else {
            note_failure(pass, kms_error_cause(&err, status));
            removed = USELESS_AT_ONCE; /* the next one would fail as well */
        }
    }
}

/* How many targets have a file under the name, that is what it must be. */
static unsigned count_good(struct pass *pass, const struct kms_recovery_key_record *key,
                           const struct ops_escrow_entry *entry)
{
    struct kms_buf copies[KMS_BACKUP_TARGETS_MAX] = {0};
    char name[KMS_CAPSULE_NAME_SIZE];
    unsigned good = 0;
    struct kms_error err = {0};
    (void)kms_capsule_name(&entry->tenant, entry->epoch, name);
    if (kms_shelf_fetch(pass->escrow->shelf, key->fingerprint, name, ops_escrow_deadline(), copies, &err) !=
        KMS_OK)
        return entry->present;
    for (size_t i = 0; i < kms_shelf_targets(pass->escrow->shelf); i++) {
        const enum kms_status status = ops_escrow_check_bytes(
            kms_buf_slice(&copies[i]), kms_slice_str(pass->attestation), key, entry, &err);
        if (status == KMS_OK)
            good++;
        else
            kms_log_warning("recovery", "the capsule %s in %s is made again: %s", name,
                            kms_shelf_target(pass->escrow->shelf, i), kms_error_cause(&err, status));
        kms_buf_clear(&copies[i]);
    }
    return good;
}

/* A capsule, made again. */
static enum kms_status restore_capsule(struct pass *pass, const struct kms_recovery_key_record *key,
                                       const struct ops_escrow_entry *entry, struct kms_error *err)
{
    const struct ops_escrow_place place = {entry->tenant, entry->epoch, entry->master_id};
    KMS_CLEANUP(kms_buf_clear) struct kms_buf file = {0};
    KMS_TRY(ops_escrow_make_locked(pass->escrow, key, &place, &file, err));
    return ops_escrow_put_locked(pass->escrow, key, &place, kms_buf_slice(&file), err);
}

/* Put back what is missing, until that fails: a target that is away would fail each time. */
static void fill_up(struct pass *pass, const struct kms_recovery_key_record *key,
                    struct ops_escrow_entries *entries)
{
    const size_t targets = kms_shelf_targets(pass->escrow->shelf);
    bool failing = false;
    for (size_t i = 0; i < entries->count; i++) {
        struct ops_escrow_entry *entry = &entries->list[i];
        if (!entry->wanted)
            continue;
        pass->status.expected += targets;
        if (pass->attestation != NULL && entry->present == targets && !failing)
            entry->present = count_good(pass, key, entry);
        if (entry->present == targets)
            continue;
        struct kms_error err = {0};
        const enum kms_status status = failing ? KMS_UNAVAILABLE : restore_capsule(pass, key, entry, &err);
        if (status == KMS_OK)
            continue;
        if (!failing)
            note_failure(pass, kms_error_cause(&err, status));
        failing = true;
        pass->status.missing += targets - entry->present;
    }
}

/* Everything under one key. */
static enum kms_status look_at_key(struct pass *pass, const struct kms_recovery_key_record *key,
                                   struct kms_error *err)
{
    struct kms_shelf *shelf = pass->escrow->shelf;
    KMS_CLEANUP(ops_escrow_entries_clear) struct ops_escrow_entries entries = {0};
    KMS_TRY(kms_shelf_list(shelf, key->fingerprint, kms_clock_mono_ns() + LIST_SECONDS * KMS_NS_PER_SECOND,
                           pass->listings, err));
    const enum kms_status status = ops_escrow_expect(pass->escrow->store, key, &entries, err);
    for (size_t i = 0; i < kms_shelf_targets(shelf); i++) {
        if (status == KMS_OK && pass->listings[i].known)
            look_at_target(pass, key, &pass->listings[i], &entries);
        else if (!pass->listings[i].known)
            note_failure(pass, pass->listings[i].failure);
        kms_shelf_listing_clear(&pass->listings[i]);
    }
    KMS_TRY(status);
    fill_up(pass, key, &entries);
    return KMS_OK;
}

/* Fingerprints of retired keys, behind each other. */
static enum kms_status take_retired(void *context, const struct kms_recovery_key_record *key)
{
    return key->state == KMS_RECOVERY_RETIRED
               ? kms_buf_append(context, key->fingerprint, sizeof key->fingerprint)
               : KMS_OK;
}

/* A target that comes back, or was put together from copies, may hold capsules of a key that was retired meanwhile. */
static void remove_retired(struct pass *pass, const struct kms_buf *retired)
{
    if (kms_test_mutation("keep-capsules"))
        return;
    for (size_t at = 0; at < retired->len; at += KMS_RECOVERY_FINGERPRINT_SIZE) {
        struct kms_error err = {0};
        const int64_t deadline = ops_escrow_deadline();
        const enum kms_status status =
            kms_shelf_remove_folder(pass->escrow->shelf, (const char *)retired->data + at, deadline, &err);
        if (status == KMS_OK)
            continue;
        note_failure(pass, kms_error_cause(&err, status));
        if (kms_clock_mono_ns() >= deadline) /* a target hangs, and others wait for the lock */
            break;
    }
}

static enum kms_status look_at_all(struct pass *pass, struct kms_error *err)
{
    struct ops_escrow *escrow = pass->escrow;
    struct ops_escrow_keys keys;
    KMS_CLEANUP(kms_buf_clear) struct kms_buf retired = {0};
    {
        KMS_TXN txn = {0};
        KMS_TRY(kms_txn_begin(escrow->store, false, &txn, err));
        KMS_TRY(ops_escrow_read_keys(escrow->store, txn.txn, &keys, err));
        KMS_TRY(escrow->store->ops->recovery.key_list(txn.txn, take_retired, &retired, err));
    }
    remove_retired(pass, &retired);
    for (size_t i = 0; i < keys.count; i++)
        KMS_TRY(look_at_key(pass, &keys.list[i], err));
    return KMS_OK;
}

/* Tell what was found; the log says so when it begins and ends to be wrong. */
static void publish(struct ops_escrow *escrow, const struct ops_escrow_status *found)
{
    KMS_LOCKED(&escrow->status_lock);
    const bool was_bad = escrow->status.failure[0] != '\0';
    const bool is_bad = found->failure[0] != '\0';
    if (is_bad && !was_bad)
        kms_log_error("recovery", "%llu of %llu recovery capsules are missing or not as they should be: %s",
                      (unsigned long long)found->missing, (unsigned long long)found->expected,
                      found->failure);
    if (!is_bad && was_bad)
        kms_log_info("recovery", "all %llu recovery capsules are in their places",
                     (unsigned long long)found->expected);
    escrow->status = *found;
}

/* Now and then capsules are read, too: at the first pass, when their signatures may be of a token that was lost, and once a day. */
static enum kms_status begin_reading(struct pass *pass, struct kms_error *err)
{
    const int64_t now = kms_clock_mono_ns();
    if (now < pass->escrow->next_reading_ns)
        return KMS_OK;
    KMS_TRY(kms_hsm_attestation_public_pem(pass->escrow->hsm, &pass->attestation, err));
    pass->escrow->next_reading_ns = now + READING_SECONDS * KMS_NS_PER_SECOND;
    return KMS_OK;
}

bool ops_escrow_tick(struct ops_escrow *escrow)
{
    KMS_LOCKED(&escrow->lock);
    if (!atomic_exchange(&escrow->look, false) && kms_clock_mono_ns() < escrow->next_pass_ns)
        return false;
    struct pass pass = {.escrow = escrow, .may_remove = targets_are_behind(escrow)};
    struct kms_error err = {0};
    {
        KMS_LOCKED(&escrow->status_lock);
        pass.status.removed = escrow->status.removed;
    }
    enum kms_status status = begin_reading(&pass, &err);
    if (status == KMS_OK)
        status = look_at_all(&pass, &err);
    free(pass.attestation);
    if (status != KMS_OK)
        note_failure(&pass, kms_error_cause(&err, status));
    if (pass.status.failure[0] != '\0')
        escrow->next_reading_ns = 0; /* who knows what was not read */
    pass.status.checked_ns = kms_clock_wall_ns();
    publish(escrow, &pass.status);
    const bool again = pass.left || pass.status.failure[0] != '\0';
    const int64_t pause = again ? OPS_ESCROW_AGAIN_SECONDS : OPS_ESCROW_LOOK_SECONDS;
    escrow->next_pass_ns = kms_clock_mono_ns() + pause * KMS_NS_PER_SECOND;
    return true;
}
