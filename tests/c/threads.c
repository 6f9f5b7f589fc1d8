/* Threads: attach and detach, blocking, safepoints, several heaps, and who may call what. */
#include "check.h"
#include <semaphore.h>

typedef struct node {
    struct node *next;
    uint64_t number;
} node;

static besom_heap *heap;

static besom_mutator *attach(void)
{
    besom_mutator *m = NULL;
    NEED(besom_attach(heap, &m) == BESOM_OK);
    return m;
}

static pthread_t start(void *(*run)(void *), void *argument)
{
    pthread_t thread;
    NEED(pthread_create(&thread, NULL, run, argument) == 0);
    return thread;
}

static void join(besom_mutator *m, pthread_t thread)
{
    if (m != NULL) besom_block(m);
    NEED(pthread_join(thread, NULL) == 0);
    if (m != NULL) besom_unblock(m);
}

static void open_heap(void)
{
    besom_options o;
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    NEED(besom_heap_new(&o, &heap) == BESOM_OK);
}

static void wrong_times_have_a_status(void)
{
    besom_mutator *m, *again = NULL;
    open_heap();
    m = attach();
    CHECK_EQ(besom_attach(heap, &again), BESOM_ERR_STATE);
    CHECK(again == NULL);
    CHECK_EQ(besom_heap_free(heap), BESOM_ERR_STATE);
    besom_block(m);
    CHECK_EQ(besom_detach(m), BESOM_ERR_STATE);
    CHECK_EQ(besom_heap_free(heap), BESOM_ERR_STATE);
    CHECK_EQ(besom_attach(heap, &again), BESOM_ERR_STATE);
    besom_unblock(m);
    CHECK_EQ(besom_attach(heap, NULL), BESOM_ERR_INVALID);
    CHECK_EQ(besom_attach(NULL, &again), BESOM_ERR_INVALID);
    CHECK(besom_alloc(m, 10, BESOM_VALUES) != NULL); /* all as before */
    CHECK_OK(besom_detach(m));
    CHECK_EQ(besom_detach(m), BESOM_ERR_STATE);
    m = attach(); /* and once more */
    CHECK(besom_alloc(m, 10, BESOM_VALUES) != NULL);
    CHECK_OK(besom_detach(m));
    CHECK_OK(besom_heap_free(heap));
}

static besom_mutator *victim;
static besom_status detach_status;
static void *detach_the_victim(void *unused)
{
    detach_status = besom_detach(victim);
    return unused;
}

static void detach_of_anothers_mutator(void)
{
    open_heap();
    victim = attach();
    join(NULL, start(detach_the_victim, NULL));
    CHECK_EQ(detach_status, BESOM_ERR_STATE);
    CHECK_EQ(besom_detach(NULL), BESOM_ERR_INVALID);
    /* Nothing of the victim's was touched: a blocked one is scanned on its own stack afterwards. */
    besom_block(victim);
    pthread_join(start(detach_the_victim, NULL), NULL);
    besom_unblock(victim);
    CHECK_EQ(detach_status, BESOM_ERR_STATE);
    CHECK_OK(besom_collect(victim));
    CHECK(besom_alloc(victim, 10, BESOM_VALUES) != NULL);
    CHECK_OK(besom_detach(victim));
    CHECK_OK(besom_heap_free(heap));
}

/* Each thread keeps a list of its own in a frame, with garbage between, collecting now and then. */
static int churn_rounds;
static long churn_failures;
static void *churn(void *argument)
{
    besom_mutator *m = attach();
    const uint64_t id = (uint64_t)(uintptr_t)argument;
    node *head = NULL, *p;
    int i, length = 0;
    long bad = 0;
    BESOM_FRAME(m, &head);
    for (i = 0; i < churn_rounds; i++) {
        p = (node *)besom_alloc(m, sizeof *p, BESOM_VALUES);
        if (p == NULL || p->next != NULL || p->number != 0) {
            bad++;
            break;
        }
        p->number = id << 32 | (uint64_t)length;
        if (i % 8 == 0) {
            besom_write(m, p, &p->next, head);
            head = p;
            length++;
        }
        memset(besom_alloc(m, 1 + (size_t)i % 500, BESOM_NOSCAN), 0xff, 1);
        if (i % (churn_rounds / 4) == churn_rounds / 8) bad += besom_collect(m) != BESOM_OK;
        if (i % (churn_rounds / 4) == 0) { /* let go of the list */
            head = NULL;
            length = 0;
        }
    }
    for (p = head; p != NULL; p = p->next) bad += p->number != (id << 32 | (uint64_t)--length);
    bad += length != 0;
    BESOM_FRAME_END(m);
    __atomic_fetch_add(&churn_failures, bad, __ATOMIC_RELAXED);
    if (besom_detach(m) != BESOM_OK) __atomic_fetch_add(&churn_failures, 1, __ATOMIC_RELAXED);
    return NULL;
}

