#include "backup/scan.h"

#include <stdio.h>

/* The reading of a chain: what was reached, and who wants the records. */
struct walk {
    const struct kms_backup_keeper *keeper;
    const char *directory;
    uint64_t from;
    const struct kms_backup_visitor *visitor;
    struct kms_backup_chain chain;
    char last_name[KMS_BACKUP_NAME_SIZE]; /* of the log that `chain.end` is of */
};

/* Only what the base does not hold yet. */
static enum kms_status pass_record(void *context, const struct kms_backup_record *record,
                                   struct kms_error *err)
{
    const struct walk *walk = context;
    if (record->seq <= walk->from || walk->visitor->record == NULL)
        return KMS_OK;
    return walk->visitor->record(walk->visitor->context, record, err);
}

static bool pass_progress(void *context, uint64_t bytes)
{
    const struct walk *walk = context;
    return walk->visitor->progress == NULL || walk->visitor->progress(walk->visitor->context, bytes);
}

/* A log must go on exactly where the one before it has ended. */
static enum kms_status check_link(void *context, const struct kms_backup_header *header,
                                  struct kms_error *err)
{
    const struct walk *walk = context;
    const struct kms_backup_end *stated = &header->previous;
    const struct kms_backup_end *found = &walk->chain.end;
    if (kms_uuid_is_zero(&found->file)) {
        if (header->seq <= walk->from)
            return KMS_OK;
        return kms_fail_public(err, KMS_TAMPERED,
                               "the log before it, which leads on from change %llu, is missing",
                               (unsigned long long)walk->from);
    }
    if (!kms_uuid_equal(&stated->file, &found->file))
        return kms_fail_public(err, KMS_TAMPERED, "the log between %s and this one is missing",
                               walk->last_name);
    if (stated->frames != found->frames || memcmp(stated->tag, found->tag, sizeof found->tag) != 0)
        return kms_fail_public(
            err, KMS_TAMPERED, "the one before it, %s, was cut: it holds %llu frames instead of %llu",
            walk->last_name, (unsigned long long)found->frames, (unsigned long long)stated->frames);
    if (header->seq != walk->chain.last_seq)
        return kms_fail_public(err, KMS_TAMPERED, "it begins after change %llu instead of %llu",
                               (unsigned long long)header->seq, (unsigned long long)walk->chain.last_seq);
    return KMS_OK;
}

/* One more log; one without a frame was begun and never used. */
static enum kms_status take_log(struct walk *walk, const struct kms_backup_file *file, struct kms_error *err)
{
    const struct kms_backup_visitor pass = {walk, check_link, pass_record, pass_progress};
    struct kms_backup_scan scan;
    KMS_TRY(kms_backup_scan(walk->keeper, walk->directory, file, &pass, &scan, err));
    if (scan.place.end.frames == 0) {
        walk->chain.empty++;
        return KMS_OK;
    }
    walk->chain.end = scan.place.end;
    walk->chain.last_seq = scan.last_seq;
    walk->chain.torn = scan.torn;
    walk->chain.logs++;
    memcpy(walk->last_name, file->name, sizeof walk->last_name);
    return KMS_OK;
}

/* The log in which the change after `from` is or would be: the last that begins at or before it. */
static size_t first_log(const struct kms_backup_listing *listing, uint64_t from)
{
    size_t first = listing->count;
    for (size_t i = 0; i < listing->count; i++) {
        if (listing->files[i].kind != KMS_BACKUP_LOG)
            continue;
        if (first == listing->count || listing->files[i].seq <= from)
            first = i;
    }
    /* several that begin with the same change: all but one are empty, and the walk passes over those */
    while (first > 0 && first < listing->count && listing->files[first - 1].kind == KMS_BACKUP_LOG &&
           listing->files[first - 1].seq == listing->files[first].seq)
        first--;
    return first;
}

enum kms_status kms_backup_chain_read(const struct kms_backup_keeper *keeper, const char *directory,
                                      const struct kms_backup_listing *listing, uint64_t from,
                                      const struct kms_backup_visitor *visitor,
                                      struct kms_backup_chain *ret_chain, struct kms_error *err)
{
    struct walk walk = {.keeper = keeper, .directory = directory, .from = from, .visitor = visitor};
    walk.chain.last_seq = from;
    for (size_t i = first_log(listing, from); i < listing->count; i++)
        if (listing->files[i].kind == KMS_BACKUP_LOG)
            KMS_TRY(take_log(&walk, &listing->files[i], err));
    if (walk.chain.last_seq < from)
        return kms_fail_public(
            err, KMS_TAMPERED,
            "the logs end with change %llu, but a base was made of change %llu: the end of the last log "
            "is missing",
            (unsigned long long)walk.chain.last_seq, (unsigned long long)from);
    *ret_chain = walk.chain;
    return KMS_OK;
}
