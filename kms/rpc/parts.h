/*
 * Purpose:   the structures of a running server, shared by the files of this directory.
 * Owns:      nothing by itself; each field says who owns it.
 * Threads:   each field says what protects it.
 * Never:     is included outside kms/rpc.
 */
#ifndef KMS_RPC_PARTS_H
#define KMS_RPC_PARTS_H

#include "core/ids.h"
#include "core/lock.h"
#include "rpc/server.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

enum {
    /* Calls that a queue asks for ahead. Few: Debian's core looks for each completion's tag in the list of all that are awaited. */
    KMS_RPC_REQUESTED_UNARY = 8,  /* of an inline method */
    KMS_RPC_REQUESTED_OTHER = 1,  /* of any other */
    KMS_RPC_TASKS = 32,           /* messages that wait to be handled together */
    KMS_RPC_STREAM_REPLIES = 512, /* replies of a stream that wait to be sent; reading pauses at that */
};
/* bytes of replies of a stream that wait to be sent; reading pauses at that */
#define KMS_RPC_STREAM_REPLY_BYTES ((size_t)1024 * 1024)
/* a stream whose peer takes nothing for so long is ended, so that it cannot hold its worker */
#define KMS_RPC_STALL_NS (INT64_C(30) * 1000000000)

struct kms_rpc_call;
struct kms_rpc_queue;
struct kms_rpc_tls;
struct kms_rpc_peers;
struct kms_rpc_peer;
struct kms_rpc_worker;
struct kms_rpc_reflection;
struct kms_rpc_measure;

/* A method as it is served. Immutable once the server has started. */
struct kms_rpc_route {
    char *path; /* "/package.Service/Method"; owned */
    enum kms_rpc_kind kind;
    enum kms_rpc_lane lane;
    kms_rpc_handler handler;
    kms_rpc_stream_handler stream_handler;
    void *context;
    const ProtobufCMessageDescriptor *input;
    bool scan;      /* the input type can nest without bound: look before unpacking */
    bool immediate; /* health, reflection: nothing to commit before the reply */
    void (*begin_watch)(struct kms_rpc_call *call, const ProtobufCMessage *request); /* Health.Watch */
    void *registered;                                                                /* core's handle */
};

/* Where handlers run one after the other: a queue's thread or a worker's thread. Used by that thread only. */
struct kms_rpc_bench {
    struct kms_arena *arena; /* owned */
    struct kms_call call;    /* what the running handler sees */
    uint8_t *scratch;        /* owned: requests that arrive in pieces are put together here */
    size_t scratch_size;
};

/* What a completion means; the tag handed to core is the address of one of these. */
struct kms_rpc_tag {
    void (*done)(struct kms_rpc_call *call, bool ok);
    struct kms_rpc_call *call; /* NULL for the server's own tag: */
    void (*done_server)(struct kms_rpc_tag *tag);
};

/* How a call ends. Slices and payload are owned. */
struct kms_rpc_outcome {
    enum kms_status status;
    bool set;
    bool has_details; /* `message` and `details` are slices to release */
    grpc_slice message;
    grpc_slice details;        /* google.rpc.Status */
    grpc_byte_buffer *payload; /* unary reply; NULL for a failure or a stream */
};

/* A finished reply that waits for the commit of its group, or a message that waits to be sent. */
struct kms_rpc_reply {
    struct kms_rpc_reply *next;
    struct kms_rpc_call *call; /* one reference */
    grpc_byte_buffer *payload; /* message of a stream; NULL for the end of a call */
    size_t size;
};

/* Outgoing side of a bidirectional or server-streaming call. Protected by `lock` unless noted. */
struct kms_rpc_stream {
    struct kms_mutex lock;
    pthread_cond_t changed; /* a send was done, or the call is over: for a waiting writer */
    struct kms_rpc_reply *head, *tail;
    struct kms_rpc_reply *in_flight;
    unsigned outstanding; /* messages being handled, staged, waiting or in flight */
    size_t outstanding_bytes;
    unsigned handling;   /* of these, those whose handler has not ended */
    bool begun;          /* this use of the call object is a stream that has begun */
    bool reading;        /* a RECV_MESSAGE is pending */
    bool half_closed;    /* the peer sends nothing more */
    bool no_more;        /* a message has failed: nothing more is read */
    bool closing;        /* call->outcome is final: send it when nothing waits any more */
    bool finished;       /* the status was sent */
    bool over;           /* cancelled or broken: nothing can be sent any more */
    bool initial_sent;   /* by who sends */
    uint64_t next_index; /* by the handling thread */
    grpc_byte_buffer *incoming;
    bool listed; /* protected by server->lock, as the links */
    struct kms_rpc_call *previous, *following;
    bool watch_known; /* Health.Watch of a service that exists; protected by server->lock */
};

