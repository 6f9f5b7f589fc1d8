/* Uses of what is no object: what .ci/step-checkers.sh expects AddressSanitizer and memcheck to report at the line that
 * ends in FAULT: and the case's name. Where it says so, memcheck must name the line that ends in BORN: and that in
 * DEAD: too, as those that allocated and swept the object.
 * usage: faulty <case>|list */
#include "../check.h"

typedef struct node {
    struct node *next;
    uint64_t words[3];
} node;

static besom_heap *heap;
static besom_mutator *m;
static volatile uint64_t seen;
/* Nothing that the collector looks at. */
static void *volatile stale;

/* What stale held is gone, and the slot free. */
static void __attribute__((noinline)) die(void)
{
    CHECK_OK(besom_collect(m)); /* DEAD:small_read DEAD:large_write */
}

static void small_read(void)
{
    uint64_t *p = (uint64_t *)besom_alloc(m, 48, BESOM_VALUES); /* BORN:small_read */
    stale = p;
    die();
    seen = p[2]; /* FAULT:small_read */
}

static void small_write(void)
{
    uint64_t *p = (uint64_t *)besom_alloc(m, 48, BESOM_NOSCAN);
    stale = p;
    die();
    p[5] = 1; /* FAULT:small_write */
}

static void large_read(void)
{
    char *p = (char *)besom_alloc(m, 1000000, BESOM_NOSCAN);
    stale = p;
    die();
    seen = (unsigned char)p[999999]; /* FAULT:large_read */
}

static void large_write(void)
{
    char *p = (char *)besom_alloc(m, 100000, BESOM_CONSERVATIVE); /* BORN:large_write */
    stale = p;
    die();
    p[0] = 1; /* FAULT:large_write */
}

static void layout_read(void)
{
    besom_layout nodes;
    node *p;
    NEED(BESOM_LAYOUT(heap, &nodes, node, next) == BESOM_OK);
    p = (node *)besom_new(m, nodes);
    stale = p;
    die();
    stale = p->next; /* FAULT:layout_read */
}

static void layout_write(void)
{
    besom_layout nodes;
    node *p;
    NEED(BESOM_LAYOUT(heap, &nodes, node, next) == BESOM_OK);
    p = (node *)besom_new(m, nodes);
    stale = p;
    die();
    besom_write(m, p, &p->next, p); /* FAULT:layout_write */
}

static void array_read(void)
{
    besom_layout nodes;
    node *p;
    NEED(BESOM_LAYOUT(heap, &nodes, node, next) == BESOM_OK);
    p = (node *)besom_new_array(m, nodes, 10);
    stale = p;
    die();
    seen = p[9].words[2]; /* FAULT:array_read */
}

static void range_write(void)
{
    uint64_t words[4] = {0, 0, 0, 0}, *p = (uint64_t *)besom_alloc(m, 64, BESOM_VALUES);
    stale = p;
    die();
    besom_write_range(m, p, p, words, 4); /* FAULT:range_write */
}

/* Each tiny object has a slot of its own: the other one lives. */
static void tiny_read(void)
{
    char *p = (char *)besom_alloc(m, 5, BESOM_NOSCAN), *q = (char *)besom_alloc(m, 5, BESOM_NOSCAN);
    besom_handle *kept = besom_handle_new(m, q);
    stale = p;
    die();
    q[4] = 1;
    seen = (unsigned char)p[4]; /* FAULT:tiny_read */
    besom_handle_free(heap, kept);
}

static void tiny_write(void)
{
    char *p = (char *)besom_alloc(m, 1, BESOM_NOSCAN);
    stale = p;
    die();
    *p = 1; /* FAULT:tiny_write */
}

/* Past its end, where no object ever was. */
static void never_allocated(void)
{
    uint64_t *p = (uint64_t *)besom_alloc(m, 48, BESOM_NOSCAN);
    besom_handle *kept = besom_handle_new(m, p);
    p[5] = 1;
    p[6] = 1; /* FAULT:never_allocated */
    besom_handle_free(heap, kept);
}

static void large_overrun(void)
{
    const size_t n = 100000;
    char *p = (char *)besom_alloc(m, n, BESOM_NOSCAN);
    besom_handle *kept = besom_handle_new(m, p);
    p[n - 1] = 1;
    p[n] = 1; /* FAULT:large_overrun */
    besom_handle_free(heap, kept);
}

/* The word that the library keeps behind an array of few elements. Memcheck lets it pass, since the library reads it. */
static void array_overrun(void)
{
    besom_layout nodes;
    besom_handle *kept;
    uint64_t *p;
    NEED(BESOM_LAYOUT(heap, &nodes, node, next) == BESOM_OK);
    p = (uint64_t *)besom_new_array(m, nodes, 1);
    kept = besom_handle_new(m, p);
    p[besom_size(heap, p) / 8 - 1] = 1;
    p[besom_size(heap, p) / 8] = 1; /* FAULT:array_overrun */
    besom_handle_free(heap, kept);
}

