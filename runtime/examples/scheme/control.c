/* Control: apply, continuations, multiple values, handlers, parameters, conditions, records, promises, eval, time.
 * A control builtin ends in call_with(): the VM then makes that call in its place. The frame of such a builtin is always in
 * place: argv[-3] is the caller's fp, argv[-2] the return address, argv[-1] the builtin. */
#include "scheme.h"
#include <time.h>
#include <unistd.h>

Value call_with(vm *v, Value *argv, Value proc, int argc) {
    argv[-1] = proc; v->sp = argv + argc, v->argc = argc; return CALL_REQUEST;
}

static void need_room(vm *v, int64_t words) { if (words > v->limit - v->sp) stack_overflow(v); }

CONTROL(apply, "apply", 1, -1) {
    Value f = argv[0], list = argv[argc - 1]; int64_t n = list_length(list);
    if (argc == 1) return call_with(v, argv, f, 0);
    if (n < 0) fail_type(v, "apply", "a list", list);
    need_room(v, n); memmove(argv, argv + 1, (size_t)(argc - 2) * sizeof(Value));
    for (Value *p = argv + argc - 2; list != NIL; list = CDR(list)) *p++ = CAR(list);
    return call_with(v, argv, f, argc - 2 + (int)n);
}

BUILTIN(values, "values", 0, -1) { return argc == 1 ? argv[0] : object_of(v, T_VALUES, argc, argv); }
CONTROL(apply_values, "%apply-values", 2, 2) { /* (%apply-values consumer values) */
    Value f = argv[0], x = argv[1];
    if (!IS(x, T_VALUES)) return argv[0] = x, call_with(v, argv, f, 1);
    need_room(v, LENGTH(x));
    for (int64_t i = 0; i < LENGTH(x); i++) argv[i] = FIELD(x, i);
    return call_with(v, argv, f, (int)LENGTH(x));
}

CONTROL(call_cc, "call-with-current-continuation", 1, 1) {
    Value f = argv[0]; size_t words = (size_t)(argv - 3 - (v->stack + REGISTERS));
    struct continuation *k = alloc(v, sizeof *k + words * sizeof(Value), BESOM_VALUES);
    k->header = HEADER(T_CONTINUATION, words);
    memcpy(k->dynamic, v->stack, sizeof k->dynamic); /* handlers, winders, parameters, and whose stack it is */
    k->fp = argv[-3], k->ip = argv[-2]; memcpy(k->stack, v->stack + REGISTERS, words * sizeof(Value));
    argv[0] = TAGGED(k, TAG_PROC); return call_with(v, argv, f, 1);
}
REGISTER_(call_cc, 1, "call/cc", 1, 1, 1)
CONTROL(throw, "%throw", 2, 2) { /* (%throw continuation value): the winders have run */
    Value k = argv[0], x = argv[1];
    v->stack[REG_WINDERS] = CONTINUATION(k)->dynamic[REG_WINDERS]; argv[0] = x; return call_with(v, argv, k, 1);
}
BUILTIN(continuation_winders, "%continuation-winders", 1, 1) { return CONTINUATION(argv[0])->dynamic[REG_WINDERS]; }

/* ---- the dynamic state: registers at the bottom of the stack, which need no barrier ---- */
static Value dynamic_register(vm *v, int which, int argc, Value *argv) {
    if (argc == 0) return v->stack[which];
    return v->stack[which] = argv[0], UNSPECIFIED;
}
BUILTIN(winders, "%winders", 0, 1) { return dynamic_register(v, REG_WINDERS, argc, argv); }
BUILTIN(params, "%params", 0, 1) { return dynamic_register(v, REG_PARAMS, argc, argv); }
BUILTIN(handlers, "%handlers", 0, 1) {
    if (unlikely(globals[G_RESERVE] == NIL) && argc > 0 && IS_PAIR(argv[0]) && CDR(argv[0]) == v->stack[REG_HANDLERS]) reserve_refill(v);
    return dynamic_register(v, REG_HANDLERS, argc, argv); /* a new handler: it will want its reserve */
}

BUILTIN(make_parameter, "%make-parameter", 2, 2) { return object_of(v, T_PARAMETER, 2, argv); } /* value, converted already; converter */
BUILTIN(parameter_converter, "%parameter-converter", 1, 1) {
    if (!IS_PROC_TYPE(argv[0], T_PARAMETER)) fail_type(v, "parameterize", "a parameter", argv[0]);
    return FIELD(argv[0], 1);
}

