#include "daemon/transport.h"

#include "core/cleanup.h"
#include "core/file.h"
#include "core/log.h"
#include "daemon/open_hsm.h"
#include "evidence/capsule.h"
#include "hsm/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

_Static_assert((int)KMS_CAPSULE_ID_SIZE == (int)KMS_HSM_KEY_ID_SIZE &&
                   (int)KMS_MASTER_ID_SIZE == (int)KMS_HSM_KEY_ID_SIZE,
               "a key has one id everywhere");

enum { TENANTS_AT_ONCE = 256 };

struct kms_transport {
    const struct kms_config *config;
    struct kms_capsule capsule;
    bool *brought; /* by this run, for each key of the capsule */
    bool *wanted;  /* by the step that is under way */
    bool keep;
};

/* With the token open and the user logged in. */
static enum kms_status with_token(const struct kms_config *config, kms_hsm_transport_work work, void *context,
                                  struct kms_error *err)
{
    KMS_SECRET pin = {0};
    struct kms_hsm_p11_config p11;
    KMS_TRY(kms_daemon_hsm_config(config, &pin, &p11, err));
    return kms_hsm_transport_run(&p11, work, context, err);
}

/* The public half of the transport key. */
struct shown {
    bool may_make;
    struct kms_buf pem;
    char fingerprint[KMS_HSM_FINGERPRINT_SIZE];
};

static void shown_clear(struct shown *shown)
{
    kms_buf_clear(&shown->pem);
}

static enum kms_status show_key(void *context, struct kms_hsm_session *session, struct kms_error *err)
{
    struct shown *shown = context;
    return kms_hsm_transport_key(session, shown->may_make, &shown->pem, shown->fingerprint, err);
}

/* A new file, which nobody needs to hide. */
static enum kms_status write_public(const char *path, struct kms_slice bytes, struct kms_error *err)
{
    KMS_CLOSE const int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (file < 0)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION, "%s cannot be made: %s", path, strerror(errno));
    const ssize_t put = write(file, bytes.data, bytes.len);
    if (put == (ssize_t)bytes.len && fsync(file) == 0)
        return KMS_OK;
    /* part of it was written: the disk is full, which nothing has said */
    const int failure = put >= 0 && put < (ssize_t)bytes.len ? ENOSPC : errno;
    (void)unlink(path);
    return kms_fail_public(err, KMS_IO, "%s cannot be written: %s", path, strerror(failure));
}

enum kms_status kms_daemon_transport_key(const struct kms_config *config, const char *path,
                                         struct kms_error *err)
{
    KMS_CLEANUP(shown_clear) struct shown shown = {.may_make = true};
    KMS_TRY(with_token(config, show_key, &shown, err));
    KMS_TRY(write_public(path, kms_buf_slice(&shown.pem), err));
    /* a name that is no UTF-8 is none for JSON, and is left out */
    json_t *line = json_pack("{s:s, s:o*}", "transport_key", shown.fingerprint, "file", json_string(path));
    const bool printed = line != NULL && json_dumpf(line, stdout, JSON_COMPACT) == 0;
    json_decref(line);
    (void)printf("\n");
    return printed ? KMS_OK : kms_fail(err, KMS_NO_MEMORY, "no memory to name the transport key");
}

/* A key of the capsule as the token is asked for it. */
static struct kms_hsm_transport_item item_of(const struct kms_capsule_key *key)
{
    const enum kms_hsm_transport_role role = key->role == KMS_CAPSULE_MASTER ? KMS_HSM_TRANSPORT_MASTER
                                             : key->role == KMS_CAPSULE_INTEGRITY
                                                 ? KMS_HSM_TRANSPORT_INTEGRITY
                                                 : KMS_HSM_TRANSPORT_BACKUP;
    return (struct kms_hsm_transport_item){.role = role,
                                           .sha256 = key->mechanism == KMS_CAPSULE_OAEP_SHA256,
                                           .id = key->id,
                                           .label = key->label,
                                           .wrapped = kms_slice_of(key->wrapped, key->wrapped_len)};
}

