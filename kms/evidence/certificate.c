#include "evidence/certificate.h"

#include "core/cleanup.h"

#include <jansson.h>
#include <stdlib.h>

struct form; /* which of the kinds of documents it is */

struct kms_certificate {
    json_t *root;
    const struct form *form;
    struct kms_merkle_hash tree;
    uint64_t count;
};

/* A member that must be there. */
struct member {
    const char *object; /* NULL: of the document itself */
    const char *name;
    json_type type;
    const char *label; /* for people; NULL: it is not printed by itself */
};

/* Everything that a certificate says, in the order in which people read it. */
static const struct member members[] = {
    {NULL, "certificate", JSON_STRING, "Certificate"},
    {NULL, "created", JSON_STRING, "Issued"},
    {NULL, "format", JSON_STRING, "Format"},
    {NULL, "tenant", JSON_STRING, "Tenant (UUID)"},
    {NULL, "batch", JSON_STRING, "Batch"},
    {NULL, "destroyed", JSON_OBJECT, NULL},
    {"destroyed", "count", JSON_INTEGER, "Entries destroyed"},
    {"destroyed", "customers", JSON_INTEGER, "Customers gone as a whole"},
    {"destroyed", "keys", JSON_INTEGER, "Keys destroyed"},
    {"destroyed", "root", JSON_STRING, "Hash tree over the entries"},
    {"destroyed", "tree", JSON_STRING, "Kind of hash tree"},
    {NULL, "sanitization", JSON_OBJECT, NULL},
    {"sanitization", "standard", JSON_STRING, "Standard"},
    {"sanitization", "category", JSON_STRING, "Category"},
    {"sanitization", "method", JSON_STRING, "Method"},
    {"sanitization", "technique", JSON_STRING, "Technique"},
    {"sanitization", "tool", JSON_STRING, "Tool"},
    {"sanitization", "tool_version", JSON_STRING, "Tool's version"},
    {"sanitization", "destroyed_time", JSON_STRING, "Destroyed"},
    {NULL, "media", JSON_OBJECT, NULL},
    {"media", "type", JSON_STRING, "Medium"},
    {"media", "manufacturer", JSON_STRING, "Manufacturer"},
    {"media", "model", JSON_STRING, "Model"},
    {"media", "serial", JSON_STRING, "Serial number"},
    {"media", "firmware", JSON_STRING, "Firmware"},
    {"media", "label", JSON_STRING, "Label"},
    {"media", "erase_class", JSON_STRING, "Erase class"},
    {NULL, "keys", JSON_OBJECT, NULL},
    {"keys", "old_epoch", JSON_INTEGER, "Epoch destroyed"},
    {"keys", "old_master_id", JSON_STRING, "Master key destroyed"},
    {"keys", "new_epoch", JSON_INTEGER, "Epoch after"},
    {"keys", "new_master_id", JSON_STRING, "Master key after"},
    {NULL, "pages", JSON_OBJECT, NULL},
    {"pages", "changed", JSON_INTEGER, "Pages with new keys"},
    {"pages", "digest", JSON_STRING, "Hash of these pages"},
    {NULL, "verification", JSON_OBJECT, NULL},
    {"verification", "method", JSON_STRING, "Verification"},
    {"verification", "result", JSON_STRING, "Result"},
    {"verification", "time", JSON_STRING, "Verified"},
    {"verification", "steps", JSON_ARRAY, NULL},
    {NULL, "operation", JSON_OBJECT, NULL},
    {"operation", "requester", JSON_STRING, "Requested by"},
    {"operation", "uid", JSON_STRING, "Operation"},
    {"operation", "digest", JSON_STRING, "Hash of what was approved"},
    {NULL, "approvals", JSON_ARRAY, NULL},
    {NULL, "times", JSON_OBJECT, NULL},
    {"times", "requested", JSON_STRING, "Requested"},
    {"times", "committed", JSON_STRING, "Refused since"},
    {"times", "sealed", JSON_STRING, "Sealed"},
    {NULL, "audit", JSON_OBJECT, NULL},
    {"audit", "seq", JSON_INTEGER, "Audit record"},
    {"audit", "hash", JSON_STRING, "Hash of that record"},
    {NULL, "remaining", JSON_ARRAY, NULL},
};

