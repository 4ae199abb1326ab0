/*
 * Purpose:   a fresh PKCS#11 token in a temporary directory, for tests: SoftHSM 2 or NSS softokn.
 * Owns:      the directory and what the token keeps in it, until kms_test_token_clear().
 * Threads:   one; make and clear tokens while no other thread uses the module. One SoftHSM token is alive at
 *            a time, because the module reads its place from the environment (SOFTHSM2_CONF).
 * Never:     leaves the module initialised, or files behind.
 */
#ifndef KMS_TESTS_SOFTHSM_TOKEN_H
#define KMS_TESTS_SOFTHSM_TOKEN_H

#include "hsm/p11.h"

#include <string.h>

#define KMS_TEST_PIN    "user-482913"
#define KMS_TEST_SO_PIN "officer-77401"

enum kms_test_token_kind { KMS_TEST_SOFTHSM, KMS_TEST_NSS };

struct kms_test_token {
    enum kms_test_token_kind kind;
    char directory[64];
    char module[512];
    char init_args[192]; /* empty for SoftHSM */
    char uri[64];
    char lock[96];          /* for kms_hsm_p11_config.startup_lock */
    char profile[512];      /* hsm-config/profiles/<kind>.yaml of the source tree */
    char fault_module[512]; /* path of the fault-injecting module, see tests/faultp11/faultp11.h */
    char fault_control[96]; /* its control file, in `directory` */
};

/** Make the token and set its PINs. Aborts with a message on failure: a test cannot go on without. */
void kms_test_token_new(enum kms_test_token_kind kind, struct kms_test_token *ret_token);
/** The kms_hsm must be freed before. */
void kms_test_token_clear(struct kms_test_token *token);
/**
 * Load the fault-injecting module instead, in front of the real one: afterwards `module` names it, and its
 * control file is empty. Call before the token is opened.
 */
void kms_test_token_add_faults(struct kms_test_token *token);
/** Replace the control file's text as a whole (rename), so that the module never reads half of it. */
void kms_test_token_fault(const struct kms_test_token *token, const char *rules);
/** How many rules have fired since the token was made, counted in the module's own log. */
unsigned kms_test_token_fired(const struct kms_test_token *token);

/** A configuration that opens this token; `pin` is a secret of the caller's, filled here with `pin_text`. */
static inline struct kms_hsm_p11_config kms_test_token_config(const struct kms_test_token *token,
                                                              const char *pin_text, struct kms_secret *pin)
{
    KMS_ASSERT(kms_secret_new(strlen(pin_text), pin) == KMS_OK);
    memcpy(pin->data, pin_text, strlen(pin_text));
    pin->len = strlen(pin_text);
    return (struct kms_hsm_p11_config){.module = token->module,
                                       .init_args = token->init_args[0] != '\0' ? token->init_args : NULL,
                                       .token_uri = token->uri,
                                       .profile = token->profile,
                                       .pin = pin,
                                       .sessions = 2,
                                       .startup_lock = token->lock,
                                       .create_service_keys = true,
                                       .operation_timeout_ns = INT64_C(20000000000)};
}

/** Open it as the daemon would, with two sessions; the service keys are made. */
static inline enum kms_status kms_test_token_open(const struct kms_test_token *token,
                                                  struct kms_hsm **ret_hsm, struct kms_error *err)
{
    KMS_SECRET pin = {0};
    const struct kms_hsm_p11_config config = kms_test_token_config(token, KMS_TEST_PIN, &pin);
    return kms_hsm_p11_open(&config, ret_hsm, err);
}

#endif
