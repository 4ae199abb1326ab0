#include "hsm/p11_markers.h"

#include "core/ids.h"
#include "hsm/p11_masters.h"
#include "hsm/p11_objects.h"
#include "hsm/p11_session.h"
#include "hsm/p11_template.h"

#include <string.h>

enum { SEEN_AT_ONCE = 8 };

static const CK_OBJECT_CLASS data_class = CKO_DATA;
static const char application[] = "kms";

/* A token that keeps no data objects keeps keys: one that nobody uses says the same. */
static bool has_no_data_objects(CK_RV rv)
{
    return rv == CKR_ATTRIBUTE_VALUE_INVALID || rv == CKR_TEMPLATE_INCONSISTENT ||
           rv == CKR_ATTRIBUTE_TYPE_INVALID || rv == CKR_FUNCTION_NOT_SUPPORTED ||
           rv == CKR_TEMPLATE_INCOMPLETE;
}

static enum kms_status make(struct kms_hsm_session *session, const char *label, struct kms_error *err)
{
    struct kms_p11_template template = {0};
    CK_OBJECT_HANDLE handle = 0;
    kms_p11_template_add(&template, CKA_CLASS, &data_class, sizeof data_class);
    kms_p11_template_flag(&template, CKA_TOKEN, true);
    kms_p11_template_flag(&template, CKA_PRIVATE, true);
    kms_p11_template_flag(&template, CKA_MODIFIABLE, false);
    kms_p11_template_add(&template, CKA_APPLICATION, application, sizeof application - 1);
    kms_p11_template_add(&template, CKA_LABEL, label, strlen(label));
    kms_p11_template_add(&template, CKA_VALUE, label, strlen(label));
    const CK_RV rv =
        session->p11->ck->C_CreateObject(session->op, template.attributes, template.count, &handle);
    if (rv == CKR_OK)
        return KMS_OK;
    if (!has_no_data_objects(rv))
        return kms_p11_session_failed(session, "C_CreateObject", rv, err);
    uint8_t id[KMS_HSM_KEY_ID_SIZE];
    struct kms_hsm_key key;
    kms_system_random(id, sizeof id);
    return kms_p11_masters_create(session, id, label, &key, err);
}

/* Objects of any class with that label. */
static enum kms_status search(struct kms_hsm_session *session, const char *label, CK_OBJECT_HANDLE *handles,
                              size_t *ret_count, struct kms_error *err)
{
    struct kms_p11_template template = {0};
    if (atomic_load_explicit(&session->p11->lost, memory_order_relaxed))
        return kms_fail(err, KMS_HSM_UNAVAILABLE, "the HSM connection is lost");
    kms_p11_template_flag(&template, CKA_TOKEN, true);
    kms_p11_template_add(&template, CKA_LABEL, label, strlen(label));
    KMS_TRY(kms_p11_objects_find(session, &template, handles, SEEN_AT_ONCE, ret_count, err));
    if (*ret_count == 0 &&
        !kms_p11_session_device_works(session)) /* a token that vanished finds nothing either */
        return kms_fail(err, KMS_HSM_UNAVAILABLE, "the token's objects cannot be seen");
    return KMS_OK;
}

enum kms_status kms_p11_markers_find(struct kms_hsm_session *session, const char *label, bool *ret_found,
                                     struct kms_error *err)
{
    CK_OBJECT_HANDLE handles[SEEN_AT_ONCE];
    size_t count = 0;
    KMS_TRY(search(session, label, handles, &count, err));
    *ret_found = count > 0;
    return KMS_OK;
}

enum kms_status kms_p11_markers_put(struct kms_hsm_session *session, const char *label, struct kms_error *err)
{
    bool found = false;
    KMS_TRY(kms_p11_markers_find(session, label, &found, err));
    return found ? KMS_OK : make(session, label, err);
}

enum kms_status kms_p11_markers_remove(struct kms_hsm_session *session, const char *label,
                                       struct kms_error *err)
{
    CK_OBJECT_HANDLE handles[SEEN_AT_ONCE];
    size_t count = 0;
    do {
        KMS_TRY(search(session, label, handles, &count, err));
        for (size_t i = 0; i < count; i++) {
            const CK_RV rv = session->p11->ck->C_DestroyObject(session->op, handles[i]);
            if (rv != CKR_OK)
                return kms_p11_session_failed(session, "C_DestroyObject", rv, err);
        }
    } while (count == SEEN_AT_ONCE);
    return KMS_OK;
}
