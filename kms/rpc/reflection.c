#include "rpc/reflection.h"

#include "rpc/validate.h"

#include <google/protobuf/descriptor.pb-c.h>
#include <grpc/reflection/v1alpha/reflection.pb-c.h>
#include <grpc/status.h>
#include <stdlib.h>

typedef Google__Protobuf__FileDescriptorProto file_proto;
typedef Google__Protobuf__DescriptorProto message_proto;
typedef Google__Protobuf__EnumDescriptorProto enum_proto;
typedef Google__Protobuf__ServiceDescriptorProto service_proto;
typedef Google__Protobuf__MethodDescriptorProto method_proto;
typedef Grpc__Reflection__V1alpha__ServerReflectionRequest request;
typedef Grpc__Reflection__V1alpha__ServerReflectionResponse response;

enum { SET_MEMORY_MAX = 16 * 1024 * 1024, NAME_MAX_LEN = 512, WIRE_TAG_FILE = 0x0a };

/* A full name and the file that defines it. */
struct symbol {
    char *name; /* in the arena */
    size_t file;
};

struct kms_rpc_reflection {
    struct kms_arena *arena;
    Google__Protobuf__FileDescriptorSet *set;
    struct kms_slice
        *files; /* serialised, borrowed from the caller's descriptor set; same order as set->file */
    struct symbol *symbols; /* sorted by name */
    size_t symbol_count, symbol_capacity;
};

/* The serialised form of each file is the one in the set: `file` is its field 1. */
static enum kms_status slice_files(struct kms_rpc_reflection *reflection, struct kms_slice set)
{
    reflection->files =
        kms_arena_alloc(reflection->arena, (reflection->set->n_file + 1) * sizeof *reflection->files);
    if (reflection->files == NULL)
        return KMS_NO_MEMORY;
    struct kms_reader reader = kms_reader_of(set);
    size_t found = 0;
    while (reader.left > 0 && found < reflection->set->n_file) {
        const uint8_t tag = kms_reader_u8(&reader);
        size_t len = 0;
        uint8_t byte = 0x80;
        for (unsigned shift = 0; (byte & 0x80) != 0 && shift < 35; shift += 7) {
            byte = kms_reader_u8(&reader);
            len |= (size_t)(byte & 0x7f) << shift;
        }
        const uint8_t *data = kms_reader_take(&reader, len);
        if (reader.failed || tag != WIRE_TAG_FILE)
            return KMS_CONFIG_INVALID;
        reflection->files[found++] = kms_slice_of(data, len);
    }
    return found == reflection->set->n_file ? KMS_OK : KMS_CONFIG_INVALID;
}

/* Remember that `scope`.`name` is defined in a file; returns the full name, or NULL without memory. */
static const char *add_symbol(struct kms_rpc_reflection *reflection, const char *scope, const char *name,
                              size_t file)
{
    if (reflection->symbol_count == reflection->symbol_capacity) {
        const size_t capacity = reflection->symbol_capacity * 2 + 64;
        struct symbol *symbols = realloc(reflection->symbols, capacity * sizeof *symbols);
        if (symbols == NULL)
            return NULL;
        reflection->symbols = symbols;
        reflection->symbol_capacity = capacity;
    }
    char *full = kms_arena_printf(reflection->arena, "%s%s%s", scope, scope[0] == '\0' ? "" : ".", name);
    if (full != NULL)
        reflection->symbols[reflection->symbol_count++] = (struct symbol){full, file};
    return full;
}

/* An enum and its values, which live in the enum's own scope's parent. */
static bool index_enum(struct kms_rpc_reflection *reflection, const char *scope, const enum_proto *proto,
                       size_t file)
{
    bool ok = add_symbol(reflection, scope, proto->name, file) != NULL;
    for (size_t i = 0; ok && i < proto->n_value; i++)
        ok = add_symbol(reflection, scope, proto->value[i]->name, file) != NULL;
    return ok;
}

/* A message, its fields and what is nested in it; the depth was limited when the set was unpacked. */
static bool index_message(struct kms_rpc_reflection *reflection, const char *scope,
                          const message_proto *proto, size_t file)
{
    const char *full = add_symbol(reflection, scope, proto->name, file);
    bool ok = full != NULL;
    for (size_t i = 0; ok && i < proto->n_field; i++)
        ok = add_symbol(reflection, full, proto->field[i]->name, file) != NULL;
    for (size_t i = 0; ok && i < proto->n_enum_type; i++)
        ok = index_enum(reflection, full, proto->enum_type[i], file);
    for (size_t i = 0; ok && i < proto->n_nested_type; i++)
        ok = index_message(reflection, full, proto->nested_type[i], file);
    return ok;
}

static bool index_service(struct kms_rpc_reflection *reflection, const char *scope,
                          const service_proto *proto, size_t file)
{
    const char *full = add_symbol(reflection, scope, proto->name, file);
    bool ok = full != NULL;
    for (size_t i = 0; ok && i < proto->n_method; i++)
        ok = add_symbol(reflection, full, proto->method[i]->name, file) != NULL;
    return ok;
}

