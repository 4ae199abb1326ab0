/*
 * Purpose:   small files beside the backups, in folders of their own: put into every target or reported, listed, removed.
 * Owns:      a thread for each target.
 * Threads:   every function but open and free from any thread.
 * Never:     lets a target that hangs hold up its caller past the deadline, or another target; follows a link; makes a target's own
 *            directory, for a mount that is missing is no target.
 *
 *     <target>/recovery/<folder>/<name>      mode 0600; directories 0700
 *     <target>/recovery/<folder>/.partial    a file that is being written, or was when its service ended
 *
 * A file is replaced as a whole (rename) and durable, with its name, when put returns OK. What a target could not do before the
 * deadline it does not do later, unless it had begun.
 */
#ifndef KMS_BACKUP_SHELF_H
#define KMS_BACKUP_SHELF_H

#include "backup/backup.h"
#include "backup/target.h"

#define KMS_SHELF_DIRECTORY KMS_BACKUP_CAPSULES

enum { KMS_SHELF_FOLDER_MAX = 64, KMS_SHELF_NAME_MAX = 80, KMS_SHELF_FILE_MAX = 64 * 1024 };

struct kms_shelf;

/** Start the threads. The directories are copied. NO_MEMORY. */
enum kms_status kms_shelf_open(const char *const *directories, size_t count, struct kms_shelf **ret_shelf,
                               struct kms_error *err) KMS_MUST_USE;
/** Ends the threads; one that hangs is left behind with what it uses. NULL-safe. */
void kms_shelf_free(struct kms_shelf *shelf);
size_t kms_shelf_targets(const struct kms_shelf *shelf);
const char *kms_shelf_target(const struct kms_shelf *shelf, size_t index);

/*
 * All of the following wait for every target until the deadline (mono ns). UNAVAILABLE, with a public text that names a target,
 * when one of them failed or has not answered: what the others have done is done. NO_MEMORY.
 */

/** The file is durable in every target. At most KMS_SHELF_FILE_MAX bytes (INVALID_ARGUMENT). */
enum kms_status kms_shelf_put(struct kms_shelf *shelf, const char *folder, const char *name,
                              struct kms_slice bytes, int64_t deadline_mono_ns,
                              struct kms_error *err) KMS_MUST_USE;
/** It is in no target any more, and that is durable. */
enum kms_status kms_shelf_remove(struct kms_shelf *shelf, const char *folder, const char *name,
                                 int64_t deadline_mono_ns, struct kms_error *err) KMS_MUST_USE;
/** The folder is in no target any more, with everything in it. */
enum kms_status kms_shelf_remove_folder(struct kms_shelf *shelf, const char *folder, int64_t deadline_mono_ns,
                                        struct kms_error *err) KMS_MUST_USE;

/** The names in one target's folder; `count` texts behind each other in `names`. */
struct kms_shelf_listing {
    bool known; /* false: the target has failed or not answered; then `failure` says how */
    struct kms_buf names;
    size_t count;
    char failure[KMS_BACKUP_TEXT_MAX];
};
/**
 * What lies in a folder, target by target; a folder that is missing is empty. `ret_listings` has kms_shelf_targets() entries, to be
 * cleared with kms_shelf_listing_clear(). OK also when targets have failed: each says so.
 */
enum kms_status kms_shelf_list(struct kms_shelf *shelf, const char *folder, int64_t deadline_mono_ns,
                               struct kms_shelf_listing *ret_listings, struct kms_error *err) KMS_MUST_USE;
void kms_shelf_listing_clear(struct kms_shelf_listing *listing);
/** Whether a name is in a listing. */
bool kms_shelf_listing_has(const struct kms_shelf_listing *listing, const char *name);

/**
 * A file as each target has it; `ret_copies` has kms_shelf_targets() empty buffers, which stay empty where it is not there, cannot be read or
 * does not come in time.
 */
enum kms_status kms_shelf_fetch(struct kms_shelf *shelf, const char *folder, const char *name,
                                int64_t deadline_mono_ns, struct kms_buf *ret_copies,
                                struct kms_error *err) KMS_MUST_USE;

/** A file of one target's directory, read on the caller's thread: for those who check a target. NOT_FOUND, IO, TOO_LARGE. */
enum kms_status kms_shelf_read(const char *directory, const char *folder, const char *name,
                               struct kms_buf *ret_bytes, struct kms_error *err) KMS_MUST_USE;

#endif
