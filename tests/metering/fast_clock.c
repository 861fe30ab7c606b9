/*
 * Preloaded, lets a month pass for a program in a minute: its wall clock and its clock since boot run faster, both from one moment on.
 * The clocks by which it waits are left alone, so that a second's wait takes a second.
 *
 *     cc -shared -fPIC -o fast_clock.so tests/metering/fast_clock.c
 *     FAST_CLOCK="SINCE_BOOT WALL RATE" LD_PRELOAD=./fast_clock.so PROGRAM
 *
 * From SINCE_BOOT on, nanoseconds since boot, the wall clock goes on from WALL, seconds since 1970, RATE times as fast, and so does the
 * clock since boot. Whoever is started again with the same words goes on in the same time.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define BILLION 1000000000LL

static long long begin, wall, rate;

__attribute__((constructor)) static void parse(void)
{
    const char *words = getenv("FAST_CLOCK");
    if (words == NULL || sscanf(words, "%lld %lld %lld", &begin, &wall, &rate) != 3 || rate < 1) {
        fputs("FAST_CLOCK is not as it should be\n", stderr);
        _exit(2);
    }
}

/* Nanoseconds that have passed since the beginning, by the faster clock. */
static long long passed(void)
{
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_BOOTTIME, &now);
    return (now.tv_sec * BILLION + now.tv_nsec - begin) * rate;
}

static long long nanoseconds_of(clockid_t clock)
{
    switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
        return wall * BILLION + passed();
    case CLOCK_BOOTTIME:
        return begin + passed();
    default:
        return -1;
    }
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    long long now = nanoseconds_of(clock);
    if (now < 0) {
        return (int)syscall(SYS_clock_gettime, clock, time);
    }
    time->tv_sec = now / BILLION;
    time->tv_nsec = now % BILLION;
    return 0;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
    long long now = nanoseconds_of(CLOCK_REALTIME);
    (void)zone;
    time->tv_sec = now / BILLION;
    time->tv_usec = now % BILLION / 1000;
    return 0;
}

time_t time(time_t *told)
{
    time_t now = nanoseconds_of(CLOCK_REALTIME) / BILLION;
    if (told != NULL) {
        *told = now;
    }
    return now;
}
