#include "store/record.h"

/* "3f..": 64 lower-case hex digits. */
static bool is_fingerprint(const char *text)
{
    enum { DIGITS = KMS_RECOVERY_FINGERPRINT_SIZE - 1 };
    return strnlen(text, KMS_RECOVERY_FINGERPRINT_SIZE) == DIGITS &&
           strspn(text, "0123456789abcdef") == DIGITS;
}

const char *kms_recovery_key_problem(const struct kms_recovery_key_record *key)
{
    if (key->epoch == 0 || key->epoch > INT64_MAX)
        return "recovery key epoch: 1 to 2^63-1";
    if (!is_fingerprint(key->fingerprint))
        return "recovery key fingerprint: 64 lower-case hex digits";
    if (key->state < KMS_RECOVERY_ACTIVE || key->state > KMS_RECOVERY_RETIRED)
        return "recovery key state: unknown";
    if (!kms_record_text_fits(key->enrolled_by, sizeof key->enrolled_by, 1) ||
        !kms_record_text_fits(key->retired_by, sizeof key->retired_by, 0) ||
        !kms_record_text_fits(key->drill_by, sizeof key->drill_by, 0))
        return "recovery key identities: at most 256 bytes of printable UTF-8";
    if (!kms_record_text_fits(key->statement, sizeof key->statement, 0))
        return "recovery key statement: at most 500 bytes of printable UTF-8";
    if ((key->state == KMS_RECOVERY_RETIRED) != (key->retired_ns != 0) ||
        (key->state == KMS_RECOVERY_ACTIVE) != kms_uuid_is_zero(&key->retire_operation))
        return "recovery key state: does not go with who has retired it, and when";
    if (key->drill_took_ns < 0 || key->drill_customers > INT64_MAX)
        return "recovery key drill: out of range";
    return NULL;
}

const char *kms_recovery_cover_problem(const struct kms_recovery_cover_record *cover)
{
    if (cover->recovery_epoch == 0 || cover->recovery_epoch > INT64_MAX || cover->first_epoch == 0 ||
        cover->first_epoch > INT64_MAX)
        return "recovery cover: epochs from 1 to 2^63-1";
    return NULL;
}
