#include "hsm/ckr.h"

#include <stdio.h>

/* PKCS#11 v2.40 and what v3.0 added for authenticated decryption. */
#ifndef CKR_AEAD_DECRYPT_FAILED
#define CKR_AEAD_DECRYPT_FAILED 0x42UL
#endif

#define CKR_TABLE(X)                                                                                         \
    X(OK)                                                                                                    \
    X(CANCEL)                                                                                                \
    X(HOST_MEMORY)                                                                                           \
    X(SLOT_ID_INVALID)                                                                                       \
    X(GENERAL_ERROR)                                                                                         \
    X(FUNCTION_FAILED)                                                                                       \
    X(ARGUMENTS_BAD)                                                                                         \
    X(NEED_TO_CREATE_THREADS)                                                                                \
    X(CANT_LOCK)                                                                                             \
    X(ATTRIBUTE_READ_ONLY)                                                                                   \
    X(ATTRIBUTE_SENSITIVE)                                                                                   \
    X(ATTRIBUTE_TYPE_INVALID)                                                                                \
    X(ATTRIBUTE_VALUE_INVALID)                                                                               \
    X(ACTION_PROHIBITED)                                                                                     \
    X(DATA_INVALID)                                                                                          \
    X(DATA_LEN_RANGE)                                                                                        \
    X(DEVICE_ERROR)                                                                                          \
    X(DEVICE_MEMORY)                                                                                         \
    X(DEVICE_REMOVED)                                                                                        \
    X(ENCRYPTED_DATA_INVALID)                                                                                \
    X(ENCRYPTED_DATA_LEN_RANGE)                                                                              \
    X(AEAD_DECRYPT_FAILED)                                                                                   \
    X(FUNCTION_CANCELED)                                                                                     \
    X(FUNCTION_NOT_PARALLEL)                                                                                 \
    X(FUNCTION_NOT_SUPPORTED)                                                                                \
    X(KEY_HANDLE_INVALID)                                                                                    \
    X(KEY_SIZE_RANGE)                                                                                        \
    X(KEY_TYPE_INCONSISTENT)                                                                                 \
    X(KEY_NOT_NEEDED)                                                                                        \
    X(KEY_CHANGED)                                                                                           \
    X(KEY_NEEDED)                                                                                            \
    X(KEY_INDIGESTIBLE)                                                                                      \
    X(KEY_FUNCTION_NOT_PERMITTED)                                                                            \
    X(KEY_NOT_WRAPPABLE)                                                                                     \
    X(KEY_UNEXTRACTABLE)                                                                                     \
    X(MECHANISM_INVALID)                                                                                     \
    X(MECHANISM_PARAM_INVALID)                                                                               \
    X(OBJECT_HANDLE_INVALID)                                                                                 \
    X(OPERATION_ACTIVE)                                                                                      \
    X(OPERATION_NOT_INITIALIZED)                                                                             \
    X(PIN_INCORRECT)                                                                                         \
    X(PIN_INVALID)                                                                                           \
    X(PIN_LEN_RANGE)                                                                                         \
    X(PIN_EXPIRED)                                                                                           \
    X(PIN_LOCKED)                                                                                            \
    X(SESSION_CLOSED)                                                                                        \
    X(SESSION_COUNT)                                                                                         \
    X(SESSION_HANDLE_INVALID)                                                                                \
    X(SESSION_PARALLEL_NOT_SUPPORTED)                                                                        \
    X(SESSION_READ_ONLY)                                                                                     \
    X(SESSION_EXISTS)                                                                                        \
    X(SESSION_READ_ONLY_EXISTS)                                                                              \
    X(SESSION_READ_WRITE_SO_EXISTS)                                                                          \
    X(SIGNATURE_INVALID)                                                                                     \
    X(SIGNATURE_LEN_RANGE)                                                                                   \
    X(TEMPLATE_INCOMPLETE)                                                                                   \
    X(TEMPLATE_INCONSISTENT)                                                                                 \
    X(TOKEN_NOT_PRESENT)                                                                                     \
    X(TOKEN_NOT_RECOGNIZED)                                                                                  \
    X(TOKEN_WRITE_PROTECTED)                                                                                 \
    X(UNWRAPPING_KEY_HANDLE_INVALID)                                                                         \
    X(UNWRAPPING_KEY_SIZE_RANGE)                                                                             \
    X(UNWRAPPING_KEY_TYPE_INCONSISTENT)                                                                      \
    X(USER_ALREADY_LOGGED_IN)                                                                                \
    X(USER_NOT_LOGGED_IN)                                                                                    \
    X(USER_PIN_NOT_INITIALIZED)                                                                              \
    X(USER_TYPE_INVALID)                                                                                     \
    X(USER_ANOTHER_ALREADY_LOGGED_IN)                                                                        \
    X(USER_TOO_MANY_TYPES)                                                                                   \
    X(WRAPPED_KEY_INVALID)                                                                                   \
    X(WRAPPED_KEY_LEN_RANGE)                                                                                 \
    X(WRAPPING_KEY_HANDLE_INVALID)                                                                           \
    X(WRAPPING_KEY_SIZE_RANGE)                                                                               \
    X(WRAPPING_KEY_TYPE_INCONSISTENT)                                                                        \
    X(RANDOM_NO_RNG)                                                                                         \
    X(DOMAIN_PARAMS_INVALID)                                                                                 \
    X(CURVE_NOT_SUPPORTED)                                                                                   \
    X(BUFFER_TOO_SMALL)                                                                                      \
    X(CRYPTOKI_NOT_INITIALIZED)                                                                              \
    X(CRYPTOKI_ALREADY_INITIALIZED)                                                                          \
    X(MUTEX_BAD)                                                                                             \
    X(MUTEX_NOT_LOCKED)                                                                                      \
    X(FUNCTION_REJECTED)

