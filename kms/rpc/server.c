#include "rpc/server.h"

#include "core/cleanup.h"
#include "core/clock.h"
#include "core/log.h"
#include "rpc/address.h"
#include "rpc/control.h"
#include "rpc/corelog.h"
#include "rpc/health.h"
#include "rpc/mutexes.h"
#include "rpc/parts.h"
#include "rpc/queue.h"
#include "rpc/reflection.h"
#include "rpc/routes.h"
#include "rpc/stream.h"
#include "rpc/tls.h"

#include <stdlib.h>

enum {
    HANDSHAKE_TIMEOUT_MS = 10000,
    AGE_GRACE_MS = 60000,
    KEEPALIVE_MS = 60000,
    KEEPALIVE_TIMEOUT_MS = 20000,
    PING_INTERVAL_MIN_MS = 10000,
    STREAMS_PER_CONNECTION = 1024,
    METADATA_MAX = 16 * 1024,
    COMPRESSION_NONE_ONLY = 1, /* bit set of core's algorithms: identity */
};
/* Core gives back cancelled calls within milliseconds; a handler in a hanging HSM may take until its own time limit. */
#define HARD_CAP_NS (INT64_C(30) * KMS_NS_PER_SECOND)
#define LINGER_NS   KMS_NS_PER_SECOND

/* Defaults for what the caller left 0. */
static void fill_defaults(struct kms_rpc_config *config)
{
    if (config->threads == 0)
        config->threads = 1;
    if (config->max_message_bytes == 0)
        config->max_message_bytes = (size_t)4 * 1024 * 1024;
    if (config->arena_limit_bytes == 0)
        config->arena_limit_bytes = (size_t)8 * 1024 * 1024;
    if (config->connection_memory_bytes == 0)
        config->connection_memory_bytes = (size_t)1024 * 1024 * 1024;
    if (config->max_live_calls == 0)
        config->max_live_calls = 4096;
    if (config->max_control_queue == 0)
        config->max_control_queue = 256;
    if (config->max_group == 0)
        config->max_group = 128;
    if (config->max_connection_age_ns == 0)
        config->max_connection_age_ns = 3600 * KMS_NS_PER_SECOND;
}

/* Copies of the addresses; checked. */
static enum kms_status copy_addresses(struct kms_rpc_server *server, const struct kms_rpc_config *config,
                                      struct kms_error *err)
{
    const size_t count = config->address_count;
    if (count == 0)
        return kms_fail(err, KMS_CONFIG_INVALID, "there is no address to listen on");
    server->addresses = calloc(count, sizeof *server->addresses);
    server->bound = calloc(count, sizeof *server->bound);
    server->lock_files = calloc(count, sizeof *server->lock_files);
    if (server->addresses == NULL || server->bound == NULL || server->lock_files == NULL)
        return KMS_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        server->lock_files[i] = -1;
        KMS_TRY(kms_rpc_address_check(config->addresses[i], err));
        server->addresses[i] = strdup(config->addresses[i]);
        if (server->addresses[i] == NULL)
            return KMS_NO_MEMORY;
    }
    return KMS_OK;
}

/* The services of the daemon, then health and reflection. */
static enum kms_status add_services(struct kms_rpc_server *server, const struct kms_rpc_service *services,
                                    size_t count, struct kms_error *err)
{
    for (size_t i = 0; i < count; i++)
        KMS_TRY(kms_rpc_routes_add(server, &services[i], false, err));
    const struct kms_rpc_service health = kms_rpc_health_service(server);
    KMS_TRY(kms_rpc_routes_add(server, &health, true, err));
    kms_rpc_health_attach(server);
    if (server->reflection == NULL)
        return KMS_OK;
    const struct kms_rpc_service reflection = kms_rpc_reflection_service(server);
    return kms_rpc_routes_add(server, &reflection, true, err);
}

