/*
 * libkms: data keys.
 *
 * A data key has two forms: plaintext, to encrypt with at once and forget, and wrapped, to store beside the
 * ciphertext. The wrapped form is opaque: 78 bytes for a 32-byte key. Most applications want envelope.h, which
 * does the encryption too.
 */
#ifndef KMS_DATAKEY_H
#define KMS_DATAKEY_H

#include <kms/client.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    KMS_DATAKEY_BATCH_MAX = 1000,   /* requests in one batch */
    KMS_DATAKEY_WRAPPED_MAX = 4142, /* bytes of the largest wrapped data key */
    KMS_DATAKEY_RAW_MAX = 4096,     /* bytes of the largest key that can be wrapped; the smallest has 16 */
    KMS_DATAKEY_STREAM_MAX = 1024   /* requests of one stream that may be unanswered */
};

enum kms_datakey_spec {
    KMS_DATAKEY_AES_256 = 1, /* 32 bytes */
    KMS_DATAKEY_AES_128 = 2, /* 16 bytes */
    KMS_DATAKEY_SM4 = 3,     /* 16 bytes */
    KMS_DATAKEY_RAW = 4      /* the caller's own material; only kms_datakey_wrap() makes such a key */
};

/** One entry of an encryption context: both are UTF-8, `key` is not empty. Not secret. */
struct kms_datakey_context {
    const char *key;
    const char *value;
};

/** What to do, for all four verbs. Zero-initialise, then set what the verb needs. Everything is borrowed. */
struct kms_datakey_request {
    const char *tenant;   /* required */
    const char *customer; /* generate, wrap: required; unwrap, rewrap: NULL, or it must match */
    const char *purpose;  /* likewise */
    const struct kms_datakey_context *context; /* bound to the wrapped key: give the same to open it */
    size_t context_count;                      /* at most 64 entries, 8 KiB in all, keys unique */
    enum kms_datakey_spec spec;                /* generate; 0: AES_256 */
    int without_plaintext;                     /* generate: non-zero leaves the plaintext out of the reply */
    const void *input;                         /* wrap: the plaintext key; unwrap, rewrap: the wrapped key */
    size_t input_len;
    uint64_t expected_bytes; /* for a cache with a byte limit: how much the key will encrypt; UINT64_MAX: not
                                known beforehand; ignored otherwise */
};

/** A data key. Release with kms_datakey_clear(). */
struct kms_datakey {
    uint8_t *plaintext; /* SECRET, in locked memory; NULL when the verb gives none */
    size_t plaintext_len;
    uint8_t *wrapped; /* NULL after unwrap */
    size_t wrapped_len;
    enum kms_datakey_spec spec;    /* 0 after wrap and rewrap */
    uint32_t kek_version;          /* version of the KEK that has wrapped it */
    uint32_t previous_kek_version; /* rewrap: version under which it was before; else 0 */
};

/** Wipe and release the parts, and make it empty. NULL-safe, and fine on an empty (zeroed) key. */
KMS_CLIENT_API void kms_datakey_clear(struct kms_datakey *key);

/* One key. `*ret_key` is written only on success. All are retried on UNAVAILABLE: repeating them does no harm. */

/** A new random key: plaintext (unless left out) and wrapped. */
KMS_CLIENT_API KMS_CLIENT_MUST_USE enum kms_client_status
kms_datakey_generate(struct kms_client *client, const struct kms_datakey_request *request,
                     struct kms_datakey *ret_key, struct kms_client_error *err);
/** Wrap the caller's own key material, 16..4096 bytes. */
KMS_CLIENT_API KMS_CLIENT_MUST_USE enum kms_client_status
kms_datakey_wrap(struct kms_client *client, const struct kms_datakey_request *request,
                 struct kms_datakey *ret_key, struct kms_client_error *err);
/** Open a wrapped key. REFUSED when it is damaged or not for this tenant, customer, purpose or context. */
KMS_CLIENT_API KMS_CLIENT_MUST_USE enum kms_client_status
kms_datakey_unwrap(struct kms_client *client, const struct kms_datakey_request *request,
                   struct kms_datakey *ret_key, struct kms_client_error *err);
/** Turn a wrapped key into one under the current KEK version; its plaintext does not leave the service. */
KMS_CLIENT_API KMS_CLIENT_MUST_USE enum kms_client_status
kms_datakey_rewrap(struct kms_client *client, const struct kms_datakey_request *request,
                   struct kms_datakey *ret_key, struct kms_client_error *err);

