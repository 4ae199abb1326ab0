/*
 * Purpose:   initialise a PKCS#11 token and its user PIN, with both PINs from files.
 * Owns:      the module while it runs.
 * Threads:   one.
 * Never:     takes a PIN from the command line; touches a token that has the label already, except to check
 * the user PIN once and to set one where there is none.
 */
#include "core/secret.h"

#include <dlfcn.h>
#include <getopt.h>
#include <p11-kit/pkcs11.h>
#include <stdio.h>
#include <string.h>

enum { LABEL_SIZE = 32, SLOTS_MAX = 64 };

struct options {
    const char *module;
    const char *init_args;
    const char *label;
    const char *so_pin_file;
    const char *pin_file;
};

static const char usage_text[] =
    "usage: kms-token-init --module PATH --label LABEL --so-pin-file FILE --pin-file FILE [--init-args "
    "TEXT]\n"
    "Initialises the first free token of a PKCS#11 module. A token that has the label already is kept.\n";

/* One place that turns a CKR value into a message and an exit code. */
static int failed(const char *what, CK_RV rv)
{
    const char *hint = "";
    if (rv == CKR_PIN_INCORRECT)
        hint = ": the PIN in the file is not this token's; it was tried once only";
    else if (rv == CKR_PIN_LOCKED)
        hint = ": the token has locked this PIN";
    else if (rv == CKR_TOKEN_WRITE_PROTECTED)
        hint = ": the token's directory is not writable";
    (void)fprintf(stderr, "kms-token-init: %s failed with CKR 0x%lx%s\n", what, (unsigned long)rv, hint);
    return 1;
}

/* False, after the usage text, when an option is missing or unknown. */
static bool parse_options(int argc, char **argv, struct options *ret_options)
{
    static const struct option known[] = {
        {"module", required_argument, NULL, 'm'},   {"init-args", required_argument, NULL, 'i'},
        {"label", required_argument, NULL, 'l'},    {"so-pin-file", required_argument, NULL, 's'},
        {"pin-file", required_argument, NULL, 'p'}, {NULL, 0, NULL, 0}};
    struct options options = {0};
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (c) {
        case 'm':
            options.module = optarg;
            break;
        case 'i':
            options.init_args = optarg;
            break;
        case 'l':
            options.label = optarg;
            break;
        case 's':
            options.so_pin_file = optarg;
            break;
        case 'p':
            options.pin_file = optarg;
            break;
        default:
            (void)fputs(usage_text, stderr);
            return false;
        }
    }
    if (options.module == NULL || options.label == NULL || options.so_pin_file == NULL ||
        options.pin_file == NULL || optind != argc || strlen(options.label) > LABEL_SIZE) {
        (void)fputs(usage_text, stderr);
        return false;
    }
    *ret_options = options;
    return true;
}

/* A PIN, or an empty secret after a message. */
static bool read_pin(const char *path, struct kms_secret *ret_pin)
{
    struct kms_error err = {0};
    const enum kms_status status = kms_secret_read_file(path, ret_pin, &err);
    if (status != KMS_OK)
        (void)fprintf(stderr, "kms-token-init: %s\n", kms_error_public(&err, status));
    return status == KMS_OK;
}

/* The slot whose token is initialised under this label, or else the first free one; found=false when neither.
 */
static CK_RV choose_slot(CK_FUNCTION_LIST_PTR p11, const CK_UTF8CHAR label[LABEL_SIZE], CK_SLOT_ID *ret_slot,
                         CK_TOKEN_INFO *ret_info, bool *ret_found)
{
    CK_SLOT_ID slots[SLOTS_MAX];
    CK_ULONG count = SLOTS_MAX;
    const CK_RV rv = p11->C_GetSlotList(CK_TRUE, slots, &count);
    if (rv != CKR_OK)
        return rv;
    *ret_found = false;
    for (CK_ULONG i = 0; i < count; i++) {
        CK_TOKEN_INFO info;
        if (p11->C_GetTokenInfo(slots[i], &info) != CKR_OK)
            continue;
        const bool initialised = (info.flags & CKF_TOKEN_INITIALIZED) != 0;
        const bool ours = initialised && memcmp(info.label, label, LABEL_SIZE) == 0;
        if (ours || (!initialised && !*ret_found)) {
            *ret_slot = slots[i];
            *ret_info = info;
            *ret_found = true;
        }
        if (ours)
            break;
    }
    return CKR_OK;
}

