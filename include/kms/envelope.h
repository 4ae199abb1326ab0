/*
 * libkms: envelope encryption of buffers, streams and files with AES-256-GCM.
 *
 * Each output begins with a header that holds the wrapped data key, so that nothing but the output and the
 * right to unwrap is needed to read it again. The content follows in chunks of 64 KiB that are bound to their
 * place and to the header: changed, cut, extended, reordered or mixed content is REFUSED. The overhead is 131
 * bytes and 16 bytes for each chunk; memory use does not depend on the size; the largest content is 256 TiB.
 */
#ifndef KMS_ENVELOPE_H
#define KMS_ENVELOPE_H

#include <kms/datakey.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * For whom. `tenant` is required; `customer` and `purpose` are required to encrypt; to decrypt they are NULL
 * or must match. The context must be the same to decrypt; it is not stored in the output.
 */
struct kms_envelope_scope {
    const char *tenant;
    const char *customer;
    const char *purpose;
    const struct kms_datakey_context *context;
    size_t context_count;
};

/**
 * Encrypt a buffer. `*ret_data` is allocated; release it with kms_envelope_free(). Written only on success.
 */
KMS_CLIENT_API KMS_CLIENT_MUST_USE enum kms_client_status
kms_envelope_encrypt(struct kms_datakey_source source, const struct kms_envelope_scope *scope,
                     const void *data, size_t len, uint8_t **ret_data, size_t *ret_len,
                     struct kms_client_error *err);
/**
 * Decrypt a buffer made by any encrypting function of this header. REFUSED when it is not authentic, then
 * nothing of it is returned. `*ret_data` is not NULL even when the content is empty.
 */
KMS_CLIENT_API KMS_CLIENT_MUST_USE enum kms_client_status
kms_envelope_decrypt(struct kms_datakey_source source, const struct kms_envelope_scope *scope,
                     const void *data, size_t len, uint8_t **ret_data, size_t *ret_len,
                     struct kms_client_error *err);
/** Wipe and release a buffer of the two functions above. NULL-safe. */
KMS_CLIENT_API void kms_envelope_free(uint8_t *data, size_t len);

/** Where a stream comes from and goes to. */
struct kms_envelope_io {
    void *context;
    /** Read up to `size` bytes; returns how many, 0 only at the end, or -1 with errno set. */
    int64_t (*read)(void *context, uint8_t *data, size_t size);
    /** Write all bytes; returns 0, or -1 with errno set. */
    int (*write)(void *context, const uint8_t *data, size_t len);
    /** May be NULL. Told after each chunk how many input bytes are done; non-zero stops (CANCELLED). */
    int (*progress)(void *context, uint64_t input_bytes_done);
    /** Size of the input when it is known, else UINT64_MAX; only a hint for a cache of data keys. */
    uint64_t expected_bytes;
};

/** Encrypt a stream of any length in constant memory. */
KMS_CLIENT_API KMS_CLIENT_MUST_USE enum kms_client_status
kms_envelope_encrypt_stream(struct kms_datakey_source source, const struct kms_envelope_scope *scope,
                            const struct kms_envelope_io *io, struct kms_client_error *err);
/**
 * Decrypt a stream. Only authenticated chunks are written, but that the stream was cut shows at its end
 * only: discard what was written when this fails.
 */
KMS_CLIENT_API KMS_CLIENT_MUST_USE enum kms_client_status
kms_envelope_decrypt_stream(struct kms_datakey_source source, const struct kms_envelope_scope *scope,
                            const struct kms_envelope_io *io, struct kms_client_error *err);

/** Options of the file functions; zero-initialised is fine. */
struct kms_envelope_file_options {
    int (*progress)(void *context, uint64_t input_bytes_done,
                    uint64_t input_bytes_total); /* total 0: unknown */
    void *progress_context;
    int keep_existing; /* non-zero: refuse (IO) to replace an existing output file */
};

/**
 * Encrypt or decrypt a file. NULL or "-" stands for standard input or output. A regular output is written
 * under a temporary name beside its place (mode 0600 when decrypting; else as the umask says), synced to disk and
 * renamed at the end, so that it is either complete or not there; a pipe or a device is written in place.
 * `options` may be NULL.
 */
KMS_CLIENT_API KMS_CLIENT_MUST_USE enum kms_client_status
kms_envelope_encrypt_file(struct kms_datakey_source source, const struct kms_envelope_scope *scope,
                          const char *in_path, const char *out_path,
                          const struct kms_envelope_file_options *options, struct kms_client_error *err);
KMS_CLIENT_API KMS_CLIENT_MUST_USE enum kms_client_status
kms_envelope_decrypt_file(struct kms_datakey_source source, const struct kms_envelope_scope *scope,
                          const char *in_path, const char *out_path,
                          const struct kms_envelope_file_options *options, struct kms_client_error *err);

#ifdef __cplusplus
}
#endif

#endif
