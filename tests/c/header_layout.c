/* The header against itself and against the library: numbers, layouts, class tables. */
#include "check.h"
#include <sys/wait.h>

BESOM_STATIC_ASSERT(sizeof(besom_stats) == (23 + 2 * BESOM_SIZE_CLASSES) * 8, "besom_stats has no holes");
BESOM_STATIC_ASSERT(sizeof(besom_mem_stats) == (27 + 2 * BESOM_PAUSES + 3 * BESOM_SIZE_CLASSES) * 8, "besom_mem_stats");
BESOM_STATIC_ASSERT(sizeof(besom_encoding) == 24, "besom_encoding");
BESOM_STATIC_ASSERT(offsetof(struct besom_cell, limit) == 8 && offsetof(struct besom_cell, slot) == 16, "besom_cell");
BESOM_STATIC_ASSERT(offsetof(struct besom_mutator, poll) == 8 && offsetof(struct besom_mutator, barrier) == 12,
                    "besom_mutator");
BESOM_STATIC_ASSERT(offsetof(struct besom_frame, count) == 8 && offsetof(struct besom_frame, slots) == 16,
                    "besom_frame");
BESOM_STATIC_ASSERT(BESOM_OWN_LAYOUT_FIRST == 5 * BESOM_SIZE_CLASSES + 1 && BESOM_OWN_LAYOUT_END ==
                    BESOM_OWN_LAYOUT_FIRST + 1024, "cells");
BESOM_STATIC_ASSERT(BESOM_NOSCAN == 0 && BESOM_CONSERVATIVE == 1 && BESOM_VALUES == 2 && BESOM_TRACED == 3 &&
                    BESOM_TYPED == 4, "kinds");
BESOM_STATIC_ASSERT(BESOM_VERSION >= 1000 && BESOM_VERSION < 1000000000, "version");

static void version_matches(void)
{
    char text[64];
    snprintf(text, sizeof text, "%d.%d.%d", BESOM_VERSION_MAJOR, BESOM_VERSION_MINOR, BESOM_VERSION_PATCH);
    CHECK(strcmp(text, BESOM_VERSION_STRING) == 0);
    CHECK(strcmp(besom_version(), BESOM_VERSION_STRING) == 0);
}

static void status_names(void)
{
    CHECK(strcmp(besom_status_name(BESOM_OK), "BESOM_OK") == 0);
    CHECK(strcmp(besom_status_name(BESOM_ERR_NO_MEMORY), "BESOM_ERR_NO_MEMORY") == 0);
    CHECK(strcmp(besom_status_name(BESOM_ERR_INVALID), "BESOM_ERR_INVALID") == 0);
    CHECK(strcmp(besom_status_name(BESOM_ERR_STATE), "BESOM_ERR_STATE") == 0);
    CHECK(strcmp(besom_status_name(BESOM_ERR_LIMIT), "BESOM_ERR_LIMIT") == 0);
    CHECK(strcmp(besom_status_name((besom_status)77), "unknown status") == 0);
}

static void options_defaults(void)
{
    besom_options o;
    memset(&o, 0xa5, sizeof o);
    besom_options_init(&o);
    CHECK_EQ(o.struct_size, sizeof o);
    CHECK_EQ(o.heap_limit, 0);
    CHECK_EQ(o.memory_limit, 0);
    CHECK_EQ(o.gc_percent, 100);
    CHECK_EQ(o.procs, 0);
    CHECK_EQ(o.mark_workers, 0);
    CHECK_EQ(o.mode, getenv("BESOM_MODE") == NULL ? BESOM_CONCURRENT : BESOM_STOP_THE_WORLD); /* as the runner has it */
    CHECK_EQ(o.scan_native_stacks, 1);
    CHECK_EQ(o.tiny, 1);
    CHECK(o.encoding.mask == 7 && o.encoding.tag == 0 && o.encoding.address == ~(uint64_t)7);
    CHECK(o.trace == NULL && o.roots == NULL && o.data == NULL && o.out_of_memory == NULL);
    CHECK_EQ(o.gc_trace, 0);
    CHECK_EQ(o.verify, BESOM_VERIFY_OFF);
    CHECK_EQ(o.collect_every, 0);
    CHECK_EQ(o.clobber_free, 0);
}

static void bad_options_are_refused(void)
{
    besom_options o;
    besom_heap *heap = (besom_heap *)&o; /* must stay as it is */
#define REFUSED(change)                                                                                                \
    do {                                                                                                               \
        besom_options_init(&o);                                                                                        \
        change;                                                                                                        \
        CHECK_EQ(besom_heap_new(&o, &heap), BESOM_ERR_INVALID);                                                        \
        CHECK(heap == (besom_heap *)&o);                                                                               \
    } while (0)
    REFUSED(o.mode = 2);
    REFUSED(o.mode = -1);
    REFUSED(o.struct_size = 0);
    REFUSED(o.struct_size = sizeof o + 8);
    REFUSED(o.verify = 4);
    REFUSED(o.verify = -1);
    REFUSED(o.procs = BESOM_PROCS_MAX + 1);
    REFUSED(o.mark_workers = 257);
    REFUSED(o.collect_every = -1);
    REFUSED(o.encoding.address = 0);
    REFUSED(o.encoding.tag = 8);
    REFUSED((o.encoding.mask = 3, o.encoding.address = UINT64_MAX)); /* bit 2 would be kept, and could be 1 */
    REFUSED((o.encoding.tag = 1, o.encoding.address = UINT64_MAX));
    besom_options_init(&o);
    CHECK_EQ(besom_heap_new(&o, NULL), BESOM_ERR_INVALID);
    CHECK_OK(besom_heap_new(NULL, &heap)); /* the defaults */
    CHECK_OK(besom_heap_free(heap));
    for (o.mode = BESOM_STOP_THE_WORLD; o.mode <= BESOM_CONCURRENT; o.mode++) {
        CHECK_OK(besom_heap_new(&o, &heap));
        CHECK_OK(besom_heap_free(heap));
    }
    CHECK_OK(besom_heap_free(NULL));
}

