/* The virtual machine. Its registers (ip, sp, fp, acc) are C locals; they are saved in `vm` before anything that may collect,
 * fail or look at the stack. No C recursion stands for a Scheme call, so continuations are copies of the value stack. */
#include "scheme.h"
#include "ops.h"

const uint32_t halt_code[] = {OP_HALT, OP_HALT};

const struct prim prims[] = { /* index 0 means 'none' */
    {NULL, 0, 0}, {"null?", OP_NULLP_A, PRIM_TEST1}, {"pair?", OP_PAIRP_A, PRIM_TEST1}, {"eq?", OP_EQ_S, PRIM_TEST2}, {"eqv?", OP_EQV_S, PRIM_TEST2},
    {"<", OP_LT_S, PRIM_TEST2}, {">", OP_GT_S, PRIM_TEST2}, {"<=", OP_LE_S, PRIM_TEST2}, {">=", OP_GE_S, PRIM_TEST2},
    {"=", OP_NUM_EQ_S, PRIM_TEST2}, {"+", OP_ADD_S, PRIM_ARITH}, {"-", OP_SUB_S, PRIM_ARITH}, {"*", OP_MUL_S, PRIM_ARITH},
    {"car", OP_CAR_A, PRIM_UNARY}, {"cdr", OP_CDR_A, PRIM_UNARY}, {"caar", OP_CAAR_A, PRIM_UNARY}, {"cadr", OP_CADR_A, PRIM_UNARY},
    {"cdar", OP_CDAR_A, PRIM_UNARY}, {"cddr", OP_CDDR_A, PRIM_UNARY}, {"not", OP_NOT_A, PRIM_UNARY},
    {"vector-length", OP_VECTOR_LENGTH_A, PRIM_UNARY}, {"cons", OP_CONS_S, PRIM_BINARY}, {"vector-ref", OP_VECTOR_REF_S, PRIM_BINARY},
    {"quotient", OP_QUOTIENT_S, PRIM_BINARY}, {"remainder", OP_REMAINDER_S, PRIM_BINARY}, {"set-car!", OP_SET_CAR_S, PRIM_BINARY},
    {"set-cdr!", OP_SET_CDR_S, PRIM_BINARY}, {"string-ref", OP_STRING_REF_S, PRIM_BINARY}, {"vector-set!", OP_VECTOR_SET, PRIM_TERNARY},
};
static Value prim_symbol[OP_COUNT]; /* symbols live as long as the heap */

int prim_modes(int class, int modes[6]) {
    static const struct { int n, mode[6]; } families[] = {
        {4, {MODE_A, MODE_L1, MODE_A, MODE_L1}}, {6, {MODE_S, MODE_L2, MODE_I, MODE_S, MODE_L2, MODE_I}}, {3, {MODE_S, MODE_L2, MODE_I}},
        {2, {MODE_A, MODE_L1}}, {2, {MODE_S, MODE_L2}}, {1, {MODE_3}},
    };
    memcpy(modes, families[class].mode, sizeof families[class].mode); return families[class].n;
}

void boot_primitives(vm *v) {
    for (size_t i = 1; i < sizeof prims / sizeof *prims; i++) {
        int modes[6], n = prim_modes(prims[i].class, modes); Value s = symbol(v, prims[i].name);
        SYMBOL(s)->prim = 2 * i;
        while (n-- > 0) prim_symbol[prims[i].op + n] = s;
    }
}

Value vm_run(vm *v, Value thunk) {
    jmp_buf here, *outer = v->on_error; v->sp = v->stack + REGISTERS;
    v->sp[0] = 0, v->sp[1] = (uintptr_t)halt_code, v->sp[2] = thunk;
    v->sp += 3, v->fp = v->sp, v->ip = halt_code, v->argc = 0; v->on_error = &here;
    struct besom_frame *frames = besom_frames_save(v->m);
    if (setjmp(here)) { /* an error in C: call the Scheme procedure `raise` as if the failing instruction did */
        besom_frames_restore(v->m, frames);
        v->compiler = NULL;
        if (globals[G_RAISE] == 0) {
            fprintf(stderr, "scheme: error while starting: %s\n", string_to_c(v, FIELD(v->stack[REG_LAST], CONDITION_MESSAGE)));
            exit(70);
        }
        Value *sp = v->sp; sp[0] = (Value)((char *)v->fp - (char *)v->stack), sp[1] = (uintptr_t)v->ip;
        sp[2] = globals[G_RAISE], sp[3] = v->stack[REG_LAST]; v->sp = sp + 4, v->argc = 1;
    }
    vm_loop(v); v->on_error = outer; return v->stack[REG_LAST];
}