static void eight_threads_churn(void)
{
    pthread_t threads[8];
    besom_mutator *m;
    besom_stats stats;
    uintptr_t i, round;
    open_heap();
    churn_rounds = check_short() ? 4000 : 100000;
    churn_failures = 0;
    for (round = 0; round < 2; round++) { /* the second time with another thread attached and blocked */
        m = round ? attach() : NULL;
        for (i = 0; i < 8; i++) threads[i] = start(churn, (void *)(i + 1));
        for (i = 0; i < 8; i++) join(m, threads[i]);
        if (m != NULL) CHECK_OK(besom_detach(m));
    }
    CHECK_EQ(churn_failures, 0);
    m = attach();
    CHECK_OK(besom_collect(m));
    besom_stats_read(heap, &stats);
    CHECK_EQ(stats.live_bytes, 0); /* no thread left anything behind */
    CHECK(stats.forced_cycles >= 64 / 8);
    CHECK_OK(besom_detach(m));
    CHECK_OK(besom_heap_free(heap));
}

/* A blocked thread holds up no collection, and its roots count. */
static sem_t ready, go;
static node *blocked_node;
static int blocked_ok;
static void *sit_blocked(void *unused)
{
    besom_mutator *m = attach();
    node *n = (node *)besom_alloc(m, sizeof *n, BESOM_VALUES);
    BESOM_FRAME(m, &n);
    n->number = 7;
    blocked_node = n;
    besom_block(m);
    sem_post(&ready);
    sem_wait(&go);
    besom_unblock(m);
    blocked_ok = n->number == 7;
    BESOM_FRAME_END(m);
    blocked_ok &= besom_detach(m) == BESOM_OK;
    return unused;
}

static void blocked_threads_do_not_hold_up(void)
{
    besom_mutator *m;
    pthread_t thread;
    int i;
    sem_init(&ready, 0, 0);
    sem_init(&go, 0, 0);
    open_heap();
    m = attach();
    thread = start(sit_blocked, NULL);
    besom_block(m);
    sem_wait(&ready);
    besom_unblock(m);
    for (i = 0; i < 10; i++) CHECK_OK(besom_collect(m));
    CHECK(besom_size(heap, blocked_node) != 0);
    sem_post(&go);
    join(m, thread);
    CHECK(blocked_ok);
    CHECK_OK(besom_collect(m));
    CHECK(besom_size(heap, blocked_node) == 0); /* its frame went with it */
    CHECK_OK(besom_detach(m));
    CHECK_OK(besom_heap_free(heap));
}

#if defined(__x86_64__)
/* Objects that only the registers of a blocked thread hold. Their addresses lie inverted elsewhere. */
static uintptr_t inverted[4];
static void __attribute__((noinline)) make_inverted(besom_mutator *m)
{
    int i;
    for (i = 0; i < 4; i++) inverted[i] = ~(uintptr_t)besom_alloc(m, 128, BESOM_NOSCAN);
}
static void __attribute__((noinline)) wait_blocked(void)
{
    sem_post(&ready);
    sem_wait(&go);
}
static void *hold_in_registers(void *unused)
{
    besom_mutator *m = attach();
    make_inverted(m);
    {
        register uintptr_t b __asm__("r12") = ~inverted[0];
        register uintptr_t c __asm__("r13") = ~inverted[1];
        register uintptr_t d __asm__("r14") = ~inverted[2];
        register uintptr_t e __asm__("r15") = ~inverted[3];
        __asm__ volatile("" : "+r"(b), "+r"(c), "+r"(d), "+r"(e));
        besom_block(m);
        wait_blocked();
        besom_unblock(m);
        __asm__ volatile("" : "+r"(b), "+r"(c), "+r"(d), "+r"(e));
    }
    NEED(besom_detach(m) == BESOM_OK);
    return unused;
}

