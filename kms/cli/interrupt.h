/*
 * Purpose:   work that must clean up after itself is told of SIGINT, SIGTERM and SIGHUP in place of dying of them.
 * Owns:      the handlers of these signals between catch and release.
 * Threads:   main thread only; the handler may run on any.
 * Never:     catches a signal that the caller of this program has it ignore (nohup).
 */
#ifndef KMS_CLI_INTERRUPT_H
#define KMS_CLI_INTERRUPT_H

#include "cli/cli.h"

#include <sys/types.h>

/** From here on the signals are only noted, and end the child that runs. */
void kms_cli_interrupt_catch(void);
/** The signals do again what they did. What was noted stays. */
void kms_cli_interrupt_release(void);
/** The signal that was noted last; 0 when none was. */
int kms_cli_interrupted(void);

/** Report what was not finished because of it; returns the exit code of a shell for such a signal. */
int kms_cli_interrupt_fail(struct kms_cli *cli, const char *what);

/** Hold the signals back, so that no child is started behind one; `kms_cli_interrupt_child` lets them come again. */
void kms_cli_interrupt_hold(void);
/**
 * The child that a signal is to end, with its process group, and that has not been waited for (waitid(2) with WNOWAIT may have returned);
 * 0 when there is none.
 */
void kms_cli_interrupt_child(pid_t group);

#endif
