/* Nothing here is wrong, and no memory checker may report anything: objects of all sorts, on several heaps and threads,
 * through cycles, walks, stores that are checked, limits, memory given back; and addresses that were a heap's. */
#include "../check.h"
#include <sys/mman.h>

enum { KEPT = 200 };

typedef struct pair {
    void *head, *tail;
    uint64_t mark;
} pair;

typedef struct vm {
    besom_heap *heap;
    besom_mutator *m;
    besom_layout pairs;
    void *kept[KEPT];
    uint32_t seed;
} vm;

static uint32_t next(vm *v)
{
    v->seed = v->seed * 1664525u + 1013904223u;
    return v->seed >> 8;
}

/* An object of some sort, of which every byte that is its own is read and written. */
static void *make(vm *v)
{
    static const size_t sizes[] = {0, 1, 3, 8, 12, 15, 16, 24, 40, 100, 500, 1024, 3000, 20000, 32768, 32769, 100000, 300000};
    const size_t n = sizes[next(v) % (sizeof sizes / sizeof *sizes)];
    unsigned char *p;
    size_t i, bytes = n;
    switch (next(v) % 6) {
    case 0: p = (unsigned char *)besom_new(v->m, v->pairs), bytes = sizeof(pair); break;
    case 1: p = (unsigned char *)besom_new_array(v->m, v->pairs, n / sizeof(pair)), bytes = n / sizeof(pair) * sizeof(pair); break;
    case 2: p = (unsigned char *)besom_alloc(v->m, n, BESOM_NOSCAN); break;
    case 3: p = (unsigned char *)besom_alloc(v->m, n, BESOM_CONSERVATIVE); break;
    case 4: p = (unsigned char *)besom_alloc(v->m, n, BESOM_TRACED); break;
    default: p = (unsigned char *)besom_alloc(v->m, n, BESOM_VALUES); break;
    }
    NEED(p != NULL);
    i = besom_size(v->heap, p);
    CHECK(i >= bytes);
    bytes = i;
    for (i = 0; i < bytes; i++) {
        if (p[i] != 0) break;
    }
    CHECK_EQ(i, bytes);
    memset(p, 1, bytes); /* No address of an object. */
    memset(p, 0, bytes);
    if (bytes >= 8) besom_write(v->m, p, p, v->kept[next(v) % KEPT]);
    return p;
}

static void trace(besom_tracer *tracer, void *object, void *data)
{
    (void)data;
    besom_trace_range(tracer, object, 1, BESOM_CONSERVATIVE);
}

static int visit(void *object, size_t bytes, besom_kind kind, void *data)
{
    size_t i;
    (void)kind;
    for (i = 0; i < bytes; i++) *(uint64_t *)data += ((const unsigned char *)object)[i];
    return 0;
}

static void *work(void *argument)
{
    vm *v = (vm *)argument;
    uint64_t sum = 0;
    int i;
    NEED(besom_attach(v->heap, &v->m) == BESOM_OK);
    CHECK_OK(besom_roots_add(v->heap, v->kept, KEPT, BESOM_CONSERVATIVE));
    for (i = 0; i < (check_short() ? 1500 : 6000); i++) {
        void *made = make(v);
        besom_write(v->m, NULL, &v->kept[next(v) % KEPT], made);
        if (i % 7 == 0) besom_write(v->m, NULL, &v->kept[next(v) % KEPT], NULL);
        if (i % 300 == 0) CHECK_OK(besom_collect(v->m));
        if (i % 500 == 0) CHECK_EQ(besom_walk(v->m, visit, &sum), 0);
        if (i % 400 == 0) besom_release_memory(v->heap);
        if (i % 100 == 0) {
            besom_block(v->m);
            check_sleep_ms(1);
            besom_unblock(v->m);
        }
    }
    CHECK_OK(besom_roots_remove(v->heap, v->kept));
    CHECK_OK(besom_detach(v->m));
    return NULL;
}

