/* Goal: whatever is done to a finished log, verification finds it and names the place. */
#define _GNU_SOURCE
#include "unit/audit/logdir.h"

#include "audit/record.h"
#include "core/cleanup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

enum { RECORDS = 9, FEW_RECORDS = 3, SEGMENT_BYTES = 1500 };

/* A log whose first segment is returned as text to damage. */
static char *make_and_read(const struct logdir *dir, uint64_t segment_bytes, char path[160], size_t *ret_len)
{
    make_log(dir, segment_bytes, RECORDS);
    segment_path(dir, 0, path);
    return read_file(path, ret_len);
}

/* A short one, where every byte has its turn. */
static char *make_short_and_read(const struct logdir *dir, char path[160], size_t *ret_len)
{
    make_log(dir, 0, FEW_RECORDS);
    segment_path(dir, 0, path);
    return read_file(path, ret_len);
}

/* The first finding must be this. */
static void expect(const struct logdir *dir, enum kms_audit_finding_kind kind, const char *file,
                   uint64_t line)
{
    struct kms_audit_verify_result result;
    assert_int_equal(verify(dir, &result), KMS_TAMPERED);
    assert_true(result.findings > 0);
    assert_string_equal(kms_audit_finding_name(result.first.kind), kms_audit_finding_name(kind));
    assert_string_equal(result.first.file, file);
    assert_int_equal(result.first.line, line);
}

static const char *name_of(const char *path)
{
    return strrchr(path, '/') + 1;
}

static void a_finished_log_is_in_order(void **state)
{
    const struct logdir *dir = *state;
    make_log(dir, SEGMENT_BYTES, RECORDS);
    assert_true(segment_count(dir) >= 2);
    assert_complete(dir, RECORDS);
    struct kms_audit_verify_result result;
    assert_int_equal(verify(dir, &result), KMS_OK);
    assert_int_equal(result.findings, 0);
    assert_int_equal(result.segments, segment_count(dir));
    assert_int_equal(result.records, RECORDS + result.segments);
    assert_int_equal(result.first_seq, 1);
    assert_int_equal(result.last_seq, result.records);
    assert_int_equal(strlen(result.head_hash), 64);
    assert_int_equal(strlen(result.last_time), 27);
    assert_int_equal(result.tail_bytes, 0);
}

static void a_directory_that_is_not_there_or_empty(void **state)
{
    const struct logdir *dir = *state;
    struct kms_audit_verify_result result;
    assert_int_equal(verify(dir, &result), KMS_NOT_FOUND);
    assert_int_equal(mkdir(dir->path, 0700), 0);
    assert_int_equal(verify(dir, &result), KMS_OK);
    assert_int_equal(result.records, 0);
}

static void each_changed_byte_is_found_with_its_line(void **state)
{
    const struct logdir *dir = *state;
    char path[160];
    size_t len;
    KMS_FREE char *text = make_short_and_read(dir, path, &len);
    const uint8_t changes[] = {0x01, 0x20, 0x80};
    uint64_t line = 1;
    for (size_t i = 0; i < len; i++) {
        const char original = text[i];
        for (size_t change = 0; change < sizeof changes; change++) {
            text[i] = (char)(original ^ changes[change]);
            write_file(path, text, len);
            struct kms_audit_verify_result result;
            assert_int_equal(verify(dir, &result), KMS_TAMPERED);
            assert_string_equal(result.first.file, name_of(path));
            assert_int_equal(result.first.line, line);
        }
        text[i] = original;
        line += original == '\n';
    }
    write_file(path, text, len);
    assert_complete(dir, FEW_RECORDS);
}

static void each_byte_that_becomes_zero_or_a_newline_is_found(void **state)
{
    const struct logdir *dir = *state;
    char path[160];
    size_t len;
    KMS_FREE char *text = make_short_and_read(dir, path, &len);
    uint64_t line = 1;
    for (size_t i = 0; i < len; i++) {
        const char original = text[i];
        const char replacements[] = {'\0', '\n'};
        for (size_t j = 0; j < sizeof replacements; j++) {
            if (original == replacements[j])
                continue;
            text[i] = replacements[j];
            write_file(path, text, len);
            struct kms_audit_verify_result result;
            assert_int_equal(verify(dir, &result), KMS_TAMPERED);
            assert_int_equal(result.first.line, line);
        }
        text[i] = original;
        line += original == '\n';
    }
}

