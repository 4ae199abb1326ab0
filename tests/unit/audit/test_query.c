/* Goal: a query finds what a plain scan finds, reads no more than it must, and no index or directory makes it do otherwise. */
#define _GNU_SOURCE
#include "unit/audit/logdir.h"

#include "audit/index.h"
#include "audit/query.h"
#include "core/cleanup.h"
#include "core/clock.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

enum { RECORDS = 12000, CUSTOMERS = 400, SEGMENT_BYTES = 1024 * 1024 };
#define START_NS INT64_C(1767225600000000000) /* 2026-01-01 */
#define STEP_NS  (60 * KMS_NS_PER_SECOND)

static int64_t now_ns = START_NS;

static int64_t wall_ns(void)
{
    return now_ns;
}

static int64_t mono_ns(void)
{
    return now_ns;
}

static const struct kms_clock_source stepping = {wall_ns, mono_ns};

static const char *const actions[] = {"datakey.generate", "datakey.unwrap", "customer.get"};
static const char *const identities[] = {"spiffe://kms.example/app/demo",
                                         "spiffe://kms.example/app/\"quoted\"", "cn=x"};

static struct kms_uuid uuid_of(unsigned number)
{
    struct kms_uuid uuid = {{0x10, 0x20}};
    uuid.bytes[14] = (uint8_t)(number >> 8);
    uuid.bytes[15] = (uint8_t)number;
    return uuid;
}

/* A log of a record a minute, the same at each run; some of them batches that name customers in their items. */
static void make_varied_log(const struct logdir *dir)
{
    now_ns = START_NS;
    kms_clock_set_source(&stepping);
    struct kms_audit *audit = open_log(dir, SEGMENT_BYTES);
    for (unsigned i = 0; i < RECORDS; i++) {
        char first[KMS_UUID_TEXT_SIZE];
        char second[KMS_UUID_TEXT_SIZE];
        char detail[512];
        const struct kms_uuid one = uuid_of(i % CUSTOMERS);
        const struct kms_uuid two = uuid_of((i + 7) % CUSTOMERS);
        const bool batch = i % 50 == 49;
        (void)snprintf(detail, sizeof detail,
                       "{\"items\":[{\"customer\":\"%s\",\"outcome\":\"OK\"},{\"customer\":\"%s\",\"tenant\":"
                       "\"other\",\"outcome\":\"OK\"}]}",
                       kms_uuid_format(&one, first), kms_uuid_format(&two, second));
        const struct kms_audit_event event = {.type = "call",
                                              .action = actions[i % 3],
                                              .identity = identities[i / 100 % 3],
                                              .tenant = "acme",
                                              .customer = batch ? (struct kms_uuid){{0}} : one,
                                              .purpose = "service",
                                              .outcome = i % 997 == 5 ? "PERMISSION_DENIED" : "OK",
                                              .items = batch ? 2 : 0,
                                              .detail_json = batch ? detail : NULL};
        assert_int_equal(kms_audit_append(audit, &event, NULL), KMS_OK);
        if (i % 200 == 199)
            assert_int_equal(kms_audit_commit(audit, NULL), KMS_OK);
        now_ns += STEP_NS;
    }
    assert_int_equal(kms_audit_commit(audit, NULL), KMS_OK);
    kms_audit_free(audit);
    kms_clock_set_source(NULL);
}

/* What a query found: numbers of records, in their order. */
struct collected {
    uint64_t seqs[RECORDS];
    size_t count, stop_after;
    unsigned problems;
    char problem_file[256];
};

static bool collect(void *context, const struct kms_audit_found *found)
{
    struct collected *collected = context;
    assert_true(collected->count < RECORDS);
    collected->seqs[collected->count++] = found->seq;
    return collected->count != collected->stop_after;
}

static void note_problem(void *context, const struct kms_audit_problem *problem)
{
    struct collected *collected = context;
    collected->problems++;
    memcpy(collected->problem_file, problem->file, sizeof collected->problem_file);
}