static bool index_file(struct kms_rpc_reflection *reflection, const file_proto *proto, size_t file)
{
    const char *scope = proto->package == NULL ? "" : proto->package;
    bool ok = true;
    for (size_t i = 0; ok && i < proto->n_message_type; i++)
        ok = index_message(reflection, scope, proto->message_type[i], file);
    for (size_t i = 0; ok && i < proto->n_enum_type; i++)
        ok = index_enum(reflection, scope, proto->enum_type[i], file);
    for (size_t i = 0; ok && i < proto->n_service; i++)
        ok = index_service(reflection, scope, proto->service[i], file);
    for (size_t i = 0; ok && i < proto->n_extension; i++)
        ok = add_symbol(reflection, scope, proto->extension[i]->name, file) != NULL;
    return ok;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct symbol *)a)->name, ((const struct symbol *)b)->name);
}

/* Unpack and index; the caller frees on failure. */
static enum kms_status build(struct kms_rpc_reflection *reflection, struct kms_slice descriptor_set,
                             struct kms_error *err)
{
    KMS_TRY(kms_arena_new(SET_MEMORY_MAX, &reflection->arena));
    ProtobufCMessage *set = NULL;
    if (kms_rpc_validate_unpack(reflection->arena, &google__protobuf__file_descriptor_set__descriptor, true,
                                descriptor_set, &set, err) != KMS_OK)
        return kms_fail(err, KMS_CONFIG_INVALID, "the embedded descriptor set cannot be read");
    reflection->set = (Google__Protobuf__FileDescriptorSet *)set;
    if (slice_files(reflection, descriptor_set) != KMS_OK)
        return kms_fail(err, KMS_CONFIG_INVALID, "the embedded descriptor set cannot be taken apart");
    for (size_t i = 0; i < reflection->set->n_file; i++)
        if (!index_file(reflection, reflection->set->file[i], i))
            return kms_fail(err, KMS_NO_MEMORY, "no memory for the index of the descriptor set");
    if (reflection->symbol_count > 0)
        qsort(reflection->symbols, reflection->symbol_count, sizeof *reflection->symbols, by_name);
    return KMS_OK;
}

enum kms_status kms_rpc_reflection_new(struct kms_slice descriptor_set,
                                       struct kms_rpc_reflection **ret_reflection, struct kms_error *err)
{
    struct kms_rpc_reflection *reflection = calloc(1, sizeof *reflection);
    if (reflection == NULL)
        return KMS_NO_MEMORY;
    const enum kms_status status = build(reflection, descriptor_set, err);
    if (status == KMS_OK)
        *ret_reflection = reflection;
    else
        kms_rpc_reflection_free(reflection);
    return status;
}

void kms_rpc_reflection_free(struct kms_rpc_reflection *reflection)
{
    if (reflection == NULL)
        return;
    kms_arena_free(reflection->arena);
    free(reflection->symbols);
    free(reflection);
}

bool kms_rpc_reflection_method(const struct kms_rpc_reflection *reflection, const char *service,
                               const char *method, bool *ret_client_streams, bool *ret_server_streams)
{
    for (size_t i = 0; i < reflection->set->n_file; i++) {
        const file_proto *file = reflection->set->file[i];
        const size_t package = file->package == NULL ? 0 : strlen(file->package);
        if (strncmp(service, file->package == NULL ? "" : file->package, package) != 0 ||
            (package > 0 && service[package] != '.'))
            continue;
        const char *local = service + package + (package > 0 ? 1 : 0);
        for (size_t s = 0; s < file->n_service; s++) {
            if (strcmp(file->service[s]->name, local) != 0)
                continue;
            for (size_t m = 0; m < file->service[s]->n_method; m++) {
                const method_proto *found = file->service[s]->method[m];
                if (strcmp(found->name, method) != 0)
                    continue;
                *ret_client_streams = found->client_streaming != 0;
                *ret_server_streams = found->server_streaming != 0;
                return true;
            }
        }
    }
    return false;
}

/* Index of a file by its path, or the number of files. */
static size_t file_index(const struct kms_rpc_reflection *reflection, const char *path)
{
    size_t i = 0;
    while (i < reflection->set->n_file && strcmp(reflection->set->file[i]->name, path) != 0)
        i++;
    return i;
}

/* Mark a file and everything that it imports; imports have no cycles, and each file is visited once. */
static void mark_with_imports(const struct kms_rpc_reflection *reflection, size_t file, bool *marked)
{
    if (file >= reflection->set->n_file || marked[file])
        return;
    marked[file] = true;
    const file_proto *proto = reflection->set->file[file];
    for (size_t i = 0; i < proto->n_dependency; i++)
        mark_with_imports(reflection, file_index(reflection, proto->dependency[i]), marked);
}

/* Answer with an error within the stream, as the protocol wants it. */
static enum kms_status answer_error(struct kms_call *call, response *reply, int code, const char *text)
{
    Grpc__Reflection__V1alpha__ErrorResponse *error = kms_arena_alloc(call->arena, sizeof *error);
    if (error == NULL)
        return KMS_NO_MEMORY;
    grpc__reflection__v1alpha__error_response__init(error);
    error->error_code = code;
    error->error_message = (char *)(uintptr_t)text;
    reply->message_response_case =
        GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    reply->error_response = error;
    return KMS_OK;
}

