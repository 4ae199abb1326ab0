#include "daemon/attestation.h"

#include "audit/checkpoint.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/log.h"

/* How long signing a last checkpoint, and bringing it into the second directory, may hold up the end. */
#define SIGN_PATIENCE_NS   (10 * KMS_NS_PER_SECOND)
#define OUTBOX_PATIENCE_NS (3 * KMS_NS_PER_SECOND)

enum kms_status kms_predecessors_load(const struct kms_config *config, struct kms_predecessors *predecessors,
                                      struct kms_error *err)
{
    for (uint32_t i = 0; i < config->hsm.attestation_predecessors_count; i++) {
        const char *path = config->hsm.attestation_predecessors[i];
        struct kms_buf *pem = &predecessors->pem[predecessors->count];
        char key_id[KMS_EVIDENCE_KEY_ID_SIZE];
        KMS_TRY(kms_file_read(path, KMS_EVIDENCE_PEM_MAX, pem, err));
        if (kms_signature_key_id(kms_buf_slice(pem), key_id, NULL) != KMS_OK)
            return kms_fail_public(err, KMS_CONFIG_INVALID,
                                   "hsm.attestation_predecessors: %s holds no public key of an HSM (PEM)",
                                   path);
        predecessors->list[predecessors->count++] = kms_buf_slice(pem);
    }
    return KMS_OK;
}

void kms_predecessors_clear(struct kms_predecessors *predecessors)
{
    for (size_t i = 0; i < KMS_PREDECESSORS_MAX; i++)
        kms_buf_clear(&predecessors->pem[i]);
    predecessors->count = 0;
}

enum kms_status kms_attestation_open(struct kms_hsm *hsm, struct kms_attestation *ret_attestation,
                                     struct kms_error *err)
{
    struct kms_attestation attestation = {.hsm = hsm, .start_id = kms_uuid_random()};
    KMS_FREE char *pem = NULL;
    KMS_TRY(kms_hsm_attestation_public_pem(hsm, &pem, err));
    KMS_TRY(kms_signature_key_id(kms_slice_str(pem), attestation.key_id, err));
    *ret_attestation = attestation;
    return KMS_OK;
}

/* The audit log knows no HSM. */
static enum kms_status sign(void *context, struct kms_slice message, uint8_t *ret_signature, size_t *ret_len,
                            struct kms_error *err)
{
    _Static_assert((int)KMS_HSM_SIGNATURE_MAX <= (int)KMS_AUDIT_SIGNATURE_MAX, "a signature must fit");
    const struct kms_attestation *attestation = context;
    return kms_hsm_sign(attestation->hsm, message, ret_signature, ret_len, err);
}

enum kms_status kms_attestation_start(struct kms_attestation *attestation, const struct kms_config *config,
                                      struct kms_audit *audit, struct kms_error *err)
{
    const char *syslog_socket =
        config->audit.syslog_socket != NULL ? config->audit.syslog_socket : "/dev/log";
    const struct kms_audit_outbox_config outbox = {
        .syslog_socket = syslog_socket[0] != '\0' ? syslog_socket : NULL,
        .directory = config->audit.second_directory,
        .audit = audit,
    };
    KMS_TRY(kms_audit_outbox_new(&outbox, &attestation->outbox, err));
    const struct kms_audit_checkpoints_config checkpoints = {
        .audit = audit,
        .outbox = attestation->outbox,
        .sign = sign,
        .sign_context = attestation,
        .key_id = attestation->key_id,
        .daemon = attestation->start_id,
        .records = config->audit.checkpoint_records,
        .interval_ns = config->audit.checkpoint_seconds * KMS_NS_PER_SECOND,
    };
    return kms_audit_checkpoints_start(&checkpoints, &attestation->checkpoints, err);
}

bool kms_attestation_stop(struct kms_attestation *attestation)
{
    if (!kms_audit_checkpoints_stop(attestation->checkpoints, SIGN_PATIENCE_NS)) {
        kms_log_error("daemon", "the HSM hangs in a signature");
        return false;
    }
    attestation->checkpoints = NULL;
    if (!kms_audit_outbox_free(attestation->outbox, OUTBOX_PATIENCE_NS)) {
        kms_log_error("daemon", "the second directory of the audit log hangs");
        return false;
    }
    attestation->outbox = NULL;
    return true;
}