static void several_threads_on_several_heaps(void)
{
    enum { THREADS = 4 };
    static vm vms[THREADS];
    besom_options options;
    pthread_t threads[THREADS];
    int i;
    memset(vms, 0, sizeof vms);
    besom_options_init(&options);
    options.trace = trace;
    for (i = 0; i < THREADS; i++) {
        options.verify = i == 0 ? BESOM_VERIFY_BOTH : BESOM_VERIFY_OFF;
        options.clobber_free = i == 0;
        options.scan_native_stacks = i < 2;
        vms[i].seed = (uint32_t)i;
        if (i % 2 != 0) {
            vms[i].heap = vms[i - 1].heap, vms[i].pairs = vms[i - 1].pairs;
            continue;
        }
        NEED(besom_heap_new(&options, &vms[i].heap) == BESOM_OK);
        NEED(BESOM_LAYOUT(vms[i].heap, &vms[i].pairs, pair, head, tail) == BESOM_OK);
    }
    for (i = 0; i < THREADS; i++) NEED(pthread_create(&threads[i], NULL, work, &vms[i]) == 0);
    for (i = 0; i < THREADS; i++) NEED(pthread_join(threads[i], NULL) == 0);
    for (i = 0; i < THREADS; i += 2) CHECK_OK(besom_heap_free(vms[i].heap));
}

/* A look at a native stack reads words that were never written; what it keeps is as good as ever. */
static int __attribute__((noinline)) deep(besom_mutator *m, int depth)
{
    volatile uint64_t never_written[8];
    uint64_t *p = (uint64_t *)besom_alloc(m, 64, BESOM_NOSCAN);
    int sum = depth == 0 ? 0 : deep(m, depth - 1);
    if (depth == 0) {
        never_written[0] = 0;
        sum += (int)never_written[0];
        CHECK_OK(besom_collect(m));
        besom_block(m);
        besom_unblock(m);
    }
    p[7] = 1;
    return sum + (int)p[7];
}

static void locals_on_a_native_stack(void)
{
    besom_options options;
    besom_heap *heap;
    besom_mutator *m;
    int i;
    besom_options_init(&options);
    heap = check_heap(&options, &m);
    for (i = 0; i < 3; i++) CHECK_EQ(deep(m, 50), 51);
    check_heap_end(heap, m);
}

/* What comes back late does come back. */
static void limits(void)
{
    besom_options options;
    besom_mutator *m;
    besom_heap *heap;
    int i;
    besom_options_init(&options);
    options.scan_native_stacks = 0;
    options.heap_limit = 8 << 20;
    heap = check_heap(&options, &m);
    for (i = 0; i < 100; i++) {
        char *p = (char *)besom_alloc(m, 3 << 20, BESOM_NOSCAN);
        NEED(p != NULL);
        p[(3 << 20) - 1] = 1;
        p = (char *)besom_alloc(m, 1000, BESOM_NOSCAN);
        NEED(p != NULL);
        p[999] = 1;
    }
    check_heap_end(heap, m);
    options.heap_limit = 0;
    options.memory_limit = 8 << 20;
    options.mode = BESOM_STOP_THE_WORLD; /* a collector beside the program may be starved, and the soft limit passed */
    heap = check_heap(&options, &m);
    for (i = 0; i < 5; i++) {
        NEED(besom_alloc(m, 6 << 20, BESOM_NOSCAN) != NULL);
        CHECK_OK(besom_collect(m));
    }
    for (i = 0; i < 20000; i++) {
        char *p = (char *)besom_alloc(m, 5000, BESOM_NOSCAN);
        NEED(p != NULL);
        p[4999] = 1;
    }
    {
        besom_stats stats;
        besom_stats_read(heap, &stats);
        CHECK_LE(stats.peak_footprint, 10 << 20);
    }
    CHECK_OK(besom_collect(m));
    CHECK_EQ(besom_size(heap, heap), 0);
    CHECK(besom_release_memory(heap) > 0);
    check_heap_end(heap, m);
}

/* What was a heap's is anybody's after its end. */
static void addresses_that_were_a_heaps(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    char *object = (char *)besom_alloc(m, 100000, BESOM_NOSCAN), *again;
    NEED(object != NULL);
    CHECK_OK(besom_collect(m));
    check_heap_end(heap, m);
    again = (char *)mmap(object, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    NEED(again == object);
    again[4095] = again[0] + 1;
    CHECK_EQ(again[4095], 1);
    CHECK_EQ(munmap(again, 4096), 0);
}

int main(void)
{
    RUN(several_threads_on_several_heaps);
    RUN(locals_on_a_native_stack);
    RUN(limits);
    RUN(addresses_that_were_a_heaps);
    return check_done();
}
