/*
 * Purpose:   the table of commands and the functions behind its rows.
 * Owns:      nothing.
 * Threads:   main thread only.
 * Never:     runs a command by itself: that is dispatch.h.
 */
#ifndef KMS_CLI_COMMANDS_H
#define KMS_CLI_COMMANDS_H

#include "cli/cli.h"

/** The table; `*ret_count` rows, those of one noun beside each other. */
const struct kms_cli_command *kms_cli_commands(size_t *ret_count);

/* Every function reports its failures and returns the exit code. One file per noun. */
int kms_cli_tenant_create(struct kms_cli *cli);
int kms_cli_tenant_get(struct kms_cli *cli);
int kms_cli_tenant_list(struct kms_cli *cli);
int kms_cli_tenant_update(struct kms_cli *cli);
int kms_cli_tenant_close(struct kms_cli *cli);

int kms_cli_purpose_create(struct kms_cli *cli);
int kms_cli_purpose_get(struct kms_cli *cli);
int kms_cli_purpose_list(struct kms_cli *cli);
int kms_cli_purpose_update(struct kms_cli *cli);
int kms_cli_purpose_close(struct kms_cli *cli);

int kms_cli_customer_create(struct kms_cli *cli);
int kms_cli_customer_batch_create(struct kms_cli *cli);
int kms_cli_customer_get(struct kms_cli *cli);
int kms_cli_customer_list(struct kms_cli *cli);
int kms_cli_customer_update(struct kms_cli *cli);
int kms_cli_customer_close(struct kms_cli *cli);
int kms_cli_customer_restrict(struct kms_cli *cli);
int kms_cli_customer_unrestrict(struct kms_cli *cli);

int kms_cli_policy_get(struct kms_cli *cli);
int kms_cli_policy_diff(struct kms_cli *cli);
int kms_cli_policy_apply(struct kms_cli *cli);
int kms_cli_policy_history(struct kms_cli *cli);
int kms_cli_policy_rollback(struct kms_cli *cli);
int kms_cli_policy_check(struct kms_cli *cli);

int kms_cli_freeze_create(struct kms_cli *cli);
int kms_cli_freeze_list(struct kms_cli *cli);
int kms_cli_unfreeze(struct kms_cli *cli);

int kms_cli_version_list(struct kms_cli *cli);

int kms_cli_datakey_generate(struct kms_cli *cli);
int kms_cli_datakey_wrap(struct kms_cli *cli);
int kms_cli_datakey_unwrap(struct kms_cli *cli);
int kms_cli_datakey_rewrap(struct kms_cli *cli);

int kms_cli_operation_list(struct kms_cli *cli);
int kms_cli_operation_get(struct kms_cli *cli);
int kms_cli_operation_approve(struct kms_cli *cli);
int kms_cli_operation_reject(struct kms_cli *cli);
int kms_cli_operation_cancel(struct kms_cli *cli);
int kms_cli_operation_await(struct kms_cli *cli);
int kms_cli_operation_verify(struct kms_cli *cli);

int kms_cli_encrypt(struct kms_cli *cli);
int kms_cli_decrypt(struct kms_cli *cli);

int kms_cli_backup_create(struct kms_cli *cli);
int kms_cli_backup_verify(struct kms_cli *cli);
int kms_cli_backup_prune(struct kms_cli *cli);
int kms_cli_backup_list(struct kms_cli *cli);
int kms_cli_backup_status(struct kms_cli *cli);
int kms_cli_restore(struct kms_cli *cli);

int kms_cli_recovery_status(struct kms_cli *cli);
int kms_cli_recovery_enroll(struct kms_cli *cli);
int kms_cli_recovery_retire(struct kms_cli *cli);
int kms_cli_recovery_ceremony(struct kms_cli *cli);
int kms_cli_recovery_open(struct kms_cli *cli);
int kms_cli_recovery_drill(struct kms_cli *cli);
int kms_cli_recovery_record_drill(struct kms_cli *cli);
int kms_cli_recovery_transport_key(struct kms_cli *cli);

int kms_cli_status(struct kms_cli *cli);
int kms_cli_health(struct kms_cli *cli);
int kms_cli_audit_verify(struct kms_cli *cli);
int kms_cli_audit_query(struct kms_cli *cli);
int kms_cli_audit_export(struct kms_cli *cli);
int kms_cli_attestation_get(struct kms_cli *cli);
int kms_cli_completion_bash(struct kms_cli *cli);

int kms_cli_shred_request(struct kms_cli *cli);
int kms_cli_shred_cancel(struct kms_cli *cli);
int kms_cli_shred_status(struct kms_cli *cli);
int kms_cli_shred_list(struct kms_cli *cli);
int kms_cli_shred_customers(struct kms_cli *cli);
int kms_cli_shred_clock(struct kms_cli *cli);
int kms_cli_shred_confirm_clock(struct kms_cli *cli);

int kms_cli_hold_place(struct kms_cli *cli);
int kms_cli_hold_release(struct kms_cli *cli);
int kms_cli_hold_list(struct kms_cli *cli);

int kms_cli_certificate_list(struct kms_cli *cli);
int kms_cli_certificate_get(struct kms_cli *cli);
int kms_cli_certificate_show(struct kms_cli *cli);
int kms_cli_certificate_verify(struct kms_cli *cli);

int kms_cli_rotate_master(struct kms_cli *cli);
int kms_cli_rotate_tree(struct kms_cli *cli);
int kms_cli_rotate_kek(struct kms_cli *cli);
int kms_cli_version_enable(struct kms_cli *cli);
int kms_cli_version_disable(struct kms_cli *cli);
int kms_cli_version_shred(struct kms_cli *cli);
int kms_cli_rewrap(struct kms_cli *cli);

#endif
