/*
 * Purpose:   named places at which a test build can be made to die or to leave something out.
 * Owns:      nothing.
 * Threads:   any.
 * Never:     exists in a build without KMS_TEST_POINTS: there both functions are empty and no name is in the program.
 *
 * KMS_CRASH_AT=<name>[:<n>]   the process kills itself with SIGKILL when it comes to that place for the n-th time (1)
 * KMS_POINT_PIPES=<dir>       at every place its name is written into the named pipe <dir>/reached, and the process waits until
 *                             somebody has opened <dir>/continue for writing and closed it again
 * KMS_MUTATION=<name>         kms_test_mutation() is true for that name: proves that a test notices the lack of a step
 */
#ifndef KMS_CORE_TESTPOINT_H
#define KMS_CORE_TESTPOINT_H

#include <stdbool.h>

#ifdef KMS_TEST_POINTS
/** A place between two steps of a protocol, "shred.committed". */
void kms_test_point(const char *name);
/** True when the step of that name is to be left out. */
bool kms_test_mutation(const char *name);
#else
#define kms_test_point(name)    ((void)0)
#define kms_test_mutation(name) (false)
#endif

#endif
