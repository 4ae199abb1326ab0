/*
 * Purpose:   making and ending the connection to the token: lock, initialise, find, log in, keys, sessions.
 * Owns:      nothing; fills the connection part of a kms_p11.
 * Threads:   open's and the recovery thread, when nobody is behind the gate.
 * Never:     tries a PIN when the token says that one try is left; tries a refused PIN more than twice.
 */
#ifndef KMS_HSM_P11_TOKEN_H
#define KMS_HSM_P11_TOKEN_H

#include "hsm/p11_state.h"
#include "hsm/rsa_public.h"
#include "hsm/transport.h"

/** Check the URI of the configuration before anything is loaded. CONFIG_INVALID. */
enum kms_status kms_p11_token_check_uri(const char *uri, struct kms_error *err) KMS_MUST_USE;
/**
 * One attempt to connect. `starting`: make missing service keys if the configuration says so and probe every
 * operation; otherwise, after a loss, check the service keys only. On failure everything is undone.
 * Statuses as kms_hsm_p11_open().
 */
enum kms_status kms_p11_token_connect(struct kms_p11 *p11, bool starting, struct kms_error *err) KMS_MUST_USE;
/** End the connection; accepts any half-way state. */
void kms_p11_token_disconnect(struct kms_p11 *p11);

/**
 * The user logs in, the work is done in the spare session, and the connection is ended before it returns: for a token that has no
 * service keys yet. Statuses as kms_hsm_transport_run().
 */
enum kms_status kms_p11_token_as_user(struct kms_p11 *p11, kms_hsm_transport_work work, void *context,
                                      struct kms_error *err) KMS_MUST_USE;
/**
 * For one thing the security officer logs in, and nobody else: make a recovery public key trusted. The connection is ended before it
 * returns. Statuses as kms_hsm_p11_trust().
 */
enum kms_status kms_p11_token_as_officer(struct kms_p11 *p11, const struct kms_rsa_public *key,
                                         struct kms_error *err) KMS_MUST_USE;

#endif
