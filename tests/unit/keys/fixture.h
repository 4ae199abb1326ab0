/*
 * Purpose:   what the tests of the keys module stand on: an HSM (fake or a real token), a real SQLite file behind
 *            the fault-injecting store, and kms_keys over both.
 * Owns:      all of it, and a temporary directory.
 * Threads:   one, but for what the modules themselves allow.
 * Never:     leaves files behind.
 */
#ifndef KMS_TESTS_KEYS_FIXTURE_H
#define KMS_TESTS_KEYS_FIXTURE_H

#include "fake/fake_hsm.h"
#include "fake/fault_store.h"
#include "keys/keys.h"

enum fixture_hsm { FIXTURE_FAKE, FIXTURE_SOFTHSM };

struct fixture_token; /* a real one */

struct fixture {
    char directory[64];
    struct fixture_token *token;
    struct kms_hsm *hsm;
    struct kms_store *store; /* a fault store */
    struct kms_keys *keys;
    struct kms_keys_config config;
    struct kms_arena *arena;
    struct kms_error err; /* of the last operation */
};

/** All of it, with tenant "acme", purposes "service" and "kyc", customer "c1". Aborts when it cannot be made. */
void fixture_new(struct fixture *f, enum fixture_hsm kind, const struct kms_keys_config *config);
void fixture_clear(struct fixture *f);
/** What a crash leaves: a new kms_keys over the same store and token. */
void fixture_restart(struct fixture *f);

struct kms_uuid fixture_tenant(struct fixture *f, const char *id); /* makes it if there is none */
void fixture_purpose(struct fixture *f, const char *tenant, const char *purpose);
void fixture_customer(struct fixture *f, const char *tenant, const char *customer);
struct kms_uuid fixture_customer_uuid(struct fixture *f, const char *tenant, const char *customer);
void fixture_set_tenant_state(struct fixture *f, const char *tenant, enum kms_tenant_state state);
void fixture_set_purpose_state(struct fixture *f, const char *tenant, const char *purpose,
                               enum kms_purpose_state state);
void fixture_set_customer_state(struct fixture *f, const char *tenant, const char *customer,
                                enum kms_customer_state state);
void fixture_set_kek_state(struct fixture *f, const uint8_t kek_id[KMS_KEK_ID_SIZE],
                           enum kms_kek_state state);
/** The tenant's record as it is stored. */
struct kms_tenant_record fixture_tenant_record(struct fixture *f, const char *tenant);
/** The primary KEK's row; fails the test when there is none. */
struct kms_kek_record fixture_kek(struct fixture *f, const char *tenant, const char *customer,
                                  const char *purpose);
/** A stored page; clear it with kms_page_record_clear(). */
struct kms_page_record fixture_page(struct fixture *f, const char *tenant, uint32_t level, uint64_t index);
void fixture_put_page(struct fixture *f, const struct kms_page_record *page);
/** `count` customers "<prefix>0".. with a "service" key each, in bulk. */
void fixture_bulk(struct fixture *f, const char *tenant, const char *prefix, size_t count);

/** A wrapped data key that outlives the arena. */
struct fixture_blob {
    uint8_t bytes[KMS_BLOB_MAX];
    size_t len;
    uint8_t plaintext[KMS_RAW_KEY_MAX];
    size_t plaintext_len;
    uint8_t kek_id[KMS_KEK_ID_SIZE];
    uint32_t version, previous_version;
};

/** One operation in a unit of work of its own, with commit; the context is given as "k=v" or NULL. */
enum kms_status fixture_generate(struct fixture *f, const char *tenant, const char *customer,
                                 const char *purpose, const char *context, struct fixture_blob *ret_blob);
enum kms_status fixture_unwrap(struct fixture *f, const char *tenant, const char *customer,
                               const char *purpose, const char *context, struct kms_slice wrapped,
                               struct fixture_blob *ret_blob);
/** Canonical bytes of "k=v" (NULL: empty), in the arena. */
struct kms_slice fixture_context(struct fixture *f, const char *context);
/** Assert that exactly the cached keys are alive in the fake HSM and that all sessions are back. */
void fixture_check_no_stray_keys(struct fixture *f);

/* A clock that stands until it is told to go on; set by fixture_clock_start(), undone by fixture_clear(). */
void fixture_clock_start(void);
void fixture_clock_advance(int64_t ns);

#endif
