/* Weak references, ephemerons, cleanups, finalizers: every promise of their chapter in besom.h. */
#include "check.h"

#define ALIVE(p) (besom_size(heap, (p)) != 0)

static besom_heap *heap;
static besom_mutator *m;

static void begin(void) { heap = check_heap(NULL, &m); }

static void end(void)
{
    besom_mem_stats counted, walked;
    besom_mem_stats_read_slow(m, &counted, &walked);
    check_heap_end(heap, m);
}

/* A pair of values. */
static void **pair(void *a, void *b)
{
    void **p;
    BESOM_FRAME(m, &a, &b);
    p = (void **)besom_alloc(m, 2 * sizeof *p, BESOM_VALUES);
    NEED(p != NULL);
    besom_write(m, p, &p[0], a);
    besom_write(m, p, &p[1], b);
    BESOM_FRAME_END(m);
    return p;
}

static void *leaf(void)
{
    void *p = besom_alloc(m, 24, BESOM_NOSCAN);
    NEED(p != NULL);
    return p;
}

static uint64_t metric(const char *name)
{
    besom_metric_value value;
    memset(&value, 0, sizeof value);
    CHECK_OK(besom_metric_read(heap, name, &value));
    return value.number;
}

/* What has run, by its number. */
static unsigned runs[16];
static void *run_on[16];
static void *last_data;

static void note(besom_mutator *runner, void *object, void *data)
{
    CHECK(runner == m);
    runs[(uintptr_t)data % 16]++;
    run_on[(uintptr_t)data % 16] = object;
    last_data = data;
}

static void note_cleanup(void *arg) { runs[(uintptr_t)arg % 16]++; }

static void forget(void)
{
    memset(runs, 0, sizeof runs);
    memset(run_on, 0, sizeof run_on);
}

#define ALL ((size_t)-1)
#define N(n) ((void *)(uintptr_t)(n))

/* ---- Weak references ---- */

static void weak_references_are_cleared(void)
{
    void *live = NULL, *objects[5];
    besom_weak *weak[5], *of_live, *second;
    size_t i;
    begin();
    BESOM_FRAME(m, &live);
    live = pair(NULL, NULL);
    of_live = besom_weak_new(m, live);
    objects[0] = besom_alloc(m, 5, BESOM_NOSCAN); /* a tiny one */
    objects[1] = besom_alloc(m, 24, BESOM_CONSERVATIVE);
    objects[2] = besom_alloc(m, 100000, BESOM_NOSCAN);
    objects[3] = besom_alloc(m, 100000, BESOM_VALUES);
    objects[4] = besom_alloc(m, 0, BESOM_VALUES);
    for (i = 0; i < 5; i++) NEED((weak[i] = besom_weak_new(m, objects[i])) != NULL);
    second = besom_weak_new(m, objects[1]);
    NEED(of_live != NULL && second != NULL && second != weak[1]);
    for (i = 0; i < 5; i++) CHECK(besom_weak_get(m, weak[i]) == objects[i]);
    CHECK_EQ(metric("besom/gc/specials/weak:references"), 7);
    CHECK_OK(besom_collect(m));
    for (i = 0; i < 5; i++) CHECK(besom_weak_get(m, weak[i]) == NULL);
    CHECK(besom_weak_get(m, second) == NULL);
    CHECK(besom_weak_get(m, of_live) == live);
    besom_weak_free(heap, weak[3]);
    besom_weak_free(heap, NULL);
    CHECK(besom_weak_new(m, live) == weak[3]); /* it comes back */
    CHECK(besom_weak_get(m, weak[3]) == live);
    BESOM_FRAME_END(m);
    CHECK_OK(besom_collect(m));
    CHECK(besom_weak_get(m, of_live) == NULL && besom_weak_get(m, weak[3]) == NULL);
    end();
}

/* What weak_get gave is held like any other pointer. */
static void what_a_weak_reference_gave_is_held(void)
{
    void *object = NULL;
    besom_weak *weak;
    begin();
    weak = besom_weak_new(m, pair(NULL, leaf()));
    {
        BESOM_FRAME(m, &object);
        object = besom_weak_get(m, weak);
        CHECK_OK(besom_collect(m));
        CHECK(object != NULL && besom_weak_get(m, weak) == object && ALIVE(((void **)object)[1]));
        BESOM_FRAME_END(m);
    }
    CHECK_OK(besom_collect(m));
    CHECK(besom_weak_get(m, weak) == NULL);
    end();
}

static void tiny_objects_share_their_blocks_life(void)
{
    besom_options o;
    void *a = NULL, *b;
    besom_weak *weak;
    if (check_watched()) return; /* each has its own there */
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    heap = check_heap(&o, &m);
    BESOM_FRAME(m, &a);
    /* Two of the same block: of three in a row, two neighbours are. */
    a = besom_alloc(m, 4, BESOM_NOSCAN);
    b = besom_alloc(m, 4, BESOM_NOSCAN);
    while (((uintptr_t)a ^ (uintptr_t)b) >= 16) {
        a = b;
        b = besom_alloc(m, 4, BESOM_NOSCAN);
    }
    weak = besom_weak_new(m, b);
    CHECK_OK(besom_finalizer_set(m, b, note, N(1)));
    forget();
    CHECK_OK(besom_collect(m));
    CHECK(besom_weak_get(m, weak) == b); /* for the sake of a */
    CHECK_EQ(besom_finalizers_run(m, ALL), 0);
    a = NULL;
    CHECK_OK(besom_collect(m));
    CHECK(besom_weak_get(m, weak) == NULL);
    CHECK_EQ(besom_finalizers_run(m, ALL), 1);
    CHECK(runs[1] == 1 && run_on[1] == b);
    BESOM_FRAME_END(m);
    end();
}

