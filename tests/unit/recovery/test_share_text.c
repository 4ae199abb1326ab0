/* Goal: a share comes back from paper whatever its spaces and cases, and a mistake is named with file and line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "recovery/share_text.h"

#include <ctype.h>
#include <sys/stat.h>

enum { TEXT_MAX = 4096 };

/* A share with fixed content. */
static struct kms_share a_share(unsigned number, uint8_t first)
{
    struct kms_share share = {.number = number, .count = 5, .threshold = 3};
    assert_int_equal(kms_secret_new(KMS_SHARE_SIZE, &share.value), KMS_OK);
    for (size_t i = 0; i < KMS_SHARE_SIZE; i++) {
        share.key[i] = (uint8_t)(i * 5);
        share.value.data[i] = (uint8_t)(first + i * 11);
    }
    share.value.len = KMS_SHARE_SIZE;
    return share;
}

/* Its text. */
static void text_of(const struct kms_share *share, char text[TEXT_MAX])
{
    KMS_SECRET bytes = {0};
    assert_int_equal(kms_share_format(share, &bytes, NULL), KMS_OK);
    assert_true(bytes.len < TEXT_MAX);
    memcpy(text, bytes.data, bytes.len);
    text[bytes.len] = '\0';
}

/* It reads as that share. */
static void reads_as(const char *text, const struct kms_share *share)
{
    struct kms_share read = {0};
    struct kms_error err = {0};
    if (kms_share_parse("s.share", kms_slice_str(text), &read, &err) != KMS_OK)
        fail_msg("%s", err.public_text);
    assert_memory_equal(read.key, share->key, sizeof read.key);
    assert_int_equal(read.number, share->number);
    assert_int_equal(read.count, share->count);
    assert_int_equal(read.threshold, share->threshold);
    assert_memory_equal(read.value.data, share->value.data, KMS_SHARE_SIZE);
    assert_string_equal(read.name, "s.share");
    kms_share_clear(&read);
}

/* It is refused with a text that has this in it. */
static void is_refused(const char *text, const char *because)
{
    struct kms_share read = {0};
    struct kms_error err = {0};
    assert_int_equal(kms_share_parse("s.share", kms_slice_str(text), &read, &err), KMS_INVALID_ARGUMENT);
    if (strstr(err.public_text, because) == NULL || strstr(err.public_text, "s.share") == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.public_text, because);
    assert_null(read.value.data);
}

/* Where the line with that name begins. */
static char *line_at(char *text, const char *name)
{
    char needle[32];
    (void)snprintf(needle, sizeof needle, "\n%s ", name);
    char *found = strstr(text, needle);
    assert_non_null(found);
    return found + 1;
}

/* Remove a line; its copy into `removed` when that is not NULL. */
static void cut_line(char *text, const char *name, char *removed)
{
    char *line = line_at(text, name);
    char *next = strchr(line, '\n') + 1;
    if (removed != NULL)
        (void)snprintf(removed, (size_t)(next - line) + 1, "%s", line);
    memmove(line, next, strlen(next) + 1);
}

static void a_share_reads_as_it_was_written(void **state)
{
    (void)state;
    struct kms_share share = a_share(2, 9);
    char text[TEXT_MAX];
    text_of(&share, text);
    reads_as(text, &share);
    for (const char *c = text; *c != '\0'; c++)
        assert_true(*c == '\n' || (*c >= ' ' && *c <= '~'));
    kms_share_clear(&share);
}

