/* Forks beside others: the child goes on, whatever the parent's threads did at that moment. */
#include "fork.h"

static void finalized(besom_mutator *m, void *object, void *data)
{
    (void)m, (void)object, (void)data;
}

static void cleaned(void *unused)
{
    (void)unused;
}

/* Specials of an object, which go or stay. */
static void add_specials(besom_mutator *m, node *object, unsigned seed)
{
    besom_weak *weak = besom_weak_new(m, object);
    uint64_t cleanup;
    NEED(weak != NULL && besom_weak_get(m, weak) == object);
    NEED(besom_cleanup_add(m, object, cleaned, NULL, &cleanup) == BESOM_OK);
    NEED(besom_finalizer_set(m, object, finalized, NULL) == BESOM_OK);
    NEED(besom_ephemeron_new(m, object, object) != NULL);
    if (seed & 1) (void)besom_cleanup_cancel(shared, cleanup); /* another thread may have */
    if (seed & 2) NEED(besom_finalizer_set(m, object, NULL, NULL) == BESOM_OK);
    besom_weak_free(shared, weak);
    (void)besom_finalizers_run(m, 2);
}

static void *churn(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)argument;
    while (!check_is_set(&over)) {
        besom_mutator *m = attach(shared);
        unsigned i;
        node *list = NULL;
        BESOM_FRAME(m, &list);
        list = list_of(m, 1000 + seed % 5000);
        for (i = 0; i < 30 && !check_is_set(&over); i++) {
            seed = seed * 1664525u + 1013904223u;
            switch (seed >> 28) {
                case 0: NEED(besom_collect(m) == BESOM_OK); break;
                case 1:
                    besom_block(m);
                    usleep(seed >> 8 & 511);
                    besom_unblock(m);
                    break;
                case 2: {
                    besom_handle *handle = besom_handle_new(m, list);
                    besom_handle_set(m, handle, NULL);
                    besom_handle_free(shared, handle);
                    break;
                }
                case 3: {
                    besom_mem_stats s;
                    besom_mem_stats_read(m, &s);
                    break;
                }
                case 5: add_specials(m, list, seed >> 8); break;
                case 4: NEED(besom_alloc(m, 40000 + (seed & 0xffff), BESOM_NOSCAN) != NULL); break;
                default: (void)list_of(m, seed >> 12 & 8191); break;
            }
        }
        NEED(is_list_of(list, 1000) || list->number >= 1000);
        BESOM_FRAME_END(m);
        NEED(besom_detach(m) == BESOM_OK);
    }
    return NULL;
}

/* All that needs no mutator. */
static void *meddle(void *unused)
{
    static void *words[64];
    static char text[1 << 16];
    unsigned i;
    for (i = 0; !check_is_set(&over); i++) {
        besom_stats s;
        size_t length;
        besom_stats_read(shared, &s);
        (void)besom_metrics_prometheus(shared, text, sizeof text, &length);
        NEED(besom_roots_add(shared, words, 64, BESOM_CONSERVATIVE) == BESOM_OK);
        NEED(besom_roots_remove(shared, words) == BESOM_OK);
        NEED(besom_procs_set(shared, i % 3) == BESOM_OK);
        besom_gc_percent_set(shared, 50 + i % 100);
        besom_memory_limit_set(shared, i % 8 == 0 ? (size_t)32 << 20 : 0);
        (void)besom_release_memory(shared);
        (void)besom_cleanup_cancel(shared, (uint64_t)1 << 32 | (i % 8 + 1));
        if (i % 16 == 0) {
            NEED(besom_timeline_start(shared, "/dev/null") == BESOM_OK);
            NEED(besom_timeline_stop(shared) == BESOM_OK);
        }
    }
    return unused;
}

/* Asks the library for memory of its own all the time, in the end in vain: there are no more numbers. */
static void *make_layouts(void *unused)
{
    const uint32_t offset = 8;
    besom_layout layout;
    while (!check_is_set(&over)) {
        (void)!besom_layout_register(shared, 800, &offset, 1, &layout);
        /* Valgrind would take its turn from it in the middle of a request nearly always, and nobody else would come to one. */
        if (check_short()) usleep(500);
    }
    return unused;
}

static void *make_heaps(void *unused)
{
    while (!check_is_set(&over)) {
        besom_heap *heap = open_heap(BESOM_CONCURRENT);
        besom_mutator *m = attach(heap);
        (void)list_of(m, 2000);
        NEED(besom_detach(m) == BESOM_OK);
        NEED(besom_heap_free(heap) == BESOM_OK);
    }
    return unused;
}

/* Of a fork beside others: 0, or what its child ended with. */
static int fork_once(besom_mutator *m, unsigned round)
{
    pid_t child = fork();
    int status = 0;
    if (child < 0) return 1;
    if (child == 0) {
        alarm(check_short() ? 600 : 120);
        if (round % 4 == 3) _exit(0);
        MUST(besom_after_fork_child(shared) == BESOM_OK);
        if (m == NULL) MUST(besom_attach(shared, &m) == BESOM_OK);
        use_and_end(shared, m);
    }
    if (m != NULL) besom_block(m);
    if (waitpid(child, &status, 0) != child) return 2;
    if (m != NULL) besom_unblock(m);
    return status;
}

static void *fork_too(void *counter)
{
    unsigned round;
    for (round = 0; !check_is_set(&over); round++) NEED(fork_once(NULL, round) == 0);
    *(unsigned *)counter = round;
    return NULL;
}

