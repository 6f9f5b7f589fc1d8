/* Forms that are rewritten in C: quasiquote and define-record-type. */
#include "ast.h"
#include <stdarg.h>

Value build(vm *v, const char *first, int n, ...) {
    Value *base = v->sp;
    va_list args;
    if (first) make_alias(v, hold(v, symbol(v, first)), NULL); /* held, above its symbol */
    Value *items = v->sp - (first ? 1 : 0);
    va_start(args, n);
    for (int i = 0; i < n; i++) hold(v, va_arg(args, Value));
    va_end(args);
    Value list = list_from(v, (int)(v->sp - items), items, NIL);
    return v->sp = base, hold(v, list);
}

static Value quoted(vm *v, Value x) { return build(v, "quote", 1, x); }

/* (define-record-type name (make field ...) pred (field get [set]) ...) */
static Value expand_record(vm *v, Value form) {
    int64_t n = list_length(form);
    if (n < 4) syntax_error(v, "bad syntax", form);
    Value name = CADR(form), make = CAR(CDDR(form)), pred = CADR(CDDR(form)), specs = CDDR(CDDR(form)), fields = NIL, out;
    if (IS_PAIR(name)) name = CAR(name);
    Value all = hold(v, list_to_vector(v, specs));
    for (int64_t i = LENGTH(all); i-- > 0;) {
        Value s = FIELD(all, i);
        if (!is_identifier(s) && (list_length(s) < 1 || list_length(s) > 3)) syntax_error(v, "bad field", s);
        fields = hold(v, cons(v, is_identifier(s) ? s : CAR(s), fields));
    }
    out = build(v, NULL, 2, make_alias(v, symbol(v, "begin"), NULL),
                build(v, "define", 2, name, build(v, "%make-rtd", 2, quoted(v, name), quoted(v, fields))));
    Value last = CDR(out);
#define EMIT(definition) do { Value d_ = hold(v, cons(v, definition, NIL)); store(v, last, &CDR(last), d_); last = d_; } while (0)
    if (make != FALSE) {
        Value wanted = IS_PAIR(make) ? CDR(make) : fields, indices = NIL;
        Value *start = v->sp;
        for (; IS_PAIR(wanted); wanted = CDR(wanted)) {
            int64_t i = 0;
            Value f = fields;
            while (f != NIL && CAR(f) != CAR(wanted)) f = CDR(f), i++;
            if (f == NIL) syntax_error(v, "no such field", CAR(wanted));
            hold(v, FIX(i + 1));
        }
        indices = hold(v, list_from(v, (int)(v->sp - start), start, NIL));
        Value args = hold(v, cons(v, name, indices));
        Value maker = hold(v, cons(v, make_alias(v, symbol(v, "%record-maker"), NULL), args));
        EMIT(build(v, "define", 2, IS_PAIR(make) ? CAR(make) : make, maker));
    }
    if (pred != FALSE) EMIT(build(v, "define", 2, pred, build(v, "%record-predicate", 1, name)));
    for (int64_t i = 0; i < LENGTH(all); i++) {
        Value s = FIELD(all, i);
        if (!IS_PAIR(s) || CDR(s) == NIL) continue;
        EMIT(build(v, "define", 2, CADR(s), build(v, "%record-getter", 2, name, FIX(i + 1))));
        if (CDDR(s) != NIL) EMIT(build(v, "define", 2, CAR(CDDR(s)), build(v, "%record-setter", 2, name, FIX(i + 1))));
    }
    return out;
}

/* (include file ...): a name is relative to the file that the form is in. */
static Value expand_include(vm *v, Value form, bool fold) {
    Value out = hold(v, cons(v, make_alias(v, symbol(v, "begin"), NULL), NIL)), last = out;
    const char *slash = strrchr(v->compiler->file, '/');
    for (Value names = CDR(form); IS_PAIR(names); names = CDR(names)) {
        Value name = CAR(names);
        if (!IS(name, T_STRING)) syntax_error(v, "expected a file name", name);
        if (slash && !(LENGTH(name) > 0 && STRING(name)->ch[0] == '/')) {
            Value directory = hold(v, string_from(v, v->compiler->file, (size_t)(slash + 1 - v->compiler->file)));
            int64_t n = LENGTH(directory), more = LENGTH(name);
            Value whole = hold(v, make_string(v, n + more, 0));
            memcpy(STRING(whole)->ch, STRING(directory)->ch, (size_t)n * 4);
            memcpy(STRING(whole)->ch + n, STRING(name)->ch, (size_t)more * 4);
            name = whole;
        }
        Value port = hold(v, port_file_in(v, name)), x;
        PORT(port)->fold = fold;
        while ((x = read_datum(v, port)) != EOF_OBJECT) EMIT(hold(v, x));
        port_close(v, port);
    }
    return out;
}

Value expand_derived(vm *v, int special, Value form) {
    return special == S_DEFINE_RECORD ? expand_record(v, form) : expand_include(v, form, special == S_INCLUDE_CI);
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
    Value head = CAR(x);
    bool two = IS_PAIR(CDR(x)) && CDDR(x) == NIL;
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
