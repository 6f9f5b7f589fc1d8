/* Forks: the child goes on with its heaps, whatever the parent's threads did at that moment. */
#include "check.h"
#include <signal.h>
#include <sys/wait.h>

typedef struct node {
    struct node *next;
    uint64_t number;
    void *pad[2];
} node;

static besom_heap *open_heap(int mode)
{
    besom_heap *heap = NULL;
    besom_options o;
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    o.mode = mode;
    NEED(besom_heap_new(&o, &heap) == BESOM_OK);
    return heap;
}

static besom_mutator *attach(besom_heap *heap)
{
    besom_mutator *m = NULL;
    NEED(besom_attach(heap, &m) == BESOM_OK);
    return m;
}

/* A list of count nodes, the last number first; the caller's frame holds it at once. */
static node *list_of(besom_mutator *m, unsigned count)
{
    node *list = NULL, *n;
    unsigned i;
    BESOM_FRAME(m, &list);
    for (i = 0; i < count; i++) {
        n = (node *)besom_alloc(m, sizeof *n, BESOM_CONSERVATIVE);
        NEED(n != NULL);
        n->number = i;
        besom_write(m, n, (void **)&n->next, list);
        list = n;
    }
    BESOM_FRAME_END(m);
    return list;
}

static int is_list_of(const node *list, unsigned count)
{
    while (count > 0 && list != NULL && list->number == count - 1) list = list->next, count--;
    return count == 0 && list == NULL;
}

/* A child that fails says so by its status: it must not print what the parent's buffer holds. */
#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "child: %s:%d: %s\n", __FILE__, __LINE__, #condition);                                     \
            _exit(77);                                                                                                 \
        }                                                                                                              \
    } while (0)

static pid_t do_fork(void)
{
    pid_t child;
    fflush(stdout);
    child = fork();
    NEED(child >= 0);
    if (child == 0) alarm(check_short() ? 300 : 60); /* rather a signal than a test that hangs */
    return child;
}

