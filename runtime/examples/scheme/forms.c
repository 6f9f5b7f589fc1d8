/* Forms that are rewritten in C: quasiquote and include. */
#include "ast.h"
#include <stdarg.h>

Value build(vm *v, const char *first, int n, ...) {
    Value *base = v->sp; va_list args;
    if (first) make_alias(v, hold(v, symbol(v, first)), NULL); /* held, above its symbol */
    Value *items = v->sp - (first ? 1 : 0); va_start(args, n);
    for (int i = 0; i < n; i++) hold(v, va_arg(args, Value));
    va_end(args); Value list = list_from(v, (int)(v->sp - items), items, NIL); return v->sp = base, hold(v, list);
}

static Value quoted(vm *v, Value x) { return build(v, "quote", 1, x); }

#define EMIT(definition) do { Value d_ = hold(v, cons(v, definition, NIL)); store(v, last, &CDR(last), d_); last = d_; } while (0)
/* (include file ...): a name is relative to the file that the form is in. */
Value expand_include(vm *v, Value form, bool fold) {
    Value out = hold(v, cons(v, make_alias(v, symbol(v, "begin"), NULL), NIL)), last = out;
    const char *slash = strrchr(v->compiler->file, '/');
    for (Value names = CDR(form); IS_PAIR(names); names = CDR(names)) {
        Value name = CAR(names);
        if (!IS(name, T_STRING)) syntax_error(v, "expected a file name", name);
        if (slash && !(LENGTH(name) > 0 && STRING(name)->ch[0] == '/')) {
            Value directory = hold(v, string_from(v, v->compiler->file, (size_t)(slash + 1 - v->compiler->file)));
            int64_t n = LENGTH(directory), more = LENGTH(name); Value whole = hold(v, make_string(v, n + more, 0));
            memcpy(STRING(whole)->ch, STRING(directory)->ch, (size_t)n * 4);
            memcpy(STRING(whole)->ch + n, STRING(name)->ch, (size_t)more * 4); name = whole;
        }
        Value port = hold(v, port_file_in(v, name)), x; PORT(port)->fold = fold;
        while ((x = read_datum(v, port)) != EOF_OBJECT) EMIT(hold(v, x));
        port_close(v, port);
    }
    return out;
}

static bool has_unquote(vm *v, Value x, struct scope *scope) {
    check_c_stack(v);
    for (; IS_PAIR(x); x = CDR(x))
        if (has_unquote(v, CAR(x), scope) || is_keyword(CAR(x), scope, G_UNQUOTE) || is_keyword(CAR(x), scope, G_SPLICING) ||
            is_keyword(CAR(x), scope, G_QUASIQUOTE)) return true;
    if (IS(x, T_VECTOR))
        for (int64_t i = 0; i < LENGTH(x); i++)
            if (has_unquote(v, FIELD(x, i), scope)) return true;
    return false;
}

Value expand_quasi(vm *v, Value x, int depth, struct scope *scope) {
    check_c_stack(v);
    if (!has_unquote(v, x, scope)) return quoted(v, x);
    if (IS(x, T_VECTOR)) return build(v, "list->vector", 1, expand_quasi(v, hold(v, vector_to_list(v, x)), depth, scope));
    Value head = CAR(x); bool two = IS_PAIR(CDR(x)) && CDDR(x) == NIL;
    if (two && is_keyword(head, scope, G_UNQUOTE)) {
        if (depth == 0) return CADR(x);
        return build(v, "list", 2, quoted(v, head), expand_quasi(v, CADR(x), depth - 1, scope));
    }
    if (two && is_keyword(head, scope, G_QUASIQUOTE)) return build(v, "list", 2, quoted(v, head), expand_quasi(v, CADR(x), depth + 1, scope));
    if (IS_PAIR(head) && is_keyword(CAR(head), scope, G_SPLICING) && IS_PAIR(CDR(head))) {
        Value rest = expand_quasi(v, CDR(x), depth, scope);
        if (depth == 0) return build(v, "append", 2, CADR(head), rest);
        Value inner = build(v, "list", 2, quoted(v, CAR(head)), expand_quasi(v, CADR(head), depth - 1, scope));
        return build(v, "cons", 2, inner, rest);
    }
    Value a = expand_quasi(v, head, depth, scope);
    return build(v, "cons", 2, a, expand_quasi(v, CDR(x), depth, scope));
}