static _Noreturn void fail_arity(vm *v, Value proc, int n) {
    char text[160], *name = NULL;
    if (TYPE(proc) == T_BUILTIN) snprintf(text, sizeof text, "%s: wrong number of arguments", PRIMITIVE(proc)->def->name);
    else if (TYPE(proc) == T_CLOSURE && CODE(CLOSURE(proc)->code)->name) {
        name = string_to_c(v, CODE(CLOSURE(proc)->code)->name->name);
        snprintf(text, sizeof text, "%.100s: wrong number of arguments", name); free(name);
    } else snprintf(text, sizeof text, "wrong number of arguments");
    fail(v, NULL, text, 1, FIX(n));
}

static _Noreturn void fail_unbound(vm *v, Value s) {
    fail(v, NULL, SYMBOL(s)->value == UNBOUND ? "unbound variable" : "keyword used as a variable", 1, s);
}
/* Values that no variable has: unbound, core forms, macros. The last are rare, so the test is on immediates first. */
#define NO_VALUE(x) unlikely((x) == UNBOUND || IS_SPECIAL(x) || (TAG(x) == TAG_OBJECT && TYPE(x) == T_MACRO))

static Value record_access(vm *v, Value proc, int n, Value *argv) {
    Value type = FIELD(proc, 0), *slot;
    if (TYPE(proc) == T_MAKER) {
        if (LENGTH(proc) - 1 != n) fail_arity(v, proc, n);
        Value r = make_object(v, T_RECORD, LENGTH(FIELD(type, 1)) + 1, FALSE); FIELD(r, 0) = type;
        for (int i = 0; i < n; i++) FIELD(r, UNFIX(FIELD(proc, i + 1))) = argv[i];
        return r;
    }
    bool mine = n > 0 && IS(argv[0], T_RECORD) && FIELD(argv[0], 0) == type;
    if (n != 1 + (TYPE(proc) == T_SETTER)) fail_arity(v, proc, n);
    if (TYPE(proc) == T_ISA) return BOOL(mine);
    if (!mine) fail(v, NULL, "wrong record type: expected, got", 2, FIELD(type, 0), argv[0]);
    slot = &FIELD(argv[0], UNFIX(FIELD(proc, 1)));
    if (TYPE(proc) == T_GETTER) return *slot;
    return store(v, argv[0], slot, argv[1]), UNSPECIFIED;
}

static inline Value word2(const uint32_t *ip) { Value x; memcpy(&x, ip, sizeof x); return x; }

#define SAVE() (v->sp = sp, v->ip = ip, v->fp = fp)
#define NEXT() do { w = *ip++; goto *dispatch[w & 255]; } while (0)
#define A ((int32_t)w >> 8)
#define GLOBAL_AT(s) (SYMBOL(s)->value)

