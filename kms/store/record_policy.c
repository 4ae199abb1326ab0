#include "store/record.h"

#include <stdlib.h>

const char *kms_policy_record_problem(const struct kms_policy_record *policy)
{
    if (policy->version == 0 || policy->version > INT64_MAX)
        return "policy version: 1 to 2^63-1";
    if (policy->document == NULL || policy->document_len == 0 ||
        policy->document_len > KMS_POLICY_DOCUMENT_MAX)
        return "policy document: 1 to 1,048,576 bytes";
    if (!kms_record_text_fits(policy->identity, sizeof policy->identity, 1))
        return "policy identity: 1..256 bytes of printable UTF-8";
    if (!kms_record_text_fits(policy->operation, sizeof policy->operation, 0))
        return "policy operation: at most 36 bytes of printable UTF-8";
    if (!kms_record_text_fits(policy->comment, sizeof policy->comment, 0))
        return "policy comment: at most 256 bytes of printable UTF-8";
    return NULL;
}

/* Which of its two names a scope has. */
static bool names_fit(const struct kms_freeze_record *freeze)
{
    const bool has_tenant = freeze->tenant[0] != '\0';
    const bool has_name = freeze->name[0] != '\0';
    switch (freeze->scope) {
    case KMS_FREEZE_TENANT:
        return has_tenant && !has_name;
    case KMS_FREEZE_PURPOSE:
        return has_tenant && has_name;
    case KMS_FREEZE_CUSTOMER:
    case KMS_FREEZE_IDENTITY:
        return !has_tenant && has_name;
    }
    return false;
}

const char *kms_freeze_names_problem(const struct kms_freeze_record *freeze)
{
    if (!kms_record_text_fits(freeze->tenant, sizeof freeze->tenant, 0) ||
        !kms_record_text_fits(freeze->name, sizeof freeze->name, 0))
        return "freeze tenant, name: at most 63 and 256 bytes of printable UTF-8";
    if (!names_fit(freeze))
        return "freeze scope: unknown, or not with these names";
    return NULL;
}

const char *kms_freeze_record_problem(const struct kms_freeze_record *freeze)
{
    const char *problem = kms_freeze_names_problem(freeze);
    if (problem != NULL)
        return problem;
    if (!kms_record_text_fits(freeze->reason, sizeof freeze->reason, 0))
        return "freeze reason: at most 256 bytes of printable UTF-8";
    if (!kms_record_text_fits(freeze->identity, sizeof freeze->identity, 1))
        return "freeze identity: 1..256 bytes of printable UTF-8";
    return NULL;
}

const char *kms_freeze_scope_text(enum kms_freeze_scope scope)
{
    switch (scope) {
    case KMS_FREEZE_TENANT:
        return "tenant";
    case KMS_FREEZE_CUSTOMER:
        return "customer";
    case KMS_FREEZE_PURPOSE:
        return "purpose";
    case KMS_FREEZE_IDENTITY:
        return "identity";
    }
    return "unknown";
}

void kms_policy_record_clear(struct kms_policy_record *policy)
{
    free(policy->document);
    *policy = (struct kms_policy_record){0};
}
