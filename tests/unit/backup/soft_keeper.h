/* A keeper without an HSM: the wrapping key is a constant in this process. For tests of the container only. */
#ifndef TESTS_BACKUP_SOFT_KEEPER_H
#define TESTS_BACKUP_SOFT_KEEPER_H

#include "backup/container.h"

/* Deployments with different numbers have different keys. */
struct kms_backup_keeper soft_keeper(uint8_t deployment);

#endif
