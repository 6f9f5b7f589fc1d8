/* Errors: conditions, where they happened, and the jump from C back into the VM, which then calls the Scheme handler. */
#include "scheme.h"
#include <stdarg.h>

extern const char *compiler_where(vm *, int *line);

_Noreturn void throw_value(vm *v, Value x) {
    v->stack[REG_LAST] = x; longjmp(*v->on_error, 1);
}

/* The line of the instruction before `ip`, or 0. */
static uint32_t line_of(struct code *c, const uint32_t *ip) {
    uint32_t at = (uint32_t)(ip - 1 - c->ops), line = 0;
    for (uint32_t i = 0; i < c->line_count && c->lines[2 * i] <= at; i++) line = c->lines[2 * i + 1];
    return line;
}

Value vm_where(vm *v, bool skip_prelude) {
    char text[300]; int line = 0; const char *file = v->compiler ? compiler_where(v, &line) : NULL;
    Value *fp = v->fp; const uint32_t *ip = v->ip;
    while (!file && fp > v->stack + REGISTERS && ip) {
        if (IS_PROC_TYPE(fp[-1], T_CLOSURE)) {
            struct code *c = CODE(CLOSURE(fp[-1])->code); line = (int)line_of(c, ip);
            if (line && !(skip_prelude && c->file[0] == '<' && c->file[1] == 'p')) file = c->file;
        }
        ip = (const uint32_t *)(uintptr_t)fp[-2];
        if (ip == halt_code) break;
        fp = (Value *)((char *)v->stack + fp[-3]);
    }
    if (!file || line == 0) return FALSE;
    snprintf(text, sizeof text, "%.250s:%d", file, line); return string_from_c(v, text);
}

Value condition_new(vm *v, Value kind, Value message, Value irritants) {
    Value *base = v->sp; hold(v, kind), hold(v, message), hold(v, irritants); hold(v, vm_where(v, true));
    Value c = make_object(v, T_CONDITION, CONDITION_FIELDS, FALSE);
    FIELD(c, CONDITION_KIND) = kind, FIELD(c, CONDITION_MESSAGE) = message;
    FIELD(c, CONDITION_IRRITANTS) = irritants, FIELD(c, CONDITION_WHERE) = base[3]; return v->sp = base, c;
}

_Noreturn void fail_kind(vm *v, const char *kind, const char *message, Value irritants) {
    hold(v, irritants); Value text = hold(v, string_from_c(v, message));
    throw_value(v, condition_new(v, symbol(v, kind), text, irritants));
}

_Noreturn void fail(vm *v, const char *who, const char *message, int irritants, ...) {
    char text[300]; va_list args; Value *base = v->sp;
    va_start(args, irritants);
    for (int i = 0; i < irritants; i++) hold(v, va_arg(args, Value));
    va_end(args);
    if (who) snprintf(text, sizeof text, "%s: %s", who, message);
    else snprintf(text, sizeof text, "%s", message);
    fail_kind(v, "error", text, list_from(v, irritants, base, NIL));
}

_Noreturn void fail_type(vm *v, const char *who, const char *expected, Value got) {
    char text[120]; snprintf(text, sizeof text, "expected %s, got", expected); fail(v, who, text, 1, got);
}

int64_t index_arg(vm *v, const char *who, Value i, int64_t limit) {
    if (!IS_FIX(i)) fail_type(v, who, "an index", i);
    if (UNFIX(i) < 0 || UNFIX(i) > limit) fail(v, who, "index out of range", 1, i);
    return UNFIX(i);
}

/* Optional start and end arguments at argv[from]. */
void range_args(vm *v, const char *who, int argc, Value *argv, int from, int64_t length, int64_t *start, int64_t *end) {
    *end = argc > from + 1 ? index_arg(v, who, argv[from + 1], length) : length;
    *start = argc > from ? index_arg(v, who, argv[from], *end) : 0;
}
