/*
 * Purpose:   walk a YAML text beside a libcyaml schema: strict checks with exact lines, and looking places
 *            up.
 * Owns:      nothing between calls.
 * Threads:   no shared state.
 * Never:     keeps anything of the text; recurses deeper than its named limit.
 */
#ifndef KMS_YAML_WALK_H
#define KMS_YAML_WALK_H

#include "core/bytes.h"

#include <cyaml/cyaml.h>

/** Check the text; CONFIG_INVALID with "name:line: ..." as public text, NO_MEMORY. */
enum kms_status kms_walk_check(const char *name, struct kms_slice text,
                               const struct cyaml_schema_value *schema, struct kms_error *err) KMS_MUST_USE;
/** Line of a place (see kms_yaml_line()) in a text that kms_walk_check() has accepted. */
unsigned kms_walk_line(struct kms_slice text, const struct cyaml_schema_value *schema, const char *place);

#endif