static void cases_spaces_and_line_ends_do_not_matter(void **state)
{
    (void)state;
    struct kms_share share = a_share(2, 9);
    char text[TEXT_MAX];
    char other[3 * TEXT_MAX];
    text_of(&share, text);
    for (char *c = text; *c != '\0'; c++)
        *c = (char)toupper((unsigned char)*c);
    reads_as(text, &share);
    for (char *c = text; *c != '\0'; c++)
        *c = (char)tolower((unsigned char)*c);
    reads_as(text, &share);
    size_t len = 0; /* CRLF, tabs for spaces, and an empty line behind each */
    for (const char *c = text; *c != '\0'; c++)
        len += (size_t)sprintf(other + len, *c == '\n' ? "\r\n \r\n" : "%c", *c == ' ' ? '\t' : *c);
    reads_as(other, &share);
    text_of(&share, text);
    char *line = line_at(text, "secret-3"); /* a line whose digits stand alone, and one without a space */
    char tight[64] = "secret-3   ";
    char loose[128] = "secret-3   ";
    for (const char *c = line + strlen("secret-3"); *c != '\n'; c++) {
        if (*c != ' ') {
            strncat(tight, c, 1);
            strncat(loose, c, 1);
            strcat(loose, "  ");
        }
    }
    char rest[TEXT_MAX];
    (void)snprintf(rest, sizeof rest, "%s", strchr(line, '\n'));
    *line = '\0';
    (void)snprintf(other, sizeof other, "%s%s%s", text, tight, rest);
    reads_as(other, &share);
    (void)snprintf(other, sizeof other, "%s%s%s", text, loose, rest);
    reads_as(other, &share);
    (void)snprintf(other, sizeof other, "%s   %s%.*s", text, tight, (int)strlen(rest) - 1,
                   rest); /* no last line end */
    reads_as(other, &share);
    kms_share_clear(&share);
}

static void a_missing_line_is_named(void **state)
{
    (void)state;
    static const char *const names[] = {"format", "share",    "key-1",    "key-2",    "key-3",
                                        "key-4",  "secret-1", "secret-2", "secret-3", "secret-4"};
    struct kms_share share = a_share(2, 9);
    char text[TEXT_MAX];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char because[64];
        text_of(&share, text);
        cut_line(text, names[i], NULL);
        (void)snprintf(because, sizeof because, "the line \"%s\" is missing before", names[i]);
        is_refused(text, because);
    }
    text_of(&share, text);
    cut_line(text, "whole", NULL);
    is_refused(text, "the line \"whole\" is missing at its end");
    is_refused("", "the line \"format\" is missing");
    is_refused("# nothing\n\n", "the line \"format\" is missing");
    kms_share_clear(&share);
}

static void doubled_swapped_and_foreign_lines_are_named(void **state)
{
    (void)state;
    struct kms_share share = a_share(2, 9);
    char text[TEXT_MAX];
    char line[128];
    text_of(&share, text);
    cut_line(text, "secret-1", line); /* and once more at the end */
    char *second = line_at(text, "secret-2");
    char rest[TEXT_MAX];
    (void)snprintf(rest, sizeof rest, "%s", second);
    (void)snprintf(second, TEXT_MAX - (size_t)(second - text), "%s%s%s", line, line, rest);
    is_refused(text, "line 11: \"secret-1\" stood there before");
    text_of(&share, text);
    strcat(text, line);
    is_refused(text, "line 15: a share ends with the line \"whole\"");
    text_of(&share, text);
    memcpy(line_at(text, "key-2"), "kex-2", strlen("kex-2"));
    is_refused(text, "line 7: the line \"key-2\" was expected here");
    text_of(&share, text);
    cut_line(text, "key-3", line);
    strcat(text, line);
    is_refused(text, "the line \"key-3\" is missing before \"key-4\"");
    kms_share_clear(&share);
}

/* How many hexadecimal digits a word has that is made of them alone; 0 for another. */
static size_t digits_of(const char *word)
{
    const size_t len = strcspn(word, " \n");
    return strspn(word, "0123456789abcdef") == len ? len : 0;
}

static void every_wrong_digit_is_found_and_its_line_named(void **state)
{
    (void)state;
    struct kms_share share = a_share(2, 9);
    char text[TEXT_MAX];
    char because[32];
    unsigned tried = 0;
    text_of(&share, text);
    for (char *c = strstr(text, "\nshare ") + 1; *c != '\0'; c += strcspn(c, " \n"), c += strspn(c, " \n")) {
        unsigned line = 1;
        for (const char *k = text; k < c; k++)
            line += *k == '\n';
        (void)snprintf(because, sizeof because, "line %u (", line);
        for (size_t i = 0; i < digits_of(c); i++, tried++) {
            const char old = c[i];
            c[i] = old == '1' ? '2' : '1';
            is_refused(text, because);
            c[i] = 'x';
            is_refused(text, because);
            c[i] = old;
        }
    }
    assert_int_equal(tried,
                     2 + 4 + 9 * 20); /* number, count and check of "share", and nine lines of digits */
    reads_as(text, &share);
    kms_share_clear(&share);
}

