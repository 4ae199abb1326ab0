/*
 * Purpose:   who is at the other end of a connection: identity and transport address, looked up once for each connection.
 * Owns:      a reference to core's authentication context, so that its address stays the key while it is cached.
 * Threads:   a cache belongs to one queue's thread; a peer's references may be dropped by any thread.
 * Never:     trusts an identity without asking auth again on each call.
 */
#ifndef KMS_RPC_PEER_H
#define KMS_RPC_PEER_H

#include "rpc/parts.h"

struct kms_rpc_peer {
    unsigned refs; /* atomic */
    grpc_auth_context *context;
    const struct kms_identity *identity; /* interned by auth */
    char *address;                       /* core's memory: "ipv4:127.0.0.1:4711", "unix:" */
    struct kms_slice certificate;        /* PEM, in `context` */
};

/** A cache of the latest connections. NO_MEMORY leaves NULL. */
enum kms_status kms_rpc_peers_new(struct kms_auth *auth, struct kms_rpc_peers **ret_peers) KMS_MUST_USE;
/** Drops the cache's own references; NULL-safe. */
void kms_rpc_peers_free(struct kms_rpc_peers *peers);
/**
 * The peer of a call; the caller gets a reference. Checks validity and revocation on each call. UNAUTHENTICATED with the
 * cause, NO_MEMORY.
 */
enum kms_status kms_rpc_peers_get(struct kms_rpc_peers *peers, grpc_call *call,
                                  struct kms_rpc_peer **ret_peer, struct kms_error *err) KMS_MUST_USE;
/** Drop a reference; NULL-safe. */
void kms_rpc_peer_unref(struct kms_rpc_peer *peer);

#endif
