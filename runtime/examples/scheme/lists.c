/* Pairs, lists, equivalence, booleans and symbols. */
#include "scheme.h"

bool eqv(Value a, Value b) {
    if (a == b) return true;
    return IS_FLONUM(a) && IS_FLONUM(b) && memcmp(&FLONUM(a), &FLONUM(b), sizeof(double)) == 0;
}

/* Depth of nested cars and vectors that equal? compares: it recurses on them, and loops on cdrs. */
enum { EQUAL_DEPTH = 20000 };
static bool equal_at(vm *v, Value a, Value b, int depth) {
    if (depth > EQUAL_DEPTH) fail(v, "equal?", "data nested too deeply", 0);
    Value seen_a = 0, seen_b = 0;
    for (uint64_t n = 1; !eqv(a, b); n++, a = CDR(a), b = CDR(b)) {
        if (IS_PAIR(a) && IS_PAIR(b)) {
            if (a == seen_a && b == seen_b) return true; /* around both circles without a difference */
            if ((n & (n - 1)) == 0) seen_a = a, seen_b = b;
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

BUILTIN(eq, "eq?", 2, 2) { return BOOL(argv[0] == argv[1]); }
BUILTIN(eqv, "eqv?", 2, 2) { return BOOL(eqv(argv[0], argv[1])); }
BUILTIN(equal, "equal?", 2, 2) { return BOOL(equal(v, argv[0], argv[1])); }
BUILTIN(not, "not", 1, 1) { return BOOL(argv[0] == FALSE); }
BUILTIN(cons, "cons", 2, 2) { return cons_unrooted(v, argv[0], argv[1]); }
/* c[ad]+r: the path is in the name */
static Value path(vm *v, const char *name, Value x) {
    for (const char *p = strchr(name, 'r') - 1; *p != 'c'; p--) pair_arg(v, name, x), x = *p == 'a' ? CAR(x) : CDR(x);
    return x;
}
#define PATHS(X) X(car) X(cdr) X(caar) X(cadr) X(cdar) X(cddr) X(caaar) X(caadr) X(cadar) X(caddr) X(cdaar) X(cdadr) X(cddar) X(cdddr) X(cadddr) X(cddddr)
#define PATH(name) BUILTIN(name, #name, 1, 1) { return path(v, #name, argv[0]); }
PATHS(PATH)
BUILTIN(set_car, "set-car!", 2, 2) { return store(v, pair_arg(v, "set-car!", argv[0]), &CAR(argv[0]), argv[1]), UNSPECIFIED; }
BUILTIN(set_cdr, "set-cdr!", 2, 2) { return store(v, pair_arg(v, "set-cdr!", argv[0]), &CDR(argv[0]), argv[1]), UNSPECIFIED; }
BUILTIN(is_pair, "pair?", 1, 1) { return BOOL(IS_PAIR(argv[0])); }
BUILTIN(is_null, "null?", 1, 1) { return BOOL(argv[0] == NIL); }
BUILTIN(is_list, "list?", 1, 1) { return BOOL(list_length(argv[0]) >= 0); }
BUILTIN(list, "list", 0, -1) { return list_from(v, argc, argv, NIL); }
BUILTIN(cons_star, "cons*", 1, -1) { return list_from(v, argc - 1, argv, argv[argc - 1]); }
BUILTIN(length, "length", 1, 1) { return FIX(list_arg(v, "length", argv[0])); }
BUILTIN(append, "append", 0, -1) {
    if (argc == 0) return NIL;
    Value *base = v->sp; hold(v, argv[argc - 1]);
    for (int i = argc - 2; i >= 0; i--) {
        Value head = NIL, last = NIL; list_arg(v, "append", argv[i]);
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
BUILTIN(reverse, "reverse", 1, 1) {
    Value *base = v->sp; list_arg(v, "reverse", argv[0]); hold(v, NIL);
    for (Value l = argv[0]; l != NIL; l = CDR(l)) *base = cons_unrooted(v, CAR(l), *base);
    return *base;
}
static Value tail(vm *v, const char *who, Value l, Value k) {
    for (int64_t n = index_arg(v, who, k, FIXNUM_MAX); n > 0; n--) l = CDR(pair_arg(v, who, l));
    return l;
}
BUILTIN(list_tail, "list-tail", 2, 2) { return tail(v, "list-tail", argv[0], argv[1]); }
BUILTIN(list_ref, "list-ref", 2, 2) { return CAR(pair_arg(v, "list-ref", tail(v, "list-ref", argv[0], argv[1]))); }

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
BUILTIN(memq, "memq", 2, 2) { return member(v, "memq", 0, argv); }
BUILTIN(memv, "memv", 2, 2) { return member(v, "memv", 1, argv); }
CONTROL(member, "member", 2, 3) { return argc == 3 ? in_scheme(v, argv, 3, "%member") : member(v, "member", 2, argv); }
BUILTIN(assq, "assq", 2, 2) { return assoc(v, "assq", 0, argv); }
BUILTIN(assv, "assv", 2, 2) { return assoc(v, "assv", 1, argv); }
CONTROL(assoc, "assoc", 2, 3) { return argc == 3 ? in_scheme(v, argv, 3, "%assoc") : assoc(v, "assoc", 2, argv); }

BUILTIN(is_symbol, "symbol?", 1, 1) { return BOOL(IS(argv[0], T_SYMBOL)); }
BUILTIN(is_boolean, "boolean?", 1, 1) { return BOOL(argv[0] == TRUE || argv[0] == FALSE); }
BUILTIN(symbol_to_string, "symbol->string", 1, 1) {
    if (!IS(argv[0], T_SYMBOL)) fail_type(v, "symbol->string", "a symbol", argv[0]);
    Value name = SYMBOL(argv[0])->name, s = make_string(v, LENGTH(name), 0);
    memcpy(STRING(s)->ch, STRING(name)->ch, (size_t)LENGTH(name) * 4); return s;
}
BUILTIN(string_to_symbol, "string->symbol", 1, 1) {
    if (!IS(argv[0], T_STRING)) fail_type(v, "string->symbol", "a string", argv[0]);
    return intern(v, argv[0]);
}
