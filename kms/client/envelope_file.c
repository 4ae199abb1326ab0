#define _GNU_SOURCE /* renameat2 */
#include <kms/envelope.h>

#include "client/fault.h"
#include "core/cleanup.h"
#include "core/ids.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <sys/stat.h>

/* The two ends of one run. */
struct files {
    int in;
    int out;
    char *out_path;  /* real path of a regular output; NULL when it is written in place */
    char *temp_path; /* what is written until the end; NULL likewise */
    const struct kms_envelope_file_options *options;
    uint64_t input_size; /* 0: not known */
};

/* Closes both ends; a temporary output that is still there is not wanted any more. */
static void files_clear(struct files *files)
{
    if (files->in > STDIN_FILENO)
        (void)close(files->in);
    if (files->out > STDOUT_FILENO)
        (void)close(files->out);
    if (files->temp_path != NULL)
        (void)unlink(files->temp_path);
    free(files->temp_path);
    free(files->out_path);
}

static bool is_standard(const char *path)
{
    return path == NULL || strcmp(path, "-") == 0;
}

static int64_t file_read(void *context, uint8_t *data, size_t size)
{
    const struct files *files = context;
    ssize_t got;
    do {
        got = read(files->in, data, size);
    } while (got < 0 && errno == EINTR);
    return got;
}

static int file_write(void *context, const uint8_t *data, size_t len)
{
    const struct files *files = context;
    while (len > 0) {
        const ssize_t put = write(files->out, data, len);
        if (put < 0 && errno != EINTR)
            return -1;
        if (put > 0) {
            data += put;
            len -= (size_t)put;
        }
    }
    return 0;
}

static int file_progress(void *context, uint64_t done)
{
    const struct files *files = context;
    return files->options->progress(files->options->progress_context, done, files->input_size);
}

static enum kms_client_status open_input(struct files *files, const char *path, struct kms_client_error *err)
{
    files->in = is_standard(path) ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    struct stat info;
    if (files->in < 0 || fstat(files->in, &info) != 0)
        return kms_fault_set(err, KMS_CLIENT_IO, "cannot open %s: %s",
                             is_standard(path) ? "standard input" : path, strerror(errno));
    if (S_ISDIR(info.st_mode))
        return kms_fault_set(err, KMS_CLIENT_IO, "cannot open %s: it is a directory", path);
    files->input_size = S_ISREG(info.st_mode) && info.st_size > 0 ? (uint64_t)info.st_size : 0;
    return KMS_CLIENT_OK;
}

/* A new file beside the output's place, so that the rename at the end stays within one file system. */
static enum kms_client_status open_temporary(struct files *files, mode_t mode, struct kms_client_error *err)
{
    uint8_t random[8];
    char suffix[2 * sizeof random + 1];
    kms_system_random(random, sizeof random);
    kms_hex_encode(random, sizeof random, suffix);
    char *temp_path = NULL;
    if (asprintf(&temp_path, "%s.%s.tmp", files->out_path, suffix) < 0)
        return kms_fault_no_memory(err);
    files->out = open(temp_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (files->out < 0) {
        (void)kms_fault_set(err, KMS_CLIENT_IO, "cannot create %s: %s", temp_path, strerror(errno));
        free(temp_path);
        return KMS_CLIENT_IO;
    }
    files->temp_path = temp_path;
    return KMS_CLIENT_OK;
}

static enum kms_client_status open_output(struct files *files, const char *path, mode_t mode,
                                          struct kms_client_error *err)
{
    if (is_standard(path)) {
        files->out = STDOUT_FILENO;
        return KMS_CLIENT_OK;
    }
    struct stat info;
    const bool exists = stat(path, &info) == 0;
    if (exists && S_ISDIR(info.st_mode))
        return kms_fault_set(err, KMS_CLIENT_IO, "cannot write %s: it is a directory", path);
    if (exists && !S_ISREG(info.st_mode)) {
        files->out = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
        return files->out >= 0
                   ? KMS_CLIENT_OK
                   : kms_fault_set(err, KMS_CLIENT_IO, "cannot open %s: %s", path, strerror(errno));
    }
    if (exists && files->options->keep_existing)
        return kms_fault_set(err, KMS_CLIENT_IO, "%s exists already", path);
    files->out_path = exists ? realpath(path, NULL) : strdup(path);
    if (files->out_path == NULL)
        return kms_fault_no_memory(err);
    return open_temporary(files, mode, err);
}

/* Make the rename itself durable; an error here changes nothing about the file, so it is not reported. */
static void sync_directory_of(const char *path)
{
    KMS_FREE char *copy = strdup(path);
    if (copy == NULL)
        return;
    KMS_CLOSE const int directory = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory >= 0)
        (void)fsync(directory);
}

/* Give the complete output its name. */
static enum kms_client_status commit_output(struct files *files, struct kms_client_error *err)
{
    if (files->temp_path == NULL)
        return KMS_CLIENT_OK;
    const unsigned flags = files->options->keep_existing ? RENAME_NOREPLACE : 0;
    if (fsync(files->out) != 0 ||
        renameat2(AT_FDCWD, files->temp_path, AT_FDCWD, files->out_path, flags) != 0)
        return kms_fault_set(err, KMS_CLIENT_IO, "cannot complete %s: %s", files->out_path, strerror(errno));
    free(files->temp_path);
    files->temp_path = NULL;
    sync_directory_of(files->out_path);
    return KMS_CLIENT_OK;
}

typedef enum kms_client_status (*stream_function)(struct kms_datakey_source,
                                                  const struct kms_envelope_scope *,
                                                  const struct kms_envelope_io *, struct kms_client_error *);

/* Run a stream function between two files. */
static enum kms_client_status over_files(stream_function function, struct kms_datakey_source source,
                                         const struct kms_envelope_scope *scope, const char *in_path,
                                         const char *out_path, mode_t mode,
                                         const struct kms_envelope_file_options *options,
                                         struct kms_client_error *err)
{
    static const struct kms_envelope_file_options defaults;
    KMS_CLEANUP(files_clear)
    struct files files = {.in = -1, .out = -1, .options = options != NULL ? options : &defaults};
    enum kms_client_status status = open_input(&files, in_path, err);
    if (status == KMS_CLIENT_OK)
        status = open_output(&files, out_path, mode, err);
    if (status != KMS_CLIENT_OK)
        return status;
    const struct kms_envelope_io io = {.context = &files,
                                       .read = file_read,
                                       .write = file_write,
                                       .progress = files.options->progress != NULL ? file_progress : NULL,
                                       .expected_bytes =
                                           files.input_size != 0 ? files.input_size : UINT64_MAX};
    status = function(source, scope, &io, err);
    return status == KMS_CLIENT_OK ? commit_output(&files, err) : status;
}

enum kms_client_status kms_envelope_encrypt_file(struct kms_datakey_source source,
                                                 const struct kms_envelope_scope *scope, const char *in_path,
                                                 const char *out_path,
                                                 const struct kms_envelope_file_options *options,
                                                 struct kms_client_error *err)
{
    return over_files(kms_envelope_encrypt_stream, source, scope, in_path, out_path, 0666, options, err);
}

enum kms_client_status kms_envelope_decrypt_file(struct kms_datakey_source source,
                                                 const struct kms_envelope_scope *scope, const char *in_path,
                                                 const char *out_path,
                                                 const struct kms_envelope_file_options *options,
                                                 struct kms_client_error *err)
{
    return over_files(kms_envelope_decrypt_stream, source, scope, in_path, out_path, 0600, options, err);
}
