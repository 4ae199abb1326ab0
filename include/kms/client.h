/*
 * libkms: the C client of the key service.
 *
 * This header: connecting, and the errors of every function of the library. See also datakey.h (data keys),
 * envelope.h (encryption of buffers, streams and files) and cache.h (a cache of data keys).
 *
 * Threads:  a kms_client may be used by any number of threads at once; each call blocks its own thread only.
 * Signals:  the library installs no handlers. Fork only before the first call of the library.
 * Memory:   plaintext keys live in locked memory (mlock), are kept out of core dumps and are wiped when they
 *           are released; each takes a part of RLIMIT_MEMLOCK. Messages are wiped when they have been sent or
 *           read. What cannot be wiped from here: the buffers of TLS and gRPC's copy of the client's private key.
 */
#ifndef KMS_CLIENT_H
#define KMS_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define KMS_CLIENT_API      __attribute__((visibility("default")))
#define KMS_CLIENT_MUST_USE __attribute__((warn_unused_result))
#else
#define KMS_CLIENT_API
#define KMS_CLIENT_MUST_USE
#endif

/** What became of a call. Never renumbered; new values are added at the end. */
enum kms_client_status {
    KMS_CLIENT_OK = 0,
    KMS_CLIENT_END = 1,             /* a stream has ended in good order; no error */
    KMS_CLIENT_INVALID = 2,         /* an argument, a file or the configuration is not valid */
    KMS_CLIENT_UNAVAILABLE = 3,     /* no connection, or the service cannot serve now; retry later */
    KMS_CLIENT_DEADLINE = 4,        /* the deadline passed; whether the call was done is not known */
    KMS_CLIENT_DENIED = 5,          /* the policy does not allow it */
    KMS_CLIENT_UNAUTHENTICATED = 6, /* the service does not know this client certificate */
    KMS_CLIENT_NOT_FOUND = 7,       /* no such tenant, customer or purpose */
    KMS_CLIENT_EXISTS = 8,          /* the resource exists already */
    KMS_CLIENT_PRECONDITION = 9,    /* closed, disabled, or in a state that does not allow the call */
    KMS_CLIENT_ABORTED = 10,        /* changed by somebody else meanwhile (etag); read again */
    KMS_CLIENT_EXHAUSTED = 11,      /* a limit of the service is reached */
    KMS_CLIENT_REFUSED = 12,        /* a wrapped data key or encrypted data is not authentic, or not for this
                                        customer, purpose or context; one answer for every cause */
    KMS_CLIENT_NO_MEMORY = 13,      /* out of memory, or of locked memory (RLIMIT_MEMLOCK) */
    KMS_CLIENT_IO = 14,             /* reading or writing a file or stream failed */
    KMS_CLIENT_CANCELLED = 15,      /* a callback of the caller asked to stop */
    KMS_CLIENT_UNIMPLEMENTED = 16,  /* the service is older than this library */
    KMS_CLIENT_INTERNAL = 17        /* a failure inside the service or the library */
};

/** Symbolic name without its prefix ("NOT_FOUND"); "UNKNOWN" for another value. Never NULL. */
KMS_CLIENT_API const char *kms_client_status_name(enum kms_client_status status);

/**
 * Details of a failure. Every function that takes a `struct kms_client_error *` accepts NULL, and writes to
 * it only when it fails. All texts are NUL-terminated UTF-8 and never contain secrets.
 */
struct kms_client_error {
    enum kms_client_status status;
    int grpc_code;          /* gRPC status code as received; -1 when the failure arose in the library */
    int64_t retry_after_ms; /* the service's advice; -1 when it gave none */
    char reason[64];     /* symbolic: the service's ErrorInfo.reason ("BLOB_REFUSED"), else the status name */
    char message[512];   /* for a human: what is wrong and what to do */
    char request_id[64]; /* find it in the service's log and audit log; empty when there is none */
};

/** Set every member from KMS_CLIENT_CONFIG_INIT first, then those that differ. Strings are copied. */
struct kms_client_config {
    size_t size;                  /* set by KMS_CLIENT_CONFIG_INIT; lets later versions add members */
    const char *endpoint;         /* required: "host:port", "[::1]:port" or "unix:/absolute/path" */
    const char *ca_path;          /* required: PEM certificates that the server's must lead to */
    const char *certificate_path; /* required: PEM chain of this client */
    const char *private_key_path; /* required: PEM; no permissions for group and others, at most 4096 bytes */
    const char *server_name;      /* name expected in the server's certificate; NULL: the endpoint's host, and
                                     "localhost" for a Unix socket */
    unsigned deadline_ms;         /* for a whole call, all its retries included; 0: 10,000 */
    unsigned retries;             /* further attempts of idempotent calls after UNAVAILABLE, with back-off of
                                     100 ms doubling to 2 s, within the deadline */
    int wait_for_ready;       /* non-zero: wait for a connection up to the deadline instead of failing with
                                     UNAVAILABLE when there is none */
    size_t max_message_bytes; /* largest reply accepted; 0: 4 MiB */
};
#define KMS_CLIENT_CONFIG_INIT                                                                               \
    {                                                                                                        \
        sizeof(struct kms_client_config), NULL, NULL, NULL, NULL, NULL, 0, 5, 0, 0                           \
    }

struct kms_client;

/**
 * Make a client. Reads and checks the files; the connection itself is made by the first call and again
 * whenever it was lost. mTLS always, on Unix sockets too. `*ret_client` is written only on success; release it
 * with kms_client_free(). INVALID names the file or member that is wrong; NO_MEMORY.
 */
KMS_CLIENT_API KMS_CLIENT_MUST_USE enum kms_client_status
kms_client_connect(const struct kms_client_config *config, struct kms_client **ret_client,
                   struct kms_client_error *err);

/** Close the connection. No call and no stream of this client may be running. NULL-safe. */
KMS_CLIENT_API void kms_client_free(struct kms_client *client);

/**
 * Ask grpc.health.v1 whether the service serves: `*ret_serving` becomes 1 or 0. `service` is a full service
 * name such as "kms.v1.DataKeyService", or NULL for the server as a whole.
 */
KMS_CLIENT_API KMS_CLIENT_MUST_USE enum kms_client_status kms_client_health(struct kms_client *client,
                                                                            const char *service,
                                                                            int *ret_serving,
                                                                            struct kms_client_error *err);

/** Version of the library, "0.1.0". */
KMS_CLIENT_API const char *kms_client_version(void);

#ifdef __cplusplus
}
#endif

#endif
