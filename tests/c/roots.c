/* Roots: what each of them keeps, and that what none of them names dies. */
#include "check.h"
#include <setjmp.h>

typedef struct node {
    struct node *next;
    uint64_t number;
} node;

static node *new_node(besom_mutator *m, node *next, besom_kind kind)
{
    node *n = (node *)besom_alloc(m, sizeof *n, kind);
    NEED(n != NULL);
    besom_write(m, n, &n->next, next);
    n->number = 42;
    return n;
}

#define ALIVE(p) (besom_size(heap, (p)) != 0)

static void nothing_keeps_nothing(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    void *objects[5];
    int i;
    for (i = 0; i < 4; i++) objects[i] = besom_alloc(m, 64, (besom_kind)i);
    objects[4] = besom_alloc(m, 100000, BESOM_VALUES);
    for (i = 0; i < 5; i++) CHECK(ALIVE(objects[i]));
    CHECK_OK(besom_collect(m));
    for (i = 0; i < 5; i++) CHECK(!ALIVE(objects[i]));
    check_heap_end(heap, m);
}

static void frames_nest(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    node *a = new_node(m, NULL, BESOM_VALUES), *b, *c;
    BESOM_FRAME(m, &a);
    b = new_node(m, a, BESOM_VALUES);
    c = NULL;
    {
        BESOM_FRAME(m, &b, &c);
        c = new_node(m, b, BESOM_CONSERVATIVE);
        CHECK_OK(besom_collect(m));
        CHECK(ALIVE(a) && ALIVE(b) && ALIVE(c));
        b = NULL; /* still held by c */
        CHECK_OK(besom_collect(m));
        CHECK(ALIVE(c->next) && c->next->next == a);
        b = c->next;
        c = NULL;
        BESOM_FRAME_END(m);
    }
    CHECK_OK(besom_collect(m));
    CHECK(ALIVE(a) && !ALIVE(b));
    a = (node *)(void *)&a->number; /* an interior pointer in a frame */
    CHECK_OK(besom_collect(m));
    CHECK(besom_base(heap, a) != NULL && *(uint64_t *)(void *)a == 42);
    BESOM_FRAME_END(m);
    CHECK_OK(besom_collect(m));
    CHECK(besom_base(heap, a) == NULL);
    check_heap_end(heap, m);
}

static jmp_buf out;
static volatile int jump = 1;
static void deep(besom_mutator *m, int depth)
{
    node *n = new_node(m, NULL, BESOM_VALUES);
    BESOM_FRAME(m, &n);
    if (depth == 0 && jump) longjmp(out, 1);
    if (depth > 0) deep(m, depth - 1);
    BESOM_FRAME_END(m);
}

static void frames_after_longjmp(void)
{
    static besom_mutator *m;
    static besom_heap *heap;
    static struct besom_frame *saved;
    static node *kept;
    heap = check_heap(NULL, &m);
    kept = new_node(m, NULL, BESOM_VALUES);
    {
        BESOM_FRAME(m, &kept);
        saved = besom_frames_save(m);
        CHECK(saved != NULL);
        if (setjmp(out) == 0) {
            deep(m, 20);
        } else {
            CHECK(besom_frames_save(m) != saved);
            besom_frames_restore(m, saved);
        }
        CHECK_OK(besom_collect(m));
        CHECK(ALIVE(kept));
        BESOM_FRAME_END(m);
    }
    CHECK(besom_frames_save(m) == NULL);
    check_heap_end(heap, m);
}

