/*
 * Purpose:   lines for the machine's syslog or journal, sent to its datagram socket without ever waiting.
 * Owns:      the socket.
 * Threads:   one sender belongs to one thread at a time.
 * Never:     waits for a reader, or keeps a line that could not be sent.
 *
 * Not syslog(3): that one connects to a fixed path, may block while the reader is slow, and tells nobody what was
 * lost.
 */
#ifndef KMS_DETECT_SYSLOG_H
#define KMS_DETECT_SYSLOG_H

#include "core/status.h"

struct kms_syslog;

/** `path` of the socket, "/dev/log" as a rule; it need not exist yet. NO_MEMORY; INVALID_ARGUMENT when it is too long. */
enum kms_status kms_syslog_new(const char *path, struct kms_syslog **ret_syslog) KMS_MUST_USE;
/** NULL-safe. */
void kms_syslog_free(struct kms_syslog *syslog);
/**
 * Send one line with the priority authpriv.alert, as RFC 3164 has it. False when nobody reads there or its queue is full;
 * the next line connects anew.
 */
bool kms_syslog_send(struct kms_syslog *syslog, const char *text);

#endif
