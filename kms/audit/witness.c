#include "audit/witness.h"

#include "audit/reader.h"
#include "core/cleanup.h"
#include "evidence/signature.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

enum { KEYS_MAX = 16, BROUGHT_MAX = 1000000 };

struct key {
    struct kms_buf pem;
    char id[KMS_EVIDENCE_KEY_ID_SIZE];
};

/* A record that is known from elsewhere. */
struct known {
    uint64_t seq;
    uint8_t hash[KMS_AUDIT_HASH_SIZE];
    bool any; /* whatever its hash */
    bool seen;
};

struct kms_audit_witness {
    struct key keys[KEYS_MAX];
    size_t key_count;
    struct kms_buf known; /* struct known, by seq once begun */
    size_t next_known;
    bool disagreed;
    /* hashes of the records [ring_first, ring_end); a page is touched only when it is used */
    uint8_t (*ring)[KMS_AUDIT_HASH_SIZE];
    uint64_t ring_first, ring_end;
    struct kms_audit_testimony testimony;
};

static struct known *known_of(const struct kms_audit_witness *witness, size_t *ret_count)
{
    *ret_count = witness->known.len / sizeof(struct known);
    return (struct known *)(void *)witness->known.data;
}

enum kms_status kms_audit_witness_new(struct kms_audit_witness **ret_witness)
{
    struct kms_audit_witness *witness = calloc(1, sizeof *witness);
    if (witness == NULL)
        return KMS_NO_MEMORY;
    witness->ring = calloc(KMS_AUDIT_CHECKPOINT_GAP, sizeof *witness->ring);
    if (witness->ring == NULL) {
        free(witness);
        return KMS_NO_MEMORY;
    }
    *ret_witness = witness;
    return KMS_OK;
}

void kms_audit_witness_free(struct kms_audit_witness *witness)
{
    if (witness == NULL)
        return;
    for (size_t i = 0; i < witness->key_count; i++)
        kms_buf_clear(&witness->keys[i].pem);
    kms_buf_clear(&witness->known);
    free(witness->ring);
    free(witness);
}

enum kms_status kms_audit_witness_add_key(struct kms_audit_witness *witness, struct kms_slice pem,
                                          struct kms_error *err)
{
    if (witness->key_count == KEYS_MAX)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "at most %d keys are taken", KEYS_MAX);
    struct key *key = &witness->keys[witness->key_count];
    KMS_TRY(kms_signature_key_id(pem, key->id, err));
    KMS_TRY(kms_buf_append(&key->pem, pem.data, pem.len));
    witness->key_count++;
    return KMS_OK;
}

/* Is it signed by one of the keys? */
static enum kms_status check_signature(const struct kms_audit_witness *witness,
                                       const struct kms_audit_signed_checkpoint *line, struct kms_error *err)
{
    for (size_t i = 0; i < witness->key_count; i++) {
        const struct key *key = &witness->keys[i];
        if (strcmp(key->id, line->checkpoint.key) == 0)
            return kms_signature_verify(kms_buf_slice(&key->pem), line->statement,
                                        kms_slice_of(line->signature, line->signature_len), err);
    }
    return kms_fail_public(err, KMS_TAMPERED, "it names the key %.16s..., which was not given",
                           line->checkpoint.key);
}

static enum kms_status add_known(struct kms_audit_witness *witness, const struct known *known)
{
    return kms_buf_append(&witness->known, known, sizeof *known);
}

enum kms_status kms_audit_witness_bring_record(struct kms_audit_witness *witness, uint64_t seq,
                                               const uint8_t *hash)
{
    struct known known = {.seq = seq, .any = hash == NULL};
    if (hash != NULL)
        memcpy(known.hash, hash, sizeof known.hash);
    return add_known(witness, &known);
}

/* One line of what the auditor brings. */
static enum kms_status bring_line(struct kms_audit_witness *witness, struct kms_slice text, const char *name,
                                  uint64_t number, uint64_t *count, struct kms_error *err)
{
    struct kms_audit_signed_checkpoint line;
    if (!kms_audit_checkpoint_parse(text, &line))
        return KMS_OK;
    struct kms_error cause = {0};
    const enum kms_status status = check_signature(witness, &line, &cause);
    if (status != KMS_OK)
        return kms_fail_public(err, status == KMS_TAMPERED ? KMS_INVALID_ARGUMENT : status,
                               "%s line %" PRIu64 ": the checkpoint is not good: %s", name, number,
                               kms_error_public(&cause, status));
    if (++*count > BROUGHT_MAX)
        return kms_fail_public(err, KMS_RESOURCE_EXHAUSTED, "%s has over %d checkpoints: bring the newest",
                               name, BROUGHT_MAX);
    return kms_audit_witness_bring_record(witness, line.checkpoint.head.seq, line.checkpoint.head.hash);
}

static void free_reader(struct kms_audit_reader **reader)
{
    kms_audit_reader_free(*reader);
}

/* A file of any size and content, line by line. */
static enum kms_status bring_file(struct kms_audit_witness *witness, const char *path, uint64_t *count,
                                  struct kms_error *err)
{
    KMS_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat now;
    if (fd < 0 || fstat(fd, &now) != 0)
        return kms_fail_public(err, KMS_IO, "cannot read %s: %s", path, strerror(errno));
    if (!S_ISREG(now.st_mode))
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "%s is no regular file", path);
    KMS_CLEANUP(free_reader) struct kms_audit_reader *reader = NULL;
    KMS_TRY(kms_audit_reader_new(&reader));
    kms_audit_reader_start(reader, fd);
    for (;;) {
        struct kms_audit_item item;
        if (kms_audit_reader_next(reader, &item) != KMS_OK)
            return kms_fail_public(err, KMS_IO, "cannot read %s: %s", path, strerror(errno));
        if (item.kind == KMS_AUDIT_ITEM_END)
            return KMS_OK;
        if (item.kind == KMS_AUDIT_ITEM_LINE)
            KMS_TRY(bring_line(witness, item.text, path, item.line, count, err));
    }
}

