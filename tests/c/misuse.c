/* Contracts broken on purpose: each case must abort with one line. `misuse list` prints a case a line, its name and a
 * regular expression for what it says; `misuse <case>` runs it. */
#include "check.h"
#include <sys/wait.h>

static besom_heap *heap, *other_heap;
static besom_mutator *m, *other_m;
static void *object;
static besom_handle *handle;
static besom_weak *weak;

static void setup(int verify)
{
    besom_options o;
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    o.verify = verify;
    heap = check_heap(&o, &m);
    other_heap = check_heap(NULL, &other_m);
    object = besom_alloc(m, 64, BESOM_VALUES);
    handle = besom_handle_new(m, object);
    weak = besom_weak_new(m, object);
    NEED(object != NULL && handle != NULL && weak != NULL);
}

static void on_a_thread(void *(*run)(void *))
{
    pthread_t thread;
    NEED(pthread_create(&thread, NULL, run, NULL) == 0);
    pthread_join(thread, NULL);
}

static void kind_9(void) { (void)besom_alloc(m, 10, (besom_kind)9); }
static void kind_4(void) { (void)besom_alloc(m, 10, BESOM_TYPED); }
static void kind_variable(void)
{
    volatile int kind = 1000000;
    (void)besom_alloc(m, 10, (besom_kind)kind);
}
static void kind_large(void) { (void)besom_alloc(m, 100000, (besom_kind)9); }

static void layout_0(void) { (void)besom_new(m, 0); }
static void layout_next(void)
{
    besom_layout layout;
    NEED(besom_layout_register(heap, 16, NULL, 0, &layout) == BESOM_OK);
    NEED(besom_new(m, layout) != NULL);
    (void)besom_new(m, layout + 1);
}
static void layout_product_cell(void) { (void)besom_new(m, 2 * BESOM_SIZE_CLASSES + 3); }
static void layout_beyond(void) { (void)besom_new(m, BESOM_OWN_LAYOUT_END + 5); }
static void layout_max(void) { (void)besom_new(m, UINT32_MAX); }
static void layout_array(void) { (void)besom_new_array(m, 77777, 3); }
static void layout_array_0(void) { (void)besom_new_array(m, 0, 0); }
static void layout_of_other_heap(void)
{
    besom_layout layout;
    NEED(besom_layout_register(other_heap, 16, NULL, 0, &layout) == BESOM_OK);
    (void)besom_new(m, layout);
}

/* In a child, whose abort is the program's. */
static void in_a_child(void (*run)(void))
{
    int status = 0;
    const pid_t child = fork();
    NEED(child >= 0);
    if (child == 0) {
        run();
        _exit(0);
    }
    NEED(waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) abort();
}
static void alloc_64(void) { (void)besom_alloc(m, 64, BESOM_VALUES); }
static void collect_now(void) { (void)besom_collect(m); }
static void block_now(void) { besom_block(m); }
static void unblock_now(void) { besom_unblock(m); }
static void forked_alloc(void) { in_a_child(alloc_64); }
static void forked_collect(void) { in_a_child(collect_now); }
static void forked_block(void) { in_a_child(block_now); }
static void forked_unblock(void) { besom_block(m), in_a_child(unblock_now); }