/* ---- Ephemerons ---- */

static void an_ephemeron_keeps_its_value_for_its_key(void)
{
    void *key = NULL, *value, *e = NULL, *beyond;
    besom_weak *of_value;
    begin();
    BESOM_FRAME(m, &key, &e);
    key = leaf();
    beyond = leaf();
    value = pair(key, beyond); /* it leads back to its key, which does not keep it */
    e = besom_ephemeron_new(m, key, value);
    NEED(e != NULL);
    of_value = besom_weak_new(m, value);
    CHECK_EQ(besom_size(heap, e), 16);
    CHECK(besom_base(heap, (char *)e + 9) == e);
    CHECK_OK(besom_collect(m));
    CHECK(besom_ephemeron_key(m, e) == key && besom_ephemeron_value(m, e) == value);
    CHECK(ALIVE(value) && ALIVE(beyond) && besom_weak_get(m, of_value) == value);
    key = NULL;
    CHECK_OK(besom_collect(m));
    CHECK(besom_ephemeron_key(m, e) == NULL && besom_ephemeron_value(m, e) == NULL);
    CHECK(!ALIVE(value) && !ALIVE(beyond) && besom_weak_get(m, of_value) == NULL);
    BESOM_FRAME_END(m);
    CHECK_OK(besom_collect(m));
    CHECK(!ALIVE(e));
    end();
}

static int visit_typed(void *object, size_t bytes, besom_kind kind, void *data)
{
    if (object == *(void **)data) *(void **)data = bytes == 16 && kind == BESOM_TYPED ? N(1) : N(2);
    return 0;
}

/* Arguments need not be roots; values may be anything. */
static void what_an_ephemeron_may_hold(void)
{
    static int outside;
    besom_options o;
    void *e = NULL, *key = NULL, *value, *seen;
    size_t i;
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    o.collect_every = 1; /* every allocation collects */
    heap = check_heap(&o, &m);
    BESOM_FRAME(m, &e, &key);
    key = pair(NULL, NULL);
    value = pair(NULL, NULL);
    e = besom_ephemeron_new(m, key, value);
    CHECK(besom_ephemeron_value(m, e) == value && ALIVE(value));
    e = besom_ephemeron_new(m, besom_alloc(m, 32, BESOM_NOSCAN), NULL);
    CHECK(besom_ephemeron_key(m, e) != NULL && besom_ephemeron_value(m, e) == NULL);
    CHECK(ALIVE(besom_ephemeron_key(m, e))); /* held by the call, and by nothing from here on */
    {
        void *const values[] = {NULL, N(1), N(7), &outside, N(UINTPTR_MAX), key, e, (char *)key + 5};
        for (i = 0; i < sizeof values / sizeof *values; i++) {
            void *other = NULL;
            BESOM_FRAME(m, &other);
            other = besom_ephemeron_new(m, key, values[i]);
            CHECK_OK(besom_collect(m));
            CHECK(besom_ephemeron_value(m, other) == values[i] && besom_ephemeron_key(m, other) == key);
            BESOM_FRAME_END(m);
        }
    }
    /* An interior pointer keeps its object; an ephemeron can be a key, and a value. */
    value = pair(NULL, leaf());
    e = besom_ephemeron_new(m, key, (char *)value + 3);
    value = besom_ephemeron_new(m, e, pair(NULL, e));
    e = besom_ephemeron_new(m, key, value);
    CHECK_OK(besom_collect(m));
    CHECK(besom_ephemeron_key(m, besom_ephemeron_value(m, e)) == NULL); /* the other ephemeron was held by none */
    seen = e;
    CHECK_EQ(besom_walk(m, visit_typed, &seen), 0);
    CHECK(seen == N(1));
    BESOM_FRAME_END(m);
    end();
}