/* The same of a supplementary certificate; what it completes is looked at one by one. */
static const struct member supplement_members[] = {
    {NULL, "certificate", JSON_STRING, "Certificate"},
    {NULL, "created", JSON_STRING, "Issued"},
    {NULL, "format", JSON_STRING, "Format"},
    {NULL, "tenant", JSON_STRING, "Tenant (UUID)"},
    {NULL, "recovery_key", JSON_OBJECT, NULL},
    {"recovery_key", "fingerprint", JSON_STRING, "Retired recovery key"},
    {"recovery_key", "epoch", JSON_INTEGER, "Recovery epoch"},
    {"recovery_key", "retired", JSON_STRING, "Retired"},
    {"recovery_key", "statement", JSON_STRING, "Statement of its custodians"},
    {NULL, "operation", JSON_OBJECT, NULL},
    {"operation", "requester", JSON_STRING, "Requested by"},
    {"operation", "uid", JSON_STRING, "Operation"},
    {"operation", "digest", JSON_STRING, "Hash of what was approved"},
    {NULL, "approvals", JSON_ARRAY, NULL},
    {NULL, "audit", JSON_OBJECT, NULL},
    {"audit", "seq", JSON_INTEGER, "Audit record"},
    {"audit", "hash", JSON_STRING, "Hash of that record"},
    {NULL, "completed", JSON_ARRAY, NULL},
};

/* The kinds of documents that are certificates. */
struct form {
    const char *format, *title;
    const struct member *members;
    size_t count;
    enum kms_status (*check)(struct kms_certificate *certificate, struct kms_error *err);
    void (*print)(const struct kms_certificate *certificate, FILE *file);
};
enum kms_status kms_certificate_leaf(const struct kms_uuid *customer, const char *purpose, uint32_t version,
                                     struct kms_merkle_hash *ret_hash)
{
    enum { PURPOSE_MAX = 255 };
    uint8_t data[KMS_UUID_SIZE + 4 + PURPOSE_MAX];
    const size_t len = strlen(purpose);
    KMS_ASSERT(len <= PURPOSE_MAX);
    memcpy(data, customer->bytes, KMS_UUID_SIZE);
    kms_put_be32(data + KMS_UUID_SIZE, version);
    memcpy(data + KMS_UUID_SIZE + 4, purpose, len);
    return kms_merkle_leaf(kms_slice_of(data, KMS_UUID_SIZE + 4 + len), ret_hash);
}

/* The value of a member; NULL when it is missing or of another type. */
static const json_t *value_of(const json_t *root, const struct member *member)
{
    const json_t *object = member->object == NULL ? root : json_object_get(root, member->object);
    const json_t *value = json_object_get(object, member->name);
    return value != NULL && json_typeof(value) == member->type ? value : NULL;
}

/* A hash as 64 hex digits. */
static bool take_hash(const json_t *value, struct kms_merkle_hash *ret_hash)
{
    return json_is_string(value) && kms_hex_decode(json_string_value(value), json_string_length(value),
                                                   ret_hash->bytes, KMS_MERKLE_SIZE) == KMS_OK;
}

/* One JSON object, with no member twice. */
static enum kms_status load(struct kms_slice document, json_t **ret_root, struct kms_error *err)
{
    json_error_t problem;
    if (document.len > KMS_EVIDENCE_DOCUMENT_MAX)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "the document is larger than %d bytes",
                               KMS_EVIDENCE_DOCUMENT_MAX);
    json_t *root = json_loadb((const char *)document.data, document.len, JSON_REJECT_DUPLICATES, &problem);
    if (root == NULL)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "the document is no JSON object: %s (byte %d)",
                               problem.text, problem.position);
    if (!json_is_object(root)) {
        json_decref(root);
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "the document is no JSON object");
    }
    *ret_root = root;
    return KMS_OK;
}

