/* Revocation lists are believed only when they are whole, signed, in force and of the right CA. */
#include "unit/auth/pki.h"

#include "auth/crl.h"
#include "core/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct pki_ca ca, other_ca, weak_ca;

static int make_cas(void **state)
{
    (void)state;
    ca = pki_ca_new("Test CA", true);
    other_ca = pki_ca_new("Other CA", true);
    weak_ca = pki_ca_new("Weak CA", false);
    return 0;
}

static int drop_cas(void **state)
{
    (void)state;
    pki_ca_clear(&ca);
    pki_ca_clear(&other_ca);
    pki_ca_clear(&weak_ca);
    return 0;
}

static enum kms_status load(const char *crl_pem, const char *ca_pem, struct kms_crl **crl,
                            struct kms_error *err)
{
    return kms_crl_parse("ca.crl", kms_slice_str(crl_pem), kms_slice_str(ca_pem), kms_clock_wall_ns(), crl,
                         err);
}

static struct kms_crl *load_good(const char *crl_pem, const char *ca_pem)
{
    struct kms_crl *crl = NULL;
    struct kms_error err = {0};
    if (load(crl_pem, ca_pem, &crl, &err) != KMS_OK)
        fail_msg("%s", kms_error_cause(&err, KMS_CONFIG_INVALID));
    return crl;
}

/* Loads and frees `crl_pem`, which must be refused with this text. */
static void expect_refusal(char *crl_pem, const char *ca_pem, const char *text)
{
    struct kms_crl *crl = NULL;
    struct kms_error err = {0};
    assert_int_equal(load(crl_pem, ca_pem, &crl, &err), KMS_CONFIG_INVALID);
    assert_null(crl);
    if (strstr(err.public_text, text) == NULL)
        fail_msg("text is '%s', not '%s'", err.public_text, text);
    free(crl_pem);
}

static struct kms_certificate certificate_of(const struct pki_ca *issuer, const char *serial)
{
    struct kms_certificate certificate;
    char *pem = pki_leaf_pem(issuer, &(struct pki_leaf){.cn = "app", .serial = serial});
    assert_int_equal(kms_identity_parse(kms_slice_str(pem), &certificate, NULL), KMS_OK);
    free(pem);
    return certificate;
}

static enum kms_crl_answer answer(const struct kms_crl *crl, const struct pki_ca *issuer, const char *serial)
{
    int64_t until_ns = 0;
    const struct kms_certificate certificate = certificate_of(issuer, serial);
    return kms_crl_check(crl, &certificate, kms_clock_wall_ns(), &until_ns);
}

static void listed_serials_are_revoked_and_no_others(void **state)
{
    (void)state;
    char *pem = pki_crl_pem(&ca, &ca, &(struct pki_crl){.serials = {"7", "300", "1180591620717411303424"}});
    struct kms_crl *crl = load_good(pem, ca.pem);
    assert_int_equal(kms_crl_size(crl), 3);
    assert_int_equal(answer(crl, &ca, "7"), KMS_CRL_REVOKED);
    assert_int_equal(answer(crl, &ca, "300"), KMS_CRL_REVOKED);
    assert_int_equal(answer(crl, &ca, "1180591620717411303424"), KMS_CRL_REVOKED);
    assert_int_equal(answer(crl, &ca, "8"), KMS_CRL_GOOD);
    assert_int_equal(answer(crl, &ca, "1180591620717411303425"), KMS_CRL_GOOD);
    assert_int_equal(answer(crl, &other_ca, "7"), KMS_CRL_NO_LIST);
    kms_crl_free(crl);
    free(pem);
}

static void an_empty_list_revokes_nobody(void **state)
{
    (void)state;
    char *pem = pki_crl_pem(&ca, &ca, &(struct pki_crl){0});
    struct kms_crl *crl = load_good(pem, ca.pem);
    assert_int_equal(answer(crl, &ca, "7"), KMS_CRL_GOOD);
    kms_crl_free(crl);
    free(pem);
}