/* The security officer gives the user a first PIN. */
static int set_user_pin(CK_FUNCTION_LIST_PTR p11, CK_SESSION_HANDLE session, const struct kms_secret *so_pin,
                        const struct kms_secret *pin)
{
    CK_RV rv = p11->C_Login(session, CKU_SO, so_pin->data, so_pin->len);
    if (rv != CKR_OK)
        return failed("logging in as security officer", rv);
    rv = p11->C_InitPIN(session, pin->data, pin->len);
    (void)p11->C_Logout(session);
    return rv == CKR_OK ? 0 : failed("setting the user PIN", rv);
}

/* Bring the token in `slot` to the wanted state: initialised, with a user PIN that works. */
static int prepare_token(CK_FUNCTION_LIST_PTR p11, CK_SLOT_ID slot, CK_FLAGS flags, CK_UTF8CHAR *label,
                         const struct kms_secret *so_pin, const struct kms_secret *pin)
{
    const bool initialised = (flags & CKF_TOKEN_INITIALIZED) != 0;
    const bool has_pin = initialised && (flags & CKF_USER_PIN_INITIALIZED) != 0;
    CK_RV rv = initialised ? CKR_OK : p11->C_InitToken(slot, so_pin->data, so_pin->len, label);
    if (rv != CKR_OK)
        return failed("initialising the token", rv);
    CK_SESSION_HANDLE session = CK_INVALID_HANDLE;
    rv = p11->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session);
    if (rv != CKR_OK)
        return failed("opening a session", rv);
    int result = has_pin ? 0 : set_user_pin(p11, session, so_pin, pin);
    if (result == 0) {
        rv = p11->C_Login(session, CKU_USER, pin->data, pin->len);
        result = rv == CKR_OK ? 0 : failed("logging in with the user PIN", rv);
    }
    (void)p11->C_CloseSession(session);
    if (result == 0)
        (void)printf(has_pin ? "the token is there already and opens with its PIN\n"
                             : "the token is initialised\n");
    return result;
}

/* The part between C_Initialize and C_Finalize. */
static int run(CK_FUNCTION_LIST_PTR p11, const struct options *options)
{
    KMS_SECRET so_pin = {0};
    KMS_SECRET pin = {0};
    if (!read_pin(options->so_pin_file, &so_pin) || !read_pin(options->pin_file, &pin))
        return 1;
    CK_UTF8CHAR label[LABEL_SIZE];
    memset(label, ' ', sizeof label);
    memcpy(label, options->label, strlen(options->label));
    CK_SLOT_ID slot = 0;
    CK_TOKEN_INFO info = {0};
    bool found = false;
    const CK_RV rv = choose_slot(p11, label, &slot, &info, &found);
    if (rv != CKR_OK)
        return failed("listing the tokens", rv);
    if (!found) {
        (void)fprintf(stderr, "kms-token-init: no token is named '%s' and none is free\n", options->label);
        return 1;
    }
    return prepare_token(p11, slot, info.flags, label, &so_pin, &pin);
}

int main(int argc, char **argv)
{
    struct options options;
    if (!parse_options(argc, argv, &options))
        return 2;
    void *module = dlopen(options.module, RTLD_NOW | RTLD_LOCAL);
    if (module == NULL) {
        (void)fprintf(stderr, "kms-token-init: %s\n", dlerror());
        return 1;
    }
    CK_C_GetFunctionList get_list = NULL;
    *(void **)&get_list = dlsym(module, "C_GetFunctionList");
    CK_FUNCTION_LIST_PTR p11 = NULL;
    if (get_list == NULL || get_list(&p11) != CKR_OK) {
        (void)fprintf(stderr, "kms-token-init: %s is not a PKCS#11 module\n", options.module);
        return 1;
    }
    union {
        const char *text;
        CK_CHAR_PTR reserved;
    } init_args = {.text = options.init_args};
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK, .pReserved = init_args.reserved};
    const CK_RV rv = p11->C_Initialize(&args);
    if (rv != CKR_OK)
        return failed("starting the module", rv);
    const int result = run(p11, &options);
    (void)p11->C_Finalize(NULL);
    return result;
}
