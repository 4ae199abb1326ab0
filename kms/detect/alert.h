/*
 * Purpose:   an alert as JSON, for the audit log and for syslog.
 * Owns:      nothing.
 * Threads:   no shared state.
 * Never:     lets text from outside end a string or a line.
 */
#ifndef KMS_DETECT_ALERT_H
#define KMS_DETECT_ALERT_H

#include "detect/detect.h"

/**
 * One compact object on one line, ASCII, keys sorted: {"count":..,"rule":"..",...}. `whole` also has what an audit record
 * says in fields of its own (identity, peer, action, tenant, customer, request_id). `frozen` NULL: left out, else "yes" or
 * why not. The caller frees; NULL: no memory.
 */
char *kms_detect_alert_json(const struct kms_detect_alert *alert, bool whole, const char *frozen);

#endif
