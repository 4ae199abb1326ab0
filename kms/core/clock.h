/*
 * Purpose:   wall-clock and monotonic time, and their text form.
 * Owns:      the replaceable source (tests set one).
 * Threads:   safe; set the source before threads start.
 * Never:     sleeps.
 */
#ifndef KMS_CORE_CLOCK_H
#define KMS_CORE_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KMS_NS_PER_SECOND INT64_C(1000000000)
#define KMS_NS_PER_MS     INT64_C(1000000)

/** Nanoseconds since 1970-01-01T00:00:00Z; may jump when somebody sets the clock. */
int64_t kms_clock_wall_ns(void);
/** The same, but as of the last timer tick (some milliseconds old): for expiry checks on every call. */
int64_t kms_clock_wall_coarse_ns(void);
/** Nanoseconds since some fixed point; never goes backwards. For ages, deadlines and durations. */
int64_t kms_clock_mono_ns(void);
/** The same, but as of the last timer tick: for windows of time that every call looks at. */
int64_t kms_clock_mono_coarse_ns(void);

enum { KMS_TIME_TEXT_SIZE = 40 };
/** RFC 3339 in UTC with microseconds, "2026-01-31T12:00:00.000000Z". Returns `out`. */
const char *kms_clock_format(int64_t wall_ns, char out[KMS_TIME_TEXT_SIZE]);

/** Seconds of "90d", "24h", "10m", "3600s", "1y" (365 days) or a plain number. False for anything else. */
bool kms_clock_parse_duration(const char *text, int64_t *ret_seconds);

/** A test's own source of time; NULL puts the system's back. */
struct kms_clock_source {
    int64_t (*wall_ns)(void);
    int64_t (*mono_ns)(void);
};
void kms_clock_set_source(const struct kms_clock_source *source);

#endif
