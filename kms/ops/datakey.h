/*
 * Purpose:   what the four data-key verbs have in common: one item, as a unary call, in a batch or in a
 *            stream.
 * Owns:      nothing.
 * Threads:   as ops.h.
 * Never:     lets one item's failure fail another item.
 */
#ifndef KMS_OPS_DATAKEY_H
#define KMS_OPS_DATAKEY_H

#include "ops/run.h"

/** What an item turned out to be about, for the audit record. */
struct ops_datakey_facts {
    const char *tenant;
    const char *customer_id; /* as the caller named it; not for the record */
    const char *purpose;
    struct kms_uuid customer;
    uint32_t kek_version;
    bool shred_scheduled; /* the customer waits to be shredded */
};

/** One verb: how an item is done, and the types of its messages. */
struct ops_datakey_verb {
    enum kms_action action; /* the one that the audit record names; an item may ask for a finer one */
    enum kms_status (*item)(struct ops_run *run, struct kms_keys_work *work, const ProtobufCMessage *request,
                            struct ops_datakey_facts *ret_facts, ProtobufCMessage **ret_response);
    const ProtobufCMessageDescriptor *result;
    const ProtobufCMessageDescriptor *batch_response;
};

enum kms_status ops_datakey_unary(struct kms_ops *ops, struct kms_call *call,
                                  const struct ops_datakey_verb *verb, const ProtobufCMessage *request,
                                  ProtobufCMessage **ret_reply) KMS_MUST_USE;
enum kms_status ops_datakey_batch(struct kms_ops *ops, struct kms_call *call,
                                  const struct ops_datakey_verb *verb, const ProtobufCMessage *request,
                                  ProtobufCMessage **ret_reply) KMS_MUST_USE;
/** One message of a stream: like a batch of one, with the failure inside the result. */
enum kms_status ops_datakey_stream(struct kms_ops *ops, struct kms_call *call,
                                   const struct ops_datakey_verb *verb, const ProtobufCMessage *request,
                                   ProtobufCMessage **ret_reply) KMS_MUST_USE;

#endif