static void several_lists_in_one_file_all_count(void **state)
{
    (void)state;
    char *first = pki_crl_pem(&ca, &ca, &(struct pki_crl){.serials = {"7"}});
    char *second = pki_crl_pem(&other_ca, &other_ca, &(struct pki_crl){.serials = {"8"}});
    char *third = pki_crl_pem(&ca, &ca, &(struct pki_crl){.serials = {"9"}, .next_update = 60});
    char both[16384];
    char cas[8192];
    (void)snprintf(both, sizeof both, "# comment\n%s%s%s", first, second, third);
    (void)snprintf(cas, sizeof cas, "%s%s", other_ca.pem, ca.pem);
    struct kms_crl *crl = load_good(both, cas);
    assert_int_equal(answer(crl, &ca, "7"), KMS_CRL_REVOKED);
    assert_int_equal(answer(crl, &other_ca, "7"), KMS_CRL_GOOD);
    assert_int_equal(answer(crl, &other_ca, "8"), KMS_CRL_REVOKED);
    assert_int_equal(answer(crl, &ca, "9"), KMS_CRL_REVOKED);
    int64_t until_ns = 0;
    const struct kms_certificate certificate = certificate_of(&ca, "1");
    assert_int_equal(kms_crl_check(crl, &certificate, kms_clock_wall_ns(), &until_ns), KMS_CRL_GOOD);
    assert_true(until_ns <= kms_clock_wall_ns() + 60 * KMS_NS_PER_SECOND);
    assert_int_equal(kms_crl_check(crl, &certificate, until_ns + 1, &until_ns), KMS_CRL_EXPIRED);
    kms_crl_free(crl);
    free(first);
    free(second);
    free(third);
}

static void a_revoked_certificate_stays_revoked_when_the_list_expires(void **state)
{
    (void)state;
    char *pem = pki_crl_pem(&ca, &ca, &(struct pki_crl){.serials = {"7"}});
    struct kms_crl *crl = load_good(pem, ca.pem);
    int64_t until_ns = 0;
    const struct kms_certificate certificate = certificate_of(&ca, "7");
    assert_int_equal(kms_crl_check(crl, &certificate, INT64_MAX, &until_ns), KMS_CRL_REVOKED);
    kms_crl_free(crl);
    free(pem);
}

static void a_list_signed_by_the_wrong_key_is_refused(void **state)
{
    (void)state;
    expect_refusal(pki_crl_pem(&ca, &other_ca, &(struct pki_crl){0}), ca.pem, "does not verify");
}

static void a_list_of_a_foreign_ca_is_refused(void **state)
{
    (void)state;
    expect_refusal(pki_crl_pem(&other_ca, &other_ca, &(struct pki_crl){0}), ca.pem,
                   "not issued by a client CA");
}

static void a_ca_without_the_right_to_sign_lists_is_refused(void **state)
{
    (void)state;
    expect_refusal(pki_crl_pem(&weak_ca, &weak_ca, &(struct pki_crl){0}), weak_ca.pem, "does not verify");
}

static void lists_out_of_date_are_refused(void **state)
{
    (void)state;
    expect_refusal(pki_crl_pem(&ca, &ca, &(struct pki_crl){.this_update = -7200, .next_update = -60}), ca.pem,
                   "revocation list 1 expired at ");
    expect_refusal(pki_crl_pem(&ca, &ca, &(struct pki_crl){.this_update = 1800}), ca.pem,
                   "is not valid before");
    expect_refusal(pki_crl_pem(&ca, &ca, &(struct pki_crl){.no_next_update = true}), ca.pem, "lacks");
}

