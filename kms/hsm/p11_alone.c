#include "hsm/p11_alone.h"

#include "core/cleanup.h"
#include "core/status.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum {
    ALONE = -1,
    LOOKS = 2000,    /* some 20 us: longer than most calls of one that is alone */
    NAP_NS = 200000, /* then the processor is better used otherwise */
    NAPS_MAX = 10000 /* two or three seconds; counted, because a process that was stopped has not waited */
};

static CK_FUNCTION_LIST *module;
static atomic_int inside;        /* ALONE, or how many in company */
static atomic_uint waiting;      /* to enter in company */
static _Thread_local bool alone; /* this thread is */

/* Not while somebody is alone. */
static bool try_company(void)
{
    int now = atomic_load(&inside);
    while (now != ALONE) {
        if (atomic_compare_exchange_weak(&inside, &now, now + 1))
            return true;
    }
    return false;
}

/* As long as it takes, unless the one that is alone hangs. */
static bool wait_for_company(void)
{
    for (int i = 0; i < LOOKS; i++) {
        if (try_company())
            return true;
    }
    for (int i = 0; i < NAPS_MAX; i++) {
        if (try_company())
            return true;
        (void)nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
    }
    return false;
}

bool kms_p11_alone_enter(void)
{
    KMS_ASSERT(!alone);
    if (try_company())
        return true;
    atomic_fetch_add(&waiting, 1);
    const bool entered = wait_for_company();
    atomic_fetch_sub(&waiting, 1);
    return entered;
}

void kms_p11_alone_leave(void)
{
    if (alone) {
        alone = false;
        atomic_store_explicit(&inside, 0, memory_order_release);
    } else {
        atomic_fetch_sub(&inside, 1);
    }
}

/* Alone when nobody is there or wants to be. */
static bool enter_short(void)
{
    int nobody = 0;
    KMS_ASSERT(!alone);
    if (atomic_load_explicit(&waiting, memory_order_relaxed) == 0 &&
        atomic_compare_exchange_strong_explicit(&inside, &nobody, ALONE, memory_order_acquire,
                                                memory_order_relaxed)) {
        alone = true;
        return true;
    }
    return kms_p11_alone_enter();
}

/* The mutexes that the module gets. */
static CK_RV create_mutex(CK_VOID_PTR_PTR ret_mutex)
{
    pthread_mutex_t *mutex = malloc(sizeof(pthread_mutex_t));
    if (mutex == NULL || pthread_mutex_init(mutex, NULL) != 0) {
        free(mutex);
        return CKR_HOST_MEMORY;
    }
    *ret_mutex = mutex;
    return CKR_OK;
}

static CK_RV destroy_mutex(CK_VOID_PTR mutex)
{
    (void)pthread_mutex_destroy(mutex);
    free(mutex);
    return CKR_OK;
}

static CK_RV lock_mutex(CK_VOID_PTR mutex)
{
    return alone || pthread_mutex_lock(mutex) == 0 ? CKR_OK : CKR_MUTEX_BAD;
}

static CK_RV unlock_mutex(CK_VOID_PTR mutex)
{
    return alone || pthread_mutex_unlock(mutex) == 0 ? CKR_OK : CKR_MUTEX_NOT_LOCKED;
}

CK_RV kms_p11_alone_initialize(void)
{
    CK_C_INITIALIZE_ARGS arguments = {.CreateMutex = create_mutex,
                                      .DestroyMutex = destroy_mutex,
                                      .LockMutex = lock_mutex,
                                      .UnlockMutex = unlock_mutex};
    if (!kms_p11_alone_enter())
        return CKR_DEVICE_ERROR;
    const CK_RV rv = module->C_Initialize(&arguments);
    kms_p11_alone_leave();
    return rv == CKR_CRYPTOKI_ALREADY_INITIALIZED ? CKR_OK : rv;
}

/* One function of the list: enter, call, leave. */
#define CALL(entered, function, arguments)                                                                   \
    {                                                                                                        \
        if (!(entered))                                                                                      \
            return CKR_DEVICE_ERROR;                                                                         \
        const CK_RV rv = module->function arguments;                                                         \
        kms_p11_alone_leave();                                                                               \
        return rv;                                                                                           \
    }
#define SHORT(function, parameters, arguments)                                                               \
    static CK_RV guarded_##function parameters CALL(enter_short(), function, arguments)
#define LONG(function, parameters, arguments)                                                                \
    static CK_RV guarded_##function parameters CALL(kms_p11_alone_enter(), function, arguments)

SHORT(C_EncryptInit, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key),
      (session, mechanism, key))
SHORT(C_Encrypt,
      (CK_SESSION_HANDLE session, CK_BYTE_PTR in, CK_ULONG in_len, CK_BYTE_PTR out, CK_ULONG_PTR out_len),
      (session, in, in_len, out, out_len))
SHORT(C_DecryptInit, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key),
      (session, mechanism, key))
SHORT(C_Decrypt,
      (CK_SESSION_HANDLE session, CK_BYTE_PTR in, CK_ULONG in_len, CK_BYTE_PTR out, CK_ULONG_PTR out_len),
      (session, in, in_len, out, out_len))
SHORT(C_SignInit, (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key),
      (session, mechanism, key))
SHORT(C_Sign,
      (CK_SESSION_HANDLE session, CK_BYTE_PTR in, CK_ULONG in_len, CK_BYTE_PTR out, CK_ULONG_PTR out_len),
      (session, in, in_len, out, out_len))
