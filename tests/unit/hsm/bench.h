/*
 * Purpose:   an open token with a master key, for a whole group of tests, and Cryptoki past kms_hsm.
 * Owns:      the token and the kms_hsm, between bench_open_* and bench_close.
 * Threads:   one.
 * Never:     goes on after a failed set-up.
 */
#ifndef KMS_TESTS_UNIT_HSM_BENCH_H
#define KMS_TESTS_UNIT_HSM_BENCH_H

#include "support/softhsm_token.h"

#include <p11-kit/pkcs11.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct bench {
    struct kms_test_token token;
    struct kms_hsm *hsm;
    struct kms_hsm_session *session;
    uint8_t id[KMS_HSM_KEY_ID_SIZE]; /* of a master key that the list may use */
    struct kms_hsm_key master;
    struct kms_error err;
};
extern struct bench bench;

/* assert that something succeeded, and say why not */
#define must(expression)                                                                                     \
    do {                                                                                                     \
        const enum kms_status must_status_ = (expression);                                                   \
        if (must_status_ != KMS_OK)                                                                          \
            fail_msg("%s: %s (%s)", #expression, kms_status_name(must_status_),                              \
                     kms_error_cause(&bench.err, must_status_));                                             \
    } while (0)

/* Group set-ups and the tear-down. */
int bench_open_softhsm(void **state);
int bench_open_nss(void **state);
int bench_close(void **state);

/** The module's functions, past kms_hsm: the login is the process's, so raw sessions see the same keys. */
CK_FUNCTION_LIST *bench_raw(void);
CK_SESSION_HANDLE bench_raw_session(void);
/** A boolean attribute of a key. */
bool bench_raw_flag(CK_OBJECT_HANDLE key, CK_ATTRIBUTE_TYPE type);
/** Expect exactly these usage bits, and no other, of a secret key. */
void bench_assert_usage(CK_OBJECT_HANDLE key, bool encrypt, bool wrap, bool unwrap);
/** A KEK that serves, under the bench's master key. */
struct kms_hsm_key bench_make_kek(void);

#endif