static void one_edited_record_is_one_finding(void **state)
{
    const struct logdir *dir = *state;
    char path[160];
    size_t len;
    KMS_FREE char *text = make_and_read(dir, 0, path, &len);
    char *tenant = strstr(line_at(text, 5), "acme");
    tenant[0] = 'A';
    write_file(path, text, len);
    struct kms_audit_verify_result result;
    assert_int_equal(verify(dir, &result), KMS_TAMPERED);
    assert_int_equal(result.findings, 1);
    expect(dir, KMS_AUDIT_FINDING_EDITED, name_of(path), 5);
    assert_int_equal(result.first.seq, 5);
    tenant[0] = 'a';
    char *hash = strstr(line_at(text, 5), "\"hash\":\"") + 8; /* an edited hash is one finding, too */
    hash[0] = hash[0] == '0' ? '1' : '0';
    write_file(path, text, len);
    assert_int_equal(verify(dir, &result), KMS_TAMPERED);
    assert_int_equal(result.findings, 1);
    assert_int_equal(result.first.line, 5);
}

static void a_removed_line_is_found(void **state)
{
    const struct logdir *dir = *state;
    char path[160];
    size_t len;
    KMS_FREE char *text = make_and_read(dir, 0, path, &len);
    for (unsigned line = 1; line < RECORDS; line++) {
        KMS_FREE char *copy = strdup(text);
        char *from = line_at(copy, line);
        const char *to = line_at(copy, line + 1);
        memmove(from, to, strlen(to) + 1);
        write_file(path, copy, strlen(copy));
        expect(dir, line == 1 ? KMS_AUDIT_FINDING_START : KMS_AUDIT_FINDING_MISSING, name_of(path), line);
    }
}

static void a_duplicated_line_is_found(void **state)
{
    const struct logdir *dir = *state;
    char path[160];
    size_t len;
    KMS_FREE char *text = make_and_read(dir, 0, path, &len);
    const size_t at = (size_t)(line_at(text, 4) - text);
    const size_t line_len = (size_t)(line_at(text, 5) - text) - at;
    KMS_FREE char *copy = malloc(len + line_len);
    memcpy(copy, text, at + line_len);
    memcpy(copy + at + line_len, text + at, len - at);
    write_file(path, copy, len + line_len);
    struct kms_audit_verify_result result;
    assert_int_equal(verify(dir, &result), KMS_TAMPERED);
    assert_int_equal(result.findings, 1);
    expect(dir, KMS_AUDIT_FINDING_REPEATED, name_of(path), 5);
}

static void swapped_lines_are_found(void **state)
{
    const struct logdir *dir = *state;
    char path[160];
    size_t len;
    KMS_FREE char *text = make_and_read(dir, 0, path, &len);
    const char *fourth = line_at(text, 4);
    const char *fifth = line_at(text, 5);
    const char *sixth = line_at(text, 6);
    KMS_FREE char *copy = malloc(len);
    char *next = mempcpy(copy, text, (size_t)(fourth - text));
    next = mempcpy(next, fifth, (size_t)(sixth - fifth));
    next = mempcpy(next, fourth, (size_t)(fifth - fourth));
    memcpy(next, sixth, len - (size_t)(sixth - text));
    write_file(path, copy, len);
    expect(dir, KMS_AUDIT_FINDING_MISSING, name_of(path), 4);
}

static void a_tail_cut_within_a_line_is_found(void **state)
{
    const struct logdir *dir = *state;
    char path[160];
    size_t len;
    KMS_FREE char *text = make_and_read(dir, 0, path, &len);
    const size_t last = (size_t)(line_at(text, RECORDS + 1) - text);
    for (size_t cut = last + 1; cut < len; cut++) {
        write_file(path, text, cut);
        expect(dir, KMS_AUDIT_FINDING_UNFINISHED, name_of(path), RECORDS + 1);
    }
}

