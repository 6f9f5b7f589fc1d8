/* Threads (SRFI 18): a Scheme thread is a pthread that is attached to the heap as long as it runs. All waiting is on one lock and
 * one condition variable, in blocked state: enough for an example, and fair to read. */
#include "scheme.h"
#include <errno.h>
#include <math.h>
#include <time.h>

/* Bytes of value stack that a thread reserves; only what it touches is committed. */
#define THREAD_STACK ((size_t)64 << 20)
enum { NEW, RUNNING, DONE, FAILED };
enum { MUTEX_OWNER, MUTEX_NAME, MUTEX_SPECIFIC, MUTEX_FIELDS }; /* owner: #f, a thread, or #t (locked, not owned) */
enum { CONDVAR_COUNT, CONDVAR_NAME, CONDVAR_SPECIFIC, CONDVAR_FIELDS };

static pthread_mutex_t big = PTHREAD_MUTEX_INITIALIZER; /* held for moments only, never at a safepoint */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static Value thread_arg(vm *v, const char *who, Value x) {
    if (!IS(x, T_THREAD)) fail_type(v, who, "a thread", x);
    return x;
}
static Value mutex_arg(vm *v, const char *who, Value x) {
    if (!IS(x, T_MUTEX)) fail_type(v, who, "a mutex", x);
    return x;
}

static Value thread_new(vm *v, Value thunk, Value name) {
    Value *base = v->sp; hold(v, thunk), hold(v, name); Value t = make_object(v, T_THREAD, THREAD_FIELDS, FALSE);
    FIELD(t, THREAD_THUNK) = thunk, FIELD(t, THREAD_NAME) = name;
    FIELD(t, THREAD_STATE) = FIX(NEW), FIELD(t, THREAD_PARAMS) = v->stack[REG_PARAMS]; return v->sp = base, t;
}

/* A deadline on the realtime clock from SRFI 18's timeout: seconds from now, or a time object, a record of the prelude. */
static struct timespec deadline(vm *v, Value seconds) {
    struct timespec t = {0, 0}; bool absolute = IS(seconds, T_RECORD) && LENGTH(seconds) == 2;
    if (absolute) seconds = FIELD(seconds, 1);
    double d = IS_FIX(seconds) ? (double)UNFIX(seconds) : IS_FLONUM(seconds) ? FLONUM(seconds) : (fail_type(v, NULL, "seconds", seconds), 0);
    if (!(d > 0)) d = 0;
    if (d > 1e10) d = 1e10;
    if (!absolute) clock_gettime(CLOCK_REALTIME, &t);
    double nanos = (double)t.tv_nsec + (d - floor(d)) * 1e9;
    t.tv_sec += (time_t)d + (time_t)(nanos / 1e9), t.tv_nsec = (long)fmod(nanos, 1e9); return t;
}

/* Called and returns with `big` held, and looks at no object. False at the deadline. Between unlocking and unblocking others may
 * change anything: the caller tests its condition again. */
static bool wait_for_change(vm *v, const struct timespec *until) {
    besom_block(v->m);
    int r = until ? pthread_cond_timedwait(&changed, &big, until) : pthread_cond_wait(&changed, &big);
    pthread_mutex_unlock(&big); /* besom_unblock may wait for a collection, and the lock must be free then */
    besom_unblock(v->m); pthread_mutex_lock(&big); return r != ETIMEDOUT;
}

static void finish(vm *v, Value t, Value result, int state) {
    pthread_mutex_lock(&big); store(v, t, &FIELD(t, THREAD_RESULT), result);
    store(v, t, &FIELD(t, THREAD_STATE), FIX(state)); pthread_cond_broadcast(&changed); pthread_mutex_unlock(&big);
}

struct start { besom_handle *thread; enum { STARTING, STARTED, REFUSED } state; }; /* the handle roots the object between two stacks */

static void *run(void *argument) {
    struct start *s = argument; vm *v = vm_new(THREAD_STACK); jmp_buf dead;
    if (v) {
        v->stack[REG_THREAD] = TAGGED(besom_handle_get(v->m, s->thread), TAG_OBJECT);
        v->stack[REG_PARAMS] = FIELD(v->stack[REG_THREAD], THREAD_PARAMS);
    }
    pthread_mutex_lock(&big);
    s->state = v ? STARTED : REFUSED; /* now its starter frees it */
    pthread_cond_broadcast(&changed); pthread_mutex_unlock(&big);
    if (!v) return NULL;
    v->on_exit = &dead;
    if (setjmp(dead) == 0) {
        Value result = vm_run(v, FIELD(v->stack[REG_THREAD], THREAD_THUNK));
        finish(v, v->stack[REG_THREAD], result, DONE);
    } else finish(v, v->stack[REG_THREAD], v->stack[REG_LAST], FAILED);
    vm_free(v); return NULL;
}

