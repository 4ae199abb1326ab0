/*
 * Purpose:   certificates of destruction, as anybody can check them from files alone.
 * Owns:      the form of the documents below; a kms_certificate owns what it has parsed.
 * Threads:   no shared state.
 * Never:     believes a document before its signature was checked: that is kms_signature_verify() over its exact bytes.
 *
 * A certificate is compact JSON with sorted keys, signed by the attestation key of the HSM (detached, DER). It covers one batch,
 * which is one customer or thousands, with the fields of NIST SP 800-88 Rev. 1, Appendix G:
 *
 *   {"approvals":[{"identity","person","time"}...], "audit":{"hash","seq"}, "batch":UUID, "certificate":UUID, "created":TIME,
 *    "destroyed":{"count":N,"customers":N,"keys":N,"root":HEX,"tree":"RFC 6962 SHA-256"[,"customer":UUID]},
 *    "development":true|false, "format":"kms.certificate.destruction.v1",
 *    "keys":{"new_epoch","new_master_id","old_epoch","old_master_id"},
 *    "media":{"erase_class":"A|B|C","firmware","label","manufacturer","model","serial","type"},
 *    "operation":{"digest","requester","uid"}, "pages":{"changed":N,"digest":HEX}, "remaining":[TEXT...],
 *    "sanitization":{"category","destroyed_time","method","standard","technique","tool","tool_version"},
 *    "tenant":UUID, "times":{"committed","requested","sealed"}, "verification":{"method","result","steps":[TEXT...],"time"}}
 *
 * "destroyed" is a hash tree over what was destroyed: one leaf for each entry (customer, purpose, version), ascending by these,
 * whose data is `customer UUID 16 | version u32 | purpose`; the purpose is empty when the customer went as a whole, the version
 * 0 when all went. "customer" is given when there is only one. A proof shows the leaves of one customer and tells nothing of
 * the others, of which it has hashes only:
 *
 *   {"certificate":UUID, "customer":UUID, "entries":[{"index":N,"path":[HEX...],"purpose","version"}...],
 *    "format":"kms.proof.destruction.v1"}
 *
 * When a recovery key is retired, a supplementary certificate says which certificates of a tenant no recovery key stands against any
 * more, and what else does ("remaining", of each; empty: ERASED):
 *
 *   {"approvals":[...], "audit":{"hash","seq"}, "certificate":UUID, "completed":[{"batch":UUID,"certificate":UUID,"remaining":[TEXT...],
 *    "sealed":TIME}...], "created":TIME, "development":true|false, "format":"kms.certificate.supplement.v1",
 *    "operation":{"digest","requester","uid"}, "recovery_key":{"epoch":N,"fingerprint":HEX,"retired":TIME,"statement":TEXT},
 *    "tenant":UUID}
 */
#ifndef KMS_EVIDENCE_CERTIFICATE_H
#define KMS_EVIDENCE_CERTIFICATE_H

#include "core/bytes.h"
#include "core/ids.h"
#include "evidence/merkle.h"

#include <stdio.h>

#define KMS_CERTIFICATE_FORMAT "kms.certificate.destruction.v1"
#define KMS_SUPPLEMENT_FORMAT  "kms.certificate.supplement.v1"
#define KMS_PROOF_FORMAT       "kms.proof.destruction.v1"

enum { KMS_EVIDENCE_DOCUMENT_MAX = 4 << 20 /* bytes of a certificate or proof */ };

/** Hash of the leaf of one entry. */
enum kms_status kms_certificate_leaf(const struct kms_uuid *customer, const char *purpose, uint32_t version,
                                     struct kms_merkle_hash *ret_hash) KMS_MUST_USE;

struct kms_certificate;
/** INVALID_ARGUMENT says what is missing or of a wrong form; NO_MEMORY. */
enum kms_status kms_certificate_parse(struct kms_slice document, struct kms_certificate **ret_certificate,
                                      struct kms_error *err) KMS_MUST_USE;
void kms_certificate_free(struct kms_certificate *certificate); /* NULL-safe */
/** For people: every field, a line each. Texts are printed without control characters. */
void kms_certificate_print(const struct kms_certificate *certificate, FILE *file);
/** The one customer that it names, or NULL. */
const char *kms_certificate_customer(const struct kms_certificate *certificate);

/** What a proof has shown. */
struct kms_proof_facts {
    struct kms_uuid customer;
    size_t entries;
    bool whole; /* the customer with everything */
};
/**
 * Does the proof show that its customer is among what this certificate covers? TAMPERED when it does not, or is for another
 * certificate; INVALID_ARGUMENT when it is no proof; NO_MEMORY.
 */
enum kms_status kms_certificate_prove(const struct kms_certificate *certificate, struct kms_slice proof,
                                      struct kms_proof_facts *ret_facts, struct kms_error *err) KMS_MUST_USE;

#endif