/* What the hash tree is about. */
static enum kms_status check_destruction(struct kms_certificate *certificate, struct kms_error *err)
{
    const json_t *destroyed = json_object_get(certificate->root, "destroyed");
    const json_int_t count = json_integer_value(json_object_get(destroyed, "count"));
    if (count < 1 || !take_hash(json_object_get(destroyed, "root"), &certificate->tree))
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "the certificate's count or hash tree is of another form");
    certificate->count = (uint64_t)count;
    return KMS_OK;
}

/* Each certificate that it completes, with what is left of what stood in the way. */
static enum kms_status check_supplement(struct kms_certificate *certificate, struct kms_error *err)
{
    size_t index;
    json_t *entry;
    const json_t *completed = json_object_get(certificate->root, "completed");
    bool good = json_array_size(completed) > 0;
    json_array_foreach(completed, index, entry)
    {
        good = good && json_is_string(json_object_get(entry, "certificate")) &&
               json_is_string(json_object_get(entry, "batch")) &&
               json_is_string(json_object_get(entry, "sealed")) &&
               json_is_array(json_object_get(entry, "remaining"));
    }
    return good ? KMS_OK
                : kms_fail_public(err, KMS_INVALID_ARGUMENT,
                                  "the certificate completes nothing, or a part of it is of another form");
}

void kms_certificate_free(struct kms_certificate *certificate)
{
    if (certificate == NULL)
        return;
    json_decref(certificate->root);
    free(certificate);
}

/* Text from a document, with nothing in it that moves a cursor. */
static void print_text(FILE *file, const char *text)
{
    const size_t len = strlen(text);
    for (size_t at = 0; at < len;) {
        const size_t step = kms_utf8_printable_prefix(text + at, len - at);
        if (step == 0)
            (void)fputc('?', file);
        else
            (void)fwrite(text + at, 1, step, file);
        at += step > 0 ? step : 1;
    }
}

enum { LABEL_COLUMN = 28 };

static void print_line(FILE *file, const char *label, const json_t *value)
{
    (void)fprintf(file, "%-*s ", LABEL_COLUMN, label);
    if (json_is_integer(value))
        (void)fprintf(file, "%lld", (long long)json_integer_value(value));
    else
        print_text(file, json_is_string(value) ? json_string_value(value) : "");
    (void)fputc('\n', file);
}

/* A list of texts; the label stands before the first. */
static void print_list(FILE *file, const char *label, const json_t *list, const char *none)
{
    size_t index;
    json_t *item;
    if (json_array_size(list) == 0)
        (void)fprintf(file, "%-*s %s\n", LABEL_COLUMN, label, none);
    json_array_foreach(list, index, item)
    {
        print_line(file, index == 0 ? label : "", item);
    }
}

/* Who has approved, one a line. */
static void print_approvals(FILE *file, const json_t *list)
{
    size_t index;
    json_t *item;
    json_array_foreach(list, index, item)
    {
        const char *identity = json_string_value(json_object_get(item, "identity"));
        const char *time = json_string_value(json_object_get(item, "time"));
        (void)fprintf(file, "%-*s ", LABEL_COLUMN, index == 0 ? "Approved by" : "");
        print_text(file, identity != NULL ? identity : "");
        (void)fputs(", ", file);
        print_text(file, time != NULL ? time : "");
        (void)fputc('\n', file);
    }
    if (json_array_size(list) == 0)
        (void)fprintf(file, "%-*s nobody: none was needed\n", LABEL_COLUMN, "Approved by");
}

