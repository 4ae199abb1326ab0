/* Entries, buckets and the head; what they are over is in seal.c, what they are for in store_seal.h. */
#include "store/sqlite_seal.h"

#include "core/secret.h"
#include "store/query.h"
#include "store/snapshot.h"

#include <openssl/evp.h>
#include <stdlib.h>

/* The bytes under a bucket's hash, or the root of all. */
typedef uint8_t digest_bytes[KMS_SEAL_DIGEST_SIZE];

/* A bucket as it is since a generation, and as it was before: a reader may have begun just before the last commit. */
struct bucket {
    digest_bytes now, before;
    uint64_t since, before_since;
};

struct kms_sqlite_seals {
    const struct kms_store_sealer *sealer;
    EVP_MD *sha256;
    struct kms_mutex
        lock; /* KMS_LOCK_SEALS: held by the writer around COMMIT, by readers while they compare */
    struct bucket buckets[KMS_SEAL_BUCKETS]; /* written under both locks */
    _Atomic uint64_t generation;             /* written under both locks */

    /* of the write transaction; the store's lock */
    bool dirty[KMS_SEAL_BUCKETS];
    digest_bytes next[KMS_SEAL_BUCKETS]; /* of those that are dirty, at the commit */
    bool any_dirty;
};

/* Say that a record is not what it should be, to the caller and to the sealer. */
static enum kms_status tampered(struct kms_store_txn *txn, const struct kms_seal *seal, const char *what,
                                struct kms_error *err)
{
    char name[KMS_SEAL_NAME_MAX];
    struct kms_error text = {0};
    kms_seal_name(seal, name);
    const struct kms_store_sealer *sealer = txn->store->seals->sealer;
    const enum kms_status status =
        kms_fail(&text, KMS_TAMPERED, "%s: %s; somebody else has written to the database", name, what);
    if (sealer->alarm != NULL)
        sealer->alarm(sealer->context, kms_error_cause(&text, status));
    if (txn->write)
        txn->failed = status;
    return kms_fail(err, status, "%s", kms_error_cause(&text, status));
}

/* SHA-256 in pieces; the first failure is kept for the end. */
struct hashing {
    EVP_MD_CTX *context;
    bool good;
};

static struct hashing hashing_begin(const struct kms_sqlite_seals *seals)
{
    struct hashing hashing = {.context = EVP_MD_CTX_new()};
    hashing.good = hashing.context != NULL && EVP_DigestInit_ex2(hashing.context, seals->sha256, NULL) == 1;
    return hashing;
}

static void hash(struct hashing *hashing, const void *bytes, size_t len)
{
    hashing->good = hashing->good && EVP_DigestUpdate(hashing->context, bytes, len) == 1;
}

static void hash_entry(struct hashing *hashing, struct kms_slice key, const digest_bytes digest)
{
    uint8_t len[2];
    kms_put_be16(len, (uint16_t)key.len);
    hash(hashing, len, sizeof len);
    hash(hashing, key.data, key.len);
    hash(hashing, digest, KMS_SEAL_DIGEST_SIZE);
}

static enum kms_status hashing_end(struct hashing *hashing, digest_bytes ret_digest, struct kms_error *err)
{
    const bool good = hashing->good && EVP_DigestFinal_ex(hashing->context, ret_digest, NULL) == 1;
    EVP_MD_CTX_free(hashing->context);
    return good ? KMS_OK : kms_fail(err, KMS_NO_MEMORY, "SHA-256 could not be computed");
}

/* The hash of a bucket as this transaction sees it. */
static enum kms_status hash_bucket(struct kms_store_txn *txn, unsigned bucket, digest_bytes ret_digest,
                                   struct kms_error *err)
{
    struct hashing hashing = hashing_begin(txn->store->seals);
    digest_bytes digest = {0};
    bool any = false;
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_SEAL_BUCKET);
    kms_query_i64(&query, bucket);
    enum kms_status status;
    while ((status = kms_query_row(&query, err)) == KMS_OK) {
        const struct kms_slice key = kms_query_take_slice(&query);
        kms_query_take_blob(&query, digest, sizeof digest);
        hash_entry(&hashing, key, digest);
        any = true;
    }
    const enum kms_status ended = hashing_end(&hashing, digest, err);
    if (status != KMS_NOT_FOUND)
        return status;
    KMS_TRY(ended);
    memset(ret_digest, 0, sizeof digest);
    if (any)
        memcpy(ret_digest, digest, sizeof digest);
    return KMS_OK;
}

