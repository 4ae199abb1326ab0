/*
 * Goal: be the adversary of the shred protocol: with today's HSM, its PIN and every copy that was ever made of anything, open data keys.
 *
 * usage: kms-adversary MODULE TOKEN-LABEL PIN-FILE < material      lines of
 *     file PATH                      any bytes: databases, WALs, logs; pages of the key tree are found wherever they lie in them
 *     id HEX                         16 bytes, the CKA_ID of a master key: what stands near it in a file may be a wrapped root
 *     blob HEX                       40 bytes that may be a wrapped key
 *     key HEX                        32 bytes: the plaintext of a key that was had otherwise, tried on everything
 *     target NAME WRAPPED CONTEXT    a wrapped data key to open, and its canonical encryption context, in hexadecimal
 *
 * Nothing of the service's logic is used, no place, owner, epoch or MAC is looked at: every key that is had is tried on every blob, so old
 * blobs under new keys and blobs of one place under keys of another are among the tries. Token keys try in the HSM; what they
 * open leaves it by being wrapped under a key that we know. Below that, plain AES-KW is as good and faster.
 * Prints {"token_keys", "leaked", "blobs", "keys", "opened": {NAME: plaintext}}; leaked: token keys whose own value could be had.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <openssl/evp.h>
#include <p11-kit/pkcs11.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY = 32,
    WRAPPED = 40,
    ID = 16,
    IV = 12,
    TAG = 16,
    NEAR = 64, /* how far from its master key's id a wrapped root is looked for */
    SLOTS_MAX = 64,
    TOKEN_KEYS_MAX = 4096,
    LINE_MAX_BYTES = 1 << 16,
    /* a page: tag, header up to the mask of its used slots, then records: 38 bytes, n of purpose, the wrapped key */
    PAGE_USED_AT = 52,
    PAGE_HEADER = 54,
    PAGE_FAN_OUT = 16,
    RECORD_PURPOSE_AT = 37,
    RECORD_HEAD = 38,
    /* a wrapped data key: format, spec, KEK id; IV; ciphertext and tag */
    BLOB_HEADER = 18
};
static const char page_tag[] = "KMSPAGE1";

/* A growing set of byte strings of one size; it is made unique now and then. */
struct set {
    uint8_t *items;
    size_t size, count, room;
};

struct target {
    char *name;
    uint8_t *wrapped, *context;
    size_t wrapped_len, context_len;
};

static struct set blobs = {.size = WRAPPED}; /* wrapped keys, of pages and as named */
static struct set roots = {.size =
                               WRAPPED}; /* what stands near a master key's id: tried with token keys only */
static struct set ids = {.size = ID};
static struct set keys = {.size = KEY}; /* plaintext of every key that was had */
static bool master_had;                 /* a key is known that may be a master key: roots need no token */
static char **files;
static size_t file_count;
static struct target *targets;
static size_t target_count;

static CK_FUNCTION_LIST *p11;
static CK_SESSION_HANDLE session;
static CK_OBJECT_HANDLE known_handle; /* a session key whose value we know */
static const uint8_t known_value[KEY] = {1, 9, 7, 3};
static CK_BBOOL yes = CK_TRUE;
static CK_BBOOL no = CK_FALSE;

/* An adversary that stops half-way proves nothing. */
static _Noreturn void die(const char *what, const char *detail)
{
    (void)fprintf(stderr, "kms-adversary: %s: %s\n", what, detail);
    exit(2);
}

static void must(CK_RV rv, const char *what)
{
    char code[32];
    (void)snprintf(code, sizeof code, "CKR 0x%lx", rv);
    if (rv != CKR_OK)
        die(what, code);
}

static void *grown(void *old, size_t size)
{
    void *new = realloc(old, size);
    if (new == NULL)
        die("memory", "exhausted");
    return new;
}

static void set_add(struct set *set, const uint8_t *item)
{
    if (set->count == set->room) {
        set->room = set->room == 0 ? 1024 : 2 * set->room;
        set->items = grown(set->items, set->room * set->size);
    }
    memcpy(set->items + set->count++ * set->size, item, set->size);
}

static int compare(const void *a, const void *b, void *size)
{
    return memcmp(a, b, *(const size_t *)size);
}

