/* Processes that are no copy of this one, and forks where none may be: those whose child can only exec. */
#include "fork.h"
#include <spawn.h>

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

static void what_sh_says_is_read(void)
{
    char line[16] = "";
    FILE *f = popen("echo seven", "r");
    NEED(f != NULL);
    CHECK(fgets(line, sizeof line, f) != NULL && strcmp(line, "seven\n") == 0);
    CHECK_EQ(WEXITSTATUS(pclose(f)), 0);
}

static void sh_is_spawned(void)
{
    char sh[] = "sh", c[] = "-c", what[] = "exit 8", *arguments[] = {sh, c, what, NULL};
    pid_t child = 0;
    NEED(posix_spawn(&child, "/bin/sh", NULL, NULL, arguments, environ) == 0);
    CHECK_EQ(ended(child), 8);
}

static void sh_is_run_by_vfork(void)
{
    const pid_t child = vfork();
    NEED(child >= 0);
    if (child == 0) {
        execl("/bin/sh", "sh", "-c", "exit 9", (char *)NULL);
        _exit(1);
    }
    CHECK_EQ(ended(child), 9);
}

/* Another thread passes no safepoint: what stopped the world would wait for ever, and the alarm end the test. */
static void what_copies_no_process_stops_nothing(void)
{
    besom_mutator *m;
    pthread_t thread;
    shared = open_heap(BESOM_CONCURRENT);
    m = attach(shared);
    check_set(&over, 0), ready = 0;
    NEED(pthread_create(&thread, NULL, spin, NULL) == 0);
    wait_for(&ready, 1);
    alarm(check_short() ? 300 : 60);
    CHECK_EQ(WEXITSTATUS(system("exit 5")), 5);
    what_sh_says_is_read();
    sh_is_spawned();
    sh_is_run_by_vfork();
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
    alarm(0);
    check_set(&over, 1);
    besom_block(m);
    NEED(pthread_join(thread, NULL) == 0);
    besom_unblock(m);
    check_heap_end(shared, m);
}

int main(void)
{
    RUN(a_visit_that_forks_has_a_child_that_can_exec);
    RUN(a_visit_forks_beside_another_fork);
    RUN(a_trace_function_that_forks_has_a_child_that_can_exec);
    RUN(what_copies_no_process_stops_nothing);
    return check_done();
}
