/* The making of a recovery key, off-line: on a machine that its custodians trust. */
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "recovery/ceremony.h"

/* kms_ceremony.stop */
static bool is_interrupted(void)
{
    return kms_cli_interrupted() != 0;
}

/* The numbers and names of the command line. */
static int read_plan(struct kms_cli *cli, struct kms_ceremony *plan)
{
    const struct kms_cli_values *shares = &cli->options.given[KMS_CLI_SHARE];
    uint64_t count = 0;
    uint64_t threshold = 0;
    if (!kms_cli_parse_number(kms_cli_value(cli, KMS_CLI_SHARES), KMS_SHARES_MAX, &count) ||
        !kms_cli_parse_number(kms_cli_value(cli, KMS_CLI_THRESHOLD), KMS_SHARES_MAX, &threshold))
        return kms_cli_usage(cli, "--shares and --threshold take numbers of 2 to %d", KMS_SHARES_MAX);
    if (shares->count != count)
        return kms_cli_usage(cli, "--shares says %u, but --share names %zu files: one for each custodian",
                             (unsigned)count, shares->count);
    *plan = (struct kms_ceremony){
        .threshold = (unsigned)threshold,
        .count = (unsigned)count,
        .share_paths = (const char *const *)shares->items,
        .public_path = kms_cli_value(cli, KMS_CLI_PUBLIC),
        .sealed_path = kms_cli_value(cli, KMS_CLI_SEALED),
        .stop = is_interrupted,
    };
    return KMS_CLI_EXIT_OK;
}

int kms_cli_recovery_ceremony(struct kms_cli *cli)
{
    struct kms_error err = {0};
    struct kms_ceremony plan;
    uint8_t fingerprint[KMS_RSA_FINGERPRINT_SIZE];
    char hex[2 * KMS_RSA_FINGERPRINT_SIZE + 1];
    const int result = read_plan(cli, &plan);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    enum kms_status status = kms_rsa_harden(&err);
    if (status == KMS_OK) {
        kms_cli_interrupt_catch();
        status = kms_ceremony_run(&plan, fingerprint, &err);
        kms_cli_interrupt_release();
    }
    if (status != KMS_OK && is_interrupted())
        return kms_cli_interrupt_fail(cli, "there is no recovery key, and no file of it");
    if (status != KMS_OK)
        return kms_cli_fail(cli, "%s", kms_error_public(&err, status));
    kms_hex_encode(fingerprint, sizeof fingerprint, hex);
    return kms_cli_show(cli, json_pack("{s:s, s:I, s:I, s:s, s:s}", "recovery_key", hex, "shares",
                                       (json_int_t)plan.count, "needed", (json_int_t)plan.threshold,
                                       "public_key", plan.public_path, "sealed_key", plan.sealed_path));
}
