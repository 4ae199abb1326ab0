#include "bench.h"

#include "core/ids.h"

#include <dlfcn.h>

struct bench bench;

/* A new token, one session of its two, and a master key. */
static int open_bench(enum kms_test_token_kind kind)
{
    bench = (struct bench){0};
    kms_test_token_new(kind, &bench.token);
    must(kms_test_token_open(&bench.token, &bench.hsm, &bench.err));
    must(kms_hsm_checkout(bench.hsm, INT64_MAX, &bench.session, &bench.err));
    kms_system_random(bench.id, sizeof bench.id);
    must(bench.hsm->ops->master_create(bench.session, bench.id, "kms/test/1", &bench.master, &bench.err));
    return 0;
}

int bench_open_softhsm(void **state)
{
    (void)state;
    return open_bench(KMS_TEST_SOFTHSM);
}

int bench_open_nss(void **state)
{
    (void)state;
    return open_bench(KMS_TEST_NSS);
}

int bench_close(void **state)
{
    (void)state;
    kms_hsm_checkin(bench.hsm, bench.session);
    kms_hsm_free(bench.hsm);
    kms_test_token_clear(&bench.token);
    return 0;
}

CK_FUNCTION_LIST *bench_raw(void)
{
    void *library = dlopen(bench.token.module, RTLD_NOW | RTLD_NOLOAD);
    assert_non_null(library);
    CK_C_GetFunctionList get_list = NULL;
    *(void **)&get_list = dlsym(library, "C_GetFunctionList");
    CK_FUNCTION_LIST *functions = NULL;
    assert_int_equal(get_list(&functions), CKR_OK);
    (void)dlclose(library);
    return functions;
}

/* The slot that kms_hsm found by its URI. */
static CK_SLOT_ID raw_slot(void)
{
    CK_SLOT_ID slots[16];
    CK_ULONG count = 16;
    assert_int_equal(bench_raw()->C_GetSlotList(CK_TRUE, slots, &count), CKR_OK);
    for (CK_ULONG i = 0; i < count; i++) {
        CK_TOKEN_INFO info;
        assert_int_equal(bench_raw()->C_GetTokenInfo(slots[i], &info), CKR_OK);
        if (memcmp(info.label, "kms ", 4) == 0 || memcmp(info.label, "NSS Cert", 8) == 0)
            return slots[i];
    }
    fail_msg("no slot");
    return 0;
}

CK_SESSION_HANDLE bench_raw_session(void)
{
    CK_SESSION_HANDLE session = 0;
    assert_int_equal(
        bench_raw()->C_OpenSession(raw_slot(), CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session),
        CKR_OK);
    return session;
}

bool bench_raw_flag(CK_OBJECT_HANDLE key, CK_ATTRIBUTE_TYPE type)
{
    CK_SESSION_HANDLE session = bench_raw_session();
    CK_BBOOL value = 0xff;
    CK_ATTRIBUTE attribute = {type, &value, sizeof value};
    assert_int_equal(bench_raw()->C_GetAttributeValue(session, key, &attribute, 1), CKR_OK);
    assert_true(value == CK_TRUE || value == CK_FALSE);
    assert_int_equal(bench_raw()->C_CloseSession(session), CKR_OK);
    return value == CK_TRUE;
}

void bench_assert_usage(CK_OBJECT_HANDLE key, bool encrypt, bool wrap, bool unwrap)
{
    assert_int_equal(bench_raw_flag(key, CKA_ENCRYPT), encrypt);
    assert_int_equal(bench_raw_flag(key, CKA_DECRYPT), encrypt);
    assert_int_equal(bench_raw_flag(key, CKA_WRAP), wrap);
    assert_int_equal(bench_raw_flag(key, CKA_UNWRAP), unwrap);
    assert_false(bench_raw_flag(key, CKA_SIGN));
    assert_false(bench_raw_flag(key, CKA_VERIFY));
    assert_false(bench_raw_flag(key, CKA_DERIVE));
}

struct kms_hsm_key bench_make_kek(void)
{
    uint8_t blob[KMS_HSM_WRAPPED_SIZE];
    struct kms_hsm_key kek = {0};
    must(bench.hsm->ops->generate_wrapped(bench.session, bench.master, blob, &bench.err));
    must(bench.hsm->ops->unwrap(bench.session, bench.master, blob, KMS_HSM_KEK_SERVE, &kek, &bench.err));
    return kek;
}
