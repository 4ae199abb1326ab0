/*
 * Purpose:   a PKCS#11 module for tests: it passes calls on to a real module and fails on command.
 * Owns:      its rules, as read from the control file.
 * Threads:   safe, as far as the real module is.
 * Never:     does anything on its own: with an empty control file it is the real module.
 *
 * Environment, read when C_GetFunctionList is called:
 *   KMS_FAULTP11_MODULE   path of the real module
 *   KMS_FAULTP11_CONTROL  path of the control file; it may be missing (= empty)
 *
 * The control file is looked at on every call and read again when it has changed. Replace it as a whole (write
 * another file, rename it onto this one). All counts start anew when it is read again. One rule a line, words
 * separated by single blanks; empty lines and lines that begin with '#' are skipped:
 *
 *   C_Encrypt fail CKR_DEVICE_ERROR           every call answers this code and does not reach the token
 *   C_Encrypt fail 0x80000001 times=1         the next call only
 *   C_OpenSession fail CKR_GENERAL_ERROR skip=2 times=3
 *                                             two calls pass, then three fail, then all pass
 *   C_Sign delay 20                           wait 20 ms, then pass the call on; times= and skip= as above
 *   C_Sign hang                               do not come back until this rule is out of the control file
 *   * fail CKR_DEVICE_REMOVED                 any function except C_Initialize, C_Finalize, C_GetInfo
 *   token vanish                              as if the token were pulled: no token in any slot, no session
 *                                             lives on, until the rule is out of the file
 *   sessions drop                             once: all sessions are closed behind the caller's back
 *   user logout                               once: the user is logged out behind the caller's back
 *   token flags 0x40000                       or these bits into CK_TOKEN_INFO.flags (CKF_USER_PIN_LOCKED ...)
 *
 * A line that is none of these makes every call answer CKR_FUNCTION_REJECTED, so that a misspelt rule cannot
 * pass for a successful test. For each rule that fires, a line "C_Encrypt fail" is appended to
 * <control file>.log: a test waits for it there, or counts the lines. A hang is logged when it begins.
 */
#ifndef KMS_TESTS_FAULTP11_H
#define KMS_TESTS_FAULTP11_H

#include <p11-kit/pkcs11.h>
#include <stdbool.h>

/** What the control file wants of one call; see fault_decide(). */
struct fault_verdict {
    CK_RV rv;           /* CKR_OK: pass the call on */
    bool vanished;      /* the token is pulled */
    bool drop_sessions; /* do this before the call, once */
    bool logout;        /* do this before the call, once */
    CK_FLAGS flags;     /* for C_GetTokenInfo */
};

/**
 * Read the rules again if they changed, wait out delays and hangs, and say what shall happen to this call.
 * `function` is "C_Encrypt" and the like.
 */
struct fault_verdict fault_decide(const char *control, const char *function);

#endif
