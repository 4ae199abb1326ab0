/*
 * Purpose:   the state that the p11_*.c files share: the connection to the token, the pool, the gate.
 * Owns:      a kms_p11 owns everything in it.
 * Threads:   each field says what protects it. "connection": written by open and by the recovery thread while
 *            no session is out and nobody has entered the gate, read by whoever has.
 * Never:     is seen outside this directory.
 */
#ifndef KMS_HSM_P11_STATE_H
#define KMS_HSM_P11_STATE_H

#include "core/clock.h"
#include "core/lock.h"
#include "core/secret.h"
#include "hsm/ckr.h"
#include "hsm/hsm.h"
#include "hsm/profile.h"

#include <stdatomic.h>

enum {
    KMS_P11_AES_KEY_SIZE = 32,
    KMS_P11_ROLES = KMS_HSM_TRANSIT + 1,
    KMS_P11_TEMPLATE_MAX = 24,
    KMS_P11_MASTERS_MAX = 65536, /* cached master handles; beyond, the cache starts afresh */
    KMS_P11_RANDOM_MAX = 1 << 20,
};

/** Public labels of the three service keys. */
#define KMS_P11_LABEL_PREFIX      "kms/"
#define KMS_P11_LABEL_INTEGRITY   "kms/integrity"
#define KMS_P11_LABEL_ATTESTATION "kms/attestation"
#define KMS_P11_LABEL_BACKUP      "kms/backup"
#define KMS_P11_LABEL_TRANSPORT   "kms/transport"
#define KMS_P11_LABEL_RECOVERY    "kms/recovery/" /* and a fingerprint */

struct kms_p11;
struct kms_p11_attest; /* p11_attest.c: libp11's side */
struct kms_p11_master; /* p11_masters.c: one cached master handle */

struct kms_hsm_session {
    struct kms_p11 *p11;
    CK_SESSION_HANDLE op; /* for operations that keep state in their session; may be closed and reopened */
    CK_SESSION_HANDLE keeper; /* makes and owns session objects; closed only together with the connection */
    CK_OBJECT_HANDLE integrity;
    uint64_t generation;
    struct kms_hsm_session *next_free; /* protected by pool_lock */
    bool broken;                       /* `op` is stuck in an operation: reopen it at checkin */
};

struct kms_p11_template {
    CK_ATTRIBUTE attributes[KMS_P11_TEMPLATE_MAX];
    CK_ULONG count;
};

enum kms_p11_gate {
    KMS_P11_GATE_OPEN,
    KMS_P11_GATE_LOST,   /* the recovery thread works on it, or will when nobody is inside any more */
    KMS_P11_GATE_DEAD,   /* recovery would risk the PIN: only a restart helps */
    KMS_P11_GATE_CLOSING /* kms_hsm_free() */
};

struct kms_p11 {
    struct kms_hsm hsm; /* first: callers hold a pointer to it */

    /* set once at open */
    char *module;
    char *init_args; /* NULL: none */
    char *token_uri;
    char *startup_lock; /* NULL: none */
    struct kms_profile profile;
    struct kms_secret pin;
    int64_t operation_timeout_ns;
    bool create_service_keys;
    bool recovery; /* keys can be wrapped for recovery keys */
    void *library; /* our own reference to the module, so that `ck` outlives libp11's */
    CK_FUNCTION_LIST *ck;
    struct kms_p11_template templates[KMS_P11_ROLES];
    struct kms_p11_template birth; /* a KEK or page key being made: extractable, no usage */

    /* connection */
    struct kms_p11_attest *attest;
    CK_SLOT_ID slot;
    CK_OBJECT_HANDLE integrity;
    CK_OBJECT_HANDLE backup;
    uint8_t backup_id[KMS_HSM_KEY_ID_SIZE];
    uint8_t integrity_id[KMS_HSM_KEY_ID_SIZE];
    struct kms_hsm_session *sessions; /* session_count of the pool, and two more: `spare`, `background` */
    unsigned session_count;
    struct kms_hsm_session *spare;      /* for probes and pings, and stands for libp11; see spare_taken */
    struct kms_hsm_session *background; /* for long work; see background_taken */
    unsigned pin_failures;              /* logins refused since the last one that worked */
    bool login_tried;                   /* the last attempt to connect came as far as C_Login */
    bool pin_refused; /* the last attempt to connect failed for the PIN: trying again would be unwise */

    /* gate and pool */
    struct kms_mutex pool_lock;            /* KMS_LOCK_HSM_POOL */
    pthread_cond_t pool_changed;           /* a session came back while somebody waits, or the gate moved */
    pthread_cond_t gate_changed;           /* for the recovery thread */
    enum kms_p11_gate gate;                /* protected by pool_lock */
    struct kms_hsm_session *free_sessions; /* protected by pool_lock */
    unsigned free_count;                   /* protected by pool_lock */
    unsigned inside;                       /* sessions out and callers that entered; protected by pool_lock */
    unsigned waiting;                      /* protected by pool_lock */
    bool spare_taken;                      /* protected by pool_lock: somebody signs or pings */
    bool background_taken;                 /* protected by pool_lock */
    char loss_cause[256];     /* protected by pool_lock: why the gate closed, or the last failed recovery */
    char dead_text[256];      /* protected by pool_lock: public text of KMS_P11_GATE_DEAD */
    struct kms_hsm_info info; /* protected by pool_lock: the token's own words */
    uint64_t recoveries;      /* protected by pool_lock */
    _Atomic bool lost;        /* operations that are under way stop early */
    _Atomic uint64_t generation;
    _Atomic int64_t session_objects;

    struct kms_mutex masters_lock;  /* KMS_LOCK_HSM_MASTERS */
    struct kms_p11_master *masters; /* protected by masters_lock; a uthash table by id */

    pthread_t recovery_thread;
    bool recovery_started;
};

static inline struct kms_p11 *kms_p11_of(struct kms_hsm *hsm)
{
    return (struct kms_p11 *)(void *)hsm;
}

/** Whether an operation with `key` may go to the token now: HSM_UNAVAILABLE, HSM_STALE or OK. */
static inline enum kms_status kms_p11_usable(const struct kms_hsm_session *session, struct kms_hsm_key key)
{
    if (__builtin_expect(atomic_load_explicit(&session->p11->lost, memory_order_relaxed), 0))
        return KMS_HSM_UNAVAILABLE;
    return __builtin_expect(key.generation == session->generation, 1) ? KMS_OK : KMS_HSM_STALE;
}

#endif