static void blocked_alloc(void) { besom_block(m), (void)besom_alloc(m, 32, BESOM_VALUES); }
static void blocked_alloc_tiny(void)
{
    (void)besom_alloc(m, 1, BESOM_NOSCAN); /* a tiny block with room */
    besom_block(m);
    (void)besom_alloc(m, 1, BESOM_NOSCAN);
}
static void blocked_alloc_variable(void)
{
    volatile size_t bytes = 5000;
    besom_block(m);
    (void)besom_alloc(m, bytes, BESOM_CONSERVATIVE);
}
static void blocked_alloc_large(void) { besom_block(m), (void)besom_alloc(m, 1000000, BESOM_NOSCAN); }
static void blocked_new(void)
{
    besom_layout layout;
    NEED(besom_layout_register(heap, 16, NULL, 0, &layout) == BESOM_OK);
    NEED(besom_new(m, layout) != NULL);
    besom_block(m);
    (void)besom_new(m, layout);
}
static void blocked_new_array(void)
{
    besom_layout layout;
    NEED(besom_layout_register(heap, 16, NULL, 0, &layout) == BESOM_OK);
    besom_block(m);
    (void)besom_new_array(m, layout, 10);
}
static void blocked_collect(void) { besom_block(m), (void)besom_collect(m); }
static void blocked_handle_new(void) { besom_block(m), (void)besom_handle_new(m, object); }
static void blocked_handle_get(void) { besom_block(m), (void)besom_handle_get(m, handle); }
static int never(void *o, size_t b, besom_kind k, void *d) { return (void)o, (void)b, (void)k, (void)d, 0; }
static void blocked_walk(void) { besom_block(m), (void)besom_walk(m, never, NULL); }
static besom_mem_stats counted, walked;
static void blocked_mem_stats(void) { besom_block(m), besom_mem_stats_read(m, &counted); }
static void blocked_mem_stats_slow(void) { besom_block(m), besom_mem_stats_read_slow(m, &counted, &walked); }
static void trace_and_allocate(besom_tracer *tracer, void *o, void *data)
{
    (void)tracer, (void)o, (void)data;
    (void)besom_alloc(m, 100000, BESOM_NOSCAN);
}
static void callback_alloc_in_roots(void)
{
    (void)besom_mutator_roots(m, trace_and_allocate, NULL);
    (void)besom_collect(m);
}
static int visit_and_collect(void *o, size_t bytes, besom_kind kind, void *data)
{
    (void)o, (void)bytes, (void)kind, (void)data;
    return (int)besom_collect(m);
}
static void callback_collect_in_visit(void) { (void)besom_walk(m, visit_and_collect, NULL); }
static int visit_and_handle(void *o, size_t bytes, besom_kind kind, void *data)
{
    (void)bytes, (void)kind, (void)data;
    return besom_handle_new(m, o) == NULL;
}
static void callback_handle_in_visit(void) { (void)besom_walk(m, visit_and_handle, NULL); }
static int visit_and_count(void *o, size_t bytes, besom_kind kind, void *data)
{
    (void)o, (void)bytes, (void)kind, (void)data;
    besom_mem_stats_read(m, &counted);
    return 0;
}
static void callback_mem_stats_in_visit(void) { (void)besom_walk(m, visit_and_count, NULL); }
static void block_twice(void) { besom_block(m), besom_block(m); }
static void unblock_first(void) { besom_unblock(m); }
static void unblock_twice(void) { besom_block(m), besom_unblock(m), besom_unblock(m); }

static void *alloc_here(void *u) { return (void)besom_alloc(m, 5000000, BESOM_NOSCAN), u; }
static void *collect_here(void *u) { return (void)besom_collect(m), u; }
static void *block_here(void *u) { return besom_block(m), u; }
static void *unblock_here(void *u) { return besom_unblock(m), u; }
static void *handle_new_here(void *u) { return (void)besom_handle_new(m, object), u; }
static void *handle_get_here(void *u) { return (void)besom_handle_get(m, handle), u; }
static void *stack_set_here(void *u) { return (void)besom_stack_set(m, NULL, NULL, BESOM_VALUES), u; }
static void *walk_here(void *u) { return (void)besom_walk(m, never, NULL), u; }
static void *mem_stats_here(void *u) { return besom_mem_stats_read(m, &counted), u; }
static void *mem_stats_slow_here(void *u) { return besom_mem_stats_read_slow(m, &counted, &walked), u; }
static void foreign_alloc(void) { on_a_thread(alloc_here); }
static void foreign_collect(void) { on_a_thread(collect_here); }
static void foreign_block(void) { on_a_thread(block_here); }
static void foreign_unblock(void) { besom_block(m), on_a_thread(unblock_here); }
static void foreign_handle_new(void) { on_a_thread(handle_new_here); }
static void foreign_handle_get(void) { on_a_thread(handle_get_here); }
static void foreign_stack_set(void) { on_a_thread(stack_set_here); }
static void foreign_walk(void) { on_a_thread(walk_here); }
static void foreign_mem_stats(void) { on_a_thread(mem_stats_here); }
static void foreign_mem_stats_slow(void) { on_a_thread(mem_stats_slow_here); }

