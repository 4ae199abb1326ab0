/*
 * Purpose:   overwrite the dead part of the running thread's stack.
 * Owns:      nothing.
 * Threads:   each thread wipes its own stack.
 * Never:     touches live frames.
 */
#ifndef KMS_RPC_STACKWIPE_H
#define KMS_RPC_STACKWIPE_H

/**
 * Wipe 24 KiB below the caller's frame. Core and OpenSSL leave copies of messages and keys there; calls that follow would
 * overwrite them only by chance.
 */
void kms_rpc_stackwipe(void);

#endif