static void set_unique(struct set *set)
{
    size_t kept = 0;
    if (set->count > 0)
        qsort_r(set->items, set->count, set->size, compare, &set->size);
    for (size_t i = 0; i < set->count; i++) {
        const uint8_t *item = set->items + i * set->size;
        if (kept == 0 || memcmp(set->items + (kept - 1) * set->size, item, set->size) != 0)
            memmove(set->items + kept++ * set->size, item, set->size);
    }
    set->count = kept;
}

static bool set_has(const struct set *set, const uint8_t *item)
{
    for (size_t i = 0; i < set->count; i++) {
        if (memcmp(set->items + i * set->size, item, set->size) == 0)
            return true;
    }
    return false;
}

static int digit_of(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *place = c == '\0' ? NULL : strchr(digits, c);
    return place == NULL ? -1 : (int)(place - digits);
}

/* Bytes of a hexadecimal word, on the heap. */
static uint8_t *from_hex(const char *text, size_t *ret_len)
{
    const size_t digits = strlen(text);
    uint8_t *bytes = grown(NULL, digits / 2 + 1);
    for (size_t i = 0; i < digits / 2; i++) {
        const int high = digit_of(text[2 * i]);
        const int low = digit_of(text[2 * i + 1]);
        if (high < 0 || low < 0)
            die("not hexadecimal", text);
        bytes[i] = (uint8_t)(high * 16 + low);
    }
    if (digits % 2 != 0)
        die("not hexadecimal", text);
    *ret_len = digits / 2;
    return bytes;
}

static void add_hex(struct set *set, const char *text)
{
    size_t len = 0;
    uint8_t *bytes = from_hex(text, &len);
    if (len != set->size)
        die("wrong length", text);
    set_add(set, bytes);
    free(bytes);
}

static void add_target(const char *name, const char *wrapped, const char *context)
{
    targets = grown(targets, (target_count + 1) * sizeof *targets);
    struct target *target = &targets[target_count++];
    target->name = strdup(name);
    target->wrapped = from_hex(wrapped, &target->wrapped_len);
    target->context = from_hex(context, &target->context_len);
    if (target->wrapped_len < BLOB_HEADER + IV + TAG)
        die("no wrapped data key", wrapped);
}

static void read_material(void)
{
    static char line[LINE_MAX_BYTES];
    while (fgets(line, sizeof line, stdin) != NULL) {
        char *rest = NULL;
        const char *kind = strtok_r(line, " \n", &rest);
        const char *first = strtok_r(NULL, " \n", &rest);
        const char *second = strtok_r(NULL, " \n", &rest);
        const char *third = strtok_r(NULL, " \n", &rest);
        if (kind == NULL || first == NULL)
            die("a line without content", kind == NULL ? "" : kind);
        if (strcmp(kind, "file") == 0) {
            files = grown(files, (file_count + 1) * sizeof *files);
            files[file_count++] = strdup(first);
        } else if (strcmp(kind, "id") == 0) {
            add_hex(&ids, first);
        } else if (strcmp(kind, "blob") == 0) {
            add_hex(&blobs, first);
        } else if (strcmp(kind, "key") == 0) {
            add_hex(&keys, first);
            master_had = true;
        } else if (strcmp(kind, "target") == 0 && second != NULL && third != NULL) {
            add_target(first, second, third);
        } else {
            die("not understood", kind);
        }
    }
}

/* The wrapped keys of what may be a page that begins here; it may also be cut off or nonsense. */
static void carve_page(const uint8_t *page, size_t len)
{
    if (len < PAGE_HEADER)
        return;
    const unsigned used = (unsigned)page[PAGE_USED_AT] << 8 | page[PAGE_USED_AT + 1];
    size_t at = PAGE_HEADER;
    for (unsigned slot = 0; slot < PAGE_FAN_OUT; slot++) {
        if ((used >> slot & 1) == 0)
            continue;
        if (at + RECORD_HEAD > len || at + RECORD_HEAD + page[at + RECORD_PURPOSE_AT] + WRAPPED > len)
            return;
        at += RECORD_HEAD + (size_t)page[at + RECORD_PURPOSE_AT];
        set_add(&blobs, page + at);
        at += WRAPPED;
    }
}

