#include <kms/client.h>

#include "client/channel.h"
#include "client/fault.h"
#include "client/unary.h"
#include "core/cleanup.h"

#include <grpc/health/v1/health.pb-c.h>

enum { DEFAULT_DEADLINE_MS = 10000, DEADLINE_MAX_MS = 24 * 3600 * 1000, RETRIES_MAX = 100 };

const char *kms_client_version(void)
{
    return KMS_VERSION;
}

/* INVALID when the config names too little or something out of range. */
static enum kms_client_status check_config(const struct kms_client_config *config,
                                           struct kms_client_error *err)
{
    if (config->size != sizeof *config)
        return kms_fault_set(err, KMS_CLIENT_INVALID, "start the config from KMS_CLIENT_CONFIG_INIT");
    const struct {
        const char *name, *value;
    } required[] = {{"endpoint", config->endpoint},
                    {"ca_path", config->ca_path},
                    {"certificate_path", config->certificate_path},
                    {"private_key_path", config->private_key_path}};
    for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
        if (required[i].value == NULL || required[i].value[0] == '\0')
            return kms_fault_set(err, KMS_CLIENT_INVALID, "%s is required", required[i].name);
    }
    if (config->deadline_ms > DEADLINE_MAX_MS)
        return kms_fault_set(err, KMS_CLIENT_INVALID, "deadline_ms is over %d", DEADLINE_MAX_MS);
    if (config->retries > RETRIES_MAX)
        return kms_fault_set(err, KMS_CLIENT_INVALID, "retries is over %d", RETRIES_MAX);
    return kms_channel_check_endpoint(config->endpoint, err);
}

enum kms_client_status kms_client_connect(const struct kms_client_config *config,
                                          struct kms_client **ret_client, struct kms_client_error *err)
{
    enum kms_client_status status = check_config(config, err);
    if (status != KMS_CLIENT_OK)
        return status;
    struct kms_client *client = calloc(1, sizeof *client);
    if (client == NULL || (client->endpoint = strdup(config->endpoint)) == NULL) {
        free(client);
        return kms_fault_no_memory(err);
    }
    client->deadline_ms = config->deadline_ms != 0 ? config->deadline_ms : DEFAULT_DEADLINE_MS;
    client->retries = config->retries;
    client->wait_for_ready = config->wait_for_ready != 0;
    status = kms_channel_open(client, config, err);
    if (status != KMS_CLIENT_OK) {
        free(client->endpoint);
        free(client);
        return status;
    }
    kms_mutex_init(&client->lock, KMS_LOCK_CLIENT);
    *ret_client = client;
    return KMS_CLIENT_OK;
}

void kms_client_free(struct kms_client *client)
{
    if (client == NULL)
        return;
    kms_channel_close(client);
    kms_mutex_clear(&client->lock);
    free(client->endpoint);
    free(client);
}

enum kms_client_status kms_client_health(struct kms_client *client, const char *service, int *ret_serving,
                                         struct kms_client_error *err)
{
    static const struct kms_unary_method check = {"/grpc.health.v1.Health/Check",
                                                  &grpc__health__v1__health_check_response__descriptor, true};
    struct kms_lane *lane = kms_lane_take(client);
    if (lane == NULL)
        return kms_fault_no_memory(err);
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    KMS_FREE char *name = service != NULL ? strdup(service) : NULL;
    if (name != NULL)
        request.service = name;
    ProtobufCMessage *reply = NULL;
    const enum kms_client_status status = kms_unary_call(client, lane, &check, &request.base, &reply, err);
    if (status == KMS_CLIENT_OK)
        *ret_serving = ((const Grpc__Health__V1__HealthCheckResponse *)reply)->status ==
                       GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
    kms_lane_give(client, lane);
    return status;
}
