/* From the tree to bytecode. Each function knows statically how deep its frame is at every instruction, so locals and
 * temporaries are all reached from fp. Closures are flat: they copy the variables (or the boxes) that they use. */
#include "ast.h"
#include "ops.h"

struct function {
    uint32_t *ops, *lines; Value *constants;
    int op_count, op_room, line_count, line_room, constant_count, constant_room; struct var **free;
    int free_count, free_room, depth, max_depth, last_line;
};

static besom_layout code_layout;
void boot_compiler(void) {
    if (BESOM_LAYOUT(heap, &code_layout, struct code, ops, constants, name, lines) != BESOM_OK) abort();
}

/* Arrays grow in the arena: garbage of at most their own size, gone with it. */
#define GROW(v, array, count, room)                                                                                     \
    do {                                                                                                                \
        if ((count) == (room)) {                                                                                        \
            (room) = (room) ? 2 * (room) : 8;                                                                           \
            void *p_ = arena_alloc(v, sizeof *(array) * (size_t)(room));                                                \
            if (count) memcpy(p_, array, sizeof *(array) * (size_t)(count));                                            \
            (array) = p_;                                                                                               \
        }                                                                                                               \
    } while (0)

static int emit_word(vm *v, struct function *f, uint32_t word) {
    GROW(v, f->ops, f->op_count, f->op_room); f->ops[f->op_count] = word; return f->op_count++;
}

static int emit(vm *v, struct function *f, int op, int a) {
    if (a >= 1 << 23 || a < -(1 << 23)) syntax_error(v, "procedure too large", UNSPECIFIED);
    return emit_word(v, f, (uint32_t)op | (uint32_t)a << 8);
}

static void emit_value(vm *v, struct function *f, Value x) {
    emit_word(v, f, (uint32_t)x), emit_word(v, f, (uint32_t)(x >> 32));
    if (!IS_POINTER(x)) return;
    GROW(v, f->constants, f->constant_count, f->constant_room); f->constants[f->constant_count++] = x;
}

static void at_line(vm *v, struct function *f, int line) {
    if (line == f->last_line || line == 0) return;
    f->last_line = line;
    if (f->line_count + 2 > f->line_room) { int room = f->line_room; GROW(v, f->lines, room, f->line_room); }
    f->lines[f->line_count++] = (uint32_t)f->op_count, f->lines[f->line_count++] = (uint32_t)line;
}

static void deeper(struct function *f, int n) {
    f->depth += n;
    if (f->depth > f->max_depth) f->max_depth = f->depth;
}

static int free_index(vm *v, struct function *f, struct var *x) {
    for (int i = 0; i < f->free_count; i++)
        if (f->free[i] == x) return i;
    GROW(v, f->free, f->free_count, f->free_room); f->free[f->free_count] = x; return f->free_count++;
}

struct patch { int at; struct patch *next; };
static void jump_to(vm *v, struct function *f, struct patch **list, int op) {
    struct patch *p = arena_alloc(v, sizeof *p); p->at = emit(v, f, op, 0), p->next = *list, *list = p;
}
static void land(struct function *f, struct patch *p) {
    for (; p; p = p->next) f->ops[p->at] = (f->ops[p->at] & 255) | (uint32_t)(f->op_count - p->at - 1) << 8;
}

static void gen(vm *, struct function *, struct node *, bool tail);

static bool is_small(struct node *t) { return t->kind == N_CONST && IS_FIX(t->value) && UNFIX(t->value) < 1 << 22 && UNFIX(t->value) > -(1 << 22); }
static bool is_local(struct function *f, struct node *t) { return t->kind == N_LOCAL && t->var->owner == f && !t->var->mutated; }

static void gen_push(vm *v, struct function *f, struct node *t) {
    if (is_small(t)) emit(v, f, OP_PUSH_FIXNUM, (int)UNFIX(t->value));
    else if (t->kind == N_CONST) emit(v, f, OP_PUSH_CONST, 0), emit_value(v, f, t->value);
    else if (is_local(f, t)) emit(v, f, OP_PUSH_LOCAL, t->var->slot);
    else if (t->kind == N_LOCAL && t->var->owner != f && !t->var->mutated) emit(v, f, OP_PUSH_FREE, free_index(v, f, t->var));
    else if (t->kind == N_GLOBAL) at_line(v, f, t->line), emit(v, f, OP_PUSH_GLOBAL, 0), emit_value(v, f, t->value);
    else gen(v, f, t, false), emit(v, f, OP_PUSH, 0);
    deeper(f, 1);
}

static void place(struct function *f, struct var *x, int slot) { x->owner = f, x->slot = slot; }
static void box(vm *v, struct function *f, struct var *x) { if (x->mutated) emit(v, f, OP_BOX_LOCAL, x->slot); }

