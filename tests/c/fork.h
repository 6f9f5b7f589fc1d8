/* For the tests of forks: lists of nodes, and a child that uses a heap as programs do. */
#ifndef FORK_H
#define FORK_H
#include "check.h"
#include <signal.h>
#include <sys/wait.h>

typedef struct node {
    struct node *next;
    uint64_t number;
    void *pad[2];
} node;

static inline besom_heap *open_heap(int mode)
{
    besom_heap *heap = NULL;
    besom_options o;
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    o.mode = mode;
    NEED(besom_heap_new(&o, &heap) == BESOM_OK);
    return heap;
}

static inline besom_mutator *attach(besom_heap *heap)
{
    besom_mutator *m = NULL;
    NEED(besom_attach(heap, &m) == BESOM_OK);
    return m;
}

/* A list of count nodes, the last number first; the caller's frame holds it at once. */
static inline node *list_of(besom_mutator *m, unsigned count)
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

static inline int is_list_of(const node *list, unsigned count)
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

static inline pid_t do_fork(void)
{
    pid_t child;
    fflush(stdout);
    child = fork();
    NEED(child >= 0);
    if (child == 0) alarm(check_short() ? 300 : 60); /* rather a signal than a test that hangs */
    return child;
}

/* A child's status: 0 or what it exits with, or 1000 and its signal. */
static inline int ended(pid_t child)
{
    int status = 0;
    NEED(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static inline void *grow_and_go(void *argument)
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
static inline void use(besom_heap *heap, besom_mutator *m)
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

static inline void use_and_end(besom_heap *heap, besom_mutator *m)
{
    use(heap, m);
    MUST(besom_detach(m) == BESOM_OK);
    MUST(besom_heap_free(heap) == BESOM_OK);
    _exit(0);
}

/* What threads share. */
static besom_heap *shared;
static int ready __attribute__((unused)), over;

static inline void wait_for(int *flag, int value)
{
    while (__atomic_load_n(flag, __ATOMIC_ACQUIRE) < value) usleep(200);
}
#endif
