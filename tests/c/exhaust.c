/* Things of which a heap has so many: what says that they are used up, and that the heap goes on. Layouts are
 * layouts.c's; threads, of which a system has fewer than a heap can take, the scheduler's tests'. */
#include "check.h"

static const size_t ALL = SIZE_MAX;

typedef struct node {
    struct node *next;
    uint64_t number;
} node;

static besom_heap *heap;
static besom_mutator *m;

/* A small limit makes for few. */
static void begin(size_t limit)
{
    besom_options o;
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    o.heap_limit = limit;
    heap = check_heap(&o, &m);
}

static node *prepend(node *list)
{
    node *n = (node *)besom_alloc(m, sizeof *n, BESOM_VALUES);
    NEED(n != NULL);
    n->next = list;
    return n;
}

static uint64_t ran;
static void note_cleanup(void *arg) { (void)arg, ran++; }
static void note_finalizer(besom_mutator *r, void *object, void *data) { (void)r, (void)object, (void)data, ran++; }

static void weak_references_and_cleanups(void)
{
    besom_weak *weak, *last = NULL;
    node *object = NULL;
    size_t weaks = 0, cleanups = 0;
    besom_status status;
    begin((size_t)32 << 20);
    BESOM_FRAME(m, &object);
    object = prepend(NULL);
    for (; (weak = besom_weak_new(m, object)) != NULL; weaks++) {
        NEED(besom_weak_get(m, weak) == object);
        last = weak;
    }
    while ((status = besom_cleanup_add(m, object, note_cleanup, NULL, NULL)) == BESOM_OK) cleanups++;
    CHECK_EQ(status, BESOM_ERR_LIMIT);
    CHECK(weaks >= 1000000 && weaks < 1100000);
    CHECK(cleanups >= 800000 && cleanups < 900000);
    besom_weak_free(heap, last);
    weak = besom_weak_new(m, object);
    CHECK(weak != NULL && besom_weak_new(m, object) == NULL);
    CHECK_OK(besom_collect(m));
    CHECK(besom_weak_get(m, weak) == object);
    BESOM_FRAME_END(m);
    CHECK_OK(besom_collect(m));
    CHECK(besom_weak_get(m, weak) == NULL);
    ran = 0;
    CHECK_EQ(besom_finalizers_run(m, ALL), cleanups);
    CHECK_EQ(ran, cleanups);
    CHECK_OK(besom_cleanup_add(m, prepend(NULL), note_cleanup, NULL, NULL));
    check_heap_end(heap, m);
}

static void finalizers(void)
{
    node *list = NULL, *n;
    size_t count = 0;
    besom_status status;
    begin((size_t)64 << 20);
    BESOM_FRAME(m, &list);
    for (;; count++) {
        list = prepend(list);
        if ((status = besom_finalizer_set(m, list, note_finalizer, NULL)) != BESOM_OK) break;
        if (count > 2000000) break;
    }
    CHECK_EQ(status, BESOM_ERR_LIMIT);
    CHECK(count >= 800000 && count < 2000000);
    /* To replace one or to remove one is always possible; the place is another's then. */
    n = list->next;
    CHECK_OK(besom_finalizer_set(m, n, note_finalizer, &count));
    CHECK_EQ(besom_finalizer_set(m, list, note_finalizer, NULL), BESOM_ERR_LIMIT);
    CHECK_OK(besom_finalizer_set(m, n, NULL, NULL));
    CHECK_OK(besom_finalizer_set(m, list, note_finalizer, NULL));
    CHECK_EQ(besom_finalizer_set(m, n, note_finalizer, NULL), BESOM_ERR_LIMIT);
    CHECK_OK(besom_collect(m));
    CHECK_EQ(besom_finalizers_run(m, ALL), 0);
    BESOM_FRAME_END(m);
    CHECK_OK(besom_collect(m));
    ran = 0;
    CHECK_EQ(besom_finalizers_run(m, ALL), count);
    CHECK_EQ(ran, count);
    CHECK_OK(besom_finalizer_set(m, prepend(NULL), note_finalizer, NULL));
    check_heap_end(heap, m);
}

int main(void)
{
    if (check_short()) {
        printf("ok nothing, a checker would take too long\n");
        return 0;
    }
    RUN(weak_references_and_cleanups);
    RUN(finalizers);
    return check_done();
}