static node *global_range[8];
static void ranges(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    node *n;
    int i;
    CHECK_OK(besom_roots_add(heap, global_range, 8, BESOM_VALUES));
    for (i = 0; i < 8; i++)
        besom_write(m, NULL, &global_range[i], new_node(m, new_node(m, NULL, BESOM_VALUES), BESOM_VALUES));
    CHECK_OK(besom_collect(m));
    for (i = 0; i < 8; i++) CHECK(ALIVE(global_range[i]) && ALIVE(global_range[i]->next));
    /* The last word counts, the one behind does not. */
    CHECK_OK(besom_roots_remove(heap, global_range));
    CHECK_OK(besom_roots_add(heap, global_range, 7, BESOM_CONSERVATIVE));
    CHECK_OK(besom_collect(m));
    CHECK(ALIVE(global_range[6]) && !ALIVE(global_range[7]));
    /* CONSERVATIVE takes interior pointers. */
    global_range[0] = (node *)(void *)((char *)global_range[0] + 9);
    CHECK_OK(besom_collect(m));
    n = (node *)besom_base(heap, global_range[0]);
    CHECK(n != NULL && n->number == 42 && ALIVE(n->next));
    CHECK_OK(besom_roots_remove(heap, global_range));
    CHECK_OK(besom_collect(m));
    CHECK(!ALIVE(n) && !ALIVE(global_range[6]));
    /* What is refused. */
    CHECK_EQ(besom_roots_remove(heap, global_range), BESOM_ERR_INVALID);
    CHECK_EQ(besom_roots_remove(heap, NULL), BESOM_ERR_INVALID);
    CHECK_EQ(besom_roots_add(heap, NULL, 1, BESOM_VALUES), BESOM_ERR_INVALID);
    CHECK_EQ(besom_roots_add(heap, (char *)global_range + 4, 1, BESOM_VALUES), BESOM_ERR_INVALID);
    CHECK_EQ(besom_roots_add(heap, global_range, 0, BESOM_VALUES), BESOM_ERR_INVALID);
    CHECK_EQ(besom_roots_add(heap, global_range, SIZE_MAX, BESOM_VALUES), BESOM_ERR_INVALID);
    CHECK_EQ(besom_roots_add(heap, global_range, SIZE_MAX / 8, BESOM_VALUES), BESOM_ERR_INVALID);
    CHECK_EQ(besom_roots_add(heap, global_range, (size_t)1 << 61, BESOM_VALUES), BESOM_ERR_INVALID);
    CHECK_EQ(besom_roots_add(heap, global_range, 1, BESOM_NOSCAN), BESOM_ERR_INVALID);
    CHECK_EQ(besom_roots_add(heap, global_range, 1, BESOM_TRACED), BESOM_ERR_INVALID);
    CHECK_EQ(besom_roots_add(heap, global_range, 1, BESOM_TYPED), BESOM_ERR_INVALID);
    CHECK_EQ(besom_roots_add(heap, global_range, 1, (besom_kind)9), BESOM_ERR_INVALID);
    CHECK_OK(besom_roots_add(heap, global_range, 1, BESOM_VALUES));
    CHECK_EQ(besom_roots_add(heap, global_range, 2, BESOM_VALUES), BESOM_ERR_INVALID);
    CHECK_OK(besom_roots_add(heap, global_range + 1, 1, BESOM_VALUES));
    memset(global_range, 0, sizeof global_range);
    check_heap_end(heap, m);
}

static void many_ranges(void)
{
    enum { COUNT = 3000 };
    static node *slots[COUNT];
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    int i, bad = 0;
    for (i = 0; i < COUNT; i++) {
        CHECK_OK(besom_roots_add(heap, &slots[i], 1, i % 2 ? BESOM_VALUES : BESOM_CONSERVATIVE));
        besom_write(m, NULL, &slots[i], new_node(m, NULL, BESOM_VALUES));
    }
    for (i = 0; i < COUNT; i += 3) CHECK_OK(besom_roots_remove(heap, &slots[i]));
    CHECK_OK(besom_collect(m));
    for (i = 0; i < COUNT; i++) bad += ALIVE(slots[i]) != (i % 3 != 0);
    CHECK_EQ(bad, 0);
    check_heap_end(heap, m);
}

