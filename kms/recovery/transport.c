#include "recovery/transport.h"

#include "core/cleanup.h"
#include "core/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

enum { PATH_SIZE = 4096, GROWTH = 64 };

void kms_opening_clear(struct kms_opening *opening)
{
    free(opening->keys);
    *opening = (struct kms_opening){0};
}

/* In front of what is wrong stands where; `advice` may be empty. */
static enum kms_status name_place(const char *place, enum kms_status status, const char *advice,
                                  struct kms_error *err)
{
    struct kms_error inner = {0};
    if (err == NULL)
        return status;
    inner = *err;
    return kms_fail_public(err, status, "%s: %s%s", place, kms_error_public(&inner, status), advice);
}

/* What to do about a capsule that is not as it was made; about anything else its bytes can do nothing. */
static const char *advice_about(enum kms_status status)
{
    return status == KMS_TAMPERED || status == KMS_INVALID_ARGUMENT
               ? "; copy the capsules anew, take another target's, or give --attestation the key of the HSM "
                 "that made them"
               : "";
}

/* A capsule that any of the attestation keys has signed. */
static enum kms_status open_signed(struct kms_slice file, const struct kms_slice *attestation, size_t count,
                                   struct kms_capsule *ret_capsule, struct kms_error *err)
{
    enum kms_status status = KMS_INVALID_ARGUMENT;
    for (size_t i = 0; i < count; i++) {
        status = kms_capsule_open(file, attestation[i], ret_capsule, err);
        if (status != KMS_TAMPERED)
            break;
    }
    return status;
}

/* What a capsule says of itself against its name, and against the ones before it. */
static enum kms_status check_capsule(const struct kms_opening *opening, const struct kms_capsule *capsule,
                                     const char *name, struct kms_error *err)
{
    char expected[KMS_CAPSULE_NAME_SIZE];
    if (strcmp(name, kms_capsule_name(&capsule->tenant, capsule->epoch, expected)) != 0)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "it is the capsule '%s' under another name",
                               expected);
    if (strcmp(capsule->wrapping_key, opening->recovery_key) != 0)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "it is for another recovery key, %s",
                               capsule->wrapping_key);
    if (opening->count > 0 && (strcmp(capsule->deployment, opening->deployment) != 0 ||
                               capsule->recovery_epoch != opening->recovery_epoch))
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "it is of another deployment, or another time, than the capsules beside it");
    return KMS_OK;
}

/* Take over a capsule's keys. */
static enum kms_status add_keys(struct kms_opening *opening, const struct kms_capsule *capsule,
                                struct kms_error *err)
{
    if (opening->count + capsule->count > KMS_TRANSPORT_KEYS_MAX)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "there are more than %d keys",
                               KMS_TRANSPORT_KEYS_MAX);
    if (opening->count + capsule->count > opening->room) {
        const size_t room = opening->room * 2 + capsule->count + GROWTH;
        struct kms_capsule_key *larger = reallocarray(opening->keys, room, sizeof *larger);
        if (larger == NULL)
            return kms_fail(err, KMS_NO_MEMORY, "no memory for %zu keys of capsules", room);
        opening->keys = larger;
        opening->room = room;
    }
    memcpy(opening->keys + opening->count, capsule->keys, capsule->count * sizeof *capsule->keys);
    opening->count += capsule->count;
    opening->masters += kms_uuid_is_zero(&capsule->tenant) ? 0 : 1;
    opening->recovery_epoch = capsule->recovery_epoch;
    memcpy(opening->deployment, capsule->deployment, sizeof opening->deployment);
    return KMS_OK;
}

/* One file of the directory. */
static enum kms_status read_capsule(struct kms_opening *opening, const char *path, const char *name,
                                    const struct kms_slice *attestation, size_t attestation_count,
                                    struct kms_error *err)
{
    KMS_CLEANUP(kms_buf_clear) struct kms_buf file = {0};
    KMS_CLEANUP(kms_capsule_clear) struct kms_capsule capsule = {0};
    KMS_TRY(kms_file_read(path, KMS_CAPSULE_MAX, &file, err));
    enum kms_status status = open_signed(kms_buf_slice(&file), attestation, attestation_count, &capsule, err);
    if (status == KMS_OK)
        status = check_capsule(opening, &capsule, name, err);
    return status == KMS_OK ? add_keys(opening, &capsule, err)
                            : name_place(path, status, advice_about(status), err);
}

