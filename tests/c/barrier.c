/* What is kept while objects are marked beside the program: what a store overwrites, what was in roots when marking
 * began, and what comes out of weak references and ephemerons. Each object is taken from where it was, into a frame, in
 * the middle of a cycle: that frame was scanned before, so that nothing but the barrier, or the roots as they were,
 * keeps it. */
#include "gate.h"

#define ALIVE(object) (besom_size(gate_heap, (object)) != 0)
enum { MANY = 40 }; /* more than besom_write_range overwrites one by one */

static int mode;
static void *kept[64];
static void **frame_slot; /* a frame's local, which was NULL when marking began */

static void *fresh(void)
{
    void **object = (void **)besom_alloc(gate_m, 32, BESOM_VALUES);
    NEED(object != NULL);
    return object;
}

static void begin(void)
{
    mode = check_concurrent() ? BESOM_CONCURRENT : BESOM_STOP_THE_WORLD;
    gate_open_heap(mode, BESOM_VERIFY_OFF);
}

/* Runs a cycle that act is in the middle of; frame_slot holds what act puts there. */
static void run(void (*act)(void))
{
    void *local = NULL;
    frame_slot = &local;
    {
        BESOM_FRAME(gate_m, &local);
        while_marking(mode, act);
        BESOM_FRAME_END(gate_m);
    }
}

static void fill_behind(int n)
{
    int i;
    for (i = 0; i < n; i++) besom_write(gate_m, behind, &behind->holder[i], kept[i] = fresh());
}

/* Several objects into one that is new, by plain stores: it is the first thing that happens to it. */
static void hold_all(int n)
{
    void **array = (void **)besom_alloc(gate_m, (size_t)n * sizeof(void *), BESOM_VALUES);
    NEED(array != NULL);
    memcpy(array, kept, (size_t)n * sizeof(void *));
    *frame_slot = array;
}

static void overwrite_one(void)
{
    *frame_slot = behind->holder[0];
    besom_write(gate_m, behind, &behind->holder[0], NULL);
}
static void overwrite_value(void)
{
    *frame_slot = behind->holder[0];
    besom_write_value(gate_m, behind, (uint64_t *)(void *)&behind->holder[0], 5);
}
static void *const nulls[MANY] = {NULL};
static void overwrite_few(void)
{
    hold_all(3);
    besom_write_range(gate_m, behind, behind->holder, nulls, 3);
}
static void overwrite_many(void)
{
    hold_all(MANY);
    besom_write_range(gate_m, behind, behind->holder, nulls, MANY);
}

static void overwrites(void (*act)(void), int n)
{
    int i, dead = 0;
    begin();
    fill_behind(n);
    run(act);
    for (i = 0; i < n; i++) dead += !ALIVE(kept[i]);
    CHECK_EQ(dead, 0);
    CHECK_OK(besom_collect(gate_m));
    for (i = 0; i < n; i++) dead += !ALIVE(kept[i]);
    CHECK_EQ(dead, n); /* but not for good */
    check_heap_end(gate_heap, gate_m);
}

static void what_stores_overwrite_is_kept(void)
{
    overwrites(overwrite_one, 1);
    overwrites(overwrite_value, 1);
    overwrites(overwrite_few, 3);
    overwrites(overwrite_many, MANY);
}

/* ---- Roots that need no barrier, as they were when marking began ---- */

static void *words[4], *top = words, *traced_root;
static besom_handle *handle;
static void *root_range[1];

static void trace_own(besom_tracer *tracer, void *object, void *data)
{
    (void)object;
    besom_trace(tracer, *(void **)data);
}
static void take_still(void) { *frame_slot = still, still = NULL; }
static void take_from_stack(void) { *frame_slot = words[0], top = words; }
static void take_traced_root(void) { *frame_slot = traced_root, traced_root = NULL; }
static void take_from_handle(void)
{
    *frame_slot = besom_handle_get(gate_m, handle);
    besom_handle_set(gate_m, handle, NULL);
}
static void free_the_handle(void)
{
    *frame_slot = besom_handle_get(gate_m, handle);
    besom_handle_free(gate_heap, handle);
}
static void take_from_range(void)
{
    *frame_slot = root_range[0];
    besom_write(gate_m, NULL, &root_range[0], NULL);
}
static void remove_the_range(void)
{
    *frame_slot = root_range[0];
    CHECK_OK(besom_roots_remove(gate_heap, root_range));
    root_range[0] = NULL;
}

static void put_still(void *o) { still = o; }
static void put_on_stack(void *o)
{
    words[0] = o, top = words + 1;
    CHECK_OK(besom_stack_set(gate_m, words, &top, BESOM_VALUES));
}
static void put_traced_root(void *o)
{
    traced_root = o;
    CHECK_OK(besom_mutator_roots(gate_m, trace_own, &traced_root));
}
static void put_in_handle(void *o) { NEED((handle = besom_handle_new(gate_m, o)) != NULL); }
static void put_in_range(void *o)
{
    root_range[0] = o;
    CHECK_OK(besom_roots_add(gate_heap, root_range, 1, BESOM_VALUES));
}

static void moved(void (*put)(void *), void (*take)(void))
{
    begin();
    put(kept[0] = fresh());
    run(take);
    CHECK(ALIVE(kept[0]));
    CHECK_OK(besom_collect(gate_m));
    CHECK(!ALIVE(kept[0]));
    check_heap_end(gate_heap, gate_m);
}

