#include "hsm/p11_masters.h"

#include "core/cleanup.h"
#include "core/log.h"
#include "hsm/p11_keys.h"
#include "hsm/p11_objects.h"
#include "hsm/p11_session.h"
#include "hsm/p11_template.h"
#include "hsm/p11_token_keys.h"

#include <stdlib.h>

/* The ids are random, so any function does; the default one falls through a switch, which clang warns of. */
#define HASH_FUNCTION(key, len, hash) HASH_SAX(key, len, hash)
#include <uthash.h>

enum { DOUBLES_SEEN = 2 };

/* One master key that was found and use-tested in this generation. */
struct kms_p11_master {
    uint8_t id[KMS_HSM_KEY_ID_SIZE];
    struct kms_hsm_key key;
    UT_hash_handle hh;
};

static const CK_ULONG aes_key_size = KMS_P11_AES_KEY_SIZE;

/* A cached handle, if there is one. */
static bool cache_get(struct kms_p11 *p11, const uint8_t *id, struct kms_hsm_key *ret_key)
{
    KMS_LOCKED(&p11->masters_lock);
    struct kms_p11_master *entry = NULL;
    HASH_FIND(hh, p11->masters, id, KMS_HSM_KEY_ID_SIZE, entry);
    if (entry != NULL)
        *ret_key = entry->key;
    return entry != NULL;
}

/* Empty the cache; its lock is held. */
static void forget_all_locked(struct kms_p11 *p11)
{
    struct kms_p11_master *entry;
    struct kms_p11_master *next;
    HASH_ITER (hh, p11->masters, entry, next) {
        HASH_DEL(p11->masters, entry);
        free(entry);
    }
}

/* Remember a handle; without memory it is merely looked up again next time. */
static void cache_put(struct kms_p11 *p11, const uint8_t *id, struct kms_hsm_key key)
{
    KMS_LOCKED(&p11->masters_lock);
    struct kms_p11_master *entry = NULL;
    HASH_FIND(hh, p11->masters, id, KMS_HSM_KEY_ID_SIZE, entry);
    if (entry != NULL) {
        entry->key = key;
        return;
    }
    if (HASH_COUNT(p11->masters) >= KMS_P11_MASTERS_MAX)
        forget_all_locked(p11);
    entry = calloc(1, sizeof *entry);
    if (entry == NULL)
        return;
    memcpy(entry->id, id, sizeof entry->id);
    entry->key = key;
    HASH_ADD(hh, p11->masters, id, KMS_HSM_KEY_ID_SIZE, entry);
}

/* Forget one master key by its id. */
static void cache_drop(struct kms_p11 *p11, const uint8_t *id)
{
    KMS_LOCKED(&p11->masters_lock);
    struct kms_p11_master *entry = NULL;
    HASH_FIND(hh, p11->masters, id, KMS_HSM_KEY_ID_SIZE, entry);
    if (entry != NULL) {
        HASH_DEL(p11->masters, entry);
        free(entry);
    }
}

void kms_p11_masters_forget_all(struct kms_p11 *p11)
{
    KMS_LOCKED(&p11->masters_lock);
    forget_all_locked(p11);
}

void kms_p11_masters_forget_handle(struct kms_p11 *p11, CK_OBJECT_HANDLE handle)
{
    KMS_LOCKED(&p11->masters_lock);
    struct kms_p11_master *entry;
    struct kms_p11_master *next;
    HASH_ITER (hh, p11->masters, entry, next) {
        if (entry->key.handle == handle) {
            HASH_DEL(p11->masters, entry);
            free(entry);
        }
    }
}

/* What to search a master key by. */
static void search_template(struct kms_p11_template *template, const uint8_t *id)
{
    *template = (struct kms_p11_template){0};
    kms_p11_template_aes(template);
    kms_p11_template_flag(template, CKA_TOKEN, true);
    if (id != NULL)
        kms_p11_template_add(template, CKA_ID, id, KMS_HSM_KEY_ID_SIZE);
}

/*
 * The one master key with this id, not yet tested. "Not found" is believed only when the integrity key works:
 * a token that vanished finds nothing either.
 */
