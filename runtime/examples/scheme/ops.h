/* The bytecode. An instruction is a 32-bit word, operation in the low byte and a signed 24-bit operand `a` above it;
 * CONST and GLOBAL kinds are followed by a Value in two words. The machine: an accumulator, a stack, and a frame pointer.
 *
 * Inlined primitives come in modes, which say where the operands are: A (acc), L (fp[a]; the second operand, if any, in
 * acc), S (popped, then acc), I (acc, then the fixnum a). Tests also have _BR forms: the next word is a JUMP_FALSE, and
 * the test takes its jump itself. */
#ifndef OPS_H
#define OPS_H

#define OPS_TEST1(X, op) X(op##_A) X(op##_L) X(op##_A_BR) X(op##_L_BR)
#define OPS_TEST2(X, op) X(op##_S) X(op##_L) X(op##_I) X(op##_S_BR) X(op##_L_BR) X(op##_I_BR)
#define OPS_ARITH(X, op) X(op##_S) X(op##_L) X(op##_I)
#define OPS_UNARY(X, op) X(op##_A) X(op##_L)
#define OPS_BINARY(X, op) X(op##_S) X(op##_L)
#define OPS(X)                                                                                                          \
    X(HALT) X(CONST) X(FIXNUM) X(LOCAL) X(FREE) X(LOCAL_BOX) X(FREE_BOX) X(GLOBAL)                                      \
    X(PUSH) X(PUSH_CONST) X(PUSH_FIXNUM) X(PUSH_LOCAL) X(PUSH_FREE) X(PUSH_GLOBAL) X(POP)                               \
    X(SET_LOCAL) X(SET_LOCAL_BOX) X(SET_FREE_BOX) X(SET_GLOBAL) X(DEFINE_GLOBAL) X(BOX_LOCAL)                           \
    X(JUMP) X(JUMP_FALSE) X(JUMP_TRUE) X(LOOP) X(FRAME) X(CALL) X(TAIL_CALL) X(CALL_GLOBAL) X(TAIL_CALL_GLOBAL)         \
    X(RETURN) X(CLOSURE) X(PATCH)                                                                                       \
    OPS_TEST1(X, NULLP) OPS_TEST1(X, PAIRP) OPS_TEST2(X, EQ) OPS_TEST2(X, EQV) OPS_TEST2(X, LT) OPS_TEST2(X, GT) OPS_TEST2(X, LE)         \
    OPS_TEST2(X, GE) OPS_TEST2(X, NUM_EQ) OPS_ARITH(X, ADD) OPS_ARITH(X, SUB) OPS_ARITH(X, MUL)                         \
    OPS_UNARY(X, CAR) OPS_UNARY(X, CDR) OPS_UNARY(X, CAAR) OPS_UNARY(X, CADR) OPS_UNARY(X, CDAR) OPS_UNARY(X, CDDR)     \
    OPS_UNARY(X, NOT) OPS_UNARY(X, VECTOR_LENGTH) OPS_BINARY(X, CONS) OPS_BINARY(X, VECTOR_REF) OPS_BINARY(X, QUOTIENT) \
    OPS_BINARY(X, REMAINDER) OPS_BINARY(X, SET_CAR) OPS_BINARY(X, SET_CDR) OPS_BINARY(X, STRING_REF) X(VECTOR_SET)

#define OP_ENUM(op) OP_##op,
enum { OPS(OP_ENUM) OP_COUNT };

enum prim_class { PRIM_TEST1, PRIM_TEST2, PRIM_ARITH, PRIM_UNARY, PRIM_BINARY, PRIM_TERNARY };
struct prim { const char *name; uint8_t op, class; }; /* op: the first mode of its family */
extern const struct prim prims[];
enum { MODE_A, MODE_L1, MODE_S, MODE_L2, MODE_I, MODE_3 };
int prim_modes(int class, int modes[6]); /* how many operations the family has, and the mode of each */

#endif
