#include "daemon/services.h"

#include "kms/v1/backup.pb-c.h"
#include "kms/v1/certificate.pb-c.h"
#include "kms/v1/datakeys.pb-c.h"
#include "kms/v1/directory.pb-c.h"
#include "kms/v1/freeze.pb-c.h"
#include "kms/v1/hold.pb-c.h"
#include "kms/v1/operation.pb-c.h"
#include "kms/v1/policy.pb-c.h"
#include "kms/v1/recovery.pb-c.h"
#include "kms/v1/rotation.pb-c.h"
#include "kms/v1/server.pb-c.h"
#include "kms/v1/shred.pb-c.h"

#define UNARY(name_, lane_, handler_)                                                                        \
    {                                                                                                        \
        .name = (name_), .kind = KMS_RPC_UNARY, .lane = (lane_), .handler = (handler_)                       \
    }
#define STREAM(name_, handler_)                                                                              \
    {                                                                                                        \
        .name = (name_), .kind = KMS_RPC_BIDI, .lane = KMS_RPC_INLINE, .handler = (handler_)                 \
    }

/* The data plane runs where it arrives. */
static const struct kms_rpc_method data_key_methods[] = {
    UNARY("GenerateDataKey", KMS_RPC_INLINE, kms_ops_generate_data_key),
    UNARY("BatchGenerateDataKey", KMS_RPC_INLINE, kms_ops_batch_generate_data_key),
    STREAM("StreamGenerateDataKey", kms_ops_stream_generate_data_key),
    UNARY("WrapDataKey", KMS_RPC_INLINE, kms_ops_wrap_data_key),
    UNARY("BatchWrapDataKey", KMS_RPC_INLINE, kms_ops_batch_wrap_data_key),
    STREAM("StreamWrapDataKey", kms_ops_stream_wrap_data_key),
    UNARY("UnwrapDataKey", KMS_RPC_INLINE, kms_ops_unwrap_data_key),
    UNARY("BatchUnwrapDataKey", KMS_RPC_INLINE, kms_ops_batch_unwrap_data_key),
    STREAM("StreamUnwrapDataKey", kms_ops_stream_unwrap_data_key),
    UNARY("RewrapDataKey", KMS_RPC_INLINE, kms_ops_rewrap_data_key),
    UNARY("BatchRewrapDataKey", KMS_RPC_INLINE, kms_ops_batch_rewrap_data_key),
    STREAM("StreamRewrapDataKey", kms_ops_stream_rewrap_data_key),
};

/* The control plane may take long (a master key takes the HSM milliseconds): it has a thread of its own. */
static const struct kms_rpc_method directory_methods[] = {
    UNARY("CreateTenant", KMS_RPC_CONTROL, kms_ops_create_tenant),
    UNARY("GetTenant", KMS_RPC_CONTROL, kms_ops_get_tenant),
    UNARY("ListTenants", KMS_RPC_CONTROL, kms_ops_list_tenants),
    UNARY("UpdateTenant", KMS_RPC_CONTROL, kms_ops_update_tenant),
    UNARY("CloseTenant", KMS_RPC_CONTROL, kms_ops_close_tenant),
    UNARY("CreatePurpose", KMS_RPC_CONTROL, kms_ops_create_purpose),
    UNARY("GetPurpose", KMS_RPC_CONTROL, kms_ops_get_purpose),
    UNARY("ListPurposes", KMS_RPC_CONTROL, kms_ops_list_purposes),
    UNARY("UpdatePurpose", KMS_RPC_CONTROL, kms_ops_update_purpose),
    UNARY("ClosePurpose", KMS_RPC_CONTROL, kms_ops_close_purpose),
    UNARY("CreateCustomer", KMS_RPC_CONTROL, kms_ops_create_customer),
    UNARY("BatchCreateCustomers", KMS_RPC_CONTROL, kms_ops_batch_create_customers),
    UNARY("GetCustomer", KMS_RPC_CONTROL, kms_ops_get_customer),
    UNARY("ListCustomers", KMS_RPC_CONTROL, kms_ops_list_customers),
    UNARY("UpdateCustomer", KMS_RPC_CONTROL, kms_ops_update_customer),
    UNARY("CloseCustomer", KMS_RPC_CONTROL, kms_ops_close_customer),
    UNARY("RestrictCustomer", KMS_RPC_CONTROL, kms_ops_restrict_customer),
    UNARY("ListKekVersions", KMS_RPC_CONTROL, kms_ops_list_kek_versions),
};

static const struct kms_rpc_method server_methods[] = {
    UNARY("GetServerStatus", KMS_RPC_CONTROL, kms_ops_get_server_status),
    UNARY("GetAttestationKey", KMS_RPC_CONTROL, kms_ops_get_attestation_key),
};

/* They only ask for work and look at it; the work runs on the runner's thread. */
static const struct kms_rpc_method operation_methods[] = {
    UNARY("GetOperation", KMS_RPC_CONTROL, kms_ops_get_operation),
    UNARY("ListOperations", KMS_RPC_CONTROL, kms_ops_list_operations),
    UNARY("ApproveOperation", KMS_RPC_CONTROL, kms_ops_approve_operation),
    UNARY("RejectOperation", KMS_RPC_CONTROL, kms_ops_reject_operation),
    UNARY("CancelOperation", KMS_RPC_CONTROL, kms_ops_cancel_operation),
};

