/*
 * Purpose:   page tokens of the list methods: where the next page begins, bound to the request that made
 *            them.
 * Owns:      nothing.
 * Threads:   pure functions.
 * Never:     grants anything: every page is authorised like the first one.
 *
 * A token is hex(version 0x01 || first 8 bytes of SHA-256(method, tenant, filter) || last id of the page
 * before).
 */
#ifndef KMS_OPS_PAGE_TOKEN_H
#define KMS_OPS_PAGE_TOKEN_H

#include "core/call.h"

/** What the token is bound to, besides the method: the packed request without its page fields. */
enum kms_status ops_page_token_make(struct kms_call *call, struct kms_slice query, const char *last_id,
                                    char **ret_token) KMS_MUST_USE;
/** `*ret_after` is NULL for an empty token. INVALID_ARGUMENT for one that was not made for this query. */
enum kms_status ops_page_token_parse(struct kms_call *call, struct kms_slice query, const char *token,
                                     const char **ret_after) KMS_MUST_USE;

#endif
