#include "core/clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* Both system clocks read alike. */
static int64_t read_clock(clockid_t id)
{
    struct timespec now;
    (void)clock_gettime(id, &now);
    return (int64_t)now.tv_sec * KMS_NS_PER_SECOND + now.tv_nsec;
}

/* The system's source, as the replaceable one wants it. */
static int64_t system_wall_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}

static int64_t system_mono_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

static const struct kms_clock_source system_source = {system_wall_ns, system_mono_ns};
static const struct kms_clock_source *current_source = &system_source;

int64_t kms_clock_wall_ns(void)
{
    return current_source->wall_ns();
}

int64_t kms_clock_wall_coarse_ns(void)
{
    return current_source == &system_source ? read_clock(CLOCK_REALTIME_COARSE) : current_source->wall_ns();
}

int64_t kms_clock_mono_ns(void)
{
    return current_source->mono_ns();
}

int64_t kms_clock_mono_coarse_ns(void)
{
    return current_source == &system_source ? read_clock(CLOCK_MONOTONIC_COARSE) : current_source->mono_ns();
}

void kms_clock_set_source(const struct kms_clock_source *source)
{
    current_source = source != NULL ? source : &system_source;
}

const char *kms_clock_format(int64_t wall_ns, char out[KMS_TIME_TEXT_SIZE])
{
    int64_t seconds_ns = wall_ns % KMS_NS_PER_SECOND;
    time_t seconds = (time_t)(wall_ns / KMS_NS_PER_SECOND);
    if (seconds_ns < 0) { /* before 1970 */
        seconds_ns += KMS_NS_PER_SECOND;
        seconds--;
    }
    const unsigned micros = (unsigned)(seconds_ns / 1000);
    struct tm utc;
    (void)gmtime_r(&seconds, &utc);
    char date[32];
    (void)strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
    (void)snprintf(out, KMS_TIME_TEXT_SIZE, "%.19s.%06uZ", date, micros);
    return out;
}

bool kms_clock_parse_duration(const char *text, int64_t *ret_seconds)
{
    static const struct {
        const char *unit;
        int64_t seconds;
    } units[] = {{"", 1}, {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}, {"y", INT64_C(365) * 86400}};
    enum { NUMBER_MAX = 1000000000 };
    int64_t number = 0;
    const char *unit = text;
    for (; *unit >= '0' && *unit <= '9' && number <= NUMBER_MAX; unit++)
        number = number * 10 + (*unit - '0');
    if (unit == text || number > NUMBER_MAX)
        return false;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcmp(unit, units[i].unit) == 0) {
            *ret_seconds = number * units[i].seconds;
            return true;
        }
    }
    return false;
}
