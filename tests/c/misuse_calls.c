/* Every function that takes a mutator, called where it may not be: blocked, on another thread, detached, in the child
 * of a fork, in a visit, in a trace function, with the heap freed. */
#include "misuse.h"

static int never(void *o, size_t b, besom_kind k, void *d) { return (void)o, (void)b, (void)k, (void)d, 0; }
static void nothing(void *arg) { (void)arg; }
static besom_mem_stats counted, walked;

/* X(function, verify, call): of a call whose fast path would not look. Stores look when they check. */
#define CALLS_BUT_BLOCK(X)                                                                                             \
    X(besom_alloc, OFF, (void)besom_alloc(m, 5000000, BESOM_NOSCAN))                                                   \
    X(besom_new, OFF, (void)besom_new(m, layout))                                                                      \
    X(besom_new_array, OFF, (void)besom_new_array(m, layout, 3))                                                       \
    X(besom_write, HEAP, besom_write(m, object, object, NULL))                                                         \
    X(besom_write_value, HEAP, besom_write_value(m, object, (uint64_t *)object, 0))                                    \
    X(besom_write_range, OFF, besom_write_range(m, object, object, no_object, 1))                                      \
    X(besom_stack_set, OFF, (void)besom_stack_set(m, NULL, NULL, BESOM_VALUES))                                        \
    X(besom_mutator_roots, OFF, (void)besom_mutator_roots(m, NULL, NULL))                                              \
    X(besom_handle_new, OFF, (void)besom_handle_new(m, object))                                                        \
    X(besom_handle_get, OFF, (void)besom_handle_get(m, handle))                                                        \
    X(besom_handle_set, OFF, besom_handle_set(m, handle, NULL))                                                        \
    X(besom_weak_new, OFF, (void)besom_weak_new(m, object))                                                            \
    X(besom_weak_get, OFF, (void)besom_weak_get(m, weak))                                                              \
    X(besom_ephemeron_new, OFF, (void)besom_ephemeron_new(m, object, NULL))                                            \
    X(besom_ephemeron_key, OFF, (void)besom_ephemeron_key(m, ephemeron))                                               \
    X(besom_ephemeron_value, OFF, (void)besom_ephemeron_value(m, ephemeron))                                           \
    X(besom_cleanup_add, OFF, (void)besom_cleanup_add(m, object, nothing, NULL, NULL))                                 \
    X(besom_finalizer_set, OFF, (void)besom_finalizer_set(m, object, NULL, NULL))                                      \
    X(besom_finalizers_run, OFF, (void)besom_finalizers_run(m, 1))                                                     \
    X(besom_collect, OFF, (void)besom_collect(m))                                                                      \
    X(besom_walk, OFF, (void)besom_walk(m, never, NULL))                                                               \
    X(besom_mem_stats_read, OFF, besom_mem_stats_read(m, &counted))                                                    \
    X(besom_mem_stats_read_slow, OFF, besom_mem_stats_read_slow(m, &counted, &walked))
#define CALLS(X)                                                                                                       \
    CALLS_BUT_BLOCK(X)                                                                                                 \
    X(besom_block, OFF, besom_block(m))                                                                                \
    X(besom_unblock, OFF, besom_unblock(m))

#define CALL(fn, verify, call) static void call_##fn(void) { call; }
CALLS(CALL)

static void *run_here(void *run)
{
    (*(void (**)(void))run)();
    return NULL;
}
static void foreign(void (*run)(void))
{
    pthread_t thread;
    NEED(pthread_create(&thread, NULL, run_here, &run) == 0);
    pthread_join(thread, NULL);
}
static void blocked(void (*run)(void))
{
    besom_block(m);
    run();
}
static void detached(void (*run)(void))
{
    detach();
    run();
}
/* In a child, whose abort is the program's. */
static void forked(void (*run)(void))
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
static int visit(void *o, size_t bytes, besom_kind kind, void *run)
{
    (void)o, (void)bytes, (void)kind;
    (*(void (**)(void))run)();
    return 0;
}
static void visited(void (*run)(void))
{
    (void)besom_walk(m, visit, &run);
}
static void roots(void (*run)(void))
{
    in_roots = run;
    (void)besom_collect(m);
}
static void trace_mutator(besom_tracer *tracer, void *o, void *run)
{
    (void)tracer, (void)o;
    if (gettid() == getpid()) (*(void (**)(void))run)();
}
static void mutator_roots(void (*run)(void))
{
    NEED(besom_mutator_roots(m, trace_mutator, &run) == BESOM_OK);
    while (besom_collect(m) == BESOM_OK) {} /* until this thread is the one that scans them */
}
/* A cycle is paced, and marked by the collector's threads, and at last by the one that allocates. */
static void traced(void (*run)(void))
{
    const uint64_t began = check_now_ns();
    int i;
    in_trace = run;
    while (check_now_ns() - began < UINT64_C(30000000000)) {
        void **array = (void **)besom_alloc(m, 1000 * sizeof(void *), BESOM_VALUES);
        BESOM_FRAME(m, &array);
        NEED(array != NULL);
        for (i = 0; i < 1000; i++) besom_write(m, array, &array[i], besom_alloc(m, 1024, BESOM_TRACED));
        besom_handle_set(m, handle, array);
        BESOM_FRAME_END(m);
    }
}
static void freed(void (*run)(void))
{
    detach();
    NEED(besom_heap_free(heap) == BESOM_OK);
    run();
}

