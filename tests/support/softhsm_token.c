#define _GNU_SOURCE
#include "support/softhsm_token.h"

#include <dlfcn.h>
#include <ftw.h>
#include <p11-kit/pkcs11.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SLOTS_MAX = 16 };

/* SoftHSM 2.6.1 loses a little memory with every object that is destroyed; that is not ours to mend. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libsofthsm2.so\nleak:libsoftokn3.so\n";
}

/* A test without its token proves nothing, so there is no way on. */
static _Noreturn void give_up(const char *what, unsigned long code)
{
    (void)fprintf(stderr, "test token: %s failed (0x%lx)\n", what, code);
    abort();
}

/* printf into a field that must be large enough. */
static void KMS_PRINTF(3, 4) put(char *field, size_t size, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    const int len = vsnprintf(field, size, fmt, args);
    va_end(args);
    if (len < 0 || (size_t)len >= size)
        give_up("a path is too long", 0);
}

/* Write a whole file. */
static void write_file(const char *path, const char *text)
{
    KMS_FCLOSE FILE *file = fopen(path, "we");
    if (file == NULL || fputs(text, file) < 0 || fflush(file) != 0)
        give_up(path, 0);
}

/* The module's functions; it stays loaded, so that a leak report can name it. */
static CK_FUNCTION_LIST *load(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (library == NULL)
        give_up(dlerror(), 0);
    CK_RV (*get_list)(CK_FUNCTION_LIST **) = NULL;
    *(void **)&get_list = dlsym(library, "C_GetFunctionList");
    CK_FUNCTION_LIST *functions = NULL;
    if (get_list == NULL || get_list(&functions) != CKR_OK)
        give_up("C_GetFunctionList", 0);
    (void)dlclose(library);
    return functions;
}

/* One Cryptoki call of the set-up, which must succeed. */
static void must(const char *what, CK_RV rv)
{
    if (rv != CKR_OK)
        give_up(what, rv);
}

/* The slot whose token has this label (padded with blanks in the token), or the last one when label is NULL. */
static CK_SLOT_ID find_slot(CK_FUNCTION_LIST *functions, const char *label)
{
    CK_SLOT_ID slots[SLOTS_MAX];
    CK_ULONG count = SLOTS_MAX;
    must("C_GetSlotList", functions->C_GetSlotList(CK_TRUE, slots, &count));
    for (CK_ULONG i = 0; i < count; i++) {
        CK_TOKEN_INFO info;
        must("C_GetTokenInfo", functions->C_GetTokenInfo(slots[i], &info));
        if (label != NULL && memcmp(info.label, label, strlen(label)) == 0)
            return slots[i];
    }
    if (label != NULL || count == 0)
        give_up("looking for the token", 0);
    return slots[count - 1];
}

/* Both kinds: the security officer sets the user's PIN. */
static void set_user_pin(CK_FUNCTION_LIST *functions, CK_SLOT_ID slot, const char *so_pin)
{
    CK_SESSION_HANDLE session;
    must("C_OpenSession",
         functions->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session));
    char so[] = KMS_TEST_SO_PIN;
    char user[] = KMS_TEST_PIN;
    must("C_Login", functions->C_Login(session, CKU_SO, (CK_UTF8CHAR *)so, strlen(so_pin)));
    must("C_InitPIN", functions->C_InitPIN(session, (CK_UTF8CHAR *)user, strlen(user)));
    must("C_Logout", functions->C_Logout(session));
    must("C_CloseSession", functions->C_CloseSession(session));
}

