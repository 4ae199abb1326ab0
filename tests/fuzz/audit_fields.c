/* Goal: whatever stands in a line that may be a record or hold a checkpoint, taking it apart stays within it. */
#include "audit/chain.h"
#include "audit/checkpoint.h"
#include "audit/fields.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A text that was found lies within the input. */
struct within {
    struct kms_slice input;
    size_t count;
};

static void check_within(void *context, struct kms_slice text)
{
    struct within *within = context;
    KMS_ASSERT(text.data >= within->input.data && text.len <= within->input.len);
    KMS_ASSERT(text.data + text.len <= within->input.data + within->input.len);
    within->count++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct kms_slice input = kms_slice_of(data, size);
    struct within within = {.input = input};
    struct kms_audit_fields fields;
    static const struct kms_audit_filter filter = {.customer = "10200000-0000-0000-0000-000000000011",
                                                   .tenant = "acme"};
    static struct kms_audit_matcher matcher;
    if (matcher.filter.tenant == NULL)
        kms_audit_matcher_init(&matcher, &filter);
    if (size > 0 && kms_audit_fields_parse(input, &fields)) {
        check_within(&within, fields.time);
        check_within(&within, fields.type);
        if (fields.detail.len > 0)
            kms_audit_fields_uuids(fields.detail, check_within, &within);
        if (fields.detail.len > 0)
            kms_audit_fields_members(fields.detail, "\"tenant\":\"", check_within, &within);
        (void)kms_audit_matcher_match(&matcher, &fields);
    }
    struct kms_audit_signed_checkpoint checkpoint;
    if (!kms_audit_checkpoint_parse(input, &checkpoint))
        return 0;
    check_within(&within, checkpoint.statement);
    char again[KMS_AUDIT_STATEMENT_MAX];
    const size_t len = kms_audit_statement_format(&checkpoint.checkpoint, again);
    KMS_ASSERT(kms_slice_equal(checkpoint.statement, kms_slice_of(again, len)));
    return 0;
}
