#include "recovery/ceremony.h"

#include "core/file.h"
#include "core/ids.h"
#include "recovery/sealed.h"
#include "recovery/share_text.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <sys/stat.h>

_Static_assert((int)KMS_RSA_FINGERPRINT_SIZE == (int)KMS_SHARE_KEY_SIZE,
               "shares name the key by its fingerprint");

enum { FILES_MAX = KMS_SHARES_MAX + 2 };

/* The files of a ceremony: the shares, then the sealed key, then the public key. */
struct place {
    const char *path;
    int descriptor; /* -1: not made */
    dev_t device;   /* of its directory */
    ino_t directory;
};

/* A ceremony under way. */
struct holding {
    const struct kms_ceremony *plan;
    struct place places[FILES_MAX];
    unsigned count; /* of places */
    struct kms_rsa *key;
    uint8_t fingerprint[KMS_RSA_FINGERPRINT_SIZE];
    struct kms_secret secret;
    struct kms_share shares[KMS_SHARES_MAX];
    bool good; /* the files may stay */
    struct kms_error *err;
};

static void holding_clear(struct holding *holding)
{
    for (unsigned i = 0; i < holding->count; i++) {
        const struct place *place = &holding->places[i];
        if (place->descriptor < 0)
            continue;
        (void)close(place->descriptor);
        if (!holding->good)
            (void)unlink(place->path);
    }
    kms_rsa_free(holding->key);
    kms_secret_clear(&holding->secret);
    kms_shares_clear(holding->shares, KMS_SHARES_MAX);
}

/* A descriptor of the directory of a path; the caller closes it. */
static int open_directory(const char *path)
{
    KMS_FREE char *copy = strdup(path);
    return copy != NULL ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
}

/* Where a file will lie. */
static enum kms_status locate(struct holding *holding, const char *path)
{
    struct place *place = &holding->places[holding->count];
    struct stat info;
    *place = (struct place){.path = path, .descriptor = -1};
    KMS_CLOSE const int directory = open_directory(path);
    if (directory < 0 || fstat(directory, &info) != 0)
        return kms_fail_public(holding->err, KMS_FAILED_PRECONDITION,
                               "the directory of %s cannot be opened: %s", path, strerror(errno));
    place->device = info.st_dev;
    place->directory = info.st_ino;
    holding->count++;
    return KMS_OK;
}

/* Nobody gets two shares with one hand, nor a share with what it opens. */
static enum kms_status check_apart(const struct holding *holding)
{
    const unsigned shares = holding->plan->count;
    for (unsigned i = 0; i < shares; i++) {
        for (unsigned k = i + 1; k <= shares; k++) {
            const struct place *a = &holding->places[i];
            const struct place *b = &holding->places[k];
            if (a->device == b->device && a->directory == b->directory)
                return kms_fail_public(holding->err, KMS_INVALID_ARGUMENT,
                                       "%s and %s lie in one directory: each share needs one of its own, for "
                                       "example on its custodian's stick",
                                       a->path, b->path);
        }
    }
    return KMS_OK;
}