/* Core's server with every limit set. */
static enum kms_status make_core(struct kms_rpc_server *server, struct kms_error *err)
{
    const struct kms_rpc_config *config = &server->config;
    const struct {
        const char *name;
        int value;
    } settings[] = {
        {GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, (int)config->max_message_bytes},
        {GRPC_ARG_MAX_CONCURRENT_STREAMS, STREAMS_PER_CONNECTION},
        {GRPC_ARG_MAX_METADATA_SIZE, METADATA_MAX},
        {GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, HANDSHAKE_TIMEOUT_MS},
        {GRPC_ARG_MAX_CONNECTION_AGE_MS, (int)(config->max_connection_age_ns / KMS_NS_PER_MS)},
        {GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, AGE_GRACE_MS},
        {GRPC_ARG_KEEPALIVE_TIME_MS, KEEPALIVE_MS},
        {GRPC_ARG_KEEPALIVE_TIMEOUT_MS, KEEPALIVE_TIMEOUT_MS},
        {GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, PING_INTERVAL_MIN_MS},
        {GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, COMPRESSION_NONE_ONLY},
        {GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0},
        {GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0},
        {GRPC_ARG_ALLOW_REUSEPORT, 0},
        {GRPC_ARG_ENABLE_CHANNELZ, 0},
    };
    enum { COUNT = sizeof settings / sizeof settings[0] };
    grpc_arg args[COUNT + 1];
    for (unsigned i = 0; i < COUNT; i++)
        args[i] = (grpc_arg){.type = GRPC_ARG_INTEGER,
                             .key = (char *)(uintptr_t)settings[i].name,
                             .value.integer = settings[i].value};
    grpc_resource_quota *quota = grpc_resource_quota_create("kms");
    grpc_resource_quota_resize(quota, config->connection_memory_bytes);
    args[COUNT] = (grpc_arg){.type = GRPC_ARG_POINTER,
                             .key = (char *)(uintptr_t)GRPC_ARG_RESOURCE_QUOTA,
                             .value.pointer = {.p = quota, .vtable = grpc_resource_quota_arg_vtable()}};
    const grpc_channel_args list = {.num_args = COUNT + 1, .args = args};
    server->grpc = grpc_server_create(&list, NULL);
    grpc_resource_quota_unref(quota);
    for (; server->queue_count < config->threads; server->queue_count++) {
        struct kms_rpc_queue *queue = &server->queues[server->queue_count];
        KMS_TRY(kms_rpc_queue_init(queue, server));
        grpc_server_register_completion_queue(server->grpc, queue->cq, NULL);
    }
    return kms_rpc_routes_register(server, err);
}

/* Ranges of what the caller has set. */
static enum kms_status check_config(const struct kms_rpc_config *config, struct kms_error *err)
{
    if (config->auth == NULL)
        return kms_fail(err, KMS_CONFIG_INVALID,
                        "the server needs an auth: nobody may call it without an identity");
    if (config->threads > 256)
        return kms_fail(err, KMS_CONFIG_INVALID, "%u threads: at most 256", config->threads);
    if (config->max_message_bytes > (size_t)64 * 1024 * 1024)
        return kms_fail(err, KMS_CONFIG_INVALID, "the largest message may be 64 MiB at most");
    if (config->max_group > 65536)
        return kms_fail(err, KMS_CONFIG_INVALID, "a group of %u: at most 65536", config->max_group);
    if (config->max_connection_age_ns < KMS_NS_PER_SECOND ||
        config->max_connection_age_ns > INT64_C(15) * 24 * 3600 * KMS_NS_PER_SECOND)
        return kms_fail(err, KMS_CONFIG_INVALID, "the age of a connection is between 1 second and 15 days");
    return KMS_OK;
}

/* Core's server has shut down: no call is left there. */
static void shutdown_done(struct kms_rpc_tag *tag)
{
    struct kms_rpc_server *server =
        (struct kms_rpc_server *)((char *)tag - offsetof(struct kms_rpc_server, shutdown_tag));
    KMS_LOCKED(&server->lock);
    server->shut_down = true;
    (void)pthread_cond_broadcast(&server->changed);
}

/* Everything that new does, with the server freed by the caller on failure. */
static enum kms_status build(struct kms_rpc_server *server, const struct kms_rpc_config *config,
                             const struct kms_rpc_service *services, size_t service_count,
                             struct kms_error *err)
{
    server->config = *config;
    server->shutdown_tag.done_server = shutdown_done;
    fill_defaults(&server->config);
    KMS_TRY(check_config(&server->config, err));
    KMS_TRY(copy_addresses(server, config, err));
    KMS_TRY(kms_rpc_tls_new(config->certificate_path, config->private_key_path, config->client_ca_path,
                            &server->tls, err));
    if (config->descriptor_set.len > 0)
        KMS_TRY(kms_rpc_reflection_new(config->descriptor_set, &server->reflection, err));
    KMS_TRY(add_services(server, services, service_count, err));
    server->queues = calloc(server->config.threads, sizeof *server->queues);
    if (server->queues == NULL)
        return KMS_NO_MEMORY;
    return make_core(server, err);
}