static void vm_stack(void)
{
    static uint64_t stack[1000], *top = stack;
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    node *first, *last;
    int i;
    CHECK_OK(besom_stack_set(m, stack, (void **)&top, BESOM_VALUES));
    for (i = 0; i < 999; i++) *top++ = (uint64_t)(uintptr_t)new_node(m, NULL, BESOM_VALUES);
    first = (node *)(uintptr_t)stack[0];
    last = (node *)(uintptr_t)stack[998];
    CHECK_OK(besom_collect(m));
    CHECK(ALIVE(first) && ALIVE(last));
    top -= 1; /* popped: dead, though its word is still there */
    CHECK_OK(besom_collect(m));
    CHECK(ALIVE(first) && !ALIVE(last));
    top = stack;
    CHECK_OK(besom_collect(m));
    CHECK(!ALIVE(first));
    stack[0] = (uint64_t)(uintptr_t)new_node(m, NULL, BESOM_VALUES) + 8; /* interior */
    first = (node *)(uintptr_t)(stack[0] - 8);
    top = stack + 1;
    CHECK_OK(besom_stack_set(m, stack, (void **)&top, BESOM_CONSERVATIVE));
    CHECK_OK(besom_collect(m));
    CHECK(ALIVE(first));
    CHECK_OK(besom_stack_set(m, NULL, NULL, BESOM_VALUES));
    CHECK_OK(besom_collect(m));
    CHECK(!ALIVE(first));
    CHECK_EQ(besom_stack_set(m, (char *)stack + 1, (void **)&top, BESOM_VALUES), BESOM_ERR_INVALID);
    CHECK_EQ(besom_stack_set(m, stack, NULL, BESOM_VALUES), BESOM_ERR_INVALID);
    CHECK_EQ(besom_stack_set(m, stack + 2, (void **)&top, BESOM_VALUES), BESOM_ERR_INVALID);
    CHECK_EQ(besom_stack_set(m, stack, (void **)&top, BESOM_NOSCAN), BESOM_ERR_INVALID);
    CHECK_EQ(besom_stack_set(m, stack, (void **)&top, BESOM_TRACED), BESOM_ERR_INVALID);
    CHECK_EQ(besom_stack_set(m, stack, (void **)&top, (besom_kind)9), BESOM_ERR_INVALID);
    check_heap_end(heap, m);
}

static void handles(void)
{
    enum { COUNT = 10000 };
    static besom_handle *all[COUNT];
    static node *nodes[COUNT];
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    int i, bad = 0;
    for (i = 0; i < COUNT; i++) {
        nodes[i] = new_node(m, NULL, BESOM_VALUES);
        all[i] = besom_handle_new(m, nodes[i]);
        NEED(all[i] != NULL);
    }
    CHECK_OK(besom_collect(m));
    for (i = 0; i < COUNT; i++) bad += besom_handle_get(m, all[i]) != nodes[i] || !ALIVE(nodes[i]);
    CHECK_EQ(bad, 0);
    besom_handle_set(m, all[0], nodes[1]);
    CHECK(besom_handle_get(m, all[0]) == nodes[1]);
    besom_handle_set(m, all[2], NULL);
    CHECK(besom_handle_get(m, all[2]) == NULL);
    for (i = 3; i < COUNT; i += 2) besom_handle_free(heap, all[i]);
    CHECK_OK(besom_collect(m));
    CHECK(!ALIVE(nodes[0]) && ALIVE(nodes[1]) && !ALIVE(nodes[2]));
    for (i = 3; i < COUNT; i++) bad += ALIVE(nodes[i]) != (i % 2 == 0);
    CHECK_EQ(bad, 0);
    besom_handle_free(heap, NULL);
    {
        besom_handle *empty = besom_handle_new(m, NULL);
        CHECK(empty != NULL && besom_handle_get(m, empty) == NULL);
        besom_handle_free(heap, empty);
    }
    check_heap_end(heap, m); /* with thousands of handles left */
}

static void native_stack_is_scanned(void)
{
    besom_options o;
    besom_mutator *m;
    besom_heap *heap;
    node *volatile on_stack;
    if (check_short() && getenv("CHECK_NATIVE") == NULL) return; /* see run.sh */
    besom_options_init(&o);
    o.scan_native_stacks = 1;
    heap = check_heap(&o, &m);
    on_stack = new_node(m, new_node(m, NULL, BESOM_VALUES), BESOM_VALUES);
    CHECK_OK(besom_collect(m));
    CHECK(ALIVE(on_stack) && ALIVE(on_stack->next) && on_stack->number == 42);
    on_stack = (node *)(void *)((char *)on_stack + 8); /* interior */
    CHECK_OK(besom_collect(m));
    CHECK(besom_base(heap, on_stack) == (char *)on_stack - 8);
    check_heap_end(heap, m);
}