void vm_loop(vm *v) {
#define LABEL(op) [OP_##op] = &&L_##op,
    static void *dispatch[256] = {OPS(LABEL)};
    static void *const generic[] = {&&G_A, &&G_L1, &&G_S, &&G_L2, &&G_I, &&G_3}; besom_mutator *const m = v->m;
    char *const base = (char *)v->stack; const uint32_t *ip = v->ip;
    Value *sp = v->sp, *fp = v->fp, acc = UNSPECIFIED, x, y, s; uint32_t w = 0; int n = v->argc;
    goto do_call;

    L_CONST: acc = word2(ip), ip += 2; NEXT();
    L_FIXNUM: acc = FIX(A); NEXT();
    L_LOCAL: acc = fp[A]; NEXT();
    L_FREE: acc = CLOSURE(fp[-1])->free[A]; NEXT();
    L_LOCAL_BOX: acc = FIELD(fp[A], 0); goto unboxed;
    L_FREE_BOX: acc = FIELD(CLOSURE(fp[-1])->free[A], 0);
    unboxed:
        if (unlikely(acc == UNBOUND)) { SAVE(); fail(v, NULL, "variable used before its initialisation", 0); }
        NEXT();
    L_GLOBAL:
        s = word2(ip), ip += 2, acc = GLOBAL_AT(s);
        if (NO_VALUE(acc)) { SAVE(); fail_unbound(v, s); }
        NEXT();
    L_PUSH: *sp++ = acc; NEXT();
    L_PUSH_CONST: *sp++ = word2(ip), ip += 2; NEXT();
    L_PUSH_FIXNUM: *sp++ = FIX(A); NEXT();
    L_PUSH_LOCAL: *sp++ = fp[A]; NEXT();
    L_PUSH_FREE: *sp++ = CLOSURE(fp[-1])->free[A]; NEXT();
    L_PUSH_GLOBAL:
        s = word2(ip), ip += 2, x = GLOBAL_AT(s);
        if (NO_VALUE(x)) { SAVE(); fail_unbound(v, s); }
        *sp++ = x;
        NEXT();
    L_POP: sp -= A; NEXT();
    L_SET_LOCAL: fp[A] = acc; NEXT();
    L_SET_LOCAL_BOX: x = fp[A]; goto set_box;
    L_SET_FREE_BOX: x = CLOSURE(fp[-1])->free[A];
    set_box: store(v, x, &FIELD(x, 0), acc), acc = UNSPECIFIED; NEXT();
    L_SET_GLOBAL:
        s = word2(ip);
        if (NO_VALUE(GLOBAL_AT(s))) { SAVE(); fail_unbound(v, s); } /* fallthrough */
    L_DEFINE_GLOBAL:
        s = word2(ip), ip += 2;
        if (unlikely(SYMBOL(s)->prim)) { /* code that inlined it gets the general call from now on */
            const struct prim *p = &prims[SYMBOL(s)->prim / 2];
            int modes[6], count = prim_modes(p->class, modes);
            while (count-- > 0) dispatch[p->op + count] = generic[modes[count]];
            SYMBOL(s)->prim = 0;
        }
        store(v, s, &GLOBAL_AT(s), acc), acc = UNSPECIFIED; NEXT();
    L_BOX_LOCAL:
        SAVE(); x = make_object(v, T_BOX, 1, 0); FIELD(x, 0) = fp[A], fp[A] = x;
        NEXT();

    L_JUMP: ip += A; NEXT();
    L_JUMP_FALSE: if (acc == FALSE) ip += A; NEXT();
    L_JUMP_TRUE: if (acc != FALSE) ip += A; NEXT();
    L_LOOP: { /* the new values of the loop's a variables, topmost on the stack, go to their slots; next word: slot; then the jump */
        Value *to = fp + ip[0], *from = sp - A;
        int k = A; ip += (int32_t)ip[1];
        if (to != from) while (k-- > 0) *to++ = *from++; else to += k;
        v->sp = sp = to; besom_safepoint(m); NEXT();
    }
    L_FRAME: sp[0] = (Value)((char *)fp - base), sp[1] = 0, sp[2] = 0, sp += 3; NEXT();
    L_CALL_GLOBAL:
        n = A, s = word2(ip), ip += 2, x = GLOBAL_AT(s);
        if (unlikely(!IS_PROC(x))) { SAVE(); if (NO_VALUE(x)) fail_unbound(v, s); }
        sp[-n - 1] = x, sp[-n - 2] = (uintptr_t)ip;
        goto do_call;
    L_CALL: n = A, sp[-n - 2] = (uintptr_t)ip; goto do_call;
    L_TAIL_CALL_GLOBAL:
        n = A, s = word2(ip), ip += 2, x = GLOBAL_AT(s);
        if (unlikely(!IS_PROC(x))) { SAVE(); if (NO_VALUE(x)) fail_unbound(v, s); }
        sp[-n - 1] = x;
        goto do_tail_call;
    L_TAIL_CALL: n = A;
    do_tail_call:
        x = sp[-n - 1];
        if (IS_PROC(x) && TYPE(x) == T_BUILTIN && !PRIMITIVE(x)->def->control) { /* keeps our frame, for error messages */
            const struct builtin *b = PRIMITIVE(x)->def;
            SAVE();
            if (unlikely(n < b->min || (b->max >= 0 && n > b->max))) fail_arity(v, x, n);
            acc = b->fn(v, n, sp - n);
            goto L_RETURN;
        }
        if (unlikely(!IS_PROC(x))) goto do_call;
        for (int i = -1; i < n; i++) fp[i] = sp[i - n];
        sp = fp + n; /* fallthrough */
    do_call: { /* [fp, ip, procedure, n arguments] are on the stack */
        Value proc = sp[-n - 1];
        if (unlikely(!IS_PROC(proc))) { SAVE(); fail(v, NULL, "not a procedure:", 1, proc); }
        if (likely(TYPE(proc) == T_CLOSURE)) {
            struct code *c = CODE(CLOSURE(proc)->code);
            if (unlikely((uint32_t)n != c->params || c->rest)) {
                SAVE();
                if ((uint32_t)n < c->params || !c->rest) fail_arity(v, proc, n);
                int extra = n - (int)c->params; Value rest = list_from(v, extra, sp - extra, NIL);
                sp -= extra, *sp++ = rest, n = (int)c->params + 1;
            }
            fp = sp - n, ip = c->ops, v->sp = sp;
            if (unlikely(sp + c->frame_size >= v->limit)) { SAVE(); stack_overflow(v); }
            besom_safepoint(m); NEXT();
        }
        switch (TYPE(proc)) {
        case T_BUILTIN: {
            const struct builtin *b = PRIMITIVE(proc)->def; SAVE();
            if (unlikely(n < b->min || (b->max >= 0 && n > b->max))) fail_arity(v, proc, n);
            acc = b->fn(v, n, sp - n);
            if (unlikely(acc == CALL_REQUEST)) {
                sp = v->sp, n = v->argc;
                goto do_call;
            }
            break;
        }
        case T_PARAMETER:
            SAVE();
            if (n != 0) fail_arity(v, proc, n);
            acc = FIELD(proc, 0);
            for (x = v->stack[REG_PARAMS]; x != NIL; x = CDR(x))
                if (CAR(CAR(x)) == proc) { acc = CDR(CAR(x)); break; }
            break;
        case T_CASE:
            for (int i = 0;; i++) {
                if (i == LENGTH(proc)) { SAVE(); fail_arity(v, proc, n); }
                struct code *c = CODE(CLOSURE(FIELD(proc, i))->code);
                if ((uint32_t)n == c->params || (c->rest && (uint32_t)n > c->params)) { sp[-n - 1] = FIELD(proc, i); break; }
            }
            goto do_call;
        case T_CONTINUATION: {
            struct continuation *k = CONTINUATION(proc); size_t words = (size_t)LENGTH(proc); SAVE();
            if (unlikely(k->dynamic[REG_THREAD] != v->stack[REG_THREAD])) fail(v, NULL, "the continuation is another thread's:", 1, proc);
            acc = sp[-1];
            if (unlikely(n != 1)) acc = object_of(v, T_VALUES, n, sp - n);
            if (k->dynamic[REG_WINDERS] != v->stack[REG_WINDERS]) { /* dynamic-wind's thunks first: (rewind k value) */
                sp -= n;
                sp[-1] = globals[G_REWIND], sp[0] = proc, sp[1] = acc, sp += 2, n = 2;
                goto do_call;
            }
            if (v->stack + REGISTERS + words >= v->limit) stack_overflow(v);
            memcpy(v->stack, k->dynamic, sizeof k->dynamic);
            memcpy(v->stack + REGISTERS, k->stack, words * sizeof(Value));
            sp = v->stack + REGISTERS + words, fp = (Value *)(base + k->fp), ip = (const uint32_t *)(uintptr_t)k->ip;
            v->sp = sp, v->stack[REG_LAST] = acc; /* rooted: a loop may run through here alone, so this is a safepoint */
            besom_safepoint(m); NEXT();
        }
        default: SAVE(); acc = record_access(v, proc, n, sp - n);
        }
        sp -= n + 3, ip = (const uint32_t *)(uintptr_t)sp[1], fp = (Value *)(base + sp[0]); NEXT();
    }
    L_RETURN: sp = fp - 3, ip = (const uint32_t *)(uintptr_t)sp[1], fp = (Value *)(base + sp[0]); NEXT();
    L_CLOSURE: { /* a: free variables, on the stack; then the code */
        int k = A;
        SAVE(); struct closure *c = alloc(v, sizeof *c + (size_t)k * sizeof(Value), BESOM_VALUES);
        c->header = HEADER(T_CLOSURE, k), c->code = word2(ip), ip += 2; sp -= k;
        for (int i = 0; i < k; i++) c->free[i] = sp[i];
        acc = TAGGED(c, TAG_PROC); NEXT();
    }
    L_PATCH: /* letrec: free variable a of the closure in acc gets slot ip[0] */
        store(v, acc, &CLOSURE(acc)->free[A], fp[*ip++]);
        NEXT();
    L_HALT: v->sp = v->stack + REGISTERS, v->stack[REG_LAST] = acc; return;

    /* ---- inlined primitives ---- */
#define BRANCH(c) do { if (c) ip++; else ip += 1 + ((int32_t)*ip >> 8); NEXT(); } while (0)
#define TEST1(op, get)                                                                                                  \
    L_##op##_A: x = acc; acc = BOOL(get); NEXT();                                                                       \
    L_##op##_L: x = fp[A]; acc = BOOL(get); NEXT();                                                                     \
    L_##op##_A_BR: x = acc; BRANCH(get);                                                                                \
    L_##op##_L_BR: x = fp[A]; BRANCH(get);
    TEST1(NULLP, x == NIL)
    TEST1(PAIRP, IS_PAIR(x))
#define TEST2(op, test)                                                                                                 \
    L_##op##_S: x = *--sp, y = acc; test(acc = BOOL, NEXT())                                                            \
    L_##op##_L: x = fp[A], y = acc; test(acc = BOOL, NEXT())                                                            \
    L_##op##_I: x = acc, y = FIX(A); test(acc = BOOL, NEXT())                                                           \
    L_##op##_S_BR: x = *--sp, y = acc; test(BRANCH, )                                                                   \
    L_##op##_L_BR: x = fp[A], y = acc; test(BRANCH, )                                                                   \
    L_##op##_I_BR: x = acc, y = FIX(A); test(BRANCH, )
#define SAME(use, then) use(x == y); then;
#define EQV(use, then) use(x == y || (IS_FLONUM(x) && eqv(x, y))); then;
#define COMPARE(name, rel, result, use, then)                                                                           \
    {                                                                                                                   \
        bool c_;                                                                                                        \
        if (likely(BOTH_FIX(x, y))) c_ = (int64_t)x rel(int64_t) y;                                                     \
        else if (IS_FLONUM(x) && IS_FLONUM(y)) c_ = FLONUM(x) rel FLONUM(y);                                            \
        else { SAVE(); int r_ = number_compare(v, name, x, y); c_ = result; }                                           \
        use(c_);                                                                                                        \
        then;                                                                                                           \
    }
#define LESS(use, then) COMPARE("<", <, r_ == -1, use, then)
#define GREATER(use, then) COMPARE(">", >, r_ == 1, use, then)
#define LESS_EQ(use, then) COMPARE("<=", <=, r_ == -1 || r_ == 0, use, then)
#define GREATER_EQ(use, then) COMPARE(">=", >=, r_ == 1 || r_ == 0, use, then)
#define NUM_EQUAL(use, then) COMPARE("=", ==, r_ == 0, use, then)
    TEST2(EQ, SAME)
    TEST2(EQV, EQV)
    TEST2(LT, LESS)
    TEST2(GT, GREATER)
    TEST2(LE, LESS_EQ)
    TEST2(GE, GREATER_EQ)
    TEST2(NUM_EQ, NUM_EQUAL)
#define ARITH(op, fast, float_op, slow)                                                                                 \
    L_##op##_S: x = *--sp, y = acc; goto do_##op;                                                                       \
    L_##op##_L: x = fp[A], y = acc; goto do_##op;                                                                       \
    L_##op##_I: x = acc, y = FIX(A); /* fallthrough */                                                                  \
    do_##op: {                                                                                                          \
        int64_t r_;                                                                                                     \
        if (likely(BOTH_FIX(x, y) && !(fast))) { acc = (Value)r_; NEXT(); }                                             \
        SAVE();                                                                                                         \
        acc = IS_FLONUM(x) && IS_FLONUM(y) ? flonum(v, FLONUM(x) float_op FLONUM(y)) : slow(v, x, y);                   \
        NEXT();                                                                                                         \
    }
    ARITH(ADD, __builtin_add_overflow((int64_t)x, (int64_t)y, &r_), +, number_add)
    ARITH(SUB, __builtin_sub_overflow((int64_t)x, (int64_t)y, &r_), -, number_sub)
    ARITH(MUL, __builtin_mul_overflow(UNFIX(x), (int64_t)y, &r_), *, number_mul)
