/*
 * Purpose:   seal and open the chunks of encrypted content one after the other (see format.h).
 * Owns:      the cipher's state with the content key in it.
 * Threads:   one thread at a time.
 * Never:     gives out plaintext whose tag was not checked; uses a nonce twice.
 */
#ifndef KMS_CLIENT_CHUNKS_H
#define KMS_CLIENT_CHUNKS_H

#include "client/format.h"

struct kms_chunks;

/** Ready for chunk 0. The key and the hash are copied. NO_MEMORY, INTERNAL. */
enum kms_client_status kms_chunks_new(const struct kms_format_header *header,
                                      const uint8_t header_hash[KMS_FORMAT_HASH_SIZE],
                                      const struct kms_secret *key, bool sealing,
                                      struct kms_chunks **ret_chunks, struct kms_client_error *err);
/** Wipe and free; NULL-safe. */
void kms_chunks_free(struct kms_chunks *chunks);

/**
 * Seal the next chunk: `len` bytes (the chunk size unless it is the last) into `out`, which has room for
 * len + 16; in and out may be the same. INVALID after the last one or after 2^32 chunks.
 */
enum kms_client_status kms_chunks_seal(struct kms_chunks *chunks, const uint8_t *in, size_t len, bool last,
                                       uint8_t *out, struct kms_client_error *err);
/**
 * Open the next chunk: `len` bytes with the tag at their end into `out`, which has room for len - 16.
 * REFUSED when it is not authentic; then `out` is wiped.
 */
enum kms_client_status kms_chunks_open(struct kms_chunks *chunks, const uint8_t *in, size_t len, bool last,
                                       uint8_t *out, struct kms_client_error *err);
/** For tests of the limit: pretend that this many chunks are done. */
void kms_chunks_skip_to(struct kms_chunks *chunks, uint64_t done);

#endif