static void noscan_is_not_followed(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    node *holder = new_node(m, NULL, BESOM_NOSCAN), *held;
    BESOM_FRAME(m, &holder);
    held = new_node(m, NULL, BESOM_VALUES);
    holder->next = held;
    CHECK_OK(besom_collect(m));
    CHECK(ALIVE(holder) && !ALIVE(held));
    BESOM_FRAME_END(m);
    check_heap_end(heap, m);
}

static void conservative_takes_interiors_values_does_not_lose_others(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    uint64_t *c = (uint64_t *)besom_alloc(m, 64, BESOM_CONSERVATIVE), *v;
    char *a, *b;
    BESOM_FRAME(m, &c);
    v = (uint64_t *)besom_alloc(m, 64, BESOM_VALUES);
    c[7] = (uint64_t)(uintptr_t)v; /* the last word */
    a = (char *)besom_alloc(m, 200, BESOM_NOSCAN);
    c[0] = (uint64_t)(uintptr_t)(a + 199);
    b = (char *)besom_alloc(m, 300, BESOM_NOSCAN);
    v[7] = (uint64_t)(uintptr_t)b;
    v[0] = (uint64_t)(uintptr_t)a | 1; /* an integer that looks like a pointer */
    CHECK_OK(besom_collect(m));
    CHECK(ALIVE(a) && ALIVE(b) && ALIVE(v));
    c[0] = 0;
    CHECK_OK(besom_collect(m));
    CHECK(!ALIVE(a) && ALIVE(b));
    BESOM_FRAME_END(m);
    check_heap_end(heap, m);
}

static void encodings(void)
{
    /* Each: an encoding, and how a pointer is written in it. */
    static const struct { besom_encoding e; uint64_t tags, integer; } all[] = {
        {{7, 0, UINT64_MAX}, 0, 1},
        {{7, 1, ~(uint64_t)7}, 1, 0},
        {{4, 0, ~(uint64_t)7}, 3, 4},
        {{0xffff000000000000u, 0xfffc000000000000u, 0x0000fffffffffff8u}, 0xfffc000000000000u, 0x7ff8000000000000u},
        {{0, 0, 0x0000fffffffffff8u}, 0x7abc000000000002u, 0}};
    size_t i;
    for (i = 0; i < sizeof all / sizeof *all; i++) {
        besom_options o;
        besom_mutator *m;
        besom_heap *heap;
        uint64_t *holder;
        char *held, *lost;
        besom_options_init(&o);
        o.scan_native_stacks = 0;
        o.encoding = all[i].e;
        heap = check_heap(&o, &m);
        holder = (uint64_t *)besom_alloc(m, 32, BESOM_VALUES);
        BESOM_FRAME(m, &holder);
        held = (char *)besom_alloc(m, 40, BESOM_NOSCAN);
        lost = (char *)besom_alloc(m, 40, BESOM_NOSCAN);
        besom_write_value(m, holder, &holder[0], (uint64_t)(uintptr_t)held | all[i].tags);
        besom_write_value(m, holder, &holder[1], all[i].integer);
        besom_write_value(m, holder, &holder[2], UINT64_MAX);
        if (all[i].integer != 0 || all[i].e.tag != 0)
            besom_write_value(m, holder, &holder[3], (uint64_t)(uintptr_t)lost | all[i].integer);
        CHECK_OK(besom_collect(m));
        CHECK(ALIVE(held));
        CHECK(!ALIVE(lost));
        BESOM_FRAME_END(m);
        check_heap_end(heap, m);
    }
}

/* The VM's own objects: a count, then so many edges. */
typedef struct traced {
    uint64_t count;
    struct traced *edges[1]; /* or more */
} traced;
static int trace_calls, roots_calls;
static node *roots_node, *mutator_node;

static void trace_object(besom_tracer *t, void *object, void *data)
{
    traced *o = (traced *)object;
    uint64_t i;
    if (data != &trace_calls) abort();
    __atomic_fetch_add(&trace_calls, 1, __ATOMIC_RELAXED);
    if (o->count % 2 == 0)
        for (i = 0; i < o->count; i++) besom_trace(t, o->edges[i]);
    else
        besom_trace_range(t, o->edges, o->count, BESOM_VALUES);
}

