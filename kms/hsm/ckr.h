/*
 * Purpose:   names of PKCS#11 return values, and what each means for the connection and for the data.
 * Owns:      nothing.
 * Threads:   pure functions.
 * Never:     decides what to do: that is the caller's.
 */
#ifndef KMS_HSM_CKR_H
#define KMS_HSM_CKR_H

#include <p11-kit/pkcs11.h>
#include <stdbool.h>

enum { KMS_CKR_TEXT_SIZE = 32 };

/** "CKR_DEVICE_ERROR", or "CKR 0x80000001" written into `buffer` for a value that is not in the standard. */
const char *kms_ckr_name(CK_RV rv, char buffer[KMS_CKR_TEXT_SIZE]);
/** The connection is gone: finalise, initialise, log in and find the keys again. */
bool kms_ckr_is_loss(CK_RV rv);
/** A key's handle is not known: the key is gone, or the token below it. */
bool kms_ckr_is_bad_handle(CK_RV rv);
/** The token has no room for another object. */
bool kms_ckr_is_no_room(CK_RV rv);
/** The input did not decrypt or unwrap, as far as the standard's codes say. */
bool kms_ckr_is_refused_data(CK_RV rv);
/**
 * A code that tokens give for refused data, but for a failing device too (SoftHSM: CKR_GENERAL_ERROR for a
 * damaged wrapped key): ask the device for an operation that must work before believing either.
 */
bool kms_ckr_is_ambiguous(CK_RV rv);

#endif
