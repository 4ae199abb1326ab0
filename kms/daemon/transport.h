/*
 * Purpose:   the keys of a lost HSM come into a new token: kmsd --transport-key, and --restore with a transport capsule.
 * Owns:      a kms_transport owns what it has read, and knows which keys it has brought.
 * Threads:   main thread, instead of a daemon.
 * Never:     brings a master key that the restored database does not name: an older one would open what was shredded since.
 */
#ifndef KMS_DAEMON_TRANSPORT_H
#define KMS_DAEMON_TRANSPORT_H

#include "daemon/config.h"
#include "store/store.h"

/**
 * Make the transport key in the token, or find it, write its public half (PEM) into a new file and print its fingerprint as JSON.
 * FAILED_PRECONDITION: the file exists; statuses of kms_hsm_transport_run().
 */
enum kms_status kms_daemon_transport_key(const struct kms_config *config, const char *path,
                                         struct kms_error *err) KMS_MUST_USE;

struct kms_transport;
/**
 * Read a transport capsule, check that it is for this token's transport key, and bring the service's own keys, without which no backup opens.
 * FAILED_PRECONDITION: it is for another transport key, or the token holds another deployment's keys; TAMPERED: a key does not open;
 * INVALID_ARGUMENT: it is no transport capsule. After a failure the token is as it was.
 */
enum kms_status kms_transport_begin(const struct kms_config *config, const char *path,
                                    struct kms_transport **ret_transport, struct kms_error *err) KMS_MUST_USE;
/**
 * Bring the master keys that the restored database names. FAILED_PRECONDITION, with a text that names tenant and epoch: the capsule does not
 * hold one of them.
 */
enum kms_status kms_transport_bring_masters(struct kms_transport *transport, struct kms_store *store,
                                            struct kms_error *err) KMS_MUST_USE;
/**
 * All that was checked is good: the transport key goes, and then what was brought stays, whatever comes. While this fails it does not. Whoever
 * is interrupted behind it repeats the restore without the capsule, for the token has the keys.
 */
enum kms_status kms_transport_finish(struct kms_transport *transport, struct kms_error *err) KMS_MUST_USE;
/** Unless it is kept, take away what was brought, with a line in the log when that fails. NULL-safe. */
void kms_transport_free(struct kms_transport *transport);

#endif