/* What a certificate of destruction says besides single members. */
static void print_destruction(const struct kms_certificate *certificate, FILE *file)
{
    const json_t *root = certificate->root;
    const json_t *provider = json_object_get(json_object_get(root, "media"), "provider_retention_until");
    if (kms_certificate_customer(certificate) != NULL)
        print_line(file, "Customer (UUID)", json_object_get(json_object_get(root, "destroyed"), "customer"));
    if (provider != NULL)
        print_line(file, "Provider keeps backups until", provider);
    print_list(file, "Steps of the verification",
               json_object_get(json_object_get(root, "verification"), "steps"), "none");
    print_approvals(file, json_object_get(root, "approvals"));
    print_list(file, "Between SEALED and ERASED", json_object_get(root, "remaining"), "nothing: ERASED");
}

/* What a supplementary one does. */
static void print_supplement(const struct kms_certificate *certificate, FILE *file)
{
    size_t index;
    json_t *entry;
    print_approvals(file, json_object_get(certificate->root, "approvals"));
    (void)fprintf(file, "\nNo recovery key opens any more what these certificates are about:\n");
    json_array_foreach(json_object_get(certificate->root, "completed"), index, entry)
    {
        (void)fputc('\n', file);
        print_line(file, "Certificate", json_object_get(entry, "certificate"));
        print_line(file, "Batch", json_object_get(entry, "batch"));
        print_line(file, "Sealed", json_object_get(entry, "sealed"));
        print_list(file, "Between SEALED and ERASED", json_object_get(entry, "remaining"), "nothing: ERASED");
    }
}

static const struct form destruction = {KMS_CERTIFICATE_FORMAT,
                                        "CERTIFICATE OF DESTRUCTION",
                                        members,
                                        sizeof members / sizeof *members,
                                        check_destruction,
                                        print_destruction};
static const struct form supplement = {
    KMS_SUPPLEMENT_FORMAT, "SUPPLEMENTARY CERTIFICATE OF DESTRUCTION",
    supplement_members,    sizeof supplement_members / sizeof *supplement_members,
    check_supplement,      print_supplement};

/* Which kind of certificate it is. */
static enum kms_status take_form(struct kms_certificate *certificate, struct kms_error *err)
{
    const char *format = json_string_value(json_object_get(certificate->root, "format"));
    if (format != NULL && strcmp(format, supplement.format) == 0)
        certificate->form = &supplement;
    else if (format != NULL && strcmp(format, destruction.format) == 0)
        certificate->form = &destruction;
    else
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "the document is no %s and no %s",
                               destruction.format, supplement.format);
    return KMS_OK;
}

/* Every member, and what is derived from them. */
static enum kms_status check(struct kms_certificate *certificate, struct kms_error *err)
{
    KMS_TRY(take_form(certificate, err));
    for (size_t i = 0; i < certificate->form->count; i++) {
        const struct member *member = &certificate->form->members[i];
        if (value_of(certificate->root, member) == NULL)
            return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                                   "the certificate lacks \"%s%s%s\", or it is of another type",
                                   member->object != NULL ? member->object : "",
                                   member->object != NULL ? "." : "", member->name);
    }
    if (!json_is_boolean(json_object_get(certificate->root, "development")))
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "the certificate does not say whether it is for development");
    return certificate->form->check(certificate, err);
}