static void registers_are_roots(void)
{
    besom_options o;
    besom_mutator *m;
    pthread_t thread;
    int i;
    sem_init(&ready, 0, 0);
    sem_init(&go, 0, 0);
    if (check_short() && getenv("CHECK_NATIVE") == NULL) return; /* see run.sh */
    besom_options_init(&o);
    o.scan_native_stacks = 1;
    NEED(besom_heap_new(&o, &heap) == BESOM_OK);
    m = attach();
    thread = start(hold_in_registers, NULL);
    besom_block(m);
    sem_wait(&ready);
    besom_unblock(m);
    CHECK_OK(besom_collect(m));
    for (i = 0; i < 4; i++) CHECK(besom_size(heap, (void *)~inverted[i]) == 128);
    sem_post(&go);
    join(m, thread);
    CHECK_OK(besom_detach(m));
    CHECK_OK(besom_heap_free(heap));
}

/* A wrapper that blocks pushes its caller's registers and returns: what they held must live though the wait
 * overwrites that frame, and the register itself is scanned by nobody. */
static void __attribute__((noinline)) enter_blocking(besom_mutator *m, volatile int *blocked)
{
    *blocked = 1;
    besom_block(m);
    *blocked += 1;
}
static void __attribute__((noinline)) overwrite_the_stack(void)
{
    char deep[1024];
    memset(deep, 1, sizeof deep);
    __asm__ volatile("" ::"r"(deep) : "memory");
}
static void *collect_there(void *unused)
{
    besom_mutator *m = attach();
    CHECK_OK(besom_collect(m));
    CHECK_OK(besom_detach(m));
    return unused;
}
static void __attribute__((noinline)) hold_in_a_register(besom_mutator *m)
{
    volatile int blocked = 0;
    uint64_t *p = (uint64_t *)besom_alloc(m, 64, BESOM_NOSCAN);
    /* rbx is preserved by callees, so that the wrapper must push it if it uses it. */
    __asm__ volatile("" : "+b"(p));
    p[0] = 42;
    enter_blocking(m, &blocked);
    overwrite_the_stack();
    pthread_join(start(collect_there, NULL), NULL);
    besom_unblock(m);
    __asm__ volatile("" : "+b"(p));
    CHECK(besom_size(heap, p) == 64 && p[0] == 42);
}
static void what_a_thread_held_when_it_blocked_lives(void)
{
    besom_options o;
    besom_mutator *m;
    if (check_short() && getenv("CHECK_NATIVE") == NULL) return; /* see run.sh */
    besom_options_init(&o);
    o.scan_native_stacks = 1;
    o.clobber_free = 1;
    NEED(besom_heap_new(&o, &heap) == BESOM_OK);
    m = attach();
    hold_in_a_register(m);
    CHECK_OK(besom_detach(m));
    CHECK_OK(besom_heap_free(heap));
}
#endif

/* A thread that does not allocate reaches safepoints, so the others can collect. */
static int spin_stop;
static void *spin(void *unused)
{
    besom_mutator *m = attach();
    sem_post(&ready);
    while (!check_is_set(&spin_stop)) besom_safepoint(m);
    NEED(besom_detach(m) == BESOM_OK);
    return unused;
}

static void safepoints_let_collections_in(void)
{
    besom_mutator *m;
    pthread_t thread;
    int i;
    sem_init(&ready, 0, 0);
    open_heap();
    m = attach();
    check_set(&spin_stop, 0);
    thread = start(spin, NULL);
    besom_block(m);
    sem_wait(&ready);
    besom_unblock(m);
    for (i = 0; i < 50; i++) CHECK_OK(besom_collect(m));
    check_set(&spin_stop, 1);
    join(m, thread);
    CHECK_OK(besom_detach(m));
    CHECK_OK(besom_heap_free(heap));
}

