/*
 * Purpose:   an open token behind the fault-injecting module, for tests that lose it.
 * Owns:      the token, the kms_hsm and the sessions that are checked out, between lossy_open and lossy_close.
 * Threads:   one, beside those that a test starts and joins.
 * Never:     goes on after a failed set-up.
 */
#ifndef KMS_TESTS_UNIT_HSM_LOSSY_H
#define KMS_TESTS_UNIT_HSM_LOSSY_H

#include "support/softhsm_token.h"

#include "core/cleanup.h"
#include "core/clock.h"
#include "core/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* An open token behind the fault module, with a master key and a KEK under it. */
struct lossy {
    struct kms_test_token token;
    struct kms_hsm *hsm;
    struct kms_error err;
    uint8_t id[KMS_HSM_KEY_ID_SIZE];
    uint8_t blob[KMS_HSM_WRAPPED_SIZE];
    struct kms_hsm_key master;
    struct kms_hsm_key kek;
    struct kms_hsm_session *held[2]; /* checked out now, so that a test that fails can be cleaned up */
};
extern struct lossy lossy;
/* Which token lossy_open() makes. */
extern enum kms_test_token_kind lossy_kind;

#define must(expression)                                                                                     \
    do {                                                                                                     \
        const enum kms_status must_status_ = (expression);                                                   \
        if (must_status_ != KMS_OK)                                                                          \
            fail_msg("%s: %s (%s)", #expression, kms_status_name(must_status_),                              \
                     kms_error_cause(&lossy.err, must_status_));                                             \
    } while (0)

/* The operations that callers use, by number. */
enum operation { SEAL, OPEN, MAC, UNWRAP, GENERATE, DESTROY, RANDOM, FIND, LIST_KEYS, SIGN, PING };

/* A session that the tear-down gives back should the test fail. */
struct kms_hsm_session *lossy_checkout(void);
/* Its return. */
void lossy_checkin(struct kms_hsm_session *session);
/* Look the keys up again, as a caller does after HSM_STALE. */
void lossy_fetch_keys(void);
/* A new token behind the fault module for every test. */
int lossy_open(void **state);
/* Whatever state the test left. */
int lossy_close(void **state);
/* The present figures. */
struct kms_hsm_info lossy_info(void);
/* Do one of them once. */
enum kms_status lossy_run(enum operation operation, struct kms_hsm_session *session);
/* After a loss: back in the next generation, old handles refused, fresh ones work. */
void lossy_assert_recovered(const struct kms_hsm_info *before, struct kms_hsm_key old);
/* Make the next recovery meet these rules. */
void lossy_lose_into(const char *rules);
/* What the operator does when nothing else helps. The control file is emptied only after the old one is freed. */
void lossy_restart(void);

#endif