static void roots_are_taken_as_they_were(void)
{
    moved(put_still, take_still);
    moved(put_on_stack, take_from_stack);
    moved(put_traced_root, take_traced_root);
    moved(put_in_handle, take_from_handle);
    moved(put_in_handle, free_the_handle);
    moved(put_in_range, take_from_range);
    moved(put_in_range, remove_the_range);
}

static void change_still(void)
{
    still = behind->holder[0];
    besom_write(gate_m, behind, &behind->holder[0], NULL);
}

static void the_heaps_own_roots_are_read_once(void)
{
    begin();
    fill_behind(1);
    still_calls = 0;
    run(change_still);
    CHECK_EQ(still_calls, 1);
    CHECK(ALIVE(kept[0]));
    CHECK_OK(besom_collect(gate_m)); /* which finds it there */
    CHECK_EQ(still_calls, 2);
    CHECK(ALIVE(kept[0]));
    check_heap_end(gate_heap, gate_m);
}

/* ---- New objects ---- */

static void store_into_a_new_one(void)
{
    void **object = (void **)fresh();
    object[0] = behind->holder[0];
    besom_write(gate_m, behind, &behind->holder[0], NULL);
    *frame_slot = kept[1] = object;
}

static void new_objects_live_and_hold(void)
{
    begin();
    fill_behind(1);
    run(store_into_a_new_one);
    CHECK(ALIVE(kept[0]) && ALIVE(kept[1]));
    CHECK_OK(besom_collect(gate_m));
    CHECK(!ALIVE(kept[0]) && !ALIVE(kept[1]));
    check_heap_end(gate_heap, gate_m);
}

/* ---- What names an object and does not keep it ---- */

static besom_weak *weak;
static void *ephemeron;

static void get_weak(void) { *frame_slot = besom_weak_get(gate_m, weak); }
static void get_key(void) { *frame_slot = besom_ephemeron_key(gate_m, ephemeron); }
static void get_both(void)
{
    get_key(); /* which is held, and so is the value then */
    CHECK(besom_ephemeron_value(gate_m, ephemeron) == kept[1]);
}
static void get_value(void) { *frame_slot = besom_ephemeron_value(gate_m, ephemeron); }
static void get_none(void) {}

static void what_a_weak_reference_gives_is_kept(void (*get)(void), int keeps)
{
    begin();
    weak = besom_weak_new(gate_m, kept[0] = fresh());
    NEED(weak != NULL);
    run(get);
    CHECK_EQ(ALIVE(kept[0]), keeps);
    CHECK_EQ(besom_weak_get(gate_m, weak) != NULL, keeps);
    besom_weak_free(gate_heap, weak);
    check_heap_end(gate_heap, gate_m);
}

static void what_an_ephemeron_gives_is_kept(void (*get)(void), int keeps)
{
    begin();
    kept[0] = fresh(), kept[1] = fresh();
    ephemeron = besom_ephemeron_new(gate_m, kept[0], kept[1]);
    NEED(ephemeron != NULL && besom_handle_new(gate_m, ephemeron) != NULL);
    run(get);
    CHECK_EQ(ALIVE(kept[1]), keeps);
    if (get != get_value) { /* without its key it may be of no ephemeron any more */
        CHECK_EQ(ALIVE(kept[0]), keeps);
        CHECK_EQ(besom_ephemeron_key(gate_m, ephemeron) != NULL, keeps);
        CHECK_EQ(besom_ephemeron_value(gate_m, ephemeron) != NULL, keeps);
    }
    check_heap_end(gate_heap, gate_m);
}

static void what_was_got_is_kept(void)
{
    what_a_weak_reference_gives_is_kept(get_weak, 1);
    what_a_weak_reference_gives_is_kept(get_none, 0);
    what_an_ephemeron_gives_is_kept(get_key, 1);
    what_an_ephemeron_gives_is_kept(get_both, 1);
    what_an_ephemeron_gives_is_kept(get_value, 1);
    what_an_ephemeron_gives_is_kept(get_none, 0);
}

/* ---- What is not checked unless verify says so ---- */

static void *c_object[4];

static void store_into_c_objects(void)
{
    uint64_t word = 0;
    *frame_slot = behind->holder[0];
    besom_write(gate_m, c_object, &c_object[0], behind);
    besom_write_value(gate_m, c_object, &word, 77);
    CHECK_EQ(word, 77);
    besom_write_range(gate_m, c_object, &c_object[1], behind->holder, 2);
    CHECK(c_object[0] == behind && c_object[1] == kept[0] && c_object[2] == kept[1]);
    besom_write_range(gate_m, c_object, c_object, nulls, 4);
    CHECK(c_object[0] == NULL && c_object[2] == NULL);
}

/* What does not lie in the heap is stored to as anything else, without verify = heap. (misuse.c has that.) */
static void stores_do_not_look_where_they_go(void)
{
    begin();
    fill_behind(2);
    run(store_into_c_objects);
    CHECK(ALIVE(kept[0]) && ALIVE(kept[1]));
    check_heap_end(gate_heap, gate_m);
}

int main(void)
{
    RUN(what_stores_overwrite_is_kept);
    RUN(roots_are_taken_as_they_were);
    RUN(the_heaps_own_roots_are_read_once);
    RUN(new_objects_live_and_hold);
    RUN(what_was_got_is_kept);
    RUN(stores_do_not_look_where_they_go);
    return check_done();
}
