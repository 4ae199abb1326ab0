#include "cli/interrupt.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>

static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
enum { NUMBERS = sizeof numbers / sizeof *numbers };

static volatile sig_atomic_t noted;
static volatile sig_atomic_t running; /* a process group */
static struct sigaction before[NUMBERS];

/* SIGKILL, because kmsd holds every other signal back; what it leaves half done is in the way of nobody. */
static void note(int number)
{
    const int saved = errno;
    noted = number;
    if (running > 0)
        (void)kill(-(pid_t)running, SIGKILL);
    errno = saved;
}

/* Block or unblock all of them. */
static void mask(int how)
{
    sigset_t set;
    (void)sigemptyset(&set);
    for (size_t i = 0; i < NUMBERS; i++)
        (void)sigaddset(&set, numbers[i]);
    (void)sigprocmask(how, &set, NULL);
}

void kms_cli_interrupt_catch(void)
{
    struct sigaction action = {.sa_handler = note}; /* no SA_RESTART: a read that waits ends */
    (void)sigemptyset(&action.sa_mask);
    noted = 0;
    for (size_t i = 0; i < NUMBERS; i++) {
        (void)sigaction(numbers[i], NULL, &before[i]);
        if (before[i].sa_handler != SIG_IGN)
            (void)sigaction(numbers[i], &action, NULL);
    }
}

void kms_cli_interrupt_release(void)
{
    for (size_t i = 0; i < NUMBERS; i++)
        (void)sigaction(numbers[i], &before[i], NULL);
}

int kms_cli_interrupted(void)
{
    return noted;
}

int kms_cli_interrupt_fail(struct kms_cli *cli, const char *what)
{
    const int number = noted;
    (void)kms_cli_fail(cli, "interrupted by signal %d (%s): %s", number, strsignal(number), what);
    return 128 + number;
}

void kms_cli_interrupt_hold(void)
{
    mask(SIG_BLOCK);
}

void kms_cli_interrupt_child(pid_t group)
{
    running = group;
    mask(SIG_UNBLOCK);
}