static const struct kms_rpc_method policy_methods[] = {
    UNARY("GetPolicy", KMS_RPC_CONTROL, kms_ops_get_policy),
    UNARY("ListPolicies", KMS_RPC_CONTROL, kms_ops_list_policies),
    UNARY("ApplyPolicy", KMS_RPC_CONTROL, kms_ops_apply_policy),
    UNARY("RollbackPolicy", KMS_RPC_CONTROL, kms_ops_rollback_policy),
    UNARY("CheckPermission", KMS_RPC_CONTROL, kms_ops_check_permission),
};

static const struct kms_rpc_method freeze_methods[] = {
    UNARY("CreateFreeze", KMS_RPC_CONTROL, kms_ops_create_freeze),
    UNARY("ListFreezes", KMS_RPC_CONTROL, kms_ops_list_freezes),
    UNARY("Unfreeze", KMS_RPC_CONTROL, kms_ops_unfreeze),
};

static const struct kms_rpc_method shred_methods[] = {
    UNARY("CreateShredJob", KMS_RPC_CONTROL, kms_ops_create_shred_job),
    UNARY("AddShredTargets", KMS_RPC_CONTROL, kms_ops_add_shred_targets),
    UNARY("RequestShred", KMS_RPC_CONTROL, kms_ops_request_shred),
    UNARY("CancelShred", KMS_RPC_CONTROL, kms_ops_cancel_shred),
    UNARY("GetShredJob", KMS_RPC_CONTROL, kms_ops_get_shred_job),
    UNARY("ListShredJobs", KMS_RPC_CONTROL, kms_ops_list_shred_jobs),
    UNARY("ListShredTargets", KMS_RPC_CONTROL, kms_ops_list_shred_targets),
    UNARY("GetShredStatus", KMS_RPC_CONTROL, kms_ops_get_shred_status),
    UNARY("ConfirmShredClock", KMS_RPC_CONTROL, kms_ops_confirm_shred_clock),
    UNARY("GetShredClock", KMS_RPC_CONTROL, kms_ops_get_shred_clock),
};

static const struct kms_rpc_method hold_methods[] = {
    UNARY("PlaceHold", KMS_RPC_CONTROL, kms_ops_place_hold),
    UNARY("ReleaseHold", KMS_RPC_CONTROL, kms_ops_release_hold),
    UNARY("ListHolds", KMS_RPC_CONTROL, kms_ops_list_holds),
};

static const struct kms_rpc_method certificate_methods[] = {
    UNARY("GetCertificate", KMS_RPC_CONTROL, kms_ops_get_certificate),
    UNARY("ListCertificates", KMS_RPC_CONTROL, kms_ops_list_certificates),
};

static const struct kms_rpc_method rotation_methods[] = {
    UNARY("RotateMaster", KMS_RPC_CONTROL, kms_ops_rotate_master),
    UNARY("RotateTree", KMS_RPC_CONTROL, kms_ops_rotate_tree),
    UNARY("RotateKek", KMS_RPC_CONTROL, kms_ops_rotate_kek),
    UNARY("SetKekVersionState", KMS_RPC_CONTROL, kms_ops_set_kek_version_state),
    UNARY("ShredKekVersion", KMS_RPC_CONTROL, kms_ops_shred_kek_version),
};

static const struct kms_rpc_method backup_methods[] = {
    UNARY("CreateBackup", KMS_RPC_CONTROL, kms_ops_create_backup),
    UNARY("VerifyBackups", KMS_RPC_CONTROL, kms_ops_verify_backups),
    UNARY("PruneBackups", KMS_RPC_CONTROL, kms_ops_prune_backups),
    UNARY("ListBackups", KMS_RPC_CONTROL, kms_ops_list_backups),
    UNARY("GetBackupStatus", KMS_RPC_CONTROL, kms_ops_get_backup_status),
};

static const struct kms_rpc_method recovery_methods[] = {
    UNARY("GetRecoveryStatus", KMS_RPC_CONTROL, kms_ops_get_recovery_status),
    UNARY("EnrollRecoveryKey", KMS_RPC_CONTROL, kms_ops_enroll_recovery_key),
    UNARY("RetireRecoveryKey", KMS_RPC_CONTROL, kms_ops_retire_recovery_key),
    UNARY("RecordRecoveryDrill", KMS_RPC_CONTROL, kms_ops_record_recovery_drill),
};

#define SERVICE(name)                                                                                        \
    {                                                                                                        \
        .descriptor = &kms__v1__##name##_service__descriptor, .methods = name##_methods,                     \
        .method_count = sizeof name##_methods / sizeof name##_methods[0]                                     \
    }
static const struct kms_rpc_service services[] = {
    SERVICE(data_key),    SERVICE(directory), SERVICE(server), SERVICE(operation),
    SERVICE(policy),      SERVICE(freeze),    SERVICE(shred),  SERVICE(hold),
    SERVICE(certificate), SERVICE(rotation),  SERVICE(backup), SERVICE(recovery),
};

size_t kms_services(struct kms_ops *ops, struct kms_rpc_service ret_services[KMS_SERVICES_MAX])
{
    enum { COUNT = sizeof services / sizeof services[0] };
    _Static_assert((int)COUNT <= (int)KMS_SERVICES_MAX, "there is room for all");
    for (size_t i = 0; i < COUNT; i++) {
        ret_services[i] = services[i];
        ret_services[i].context = ops;
    }
    return COUNT;
}
