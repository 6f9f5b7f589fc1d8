/* Macros: syntax-rules, hygienic by renaming. A symbol that a template inserts becomes an alias, a fresh object that remembers
 * the symbol and the scope of the macro's definition. Bound, an alias is a variable of its own; free, it means what the symbol
 * means where the macro was defined; quoted, it is the symbol. */
#include "ast.h"

struct arena { struct arena *next; size_t used, size; };

/* Bytes per arena chunk: larger wastes more on a small form, smaller calls malloc more on a large one. */
enum { ARENA_CHUNK = 32 << 10 };

void *arena_alloc(vm *v, size_t bytes) {
    bytes = (bytes + 15) & ~(size_t)15;
    if (!v->arena || v->arena->size - v->arena->used < bytes) {
        size_t size = bytes + sizeof(struct arena) + 16 > ARENA_CHUNK ? bytes + sizeof(struct arena) + 16 : ARENA_CHUNK;
        struct arena *a = malloc(size);
        if (!a) alloc_slow_error(v);
        a->next = v->arena, a->used = (sizeof *a + 15) & ~(size_t)15, a->size = size; v->arena = a;
    }
    void *p = (char *)v->arena + v->arena->used; v->arena->used += bytes; return memset(p, 0, bytes);
}

void arena_reset(vm *v) {
    while (v->arena) { struct arena *a = v->arena; v->arena = a->next; free(a); }
}

static Value held_cons(vm *v, Value a, Value d) { return hold(v, cons_unrooted(v, a, d)); }

bool is_identifier(Value x) { return IS(x, T_SYMBOL) || IS(x, T_ALIAS); }
Value identifier_symbol(Value x) {
    while (IS(x, T_ALIAS)) x = ALIAS(x)->name;
    return x;
}

Value make_alias(vm *v, Value name, struct scope *scope) {
    Value a = hold(v, make_object(v, T_ALIAS, 2, 0)); ALIAS(a)->name = name, ALIAS(a)->scope = scope;
    return a;
}

struct binding *resolve(Value id, struct scope *scope, Value *global) {
    for (;;) {
        for (struct scope *s = scope; s; s = s->up)
            for (struct binding *b = s->bindings; b; b = b->next)
                if (b->id == id) return b;
        if (!IS(id, T_ALIAS)) return *global = id, NULL;
        scope = ALIAS(id)->scope, id = ALIAS(id)->name;
    }
}

bool same_identifier(Value a, struct scope *sa, Value b, struct scope *sb) {
    Value ga = 0, gb = 0; struct binding *ba = resolve(a, sa, &ga), *bb = resolve(b, sb, &gb);
    return ba == bb && ga == gb;
}

bool is_keyword(Value form, struct scope *scope, int global) {
    Value g = 0; return is_identifier(form) && resolve(form, scope, &g) == NULL && g == globals[global];
}

static bool has_alias(vm *v, Value x) {
    check_c_stack(v);
    for (; IS_PAIR(x); x = CDR(x))
        if (has_alias(v, CAR(x))) return true;
    if (IS(x, T_VECTOR))
        for (int64_t i = 0; i < LENGTH(x); i++)
            if (has_alias(v, FIELD(x, i))) return true;
    return IS(x, T_ALIAS);
}

Value strip_syntax(vm *v, Value x) {
    if (!has_alias(v, x)) return x;
    if (IS_PAIR(x)) { Value a = strip_syntax(v, CAR(x)), d = strip_syntax(v, CDR(x)); return held_cons(v, a, d); }
    if (IS(x, T_VECTOR)) return hold(v, list_to_vector(v, strip_syntax(v, hold(v, vector_to_list(v, x)))));
    return identifier_symbol(x);
}