enum kms_status kms_certificate_parse(struct kms_slice document, struct kms_certificate **ret_certificate,
                                      struct kms_error *err)
{
    struct kms_certificate *certificate = calloc(1, sizeof *certificate);
    if (certificate == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a certificate");
    enum kms_status status = load(document, &certificate->root, err);
    if (status == KMS_OK)
        status = check(certificate, err);
    if (status != KMS_OK) {
        kms_certificate_free(certificate);
        return status;
    }
    *ret_certificate = certificate;
    return KMS_OK;
}

void kms_certificate_print(const struct kms_certificate *certificate, FILE *file)
{
    const json_t *root = certificate->root;
    const struct form *form = certificate->form;
    (void)fprintf(file, "%s\n\n", form->title);
    if (json_is_true(json_object_get(root, "development")))
        (void)fprintf(
            file,
            "*** DEVELOPMENT: the token keeps its keys in files of its host (erase class C). Copies of these "
            "files\n*** may exist, so this certificate proves no destruction.\n\n");
    for (size_t i = 0; i < form->count; i++) {
        if (form->members[i].label != NULL)
            print_line(file, form->members[i].label, value_of(root, &form->members[i]));
    }
    form->print(certificate, file);
}

const char *kms_certificate_customer(const struct kms_certificate *certificate)
{
    return json_string_value(json_object_get(json_object_get(certificate->root, "destroyed"), "customer"));
}

/* One entry of a proof against the tree. */
static enum kms_status prove_entry(const struct kms_certificate *certificate, const json_t *entry,
                                   struct kms_proof_facts *facts, struct kms_error *err)
{
    const char *purpose = json_string_value(json_object_get(entry, "purpose"));
    const json_t *version = json_object_get(entry, "version");
    const json_t *index = json_object_get(entry, "index");
    const json_t *path = json_object_get(entry, "path");
    if (purpose == NULL || strlen(purpose) > 255 || !json_is_integer(version) || !json_is_integer(index) ||
        json_integer_value(version) < 0 || json_integer_value(version) > UINT32_MAX ||
        json_integer_value(index) < 0 || !json_is_array(path) || json_array_size(path) > KMS_MERKLE_PATH_MAX)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "an entry of the proof is of another form");
    struct kms_merkle_hash hashes[KMS_MERKLE_PATH_MAX];
    for (size_t i = 0; i < json_array_size(path); i++) {
        if (!take_hash(json_array_get(path, i), &hashes[i]))
            return kms_fail_public(err, KMS_INVALID_ARGUMENT, "a hash of the proof is no SHA-256");
    }
    struct kms_merkle_hash leaf;
    KMS_TRY(kms_certificate_leaf(&facts->customer, purpose, (uint32_t)json_integer_value(version), &leaf));
    if (kms_merkle_verify(&certificate->tree, certificate->count, (uint64_t)json_integer_value(index), &leaf,
                          hashes, json_array_size(path)) != KMS_OK)
        return kms_fail_public(err, KMS_TAMPERED,
                               "the proof does not lead to the certificate: this customer is not shown to be "
                               "among what was destroyed");
    facts->entries++;
    facts->whole |= purpose[0] == '\0' && json_integer_value(version) == 0;
    return KMS_OK;
}

/* The proof's head, then every entry. */
static enum kms_status prove(const struct kms_certificate *certificate, const json_t *proof,
                             struct kms_proof_facts *facts, struct kms_error *err)
{
    const char *format = json_string_value(json_object_get(proof, "format"));
    const char *customer = json_string_value(json_object_get(proof, "customer"));
    const char *of = json_string_value(json_object_get(proof, "certificate"));
    const json_t *entries = json_object_get(proof, "entries");
    if (format == NULL || strcmp(format, KMS_PROOF_FORMAT) != 0 || customer == NULL || of == NULL ||
        kms_uuid_parse(customer, &facts->customer) != KMS_OK || json_array_size(entries) == 0)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "the document is no %s", KMS_PROOF_FORMAT);
    const char *wanted = json_string_value(json_object_get(certificate->root, "certificate"));
    if (strcmp(of, wanted) != 0)
        return kms_fail_public(err, KMS_TAMPERED, "the proof belongs to certificate %.40s, not to this one",
                               of);
    size_t index;
    json_t *entry;
    json_array_foreach(entries, index, entry)
    {
        KMS_TRY(prove_entry(certificate, entry, facts, err));
    }
    return KMS_OK;
}

enum kms_status kms_certificate_prove(const struct kms_certificate *certificate, struct kms_slice proof,
                                      struct kms_proof_facts *ret_facts, struct kms_error *err)
{
    json_t *root = NULL;
    KMS_TRY(load(proof, &root, err));
    struct kms_proof_facts facts = {0};
    if (certificate->form != &destruction) {
        json_decref(root);
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "a proof belongs to a certificate of destruction, not to a supplementary one");
    }
    const enum kms_status status = prove(certificate, root, &facts, err);
    json_decref(root);
    if (status == KMS_OK)
        *ret_facts = facts;
    return status;
}