static struct kms_audit_query_result query(const struct logdir *dir, const struct kms_audit_filter *filter,
                                           const char *index_directory, struct collected *collected)
{
    const struct kms_audit_query_options options = {.filter = *filter,
                                                    .index_directory = index_directory,
                                                    .found = collect,
                                                    .problem = note_problem,
                                                    .context = collected};
    struct kms_audit_query_result result;
    *collected = (struct collected){0};
    assert_int_equal(kms_audit_query(dir->path, &options, &result, NULL), KMS_OK);
    assert_int_equal(result.found, collected->count);
    return result;
}

static const char customer_text[] =
    "10200000-0000-0000-0000-000000000038"; /* uuid_of(56): 30 calls, and as many items */

/* Filters of every kind, and how many records match each. */
static const struct {
    struct kms_audit_filter filter;
    size_t count;
} cases[] = {
    {{.customer = customer_text}, 60},
    {{.customer = "10200000-0000-0000-0000-0000000fffff"}, 0},
    {{.identity = "spiffe://kms.example/app/\"quoted\""}, 4000},
    {{.identity = "cn=x", .action = "customer.get"}, 1360},
    {{.action = "datakey."}, 8000},
    {{.action = "datakey"}, 0},
    {{.outcome = "PERMISSION_DENIED"}, 13},
    {{.tenant = "other"}, 240},
    {{.tenant = "acme", .purpose = "service"}, 12000},
    {{.purpose = "marketing"}, 0},
    {{.from_ns = START_NS + 24 * 3600 * KMS_NS_PER_SECOND,
      .until_ns = START_NS + 48 * 3600 * KMS_NS_PER_SECOND},
     1440},
    {{.customer = customer_text, .until_ns = START_NS + STEP_NS * 1000}, 6},
};

static void every_filter_finds_the_same_with_and_without_indexes(void **state)
{
    const struct logdir *dir = *state;
    make_varied_log(dir);
    assert_true(segment_count(dir) >= 3);
    static struct collected first, again;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct kms_audit_query_result made = query(dir, &cases[i].filter, "/does/not/exist", &first);
        assert_int_equal(made.indexes_made, segment_count(dir) - 1);
        assert_int_equal(made.indexes_kept, 0);
        assert_non_null(strstr(made.index_failure, "/does/not/exist"));
        (void)query(dir, &cases[i].filter, NULL, &again); /* the first of these keeps them */
        const struct kms_audit_query_result kept = query(dir, &cases[i].filter, NULL, &again);
        assert_int_equal(kept.indexes_made, 0);
        assert_int_equal(first.count, cases[i].count);
        assert_int_equal(again.count, cases[i].count);
        assert_memory_equal(first.seqs, again.seqs, first.count * sizeof first.seqs[0]);
        for (size_t k = 1; k < first.count; k++)
            assert_true(first.seqs[k] > first.seqs[k - 1]);
    }
    assert_complete(dir, 0); /* the indexes are nothing to verification */
}

static void a_day_and_a_rare_value_read_a_small_part(void **state)
{
    const struct logdir *dir = *state;
    make_varied_log(dir);
    static struct collected collected;
    const struct kms_audit_filter hour = {.from_ns = START_NS + 20 * STEP_NS,
                                          .until_ns = START_NS + 80 * STEP_NS};
    (void)query(dir, &hour, NULL, &collected);
    const struct kms_audit_query_result result = query(dir, &hour, NULL, &collected);
    assert_int_equal(collected.count, 60);
    assert_int_equal(result.segments_read, 2); /* the one that matters, and the newest */
    assert_true(result.bytes_read <= (uint64_t)KMS_AUDIT_INDEX_BLOCK_MIN + SEGMENT_BYTES);
    const struct kms_audit_filter nobody = {.customer = "10200000-0000-0000-0000-0000000fffff"};
    char newest[160];
    segment_path(dir, segment_count(dir) - 1, newest);
    struct stat now;
    assert_int_equal(stat(newest, &now), 0);
    assert_int_equal(query(dir, &nobody, NULL, &collected).bytes_read, now.st_size);
}