/* ---- inlined primitives ---- */
static const struct prim *primitive_of(struct node *t, struct node **args, int *n) {
    if (t->kind != N_CALL || t->kids[0]->kind != N_GLOBAL || SYMBOL(t->kids[0]->value)->prim == 0) return NULL;
    const struct prim *p = &prims[SYMBOL(t->kids[0]->value)->prim / 2];
    *n = t->n - 1;
    for (int i = 0; i < *n && i < 3; i++) args[i] = t->kids[i + 1];
    int want = p->class == PRIM_TEST1 || p->class == PRIM_UNARY ? 1 : p->class == PRIM_TERNARY ? 3 : 2;
    return *n == want || (p->class == PRIM_ARITH && *n > 2) ? p : NULL;
}

/* Operands to their places; the operation's offset in its family says where they are. */
static int gen_operands(vm *v, struct function *f, const struct prim *p, struct node **arg, int line) {
    deeper(f, 4), f->depth -= 4; /* what CONS roots, or the generic call pushes */
    switch (p->class) {
    case PRIM_TEST1: case PRIM_UNARY:
        if (is_local(f, arg[0])) return at_line(v, f, line), emit(v, f, p->op + 1, arg[0]->var->slot);
        gen(v, f, arg[0], false), at_line(v, f, line); return emit(v, f, p->op, 0);
    case PRIM_TERNARY:
        gen_push(v, f, arg[0]), gen_push(v, f, arg[1]), gen(v, f, arg[2], false); f->depth -= 2, at_line(v, f, line);
        return emit(v, f, p->op, 0);
    }
    bool commutes = p->op == OP_ADD_S || p->op == OP_MUL_S || p->op == OP_EQ_S || p->op == OP_EQV_S;
    if (commutes && (is_small(arg[0]) || (p->op >= OP_EQ_S && p->op <= OP_EQV_S && arg[0]->kind == N_CONST))) {
        struct node *t = arg[0]; arg[0] = arg[1], arg[1] = t;
    }
    if (p->class != PRIM_BINARY && is_small(arg[1])) {
        gen(v, f, arg[0], false), at_line(v, f, line); return emit(v, f, p->op + 2, (int)UNFIX(arg[1]->value));
    }
    if (is_local(f, arg[0])) {
        gen(v, f, arg[1], false), at_line(v, f, line); return emit(v, f, p->op + 1, arg[0]->var->slot);
    }
    gen_push(v, f, arg[0]), gen(v, f, arg[1], false); f->depth--, at_line(v, f, line); return emit(v, f, p->op, 0);
}

static bool gen_primitive(vm *v, struct function *f, struct node *t) {
    struct node *args[3]; int n; const struct prim *p = primitive_of(t, args, &n);
    if (!p) return false;
    gen_operands(v, f, p, args, t->line);
    for (int i = 3; p->class == PRIM_ARITH && i < t->n; i++) { /* (+ a b c ...): from the left */
        emit(v, f, OP_PUSH, 0), deeper(f, 1);
        gen(v, f, t->kids[i], false); at_line(v, f, t->line); emit(v, f, p->op, 0), f->depth--;
    }
    return true;
}

/* Jumps when the truth of t is `sense`, else falls through. */
static void gen_branch(vm *v, struct function *f, struct node *t, bool sense, struct patch **out) {
    struct node *args[3]; struct patch *skip = NULL; int n;
    if (t->kind == N_CONST) {
        if ((t->value != FALSE) == sense) jump_to(v, f, out, OP_JUMP);
        return;
    }
    if ((t->kind == N_AND || t->kind == N_OR) && t->n > 0) {
        bool early = t->kind == N_OR; /* the truth that decides before the last */
        for (int i = 0; i < t->n - 1; i++) gen_branch(v, f, t->kids[i], early, early == sense ? out : &skip);
        gen_branch(v, f, t->kids[t->n - 1], sense, out); land(f, skip); return;
    }
    const struct prim *p = primitive_of(t, args, &n);
    if (p && p->op == OP_NOT_A) return gen_branch(v, f, args[0], !sense, out);
    if (p && (p->class == PRIM_TEST1 || p->class == PRIM_TEST2)) {
        int at = gen_operands(v, f, p, args, t->line);
        f->ops[at] += p->class == PRIM_TEST1 ? 2 : 3; /* the _BR form */
        if (!sense) jump_to(v, f, out, OP_JUMP_FALSE);
        else emit(v, f, OP_JUMP_FALSE, 1), jump_to(v, f, out, OP_JUMP);
        return;
    }
    gen(v, f, t, false); jump_to(v, f, out, sense ? OP_JUMP_TRUE : OP_JUMP_FALSE);
}

