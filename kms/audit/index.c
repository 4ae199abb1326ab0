#include "audit/index.h"

#include "audit/chain.h"
#include "audit/reader.h"
#include "core/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    BLOCK_SIZE = 24, /* of its row in the file */
    KEY_SIZE = 8,
    BODY_DIGEST_AT = 96,
    HEADER_DIGEST_AT = 128,
    BLOCK_BITS = 16,
    LAST_HASH_TAIL =
        2 * KMS_AUDIT_HASH_SIZE + 3, /* the hash in hex, `"}` and the newline end every segment */
};
static const char magic[8] = "KMSAIDX1"; /* without its NUL */
#define NO_LINE UINT64_MAX
#define NO_KEYS UINT64_MAX

struct block {
    uint64_t offset; /* of its first line; NO_LINE: none begins in it */
    int64_t earliest_ns, latest_ns;
};

struct header {
    uint64_t first_seq, segment_bytes;
    uint8_t last_hash[KMS_AUDIT_HASH_SIZE];
    int64_t earliest_ns, latest_ns;
    uint64_t records;
    uint32_t block_bytes, block_count;
    uint64_t key_count; /* NO_KEYS: too many */
    uint8_t body_digest[32];
};

struct kms_audit_index {
    struct header header;
    struct block *blocks;
    uint64_t *keys; /* NULL when there were too many */
};

const char *kms_audit_index_name(uint64_t first_seq, char out[KMS_AUDIT_INDEX_NAME_SIZE])
{
    (void)snprintf(out, KMS_AUDIT_INDEX_NAME_SIZE, "audit-%020" PRIu64 ".index", first_seq);
    return out;
}

void kms_audit_index_free(struct kms_audit_index *index)
{
    if (index == NULL)
        return;
    free(index->blocks);
    free(index->keys);
    free(index);
}

static void free_index(struct kms_audit_index **index)
{
    kms_audit_index_free(*index);
}

/* The upper 48 bits of a key: FNV-1a over field and value, with its bits mixed well. */
static uint64_t hash_value(char field, struct kms_slice value)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    hash = (hash ^ (uint8_t)field) * UINT64_C(0x100000001b3);
    for (size_t i = 0; i < value.len; i++)
        hash = (hash ^ value.data[i]) * UINT64_C(0x100000001b3);
    hash ^= hash >> 32;
    hash *= UINT64_C(0x9e3779b97f4a7c15);
    return hash & ~(((uint64_t)1 << BLOCK_BITS) - 1);
}

/* What is being built. */
struct builder {
    struct kms_audit_index *index;
    struct kms_audit_reader *reader;
    struct kms_buf keys;     /* of the blocks before, uint64_t */
    struct kms_buf of_block; /* of the one that is read */
    uint32_t block;          /* its number */
    bool too_many, no_memory;
    int64_t last_ns; /* of the record before; a line that is none takes its time */
};

static void clear_builder(struct builder *builder)
{
    kms_audit_index_free(builder->index);
    kms_audit_reader_free(builder->reader);
    kms_buf_clear(&builder->keys);
    kms_buf_clear(&builder->of_block);
}

static void add_key(struct builder *builder, char field, struct kms_slice value)
{
    if (value.len == 0 || builder->too_many)
        return;
    const uint64_t key = hash_value(field, value) | builder->block;
    if (kms_buf_append(&builder->of_block, &key, sizeof key) != KMS_OK)
        builder->no_memory = true;
}

static void add_uuid(void *context, struct kms_slice uuid)
{
    add_key(context, 'c', uuid);
}

static void add_tenant(void *context, struct kms_slice tenant)
{
    add_key(context, 't', tenant);
}

