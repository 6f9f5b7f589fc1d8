/* From forms to the tree of ast.h: macros expanded, names resolved, loops recognised. The core forms are here; the others are
 * rewritten to them in forms.c and, as syntax-rules, in the prelude. */
#include "ast.h"

/* Depth of nested forms. The analyser recurses: more needs more C stack, less refuses programs that machines write. */
enum { MAX_NESTING = 3000 };

static const char *const special_names[SPECIALS] = {
    "quote", "if", "define", "set!", "lambda", "begin", "let", "letrec", "and", "or", "quasiquote", "define-syntax", "let-syntax",
    "syntax-error", "include", "include-ci",
};

void boot_syntax(vm *v) {
    for (int i = 0; i < SPECIALS; i++) {
        Value s = symbol(v, special_names[i]); store(v, s, &SYMBOL(s)->value, SPECIAL(i));
    }
    Value s = symbol(v, "letrec*"); store(v, s, &SYMBOL(s)->value, SPECIAL(S_LETREC)); s = symbol(v, "letrec-syntax");
    store(v, s, &SYMBOL(s)->value, SPECIAL(S_LET_SYNTAX));
}

const char *compiler_where(vm *v, int *line) { return *line = v->compiler->line, v->compiler->file; }

_Noreturn void syntax_error(vm *v, const char *message, Value form) {
    hold(v, form);
    form = strip_syntax(v, form);
    fail_kind(v, "syntax", message, list_from(v, 1, &form, NIL));
}

struct node *node_new(vm *v, enum node_kind kind, int n) {
    struct node *t = arena_alloc(v, sizeof *t); t->kind = kind, t->n = n, t->line = v->compiler->line;
    t->kids = arena_alloc(v, sizeof(void *) * (size_t)(n + 1));
    if (kind >= N_LAMBDA && kind <= N_LOOP) t->vars = arena_alloc(v, sizeof(void *) * (size_t)(n + 1));
    return t;
}

static struct node *constant(vm *v, Value x) { struct node *t = node_new(v, N_CONST, 0); return t->value = x, t; }

static struct scope *scope_new(vm *v, struct scope *up) {
    struct scope *s = arena_alloc(v, sizeof *s); return s->up = up, s;
}

static struct var *bind(vm *v, struct scope *s, Value id) {
    if (!is_identifier(id)) syntax_error(v, "not an identifier", id);
    struct binding *b = arena_alloc(v, sizeof *b);
    b->id = id, b->var = arena_alloc(v, sizeof *b->var), b->var->id = id; b->next = s->bindings, s->bindings = b;
    return b->var;
}

static void bind_macro(vm *v, struct scope *s, Value id, Value macro) {
    bind(v, s, id); s->bindings->var = NULL, s->bindings->macro = macro;
}

/* What an identifier means as the head of a form: SPECIAL(n), a macro, or 0. */
static Value syntactic(Value id, struct scope *scope) {
    Value g;
    if (!is_identifier(id)) return 0;
    struct binding *b = resolve(id, scope, &g); Value x = b ? b->macro : SYMBOL(g)->value;
    return IS_SPECIAL(x) || (TAG(x) == TAG_OBJECT && TYPE(x) == T_MACRO) ? x : 0;
}

static void need(vm *v, bool ok, Value form) { if (!ok) syntax_error(v, "bad syntax", form); }

static void note_line(vm *v, Value form) {
    const char *file; int line = position_of(v, form, &file);
    if (line) v->compiler->line = line, v->compiler->file = file;
}

static struct node *reference(vm *v, Value id, struct scope *scope) {
    Value g; struct binding *b = resolve(id, scope, &g);
    if (b && !b->var) syntax_error(v, "keyword used as a variable", id);
    if (!b && booting && IS_PROC(SYMBOL(g)->value) && !SYMBOL(g)->prim) return constant(v, SYMBOL(g)->value);
    struct node *t = node_new(v, b ? N_LOCAL : N_GLOBAL, 0);
    if (b) t->var = b->var, b->var->refs++;
    else t->value = g;
    return t;
}