const char *kms_ckr_name(CK_RV rv, char buffer[KMS_CKR_TEXT_SIZE])
{
    switch (rv) {
#define CKR_CASE(name)                                                                                       \
    case CKR_##name:                                                                                         \
        return "CKR_" #name;
        CKR_TABLE(CKR_CASE)
#undef CKR_CASE
    default:
        (void)snprintf(buffer, KMS_CKR_TEXT_SIZE, "CKR 0x%lx", (unsigned long)rv);
        return buffer;
    }
}

bool kms_ckr_is_loss(CK_RV rv)
{
    return rv == CKR_DEVICE_ERROR || rv == CKR_DEVICE_REMOVED || rv == CKR_TOKEN_NOT_PRESENT ||
           rv == CKR_SESSION_HANDLE_INVALID || rv == CKR_SESSION_CLOSED || rv == CKR_USER_NOT_LOGGED_IN ||
           rv == CKR_CRYPTOKI_NOT_INITIALIZED;
}

bool kms_ckr_is_bad_handle(CK_RV rv)
{
    return rv == CKR_KEY_HANDLE_INVALID || rv == CKR_OBJECT_HANDLE_INVALID ||
           rv == CKR_WRAPPING_KEY_HANDLE_INVALID || rv == CKR_UNWRAPPING_KEY_HANDLE_INVALID;
}

bool kms_ckr_is_no_room(CK_RV rv)
{
    return rv == CKR_DEVICE_MEMORY;
}

bool kms_ckr_is_refused_data(CK_RV rv)
{
    return rv == CKR_ENCRYPTED_DATA_INVALID || rv == CKR_ENCRYPTED_DATA_LEN_RANGE ||
           rv == CKR_WRAPPED_KEY_INVALID || rv == CKR_WRAPPED_KEY_LEN_RANGE || rv == CKR_AEAD_DECRYPT_FAILED;
}

bool kms_ckr_is_ambiguous(CK_RV rv)
{
    return rv == CKR_GENERAL_ERROR || rv == CKR_FUNCTION_FAILED || rv == CKR_DATA_INVALID ||
           rv == CKR_DATA_LEN_RANGE;
}
