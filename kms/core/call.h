/*
 * Purpose:   what one remote call carries through the layers: memory, caller, deadline, error, audit facts.
 * Owns:      nothing; the RPC layer owns what it points to.
 * Threads:   used by one thread at a time.
 * Never:     outlives its call.
 */
#ifndef KMS_CORE_CALL_H
#define KMS_CORE_CALL_H

#include "core/arena.h"
#include "core/bytes.h"
#include "core/status.h"

enum { KMS_REQUEST_ID_SIZE = 40 };

struct kms_identity; /* auth/identity.h */

struct kms_call {
    struct kms_arena *arena; /* dies with the call; on a stream it is reset after each message */
    const struct kms_identity
        *identity;                /* never NULL in a handler: the RPC layer refuses callers without one */
    const char *method;           /* "/kms.v1.DataKeyService/GenerateDataKey" */
    const char *peer;             /* transport address, "ipv4:127.0.0.1:4711" or "unix:" */
    struct kms_slice certificate; /* PEM of the client's certificate, as TLS has verified it; empty: none */
    char request_id[KMS_REQUEST_ID_SIZE]; /* unique; in the log, the audit log and every error reply */
    int64_t deadline_mono_ns;             /* INT64_MAX: none */
    uint64_t stream_index;                /* number of the message within a stream, from 0; else 0 */
    struct kms_error error;               /* a failing handler says here why */
    const bool *cancelled; /* becomes true when the caller went away; read with kms_call_is_over() */
};

/** CANCELLED or DEADLINE_EXCEEDED when nobody waits for the answer any more, else OK. Long work asks often.
 */
enum kms_status kms_call_is_over(const struct kms_call *call) KMS_MUST_USE;

#endif
