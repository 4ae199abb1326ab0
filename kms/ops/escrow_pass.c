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
    USELESS_AT_ONCE = 1000
};

/* What one pass comes to. */
struct pass {
    struct ops_escrow *escrow;
    struct ops_escrow_status status;
    struct kms_shelf_listing listings[KMS_BACKUP_TARGETS_MAX];
};

/* The first thing that is wrong. */
static void note_failure(struct pass *pass, const char *text)
{
    if (pass->status.failure[0] == '\0')
        (void)snprintf(pass->status.failure, sizeof pass->status.failure, "%s", text);
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
    return !kms_test_mutation("keep-capsules") && ops_escrow_find(entries, tenant, epoch) == NULL &&
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
        if (entry != NULL || !is_useless(pass, entries, &tenant, epoch) || removed == USELESS_AT_ONCE)
            continue;
        const enum kms_status status =
            kms_shelf_remove(pass->escrow->shelf, key->fingerprint, name, ops_escrow_deadline(), &err);
        if (status != KMS_OK) {
            note_failure(pass, kms_error_cause(&err, status));
            return;
        }
        removed++;
        pass->status.removed++;
    }
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
        if (entry->present == targets)
            continue;
        const struct ops_escrow_place place = {entry->tenant, entry->epoch, entry->master_id};
        KMS_CLEANUP(kms_buf_clear) struct kms_buf file = {0};
        struct kms_error err = {0};
        enum kms_status status = KMS_UNAVAILABLE;
        if (!failing)
            status = ops_escrow_make_locked(pass->escrow, key, &place, &file, &err);
        if (!failing && status == KMS_OK)
            status = ops_escrow_put_locked(pass->escrow, key, &place, kms_buf_slice(&file), &err);
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
        const enum kms_status status = kms_shelf_remove_folder(
            pass->escrow->shelf, (const char *)retired->data + at, ops_escrow_deadline(), &err);
        if (status != KMS_OK)
            note_failure(pass, kms_error_cause(&err, status));
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

bool ops_escrow_tick(struct ops_escrow *escrow)
{
    KMS_LOCKED(&escrow->lock);
    if (!atomic_exchange(&escrow->look, false) && kms_clock_mono_ns() < escrow->next_pass_ns)
        return false;
    struct pass pass = {.escrow = escrow};
    struct kms_error err = {0};
    {
        KMS_LOCKED(&escrow->status_lock);
        pass.status.removed = escrow->status.removed;
    }
    const enum kms_status status = look_at_all(&pass, &err);
    if (status != KMS_OK)
        note_failure(&pass, kms_error_cause(&err, status));
    pass.status.checked_ns = kms_clock_wall_ns();
    publish(escrow, &pass.status);
    const int64_t pause = pass.status.failure[0] == '\0' ? OPS_ESCROW_LOOK_SECONDS : OPS_ESCROW_AGAIN_SECONDS;
    escrow->next_pass_ns = kms_clock_mono_ns() + pause * KMS_NS_PER_SECOND;
    return true;
}

/* Where findings go, and whose signatures count. */
struct checking {
    struct ops_escrow *escrow;
    const char *directory;
    struct kms_slice attestation;
    void (*finding)(void *context, const char *text);
    void *context;
};

/* A capsule that this HSM has signed, or one that was lost. */
static enum kms_status open_capsule(const struct checking *checking, struct kms_slice file,
                                    struct kms_capsule *ret_capsule, struct kms_error *err)
{
    const struct ops_escrow *escrow = checking->escrow;
    enum kms_status status = kms_capsule_open(file, checking->attestation, ret_capsule, err);
    for (size_t i = 0; i < escrow->predecessor_count && status == KMS_TAMPERED; i++)
        status = kms_capsule_open(file, escrow->predecessors[i], ret_capsule, err);
    return status;
}

