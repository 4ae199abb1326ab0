#include "unit/detect/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

int64_t fake_wall, fake_mono;

static int64_t wall_ns(void)
{
    return fake_wall;
}

static int64_t mono_ns(void)
{
    return fake_mono;
}

/* Both clocks move on. */
void pass(int64_t ns)
{
    fake_wall += ns;
    fake_mono += ns;
}

int set_clock(void **state)
{
    static const struct kms_clock_source fake = {wall_ns, mono_ns};
    (void)state;
    fake_wall = INT64_C(1800000000) * SECOND;
    fake_mono = 1000 * SECOND;
    kms_clock_set_source(&fake);
    return 0;
}

int reset_clock(void **state)
{
    (void)state;
    kms_clock_set_source(NULL);
    return 0;
}

/* Small numbers: 5 denials in 16 s, 10 customers in 160 s. */
struct kms_detect_config small(void)
{
    struct kms_detect_config config;
    kms_detect_defaults(&config);
    config.denied_count = 5;
    config.denied_window_seconds = 16;
    config.sweep_customers = 10;
    config.sweep_window_seconds = 160;
    config.repeat_ns = 300 * SECOND;
    return config;
}

struct kms_detect *make(const struct kms_detect_config *config)
{
    struct kms_detect *detect = NULL;
    assert_int_equal(kms_detect_new(config, &detect), KMS_OK);
    return detect;
}

struct kms_uuid customer(uint64_t number)
{
    struct kms_uuid uuid = {.bytes = {1}};
    memcpy(uuid.bytes + 8, &number, sizeof number);
    return uuid;
}

struct kms_detect_event event_of(const char *identity, enum kms_status status)
{
    return (struct kms_detect_event){.identity = identity,
                                     .peer = "ipv4:192.0.2.7:4711",
                                     .action = "datakey.unwrap",
                                     .tenant = "acme",
                                     .request_id = "r-1",
                                     .status = status};
}

void observe(struct kms_detect *detect, const char *identity, enum kms_status status)
{
    const struct kms_detect_event event = event_of(identity, status);
    kms_detect_observe(detect, &event);
}

void unwrap(struct kms_detect *detect, const char *identity, uint64_t number)
{
    struct kms_detect_event event = event_of(identity, KMS_OK);
    event.unwraps = true;
    event.customer = customer(number);
    kms_detect_observe(detect, &event);
}

void call_from(struct kms_detect *detect, const char *identity, const char *peer)
{
    struct kms_detect_event event = event_of(identity, KMS_OK);
    event.peer = peer;
    kms_detect_observe(detect, &event);
}

struct kms_detect_alert expect_alert(struct kms_detect *detect, enum kms_detect_rule rule)
{
    struct kms_detect_alert alert = {0};
    if (!kms_detect_take(detect, 0, &alert))
        fail_msg("no alert, not %s", kms_detect_rule_name(rule));
    assert_string_equal(kms_detect_rule_name(alert.rule), kms_detect_rule_name(rule));
    return alert;
}

void expect_none(struct kms_detect *detect)
{
    struct kms_detect_alert alert;
    if (kms_detect_take(detect, 0, &alert))
        fail_msg("an alert of %s that should not be", kms_detect_rule_name(alert.rule));
}
