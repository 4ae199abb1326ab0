/*
 * Purpose:   a thread that is alone in the module goes without the module's mutexes.
 * Owns:      how many threads are in the module, for the whole process.
 * Threads:   any.
 * Never:     lets a second thread in while one goes without.
 *
 * SoftHSM locks and unlocks 53 mutexes for one AES-GCM operation and several times as many to unwrap a key; nearly always there is
 * only one thread inside. For a token whose profile says `mutexes_given: true` the module gets its mutexes from here (PKCS#11 v2.40,
 * 5.4), and is called through a list of functions that counts who is inside. Whoever finds nobody there enters alone: its mutexes do
 * nothing. Whoever finds others there enters in company, and all their mutexes are real. Whoever finds one that is alone waits until it
 * is out, and until then nobody else enters alone, so that he gets in. Calls that take milliseconds are always made in company.
 *
 * It rests on two properties of the module: no thread of its own, and no mutex that stays locked when a call returns.
 */
#ifndef KMS_HSM_P11_ALONE_H
#define KMS_HSM_P11_ALONE_H

#include <p11-kit/pkcs11.h>
#include <stdbool.h>

/**
 * The module's functions with the counting around each; those that this service does not use are NULL. One module in a process at a
 * time. Calls return CKR_DEVICE_ERROR when another one has been alone for seconds: it hangs.
 */
CK_FUNCTION_LIST *kms_p11_alone_guard(CK_FUNCTION_LIST *module);
/** C_Initialize with mutexes from here; whoever initialises the module after that finds it initialised. */
CK_RV kms_p11_alone_initialize(void);

/** In company, for whoever calls the module by other ways (libp11). False, and not inside: another call hangs. */
bool kms_p11_alone_enter(void);
void kms_p11_alone_leave(void);

#endif
