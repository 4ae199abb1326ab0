/*
 * Purpose:   core's own log lines into the operator's log, limited in rate.
 * Owns:      nothing.
 * Threads:   install once; core logs on any thread.
 * Never:     lets one peer's failed handshakes fill the log.
 */
#ifndef KMS_RPC_CORELOG_H
#define KMS_RPC_CORELOG_H

/** Replace core's log function; idempotent. */
void kms_rpc_corelog_install(void);

#endif
