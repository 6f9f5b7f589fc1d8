/* Ps: how many threads run at once, who gets the next one, and changing the number while running. */
#include "check.h"

enum { THREADS = 4 };
static besom_heap *heap;
static int stop;
static int running, most;
static long turns[THREADS];
static int served[THREADS];

/* Between two safepoints a thread has a P: never more at once than there are Ps. */
static void *work(void *argument)
{
    const int id = (int)(uintptr_t)argument;
    besom_mutator *m;
    if (besom_attach(heap, &m) != BESOM_OK) abort();
    while (!check_is_set(&stop)) {
        int now = __atomic_add_fetch(&running, 1, __ATOMIC_SEQ_CST), old = __atomic_load_n(&most, __ATOMIC_SEQ_CST);
        const uint64_t until = check_now_ns() + 100000;
        while (now > old && !__atomic_compare_exchange_n(&most, &old, now, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {}
        while (check_now_ns() < until) {}
        if (turns[id]++ == 0) check_set(&served[id], 1);
        __atomic_sub_fetch(&running, 1, __ATOMIC_SEQ_CST);
        if (turns[id] % 64 == 0) { /* give the P up for a moment, too */
            besom_block(m);
            besom_unblock(m);
        }
        besom_safepoint(m);
    }
    if (besom_detach(m) != BESOM_OK) abort();
    return NULL;
}

static void open_heap(unsigned procs)
{
    besom_options o;
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    o.procs = procs;
    NEED(besom_heap_new(&o, &heap) == BESOM_OK);
    CHECK_EQ(besom_procs(heap), procs);
}

static int all_are_served(void)
{
    int i;
    for (i = 0; i < THREADS; i++) {
        if (!check_is_set(&served[i])) return 0;
    }
    return 1;
}

static void run_with(unsigned procs, int ms)
{
    pthread_t threads[THREADS];
    const uint64_t end = check_now_ns() + (uint64_t)ms * 1000000;
    uintptr_t i;
    open_heap(procs);
    running = most = 0;
    check_set(&stop, 0);
    memset(turns, 0, sizeof turns);
    for (i = 0; i < THREADS; i++) check_set(&served[i], 0);
    for (i = 0; i < THREADS; i++) NEED(pthread_create(&threads[i], NULL, work, (void *)i) == 0);
    while (CHECK_LASTS(end, all_are_served())) check_sleep_ms(10);
    check_set(&stop, 1);
    for (i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    if (procs != 0) CHECK_LE(most, procs);
    CHECK_OK(besom_heap_free(heap));
}

static void one_p_serves_all(void) { run_with(1, 1000); }
static void two_ps_serve_all(void) { run_with(2, 1000); }
static void unlimited(void) { run_with(0, 300); }

/* With one P, four threads that never block get a fair share each: at the latest 10 ms after they ask. */
static void the_share_is_fair(void)
{
    pthread_t threads[THREADS];
    uintptr_t i;
    long sum = 0;
    open_heap(1);
    running = most = 0;
    check_set(&stop, 0);
    memset(turns, 0, sizeof turns);
    for (i = 0; i < THREADS; i++) NEED(pthread_create(&threads[i], NULL, work, (void *)i) == 0);
    check_sleep_ms(2000);
    check_set(&stop, 1);
    for (i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (i = 0; i < THREADS; i++) sum += turns[i];
    for (i = 0; i < THREADS; i++) CHECK(turns[i] * THREADS * 4 >= sum); /* a quarter of its due, at least */
    CHECK_OK(besom_heap_free(heap));
}

static void *spin(void *unused)
{
    besom_mutator *m;
    if (besom_attach(heap, &m) != BESOM_OK) abort();
    __atomic_store_n(&running, 1, __ATOMIC_SEQ_CST);
    while (!check_is_set(&stop)) besom_safepoint(m);
    if (besom_detach(m) != BESOM_OK) abort();
    return unused;
}

static void a_waiting_thread_gets_the_p(void)
{
    pthread_t thread;
    besom_mutator *m;
    uint64_t start;
    open_heap(1);
    running = 0;
    check_set(&stop, 0);
    NEED(pthread_create(&thread, NULL, spin, NULL) == 0);
    while (!__atomic_load_n(&running, __ATOMIC_SEQ_CST)) check_sleep_ms(1);
    start = check_now_ns();
    NEED(besom_attach(heap, &m) == BESOM_OK);
    CHECK_LE((check_now_ns() - start) / 1000000, 500); /* 10 ms and what a busy machine adds */
    start = check_now_ns();
    besom_block(m); /* the other runs; and back */
    check_sleep_ms(30);
    besom_unblock(m);
    CHECK_LE((check_now_ns() - start) / 1000000, 530);
    CHECK(besom_alloc(m, 10, BESOM_VALUES) != NULL);
    CHECK_OK(besom_collect(m));
    check_set(&stop, 1);
    besom_block(m);
    pthread_join(thread, NULL);
    besom_unblock(m);
    CHECK_OK(besom_detach(m));
    CHECK_OK(besom_heap_free(heap));
}

static void *allocate(void *argument)
{
    besom_mutator *m;
    uint64_t *kept = NULL, i;
    if (besom_attach(heap, &m) != BESOM_OK) abort();
    BESOM_FRAME(m, &kept);
    for (i = 0; !check_is_set(&stop); i++) {
        uint64_t *p = (uint64_t *)besom_alloc(m, 8 * (2 + i % 60), BESOM_VALUES);
        if (p == NULL || p[0] != 0 || p[1] != 0) abort();
        p[1] = i << 8 | 1;
        if (i % 100 == 0) kept = p;
        if (kept[1] != ((i - i % 100) << 8 | 1)) abort();
        turns[(uintptr_t)argument]++;
    }
    BESOM_FRAME_END(m);
    if (besom_detach(m) != BESOM_OK) abort();
    return NULL;
}

static void the_number_changes_while_running(void)
{
    static const unsigned numbers[] = {1, 4, 2, 0, 1, 3, 0, 64, 1, 2};
    pthread_t threads[THREADS];
    besom_stats stats;
    besom_mutator *m;
    uintptr_t i;
    int round;
    open_heap(2);
    check_set(&stop, 0);
    memset(turns, 0, sizeof turns);
    for (i = 0; i < THREADS; i++) NEED(pthread_create(&threads[i], NULL, allocate, (void *)i) == 0);
    for (round = 0; round < (check_short() ? 1 : 4); round++)
        for (i = 0; i < sizeof numbers / sizeof *numbers; i++) {
            CHECK_OK(besom_procs_set(heap, numbers[i]));
            CHECK_EQ(besom_procs(heap), numbers[i]);
            check_sleep_ms(20);
            besom_stats_read(heap, &stats);
            CHECK(stats.free_count <= stats.alloc_count && stats.total_free_bytes <= stats.total_alloc_bytes);
        }
    check_set(&stop, 1);
    for (i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (i = 0; i < THREADS; i++) CHECK(turns[i] > 0);
    NEED(besom_attach(heap, &m) == BESOM_OK);
    CHECK_OK(besom_collect(m));
    besom_stats_read(heap, &stats);
    CHECK_EQ(stats.live_bytes, 0);
    CHECK_EQ(stats.alloc_count, stats.free_count); /* nothing is lost with a P */
    CHECK_EQ(stats.total_alloc_bytes, stats.total_free_bytes);
    CHECK_OK(besom_detach(m));
    CHECK_OK(besom_heap_free(heap));
}

static void out_of_range(void)
{
    open_heap(3);
    CHECK_EQ(besom_procs_set(heap, BESOM_PROCS_MAX + 1), BESOM_ERR_LIMIT);
    CHECK_EQ(besom_procs_set(heap, UINT32_MAX), BESOM_ERR_LIMIT);
    CHECK_EQ(besom_procs(heap), 3);
    CHECK_OK(besom_procs_set(heap, BESOM_PROCS_MAX));
    CHECK_EQ(besom_procs(heap), BESOM_PROCS_MAX);
    CHECK_OK(besom_heap_free(heap));
}

int main(void)
{
    RUN(one_p_serves_all);
    RUN(two_ps_serve_all);
    RUN(unlimited);
    RUN(the_share_is_fair);
    RUN(a_waiting_thread_gets_the_p);
    RUN(the_number_changes_while_running);
    RUN(out_of_range);
    return check_done();
}