/* Every capsule; what has another name is none of ours, such as one that was being written. */
static enum kms_status read_all(struct kms_opening *opening, const char *directory,
                                const struct kms_slice *attestation, size_t attestation_count,
                                struct kms_error *err)
{
    KMS_CLOSEDIR DIR *list = opendir(directory);
    struct kms_uuid tenant;
    uint64_t epoch = 0;
    char path[PATH_SIZE];
    if (list == NULL)
        return kms_fail_public(err, KMS_IO, "cannot open %s: %s", directory, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(list)) != NULL;) {
        if (!kms_capsule_name_parse(entry->d_name, &tenant, &epoch))
            continue;
        const int len = snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        if (len < 0 || (size_t)len >= sizeof path)
            return kms_fail_public(err, KMS_INVALID_ARGUMENT, "%s is too long a name", directory);
        KMS_TRY(read_capsule(opening, path, entry->d_name, attestation, attestation_count, err));
    }
    return KMS_OK;
}

/* The service's own keys make the difference between capsules and a deployment; the encoder checks the rest. */
static enum kms_status check_whole(const struct kms_opening *opening, const char *directory,
                                   struct kms_error *err)
{
    if (opening->count == 0)
        return kms_fail_public(err, KMS_NOT_FOUND, "there is no capsule for the recovery key %s in %s",
                               opening->recovery_key, directory);
    if (opening->count == opening->masters)
        return kms_fail_public(
            err, KMS_INVALID_ARGUMENT,
            "%s has no service.capsule, without which no backup opens: copy the capsules anew", directory);
    return KMS_OK;
}

enum kms_status kms_opening_read(const char *directory, const char *fingerprint,
                                 const struct kms_slice *attestation, size_t attestation_count,
                                 struct kms_opening *ret_opening, struct kms_error *err)
{
    KMS_CLEANUP(kms_opening_clear) struct kms_opening opening = {0};
    struct stat info;
    char path[PATH_SIZE];
    (void)snprintf(opening.recovery_key, sizeof opening.recovery_key, "%s", fingerprint);
    const int len = snprintf(path, sizeof path, "%s/%s", directory, fingerprint);
    if (len < 0 || (size_t)len >= sizeof path)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "%s is too long a name", directory);
    const char *place = stat(path, &info) == 0 && S_ISDIR(info.st_mode) ? path : directory;
    KMS_TRY(read_all(&opening, place, attestation, attestation_count, err));
    KMS_TRY(check_whole(&opening, place, err));
    *ret_opening = opening;
    opening = (struct kms_opening){0};
    return KMS_OK;
}

enum kms_status kms_opening_rewrap(const struct kms_opening *opening, const struct kms_opener *opener,
                                   const char *transport_key, struct kms_buf *file, struct kms_error *err)
{
    KMS_CLEANUP(kms_capsule_clear) struct kms_capsule capsule = {.transport = true};
    memcpy(capsule.deployment, opening->deployment, sizeof capsule.deployment);
    (void)snprintf(capsule.wrapping_key, sizeof capsule.wrapping_key, "%s", transport_key);
    (void)kms_clock_format(kms_clock_wall_ns(), capsule.made);
    capsule.keys = calloc(opening->count, sizeof *capsule.keys);
    if (capsule.keys == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for %zu keys", opening->count);
    for (; capsule.count < opening->count; capsule.count++) {
        const struct kms_capsule_key *key = &opening->keys[capsule.count];
        const enum kms_status status =
            opener->rewrap(opener->context, key, &capsule.keys[capsule.count], err);
        if (status != KMS_OK)
            return name_place(key->label, status, "", err);
    }
    return kms_capsule_write_transport(&capsule, file, err);
}

/* With both keys in memory. */
static enum kms_status rewrap_soft(void *context, const struct kms_capsule_key *key,
                                   struct kms_capsule_key *ret_key, struct kms_error *err)
{
    const struct kms_opener_soft *soft = context;
    const bool sha256 = key->mechanism == KMS_CAPSULE_OAEP_SHA256;
    KMS_SECRET plain = {0};
    if (key->wrapped_len != KMS_RSA_BYTES)
        return kms_fail_public(err, KMS_TAMPERED, "it is wrapped for a key of another size");
    KMS_TRY(kms_rsa_unwrap(soft->recovery, sha256, key->wrapped, &plain, err));
    *ret_key = *key;
    ret_key->wrapped_len = KMS_RSA_BYTES;
    return kms_rsa_wrap(soft->transport, sha256, &plain, ret_key->wrapped, err);
}

struct kms_opener kms_opener_soft(struct kms_opener_soft *soft)
{
    return (struct kms_opener){soft, rewrap_soft};
}
