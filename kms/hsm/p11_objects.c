#include "hsm/p11_objects.h"

#include "core/cleanup.h"
#include "core/log.h"
#include "hsm/p11_session.h"

#include <stdlib.h>

enum { FIND_BATCH = 256, OBJECTS_LIMIT = 1000000 };

/* Where a search puts what it finds: a fixed array, or one that grows when `limit` is larger. */
struct found {
    CK_OBJECT_HANDLE *handles;
    size_t count;
    size_t capacity;
    size_t limit;
};

/* Room for the next batch, at most up to the limit. */
static enum kms_status grow(struct found *found, struct kms_error *err)
{
    if (found->count < found->capacity)
        return KMS_OK;
    if (found->capacity >= found->limit)
        return kms_fail(err, KMS_RESOURCE_EXHAUSTED, "more than %zu objects match in the token",
                        found->limit);
    const size_t capacity = found->capacity + FIND_BATCH;
    CK_OBJECT_HANDLE *larger = reallocarray(found->handles, capacity, sizeof *larger);
    if (larger == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for %zu object handles", capacity);
    found->handles = larger;
    found->capacity = capacity;
    return KMS_OK;
}

/* The body of a search, between its Init and its Final. */
static enum kms_status collect(struct kms_hsm_session *session, struct found *found, struct kms_error *err)
{
    for (;;) {
        KMS_TRY(grow(found, err));
        CK_ULONG got = 0;
        const CK_RV rv = session->p11->ck->C_FindObjects(session->op, found->handles + found->count,
                                                         found->capacity - found->count, &got);
        if (rv != CKR_OK)
            return kms_p11_session_failed(session, "C_FindObjects", rv, err);
        found->count += got;
        if (got == 0 || (found->capacity == found->limit && found->count == found->limit))
            return KMS_OK;
    }
}

/* Init, search, and Final whatever happened in between. */
static enum kms_status search(struct kms_hsm_session *session, struct kms_p11_template *template,
                              struct found *found, struct kms_error *err)
{
    CK_FUNCTION_LIST *ck = session->p11->ck;
    CK_RV rv = ck->C_FindObjectsInit(session->op, template->attributes, template->count);
    if (rv != CKR_OK)
        return kms_p11_session_failed(session, "C_FindObjectsInit", rv, err);
    const enum kms_status status = collect(session, found, err);
    rv = ck->C_FindObjectsFinal(session->op);
    if (rv != CKR_OK)
        session->broken = true; /* the search may still be open */
    if (status == KMS_OK && kms_ckr_is_loss(rv))
        return kms_p11_session_failed(session, "C_FindObjectsFinal", rv, err);
    return status;
}

enum kms_status kms_p11_objects_find(struct kms_hsm_session *session, struct kms_p11_template *template,
                                     CK_OBJECT_HANDLE *ret_handles, size_t maximum, size_t *ret_count,
                                     struct kms_error *err)
{
    struct found found = {ret_handles, 0, maximum, maximum};
    KMS_TRY(search(session, template, &found, err));
    *ret_count = found.count;
    return KMS_OK;
}

enum kms_status kms_p11_objects_find_all(struct kms_hsm_session *session, struct kms_p11_template *template,
                                         CK_OBJECT_HANDLE **ret_handles, size_t *ret_count,
                                         struct kms_error *err)
{
    struct found found = {.limit = OBJECTS_LIMIT};
    const enum kms_status status = search(session, template, &found, err);
    if (status != KMS_OK) {
        free(found.handles);
        return status;
    }
    *ret_handles = found.handles;
    *ret_count = found.count;
    return KMS_OK;
}

enum kms_status kms_p11_objects_describe(struct kms_hsm_session *session, CK_OBJECT_HANDLE handle,
                                         struct kms_hsm_master_info *ret_info, struct kms_error *err)
{
    struct kms_hsm_master_info info = {0};
    CK_ATTRIBUTE attributes[] = {{CKA_ID, info.id, sizeof info.id},
                                 {CKA_LABEL, info.label, KMS_HSM_LABEL_MAX}};
    const CK_RV rv = session->p11->ck->C_GetAttributeValue(session->op, handle, attributes, 2);
    if (kms_ckr_is_bad_handle(rv) || rv == CKR_BUFFER_TOO_SMALL || rv == CKR_ATTRIBUTE_TYPE_INVALID)
        return kms_fail(err, KMS_NOT_FOUND, "the object is gone or not a key of this service");
    if (rv != CKR_OK)
        return kms_p11_session_failed(session, "C_GetAttributeValue", rv, err);
    const bool has_id = attributes[0].ulValueLen == sizeof info.id;
    if (!has_id && strncmp(info.label, KMS_P11_LABEL_PREFIX, strlen(KMS_P11_LABEL_PREFIX)) == 0)
        kms_log_error("hsm",
                      "the key '%s' in the token has no id: a torn object; it is left alone, an operator "
                      "must look at it",
                      info.label);
    if (!has_id || attributes[1].ulValueLen > KMS_HSM_LABEL_MAX)
        return kms_fail(err, KMS_NOT_FOUND, "the object is not a key of this service");
    *ret_info = info;
    return KMS_OK;
}

/* A boolean attribute; one that the token does not know is false. */
static enum kms_status read_flag(struct kms_hsm_session *session, CK_OBJECT_HANDLE handle,
                                 CK_ATTRIBUTE_TYPE type, bool *ret_flag, struct kms_error *err)
{
    CK_BBOOL value = CK_FALSE;
    CK_ATTRIBUTE attribute = {type, &value, sizeof value};
    const CK_RV rv = session->p11->ck->C_GetAttributeValue(session->op, handle, &attribute, 1);
    if (rv != CKR_OK && rv != CKR_ATTRIBUTE_TYPE_INVALID)
        return kms_p11_session_failed(session, "C_GetAttributeValue", rv, err);
    *ret_flag = rv == CKR_OK && attribute.ulValueLen == sizeof value && value == CK_TRUE;
    return KMS_OK;
}

enum kms_status kms_p11_objects_leaving(struct kms_hsm_session *session, CK_OBJECT_HANDLE handle,
                                        struct kms_p11_leaving *ret_leaving, struct kms_error *err)
{
    struct kms_p11_leaving leaving = {0};
    KMS_TRY(read_flag(session, handle, CKA_EXTRACTABLE, &leaving.extractable, err));
    KMS_TRY(read_flag(session, handle, CKA_WRAP_WITH_TRUSTED, &leaving.trusted_only, err));
    *ret_leaving = leaving;
    return KMS_OK;
}
