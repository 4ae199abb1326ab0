/*
 * Purpose:   the table of permissions and the roles that group them.
 * Owns:      nothing.
 * Threads:   constants.
 * Never:     is renumbered into files: policies name actions by text.
 */
#ifndef KMS_AUTH_ACTIONS_H
#define KMS_AUTH_ACTIONS_H

#include <stdbool.h>

/* C name, text, bound to a purpose as well, roles that include it (bits below) */
#define KMS_ACTION_TABLE(X)                                                                                  \
    X(DATAKEY_GENERATE, "datakey.generate", true, KMS_ROLE_APPLICATION)                                      \
    X(DATAKEY_GENERATE_WITHOUT_PLAINTEXT, "datakey.generate_without_plaintext", true, KMS_ROLE_APPLICATION)  \
    X(DATAKEY_WRAP, "datakey.wrap", true, KMS_ROLE_APPLICATION)                                              \
    X(DATAKEY_UNWRAP, "datakey.unwrap", true, KMS_ROLE_APPLICATION)                                          \
    X(DATAKEY_REWRAP, "datakey.rewrap", true, KMS_ROLE_APPLICATION | KMS_ROLE_OPERATOR)                      \
    X(TENANT_CREATE, "tenant.create", false, KMS_ROLE_ADMIN | KMS_ROLE_OPERATOR)                             \
    X(TENANT_READ, "tenant.read", false, KMS_ROLE_ADMIN | KMS_ROLE_OPERATOR | KMS_ROLE_AUDITOR)              \
    X(TENANT_UPDATE, "tenant.update", false, KMS_ROLE_ADMIN | KMS_ROLE_OPERATOR)                             \
    X(TENANT_CLOSE, "tenant.close", false, KMS_ROLE_ADMIN | KMS_ROLE_OPERATOR)                               \
    X(PURPOSE_CREATE, "purpose.create", false, KMS_ROLE_OPERATOR)                                            \
    X(PURPOSE_READ, "purpose.read", false, KMS_ROLE_OPERATOR | KMS_ROLE_AUDITOR)                             \
    X(PURPOSE_UPDATE, "purpose.update", false, KMS_ROLE_ADMIN | KMS_ROLE_OPERATOR)                           \
    X(PURPOSE_CLOSE, "purpose.close", false, KMS_ROLE_OPERATOR)                                              \
    X(CUSTOMER_CREATE, "customer.create", false, KMS_ROLE_APPLICATION | KMS_ROLE_OPERATOR)                   \
    X(CUSTOMER_READ, "customer.read", false, KMS_ROLE_OPERATOR | KMS_ROLE_AUDITOR)                           \
    X(CUSTOMER_UPDATE, "customer.update", false, KMS_ROLE_OPERATOR)                                          \
    X(CUSTOMER_CLOSE, "customer.close", false, KMS_ROLE_OPERATOR)                                            \
    X(KEYVERSION_READ, "keyversion.read", false, KMS_ROLE_OPERATOR | KMS_ROLE_AUDITOR)                       \
    X(SERVER_STATUS, "server.status", false, KMS_ROLE_ADMIN | KMS_ROLE_OPERATOR | KMS_ROLE_AUDITOR)          \
    X(POLICY_READ, "policy.read", false,                                                                     \
      KMS_ROLE_ADMIN | KMS_ROLE_APPROVER | KMS_ROLE_OPERATOR | KMS_ROLE_AUDITOR)                             \
    X(POLICY_APPLY, "policy.apply", false, KMS_ROLE_ADMIN)                                                   \
    X(POLICY_APPROVE, "policy.approve", false, KMS_ROLE_ADMIN | KMS_ROLE_APPROVER)                           \
    X(FREEZE_CREATE, "freeze.create", false, KMS_ROLE_ADMIN | KMS_ROLE_OPERATOR)                             \
    X(FREEZE_READ, "freeze.read", false,                                                                     \
      KMS_ROLE_ADMIN | KMS_ROLE_APPROVER | KMS_ROLE_OPERATOR | KMS_ROLE_AUDITOR)                             \
    X(UNFREEZE_REQUEST, "unfreeze.request", false, KMS_ROLE_ADMIN | KMS_ROLE_OPERATOR)                       \
    X(UNFREEZE_APPROVE, "unfreeze.approve", false, KMS_ROLE_ADMIN | KMS_ROLE_APPROVER)                       \
    X(CUSTOMER_RESTRICT, "customer.restrict", false, KMS_ROLE_OPERATOR)                                      \
    X(OPERATION_READ, "operation.read", false,                                                               \
      KMS_ROLE_ADMIN | KMS_ROLE_APPROVER | KMS_ROLE_CUSTODIAN | KMS_ROLE_OPERATOR | KMS_ROLE_AUDITOR)        \
    X(OPERATION_CANCEL, "operation.cancel", false, KMS_ROLE_ADMIN | KMS_ROLE_CUSTODIAN | KMS_ROLE_OPERATOR)  \
    X(ATTESTATION_READ, "attestation.read", false, KMS_ROLE_ADMIN | KMS_ROLE_OPERATOR | KMS_ROLE_AUDITOR)    \
    X(SHRED_REQUEST, "shred.request", false, KMS_ROLE_OPERATOR)                                              \
    X(SHRED_APPROVE, "shred.approve", false, KMS_ROLE_APPROVER)                                              \
    X(SHRED_CANCEL, "shred.cancel", false, KMS_ROLE_OPERATOR | KMS_ROLE_APPROVER)                            \
    X(SHRED_READ, "shred.read", false, KMS_ROLE_OPERATOR | KMS_ROLE_APPROVER | KMS_ROLE_AUDITOR)             \
    X(SHRED_CLOCK, "shred.clock", false, KMS_ROLE_ADMIN)                                                     \
    X(HOLD_PLACE, "hold.place", false, KMS_ROLE_OPERATOR)                                                    \
    X(HOLD_RELEASE, "hold.release", false, KMS_ROLE_OPERATOR)                                                \
    X(HOLD_APPROVE, "hold.approve", false, KMS_ROLE_APPROVER)                                                \
    X(HOLD_READ, "hold.read", false, KMS_ROLE_OPERATOR | KMS_ROLE_APPROVER | KMS_ROLE_AUDITOR)               \
    X(CERTIFICATE_READ, "certificate.read", false, KMS_ROLE_OPERATOR | KMS_ROLE_APPROVER | KMS_ROLE_AUDITOR) \
    X(ROTATE_MASTER, "rotate.master", false, KMS_ROLE_OPERATOR)                                              \
    X(ROTATE_TREE, "rotate.tree", false, KMS_ROLE_OPERATOR)                                                  \
    X(ROTATE_KEK, "rotate.kek", false, KMS_ROLE_OPERATOR)                                                    \
    X(ROTATE_APPROVE, "rotate.approve", false, KMS_ROLE_APPROVER)                                            \
    X(KEYVERSION_UPDATE, "keyversion.update", false, KMS_ROLE_OPERATOR)                                      \
    X(BACKUP_CREATE, "backup.create", false, KMS_ROLE_ADMIN | KMS_ROLE_OPERATOR)                             \
    X(BACKUP_VERIFY, "backup.verify", false, KMS_ROLE_ADMIN | KMS_ROLE_OPERATOR | KMS_ROLE_AUDITOR)          \
    X(BACKUP_PRUNE, "backup.prune", false, KMS_ROLE_ADMIN | KMS_ROLE_OPERATOR)                               \
    X(BACKUP_READ, "backup.read", false, KMS_ROLE_ADMIN | KMS_ROLE_OPERATOR | KMS_ROLE_AUDITOR)              \
    X(SHRED_SETTLE, "shred.settle", false, KMS_ROLE_ADMIN)                                                   \
    X(RECOVERY_ENROLL, "recovery.enroll", false, KMS_ROLE_ADMIN | KMS_ROLE_CUSTODIAN)                        \
    X(RECOVERY_RETIRE, "recovery.retire", false, KMS_ROLE_ADMIN | KMS_ROLE_CUSTODIAN)                        \
    X(RECOVERY_APPROVE, "recovery.approve", false, KMS_ROLE_ADMIN | KMS_ROLE_APPROVER | KMS_ROLE_CUSTODIAN)  \
    X(RECOVERY_DRILL, "recovery.drill", false, KMS_ROLE_ADMIN | KMS_ROLE_CUSTODIAN | KMS_ROLE_OPERATOR)      \
    X(RECOVERY_READ, "recovery.read", false,                                                                 \
      KMS_ROLE_ADMIN | KMS_ROLE_APPROVER | KMS_ROLE_CUSTODIAN | KMS_ROLE_OPERATOR | KMS_ROLE_AUDITOR)