static void partial_lists_are_refused(void **state)
{
    (void)state;
    expect_refusal(pki_crl_pem(&ca, &ca, &(struct pki_crl){.delta = true}), ca.pem, "delta");
    expect_refusal(pki_crl_pem(&ca, &ca, &(struct pki_crl){.serials = {"1"}, .entry_critical = true}), ca.pem,
                   "entry with a critical extension");
}

static void damaged_files_are_refused(void **state)
{
    (void)state;
    expect_refusal(strdup(""), ca.pem, "no PEM block");
    expect_refusal(strdup("garbage\n"), ca.pem, "no PEM block");
    expect_refusal(strdup(ca.pem), ca.pem, "no PEM block");
    expect_refusal(pki_crl_pem(&ca, &ca, &(struct pki_crl){0}), "garbage", "no readable PEM certificate");
    char *good = pki_crl_pem(&ca, &ca, &(struct pki_crl){.serials = {"7"}});
    char *second = malloc(2 * strlen(good) + 1);
    for (size_t cut = 40; cut < strlen(good) - 10; cut += 31) {
        (void)snprintf(second, 2 * strlen(good) + 1, "%s%.*s", good, (int)cut, good);
        expect_refusal(strdup(second), ca.pem, "revocation list 2 cannot be parsed");
    }
    free(second);
    free(good);
}

static void every_flipped_byte_is_refused(void **state)
{
    (void)state;
    char *good = pki_crl_pem(&ca, &ca, &(struct pki_crl){.serials = {"7"}});
    const size_t begin = strlen("-----BEGIN X509 CRL-----\n");
    char *end = strstr(good, "\n-----END");
    size_t flipped = 0;
    for (char *byte = good + begin; byte < end; byte++) {
        if (*byte == '\n' || *byte == '=')
            continue;
        const char kept = *byte;
        *byte = kept == 'A' ? 'B' : 'A';
        struct kms_crl *crl = NULL;
        const enum kms_status status = load(good, ca.pem, &crl, NULL);
        /* the last character before padding may hold bits that decode to nothing */
        if (status == KMS_OK && byte[1] != '=')
            fail_msg("flipping byte %td went unnoticed", byte - good);
        kms_crl_free(crl);
        *byte = kept;
        flipped++;
    }
    assert_true(flipped > 200);
    free(good);
}

/* A root, two authorities below it and one below the first of these, with the lists of all. */
struct tree {
    struct pki_ca root, first, second, deep;
    char cas[16384], lists[16384];
};

/* Revoked are the serials that are given: of those below the root, and below the first. */
static void plant(struct tree *tree, const char *below_root, const char *below_first, bool identified)
{
    *tree = (struct tree){.root = pki_ca_new("Root", true)};
    tree->first = pki_ca_below(&tree->root, "First", "21", identified);
    tree->second = pki_ca_below(&tree->root, "Second", "22", identified);
    tree->deep = pki_ca_below(&tree->first, "Deep", "31", identified);
    char *of_root = pki_crl_pem(&tree->root, &tree->root, &(struct pki_crl){.serials = {below_root}});
    char *of_first = pki_crl_pem(&tree->first, &tree->first, &(struct pki_crl){.serials = {below_first}});
    char *of_second = pki_crl_pem(&tree->second, &tree->second, &(struct pki_crl){0});
    char *of_deep = pki_crl_pem(&tree->deep, &tree->deep, &(struct pki_crl){0});
    (void)snprintf(tree->cas, sizeof tree->cas, "%s%s%s%s", tree->deep.pem, tree->first.pem, tree->second.pem,
                   tree->root.pem);
    (void)snprintf(tree->lists, sizeof tree->lists, "%s%s%s%s", of_root, of_first, of_second, of_deep);
    free(of_root);
    free(of_first);
    free(of_second);
    free(of_deep);
}

static void fell(struct tree *tree)
{
    pki_ca_clear(&tree->root);
    pki_ca_clear(&tree->first);
    pki_ca_clear(&tree->second);
    pki_ca_clear(&tree->deep);
}

