/* Registered layouts: exact scanning, every way to be refused, more of them than have memory of their own. */
#include "check.h"

#define ALIVE(p) (besom_size(heap, (p)) != 0)

typedef struct mixed {
    uint64_t number;
    void *left;
    uint64_t looks_like_a_pointer;
    void *right;
} mixed;

static void only_the_fields_are_edges(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    besom_layout layout, leaf;
    mixed *o = NULL;
    void *left, *right, *other;
    CHECK_OK(BESOM_LAYOUT(heap, &layout, mixed, left, right));
    CHECK_OK(besom_layout_register(heap, 40, NULL, 0, &leaf));
    CHECK(layout != leaf);
    o = (mixed *)besom_new(m, layout);
    NEED(o != NULL);
    CHECK(check_is_zero(o, sizeof *o) && besom_size(heap, o) >= sizeof *o);
    BESOM_FRAME(m, &o);
    left = besom_new(m, leaf);
    right = besom_new(m, leaf);
    other = besom_new(m, leaf);
    besom_write(m, o, &o->left, left);
    besom_write(m, o, &o->right, right);
    o->looks_like_a_pointer = (uint64_t)(uintptr_t)other;
    o->number = (uint64_t)(uintptr_t)other;
    CHECK_OK(besom_collect(m));
    CHECK(ALIVE(o) && ALIVE(left) && ALIVE(right) && !ALIVE(other));
    besom_write(m, o, &o->left, NULL);
    CHECK_OK(besom_collect(m));
    CHECK(!ALIVE(left) && ALIVE(right));
    BESOM_FRAME_END(m);
    CHECK_OK(besom_collect(m));
    CHECK(!ALIVE(o) && !ALIVE(right));
    check_heap_end(heap, m);
}

static void bad_layouts_are_refused(void)
{
    static const uint32_t at_0[] = {0}, at_4[] = {4}, at_16[] = {16}, at_9[] = {0, 8, 9}, wrap[] = {UINT32_MAX},
                          near_wrap[] = {UINT32_MAX - 7};
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    besom_layout layout = 4711;
    CHECK_EQ(besom_layout_register(heap, 0, NULL, 0, &layout), BESOM_ERR_INVALID);
    CHECK_EQ(besom_layout_register(heap, 0, at_0, 1, &layout), BESOM_ERR_INVALID);
    CHECK_EQ(besom_layout_register(heap, 16, at_4, 1, &layout), BESOM_ERR_INVALID);
    CHECK_EQ(besom_layout_register(heap, 16, at_16, 1, &layout), BESOM_ERR_INVALID);
    CHECK_EQ(besom_layout_register(heap, 32, at_9, 3, &layout), BESOM_ERR_INVALID);
    CHECK_EQ(besom_layout_register(heap, 4, at_0, 1, &layout), BESOM_ERR_INVALID);
    CHECK_EQ(besom_layout_register(heap, 12, at_0, 1, &layout), BESOM_ERR_INVALID);
    CHECK_EQ(besom_layout_register(heap, 32, wrap, 1, &layout), BESOM_ERR_INVALID);
    CHECK_EQ(besom_layout_register(heap, 32, near_wrap, 1, &layout), BESOM_ERR_INVALID);
    CHECK_EQ(besom_layout_register(heap, 32, NULL, 1, &layout), BESOM_ERR_INVALID);
    CHECK_EQ(besom_layout_register(heap, 32, at_0, 1, NULL), BESOM_ERR_INVALID);
    CHECK_EQ(besom_layout_register(heap, SIZE_MAX, at_0, 1, &layout), BESOM_ERR_INVALID);
    CHECK_EQ(besom_layout_register(heap, (size_t)UINT32_MAX + 1, NULL, 0, &layout), BESOM_ERR_INVALID);
    CHECK_EQ(layout, 4711);
    CHECK_OK(besom_layout_register(heap, 8, at_0, 1, &layout));
    CHECK(layout != 4711);
    check_heap_end(heap, m);
}

