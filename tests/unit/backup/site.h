/* A store with a fake HSM and two backup targets beside it, for the tests of shipping, verification and restore. */
#ifndef TESTS_BACKUP_SITE_H
#define TESTS_BACKUP_SITE_H

#include "backup/backup.h"
#include "backup/keeper.h"
#include "backup/target.h"
#include "fake/fake_hsm.h"
#include "unit/store/replay.h"

#include "core/clock.h"

struct site {
    struct fixture *fixture;
    struct kms_hsm *hsm;
    struct kms_backup *backup;
    char targets[2][128];
    const char *directories[2];
    uint64_t log_bytes, keep_changes;
    struct kms_error err;
};

int site_setup(void **state);
int site_teardown(void **state);

/* Ship to the first `count` targets. */
enum kms_status site_try_open(struct site *site, size_t count);
void site_open(struct site *site, size_t count);
void site_close(struct site *site);
/* One more tenant: one change. Returns its number. */
uint64_t site_add_tenant(struct site *site, unsigned number);
/* Until every open target has it. */
void site_wait(struct site *site, uint64_t seq);
/* Files of a kind in a target. */
size_t site_count(const char *directory, enum kms_backup_kind kind);
/* The keeper of the site's HSM. */
struct kms_backup_keeper site_keeper(struct site *site);
/* A restore of the target has what the store has. */
void site_assert_restores(struct site *site, const char *directory);

#endif
