#include "faultp11.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS_MAX = 64 };

static CK_FUNCTION_LIST *real;
static CK_FUNCTION_LIST faulty;
static char control[4096];

/* What the rules want done to the token itself, before a call. */
static void disturb(const struct fault_verdict *verdict)
{
    CK_SLOT_ID slots[SLOTS_MAX];
    CK_ULONG count = SLOTS_MAX;
    if ((!verdict->drop_sessions && !verdict->logout) ||
        real->C_GetSlotList(CK_TRUE, slots, &count) != CKR_OK)
        return;
    for (CK_ULONG i = 0; i < count; i++) {
        CK_SESSION_HANDLE session = 0;
        if (verdict->drop_sessions)
            (void)real->C_CloseAllSessions(slots[i]);
        else if (real->C_OpenSession(slots[i], CKF_SERIAL_SESSION, NULL, NULL, &session) == CKR_OK) {
            (void)real->C_Logout(session);
            (void)real->C_CloseSession(session);
        }
    }
}

/* All that every wrapper does before it passes its call on; `absent` is the answer of a pulled token. */
static CK_RV before(const char *function, CK_RV absent)
{
    const struct fault_verdict verdict = fault_decide(control, function);
    if (verdict.rv != CKR_OK)
        return verdict.rv;
    disturb(&verdict);
    return verdict.vanished ? absent : CKR_OK;
}