#define UNARY(op, body)                                                                                                 \
    L_##op##_A: x = acc; goto do_##op;                                                                                  \
    L_##op##_L: x = fp[A]; /* fallthrough */                                                                            \
    do_##op: body; NEXT();
#define NEED(c, name, what, got) if (unlikely(!(c))) { SAVE(); fail_type(v, name, what, got); }
    UNARY(CAR, NEED(IS_PAIR(x), "car", "a pair", x) acc = CAR(x))
    UNARY(CDR, NEED(IS_PAIR(x), "cdr", "a pair", x) acc = CDR(x))
    UNARY(CAAR, NEED(IS_PAIR(x) && IS_PAIR(CAR(x)), "caar", "a pair", x) acc = CAR(CAR(x)))
    UNARY(CADR, NEED(IS_PAIR(x) && IS_PAIR(CDR(x)), "cadr", "a pair", x) acc = CAR(CDR(x)))
    UNARY(CDAR, NEED(IS_PAIR(x) && IS_PAIR(CAR(x)), "cdar", "a pair", x) acc = CDR(CAR(x)))
    UNARY(CDDR, NEED(IS_PAIR(x) && IS_PAIR(CDR(x)), "cddr", "a pair", x) acc = CDR(CDR(x)))
    UNARY(NOT, acc = BOOL(x == FALSE))
    UNARY(VECTOR_LENGTH, NEED(IS(x, T_VECTOR), "vector-length", "a vector", x) acc = FIX(LENGTH(x)))