/* The generation of what a reader sees; once a transaction. */
static enum kms_status read_generation(struct kms_store_txn *txn, uint64_t *ret_generation,
                                       struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_SEAL_HEAD_GET);
    const enum kms_status status = kms_query_row(&query, err);
    *ret_generation = 0; /* no head: older than any */
    if (status == KMS_NOT_FOUND)
        return KMS_OK;
    KMS_TRY(status);
    *ret_generation = kms_query_take_u64(&query);
    return kms_query_row_ok(&query, NULL, err);
}

/* Against what is in memory: of the newest generation, or for a reader of the one that it sees. */
static bool is_as_remembered(struct kms_store_txn *txn, unsigned bucket, const digest_bytes digest,
                             bool *ret_too_old)
{
    struct kms_sqlite_seals *seals = txn->store->seals;
    const struct bucket *kept = &seals->buckets[bucket];
    *ret_too_old = false;
    if (txn->write)
        return memcmp(kept->now, digest, sizeof kept->now) == 0;
    KMS_LOCKED(&seals->lock);
    const uint64_t seen = txn->seal_generation;
    if (seen < txn->seal_floor || seen > atomic_load(&seals->generation))
        return false;
    if (seen >= kept->since)
        return memcmp(kept->now, digest, sizeof kept->now) == 0;
    *ret_too_old = seen < kept->before_since;
    return !*ret_too_old && memcmp(kept->before, digest, sizeof kept->before) == 0;
}

/* The bucket's entries are those that were sealed: looked at once a transaction, which sees one state of the database. */
static enum kms_status check_bucket(struct kms_store_txn *txn, const struct kms_seal *seal,
                                    struct kms_error *err)
{
    const unsigned bucket = seal->bucket;
    const uint8_t bit = (uint8_t)(1U << (bucket % 8));
    digest_bytes digest;
    bool too_old;
    if ((txn->seal_checked[bucket / 8] & bit) != 0)
        return KMS_OK;
    if (!txn->write && !txn->seal_seen) {
        KMS_TRY(read_generation(txn, &txn->seal_generation, err));
        txn->seal_seen = true;
    }
    KMS_TRY(hash_bucket(txn, bucket, digest, err));
    if (!is_as_remembered(txn, bucket, digest, &too_old))
        return too_old ? kms_fail(err, KMS_STORE_BUSY, "records were sealed anew while one was read")
                       : tampered(txn, seal, "the seals beside it are not those that were made last", err);
    txn->seal_checked[bucket / 8] |= bit;
    return KMS_OK;
}

/* The digest in an entry; NOT_FOUND. */
static enum kms_status read_entry(struct kms_store_txn *txn, const struct kms_seal *seal,
                                  digest_bytes ret_digest, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_SEAL_GET);
    kms_query_i64(&query, seal->bucket);
    kms_query_blob(&query, seal->key, seal->key_len);
    KMS_TRY(kms_query_row(&query, err));
    kms_query_take_blob(&query, ret_digest, KMS_SEAL_DIGEST_SIZE);
    return kms_query_row_ok(&query, NULL, err);
}

