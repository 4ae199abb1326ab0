#include "backup/retention.h"

#include "core/cleanup.h"

#include <string.h>

/* The index of the oldest base to keep; listing.count when there are not more than that. */
static size_t oldest_kept(const struct kms_backup_listing *listing, uint64_t bases)
{
    uint64_t seen = 0;
    for (size_t i = listing->count; i-- > 0;)
        if (listing->files[i].kind == KMS_BACKUP_BASE && ++seen == bases)
            return i;
    return listing->count;
}

/* A log is needed when any change in it is newer than the base: that shows in where the log after it begins. */
static bool is_needed(const struct kms_backup_listing *listing, size_t index, uint64_t base_seq)
{
    for (size_t next = index + 1; next < listing->count; next++)
        if (listing->files[next].kind == KMS_BACKUP_LOG)
            return listing->files[next].seq > base_seq;
    return true; /* the newest log */
}

/* One file that nobody needs. */
static enum kms_status drop(const char *directory, const struct kms_backup_file *file, bool dry_run,
                            struct kms_backup_prune_result *result, struct kms_error *err)
{
    if (!dry_run)
        KMS_TRY(kms_backup_target_remove(directory, file->name, err));
    result->bytes_removed += file->size;
    if (file->kind == KMS_BACKUP_BASE)
        result->bases_removed++;
    else
        result->logs_removed++;
    return KMS_OK;
}

/*
 * A target with a finding is left alone, but for one way to mend it: when the newest base leads to the newest change, everything
 * older may go at once.
 */
static enum kms_status check_order(const struct kms_backup_keeper *keeper, const char *directory,
                                   uint64_t bases, const struct kms_backup_listing *listing,
                                   struct kms_backup_verify_result *result, struct kms_error *err)
{
    const enum kms_status status = kms_backup_verify(keeper, directory, NULL, result, err);
    if (status != KMS_TAMPERED || bases != 1 || !result->restorable)
        return status;
    const size_t newest = oldest_kept(listing, 1);
    return newest < listing->count && strcmp(listing->files[newest].name, result->base) == 0 ? KMS_OK
                                                                                             : status;
}

enum kms_status kms_backup_prune(const struct kms_backup_keeper *keeper, const char *directory,
                                 uint64_t bases, bool dry_run, struct kms_backup_prune_result *ret_result,
                                 struct kms_error *err)
{
    if (bases == 0)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "at least one base must be kept");
    struct kms_backup_verify_result verified;
    struct kms_backup_prune_result result = {0};
    KMS_CLEANUP(kms_backup_listing_clear) struct kms_backup_listing listing = {0};
    KMS_TRY(kms_backup_target_list(directory, &listing, err));
    KMS_TRY(check_order(keeper, directory, bases, &listing, &verified, err));
    const size_t oldest = oldest_kept(&listing, bases);
    for (size_t i = 0; i < listing.count; i++) {
        const struct kms_backup_file *file = &listing.files[i];
        if (oldest == listing.count)
            break;
        const bool keep =
            file->kind == KMS_BACKUP_BASE ? i >= oldest : is_needed(&listing, i, listing.files[oldest].seq);
        if (!keep)
            KMS_TRY(drop(directory, file, dry_run, &result, err));
    }
    if (!dry_run)
        KMS_TRY(kms_backup_target_sync(directory, err));
    result.bases_kept = verified.bases - result.bases_removed;
    *ret_result = result;
    return KMS_OK;
}