enum kms_status kms_rpc_server_new(const struct kms_rpc_config *config,
                                   const struct kms_rpc_service *services, size_t service_count,
                                   struct kms_rpc_server **ret_server, struct kms_error *err)
{
    kms_rpc_corelog_install();
    kms_rpc_mutexes_unwatched();
    struct kms_rpc_server *server = calloc(1, sizeof *server);
    if (server == NULL)
        return KMS_NO_MEMORY;
    grpc_init();
    kms_mutex_init(&server->lock, KMS_LOCK_RPC_SERVER);
    kms_cond_init(&server->changed);
    const enum kms_status status = build(server, config, services, service_count, err);
    if (status == KMS_OK)
        *ret_server = server;
    else
        kms_rpc_server_free(server);
    return status;
}

/* Each address by itself, with credentials of its own. */
static enum kms_status bind_all(struct kms_rpc_server *server, struct kms_error *err)
{
    for (size_t i = 0; i < server->config.address_count; i++) {
        grpc_server_credentials *credentials = NULL;
        KMS_TRY(kms_rpc_tls_credentials(server->tls, &credentials));
        const enum kms_status status = kms_rpc_address_bind(server->grpc, server->addresses[i], credentials,
                                                            &server->bound[i], &server->lock_files[i], err);
        grpc_server_credentials_release(credentials);
        KMS_TRY(status);
    }
    return KMS_OK;
}

enum kms_status kms_rpc_server_start(struct kms_rpc_server *server, struct kms_error *err)
{
    KMS_ASSERT(server->phase == KMS_RPC_NEW);
    KMS_TRY(bind_all(server, err));
    KMS_TRY(kms_rpc_worker_new(server, "kms-control", server->config.max_control_queue, &server->control));
    KMS_TRY(kms_rpc_worker_new(server, "kms-streams", server->config.max_control_queue, &server->streams));
    server->phase = KMS_RPC_RUNNING;
    grpc_server_start(server->grpc);
    for (unsigned i = 0; i < server->queue_count; i++)
        KMS_TRY(kms_rpc_queue_start(&server->queues[i]));
    return KMS_OK;
}

const char *kms_rpc_server_address(const struct kms_rpc_server *server, size_t index)
{
    return index < server->config.address_count ? server->bound[index] : NULL;
}

void kms_rpc_server_set_serving(struct kms_rpc_server *server, bool serving)
{
    kms_rpc_health_set(server, serving);
}

enum kms_status kms_rpc_server_reload(struct kms_rpc_server *server, struct kms_error *err)
{
    return kms_rpc_tls_reload(server->tls, err);
}

/* Every call that was taken on has been answered and, unless only those count, core has closed its connections. */
static bool is_quiet_locked(const struct kms_rpc_server *server, bool calls_only)
{
    return (calls_only || server->shut_down) && __atomic_load_n(&server->live, __ATOMIC_ACQUIRE) == 0;
}

/* Wait for that; false when `until` passes first. */
static bool wait_quiet(struct kms_rpc_server *server, bool calls_only, int64_t until)
{
    KMS_LOCKED(&server->lock);
    while (!is_quiet_locked(server, calls_only))
        if (!kms_cond_wait(&server->changed, &server->lock, until))
            return is_quiet_locked(server, calls_only);
    return true;
}

/*
 * Let calls end within the grace, then connections within LINGER_NS: a peer that is idle and does not answer the GOAWAY would
 * otherwise keep the server up for the whole grace.
 */
static bool end_calls_and_connections(struct kms_rpc_server *server, int64_t grace_ns)
{
    const int64_t until = kms_clock_mono_ns() + grace_ns;
    const bool answered = wait_quiet(server, true, until);
    const int64_t linger = kms_clock_mono_ns() + LINGER_NS;
    if (answered && wait_quiet(server, false, linger < until ? linger : until))
        return true;
    if (!answered)
        kms_log_warning("rpc", "%llu calls are cancelled after the grace period",
                        (unsigned long long)__atomic_load_n(&server->live, __ATOMIC_ACQUIRE));
    grpc_server_cancel_all_calls(server->grpc);
    return wait_quiet(server, false, kms_clock_mono_ns() + HARD_CAP_NS);
}

