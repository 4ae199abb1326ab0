/*
 * Purpose:   recovery capsules and transport capsules: keys of the service, wrapped in the HSM for somebody else's private key.
 * Owns:      the form of the files below; a kms_capsule owns its list of keys.
 * Threads:   no shared state.
 * Never:     sees a key that is not wrapped; takes a file whose bytes are not exactly what its content would be written as.
 *
 * A file is one line of compact JSON with sorted keys, a newline, and then
 *
 *   recovery capsule    base64 of the attestation key's signature (DER) over the line without its newline, and a newline. By hand:
 *                       head -n1 F | tr -d '\n' >line; tail -n1 F | base64 -d >sig; openssl dgst -sha256 -verify att.pem -signature sig line
 *   transport capsule   nothing: the attestation key is lost with the HSM. What authenticates it is that its backup key opens the backup.
 *
 *   {"deployment":HEX,"epoch":N,"format":"kms.capsule.v1","keys":[KEY...],"made":TIME,"recovery_epoch":N,"recovery_key":HEX,"tenant":UUID}
 *   {"deployment":HEX,"format":"kms.transport.v1","keys":[KEY...],"made":TIME,"transport_key":HEX}
 *   KEY: {"id":HEX,"label":TEXT,"mechanism":"RSA-OAEP-SHA1|RSA-OAEP-SHA256","role":"master|integrity|backup","wrapped":BASE64}
 *
 * "deployment" is the CKA_ID of the backup key, by which backup files know their deployment. "recovery_key" and "transport_key" are
 * SHA-256 over the DER SubjectPublicKeyInfo, as kms_signature_key_id() tells. A recovery capsule holds either the service's own keys
 * ("tenant" is empty, "epoch" 0, one integrity and one backup key) or the master key of one tenant's epoch. A transport capsule
 * holds what one restore needs: the service's own keys and any number of master keys, each with another id.
 */
#ifndef KMS_EVIDENCE_CAPSULE_H
#define KMS_EVIDENCE_CAPSULE_H

#include "core/bytes.h"
#include "core/clock.h"
#include "core/ids.h"

#define KMS_CAPSULE_FORMAT   "kms.capsule.v1"
#define KMS_TRANSPORT_FORMAT "kms.transport.v1"

enum {
    KMS_CAPSULE_MAX = 64 * 1024,          /* bytes of a recovery capsule's file */
    KMS_TRANSPORT_MAX = 16 * 1024 * 1024, /* bytes of a transport capsule's file */
    KMS_TRANSPORT_KEYS_MAX = 16384,
    KMS_CAPSULE_ID_SIZE = 16, /* CKA_ID of a token key */
    KMS_CAPSULE_LABEL_SIZE = 65,
    KMS_CAPSULE_KEY_NAME_SIZE = 65, /* fingerprint in hex, with its NUL */
    KMS_CAPSULE_DEPLOYMENT_SIZE = 33,
    KMS_CAPSULE_WRAPPED_MIN = 384, /* RSA-3072 */
    KMS_CAPSULE_WRAPPED_MAX = 512, /* RSA-4096 */
    KMS_CAPSULE_NAME_SIZE = 64     /* of a file, with its NUL */
};

enum kms_capsule_role { KMS_CAPSULE_MASTER, KMS_CAPSULE_INTEGRITY, KMS_CAPSULE_BACKUP };
/** RSA-OAEP (RFC 8017) with this hash for both the label, which is empty, and MGF1. */
enum kms_capsule_mechanism { KMS_CAPSULE_OAEP_SHA1, KMS_CAPSULE_OAEP_SHA256 };

struct kms_capsule_key {
    enum kms_capsule_role role;
    enum kms_capsule_mechanism mechanism;
    uint8_t id[KMS_CAPSULE_ID_SIZE];
    char label[KMS_CAPSULE_LABEL_SIZE]; /* "kms/integrity", "kms/backup", "kms/<tenant uuid>/<epoch>" */
    uint8_t wrapped[KMS_CAPSULE_WRAPPED_MAX];
    size_t wrapped_len;
};

struct kms_capsule {
    bool transport;                               /* which of the two forms */
    char deployment[KMS_CAPSULE_DEPLOYMENT_SIZE]; /* hex */
    char wrapping_key[KMS_CAPSULE_KEY_NAME_SIZE]; /* fingerprint of the recovery or transport key, hex */
    char made[KMS_TIME_TEXT_SIZE];                /* kms_clock_format() */
    uint64_t recovery_epoch;                      /* from 1; 0 in a transport capsule */
    struct kms_uuid tenant; /* zero: the service's own keys; zero in a transport capsule */
    uint64_t epoch;         /* of the master key, from 1; else 0 */
    struct kms_capsule_key *keys;
    size_t count;
};

void kms_capsule_clear(struct kms_capsule *capsule);

/** "service.capsule" or "<tenant uuid>.<epoch>.capsule". Returns `out`. */
const char *kms_capsule_name(const struct kms_uuid *tenant, uint64_t epoch, char out[KMS_CAPSULE_NAME_SIZE]);
/** What such a name says; the tenant is zero for the service's own. False for any other name. */
bool kms_capsule_name_parse(const char *name, struct kms_uuid *ret_tenant, uint64_t *ret_epoch);
/** What a label says of a master key: "kms/<tenant uuid>/<epoch>". False for any other label. */
bool kms_capsule_master_label(const char *label, struct kms_uuid *ret_tenant, uint64_t *ret_epoch);

/**
 * The line, without its newline; appended to `line`. INVALID_ARGUMENT when the capsule is not of the form above, so that none is written
 * that would not be read; NO_MEMORY.
 */
enum kms_status kms_capsule_encode(const struct kms_capsule *capsule, struct kms_buf *line,
                                   struct kms_error *err) KMS_MUST_USE;
/** The file of a recovery capsule from its line and signature; appended to `file`. NO_MEMORY. */
enum kms_status kms_capsule_seal(struct kms_slice line, struct kms_slice signature, struct kms_buf *file,
                                 struct kms_error *err) KMS_MUST_USE;
/** The file of a transport capsule; appended to `file`. INVALID_ARGUMENT, NO_MEMORY. */
enum kms_status kms_capsule_write_transport(const struct kms_capsule *capsule, struct kms_buf *file,
                                            struct kms_error *err) KMS_MUST_USE;

/**
 * A recovery capsule's file whose signature is that of the key in `attestation_pem`. TAMPERED when it is not; INVALID_ARGUMENT says what
 * is of another form, or that the file is from a newer version; NO_MEMORY. The signature is checked before the line is parsed. Clear
 * *ret_capsule with kms_capsule_clear(); it is written only on success.
 */
enum kms_status kms_capsule_open(struct kms_slice file, struct kms_slice attestation_pem,
                                 struct kms_capsule *ret_capsule, struct kms_error *err) KMS_MUST_USE;
/** A transport capsule's file; nothing vouches for it yet. INVALID_ARGUMENT, NO_MEMORY. */
enum kms_status kms_capsule_open_transport(struct kms_slice file, struct kms_capsule *ret_capsule,
                                           struct kms_error *err) KMS_MUST_USE;
/** A line of either form, believed as it is: for what was authenticated otherwise, and for tests. INVALID_ARGUMENT, NO_MEMORY. */
enum kms_status kms_capsule_parse(struct kms_slice line, struct kms_capsule *ret_capsule,
                                  struct kms_error *err) KMS_MUST_USE;

#endif
