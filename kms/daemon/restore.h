/*
 * Purpose:   kmsd --restore: rebuild the database from a backup target, while no service runs.
 * Owns:      nothing.
 * Threads:   main thread, instead of a daemon.
 * Never:     touches an existing database; leaves a half-made one under its name; destroys a key that it has not brought itself,
 *            except the transport key, when all that was checked is good.
 */
#ifndef KMS_DAEMON_RESTORE_H
#define KMS_DAEMON_RESTORE_H

#include "daemon/config.h"

struct kms_restore_order {
    const char *directory; /* the target */
    const char *
        transport_capsule; /* file with the keys of a lost HSM, for this new token; NULL: the token has them */
    bool dry_run;
    bool prove; /* open every key before the restore counts (keys/prove.h) */
};

/**
 * Restore from the target to config->store.path, where nothing may be: built beside it, compared with the HSM, and
 * renamed at the end. With a transport capsule its keys come into the token first, a new
 * attestation key is made there, and what this has brought is taken away again when a check fails. With `dry_run` everything but the
 * rename is done. Prints one JSON object on standard output that says what
 * is (or would be) back, and progress on standard error when that is a terminal. FAILED_PRECONDITION: there is a database already,
 * or the HSM holds a newer epoch of a tenant than the backup, or, with a transport capsule, any master key that the backup does not explain:
 * the text says what to do. Else as kms_backup_restore().
 */
enum kms_status kms_daemon_restore(const struct kms_config *config, const struct kms_restore_order *order,
                                   struct kms_error *err) KMS_MUST_USE;

#endif