static struct node *sequence(vm *v, Value forms, struct scope *scope) {
    int64_t n = list_length(forms); need(v, n >= 0, forms);
    if (n == 0) return constant(v, UNSPECIFIED);
    if (n == 1) return analyze(v, CAR(forms), scope);
    struct node *t = node_new(v, N_SEQ, (int)n);
    for (int i = 0; i < n; i++, forms = CDR(forms)) t->kids[i] = analyze(v, CAR(forms), scope);
    return t;
}

static struct node *lambda(vm *v, Value params, Value body, struct scope *scope) {
    struct scope *inner = scope_new(v, scope); struct node *t = node_new(v, N_LAMBDA, 0); int n = 0;
    for (Value p = params; p != NIL; p = IS_PAIR(p) ? CDR(p) : NIL) n++;
    t->vars = arena_alloc(v, sizeof(void *) * (size_t)(n + 1)), t->n = n;
    for (int i = 0; i < n; i++, params = IS_PAIR(params) ? CDR(params) : NIL) {
        t->rest = !IS_PAIR(params); t->vars[i] = bind(v, inner, t->rest ? params : CAR(params));
    }
    t->kids[0] = analyze_body(v, body, inner); return t;
}

/* ---- loops: a procedure of which every use is a call in tail position needs no closure and no frame ---- */
static int tail_calls(struct node *t, struct var *f, int arity, struct node *loop) { /* counts; with `loop`, also rewrites */
    switch (t->kind) {
    case N_CALL:
        if (t->kids[0]->kind != N_LOCAL || t->kids[0]->var != f || t->n != arity + 1) return 0;
        if (loop) t->kind = N_AGAIN, t->target = loop;
        return 1;
    case N_IF: return tail_calls(t->kids[1], f, arity, loop) + tail_calls(t->kids[2], f, arity, loop);
    case N_AND: case N_OR: case N_SEQ: return t->n ? tail_calls(t->kids[t->n - 1], f, arity, loop) : 0;
    case N_LET: case N_LETREC: case N_LOOP: return tail_calls(t->kids[t->n], f, arity, loop);
    default: return 0;
    }
}

static struct node *named_let(vm *v, Value name, Value bindings, Value body, struct scope *scope) {
    int n = (int)list_length(bindings), i = 0; struct node *loop = node_new(v, N_LOOP, n);
    struct scope *outer = scope_new(v, scope), *inner = scope_new(v, outer);
    for (Value b = bindings; b != NIL; b = CDR(b), i++) {
        need(v, list_length(CAR(b)) == 2, CAR(b)); loop->kids[i] = analyze(v, CADR(CAR(b)), scope);
    }
    struct var *f = bind(v, outer, name); i = 0;
    for (Value b = bindings; b != NIL; b = CDR(b)) loop->vars[i++] = bind(v, inner, CAR(CAR(b)));
    struct node *code = loop->kids[n] = analyze_body(v, body, inner);
    if (!f->mutated && tail_calls(code, f, n, NULL) == f->refs) { tail_calls(code, f, n, loop); return loop; }
    struct node *rec = node_new(v, N_LETREC, 1), *fn = node_new(v, N_LAMBDA, n), *call = node_new(v, N_CALL, n + 1);
    fn->kids[0] = code, memcpy(fn->vars, loop->vars, sizeof(void *) * (size_t)n), fn->value = identifier_symbol(name);
    call->kids[0] = node_new(v, N_LOCAL, 0), call->kids[0]->var = f;
    memcpy(call->kids + 1, loop->kids, sizeof(void *) * (size_t)n);
    rec->vars[0] = f, rec->kids[0] = fn, rec->kids[1] = call;
    return rec; /* the initial values are computed outside f's scope by identity: they were analysed there */
}

