/*
 * Purpose:   what a shelf does in one target's directory.
 * Owns:      nothing.
 * Threads:   no shared state; may block for as long as the file system does.
 * Never:     follows a link, or leaves half of a file under its name.
 */
#ifndef KMS_BACKUP_SHELF_FILES_H
#define KMS_BACKUP_SHELF_FILES_H

#include "backup/shelf.h"

/* Of one target; statuses NOT_FOUND and IO with a public text. */
enum kms_status kms_shelf_files_put(const char *directory, const char *folder, const char *name,
                                    struct kms_slice bytes, struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_shelf_files_remove(const char *directory, const char *folder, const char *name,
                                       struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_shelf_files_remove_folder(const char *directory, const char *folder,
                                              struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_shelf_files_list(const char *directory, const char *folder,
                                     struct kms_shelf_listing *listing, struct kms_error *err) KMS_MUST_USE;

#endif
