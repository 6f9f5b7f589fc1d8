/* Memory: the hard and the soft limit, pacing, giving memory back, what an idle and a full heap cost. */
#include "check.h"

static const size_t MIB = (size_t)1 << 20;

typedef struct node {
    struct node *next;
    char rest[1008];
} node;

/* Prepends to *head until the heap says no; the count. */
static long fill(besom_mutator *m, node **head)
{
    long count = 0;
    node *n;
    while ((n = (node *)besom_alloc(m, sizeof *n, BESOM_VALUES)) != NULL) {
        besom_write(m, n, &n->next, *head);
        *head = n;
        count++;
        if (count > 1000000) break;
    }
    return count;
}

static void the_hard_limit_is_null_and_passes(void)
{
    besom_options o;
    besom_mutator *m;
    besom_heap *heap;
    besom_stats stats;
    node *head = NULL;
    long first, second;
    besom_handle *handle;
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    o.heap_limit = 32 * MIB;
    heap = check_heap(&o, &m);
    {
        BESOM_FRAME(m, &head);
        first = fill(m, &head);
        CHECK(first > 16 * 1024 && first <= 32 * 1024); /* of about 1 KiB each */
        besom_stats_read(heap, &stats);
        CHECK_LE(stats.committed, 32 * MIB);
        CHECK(besom_alloc(m, 1000, BESOM_VALUES) == NULL); /* still */
        CHECK(besom_alloc(m, 5 * MIB, BESOM_NOSCAN) == NULL);
        handle = besom_handle_new(m, head); /* needs no heap page */
        CHECK(handle != NULL);
        besom_handle_free(heap, handle);
        head = NULL;
        CHECK(besom_alloc(m, 5 * MIB, BESOM_NOSCAN) != NULL); /* collects, then fits */
        second = fill(m, &head);
        CHECK(second > 100 && second <= first + 64);
        head = NULL;
        CHECK_OK(besom_collect(m));
        CHECK(besom_alloc(m, 64 * MIB, BESOM_NOSCAN) == NULL); /* never fits */
        second = fill(m, &head);
        CHECK(second * 10 > first * 7); /* the heap is as good as new */
        BESOM_FRAME_END(m);
    }
    besom_stats_read(heap, &stats);
    CHECK_LE(stats.committed, 32 * MIB);
    check_heap_end(heap, m);
}

typedef struct cache {
    node *head;
    int asked, gives;
    size_t bytes;
    besom_heap *heap;
} cache;

static int drop_cache(besom_heap *heap, size_t bytes, void *data)
{
    cache *c = (cache *)data;
    c->asked++;
    c->bytes = bytes;
    c->heap = heap;
    if (c->gives == 0) return 0;
    c->gives--;
    c->head = NULL;
    return 1;
}

static void out_of_memory_is_asked(void)
{
    besom_options o;
    besom_mutator *m;
    besom_heap *heap;
    cache c = {NULL, 0, 0, 0, NULL};
    void *p;
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    o.heap_limit = 16 * MIB;
    o.out_of_memory = drop_cache;
    o.data = &c;
    heap = check_heap(&o, &m);
    BESOM_FRAME(m, &c.head);
    CHECK(fill(m, &c.head) > 8000);
    CHECK_EQ(c.asked, 1); /* it said no: at the first refusal the loop ended */
    CHECK(c.heap == heap && c.bytes >= sizeof(node));
    c.gives = 1;
    p = besom_alloc(m, 3 * MIB, BESOM_NOSCAN);
    CHECK(p != NULL && c.asked == 2 && c.bytes >= 3 * MIB && c.head == NULL);
    CHECK(besom_alloc(m, 100 * MIB, BESOM_NOSCAN) == NULL);
    CHECK_EQ(c.asked, 2); /* nothing that anybody frees could make room for it */
    c.gives = 3; /* asked again while it says that it freed something, but not for ever */
    {
        BESOM_FRAME(m, &p);
        CHECK(besom_alloc(m, 14 * MIB, BESOM_NOSCAN) == NULL);
        BESOM_FRAME_END(m);
    }
    CHECK_EQ(c.asked, 6);
    BESOM_FRAME_END(m);
    check_heap_end(heap, m);
}