/* ---- conditions ---- */
BUILTIN(error, "error", 1, -1) {
    Value irritants = hold(v, list_from(v, argc - 1, argv + 1, NIL)), kind = hold(v, symbol(v, "error"));
    throw_value(v, condition_new(v, kind, argv[0], irritants));
}
BUILTIN(is_error, "error-object?", 1, 1) { return BOOL(IS(argv[0], T_CONDITION)); }
static Value condition_field(vm *v, Value c, int field, Value otherwise) {
    if (IS(c, T_CONDITION)) return FIELD(c, field);
    if (otherwise) return otherwise;
    fail_type(v, NULL, "an error object", c);
}
BUILTIN(message, "error-object-message", 1, 1) { return condition_field(v, argv[0], CONDITION_MESSAGE, 0); }
BUILTIN(irritants, "error-object-irritants", 1, 1) { return condition_field(v, argv[0], CONDITION_IRRITANTS, 0); }
BUILTIN(where, "error-object-location", 1, 1) { return condition_field(v, argv[0], CONDITION_WHERE, 0); }
BUILTIN(kind, "%condition-kind", 1, 1) { return condition_field(v, argv[0], CONDITION_KIND, 0); }
BUILTIN(make_condition, "%make-condition", 3, 3) { return condition_new(v, argv[0], argv[1], argv[2]); }
BUILTIN(uncaught, "%uncaught", 1, 1) { /* to the toplevel, with the place if the object does not know its own */
    Value x = argv[0];
    if (!IS(x, T_CONDITION) && v->is_main) { /* a thread's goes to its join */
        Value irritants = hold(v, list_from(v, 1, argv, NIL)), text = hold(v, string_from_c(v, "uncaught exception:"));
        x = condition_new(v, text, text, irritants);
    }
    v->stack[REG_LAST] = x; longjmp(*v->on_exit, 1);
}

/* ---- records, case-lambda, promises ---- */
BUILTIN(make_rtd, "%make-rtd", 2, 2) {
    Value fields = hold(v, list_to_vector(v, argv[1])), r = make_object(v, T_RTD, 2, FALSE);
    FIELD(r, 0) = argv[0], FIELD(r, 1) = fields; return r;
}
static Value record_proc(vm *v, int type, int argc, Value *argv) {
    if (!IS(argv[0], T_RTD)) fail_type(v, "define-record-type", "a record type", argv[0]);
    return object_of(v, type, argc, argv);
}
BUILTIN(rtd_fields, "%rtd-fields", 1, 1) { return FIELD(argv[0], 1); }
BUILTIN(record_maker, "%record-maker", 1, -1) { return record_proc(v, T_MAKER, argc, argv); }
BUILTIN(record_predicate, "%record-predicate", 1, 1) { return record_proc(v, T_ISA, argc, argv); }
BUILTIN(record_getter, "%record-getter", 2, 2) { return record_proc(v, T_GETTER, argc, argv); }
BUILTIN(record_setter, "%record-setter", 2, 2) { return record_proc(v, T_SETTER, argc, argv); }
BUILTIN(case_lambda, "%case-lambda", 0, -1) { return object_of(v, T_CASE, argc, argv); }
/* A promise is a cell that promises may share: #(cell), cell = (done? . value or thunk). */
BUILTIN(make_promise, "%make-promise", 2, 2) {
    Value cell = hold(v, cons_unrooted(v, argv[0], argv[1])); return make_object(v, T_PROMISE, 1, cell);
}
BUILTIN(is_promise, "promise?", 1, 1) { return BOOL(IS(argv[0], T_PROMISE)); }
BUILTIN(promise_cell, "%promise-cell", 1, 2) {
    if (!IS(argv[0], T_PROMISE)) fail_type(v, "force", "a promise", argv[0]);
    if (argc > 1) store(v, argv[0], &FIELD(argv[0], 0), argv[1]);
    return FIELD(argv[0], 0);
}
BUILTIN(is_procedure, "procedure?", 1, 1) { return BOOL(IS_PROC(argv[0])); }

/* ---- the rest ---- */
CONTROL(eval, "eval", 1, 2) { return call_with(v, argv, compile(v, argv[0]), 0); }
BUILTIN(gc, "collect-garbage", 0, 0) {
    besom_status status = besom_collect(v->m); besom_finalizers_run(v->m, SIZE_MAX); return BOOL(status == BESOM_OK);
}
static double now(clockid_t clock) {
    struct timespec t; clock_gettime(clock, &t); return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}
BUILTIN(jiffy, "current-jiffy", 0, 0) { return FIX((int64_t)(now(CLOCK_MONOTONIC) * 1e6)); }
BUILTIN(second, "current-second", 0, 0) { return flonum(v, now(CLOCK_REALTIME)); }
BUILTIN(exit, "exit", 0, 1) {
    extern _Noreturn void scheme_exit(vm *, int);
    scheme_exit(v, argc == 0 || argv[0] == TRUE ? 0 : IS_FIX(argv[0]) ? (int)UNFIX(argv[0]) & 255 : 1);
}
BUILTIN(emergency_exit, "emergency-exit", 0, 1) { _exit(argc == 0 || argv[0] == TRUE ? 0 : IS_FIX(argv[0]) ? (int)UNFIX(argv[0]) & 255 : 1); }
BUILTIN(getenv, "get-environment-variable", 1, 1) {
    if (!IS(argv[0], T_STRING)) fail_type(v, "get-environment-variable", "a string", argv[0]);
    char *name = string_to_c(v, argv[0]), *value = getenv(name); free(name);
    return value ? string_from_c(v, value) : FALSE;
}
static Value strings(vm *v, char **from) {
    Value *base = v->sp;
    for (; *from; from++) hold(v, string_from_c(v, *from));
    return list_from(v, (int)(v->sp - base), base, NIL);
}
extern char **environ, **scheme_arguments;
BUILTIN(environment, "%environment", 0, 0) { return strings(v, environ); }
BUILTIN(command_line, "command-line", 0, 0) { return strings(v, scheme_arguments); }
