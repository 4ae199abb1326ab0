/*
 * Purpose:   what the files of the failing store share: fault_store.c has the store itself, fault_topics.c the functions
 *            of the topics, which all only pass their arguments on.
 * Owns:      nothing; fault_store.c owns the objects.
 * Threads:   as fault_store.h says.
 * Never:     is included by a test.
 */
#ifndef KMS_TESTS_FAULT_STATE_H
#define KMS_TESTS_FAULT_STATE_H

#include "fake/fault_store.h"

#include <stdatomic.h>

struct fault_store {
    struct kms_store base; /* its functions are `ops` */
    struct kms_store_ops ops;
    struct kms_store *inner;
    atomic_uint fail_in;
    _Atomic(enum kms_status) fail_with;
    void (*edit)(struct kms_kek_record *kek, void *context);
    void *edit_context;
    struct kms_hsm *dies_with; /* NULL: lives for ever */
    atomic_uint die_in;
    void (*before_read)(void *context);
    void *before_read_context;
};

struct kms_store_txn {
    struct fault_store *store;
    struct kms_store_txn *inner;
};

/** Count one call; true when it is the one that fails. */
bool kms_fault_store_breaks(struct fault_store *store);
/** The functions of all topics but the change log, whose numbers are the inner store's. */
void kms_fault_store_set_topics(struct kms_store_ops *ops);

#define FAULT_CHECK(store_, err_)                                                                            \
    do {                                                                                                     \
        if (kms_fault_store_breaks(store_))                                                                  \
            return kms_fail(err_, (store_)->fail_with, "ordered failure of the store");                      \
    } while (0)

/* A function of the vtable that only passes its arguments on. */
#define FAULT_PASS(name, parameters, arguments)                                                              \
    static enum kms_status fault_##name parameters                                                           \
    {                                                                                                        \
        FAULT_CHECK(txn->store, err);                                                                        \
        return txn->store->inner->ops->name arguments;                                                       \
    }

/* The same for the function of a topic. */
#define FAULT_PASS_IN(topic, name, parameters, arguments)                                                    \
    static enum kms_status fault_##topic##_##name parameters                                                 \
    {                                                                                                        \
        FAULT_CHECK(txn->store, err);                                                                        \
        return txn->store->inner->ops->topic.name arguments;                                                 \
    }

#endif
