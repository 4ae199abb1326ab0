#include "auth/actions.h"

#include "core/status.h"

#include <string.h>

static const struct {
    const char *text;
    bool needs_purpose;
    unsigned roles;
} action_rows[] = {
#define KMS_ACTION_ROW(name, text, purpose, roles) [KMS_ACTION_##name] = {text, purpose, roles},
    KMS_ACTION_TABLE(KMS_ACTION_ROW)
#undef KMS_ACTION_ROW
};

static const struct {
    const char *text;
    unsigned bit;
} role_rows[] = {{"application", KMS_ROLE_APPLICATION}, {"operator", KMS_ROLE_OPERATOR},
                 {"approver", KMS_ROLE_APPROVER},       {"custodian", KMS_ROLE_CUSTODIAN},
                 {"auditor", KMS_ROLE_AUDITOR},         {"admin", KMS_ROLE_ADMIN}};

const char *kms_action_text(enum kms_action action)
{
    KMS_ASSERT((unsigned)action < (unsigned)KMS_ACTION_COUNT);
    return action_rows[action].text;
}

bool kms_action_needs_purpose(enum kms_action action)
{
    KMS_ASSERT((unsigned)action < (unsigned)KMS_ACTION_COUNT);
    return action_rows[action].needs_purpose;
}

bool kms_action_only_reads(enum kms_action action)
{
    const char *end = strrchr(kms_action_text(action), '.');
    return end != NULL && (strcmp(end, ".read") == 0 || strcmp(end, ".status") == 0);
}

bool kms_action_open_to_any_tenant(enum kms_action action)
{
    return kms_action_only_reads(action) && action != KMS_ACTION_POLICY_READ;
}

bool kms_action_goes_on_frozen(enum kms_action action)
{
    static const char *const starts[] = {"freeze.", "unfreeze.", "policy.", "operation.",
                                         /* they only ever save keys, and must not wait for the thaw */
                                         "shred.cancel", "hold.place"};
    const char *text = kms_action_text(action);
    for (unsigned i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        if (strncmp(text, starts[i], strlen(starts[i])) == 0)
            return true;
    }
    return kms_action_only_reads(action);
}

enum kms_action kms_action_of_text(const char *text)
{
    unsigned action = 0;
    while (action < KMS_ACTION_COUNT && strcmp(action_rows[action].text, text) != 0)
        action++;
    return (enum kms_action)action;
}

unsigned kms_action_roles(enum kms_action action)
{
    KMS_ASSERT((unsigned)action < (unsigned)KMS_ACTION_COUNT);
    return action_rows[action].roles;
}

const char *kms_action_role_text(unsigned role)
{
    for (unsigned i = 0; i < sizeof role_rows / sizeof role_rows[0]; i++) {
        if (role_rows[i].bit == role)
            return role_rows[i].text;
    }
    return "unknown";
}