static int compare_keys(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a;
    const uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Sort, and drop copies; returns how many are left. */
static size_t sort_keys(struct kms_buf *keys)
{
    uint64_t *list = (uint64_t *)(void *)keys->data;
    const size_t count = keys->len / sizeof *list;
    if (count == 0)
        return 0;
    qsort(list, count, sizeof *list, compare_keys);
    size_t kept = 1;
    for (size_t i = 1; i < count; i++) {
        if (list[i] != list[kept - 1])
            list[kept++] = list[i];
    }
    keys->len = kept * sizeof *list;
    return kept;
}

/* The block is read: its keys, each once, join the others. */
static void end_block(struct builder *builder)
{
    (void)sort_keys(&builder->of_block);
    if (builder->keys.len / KEY_SIZE + builder->of_block.len / KEY_SIZE > KMS_AUDIT_INDEX_KEYS_MAX) {
        builder->too_many = true;
        kms_buf_clear(&builder->keys);
    } else if (builder->of_block.len > 0 &&
               kms_buf_append(&builder->keys, builder->of_block.data, builder->of_block.len) != KMS_OK) {
        builder->no_memory = true;
    }
    builder->of_block.len = 0;
}

/* One line of any kind counts for its block; what it says, if it is a record. */
static bool add_line(struct builder *builder, const struct kms_audit_item *item)
{
    struct header *header = &builder->index->header;
    const uint32_t number = (uint32_t)(item->offset / header->block_bytes);
    if (number >= header->block_count)
        return false; /* the file has grown meanwhile: it is not finished */
    if (number != builder->block) {
        end_block(builder);
        builder->block = number;
    }
    struct block *block = &builder->index->blocks[number];
    struct kms_audit_line line;
    struct kms_audit_fields fields;
    const bool good = item->kind == KMS_AUDIT_ITEM_LINE && kms_audit_chain_parse(item->text, &line) &&
                      kms_audit_fields_parse(line.body, &fields);
    if (good) {
        builder->last_ns = fields.time_ns;
        memcpy(header->last_hash, line.stated, sizeof header->last_hash);
        add_key(builder, 'c', fields.customer);
        add_key(builder, 'i', fields.identity);
        add_key(builder, 't', fields.tenant);
        add_key(builder, 'a', fields.action);
        add_key(builder, 'o', fields.outcome);
        kms_audit_fields_uuids(fields.detail, add_uuid, builder);
        kms_audit_fields_members(fields.detail, "\"tenant\":\"", add_tenant, builder);
        header->records++;
    }
    const int64_t ns = builder->last_ns;
    if (block->offset == NO_LINE)
        *block = (struct block){item->offset, ns, ns};
    if (block->earliest_ns > ns)
        block->earliest_ns = ns;
    if (block->latest_ns < ns)
        block->latest_ns = ns;
    return good;
}

/* How a segment of this size is cut. */
static enum kms_status make_blocks(struct builder *builder, uint64_t bytes)
{
    struct header *header = &builder->index->header;
    uint64_t block_bytes = KMS_AUDIT_INDEX_BLOCK_MIN;
    while (bytes / block_bytes >= KMS_AUDIT_INDEX_BLOCKS_MAX)
        block_bytes *= 2;
    if (block_bytes > UINT32_MAX)
        return KMS_TOO_LARGE;
    header->segment_bytes = bytes;
    header->block_bytes = (uint32_t)block_bytes;
    header->block_count = (uint32_t)(bytes / block_bytes) + 1;
    builder->index->blocks = malloc(header->block_count * sizeof *builder->index->blocks);
    if (builder->index->blocks == NULL)
        return KMS_NO_MEMORY;
    for (uint32_t i = 0; i < header->block_count; i++)
        builder->index->blocks[i] = (struct block){.offset = NO_LINE};
    return KMS_OK;
}

/* Every block is read: all keys in one order, and the times of the whole. */
static enum kms_status end_blocks(struct builder *builder)
{
    struct kms_audit_index *index = builder->index;
    struct header *header = &index->header;
    end_block(builder);
    if (builder->no_memory)
        return KMS_NO_MEMORY;
    header->key_count = builder->too_many ? NO_KEYS : sort_keys(&builder->keys);
    index->keys = builder->too_many ? NULL : (uint64_t *)(void *)KMS_TAKE(builder->keys.data);
    bool any = false;
    for (uint32_t i = 0; i < header->block_count; i++) {
        const struct block *block = &index->blocks[i];
        if (block->offset == NO_LINE)
            continue;
        if (!any || block->earliest_ns < header->earliest_ns)
            header->earliest_ns = block->earliest_ns;
        if (!any || block->latest_ns > header->latest_ns)
            header->latest_ns = block->latest_ns;
        any = true;
    }
    return KMS_OK;
}

enum kms_status kms_audit_index_build(int segment_fd, uint64_t first_seq, kms_audit_index_problem problem,
                                      void *context, struct kms_audit_index **ret_index,
                                      struct kms_error *err)
{
    KMS_CLEANUP(clear_builder) struct builder builder = {.index = calloc(1, sizeof *builder.index)};
    if (builder.index == NULL)
        return KMS_NO_MEMORY;
    builder.index->header.first_seq = first_seq;
    struct stat now;
    if (fstat(segment_fd, &now) != 0)
        return kms_fail(err, KMS_IO, "cannot examine the segment: %m");
    KMS_TRY(make_blocks(&builder, (uint64_t)now.st_size));
    KMS_TRY(kms_audit_reader_new(&builder.reader));
    kms_audit_reader_start(builder.reader, segment_fd);
    for (;;) {
        struct kms_audit_item item;
        if (kms_audit_reader_next(builder.reader, &item) != KMS_OK)
            return kms_fail(err, KMS_IO, "cannot read the segment: %m");
        if (item.kind == KMS_AUDIT_ITEM_END) {
            if (item.data_end > item.offset && problem != NULL)
                problem(context, item.line, item.offset, "what ends the file is no whole record");
            break;
        }
        if (!add_line(&builder, &item) && problem != NULL)
            problem(context, item.line, item.offset, "the line is no audit record");
    }
    KMS_TRY(end_blocks(&builder));
    *ret_index = KMS_TAKE(builder.index);
    return KMS_OK;
}

static void digest(struct kms_slice bytes, uint8_t out[32])
{
    KMS_ASSERT(EVP_Digest(bytes.data, bytes.len, out, NULL, EVP_sha256(), NULL) == 1);
}

static void pack_header(const struct header *header, uint8_t out[KMS_AUDIT_INDEX_HEADER_SIZE])
{
    memcpy(out, magic, sizeof magic);
    kms_put_be64(out + 8, header->first_seq);
    kms_put_be64(out + 16, header->segment_bytes);
    memcpy(out + 24, header->last_hash, 32);
    kms_put_be64(out + 56, (uint64_t)header->earliest_ns);
    kms_put_be64(out + 64, (uint64_t)header->latest_ns);
    kms_put_be64(out + 72, header->records);
    kms_put_be32(out + 80, header->block_bytes);
    kms_put_be32(out + 84, header->block_count);
    kms_put_be64(out + 88, header->key_count);
    memcpy(out + BODY_DIGEST_AT, header->body_digest, 32);
    digest(kms_slice_of(out, HEADER_DIGEST_AT), out + HEADER_DIGEST_AT);
}

/* False when it is none, is damaged, or names sizes that no index has. */
static bool parse_header(const uint8_t in[KMS_AUDIT_INDEX_HEADER_SIZE], struct header *ret_header)
{
    uint8_t found[32];
    digest(kms_slice_of(in, HEADER_DIGEST_AT), found);
    if (memcmp(in, magic, sizeof magic) != 0 || memcmp(in + HEADER_DIGEST_AT, found, sizeof found) != 0)
        return false;
    struct header header = {
        .first_seq = kms_get_be64(in + 8),
        .segment_bytes = kms_get_be64(in + 16),
        .earliest_ns = (int64_t)kms_get_be64(in + 56),
        .latest_ns = (int64_t)kms_get_be64(in + 64),
        .records = kms_get_be64(in + 72),
        .block_bytes = kms_get_be32(in + 80),
        .block_count = kms_get_be32(in + 84),
        .key_count = kms_get_be64(in + 88),
    };
    memcpy(header.last_hash, in + 24, 32);
    memcpy(header.body_digest, in + BODY_DIGEST_AT, 32);
    if (header.block_bytes < KMS_AUDIT_INDEX_BLOCK_MIN || header.block_count == 0 ||
        header.block_count > KMS_AUDIT_INDEX_BLOCKS_MAX ||
        header.segment_bytes / header.block_bytes + 1 != header.block_count ||
        (header.key_count > KMS_AUDIT_INDEX_KEYS_MAX && header.key_count != NO_KEYS))
        return false;
    *ret_header = header;
    return true;
}

/* Keys that are there. */
static size_t keys_in(const struct header *header)
{
    return header->key_count == NO_KEYS ? 0 : (size_t)header->key_count;
}

static size_t body_size(const struct header *header)
{
    return (size_t)header->block_count * BLOCK_SIZE + keys_in(header) * KEY_SIZE;
}

enum kms_status kms_audit_index_pack(const struct kms_audit_index *index, struct kms_buf *out)
{
    struct header header = index->header;
    KMS_TRY(kms_buf_reserve(out, KMS_AUDIT_INDEX_HEADER_SIZE + body_size(&header)));
    uint8_t *const start = out->data + out->len;
    uint8_t *next = start + KMS_AUDIT_INDEX_HEADER_SIZE;
    for (uint32_t i = 0; i < header.block_count; i++, next += BLOCK_SIZE) {
        kms_put_be64(next, index->blocks[i].offset);
        kms_put_be64(next + 8, (uint64_t)index->blocks[i].earliest_ns);
        kms_put_be64(next + 16, (uint64_t)index->blocks[i].latest_ns);
    }
    for (size_t i = 0; i < keys_in(&header); i++, next += KEY_SIZE)
        kms_put_be64(next, index->keys[i]);
    digest(kms_slice_of(start + KMS_AUDIT_INDEX_HEADER_SIZE, body_size(&header)), header.body_digest);
    pack_header(&header, start);
    out->len += KMS_AUDIT_INDEX_HEADER_SIZE + body_size(&header);
    return KMS_OK;
}

/* Rows in their places: lines in rising order within their blocks, keys in rising order and of blocks that exist. */
static bool is_sound(const struct kms_audit_index *index)
{
    const struct header *header = &index->header;
    for (uint32_t i = 0; i < header->block_count; i++) {
        const uint64_t offset = index->blocks[i].offset;
        if (offset != NO_LINE && (offset / header->block_bytes != i || offset >= header->segment_bytes))
            return false;
    }
    for (size_t i = 0; i < keys_in(header); i++) {
        if ((index->keys[i] & 0xffff) >= header->block_count ||
            (i > 0 && index->keys[i] <= index->keys[i - 1]))
            return false;
    }
    return true;
}

/* The rest behind a header that was parsed. */
static enum kms_status parse_body(const struct header *header, struct kms_slice body,
                                  struct kms_audit_index **ret_index)
{
    uint8_t found[32];
    if (body.len != body_size(header))
        return KMS_TAMPERED;
    digest(body, found);
    if (memcmp(found, header->body_digest, sizeof found) != 0)
        return KMS_TAMPERED;
    KMS_CLEANUP(free_index) struct kms_audit_index *index = calloc(1, sizeof *index);
    if (index == NULL)
        return KMS_NO_MEMORY;
    index->header = *header;
    index->blocks = malloc(header->block_count * sizeof *index->blocks);
    index->keys = malloc(keys_in(header) * sizeof *index->keys + 1);
    if (index->blocks == NULL || index->keys == NULL)
        return KMS_NO_MEMORY;
    const uint8_t *next = body.data;
    for (uint32_t i = 0; i < header->block_count; i++, next += BLOCK_SIZE)
        index->blocks[i] = (struct block){kms_get_be64(next), (int64_t)kms_get_be64(next + 8),
                                          (int64_t)kms_get_be64(next + 16)};
    for (size_t i = 0; i < keys_in(header); i++, next += KEY_SIZE)
        index->keys[i] = kms_get_be64(next);
    if (!is_sound(index))
        return KMS_TAMPERED;
    *ret_index = KMS_TAKE(index);
    return KMS_OK;
}

enum kms_status kms_audit_index_parse(struct kms_slice bytes, struct kms_audit_index **ret_index)
{
    struct header header;
    if (bytes.len < KMS_AUDIT_INDEX_HEADER_SIZE || !parse_header(bytes.data, &header))
        return KMS_TAMPERED;
    return parse_body(
        &header,
        kms_slice_of(bytes.data + KMS_AUDIT_INDEX_HEADER_SIZE, bytes.len - KMS_AUDIT_INDEX_HEADER_SIZE),
        ret_index);
}

/* pread of exactly so many bytes. */
static bool read_at(int fd, void *out, size_t len, uint64_t offset)
{
    uint8_t *next = out;
    while (len > 0) {
        const ssize_t got = pread(fd, next, len, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        next += got;
        len -= (size_t)got;
        offset += (uint64_t)got;
    }
    return true;
}

/* Is the segment still the one that was indexed? Its size and the hash of its last record, which covers all others. */
static bool fits(const struct header *header, int segment_fd, uint64_t first_seq)
{
    struct stat now;
    char tail[LAST_HASH_TAIL];
    char hex[2 * KMS_AUDIT_HASH_SIZE + 1];
    if (header->first_seq != first_seq || fstat(segment_fd, &now) != 0 ||
        (uint64_t)now.st_size != header->segment_bytes || header->segment_bytes < sizeof tail ||
        !read_at(segment_fd, tail, sizeof tail, header->segment_bytes - sizeof tail))
        return false;
    kms_hex_encode(header->last_hash, sizeof header->last_hash, hex);
    return memcmp(tail, hex, sizeof hex - 1) == 0;
}

/* Do any of these times match? */
static bool overlaps(const struct kms_audit_filter *filter, int64_t earliest_ns, int64_t latest_ns)
{
    return (filter->from_ns == 0 || latest_ns >= filter->from_ns) &&
           (filter->until_ns == 0 || earliest_ns < filter->until_ns);
}

enum kms_status kms_audit_index_load(const char *directory, int segment_fd, uint64_t first_seq,
                                     const struct kms_audit_matcher *matcher,
                                     struct kms_audit_index **ret_index)
{
    char name[KMS_AUDIT_INDEX_NAME_SIZE];
    char path[KMS_AUDIT_PATH_SIZE + KMS_AUDIT_INDEX_NAME_SIZE];
    (void)snprintf(path, sizeof path, "%s/%s", directory, kms_audit_index_name(first_seq, name));
    KMS_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat now;
    uint8_t packed[KMS_AUDIT_INDEX_HEADER_SIZE];
    struct header header;
    if (fd < 0 || fstat(fd, &now) != 0 || !S_ISREG(now.st_mode) || !read_at(fd, packed, sizeof packed, 0) ||
        !parse_header(packed, &header) || !fits(&header, segment_fd, first_seq) ||
        (uint64_t)now.st_size != KMS_AUDIT_INDEX_HEADER_SIZE + body_size(&header))
        return KMS_NOT_FOUND;
    if (matcher != NULL && !overlaps(&matcher->filter, header.earliest_ns, header.latest_ns)) {
        *ret_index = NULL;
        return KMS_OK;
    }
    KMS_FREE uint8_t *body = malloc(body_size(&header));
    if (body == NULL)
        return KMS_NO_MEMORY;
    if (!read_at(fd, body, body_size(&header), KMS_AUDIT_INDEX_HEADER_SIZE))
        return KMS_NOT_FOUND;
    const enum kms_status status = parse_body(&header, kms_slice_of(body, body_size(&header)), ret_index);
    return status == KMS_TAMPERED ? KMS_NOT_FOUND : status;
}

enum kms_status kms_audit_index_store(const struct kms_audit_index *index, const char *directory,
                                      struct kms_error *err)
{
    char name[KMS_AUDIT_INDEX_NAME_SIZE];
    char path[KMS_AUDIT_PATH_SIZE + KMS_AUDIT_INDEX_NAME_SIZE];
    char draft[sizeof path + 8];
    (void)snprintf(path, sizeof path, "%s/%s", directory,
                   kms_audit_index_name(index->header.first_seq, name));
    (void)snprintf(draft, sizeof draft, "%s.new", path);
    KMS_CLEANUP(kms_buf_clear) struct kms_buf bytes = {0};
    KMS_TRY(kms_audit_index_pack(index, &bytes));
    (void)unlink(draft); /* of a query that was stopped */
    KMS_CLOSE int fd = open(draft, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return kms_fail(err, KMS_IO, "cannot make '%s': %m", draft);
    const ssize_t written = write(fd, bytes.data, bytes.len);
    if (written != (ssize_t)bytes.len || rename(draft, path) != 0) {
        const int cause = written >= 0 && written != (ssize_t)bytes.len ? ENOSPC : errno;
        (void)unlink(draft);
        errno = cause;
        return kms_fail(err, KMS_IO, "cannot write '%s': %m", path);
    }
    return KMS_OK;
}

/* Does a key of this value and block exist? */
static bool has_key(const struct kms_audit_index *index, char field, struct kms_slice value, size_t block)
{
    if (value.data == NULL || index->header.key_count == NO_KEYS)
        return true;
    const uint64_t key = hash_value(field, value) | block;
    return keys_in(&index->header) > 0 &&
           bsearch(&key, index->keys, keys_in(&index->header), sizeof key, compare_keys) != NULL;
}

static bool may_match(const struct kms_audit_index *index, const struct kms_audit_matcher *matcher,
                      size_t block)
{
    const struct block *row = &index->blocks[block];
    const struct kms_slice action = matcher->action;
    const bool whole_action = action.len == 0 || action.data[action.len - 1] != '.'; /* see the matcher */
    return row->offset != NO_LINE && overlaps(&matcher->filter, row->earliest_ns, row->latest_ns) &&
           has_key(index, 'c', matcher->customer, block) && has_key(index, 'i', matcher->identity, block) &&
           has_key(index, 't', matcher->tenant, block) && has_key(index, 'o', matcher->outcome, block) &&
           (!whole_action || has_key(index, 'a', action, block));
}

bool kms_audit_index_next(const struct kms_audit_index *index, const struct kms_audit_matcher *matcher,
                          size_t *cursor, struct kms_audit_range *ret_range)
{
    const size_t count = index->header.block_count;
    size_t block = *cursor;
    while (block < count && !may_match(index, matcher, block))
        block++;
    if (block >= count) {
        *cursor = count;
        return false;
    }
    ret_range->begin = index->blocks[block].offset;
    ret_range->end = index->header.segment_bytes;
    for (*cursor = ++block; block < count; block++) {
        if (index->blocks[block].offset != NO_LINE) {
            ret_range->end = index->blocks[block].offset;
            break;
        }
    }
    return true;
}