enum {
    KMS_ROLE_APPLICATION = 1,
    KMS_ROLE_OPERATOR = 2,
    KMS_ROLE_APPROVER = 4,
    KMS_ROLE_CUSTODIAN = 8,
    KMS_ROLE_AUDITOR = 16,
    KMS_ROLE_ADMIN = 32
};

enum kms_action {
#define KMS_ACTION_ENUM(name, text, purpose, roles) KMS_ACTION_##name,
    KMS_ACTION_TABLE(KMS_ACTION_ENUM)
#undef KMS_ACTION_ENUM
        KMS_ACTION_COUNT
};

/** "datakey.generate"; never NULL. */
const char *kms_action_text(enum kms_action action);
/** True when a binding must name the purpose as well. */
bool kms_action_needs_purpose(enum kms_action action);
/** True for those that only look: their text ends in ".read" or ".status". */
bool kms_action_only_reads(enum kms_action action);
/** True for those that a binding in any tenant allows when no tenant is named: looking, but not at the policy of all. */
bool kms_action_open_to_any_tenant(enum kms_action action);
/** True for those that a frozen tenant or purpose does not stop: looking, freezing, what leads out of a freeze, and what
 * only saves keys: a legal hold, the cancellation of a shred. */
bool kms_action_goes_on_frozen(enum kms_action action);
/** The action of this text; KMS_ACTION_COUNT when there is none. */
enum kms_action kms_action_of_text(const char *text);
/** The roles that include it: KMS_ROLE_ bits. */
unsigned kms_action_roles(enum kms_action action);
/** "operator" for one KMS_ROLE_ bit; "unknown" for anything else. */
const char *kms_action_role_text(unsigned role);

#endif
