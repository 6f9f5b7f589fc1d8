/* Pairs, lists, equivalence, booleans and symbols. */
#include "scheme.h"

bool eqv(Value a, Value b) {
    if (a == b) return true;
    return IS_FLONUM(a) && IS_FLONUM(b) && memcmp(&FLONUM(a), &FLONUM(b), sizeof(double)) == 0;
}

/* Depth of nested cars and vectors that equal? compares: it recurses on them, and loops on cdrs. */
enum { EQUAL_DEPTH = 50000 };
static bool equal_at(vm *v, Value a, Value b, int depth) {
    if (depth > EQUAL_DEPTH) fail(v, "equal?", "data nested too deeply", 0);
    for (; !eqv(a, b); a = CDR(a), b = CDR(b)) {
        if (IS_PAIR(a) && IS_PAIR(b)) {
            if (!equal_at(v, CAR(a), CAR(b), depth + 1)) return false;
            continue;
        }
        if (TAG(a) != TAG_OBJECT || TAG(b) != TAG_OBJECT || HEADER_OF(a) != HEADER_OF(b)) return false;
        switch (TYPE(a)) {
        case T_STRING: return memcmp(STRING(a)->ch, STRING(b)->ch, (size_t)LENGTH(a) * 4) == 0;
        case T_BYTES: return memcmp(BYTES(a)->at, BYTES(b)->at, (size_t)LENGTH(a)) == 0;
        case T_VECTOR:
            for (int64_t i = 0; i < LENGTH(a); i++)
                if (!equal_at(v, FIELD(a, i), FIELD(b, i), depth + 1)) return false;
            return true;
        default: return false;
        }
    }
    return true;
}
bool equal(vm *v, Value a, Value b) { return equal_at(v, a, b, 0); }

static Value pair_arg(vm *v, const char *who, Value x) {
    if (!IS_PAIR(x)) fail_type(v, who, "a pair", x);
    return x;
}
static int64_t list_arg(vm *v, const char *who, Value x) {
    int64_t n = list_length(x);
    if (n < 0) fail_type(v, who, "a list", x);
    return n;
}

