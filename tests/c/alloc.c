/* Allocation: sizes from 0 to the impossible, alignment, zeroing, who is what. */
#include "check.h"

static const besom_kind kinds[] = {BESOM_NOSCAN, BESOM_CONSERVATIVE, BESOM_VALUES, BESOM_TRACED};

static size_t align_of(const void *p)
{
    const uintptr_t a = (uintptr_t)p;
    return (size_t)(a & (0 - a));
}

static void every_size_is_aligned_and_zeroed(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    size_t k, n, round;
    /* Round 0 dirties what it gets; after the collection round 1 gets the same memory again. */
    for (round = 0; round < 2; round++) {
        for (k = 0; k < 4; k++) {
            for (n = 0; n <= 70000; n += n < 300 ? 1 : n < 4096 ? 117 : 3331) {
                char *p = (char *)besom_alloc(m, n, kinds[k]);
                NEED(p != NULL);
                if (n >= 16) CHECK(align_of(p) >= 16);
                if (n < 16 && kinds[k] != BESOM_NOSCAN) CHECK(align_of(p) >= 8);
                if (!check_is_zero(p, n)) {
                    CHECK_EQ(n, -1);
                    break;
                }
                if (kinds[k] == BESOM_NOSCAN) memset(p, 0xee, n);
                else memset(p, 0x55, n & ~(size_t)7); /* no address of the heap */
            }
        }
        CHECK_OK(besom_collect(m));
    }
    check_heap_end(heap, m);
}

static void size_zero_is_unique(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    volatile size_t zero = 0;
    size_t k;
    for (k = 0; k < 4; k++) {
        void *a = besom_alloc(m, 0, kinds[k]), *b = besom_alloc(m, zero, kinds[k]);
        void *c = besom_alloc(m, 16, kinds[k]);
        CHECK(a != NULL && b != NULL && a != b && b != c && a != c);
        CHECK(besom_size(heap, a) > 0 && besom_base(heap, b) == b);
    }
    check_heap_end(heap, m);
}

