/* A test program: static void functions of CHECKs, and a main of RUNs that returns check_done(). C11 and C++17.
 * Each test prints "ok <name>" or, for each check that fails, "FAIL <name>: <file>:<line>: <what>". */
#ifndef CHECK_H
#define CHECK_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <besom.h>
#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *check_test = "";
static int check_failures_here, check_failures;

static inline void check_fail(const char *file, int line, const char *what)
{
    printf("FAIL %s: %s:%d: %s\n", check_test, file, line, what);
    fflush(stdout);
    __atomic_fetch_add(&check_failures_here, 1, __ATOMIC_RELAXED);
}

/* Goes on after a failure; the other forms show the values. */
#define CHECK(condition) ((condition) ? (void)0 : check_fail(__FILE__, __LINE__, #condition))
#define CHECK_EQ(got, expected)                                                                                        \
    do {                                                                                                               \
        const long long check_a = (long long)(got), check_b = (long long)(expected);                                   \
        if (check_a != check_b) {                                                                                      \
            printf("%s is %lld, expected %lld\n", #got, check_a, check_b);                                             \
            check_fail(__FILE__, __LINE__, #got " == " #expected);                                                     \
        }                                                                                                              \
    } while (0)
/* got <= most */
#define CHECK_LE(got, most)                                                                                            \
    do {                                                                                                               \
        const long long check_a = (long long)(got), check_b = (long long)(most);                                       \
        if (check_a > check_b) {                                                                                       \
            printf("%s is %lld, at most %lld expected\n", #got, check_a, check_b);                                     \
            check_fail(__FILE__, __LINE__, #got " <= " #most);                                                         \
        }                                                                                                              \
    } while (0)
#define CHECK_OK(status) CHECK_EQ((status), BESOM_OK)
/* What the rest of the test cannot do without. */
#define NEED(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            check_fail(__FILE__, __LINE__, "needed: " #condition);                                                     \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)
#define RUN(test)                                                                                                      \
    do {                                                                                                               \
        check_test = #test;                                                                                            \
        check_failures_here = 0;                                                                                       \
        test();                                                                                                        \
        if (check_failures_here == 0) printf("ok %s\n", #test);                                                        \
        check_failures += check_failures_here;                                                                         \
        fflush(stdout);                                                                                                \
    } while (0)

static inline int check_done(void)
{
    return check_failures != 0;
}

/* Set by the runner where time is dear (valgrind). */
static inline int check_short(void)
{
    return getenv("CHECK_SHORT") != NULL;
}

/* Set by the runner under memcheck: tiny objects do not share blocks, and what is freed must not be read. */
static inline int check_watched(void)
{
    return getenv("CHECK_WATCHED") != NULL;
}

/* Whether the default mode, which the runner may set, is BESOM_CONCURRENT. */
static inline int check_concurrent(void)
{
    besom_options o;
    besom_options_init(&o);
    return o.mode == BESOM_CONCURRENT;
}

/* A heap with an attached thread and no native stack scan: what dies is exactly what no root names. */
static inline besom_heap *check_heap(const besom_options *options, besom_mutator **m)
{
    besom_heap *heap = NULL;
    besom_options o;
    if (options == NULL) {
        besom_options_init(&o);
        o.scan_native_stacks = 0;
        options = &o;
    }
    NEED(besom_heap_new(options, &heap) == BESOM_OK);
    NEED(besom_attach(heap, m) == BESOM_OK);
    return heap;
}

static inline void check_heap_end(besom_heap *heap, besom_mutator *m)
{
    CHECK_OK(besom_detach(m));
    CHECK_OK(besom_heap_free(heap));
}

static inline uint64_t check_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Whether a loop goes on that lasts until `end` (ns), and on a busy machine until there is `enough`: a count is waited for, not
 * hoped for. After a failure it does not, and that there is not enough two minutes later is one. */
#define CHECK_LASTS(end, enough) check_lasts((end), (enough), __FILE__, __LINE__, #enough)
static inline int check_lasts(uint64_t end, int enough, const char *file, int line, const char *what)
{
    const uint64_t now = check_now_ns();
    if (!enough && now > end + UINT64_C(120000000000)) check_fail(file, line, what);
    return (now < end || !enough) && check_failures_here == 0;
}

/* A flag that one thread sets and others look at. Functions of their own, which helgrind.supp can name. */
static void __attribute__((noinline, unused)) check_set(int *flag, int to)
{
    __atomic_store_n(flag, to, __ATOMIC_RELAXED);
}

static int __attribute__((noinline, unused)) check_is_set(const int *flag)
{
    return __atomic_load_n(flag, __ATOMIC_RELAXED) != 0;
}

static inline void check_sleep_ms(unsigned ms)
{
    usleep(ms * 1000);
}

/* Field number `field` of /proc/self/statm, in bytes: 0 the address space, 1 the resident set. */
static inline size_t check_statm(int field)
{
    unsigned long pages[2] = {0, 0};
    FILE *f = fopen("/proc/self/statm", "r");
    NEED(f != NULL && fscanf(f, "%lu %lu", &pages[0], &pages[1]) == 2);
    fclose(f);
    return pages[field] * (size_t)sysconf(_SC_PAGESIZE);
}

/* Before a test that compares address spaces: how many arenas of 64 MiB glibc's malloc maps depends on how many threads
 * happen to call it at the same moment, so all of them share one. */
static inline void check_one_arena(void)
{
    NEED(mallopt(M_ARENA_MAX, 1) == 1);
}

static inline int check_lines(const char *path)
{
    int c, lines = 0;
    FILE *f = fopen(path, "r");
    NEED(f != NULL);
    while ((c = getc(f)) != EOF) lines += c == '\n';
    fclose(f);
    return lines;
}

static inline int check_is_zero(const void *object, size_t bytes)
{
    const char *p = (const char *)object;
    size_t i;
    for (i = 0; i < bytes; i++)
        if (p[i] != 0) return 0;
    return 1;
}
#endif