enum kms_datakey_verb {
    KMS_DATAKEY_GENERATE = 0,
    KMS_DATAKEY_WRAP = 1,
    KMS_DATAKEY_UNWRAP = 2,
    KMS_DATAKEY_REWRAP = 3
};

/** Result of one request of a batch or stream: a key when error.status is OK, else an empty key. */
struct kms_datakey_result {
    struct kms_datakey key;
    struct kms_client_error error;
};

/**
 * 1..1,000 requests in one call; results stand in the order of the requests. Returns OK when every item has
 * a result of its own, which may be an error; otherwise nothing was written. Clear each result's key.
 */
KMS_CLIENT_API KMS_CLIENT_MUST_USE enum kms_client_status
kms_datakey_batch(struct kms_client *client, enum kms_datakey_verb verb,
                  const struct kms_datakey_request *requests, size_t count,
                  struct kms_datakey_result *ret_results, struct kms_client_error *err);

/*
 * Streams: many requests over one call, answered in order. Send some requests ahead (a window) and then
 * receive and send in turn: that is the fastest way to get many keys. One thread at a time uses a stream.
 */
struct kms_datakey_stream;

/** Open a stream for one verb. `*ret_stream` is written only on success; release with .._close(). */
KMS_CLIENT_API KMS_CLIENT_MUST_USE enum kms_client_status
kms_datakey_stream_open(struct kms_client *client, enum kms_datakey_verb verb,
                        struct kms_datakey_stream **ret_stream, struct kms_client_error *err);
/**
 * Queue one request; does not block. EXHAUSTED when 1,024 requests are unanswered: receive first. INVALID: the
 * request is wrong. Both leave the stream as it was. When the stream is over, the status is the one that
 * kms_datakey_stream_receive() gives after the last result.
 */
KMS_CLIENT_API KMS_CLIENT_MUST_USE enum kms_client_status
kms_datakey_stream_send(struct kms_datakey_stream *stream, const struct kms_datakey_request *request,
                        struct kms_client_error *err);
/** Say that no more requests follow; what was sent is still answered. */
KMS_CLIENT_API KMS_CLIENT_MUST_USE enum kms_client_status
kms_datakey_stream_finish(struct kms_datakey_stream *stream, struct kms_client_error *err);
/**
 * The next result, in the order of the requests; waits for at most the client's deadline. END after the last
 * one when the stream was finished. Errors of one item are in `ret_result`; another status than OK and END
 * means that the stream as a whole is over.
 */
KMS_CLIENT_API KMS_CLIENT_MUST_USE enum kms_client_status
kms_datakey_stream_receive(struct kms_datakey_stream *stream, struct kms_datakey_result *ret_result,
                           struct kms_client_error *err);
/** Cancel what is still running and release. NULL-safe. Before kms_client_free(). */
KMS_CLIENT_API void kms_datakey_stream_close(struct kms_datakey_stream *stream);

/**
 * Where data keys come from: the service itself, a cache before it, or something of the caller's own.
 * The functions follow kms_datakey_generate() and kms_datakey_unwrap(). Small; passed by value.
 */
struct kms_datakey_source {
    void *context;
    enum kms_client_status (*generate)(void *context, const struct kms_datakey_request *request,
                                       struct kms_datakey *ret_key, struct kms_client_error *err);
    enum kms_client_status (*unwrap)(void *context, const struct kms_datakey_request *request,
                                     struct kms_datakey *ret_key, struct kms_client_error *err);
};

/** The service as a source; valid as long as the client. */
KMS_CLIENT_API struct kms_datakey_source kms_datakey_source_of(struct kms_client *client);

/**
 * For sources of the caller's own: fill `*ret_key` with copies, the plaintext in locked memory. Either part
 * may be NULL with length 0. NO_MEMORY leaves `*ret_key` unchanged.
 */
KMS_CLIENT_API KMS_CLIENT_MUST_USE enum kms_client_status
kms_datakey_make(const void *plaintext, size_t plaintext_len, const void *wrapped, size_t wrapped_len,
                 enum kms_datakey_spec spec, struct kms_datakey *ret_key, struct kms_client_error *err);

#ifdef __cplusplus
}
#endif

#endif