static void groups_too_few_and_too_many_are_told_apart(void **state)
{
    (void)state;
    struct kms_share share = a_share(2, 9);
    char text[TEXT_MAX];
    text_of(&share, text);
    char *line = line_at(text, "secret-4");
    memcpy(line + strlen("secret-4 "), "     ", 5);
    is_refused(text, "line 13 (secret-4): a group or digit is missing");
    text_of(&share, text);
    line = line_at(text, "secret-4");
    memcpy(strchr(line, '\n') - 6, "00", 2);
    is_refused(text, "line 13 (secret-4): there are digits too many");
    kms_share_clear(&share);
}

static void a_good_line_of_another_share_is_found(void **state)
{
    (void)state;
    struct kms_share one = a_share(2, 9);
    struct kms_share other = a_share(2, 77);
    char text[TEXT_MAX];
    char foreign[TEXT_MAX];
    text_of(&one, text);
    text_of(&other, foreign);
    char *to = line_at(text, "secret-2");
    const char *from = line_at(foreign, "secret-2");
    memcpy(to, from, (size_t)(strchr(from, '\n') - from));
    is_refused(text, "line 14 (whole): each line is good, but they do not belong together");
    kms_share_clear(&one);
    kms_share_clear(&other);
}

static void numbers_and_formats_that_no_ceremony_makes_are_refused(void **state)
{
    (void)state;
    static const struct {
        unsigned number, count, threshold;
    } bad[] = {{0, 5, 3}, {6, 5, 3}, {1, 5, 6}, {1, 5, 1}, {1, 1, 1}, {1, 33, 2}};
    char text[TEXT_MAX];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct kms_share share = a_share(1, 9);
        share.number = bad[i].number;
        share.count = bad[i].count;
        share.threshold = bad[i].threshold;
        text_of(&share, text);
        is_refused(text, "line 5 (share): no ceremony makes such a share");
        kms_share_clear(&share);
    }
    struct kms_share share = a_share(2, 9);
    text_of(&share, text);
    *strstr(text, "share-1") = 'S'; /* case does not matter */
    reads_as(text, &share);
    strstr(text, "hare-1")[5] = '2';
    is_refused(text, "this is no share, or one of a later version");
    kms_share_clear(&share);
    is_refused("format kms-recovery-share-1\nshare 2 of 5\n", "NUMBER of COUNT, NEEDED needed CHECK");
    is_refused("format kms-recovery-share-1\nshare two of five, 3 needed 0000\n", "NUMBER of COUNT");
}

static void a_file_that_is_none_is_refused(void **state)
{
    (void)state;
    struct kms_share share = {0};
    struct kms_error err = {0};
    char path[] = "/tmp/kms-share-XXXXXX";
    const int file = mkstemp(path);
    assert_int_equal(ftruncate(file, KMS_SHARE_TEXT_MAX + 1), 0);
    (void)close(file);
    assert_int_equal(kms_share_read(path, &share, &err), KMS_INVALID_ARGUMENT);
    assert_non_null(strstr(err.public_text, "it has more than"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(kms_share_read(path, &share, &err), KMS_INVALID_ARGUMENT);
    assert_non_null(strstr(err.public_text, "cannot open"));
    assert_int_equal(kms_share_read("/tmp", &share, &err), KMS_INVALID_ARGUMENT);
    assert_non_null(strstr(err.public_text, "/tmp is not a regular file"));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(kms_share_read(path, &share, &err), KMS_INVALID_ARGUMENT);
    assert_int_equal(unlink(path), 0);
    assert_null(share.value.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_share_reads_as_it_was_written),
        cmocka_unit_test(cases_spaces_and_line_ends_do_not_matter),
        cmocka_unit_test(a_missing_line_is_named),
        cmocka_unit_test(doubled_swapped_and_foreign_lines_are_named),
        cmocka_unit_test(every_wrong_digit_is_found_and_its_line_named),
        cmocka_unit_test(groups_too_few_and_too_many_are_told_apart),
        cmocka_unit_test(a_good_line_of_another_share_is_found),
        cmocka_unit_test(numbers_and_formats_that_no_ceremony_makes_are_refused),
        cmocka_unit_test(a_file_that_is_none_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
