/*
 * Purpose:   the thread that gets a lost device back.
 * Owns:      the connection while the gate is closed and nobody is behind it.
 * Threads:   one of its own per kms_hsm.
 * Never:     finalises Cryptoki while a call is under way; gives up, except where going on would lock the PIN.
 */
#ifndef KMS_HSM_P11_RECOVER_H
#define KMS_HSM_P11_RECOVER_H

#include "hsm/p11_state.h"

/** Start the thread; the gate is open. NO_MEMORY. */
enum kms_status kms_p11_recover_start(struct kms_p11 *p11, struct kms_error *err) KMS_MUST_USE;
/**
 * Close the gate for good and end the thread. False when it hangs in the module and cannot be ended, or somebody
 * is still behind the gate: then nothing may be freed.
 */
bool kms_p11_recover_stop(struct kms_p11 *p11) KMS_MUST_USE;

#endif