static void tiny_limits_fail_softly(void)
{
    static const size_t limits[] = {1, 4096, 8192, 65536, 1 << 20, 4 << 20};
    size_t i;
    for (i = 0; i < sizeof limits / sizeof *limits; i++) {
        besom_options o;
        besom_heap *heap = NULL;
        besom_mutator *m = NULL;
        besom_status status;
        besom_options_init(&o);
        o.heap_limit = limits[i];
        status = besom_heap_new(&o, &heap);
        CHECK(status == BESOM_OK || status == BESOM_ERR_NO_MEMORY);
        if (status != BESOM_OK) continue;
        status = besom_attach(heap, &m);
        CHECK(status == BESOM_OK || status == BESOM_ERR_NO_MEMORY);
        if (status == BESOM_OK) {
            size_t got = 0;
            while (got < 8 * MIB && besom_alloc(m, 1000, BESOM_NOSCAN) != NULL) got += 1000; /* all garbage */
            CHECK_OK(besom_collect(m));
            CHECK_OK(besom_detach(m));
        }
        CHECK_OK(besom_heap_free(heap));
    }
}

/* For what is asked of a soft limit. Memcheck runs one thread at a time, so a collector beside the program may get no turn for
 * long, and the limit is passed or cycles come late; there the world is stopped. */
static void options_for_a_soft_limit(besom_options *o)
{
    besom_options_init(o);
    o->scan_native_stacks = 0;
    if (check_watched()) o->mode = BESOM_STOP_THE_WORLD;
}

static void the_soft_limit_holds_by_collecting(void)
{
    besom_options o;
    besom_mutator *m;
    besom_heap *heap;
    besom_stats stats;
    node *head = NULL;
    long i;
    options_for_a_soft_limit(&o);
    o.gc_percent = 10000; /* would let it grow to 100 times the live bytes */
    o.memory_limit = 48 * MIB;
    heap = check_heap(&o, &m);
    BESOM_FRAME(m, &head);
    /* 8 MiB live; less where a checker slows everything down and runs one thread at a time: to mark 8 MiB for each 15 that
     * are allocated would take more than half of the processor there, and the collector then passes the limit instead. */
    for (i = 0; i < (check_short() ? 2 : 8) * 1024; i++) {
        node *n = (node *)besom_alloc(m, sizeof *n, BESOM_VALUES);
        NEED(n != NULL);
        besom_write(m, n, &n->next, head);
        head = n;
    }
    for (i = 0; i < (check_short() ? 64 : 512) * 1024; i++) NEED(besom_alloc(m, 1000, BESOM_VALUES) != NULL);
    besom_stats_read(heap, &stats);
    CHECK(stats.cycles > 0);
    CHECK_LE(stats.peak_footprint, 48 * MIB * 105 / 100);
    besom_memory_limit_set(heap, 24 * MIB);
    for (i = 0; i < 256 * 1024; i++) NEED(besom_alloc(m, 1000, BESOM_VALUES) != NULL);
    besom_stats_read(heap, &stats);
    CHECK_LE(stats.committed + stats.in_metadata, 24 * MIB * 12 / 10);
    /* Soft: what is live may pass it. */
    besom_memory_limit_set(heap, 4 * MIB);
    for (i = 0; i < 1000; i++) {
        node *n = (node *)besom_alloc(m, sizeof *n, BESOM_VALUES);
        NEED(n != NULL);
        besom_write(m, n, &n->next, head);
        head = n;
    }
    BESOM_FRAME_END(m);
    check_heap_end(heap, m);
}

static void churn(besom_mutator *m, size_t mib)
{
    size_t i;
    for (i = 0; i < mib * 1024; i++) NEED(besom_alloc(m, 1000, BESOM_NOSCAN) != NULL);
}

