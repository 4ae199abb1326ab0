/*
 * Purpose:   take the body of a record apart into its fields, and match them.
 * Owns:      nothing; everything borrows from the body.
 * Threads:   pure functions.
 * Never:     believes that a record was written by this service: any bytes may come.
 */
#ifndef KMS_AUDIT_FIELDS_H
#define KMS_AUDIT_FIELDS_H

#include "audit/record.h"

/* C name, JSON name; texts without their quotes and still escaped, numbers as digits */
#define KMS_AUDIT_FIELD_TABLE(X)                                                                             \
    X(time, "time")                                                                                          \
    X(type, "type")                                                                                          \
    X(action, "action")                                                                                      \
    X(request_id, "request_id")                                                                              \
    X(identity, "identity")                                                                                  \
    X(peer, "peer")                                                                                          \
    X(tenant, "tenant")                                                                                      \
    X(customer, "customer")                                                                                  \
    X(purpose, "purpose")                                                                                    \
    X(kek_version, "kek_version")                                                                            \
    X(outcome, "outcome")                                                                                    \
    X(reason, "reason")                                                                                      \
    X(items, "items")                                                                                        \
    X(items_failed, "items_failed")                                                                          \
    X(detail, "detail")

/** Absent fields are empty. `detail` has its braces. */
struct kms_audit_fields {
    int64_t time_ns;
#define KMS_AUDIT_FIELD_MEMBER(name, json) struct kms_slice name;
    KMS_AUDIT_FIELD_TABLE(KMS_AUDIT_FIELD_MEMBER)
#undef KMS_AUDIT_FIELD_MEMBER
};

/** False when the body is no sequence of JSON members that begins with a time and a type. Unknown members are passed over. */
bool kms_audit_fields_parse(struct kms_slice body, struct kms_audit_fields *ret_fields);

/** Called with each UUID, 36 characters, that stands in quotes in a detail: the customers of a batch among them. */
typedef void (*kms_audit_take_text)(void *context, struct kms_slice text);
void kms_audit_fields_uuids(struct kms_slice detail, kms_audit_take_text take, void *context);

/** Called with each string that follows `name` in a detail: "\"tenant\":\"" finds the tenants of a batch's items. */
void kms_audit_fields_members(struct kms_slice detail, const char *name, kms_audit_take_text take,
                              void *context);

/** What to look for; NULL matches everything. Texts as they came in from outside, UUIDs in lower case. */
struct kms_audit_filter {
    const char *customer, *identity, *action, *outcome, *tenant, *purpose;
    int64_t from_ns, until_ns; /* from <= time < until; 0: no limit */
};

enum { KMS_AUDIT_ESCAPED_MAX = KMS_AUDIT_TEXT_MAX * 6 + 8 };

/** A filter made ready: its texts escaped as the log has them. */
struct kms_audit_matcher {
    struct kms_audit_filter filter;
    /* in the order below; empty: matches everything */
    struct kms_slice customer, identity, action, outcome, tenant, purpose;
    char texts[6][KMS_AUDIT_ESCAPED_MAX];
};
void kms_audit_matcher_init(struct kms_audit_matcher *ret_matcher, const struct kms_audit_filter *filter);
/** False when no record in this line can match: all texts that are looked for must stand in it. Much cheaper than to parse. */
bool kms_audit_matcher_may_match(const struct kms_audit_matcher *matcher, struct kms_slice line);
/**
 * A customer, tenant or purpose matches the record's own or, in a batch, one of its items'. An action matches itself and, when it ends with '.',
 * everything that begins with it.
 */
bool kms_audit_matcher_match(const struct kms_audit_matcher *matcher, const struct kms_audit_fields *fields);

#endif