/* ---- binding forms ---- */
static struct node *let(vm *v, Value bindings, Value body, struct scope *scope) {
    int n = (int)list_length(bindings), i = 0; need(v, n >= 0, bindings);
    if (n == 0) return analyze_body(v, body, scope_new(v, scope));
    struct node *t = node_new(v, N_LET, n); struct scope *inner = scope_new(v, scope);
    for (Value b = bindings; b != NIL; b = CDR(b), i++) {
        need(v, list_length(CAR(b)) == 2, CAR(b)); t->kids[i] = analyze(v, CADR(CAR(b)), scope);
        if (t->kids[i]->kind == N_LAMBDA && !t->kids[i]->value) t->kids[i]->value = identifier_symbol(CAR(CAR(b)));
    }
    i = 0;
    for (Value b = bindings; b != NIL; b = CDR(b)) t->vars[i++] = bind(v, inner, CAR(CAR(b)));
    t->kids[n] = analyze_body(v, body, inner); return t;
}

struct item { Value id, form; struct var *var; struct node *init; struct item *next; };

/* letrec*: a variable whose value may be looked at before it is set, or that is set again, lives in a box. */
static struct node *letrec(vm *v, struct item *items, struct scope *scope, struct node *(*tail)(vm *, Value, struct scope *), Value body) {
    int n = 0, i = 0;
    for (struct item *it = items; it; it = it->next) n++;
    struct node *t = node_new(v, N_LETREC, n);
    for (struct item *it = items; it; i++) {
        struct item *end = it;
        while (end && IS_PAIR(end->form) && syntactic(CAR(end->form), scope) == SPECIAL(S_LAMBDA)) {
            if (end->var->refs) end->var->mutated = true;
            end = end->next;
        }
        if (end == it) { /* not a procedure */
            it->init = analyze(v, it->form, scope);
            if (it->var->refs) it->var->mutated = true;
            t->vars[i] = it->var, t->kids[i] = it->init, it = it->next;
            continue;
        }
        for (; it != end; it = it->next, i++) { /* a run of procedures may refer to each other without boxes */
            it->init = analyze(v, it->form, scope);
            if (!it->init->value && is_identifier(it->id)) it->init->value = identifier_symbol(it->id);
            t->vars[i] = it->var, t->kids[i] = it->init;
        }
        i--;
    }
    t->kids[n] = tail(v, body, scope); struct node *fn = t->kids[0]; struct var *f = t->vars[0];
    if (n == 1 && fn->kind == N_LAMBDA && !fn->rest && !f->mutated) { /* (define (loop ...) ...) (loop ...) is a named let */
        struct node *call = t->kids[1];
        if (call->kind == N_CALL && call->kids[0]->kind == N_LOCAL && call->kids[0]->var == f && call->n == fn->n + 1 &&
            tail_calls(fn->kids[0], f, fn->n, NULL) + 1 == f->refs) {
            struct node *loop = node_new(v, N_LOOP, fn->n);
            memcpy(loop->vars, fn->vars, sizeof(void *) * (size_t)fn->n);
            memcpy(loop->kids, call->kids + 1, sizeof(void *) * (size_t)fn->n); loop->kids[fn->n] = fn->kids[0];
            tail_calls(fn->kids[0], f, fn->n, loop); return loop;
        }
    }
    return t;
}

static Value define_value(vm *v, Value form, Value *name) { /* (define (f . args) . body) and curried ones become lambda */
    need(v, IS_PAIR(CDR(form)), form);
    Value target = CADR(form), body = CDDR(form);
    if (!IS_PAIR(target)) {
        *name = target;
        if (body == NIL) return UNSPECIFIED;
        need(v, IS_PAIR(body) && CDR(body) == NIL, form); return CAR(body);
    }
    while (IS_PAIR(CAR(target))) {
        Value inner = hold(v, cons(v, make_alias(v, symbol(v, "lambda"), NULL), hold(v, cons(v, CDR(target), body))));
        body = hold(v, cons(v, inner, NIL)), target = CAR(target);
    }
    *name = CAR(target);
    Value signature = hold(v, cons(v, CDR(target), body));
    return hold(v, cons(v, make_alias(v, symbol(v, "lambda"), NULL), signature));
}

