/*
 * Purpose:   the operator's log: one JSON object a line on standard error, rate-limited by place.
 * Owns:      the level and the rate limits.
 * Threads:   safe.
 * Never:     is the audit log (that is audit/), and never receives a secret.
 */
#ifndef KMS_CORE_LOG_H
#define KMS_CORE_LOG_H

#include "core/status.h"

enum kms_log_level { KMS_LOG_ERROR, KMS_LOG_WARNING, KMS_LOG_INFO, KMS_LOG_DEBUG };

/** Where a line comes from; `tokens` and `refilled_ns` are the rate limit's, protected by the log's lock. */
struct kms_log_site {
    enum kms_log_level level;
    const char *module;
    double tokens;
    long long refilled_ns;
    unsigned long suppressed;
    bool used;
};

/** Lines above this level are dropped; the default is INFO. Set before threads start. */
void kms_log_set_level(enum kms_log_level level);
/** Level by name ("error", "warning", "info", "debug"); INVALID_ARGUMENT for another. */
enum kms_status kms_log_level_parse(const char *name, enum kms_log_level *ret_level) KMS_MUST_USE;
/** Use the macros below. At most 20 lines at once and 5 a second from one place; what was dropped is counted.
 */
void kms_log_write(struct kms_log_site *site, const char *fmt, ...) KMS_PRINTF(2, 3);

#define KMS_LOG_AT(level_, module_, ...)                                                                     \
    do {                                                                                                     \
        static struct kms_log_site kms_log_site_ = {.level = (level_), .module = (module_)};                 \
        kms_log_write(&kms_log_site_, __VA_ARGS__);                                                          \
    } while (0)
#define kms_log_error(module, ...)   KMS_LOG_AT(KMS_LOG_ERROR, module, __VA_ARGS__)
#define kms_log_warning(module, ...) KMS_LOG_AT(KMS_LOG_WARNING, module, __VA_ARGS__)
#define kms_log_info(module, ...)    KMS_LOG_AT(KMS_LOG_INFO, module, __VA_ARGS__)
#define kms_log_debug(module, ...)   KMS_LOG_AT(KMS_LOG_DEBUG, module, __VA_ARGS__)

#endif
