#include "backup/verify.h"

#include "core/cleanup.h"

#include <stdio.h>

/* One verification under way. */
struct check {
    const struct kms_backup_keeper *keeper;
    const char *directory;
    const struct kms_backup_verify_options *options;
    struct kms_backup_listing listing;
    struct kms_backup_verify_result result;
    uint64_t total;
    struct kms_error first; /* finding */
};

/* Failures of the machine end the verification, those of the files are findings. */
static bool is_finding(enum kms_status status)
{
    return status == KMS_TAMPERED || status == KMS_STORE_NEWER || status == KMS_FAILED_PRECONDITION ||
           status == KMS_NOT_FOUND;
}

static void note_finding(struct check *check, enum kms_status status, const struct kms_error *err)
{
    if (check->result.findings++ == 0)
        check->first = *err;
    if (check->options->finding != NULL)
        check->options->finding(check->options->context, kms_error_public(err, status));
}

static enum kms_status count_record(void *context, const struct kms_backup_record *record,
                                    struct kms_error *err)
{
    (void)record, (void)err;
    ((struct check *)context)->result.records++;
    return KMS_OK;
}

static bool count_bytes(void *context, uint64_t bytes)
{
    struct check *check = context;
    check->result.bytes += bytes;
    return check->options->progress == NULL ||
           check->options->progress(check->options->context, check->result.bytes, check->total);
}

/* Whether a base is whole. */
static enum kms_status check_base(struct check *check, const struct kms_backup_file *file, bool *ret_good,
                                  struct kms_error *err)
{
    const struct kms_backup_visitor visitor = {check, NULL, count_record, count_bytes};
    struct kms_backup_scan scan = {0};
    struct kms_error found = {0};
    enum kms_status status = kms_backup_scan(check->keeper, check->directory, file, &visitor, &scan, &found);
    if (status == KMS_OK && !scan.place.closed)
        status = kms_fail_public(&found, KMS_TAMPERED, "backup file %s: its end is missing", file->name);
    *ret_good = status == KMS_OK;
    check->result.bases++;
    if (status == KMS_OK)
        return KMS_OK;
    if (!is_finding(status)) {
        *err = found;
        return status;
    }
    note_finding(check, status, &found);
    return KMS_OK;
}

/* The chain from one base to the newest log; a gap is a finding, and a later base may lie behind it. */
static enum kms_status check_chain(struct check *check, const struct kms_backup_file *base,
                                   bool *ret_leads_on, struct kms_error *err)
{
    const struct kms_backup_visitor visitor = {check, NULL, count_record, count_bytes};
    struct kms_backup_chain chain = {0};
    struct kms_error found = {0};
    const enum kms_status status = kms_backup_chain_read(check->keeper, check->directory, &check->listing,
                                                         base->seq, &visitor, &chain, &found);
    *ret_leads_on = status == KMS_OK;
    if (status == KMS_OK) {
        check->result.logs = chain.logs;
        check->result.newest_seq = chain.last_seq;
        check->result.torn = chain.torn;
        return KMS_OK;
    }
    if (!is_finding(status)) {
        *err = found;
        return status;
    }
    note_finding(check, status, &found);
    return KMS_OK;
}

/*
 * Every base is read; the logs are read once, from the oldest base that leads to their end: what a later base leads to is
 * then known as well.
 */
static enum kms_status check_all(struct check *check, struct kms_error *err)
{
    bool leads_on = false;
    for (size_t i = 0; i < check->listing.count; i++) {
        const struct kms_backup_file *file = &check->listing.files[i];
        bool good = false;
        if (file->kind != KMS_BACKUP_BASE)
            continue;
        KMS_TRY(check_base(check, file, &good, err));
        if (good && !leads_on)
            KMS_TRY(check_chain(check, file, &leads_on, err));
        if (good && leads_on && file->seq > check->result.newest_seq) {
            struct kms_error found = {0};
            check->result.restorable = false;
            note_finding(check,
                         kms_fail_public(
                             &found, KMS_TAMPERED,
                             "the logs end with change %llu, before the base %s: the newest log is missing",
                             (unsigned long long)check->result.newest_seq, file->name),
                         &found);
        } else if (good && leads_on) {
            check->result.restorable = true;
            check->result.base_seq = file->seq;
            memcpy(check->result.base, file->name, sizeof check->result.base);
        }
    }
    return KMS_OK;
}

enum kms_status kms_backup_verify(const struct kms_backup_keeper *keeper, const char *directory,
                                  const struct kms_backup_verify_options *options,
                                  struct kms_backup_verify_result *ret_result, struct kms_error *err)
{
    static const struct kms_backup_verify_options none;
    struct check check = {
        .keeper = keeper, .directory = directory, .options = options != NULL ? options : &none};
    KMS_TRY(kms_backup_target_list(directory, &check.listing, err));
    for (size_t i = 0; i < check.listing.count; i++)
        check.total += check.listing.files[i].size;
    check.result.foreign = check.listing.foreign;
    const enum kms_status status = check_all(&check, err);
    kms_backup_listing_clear(&check.listing);
    KMS_TRY(status);
    *ret_result = check.result;
    if (check.result.bases == 0)
        return kms_fail_public(err, KMS_NOT_FOUND, "there is no base backup in %s", directory);
    if (check.result.findings > 0)
        return kms_fail_public(err, KMS_TAMPERED, "%s", kms_error_public(&check.first, KMS_TAMPERED));
    return KMS_OK;
}
