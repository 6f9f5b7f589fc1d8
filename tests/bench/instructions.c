/* What the runner counts the instructions of: each operation is a function of its own, called `count` times while
 * nothing collects.  usage: instructions operation count */
#include "peer.h"

typedef struct operands {
    peer_thread *m;
    peer_layout layout;
    size_t bytes;
    void *object, *value;
} operands;

/* Kept whole and under its own name. */
#define OPERATION_BODY static __attribute__((noipa))
OPERATION_BODY void *op_alloc_16(peer_thread *m) { return peer_alloc(m, 16, VALUES); }
OPERATION_BODY void *op_alloc_24(peer_thread *m) { return peer_alloc(m, 24, VALUES); }
OPERATION_BODY void *op_alloc_64(peer_thread *m) { return peer_alloc(m, 64, VALUES); }
OPERATION_BODY void *op_alloc_tiny(peer_thread *m) { return peer_alloc(m, 8, BYTES); }
OPERATION_BODY void *op_alloc_variable(peer_thread *m, size_t bytes) { return peer_alloc(m, bytes, VALUES); }
OPERATION_BODY void *op_new(peer_thread *m, peer_layout layout) { return peer_new(m, layout); }
#if defined(PEER_BESOM)
OPERATION_BODY void op_write(peer_thread *m, void *object, void *slot, void *value) {
    besom_write(m, object, slot, value);
}
OPERATION_BODY void op_safepoint(peer_thread *m) { besom_safepoint(m); }
#endif

static void *volatile sink;

static int run(const char *name, const operands *o, long count) {
#define OPERATION(which, call)                                                                                         \
    if (strcmp(name, which) == 0) {                                                                                    \
        for (long i = 0; i < count; i++) call;                                                                         \
        return 1;                                                                                                      \
    }
    OPERATION("alloc_16", sink = op_alloc_16(o->m))
    OPERATION("alloc_24", sink = op_alloc_24(o->m))
    OPERATION("alloc_64", sink = op_alloc_64(o->m))
    OPERATION("alloc_tiny", sink = op_alloc_tiny(o->m))
    OPERATION("alloc_variable", sink = op_alloc_variable(o->m, o->bytes))
    OPERATION("new", sink = op_new(o->m, o->layout))
#if defined(PEER_BESOM)
    OPERATION("write", op_write(o->m, o->object, o->object, o->value))
    OPERATION("safepoint", op_safepoint(o->m))
#endif
    return 0;
}

int main(int argc, char **argv) {
    static const uint32_t offsets[] = {0, 8};
    operands o;
    CHECK(argc > 2);
    peer_start();
    peer_collecting(0);
    o.m = peer_attach();
    o.layout = peer_layout_make(24, offsets, 2);
    o.bytes = 40 + (size_t)(argc > 99); /* not a constant */
    o.object = peer_alloc(o.m, 16, VALUES);
    o.value = peer_alloc(o.m, 16, VALUES);
    CHECK(run(argv[1], &o, atol(argv[2])));
    return 0;
}