static void an_authority_that_is_revoked_takes_all_below_it_along(void **state)
{
    (void)state;
    for (int identified = 0; identified < 2; identified++) {
        struct tree tree;
        plant(&tree, "21", NULL, identified);
        struct kms_crl *crl = load_good(tree.lists, tree.cas);
        assert_int_equal(answer(crl, &tree.root, "1"), KMS_CRL_GOOD);
        assert_int_equal(answer(crl, &tree.first, "1"), KMS_CRL_CHAIN_REVOKED);
        assert_int_equal(answer(crl, &tree.deep, "1"), KMS_CRL_CHAIN_REVOKED);
        assert_int_equal(answer(crl, &tree.second, "1"), KMS_CRL_GOOD);
        kms_crl_free(crl);
        fell(&tree);
    }
}

static void one_in_the_middle_takes_only_those_below_it(void **state)
{
    (void)state;
    struct tree tree;
    plant(&tree, NULL, "31", true);
    struct kms_crl *crl = load_good(tree.lists, tree.cas);
    assert_int_equal(answer(crl, &tree.first, "1"), KMS_CRL_GOOD);
    assert_int_equal(answer(crl, &tree.deep, "1"), KMS_CRL_CHAIN_REVOKED);
    kms_crl_free(crl);
    fell(&tree);
}

static void a_tree_of_good_authorities_serves(void **state)
{
    (void)state;
    struct tree tree;
    plant(&tree, "99", "99", true);
    struct kms_crl *crl = load_good(tree.lists, tree.cas);
    assert_int_equal(answer(crl, &tree.deep, "1"), KMS_CRL_GOOD);
    assert_int_equal(answer(crl, &tree.first, "99"), KMS_CRL_REVOKED);
    kms_crl_free(crl);
    fell(&tree);
}

static void an_authority_without_a_list_above_it_fails_closed(void **state)
{
    (void)state;
    struct tree tree;
    plant(&tree, NULL, NULL, true);
    char *own = pki_crl_pem(&tree.first, &tree.first, &(struct pki_crl){0});
    struct kms_crl *crl = load_good(own, tree.cas);
    assert_int_equal(answer(crl, &tree.first, "1"), KMS_CRL_NO_LIST);
    kms_crl_free(crl);
    crl = load_good(own, tree.first.pem); /* where the operator's trust begins, nobody is above */
    assert_int_equal(answer(crl, &tree.first, "1"), KMS_CRL_GOOD);
    kms_crl_free(crl);
    free(own);
    fell(&tree);
}

static void the_first_list_of_a_chain_that_ends_ends_the_answer(void **state)
{
    (void)state;
    struct tree tree;
    plant(&tree, NULL, NULL, true);
    char *soon = pki_crl_pem(&tree.root, &tree.root, &(struct pki_crl){.next_update = 60});
    char lists[sizeof tree.lists + 4096];
    (void)snprintf(lists, sizeof lists, "%s%s", tree.lists, soon);
    struct kms_crl *crl = load_good(lists, tree.cas);
    int64_t until_ns = 0;
    const struct kms_certificate certificate = certificate_of(&tree.deep, "1");
    assert_int_equal(kms_crl_check(crl, &certificate, kms_clock_wall_ns(), &until_ns), KMS_CRL_GOOD);
    assert_true(until_ns <= kms_clock_wall_ns() + 60 * KMS_NS_PER_SECOND);
    assert_int_equal(kms_crl_check(crl, &certificate, until_ns + 1, &until_ns), KMS_CRL_EXPIRED);
    kms_crl_free(crl);
    free(soon);
    fell(&tree);
}

/* What a leaf of `issuer` is answered, with the identifier of the issuer's key in it. */
static enum kms_crl_answer answer_identified(const struct kms_crl *crl, const struct pki_ca *issuer)
{
    struct kms_certificate certificate;
    int64_t until_ns = 0;
    char *pem = pki_leaf_pem(issuer, &(struct pki_leaf){.cn = "app", .identified = true});
    assert_int_equal(kms_identity_parse(kms_slice_str(pem), &certificate, NULL), KMS_OK);
    free(pem);
    return kms_crl_check(crl, &certificate, kms_clock_wall_ns(), &until_ns);
}

