#include "auth/frozen.h"

#include <stdlib.h>

/* Running out of memory must not end the process, as it does by default. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

enum { KEY_MAX = 2 * KMS_IDENTITY_MAX };

struct kms_frozen_entry {
    UT_hash_handle hh;
    char *reason;
    char key[];
};

/* Scope, tenant and name in one key; no tenant has a line break. 0: longer than anything that can be frozen. */
static size_t key_of(enum kms_auth_scope scope, const char *tenant, const char *name, char key[KEY_MAX])
{
    const size_t tenant_len = strlen(tenant);
    const size_t name_len = strlen(name);
    if (tenant_len + name_len + 2 > KEY_MAX)
        return 0;
    key[0] = (char)scope;
    memcpy(key + 1, tenant, tenant_len);
    key[1 + tenant_len] = '\n';
    memcpy(key + 2 + tenant_len, name, name_len);
    return tenant_len + name_len + 2;
}

/* By the whole key; NULL: not there. */
static struct kms_frozen_entry *find(const struct kms_frozen_set *set, const char *key, size_t len)
{
    struct kms_frozen_entry *entry = NULL;
    HASH_FIND(hh, set->entries, key, len, entry);
    return entry;
}

/* An entry and its reason. */
static void free_entry(struct kms_frozen_entry *entry)
{
    free(entry->reason);
    free(entry);
}

enum kms_status kms_frozen_add(struct kms_frozen_set *set, const struct kms_auth_frozen *frozen)
{
    char key[KEY_MAX];
    const size_t len = key_of(frozen->scope, frozen->tenant, frozen->name, key);
    KMS_ASSERT(len > 0); /* the caller has checked the names */
    if (find(set, key, len) != NULL)
        return KMS_OK;
    struct kms_frozen_entry *entry = calloc(1, sizeof *entry + len + 1);
    if (entry == NULL)
        return KMS_NO_MEMORY;
    memcpy(entry->key, key, len);
    entry->reason = strdup(frozen->reason);
    if (entry->reason != NULL)
        HASH_ADD_KEYPTR(hh, set->entries, entry->key, len, entry);
    if (entry->reason == NULL || entry->hh.tbl == NULL) {
        free_entry(entry);
        return KMS_NO_MEMORY;
    }
    set->count[frozen->scope]++;
    return KMS_OK;
}

void kms_frozen_remove(struct kms_frozen_set *set, const struct kms_auth_frozen *frozen)
{
    char key[KEY_MAX];
    struct kms_frozen_entry *entry = find(set, key, key_of(frozen->scope, frozen->tenant, frozen->name, key));
    if (entry == NULL)
        return;
    HASH_DEL(set->entries, entry);
    free_entry(entry);
    set->count[frozen->scope]--;
}

const char *kms_frozen_find(const struct kms_frozen_set *set, enum kms_auth_scope scope, const char *tenant,
                            const char *name)
{
    char key[KEY_MAX];
    if (set->count[scope] == 0)
        return NULL;
    const struct kms_frozen_entry *entry = find(set, key, key_of(scope, tenant, name, key));
    return entry != NULL ? entry->reason : NULL;
}

void kms_frozen_clear(struct kms_frozen_set *set)
{
    struct kms_frozen_entry *entry = NULL;
    struct kms_frozen_entry *next = NULL;
    HASH_ITER (hh, set->entries, entry, next) {
        HASH_DEL(set->entries, entry);
        free_entry(entry);
    }
    *set = (struct kms_frozen_set){0};
}