/* A file with its imports, the file itself first. */
static enum kms_status answer_file(const struct kms_rpc_reflection *reflection, struct kms_call *call,
                                   response *reply, size_t file)
{
    const size_t count = reflection->set->n_file;
    if (file >= count)
        return answer_error(call, reply, GRPC_STATUS_NOT_FOUND, "not found");
    bool *marked = kms_arena_alloc(call->arena, count * sizeof *marked);
    Grpc__Reflection__V1alpha__FileDescriptorResponse *files = kms_arena_alloc(call->arena, sizeof *files);
    ProtobufCBinaryData *list = kms_arena_alloc(call->arena, count * sizeof *list);
    if (marked == NULL || files == NULL || list == NULL)
        return KMS_NO_MEMORY;
    mark_with_imports(reflection, file, marked);
    grpc__reflection__v1alpha__file_descriptor_response__init(files);
    files->file_descriptor_proto = list;
    marked[file] = false;
    list[files->n_file_descriptor_proto++] = (ProtobufCBinaryData){
        .data = (uint8_t *)(uintptr_t)reflection->files[file].data, .len = reflection->files[file].len};
    for (size_t i = 0; i < count; i++)
        if (marked[i])
            list[files->n_file_descriptor_proto++] = (ProtobufCBinaryData){
                .data = (uint8_t *)(uintptr_t)reflection->files[i].data, .len = reflection->files[i].len};
    reply->message_response_case =
        GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
    reply->file_descriptor_response = files;
    return KMS_OK;
}

/* The services that are really served: one name for each run of routes. */
static enum kms_status answer_services(const struct kms_rpc_server *server, struct kms_call *call,
                                       response *reply)
{
    Grpc__Reflection__V1alpha__ListServiceResponse *services = kms_arena_alloc(call->arena, sizeof *services);
    Grpc__Reflection__V1alpha__ServiceResponse **list =
        kms_arena_alloc(call->arena, server->route_count * sizeof *list);
    if (services == NULL || list == NULL)
        return KMS_NO_MEMORY;
    grpc__reflection__v1alpha__list_service_response__init(services);
    services->service = list;
    for (size_t i = 0; i < server->route_count; i++) {
        const char *path = server->routes[i].path + 1;
        const size_t len = strcspn(path, "/");
        if (i > 0 && strncmp(server->routes[i - 1].path + 1, path, len + 1) == 0)
            continue;
        Grpc__Reflection__V1alpha__ServiceResponse *one = kms_arena_alloc(call->arena, sizeof *one);
        if (one == NULL)
            return KMS_NO_MEMORY;
        grpc__reflection__v1alpha__service_response__init(one);
        one->name = kms_arena_strndup(call->arena, path, len);
        if (one->name == NULL)
            return KMS_NO_MEMORY;
        list[services->n_service++] = one;
    }
    reply->message_response_case =
        GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    reply->list_services_response = services;
    return KMS_OK;
}

/* File of a symbol, or the number of files. */
static size_t file_of_symbol(const struct kms_rpc_reflection *reflection, char *name)
{
    const struct symbol key = {name, 0};
    const struct symbol *found =
        reflection->symbol_count == 0
            ? NULL
            : bsearch(&key, reflection->symbols, reflection->symbol_count, sizeof key, by_name);
    return found != NULL ? found->file : reflection->set->n_file;
}

static enum kms_status answer(void *context, struct kms_call *call, const ProtobufCMessage *message,
                              ProtobufCMessage **ret_reply)
{
    const struct kms_rpc_server *server = context;
    const struct kms_rpc_reflection *reflection = server->reflection;
    request *question = (request *)(uintptr_t)message;
    response *reply = kms_arena_alloc(call->arena, sizeof *reply);
    if (reply == NULL)
        return KMS_NO_MEMORY;
    grpc__reflection__v1alpha__server_reflection_response__init(reply);
    reply->valid_host = question->host;
    reply->original_request = question;
    *ret_reply = &reply->base;
    switch (question->message_request_case) {
    case GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
        return answer_file(reflection, call, reply, file_index(reflection, question->file_by_filename));
    case GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
        return answer_file(reflection, call, reply,
                           file_of_symbol(reflection, question->file_containing_symbol));
    case GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
        return answer_services(server, call, reply);
    default:
        return answer_error(call, reply, GRPC_STATUS_NOT_FOUND, "there are no extensions");
    }
}

struct kms_rpc_service kms_rpc_reflection_service(struct kms_rpc_server *server)
{
    static const struct kms_rpc_method methods[] = {
        {.name = "ServerReflectionInfo", .kind = KMS_RPC_BIDI, .lane = KMS_RPC_INLINE, .handler = answer},
    };
    return (struct kms_rpc_service){.descriptor = &grpc__reflection__v1alpha__server_reflection__descriptor,
                                    .methods = methods,
                                    .method_count = 1,
                                    .context = server};
}