/* What an entry must say of the record. */
static enum kms_status digest_of(const struct kms_sqlite_seals *seals, const struct kms_change *record,
                                 digest_bytes ret_digest, struct kms_error *err)
{
    KMS_CLEANUP(kms_buf_clear) struct kms_buf content = {0};
    if (kms_seal_content(record, &content) != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to seal a record");
    struct hashing hashing = hashing_begin(seals);
    hash(&hashing, content.data, content.len);
    return hashing_end(&hashing, ret_digest, err);
}

/* Whether records that are read are compared with anything. */
static bool checks(const struct kms_store_txn *txn)
{
    return txn->store->seals != NULL && !txn->seal_anew;
}

enum kms_status kms_sqlite_seal_check(struct kms_store_txn *txn, const struct kms_change *record,
                                      struct kms_error *err)
{
    struct kms_seal seal;
    digest_bytes sealed;
    digest_bytes found;
    const bool place = record->kind == KMS_CHANGE_TENANT || record->kind == KMS_CHANGE_PURPOSE ||
                       record->kind == KMS_CHANGE_CUSTOMER;
    if (!checks(txn) || (place && txn->seal_trusts) || !kms_seal_of(record, &seal))
        return KMS_OK;
    KMS_TRY(check_bucket(txn, &seal, err));
    const enum kms_status status = read_entry(txn, &seal, sealed, err);
    if (status == KMS_NOT_FOUND)
        return seal.present ? tampered(txn, &seal, "it was never sealed", err) : KMS_OK;
    KMS_TRY(status);
    if (!seal.present)
        return tampered(txn, &seal, "its seal says that it is in another state", err);
    KMS_TRY(digest_of(txn->store->seals, record, found, err));
    return memcmp(sealed, found, sizeof sealed) == 0 ? KMS_OK
                                                     : tampered(txn, &seal, "it is not what was sealed", err);
}

enum kms_status kms_sqlite_seal_check_absent(struct kms_store_txn *txn, const struct kms_change *record,
                                             struct kms_error *err)
{
    struct kms_seal seal;
    digest_bytes sealed;
    if (!checks(txn) || !kms_seal_of(record, &seal))
        return KMS_OK;
    KMS_TRY(check_bucket(txn, &seal, err));
    const enum kms_status status = read_entry(txn, &seal, sealed, err);
    if (status == KMS_NOT_FOUND)
        return KMS_OK;
    return status == KMS_OK ? tampered(txn, &seal, "it was removed", err) : status;
}

enum kms_status kms_sqlite_seal_each(struct kms_store_txn *txn, enum kms_change_kind kind,
                                     const struct kms_uuid *scope, kms_seal_visit visit, void *context,
                                     struct kms_error *err)
{
    struct kms_seal seal;
    if (!checks(txn))
        return KMS_OK;
    kms_seal_scope(kind, scope, &seal);
    KMS_TRY(check_bucket(txn, &seal, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_SEAL_SCOPE);
    kms_query_i64(&query, seal.bucket);
    kms_query_blob(&query, seal.key, seal.key_len);
    for (;;) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        const struct kms_slice key = kms_query_take_slice(&query);
        KMS_TRY(kms_query_row_ok(&query, key.len < seal.key_len ? "a seal's key is cut off" : NULL, err));
        KMS_TRY(visit(context, kms_slice_of(key.data + seal.key_len, key.len - seal.key_len)));
    }
}

static enum kms_status count_one(void *context, struct kms_slice rest)
{
    (void)rest;
    ++*(size_t *)context;
    return KMS_OK;
}

enum kms_status kms_sqlite_seal_check_count(struct kms_store_txn *txn, enum kms_change_kind kind,
                                            const struct kms_uuid *scope, size_t count, struct kms_error *err)
{
    struct kms_seal seal;
    size_t sealed = 0;
    if (!checks(txn) || (kind == KMS_CHANGE_PURPOSE && txn->seal_trusts))
        return KMS_OK;
    KMS_TRY(kms_sqlite_seal_each(txn, kind, scope, count_one, &sealed, err));
    kms_seal_scope(kind, scope, &seal);
    return sealed == count ? KMS_OK : tampered(txn, &seal, "one of its kind was removed", err);
}

/* Before its first change in a transaction a bucket is as it was sealed, so that nothing false is sealed along. */
static enum kms_status touch(struct kms_store_txn *txn, const struct kms_seal *seal, struct kms_error *err)
{
    struct kms_sqlite_seals *seals = txn->store->seals;
    KMS_TRY(check_bucket(txn, seal, err));
    seals->dirty[seal->bucket] = seals->any_dirty = true;
    return KMS_OK;
}

/* The entry of a record as it is from now on. */
static enum kms_status put_entry(struct kms_store_txn *txn, const struct kms_seal *seal,
                                 const struct kms_change *record, struct kms_error *err)
{
    digest_bytes before;
    digest_bytes digest = {0};
    const enum kms_status status = read_entry(txn, seal, before, err);
    if (status != KMS_OK && status != KMS_NOT_FOUND)
        return status;
    if (seal->present)
        KMS_TRY(digest_of(txn->store->seals, record, digest, err));
    if (seal->present ? status == KMS_OK && memcmp(before, digest, sizeof digest) == 0
                      : status == KMS_NOT_FOUND)
        return KMS_OK; /* nothing changes: a new key has changed the tree of a tenant, say */
    KMS_TRY(touch(txn, seal, err));
    KMS_QUERY query = kms_query_of(txn, seal->present ? KMS_STATEMENT_SEAL_PUT : KMS_STATEMENT_SEAL_REMOVE);
    kms_query_i64(&query, seal->bucket);
    kms_query_blob(&query, seal->key, seal->key_len);
    if (seal->present)
        kms_query_blob(&query, digest, sizeof digest);
    return kms_query_run(&query, "seal", err);
}

/* An operation has two entries: what was asked for, and what has become of it. */
static enum kms_status put_entries(struct kms_store_txn *txn, const struct kms_change *change,
                                   struct kms_error *err)
{
    struct kms_seal seal;
    if (!kms_seal_of(change, &seal))
        return KMS_OK;
    KMS_TRY(put_entry(txn, &seal, change, err));
    if (change->kind != KMS_CHANGE_OPERATION_REMOVED)
        return KMS_OK;
    kms_seal_scope(KMS_CHANGE_OPERATION_STATE, &change->operation_removed, &seal);
    seal.present = false;
    return put_entry(txn, &seal, change, err);
}

/* Kinds that are worth decoding. */
static bool is_sealed(enum kms_change_kind kind)
{
    switch (kind) {
    case KMS_CHANGE_KEK:
    case KMS_CHANGE_KEK_STATE:
    case KMS_CHANGE_RESERVE:
    case KMS_CHANGE_PAGE:
    case KMS_CHANGE_REQUEST:
    case KMS_CHANGE_APPROVAL:
    case KMS_CHANGE_CERTIFICATE:
    case KMS_CHANGE_TOMBSTONE:
    case KMS_CHANGE_FREE_SLOT:
    case KMS_CHANGE_SLOT_TAKEN:
    case KMS_CHANGE_KEK_SHREDDED:
    case KMS_CHANGE_REWRAPPED:
        return false;
    default:
        return true;
    }
}

enum kms_status kms_sqlite_seal_note(struct kms_store_txn *txn, enum kms_change_kind kind,
                                     struct kms_error *err)
{
    if (txn->store->seals == NULL || !is_sealed(kind))
        return KMS_OK;
    KMS_CLEANUP(kms_change_clear) struct kms_change change = {0};
    KMS_TRY(kms_changelog_decode(kms_buf_slice(&txn->store->payload), &change, err));
    return put_entries(txn, &change, err);
}

/* The MAC over everything, for a generation. */
static enum kms_status make_head(const struct kms_sqlite_seals *seals, uint64_t generation,
                                 uint8_t ret_mac[KMS_STORE_SEAL_SIZE], struct kms_error *err)
{
    static const uint8_t tag[8] = {'K', 'M', 'S', 'S', 'E', 'A', 'L', '1'};
    uint8_t message[sizeof tag + sizeof generation + KMS_SEAL_DIGEST_SIZE];
    struct hashing hashing = hashing_begin(seals);
    for (unsigned i = 0; i < KMS_SEAL_BUCKETS; i++)
        hash(&hashing, seals->dirty[i] ? seals->next[i] : seals->buckets[i].now, KMS_SEAL_DIGEST_SIZE);
    memcpy(message, tag, sizeof tag);
    kms_put_be64(message + sizeof tag, generation);
    KMS_TRY(hashing_end(&hashing, message + sizeof tag + sizeof generation, err));
    return seals->sealer->mac(seals->sealer->context, kms_slice_of(message, sizeof message), ret_mac, err);
}

enum kms_status kms_sqlite_seal_close(struct kms_store_txn *txn, struct kms_error *err)
{
    struct kms_sqlite_seals *seals = txn->store->seals;
    uint8_t mac[KMS_STORE_SEAL_SIZE];
    if (seals == NULL || !seals->any_dirty)
        return KMS_OK;
    for (unsigned i = 0; i < KMS_SEAL_BUCKETS; i++) {
        if (seals->dirty[i])
            KMS_TRY(hash_bucket(txn, i, seals->next[i], err));
    }
    const uint64_t generation = atomic_load(&seals->generation) + 1;
    KMS_TRY(make_head(seals, generation, mac, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_SEAL_HEAD_PUT);
    kms_query_u64(&query, generation);
    kms_query_blob(&query, mac, sizeof mac);
    return kms_query_run(&query, "head of the seals", err);
}

void kms_sqlite_seal_hold(struct kms_store_txn *txn)
{
    struct kms_sqlite_seals *seals = txn->store->seals;
    if (seals != NULL && seals->any_dirty)
        kms_mutex_lock(&seals->lock);
}

void kms_sqlite_seal_release(struct kms_store_txn *txn, bool committed)
{
    struct kms_sqlite_seals *seals = txn->store->seals;
    if (seals == NULL || !seals->any_dirty)
        return;
    const uint64_t generation = atomic_load(&seals->generation) + 1;
    for (unsigned i = 0; committed && i < KMS_SEAL_BUCKETS; i++) {
        struct bucket *bucket = &seals->buckets[i];
        if (!seals->dirty[i])
            continue;
        memcpy(bucket->before, bucket->now, sizeof bucket->before);
        memcpy(bucket->now, seals->next[i], sizeof bucket->now);
        bucket->before_since = bucket->since;
        bucket->since = generation;
    }
    if (committed)
        atomic_store(&seals->generation, generation);
    kms_mutex_unlock(&seals->lock);
}

void kms_sqlite_seal_mark(struct kms_store_txn *txn)
{
    struct kms_sqlite_seals *seals = txn->store->seals;
    if (seals == NULL)
        return;
    txn->seal_floor = atomic_load(&seals->generation);
    if (!txn->write)
        return;
    memset(seals->dirty, 0, sizeof seals->dirty);
    seals->any_dirty = false;
}

void kms_sqlite_seal_trust(struct kms_store_txn *txn)
{
    KMS_ASSERT(!txn->write); /* who writes would seal what he has not looked at */
    txn->seal_trusts = true;
}

uint64_t kms_sqlite_seal_generation(struct kms_store *base)
{
    const struct kms_sqlite *store = (const struct kms_sqlite *)(void *)base;
    return store->seals == NULL ? 0 : atomic_load(&store->seals->generation);
}

void kms_sqlite_seal_free(struct kms_sqlite_seals *seals)
{
    if (seals == NULL)
        return;
    EVP_MD_free(seals->sha256);
    kms_mutex_clear(&seals->lock);
    free(seals);
}

/* The entries that the database holds become what is remembered. */
static enum kms_status load_buckets(struct kms_store_txn *txn, struct kms_error *err)
{
    struct kms_sqlite_seals *seals = txn->store->seals;
    for (unsigned i = 0; i < KMS_SEAL_BUCKETS; i++)
        KMS_TRY(hash_bucket(txn, i, seals->buckets[i].now, err));
    return KMS_OK;
}

/* The head must be this sealer's, over these entries. */
static enum kms_status check_head(struct kms_store_txn *txn, uint64_t generation,
                                  const uint8_t found[KMS_STORE_SEAL_SIZE], struct kms_error *err)
{
    uint8_t mac[KMS_STORE_SEAL_SIZE];
    KMS_TRY(load_buckets(txn, err));
    KMS_TRY(make_head(txn->store->seals, generation, mac, err));
    if (!kms_equal_ct(mac, found, sizeof mac))
        return kms_fail_public(
            err, KMS_TAMPERED,
            "the records that decide who may do what and whose keys live are not those that the service has "
            "sealed last: somebody else has written to the database, or it belongs to another HSM; restore "
            "the newest backup, or find out what was changed and run kmsd --seal-records");
    for (unsigned i = 0; i < KMS_SEAL_BUCKETS; i++)
        txn->store->seals->buckets[i].since = generation;
    atomic_store(&txn->store->seals->generation, generation);
    return KMS_OK;
}

/* One record of what is there. */
static enum kms_status seal_row(void *context, const struct kms_change_row *row)
{
    struct kms_store_txn *txn = context;
    struct kms_error err = {0};
    const enum kms_change_kind kind = row->payload.len > 1 ? row->payload.data[1] : 0;
    if (!is_sealed(kind))
        return KMS_OK;
    KMS_CLEANUP(kms_change_clear) struct kms_change change = {0};
    KMS_TRY(kms_changelog_decode(row->payload, &change, &err));
    return put_entries(txn, &change, &err);
}

/* Everything as it is now, whatever it is. */
static enum kms_status seal_all(struct kms_store_txn *txn, struct kms_error *err)
{
    static const kms_snapshot_family families[] = {
        kms_sqlite_tenant_snapshot,    kms_sqlite_purpose_snapshot, kms_sqlite_customer_snapshot_closed,
        kms_sqlite_operation_snapshot, kms_sqlite_shred_snapshot,   kms_sqlite_rekey_snapshot,
        kms_sqlite_recovery_snapshot,  kms_sqlite_policy_snapshot,  kms_sqlite_freeze_snapshot,
    };
    struct kms_snapshot snapshot = {.visit = seal_row, .context = txn};
    enum kms_status status;
    txn->seal_anew = true;
    {
        KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_SEAL_REMOVE_ALL);
        status = kms_query_run(&query, "seals", err);
    }
    for (size_t i = 0; i < sizeof families / sizeof families[0] && status == KMS_OK; i++)
        status = families[i](txn, &snapshot, err);
    kms_buf_clear(&snapshot.payload);
    memset(txn->store->seals->dirty, true, sizeof txn->store->seals->dirty);
    txn->store->seals->any_dirty = true; /* the head, even when there is nothing below it */
    return status;
}

/* With nothing in the database there is nothing that could have been changed. */
static enum kms_status check_is_empty(struct kms_store_txn *txn, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_SEAL_NONE_NEEDED);
    KMS_TRY(kms_query_row(&query, err));
    const bool empty = kms_query_take_i64(&query) == 1;
    KMS_TRY(kms_query_row_ok(&query, NULL, err));
    if (empty)
        return KMS_OK;
    return kms_fail_public(
        err, KMS_FAILED_PRECONDITION,
        "the records in the database carry no seals: it was written by an older version, or somebody has "
        "removed them; make sure that it is yours and unchanged, then run kmsd --seal-records once");
}