/* A chain of ephemerons, each value the next key, `order` saying which is made first. Steps of the cycle that keeps it. */
static uint64_t chain(size_t length, int order, int keyed)
{
    size_t i;
    void **keys, **all;
    void *first = NULL, *array = NULL;
    uint64_t before;
    besom_weak *last;
    begin();
    BESOM_FRAME(m, &first, &array);
    array = besom_alloc(m, (2 * length + 1) * sizeof(void *), BESOM_VALUES);
    NEED(array != NULL);
    all = (void **)array;
    keys = all + length;
    for (i = 0; i <= length; i++) besom_write(m, array, &keys[i], besom_alloc(m, 16, i % 2 ? BESOM_NOSCAN : BESOM_VALUES));
    for (i = 0; i < length; i++) {
        const size_t n = order == 0 ? i : order == 1 ? length - 1 - i : i * 7919 % length;
        void *e = besom_ephemeron_new(m, keys[n], keys[n + 1]);
        NEED(e != NULL);
        besom_write(m, array, &all[n], e);
    }
    if (keyed) first = keys[0];
    last = besom_weak_new(m, keys[length]);
    for (i = 0; i <= length; i++) besom_write(m, array, &keys[i], NULL);
    before = metric("besom/gc/specials/ephemeron-steps:steps");
    CHECK_OK(besom_collect(m));
    before = metric("besom/gc/specials/ephemeron-steps:steps") - before;
    for (i = 0; i < length; i++) {
        void *const key = besom_ephemeron_key(m, all[i]), *const value = besom_ephemeron_value(m, all[i]);
        if (keyed) NEED(key != NULL && value != NULL && (i == 0 || key == besom_ephemeron_value(m, all[i - 1])));
        else NEED(key == NULL && value == NULL);
    }
    CHECK((besom_weak_get(m, last) != NULL) == keyed);
    if (keyed) {
        first = NULL;
        CHECK_OK(besom_collect(m));
        for (i = 0; i < length; i++) NEED(besom_ephemeron_key(m, all[i]) == NULL);
    }
    BESOM_FRAME_END(m);
    end();
    return before;
}

static void chains_take_work_by_their_length(void)
{
    const size_t length = check_short() ? 2000 : 50000;
    int order;
    for (order = 0; order < 3; order++) {
        const uint64_t once = chain(length, order, 1), twice = chain(2 * length, order, 1);
        CHECK_LE(once, 4 * length);
        CHECK_LE(twice, 8 * length);
        (void)chain(length, order, 0);
    }
}

/* ---- Cleanups ---- */

static void cleanups_run_once_their_object_is_gone(void)
{
    void *object = NULL;
    besom_cleanup first = 0, second = 0, third = 0;
    begin();
    forget();
    BESOM_FRAME(m, &object);
    object = pair(NULL, NULL);
    CHECK_OK(besom_cleanup_add(m, object, note_cleanup, N(1), &first));
    CHECK_OK(besom_cleanup_add(m, object, note_cleanup, N(2), &second));
    CHECK_OK(besom_cleanup_add(m, object, note_cleanup, N(3), NULL));
    CHECK_OK(besom_cleanup_add(m, object, note_cleanup, N(2), &third));
    CHECK(first != 0 && second != 0 && first != second && second != third);
    CHECK_EQ(besom_cleanup_add(m, object, NULL, N(4), &third), BESOM_ERR_INVALID);
    CHECK_OK(besom_collect(m));
    CHECK_EQ(besom_finalizers_run(m, ALL), 0);
    CHECK_EQ(besom_cleanup_cancel(heap, second), 1);
    CHECK_EQ(besom_cleanup_cancel(heap, second), 0);
    CHECK_EQ(besom_cleanup_cancel(heap, 0), 0);
    CHECK_EQ(besom_cleanup_cancel(heap, UINT64_MAX), 0);
    CHECK_EQ(besom_cleanup_cancel(NULL, first), 0);
    object = NULL;
    CHECK_OK(besom_collect(m));
    CHECK_EQ(metric("besom/gc/specials/due:calls"), 3);
    CHECK_EQ(besom_cleanup_cancel(heap, first), 0); /* it is due */
    CHECK_EQ(besom_finalizers_run(m, 0), 0);
    CHECK_EQ(besom_finalizers_run(m, 2), 2);
    CHECK_EQ(besom_finalizers_run(m, ALL), 1);
    CHECK(runs[1] == 1 && runs[2] == 1 && runs[3] == 1 && runs[4] == 0);
    CHECK_EQ(besom_cleanup_cancel(heap, first), 0); /* it has run */
    CHECK_OK(besom_collect(m));
    CHECK_EQ(besom_finalizers_run(m, ALL), 0);
    /* Its entry is used again; what named it names nothing. */
    object = pair(NULL, NULL);
    CHECK_OK(besom_cleanup_add(m, object, note_cleanup, N(5), NULL));
    CHECK_OK(besom_cleanup_add(m, object, note_cleanup, N(5), NULL));
    CHECK_EQ(besom_cleanup_cancel(heap, first) + besom_cleanup_cancel(heap, second), 0);
    CHECK_EQ(metric("besom/gc/specials/cleanups:cleanups"), 2);
    BESOM_FRAME_END(m);
    end();
}

/* ---- Finalizers ---- */