/* Everything near an id that could be a wrapped root, whatever the record around it looks like. */
static void carve_near(const uint8_t *data, size_t len, size_t at)
{
    const size_t from = at > NEAR + WRAPPED ? at - NEAR - WRAPPED : 0;
    for (size_t start = from; start < at + ID + NEAR && start + WRAPPED <= len; start++)
        set_add(&roots, data + start);
}

static void carve_file(const char *path)
{
    FILE *file = fopen(path, "re");
    uint8_t *data = NULL;
    size_t len = 0;
    if (file == NULL)
        die("cannot read", path);
    for (size_t got = 1; got > 0; len += got) {
        data = grown(data, len + (1 << 20));
        got = fread(data + len, 1, 1 << 20, file);
    }
    (void)fclose(file);
    const size_t tag_len = sizeof page_tag - 1;
    for (const uint8_t *found = data;
         (found = memmem(found, len - (size_t)(found - data), page_tag, tag_len)) != NULL; found += tag_len)
        carve_page(found, len - (size_t)(found - data));
    for (size_t i = 0; i < ids.count; i++) {
        const uint8_t *id = ids.items + i * ID;
        for (const uint8_t *found = data;
             (found = memmem(found, len - (size_t)(found - data), id, ID)) != NULL; found += ID)
            carve_near(data, len, (size_t)(found - data));
    }
    free(data);
}

/* AES-KW (RFC 3394) outside the HSM; false when the integrity check value is not there. */
static bool software_unwrap(EVP_CIPHER_CTX *context, const uint8_t *blob, uint8_t ret_key[KEY])
{
    int len = 0;
    return EVP_DecryptInit_ex(context, NULL, NULL, NULL, NULL) == 1 &&
           EVP_DecryptUpdate(context, ret_key, &len, blob, WRAPPED) == 1 && len == KEY;
}

