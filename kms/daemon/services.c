#include "daemon/services.h"

#include "kms/v1/datakeys.pb-c.h"
#include "kms/v1/directory.pb-c.h"
#include "kms/v1/operation.pb-c.h"
#include "kms/v1/server.pb-c.h"

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

#define METHODS(table) .methods = (table), .method_count = sizeof(table) / sizeof((table)[0])

void kms_services(struct kms_ops *ops, struct kms_rpc_service ret_services[KMS_SERVICES])
{
    ret_services[0] = (struct kms_rpc_service){
        .descriptor = &kms__v1__data_key_service__descriptor, METHODS(data_key_methods), .context = ops};
    ret_services[1] = (struct kms_rpc_service){
        .descriptor = &kms__v1__directory_service__descriptor, METHODS(directory_methods), .context = ops};
    ret_services[2] = (struct kms_rpc_service){
        .descriptor = &kms__v1__server_service__descriptor, METHODS(server_methods), .context = ops};
    ret_services[3] = (struct kms_rpc_service){
        .descriptor = &kms__v1__operation_service__descriptor, METHODS(operation_methods), .context = ops};
}
