/*
 * Purpose:   switch off abseil's deadlock detector, which core's locks would otherwise feed with every lock and unlock.
 * Owns:      nothing.
 * Threads:   once, before core has threads.
 * Never:     is needed for anything but speed.
 */
#ifndef KMS_RPC_MUTEXES_H
#define KMS_RPC_MUTEXES_H

/**
 * Debian builds abseil without NDEBUG, hence with a graph of all locks in which it looks for cycles: 1 us of a call's 20 in core.
 * Core's own developers run with it; a service need not. Where abseil does not export the switch nothing happens.
 */
void kms_rpc_mutexes_unwatched(void);

#endif