/* Every size class, with the only pointer in the last word. */
static void every_size(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    size_t bytes;
    for (bytes = 8; bytes <= 200000; bytes += bytes < 512 ? 8 : bytes / 7 / 8 * 8) {
        const uint32_t at = (uint32_t)bytes - 8;
        besom_layout layout;
        char *a, *b, *c;
        CHECK_OK(besom_layout_register(heap, bytes, &at, 1, &layout));
        a = (char *)besom_new(m, layout);
        BESOM_FRAME(m, &a);
        b = (char *)besom_new(m, layout);
        c = (char *)besom_new(m, layout);
        NEED(a != NULL && b != NULL && c != NULL);
        CHECK(check_is_zero(a, bytes) && check_is_zero(b, bytes));
        CHECK(((uintptr_t)b & (bytes >= 16 && (bytes <= 16 || bytes > 24) ? 15 : 7)) == 0);
        if (bytes > 8) memcpy(a, &c, sizeof c); /* no field */
        besom_write(m, a, a + at, b);
        CHECK_OK(besom_collect(m));
        CHECK(ALIVE(a) && ALIVE(b) && !ALIVE(c));
        CHECK(besom_size(heap, a) >= bytes && besom_base(heap, b + bytes - 1) == b);
        BESOM_FRAME_END(m);
    }
    check_heap_end(heap, m);
}

/* More layouts than have cells of their own: each still has its own edges. */
static void many_layouts(void)
{
    enum { COUNT = 3000 };
    static besom_layout layouts[COUNT];
    static uint64_t *objects[COUNT], *held[COUNT], *lost[COUNT];
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    int i, bad = 0;
    besom_gc_percent_set(heap, 0); /* what is lost stays in its place until the end */
    CHECK_OK(besom_roots_add(heap, objects, COUNT, BESOM_VALUES));
    for (i = 0; i < COUNT; i++) {
        const uint32_t at = (uint32_t)(i % 8) * 8;
        CHECK_OK(besom_layout_register(heap, 64, &at, 1, &layouts[i]));
    }
    for (i = 0; i < COUNT; i++) {
        objects[i] = (uint64_t *)besom_new(m, layouts[i]);
        NEED(objects[i] != NULL && check_is_zero(objects[i], 64));
        held[i] = (uint64_t *)besom_alloc(m, 32, BESOM_NOSCAN);
        besom_write(m, objects[i], &objects[i][i % 8], held[i]);
        lost[i] = (uint64_t *)besom_alloc(m, 48, BESOM_NOSCAN);
        objects[i][(i + 1) % 8] = (uint64_t)(uintptr_t)lost[i];
    }
    CHECK_OK(besom_collect(m));
    for (i = 0; i < COUNT; i++) bad += !ALIVE(objects[i]) || !ALIVE(held[i]) || ALIVE(lost[i]);
    CHECK_EQ(bad, 0);
    CHECK_OK(besom_roots_remove(heap, objects));
    check_heap_end(heap, m);
}

static void layouts_run_out(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    besom_layout layout = 0, last = 0;
    besom_status status = BESOM_OK;
    const uint32_t at = 8;
    int i;
    for (i = 0; i <= BESOM_LAYOUTS_MAX && status == BESOM_OK; i++) {
        status = besom_layout_register(heap, 16, &at, 1, &layout);
        if (status == BESOM_OK) last = layout;
    }
    CHECK_EQ(status, BESOM_ERR_LIMIT);
    CHECK_EQ(i, BESOM_LAYOUTS_MAX + 1);
    CHECK(layout == last && besom_new(m, last) != NULL); /* the heap is as good as before */
    check_heap_end(heap, m);
}