/* A child's status: 0 or what it exits with, or 1000 and its signal. */
static int ended(pid_t child)
{
    int status = 0;
    NEED(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void *grow_and_go(void *argument)
{
    besom_heap *heap = (besom_heap *)argument;
    besom_mutator *m = NULL;
    node *list = NULL;
    MUST(besom_attach(heap, &m) == BESOM_OK);
    {
        BESOM_FRAME(m, &list);
        list = list_of(m, 20000);
        MUST(besom_collect(m) == BESOM_OK);
        MUST(is_list_of(list, 20000));
        BESOM_FRAME_END(m);
    }
    MUST(besom_detach(m) == BESOM_OK);
    return NULL;
}

/* Everything that a program does with a heap, in a child, on a mutator. */
static void use(besom_heap *heap, besom_mutator *m)
{
    static besom_mem_stats counted, walked;
    pthread_t threads[2];
    besom_handle *handle;
    besom_weak *weak;
    node *list = NULL;
    unsigned i;
    BESOM_FRAME(m, &list);
    besom_mem_stats_read_slow(m, &counted, &walked); /* aborts when the two differ */
    list = list_of(m, 50000);
    weak = besom_weak_new(m, list);
    MUST(weak != NULL);
    handle = besom_handle_new(m, list);
    MUST(handle != NULL);
    MUST(besom_collect(m) == BESOM_OK);
    MUST(is_list_of(list, 50000));
    for (i = 0; i < 2; i++) MUST(pthread_create(&threads[i], NULL, grow_and_go, heap) == 0);
    besom_block(m);
    for (i = 0; i < 2; i++) MUST(pthread_join(threads[i], NULL) == 0);
    besom_unblock(m);
    list = NULL;
    for (i = 0; i < 20; i++) (void)list_of(m, 20000); /* cycles by themselves, with threads of the library's */
    MUST(is_list_of((node *)besom_handle_get(m, handle), 50000));
    MUST(besom_weak_get(m, weak) == besom_handle_get(m, handle));
    besom_handle_free(heap, handle);
    MUST(besom_collect(m) == BESOM_OK);
    MUST(besom_weak_get(m, weak) == NULL);
    besom_weak_free(heap, weak);
    (void)besom_finalizers_run(m, SIZE_MAX);
    besom_mem_stats_read_slow(m, &counted, &walked);
    BESOM_FRAME_END(m);
}

static void use_and_end(besom_heap *heap, besom_mutator *m)
{
    use(heap, m);
    MUST(besom_detach(m) == BESOM_OK);
    MUST(besom_heap_free(heap) == BESOM_OK);
    _exit(0);
}

static void attached_in_mode(int mode)
{
    besom_heap *heap = open_heap(mode);
    besom_mutator *m = attach(heap);
    node *list = NULL;
    pid_t child;
    BESOM_FRAME(m, &list);
    list = list_of(m, 100000);
    child = do_fork();
    if (child == 0) {
        MUST(besom_after_fork_child(heap) == BESOM_OK);
        MUST(is_list_of(list, 100000));
        MUST(besom_collect(m) == BESOM_OK);
        MUST(is_list_of(list, 100000));
        besom_frame_pop(m);
        use_and_end(heap, m);
    }
    (void)list_of(m, 100000); /* beside it */
    CHECK_EQ(ended(child), 0);
    CHECK_OK(besom_collect(m));
    CHECK(is_list_of(list, 100000));
    BESOM_FRAME_END(m);
    check_heap_end(heap, m);
}

static void the_child_of_a_mutator_goes_on(void)
{
    attached_in_mode(BESOM_CONCURRENT);
    attached_in_mode(BESOM_STOP_THE_WORLD);
}

static void the_child_of_a_thread_without_a_mutator_goes_on(void)
{
    besom_heap *heap = open_heap(BESOM_CONCURRENT);
    besom_mutator *m = attach(heap);
    pid_t child;
    (void)list_of(m, 1000);
    CHECK_OK(besom_detach(m));
    child = do_fork();
    if (child == 0) {
        MUST(besom_after_fork_child(heap) == BESOM_OK);
        MUST(besom_attach(heap, &m) == BESOM_OK);
        use_and_end(heap, m);
    }
    CHECK_EQ(ended(child), 0);
    CHECK_OK(besom_heap_free(heap));
}

static void the_child_of_a_blocked_thread_is_blocked(void)
{
    besom_heap *heap = open_heap(BESOM_CONCURRENT);
    besom_mutator *m = attach(heap);
    pid_t child;
    besom_block(m);
    child = do_fork();
    if (child == 0) {
        MUST(besom_after_fork_child(heap) == BESOM_OK);
        MUST(besom_detach(m) == BESOM_ERR_STATE);
        besom_unblock(m);
        use_and_end(heap, m);
    }
    CHECK_EQ(ended(child), 0);
    besom_unblock(m);
    check_heap_end(heap, m);
}

static void it_is_called_once_and_in_the_child(void)
{
    besom_heap *heap = open_heap(BESOM_CONCURRENT);
    besom_mutator *m = attach(heap), *again = NULL;
    pid_t child;
    CHECK_EQ(besom_after_fork_child(NULL), BESOM_ERR_INVALID);
    CHECK_EQ(besom_after_fork_child(heap), BESOM_ERR_STATE);
    child = do_fork();
    if (child == 0) {
        MUST(besom_attach(heap, &again) == BESOM_ERR_STATE && again == NULL);
        MUST(besom_detach(m) == BESOM_ERR_STATE);
        MUST(besom_heap_free(heap) == BESOM_ERR_STATE);
        MUST(besom_after_fork_child(heap) == BESOM_OK);
        MUST(besom_after_fork_child(heap) == BESOM_ERR_STATE);
        use_and_end(heap, m);
    }
    CHECK_EQ(ended(child), 0);
    CHECK_EQ(besom_after_fork_child(heap), BESOM_ERR_STATE);
    check_heap_end(heap, m);
    /* Nobody is attached. */
    heap = open_heap(BESOM_CONCURRENT);
    child = do_fork();
    if (child == 0) {
        MUST(besom_heap_free(heap) == BESOM_ERR_STATE);
        MUST(besom_attach(heap, &m) == BESOM_ERR_STATE);
        MUST(besom_after_fork_child(heap) == BESOM_OK);
        MUST(besom_heap_free(heap) == BESOM_OK);
        _exit(0);
    }
    CHECK_EQ(ended(child), 0);
    CHECK_OK(besom_heap_free(heap));
}

static void a_child_may_exec_exit_or_fork_without_it(void)
{
    besom_heap *heap = open_heap(BESOM_CONCURRENT);
    besom_mutator *m = attach(heap);
    pid_t child = do_fork();
    if (child == 0) {
        execl("/bin/sh", "sh", "-c", "exit 3", (char *)NULL);
        _exit(1);
    }
    CHECK_EQ(ended(child), 3);
    child = do_fork();
    if (child == 0) exit(4);
    CHECK_EQ(ended(child), 4);
    child = do_fork();
    if (child == 0) { /* its child is as much a child of the parent's heap */
        pid_t grandchild = fork();
        MUST(grandchild >= 0);
        if (grandchild == 0) {
            MUST(besom_after_fork_child(heap) == BESOM_OK);
            use_and_end(heap, m);
        }
        MUST(ended(grandchild) == 0);
        MUST(besom_after_fork_child(heap) == BESOM_OK);
        grandchild = fork();
        MUST(grandchild >= 0);
        if (grandchild == 0) {
            MUST(besom_after_fork_child(heap) == BESOM_OK);
            use_and_end(heap, m);
        }
        use(heap, m);
        MUST(ended(grandchild) == 0);
        use_and_end(heap, m);
    }
    CHECK_EQ(ended(child), 0);
    check_heap_end(heap, m);
}

static void two_heaps_are_taken_up_each(void)
{
    besom_heap *a = open_heap(BESOM_CONCURRENT), *b = open_heap(BESOM_STOP_THE_WORLD);
    besom_mutator *m = attach(a), *n = attach(b);
    pid_t child;
    (void)list_of(m, 1000), (void)list_of(n, 1000);
    child = do_fork();
    if (child == 0) {
        MUST(besom_after_fork_child(b) == BESOM_OK);
        use(b, n);
        MUST(besom_detach(n) == BESOM_OK);
        MUST(besom_heap_free(b) == BESOM_OK);
        MUST(besom_after_fork_child(a) == BESOM_OK);
        use_and_end(a, m);
    }
    CHECK_EQ(ended(child), 0);
    check_heap_end(a, m);
    check_heap_end(b, n);
}

/* ---- Threads that do not exist in the child ---- */

static besom_heap *shared;
static int ready, over;

static void wait_for(int *flag, int value)
{
    while (__atomic_load_n(flag, __ATOMIC_ACQUIRE) < value) usleep(200);
}

/* Holds 40,000 nodes, and runs. */
static void *hold_and_run(void *unused)
{
    besom_mutator *m = attach(shared);
    node *list = NULL;
    BESOM_FRAME(m, &list);
    list = list_of(m, 40000);
    __atomic_fetch_add(&ready, 1, __ATOMIC_RELEASE);
    while (!check_is_set(&over)) besom_safepoint(m);
    NEED(is_list_of(list, 40000));
    BESOM_FRAME_END(m);
    NEED(besom_detach(m) == BESOM_OK);
    return unused;
}

static void *hold_and_block(void *unused)
{
    besom_mutator *m = attach(shared);
    node *list = NULL;
    BESOM_FRAME(m, &list);
    list = list_of(m, 40000);
    besom_block(m);
    __atomic_fetch_add(&ready, 1, __ATOMIC_RELEASE);
    while (!check_is_set(&over)) usleep(1000);
    besom_unblock(m);
    NEED(is_list_of(list, 40000));
    BESOM_FRAME_END(m);
    NEED(besom_detach(m) == BESOM_OK);
    return unused;
}

static uint64_t objects(besom_mutator *m)
{
    static besom_mem_stats s;
    MUST(besom_collect(m) == BESOM_OK);
    besom_mem_stats_read(m, &s);
    return s.heap_objects;
}

static void what_other_threads_held_is_garbage(void)
{
    besom_mutator *m;
    pthread_t threads[2];
    pid_t child;
    shared = open_heap(BESOM_CONCURRENT);
    m = attach(shared);
    check_set(&over, 0), ready = 0;
    NEED(pthread_create(&threads[0], NULL, hold_and_run, NULL) == 0);
    NEED(pthread_create(&threads[1], NULL, hold_and_block, NULL) == 0);
    besom_block(m);
    wait_for(&ready, 2);
    besom_unblock(m);
    CHECK(objects(m) >= 80000);
    child = do_fork();
    if (child == 0) {
        MUST(besom_after_fork_child(shared) == BESOM_OK);
        MUST(objects(m) < 100);
        use_and_end(shared, m);
    }
    CHECK_EQ(ended(child), 0);
    CHECK(objects(m) >= 80000);
    check_set(&over, 1);
    besom_block(m);
    pthread_join(threads[0], NULL), pthread_join(threads[1], NULL);
    besom_unblock(m);
    check_heap_end(shared, m);
}

/* ---- In the middle of everything ---- */

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

/* ---- Where it may not be ---- */

static besom_heap *walked;
static int visit_forks(void *object, size_t bytes, besom_kind kind, void *data)
{
    pid_t child = fork();
    (void)object, (void)bytes, (void)kind;
    if (child == 0) _exit(besom_after_fork_child(walked) == BESOM_ERR_STATE ? 9 : 8);
    *(int *)data = child < 0 ? -1 : ended(child);
    return 1;
}

static void a_visit_that_forks_has_a_child_that_can_exec(void)
{
    besom_mutator *m;
    int status = 0;
    walked = open_heap(BESOM_CONCURRENT);
    m = attach(walked);
    NEED(besom_alloc(m, 64, BESOM_NOSCAN) != NULL);
    fflush(stdout);
    CHECK_EQ(besom_walk(m, visit_forks, &status), 1);
    CHECK_EQ(status, 9);
    check_heap_end(walked, m);
}

static void *fork_and_go(void *unused)
{
    while (!check_is_set(&over)) {
        pid_t child = fork();
        if (child == 0) _exit(0);
        NEED(child > 0 && ended(child) == 0);
    }
    return unused;
}

/* Neither waits for the other. */
static void a_visit_forks_beside_another_fork(void)
{
    pthread_t thread;
    besom_mutator *m;
    int i;
    walked = open_heap(BESOM_CONCURRENT);
    m = attach(walked);
    NEED(besom_alloc(m, 64, BESOM_NOSCAN) != NULL);
    check_set(&over, 0);
    fflush(stdout);
    NEED(pthread_create(&thread, NULL, fork_and_go, NULL) == 0);
    for (i = 0; i < (check_short() ? 3 : 100); i++) {
        int status = 0;
        CHECK_EQ(besom_walk(m, visit_forks, &status), 1);
        CHECK_EQ(status, 9);
    }
    check_set(&over, 1);
    besom_block(m);
    NEED(pthread_join(thread, NULL) == 0);
    besom_unblock(m);
    check_heap_end(walked, m);
}

static int trace_status;
static void trace_forks(besom_tracer *tracer, void *object, void *unused)
{
    (void)tracer, (void)object, (void)unused;
    if (__atomic_exchange_n(&trace_status, 1, __ATOMIC_RELAXED) == 0) {
        pid_t child = fork();
        if (child == 0) _exit(besom_after_fork_child(walked) == BESOM_ERR_STATE ? 9 : 8);
        __atomic_store_n(&trace_status, child < 0 ? -1 : ended(child), __ATOMIC_RELEASE);
    }
}

/* By the mutator, and by the collector's thread. */
static void a_trace_function_that_forks_has_a_child_that_can_exec(void)
{
    int forced;
    for (forced = 0; forced < 2; forced++) {
        besom_options o;
        besom_mutator *m;
        void *object = NULL;
        besom_options_init(&o);
        o.scan_native_stacks = 0;
        o.trace = trace_forks;
        NEED(besom_heap_new(&o, &walked) == BESOM_OK);
        m = attach(walked);
        trace_status = 0;
        fflush(stdout);
        {
            BESOM_FRAME(m, &object);
            object = besom_alloc(m, 64, BESOM_TRACED);
            if (forced) CHECK_OK(besom_collect(m));
            else while (__atomic_load_n(&trace_status, __ATOMIC_ACQUIRE) == 0) (void)list_of(m, 10000);
            BESOM_FRAME_END(m);
        }
        besom_block(m);
        wait_for(&trace_status, 2);
        besom_unblock(m);
        CHECK_EQ(trace_status, 9);
        check_heap_end(walked, m);
    }
}

static void *spin(void *unused)
{
    besom_mutator *m = attach(shared);
    __atomic_fetch_add(&ready, 1, __ATOMIC_RELEASE);
    while (!check_is_set(&over)) {} /* passes no safepoint */
    NEED(besom_detach(m) == BESOM_OK);
    return unused;
}

static void what_copies_no_process_stops_nothing(void)
{
    besom_mutator *m;
    pthread_t thread;
    shared = open_heap(BESOM_CONCURRENT);
    m = attach(shared);
    check_set(&over, 0), ready = 0;
    NEED(pthread_create(&thread, NULL, spin, NULL) == 0);
    wait_for(&ready, 1);
    CHECK_EQ(WEXITSTATUS(system("exit 5")), 5);
#if defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 34)
    {
        const pid_t child = _Fork();
        NEED(child >= 0);
        if (child == 0) _exit(besom_after_fork_child(shared) == BESOM_ERR_STATE ? 6 : 1);
        CHECK_EQ(ended(child), 6);
    }
#endif
#endif
    check_set(&over, 1);
    besom_block(m);
    NEED(pthread_join(thread, NULL) == 0);
    besom_unblock(m);
    check_heap_end(shared, m);
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

static void a_timeline_is_the_parents(void)
{
    char path[64];
    besom_heap *heap = open_heap(BESOM_CONCURRENT);
    besom_mutator *m = attach(heap);
    pid_t child;
    FILE *f;
    long end;
    snprintf(path, sizeof path, "/tmp/besom-fork-%d.json", (int)getpid());
    CHECK_OK(besom_timeline_start(heap, path));
    CHECK_OK(besom_collect(m));
    child = do_fork();
    if (child == 0) {
        MUST(besom_after_fork_child(heap) == BESOM_OK);
        MUST(besom_timeline_stop(heap) == BESOM_ERR_STATE);
        MUST(besom_timeline_start(heap, "/dev/null") == BESOM_OK);
        use(heap, m);
        MUST(besom_timeline_stop(heap) == BESOM_OK);
        use_and_end(heap, m);
    }
    CHECK_EQ(ended(child), 0);
    f = fopen(path, "r");
    NEED(f != NULL);
    fseek(f, 0, SEEK_END);
    CHECK_EQ(ftell(f), 0); /* nothing is written before the stop */
    CHECK_OK(besom_timeline_stop(heap));
    fseek(f, 0, SEEK_END);
    end = ftell(f);
    CHECK(end > 100);
    fclose(f);
    remove(path);
    check_heap_end(heap, m);
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
    RUN(the_child_of_a_mutator_goes_on);
    RUN(the_child_of_a_thread_without_a_mutator_goes_on);
    RUN(the_child_of_a_blocked_thread_is_blocked);
    RUN(it_is_called_once_and_in_the_child);
    RUN(a_child_may_exec_exit_or_fork_without_it);
    RUN(two_heaps_are_taken_up_each);
    RUN(what_other_threads_held_is_garbage);
    RUN(a_timeline_is_the_parents);
    RUN(a_visit_that_forks_has_a_child_that_can_exec);
    RUN(a_visit_forks_beside_another_fork);
    RUN(a_trace_function_that_forks_has_a_child_that_can_exec);
    RUN(what_copies_no_process_stops_nothing);
    RUN(handlers_of_the_vm_lock_what_mutators_hold);
    RUN(native_stacks_are_scanned_around_a_fork);
    RUN(in_the_middle_of_anything);
    RUN(in_the_middle_of_anything_with_stops);
    return check_done();
}
