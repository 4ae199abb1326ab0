/*
 * Purpose:   the parts of a running service: opened in order, joined, watched, reloaded and closed in reverse.
 * Owns:      every part.
 * Threads:   open, run and close from the main thread, with all signals blocked; one thread of its own pings the HSM.
 * Never:     serves before every check at start has passed.
 */
#ifndef KMS_DAEMON_DAEMON_H
#define KMS_DAEMON_DAEMON_H

#include "daemon/config.h"

struct kms_daemon;

/**
 * Open everything that the configuration names and begin to serve. Statuses of the parts; the text says what to do.
 * `config` must outlive the daemon.
 */
enum kms_status kms_daemon_open(const struct kms_config *config, struct kms_daemon **ret_daemon,
                                struct kms_error *err) KMS_MUST_USE;
/** One JSON line with the bound addresses on standard output, and READY=1 to the service manager. */
void kms_daemon_announce(const struct kms_daemon *daemon);
/** Handle signals and watch over the parts until SIGTERM or SIGINT. */
void kms_daemon_run(struct kms_daemon *daemon);
/** Drain, close, free; NULL-safe. False when the HSM hangs so that the process can only be left by _exit(). */
bool kms_daemon_close(struct kms_daemon *daemon);
/** Check what can be checked without opening the token, the database or a socket: the first policy and the CRL. */
enum kms_status kms_daemon_check(const struct kms_config *config, struct kms_error *err) KMS_MUST_USE;

#endif