/* All files, still empty: what cannot be written shows before there is a key. */
static enum kms_status make_files(struct holding *holding)
{
    for (unsigned i = 0; i < holding->count; i++) {
        struct place *place = &holding->places[i];
        place->descriptor = open(place->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (place->descriptor < 0)
            return kms_fail_public(holding->err, KMS_FAILED_PRECONDITION, "%s cannot be made: %s",
                                   place->path, strerror(errno));
    }
    /* the public key is for everybody; where a file system has no modes, it has none */
    (void)fchmod(holding->places[holding->count - 1].descriptor, 0644);
    return KMS_OK;
}

/* Choose the places and take them. */
static enum kms_status prepare(struct holding *holding)
{
    const struct kms_ceremony *plan = holding->plan;
    KMS_TRY(kms_shares_check(plan->count, plan->threshold, holding->err));
    for (unsigned i = 0; i < plan->count; i++)
        KMS_TRY(locate(holding, plan->share_paths[i]));
    KMS_TRY(locate(holding, plan->sealed_path));
    KMS_TRY(locate(holding, plan->public_path));
    KMS_TRY(check_apart(holding));
    return make_files(holding);
}

/* One file with all that it holds, durable, and so its name. */
static enum kms_status write_file(const struct holding *holding, const struct place *place,
                                  struct kms_slice bytes)
{
    size_t done = 0;
    while (done < bytes.len) {
        const ssize_t put = write(place->descriptor, bytes.data + done, bytes.len - done);
        if (put < 0 && errno != EINTR)
            return kms_fail_public(holding->err, KMS_IO, "%s cannot be written: %s", place->path,
                                   strerror(errno));
        done += put > 0 ? (size_t)put : 0;
    }
    KMS_CLOSE const int directory = open_directory(place->path);
    if (fsync(place->descriptor) != 0 || directory < 0 || fsync(directory) != 0)
        return kms_fail_public(holding->err, KMS_IO, "%s cannot be made durable: %s", place->path,
                               strerror(errno));
    return KMS_OK;
}

/* The key, the secret and the shares of it, in memory. */
static enum kms_status make_key(struct holding *holding)
{
    struct kms_error *err = holding->err;
    KMS_TRY(kms_rsa_generate(&holding->key, err));
    KMS_TRY(kms_rsa_fingerprint(holding->key, holding->fingerprint, err));
    if (kms_secret_new(KMS_SHARE_SIZE, &holding->secret) != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY, "no locked memory for a secret");
    kms_system_random(holding->secret.data, KMS_SHARE_SIZE);
    holding->secret.len = KMS_SHARE_SIZE;
    return kms_shares_split(&holding->secret, holding->fingerprint, holding->plan->count,
                            holding->plan->threshold, holding->shares, err);
}

/* Whether the next step is wanted: who has interrupted the ceremony gets its files removed, not left. */
static enum kms_status go_on(const struct holding *holding)
{
    if (holding->plan->stop == NULL || !holding->plan->stop())
        return KMS_OK;
    return kms_fail_public(holding->err, KMS_CANCELLED, "the ceremony was interrupted");
}

static enum kms_status write_shares(const struct holding *holding)
{
    for (unsigned i = 0; i < holding->plan->count; i++) {
        KMS_SECRET text = {0};
        KMS_TRY(go_on(holding));
        KMS_TRY(kms_share_format(&holding->shares[i], &text, holding->err));
        KMS_TRY(write_file(holding, &holding->places[i], kms_secret_slice(&text)));
    }
    return KMS_OK;
}

/* The sealed and the public key. */
static enum kms_status write_keys(const struct holding *holding)
{
    const unsigned shares = holding->plan->count;
    struct kms_sealed_head head = {.count = shares, .threshold = holding->plan->threshold};
    KMS_SECRET der = {0};
    KMS_CLEANUP(kms_buf_clear) struct kms_buf sealed = {0};
    KMS_CLEANUP(kms_buf_clear) struct kms_buf pem = {0};
    memcpy(head.key, holding->fingerprint, sizeof head.key);
    KMS_TRY(kms_rsa_to_pkcs8(holding->key, &der, holding->err));
    KMS_TRY(kms_sealed_make(&head, &holding->secret, &der, &sealed, holding->err));
    KMS_TRY(kms_rsa_public_pem(holding->key, &pem, holding->err));
    KMS_TRY(write_file(holding, &holding->places[shares], kms_buf_slice(&sealed)));
    return write_file(holding, &holding->places[shares + 1], kms_buf_slice(&pem));
}

/* The files of shares i, i + 1, ... as custodians will bring them: so that each share has opened the key once. */
static enum kms_status rehearse(const struct holding *holding)
{
    const struct kms_ceremony *plan = holding->plan;
    for (unsigned i = 0; i < plan->count; i++) {
        const char *paths[KMS_SHARES_MAX];
        struct kms_rsa *key = NULL;
        KMS_TRY(go_on(holding));
        for (unsigned k = 0; k < plan->threshold; k++)
            paths[k] = plan->share_paths[(i + k) % plan->count];
        KMS_TRY(kms_ceremony_open(plan->sealed_path, paths, plan->threshold, &key, holding->err));
        kms_rsa_free(key);
    }
    return KMS_OK;
}

enum kms_status kms_ceremony_run(const struct kms_ceremony *ceremony,
                                 uint8_t ret_fingerprint[KMS_RSA_FINGERPRINT_SIZE], struct kms_error *err)
{
    KMS_CLEANUP(holding_clear) struct holding holding = {.plan = ceremony, .err = err};
    KMS_TRY(prepare(&holding));
    KMS_TRY(make_key(&holding));
    KMS_TRY(write_shares(&holding));
    KMS_TRY(write_keys(&holding));
    KMS_TRY(rehearse(&holding));
    KMS_TRY(go_on(&holding));
    holding.good = true;
    memcpy(ret_fingerprint, holding.fingerprint, KMS_RSA_FINGERPRINT_SIZE);
    return KMS_OK;
}

/* What the custodians have brought. */
struct brought {
    struct kms_share shares[KMS_SHARES_MAX];
    size_t count;
};

static void brought_clear(struct brought *brought)
{
    kms_shares_clear(brought->shares, brought->count);
}

/* The secret of a sealed file, of the shares that belong to it. */
static enum kms_status join_for(const struct kms_sealed_head *head, const char *sealed_path,
                                const struct brought *brought, struct kms_secret *ret_secret,
                                struct kms_error *err)
{
    for (size_t i = 0; i < brought->count; i++) {
        if (memcmp(brought->shares[i].key, head->key, sizeof head->key) != 0)
            return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                                   "%s is a share of another recovery key than the one in %s",
                                   brought->shares[i].name, sealed_path);
    }
    return kms_shares_join(brought->shares, brought->count, ret_secret, err);
}

