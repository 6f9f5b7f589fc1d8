/* A heap whose cycles can be held while objects are marked, so that the program can act in just that moment: the
 * collector traces an object, the gate, and waits there. What only the gate leads to is not marked yet then. In mode
 * BESOM_STOP_THE_WORLD the program acts before the cycle. */
#ifndef GATE_H
#define GATE_H
#include "check.h"

typedef struct {
    void *holder[64]; /* behind the gate */
} gate_objects;

enum { GATE_OPEN, GATE_CLOSED, GATE_REACHED };
static int gate_is;
static besom_heap *gate_heap;
static besom_mutator *gate_m;
static void *gate; /* a BESOM_TRACED object of one word */
static gate_objects *behind;
static void *still;  /* what options.roots reads */
static int still_calls;

static void trace_gate(besom_tracer *tracer, void *object, void *data)
{
    int closed = GATE_CLOSED;
    (void)data;
    if (__atomic_compare_exchange_n(&gate_is, &closed, GATE_REACHED, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        while (__atomic_load_n(&gate_is, __ATOMIC_ACQUIRE) != GATE_OPEN) usleep(100);
    besom_trace(tracer, __atomic_load_n((void **)object, __ATOMIC_RELAXED));
}

static void trace_still(besom_tracer *tracer, void *object, void *data)
{
    (void)object, (void)data;
    still_calls++;
    besom_trace(tracer, still);
}

static void gate_open_heap(int mode, int verify)
{
    besom_options o;
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    o.mode = mode;
    o.verify = verify;
    o.trace = trace_gate;
    o.roots = trace_still;
    still = NULL;
    gate_heap = check_heap(&o, &gate_m);
    gate = besom_alloc(gate_m, 8, BESOM_TRACED);
    NEED(gate != NULL && besom_handle_new(gate_m, gate) != NULL);
    behind = (gate_objects *)besom_alloc(gate_m, sizeof *behind, BESOM_VALUES);
    NEED(behind != NULL);
    besom_write(gate_m, gate, gate, behind);
}

static void *gate_collect(void *unused)
{
    besom_mutator *own;
    NEED(besom_attach(gate_heap, &own) == BESOM_OK);
    NEED(besom_collect(own) == BESOM_OK);
    NEED(besom_detach(own) == BESOM_OK);
    return unused;
}

/* A cycle, forced by another thread, in the middle of which this one acts. */
static void while_marking(int mode, void (*act)(void))
{
    pthread_t thread;
    if (mode == BESOM_STOP_THE_WORLD) {
        act();
        NEED(besom_collect(gate_m) == BESOM_OK);
        return;
    }
    __atomic_store_n(&gate_is, GATE_CLOSED, __ATOMIC_RELEASE);
    NEED(pthread_create(&thread, NULL, gate_collect, NULL) == 0);
    while (__atomic_load_n(&gate_is, __ATOMIC_ACQUIRE) != GATE_REACHED) besom_safepoint(gate_m);
    act();
    __atomic_store_n(&gate_is, GATE_OPEN, __ATOMIC_RELEASE);
    besom_block(gate_m);
    NEED(pthread_join(thread, NULL) == 0);
    besom_unblock(gate_m);
}
#endif
