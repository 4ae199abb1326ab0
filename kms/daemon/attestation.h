/*
 * Purpose:   joins the HSM's attestation key with the audit log: which key it is, and checkpoints signed with it.
 * Owns:      the checkpoints and the outbox that takes them out of the machine.
 * Threads:   open, start and stop from the main thread; the checkpoints have threads of their own.
 * Never:     holds up a commit of the audit log.
 */
#ifndef KMS_DAEMON_ATTESTATION_H
#define KMS_DAEMON_ATTESTATION_H

#include "audit/checkpoints.h"
#include "daemon/config.h"
#include "evidence/signature.h"
#include "hsm/hsm.h"

enum { KMS_PREDECESSORS_MAX = 16 };
/** Public keys of HSMs that were lost: what they have signed counts. Zero-initialised = none. */
struct kms_predecessors {
    struct kms_buf pem[KMS_PREDECESSORS_MAX];
    struct kms_slice list[KMS_PREDECESSORS_MAX];
    size_t count;
};
/** Those that the configuration names; in place, for the list points into it. CONFIG_INVALID: a file is no such key. */
enum kms_status kms_predecessors_load(const struct kms_config *config, struct kms_predecessors *predecessors,
                                      struct kms_error *err) KMS_MUST_USE;
void kms_predecessors_clear(struct kms_predecessors *predecessors);

struct kms_attestation {
    struct kms_hsm *hsm;
    struct kms_uuid start_id; /* of this start of the daemon, in the audit log */
    char key_id[KMS_EVIDENCE_KEY_ID_SIZE];
    struct kms_audit_outbox *outbox;
    struct kms_audit_checkpoints *checkpoints;
};

/** Name the key of this HSM and this start. Statuses of kms_hsm_attestation_public_pem(). */
enum kms_status kms_attestation_open(struct kms_hsm *hsm, struct kms_attestation *ret_attestation,
                                     struct kms_error *err) KMS_MUST_USE;
/** Begin to make checkpoints of the log. `attestation` stays where it is until kms_attestation_stop(). */
enum kms_status kms_attestation_start(struct kms_attestation *attestation, const struct kms_config *config,
                                      struct kms_audit *audit, struct kms_error *err) KMS_MUST_USE;
/**
 * A last checkpoint, and the end. False, after a line in the log, when the HSM or the second directory hangs: then the
 * threads go on to use HSM and log, which must not be freed.
 */
bool kms_attestation_stop(struct kms_attestation *attestation);

#endif
