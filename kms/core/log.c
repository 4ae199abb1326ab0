#include "core/log.h"

#include "core/bytes.h"
#include "core/clock.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BURST = 20, LINES_PER_SECOND = 5, LARGEST_TEXT = 1024 };

static const char *const level_names[] = {"error", "warning", "info", "debug"};
static enum kms_log_level highest_level = KMS_LOG_INFO;
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

void kms_log_set_level(enum kms_log_level level)
{
    highest_level = level;
}

enum kms_status kms_log_level_parse(const char *name, enum kms_log_level *ret_level)
{
    for (unsigned i = 0; i < sizeof level_names / sizeof level_names[0]; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *ret_level = (enum kms_log_level)i;
            return KMS_OK;
        }
    }
    return KMS_INVALID_ARGUMENT;
}

/* Token bucket; true when the line may pass, with the number of lines dropped before it. */
static bool admit_locked(struct kms_log_site *site, unsigned long *ret_suppressed)
{
    const int64_t now = kms_clock_mono_ns();
    if (!site->used) {
        site->used = true;
        site->tokens = BURST;
    } else {
        site->tokens += (double)(now - site->refilled_ns) / (double)KMS_NS_PER_SECOND * LINES_PER_SECOND;
        if (site->tokens > BURST)
            site->tokens = BURST;
    }
    site->refilled_ns = now;
    if (site->tokens < 1) {
        site->suppressed++;
        return false;
    }
    site->tokens -= 1;
    *ret_suppressed = site->suppressed;
    site->suppressed = 0;
    return true;
}

/*
 * JSON string content, at most twice as long as the text. Control characters become spaces, so that no input can
 * forge a line, and bytes that are not UTF-8 become question marks, so that the line stays JSON.
 */
static void escape(char *out, const char *text)
{
    size_t left = strlen(text);
    while (left > 0) {
        const size_t len = kms_utf8_printable_prefix(text, left);
        if (*text == '"' || *text == '\\')
            *out++ = '\\';
        if (len == 0)
            *out++ = (unsigned char)*text < 0x80 ? ' ' : '?';
        for (size_t i = 0; i < len; i++)
            *out++ = text[i];
        text += len > 0 ? len : 1;
        left -= len > 0 ? len : 1;
    }
    *out = '\0';
}

void kms_log_write(struct kms_log_site *site, const char *fmt, ...)
{
    if (site->level > highest_level)
        return;
    char text[LARGEST_TEXT];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    char escaped[2 * LARGEST_TEXT];
    escape(escaped, text);

    char time_text[KMS_TIME_TEXT_SIZE];
    char line[sizeof escaped + 256];
    unsigned long suppressed = 0;
    pthread_mutex_lock(&log_lock);
    if (admit_locked(site, &suppressed)) {
        char dropped[48] = "";
        if (suppressed > 0)
            (void)snprintf(dropped, sizeof dropped, ",\"suppressed\":%lu", suppressed);
        const int len = snprintf(
            line, sizeof line, "{\"time\":\"%s\",\"level\":\"%s\",\"module\":\"%s\"%s,\"message\":\"%s\"}\n",
            kms_clock_format(kms_clock_wall_ns(), time_text), level_names[site->level], site->module, dropped,
            escaped);
        if (len > 0)
            (void)!write(STDERR_FILENO, line, (size_t)len);
    }
    pthread_mutex_unlock(&log_lock);
}