static void an_index_that_does_not_fit_is_made_again(void **state)
{
    const struct logdir *dir = *state;
    make_varied_log(dir);
    static struct collected collected;
    const struct kms_audit_filter filter = {.customer = customer_text};
    (void)query(dir, &filter, NULL, &collected);
    char name[KMS_AUDIT_INDEX_NAME_SIZE];
    char path[160];
    (void)snprintf(path, sizeof path, "%s/%s", dir->path, kms_audit_index_name(1, name));
    size_t len;
    KMS_FREE char *good = read_file(path, &len);
    KMS_FREE char *bad = malloc(len + 1);
    for (size_t i = 0; i < len; i += i < KMS_AUDIT_INDEX_HEADER_SIZE ? 1 : len / 50) {
        memcpy(bad, good, len);
        bad[i] = (char)(bad[i] ^ 1);
        write_file(path, bad, len);
        const struct kms_audit_query_result result = query(dir, &filter, NULL, &collected);
        assert_int_equal(result.indexes_made, 1);
        assert_int_equal(collected.count, 60);
    }
    const size_t cuts[] = {0, 1, KMS_AUDIT_INDEX_HEADER_SIZE, len - 1, len + 1};
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        memcpy(bad, good, len);
        bad[len] = 0;
        write_file(path, bad, cuts[i]);
        assert_int_equal(query(dir, &filter, NULL, &collected).indexes_made, 1);
        assert_int_equal(collected.count, 60);
    }
    assert_int_equal(query(dir, &filter, NULL, &collected).indexes_made, 0);
}

static void an_index_of_a_segment_that_has_changed_is_made_again(void **state)
{
    const struct logdir *dir = *state;
    make_varied_log(dir);
    static struct collected collected;
    const struct kms_audit_filter filter = {.identity = "cn=y"};
    assert_int_equal(query(dir, &filter, NULL, &collected).found, 0);
    char path[160];
    segment_path(dir, 0, path);
    size_t len;
    KMS_FREE char *text = read_file(path, &len);
    char *last = strstr(text + len - 80, "\"hash\":\"") + 8;
    *last = *last == '0' ? '1' : '0';
    char *edited = strstr(text, "cn=x");
    edited[3] = 'y';
    write_file(path, text, len);
    const struct kms_audit_query_result result = query(dir, &filter, NULL, &collected);
    assert_int_equal(result.indexes_made, 1);
    assert_int_equal(result.found, 1);
}

/* A file of the log's that is none: told of by name, and the rest is found. */
static void expect_told(const struct logdir *dir, const char *file, size_t count)
{
    static struct collected collected;
    const struct kms_audit_filter filter = {.tenant = "acme"};
    (void)query(dir, &filter, NULL, &collected);
    assert_true(collected.problems > 0);
    assert_string_equal(collected.problem_file, file);
    assert_int_equal(collected.count, count);
}

static void what_is_no_segment_is_told_and_passed_over(void **state)
{
    const struct logdir *dir = *state;
    make_log(dir, 0, 5);
    char name[KMS_AUDIT_NAME_SIZE];
    char path[160];
    (void)snprintf(path, sizeof path, "%s/%s", dir->path, kms_audit_segment_name(9, name));
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_told(dir, name, 5);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("/dev/zero", path), 0);
    expect_told(dir, name, 5);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    expect_told(dir, name, 5);
    assert_int_equal(rmdir(path), 0);
    (void)snprintf(path, sizeof path, "%s/note\x1b[1m.txt", dir->path);
    write_file(path, "x", 1);
    expect_told(dir, "note?[1m.txt", 5);
}

static void lines_that_are_no_records_are_told_and_passed_over(void **state)
{
    const struct logdir *dir = *state;
    make_log(dir, 0, 5);
    char path[160];
    segment_path(dir, 0, path);
    size_t len;
    KMS_FREE char *text = read_file(path, &len);
    const char *name = strrchr(path, '/') + 1;
    static char junk[3 * KMS_AUDIT_LINE_MAX];
    memset(junk, 'x', sizeof junk);
    const struct {
        const char *data;
        size_t len;
    } lines[] = {{"half a record\n", 14}, {junk, sizeof junk}, {"{\"seq\":7}\n", 10}, {"\xff\xfe\n", 3}};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        const size_t cut = (size_t)(line_at(text, 3) - text);
        assert_int_equal(fwrite(text, 1, cut, file), cut);
        assert_int_equal(fwrite(lines[i].data, 1, lines[i].len, file), lines[i].len);
        assert_int_equal(fwrite("\n", 1, 1, file), 1);
        assert_int_equal(fwrite(text + cut, 1, len - cut, file), len - cut);
        assert_int_equal(fclose(file), 0);
        expect_told(dir, name, 5);
    }
}

