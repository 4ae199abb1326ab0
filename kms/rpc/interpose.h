/*
 * Purpose:   functions of libc and OpenSSL that core calls and that behave badly for a key service, replaced in the executable.
 * Owns:      one spare descriptor; the list of connections that a thread holds back.
 * Threads:   all of it on any thread; core calls the replacements.
 * Never:     is part of a library: these must be linked as objects into the executable that runs the server (CMake target
 *            kms_rpc_interpose), because the dynamic linker looks there first.
 *
 *   accept4     core 1.51 drops its listener for good on EMFILE (CVE-2023-4785). Here the connection is accepted with the
 *               spare descriptor and closed at once, and core is told EINTR.
 *   SSL_new     core has no C API for these: at least TLS 1.3, no session tickets (a resumed session would skip the check of
 *               the client certificate), and OpenSSL wipes decrypted data that was read (SSL_OP_CLEANSE_PLAINTEXT).
 *   sendmsg     core writes each reply with a system call of its own, and each becomes a segment that wakes the peer. While a
 *               group of replies leaves, they are held together in the kernel (MSG_MORE) and pushed out at its end. And core
 *               calls it while it holds the connection: what other calls of that connection send meanwhile waits, and then
 *               leaves in one piece. kms_rpc_interpose_before_send() tells the moment.
 *   IsThreadedDefault   of core's executor: replies that were started while core held their connection would be framed, encrypted
 *               and sent by a thread of core's own, and the reading of that connection would go there, too. Two processors would
 *               pass the calls to and fro: a unary call costs 4 us less where all of it stays on one thread.
 *   SSL_write   on the server's side the buffer is core's staging buffer for outgoing plaintext: it is wiped once written,
 *               and so is the dead stack of a thread of core's own.
 */
#ifndef KMS_RPC_INTERPOSE_H
#define KMS_RPC_INTERPOSE_H

#include <stdint.h>

/** Open the spare descriptor, if it is not open; accept4 does so by itself. False when no descriptor is free. */
_Bool kms_rpc_interpose_prepare(void);
/** Connections that were closed at once because no descriptor was free. */
uint64_t kms_rpc_interpose_turned_away(void);

/** From now until the push, what this thread sends on TCP connections waits in the kernel to be sent together. */
void kms_rpc_interpose_hold(void);
/**
 * Once, before this thread sends anything within the hold, call this; it may start operations of core on other calls. NULL: no
 * more.
 */
void kms_rpc_interpose_before_send(void (*function)(void *context), void *context);
/** This thread wipes its stack itself. */
void kms_rpc_interpose_own_thread(void);
/** Send what was held, on every connection that this thread has sent on since. */
void kms_rpc_interpose_push(void);

#endif