static void in_the_middle(int mode)
{
    pthread_t threads[6];
    besom_mutator *m;
    node *list = NULL;
    unsigned i, rounds = check_short() ? 4 : 60, others = 0;
    shared = open_heap(mode);
    m = attach(shared);
    check_set(&over, 0);
    fflush(stdout);
    NEED(pthread_create(&threads[0], NULL, churn, (void *)1) == 0);
    NEED(pthread_create(&threads[1], NULL, churn, (void *)2) == 0);
    NEED(pthread_create(&threads[2], NULL, meddle, NULL) == 0);
    NEED(pthread_create(&threads[3], NULL, make_heaps, NULL) == 0);
    NEED(pthread_create(&threads[4], NULL, fork_too, &others) == 0);
    NEED(pthread_create(&threads[5], NULL, make_layouts, NULL) == 0);
    BESOM_FRAME(m, &list);
    for (i = 0; i < rounds && check_failures_here == 0; i++) {
        list = list_of(m, 10000 + i * 100);
        CHECK_EQ(fork_once(m, i), 0);
        CHECK(is_list_of(list, 10000 + i * 100));
    }
    BESOM_FRAME_END(m);
    check_set(&over, 1);
    besom_block(m);
    for (i = 0; i < 6; i++) NEED(pthread_join(threads[i], NULL) == 0);
    besom_unblock(m);
    CHECK(others > 0);
    use(shared, m);
    check_heap_end(shared, m);
}

static void in_the_middle_of_anything(void)
{
    in_the_middle(BESOM_CONCURRENT);
}

static void in_the_middle_of_anything_with_stops(void)
{
    in_the_middle(BESOM_STOP_THE_WORLD);
}

/* ---- The VM's own handlers, around the library's ---- */

static pthread_mutex_t vm_lock = PTHREAD_MUTEX_INITIALIZER;
static besom_mutator *handlers_mutator;

static void lock_vm(besom_mutator *m)
{
    besom_block(m);
    pthread_mutex_lock(&vm_lock);
    besom_unblock(m);
}
static void before(void)
{
    if (handlers_mutator != NULL) lock_vm(handlers_mutator);
}
static void after(void)
{
    if (handlers_mutator != NULL) pthread_mutex_unlock(&vm_lock);
}
static void after_in_the_child(void)
{
    if (handlers_mutator != NULL) {
        MUST(besom_after_fork_child(shared) == BESOM_OK);
        pthread_mutex_unlock(&vm_lock);
    }
}

static void *collect_with_the_lock(void *unused)
{
    besom_mutator *m = attach(shared);
    while (!check_is_set(&over)) {
        lock_vm(m);
        (void)list_of(m, 1000);
        NEED(besom_collect(m) == BESOM_OK);
        pthread_mutex_unlock(&vm_lock);
        besom_block(m);
        usleep(50);
        besom_unblock(m);
    }
    NEED(besom_detach(m) == BESOM_OK);
    return unused;
}

static void handlers_of_the_vm_lock_what_mutators_hold(void)
{
    pthread_t thread;
    besom_mutator *m;
    unsigned i;
    shared = open_heap(BESOM_CONCURRENT);
    m = attach(shared);
    NEED(pthread_atfork(before, after, after_in_the_child) == 0);
    check_set(&over, 0);
    NEED(pthread_create(&thread, NULL, collect_with_the_lock, NULL) == 0);
    handlers_mutator = m;
    for (i = 0; i < (check_short() ? 3u : 50u); i++) {
        pid_t child = do_fork();
        if (child == 0) {
            handlers_mutator = NULL;
            use_and_end(shared, m);
        }
        besom_block(m);
        CHECK_EQ(ended(child), 0);
        besom_unblock(m);
    }
    handlers_mutator = NULL;
    check_set(&over, 1);
    besom_block(m);
    NEED(pthread_join(thread, NULL) == 0);
    besom_unblock(m);
    check_heap_end(shared, m);
}

/* What the native stack and the registers hold is kept across a fork. */
static void native_stacks_are_scanned_around_a_fork(void)
{
    besom_options o;
    besom_heap *heap = NULL;
    besom_mutator *m = NULL;
    pthread_t threads[2];
    unsigned i;
    besom_options_init(&o);
    if (!o.scan_native_stacks) return;
    NEED(besom_heap_new(&o, &heap) == BESOM_OK);
    NEED(besom_attach(heap, &m) == BESOM_OK);
    shared = heap;
    check_set(&over, 0);
    NEED(pthread_create(&threads[0], NULL, churn, (void *)5) == 0);
    NEED(pthread_create(&threads[1], NULL, churn, (void *)6) == 0);
    for (i = 0; i < 100; i++) {
        node *volatile list = list_of(m, 3000);
        pid_t child = fork();
        NEED(child >= 0);
        if (child == 0) {
            alarm(60);
            MUST(besom_after_fork_child(heap) == BESOM_OK);
            MUST(besom_collect(m) == BESOM_OK);
            (void)list_of(m, 3000);
            MUST(is_list_of(list, 3000));
            MUST(besom_detach(m) == BESOM_OK);
            _exit(0);
        }
        CHECK_OK(besom_collect(m));
        (void)list_of(m, 3000);
        CHECK(is_list_of(list, 3000));
        besom_block(m);
        CHECK_EQ(ended(child), 0);
        besom_unblock(m);
    }
    check_set(&over, 1);
    besom_block(m);
    for (i = 0; i < 2; i++) NEED(pthread_join(threads[i], NULL) == 0);
    besom_unblock(m);
    check_heap_end(heap, m);
}

int main(void)
{
    RUN(handlers_of_the_vm_lock_what_mutators_hold);
    RUN(native_stacks_are_scanned_around_a_fork);
    RUN(in_the_middle_of_anything);
    RUN(in_the_middle_of_anything_with_stops);
    return check_done();
}
