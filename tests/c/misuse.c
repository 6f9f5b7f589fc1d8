/* Wrong arguments: kinds, layouts, handles, objects to store into; and stacks that cannot be scanned. */
#include "gate.h"
#include "misuse.h"
#include <ucontext.h>

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
    int i;
    for (i = 0; i < 2; i++) NEED(besom_layout_register(other_heap, 16, NULL, 0, &layout) == BESOM_OK);
    (void)besom_new(m, layout);
}

static void handle_get_freed(void) { besom_handle_free(heap, handle), (void)besom_handle_get(m, handle); }
static void handle_set_freed(void) { besom_handle_free(heap, handle), besom_handle_set(m, handle, object); }
static void handle_free_freed(void) { besom_handle_free(heap, handle), besom_handle_free(heap, handle); }
static void handle_get_foreign(void) { (void)besom_handle_get(other_m, handle); }
static void handle_set_foreign(void) { besom_handle_set(other_m, handle, NULL); }
static void handle_free_foreign(void) { besom_handle_free(other_heap, handle); }
static void handle_get_wild(void) { (void)besom_handle_get(m, (besom_handle *)(void *)no_object); }
static void handle_free_wild(void) { besom_handle_free(heap, (besom_handle *)(void *)no_object); }
static void handle_free_inside(void) { besom_handle_free(heap, (besom_handle *)(void *)((char *)handle + 1)); }
static void handle_get_null(void) { (void)besom_handle_get(m, NULL); }
static void handle_free_object(void) { besom_handle_free(heap, (besom_handle *)object); }
static void handle_free_unmapped(void) { besom_handle_free(heap, (besom_handle *)(uintptr_t)0x10); }

static void write_c_object(void) { besom_write(m, no_object, no_object, NULL); }
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
static void write_value_c_object(void) { besom_write_value(m, no_object, no_object, 3); }
static void write_range_c_object(void) { besom_write_range(m, no_object, no_object, no_object + 4, 2); }
static void write_other_heaps(void)
{
    void **p = (void **)besom_alloc(other_m, 32, BESOM_VALUES);
    besom_write(m, p, p, NULL);
}

/* A store that went past the barrier: it hides an object from marking, which a frame holds that was scanned before. */
static void *taken;
static void take_plainly(void)
{
    taken = behind->holder[0];
    behind->holder[0] = NULL;
}
static void barrier_missing(void)
{
    gate_open_heap(BESOM_CONCURRENT, BESOM_VERIFY_MARKS);
    besom_write(gate_m, behind, &behind->holder[0], besom_alloc(gate_m, 48, BESOM_NOSCAN));
    BESOM_FRAME(gate_m, &taken);
    while_marking(BESOM_CONCURRENT, take_plainly);
    BESOM_FRAME_END(gate_m);
}

/* Stacks that cannot be scanned. */
static void scan_native(void)
{
    besom_options o;
    besom_options_init(&o);
    o.scan_native_stacks = 1;
    heap = check_heap(&o, &m);
    object = besom_alloc(m, 64, BESOM_VALUES);
}
static ucontext_t main_context, coroutine;
static void on_a_coroutine(void (*run)(void))
{
    static char stack[1 << 16];
    NEED(getcontext(&coroutine) == 0);
    coroutine.uc_stack.ss_sp = stack;
    coroutine.uc_stack.ss_size = sizeof stack;
    coroutine.uc_link = &main_context;
    scan_native();
    makecontext(&coroutine, run, 0);
    NEED(swapcontext(&main_context, &coroutine) == 0);
}
static void collect_now(void) { (void)besom_collect(m); }
static void block_now(void) { besom_block(m); }
static void coroutine_collects(void) { on_a_coroutine(collect_now); }
static void coroutine_blocks(void) { on_a_coroutine(block_now); }

static void *block_with_many(void *unused)
{
    enum { WORDS = 8500000 };
    void *volatile words[WORDS];
    size_t i;
    scan_native();
    for (i = 0; i < WORDS; i++) words[i] = object;
    besom_block(m);
    return words[0] == NULL ? NULL : unused;
}
static void block_deep(void)
{
    pthread_t thread;
    pthread_attr_t attributes;
    NEED(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, (size_t)80 << 20) == 0);
    NEED(pthread_create(&thread, &attributes, block_with_many, NULL) == 0);
    pthread_join(thread, NULL);
}

