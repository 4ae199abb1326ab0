/* Goal: whatever text an event holds, its record is one line of valid JSON within its limit, and is read back. */
#include "audit/chain.h"
#include "audit/record.h"
#include "core/cleanup.h"

#include <jansson.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TEXTS = 9 };

/* The input, cut at NULs into the texts of an event. */
static struct kms_audit_event make_event(char *input, size_t size, const char *texts[TEXTS])
{
    size_t at = 0;
    for (size_t i = 0; i < TEXTS && at < size; i++) {
        texts[i] = input + at;
        at += strlen(input + at) + 1;
    }
    return (struct kms_audit_event){.type = texts[0] != NULL ? texts[0] : "call",
                                    .action = texts[1],
                                    .request_id = texts[2],
                                    .identity = texts[3],
                                    .peer = texts[4],
                                    .tenant = texts[5],
                                    .purpose = texts[6],
                                    .outcome = texts[7],
                                    .reason = texts[8],
                                    .items = (uint32_t)size};
}

static void free_chain(struct kms_audit_chain **chain)
{
    kms_audit_chain_free(*chain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    KMS_FREE char *input = calloc(1, size + 1);
    KMS_ASSERT(input != NULL);
    if (size > 0)
        memcpy(input, data, size);
    const char *texts[TEXTS] = {0};
    const struct kms_audit_event event = make_event(input, size, texts);
    KMS_ASSERT(kms_audit_record_check(&event, NULL) == KMS_OK);
    KMS_FREE char *body = malloc(KMS_AUDIT_BODY_MAX); /* on the heap: the sanitizer guards its end */
    KMS_ASSERT(body != NULL);
    const size_t len = kms_audit_record_format(&event, "2026-01-31T12:00:00.000000Z", body);
    for (size_t i = 0; i < len; i++)
        KMS_ASSERT((uint8_t)body[i] >= 0x20 && body[i] != 0x7f);

    KMS_CLEANUP(free_chain) struct kms_audit_chain *chain = NULL;
    KMS_ASSERT(kms_audit_chain_new(&chain) == KMS_OK);
    struct kms_audit_head head = {0};
    KMS_CLEANUP(kms_buf_clear) struct kms_buf line = {0};
    KMS_ASSERT(kms_audit_chain_append(chain, &head, kms_slice_of(body, len), &line) == KMS_OK);
    KMS_ASSERT(line.len <= (size_t)KMS_AUDIT_LINE_MAX + 1);
    json_error_t error;
    json_t *object = json_loadb((const char *)line.data, line.len, JSON_REJECT_DUPLICATES, &error);
    KMS_ASSERT(json_is_object(object));
    json_decref(object);
    struct kms_audit_line parsed;
    KMS_ASSERT(kms_audit_chain_parse(kms_slice_of(line.data, line.len - 1), &parsed));
    KMS_ASSERT(parsed.seq == 1 && parsed.body.len == len && memcmp(parsed.body.data, body, len) == 0);
    return 0;
}
