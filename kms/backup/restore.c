#include "backup/restore.h"

#include "core/clock.h"
#include "store/apply.h"

#include <string.h>

enum { RECORDS_AT_ONCE = 100000 };

/* A store that is being filled. */
struct filling {
    struct kms_store *store;
    struct kms_txn txn;
    uint64_t in_txn, done;
    const struct kms_backup_verify_options *options;
    uint64_t bytes, total;
};

static enum kms_status begin(struct filling *filling, struct kms_error *err)
{
    KMS_TRY(kms_txn_begin(filling->store, true, &filling->txn, err));
    filling->store->ops->changes.silence(filling->txn.txn);
    filling->in_txn = 0;
    return KMS_OK;
}

static enum kms_status take_record(void *context, const struct kms_backup_record *record,
                                   struct kms_error *err)
{
    struct filling *filling = context;
    struct kms_change change = {0};
    KMS_TRY(kms_changelog_decode(record->payload, &change, err));
    const enum kms_status status = kms_store_apply(filling->store, filling->txn.txn, &change, err);
    kms_change_clear(&change);
    KMS_TRY(status);
    filling->done++;
    if (++filling->in_txn < RECORDS_AT_ONCE)
        return KMS_OK;
    KMS_TRY(kms_txn_commit(&filling->txn, err));
    return begin(filling, err);
}

static bool pass_progress(void *context, uint64_t bytes)
{
    struct filling *filling = context;
    filling->bytes += bytes;
    return filling->options->progress == NULL ||
           filling->options->progress(filling->options->context, filling->bytes, filling->total);
}

/* The base that the verification has chosen. */
static const struct kms_backup_file *find_base(const struct kms_backup_listing *listing, const char *name)
{
    for (size_t i = 0; i < listing->count; i++)
        if (strcmp(listing->files[i].name, name) == 0)
            return &listing->files[i];
    return NULL;
}

/* Base, logs, and where the change log goes on. */
static enum kms_status fill(struct filling *filling, const struct kms_backup_keeper *keeper,
                            const char *directory, const struct kms_backup_listing *listing,
                            struct kms_backup_restore_result *result, struct kms_error *err)
{
    const struct kms_backup_visitor visitor = {filling, NULL, take_record, pass_progress};
    const struct kms_backup_file *base = find_base(listing, result->source.base);
    struct kms_backup_scan scan;
    struct kms_backup_chain chain;
    if (base == NULL)
        return kms_fail_public(err, KMS_TAMPERED, "the base %s is gone while it was being restored",
                               result->source.base);
    KMS_TRY(begin(filling, err));
    KMS_TRY(kms_backup_scan(keeper, directory, base, &visitor, &scan, err));
    result->from_base = filling->done;
    KMS_TRY(kms_backup_chain_read(keeper, directory, listing, base->seq, &visitor, &chain, err));
    result->from_logs = filling->done - result->from_base;
    result->source.newest_seq = chain.last_seq;
    KMS_TRY(filling->store->ops->changes.resume(filling->txn.txn, chain.last_seq, err));
    return kms_txn_commit(&filling->txn, err);
}

/* The target is good enough when a base leads to its newest change. */
static enum kms_status verify_first(const struct kms_backup_keeper *keeper, const char *directory,
                                    const struct kms_backup_verify_options *options,
                                    struct kms_backup_verify_result *result, struct kms_error *err)
{
    const enum kms_status status = kms_backup_verify(keeper, directory, options, result, err);
    return status == KMS_TAMPERED && result->restorable ? KMS_OK : status;
}

enum kms_status kms_backup_restore(const struct kms_backup_keeper *keeper, const char *directory,
                                   struct kms_store *store, const struct kms_backup_verify_options *options,
                                   struct kms_backup_restore_result *ret_result, struct kms_error *err)
{
    static const struct kms_backup_verify_options none;
    struct kms_backup_restore_result result = {0};
    struct filling filling = {.store = store, .options = options != NULL ? options : &none};
    KMS_TRY(verify_first(keeper, directory, filling.options, &result.source, err));
    KMS_CLEANUP(kms_backup_listing_clear) struct kms_backup_listing listing = {0};
    KMS_TRY(kms_backup_target_list(directory, &listing, err));
    filling.bytes = result.source.bytes;
    filling.total = 2 * result.source.bytes;
    const int64_t began = kms_clock_mono_ns();
    const enum kms_status status = fill(&filling, keeper, directory, &listing, &result, err);
    kms_txn_clear(&filling.txn);
    KMS_TRY(status);
    result.took_ns = kms_clock_mono_ns() - began;
    *ret_result = result;
    return KMS_OK;
}