/* Threads come and go, block and unblock, while others collect. */
static int wanderers_stop;
static void *wander(void *argument)
{
    uint64_t random = (uint64_t)(uintptr_t)argument;
    while (!check_is_set(&wanderers_stop)) {
        besom_mutator *m = attach();
        int i;
        for (i = 0; i < 20; i++) {
            node *n = (node *)besom_alloc(m, 16 + random % 64, BESOM_VALUES);
            if (n == NULL) abort();
            random = random * 6364136223846793005u + 1442695040888963407u;
            if ((random >> 60) == 0) {
                besom_block(m);
                if ((random >> 59 & 1) == 0) usleep(50);
                besom_unblock(m);
            }
        }
        if (besom_detach(m) != BESOM_OK) abort();
    }
    return NULL;
}

static void attach_and_detach_during_collections(void)
{
    pthread_t threads[6];
    besom_mutator *m;
    uintptr_t i;
    uint64_t end;
    int cycles;
    open_heap();
    m = attach();
    check_set(&wanderers_stop, 0);
    for (i = 0; i < 6; i++) threads[i] = start(wander, (void *)(i + 1));
    end = check_now_ns() + (check_short() ? 300 : 1500) * (uint64_t)1000000;
    for (cycles = 0; CHECK_LASTS(end, cycles > 10); cycles++) CHECK_OK(besom_collect(m));
    check_set(&wanderers_stop, 1);
    for (i = 0; i < 6; i++) join(m, threads[i]);
    CHECK_OK(besom_detach(m));
    CHECK_OK(besom_heap_free(heap));
}

static besom_handle *passed;
static uint64_t passed_number;
static void *take_handle(void *unused)
{
    besom_mutator *m = attach();
    node *n = (node *)besom_handle_get(m, passed);
    passed_number = n->number;
    besom_handle_free(heap, passed);
    n = (node *)besom_alloc(m, sizeof *n, BESOM_VALUES);
    n->number = passed_number + 1;
    passed = besom_handle_new(m, n);
    NEED(besom_detach(m) == BESOM_OK);
    return unused;
}

static void handles_cross_threads(void)
{
    besom_mutator *m;
    node *n;
    open_heap();
    m = attach();
    n = (node *)besom_alloc(m, sizeof *n, BESOM_VALUES);
    n->number = 5;
    passed = besom_handle_new(m, n);
    join(m, start(take_handle, NULL));
    CHECK_EQ(passed_number, 5);
    CHECK_OK(besom_collect(m));
    CHECK(besom_size(heap, n) == 0); /* its handle is gone; the other thread's outlived that thread */
    CHECK_EQ(((node *)besom_handle_get(m, passed))->number, 6);
    CHECK_OK(besom_detach(m));
    CHECK_OK(besom_heap_free(heap));
}

/* One thread on two heaps; each is collected alone. */
static void two_heaps_on_one_thread(void)
{
    besom_mutator *m1, *m2;
    besom_heap *h1 = check_heap(NULL, &m1), *h2 = check_heap(NULL, &m2);
    void *a = besom_alloc(m1, 100, BESOM_VALUES), *b = besom_alloc(m2, 100, BESOM_VALUES);
    CHECK(m1 != m2);
    CHECK_OK(besom_collect(m1));
    CHECK(besom_size(h1, a) == 0 && besom_size(h2, b) != 0);
    CHECK_OK(besom_collect(m2));
    CHECK(besom_size(h2, b) == 0);
    CHECK_EQ(besom_heap_free(h1), BESOM_ERR_STATE);
    check_heap_end(h1, m1);
    b = besom_alloc(m2, 100, BESOM_VALUES);
    CHECK(b != NULL && besom_size(h2, b) != 0);
    check_heap_end(h2, m2);
}

int main(void)
{
    RUN(wrong_times_have_a_status);
    RUN(detach_of_anothers_mutator);
    RUN(eight_threads_churn);
    RUN(blocked_threads_do_not_hold_up);
#if defined(__x86_64__)
    RUN(registers_are_roots);
    RUN(what_a_thread_held_when_it_blocked_lives);
#endif
    RUN(safepoints_let_collections_in);
    RUN(attach_and_detach_during_collections);
    RUN(handles_cross_threads);
    RUN(two_heaps_on_one_thread);
    return check_done();
}