static void detach(void) { NEED(besom_detach(m) == BESOM_OK); }
static void detached_alloc(void) { detach(), (void)besom_alloc(m, 32, BESOM_VALUES); }
static void detached_alloc_tiny(void) { detach(), (void)besom_alloc(m, 1, BESOM_NOSCAN); }
static void detached_collect(void) { detach(), (void)besom_collect(m); }
static void detached_block(void) { detach(), besom_block(m); }
static void detached_unblock(void) { detach(), besom_unblock(m); }
static void detached_mem_stats(void) { detach(), besom_mem_stats_read(m, &counted); }
static void detached_handle_new(void) { detach(), (void)besom_handle_new(m, NULL); }

static void handle_get_freed(void) { besom_handle_free(heap, handle), (void)besom_handle_get(m, handle); }
static void handle_set_freed(void) { besom_handle_free(heap, handle), besom_handle_set(m, handle, object); }
static void handle_free_freed(void) { besom_handle_free(heap, handle), besom_handle_free(heap, handle); }
static void handle_get_foreign(void) { (void)besom_handle_get(other_m, handle); }
static void handle_set_foreign(void) { besom_handle_set(other_m, handle, NULL); }
static void handle_free_foreign(void) { besom_handle_free(other_heap, handle); }
static uint64_t no_handle[8];
static void handle_get_wild(void) { (void)besom_handle_get(m, (besom_handle *)(void *)no_handle); }
static void handle_free_wild(void) { besom_handle_free(heap, (besom_handle *)(void *)no_handle); }
static void handle_free_inside(void) { besom_handle_free(heap, (besom_handle *)(void *)((char *)handle + 1)); }
static void handle_get_null(void) { (void)besom_handle_get(m, NULL); }
static void handle_free_object(void) { besom_handle_free(heap, (besom_handle *)object); }
static void handle_free_unmapped(void) { besom_handle_free(heap, (besom_handle *)(uintptr_t)0x10); }