static enum kms_status locate(struct kms_hsm_session *session, const uint8_t *id,
                              CK_OBJECT_HANDLE *ret_handle, struct kms_error *err)
{
    struct kms_p11_template template;
    search_template(&template, id);
    CK_OBJECT_HANDLE handles[DOUBLES_SEEN];
    size_t count = 0;
    KMS_TRY(kms_p11_objects_find(session, &template, handles, DOUBLES_SEEN, &count, err));
    if (count > 1)
        return kms_fail(err, KMS_HSM_REFUSED, "several master keys in the token have one CKA_ID");
    if (count == 0 && !kms_p11_session_device_works(session))
        return kms_fail(err, KMS_HSM_UNAVAILABLE, "the token's keys cannot be seen");
    if (count == 0)
        return kms_fail(err, KMS_NOT_FOUND, "no master key with this CKA_ID is in the token");
    *ret_handle = handles[0];
    return KMS_OK;
}

/* A use-test that failed for a reason of the key's, not of the connection's, means a torn key. */
static enum kms_status test_found(struct kms_hsm_session *session, struct kms_hsm_key key,
                                  struct kms_error *err)
{
    const enum kms_status status = kms_p11_keys_use_test(session, key, err);
    if (status == KMS_BLOB_REFUSED || status == KMS_HSM_REFUSED) {
        kms_log_error("hsm", "a master key was found but does not work (torn object): %s",
                      kms_error_cause(err, status));
        return kms_fail_public(err, KMS_HSM_REFUSED,
                               "a master key is in the HSM but does not work; an operator must look at it");
    }
    return status;
}

enum kms_status kms_p11_masters_find(struct kms_hsm_session *session, const uint8_t id[KMS_HSM_KEY_ID_SIZE],
                                     struct kms_hsm_key *ret_key, struct kms_error *err)
{
    struct kms_p11 *p11 = session->p11;
    struct kms_hsm_key key = {0, session->generation};
    if (atomic_load_explicit(&p11->lost, memory_order_relaxed))
        return KMS_HSM_UNAVAILABLE;
    if (cache_get(p11, id, ret_key))
        return KMS_OK;
    KMS_TRY(locate(session, id, &key.handle, err));
    KMS_TRY(test_found(session, key, err));
    cache_put(p11, id, key);
    *ret_key = key;
    return KMS_OK;
}

/* After a failure that was asked for. */
static void forget_error(struct kms_error *err)
{
    if (err != NULL)
        *err = (struct kms_error){0};
}

/* Labels are how master keys are told from the service's own keys. */
static enum kms_status check_label(const char *label, struct kms_error *err)
{
    if (strlen(label) > KMS_HSM_LABEL_MAX ||
        strncmp(label, KMS_P11_LABEL_PREFIX, strlen(KMS_P11_LABEL_PREFIX)) != 0 ||
        strcmp(label, KMS_P11_LABEL_INTEGRITY) == 0 || strcmp(label, KMS_P11_LABEL_ATTESTATION) == 0 ||
        strcmp(label, KMS_P11_LABEL_BACKUP) == 0)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "'%.80s' is no label for a master key", label);
    return KMS_OK;
}

enum kms_status kms_p11_masters_create(struct kms_hsm_session *session, const uint8_t id[KMS_HSM_KEY_ID_SIZE],
                                       const char *label, struct kms_hsm_key *ret_key, struct kms_error *err)
{
    struct kms_p11 *p11 = session->p11;
    KMS_TRY(check_label(label, err));
    struct kms_hsm_key key = {0, session->generation};
    KMS_TRY(kms_p11_usable(session, key));
    const enum kms_status present = locate(session, id, &key.handle, err);
    if (present == KMS_OK)
        return kms_fail(err, KMS_ALREADY_EXISTS, "a master key with this CKA_ID is in the token already");
    if (present != KMS_NOT_FOUND)
        return present;
    forget_error(err); /* "not found" is what was wanted */
    struct kms_p11_template template;
    struct kms_p11_template unwrap_template;
    kms_p11_token_keys_master(p11, id, label, &unwrap_template, &template);
    kms_p11_template_add(&template, CKA_VALUE_LEN, &aes_key_size, sizeof aes_key_size);
    CK_MECHANISM mechanism = {CKM_AES_KEY_GEN, NULL, 0};
    const CK_RV rv =
        p11->ck->C_GenerateKey(session->op, &mechanism, template.attributes, template.count, &key.handle);
    if (rv != CKR_OK)
        return kms_p11_session_failed(session, "C_GenerateKey", rv, err);
    const enum kms_status tested = kms_p11_keys_use_test(session, key, err);
    if (tested != KMS_OK) {
        if (p11->ck->C_DestroyObject(session->op, key.handle) != CKR_OK)
            kms_log_error("hsm", "the new master key '%s' does not work and could not be removed", label);
        return tested;
    }
    cache_put(p11, id, key);
    *ret_key = key;
    return KMS_OK;
}