#define WRAP(name, absent, parameters, arguments)                                                            \
    static CK_RV fault_##name parameters                                                                     \
    {                                                                                                        \
        const CK_RV rv = before(#name, absent);                                                              \
        return rv != CKR_OK ? rv : real->name arguments;                                                     \
    }

/* name, answer of a pulled token, parameters, arguments; those that need more are written out below */
#define PASSED_ON(X)                                                                                         \
    X(C_Initialize, CKR_OK, (void *args), (args))                                                            \
    X(C_Finalize, CKR_OK, (void *reserved_), (reserved_))                                                    \
    X(C_GetInfo, CKR_OK, (CK_INFO * info), (info))                                                           \
    X(C_GetSlotList, CKR_OK, (CK_BBOOL present, CK_SLOT_ID * list, CK_ULONG * count),                        \
      (present, list, count))                                                                                \
    X(C_GetMechanismInfo, CKR_TOKEN_NOT_PRESENT,                                                             \
      (CK_SLOT_ID slot, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO * info), (slot, type, info))               \
    X(C_OpenSession, CKR_TOKEN_NOT_PRESENT,                                                                  \
      (CK_SLOT_ID slot, CK_FLAGS flags, void *application, CK_NOTIFY callback, CK_SESSION_HANDLE *session),  \
      (slot, flags, application, callback, session))                                                         \
    X(C_CloseSession, CKR_DEVICE_REMOVED, (CK_SESSION_HANDLE session), (session))                            \
    X(C_CloseAllSessions, CKR_TOKEN_NOT_PRESENT, (CK_SLOT_ID slot), (slot))                                  \
    X(C_GetSessionInfo, CKR_DEVICE_REMOVED, (CK_SESSION_HANDLE session, CK_SESSION_INFO * info),             \
      (session, info))                                                                                       \
    X(C_Login, CKR_DEVICE_REMOVED,                                                                           \
      (CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR * pin, CK_ULONG len),                       \
      (session, user, pin, len))                                                                             \
    X(C_Logout, CKR_DEVICE_REMOVED, (CK_SESSION_HANDLE session), (session))                                  \
    X(C_CreateObject, CKR_DEVICE_REMOVED,                                                                    \
      (CK_SESSION_HANDLE session, CK_ATTRIBUTE * list, CK_ULONG count, CK_OBJECT_HANDLE * object),           \
      (session, list, count, object))                                                                        \
    X(C_DestroyObject, CKR_DEVICE_REMOVED, (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object),             \
      (session, object))                                                                                     \
    X(C_GetAttributeValue, CKR_DEVICE_REMOVED,                                                               \
      (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE * list, CK_ULONG count),             \
      (session, object, list, count))                                                                        \
    X(C_SetAttributeValue, CKR_DEVICE_REMOVED,                                                               \
      (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE * list, CK_ULONG count),             \
      (session, object, list, count))                                                                        \
    X(C_FindObjectsInit, CKR_DEVICE_REMOVED,                                                                 \
      (CK_SESSION_HANDLE session, CK_ATTRIBUTE * list, CK_ULONG count), (session, list, count))              \
    X(C_FindObjects, CKR_DEVICE_REMOVED,                                                                     \
      (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE * list, CK_ULONG maximum, CK_ULONG * count),              \
      (session, list, maximum, count))                                                                       \
    X(C_FindObjectsFinal, CKR_DEVICE_REMOVED, (CK_SESSION_HANDLE session), (session))                        \
    X(C_EncryptInit, CKR_DEVICE_REMOVED,                                                                     \
      (CK_SESSION_HANDLE session, CK_MECHANISM * mechanism, CK_OBJECT_HANDLE key),                           \
      (session, mechanism, key))                                                                             \
    X(C_Encrypt, CKR_DEVICE_REMOVED,                                                                         \
      (CK_SESSION_HANDLE session, CK_BYTE * in, CK_ULONG in_len, CK_BYTE * out, CK_ULONG * out_len),         \
      (session, in, in_len, out, out_len))                                                                   \
    X(C_DecryptInit, CKR_DEVICE_REMOVED,                                                                     \
      (CK_SESSION_HANDLE session, CK_MECHANISM * mechanism, CK_OBJECT_HANDLE key),                           \
      (session, mechanism, key))                                                                             \
    X(C_Decrypt, CKR_DEVICE_REMOVED,                                                                         \
      (CK_SESSION_HANDLE session, CK_BYTE * in, CK_ULONG in_len, CK_BYTE * out, CK_ULONG * out_len),         \
      (session, in, in_len, out, out_len))                                                                   \
    X(C_SignInit, CKR_DEVICE_REMOVED,                                                                        \
      (CK_SESSION_HANDLE session, CK_MECHANISM * mechanism, CK_OBJECT_HANDLE key),                           \
      (session, mechanism, key))                                                                             \
    X(C_Sign, CKR_DEVICE_REMOVED,                                                                            \
      (CK_SESSION_HANDLE session, CK_BYTE * in, CK_ULONG in_len, CK_BYTE * out, CK_ULONG * out_len),         \
      (session, in, in_len, out, out_len))                                                                   \
    X(C_GenerateKey, CKR_DEVICE_REMOVED,                                                                     \
      (CK_SESSION_HANDLE session, CK_MECHANISM * mechanism, CK_ATTRIBUTE * list, CK_ULONG count,             \
       CK_OBJECT_HANDLE * key),                                                                              \
      (session, mechanism, list, count, key))                                                                \
    X(C_GenerateKeyPair, CKR_DEVICE_REMOVED,                                                                 \
      (CK_SESSION_HANDLE session, CK_MECHANISM * mechanism, CK_ATTRIBUTE * public, CK_ULONG public_count,    \
       CK_ATTRIBUTE * private, CK_ULONG private_count, CK_OBJECT_HANDLE * public_key,                        \
       CK_OBJECT_HANDLE * private_key),                                                                      \
      (session, mechanism, public, public_count, private, private_count, public_key, private_key))           \
    X(C_WrapKey, CKR_DEVICE_REMOVED,                                                                         \
      (CK_SESSION_HANDLE session, CK_MECHANISM * mechanism, CK_OBJECT_HANDLE wrapping, CK_OBJECT_HANDLE key, \
       CK_BYTE * out, CK_ULONG * out_len),                                                                   \
      (session, mechanism, wrapping, key, out, out_len))                                                     \
    X(C_UnwrapKey, CKR_DEVICE_REMOVED,                                                                       \
      (CK_SESSION_HANDLE session, CK_MECHANISM * mechanism, CK_OBJECT_HANDLE unwrapping, CK_BYTE * in,       \
       CK_ULONG in_len, CK_ATTRIBUTE * list, CK_ULONG count, CK_OBJECT_HANDLE * key),                        \
      (session, mechanism, unwrapping, in, in_len, list, count, key))                                        \
    X(C_GenerateRandom, CKR_DEVICE_REMOVED, (CK_SESSION_HANDLE session, CK_BYTE * out, CK_ULONG len),        \
      (session, out, len))

PASSED_ON(WRAP)

/* A pulled token leaves an empty slot. */
static CK_RV fault_C_GetSlotInfo(CK_SLOT_ID slot, CK_SLOT_INFO *info)
{
    const struct fault_verdict verdict = fault_decide(control, "C_GetSlotInfo");
    if (verdict.rv != CKR_OK)
        return verdict.rv;
    disturb(&verdict);
    const CK_RV rv = real->C_GetSlotInfo(slot, info);
    if (rv == CKR_OK && verdict.vanished)
        info->flags &= ~(CK_FLAGS)CKF_TOKEN_PRESENT;
    return rv;
}

/* The flags can be made to say what is hard to bring about. */
static CK_RV fault_C_GetTokenInfo(CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
    const struct fault_verdict verdict = fault_decide(control, "C_GetTokenInfo");
    if (verdict.rv != CKR_OK)
        return verdict.rv;
    disturb(&verdict);
    if (verdict.vanished)
        return CKR_TOKEN_NOT_PRESENT;
    const CK_RV rv = real->C_GetTokenInfo(slot, info);
    if (rv == CKR_OK)
        info->flags |= verdict.flags;
    return rv;
}

/* Load the real module and put the wrappers in front of it, when the environment names another than before. */
static void load(void)
{
    const char *path = getenv("KMS_FAULTP11_MODULE");
    const char *rules = getenv("KMS_FAULTP11_CONTROL");
    if (path == NULL || rules == NULL)
        return;
    if (real != NULL && strcmp(rules, control) == 0)
        return;
    real = NULL;
    if (strlen(rules) >= sizeof control)
        return;
    memcpy(control, rules, strlen(rules) + 1);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    CK_C_GetFunctionList get_list = NULL;
    if (library != NULL)
        *(void **)&get_list = dlsym(library, "C_GetFunctionList");
    if (get_list == NULL || get_list(&real) != CKR_OK) {
        (void)fprintf(stderr, "faultp11: cannot load %s\n", path);
        real = NULL;
        return;
    }
    faulty = *real;
    faulty.version = (CK_VERSION){2, 40};
#define INSTALL(name, absent, parameters, arguments) faulty.name = fault_##name;
    PASSED_ON(INSTALL)
    faulty.C_GetSlotInfo = fault_C_GetSlotInfo;
    faulty.C_GetTokenInfo = fault_C_GetTokenInfo;
}

__attribute__((visibility("default"))) CK_RV C_GetFunctionList(CK_FUNCTION_LIST **ret_list);
CK_RV C_GetFunctionList(CK_FUNCTION_LIST **ret_list)
{
    load();
    if (real == NULL)
        return CKR_GENERAL_ERROR;
    *ret_list = &faulty;
    return CKR_OK;
}