/* Bring what is wanted. */
static enum kms_status bring(void *context, struct kms_hsm_session *session, struct kms_error *err)
{
    struct kms_transport *transport = context;
    for (size_t i = 0; i < transport->capsule.count; i++) {
        const struct kms_hsm_transport_item item = item_of(&transport->capsule.keys[i]);
        if (transport->wanted[i])
            KMS_TRY(kms_hsm_transport_import(session, &item, &transport->brought[i], err));
        transport->wanted[i] = false;
    }
    return KMS_OK;
}

/* The public half of the transport key that is there. */
static enum kms_status find_key(struct shown *ret_shown, struct kms_hsm_session *session,
                                struct kms_error *err)
{
    const enum kms_status status = show_key(ret_shown, session, err);
    if (status != KMS_NOT_FOUND)
        return status;
    return kms_fail_public(
        err, status,
        "the token has no transport key: make one with kmsctl recovery transport-key, and have the "
        "transport capsule made for it; or, when a restore with this capsule was interrupted at its end, "
        "repeat it without --transport-capsule, for the token has the keys");
}

/* The token's own transport key is the one that the capsule is for; then bring. */
static enum kms_status check_and_bring(void *context, struct kms_hsm_session *session, struct kms_error *err)
{
    struct kms_transport *transport = context;
    KMS_CLEANUP(shown_clear) struct shown shown = {0};
    KMS_TRY(find_key(&shown, session, err));
    if (strcmp(shown.fingerprint, transport->capsule.wrapping_key) != 0)
        return kms_fail_public(
            err, KMS_FAILED_PRECONDITION,
            "the transport capsule is for the transport key %.16s..., but this token's is %.16s...: "
            "have it made for this one",
            transport->capsule.wrapping_key, shown.fingerprint);
    return bring(context, session, err);
}

/* Take away what this run has brought; one that does not go is no reason to leave the others. The first failure counts. */
static enum kms_status undo(void *context, struct kms_hsm_session *session, struct kms_error *err)
{
    const struct kms_transport *transport = context;
    enum kms_status first = KMS_OK;
    for (size_t i = 0; i < transport->capsule.count; i++) {
        const struct kms_hsm_transport_item item = item_of(&transport->capsule.keys[i]);
        struct kms_error failure = {0};
        const enum kms_status status =
            transport->brought[i] ? kms_hsm_transport_undo(session, &item, &failure) : KMS_OK;
        if (status == KMS_OK || first != KMS_OK)
            continue;
        first = status;
        *err = failure;
    }
    return first;
}

void kms_transport_free(struct kms_transport *transport)
{
    struct kms_error err = {0};
    bool any = false;
    if (transport == NULL)
        return;
    for (size_t i = 0; transport->brought != NULL && i < transport->capsule.count; i++)
        any = any || transport->brought[i];
    if (any && !transport->keep && with_token(transport->config, undo, transport, &err) != KMS_OK)
        kms_log_error("daemon",
                      "keys of the transport capsule stay in the token, although the restore has failed: %s; "
                      "repeat the restore from the same target, or initialise the token anew",
                      kms_error_cause(&err, err.status));
    kms_capsule_clear(&transport->capsule);
    free(transport->brought);
    free(transport->wanted);
    free(transport);
}

static void free_transport(struct kms_transport **transport)
{
    kms_transport_free(*transport);
}

/* The capsule's file; the deployment that it names is that of its backup key. */
static enum kms_status read_file(const char *path, struct kms_capsule *ret_capsule, struct kms_error *err)
{
    KMS_CLEANUP(kms_buf_clear) struct kms_buf file = {0};
    KMS_TRY(kms_file_read(path, KMS_TRANSPORT_MAX, &file, err));
    struct kms_error inner = {0};
    const enum kms_status status = kms_capsule_open_transport(kms_buf_slice(&file), ret_capsule, &inner);
    return status == KMS_OK ? KMS_OK
                            : kms_fail_public(err, status, "%s: %s", path, kms_error_public(&inner, status));
}