static void trace_roots(besom_tracer *t, void *object, void *data)
{
    if (object != NULL || data != &trace_calls) abort();
    __atomic_fetch_add(&roots_calls, 1, __ATOMIC_RELAXED);
    besom_trace(t, roots_node);
    besom_trace(t, NULL);
    besom_trace(t, &roots_node); /* no object of the heap: skipped */
}

static void trace_mutator(besom_tracer *t, void *object, void *data)
{
    if (object != NULL) abort();
    besom_trace_range(t, data, 1, BESOM_CONSERVATIVE);
}

static void trace_functions(void)
{
    besom_options o;
    besom_mutator *m;
    besom_heap *heap;
    traced *root, *even, *leaf;
    node *n;
    int i;
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    o.trace = trace_object;
    o.roots = trace_roots;
    o.data = &trace_calls;
    heap = check_heap(&o, &m);
    trace_calls = roots_calls = 0;
    root = (traced *)besom_alloc(m, sizeof *root + 2 * sizeof(void *), BESOM_TRACED);
    BESOM_FRAME(m, &root);
    root->count = 3;
    for (i = 0; i < 3; i++) {
        even = (traced *)besom_alloc(m, sizeof *even + sizeof(void *), BESOM_TRACED);
        even->count = 2;
        besom_write(m, root, &root->edges[i], even);
        leaf = (traced *)besom_alloc(m, sizeof *leaf, BESOM_TRACED);
        besom_write(m, even, &even->edges[1], leaf);
    }
    roots_node = new_node(m, NULL, BESOM_VALUES);
    mutator_node = new_node(m, NULL, BESOM_VALUES);
    CHECK_OK(besom_mutator_roots(m, trace_mutator, &mutator_node));
    CHECK_OK(besom_collect(m));
    CHECK_EQ(roots_calls, 1);
    CHECK_EQ(trace_calls, 7); /* each object once */
    for (i = 0; i < 3; i++) CHECK(ALIVE(root->edges[i]) && ALIVE(root->edges[i]->edges[1]));
    CHECK(ALIVE(roots_node) && ALIVE(mutator_node));
    root->count = 1;
    even = root->edges[1];
    leaf = even->edges[1];
    n = roots_node;
    roots_node = NULL;
    CHECK_OK(besom_mutator_roots(m, NULL, NULL));
    CHECK_OK(besom_collect(m));
    CHECK(ALIVE(root->edges[0]) && !ALIVE(even) && !ALIVE(leaf) && !ALIVE(n) && !ALIVE(mutator_node));
    BESOM_FRAME_END(m);
    check_heap_end(heap, m);
}

static void write_range_copies(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    void **array = (void **)besom_alloc(m, 64 * sizeof(void *), BESOM_VALUES);
    void *plain[8];
    int i, bad = 0;
    BESOM_FRAME(m, &array);
    for (i = 0; i < 8; i++) {
        plain[i] = besom_alloc(m, 32, BESOM_NOSCAN);
        besom_write(m, array, &array[i], plain[i]);
    }
    besom_write_range(m, array, array + 4, array, 8); /* overlapping upwards */
    for (i = 0; i < 8; i++) bad += array[4 + i] != plain[i];
    besom_write_range(m, array, array + 2, array + 4, 8); /* and downwards */
    for (i = 0; i < 8; i++) bad += array[2 + i] != plain[i];
    besom_write_range(m, array, array + 56, plain, 8);
    besom_write_range(m, array, array, array + 32, 32); /* clear the rest with zeros, keep [24, 32) */
    for (i = 0; i < 8; i++) bad += array[24 + i] != plain[i];
    besom_write_range(m, array, array + 56, array, 0);
    CHECK_EQ(bad, 0);
    besom_write(m, array, &array[24], NULL);
    besom_write(m, array, &array[56], NULL);
    CHECK_OK(besom_collect(m));
    CHECK(!ALIVE(plain[0]));
    for (i = 1; i < 8; i++) CHECK(ALIVE(plain[i]));
    BESOM_FRAME_END(m);
    check_heap_end(heap, m);
}