#define IN(situation, fn) static void situation##_##fn(void) { situation(call_##fn); }
#define IN_EACH(fn, verify, call)                                                                                      \
    IN(foreign, fn) IN(detached, fn) IN(forked, fn) IN(visited, fn) IN(roots, fn) IN(freed, fn)
#define IN_BLOCKED(fn, verify, call) IN(blocked, fn)
CALLS(IN_EACH)
CALLS_BUT_BLOCK(IN_BLOCKED)
IN(traced, besom_alloc)
IN(traced, besom_collect)
IN(traced, besom_block)
IN(traced, besom_handle_get)
IN(traced, besom_weak_get)
IN(mutator_roots, besom_alloc)
IN(mutator_roots, besom_weak_new)
static void traced_in_a_stop(void) { traced(call_besom_alloc); }
static void roots_in_a_stop(void) { roots(call_besom_alloc); }

static void forked_while_blocked(void)
{
    besom_block(m);
    forked(call_besom_unblock);
}
static void foreign_while_blocked(void)
{
    besom_block(m);
    foreign(call_besom_unblock);
}

/* Allocation of all sorts has the mutator's cells, which serve nothing. */
static void blocked_alloc_small(void) { besom_block(m), (void)besom_alloc(m, 32, BESOM_VALUES); }
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
static void blocked_new_with_room(void)
{
    NEED(besom_new(m, layout) != NULL);
    besom_block(m);
    (void)besom_new(m, layout);
}
static void detached_alloc_small(void) { detach(), (void)besom_alloc(m, 32, BESOM_VALUES); }
static void detached_alloc_tiny(void) { detach(), (void)besom_alloc(m, 1, BESOM_NOSCAN); }
static void block_twice(void) { besom_block(m), besom_block(m); }
static void unblock_first(void) { besom_unblock(m); }
static void unblock_twice(void) { besom_block(m), besom_unblock(m), besom_unblock(m); }

static const misuse_case cases[] = {
#define EACH(fn, verify, call)                                                                                         \
    CASE_VERIFIED(foreign_##fn, BESOM_VERIFY_##verify, FOREIGN(#fn)),                                                  \
    CASE_VERIFIED(detached_##fn, BESOM_VERIFY_##verify, DETACHED(#fn)),                                                \
    CASE_VERIFIED(forked_##fn, BESOM_VERIFY_##verify, FORKED(#fn)),                                                    \
    CASE_VERIFIED(visited_##fn, BESOM_VERIFY_##verify, CALLBACK(#fn)),                                                 \
    CASE_VERIFIED(roots_##fn, BESOM_VERIFY_##verify, CALLBACK(#fn)),                                                   \
    {"freed_" #fn, freed_##fn, BESOM_VERIFY_##verify, BESOM_CONCURRENT, 1, FREED_HEAP(#fn)},
#define EACH_BLOCKED(fn, verify, call) CASE_VERIFIED(blocked_##fn, BESOM_VERIFY_##verify, BLOCKED(#fn)),
    CALLS(EACH)
    CALLS_BUT_BLOCK(EACH_BLOCKED)
    CASE(forked_while_blocked, FORKED("besom_unblock")),
    CASE(foreign_while_blocked, FOREIGN("besom_unblock")),
    CASE(blocked_alloc_small, BLOCKED("besom_alloc")),
    CASE(blocked_alloc_tiny, BLOCKED("besom_alloc")),
    CASE(blocked_alloc_variable, BLOCKED("besom_alloc")),
    CASE(blocked_new_with_room, BLOCKED("besom_new")),
    CASE(detached_alloc_small, DETACHED("besom_alloc")),
    CASE(detached_alloc_tiny, DETACHED("besom_alloc")),
    CASE(block_twice, "^besom: besom_block: mutator is blocked already$"),
    CASE(unblock_first, "^besom: besom_unblock: mutator is not blocked$"),
    CASE(unblock_twice, "^besom: besom_unblock: mutator is not blocked$"),
    CASE(traced_besom_alloc, CALLBACK("besom_alloc")),
    CASE(traced_besom_collect, CALLBACK("besom_collect")),
    CASE(traced_besom_block, CALLBACK("besom_block")),
    CASE(traced_besom_handle_get, CALLBACK("besom_handle_get")),
    CASE(traced_besom_weak_get, CALLBACK("besom_weak_get")),
    CASE(mutator_roots_besom_alloc, CALLBACK("besom_alloc")),
    CASE(mutator_roots_besom_weak_new, CALLBACK("besom_weak_new")),
    CASE_STOPPED(traced_in_a_stop, CALLBACK("besom_alloc")),
    CASE_STOPPED(roots_in_a_stop, CALLBACK("besom_alloc")),
};

int main(int argc, char **argv)
{
#define NAME(fn, verify, call) puts(#fn);
    if (argc == 2 && strcmp(argv[1], "functions") == 0) {
        CALLS(NAME)
        return 0;
    }
    return misuse_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