/* Functions of a heap that is freed; those of a mutator are misuse_calls.c's. */
static void free_heap(void)
{
    detach();
    NEED(besom_heap_free(heap) == BESOM_OK);
}
static besom_stats snapshot;
static besom_metric_value value;
static size_t length;
#define HEAP_CALLS(X)                                                                                                  \
    X(besom_heap_free, (void)besom_heap_free(heap))                                                                    \
    X(besom_attach, (void)!besom_attach(heap, &m))                                                                     \
    X(besom_detach, (void)besom_detach(m))                                                                             \
    X(besom_procs_set, (void)besom_procs_set(heap, 1))                                                                 \
    X(besom_procs, (void)besom_procs(heap))                                                                            \
    X(besom_after_fork_child, (void)besom_after_fork_child(heap))                                                      \
    X(besom_size, (void)besom_size(heap, object))                                                                      \
    X(besom_base, (void)besom_base(heap, object))                                                                      \
    X(besom_layout_register, (void)!besom_layout_register(heap, 16, NULL, 0, &layout))                                 \
    X(besom_roots_add, (void)besom_roots_add(heap, no_object, 1, BESOM_VALUES))                                        \
    X(besom_roots_remove, (void)besom_roots_remove(heap, no_object))                                                   \
    X(besom_handle_free, besom_handle_free(heap, handle))                                                              \
    X(besom_weak_free, besom_weak_free(heap, weak))                                                                    \
    X(besom_cleanup_cancel, (void)besom_cleanup_cancel(heap, 1))                                                       \
    X(besom_gc_percent_set, besom_gc_percent_set(heap, 100))                                                           \
    X(besom_memory_limit_set, besom_memory_limit_set(heap, 0))                                                         \
    X(besom_release_memory, (void)besom_release_memory(heap))                                                          \
    X(besom_stats_read, besom_stats_read(heap, &snapshot))                                                             \
    X(besom_metric_read, (void)besom_metric_read(heap, "besom/heap/live:bytes", &value))                               \
    X(besom_metrics_read, (void)besom_metrics_read(heap, &value, 1))                                                   \
    X(besom_metrics_prometheus, (void)besom_metrics_prometheus(heap, NULL, 0, &length))                                \
    X(besom_metrics_json, (void)besom_metrics_json(heap, NULL, 0, &length))                                            \
    X(besom_timeline_start, (void)besom_timeline_start(heap, "/dev/null"))                                             \
    X(besom_timeline_stop, (void)besom_timeline_stop(heap))
#define FREED_CALL(fn, call) static void freed_##fn(void) { free_heap(), call; }
HEAP_CALLS(FREED_CALL)

#define FREED(fn) "^besom: " fn ": handle 0x[0-9a-f]+ is freed already$"
#define NO_HANDLE(fn) "^besom: " fn ": handle 0x[0-9a-f]+ is no handle of this heap$"
#define NO_OBJECT(fn) "^besom: " fn ": 0x[0-9a-f]+ is no object of this heap$"
#define OTHER_STACK                                                                                                    \
    "^besom: roots: thread [1-9][0-9]* is on a stack at 0x[0-9a-f]+, not on its own, 0x[0-9a-f]+ to 0x[0-9a-f]+; "     \
    "scan_native_stacks cannot follow$"

static const misuse_case cases[] = {
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
    CASE_VERIFIED(write_c_object, BESOM_VERIFY_HEAP, NO_OBJECT("besom_write")),
    CASE_VERIFIED(write_interior, BESOM_VERIFY_HEAP, NO_OBJECT("besom_write")),
    CASE_VERIFIED(write_freed, BESOM_VERIFY_HEAP, NO_OBJECT("besom_write")),
    CASE_VERIFIED(write_other_heaps, BESOM_VERIFY_HEAP, NO_OBJECT("besom_write")),
    CASE_VERIFIED(write_value_c_object, BESOM_VERIFY_HEAP, NO_OBJECT("besom_write_value")),
    CASE_VERIFIED(write_range_c_object, BESOM_VERIFY_HEAP, NO_OBJECT("besom_write_range")),
    CASE(barrier_missing, "^besom: verify: .*leads to 0x[0-9a-f]+, 48 bytes, which is not marked$"),
    CASE(coroutine_collects, OTHER_STACK),
    CASE(coroutine_blocks, OTHER_STACK),
    CASE(block_deep, "^besom: besom_block: more than 8388608 words of the stack lie in the heap$"),
#define FREED_CASE(fn, call) CASE_CHECKED(freed_##fn, #fn),
    HEAP_CALLS(FREED_CASE)
};

int main(int argc, char **argv)
{
    return misuse_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
