#include "rpc/peer.h"

#include <grpc/support/alloc.h>
#include <stdlib.h>

enum { SLOTS = 256 };

struct kms_rpc_peers {
    struct kms_auth *auth;
    struct kms_rpc_peer *slots[SLOTS];
};

enum kms_status kms_rpc_peers_new(struct kms_auth *auth, struct kms_rpc_peers **ret_peers)
{
    struct kms_rpc_peers *peers = calloc(1, sizeof *peers);
    if (peers == NULL)
        return KMS_NO_MEMORY;
    peers->auth = auth;
    *ret_peers = peers;
    return KMS_OK;
}

void kms_rpc_peer_unref(struct kms_rpc_peer *peer)
{
    if (peer == NULL || __atomic_sub_fetch(&peer->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    grpc_auth_context_release(peer->context);
    gpr_free(peer->address);
    free(peer);
}

void kms_rpc_peers_free(struct kms_rpc_peers *peers)
{
    if (peers == NULL)
        return;
    for (unsigned i = 0; i < SLOTS; i++)
        kms_rpc_peer_unref(peers->slots[i]);
    free(peers);
}

/* Contexts are heap objects: the low bits say nothing. */
static unsigned slot_of(const grpc_auth_context *context)
{
    const uint64_t address = (uint64_t)(uintptr_t)context;
    return (unsigned)(((address >> 4) * UINT64_C(0x9e3779b97f4a7c15)) >> 56) % SLOTS;
}

/* The leaf certificate that TLS has verified. Only this property is looked at: the SAN properties mix types. */
static enum kms_status identify(struct kms_auth *auth, const grpc_auth_context *context,
                                const struct kms_identity **ret_identity, struct kms_slice *ret_certificate,
                                struct kms_error *err)
{
    grpc_auth_property_iterator it =
        grpc_auth_context_find_properties_by_name(context, GRPC_X509_PEM_CERT_PROPERTY_NAME);
    const grpc_auth_property *property = grpc_auth_property_iterator_next(&it);
    if (property == NULL || property->value == NULL || property->value_length == 0)
        return kms_fail(err, KMS_UNAUTHENTICATED, "the connection has no client certificate");
    *ret_certificate = kms_slice_of(property->value, property->value_length);
    return kms_auth_identify(auth, *ret_certificate, ret_identity, err);
}

/* A connection that is not cached; takes over the reference to `context`. */
static enum kms_status peer_new(struct kms_auth *auth, grpc_call *call, grpc_auth_context *context,
                                struct kms_rpc_peer **ret_peer, struct kms_error *err)
{
    const struct kms_identity *identity = NULL;
    struct kms_slice certificate = {0};
    enum kms_status status = identify(auth, context, &identity, &certificate, err);
    struct kms_rpc_peer *peer = status == KMS_OK ? malloc(sizeof *peer) : NULL;
    if (peer == NULL) {
        grpc_auth_context_release(context);
        return status != KMS_OK ? status : kms_fail(err, KMS_NO_MEMORY, "no memory for a connection");
    }
    *peer = (struct kms_rpc_peer){.refs = 1,
                                  .context = context,
                                  .identity = identity,
                                  .address = grpc_call_get_peer(call),
                                  .certificate = certificate};
    *ret_peer = peer;
    return KMS_OK;
}

enum kms_status kms_rpc_peers_get(struct kms_rpc_peers *peers, grpc_call *call,
                                  struct kms_rpc_peer **ret_peer, struct kms_error *err)
{
    grpc_auth_context *context = grpc_call_auth_context(call);
    if (context == NULL)
        return kms_fail(err, KMS_UNAUTHENTICATED, "the connection has no authentication context");
    struct kms_rpc_peer **slot = &peers->slots[slot_of(context)];
    if (*slot != NULL && (*slot)->context == context) {
        grpc_auth_context_release(context);
        KMS_TRY(kms_auth_still_valid(peers->auth, (*slot)->identity, err));
    } else {
        struct kms_rpc_peer *peer = NULL;
        KMS_TRY(peer_new(peers->auth, call, context, &peer, err));
        kms_rpc_peer_unref(*slot);
        *slot = peer;
    }
    (void)__atomic_add_fetch(&(*slot)->refs, 1, __ATOMIC_ACQ_REL);
    *ret_peer = *slot;
    return KMS_OK;
}
