#define _GNU_SOURCE
#include "unit/audit/logdir.h"

#include "audit/segment.h"
#include "core/cleanup.h"

#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

void logdir_new(struct logdir *ret_dir)
{
    (void)snprintf(ret_dir->root, sizeof ret_dir->root, "/tmp/kms-test-audit-XXXXXX");
    assert_non_null(mkdtemp(ret_dir->root));
    (void)snprintf(ret_dir->path, sizeof ret_dir->path, "%s/audit", ret_dir->root);
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info;
    (void)type;
    (void)where;
    return remove(path);
}

void logdir_clear(struct logdir *dir)
{
    assert_int_equal(nftw(dir->root, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
}

int logdir_setup(void **state)
{
    struct logdir *dir = calloc(1, sizeof *dir);
    assert_non_null(dir);
    logdir_new(dir);
    *state = dir;
    return 0;
}

int logdir_teardown(void **state)
{
    logdir_clear(*state);
    free(*state);
    return 0;
}

struct kms_audit *open_log(const struct logdir *dir, uint64_t segment_bytes)
{
    /* A busy machine must not look like a hung disk. */
    const struct kms_audit_config config = {
        .directory = dir->path, .segment_bytes = segment_bytes, .write_deadline_ns = INT64_C(60000000000)};
    struct kms_audit *audit = NULL;
    struct kms_error err = {0};
    if (kms_audit_open(&config, &audit, &err) != KMS_OK)
        fail_msg("%s", err.cause);
    return audit;
}

enum kms_status append_number(struct kms_audit *audit, unsigned number)
{
    char request_id[32];
    (void)snprintf(request_id, sizeof request_id, "r-%u", number);
    const struct kms_audit_event event = {.type = "call",
                                          .action = "datakey.generate",
                                          .request_id = request_id,
                                          .identity = "spiffe://kms.example/app/demo",
                                          .tenant = "acme",
                                          .purpose = "service",
                                          .outcome = "OK"};
    return kms_audit_append(audit, &event, NULL);
}

void commit_numbers(struct kms_audit *audit, unsigned first, unsigned last)
{
    for (unsigned number = first; number <= last; number++)
        assert_int_equal(append_number(audit, number), KMS_OK);
    struct kms_error err = {0};
    if (kms_audit_commit(audit, &err) != KMS_OK)
        fail_msg("%s", err.cause);
}

void make_log(const struct logdir *dir, uint64_t segment_bytes, unsigned count)
{
    struct kms_audit *audit = open_log(dir, segment_bytes);
    for (unsigned number = 1; number <= count; number++)
        commit_numbers(audit, number, number);
    kms_audit_free(audit);
}

size_t segment_count(const struct logdir *dir)
{
    struct kms_audit_segments segments;
    assert_int_equal(kms_audit_segment_list(dir->path, NULL, NULL, &segments, NULL), KMS_OK);
    free(segments.first_seqs);
    return segments.count;
}

void segment_path(const struct logdir *dir, size_t index, char ret_path[160])
{
    struct kms_audit_segments segments;
    assert_int_equal(kms_audit_segment_list(dir->path, NULL, NULL, &segments, NULL), KMS_OK);
    assert_true(index < segments.count);
    char name[KMS_AUDIT_NAME_SIZE];
    (void)snprintf(ret_path, 160, "%s/%s", dir->path,
                   kms_audit_segment_name(segments.first_seqs[index], name));
    free(segments.first_seqs);
}

char *read_file(const char *path, size_t *ret_len)
{
    KMS_FCLOSE FILE *file = fopen(path, "rb");
    assert_non_null(file);
    struct stat now;
    assert_int_equal(fstat(fileno(file), &now), 0);
    char *text = calloc(1, (size_t)now.st_size + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)now.st_size, file), now.st_size);
    *ret_len = (size_t)now.st_size;
    return text;
}

void write_file(const char *path, const void *data, size_t len)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

char *line_at(char *text, unsigned number)
{
    for (; number > 1; number--) {
        text = strchr(text, '\n');
        assert_non_null(text);
        text++;
    }
    return text;
}

enum kms_status verify(const struct logdir *dir, struct kms_audit_verify_result *ret_result)
{
    return kms_audit_verify(dir->path, NULL, ret_result, NULL);
}

/* All segments one after the other, as one text. */
static char *read_all(const struct logdir *dir)
{
    struct kms_buf all = {0};
    for (size_t i = 0; i < segment_count(dir); i++) {
        char path[160];
        size_t len;
        segment_path(dir, i, path);
        char *text = read_file(path, &len);
        assert_int_equal(kms_buf_append_str(&all, text), KMS_OK);
        free(text);
    }
    assert_int_equal(kms_buf_append(&all, "", 1), KMS_OK);
    return (char *)all.data;
}

void assert_complete(const struct logdir *dir, unsigned count)
{
    struct kms_audit_verify_result result;
    struct kms_error err = {0};
    if (kms_audit_verify(dir->path, NULL, &result, &err) != KMS_OK)
        fail_msg("%s", kms_error_public(&err, KMS_TAMPERED));
    char *all = read_all(dir);
    char *rest = all;
    unsigned found = 0;
    /* Line by line: AddressSanitizer's strstr() measures everything that is left each time. */
    for (const char *line; (line = strsep(&rest, "\n")) != NULL;) {
        const char *id = strstr(line, "\"request_id\":\"r-");
        if (id != NULL)
            assert_int_equal(strtoul(id + strlen("\"request_id\":\"r-"), NULL, 10), ++found);
    }
    assert_int_equal(found, count);
    free(all);
}

unsigned count_number(const struct logdir *dir, unsigned number)
{
    char wanted[48];
    (void)snprintf(wanted, sizeof wanted, "\"request_id\":\"r-%u\"", number);
    char *all = read_all(dir);
    unsigned found = 0;
    for (const char *next = all; (next = strstr(next, wanted)) != NULL; next++)
        found++;
    free(all);
    return found;
}
