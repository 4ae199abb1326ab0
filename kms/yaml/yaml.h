/*
 * Purpose:   load a YAML file into a struct that a libcyaml schema describes, and say where it is wrong.
 * Owns:      a kms_yaml owns its text and the loaded struct.
 * Threads:   no shared state.
 * Never:     follows aliases, guesses numbers or truth values, or accepts a key that the schema does not
 *            know.
 *
 * libcyaml loads; before it does, the document is walked beside the same schema, because libcyaml takes "10x"
 * for 10, any word for true, cuts strings at an embedded NUL, and names the wrong line for an unknown key.
 * Beyond the schema, refused are: anchors, aliases, tags, a second document, nesting deeper than 8, control
 * characters, and files over 1 MiB.
 */
#ifndef KMS_YAML_YAML_H
#define KMS_YAML_YAML_H

#include "core/bytes.h"
#include "core/cleanup.h"

#include <cyaml/cyaml.h>

enum { KMS_YAML_FILE_MAX = 1 << 20 };

struct kms_yaml {
    void *data; /* never NULL after a successful load; strings and sequences in it belong to this document */
    const struct cyaml_schema_value *schema;
    char *name; /* for messages */
    struct kms_buf text;
};
#define KMS_YAML KMS_CLEANUP(kms_yaml_clear) struct kms_yaml

/**
 * Load a file. `schema` must live as long as the document; its root is a CYAML_MAPPING with
 * CYAML_FLAG_POINTER. CONFIG_INVALID with "file:line: what is wrong" as public text. NO_MEMORY.
 * `*ret_document` is written only on success.
 */
enum kms_status kms_yaml_load(const char *path, const struct cyaml_schema_value *schema,
                              struct kms_yaml *ret_document, struct kms_error *err) KMS_MUST_USE;
/** The same from memory; `name` stands for the file in messages. The text is copied. */
enum kms_status kms_yaml_parse(const char *name, struct kms_slice text,
                               const struct cyaml_schema_value *schema, struct kms_yaml *ret_document,
                               struct kms_error *err) KMS_MUST_USE;
/** Free everything and make it empty; accepts an empty document. */
void kms_yaml_clear(struct kms_yaml *document);

/** Line (from 1) of a place like "bindings[3].tenants[0]"; of its nearest parent when it is not in the text.
 */
unsigned kms_yaml_line(const struct kms_yaml *document, const char *place);
/** CONFIG_INVALID with "file:line: ..." for a place that the schema accepts but its user does not. */
enum kms_status kms_yaml_fail(const struct kms_yaml *document, const char *place, struct kms_error *err,
                              const char *fmt, ...) KMS_PRINTF(4, 5);

#endif
