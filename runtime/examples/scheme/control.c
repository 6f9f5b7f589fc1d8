/* Control: apply, continuations, multiple values, handlers, parameters, conditions, records, promises, eval, time.
 * A control builtin ends in call_with(): the VM then makes that call in its place. The frame of such a builtin is always in
 * place: argv[-3] is the caller's fp, argv[-2] the return address, argv[-1] the builtin. */
#include "scheme.h"
#include <time.h>
#include <unistd.h>

Value call_with(vm *v, Value *argv, Value proc, int argc) {
    argv[-1] = proc;
    v->sp = argv + argc, v->argc = argc;
    return CALL_REQUEST;
}

static void need_room(vm *v, int64_t words) {
    if (words > v->limit - v->sp) stack_overflow(v);
}

BUILTIN(apply) {
    Value f = argv[0], list = argv[argc - 1];
    int64_t n = list_length(list);
    if (argc == 1) return call_with(v, argv, f, 0);
    if (n < 0) fail_type(v, "apply", "a list", list);
    need_room(v, n);
    memmove(argv, argv + 1, (size_t)(argc - 2) * sizeof(Value));
    for (Value *p = argv + argc - 2; list != NIL; list = CDR(list)) *p++ = CAR(list);
    return call_with(v, argv, f, argc - 2 + (int)n);
}

BUILTIN(values) {
    if (argc == 1) return argv[0];
    Value r = make_object(v, T_VALUES, argc, FALSE);
    for (int i = 0; i < argc; i++) FIELD(r, i) = argv[i];
    return r;
}
BUILTIN(apply_values) { /* (%apply-values consumer values) */
    Value f = argv[0], x = argv[1];
    if (!IS(x, T_VALUES)) return argv[0] = x, call_with(v, argv, f, 1);
    need_room(v, LENGTH(x));
    for (int64_t i = 0; i < LENGTH(x); i++) argv[i] = FIELD(x, i);
    return call_with(v, argv, f, (int)LENGTH(x));
}

BUILTIN(call_cc) {
    Value f = argv[0];
    size_t words = (size_t)(argv - 3 - (v->stack + REGISTERS));
    struct continuation *k = alloc(v, sizeof *k + words * sizeof(Value), BESOM_VALUES);
    k->header = HEADER(T_CONTINUATION, words);
    memcpy(k->dynamic, v->stack, sizeof k->dynamic); /* handlers, winders, parameters */
    k->fp = argv[-3], k->ip = argv[-2];
    memcpy(k->stack, v->stack + REGISTERS, words * sizeof(Value));
    argv[0] = TAGGED(k, TAG_PROC);
    return call_with(v, argv, f, 1);
}
BUILTIN(throw) { /* (%throw continuation value): the winders have run */
    Value k = argv[0], x = argv[1];
    v->stack[REG_WINDERS] = CONTINUATION(k)->dynamic[REG_WINDERS];
    argv[0] = x;
    return call_with(v, argv, k, 1);
}
BUILTIN(continuation_winders) { return CONTINUATION(argv[0])->dynamic[REG_WINDERS]; }

/* ---- the dynamic state: registers at the bottom of the stack, which need no barrier ---- */
static Value dynamic_register(vm *v, int which, int argc, Value *argv) {
    if (argc == 0) return v->stack[which];
    return v->stack[which] = argv[0], UNSPECIFIED;
}
BUILTIN(winders) { return dynamic_register(v, REG_WINDERS, argc, argv); }
BUILTIN(params) { return dynamic_register(v, REG_PARAMS, argc, argv); }
BUILTIN(handlers) {
    if (unlikely(globals[G_RESERVE] == NIL) && argc > 0 && IS_PAIR(argv[0]) && CDR(argv[0]) == v->stack[REG_HANDLERS]) reserve_refill(v);
    return dynamic_register(v, REG_HANDLERS, argc, argv); /* a new handler: it will want its reserve */
}

BUILTIN(make_parameter) { /* (%make-parameter value converter): the value is converted already */
    Value p = make_object(v, T_PARAMETER, 2, FALSE);
    FIELD(p, 0) = argv[0], FIELD(p, 1) = argv[1];
    return p;
}
BUILTIN(parameter_converter) {
    if (!IS_PROC_TYPE(argv[0], T_PARAMETER)) fail_type(v, "parameterize", "a parameter", argv[0]);
    return FIELD(argv[0], 1);
}