static void a_finalizer_gets_its_object(void)
{
    void *object, *beyond;
    besom_weak *weak;
    begin();
    forget();
    beyond = leaf();
    object = pair(beyond, NULL);
    CHECK_OK(besom_finalizer_set(m, object, note, N(9)));
    CHECK_OK(besom_finalizer_set(m, object, note, N(1))); /* instead */
    CHECK_OK(besom_cleanup_add(m, object, note_cleanup, N(2), NULL));
    CHECK_EQ(metric("besom/gc/specials/finalizers:finalizers"), 1);
    weak = besom_weak_new(m, object);
    CHECK_OK(besom_collect(m));
    CHECK(besom_weak_get(m, weak) == NULL && ALIVE(object) && ALIVE(beyond));
    CHECK_OK(besom_collect(m)); /* it stays due, and alive */
    CHECK_EQ(besom_finalizers_run(m, ALL), 1);
    CHECK(runs[1] == 1 && runs[9] == 0 && runs[2] == 0 && run_on[1] == object && last_data == N(1));
    CHECK(ALIVE(beyond) && ((void **)object)[0] == beyond);
    CHECK_OK(besom_collect(m)); /* now it is gone */
    CHECK(!ALIVE(object) && !ALIVE(beyond));
    CHECK_EQ(besom_finalizers_run(m, ALL), 1);
    CHECK(runs[1] == 1 && runs[2] == 1);
    /* Removed, also where none is. */
    object = pair(NULL, NULL);
    CHECK_OK(besom_finalizer_set(m, object, NULL, NULL));
    CHECK_OK(besom_finalizer_set(m, object, note, N(3)));
    CHECK_OK(besom_finalizer_set(m, object, NULL, N(3)));
    CHECK_OK(besom_collect(m));
    CHECK_EQ(besom_finalizers_run(m, ALL), 0);
    end();
}

static void whole_graphs_are_due_together(void)
{
    enum { COUNT = 1000 };
    void *ring = NULL, *object;
    size_t i;
    begin();
    forget();
    {
        BESOM_FRAME(m, &ring);
        ring = pair(NULL, NULL);
        object = ring;
        for (i = 0; i < COUNT; i++) {
            CHECK_OK(besom_finalizer_set(m, object, note, N(i % 16)));
            if (i + 1 < COUNT) {
                void *const next = pair(NULL, NULL);
                besom_write(m, object, object, next);
                object = next;
            }
        }
        besom_write(m, object, object, ring);
        CHECK_OK(besom_collect(m));
        CHECK_EQ(besom_finalizers_run(m, ALL), 0);
        BESOM_FRAME_END(m);
    }
    CHECK_OK(besom_collect(m));
    CHECK_EQ(metric("besom/gc/specials/due:calls"), COUNT);
    CHECK_EQ(besom_finalizers_run(m, COUNT - 1), COUNT - 1);
    CHECK_OK(besom_collect(m));
    CHECK(ALIVE(ring)); /* the last one leads there */
    CHECK_EQ(besom_finalizers_run(m, ALL), 1);
    CHECK_OK(besom_collect(m));
    CHECK(!ALIVE(ring));
    end();
}

static void *stored;

static void resurrect(besom_mutator *runner, void *object, void *data)
{
    runs[1]++;
    stored = object;
    CHECK_OK(besom_finalizer_set(runner, object, (uintptr_t)data > 1 ? resurrect : NULL, N((uintptr_t)data - 1)));
}

static void a_finalizer_may_resurrect(void)
{
    besom_weak *weak;
    void *object;
    begin();
    forget();
    CHECK_OK(besom_roots_add(heap, &stored, 1, BESOM_VALUES));
    object = pair(leaf(), NULL);
    CHECK_OK(besom_finalizer_set(m, object, resurrect, N(3)));
    {
        unsigned i;
        for (i = 1; i <= 3; i++) {
            stored = NULL;
            CHECK_OK(besom_collect(m));
            CHECK(stored == NULL);
            CHECK_EQ(besom_finalizers_run(m, ALL), 1);
            CHECK(stored == object && runs[1] == i);
            CHECK_OK(besom_collect(m));
            CHECK(ALIVE(object) && ALIVE(((void **)object)[0]));
            CHECK_EQ(besom_finalizers_run(m, ALL), 0);
        }
    }
    weak = besom_weak_new(m, object); /* one that is resurrected is like any other */
    CHECK_OK(besom_collect(m));
    CHECK(besom_weak_get(m, weak) == object);
    stored = NULL;
    CHECK_OK(besom_collect(m));
    CHECK(besom_weak_get(m, weak) == NULL && !ALIVE(object));
    CHECK_OK(besom_roots_remove(heap, &stored));
    end();
}

static void busy(besom_mutator *runner, void *object, void *data)
{
    void **const p = (void **)object, *before = p[0];
    size_t i;
    (void)data;
    for (i = 0; i < 100; i++) NEED(besom_alloc(runner, 1000, BESOM_VALUES) != NULL);
    CHECK_OK(besom_collect(runner));
    CHECK(ALIVE(p) && ALIVE(before) && p[0] == before); /* held by the call */
    besom_block(runner);
    besom_unblock(runner);
    CHECK_EQ(besom_cleanup_add(runner, before, note_cleanup, N(2), NULL), BESOM_OK);
    runs[1]++;
    if (runs[1] == 1) CHECK_EQ(besom_finalizers_run(runner, ALL), 4); /* the others, inside this one */
    CHECK_OK(besom_collect(runner));
    CHECK(ALIVE(p) && ALIVE(before));
}