bool kms_rpc_server_drain(struct kms_rpc_server *server, int64_t grace_ns)
{
    if (server->phase != KMS_RPC_RUNNING)
        return server->phase != KMS_RPC_STUCK;
    server->phase = KMS_RPC_DRAINING;
    kms_rpc_health_set(server, false);
    __atomic_store_n(&server->draining, true, __ATOMIC_RELEASE);
    grpc_server_shutdown_and_notify(server->grpc, server->queues[0].cq, &server->shutdown_tag);
    kms_rpc_stream_for_each(server,
                            kms_rpc_stream_pump); /* idle streams end now, others when all is answered */
    if (!end_calls_and_connections(server, grace_ns)) {
        kms_log_error("rpc", "calls still run; the server cannot be taken down in order");
        server->phase = KMS_RPC_STUCK;
        return false;
    }
    kms_rpc_worker_free(KMS_TAKE(server->control));
    kms_rpc_worker_free(KMS_TAKE(server->streams));
    for (unsigned i = 0; i < server->queue_count; i++)
        kms_rpc_queue_stop(&server->queues[i]);
    server->phase = KMS_RPC_DOWN;
    return true;
}

/* A server that never ran, or not completely: let core give back what it was asked for. */
static void take_down_unstarted(struct kms_rpc_server *server)
{
    if (server->grpc == NULL)
        return;
    if (server->phase == KMS_RPC_RUNNING) {
        (void)kms_rpc_server_drain(server, 0);
        return;
    }
    if (server->phase != KMS_RPC_NEW || server->queue_count == 0)
        return;
    grpc_server_shutdown_and_notify(server->grpc, server->queues[0].cq, &server->shutdown_tag);
    for (unsigned i = 0; i < server->queue_count; i++)
        kms_rpc_queue_stop(&server->queues[i]);
}

void kms_rpc_server_free(struct kms_rpc_server *server)
{
    if (server == NULL)
        return;
    take_down_unstarted(server);
    if (server->phase == KMS_RPC_STUCK)
        return; /* threads still use it: the process ends now, and the memory with it */
    kms_rpc_worker_free(server->control);
    kms_rpc_worker_free(server->streams);
    if (server->grpc != NULL)
        grpc_server_destroy(server->grpc);
    for (unsigned i = 0; i < server->queue_count; i++)
        kms_rpc_queue_clear(&server->queues[i]);
    free(server->queues);
    kms_rpc_routes_clear(server);
    kms_rpc_reflection_free(server->reflection);
    for (size_t i = 0; i < server->config.address_count; i++) {
        if (server->lock_files != NULL && server->lock_files[i] >= 0)
            (void)close(server->lock_files[i]);
        free(server->addresses == NULL ? NULL : server->addresses[i]);
        free(server->bound == NULL ? NULL : server->bound[i]);
    }
    free(server->addresses);
    free(server->bound);
    free(server->lock_files);
    kms_mutex_clear(&server->lock);
    (void)pthread_cond_destroy(&server->changed);
    grpc_shutdown();
    kms_rpc_tls_free(server->tls);
    free(server);
}

void kms_rpc_server_stats(struct kms_rpc_server *server, struct kms_rpc_stats *ret_stats)
{
    struct kms_rpc_stats stats = {.live_calls = __atomic_load_n(&server->live, __ATOMIC_RELAXED)};
    for (unsigned i = 0; i < server->queue_count; i++) {
        const struct kms_rpc_counters *counters = &server->queues[i].counters;
        stats.calls += __atomic_load_n(&counters->calls, __ATOMIC_RELAXED);
        stats.messages += __atomic_load_n(&counters->messages, __ATOMIC_RELAXED);
        stats.failed += __atomic_load_n(&counters->failed, __ATOMIC_RELAXED);
        stats.refused_over_limit += __atomic_load_n(&counters->refused_over_limit, __ATOMIC_RELAXED);
        stats.groups += __atomic_load_n(&counters->groups, __ATOMIC_RELAXED);
    }
    *ret_stats = stats;
}