static void nothing(void *arg) { (void)arg; }
static void finalizer(besom_mutator *r, void *o, void *data) { (void)r, (void)o, (void)data; }
static void weak_get_freed(void) { besom_weak_free(heap, weak), (void)besom_weak_get(m, weak); }
static void weak_free_freed(void) { besom_weak_free(heap, weak), besom_weak_free(heap, weak); }
static void weak_get_foreign(void) { (void)besom_weak_get(other_m, weak); }
static void weak_free_foreign(void) { besom_weak_free(other_heap, weak); }
static void weak_get_wild(void) { (void)besom_weak_get(m, (besom_weak *)(void *)no_handle); }
static void weak_get_inside(void) { (void)besom_weak_get(m, (besom_weak *)(void *)((char *)weak + 8)); }
static void weak_get_null(void) { (void)besom_weak_get(m, NULL); }
static void weak_get_handle(void) { (void)besom_weak_get(m, (besom_weak *)(void *)handle); }
static void weak_new_null(void) { (void)besom_weak_new(m, NULL); }
static void weak_new_inside(void) { (void)besom_weak_new(m, (char *)object + 8); }
static void weak_new_c_object(void) { (void)besom_weak_new(m, no_handle); }
static void weak_new_foreign(void) { (void)besom_weak_new(other_m, object); }
static void weak_new_not_handed_out(void) { (void)besom_weak_new(m, (char *)object + 64); }
static void weak_new_freed(void)
{
    void *const dead = besom_alloc(m, 2000, BESOM_VALUES);
    NEED(besom_collect(m) == BESOM_OK);
    (void)besom_weak_new(m, dead);
}
/* Found dead by a cycle that leaves the sweep for later: again and again, until the sweeper was not faster. */
static void weak_new_unswept(void)
{
    enum { DEAD = 100 };
    void *dead[DEAD];
    besom_stats stats;
    size_t i, round;
    for (round = 1; round < 1000; round++) {
        for (i = 0; i < DEAD; i++) dead[i] = besom_alloc(m, 30000, BESOM_NOSCAN);
        do {
            NEED(besom_alloc(m, 100, BESOM_VALUES) != NULL);
            besom_stats_read(heap, &stats);
        } while (stats.cycles < 2 * round);
        for (i = DEAD; i-- > 0;)
            if (besom_size(heap, dead[i]) != 0) (void)besom_weak_new(m, dead[i]);
    }
}
static void ephemeron_new_null(void) { (void)besom_ephemeron_new(m, NULL, object); }
static void ephemeron_new_c_object(void) { (void)besom_ephemeron_new(m, no_handle, object); }
static void ephemeron_key_null(void) { (void)besom_ephemeron_key(m, NULL); }
static void ephemeron_key_object(void) { (void)besom_ephemeron_key(m, object); }
static void ephemeron_key_inside(void)
{
    void *const e = besom_ephemeron_new(m, object, NULL);
    (void)besom_ephemeron_key(m, (char *)e + 16);
}
static void ephemeron_value_foreign(void) { (void)besom_ephemeron_value(other_m, besom_ephemeron_new(m, object, NULL)); }
static void ephemeron_value_dead(void)
{
    void *const e = besom_ephemeron_new(m, object, NULL);
    NEED(besom_collect(m) == BESOM_OK);
    (void)besom_ephemeron_value(m, e);
}
static void cleanup_add_null(void) { (void)besom_cleanup_add(m, NULL, nothing, NULL, NULL); }
static void cleanup_add_inside(void) { (void)besom_cleanup_add(m, (char *)object + 1, nothing, NULL, NULL); }
static void finalizer_set_c_object(void) { (void)besom_finalizer_set(m, no_handle, finalizer, NULL); }
static void finalizer_set_null(void) { (void)besom_finalizer_set(m, NULL, NULL, NULL); }
static void block_for_good(besom_mutator *r, void *o, void *data)
{
    (void)o, (void)data;
    besom_block(r);
}
static void finalizer_blocks(void)
{
    NEED(besom_finalizer_set(m, besom_alloc(m, 16, BESOM_VALUES), block_for_good, NULL) == BESOM_OK);
    NEED(besom_collect(m) == BESOM_OK);
    (void)besom_finalizers_run(m, 1);
}
static void blocked_weak_get(void) { besom_block(m), (void)besom_weak_get(m, weak); }
static void blocked_finalizers_run(void) { besom_block(m), (void)besom_finalizers_run(m, 1); }
static void blocked_ephemeron_new(void) { besom_block(m), (void)besom_ephemeron_new(m, object, NULL); }
static void detached_weak_new(void) { detach(), (void)besom_weak_new(m, object); }
static void detached_finalizers_run(void) { detach(), (void)besom_finalizers_run(m, 1); }
static void *weak_get_here(void *u) { return (void)besom_weak_get(m, weak), u; }
static void foreign_weak_get(void) { on_a_thread(weak_get_here); }
static void *finalizers_run_here(void *u) { return (void)besom_finalizers_run(m, 1), u; }
static void foreign_finalizers_run(void) { on_a_thread(finalizers_run_here); }
static int visit_and_run(void *o, size_t bytes, besom_kind kind, void *data)
{
    (void)o, (void)bytes, (void)kind, (void)data;
    return besom_finalizers_run(m, 1) != 0;
}
static void callback_finalizers_run_in_visit(void) { (void)besom_walk(m, visit_and_run, NULL); }