BUILTIN(eq) { return BOOL(argv[0] == argv[1]); }
BUILTIN(eqv) { return BOOL(eqv(argv[0], argv[1])); }
BUILTIN(equal) { return BOOL(equal(v, argv[0], argv[1])); }
BUILTIN(not) { return BOOL(argv[0] == FALSE); }
BUILTIN(cons) { return cons_unrooted(v, argv[0], argv[1]); }
/* c[ad]+r: the path is in the name */
static Value path(vm *v, const char *name, Value x) {
    for (const char *p = strchr(name, 'r') - 1; *p != 'c'; p--) pair_arg(v, name, x), x = *p == 'a' ? CAR(x) : CDR(x);
    return x;
}
#define PATHS(X) X(car) X(cdr) X(caar) X(cadr) X(cdar) X(cddr) X(caaar) X(caadr) X(cadar) X(caddr) X(cdaar) X(cdadr) X(cddar) X(cdddr) X(cadddr) X(cddddr)
#define PATH(name) BUILTIN(name) { return path(v, #name, argv[0]); }
PATHS(PATH)
BUILTIN(set_car) { return store(v, pair_arg(v, "set-car!", argv[0]), &CAR(argv[0]), argv[1]), UNSPECIFIED; }
BUILTIN(set_cdr) { return store(v, pair_arg(v, "set-cdr!", argv[0]), &CDR(argv[0]), argv[1]), UNSPECIFIED; }
BUILTIN(is_pair) { return BOOL(IS_PAIR(argv[0])); }
BUILTIN(is_null) { return BOOL(argv[0] == NIL); }
BUILTIN(is_list) { return BOOL(list_length(argv[0]) >= 0); }
BUILTIN(list) { return list_from(v, argc, argv, NIL); }
BUILTIN(cons_star) { return list_from(v, argc - 1, argv, argv[argc - 1]); }
BUILTIN(make_list) {
    Value *base = v->sp, l = NIL, fill = argc > 1 ? argv[1] : UNSPECIFIED;
    int64_t n = index_arg(v, "make-list", argv[0], FIXNUM_MAX);
    for (hold(v, l); n > 0; n--) *base = cons_unrooted(v, fill, *base);
    return *base;
}
BUILTIN(length) { return FIX(list_arg(v, "length", argv[0])); }
BUILTIN(append) {
    if (argc == 0) return NIL;
    Value *base = v->sp;
    hold(v, argv[argc - 1]);
    for (int i = argc - 2; i >= 0; i--) {
        Value head = NIL, last = NIL;
        list_arg(v, "append", argv[i]);
        hold(v, NIL); /* base[1]: the copy so far */
        for (Value l = argv[i]; l != NIL; l = CDR(l)) {
            Value p = cons_unrooted(v, CAR(l), base[0]);
            if (head == NIL) base[1] = head = p;
            else store(v, last, &CDR(last), p);
            last = p;
        }
        if (head != NIL) base[0] = head;
        v->sp = base + 1;
    }
    return base[0];
}
BUILTIN(reverse) {
    Value *base = v->sp;
    list_arg(v, "reverse", argv[0]);
    hold(v, NIL);
    for (Value l = argv[0]; l != NIL; l = CDR(l)) *base = cons_unrooted(v, CAR(l), *base);
    return *base;
}
static Value tail(vm *v, const char *who, Value l, Value k) {
    for (int64_t n = index_arg(v, who, k, FIXNUM_MAX); n > 0; n--) l = CDR(pair_arg(v, who, l));
    return l;
}
BUILTIN(list_tail) { return tail(v, "list-tail", argv[0], argv[1]); }
BUILTIN(list_ref) { return CAR(pair_arg(v, "list-ref", tail(v, "list-ref", argv[0], argv[1]))); }
BUILTIN(list_set) {
    Value p = pair_arg(v, "list-set!", tail(v, "list-set!", argv[0], argv[1]));
    return store(v, p, &CAR(p), argv[2]), UNSPECIFIED;
}
BUILTIN(list_copy) {
    Value *base = v->sp, last = 0;
    hold(v, argv[0]);
    for (Value l = argv[0]; IS_PAIR(l); l = CDR(l)) {
        Value p = cons_unrooted(v, CAR(l), CDR(l));
        if (last) store(v, last, &CDR(last), p);
        else base[0] = p;
        last = p;
    }
    return base[0];
}
BUILTIN(last_pair) {
    Value l = pair_arg(v, "last-pair", argv[0]);
    while (IS_PAIR(CDR(l))) l = CDR(l);
    return l;
}

/* With a third argument, the comparison, the search is in Scheme: C never calls back. */
static bool same(vm *v, int how, Value a, Value b) { return how == 0 ? a == b : how == 1 ? eqv(a, b) : equal(v, a, b); }
static Value member(vm *v, const char *who, int how, Value *argv) {
    Value l = argv[1];
    for (; IS_PAIR(l); l = CDR(l))
        if (same(v, how, argv[0], CAR(l))) return l;
    if (l != NIL) fail_type(v, who, "a list", argv[1]);
    return FALSE;
}
static Value assoc(vm *v, const char *who, int how, Value *argv) {
    Value l = argv[1];
    for (; IS_PAIR(l); l = CDR(l))
        if (same(v, how, argv[0], CAR(pair_arg(v, who, CAR(l))))) return CAR(l);
    if (l != NIL) fail_type(v, who, "a list", argv[1]);
    return FALSE;
}
static Value in_scheme(vm *v, Value *argv, int argc, const char *name) { return call_with(v, argv, SYMBOL(symbol(v, name))->value, argc); }
BUILTIN(memq) { return member(v, "memq", 0, argv); }
BUILTIN(memv) { return member(v, "memv", 1, argv); }
BUILTIN(member) { return argc == 3 ? in_scheme(v, argv, 3, "%member") : member(v, "member", 2, argv); }
BUILTIN(assq) { return assoc(v, "assq", 0, argv); }
BUILTIN(assv) { return assoc(v, "assv", 1, argv); }
BUILTIN(assoc) { return argc == 3 ? in_scheme(v, argv, 3, "%assoc") : assoc(v, "assoc", 2, argv); }