static void of_two_authorities_of_one_name_the_key_tells_which(void **state)
{
    (void)state;
    struct pki_ca root = pki_ca_new("Root", true);
    struct pki_ca old = pki_ca_below(&root, "Same", "21", true);
    struct pki_ca new = pki_ca_below(&root, "Same", "22", true);
    struct pki_ca stranger = pki_ca_below(&root, "Same", "23", true);
    char *of_root = pki_crl_pem(&root, &root, &(struct pki_crl){.serials = {"21"}});
    char *of_same = pki_crl_pem(&new, &new, &(struct pki_crl){0});
    char cas[16384];
    char lists[8192];
    (void)snprintf(cas, sizeof cas, "%s%s%s", root.pem, old.pem, new.pem);
    (void)snprintf(lists, sizeof lists, "%s%s", of_root, of_same);
    struct kms_crl *crl = load_good(lists, cas);
    assert_int_equal(answer_identified(crl, &new), KMS_CRL_GOOD);
    assert_int_equal(answer_identified(crl, &old), KMS_CRL_CHAIN_REVOKED);
    assert_int_equal(answer_identified(crl, &stranger), KMS_CRL_NO_LIST); /* it is not in the file */
    assert_int_equal(answer(crl, &new, "1"), KMS_CRL_CHAIN_REVOKED);      /* whose it is cannot be told */
    kms_crl_free(crl);
    free(of_root);
    free(of_same);
    pki_ca_clear(&root);
    pki_ca_clear(&old);
    pki_ca_clear(&new);
    pki_ca_clear(&stranger);
}

static void too_many_authorities_are_refused(void **state)
{
    (void)state;
    const size_t len = strlen(ca.pem);
    char *many = malloc((KMS_CRL_AUTHORITIES_MAX + 1) * len + 1);
    assert_non_null(many);
    many[0] = '\0';
    for (size_t i = 0; i <= KMS_CRL_AUTHORITIES_MAX; i++)
        memcpy(many + i * len, ca.pem, len + 1);
    expect_refusal(pki_crl_pem(&ca, &ca, &(struct pki_crl){0}), many, "more than 1000");
    free(many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(listed_serials_are_revoked_and_no_others),
        cmocka_unit_test(an_empty_list_revokes_nobody),
        cmocka_unit_test(several_lists_in_one_file_all_count),
        cmocka_unit_test(a_revoked_certificate_stays_revoked_when_the_list_expires),
        cmocka_unit_test(a_list_signed_by_the_wrong_key_is_refused),
        cmocka_unit_test(a_list_of_a_foreign_ca_is_refused),
        cmocka_unit_test(a_ca_without_the_right_to_sign_lists_is_refused),
        cmocka_unit_test(lists_out_of_date_are_refused),
        cmocka_unit_test(partial_lists_are_refused),
        cmocka_unit_test(damaged_files_are_refused),
        cmocka_unit_test(every_flipped_byte_is_refused),
        cmocka_unit_test(an_authority_that_is_revoked_takes_all_below_it_along),
        cmocka_unit_test(one_in_the_middle_takes_only_those_below_it),
        cmocka_unit_test(a_tree_of_good_authorities_serves),
        cmocka_unit_test(an_authority_without_a_list_above_it_fails_closed),
        cmocka_unit_test(the_first_list_of_a_chain_that_ends_ends_the_answer),
        cmocka_unit_test(of_two_authorities_of_one_name_the_key_tells_which),
        cmocka_unit_test(too_many_authorities_are_refused),
    };
    return cmocka_run_group_tests_name("crl", tests, make_cas, drop_cas);
}