static EVP_CIPHER_CTX *unwrapper(const uint8_t *key)
{
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    if (context == NULL)
        die("OpenSSL", "no memory");
    EVP_CIPHER_CTX_set_flags(context, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
    if (EVP_DecryptInit_ex(context, EVP_aes_256_wrap(), NULL, key, NULL) != 1)
        die("OpenSSL", "no AES key wrap");
    return context;
}

static void open_token(const char *module, const char *label, const char *pin_file)
{
    void *library = dlopen(module, RTLD_NOW | RTLD_LOCAL);
    CK_C_GetFunctionList get_list = NULL;
    if (library != NULL)
        *(void **)&get_list = dlsym(library, "C_GetFunctionList");
    if (get_list == NULL)
        die("not a PKCS#11 module", module);
    must(get_list(&p11), "C_GetFunctionList");
    must(p11->C_Initialize(NULL), "C_Initialize");
    CK_SLOT_ID slots[SLOTS_MAX];
    CK_ULONG count = SLOTS_MAX;
    must(p11->C_GetSlotList(CK_TRUE, slots, &count), "C_GetSlotList");
    char pin[256] = "";
    FILE *file = fopen(pin_file, "re");
    if (file == NULL || fgets(pin, sizeof pin, file) == NULL)
        die("cannot read", pin_file);
    (void)fclose(file);
    pin[strcspn(pin, "\n")] = '\0';
    for (CK_ULONG i = 0; i < count; i++) {
        CK_TOKEN_INFO info;
        must(p11->C_GetTokenInfo(slots[i], &info), "C_GetTokenInfo");
        if (memcmp(info.label, label, strlen(label)) != 0 || info.label[strlen(label)] != ' ')
            continue;
        must(p11->C_OpenSession(slots[i], CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session),
             "C_OpenSession");
        must(p11->C_Login(session, CKU_USER, (CK_UTF8CHAR *)pin, strlen(pin)), "C_Login");
        return;
    }
    die("no such token", label);
}

/* The key under which everything leaves the HSM that can be made to. */
static void import_known_key(void)
{
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_AES;
    uint8_t value[KEY];
    memcpy(value, known_value, sizeof value);
    CK_ATTRIBUTE attributes[] = {{CKA_CLASS, &class, sizeof class},
                                 {CKA_KEY_TYPE, &type, sizeof type},
                                 {CKA_TOKEN, &no, sizeof no},
                                 {CKA_VALUE, value, sizeof value},
                                 {CKA_WRAP, &yes, sizeof yes}};
    must(p11->C_CreateObject(session, attributes, sizeof attributes / sizeof attributes[0], &known_handle),
         "C_CreateObject");
}

/* Out of the HSM, if it lets the key out. */
static bool extract(CK_OBJECT_HANDLE key)
{
    uint8_t blob[256];
    uint8_t value[WRAPPED];
    CK_ULONG len = sizeof blob;
    CK_MECHANISM mechanism = {CKM_AES_KEY_WRAP, NULL, 0};
    if (p11->C_WrapKey(session, &mechanism, known_handle, key, blob, &len) != CKR_OK || len != WRAPPED)
        return false;
    EVP_CIPHER_CTX *context = unwrapper(known_value);
    const bool opened = software_unwrap(context, blob, value);
    EVP_CIPHER_CTX_free(context);
    if (opened)
        set_add(&keys, value);
    return opened;
}

/* The value of a key of the token itself: asked for, wrapped, made extractable, copied as extractable. */
static bool leaks(CK_OBJECT_HANDLE key)
{
    uint8_t value[KEY];
    CK_ATTRIBUTE plain = {CKA_VALUE, value, sizeof value};
    CK_ATTRIBUTE extractable[] = {{CKA_EXTRACTABLE, &yes, sizeof yes}, {CKA_SENSITIVE, &no, sizeof no}};
    CK_OBJECT_HANDLE copy = 0;
    if (p11->C_GetAttributeValue(session, key, &plain, 1) == CKR_OK && plain.ulValueLen == KEY) {
        set_add(&keys, value);
        return true;
    }
    if (extract(key))
        return true;
    for (CK_ULONG i = 0; i < 2; i++) {
        (void)p11->C_SetAttributeValue(session, key, &extractable[i], 1);
        if (p11->C_CopyObject(session, key, &extractable[i], 1, &copy) == CKR_OK && extract(copy))
            return true;
    }
    (void)p11->C_SetAttributeValue(session, key, extractable, 2);
    return extract(key);
}

/* One try in the HSM. */
static void token_unwrap(CK_OBJECT_HANDLE parent, const uint8_t *item, CK_MECHANISM_TYPE type)
{
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE key_type = CKK_AES;
    CK_MECHANISM mechanism = {type, NULL, 0};
    uint8_t blob[WRAPPED];
    memcpy(blob, item, sizeof blob);
    CK_ATTRIBUTE attributes[] = {
        {CKA_CLASS, &class, sizeof class}, {CKA_KEY_TYPE, &key_type, sizeof key_type},
        {CKA_TOKEN, &no, sizeof no},       {CKA_PRIVATE, &yes, sizeof yes},
        {CKA_SENSITIVE, &yes, sizeof yes}, {CKA_EXTRACTABLE, &yes, sizeof yes},
        {CKA_ENCRYPT, &yes, sizeof yes},   {CKA_DECRYPT, &yes, sizeof yes},
    };
    CK_OBJECT_HANDLE key = 0;
    if (p11->C_UnwrapKey(session, &mechanism, parent, blob, sizeof blob, attributes,
                         sizeof attributes / sizeof attributes[0], &key) != CKR_OK)
        return;
    if (!extract(key))
        die("an unwrapped key",
            "opened in the HSM but could not be taken out: this tool has to follow it inside");
    (void)p11->C_DestroyObject(session, key);
}

/* Every secret key of the token on everything. Returns how many there are. */
static CK_ULONG use_token_keys(CK_ULONG *ret_leaked)
{
    static CK_OBJECT_HANDLE handles[TOKEN_KEYS_MAX];
    static const CK_MECHANISM_TYPE mechanisms[] = {CKM_AES_KEY_WRAP, CKM_AES_KEY_WRAP_PAD};
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_ATTRIBUTE search[] = {{CKA_CLASS, &class, sizeof class}, {CKA_TOKEN, &yes, sizeof yes}};
    CK_ULONG count = 0;
    must(p11->C_FindObjectsInit(session, search, 2), "C_FindObjectsInit");
    must(p11->C_FindObjects(session, handles, TOKEN_KEYS_MAX, &count), "C_FindObjects");
    must(p11->C_FindObjectsFinal(session), "C_FindObjectsFinal");
    *ret_leaked = 0;
    for (CK_ULONG k = 0; k < count; k++) {
        *ret_leaked += leaks(handles[k]) ? 1 : 0;
        for (size_t m = 0; m < sizeof mechanisms / sizeof mechanisms[0]; m++) {
            for (size_t i = 0; i < blobs.count; i++)
                token_unwrap(handles[k], blobs.items + i * WRAPPED, mechanisms[m]);
            for (size_t i = 0; i < roots.count; i++)
                token_unwrap(handles[k], roots.items + i * WRAPPED, mechanisms[m]);
        }
    }
    return count;
}

/* Every key that was had on every blob, until nothing new comes. */
static void follow(void)
{
    for (size_t next = 0; next < keys.count; next++) {
        uint8_t parent[KEY];
        uint8_t value[WRAPPED];
        memcpy(parent, keys.items + next * KEY, sizeof parent);
        EVP_CIPHER_CTX *context = unwrapper(parent);
        const size_t tries = blobs.count + (master_had ? roots.count : 0);
        for (size_t i = 0; i < tries; i++) {
            const uint8_t *blob =
                i < blobs.count ? blobs.items + i * WRAPPED : roots.items + (i - blobs.count) * WRAPPED;
            if (software_unwrap(context, blob, value) && !set_has(&keys, value))
                set_add(&keys, value);
        }
        EVP_CIPHER_CTX_free(context);
    }
}

/* AES-256-GCM with that key; AAD is the blob's header and the context. */
static bool gcm_open(const struct target *target, const uint8_t *key, uint8_t *out, size_t *ret_len)
{
    const uint8_t *iv = target->wrapped + BLOB_HEADER;
    const uint8_t *data = iv + IV;
    const size_t len = target->wrapped_len - BLOB_HEADER - IV - TAG;
    uint8_t tag[TAG];
    memcpy(tag, data + len, sizeof tag);
    int done = 0;
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    const bool opened =
        context != NULL && EVP_DecryptInit_ex(context, EVP_aes_256_gcm(), NULL, key, iv) == 1 &&
        EVP_DecryptUpdate(context, NULL, &done, target->wrapped, BLOB_HEADER) == 1 &&
        EVP_DecryptUpdate(context, NULL, &done, target->context, (int)target->context_len) == 1 &&
        EVP_DecryptUpdate(context, out, &done, data, (int)len) == 1 &&
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, sizeof tag, tag) == 1 &&
        EVP_DecryptFinal_ex(context, out + done, &done) == 1;
    EVP_CIPHER_CTX_free(context);
    *ret_len = len;
    return opened;
}

