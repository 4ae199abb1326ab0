/*
 * Purpose:   what the tests of the rules share: a clock that only they move, small thresholds, events, expectations.
 * Owns:      the clock.
 * Threads:   one.
 * Never:     sleeps.
 */
#ifndef KMS_TESTS_DETECT_FIXTURE_H
#define KMS_TESTS_DETECT_FIXTURE_H

#include "core/clock.h"
#include "detect/detect.h"

#define SECOND     KMS_NS_PER_SECOND
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_clock, reset_clock)

extern int64_t fake_wall, fake_mono;

/** Both clocks move on. */
void pass(int64_t ns);
int set_clock(void **state);
int reset_clock(void **state);
/** Small numbers: 5 denials in 16 s, 10 customers in 160 s. */
struct kms_detect_config small(void);
struct kms_detect *make(const struct kms_detect_config *config);
struct kms_uuid customer(uint64_t number);
struct kms_detect_event event_of(const char *identity, enum kms_status status);
void observe(struct kms_detect *detect, const char *identity, enum kms_status status);
void unwrap(struct kms_detect *detect, const char *identity, uint64_t number);
void call_from(struct kms_detect *detect, const char *identity, const char *peer);
struct kms_detect_alert expect_alert(struct kms_detect *detect, enum kms_detect_rule rule);
void expect_none(struct kms_detect *detect);

#endif