SHORT(C_GenerateRandom, (CK_SESSION_HANDLE session, CK_BYTE_PTR out, CK_ULONG len), (session, out, len))
SHORT(C_WrapKey,
      (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE wrapping, CK_OBJECT_HANDLE key,
       CK_BYTE_PTR out, CK_ULONG_PTR out_len),
      (session, mechanism, wrapping, key, out, out_len))
SHORT(C_DestroyObject, (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object), (session, object))

/* Objects in the token are files: making one takes milliseconds. */
static bool is_session_object(const CK_ATTRIBUTE *attributes, CK_ULONG count)
{
    for (CK_ULONG i = 0; i < count; i++) {
        if (attributes[i].type == CKA_TOKEN)
            return attributes[i].ulValueLen == sizeof(CK_BBOOL) &&
                   *(const CK_BBOOL *)attributes[i].pValue == CK_FALSE;
    }
    return true;
}

/* For a call that makes an object. */
static bool enter_to_make(const CK_ATTRIBUTE *attributes, CK_ULONG count)
{
    return is_session_object(attributes, count) ? enter_short() : kms_p11_alone_enter();
}

static CK_RV guarded_C_UnwrapKey(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key,
                                 CK_BYTE_PTR in, CK_ULONG in_len, CK_ATTRIBUTE_PTR attributes, CK_ULONG count,
                                 CK_OBJECT_HANDLE_PTR ret_key)
    CALL(enter_to_make(attributes, count), C_UnwrapKey,
         (session, mechanism, key, in, in_len, attributes, count, ret_key))

        static CK_RV
    guarded_C_GenerateKey(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_ATTRIBUTE_PTR attributes,
                          CK_ULONG count,
                          CK_OBJECT_HANDLE_PTR ret_key) CALL(enter_to_make(attributes, count), C_GenerateKey,
                                                             (session, mechanism, attributes, count, ret_key))

        LONG(C_CreateObject,
             (CK_SESSION_HANDLE session, CK_ATTRIBUTE_PTR attributes, CK_ULONG count,
              CK_OBJECT_HANDLE_PTR ret_object),
             (session, attributes, count, ret_object))
            LONG(C_GenerateKeyPair,
                 (CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_ATTRIBUTE_PTR public_attributes,
                  CK_ULONG public_count, CK_ATTRIBUTE_PTR private_attributes, CK_ULONG private_count,
                  CK_OBJECT_HANDLE_PTR ret_public, CK_OBJECT_HANDLE_PTR ret_private),
                 (session, mechanism, public_attributes, public_count, private_attributes, private_count,
                  ret_public, ret_private)) LONG(C_Finalize, (CK_VOID_PTR reserved), (reserved))
                LONG(C_OpenSession,
                     (CK_SLOT_ID slot, CK_FLAGS flags, CK_VOID_PTR context, CK_NOTIFY notify,
                      CK_SESSION_HANDLE_PTR ret_session),
                     (slot, flags, context, notify, ret_session)) LONG(C_CloseSession,
                                                                       (CK_SESSION_HANDLE session), (session))
                    LONG(C_GetSessionInfo, (CK_SESSION_HANDLE session, CK_SESSION_INFO_PTR ret_info),
                         (session, ret_info)) LONG(C_GetTokenInfo,
                                                   (CK_SLOT_ID slot, CK_TOKEN_INFO_PTR ret_info),
                                                   (slot, ret_info))
                        LONG(C_Login,
                             (CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR_PTR pin,
                              CK_ULONG len),
                             (session, user, pin, len)) LONG(C_Logout, (CK_SESSION_HANDLE session), (session))
                            LONG(C_FindObjectsInit,
                                 (CK_SESSION_HANDLE session, CK_ATTRIBUTE_PTR attributes, CK_ULONG count),
                                 (session, attributes, count))
                                LONG(C_FindObjects,
                                     (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE_PTR ret_objects,
                                      CK_ULONG maximum, CK_ULONG_PTR ret_count),
                                     (session, ret_objects, maximum, ret_count))
                                    LONG(C_FindObjectsFinal, (CK_SESSION_HANDLE session), (session))
                                        LONG(C_GetAttributeValue,
                                             (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object,
                                              CK_ATTRIBUTE_PTR attributes, CK_ULONG count),
                                             (session, object, attributes, count))

#define GUARDED(function) .function = guarded_##function
                                            CK_FUNCTION_LIST *kms_p11_alone_guard(CK_FUNCTION_LIST *functions)
{
    static CK_FUNCTION_LIST guarded = {
        GUARDED(C_Finalize),
        GUARDED(C_GetTokenInfo),
        GUARDED(C_OpenSession),
        GUARDED(C_CloseSession),
        GUARDED(C_GetSessionInfo),
        GUARDED(C_Login),
        GUARDED(C_Logout),
        GUARDED(C_CreateObject),
        GUARDED(C_DestroyObject),
        GUARDED(C_GetAttributeValue),
        GUARDED(C_FindObjectsInit),
        GUARDED(C_FindObjects),
        GUARDED(C_FindObjectsFinal),
        GUARDED(C_EncryptInit),
        GUARDED(C_Encrypt),
        GUARDED(C_DecryptInit),
        GUARDED(C_Decrypt),
        GUARDED(C_SignInit),
        GUARDED(C_Sign),
        GUARDED(C_GenerateKey),
        GUARDED(C_GenerateKeyPair),
        GUARDED(C_WrapKey),
        GUARDED(C_UnwrapKey),
        GUARDED(C_GenerateRandom),
    };
    module = functions;
    return &guarded;
}