/* The cycle comes by itself, and the library's own thread sweeps. */
static void swept_beside(void)
{
    besom_stats stats;
    uint64_t *p = (uint64_t *)besom_alloc(m, 112, BESOM_VALUES);
    int i;
    stale = p;
    do {
        for (i = 0; i < 1000; i++) (void)besom_alloc(m, 4000, BESOM_NOSCAN);
        besom_stats_read(heap, &stats);
    } while (stats.cycles == 0);
    for (i = 0; i < 1000 && besom_size(heap, p) != 0; i++) check_sleep_ms(10);
    NEED(besom_size(heap, p) == 0);
    seen = p[13]; /* FAULT:swept_beside */
}

/* Its pages went back to the system. */
static void released_read(void)
{
    uint64_t *p = (uint64_t *)besom_alloc(m, 100000, BESOM_NOSCAN);
    stale = p;
    die();
    NEED(besom_release_memory(heap) >= 100000);
    seen = p[100]; /* FAULT:released_read */
}

/* The slots around it were handed out again, and it was not. */
static void neighbours_live(void)
{
    uint64_t *objects[400];
    besom_handle *kept[400];
    int i;
    for (i = 0; i < 400; i++) {
        objects[i] = (uint64_t *)besom_alloc(m, 32, BESOM_NOSCAN);
        kept[i] = i == 200 ? NULL : besom_handle_new(m, objects[i]);
    }
    die();
    for (i = 0; i < 400; i++) {
        if (i != 200) objects[i][3] = 1;
    }
    for (i = 0; i < 10; i++) *(uint64_t *)besom_alloc(m, 32, BESOM_NOSCAN) = 1;
    objects[200][3] = 1; /* FAULT:neighbours_live */
    for (i = 0; i < 400; i++) besom_handle_free(heap, kept[i]);
}

/* Many others of its size and kind, and large ones, came meanwhile: 24 MiB, of which the last are not swept. */
static void reused_late(void)
{
    uint64_t *p = (uint64_t *)besom_alloc(m, 48, BESOM_NOSCAN);
    int i;
    stale = p;
    for (i = 0; i < 24; i++) {
        int k;
        for (k = 0; k < 10000; k++) *(uint64_t *)besom_alloc(m, 48, BESOM_NOSCAN) = 1;
        for (k = 0; k < 4; k++) *(uint64_t *)besom_alloc(m, 131072, BESOM_NOSCAN) = 1;
        if (i < 23) die();
    }
    seen = *p; /* FAULT:reused_late */
}

static node *root;

static void trace(besom_tracer *tracer, void *object, void *data)
{
    node *n = (node *)object;
    (void)data;
    besom_trace(tracer, n->next);
    if (stale != NULL) seen = ((node *)stale)->words[0]; /* FAULT:traced */
}

/* In a trace function, on a thread of the collector's or this one. */
static void traced(void)
{
    node *old = (node *)besom_alloc(m, sizeof *old, BESOM_TRACED);
    CHECK_OK(besom_roots_add(heap, &root, 1, BESOM_CONSERVATIVE));
    die();
    besom_write(m, NULL, &root, besom_alloc(m, sizeof *root, BESOM_TRACED));
    stale = old;
    die();
    CHECK_OK(besom_roots_remove(heap, &root));
}

/* By the slow path of a store. */
static void store_watched(void)
{
    node *p = (node *)besom_alloc(m, sizeof *p, BESOM_VALUES);
    stale = p;
    die();
    besom_write(m, NULL, &p->next, NULL); /* FAULT:store_watched */
}

/* While objects are marked a store looks itself whether it overwrites something. */
static void store_marked(void)
{
    node *p = (node *)besom_alloc(m, sizeof *p, BESOM_VALUES);
    stale = p;
    die();
    m->barrier = 1;
    besom_write(m, NULL, &p->next, NULL); /* FAULT:store_marked */
    m->barrier = 0;
}

static void heap_freed(void)
{
    uint64_t *p = (uint64_t *)besom_alloc(m, 48, BESOM_NOSCAN);
    check_heap_end(heap, m);
    heap = NULL;
    seen = *p; /* FAULT:heap_freed */
}

int main(int count, char **arguments)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } cases[] = {
#define CASE(name) {#name, name}
        CASE(small_read),      CASE(small_write),  CASE(large_read),    CASE(large_write),  CASE(layout_read),
        CASE(layout_write),    CASE(array_read),   CASE(range_write),   CASE(tiny_read),    CASE(tiny_write),
        CASE(never_allocated), CASE(large_overrun), CASE(array_overrun), CASE(swept_beside), CASE(released_read),
        CASE(neighbours_live), CASE(reused_late),  CASE(traced),        CASE(store_watched), CASE(store_marked),
        CASE(heap_freed),
    };
    besom_options options;
    size_t i;
    NEED(count == 2);
    if (strcmp(arguments[1], "list") == 0) {
        for (i = 0; i < sizeof cases / sizeof *cases; i++) puts(cases[i].name);
        return 0;
    }
    besom_options_init(&options);
    options.scan_native_stacks = 0;
    options.trace = trace;
    if (strcmp(arguments[1], "store_watched") == 0) options.verify = BESOM_VERIFY_HEAP;
    heap = check_heap(&options, &m);
    for (i = 0; i < sizeof cases / sizeof *cases && strcmp(cases[i].name, arguments[1]) != 0; i++)
        ;
    NEED(i < sizeof cases / sizeof *cases);
    cases[i].run();
    if (heap != NULL) check_heap_end(heap, m);
    puts("came to its end");
    return check_failures != 0;
}