static void impossible_sizes_are_null(void)
{
    static const size_t sizes[] = {SIZE_MAX,           SIZE_MAX - 1,           SIZE_MAX - 4095, SIZE_MAX - 8191,
                                   (size_t)PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1, SIZE_MAX / 2 + 4096,
                                   (size_t)1 << 62,     (size_t)1 << 56,         (size_t)1 << 48, (size_t)1 << 47};
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    size_t i, k;
    for (i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (k = 0; k < 4; k++) CHECK(besom_alloc(m, sizes[i], kinds[k]) == NULL);
    CHECK(besom_alloc(m, 100, BESOM_VALUES) != NULL);
    CHECK(besom_alloc(m, 100000, BESOM_VALUES) != NULL);
    check_heap_end(heap, m);
}

static int by_address(const void *a, const void *b)
{
    const uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
    return x < y ? -1 : x > y;
}

static void objects_do_not_overlap(void)
{
    enum { COUNT = 20000 };
    static struct { uintptr_t start, bytes; } all[COUNT];
    besom_options o;
    besom_mutator *m;
    besom_heap *heap;
    uint32_t random = 1;
    int i;
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    o.gc_percent = 0; /* nothing is freed */
    heap = check_heap(&o, &m);
    for (i = 0; i < COUNT; i++) {
        random = random * 1664525u + 1013904223u;
        all[i].bytes = 1 + (random >> 16) % (i % 100 == 0 ? 50000 : i % 2 ? 15 : 400);
        all[i].start = (uintptr_t)besom_alloc(m, all[i].bytes, kinds[(random >> 8) & 3]);
        NEED(all[i].start != 0);
    }
    qsort(all, COUNT, sizeof all[0], by_address);
    for (i = 1; i < COUNT; i++)
        if (all[i - 1].start + all[i - 1].bytes > all[i].start) {
            CHECK_EQ(i, -1);
            break;
        }
    check_heap_end(heap, m);
}

static void tiny_objects_share_blocks(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    besom_stats before, after;
    size_t n, shared = 0;
    char *last;
    besom_stats_read(heap, &before);
    for (n = 1; n < 16; n++) {
        int i;
        const size_t align = n % 8 == 0 ? 8 : n % 4 == 0 ? 4 : n % 2 == 0 ? 2 : 1;
        for (i = 0; i < 1000; i++) {
            char *p = (char *)besom_alloc(m, n, BESOM_NOSCAN);
            NEED(p != NULL);
            if (((uintptr_t)p & (align - 1)) != 0 || !check_is_zero(p, n)) CHECK_EQ(n, -1);
            memset(p, 0xff, n);
            CHECK(((uintptr_t)p & 15) + n <= 16);
            shared += ((uintptr_t)p & 15) != 0;
            if (((uintptr_t)p & 15) != 0) CHECK(besom_size(heap, p) == 0 && besom_base(heap, p) == (void *)((uintptr_t)p & ~(uintptr_t)15));
        }
    }
    CHECK(check_watched() ? shared == 0 : shared > 5000);
    CHECK_OK(besom_collect(m)); /* settles the counts */
    besom_stats_read(heap, &after);
    CHECK_EQ(after.tiny_allocs - before.tiny_allocs, shared);
    CHECK_EQ(after.alloc_count - before.alloc_count, 15000);
    /* A reachable one keeps its block. */
    last = (char *)besom_alloc(m, 3, BESOM_NOSCAN);
    last[0] = 'x';
    {
        BESOM_FRAME(m, &last);
        CHECK_OK(besom_collect(m));
        BESOM_FRAME_END(m);
    }
    CHECK(last[0] == 'x' && besom_base(heap, last) != NULL);
    CHECK_OK(besom_collect(m));
    CHECK(besom_base(heap, last) == NULL);
    check_heap_end(heap, m);
}

static void tiny_can_be_off(void)
{
    besom_options o;
    besom_mutator *m;
    besom_heap *heap;
    besom_stats stats;
    size_t n;
    besom_options_init(&o);
    o.tiny = 0;
    heap = check_heap(&o, &m);
    for (n = 0; n < 16; n++) {
        void *p = besom_alloc(m, n, BESOM_NOSCAN), *q = besom_alloc(m, n, BESOM_NOSCAN);
        CHECK(besom_size(heap, p) == 16 && besom_size(heap, q) == 16 && p != q);
    }
    CHECK_OK(besom_collect(m));
    besom_stats_read(heap, &stats);
    CHECK_EQ(stats.tiny_allocs, 0);
    check_heap_end(heap, m);
}

static void size_and_base(void)
{
    static const size_t sizes[] = {16, 24, 100, 1000, 8192, 32768, 32769, 1000000, 9000000};
    static char global[64];
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m), *other;
    besom_mutator *m2;
    char local[64], *c = (char *)malloc(64);
    size_t i;
    for (i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *p = (char *)besom_alloc(m, sizes[i], BESOM_NOSCAN);
        size_t size;
        NEED(p != NULL);
        size = besom_size(heap, p);
        CHECK(size >= sizes[i] && size <= sizes[i] + sizes[i] / 8 + 8192);
        CHECK(besom_base(heap, p) == p && besom_base(heap, p + 1) == p);
        CHECK(besom_base(heap, p + sizes[i] - 1) == p && besom_base(heap, p + size - 1) == p);
        CHECK(besom_base(heap, p + (size <= 32768 ? size : (size + 8191) / 8192 * 8192)) != p);
        CHECK(besom_size(heap, p + 8) == 0 && besom_size(heap, p + 1) == 0);
        {
            BESOM_FRAME(m, &p);
            CHECK_OK(besom_collect(m));
            BESOM_FRAME_END(m);
        }
        CHECK_EQ(besom_size(heap, p), size);
        CHECK_OK(besom_collect(m));
        CHECK(besom_size(heap, p) == 0 && besom_base(heap, p) == NULL && besom_base(heap, p + 9) == NULL);
    }
    CHECK(besom_size(heap, NULL) == 0 && besom_base(heap, NULL) == NULL);
    CHECK(besom_size(heap, local) == 0 && besom_base(heap, local) == NULL);
    CHECK(besom_size(heap, global) == 0 && besom_base(heap, global) == NULL);
    CHECK(besom_size(heap, c) == 0 && besom_base(heap, c) == NULL);
    CHECK(besom_size(heap, (void *)UINTPTR_MAX) == 0 && besom_base(heap, (void *)UINTPTR_MAX) == NULL);
    CHECK(besom_size(heap, (void *)8) == 0 && besom_base(heap, (void *)8) == NULL);
    /* Another heap's object is none of this one. */
    other = check_heap(NULL, &m2);
    {
        void *p = besom_alloc(m2, 48, BESOM_VALUES);
        CHECK(besom_size(other, p) == 48 && besom_size(heap, p) == 0 && besom_base(heap, p) == NULL);
    }
    check_heap_end(other, m2);
    free(c);
    check_heap_end(heap, m);
}