static void print_opened(void)
{
    const char *comma = "";
    for (size_t t = 0; t < target_count; t++) {
        uint8_t *out = grown(NULL, targets[t].wrapped_len);
        for (size_t k = 0; k < keys.count; k++) {
            size_t len = 0;
            if (!gcm_open(&targets[t], keys.items + k * KEY, out, &len))
                continue;
            (void)printf("%s\"%s\": \"", comma, targets[t].name);
            for (size_t i = 0; i < len; i++)
                (void)printf("%02x", out[i]);
            (void)printf("\"");
            comma = ", ";
            break;
        }
        free(out);
    }
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        (void)fputs("usage: kms-adversary MODULE TOKEN-LABEL PIN-FILE < material\n", stderr);
        return 2;
    }
    read_material();
    set_unique(&ids);
    for (size_t i = 0; i < file_count; i++)
        carve_file(files[i]);
    set_unique(&blobs);
    set_unique(&roots);
    open_token(argv[1], argv[2], argv[3]);
    import_known_key();
    CK_ULONG leaked = 0;
    const CK_ULONG token_keys = use_token_keys(&leaked);
    set_unique(&keys);
    follow();
    (void)printf("{\"token_keys\": %lu, \"leaked\": %lu, \"blobs\": %zu, \"keys\": %zu, \"opened\": {",
                 token_keys, leaked, blobs.count + roots.count, keys.count);
    print_opened();
    (void)printf("}}\n");
    must(p11->C_Finalize(NULL), "C_Finalize");
    return 0;
}