static void write_c_object(void) { besom_write(m, no_handle, no_handle, NULL); }
static void write_interior(void) { besom_write(m, (char *)object + 8, (char *)object + 8, NULL); }
static uintptr_t hidden; /* a dead object's address, inverted so that no stack scan finds it */
static void __attribute__((noinline)) make_hidden(void) { hidden = ~(uintptr_t)besom_alloc(m, 5008, BESOM_VALUES); }
static void write_freed(void)
{
    make_hidden();
    NEED(besom_detach(m) == BESOM_OK && besom_attach(heap, &m) == BESOM_OK);
    NEED(besom_collect(m) == BESOM_OK && besom_size(heap, (void *)~hidden) == 0);
    besom_write(m, (void *)~hidden, (void *)~hidden, NULL);
}
static void write_value_c_object(void) { besom_write_value(m, no_handle, no_handle, 3); }
static void write_range_c_object(void) { besom_write_range(m, no_handle, no_handle, no_handle + 4, 2); }
static void write_other_heaps(void)
{
    void **p = (void **)besom_alloc(other_m, 32, BESOM_VALUES);
    besom_write(m, p, p, NULL);
}

#define BLOCKED(fn) "^besom: " fn ": mutator is blocked, between besom_block and besom_unblock$"
#define FORKED(fn) "^besom: " fn ": the process was forked, and besom_after_fork_child was not called$"
#define FOREIGN(fn)                                                                                                    \
    "^besom: " fn ": called on another thread than the mutator's, attached on thread [1-9][0-9]*, called on [1-9][0-9]*$"
#define DETACHED(fn) "^besom: " fn ": mutator is detached$"
#define CALLBACK(fn) "^besom: " fn ": called by a trace function or a visit$"
#define FREED(fn) "^besom: " fn ": handle 0x[0-9a-f]+ is freed already$"
#define WEAK_FREED(fn) "^besom: " fn ": weak reference 0x[0-9a-f]+ is freed already$"
#define NO_WEAK(fn) "^besom: " fn ": weak reference 0x[0-9a-f]+ is no weak reference of this heap$"
#define NOT_OF_HEAP(fn) "^besom: " fn ": 0x[0-9a-f]+ is no object of the heap$"
#define NO_EPHEMERON(fn) "^besom: " fn ": 0x[0-9a-f]+ is no ephemeron of the heap$"
#define NO_HANDLE(fn) "^besom: " fn ": handle 0x[0-9a-f]+ is no handle of this heap$"
#define NO_OBJECT(fn) "^besom: " fn ": 0x[0-9a-f]+ is no object of this heap$"

/* A heap that is freed, and the mutator of a thread that left it before. */
static void free_heap(void)
{
    detach();
    NEED(besom_heap_free(heap) == BESOM_OK);
}
static besom_stats snapshot;
static besom_metric_value value;
static void freed_stats(void) { free_heap(), besom_stats_read(heap, &snapshot); }
static void freed_metric(void) { free_heap(), (void)besom_metric_read(heap, "besom/heap/live:bytes", &value); }
static void freed_timeline(void) { free_heap(), (void)besom_timeline_stop(heap); }
static void freed_attach(void)
{
    free_heap();
    NEED(besom_attach(heap, &m) != BESOM_OK);
}
static void freed_free(void) { free_heap(), (void)besom_heap_free(heap); }
static void freed_mem_stats(void) { free_heap(), besom_mem_stats_read(m, &counted); }
static void freed_mem_stats_slow(void) { free_heap(), besom_mem_stats_read_slow(m, &counted, &walked); }
static void freed_alloc(void) { free_heap(), (void)besom_alloc(m, 32, BESOM_VALUES); }
static void freed_new(void) { free_heap(), (void)besom_new(m, BESOM_OWN_LAYOUT_FIRST); }
static void freed_collect(void) { free_heap(), (void)besom_collect(m); }
static void freed_walk(void) { free_heap(), (void)besom_walk(m, never, NULL); }
static void freed_block(void) { free_heap(), besom_block(m); }
static void freed_unblock(void) { free_heap(), besom_unblock(m); }
static void freed_detach(void) { free_heap(), (void)besom_detach(m); }
static void freed_weak_get(void) { free_heap(), (void)besom_weak_get(m, weak); }
static void freed_finalizers_run(void) { free_heap(), (void)besom_finalizers_run(m, 1); }
static void freed_cleanup_cancel(void) { free_heap(), (void)besom_cleanup_cancel(heap, 1); }
static void freed_handle_new(void) { free_heap(), (void)besom_handle_new(m, NULL); }
static void freed_stack_set(void) { free_heap(), (void)besom_stack_set(m, NULL, NULL, BESOM_VALUES); }