/* A form that only the trace function knows: a store into it cannot read what it overwrites, so that is shown first. */
typedef struct { uint64_t hidden; } hider;
static uint64_t hide(const void *p) { return ~(uint64_t)(uintptr_t)p; }
static void *seek(uint64_t hidden) { return (void *)(uintptr_t)~hidden; }

/* Beside the program. To helgrind its atomic load is a plain one: see helgrind.supp. */
static void __attribute__((noinline)) trace_hider(besom_tracer *t, void *object, void *data)
{
    (void)data;
    besom_trace(t, seek(__atomic_load_n(&((hider *)object)->hidden, __ATOMIC_RELAXED)));
}

static int collections;

static void *collect_again_and_again(void *argument)
{
    besom_heap *heap = (besom_heap *)argument;
    besom_mutator *m;
    int i;
    NEED(besom_attach(heap, &m) == BESOM_OK);
    for (i = 0; i < (check_short() ? 5 : 400); i++) NEED(besom_collect(m) == BESOM_OK);
    NEED(besom_detach(m) == BESOM_OK);
    check_set(&collections, 1);
    return NULL;
}

static void hidden_pointers_are_shown(void)
{
    besom_options o;
    besom_mutator *m;
    besom_heap *heap;
    pthread_t collector;
    node *head = NULL, *fresh = NULL, *kept = NULL;
    hider *h = NULL;
    int i, moves = 0;
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    o.trace = trace_hider;
    o.verify = BESOM_VERIFY_MARKS;
    heap = check_heap(&o, &m);
    BESOM_FRAME(m, &head, &fresh, &kept);
    head = fresh = new_node(m, NULL, BESOM_VALUES);
    h = (hider *)besom_alloc(m, sizeof *h, BESOM_TRACED);
    NEED(h != NULL);
    h->hidden = hide(fresh);
    besom_write(m, head, &head->next, h);
    for (i = 0; i < 20000; i++) head = new_node(m, head, BESOM_VALUES); /* marked one after the other, the hider last */
    check_set(&collections, 0);
    NEED(pthread_create(&collector, NULL, collect_again_and_again, heap) == 0);
    while (!check_is_set(&collections)) {
        fresh = new_node(m, NULL, BESOM_VALUES);
        kept = (node *)seek(h->hidden); /* from here on the only pointer to it */
        {
            void *shown = kept;
            besom_write(m, NULL, &shown, NULL);
        }
        besom_write_value(m, h, &h->hidden, hide(fresh));
        fresh = NULL;
        for (i = 0; i < 1000 << moves % 13; i++) besom_safepoint(m); /* a part of a cycle, or more */
        moves++;
        NEED(kept->number == 42);
    }
    besom_block(m);
    NEED(pthread_join(collector, NULL) == 0);
    besom_unblock(m);
    BESOM_FRAME_END(m);
    check_heap_end(heap, m);
}

/* Deep lists and cycles: marking keeps no native stack for them. */
static void deep_and_cyclic(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    const int length = check_short() ? 20000 : 1000000;
    node *head = NULL, *first, *p;
    int i;
    BESOM_FRAME(m, &head);
    first = head = new_node(m, NULL, BESOM_VALUES);
    for (i = 1; i < length; i++) head = new_node(m, head, BESOM_VALUES);
    besom_write(m, first, &first->next, head);
    CHECK_OK(besom_collect(m));
    for (p = head->next, i = 1; p != head; p = p->next) i++;
    CHECK_EQ(i, length);
    BESOM_FRAME_END(m);
    CHECK_OK(besom_collect(m));
    CHECK(!ALIVE(first) && !ALIVE(head));
    check_heap_end(heap, m);
}

int main(void)
{
    RUN(nothing_keeps_nothing);
    RUN(frames_nest);
    RUN(frames_after_longjmp);
    RUN(ranges);
    RUN(many_ranges);
    RUN(vm_stack);
    RUN(handles);
    RUN(native_stack_is_scanned);
    RUN(noscan_is_not_followed);
    RUN(conservative_takes_interiors_values_does_not_lose_others);
    RUN(encodings);
    RUN(trace_functions);
    RUN(hidden_pointers_are_shown);
    RUN(write_range_copies);
    RUN(deep_and_cyclic);
    return check_done();
}