enum kms_status kms_transport_begin(const struct kms_config *config, const char *path,
                                    struct kms_transport **ret_transport, struct kms_error *err)
{
    KMS_CLEANUP(free_transport) struct kms_transport *transport = calloc(1, sizeof *transport);
    if (transport == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a transport capsule");
    transport->config = config;
    KMS_TRY(read_file(path, &transport->capsule, err));
    transport->brought = calloc(transport->capsule.count, sizeof *transport->brought);
    transport->wanted = calloc(transport->capsule.count, sizeof *transport->wanted);
    if (transport->brought == NULL || transport->wanted == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a transport capsule");
    for (size_t i = 0; i < transport->capsule.count; i++)
        transport->wanted[i] = transport->capsule.keys[i].role != KMS_CAPSULE_MASTER;
    KMS_TRY(with_token(config, check_and_bring, transport, err));
    *ret_transport = KMS_TAKE(transport);
    return KMS_OK;
}

/* What the capsule has of a tenant whose key it has not, for the message; 0: nothing. */
static uint64_t epoch_of(const struct kms_capsule *capsule, const struct kms_uuid *uuid)
{
    uint64_t newest = 0;
    for (size_t i = 0; i < capsule->count; i++) {
        struct kms_uuid tenant;
        uint64_t epoch = 0;
        if (capsule->keys[i].role == KMS_CAPSULE_MASTER &&
            kms_capsule_master_label(capsule->keys[i].label, &tenant, &epoch) &&
            kms_uuid_equal(&tenant, uuid) && epoch > newest)
            newest = epoch;
    }
    return newest;
}

/* The one master key of a tenant that the database names. */
static enum kms_status want_master(struct kms_transport *transport, const struct kms_tenant_record *tenant,
                                   struct kms_error *err)
{
    const struct kms_capsule *capsule = &transport->capsule;
    for (size_t i = 0; i < capsule->count; i++) {
        if (capsule->keys[i].role == KMS_CAPSULE_MASTER &&
            memcmp(capsule->keys[i].id, tenant->master_id, KMS_MASTER_ID_SIZE) == 0) {
            transport->wanted[i] = true;
            return KMS_OK;
        }
    }
    const uint64_t newest = epoch_of(capsule, &tenant->uuid);
    if (newest == 0)
        return kms_fail_public(
            err, KMS_FAILED_PRECONDITION,
            "the backup names tenant '%s', and the transport capsule holds no master key of it: make "
            "it from all capsules of the newest target",
            tenant->id);
    return kms_fail_public(err, KMS_FAILED_PRECONDITION,
                           "the backup is at epoch %" PRIu64
                           " of tenant '%s', but the transport capsule holds epoch "
                           "%" PRIu64 ": make it from the capsules beside this backup",
                           tenant->epoch, tenant->id, newest);
}

/* All tenants, in portions. */
static enum kms_status want_masters(struct kms_transport *transport, struct kms_store *store,
                                    struct kms_error *err)
{
    char after[KMS_TENANT_ID_MAX + 1] = "";
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(store, false, &txn, err));
    for (size_t count = TENANTS_AT_ONCE; count == TENANTS_AT_ONCE;) {
        KMS_FREE struct kms_tenant_record *list = NULL;
        KMS_TRY(store->ops->tenant_list(txn.txn, after[0] == '\0' ? NULL : after, TENANTS_AT_ONCE, &list,
                                        &count, err));
        for (size_t i = 0; i < count; i++)
            KMS_TRY(want_master(transport, &list[i], err));
        if (count > 0)
            memcpy(after, list[count - 1].id, sizeof after);
    }
    return KMS_OK;
}

enum kms_status kms_transport_bring_masters(struct kms_transport *transport, struct kms_store *store,
                                            struct kms_error *err)
{
    KMS_TRY(want_masters(transport, store, err));
    return with_token(transport->config, bring, transport, err);
}

/* Nothing needs it any more. */
static enum kms_status remove_key(void *context, struct kms_hsm_session *session, struct kms_error *err)
{
    (void)context;
    return kms_hsm_transport_key_remove(session, err);
}

enum kms_status kms_transport_finish(struct kms_transport *transport, struct kms_error *err)
{
    KMS_TRY(with_token(transport->config, remove_key, NULL, err));
    transport->keep = true;
    return KMS_OK;
}