/* Is a capsule's file what it must be? */
static enum kms_status check_file(const struct checking *checking, const struct kms_recovery_key_record *key,
                                  const struct ops_escrow_entry *entry, struct kms_error *err)
{
    char name[KMS_CAPSULE_NAME_SIZE];
    KMS_CLEANUP(kms_buf_clear) struct kms_buf file = {0};
    KMS_CLEANUP(kms_capsule_clear) struct kms_capsule capsule = {0};
    KMS_TRY(kms_shelf_read(checking->directory, key->fingerprint,
                           kms_capsule_name(&entry->tenant, entry->epoch, name), &file, err));
    KMS_TRY(open_capsule(checking, kms_buf_slice(&file), &capsule, err));
    const bool fits =
        strcmp(capsule.wrapping_key, key->fingerprint) == 0 && capsule.recovery_epoch == key->epoch &&
        kms_uuid_equal(&capsule.tenant, &entry->tenant) && capsule.epoch == entry->epoch &&
        (entry->epoch == 0 || memcmp(capsule.keys[0].id, entry->master_id, KMS_MASTER_ID_SIZE) == 0);
    if (!fits)
        return kms_fail_public(err, KMS_TAMPERED, "it is the capsule of another key, tenant or epoch");
    return KMS_OK;
}

/* What was expected a while ago may have come to its end since. */
static enum kms_status is_still_wanted(struct ops_escrow *escrow, const struct kms_recovery_key_record *key,
                                       const struct ops_escrow_entry *entry, bool *ret_wanted,
                                       struct kms_error *err)
{
    struct kms_recovery_key_record now;
    KMS_CLEANUP(ops_escrow_entries_clear) struct ops_escrow_entries entries = {0};
    {
        KMS_TXN txn = {0};
        KMS_TRY(kms_txn_begin(escrow->store, false, &txn, err));
        KMS_TRY(escrow->store->ops->recovery.key_get(txn.txn, key->fingerprint, &now, err));
    }
    KMS_TRY(ops_escrow_expect(escrow->store, key, &entries, err));
    const struct ops_escrow_entry *found = ops_escrow_find(&entries, &entry->tenant, entry->epoch);
    *ret_wanted = now.state == KMS_RECOVERY_ACTIVE && found != NULL && found->wanted &&
                  memcmp(found->master_id, entry->master_id, sizeof found->master_id) == 0;
    return KMS_OK;
}

static enum kms_status check_entry(const struct checking *checking, const struct kms_recovery_key_record *key,
                                   const struct ops_escrow_entry *entry, struct kms_error *err)
{
    char text[512];
    char name[KMS_CAPSULE_NAME_SIZE];
    bool wanted = true;
    struct kms_error why = {0};
    const enum kms_status status = check_file(checking, key, entry, &why);
    if (status == KMS_OK)
        return KMS_OK;
    KMS_TRY(is_still_wanted(checking->escrow, key, entry, &wanted, err));
    if (!wanted)
        return KMS_OK;
    (void)snprintf(text, sizeof text, "recovery/%s/%s: %s", key->fingerprint,
                   kms_capsule_name(&entry->tenant, entry->epoch, name), kms_error_cause(&why, status));
    checking->finding(checking->context, text);
    return KMS_OK;
}

static enum kms_status check_key(const struct checking *checking, const struct kms_recovery_key_record *key,
                                 struct kms_error *err)
{
    KMS_CLEANUP(ops_escrow_entries_clear) struct ops_escrow_entries entries = {0};
    KMS_TRY(ops_escrow_expect(checking->escrow->store, key, &entries, err));
    for (size_t i = 0; i < entries.count; i++) {
        if (entries.list[i].wanted)
            KMS_TRY(check_entry(checking, key, &entries.list[i], err));
    }
    return KMS_OK;
}

enum kms_status ops_escrow_check_target(struct ops_escrow *escrow, const char *directory,
                                        void (*finding)(void *context, const char *text), void *context,
                                        struct kms_error *err)
{
    struct ops_escrow_keys keys;
    KMS_FREE char *attestation = NULL;
    KMS_TRY(kms_hsm_attestation_public_pem(escrow->hsm, &attestation, err));
    {
        KMS_TXN txn = {0};
        KMS_TRY(kms_txn_begin(escrow->store, false, &txn, err));
        KMS_TRY(ops_escrow_read_keys(escrow->store, txn.txn, &keys, err));
    }
    const struct checking checking = {escrow, directory, kms_slice_str(attestation), finding, context};
    for (size_t i = 0; i < keys.count; i++)
        KMS_TRY(check_key(&checking, &keys.list[i], err));
    return KMS_OK;
}
