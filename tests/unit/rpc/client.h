/*
 * Purpose:   a plain gRPC client for tests: unary and streaming calls of bytes, over real mTLS.
 * Owns:      its channel and queue.
 * Threads:   one client belongs to one thread.
 * Never:     is linked into anything but tests.
 */
#ifndef TESTS_UNIT_RPC_CLIENT_H
#define TESTS_UNIT_RPC_CLIENT_H

#include "core/bytes.h"

#include <grpc/grpc.h>
#include <grpc/status.h>
#include <protobuf-c/protobuf-c.h>

struct client {
    grpc_channel *channel;
    grpc_completion_queue *queue;
};

/** `certificate_path` NULL: no client certificate. `target` as in gRPC ("127.0.0.1:1234", "unix:/path"). */
struct client client_new(const char *target, const char *ca_path, const char *certificate_path,
                         const char *key_path);
/** The same with one more channel argument. */
struct client client_new_with(const char *target, const char *ca_path, const char *certificate_path,
                              const char *key_path, const char *extra, int value);
void client_clear(struct client *client);

/** How a call ended. Zero-initialise; client_result_clear() frees. */
struct client_result {
    grpc_status_code code;
    char *message;
    struct kms_buf details; /* grpc-status-details-bin */
    bool has_reply;
    struct kms_buf reply;
};
void client_result_clear(struct client_result *result);

/** A call in progress. */
struct client_call {
    struct client *client;
    grpc_call *call;
    grpc_metadata_array initial, trailing;
    grpc_status_code code;
    grpc_slice message;
    bool ended; /* the status has arrived */
};

enum { CLIENT_TIMEOUT_S = 60 };

/** Start a call and wait until its headers were taken by core. `timeout_ms` 0: CLIENT_TIMEOUT_S. */
void client_start(struct client *client, const char *path, int64_t timeout_ms, struct client_call *ret_call);
/** Send one message; false when the call has ended. */
bool client_send(struct client_call *call, struct kms_slice bytes);
/** Start to send without waiting; then client_sent() waits. */
void client_send_begin(struct client_call *call, struct kms_slice bytes, void *tag);
bool client_wait(struct client_call *call, void *tag);
/** True when `tag` completes within the time; used to see that something does *not* happen. */
bool client_completes_within(struct client_call *call, void *tag, int64_t ms);
void client_half_close(struct client_call *call);
/** Receive a message; false at the end of the stream. */
bool client_receive(struct client_call *call, struct kms_buf *ret_message);
/** Wait for the status and end the call. */
void client_finish(struct client_call *call, struct client_result *ret_result);

/** A whole unary call. */
void client_unary(struct client *client, const char *path, struct kms_slice request,
                  struct client_result *ret_result);
/** The same with a message; the reply is unpacked with `type` (NULL result for a failure). */
ProtobufCMessage *client_unary_message(struct client *client, const char *path,
                                       const ProtobufCMessage *request,
                                       const ProtobufCMessageDescriptor *type,
                                       struct client_result *ret_result);
/** Pack; kms_buf_clear(). */
struct kms_buf client_pack(const ProtobufCMessage *message);

#endif