/* A slot that no allocation has handed out yet is no object, though it lies in a used span. */
static void unallocated_slots_are_no_objects(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    char *p = (char *)besom_alloc(m, 64, BESOM_VALUES);
    CHECK_EQ(besom_size(heap, p), 64);
    CHECK(besom_size(heap, p + 64) == 0 && besom_base(heap, p + 70) == NULL);
    CHECK(besom_alloc(m, 64, BESOM_VALUES) == (void *)(p + 64)); /* the run goes on */
    CHECK_EQ(besom_size(heap, p + 64), 64);
    check_heap_end(heap, m);
}

/* A long list in each kind that holds pointers stays whole through many cycles. */
static void lists_survive_churn(void)
{
    enum { LENGTH = 50000 };
    struct node {
        struct node *next;
        uint64_t number;
    };
    static const besom_kind with_pointers[] = {BESOM_CONSERVATIVE, BESOM_VALUES};
    const int length = check_short() ? LENGTH / 10 : LENGTH;
    size_t k;
    for (k = 0; k < 2; k++) {
        besom_mutator *m;
        besom_heap *heap = check_heap(NULL, &m);
        struct node *head = NULL, *p;
        besom_stats stats;
        int i;
        BESOM_FRAME(m, &head);
        for (i = 0; i < length; i++) {
            int j;
            p = (struct node *)besom_alloc(m, sizeof *p, with_pointers[k]);
            NEED(p != NULL);
            besom_write(m, p, &p->next, head);
            p->number = (uint64_t)i;
            head = p;
            for (j = 0; j < 10; j++) /* garbage between */
                memset(besom_alloc(m, 16 + (size_t)(i + j) % 100, BESOM_NOSCAN), 0xff, 16);
        }
        CHECK_OK(besom_collect(m));
        for (p = head, i = length - 1; p != NULL; p = p->next, i--)
            if (p->number != (uint64_t)i) break;
        CHECK_EQ(i, -1);
        BESOM_FRAME_END(m);
        besom_stats_read(heap, &stats);
        if (!check_short()) CHECK(stats.cycles >= 3);
        check_heap_end(heap, m);
    }
}

int main(void)
{
    RUN(every_size_is_aligned_and_zeroed);
    RUN(size_zero_is_unique);
    RUN(impossible_sizes_are_null);
    RUN(objects_do_not_overlap);
    RUN(tiny_objects_share_blocks);
    RUN(tiny_can_be_off);
    RUN(size_and_base);
    RUN(unallocated_slots_are_no_objects);
    RUN(lists_survive_churn);
    return check_done();
}