static void gc_percent_paces(void)
{
    besom_options o;
    besom_mutator *m;
    besom_heap *heap;
    besom_stats a, b;
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    o.gc_percent = 0;
    heap = check_heap(&o, &m);
    churn(m, 64);
    besom_stats_read(heap, &a);
    CHECK_EQ(a.cycles, 0);
    CHECK(a.next_goal == UINT64_MAX);
    CHECK(a.in_heap >= (int64_t)(60 * MIB));
    besom_gc_percent_set(heap, 100);
    churn(m, 64);
    besom_stats_read(heap, &a);
    CHECK(a.cycles >= 1 && a.forced_cycles == 0 && a.next_goal < 64 * MIB);
    churn(m, 64);
    besom_stats_read(heap, &b);
    besom_gc_percent_set(heap, 1000);
    churn(m, 64); /* up to the larger goal */
    besom_stats_read(heap, &a);
    CHECK_OK(besom_collect(m));
    churn(m, 256);
    besom_stats_read(heap, &b);
    /* A minimum of 4 MiB * 10 between two, of which a cycle beside the program may begin when 0.7 are allocated. */
    CHECK_LE(b.cycles - a.cycles, 256 / (check_concurrent() ? 28 : 40) + 2);
    besom_gc_percent_set(heap, 0);
    besom_stats_read(heap, &a);
    churn(m, 32);
    besom_stats_read(heap, &b);
    CHECK_LE(b.cycles - a.cycles, 1);
    check_heap_end(heap, m);
}

/* A soft limit that cannot be kept makes for many cycles, not for one at each allocation; 0 takes it away. */
static void a_soft_limit_may_be_below_what_is_live(void)
{
    besom_options o;
    besom_mutator *m;
    besom_heap *heap;
    const size_t mib = check_short() ? 16 : 128;
    besom_stats a, b;
    uint64_t unlimited;
    node *head = NULL, *n;
    long i, count = 0;
    options_for_a_soft_limit(&o);
    heap = check_heap(&o, &m);
    BESOM_FRAME(m, &head);
    for (i = 0; i < 1024; i++) {
        n = (node *)besom_alloc(m, sizeof *n, BESOM_VALUES);
        NEED(n != NULL);
        besom_write(m, n, &n->next, head);
        head = n;
    }
    besom_stats_read(heap, &a);
    churn(m, mib);
    besom_stats_read(heap, &b);
    unlimited = b.cycles - a.cycles;
    besom_memory_limit_set(heap, 1);
    besom_stats_read(heap, &a);
    churn(m, mib);
    besom_stats_read(heap, &b);
    CHECK(b.cycles - a.cycles > 3 * unlimited);
    CHECK_LE(b.cycles - a.cycles, (mib << 20) / 1000 / 100);
    besom_memory_limit_set(heap, 0);
    CHECK_OK(besom_collect(m));
    besom_stats_read(heap, &a);
    churn(m, mib);
    besom_stats_read(heap, &b);
    CHECK_LE(b.cycles - a.cycles, unlimited + unlimited / 2 + 3);
    for (n = head; n != NULL; n = n->next) count++;
    CHECK_EQ(count, 1024);
    BESOM_FRAME_END(m);
    check_heap_end(heap, m);
}

static void free_memory_leaves_the_resident_set(void)
{
    besom_options o;
    besom_mutator *m;
    besom_heap *heap;
    besom_stats stats;
    char *p, *small = NULL;
    size_t before, full, after, released;
    int i;
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    o.gc_percent = 0;
    heap = check_heap(&o, &m);
    before = check_statm(1);
    p = (char *)besom_alloc(m, 64 * MIB, BESOM_NOSCAN);
    NEED(p != NULL);
    memset(p, 1, 64 * MIB);
    for (i = 0; i < 32 * 1024; i++) { /* 32 MiB of small ones */
        small = (char *)besom_alloc(m, 1024, BESOM_NOSCAN);
        NEED(small != NULL);
        memset(small, 1, 1024);
    }
    full = check_statm(1);
    CHECK(full > before + 90 * MIB);
    CHECK_OK(besom_collect(m));
    released = besom_release_memory(heap);
    after = check_statm(1);
    besom_stats_read(heap, &stats);
    CHECK(released >= 90 * MIB || stats.released >= (int64_t)(90 * MIB));
    CHECK_LE(after, before + 4 * MIB);
    CHECK_LE(stats.committed, 4 * MIB);
    CHECK_LE(besom_release_memory(heap), MIB); /* there is no more */
    /* And it comes back, zeroed. */
    p = (char *)besom_alloc(m, 64 * MIB, BESOM_NOSCAN);
    NEED(p != NULL);
    CHECK(check_is_zero(p, 64 * MIB));
    p = (char *)besom_alloc(m, 1024, BESOM_NOSCAN);
    CHECK(p != NULL && check_is_zero(p, 1024));
    check_heap_end(heap, m);
    CHECK_LE(check_statm(1), before + 4 * MIB);
}

