#include "cli/commands.h"

#define BIT(name) KMS_CLI_BIT(name)

#define LIST_OPTIONS  (KMS_CLI_ONLINE | BIT(LIMIT) | BIT(PAGE_TOKEN))
#define CLOSE_OPTIONS (KMS_CLI_ONLINE | BIT(ETAG) | BIT(YES))
#define PURPOSE_FIELDS                                                                                       \
    (BIT(DISPLAY_NAME) | BIT(LEGAL_BASIS) | BIT(REQUIRED_BY_LAW) | BIT(RETENTION) | BIT(ROTATION))
#define OWNER (BIT(TENANT) | BIT(CUSTOMER) | BIT(PURPOSE))
#define AUDIT_FILTER                                                                                         \
    (OWNER | BIT(IDENTITY) | BIT(ACTION) | BIT(OUTCOME) | BIT(FROM) | BIT(UNTIL) | BIT(INDEX_DIR))
#define CEREMONY (BIT(SHARES) | BIT(THRESHOLD) | BIT(SHARE) | BIT(PUBLIC) | BIT(SEALED))
#define OPENING  (BIT(CAPSULES) | BIT(TRANSPORT_KEY) | BIT(ATTESTATION) | BIT(OUT))
#define HOLDER                                                                                               \
    (BIT(SEALED) | BIT(SHARE) | BIT(TOKEN) | BIT(MODULE) | BIT(PROFILE) | BIT(PIN_FILE) | BIT(PUBLIC))
#define DRILL   (BIT(TARGET) | BIT(SEALED) | BIT(SHARE) | BIT(ATTESTATION) | BIT(PROFILE))
#define DATAKEY (KMS_CLI_ONLINE | OWNER | BIT(CONTEXT))

static const char batch_details[] =
    "Reads one customer id a line from FILE or standard input and creates them 1,000 at a time, each 1,000\n"
    "durable as a whole. The exit code is 1 when some could not be created; they are listed.";
static const char generate_details[] =
    "Prints the wrapped key. The plaintext is asked for only with --plaintext-out.";
static const char wrap_details[] =
    "Reads 16 to 4,096 bytes of key material from FILE or standard input, as they are.";
static const char unwrap_details[] =
    "Reads a wrapped key, as bytes or base64, from FILE or standard input. Without --plaintext-out it only "
    "says\n"
    "whether the key can be opened. --customer and --purpose are checked when they are given.";
static const char rewrap_details[] = "Reads a wrapped key, as bytes or base64, from FILE or standard input "
                                     "and prints it wrapped under the current\n"
                                     "version.";
static const char crypt_details[] =
    "IN and OUT are files; \"-\" or nothing stands for standard input and output. An output file appears "
    "only when\n"
    "it is complete. What comes out of a pipe before a failure must be thrown away: see the exit code.";
static const char purpose_details[] = "TIME is a number with y (365 days), d, h, m or s.";
static const char label_details[] = "With --label, the labels given replace all labels that there are.";
static const char health_details[] = "Exit code 0 when the service serves, 3 when it does not.";
static const char audit_details[] =
    "Checks every record of the audit log in DIR, off-line. Exit code 5 when something is wrong with it.\n"
    "With --key the signatures of its checkpoints are checked: nobody can have written the log anew up to "
    "the\n"
    "newest one. With --checkpoint (checkpoints.jsonl of the second directory, lines of the system log, or "
    "one\n"
    "line) it also shows when the log was cut at its end.";
static const char query_details[] =
    "Off-line. --customer takes a uid. With --json one record a line, as it is in the log. Indexes are made "
    "by the\n"
    "way beside the log, or in --index-dir; they make queries fast and prove nothing: see audit verify.";
static const char export_details[] =
    "Off-line: who used this person's keys, when and for what purpose; one row for each use, also of a "
    "batch.\n"
    "CUSTOMER is a uid, which \"kmsctl customer get\" shows. With --json one object a line.";
static const char attestation_details[] =
    "Prints the public key, PEM, or writes it to a new FILE and shows its id. Compare its id with what was "
    "written down when\n"
    "the HSM was set up: an auditor who trusts this key needs to trust nothing else of the service.";

static const char approve_details[] =
    "Shows the document that says what will be done, asks, and signs its bytes with the private key of the\n"
    "connection. With --digest no other document is signed. Characters beyond ASCII are shown escaped.";