enum kms_status kms_p11_masters_destroy(struct kms_hsm_session *session,
                                        const uint8_t id[KMS_HSM_KEY_ID_SIZE], struct kms_error *err)
{
    struct kms_p11 *p11 = session->p11;
    if (atomic_load_explicit(&p11->lost, memory_order_relaxed))
        return KMS_HSM_UNAVAILABLE;
    CK_OBJECT_HANDLE handle = 0;
    KMS_TRY(locate(session, id, &handle, err));
    struct kms_hsm_master_info info;
    KMS_TRY(kms_p11_objects_describe(session, handle, &info, err));
    KMS_TRY(check_label(info.label, err));
    cache_drop(p11, id);
    const CK_RV rv = p11->ck->C_DestroyObject(session->op, handle);
    if (rv != CKR_OK)
        return kms_p11_session_failed(session, "C_DestroyObject", rv, err);
    const enum kms_status after = locate(session, id, &handle, err);
    if (after == KMS_OK)
        return kms_fail(err, KMS_HSM_REFUSED,
                        "the master key '%s' is still in the token after its destruction", info.label);
    if (after != KMS_NOT_FOUND)
        return after;
    forget_error(err);
    return KMS_OK;
}

/* Describe the handles of one batch and keep those that are ours. */
static enum kms_status keep_ours(struct kms_hsm_session *session, const CK_OBJECT_HANDLE *handles,
                                 size_t count, struct kms_hsm_master_info *list, size_t *list_count,
                                 struct kms_error *err)
{
    for (size_t i = 0; i < count; i++) {
        struct kms_hsm_master_info info;
        const enum kms_status status = kms_p11_objects_describe(session, handles[i], &info, err);
        if (status == KMS_NOT_FOUND)
            continue; /* another process destroyed it meanwhile, or it is not of our making */
        KMS_TRY(status);
        if (strncmp(info.label, KMS_P11_LABEL_PREFIX, strlen(KMS_P11_LABEL_PREFIX)) == 0 &&
            strcmp(info.label, KMS_P11_LABEL_BACKUP) != 0)
            list[(*list_count)++] = info;
    }
    return KMS_OK;
}

enum kms_status kms_p11_masters_list(struct kms_hsm_session *session, struct kms_hsm_master_info **ret_list,
                                     size_t *ret_count, struct kms_error *err)
{
    if (atomic_load_explicit(&session->p11->lost, memory_order_relaxed))
        return KMS_HSM_UNAVAILABLE;
    struct kms_p11_template template;
    search_template(&template, NULL);
    KMS_FREE CK_OBJECT_HANDLE *handles = NULL;
    size_t count = 0;
    KMS_TRY(kms_p11_objects_find_all(session, &template, &handles, &count, err));
    KMS_FREE struct kms_hsm_master_info *list = calloc(count + 1, sizeof *list);
    if (list == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a list of %zu master keys", count);
    size_t list_count = 0;
    KMS_TRY(keep_ours(session, handles, count, list, &list_count, err));
    if (list_count == 0 && !kms_p11_session_device_works(session))
        return kms_fail(err, KMS_HSM_UNAVAILABLE, "the token's keys cannot be seen");
    *ret_list = KMS_TAKE(list);
    *ret_count = list_count;
    return KMS_OK;
}
