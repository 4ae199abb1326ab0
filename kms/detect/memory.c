#include "detect/memory.h"

#include "core/cleanup.h"
#include "core/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sys/stat.h>

static const char first_line[] = "kms-places 1";
static const char last_word[] = "end ";

/* One line of the text without its newline; false at the end, or when the newline is missing. */
static bool next_line(struct kms_slice *rest, struct kms_slice *ret_line)
{
    const uint8_t *newline = rest->len > 0 ? memchr(rest->data, '\n', rest->len) : NULL;
    if (newline == NULL)
        return false;
    *ret_line = kms_slice_of(rest->data, (size_t)(newline - rest->data));
    rest->data += ret_line->len + 1;
    rest->len -= ret_line->len + 1;
    return true;
}

/* Take "<place> <identity>" apart. */
static bool parse_entry(struct kms_slice line, struct kms_place *ret_place,
                        char ret_identity[KMS_DETECT_IDENTITY_MAX + 1])
{
    const uint8_t *space = line.len > 0 ? memchr(line.data, ' ', line.len) : NULL;
    char place[KMS_PLACE_TEXT_SIZE];
    if (space == NULL || (size_t)(space - line.data) >= sizeof place)
        return false;
    const size_t place_len = (size_t)(space - line.data);
    const size_t identity_len = line.len - place_len - 1;
    if (identity_len == 0 || identity_len > KMS_DETECT_IDENTITY_MAX ||
        !kms_utf8_printable(line.data, line.len))
        return false;
    memcpy(place, line.data, place_len);
    place[place_len] = '\0';
    memcpy(ret_identity, space + 1, identity_len);
    ret_identity[identity_len] = '\0';
    return kms_place_parse(place, ret_place);
}

/* "end <count>" and nothing behind it. */
static bool is_end(struct kms_slice line, size_t count, struct kms_slice rest)
{
    char expected[32];
    (void)snprintf(expected, sizeof expected, "%s%zu", last_word, count);
    return rest.len == 0 && kms_slice_equal(line, kms_slice_str(expected));
}

/* Walk through the text; `detect` NULL: only look whether it is whole. Returns the line that is wrong, 0: none. */
static size_t walk(struct kms_slice text, struct kms_detect *detect)
{
    struct kms_slice line;
    if (!next_line(&text, &line) || !kms_slice_equal(line, kms_slice_str(first_line)))
        return 1;
    for (size_t count = 0;; count++) {
        struct kms_place place;
        char identity[KMS_DETECT_IDENTITY_MAX + 1];
        if (!next_line(&text, &line))
            return count + 2;
        if (is_end(line, count, text))
            return 0;
        if (!parse_entry(line, &place, identity))
            return count + 2;
        if (detect != NULL)
            kms_detect_know(detect, identity, &place);
    }
}

enum kms_status kms_detect_memory_parse(struct kms_slice text, struct kms_detect *detect,
                                        struct kms_error *err)
{
    const size_t wrong = walk(text, NULL);
    if (wrong > 0)
        return kms_fail(err, KMS_FAILED_PRECONDITION, "line %zu of the file of known places is damaged",
                        wrong);
    if (detect != NULL)
        (void)walk(text, detect);
    return KMS_OK;
}

/* What grows while kms_detect_known() visits. */
struct writer {
    struct kms_buf *text;
    size_t count;
    enum kms_status status;
};

static void write_entry(void *context, const char *identity, const struct kms_place *place)
{
    struct writer *writer = context;
    char text[KMS_PLACE_TEXT_SIZE];
    if (writer->status == KMS_OK)
        writer->status = kms_buf_printf(writer->text, "%s %s\n", kms_place_format(place, text), identity);
    writer->count++;
}

enum kms_status kms_detect_memory_text(struct kms_detect *detect, struct kms_buf *ret_text)
{
    KMS_CLEANUP(kms_buf_clear) struct kms_buf text = {0};
    struct writer writer = {.text = &text, .status = KMS_OK};
    KMS_TRY(kms_buf_printf(&text, "%s\n", first_line));
    size_t position = 0;
    while (kms_detect_known(detect, &position, write_entry, &writer) && writer.status == KMS_OK)
        continue;
    KMS_TRY(writer.status);
    KMS_TRY(kms_buf_printf(&text, "%s%zu\n", last_word, writer.count));
    *ret_text = text;
    text = (struct kms_buf){0};
    return KMS_OK;
}

enum kms_status kms_detect_memory_load(const char *path, struct kms_detect *detect, struct kms_error *err)
{
    if (access(path, F_OK) != 0 && errno == ENOENT)
        return KMS_OK;
    KMS_CLEANUP(kms_buf_clear) struct kms_buf text = {0};
    KMS_TRY(kms_file_read(path, KMS_DETECT_MEMORY_MAX, &text, err));
    return kms_detect_memory_parse(kms_buf_slice(&text), detect, err);
}

/* All bytes, then fsync. */
static bool write_all(int fd, struct kms_slice bytes)
{
    while (bytes.len > 0) {
        const ssize_t written = write(fd, bytes.data, bytes.len);
        if (written <= 0)
            return false;
        bytes.data += written;
        bytes.len -= (size_t)written;
    }
    return fsync(fd) == 0;
}

/* A new name is durable when its directory is. */
static bool sync_directory_of(const char *path)
{
    char directory[PATH_MAX];
    const char *slash = strrchr(path, '/');
    const size_t len = slash == NULL ? 0 : (size_t)(slash - path) + 1;
    (void)snprintf(directory, sizeof directory, "%.*s.", (int)len, path);
    KMS_CLOSE int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 && fsync(fd) == 0;
}

enum kms_status kms_detect_memory_save(const char *path, struct kms_detect *detect, struct kms_error *err)
{
    KMS_CLEANUP(kms_buf_clear) struct kms_buf text = {0};
    KMS_TRY(kms_detect_memory_text(detect, &text));
    char fresh[PATH_MAX];
    const int len = snprintf(fresh, sizeof fresh, "%s.new", path);
    if (len < 0 || (size_t)len >= sizeof fresh)
        return kms_fail(err, KMS_IO, "the name of the file of known places is too long");
    KMS_CLOSE int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (fd < 0 || !write_all(fd, kms_buf_slice(&text)) || rename(fresh, path) != 0 ||
        !sync_directory_of(path))
        return kms_fail(err, KMS_IO, "cannot write the file of known places '%s': %m", path);
    return KMS_OK;
}
