/* Goal: only a client's certificate that one of our authorities has issued is accepted, and only while it is valid. */
#include "core/clock.h"
#include "evidence/chain.h"
#include "unit/rpc/certs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char directory[] = "/tmp/kms-chain-XXXXXX";
static struct kms_error err;

/* Text of a file in the directory; freed at the end of the test. */
static char *text_of(const char *name)
{
    char path[100];
    (void)snprintf(path, sizeof path, "%s/%s", directory, name);
    char *text = certs_read(path);
    (void)unlink(path);
    return text;
}

static const char *path_of(const char *name)
{
    static char paths[2][100];
    static unsigned next;
    char *path = paths[next++ % 2];
    (void)snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

/* An authority and what it has issued, as PEM. */
struct issued {
    char *authority, *client, *server;
};

static struct issued issue(const char *name)
{
    struct certs_ca ca = certs_ca_new(name, path_of("ca"));
    (void)certs_issue(&ca, "erin", "spiffe://kms.example/erin", 0, 3600, path_of("client"), path_of("key"));
    (void)certs_issue(&ca, "server", NULL, 1, 3600, path_of("server"), path_of("key"));
    certs_ca_clear(&ca);
    (void)unlink(path_of("key"));
    return (struct issued){text_of("ca"), text_of("client"), text_of("server")};
}

static void forget(struct issued *issued)
{
    free(issued->authority);
    free(issued->client);
    free(issued->server);
}

static enum kms_status verify(const char *certificate, const char *authorities, int64_t seconds_from_now)
{
    err = (struct kms_error){0};
    return kms_chain_verify(kms_slice_str(certificate), kms_slice_str(authorities),
                            kms_clock_wall_ns() + seconds_from_now * KMS_NS_PER_SECOND, &err);
}

static void our_own_are_accepted_while_they_are_valid(void **state)
{
    (void)state;
    struct issued ours = issue("ours");
    assert_int_equal(verify(ours.client, ours.authority, 0), KMS_OK);
    assert_int_equal(verify(ours.client, ours.authority, 3500), KMS_OK);
    assert_int_equal(verify(ours.client, ours.authority, 3700), KMS_TAMPERED);
    assert_non_null(strstr(err.public_text, "expired"));
    assert_int_equal(verify(ours.client, ours.authority, -7200), KMS_TAMPERED);
    forget(&ours);
}

static void those_of_others_are_not_even_with_the_same_names(void **state)
{
    (void)state;
    struct issued ours = issue("same name");
    struct issued theirs = issue("same name");
    assert_int_equal(verify(theirs.client, ours.authority, 0), KMS_TAMPERED);
    forget(&ours);
    forget(&theirs);
}

static void any_of_several_authorities_will_do(void **state)
{
    (void)state;
    struct issued old = issue("old");
    struct issued new = issue("new");
    char both[8192];
    (void)snprintf(both, sizeof both, "%s%s", old.authority, new.authority);
    assert_int_equal(verify(old.client, both, 0), KMS_OK);
    assert_int_equal(verify(new.client, both, 0), KMS_OK);
    forget(&old);
    forget(&new);
}

static void a_flipped_byte_is_refused(void **state)
{
    (void)state;
    struct issued ours = issue("ours");
    unsigned refused = 0;
    const size_t len = strlen(ours.client);
    for (size_t at = 28; at + 26 < len; at += 7) { /* inside the base64 */
        const char before = ours.client[at];
        ours.client[at] = before == 'A' ? 'B' : 'A';
        if (before != '\n' && before != ours.client[at])
            refused += verify(ours.client, ours.authority, 0) != KMS_OK;
        else
            refused++;
        ours.client[at] = before;
    }
    assert_int_equal(refused, (len - 26 - 28 + 6) / 7);
    forget(&ours);
}

static void what_is_no_certificate_is_refused(void **state)
{
    (void)state;
    struct issued ours = issue("ours");
    char *long_text = calloc(1, KMS_EVIDENCE_AUTHORITIES_MAX + 2);
    assert_non_null(long_text);
    memset(long_text, 'a', KMS_EVIDENCE_AUTHORITIES_MAX + 1);
    assert_int_equal(verify("", ours.authority, 0), KMS_INVALID_ARGUMENT);
    assert_int_equal(verify("hello", ours.authority, 0), KMS_INVALID_ARGUMENT);
    assert_int_equal(verify(long_text, ours.authority, 0), KMS_INVALID_ARGUMENT);
    assert_int_equal(verify(ours.client, "", 0), KMS_INVALID_ARGUMENT);
    assert_int_equal(verify(ours.client, "hello", 0), KMS_INVALID_ARGUMENT);
    assert_int_equal(verify(ours.client, long_text, 0), KMS_INVALID_ARGUMENT);
    free(long_text);
    forget(&ours);
}

static int make_directory(void **state)
{
    (void)state;
    return mkdtemp(directory) != NULL ? 0 : -1;
}

static int remove_directory(void **state)
{
    (void)state;
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(our_own_are_accepted_while_they_are_valid),
        cmocka_unit_test(those_of_others_are_not_even_with_the_same_names),
        cmocka_unit_test(any_of_several_authorities_will_do),
        cmocka_unit_test(a_flipped_byte_is_refused),
        cmocka_unit_test(what_is_no_certificate_is_refused),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