static struct scope *syntax_scope(vm *v, Value form, struct scope *scope) { /* of a let-syntax */
    scope = scope_new(v, scope);
    need(v, list_length(form) >= 3 && list_length(CADR(form)) >= 0, form);
    for (Value b = CADR(form); b != NIL; b = CDR(b)) {
        need(v, list_length(CAR(b)) == 2, form);
        bind_macro(v, scope, CAR(CAR(b)), make_macro(v, CADR(CAR(b)), scope));
    }
    return scope;
}

/* Definitions in a let-syntax belong to the body around it: (let-syntax b (define x e)) is (define x (let-syntax b e)), and
 * (let-syntax b f g) is (begin (let-syntax b f) (let-syntax b g)). The form one such step on, or 0: a plain expression. */
static Value splice_syntax(vm *v, Value form, struct scope *outer) {
    struct scope *scope = syntax_scope(v, form, outer);
    Value head = CAR(form), bindings = CADR(form), body = CDDR(form), f = CAR(body), name;
    while (CDR(body) == NIL) {
        Value s = IS_PAIR(f) ? syntactic(CAR(f), scope) : 0, step = 0;
        if (s == SPECIAL(S_BEGIN)) body = CDR(f);
        else if (s == SPECIAL(S_DEFINE)) {
            Value value = define_value(v, f, &name);
            return build(v, "define", 2, name, build(v, NULL, 3, head, bindings, value));
        } else if (s == SPECIAL(S_DEFINE_SYNTAX)) return f;
        else if (s == SPECIAL(S_LET_SYNTAX)) step = splice_syntax(v, f, scope);
        else if (s && !IS_SPECIAL(s)) step = expand_macro(v, s, f, scope);
        else if (s >= SPECIAL(S_INCLUDE)) step = expand_include(v, f, s == SPECIAL(S_INCLUDE_CI));
        if (s == SPECIAL(S_BEGIN)) break;
        if (step == 0) return 0;
        body = hold(v, cons(v, f = hold(v, step), NIL));
    }
    Value out = build(v, "begin", 0), last = out;
    for (; IS_PAIR(body); body = CDR(body)) {
        Value p = hold(v, cons(v, build(v, NULL, 3, head, bindings, CAR(body)), NIL));
        store(v, last, &CDR(last), p), last = p;
    }
    return out;
}

/* Macros at the heads of all forms are expanded first, for any may turn out to be a definition. */
struct node *analyze_body(vm *v, Value forms, struct scope *scope) {
    struct item *items = NULL, **end = &items, **expressions = &items; /* *expressions: those behind the last definition */
    int line = v->compiler->line; need(v, list_length(forms) > 0, forms); scope = scope_new(v, scope);
    for (Value rest = forms; rest != NIL;) {
        Value form = CAR(rest), s, name; note_line(v, form); s = IS_PAIR(form) ? syntactic(CAR(form), scope) : 0;
        if (s && (!IS_SPECIAL(s) || s >= SPECIAL(S_INCLUDE))) {
            form = IS_SPECIAL(s) ? expand_include(v, form, s == SPECIAL(S_INCLUDE_CI)) : expand_macro(v, s, form, scope);
            position_set(v, form, v->compiler->line, v->compiler->file); rest = hold(v, cons(v, form, CDR(rest)));
            continue;
        }
        rest = CDR(rest);
        if (s == SPECIAL(S_BEGIN)) {
            Value all = hold(v, list_to_vector(v, CDR(form)));
            for (int64_t i = LENGTH(all); i-- > 0;) rest = hold(v, cons(v, FIELD(all, i), rest));
            if (LENGTH(all) > 0 || rest != NIL || items) continue;
        }
        Value spliced = s == SPECIAL(S_LET_SYNTAX) ? splice_syntax(v, form, scope) : 0;
        if (spliced) {
            rest = hold(v, cons(v, spliced, rest));
            continue;
        }
        if (s == SPECIAL(S_DEFINE_SYNTAX)) {
            need(v, list_length(form) == 3, form);
            bind_macro(v, scope, CADR(form), make_macro(v, CAR(CDDR(form)), scope));
            continue;
        }
        struct item *it = *end = arena_alloc(v, sizeof *it); end = &it->next, it->form = form;
        if (s != SPECIAL(S_DEFINE)) continue;
        it->form = define_value(v, form, &name), it->id = name, expressions = end;
        struct binding *b = scope->bindings;
        while (b && b->id != name) b = b->next;
        it->var = b && b->var ? b->var : bind(v, scope, name);
        if (b && b->var) b->var->mutated = true; /* defined twice */
    }
    v->compiler->line = line; Value *base = v->sp, body;
    for (struct item *it = *expressions; it; it = it->next) hold(v, it->form);
    body = hold(v, list_from(v, (int)(v->sp - base), base, NIL));
    *expressions = NULL;
    for (struct item *it = items; it; it = it->next)
        if (!it->var) it->var = arena_alloc(v, sizeof *it->var); /* an expression between definitions: a variable without a name */
    return items ? letrec(v, items, scope, sequence, body) : sequence(v, body, scope);
}