static const struct { const char *name; void (*run)(void); int verify, checked; const char *pattern; } cases[] = {
#define CASE(name, pattern) {#name, name, BESOM_VERIFY_OFF, 0, pattern}
/* Told in the checked build only (make lib CHECKED=1; the runner sets CHECKED). */
#define CASE_CHECKED(name, fn) {#name, name, BESOM_VERIFY_OFF, 1, "^besom: " fn ": heap is freed$"}
#define CASE_VERIFIED(name, pattern) {#name, name, BESOM_VERIFY_HEAP, 0, pattern}
    CASE(kind_9, "^besom: besom_alloc: kind 9, expected 0\\.\\.3$"),
    CASE(kind_4, "^besom: besom_alloc: kind 4, expected 0\\.\\.3$"),
    CASE(kind_variable, "^besom: besom_alloc: kind 1000000, expected 0\\.\\.3$"),
    CASE(kind_large, "^besom: besom_alloc: kind 9, expected 0\\.\\.3$"),
    CASE(layout_0, "^besom: besom_new: layout 0 is not registered$"),
    CASE(layout_next, "^besom: besom_new: layout [0-9]+ is not registered$"),
    CASE(layout_product_cell, "^besom: besom_new: layout 137 is not registered$"),
    CASE(layout_beyond, "^besom: besom_new: layout 1365 is not registered$"),
    CASE(layout_max, "^besom: besom_new: layout 4294967295 is not registered$"),
    CASE(layout_array, "^besom: besom_new_array: layout 77777 is not registered$"),
    CASE(layout_array_0, "^besom: besom_new_array: layout 0 is not registered$"),
    CASE(layout_of_other_heap, "^besom: besom_new: layout [0-9]+ is not registered$"),
    CASE(forked_alloc, FORKED("besom_alloc")),
    CASE(forked_collect, FORKED("besom_collect")),
    CASE(forked_block, FORKED("besom_block")),
    CASE(forked_unblock, FORKED("besom_unblock")),
    CASE(blocked_alloc, BLOCKED("besom_alloc")),
    CASE(blocked_alloc_tiny, BLOCKED("besom_alloc")),
    CASE(blocked_alloc_variable, BLOCKED("besom_alloc")),
    CASE(blocked_alloc_large, BLOCKED("besom_alloc")),
    CASE(blocked_new, BLOCKED("besom_new")),
    CASE(blocked_new_array, BLOCKED("besom_new_array")),
    CASE(blocked_collect, BLOCKED("besom_collect")),
    CASE(blocked_handle_new, BLOCKED("besom_handle_new")),
    CASE(blocked_handle_get, BLOCKED("besom_handle_get")),
    CASE(blocked_walk, BLOCKED("besom_walk")),
    CASE(blocked_mem_stats, BLOCKED("besom_mem_stats_read")),
    CASE(blocked_mem_stats_slow, BLOCKED("besom_mem_stats_read_slow")),
    CASE(block_twice, "^besom: besom_block: mutator is blocked already$"),
    CASE(unblock_first, "^besom: besom_unblock: mutator is not blocked$"),
    CASE(unblock_twice, "^besom: besom_unblock: mutator is not blocked$"),
    CASE(foreign_alloc, FOREIGN("besom_alloc")),
    CASE(foreign_collect, FOREIGN("besom_collect")),
    CASE(foreign_block, FOREIGN("besom_block")),
    CASE(foreign_unblock, FOREIGN("besom_unblock")),
    CASE(foreign_handle_new, FOREIGN("besom_handle_new")),
    CASE(foreign_handle_get, FOREIGN("besom_handle_get")),
    CASE(foreign_stack_set, FOREIGN("besom_stack_set")),
    CASE(foreign_walk, FOREIGN("besom_walk")),
    CASE(foreign_mem_stats, FOREIGN("besom_mem_stats_read")),
    CASE(foreign_mem_stats_slow, FOREIGN("besom_mem_stats_read_slow")),
    CASE(detached_alloc, DETACHED("besom_alloc")),
    CASE(detached_alloc_tiny, DETACHED("besom_alloc")),
    CASE(detached_collect, DETACHED("besom_collect")),
    CASE(detached_block, DETACHED("besom_block")),
    CASE(detached_unblock, DETACHED("besom_unblock")),
    CASE(detached_mem_stats, DETACHED("besom_mem_stats_read")),
    CASE(detached_handle_new, DETACHED("besom_handle_new")),
    CASE(callback_alloc_in_roots, CALLBACK("besom_alloc")),
    CASE(callback_collect_in_visit, CALLBACK("besom_collect")),
    CASE(callback_handle_in_visit, CALLBACK("besom_handle_new")),
    CASE(callback_mem_stats_in_visit, CALLBACK("besom_mem_stats_read")),
    CASE(handle_get_freed, FREED("besom_handle_get")),
    CASE(handle_set_freed, FREED("besom_handle_set")),
    CASE(handle_free_freed, FREED("besom_handle_free")),
    CASE(handle_get_foreign, NO_HANDLE("besom_handle_get")),
    CASE(handle_set_foreign, NO_HANDLE("besom_handle_set")),
    CASE(handle_free_foreign, NO_HANDLE("besom_handle_free")),
    CASE(handle_get_wild, NO_HANDLE("besom_handle_get")),
    CASE(handle_free_wild, NO_HANDLE("besom_handle_free")),
    CASE(handle_free_inside, NO_HANDLE("besom_handle_free")),
    CASE(handle_get_null, NO_HANDLE("besom_handle_get")),
    CASE(handle_free_object, NO_HANDLE("besom_handle_free")),
    CASE(handle_free_unmapped, NO_HANDLE("besom_handle_free")),
    CASE(weak_get_freed, WEAK_FREED("besom_weak_get")),
    CASE(weak_free_freed, WEAK_FREED("besom_weak_free")),
    CASE(weak_get_foreign, NO_WEAK("besom_weak_get")),
    CASE(weak_free_foreign, NO_WEAK("besom_weak_free")),
    CASE(weak_get_wild, NO_WEAK("besom_weak_get")),
    CASE(weak_get_inside, NO_WEAK("besom_weak_get")),
    CASE(weak_get_null, NO_WEAK("besom_weak_get")),
    CASE(weak_get_handle, NO_WEAK("besom_weak_get")),
    CASE(weak_new_null, NOT_OF_HEAP("besom_weak_new")),
    CASE(weak_new_inside, NOT_OF_HEAP("besom_weak_new")),
    CASE(weak_new_c_object, NOT_OF_HEAP("besom_weak_new")),
    CASE(weak_new_foreign, NOT_OF_HEAP("besom_weak_new")),
    CASE(weak_new_not_handed_out, NOT_OF_HEAP("besom_weak_new")),
    CASE(weak_new_freed, NOT_OF_HEAP("besom_weak_new")),
    CASE(weak_new_unswept, NOT_OF_HEAP("besom_weak_new")),
    CASE(ephemeron_new_null, NOT_OF_HEAP("besom_ephemeron_new")),
    CASE(ephemeron_new_c_object, NOT_OF_HEAP("besom_ephemeron_new")),
    CASE(ephemeron_key_null, NO_EPHEMERON("besom_ephemeron_key")),
    CASE(ephemeron_key_object, NO_EPHEMERON("besom_ephemeron_key")),
    CASE(ephemeron_key_inside, NO_EPHEMERON("besom_ephemeron_key")),
    CASE(ephemeron_value_foreign, NO_EPHEMERON("besom_ephemeron_value")),
    CASE(ephemeron_value_dead, NO_EPHEMERON("besom_ephemeron_value")),
    CASE(cleanup_add_null, NOT_OF_HEAP("besom_cleanup_add")),
    CASE(cleanup_add_inside, NOT_OF_HEAP("besom_cleanup_add")),
    CASE(finalizer_set_c_object, NOT_OF_HEAP("besom_finalizer_set")),
    CASE(finalizer_set_null, NOT_OF_HEAP("besom_finalizer_set")),
    CASE(finalizer_blocks, BLOCKED("besom_finalizers_run")),
    CASE(blocked_weak_get, BLOCKED("besom_weak_get")),
    CASE(blocked_finalizers_run, BLOCKED("besom_finalizers_run")),
    CASE(blocked_ephemeron_new, BLOCKED("besom_ephemeron_new")),
    CASE(detached_weak_new, DETACHED("besom_weak_new")),
    CASE(detached_finalizers_run, DETACHED("besom_finalizers_run")),
    CASE(foreign_weak_get, FOREIGN("besom_weak_get")),
    CASE(foreign_finalizers_run, FOREIGN("besom_finalizers_run")),
    CASE(callback_finalizers_run_in_visit, CALLBACK("besom_finalizers_run")),
    CASE_VERIFIED(write_c_object, NO_OBJECT("besom_write")),
    CASE_VERIFIED(write_interior, NO_OBJECT("besom_write")),
    CASE_VERIFIED(write_freed, NO_OBJECT("besom_write")),
    CASE_VERIFIED(write_other_heaps, NO_OBJECT("besom_write")),
    CASE_VERIFIED(write_value_c_object, NO_OBJECT("besom_write_value")),
    CASE_VERIFIED(write_range_c_object, NO_OBJECT("besom_write_range")),
    CASE_CHECKED(freed_stats, "besom_stats_read"),
    CASE_CHECKED(freed_metric, "besom_metric_read"),
    CASE_CHECKED(freed_timeline, "besom_timeline_stop"),
    CASE_CHECKED(freed_attach, "besom_attach"),
    CASE_CHECKED(freed_free, "besom_heap_free"),
    CASE_CHECKED(freed_mem_stats, "besom_mem_stats_read"),
    CASE_CHECKED(freed_mem_stats_slow, "besom_mem_stats_read_slow"),
    CASE_CHECKED(freed_alloc, "besom_alloc"),
    CASE_CHECKED(freed_new, "besom_new"),
    CASE_CHECKED(freed_collect, "besom_collect"),
    CASE_CHECKED(freed_walk, "besom_walk"),
    CASE_CHECKED(freed_block, "besom_block"),
    CASE_CHECKED(freed_unblock, "besom_unblock"),
    CASE_CHECKED(freed_detach, "besom_detach"),
    CASE_CHECKED(freed_weak_get, "besom_weak_get"),
    CASE_CHECKED(freed_finalizers_run, "besom_finalizers_run"),
    CASE_CHECKED(freed_cleanup_cancel, "besom_cleanup_cancel"),
    CASE_CHECKED(freed_handle_new, "besom_handle_new"),
    CASE_CHECKED(freed_stack_set, "besom_stack_set"),
};

int main(int argc, char **argv)
{
    size_t i;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (cases[i].checked && getenv("CHECKED") == NULL) continue;
        if (argc == 2 && strcmp(argv[1], "list") == 0) printf("%s\t%s\n", cases[i].name, cases[i].pattern);
        if (argc == 2 && strcmp(argv[1], cases[i].name) == 0) {
            setup(cases[i].verify);
            cases[i].run();
            return 0; /* it should not come back */
        }
    }
    return argc == 2 && strcmp(argv[1], "list") == 0 ? 0 : 2;
}
