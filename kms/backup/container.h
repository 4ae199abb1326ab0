/*
 * Purpose:   the file format of backups: a header with a wrapped file key, then sealed frames of change records.
 * Owns:      a writer and a reader own their file key and buffers; descriptors are borrowed.
 * Threads:   a writer or reader belongs to one thread at a time.
 * Never:     gives out a byte whose tag was not checked; has a key of the tree in it that is not wrapped.
 *
 * File, version 1; sizes in bytes, integers big-endian, no padding:
 *
 *     0          6         7      8        24        40          48     56         72         80       96        156
 *     +----------+---------+------+--------+---------+-----------+------+----------+----------+--------+---------+
 *     | magic    | version | kind | key id | file id | created   | seq  | previous | frames   | tag of | wrapped |
 *     | "KMSBAK" | 0x01    | 1, 2 | 16     | UUID 16 | time 8    | 8    | UUID 16  | of it 8  | it 16  | key 60  |
 *     +----------+---------+------+--------+---------+-----------+------+----------+----------+--------+---------+
 *     then frames 0, 1, 2, ...:
 *     +----------+------+----------------------+---------+
 *     | length n | last | ciphertext, n bytes  | GCM tag |
 *     | 4        | 0, 1 |                      | 16      |
 *     +----------+------+----------------------+---------+
 *
 *     kind      1 base: the whole database as of change `seq`; 2 log: the changes after `seq`
 *     key id    CKA_ID of the backup key in the HSM: which deployment this belongs to
 *     previous  of a log: the file that it goes on from, with the number of its frames and the last one's tag, so that a
 *               file that was cut, replaced or left out shows in the next one. Zero: there is none. A base has none.
 *     wrapped   IV 12, ciphertext 32, tag 16: the file key, AES-256-GCM under the backup key in the HSM; AAD = bytes 0..95
 *     frame i   AES-256-GCM under the file key; nonce = 0 (4) || i (8); AAD = SHA-256 of the 156 header bytes || last
 *     last      the file ends behind this frame. A log without one was the open one when its service ended.
 *
 * A frame's plaintext is a sequence of records: seq (8) | time (8) | length (4) | payload (store/changelog.h). In a base seq
 * and time are 0.
 */
#ifndef KMS_BACKUP_CONTAINER_H
#define KMS_BACKUP_CONTAINER_H

#include "core/bytes.h"
#include "core/ids.h"

enum {
    KMS_BACKUP_HEADER_SIZE = 156,
    KMS_BACKUP_BOUND_SIZE = 96, /* the part of the header that the wrapped key is bound to */
    KMS_BACKUP_KEY_ID_SIZE = 16,
    KMS_BACKUP_FILE_KEY_SIZE = 32,
    KMS_BACKUP_WRAPPED_SIZE = 60,
    KMS_BACKUP_TAG_SIZE = 16,
    KMS_BACKUP_FRAME_HEAD = 5,
    KMS_BACKUP_FRAME_GOOD = 256 * 1024,     /* a writer closes a frame from this size on */
    KMS_BACKUP_FRAME_MAX = 4 * 1024 * 1024, /* bytes of ciphertext; readers refuse more */
    KMS_BACKUP_RECORD_HEAD = 20,
    KMS_BACKUP_RECORD_MAX = 2 * 1024 * 1024, /* bytes of one payload */
};

/* In the header of every file: never renumber. */
enum kms_backup_kind { KMS_BACKUP_BASE = 1, KMS_BACKUP_LOG = 2 };

/** Where a log ended, as the next one states it. Zero: nowhere. */
struct kms_backup_end {
    struct kms_uuid file;
    uint64_t frames;
    uint8_t tag[KMS_BACKUP_TAG_SIZE]; /* of the last frame; zero when there is none */
};

struct kms_backup_header {
    enum kms_backup_kind kind;
    uint8_t key_id[KMS_BACKUP_KEY_ID_SIZE];
    struct kms_uuid file;
    int64_t created_ns; /* wall clock */
    uint64_t seq;
    struct kms_backup_end previous;
};