Value make_macro(vm *v, Value spec, struct scope *scope) {
    if (!IS_PAIR(spec) || !is_keyword(CAR(spec), scope, G_SYNTAX_RULES) || !IS_PAIR(CDR(spec)))
        syntax_error(v, "expected (syntax-rules (literal ...) (pattern template) ...)", spec);
    Value rest = CDR(spec), ellipsis = globals[G_ELLIPSIS];
    if (is_identifier(CAR(rest)) && IS_PAIR(CDR(rest))) ellipsis = CAR(rest), rest = CDR(rest);
    for (Value l = CAR(rest); IS_PAIR(l); l = CDR(l))
        if (identifier_symbol(CAR(l)) == ellipsis) ellipsis = FALSE; /* a literal after all */
    for (Value r = CDR(rest); r != NIL; r = CDR(r))
        if (!IS_PAIR(r) || list_length(CAR(r)) != 2 || !IS_PAIR(CAR(CAR(r)))) syntax_error(v, "malformed rule", spec);
    Value m = hold(v, make_object(v, T_MACRO, 4, 0));
    MACRO(m)->rules = CDR(rest), MACRO(m)->literals = CAR(rest), MACRO(m)->ellipsis = ellipsis, MACRO(m)->scope = scope;
    return m;
}

/* ---- matching ---- */
struct match { Value name, value; struct match **items; int n; struct match *next; }; /* items: it stood under an ellipsis */
struct renamed { Value name, alias; struct renamed *next; };
struct expansion { vm *v; struct macro *macro; struct scope *use; struct renamed *renamed; };

static bool is_ellipsis(struct expansion *e, Value x) {
    Value ell = e->macro->ellipsis;
    return x == ell || (ell == globals[G_ELLIPSIS] && IS(x, T_ALIAS) && identifier_symbol(x) == ell);
}

static bool is_literal(struct expansion *e, Value id) {
    for (Value l = e->macro->literals; IS_PAIR(l); l = CDR(l))
        if (CAR(l) == id) return true;
    return false;
}

static int pairs_in(Value l) {
    int n = 0;
    for (; IS_PAIR(l); l = CDR(l)) n++;
    return n;
}

static void collect_names(struct expansion *e, Value pattern, struct match **out) {
    if (is_identifier(pattern)) {
        if (is_ellipsis(e, pattern) || is_literal(e, pattern)) return;
        struct match *m = arena_alloc(e->v, sizeof *m); m->name = pattern, m->next = *out, *out = m;
    } else if (IS_PAIR(pattern)) collect_names(e, CAR(pattern), out), collect_names(e, CDR(pattern), out);
    else if (IS(pattern, T_VECTOR))
        for (int64_t i = 0; i < LENGTH(pattern); i++) collect_names(e, FIELD(pattern, i), out);
}

static struct match *find(struct match *m, Value name) {
    while (m && m->name != name) m = m->next;
    return m;
}

static bool match(struct expansion *e, Value pattern, Value form, struct match **out) {
    check_c_stack(e->v);
    for (;;) {
        if (is_identifier(pattern)) {
            if (is_literal(e, pattern)) return is_identifier(form) && same_identifier(pattern, e->macro->scope, form, e->use);
            if (identifier_symbol(pattern) == globals[G_UNDERSCORE]) return true;
            struct match *m = arena_alloc(e->v, sizeof *m);
            m->name = pattern, m->value = form, m->next = *out, *out = m; return true;
        }
        if (IS(pattern, T_VECTOR)) {
            if (!IS(form, T_VECTOR)) return false;
            pattern = hold(e->v, vector_to_list(e->v, pattern)), form = hold(e->v, vector_to_list(e->v, form));
            continue;
        }
        if (!IS_PAIR(pattern)) return pattern == form || (pattern != NIL && equal(e->v, pattern, form));
        if (IS_PAIR(CDR(pattern)) && is_ellipsis(e, CADR(pattern))) {
            int n = pairs_in(form) - pairs_in(CDDR(pattern));
            struct match *names = NULL, **tries = arena_alloc(e->v, sizeof(void *) * (size_t)(n > 0 ? n : 1));
            if (n < 0) return false;
            for (int i = 0; i < n; i++, form = CDR(form))
                if (!match(e, CAR(pattern), CAR(form), &tries[i])) return false;
            collect_names(e, CAR(pattern), &names);
            for (struct match *next; names; names = next) {
                next = names->next; names->n = n, names->items = arena_alloc(e->v, sizeof(void *) * (size_t)(n + 1));
                for (int i = 0; i < n; i++) names->items[i] = find(tries[i], names->name);
                names->next = *out, *out = names;
            }
            pattern = CDDR(pattern);
            continue;
        }
        if (!IS_PAIR(form) || !match(e, CAR(pattern), CAR(form), out)) return false;
        pattern = CDR(pattern), form = CDR(form);
    }
}