static const char wait_details[] =
    "Exit code 0 when it has succeeded, 1 when it failed, was rejected, cancelled or "
    "has expired.";
static const char recovery_status_details[] =
    "For each key: since when, when it was last rehearsed, and which tenants' master keys were made before "
    "recovery keys were turned on and need \"kmsctl rotate master\". What counts as missing are capsules "
    "that "
    "do not lie in a backup target.";
static const char enroll_details[] =
    "The HSM's security officer puts the public key into the HSM first (kmsd --trust-recovery-key). Others "
    "must approve; they compare the fingerprint with what the custodians have.";
static const char retire_details[] =
    "For when its shares, or the HSM that holds its private half, are destroyed. Shredded customers that no "
    "other recovery key covers are ERASED from then on; \"kmsctl certificate list\" has the certificates "
    "that "
    "say so. Others must approve.";
static const char backup_verify_details[] =
    "Reads every byte of every base and log. With --wait the exit code is 1 when a target is not in order.";
static const char restore_details[] = "Needs the token, kmsd.yaml and an empty place for the database. The "
                                      "target is verified first; always its newest state\n"
                                      "is restored, in one step; a backup that the HSM's master keys "
                                      "contradict is refused. Prints what is back as JSON.\nWhen the HSM was "
                                      "lost, too, --transport-capsule brings its keys into the new token.";
static const char operation_verify_details[] = "FILE is what \"kmsctl operation show UID --json\" printed; "
                                               "--ca names the certificate authorities of the\n"
                                               "clients. Checks every signature over the document. Exit code "
                                               "5 when an approval is not good, or too few are.";

static const char policy_diff_details[] = "Compares FILE with the policy in force. Exit "
                                          "code 0 when they are equal, 1 when not.";
static const char policy_apply_details[] =
    "Shows what FILE changes and asks. The policy is in force when enough others have\n"
    "approved it, unless another one was applied meanwhile.";
static const char policy_rollback_details[] =
    "Makes the document of an older version the newest one, in the same way as apply.";
static const char policy_check_details[] =
    "Says whether an identity may do something, and why. Exit code 0 when it "
    "may, 4 when not.";
static const char freeze_details[] =
    "Counts from the next call on. Reading and what leads out of the freeze go on.";
static const char version_shred_details[] =
    "What was wrapped under the version and not rewrapped since is lost. The other versions stay.";
static const char rewrap_file_details[] =
    "FILE has one wrapped data key a line, in base64, and behind it, each after a tab, the entries KEY=VALUE "
    "of its\n"
    "encryption context. OUT gets the same lines with new keys; lines that cannot be rewrapped are reported, "
    "stay as\n"
    "they are, and make the exit code 1. An interrupted run goes on where it was when it is started again.";
static const char shred_request_details[] = "Without --purpose everything goes that no law keeps. All lines "
                                            "of LIST that are refused are reported; unless\n"
                                            "--skip-refused is given, nothing is requested then. Others must "
                                            "approve the operation (kmsctl operation approve).";
static const char shred_status_details[] =
    "A customer is named by its id, or by its UUID when it is shredded. --wait waits for the end of a job.";
static const char certificate_get_details[] =
    "UID is that of the certificate or of its batch. Writes OUT and OUT.sig; with --customer UUID also "
    "OUT.proof, which\n"
    "shows that this customer is among those that the certificate covers, without naming the others.";
static const char certificate_verify_details[] =
    "Checks FILE against FILE.sig and the attestation key (kmsctl attestation get), and a proof against "
    "FILE. The same\n"
    "with plain openssl: openssl dgst -sha256 -verify attestation.pem -signature FILE.sig FILE";

static const char ceremony_details[] =
    "For a machine without a network that the custodians trust. Makes an RSA-3072 key; writes its public "
    "half to "
    "--public, its\n"
    "private half to --sealed, which any M of the N shares open and fewer do not, and a share for each "
    "--share, each into a\n"
    "directory of its own. Shares are text that can be printed and typed in. The key itself is written "
    "nowhere. "
    "Each share is\n"
    "tried once before it says that it has succeeded. A key that was made in a disaster-recovery HSM needs "
    "no "
    "ceremony.";

static const char transport_key_details[] = "On the new machine, whose kmsd.yaml names the new token. Writes "
                                            "the public half to OUT and prints its fingerprint, "
                                            "which the\n"
                                            "custodians compare before they open anything for it.";
