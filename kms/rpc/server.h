/*
 * Purpose:   a gRPC server for services described by protobuf-c: transports, life of a call, codecs, health,
 *            reflection.
 * Owns:      completion queues, their threads, the control worker, every live call.
 * Threads:   new, start, drain and free from the main thread; handlers run on the server's threads.
 * Never:     lets a grpc type out of this directory; sends a reply before the commit hooks have said OK.
 */
#ifndef KMS_RPC_SERVER_H
#define KMS_RPC_SERVER_H

#include "auth/auth.h"
#include "core/call.h"

#include <protobuf-c/protobuf-c.h>

struct kms_rpc_server;

enum kms_rpc_kind {
    KMS_RPC_UNARY,
    KMS_RPC_SERVER_STREAM,
    KMS_RPC_BIDI /* one reply for each message, in order */
};

enum kms_rpc_lane {
    KMS_RPC_INLINE, /* runs to its end on the completion-queue thread: the data plane */
    KMS_RPC_CONTROL /* runs on the control worker's thread: may take long, may wait */
};

/**
 * Serve one request (UNARY) or one message of a stream (BIDI). The reply is allocated in call->arena and
 * lives until the server has packed it. A failure of a BIDI message ends the stream with that status:
 * per-item errors belong into the reply. On failure call->error says why; its public text goes to the caller
 * together with ErrorInfo, RequestInfo and, when the status is retryable, RetryInfo
 * (grpc-status-details-bin).
 */
typedef enum kms_status (*kms_rpc_handler)(void *context, struct kms_call *call,
                                           const ProtobufCMessage *request, ProtobufCMessage **ret_reply);

/** Sends one message of a server stream; blocks while the peer reads slowly (control lane only). */
struct kms_rpc_writer;
enum kms_status kms_rpc_writer_send(struct kms_rpc_writer *writer,
                                    const ProtobufCMessage *message) KMS_MUST_USE;
typedef enum kms_status (*kms_rpc_stream_handler)(void *context, struct kms_call *call,
                                                  const ProtobufCMessage *request,
                                                  struct kms_rpc_writer *writer);

struct kms_rpc_method {
    const char *name; /* as in the descriptor */
    enum kms_rpc_kind kind;
    enum kms_rpc_lane lane;
    kms_rpc_handler handler;               /* UNARY and BIDI */
    kms_rpc_stream_handler stream_handler; /* SERVER_STREAM */
};

struct kms_rpc_service {
    const ProtobufCServiceDescriptor *descriptor;
    const struct kms_rpc_method *methods;
    size_t method_count;
    void *context; /* handed to the handlers */
};

/**
 * What makes the audit records and reservations of calls durable, in two halves: once for a group of finished inline calls and
 * once for each finished control call, before their replies leave. While the second half of one group is awaited the thread
 * works on the next group. A failure of either half turns every reply of the group into that status. All of them run on the
 * thread that ran the handlers.
 */
struct kms_rpc_commit {
    /** Start: everything done since the last begin belongs to the ticket. NULL: there is nothing to commit. */
    enum kms_status (*begin)(void *context, uint64_t *ret_ticket, struct kms_error *err);
    /** Whether finish would return OK without waiting; cheap. */
    bool (*is_done)(void *context, uint64_t ticket);
    /**
     * Wait for it no longer than `ns`: OK with *ret_done false when that was not enough, else as finish. NULL: there is only
     * finish to wait with.
     */
    enum kms_status (*await)(void *context, uint64_t ticket, int64_t ns, bool *ret_done,
                             struct kms_error *err);
    /** Wait until it is durable, or known that it cannot be made so. */
    enum kms_status (*finish)(void *context, uint64_t ticket, struct kms_error *err);
    void *context;
};

/**
 * Told of every call that was refused before a handler ran (no identity, malformed, unknown method, over a limit), so that it
 * can be noted in the audit log. call->identity may be NULL here. Its record is made durable with the next group.
 */
typedef void (*kms_rpc_refused)(void *context, const struct kms_call *call, enum kms_status status);