static void arrays(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    besom_layout layout, odd, big;
    static const size_t counts[] = {0, 1, 2, 3, 100, 1000, 1023, 1024, 1025, 5000, 100000};
    const uint32_t at[] = {0, 65528};
    size_t i, k;
    besom_gc_percent_set(heap, 0);
    CHECK_OK(BESOM_LAYOUT(heap, &layout, mixed, left, right));
    CHECK_OK(besom_layout_register(heap, 3, NULL, 0, &odd));
    CHECK_OK(besom_layout_register(heap, 65536, at, 2, &big));
    for (k = 0; k < sizeof counts / sizeof *counts; k++) {
        const size_t n = counts[k];
        mixed *a = (mixed *)besom_new_array(m, layout, n);
        void *held, *lost = NULL;
        NEED(a != NULL);
        CHECK(check_is_zero(a, n * sizeof *a) && besom_size(heap, a) >= n * sizeof *a);
        if (n == 0) continue;
        BESOM_FRAME(m, &a);
        for (i = 0; i < n; i += 1 + n / 50) { /* some, and the last */
            besom_write(m, &a[i], &a[i].left, besom_alloc(m, 24, BESOM_NOSCAN));
            lost = besom_alloc(m, 24, BESOM_NOSCAN);
            a[i].number = (uint64_t)(uintptr_t)lost;
        }
        held = besom_alloc(m, 24, BESOM_NOSCAN);
        besom_write(m, a, &a[n - 1].right, held);
        CHECK_OK(besom_collect(m));
        for (i = 0; i < n; i += 1 + n / 50) CHECK(ALIVE(a[i].left));
        CHECK(ALIVE(held) && !ALIVE(lost));
        BESOM_FRAME_END(m);
    }
    {
        char *o = (char *)besom_new_array(m, odd, 1001), *x;
        NEED(o != NULL);
        CHECK(besom_size(heap, o) >= 3003 && check_is_zero(o, 3003));
        o = (char *)besom_new_array(m, big, 5);
        BESOM_FRAME(m, &o);
        x = (char *)besom_new(m, layout);
        besom_write(m, o, o + 4 * 65536 + 65528, x);
        CHECK_OK(besom_collect(m));
        CHECK(ALIVE(x));
        BESOM_FRAME_END(m);
    }
    CHECK(besom_new_array(m, layout, SIZE_MAX) == NULL);
    CHECK(besom_new_array(m, layout, SIZE_MAX / sizeof(mixed)) == NULL);
    CHECK(besom_new_array(m, layout, SIZE_MAX / sizeof(mixed) + 2) == NULL); /* wraps to 32 bytes */
    CHECK(besom_new_array(m, layout, (size_t)1 << 59) == NULL);
    CHECK(besom_new_array(m, odd, SIZE_MAX / 3 + 1) == NULL);
    check_heap_end(heap, m);
}

/* besom_new in a loop: cells are refilled, and a list of typed nodes survives the cycles that come by themselves. */
static void typed_churn(void)
{
    typedef struct link {
        struct link *next;
        uint64_t number, junk;
    } link;
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    besom_layout layout;
    link *head = NULL, *p;
    uint64_t i, n = check_short() ? 20000 : 400000, bad = 0;
    besom_stats stats;
    CHECK_OK(BESOM_LAYOUT(heap, &layout, link, next));
    CHECK_EQ(sizeof(link), 24);
    BESOM_FRAME(m, &head);
    for (i = 0; i < n; i++) {
        p = (link *)besom_new(m, layout);
        NEED(p != NULL);
        bad += !check_is_zero(p, sizeof *p);
        p->junk = UINT64_MAX;
        if (i % 16 == 0) {
            p->number = i;
            besom_write(m, p, &p->next, head);
            head = p;
        }
    }
    CHECK_EQ(bad, 0);
    for (p = head, i = 0; p != NULL; p = p->next, i++) bad += p->number % 16 != 0 || p->junk != UINT64_MAX;
    CHECK_EQ(bad, 0);
    CHECK_EQ(i, n / 16);
    BESOM_FRAME_END(m);
    besom_stats_read(heap, &stats);
    if (!check_short()) CHECK(stats.cycles > 0);
    check_heap_end(heap, m);
}

int main(void)
{
    RUN(only_the_fields_are_edges);
    RUN(bad_layouts_are_refused);
    RUN(every_size);
    RUN(many_layouts);
    RUN(layouts_run_out);
    RUN(arrays);
    RUN(typed_churn);
    return check_done();
}