static const char drill_details[] =
    "For the machine without a network that the custodians trust, with SoftHSM and a copy of a backup "
    "target. Makes a token in memory, "
    "opens\n"
    "the capsules for it, restores the database and opens every key of every customer; then removes all "
    "that. Nothing real is touched.\n"
    "With --config the service is told at once, else with kmsctl recovery record-drill.";
static const char open_details[] = "For the machine without a network that the custodians trust. Checks the "
                                   "capsules against --attestation, the key that \"kmsctl\n"
                                   "attestation get\" has shown; opens them with the sealed key and the "
                                   "shares, or in the disaster-recovery HSM that --token names; "
                                   "wraps\n"
                                   "them for the transport key; writes that to OUT for kmsctl restore "
                                   "--transport-capsule, and prints what people compare. No key is\n"
                                   "written in plaintext.";

static const struct kms_cli_command commands[] = {
    {"tenant", "create", "TENANT", 1, 1, KMS_CLI_ONLINE | BIT(DISPLAY_NAME) | BIT(REQUEST_ID), 0,
     "create a tenant and its master key in the HSM", NULL, kms_cli_tenant_create},
    {"tenant", "get", "TENANT", 1, 1, KMS_CLI_ONLINE, 0, "show a tenant", NULL, kms_cli_tenant_get},
    {"tenant", "list", "", 0, 0, LIST_OPTIONS, 0, "list the tenants that you may read", NULL,
     kms_cli_tenant_list},
    {"tenant", "update", "TENANT", 1, 1,
     KMS_CLI_ONLINE | BIT(DISPLAY_NAME) | BIT(SHRED_WINDOW) | BIT(SHRED_CLOSED) | BIT(ETAG), 0,
     "change what is given", purpose_details, kms_cli_tenant_update},
    {"tenant", "close", "TENANT", 1, 1, CLOSE_OPTIONS, 0, "serve no data key of a tenant any more", NULL,
     kms_cli_tenant_close},

    {"purpose", "create", "PURPOSE", 1, 1, KMS_CLI_ONLINE | BIT(TENANT) | PURPOSE_FIELDS | BIT(REQUEST_ID),
     BIT(TENANT), "define why data is processed", purpose_details, kms_cli_purpose_create},
    {"purpose", "get", "PURPOSE", 1, 1, KMS_CLI_ONLINE | BIT(TENANT), BIT(TENANT), "show a purpose", NULL,
     kms_cli_purpose_get},
    {"purpose", "list", "", 0, 0, LIST_OPTIONS | BIT(TENANT), BIT(TENANT), "list a tenant's purposes", NULL,
     kms_cli_purpose_list},
    {"purpose", "update", "PURPOSE", 1, 1, KMS_CLI_ONLINE | BIT(TENANT) | PURPOSE_FIELDS | BIT(ETAG),
     BIT(TENANT), "change what is given", purpose_details, kms_cli_purpose_update},
    {"purpose", "close", "PURPOSE", 1, 1, CLOSE_OPTIONS | BIT(TENANT), BIT(TENANT),
     "serve no data key of a purpose any more", NULL, kms_cli_purpose_close},

    {"customer", "create", "CUSTOMER", 1, 1,
     KMS_CLI_ONLINE | BIT(TENANT) | BIT(LABEL) | BIT(REQUEST_ID) | BIT(RECREATE_SHREDDED), BIT(TENANT),
     "create a customer", NULL, kms_cli_customer_create},
    {"customer", "batch-create", "[FILE]", 0, 1,
     KMS_CLI_ONLINE | BIT(TENANT) | BIT(LABEL) | BIT(WARM) | BIT(SKIP_EXISTING) | BIT(RECREATE_SHREDDED),
     BIT(TENANT), "create many customers", batch_details, kms_cli_customer_batch_create},
    {"customer", "get", "CUSTOMER", 1, 1, KMS_CLI_ONLINE | BIT(TENANT), BIT(TENANT), "show a customer", NULL,
     kms_cli_customer_get},
    {"customer", "list", "", 0, 0,
     LIST_OPTIONS | BIT(TENANT) | BIT(STATE) | BIT(ID_PREFIX) | BIT(LABEL) | BIT(CREATED_FROM) |
         BIT(CREATED_UNTIL),
     BIT(TENANT), "list a tenant's customers", NULL, kms_cli_customer_list},
    {"customer", "update", "CUSTOMER", 1, 1, KMS_CLI_ONLINE | BIT(TENANT) | BIT(LABEL) | BIT(ETAG),
     BIT(TENANT), "replace a customer's labels", label_details, kms_cli_customer_update},
    {"customer", "close", "CUSTOMER", 1, 1, CLOSE_OPTIONS | BIT(TENANT), BIT(TENANT),
     "serve no data key of a customer any more", NULL, kms_cli_customer_close},

    {"customer", "restrict", "CUSTOMER", 1, 1, CLOSE_OPTIONS | BIT(TENANT), BIT(TENANT),
     "allow only purposes that the law requires", NULL, kms_cli_customer_restrict},
    {"customer", "unrestrict", "CUSTOMER", 1, 1, CLOSE_OPTIONS | BIT(TENANT), BIT(TENANT),
     "lift the restriction", NULL, kms_cli_customer_unrestrict},

    {"policy", "get", "[VERSION]", 0, 1, KMS_CLI_ONLINE, 0, "print the policy in force, or an older version",
     NULL, kms_cli_policy_get},
    {"policy", "diff", "FILE", 1, 1, KMS_CLI_ONLINE, 0, "show what FILE would change", policy_diff_details,
     kms_cli_policy_diff},
    {"policy", "apply", "FILE", 1, 1, KMS_CLI_ONLINE | BIT(COMMENT) | BIT(YES) | BIT(WAIT) | BIT(REQUEST_ID),
     0, "request that FILE becomes the policy", policy_apply_details, kms_cli_policy_apply},
    {"policy", "history", "", 0, 0, LIST_OPTIONS, 0, "list the versions of the policy, newest first", NULL,
     kms_cli_policy_history},
    {"policy", "rollback", "VERSION", 1, 1,
     KMS_CLI_ONLINE | BIT(COMMENT) | BIT(YES) | BIT(WAIT) | BIT(REQUEST_ID), 0,
     "request that an older version is in force again", policy_rollback_details, kms_cli_policy_rollback},
    {"policy", "check", "", 0, 0, KMS_CLI_ONLINE | BIT(IDENTITY) | BIT(ACTION) | BIT(TENANT) | BIT(PURPOSE),
     BIT(IDENTITY) | BIT(ACTION), "ask whether somebody may do something", policy_check_details,
     kms_cli_policy_check},

#define FREEZE(verb, word, summary, place)                                                                   \
    {                                                                                                        \
        "freeze", verb, word, 1, 1, KMS_CLI_ONLINE | BIT(REASON) | BIT(YES) | (place),                       \
            BIT(REASON) | (place), summary, freeze_details, kms_cli_freeze_create                            \
    }
#define UNFREEZE(verb, word, summary, place)                                                                 \
    {                                                                                                        \
        "unfreeze", verb, word, 1, 1, KMS_CLI_ONLINE | BIT(REASON) | BIT(WAIT) | BIT(REQUEST_ID) | (place),  \
            (place), summary, NULL, kms_cli_unfreeze                                                         \
    }
    FREEZE("tenant", "TENANT", "stop a tenant at once", 0),
    FREEZE("customer", "CUSTOMER", "stop a customer's keys at once", BIT(TENANT)),
    FREEZE("purpose", "PURPOSE", "stop a purpose's keys at once", BIT(TENANT)),
    FREEZE("identity", "IDENTITY", "deny an identity everything at once", 0),
    {"freeze", "list", "", 0, 0, LIST_OPTIONS, 0, "list what is frozen", NULL, kms_cli_freeze_list},
    UNFREEZE("tenant", "TENANT", "request the end of a tenant's freeze", 0),
    UNFREEZE("customer", "CUSTOMER", "request the end of a customer's freeze", BIT(TENANT)),
    UNFREEZE("purpose", "PURPOSE", "request the end of a purpose's freeze", BIT(TENANT)),
    UNFREEZE("identity", "IDENTITY", "request the end of an identity's freeze", 0),

    {"version", "list", "", 0, 0, LIST_OPTIONS | OWNER, BIT(TENANT) | BIT(CUSTOMER),
     "list the versions of a customer's key-encryption keys", NULL, kms_cli_version_list},
    {"version", "enable", "VERSION", 1, 1, KMS_CLI_ONLINE | OWNER, OWNER, "let a disabled version open again",
     NULL, kms_cli_version_enable},
    {"version", "disable", "VERSION", 1, 1, KMS_CLI_ONLINE | OWNER, OWNER, "let a version open nothing", NULL,
     kms_cli_version_disable},
    {"version", "shred", "VERSION", 1, 1,
     KMS_CLI_ONLINE | OWNER | BIT(REASON) | BIT(NO_WINDOW) | BIT(YES) | BIT(WAIT) | BIT(REQUEST_ID), OWNER,
     "destroy one version for ever", version_shred_details, kms_cli_version_shred},

    {"rotate", "master", "", 0, 0, KMS_CLI_ONLINE | BIT(TENANT) | BIT(WAIT) | BIT(REQUEST_ID), BIT(TENANT),
     "a new master key for a tenant, the old one destroyed", NULL, kms_cli_rotate_master},
    {"rotate", "tree", "", 0, 0, KMS_CLI_ONLINE | BIT(TENANT) | BIT(WAIT) | BIT(REQUEST_ID), BIT(TENANT),
     "new keys for every page of a tenant's key tree", NULL, kms_cli_rotate_tree},
    {"rotate", "kek", "", 0, 0, KMS_CLI_ONLINE | OWNER | BIT(WAIT) | BIT(REQUEST_ID), OWNER,
     "a new version of a customer's keys for a purpose", NULL, kms_cli_rotate_kek},
    {"rewrap", NULL, "FILE", 1, 1, KMS_CLI_ONLINE | OWNER | BIT(OUT), BIT(TENANT) | BIT(OUT),
     "wrap the data keys of a file anew, under the current versions", rewrap_file_details, kms_cli_rewrap},

    {"shred", "request", "", 0, 0,
     KMS_CLI_ONLINE | OWNER | BIT(FILE) | BIT(REASON) | BIT(NO_WINDOW) | BIT(SKIP_REFUSED) | BIT(YES) |
         BIT(WAIT) | BIT(REQUEST_ID),
     BIT(TENANT), "ask for the keys of customers to be destroyed", shred_request_details,
     kms_cli_shred_request},
    {"shred", "cancel", "[JOB]", 0, 1, KMS_CLI_ONLINE | BIT(TENANT) | BIT(CUSTOMER), 0,
     "cancel a job, or one customer in it, before its time has come", NULL, kms_cli_shred_cancel},
    {"shred", "status", "[JOB]", 0, 1, KMS_CLI_ONLINE | BIT(TENANT) | BIT(CUSTOMER) | BIT(WAIT), 0,
     "what became of a job, or of a customer, and what still stands in the way", shred_status_details,
     kms_cli_shred_status},
    {"shred", "list", "", 0, 0, LIST_OPTIONS | BIT(TENANT) | BIT(STATE), BIT(TENANT),
     "list a tenant's shred jobs", NULL, kms_cli_shred_list},
    {"shred", "customers", "JOB", 1, 1, LIST_OPTIONS | BIT(STATE), 0, "list the customers of a job", NULL,
     kms_cli_shred_customers},
    {"shred", "clock", "", 0, 0, KMS_CLI_ONLINE, 0, "the clock that waiting windows are measured with", NULL,
     kms_cli_shred_clock},
    {"shred", "confirm-clock", "", 0, 0, KMS_CLI_ONLINE | BIT(YES), 0,
     "say that the wall clock is right although it jumped ahead", NULL, kms_cli_shred_confirm_clock},

    {"hold", "place", "", 0, 0,
     KMS_CLI_ONLINE | BIT(TENANT) | BIT(CUSTOMER) | BIT(REFERENCE) | BIT(REASON) | BIT(REQUEST_ID),
     BIT(TENANT) | BIT(CUSTOMER) | BIT(REFERENCE) | BIT(REASON), "keep a customer from being shredded", NULL,
     kms_cli_hold_place},
    {"hold", "release", "UID", 1, 1, KMS_CLI_ONLINE | BIT(WAIT) | BIT(REQUEST_ID), 0, "end a hold", NULL,
     kms_cli_hold_release},
    {"hold", "list", "", 0, 0, LIST_OPTIONS | BIT(TENANT) | BIT(CUSTOMER) | BIT(RELEASED), BIT(TENANT),
     "list the holds of a tenant or customer", NULL, kms_cli_hold_list},

    {"certificate", "list", "", 0, 0, LIST_OPTIONS | BIT(TENANT), BIT(TENANT),
     "list certificates of destruction", NULL, kms_cli_certificate_list},
    {"certificate", "get", "UID", 1, 1, KMS_CLI_ONLINE | BIT(OUT) | BIT(CUSTOMER), BIT(OUT),
     "save a certificate and its signature", certificate_get_details, kms_cli_certificate_get},
    {"certificate", "show", "FILE", 1, 1, 0, 0, "show a saved certificate, off-line", NULL,
     kms_cli_certificate_show},
    {"certificate", "verify", "FILE", 1, 1, BIT(KEY) | BIT(PROOF) | BIT(CUSTOMER), BIT(KEY),
     "check a saved certificate, off-line", certificate_verify_details, kms_cli_certificate_verify},

    {"datakey", "generate", "", 0, 0,
     DATAKEY | BIT(KEY_SPEC) | BIT(WITHOUT_PLAINTEXT) | BIT(PLAINTEXT_OUT) | BIT(WRAPPED_OUT), OWNER,
     "make a new data key", generate_details, kms_cli_datakey_generate},
    {"datakey", "wrap", "[FILE]", 0, 1, DATAKEY | BIT(WRAPPED_OUT), OWNER, "wrap key material of your own",
     wrap_details, kms_cli_datakey_wrap},
    {"datakey", "unwrap", "[FILE]", 0, 1, DATAKEY | BIT(PLAINTEXT_OUT), BIT(TENANT),
     "open a wrapped data key", unwrap_details, kms_cli_datakey_unwrap},
    {"datakey", "rewrap", "[FILE]", 0, 1, DATAKEY | BIT(WRAPPED_OUT), BIT(TENANT),
     "wrap a data key anew, under the current version", rewrap_details, kms_cli_datakey_rewrap},

    {"operation", "list", "", 0, 0, LIST_OPTIONS | BIT(TENANT) | BIT(KIND) | BIT(STATE), 0,
     "list operations, newest first", NULL, kms_cli_operation_list},
    {"operation", "show", "UID", 1, 1, KMS_CLI_ONLINE, 0, "show an operation and its document", NULL,
     kms_cli_operation_get},
    {"operation", "approve", "UID", 1, 1, KMS_CLI_ONLINE | BIT(DIGEST) | BIT(YES) | BIT(WAIT), 0,
     "sign an operation's document, so that it may run", approve_details, kms_cli_operation_approve},
    {"operation", "reject", "UID", 1, 1, KMS_CLI_ONLINE | BIT(REASON), 0,
     "end an operation of another person", NULL, kms_cli_operation_reject},
    {"operation", "cancel", "UID", 1, 1, KMS_CLI_ONLINE, 0, "take back an operation of your own", NULL,
     kms_cli_operation_cancel},
    {"operation", "wait", "UID", 1, 1, KMS_CLI_ONLINE, 0, "wait for the end of an operation", wait_details,
     kms_cli_operation_await},
    {"operation", "verify", "FILE", 1, 1, BIT(CA), BIT(CA), "check off-line who approved an operation",
     operation_verify_details, kms_cli_operation_verify},

    {"encrypt", NULL, "[IN] [OUT]", 0, 2, DATAKEY | BIT(FORCE), OWNER, "encrypt a file or stream",
     crypt_details, kms_cli_encrypt},
    {"decrypt", NULL, "[IN] [OUT]", 0, 2, DATAKEY | BIT(FORCE), BIT(TENANT), "decrypt a file or stream",
     crypt_details, kms_cli_decrypt},

    {"backup", "create", "", 0, 0, KMS_CLI_ONLINE | BIT(WAIT) | BIT(REQUEST_ID), 0,
     "make a base in every target", NULL, kms_cli_backup_create},
    {"backup", "list", "", 0, 0, KMS_CLI_ONLINE | BIT(WITH_LOGS), 0, "list what lies in the targets", NULL,
     kms_cli_backup_list},
    {"backup", "verify", "", 0, 0, KMS_CLI_ONLINE | BIT(WAIT) | BIT(REQUEST_ID), 0,
     "prove that the targets are complete, in order, authentic and up to date", backup_verify_details,
     kms_cli_backup_verify},
    {"backup", "prune", "", 0, 0,
     KMS_CLI_ONLINE | BIT(WAIT) | BIT(REQUEST_ID) | BIT(KEEP) | BIT(DRY_RUN) | BIT(YES), 0,
     "remove bases and logs that nobody needs any more", NULL, kms_cli_backup_prune},
    {"backup", "status", "", 0, 0, KMS_CLI_ONLINE, 0, "show how far each target is", NULL,
     kms_cli_backup_status},
    {"restore", NULL, "", 0, 0,
     BIT(SERVER_CONFIG) | BIT(TARGET) | BIT(TRANSPORT_CAPSULE) | BIT(DRY_RUN) | BIT(PROVE),
     BIT(SERVER_CONFIG) | BIT(TARGET), "rebuild the database from a backup target, while no service runs",
     restore_details, kms_cli_restore},

    {"recovery", "ceremony", "", 0, 0, CEREMONY, CEREMONY,
     "make a recovery key and split it among custodians, off-line", ceremony_details,
     kms_cli_recovery_ceremony},
    {"recovery", "transport-key", "", 0, 0, BIT(SERVER_CONFIG) | BIT(OUT), BIT(SERVER_CONFIG) | BIT(OUT),
     "make the transport key of a new token, after the loss of the old one", transport_key_details,
     kms_cli_recovery_transport_key},
    {"recovery", "open", "", 0, 0, OPENING | HOLDER | BIT(YES), OPENING,
     "open capsules with a recovery key and wrap them for a new token, off-line", open_details,
     kms_cli_recovery_open},
    {"recovery", "drill", "", 0, 0, KMS_CLI_ONLINE | DRILL | BIT(MODULE) | BIT(SCRATCH), DRILL,
     "rehearse a recovery on a scratch token, off-line", drill_details, kms_cli_recovery_drill},
    {"recovery", "record-drill", "FINGERPRINT", 1, 1, KMS_CLI_ONLINE | BIT(CUSTOMERS) | BIT(MILLISECONDS),
     BIT(CUSTOMERS) | BIT(MILLISECONDS), "tell the service of a drill that was done off-line", NULL,
     kms_cli_recovery_record_drill},

    {"recovery", "status", "", 0, 0, KMS_CLI_ONLINE, 0, "show the recovery keys and what they cover",
     recovery_status_details, kms_cli_recovery_status},
    {"recovery", "enroll", "", 0, 0, KMS_CLI_ONLINE | BIT(PUBLIC) | BIT(WAIT) | BIT(REQUEST_ID), BIT(PUBLIC),
     "take a recovery key into use", enroll_details, kms_cli_recovery_enroll},
    {"recovery", "retire", "FINGERPRINT", 1, 1,
     KMS_CLI_ONLINE | BIT(STATEMENT) | BIT(WAIT) | BIT(REQUEST_ID) | BIT(YES), BIT(STATEMENT),
     "say that a recovery key is destroyed", retire_details, kms_cli_recovery_retire},

    {"status", NULL, "", 0, 0, KMS_CLI_ONLINE, 0, "show how the service is doing", NULL, kms_cli_status},
    {"health", NULL, "[SERVICE]", 0, 1, KMS_CLI_ONLINE, 0, "ask whether the service serves", health_details,
     kms_cli_health},
    {"audit", "verify", "DIR", 1, 1,
     BIT(LIVE) | BIT(ARCHIVED) | BIT(KNOWN_SEQ) | BIT(KNOWN_HASH) | BIT(KEY) | BIT(CHECKPOINT), 0,
     "check an audit log", audit_details, kms_cli_audit_verify},
    {"audit", "query", "DIR", 1, 1, AUDIT_FILTER | BIT(LIMIT), 0, "find records of an audit log",
     query_details, kms_cli_audit_query},
    {"audit", "export", "DIR", 1, 1, AUDIT_FILTER, BIT(TENANT) | BIT(CUSTOMER),
     "list every use of a customer's keys", export_details, kms_cli_audit_export},
    {"attestation", "get", "[FILE]", 0, 1, KMS_CLI_ONLINE, 0,
     "get the key that signs checkpoints and certificates", attestation_details, kms_cli_attestation_get},
    {"completion", "bash", "", 0, 0, 0, 0, "print a completion script: source <(kmsctl completion bash)",
     NULL, kms_cli_completion_bash},
};

const struct kms_cli_command *kms_cli_commands(size_t *ret_count)
{
    *ret_count = sizeof commands / sizeof *commands;
    return commands;
}