enum kms_status kms_audit_witness_bring(struct kms_audit_witness *witness, const char *file_or_line,
                                        struct kms_error *err)
{
    if (witness->key_count == 0)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "a checkpoint proves nothing without the attestation key that signed it");
    uint64_t count = 0;
    KMS_TRY(strchr(file_or_line, '{') != NULL
                ? bring_line(witness, kms_slice_str(file_or_line), "the given text", 1, &count, err)
                : bring_file(witness, file_or_line, &count, err));
    if (count == 0)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "there is no checkpoint in %.200s", file_or_line);
    return KMS_OK;
}

static int compare_known(const void *a, const void *b)
{
    const uint64_t x = ((const struct known *)a)->seq;
    const uint64_t y = ((const struct known *)b)->seq;
    return (x > y) - (x < y);
}

void kms_audit_witness_begin(struct kms_audit_witness *witness)
{
    size_t count;
    struct known *known = known_of(witness, &count);
    if (count > 0)
        qsort(known, count, sizeof *known, compare_known);
}

static void note_covered(struct kms_audit_witness *witness, uint64_t seq)
{
    if (seq > witness->testimony.covered_seq)
        witness->testimony.covered_seq = seq;
}

bool kms_audit_witness_record(struct kms_audit_witness *witness, uint64_t seq,
                              const uint8_t hash[KMS_AUDIT_HASH_SIZE])
{
    if (seq != witness->ring_end)
        witness->ring_first = seq;
    witness->ring_end = seq + 1;
    memcpy(witness->ring[seq % KMS_AUDIT_CHECKPOINT_GAP], hash, KMS_AUDIT_HASH_SIZE);

    size_t count;
    struct known *known = known_of(witness, &count);
    bool agrees = true;
    for (; witness->next_known < count && known[witness->next_known].seq <= seq; witness->next_known++) {
        struct known *next = &known[witness->next_known];
        if (next->seq != seq)
            continue;
        next->seen = next->any || memcmp(next->hash, hash, KMS_AUDIT_HASH_SIZE) == 0;
        if (next->seen) {
            witness->testimony.brought++;
            note_covered(witness, seq);
        } else {
            next->seen = true;
            agrees = agrees && witness->disagreed;
            witness->disagreed = true;
        }
    }
    return agrees;
}

enum kms_audit_verdict kms_audit_witness_checkpoint(struct kms_audit_witness *witness, uint64_t seq,
                                                    struct kms_slice body, struct kms_error *err)
{
    struct kms_audit_signed_checkpoint line;
    if (!kms_audit_checkpoint_parse(body, &line)) {
        (void)kms_fail(err, KMS_TAMPERED, "the record has not the form of a checkpoint");
        return KMS_AUDIT_CHECKPOINT_BAD;
    }
    const struct kms_audit_head *head = &line.checkpoint.head;
    if (head->seq >= seq || seq - head->seq > KMS_AUDIT_CHECKPOINT_GAP) {
        (void)kms_fail(err, KMS_TAMPERED,
                       "the checkpoint covers record %" PRIu64 ", which is not shortly before it", head->seq);
        return KMS_AUDIT_CHECKPOINT_BAD;
    }
    struct kms_error cause = {0};
    if (witness->key_count > 0 && check_signature(witness, &line, &cause) != KMS_OK) {
        (void)kms_fail(err, KMS_TAMPERED, "the checkpoint is not good: %s",
                       kms_error_public(&cause, KMS_TAMPERED));
        return KMS_AUDIT_CHECKPOINT_BAD;
    }
    const bool here = head->seq >= witness->ring_first && head->seq < witness->ring_end &&
                      witness->ring_end - head->seq <= KMS_AUDIT_CHECKPOINT_GAP;
    if (here &&
        memcmp(witness->ring[head->seq % KMS_AUDIT_CHECKPOINT_GAP], head->hash, sizeof head->hash) != 0) {
        (void)kms_fail(err, KMS_TAMPERED,
                       "record %" PRIu64 " is another one than was signed: records after %" PRIu64
                       " and up to that one were changed and the chain computed anew",
                       head->seq, witness->testimony.covered_seq);
        return KMS_AUDIT_CHECKPOINT_DISAGREES;
    }
    witness->testimony.checkpoints++;
    memcpy(witness->testimony.covered_time, line.checkpoint.time, sizeof line.checkpoint.time);
    if (here)
        note_covered(witness, head->seq);
    return KMS_AUDIT_CHECKPOINT_GOOD;
}

void kms_audit_witness_end(const struct kms_audit_witness *witness, uint64_t first_seq,
                           struct kms_audit_testimony *ret_testimony)
{
    size_t count;
    const struct known *known = known_of(witness, &count);
    *ret_testimony = witness->testimony;
    for (size_t i = 0; i < count; i++) {
        if (known[i].seen || known[i].seq < first_seq)
            continue;
        ret_testimony->missing++;
        ret_testimony->missing_newest = known[i].seq;
    }
}