static void a_tail_cut_at_a_line_shows_against_a_known_record(void **state)
{
    const struct logdir *dir = *state;
    char path[160];
    size_t len;
    KMS_FREE char *text = make_and_read(dir, 0, path, &len);
    struct kms_audit_verify_result result;
    assert_int_equal(verify(dir, &result), KMS_OK);
    struct kms_audit_verify_options options = {.known_seq = result.last_seq};
    memcpy(options.known_hash, result.head_hash, sizeof options.known_hash);
    assert_int_equal(kms_audit_verify(dir->path, &options, &result, NULL), KMS_OK);
    write_file(path, text, (size_t)(line_at(text, RECORDS + 1) - text));
    assert_int_equal(verify(dir, &result), KMS_OK); /* the chain alone cannot know */
    assert_int_equal(kms_audit_verify(dir->path, &options, &result, NULL), KMS_TAMPERED);
    assert_int_equal(result.first.kind, KMS_AUDIT_FINDING_TRUNCATED);
    options.known_seq = result.last_seq; /* there, but not with this hash: written anew */
    assert_int_equal(kms_audit_verify(dir->path, &options, &result, NULL), KMS_TAMPERED);
    assert_int_equal(result.first.kind, KMS_AUDIT_FINDING_TRUNCATED);
    assert_int_equal(result.first.line, RECORDS);
    options.known_hash[10] = 'g';
    assert_int_equal(kms_audit_verify(dir->path, &options, &result, NULL), KMS_INVALID_ARGUMENT);
}

static void a_removed_segment_is_found(void **state)
{
    const struct logdir *dir = *state;
    make_log(dir, SEGMENT_BYTES, 3 * RECORDS);
    assert_true(segment_count(dir) >= 4);
    char path[160];
    segment_path(dir, 1, path);
    assert_int_equal(unlink(path), 0);
    segment_path(dir, 1, path);
    expect(dir, KMS_AUDIT_FINDING_MISSING, name_of(path), 1);
}

static void removed_first_segments_must_be_declared_as_archived(void **state)
{
    const struct logdir *dir = *state;
    make_log(dir, SEGMENT_BYTES, 3 * RECORDS);
    char path[160];
    segment_path(dir, 0, path);
    assert_int_equal(unlink(path), 0);
    segment_path(dir, 0, path);
    expect(dir, KMS_AUDIT_FINDING_MISSING, name_of(path), 1);
    const struct kms_audit_verify_options options = {.archived = true};
    struct kms_audit_verify_result result;
    assert_int_equal(kms_audit_verify(dir->path, &options, &result, NULL), KMS_OK);
    assert_true(result.first_seq > 1);
}

static void a_renamed_segment_is_found(void **state)
{
    const struct logdir *dir = *state;
    make_log(dir, SEGMENT_BYTES, 3 * RECORDS);
    char path[160];
    segment_path(dir, segment_count(dir) - 1, path);
    char other[200];
    (void)snprintf(other, sizeof other, "%s/audit-00000000000000000999.jsonl", dir->path);
    assert_int_equal(rename(path, other), 0);
    expect(dir, KMS_AUDIT_FINDING_START, name_of(other), 1);
}

static void a_segment_of_another_log_is_found(void **state)
{
    const struct logdir *dir = *state;
    char path[160];
    size_t len;
    KMS_FREE char *text = make_and_read(dir, SEGMENT_BYTES, path, &len);
    assert_non_null(text);
    struct logdir other;
    logdir_new(&other);
    make_log(&other, SEGMENT_BYTES, RECORDS); /* same numbers, other times and hashes */
    char other_path[160];
    segment_path(&other, 0, other_path);
    size_t other_len;
    KMS_FREE char *other_text = read_file(other_path, &other_len);
    write_file(path, other_text, other_len);
    logdir_clear(&other);
    segment_path(dir, 1, path);
    expect(dir, KMS_AUDIT_FINDING_START, name_of(path), 1);
}

static void foreign_names_are_found_and_made_printable(void **state)
{
    const struct logdir *dir = *state;
    make_log(dir, 0, 1);
    static const char *const names[] = {"audit-1.jsonl", "audit-00000000000000000000.jsonl", "notes.txt",
                                        "audit-99999999999999999999.jsonl",
                                        "audit-00000000000000000001.jsonl~"};
    char path[200];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", dir->path, names[i]);
        write_file(path, "x", 1);
        expect(dir, KMS_AUDIT_FINDING_FOREIGN, names[i], 0);
        assert_int_equal(unlink(path), 0);
    }
    (void)snprintf(path, sizeof path, "%s/a\x1b[2J", dir->path);
    write_file(path, "x", 1);
    expect(dir, KMS_AUDIT_FINDING_FOREIGN, "a?[2J", 0);
}