/* ---- functions ---- */
static Value finish(vm *v, struct function *f, struct node *fn) {
    besom_mutator *m = v->m; Value *base = v->sp, constants = hold(v, make_object(v, T_VECTOR, f->constant_count, 0));
    for (int i = 0; i < f->constant_count; i++) FIELD(constants, i) = f->constants[i];
    void *ops = NULL, *lines = NULL; /* plain pointers, so rooted by a frame rather than held */
    struct code *c = NULL; BESOM_FRAME(m, &ops, &lines);
    ops = besom_alloc(m, sizeof(uint32_t) * (size_t)f->op_count, BESOM_NOSCAN);
    lines = besom_alloc(m, sizeof(uint32_t) * (size_t)(f->line_count + 4), BESOM_NOSCAN);
    if (ops && lines) c = besom_new(m, code_layout);
    BESOM_FRAME_END(m);
    if (!c) alloc_slow_error(v);
    memcpy(ops, f->ops, sizeof(uint32_t) * (size_t)f->op_count);
    if (f->line_count) memcpy(lines, f->lines, sizeof(uint32_t) * (size_t)f->line_count);
    c->header = HEADER(T_CODE, 0), c->ops = ops, c->lines = lines, c->constants = ADDRESS(constants);
    c->name = fn && fn->value ? ADDRESS(fn->value) : NULL, c->file = v->compiler->file;
    c->line_count = (uint32_t)f->line_count / 2, c->rest = fn && fn->rest;
    c->params = fn ? (uint32_t)(fn->n - fn->rest) : 0, c->frame_size = (uint32_t)f->max_depth + 8;
    return v->sp = base, TAGGED(c, TAG_OBJECT);
}

static struct function *gen_lambda(vm *v, struct function *f, struct node *t) {
    struct function *inner = arena_alloc(v, sizeof *inner);
    for (int i = 0; i < t->n; i++) place(inner, t->vars[i], i);
    deeper(inner, t->n);
    for (int i = 0; i < t->n; i++) box(v, inner, t->vars[i]);
    at_line(v, inner, t->line); gen(v, inner, t->kids[0], true); Value code = hold(v, finish(v, inner, t));
    for (int i = 0; i < inner->free_count; i++) {
        struct var *x = inner->free[i];
        if (x->owner == f) emit(v, f, OP_PUSH_LOCAL, x->slot);
        else emit(v, f, OP_PUSH_FREE, free_index(v, f, x));
    }
    deeper(f, inner->free_count), f->depth -= inner->free_count;
    emit(v, f, OP_CLOSURE, inner->free_count), emit_value(v, f, code); return inner;
}

static void gen_letrec(vm *v, struct function *f, struct node *t) {
    int n = t->n;
    for (int i = 0; i < n; i++) {
        emit(v, f, OP_PUSH_CONST, 0), emit_value(v, f, UNBOUND); place(f, t->vars[i], f->depth), deeper(f, 1);
        box(v, f, t->vars[i]);
    }
    struct function **made = arena_alloc(v, sizeof(void *) * (size_t)n);
    for (int i = 0, run = 0; i < n; i++) {
        if (t->kids[i]->kind == N_LAMBDA) made[i] = gen_lambda(v, f, t->kids[i]);
        else gen(v, f, t->kids[i], false);
        emit(v, f, t->vars[i]->mutated ? OP_SET_LOCAL_BOX : OP_SET_LOCAL, t->vars[i]->slot);
        if (!made[i]) run = i + 1;
        else if (i + 1 == n || t->kids[i + 1]->kind != N_LAMBDA) { /* the end of a run: closures get those made after them */
            for (int a = run; a <= i; a++)
                for (int j = 0; j < made[a]->free_count; j++)
                    for (int b = a; b <= i; b++)
                        if (made[a]->free[j] == t->vars[b] && !t->vars[b]->mutated) {
                            emit(v, f, t->vars[a]->mutated ? OP_LOCAL_BOX : OP_LOCAL, t->vars[a]->slot);
                            emit(v, f, OP_PATCH, j), emit_word(v, f, (uint32_t)t->vars[b]->slot);
                        }
            run = i + 1;
        }
    }
}

static void gen_call(vm *v, struct function *f, struct node *t, bool tail) {
    struct node *callee = t->kids[0]; bool global = callee->kind == N_GLOBAL; int depth = f->depth, n = t->n - 1;
    if (!tail) {
        emit(v, f, OP_FRAME, 0), deeper(f, 3);
        if (!global) gen(v, f, callee, false), emit(v, f, OP_SET_LOCAL, f->depth - 1);
    } else if (global) emit(v, f, OP_PUSH_FIXNUM, 0), deeper(f, 1);
    else gen_push(v, f, callee);
    for (int i = 1; i <= n; i++) gen_push(v, f, t->kids[i]);
    at_line(v, f, t->line);
    emit(v, f, global ? (tail ? OP_TAIL_CALL_GLOBAL : OP_CALL_GLOBAL) : (tail ? OP_TAIL_CALL : OP_CALL), n);
    if (global) emit_value(v, f, callee->value);
    f->depth = depth;
}