static void free_memory_goes_back_by_itself(void)
{
    besom_options o;
    besom_mutator *m;
    besom_heap *heap;
    besom_stats stats;
    size_t before, full;
    long i, waited;
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    heap = check_heap(&o, &m);
    besom_gc_percent_set(heap, 0); /* up to the peak */
    before = check_statm(1);
    for (i = 0; i < 64 * 1024; i++) {
        char *p = (char *)besom_alloc(m, 1024, BESOM_NOSCAN);
        NEED(p != NULL);
        memset(p, 1, 1024);
    }
    full = check_statm(1);
    CHECK(full > before + 60 * MIB);
    besom_gc_percent_set(heap, 100);
    CHECK_OK(besom_collect(m));
    besom_block(m);
    for (waited = 0; waited < 30000 && check_statm(1) > before + 16 * MIB; waited += 10) check_sleep_ms(10);
    besom_unblock(m);
    CHECK_LE(check_statm(1), before + 16 * MIB);
    besom_stats_read(heap, &stats);
    CHECK(stats.released >= (int64_t)(48 * MIB));
    CHECK_EQ(stats.committed + stats.released, stats.mapped);
    check_heap_end(heap, m);
}

static void an_idle_heap_is_small(void)
{
    enum { COUNT = 8 };
    besom_mutator *m[COUNT];
    besom_heap *heaps[COUNT];
    size_t before;
    int i;
    heaps[0] = check_heap(NULL, &m[0]); /* what is paid once */
    check_heap_end(heaps[0], m[0]);
    before = check_statm(1);
    for (i = 0; i < COUNT; i++) {
        heaps[i] = check_heap(NULL, &m[i]);
        CHECK(besom_alloc(m[i], 100, BESOM_VALUES) != NULL);
    }
    CHECK_LE(check_statm(1), before + COUNT * MIB);
    for (i = 0; i < COUNT; i++) check_heap_end(heaps[i], m[i]);
}

/* 64 MiB of objects of 32 bytes: the tables beside them cost at most 5 %. */
static void metadata_is_small(void)
{
    struct pair {
        struct pair *next;
        uint64_t more[3];
    };
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    struct pair *head = NULL;
    const long count = (long)((check_short() ? 16 : 64) * MIB / sizeof(struct pair));
    besom_stats stats;
    size_t before = check_statm(1), after;
    long i;
    BESOM_FRAME(m, &head);
    for (i = 0; i < count; i++) {
        struct pair *p = (struct pair *)besom_alloc(m, sizeof *p, BESOM_VALUES);
        NEED(p != NULL);
        besom_write(m, p, &p->next, head);
        head = p;
    }
    CHECK_OK(besom_collect(m)); /* the mark bits are there, too */
    after = check_statm(1);
    besom_stats_read(heap, &stats);
    CHECK(stats.in_metadata > 0);
    CHECK_LE(stats.in_metadata, count * 32 / 20);
    CHECK_LE(after - before, count * 32 * 108 / 100 + (long)MIB);
    BESOM_FRAME_END(m);
    check_heap_end(heap, m);
}

int main(void)
{
    RUN(the_hard_limit_is_null_and_passes);
    RUN(out_of_memory_is_asked);
    RUN(tiny_limits_fail_softly);
    RUN(the_soft_limit_holds_by_collecting);
    RUN(gc_percent_paces);
    RUN(a_soft_limit_may_be_below_what_is_live);
    if (!check_short()) { /* under valgrind the resident set is its own */
        RUN(free_memory_leaves_the_resident_set);
        RUN(free_memory_goes_back_by_itself);
        RUN(an_idle_heap_is_small);
        RUN(metadata_is_small);
    }
    return check_done();
}