static void a_finalizer_may_allocate_collect_and_run_others(void)
{
    size_t i;
    begin();
    forget();
    for (i = 0; i < 5; i++) CHECK_OK(besom_finalizer_set(m, pair(leaf(), NULL), busy, NULL));
    CHECK_OK(besom_collect(m));
    CHECK_EQ(besom_finalizers_run(m, ALL), 1);
    CHECK_EQ(runs[1], 5);
    CHECK_OK(besom_collect(m));
    CHECK_EQ(besom_finalizers_run(m, ALL), 5);
    CHECK_EQ(runs[2], 5);
    end();
}

/* Sets itself anew, and collects, so that it is due again at once. */
static void again(besom_mutator *runner, void *object, void *data)
{
    runs[1]++;
    CHECK_OK(besom_finalizer_set(runner, object, again, data));
}

static void again_collecting(void *arg)
{
    runs[2]++;
    CHECK_OK(besom_cleanup_add(m, pair(NULL, NULL), again_collecting, arg, NULL));
    CHECK_OK(besom_collect(m));
}

static void what_becomes_due_meanwhile_waits(void)
{
    begin();
    forget();
    CHECK_OK(besom_finalizer_set(m, pair(NULL, NULL), again, NULL));
    CHECK_OK(besom_cleanup_add(m, pair(NULL, NULL), again_collecting, NULL, NULL));
    CHECK_OK(besom_collect(m));
    CHECK_EQ(besom_finalizers_run(m, ALL), 2);
    CHECK(runs[1] == 1 && runs[2] == 1);
    CHECK(metric("besom/gc/specials/due:calls") >= 1);
    CHECK_LE(besom_finalizers_run(m, ALL), 2);
    end();
}

static void detach_here(besom_mutator *runner, void *object, void *data)
{
    (void)object;
    runs[1]++;
    if (data != NULL && runs[1] < 3) {
        CHECK_EQ(besom_finalizers_run(runner, ALL), 1); /* which detaches */
        return;
    }
    CHECK_OK(besom_detach(runner));
    if (data == heap) CHECK_OK(besom_heap_free(heap));
}

/* nested: data is not NULL. free: it is the heap, and the heap goes with the mutator. */
static void detaching(void *data)
{
    size_t i;
    begin();
    forget();
    if (data == N(2)) data = heap;
    for (i = 0; i < 5; i++) CHECK_OK(besom_finalizer_set(m, pair(NULL, NULL), detach_here, data));
    CHECK_OK(besom_collect(m));
    CHECK_EQ(besom_finalizers_run(m, ALL), 1);
    CHECK_EQ(runs[1], data == NULL ? 1 : 3);
    if (data == heap) return;
    CHECK_OK(besom_attach(heap, &m));
    CHECK_EQ(metric("besom/gc/specials/due:calls"), data == NULL ? 4 : 2);
    CHECK_OK(besom_collect(m));
    CHECK_EQ(besom_finalizers_run(m, 1), 1); /* again, with what is left */
    CHECK_OK(besom_attach(heap, &m));
    end();
}

static void a_finalizer_may_detach(void)
{
    detaching(NULL);
    detaching(N(1));
    detaching(N(2));
}

static void attach_anew(besom_mutator *runner, void *object, void *data)
{
    (void)object, (void)data;
    runs[1]++;
    CHECK_OK(besom_detach(runner));
    CHECK_OK(besom_attach(heap, &m));
}

static void detached_is_detached_though_attached_anew(void)
{
    size_t i;
    begin();
    forget();
    for (i = 0; i < 3; i++) CHECK_OK(besom_finalizer_set(m, pair(NULL, NULL), attach_anew, NULL));
    CHECK_OK(besom_collect(m));
    CHECK_EQ(besom_finalizers_run(m, ALL), 1);
    CHECK(besom_alloc(m, 100, BESOM_VALUES) != NULL);
    CHECK_EQ(metric("besom/gc/specials/due:calls"), 2);
    end();
}

/* Frames that a function of the VM's leaves behind do no harm. */
static void leave_a_frame(besom_mutator *runner, void *object, void *data)
{
    (void)data;
    BESOM_FRAME(runner, &object);
    runs[1]++;
}

static void frames_are_as_before(void)
{
    void *object = NULL;
    struct besom_frame *frames;
    begin();
    forget();
    BESOM_FRAME(m, &object);
    object = pair(NULL, NULL);
    frames = besom_frames_save(m);
    CHECK_OK(besom_finalizer_set(m, pair(NULL, NULL), leave_a_frame, NULL));
    CHECK_OK(besom_finalizer_set(m, pair(NULL, NULL), leave_a_frame, NULL));
    CHECK_OK(besom_collect(m));
    CHECK_EQ(besom_finalizers_run(m, ALL), 2);
    CHECK(besom_frames_save(m) == frames && runs[1] == 2);
    CHECK_OK(besom_collect(m));
    CHECK(ALIVE(object));
    BESOM_FRAME_END(m);
    end();
}

static void nothing_is_run_when_the_heap_is_freed(void)
{
    begin();
    forget();
    CHECK_OK(besom_finalizer_set(m, pair(NULL, NULL), note, N(1)));
    CHECK_OK(besom_cleanup_add(m, pair(NULL, NULL), note_cleanup, N(1), NULL));
    CHECK_OK(besom_collect(m));
    CHECK_OK(besom_finalizer_set(m, pair(NULL, NULL), note, N(1)));
    end();
    CHECK_EQ(runs[1], 0);
}

