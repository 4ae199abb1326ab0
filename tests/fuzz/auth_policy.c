/* policy.yaml: refused with a text, or a policy that decides; nothing is allowed to a name that no binding can mean. */
#include "auth/decide.h"
#include "auth/reach.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"spiffe://td/app/a", "dns:host.example", "cn:a",
                                        "spiffe://td/app/a/b"};
    struct kms_policy *policy = NULL;
    struct kms_error err = {0};
    const enum kms_status status = kms_policy_parse("policy.yaml", kms_slice_of(data, size), &policy, &err);
    if (status != KMS_OK) {
        KMS_ASSERT(status == KMS_CONFIG_INVALID && err.public_text[0] != '\0');
        KMS_ASSERT(kms_utf8_valid(err.public_text, strlen(err.public_text)));
        return 0;
    }
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        for (unsigned action = 0; action < KMS_ACTION_COUNT; action++) {
            struct kms_question question = {names[i], (enum kms_action)action, "acme", "service", false,
                                            false};
            const struct kms_decision exact = kms_decide(policy, &question);
            KMS_ASSERT(exact.cause != NULL || exact.binding != NULL);
            question.any_purpose = true;
            KMS_ASSERT(exact.cause != NULL || kms_decide(policy, &question).cause == NULL);
        }
    }
    KMS_ASSERT(kms_reach_can(policy, KMS_ACTION_POLICY_APPROVE, NULL, names[0], 0));
    KMS_ASSERT(!kms_reach_can(policy, KMS_ACTION_POLICY_APPROVE, NULL, names[0], 2) ||
               kms_reach_can(policy, KMS_ACTION_POLICY_APPROVE, NULL, names[0], 1));
    (void)!kms_reach_check_governable(policy, &err);
    const struct kms_question nobody = {"nobody", KMS_ACTION_SERVER_STATUS, NULL, NULL, true, false};
    KMS_ASSERT(kms_decide(policy, &nobody).cause != NULL);
    kms_policy_free(policy);
    return 0;
}