/* One call, from the moment that a queue asks core for it. Pooled; `refs` counts started batches and holders. */
struct kms_rpc_call {
    struct kms_rpc_queue *queue;
    struct kms_rpc_route *route; /* NULL: a method that is not known */
    struct kms_rpc_call *next;   /* in the pool or in a worker's queue */
    unsigned refs;               /* atomic */
    bool live;                   /* counted in server->live */
    bool grouped;                /* counted in queue->unary_live */
    bool close_started;
    bool cancelled; /* atomic; handlers see its address */
    int close_cancelled;
    grpc_call *call;
    gpr_timespec deadline;
    int64_t deadline_ns;
    int64_t began_ns;
    grpc_metadata_array metadata;
    grpc_call_details unknown;
    grpc_byte_buffer *request;
    struct kms_rpc_peer *peer; /* one reference */
    char *path;                /* of an unknown method; owned */
    char request_id[KMS_REQUEST_ID_SIZE];
    struct kms_rpc_tag began, closed, received, sent, finished;
    struct kms_rpc_outcome outcome;
    struct kms_rpc_reply end; /* the entry of this call's end in a group */
    struct kms_rpc_stream stream;
};

/* A message of an inline method whose handler has not run yet. */
struct kms_rpc_task {
    struct kms_rpc_call *call; /* one reference */
    grpc_byte_buffer *payload; /* of a stream; NULL: call->request of a unary call */
};

/* Replies that are committed together. */
struct kms_rpc_group {
    struct kms_rpc_reply *head, *tail;
    unsigned size;
    int64_t since_ns; /* when the first reply was staged; once its commit has begun: when it did */
    uint64_t ticket;
    enum kms_status status; /* what the commit has said so far */
    struct kms_error error;
};

/* Counters; written with relaxed atomics. */
struct kms_rpc_counters {
    uint64_t calls, messages, failed, refused_over_limit, groups;
};

/* A completion queue and its thread. Fields without a note are used by that thread only. */
struct kms_rpc_queue {
    struct kms_rpc_server *server;
    grpc_completion_queue *cq;
    pthread_t thread;
    bool running; /* by the main thread */
    struct kms_rpc_bench bench;
    struct kms_rpc_peers *peers;
    struct kms_rpc_task tasks[KMS_RPC_TASKS];
    unsigned task_count;
    struct kms_rpc_group collecting; /* replies are added to it */
    struct kms_rpc_group committing; /* its commit has begun; empty: none */
    unsigned last_group;             /* size of the group before */
    struct kms_rpc_call **touched;   /* room for the streams of one group, max_group + KMS_RPC_TASKS; owned */
    uint64_t unary_live;             /* atomic: calls in hand whose end joins a group of this queue */
    uint64_t open_calls;             /* as many as were open at once, lately */
    int64_t commit_cost_ns;          /* how long a commit takes, smoothed */
    uint64_t next_request;
    char id_prefix[18];
    struct kms_mutex pool_lock;
    struct kms_rpc_call *pool; /* protected by pool_lock */
    struct kms_rpc_counters counters;
    struct kms_rpc_measure *measures; /* one for each route and one for the rest; owned */
};

enum kms_rpc_phase { KMS_RPC_NEW, KMS_RPC_RUNNING, KMS_RPC_DRAINING, KMS_RPC_DOWN, KMS_RPC_STUCK };

struct kms_rpc_server {
    struct kms_rpc_config config; /* with defaults filled in; strings are copies */
    struct kms_rpc_route *routes;
    size_t route_count;
    struct kms_rpc_queue *queues;
    unsigned queue_count;
    struct kms_rpc_worker *control; /* unary and bidirectional calls of the control lane */
    struct kms_rpc_worker *streams; /* server streams: a slow reader must not hold up the control lane */
    struct kms_rpc_tls *tls;
    struct kms_rpc_reflection *reflection;
    grpc_server *grpc;
    char **addresses; /* as configured */
    char **bound;     /* with the real port */
    int *lock_files;  /* of Unix sockets, else -1 */
    uint64_t live;    /* atomic: calls that began and were not released */
    bool draining;    /* atomic */
    struct kms_mutex lock;
    pthread_cond_t changed;      /* the shutdown tag came, or live became 0 */
    enum kms_rpc_phase phase;    /* main thread */
    bool shut_down;              /* protected by lock: core has said so */
    bool serving;                /* protected by lock */
    struct kms_rpc_call *listed; /* protected by lock: streams that are open */
    struct kms_rpc_tag shutdown_tag;
};

#endif