/* A key is what the file said that it is. */
static enum kms_status check_name(const struct kms_rsa *key, const struct kms_sealed_head *head,
                                  const char *sealed_path, struct kms_error *err)
{
    uint8_t fingerprint[KMS_RSA_FINGERPRINT_SIZE];
    KMS_TRY(kms_rsa_fingerprint(key, fingerprint, err));
    if (memcmp(fingerprint, head->key, sizeof fingerprint) != 0)
        return kms_fail_public(err, KMS_TAMPERED, "%s holds another key than it says", sealed_path);
    return KMS_OK;
}

static void free_key(struct kms_rsa **key)
{
    kms_rsa_free(*key);
}

enum kms_status kms_ceremony_open(const char *sealed_path, const char *const *share_paths, size_t count,
                                  struct kms_rsa **ret_key, struct kms_error *err)
{
    KMS_CLEANUP(kms_buf_clear) struct kms_buf file = {0};
    KMS_CLEANUP(brought_clear) struct brought brought = {0};
    KMS_CLEANUP(free_key) struct kms_rsa *key = NULL;
    KMS_SECRET secret = {0};
    KMS_SECRET der = {0};
    struct kms_sealed_head head;
    if (count > KMS_SHARES_MAX)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "%zu shares are more than any ceremony makes",
                               count);
    KMS_TRY(kms_file_read(sealed_path, KMS_SEALED_MAX, &file, err));
    KMS_TRY(kms_sealed_read_head(sealed_path, kms_buf_slice(&file), &head, err));
    for (; brought.count < count; brought.count++)
        KMS_TRY(kms_share_read(share_paths[brought.count], &brought.shares[brought.count], err));
    KMS_TRY(join_for(&head, sealed_path, &brought, &secret, err));
    KMS_TRY(kms_sealed_open(sealed_path, kms_buf_slice(&file), &secret, &der, err));
    KMS_TRY(kms_rsa_from_pkcs8(kms_secret_slice(&der), &key, err));
    KMS_TRY(check_name(key, &head, sealed_path, err));
    *ret_key = KMS_TAKE(key);
    return KMS_OK;
}