#define BINARY(op, ...)                                                                                                \
    L_##op##_S: x = *--sp; goto do_##op;                                                                                \
    L_##op##_L: x = fp[A]; /* fallthrough */                                                                            \
    do_##op: { __VA_ARGS__ } NEXT();
#define INDEX(who, i, length) if (unlikely(!IS_FIX(i) || (uint64_t)UNFIX(i) >= (uint64_t)(length))) { \
        SAVE(); index_arg(v, who, i, (length) - 1); }
    BINARY(CONS, {
        sp[0] = x, sp[1] = acc; /* rooted while the pair is allocated */
        v->sp = sp + 2, v->ip = ip, v->fp = fp; acc = cons_unrooted(v, x, acc);
    })
    BINARY(VECTOR_REF, {
        NEED(IS(x, T_VECTOR), "vector-ref", "a vector", x)
        INDEX("vector-ref", acc, LENGTH(x))
        acc = VECTOR(x)->item[UNFIX(acc)];
    })
    BINARY(STRING_REF, {
        NEED(IS(x, T_STRING), "string-ref", "a string", x)
        INDEX("string-ref", acc, LENGTH(x))
        acc = CHAR(STRING(x)->ch[UNFIX(acc)]);
    })
    BINARY(QUOTIENT, {
        if (likely(BOTH_FIX(x, acc) && UNFIX(acc) > 0)) acc = FIX(UNFIX(x) / UNFIX(acc));
        else { SAVE(); acc = number_quotient(v, x, acc); }
    })
    BINARY(REMAINDER, {
        if (likely(BOTH_FIX(x, acc) && UNFIX(acc) > 0)) acc = FIX(UNFIX(x) % UNFIX(acc));
        else { SAVE(); acc = number_remainder(v, x, acc); }
    })
    BINARY(SET_CAR, NEED(IS_PAIR(x), "set-car!", "a pair", x) store(v, x, &CAR(x), acc); acc = UNSPECIFIED;)
    BINARY(SET_CDR, NEED(IS_PAIR(x), "set-cdr!", "a pair", x) store(v, x, &CDR(x), acc); acc = UNSPECIFIED;)
    L_VECTOR_SET:
        x = sp[-2], y = sp[-1], sp -= 2;
        NEED(IS(x, T_VECTOR), "vector-set!", "a vector", x)
        INDEX("vector-set!", y, LENGTH(x))
        store(v, x, &VECTOR(x)->item[UNFIX(y)], acc), acc = UNSPECIFIED; NEXT();

    /* ---- an inlined primitive that the program has redefined: an ordinary call ---- */
#define GENERIC(pop, count, ...)                                                                                        \
    {                                                                                                                   \
        Value args_[] = {__VA_ARGS__};                                                                                  \
        n = count, sp -= pop, s = prim_symbol[w & 255];                                                                 \
        sp[0] = (Value)((char *)fp - base), sp[1] = (uintptr_t)ip, sp[2] = GLOBAL_AT(s), sp += 3;                       \
        for (int i = 0; i < n; i++) *sp++ = args_[i];                                                                   \
        goto do_call;                                                                                                   \
    }
    G_A: GENERIC(0, 1, acc)
    G_L1: GENERIC(0, 1, fp[A])
    G_S: GENERIC(1, 2, sp[-1], acc)
    G_L2: GENERIC(0, 2, fp[A], acc)
    G_I: GENERIC(0, 2, acc, FIX(A))
    G_3: GENERIC(2, 3, sp[-2], sp[-1], acc)
}