/* ---- Millions ---- */

static uint64_t calls, sum;
static void count(besom_mutator *runner, void *object, void *data)
{
    (void)runner;
    calls++;
    sum += *(uint64_t *)object;
    CHECK(data == N(*(uint64_t *)object));
}
static void count_cleanup(void *arg) { calls++, sum += (uintptr_t)arg; }

static void millions(void)
{
    const size_t n = check_short() ? 5000 : 2000000;
    const uint64_t total = (uint64_t)n * (n - 1) / 2;
    besom_weak **weak = (besom_weak **)malloc(n * sizeof *weak);
    besom_cleanup *cleanups = (besom_cleanup *)malloc(n * sizeof *cleanups);
    besom_mem_stats counted, walked;
    void *array = NULL, **all;
    size_t i, cleared = 0;
    NEED(weak != NULL && cleanups != NULL);
    begin();
    BESOM_FRAME(m, &array);
    array = besom_alloc(m, 2 * n * sizeof(void *), BESOM_VALUES);
    NEED(array != NULL);
    all = (void **)array;
    for (i = 0; i < n; i++) {
        uint64_t *const object = (uint64_t *)besom_alloc(m, 16, BESOM_NOSCAN);
        NEED(object != NULL);
        *object = i;
        besom_write(m, array, &all[i], object);
        weak[i] = besom_weak_new(m, object);
        NEED(weak[i] != NULL);
        NEED(besom_finalizer_set(m, object, count, N(i)) == BESOM_OK);
        NEED(besom_cleanup_add(m, object, count_cleanup, N(i), &cleanups[i]) == BESOM_OK);
        besom_write(m, array, &all[n + i], besom_ephemeron_new(m, object, pair(object, NULL)));
        NEED(all[n + i] != NULL);
    }
    CHECK_OK(besom_collect(m));
    besom_mem_stats_read_slow(m, &counted, &walked);
    CHECK(counted.gc_sys >= n * (16 + 40 + 44));
    CHECK_EQ(besom_finalizers_run(m, ALL), 0);
    for (i = 0; i < n; i++) {
        NEED(besom_weak_get(m, weak[i]) == all[i] && besom_ephemeron_key(m, all[n + i]) == all[i]);
        if (i % 2 == 1) besom_write(m, array, &all[i], NULL);
    }
    calls = sum = 0;
    CHECK_OK(besom_collect(m));
    for (i = 0; i < n; i++) cleared += besom_weak_get(m, weak[i]) == NULL && besom_ephemeron_key(m, all[n + i]) == NULL;
    CHECK_EQ(cleared, n / 2);
    CHECK_EQ(metric("besom/gc/specials/due:calls"), n / 2);
    for (i = 0; i < n; i++) besom_write(m, array, &all[i], NULL);
    CHECK_OK(besom_collect(m));
    CHECK_EQ(besom_finalizers_run(m, n), n);
    CHECK(calls == n && sum == total);
    calls = sum = 0;
    for (i = 0; i < n; i += 4) CHECK_EQ(besom_cleanup_cancel(heap, cleanups[i]), 1);
    CHECK_OK(besom_collect(m));
    CHECK_EQ(besom_finalizers_run(m, ALL), n - (n + 3) / 4);
    for (i = 0; i < n; i++) CHECK_EQ(besom_cleanup_cancel(heap, cleanups[i]), 0);
    CHECK_EQ(metric("besom/gc/specials/cleanups:cleanups") + metric("besom/gc/specials/finalizers:finalizers"), 0);
    for (i = 0; i < n; i++) besom_weak_free(heap, weak[i]);
    CHECK_EQ(metric("besom/gc/specials/weak:references"), 0);
    BESOM_FRAME_END(m);
    end();
    free(weak);
    free(cleanups);
}

/* ---- Threads ---- */

#define THREADS 4
static uint64_t ran_by_threads;

static void count_shared(besom_mutator *runner, void *object, void *data)
{
    (void)runner;
    CHECK(*(void **)object == data);
    __atomic_fetch_add(&ran_by_threads, 1, __ATOMIC_RELAXED);
}

static void *use_all(void *arg)
{
    const size_t rounds = check_short() ? 300 : 20000;
    besom_mutator *own;
    void *key = NULL, *e = NULL;
    size_t i;
    (void)arg;
    NEED(besom_attach(heap, &own) == BESOM_OK);
    {
        BESOM_FRAME(own, &key, &e);
        for (i = 0; i < rounds; i++) {
            besom_weak *weak;
            besom_cleanup cleanup;
            void **object = (void **)besom_alloc(own, 16, BESOM_VALUES);
            NEED(object != NULL);
            besom_write(own, object, object, key);
            CHECK_OK(besom_finalizer_set(own, object, count_shared, key));
            key = object;
            weak = besom_weak_new(own, key);
            CHECK_OK(besom_cleanup_add(own, key, note_cleanup, N(7), &cleanup));
            e = besom_ephemeron_new(own, key, key);
            NEED(weak != NULL && e != NULL);
            if (i % 64 == 0) CHECK_OK(besom_collect(own));
            CHECK(besom_weak_get(own, weak) == key && besom_ephemeron_key(own, e) == key);
            CHECK(besom_ephemeron_value(own, e) == key);
            CHECK_EQ(besom_cleanup_cancel(heap, cleanup), 1);
            besom_weak_free(heap, weak);
            if (i % 10 == 0) key = NULL;
            if (i % 16 == 0) (void)besom_finalizers_run(own, 20);
        }
        BESOM_FRAME_END(own);
    }
    CHECK_OK(besom_detach(own));
    return NULL;
}

