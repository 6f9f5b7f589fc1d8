/* besom_walk: every object once, with its size and kind, in address order. */
#include "check.h"

typedef struct seen {
    besom_heap *heap;
    long count[5];
    uint64_t bytes[5];
    char *last;
    int bad, stop_after;
} seen;

static int visit(void *object, size_t bytes, besom_kind kind, void *data)
{
    seen *s = (seen *)data;
    char *o = (char *)object;
    if (o < s->last || (int)kind < 0 || (int)kind > BESOM_TYPED || bytes == 0) {
        s->bad++;
        return 99;
    }
    if (besom_size(s->heap, o) != bytes || besom_base(s->heap, o + bytes - 1) != object) s->bad++;
    s->last = o + bytes;
    s->count[kind]++;
    s->bytes[kind] += bytes;
    return --s->stop_after == 0 ? 7 : 0;
}

static seen walk(besom_mutator *m, besom_heap *heap, int stop_after, int expected)
{
    seen s;
    memset(&s, 0, sizeof s);
    s.heap = heap;
    s.stop_after = stop_after;
    CHECK_EQ(besom_walk(m, visit, &s), expected);
    CHECK_EQ(s.bad, 0);
    return s;
}

static void every_object_once(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    besom_layout layout;
    const uint32_t at = 0;
    void **array = NULL;
    seen s = walk(m, heap, 0, 0);
    int i;
    CHECK_EQ(s.count[0] + s.count[1] + s.count[2] + s.count[3] + s.count[4], 0);
    CHECK_OK(besom_layout_register(heap, 40, &at, 1, &layout));
    array = (void **)besom_alloc(m, 600 * sizeof *array, BESOM_VALUES);
    BESOM_FRAME(m, &array);
    for (i = 0; i < 600; i++) {
        const size_t bytes = i % 30 == 0 ? 50000 : 16 + (size_t)i;
        void *p = i % 6 == 5 ? besom_new(m, layout)
                  : i % 6 == 4 ? NULL
                               : besom_alloc(m, bytes, (besom_kind)(i % 4));
        besom_write(m, array, &array[i], p);
    }
    s = walk(m, heap, 0, 0);
    CHECK_EQ(s.count[BESOM_TYPED], 100);
    CHECK_EQ(s.count[0] + s.count[1] + s.count[2] + s.count[3], 1 + 400);
    CHECK_EQ(s.bytes[BESOM_TYPED], 100 * 48);
    CHECK(s.bytes[BESOM_VALUES] > 4800);
    s = walk(m, heap, 25, 7); /* stopped by the 25th */
    CHECK_EQ(s.count[0] + s.count[1] + s.count[2] + s.count[3] + s.count[4], 25);
    /* The dead go with the collection. */
    for (i = 0; i < 300; i++) besom_write(m, array, &array[i], NULL);
    CHECK_OK(besom_collect(m));
    s = walk(m, heap, 0, 0);
    CHECK_EQ(s.count[BESOM_TYPED], 50);
    CHECK_EQ(s.count[0] + s.count[1] + s.count[2] + s.count[3], 1 + 200);
    BESOM_FRAME_END(m);
    CHECK_OK(besom_collect(m));
    s = walk(m, heap, 0, 0);
    CHECK_EQ(s.count[0] + s.count[1] + s.count[2] + s.count[3] + s.count[4], 0);
    check_heap_end(heap, m);
}

static void tiny_objects_by_the_block(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    seen s;
    int i;
    for (i = 0; i < 100; i++) (void)besom_alloc(m, 4, BESOM_NOSCAN);
    s = walk(m, heap, 0, 0);
    CHECK_EQ(s.count[BESOM_NOSCAN], check_watched() ? 100 : 25);
    CHECK_EQ(s.bytes[BESOM_NOSCAN], check_watched() ? 1600 : 400);
    check_heap_end(heap, m);
}

static int visit_detaches(void *object, size_t bytes, besom_kind kind, void *m)
{
    (void)object, (void)bytes, (void)kind;
    return 1 + (int)besom_detach((besom_mutator *)m);
}

/* What else takes the mutator aborts: see misuse_calls.c. */
static void a_visit_cannot_detach(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    NEED(besom_alloc(m, 64, BESOM_NOSCAN) != NULL);
    CHECK_EQ(besom_walk(m, visit_detaches, m), 1 + BESOM_ERR_STATE);
    check_heap_end(heap, m);
}

int main(void)
{
    RUN(every_object_once);
    RUN(tiny_objects_by_the_block);
    RUN(a_visit_cannot_detach);
    return check_done();
}
