#include "rpc/measure.h"

#include "core/clock.h"

#include <stdlib.h>

/* Atomically accessed; otherwise like struct kms_rpc_method_stats. */
struct kms_rpc_measure {
    uint64_t statuses[KMS_STATUS_COUNT];
    uint64_t buckets[KMS_RPC_LATENCY_BUCKETS];
    uint64_t total_ns;
};

const int64_t kms_rpc_latency_bounds_ns[KMS_RPC_LATENCY_BUCKETS] = {
    100000,   250000,   500000,    1000000,   2500000,   5000000,    10000000,
    25000000, 50000000, 100000000, 250000000, 500000000, 1000000000, INT64_MAX};

enum kms_status kms_rpc_measure_init(struct kms_rpc_queue *queue)
{
    queue->measures = calloc(queue->server->route_count + 1, sizeof *queue->measures);
    return queue->measures != NULL ? KMS_OK : KMS_NO_MEMORY;
}

void kms_rpc_measure_clear(struct kms_rpc_queue *queue)
{
    free(queue->measures);
    queue->measures = NULL;
}

/* One more, from any thread. */
static void add(uint64_t *counter, uint64_t value)
{
    (void)__atomic_add_fetch(counter, value, __ATOMIC_RELAXED);
}

void kms_rpc_measure_end(const struct kms_rpc_call *call)
{
    const struct kms_rpc_server *server = call->queue->server;
    const size_t index = call->route != NULL ? (size_t)(call->route - server->routes) : server->route_count;
    struct kms_rpc_measure *measure = &call->queue->measures[index];
    const int64_t took = kms_clock_mono_ns() - call->began_ns;
    unsigned bucket = 0;
    while (took > kms_rpc_latency_bounds_ns[bucket])
        bucket++;
    add(&measure->statuses[call->outcome.status], 1);
    add(&measure->buckets[bucket], 1);
    add(&measure->total_ns, (uint64_t)took);
}

/* Add what one queue has counted. */
static void add_measure(struct kms_rpc_method_stats *stats, const struct kms_rpc_measure *measure)
{
    for (unsigned i = 0; i < KMS_STATUS_COUNT; i++) {
        const uint64_t count = __atomic_load_n(&measure->statuses[i], __ATOMIC_RELAXED);
        stats->statuses[i] += count;
        stats->calls += count;
    }
    for (unsigned i = 0; i < KMS_RPC_LATENCY_BUCKETS; i++)
        stats->buckets[i] += __atomic_load_n(&measure->buckets[i], __ATOMIC_RELAXED);
    stats->total_ns += __atomic_load_n(&measure->total_ns, __ATOMIC_RELAXED);
}

bool kms_rpc_server_method_stats(struct kms_rpc_server *server, size_t index,
                                 struct kms_rpc_method_stats *ret_stats)
{
    if (index > server->route_count)
        return false;
    const struct kms_rpc_route *route = index < server->route_count ? &server->routes[index] : NULL;
    *ret_stats = (struct kms_rpc_method_stats){.path = route != NULL ? route->path : "unknown",
                                               .unary = route != NULL && route->kind == KMS_RPC_UNARY};
    for (unsigned i = 0; i < server->queue_count; i++)
        add_measure(ret_stats, &server->queues[i].measures[index]);
    return true;
}
