#include "backup/scan.h"

#include "core/cleanup.h"

#include <stdlib.h>

static void cleanup_reader(struct kms_backup_reader **reader)
{
    kms_backup_reader_free(*reader);
}

/* Put the file's name before what is wrong with it. */
static enum kms_status about(const char *name, enum kms_status status, struct kms_error *err)
{
    char text[sizeof((struct kms_error *)0)->public_text];
    if (err == NULL)
        return status;
    (void)snprintf(text, sizeof text, "%s", kms_error_cause(err, status));
    return kms_fail_public(err, status, "backup file %s: %.220s", name, text);
}

/* Changes of a log are numbered one after the other. */
static enum kms_status take_record(const struct kms_backup_record *record,
                                   const struct kms_backup_visitor *visitor, struct kms_backup_scan *scan,
                                   struct kms_error *err)
{
    if (scan->place.header.kind == KMS_BACKUP_LOG) {
        if (record->seq != scan->last_seq + 1)
            return kms_fail_public(err, KMS_TAMPERED, "change %llu follows on %llu",
                                   (unsigned long long)record->seq, (unsigned long long)scan->last_seq);
        scan->last_seq = record->seq;
    }
    scan->records++;
    return visitor->record != NULL ? visitor->record(visitor->context, record, err) : KMS_OK;
}

/* All records of the open frame, and the progress that it makes. */
static enum kms_status take_frame(struct kms_backup_reader *reader, const struct kms_backup_visitor *visitor,
                                  struct kms_backup_scan *scan, struct kms_error *err)
{
    for (;;) {
        struct kms_backup_record record;
        const enum kms_status status = kms_backup_reader_record(reader, &record, err);
        if (status == KMS_NOT_FOUND)
            break;
        KMS_TRY(status);
        KMS_TRY(take_record(&record, visitor, scan, err));
    }
    const uint64_t before = scan->place.offset;
    scan->place = *kms_backup_reader_place(reader);
    if (visitor->progress != NULL && !visitor->progress(visitor->context, scan->place.offset - before))
        return kms_fail_public(err, KMS_CANCELLED, "stopped");
    return KMS_OK;
}

/* The name is only a name: the header decides, and both must agree. */
static enum kms_status check_name(const struct kms_backup_file *file, const struct kms_backup_header *header,
                                  struct kms_error *err)
{
    char name[KMS_BACKUP_NAME_SIZE];
    kms_backup_name(header, name);
    return strcmp(name, file->name) == 0 ? KMS_OK
                                         : kms_fail_public(err, KMS_TAMPERED, "was renamed: it is %s", name);
}

static enum kms_status scan_frames(struct kms_backup_reader *reader, const struct kms_backup_file *file,
                                   const struct kms_backup_visitor *visitor, struct kms_backup_scan *scan,
                                   struct kms_error *err)
{
    scan->place = *kms_backup_reader_place(reader);
    scan->last_seq = scan->place.header.seq;
    KMS_TRY(check_name(file, &scan->place.header, err));
    if (visitor->opened != NULL)
        KMS_TRY(visitor->opened(visitor->context, &scan->place.header, err));
    for (;;) {
        const enum kms_status status = kms_backup_reader_frame(reader, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        if (status == KMS_OUT_OF_RANGE) {
            scan->torn = true;
            return KMS_OK;
        }
        KMS_TRY(status);
        KMS_TRY(take_frame(reader, visitor, scan, err));
    }
}

enum kms_status kms_backup_scan(const struct kms_backup_keeper *keeper, const char *directory,
                                const struct kms_backup_file *file, const struct kms_backup_visitor *visitor,
                                struct kms_backup_scan *ret_scan, struct kms_error *err)
{
    KMS_CLOSE int fd = -1;
    KMS_CLEANUP(cleanup_reader) struct kms_backup_reader *reader = NULL;
    struct kms_backup_scan scan = {0};
    KMS_TRY(kms_backup_target_open(directory, file->name, &fd, err));
    enum kms_status status = kms_backup_reader_new(keeper, fd, &reader, err);
    if (status == KMS_OUT_OF_RANGE)
        scan.torn = true;
    else if (status == KMS_OK)
        status = scan_frames(reader, file, visitor, &scan, err);
    if (status != KMS_OK && !scan.torn)
        return about(file->name, status, err);
    *ret_scan = scan;
    return KMS_OK;
}
