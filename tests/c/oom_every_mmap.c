/* The system refuses: mmap, mprotect or pthread_create fails at the n-th call of any of them, for every n of a short
 * run, once and from then on. Each time the run ends with a status or NULL where memory was missing, never an abort,
 * and leaves nothing mapped. Linked with -Wl,--wrap= for each of them. */
#include "check.h"
#include <errno.h>
#include <sys/mman.h>

#ifdef __cplusplus
extern "C" {
#endif
void *__real_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset);

int __real_mprotect(void *address, size_t length, int protection);
int __wrap_mprotect(void *address, size_t length, int protection);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);

static long calls, fail_at, fail_for; /* calls number fail_at up to fail_at + fail_for fail */

static int refuse(void)
{
    const long call = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    if (fail_at == 0 || call < fail_at || call - fail_at >= fail_for) return 0;
    errno = ENOMEM;
    return 1;
}

int __wrap_mprotect(void *address, size_t length, int protection)
{
    return refuse() ? -1 : __real_mprotect(address, length, protection);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    return refuse() ? EAGAIN : __real_pthread_create(thread, attributes, run, argument);
}

void *__wrap_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    if (refuse()) return MAP_FAILED;
    return __real_mmap(address, length, protection, flags, fd, offset);
}

void *__wrap_mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    return __wrap_mmap(address, length, protection, flags, fd, offset);
}
#ifdef __cplusplus
}
#endif

static void *global_root;
static char text[1 << 17];

static besom_handle *held_handle(besom_mutator *m, void *object)
{
    return besom_handle_new(m, object);
}

/* Exact statistics are what a walk counts, whatever was refused. */
static void twins(besom_mutator *m)
{
    besom_mem_stats counted, walked;
    besom_mem_stats_read_slow(m, &counted, &walked);
    CHECK(memcmp(&counted, &walked, sizeof counted) == 0);
}

static void *attach_too(void *heap)
{
    besom_mutator *m;
    if (besom_attach((besom_heap *)heap, &m) == BESOM_OK) {
        (void)besom_alloc(m, 3000, BESOM_VALUES);
        twins(m);
        CHECK_OK(besom_detach(m));
    }
    return NULL;
}

#define ACCEPT(status)                                                                                                 \
    do {                                                                                                               \
        const besom_status accepted = (status);                                                                        \
        CHECK(accepted == BESOM_OK || accepted == BESOM_ERR_NO_MEMORY);                                                \
        refused += accepted != BESOM_OK;                                                                               \
    } while (0)

/* A short run through all that may want memory; how often it was refused. */
static int run(void)
{
    besom_options o;
    besom_heap *heap = NULL;
    besom_mutator *m = NULL;
    besom_layout layout = 0;
    besom_stats stats;
    const uint32_t at = 8;
    pthread_t thread;
    void **kept = NULL;
    size_t length;
    int i, refused = 0, recorded;
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    o.verify = BESOM_VERIFY_OFF;
    ACCEPT(besom_heap_new(&o, &heap));
    if (heap == NULL) return refused;
    ACCEPT(besom_attach(heap, &m));
    if (m == NULL) {
        CHECK_OK(besom_heap_free(heap));
        return refused;
    }
    i = refused;
    ACCEPT(besom_timeline_start(heap, "/dev/null"));
    recorded = refused == i;
    {
        BESOM_FRAME(m, &kept);
        for (i = 0; i < 600; i++) {
            const size_t bytes = i % 100 == 99 ? 3000000 : i % 10 == 9 ? 40000 : (size_t)(i * 7);
            void **p = (void **)besom_alloc(m, bytes, (besom_kind)(i % 4));
            if (p == NULL) {
                refused++;
                continue;
            }
            CHECK(check_is_zero(p, bytes));
            if (i % 4 == BESOM_VALUES && bytes >= 8) {
                besom_write(m, p, p, kept);
                kept = p;
            }
        }
        twins(m);
        ACCEPT(besom_layout_register(heap, 16, &at, 1, &layout));
        if (layout != 0)
            for (i = 0; i < 2000; i++) {
                char *p = (char *)besom_new(m, layout);
                if (p != NULL) besom_write(m, p, p + 8, kept);
                else refused++;
            }
        ACCEPT(besom_roots_add(heap, &global_root, 1, BESOM_VALUES));
        for (i = 0; i < 300; i++) refused += held_handle(m, kept) == NULL;
        ACCEPT(besom_collect(m));
        ACCEPT(besom_procs_set(heap, 3));
        if (pthread_create(&thread, NULL, attach_too, heap) == 0) {
            besom_block(m);
            pthread_join(thread, NULL);
            besom_unblock(m);
        }
        (void)besom_release_memory(heap);
        refused += besom_alloc(m, 10000000, BESOM_NOSCAN) == NULL;
        ACCEPT(besom_collect(m));
        besom_stats_read(heap, &stats);
        CHECK(stats.free_count <= stats.alloc_count);
        twins(m);
        ACCEPT(besom_metrics_prometheus(heap, text, sizeof text, &length));
        ACCEPT(besom_metrics_json(heap, text, sizeof text, &length));
        CHECK_EQ(besom_timeline_stop(heap), recorded ? BESOM_OK : BESOM_ERR_STATE);
        BESOM_FRAME_END(m);
    }
    CHECK_OK(besom_detach(m));
    CHECK_OK(besom_heap_free(heap));
    return refused;
}

static int maps;
static size_t space;

/* Whether more is mapped than was. */
static int has_grown(void)
{
    return check_lines("/proc/self/maps") > maps + 6 || check_statm(0) > space + (1 << 20);
}

static void remember(void)
{
    maps = check_lines("/proc/self/maps");
    space = check_statm(0);
}

/* A run of which the n-th call fails, and how_many from there on. */
static int run_failing(long n, long how_many)
{
    int refused;
    calls = 0;
    fail_at = n;
    fail_for = how_many;
    refused = run();
    fail_at = 0;
    return refused;
}

static void fail(long how_many)
{
    long n, total, no_effect = 0;
    int refused = 0;
    run(); /* what is paid once */
    run();
    remember();
    calls = 0;
    CHECK_EQ(run(), 0);
    total = calls;
    CHECK(total > 5); /* else the wrapper does not wrap */
    for (n = 1; n <= total && check_failures_here == 0; n++) {
        const int r = run_failing(n, how_many);
        no_effect += r == 0;
        refused += r;
        if (!has_grown()) continue;
        /* Where a thread more than ever before happened to live at the same time, glibc keeps its stack. A leak does it again. */
        remember();
        run_failing(n, how_many);
        if (has_grown()) {
            printf("call %ld of %ld: %d lines of maps, %d before; %zu bytes mapped, %zu before\n", n, total,
                   check_lines("/proc/self/maps"), maps, check_statm(0), space);
            check_fail(__FILE__, __LINE__, "nothing is leaked");
        }
    }
    CHECK(refused > 0);
    CHECK_EQ(run(), 0); /* and with memory all is well again */
    printf("%ld calls; failing one of them went unnoticed by the program for %ld\n", total, no_effect);
}

static void each_call_fails_once(void) { fail(1); }
static void all_fail_from_each_call_on(void) { fail(1000000000); }

int main(void)
{
    check_one_arena();
    RUN(each_call_fails_once);
    RUN(all_fail_from_each_call_on);
    return check_done();
}
