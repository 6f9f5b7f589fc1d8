/* Ends in the middle of a cycle: of a heap, and of the process, in every way. And the library's threads: their names, and
 * that no signal is theirs. */
#include "check.h"
#include <dirent.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

typedef struct node {
    struct node *left, *right;
} node;

static besom_heap *open_heap(int mode)
{
    besom_heap *heap = NULL;
    besom_options o;
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    o.mode = mode;
    o.gc_percent = 20; /* one cycle after the other */
    NEED(besom_heap_new(&o, &heap) == BESOM_OK);
    return heap;
}

static besom_mutator *attach(besom_heap *heap)
{
    besom_mutator *m = NULL;
    NEED(besom_attach(heap, &m) == BESOM_OK);
    return m;
}

static node *tree(besom_mutator *m, int depth)
{
    node *t = (node *)besom_alloc(m, sizeof *t, BESOM_CONSERVATIVE);
    NEED(t != NULL);
    if (depth > 0) {
        BESOM_FRAME(m, &t);
        besom_write(m, t, (void **)&t->left, tree(m, depth - 1));
        besom_write(m, t, (void **)&t->right, tree(m, depth - 1));
        BESOM_FRAME_END(m);
    }
    return t;
}

static unsigned seed = 12345;
static unsigned chance(unsigned n)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 16) % n;
}

static uint64_t cycles(besom_heap *heap)
{
    besom_stats s;
    besom_stats_read(heap, &s);
    return s.cycles;
}

/* ---- A heap ends ---- */

static void finalized(besom_mutator *m, void *object, void *data)
{
    (void)m, (void)object, (void)data;
}

/* What a cycle resolves for a while once the rest is marked: a tree that only a finalizer gets, and weak references. */
static void leave_specials(besom_mutator *m)
{
    node *dead = tree(m, check_short() ? 10 : 15), *other = tree(m, 1);
    unsigned i;
    NEED(besom_finalizer_set(m, dead, finalized, NULL) == BESOM_OK);
    for (i = 0; i < (check_short() ? 1000u : 50000u); i++) NEED(besom_weak_new(m, other) != NULL);
}

static void free_in_mode(int mode)
{
    unsigned i, rounds = check_short() ? 5 : 60, unfinished = 0;
    for (i = 0; i < rounds; i++) {
        besom_heap *heap = open_heap(mode);
        besom_mutator *m = attach(heap);
        besom_handle *handle = besom_handle_new(m, tree(m, check_short() ? 12 : 17));
        uint64_t before;
        unsigned n;
        NEED(handle != NULL);
        CHECK_OK(besom_collect(m));
        if (i % 2) leave_specials(m);
        if (mode == BESOM_CONCURRENT)
            while (m->barrier == 0) (void)tree(m, 6); /* until it is marking */
        else
            for (n = chance(40); n > 0; n--) (void)tree(m, 10);
        before = cycles(heap);
        CHECK_OK(besom_detach(m));
        if (i % 4 == 3) usleep(chance(3000));
        unfinished += cycles(heap) == before;
        CHECK_OK(besom_heap_free(heap));
    }
    if (mode == BESOM_CONCURRENT) CHECK(unfinished > rounds / 3);
}

static void a_heap_is_freed_in_the_middle_of_a_cycle(void)
{
    free_in_mode(BESOM_CONCURRENT);
    free_in_mode(BESOM_STOP_THE_WORLD);
}

/* ---- The process ends ---- */

static besom_heap *shared;

static void *work(void *unused)
{
    besom_mutator *m = attach(shared);
    node *t = NULL;
    BESOM_FRAME(m, &t);
    t = tree(m, 13);
    for (;;) {
        (void)tree(m, 10);
        if (chance(16) == 0) NEED(besom_collect(m) == BESOM_OK);
    }
    BESOM_FRAME_END(m);
    return unused;
}

enum { RETURN, EXIT, EXIT_OF_A_THREAD, QUICK_EXIT, UNDERSCORE, ABORT, KILL, TERM, ATEXIT_FREES, WAYS };

static int way;
static unsigned delay;

