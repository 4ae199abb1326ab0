/*
 * Purpose:   the directory of a backup target: names of files, finding them, making and syncing them.
 * Owns:      nothing.
 * Threads:   no shared state.
 * Never:     overwrites a file, follows a link, or believes a name: what a file is, its header says.
 *
 *     base-<seq, 20 digits>-<time of creation in ns, 16 hex digits>.kmsb
 *     log-<seq, 20 digits>-<time of creation in ns, 16 hex digits>.kmsb
 *     recovery/       capsules of recovery keys: backup/shelf.h
 *     .partial-...    a base that is being written, or was when its service ended
 */
#ifndef KMS_BACKUP_TARGET_H
#define KMS_BACKUP_TARGET_H

#include "backup/container.h"

#define KMS_BACKUP_CAPSULES "recovery"

enum { KMS_BACKUP_NAME_SIZE = 64, KMS_BACKUP_FILES_MAX = 1000000 };

/** A file as its name tells. */
struct kms_backup_file {
    enum kms_backup_kind kind;
    uint64_t seq;
    uint64_t size;      /* bytes */
    int64_t created_ns; /* wall clock */
    char name[KMS_BACKUP_NAME_SIZE];
};

struct kms_backup_listing {
    struct kms_backup_file *files; /* by seq, at equal seq bases first, then by creation */
    size_t count;
    size_t foreign; /* names that no service makes */
};

/** A system call on a target's files has failed (errno): "cannot <what> <name>: <why>". NOT_FOUND for what is not there; else IO. */
enum kms_status kms_backup_io_failed(const char *what, const char *name, struct kms_error *err);
/** The name of the file with that header. */
void kms_backup_name(const struct kms_backup_header *header, char out[KMS_BACKUP_NAME_SIZE]);
/** What a name tells: kind, seq and time; nothing else is set. False when no service makes such a name. */
bool kms_backup_name_parse(const char *name, struct kms_backup_file *ret_file);
/** NOT_FOUND: there is no such directory; IO; NO_MEMORY; TOO_LARGE. */
enum kms_status kms_backup_target_list(const char *directory, struct kms_backup_listing *ret_listing,
                                       struct kms_error *err) KMS_MUST_USE;
void kms_backup_listing_clear(struct kms_backup_listing *listing);

/** Open for reading; IO, also for what is no regular file. The caller closes it. */
enum kms_status kms_backup_target_open(const char *directory, const char *name, int *ret_descriptor,
                                       struct kms_error *err) KMS_MUST_USE;
/** A new file, mode 0600; IO when it exists. */
enum kms_status kms_backup_target_create(const char *directory, const char *name, int *ret_descriptor,
                                         struct kms_error *err) KMS_MUST_USE;
/** All bytes behind what was written. IO. */
enum kms_status kms_backup_target_write(int descriptor, struct kms_slice bytes,
                                        struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_backup_target_rename(const char *directory, const char *from, const char *to,
                                         struct kms_error *err) KMS_MUST_USE;
/** OK also when it is gone already. */
enum kms_status kms_backup_target_remove(const char *directory, const char *name,
                                         struct kms_error *err) KMS_MUST_USE;
/** Make names durable. */
enum kms_status kms_backup_target_sync(const char *directory, struct kms_error *err) KMS_MUST_USE;

#endif
