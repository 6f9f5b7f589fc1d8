/* Derived forms that are rewritten in C: cond, case, quasiquote, records, define-values. */
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
    v->sp = base;
    return hold(v, list);
}

static Value quoted(vm *v, Value x) { return build(v, "quote", 1, x); }

static struct node *local(vm *v, struct var *x) {
    struct node *t = node_new(v, N_LOCAL, 0);
    return t->var = x, x->refs++, t;
}

static struct node *let_temp(vm *v, struct node *init, struct var **temp) {
    struct node *t = node_new(v, N_LET, 1);
    t->kids[0] = init, t->vars[0] = *temp = arena_alloc(v, sizeof **temp);
    return t;
}

static struct node *branch(vm *v, struct node *test, struct node *yes, struct node *no) {
    struct node *t = node_new(v, N_IF, 3);
    return t->kids[0] = test, t->kids[1] = yes, t->kids[2] = no, t;
}

static struct node *call1(vm *v, struct node *f, struct node *x) {
    struct node *t = node_new(v, N_CALL, 2);
    return t->kids[0] = f, t->kids[1] = x, t;
}

static struct node *begin(vm *v, Value forms, struct scope *scope) {
    Value keyword = make_alias(v, symbol(v, "begin"), NULL);
    return analyze(v, hold(v, cons(v, keyword, forms)), scope);
}

static struct node *nothing(vm *v) {
    struct node *t = node_new(v, N_CONST, 0);
    return t->value = UNSPECIFIED, t;
}

struct node *analyze_cond(vm *v, Value clauses, struct scope *scope) {
    if (clauses == NIL) return nothing(v);
    Value clause = CAR(clauses);
    struct var *temp;
    if (list_length(clause) < 1) syntax_error(v, "bad clause", clause);
    if (is_keyword(CAR(clause), scope, G_ELSE)) return begin(v, CDR(clause), scope);
    struct node *test = analyze(v, CAR(clause), scope), *t;
    if (CDR(clause) == NIL) {
        t = node_new(v, N_OR, 2);
        return t->kids[0] = test, t->kids[1] = analyze_cond(v, CDR(clauses), scope), t;
    }
    if (!is_keyword(CADR(clause), scope, G_ARROW)) {
        t = begin(v, CDR(clause), scope);
        return branch(v, test, t, analyze_cond(v, CDR(clauses), scope));
    }
    if (list_length(clause) != 3) syntax_error(v, "bad clause", clause);
    t = let_temp(v, test, &temp);
    struct node *yes = call1(v, analyze(v, CAR(CDDR(clause)), scope), local(v, temp));
    t->kids[1] = branch(v, local(v, temp), yes, analyze_cond(v, CDR(clauses), scope));
    return t;
}

static struct node *case_body(vm *v, Value body, struct var *key, struct scope *scope) {
    if (is_keyword(CAR(body), scope, G_ARROW) && list_length(body) == 2) return call1(v, analyze(v, CADR(body), scope), local(v, key));
    return begin(v, body, scope);
}

static struct node *case_clauses(vm *v, Value clauses, struct var *key, struct scope *scope) {
    if (clauses == NIL) return nothing(v);
    Value clause = CAR(clauses);
    if (list_length(clause) < 2) syntax_error(v, "bad clause", clause);
    if (is_keyword(CAR(clause), scope, G_ELSE)) return case_body(v, CDR(clause), key, scope);
    int n = (int)list_length(CAR(clause)), i = 0;
    if (n < 0) syntax_error(v, "bad clause", clause);
    struct node *tests = node_new(v, N_OR, n);
    for (Value d = CAR(clause); d != NIL; d = CDR(d)) {
        struct node *t = node_new(v, N_CALL, 3), *f = node_new(v, N_GLOBAL, 0), *datum = node_new(v, N_CONST, 0);
        datum->value = strip_syntax(v, CAR(d));
        f->value = symbol(v, IS_FLONUM(datum->value) ? "eqv?" : "eq?");
        t->kids[0] = f, t->kids[1] = local(v, key), t->kids[2] = datum, tests->kids[i++] = t;
    }
    if (n == 0) return case_clauses(v, CDR(clauses), key, scope);
    struct node *yes = case_body(v, CDR(clause), key, scope);
    return branch(v, n == 1 ? tests->kids[0] : tests, yes, case_clauses(v, CDR(clauses), key, scope));
}

struct node *analyze_case(vm *v, Value form, struct scope *scope) {
    struct var *key;
    struct node *t = let_temp(v, analyze(v, CADR(form), scope), &key);
    t->kids[1] = case_clauses(v, CDDR(form), key, scope);
    return t;
}

/* (define-record-type name (make field ...) pred (field get [set]) ...) */
Value expand_record(vm *v, Value form) {
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

/* (define-values (a b . c) e): definitions, then assignments from fresh parameters. */
Value expand_define_values(vm *v, Value form) {
    if (list_length(form) != 3) syntax_error(v, "bad syntax", form);
    Value defines = NIL, sets = NIL, formals = CADR(form), params = NIL, f;
    Value names = NIL;
    for (f = formals; f != NIL; f = IS_PAIR(f) ? CDR(f) : NIL) names = hold(v, cons(v, IS_PAIR(f) ? CAR(f) : f, names));
    bool dotted = list_length(formals) < 0;
    for (Value n = names; n != NIL; n = CDR(n)) {
        Value fresh = make_alias(v, identifier_symbol(CAR(n)), NULL);
        params = dotted && n == names ? fresh : hold(v, cons(v, fresh, params));
        sets = hold(v, cons(v, build(v, "set!", 2, CAR(n), fresh), sets));
        defines = hold(v, cons(v, build(v, "define", 2, CAR(n), FALSE), defines));
    }
    if (sets == NIL) sets = hold(v, cons(v, UNSPECIFIED, NIL));
    Value consumer = hold(v, cons(v, make_alias(v, symbol(v, "lambda"), NULL), hold(v, cons(v, params, sets))));
    Value act = build(v, "call-with-values", 2, build(v, "lambda", 2, NIL, CAR(CDDR(form))), consumer), tail = build(v, NULL, 1, act);
    Value *start = v->sp;
    int n = 0;
    for (f = defines; f != NIL; f = CDR(f), n++) hold(v, CAR(f));
    Value body = hold(v, list_from(v, n, start, tail));
    return hold(v, cons(v, make_alias(v, symbol(v, "begin"), NULL), body));
}

static bool has_unquote(Value x, struct scope *scope) {
    for (; IS_PAIR(x); x = CDR(x))
        if (has_unquote(CAR(x), scope) || is_keyword(CAR(x), scope, G_UNQUOTE) || is_keyword(CAR(x), scope, G_SPLICING) ||
            is_keyword(CAR(x), scope, G_QUASIQUOTE)) return true;
    if (IS(x, T_VECTOR))
        for (int64_t i = 0; i < LENGTH(x); i++)
            if (has_unquote(FIELD(x, i), scope)) return true;
    return false;
}

Value expand_quasi(vm *v, Value x, int depth, struct scope *scope) {
    if (!has_unquote(x, scope)) return quoted(v, x);
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
