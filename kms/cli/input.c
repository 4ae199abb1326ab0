#include "cli/input.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>

/* Read until the end or until the memory is full. */
static bool read_all(int fd, struct kms_secret *bytes)
{
    while (bytes->len < bytes->capacity) {
        const ssize_t got = read(fd, bytes->data + bytes->len, bytes->capacity - bytes->len);
        if (got == 0)
            return true;
        if (got < 0 && errno != EINTR)
            return false;
        bytes->len += got > 0 ? (size_t)got : 0;
    }
    return true;
}

int kms_cli_read_input(struct kms_cli *cli, const char *path, size_t max, struct kms_secret *ret_bytes)
{
    const bool standard = path == NULL || strcmp(path, "-") == 0;
    const char *name = standard ? "standard input" : path;
    KMS_CLOSE const int file = standard ? -1 : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (!standard && file < 0)
        return kms_cli_fail(cli, "cannot open %s: %s", path, strerror(errno));
    KMS_SECRET bytes = {0};
    if (kms_secret_new(max + 1, &bytes) != KMS_OK)
        return kms_cli_fail(cli, "not enough locked memory: see the limit with 'ulimit -l'");
    if (!read_all(standard ? STDIN_FILENO : file, &bytes))
        return kms_cli_fail(cli, "cannot read %s: %s", name, strerror(errno));
    if (bytes.len > max)
        return kms_cli_fail(cli, "%s has more than %zu bytes", name, max);
    if (bytes.len == 0)
        return kms_cli_fail(cli, "%s is empty", name);
    *ret_bytes = bytes;
    bytes = (struct kms_secret){0};
    return KMS_CLI_EXIT_OK;
}

/* Base64 text in place; line ends and spaces are passed over. False when it is no base64. */
static bool decode_base64(struct kms_secret *bytes)
{
    size_t len = 0;
    for (size_t i = 0; i < bytes->len; i++) {
        const uint8_t c = bytes->data[i];
        if (c != '\n' && c != '\r' && c != ' ' && c != '\t')
            bytes->data[len++] = c;
    }
    if (len == 0 || len % 4 != 0)
        return false;
    const size_t padding = bytes->data[len - 1] != '=' ? 0 : bytes->data[len - 2] != '=' ? 1 : 2;
    if (memchr(bytes->data, '=', len - padding) != NULL) /* OpenSSL takes it for a digit */
        return false;
    KMS_SECRET decoded = {0};
    if (kms_secret_new(len, &decoded) != KMS_OK)
        return false;
    const int got = EVP_DecodeBlock(decoded.data, bytes->data, (int)len);
    if (got < 0 || (size_t)got < padding)
        return false;
    memcpy(bytes->data, decoded.data, (size_t)got);
    bytes->len = (size_t)got - padding;
    return bytes->len > 0;
}

int kms_cli_read_wrapped(struct kms_cli *cli, const char *path, struct kms_secret *ret_wrapped)
{
    enum {
        BLOB_FORMATS_MAX =
            0x1F /* wrapped keys begin with a small number, base64 with a printable character */
    };
    const size_t text_max = (size_t)KMS_DATAKEY_WRAPPED_MAX * 3 / 2; /* base64 with line ends */
    KMS_SECRET bytes = {0};
    const int result = kms_cli_read_input(cli, path, text_max, &bytes);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    const bool text = bytes.data[0] > BLOB_FORMATS_MAX || bytes.data[0] == '\n' || bytes.data[0] == '\r';
    if (text && !decode_base64(&bytes))
        return kms_cli_fail(cli, "%s holds neither a wrapped data key nor base64",
                            path == NULL || strcmp(path, "-") == 0 ? "standard input" : path);
    *ret_wrapped = bytes;
    bytes = (struct kms_secret){0};
    return KMS_CLI_EXIT_OK;
}

int kms_cli_write_new(struct kms_cli *cli, const char *path, const void *data, size_t len)
{
    const int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0)
        return kms_cli_fail(cli, "cannot create %s: %s", path, strerror(errno));
    const ssize_t put = write(file, data, len);
    const int failure = put < 0 ? errno : ENOSPC;
    if (close(file) != 0 || put < 0 || (size_t)put != len) {
        (void)unlink(path);
        return kms_cli_fail(cli, "cannot write %s: %s", path, strerror(failure));
    }
    return KMS_CLI_EXIT_OK;
}

int kms_cli_read_pairs(struct kms_cli *cli, enum kms_cli_option option,
                       struct kms_datakey_context **ret_pairs, size_t *ret_count)
{
    const struct kms_cli_values *given = &cli->options.given[option];
    struct kms_datakey_context *pairs = calloc(given->count + 1, sizeof *pairs);
    if (pairs == NULL)
        return kms_cli_fail(cli, "out of memory");
    for (size_t i = 0; i < given->count; i++) {
        const char *text = given->items[i];
        const char *equals = strchr(text, '=');
        if (equals == NULL || equals == text) {
            kms_cli_free_pairs(&pairs);
            return kms_cli_usage(cli, "--%s takes KEY=VALUE, not \"%s\"", kms_cli_option_row(option)->text,
                                 text);
        }
        char *key = strndup(text, (size_t)(equals - text));
        if (key == NULL) {
            kms_cli_free_pairs(&pairs);
            return kms_cli_fail(cli, "out of memory");
        }
        pairs[i].key = key;
        pairs[i].value = equals + 1;
    }
    *ret_pairs = pairs;
    *ret_count = given->count;
    return KMS_CLI_EXIT_OK;
}

void kms_cli_free_pairs(struct kms_datakey_context **pairs)
{
    for (struct kms_datakey_context *pair = *pairs; pair != NULL && pair->key != NULL; pair++) {
        char *key;
        memcpy(&key, &pair->key, sizeof key);
        free(key);
    }
    free(*pairs);
    *pairs = NULL;
}