static void what_is_no_regular_file_is_found_and_not_followed(void **state)
{
    const struct logdir *dir = *state;
    make_log(dir, 0, 1);
    char path[200];
    (void)snprintf(path, sizeof path, "%s/audit-00000000000000000500.jsonl", dir->path);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect(dir, KMS_AUDIT_FINDING_UNREADABLE, "audit-00000000000000000500.jsonl", 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("audit-00000000000000000001.jsonl", path), 0);
    expect(dir, KMS_AUDIT_FINDING_UNREADABLE, "audit-00000000000000000500.jsonl", 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    expect(dir, KMS_AUDIT_FINDING_UNREADABLE, "audit-00000000000000000500.jsonl", 0);
}

static void a_huge_line_is_found_and_what_follows_is_read(void **state)
{
    const struct logdir *dir = *state;
    char path[160];
    size_t len;
    KMS_FREE char *text = make_and_read(dir, 0, path, &len);
    const size_t at = (size_t)(line_at(text, 4) - text);
    enum { HUGE_LINE = 8 * 1024 * 1024 };
    KMS_FREE char *copy = malloc(len + HUGE_LINE);
    assert_non_null(copy);
    memcpy(copy, text, at);
    memset(copy + at, 'x', HUGE_LINE - 1);
    copy[at + HUGE_LINE - 1] = '\n';
    memcpy(copy + at + HUGE_LINE, text + at, len - at);
    write_file(path, copy, len + HUGE_LINE);
    expect(dir, KMS_AUDIT_FINDING_TOO_LONG, name_of(path), 4);
    struct kms_audit_verify_result result;
    assert_int_equal(verify(dir, &result), KMS_TAMPERED);
    assert_int_equal(result.last_seq, RECORDS + 1);
}

static void a_line_at_the_limit_is_a_line_and_one_over_it_is_not(void **state)
{
    const struct logdir *dir = *state;
    assert_int_equal(mkdir(dir->path, 0700), 0);
    char path[200];
    (void)snprintf(path, sizeof path, "%s/audit-00000000000000000001.jsonl", dir->path);
    KMS_FREE char *text = malloc(KMS_AUDIT_LINE_MAX + 2);
    memset(text, 'x', KMS_AUDIT_LINE_MAX + 2);
    text[KMS_AUDIT_LINE_MAX] = '\n';
    write_file(path, text, KMS_AUDIT_LINE_MAX + 1);
    expect(dir, KMS_AUDIT_FINDING_NOT_A_RECORD, name_of(path), 1);
    text[KMS_AUDIT_LINE_MAX] = 'x';
    text[KMS_AUDIT_LINE_MAX + 1] = '\n';
    write_file(path, text, KMS_AUDIT_LINE_MAX + 2);
    expect(dir, KMS_AUDIT_FINDING_TOO_LONG, name_of(path), 1);
    write_file(path, text, KMS_AUDIT_LINE_MAX + 1); /* and without its newline */
    expect(dir, KMS_AUDIT_FINDING_TOO_LONG, name_of(path), 1);
}

static void a_zero_tail_is_no_finding_but_data_behind_it_is(void **state)
{
    const struct logdir *dir = *state;
    char path[160];
    size_t len;
    KMS_FREE char *text = make_and_read(dir, 0, path, &len);
    assert_non_null(text);
    enum { TAIL = 64 * 1024 * 1024 }; /* a hole: takes no space */
    assert_int_equal(truncate(path, (off_t)len + TAIL), 0);
    assert_complete(dir, RECORDS);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)len + TAIL - 1, SEEK_SET), 0);
    assert_int_equal(fputc('\n', file), '\n');
    assert_int_equal(fclose(file), 0);
    expect(dir, KMS_AUDIT_FINDING_AFTER_ZEROS, name_of(path), RECORDS + 2);
}

static void an_empty_segment_is_found_except_of_a_running_daemon(void **state)
{
    const struct logdir *dir = *state;
    make_log(dir, SEGMENT_BYTES, RECORDS);
    char path[200];
    (void)snprintf(path, sizeof path, "%s/audit-00000000000000000500.jsonl", dir->path);
    write_file(path, "", 0);
    expect(dir, KMS_AUDIT_FINDING_EMPTY, name_of(path), 0 + 1);
    const struct kms_audit_verify_options options = {.live = true};
    struct kms_audit_verify_result result;
    assert_int_equal(kms_audit_verify(dir->path, &options, &result, NULL), KMS_OK);
    write_file(path, "{\"seq\":500,", 11); /* a line on its way */
    assert_int_equal(kms_audit_verify(dir->path, &options, &result, NULL), KMS_OK);
    assert_int_equal(result.tail_bytes, 11);
}

