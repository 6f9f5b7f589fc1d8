/* Two races of a program's own, beside calls of the library: what .ci/step-races.sh expects both detectors to report,
 * by the name of the function in which they happen.  usage: planted counter|object */
#include "../check.h"

enum { ROUNDS = 200000 };
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

static void *race(void *which)
{
    besom_mutator *m = NULL;
    int i;
    NEED(besom_attach(heap, &m) == BESOM_OK);
    /* Both at once, and this says nothing of an order. */
    __atomic_fetch_add(&attached, 1, __ATOMIC_RELAXED);
    while (__atomic_load_n(&attached, __ATOMIC_RELAXED) < 2) besom_safepoint(m);
    for (i = 0; i < ROUNDS; i++) {
        if (which == NULL) race_on_a_counter();
        else race_on_an_object();
        NEED(besom_alloc(m, 32, BESOM_VALUES) != NULL);
    }
    NEED(besom_detach(m) == BESOM_OK);
    return NULL;
}

int main(int argc, char **argv)
{
    besom_mutator *m;
    pthread_t threads[2];
    void *which = argc > 1 && strcmp(argv[1], "object") == 0 ? &object : NULL;
    int i;
    heap = check_heap(NULL, &m);
    object = (uint64_t *)besom_alloc(m, 64, BESOM_VALUES);
    NEED(besom_handle_new(m, object) != NULL);
    for (i = 0; i < 2; i++) NEED(pthread_create(&threads[i], NULL, race, which) == 0);
    besom_block(m);
    for (i = 0; i < 2; i++) NEED(pthread_join(threads[i], NULL) == 0);
    besom_unblock(m);
    check_heap_end(heap, m);
    return check_done();
}