static struct node *assignment(vm *v, Value form, struct scope *scope) {
    need(v, list_length(form) == 3 && is_identifier(CADR(form)), form); Value g;
    struct binding *b = resolve(CADR(form), scope, &g);
    if (b && !b->var) syntax_error(v, "keyword used as a variable", CADR(form));
    struct node *t = node_new(v, b ? N_SET : N_SET_GLOBAL, 1);
    if (b) t->var = b->var, b->var->mutated = true, b->var->refs++;
    else t->value = g;
    t->kids[0] = analyze(v, CAR(CDDR(form)), scope); return t;
}

static struct node *definition(vm *v, Value form, struct scope *scope) {
    Value name, value = define_value(v, form, &name); need(v, scope == NULL && is_identifier(name), form);
    struct node *t = node_new(v, N_DEFINE, 1); t->value = identifier_symbol(name);
    Value old = SYMBOL(t->value)->value; /* a variable may take the name of a keyword */
    if (IS_SPECIAL(old) || (TAG(old) == TAG_OBJECT && TYPE(old) == T_MACRO)) store(v, t->value, &SYMBOL(t->value)->value, UNBOUND);
    t->kids[0] = analyze(v, value, scope);
    if (t->kids[0]->kind == N_LAMBDA && !t->kids[0]->value) t->kids[0]->value = t->value;
    return t;
}