static void a_line_of_a_gigabyte_takes_no_memory(void **state)
{
    const struct logdir *dir = *state;
    make_log(dir, 0, 5);
    char name[KMS_AUDIT_NAME_SIZE];
    char path[160];
    (void)snprintf(path, sizeof path, "%s/%s", dir->path, kms_audit_segment_name(7, name));
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    static char junk[1024 * 1024];
    memset(junk, 'x', sizeof junk);
    for (unsigned i = 0; i < 64; i++) /* many times what any buffer holds; a gigabyte differs only in time */
        assert_int_equal(write(fd, junk, sizeof junk), sizeof junk);
    assert_int_equal(close(fd), 0);
    expect_told(dir, name, 5);
}

static void a_query_can_be_stopped_and_a_directory_can_be_missing(void **state)
{
    const struct logdir *dir = *state;
    static struct collected collected;
    collected = (struct collected){.stop_after = 2};
    struct kms_audit_query_result result;
    const struct kms_audit_query_options options = {.found = collect, .context = &collected};
    assert_int_equal(kms_audit_query(dir->path, &options, &result, NULL), KMS_NOT_FOUND);
    make_log(dir, 0, 5);
    assert_int_equal(kms_audit_query(dir->path, &options, &result, NULL), KMS_CANCELLED);
    assert_int_equal(collected.count, 2);
}

static void only_what_is_a_body_is_taken_apart(void **state)
{
    (void)state;
    static const char good[] =
        ",\"time\":\"2026-01-31T12:00:00.000000Z\",\"type\":\"call\",\"reason\":\"a\\\"b\",\"unknown\":3,"
        "\"detail\":{\"x\":[{}]}";
    struct kms_audit_fields fields;
    assert_true(kms_audit_fields_parse(kms_slice_str(good), &fields));
    assert_true(kms_slice_equal(fields.reason, kms_slice_str("a\\\"b")));
    assert_true(kms_slice_equal(fields.detail, kms_slice_str("{\"x\":[{}]}")));
    for (size_t cut = 0; cut < sizeof good - 1; cut++) {
        KMS_FREE char *copy = malloc(cut + 1);
        memcpy(copy, good, cut);
        (void)kms_audit_fields_parse(kms_slice_of(copy, cut), &fields); /* the sanitizer guards its end */
    }
    static const char *const bad[] = {
        "",
        ",\"type\":\"call\"",
        ",\"time\":\"2026-01-31T12:00:00.000000Z\"",
        ",\"time\":\"2026-13-31T12:00:00.000000Z\",\"type\":\"call\"",
        ",\"time\":\"2026-01-31T12:00:00.000000Z\",\"type\":\"call",
        ",\"time\":\"2026-01-31T12:00:00.000000Z\",\"type\":\"call\",\"x\":",
        ",\"time\":\"2026-01-31T12:00:00.000000Z\",\"type\":\"call\",\"x\":null",
        ",\"time\":\"2026-01-31T12:00:00.000000Z\",\"type\":\"call\",\"detail\":{",
        ",\"time\":\"2026-01-31T12:00:00.000000Z\",\"type\":\"ca\nll\"",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(kms_audit_fields_parse(kms_slice_str(bad[i]), &fields));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, logdir_setup, logdir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_filter_finds_the_same_with_and_without_indexes),
        TEST(a_day_and_a_rare_value_read_a_small_part),
        TEST(an_index_that_does_not_fit_is_made_again),
        TEST(an_index_of_a_segment_that_has_changed_is_made_again),
        TEST(what_is_no_segment_is_told_and_passed_over),
        TEST(lines_that_are_no_records_are_told_and_passed_over),
        TEST(a_line_of_a_gigabyte_takes_no_memory),
        TEST(a_query_can_be_stopped_and_a_directory_can_be_missing),
        cmocka_unit_test(only_what_is_a_body_is_taken_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
