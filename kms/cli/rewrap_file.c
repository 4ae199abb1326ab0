#define _GNU_SOURCE
#include "cli/rewrap_file.h"

#include "core/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void kms_cli_rewrap_close(struct kms_cli_rewrap_file *file)
{
    if (file->in != NULL)
        (void)fclose(file->in);
    if (file->out != NULL)
        (void)fclose(file->out);
    free(file->path);
    free(file->part);
    free(file->state_path);
    *file = (struct kms_cli_rewrap_file){0};
}

/* The input, and what tells it from others. */
static int open_input(struct kms_cli *cli, const char *path, struct kms_cli_rewrap_file *file)
{
    struct stat info;
    file->in = fopen(path, "re");
    if (file->in == NULL || fstat(fileno(file->in), &info) != 0)
        return kms_cli_fail(cli, "cannot open %s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return kms_cli_fail(cli, "%s is no regular file: an interrupted run could not go on", path);
    file->in_size = (uint64_t)info.st_size;
    (void)snprintf(file->input, sizeof file->input, "%" PRIuMAX ":%" PRIuMAX, (uintmax_t)info.st_dev,
                   (uintmax_t)info.st_ino);
    return KMS_CLI_EXIT_OK;
}

/* A number that is not negative. */
static bool take_number(const json_t *state, const char *name, uint64_t *ret_number)
{
    const json_t *value = json_object_get(state, name);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *ret_number = (uint64_t)json_integer_value(value);
    return true;
}

/* Go on where the state says. */
static int resume(struct kms_cli *cli, const json_t *state, struct kms_cli_rewrap_file *file)
{
    uint64_t in_size = 0;
    uint64_t out_offset = 0;
    const char *input = json_string_value(json_object_get(state, "input"));
    const bool whole = input != NULL && take_number(state, "lines", &file->state.lines) &&
                       take_number(state, "failed", &file->state.failed) &&
                       take_number(state, "in_offset", &file->state.in_offset) &&
                       take_number(state, "in_size", &in_size) &&
                       take_number(state, "out_offset", &out_offset);
    if (!whole)
        return kms_cli_fail(cli, "%s is damaged: remove it and %s to begin again", file->state_path,
                            file->part);
    if (strcmp(input, file->input) != 0 || in_size != file->in_size || file->state.in_offset > in_size + 1)
        return kms_cli_fail(cli, "%s belongs to another input: remove it and %s to begin again",
                            file->state_path, file->part);
    file->out = fopen(file->part, "r+e");
    if (file->out == NULL || ftruncate(fileno(file->out), (off_t)out_offset) != 0 ||
        fseeko(file->out, (off_t)out_offset, SEEK_SET) != 0 ||
        fseeko(file->in, (off_t)(file->state.in_offset < in_size ? file->state.in_offset : in_size),
               SEEK_SET) != 0)
        return kms_cli_fail(cli, "cannot go on with %s: %s", file->part, strerror(errno));
    return KMS_CLI_EXIT_OK;
}

/* A new output. */
static int begin(struct kms_cli *cli, struct kms_cli_rewrap_file *file)
{
    const int fd = open(file->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    file->out = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (file->out == NULL)
        return kms_cli_fail(cli, "cannot write %s: %s", file->part, strerror(errno));
    return KMS_CLI_EXIT_OK;
}

int kms_cli_rewrap_open(struct kms_cli *cli, const char *in, const char *out,
                        struct kms_cli_rewrap_file *ret_file)
{
    if (asprintf(&ret_file->path, "%s", out) < 0 || asprintf(&ret_file->part, "%s.part", out) < 0 ||
        asprintf(&ret_file->state_path, "%s.state", out) < 0)
        return kms_cli_fail(cli, "out of memory");
    if (access(out, F_OK) == 0)
        return kms_cli_fail(cli, "%s exists already", out);
    const int result = open_input(cli, in, ret_file);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    json_t *state = json_load_file(ret_file->state_path, JSON_REJECT_DUPLICATES, NULL);
    if (state == NULL && access(ret_file->state_path, F_OK) == 0)
        return kms_cli_fail(cli, "%s is damaged: remove it and %s to begin again", ret_file->state_path,
                            ret_file->part);
    const int opened = state != NULL ? resume(cli, state, ret_file) : begin(cli, ret_file);
    json_decref(state);
    return opened;
}

/* The state under another name first, so that it is whole or not there. */
static bool write_state(const struct kms_cli_rewrap_file *file)
{
    KMS_FREE char *draft = NULL;
    if (asprintf(&draft, "%s.new", file->state_path) < 0)
        return false;
    json_t *state = json_pack("{s:I, s:I, s:I, s:s, s:I, s:I}", "failed", (json_int_t)file->state.failed,
                              "in_offset", (json_int_t)file->state.in_offset, "in_size",
                              (json_int_t)file->in_size, "input", file->input, "lines",
                              (json_int_t)file->state.lines, "out_offset", (json_int_t)ftello(file->out));
    FILE *out = fopen(draft, "we");
    bool written = state != NULL && out != NULL &&
                   json_dumpf(state, out, JSON_COMPACT | JSON_SORT_KEYS) == 0 && fflush(out) == 0 &&
                   fdatasync(fileno(out)) == 0;
    json_decref(state);
    if (out != NULL)
        written &= fclose(out) == 0;
    return written && rename(draft, file->state_path) == 0;
}

int kms_cli_rewrap_keep(struct kms_cli *cli, struct kms_cli_rewrap_file *file)
{
    if (fflush(file->out) != 0 || fdatasync(fileno(file->out)) != 0 || !write_state(file))
        return kms_cli_fail(cli, "cannot write %s: %s", file->part, strerror(errno));
    return KMS_CLI_EXIT_OK;
}

int kms_cli_rewrap_finish(struct kms_cli *cli, struct kms_cli_rewrap_file *file)
{
    if (fflush(file->out) != 0 || fsync(fileno(file->out)) != 0 || rename(file->part, file->path) != 0)
        return kms_cli_fail(cli, "cannot write %s: %s", file->path, strerror(errno));
    (void)unlink(file->state_path); /* there is none yet after a short run */
    return KMS_CLI_EXIT_OK;
}
