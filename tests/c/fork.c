/* Forks: the child goes on with its heaps. */
#include "fork.h"

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
    return check_done();
}
