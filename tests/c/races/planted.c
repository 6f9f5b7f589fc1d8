/* Races of a program's own, beside calls of the library and in functions that it calls: what .ci/step-races.sh expects
 * both detectors to report, by the name of the function in which they happen. And what is none, of which there is nothing to
 * report: an end in the midst of a call, and what a stop keeps in order.
 * usage: planted counter|object|walk|trace|roots|heap_roots|exit|stop|fill */
#include "../check.h"

enum { ROUNDS = 200000, CALLS = 100, SLOTS = 512 };
static besom_heap *heap;
static long counter;
static uint64_t *object;
static int attached;

static void __attribute__((noinline)) race_on_a_counter(void)
{
    counter++;
}

static void __attribute__((noinline)) race_on_an_object(void)
{
    object[0]++;
}

static int visit(void *o, size_t bytes, besom_kind kind, void *data)
{
    (void)o, (void)bytes, (void)kind, (void)data;
    race_on_a_counter();
    return 0;
}

static const char *race;

static void trace(besom_tracer *tracer, void *o, void *data)
{
    int i;
    (void)data;
    if (strcmp(race, "stop") == 0) {
        /* Any thread that marks, and the object any thread's: all of them have stopped. */
        ((uint64_t *)o)[1] += ((uint64_t *)o)[0];
        return;
    }
    if (strcmp(race, "fill") == 0) {
        /* As the guide has it. (roots: NULL.) */
        for (i = 0; o != NULL && i < SLOTS; i++) besom_trace(tracer, ((void **)o)[i]);
        return;
    }
    race_on_a_counter();
}

static int leave(besom_heap *of, size_t bytes, void *data)
{
    (void)of, (void)bytes, (void)data;
    exit(0);
}

static void *beside(void *unused)
{
    besom_mutator *m = NULL;
    besom_handle *kept = NULL;
    int i;
    NEED(besom_attach(heap, &m) == BESOM_OK);
    /* Both at once, and this says nothing of an order. */
    __atomic_fetch_add(&attached, 1, __ATOMIC_RELAXED);
    while (__atomic_load_n(&attached, __ATOMIC_RELAXED) < 2) besom_safepoint(m);
    for (i = 0; i < ROUNDS; i++) {
        if (strcmp(race, "counter") == 0) race_on_a_counter();
        if (strcmp(race, "object") == 0) race_on_an_object();
        if (strcmp(race, "stop") == 0 && i % 100 == 0) {
            uint64_t *mine = (uint64_t *)besom_alloc(m, 32, BESOM_TRACED);
            NEED(mine != NULL);
            if (kept != NULL) {
                const uint64_t *old = (const uint64_t *)besom_handle_get(m, kept);
                NEED(old[1] % old[0] == 0);
                besom_handle_free(heap, kept);
            }
            mine[0] = (uint64_t)i + 1;
            NEED((kept = besom_handle_new(m, mine)) != NULL);
            if (i % 1000 == 0) NEED(besom_collect(m) == BESOM_OK);
        }
        if (strcmp(race, "fill") == 0) {
            /* Slots that are empty, of an object that another thread may be tracing. */
            if (i % SLOTS == 0) {
                if (kept != NULL) besom_handle_free(heap, kept);
                NEED((kept = besom_handle_new(m, besom_alloc(m, SLOTS * 8, BESOM_TRACED))) != NULL);
            }
            void **filled = (void **)besom_handle_get(m, kept);
            besom_write(m, filled, &filled[i % SLOTS], filled);
            if (i % 2000 == 0) NEED(besom_collect(m) == BESOM_OK);
        }
        NEED(besom_alloc(m, 32, BESOM_VALUES) != NULL);
    }
    NEED(besom_detach(m) == BESOM_OK);
    return unused;
}

/* In no order with anything: its thread has nothing to do with the library. */
static void *apart(void *unused)
{
    while (!check_is_set(&attached)) race_on_a_counter();
    return unused;
}

/* The library calls a function of ours, again and again, beside the other thread's. */
static void call(besom_mutator *m)
{
    int i;
    for (i = 0; i < CALLS; i++) {
        if (strcmp(race, "walk") == 0) NEED(besom_walk(m, visit, NULL) == 0);
        else NEED(besom_collect(m) == BESOM_OK);
        usleep(1000);
    }
    check_set(&attached, 1);
}

int main(int argc, char **argv)
{
    besom_mutator *m;
    besom_options o;
    pthread_t threads[2];
    int i, n;
    race = argc > 1 ? argv[1] : "";
    n = strcmp(race, "walk") == 0 || strcmp(race, "trace") == 0 || strstr(race, "roots") != NULL ? 1 : 2;
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    o.trace = trace;
    if (strcmp(race, "heap_roots") == 0) o.roots = trace;
    if (strcmp(race, "stop") == 0) o.mode = BESOM_STOP_THE_WORLD; /* else it would trace beside the others */
    if (strcmp(race, "exit") == 0) o.heap_limit = 1 << 20, o.out_of_memory = leave;
    heap = check_heap(&o, &m);
    object = (uint64_t *)besom_alloc(m, 64, strcmp(race, "trace") == 0 ? BESOM_TRACED : BESOM_VALUES);
    NEED(besom_handle_new(m, object) != NULL);
    if (strcmp(race, "exit") == 0) {
        (void)besom_alloc(m, 1 << 19, BESOM_NOSCAN);
        for (i = 0; i < 100; i++) NEED(besom_handle_new(m, besom_alloc(m, 1 << 15, BESOM_NOSCAN)) != NULL);
        return 1;
    }
    if (strcmp(race, "roots") == 0) NEED(besom_mutator_roots(m, trace, NULL) == BESOM_OK);
    for (i = 0; i < n; i++) NEED(pthread_create(&threads[i], NULL, n == 2 ? beside : apart, NULL) == 0);
    if (n == 1) call(m);
    besom_block(m);
    for (i = 0; i < n; i++) NEED(pthread_join(threads[i], NULL) == 0);
    besom_unblock(m);
    check_heap_end(heap, m);
    return check_done();
}