/* ---- templates ---- */
static Value rename_symbol(struct expansion *e, Value name) {
    struct renamed *r = e->renamed;
    while (r && r->name != name) r = r->next;
    if (!r) {
        r = arena_alloc(e->v, sizeof *r);
        r->name = name, r->alias = make_alias(e->v, name, e->macro->scope), r->next = e->renamed, e->renamed = r;
    }
    return r->alias;
}

static Value instantiate(struct expansion *e, Value t, struct match *env, bool escaped) {
    vm *v = e->v; check_c_stack(v);
    if (is_identifier(t)) {
        struct match *m = find(env, t);
        if (!m) return rename_symbol(e, t);
        if (m->items) syntax_error(v, "pattern variable needs an ellipsis in the template", t);
        return m->value;
    }
    if (IS(t, T_VECTOR)) return hold(v, list_to_vector(v, instantiate(e, hold(v, vector_to_list(v, t)), env, escaped)));
    if (!IS_PAIR(t)) return t;
    if (!escaped && is_ellipsis(e, CAR(t)) && IS_PAIR(CDR(t))) return instantiate(e, CADR(t), env, true);
    Value rest = CDR(t); int depth = 0;
    while (!escaped && IS_PAIR(rest) && is_ellipsis(e, CAR(rest))) rest = CDR(rest), depth++;
    if (depth == 0) {
        Value a = instantiate(e, CAR(t), env, escaped); return held_cons(v, a, instantiate(e, CDR(t), env, escaped));
    }
    struct match *names = NULL; collect_names(e, CAR(t), &names); int n = -1;
    for (struct match *name = names; name; name = name->next) {
        struct match *m = find(env, name->name);
        if (m && m->items && m->n > n) n = m->n;
    }
    if (n < 0) syntax_error(v, "no pattern variable under the ellipsis", t);
    Value inner = CAR(t), out;
    for (int d = 1; d < depth; d++) inner = held_cons(v, inner, held_cons(v, globals[G_ELLIPSIS], NIL)); /* x ... ... = (x ...) ..., spliced */
    Value *parts = arena_alloc(v, sizeof(Value) * (size_t)(n + 1));
    for (int i = 0; i < n; i++) {
        struct match *here = env;
        for (struct match *name = names; name; name = name->next) {
            struct match *m = find(env, name->name);
            if (!m || !m->items) continue;
            if (i >= m->n) syntax_error(v, "pattern variables under one ellipsis matched different lengths", t);
            struct match *one = arena_alloc(v, sizeof *one);
            *one = *m->items[i], one->next = here, here = one;
        }
        parts[i] = instantiate(e, inner, here, false);
    }
    out = instantiate(e, rest, env, escaped);
    while (n-- > 0) {
        if (depth == 1) out = held_cons(v, parts[n], out);
        else {
            Value items = hold(v, list_to_vector(v, parts[n]));
            for (int64_t k = LENGTH(items); k-- > 0;) out = held_cons(v, FIELD(items, k), out);
        }
    }
    return out;
}

Value expand_macro(vm *v, Value macro, Value form, struct scope *use) {
    struct expansion e = {v, MACRO(macro), use, NULL}; hold(v, macro);
    for (Value r = e.macro->rules; r != NIL; r = CDR(r)) {
        struct match *env = NULL;
        if (match(&e, CDR(CAR(CAR(r))), CDR(form), &env)) return instantiate(&e, CADR(CAR(r)), env, false);
    }
    syntax_error(v, "no rule of the macro matches", form);
}
