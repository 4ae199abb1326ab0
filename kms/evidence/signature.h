/*
 * Purpose:   check signatures over evidence (approvals, checkpoints, certificates of destruction) from files alone.
 * Owns:      nothing.
 * Threads:   no shared state.
 * Never:     makes a signature with a key of the service; accepts a weak key.
 *
 * The signed bytes are the bytes as they are, hashed with SHA-256; ECDSA signatures are DER (RFC 3279), RSA ones PKCS #1 v1.5,
 * so that plain openssl checks them too:  openssl dgst -sha256 -verify key.pem -signature FILE.sig FILE
 * An Ed25519 key signs the bytes themselves (RFC 8032):  openssl pkeyutl -verify -rawin ...
 */
#ifndef KMS_EVIDENCE_SIGNATURE_H
#define KMS_EVIDENCE_SIGNATURE_H

#include "core/bytes.h"

enum { KMS_EVIDENCE_PEM_MAX = 64 * 1024, KMS_EVIDENCE_SIGNATURE_MAX = 1024, KMS_EVIDENCE_KEY_ID_SIZE = 65 };

/**
 * What evidence calls a key: SHA-256 over its DER SubjectPublicKeyInfo (RFC 5280), as hex; the PEM as below. By hand:
 * openssl pkey -pubin -in key.pem -outform DER | sha256sum. INVALID_ARGUMENT, NO_MEMORY.
 */
enum kms_status kms_signature_key_id(struct kms_slice pem, char ret_id[KMS_EVIDENCE_KEY_ID_SIZE],
                                     struct kms_error *err) KMS_MUST_USE;

/**
 * Check `signature` over `message` with the public key in a PEM text: one block, a SubjectPublicKeyInfo or a certificate (its chain and
 * dates are not looked at). OK; TAMPERED when the signature is not that key's over these bytes; INVALID_ARGUMENT when the PEM is
 * neither, or more than one, or the key is none of P-256, P-384, P-521, RSA of at least 2048 bits, Ed25519; NO_MEMORY.
 */
enum kms_status kms_signature_verify(struct kms_slice pem, struct kms_slice message,
                                     struct kms_slice signature, struct kms_error *err) KMS_MUST_USE;
/**
 * Sign `message` with the private key in a PEM file, mode 0600, not encrypted: for clients that sign approvals.
 * `ret_signature` has room for KMS_EVIDENCE_SIGNATURE_MAX bytes. INVALID_ARGUMENT when the file is no such key, IO.
 */
enum kms_status kms_signature_make(const char *private_key_path, struct kms_slice message,
                                   uint8_t *ret_signature, size_t *ret_len,
                                   struct kms_error *err) KMS_MUST_USE;

#endif