/* What is found decides: seal, or compare. */
static enum kms_status begin_in(struct kms_store_txn *txn, bool anew, struct kms_error *err)
{
    uint64_t generation = 0;
    uint8_t mac[KMS_STORE_SEAL_SIZE];
    enum kms_status status;
    {
        KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_SEAL_HEAD_GET);
        status = kms_query_row(&query, err);
        if (status == KMS_OK) {
            generation = kms_query_take_u64(&query);
            kms_query_take_blob(&query, mac, sizeof mac);
            status = kms_query_row_ok(&query, NULL, err);
        }
    }
    if (status != KMS_OK && status != KMS_NOT_FOUND)
        return status;
    if (status == KMS_OK && !anew)
        return check_head(txn, generation, mac, err);
    if (!anew)
        KMS_TRY(check_is_empty(txn, err));
    atomic_store(&txn->store->seals->generation, generation);
    return seal_all(txn, err);
}

/* Without anything remembered yet; NULL without memory. */
static struct kms_sqlite_seals *seals_new(const struct kms_store_sealer *sealer)
{
    struct kms_sqlite_seals *seals = calloc(1, sizeof *seals);
    if (seals == NULL)
        return NULL;
    kms_mutex_init(&seals->lock, KMS_LOCK_SEALS);
    seals->sealer = sealer;
    seals->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (seals->sha256 == NULL) {
        kms_sqlite_seal_free(seals);
        return NULL;
    }
    return seals;
}

enum kms_status kms_sqlite_seal_begin(struct kms_store *base, const struct kms_store_sealer *sealer,
                                      bool anew, struct kms_error *err)
{
    struct kms_sqlite *store = (struct kms_sqlite *)(void *)base;
    KMS_ASSERT(store->seals == NULL);
    store->seals = seals_new(sealer);
    if (store->seals == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for the seals of records");
    KMS_TXN txn = {0};
    enum kms_status status = kms_txn_begin(base, true, &txn, err);
    if (status == KMS_OK)
        status = begin_in(txn.txn, anew, err);
    if (status == KMS_OK)
        status = kms_txn_commit(&txn, err);
    if (status == KMS_OK)
        return KMS_OK;
    kms_txn_clear(&txn);
    kms_sqlite_seal_free(store->seals);
    store->seals = NULL;
    return status;
}