static struct node *special(vm *v, int which, Value form, struct scope *scope) {
    int64_t n = list_length(form); struct node *t; struct item *items = NULL, **end = &items;
    need(v, n > 0, form);
    switch (which) {
    case S_QUOTE: need(v, n == 2, form); return constant(v, strip_syntax(v, CADR(form)));
    case S_IF:
        need(v, n == 3 || n == 4, form); t = node_new(v, N_IF, 3);
        t->kids[0] = analyze(v, CADR(form), scope), t->kids[1] = analyze(v, CAR(CDDR(form)), scope);
        t->kids[2] = n == 4 ? analyze(v, CADR(CDDR(form)), scope) : constant(v, UNSPECIFIED); return t;
    case S_DEFINE: return definition(v, form, scope);
    case S_SET: return assignment(v, form, scope);
    case S_LAMBDA: need(v, n >= 3, form); return lambda(v, CADR(form), CDDR(form), scope);
    case S_BEGIN: return sequence(v, CDR(form), scope);
    case S_LET:
        need(v, n >= 3, form);
        if (!is_identifier(CADR(form))) return let(v, CADR(form), CDDR(form), scope);
        need(v, n >= 4 && list_length(CAR(CDDR(form))) >= 0, form);
        return named_let(v, CADR(form), CAR(CDDR(form)), CDR(CDDR(form)), scope);
    case S_LETREC:
        need(v, n >= 3 && list_length(CADR(form)) >= 0, form); scope = scope_new(v, scope);
        for (Value b = CADR(form); b != NIL; b = CDR(b)) {
            need(v, list_length(CAR(b)) == 2, CAR(b)); struct item *it = arena_alloc(v, sizeof *it);
            it->id = CAR(CAR(b)), it->form = CADR(CAR(b)), it->var = bind(v, scope, it->id), *end = it, end = &it->next;
        }
        return items ? letrec(v, items, scope, analyze_body, CDDR(form)) : analyze_body(v, CDDR(form), scope);
    case S_AND: case S_OR:
        if (n == 1) return constant(v, BOOL(which == S_AND));
        if (n == 2) return analyze(v, CADR(form), scope);
        t = node_new(v, which == S_AND ? N_AND : N_OR, (int)n - 1);
        for (int i = 0; i < n - 1; i++) form = CDR(form), t->kids[i] = analyze(v, CAR(form), scope);
        return t;
    case S_QUASIQUOTE: need(v, n == 2, form); return analyze(v, expand_quasi(v, CADR(form), 0, scope), scope);
    case S_DEFINE_SYNTAX: {
        need(v, n == 3 && scope == NULL && is_identifier(CADR(form)), form);
        Value s = identifier_symbol(CADR(form)), macro = make_macro(v, CAR(CDDR(form)), NULL);
        store(v, s, &SYMBOL(s)->value, macro); return constant(v, UNSPECIFIED);
    }
    case S_LET_SYNTAX: {
        Value spliced = scope ? 0 : splice_syntax(v, form, NULL);
        return spliced ? analyze(v, spliced, scope) : analyze_body(v, CDDR(form), syntax_scope(v, form, scope));
    }
    case S_SYNTAX_ERROR:
        need(v, n >= 2 && IS(CADR(form), T_STRING), form);
        throw_value(v, condition_new(v, hold(v, symbol(v, "syntax")), CADR(form), hold(v, strip_syntax(v, CDDR(form)))));
    default: return analyze(v, expand_include(v, form, which == S_INCLUDE_CI), scope);
    }
}

struct node *analyze(vm *v, Value form, struct scope *scope) {
    if (is_identifier(form)) {
        if (syntactic(form, scope)) syntax_error(v, "keyword used as a variable", form);
        return reference(v, form, scope);
    }
    if (!IS_PAIR(form)) {
        if (form == NIL) syntax_error(v, "() is not an expression", form);
        return constant(v, strip_syntax(v, form));
    }
    int line = v->compiler->line; const char *file = v->compiler->file;
    if (++v->compiler->depth > MAX_NESTING) syntax_error(v, "expression nested too deeply", UNSPECIFIED);
    check_c_stack(v); note_line(v, form); Value s = syntactic(CAR(form), scope);
    struct node *t;
    if (IS_SPECIAL(s)) t = special(v, (int)(s >> 8), form, scope);
    else if (s) t = analyze(v, expand_macro(v, s, form, scope), scope);
    else {
        int64_t n = list_length(form); need(v, n > 0, form); Value head = CAR(form);
        if (IS_PAIR(head) && syntactic(CAR(head), scope) == SPECIAL(S_LAMBDA) && list_length(head) >= 3 && list_length(CADR(head)) == n - 1 && n > 1) {
            t = node_new(v, N_LET, (int)n - 1); /* ((lambda (x ...) body) value ...) */
            struct scope *inner = scope_new(v, scope);
            for (int i = 0; i < n - 1; i++) form = CDR(form), t->kids[i] = analyze(v, CAR(form), scope);
            Value p = CADR(head);
            for (int i = 0; i < n - 1; i++, p = CDR(p)) t->vars[i] = bind(v, inner, CAR(p));
            t->kids[n - 1] = analyze_body(v, CDDR(head), inner);
        } else {
            t = node_new(v, N_CALL, (int)n);
            for (int i = 0; i < n; i++, form = CDR(form)) t->kids[i] = analyze(v, CAR(form), scope);
        }
    }
    v->compiler->line = line, v->compiler->file = file, v->compiler->depth--; return t;
}
