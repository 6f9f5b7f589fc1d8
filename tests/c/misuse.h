/* Contracts broken on purpose: each case must abort with one line. `program list` prints a case a line, its name and
 * a regular expression for what it says; `program <case>` runs it. A program is functions of no argument, a table of
 * CASEs, and a main that returns misuse_main(). */
#ifndef MISUSE_H
#define MISUSE_H
#include "check.h"
#include <sys/wait.h>

/* What each case is given: a heap with an object, a handle, a weak reference and an ephemeron, and another heap. */
static besom_heap *heap, *other_heap;
static besom_mutator *m, *other_m;
static void *object, *ephemeron;
static besom_handle *handle;
static besom_weak *weak;
static besom_layout layout; /* of which nothing is allocated yet */
static uint64_t no_object[8];

/* Called on the mutator's own thread by options.trace or options.roots of the heap, where they are set. */
static void (*in_trace)(void), (*in_roots)(void);

static void trace_objects(besom_tracer *tracer, void *o, void *data)
{
    (void)tracer, (void)o, (void)data;
    if (in_trace == NULL) return;
    if (gettid() == getpid()) in_trace();
    usleep(1000); /* so slow that whoever allocates must help */
}
static void trace_roots(besom_tracer *tracer, void *o, void *data)
{
    (void)tracer, (void)o, (void)data;
    if (in_roots != NULL && gettid() == getpid()) in_roots();
}

static void setup(int verify, int mode)
{
    besom_options o;
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    o.verify = verify;
    o.mode = mode;
    o.trace = trace_objects;
    o.roots = trace_roots;
    heap = check_heap(&o, &m);
    other_heap = check_heap(NULL, &other_m);
    object = besom_alloc(m, 64, BESOM_VALUES);
    handle = besom_handle_new(m, object);
    weak = besom_weak_new(m, object);
    ephemeron = besom_ephemeron_new(m, object, NULL);
    NEED(object != NULL && handle != NULL && weak != NULL && ephemeron != NULL);
    NEED(besom_layout_register(heap, 16, NULL, 0, &layout) == BESOM_OK);
}

static inline void detach(void)
{
    NEED(besom_detach(m) == BESOM_OK);
}

#define BLOCKED(fn) "^besom: " fn ": mutator is blocked, between besom_block and besom_unblock$"
#define FORKED(fn) "^besom: " fn ": the process was forked, and besom_after_fork_child was not called$"
#define FOREIGN(fn)                                                                                                    \
    "^besom: " fn ": called on another thread than the mutator's, attached on thread [1-9][0-9]*, called on "         \
    "[1-9][0-9]*$"
#define DETACHED(fn) "^besom: " fn ": mutator is detached$"
#define CALLBACK(fn) "^besom: " fn ": called by a trace function or a visit$"
#define FREED_HEAP(fn) "^besom: " fn ": heap is freed$"

typedef struct {
    const char *name;
    void (*run)(void);
    int verify, mode, checked;
    const char *pattern;
} misuse_case;
#define CASE(name, pattern) {#name, name, BESOM_VERIFY_OFF, BESOM_CONCURRENT, 0, pattern}
#define CASE_VERIFIED(name, verify, pattern) {#name, name, verify, BESOM_CONCURRENT, 0, pattern}
#define CASE_STOPPED(name, pattern) {#name, name, BESOM_VERIFY_OFF, BESOM_STOP_THE_WORLD, 0, pattern}
/* Told in the checked build only (make lib CHECKED=1; the runner sets CHECKED). */
#define CASE_CHECKED(name, fn) {#name, name, BESOM_VERIFY_OFF, BESOM_CONCURRENT, 1, FREED_HEAP(fn)}

static int misuse_main(int argc, char **argv, const misuse_case *cases, size_t count)
{
    size_t i;
    for (i = 0; i < count; i++) {
        if (cases[i].checked && getenv("CHECKED") == NULL) continue;
        if (argc == 2 && strcmp(argv[1], "list") == 0) printf("%s\t%s\n", cases[i].name, cases[i].pattern);
        if (argc == 2 && strcmp(argv[1], cases[i].name) == 0) {
            setup(cases[i].verify, cases[i].mode);
            cases[i].run();
            return 0; /* it should not come back */
        }
    }
    return argc == 2 && strcmp(argv[1], "list") == 0 ? 0 : 2;
}
#endif