/* An empty token directory, its configuration, and a token labelled "kms". */
static void make_softhsm(struct kms_test_token *token)
{
    char path[128];
    char text[256];
    put(path, sizeof path, "%s/tokens", token->directory);
    if (mkdir(path, 0700) != 0)
        give_up("mkdir", 0);
    put(text, sizeof text, "directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n",
        path);
    put(path, sizeof path, "%s/softhsm2.conf", token->directory);
    write_file(path, text);
    (void)setenv("SOFTHSM2_CONF", path, 1);

    put(token->module, sizeof token->module, "/usr/lib/softhsm/libsofthsm2.so");
    put(token->uri, sizeof token->uri, "pkcs11:token=kms");
    CK_FUNCTION_LIST *functions = load(token->module);
    must("C_Initialize", functions->C_Initialize(NULL));
    char so[] = KMS_TEST_SO_PIN;
    CK_UTF8CHAR label[32];
    memset(label, ' ', sizeof label);
    memcpy(label, "kms", 3);
    must("C_InitToken",
         functions->C_InitToken(find_slot(functions, NULL), (CK_UTF8CHAR *)so, strlen(so), label));
    set_user_pin(functions, find_slot(functions, "kms"), KMS_TEST_SO_PIN);
    must("C_Finalize", functions->C_Finalize(NULL));
}

/* A new NSS database; its certificate slot is the token. */
static void make_nss(struct kms_test_token *token)
{
    put(token->module, sizeof token->module, "/usr/lib/x86_64-linux-gnu/libsoftokn3.so");
    put(token->uri, sizeof token->uri, "pkcs11:token=NSS%%20Certificate%%20DB");
    put(token->init_args, sizeof token->init_args,
        "configdir='sql:%s' certPrefix='' keyPrefix='' secmod='secmod.db' flags=", token->directory);
    CK_FUNCTION_LIST *functions = load(token->module);
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK, .pReserved = token->init_args};
    must("C_Initialize", functions->C_Initialize(&args));
    set_user_pin(functions, find_slot(functions, "NSS Certificate DB"), "");
    must("C_Finalize", functions->C_Finalize(NULL));
}

void kms_test_token_new(enum kms_test_token_kind kind, struct kms_test_token *ret_token)
{
    *ret_token = (struct kms_test_token){.kind = kind};
    put(ret_token->directory, sizeof ret_token->directory, "/tmp/kms-token-XXXXXX");
    if (mkdtemp(ret_token->directory) == NULL)
        give_up("mkdtemp", 0);
    put(ret_token->lock, sizeof ret_token->lock, "%s/startup.lock", ret_token->directory);
    put(ret_token->fault_control, sizeof ret_token->fault_control, "%s/faults", ret_token->directory);
    put(ret_token->fault_module, sizeof ret_token->fault_module, "%s", KMS_FAULTP11_PATH);
    put(ret_token->profile, sizeof ret_token->profile, "%s/hsm-config/profiles/%s.yaml", KMS_SOURCE_DIR,
        kind == KMS_TEST_SOFTHSM ? "softhsm2" : "nss");
    if (kind == KMS_TEST_SOFTHSM)
        make_softhsm(ret_token);
    else
        make_nss(ret_token);
}

/* nftw callback: the walk is depth first, so directories are empty when it comes to them. */
static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *ftw)
{
    (void)info;
    (void)type;
    (void)ftw;
    return remove(path);
}

void kms_test_token_clear(struct kms_test_token *token)
{
    if (token->directory[0] != '\0' && nftw(token->directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS) != 0)
        give_up("removing the token directory", 0);
    *token = (struct kms_test_token){0};
}

void kms_test_token_add_faults(struct kms_test_token *token)
{
    (void)setenv("KMS_FAULTP11_MODULE", token->module, 1);
    (void)setenv("KMS_FAULTP11_CONTROL", token->fault_control, 1);
    kms_test_token_fault(token, "");
    put(token->module, sizeof token->module, "%s", token->fault_module);
}

void kms_test_token_fault(const struct kms_test_token *token, const char *rules)
{
    char path[128];
    put(path, sizeof path, "%s.new", token->fault_control);
    write_file(path, rules);
    if (rename(path, token->fault_control) != 0)
        give_up("rename", 0);
}

unsigned kms_test_token_fired(const struct kms_test_token *token)
{
    char path[128];
    put(path, sizeof path, "%s.log", token->fault_control);
    KMS_FCLOSE FILE *file = fopen(path, "re");
    unsigned lines = 0;
    for (int c; file != NULL && (c = fgetc(file)) != EOF;)
        lines += c == '\n';
    return lines;
}