static void an_open_log_can_be_verified_beside_its_writer(void **state)
{
    const struct logdir *dir = *state;
    struct kms_audit *audit = open_log(dir, SEGMENT_BYTES);
    for (unsigned i = 1; i <= RECORDS; i++) {
        commit_numbers(audit, i, i);
        const struct kms_audit_verify_options options = {.live = true};
        struct kms_audit_verify_result result;
        assert_int_equal(kms_audit_verify(dir->path, &options, &result, NULL), KMS_OK);
        struct kms_audit_status status;
        kms_audit_status(audit, &status);
        assert_int_equal(result.last_seq, status.durable_seq);
        assert_string_equal(result.head_hash, status.head_hash);
    }
    kms_audit_free(audit);
}

struct seen {
    unsigned calls, findings;
    unsigned stop_after; /* 0: never */
    uint64_t done, all;
};

static bool count_progress(void *context, const struct kms_audit_progress *progress)
{
    struct seen *seen = context;
    assert_true(progress->bytes_done >= seen->done && progress->bytes_done <= progress->bytes_all);
    seen->done = progress->bytes_done;
    seen->all = progress->bytes_all;
    return ++seen->calls != seen->stop_after;
}

static void count_finding(void *context, const struct kms_audit_finding *finding)
{
    assert_true(finding->reason[0] != '\0');
    ((struct seen *)context)->findings++;
}

static void callbacks_tell_progress_and_findings_and_can_stop(void **state)
{
    const struct logdir *dir = *state;
    make_log(dir, SEGMENT_BYTES, 3 * RECORDS);
    char path[160];
    segment_path(dir, 2, path);
    size_t len;
    KMS_FREE char *text = read_file(path, &len);
    text[20] ^= 1;
    write_file(path, text, len);
    struct seen seen = {0};
    const struct kms_audit_verify_options options = {
        .progress = count_progress, .finding = count_finding, .context = &seen};
    struct kms_audit_verify_result result;
    assert_int_equal(kms_audit_verify(dir->path, &options, &result, NULL), KMS_TAMPERED);
    assert_int_equal(seen.findings, result.findings);
    assert_int_equal(seen.calls, result.segments);
    assert_int_equal(seen.done, seen.all);
    assert_int_equal(seen.all, result.bytes);
    seen = (struct seen){.stop_after = 1};
    assert_int_equal(kms_audit_verify(dir->path, &options, &result, NULL), KMS_CANCELLED);
    assert_int_equal(seen.calls, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, logdir_setup, logdir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_finished_log_is_in_order),
        TEST(a_directory_that_is_not_there_or_empty),
        TEST(each_changed_byte_is_found_with_its_line),
        TEST(each_byte_that_becomes_zero_or_a_newline_is_found),
        TEST(one_edited_record_is_one_finding),
        TEST(a_removed_line_is_found),
        TEST(a_duplicated_line_is_found),
        TEST(swapped_lines_are_found),
        TEST(a_tail_cut_within_a_line_is_found),
        TEST(a_tail_cut_at_a_line_shows_against_a_known_record),
        TEST(a_removed_segment_is_found),
        TEST(removed_first_segments_must_be_declared_as_archived),
        TEST(a_renamed_segment_is_found),
        TEST(a_segment_of_another_log_is_found),
        TEST(foreign_names_are_found_and_made_printable),
        TEST(what_is_no_regular_file_is_found_and_not_followed),
        TEST(a_huge_line_is_found_and_what_follows_is_read),
        TEST(a_line_at_the_limit_is_a_line_and_one_over_it_is_not),
        TEST(a_zero_tail_is_no_finding_but_data_behind_it_is),
        TEST(an_empty_segment_is_found_except_of_a_running_daemon),
        TEST(an_open_log_can_be_verified_beside_its_writer),
        TEST(callbacks_tell_progress_and_findings_and_can_stop),
    };
    return cmocka_run_group_tests_name("audit/verify", tests, NULL, NULL);
}