BUILTIN(make_thread, "make-thread", 1, 2) {
    if (!IS_PROC(argv[0])) fail_type(v, "make-thread", "a procedure", argv[0]);
    return thread_new(v, argv[0], argc > 1 ? argv[1] : FALSE);
}
BUILTIN(is_thread, "thread?", 1, 1) { return BOOL(IS(argv[0], T_THREAD)); }
BUILTIN(current, "current-thread", 0, 0) { return v->stack[REG_THREAD]; }
#define SLOT(id, name, type, expected, field)                                                                           \
    BUILTIN(id, name, 1, 1) {                                                                                           \
        if (!IS(argv[0], type)) fail_type(v, name, expected, argv[0]);                                                  \
        return argc == 1 ? FIELD(argv[0], field) : (store(v, argv[0], &FIELD(argv[0], field), argv[1]), UNSPECIFIED);  \
    }
SLOT(thread_name, "thread-name", T_THREAD, "a thread", THREAD_NAME)
SLOT(thread_specific, "thread-specific", T_THREAD, "a thread", THREAD_SPECIFIC)
SLOT(mutex_name, "mutex-name", T_MUTEX, "a mutex", MUTEX_NAME)
SLOT(mutex_specific, "mutex-specific", T_MUTEX, "a mutex", MUTEX_SPECIFIC)
SLOT(condvar_name, "condition-variable-name", T_CONDVAR, "a condition variable", CONDVAR_NAME)
SLOT(condvar_specific, "condition-variable-specific", T_CONDVAR, "a condition variable", CONDVAR_SPECIFIC)
ALSO(thread_specific, 1, "thread-specific-set!", 2, 2) ALSO(mutex_specific, 1, "mutex-specific-set!", 2, 2)
ALSO(condvar_specific, 1, "condition-variable-specific-set!", 2, 2)
BUILTIN(is_condvar, "condition-variable?", 1, 1) { return BOOL(IS(argv[0], T_CONDVAR)); }
BUILTIN(start, "thread-start!", 1, 1) {
    Value t = thread_arg(v, "thread-start!", argv[0]); pthread_t id; pthread_mutex_lock(&big);
    bool fresh = FIELD(t, THREAD_STATE) == FIX(NEW);
    if (fresh) store(v, t, &FIELD(t, THREAD_STATE), FIX(RUNNING));
    pthread_mutex_unlock(&big);
    if (!fresh) fail(v, "thread-start!", "started already", 1, t);
    struct start s = {.thread = besom_handle_new(v->m, ADDRESS(t)), .state = REFUSED};
    if (!s.thread) alloc_slow_error(v);
    pthread_mutex_lock(&big);
    if (pthread_create(&id, NULL, run, &s) == 0) {
        pthread_detach(id); s.state = STARTING;
        while (s.state == STARTING) wait_for_change(v, NULL);
    }
    pthread_mutex_unlock(&big); besom_handle_free(heap, s.thread);
    if (s.state == STARTED) return t;
    store(v, t, &FIELD(t, THREAD_STATE), FIX(NEW)); fail(v, "thread-start!", "the system refused a thread", 1, t);
}
BUILTIN(join, "%thread-join", 2, 2) { /* (%thread-join thread timeout-or-#f): (state . result) */
    Value t = thread_arg(v, "thread-join!", argv[0]);
    struct timespec until; bool timed = argv[1] != FALSE, in_time = true;
    if (timed) until = deadline(v, argv[1]);
    pthread_mutex_lock(&big);
    while (UNFIX(FIELD(t, THREAD_STATE)) < DONE && in_time) in_time = wait_for_change(v, timed ? &until : NULL);
    pthread_mutex_unlock(&big); return cons(v, FIELD(t, THREAD_STATE), FIELD(t, THREAD_RESULT));
}
BUILTIN(yield, "thread-yield!", 0, 0) {
    besom_block(v->m); sched_yield(); besom_unblock(v->m);
    return UNSPECIFIED;
}
BUILTIN(sleep, "thread-sleep!", 1, 1) {
    struct timespec until = deadline(v, argv[0]); besom_block(v->m);
    while (clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, NULL) == EINTR) {}
    besom_unblock(v->m); return UNSPECIFIED;
}