static void class_tables_are_consistent(void)
{
    size_t n, i;
    for (i = 2; i < BESOM_SIZE_CLASSES; i++) CHECK(besom_class_bytes[i] > besom_class_bytes[i - 1]);
    CHECK_EQ(besom_class_bytes[1], 16);
    CHECK_EQ(besom_class_bytes[BESOM_SIZE_CLASSES - 1], BESOM_SMALL_MAX);
    for (n = 1; n <= BESOM_SMALL_MAX; n++) {
        const size_t c = n <= 1024 ? besom_class_by_8[(n + 7) / 8] : besom_class_by_128[(n - 1024 + 127) / 128];
        const size_t below = c == 3 ? 16 : besom_class_bytes[c - 1]; /* class 2 is for layouts */
        if (!(c != 2 && besom_class_bytes[c] >= n && (c == 1 || below < n))) {
            CHECK_EQ(n, 0);
            break;
        }
    }
}

/* Every slot that the fast path hands out has the size that the library has for it: constant and variable. */
static void classes_agree_with_the_library(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    size_t n;
#define CONSTANT(n) CHECK_EQ(besom_size(heap, besom_alloc(m, (n), BESOM_VALUES)), expected(n))
#define expected(n)                                                                                                    \
    besom_class_bytes[(n) <= 1024 ? besom_class_by_8[((n) + 7) / 8] : besom_class_by_128[((n) < 1024 ? 0 : (n) - 1024 + 127) / 128]]
    CONSTANT(0);
    CONSTANT(1);
    CONSTANT(16);
    CONSTANT(17);
    CONSTANT(24);
    CONSTANT(25);
    CONSTANT(100);
    CONSTANT(1024);
    CONSTANT(1025);
    CONSTANT(5000);
    CONSTANT(32768);
    for (n = 0; n <= BESOM_SMALL_MAX; n += n < 1100 ? 1 : 61) {
        volatile size_t variable = n;
        void *p = besom_alloc(m, variable, BESOM_CONSERVATIVE);
        NEED(p != NULL);
        if (besom_size(heap, p) != expected(n)) {
            CHECK_EQ(besom_size(heap, p), expected(n));
            CHECK_EQ(n, -1);
            break;
        }
    }
    check_heap_end(heap, m);
}

static void macros_count(void)
{
    struct wide {
        void *a, *b, *c, *d, *e, *f, *g, *h, *i, *j, *k, *l, *m, *n, *o, *p;
    };
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    besom_layout layout = 0;
    CHECK_EQ(BESOM_COUNT(a), 1);
    CHECK_EQ(BESOM_COUNT(a, b, c), 3);
    CHECK_EQ(BESOM_COUNT(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p), 16);
    CHECK_OK(BESOM_LAYOUT(heap, &layout, struct wide, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p));
    CHECK(layout != 0);
    {
        void *v[16] = {NULL};
        struct besom_frame *before = m->frames;
        BESOM_FRAME(m, &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7], &v[8], &v[9], &v[10], &v[11], &v[12],
                    &v[13], &v[14], &v[15]);
        CHECK_EQ(m->frames->count, 16);
        CHECK(m->frames->slots[15] == &v[15] && m->frames->previous == before);
        BESOM_FRAME_END(m);
        CHECK(m->frames == before);
    }
    check_heap_end(heap, m);
}

/* What the library's part of a mutator begins with: none, so that its slow paths name it and abort. */
static union {
    struct besom_mutator inline_part;
    char room[4096];
} nobody;

/* Whether a store over old, with the barrier so, is made inline; else it calls. */
static int is_inline(uint32_t barrier, uint64_t old, int value)
{
    int status = 0;
    pid_t child;
    fflush(NULL);
    child = fork();
    NEED(child >= 0);
    if (child == 0) {
        uint64_t slot = old;
        NEED(freopen("/dev/null", "w", stderr) != NULL);
        nobody.inline_part.barrier = barrier;
        if (value) besom_write_value(&nobody.inline_part, NULL, &slot, 42);
        else besom_write(&nobody.inline_part, NULL, &slot, (void *)42);
        _exit(slot == 42 ? 0 : 1);
    }
    NEED(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) ? WEXITSTATUS(status) == 0 : WTERMSIG(status) == SIGABRT);
    return WIFEXITED(status);
}

static void stores_call_when_they_must(void)
{
    int value;
    for (value = 0; value < 2; value++) {
        CHECK(is_inline(0, 0, value) && is_inline(0, 16, value));
        CHECK(is_inline(1, 0, value) && !is_inline(1, 16, value) && !is_inline(1, (uint64_t)1 << 63, value));
        CHECK(!is_inline(2, 0, value) && !is_inline(2, 16, value));
    }
}

int main(void)
{
    RUN(version_matches);
    RUN(status_names);
    RUN(options_defaults);
    RUN(bad_options_are_refused);
    RUN(class_tables_are_consistent);
    RUN(classes_agree_with_the_library);
    RUN(macros_count);
    RUN(stores_call_when_they_must);
    return check_done();
}
