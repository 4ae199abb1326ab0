/*
 * The bare HSM: how fast one thread does each operation with nothing around it, through Cryptoki alone.
 * usage: kms-bench-hsm MODULE TOKEN-LABEL PIN-FILE
 * Each line "OPERATION SECONDS" of its input is answered with "RATE CPU": operations a second, CPU seconds of one operation.
 */
#include "bench/util.h"

#include <dlfcn.h>
#include <p11-kit/pkcs11.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    KEY_SIZE = 32,
    IV_SIZE = 12,
    AAD_SIZE = 20,
    TAG_BITS = 128,
    BLOB_SIZE = 40,
    MAX_SLOTS = 16,
    BLOBS = 64,
    GCM_KEYS = 512,
    SIBLINGS = 15 /* of a key in a page of sixteen */
};

static CK_FUNCTION_LIST *p11;
static CK_SESSION_HANDLE session;
static CK_BBOOL yes = CK_TRUE;
static CK_BBOOL no = CK_FALSE;

/* Every call must work: a benchmark of failures is worth nothing. */
static void must(CK_RV rv, const char *what)
{
    if (rv != CKR_OK)
        bench_die("%s: CKR 0x%lx", what, rv);
}

static void open_token(const char *module, const char *label, const char *pin_file)
{
    void *library = dlopen(module, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        bench_die("cannot load %s", module);
    CK_C_GetFunctionList get_list = NULL;
    *(void **)&get_list = dlsym(library, "C_GetFunctionList");
    if (get_list == NULL)
        bench_die("%s is no PKCS#11 module", module);
    must(get_list(&p11), "C_GetFunctionList");
    must(p11->C_Initialize(NULL), "C_Initialize");
    CK_SLOT_ID slots[MAX_SLOTS];
    CK_ULONG count = MAX_SLOTS;
    must(p11->C_GetSlotList(CK_TRUE, slots, &count), "C_GetSlotList");
    for (CK_ULONG i = 0; i < count; i++) {
        CK_TOKEN_INFO info;
        must(p11->C_GetTokenInfo(slots[i], &info), "C_GetTokenInfo");
        if (memcmp(info.label, label, strlen(label)) != 0 || info.label[strlen(label)] != ' ')
            continue;
        must(p11->C_OpenSession(slots[i], CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session),
             "C_OpenSession");
        char *pin = bench_read_file(pin_file);
        if (pin == NULL)
            bench_die("cannot read %s", pin_file);
        pin[strcspn(pin, "\n")] = '\0';
        must(p11->C_Login(session, CKU_USER, (CK_UTF8CHAR *)pin, strlen(pin)), "C_Login");
        bench_wipe_free(pin);
        return;
    }
    bench_die("no token with the label %s", label);
}

/* A session AES-256 key with one set of usages. */
static CK_OBJECT_HANDLE make_key(CK_BBOOL extractable, CK_BBOOL wraps, CK_BBOOL encrypts)
{
    CK_MECHANISM mechanism = {CKM_AES_KEY_GEN, NULL, 0};
    CK_ULONG len = KEY_SIZE;
    CK_ATTRIBUTE attributes[] = {
        {CKA_VALUE_LEN, &len, sizeof len},
        {CKA_TOKEN, &no, sizeof no},
        {CKA_PRIVATE, &yes, sizeof yes},
        {CKA_SENSITIVE, &yes, sizeof yes},
        {CKA_EXTRACTABLE, &extractable, 1},
        {CKA_WRAP, &wraps, 1},
        {CKA_UNWRAP, &wraps, 1},
        {CKA_ENCRYPT, &encrypts, 1},
        {CKA_DECRYPT, &encrypts, 1},
    };
    CK_OBJECT_HANDLE key = 0;
    must(p11->C_GenerateKey(session, &mechanism, attributes, sizeof attributes / sizeof attributes[0], &key),
         "C_GenerateKey");
    return key;
}

/* A KEK with the very attributes that the service gives it (design: session, sensitive, not extractable, GCM only). */
static CK_OBJECT_HANDLE unwrap_key(CK_OBJECT_HANDLE parent, unsigned char *blob)
{
    CK_MECHANISM mechanism = {CKM_AES_KEY_WRAP, NULL, 0};
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_AES;
    CK_MECHANISM_TYPE allowed = CKM_AES_GCM;
    CK_ATTRIBUTE attributes[] = {
        {CKA_CLASS, &class, sizeof class}, {CKA_KEY_TYPE, &type, sizeof type},
        {CKA_TOKEN, &no, sizeof no},       {CKA_PRIVATE, &yes, sizeof yes},
        {CKA_SENSITIVE, &yes, sizeof yes}, {CKA_EXTRACTABLE, &no, sizeof no},
        {CKA_ENCRYPT, &yes, sizeof yes},   {CKA_DECRYPT, &yes, sizeof yes},
        {CKA_WRAP, &no, sizeof no},        {CKA_UNWRAP, &no, sizeof no},
        {CKA_SIGN, &no, sizeof no},        {CKA_VERIFY, &no, sizeof no},
        {CKA_DERIVE, &no, sizeof no},      {CKA_ALLOWED_MECHANISMS, &allowed, sizeof allowed},
    };
    CK_OBJECT_HANDLE key = 0;
    must(p11->C_UnwrapKey(session, &mechanism, parent, blob, BLOB_SIZE, attributes,
                          sizeof attributes / sizeof attributes[0], &key),
         "C_UnwrapKey");
    return key;
}

static void wrap_key(CK_OBJECT_HANDLE parent, CK_OBJECT_HANDLE key, unsigned char *blob)
{
    CK_MECHANISM mechanism = {CKM_AES_KEY_WRAP, NULL, 0};
    CK_ULONG len = BLOB_SIZE;
    must(p11->C_WrapKey(session, &mechanism, parent, key, blob, &len), "C_WrapKey");
}

/* What is measured; the keys are made before. */
static CK_OBJECT_HANDLE parent_key;
static CK_OBJECT_HANDLE gcm_keys[GCM_KEYS];
static unsigned char blobs[BLOBS][BLOB_SIZE];

static void seal(unsigned i, CK_OBJECT_HANDLE key)
{
    unsigned char iv[IV_SIZE] = {(unsigned char)i, (unsigned char)(i >> 8), (unsigned char)(i >> 16),
                                 (unsigned char)(i >> 24)};
    unsigned char aad[AAD_SIZE] = {1};
    unsigned char plaintext[KEY_SIZE] = {2};
    unsigned char sealed[KEY_SIZE + TAG_BITS / 8];
    CK_ULONG len = sizeof sealed;
    CK_GCM_PARAMS parameters = {.pIv = iv,
                                .ulIvLen = IV_SIZE,
                                .ulIvBits = IV_SIZE * 8,
                                .pAAD = aad,
                                .ulAADLen = AAD_SIZE,
                                .ulTagBits = TAG_BITS};
    CK_MECHANISM mechanism = {CKM_AES_GCM, &parameters, sizeof parameters};
    must(p11->C_EncryptInit(session, &mechanism, key), "C_EncryptInit");
    must(p11->C_Encrypt(session, plaintext, sizeof plaintext, sealed, &len), "C_Encrypt");
}

/* Under one key again and again, and under as many keys as a service has customers at work. */
static void do_gcm_one_key(unsigned i)
{
    seal(i, gcm_keys[0]);
}

static void do_gcm(unsigned i)
{
    seal(i, gcm_keys[i % GCM_KEYS]);
}

static void do_unwrap(unsigned i)
{
    must(p11->C_DestroyObject(session, unwrap_key(parent_key, blobs[i % BLOBS])), "C_DestroyObject");
}

static void do_generate_wrap(unsigned i)
{
    const CK_OBJECT_HANDLE key = make_key(CK_TRUE, CK_FALSE, CK_FALSE);
    wrap_key(parent_key, key, blobs[i % BLOBS]);
    must(p11->C_DestroyObject(session, key), "C_DestroyObject");
}

static void do_random(unsigned i)
{
    unsigned char out[KEY_SIZE];
    (void)i;
    must(p11->C_GenerateRandom(session, out, sizeof out), "C_GenerateRandom");
}

/* A key that is only there to be wrapped again, as a sibling in a re-key of a path; with the service's attributes, too. */
static CK_OBJECT_HANDLE unwrap_transit(CK_OBJECT_HANDLE parent, unsigned char *blob)
{
    CK_MECHANISM mechanism = {CKM_AES_KEY_WRAP, NULL, 0};
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_AES;
    CK_ATTRIBUTE attributes[] = {
        {CKA_CLASS, &class, sizeof class}, {CKA_KEY_TYPE, &type, sizeof type},
        {CKA_TOKEN, &no, sizeof no},       {CKA_PRIVATE, &yes, sizeof yes},
        {CKA_SENSITIVE, &yes, sizeof yes}, {CKA_EXTRACTABLE, &yes, sizeof yes},
        {CKA_ENCRYPT, &no, sizeof no},     {CKA_DECRYPT, &no, sizeof no},
        {CKA_WRAP, &no, sizeof no},        {CKA_UNWRAP, &no, sizeof no},
        {CKA_SIGN, &no, sizeof no},        {CKA_VERIFY, &no, sizeof no},
        {CKA_DERIVE, &no, sizeof no},
    };
    CK_OBJECT_HANDLE key = 0;
    must(p11->C_UnwrapKey(session, &mechanism, parent, blob, BLOB_SIZE, attributes,
                          sizeof attributes / sizeof attributes[0], &key),
         "C_UnwrapKey");
    return key;
}

/* Move one key from one parent to another. */
static void rewrap(CK_OBJECT_HANDLE from, CK_OBJECT_HANDLE to, unsigned char *blob)
{
    unsigned char out[BLOB_SIZE];
    const CK_OBJECT_HANDLE key = unwrap_transit(from, blob);
    wrap_key(to, key, out);
    must(p11->C_DestroyObject(session, key), "C_DestroyObject");
}

/* The new root of a tree: a token object, as the service makes it. */
static CK_OBJECT_HANDLE make_token_key(void)
{
    CK_MECHANISM mechanism = {CKM_AES_KEY_GEN, NULL, 0};
    CK_ULONG len = KEY_SIZE;
    char label[] = "bench root";
    CK_ATTRIBUTE attributes[] = {
        {CKA_VALUE_LEN, &len, sizeof len}, {CKA_TOKEN, &yes, sizeof yes},
        {CKA_PRIVATE, &yes, sizeof yes},   {CKA_SENSITIVE, &yes, sizeof yes},
        {CKA_EXTRACTABLE, &no, sizeof no}, {CKA_LABEL, label, sizeof label - 1},
        {CKA_WRAP, &yes, sizeof yes},      {CKA_UNWRAP, &yes, sizeof yes},
    };
    CK_OBJECT_HANDLE key = 0;
    must(p11->C_GenerateKey(session, &mechanism, attributes, sizeof attributes / sizeof attributes[0], &key),
         "C_GenerateKey");
    return key;
}

/* Give a page a new key: under its new parent, with fifteen siblings moved to it. The caller destroys what is returned. */
static CK_OBJECT_HANDLE rekey_page(CK_OBJECT_HANDLE new_parent)
{
    unsigned char blob[BLOB_SIZE];
    const CK_OBJECT_HANDLE old_page = unwrap_transit(parent_key, blobs[0]);
    const CK_OBJECT_HANDLE page = make_key(CK_TRUE, CK_TRUE, CK_FALSE);
    wrap_key(new_parent, page, blob);
    for (unsigned i = 0; i < SIBLINGS; i++)
        rewrap(parent_key, page, blobs[i % BLOBS]);
    must(p11->C_DestroyObject(session, old_page), "C_DestroyObject");
    return page;
}

static void do_page(unsigned i)
{
    (void)i;
    must(p11->C_DestroyObject(session, rekey_page(parent_key)), "C_DestroyObject");
}

/* What a shred of one customer asks of the HSM at the very least: a new root, the page on each level, the old root destroyed. */
static void rekey_path(unsigned levels)
{
    const CK_OBJECT_HANDLE root = make_token_key();
    CK_OBJECT_HANDLE parent = root;
    for (unsigned level = 0; level < levels; level++) {
        const CK_OBJECT_HANDLE page = rekey_page(parent);
        if (parent != root)
            must(p11->C_DestroyObject(session, parent), "C_DestroyObject");
        parent = page;
    }
    must(p11->C_DestroyObject(session, parent), "C_DestroyObject");
    must(p11->C_DestroyObject(session, root), "C_DestroyObject");
}

static void do_path_3(unsigned i)
{
    (void)i;
    rekey_path(3);
}

static void do_path_4(unsigned i)
{
    (void)i;
    rekey_path(4);
}

static void do_path_5(unsigned i)
{
    (void)i;
    rekey_path(5);
}

static void do_path_6(unsigned i)
{
    (void)i;
    rekey_path(6);
}

static const struct operation {
    const char *name;
    void (*run)(unsigned);
    unsigned at_once; /* between two looks at the clock */
} operations[] = {{"gcm", do_gcm, 100},       {"gcm_one_key", do_gcm_one_key, 100},
                  {"unwrap", do_unwrap, 100}, {"generate_wrap", do_generate_wrap, 100},
                  {"random", do_random, 100}, {"page", do_page, 10},
                  {"path_3", do_path_3, 2},   {"path_4", do_path_4, 2},
                  {"path_5", do_path_5, 2},   {"path_6", do_path_6, 2}};

/* Repeat an operation for so long, after a short warm-up, and print what it took. */
static void measure(const struct operation *operation, double seconds)
{
    unsigned done = 0;
    for (; done < 2 * operation->at_once; done++)
        operation->run(done);
    const unsigned warm = done;
    const double cpu = bench_cpu_seconds(getpid());
    const double begun = bench_now();
    double now = begun;
    while (now - begun < seconds) {
        for (unsigned k = 0; k < operation->at_once; k++)
            operation->run(done++);
        now = bench_now();
    }
    const double count = done - warm;
    (void)printf("%.1f %.9f\n", count / (now - begun), (bench_cpu_seconds(getpid()) - cpu) / count);
    (void)fflush(stdout);
}

/* Answer one line of the input. */
static void answer(const char *line)
{
    char name[32];
    double seconds = 0;
    if (sscanf(line, "%31s %lf", name, &seconds) != 2)
        bench_die("not understood: %s", line);
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++)
        if (strcmp(operations[i].name, name) == 0) {
            measure(&operations[i], seconds);
            return;
        }
    bench_die("no such operation: %s", name);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        (void)fprintf(stderr, "usage: %s MODULE TOKEN-LABEL PIN-FILE\n", argv[0]);
        return 2;
    }
    open_token(argv[1], argv[2], argv[3]);
    parent_key = make_key(CK_FALSE, CK_TRUE, CK_FALSE);
    for (unsigned i = 0; i < BLOBS; i++)
        do_generate_wrap(i);
    for (unsigned i = 0; i < GCM_KEYS; i++)
        gcm_keys[i] = unwrap_key(parent_key, blobs[i % BLOBS]);
    char line[100];
    while (fgets(line, sizeof line, stdin) != NULL)
        answer(line);
    must(p11->C_Finalize(NULL), "C_Finalize");
    return 0;
}