/* ---- conditions ---- */
BUILTIN(error) {
    Value irritants = hold(v, list_from(v, argc - 1, argv + 1, NIL)), kind = hold(v, symbol(v, "error"));
    throw_value(v, condition_new(v, kind, argv[0], irritants));
}
BUILTIN(is_error) { return BOOL(IS(argv[0], T_CONDITION)); }
static Value condition_field(vm *v, Value c, int field, Value otherwise) {
    if (IS(c, T_CONDITION)) return FIELD(c, field);
    if (otherwise) return otherwise;
    fail_type(v, NULL, "an error object", c);
}
BUILTIN(message) { return condition_field(v, argv[0], CONDITION_MESSAGE, 0); }
BUILTIN(irritants) { return condition_field(v, argv[0], CONDITION_IRRITANTS, 0); }
BUILTIN(where) { return condition_field(v, argv[0], CONDITION_WHERE, 0); }
static Value is_kind(vm *v, Value c, const char *kind) { return BOOL(condition_field(v, c, CONDITION_KIND, FALSE) == symbol(v, kind)); }
BUILTIN(is_file_error) { return is_kind(v, argv[0], "file"); }
BUILTIN(is_read_error) { return is_kind(v, argv[0], "read"); }
BUILTIN(is_memory_error) { return is_kind(v, argv[0], "memory"); }
BUILTIN(uncaught) { /* to the toplevel, with the place if the object does not know its own */
    Value x = argv[0];
    if (!IS(x, T_CONDITION) && v->is_main) { /* a thread's goes to its join */
        Value irritants = hold(v, list_from(v, 1, argv, NIL)), text = hold(v, string_from_c(v, "uncaught exception:"));
        x = condition_new(v, text, text, irritants);
    }
    v->stack[REG_LAST] = x;
    longjmp(*v->on_exit, 1);
}

/* ---- records, case-lambda, promises ---- */
BUILTIN(make_rtd) {
    Value fields = hold(v, list_to_vector(v, argv[1])), r = make_object(v, T_RTD, 2, FALSE);
    FIELD(r, 0) = argv[0], FIELD(r, 1) = fields;
    return r;
}
static Value record_proc(vm *v, int type, int argc, Value *argv) {
    if (!IS(argv[0], T_RTD)) fail_type(v, "define-record-type", "a record type", argv[0]);
    Value p = make_object(v, type, argc, 0);
    for (int i = 0; i < argc; i++) FIELD(p, i) = argv[i];
    return p;
}
BUILTIN(record_maker) { return record_proc(v, T_MAKER, argc, argv); }
BUILTIN(record_predicate) { return record_proc(v, T_ISA, argc, argv); }
BUILTIN(record_getter) { return record_proc(v, T_GETTER, argc, argv); }
BUILTIN(record_setter) { return record_proc(v, T_SETTER, argc, argv); }
BUILTIN(case_lambda) {
    Value p = make_object(v, T_CASE, argc, 0);
    for (int i = 0; i < argc; i++) FIELD(p, i) = argv[i];
    return p;
}
/* A promise is a cell that promises may share: #(cell), cell = (done? . value or thunk). */
BUILTIN(make_promise) {
    Value cell = hold(v, cons_unrooted(v, argv[0], argv[1]));
    return make_object(v, T_PROMISE, 1, cell);
}
BUILTIN(is_promise) { return BOOL(IS(argv[0], T_PROMISE)); }
BUILTIN(promise_cell) {
    if (!IS(argv[0], T_PROMISE)) fail_type(v, "force", "a promise", argv[0]);
    if (argc > 1) store(v, argv[0], &FIELD(argv[0], 0), argv[1]);
    return FIELD(argv[0], 0);
}
BUILTIN(is_procedure) { return BOOL(IS_PROC(argv[0])); }
BUILTIN(box) { return make_object(v, T_BOX, 1, argv[0]); }
BUILTIN(unbox) {
    if (!IS(argv[0], T_BOX)) fail_type(v, "unbox", "a box", argv[0]);
    return FIELD(argv[0], 0);
}
BUILTIN(set_box) {
    if (!IS(argv[0], T_BOX)) fail_type(v, "set-box!", "a box", argv[0]);
    return store(v, argv[0], &FIELD(argv[0], 0), argv[1]), UNSPECIFIED;
}