/** Who wraps file keys: the HSM's backup key. The functions may be called from any thread. */
struct kms_backup_keeper {
    void *context;
    uint8_t key_id[KMS_BACKUP_KEY_ID_SIZE];
    enum kms_status (*wrap)(void *context, struct kms_slice bound,
                            const uint8_t key[KMS_BACKUP_FILE_KEY_SIZE],
                            uint8_t ret_wrapped[KMS_BACKUP_WRAPPED_SIZE], struct kms_error *err);
    /** TAMPERED when it does not open. `ret_key` is locked memory. */
    enum kms_status (*unwrap)(void *context, struct kms_slice bound,
                              const uint8_t wrapped[KMS_BACKUP_WRAPPED_SIZE],
                              uint8_t ret_key[KMS_BACKUP_FILE_KEY_SIZE], struct kms_error *err);
};

struct kms_backup_writer;

/**
 * A new file with a new key; `header->file`, `key_id` and `created_ns` are filled in, the time not earlier than what stands
 * there already. Its first bytes are appended to `out`.
 */
enum kms_status kms_backup_writer_new(const struct kms_backup_keeper *keeper,
                                      struct kms_backup_header *header, struct kms_buf *out,
                                      struct kms_backup_writer **ret_writer,
                                      struct kms_error *err) KMS_MUST_USE;
/** Wipes the key; NULL-safe. */
void kms_backup_writer_free(struct kms_backup_writer *writer);
/** Add a record to the frame that is being filled. TOO_LARGE: over KMS_BACKUP_RECORD_MAX. */
enum kms_status kms_backup_writer_add(struct kms_backup_writer *writer, uint64_t seq, int64_t time_ns,
                                      struct kms_slice payload, struct kms_error *err) KMS_MUST_USE;
/** For tests: bytes that need not be records into the frame that is being filled. */
enum kms_status kms_backup_writer_raw(struct kms_backup_writer *writer, struct kms_slice bytes) KMS_MUST_USE;
/** True when the frame is full enough to be sealed. */
bool kms_backup_writer_full(const struct kms_backup_writer *writer);
/**
 * Seal what was added as the next frame (an empty one too) and append it to `out`. After the last one nothing may be added.
 * On failure the writer is of no use any more: a nonce is never used twice.
 */
enum kms_status kms_backup_writer_seal(struct kms_backup_writer *writer, bool last, struct kms_buf *out,
                                       struct kms_error *err) KMS_MUST_USE;
/** Where the file ends now. */
struct kms_backup_end kms_backup_writer_end(const struct kms_backup_writer *writer);

struct kms_backup_reader;

/** What a reader knows after each step. */
struct kms_backup_place {
    struct kms_backup_header header;
    struct kms_backup_end end; /* behind the last good frame */
    uint64_t offset;           /* of the same place in the file, in bytes */
    bool closed;               /* the last frame was read */
};

/**
 * Read and check the header of a file. `descriptor` is read from its start with pread(). FAILED_PRECONDITION with a public text:
 * of another deployment (key id); STORE_NEWER: of a later format; TAMPERED: no backup file, or changed; IO, NO_MEMORY.
 */
enum kms_status kms_backup_reader_new(const struct kms_backup_keeper *keeper, int descriptor,
                                      struct kms_backup_reader **ret_reader,
                                      struct kms_error *err) KMS_MUST_USE;
/** NULL-safe. */
void kms_backup_reader_free(struct kms_backup_reader *reader);
const struct kms_backup_place *kms_backup_reader_place(const struct kms_backup_reader *reader);
/**
 * Open the next frame. NOT_FOUND: the file ends here, in order (check `closed`); OUT_OF_RANGE: it ends within a frame, as after
 * a crash; TAMPERED: a frame is not authentic, or something stands behind the last one.
 */
enum kms_status kms_backup_reader_frame(struct kms_backup_reader *reader, struct kms_error *err) KMS_MUST_USE;
/** One record of a frame; the payload is valid until the next frame is opened. */
struct kms_backup_record {
    uint64_t seq;
    int64_t time_ns;
    struct kms_slice payload;
};
/** The next record of the open frame. NOT_FOUND at its end; TAMPERED when it is no record. */
enum kms_status kms_backup_reader_record(struct kms_backup_reader *reader,
                                         struct kms_backup_record *ret_record,
                                         struct kms_error *err) KMS_MUST_USE;

#endif