static void leave(void)
{
    usleep(delay);
    switch (way) {
        case EXIT:
        case EXIT_OF_A_THREAD: exit(10 + way);
        case QUICK_EXIT: quick_exit(10 + way);
        case UNDERSCORE: _exit(10 + way);
        case ABORT: abort();
        case KILL: kill(getpid(), SIGKILL); break;
        case TERM: raise(SIGTERM); break;
        default: break;
    }
}

static void *leave_soon(void *unused)
{
    leave();
    return unused;
}

static besom_heap *last;
static void free_the_last(void)
{
    if (besom_heap_free(last) != BESOM_OK) _exit(99);
}

/* The main function of the process that ends: it runs this program anew. */
static int run_until_the_end(void)
{
    pthread_t thread;
    int i;
    const char *what = getenv("CHECK_EXIT");
    int mode;
    alarm(check_short() ? 300 : 60);
    NEED(what != NULL && sscanf(what, "%d %u %d", &way, &delay, &mode) == 3);
    shared = open_heap(mode);
    for (i = 0; i < 2; i++) NEED(pthread_create(&thread, NULL, work, NULL) == 0);
    if (way == EXIT_OF_A_THREAD) {
        besom_mutator *m = attach(shared);
        NEED(pthread_create(&thread, NULL, leave_soon, NULL) == 0);
        for (;;) (void)tree(m, 8);
    }
    if (way == ATEXIT_FREES) {
        besom_mutator *m;
        last = open_heap(mode);
        m = attach(last);
        NEED(besom_handle_new(m, tree(m, 14)) != NULL);
        for (i = 0; i < 20; i++) (void)tree(m, 10);
        NEED(besom_detach(m) == BESOM_OK);
        atexit(free_the_last);
    }
    leave();
    return 10 + way;
}

static int expected(int of)
{
    switch (of) {
        case ABORT: return 1000 + SIGABRT;
        case KILL: return 1000 + SIGKILL;
        case TERM: return 1000 + SIGTERM;
        default: return 10 + of;
    }
}

static const char *program;

static void the_process_ends_in_the_middle_of_a_cycle(void)
{
    unsigned i, rounds = check_short() ? WAYS : 200;
    for (i = 0; i < rounds; i++) {
        char what[64];
        int status = 0, of = (int)(i % WAYS);
        pid_t child;
        snprintf(what, sizeof what, "CHECK_EXIT=%d %u %d", of, chance(30000), (int)(i / WAYS % 2));
        child = fork();
        NEED(child >= 0);
        if (child == 0) {
            extern char **environ;
            char name[] = "exit";
            char *arguments[] = {name, NULL};
            putenv(what);
            execve(program, arguments, environ);
            _exit(98);
        }
        NEED(waitpid(child, &status, 0) == child);
        status = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
        if (status != expected(of)) printf("round %u, %s\n", i, what);
        CHECK_EQ(status, expected(of));
    }
}

/* ---- The library's threads ---- */

static unsigned names;
enum { GC = 1, MARK = 2, SWEEP = 4, SCAVENGE = 8, ALL = 15 };

/* Looks at all threads but the caller's program's own. The blocked signals of one of the library's must be all that can be. */
static void look_at_threads(void)
{
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;
    NEED(tasks != NULL);
    while ((task = readdir(tasks)) != NULL) {
        char path[300], line[128];
        uint64_t blocked = 0;
        FILE *f;
        if (task->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", task->d_name);
        f = fopen(path, "r");
        if (f == NULL) continue; /* it has ended */
        if (fgets(line, sizeof line, f) == NULL) line[0] = 0;
        fclose(f);
        if (strncmp(line, "besom-", 6) != 0) continue;
        if (strcmp(line, "besom-gc\n") == 0) names |= GC;
        else if (strcmp(line, "besom-mark\n") == 0) names |= MARK;
        else if (strcmp(line, "besom-sweep\n") == 0) names |= SWEEP;
        else if (strcmp(line, "besom-scavenge\n") == 0) names |= SCAVENGE;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", task->d_name);
        f = fopen(path, "r");
        if (f == NULL) continue;
        while (fgets(line, sizeof line, f) != NULL)
            if (sscanf(line, "SigBlk: %" SCNx64, &blocked) == 1) break;
        fclose(f);
        if (check_short()) continue; /* valgrind keeps signals to itself */
        /* All but SIGKILL and SIGSTOP, which nobody can block, and 32 and 33, which are the C library's. */
        blocked |= 1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1) | 3ull << 31;
        if (blocked != ~0ull) printf("blocked %016" PRIx64 "\n", blocked);
        CHECK(blocked == ~0ull);
    }
    closedir(tasks);
}