static void gen(vm *v, struct function *f, struct node *t, bool tail) {
    struct patch *no = NULL, *end = NULL; int depth = f->depth; at_line(v, f, t->line);
    switch (t->kind) {
    case N_CONST:
        if (is_small(t)) emit(v, f, OP_FIXNUM, (int)UNFIX(t->value));
        else emit(v, f, OP_CONST, 0), emit_value(v, f, t->value);
        break;
    case N_LOCAL:
        if (t->var->owner == f) emit(v, f, t->var->mutated ? OP_LOCAL_BOX : OP_LOCAL, t->var->slot);
        else emit(v, f, t->var->mutated ? OP_FREE_BOX : OP_FREE, free_index(v, f, t->var));
        break;
    case N_GLOBAL: emit(v, f, OP_GLOBAL, 0), emit_value(v, f, t->value); break;
    case N_SET:
        gen(v, f, t->kids[0], false);
        if (t->var->owner == f) emit(v, f, OP_SET_LOCAL_BOX, t->var->slot);
        else emit(v, f, OP_SET_FREE_BOX, free_index(v, f, t->var));
        break;
    case N_SET_GLOBAL: case N_DEFINE:
        gen(v, f, t->kids[0], false);
        emit(v, f, t->kind == N_DEFINE ? OP_DEFINE_GLOBAL : OP_SET_GLOBAL, 0), emit_value(v, f, t->value);
        break;
    case N_IF:
        gen_branch(v, f, t->kids[0], false, &no); gen(v, f, t->kids[1], tail);
        if (!tail && t->kids[1]->kind != N_AGAIN) jump_to(v, f, &end, OP_JUMP);
        land(f, no); gen(v, f, t->kids[2], tail); land(f, end);
        return;
    case N_AND: case N_OR:
        for (int i = 0; i < t->n - 1; i++) gen(v, f, t->kids[i], false), jump_to(v, f, &end, t->kind == N_AND ? OP_JUMP_FALSE : OP_JUMP_TRUE);
        gen(v, f, t->kids[t->n - 1], tail); land(f, end); break;
    case N_SEQ:
        for (int i = 0; i < t->n - 1; i++)
            if (t->kids[i]->kind != N_CONST && t->kids[i]->kind != N_LOCAL) gen(v, f, t->kids[i], false);
        gen(v, f, t->kids[t->n - 1], tail); return;
    case N_LAMBDA: gen_lambda(v, f, t); break;
    case N_LET: case N_LOOP:
        for (int i = 0; i < t->n; i++) gen_push(v, f, t->kids[i]);
        for (int i = 0; i < t->n; i++) place(f, t->vars[i], depth + i);
        t->loop_slot = depth, t->loop_start = f->op_count;
        for (int i = 0; i < t->n; i++) box(v, f, t->vars[i]);
        gen(v, f, t->kids[t->n], tail);
        if (!tail && t->n) emit(v, f, OP_POP, t->n);
        f->depth = depth; return;
    case N_LETREC:
        gen_letrec(v, f, t); gen(v, f, t->kids[t->n], tail);
        if (!tail) emit(v, f, OP_POP, t->n);
        f->depth = depth; return;
    case N_AGAIN:
        for (int i = 1; i < t->n; i++) gen_push(v, f, t->kids[i]);
        emit(v, f, OP_LOOP, t->n - 1), emit_word(v, f, (uint32_t)t->target->loop_slot);
        emit_word(v, f, (uint32_t)(t->target->loop_start - f->op_count + 1)); f->depth = depth; return;
    case N_CALL:
        if (gen_primitive(v, f, t)) break;
        gen_call(v, f, t, tail);
        if (tail) return;
        break;
    }
    if (tail) emit(v, f, OP_RETURN, 0);
}

Value compile(vm *v, Value form) {
    struct compiler state = {.file = "<eval>"}; struct function *f; Value *base = v->sp;
    hold(v, form); arena_reset(v); v->compiler = &state;
    const char *file;
    if (IS_PAIR(form) && (state.line = position_of(v, form, &file)) != 0) state.file = file;
    struct node *t = analyze(v, form, NULL); f = arena_alloc(v, sizeof *f);
    gen(v, f, t, booting); /* not a tail: its frame tells an error at the toplevel where it is */
    if (!booting) emit(v, f, OP_RETURN, 0);
    v->compiler->line = 0; Value code = hold(v, finish(v, f, NULL)); Value c = make_object(v, T_CLOSURE, 1, 0);
    CLOSURE(c)->code = code; v->compiler = NULL; arena_reset(v);
    return v->sp = base, c;
}
