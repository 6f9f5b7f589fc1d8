/* Heaps as values: several at once, 10,000 one after the other, and nothing stays behind. */
#include "check.h"
#include <dirent.h>

static int entries(const char *directory)
{
    DIR *d = opendir(directory);
    int n = 0;
    NEED(d != NULL);
    while (readdir(d) != NULL) n++;
    closedir(d);
    return n;
}

static void one_life(int i)
{
    besom_mutator *m;
    besom_heap *heap;
    besom_layout layout;
    const uint32_t at = 0;
    static void *root;
    int k;
    NEED(besom_heap_new(NULL, &heap) == BESOM_OK);
    NEED(besom_attach(heap, &m) == BESOM_OK);
    NEED(besom_layout_register(heap, 24, &at, 1, &layout) == BESOM_OK);
    NEED(besom_roots_add(heap, &root, 1, BESOM_VALUES) == BESOM_OK);
    for (k = 0; k < 50; k++) NEED(besom_alloc(m, (size_t)(k * 37), (besom_kind)(k % 4)) != NULL);
    root = besom_new(m, layout);
    NEED(root != NULL && besom_handle_new(m, root) != NULL);
    if (i % 10 == 0) {
        NEED(besom_alloc(m, 1000000, BESOM_NOSCAN) != NULL);
        NEED(besom_collect(m) == BESOM_OK);
    }
    if (i % 10 == 1) NEED(besom_procs_set(heap, 2) == BESOM_OK);
    NEED(besom_detach(m) == BESOM_OK);
    if (i % 10 == 2) {
        NEED(besom_attach(heap, &m) == BESOM_OK);
        NEED(besom_detach(m) == BESOM_OK);
    }
    NEED(besom_heap_free(heap) == BESOM_OK);
    root = NULL;
}

static void ten_thousand_lives(void)
{
    const int lives = check_short() ? 30 : 10000;
    int i, fds, maps, threads;
    size_t resident, space;
    for (i = 0; i < 100 && i < lives; i++) one_life(i); /* thread stacks and the like are there now */
    fds = entries("/proc/self/fd");
    maps = check_lines("/proc/self/maps");
    threads = entries("/proc/self/task");
    resident = check_statm(1);
    space = check_statm(0);
    for (i = 0; i < lives; i++) one_life(i);
    CHECK_LE(entries("/proc/self/fd"), fds);
    CHECK_LE(entries("/proc/self/task"), threads);
    if (!check_short()) { /* valgrind maps as it likes */
        CHECK_LE(check_lines("/proc/self/maps"), maps + 4);
        CHECK_LE(check_statm(1), resident + (512 << 10)); /* 52 bytes a life would show */
        CHECK_LE(check_statm(0), space + (32 << 20)); /* a page a life would show; a thread's stack or two may be kept */
    }
}

static void several_at_once_share_nothing(void)
{
    enum { COUNT = 6 };
    besom_mutator *m[COUNT];
    besom_heap *heaps[COUNT];
    uint64_t *objects[COUNT];
    besom_stats s;
    int i, k;
    for (i = 0; i < COUNT; i++) {
        besom_options o;
        besom_options_init(&o);
        o.scan_native_stacks = 0;
        o.gc_percent = 50 + 50 * (unsigned)i;
        o.procs = (unsigned)i;
        o.tiny = i % 2;
        heaps[i] = check_heap(&o, &m[i]);
        objects[i] = (uint64_t *)besom_alloc(m[i], 64, BESOM_VALUES);
        NEED(objects[i] != NULL && besom_handle_new(m[i], objects[i]) != NULL);
        objects[i][7] = (uint64_t)i << 8 | 1;
    }
    for (k = 0; k < 30000; k++)
        for (i = 0; i < COUNT; i++) NEED(besom_alloc(m[i], (size_t)(k % 700), (besom_kind)(k % 4)) != NULL);
    for (i = 0; i < COUNT; i++) {
        for (k = 0; k < COUNT; k++) CHECK((besom_size(heaps[k], objects[i]) != 0) == (i == k));
        CHECK_EQ(besom_procs(heaps[i]), i);
    }
    for (i = 0; i < COUNT; i += 2) check_heap_end(heaps[i], m[i]); /* the others stay */
    for (i = 1; i < COUNT; i += 2) {
        CHECK_OK(besom_collect(m[i]));
        besom_stats_read(heaps[i], &s);
        CHECK_EQ(s.live_bytes, 64);
        CHECK_EQ(objects[i][7], (uint64_t)i << 8 | 1);
        check_heap_end(heaps[i], m[i]);
    }
}

int main(void)
{
    check_one_arena();
    RUN(several_at_once_share_nothing);
    RUN(ten_thousand_lives);
    return check_done();
}
