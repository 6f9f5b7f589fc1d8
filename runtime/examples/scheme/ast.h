/* What the analyser makes of a form and the code generator reads: a tree in an arena that lives for one toplevel form. The
 * Values in it (constants, names) are rooted because everything made while compiling is held on the VM stack. */
#ifndef AST_H
#define AST_H
#include "scheme.h"

struct var {
    Value id;
    int refs;      /* so far */
    bool mutated;  /* lives in a box: closures and continuations share it */
    struct function *owner; /* code generator: the function whose frame it is in, and where */
    int slot;
};
struct binding { Value id; struct var *var; Value macro; struct binding *next; };
struct scope { struct scope *up; struct binding *bindings; };

enum node_kind { N_CONST, N_LOCAL, N_GLOBAL, N_SET, N_SET_GLOBAL, N_DEFINE, N_IF, N_AND, N_OR, N_SEQ, N_LAMBDA, N_LET, N_LETREC,
                 N_LOOP, N_AGAIN, N_CALL };
struct node {
    enum node_kind kind;
    int line, n;        /* n: kids, or variables of a binding form (then kids[n] is the body) */
    bool rest;          /* LAMBDA: the last variable takes the other arguments */
    Value value;        /* CONST; GLOBAL, SET_GLOBAL, DEFINE: the symbol; LAMBDA: its name or 0 */
    struct var *var, **vars;
    struct node **kids, *target; /* AGAIN: the loop */
    struct function *loop_owner; /* LOOP, code generator */
    int loop_slot, loop_start;
};

enum special { S_QUOTE, S_IF, S_DEFINE, S_SET, S_LAMBDA, S_BEGIN, S_LET, S_LETREC, S_AND, S_OR, S_QUASIQUOTE, S_DEFINE_SYNTAX, S_LET_SYNTAX,
               S_SYNTAX_ERROR, S_INCLUDE, S_INCLUDE_CI, SPECIALS };

struct compiler { int line, depth; const char *file; };

struct binding *resolve(Value id, struct scope *, Value *global); /* NULL: *global is the symbol */
bool is_keyword(Value form, struct scope *, int global);          /* an identifier that means this symbol */
struct node *analyze(vm *, Value form, struct scope *);
struct node *node_new(vm *, enum node_kind, int n);
struct node *analyze_body(vm *, Value forms, struct scope *);
Value expand_include(vm *, Value form, bool fold);
Value expand_quasi(vm *, Value form, int depth, struct scope *);
Value build(vm *, const char *first, int n, ...); /* a held list; `first`, if any, is the global of that name, whatever is in scope */
#endif