struct kms_rpc_config {
    const char *const *addresses; /* "127.0.0.1:0", "[::1]:7443", "unix:/run/kms/kms.sock" */
    size_t address_count;
    const char *certificate_path; /* PEM chain of the server */
    const char *private_key_path; /* PEM, mode 0600 */
    const char *client_ca_path;   /* PEM */
    struct kms_auth *auth;
    unsigned threads;               /* completion-queue threads; 0: 1 */
    size_t max_message_bytes;       /* 0: 4 MiB */
    size_t arena_limit_bytes;       /* 0: 8 MiB */
    size_t connection_memory_bytes; /* core's buffers for all connections: beyond, it closes some; 0: 1 GiB */
    size_t max_live_calls;          /* over that: RESOURCE_EXHAUSTED; 0: 4096 */
    size_t max_control_queue;       /* waiting for the control worker; 0: 256 */
    unsigned max_group;             /* inline calls committed together at most; 0: 128 */
    int64_t max_connection_age_ns;  /* 0: 1 h */
    struct kms_rpc_commit commit;
    kms_rpc_refused refused; /* may be NULL */
    void *refused_context;
    struct kms_slice
        descriptor_set; /* serialised FileDescriptorSet for reflection; kinds are cross-checked at start */
};

/** Check everything and make the server; nothing listens yet. CONFIG_INVALID with the reason. */
enum kms_status kms_rpc_server_new(const struct kms_rpc_config *config,
                                   const struct kms_rpc_service *services, size_t service_count,
                                   struct kms_rpc_server **ret_server, struct kms_error *err) KMS_MUST_USE;
/** Bind every address and start to serve. Port 0 picks one: see kms_rpc_server_address(). */
enum kms_status kms_rpc_server_start(struct kms_rpc_server *server, struct kms_error *err) KMS_MUST_USE;
/** The address that was bound, with the real port; valid until free. */
const char *kms_rpc_server_address(const struct kms_rpc_server *server, size_t index);
/** grpc.health.v1: what Check and Watch answer from now on, for "" and every service. */
void kms_rpc_server_set_serving(struct kms_rpc_server *server, bool serving);
/** Read certificate, key and client CA again. On failure the old ones stay. */
enum kms_status kms_rpc_server_reload(struct kms_rpc_server *server, struct kms_error *err) KMS_MUST_USE;
/**
 * NOT_SERVING, no new calls, idle streams are ended, wait up to `grace_ns` for calls that run, cancel the rest, join the threads.
 * False when a handler does not come back even then (30 seconds): it still uses what its context points to, so the process must
 * end without freeing that.
 */
bool kms_rpc_server_drain(struct kms_rpc_server *server, int64_t grace_ns);
/** After drain, or when start failed; NULL-safe. Does nothing after a drain that said false. */
void kms_rpc_server_free(struct kms_rpc_server *server);

struct kms_rpc_stats {
    uint64_t calls, messages, failed, refused_over_limit, groups;
    uint64_t live_calls;
};
void kms_rpc_server_stats(struct kms_rpc_server *server, struct kms_rpc_stats *ret_stats);

enum { KMS_RPC_LATENCY_BUCKETS = 14 };
/** Upper bounds of the buckets, inclusive; the last one has no bound. */
extern const int64_t kms_rpc_latency_bounds_ns[KMS_RPC_LATENCY_BUCKETS];

/** What became of the calls of one method that were answered, and when: from core's word of the call until its reply leaves. */
struct kms_rpc_method_stats {
    const char *path; /* "/kms.v1.DataKeyService/GenerateDataKey", "unknown" for all others together */
    bool unary;       /* else a call is as long as its peer wants */
    uint64_t calls;
    uint64_t statuses[KMS_STATUS_COUNT];
    uint64_t buckets[KMS_RPC_LATENCY_BUCKETS]; /* each by itself */
    uint64_t total_ns;
};
/** The method with this index, from 0; false after the last one. */
bool kms_rpc_server_method_stats(struct kms_rpc_server *server, size_t index,
                                 struct kms_rpc_method_stats *ret_stats);

#endif
