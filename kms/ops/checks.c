#include "ops/checks.h"

#include "core/ids.h"
#include "ops/ops.h"

#include <inttypes.h>
#include <stdio.h>

enum { KMS_SECONDS_MAX_YEARS = 1000 };

/* Letters and digits may stand anywhere in an id; '.', '_' and '-' only inside. */
static bool id_character(char c, bool inside)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (inside && (c == '.' || c == '_' || c == '-'));
}

enum kms_status ops_check_id(struct kms_call *call, const char *field, const char *value)
{
    const size_t len = strlen(value);
    if (len == 0)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "%s: must be given", field);
    bool good = len <= KMS_TENANT_ID_MAX;
    for (size_t i = 0; good && i < len; i++)
        good = id_character(value[i], i > 0 && i + 1 < len);
    if (!good)
        return kms_fail_public(
            &call->error, KMS_INVALID_ARGUMENT,
            "%s: must be 1 to %d characters of a-z 0-9 . _ - and begin and end with a letter or digit", field,
            KMS_TENANT_ID_MAX);
    return KMS_OK;
}

enum kms_status ops_check_optional_id(struct kms_call *call, const char *field, const char *value)
{
    return value[0] == '\0' ? KMS_OK : ops_check_id(call, field, value);
}

enum kms_status ops_check_text(struct kms_call *call, const char *field, const char *value, size_t max)
{
    const size_t len = strlen(value);
    if (len > max)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT,
                               "%s: is %zu bytes long, at most %zu are allowed", field, len, max);
    if (!kms_utf8_printable(value, len))
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT,
                               "%s: must be UTF-8 without control characters", field);
    return KMS_OK;
}

enum kms_status ops_check_customer(struct kms_call *call, const char *value)
{
    if (value[0] == '\0')
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "customer: must be given");
    return ops_check_text(call, "customer", value, KMS_CUSTOMER_ID_MAX);
}

enum kms_status ops_check_seconds(struct kms_call *call, const char *field, int64_t value)
{
    if (value < 0 || value > INT64_C(86400) * 366 * KMS_SECONDS_MAX_YEARS)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT,
                               "%s: must be between 0 and %d years, in seconds", field,
                               KMS_SECONDS_MAX_YEARS);
    return KMS_OK;
}

enum kms_status ops_check_request_id(struct kms_call *call, const char *value)
{
    struct kms_uuid ignored;
    if (value[0] != '\0' && kms_uuid_parse(value, &ignored) != KMS_OK)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "request_id: must be a UUID or empty");
    return KMS_OK;
}

enum kms_status ops_check_etag(struct kms_call *call, const char *etag, uint64_t revision)
{
    char current[24];
    (void)snprintf(current, sizeof current, "%" PRIu64, revision);
    if (etag[0] != '\0' && strcmp(etag, current) != 0)
        return kms_fail_public(
            &call->error, KMS_ABORTED,
            "etag: the resource was changed meanwhile; read it again and repeat the change");
    return KMS_OK;
}

enum kms_status ops_check_page_size(struct kms_call *call, uint32_t asked, size_t *ret_size)
{
    if (asked > KMS_OPS_PAGE_MAX)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "page_size: at most %d are allowed",
                               KMS_OPS_PAGE_MAX);
    *ret_size = asked == 0 ? KMS_OPS_PAGE_DEFAULT : asked;
    return KMS_OK;
}

enum kms_status ops_check_batch(struct kms_call *call, size_t count)
{
    if (count < 1 || count > KMS_OPS_BATCH_MAX)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT,
                               "a batch has 1 to %d items, this one has %zu", KMS_OPS_BATCH_MAX, count);
    return KMS_OK;
}