/* ---- the rest ---- */
BUILTIN(eval) { return call_with(v, argv, compile(v, argv[0]), 0); }
BUILTIN(environment) { return UNSPECIFIED; }
BUILTIN(void) { return UNSPECIFIED; }
BUILTIN(gc) {
    besom_status status = besom_collect(v->m);
    return BOOL(status == BESOM_OK);
}
static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}
BUILTIN(jiffy) { return FIX((int64_t)(now(CLOCK_MONOTONIC) * 1e6)); }
BUILTIN(jiffies) { return FIX(1000000); }
BUILTIN(second) { return flonum(v, now(CLOCK_REALTIME)); }
BUILTIN(cpu_time) { return flonum(v, now(CLOCK_PROCESS_CPUTIME_ID)); }
BUILTIN(exit) {
    extern _Noreturn void scheme_exit(vm *, int);
    scheme_exit(v, argc == 0 || argv[0] == TRUE ? 0 : IS_FIX(argv[0]) ? (int)UNFIX(argv[0]) & 255 : 1);
}
BUILTIN(emergency_exit) { _exit(argc == 0 || argv[0] == TRUE ? 0 : IS_FIX(argv[0]) ? (int)UNFIX(argv[0]) & 255 : 1); }
BUILTIN(getenv) {
    if (!IS(argv[0], T_STRING)) fail_type(v, "get-environment-variable", "a string", argv[0]);
    char *name = string_to_c(v, argv[0]), *value = getenv(name);
    free(name);
    return value ? string_from_c(v, value) : FALSE;
}
BUILTIN(command_line) {
    extern char **scheme_arguments;
    Value *base = v->sp;
    for (char **a = scheme_arguments; *a; a++) hold(v, string_from_c(v, *a));
    return list_from(v, (int)(v->sp - base), base, NIL);
}

static const struct builtin table[] = {
    {"apply", b_apply, 1, -1, 1}, {"values", b_values, 0, -1, 0}, {"%apply-values", b_apply_values, 2, 2, 1},
    {"call-with-current-continuation", b_call_cc, 1, 1, 1}, {"call/cc", b_call_cc, 1, 1, 1}, {"%throw", b_throw, 2, 2, 1},
    {"%continuation-winders", b_continuation_winders, 1, 1, 0}, {"%handlers", b_handlers, 0, 1, 0}, {"%winders", b_winders, 0, 1, 0},
    {"%params", b_params, 0, 1, 0}, {"%make-parameter", b_make_parameter, 2, 2, 0}, {"%parameter-converter", b_parameter_converter, 1, 1, 0},
    {"error", b_error, 1, -1, 0}, {"error-object?", b_is_error, 1, 1, 0}, {"error-object-message", b_message, 1, 1, 0},
    {"error-object-irritants", b_irritants, 1, 1, 0}, {"error-object-location", b_where, 1, 1, 0}, {"file-error?", b_is_file_error, 1, 1, 0},
    {"read-error?", b_is_read_error, 1, 1, 0}, {"out-of-memory-error?", b_is_memory_error, 1, 1, 0}, {"%uncaught", b_uncaught, 1, 1, 0},
    {"%make-rtd", b_make_rtd, 2, 2, 0}, {"%record-maker", b_record_maker, 1, -1, 0}, {"%record-predicate", b_record_predicate, 1, 1, 0},
    {"%record-getter", b_record_getter, 2, 2, 0}, {"%record-setter", b_record_setter, 2, 2, 0}, {"%case-lambda", b_case_lambda, 0, -1, 0},
    {"%make-promise", b_make_promise, 2, 2, 0}, {"promise?", b_is_promise, 1, 1, 0}, {"%promise-cell", b_promise_cell, 1, 2, 0},
    {"procedure?", b_is_procedure, 1, 1, 0}, {"box", b_box, 1, 1, 0}, {"unbox", b_unbox, 1, 1, 0}, {"set-box!", b_set_box, 2, 2, 0},
    {"eval", b_eval, 1, 2, 1}, {"interaction-environment", b_environment, 0, 0, 0}, {"system-global-environment", b_environment, 0, 0, 0},
    {"void", b_void, 0, -1, 0}, {"collect-garbage", b_gc, 0, 0, 0}, {"current-jiffy", b_jiffy, 0, 0, 0},
    {"jiffies-per-second", b_jiffies, 0, 0, 0}, {"current-second", b_second, 0, 0, 0}, {"cpu-time", b_cpu_time, 0, 0, 0},
    {"exit", b_exit, 0, 1, 0}, {"emergency-exit", b_emergency_exit, 0, 1, 0}, {"get-environment-variable", b_getenv, 1, 1, 0},
    {"command-line", b_command_line, 0, 0, 0},
};
void boot_control(vm *v) { DEFINE_BUILTINS(v, table); }