/* A new thread has its maker's name until it is given one. */
static void its_threads_have_names_and_block_all_signals(void)
{
    besom_options o;
    besom_mutator *m;
    besom_heap *heap = NULL;
    node *t = NULL;
    int i;
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    o.mode = BESOM_CONCURRENT;
    o.mark_workers = 2;
    NEED(besom_heap_new(&o, &heap) == BESOM_OK);
    m = attach(heap);
    {
        BESOM_FRAME(m, &t);
        for (i = 0; i < 1000 && names != ALL; i++) {
            t = tree(m, 15);
            look_at_threads();
        }
        BESOM_FRAME_END(m);
    }
    CHECK_EQ(names, ALL);
    check_heap_end(heap, m);
}

static __thread int is_the_programs;
static int handled, strayed;

static void handle(int signal)
{
    (void)signal;
    __atomic_fetch_add(is_the_programs ? &handled : &strayed, 1, __ATOMIC_RELAXED);
}

static int storm_over, in_the_storm;

static void *work_in_the_storm(void *unused)
{
    besom_mutator *m;
    node *t = NULL;
    is_the_programs = 1;
    __atomic_fetch_add(&in_the_storm, 1, __ATOMIC_RELEASE);
    m = attach(shared);
    {
        BESOM_FRAME(m, &t);
        while (!check_is_set(&storm_over)) {
            t = tree(m, 12);
            if (chance(8) == 0) NEED(besom_collect(m) == BESOM_OK);
            besom_block(m);
            besom_unblock(m);
        }
        BESOM_FRAME_END(m);
    }
    NEED(besom_detach(m) == BESOM_OK);
    return unused;
}

/* Signals to the process, two thousand a second: without SA_RESTART, so that each system call is interrupted. */
static void a_storm_of_signals_is_the_programs(void)
{
    struct sigaction action;
    struct itimerval every, none;
    static besom_mem_stats counted, walked;
    pthread_t threads[2];
    besom_mutator *m;
    uint64_t end;
    int i;
    memset(&action, 0, sizeof action);
    memset(&none, 0, sizeof none);
    action.sa_handler = handle;
    is_the_programs = 1;
    NEED(sigaction(SIGALRM, &action, NULL) == 0);
    shared = open_heap(BESOM_CONCURRENT);
    m = attach(shared);
    for (i = 0; i < 2; i++) NEED(pthread_create(&threads[i], NULL, work_in_the_storm, NULL) == 0);
    while (__atomic_load_n(&in_the_storm, __ATOMIC_ACQUIRE) < 2) usleep(100);
    every.it_interval.tv_sec = every.it_value.tv_sec = 0;
    every.it_interval.tv_usec = every.it_value.tv_usec = 500;
    NEED(setitimer(ITIMER_REAL, &every, NULL) == 0);
    end = check_now_ns() + (check_short() ? 3000000000u : 1000000000u);
    while (CHECK_LASTS(end, __atomic_load_n(&handled, __ATOMIC_RELAXED) > 20 && counted.num_gc > 0)) {
        (void)tree(m, 12);
        besom_mem_stats_read_slow(m, &counted, &walked);
    }
    NEED(setitimer(ITIMER_REAL, &none, NULL) == 0);
    check_set(&storm_over, 1);
    besom_block(m);
    for (i = 0; i < 2; i++) NEED(pthread_join(threads[i], NULL) == 0);
    besom_unblock(m);
    CHECK_EQ(strayed, 0);
    check_heap_end(shared, m);
    signal(SIGALRM, SIG_DFL);
}

int main(int argc, char **argv)
{
    program = argc > 0 ? argv[0] : "";
    if (getenv("CHECK_EXIT") != NULL) return run_until_the_end();
    RUN(a_heap_is_freed_in_the_middle_of_a_cycle);
    RUN(the_process_ends_in_the_middle_of_a_cycle);
    RUN(its_threads_have_names_and_block_all_signals);
    RUN(a_storm_of_signals_is_the_programs);
    return check_done();
}