BUILTIN(is_symbol) { return BOOL(IS(argv[0], T_SYMBOL)); }
BUILTIN(is_boolean) { return BOOL(argv[0] == TRUE || argv[0] == FALSE); }
BUILTIN(all_same) {
    for (int i = 1; i < argc; i++)
        if (argv[i] != argv[0]) return FALSE;
    return TRUE;
}
BUILTIN(symbol_to_string) {
    if (!IS(argv[0], T_SYMBOL)) fail_type(v, "symbol->string", "a symbol", argv[0]);
    Value name = SYMBOL(argv[0])->name, s = make_string(v, LENGTH(name), 0);
    memcpy(STRING(s)->ch, STRING(name)->ch, (size_t)LENGTH(name) * 4);
    return s;
}
BUILTIN(string_to_symbol) {
    if (!IS(argv[0], T_STRING)) fail_type(v, "string->symbol", "a string", argv[0]);
    return intern(v, argv[0]);
}
BUILTIN(generate_symbol) {
    static int counter;
    char name[40];
    snprintf(name, sizeof name, "g%d", __atomic_add_fetch(&counter, 1, __ATOMIC_RELAXED));
    return symbol(v, name);
}

#define PATH_ENTRY(name) {#name, b_##name, 1, 1, 0},
static const struct builtin table[] = {
    PATHS(PATH_ENTRY) {"eq?", b_eq, 2, 2, 0}, {"eqv?", b_eqv, 2, 2, 0}, {"equal?", b_equal, 2, 2, 0}, {"not", b_not, 1, 1, 0},
    {"cons", b_cons, 2, 2, 0}, {"set-car!", b_set_car, 2, 2, 0}, {"set-cdr!", b_set_cdr, 2, 2, 0}, {"pair?", b_is_pair, 1, 1, 0},
    {"null?", b_is_null, 1, 1, 0}, {"list?", b_is_list, 1, 1, 0}, {"list", b_list, 0, -1, 0}, {"cons*", b_cons_star, 1, -1, 0},
    {"make-list", b_make_list, 1, 2, 0}, {"length", b_length, 1, 1, 0}, {"append", b_append, 0, -1, 0}, {"reverse", b_reverse, 1, 1, 0},
    {"list-tail", b_list_tail, 2, 2, 0}, {"list-ref", b_list_ref, 2, 2, 0}, {"list-set!", b_list_set, 3, 3, 0},
    {"list-copy", b_list_copy, 1, 1, 0}, {"last-pair", b_last_pair, 1, 1, 0}, {"memq", b_memq, 2, 2, 0}, {"memv", b_memv, 2, 2, 0},
    {"member", b_member, 2, 3, 1}, {"assq", b_assq, 2, 2, 0}, {"assv", b_assv, 2, 2, 0}, {"assoc", b_assoc, 2, 3, 1},
    {"symbol?", b_is_symbol, 1, 1, 0}, {"boolean?", b_is_boolean, 1, 1, 0}, {"symbol=?", b_all_same, 1, -1, 0},
    {"boolean=?", b_all_same, 1, -1, 0}, {"symbol->string", b_symbol_to_string, 1, 1, 0}, {"string->symbol", b_string_to_symbol, 1, 1, 0},
    {"generate-symbol", b_generate_symbol, 0, 0, 0},
};
void boot_lists(vm *v) { DEFINE_BUILTINS(v, table); }