static void threads_share_them(void)
{
    const size_t rounds = check_short() ? 300 : 20000;
    pthread_t threads[THREADS];
    size_t i;
    begin();
    ran_by_threads = 0;
    besom_block(m);
    for (i = 0; i < THREADS; i++) NEED(pthread_create(&threads[i], NULL, use_all, NULL) == 0);
    for (i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    besom_unblock(m);
    CHECK_OK(besom_collect(m));
    (void)besom_finalizers_run(m, ALL);
    CHECK_EQ(ran_by_threads, THREADS * rounds);
    CHECK_EQ(metric("besom/gc/specials/finalizers:finalizers") + metric("besom/gc/specials/cleanups:cleanups"), 0);
    end();
}

/* ---- While cycles run ---- */

#define USERS 2

/* What became of an object; other threads' functions change it by exchanges. */
typedef struct fate {
    uint64_t id;
    besom_weak *weak;
    besom_cleanup cleanup;
    int has_finalizer, has_cleanup;
    int finalized, cleaned;
} fate;

static fate *fates;
static size_t fates_each;
static size_t deaths; /* that were seen from outside */
static int over;

/* An object that tells its number, and leads to one that tells it, too. */
static void **numbered(besom_mutator *own, uint64_t id)
{
    void *p = NULL;
    uint64_t *child;
    BESOM_FRAME(own, &p);
    p = besom_alloc(own, 4 * sizeof(void *), BESOM_VALUES);
    NEED(p != NULL);
    ((void **)p)[1] = N(2 * id + 1);
    child = (uint64_t *)besom_alloc(own, 24, BESOM_NOSCAN);
    NEED(child != NULL);
    *child = ~id;
    besom_write(own, p, p, child);
    BESOM_FRAME_END(own);
    return (void **)p;
}

static int is_whole(void *object, uint64_t id)
{
    void **const p = (void **)object;
    return p[1] == N(2 * id + 1) && *(uint64_t *)p[0] == ~id;
}

static int change(int *what, int to) { return __atomic_exchange_n(what, to, __ATOMIC_SEQ_CST); }

static void finalize_fate(besom_mutator *runner, void *object, void *data)
{
    fate *const f = (fate *)data;
    CHECK(is_whole(object, f->id));
    CHECK(besom_weak_get(runner, f->weak) == NULL); /* no weak reference leads there any more */
    CHECK_EQ(change(&f->finalized, 1), 0);
}

static void clean_fate(void *data)
{
    fate *const f = (fate *)data;
    CHECK_EQ(change(&f->cleaned, 1), 0);
    if (f->has_finalizer) CHECK_EQ(change(&f->finalized, 1), 1); /* which came first */
}

static void *collect_all_the_time(void *arg)
{
    besom_mutator *own;
    (void)arg;
    NEED(besom_attach(heap, &own) == BESOM_OK);
    while (!check_is_set(&over)) CHECK_OK(besom_collect(own));
    CHECK_OK(besom_detach(own));
    return NULL;
}

static void *run_all_the_time(void *arg)
{
    besom_mutator *own;
    (void)arg;
    NEED(besom_attach(heap, &own) == BESOM_OK);
    while (!check_is_set(&over)) {
        (void)besom_finalizers_run(own, 5);
        besom_block(own);
        usleep(50);
        besom_unblock(own);
    }
    CHECK_OK(besom_detach(own));
    return NULL;
}

/* One object, held for a while and let go. */
static void live_and_die(besom_mutator *own, fate *f)
{
    void *object = NULL, *e = NULL, *value = NULL;
    const int until_dead = f->id % 8 == 0;
    int i, dead = 0, closed = 0;
    BESOM_FRAME(own, &object, &e, &value);
    object = numbered(own, f->id);
    value = numbered(own, ~f->id >> 8);
    NEED((f->weak = besom_weak_new(own, object)) != NULL);
    f->has_finalizer = f->id % 2 == 0;
    f->has_cleanup = f->id % 3 != 0;
    if (f->has_finalizer) CHECK_OK(besom_finalizer_set(own, object, finalize_fate, f));
    if (f->has_cleanup) CHECK_OK(besom_cleanup_add(own, object, clean_fate, f, &f->cleanup));
    NEED((e = besom_ephemeron_new(own, object, value)) != NULL);
    value = NULL;
    for (i = 0; i < 10; i++) {
        CHECK(besom_weak_get(own, f->weak) == object && is_whole(object, f->id));
        CHECK(besom_ephemeron_key(own, e) == object);
        CHECK(is_whole(besom_ephemeron_value(own, e), ~f->id >> 8));
        besom_safepoint(own);
    }
    if (f->id % 7 == 1 && f->has_cleanup) {
        f->has_cleanup = 0;
        CHECK_EQ(besom_cleanup_cancel(heap, f->cleanup), 1); /* what is held is not due */
        CHECK_EQ(besom_cleanup_cancel(heap, f->cleanup), 0);
    }
    object = NULL;
    for (i = 0; !dead && (i < 40 || until_dead); i++) {
        /* No safepoint comes between: what is dead is dead for all. */
        void *const p = besom_weak_get(own, f->weak), *const key = besom_ephemeron_key(own, e);
        void *const v = besom_ephemeron_value(own, e);
        dead = p == NULL;
        closed |= key == NULL;
        CHECK(key == p && (v == NULL) == dead && closed == dead);
        if (!dead) {
            CHECK(is_whole(p, f->id) && is_whole(v, ~f->id >> 8));
            object = i % 4 == 0 ? p : NULL; /* held again, and let go */
            besom_safepoint(own);
            if (object != NULL) CHECK(besom_weak_get(own, f->weak) == object && is_whole(object, f->id));
            object = NULL;
        }
        if (until_dead) {
            /* What is read while objects are marked lives on: longer and longer it is not looked at. */
            besom_block(own);
            usleep(20u << (i < 10 ? i : 10));
            besom_unblock(own);
        }
        besom_safepoint(own);
    }
    if (dead) __atomic_fetch_add(&deaths, 1, __ATOMIC_SEQ_CST);
    for (i = 0; i < 5 && dead; i++) {
        CHECK(besom_weak_get(own, f->weak) == NULL && besom_ephemeron_key(own, e) == NULL);
        CHECK(besom_ephemeron_value(own, e) == NULL);
        besom_safepoint(own);
    }
    BESOM_FRAME_END(own);
}

static void *use_while_cycles_run(void *arg)
{
    fate *const own_fates = (fate *)arg;
    besom_mutator *own;
    size_t i;
    NEED(besom_attach(heap, &own) == BESOM_OK);
    for (i = 0; i < fates_each; i++) live_and_die(own, &own_fates[i]);
    CHECK_OK(besom_detach(own));
    return NULL;
}

static void promises_are_kept_while_cycles_run(void)
{
    pthread_t users[USERS], others[2];
    size_t i;
    begin();
    fates_each = check_short() ? 40 : 4000;
    deaths = 0;
    fates = (fate *)calloc(USERS * fates_each, sizeof *fates);
    NEED(fates != NULL);
    for (i = 0; i < USERS * fates_each; i++) fates[i].id = i + 1;
    check_set(&over, 0);
    besom_block(m);
    NEED(pthread_create(&others[0], NULL, collect_all_the_time, NULL) == 0);
    NEED(pthread_create(&others[1], NULL, run_all_the_time, NULL) == 0);
    for (i = 0; i < USERS; i++) NEED(pthread_create(&users[i], NULL, use_while_cycles_run, fates + i * fates_each) == 0);
    for (i = 0; i < USERS; i++) pthread_join(users[i], NULL);
    check_set(&over, 1);
    for (i = 0; i < 2; i++) pthread_join(others[i], NULL);
    besom_unblock(m);
    do CHECK_OK(besom_collect(m));
    while (besom_finalizers_run(m, ALL) != 0);
    for (i = 0; i < USERS * fates_each; i++) {
        fate *const f = &fates[i];
        CHECK(besom_weak_get(m, f->weak) == NULL);
        CHECK_EQ(change(&f->finalized, 0), f->has_finalizer);
        CHECK_EQ(change(&f->cleaned, 0), f->has_cleanup);
        CHECK_EQ(besom_cleanup_cancel(heap, f->cleanup), 0);
        besom_weak_free(heap, f->weak);
    }
    CHECK_EQ(metric("besom/gc/specials/finalizers:finalizers") + metric("besom/gc/specials/cleanups:cleanups"), 0);
    CHECK(deaths >= fates_each / 8 * USERS);
    free(fates);
    end();
}

int main(void)
{
    RUN(weak_references_are_cleared);
    RUN(what_a_weak_reference_gave_is_held);
    RUN(tiny_objects_share_their_blocks_life);
    RUN(an_ephemeron_keeps_its_value_for_its_key);
    RUN(what_an_ephemeron_may_hold);
    RUN(chains_take_work_by_their_length);
    RUN(cleanups_run_once_their_object_is_gone);
    RUN(a_finalizer_gets_its_object);
    RUN(whole_graphs_are_due_together);
    RUN(a_finalizer_may_resurrect);
    RUN(a_finalizer_may_allocate_collect_and_run_others);
    RUN(what_becomes_due_meanwhile_waits);
    RUN(a_finalizer_may_detach);
    RUN(detached_is_detached_though_attached_anew);
    RUN(frames_are_as_before);
    RUN(nothing_is_run_when_the_heap_is_freed);
    RUN(millions);
    RUN(threads_share_them);
    RUN(promises_are_kept_while_cycles_run);
    return check_done();
}
