/*
 * Purpose:   asks the HSM about every second whether it really works, on a thread of its own, because a hung device would
 *            hang whoever asks.
 * Owns:      its thread.
 * Threads:   start and stop from the main thread; the verdict from any.
 * Never:     waits for the device in kms_pinger_healthy().
 */
#ifndef KMS_DAEMON_PINGER_H
#define KMS_DAEMON_PINGER_H

#include "hsm/hsm.h"

struct kms_pinger;

enum kms_status kms_pinger_start(struct kms_hsm *hsm, struct kms_pinger **ret_pinger,
                                 struct kms_error *err) KMS_MUST_USE;
/** True when the last ping was answered well and not too long ago. */
bool kms_pinger_healthy(struct kms_pinger *pinger);
/** Stop and free; NULL-safe. False when the device hangs: then thread and pinger are left behind. */
bool kms_pinger_stop(struct kms_pinger *pinger);

#endif