static bool is_abandoned(Value m) { /* its owner has ended */
    Value o = FIELD(m, MUTEX_OWNER);
    return IS(o, T_THREAD) && UNFIX(FIELD(o, THREAD_STATE)) >= DONE;
}
BUILTIN(make_mutex, "make-mutex", 0, 1) {
    Value m = make_object(v, T_MUTEX, MUTEX_FIELDS, FALSE);
    if (argc) FIELD(m, MUTEX_NAME) = argv[0];
    return m;
}
BUILTIN(is_mutex, "mutex?", 1, 1) { return BOOL(IS(argv[0], T_MUTEX)); }
BUILTIN(mutex_state, "mutex-state", 1, 1) {
    Value m = mutex_arg(v, "mutex-state", argv[0]), o = FIELD(m, MUTEX_OWNER);
    return o == FALSE ? symbol(v, "not-abandoned") : o == TRUE ? symbol(v, "not-owned") : is_abandoned(m) ? symbol(v, "abandoned") : o;
}
BUILTIN(mutex_lock, "mutex-lock!", 1, 3) {
    Value m = mutex_arg(v, "mutex-lock!", argv[0]), owner = argc > 2 ? argv[2] : v->stack[REG_THREAD];
    struct timespec until; bool timed = argc > 1 && argv[1] != FALSE, in_time = true;
    if (timed) until = deadline(v, argv[1]);
    pthread_mutex_lock(&big);
    while (FIELD(m, MUTEX_OWNER) != FALSE && !is_abandoned(m) && in_time) in_time = wait_for_change(v, timed ? &until : NULL);
    bool abandoned = is_abandoned(m), got = abandoned || FIELD(m, MUTEX_OWNER) == FALSE;
    if (got) store(v, m, &FIELD(m, MUTEX_OWNER), owner == FALSE ? TRUE : owner);
    pthread_mutex_unlock(&big);
    if (abandoned) fail_kind(v, "abandoned-mutex", "mutex-lock!: the thread that held it has ended", list_from(v, 1, argv, NIL));
    return BOOL(got);
}
/* A waiter takes the condition variable's count as it is and waits for it to change; signal lets everyone look. */
BUILTIN(mutex_unlock, "mutex-unlock!", 1, 3) { /* (mutex-unlock! mutex [condition-variable [timeout]]) */
    Value m = mutex_arg(v, "mutex-unlock!", argv[0]), r = TRUE;
    bool wait = argc > 1 && argv[1] != FALSE, timed = argc > 2 && argv[2] != FALSE, in_time = true;
    struct timespec until;
    if (wait && !IS(argv[1], T_CONDVAR)) fail_type(v, "mutex-unlock!", "a condition variable", argv[1]);
    if (timed) until = deadline(v, argv[2]);
    pthread_mutex_lock(&big); store(v, m, &FIELD(m, MUTEX_OWNER), FALSE); pthread_cond_broadcast(&changed);
    if (wait) {
        Value seen = FIELD(argv[1], CONDVAR_COUNT);
        while (FIELD(argv[1], CONDVAR_COUNT) == seen && in_time) in_time = wait_for_change(v, timed ? &until : NULL);
        r = BOOL(FIELD(argv[1], CONDVAR_COUNT) != seen);
    }
    return pthread_mutex_unlock(&big), r;
}
BUILTIN(make_condvar, "make-condition-variable", 0, 1) {
    Value c = make_object(v, T_CONDVAR, CONDVAR_FIELDS, FALSE);
    FIELD(c, CONDVAR_COUNT) = FIX(0), FIELD(c, CONDVAR_NAME) = argc ? argv[0] : FALSE; return c;
}
BUILTIN(signal, "condition-variable-signal!", 1, 1) {
    if (!IS(argv[0], T_CONDVAR)) fail_type(v, NULL, "a condition variable", argv[0]);
    pthread_mutex_lock(&big);
    FIELD(argv[0], CONDVAR_COUNT) += FIX(1); /* a fixnum over a fixnum: no barrier */
    pthread_cond_broadcast(&changed); return pthread_mutex_unlock(&big), UNSPECIFIED;
}
ALSO(signal, 1, "condition-variable-broadcast!", 1, 1)

void boot_threads(vm *v) { v->stack[REG_THREAD] = thread_new(v, FALSE, symbol(v, "main")); }
